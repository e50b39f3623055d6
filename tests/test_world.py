"""WORLD: clock, files, locks, the state file, processes, HTTP. The real thing, small."""

import contextlib
import errno
import fcntl
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

from tests import botapi, ops

SH = "/bin/sh"
IS_ROOT = os.geteuid() == 0
HAS_PROC = os.path.isdir("/proc/self")
ON_LINUX = unittest.skipUnless(HAS_PROC, "reads /proc")


class Case(unittest.TestCase):
    """A directory of its own, and a process that is as before."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.top = os.path.realpath(holder.name)
        visit = contextlib.ExitStack()
        visit.enter_context(botapi.guest())
        self.addCleanup(visit.close)

    def path(self, *names):
        return os.path.join(self.top, *names)

    def write(self, name, data=b"", mode=0o600):
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode("utf-8"))
        os.chmod(path, mode)
        return path

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not ops.is_zombie(pid)


def is_gone_soon(pid):
    """A killed process takes a moment to leave, and its new parent a moment to bury it."""
    until = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_alive(pid)


class Broken:
    """A `reach` that fails at its n-th call, by `error`; it counts all of them."""

    def __init__(self, error=None, at=-1):
        self.error, self.at, self.steps = error, at, []

    def __call__(self, step):
        self.steps.append(step)
        if len(self.steps) - 1 == self.at:
            raise self.error


class Killed(BaseException):
    """The power went."""


# ---- processes


class Processes(Case):
    def command(self, script, timeout=30.0, **more):
        argv = [SH, "-c", script] if isinstance(script, str) else script
        more.setdefault("env", {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": self.top})
        return ops.Command(argv, more.pop("cwd", self.top), more.pop("env"), timeout, **more)

    def pool_of(self, commands, parallel=8):
        pool = ops.Pool(parallel, ops.Clock().now)
        for number, command in enumerate(commands):
            pool.add(command, number)
        return pool

    def collect(self, pool):
        ended = {}
        until = time.monotonic() + 60
        while pool.busy and time.monotonic() < until:
            for token, outcome in pool.wait(5.0):
                self.assertNotIn(token, ended)
                ended[token] = outcome
        self.assertFalse(pool.busy)
        return ended

    def run_all(self, *commands, parallel=16):
        ended = self.collect(self.pool_of(commands, parallel))
        self.assertEqual(sorted(ended), list(range(len(commands))))
        return [ended[number] for number in range(len(commands))]

    def run_one(self, script, **more):
        return self.run_all(self.command(script, **more))[0]


def words(outcome):
    phrase = ops.outcome_phrase(outcome)
    return "" if phrase is None else ops.phrase_text("en", phrase)


class HowACommandEnds(Processes):
    # (sentence, script, code, words)
    ENDS = [
        ("good", "exit 0", 0, ""),
        ("failed", "exit 3", 3, "exit code 3"),
        ("a program that cannot be executed", "exit 126", 126, "could not be executed"),
        ("a program that is not found", "exit 127", 127, "was not found"),
        ("the highest code", "exit 255", 255, "255"),
        ("ended by TERM", "kill -TERM $$", -signal.SIGTERM, "SIGTERM"),
        ("ended by KILL", "kill -KILL $$", -signal.SIGKILL, "SIGKILL"),
        ("ended by a fault", "ulimit -c 0; kill -SEGV $$", -signal.SIGSEGV, "SIGSEGV"),
        ("a broken pipe ends it, although Python ignores that signal", "kill -PIPE $$", -signal.SIGPIPE, "SIGPIPE"),
    ]

    def test_exit_codes_and_signals_are_told_in_words(self):
        outcomes = self.run_all(*(self.command(script) for _, script, _, _ in self.ENDS))
        for (sentence, _, code, told), outcome in zip(self.ENDS, outcomes):
            with self.subTest(sentence):
                self.assertEqual((outcome.code, outcome.timed_out, outcome.failure, outcome.is_good), (code, False, None, code == 0))
                self.assertIn(told, words(outcome))

    def test_what_cannot_be_started_says_why(self):
        denied = self.write("denied", "#!/bin/sh\n", 0o644)
        lost = self.write("lost", "#!/no/such/interpreter\n", 0o755)
        shapeless = self.write("shapeless", "echo no first line\n", 0o755)
        table = [
            ("no such program on the PATH", ["no-such-program-of-ours"], {}, "run.missing"),
            ("no such file", ["/no/such/file"], {}, "run.missing"),
            ("a file in place of a directory", [denied + "/x"], {}, "run.missing"),
            ("no such directory", [SH, "-c", "exit 0"], {"cwd": self.path("gone")}, "run.no_cwd"),
            ("a directory that is a file", [SH, "-c", "exit 0"], {"cwd": denied}, "run.no_cwd"),
            ("not executable", [denied], {}, "run.denied"),
            ("not executable, on the PATH", ["denied"], {"env": {"PATH": self.top}}, "run.denied"),
            ("a directory", [self.top], {}, "run.denied"),
            ("an interpreter that is not there", [lost], {}, "run.no_interpreter"),
            ("no interpreter is named", [shapeless], {}, "run.no_interpreter"),
            ("no name at all", [""], {}, "run.missing"),
            ("a NUL in an argument", [SH, "-c", "a\0b"], {}, "run.cannot"),
            ("an argument that is too long", [SH, "-c", "x" * (3 << 20)], {}, "run.cannot"),
        ]
        outcomes = self.run_all(*(self.command(argv, **more) for _, argv, more, _ in table))
        for (sentence, argv, _, key), outcome in zip(table, outcomes):
            with self.subTest(sentence):
                self.assertIsNone(outcome.code)
                self.assertEqual(outcome.failure.key, key, outcome.failure)
                self.assertNotIn("{", words(outcome))
                self.assertFalse(outcome.is_good)
                if key in ("run.missing", "run.denied") and argv[0]:
                    self.assertIn(argv[0], words(outcome))

    def test_a_relative_program_is_looked_for_in_the_jobs_directory(self):
        os.mkdir(self.path("sub"))
        self.write("sub/mine", "#!/bin/sh\necho here: $0\n", 0o755)
        for argv, more in ((["./mine"], {}), (["mine"], {"env": {"PATH": "."}}), (["../sub/mine"], {})):
            outcome = self.run_one(argv, cwd=self.path("sub"), **more)
            self.assertEqual((outcome.code, outcome.out[:5]), (0, b"here:"), (argv, outcome))

    def test_an_argument_may_hold_any_other_byte(self):
        odd = "汉 \t\"'\\ $x\n\udcff"
        outcome = self.run_one([SH, "-c", 'printf %s "$1"', "sh", odd])
        self.assertEqual(outcome.out, os.fsencode(odd))

    def test_output_that_is_no_text_is_made_harmless_and_kept_as_it_was(self):
        outcome = self.run_one(r"printf 'a\377\376b\033[31mred\000\r\nend'; printf 'e\300' >&2")
        self.assertEqual((outcome.out, outcome.err), (b"a\xff\xfeb\x1b[31mred\0\r\nend", b"e\xc0"))
        self.assertEqual(ops.Redactor().read(outcome.out), "a\ufffd\ufffdbred\nend")

    def test_standard_input_is_empty(self):
        self.write("ours", b"our own input\n")
        with open(self.path("ours")) as file:
            kept = os.dup(0)
            os.dup2(file.fileno(), 0)
            try:
                self.assertEqual(self.run_one("cat; echo end").out, b"end\n")
            finally:
                os.dup2(kept, 0)
                os.close(kept)

    def test_standard_input_is_what_is_sent_through_it(self):
        text = b"x" * 200000 + "汉\n".encode()
        self.assertEqual(self.run_one("wc -c", stdin=text).out.split(), [str(len(text)).encode()])

    @ON_LINUX
    def test_a_child_leads_its_own_session_and_gets_no_descriptor_of_ours(self):
        lock = ops.try_lock(self.path("locks", "a.lock"))
        self.addCleanup(os.close, lock)
        who = "read -r pid name state parent group session rest < /proc/$$/stat; echo $group $session $$"
        outcome = self.run_one("for fd in /proc/$$/fd/*; do readlink $fd; done; " + who)
        lines = outcome.out.decode().splitlines()
        group, session, pid = lines.pop().split()
        self.assertEqual((group, session), (pid, pid))
        self.assertEqual(lines[0], "/dev/null")
        self.assertNotIn(self.top, "\n".join(lines).replace(self.path("gone"), ""))

    def test_a_signal_that_is_blocked_here_is_not_blocked_there(self):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self.assertEqual(self.run_one("kill -USR1 $$; echo alive").code, -signal.SIGUSR1)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def test_output_may_go_to_a_file_which_what_stays_behind_can_still_write_to(self):
        log, gate = self.path("start.log"), self.path("gate")
        os.mkfifo(gate)
        outcome = self.run_one(f"echo out; echo err >&2; {{ read -r x < '{gate}'; echo later; }} & exit 0", log=log)
        self.assertEqual((outcome.code, outcome.out), (0, b""))
        with open(gate, "w") as file:
            file.write("go\n")
        until = time.monotonic() + 10
        while self.read("start.log") != b"out\nerr\nlater\n" and time.monotonic() < until:
            time.sleep(0.01)
        self.assertEqual(self.read("start.log"), b"out\nerr\nlater\n")
        self.assertEqual(stat.S_IMODE(os.stat(log).st_mode), 0o600)

    def test_what_keeps_the_pipe_is_not_waited_for_and_not_ended(self):
        outcome = self.run_one("sleep 60 & echo $!; echo said")
        pid = int(outcome.out.split()[0])
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertEqual((outcome.code, outcome.timed_out, outcome.out.split()[1]), (0, False, b"said"))
        self.assertTrue(is_alive(pid))

    def test_a_child_that_closes_its_output_is_still_waited_for(self):
        outcome = self.run_one("echo said; exec >&- 2>&-; sleep 0.1; exit 7")
        self.assertEqual((outcome.code, outcome.out), (7, b"said\n"))


class TimeOut(Processes):
    @classmethod
    def setUpClass(cls):
        cls.has_setsid = bool(shutil.which("setsid"))

    def test_what_outlasts_its_time_is_ended_with_all_that_it_started(self):
        table = [
            ("it sleeps", "echo $$; sleep 60", 1),
            ("it ignores TERM", "trap '' TERM; echo $$; while :; do sleep 0.05; done", 1),
            ("its child ignores TERM and it does not", "(trap '' TERM; while :; do sleep 0.05; done) & echo $$ $!; wait", 2),
            ("it closed its outputs", "echo $$; exec >&- 2>&-; sleep 60", 1),
            ("it never stops talking", "echo $$; while :; do echo talk; done", 1),
            ("it waits in the background", "sleep 60 & echo $$ $!; sleep 60", 2),
        ]
        if HAS_PROC and self.has_setsid:
            table.append(("a child of it left the group", "setsid sleep 60 & echo $$ $!; wait", 2))
            table.append(("a child left the group and it ended at TERM", "setsid sh -c 'trap \"\" TERM; sleep 60; sleep 60' & echo $$ $!; wait", 2))
        commands = [self.command(script, 0.8, marker=f"timeout-{os.getpid()}-{number}") for number, (_, script, _) in enumerate(table)]
        with mock.patch.object(ops, "GRACE", 0.3):
            outcomes = self.run_all(*commands)
        for (sentence, _, count), outcome in zip(table, outcomes):
            with self.subTest(sentence):
                self.assertTrue(outcome.timed_out)
                self.assertFalse(outcome.is_good)
                self.assertIn("took longer than", words(outcome))
                pids = [int(word) for word in outcome.out.split(b"\n", 1)[0].split()]
                self.assertEqual(len(pids), count, "it did not come to begin")
                for pid in pids:
                    self.assertTrue(is_gone_soon(pid), "it lives on")

    def test_the_pool_ends_what_runs_when_the_program_is_interrupted(self):
        pool = ops.Pool(2, ops.Clock().now)
        for number in range(4):
            pool.add(self.command(f"echo $$ > pid{number}; trap '' TERM; while :; do sleep 0.05; done"), number)
        until = time.monotonic() + 20
        while not all(os.path.exists(self.path(f"pid{number}")) and self.read(f"pid{number}") for number in range(2)) and time.monotonic() < until:
            pool.wait(0.02)
        with mock.patch.object(ops, "GRACE", 0.1):
            pool.end_all()
        self.assertTrue(is_gone_soon(int(self.read("pid0"))) and is_gone_soon(int(self.read("pid1"))))
        self.assertFalse(os.path.exists(self.path("pid2")), "one more was started")

    def test_time_in_which_we_did_not_listen_is_not_counted(self):
        pool = ops.Pool(2, ops.Clock().now)
        pool.add(self.command("read -r x < gate; exit 5", 0.3), "it")
        os.mkfifo(self.path("gate"))
        self.assertEqual(pool.wait(0.0), [])
        pool.forgive(1000.0)
        time.sleep(0.35)
        self.assertEqual(pool.wait(0.0), [])
        with open(self.path("gate"), "w") as file:
            file.write("go\n")
        ended = pool.wait(20)
        self.assertEqual([(token, outcome.code, outcome.timed_out) for token, outcome in ended], [("it", 5, False)])


class ManyCommands(Processes):
    def test_at_most_so_many_run_at_once_and_all_come_back(self):
        script = "echo + >> runs; sleep 0.03; echo - >> runs"
        for parallel in (1, 3):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path("runs"))
            self.run_all(*(self.command(script) for _ in range(9)), parallel=parallel)
            running, most = 0, 0
            for mark in self.read("runs").split():
                running += 1 if mark == b"+" else -1
                most = max(most, running)
            self.assertLessEqual(most, parallel)
            self.assertEqual(running, 0)

    def test_a_slow_command_does_not_hold_back_the_others(self):
        os.mkfifo(self.path("gate"))
        for slow_at in (0, 3):
            pool = ops.Pool(8, ops.Clock().now)
            for number in range(4):
                pool.add(self.command("read -r x < gate; echo slow" if number == slow_at else "exit 0"), number)
            ended = []
            while len(ended) < 3:
                ended += pool.wait(10)
            self.assertNotIn(slow_at, dict(ended))
            with open(self.path("gate"), "w") as file:
                file.write("go\n")
            self.assertEqual([(token, outcome.out) for token, outcome in pool.wait(10)], [(slow_at, b"slow\n")])
            self.assertFalse(pool.busy)

    def test_one_that_cannot_be_started_takes_nothing_from_the_others(self):
        commands = [self.command("exit 4") if number % 2 else self.command(["/no/such"]) for number in range(20)]
        outcomes = self.run_all(*commands, parallel=2)
        self.assertEqual([outcome.code for outcome in outcomes], [None, 4] * 10)

    def test_outputs_are_not_mixed_up(self):
        outcomes = self.run_all(*(self.command(f"for i in 1 2 3; do echo {number}; echo e{number} >&2; done") for number in range(24)), parallel=24)
        for number, outcome in enumerate(outcomes):
            self.assertEqual((outcome.out, outcome.err), (f"{number}\n".encode() * 3, f"e{number}\n".encode() * 3))

    def test_a_pool_without_work_comes_back_at_once(self):
        pool = ops.Pool(4, ops.Clock().now)
        self.assertEqual((pool.wait(3600.0), pool.busy), ([], False))

    def test_no_descriptor_is_left_open(self):
        pool = ops.Pool(4, ops.Clock().now)
        for number in range(4):
            pool.add(self.command("exit 0"), number)
        while pool.busy:
            pool.wait(5)
        before = len(os.listdir("/dev/fd"))
        commands = [self.command("exit 0"), self.command(["/no/such"]), self.command("cat", stdin=b"x"), self.command("sleep 60 & echo $!")]
        for number, command in enumerate([*commands, self.command("echo x", log=self.path("log"))]):
            pool.add(command, number)
        ended = {}
        while pool.busy:
            ended.update(pool.wait(5))
        os.kill(int(ended[3].out), signal.SIGKILL)
        self.assertEqual(len(os.listdir("/dev/fd")), before)


LOOKER = """
import importlib.util, os, sys
loaded = importlib.util.spec_from_file_location("ops", sys.argv[1])
ops = importlib.util.module_from_spec(loaded)
sys.modules["ops"] = ops
loaded.loader.exec_module(ops)
held = ops.try_lock(sys.argv[2] + "/lock")
ops.SHARED_LOOKS = 10, 20
pool = ops.Pool(8, ops.Clock().now)
for number in range(20):
    pool.add(ops.Command(["/bin/sh", "-c", "echo $$ >> pids; exec sleep 60"], sys.argv[2], {"PATH": "/usr/bin:/bin"}, 60.0, is_look=True), number)
