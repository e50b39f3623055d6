"""Cases that a reading with fresh eyes brought to light, kept so that they stay mended."""

import json
import os
import signal
import time
import unittest

from tests import ops
from tests.test_engine import Installation, check, long_job, sh, write
from tests.test_managed import Managed, managed


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
        lock = ops.try_lock(home.path("net", "state", "ops-monitor.locks", "delivery.lock"))
        self.addCleanup(os.close, lock)
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


if __name__ == "__main__":
    unittest.main()
