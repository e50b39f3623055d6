"""A home of the tool whose calls are real processes, forked from one that has imported the script.

`Home` is one temporary directory with config, state and jobs.  A call runs `main` in a child: it can
be killed before its n-th step, its disk can fail there, and its clock is the home's, which moves only
when the proof says so.  The receiver is a Bot API on the loopback or a command, and both keep what a
person would have read.  `snapshot` and `restore` bring a home back to a moment that it had before.

Fork is what makes thousands of calls affordable: a typed call spends a tenth of a second on compiling.
"""

from __future__ import annotations

import gc
import hashlib  # noqa: F401  # what the script imports when it needs it is loaded once, here, and not in each child
import http.client  # noqa: F401
import json
import mmap
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading  # noqa: F401
import time
import traceback
from typing import Any, NamedTuple
from urllib.parse import urlsplit  # noqa: F401

from tests import SCRIPT, ops

TOKEN = "700000001:" + "Zx9_" * 8 + "end"  # the form of a real one; nobody's
OWNER = "777000111"
ESCAPED = 99  # exit code of a call whose exception reached us
MARK = "OPS_PROOF_HOME"  # in the environment of everything that a home starts
NOON = 1_700_049_600.0  # a wall clock to begin with; in UTC the quiet hours are far
STEPS_KEPT = 1 << 16
MEMORY = "/dev/shm"  # fsync costs a thousandth there; what is proved is the order of steps, not the disk


def scratch(prefix):
    """A new directory, in memory where there is such a place."""
    return os.path.realpath(tempfile.mkdtemp(prefix=prefix, dir=MEMORY if os.access(MEMORY, os.W_OK) else None))


def sh(script):
    return ["/bin/sh", "-c", script]


def long_job(job_id, start=":", stop="", status="", **policy):
    """A long read job; its status is the line in the file `ID.status`."""
    commands = {"start": sh(start), "status": sh(status or f"read -r line < {job_id}.status; echo \"$line\"")}
    if stop:
        commands["stop"] = sh(stop)
    return {"id": job_id, "kind": "long_running_read", "risk": "read_only", "enabled": True, "commands": commands, "policy": policy}


def check(job_id, run, **policy):
    return {"id": job_id, "kind": "one_shot_read", "risk": "read_only", "enabled": True, "commands": {"run": sh(run)}, "policy": policy}


def write(job_id, run, verify):
    return {"id": job_id, "kind": "one_shot_write", "risk": "write_local", "commands": {"run": sh(run)}, "after": [{"jobId": verify}]}


# ---- who is told


