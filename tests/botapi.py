"""What a message meets outside: a Bot API on the loopback, a fake `openclaw`, a home that leads to both.

    bot = BotApi(self)                    answers sendMessage as it is told to, and keeps what it was sent
    bot.plan = [lost, ok]                 the next answers; afterwards `bot.always`
    house = House(self, bot)              HOME, OpenClaw's config, our config and state, all temporary
    house.tick()                          a tick of this house, in this process: code, out, err

Every request is checked against the Bot API's rules; a broken one fails the test that sent it.
"""

import contextlib
import fcntl
import io
import json
import os
import re
import select
import signal
import socket
import socketserver
import struct
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple
from unittest import mock

from tests import NOON, SCRIPT, ops

TOKEN = "700000001:" + "Zx9_" * 8 + "end"  # the form of a real one; nobody's
OWNER = "777000111"


# ---- answers of the Bot API: each is a function of the request's handler


def answer(status, value, headers=()):
    """An answer with this status and JSON value (or bytes, as they are)."""

    def give(handler):
        body = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8")
        handler.send_response(status)
        for name, text in headers:
            handler.send_header(name, text)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return give


def refusal(code, description, status=0, **parameters):
    """`{"ok": false, …}` as the Bot API says no."""
    return answer(status or code, {"ok": False, "error_code": code, "description": description, **({"parameters": parameters} if parameters else {})})


def ok(handler):
    handler.bot.shown.append(handler.asked)
    answer(200, {"ok": True, "result": {"message_id": len(handler.bot.shown)}})(handler)


def slow_ok(handler):
    time.sleep(0.05)
    ok(handler)


def lost(handler):
    """The person sees the message, the sender no answer."""
    handler.bot.shown.append(handler.asked)
    drop(handler)


def drop(handler):
    """The connection is reset, nobody saw anything."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


def hang(handler):
    """No answer while the test lasts."""
    handler.bot.ended.wait(30)
    handler.close_connection = True


def drop_unread(handler):
    """The request has arrived; the connection is reset before a byte of it is read."""
    select.select([handler.connection], [], [], 5)
    drop(handler)


server_error = refusal(500, "Internal Server Error")
bad_gateway = answer(502, b"<html><body>502 Bad Gateway</body></html>")
garbage = answer(200, b"<html>welcome to the airport</html>")
unauthorized = refusal(401, "Unauthorized")
blocked = refusal(403, "Forbidden: bot was blocked by the user")
no_chat = refusal(400, "Bad Request: chat not found")
denied_with_200 = refusal(403, "Forbidden", status=200)
no_code_with_200 = answer(200, {"ok": False, "description": "no"})
too_many = refusal(429, "Too Many Requests: retry after 7", retry_after=7)


def moved(chat):
    """The group became another chat: 400 for the old id, ok for the new one."""
    no = refusal(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=chat)

    def give(handler):
        (ok if handler.asked.chat == str(chat) else no)(handler)

    return give


def redirect(url):
    return answer(302, b"", [("Location", url)])


class Request(NamedTuple):
    """One sendMessage as it arrived."""

    token: str
    body: dict
    path: str  # as it stands in the request line: a whole URL through a proxy

    @property
    def chat(self):
        return str(self.body.get("chat_id"))

    @property
    def text(self):
        return self.body.get("text", "")

    @property
    def rings(self):
        return not self.body.get("disable_notification")


class Handler(BaseHTTPRequestHandler):
    timeout = 30

    def handle_one_request(self):
        self.bot.connections += 1
        plan = self.bot.plan
        if plan and plan[0] is drop_unread:
            plan.pop(0)(self)
            return
        super().handle_one_request()

    @property
    def bot(self):
        return self.server.bot

    def do_POST(self):
        found = re.fullmatch(r"(?:http://[^/]+)?/bot([^/]+)/(?:%s)" % "|".join(self.bot.methods), self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.close_connection = True
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        self.asked = Request(found[1] if found else "", body if isinstance(body, dict) else {}, self.path)
        self.bot.complaints += complaints(found, self.asked)
        self.bot.requests.append(self.asked)
        for watcher in self.bot.watchers:
            watcher(self.asked)
        (self.bot.plan.pop(0) if self.bot.plan else self.bot.always)(self)

    def do_GET(self):
        self.bot.complaints.append(f"GET {self.path}: a redirect was followed, or another method was called")
        answer(200, {"ok": True})(self)

    def log_message(self, *words):
        pass  # the test looks at `requests`


def complaints(path, request):
    """What the Bot API would not like about a sendMessage."""
    if path and not request.path.endswith("/sendMessage"):
        return []  # another of `methods`
    text = request.text
    rules = (
        (path, "not /bot<token>/ and one of the methods"),
        (isinstance(text, str) and text.strip(), "a blank text"),
        (len(str(text).encode("utf-16-le")) // 2 <= 4000, "a text of more than 4,000 UTF-16 units"),
        ("parse_mode" not in request.body, "a parse mode"),
        (request.body.get("link_preview_options") == {"is_disabled": True}, "link previews are on"),
        (isinstance(request.body.get("disable_notification", False), bool), "disable_notification is not a boolean"),
        (request.body.get("message_thread_id", 2) != 1, "topic 1 has no thread id"),
    )
    return [words for is_kept, words in rules if not is_kept]


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass  # connections that are reset on purpose


class BotApi:
    """The server of one test, ended with it."""

    def __init__(self, test, *plan):
        self.plan = list(plan)
        self.always = ok
        self.methods = ("sendMessage",)  # what may be called at all
        self.requests: list = []  # all that arrived
        self.shown: list = []  # what a person has seen
        self.connections = 0
        self.complaints: list = []
        self.watchers: list = []  # called with each request before it is answered
        self.ended = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.bot = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        test.addCleanup(lambda: test.assertEqual(self.complaints, [], "the Bot API's rules were broken"))
        test.addCleanup(thread.join, 5)
        test.addCleanup(self.close)

    def close(self):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def texts(self):
        """What a person has read."""
        return [request.text for request in self.shown]


def free_port():
    """A port on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# ---- the script in this process


