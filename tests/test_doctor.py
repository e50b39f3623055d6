"""`doctor` and `selftest`: every trap is really set, and found, and nothing else is complained of.

`Patient` is a House in which all is well: a scheduler that ticks every minute, a token, a target, one job.  A
test spoils one thing.  The machine around it (/etc, /Library, /proc) is a directory of the test.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import plistlib
import re
import shlex  # noqa: F401  # loaded here: a child that has given up its rights may not read it any more
import signal
import sys
import tempfile
import time
import unittest
from typing import NamedTuple
from unittest import mock

from tests import SCRIPT, ops
from tests.botapi import OWNER, TOKEN, BotApi, House, answer, drop, moved, no_chat, ok, refusal, unauthorized

IS_ROOT = os.geteuid() == 0
NOBODY = 65534


class Line(NamedTuple):
    level: str
    subject: str
    facts: str
    mend: str


class Report(NamedTuple):
    code: int
    lines: list
    next: str
    out: str

    def of(self, subject):
        return [line for line in self.lines if line.subject == subject]

    @property
    def troubles(self):
        return [line for line in self.lines if line.level != "ok"]


def read_report(test, ran):
    """What `doctor` printed; its form is checked on the way."""
    body, summary, step = ran.out.rstrip("\n").rsplit("\n", 2)
    lines = []
    for text in body.rstrip("\n").split("\n"):
        if text.startswith("      "):
            test.assertNotEqual(lines[-1].level, "ok", text)
            lines[-1] = lines[-1]._replace(mend=text.strip())
        else:
            test.assertRegex(text, r"\A(ok  |warn|fail)  [a-z.]+( [a-z]+)?: .")
            subject, facts = text[6:].split(": ", 1)
            lines.append(Line(text[:4].strip(), subject, facts, ""))
    for line in lines:
        test.assertTrue(line.level == "ok" or line.mend, f"what mends it? {line}")
    count = {level: sum(line.level == level for line in lines) for level in ("ok", "warn", "fail")}
    test.assertEqual(summary, "doctor: ok {ok}, warn {warn}, fail {fail}".format(**count))
    test.assertEqual((ran.code, ran.err), (1 if count["fail"] else 0, ""), ran.out)
    test.assertTrue(step.startswith("next: "))
    test.assertNotIn(TOKEN, ran.out)
    return Report(ran.code, lines, step[len("next: ") :], ran.out)


class Patient(House):
    """A house in which all is well."""

    def __init__(self, test, bot=None, **settings):
        super().__init__(test, bot, **settings)
        self.set_jobs({**self.check(), "commands": {"run": ["/bin/sh", "-c", "exit 0"]}})
        self.machine = os.path.join(self.top, "machine")
        os.mkdir(self.machine)
        for place, _, _ in os.walk(self.home):
            os.chmod(place, 0o700)  # whatever the umask
        self.crontab(f"* * * * * {sys.executable} {SCRIPT} tick")
        self.ticked()

    def crontab(self, *lines):
        """What `crontab -l` prints."""
        self.program("crontab", "printf '%s\\n' " + " ".join(map(ops.shell_word, lines)) if lines else "echo no crontab >&2; exit 1")

    def program(self, name, script):
        path = os.path.join(self.bin, name)
        self.put_file(path, f"#!/bin/sh\n{script}\n")
        os.chmod(path, 0o755)
        return path

    def put_file(self, path, text):
        path = os.path.join(self.machine, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o600)
        return path

    def ticked(self, every=60.0, ago=20.0, count=10):
        """The scheduler has ticked like this."""
        now = time.time() - ago
        times = [now - every * number for number in reversed(range(count))]
        self.change_state(lambda raw: raw.update(self={"ticks": times, "lookedAt": now}))
        os.chmod(self.state_file, 0o600)

    def doctor(self, *argv, **env):
        with mock.patch.object(ops, "MACHINE", self.machine):
            return read_report(self.test, self.call("doctor", *argv, **env))

    def unit(self, name, text, home=True):
        return self.put_file(os.path.join(self.home if home else self.machine, ".config/systemd/user" if home else "etc/systemd/system", name), text)

    def timer(self, service="", timer="OnUnitActiveSec=1min", enabled=True, name="ops-monitor"):
        """A user's systemd timer instead of the crontab."""
        self.crontab()
        self.program("loginctl", "echo Linger=yes")
        self.unit(f"{name}.service", f"[Service]\nType=oneshot\nExecStart={sys.executable} {SCRIPT} tick\n{service}\n")
        self.unit(f"{name}.timer", f"[Timer]\n{timer}\n[Install]\nWantedBy=timers.target\n")
        if enabled:
            self.unit(f"timers.target.wants/{name}.timer", "")

    def agent(self, name="ops-monitor", **settings):
        """A launchd agent instead of the crontab."""
        self.crontab()
        path = self.put_file(os.path.join(self.home, f"Library/LaunchAgents/{name}.plist"), "")
        words = {"Label": name, "ProgramArguments": [sys.executable, str(SCRIPT), "tick"], "StartInterval": 60, "AbandonProcessGroup": True}
        with open(path, "wb") as file:
            plistlib.dump({key: value for key, value in {**words, **settings}.items() if value is not None}, file)
        return path


class Checkup(unittest.TestCase):
    """Tests that spoil one thing and look for it."""

    def only(self, report, level, subject, *words, mend=""):
        """The one trouble that the report has is this."""
        self.assertEqual([(line.level, line.subject) for line in report.troubles], [(level, subject)], report.out)
        return self.among(report, level, subject, *words, mend=mend)

    def among(self, report, level, subject, *words, mend=""):
        """The report has this trouble."""
        found = [line for line in report.of(subject) if line.level == level and all(word in line.facts for word in words) and mend in line.mend]
        self.assertEqual(len(found), 1, f"{level} {subject} {words} {mend}\n{report.out}")
        return found[0]


