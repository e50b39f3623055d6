"""The daily digest: when it is due, what it counts, how it reads, and that a day has one (CONTRACT 3)."""

import json
import os
import random
import time
import unittest

from tests import ops
from tests.test_engine import MOVING, STOPPED, Installation, check, long_job, sh, write
from tests.test_voice import HOLE, ThirdLanguage

MIDNIGHT = 86400.0 * 19675
HOUR = 3600.0


def instant(hours, shift=0.0):
    """So many hours after midnight, on a wall clock that is `shift` hours ahead."""
    at = MIDNIGHT + hours * HOUR
    return ops.Instant(at, minute=int((at + shift * HOUR) // 60) % 1440)


# (sentence, digestAt, hours of the last one (None: none yet), hours now, reason, hours of the next change)
DUE = [
    ("the first time is waited for", "08:00", None, 12, "digest.first", 32),
    ("unless it is that minute", "08:00", None, 8.01, "digest.now", None),
    ("a minute later it is waited for again", "08:00", None, 8.02, "digest.first", 32),
    ("what was anchored at yesterday's time is due at today's", "08:00", -16, 8, "digest.now", None),
    ("not a minute before", "08:00", -16, 7.99, "digest.told", 8),
    ("told is told, in that minute", "08:00", 8.001, 8.01, "digest.told", 32),
    ("and for the rest of the day", "08:00", 8.001, 31.99, "digest.told", 32),
    ("the next day is another one", "08:00", 8.001, 32, "digest.now", None),
    ("a missed one comes late", "08:00", 8, 41.5, "digest.now", None),
    ("once", "08:00", 41.5, 41.6, "digest.told", 56),
    ("several missed ones are one", "08:00", 8, 8 + 24 * 9 + 3, "digest.now", None),
    ("twelve hours stand between two, however late the last one was", "08:00", 23, 32, "digest.told", 35),
    ("then it comes", "08:00", 23, 35, "digest.now", None),
    ("midnight is a time as well", "00:00", -24, 0, "digest.now", None),
    ("and the minute before it", "23:59", -24.02, 23.99, "digest.now", None),
]


class WhenItIsDue(unittest.TestCase):
    def test_each_moment_has_its_reason(self):
        for sentence, wanted, last, hours, key, again in DUE:
            with self.subTest(sentence):
                reason = ops.digest_reason(wanted, 0.0 if last is None else MIDNIGHT + last * HOUR, instant(hours))
                self.assertEqual(reason.key, key)
                self.assertAlmostEqual(reason.again_at, 0.0 if again is None else MIDNIGHT + again * HOUR, delta=1.0)
                self.assertIn(key, ops.MESSAGES)

    def test_a_day_has_one_whatever_is_done_to_the_clock(self):
        """A week of ticks; in its middle, at any hour, the wall clock is put an hour forward or back."""
        for wanted in ("00:00", "02:30", "03:00", "08:00", "23:30"):
            for change in (-1, -0.5, 0, 0.5, 1):
                for changed_at in (72 + 2, 72 + 3, 72):
                    told, last_at = [], ops.last_digest_time(wanted, instant(-1 / 60))
                    for minute in range(int((7 * 24 - change) * 60)):
                        now = instant(minute / 60 + 0.002, change if minute / 60 >= changed_at else 0)
                        if ops.digest_reason(wanted, last_at, now).key == "digest.now":
                            told.append(now)
                            last_at = now.at
                    with self.subTest(wanted=wanted, change=change, changed_at=changed_at):
                        at = ops.minute_of_day(wanted)
                        self.assertEqual(len(told), 7)
                        late = [now.minute - at for now in told if now.minute != at]
                        self.assertLessEqual(len(late), 1, late)  # its minute was jumped over
                        self.assertTrue(all(0 < minutes <= 60 for minutes in late), late)

    def test_a_machine_that_is_off_at_random_gets_one_for_each_time_that_it_was_on_long_enough(self):
        for seed in range(20):
            rng, last_at, told, minute = random.Random(seed), MIDNIGHT - 1, [], 0
            while minute < 30 * 1440:
                now = instant(minute / 60)
                if ops.digest_reason("08:00", last_at, now).key == "digest.now":
                    told.append(now.at)
                    last_at = now.at
                minute += 1 if rng.random() < 0.999 else rng.randrange(3000)
            gaps = [after - before for before, after in zip(told, told[1:])]
            self.assertGreaterEqual(min(gaps), 12 * HOUR, seed)
            self.assertLessEqual(max(gaps), 36 * HOUR + 3000 * 60, seed)


def records(*rows):
    return [{"at": MIDNIGHT + hours * HOUR, "event": event, "job": "j", **facts} for hours, event, facts in rows]


def told(telling, kind="stopped"):
    return {"kind": kind, "telling": telling}


class WhatHistoryTells(unittest.TestCase):
    def day(self, *rows):
        return ops.days_of(records(*rows), MIDNIGHT)["j"]

    def test_runs_failures_resumes_verifications_and_completions_are_counted(self):
        rows = [(1, "run", {"code": 0}), (2, "run", {"code": 3}), (3, "run", {"code": None}), (4, "write ended", {"code": 0}), (5, "resume", {}),
                (6, "verification", {"result": "passed"}), (7, "verification", {"result": "failed"}), (8, "told", told("completed", "routine"))]  # fmt: skip
        counts = self.day(*rows)[0]
        self.assertEqual([counts[key] for key in ("run", "write ended", "failed", "resume", "verified", "completed")], [3, 1, 2, 1, 1, 1])

    TROUBLE = [
        ("what opened and was resolved", [(1, "opened"), (3, "resolved")], {}, 2),
        ("reminders and changes do not begin it anew", [(1, "opened"), (2, "reminder"), (3, "worse"), (4, "changed"), (5, "resolved")], {}, 4),
        ("what auto-resume told began then", [(1, "autorun"), (2, "resolved")], {}, 1),
        ("what was open before the last digest counts from there", [(2, "resolved")], {}, 2),
        ("several add up", [(1, "opened"), (2, "resolved"), (5, "opened"), (7, "resolved")], {}, 3),
        ("what is open counts to now", [(20, "opened")], {"stopped": 20}, 4),
        ("what was open all the time is all the time", [], {"stopped": -50}, 24),
        ("an end that was never told is not guessed", [(3, "opened")], {}, 0),
        ("what is told once is no span", [(3, "told")], {}, 0),
        ("two at once are one time", [(1, "opened"), (4, "opened", "level"), (5, "resolved"), (7, "resolved", "level")], {"unknown": 6}, 23),
    ]

    def test_time_in_trouble_adds_up(self):
        for sentence, rows, still_open, hours in self.TROUBLE:
            incidents = {kind: ops.Incident(since_at=MIDNIGHT + at * HOUR, opened_at=1.0) for kind, at in still_open.items()}
            days = ops.days_of(records(*[(at, "told", told(*telling)) for at, *telling in rows]), MIDNIGHT)
            item = ops.Summary(None, ops.Memory(incidents=incidents), ops.Gate(), {}, *days.get("j", ()))
            with self.subTest(sentence):
                self.assertEqual(ops.time_in_trouble(item, MIDNIGHT, MIDNIGHT + 24 * HOUR) / HOUR, hours)

    def test_records_of_any_shape_are_survived(self):
        odd = [None, [], {}, 5, "x", True, [{}]]
        rows = [{"at": MIDNIGHT, "event": event, "job": job, "telling": job, "kind": job, "code": event} for event in [*odd, "told", "run"] for job in odd]
        self.assertTrue(ops.days_of(rows, MIDNIGHT))


def summary(job_id, rank=0, kind="long_running_read", day=(), progress=None, **memory):
    commands = {"run": ["x"]} if kind != "long_running_read" else {"start": ["x"], "status": ["x"]}
    job = ops.make_job({"id": job_id, "kind": kind, "risk": "read_only", "enabled": True, "commands": commands}, {}, 0)
    incidents = {"stopped": ops.Incident(since_at=MIDNIGHT, opened_at=MIDNIGHT, rank=rank, key="stopped")} if rank else {}
    return ops.Summary(job, ops.Memory(**{"state": ops.RUNNING, "state_at": MIDNIGHT, "incidents": incidents, **memory}), ops.Gate(), progress or {}, *day)


def text_of(*items, lang="en", hours=24.0, notes=()):
    return ops.digest_text(lang, list(items), MIDNIGHT, MIDNIGHT + hours * HOUR, list(notes))


class HowItReads(unittest.TestCase):
    def test_the_worst_comes_first(self):
        hour = (ops.Counter(), [(MIDNIGHT, MIDNIGHT + HOUR)])
        items = [summary("fine"), summary("failed", day=(ops.Counter(failed=1), [])), summary("hour", day=hour), summary("warned", ops.WARN),
                 summary("wrong", ops.ALERT), summary("flapping", flapping_at=MIDNIGHT)]  # fmt: skip
        lines = [line.split(":")[0] for line in text_of(*items).split("\n") if not line.startswith(" ")]
        self.assertEqual(lines, ["🔴 wrong", "🟡 warned", "🟡 flapping", "🟡 hour", "🟡 failed", "🟢 fine"])

    def test_a_long_job_says_state_trouble_resumes_and_the_progress_made(self):
        day = (ops.Counter(resume=3, completed=1), [(MIDNIGHT, MIDNIGHT + HOUR)])
        item = summary("index", ops.ALERT, day=day, progress={"done": 40, "total": 80}, state=ops.STOPPED, state_at=MIDNIGHT + 21 * HOUR,
                       attempts=5, gave_up_at=1.0, digest_progress={"done": 28, "total": 80})  # fmt: skip
        self.assertEqual(text_of(item), "🔴 index: stopped 3h · open: stopped 1d\n   resumed: 3, attempts in a row now: 5 · gave up; waits for start"
                                        " · completed: 1 · in trouble: 1d in all · █████░░░░░ 50% · done: 40 (+12), total: 80")  # fmt: skip
        self.assertIn("🔴 index: 已停止 3h · 未解决：停止 1d\n   续跑：3，当前连续次数：5", text_of(item, lang="zh"))

    STATES = [
        ({"last_look": ops.UNKNOWN, "looked_at": MIDNIGHT + 23 * HOUR}, "unknown 1h"), ({"last_look": "waiting"}, "waiting 1d"),
        ({"state": ops.COMPLETED}, "completed 1d"), ({"state": ops.STOPPED, "held_at": 5.0}, "held 1d"), ({"state": ops.IDLE}, "idle 1d"),
        ({"state": ops.STOPPED, "last_look": "waiting"}, "stopped 1d"),
    ]  # fmt: skip

    def test_each_state_has_its_word_and_how_long_it_lasts(self):
        for memory, words in self.STATES:
            self.assertEqual(text_of(summary("j", **memory)), f"🟢 j: {words}")

    def test_checks_and_writes_say_what_ran_what_failed_and_what_is_verified(self):
        day = (ops.Counter({"run": 24, "failed": 2}), [])
        self.assertEqual(text_of(summary("disk", kind="one_shot_read", day=day, ran_at=5.0)), "🟡 disk: good\n   runs: 24, failed: 2")
        self.assertEqual(text_of(summary("disk", kind="one_shot_read")), "🟢 disk: never ran")
        day = (ops.Counter({"write ended": 1, "verified": 1}), [])
        item = summary("prune", kind="one_shot_write", day=day, ran_at=5.0)
        self.assertEqual(text_of(item), "🟢 prune: good\n   runs: 1, failed: 0 · verified: 1")
        self.assertIn("🟢 prune: unverified", text_of(item._replace(gate=ops.Gate(verify="pending", run_ended_at=MIDNIGHT + 24 * HOUR, verify_for=5.0))))

    def test_a_thousand_jobs_fit_in_one_section_and_the_rest_is_counted(self):
        for lang in ("en", "zh"):
            for name in ("任务" * 40, "j", "😀" * 64):
                items = [summary(f"{name}{number}", ops.ALERT if number % 3 else 0, progress={"done": number, name: name * 9}) for number in range(1000)]
                text = text_of(*items, lang=lang, notes=[ops.say(lang, "digest.disabled", count=7)])
                self.assertLessEqual(ops.utf16_length(text), ops.DIGEST_LIMIT + 80)
                lines = text.split("\n")
                shown = sum(line[0] in "🔴🟡🟢" for line in lines)
                self.assertEqual(lines[-2], ops.say(lang, "line.more", count=1000 - shown, command="ops-monitor.py status"))
                self.assertEqual(lines[-1], ops.say(lang, "digest.disabled", count=7))
                phrase = ops.Phrase("digest", {"time": "2025-11-24 08:00", "jobs": 1000, "count": 666, "lines": text})
                notify = ops.Notify("digest", "digest", ops.NOTICE, phrase)
                section = ops.section_text(lang, ops.say(lang, "name.monitor"), "", notify, str)
                entry = {"id": "a", "createdAt": 0.0, "notBefore": 0.0, "rank": 1, "text": section, "maybeSent": True}
                self.assertIn(lines[-2], ops.entry_text(lang, entry, 1e9, lambda at: "2025-11-24 08:00"), "a late one keeps its end")
                self.assertNotRegex(section, HOLE)
                self.assertNotIn("\n\n", section)


    def test_the_command_that_shows_the_rest_is_the_one_of_this_installation(self):
        see = "python3 ~/net/tools/ops-monitor.py status --state-file /s.json"
        text = ops.digest_text("en", [summary(f"j{number}") for number in range(500)], MIDNIGHT, MIDNIGHT + HOUR, [], see)
        self.assertIn(see, text.split("\n")[-1])


class NoWordOfItsOwn(ThirdLanguage):
    def test_in_no_language_at_all(self):
        day = (ops.Counter({"run": 1, "failed": 1, "resume": 1, "completed": 1, "verified": 1}), [(MIDNIGHT, MIDNIGHT + 1)])
        items = [summary(f"J{number}", rank, kind, day, {"done": 1, "total": 2}, attempts=1, gave_up_at=1.0, flapping_at=1.0, ran_at=1.0)
                 for number, (rank, kind) in enumerate([(ops.ALERT, "long_running_read"), (0, "one_shot_read"), (ops.WARN, "one_shot_write")])]  # fmt: skip
        notes = [ops.say("en", "digest." + key, count=1, time="12:00") for key in ("disabled", "broken", "partial")]
        phrase = ops.Phrase("digest", {"time": "12:00", "jobs": 3, "count": 1, "lines": text_of(*items * 99, notes=notes)})
        text = ops.section_text("en", "J", "", ops.Notify("digest", "digest", ops.NOTICE, phrase), str)
        self.assertEqual(self.words_in(text, ["ops-monitor.py status"]), [], text)


def in_an_hour():
    """digestAt an hour from now, in an installation's time zone."""
    return time.strftime("%H:%M", time.gmtime(time.time() + 3600))


class Installed(unittest.TestCase):
    LATER = 3600 + 60

    def home(self, *jobs, digest_at=None, **more):
        jobs = jobs or (long_job("index", autoResume=True), check("disk", "exit 3", everySeconds=600), write("prune", ":", "verify"), check("verify", ":"),
                        {**check("off", ":"), "enabled": False})  # fmt: skip
        home = Installation(self, *jobs, monitor={"digestAt": digest_at or in_an_hour(), **more})
        home.says("index", running=True, progress={"done": 40, "total": 80})
        return home

    def digests(self, home):
        return [text for text in home.told if "daily digest" in text or "每日摘要" in text]

    def test_the_first_tick_anchors_it_and_its_time_brings_it_once(self):
        home = self.home()
        home.tick()
        self.assertEqual(self.digests(home), [])
        home.says("index", running=True, progress={"done": 60, "total": 80})
        home.tick(later=self.LATER)
        (text,) = self.digests(home)
        self.assertRegex(text, r"📋 daily digest · ops-monitor itself\nsince \S+ \S+ · jobs: 4 · in trouble now: 1\n")
        self.assertRegex(text, r"🔴 disk: failed · open: failed 1h( \S+)?\n   runs: 2, failed: 2\n")
        self.assertRegex(text, r"🟢 index: running 1h( \S+)?\n   ███████░░░ 75% · done: 60, total: 80\n")
        self.assertIn("prune: never ran", text)
        self.assertIn("\ndisabled: 1\n\n", text + "\n\n")
        for later in (self.LATER, self.LATER + 60, self.LATER + 40_000):
            home.tick(later=later)
        self.assertEqual(len(self.digests(home)), 1)

    def test_the_second_one_tells_the_progress_made_since_the_first_and_only_what_ran_since(self):
        home = self.home()
        home.tick()
        home.tick(later=self.LATER)
        home.says("index", running=True, progress={"done": 52, "total": 80})
        home.tick(later=self.LATER + 86400)
        text = self.digests(home)[1]
        self.assertIn("done: 52 (+12), total: 80", text)
        self.assertIn("runs: 1, failed: 1", text)
        self.assertEqual(home.memory("index")["digestProgress"], {"done": 52, "total": 80})

    def test_enabled_at_its_own_minute_it_comes_at_once(self):
        home = self.home(digest_at=time.strftime("%H:%M", time.gmtime()))
        home.tick()
        self.assertLessEqual(len(self.digests(home)), 1)  # the minute may just have ended
        if time.strftime("%H:%M", time.gmtime()) == home.config["monitor"]["digestAt"]:
            self.assertEqual(len(self.digests(home)), 1)

    def test_it_does_not_ring_and_quiet_hours_do_not_hold_it(self):
        home = self.home(check("disk", ":"))
        home.config["defaults"] = {"quietHours": {"start": "00:00", "end": "23:59"}}
        home.config["delivery"]["command"] = sh('{ cat; echo "rings: $OPS_RINGS"; } >> told')
        home.configure()
        home.tick()
        home.tick(later=self.LATER)
        self.assertIn("disk: never ran", home.read("told"))
        self.assertIn("rings: 0", home.read("told"))

    def test_print_only_prints_it_and_a_dry_run_says_when_it_comes(self):
        home = self.home(language="zh")
        self.assertIn("每日摘要: 首次时间未到", home.call("tick", "--dry-run").out)
        home.tick()
        self.assertIn("每日摘要: 未到时间", home.call("tick", "--dry-run").out)
        self.assertIn("每日摘要: 应立即发送", home.call("tick", "--dry-run", later=self.LATER).out)
        self.assertEqual(self.digests(home), [])
        result = home.call("tick", "--print-only", later=self.LATER)
        self.assertIn("📋 每日摘要 · 监控程序自身\n自 ", result.out)
        home.tick(later=self.LATER + 60)
        self.assertEqual(self.digests(home), [], "what was printed is told")

    def test_one_that_could_not_be_sent_gives_way_to_the_next_days(self):
        home = self.home(check("disk", ":"))
        way = home.config["delivery"]
        home.tick()
        home.config["delivery"] = {"via": "none"}
        home.configure()
        for day in range(3):
            home.tick(later=self.LATER + day * 86400)
        self.assertEqual(len(home.state["outbox"]), 1)
        home.config["delivery"] = way
        home.configure()
        home.tick(later=self.LATER + 2 * 86400 + 3600)
        (text,) = self.digests(home)
        self.assertIn("(late: ", text)

    def test_without_it_nothing_is_kept_and_set_again_it_begins_anew(self):
        home = self.home()
        home.tick()
        home.tick(later=self.LATER)
        wanted = home.config["monitor"].pop("digestAt")
        home.configure()
        home.tick(later=self.LATER + 60)
        self.assertNotIn("digestAt", home.state["self"])
        self.assertNotIn("digestProgress", home.memory("index"))
        home.config["monitor"]["digestAt"] = wanted
        home.configure()
        home.tick(later=self.LATER + 40 * 86400 + 600)
        self.assertEqual(len(self.digests(home)), 1)

    def test_ticks_at_once_send_one(self):
        home = self.home()
        home.tick()
        gate, opener = os.pipe()
        begun = [home.begin("tick", later=self.LATER, gate=gate, bend=lambda: os.close(opener)) for _ in range(4)]
        os.close(gate)
        os.close(opener)
        for one in begun:
            home.end(one)
        home.tick(later=self.LATER + 60)
        self.assertEqual(len(self.digests(home)), 1)

    def test_a_tick_that_dies_anywhere_neither_loses_nor_repeats_it(self):
        steps = self.dying(0)
        for step in range(1, steps + 1, 2):
            self.dying(step)

    def dying(self, step):
        home = self.home(check("disk", ":"))
        home.tick()
        result = home.tick(later=self.LATER, die_before=step)
        home.tick(later=self.LATER + 60)
        home.tick(later=self.LATER + 120)
        texts = self.digests(home)
        with self.subTest(step=step):
            self.assertTrue(texts)
            self.assertLessEqual(len(texts), 2 if "spawn" in result.steps else 1, "one repeat a crash, at most")
        return len(result.steps)

    def test_a_history_that_is_torn_or_gone_costs_counts_not_the_digest(self):
        home = self.home(check("disk", ":", everySeconds=60))
        home.tick()
        path = home.state_path.replace(".json", ".history.jsonl")
        torn = b'{"at": 5, "event": "run"\n\xff\xfe{"at": NaN}\n[1]\n' + b"[" * 100_000 + b'\n{"at": "x"}\n{"at": -1e300, "event": {}}\n'
        home.put(path, torn + home.read(path).encode())
        home.tick(later=self.LATER)
        self.assertIn("runs: 2, failed: 0", self.digests(home)[0])
        os.unlink(path)
        os.mkdir(path)
        result = home.tick(later=self.LATER + 86400)
        self.assertEqual(result.code, 0)
        self.assertIn("the history begins at", self.digests(home)[1])

    def test_a_history_that_has_been_cut_since_the_last_one_says_so(self):
        home = self.home(check("disk", ":"))
        home.tick()
        path = home.state_path.replace(".json", ".history.jsonl")
        home.put(path + ".1", json.dumps({"at": time.time() + 60, "event": "run", "job": "disk", "code": 0}) + "\n")
        home.tick(later=self.LATER)
        self.assertIn("the history begins at ", self.digests(home)[0])

    def test_jobs_that_the_config_leaves_out_are_counted(self):
        home = self.home(check("disk", ":"), {**check("bad", ":"), "risk": "bold"})
        home.tick()
        self.assertEqual(home.tick(later=self.LATER).code, 2)
        self.assertIn("left out because of errors in the config: 1", self.digests(home)[0])

    def test_secrets_in_it_are_masked(self):
        home = self.home(long_job("index"))
        home.says("index", running=True, progress={"url": "https://me:hunter2@x", "done": 1})
        home.tick()
        home.tick(later=self.LATER)
        self.assertNotIn("hunter2", "".join(home.told) + home.read(home.state_path))

    def test_a_stopped_job_that_is_resumed_again_and_again_counts_its_attempts(self):
        home = self.home(long_job("index", autoResume=True, autoResumeBackoffSeconds=60))
        home.says("index", **STOPPED)
        home.tick()
        home.tick(later=120)
        home.says("index", **MOVING)
        home.tick(later=240)
        home.tick(later=self.LATER)
        self.assertRegex(self.digests(home)[0], r"🟡 index: running 5[67]m[^\n]*\n   resumed: 2, attempts in a row now: 0 · in trouble: 4m")


if __name__ == "__main__":
    unittest.main()
