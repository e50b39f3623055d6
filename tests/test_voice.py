"""The table of sentences, and how sections, messages, tables and reports are made of it."""

import ast
import contextlib
import functools
import io
import json
import os
import pathlib
import random
import re
import tempfile
import time
import unittest
from unittest import mock

from tests import SCRIPT, ops, test_judgement

TOKENS = ("ALERT", "ACTION REQUIRED", "RESOLVED", "COMPLETED", "AUTORUN", "BLOCKED")
HOLE = r"\{\w*\}"
NOON = 1.7e9
HEADER = "🛠️ Ops 快报（12:00:00）"


def clock_text(at):
    return time.strftime("%H:%M", time.gmtime(at))


def entry(text, rank=ops.ROUTINE, created_at=NOON, **more):
    return {"id": more.pop("id", text[:12]), "createdAt": created_at, "notBefore": created_at, "rank": rank, "text": text, **more}


def compose(entries, now=NOON, header=HEADER, **more):
    return ops.compose("en", entries, now, header, clock_text, **more)


@functools.cache
def syntax():
    """Every node of the script's syntax tree."""
    return list(ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))))


def calls(*names):
    """The calls of these functions in the script's source."""
    for node in syntax():
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in names:
            yield node


class TheTableOfSentences(unittest.TestCase):
    def test_every_row_has_english_and_chinese_with_the_same_holes(self):
        for key, row in ops.MESSAGES.items():
            with self.subTest(key):
                self.assertEqual(len(row), 2)
                english, chinese = (sorted(re.findall(HOLE, text)) for text in row)
                self.assertEqual(english, chinese)
                self.assertEqual(*(re.sub(HOLE, "", text).count("{") for text in row))
                self.assertTrue(all(text.strip() for text in row))

    def test_each_language_is_itself(self):
        for key, (english, chinese) in ops.MESSAGES.items():
            self.assertIsNone(re.search("[\u3000-\u9fff\uff00-\uffef]", english), key)
            if re.search("[a-z]{2}", re.sub(HOLE, "", english)):
                self.assertRegex(chinese, "[\u4e00-\u9fff]", key)

    def test_tokens_in_capitals_stand_in_both_languages_or_in_none(self):
        for key, row in ops.MESSAGES.items():
            for token in TOKENS:
                self.assertEqual(*(bool(re.search(rf"(?<![A-Z]){token}(?![A-Z])", text)) for text in row), (key, token))

    def test_holes_are_named_and_filled_with_words_alone(self):
        for key, row in ops.MESSAGES.items():
            for text in row:
                self.assertEqual(re.findall(r"\{[^}]*\}", text), re.findall(r"\{[a-z]\w*\}", text), key)

    def test_a_missing_or_empty_fact_shows_as_a_dash_and_never_as_an_error(self):
        self.assertEqual(ops.say("en", "stopped", reason=""), "stopped before it was complete; reason: -")
        for key in ops.MESSAGES:
            for lang in ("en", "zh", "tlh"):
                self.assertNotRegex(ops.say(lang, key), HOLE, key)

    def test_facts_that_look_like_holes_stay_facts(self):
        self.assertIn("{reason} {x.y} {0}", ops.say("en", "stopped", reason="{reason} {x.y} {0}"))

    def test_a_row_that_a_newer_state_names_is_shown_with_its_facts(self):
        self.assertEqual(ops.say("zh", "row.of.tomorrow", jobs="a, b"), "row.of.tomorrow jobs=a, b")

    def test_no_row_is_left_over(self):
        """Each key stands in the source besides the table, whole or as a prefix that is completed there."""
        words = [node.value for node in syntax() if isinstance(node, ast.Constant)]
        prefixes = tuple({word for word in words if isinstance(word, str) and re.fullmatch(r"[a-z]+\.", word)})
        self.assertEqual([key for key in ops.MESSAGES if words.count(key) < 2 and not key.startswith(prefixes)], [])

    def test_every_kind_of_incident_of_a_job_has_its_word(self):
        own = {"config", "config_file", "delivery", "after_tick"}  # the monitor's own troubles, told in whole sentences
        kinds = {node.args[0].value for node in calls("Finding") if isinstance(node.args[0], ast.Constant)} | {"flapping"}
        self.assertLessEqual({"unknown", "stopped", "stalled", "level", "failed", "attention"}, kinds)
        self.assertEqual([kind for kind in sorted(kinds - own) if f"topic.{kind}" not in ops.MESSAGES], [])

    def test_every_event_of_the_history_has_its_sentence_and_says_nothing_that_its_record_lacks(self):
        events = history_events()
        self.assertLessEqual({"told", "run", "start failed", "mute"}, set(events))
        for event, keys in events.items():
            row = ops.MESSAGES["event." + event.replace(" ", "_")]
            self.assertLessEqual(set(re.findall(r"\{(\w+)\}", row[0])), keys, event)
        for call in calls("record"):
            for by in (word.value for word in call.keywords if word.arg == "by"):
                self.assertIn("by." + by.value if isinstance(by, ast.Constant) else "by.hand", ops.MESSAGES)

    def test_every_state_has_its_word(self):
        for state in (ops.RUNNING, ops.COMPLETED, ops.STOPPED, ops.IDLE, ops.UNKNOWN, "held", "waiting"):
            self.assertIn("word." + state, ops.MESSAGES)