class WhereAllIsWell(Checkup):
    def test_nothing_is_complained_of_and_status_comes_next(self):
        report = Patient(self).doctor()
        self.assertEqual((report.troubles, report.code), ([], 0), report.out)
        self.assertRegex(report.next, r"\A\S*python\S* \S+ops-monitor\.py status\Z")
        subjects = [line.subject for line in report.lines]
        self.assertEqual(subjects, ["python", "clock", "config", "permissions", "disk", "directory", "state", "openclaw.json", "token", "target",
                                    "way", "scheduler", "ticks", "outbox"])  # fmt: skip

    def test_token_and_target_are_shown_with_their_sources_and_the_token_masked(self):
        report = Patient(self).doctor()
        self.assertEqual(report.of("token")[0].facts, "700000001:*** from channels.telegram.botToken")
        self.assertEqual(report.of("target")[0].facts, f"{OWNER} from commands.ownerAllowFrom in OpenClaw's config")
        self.assertEqual(report.of("way")[0].facts, "api: delivery.via is auto, a token can be read")
        report = Patient(self).doctor("--target", "4711")
        self.assertEqual(report.of("target")[0].facts, "4711 from --target")

    def test_it_changes_nothing_and_talks_to_nobody(self):
        bot = BotApi(self)
        patient = Patient(self, bot)
        patient.put({"text": "x"})
        before = self.tree(patient.home)
        patient.doctor()
        self.assertEqual(self.tree(patient.home), before)
        self.assertEqual(bot.connections, 0)
        os.unlink(patient.state_file)
        os.rmdir(os.path.dirname(patient.state_file))
        patient.doctor()
        self.assertFalse(os.path.exists(os.path.dirname(patient.state_file)))

    @staticmethod
    def tree(top):
        found = {}
        for place, _, names in os.walk(top):
            for path in [place, *(os.path.join(place, name) for name in names)]:
                state = os.stat(path)
                found[path] = (state.st_mode, 0 if os.path.isdir(path) else (state.st_mtime_ns, state.st_ino, state.st_size))
        return found

    def test_next_is_what_mends_the_first_failure_then_a_scheduler_then_the_first_warning(self):
        patient = Patient(self)
        patient.claw_config["commands"] = {}
        patient.write()
        patient.crontab()
        patient.ticked(count=0)
        os.chmod(patient.openclaw_file, 0o644)
        self.assertIn("set delivery.target", patient.doctor().next)
        self.assertRegex(patient.doctor("--target", "1").next, r"ops-monitor\.py schedule install\Z")
        patient.ticked()
        self.assertEqual(patient.doctor("--target", "1").next, f"chmod 600 {patient.openclaw_file}")

    def test_a_check_that_stumbles_is_a_failure_and_the_others_go_on(self):
        patient = Patient(self)
        whole = len(patient.doctor().lines)

        def stumble(place):
            raise OSError(errno.EIO, os.strerror(errno.EIO), "/dev/sick")

        with mock.patch.object(os, "statvfs", stumble):
            report = patient.doctor()
        self.only(report, "fail", "disk", "cannot use /dev/sick: input/output error", mend="ls -ld /dev")
        self.assertEqual(len(report.lines), whole)


class PythonAndClock(Checkup):
    def test_a_python_that_is_too_old(self):
        patient = Patient(self)
        with mock.patch.object(sys, "version_info", (3, 8, 18, "final", 0)):
            for argv in (["doctor"], ["tick"], []):
                ran = patient.call(*argv)
                self.assertRegex(ran.err, r"\Aerror: this is Python \S+ at \S+; 3.9 or newer is needed\nhelp: .+\n\Z")
                self.assertEqual((ran.code, ran.out), (2, ""))

    def test_a_clock_that_never_was_set(self):
        patient = Patient(self)
        os.unlink(patient.state_file)
        with mock.patch.object(time, "time", lambda: 86400.0 * 3 + 41000.0):
            self.among(patient.doctor(), "fail", "clock", "1970-01-04", "before this program was released", mend="set the clock")

    def test_a_clock_that_was_set_back(self):
        patient = Patient(self)
        patient.change_state(lambda raw: raw.update(savedAt=time.time() + 7200.5))
        self.only(patient.doctor(), "warn", "clock", "was set back", "2h", mend="set the clock")

    def test_a_time_zone_that_nobody_knows(self):
        patient = Patient(self, monitor={"timezone": "Mars/Olympus"})
        self.only(patient.doctor(), "warn", "clock", "Mars/Olympus", mend="monitor.timezone")


class TheConfig(Checkup):
    def test_without_a_config_or_with_a_broken_one_the_other_checks_are_made(self):
        for content, words in ((None, "no such file"), ("{", ":1:2: error: "), ('{"version": 1}', "'jobs' is missing"), ("[1]", "expected an object")):
            with self.subTest(content):
                patient = Patient(self)
                os.unlink(patient.config_file)
                if content is not None:
                    patient.put_file(patient.config_file, content)
                report = patient.doctor()
                self.only(report, "fail", "config", patient.config_file, words)
                self.assertEqual(report.of("way")[0].level, "ok")
                self.assertEqual(report.of("token")[0].level, "ok")

    def test_while_it_is_broken_the_receiver_that_worked_last_is_looked_at(self):
        patient = Patient(self)
        patient.change_state(lambda raw: raw.update(receiver={"via": "command", "command": ["/bin/true"], "language": "zh"}))
        patient.put_file(patient.config_file, "{")
        self.assertEqual(patient.doctor().of("way")[0].facts, "command: delivery.via is command")

    def test_errors_and_warnings_are_counted_and_the_first_is_shown_with_its_place(self):
        patient = Patient(self)
        jobs = patient.settings["jobs"]
        patient.set_jobs(*jobs, {**jobs[0], "id": "b", "kind": "no"}, {**jobs[0], "id": "c", "risk": 5, "zzz": 1})
        report = patient.doctor()
        self.among(report, "fail", "config", "errors: 2, the first: ", f"{patient.config_file}:1:", "jobs[1].kind", mend="validate-config")
        self.among(report, "warn", "config", "warnings: 1", "jobs[2].zzz: unknown key", mend="validate-config")

    def test_commands_and_directories_that_are_not_there(self):
        patient = Patient(self)
        job = patient.check()
        patient.set_jobs({**job, "cwd": "/no/such/place"}, {**job, "id": "b", "commands": {"run": ["/no/program"]}})
        self.only(patient.doctor(), "warn", "config", "missing: 2", "no directory /no/such/place", mend="validate-config")

    def test_jobs_that_are_all_switched_off_and_none_at_all(self):
        patient = Patient(self)
        patient.set_jobs({**patient.check(), "enabled": False})
        self.only(patient.doctor(), "warn", "config", "no job is enabled", mend='"enabled": true')
        patient.set_jobs()
        self.only(patient.doctor(), "warn", "config", "it has no job", mend=f"add one to {patient.config_file}")


class Permissions(Checkup):
    def test_what_others_could_have_written(self):
        for name, mode, level, mend in (("config_file", 0o606, "fail", "chmod o-w "), ("config_file", 0o660, "warn", "chmod g-w "),
                                        ("state_file", 0o606, "fail", "chmod o-w "), ("openclaw_file", 0o606, "warn", "chmod o-w ")):  # fmt: skip
            with self.subTest(name, mode=oct(mode)):
                patient = Patient(self)
                path = getattr(patient, name)
                os.chmod(path, mode)
                found = self.among(patient.doctor(), level, "permissions", path, "can be written by", mend=mend)
                self.assertEqual(found.mend, f"{mend}{path}")

    def test_a_directory_on_the_way(self):
        patient = Patient(self)
        place = os.path.dirname(patient.config_file)
        os.chmod(place, 0o777)
        self.only(patient.doctor(), "fail", "permissions", f"config: {place} can be written by everyone", mend=f"chmod o-w {place}")

    def test_writes_that_this_blocks_are_named(self):
        patient = Patient(self)
        check = patient.settings["jobs"][0]
        write = {**check, "id": "prune", "kind": "one_shot_write", "risk": "write_local", "policy": {}, "after": [{"jobId": check["id"]}]}
        patient.set_jobs(check, write)
        os.chmod(patient.config_file, 0o620)
        self.only(patient.doctor(), "warn", "permissions", "writes stay BLOCKED: prune")

    def test_an_openclaw_config_that_others_may_read(self):
        patient = Patient(self)
        os.chmod(patient.openclaw_file, 0o640)
        self.only(patient.doctor(), "warn", "permissions", "holds the token", mend=f"chmod 600 {patient.openclaw_file}")

    @unittest.skipUnless(IS_ROOT, "only root can be in somebody else's directory")
    def test_root_in_somebody_elses_state(self):
        patient = Patient(self)
        os.chown(os.path.dirname(patient.state_file), NOBODY, NOBODY)
        self.among(patient.doctor(), "fail", "directory", "you are root", mend="sudo -u ")