pool.wait(60.0)
"""


@unittest.skipUnless(ops.can_share(), "one CPU, or not Linux")
class LooksFromTwoProcesses(Processes):
    """Many looks are shared with a fork; nobody notices but the clock."""

    def setUp(self):
        super().setUp()
        patched = mock.patch.object(ops, "SHARED_LOOKS", (10, 20))
        patched.start()
        self.addCleanup(patched.stop)

    def look(self, script, timeout=30.0, **more):
        return self.command(script, timeout, is_look=True, **more)

    def pids(self, count):
        """The pids in the file `pids`, once there are so many."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                found = self.read("pids").split()
                if len(found) >= count:
                    return list(map(int, found))
            time.sleep(0.01)
        raise AssertionError("they were not started")

    def test_every_outcome_is_what_one_process_would_have_seen(self):
        kinds = [
            lambda number: self.look(f"echo {number}; echo e{number} >&2; exit {number % 3}"),
            lambda number: self.look(["/no/such"]),
            lambda number: self.look("exit 0", cwd=self.path("nowhere")),
            lambda number: self.look(f"kill -9 $$; echo {number}"),
            lambda number: self.look("sleep 60", timeout=0.05, is_strict=True),
            lambda number: self.look(f"echo 'ALERT {number}'; head -c 70000 /dev/zero; echo end", patterns=("ALERT",)),
        ]
        commands = [kinds[number % len(kinds)](number) for number in range(48)]

        def seen(outcomes):
            return [outcome._replace(began=None, ended=None) for outcome in outcomes]

        with mock.patch.object(ops, "can_share", return_value=False):
            alone = seen(self.run_all(*commands))
        with mock.patch.object(ops.Share, "receive", autospec=True, side_effect=ops.Share.receive) as receive:
            shared = self.run_all(*commands)
        self.assertGreater(receive.call_count, 1, "nothing came from the fork")
        self.assertEqual(seen(shared), alone)
        for outcome in shared:
            self.assertIsInstance(outcome.ended, ops.Instant)
            self.assertLessEqual(outcome.began.at, outcome.ended.at)

    def test_both_processes_take_part_and_what_is_no_look_stays_here(self):
        commands = [self.look("echo $PPID; sleep 0.02") if number % 2 else self.command("echo $PPID") for number in range(60)]
        parents = [outcome.out for outcome in self.run_all(*commands)]
        ours = b"%d\n" % os.getpid()
        self.assertEqual(set(parents[::2]), {ours})
        self.assertEqual(len(set(parents[1::2])), 2)
        self.assertIn(ours, parents[1::2])

    def test_at_most_so_many_run_at_once(self):
        script = "echo + >> runs; sleep 0.03; echo - >> runs"
        self.run_all(*(self.look(script) for _ in range(24)), parallel=5)
        running, most = 0, 0
        for mark in self.read("runs").split():
            running += 1 if mark == b"+" else -1
            most = max(most, running)
        self.assertLessEqual(most, 5)
        self.assertGreater(most, 2)

    def test_few_looks_one_at_a_time_or_one_cpu_are_no_reason_to_fork(self):
        for commands, parallel, can_share in ((9, 8, True), (30, 1, True), (30, 8, False)):
            no_fork = mock.patch.object(os, "fork", side_effect=AssertionError)
            with self.subTest(commands=commands, parallel=parallel), mock.patch.object(ops, "can_share", return_value=can_share), no_fork:
                self.run_all(*(self.look("exit 0") for _ in range(commands)), parallel=parallel)

    def test_without_another_process_to_be_had_this_one_does_it_alone(self):
        self.run_all(self.look("exit 0"))
        before = len(os.listdir("/dev/fd"))
        with mock.patch.object(os, "fork", side_effect=OSError(errno.EAGAIN, "too many")):
            outcomes = self.run_all(*(self.look(f"exit {number}") for number in range(30)))
        self.assertEqual([outcome.code for outcome in outcomes], list(range(30)))
        self.assertEqual(len(os.listdir("/dev/fd")), before + 2)

    def test_what_a_lost_fork_had_taken_is_looked_at_once_more(self):
        pool = self.pool_of([self.look(f"echo {number}; sleep 0.05") for number in range(30)])
        early = pool.wait(5.0)
        os.kill(pool.share.pid, signal.SIGKILL)
        ended = {**dict(early), **self.collect(pool)}
        self.assertEqual([ended[number].out for number in range(30)], [b"%d\n" % number for number in range(30)])
        self.assertFalse(pool.may_share, "a machine that ends forks is not asked again")

    def test_a_fork_that_hangs_is_not_waited_for(self):
        with mock.patch.object(ops, "GRACE", 0.1):
            pool = self.pool_of([self.look(f"echo {number}; sleep 0.02", 0.3) for number in range(30)])
            ended = dict(pool.wait(5.0))
            fork = pool.share.pid
            os.kill(fork, signal.SIGSTOP)
            ended.update(self.collect(pool))
        self.assertEqual([ended[number].out for number in range(30)], [b"%d\n" % number for number in range(30)])
        self.assertFalse(is_alive(fork))

    def test_half_a_message_of_a_lost_fork_is_none(self):
        share = mock.Mock(spec=ops.Share, begun=b"", patience=1.0, looks={7: ("command", "token")})
        share.source, sink = os.pipe()
        os.write(sink, (100).to_bytes(4, "big") + b"half")
        self.assertEqual(ops.Share.receive(share), [])
        os.close(sink)
        self.assertIsNone(ops.Share.receive(share))
        self.assertEqual(share.looks, {7: ("command", "token")})
        os.close(share.source)

    def test_an_interrupted_program_ends_the_fork_and_its_commands(self):
        before = len(os.listdir("/dev/fd"))
        pool = self.pool_of([self.look("echo $$ >> pids; exec sleep 60") for _ in range(20)])
        self.assertEqual(pool.wait(0.0), [])
        pids, fork = self.pids(8), pool.share.pid
        pool.end_all()
        for pid in (*pids, fork):
            self.assertTrue(is_gone_soon(pid), "it lives on")
        self.assertEqual(len(self.read("pids").split()), 8, "one more was started")
        self.assertFalse(pool.waiting or pool.children or pool.share)
        self.assertEqual(len(os.listdir("/dev/fd")), before + 2, "the pipe that tells of exits stays, no other")

    def test_a_fork_told_to_end_ends_its_commands_first(self):
        pool = self.pool_of([self.look("echo $$ >> pids; exec sleep 60") for _ in range(20)], parallel=4)
        pool.wait(0.0)
        self.pids(4)
        os.kill(pool.share.pid, signal.SIGTERM)
        until = time.monotonic() + 20
        while pool.share and time.monotonic() < until:
            pool._pump(0.1)
        self.assertEqual(sum(map(is_alive, self.pids(4))), 2, "those of this process run on")
        self.assertEqual(len(pool.waiting), 18, "what nobody has seen is to be looked at once more")
        pool.end_all()

    def test_while_nobody_listens_to_the_fork_its_looks_are_not_charged_for_it(self):
        pool = self.pool_of([self.look("head -c 50000 /dev/zero"), self.look("sleep 0.05; head -c 300000 /dev/zero", 0.4)] * 10, parallel=16)
        pool.wait(0.0)
        time.sleep(0.8)
        pool.forgive(0.8)
        self.assertEqual([token for token, outcome in self.collect(pool).items() if outcome.timed_out], [])

    def test_no_descriptor_is_left_open_and_no_fork(self):
        self.run_all(*(self.look("exit 0") for _ in range(30)))
        before = len(os.listdir("/dev/fd"))
        pool = self.pool_of([self.look("exit 0") for _ in range(30)])
        pool.wait(5.0)
        fork = pool.share.pid
        self.collect(pool)
        self.assertFalse(os.path.exists(f"/proc/{fork}"))
        self.assertEqual(len(os.listdir("/dev/fd")), before + 2)

    def test_a_killed_program_leaves_no_lock_and_its_fork_goes_with_the_next_answer(self):
        tick = subprocess.Popen([sys.executable, "-c", LOOKER, ops.__file__, self.top])
        pids = self.pids(8)
        fork = next(int(name) for name in filter(str.isdigit, os.listdir("/proc")) if ops.process_fields(int(name))[1:2] == [b"%d" % tick.pid] and int(name) not in pids)
        tick.kill()
        tick.wait()
        held = ops.try_lock(self.path("lock"))
        self.assertIsNotNone(held, "the fork holds it")
        os.close(held)
        theirs = [pid for pid in pids if ops.process_fields(pid)[1:2] == [b"%d" % fork]]
        self.assertEqual(len(theirs), 4)
        os.kill(theirs[0], signal.SIGKILL)
        for pid in (fork, *theirs):
            self.assertTrue(is_gone_soon(pid), "it lives on")
        for pid in set(pids) - set(theirs):
            os.kill(pid, signal.SIGKILL)


