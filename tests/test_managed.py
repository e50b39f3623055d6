"""MANAGED with real supervisors and real jobs: CONTRACT section 7.

Every job is a few lines of shell; whatever a test leaves running ends with its Installation.
"""

import builtins
import json
import marshal
import os
import re
import signal
import subprocess
import sys
import time
import unittest
from unittest import mock

from tests import ops
from tests.test_engine import DIED, Installation, check, sh
from tests.test_rooms import global_reads

SLEEP = "while :; do sleep 0.05; done"


def managed(job_id, script, **policy):
    return {
        "id": job_id, "kind": "long_running_read", "risk": "read_only", "enabled": True, "managed": True,
        "commands": {"start": sh(script)}, "policy": {"stopTimeoutSeconds": 2, **policy},
    }  # fmt: skip


class Managed(unittest.TestCase):
    def wait_for(self, what, question, seconds=20.0):
        """Goes on once `question()` is true: other processes need a moment."""
        until = time.monotonic() + seconds
        while not question():
            if time.monotonic() > until:
                self.fail(f"waited {seconds:g} s for: {what}")
            time.sleep(0.02)

    def started(self, *jobs, **config):
        """An installation whose first job runs and has written one line to `begun`."""
        home = Installation(self, *jobs, **config)
        self.start(home, jobs[0]["id"])
        return home

    def start(self, home, job_id, *more, code=0, **how):
        result = home.call("start", job_id, *more, **how)
        self.assertEqual(result.code, code, result.out + result.err)
        return result

    def run_record(self, home, job_id):
        with open(os.path.join(home.job_dir(job_id), "run.json"), encoding="utf-8") as file:
            return json.load(file)

    def edit_record(self, home, job_id, **keys):
        record = {**self.run_record(home, job_id), **keys}
        home.put(os.path.join(home.job_dir(job_id), "run.json"), json.dumps({key: item for key, item in record.items() if item is not None}))

    def status(self, home, job_id):
        whole = json.loads(home.call("status", "--json").out)
        return next(job for job in whole["jobs"] if job["id"] == job_id)

    def wait_for_state(self, home, job_id, state):
        self.wait_for(f"{job_id} is {state}", lambda: self.status(home, job_id)["state"] == state)
        return self.status(home, job_id)

    def kill_all(self, home):
        """The power goes: supervisor and job end at once, nobody writes down how."""
        record = self.run_record(home, "m")
        for pid in (record["supervisor"], record["pid"]):
            ops.end_group(pid, signal.SIGKILL)
        self.wait_for("everything is dead", lambda: not home.processes() and not ops.is_lock_held(home.job_dir("m")))