def as_nobody(patient, act):
    """`act()` in a child without any rights; what it printed."""
    if not IS_ROOT:
        return act()
    for place, names, files in os.walk(patient.top):
        for path in [place, *(os.path.join(place, name) for name in (*names, *files))]:
            os.chown(path, NOBODY, NOBODY)
    out = os.path.join(patient.top, "out")
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with open(out, "w", encoding="utf-8") as file:
                file.write(json.dumps(act()))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    with open(out, encoding="utf-8") as file:
        return json.load(file)


class TheStatesPlace(Checkup):
    def test_a_directory_that_may_not_be_written(self):
        patient = Patient(self)
        place = os.path.dirname(patient.state_file)
        os.chmod(place, 0o500)
        self.addCleanup(os.chmod, place, 0o700)
        lines = as_nobody(patient, lambda: patient.doctor().lines)
        found = [line for line in (Line(*line) for line in lines) if line.subject == "directory"]
        self.assertEqual([(line.level, line.mend) for line in found], [("fail", f"chmod u+rwx {place}")])
        self.assertIn("cannot be written", found[0].facts)

    def test_a_state_and_a_lock_that_may_not_be_read(self):
        patient = Patient(self)
        locks = ops.Store(patient.state_file, ops.Clock()).lock_path("state")
        os.makedirs(os.path.dirname(locks), 0o700)
        for path in (patient.state_file, patient.put_file(locks, "")):
            with self.subTest(path):
                os.chmod(path, 0)
                lines = as_nobody(patient, lambda: patient.doctor().lines)
                found = [line[2] for line in lines if line[1] == "state" and line[0] == "fail"]
                self.assertEqual(len(found), 1, lines)
                self.assertIn(path, found[0])
                self.assertIn("permission denied", found[0])
                os.chmod(path, 0o600)

    def test_a_file_where_the_directory_should_be(self):
        patient = Patient(self)
        place = os.path.dirname(patient.state_file)
        os.unlink(patient.state_file)
        os.rmdir(place)
        patient.put_file(place, "")
        report = patient.doctor()
        self.among(report, "fail", "directory", f"{place} is not a directory", mend=f"mv {place} {place}.aside")
        self.among(report, "fail", "state", "not a directory", mend=f"ls -ld {place}")
        self.assertEqual({line.subject for line in report.troubles}, {"directory", "state", "way"}, report.out)

    def test_a_link_to_a_disk_that_is_not_there(self):
        patient = Patient(self)
        place = os.path.dirname(patient.state_file)
        os.unlink(patient.state_file)
        os.rmdir(place)
        os.symlink("/no/such/disk", place)
        self.among(patient.doctor(), "fail", "directory", f"cannot use {place}: no such file or directory", mend=f"ls -ld {place}")
        ran = patient.call("tick")
        self.assertEqual(ran.code, 74)
        self.assertRegex(ran.err, rf"\Aerror: .*{re.escape(place)}.*\nhelp: ls -ld {re.escape(place)}\n\Z")

    def test_a_network_filesystem(self):
        for kind in ("nfs", "nfs4", "cifs", "fuse.sshfs", "9p", "smb3"):
            with self.subTest(kind):
                patient = Patient(self)
                patient.put_file("proc/mounts", f"/dev/a / ext4 rw 0 0\nhost:/x {patient.home} {kind} rw 0 0\n")
                self.only(patient.doctor(), "warn", "directory", "network filesystem", f"({kind} at {patient.home})", mend="--state-file")
        patient.put_file("proc/mounts", f"host:/x / nfs rw 0 0\n/dev/a {patient.home} ext4 rw 0 0\n")
        self.assertEqual(patient.doctor().troubles, [])

    def test_mounts_as_the_kernel_writes_them(self):
        mounts = "/dev/a / ext4 rw 0 0\nb:/ /a\\040b nfs rw 0 0\nc /data ext4 rw 0 0\nd /data cifs rw 0 0\ntorn"
        for path, found in (("/a b/c", ("/a b", "nfs")), ("/a bc", ("/", "ext4")), ("/data", ("/data", "cifs")), ("/database", ("/", "ext4"))):
            self.assertEqual(ops.mount_of(path, mounts), found)
        self.assertEqual(ops.mount_of("/x", ""), ("", ""))

    def test_locks_that_do_not_exclude_each_other(self):
        patient = Patient(self)
        with mock.patch.object(fcntl, "flock", lambda fd, how: None):
            self.among(patient.doctor(), "fail", "directory", "locks do not exclude each other", mend="--state-file")

    def test_a_filesystem_that_cannot_flush(self):
        patient = Patient(self)

        def cannot(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with mock.patch.object(os, "fsync", cannot):
            self.only(patient.doctor(), "fail", "directory", "input/output error")

    def test_a_disk_that_is_nearly_full(self):
        block = 4096
        for free, total, inodes, level in (
            (1e12, 1e13, (9, 10), "ok"),
            (1e10, 1e12, (9, 10), "warn"),  # 1 % of it
            (190e6, 1e9, (9, 10), "warn"),
            (210e6, 1e9, (9, 10), "ok"),
            (19e6, 1e8, (9, 10), "fail"),
            (1e12, 1e13, (4, 100), "warn"),
            (1e12, 1e13, (0, 100), "fail"),
            (1e12, 1e13, (0, 0), "ok"),  # a filesystem that does not count them
        ):
            with self.subTest(free=free, total=total, inodes=inodes):
                words = (block, block, int(total / block), int(free / block), int(free / block), inodes[1], inodes[0], inodes[0], 0, 255)
                patient = Patient(self)
                with mock.patch.object(os, "statvfs", lambda path, words=words: os.statvfs_result(words)):
                    report = patient.doctor()
                self.assertEqual([line.level for line in report.of("disk")], [level], report.out)
                self.assertEqual(len(report.troubles), level != "ok")


class TheStateFile(Checkup):
    def test_what_is_left_of_states_that_could_not_be_read(self):
        patient = Patient(self)
        left = patient.put_file(patient.state_file + ".corrupt-20260101T000000", "x")
        self.only(patient.doctor(), "warn", "state", "states that could not be read: 1", left, mend=f"rm {left}")

    def test_a_file_that_is_none(self):
        patient = Patient(self)
        patient.put_file(patient.state_file, "{torn")
        report = patient.doctor()
        self.among(report, "fail", "state", "is not a state", mend="ops-monitor.py tick")
        with open(patient.state_file, encoding="utf-8") as file:
            self.assertEqual(file.read(), "{torn", "it is left as it is")

    def test_a_newer_one(self):
        patient = Patient(self)
        patient.change_state(lambda raw: raw.update(version=99))
        self.among(patient.doctor(), "fail", "state", "version 99", mend="upgrade")

    def test_a_lock_that_somebody_keeps(self):
        patient = Patient(self)
        patient.doctor()
        with patient.held_lock("state"), mock.patch.object(ops, "HELD_LONG", 0.0):
            self.only(patient.doctor(), "fail", "state", "another process holds", "state.lock", mend="lsof ")

    def test_a_lock_that_is_held_for_a_moment_is_none(self):
        place = tempfile.mkdtemp()
        path = os.path.join(place, "x.lock")
        with open(path, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.assertTrue(ops.is_held(path, 0.05))
            pid = os.fork()
            if pid == 0:
                time.sleep(0.1)
                fcntl.flock(file, fcntl.LOCK_UN)
                os._exit(0)
            self.assertFalse(ops.is_held(path, 5.0))
            os.waitpid(pid, 0)
        os.unlink(path)
        self.assertFalse(ops.is_held(path))
        os.rmdir(place)

    def test_a_state_that_serves_another_config(self):
        patient = Patient(self)
        other = patient.put_file(os.path.join(patient.home, "other.json"), "{}")
        patient.change_state(lambda raw: raw.update(configFile=other))
        self.only(patient.doctor(), "warn", "state", f"serves {other}")


class OpenClawsConfig(Checkup):
    def test_a_broken_one_shows_its_place(self):
        patient = Patient(self)
        with open(patient.openclaw_file, "w", encoding="utf-8") as file:
            file.write('{\n  "channels": {,}\n}')
        report = patient.doctor()
        self.among(report, "fail", "openclaw.json", f"{patient.openclaw_file}:2:", mend=f"mend {patient.openclaw_file}")
        self.assertEqual({line.subject for line in report.troubles}, {"openclaw.json", "token", "target", "way"})

    def test_a_broken_part_is_a_warning_while_messages_get_out(self):
        patient = Patient(self)
        patient.claw_config["agents"] = {"$include": "./gone.json5"}
        patient.write()
        self.only(patient.doctor(), "warn", "openclaw.json", "gone.json5", mend="mend ")

    def test_where_it_is_not_needed_it_is_not_asked_for(self):
        patient = Patient(self)
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "command", "command": ["/bin/cat"]})
        os.unlink(patient.openclaw_file)
        report = patient.doctor()
        self.assertEqual(report.troubles, [])
        self.assertEqual(report.of("openclaw.json")[0].facts, "not needed: delivery.via is command")

    def test_tokens_that_cannot_be_read(self):
        for telegram, words in (
            ({"tokenFile": "/no/such/token"}, ("the file cannot be read: No such file or directory (channels.telegram.tokenFile)",)),
            ({"botToken": "${UNSET_TOKEN}"}, ("a variable is not set: ${UNSET_TOKEN} (channels.telegram.botToken)",)),
            ({"botToken": {"source": "exec", "provider": "x", "id": "y"}}, ("secret reference by exec",)),
            ({"botToken": {"source": "store", "provider": "x", "id": "y"}}, ("secret reference by store",)),
            ({"botToken": "__OPENCLAW_REDACTED__"}, ("redacted placeholder",)),
            ({"botToken": TOKEN, "enabled": False}, ("channels.telegram.enabled", "it is off")),
            ({}, ("none in OpenClaw's config, nor in TELEGRAM_BOT_TOKEN",)),
        ):
            with self.subTest(telegram):
                patient = Patient(self)
                patient.claw_config["channels"]["telegram"] = telegram
                patient.write()
                report = patient.doctor()
                self.among(report, "fail", "token", *words, mend=f" in {patient.openclaw_file}")
                self.among(report, "fail", "way")
                patient.fake_openclaw({"out": "2026.9.6"})
                report = patient.doctor()
                self.only(report, "warn", "token", "openclaw will send", *words)
                self.assertEqual(report.of("way")[0].facts, "openclaw: delivery.via is auto, no token can be read")

    def test_a_token_that_only_this_shell_has(self):
        patient = Patient(self)
        del patient.telegram["botToken"]
        patient.write()
        found = self.only(patient.doctor(TELEGRAM_BOT_TOKEN=TOKEN), "warn", "token", "environment of this shell", mend=f"{patient.claw}/.env")
        self.assertNotIn(TOKEN, found.facts)
        patient.crontab(f"TELEGRAM_BOT_TOKEN={TOKEN}", f"* * * * * {sys.executable} {SCRIPT} tick")
        self.assertEqual(patient.doctor(TELEGRAM_BOT_TOKEN=TOKEN).troubles, [])
        patient.crontab(f"* * * * * {sys.executable} {SCRIPT} tick")
        patient.put_file(os.path.join(patient.claw, ".env"), f"TELEGRAM_BOT_TOKEN={TOKEN}\n")
        self.assertEqual(patient.doctor(TELEGRAM_BOT_TOKEN=TOKEN).troubles, [])

    def test_no_target_and_a_target_that_is_none(self):
        patient = Patient(self)
        patient.claw_config["commands"] = {}
        patient.write()
        report = patient.doctor()
        self.among(report, "fail", "target", "none is named", mend=f"set delivery.target in {patient.config_file}")
        patient.set_jobs(*patient.settings["jobs"], delivery={"target": "my phone"})
        self.only(patient.doctor(), "fail", "target", "'my phone' is no chat of Telegram", mend="delivery.target")
        patient.set_jobs(*patient.settings["jobs"], delivery={"target": 4711})
        self.assertEqual(patient.doctor().of("target")[0].facts, "4711 from delivery.target")

    def test_the_way_says_why(self):
        for delivery, claw, facts in (
            ({}, {"proxy": "socks5://x:1"}, "openclaw: delivery.via is auto, the proxy is none for us"),
            ({"channel": "feishu", "target": "ou_1"}, {}, "openclaw: delivery.via is auto, the channel is not telegram"),
            ({"via": "openclaw"}, {}, "openclaw: delivery.via is openclaw"),
            ({}, {}, "api, else openclaw: delivery.via is auto, a token can be read"),
        ):
            with self.subTest(facts):
                patient = Patient(self)
                patient.fake_openclaw({"out": "2026.9.6"})
                patient.telegram.update(claw)
                patient.set_jobs(*patient.settings["jobs"], delivery=delivery)
                report = patient.doctor()
                self.assertEqual((report.of("way")[0].facts, report.troubles), (facts, []), report.out)

    def test_no_way_at_all(self):
        patient = Patient(self)
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "none"})
        self.only(patient.doctor(), "fail", "way", "delivery.via is none")


