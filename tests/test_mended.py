"""Cases that a reading with fresh eyes brought to light, kept so that they stay mended."""

import contextlib
import errno
import fcntl
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from tests import ops
from tests.botapi import TOKEN
from tests.test_doctor import Checkup, Patient
from tests.test_engine import Installation, check, die_once_it_runs, long_job, sh, write
from tests.test_gate import Phone
from tests.test_managed import SLEEP, Managed, managed


class TestMutesOfChecks(unittest.TestCase):
    def test_a_check_that_is_not_run_again_soon_is_unmuted_by_a_tick_and_what_is_open_is_told(self):
        home = Installation(self, check("disk", "exit 3", everySeconds=86400))
        self.assertEqual(home.call("mute", "disk", "--for", "60").code, 0)
        home.tick()
        self.assertEqual(home.told, [])
        home.tick(later=30)
        self.assertEqual(home.told, [], "still muted")
        home.tick(later=61)
        self.assertEqual(len(home.told_with("ALERT", "disk", "exit code 3")), 1)
        self.assertEqual(len(home.told_with("messages held: 1")), 1)
        told = home.told
        home.tick(later=90)
        self.assertEqual(home.told, told, "and once")
        self.assertNotIn("messages are counted", home.call("explain", "disk", later=90).out)


class TestRedaction(unittest.TestCase):
    def test_a_secret_key_is_a_secret(self):
        for text in ("SECRET_KEY=correct-horse", "secretKey: correct-horse", '{"secret-key": "correct-horse"}', "aws_secret_access_key = correct-horse"):
            self.assertNotIn("horse", ops.Redactor().tidy(text))
        self.assertEqual(ops.Redactor().tidy("secretary: Ms Key"), "secretary: Ms Key")


class TestConfig(unittest.TestCase):
    def test_a_second_job_of_the_same_id_does_not_hide_what_is_wrong_with_the_first(self):
        jobs = [{**check("disk", "true"), "kind": "one_shot"}, check("disk", "true")]
        config = ops.read_config(json.dumps({"version": 1, "jobs": jobs}))
        self.assertEqual(list(config.broken), ["disk"])
        self.assertIn("jobs[0].kind: expected one of", config.broken["disk"])


class TestPlaces(unittest.TestCase):
    def test_a_state_file_that_is_the_config_is_refused_and_nothing_is_written(self):
        home = Installation(self, check("disk", "true"))
        before = home.read(home.config_path)
        result = home.call("tick", "--state-file", home.config_path)
        self.assertEqual(result.code, 2)
        self.assertIn("is the config", result.err)
        self.assertEqual(home.read(home.config_path), before)

    def test_a_delivery_command_works_where_openclaw_never_was(self):
        home = Installation(self, {**check("disk", "exit 3", everySeconds=60), "cwd": "/"})
        home.config["delivery"] = {"via": "command", "command": sh(f"cat >> {home.path('told')}")}
        home.configure()
        home.env["OPENCLAW_HOME"] = home.path("nowhere")
        result = home.call("tick", "--config-file", home.config_path, "--state-file", home.state_path)
        self.assertEqual((result.code, result.err), (0, ""))
        self.assertIn("exit code 3", home.read("told"))

    def test_a_state_that_cannot_be_read_is_said_by_status(self):
        home = Installation(self, check("disk", "true"))
        home.tick()
        home.put(home.state_path, "{")
        result = home.call("status")
        self.assertEqual(result.code, 0)
        self.assertIn("cannot be read", result.err)

    def test_a_state_that_cannot_be_read_is_told_although_the_first_tick_dies_at_any_step(self):
        for step in range(1, 40):
            home = Installation(self, check("disk", "true"))
            home.tick()
            home.put(home.state_path, "{")
            died = home.tick(die_before=step)
            home.tick()
            self.assertTrue(home.told_with("could not be read"), f"step {step}: {died.steps}")
            if died.code == 0:
                return
        self.fail("it never came to its end")


class TestFarTimes(unittest.TestCase):
    def test_deadlines_beyond_the_calendar_are_shown_and_crash_nothing(self):
        for zone in (None, "UTC"):
            home = Installation(self, check("disk", "exit 1", everySeconds=1e12, alertRepeatSeconds=1e12), monitor={"timezone": zone})
            home.tick()
            for argv in (["status"], ["explain", "disk"], ["tick", "--dry-run"], ["mute", "disk", "--for", "99999999d"], ["enqueue", "disk", "--delay", "99999999d"]):
                result = home.call(*argv)
                self.assertEqual(result.code, 0, result.err)


class TestStops(Managed):
    def test_a_full_disk_does_not_keep_an_orphan_running(self):
        home = self.started(managed("m", "exec sleep 60"))
        home.configure(managed("renamed", "exec sleep 60"))
        result = home.call("stop", "m", bend=fill_disk)
        self.assertEqual((result.code, home.processes()), (74, []))
        self.assertIn("cannot be noted", result.out)

    def test_a_job_that_was_muted_is_silent_as_an_orphan_too_until_that_is_over(self):
        home = self.started(managed("m", "exec sleep 60"))
        home.tick()
        home.call("mute", "m", "--for", "600")
        home.configure(managed("renamed", "exec sleep 60"))
        home.tick(later=60)
        self.assertEqual(home.told_with("stop m"), [])
        for later in (700, 760, 820):
            home.tick(later=later)
        self.assertEqual((len(home.told_with("messages held: 1")), len(home.told_with("stop m"))), (1, 1))

    def test_a_stop_that_cannot_tell_says_so(self):
        home = Installation(self, long_job("crawl", status="echo '{'"))
        result = home.call("stop", "crawl")
        self.assertEqual(result.code, 1)
        self.assertIn("cannot tell whether 'crawl' runs", result.err)
        self.assertTrue(home.memory("crawl").get("heldAt"))

    def test_a_stop_that_waited_for_a_start_still_holds(self):
        home = Installation(self, long_job("crawl", start="sleep 0.5; echo x >> starts", stop="true", autoResume=True))
        home.says("crawl")
        begun = home.begin("start", "crawl")
        deadline = time.monotonic() + 20
        while not home.memory("crawl").get("action") and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(home.call("stop", "crawl").code, 0)
        self.assertEqual(home.end(begun).code, 0)
        self.assertTrue(home.memory("crawl").get("heldAt"))
        home.tick()
        self.assertEqual(home.lines("starts"), ["x"])

    def test_a_job_whose_log_was_taken_away_still_ends_as_it_ended(self):
        home = Installation(self, managed("m", "while [ ! -e go ]; do sleep 0.05; done; head -c 30000000 /dev/zero; sleep 0.3; exit 0"))
        self.start(home, "m")
        os.unlink(os.path.join(home.job_dir("m"), "run.log"))
        home.put("go", "")
        self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") is not None)
        self.assertEqual(self.run_record(home, "m")["exitCode"], 0)

    def test_a_fresh_start_that_fails_leaves_no_half_beginning(self):
        job = managed("m", 'echo "$OPS_ATTEMPT $OPS_RESUME" >> seen; touch "$OPS_CHECKPOINT_DIR/x"; exit 1')
        home = Installation(self, job)
        self.start(home, "m")
        self.wait_for("the first run's end", lambda: self.run_record(home, "m").get("exitCode") is not None)
        home.configure({**job, "commands": {"start": ["./no-such-program"]}})
        self.assertEqual(home.call("start", "m", "--fresh").code, 1)
        home.configure(job)
        self.start(home, "m")
        self.wait_for("the second run", lambda: len(home.lines("seen")) == 2)
        self.assertEqual(home.lines("seen"), ["1 0", "1 0"])
        self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") is not None)