@contextlib.contextmanager
def guest():
    """The script runs in here; its signal handlers, its descriptors and its directory end with the block."""
    bells: list = []
    ring = ops.ring_on_exit

    def ring_and_remember():
        bells.append(ring())
        return bells[-1]

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = [signal.getsignal(number) for number in numbers]
    place = os.getcwd()
    try:
        with mock.patch.object(ops, "ring_on_exit", ring_and_remember):
            yield
    finally:
        signal.set_wakeup_fd(-1)
        for number, function in zip(numbers, before):
            signal.signal(number, function)
        for fd in (fd for bell in bells for fd in bell):
            os.close(fd)
        os.chdir(place)


# ---- the house


FAKE_OPENCLAW = """
import json, os, signal, sys, time
calls, plan = sys.argv[1:3]
with open(calls, "a", encoding="utf-8") as file:
    told = {"argv": sys.argv[3:], "env": dict(os.environ), "stdin": os.path.realpath("/proc/self/fd/0")}
    file.write(json.dumps(told) + "\\n")
try:
    with open(plan, encoding="utf-8") as file:
        steps = json.load(file)
except FileNotFoundError:
    steps = []
step = steps.pop(0) if steps else {}
with open(plan, "w", encoding="utf-8") as file:
    json.dump(steps, file)
if step.get("ignore_term"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(step.get("sleep", 0))
sys.stdout.write(step.get("out", ""))
sys.stderr.write(step.get("err", ""))
sys.exit(step.get("code", 0))
"""


class Ran(NamedTuple):
    """What one call of the command line gave."""

    code: Any
    out: str
    err: str