class TheProgram(Checkup):
    WRONG_NODE = {"code": 1, "err": "starting\nopenclaw requires Node.js v22 or newer, this is v18.19.1\n"}

    def test_the_wrong_node_is_a_warning_beside_the_api_and_a_failure_alone(self):
        patient = Patient(self)
        path = patient.fake_openclaw(self.WRONG_NODE, self.WRONG_NODE)
        mend = f'ln -s "$(command -v node)" {os.path.dirname(path)}/node'
        self.only(patient.doctor(), "warn", "openclaw", path, "exit code 1", "this is v18.19.1", mend=mend)
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "openclaw"})
        self.only(patient.doctor(), "fail", "openclaw", "this is v18.19.1")

    def test_it_is_called_as_sending_calls_it(self):
        patient = Patient(self)
        path = patient.fake_openclaw({"out": "2026.9.6\n"})
        report = patient.doctor(OPENCLAW_HOME=patient.claw)
        self.assertEqual(report.of("openclaw")[0].facts, f"{path}: 2026.9.6")
        (call,) = patient.calls
        self.assertEqual(call["argv"], ["--version"])
        self.assertEqual(call["env"]["OPENCLAW_STATE_DIR"], patient.claw)
        self.assertNotIn("OPENCLAW_HOME", call["env"])
        self.assertTrue(call["env"]["PATH"].startswith(os.path.dirname(path) + ":"))

    def test_one_whose_interpreter_is_not_there(self):
        patient = Patient(self)
        path = patient.put_file(os.path.join(patient.bin, "openclaw"), "#!/no/such/node\n")
        os.chmod(path, 0o755)
        self.only(patient.doctor(), "warn", "openclaw", "names no interpreter of this machine")

    def test_where_it_is_not_used_it_is_not_called(self):
        patient = Patient(self)
        patient.fake_openclaw()
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "api"})
        self.assertEqual(patient.doctor().of("openclaw"), [])
        self.assertEqual(patient.calls, [])