class MuchOutput(Processes):
    def test_64_mib_are_read_to_the_end_and_kept_as_head_and_tail(self):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = 64 << 20
        outcome = self.run_one(f"echo first; head -c {size} /dev/zero; echo; echo last")
        self.assertEqual((outcome.code, outcome.out_size), (0, size + len("first\n\nlast\n")))
        self.assertTrue(outcome.out.startswith(b"first\n") and outcome.out.endswith(b"\nlast\n"))
        self.assertLess(len(outcome.out), ops.HEAD_KEPT + ops.TAIL_KEPT + 100)
        self.assertIn(b"bytes left out", outcome.out)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        self.assertLess(grown, (24 << 20) if sys.platform == "darwin" else (24 << 10))

    def test_what_fits_is_kept_whole_and_the_gap_is_counted_right(self):
        room = ops.HEAD_KEPT + ops.TAIL_KEPT
        for size in (0, 1, ops.HEAD_KEPT, ops.HEAD_KEPT + 1, room, room + 1, room + 5000):
            whole = b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]
            for chunk in (1000, 65536):
                stream = ops.Stream(ops.HEAD_KEPT, None)
                for start in range(0, size, chunk):
                    stream.feed(whole[start : start + chunk])
                kept = stream.kept()
                with self.subTest(size=size, chunk=chunk):
                    self.assertEqual(stream.size, size)
                    if size <= room:
                        self.assertEqual(kept, whole)
                        continue
                    head, gap, tail = kept[: ops.HEAD_KEPT], kept[ops.HEAD_KEPT :].split(b"\n")[1], kept.split(b"left out ...]\n")[1]
                    self.assertTrue(whole.startswith(head) and whole.endswith(tail) and len(tail) > ops.TAIL_KEPT - 10)
                    self.assertEqual(int(gap.split()[1]), size - len(head) - len(tail))

    def test_the_head_may_be_asked_for_whole(self):
        outcome = self.run_one(f"head -c {1 << 20} /dev/zero", head=1 << 20)
        self.assertEqual(outcome.out, b"\0" * (1 << 20))

    def test_a_pattern_on_the_first_of_many_lines_is_found_on_either_output(self):
        noise = "i=0; while [ $i -lt 9000 ]; do echo noise-noise-noise; i=$((i+1)); done"
        for place in ("1", "2"):
            outcome = self.run_one(f"{{ echo 'ALERT: disk'; {noise}; }} >&{place}", patterns=("ALERT", "ACTION REQUIRED"))
            self.assertEqual(outcome.attention, (b"ALERT: disk",))

    def test_lines_of_both_outputs_are_kept_up_to_twenty(self):
        outcome = self.run_one("for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do echo ALERT $i; echo ALERT $i >&2; done", patterns=("ALERT",))
        self.assertEqual(len(outcome.attention), 20)


