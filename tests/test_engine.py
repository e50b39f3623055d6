"""ENGINE by scenarios: real files, real small commands, processes that die in the middle.

`Installation` is one home of the tool in a temporary directory.  Its calls run `ops.main` in a
forked child, so that a death is a real one (`os._exit` before the n-th visible step), the clock can
be moved, and nothing has to be compiled again.  The other test files of whole commands use it too.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from typing import NamedTuple

from tests import SCRIPT, ops

DIED = 87  # exit code of a call that was made to die before its n-th step
TRACEBACK = 99  # exit code of a call whose exception reached us
MARK = "OPS_TEST_SCENE"  # in the environment of everything that an installation starts


def sh(script):
    return ["/bin/sh", "-c", script]


def long_job(job_id, start="", stop="", status="", **policy):
    """A long read job whose status is the file `ID.status`; see Installation.says."""
    commands = {"start": sh(start or ":"), "status": sh(status or f"cat '{job_id}.status'")}
    if stop:
        commands["stop"] = sh(stop)
    return {"id": job_id, "kind": "long_running_read", "risk": "read_only", "enabled": True, "commands": commands, "policy": policy}


def check(job_id, run, **policy):
    return {"id": job_id, "kind": "one_shot_read", "risk": "read_only", "enabled": True, "commands": {"run": sh(run)}, "policy": policy}


def write(job_id, run, verify):
    return {"id": job_id, "kind": "one_shot_write", "risk": "write_local", "commands": {"run": sh(run)}, "after": [{"jobId": verify}]}


class Result(NamedTuple):
    """What one call gave back."""

    code: int
    out: str
    err: str
    steps: list  # names of the visible steps that it took


class Installation:
    """A home of the tool in a directory of its own; gone, with all it started, when the test ends."""

    def __init__(self, test, *jobs, **config):
        self.test = test
        self.root = os.path.realpath(tempfile.mkdtemp(prefix="ops-test-"))
        test.addCleanup(self.clear_away)
        self.config_path = os.path.join(self.root, "net", "config", "ops-jobs.json")
        self.state_path = os.path.join(self.root, "net", "state", "ops-monitor.json")
        os.makedirs(os.path.dirname(self.config_path))
        self.env = {"HOME": self.root, "OPENCLAW_HOME": self.root, "TMPDIR": self.root, "PATH": "/usr/bin:/bin", "TZ": "UTC", MARK: self.root}
        self.calls = 0
        self.config = {
            "version": 1,
            "defaults": {"quietHours": {"start": "00:00", "end": "00:00"}},
            "delivery": {"via": "command", "command": sh("{ cat; printf '\\036'; } >> told")},
            **config,
            "jobs": list(jobs),
        }
        self.configure()

    def clear_away(self):
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            left = self.processes()
            if not left:
                break
            for pid in left:
                ops.end_one(pid, signal.SIGKILL)
            time.sleep(0.005)
        shutil.rmtree(self.root, ignore_errors=True)

    def processes(self):
        """Pids of everything alive that this installation started, wherever it went."""
        wanted = f"{MARK}={self.root}".encode()
        if not os.path.isdir("/proc/self"):
            listing = subprocess.run(["/bin/ps", "-E", "-x", "-o", "pid=,command="], stdout=subprocess.PIPE, check=False).stdout
            return [int(line.split(None, 1)[0]) for line in listing.splitlines() if wanted in line.split()]
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
        return found

    # what is in its files

    def path(self, *names):
        return os.path.join(self.root, *names)

    def configure(self, *jobs):
        if jobs:
            self.config["jobs"] = list(jobs)
        self.put(self.config_path, json.dumps(self.config, ensure_ascii=False))

    def put(self, name, text):
        data = text if isinstance(text, bytes) else text.encode("utf-8")
        path = self.path(name)
        with open(path + ".new", "wb") as file:
            file.write(data)
        os.replace(path + ".new", path)

    def says(self, job_id, running=False, completed=False, **more):
        """Lets the status of a `long_job` answer this from now on."""
        self.put(f"{job_id}.status", json.dumps({"running": running, "completed": completed, **more}))

    def read(self, name):
        try:
            return pathlib.Path(self.path(name)).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def lines(self, name):
        return self.read(name).splitlines()

    @property
    def told(self):
        """The messages that reached the person, one text each."""
        return [text for text in self.read("told").split("\036") if text]

    def told_with(self, *words):
        return [text for text in self.told if all(word in text for word in words)]

    @property
    def state(self):
        return json.loads(self.read(self.state_path) or "{}")

    def memory(self, job_id):
        return self.state.get("jobs", {}).get(job_id, {})

    def set_state(self, **keys):
        os.makedirs(os.path.dirname(self.state_path), exist_ok=True)
        self.put(self.state_path, json.dumps({**{"version": 2, "jobs": {}}, **self.state, **keys}))

    def job_dir(self, job_id):
        return os.path.join(os.path.dirname(self.state_path), "ops-monitor.jobs", ops.slug(job_id))

    # what is done with it

    def begin(self, *argv, die_before=0, later=0.0, bend=None, gate=None):
        """Starts a call in a child; (pid, number) for `end`.

        It dies before step `die_before`; its clocks are `later` seconds ahead; `bend()` may change
        the module first; it waits until the descriptor `gate` reads end-of-file.
        """
        self.calls += 1
        pid = os.fork()
        if pid == 0:
            try:
                self._call(argv, self.calls, die_before, later, bend, gate)
            finally:
                os._exit(TRACEBACK)
        return pid, self.calls

    def end(self, begun):
        pid, number = begun
        status = os.waitpid(pid, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        result = Result(code, *(self.read(f".{number}.{name}") for name in ("out", "err")), self.lines(f".{number}.steps"))
        if code == TRACEBACK or "Traceback" in result.err:
            self.test.fail(f"an exception got out:\n{result.out}{result.err}")
        return result

    def call(self, *argv, **how):
        return self.end(self.begin(*argv, **how))

    def tick(self, **how):
        return self.call("tick", **how)

    def _call(self, argv, number, die_before, later, bend, gate):
        """The child's whole life."""
        files = [os.open(self.path(f".{number}.{name}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("out", "err")]
        steps = os.open(self.path(f".{number}.steps"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        for fd, path in zip((0, 1, 2), (os.open(os.devnull, os.O_RDONLY), *files)):
            os.dup2(path, fd)
        sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))
        os.environ.clear()
        os.environ.update(self.env)
        time.tzset()
        tempfile.tempdir = None  # the crash file of a bug goes where the rest goes
        os.chdir(self.root)
        os.umask(0o022)
        sys.argv = [str(SCRIPT), *argv]
        count = [0]

        def reach(step):
            count[0] += 1
            if count[0] == die_before:
                os._exit(DIED)
            os.write(steps, step.encode() + b"\n")

        ops.reach = reach
        if later:
            move_clocks(later)
        if bend:
            bend()
        if gate is not None:
            os.read(gate, 1)
        try:
            code = ops.main(list(argv))
        except SystemExit as end:
            code = end.code
        except BaseException:
            import traceback

            traceback.print_exc()
            code = TRACEBACK
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                pass  # a closed pipe is what some tests are about
        os._exit(code or 0)

    def real(self, *argv, script=SCRIPT, **how):
        """The call as a real process that a shell would start."""
        settings = {"env": self.env, "cwd": self.root, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        return subprocess.Popen([sys.executable, str(script), *argv], **settings)

    def real_call(self, *argv, **how):
        process = self.real(*argv, **how)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, *((text or b"").decode("utf-8") for text in (out, err)), [])


def move_clocks(seconds):
    """Every clock of this process is `seconds` ahead, as if it had slept and the machine had not."""
    original = ops.Clock.now

    def now(self):
        moment = original(self)
        hour, minute = self.local(moment.at + seconds)[3:5]
        return moment._replace(at=moment.at + seconds, awake=moment.awake + seconds, minute=hour * 60 + minute)

    ops.Clock.now = now


def wait_for(what, seconds=3.0):
    """Whether `what` came true in time: a process that was killed takes a moment to be gone."""
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.01)
    return what()


def die_once_it_runs(word):
    """This process dies as soon as it has started the command that has `word` in it."""
    spawn = ops.spawn

    def spawn_and_die(argv, *args):
        pid = spawn(argv, *args)
        if word in argv[-1]:
            os._exit(DIED)
        return pid

    ops.spawn = spawn_and_die


STOPPED = {"running": False, "stopReason": "the disk went away"}
MOVING = {"running": True, "progressKey": "7"}


class TestIntentionsComeFirst(unittest.TestCase):
    """The state file, read by the command itself while it runs."""

    def keep_state(self, name="seen.json"):
        return f"cp net/state/ops-monitor.json {name}; "

    def seen(self, home, job_id, name="seen.json"):
        return json.loads(home.read(name))["jobs"][job_id]

    def test_an_attempt_is_counted_before_it_is_made(self):
        home = Installation(self, long_job("a", self.keep_state(), autoResume=True))
        home.says("a", **STOPPED)
        home.tick()
        seen = self.seen(home, "a")
        self.assertEqual((seen["action"], seen["attempts"], bool(seen["actionAt"])), ("start", 1, True))
        self.assertNotIn("action", home.memory("a"), "the result takes the intention away")
        self.assertEqual(home.memory("a")["attempts"], 1)

    def test_a_restart_is_counted_before_the_job_is_stopped(self):
        job = long_job("a", self.keep_state("start.json"), self.keep_state("stop.json"), onStall="restart", stallSeconds=100)
        home = Installation(self, job)
        home.says("a", **MOVING)
        home.tick()
        home.tick(later=150)
        for name in ("stop.json", "start.json"):
            seen = self.seen(home, "a", name)
            self.assertEqual((seen["action"], seen["attempts"]), ("restart", 1), name)
        self.assertEqual(len(home.told_with("AUTORUN")), 1)

    def test_a_slot_is_taken_before_its_run(self):
        home = Installation(self, check("c", self.keep_state(), everySeconds=60))
        home.tick()
        seen = self.seen(home, "c")
        self.assertEqual((seen["action"], seen["actionTries"]), ("run", 1))
        self.assertTrue(seen["anchorAt"] and seen["slotAt"])
        self.assertEqual(home.memory("c")["slotAt"], seen["slotAt"])

    def test_a_queue_entry_is_taken_before_its_run(self):
        home = Installation(self, check("c", self.keep_state()))
        home.call("enqueue", "c")
        home.tick()
        self.assertEqual([entry["status"] for entry in json.loads(home.read("seen.json"))["queue"]], ["running"])
        self.assertEqual([(entry["status"], entry["exitCode"]) for entry in home.state["queue"]], [("done", 0)])

    def test_a_start_by_hand_is_noted_before_it_is_made(self):
        home = Installation(self, long_job("a", self.keep_state()))
        home.says("a")
        home.call("start", "a")
        self.assertEqual(self.seen(home, "a")["action"], "start")

    def test_a_stop_by_hand_is_noted_before_it_is_made(self):
        home = Installation(self, long_job("a", stop=self.keep_state()))
        home.says("a", running=True)
        home.call("stop", "a")
        self.assertTrue(self.seen(home, "a")["heldAt"])

    def test_intentions_and_results_are_saved_in_batches(self):
        home = Installation(self, *[check(f"c{n}", ":", everySeconds=60) for n in range(24)])
        steps = home.tick().steps
        self.assertEqual(steps.count("spawn"), 24)
        self.assertLess(steps.count("replace"), 13, "one durable write for many intentions")


class Scenario(NamedTuple):
    """Something that one tick brings about, wherever it dies."""

    jobs: tuple
    before: object  # home -> None: everything up to that tick
    proves: object  # (test, home, place) -> None: what must hold after two clean ticks


class TestDyingAtEveryStep(unittest.TestCase):
    """The tick dies before its n-th visible step, for every n; then ticks run that do not die."""

    AT_ONCE = 4  # installations that are made to die side by side

    def die_everywhere(self, scenario, least, stride=1):
        first = Installation(self, *scenario.jobs)
        scenario.before(first)
        for begin in range(1, 200, self.AT_ONCE * stride):
            numbers = range(begin, begin + self.AT_ONCE * stride, stride)
            homes = [self.copy_of(first, scenario) for _ in numbers]
            died = self.tick_at_once(homes, numbers)
            places = [f"dying before step {number}, after {each.steps[-3:]}" for number, each in zip(numbers, died)]
            for home, place in zip(homes, places):
                self.is_sound(home, place)
            for _ in range(2):
                for clean, place in zip(self.tick_at_once(homes), places):
                    self.assertEqual((clean.code, clean.err), (0, ""), place)
            for home, place in zip(homes, places):
                with self.subTest(place):
                    self.is_sound(home, place)
                    scenario.proves(self, home, place)
                home.clear_away()
            if any(each.code != DIED for each in died):
                self.assertLessEqual({each.code for each in died}, {DIED, 0})
                self.assertGreater(sum(each.code == DIED for each in died) * stride + begin, least, "the seam sees fewer steps than there are")
                return
        self.fail("the tick does not come to an end")

    @staticmethod
    def tick_at_once(homes, dying=()):
        begun = [home.begin("tick", die_before=number) for home, number in zip(homes, dying or [0] * len(homes))]
        return [home.end(each) for home, each in zip(homes, begun)]

    def copy_of(self, first, scenario):
        home = Installation(self, *scenario.jobs)
        shutil.copytree(first.root, home.root, dirs_exist_ok=True)
        self.rebase(home, first.root)
        return home

    @staticmethod
    def rebase(home, old_root):
        """The copy of a home names its own files."""
        if os.path.exists(home.state_path):
            home.put(home.state_path, home.read(home.state_path).replace(old_root, home.root))

    def is_sound(self, home, place):
        state = home.state
        self.assertIsInstance(state, dict, place)
        names = os.listdir(os.path.dirname(home.state_path)) if os.path.isdir(os.path.dirname(home.state_path)) else []
        self.assertEqual([name for name in names if ".corrupt" in name], [], place)

    def once_or_twice(self, home, place, *words):
        self.assertIn(len(home.told_with(*words)), (1, 2), f"{place}: {home.told}")

    def test_no_alert_is_lost(self):
        def proves(test, home, place):
            test.once_or_twice(home, place, "ACTION REQUIRED", "the disk went away")
            test.assertLessEqual(len(home.told), 2, place)
            test.assertEqual(home.state["outbox"], [], place)

        self.die_everywhere(Scenario((long_job("a"),), lambda home: home.says("a", **STOPPED), proves), 15)

    def test_no_resolution_is_lost(self):
        def before(home):
            home.says("a", **STOPPED)
            home.tick()
            home.says("a", **MOVING)

        def proves(test, home, place):
            test.once_or_twice(home, place, "RESOLVED")
            test.assertEqual(len(home.told_with("ACTION REQUIRED")), 1, place)
            test.assertEqual(home.memory("a").get("incidents", {}), {}, place)

        self.die_everywhere(Scenario((long_job("a", reportWhileRunning=False),), before, proves), 15)

    def test_nothing_is_resumed_twice(self):
        start = """echo x >> starts; echo '{"running": true, "completed": false, "progressKey": "9"}' > a.status"""
        job = long_job("a", start, autoResume=True, autoResumeBackoffSeconds=0, startTimeoutSeconds=5, reportWhileRunning=False)

        def proves(test, home, place):
            starts = len(home.lines("starts"))
            test.assertLessEqual(starts, 1, place)
            if starts:
                test.once_or_twice(home, place, "AUTORUN", "attempt 1")
                test.assertLessEqual(len(home.told_with("AUTORUN")), 2, place)
            else:
                test.assertEqual(home.memory("a").get("action"), "start", f"{place}: only an intention without a result holds it back")
            home.tick(later=200)
            test.assertEqual(len(home.lines("starts")), 1, f"{place}: and later it does start")
            test.assertLessEqual(len(home.told), 4, f"{place}: {home.told}")

        self.die_everywhere(Scenario((job,), lambda home: home.says("a", progressKey="5", **STOPPED), proves), 25)

    def test_a_due_check_is_run_and_told(self):
        job = check("c", "echo x >> runs; echo 'ALERT: the pond is empty'", everySeconds=3600)

        def proves(test, home, place):
            runs = len(home.lines("runs"))
            test.assertIn(runs, (1, 2), place)
            test.once_or_twice(home, place, "the pond is empty")
            if runs == 2:
                test.assertTrue(home.told_with("interrupted"), f"{place}: a second run of a slot is explained")
            test.assertEqual(home.memory("c").get("action", ""), "", place)
            home.tick(later=1800)
            test.assertEqual(len(home.lines("runs")), runs, f"{place}: nothing more until the next slot")

        self.die_everywhere(Scenario((job,), lambda home: None, proves), 20)

    def test_a_queued_run_is_made_and_told(self):
        jobs = check("c", "echo x >> runs; exit 3"), check("then", "echo x >> followed")
        jobs[0]["after"] = [{"jobId": "then", "when": "failure"}]

        def proves(test, home, place):
            test.assertIn(len(home.lines("runs")), (1, 2), place)
            test.once_or_twice(home, place, "ALERT", "exit code 3")
            home.tick()
            test.assertEqual(len(home.lines("followed")), 1, f"{place}: what follows is queued with the result, once")
            test.assertEqual([entry["status"] for entry in home.state["queue"]], ["done", "done"], place)

        self.die_everywhere(Scenario(jobs, lambda home: home.call("enqueue", "c"), proves), 20, stride=3)


class TestTicksAtOnce(unittest.TestCase):
    START = """echo x >> starts; sleep 0.1; echo '{"running": true, "completed": false, "progressKey": "9"}' > resumed.status"""

    def home(self):
        home = Installation(
            self,
            long_job("resumed", self.START, autoResume=True, reportWhileRunning=False),
            long_job("stopped"),
            check("due", "echo x >> due-runs; sleep 0.1; echo 'ALERT: due'", everySeconds=3600),
            check("queued", "echo x >> queued-runs; sleep 0.1; exit 4"),
        )
        home.says("resumed", progressKey="5", **STOPPED)
        home.says("stopped", **STOPPED)
        home.call("enqueue", "queued")
        return home

    def happened_once(self, home):
        for name in ("starts", "due-runs", "queued-runs"):
            self.assertEqual(home.lines(name), ["x"], name)
        whole = "\n".join(home.told)
        for words in ("AUTORUN", "ACTION REQUIRED · stopped", "ALERT: due", "exit code 4"):
            self.assertEqual(whole.count(words), 1, f"{words}: {home.told}")

    def test_two_to_eight_ticks_at_once_do_and_say_everything_once(self):
        for count in (2, 5, 8):
            with self.subTest(ticks=count):
                home = self.home()
                gate, opener = os.pipe()
                begun = []
                for _ in range(count):
                    begun.append(home.begin("tick", gate=gate, bend=lambda opener=opener: os.close(opener)))
                os.close(opener)
                os.close(gate)
                results = [home.end(each) for each in begun]
                self.assertEqual({result.code for result in results} - {0, 3}, set())
                home.tick()
                self.happened_once(home)

    def test_real_processes_at_once_do_and_say_everything_once(self):
        home = self.home()
        running = [home.real("tick") for _ in range(3)]
        for process in running:
            _, err = process.communicate(timeout=60)
            self.assertNotIn(b"Traceback", err)
        home.tick()
        self.happened_once(home)

    def test_ticks_and_commands_by_hand_at_once_start_one(self):
        home = self.home()
        begun = [home.begin("tick"), home.begin("start", "resumed"), home.begin("tick"), home.begin("start", "resumed")]
        codes = [home.end(each).code for each in begun]
        self.assertLessEqual(set(codes), {0, 3, 75}, "3: the other tick is just sending what this one put there")
        self.assertEqual(home.lines("starts"), ["x"])


class TestNothingStartsWithoutReason(unittest.TestCase):
    UNKNOWNS = {
        "fails": 'echo \'{"running": false, "completed": false}\'; exit 1',
        "dies": "kill -9 $$",
        "says nothing": ":",
        "says no JSON": "echo stopped",
        "says a list": "echo '[]'",
        "lacks a field": "echo '{\"running\": false}'",
        "says zero for false": 'echo \'{"running": 0, "completed": 0}\'',
        "says both": 'echo \'{"running": true, "completed": true}\'',
        "takes too long": 'echo \'{"running": false, "completed": false}\'; sleep 30',
        "cannot be run": "exec /no/such/program",
    }

    def test_unknown_starts_nothing_ever(self):
        jobs = [
            long_job(name, f"echo '{name}' >> starts", status=status, autoResume=True, statusTimeoutSeconds=1, onStall="restart", stallSeconds=1)
            for name, status in self.UNKNOWNS.items()
        ]
        home = Installation(self, *jobs, long_job("control", "echo control >> starts", autoResume=True))
        home.says("control", **STOPPED)
        for later in (0, 4000):
            home.tick(later=later)
        self.assertEqual(set(home.lines("starts")), {"control"})
        self.assertNotIn("AUTORUN", "".join(home.told_with("fails")).replace("AUTORUN · control", ""))

    def test_a_stop_holds_until_start(self):
        home = Installation(self, long_job("a", "echo x >> starts", "echo x >> stops", autoResume=True, autoResumeBackoffSeconds=1))
        home.says("a", **MOVING)
        self.assertEqual(home.call("stop", "a").code, 0)
        home.says("a", progressKey="7", **STOPPED)
        for later in (0, 1000, 100_000):
            home.tick(later=later)
        self.assertEqual((home.lines("starts"), home.told), ([], []), "neither resumed nor alerted")
        self.assertIn("held", home.call("status").out)
        self.assertEqual(home.call("start", "a", later=100_100).code, 0)
        home.tick(later=100_200)
        self.assertEqual(home.lines("starts"), ["x", "x"], "by hand, and from then on by itself")
        self.assertEqual(len(home.told_with("AUTORUN")), 1)

    def test_what_is_off_or_writes_is_not_resumed(self):
        home = Installation(
            self,
            {**long_job("writes", "echo x >> starts", autoResume=True), "risk": "write_local"},
            {**long_job("disabled", "echo x >> starts", autoResume=True), "enabled": False},
            long_job("no resume", "echo x >> starts"),
        )
        for name in ("writes", "disabled", "no resume"):
            home.says(name, **STOPPED)
        home.tick()
        home.tick(later=10_000)
        self.assertEqual(home.lines("starts"), [])
        self.assertEqual(home.told_with("disabled"), [])

    def test_attempts_wait_and_end_with_one_request(self):
        policy = {"autoResume": True, "autoResumeBackoffSeconds": 100, "autoResumeMaxAttempts": 2, "alertRepeatSeconds": 0}
        home = Installation(self, long_job("a", "echo x >> starts", **policy))
        home.says("a", progressKey="5", **STOPPED)
        counts = []
        for later in (0, 50, 110, 150, 250, 320, 5000, 90_000):
            home.tick(later=later)
            counts.append(len(home.lines("starts")))
        self.assertEqual(counts, [1, 1, 2, 2, 2, 2, 2, 2])
        self.assertEqual((len(home.told_with("AUTORUN")), len(home.told_with("ACTION REQUIRED"))), (2, 1), home.told)

    def test_after_a_lost_state_nothing_is_resumed_at_once(self):
        home = Installation(self, long_job("a", "echo x >> starts", autoResume=True))
        home.says("a", **STOPPED)
        os.makedirs(os.path.dirname(home.state_path))
        home.put(home.state_path, '{"version": 2, "jobs": {"a": {"heldAt"')
        home.tick()
        self.assertEqual(home.lines("starts"), [])
        kept = [name for name in os.listdir(os.path.dirname(home.state_path)) if ".corrupt-" in name]
        self.assertEqual(len(kept), 1)
        self.assertEqual(len(home.told_with("ALERT", home.state_path, kept[0])), 1, home.told)
        home.tick(later=120)
        self.assertEqual(home.lines("starts"), ["x"])

    def test_a_killed_tick_whose_run_lives_on_does_not_run_it_again(self):
        home = Installation(self, check("c", "echo begun >> runs; sleep 0.6; echo ended >> runs", everySeconds=3600))

        self.assertEqual(home.tick(bend=lambda: die_once_it_runs("begun")).code, DIED)
        home.tick()
        self.assertLessEqual(len(home.lines("runs")), 1, "it lives: neither told nor run again")
        self.assertEqual(home.told, [])
        until = time.monotonic() + 20
        while "ended" not in home.read("runs") and time.monotonic() < until:
            time.sleep(0.05)
        while home.processes() and time.monotonic() < until:
            time.sleep(0.05)
        home.tick()
        self.assertEqual(home.lines("runs"), ["begun", "ended"] * 2)
        self.assertEqual(len(home.told_with("interrupted")), 1, home.told)

    def test_a_killed_tick_whose_start_is_under_way_does_not_start_it_again(self):
        start = """echo x >> starts; sleep 0.6; echo '{"running": true, "completed": false, "progressKey": "9"}' > a.status"""
        home = Installation(self, long_job("a", start, autoResume=True, autoResumeBackoffSeconds=0, reportWhileRunning=False))
        home.says("a", **STOPPED)
        self.assertEqual(home.tick(bend=lambda: die_once_it_runs("starts")).code, DIED)
        for _ in range(2):
            self.assertEqual(home.tick().code, 0)
        until = time.monotonic() + 20
        while "true" not in home.read("a.status") and time.monotonic() < until:
            time.sleep(0.05)
        home.tick(later=200)
        self.assertEqual(home.lines("starts"), ["x"], "the intention without a result blocks another start")
        self.assertEqual(len(home.told_with("AUTORUN")), 1, home.told)

    def test_a_run_that_is_interrupted_twice_is_given_up_and_told(self):
        home = Installation(self, check("c", "echo x >> runs", everySeconds=3600))
        for _ in range(4):
            home.tick(bend=self.die_at_spawn)
            home.tick(bend=self.die_at_spawn)
        home.tick()
        self.assertLessEqual(len(home.lines("runs")), 1)
        self.assertTrue(home.told_with("interrupted again"), home.told)

    @staticmethod
    def die_at_spawn():
        counting = ops.reach

        def reach(step):
            counting(step)
            if step == "spawn":
                os._exit(DIED)

        ops.reach = reach


class TestTheQueue(unittest.TestCase):
    def test_what_may_not_run_from_the_queue_is_blocked_and_told(self):
        home = Installation(
            self,
            write("prune", "echo x >> wrote", "verify"),
            check("verify", "echo x >> verified"),
            long_job("reader", "echo x >> starts"),
        )
        home.says("reader", running=True)
        entries = [
            {"id": f"q{n}", "jobId": job, "notBefore": 0, "status": "pending", "attempt": 0} for n, job in enumerate(("prune", "reader", "ghost"))
        ]
        home.set_state(queue=entries)
        for _ in range(2):
            home.tick()
        for name in ("wrote", "starts"):
            self.assertEqual(home.lines(name), [])
        whole = "\n".join(home.told)
        self.assertEqual(whole.count("BLOCKED"), 3, home.told)
        self.assertEqual(whole.count("ACTION REQUIRED"), 3, home.told)
        for job in ("prune", "reader", "ghost"):
            self.assertIn(f"'{job}'", whole)
        self.assertEqual({entry["status"] for entry in home.state["queue"]}, {"blocked"})

    def test_an_entry_waits_for_its_time(self):
        home = Installation(self, check("c", "echo x >> runs"))
        home.call("enqueue", "c", "--delay", "10m")
        home.tick()
        home.tick(later=500)
        self.assertEqual(home.lines("runs"), [])
        home.tick(later=700)
        home.tick(later=800)
        self.assertEqual(home.lines("runs"), ["x"])

    def test_entries_of_one_job_run_one_after_the_other(self):
        home = Installation(self, check("c", "echo x >> runs"))
        for _ in range(3):
            home.call("enqueue", "c")
        for _ in range(4):
            home.tick()
        self.assertEqual(home.lines("runs"), ["x"] * 3)

    def test_a_queued_job_runs_although_it_is_disabled(self):
        home = Installation(self, {**check("c", "echo x >> runs", everySeconds=1), "enabled": False})
        home.tick()
        self.assertEqual(home.lines("runs"), [])
        home.call("enqueue", "c")
        home.tick()
        self.assertEqual(home.lines("runs"), ["x"])

    def test_strange_entries_harm_nothing(self):
        entries = [None, 5, [], {}, {"jobId": 7}, {"jobId": ["c"], "status": "pending"}, {"jobId": "c", "status": "pending", "notBefore": "soon"}]
        home = Installation(self, check("c", "echo x >> runs"), long_job("a"))
        home.says("a", **STOPPED)
        home.set_state(queue=[*entries, {"jobId": "c", "status": "pending", "id": {"no": "text"}}])
        for _ in range(3):
            self.assertEqual(home.tick().code, 0)
        self.assertTrue(home.lines("runs"))
        self.assertEqual(len(home.told_with("the disk went away")), 1)

    def test_what_follows_a_run_depends_on_its_result(self):
        def first(code):
            job = check("first", f"exit {code}")
            job["after"] = [{"jobId": when, "when": when} for when in ("success", "failure", "always")]
            return job

        followers = [check(when, f"echo {when} >> followed") for when in ("success", "failure", "always")]
        for code, expected in ((0, ["always", "success"]), (1, ["always", "failure"])):
            with self.subTest(code=code):
                home = Installation(self, first(code), *followers)
                home.call("run", "first")
                home.tick()
                self.assertEqual(sorted(home.lines("followed")), expected)

    def test_a_completion_queues_what_follows_once(self):
        job = {**long_job("a"), "after": [{"jobId": "then"}]}
        home = Installation(self, job, check("then", "echo x >> followed"))
        for state in ({"running": True}, {"completed": True}, {"completed": True}, {"completed": True}):
            home.says("a", **state)
            home.tick()
        self.assertEqual(home.lines("followed"), ["x"])
        self.assertEqual(len(home.told_with("COMPLETED")), 1)
        for state in ({"running": True}, {"completed": True}, {"completed": True}):
            home.says("a", **state)
            home.tick()
        self.assertEqual(home.lines("followed"), ["x", "x"], "it ran again")


class TestScheduledChecks(unittest.TestCase):
    def test_missed_slots_become_one_late_run_on_the_old_grid(self):
        home = Installation(self, check("c", "echo x >> runs", everySeconds=600))
        counts = []
        for later in (0, 300, 601, 700, 1150, 1201, 90_000, 90_100, 90_601):
            home.tick(later=later)
            counts.append(len(home.lines("runs")))
        self.assertEqual(counts, [1, 1, 2, 2, 2, 3, 4, 4, 5])

    def test_a_repeating_failure_is_one_incident_closed_by_the_next_good_run(self):
        home = Installation(self, check("c", "test -e good", everySeconds=60))
        for later in (0, 70, 130):
            home.tick(later=later)
        self.assertEqual(len(home.told_with("ALERT", "exit code 1")), 1, home.told)
        home.put("good", "")
        home.tick(later=190)
        home.tick(later=250)
        self.assertEqual(len(home.told_with("RESOLVED")), 1, home.told)
        self.assertEqual(len(home.told), 2)


class TestLongLooks(unittest.TestCase):
    def test_a_long_look_does_not_delay_what_is_known_of_the_others(self):
        """The slow status itself sees whether the neighbour's alert went out while it was working."""
        slow = "n=0; while [ $n -lt 100 ] && [ ! -s told ]; do sleep 0.1; n=$((n+1)); done; test -s told && touch was-told; cat slow.status"
        home = Installation(self, long_job("slow", status=slow, statusTimeoutSeconds=20), long_job("a"))
        home.says("slow", running=True, progressKey="1")
        home.says("a", **STOPPED)

        def short_round():
            ops.ROUND, ops.CHANGE_WAIT = 0.3, 0.1

        home.tick(bend=short_round)
        self.assertTrue(os.path.exists(home.path("was-told")))
        self.assertEqual(home.memory("slow")["state"], "running", "and the long look is judged in the same tick")

    def test_a_round_is_five_seconds_as_promised(self):
        self.assertLessEqual(ops.ROUND, 5.0)

    def test_a_long_run_does_not_delay_a_resume(self):
        run = "n=0; while [ $n -lt 100 ] && [ ! -s starts ]; do sleep 0.1; n=$((n+1)); done; test -s starts && touch was-started"
        home = Installation(self, check("slow", run, everySeconds=60), long_job("a", "echo x >> starts", autoResume=True))
        home.says("a", **STOPPED)
        home.tick()
        self.assertTrue(os.path.exists(home.path("was-started")))


class TestDryRunAndPrintOnly(unittest.TestCase):
    def files(self, home):
        return {
            os.path.join(place, name): os.stat(os.path.join(place, name)).st_mtime_ns
            for place, _, names in os.walk(home.root)
            for name in names
            if not re.match(r"\.\d+\.", name)
        }

    def home(self):
        home = Installation(self, long_job("a", "echo x >> starts", autoResume=True), long_job("b"), check("c", "echo x >> runs", everySeconds=60))
        home.says("a", **STOPPED)
        home.says("b", **STOPPED)
        return home

    def test_a_dry_run_says_what_and_why_and_changes_no_file(self):
        home = self.home()
        before = self.files(home)
        result = home.call("tick", "--dry-run")
        self.assertEqual(self.files(home), before)
        for words in ("would start it again", "would tell", "ACTION REQUIRED", "due: its first run"):
            self.assertIn(words, result.out)
        self.assertNotIn("replace", result.steps)

    def test_print_only_acts_and_remembers_but_sends_nothing(self):
        home = self.home()
        queued = {"id": "m1", "createdAt": time.time(), "notBefore": 0, "rank": 3, "text": "an older message", "about": ["x", "y"]}
        home.set_state(outbox=[queued])
        result = home.call("tick", "--print-only")
        self.assertEqual((home.lines("starts"), home.lines("runs"), home.told), (["x"], ["x"], []))
        self.assertIn("ACTION REQUIRED", result.out)
        self.assertNotIn("an older message", result.out)
        self.assertEqual([entry["text"] for entry in home.state["outbox"]], ["an older message"], "what waits for the phone stays")
        self.assertEqual(home.call("tick", "--print-only").out, "", "what was printed counts as told")
        home.tick()
        self.assertEqual(len(home.told_with("an older message")), 1)


class TestAfterAGoodTick(unittest.TestCase):
    """monitor.afterTick: an outside dead-man's switch hears of good ticks, and of no others."""

    def home(self, run="echo x >> beats", *jobs, **more):
        return Installation(self, *(jobs or [check("c", "exit 1", everySeconds=60)]), monitor={"afterTick": sh(run)}, **more)

    def test_it_runs_once_everything_is_saved_and_delivered(self):
        home = self.home("test -s told && cp net/state/ops-monitor.json seen && env > env && pwd > cwd && echo noise")
        result = home.tick()
        self.assertEqual((result.code, result.out, result.err), (0, "", ""))
        self.assertEqual(json.loads(home.read("seen"))["outbox"], [])
        self.assertIn("ranAt", json.loads(home.read("seen"))["jobs"]["c"])
        self.assertEqual(home.read("cwd").strip(), home.root)
        self.assertIn("/usr/local/bin", home.read("env"))

    def test_it_is_silent_about_every_tick_that_is_not_good(self):
        home = self.home()
        home.call("tick", "--print-only")
        home.call("tick", "--dry-run")
        home.config["delivery"] = {"via": "none"}
        home.configure(check("c", "exit 1", everySeconds=60), check("d", "exit 2", everySeconds=60))
        self.assertEqual(home.tick().code, 3)
        home.config["delivery"] = {"via": "command", "command": sh("cat > told")}
        home.configure(check("c", "exit 1"), {**check("d", "x"), "risk": "bold"})
        self.assertEqual(home.tick().code, 2)
        home.put(home.config_path, "{")
        self.assertEqual(home.tick().code, 2)
        self.assertEqual(home.lines("beats"), [])
        home.configure(check("c", "exit 1"))
        self.assertEqual(home.tick().code, 0)
        self.assertEqual(home.lines("beats"), ["x"])

    def test_it_is_silent_while_another_process_sends(self):
        home = self.home()
        lock = ops.Store(home.state_path, ops.Clock()).lock("delivery", limit=300.0)
        self.assertEqual(home.tick().code, 0)
        lock.close()
        self.assertEqual((home.lines("beats"), home.told), ([], []))
        self.assertEqual(home.tick().code, 0)
        self.assertEqual(home.lines("beats"), ["x"])

    def test_its_failure_is_printed_on_the_reminder_schedule_and_changes_nothing_else(self):
        home = self.home("test -e well || { echo no route >&2; exit 7; }", check("c", ":"))
        result = home.tick()
        self.assertEqual((result.code, result.out), (0, ""))
        self.assertEqual(result.err, "warning: the tick was good, monitor.afterTick was not: exit code 7: no route\n"
                                     f"help: see monitor.afterTick in {home.config_path}\n")  # fmt: skip
        self.assertEqual([home.tick(later=60 * minute).err for minute in (1, 30, 239)], ["", "", ""])
        self.assertIn("exit code 7", home.tick(later=4 * 3600 + 60).err)
        home.put("well", "")
        self.assertEqual(home.tick(later=5 * 3600).err, "")
        os.unlink(home.path("well"))
        self.assertIn("exit code 7", home.tick(later=5 * 3600 + 60).err, "a new failure is printed at once")
        self.assertEqual(home.told, [], "the phone has nothing to do with it")

    def test_a_program_that_is_missing_is_one_warning(self):
        home = Installation(self, check("c", ":"), monitor={"afterTick": ["/no/such/program"], "language": "zh"})
        result = home.tick()
        self.assertEqual(result.code, 0)
        self.assertIn("没有这个程序：/no/such/program", result.err)

    def test_one_that_hangs_is_ended_with_all_it_started_and_the_tick_stays_good(self):
        home = self.home("trap '' TERM; setsid sleep 600 & sleep 600; sleep 600", check("c", ":"))

        def hurry():
            ops.AFTER_TICK_TIMEOUT = 0.3

        began = time.monotonic()
        result = home.tick(bend=hurry)
        self.assertLess(time.monotonic() - began, 0.3 + ops.GRACE, "TERM was ignored, and waited for")
        self.assertEqual(result.code, 0)
        self.assertIn("took longer than 0.3s", result.err)
        self.assertTrue(wait_for(lambda: not home.processes()), "a process of it lives on")
        self.assertLessEqual(ops.AFTER_TICK_TIMEOUT, 10)

    def test_what_it_leaves_in_the_background_ends_with_it(self):
        home = self.home("sleep 600 & setsid sleep 600 > /dev/null 2>&1 & exit 0", check("c", ":"))
        self.assertEqual(home.tick()[:3], (0, "", ""))
        self.assertTrue(wait_for(lambda: not home.processes()), "a process of it lives on")

    def test_a_tick_that_dies_somewhere_has_a_next_one_that_is_good(self):
        steps = len(self.home().tick().steps)
        for step in range(1, steps + 1, 3):
            home = self.home()
            home.tick(die_before=step)
            with self.subTest(step=step):
                self.assertEqual(home.tick(later=60).code, 0)
                self.assertTrue(home.lines("beats"))


if __name__ == "__main__":
    unittest.main()