class Online(Checkup):
    def patient(self, *plan):
        bot = BotApi(self, *plan)
        bot.methods = ("getMe", "getChat", "sendMessage")
        return Patient(self, bot), bot

    @staticmethod
    def asked(bot):
        return [request.path.rpartition("/")[2] for request in bot.requests]

    def test_token_and_chat_are_known(self):
        known = [answer(200, {"ok": True, "result": {"username": name}}) for name in ("ops_bot", "owner")]
        patient, bot = self.patient(*known)
        report = patient.doctor("--online")
        self.assertEqual([line.facts for line in report.of("online")], ["getMe: ops_bot", "getChat: owner"])
        self.assertEqual(self.asked(bot), ["getMe", "getChat"])
        self.assertEqual(bot.requests[1].body, {"chat_id": int(OWNER)})
        self.assertEqual(report.troubles, [])

    def test_a_token_that_is_refused(self):
        for plan in (unauthorized, refusal(404, "Not Found")):
            patient, bot = self.patient(plan)
            self.only(patient.doctor("--online"), "fail", "online", "getMe is refused: 40", mend="@BotFather")
            self.assertEqual(self.asked(bot), ["getMe"])

    def test_a_refused_token_is_mended_where_it_stands(self):
        patient, bot = self.patient(unauthorized)
        bot.always = unauthorized
        path = patient.put_file("token", TOKEN)
        patient.telegram.pop("botToken")
        patient.telegram["tokenFile"] = path
        patient.write()
        self.only(patient.doctor("--online"), "fail", "online", "getMe is refused: 401", mend="mend channels.telegram.tokenFile in")
        patient.telegram.pop("tokenFile")
        patient.write()
        report = patient.doctor("--online", TELEGRAM_BOT_TOKEN=TOKEN)
        self.among(report, "fail", "online", "getMe is refused: 401", mend="mend TELEGRAM_BOT_TOKEN in the environment")

    def test_without_a_target_the_token_is_asked_about_all_the_same(self):
        patient, bot = self.patient(answer(200, {"ok": True, "result": {"username": "ops_bot"}}))
        patient.claw_config.pop("commands", None)
        patient.telegram.pop("allowFrom", None)
        patient.write()
        report = patient.doctor("--online")
        self.assertEqual([line.facts for line in report.of("online")], ["getMe: ops_bot"])
        self.assertEqual(self.asked(bot), ["getMe"])

    def test_a_group_that_has_moved_is_named(self):
        patient, _ = self.patient(ok, moved(-100500))
        self.among(patient.doctor("--online"), "fail", "online", "getChat is refused", mend="to -100500")

    def test_a_chat_that_is_not_known(self):
        patient, _ = self.patient(ok, no_chat)
        self.only(patient.doctor("--online"), "fail", "online", "getChat is refused: 400 Bad Request: chat not found", mend="delivery.target")

    def test_nobody_answers(self):
        patient = Patient(self)  # its apiRoot is a port on which nobody listens
        self.only(patient.doctor("--online"), "fail", "online", "getMe is not answered", mend="curl -sS http://127.0.0.1:")
        patient, _ = self.patient(drop)
        self.only(patient.doctor("--online"), "fail", "online", "getMe is not answered")

    def test_where_the_api_is_not_used_it_is_not_asked(self):
        patient, bot = self.patient()
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "command", "command": ["/bin/cat"]})
        self.assertIn("not asked", patient.doctor("--online").of("online")[0].facts)
        self.assertEqual(bot.connections, 0)


class TheTestMessage(Checkup):
    patient = Online.patient

    def test_one_silent_message_arrives_and_the_outbox_is_as_it_was(self):
        patient, bot = self.patient()
        patient.put({"text": "an alert that waits"})
        before = patient.state
        report = patient.doctor("--send-test")
        self.assertEqual(report.of("test message"), [Line("ok", "test message", f"by api to {OWNER}: sent", "")])
        self.assertEqual(Online.asked(bot), ["getMe", "getChat", "sendMessage"])
        self.assertFalse(bot.requests[2].rings)
        self.assertIn("a test message of `doctor`", bot.requests[2].text)
        self.assertEqual(patient.state, before)

    def test_what_came_back_is_said_and_the_other_way_tried_only_after_a_definite_no(self):
        patient, bot = self.patient(ok, ok, unauthorized)
        patient.fake_openclaw({"out": "2026.9.6"})
        report = patient.doctor("--send-test")
        self.only(report, "warn", "test message", "by api", "refused: 401 Unauthorized", mend="doctor --online")
        self.assertEqual(report.of("test message")[1].facts, f"by openclaw to {OWNER}: sent")
        self.assertIn("--silent", patient.calls[-1]["argv"])
        bot.plan = [ok, ok, refusal(500, "Internal Server Error")]
        report = patient.doctor("--send-test")
        self.only(report, "fail", "test message", "by api", "unknown: 500 Internal Server Error")
        self.assertEqual(len(report.of("test message")), 1)

    def test_what_mends_a_refusal_is_said(self):
        for no, mend in (
            (refusal(403, "Forbidden: bot was blocked by the user"), "let the bot in again"),
            (refusal(400, "Bad Request: message thread not found"), "set delivery.threadId in"),
        ):
            patient, _ = self.patient(ok, ok, no)
            self.among(patient.doctor("--send-test"), "fail", "test message", mend=mend)

    def test_a_test_to_another_chat_wakes_nothing(self):
        patient, _ = self.patient(refusal(403, "Forbidden: bot was blocked by the user"))
        patient.put({"text": "an alert that waits"})
        patient.tick()
        before = patient.state["outbox"]
        report = patient.doctor("--send-test", "--target", "999")
        self.assertEqual(report.of("test message")[0].facts, "by api to 999: sent")
        self.assertEqual(patient.state["outbox"], before)

    def test_what_was_refused_before_goes_with_the_next_tick(self):
        patient, bot = self.patient(refusal(403, "Forbidden: bot was blocked by the user"))
        patient.put({"text": "an alert that waits"})
        patient.tick()
        self.assertGreater(patient.state["outbox"][0]["notBefore"], time.time() + 3600)
        patient.tick()
        self.assertEqual(len(bot.requests), 1)
        report = patient.doctor("--send-test")  # the person has let the bot in again
        self.assertIn("sent; what waited for that goes with the next tick", report.of("test message")[0].facts)
        self.only(report, "warn", "outbox", "undelivered messages: 1", mend=" tick")
        patient.tick()
        self.assertEqual((patient.state["outbox"], "an alert that waits" in bot.requests[-1].text), ([], True))

    def test_by_a_command(self):
        patient = Patient(self)
        heard = os.path.join(patient.work, "heard")
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "command", "command": ["/bin/sh", "-c", f"/bin/cat > '{heard}'; echo $OPS_RINGS >> '{heard}'"]})
        self.assertEqual(patient.doctor("--send-test").of("test message")[0].facts, "by command to your command: sent")
        with open(heard, encoding="utf-8") as file:
            self.assertRegex(file.read(), r"(?s)test message.*\n?0\n\Z")

    def test_nothing_is_sent_for_a_config_that_others_could_have_written_or_without_a_way(self):
        patient = Patient(self)
        witness = os.path.join(patient.work, "witness")
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "command", "command": ["/usr/bin/touch", witness]})
        os.chmod(patient.config_file, 0o606)
        self.among(patient.doctor("--send-test"), "fail", "test message", "not sent: others could have written", mend="chmod o-w")
        self.assertFalse(os.path.exists(witness))
        patient.set_jobs(*patient.settings["jobs"], delivery={"via": "none"})
        self.among(patient.doctor("--send-test"), "fail", "test message", "not sent: delivery.via is none")