class Environment(Processes):
    def test_the_path_is_completed_and_keeps_its_order(self):
        made = ops.child_environment({"PATH": "/usr/local/bin:/opt/mine", "A": "1"}, "/home/ann", {})
        self.assertEqual(made["PATH"].split(":"), ["/usr/local/bin", "/opt/mine", "/home/ann/.local/bin", "/opt/homebrew/bin"])
        self.assertEqual((made["HOME"], made["A"]), ("/home/ann", "1"))
        self.assertEqual(ops.child_environment({}, "/h", {})["PATH"].split(":")[:2], ["/usr/bin", "/bin"])

    def test_what_the_job_declares_comes_last(self):
        made = ops.child_environment({"PATH": "/usr/bin", "A": "1", "HOME": "/h"}, "/x", {"A": "2", "PATH": "/only", "HOME": "/y"})
        self.assertEqual((made["A"], made["PATH"], made["HOME"]), ("2", "/only", "/y"))

    def test_what_is_installed_for_the_user_is_found_under_crons_path(self):
        os.makedirs(self.path(".local", "bin"))
        self.write(".local/bin/mine", "#!/bin/sh\necho mine\n", 0o755)
        env = ops.child_environment({"PATH": "/usr/bin:/bin"}, self.top, {})
        self.assertEqual(self.run_one(["mine"], env=env).out, b"mine\n")
        self.assertEqual(self.run_one("mine", env=env).out, b"mine\n")

    def test_the_marker_is_in_the_environment(self):
        self.assertEqual(self.run_one(f'echo "${ops.RUN_MARK}"', marker="m-1").out, b"m-1\n")

    @ON_LINUX
    def test_marked_processes_are_found_by_the_whole_marker_alone(self):
        mark = f"mark-{os.getpid()}"
        outcome = self.run_one("sleep 60 & echo $!", marker=mark)
        pid = int(outcome.out)
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        self.assertEqual(ops.marked_processes(mark), [pid])
        for other in ("", mark[:-1], mark + "0", "0" + mark):
            self.assertEqual(ops.marked_processes(other), [])

    def test_what_a_command_says_in_many_lines_is_quick_to_ask_for(self):
        self.assertEqual(ops.quick_output([SH, "-c", "echo a; echo b"]), "a\nb\n")
        self.assertRaises(OSError, ops.quick_output, ["/no/such/program"])