def history_events():
    """Event -> the keys that its records may have besides at, event and job, from the script's source."""
    found = {}
    for call in calls("record"):
        for name in test_judgement.literals(call.args[0]) if isinstance(call.func, ast.Attribute) else []:
            found.setdefault(name, set()).update(word.arg for word in call.keywords if word.arg)
    for call in calls("change_memory"):
        found[call.args[2].value] = {"who"}
    return found


@functools.cache
def notifications():
    """Every different notification that the stories of test_judgement bring about."""
    found = {}
    for story in test_judgement.STORIES:
        stage = test_judgement.Stage(story.job)
        for line in story.lines:
            stage.play(line.partition("->")[0])
            for effect in stage.effects:
                if isinstance(effect, ops.Notify):
                    found.setdefault((effect.kind, effect.telling, effect.rank, effect.phrase.key, effect.look is None), effect)
    return list(found.values())


class Sections(unittest.TestCase):
    def section(self, lang="en", advice="", **fields):
        phrase = ops.Phrase("stopped", {"reason": "exit 3"})
        notify = ops.Notify(**{"kind": "stopped", "telling": "opened", "rank": ops.ALERT, "phrase": phrase, **fields})
        return ops.section_text(lang, "Nightly index", "nightly", notify, clock_text, advice)

    def test_the_first_line_says_how_bad_what_and_which_job(self):
        rows = [
            ({}, "🔴 ACTION REQUIRED · Nightly index (nightly)"),
            ({"kind": "stalled"}, "🔴 ALERT · "),
            ({"kind": "failed"}, "🔴 ALERT · "),
            ({"kind": "stopped", "telling": "reminder"}, "🔴 ACTION REQUIRED · "),
            ({"kind": "blocked", "telling": "told"}, "🔴 ACTION REQUIRED · "),
            ({"kind": "level", "rank": ops.WARN}, "🟡 WARNING · "),
            ({"telling": "resolved", "rank": ops.NOTICE}, "🟢 RESOLVED · "),
            ({"telling": "autorun", "rank": ops.NOTICE}, "🔁 AUTORUN · "),
            ({"telling": "completed", "rank": ops.NOTICE}, "✅ COMPLETED · "),
            ({"telling": "routine", "rank": ops.ROUTINE}, "▶️ running · "),
        ]
        for fields, start in rows:
            self.assertTrue(self.section(**fields).startswith(start), self.section(**fields))

    def test_the_tokens_that_people_grep_for_are_the_same_in_chinese(self):
        for notify in notifications():
            english, chinese = (ops.section_text(lang, "J", "J", notify, clock_text).split("\n")[0] for lang in ("en", "zh"))
            for token in TOKENS:
                self.assertEqual(token in english, token in chinese)

    def test_a_section_of_an_autorun_asks_for_nothing(self):
        for notify in notifications():
            if notify.telling == "autorun":
                self.assertNotIn("ACTION REQUIRED", ops.section_text("en", "J", "J", notify, clock_text, "start J"))

    def test_a_section_shows_name_id_state_pid_reason_message_and_progress(self):
        look = ops.Observation(
            ops.Instant(NOON), ops.RUNNING, pid=4711, message="half way", progress={"done": ops.Written.read("40.50"), "phase": "索引", "ok": True}
        )
        text = self.section(kind="routine", telling="routine", rank=ops.ROUTINE, phrase=ops.Phrase("running"), look=look)
        self.assertEqual(text, "▶️ running · Nightly index (nightly)\nrunning, pid 4711\nhalf way\ndone: 40.50\nphase: 索引\nok: true")

    def test_a_stop_reason_is_said_once(self):
        look = ops.Observation(ops.Instant(NOON), ops.STOPPED, stop_reason="exit 3", message="bye")
        self.assertEqual(self.section(look=look).count("exit 3"), 1)
        self.assertIn("bye", self.section(look=look))

    def test_an_alert_of_a_failed_command_shows_its_last_lines_and_the_next_command(self):
        text = self.section(detail="Traceback\nKeyError: 5", advice="ops-monitor.py start nightly")
        self.assertTrue(text.endswith("last output:\nTraceback\nKeyError: 5\nnext: ops-monitor.py start nightly"), text)
        self.assertNotIn("next:", self.section(rank=ops.NOTICE, telling="resolved", advice="x"))

    def test_what_was_open_before_says_since_when(self):
        for telling in ("reminder", "resolved", "changed", "worse"):
            self.assertIn("since 22:13", self.section(telling=telling, since_at=NOON))
        self.assertNotIn("since", self.section(telling="opened", since_at=NOON))

    def test_the_reason_why_a_status_is_unknown_is_part_of_the_sentence(self):
        text = self.section(kind="unknown", phrase=ops.Phrase("status.json"))
        self.assertIn("the status cannot be told: the status answer is not JSON", text)

    def test_a_section_never_outgrows_its_limit(self):
        look = ops.Observation(
            ops.Instant(NOON), ops.RUNNING, message="😀" * 5000, progress={f"k{n}" * 50: "表" * 5000 for n in range(50)}, stop_reason="x" * 9000
        )
        for lang in ("en", "zh"):
            text = self.section(lang, look=look, detail="y" * 9000, kind="level", phrase=ops.Phrase("level", {"message": "😀" * 9000}))
            self.assertLessEqual(ops.utf16_length(text), ops.SECTION_LIMIT)

    def test_every_notification_of_the_stories_can_be_told_in_both_languages(self):
        found = notifications()
        self.assertGreater(len(found), 30)
        for notify in found:
            for lang in ("en", "zh"):
                text = ops.section_text(lang, "Job", "job", notify, clock_text, "ops-monitor.py explain job")
                self.assertNotRegex(text, HOLE)
                self.assertGreaterEqual(text.count("\n"), notify.telling != "routine")
                self.assertNotIn("\n\n", text, "sections are parted by blank lines, so none may hold one")