class Schedulers(Checkup):
    def test_nothing_calls_tick(self):
        patient = Patient(self)
        patient.crontab("0 5 * * * /usr/bin/certbot renew", f"# * * * * * {SCRIPT} tick", f"* * * * * python3 {SCRIPT} status")
        patient.ticked(count=0)
        report = patient.doctor()
        self.only(report, "warn", "scheduler", "nothing calls tick", mend="ops-monitor.py schedule install")
        self.assertEqual(report.next, report.troubles[0].mend)

    def test_every_form_and_place_of_a_crontab(self):
        module = f"""{sys.executable} -I -S -c 'import sys; sys.path.append("{os.path.dirname(SCRIPT)}"); """ + \
                 """sys.exit(__import__("ops-monitor").main(["tick"]))'"""  # fmt: skip
        for line, facts in (
            (f"* * * * * {sys.executable} {SCRIPT} tick", "crontab -l, every 1m"),
            (f"*/5 * * * * {module}", "crontab -l, every 5m"),
            (f"@hourly cd / && {sys.executable} -I {SCRIPT} tick >> /dev/null 2>&1", "crontab -l, every 1h"),
            (f"* * * * * /usr/bin/flock -n /tmp/l sh -c \"{sys.executable} {SCRIPT} tick; true\"", "crontab -l, every 1m"),
            (f"0 9 * * 1 {sys.executable} {SCRIPT} tick", "crontab -l"),
        ):
            with self.subTest(line):
                patient = Patient(self)
                patient.crontab("MAILTO=me", line)
                self.assertEqual([line.facts for line in patient.doctor().of("scheduler")], [facts])
        for place in ("etc/crontab", "etc/cron.d/ops-monitor"):
            with self.subTest(place):
                patient = Patient(self)
                patient.crontab()
                path = patient.put_file(place, f"SHELL=/bin/sh\n* * * * * {ops.user_name(os.geteuid())} {sys.executable} {SCRIPT} tick\n")
                report = patient.doctor()
                self.assertEqual(([line.facts for line in report.of("scheduler")], report.troubles), ([f"{path}, every 1m"], []), report.out)

    def test_another_users_entry_is_none_of_ours(self):
        patient = Patient(self)
        patient.crontab()
        patient.put_file("etc/cron.d/ops", f"* * * * * somebody {sys.executable} {SCRIPT} tick\n")
        patient.ticked(count=0)
        self.only(patient.doctor(), "warn", "scheduler", "nothing calls tick")

    def test_an_entry_that_works_on_another_state(self):
        patient = Patient(self)
        patient.ticked(count=0)
        for line, other in (
            (f"* * * * * {sys.executable} {SCRIPT} tick --state-file '/srv/my state.json'", "/srv/my state.json"),
            (f"* * * * * {sys.executable} {SCRIPT} tick --print-only --state-file=/srv/x.json", "/srv/x.json"),
            (f"* * * * * OPENCLAW_HOME={patient.work} {sys.executable} {SCRIPT} tick", f"{patient.work}/net/state/ops-monitor.json"),
        ):
            patient.crontab(line)
            found = patient.doctor().of("scheduler")
            self.assertIn(f"crontab -l calls tick for {other}, not for {patient.state_file}", [line.facts for line in found])
            self.assertIn("schedule install", found[0].mend)
        short = os.path.relpath(patient.state_file, patient.home)
        for path in (patient.state_file, f"~/{short}", f"$HOME/{short}", f"${{HOME}}/{short}"):
            patient.crontab(f"* * * * * {sys.executable} {SCRIPT} tick --state-file={path}")
            self.assertEqual([line.facts for line in patient.doctor().of("scheduler")], ["crontab -l, every 1m"])

    def test_what_is_wrong_with_a_crontabs_line(self):
        old = Patient(self).program("python3.6", "echo Python 3.6.15")
        for line, words, mend in (
            (f"@reboot {sys.executable} {SCRIPT} tick", "it runs once a boot", "crontab -e"),
            (f"* * * * * {sys.executable} /gone/ops-monitor.py tick", "there is no /gone/ops-monitor.py", "schedule install"),
            (f"* * * * * {old} {SCRIPT} tick", f"it calls {old}: Python 3.6.15; Python 3.9 or newer", f"name another there, such as {sys.executable}"),
            (f"* * * * * /no/python3 {SCRIPT} tick", "it calls /no/python3: no such program", "name another"),
        ):
            with self.subTest(line):
                patient = Patient(self)
                patient.crontab(line)
                found = self.among(patient.doctor(), "fail", "scheduler", "crontab -l: ", words, mend=mend)
                self.assertEqual(found.subject, "scheduler")

    def test_the_python_of_a_bare_name_is_looked_for_where_cron_looks(self):
        patient = Patient(self)
        patient.program("python3", "echo Python 3.5.2")
        patient.crontab(f"PATH={patient.bin}", f"* * * * * python3 {SCRIPT} tick")
        self.only(patient.doctor(), "fail", "scheduler", "it calls python3: Python 3.5.2")
        patient.crontab(f"PATH={patient.bin}", f"* * * * * {SCRIPT} tick")  # its first line asks env for python3
        self.only(patient.doctor(), "fail", "scheduler", "it calls python3: Python 3.5.2")

    def test_a_systemd_service_that_kills_what_a_tick_started(self):
        patient = Patient(self)
        patient.timer()
        place = f"{patient.home}/.config/systemd/user/ops-monitor.service"
        found = self.only(patient.doctor(), "fail", "scheduler", f"{place}: without KillMode=process", mend="systemctl --user daemon-reload")
        with contextlib.redirect_stdout(None):
            os.system(found.mend.rpartition(" && ")[0])  # the mend as it stands, but for systemd itself
        self.assertEqual(patient.doctor().troubles, [])
        patient.timer("KillMode=control-group")
        self.assertEqual(patient.doctor().troubles, [], "the drop-in comes later and counts")

    def test_keys_count_in_their_section_only_and_the_last_one(self):
        for service, is_trap in (("KillMode=process", False), ("KillMode=process\nKillMode=mixed", True), ("[Unit]\nKillMode=process", True),
                                 ("#KillMode=process", True), ("KillMode=mixed\nKillMode=\nKillMode = process", False)):  # fmt: skip
            with self.subTest(service):
                patient = Patient(self)
                patient.timer(service)
                self.assertEqual(len(patient.doctor().troubles), is_trap)

    def test_a_timer_that_is_missing_or_not_enabled(self):
        patient = Patient(self)
        patient.timer("KillMode=process", enabled=False)
        self.only(patient.doctor(), "fail", "scheduler", "ops-monitor.timer is not enabled", mend="systemctl --user enable --now ops-monitor.timer")
        os.unlink(f"{patient.home}/.config/systemd/user/ops-monitor.timer")
        self.only(patient.doctor(), "fail", "scheduler", "no timer calls it")

    def test_a_timer_of_another_name_and_a_system_service_of_this_user(self):
        patient = Patient(self)
        patient.crontab()
        me = ops.user_name(os.geteuid())
        path = patient.unit("watch.service", f"[Service]\nUser={me}\nKillMode=process\nExecStart=-{sys.executable} \\\n  {SCRIPT} tick\n", home=False)
        patient.unit("every.timer", "[Timer]\nOnCalendar=*:0/2\nUnit=watch.service\n", home=False)
        patient.unit("timers.target.wants/every.timer", "", home=False)
        report = patient.doctor()
        self.assertEqual([line.facts for line in report.of("scheduler")], [f"{path}, every 2m"])

    def test_a_drop_in_may_take_the_call_away_and_home_has_a_short_name(self):
        patient = Patient(self)
        patient.timer("KillMode=process")
        patient.unit("ops-monitor.service.d/other.conf", "[Service]\nExecStart=\nExecStart=/bin/true\n")
        self.assertEqual(patient.doctor().of("scheduler"), [])
        self.assertIn("who calls it was not found", patient.doctor().of("ticks")[0].facts)
        patient.unit("ops-monitor.service.d/other.conf", f"[Service]\nExecStart=\nExecStart={sys.executable} %h/gone/ops-monitor.py tick\n")
        self.only(patient.doctor(), "fail", "scheduler", f"there is no {patient.home}/gone/ops-monitor.py")

    def test_a_user_who_does_not_linger(self):
        for says, is_trap in (("echo Linger=no", True), ("echo User ID 5 is not logged in or lingering >&2; exit 1", True),
                              ("echo Linger=yes", False), ("echo no bus >&2; exit 1", False)):  # fmt: skip
            with self.subTest(says):
                patient = Patient(self)
                patient.timer("KillMode=process")
                patient.program("loginctl", says)
                report = patient.doctor()
                if is_trap:
                    self.only(report, "fail", "scheduler", "lingering is off", mend="loginctl enable-linger ")
                else:
                    self.assertEqual(report.troubles, [])

    def test_a_launchd_agent(self):
        for settings, words, mend in (
            ({}, "", ""),
            ({"AbandonProcessGroup": None}, "without AbandonProcessGroup", "plutil -replace AbandonProcessGroup -bool true"),
            ({"AbandonProcessGroup": False}, "without AbandonProcessGroup", "plutil"),
            ({"Disabled": True}, "it is disabled", "launchctl load -w"),
            ({"StartInterval": None}, "nothing calls it again", "StartInterval 60"),
            ({"StartInterval": None, "StartCalendarInterval": {}}, "", ""),
            ({"EnvironmentVariables": {"HOME": 5, "OPENCLAW_HOME": ["a"], "PATH": True}}, "", ""),
        ):
            with self.subTest(settings):
                patient = Patient(self)
                path = patient.agent(**settings)
                report = patient.doctor()
                if words:
                    self.only(report, "fail", "scheduler", f"{path}: ", words, mend=mend)
                else:
                    self.assertEqual(([line.facts for line in report.of("scheduler")], report.troubles), ([f"{path}, every 1m"], []), report.out)

    def test_files_that_nobody_can_read_are_no_entries(self):
        patient = Patient(self)
        os.rename(patient.agent("aside"), os.path.join(patient.home, "Library/LaunchAgents/aside.plist.off"))
        patient.crontab(f"* * * * * {sys.executable} {SCRIPT} tick")
        patient.put_file(os.path.join(patient.home, "Library/LaunchAgents/torn.plist"), "<plist")
        patient.put_file("etc/cron.d/odd", "* * * * * root 'ops-monitor.py tick\n\0\n@x\n= =\n")
        patient.unit("odd.service", "[\nExecStart\n=\n[Service]\nExecStart='ops-monitor.py\n")
        os.mkfifo(os.path.join(patient.machine, "etc/crontab"))
        self.assertEqual(patient.doctor().troubles, [])

    def test_two_entries(self):
        patient = Patient(self)
        patient.timer("KillMode=process")
        patient.crontab(f"* * * * * {sys.executable} {SCRIPT} tick")
        found = self.only(patient.doctor(), "warn", "scheduler", "tick is called more than once: crontab -l, ")
        self.assertEqual(found.mend, "keep one of them: systemctl --user disable --now ops-monitor.timer")
        os.unlink(f"{patient.home}/.config/systemd/user/timers.target.wants/ops-monitor.timer")
        self.assertEqual(patient.doctor().troubles, [], "what is off need not be mended while another one ticks")
        patient.crontab("")
        self.only(patient.doctor(), "fail", "scheduler", "is not enabled")

    def test_periods(self):
        for times, seconds in (("* * * * *", 60), ("*/5 * * * *", 300), ("0-59/10 * * * *", 600), ("0,30 * * * *", 1800), ("7 * * * *", 3600),
                               ("@hourly", 3600), ("@reboot", 0), ("0 9 * * *", 0), ("* * * * 1-5", 0), ("*/0 * * * *", 3600),
                               ("*/90 * * * *", 3600), ("10-20 * * * *", 0), ("5-55/10 * * * *", 0), ("- * * * * *", 0)):  # fmt: skip
            self.assertEqual(ops.cron_period(times), seconds, times)
        for text, seconds in (("OnUnitActiveSec=60", 60), ("OnUnitActiveSec=1min 30s", 90), ("OnUnitActiveSec=2 minutes", 120),
                              ("OnCalendar=minutely", 60), ("OnCalendar=*:0/5", 300), ("OnCalendar=*-*-* *:*:00", 60), ("OnCalendar=Mon 9:00", 0),
                              ("OnBootSec=5", 0), ("OnUnitActiveSec=", 0)):  # fmt: skip
            self.assertEqual(ops.timer_period(ops.unit_settings("[Timer]\n" + text)), seconds, text)


