"""What happens to jobs, files and messages while a person edits, moves and restores things around them."""

import json
import os
import re
import shutil
import subprocess
import unittest

from tests import ops
from tests.test_engine import Installation, check, long_job, write
from tests.test_managed import SLEEP, Managed, managed


class TestAJobThatIsNoLongerManaged(Managed):
    def edited(self, job):
        """A managed job `m` runs, a tick has seen it, and the config makes something else of it."""
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}"))
        home.tick()
        home.configure(job)
        return home

    def test_it_is_an_orphan_and_can_be_stopped(self):
        for job in (check("m", "true"), long_job("m", start="echo x >> starts", autoResume=True)):
            with self.subTest(job["kind"]):
                home = self.edited(job)
                home.says("m", running=False)
                home.tick()
                home.tick()
                self.assertEqual((len(home.told_with("no longer has it as a managed job")), home.lines("starts")), (1, ["x"]))
                self.assertIn("orphan: m", home.call("status").out)
                stopped = home.call("stop", "m")
                self.assertEqual((stopped.code, ops.is_lock_held(home.job_dir("m"))), (0, False), stopped.err)
                home.tick()
                self.assertEqual(len(home.told_with("RESOLVED", "no longer has it")), 1)

    def test_no_second_copy_is_started_by_hand_or_by_a_tick(self):
        home = self.edited(long_job("m", start="echo x >> starts", autoResume=True))
        home.says("m", running=False)
        home.tick()
        refused = home.call("start", "m")
        self.assertEqual((refused.code, home.lines("starts")), (75, ["x"]), refused.out)
        self.assertIn("stop m", refused.err)
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "stopped before it was complete")), 1)
        self.assertIn("as a managed job still lives", home.call("explain", "m").out)
        self.assertEqual(home.told_with("AUTORUN"), [])

    def test_stop_ends_what_was_managed_and_what_is_not(self):
        home = self.edited(long_job("m", stop="echo x >> stopped"))
        home.says("m", running=True)
        self.assertEqual((home.call("stop", "m").code, home.lines("stopped"), ops.is_lock_held(home.job_dir("m"))), (0, ["x"], False))

    def test_a_hold_of_what_became_a_check_is_none(self):
        home = self.edited(check("m", "true"))
        home.call("stop", "m")
        self.assertEqual((self.status(home, "m")["state"], self.status(home, "m")["held"]), ("idle", False))

    def test_it_is_none_once_it_is_managed_again(self):
        home = self.edited(check("m", "true"))
        home.tick()
        home.configure(managed("m", f"echo x >> starts; {SLEEP}"))
        home.tick()
        self.assertEqual((self.status(home, "m")["state"], len(home.told_with("RESOLVED", "no longer has it"))), ("running", 1))
        self.assertNotIn("orphan", home.call("status").out)