class BotApi:
    """A Bot API in a process of its own: it answers one connection after the other and keeps the texts."""

    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = listener.getsockname()[1]
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.serve(listener, parent)
            finally:
                os._exit(0)
        listener.close()

    @staticmethod
    def serve(listener, parent):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        texts: list = []
        while os.getppid() == parent:
            if not select.select([listener], [], [], 1.0)[0]:
                continue
            connection = listener.accept()[0]
            with connection:
                connection.settimeout(5)
                try:
                    connection.sendall(BotApi.answer(BotApi.read(connection), texts))
                except (OSError, ValueError):
                    continue  # whoever asked was killed

    @staticmethod
    def read(connection):
        """(path, body) of a request.  ValueError if it ends too early: nobody was told."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            chunk = connection.recv(65536)
            if not chunk:
                raise ValueError("cut short")
            raw += chunk
        head, _, body = raw.partition(b"\r\n\r\n")
        sizes = [int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        while sizes and len(body) < sizes[0]:
            chunk = connection.recv(65536)
            if not chunk:
                raise ValueError("cut short")
            body += chunk
        return head.split(b" ")[1].decode(), body

    @staticmethod
    def answer(request, texts):
        path, body = request
        value: Any = {"ok": True, "result": {"message_id": len(texts)}}
        if path == "/told":
            value = texts
        elif path == "/forget":
            texts.clear()
        elif path == f"/bot{TOKEN}/sendMessage":
            texts.append(json.loads(body)["text"])
        else:
            value = {"ok": False, "error_code": 404, "description": "Not Found"}
        data = json.dumps(value).encode()
        return b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data

    def ask(self, path):
        """What it answers to us; whatever reached it before has been dealt with by then."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            raw = b"".join(iter(lambda: connection.recv(65536), b""))
        return json.loads(raw.partition(b"\r\n\r\n")[2])

    def close(self):
        ops.end_one(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


# ---- what happens to a call


class Kill(NamedTuple):
    """SIGKILL before the n-th step."""

    at: int

    def __call__(self, number, step):
        if number == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class Call(NamedTuple):
    """What one call gave back."""

    code: int  # negative: the signal that ended it
    out: str
    err: str
    steps: list  # names of the steps that it took

    @property
    def was_killed(self):
        return self.code == -signal.SIGKILL


class Begun(NamedTuple):
    """A call that runs."""

    pid: int
    out: Any
    err: Any
    steps: Any

    def kill(self):
        ops.end_one(self.pid, signal.SIGKILL)

    def end(self):
        status = os.waitpid(self.pid, 0)[1]
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
            file.close()
        steps = bytes(self.steps).rstrip(b"\0").decode().split()
        self.steps.close()
        return Call(code, *texts, steps)


class Home:
    """A home of the tool; `with` it, and it is gone with all that it started."""

    def __init__(self, jobs=(), via="command", **config):
        self.root = scratch("ops-proof-")
        self.config_path = self.path("net", "config", "ops-jobs.json")
        self.state_path = self.path("net", "state", "ops-monitor.json")
        os.makedirs(os.path.dirname(self.config_path))
        self.env = {"HOME": self.root, "OPENCLAW_HOME": self.root, "TMPDIR": self.root, "PATH": "/usr/bin:/bin", "TZ": "UTC", MARK: self.root}
        self.at = NOON  # what its clocks say; 0 = the time of day
        self.bot = BotApi() if via == "api" else None
        delivery = {"via": "command", "command": sh("{ cat; printf '\\036'; } >> told")}
        if self.bot:
            delivery = {"via": "api", "target": OWNER}
            telegram = {"botToken": TOKEN, "apiRoot": f"http://127.0.0.1:{self.bot.port}"}
            self.put("openclaw.json", json.dumps({"channels": {"telegram": telegram}}))
        quiet = {"quietHours": {"start": "00:00", "end": "00:00"}}
        self.config = {"version": 1, "defaults": quiet, "delivery": delivery, **config, "jobs": list(jobs)}
        self.configure()
        adopt_orphans()
        gc.collect()
        gc.freeze()  # or every child would copy what its collector touches

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            if self.bot:
                self.bot.close()
            self.end_all()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    # files

    def path(self, *names):
        return os.path.join(self.root, *names)

    def put(self, name, text):
        with open(self.path(name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode("utf-8"))

    def read(self, name):
        try:
            with open(self.path(name), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def lines(self, name):
        return self.read(name).splitlines()

    def configure(self):
        self.put(self.config_path, json.dumps(self.config, ensure_ascii=False))

    def says(self, job_id, running=False, completed=False, **more):
        """Lets the status of a long job answer this from now on."""
        self.put(f"{job_id}.status", json.dumps({"running": running, "completed": completed, **more}) + "\n")

    @property
    def state(self):
        """The state file, read as anybody would; ValueError if it is torn."""
        return json.loads(self.read(self.state_path) or "{}")

    def memory(self, job_id):
        return self.state.get("jobs", {}).get(job_id, {})

    def job_dir(self, job_id):
        return self.path("net", "state", "ops-monitor.jobs", ops.slug(job_id))

    def snapshot(self):
        """Everything in this home, and its time."""
        kept = {}
        for place, folders, names in os.walk(self.root):
            kept.update((os.path.join(place, name), None) for name in folders)
            for name in names:
                with open(os.path.join(place, name), "rb") as file:
                    kept[os.path.join(place, name)] = file.read()
        return self.at, kept, [] if not self.bot else self.told

    def restore(self, snapshot):
        """The home as it was then; what runs is ended, and nobody was told anything."""
        self.end_all()
        self.at, kept, _ = snapshot
        for name in os.listdir(self.root):
            path = self.path(name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        for path, data in kept.items():
            if data is None:
                os.mkdir(path, 0o700)
            else:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                    file.write(data)
        self.forget_told()

    # who was told what

    @property
    def told(self):
        """The messages that reached the person."""
        return self.bot.ask("/told") if self.bot else [text for text in self.read("told").split("\036") if text]

    def forget_told(self):
        if self.bot:
            self.bot.ask("/forget")
        elif os.path.exists(self.path("told")):
            os.unlink(self.path("told"))

    # calls

    def begin(self, *argv, seam=None, gate=None, bend=None, since=0.0):
        """Starts a call; it waits until the descriptor `gate` reads end-of-file.

        The home's time is that of this call's begin, or of `since` (monotonic) for calls that run at once.
        """
        since = since or time.monotonic()
        out, err = (tempfile.TemporaryFile(dir=os.path.dirname(self.root)) for _ in range(2))
        steps = mmap.mmap(-1, STEPS_KEPT)
        pid = os.fork()
        if pid == 0:
            try:
                self._call(argv, (out, err), steps, seam, gate, bend, since)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(ESCAPED)
        return Begun(pid, out, err, steps)

    def call(self, *argv, **how):
        return self.begin(*argv, **how).end()

    def tick(self, **how):
        return self.call("tick", **how)

    def _call(self, argv, files, steps, seam, gate, bend, since):
        """The whole life of a child."""
        signal.set_wakeup_fd(-1)
        for fd, source in zip((0, 1, 2), (os.open(os.devnull, os.O_RDONLY), *(file.fileno() for file in files))):
            os.dup2(source, fd)
        sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))
        os.environ.clear()
        os.environ.update(self.env)
        time.tzset()
        tempfile.tempdir = None
        os.chdir(self.root)
        sys.argv = [str(SCRIPT), *argv]
        if self.at:
            obey(self.at, since)
        count = [0]

        def reach(step):
            count[0] += 1
            steps.write(step.encode() + b" ")
            if seam:
                seam(count[0], step)

        ops.reach = reach
        if bend:
            bend()
        if gate is not None:
            os.read(gate, 1)
        code = ops.main(list(argv))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    # what it started

    def left_running(self):
        """Pids of what its calls have started and not ended, managed jobs and their supervisors apart."""
        return [pid for pid in orphans(self) if pid not in self.managed_pids()]

    def managed_pids(self):
        pids = set()
        for place, _, names in os.walk(self.path("net", "state")):
            if "run.json" in names:
                try:
                    with open(os.path.join(place, "run.json"), encoding="utf-8") as file:
                        record = json.load(file)
                except (OSError, ValueError):
                    continue
                if "exitCode" not in record:
                    pids |= {record["pid"], record["supervisor"]}
        return pids

    def settle(self, seconds=20.0):
        """Waits for the commands of killed calls: a real tick comes a minute later, and they have ended by then."""
        until = time.monotonic() + seconds
        while self.left_running() and time.monotonic() < until:
            time.sleep(0.001)

    def end_all(self):
        until = time.monotonic() + 10.0
        while time.monotonic() < until:
            left = orphans(self)
            if not left:
                return
            for pid in left:
                ops.end_one(pid, signal.SIGKILL)
            time.sleep(0.001)


def obey(at, since):
    """Lets the clocks of this process say that it was `at` at `since`; they go on from there."""
    boot = ops.boot_identity()

    def now(self):
        moment = at + time.monotonic() - since
        return ops.Instant(moment, moment - NOON + 5000.0, boot, int(moment // 60) % 1440)

    ops.Clock.now = now


def adopt_orphans():
    """Linux: whatever loses its parent below us becomes our child, so that it can be found and buried."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def orphans(home):
    """Pids of living processes that the calls of this home have left."""
    known = {home.bot.pid} if home.bot else set()
    if sys.platform != "linux":
        return [pid for pid in marked(home) if pid not in known]
    while True:
        try:
            if not any(bury(pid) for pid in children() - known):
                break
        except ChildProcessError:
            break
    return list(children() - known)


def children():
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return set(map(int, file.read().split()))


def bury(pid):
    return os.waitpid(pid, os.WNOHANG)[0] != 0


def marked(home):
    """Elsewhere they are known by their environment."""
    listing = os.popen("/bin/ps -E -x -o pid=,command=").read()
    return [int(line.split(None, 1)[0]) for line in listing.splitlines() if f"{MARK}={home.root}" in line.split()]