class TestWhatIsLeft(unittest.TestCase):
    def test_a_daemon_that_a_lost_check_left_does_not_silence_the_check_for_ever(self):
        home = Installation(self, check("disk", "echo run >> runs; setsid sleep 60 >/dev/null 2>&1 </dev/null & sleep 0.2; kill -9 $PPID", everySeconds=60, runTimeoutSeconds=5))
        home.tick()
        self.assertEqual(len(home.lines("runs")), 1)
        home.tick(later=10)
        self.assertEqual(len(home.lines("runs")), 1, "its timeout has not passed")
        home.tick(later=20)
        self.assertEqual(len(home.lines("runs")), 2)
        self.assertTrue([entry for entry in home.state["outbox"] if "was interrupted" in entry["text"]], "that tick died too: it waits to be told")

    def test_a_delivery_that_another_process_makes_is_no_news(self):
        home = Installation(self, check("disk", "exit 3", everySeconds=3600))
        home.config["delivery"]["command"] = sh("exit 1")
        home.configure()
        self.assertEqual(home.tick().code, 3)
        lock = ops.Store(home.state_path, ops.Clock()).lock("delivery", limit=300.0)
        self.addCleanup(lock.close)
        result = home.tick(later=60)
        self.assertEqual((result.code, result.err), (0, ""))
        self.assertIn("delivery", home.state["self"]["incidents"])


class TestWrites(unittest.TestCase):
    def test_the_last_verification_says_nothing_of_a_run_that_was_lost(self):
        home = Installation(self, write("w", "[ -e slow ] && sleep 30; echo x >> ran", "v"), check("v", "true"))
        approve = lambda: home.call("approve", "w", "--digest", home.call("approve", "w", "--show").out.rpartition("digest: ")[2].strip())  # noqa: E731
        approve()
        self.assertEqual(home.call("run", "w", "--verify").code, 0)
        home.put("slow", "")
        self.assertEqual(approve().code, 0)
        pid, number = home.begin("run", "w")
        deadline = time.monotonic() + 20
        while not ops.marked_processes(home.state["gates"]["w"].get("runId", "")) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        home.end((pid, number))
        marker = home.state["gates"]["w"]["runId"]  # a write does not have our mark: its environment is fixed
        while ops.marked_processes(marker) and time.monotonic() < deadline:
            for left in ops.marked_processes(marker):
                ops.end_one(left, signal.SIGKILL)
            time.sleep(0.01)
        home.tick()
        gate = json.loads(home.call("status", "w", "--json").out)["jobs"][0]["gate"]
        self.assertEqual((gate["run"], gate["verification"]), ("unknown", None))


def found_in(pattern, *chunks):
    attention = ops.Attention([pattern])
    for chunk in chunks:
        attention.feed(chunk.encode())
    return [line.decode() for line in attention.end()]


class TestAttention(unittest.TestCase):
    def test_a_pattern_needs_a_boundary_only_where_it_has_a_letter(self):
        for pattern, line in (("ERROR: ", "ERROR: disk"), ("ERROR:", "ERROR:disk"), ("警告", "警告CPU过高"), ("❌", "❌failed"), ("[ALERT]", "[ALERT]disk")):
            self.assertEqual(found_in(pattern, line + "\n"), [line], pattern)
        for pattern, line in (("ERROR:", "TERROR: none"), ("ALERT", "ALERTS: 0"), (":ALERT", ":ALERTS")):
            self.assertEqual(found_in(pattern, line + "\n"), [], pattern)

    def test_a_coloured_word_is_found_wherever_the_colour_is_cut(self):
        text = "\x1b[1;31mALERT\x1b[0m disk\n"
        for cut in range(len(text)):
            self.assertEqual(found_in("ALERT", text[:cut], text[cut:]), ["ALERT disk"], cut)

    def test_a_new_line_after_a_long_one_is_a_really_different_text(self):
        old = "ALERT: replica of the photo archive on the second disk is older than the limit of two days, see the wiki"
        home = Installation(self, check("c", f"echo '{old}'; cat more", everySeconds=60))
        home.put("more", "")
        home.tick()
        home.put("more", "ALERT: RAID array md0 is degraded\n")
        home.tick(later=60)
        self.assertEqual(len(home.told_with("md0 is degraded")), 1)


class TestStarts(unittest.TestCase):
    def test_a_job_that_shows_late_is_not_started_twice_and_not_called_stopped(self):
        for settings in ({"autoResume": True}, {}):
            home = Installation(self, long_job("j", "echo x >> starts", **settings))
            home.says("j")
            self.assertEqual(home.call("start", "j").code, 0)
            home.tick(later=3)
            self.assertEqual((len(home.lines("starts")), home.told), (1, []))
            home.says("j", **{"running": True, "progressKey": "1"})
            home.tick(later=10)
            self.assertNotIn("action", home.memory("j"))
            home.says("j")
            home.tick(later=20)
            self.assertEqual(len(home.lines("starts")), 2 if settings else 1)
            self.assertEqual(len(home.told_with("AUTORUN" if settings else "ACTION REQUIRED")), 1)

    def test_a_job_that_never_shows_is_told_once_the_time_of_a_start_is_over(self):
        home = Installation(self, long_job("j"))
        home.says("j")
        home.call("start", "j")
        refused = home.call("start", "j", later=2)
        self.assertEqual(refused.code, 75, "a second start would be a second copy")
        self.assertIn("does not show as running yet", refused.err)
        self.assertEqual(home.call("start", "j", "--despite-unknown", later=3).code, 0)
        home.tick(later=90)
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "stopped")), 1)

    def test_the_completion_of_the_run_before_is_not_told_again(self):
        home = Installation(self, long_job("j"))
        home.says("j", completed=True)
        home.tick()
        home.call("start", "j", later=10)
        home.tick(later=20)
        self.assertEqual(len(home.told_with("COMPLETED")), 1)
        home.says("j", **{"running": True, "progressKey": "1"})
        home.tick(later=30)
        home.says("j", completed=True)
        home.tick(later=40)
        self.assertEqual(len(home.told_with("COMPLETED")), 2)

    def test_a_start_of_a_disabled_job_says_that_nothing_watches_it(self):
        home = Installation(self, {**long_job("j"), "enabled": False})
        home.says("j")
        self.assertIn("no tick watches it", home.call("start", "j").out)

    def test_a_failed_start_of_a_muted_job_is_counted(self):
        home = Installation(self, long_job("j", "exit 3", autoResume=True))
        home.says("j", running=True)
        home.tick()
        home.call("mute", "j", "--for", "60")
        home.says("j")
        told = home.told
        home.tick(later=5)
        self.assertEqual((home.told, home.memory("j")["mutedCount"]), (told, 2), "the attempt and its failure")