class TestStarting(Managed):
    def test_a_job_outlives_its_starter_in_a_group_and_session_of_its_own(self):
        home = self.started(managed("m", f"readlink /proc/self/fd/0 > stdin; ls -l /proc/$$/fd > files; echo ready; {SLEEP}"))
        pid = self.run_record(home, "m")["pid"]
        self.assertEqual((os.getpgid(pid), os.getsid(pid)), (pid, pid))
        found = self.status(home, "m")
        self.assertEqual((found["state"], found["pid"], found["running"], found["completed"]), ("running", pid, True, False))
        self.wait_for("its first words", lambda: "ready" in home.call("logs", "m").out)
        if os.path.isdir("/proc/self"):
            self.assertEqual(home.read("stdin").strip(), "/dev/null")
            targets = re.findall(r"-> (\S+)", home.read("files"))
            odd = [name for name in targets if not name.endswith(("/null", "/run.log", "/run.lock", "/files"))]
            self.assertEqual(odd, [], "no descriptor of ours but the lock reaches the job")

    def test_a_start_by_a_real_process_group_that_is_killed_leaves_the_job_alone(self):
        home = Installation(self, managed("m", SLEEP))
        process = home.real("start", "m", start_new_session=True)
        _out, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, err)
        ops.end_group(process.pid, signal.SIGKILL)
        self.assertTrue(self.status(home, "m")["running"])

    def test_starts_at_once_start_one(self):
        home = Installation(self, managed("m", f"echo x >> starts; {SLEEP}", autoResume=True))
        begun = [home.begin("start", "m"), home.begin("start", "m"), home.begin("tick"), home.begin("start", "m")]
        results = [home.end(each) for each in begun]
        self.assertEqual([result.code for result in results], [0, 0, 0, 0])
        self.assertEqual(sum("already running" in result.out for result in results), 2)
        self.wait_for("the job's first line", lambda: home.lines("starts"))
        home.call("start", "m")
        home.tick()
        self.assertEqual(home.lines("starts"), ["x"])

    def test_a_start_that_dies_before_any_step_starts_one_in_the_end(self):
        number, died = 0, True
        while died:
            number += 1
            home = Installation(self, managed("m", f"echo x >> starts; {SLEEP}"))
            died = home.call("start", "m", die_before=number).code == DIED
            with self.subTest(dies_before=number):
                second = home.call("start", "m")
                self.assertIn(second.code, (0, 75), second.err)
                third = home.call("start", "m", later=500)
                self.assertEqual(third.code, 0, third.err)
                self.assertTrue(self.status(home, "m")["running"])
                self.wait_for("the job's first line", lambda home=home: home.lines("starts"))
                self.assertEqual(home.lines("starts"), ["x"])
            home.clear_away()
        self.assertGreater(number, 12)

    def test_what_cannot_be_started_is_said_and_leaves_nothing(self):
        home = Installation(self, managed("m", ":"))
        cases = {
            "no such": {"commands": {"start": ["/no/such/program"]}},
            "directory": {"cwd": "/no/such/place"},
            "permission": {"commands": {"start": ["./plain"]}},
        }
        home.put("plain", "#!/bin/sh\n")
        for words, more in cases.items():
            with self.subTest(words):
                home.configure({**managed("m", ":"), **more})
                result = self.start(home, "m", code=1)
                self.assertIn(words, result.err.lower())
                self.assertIn("help: ", result.err)
                self.assertEqual(self.status(home, "m")["state"], "idle")
                self.assertEqual(home.processes(), [])

    def test_a_job_that_never_ran_is_idle_neither_alerted_nor_resumed(self):
        home = Installation(self, managed("m", "echo x >> starts", autoResume=True))
        for later in (0, 100_000):
            self.assertEqual(home.tick(later=later).code, 0)
        self.assertEqual((home.told, home.lines("starts")), ([], []))
        self.assertEqual(self.status(home, "m")["state"], "idle")
        self.assertEqual(home.call("stop", "m").code, 1)

    def test_the_job_is_told_who_it_is(self):
        home = Installation(self, {**managed("m", "env > seen.new; mv seen.new seen"), "env": {"COLOR": "green"}})
        self.start(home, "m")
        self.wait_for("its environment", lambda: home.read("seen"))
        seen = dict(line.split("=", 1) for line in home.lines("seen") if "=" in line)
        place = home.job_dir("m")
        expected = {
            "OPS_JOB_ID": "m", "OPS_CHECKPOINT_DIR": place + "/checkpoint", "OPS_PROGRESS_FILE": place + "/progress.json",
            "OPS_ATTEMPT": "1", "OPS_RESUME": "0", "COLOR": "green", "HOME": home.root,
        }  # fmt: skip
        self.assertEqual({name: seen.get(name) for name in expected}, expected)
        self.assertTrue(os.path.isdir(seen["OPS_CHECKPOINT_DIR"]))
        for name in ("", "checkpoint"):
            self.assertEqual(os.stat(os.path.join(place, name)).st_mode & 0o777, 0o700)
        for name in ("run.json", "run.log", "run.lock", "id"):
            self.assertEqual(os.stat(os.path.join(place, name)).st_mode & 0o777, 0o600, name)


class TestWhatTheSupervisorIs(unittest.TestCase):
    def test_its_functions_use_nothing_that_its_interpreter_lacks(self):
        command = ops.supervisor_command("m", "/", {}, 1.0)
        codes, constants, _ = marshal.loads(command.stdin)
        imported = re.search(r"import ([\w,]+);", ops.SUPERVISOR_START)[1].split(",")
        known = {*imported, *constants, *dir(builtins), *(code.co_name for code in codes)}
        lacking = [(code.co_name, name) for code in codes for _, name, _ in global_reads(code) if name not in known]
        self.assertEqual(lacking, [])

    def test_its_functions_need_no_default_which_byte_code_does_not_carry(self):
        defaults = {function.__name__ for function in ops.SUPERVISOR if function.__defaults__}
        calls = [(function.__name__, name) for function in ops.SUPERVISOR for name in defaults.intersection(function.__code__.co_names)]
        self.assertEqual(calls, [("end_group", "end_one")], "which gives all three arguments")