class Progress(unittest.TestCase):
    LINES = [
        ({"done": 40}, {}, ["done: 40"]),
        ({"done": 40}, {"done": 28}, ["done: 40 (+12)"]),
        ({"done": 28}, {"done": 40}, ["done: 28 (-12)"]),
        ({"done": 40}, {"done": 40}, ["done: 40"]),
        ({"done": 40}, {"done": "28"}, ["done: 40"]),
        ({"done": 40}, {"done": True}, ["done: 40"]),
        ({"done": True}, {"done": 0}, ["done: true"]),
        ({"gb": ops.Written.read("1.50")}, {"gb": 1.25}, ["gb: 1.50 (+0.25)"]),
        ({"n": ops.Written.read("1e3")}, {}, ["n: 1e3"]),
        ({"n": ops.Written.read("0.3")}, {"n": 0.1}, ["n: 0.3 (+0.2)"]),
        ({"n": 10**17 + 1}, {}, ["n: 100000000000000001"]),
        ({"phase": "索引", "none": None}, {"phase": "x"}, ["phase: 索引", "none: null"]),
        ({"list": [1, "二"], "object": {"a": 1}}, {}, ['list: [1, "二"]', 'object: {"a": 1}']),
        ({"two\nlines": "a\n b"}, {}, ["two lines: a b"]),
        ({}, {"done": 1}, []),
    ]

    def test_numbers_are_shown_as_written_and_with_the_difference(self):
        for progress, before, lines in self.LINES:
            self.assertEqual(ops.progress_lines(progress, before), lines)

    def test_no_numbers_make_an_exception_or_an_absurd_difference(self):
        numbers = [0, -1, 10**400, -(10**400), 1.5, 1e300, float("inf"), True, ops.Written.read("1e308"), 10**15, 0.1]
        for value in numbers:
            for before in [*numbers, float("nan"), "x", None, [], {}]:
                (line,) = ops.progress_lines({"n": value}, {"n": before})
                self.assertNotIn("nan", line)
                self.assertNotRegex(line, r"\(\+?-?inf")

    def test_many_values_are_counted_and_long_ones_cut(self):
        lines = ops.progress_lines({f"k{n}": n for n in range(20)}, {})
        self.assertEqual((len(lines), lines[-1]), (9, "… 12"))
        for line in ops.progress_lines({"k" * 500: "v" * 500, "l": ["x"] * 500}, {}):
            self.assertLess(len(line), 200)

    BARS = [
        ({"done": 5, "total": 10}, "█████░░░░░ 50%"), ({"percent": 12.5}, "█░░░░░░░░░ 12%"), ({"done": 0, "total": 10}, "░░░░░░░░░░ 0%"),
        ({"done": 10, "total": 10}, "██████████ 100%"), ({"done": 99, "total": 10}, "██████████ 100%"), ({"done": -5, "total": 10}, "░░░░░░░░░░ 0%"),
        ({"done": 5, "total": 0}, ""), ({"done": "5", "total": 10}, ""), ({"done": True, "total": 2}, ""), ({"percent": float("nan")}, ""), ({}, ""),
        ({"done": 10**400, "total": 10}, ""), ({"percent": "50"}, ""), ({"done": 999, "total": 1000}, "█████████░ 99%"),
    ]  # fmt: skip

    def test_a_bar_is_drawn_where_a_share_is_given(self):
        for progress, bar in self.BARS:
            self.assertEqual(ops.bar(progress), bar, progress)