class TestLocks(unittest.TestCase):
    def hold(self, home, name, limit):
        """What a process has that took the lock for `limit` seconds and was stopped."""
        lock = ops.Store(home.state_path, ops.Clock()).lock(name, limit=limit)
        self.addCleanup(lock.close)
        return lock

    def test_a_delivery_lock_that_is_never_free_is_no_silence(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600))
        self.hold(home, "delivery", 300.0)
        self.assertEqual((home.tick().code, home.told), (0, []), "another process sends")
        result = home.tick(later=400)
        self.assertEqual(result.code, 3)
        self.assertIn("lsof", result.err)
        self.assertIn("should have ended", result.err)

    def test_a_job_lock_that_is_never_free_is_told_and_resolved(self):
        home = Installation(self, check("c", "echo x >> runs", everySeconds=60, runTimeoutSeconds=5))
        lock = self.hold(home, ops.slug("c"), 125.0)
        home.tick(later=60)
        home.tick(later=400)
        self.assertEqual(home.told, [], "its time is not over; once may be the end of a sleep")
        home.tick(later=460)
        self.assertEqual(len(home.told_with("ALERT", "holds this job's lock", "lsof")), 1)
        ops.fcntl.flock(lock, ops.fcntl.LOCK_UN)
        home.tick(later=520)
        self.assertEqual((len(home.told_with("RESOLVED")), len(home.lines("runs"))), (1, 1))

    def test_a_long_job_whose_lock_is_never_free_is_told_although_auto_resume_has_it(self):
        home = Installation(self, long_job("j", "echo x >> starts", autoResume=True))
        home.says("j")
        lock = self.hold(home, ops.slug("j"), 270.0)
        home.tick(later=1000)
        home.tick(later=1060)
        self.assertEqual((len(home.told_with("holds this job's lock")), home.lines("starts")), (1, []))
        home.says("j", running=True)
        ops.fcntl.flock(lock, ops.fcntl.LOCK_UN)
        home.tick(later=1120)
        self.assertEqual(len(home.told_with("RESOLVED", "holds this job's lock")), 1, "although nothing has to be started any more")

    def test_a_run_by_hand_with_a_longer_limit_is_no_trouble(self):
        home = Installation(self, check("c", "echo x >> begun; while [ ! -e go ]; do sleep 0.05; done", everySeconds=60, runTimeoutSeconds=5))
        begun = home.begin("run", "c", "--timeout-seconds", "600")
        until = time.monotonic() + 20
        while not home.lines("begun") and time.monotonic() < until:
            time.sleep(0.01)
        home.tick(later=400)
        home.tick(later=460)
        self.assertEqual(home.told, [])
        home.put("go", "")
        self.assertEqual(home.end(begun).code, 0)


class TestOutbox(unittest.TestCase):
    def test_a_completion_is_not_pushed_out_by_the_next_run(self):
        home = Installation(self, long_job("j"), delivery={"via": "none"})
        home.says("j", completed=True)
        home.tick()
        home.says("j", running=True)
        home.tick(later=60)
        texts = [entry["text"] for entry in home.state["outbox"]]
        self.assertEqual(len([text for text in texts if "COMPLETED" in text]), 1, texts)
        self.assertEqual(len(texts), 2, texts)

    def test_one_who_dies_over_a_sending_has_the_next_one_say_so(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600))
        home.tick(bend=lambda: die_once_it_runs("told"))
        until = time.monotonic() + 10
        while not home.told and time.monotonic() < until:
            time.sleep(0.01)
        self.assertTrue(home.state["outbox"][0]["sending"])
        home.tick(later=5)
        self.assertEqual(len(home.told_with("possible repeat")), 1)
        self.assertEqual(home.state["outbox"], [])

    def test_a_wait_is_cut_for_every_entry_when_the_clock_was_set_back(self):
        state = ops.State({"version": 2, "outbox": [{"id": str(number), "text": "x", "rank": 3, "createdAt": 0.9e8} for number in range(2)]}, 1e9)
        ops.postpone(state, ops.Message("x", True, ("0",)), ops.Sent("refused"), ops.Receiver())
        state = ops.State({**state.raw, "savedAt": 1e9}, 1e8)
        self.assertTrue(all(entry["notBefore"] <= 1e8 + 6 * 3600 for entry in state.outbox), state.outbox)

    def test_routine_that_waits_for_the_next_tick_is_no_error(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600), long_job("j"), delivery={"via": "openclaw", "target": "1"})
        home.put("openclaw", "#!/bin/sh\nexit 0\n")
        os.chmod(home.path("openclaw"), 0o755)
        home.env["PATH"] += ":" + home.root
        home.says("j", running=True)
        result = home.tick()
        self.assertEqual((result.code, result.err), (3, ""))
        self.assertEqual((home.tick(later=60).code, home.state["outbox"]), (0, []))


class TestStopsThatFail(unittest.TestCase):
    def test_a_stop_without_a_pid_does_not_call_a_running_job_not_running(self):
        home = Installation(self, long_job("j"))
        home.says("j", running=True)
        result = home.call("stop", "j")
        self.assertEqual(result.code, 1)
        self.assertIn("names no living pid", result.err)
        self.assertIn("running, held", home.call("status").out)

    def test_a_full_disk_does_not_keep_a_job_running(self):
        home = Installation(self, long_job("j", stop="echo x >> stops"))
        home.says("j", running=True)
        home.tick()
        result = home.call("stop", "j", bend=fill_disk)
        self.assertEqual((result.code, home.lines("stops")), (74, ["x"]))
        self.assertIn("cannot be noted", result.out)
        self.assertIn("no space left", result.err)

    def test_a_full_disk_does_not_hide_what_a_check_said(self):
        home = Installation(self, check("c", "echo hi"))
        result = home.call("run", "c", bend=fill_disk)
        self.assertEqual((result.code, result.out), (74, "hi\n"))