class TestEnding(Managed):
    ENDINGS = (
        ("exit 0", "completed", None),
        ("exit 3", "stopped", "exit 3"),
        ("kill -KILL $$", "stopped", "killed by SIGKILL"),
        ("kill -TERM $$", "stopped", "killed by SIGTERM"),
        ("kill -SEGV $$", "stopped", "killed by SIGSEGV"),
        ("exec /no/such/program", "stopped", "exit 127"),
    )

    def test_how_it_ended_is_known_and_told_in_words(self):
        home = Installation(self, *[managed(script, f"echo last words; {script}") for script, _, _ in self.ENDINGS])
        for script, _, _ in self.ENDINGS:
            self.start(home, script)
        for script, state, words in self.ENDINGS:
            with self.subTest(script):
                found = self.wait_for_state(home, script, state)
                self.assertEqual((found["stopReason"], found["running"], found["completed"]), (words, False, state == "completed"))
        home.tick()
        for script, state, words in self.ENDINGS:
            with self.subTest(script):
                section = next(part for message in home.told for part in message.split("\n\n") if f" · {script}\n" in part)
                self.assertIn("COMPLETED" if state == "completed" else "ACTION REQUIRED", section)
                if words:
                    self.assertIn(words, section)
                    self.assertIn("last words", section, "with the end of its log")

    def test_a_supervisor_killed_alone_leaves_a_running_job(self):
        home = self.started(
            managed("m", "echo x >> starts; until test -e finish; do sleep 0.05; done; exit 0", autoResume=True, autoResumeBackoffSeconds=0)
        )
        self.wait_for("the job's first line", lambda: home.lines("starts"))
        os.kill(self.run_record(home, "m")["supervisor"], signal.SIGKILL)
        self.assertEqual(self.status(home, "m")["state"], "running")
        self.assertIn("already running", self.start(home, "m").out)
        home.tick()
        self.assertEqual(home.lines("starts"), ["x"], "no second copy")
        home.configure(managed("m", home.config["jobs"][0]["commands"]["start"][2]))  # the same work, autoResume off
        home.put("finish", "")
        found = self.wait_for_state(home, "m", "stopped")
        self.assertEqual((found["stopReason"], found["completed"]), ("lost: exit code unknown", False))
        home.tick()
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "lost: exit code unknown")), 1, home.told)
        self.assertEqual(home.told_with("COMPLETED"), [])

    def test_a_pid_that_belongs_to_another_process_now_is_left_alone(self):
        home = self.started(managed("m", SLEEP))
        self.kill_all(home)
        time.sleep(0.02)  # starts are told in hundredths of a second: this one is another
        victim = subprocess.Popen(["/bin/sleep", "60"])
        self.addCleanup(victim.wait)
        self.addCleanup(victim.kill)
        self.edit_record(home, "m", pid=victim.pid)
        found = self.status(home, "m")
        self.assertEqual((found["state"], found["stopReason"]), ("stopped", "lost: exit code unknown"))
        self.assertEqual(home.call("stop", "m").code, 1)
        self.assertIsNone(victim.poll())

    def test_a_restart_of_the_machine_is_told_from_a_loss(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}", autoResume=True))
        self.wait_for("the job's first line", lambda: home.lines("starts"))
        self.kill_all(home)
        victim = subprocess.Popen(["/bin/sleep", "60"])
        self.addCleanup(victim.wait)
        self.addCleanup(victim.kill)
        self.edit_record(home, "m", boot="another boot", pid=victim.pid, processStart=ops.process_start(victim.pid))
        self.assertEqual(self.status(home, "m")["stopReason"], "lost: machine restarted")
        home.tick()
        self.assertEqual(len(home.told_with("AUTORUN", "lost: machine restarted")), 1, home.told)
        self.wait_for("the second start", lambda: home.lines("starts") == ["x", "x"])
        self.assertIsNone(victim.poll())

    def test_a_record_that_cannot_be_read_is_unknown_and_starts_nothing(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}", autoResume=True))
        self.wait_for("the job's first line", lambda: home.lines("starts"))
        path = os.path.join(home.job_dir("m"), "run.json")
        good = home.read(path)
        for text in (
            "",
            "{",
            "[]",
            '{"pid": "7"}',
            '{"pid": true}',
            "\0" * 40,
            '{"pid": 7, "exitCode": "0"}',
            '{"pid": 7, "boot": 5}',
            '{"pid": 7, "attempt": {}}',
        ):
            with self.subTest(text):
                home.put(path, text)
                found = self.status(home, "m")
                self.assertIn(found["state"], ("unknown", "running"), "the lock is held")
                self.assertEqual(home.tick().code, 0)
                home.call("start", "m")
                self.assertEqual(home.lines("starts"), ["x"])
        home.put(path, good)
        self.assertEqual(home.call("stop", "m").code, 0)

    def test_completion_is_told_once_and_fires_what_follows_once(self):
        home = Installation(self, {**managed("m", "echo x >> runs"), "after": [{"jobId": "then"}]}, check("then", "echo x >> followed"))
        for count in (1, 2):
            self.start(home, "m")
            self.wait_for_state(home, "m", "completed")
            for _ in range(3):
                home.tick()
            self.assertEqual(home.lines("followed"), ["x"] * count)
            self.assertEqual(len(home.told_with("COMPLETED")), count, home.told)
        self.assertEqual(home.lines("runs"), ["x"] * 2)

    def test_what_a_job_leaves_in_its_group_ends_with_it(self):
        home = Installation(self, managed("m", "echo x >> starts; sleep 61 & exit 0"))
        for count in (1, 2):
            self.start(home, "m")
            self.wait_for_state(home, "m", "completed")
            self.wait_for("the daemon is gone", lambda: not home.processes())
            self.assertEqual(home.lines("starts"), ["x"] * count)

    def test_a_daemon_in_a_session_of_its_own_does_not_make_the_job_run_for_ever(self):
        home = Installation(self, managed("m", "echo x >> starts; setsid sleep 61 & sleep 0.1; exit 0"))
        self.start(home, "m")
        self.wait_for_state(home, "m", "completed")
        result = home.call("start", "m")
        if result.code:
            self.assertIn("help: ", result.err, "a refusal says what to do")
            self.assertRegex(result.err, "still|another run|left", "and why")