class Ticks(Checkup):
    def test_an_entry_that_never_ticked(self):
        patient = Patient(self)
        patient.ticked(count=0)
        self.only(patient.doctor(), "fail", "ticks", "crontab -l has not called tick for this state yet", mend="wait 1m; else: journalctl")

    def test_one_that_does_not_tick_any_more(self):
        patient = Patient(self)
        patient.ticked(ago=241.0)
        self.only(patient.doctor(), "fail", "ticks", "the last one 4m 1s ago", "nothing calls tick any more", mend="journalctl -u cron")
        patient.crontab(f"*/5 * * * * {sys.executable} {SCRIPT} tick")
        patient.ticked(every=300.0, ago=241.0)
        self.assertEqual(patient.doctor().troubles, [])
        patient.crontab()
        patient.ticked(ago=3600.0)
        self.only(patient.doctor(), "fail", "ticks", "nothing calls tick any more", mend="schedule install")

    def test_ticks_by_a_scheduler_that_was_not_found(self):
        patient = Patient(self)
        patient.crontab()
        self.assertEqual(patient.doctor().of("ticks")[0], Line("ok", "ticks", "the last one 20s ago, usually one in 1m; who calls it was not found", ""))

    def test_ticks_that_come_twice(self):
        patient = Patient(self)
        patient.ticked(every=25.0)
        self.only(patient.doctor(), "warn", "ticks", "usually one in 25s, 1m was agreed: something else calls tick as well", mend="crontab -l")
        now = time.time()
        pairs = [now - 20 - 60 * number + more for number in reversed(range(5)) for more in (0.0, 0.4)]
        patient.change_state(lambda raw: raw["self"].update(ticks=pairs))
        self.only(patient.doctor(), "warn", "ticks", "something else calls tick as well")
        patient.ticked(every=25.0, count=4)
        self.assertEqual(patient.doctor().troubles, [], "too few to tell")

    def test_the_last_ten_are_remembered(self):
        patient = Patient(self)
        patient.ticked(every=60.0, ago=60.0)
        before = patient.state["self"]["ticks"]
        patient.tick()
        after = patient.state["self"]["ticks"]
        self.assertEqual(after[:-1], [round(at, 3) for at in before[1:]] if after[0] != before[1] else before[1:])
        self.assertAlmostEqual(after[-1], time.time(), delta=5)

    def test_a_tick_at_a_terminal_does_not_count(self):
        patient = Patient(self)
        patient.ticked(count=0)
        with mock.patch.object(io, "StringIO", Terminal):
            patient.tick()
        self.assertEqual(patient.state["self"].get("ticks", []), [])
        patient.tick()
        self.assertEqual(len(patient.state["self"]["ticks"]), 1)

    def test_times_still_to_come_are_dropped_after_the_clock_was_set_back(self):
        now = time.time()
        patient = Patient(self)
        for odd in (["x", None, True, now + 9e3, now - 60.0, float(now - 30)], {"a": 1}, "often"):
            patient.change_state(lambda raw, odd=odd: raw["self"].update(ticks=odd))
            patient.doctor()
            patient.tick()
            kept = patient.state["self"]["ticks"]
            self.assertTrue(all(now - 61 < at <= time.time() for at in kept), kept)
            self.assertEqual(len(kept), 3 if isinstance(odd, list) else 1)


