"""STATE: what is remembered survives wrong types, other clocks, version 1 and other programs.

Records are tested as values; whole ticks run in this process, on a clock that the test moves.
The v1 files under tests/data were written as of NOW.
"""

import contextlib
import io
import json
import os
import pathlib
import pty
import random
import signal
import stat
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from tests import ROOT, SCRIPT, ops

DATA = ROOT / "tests" / "data"
NOW = 1_790_000_000.0
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NO_QUIET = {"quietHours": {"start": "00:00", "end": "00:00"}}


class Installation:
    """A temporary home with a config, a state file, a receiver that writes to a file, and a clock."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())  # a tick works in its jobs' directories
        self.home = pathlib.Path(os.path.realpath(folder.name))
        self.config_file = self.home / "ops-jobs.json"
        self.state_file = self.home / "state" / "ops-monitor.json"
        self.inbox = self.home / "inbox"
        self.at, self.awake = NOW, 1000.0
        self.jobs = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    # ---- what is declared

    def add(self, made):
        self.jobs[made["id"]] = made

    def long_job(self, job_id, answer, policy=(), **more):
        """A long job whose status is the file that `show` writes; each start leaves a line."""
        commands = {"start": self.shell(f"echo x >> '{self.home}/{job_id}.started'"), "status": ["/bin/cat", str(self.home / f"{job_id}.status")]}
        made = {"id": job_id, "kind": "long_running_read", "risk": "read_only", "enabled": True, "cwd": str(self.home), "commands": commands}
        self.add({**made, "policy": {**NO_QUIET, **dict(policy)}, **more})
        self.show(job_id, **answer)

    def check(self, job_id, script="true", policy=(), **more):
        """A check; each run leaves a line."""
        run = self.shell(f"echo x >> '{self.home}/{job_id}.ran'; {script}")
        made = {"id": job_id, "kind": "one_shot_read", "risk": "read_only", "enabled": True, "cwd": str(self.home), "commands": {"run": run}}
        self.add({**made, "policy": {**NO_QUIET, **dict(policy)}, **more})

    @staticmethod
    def shell(script):
        return ["/bin/sh", "-c", script]

    def show(self, job_id, state="running", **more):
        answer = {"running": state == "running", "completed": state == "completed", **more}
        (self.home / f"{job_id}.status").write_text(json.dumps(answer))

    def count(self, name):
        path = self.home / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    # ---- what happens

    def save_config(self, delivery=None, **more):
        receiver = {"via": "command", "command": self.shell(f"cat >> '{self.inbox}'; echo >> '{self.inbox}'")}
        made = {"version": 1, "jobs": list(self.jobs.values()), "delivery": delivery or receiver, **more}
        self.config_file.write_text(json.dumps(made))

    def save_state(self, content):
        self.state_file.parent.mkdir(mode=0o700, exist_ok=True)
        self.state_file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def state(self):
        return json.loads(self.state_file.read_text(encoding="utf-8"))

    def pass_time(self, seconds):
        self.at += seconds
        self.awake += seconds

    def now(self):
        return ops.Instant(self.at, self.awake, "this boot", 720)

    def call(self, *argv):
        """(exit code, stdout, stderr) of a command at this moment."""
        out, err = io.StringIO(), io.StringIO()
        env = {"HOME": str(self.home), "OPENCLAW_HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        files = ["--config-file", str(self.config_file), "--state-file", str(self.state_file)]
        patches = [mock.patch.dict(os.environ, env, clear=True), mock.patch.object(ops.Clock, "now", lambda clock: self.now())]
        patches.append(mock.patch.object(tempfile, "tempdir", str(self.home)))  # a crash file would be left there
        with patches[0], patches[1], patches[2], contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = ops.main([*argv, *files])
        return code, out.getvalue(), err.getvalue()

    def tick(self, expected=0):
        """What a person received in one tick."""
        self.inbox.unlink(missing_ok=True)
        code, out, err = self.call("tick")
        self.assertEqual(code, expected, out + err)
        return self.inbox.read_text(encoding="utf-8") if self.inbox.exists() else ""


# ---- records


class ARecordBecomesJsonAndComesBack(unittest.TestCase):
    FULL = ops.Memory(
        looked_at=NOW - 5.25,
        looked_awake=77.5,
        boot="b",
        last_look="running",
        state="running",
        pid=4711,
        stalled_for=12.5,
        reported_progress={"done": 5, "name": "文"},
        completed_told=True,
        attempts=3,
        action="start",
        action_at=NOW - 4,
        action_for=70.0,
        incidents={"stalled": ops.Incident(since_at=NOW - 9, rank=3, key="stalled", facts={"for": "1h"}, texts=2)},
    )
    KINDS = tuple(ops.KEYS)

    def test_there_and_back_again(self):
        frozen = json.loads(json.dumps(ops.freeze(self.FULL)))
        self.assertEqual(ops.thaw(ops.Memory, frozen, NOW), self.FULL)
        self.assertEqual(ops.freeze(ops.thaw(ops.Memory, frozen, NOW)), frozen)

    def test_every_field_comes_back(self):
        samples = {float: 1234.5, int: 7, str: "text", bool: True, dict: {"a": 1}, list: [NOW - 5, NOW - 4]}
        for kind in self.KINDS:
            for name in kind._fields:
                if name != "incidents":
                    made = kind(**{name: samples[type(getattr(kind(), name))]})
                    self.assertEqual(ops.thaw(kind, json.loads(json.dumps(ops.freeze(made))), NOW), made, name)

    def test_json_keys_are_camel_case_and_no_two_names_share_one(self):
        for kind in self.KINDS:
            keys = [ops.camel(name) for name in kind._fields]
            self.assertEqual(len(set(keys)), len(keys))
            self.assertEqual([ops.snake(key) for key in keys], list(kind._fields))

    def test_what_is_absent_is_not_written(self):
        self.assertEqual(ops.freeze(ops.Memory()), {})
        self.assertEqual(ops.freeze(ops.Memory(attempts=2)), {"attempts": 2})

    def test_unknown_keys_are_kept_and_known_ones_replaced(self):
        raw = {"attempts": 9, "pid": 5, "newerThing": {"a": [1]}, "note": "文"}
        self.assertEqual(ops.freeze(ops.Memory(attempts=1), raw), {"attempts": 1, "newerThing": {"a": [1]}, "note": "文"})

    def test_unknown_keys_of_an_incident_are_kept(self):
        raw = {"jobs": {"a": {"incidents": {"stopped": {"rank": 3, "newerThing": 1}}}}, "version": ops.STATE_VERSION}
        state = ops.State(raw, NOW)
        memory = state.memory("a")
        state.remember("a", memory._replace(attempts=1))
        self.assertEqual(state.jobs["a"]["incidents"]["stopped"], {"rank": 3, "newerThing": 1})

    def test_a_value_of_the_wrong_type_counts_as_absent_alone(self):
        good = ops.freeze(self.FULL)
        wrong = {
            float: ("5", True, None, [], {}, 10**400, float("nan"), float("inf")),
            int: ("5", True, 1.5, None, []),
            str: (5, None, [], {}, True),
            bool: (1, 0, "true", None),
            dict: ([], None, "x", 5),
            list: ({}, None, "x", 5, True),
        }
        for name in ops.Memory._fields:
            blank = getattr(ops.Memory(), name)
            for value in wrong[type(blank)]:
                with self.subTest(name=name, value=value):
                    read = ops.thaw(ops.Memory, {**good, ops.camel(name): value}, NOW)
                    self.assertEqual(read, self.FULL._replace(**{name: blank}))

    def test_whole_numbers_are_good_instants(self):
        self.assertEqual(ops.thaw(ops.Memory, {"lookedAt": 5, "attempts": 5}, NOW), ops.Memory(looked_at=5.0, attempts=5))

    def test_a_wrong_incident_does_not_hide_the_others(self):
        raw = {"incidents": {"a": 5, "b": None, "c": {"rank": "3", "texts": 2}, "d": []}}
        self.assertEqual(ops.thaw(ops.Memory, raw, NOW).incidents, {"c": ops.Incident(texts=2)})

    def test_what_is_no_object_is_an_empty_memory(self):
        for raw in (None, 5, "x", [], True):
            self.assertEqual(ops.thaw(ops.Memory, raw, NOW), ops.Memory())

    def test_a_future_instant_is_now_and_a_duration_stays(self):
        read = ops.thaw(ops.Memory, {"reportedAt": NOW + DAY, "mutedAt": NOW + 1, "mutedFor": 7200.0, "incidents": {"x": {"toldAt": NOW + 5}}}, NOW)
        self.assertEqual((read.reported_at, read.muted_at, read.muted_for, read.incidents["x"].told_at), (NOW, NOW, 7200.0, NOW))


class AStateIsReadWhateverItHolds(unittest.TestCase):
    def test_sections_of_the_wrong_type_are_empty_alone(self):
        for key, wrong in (("jobs", []), ("queue", {}), ("outbox", "x"), ("receiver", 5), ("self", None)):
            raw = {
                "version": ops.STATE_VERSION,
                "jobs": {"a": {"attempts": 1}},
                "queue": [{"id": "q", "jobId": "a", "notBefore": 5}],
                key: wrong,
                "extra": 1,
            }
            state = ops.read_state(json.dumps(raw), NOW)
            self.assertEqual(state.raw["extra"], 1)
            self.assertEqual(len(state.jobs), 0 if key == "jobs" else 1, key)
            self.assertEqual(len(state.queue), 0 if key == "queue" else 1, key)
            self.assertIsInstance(state.outbox, list)
            self.assertEqual(state.own_memory(), ops.Memory())

    def test_entries_that_are_none_do_not_hide_the_others(self):
        raw = {
            "version": ops.STATE_VERSION,
            "queue": [None, 5, {"id": "q", "jobId": "a"}, []],
            "outbox": ["x", {"text": 5}, {"text": "said", "id": "o"}],
        }
        state = ops.read_state(json.dumps(raw), NOW)
        self.assertEqual([entry["id"] for entry in state.queue + state.outbox], ["q", "o"])

    def test_what_is_no_state_raises_for_the_store_to_move_aside(self):
        for text in ("", "{", "[]", "5", "null", '"x"', '{"version": 2', "\ufeff{}", "NaN"):
            with self.subTest(text), self.assertRaises(ValueError):
                ops.read_state(text, NOW)

    def test_a_newer_version_is_refused(self):
        for version in (ops.STATE_VERSION + 1, 99, ops.STATE_VERSION + 0.5):
            with self.assertRaises(ops.StateError):
                ops.read_state(json.dumps({"version": version}), NOW)


class WrongTypesEverywhere(Installation, unittest.TestCase):
    JUNK = (None, True, -1, 0, 10**30, 1e300, float("nan"), "x", "", [], [1], {}, {"a": 1}, "\ud800", NOW + 1e6, [None, {"text": "t"}])

    COMMANDS = (["tick"], ["tick"], ["tick"], ["status"], ["status", "--json"], ["explain", "long"], ["tick", "--dry-run"])

    def rich_state(self):
        at = {"sinceAt": NOW - 99, "openedAt": NOW - 99, "toldAt": NOW - 99}
        incident = {**at, "looks": 1, "rank": 3, "key": "stopped", "facts": {"reason": "r"}, "toldText": "t", "texts": 1}
        memory = ops.freeze(ARecordBecomesJsonAndComesBack.FULL)
        made = {"createdAt": NOW - 9, "notBefore": NOW - 5}
        entry = {**made, "id": "o", "rank": 3, "text": "ALERT said", "about": ["long", "stopped"], "tries": 1, "maybeSent": True}
        return {
            "version": 2,
            "configFile": str(self.config_file),
            "recoveredAt": NOW - 500,
            "moved": {"1": "2"},
            "receiver": {"via": "auto", "target": "5"},
            "self": {**memory, "incidents": {"config": incident, "delivery": incident}},
            "jobs": {
                "long": {**memory, "incidents": {"stopped": incident, "stalled": incident}},
                "disk": {"anchorAt": NOW - 900, "slotAt": NOW - 300},
                "old": {"leftAt": NOW - 5},
            },
            "queue": [{**made, "id": "q", "jobId": "disk", "status": "pending", "attempt": 0, "by": "hand"}],
            "outbox": [entry, {**entry, "id": "p", "refusedBy": "other", "rank": 0}],
        }

    def spoil(self, value, chance):
        """The state with one to three values somewhere in it replaced or taken out."""
        for _ in range(chance.randrange(1, 4)):
            holder = value
            while True:
                keys = list(holder) if isinstance(holder, dict) else range(len(holder))
                key = chance.choice(list(keys)) if keys else None
                if key is None or (holder is value and key == "version"):
                    break
                if isinstance(holder[key], (dict, list)) and holder[key] and chance.random() < 0.85:
                    holder = holder[key]
                elif chance.random() < 0.2:
                    del holder[key]
                    break
                else:
                    holder[key] = json.loads(json.dumps(chance.choice(self.JUNK)))
                    break
        return value

    def test_no_value_of_any_type_stops_a_tick(self):
        self.long_job("long", {"progressKey": "k"})
        self.check("disk", policy={"everySeconds": 300})
        self.save_config()
        for seed in range(60):
            chance = random.Random(seed)
            spoiled = self.spoil(self.rich_state(), chance)
            self.save_state(json.dumps(spoiled).encode())
            code, _, err = self.call(*chance.choice(self.COMMANDS))
            self.assertIn(code, (0, 3), f"seed {seed}: {err}\n{json.dumps(spoiled)}")
            self.assertIsInstance(self.state(), dict)
            self.assertEqual(list(self.state_file.parent.glob("*.corrupt-*")), [], f"seed {seed}: moved aside: {json.dumps(spoiled)}")


# ---- the clock set back


class TheClockIsSetBack(Installation, unittest.TestCase):
    """Past events dated in the future count as now, once; deadlines are cut to now + their own delay."""

    def test_a_queued_job_waits_its_own_delay_and_no_more(self):
        self.check("disk")
        self.save_config()
        self.call("enqueue", "disk", "--delay", "600")
        self.at -= DAY
        self.tick()
        self.assertEqual(self.count("disk.ran"), 0)
        self.pass_time(599)
        self.tick()
        self.assertEqual(self.count("disk.ran"), 0)
        self.pass_time(2)
        self.tick()
        self.assertEqual(self.count("disk.ran"), 1)
        self.pass_time(3 * DAY)
        self.tick()
        self.assertEqual(self.count("disk.ran"), 1)

    def test_a_mute_holds_its_own_length_and_no_more(self):
        self.long_job("crawl", {"state": "running", "progressKey": "1"})
        self.save_config()
        self.tick()
        state = self.state()
        state["jobs"]["crawl"].update(mutedAt=self.at, mutedFor=2 * HOUR)
        self.save_state(state)
        self.at -= DAY
        self.show("crawl", "stopped")
        self.assertEqual(self.tick(), "")
        self.pass_time(2 * HOUR - 10)
        self.assertEqual(self.tick(), "")
        self.pass_time(20)
        self.assertIn("crawl", self.tick())

    def test_a_message_waits_its_own_retry_and_no_more(self):
        self.long_job("crawl", {"state": "stopped"})
        broken = {"via": "command", "command": self.shell("exit 1")}
        self.save_config(delivery=broken)
        self.tick(expected=3)
        for _ in range(6):
            self.pass_time(1801)
            self.tick(expected=3)
        self.save_config()
        self.at -= 1.5 * HOUR  # after the message was made, before its last try
        received = ""
        for _ in range(4):
            self.inbox.unlink(missing_ok=True)
            self.call("tick")
            received += self.inbox.read_text(encoding="utf-8") if self.inbox.exists() else ""
            self.pass_time(610)
        self.assertIn("crawl", received, "within its half an hour")

    def test_a_message_dated_in_the_future_goes_at_once(self):
        entry = {"id": "o", "createdAt": NOW + DAY, "notBefore": NOW + DAY, "rank": 3, "text": "ALERT from tomorrow", "about": []}
        later = {**entry, "id": "p", "text": "ALERT a bit later", "notBefore": NOW + DAY + 30}
        self.save_state({"version": 2, "outbox": [entry, later]})
        self.save_config()
        first = self.tick(expected=3)
        self.assertIn("from tomorrow", first)
        self.assertNotIn("a bit later", first)
        self.pass_time(31)
        self.assertIn("a bit later", self.tick())

    def test_an_unfinished_start_blocks_its_own_time_and_no_more(self):
        self.long_job("crawl", {"state": "stopped"}, policy={"autoResume": True})
        self.save_config()
        self.save_state({"version": 2, "jobs": {"crawl": {"action": "start", "actionAt": NOW + DAY, "actionFor": 70.0, "attempts": 0}}})
        self.tick()
        self.pass_time(60)
        self.tick()
        self.assertEqual(self.count("crawl.started"), 0)
        self.pass_time(11)
        self.tick()
        self.assertEqual(self.count("crawl.started"), 1)

    def test_a_back_off_waits_its_own_time_and_no_more(self):
        self.long_job("crawl", {"state": "stopped"}, policy={"autoResume": True, "autoResumeBackoffSeconds": 900})
        self.save_config()
        self.tick()
        self.assertEqual(self.count("crawl.started"), 1)
        self.at -= DAY
        self.tick()
        self.pass_time(890)
        self.tick()
        self.assertEqual(self.count("crawl.started"), 1)
        self.pass_time(20)
        self.tick()
        self.assertEqual(self.count("crawl.started"), 2)

    def test_routine_is_told_again_after_its_own_time(self):
        self.long_job("crawl", {"progressKey": "1"}, policy={"reportEverySeconds": 1800, "stallSeconds": 0})
        self.save_config()
        self.assertIn("crawl", self.tick())
        self.at -= DAY
        self.assertEqual(self.tick(), "")
        self.pass_time(1795)
        self.assertEqual(self.tick(), "")
        self.pass_time(10)
        self.assertIn("crawl", self.tick())

    def test_a_scheduled_check_goes_on_within_one_period(self):
        self.check("disk", policy={"everySeconds": 300})
        self.save_config()
        self.tick()
        self.pass_time(301)
        self.tick()
        self.assertEqual(self.count("disk.ran"), 2)
        for back in (2 * HOUR, 30 * DAY):
            self.at -= back
            before = self.count("disk.ran")
            for _ in range(6):
                self.pass_time(60)
                self.tick()
            self.assertIn(self.count("disk.ran") - before, (1, 2), f"set back by {back:g} s")

    def test_stalling_is_counted_on_the_other_clock(self):
        self.long_job("crawl", {"progressKey": "1"}, policy={"stallSeconds": 3600, "reportEverySeconds": 0})
        self.save_config()
        self.tick()
        self.pass_time(1800)
        self.tick()
        self.at += DAY
        self.assertNotIn("ALERT", self.tick())
        self.at -= 2 * DAY
        self.assertNotIn("ALERT", self.tick())
        self.pass_time(1900)
        self.assertIn("1h 1m", self.tick())

    def test_the_file_is_mended_by_the_next_tick(self):
        ahead = NOW + 3 * DAY
        incident = {"sinceAt": ahead, "openedAt": ahead, "toldAt": ahead, "rank": 3, "key": "stopped", "looks": 1}
        memory = {"lookedAt": ahead, "stateAt": ahead, "reportedAt": ahead, "incidents": {"stopped": incident}}
        self.long_job("on", {"progressKey": "1"})
        self.long_job("off", {"progressKey": "1"}, enabled=False)
        self.check("disk", policy={"everySeconds": 1e6})
        self.save_config()
        done = {"id": "q", "jobId": "disk", "notBefore": ahead, "createdAt": ahead, "status": "done", "doneAt": ahead}
        waiting = {"id": "o", "createdAt": ahead, "notBefore": ahead, "rank": 3, "text": "ALERT", "about": []}
        jobs = {"on": dict(memory), "off": dict(memory), "gone": {**memory, "leftAt": ahead}}
        jobs["disk"] = {"anchorAt": NOW - 5, "slotAt": ahead, "ranAt": ahead}
        self.save_state({"version": 2, "recoveredAt": ahead, "self": dict(memory), "jobs": jobs, "queue": [done], "outbox": [waiting]})
        self.tick()

        def future(value, path=()):
            if isinstance(value, dict):
                return [found for key, item in value.items() for found in future(item, (*path, key))]
            if isinstance(value, list):
                return [found for index, item in enumerate(value) for found in future(item, (*path, index))]
            return [path] if isinstance(value, float) and value > self.at and str(path[-1]).endswith(("At", "notBefore")) else []

        self.assertEqual(future(self.state()), [])


# ---- v1


class AStateOfVersion1IsTakenOver(Installation, unittest.TestCase):
    """On the first tick after the upgrade nothing is told twice and nothing is done twice."""

    FORMS = ("seconds", "milliseconds", "iso")

    def install(self, form):
        self.state_file.parent.mkdir(mode=0o700, exist_ok=True)
        for left in [*self.state_file.parent.glob("*"), *self.home.glob("*.started"), *self.home.glob("*.ran")]:
            if left.is_file():
                left.unlink()
        self.at, self.awake = NOW, 1000.0
        raw = (DATA / f"v1-state-{form}.json").read_bytes()
        self.state_file.write_bytes(raw)
        self.long_job("crawl", {"progressKey": "page 412"}, policy={"reportEverySeconds": 1800, "stallSeconds": 0})
        self.long_job("counted", {"progress": {"total": 9, "done": 5}}, policy={"reportEverySeconds": 0})
        self.long_job("stuck", {"progressKey": "page 7"}, policy={"stallSeconds": 3600, "reportEverySeconds": 0})
        self.long_job("halted", {"state": "stopped", "stopReason": "disk full", "progressKey": "page 90"})
        self.long_job("finished", {"state": "completed", "progressKey": "page 1000"}, after=[{"jobId": "follow"}])
        self.long_job("resumed", {"state": "stopped", "stopReason": "killed", "progressKey": "page 55"}, policy={"autoResume": True})
        for name in ("disk", "later", "follow"):
            self.check(name)
        self.save_config()
        return raw

    def test_nothing_is_told_and_nothing_started_on_the_first_ticks(self):
        for form in self.FORMS:
            with self.subTest(form):
                self.install(form)
                for _ in range(3):
                    self.assertEqual(self.tick(), "")
                    self.pass_time(60)
                self.assertEqual([self.count(f"{name}.started") for name in self.jobs], [0] * len(self.jobs))

    def test_queued_work_runs_exactly_once(self):
        for form in self.FORMS:
            with self.subTest(form):
                self.install(form)
                for minute, expected in ((0, (1, 0)), (1, (1, 0)), (9, (1, 0)), (11, (1, 1)), (12, (1, 1)), (1500, (1, 1))):
                    self.at, self.awake = NOW + minute * 60, 1000 + minute * 60
                    self.tick()
                    self.assertEqual((self.count("disk.ran"), self.count("later.ran")), expected, f"minute {minute}")
                self.assertEqual(self.count("follow.ran"), 0, "the completion was told, and followed, under v1")

    def test_the_old_file_stays_beside_it_byte_for_byte(self):
        for form in self.FORMS:
            with self.subTest(form):
                raw = self.install(form)
                self.tick()
                backup = self.state_file.with_name(self.state_file.name + ".v1-backup")
                self.assertEqual(backup.read_bytes(), raw)
                self.assertEqual(stat.S_IMODE(backup.stat().st_mode), 0o600)
                self.pass_time(60)
                self.tick()
                self.assertEqual(backup.read_bytes(), raw)
                backup.unlink()

    def test_only_a_command_that_writes_migrates(self):
        raw = self.install("seconds")
        for argv in (["status"], ["status", "--json"], ["explain", "crawl"], ["tick", "--dry-run"], ["validate-config"]):
            self.assertEqual(self.call(*argv)[0], 0, argv)
            self.assertEqual(self.state_file.read_bytes(), raw, argv)

    def test_unknown_keys_are_kept_at_every_level(self):
        for form in self.FORMS:
            with self.subTest(form):
                self.install(form)
                self.tick()
                state = self.state()
                self.assertEqual(state["version"], ops.STATE_VERSION)
                self.assertEqual(state["operatorNote"], {"text": "kept as it is", "list": [1, None, "文"]})
                self.assertEqual((state["jobs"]["crawl"]["tag"], state["jobs"]["retired"]["tag"]), ("mine", "kept"))
                (entry,) = [entry for entry in state["queue"] if entry["id"] == "q-1"]
                self.assertEqual(entry["payload"], {"from": "a person"})

    def test_the_three_ways_to_write_a_time_mean_the_same(self):
        read = [ops.read_state((DATA / f"v1-state-{form}.json").read_text(encoding="utf-8"), NOW) for form in self.FORMS]
        for job_id in read[0].jobs:
            memories = [state.memory(job_id) for state in read]
            for name in ops.Memory._fields:
                values = [getattr(memory, name) for memory in memories]
                if isinstance(values[0], float):
                    self.assertLess(max(values) - min(values), 1, f"{job_id}.{name}")
                else:
                    self.assertEqual(values, values[:1] * 3, f"{job_id}.{name}")
        self.assertLess(abs(read[2].memory("crawl").reported_at - (NOW - 60)), 1)

    def test_what_v1_told_goes_on_where_v1_left_off(self):
        self.install("seconds")
        told = {}
        for minute in (0, 9, 11, 28, 31, 60, 209, 211, 219, 221, 240):
            self.at, self.awake = NOW + minute * 60, 1000 + minute * 60
            received = self.tick()
            for job_id in self.jobs:
                if job_id in received:
                    told.setdefault(job_id, []).append(minute)
        self.assertEqual(told["crawl"], [31, 209, 240], "every half an hour after v1's report")
        self.assertEqual(told["stuck"], [221], "four hours after v1's alert")
        self.assertEqual(told["halted"], [211], "four hours after v1's alert")
        self.assertNotIn("finished", told)
        self.assertEqual(told["resumed"][0], 11, "fifteen minutes after v1's attempt")
        self.assertGreaterEqual(self.count("resumed.started"), 2)

    def test_trouble_that_v1_told_is_resolved_once(self):
        for form in self.FORMS:
            with self.subTest(form):
                self.install(form)
                self.tick()
                self.show("stuck", progressKey="page 8")
                self.show("halted", progressKey="page 91")
                self.pass_time(60)
                received = self.tick()
                self.assertEqual(received.count("RESOLVED"), 2, received)
                self.pass_time(60)
                self.assertNotIn("RESOLVED", self.tick())

    def test_new_trouble_is_told(self):
        for form in self.FORMS:
            with self.subTest(form):
                self.install(form)
                self.tick()
                self.show("crawl", "stopped", stopReason="out of memory")
                self.pass_time(60)
                self.assertIn("ACTION REQUIRED", self.tick())

    def test_a_job_that_runs_and_completes_again_is_told_again(self):
        self.install("iso")
        self.tick()
        self.show("finished", progressKey="page 1")
        self.pass_time(60)
        self.tick()
        self.show("finished", "completed", progressKey="page 1000")
        self.pass_time(60)
        self.assertIn("COMPLETED", self.tick())

    def test_a_v1_file_of_wrong_types_is_survived(self):
        chance = random.Random(7)
        good = json.loads((DATA / "v1-state-seconds.json").read_text(encoding="utf-8"))
        for seed in range(300):
            spoiled = WrongTypesEverywhere.spoil(WrongTypesEverywhere("test_no_value_of_any_type_stops_a_tick"), json.loads(json.dumps(good)), chance)
            spoiled.pop("version", None)
            state = ops.read_state(json.dumps(spoiled), NOW)
            for job_id in state.jobs:
                memory = state.memory(job_id)
                self.assertLessEqual(max(memory.looked_at, memory.reported_at, memory.inherited_at), NOW, f"number {seed}: {spoiled}")
            self.assertTrue(state.is_migrated)

    def test_the_smallest_v1_files(self):
        for text in ("{}", '{"jobs": {}}', '{"version": 1}', '{"version": 1, "jobs": null, "queue": null}', '{"version": "1", "jobs": {"a": null}}'):
            state = ops.read_state(text, NOW)
            self.assertTrue(state.is_migrated, text)
            self.assertEqual((state.queue, state.outbox, state.memory("a")), ([], [], ops.Memory()))


class TimesOfVersion1(unittest.TestCase):
    def test_a_time_is_seconds_milliseconds_or_iso_text(self):
        for value, expected in (
            (1790000000, NOW), (1790000000.25, NOW + 0.25), (1790000000000, NOW), (1790000000250, NOW + 0.25), ("2026-09-21T14:13:20Z", NOW),
            ("2026-09-21T14:13:20+00:00", NOW), ("2026-09-21T22:13:20+08:00", NOW), ("2026-09-21T14:13:20.250000+00:00", NOW + 0.25),
            ("2026-09-21T14:13:20", NOW), ("2026-09-21T14:13:20.250Z", NOW + 0.25), (0, 0), (-5, 0), ("", 0), ("yesterday", 0),
            (None, 0), (True, 0), ([], 0), (float("nan"), 0), (float("inf"), 0),
        ):  # fmt: skip
            with self.subTest(value=value):
                self.assertEqual(ops.epoch_seconds(value), expected)


# ---- memory of jobs that left, other configs, size


class MemoryOfJobsThatLeft(Installation, unittest.TestCase):
    def days(self, *days):
        """Tick on these days, counted from NOW; the days on which `old` is remembered."""
        kept = []
        for day in days:
            self.at = NOW + day * DAY
            self.awake = 1000 + day * DAY
            self.tick()
            if "old" in self.state()["jobs"]:
                kept.append(day)
        return kept

    def leave(self):
        del self.jobs["old"]
        self.save_config()

    def setUp(self):
        super().setUp()
        self.check("other")

    def test_it_is_dropped_thirty_days_after_the_job_left(self):
        self.long_job("old", {"progressKey": "1"}, policy={"reportEverySeconds": 0, "stallSeconds": 0})
        self.save_config()
        self.days(0, 1)
        self.leave()
        self.assertEqual(self.days(2, 20, 31.9, 32.1, 33), [2, 20, 31.9])

    def test_a_job_that_came_back_counts_from_its_last_leaving(self):
        for enabled in (True, False):
            with self.subTest(enabled=enabled):
                self.long_job("old", {"progressKey": "1"}, policy={"reportEverySeconds": 0, "stallSeconds": 0}, enabled=enabled)
                self.save_config()
                self.save_state({"version": 2, "jobs": {"old": {"attempts": 2, "state": "running", "key": "1"}}})
                self.days(0)
                self.leave()
                self.days(1)
                self.long_job("old", {"progressKey": "1"}, policy={"reportEverySeconds": 0, "stallSeconds": 0}, enabled=enabled)
                self.save_config()
                self.days(20)
                self.leave()
                self.assertEqual(self.days(40, 69, 71), [40, 69])

    def test_a_job_with_an_error_has_not_left(self):
        self.save_state({"version": 2, "jobs": {"old": {"attempts": 2}}})
        self.check("old", name=5)
        self.save_config()
        for day in (0, 40, 80):
            self.at = NOW + day * DAY
            self.assertEqual(self.call("tick")[0], 2)
            self.assertNotIn("leftAt", self.state()["jobs"]["old"])


class AStateServesOneConfig(Installation, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.check("mine")
        self.save_config()
        self.save_state({"version": 2, "jobs": {"mine": {"attempts": 2}, "theirs": {"attempts": 3, "leftAt": NOW - 40 * DAY}}})
        self.first = self.home / "first.json"
        self.first.write_text(self.config_file.read_text())

    def test_another_config_drops_nothing(self):
        kept = self.state()["jobs"]
        self.save_state({**self.state(), "configFile": str(self.first)})
        for day in (0, 31, 62):
            self.at = NOW + day * DAY
            self.tick()
            self.assertEqual(self.state()["jobs"], kept)
            self.assertEqual(self.state()["configFile"], str(self.first))

    def test_its_own_config_goes_on_dropping(self):
        self.tick()
        self.assertEqual(list(self.state()["jobs"]), ["mine"])
        self.assertEqual(self.state()["configFile"], str(self.config_file))

    def test_a_config_that_is_no_longer_there_has_a_successor(self):
        self.save_state({**self.state(), "configFile": str(self.home / "removed.json")})
        self.tick()
        self.assertEqual(self.state()["configFile"], str(self.config_file))

    def test_a_person_at_a_terminal_is_warned(self):
        self.save_state({**self.state(), "configFile": str(self.first)})
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        argv = [sys.executable, str(SCRIPT), "tick", "--config-file", str(self.config_file), "--state-file", str(self.state_file)]
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=env, timeout=60, check=True)
        finally:
            os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
            while True:
                piece = os.read(ours, 4096)
                if not piece:
                    break
                said += piece
        self.assertIn("warning:", said.decode())
        self.assertIn(str(self.first), said.decode())


class TheFileStaysSmall(unittest.TestCase):
    POLICY = {"autoResume": True, "stallSeconds": 600, **NO_QUIET}

    def memory(self, answers):
        """Memory of a job that was looked at every minute and answered this."""
        commands = {"start": ["x"], "status": ["x"]}
        made = {"id": "job", "kind": "long_running_read", "risk": "read_only", "enabled": True, "commands": commands, "policy": self.POLICY}
        job = ops.read_config(json.dumps({"version": 1, "jobs": [made]})).jobs[made["id"]]
        memory = ops.Memory()
        for minute, answer in enumerate(answers):
            now = ops.Instant(NOW + minute * 60 + 0.123456, 5000.123456 + minute * 60, "c0ffee00-1234-5678-9abc-def012345678", 720)
            memory = ops.decide_long(job, ops.Observation(now, **answer), memory, now).memory
        return memory

    def size(self, count, answers):
        state = ops.State({"version": 2}, NOW + DAY)
        memory = self.memory(answers)
        for number in range(count):
            state.remember(f"job-{number}", memory)
        self.assertTrue(all(raw["incidents"] for raw in state.jobs.values()), "each has an open incident")
        return len(json.dumps(state.raw, ensure_ascii=False, separators=(",", ":")).encode()) / count

    def test_two_hundred_typical_jobs_with_incidents_take_less_than_a_kilobyte_each(self):
        progress = {"done": 123456, "total": 987654, "percent": 12.5, "file": "2024/holiday/IMG_4711.jpg", "errors": 3}
        looks = [{"state": ops.RUNNING, "key": f"page {min(minute, 20)}", "pid": 4711, "progress": progress} for minute in range(40)]
        self.assertLess(self.size(200, looks), 1024)

    def test_the_most_talkative_job_takes_less_than_five(self):
        for letter in ("x", "文", "🛠"):
            progress = {f"{number:02}{letter * 300}": letter * 5000 for number in range(100)}
            loud = {"state": ops.RUNNING, "key": letter * 120, "pid": 4711, "progress": progress, "level": "alert", "message": letter * 5000}
            lost = {"state": ops.UNKNOWN, "problem": ops.Phrase("status.empty"), "detail": letter * 5000}
            looks = [loud, {**loud, "level": "ok"}] * 60 + [loud] * 20 + [lost]
            self.assertLess(self.size(1, looks), 5 * 1024, letter)


# ---- the file itself


class TheFileItself(Installation, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.long_job("crawl", {"state": "stopped"}, policy={"autoResume": True})
        self.save_config()

    def test_what_is_made_is_private_whatever_the_umask(self):
        for umask in (0, 0o077, 0o777):
            before = os.umask(umask)
            try:
                self.tick()
            finally:
                os.umask(before)
            for path in [self.state_file.parent, *self.state_file.parent.rglob("*")]:
                mode = stat.S_IMODE(path.stat().st_mode)
                self.assertEqual(mode, 0o700 if path.is_dir() else 0o600, path)
            self.pass_time(60)

    def test_an_unreadable_one_is_moved_aside_told_and_resumes_nothing_at_first(self):
        for content in (b"", b"{", b"[]", b"\xff\xfe", b'{"version": 2, "jobs": '):
            self.save_state(content)
            received = self.tick()
            self.assertIn(str(self.state_file), received)
            self.assertIn("ALERT", received)
            self.assertEqual(self.count("crawl.started"), 0)
            (aside,) = self.state_file.parent.glob("ops-monitor.json.corrupt-*")
            self.assertEqual(aside.read_bytes(), content)
            aside.unlink()
            self.assertEqual(self.state()["version"], ops.STATE_VERSION)

    def test_a_newer_one_is_left_alone_with_exit_74(self):
        raw = json.dumps({"version": ops.STATE_VERSION + 1, "jobs": {"crawl": 5}}).encode()
        self.save_state(raw)
        for argv in (["tick"], ["status"], ["start", "crawl"]):
            code, _, err = self.call(*argv)
            self.assertEqual((code, self.state_file.read_bytes()), (74, raw), argv)
            self.assertIn("version", err)
        self.assertEqual(self.count("crawl.started"), 0)

    def test_a_tick_that_changes_nothing_but_times_leaves_no_temporary_file(self):
        self.tick()
        self.pass_time(60)
        self.tick()
        self.assertEqual([path.name for path in self.state_file.parent.iterdir() if path.name.endswith(".tmp")], [])


if __name__ == "__main__":
    unittest.main()