class House:
    """A temporary machine: HOME, OpenClaw's config in it, our config and state, programs on the PATH."""

    def __init__(self, test, bot=None, jobs=(), **settings):
        self.test = test
        holder = tempfile.TemporaryDirectory()
        test.addCleanup(holder.cleanup)
        self.top = os.path.realpath(holder.name)
        self.home = os.path.join(self.top, "home")
        self.claw = os.path.join(self.home, ".openclaw")
        self.bin = os.path.join(self.top, "bin")
        self.work = os.path.join(self.top, "work")
        for place in (os.path.join(self.claw, "net", "config"), os.path.join(self.claw, "net", "state"), self.bin, self.work):
            os.makedirs(place, 0o700)
        self.openclaw_file = os.path.join(self.claw, "openclaw.json")
        self.config_file = os.path.join(self.claw, "net", "config", "ops-jobs.json")
        self.state_file = os.path.join(self.claw, "net", "state", "ops-monitor.json")
        self.env = {"HOME": self.home, "PATH": self.bin, "LANG": "C.UTF-8", "TZ": NOON}
        self.settings = {"version": 1, "jobs": list(jobs), **settings}
        root = bot.url if bot else f"http://127.0.0.1:{free_port()}"
        self.telegram = {"botToken": TOKEN, "apiRoot": root}
        self.claw_config = {"channels": {"telegram": self.telegram}, "commands": {"ownerAllowFrom": ["telegram:" + OWNER]}}
        self.write()

    def write(self):
        """Write both configs as they are now."""
        for path, value in ((self.openclaw_file, self.claw_config), (self.config_file, self.settings)):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(value, file, ensure_ascii=False)
            os.chmod(path, 0o600)

    def fake_openclaw(self, *plan):
        """An `openclaw` on the PATH that plays these steps ({code, out, err, sleep, ignore_term}), then says yes."""
        body = os.path.join(self.top, "openclaw.py")
        with open(body, "w", encoding="utf-8") as file:
            file.write(FAKE_OPENCLAW)
        words = [sys.executable, "-IS", body, self.calls_file, self.plan_file]
        path = os.path.join(self.bin, "openclaw")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + ' "$@"\n')
        os.chmod(path, 0o755)
        self.plan_openclaw(*plan)
        return path

    def plan_openclaw(self, *plan):
        with open(self.plan_file, "w", encoding="utf-8") as file:
            json.dump(plan, file)

    @property
    def calls_file(self):
        return os.path.join(self.top, "openclaw.calls")

    @property
    def plan_file(self):
        return os.path.join(self.top, "openclaw.plan")

    @property
    def calls(self):
        """What the fake `openclaw` was called with: {argv, env, stdin} each."""
        if not os.path.exists(self.calls_file):
            return []
        with open(self.calls_file, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def called_with(self, option):
        """The value of an option in each call of `openclaw`; None where it was not given."""
        found = []
        for call in self.calls:
            argv = call["argv"]
            found.append(argv[argv.index(option) + 1] if option in argv else None)
        return found

    # ---- our state

    @property
    def state(self):
        with open(self.state_file, encoding="utf-8") as file:
            return json.load(file)

    @property
    def outbox(self):
        return self.state.get("outbox", []) if os.path.exists(self.state_file) else []

    def change_state(self, change):
        """Apply `change(raw)` to the state file, under its lock."""
        raw = self.state if os.path.exists(self.state_file) else {"version": ops.STATE_VERSION}
        change(raw)
        with open(self.state_file, "w", encoding="utf-8") as file:
            json.dump(raw, file)

    def make_due(self):
        """Every wait of the outbox is over: what a test does instead of waiting."""

        def change(raw):
            for entry in raw["outbox"]:
                entry["notBefore"] = time.time() - 1

        self.change_state(change)

    def age(self, seconds):
        """Everything in the outbox happened this much earlier."""

        def change(raw):
            for entry in raw["outbox"]:
                entry["createdAt"] -= seconds
                entry["notBefore"] -= seconds

        self.change_state(change)

    def put(self, *entries):
        """Put {text, rank, …} into the outbox, due now."""
        now = time.time() - 1

        def change(raw):
            made = [{"id": f"e{number}", "createdAt": now, "notBefore": now, "rank": 3, **entry} for number, entry in enumerate(entries)]
            raw["outbox"] = raw.get("outbox", []) + made

        self.change_state(change)

    @contextlib.contextmanager
    def held_lock(self, name):
        """Another process holds this lock of ours meanwhile (as flock sees it)."""
        place = self.state_file[: -len(".json")] + ".locks"
        os.makedirs(place, 0o700, exist_ok=True)
        with open(os.path.join(place, name + ".lock"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield

    # ---- checks that write down each of their runs

    def check(self, name="disk", code=3, says="", **more):
        """A scheduled check that notes its run and ends with `code`; it runs once a day."""
        script = f"echo {name} >> '{self.work}/ran'; printf '%s\\n' '{says}'; exit {code}"
        job = {"id": name, "kind": "one_shot_read", "risk": "read_only", "enabled": True, "cwd": self.work}
        return {**job, "commands": {"run": ["/bin/sh", "-c", script]}, "policy": {"everySeconds": 86400}, **more}

    def watched(self, name="index", **status):
        """A long job whose status command prints this."""
        text = json.dumps({"running": True, "completed": False, **status})
        start = ["/bin/sh", "-c", "exit 0"]
        job = {"id": name, "kind": "long_running_read", "risk": "read_only", "enabled": True, "cwd": self.work}
        return {**job, "commands": {"start": start, "status": ["/bin/sh", "-c", f"printf '%s' '{text}'"]}}

    def set_jobs(self, *jobs, **settings):
        self.settings.update(jobs=list(jobs), **settings)
        self.write()

    def runs(self, name="disk"):
        """How often the check has run."""
        try:
            with open(os.path.join(self.work, "ran"), encoding="utf-8") as file:
                return file.read().split().count(name)
        except FileNotFoundError:
            return 0

    # ---- the command line, in this process

    def call(self, *argv, **env):
        """The command line `argv` in this house: its exit code and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with guest(), mock.patch.dict(os.environ, {**self.env, **env}, clear=True), mock.patch.object(tempfile, "tempdir", self.top), \
                mock.patch.object(ops, "COMMON_PLACES", ()), mock.patch.object(sys, "argv", ["ops-monitor.py"]), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = ops.main(list(argv))
        ran = Ran(code, out.getvalue(), err.getvalue())
        self.test.assertNotEqual(code, ops.BUG, ran.err)
        return ran

    def tick(self, *argv, **env):
        return self.call("tick", *argv, **env)

    def files_with(self, text, *left_out):
        """The files of this house that hold `text`, OpenClaw's own config apart."""
        found = []
        for place, _, names in os.walk(self.top):
            for path in (os.path.join(place, name) for name in names):
                if path in (self.openclaw_file, *left_out) or not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    if text.encode("utf-8") in file.read():
                        found.append(path)
        return found


def script_argv(*argv):
    """The command line `argv` for a real process."""
    return [sys.executable, "-I", "-S", str(SCRIPT), *argv]