class WhatWaits(Checkup):
    def test_undelivered_messages_with_the_last_error(self):
        patient = Patient(self)
        patient.put({"text": "a"}, {"text": "b", "tries": 3, "error": "401 Unauthorized"})
        self.only(patient.doctor(), "fail", "outbox", "undelivered messages: 2", "the last error: 401 Unauthorized", mend="doctor --online")

    def test_messages_that_were_not_tried_yet(self):
        patient = Patient(self)
        patient.put({"text": "a"})
        self.only(patient.doctor(), "warn", "outbox", "undelivered messages: 1", mend="ops-monitor.py tick")

    def test_a_sender_that_does_not_end(self):
        patient = Patient(self)
        with patient.held_lock("delivery"), mock.patch.object(ops, "HELD_LONG", 0.0):
            self.only(patient.doctor(), "warn", "outbox", "another process is sending", mend="lsof ")

    def test_starts_and_runs_without_a_result(self):
        patient = Patient(self)
        now = time.time()
        patient.change_state(lambda raw: raw.update(jobs={"disk": {"action": "run", "actionAt": now - 500, "actionFor": 310.0}}))
        self.only(patient.doctor(), "warn", "unfinished", "disk: its run of ", "has no result; it had 5m 10s", mend="explain disk")
        patient.change_state(lambda raw: raw["jobs"]["disk"].update(actionAt=now - 300))
        self.assertEqual(patient.doctor().troubles, [])
        patient.change_state(lambda raw: raw.update(jobs={}, gates={"gone": {"run": "begun", "runBeganAt": now - 7200}}))
        self.only(patient.doctor(), "warn", "unfinished", "gone: its write of ", "it had 1h", mend="status")


class Selftest(unittest.TestCase):
    """Each check says what is wrong once something is."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.place = holder.name

    def found(self, check, **broken):
        """What the check says while these names of the module are replaced."""
        from tests.botapi import guest

        with guest(), contextlib.ExitStack() as stack:
            for name, value in broken.items():
                stack.enter_context(mock.patch.object(ops, name, value))
            return list(check(self.place))

    def test_where_all_is_well_nothing_is_found_and_it_takes_no_5_seconds(self):
        began = time.monotonic()
        for check in ops.SELFTESTS:
            self.assertEqual(self.found(check), [], check.__name__)
        self.assertLess(time.monotonic() - began, 5.0)

    def test_every_check_can_fail(self):
        for check, words, broken in (
            (ops.check_decisions, "decision rules: expected resume.now, found nothing", {"decide_long": lambda *args: ops.Decision(ops.Memory())}),
            (ops.check_texts, "a credential is not masked", {"CREDENTIALS": "nothing-is-secret"}),
            (ops.check_texts, "JSON with comments is misread", {"parse_json": lambda text: {}}),
            (ops.check_clocks, "no boot identity", {"boot_identity": lambda: ""}),
            (ops.check_clocks, "no steady clock", {"awake_seconds": iter([2.0, 1.0]).__next__}),
            (ops.check_locks, "locks do not exclude each other", {"try_lock": lambda path: os.open(os.devnull, os.O_RDONLY)}),
            (ops.check_writes, "shows its old content", {"read_file": lambda path: b"old"}),
            (ops.check_state, "does not come back as it was saved", {"migrate_v1": lambda raw: {"version": 2}}),
            (ops.check_gate, "a tick ran a write, or did not refuse it", {"refuse_entry": lambda *args: (nothing for nothing in ())}),
        ):
            with self.subTest(words):
                self.assertIn(words, "".join(self.found(check, **broken)[:1]))

    def test_every_rule_of_the_table_can_fail(self):
        whole = ops.decide_long
        for key in ("resume.now", "resume.unknown", "resume.held", "incident.opened", "report.first", "report.quiet_hours", "incident.reminder",
                    "incident.resolved"):  # fmt: skip

            def without(*args, key=key):
                decision = whole(*args)
                return decision._replace(reasons={topic: reason for topic, reason in decision.reasons.items() if reason.key != key})

            with self.subTest(key):
                self.assertIn(f"expected {key}, found nothing", "".join(self.found(ops.check_decisions, decide_long=without)))

    def test_processes_that_are_left_and_codes_that_are_lost(self):
        marker = "doctor-" + ops.new_id()
        self.addCleanup(lambda: [ops.end_one(pid, signal.SIGKILL) for pid in ops.marked_processes(marker)])
        said = self.found(ops.check_processes, strays=lambda *args: [], new_id=lambda: marker)
        self.assertEqual([text.partition(":")[0] for text in said], ["a command that hangs was not ended with all it started"])
        said = "".join(self.found(ops.check_processes, Outcome=lambda *args: Lost(0, args[5], args[6], args[3])))
        self.assertIn("a command's exit code or output was lost: 0", said)
        self.assertIn("a killed command does not show as killed: 0", said)

    def test_a_check_that_meets_an_error_names_the_place(self):
        house = House(self)

        def no_space(path, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with mock.patch.object(ops, "write_durably", no_space):
            ran = house.call("selftest")
        self.assertEqual(ran.code, 1)
        self.assertRegex(ran.err, rf"(?m)^error: cannot work in {re.escape(os.path.dirname(house.state_file))}: no space left on device$")
        self.assertNotIn("OK", ran.out)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Lost(NamedTuple):
    """An outcome whose code was lost."""

    code: int
    out: bytes
    err: bytes
    timed_out: bool


if __name__ == "__main__":
    unittest.main()