def fill_disk():
    def write_durably(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    ops.write_durably = write_durably


class TestTicks(unittest.TestCase):
    def test_a_report_that_is_interrupted_is_printed(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600), check("slow", "echo x >> begun; sleep 30", everySeconds=3600))
        begun = home.begin("tick", "--print-only")
        until = time.monotonic() + 20
        while not home.memory("c").get("ranAt") and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(begun[0], signal.SIGINT)
        result = home.end(begun)
        self.assertEqual(result.code, 130)
        self.assertIn("exit code 3", result.out)

    def test_another_config_leaves_the_queue_alone(self):
        home = Installation(self, check("c", "echo x >> runs"))
        home.tick()
        home.call("enqueue", "c")
        home.put("other.json", json.dumps({**home.config, "jobs": []}))
        home.call("tick", "--config-file", home.path("other.json"), later=5)
        self.assertEqual(home.told, [])
        home.tick(later=10)
        self.assertEqual(home.lines("runs"), ["x"])

    def test_an_alert_needs_as_many_looks_as_were_asked_for(self):
        policy = ops.make_policy({"alertAfter": 1500})
        incident, opened = None, []
        for look in range(1, 1503):
            finding = ops.Finding("unknown", ops.ALERT, ops.Phrase("status.json"))
            incident, reason = ops.judge_incident(incident, finding, policy, ops.Instant(60.0 * look), 0.0)
            opened += [look] * (reason.key == "incident.opened")
        self.assertEqual(opened[:1], [1500])

    def test_a_check_once_a_day_is_reminded_of_in_between(self):
        home = Installation(self, check("c", "exit 3", everySeconds=86400, alertRepeatSeconds=3600))
        home.tick()
        for later, told in ((1800, 1), (3700, 2), (7300, 2), (11000, 3), (11060, 3)):
            home.tick(later=later)
            self.assertEqual(len(home.told_with("exit code 3")), told, later)
        home.call("ack", "c", later=11100)
        home.tick(later=40000)
        self.assertEqual(len(home.told_with("exit code 3")), 3)

    def test_a_queue_does_not_grow_without_end(self):
        home = Installation(self, {**check("a", "true"), "after": [{"jobId": "b", "delaySeconds": 9999}]}, check("b", "true"))
        for _ in range(14):
            home.call("run", "a")
        self.assertEqual(len(home.state["queue"]), 10)
        done = [{"id": str(number), "jobId": "b", "status": "done", "createdAt": time.time(), "doneAt": time.time()} for number in range(50)]
        home.set_state(queue=done)
        home.tick()
        self.assertEqual([entry["id"] for entry in home.state["queue"]], [str(number) for number in range(30, 50)])

    def test_an_entry_that_is_said_to_run_and_does_not_is_run(self):
        home = Installation(self, check("b", "echo x >> runs"))
        home.set_state(queue=[{"id": "1", "jobId": "b", "status": "running", "notBefore": 0}])
        home.tick()
        home.tick(later=60)
        self.assertEqual(home.lines("runs"), ["x"])

    def test_a_tiny_period_stops_no_tick(self):
        home = Installation(self, check("c", "true", everySeconds=1e-320), check("d", "exit 3", everySeconds=60))
        home.tick()
        self.assertEqual((home.tick(later=60).code, len(home.told)), (0, 1))

    def test_a_look_from_an_absurd_future_does_not_blind(self):
        home = Installation(self, long_job("j"))
        home.says("j", running=True)
        home.tick()
        home.set_state(jobs={"j": {**home.memory("j"), "lookedAwake": 1e12}})
        home.says("j")
        home.tick(later=60)
        self.assertEqual(len(home.told_with("ACTION REQUIRED")), 1)

    def test_a_dry_run_shows_what_is_wrong_in_the_config(self):
        home = Installation(self, check("c", "true"), {**check("d", "true"), "risk": "write_local"})
        result = home.call("tick", "--dry-run")
        self.assertEqual(result.code, 2)
        self.assertIn("jobs[1].risk", result.err)

    def test_a_refused_config_is_told_with_what_mends_it(self):
        home = Installation(self, check("c", "exit 3", everySeconds=60))
        home.tick()
        os.chmod(home.config_path, 0o666)
        home.tick(later=60)
        home.tick(later=120)
        self.assertEqual(len(home.told_with("can be written by everyone", "chmod o-w")), 1)


class TestWords(unittest.TestCase):
    def test_a_mistake_in_the_config_hides_no_history(self):
        home = Installation(self, check("disk", "exit 3"))
        home.call("run", "disk")
        home.put(home.config_path, "{")
        for argv in (["history"], ["history", "disk"]):
            result = home.call(*argv)
            self.assertRegex(result.err, r"\Awarning: \S+ops-jobs\.json:1:\d+: error: [^\n]*\n\Z")
            self.assertEqual((result.code, "exit code 3" in result.out), (0, True))

    def test_a_history_of_nobody_names_the_nearest(self):
        result = Installation(self, check("disk", "true")).call("history", "dsik")
        self.assertEqual(result.code, 2)
        self.assertIn("did you mean 'disk'", result.err)

    def test_what_is_resolved_is_said_to_be_past(self):
        home = Installation(self, check("c", "cat code; exit $(cat code)", everySeconds=60))
        for later, code in ((0, "3"), (60, "0")):
            home.put("code", code)
            home.tick(later=later)
        self.assertEqual(len(home.told_with("RESOLVED", "it was: exit code 3")), 1)

    def test_the_next_step_in_a_message_can_be_pasted(self):
        home = Installation(self, check("c", "exit 3", everySeconds=60))
        home.call("tick", "--config-file", home.config_path)
        (line,) = [line for line in home.told[0].splitlines() if line.startswith("next: ")]
        command = line.partition(" ")[2].replace("~", home.root)
        result = subprocess.run(["/bin/sh", "-c", command], env=home.env, stdout=subprocess.PIPE, check=False)
        self.assertEqual(result.returncode, 0, command)
        self.assertIn(b"exit code 3", result.stdout)

    def test_a_directory_that_may_not_be_entered_is_named_itself(self):
        error = PermissionError(errno.EACCES, "permission denied")
        place = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, place)
        os.chmod(place, 0)
        if os.access(place, os.X_OK):
            self.skipTest("this user may enter any directory")
        self.assertEqual(ops.spawn_failure(error, ops.Command(["/bin/echo"], place, {}, 1.0)).key, "run.cwd_denied")

    def test_an_openclaw_config_that_cannot_be_read_is_the_reason_given(self):
        home = Installation(self, check("c", "exit 3", everySeconds=60), delivery={})
        home.put("openclaw.json", '{"channels": ')
        result = home.tick()
        self.assertEqual(result.code, 3)
        self.assertIn("openclaw.json:1:", result.err)

    def test_an_ack_is_not_of_what_is_not_yet_told(self):
        home = Installation(self, long_job("j", status="exit 1", alertAfter=3, alertRepeatSeconds=60))
        home.tick()
        home.call("ack", "j")
        for later in (60, 120, 200):
            home.tick(later=later)
        self.assertEqual(len(home.told_with("unknown") or home.told), 2, "told, and reminded of")