class TestFilesThatAreGone(Managed):
    def test_a_run_whose_records_are_gone_is_unknown_and_not_started_again(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}", autoResume=True))
        home.tick()
        os.rename(home.job_dir("m"), home.path("aside"))
        home.tick()
        self.assertEqual((self.status(home, "m")["state"], len(home.told_with("ALERT", "are gone; it may still run"))), ("unknown", 1))
        self.assertEqual((home.call("start", "m").code, home.lines("starts")), (4, ["x"]))
        stopped = home.call("stop", "m")  # found by its mark
        self.assertEqual(stopped.code, 0, stopped.err)
        self.wait_for("its end", lambda: not ops.is_lock_held(home.path("aside")))
        home.tick()
        self.assertEqual(self.status(home, "m")["state"], "idle")

    def test_a_state_that_cannot_be_read_keeps_no_job_running(self):
        home = self.started(managed("m", SLEEP))
        home.put(home.state_path, json.dumps({"version": ops.STATE_VERSION + 1}))
        stopped = home.call("stop", "m")
        self.assertEqual((stopped.code, ops.is_lock_held(home.job_dir("m"))), (74, False), stopped.out + stopped.err)

    def test_a_fresh_start_that_fails_is_no_riddle(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}"))
        home.tick()
        self.kill_all(home)
        good = home.config["jobs"][0]["commands"]
        home.configure({**managed("m", ""), "commands": {"start": ["/no/such/program"]}})
        self.start(home, "m", "--fresh", code=1)
        home.tick()
        self.assertEqual((self.status(home, "m")["state"], home.told_with("are gone")), ("idle", []))
        home.configure({**managed("m", ""), "commands": good})
        self.start(home, "m")

    def test_records_that_went_with_a_restart_of_the_machine_leave_no_doubt(self):
        home = self.started(managed("m", SLEEP))
        home.tick()
        self.kill_all(home)
        shutil.rmtree(home.job_dir("m"))
        state = home.state
        state["jobs"]["m"]["boot"] = "another"
        home.put(home.state_path, json.dumps(state))
        home.tick()
        self.assertEqual((len(home.told_with("before the machine restarted")), home.told_with("may still run")), (1, []))

    def test_a_stop_outlives_the_loss_of_the_state(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}", autoResume=True))
        home.tick()
        self.assertEqual(home.call("stop", "m").code, 0)
        home.put(home.state_path, "{")
        for _ in range(3):
            home.tick(later=120)
        self.assertEqual((home.told_with("AUTORUN"), home.lines("starts"), self.status(home, "m")["held"]), ([], ["x"], True))
        self.start(home, "m")
        home.tick()
        self.assertEqual((self.status(home, "m")["state"], self.status(home, "m")["held"]), ("running", False))

    def test_a_start_ends_a_hold_whatever_becomes_of_it(self):
        home = Installation(self, managed("m", f"echo x >> starts; {SLEEP}", autoResume=True))
        self.start(home, "m")
        self.wait_for("its first line", lambda: home.lines("starts"))
        self.assertEqual(home.call("stop", "m").code, 0)
        good = home.config["jobs"][0]["commands"]
        home.configure({**home.config["jobs"][0], "commands": {"start": ["/no/such/program"]}})
        self.start(home, "m", "--resume", code=1)
        home.configure({**home.config["jobs"][0], "commands": good})
        home.tick()
        self.assertEqual(self.status(home, "m")["held"], False)
        self.wait_for("its second line", lambda: home.lines("starts") == ["x", "x"])

    def test_init_is_advised_only_where_nothing_was_before(self):
        home = Installation(self, check("c", "true"))
        os.rename(home.config_path, home.path("moved.json"))
        self.assertIn(" init\n", home.call("status").err)
        os.rename(home.path("moved.json"), home.config_path)
        home.tick()
        os.rename(home.config_path, home.path("moved.json"))
        self.assertIn(f"help: ls -l {os.path.dirname(home.config_path)}\n", home.call("status").err)

    def test_jobs_of_another_config_on_the_same_state_are_no_orphans(self):
        home = self.started(managed("m", SLEEP))
        home.tick()
        home.put("other.json", json.dumps({"version": 1, "jobs": []}))
        for flags in ([], ["--json"]):
            shown = home.call("status", "--config-file", home.path("other.json"), *flags)
            self.assertNotRegex(shown.out, r"orphan: m|\"m\"")
        shutil.copy(home.config_path, home.path("copy.json"))
        os.remove(home.config_path)
        home.put("other.json", json.dumps({"version": 1, "jobs": []}))
        self.assertIn("orphan: m", home.call("status", "--config-file", home.path("other.json")).out)


class TestOtherEdits(Managed):
    def test_a_write_that_leaves_the_config_unverified_is_told_once(self):
        home = Installation(self, write("w", "echo x >> ran", "v"), check("v", "exit 1"))
        home.call("approve", "w", "--digest", home.call("approve", "w", "--show").out.rpartition("digest: ")[2].strip())
        self.assertEqual(home.call("run", "w").code, 0)
        home.configure(write("renamed", "echo x >> ran", "v"), check("v", "exit 1"))
        for later in (0, 3600, 90000):
            home.tick(later=later)
        (told,) = home.told_with("ALERT", "left the config before it was verified: v")
        self.assertIn(" history w", told)
        self.assertIn("write ended", home.call("history", "w").out)

    def test_what_was_wrong_with_a_check_does_not_stay_with_the_long_job_of_its_name(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600))
        home.tick()
        home.configure(long_job("c"))
        home.says("c", running=True)
        home.tick()
        self.assertEqual((self.status(home, "c")["incidents"], len(home.told_with("RESOLVED", "exit code 3"))), ([], 1))
        home.says("c", running=True, level="alert", message="hot")
        home.tick()
        home.configure(check("c", "true", everySeconds=3600))
        home.tick(later=7200)
        self.assertEqual((self.status(home, "c")["incidents"], len(home.told_with("RESOLVED", "hot"))), ([], 1))

    def test_a_completion_that_no_tick_has_seen_counts_when_the_job_is_started_again(self):
        home = Installation(self, {**managed("m", "true"), "after": [{"jobId": "c"}]}, check("c", "echo x >> after"))
        for _ in range(2):
            self.start(home, "m")
            self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") == 0)
        for _ in range(3):
            home.tick()
        self.assertEqual(len(home.lines("after")), 2)
        self.assertEqual(sum(text.count("COMPLETED") for text in home.told), 2)

    def test_the_second_completion_of_a_job_has_its_own_time(self):
        home = Installation(self, managed("m", "true"))
        for later in (0, 7200):
            self.start(home, "m", later=later)
            self.wait_for("its end", lambda: self.run_record(home, "m").get("exitCode") == 0)
            home.tick(later=later)
        self.assertGreater(home.memory("m")["stateAt"] - self.run_record(home, "m")["startedAt"], 7000)

    def test_a_long_job_that_waits_for_its_failure_is_warned_of(self):
        for when, warned in (("success", False), ("failure", True), ("always", True)):
            home = Installation(self, {**managed("m", "exit 3"), "after": [{"jobId": "c", "when": when}]}, check("c", "true"))
            result = home.call("validate-config")
            self.assertEqual((result.code, "a long job fires it only when it completes" in result.err + result.out), (0, warned), when)