class Messages(unittest.TestCase):
    def test_one_section_is_one_message_under_the_header(self):
        (message,) = compose([entry("hello", id="a")])
        self.assertEqual((message.text, message.rings, message.entries), (HEADER + "\n\nhello", False, ("a",)))

    def test_nothing_to_say_is_no_message(self):
        self.assertEqual(compose([]), [])

    def test_the_header_names_the_host_if_there_is_one(self):
        self.assertEqual(ops.header_text("12:00:00", ""), HEADER)
        self.assertEqual(ops.header_text("12:00:00", "mini"), HEADER + " mini")

    def test_worst_first_then_oldest_first_and_what_rings_apart(self):
        rows = [
            ("routine", ops.ROUTINE, 1), ("young alert", ops.ALERT, 9), ("warning", ops.WARN, 0), ("old alert", ops.ALERT, 2),
            ("note", ops.NOTICE, 5),
        ]  # fmt: skip
        loud, still = compose([entry(text, rank, NOON + at) for text, rank, at in rows])
        self.assertEqual(loud.text.split("\n\n")[1:], ["old alert", "young alert", "warning"])
        self.assertEqual(still.text.split("\n\n")[1:], ["note", "routine"])
        self.assertEqual((loud.rings, still.rings), (True, False))

    def test_whole_sections_are_joined_up_to_the_limit(self):
        messages = compose([entry(letter * 1500, id=letter) for letter in "abcde"])
        self.assertEqual([message.entries for message in messages], [("a", "b"), ("c", "d"), ("e",)])
        for message in messages:
            self.assertLessEqual(ops.utf16_length(message.text), 4000)
            self.assertTrue(message.text.startswith(HEADER + "\n\n"))

    def test_the_limit_counts_utf16_units(self):
        messages = compose([entry("😀" * 900, id=letter) for letter in "abc"])
        self.assertEqual([len(message.entries) for message in messages], [2, 1])

    def test_a_section_that_is_too_long_is_cut_and_says_so(self):
        (message,) = compose([entry("x" * 9000)])
        self.assertLessEqual(ops.utf16_length(message.text), 4000)
        self.assertTrue(message.text.endswith(" …"))

    def test_more_than_five_messages_are_counted_and_the_command_is_named(self):
        entries = [entry(str(number % 10) * 3000, ops.ALERT, NOON + number, id=number) for number in range(12)]
        messages = compose(entries)
        self.assertEqual(len(messages), 5)
        self.assertTrue(messages[-1].text.endswith("… and more: 7. See: ops-monitor.py status"), messages[-1].text[-80:])
        self.assertEqual([number for message in messages for number in message.entries], list(range(12)), "every entry leaves with a message")
        for message in messages:
            self.assertLessEqual(ops.utf16_length(message.text), 4000)

    def test_alerts_are_the_last_to_be_counted_only(self):
        entries = [entry("r" * 3000, ops.ROUTINE, NOON, id=f"r{number}") for number in range(9)]
        entries += [entry("a" * 3000, ops.ALERT, NOON + 99, id=f"a{number}") for number in range(3)]
        messages = compose(entries)
        self.assertEqual([message.rings for message in messages], [True, True, True, False, False])
        self.assertIn("… and more: 7.", messages[-1].text)

    def test_fewer_messages_may_be_allowed(self):
        entries = [entry("x" * 3000, id=number) for number in range(4)]
        for most in (1, 2, 3, 4):
            messages = compose(entries, most=most)
            self.assertEqual(len(messages), most)
            self.assertEqual(sum(len(message.entries) for message in messages), 4)

    def test_what_comes_late_says_when_it_happened_and_a_possible_repeat_says_so(self):
        rows = [
            ({}, NOON + 60, "text"),
            ({}, NOON + 3600, "(late: this happened at 22:13)\ntext"),
            ({"maybeSent": True}, NOON, "(possible repeat)\ntext"),
            ({"maybeSent": True}, NOON + 3600, "(late: this happened at 22:13)\n(possible repeat)\ntext"),
            ({"maybeSent": "yes"}, NOON, "text"),
        ]
        for more, now, text in rows:
            (message,) = compose([entry("text", **more)], now=now)
            self.assertEqual(message.text, HEADER + "\n\n" + text)

    def test_whatever_the_outbox_holds_every_message_fits_and_every_entry_is_carried_once(self):
        rng = random.Random(12)
        for number in range(150):
            entries = []
            for index in range(rng.randrange(25)):
                text = rng.choice(["a", "表", "😀"]) * rng.choice([1, 50, 1700, 4000])
                entries.append(entry(text, rng.randrange(4), NOON - rng.randrange(9000), id=f"{number}-{index}", maybeSent=rng.random() < 0.3))
            most = rng.randrange(1, 6)
            messages = compose(entries, most=most)
            with self.subTest(number=number):
                self.assertLessEqual(len(messages), most)
                carried = [name for message in messages for name in message.entries]
                self.assertEqual(sorted(carried), sorted(item["id"] for item in entries))
                for message in messages:
                    self.assertLessEqual(ops.utf16_length(message.text), 4000)
                if len(messages) < most:
                    self.assertEqual({message.rings for message in messages}, {item["rank"] >= ops.WARN for item in entries})