class TestVerifications(unittest.TestCase):
    def written(self):
        home = Installation(self, write("w", "true", "v"), check("v", "./verify"))
        home.put("verify", "#!/bin/sh\nexit 1\n")
        os.chmod(home.path("verify"), 0o755)
        home.call("approve", "w", "--digest", home.call("approve", "w", "--show").out.rpartition("digest: ")[2].strip())
        self.assertEqual(home.call("run", "w", "--verify").code, 1)
        return home

    def test_a_mended_check_is_said_not_to_be_the_approved_one_and_the_way_on_is_named(self):
        home = self.written()
        home.put("verify", "#!/bin/sh\nexit 0\n")
        os.chmod(home.path("verify"), 0o755)
        self.assertEqual(home.call("run", "v").code, 0)
        self.assertEqual(len(home.told_with("not the check that was approved")), 1)
        self.assertIn("--despite-failed-verification", home.call("explain", "w").out)
        self.assertIn("--despite-failed-verification", home.call("run", "w").err)

    def test_a_failed_verification_leads_to_its_next_run(self):
        self.assertRegex(self.written().call("run", "w").err, "help: .*ops-monitor.py run v")

    def test_only_the_one_that_failed_is_named(self):
        gate = ops.Gate(run="good", run_ended_at=1.0, verify="pending", verify_left=["a", "b"])
        failed = ops.verified(gate, "a", 2.0, False)
        self.assertEqual((failed.verify, ops.left_to_verify(failed)), ("failed", {"jobs": "a"}))
        passed = ops.verified(failed, "a", 3.0, True)
        self.assertEqual((passed.verify, ops.left_to_verify(passed)), ("pending", {"jobs": "b"}))
        self.assertEqual(ops.verified(passed, "b", 4.0, True).verify, "passed")


    def test_a_check_that_failed_is_not_said_to_have_been_good(self):
        gate = ops.Gate(run="good", run_ended_at=1.0, verify="pending", verify_left=["a", "b"])
        gate = ops.verified(ops.verified(gate, "a", 2.0, False), "b", 3.0, True, is_same=False)
        gate = ops.verified(gate, "b", 4.0, True)
        self.assertEqual((gate.verify, gate.verify_failed), ("failed", ["a"]))

    def test_an_agent_that_tries_again_later_is_heard_of_again(self):
        home = Installation(self, write("w", "echo x >> ran", "v"), check("v", "true"))
        for later, told in ((0, 1), (60, 1), (4000, 2)):
            self.assertEqual(home.call("run", "w", later=later).code, 4)
            self.assertEqual(len(home.told_with("BLOCKED")), told, later)
        home.call("ack", "w")
        self.assertNotIn("blocked", home.memory("w").get("incidents", {}))
        self.assertEqual(home.lines("ran"), [])


class TestFlappingWhileMuted(unittest.TestCase):
    def test_it_is_told_at_the_end_of_the_mute(self):
        home = Installation(self, long_job("j"))
        home.says("j", running=True)
        home.tick()
        home.call("mute", "j", "--for", "3600")
        for minute in range(1, 12):
            home.says("j", running=bool(minute % 2))
            home.tick(later=60 * minute)
        self.assertEqual(home.told_with("right and wrong") + home.told_with("ALERT"), [])
        home.tick(later=3601)
        self.assertEqual(len(home.told_with("wrong and right again")), 1)


@unittest.skipUnless(sys.platform == "linux", "looks are shared with a fork on Linux only")
class TestForks(unittest.TestCase):
    def setUp(self):
        self.home = Installation(self, *(long_job(f"j{number}", status="echo $$ >> pids; exec sleep 60") for number in range(16)), monitor={"parallel": 8})

    def bend(self):
        fork = os.fork

        def told():
            pid = fork()
            self.home.put("fork", str(pid)) if pid else None
            return pid

        ops.SHARED_LOOKS, ops.can_share, os.fork = (8, 4000), lambda: True, told
        ops.reach = lambda step: None  # its file is closed in the fork

    def wait_for(self, is_so):
        until = time.monotonic() + 20
        while not is_so() and time.monotonic() < until:
            time.sleep(0.01)
        self.assertTrue(is_so())

    def test_the_numbers_of_all_looks_fit_into_a_pipe_of_a_user_who_has_too_many(self):
        source, sink = os.pipe()
        self.addCleanup(os.close, source)
        self.addCleanup(os.close, sink)
        fcntl.fcntl(sink, 1031, 4096)  # F_SETPIPE_SZ: one page, as beyond pipe-user-pages-soft
        os.set_blocking(sink, False)
        numbers = bytes(2 * ops.SHARED_LOOKS[1])
        self.assertEqual(os.write(sink, numbers), len(numbers))

    def test_ctrl_c_and_what_follows_end_everything_in_silence(self):
        begun = self.home.begin("tick", bend=self.bend)
        self.wait_for(lambda: len(self.home.lines("pids")) == 8)
        both = begun[0], int(self.home.read("fork"))
        for pid in both:
            os.kill(pid, signal.SIGSTOP)
        for pid in both:  # the terminal tells all, then the first tells the second, and a person types it again
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        for pid in both:
            os.kill(pid, signal.SIGCONT)
        result = self.home.end(begun)
        self.assertEqual((result.code, result.out, result.err), (130, "", ""))
        self.wait_for(lambda: not self.home.processes() and not ops.process_start(both[1]))


class TestExitCodes(unittest.TestCase):
    def test_what_is_no_exit_code_is_told_in_words_everywhere(self):
        home = Installation(self, write("w", "exit 0", "v"), check("v", "kill -9 $$"))
        home.config["jobs"][0]["commands"]["run"] = [home.path("script")]
        home.configure()
        home.put("script", "#!/no/such/interpreter\n")
        os.chmod(home.path("script"), 0o755)
        digest = home.call("approve", "w", "--show").out.split("digest: ")[1].strip()
        home.call("approve", "w", "--digest", digest)
        home.call("run", "w")
        home.call("run", "v")
        for argv, words in (
            (["approve", "w", "--show"], "the last run failed, its command could not be run"),
            (["explain", "w"], "the last run failed, its command could not be run"),
            (["history", "w"], "write ended: its command could not be run"),
            (["history", "v"], "run by hand: ended by signal SIGKILL"),
            (["explain", "v"], ", ended by signal SIGKILL"),
        ):
            self.assertIn(words, home.call(*argv).out)


class TestTheVeryEnd(unittest.TestCase):
    def test_a_signal_while_python_ends_prints_nothing(self):
        program = "import atexit, os, sys; sys.path.append(sys.argv[1]); atexit.register(os.kill, os.getpid(), int(sys.argv[2]))"
        program += "; __import__('ops-monitor').run_and_exit(['--version'])"
        for number in (signal.SIGTERM, signal.SIGINT):
            argv = [sys.executable, "-B", "-c", program, os.path.dirname(ops.__file__), str(int(number))]
            ended = subprocess.run(argv, capture_output=True, check=False)
            self.assertEqual((ended.returncode, ended.stdout, ended.stderr), (0, f"{ops.VERSION}\n".encode(), b""))


    def test_an_interruption_while_a_reader_takes_the_last_of_it_is_an_exit_code(self):
        class Slow(io.StringIO):
            def flush(self):
                raise ops.Interrupted(signal.SIGINT)

        before = [(number, signal.getsignal(number)) for number in ops.ENDING_SIGNALS]
        try:
            with contextlib.redirect_stdout(Slow()):
                self.assertEqual(ops.main(["--version"]), 130)
        finally:
            for number, action in before:
                signal.signal(number, action)