class TestWhatIsPrinted(Managed):
    def advice(self, text):
        """The command that a message ends with."""
        return re.search(r"(?:next|help): (.*)", text)[1]

    def test_a_trouble_that_is_over_says_running_only_of_what_runs(self):
        home = Installation(self, long_job("l"))
        home.says("l", running=True, level="alert", message="hot")
        home.tick()
        home.says("l", running=False, completed=True)
        home.tick()
        (told,) = home.told_with("RESOLVED")
        section = told[told.index("RESOLVED") :].split("\n\n")[0]
        self.assertNotIn("\nrunning", section)

    def test_each_alert_ends_with_a_command_that_works(self):
        home = Installation(self, long_job("l"), check("c", "exit 3", everySeconds=3600))
        home.says("l", running=True, level="alert", message="hot")
        home.set_state(version=ops.STATE_VERSION, queue=[{"id": "q", "jobId": "gone", "status": "pending", "notBefore": 0, "createdAt": 1}])
        home.config["jobs"].append({"id": "broken"})
        home.configure()
        home.tick()
        whole = "\n\n".join(home.told)
        sections = [section for section in whole.split("\n\n") if re.match(r"🔴 (ALERT|ACTION REQUIRED)", section)]
        self.assertEqual(len(sections), 4, whole)
        home.config["jobs"].pop()
        home.configure()
        for section in sections:
            words = self.advice(section).split("ops-monitor.py ")[1].split()
            result = home.call(*words)
            self.assertIn(result.code, (0, 1), (section, result))
            self.assertNotIn("no job", result.err)

    def test_a_job_whose_command_has_changed_is_not_said_to_be_startable(self):
        for more in ({}, {"autoResume": True}):
            home = self.started(managed("m", SLEEP, **more))
            home.tick()
            home.configure(managed("m", f": other; {SLEEP}", **more))
            self.kill_all(home)
            home.tick()
            (told,) = home.told_with("ACTION REQUIRED")
            self.assertIn("its command has changed since the checkpoint", told)
            self.assertTrue(self.advice(told).endswith(" explain m"), told)

    def test_commands_work_from_any_directory_and_in_a_plain_shell(self):
        home = Installation(self, check("c", "exit 3", everySeconds=3600))
        result = home.real_call("tick", "--print-only", "--config-file", "net/config/ops-jobs.json")
        command = self.advice(result.out)
        self.assertIn(f"OPENCLAW_HOME={home.root} ", command)
        plain = {name: value for name, value in home.env.items() if name != "OPENCLAW_HOME"}
        ran = subprocess.run(["/bin/sh", "-c", command], env={**plain, "PATH": os.environ["PATH"]}, cwd="/", capture_output=True, encoding="utf-8", check=False)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""), command)
        self.assertIn("exit code 3", ran.stdout)

    def test_a_queued_check_is_said_to_run_when_it_is_its_turn(self):
        for job in (check("c", "true"), check("c", "true", everySeconds=86400)):
            home = Installation(self, job)
            home.tick()
            home.call("enqueue", "c", "--delay", "15m")
            at = self.status(home, "c")["next"]["at"]
            self.assertAlmostEqual(at - home.state["queue"][0]["notBefore"], 0, places=1)

    def test_a_check_that_somebody_runs_is_running(self):
        home = Installation(self, check("c", "echo x > here; until test -e go; do sleep 0.02; done"))
        begun = home.begin("run", "c")
        self.wait_for("its first line", lambda: home.lines("here"))
        found = self.status(home, "c")
        self.assertEqual((found["state"], found["running"]), ("running", True))
        self.assertIn("running", home.call("status").out)
        home.put("go", "")
        self.assertEqual(home.end(begun).code, 0)
        self.assertEqual(self.status(home, "c")["running"], False)


if __name__ == "__main__":
    unittest.main()