class Identity(Case):
    def child(self, *argv):
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.stdin.close)
        return process

    def test_the_start_of_a_process_stays_the_same_and_ends_with_it(self):
        process = self.child("/bin/cat")
        began = ops.process_start(process.pid)
        self.assertTrue(began)
        self.assertEqual(ops.process_start(process.pid), began)
        process.stdin.close()
        process.wait()
        self.assertEqual(ops.process_start(process.pid), "")

    @ON_LINUX
    def test_a_process_may_be_called_what_it_likes(self):
        odd = self.path("a) S 1 (b")
        shutil.copy("/bin/sleep" if os.path.exists("/bin/sleep") else shutil.which("sleep"), odd)
        os.chmod(odd, 0o755)
        process = subprocess.Popen([odd, "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertTrue(ops.process_start(process.pid).isdigit())
        self.assertFalse(ops.is_zombie(process.pid))

    @ON_LINUX
    def test_a_process_that_ended_and_is_not_yet_buried_is_a_zombie(self):
        process = self.child("/bin/cat")
        self.assertFalse(ops.is_zombie(process.pid))
        process.stdin.close()
        until = time.monotonic() + 10
        while not ops.is_zombie(process.pid) and time.monotonic() < until:
            time.sleep(0.005)
        self.assertTrue(ops.is_zombie(process.pid))
        process.wait()
        self.assertFalse(ops.is_zombie(process.pid))

    def test_this_boot_has_a_name_and_the_awake_clock_does_not_go_back(self):
        self.assertEqual(ops.boot_identity(), ops.boot_identity())
        if HAS_PROC:
            self.assertTrue(ops.boot_identity())
        first = ops.awake_seconds()
        self.assertGreaterEqual(ops.awake_seconds(), first)


# ---- attention


LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


def places(text, patterns):
    """Reference: where a pattern stands as a whole word in the whole text."""
    found = []
    for pattern in patterns:
        start = text.find(pattern)
        while start >= 0:
            before, after = text[start - 1 : start] if start else b"", text[start + len(pattern) : start + len(pattern) + 1]
            if not any(letter and letter in LETTERS for letter in (before, after)):
                found.append(start)
            start = text.find(pattern, start + 1)
    return found


def matching_lines(text, patterns):
    return [line for line in text.split(b"\n") if places(line, patterns)]


def attend(patterns, chunks):
    attention = ops.Attention(pattern.decode() for pattern in patterns)
    for chunk in chunks:
        attention.feed(chunk)
    attention.end()
    return attention.lines


class WhatNeedsAttention(unittest.TestCase):
    PATTERNS = (b"ACTION REQUIRED", b"ALERT")
    # (line, whether it is whole words)
    LINES = [
        ("ALERT", True),
        ("⚠️ ALERT: disk", True),
        ("12:00 ACTION REQUIRED", True),
        ("[ALERT]", True),
        ("ALERT,ALERT", True),
        ("no ALERTS then ALERT", True),
        ("汉ALERT汉", True),
        ("ALERTS: 0", False),
        ("0 ALERTS", False),
        ("alert", False),
        ("Alert", False),
        ("ALERT_COUNT=0", False),
        ("REALERT", False),
        ("ALERT2", False),
        ("_ALERT", False),
        ("ACTION  REQUIRED", False),
        ("ACTION REQUIREDS", False),
        ("", False),
    ]

    def test_only_whole_capital_words_count(self):
        for line, is_found in self.LINES:
            with self.subTest(line):
                raw = line.encode()
                self.assertEqual(attend(self.PATTERNS, [raw]), [raw] if is_found else [])
                self.assertEqual(attend(self.PATTERNS, [b"before\n" + raw + b"\nafter\n"]), [raw] if is_found else [])

    def test_where_the_stream_is_cut_does_not_matter(self):
        text = "ALERTS\nan ALERT here\nXALERT\nACTION REQUIRED\n⚠️ ALERT".encode()
        wanted = matching_lines(text, self.PATTERNS)
        self.assertEqual(len(wanted), 3)
        for first in range(len(text) + 1):
            for second in range(first, len(text) + 1):
                found = attend(self.PATTERNS, [text[:first], text[first:second], text[second:]])
                self.assertEqual(found, wanted, (first, second))
        self.assertEqual(attend(self.PATTERNS, [text[place : place + 1] for place in range(len(text))]), wanted)

    def test_any_text_in_any_pieces_gives_the_lines_that_the_whole_text_gives(self):
        pieces = [b"ALERT", b"ACTION REQUIRED", b"ACTION ", b"REQUIRED", b"A", b"ERT", b"_", b" ", b"\n", b"S"]
        pieces += [b"\xff", b"AL", b"x" * 40, "汉".encode()]
        for seed in range(400):
            chance = random.Random(seed)
            text = b"".join(chance.choice(pieces) for _ in range(chance.randrange(60)))
            wanted = matching_lines(text, self.PATTERNS)
            if any(len(line) > 190 for line in wanted):
                continue
            cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(12)))
            found = attend(self.PATTERNS, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)])])
            self.assertEqual(found, wanted[:20], f"seed {seed}")

    def test_in_a_line_without_end_no_word_is_missed_and_none_is_invented(self):
        pieces = [b"ALERT", b"ALERTS", b"ACTION REQUIRED", b"_", b" ", b"REALERT ", b"x" * 700, b" " * 900, b"y" * 2040]
        for seed in range(300):
            chance = random.Random(seed)
            most = chance.choice((4, 12, 40))
            text = b"".join(chance.choice(pieces) for _ in range(chance.randrange(1, most)))
            if seed % 3 == 0:
                text = text.replace(b"ALERT ", b"A ").replace(b" ALERT", b" A")
            cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(20)))
            found = attend(self.PATTERNS, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)])])
            self.assertEqual(bool(found), bool(places(text, self.PATTERNS)), f"seed {seed}")
            for line in found:
                self.assertTrue(any(pattern in line for pattern in self.PATTERNS), f"seed {seed}")
                self.assertIn(line, text, f"seed {seed}")
                self.assertLessEqual(len(line), 600)

    def test_wherever_a_long_line_is_cut_its_words_stay_whole(self):
        for word in (b" ALERT ", b" ACTION REQUIRED.", b" ALERTS ", b" REALERT ", b"_ALERT ", b" ALERT_"):
            text = b"x" * 3000 + word + b"y" * 3000
            wanted = bool(places(text, self.PATTERNS))
            for place in range(2990, 3030):
                for pieces in ([text[:place], text[place:]], [text[:place], text[place : place + 1], text[place + 1 :]], [text[:place]]):
                    found = attend(self.PATTERNS, pieces)
                    if len(pieces) > 1:
                        self.assertEqual(len(found), int(wanted), (word, place))
                    else:
                        self.assertEqual(bool(found), bool(places(text[:place], self.PATTERNS)), (word, place))

    def test_a_word_far_into_a_long_line_is_shown_with_what_stands_around_it(self):
        text = b"-" * 100000 + b" ALERT disk full " + b"-" * 100000
        lines = attend(self.PATTERNS, [text[start : start + 65536] for start in range(0, len(text), 65536)])
        self.assertEqual(len(lines), 1)
        self.assertIn(b" ALERT disk full ", lines[0])

    def test_twenty_lines_are_kept_of_any_number(self):
        lines = attend(self.PATTERNS, [b"ALERT %d\n" % number for number in range(1000)])
        self.assertEqual(lines, [b"ALERT %d" % number for number in range(20)])

    def test_patterns_are_words_not_expressions_and_may_be_beyond_ascii(self):
        self.assertEqual(attend([b"A.C", "需要处理".encode()], ["ABC\nA.C\n请注意：需要处理。\n".encode()]), [b"A.C", "请注意：需要处理。".encode()])


# ---- files


class Files(Case):
    @contextlib.contextmanager
    def umask(self, mask):
        before = os.umask(mask)
        try:
            yield
        finally:
            os.umask(before)

    def mode(self, *names):
        return stat.S_IMODE(os.stat(self.path(*names)).st_mode)

    def test_what_is_made_is_private_whatever_the_umask(self):
        for mask in (0, 0o022, 0o777):
            name = f"m{mask:o}"
            with self.umask(mask):
                ops.make_private_dir(self.path(name, "a", "b"))
                os.close(ops.open_private(self.path(name, "a", "file"), os.O_WRONLY))
                ops.write_durably(self.path(name, "durable"), b"x")
                os.close(ops.try_lock(self.path(name, "locks", "l.lock")))
                store = ops.Store(self.path(name, "s", "state.json"), ops.Clock())
                store.change(lambda state: state.record("event"))
            with self.subTest(umask=oct(mask)):
                for made in ((), ("a",), ("a", "b"), ("locks",), ("s",), ("s", "state.locks")):
                    self.assertEqual(self.mode(name, *made), 0o700, made)
                for made in (("a", "file"), ("durable",), ("locks", "l.lock"), ("s", "state.json"), ("s", "state.history.jsonl")):
                    self.assertEqual(self.mode(name, *made), 0o600, made)

    def test_a_directory_that_is_there_is_left_as_it_is(self):
        os.mkdir(self.path("there"))
        os.chmod(self.path("there"), 0o755)
        ops.make_private_dir(self.path("there", "new"))
        self.assertEqual((self.mode("there"), self.mode("there", "new")), (0o755, 0o700))
        self.write("file")
        self.assertRaises(OSError, ops.make_private_dir, self.path("file", "x"))
        self.assertRaises(OSError, ops.make_private_dir, self.path("file"))

    def steps_of_writing(self):
        counter = Broken()
        self.write("file", b"old")
        with mock.patch.object(ops, "reach", counter):
            ops.write_durably(self.path("file"), b"new")
        self.assertEqual(self.read("file"), b"new")
        return len(counter.steps)

    def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(self):
        count = self.steps_of_writing()
        self.assertGreaterEqual(count, 4)
        for number in (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES):
            for at in range(count):
                self.write("file", b"old")
                with self.subTest(step=at, error=errno.errorcode[number]), mock.patch.object(ops, "reach", Broken(OSError(number, "x"), at)):
                    self.assertRaises(OSError, ops.write_durably, self.path("file"), b"new")
                    self.assertIn(self.read("file"), (b"old",) if at < count - 1 else (b"old", b"new"))
                    self.assertEqual(os.listdir(self.top), ["file"])

    def test_killed_while_writing_the_file_is_whole_and_the_next_write_succeeds(self):
        for at in range(self.steps_of_writing()):
            self.write("file", b"old")
            with mock.patch.object(ops, "reach", Broken(Killed(), at)):
                self.assertRaises(Killed, ops.write_durably, self.path("file"), b"new")
            self.assertIn(self.read("file"), (b"old", b"new"))
            self.assertLessEqual(len(os.listdir(self.top)), 2)
            ops.write_durably(self.path("file"), b"newer")
            self.assertEqual((self.read("file"), os.listdir(self.top)), (b"newer", ["file"]))

    def test_a_system_that_writes_a_little_at_a_time_is_asked_again(self):
        write = os.write
        with mock.patch.object(os, "write", lambda fd, data: write(fd, bytes(data[:7]))):
            ops.write_durably(self.path("file"), b"0123456789" * 20)
        self.assertEqual(self.read("file"), b"0123456789" * 20)

    def test_only_regular_files_are_read(self):
        os.mkfifo(self.path("fifo"))
        os.mkdir(self.path("dir"))
        os.symlink(self.path("dir"), self.path("to-dir"))
        os.symlink(self.path("nowhere"), self.path("dangling"))
        for path in (self.path("fifo"), self.path("dir"), self.path("to-dir"), self.path("dangling"), self.path("missing"), "/dev/null", "/dev/zero"):
            with self.subTest(path):
                self.assertRaises(OSError, ops.read_file, path)
        self.write("file", b"\xff\0x")
        os.symlink(self.path("file"), self.path("link"))
        self.assertEqual((ops.read_file(self.path("file")), ops.read_file(self.path("link"))), (b"\xff\0x", b"\xff\0x"))

    def test_what_is_too_large_is_refused_and_not_cut(self):
        self.write("file", b"x" * (2 << 20))
        self.assertEqual(len(ops.read_file(self.path("file"), 2 << 20)), 2 << 20)
        self.assertRaises(OSError, ops.read_file, self.path("file"), (2 << 20) - 1)

    def test_a_token_file_is_no_link(self):
        self.write("token", "secret words\n")
        os.symlink(self.path("token"), self.path("link"))
        os.mkfifo(self.path("fifo"))
        self.assertEqual(ops.read_secret_file(self.path("token")).strip(), "secret words")
        for name in ("link", "fifo", "missing"):
            self.assertRaises(OSError, ops.read_secret_file, self.path(name))