class TestStopping(Managed):
    def test_stop_ends_the_whole_tree(self):
        script = f"sleep 61 & setsid sleep 62 & sh -c 'sleep 63 & wait' & echo ready; {SLEEP}"
        home = self.started(managed("m", script, stopTimeoutSeconds=0.5))
        self.wait_for("its tree", lambda: len(home.processes()) >= 5)
        result = home.call("stop", "m")
        self.assertEqual((result.code, home.processes()), (0, []), result.err)
        self.assertEqual(self.status(home, "m")["state"], "stopped")

    def test_stop_ends_what_ignores_it(self):
        home = self.started(managed("m", f"trap '' TERM INT HUP; echo ready; {SLEEP}", stopTimeoutSeconds=30))
        self.wait_for("it ignores TERM", lambda: "ready" in home.call("logs", "m").out)
        result = home.call("stop", "m", "--timeout-seconds", "0.3")
        self.assertEqual((result.code, home.processes()), (0, []), result.err)
        self.wait_for("the record", lambda: self.status(home, "m")["stopReason"] == "killed by SIGKILL")

    def test_stop_gives_time_to_save(self):
        home = self.started(managed("m", f"trap 'sleep 0.2; echo saved > saved; exit 0' TERM; echo ready; {SLEEP}"))
        self.wait_for("it waits for TERM", lambda: "ready" in home.call("logs", "m").out)
        self.assertEqual(home.call("stop", "m").code, 0)
        self.assertEqual(home.lines("saved"), ["saved"])

    def test_a_stopped_job_is_neither_alerted_nor_resumed_until_start(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}", autoResume=True, autoResumeBackoffSeconds=0, reportWhileRunning=False))
        self.wait_for("the job's first line", lambda: home.lines("starts"))
        self.assertEqual(home.call("stop", "m").code, 0)
        for later in (0, 1000):
            home.tick(later=later)
        self.assertEqual((home.lines("starts"), home.told), (["x"], []))
        self.assertTrue(self.status(home, "m")["held"])
        self.assertEqual(home.call("stop", "m").code, 1, "it does not run")
        self.start(home, "m", later=1001)
        self.wait_for("the second start", lambda: home.lines("starts") == ["x", "x"])
        self.kill_all(home)
        home.tick(later=1002)
        self.wait_for("the third start", lambda: home.lines("starts") == ["x", "x", "x"])
        self.assertEqual(len(home.told_with("AUTORUN")), 1)