class TestFilesNamedLikeSecrets(unittest.TestCase):
    def test_why_a_file_of_secrets_cannot_be_read_is_told(self):
        redact = ops.Redactor()
        for line in ("cat: /etc/passwd: Permission denied", "sh: bot-token: No such file or directory"):
            self.assertEqual(redact(line), line)
        self.assertEqual(redact("token: permission, denied"), "token: ***, denied")


class TestLimits(unittest.TestCase):
    @unittest.skipUnless(sys.platform == "linux", "its size stands in /proc")
    def test_a_small_machine_has_memory_enough_for_small_files(self):
        def bend():
            with open("/proc/self/statm", encoding="ascii") as file:
                now = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + (40 << 20),) * 2)

        home = Installation(self, check("c", "exit 3", everySeconds=60))
        result = home.tick(bend=bend)
        self.assertEqual((result.code, result.err, len(home.told_with("exit code 3"))), (0, "", 1))

    def test_with_few_descriptors_fewer_run_at_once_and_nothing_fails(self):
        def bend():
            resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

        home = Installation(self, *(long_job(f"j{number}", status="sleep 0.05; cat j.status") for number in range(20)),
                            *(check(f"c{number}", "sleep 0.05; exit 1", everySeconds=60) for number in range(20)))  # fmt: skip
        home.says("j", running=True)
        result = home.tick(bend=bend)
        self.assertEqual((result.code, result.err), (0, ""))
        self.assertEqual([job for job in home.state["jobs"].values() if job.get("state", "running") != "running"], [])
        self.assertEqual(sum(text.count("ALERT") for text in home.told), 20)


class TestQueues(unittest.TestCase):
    def test_an_entry_that_somebody_wrote_without_an_id_is_refused_once(self):
        home = Installation(self, long_job("l", status="exit 0", alertAfter=99), check("c", "echo x >> runs"))
        home.tick()
        home.put(home.state_path, json.dumps({**home.state, "queue": [{"jobId": "l", "status": "pending"}, {"jobId": "c", "id": 5, "status": "pending"}]}))
        for later in (1, 2, 3):
            home.tick(later=later)
        self.assertEqual((len(home.told_with("BLOCKED")), home.lines("runs")), (1, ["x"]))


class TestUndelivered(unittest.TestCase):
    def test_each_next_step_leads_further(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600))
        home.config["delivery"]["command"] = sh("echo bad key >&2; exit 7")
        home.configure()
        told = home.tick().err
        self.assertIn("exit code 7: bad key\n", told)
        self.assertIn("doctor --send-test", told, "nothing of a command is online")
        self.assertIn("doctor --send-test", home.call("doctor", "--online").out)
        self.assertIn("next: echo test | /bin/sh -c 'echo bad key >&2; exit 7'", home.call("doctor", "--send-test").out)


class TestBrokenOpenClaw(unittest.TestCase):
    def installation(self, openclaw):
        home = Installation(self, check("c", "exit 3", everySeconds=60), delivery={})
        home.put("openclaw.json", openclaw)
        return home

    def test_who_was_told_last_is_told_when_the_config_no_longer_says_whom(self):
        home = self.installation("{")
        home.put(".env", "TELEGRAM_BOT_TOKEN=" + TOKEN)
        self.assertIn("fail  target: none is named", home.call("doctor").out)
        home.tick()
        state = home.state
        home.put(home.state_path, json.dumps({**state, "receiver": {"channel": "telegram", "target": "777000111", "threadId": ""}}))
        self.assertIn("warn  target: 777000111, whom the last message reached", home.call("doctor").out)
        self.assertIn("mend " + home.path("openclaw.json:1:2"), home.call("doctor").out)

    def test_the_next_step_is_where_the_trouble_is(self):
        for openclaw, advice in (
            ("{channels: {telegram: {botToken: 'x' 'y'}}}", "help: mend {root}/openclaw.json:1:38"),
            ('{"channels": {"telegram": {"botToken": {"source": "exec", "provider": "p", "id": "t"}}}}', "or put openclaw on the PATH"),
            ('{"channels": {"telegram": {"botToken": "%s", "proxy": "socks5://x:1"}}}' % TOKEN, "help: put openclaw on the PATH\n"),
            ('{"channels": {"telegram": {"botToken": "${UNSET}"}}, "feishu": true}', "help: put openclaw on the PATH\n"),
        ):
            home = self.installation(openclaw)
            home.config["delivery"] = {"channel": "feishu"} if "feishu" in openclaw else {}
            home.configure()
            self.assertIn(advice.format(root=home.root), home.tick().err)


class TestProgress(unittest.TestCase):
    def test_progress_seen_only_after_the_end_counts(self):
        home = Installation(self, long_job("j", "echo x >> starts", autoResume=True, autoResumeBackoffSeconds=900))
        home.says("j", progressKey="1")
        home.tick()
        home.says("j", progressKey="2")
        home.tick(later=60)
        self.assertEqual(len(home.lines("starts")), 2, "a new key: no attempt in a row")
        home.tick(later=120)
        self.assertEqual(len(home.lines("starts")), 2, "the same key: the back-off counts")