class WhomToTrust(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        os.makedirs(self.path("home", "net", "config"), 0o700)
        os.makedirs(self.path("home", "other"), 0o700)
        self.file = self.write("home/net/config/jobs.json", b"{}")

    def trust(self, path=None):
        return ops.check_trust(path or self.file, self.home)

    def test_what_only_we_can_write_is_trusted(self):
        self.assertEqual(self.trust(), ops.Trust())

    def test_what_everyone_can_write_is_refused_with_what_mends_it(self):
        for name in ("net/config/jobs.json", "net/config", "net", "."):
            path = os.path.normpath(self.path("home", name))
            before = stat.S_IMODE(os.stat(path).st_mode)
            os.chmod(path, before | 0o002)
            trust = self.trust()
            with self.subTest(name):
                self.assertIn(path, trust.refusal)
                self.assertEqual(trust.mend, f"chmod o-w {path}")
                subprocess.run(trust.mend.split(), check=True)
                self.assertEqual(self.trust(), ops.Trust())

    def test_the_sticky_bit_makes_a_directory_safe_and_a_file_not(self):
        os.chmod(self.path("home", "net"), 0o1777)
        self.assertEqual(self.trust(), ops.Trust())
        os.chmod(self.file, 0o1666)
        self.assertTrue(self.trust().refusal)

    def test_what_the_group_can_write_is_a_warning(self):
        for name in ("net/config/jobs.json", "net"):
            path = self.path("home", name)
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | 0o020)
            trust = self.trust()
            self.assertEqual(trust.refusal, "")
            self.assertIn(f"chmod g-w {path}", trust.doubt)
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~0o020)

    def test_above_home_nobody_looks(self):
        os.chmod(self.top, 0o777)
        self.assertEqual(self.trust(), ops.Trust())

    def test_outside_of_home_everything_up_to_the_root_counts(self):
        outside = self.write("jobs.json", b"{}")
        self.assertEqual(self.trust(outside).refusal, "")
        os.chmod(self.top, 0o777)
        self.assertIn(self.top, self.trust(outside).refusal)

    def test_a_link_is_judged_where_it_stands_and_where_it_leads(self):
        target = self.write("home/other/real.json", b"{}")
        link = self.path("home", "net", "config", "link.json")
        os.symlink(target, link)
        self.assertEqual(self.trust(link), ops.Trust())
        for name in ("net/config", "other", "other/real.json"):
            path = self.path("home", name)
            before = stat.S_IMODE(os.stat(path).st_mode)
            os.chmod(path, before | 0o002)
            trust = self.trust(link)
            with self.subTest(name):
                self.assertIn("can be written by everyone", trust.refusal)
                subprocess.run(trust.mend.split(), check=True)
                self.assertEqual(self.trust(link), ops.Trust())
            os.chmod(path, before)

    def test_a_link_on_the_way_of_a_link_is_judged_too(self):
        os.makedirs(self.path("home", "open", "door"))
        target = self.write("home/other/real.json", b"{}")
        os.symlink(target, self.path("home", "open", "door", "second.json"))
        link = self.path("home", "net", "config", "first.json")
        os.symlink(self.path("home", "open", "door", "second.json"), link)
        os.chmod(self.path("home", "open"), 0o777)
        self.assertIn(self.path("home", "open"), self.trust(link).refusal)

    @unittest.skipUnless(IS_ROOT, "only root can give a file away")
    def test_what_belongs_to_another_is_refused_with_what_mends_it(self):
        for name in ("net/config/jobs.json", "net/config", "."):
            path = os.path.normpath(self.path("home", name))
            os.chown(path, 54321, -1)
            trust = self.trust()
            with self.subTest(name):
                self.assertEqual(trust.refusal, f"{path} belongs to uid 54321")
                subprocess.run(trust.mend.split(), check=True)
                self.assertEqual(self.trust(), ops.Trust())

    @unittest.skipUnless(IS_ROOT, "only root can give a link away")
    def test_a_link_that_belongs_to_another_is_refused(self):
        target = self.write("home/other/real.json", b"{}")
        link = self.path("home", "net", "config", "link.json")
        os.symlink(target, link)
        os.lchown(link, 54321, -1)
        self.assertTrue(self.trust(link).refusal)


# ---- locks


HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Locks(Case):
    def hold(self, path):
        """Another process that holds the lock; it ends with its standard input."""
        process = subprocess.Popen([sys.executable, "-IS", "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(process.stdout.readline(), b"held\n")
        return process

    def test_one_process_holds_a_lock_and_its_death_lets_go(self):
        path = self.path("a.lock")
        holder = self.hold(path)
        self.assertIsNone(ops.try_lock(path))
        self.assertIsNone(ops.wait_lock(path, 0.01))
        holder.kill()
        fd = ops.wait_lock(path, 10.0)
        self.assertIsNotNone(fd)
        os.close(fd)
        self.assertTrue(os.path.exists(path), "a lock file is never removed")

    def test_within_one_process_a_lock_is_held_once(self):
        first = ops.try_lock(self.path("a.lock"))
        self.assertIsNone(ops.try_lock(self.path("a.lock")))
        other = ops.try_lock(self.path("b.lock"))
        self.assertIsNotNone(other)
        os.close(first)
        again = ops.try_lock(self.path("a.lock"))
        self.assertIsNotNone(again)
        os.close(again)
        os.close(other)

    def test_opening_and_closing_the_file_elsewhere_does_not_let_go(self):
        fd = ops.try_lock(self.path("a.lock"))
        with open(self.path("a.lock")):
            pass
        self.assertIsNone(ops.try_lock(self.path("a.lock")))
        os.close(fd)

    def test_an_abandoned_lock_file_holds_nothing(self):
        self.write("a.lock", b"4711\n")
        fd = ops.try_lock(self.path("a.lock"))
        self.assertIsNotNone(fd)
        os.close(fd)


# ---- the state file


class State(Case):
    def setUp(self):
        super().setUp()
        self.file = self.path("state", "ops.json")
        self.lost = []
        self.store = self.open()

    def open(self):
        store = ops.Store(self.file, ops.Clock())
        store.on_lost = lambda state, aside: self.lost.append(aside)
        return store

    def put(self, data):
        os.makedirs(os.path.dirname(self.file), 0o700, exist_ok=True)
        with open(self.file, "wb") as file:
            file.write(data if isinstance(data, bytes) else json.dumps(data).encode())

    @property
    def raw(self):
        with open(self.file, "rb") as file:
            return file.read()

    def steps(self):
        counter = Broken()
        with mock.patch.object(ops, "reach", counter):
            self.store.change(lambda state: state.raw.update(count=time.time_ns()))
        return counter.steps


def count_up(state):
    state.raw["count"] = state.raw.get("count", 0) + 1
    state.record("counted", count=state.raw["count"])
    return state.raw["count"]


class Transactions(State):
    def test_changes_from_several_processes_at_once_are_all_there(self):
        processes, each = 4, 12
        pids = []
        for _ in range(processes):
            pid = os.fork()
            if not pid:
                code = 1
                with contextlib.suppress(BaseException):
                    store = self.open()
                    for _ in range(each):
                        store.change(count_up)
                    code = 0
                os._exit(code)
            pids.append(pid)
        self.assertEqual([os.waitpid(pid, 0)[1] for pid in pids], [0] * processes)
        self.assertEqual(self.store.view().raw["count"], processes * each)
        with open(self.store.history_path, encoding="utf-8") as file:
            self.assertEqual([json.loads(line)["count"] for line in file], list(range(1, processes * each + 1)))

    def test_several_changes_are_one_transaction_and_each_gives_its_result(self):
        self.assertEqual(self.store.change(count_up, count_up, lambda state: "x"), [1, 2, "x"])
        self.assertEqual(self.open().view().raw["count"], 2)

    def test_a_change_that_fails_changes_nothing_and_lets_go_of_the_lock(self):
        self.store.change(count_up)
        before = self.raw

        def fail(state):
            state.raw["count"] = 99
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.store.change, count_up, fail)
        self.assertEqual(self.raw, before)
        self.assertEqual(self.store.change(count_up), [2])

    def test_a_change_sees_what_another_store_wrote(self):
        other = self.open()
        for expected in (1, 3, 5):
            self.assertEqual(self.store.change(count_up), [expected])
            self.assertEqual(other.change(count_up), [expected + 1])

    def test_what_does_not_change_is_not_written(self):
        self.store.change(count_up)
        before = os.stat(self.file)
        self.store.change(lambda state: None)
        self.assertEqual((os.stat(self.file).st_ino, os.stat(self.file).st_mtime_ns), (before.st_ino, before.st_mtime_ns))

    def test_to_look_writes_nothing(self):
        self.store.view()
        self.assertFalse(os.path.exists(os.path.dirname(self.file)))

    def test_keys_of_others_are_kept(self):
        self.put({"version": ops.STATE_VERSION, "theirs": {"a": [1]}, "jobs": {"j": {"looks": 3, "theirs": "x", "lookedAt": 5.0}}})
        self.store.change(count_up, lambda state: state.remember("j", state.memory("j")._replace(key="k")))
        self.assertEqual((json.loads(self.raw)["theirs"], json.loads(self.raw)["jobs"]["j"]["theirs"]), ({"a": [1]}, "x"))

    def test_any_text_survives(self):
        for text in ("汉 🛠️ \u2028 \0", "lone \udcff", "\ud800"):
            self.store.change(lambda state, text=text: state.raw.update(text=text))
            self.assertEqual(self.open().view().raw["text"], text)

    def test_a_lock_that_is_not_to_be_had_is_busy_and_not_a_hang(self):
        self.store.change(count_up)
        with open(self.store.lock_path("state"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with mock.patch.object(ops, "STATE_LOCK_WAIT", 0.02), self.assertRaises(ops.BusyError) as caught:
                self.store.change(count_up)
        self.assertEqual(caught.exception.code, 75)
        self.assertIn(self.store.lock_path("state"), str(caught.exception))

    def test_killed_at_any_step_the_state_is_the_old_or_the_new_one_and_the_next_change_succeeds(self):
        self.store.change(count_up)
        steps = self.steps()
        self.store.change(lambda state: state.raw.update(count=1))
        for at in range(len(steps)):
            before = json.loads(self.raw)["count"]
            with mock.patch.object(ops, "reach", Broken(Killed(), at)):
                self.assertRaises(Killed, self.open().change, count_up)
            after = json.loads(self.raw)["count"]
            self.assertIn(after, (before, before + 1), steps[at])
            self.assertEqual(self.open().change(count_up), [after + 1])


class Trouble(State):
    UNREADABLE = [b"", b"{", b"[]", b'"text"', b"null", b"17", b"\xff\xfe", b'{"version": 2', b"{'version': 2}", b"\0" * 100, b"[" * 100000]

    def test_what_is_no_state_is_moved_aside_and_told(self):
        for content in self.UNREADABLE:
            with self.subTest(content[:20]):
                self.put(content)
                self.lost.clear()
                self.assertEqual(self.open().view().jobs, {})
                self.assertEqual(self.raw, content, "a look moved it")
                self.assertEqual(self.open().change(count_up), [1])
                (aside,) = self.lost
                self.assertTrue(aside.startswith(self.file + ".corrupt-"), aside)
                with open(aside, "rb") as file:
                    self.assertEqual(file.read(), content)
                self.assertEqual(json.loads(self.raw)["count"], 1)
                self.assertEqual(self.open().change(count_up), [2])
                self.assertEqual(len(self.lost), 1)
                os.unlink(aside)

    def test_two_unreadable_files_within_a_second_are_both_kept(self):
        for content in (b"first", b"second"):
            self.put(content)
            self.open().change(count_up)
        kept = set()
        for name in os.listdir(os.path.dirname(self.file)):
            if ".corrupt-" in name:
                with open(os.path.join(os.path.dirname(self.file), name), "rb") as file:
                    kept.add(file.read())
        self.assertEqual(kept, {b"first", b"second"})

    def test_a_newer_state_is_refused_and_untouched(self):
        for version in (ops.STATE_VERSION + 1, 99, 2.5):
            self.put({"version": version, "jobs": {}})
            before = self.raw
            for attempt in (self.open().view, lambda: self.open().change(count_up)):
                with self.assertRaises(ops.StateError) as caught:
                    attempt()
                self.assertEqual(caught.exception.code, 74)
            self.assertEqual(self.raw, before)
            self.assertEqual(self.lost, [])

    def test_a_file_of_v1_is_taken_over_with_a_backup_beside_it(self):
        self.put({"version": 1, "jobs": {"j": {"lastSeen": 1700000000, "lastProgressKey": "k"}}, "queue": []})
        before = self.raw
        self.store.change(count_up)
        with open(self.file + ".v1-backup", "rb") as file:
            self.assertEqual(file.read(), before)
        self.assertEqual((json.loads(self.raw)["version"], self.open().view().memory("j").key), (ops.STATE_VERSION, "k"))
        self.store.change(count_up)
        with open(self.file + ".v1-backup", "rb") as file:
            self.assertEqual(file.read(), before)

    def test_whatever_the_disk_refuses_the_old_state_stays_and_the_error_names_path_and_cause(self):
        self.store.change(count_up)
        steps = self.steps()
        self.assertIn("replace", steps)
        for number in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO):
            for at, step in enumerate(steps):
                if step == "lock" and number == errno.EACCES:
                    continue  # so some systems say that another holds it
                before = self.raw
                with self.subTest(step=step, error=errno.errorcode[number]):
                    broken = Broken(OSError(number, os.strerror(number)), at)
                    with mock.patch.object(ops, "reach", broken), self.assertRaises(ops.StateError) as caught:
                        self.open().change(count_up)
                    self.assertEqual(caught.exception.code, 74)
                    self.assertIn(os.path.dirname(self.file), str(caught.exception))
                    self.assertIn(os.strerror(number)[1:], str(caught.exception))
                    self.assertNotIn("\n", str(caught.exception))
                    if "replace" in steps[at:]:
                        self.assertEqual(self.raw, before)
                    self.assertIsInstance(json.loads(self.raw)["count"], int)
                    self.assertNotIn("ops.json.tmp", os.listdir(os.path.dirname(self.file)))
        self.open().change(count_up)

    def test_a_limit_on_file_sizes_is_such_a_refusal(self):
        self.store.change(count_up, lambda state: state.raw.update(text="x" * 5000))
        before = self.raw
        script = (
            "import resource, sys; sys.path.insert(0, sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
            "ops = __import__('ops-monitor'); sys.exit(ops.main(['enqueue', 'disk', *sys.argv[2:]]))"
        )
        house = botapi.House(self)
        house.set_jobs(house.check())
        words = [sys.executable, "-B", "-c", script, str(ops.__file__).rpartition("/")[0], "--state-file", self.file]
        ran = subprocess.run(words, env=house.env, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", timeout=60)
        self.assertEqual((ran.returncode, self.raw), (74, before), ran.stderr)
        self.assertIn(self.file, ran.stderr)
        self.assertEqual(len(ran.stderr.splitlines()), 2)

    def test_a_directory_in_the_place_of_the_state_is_an_error_that_names_it(self):
        os.makedirs(self.file)
        for attempt in (self.store.view, lambda: self.store.change(count_up)):
            with self.assertRaises(ops.StateError) as caught:
                attempt()
            self.assertIn(self.file, str(caught.exception))

    @unittest.skipIf(IS_ROOT, "root may read and write everything")
    def test_a_directory_that_may_not_be_written_is_an_error_that_names_it(self):
        self.store.change(count_up)
        before = self.raw
        os.chmod(os.path.dirname(self.file), 0o500)
        self.addCleanup(os.chmod, os.path.dirname(self.file), 0o700)
        with self.assertRaises(ops.StateError):
            self.store.change(count_up)
        self.assertEqual(self.raw, before)

    def test_the_history_turns_over_and_every_line_of_it_can_be_read(self):
        with mock.patch.object(ops, "HISTORY_LIMIT", 2000):
            for _ in range(120):
                self.store.change(count_up)
        counts = []
        for path in (self.store.history_path + ".1", self.store.history_path):
            self.assertLess(os.path.getsize(path) if os.path.exists(path) else 0, 2200)
            with open(path, encoding="utf-8") as file:
                counts += [json.loads(line)["count"] for line in file]
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(counts, list(range(counts[0], 121)))

    def test_a_history_that_cannot_be_written_takes_nothing_from_the_state(self):
        os.makedirs(self.store.history_path)
        with contextlib.redirect_stderr(open(os.devnull, "w")) as quiet:
            self.addCleanup(quiet.close)
            self.assertEqual([self.store.change(count_up), self.store.change(count_up)], [[1], [2]])


class TroubleInATick(Case):
    def test_a_state_that_cannot_be_used_ends_the_tick_with_74_and_one_line_about_it(self):
        house = botapi.House(self)
        house.set_jobs(house.check())
        with open(house.state_file, "w") as file:
            json.dump({"version": 3}, file)
        ran = house.tick()
        self.assertEqual((ran.code, house.state, house.runs()), (74, {"version": 3}, 0))
        self.assertEqual(ran.err.count("error:"), 1)

    def test_a_full_disk_ends_the_tick_with_74_and_nothing_has_run(self):
        house = botapi.House(self)
        house.set_jobs(house.check())

        def full(step):
            if step == "write":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with mock.patch.object(ops, "reach", full):
            ran = house.tick()
        self.assertEqual((ran.code, house.runs(), os.path.exists(house.state_file)), (74, 0, False))
        self.assertIn(house.state_file, ran.err)
        self.assertIn("no space left", ran.err.lower())

    def test_an_unreadable_state_is_told_and_names_the_file(self):
        bot = botapi.BotApi(self)
        house = botapi.House(self, bot)
        with open(house.state_file, "w") as file:
            file.write("{torn")
        self.assertEqual(house.tick().code, 0)
        self.assertEqual(len(bot.texts), 1)
        self.assertIn(house.state_file + " ", bot.texts[0])
        self.assertIn(house.state_file + ".corrupt-", bot.texts[0])


# ---- clock


class Time(Case):
    def test_an_unknown_time_zone_is_a_warning_and_local_time(self):
        for name in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "."):
            with self.subTest(name[:20]):
                clock = ops.Clock(name)
                self.assertIn("time zone", clock.problem)
                self.assertLess(len(clock.problem), 300)
                self.assertEqual(clock.full_text(1e9), ops.Clock().full_text(1e9))

    def test_a_known_time_zone_is_used(self):
        clock = ops.Clock("Asia/Shanghai")
        if clock.problem:
            self.skipTest("no tz data on this machine")
        self.assertEqual((clock.full_text(1e9), clock.time_text(1e9)), ("2001-09-09 09:46:40", "09:46:40"))
        now = clock.now()
        local = clock.local(now.at)
        self.assertEqual(now.minute, local[3] * 60 + local[4])

    def test_a_moment_that_is_not_of_today_is_told_with_its_date(self):
        clock = ops.Clock()
        self.assertRegex(clock.text(time.time() - 60), r"^\d\d:\d\d$")
        self.assertRegex(clock.text(time.time() - 3 * 86400), r"^\d{4}-\d\d-\d\d \d\d:\d\d$")

    def test_validate_config_warns_of_an_unknown_time_zone(self):
        house = botapi.House(self, monitor={"timezone": "Mars/Olympus"})
        ran = house.call("validate-config")
        self.assertEqual(ran.code, 0)
        self.assertIn("warning", ran.err)
        self.assertIn("Mars/Olympus", ran.err)


# ---- HTTP


class Http(Case):
    BODY = {"chat_id": 1, "text": "汉 \ud800", "link_preview_options": {"is_disabled": True}}

    def post(self, *plan):
        self.bot = botapi.BotApi(self, *plan)
        return ops.post_json(self.bot.url + "/bot1:x/sendMessage", self.BODY)

    def test_the_status_and_the_body_come_back_whatever_they_are(self):
        for status, body in ((200, b'{"ok": true}'), (200, b""), (404, b"x"), (500, b"\xff" * 70000), (302, b"")):
            with self.subTest(status=status, size=len(body)):
                headers = [("Location", "/bot1:x/sendMessage")] if status == 302 else []
                self.assertEqual(self.post(botapi.answer(status, body, headers)), (status, body[:65536]))
                self.assertEqual(len(self.bot.requests), 1)

    def test_nobody_there_is_an_error_before_sending(self):
        for url in (f"http://127.0.0.1:{botapi.free_port()}/bot1:x/sendMessage", "http://:0/x", "nonsense"):
            self.assertRaises(OSError, ops.post_json, url, self.BODY)

    def test_a_connection_dropped_after_the_request_is_lost(self):
        for fault in (botapi.drop, botapi.drop_unread, botapi.lost):
            self.assertRaises(ops.Lost, self.post, fault)

    def test_an_answer_that_is_no_http_is_lost(self):
        many = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300 + b"\r\n"
        for noise in (b"220 smtp ready\r\n", b"\0\xff" * 1000 + b"\n", b"HTTP/1.1 abc def\r\n\r\n", many):
            self.assertRaises(ops.Lost, self.post, lambda handler, noise=noise: handler.wfile.write(noise))

    def test_a_body_that_is_cut_short_is_no_confirmation(self):
        def cut(handler):
            handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"ok": tr')

        with contextlib.suppress(ops.Lost):
            status, body = self.post(cut)
            self.assertEqual(ops.read_api_answer(status, body, ops.Redactor()).result, "unknown")

    def drip(self, beginning):
        """An answer of which a byte comes now and then, for longer than anyone should wait; how many were taken."""
        taken = []

        def give(handler):
            with contextlib.suppress(OSError):
                handler.wfile.write(beginning)
                while len(taken) < 150 and not handler.bot.ended.wait(0.02):
                    handler.wfile.write(b"x")
                    taken.append(1)

        with mock.patch.object(ops, "HTTP_TIMEOUT", 0.2), self.assertRaises(ops.Lost):
            self.post(give)
        return len(taken)

    def test_an_answer_that_drips_is_given_up_in_its_body_and_in_its_head(self):
        for beginning in (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Drip: ", b"HTTP/1.1 2", b""):
            with self.subTest(beginning):
                self.assertLess(self.drip(beginning), 150, "it was read to its end")


class EveryAnswerOfTheBotApi(unittest.TestCase):
    # (status, body, result)
    TABLE = [
        (200, {"ok": True, "result": {}}, "sent"),
        (200, {"ok": False, "error_code": 403, "description": "x"}, "refused"),
        (400, {"ok": False, "error_code": 400, "description": "chat not found"}, "refused"),
        (401, {"ok": False, "error_code": 401}, "refused"),
        (404, {"ok": False, "error_code": 404}, "refused"),
        (429, {"ok": False, "error_code": 429, "parameters": {"retry_after": 5}}, "wait"),
        (429, {"ok": False, "error_code": 429}, "wait"),
        (500, {"ok": False, "error_code": 500}, "unknown"),
        (502, "<html>", "unknown"),
        (200, "<html>", "unknown"),
        (200, "", "unknown"),
        (200, [True], "unknown"),
        (200, {"ok": "true"}, "unknown"),
        (200, {}, "unknown"),
        (500, {"ok": True}, "unknown"),
        (301, "", "not_sent"),
        (413, "<html>", "not_sent"),
    ]

    def test_decides_by_code_and_never_by_words(self):
        for status, body, result in self.TABLE:
            raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            with self.subTest(status=status, body=body):
                self.assertEqual(ops.read_api_answer(status, raw, ops.Redactor()).result, result)

    def test_no_answer_at_all_is_an_exception(self):
        values = [None, True, -1, 0, 1e400, "x", [], {}, {"a": None}, "9" * 50]
        for seed in range(500):
            chance = random.Random(seed)
            parameters = {key: chance.choice(values) for key in ("retry_after", "migrate_to_chat_id")}
            answer = {"ok": chance.choice([False, False, True, *values]), "error_code": chance.choice([429, 400, *values])}
            answer.update(description=chance.choice(values), parameters=chance.choice([parameters, *values]))
            sent = ops.read_api_answer(chance.choice((200, 400, 429, 500)), json.dumps(answer).encode(), ops.Redactor())
            self.assertIn(sent.result, ("sent", "refused", "wait", "unknown", "not_sent"), f"seed {seed}")
            self.assertTrue(0 <= sent.retry_after <= 86400, f"seed {seed}: {sent}")
        for raw in (b"[" * 100000, b"\xff\xfe", b'{"ok": true', b"NaN"):
            self.assertEqual(ops.read_api_answer(200, raw, ops.Redactor()).result, "unknown")


if __name__ == "__main__":
    unittest.main()