class TestCheckpoints(Managed):
    NOTE = 'echo "$OPS_ATTEMPT $OPS_RESUME $(cat $OPS_CHECKPOINT_DIR/mark 2>/dev/null)" >> attempts; '
    WORK = NOTE + f"echo kept > $OPS_CHECKPOINT_DIR/mark; until test -e finish; do sleep 0.05; done; exit 0 # {SLEEP}"

    def attempts(self, home, count):
        self.wait_for(f"attempt {count}", lambda: len(home.lines("attempts")) == count)
        self.wait_for("the checkpoint", lambda: home.read(os.path.join(home.job_dir("m"), "checkpoint", "mark")))
        return home.lines("attempts")[-1].split()

    def test_stop_is_a_pause(self):
        home = self.started(managed("m", self.WORK))
        self.assertEqual(self.attempts(home, 1), ["1", "0"])
        for count in (2, 3):
            home.call("stop", "m")
            self.start(home, "m")
            self.assertEqual(self.attempts(home, count), [str(count), "1", "kept"])

    def test_an_automatic_resume_continues_too(self):
        home = self.started(managed("m", self.WORK, autoResume=True))
        self.attempts(home, 1)
        self.kill_all(home)
        home.tick()
        self.assertEqual(self.attempts(home, 2), ["2", "1", "kept"])
        self.assertEqual(len(home.told_with("AUTORUN", "attempt 1 of 5")), 1)

    def test_fresh_begins_anew_and_keeps_the_old_checkpoint_aside(self):
        home = self.started(managed("m", self.WORK))
        self.attempts(home, 1)
        home.call("stop", "m")
        self.start(home, "m", "--fresh")
        self.assertEqual(self.attempts(home, 2), ["1", "0"])
        self.assertEqual(home.read(os.path.join(home.job_dir("m"), "checkpoint.old", "mark")), "kept\n")

    def test_a_start_after_completion_begins_anew(self):
        home = self.started(managed("m", self.WORK))
        self.attempts(home, 1)
        home.put("finish", "")
        self.wait_for_state(home, "m", "completed")
        os.unlink(home.path("finish"))
        self.start(home, "m")
        self.assertEqual(self.attempts(home, 2), ["1", "0"])
        self.assertTrue(os.path.isdir(os.path.join(home.job_dir("m"), "checkpoint.old")))

    def test_a_changed_job_is_not_resumed_and_start_wants_a_decision(self):
        changes = {"argv": {"commands": {"start": sh(self.WORK + " # changed")}}, "cwd": {"cwd": "/"}, "env": {"env": {"COLOR": "green"}}}
        changes["cwd"]["commands"] = {"start": sh(f"cd '{{}}'; {self.WORK}")}
        for what, change in changes.items():
            with self.subTest(what):
                home = Installation(self)
                job = managed("m", self.WORK, autoResume=True)
                if what == "cwd":
                    job["commands"] = change["commands"] = {"start": sh(f"cd {home.root}; {self.WORK}")}
                home.configure(job)
                self.start(home, "m")
                self.attempts(home, 1)
                self.kill_all(home)
                home.configure({**job, **change})
                home.tick()
                self.assertEqual(len(home.lines("attempts")), 1, "not resumed by itself")
                self.assertEqual(len(home.told_with("ACTION REQUIRED", "changed")), 1, home.told)
                refused = self.start(home, "m", code=4)
                self.assertIn("changed", refused.err)
                self.assertRegex(refused.err, r"--fresh begins anew\nhelp: .* start m --resume")
                self.start(home, "m", "--resume")
                self.assertEqual(self.attempts(home, 2), ["2", "1", "kept"])
                self.kill_all(home)
                home.tick(later=1)
                self.assertEqual(self.attempts(home, 3), ["3", "1", "kept"], "accepted once, resumed from then on")
                home.clear_away()