class TestSupervisors(Managed):
    def test_a_record_that_is_nested_without_end_is_that_job_s_trouble_alone(self):
        home = self.started(managed("m", "exec sleep 60"), check("c", "exit 3", everySeconds=3600))
        path = os.path.join(home.job_dir("m"), "run.json")
        record = home.read(path)
        home.put(path, "[" * 60000)
        self.assertEqual(home.tick().code, 0)
        self.assertEqual([len(home.told_with("ALERT", what)) for what in ("exit code 3", "record")], [1, 1])
        home.put(path, record)

    def test_an_end_that_cannot_be_recorded_for_a_while_is_recorded_later(self):
        home = Installation(self, managed("m", "while [ ! -e go ]; do sleep 0.05; done; exit 0", autoResume=True))
        self.start(home, "m")
        os.mkdir(os.path.join(home.job_dir("m"), "run.json.tmp"))  # nothing can be written there, as on a full disk
        home.put("go", "")
        self.wait_for("the job's end", lambda: not ops.process_start(self.run_record(home, "m")["pid"]))
        home.tick()
        self.assertEqual(home.told_with("AUTORUN"), [])
        os.rmdir(os.path.join(home.job_dir("m"), "run.json.tmp"))
        self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") == 0)

    @unittest.skipUnless(os.path.exists("/proc/self/environ"), "elsewhere nobody can tell who set LC_CTYPE")
    def test_a_locale_that_the_caller_names_is_not_changed_for_children(self):
        home = Installation(self, managed("m", f'echo "${{LC_CTYPE-none}}" > managed; {SLEEP}'), check("c", 'echo "${LC_CTYPE-none}" > checked'))
        bare = {name: value for name, value in home.env.items() if name not in ("LANG", "LC_ALL", "LC_CTYPE")}
        pythons = subprocess.run([sys.executable, "-c", "import os; print(os.environ.get('LC_CTYPE', 'none'))"], env=bare, stdout=subprocess.PIPE, text=True)
        rows = (
            ({"LANG": "C"}, "none"),
            ({"LANG": "POSIX", "LC_CTYPE": "C"}, "C"),
            ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, "C.UTF-8"),
            ({"LC_ALL": "C"}, "none"),
            ({}, pythons.stdout.strip()),  # cron: UTF-8 where Python knows such a locale
        )
        for named, expected in rows:
            with self.subTest(named):
                for words in (("run", "c"), ("start", "m")):
                    self.assertEqual(home.real_call(*words, env={**bare, **named}).code, 0)
                self.wait_for("the job's first line", lambda: home.lines("managed"))
                self.assertEqual((home.lines("checked"), home.lines("managed")), ([expected], [expected]))
                self.assertEqual(home.real_call("stop", "m").code, 0)
                os.remove(os.path.join(home.root, "managed"))

    def test_a_mistake_in_the_config_keeps_no_managed_job_running(self):
        home = self.started(managed("m", SLEEP, autoResume=True), long_job("own"))
        good = home.read(home.config_path)
        home.put(home.config_path, good.replace('"version"', "'version", 1))
        stopped = home.call("stop", "m")
        self.assertEqual(stopped.code, 0, stopped.err)
        self.assertRegex(stopped.err, r"\Awarning: \S+ops-jobs\.json:1:\d+: error: ")
        self.assertIn("stopped", stopped.out)
        for job_id in ("own", "nobody"):
            result = home.call("stop", job_id)
            self.assertEqual((result.code, result.out), (2, ""))
            self.assertRegex(result.err, r"\A\S+ops-jobs\.json:1:\d+: error: [^\n]*\nhelp: [^\n]*validate-config[^\n]*\n\Z")
        home.put(home.config_path, good)
        home.tick()
        self.assertTrue(self.status(home, "m")["held"])
        self.assertEqual(home.told_with("AUTORUN"), [])

    def test_a_stop_of_a_job_whose_record_is_gone_does_not_call_it_not_running(self):
        home = Installation(self, managed("m", SLEEP))
        self.start(home, "m")
        record = os.path.join(home.job_dir("m"), "run.json")
        os.rename(record, record + ".kept")
        result = home.call("stop", "m")
        self.assertEqual((result.code, result.out), (1, ""))
        self.assertIn("run.json is missing", result.err)
        os.rename(record + ".kept", record)
        self.assertEqual(home.call("stop", "m").code, 0)

    def test_a_full_disk_does_not_keep_a_job_running_that_left_the_config(self):
        home = Installation(self, managed("m", SLEEP), check("c", "true"))
        self.start(home, "m")
        home.configure(check("c", "true"))
        result = home.call("stop", "m", bend=fill_disk)
        self.assertEqual(result.code, 74, result.err)
        self.assertIn("cannot be noted", result.out)
        self.assertFalse(ops.is_lock_held(home.job_dir("m")))

    def test_a_stopped_job_that_then_exits_0_is_paused_not_completed(self):
        work = 'echo "$OPS_RESUME" >> resumes; touch "$OPS_CHECKPOINT_DIR/kept"; trap "exit 0" TERM'
        home = Installation(self, {**managed("m", f"{work}; {SLEEP}"), "after": [{"jobId": "c"}]}, check("c", "echo x >> after"))
        self.start(home, "m")
        self.wait_for("its first line", lambda: home.lines("resumes"))
        self.assertEqual(home.call("stop", "m").code, 0)
        self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") == 0)
        home.tick()
        home.tick()
        self.assertEqual((self.status(home, "m")["state"], home.told_with("COMPLETED"), home.lines("after")), ("stopped", [], []))
        self.start(home, "m")
        self.wait_for("its second line", lambda: home.lines("resumes") == ["0", "1"])
        self.assertTrue(os.path.exists(os.path.join(home.job_dir("m"), "checkpoint", "kept")))

    def test_a_job_that_exits_0_when_the_machine_shuts_down_goes_on_afterwards(self):
        work = 'echo "$OPS_RESUME" >> resumes; trap "exit 0" TERM'
        job = {**managed("m", f"{work}; {SLEEP}", autoResume=True), "after": [{"jobId": "c"}]}
        home = Installation(self, job, check("c", "echo x >> after"))
        self.start(home, "m")
        self.wait_for("its first line", lambda: home.lines("resumes"))
        record = self.run_record(home, "m")
        for pid in (record["pid"], record["supervisor"]):  # as a machine that shuts down does
            os.kill(pid, signal.SIGTERM)
        self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") == 0)
        self.assertEqual(self.status(home, "m")["stopReason"], "asked to end, exit 0")
        home.tick()
        self.wait_for("its second line", lambda: home.lines("resumes") == ["0", "1"])
        self.assertEqual((home.told_with("COMPLETED"), home.lines("after"), len(home.told_with("AUTORUN"))), ([], [], 1))

    def test_a_completion_long_after_somebody_signalled_the_supervisor_is_one(self):
        with mock.patch.object(ops, "SHUTDOWN_TIME", 0.0):
            home = self.started(managed("m", "echo x > begun; while [ ! -e go ]; do sleep 0.05; done; exit 0"))
        os.kill(self.run_record(home, "m")["supervisor"], signal.SIGTERM)
        home.put("go", "")
        self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") == 0)
        home.tick()
        self.assertEqual(len(home.told_with("COMPLETED")), 1)

    def test_what_left_the_group_is_asked_to_end_once_its_leader_has(self):
        worker = "trap 'echo asked > ended; exit' TERM; echo here > worker; while :; do sleep 0.05; done"
        home = Installation(self, managed("m", f'setsid sh -c "{worker}" & wait', stopTimeoutSeconds=60))
        self.start(home, "m")
        self.wait_for("its worker", lambda: home.read("worker"))
        began = time.monotonic()
        self.assertEqual(home.call("stop", "m").code, 0)
        self.assertEqual(home.read("ended"), "asked\n")
        self.assertLess(time.monotonic() - began, 20)

    def test_a_job_started_by_another_one_outlives_it_with_its_supervisor(self):
        home = Installation(self, managed("m", SLEEP))
        home.env["OPS_RUN"] = "of-another-job"
        self.start(home, "m")
        self.assertEqual(ops.marked_processes("of-another-job"), [])

    def test_a_progress_file_that_is_too_large_is_said_with_the_limit(self):
        home = Installation(self, managed("m", f'head -c 70000 /dev/zero > "$OPS_PROGRESS_FILE"; echo x > there; {SLEEP}'))
        self.start(home, "m")
        self.wait_for("its file", lambda: home.read("there"))
        self.assertIn("larger than 64 KiB", home.call("status").out)