def in_no_language(text):
    """A sentence with its letters gone, its holes and marks kept: what a third language looks like."""
    parts = re.split(f"({HOLE})", text)
    return "".join(part if index % 2 else re.sub("[A-Za-z\u4e00-\u9fff]+", "¤", part) for index, part in enumerate(parts))


class ThirdLanguage(unittest.TestCase):
    """With every row in no language at all, no word is left but facts, tokens and the header."""

    FACTS = r"\b(the job's own words|exit|exit-\d+|killed|disk|no|check|J\w*|K\d+|k\d+|done|total|SIG\w+)\b"

    def setUp(self):
        table = {key: (in_no_language(english),) * 2 for key, (english, _) in ops.MESSAGES.items()}
        patch = mock.patch.dict(ops.MESSAGES, table)
        patch.start()
        self.addCleanup(patch.stop)

    def words_in(self, text, facts=()):
        """What is left of a text without tokens, numbers, times, durations and these facts."""
        for fact in sorted(map(str, facts), key=len, reverse=True):
            text = text.replace(fact, "") if len(fact) > 1 else text
        text = text.replace("Ops 快报", "").replace("OPENCLAW_HOME=", "")  # a command is in no language
        for token in TOKENS:
            text = text.replace(token, "")
        text = re.sub(r"\b\d+(\.\d+)?[dhms]\b", "", text)
        text = re.sub(self.FACTS, "", text)
        return re.findall("[A-Za-z\u4e00-\u9fff]{2,}", text)


