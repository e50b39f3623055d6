"""COMMANDS and DOOR: what a person types, what comes back, and with which exit code (CONTRACT section 11).

Most calls run `ops.main` in a forked child; those about the process itself are real ones.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

from tests import ROOT, SCRIPT, ops
from tests.test_engine import Installation, check, long_job, sh, write
from tests.test_gate import Terminal

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


def everything(test, **config):
    """One job of each sort."""
    home = Installation(
        test,
        long_job("reader", "echo started; echo x >> starts", "echo stopping; echo x >> stops"),
        check("disk", "echo fine"),
        check("broken", "echo woe >&2; exit 3"),
        write("prune", "echo x >> wrote", "disk"),
        {**long_job("risky", "echo x >> starts"), "risk": "write_external"},
        **config,
    )
    home.says("reader", stopReason="resting")
    home.says("risky")
    return home


class Commands(unittest.TestCase):
    def is_one_error(self, result, code, *words):
        """One `error:` line and one `help:` line on standard error, nothing else there."""
        self.assertEqual(result.code, code, result)
        self.assertRegex(result.err, r"\A(?:error: |[^\n]+:\d+:\d+: error: )[^\n]+\nhelp: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, result.err)

    def crash_files(self, home):
        return [name for name in os.listdir(home.root) if name.startswith("ops-monitor-crash-")]


class TestExitCodes(Commands):
    def test_what_is_done_well_exits_0_and_says_nothing_on_standard_error(self):
        home = everything(self)
        for argv in (
            ["validate-config"], ["selftest"], ["status"], ["status", "disk"], ["status", "--json"], ["schema"], ["explain", "reader"],
            ["explain", "disk"], ["explain", "prune"], ["run", "disk"], ["run", "disk", "--dry-run"], ["run", "prune", "--dry-run"],
            ["enqueue", "disk"], ["start", "reader"], ["start", "risky", "--allow-risk"], ["stop", "reader"], ["tick", "--dry-run"], ["tick"],
            ["tick", "--print-only"], ["logs", "reader"], ["-h"], ["--help"], ["help"], ["--version"],
        ):  # fmt: skip
            with self.subTest(" ".join(argv)):
                result = home.call(*argv)
                self.assertEqual((result.code, result.err), (0, ""), result.out)
                if argv != ["tick"]:
                    self.assertTrue(result.out.strip() or argv == ["tick", "--print-only"])

    def test_each_command_has_a_help_with_an_example(self):
        home = everything(self)
        overview = home.call("-h").out
        for name in ops.COMMANDS:
            with self.subTest(name):
                self.assertIn(f"  {name} ", overview)
                result = home.call(name, "-h")
                self.assertEqual((result.code, result.err), (0, ""))
                for words in ("example: ops-monitor.py " + name, "--config-file", "--state-file"):
                    self.assertIn(words, result.out)

    def test_a_job_whose_own_command_fails_is_1(self):
        home = everything(self)
        result = home.call("run", "broken")
        self.assertEqual(result.code, 1)
        self.assertIn("woe", result.err)
        self.assertIn("error: exit code 3", result.err)
        home.config["jobs"][0]["commands"]["start"] = sh("echo no luck; exit 5")
        home.config["jobs"][0]["commands"]["stop"] = sh("echo cannot; exit 6")
        home.configure()
        result = home.call("start", "reader")
        self.assertEqual(result.code, 1)
        self.assertIn("no luck", result.out + result.err)
        self.assertIn("error: the start failed: exit code 5\nhelp: ", result.err)
        home.says("reader", running=True)
        result = home.call("stop", "reader")
        self.assertEqual(result.code, 1)
        self.assertIn("exit code 6", result.err)

    def test_usage_is_2_and_names_the_nearest(self):
        home = everything(self)
        for argv, words in (
            (["stauts"], "did you mean 'status'?"),
            (["valdate-config"], "did you mean 'validate-config'?"),
            (["xyzzy"], "no command 'xyzzy'"),
            (["status", "--jsno"], "did you mean '--json'?"),
            (["status", "--jsno=1"], "did you mean '--json'?"),
            (["tick", "--print-onyl"], "did you mean '--print-only'?"),
            (["tick", "--print"], "did you mean '--print-only'?"),
            (["tick", "extra"], "unknown argument 'extra'"),
            (["status", "raeder"], "did you mean 'reader'?"),
            (["explain", "dsik"], "did you mean 'disk'?"),
            (["start", "raeder"], "did you mean 'reader'?"),
            (["stop", "raeder"], "did you mean 'reader'?"),
            (["run", "dsik"], "did you mean 'disk'?"),
            (["logs", "raeder"], "did you mean 'reader'?"),
            (["enqueue", "dsik"], "did you mean 'disk'?"),
            (["run", "no such\nthing"], "no such"),
            (["run"], "JOB"),
            (["run", "reader"], "start reader"),
            (["start", "disk"], "run disk"),
            (["stop", "disk"], "one_shot_read"),
            (["enqueue", "disk", "--delay", "soon"], "soon"),
            (["run", "disk", "--timeout-seconds", "never"], "never"),
            (["run", "disk", "--timeout-seconds", "-1"], "-1"),
            (["logs", "reader", "-n", "many"], "many"),
            (["--config-file", "x", "status"], "--config-file"),
            (["status", "--config-file"], "--config-file"),
        ):
            with self.subTest(" ".join(argv)):
                self.is_one_error(home.call(*argv), 2, words)
        self.assertEqual(home.call().code, 2)
        for name in ("starts", "stops", "wrote"):
            self.assertEqual(home.lines(name), [], "nothing was run")

    def test_what_a_safety_rule_refuses_is_4(self):
        home = everything(self)
        self.is_one_error(home.call("start", "risky"), 4, "BLOCKED", "--allow-risk", "write_external")
        self.is_one_error(home.call("enqueue", "prune"), 4, "BLOCKED")
        self.is_one_error(home.call("enqueue", "reader"), 4, "BLOCKED")
        result = home.call("run", "prune")
        self.assertEqual(result.code, 4)
        self.assertIn("BLOCKED", result.err)
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "prune")), 1, home.told)
        home.put("risky.status", "gibberish")
        self.is_one_error(home.call("start", "risky", "--allow-risk"), 4, "unknown", "--despite-unknown")
        for name in ("starts", "wrote"):
            self.assertEqual(home.lines(name), [])
        self.assertEqual(home.call("start", "risky", "--allow-risk", "--despite-unknown").code, 0)
        self.assertEqual(home.lines("starts"), ["x"])

    def test_trouble_of_jobs_leaves_tick_at_0(self):
        home = everything(self)
        home.config["jobs"][2]["policy"] = {"everySeconds": 60}
        home.configure()
        result = home.tick()
        self.assertEqual((result.code, result.out, result.err), (0, "", ""))
        self.assertTrue(home.told_with("exit code 3") and home.told_with("resting"))

    def test_what_cannot_be_delivered_is_3_and_kept(self):
        for name, delivery, words in (
            ("no way", {"via": "none"}, "via is none"),
            ("a failing command", {"via": "command", "command": sh("exit 1")}, "exit code 1"),
            ("a missing command", {"via": "command", "command": ["/no/such/program"]}, "no such program"),
        ):
            with self.subTest(name):
                home = everything(self, delivery=delivery)
                result = home.tick()
                self.assertEqual((result.code, result.out), (3, ""))
                self.assertRegex(result.err, r"\Aerror: undelivered messages: 2: .*\nhelp: .*\n\Z")
                self.assertIn(words, result.err)
                self.assertEqual(home.tick().err, "", "cron mails once, not every minute")
                self.assertEqual(home.tick().code, 3)
                self.assertIn("doctor" if name == "no way" else words, " ".join(home.call("status").out.split()))
                self.assertIn(words, json.loads(home.call("status", "--json").out)["outbox"]["error"])
                home.config["delivery"] = {"via": "command", "command": sh("cat >> told")}
                home.configure()
                self.assertEqual(home.tick(later=60).code, 0)
                self.assertTrue(home.told_with("resting"))

    def test_a_job_that_others_work_on_is_75(self):
        home = everything(self)
        home.call("tick")
        lock = ops.try_lock(os.path.join(os.path.dirname(home.state_path), "ops-monitor.locks", ops.slug("disk") + ".lock"))
        self.addCleanup(os.close, lock)
        self.is_one_error(home.call("run", "disk"), 75, "disk")
        self.assertEqual(home.tick().code, 0)


class TestTheConfigFile(Commands):
    def test_a_config_that_cannot_be_used_is_one_line_and_2(self):
        cases = {
            "missing": (None, "no such file"),
            "empty": (b"", ":1:1:"),
            "a list": (b"[]", "expected an object"),
            "torn": (b'{"version": 1, "jobs": [', ":1:"),
            "UTF-16": ('{"version": 1}'.encode("utf-16"), "UTF-8"),
            "garbage": (bytes(range(256)), ""),
            "another version": (b'{"version": 7, "jobs": []}', "version"),
            "no jobs": (b'{"version": 1}', "jobs"),
            "duplicate keys": (b'{"version": 1, "jobs": [], "jobs": []}', "jobs"),
            "deep": (b"[" * 100_000, ""),
        }
        home = everything(self)
        home.tick()
        before = home.read(home.state_path)
        for what, (content, words) in cases.items():
            with self.subTest(what):
                if content is None:
                    os.unlink(home.config_path)
                else:
                    home.put(home.config_path, content)
                for argv in (["validate-config"], ["status"], ["run", "disk"], ["start", "reader"]):
                    self.is_one_error(home.call(*argv), 2, words, home.config_path)
        self.assertEqual(home.read(home.state_path), before)

    def test_a_config_that_cannot_be_read_is_one_line_and_2(self):
        home = everything(self)
        self.is_one_error(home.call("status", "--config-file", home.root), 2, "is a directory")
        self.is_one_error(home.call("validate-config", "--config-file", home.root), 2, "is a directory")
        self.is_one_error(home.call("validate-config", "--config-file", "/dev/null"), 2, "regular file")
        os.mkfifo(home.path("fifo"))
        self.is_one_error(home.call("validate-config", "--config-file", "fifo"), 2, "regular file")
        self.is_one_error(home.call("validate-config", "--config-file", home.config_path + "/x"), 2, "not a directory")
        if not IS_ROOT:
            os.chmod(home.config_path, 0)
            self.is_one_error(home.call("validate-config"), 2, "permission denied")

    def test_a_config_that_others_could_have_written_executes_nothing(self):
        home = everything(self)
        os.chmod(home.config_path, 0o666)
        for argv in (["run", "disk"], ["status"], ["start", "reader"]):
            self.is_one_error(home.call(*argv), 2, "not trusted", f"help: chmod o-w {home.config_path}")
        self.assertEqual(home.tick().code, 2)
        self.assertEqual((home.lines("starts"), home.told_with("resting")), ([], []))
        self.assertEqual(home.call("run", "disk", "--trust-permissions").code, 0)

    def test_an_unusable_config_is_told_by_the_receiver_that_worked_last_once_two_ticks_agree(self):
        home = everything(self)
        home.tick()
        told = len(home.told)
        home.put(home.config_path, "{")
        codes = [home.tick(later=later).code for later in (60, 120, 180)]
        self.assertEqual(codes, [2, 2, 2])
        self.assertEqual([("ALERT" in text, home.config_path in text) for text in home.told[told:]], [(True, True)], home.told)
        home.configure()
        home.tick(later=240)
        self.assertEqual(len(home.told_with("RESOLVED")), 1, home.told)

    def test_a_job_with_an_error_is_left_out_told_and_the_others_go_on(self):
        home = everything(self)
        home.config["jobs"][1]["kind"] = "one_shot_reed"  # it verifies prune
        home.configure()
        result = home.tick()
        self.assertEqual(result.code, 2)
        self.assertEqual(len(home.told_with("ALERT", "disk", "prune", "kind")), 1, home.told)
        self.assertTrue(home.told_with("resting"))
        self.assertIn("disk", home.call("status").out)
        self.is_one_error(home.call("run", "disk"), 2, "has an error")

    def test_validate_config_names_every_problem_with_its_place(self):
        home = everything(self)
        home.config["jobs"][0]["policy"] = {"stallSeconds": "long", "stalSeconds": 5}
        home.config["jobs"][1]["cwd"] = "/no/such/place"
        home.config["jobs"][2]["commands"]["run"] = ["/no/such/program"]
        home.put(home.config_path, json.dumps(home.config, indent=1))
        result = home.call("validate-config")
        self.assertEqual((result.code, result.out), (2, ""))
        self.assertRegex(
            result.err, rf"{re.escape(home.config_path)}:\d+:\d+: error: jobs\[0\]\.policy\.stallSeconds: expected .*, found text 'long'"
        )
        for words in (
            "warning: jobs[0].policy.stalSeconds: unknown key; did you mean 'stallSeconds'?",
            "no directory /no/such/place",
            "/no/such/program",
        ):
            self.assertIn(words, result.err)
        del home.config["jobs"][0]["policy"]
        home.configure()
        self.assertEqual(home.call("validate-config").code, 0)
        self.assertEqual(home.call("validate-config", "--strict").code, 2)


class TestTheStateFile(Commands):
    CALLS = (["tick"], ["run", "disk"], ["start", "reader"], ["stop", "reader"], ["enqueue", "disk"])

    def is_state_trouble(self, result, *words):
        self.assertEqual(result.code, 74, result)
        self.assertRegex(result.err, r"(\A|\n)error: [^\n]+\nhelp: [^\n]+\n\Z")
        self.assertEqual(result.err.count("error:"), 1, result.err)
        for word in words:
            self.assertIn(word, result.err)

    def due(self, home):
        home.config["jobs"][1]["policy"] = {"everySeconds": 60}
        home.configure()
        return home

    def test_a_file_in_the_place_of_a_directory_is_74(self):
        for place in ("ops-monitor.locks", "."):
            for argv in self.CALLS:
                with self.subTest(place=place, argv=argv):
                    home = self.due(everything(self))
                    path = os.path.normpath(os.path.join(home.path("net", "state"), place))
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    home.put(path, "")
                    self.is_state_trouble(home.call(*argv), home.path("net", "state"))
                    self.assertEqual(self.crash_files(home), [])
                    self.assertEqual(home.lines("starts"), [], "no intention, no start")
                    home.clear_away()

    def test_a_place_for_jobs_that_cannot_be_made_is_74(self):
        home = everything(self)
        os.makedirs(home.path("net", "state"))
        home.put("net/state/ops-monitor.jobs", "")
        self.is_state_trouble(home.call("start", "reader"), "ops-monitor.jobs")

    @unittest.skipIf(IS_ROOT, "root may write anywhere")
    def test_a_directory_without_permission_is_74(self):
        home = self.due(everything(self))
        os.makedirs(home.path("net", "state"))
        os.chmod(home.path("net", "state"), 0o500)
        for argv in self.CALLS:
            with self.subTest(argv=argv):
                self.is_state_trouble(home.call(*argv), "permission denied")

    def test_a_write_that_fails_is_74_and_leaves_the_old_state(self):
        for step, number in (("write", 28), ("fsync", 5), ("replace", 30)):
            for argv in self.CALLS:
                with self.subTest(step=step, argv=argv):
                    home = self.due(everything(self))
                    home.set_state(note="the old one")
                    before = home.read(home.state_path)

                    def no_space(step=step, number=number):
                        def reach(reached):
                            if reached == step:
                                raise OSError(number, os.strerror(number))

                        ops.reach = reach

                    self.is_state_trouble(home.call(*argv, bend=no_space), home.path("net", "state"))
                    self.assertEqual(home.read(home.state_path), before)
                    self.assertEqual([name for name in os.listdir(home.path("net", "state")) if name.endswith(".tmp")], [])
                    self.assertEqual(home.lines("starts"), [])
                    home.clear_away()

    def test_a_newer_state_is_74_and_untouched(self):
        home = self.due(everything(self))
        home.set_state(version=99)
        before = home.read(home.state_path)
        for argv in (*self.CALLS, ["status"]):
            with self.subTest(argv=argv):
                self.is_state_trouble(home.call(*argv), "version 99")
        self.assertEqual(home.read(home.state_path), before)

    def test_looking_writes_nothing(self):
        home = everything(self)
        for argv in (
            ["status"],
            ["status", "--json"],
            ["explain", "reader"],
            ["validate-config"],
            ["tick", "--dry-run"],
            ["run", "disk", "--dry-run"],
            ["schema"],
        ):
            home.call(*argv)
        self.assertFalse(os.path.exists(home.path("net", "state")))

    def test_what_is_made_is_private_whatever_the_umask(self):
        home = everything(self)
        home.call("tick", bend=lambda: os.umask(0))
        home.call("start", "reader", bend=lambda: os.umask(0o777))
        for place, directories, names in os.walk(home.path("net", "state")):
            for name in directories:
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode), 0o700, name)
            for name in names:
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode), 0o600, name)

    def test_another_config_on_the_same_state_is_a_warning_and_forgets_nothing(self):
        home = everything(self)
        home.tick()
        home.put("other.json", json.dumps({**home.config, "jobs": [check("else", ":")]}))
        result = home.real_call("tick", "--config-file", "other.json")
        self.assertEqual(result.code, 0)
        home.call("tick", "--config-file", "other.json", later=90 * 86400.0)
        self.assertTrue(home.memory("reader").get("lookedAt"))
        self.assertNotIn("leftAt", home.memory("reader"))

    @unittest.skipUnless(IS_ROOT, "only root can be in somebody else's directory")
    def test_root_in_somebody_elses_directory_is_refused(self):
        home = everything(self)
        os.makedirs(home.path("net", "state"))
        os.chown(home.path("net", "state"), NOBODY, NOBODY)
        for argv in (*self.CALLS, ["status"]):
            with self.subTest(argv=argv):
                self.is_one_error(home.call(*argv), 2, "you are root", "help: sudo -u ")
        os.rmdir(home.path("net", "state"))
        os.chown(home.path("net"), NOBODY, NOBODY)
        result = home.tick()
        self.assertEqual(result.code, 2, "also when the directory would have to be made")
        self.assertFalse(os.path.exists(home.path("net", "state")))
        os.chown(home.config_path, NOBODY, NOBODY)
        for argv in (*self.CALLS, ["status"]):
            with self.subTest("the config is theirs too", argv=argv):
                self.is_one_error(home.call(*argv), 2, "you are root", "help: sudo -u ")


class TestRunning(Commands):
    def test_a_run_by_hand_prints_what_the_command_printed(self):
        home = Installation(self, check("c", "echo to out; echo to err >&2"))
        result = home.call("run", "c")
        self.assertEqual((result.code, result.out, result.err), (0, "to out\n", "to err\n"))
        self.assertEqual(home.told, [])

    def test_a_long_output_is_shown_by_its_head_and_tail(self):
        home = Installation(self, check("c", "echo first; head -c 500000 /dev/zero | tr '\\0' '\\n'; echo last"))
        result = home.call("run", "c")
        self.assertTrue(result.out.startswith("first\n") and result.out.endswith("last\n"))
        self.assertRegex(result.out, r"\[\.\.\. \d+ bytes left out \.\.\.\]")

    def test_attention_is_told_once_a_run(self):
        home = Installation(self, check("c", "echo '12:00 ACTION REQUIRED: feed the fish'; exit 0"))
        for count in (1, 2):
            self.assertEqual(home.call("run", "c").code, 0)
            self.assertEqual(len(home.told_with("feed the fish")), count)

    def test_a_timeout_by_hand_is_1_and_said(self):
        home = Installation(self, check("c", "echo begun; exec sleep 60"), long_job("a", "exec sleep 60", "exec sleep 60"))
        result = home.call("run", "c", "--timeout-seconds", "0.2")
        self.assertEqual((result.code, result.out), (1, "begun\n"))
        self.assertIn("took longer than", result.err)
        home.says("a")
        result = home.call("start", "a", "--timeout-seconds", "0.2")
        self.assertEqual(result.code, 1)
        self.assertIn("took longer than", result.err)
        home.says("a", running=True)
        result = home.call("stop", "a", "--timeout-seconds", "0.2")
        self.assertEqual(result.code, 1)
        self.assertIn("took longer than", result.err)
        self.assertEqual(home.processes(), [])

    def test_a_dry_run_prints_the_command_and_runs_nothing(self):
        home = Installation(self, check("c", "echo x >> runs"), write("w", "echo x >> runs", "c"))
        for job in ("c", "w"):
            result = home.call("run", job, "--dry-run")
            self.assertEqual(result.code, 0)
            self.assertIn("/bin/sh -c 'echo x >> runs'", result.out)
            self.assertIn(home.root, result.out)
        self.assertEqual(home.lines("runs"), [])

    def test_what_start_leaves_in_the_background_can_go_on_writing(self):
        home = Installation(self, long_job("a", "echo started; (sleep 0.3; echo from the background; echo x > went-on) & exit 0"))
        home.says("a")
        result = home.call("start", "a")
        self.assertEqual(result.code, 0)
        until = time.monotonic() + 10
        while not home.lines("went-on") and time.monotonic() < until:
            time.sleep(0.02)
        self.assertEqual(home.lines("went-on"), ["x"])
        self.assertEqual(home.call("logs", "a").out.splitlines()[-2:], ["started", "from the background"])

    def test_start_by_hand_prints_what_start_printed(self):
        home = everything(self)
        result = home.call("start", "reader")
        self.assertIn("started\n", result.out)
        self.assertIn("started: reader", result.out)

    def test_a_running_job_is_not_started_again(self):
        home = everything(self)
        home.says("reader", running=True)
        result = home.call("start", "reader")
        self.assertEqual((result.code, home.lines("starts")), (0, []))
        self.assertIn("already running", result.out)

    def test_stop_runs_its_command(self):
        home = everything(self)
        home.says("reader", running=True, pid=os.getpid())
        result = home.call("stop", "reader")
        self.assertEqual((result.code, home.lines("stops")), (0, ["x"]))
        self.assertIn("stopping", result.out)

    def test_stop_without_a_command_ends_the_pid_that_the_status_names(self):
        home = Installation(self, long_job("a"))
        victim = subprocess.Popen(["/bin/sleep", "60"])
        self.addCleanup(victim.wait)
        self.addCleanup(victim.kill)
        home.says("a", running=True, pid=victim.pid)
        self.assertEqual(home.call("stop", "a").code, 0)
        self.assertEqual(victim.wait(10), -signal.SIGTERM)
        home.says("a", running=False, pid=os.getpid())
        self.assertEqual(home.call("stop", "a").code, 1, "what does not run is not ended")

    def test_stop_never_uses_a_pid_that_cannot_be_one(self):
        home = Installation(self, long_job("a"))
        for pid in (True, 1, 0, -1, -os.getpid(), 1.5, "1", 1 << 40, None, [2]):
            with self.subTest(pid=pid):
                home.says("a", running=True, pid=pid)
                result = home.call("stop", "a")
                self.assertEqual(result.code, 1)
                self.assertNotIn("kill", result.steps)
                self.assertIn("names no living pid", result.out + result.err)

    def test_a_pid_that_ignores_it_is_1(self):
        home = Installation(self, long_job("a"))
        victim = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE)
        self.addCleanup(victim.stdout.close)
        self.addCleanup(victim.wait)
        self.addCleanup(victim.kill)
        victim.stdout.readline()
        home.says("a", running=True, pid=victim.pid)
        self.is_one_error(home.call("stop", "a", "--timeout-seconds", "0.2"), 1, "still alive")

    def test_logs_show_the_end(self):
        home = Installation(self, long_job("a", "for n in 1 2 3 4 5 6; do echo line $n; done"))
        home.says("a")
        self.is_one_error(home.call("logs", "a"), 1, "no log yet")
        home.call("start", "a")
        self.assertEqual(home.call("logs", "a", "-n", "2").out, "line 5\nline 6\n")
        self.assertEqual(home.call("logs", "a", "-n", "0").out, "")
        self.assertEqual(len(home.call("logs", "a").out.splitlines()), 6)
        self.assertNotEqual(len(home.call("logs", "a", "-n", "-2").out.splitlines()), 6, "a negative number is not all")


class TestLooking(Commands):
    def test_status_json_is_stable(self):
        home = everything(self)
        home.says("reader", running=True, pid=4321, progress={"done": 3, "total": 4}, progressKey="3", message="page three")
        home.tick()
        whole = json.loads(home.call("status", "--json").out)
        self.assertEqual([job["id"] for job in whole["jobs"]], [job["id"] for job in home.config["jobs"]])
        reader = whole["jobs"][0]
        expected = {
            "id": "reader", "name": "reader", "kind": "long_running_read", "risk": "read_only", "enabled": True, "managed": False, "state": "running",
            "running": True, "completed": False, "held": False, "pid": 4321,
            "progress": {"done": 3, "total": 4}, "progressKey": "3", "message": "page three",
        }  # fmt: skip
        self.assertEqual({key: reader[key] for key in expected}, expected)
        for key in ("version", "at", "configFile", "stateFile", "lastTickAt", "queue", "outbox", "orphans", "broken"):
            self.assertIn(key, whole)
        one = json.loads(home.call("status", "disk", "--json").out)
        self.assertEqual([job["id"] for job in one["jobs"]], ["disk"])

    def test_status_is_an_aligned_table_without_colour(self):
        home = Installation(self, long_job("reader"), {**long_job("读文档"), "name": "读取全部文档"}, check("disk", ":"))
        for name in ("reader", "读文档"):
            home.says(name, running=True, progress={"done": 3, "total": 4})
        lines = home.call("status").out.splitlines()
        columns = {ops.display_width(line[: line.index(word)]) for line, word in zip(lines[:3], ("STATE", "running", "running"))}
        self.assertEqual(len(columns), 1, lines)
        self.assertIn("75%", lines[1])
        self.assertNotIn("\033", "".join(lines))

    def test_trouble_shows_in_status_and_explain(self):
        home = everything(self)
        home.tick()
        self.assertIn("stopped", home.call("status").out)
        explained = home.call("explain", "reader").out
        for words in ("resting", "open: ", "would decide", "autoResume is off"):
            self.assertIn(words, explained)
        self.assertIn("last tick: 20", home.call("status").out)

    def test_status_names_a_tick_that_never_came(self):
        self.assertIn("last tick: never", everything(self).call("status").out)

    def test_schema_is_a_schema(self):
        schema = json.loads(everything(self).call("schema").out)
        self.assertEqual(set(schema["required"]), {"version", "jobs"})
        self.assertIn("policy", schema["$defs"])

    def test_both_languages(self):
        home = everything(self, monitor={"language": "zh"})
        for argv in (["status"], ["explain", "reader"], ["tick", "--dry-run"], ["start", "reader"], ["stop", "reader"], ["enqueue", "disk"]):
            with self.subTest(argv[0]):
                self.assertRegex(home.call(*argv).out, "[\u4e00-\u9fff]")
        home.config["monitor"]["host"] = "rack-4"
        home.configure()
        home.call("start", "reader")
        home.call("stop", "reader")
        home.tick()
        whole = "".join(home.told)
        self.assertIn("Ops 快报", whole)
        self.assertIn("ACTION REQUIRED", whole)
        self.assertIn("rack-4", whole)
        self.assertRegex(whole.replace("快报", ""), "[\u4e00-\u9fff]")
        self.assertRegex(home.call("validate-config").out, r"\AOK: version=1 jobs=5\n\Z", "validation is English")
        english = everything(self)
        english.tick()
        self.assertNotRegex("".join(english.told).replace("快报", "") + english.call("status").out, "[\u4e00-\u9fff]")


class TestFollowing(Commands):
    def test_a_log_is_shown_by_whole_lines_so_that_no_credential_comes_in_two_halves(self):
        home = Installation(self, long_job("a"))
        place = ops.Store(home.state_path, ops.Clock()).job_dir("a")
        os.makedirs(place)
        log = os.path.join(place, "start.log")
        token = "7" * 9 + ":" + "Aa0_-" * 7
        pieces = [b"", b"then ", token[:20].encode(), token[20:].encode(), b" came\n", b"40 %\r", "进".encode()[:1], "进".encode()[1:] + b"\nlast"]
        with open(log, "wb") as file:
            file.write(b"first\n")

        def bend():
            def write_instead_of_sleeping(seconds):
                if not pieces:
                    raise ops.Interrupted(signal.SIGINT)
                with open(log, "ab") as file:
                    file.write(pieces.pop(0))

            time.sleep = write_instead_of_sleeping

        ran = home.call("logs", "a", "-f", bend=bend)
        self.assertEqual((ran.code, ran.err, ran.out), (130, "", "first\nthen *** came\n40 %\n进\n"))


class TestEightyColumns(Commands):
    """What people read fits an old terminal, in both languages, and nothing that matters is cut off there."""

    LONG_ID = "nightly-index-of-the-photo-archive-of-europe"
    WOE = "/data is 97% full, less than the nightly backup of the photo archive needs to end in time"

    def home(self, language):
        home = Installation(
            self,
            {**long_job(self.LONG_ID), "name": "夜间照片索引"},
            long_job("整理档案", stallSeconds=60),
            long_job("crawl", "exit 9", autoResume=True),
            check("disk-space", f"echo 'ALERT: {self.WOE}'; exit 3", everySeconds=86400),
            check("verify", ":"),
            write("prune", ":", "verify"),
            {**check("old", ":"), "enabled": False},
            monitor={"language": language},
        )
        home.says(self.LONG_ID, running=True, progress={"done": 44, "total": 90}, message="x" * 300)
        home.says("整理档案", running=True, progress={"阶段": "归档照片" * 20}, progressKey="四十")
        home.says("crawl", stopReason="killed by SIGKILL " * 9)
        home.tick()
        home.tick(later=120)
        digest = home.call("approve", "prune", "--show").out.rpartition("digest: ")[2].strip()
        home.call("approve", "prune", "--digest", digest)
        for argv in (["run", "prune"], ["run", "prune"], ["approve", "prune", "--digest", "0" * 64], ["revoke", "prune"], ["mute", "old"], ["ack", "crawl"],
                     ["enqueue", "verify", "--delay", "2h"], ["stop", "crawl"], ["run", "disk-space"]):  # fmt: skip
            home.call(*argv)
        return home

    def shown(self, home, *argv, columns=80):
        def bend():
            ops.columns_shown = lambda *piped: (columns, False)

        result = home.call(*argv, bend=bend, later=180)
        self.assertEqual((result.code, result.err), (0, ""))
        return result.out

    def test_every_line_of_status_fits_and_every_trouble_is_whole(self):
        for language, words in (("en", ["stalled since", "reason: killed by", "48%", "unverified", "disabled"]), ("zh", ["停滞，始于", "原因：killed by", "48%", "待验证", "未启用"])):
            home = self.home(language)
            for columns in (80, 120, 100):
                text = self.shown(home, "status", columns=columns)
                with self.subTest(language=language, columns=columns):
                    self.assertEqual([line for line in text.splitlines() if ops.display_width(line) > columns], [])
                    folded = " ".join(text.split())
                    for word in (self.LONG_ID, "整理档案", "disk-space", self.WOE, *words):
                        self.assertIn(word, folded)

    def test_a_terminal_that_does_not_know_its_width_is_shown_as_much_as_a_pipe(self):
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        with open(theirs, "w") as terminal, unittest.mock.patch.object(sys, "stdout", terminal):
            self.assertEqual(os.get_terminal_size(theirs).columns, 0)
            self.assertEqual(ops.columns_shown()[0], ops.PIPED_COLUMNS)

    def test_every_record_of_history_is_one_line_in_words(self):
        for language, words in (("en", ["run by hand: exit code 3", "ACTION REQUIRED", "queued, delay 2h, by enqueue", "not run: the last run is not verified yet",
                                        "resumed, attempt 1", "the start failed: exit code 9", "muted by", "acknowledged by", "stop by hand", "write ended: exit code 0"]),
                                ("zh", ["运行（人工）：退出码 3", "ACTION REQUIRED", "入队（enqueue 命令），延迟 2h", "未运行：上次运行尚未验证；root" if IS_ROOT else "未运行：上次运行尚未验证；",
                                        "续跑，第 1 次", "启动失败：exit code 9", "静音，", "确认，", "停止（人工）", "写入结束：退出码 0"])):  # fmt: skip
            home = self.home(language)
            text = self.shown(home, "history")
            records = home.call("history", "--json").out.splitlines()
            with self.subTest(language=language):
                lines = text.splitlines()
                self.assertEqual(len(lines), len(records))
                self.assertEqual([line for line in lines if ops.display_width(line) > 80], [])
                for word in words:
                    self.assertIn(word, text)
                for line in lines:
                    self.assertRegex(line, r"\A\d\d-\d\d \d\d:\d\d:\d\d  \S")
                one = self.shown(home, "history", "prune")
                self.assertNotIn("prune", one.splitlines()[1], "the job is known")

    def test_without_a_terminal_lines_are_steady_and_have_no_colour(self):
        home = self.home("en")
        for argv in (["status"], ["history"]):
            result = home.call(*argv)
            self.assertNotIn("\x1b", result.out)
            widest = max(map(ops.display_width, result.out.splitlines()))
            self.assertTrue(widest <= 100 if argv == ["status"] else widest > 100, "a program that reads history gets it whole")
            home.env["COLUMNS"] = "40"
            self.assertEqual(home.call(*argv).out.split("last tick")[0], result.out.split("last tick")[0])

    def test_a_terminal_gets_colour_unless_no_color_is_set(self):
        home = self.home("en")
        for env, has_color in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
            home.env = {**{name: value for name, value in home.env.items() if name != "NO_COLOR"}, **env}
            terminal = Terminal(home, "status")
            terminal.read_until("last tick")
            terminal.end()
            with self.subTest(env):
                self.assertEqual("\x1b[31m" in terminal.text, has_color)
                self.assertIn("stopped since", terminal.text)

    def test_a_record_of_another_version_is_shown_as_it_stands(self):
        home = self.home("en")
        path = home.state_path.replace(".json", ".history.jsonl")
        with open(path, "a", encoding="utf-8") as file:
            for item in ({"event": "teleported", "where": "Mars"}, {"event": ["x"], "job": 5}, {"event": "refused", "reason": ["y"]}, {"event": "told", "key": 1, "self": 2, "lang": 3}, {}):
                file.write(json.dumps({"at": time.time(), **item}) + "\n")
        text = self.shown(home, "history")
        self.assertIn("event.teleported", text)
        self.assertIn("where=Mars", text)
        self.assertEqual(len(text.splitlines()), len(home.call("history", "--json").out.splitlines()))


class TestTheProcess(Commands):
    """What only a real process can show."""

    def quiet_home(self):
        """All is well, but there is something to print under --print-only."""
        home = Installation(self, long_job("reader"), check("disk", "echo fine", everySeconds=60))
        home.says("reader", running=True, progressKey="1", message="第三页 ✓")
        return home

    def test_tick_under_the_poorest_environment_prints_utf8(self):
        home = self.quiet_home()
        for job in home.config["jobs"]:
            job["cwd"] = home.root
        home.config["delivery"] = {"via": "command", "command": sh(f"cat >> {home.root}/told")}
        home.configure()
        files = ["--config-file", home.config_path, "--state-file", home.state_path]
        for more in ({}, {"PYTHONIOENCODING": "ascii"}):
            with self.subTest(more):
                home.env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", **more}
                shutil.rmtree(home.path("net", "state"), ignore_errors=True)
                result = home.real_call("tick", "--print-only", *files)
                self.assertEqual((result.code, result.err), (0, ""))
                for words in ("🛠️ Ops 快报", "第三页 ✓"):
                    self.assertIn(words, result.out)
        self.assertEqual(home.real_call("tick", *files), (0, "", "", []), "nothing is printed when all is well")

    def test_closed_standard_descriptors(self):
        home = self.quiet_home()
        home.config["jobs"][0]["commands"]["status"] = sh("cat reader.status; cat >> stdin-was; echo some noise >&2")
        home.configure()
        script = '"$1" "$2" tick <&- >&- 2>&-; echo "exit $?"; "$1" "$2" tick --print-only <&-; "$1" "$2" status >&-; "$1" "$2" run disk <&- 2>&-'
        done = subprocess.run(
            ["/bin/sh", "-c", script, "sh", sys.executable, str(SCRIPT)], env=home.env, cwd=home.root, capture_output=True, check=False
        )
        self.assertEqual((done.stdout.decode(), done.stderr.decode(), done.returncode), ("exit 0\nfine\n", "", 0))
        self.assertEqual(home.memory("reader")["state"], "running")
        self.assertEqual(len(home.told), 1)

    def test_a_closed_pipe_is_silent(self):
        home = everything(self)
        for argv, closed in (
            (["schema"], "stdout"),
            (["status"], "stdout"),
            (["-h"], "stdout"),
            (["stauts"], "stderr"),
            (["run", "broken"], "stderr"),
        ):
            with self.subTest(argv):
                reading, writing = os.pipe()
                os.close(reading)
                process = home.real(*argv, **{closed: writing})
                os.close(writing)
                _out, err = process.communicate(timeout=30)
                self.assertEqual(err or b"", b"")
                self.assertIn(process.returncode, {"schema": (0,), "status": (0,), "-h": (0,), "stauts": (2,), "run": (1,)}[argv[0]])

    def test_a_closed_pipe_loses_no_result(self):
        home = Installation(self, check("c", "echo first; echo 'ALERT: the pond is empty'"))
        reading, writing = os.pipe()
        os.close(reading)
        home.real("run", "c", stdout=writing, stderr=subprocess.DEVNULL).wait(30)
        os.close(writing)
        self.assertEqual(len(home.told_with("the pond is empty")), 1, home.told)
        self.assertTrue(home.memory("c").get("ranAt"))

    def test_a_signal_at_the_very_start_of_a_command_ends_it_too(self):
        home = Installation(self, check("c", "sleep 60"))

        def interrupted():
            spawn = os.posix_spawn

            def spawn_and_ring(*args, **more):
                pid = spawn(*args, **more)
                os.kill(os.getpid(), signal.SIGTERM)
                return pid

            os.posix_spawn = spawn_and_ring

        result = home.call("run", "c", bend=interrupted)
        self.assertEqual((result.code, result.err, home.processes()), (143, "", []))

    def test_a_signal_ends_short_commands_first_and_leaves_the_state_whole(self):
        slow = "trap 'echo x >> ended; exit 1' TERM; echo x >> begun; sleep 60 & wait"
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            for argv, job in (
                (["run", "c"], check("c", slow)),
                (["tick"], check("c", slow, everySeconds=60)),
                (["status"], long_job("c", status=slow)),
            ):
                with self.subTest(signal=number, argv=argv):
                    home = Installation(self, job)
                    begun = home.begin(*argv)
                    until = time.monotonic() + 20
                    while not home.lines("begun") and time.monotonic() < until:
                        time.sleep(0.01)
                    os.kill(begun[0], number)
                    result = home.end(begun)
                    self.assertEqual((result.code, result.err), (code, ""))
                    self.assertEqual((home.lines("ended"), home.processes()), (["x"], []))
                    self.assertIsInstance(home.state, dict)
                    home.clear_away()

    def test_a_signal_in_the_moment_of_a_start_does_not_lose_the_child(self):
        home = Installation(self, check("c", "sleep 60"))

        def interrupt_at_once():
            spawn = ops.spawn

            def spawn_interrupted(*args):
                pid = spawn(*args)
                os.kill(os.getpid(), signal.SIGTERM)
                return pid

            ops.spawn = spawn_interrupted

        self.assertEqual(home.call("run", "c", bend=interrupt_at_once)[:3], (143, "", ""))
        self.assertEqual(home.processes(), [])

    def test_an_interrupted_real_process_exits_130(self):
        home = Installation(self, check("c", "echo x >> begun; exec sleep 60"))
        process = home.real("run", "c")
        until = time.monotonic() + 20
        while not home.lines("begun") and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out, err), (130, b"", b""))
        self.assertEqual(home.processes(), [])

    def test_it_works_alone_wherever_it_is_copied_and_imports_no_neighbour(self):
        home = self.quiet_home()
        place = home.path("elsewhere")
        os.mkdir(place)
        shutil.copy(SCRIPT, os.path.join(place, "ops-monitor.py"))
        for name in ("queue", "json", "select", "typing", "difflib", "tempfile", "argparse"):
            home.put(f"elsewhere/{name}.py", "raise SystemExit('a neighbour was imported')\n")
        copy = os.path.join(place, "ops-monitor.py")
        for argv, words in (
            (["selftest"], "selftest: OK"),
            (["tick", "--print-only"], "reader"),
        ):
            with self.subTest(argv):
                result = home.real_call(*argv, script=copy)
                self.assertEqual((result.code, result.err), (0, ""))
                self.assertIn(words, result.out)
        self.assertIn("did you mean", home.real_call("stauts", script=copy).err)
        self.assertEqual(sorted(os.listdir(place))[:3], ["argparse.py", "difflib.py", "json.py"], "nothing is written beside it")
        self.assertNotIn("__pycache__", os.listdir(place))

    def test_a_lock_of_the_caller_does_not_live_on_in_a_job(self):
        managed = {**long_job("m"), "managed": True, "commands": {"start": ["/bin/sleep", "60"]}}
        home = Installation(self, managed, long_job("a", "sleep 60 &"))
        home.says("a")
        for job in ("m", "a"):
            with self.subTest(job), open(home.path("callers.lock"), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                process = home.real("start", job, pass_fds=(lock.fileno(),))
                _out, err = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 0, err)
                lock.close()
                with open(home.path("callers.lock"), "w") as again:
                    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.assertTrue(home.processes(), "the jobs do run")

    def test_importing_it_does_nothing(self):
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.dont_write_bytecode = True; __import__('ops-monitor')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PATH": "/usr/bin:/bin"}, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_demo_shows_its_scenes_with_real_processes(self):
        with tempfile.TemporaryDirectory() as place:
            env = {"PATH": "/usr/bin:/bin", "HOME": place, "TMPDIR": place, "LC_ALL": "C"}
            done = subprocess.run([sys.executable, str(SCRIPT), "demo"], capture_output=True, env=env, cwd=place, timeout=120, check=False)
            self.assertEqual((done.returncode, done.stderr.decode()), (0, ""))
            self.assertEqual(os.listdir(place), [], "nothing is left")
        out = done.stdout.decode("utf-8")
        at = 0
        for token in ("▶️", "AUTORUN", "RESOLVED", "ALERT", "COMPLETED", "BLOCKED"):
            self.assertIn(token, out[at:], f"in this order:\n{out}")
            at = out.index(token, at)
        self.assertIn("ACTION REQUIRED", out)


class TestBugs(Commands):
    """Whatever goes wrong inside is one line and a file."""

    @staticmethod
    def break_it():
        def broken(*args, **more):
            raise RuntimeError("it fell over with 123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")

        ops.look_around = ops.plan_tick = ops.config_schema = broken

    def test_a_bug_is_70_one_line_and_a_crash_file(self):
        home = everything(self)
        for argv in (["status"], ["tick"], ["schema"]):
            with self.subTest(argv):
                result = home.call(*argv, bend=self.break_it)
                self.assertEqual(result.code, 70)
                self.assertRegex(result.err, r"\Aerror: [^\n]*RuntimeError[^\n]*\n(help: [^\n]+\n)?\Z")
                path = re.search(r"(/\S+ops-monitor-crash-\S+\.txt)", result.err).group(1)
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                self.assertIn("it fell over", text)
                self.assertIn("Traceback", text)
                self.assertNotIn("AAAAAAAA", text, "no secret")
                self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
                os.unlink(path)

    def test_a_bug_is_one_line_even_where_no_file_can_be_written(self):
        home = everything(self)

        def no_files():
            self.break_it()
            tempfile.tempdir = home.path("no", "such", "place")

        result = home.call("status", bend=no_files)
        self.assertEqual(result.code, 70)
        self.assertRegex(result.err, r"\Aerror: [^\n]*RuntimeError[^\n]*\n(help: [^\n]+\n)?\Z")

    def test_selftest_names_what_it_finds(self):
        home = everything(self)

        def no_locks():
            ops.try_lock = lambda path: os.open(os.devnull, os.O_RDONLY)

        result = home.call("selftest", bend=no_locks)
        self.assertEqual(result.code, 1)
        self.assertIn("error: locks do not exclude each other", result.err)
        self.assertNotIn("OK", result.out)


if __name__ == "__main__":
    unittest.main()