class TestProgress(Managed):
    def test_a_strange_progress_file_is_survived_and_said(self):
        home = self.started(managed("m", SLEEP, stallSeconds=10))
        home.tick()
        told = len(home.told)
        deep = '{"a": ' + "[" * 20000 + "]" * 20000 + "}"
        rows = {
            "half-written": '{"done": 1', "empty": "", "huge": '{"x": "' + "x" * (1 << 20) + '"}', "garbage": b"\xff\xfe\0\x01",
            "a list": "[]", "a number": "5",
            "NaN": '{"a": NaN}', "deep": deep, "text": '"done"',
        }  # fmt: skip
        path = os.path.join(home.job_dir("m"), "progress.json")
        for later, (what, content) in enumerate(rows.items()):
            with self.subTest(what):
                home.put(path, content)
                found = self.status(home, "m")
                self.assertEqual(found["state"], "running")
                self.assertIn("progress file", found["problem"] or "")
                self.assertIn("progress file", home.call("status").out)
                self.assertEqual(home.tick(later=100 + 100 * later).code, 0)
        os.unlink(path)
        os.mkfifo(path)
        self.assertIn("progress file", self.status(home, "m")["problem"] or "")
        self.assertEqual(len(home.told), told, "no alarm of it, and no stall")

    def test_without_a_progress_file_it_runs_and_never_stalls(self):
        home = self.started(managed("m", SLEEP, stallSeconds=10, reportEverySeconds=0))
        for later in (0, 100, 10_000):
            home.tick(later=later)
        self.assertEqual(len(home.told), 1, home.told)
        self.assertIn("no progress key", home.call("status").out)

    def test_progress_is_told_as_written_and_as_difference(self):
        home = self.started(managed("m", SLEEP, minReportSeconds=0))
        path = os.path.join(home.job_dir("m"), "progress.json")
        home.put(path, '{"done": 3, "total": 12, "rate": 1.50, "message": "page three", "progressKey": 3}')
        home.tick()
        self.assertTrue(home.told_with("done: 3", "rate: 1.50", "page three"), home.told)
        self.assertIn("25%", home.call("status").out)
        home.put(path, '{"done": 7, "total": 12, "rate": 1.50, "progressKey": 7}')
        home.tick(later=60)
        self.assertTrue(home.told_with("done: 7 (+4)"), home.told)

    def test_a_level_in_the_progress_file_alerts(self):
        home = self.started(managed("m", SLEEP))
        home.put(os.path.join(home.job_dir("m"), "progress.json"), '{"done": 3, "level": "alert", "message": "pages are blank"}')
        home.tick()
        self.assertTrue(home.told_with("ALERT · m", "pages are blank"), home.told)

    def test_a_stall_can_restart_it(self):
        home = self.started(managed("m", f"echo $$ >> pids; {SLEEP}", stallSeconds=100, onStall="restart"))
        home.put(os.path.join(home.job_dir("m"), "progress.json"), '{"done": 3}')
        home.tick()
        home.tick(later=60)
        self.assertEqual(len(home.lines("pids")), 1)
        home.tick(later=120)
        self.wait_for("the second start", lambda: len(home.lines("pids")) == 2)
        first, second = map(int, home.lines("pids"))
        self.assertEqual(self.status(home, "m")["pid"], second)
        self.assertNotIn(first, home.processes())
        self.assertEqual(len(home.told_with("AUTORUN", "no progress")), 1, home.told)