class TestWritesInTrouble(unittest.TestCase):
    def approve(self, home, *flags):
        digest = home.call("approve", "w", "--show").out.partition("digest: ")[2].strip()
        self.assertEqual(home.call("approve", "w", "--digest", digest, *flags).code, 0)

    def test_a_verification_that_fails_again_and_again_is_told_each_time(self):
        home = Installation(self, write("w", ":", "v"), check("v", "exit 3"))
        for count in range(1, 9):
            self.approve(home, *(["--despite-failed-verification"] if count > 1 else []))
            self.assertEqual(home.call("run", "w", "--verify").code, 1)
            self.assertEqual(len(home.told_with("ALERT", "the write ran, its verification failed")), count)
            home.tick()
        self.assertNotIn("flapping", home.call("status", "w").out)

    def test_an_outcome_that_is_lost_again_is_told_again(self):
        home = Installation(self, write("w", "echo x >> ran", "v"), check("v", "true"))
        for count in (1, 2, 3):
            self.approve(home)
            home.call("run", "w", bend=lambda: die_once_it_runs("ran"))
            while home.processes():
                time.sleep(0.02)
            self.assertEqual(len(home.lines("ran")), count)
            home.tick()
            self.assertEqual(len(home.told_with("ALERT", "outcome of the last run is unknown")), count)

    def test_an_approval_despite_a_failed_verification_closes_what_was_open_at_once(self):
        home = Installation(self, write("w", ":", "v"), check("v", "exit 3"))
        self.approve(home)
        home.call("run", "w", "--verify")
        self.assertIn("verification since", home.call("status", "w").out)
        self.approve(home, "--despite-failed-verification")
        self.assertNotIn("verification since", home.call("status", "w").out)

    def test_explain_knows_of_a_config_that_keeps_a_write_blocked(self):
        home = Installation(self, write("w", ":", "v"), check("v", "true"))
        self.approve(home)
        os.chmod(home.config_path, 0o660)
        self.assertEqual(home.call("run", "w").code, 4)
        said = home.call("explain", "w").out
        self.assertIn("others could have written", said.splitlines()[-3])
        self.assertIn("doctor", said.splitlines()[-2])

    def test_a_write_that_could_not_be_run_has_no_exit_code(self):
        home = Installation(self, {**write("w", "", "v"), "commands": {"run": ["./tool"]}}, check("v", "true"))
        home.put("tool", "no program")
        self.approve(home)
        self.assertEqual(home.call("run", "w").code, 1)
        for said in (home.call("explain", "w").out, home.call("approve", "w", "--show").out):
            self.assertIn("could not be run", said)
            self.assertNotIn("1000", said)

    def test_a_verification_that_left_the_config_is_not_what_is_advised_to_run(self):
        home = Installation(self, write("w", ":", "v"), check("v", "true"))
        self.approve(home)
        self.assertEqual(home.call("run", "w").code, 0)
        self.assertIn("run v", home.call("run", "w").err)
        home.configure(write("w", ":", "other"), check("other", "true"))
        self.assertIn("approve w --despite-failed-verification", home.call("run", "w").err)

    def test_what_was_blocked_and_then_ran_is_not_said_to_be_blocked(self):
        home = Installation(self, write("w", "cat data", "v"), check("v", "true"))
        home.config["jobs"][0]["commands"]["run"] = ["/bin/cat", "data"]
        home.configure()
        home.put("data", "as approved")
        self.approve(home)
        home.put("data", "other")
        self.assertEqual(home.call("run", "w").code, 4)
        self.assertIn("blocked", home.call("status").out)
        home.put("data", "as approved")
        self.assertEqual(home.call("run", "w").code, 0)
        self.assertNotIn("blocked", home.call("status").out)

    def test_an_ack_names_the_blocked_run_that_it_ends(self):
        home = Installation(self, write("w", ":", "v"), check("v", "true"))
        home.call("run", "w")
        self.assertIn("acknowledged: w: blocked", home.call("ack", "w").out)
        self.assertIn("nothing is open", home.call("ack", "w").out)


class TestAdvice(unittest.TestCase):
    def test_a_stop_of_what_is_no_long_job_does_not_advise_to_run_it(self):
        home = Installation(self, check("c", "true"))
        self.assertIn("status c", home.call("stop", "c").err)
        self.assertIn("run c", home.call("start", "c").err)

    def test_a_wrong_code_is_no_reason_to_ask_for_another(self):
        home = Phone(self)
        code = home.request()
        err = home.guess(home.wrong(code)).err
        self.assertIn(f"approve w --digest {home.digest()} --code CODE", err)
        self.assertNotIn("--request", err)
        for _ in range(2):
            home.request()
        self.assertIn("help: ", home.call("approve", "w", "--request").err)


    def test_a_job_whose_name_begins_like_an_option_is_named_so_that_it_can_be_pasted(self):
        home = Installation(self, write("-w", ":", "--v"), check("--v", "exit 3", everySeconds=60))
        home.tick()
        self.assertEqual(len(home.told_with("ALERT", "explain -- --v")), 1)
        err = home.call("run", "--config-file", home.config_path, "--", "-w").err
        words = err.partition("help: ")[2].split()
        self.assertEqual(words[-1], "-w")
        result = home.call(*words[words.index("approve") :])
        self.assertIn("no terminal", result.err)

    def test_what_a_person_stopped_waits_for_start_also_where_nothing_is_resumed(self):
        home = Installation(self, long_job("j", stop=":"))
        home.says("j")
        home.call("stop", "j")
        self.assertIn("waits for start", home.call("status").out)

    def test_a_config_that_is_a_link_to_nothing_is_not_what_init_makes(self):
        home = Installation(self, check("c", "true"))
        os.unlink(home.config_path)
        os.symlink("/nowhere/at/all", home.config_path)
        result = home.call("status")
        self.assertEqual((result.code, "init" in result.err, "is a link" in result.err), (2, False, True))

    def test_a_check_is_not_said_to_get_a_log(self):
        home = Installation(self, check("c", "true"))
        self.assertIn("keeps no log", home.call("logs", "c").err)


    def test_a_start_that_finds_no_program_or_place_advises_what_names_it(self):
        for change, words in (({"cwd": "/nowhere"}, "no directory /nowhere"), ({"commands": {"start": ["./nope"]}}, "no program './nope'")):
            home = Installation(self, {**managed("m", SLEEP), **change})
            result = home.call("start", "m")
            self.assertEqual(result.code, 1)
            self.assertIn("validate-config", result.err)
            self.assertIn(words, "".join(home.call("validate-config")[1:3]))


class TestDoctor(Checkup):
    def test_a_history_that_cannot_be_written_is_seen(self):
        patient = Patient(self)
        history = patient.state_file.replace(".json", ".history.jsonl")
        if os.path.exists(history):
            os.unlink(history)
        os.mkdir(history)
        self.among(patient.doctor(), "fail", "state", history, "cannot be written", mend="ls -ld")


if __name__ == "__main__":
    unittest.main()