class NothingBypassesTheTable(ThirdLanguage):
    def test_no_section_has_a_word_of_its_own(self):
        for notify in notifications():
            facts = [fact for fact in notify.phrase.facts.values() if isinstance(fact, str)]
            look = notify.look
            facts += [look.stop_reason, look.message] if look else []
            text = ops.section_text("en", "JOB", "J", notify, clock_text, "J")
            self.assertIn("¤", text + "¤" * (notify.telling == "routine"))
            self.assertEqual(self.words_in(text, filter(None, facts)), [], text)

    def test_no_reason_of_a_failed_command_has_a_word_of_its_own(self):
        now = ops.Instant(NOON)
        for number in [1, 2, 126, 127, 255] + [-number for number in range(1, 65)]:
            phrase = ops.outcome_phrase(ops.Outcome(now, now, code=number))
            self.assertEqual(self.words_in(ops.phrase_text("en", phrase)), [], number)

    def test_no_message_has_a_word_of_its_own(self):
        entries = [entry("1" * 3000, rank, NOON - 9999, id=rank, maybeSent=True) for rank in (0, 1, 2, 3)]
        for message in compose(entries, most=2):
            self.assertEqual(self.words_in(message.text, ["ops-monitor.py status"]), [])


class Reports(ThirdLanguage):
    """The same for what commands print: `status`, `explain`, a dry tick, and their like."""

    LOOKS = {
        "J1": '{"running": true, "completed": false, "pid": 77, "progress": {"done": 4, "total": 8}, "message": "K1"}',
        "J2": '{"running": false, "completed": false, "stopReason": "K2"}',
        "J3": "K3",
        "J4": '{"running": true, "completed": false, "waiting": true, "level": "alert", "message": "K1", "progressKey": "K4"}',
        "J5": '{"running": false, "completed": true}',
    }

    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.addCleanup(os.chdir, os.getcwd())  # a tick works in its jobs' directories
        self.root = pathlib.Path(os.path.realpath(directory.name))
        patch = mock.patch.dict(os.environ, {"HOME": str(self.root), "OPENCLAW_HOME": str(self.root)})
        patch.start()
        self.addCleanup(patch.stop)
        jobs = []
        for job_id, answer in self.LOOKS.items():
            (self.root / job_id).write_text(answer)
            jobs.append({"id": job_id, "kind": "long_running_read", "risk": "read_only", "enabled": True,
                         "commands": {"start": ["true"], "status": ["cat", job_id], "stop": ["true"]}})  # fmt: skip
        jobs.append({"id": "J6", "kind": "one_shot_read", "risk": "read_only", "enabled": True, "commands": {"run": ["true"]},
                     "policy": {"everySeconds": 3600}})  # fmt: skip
        jobs.append({"id": "J7", "kind": "one_shot_read", "risk": "read_only", "enabled": False, "commands": {"run": ["false"]}})
        jobs.append({"id": "J8", "kind": "one_shot_write", "risk": "write_local", "enabled": True, "commands": {"run": ["true"]},
                     "after": [{"jobId": "J6"}]})  # fmt: skip
        (self.root / "J9").write_text(self.LOOKS["J2"])
        jobs.append({**jobs[1], "id": "J9", "commands": {**jobs[1]["commands"], "status": ["cat", "J9"]}, "policy": {"autoResume": True}})
        for job in jobs:
            job["cwd"] = str(self.root)
        quiet = {"quietHours": {"start": "00:00", "end": "00:00"}}
        self.config = {"version": 1, "jobs": jobs, "defaults": quiet, "delivery": {"via": "none"}}
        (self.root / "C.json").write_text(json.dumps(self.config))

    def type(self, *argv):
        """What a command prints on standard output."""
        out = io.StringIO()
        files = ["--config-file", str(self.root / "C.json"), "--state-file", str(self.root / "S.json")]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()) as errors:
            code = ops.run_command_line([argv[0], *files, *argv[1:]])
        self.assertNotIn(code, (ops.BUG, ops.USAGE, ops.STATE_TROUBLE), errors.getvalue())
        return out.getvalue()

    def is_in_no_language(self, *argv, facts=()):
        text = whole = self.type(*argv)
        text = re.sub(rf"{re.escape(str(self.root))}\S*", "", text)
        text = re.sub(r"python3 \S+|ops-monitor\.py|--config-file|--state-file", "", text)
        text = re.sub(r"(long_running_read|one_shot_read|one_shot_write) · \w+", "", text)
        text = re.sub(r"\b(ack|approve|explain|start|status|stop|mute|run)\b(?= J\d)|\bdoctor\b", "", text)
        for fact in facts:
            text = text.replace(fact, "")
        with self.subTest(" ".join(argv)):
            self.assertIn("¤", whole)
            self.assertEqual(self.words_in(text), [], whole)

    def test_status_explain_and_a_dry_tick_have_no_word_of_their_own(self):
        self.is_in_no_language("status")
        self.is_in_no_language("tick", "--dry-run")
        self.type("tick")
        self.type("enqueue", "J7")
        self.type("mute", "J4", "--for", "2h")
        self.type("stop", "J5")
        self.is_in_no_language("status")
        self.is_in_no_language("tick", "--dry-run")
        for number in range(1, 10):
            self.is_in_no_language("explain", f"J{number}")

    def test_what_commands_answer_has_no_word_of_its_own(self):
        self.type("tick")
        self.is_in_no_language("ack", "J2")
        self.is_in_no_language("ack", "J6")
        self.is_in_no_language("mute", "J2", "--for", "2h")
        self.is_in_no_language("unmute", "J2")
        self.is_in_no_language("start", "J1")
        self.is_in_no_language("start", "J2")
        self.is_in_no_language("stop", "J2")
        self.is_in_no_language("run", "J6", "--dry-run", facts=["true"])
        self.is_in_no_language("revoke", "J8")

    def test_what_is_printed_for_the_phone_has_no_word_of_its_own(self):
        self.is_in_no_language("tick", "--print-only")


class Tables(unittest.TestCase):
    def test_the_columns_of_a_report_stand_under_each_other_in_chinese_too(self):
        head = [ops.say("zh", "column." + name) for name in ("job", "state", "progress")]
        rows = [head, ["夜间", ops.say("zh", "word.running"), "█████░░░░░ 50%"], ["a", "b", "c"]]
        lines = ops.table(rows)
        for column in (1, 2):
            self.assertEqual(len({ops.display_width(line[: line.rindex(row[column])]) for line, row in zip(lines, rows)}), 1)


if __name__ == "__main__":
    unittest.main()