class TestTheRunLog(Managed):
    def log_size(self, home):
        return os.path.getsize(os.path.join(home.job_dir("m"), "run.log"))

    def test_a_flood_is_trimmed_and_its_newest_lines_stay(self):
        home = Installation(self, managed("m", "yes 'an old line of forty characters, or so.' | head -c 41943040; echo the very last line"))
        self.start(home, "m")
        self.wait_for_state(home, "m", "completed")
        self.assertLessEqual(self.log_size(home), 16 << 20)
        self.assertGreater(self.log_size(home), 1 << 20)
        lines = home.call("logs", "m", "-n", "2").out.splitlines()
        self.assertEqual(lines, ["an old line of forty characters, or so.", "the very last line"])
        with open(os.path.join(home.job_dir("m"), "run.log"), "rb") as file:
            self.assertEqual(file.readline(), b"an old line of forty characters, or so.\n", "it begins with a whole line")

    def test_no_line_is_lost_that_is_written_just_before_the_log_is_cut(self):
        home = Installation(self)
        home.put("run.log", "old\n" * (ops.LOG_LIMIT // 4))
        script = "import os, sys, time\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)\n"
        script += "for n in range(100000):\n    os.write(fd, b'%d\\n' % n)\n    time.sleep(0.001)\n"
        cut = os.ftruncate

        def late(fd, length):
            time.sleep(0.05)
            cut(fd, length)

        process = subprocess.Popen([sys.executable, "-c", script, home.path("run.log")], start_new_session=True)
        try:
            self.wait_for("its first line", lambda: not home.read("run.log").endswith("old\n"))
            with mock.patch.object(os, "ftruncate", late):
                ops.trim_log(home.path("run.log"), process.pid)
            seen = home.read("run.log")
            self.wait_for("more lines", lambda: len(home.read("run.log")) > len(seen) + 100)
        finally:
            process.kill()
            process.wait()
        numbers = [int(line) for line in home.lines("run.log") if line != "old"]
        self.assertEqual(numbers[:-1], list(range(len(numbers) - 1)))

    def test_trimming_goes_on_while_the_job_writes_and_loses_no_new_line(self):
        script = "import time\nfor n in range(3000):\n    print(f'line {n} ' + 'x' * 90, flush=True)\n    n % 100 or time.sleep(0.04)\n"
        job = managed("m", "")
        job["commands"]["start"] = [sys.executable, "-c", script]
        home = Installation(self, job)

        def small_logs():
            ops.LOG_LIMIT, ops.LOG_KEPT = 80_000, 40_000

        self.start(home, "m", bend=small_logs)
        self.wait_for_state(home, "m", "completed")
        with open(os.path.join(home.job_dir("m"), "run.log"), encoding="ascii") as file:
            numbers = [int(line.split()[1]) for line in file]
        self.assertLess(self.log_size(home), 300_000)
        self.assertEqual(numbers, list(range(numbers[0], 3000)), "no gap, no repeat, no torn line")

    def test_a_log_of_an_earlier_run_is_continued(self):
        home = self.started(managed("m", f"echo attempt $OPS_ATTEMPT; {SLEEP}"))
        self.wait_for("the first line", lambda: "attempt 1" in home.call("logs", "m").out)
        home.call("stop", "m")
        self.start(home, "m")
        self.wait_for("both", lambda: [line for line in home.call("logs", "m").out.splitlines() if "attempt" in line] == ["attempt 1", "attempt 2"])


class TestOrphans(Managed):
    def test_a_renamed_job_that_runs_is_an_orphan_told_once_and_can_be_stopped(self):
        home = self.started(managed("m", f"echo x >> starts; {SLEEP}"))
        home.tick()
        home.configure(managed("renamed", f"echo y >> starts; {SLEEP}", autoResume=True))
        shown = home.call("status").out
        self.assertIn("orphan", shown)
        self.assertRegex(shown, r"stop m\b")
        self.assertEqual(json.loads(home.call("status", "--json").out)["orphans"], ["m"])
        for later in (0, 100, 1000):
            home.tick(later=later)
        with self.subTest("told once"):
            self.assertEqual(len(home.told_with("stop m")), 1, home.told)
        self.assertEqual(home.call("stop", "m").code, 0)
        self.assertEqual(home.processes(), [])
        self.assertNotIn("orphan", home.call("status").out)
        self.assertIn("x", home.lines("starts"))
        self.assertNotIn("y", home.lines("starts"))

    def test_an_orphan_is_not_forgotten_while_it_runs(self):
        home = self.started(managed("m", SLEEP))
        home.configure(managed("renamed", SLEEP))
        for days in (0, 31, 62):
            home.tick(later=days * 86400.0)
        self.assertEqual(json.loads(home.call("status", "--json").out)["orphans"], ["m"])


if __name__ == "__main__":
    unittest.main()
