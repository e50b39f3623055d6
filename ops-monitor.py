#!/usr/bin/env python3
"""Ops Framework: one file that watches long jobs, tells a person, and never writes unasked.

The operating system's scheduler calls `ops-monitor.py tick` every minute or so.
A tick reads `ops-jobs.json`, looks at every job, decides what is worth saying or
doing, does it, and delivers what is to be said.  Nothing stays resident.

How a tick works
    look     Each enabled long job's status command is run and read as one
             observation: running, completed, stopped, idle or unknown.
    decide   A pure function of (observation, memory, policy, time) gives the new
             memory, the effects, and a reason - also for silence.
    act      Before anything is started the intention is saved; after it, the
             result.  Any step may be the last before a power cut.
    deliver  What is to be said waits in the state's outbox and leaves it when the
             receiver has confirmed it: at least once, at most one repeat a crash.

How the file is read
    From the ground up: a room uses the rooms before it, never one after it.
    `grep '^# ====' ops-monitor.py` is the table of contents:
        WORDS         records, states, exit codes
        UNITS         durations, instants, widths
        REDACTION     what must not be shown
        MESSAGES      every sentence a person may read, English and Chinese
        ERRORS        named by whose fault they are
        TOLERANT JSON what people write when they write JSON by hand
        CONFIG        the FIELDS table and everything derived from it
        OPENCLAW      another program's config, read for a token and a target
        SCHEDULERS    how `tick` is called, in the words of systemd, launchd and cron
        STATE         what is remembered, its shape and its migrations
        JUDGEMENT     decide: when to speak, when to act, and why not
        VOICE         decisions as text
      ------ the threshold: rooms above it touch no clock, file, process or network
        WORLD         clock, files, locks, processes, HTTP
        MANAGED       the supervisor of managed jobs and its records
        ENGINE        flows: look, run, start, stop, deliver
        GATE          writes: approved for exactly these bytes, run once, verified
        COMMANDS      what a person can type
        DOOR          parser, error boundary, main

`ops-monitor.py -h` lists the commands; OPS_FRAMEWORK.md (Chinese) is the whole
specification, README.md the short one.  Standard library only, Python 3.9 and up.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.isolated and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # this file's directory: a neighbouring queue.py or json.py is not ours to import

import argparse
import errno
import fcntl
import json
import marshal
import os
import re
import select
import signal
import stat
import time
from collections import Counter, defaultdict, namedtuple

TYPE_CHECKING = False  # type checkers read the first branch; `typing` costs 8 ms of each start for these records
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, NamedTuple, Optional

    Flow = Generator[Any, Any, Any]
else:

    class RecordMaker(type):
        """Makes of a class body what typing.NamedTuple makes of it, without looking at the types."""

        def __new__(cls, name, bases, body):
            if not bases:
                return super().__new__(cls, name, bases, body)
            fields = list(body.get("__annotations__", ()))
            made = namedtuple(name, fields, defaults=[body[field] for field in fields if field in body], module=body["__module__"])
            for key, value in body.items():
                if key not in fields and key not in ("__module__", "__qualname__"):
                    setattr(made, key, value)
            return made

    NamedTuple = RecordMaker("NamedTuple", (), {})

VERSION = "2.0.0"

# ==== WORDS ==============================================================
# The nouns of the framework, once.  Records are immutable; nothing here acts.

RUNNING, COMPLETED, STOPPED, IDLE, UNKNOWN = "running", "completed", "stopped", "idle", "unknown"
LONG_READ, CHECK, WRITE = "long_running_read", "one_shot_read", "one_shot_write"
READ_ONLY = "read_only"

DONE, JOB_FAILED, USAGE, UNDELIVERED, BLOCKED = 0, 1, 2, 3, 4
BUG, STATE_TROUBLE, BUSY = 70, 74, 75  # sysexits.h: EX_SOFTWARE, EX_IOERR, EX_TEMPFAIL

# How loud a notification is.  What rings carries ALERT or ACTION REQUIRED.
ROUTINE, NOTICE, WARN, ALERT = 0, 1, 2, 3

NOT_RUN = 1000  # in the place of an exit code: the command could not be run


class Phrase(NamedTuple):
    """A sentence not yet in a language: a row of MESSAGES and the facts for its holes."""

    key: str
    facts: dict = {}


class Instant(NamedTuple):
    """One moment on every clock that a decision needs.  It is read once and passed on."""

    at: float  # wall clock, epoch seconds; may jump
    awake: float = 0.0  # seconds on a clock that stops while the machine sleeps and never jumps
    boot: str = ""  # identity of this boot; `awake` only compares within one
    minute: int = 720  # minute of the local day, 0 to 1439, for quiet hours


class Outcome(NamedTuple):
    """What came of running one command."""

    began: Instant
    ended: Instant
    code: Optional[int] = None  # exit code; negative: the signal that ended it; None: never ran, or not even KILL ended it
    timed_out: bool = False
    failure: Optional[Phrase] = None  # why it could not be run at all
    out: bytes = b""  # standard output as kept: its head, a gap line, its tail
    err: bytes = b""  # standard error, kept the same way
    attention: tuple = ()  # lines (bytes) that contain an attention pattern, the first 20
    out_size: int = 0  # bytes that standard output really had
    limit: float = 0.0  # seconds that it was given

    @property
    def is_good(self) -> bool:
        return self.code == 0 and not self.timed_out and self.failure is None


class Observation(NamedTuple):
    """What one look at a long job saw."""

    when: Instant
    state: str
    key: str = ""  # equal keys mean no progress; "" = this look cannot tell
    pid: int = 0  # 0 = not said or not usable
    run: str = ""  # identity of the run where known (managed jobs); a new one is a new run
    progress: dict = {}
    level: str = "ok"
    message: str = ""
    waiting: bool = False  # alive, but waiting on purpose
    stop_reason: str = ""
    problem: Optional[Phrase] = None  # why the state is unknown
    detail: str = ""  # last output lines, for a problem
    resumable: bool = True  # False: the checkpoint belongs to another command
    held: bool = False  # a person has stopped this run
    orphaned: bool = False  # the job was a managed one, and that run of it still lives


class Incident(NamedTuple):
    """One trouble of one kind on one job, and what was told of it."""

    since_at: float = 0.0  # first look that showed it, epoch seconds
    looks: int = 0  # looks in a row that agreed before it opened
    opened_at: float = 0.0  # 0 = not enough looks agree yet
    rank: int = 0  # WARN or ALERT; NOTICE while auto-resume handles it
    key: str = ""  # MESSAGES row of what is wrong
    facts: dict = {}  # its facts, for `status`
    told_at: float = 0.0  # last telling; 0 = a person does not know yet
    told_rank: int = 0  # rank of that telling
    told_text: str = ""  # its text with digits masked, to notice a really different one
    earlier: list = []  # digests of the texts told before that one: one that comes back is not told again
    texts: int = 0  # really different texts told so far; at most five
    reminders: int = 0  # reminders told; each next wait doubles
    acked_at: float = 0.0  # a person has seen it: no reminders until it changes


class Memory(NamedTuple):
    """What is remembered of one job.  A default means absent; JSON keys are the camelCase."""

    looked_at: float = 0.0  # latest judged look, epoch seconds
    looked_awake: float = 0.0  # the same on the awake clock
    boot: str = ""  # boot that looked_awake belongs to
    last_look: str = ""  # state of that look, `unknown` and `waiting` included
    state: str = ""  # last state that was not unknown
    state_at: float = 0.0  # when that state was first seen
    pid: int = 0  # pid of the running job as last seen
    run: str = ""  # run identity as last seen
    key: str = ""  # latest progress key
    key_at: float = 0.0  # when it was first seen
    stalled_for: float = 0.0  # awake seconds between running looks with this key
    reported_at: float = 0.0  # last routine report
    reported_key: str = ""  # progress key in it
    reported_progress: dict = {}  # progress in it, for the difference
    completed_fired: bool = False  # `after` of this completion is queued
    completed_told: bool = False  # this completion is reported
    held_at: float = 0.0  # a person stopped it; not resumed until `start`
    attempts: int = 0  # resume attempts in a row without success
    attempt_at: float = 0.0  # last attempt
    attempt_key: str = ""  # progress key at that attempt
    gave_up_at: float = 0.0  # attempts are used up; nothing automatic until `start`
    action: str = ""  # intention without a result: start, restart or run; started: it went well, no look has shown it yet
    action_at: float = 0.0  # when it was saved
    action_for: float = 0.0  # seconds within which it must have ended
    action_id: str = ""  # marker of its processes; run: tells a living one from a lost one
    action_tries: int = 0  # runs of the same slot or queue entry so far
    action_entry: str = ""  # id of the queue entry that is being run; "" = a scheduled slot
    incidents: dict = {}  # kind -> Incident
    anchor_at: float = 0.0  # first scheduled run; the grid of everySeconds starts here
    slot_at: float = 0.0  # latest slot that was taken
    ran_at: float = 0.0  # end of the last one-shot run
    ran_code: int = 0  # its exit code, negative: signal, NOT_RUN: did not run
    muted_at: float = 0.0  # messages are held from here …
    muted_for: float = 0.0  # … for this long, in seconds
    muted_count: int = 0  # messages held so far
    flips: list = []  # times within the last day at which an incident opened or closed, the latest 13
    flapping_at: float = 0.0  # told as flapping since; 0 = it is not
    digest_at: float = 0.0  # the monitor's own: when the last daily digest was told; 0 = no digestAt, or not one yet
    digest_progress: dict = {}  # progress told in that digest, for the difference; absent without digestAt
    left_at: float = 0.0  # first tick that did not find the job in the config
    ticks: list = []  # the monitor's own: times of its last ten ticks; those at a terminal are a person's and do not count
    inherited_at: float = 0.0  # v1 had told an anomaly at this time; the first incident adopts it
    reason: str = ""  # why the last look led to what it led to (a MESSAGES row)


class Gate(NamedTuple):
    """What is remembered of a write job: its approval, its code, its latest run, its verification."""

    digest: str = ""  # of the plan that a person approved; "" = no approval
    items: dict = {}  # label -> salted hash of what was approved, to name what changed
    salt: str = ""  # of those hashes
    approved_at: float = 0.0  # epoch seconds, as all times here
    approved_for: float = 0.0  # seconds that the approval holds
    code_hash: str = ""  # one-time code, slowly hashed; "" = none is out
    code_salt: str = ""  # of that hash
    code_digest: str = ""  # the plan that the code was sent with
    code_at: float = 0.0  # when it was sent
    code_tries: int = 0  # guesses so far
    requests: list = []  # times of code requests within the last hour
    run: str = ""  # begun, good, failed or unknown
    run_id: str = ""  # marker of its processes
    run_digest: str = ""  # of the plan that was run
    run_began_at: float = 0.0
    run_ended_at: float = 0.0  # what began before it verifies nothing
    run_code: int = 0  # its exit code, negative: signal, NOT_RUN: did not run
    verify: str = ""  # pending, passed, failed, or other: a run was good, but of another check than the one approved
    verify_left: list = []  # verification jobs that have not passed yet
    verify_failed: list = []  # those of them whose last run failed, or was of another check
    verify_items: dict = {}  # label -> salted hash of what the verifications were and are to be; only those verify
    verify_salt: str = ""  # of those hashes
    verify_for: float = 0.0  # seconds after the run's end within which they must


class Finding(NamedTuple):
    """Something wrong that one look or one run shows."""

    kind: str
    rank: int  # WARN or ALERT; NOTICE: auto-resume handles it, AUTORUN tells it
    phrase: Phrase
    detail: str = ""  # output lines to show with it


class Reason(NamedTuple):
    """Why something was or was not told or done."""

    key: str  # a MESSAGES row
    again_at: float = 0.0  # when the answer may change by itself; 0 = not by time
    facts: dict = {}


class Notify(NamedTuple):
    """Effect: put one section into the outbox."""

    kind: str  # incident kind, or routine, completed, autorun …
    telling: str  # opened, worse, changed, reminder, resolved, routine, completed, autorun, told, muted
    rank: int
    phrase: Phrase
    detail: str = ""
    since_at: float = 0.0  # when the trouble began, epoch seconds; 0 = not said
    look: Optional[Observation] = None  # the one that it is told of
    reported: dict = {}  # progress in the last report, for the difference to the look's


class Resume(NamedTuple):
    """Effect: start a stopped job again, or stop and start a stalled one."""

    restart: bool = False


class Enqueue(NamedTuple):
    """Effect: queue a follow-up job."""

    job_id: str
    delay: float  # seconds from now


class Decision(NamedTuple):
    """The judgement on one look or run: what to remember, what to do, and why."""

    memory: Memory
    effects: tuple = ()
    reasons: dict = {}  # topic (report, resume, incident kinds) -> Reason

    def why(self, topic: str) -> str:
        found = self.reasons.get(topic)
        return found.key if found else ""


# ==== UNITS ==============================================================
# Durations, instants and widths as people write and read them.  Arithmetic only.

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def duration_text(seconds: float) -> str:
    """`95` -> `1m 35s`; at most two units, none of them zero unless all are."""
    if 0 < seconds < 10 and seconds != int(seconds):
        return format(seconds, ".1f" if seconds >= 0.1 else ".3g") + "s"
    left = max(0, int(seconds + 0.5))
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def clip(text: str, limit: int) -> str:
    """`text` cut to `limit` UTF-16 units; the cut shows."""
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) <= 2 * limit:
        return text
    kept = units[: 2 * max(0, limit - 2)].decode("utf-16-le", "surrogatepass")
    return (kept if text.startswith(kept) else kept[:-1]) + " …"  # half a letter is none


def one_line(text: str, limit: int = 200) -> str:
    """`text` on one line, white space folded."""
    return clip(" ".join(text.split()), limit)


def duration_seconds(text: str) -> float:
    """Seconds in `90`, `1.5h`, `2d 3h`.  Raises ValueError for anything else."""
    if not re.fullmatch(r"\s*(?:\d{1,12}(?:\.\d+)?|(?:\d{1,12}(?:\.\d+)?\s*[smhd]\s*)+)\s*", text):
        raise ValueError(f"expected a duration like 90, 15m or 2h, found '{one_line(text, 40)}'")
    sizes = {"": 1.0, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
    return sum(float(number) * sizes[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text))


def number_text(value: Any) -> str:
    """A number as it was written; true and false as JSON writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return getattr(value, "text", None) or str(value)


def utf16_length(text: str) -> int:
    """UTF-16 units, in which Telegram counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def last_lines(text: str, count: int = 8, limit: int = 1200) -> str:
    """The last non-blank lines of an output, for a person: so many, and at most `limit` letters of them."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    chosen = "\n".join(clip(line, 300) for line in lines[-count:])
    return chosen if len(chosen) <= limit else "… " + chosen[-limit:]


def display_width(text: str) -> int:
    """Columns on a terminal: wide letters take two, combining marks none."""
    if text.isascii():
        return len(text)
    import unicodedata  # 1 MB of tables: only for text that needs them

    shown = [letter for letter in text if not unicodedata.combining(letter) and letter not in "\u200d\ufe0f"]
    return len(shown) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in shown)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - display_width(text))


def camel(name: str) -> str:
    """`looked_at` -> `lookedAt`."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def snake(key: str) -> str:
    """`stallSeconds` -> `stall_seconds`."""
    return re.sub(r"[A-Z]", lambda match: "_" + match.group().lower(), key)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """How a sentence about an unknown word goes on: with the known one that it most probably means, if there is any."""
    import difflib  # dear and rare: only after a mistake

    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def text_digest(text: str) -> str:
    """Eight letters that differ for different texts, well enough for a few of them."""
    import zlib  # rare: only for long texts, and those that change

    return format(zlib.crc32(text.encode("utf-8", "surrogatepass")), "08x")


def masked_digits(text: str) -> str:
    """`text` as an identity of at most 100 characters: other numbers do not make it a different text."""
    masked = re.sub(r"\d+(?:[.,]\d+)*(?:[dhms]\b(?: \d+[dhms]\b)*)?", "#", text)  # `1h 5m` is one number
    return masked if len(masked) <= 100 else f"{masked[:90]}:{text_digest(masked)}"


def shell_word(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text) else "'" + text.replace("'", "'\"'\"'") + "'"


def slug(job_id: str) -> str:
    """A file name that is readable, safe and unique for a job id."""
    import hashlib  # 3 ms: only when a job's own files are touched

    readable = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-")[:40]
    return f"{readable or 'job'}-{hashlib.sha256(job_id.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


# ==== REDACTION ==========================================================
# The one home of what must not be shown: credentials and control characters.  Every text that a
# command, a server or a file gave us passes `Redactor` before it is told, stored or printed.

CREDENTIALS = (
    r"(?<!\d)\d{6,12}:[A-Za-z0-9_-]{30,}"  # Telegram bot token
    r"|\bsk-[A-Za-z0-9_-]{16,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bxox[abposr]-[A-Za-z0-9-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
KEY_WITHOUT_BEGIN = r"(?:(?m:^)[A-Za-z0-9+/=]{0,76}\n)*-----END [A-Z ]*PRIVATE KEY-----"
LABELLED = (
    r"(?i)(\bBearer\s+|\bBasic\s+(?=[A-Za-z0-9+/=]{12})"
    r"|(?:password|passwd|passphrase|secret|token|(?:api|access|secret)[_-]?key)\\*[\"']?\s*[=:]\s*)"
    r"(?!(?:permission denied|no such file|(?:is|not) a directory)\b)"  # of a file with such a name
    r"(\\*\"[^\"\n]*|\\*'[^'\n]*|[^\s\"'&,;]+)"
)
URL_PASSWORD = r"(://[^\s/:@]*:)[^\s/]+@"
SECRET_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY")
MASK = "***"
# Escape sequences of terminals; control characters but tab and line feed; characters that turn text around.
UNPRINTABLE = r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"


def secret_values(env: dict) -> set:
    """Values of 8 or more characters whose names say that they are secret."""
    return {value for name, value in env.items() if len(value) >= 8 and any(word in name.upper() for word in SECRET_NAMES)}


GAP = rb"\n\[\.\.\. [0-9]+ bytes left out \.\.\.\]\n"  # stands where an output was too long to be kept
# Letters of which credentials are made.  Where a text is cut, what it ends or begins with may be part of one, which no
# pattern recognises any more: it goes as well, up to a length that no credential has.
PART_OF_A_WORD = rb"[A-Za-z0-9+/=_.:~-]{0,2048}"


def without_cut_end(data: bytes) -> bytes:
    """What was cut at its end, without the part of a word that this leaves there."""
    return data[: len(data) - len(re.search(PART_OF_A_WORD + rb"\Z", data[-2048:]).group())]  # type: ignore[union-attr]


def without_cut_begin(data: bytes) -> bytes:
    """The same for its beginning."""
    return data[len(re.match(PART_OF_A_WORD, data).group()) :]  # type: ignore[union-attr]


class Redactor:
    """Masks credentials: those it has been told of and those that look like one."""

    def __init__(self, secrets: Iterable[str] = ()):
        self.secrets: list = []
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these values from now on, the longest first so that no part of one survives."""
        self.secrets = sorted({*self.secrets, *secrets}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        if len(text) < 6 or text.isdigit():  # no pattern is shorter
            return text
        text = re.sub(CREDENTIALS, MASK, text)
        if "PRIVATE KEY-----" in text:  # its beginning was cut off
            text = re.sub(KEY_WITHOUT_BEGIN, MASK, text)
        if "=" in text or ":" in text or re.search("(?i)bearer|basic", text):
            text = re.sub(LABELLED, rf"\1{MASK}", text)
            text = re.sub(URL_PASSWORD, rf"\1{MASK}@", text)
        return text

    def tidy(self, text: str) -> str:
        """`text` safe to show: no terminal controls, no lone surrogates, no credentials."""
        if not text.isprintable():
            text = re.sub(UNPRINTABLE, "", text.replace("\r\n", "\n").replace("\r", "\n"))
            text = text.encode("utf-8", "replace").decode("utf-8")
        return self(text)

    def read(self, raw: bytes) -> str:
        """Bytes of a command as text safe to show; invalid UTF-8 becomes U+FFFD."""
        gap = re.search(GAP, raw)
        if gap:
            raw = without_cut_end(raw[: gap.start()]) + gap.group() + without_cut_begin(raw[gap.end() :])
        return self.tidy(raw.decode("utf-8", "replace"))

    def scrub(self, value: Any, depth: int = 6) -> Any:
        """A JSON value with every text in it made safe to show."""
        if isinstance(value, str):
            return self.tidy(value)
        if isinstance(value, dict) and depth:
            return {self.tidy(str(key)): self.scrub(item, depth - 1) for key, item in value.items()}
        if isinstance(value, list) and depth:
            return [self.scrub(item, depth - 1) for item in value]
        return value if value is None or isinstance(value, (int, float)) else MASK


# ==== MESSAGES ===========================================================
# Every sentence a person may read, English and Chinese in one row with the same holes.  The tokens
# ALERT, ACTION REQUIRED, RESOLVED, COMPLETED, AUTORUN and BLOCKED stay as they are: people grep them.

MESSAGES = {
    # what a command did
    "run.timeout": ("took longer than {seconds} and was ended", "超过 {seconds} 未结束，已被终止"),
    "run.signal": ("ended by signal {signal}", "被信号 {signal} 终止"),
    "run.not_run": ("its command could not be run", "命令未能运行"),
    "run.exit": ("exit code {code}", "退出码 {code}"),
    "run.exit126": ("exit code {code}: a program could not be executed", "退出码 {code}：程序无法执行"),
    "run.exit127": ("exit code {code}: a program was not found", "退出码 {code}：找不到程序"),
    "run.missing": ("no such program: {program}", "没有这个程序：{program}"),
    "run.no_cwd": ("no such directory: {cwd}", "没有这个目录：{cwd}"),
    "run.cwd_denied": ("not allowed to enter the directory {cwd}", "无权进入目录 {cwd}"),
    "run.denied": ("not allowed to execute {program}: {error}", "无权执行 {program}：{error}"),
    "run.no_interpreter": ("{program} cannot be executed: its first line names no interpreter of this machine", "{program} 无法执行：首行没有指明本机可用的解释器"),
    "run.cannot": ("{program} cannot be run: {error}", "{program} 无法运行：{error}"),
    # why a status is unknown
    "status.large": ("the status answer is over 1 MiB", "状态输出超过 1 MiB"),
    "status.utf8": ("the status answer is not UTF-8", "状态输出不是 UTF-8"),
    "status.json": ("the status answer is not JSON", "状态输出不是 JSON"),
    "status.empty": ("the status command printed nothing", "状态命令没有输出"),
    "status.object": ("the status answer is not a JSON object", "状态输出不是 JSON 对象"),
    "status.boolean": ("the status answer lacks the boolean '{field}'", "状态输出缺少布尔字段“{field}”"),
    "status.both": ("the status answer says running and completed at once", "状态输出同时声称运行中和已完成"),
    "managed.gone": ("it was running, and its records in {directory} are gone; it may still run", "它之前在运行，但 {directory} 中的记录不见了；它可能仍在运行"),
    "managed.lost": ("it was running before the machine restarted, and its records in {directory} are gone", "机器重启之前它在运行，{directory} 中的记录不见了"),
    "managed.record": ("the run record cannot be read: {error}", "运行记录无法读取：{error}"),
    "progress.unreadable": ("the progress file cannot be read: {error}", "进度文件无法读取：{error}"),
    "progress.not_json": ("the progress file is not a JSON object", "进度文件不是 JSON 对象"),
    # incidents
    "unknown": ("the status cannot be told: {why}", "无法判断状态：{why}"),
    "stopped": ("stopped before it was complete; reason: {reason}", "未完成就停止；原因：{reason}"),
    "stopped.gave_up": ("stopped; all attempts to resume are used up: {attempts}; reason: {reason}", "已停止；续跑次数已用完：{attempts}；原因：{reason}"),
    "stopped.changed": ("stopped; its command has changed since the checkpoint, so it is not resumed; reason: {reason}", "已停止；命令在检查点之后有改动，不自动续跑；原因：{reason}"),
    "flapping": ("it keeps going wrong and right again; single changes are not told until it has been steady for an hour", "反复出现异常又恢复；稳定满一小时后才恢复逐次告知"),
    "orphan": ("it runs, but the config no longer has it as a managed job; {command}", "正在运行，但配置中已没有这个托管任务；{command}"),
    "stalled": ("running without progress for {for}; progress key: {key}", "运行中但 {for} 没有进展；进度键：{key}"),
    "level": ("the job reports: {message}", "任务报告：{message}"),
    "attention": ("its output asks for attention:\n{lines}", "输出内容需要关注：\n{lines}"),
    "interrupted.again": ("the run that began {time} was interrupted; it is run once more", "{time} 开始的运行被中断；将再运行一次"),
    "interrupted.off": ("the run that began {time} was interrupted; the job is disabled, so it is not repeated", "{time} 开始的运行被中断；任务未启用，不再重试"),
    "interrupted": ("the run that began {time} was interrupted again; it is not repeated", "{time} 开始的运行再次被中断；不再重试"),
    "autorun": ("stopped ({reason}); it is being continued from its checkpoint, attempt {attempt} of {most}", "已停止（{reason}）；正在从检查点续跑，第 {attempt} 次，上限 {most}"),
    "autorun.restart": ("no progress for {for}; it is being stopped and started again, attempt {attempt} of {most}", "{for} 没有进展；正在停止并重新启动，第 {attempt} 次，上限 {most}"),
    "completed": ("done", "已完成"),
    "running": ("running", "运行中"),
    "muted.summary": ("messages held: {count}", "期间未发送的消息：{count}"),
    "blocked.unknown": ("BLOCKED: the queue names job '{job}', which the config does not have", "BLOCKED：队列中的任务“{job}”不在配置中"),
    "blocked.queue": ("BLOCKED: job '{job}' is a {kind}; only a one_shot_read is run from the queue", "BLOCKED：任务“{job}”是 {kind}；队列只运行 one_shot_read"),
    "blocked.write": ("BLOCKED: '{job}' was asked to run and did not: {why}", "BLOCKED：收到运行“{job}”的请求，未执行：{why}"),
    "verify.wrong": ("the write ran, its verification failed: {jobs}", "写入已执行，验证失败：{jobs}"),
    "verify.other": ("the write ran; its verification was good, but it is not the check that was approved with it: {jobs}", "写入已执行；验证运行正常，但它不是一同批准的那个检查：{jobs}"),
    "verify.left": ("the write ran, and left the config before it was verified: {jobs}", "写入已执行，但在验证之前就从配置中消失：{jobs}"),
    "verify.overdue": ("the write ran, its verification is overdue: {jobs}", "写入已执行，验证逾期未完成：{jobs}"),
    "write.unknown": ("the outcome of the last run is unknown: it began and its result was lost; look before you approve again", "上次运行结果未知：已开始，但结果丢失；再次批准前请先检查"),
    "busy": ("another process holds this job's lock and should have ended {for} ago; until it ends nothing is run or started; who: {command}", "另一个进程占用着此任务的锁，{for} 前就该结束；在它结束之前不会运行或启动；查看占用者：{command}"),
    "config.errors": ("the config has errors: {count}; jobs left out: {jobs}\n{lines}", "配置有错误：{count}；未参与监控的任务：{jobs}\n{lines}"),
    "config.unusable": ("the config cannot be used, nothing is watched: {problem}", "配置无法使用，目前没有任何监控：{problem}"),
    "state.lost": ("the state file {path} could not be read; it was moved to {aside}; nothing is resumed in this tick", "状态文件 {path} 无法读取，已移到 {aside}；本轮不会自动续跑"),
    "state.unreadable": ("{path} cannot be read: nothing that was remembered is shown; the next tick moves it aside", "{path} 无法读取：以下不含任何记忆内容；下一次 tick 会把它移开"),
    "undelivered": ("messages cannot be delivered: {problem}", "消息无法送达：{problem}"),
    "after_tick": ("the tick was good, monitor.afterTick was not: {why}", "tick 正常，但 monitor.afterTick 失败：{why}"),
    "name.monitor": ("ops-monitor itself", "监控程序自身"),
    # parts of a section
    "headline.warn": ("WARNING", "注意"),
    "headline.notice": ("note", "提示"),
    "headline.routine": ("running", "运行中"),
    "headline.muted": ("unmuted", "静音结束"),
    "headline.digest": ("daily digest", "每日摘要"),
    "state.running": ("running", "运行中"),
    "state.running_pid": ("running, pid {pid}", "运行中，pid {pid}"),
    "state.waiting": ("running, waiting on purpose", "运行中，主动等待"),
    "line.stop_reason": ("stop reason: {reason}", "停止原因：{reason}"),
    "line.was": ("it was: {words}", "此前：{words}"),
    "line.output": ("last output:", "最后的输出："),
    "line.late": ("(late: this happened at {time})", "（延迟送达：发生于 {time}）"),
    "line.repeat": ("(possible repeat)", "（可能重复）"),
    "line.was_queued": ("the alert of {time} had not been delivered", "{time} 的告警未能送达"),
    "line.maybe_queued": ("the alert of {time} may not have been delivered", "{time} 的告警可能未送达"),
    "line.more": ("… and more: {count}. See: {command}", "……还有：{count}。查看：{command}"),
    # reasons: incidents
    "incident.none": ("nothing wrong", "没有异常"),
    "incident.unsure": ("this look cannot tell", "本次查看无法判断"),
    "incident.came_and_went": ("it came and went before it was told", "告知之前已经恢复"),
    "incident.resolved": ("tell: it is resolved", "告知：已恢复"),
    "incident.not_yet": ("looks that agree: {looks} of {needed}", "一致的查看次数：{looks}/{needed}"),
    "incident.by_attempt": ("auto-resume handles it; AUTORUN tells it", "由自动续跑处理，以 AUTORUN 告知"),
    "incident.quiet_hours": ("held by quiet hours", "安静时段内暂不告知"),
    "incident.opened": ("tell: it is new", "告知：新出现"),
    "incident.worse": ("tell: it got worse", "告知：情况恶化"),
    "incident.changed": ("tell: its text is really different", "告知：内容有实质变化"),
    "incident.flapping": ("the job is flapping: nothing is told of single changes", "任务反复变化：不逐次告知"),
    "incident.acked": ("a person has acknowledged it", "已有人确认"),
    "incident.told_once": ("told; reminders are off", "已告知；不再提醒"),
    "incident.told": ("told; the next reminder is not due", "已告知；未到下次提醒时间"),
    "incident.reminder": ("tell: a reminder is due", "告知：到了提醒时间"),
    # reasons: resume
    "resume.disabled": ("disabled", "未启用"),
    "resume.off": ("autoResume is off", "未开启 autoResume"),
    "resume.not_read_only": ("only read-only long jobs are resumed", "只有只读长任务才会续跑"),
    "resume.unknown": ("unknown is not stopped", "状态未知不等于已停止"),
    "resume.held": ("a person stopped it; `start` ends that", "由人停止；用 start 解除"),
    "resume.moving": ("it is not stalled", "没有停滞"),
    "resume.not_stopped": ("it is not stopped", "没有停止"),
    "resume.orphan": ("its run as a managed job still lives", "它作为托管任务的那次运行还活着"),
    "resume.changed": ("its command has changed since the checkpoint", "命令在检查点之后有改动"),
    "resume.gave_up": ("all attempts are used up; `start` begins anew", "续跑次数已用完；用 start 重新开始"),
    "resume.acting": ("a start is under way", "正在启动"),
    "resume.state_lost": ("the state was lost a moment ago", "状态刚刚丢失"),
    "resume.backoff": ("attempt {attempt} waits", "第 {attempt} 次续跑等待中"),
    "resume.now": ("attempt {attempt} is due", "应进行第 {attempt} 次续跑"),
    # reasons: routine
    "report.completed": ("tell: it is completed", "告知：已完成"),
    "report.completed_before": ("its completion was told", "完成已告知过"),
    "report.started": ("it was started a moment ago; this completion may be the last run's", "刚刚启动；看到的可能是上一次运行的完成"),
    "report.quiet_hours": ("held by quiet hours", "安静时段内暂不告知"),
    "report.not_running": ("no routine: it is not running", "无例行报告：未在运行"),
    "report.off": ("reportWhileRunning is off", "未开启 reportWhileRunning"),
    "report.first": ("tell: first seen running", "告知：首次看到运行"),
    "report.by_time": ("tell: reportEverySeconds have passed", "告知：到了 reportEverySeconds"),
    "report.by_change": ("tell: progress has changed", "告知：进度有变化"),
    "report.too_soon": ("progress has changed, minReportSeconds have not passed", "进度有变化，但未满 minReportSeconds"),
    "report.nothing_new": ("nothing new to report", "没有新内容"),
    "look.older": ("a newer look has been judged", "已有更新的查看结果"),
    "muted": ("muted: messages are counted, not told", "静音中：消息只计数，不告知"),
    # the daily digest, and reasons for it
    "digest": ("since {time} · jobs: {jobs} · in trouble now: {count}\n{lines}", "自 {time} · 任务：{jobs} · 目前异常：{count}\n{lines}"),
    "digest.open": ("open: {what}", "未解决：{what}"),
    "digest.runs": ("runs: {runs}, failed: {failed}", "运行：{runs}，失败：{failed}"),
    "digest.verified": ("verified: {count}", "通过验证：{count}"),
    "digest.resumes": ("resumed: {count}, attempts in a row now: {attempts}", "续跑：{count}，当前连续次数：{attempts}"),
    "digest.gave_up": ("gave up; waits for start", "已放弃；等待 start"),
    "digest.completed": ("completed: {count}", "完成：{count}"),
    "digest.trouble": ("in trouble: {for} in all", "异常累计 {for}"),
    "digest.disabled": ("disabled: {count}", "未启用：{count}"),
    "digest.broken": ("left out because of errors in the config: {count}", "因配置有错未参与监控：{count}"),
    "digest.partial": ("the history begins at {time}: what was before is not counted", "历史记录始于 {time}，此前的未计入"),
    "digest.first": ("its first time has not come", "首次时间未到"),
    "digest.told": ("not due yet", "未到时间"),
    "digest.now": ("due now", "应立即发送"),
    # reasons: one-shot reads
    "run.good": ("the run was good", "运行正常"),
    "run.failed": ("the run failed", "运行失败"),
    "run.attention": ("its output asks for attention", "输出内容需要关注"),
    "due.disabled": ("disabled", "未启用"),
    "due.not_scheduled": ("not scheduled: by hand or from the queue", "无定时：仅手动或由队列运行"),
    "due.unfinished": ("its last run has no result yet", "上一次运行还没有结果"),
    "due.first": ("due: its first run", "应运行：首次"),
    "due.now": ("due now", "应立即运行"),
    "due.later": ("not due yet", "未到时间"),
    "again": ("(until {time})", "（直到 {time}）"),
    # reasons: writes
    "gate.open": ("approved", "已批准"),
    "gate.running": ("a run has begun and has no result yet", "一次运行已开始，尚无结果"),
    "gate.none": ("not approved", "未批准"),
    "gate.expired": ("the approval has expired", "批准已过期"),
    "gate.changed": ("changed since approval: {what}", "批准之后有改动：{what}"),
    "gate.unreadable": ("something that the command names cannot be read: {what}", "命令涉及的内容无法读取：{what}"),
    "gate.verify_pending": ("the last run is not verified yet: {jobs}", "上次运行尚未验证：{jobs}"),
    "gate.verify_overdue": ("the verification of the last run is overdue: {jobs}", "上次运行的验证已逾期：{jobs}"),
    "gate.verify_failed": ("the verification of the last run failed: {jobs}", "上次运行的验证失败：{jobs}"),
    "gate.verify_other": ("a verification was good, but it is not the check that was approved with the write: {jobs}", "验证运行正常，但它不是与写入一同批准的那个检查：{jobs}"),
    "gate.config_writable": ("others could have written the config or the state: {why}", "配置或状态文件可能被他人改写：{why}"),
    "gate.v1": ("(approval.granted and approval.required grant nothing)", "（approval.granted 和 approval.required 不构成批准）"),
    "note.failed": ("the last run failed, {code}", "上次运行失败，{code}"),
    "plan.title": ("One run of {name} ({job}):", "运行一次 {name}（{job}）："),
    "plan.risk": ("risk", "风险"),
    "plan.argv": ("runs", "命令"),
    "plan.program": ("program", "程序"),
    "plan.file": ("file", "文件"),
    "plan.cwd": ("in", "目录"),
    "plan.env": ("with", "环境"),
    "plan.loose": ("  (by its path only: its contents are not bound)", "（仅绑定路径，不绑定内容）"),
    "plan.verified": ("Afterwards this verifies it: {what}", "运行后的验证：{what}"),
    "plan.ttl": ("an approval holds for {time} and for one run; any change ends it", "批准有效期 {time}，仅限一次运行；任何改动都会使其失效"),
    "approve.ask": ("Type the job id to approve: ", "输入任务 id 以批准："),
    "approve.not_typed": ("the job id was not typed; nothing is approved", "未输入任务 id，未批准"),
    "approve.no_terminal": ("no terminal to ask at; --digest approves what --show showed", "没有终端可供确认；用 --digest 批准 --show 所示内容"),
    "approve.other_digest": ("the digest is not that of the plan above; nothing is approved", "摘要与上面的计划不符，未批准"),
    "approved.told": ("one run was approved with --digest by {who}; digest {digest}…", "{who} 用 --digest 批准了一次运行；摘要 {digest}…"),
    "approved": ("approved: {job}, for one run within {time}", "已批准：{job}，{time} 内可运行一次"),
    "revoked": ("revoked: {job}", "已撤销：{job}"),
    "revoke.none": ("nothing to revoke: {job} is not approved", "没有可撤销的：{job} 未被批准"),
    "code.message": ("One-time code to approve {job}: {code}\nIt holds for 15 minutes. Give it only to whoever should run exactly what stands below.", "批准 {job} 的一次性验证码：{code}\n有效期 15 分钟。只把它交给你希望执行下列操作的人。"),
    "code.sent": ("a one-time code was sent to the person; it holds for 15 minutes: {command}", "验证码已发送给主人，有效期 15 分钟：{command}"),
    "code.needed": ("'{job}' is approved with a one-time code that only its owner gets", "批准“{job}”需要一次性验证码，验证码只发给主人"),
    "code.none": ("no code is out, or it has expired", "没有有效的验证码，或已过期"),
    "code.spent": ("too many wrong codes; ask for a new one", "错误次数过多；请重新请求"),
    "code.wrong": ("wrong code", "验证码错误"),
    "code.other_plan": ("the plan has changed since the code was sent", "验证码发送之后计划有改动"),
    "code.too_many": ("too many codes were asked for '{job}' within an hour", "一小时内为“{job}”请求验证码次数过多"),
    "code.no_api": ("the code can only be sent by the Bot API, and that is not available", "验证码只能经 Bot API 发送，目前不可用"),
    "code.not_sent": ("the code was not confirmed as sent and is void: {why}", "验证码未确认送达，已作废：{why}"),
    "write.done": ("the write ran: {job}", "写入已执行：{job}"),
    "verify.passed": ("verified: {job}", "已验证：{job}"),
    "verify.failed": ("not verified: {job}", "未通过验证：{job}"),
    # topics
    "topic.unknown": ("unknown", "状态未知"),
    "topic.stopped": ("stopped", "停止"),
    "topic.stalled": ("stalled", "停滞"),
    "topic.level": ("own alert", "任务自报"),
    "topic.failed": ("failed", "失败"),
    "topic.attention": ("attention", "需关注"),
    "topic.report": ("report", "例行报告"),
    "topic.resume": ("resume", "续跑"),
    "topic.look": ("look", "查看"),
    "topic.mute": ("mute", "静音"),
    "topic.flapping": ("flapping", "反复变化"),
    "topic.orphan": ("orphan", "孤儿任务"),
    "topic.verification": ("verification", "验证"),
    "topic.outcome": ("outcome", "结果"),
    "topic.blocked": ("blocked", "已拦截"),
    "topic.busy": ("lock held", "锁被占用"),
    "topic.due": ("schedule", "定时"),
    # by hand
    "would.tell": ("would tell: {what}", "将告知：{what}"),
    "would.resume": ("would start it again", "将续跑"),
    "would.restart": ("would stop and start it", "将停止并重新启动"),
    "would.queue": ("would queue: {job}", "将入队：{job}"),
    "dry.queued": ("queued: {job}, from {time}", "队列：{job}，{time} 起"),
    "start.already": ("already running: {job}", "已在运行：{job}"),
    "start.done": ("started: {job}", "已启动：{job}"),
    "start.disabled": ("note: it is disabled: no tick watches it; set enabled to true in the config", "注意：任务未启用，tick 不会监控它；请在配置中把 enabled 设为 true"),
    "start.failed": ("the start failed: {why}", "启动失败：{why}"),
    "start.unknown": ("the status of '{job}' is unknown, a second copy might be started: {why}", "“{job}”状态未知，可能会启动第二份：{why}"),
    "start.left": ("something that an earlier run of '{job}' left is still alive", "“{job}”之前的运行留下的进程仍在运行"),
    "start.changed": ("the command of '{job}' has changed since its checkpoint was begun: --resume continues from it, --fresh begins anew", "“{job}”的命令在检查点建立后有改动：--resume 从检查点继续，--fresh 重新开始"),
    "stop.done": ("stopped: {job}; nothing resumes it until `start`", "已停止：{job}；在 start 之前不会续跑"),
    "stop.not_running": ("not running: {job}; nothing resumes it until `start`", "未在运行：{job}；在 start 之前不会续跑"),
    "stop.failed": ("its stop command failed", "停止命令失败"),
    "stop.command_failed": ("the stop command of '{job}' failed: {why}; should it end, nothing resumes it until `start`", "“{job}”的停止命令失败：{why}；若它之后结束，在 start 之前不会续跑"),
    "stop.unknown": ("cannot tell whether '{job}' runs, nothing was signalled: {why}; nothing resumes it until `start`", "无法判断“{job}”是否在运行，未发送信号：{why}；在 start 之前不会续跑"),
    "stop.no_pid": ("'{job}' runs, but its status names no living pid: nothing was signalled; should it end, nothing resumes it until `start`", "“{job}”在运行，但状态没有给出存活的 pid：未发送信号；若它之后结束，在 start 之前不会续跑"),
    "stop.still_alive": ("pid {pid} of '{job}' is still alive after TERM; should it end, nothing resumes it until `start`", "“{job}”的进程 {pid} 收到 TERM 后仍在运行；若它之后结束，在 start 之前不会续跑"),
    "stop.not_held": ("stopped: {job}; but that cannot be noted, so a tick may resume it", "已停止：{job}；但无法记录，tick 可能会续跑"),
    "stop.nothing": ("not running: {job}; but the stop cannot be noted, so a tick may resume it", "未在运行：{job}；但停止无法记录，tick 可能会续跑"),
    "run.would": ("would run: {argv}\nin: {cwd}", "将运行：{argv}\n目录：{cwd}"),
    "queued": ("queued: {job}, entry {id}, from {time}", "已入队：{job}，条目 {id}，{time} 起"),
    "acked": ("acknowledged: {job}: {kinds}; no reminders until it changes", "已确认：{job}：{kinds}；有变化之前不再提醒"),
    "ack.none": ("nothing is open: {job}", "没有未解决的异常：{job}"),
    "mute.done": ("muted until {time}: {job}", "静音至 {time}：{job}"),
    "mute.ended": ("no longer muted: {job}", "静音结束：{job}"),
    "help.next": ("next: {command}", "下一步：{command}"),
    # init and schedule
    "init.made": ("made: {path}", "已创建：{path}"),
    "init.there": ("there already, left as it is: {path}", "已存在，保持不变：{path}"),
    "init.other": ("there already and not the same as this script, left as it is: {path}", "已存在，与本脚本不同，保持不变：{path}"),
    "init.replaced": ("replaced: {path}; the old one: {old}", "已替换：{path}；旧文件：{old}"),
    "schedule.written": ("written: {path}", "已写入：{path}"),
    "schedule.now": ("tick is called at once, then every {every}", "立即调用 tick，之后每 {every} 一次"),
    "schedule.soon": ("tick is called every {every}, the first time within {every}", "每 {every} 调用一次 tick，{every} 之内首次调用"),
    "schedule.linger": ("this ends when you log out, unless you type once: loginctl enable-linger", "注销后即停止，除非执行一次：loginctl enable-linger"),
    "schedule.removed": ("removed: {path}", "已移除：{path}"),
    "schedule.none": ("nothing to remove: no scheduler calls tick for {path}", "没有可移除的：没有调度器为 {path} 调用 tick"),
    # status and explain
    "column.job": ("JOB", "任务"),
    "column.state": ("STATE", "状态"),
    "column.progress": ("PROGRESS", "进度"),
    "column.report": ("LAST", "最近"),
    "column.next": ("NEXT", "下一步"),
    "word.running": ("running", "运行中"),
    "word.waiting": ("waiting", "等待中"),
    "word.completed": ("completed", "已完成"),
    "word.stopped": ("stopped", "已停止"),
    "word.idle": ("idle", "未启动"),
    "word.unknown": ("unknown", "未知"),
    "word.held": ("held", "人工停止"),
    "word.approved": ("approved", "已批准"),
    "word.unverified": ("unverified", "待验证"),
    "word.overdue": ("overdue", "验证逾期"),
    "word.verify_failed": ("verify failed", "验证失败"),
    "word.outcome_unknown": ("outcome?", "结果未知"),
    "word.never_ran": ("never ran", "未运行过"),
    "word.good": ("good", "正常"),
    "word.failed": ("failed", "失败"),
    "word.muted": ("~ muted until {time}", "~ 静音至 {time}"),
    "word.attention": ("attention", "需关注"),
    "next.disabled": ("disabled", "未启用"),
    "next.run": ("run", "运行"),
    "next.by_hand": ("by hand", "手动"),
    "next.resume": ("resume", "续跑"),
    "next.held": ("waits for start", "等待 start"),
    "next.gave_up": ("gave up: start", "已放弃：需 start"),
    "next.changed": ("changed: start", "已改动：需 start"),
    "next.look": ("look", "查看"),
    "since": ("since {time}", "始于 {time}"),
    "status.trouble": ("! {kind} since {time}: {text}", "！{kind}，始于 {time}：{text}"),
    "status.keyless": ("no progress key: stalls cannot be seen", "没有进度键：无法发现停滞"),
    "status.broken": ("left out: {job}: {problem}", "未参与监控：{job}：{problem}"),
    "status.orphan": ("orphan: {job} runs, but is no managed job of the config; {command}", "孤儿任务：{job} 在运行，但不是配置中的托管任务；{command}"),
    "status.queue": ("queued: {count}: {jobs}", "队列：{count}：{jobs}"),
    "status.untried": ("undelivered messages: {count}; what is in their way: {command}", "未送达消息：{count}；查明原因：{command}"),
    "status.outbox": ("undelivered messages: {count}; last error: {error}", "未送达消息：{count}；最近的错误：{error}"),
    "status.tick": ("last tick: {time}", "上次 tick：{time}"),
    "status.no_tick": ("last tick: never; the scheduler does not call `tick` yet", "上次 tick：从未；调度器还没有调用 tick"),
    "explain.state": ("state: {state}", "状态：{state}"),
    "explain.key": ("progress key unchanged since {time}; awake without progress: {stalled}, limit {limit}", "进度键自 {time} 未变；机器运行期间无进展：{stalled}，上限 {limit}"),
    "explain.ran": ("last run: {time}, {code}", "上次运行：{time}，{code}"),
    "explain.incident": ("open: {kind} since {time}, reminders: {reminders}: {text}", "未解决：{kind}，始于 {time}，提醒次数：{reminders}：{text}"),
    "explain.decisions": ("a tick at this moment would decide:", "此刻 tick 的判断："),
    "explain.next": ("what comes next: {action}", "接下来：{action}"),
    "explain.disabled": ("disabled: no tick looks at it", "未启用：tick 不会查看它"),
    "doctor.test": ("a test message of `doctor`; there is nothing to do", "`doctor` 的测试消息，无需处理"),
    # history: events, and the words that stand for facts in them
    "event.told": ("told: {text}", "告知：{text}"),
    "event.queued": ("queued, delay {delay}, by {by}", "入队（{by}），延迟 {delay}"),
    "event.blocked": ("BLOCKED, queued by {by}", "BLOCKED，入队（{by}）"),
    "event.start": ("start by {by}", "启动（{by}）"),
    "event.stop": ("stop by {by}", "停止（{by}）"),
    "event.resume": ("resumed, attempt {attempt}", "续跑，第 {attempt} 次"),
    "event.started": ("started", "已启动"),
    "event.start_failed": ("the start failed: {reason}", "启动失败：{reason}"),
    "event.run": ("run by {by}: {code}, {seconds}", "运行（{by}）：{code}，用时 {seconds}"),
    "event.interrupted": ("interrupted; run once more: {again}", "运行被中断；再次运行：{again}"),
    "event.approved": ("approved, digest {digest}, by {who}", "已批准，摘要 {digest}，{who}"),
    "event.approval_refused": ("not approved: {why}; {who}", "未批准：{why}；{who}"),
    "event.code_requested": ("code requested by {who}", "请求验证码，{who}"),
    "event.revoked": ("approval revoked by {who}", "撤销批准，{who}"),
    "event.refused": ("not run: {reason}; {who}", "未运行：{reason}；{who}"),
    "event.write_begun": ("write begun, digest {digest}, by {who}", "写入开始，摘要 {digest}，{who}"),
    "event.write_ended": ("write ended: {code}", "写入结束：{code}"),
    "event.write_outcome_unknown": ("the outcome of the write is unknown", "写入结果未知"),
    "event.verification": ("verification by {by}: {result}", "验证（{by}）：{result}"),
    "event.ack": ("acknowledged by {who}", "确认，{who}"),
    "event.mute": ("muted by {who}", "静音，{who}"),
    "event.unmute": ("unmuted by {who}", "解除静音，{who}"),
    "event.not_delivered": ("not delivered: {error}", "未送达：{error}"),
    "event.state_lost": ("the state was lost; moved to {aside}", "状态丢失；已移到 {aside}"),
    "by.hand": ("hand", "人工"),
    "by.queue": ("the queue", "队列"),
    "by.schedule": ("the clock", "定时"),
    "by.verify": ("run --verify", "run --verify 命令"),
    "by.enqueue": ("enqueue", "enqueue 命令"),
    "by.after": ("the end of {job}", "{job} 结束之后"),
    "result.passed": ("passed", "通过"),
    "result.failed": ("failed", "未通过"),
    "result.other": ("good, but not the approved check", "正常，但不是批准的那个检查"),
    "result.pending": ("others are still to come", "其他验证未完成"),
    "again.true": ("yes", "是"),
    "again.false": ("no", "否"),
}  # fmt: skip


def say(lang: str, key: str, /, **facts: Any) -> str:
    """The sentence `key` in a language, its holes filled; a fact that is missing or empty shows as `-`."""
    row = MESSAGES.get(key)
    if row is None:  # a state file of another version names a row that we do not have
        return key + "".join(f" {name}={value}" for name, value in facts.items())
    known = {name: value for name, value in facts.items() if value not in ("", None)}
    return row[1 if lang == "zh" else 0].format_map(defaultdict(lambda: "-", known))


# ==== ERRORS =============================================================
# Named by whose fault they are; each carries the exit code it ends in.


class OpsError(Exception):
    """Ends a command with one `error:` line, and a `help:` line where a next step exists."""

    code = JOB_FAILED

    def __init__(self, problem: str, advice: str = ""):
        super().__init__(problem)
        self.advice = advice


class UsageError(OpsError):
    """The command line or the config is wrong: nothing was run."""

    code = USAGE


class BlockedError(OpsError):
    """A safety rule said no."""

    code = BLOCKED


class StateError(OpsError):
    """The state file cannot be read or written; what it held is untouched."""

    code = STATE_TROUBLE


class UndeliveredError(OpsError):
    """A person could not be reached."""

    code = UNDELIVERED


class BusyError(OpsError):
    """Another process is working on this job."""

    code = BUSY


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


# ==== TOLERANT JSON ======================================================
# Reads JSON as people write it by hand (JSON5), and where each value stands.  Text in, value out:
# whatever the text holds, the answer is a Reading or Malformed, never another exception.

DEEPEST = 200  # levels of nesting; each costs two frames of Python's thousand

# Patterns stay text: `re` compiles and keeps each at its first use, and an idle tick uses none.
# Every character belongs to some piece, so no text makes the search fail and start over.
PIECES = r"""(?sx)
    (?P<skip> [\s\ufeff]+ | //[^\n\r\u2028\u2029]* | /\*.*?\*/ )
  | (?P<mark> [\[\]{}:,] )
  | (?P<text> "[^"\\\n\r]*(?:\\(?:\r\n|.)[^"\\\n\r]*)*" | '[^'\\\n\r]*(?:\\(?:\r\n|.)[^'\\\n\r]*)*' )
  | (?P<word> (?:[^\s\ufeff\[\]{}:,"'/\\]+|\\u[0-9a-fA-F]{4})+ )
  | (?P<odd>  /\*|. )
  | (?P<end>  \Z )"""
ESCAPES = r"(?s)((?:\\u[0-9a-fA-F]{4})+)|\\x([0-9a-fA-F]{2})|\\(0[0-9]|\r\n|.)"
LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0",
           "\n": "", "\r": "", "\r\n": "", "\u2028": "", "\u2029": ""}
WORD_FORMS = (  # integers longer than Python agrees to print become floats, as in JavaScript all numbers are
    (r"true|false|null", json.loads),
    (r"[+-]?(?:0|[1-9][0-9]{0,4299})", int),
    (r"[+-]?0[xX][0-9a-fA-F]{1,3500}", lambda word: int(word, 16)),
    (r"[+-]?(?:Infinity|NaN|(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)", float),
)
UNCLOSED = {'"': "text is not closed", "'": "text is not closed", "/*": "comment is not closed"}


class Malformed(ValueError):
    """The text is not JSON, not even generously; `problem` is short, the place counts from 1."""

    def __init__(self, problem: str, line: int, column: int):
        super().__init__(f"{line}:{column}: {problem}")
        self.problem, self.line, self.column = problem, line, column


def pieces_of(text: str):
    """Yields (kind, source, line, column) of all but white space and comments; the last is the end."""
    line, line_start = 1, 0
    for found in re.finditer(PIECES, text):
        source = found.group()
        if found.lastgroup != "skip":
            yield found.lastgroup, source, line, found.start() - line_start + 1
        if "\n" in source:
            line += source.count("\n")
            line_start = found.start() + source.rfind("\n") + 1


def unescape(found: re.Match) -> str:
    """What an escape stands for; ValueError for `\\1`, and for `\\u` or `\\x` cut short."""
    units, code, other = found.groups()
    if units:  # as UTF-16: two surrogates become one character, a lone one stays
        return bytes.fromhex(units.replace("\\u", "")).decode("utf-16-be", "surrogatepass")
    if code:
        return chr(int(code, 16))
    if other != "0" and other[0] in "ux0123456789":
        raise ValueError(other)
    return LETTERS.get(other, other)


class Reading:
    """A text as a value, and where each part of it stands.  While reading, it is at the first piece not yet used."""

    def __init__(self, text: str, duplicates: str):
        self.pieces, self.duplicates = pieces_of(text), duplicates
        self.places: dict = {}  # path, such as ("jobs", 2, "id"), or () for the root -> (line, column) of the value
        self.step()
        self.value = self.read(())
        if self.kind != "end":
            raise self.missing("the end")

    def step(self) -> None:
        self.kind, self.source, self.line, self.column = next(self.pieces)

    def take(self, mark: str, wanted: str) -> None:
        if self.source != mark:
            raise self.missing(wanted)
        self.step()

    def error(self, problem: str) -> Malformed:
        return Malformed(problem, self.line, self.column)

    def missing(self, wanted: str) -> Malformed:
        """The error of a piece in a wrong place. It quotes no text, and little of a longer word: they may be a secret."""
        shown = {"end": "the end", "text": "a text"}.get(self.kind) or repr(self.source if len(self.source) < 10 else self.source[:8] + "…")
        return self.error(UNCLOSED.get(self.source) or f"expected {wanted}, found {shown}")

    def read(self, path: tuple) -> Any:
        self.places[path] = (self.line, self.column)
        if self.source in ("{", "["):
            return self.members(path, "}" if self.source == "{" else "]")
        value = self.text() if self.kind == "text" else self.word()
        self.step()
        return value

    def members(self, path: tuple, close: str) -> Any:
        """An object, or a list, which is an object whose keys nobody writes."""
        if len(path) >= DEEPEST:
            raise self.error(f"nested deeper than {DEEPEST}")
        self.step()
        members: dict = {}
        while self.source != close:
            key = self.key(members) if close == "}" else len(members)
            members[key] = self.read((*path, key))
            if self.source != close:
                self.take(",", f"',' or '{close}'")
        self.step()
        return members if close == "}" else list(members.values())

    def key(self, members: dict) -> str:
        """The next key, a text or a name as in ECMAScript 5, and its colon."""
        key = self.text()
        if self.kind != "text" and not key.replace("$", "_").isidentifier():
            raise self.missing("a key or '}'")
        if self.duplicates == "refuse" and key in members:
            raise self.error(f"duplicate key {Redactor()(key)[:80]!r}")
        self.step()
        self.take(":", "':'")
        return key

    def text(self) -> str:
        body = self.source[1:-1] if self.kind == "text" else self.source
        try:
            return re.sub(ESCAPES, unescape, body) if "\\" in body else body
        except ValueError as error:
            raise self.error(f"unknown escape \\{error}") from None

    def word(self) -> Any:
        for pattern, meaning in WORD_FORMS:
            if re.fullmatch(pattern, self.source):
                return meaning(self.source)
        if re.match("[+-]?0[oO]?[0-9]", self.source):
            raise self.error("octal numbers are not accepted")
        raise self.missing("a value")


def read_tolerant(text: str, duplicates: str = "last") -> Reading:
    """`text` read as JSON5; of equal keys the last wins, or with "refuse" the second is Malformed."""
    return Reading(text.removeprefix("\ufeff"), duplicates)


def without_duplicates(pairs: list) -> dict:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("duplicate key")
    return members


def parse_json(text: str, duplicates: str = "last") -> Any:
    """The value of `text`, read strictly (fast) or else tolerantly; raises Malformed."""
    try:
        return json.loads(text, object_pairs_hook=without_duplicates if duplicates == "refuse" else None)
    except (ValueError, RecursionError):
        return read_tolerant(text, duplicates).value


def object_at(value: Any, *keys: str) -> dict:
    """The object that `keys` lead to; an empty one where the way ends or something else stands."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


# ==== CONFIG =============================================================
# What may stand in ops-jobs.json.  FIELDS is the only source of types, defaults, bounds, documents
# and schema: to add a setting is to add a row.


class Kind(NamedTuple):
    """A type of value: words for `expected …`, a question, and its JSON Schema."""

    expected: str
    accepts: Callable[[Any], bool]
    schema: dict
    section: str = ""  # the value is an object of this section of FIELDS, or a list of such objects


class Field(NamedTuple):
    """One setting."""

    key: str
    kind: Kind
    default: Any
    doc: str


def is_number(value: Any) -> bool:
    """A number of less than 1e15 either way, so neither infinite nor NaN; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e15 < value < 1e15


def is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def is_argv(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value)) and value[0] != ""


def is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(re.fullmatch(r"[^=\0]+", key) and is_text(item) for key, item in value.items())


def is_count(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


CLOCK = "([01][0-9]|2[0-3]):[0-5][0-9]"
KINDS = {
    "version": Kind("1", lambda value: value == 1 and is_number(value), {"const": 1}),
    "text": Kind("text", is_text, {"type": "string"}),
    "id": Kind(
        "printable text of 1 to 128 characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable(),
        {"type": "string", "minLength": 1, "maxLength": 128},
    ),
    "text or number": Kind("text or a whole number", lambda value: is_text(value) or type(value) is int, {"type": ["string", "integer"]}),
    "boolean": Kind("true or false", lambda value: isinstance(value, bool), {"type": "boolean"}),
    "seconds": Kind("a number of seconds, 0 or more", lambda value: is_number(value) and value >= 0, {"type": "number", "minimum": 0}),
    "count": Kind("a whole number, 0 or more", is_count, {"type": "integer", "minimum": 0}),
    "looks": Kind("a whole number, 1 or more", lambda value: is_count(value, 1), {"type": "integer", "minimum": 1}),
    "parallel": Kind(
        "a whole number from 1 to 256", lambda value: is_count(value, 1) and value <= 256, {"type": "integer", "minimum": 1, "maximum": 256}
    ),
    "argv": Kind("a list of texts, the program first", is_argv, {"type": "array", "items": {"type": "string"}, "minItems": 1}),
    "texts": Kind(
        "a list of texts that are not empty",
        lambda value: isinstance(value, list) and all(is_text(item) and item.strip() for item in value),
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ),
    "environment": Kind("an object of texts", is_environment, {"type": "object", "additionalProperties": {"type": "string"}}),
    "clock": Kind(
        "a time of day like 23:00",
        lambda value: isinstance(value, str) and bool(re.fullmatch(CLOCK, value)),
        {"type": "string", "pattern": f"^{CLOCK}$"},
    ),
}
REQUIRED = "(required)"


def kind_named(words: str) -> Kind:
    """The Kind that a row names: one of KINDS, or `one of A, B`, `object of SECTION`, `list of SECTION`."""
    form, _, name = words.partition(" of ")
    if form == "one":
        return Kind(words, lambda value: isinstance(value, str) and value in name.split(", "), {"enum": name.split(", ")})
    reference = {"$ref": f"#/$defs/{name}"}
    if form == "object":
        return Kind("an object", lambda value: isinstance(value, dict), reference, name)
    if form == "list":
        return Kind("a list of objects", lambda value: isinstance(value, list), {"type": "array", "items": reference}, name)
    return KINDS[words]


def rows(table: str) -> tuple:
    """A Field for each line `key | kind | default as JSON | doc`.  As text, a table costs each start less than as code."""
    fields = []
    for line in table.strip().split("\n"):
        key, kind, default, doc = map(str.strip, line.split("|"))
        fields.append(Field(key, kind_named(kind), REQUIRED if default == REQUIRED else json.loads(default), doc))
    return tuple(fields)


FIELDS = {
    "config": rows("""
    version  | version            | (required) | format of this file
    jobs     | list of job        | (required) | the jobs
    defaults | object of policy   | {}         | policy keys for every job
    monitor  | object of monitor  | {}         | settings of the monitor itself
    delivery | object of delivery | {}         | how a person is told
    """),
    "monitor": rows("""
    language  | one of en, zh | "en" | language of messages, status and explain
    timezone  | text          | null | IANA name for quiet hours and times; default: local
    host      | text          | ""   | shown in the header of every message
    parallel  | parallel      | 32   | commands that run at once
    digestAt  | clock         | null | time of one quiet message a day; default: none
    afterTick | argv          | null | command run after each good tick; default: none
    """),
    "delivery": rows("""
    via      | one of auto, openclaw, api, command, none | "auto"     | the way to the person
    channel  | text                                      | "telegram" | a channel that openclaw knows; only telegram goes by the Bot API
    target   | text or number                            | null       | chat; default: found in OpenClaw's config
    threadId | text or number                            | null       | topic of the chat; default: none
    account  | text                                      | null       | OpenClaw account; default: OpenClaw's default
    command  | argv                                      | null       | for via command: gets the text on stdin; default: none
    """),
    "job": rows("""
    id       | id                                                      | (required) | unique name
    name     | text                                                    | null       | shown in reports; default: the id
    kind     | one of long_running_read, one_shot_read, one_shot_write | (required) | what sort of work it is
    risk     | one of read_only, write_local, write_external           | (required) | what it may change
    enabled  | boolean                                                 | false      | false stops looks, auto-resume and everySeconds
    cwd      | text                                                    | null       | working directory, `~` expands; default: OpenClaw's state dir
    env      | environment                                             | {}         | added to the environment
    commands | object of commands                                      | (required) | argv lists; never a shell
    managed  | boolean                                                 | false      | long jobs: the framework runs and watches commands.start
    policy   | object of policy                                        | {}         | when to speak and act
    approval | object of approval                                      | null       | writes only; default: none
    after    | list of after                                           | []         | jobs queued when this one ends
    """),
    "commands": rows("""
    start  | argv | null | long jobs: starts the work and returns (managed: is the work)
    status | argv | null | long jobs: prints one JSON object
    stop   | argv | null | long jobs, optional: ends the work
    run    | argv | null | one-shot jobs: the work
    """),
    "policy": rows("""
    reportEverySeconds       | seconds               | 1800                         | routine progress while running; 0 = none by time
    onlyOnChange             | boolean               | true                         | also report when progress has changed
    minReportSeconds         | seconds               | 300                          | such extra reports come no closer than this
    reportWhileRunning       | boolean               | true                         | false: only completion and trouble
    stallSeconds             | seconds               | 3600                         | running this long with the same progressKey is a stall; 0 = off
    onStall                  | one of alert, restart | "alert"                      | restart: stop, then start, as a resume attempt
    autoResume               | boolean               | false                        | start again what was interrupted
    autoResumeBackoffSeconds | seconds               | 900                          | wait after the first attempt; doubles, at most 6 h
    autoResumeMaxAttempts    | count                 | 5                            | attempts in a row; 0 = no limit
    quietHours               | object of quietHours  | {}                           | routine is held meanwhile
    alertRepeatSeconds       | seconds               | 14400                        | first reminder; each next wait doubles, at most 24 h; 0 = never
    alertAfter               | looks                 | 1                            | looks in a row that must agree before an incident opens
    everySeconds             | seconds               | 0                            | one_shot_read: run by tick on this grid; 0 = not
    statusTimeoutSeconds     | seconds               | 30                           | limit of commands.status
    startTimeoutSeconds      | seconds               | 60                           | limit of commands.start
    stopTimeoutSeconds       | seconds               | 60                           | limit of commands.stop
    runTimeoutSeconds        | seconds               | null                         | limit of commands.run; default: 300, writes 3600
    attentionPatterns        | texts                 | ["ACTION REQUIRED", "ALERT"] | whole words in a run's output that a person must see
    """),
    "quietHours": rows("""
    start | clock | "23:00" | first quiet minute, local
    end   | clock | "08:00" | first minute that is not quiet; equal to start = none
    """),
    "approval": rows("""
    via        | one of local, telegram | "local" | telegram: also needs a one-time code
    ttlSeconds | seconds                | 3600    | how long an approval holds
    required   | boolean                | true    | v1; false grants nothing
    granted    | boolean                | false   | v1; true grants nothing
    """),
    "after": rows("""
    jobId        | id                              | (required) | the job to queue
    when         | one of success, failure, always | "success"  | which endings count
    delaySeconds | seconds                         | 0          | wait before it runs
    """),
}
FIELD_OF = {name: {field.key: field for field in fields} for name, fields in FIELDS.items()}
DEFAULTS = {name: {field.key: field.default for field in fields} for name, fields in FIELDS.items()}
REQUIRED_KEYS = {name: [field.key for field in fields if field.default is REQUIRED] for name, fields in FIELDS.items()}
# A record type for each section: an attribute for each row, and of a job its place in the list of jobs.
RECORD_OF = {name: namedtuple(name, [*map(snake, fields), *(["index"] if name == "job" else [])]) for name, fields in FIELD_OF.items()}


class Problem(NamedTuple):
    """Something in the config that a person should mend."""

    path: tuple
    text: str
    is_error: bool = True


class Config(NamedTuple):
    """A config as understood.  Jobs with an error are in `broken`, not in `jobs`."""

    jobs: dict  # id -> Job
    broken: dict  # id or jobs[2] -> first problem's text
    monitor: Any
    delivery: Any
    problems: tuple
    text: str = ""
    quiet_hours: dict = {}  # of `defaults`: they hold for jobs that have left the config, too

    @property
    def errors(self) -> list:
        return [problem for problem in self.problems if problem.is_error]


def visible(text: str, limit: int) -> str:
    """`text` on one line, with control characters as escapes and without credentials."""
    text = Redactor()(text)
    return clip(text if text.isprintable() else json.dumps(text)[1:-1], limit)


def found_text(value: Any) -> str:
    """A value as an error names it."""
    if isinstance(value, str):
        return f"text '{visible(value, 40)}'"
    if value is None or isinstance(value, bool) or value != value:
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return f"number {one_line(repr(value), 30)}"
    shape = "a list" if isinstance(value, list) else "an object"
    if not value:
        return f"{shape} that is empty"
    for index, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, str) and "\0" in item:
            return f"a NUL character in item {index}"
        if not isinstance(item, str) or not item.strip():
            return f"{'a list' if isinstance(item, list) else found_text(item)} as item {index}"
    return shape


def path_text(path: tuple) -> str:
    """`("jobs", 2, "policy")` -> `jobs[2].policy`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{visible(step, 60)}" for step in path)[1:] or "the file"


def read_value(field: Field, value: Any, path: tuple, problems: list) -> dict:
    """{key: value as the records hold it}; nothing in it if the value is not valid, which is noted."""
    kind = field.kind
    if value is None and field.default is None:
        return {field.key: None}
    if not kind.accepts(value):
        problems.append(Problem(path, f"expected {kind.expected}, found {found_text(value)}"))
        return {}
    if kind.section and isinstance(value, dict):
        value = read_settings(kind.section, value, path, problems)
    elif kind.section and kind.section != "job":  # read_jobs reads each job for itself
        value = [read_settings(kind.section, item, (*path, index), problems) for index, item in enumerate(value)]
    return {field.key: value}


def read_settings(name: str, value: Any, path: tuple, problems: list) -> dict:
    """The valid settings that `value` gives for a section; the others are noted."""
    settings: dict = {}
    if not isinstance(value, dict):
        problems.append(Problem(path, f"expected an object, found {found_text(value)}"))
        return settings
    fields = FIELD_OF[name]
    for key, item in value.items():
        if key in fields and not fields[key].kind.section and fields[key].kind.accepts(item):  # most are
            settings[key] = item
        elif key in fields:
            settings.update(read_value(fields[key], item, (*path, key), problems))
        elif not key.startswith(("_", "$", "//")):
            problems.append(Problem((*path, key), f"unknown key{did_you_mean(key, fields)}", is_error=False))
    for key in REQUIRED_KEYS[name]:
        if key not in value:
            problems.append(Problem(path, f"'{key}' is missing: expected {fields[key].kind.expected}"))
    return settings


def filled(name: str, settings: dict, *more: Any) -> Any:
    """The record of a section: its settings over its defaults."""
    return RECORD_OF[name](*{**DEFAULTS[name], **settings}.values(), *more)


def make_policy(*layers: dict) -> Any:
    """A policy from several objects, the last one strongest; quiet hours merge by half."""
    merged: dict = {}
    quiet: dict = {}
    for layer in layers:
        merged.update(layer)
        quiet.update(layer.get("quietHours", {}))
    merged["quietHours"] = filled("quietHours", quiet)
    return filled("policy", merged)


def make_job(settings: dict, defaults: dict, index: int, common: Any = None) -> Any:
    """A Job from settings that have no error; `common` is the policy of jobs that state none, if it is made already."""
    own, approval = settings.get("policy"), settings.get("approval")
    whole = dict(
        settings,
        name=settings.get("name") or settings["id"],
        commands=filled("commands", settings["commands"]),
        policy=common if common and not own else make_policy(defaults, own or {}),
        approval=None if approval is None else filled("approval", approval),
        after=[filled("after", item) for item in settings.get("after", [])],
    )
    return filled("job", whole, index)


def can_restart(job: Any) -> bool:
    """Whether a stall of this job may be answered by stop and start."""
    return job.kind == LONG_READ and job.risk == READ_ONLY and bool(job.managed or job.commands.stop)


def job_faults(job: Any, own: dict) -> Iterator[tuple]:
    """(key, text, is_error) for settings that are valid alone and wrong together.

    `own` is the policy that the job itself states: what it has from `defaults` need not fit every job.
    """
    is_long, is_read = job.kind == LONG_READ, job.risk == READ_ONLY
    needed = ("run",) if not is_long else ("start",) if job.managed else ("start", "status")
    commands = job.commands._asdict()
    for name in needed:
        if not commands[name]:
            yield "commands", f"'{name}' is missing: a {job.kind} needs it", True
    for name, argv in commands.items():
        if argv and job.managed and name in ("status", "stop"):
            yield f"commands.{name}", "a managed job has none: the framework answers and stops itself", True
        elif argv and name not in (*needed, "stop"):
            yield f"commands.{name}", f"a {job.kind} does not use it", False
    if job.managed and not is_long:
        yield "managed", f"expected a {LONG_READ}, found kind {job.kind}", True
    if job.kind == CHECK and not is_read:
        yield "risk", f"expected read_only for a one_shot_read, found {job.risk}", True
    if job.kind == WRITE and is_read:
        yield "risk", "a one_shot_write is treated as a write; say write_local or write_external", False
    if own.get("autoResume") and not (is_long and is_read):
        yield "policy.autoResume", "only a long_running_read with risk read_only is ever resumed", False
    if own.get("everySeconds") and job.kind != CHECK:
        yield "policy.everySeconds", "only a one_shot_read is run by the clock", False
    if own.get("onStall") == "restart" and not can_restart(job):
        yield "policy.onStall", "restart needs risk read_only and managed or commands.stop; it will alert", False
    if job.approval and (job.approval.granted or not job.approval.required):
        key = "granted" if job.approval.granted else "required"
        yield f"approval.{key}", f"grants nothing; `approve {job.id}` approves one run", False


def verifications(job: Any, jobs: dict) -> list:
    """The `after` entries of a write that can verify it: one_shot_reads, which in `jobs` are all read_only."""
    return [after for after in job.after if after.when != "failure" and after.job_id in jobs and jobs[after.job_id].kind == CHECK]


def after_problems(job: Any, jobs: dict, broken: dict) -> Iterator[Problem]:
    """The same for what `after` says about other jobs."""
    path = ("jobs", job.index, "after")
    for index, after in enumerate(job.after):
        other = jobs.get(after.job_id)
        place = (*path, index, "jobId")
        if job.kind == LONG_READ and after.when != "success":
            yield Problem((*path, index, "when"), "a long job fires it only when it completes", is_error=False)
        if other is None and after.job_id not in broken:
            yield Problem(place, f"no job '{visible(after.job_id, 60)}'{did_you_mean(after.job_id, jobs)}")
        elif other and other.kind == WRITE:
            yield Problem(place, "a write is never run by itself; it will be BLOCKED", is_error=False)
        elif other and other.kind == LONG_READ and job.kind != WRITE:
            yield Problem(place, "only a one_shot_read is run from the queue; it will be BLOCKED", is_error=False)
    if job.kind != WRITE or verifications(job, jobs):
        return
    wanted = [after.job_id for after in job.after if after.when != "failure"]
    if any(job_id in broken for job_id in wanted):
        yield Problem(path, "its verification job has an error, so this write is left out too")
    elif any(job_id in jobs and jobs[job_id].kind == LONG_READ and jobs[job_id].risk == READ_ONLY for job_id in wanted):
        yield Problem(path, "a long job cannot verify: this write can never become verified; name a one_shot_read", is_error=False)
    elif all(after.job_id in jobs for after in job.after):
        yield Problem(path, "a write needs a verification: an entry with when success or always that names a read_only one_shot_read")


def in_cycles(jobs: dict) -> list:
    """Ids of jobs that lead back to themselves along `after`."""
    targets = {job.id: {after.job_id for after in job.after if after.job_id in jobs} for job in jobs.values()}
    clear: set = set()  # those that do not: no cycle leads through one of them
    for job_id in [*targets, *reversed(list(targets))]:  # nearly all are found here, so that the walks are few
        if targets[job_id] <= clear:
            clear.add(job_id)
    for job_id in targets:
        seen: set = set()
        ahead = [job_id]
        while ahead and job_id not in seen:
            new = targets[ahead.pop()] - clear - seen
            seen |= new
            ahead += new
        if job_id not in seen:
            clear.add(job_id)
    return [job_id for job_id in jobs if job_id not in clear]


def first_error(problems: Iterable[Problem]) -> str:
    return next((f"{path_text(problem.path)}: {problem.text}" for problem in problems if problem.is_error), "")


def read_jobs(items: list, defaults: dict, problems: list) -> tuple:
    """(jobs by id, ids that are broken) of the `jobs` list; problems are noted."""
    jobs: dict = {}
    broken: dict = {}
    common = make_policy(defaults)
    for index, item in enumerate(items):
        path = ("jobs", index)
        mine: list = []
        settings = read_settings("job", item, path, mine)
        job_id = settings.get("id")
        if job_id in jobs or job_id in broken:
            mine.append(Problem((*path, "id"), f"a job '{job_id}' stands above already"))
        if not first_error(mine):
            job = make_job(settings, defaults, index, common)
            mine += [Problem((*path, *key.split(".")), *rest) for key, *rest in job_faults(job, settings.get("policy", {}))]
        if first_error(mine):
            broken.setdefault(path_text(path) if job_id is None or job_id in jobs else job_id, first_error(mine))
        else:
            jobs[job_id] = job
        problems += mine
    return jobs, broken


def cross_check(jobs: dict, broken: dict, problems: list) -> None:
    """Take out jobs whose `after` is wrong, then the writes whose verification that leaves out."""
    linked = [job for job in jobs.values() if job.after or job.kind == WRITE]
    looping = in_cycles(jobs) if linked else []
    noted: dict = {}  # job id -> its problems; those of the last round count
    before = -1
    while len(broken) != before:
        before = len(broken)
        for job in [job for job in linked if job.id in jobs]:
            mine = noted[job.id] = list(after_problems(job, jobs, broken))
            if job.id in looping:
                mine.append(Problem(("jobs", job.index, "after"), "forms a cycle through " + ", ".join(looping[:5])))
            if first_error(mine):
                broken[job.id] = first_error(mine)
                del jobs[job.id]
    for mine in noted.values():
        problems += mine


def find_places(text: str) -> dict:
    """Path -> (line, column) of every value; empty for a text that only the plain parser reads."""
    try:
        return read_tolerant(text).places
    except Malformed:  # nested deeper than the tolerant parser goes
        return {}


def read_config(text: str) -> Config:
    """A config as understood.  Raises Malformed if nothing in it can be used."""
    problems: list = []
    settings = read_settings("config", parse_json(text, "refuse"), (), problems)
    for problem in problems:
        if problem.path in ((), ("version",), ("jobs",)):
            where = f"{path_text(problem.path)}: " if problem.path else ""
            raise Malformed(where + problem.text, *find_places(text).get(problem.path, (1, 1)))
    jobs, broken = read_jobs(settings["jobs"], settings.get("defaults", {}), problems)
    cross_check(jobs, broken, problems)
    monitor = filled("monitor", settings.get("monitor", {}))
    delivery = filled("delivery", settings.get("delivery", {}))
    if delivery.channel == "telegram" and not str(delivery.thread_id or "0").isdigit():
        problems.append(Problem(("delivery", "threadId"), "a topic on Telegram is a number", is_error=False))
    return Config(jobs, broken, monitor, delivery, tuple(problems), text, settings.get("defaults", {}).get("quietHours", {}))


def problem_lines(config: Config, path: str, strict: bool = False, redact: Optional[Redactor] = None) -> list:
    """Every problem as `PATH:LINE:COL: error: jobs[2].x: …`, in the order of the file."""
    places = find_places(config.text) if config.problems else {}
    lines = []
    for problem in config.problems:
        place = problem.path
        while place and place not in places:
            place = place[:-1]
        line, column = places.get(place, (1, 1))
        level = "error" if problem.is_error or strict else "warning"
        lines.append((line, column, f"{path}:{line}:{column}: {level}: {path_text(problem.path)}: {problem.text}"))
    return [(redact or Redactor())(text) for _, _, text in sorted(lines)]


def run_timeout(job: Any) -> float:
    """Seconds that `commands.run` may take."""
    given = job.policy.run_timeout_seconds
    return float(given if given is not None else 3600 if job.kind == WRITE else 300)


def config_schema() -> dict:
    """The JSON Schema of ops-jobs.json (draft 2020-12), derived from FIELDS."""

    def shape(name: str) -> dict:
        properties = {}
        for field in FIELDS[name]:
            schema = field.kind.schema if field.default is not None else {"anyOf": [field.kind.schema, {"type": "null"}]}
            default = {} if field.default in (None, REQUIRED) else {"default": field.default}
            properties[field.key] = {**schema, "description": field.doc, **default}
        return {"type": "object", "properties": properties, **({"required": REQUIRED_KEYS[name]} if REQUIRED_KEYS[name] else {})}

    whole = shape("config")
    whole["$defs"] = {name: shape(name) for name in FIELDS if name != "config"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ops-jobs.json", **whole}


# ==== OPENCLAW ===========================================================
# Reads OpenClaw's config for what we need to reach a person.  Files come in through parameters;
# what is broken becomes a line of text without secrets, and never hides the rest.

CONFIG_DEPTH = 100  # levels of nesting kept, includes counted in
INCLUDE_DEPTH = 10  # OpenClaw's own bound
INCLUDE_COUNT = 1000  # ours: files that include others many times over must not hold up a tick
VARIABLE_FORM = r"\$(\$?)(\{([A-Za-z_][A-Za-z0-9_]*)\})"
DOTENV_LINE = r"""(?m)^[\ufeff \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*=[ \t]*(?:"([^"\n]*)"|'([^'\n]*)'|([^#\n]*))"""
TARGET_FORM = r"(?i)\s*(?:(?:telegram|tg):\s*)*(-?[1-9][0-9]{0,18}|@[a-z0-9_]+)(?::(?:topic:)?([0-9]{1,18}))?\s*"


class Places(NamedTuple):  # all None when neither a home nor a variable says where
    state_dir: Optional[str]  # OpenClaw's
    config_file: Optional[str]  # OpenClaw's
    ours_dir: Optional[str]  # the directory that holds `net/`: what v1 called the state dir


class OpenClaw(NamedTuple):
    path: str  # "" without one
    config: dict  # includes resolved, ${VAR} replaced; an unset ${VAR} still stands there
    variables: dict  # name -> text, never blank: the process's before .env's before the config's
    problems: list  # one line of text each, beginning with the file


class Token(NamedTuple):
    value: Optional[str]
    source: Optional[str]  # the key or variable that decided; None when none is configured
    problem: Optional[str]  # why a configured source gives no value
    account: str


class Target(NamedTuple):
    chat: str  # "777000111", "-100123" or "@name"
    thread: Optional[int]
    source: str


class Api(NamedTuple):
    root: str
    proxy: Optional[str]


class Unavailable(Exception):
    """What is configured cannot be had; the text says why, without the secret."""


def refuse_if(*rules: tuple) -> None:
    """Raises Unavailable with the reason of the first rule, (does it hold, reason), that holds."""
    for holds, reason in rules:
        if holds:
            raise Unavailable(reason)


def as_list(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def is_unset(value: Any) -> bool:
    return value is None or isinstance(value, str) and value.strip() in ("", "undefined", "null")


def only_set(variables: dict) -> dict:
    return {name: text for name, text in variables.items() if isinstance(text, str) and text.strip()}


def expand_home(path: str, home: Optional[str]) -> str:
    return home + path[1:] if home and (path == "~" or path.startswith("~/")) else path


def openclaw_places(env: dict, home: Optional[str], exists: Callable[[str], bool]) -> Places:
    """Where OpenClaw and our own files are. OPENCLAW_HOME is v1's state dir, but to OpenClaw its parent.

    OPENCLAW_CONFIG_PATH alone moves no state, as in OpenClaw: that file may lie in a read-only store.
    """
    given = (env.get("OPENCLAW_" + name) for name in ("CONFIG_PATH", "STATE_DIR", "HOME"))
    named, state, base = (None if is_unset(path) else os.path.normpath(expand_home(str(path).strip(), home)) for path in given)
    if state:
        usual = [f"{state}/openclaw.json"]
    elif base:
        usual = [f"{base}/openclaw.json", f"{base}/.openclaw/openclaw.json"]
    elif home:
        usual = [f"{home}/.openclaw/openclaw.json", f"{home}/.clawdbot/clawdbot.json"]
    elif named:
        usual = [named]
    else:
        return Places(None, None, None)
    found = next(filter(exists, usual), usual[0])
    state_dir = os.path.dirname(found)
    expected = os.path.dirname(usual[0])
    ours = [base or expected, expected, state_dir]
    if named and not state and not base:
        ours.append(os.path.dirname(named))
    return Places(state_dir, named or found, next((place for place in ours if exists(f"{place}/net")), state_dir))


def env_for_openclaw(env: dict, places: Places) -> dict:
    """The environment of a child `openclaw`: our places, no grandchild that outlives it, no colour."""
    ours = {"OPENCLAW_STATE_DIR": places.state_dir, "OPENCLAW_CONFIG_PATH": places.config_file,
            "OPENCLAW_NO_RESPAWN": "1", "NO_COLOR": "1",
            "OPENCLAW_HOME": None}  # with it OpenClaw would make .openclaw/.openclaw
    return {name: text for name, text in {**env, **ours}.items() if text is not None}


def explain_unreadable(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not readable as UTF-8 text"


def read_document(path: str, read: Callable[[str], str]) -> Any:
    """The value of a JSON file; Unavailable names the place, not what was found there: it may be a secret."""
    try:
        return parse_json(read(path))
    except Malformed as error:
        raise Unavailable(f"{path}:{error.line}:{error.column}: {error.problem.split(', found ')[0]}") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"{path}: {explain_unreadable(error)}") from None


def lay_over(below: Any, above: Any) -> Any:
    """`above` laid over `below`: objects merge, lists are joined, of anything else `above` wins."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: lay_over(below.get(key), value) for key, value in above.items()}}
    return below + above if isinstance(below, list) and isinstance(above, list) else above


class Includes:
    """Resolves `$include`. A chain is the files that lead from the config to the one being read."""

    def __init__(self, read: Callable[[str], str]):
        self.read, self.count = read, 0
        self.problems: list = []

    def resolve(self, value: Any, chain: tuple, depth: int = 0) -> Any:
        """`value` with every `$include` in it replaced; what cannot be had is left out and noted."""
        if depth > CONFIG_DEPTH:
            self.problems.append(f"{chain[-1]}: nested deeper than {CONFIG_DEPTH}, left out")
            return None
        if isinstance(value, list):
            return [self.resolve(item, chain, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        rest = {key: self.resolve(item, chain, depth + 1) for key, item in value.items() if key != "$include"}
        included = None
        for name in as_list(value.get("$include", [])):
            try:
                included = lay_over(included, self.file(name, chain, depth))
            except Unavailable as error:
                self.problems.append(f"{chain[-1]}: $include: {error}, left out")
        return lay_over(included, rest) if rest or included is None else included

    def file(self, name: Any, chain: tuple, depth: int) -> Any:
        path = os.path.normpath(os.path.join(os.path.dirname(chain[-1]), name if isinstance(name, str) else "."))
        directory = os.path.join(os.path.dirname(chain[0]), "")
        self.count += 1
        refuse_if(
            (not path.startswith(directory), "expected a file inside the config's directory"),
            (path in chain, f"{path} includes itself"),
            (len(chain) > INCLUDE_DEPTH, f"{path} is nested deeper than {INCLUDE_DEPTH} files"),
            (self.count > INCLUDE_COUNT, f"{path} comes after {INCLUDE_COUNT} others"),
        )
        return self.resolve(read_document(path, self.read), (*chain, path), depth + 1)


def substitute(value: Any, variables: dict) -> Any:
    """`value` with `${VAR}` replaced in every text; unset ones stay, `$${VAR}` becomes `${VAR}`."""
    if isinstance(value, dict):
        return {key: substitute(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, variables) for item in value]
    if not isinstance(value, str):
        return value
    return re.sub(VARIABLE_FORM, lambda it: "$" + it[2] if it[1] else variables.get(it[3], it[0]), value)


def read_dotenv(path: str, read: Callable[[str], str], problems: list) -> dict:
    """The variables of a .env file, one a line: `export A="v" # c`. A missing file has none."""
    try:
        found = re.findall(DOTENV_LINE, read(path))
        return only_set({name: (double or single or bare).strip() for name, double, single, bare in found})
    except (OSError, ValueError) as error:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            problems.append(f"{path}: {explain_unreadable(error)}")
        return {}


def load_openclaw(path: Optional[str], env: dict, read: Callable[[str], str], state_dir: Optional[str] = None) -> OpenClaw:
    """The config at the absolute `path`, and the variables; `.env` is looked for beside it and in `state_dir`.

    `read` may raise OSError and ValueError. Symlinks are its business: here names are judged.
    """
    if not path:
        return OpenClaw("", {}, only_set(env), [])
    path = os.path.normpath(path)
    directory, includes, config = os.path.dirname(path), Includes(read), None
    problems = includes.problems
    try:
        config = includes.resolve(read_document(path, read), (path,))
        refuse_if((not isinstance(config, dict), f"{path}: expected an object"))
    except Unavailable as error:
        problems.append(str(error))
    config, outer = object_at(config), {}
    for place in dict.fromkeys((directory, state_dir or directory)):
        outer.update(read_dotenv(os.path.join(place, ".env"), read, problems))
    outer.update(only_set(env))
    own = substitute(only_set({**object_at(config, "env"), **object_at(config, "env", "vars")}), outer)
    variables = {**{name: text for name, text in own.items() if "${" not in text}, **outer}  # unresolved means unset
    return OpenClaw(path, substitute(config, variables), variables, problems)


def default_account(openclaw: OpenClaw) -> str:
    """`defaultAccount` if there is such a one, else `default`, else the first in alphabetical order."""
    channel = object_at(openclaw.config, "channels", "telegram")
    accounts = object_at(channel, "accounts")
    wishes = (channel.get("defaultAccount"), "default", *sorted(accounts))
    return next((wish for wish in wishes if isinstance(wish, str) and wish in accounts), "default")


def telegram_layers(openclaw: OpenClaw, account: Optional[str]) -> list:
    """The settings of `account` (None: the default one), then the channel's, each as (where, object)."""
    account = account or default_account(openclaw)
    channel = object_at(openclaw.config, "channels", "telegram")
    return [(f"channels.telegram.accounts.{account}", object_at(channel, "accounts", account)), ("channels.telegram", channel)]


def check_text(value: Any) -> str:
    """`value` trimmed; Unavailable when it is no text, or when a variable in it is not set."""
    text = value.strip() if isinstance(value, str) else ""
    unset = ", ".join(found[0] for found in re.finditer(VARIABLE_FORM, text))
    refuse_if((is_unset(text), "there is no text in it"), ("${" in text, f"a variable is not set: {unset}" if unset else "a variable is not set: only ${NAME} is understood"))
    return text


def read_named(openclaw: OpenClaw, path: Any, read_file: Callable[[str], str]) -> str:
    """The text of a file that the config names; a relative one is beside the config."""
    path = expand_home(check_text(path), openclaw.variables.get("HOME"))
    try:
        return read_file(os.path.join(os.path.dirname(openclaw.path), path))
    except (OSError, ValueError) as error:
        raise Unavailable(f"the file cannot be read: {explain_unreadable(error)}") from None


def plain_name(name: str) -> str:
    """A name as an error may quote it: what is no plain name may be the secret itself, put into the wrong place."""
    return name if re.fullmatch("[a-z][a-z0-9_-]{0,15}", name) else "of that name"


def follow_reference(openclaw: OpenClaw, reference: dict, read_file: Callable[[str], str]) -> Any:
    """What a secret reference `{source, provider, id}` leads to; `id` is a variable or a JSON pointer."""
    source, provider, name = (str(reference.get(key, "default")) for key in ("source", "provider", "id"))
    if source == "env":
        return substitute("${%s}" % name, openclaw.variables)
    settings = object_at(openclaw.config, "secrets", "providers", provider)
    refuse_if(
        (source != "file", f"secret reference by {plain_name(source)}: only openclaw can read it"),
        (not settings, f"the secret provider {plain_name(provider)} is not configured"),
    )
    text = read_named(openclaw, settings.get("path"), read_file)
    if settings.get("mode") == "singleValue":
        return text
    try:
        value = parse_json(text)
    except Malformed:
        raise Unavailable("the secret file is not JSON") from None
    for key in name.lstrip("/").split("/"):
        members = {str(place): item for place, item in enumerate(value)} if isinstance(value, list) else value
        value = object_at(members).get(key.replace("~1", "/").replace("~0", "~"))
    return value


def check_secret(value: Any) -> str:
    """`value` trimmed, if it can stand in a URL as it is; else Unavailable, without quoting it."""
    text = check_text(value)
    refuse_if(
        (re.fullmatch(r"__OPENCLAW_REDACTED__|\*{3,}", text), "it is a redacted placeholder, not a value"),
        (not re.fullmatch("[!-~]+", text), "it is not a token but has blanks or characters beyond ASCII"),
    )
    return text


def find_secret(openclaw: OpenClaw, key: str, value: Any, read_file: Callable[[str], str]) -> str:
    """The secret behind `value`: in the file it names, what it refers to, the `$VAR` it is, or itself."""
    if key == "tokenFile":
        value = read_named(openclaw, value, read_file)
    elif isinstance(value, dict):
        value = follow_reference(openclaw, value, read_file)
    elif isinstance(value, str):
        value = re.sub(r"^\s*\$(\w+)\s*$", lambda found: openclaw.variables.get(found[1], "${%s}" % found[1]), value)
    return check_secret(value)


def find_token(openclaw: OpenClaw, account: Optional[str], read_file: Callable[[str], str]) -> Token:
    """The bot token of `account` (None: the default one): the first source that is configured decides.

    `read_file` refuses symlinks and what is not a regular file, by OSError.
    """
    account = account or default_account(openclaw)
    layers = telegram_layers(openclaw, account)
    source, keys = layers[0][0], ("tokenFile", "botToken")
    sources = [(f"{where}.{key}", key, values.get(key)) for where, values in layers for key in keys]
    if account in ("default", default_account(openclaw)):
        sources.append(("TELEGRAM_BOT_TOKEN", "", openclaw.variables.get("TELEGRAM_BOT_TOKEN")))
    try:
        refuse_if((account not in {"default", *object_at(layers[1][1], "accounts")}, "there is no such account"))
        for where, values in layers:
            source = f"{where}.enabled"
            refuse_if((values.get("enabled") is False, "it is off in OpenClaw (enabled: false)"))
        for source, key, value in sources:
            if not is_unset(value):
                return Token(find_secret(openclaw, key, value, read_file), source, None, account)
    except Unavailable as error:
        return Token(None, source, str(error), account)
    return Token(None, None, None, account)


def parse_target(text: Any) -> Optional[tuple]:
    """(chat, thread) of an id as people and OpenClaw write it, None if it is none. Topic 1 has no thread."""
    found = re.fullmatch(TARGET_FORM, str(text)) if isinstance(text, (str, int)) else None
    return found and (found[1], int(found[2]) if int(found[2] or 0) > 1 else None)


def parse_person(text: Any) -> Optional[tuple]:
    """As `parse_target`, but people only: no group, no name, nothing beyond Telegram's 52 bits.

    OpenClaw's lists of owners are shared between channels, and Discord's ids are longer.
    """
    found = parse_target(text)
    return found if found and found[0].isdigit() and int(found[0]) < 2**52 else None


def heartbeat_target(config: dict) -> Any:
    """Where agent `main` sends its heartbeat, None unless by Telegram; `entries` is newer than `list`."""
    agents, beat = object_at(config, "agents"), {}
    listed = [agent for agent in map(object_at, as_list(agents.get("list"))) if agent.get("id") == "main"]
    for holder in (object_at(agents, "defaults"), *listed, object_at(agents, "entries", "main")):
        beat.update(object_at(holder, "heartbeat"))
    return beat.get("to") if beat.get("target") == "telegram" else None


def find_target(openclaw: OpenClaw, account: Optional[str]) -> Optional[Target]:
    """The chat that OpenClaw's config gives away as its owner's; never a group that it merely serves."""
    sources: list = [
        ("heartbeat.to of agent main", heartbeat_target(openclaw.config), parse_target),
        ("commands.ownerAllowFrom", object_at(openclaw.config, "commands").get("ownerAllowFrom"), parse_person),
    ]
    for key, parse in (("defaultTo", parse_target), ("allowFrom", parse_person)):
        sources += [(f"{where}.{key}", values.get(key), parse) for where, values in telegram_layers(openclaw, account)]
    for source, value, parse in sources:
        for chat, thread in filter(None, map(parse, as_list(value))):
            return Target(chat, thread, source)
    return None


def find_api(openclaw: OpenClaw, account: Optional[str]) -> Api:
    """The Bot API's address and the proxy on the way to it; the account's come before the channel's."""
    (_, own), (_, channel) = telegram_layers(openclaw, account)
    settings = {**only_set(channel), **only_set(own)}
    root = settings.get("apiRoot", "https://api.telegram.org").strip()
    return Api(re.sub("/*(/bot[0-9]+:[^/]*)?/*$", "", root), settings.get("proxy", "").strip() or None)


# ==== SCHEDULERS =========================================================
# How `tick` is called, in the words of systemd, launchd and cron.  Only texts: WORLD reads them, COMMANDS writes them.


class Calling(NamedTuple):
    """What a scheduler is told about one installation."""

    name: str  # of units, plist and crontab lines; another installation has another one
    argv: list  # calls `tick`
    env: dict  # what argv needs in its environment
    every: float  # seconds


def python_word(text: str) -> str:
    """`text` as a Python literal in which no shell, cron or systemd finds anything to read."""
    plain = (letter if letter.isprintable() and letter not in "\"'\\%$" else f"\\U{ord(letter):08x}" for letter in text)
    return '"' + "".join(plain) + '"'


def tick_argv(python: str, script: str, words: list) -> list:
    """The command that runs `script` with `words`: as a module, whose byte code Python keeps, if its name can be one's."""
    directory, name = os.path.split(script)
    stem, suffix = os.path.splitext(name)
    if suffix != ".py" or "." in stem:
        return [python, "-I", "-S", script, *words]
    listed = ", ".join(map(python_word, words))
    # append, not insert: the standard library stays first
    code = f"import sys; sys.path.append({python_word(directory)}); __import__({python_word(stem)}).run_and_exit([{listed}])"
    return [python, "-I", "-S", "-c", code]


SERVICE = """# Written by `ops-monitor.py schedule install`; `schedule remove` takes it away.
[Unit]
Description=Ops Framework: one tick

[Service]
Type=oneshot
# The jobs that a tick has started go on when it ends, and a long check is not cut off:
KillMode=process
TimeoutStartSec=infinity
{environment}ExecStart={command}
"""
TIMER = """# Written by `ops-monitor.py schedule install`; `schedule remove` takes it away.
[Unit]
Description=Ops Framework: calls tick

[Timer]
OnActiveSec=1
OnUnitActiveSec={every}
AccuracySec=1

[Install]
WantedBy=timers.target
"""


def systemd_word(text: str) -> str:
    """`text` as one word of a unit file."""
    return text if re.fullmatch(r"[\w@+=:,./-]+", text) else "'" + re.sub(r"[\\']", r"\\\g<0>", text.replace("%", "%%")) + "'"


def systemd_units(calling: Calling) -> dict:
    """File name -> text of the service and its timer."""
    words = list(map(systemd_word, calling.argv))
    if words[0] != calling.argv[0]:
        words.insert(0, "/usr/bin/env")  # systemd takes no program with an odd name
    command = " ".join(words).replace("$", "$$")
    environment = "".join(f"Environment={systemd_word(f'{name}={value}')}\n" for name, value in calling.env.items())
    service = SERVICE.format(environment=environment, command=command)
    return {f"{calling.name}.service": service, f"{calling.name}.timer": TIMER.format(every=int(calling.every))}


def launchd_settings(calling: Calling) -> dict:
    """The property list of a launchd agent.  From Apple's documents; not tried there."""
    settings = {"Label": f"local.{calling.name}", "ProgramArguments": calling.argv, "StartInterval": int(calling.every)}
    settings.update(RunAtLoad=True, AbandonProcessGroup=True, ProcessType="Background")
    return {**settings, "EnvironmentVariables": calling.env} if calling.env else settings


def agent_commands(kind: str, name: str, path: str, user: int) -> tuple:
    """(what makes systemd or launchd read its files, at last start the calls; what ends the calls)."""
    if kind == "launchd":
        return [["launchctl", "bootstrap", f"gui/{user}", path]], ["launchctl", "bootout", f"gui/{user}/local.{name}"]
    systemctl, timer = ["systemctl", "--user"], f"{name}.timer"
    return [[*systemctl, "daemon-reload"], [*systemctl, "enable", "--now", timer]], [*systemctl, "disable", "--now", timer]


CRON_GRID = {  # seconds -> how cron says it; it knows a grid of the day only
    **{minutes * 60: f"*/{minutes} * * * *" for minutes in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)},
    **{hours * 3600: f"0 */{hours} * * *" for hours in (1, 2, 3, 4, 6, 8, 12)},
    60: "* * * * *", 3600: "0 * * * *", 86400: "0 0 * * *",
}  # fmt: skip


def cron_word(text: str) -> str:
    """`text` as one word of a crontab line.  No two backslashes meet: some crons make one of them."""
    return shell_word(text).replace("\\", "\\''").replace("%", "\\%")


def cron_lines(calling: Calling) -> str:
    """What stands in the crontab: a comment by which the line below it is known as ours, and that line."""
    env = [f"{name}={value}" for name, value in calling.env.items()]
    command = " ".join(map(cron_word, [*(["/usr/bin/env"] if env else []), *env, *calling.argv]))
    about = "written by `ops-monitor.py schedule install`; `schedule remove` takes it away"
    return f"# {calling.name}: {about}\n{CRON_GRID[int(calling.every)]} {command}\n"


def merge_crontab(table: bytes, name: str, ours: bytes) -> bytes:
    """`table` with `ours` where the lines called `name` stand, else at its end; all others stay, byte for byte."""
    mark = re.escape(f"# {name}: ".encode())
    old = rb"(?m)^" + mark + rb".*\n?(?:(?!" + mark + rb").*tick.*\n?)?"
    first, others = re.search(old, table), re.sub(old, b"", table)
    if not first:
        return table + (b"\n" if ours and table and not table.endswith(b"\n") else b"") + ours
    return others[: first.start()] + ours + others[first.start() :]


# ---- who calls `tick`?  What the texts of the machine's schedulers say; WORLD fetches them


class Call(NamedTuple):
    """How a command line calls `tick`."""

    python: str  # the interpreter that it names; "" = the script's first line chooses
    script: str  # "" = not said
    options: list  # what stands after `tick`
    env: dict  # NAME=value before it


class Entry(NamedTuple):
    """One entry of a scheduler that calls `tick`."""

    kind: str  # cron, systemd or launchd
    place: str  # its file, or `crontab -l`
    period: float  # seconds from call to call; 0 = not said, or not simply
    problems: tuple  # (what is wrong with it, what mends that)
    call: Call
    env: dict  # its environment, as far as it is said
    user: str = ""  # who runs it; "" = who asks
    is_on: bool = True
    remove: str = "crontab -e"  # what takes it away


IMPORT_FORM = r"""__import__\(["']([^"']+)["']\)\.(?:main|run_and_exit)\(\[\s*["']tick["']([^\]]*)\]"""
QUOTED = r"""["']([^"']+)["']"""


def shell_words(command: str) -> list:
    """A command line as words; `;`, `&&`, `>` are words of their own."""
    import shlex  # rare: only to look at schedulers

    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split, words.commenters = True, ""
    try:
        return list(words)
    except ValueError:  # a quote is not closed
        return command.split()


def unit_words(line: str, home: str) -> list:
    """The words of a line in a systemd unit: quotes, escapes, `%h` and `%%`."""
    parts = ("".join(found) for found in re.findall(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|(\S+)""", line))
    return [re.sub(r"\\(.)|%([h%])", lambda found: home if found[2] == "h" else found[1] or "%", part) for part in parts]


def tick_call(words: list) -> Optional[Call]:
    """How these words call `tick`, by the script's name or as a module; None if they do not."""
    for number, word in enumerate(words):
        before, after = words[:number], words[number + 1 :]
        module = re.search(IMPORT_FORM, word)
        if module:
            place = re.search(r"""sys\.path[^"']*""" + QUOTED, word)
            texts = [f"{place[1]}/{module[1]}.py" if place else "", *re.findall(QUOTED, module[2])]
            script, *options = (re.sub(r"\\U(.{8})", lambda code: chr(int(code[1], 16)), text) for text in texts)  # as python_word writes
        elif os.path.basename(word) in ("ops-monitor.py", os.path.basename(__file__)) and after[:1] == ["tick"]:
            script, options = word, after[1:]
        else:
            inner = tick_call(shell_words(word)) if "tick" in word and " " in word else None  # sh -c "…"
            if inner:
                return inner
            continue
        python = next((name for name in reversed(before) if re.fullmatch(r"(.*/)?python[0-9.]*", name)), "")
        return Call(python, script, options, environment_of(before))
    return None


def environment_of(words: Iterable[str]) -> dict:
    return dict(word.split("=", 1) for word in words if re.match(r"[A-Za-z_]\w*=", word))


PERIODS = {"minutely": MINUTE, "hourly": HOUR, "daily": DAY, "midnight": DAY, "weekly": 7 * DAY}


def cron_period(times: str) -> float:
    """Seconds between the calls of a crontab line; 0 where they are not the same at all hours, or only in a part of each."""
    minute, *others = times.split()
    steps = re.fullmatch(r"(?:\*|0-59)(?:/([1-9]\d*))?", minute)
    if others != ["*"] * 4 or "-" in minute and not steps:
        return PERIODS.get(minute.lstrip("@"), 0.0)
    return min(HOUR, MINUTE * int(steps[1] or 1)) if steps else HOUR / len(minute.split(","))


def crontab_entries(text: str, place: str, has_user: bool) -> Iterator[Entry]:
    """The entries of a crontab; in the system's own a user stands before the command."""
    env: dict = {}
    for line in map(str.strip, text.splitlines()):
        setting = re.fullmatch(r"""([A-Za-z_]\w*)\s*=\s*["']?(.*?)["']?""", line)
        env.update({setting[1]: setting[2]} if setting else {})
        timed = None if setting else re.fullmatch(r"(@\w+|[^\s#]\S*(?:\s+\S+){4})\s+" + r"(\S+)\s+" * has_user + "(.*)", line)
        call = tick_call(shell_words(timed[timed.lastindex or 0].replace("\\%", "%"))) if timed else None
        if timed and call:
            edit = f"edit {place}" if has_user else "crontab -e"
            problems = (("it runs once a boot, not again and again", edit),) if timed[1] == "@reboot" else ()
            yield Entry("cron", place, cron_period(timed[1]), problems, call, {**env, **call.env}, timed[2] if has_user else "", remove=edit)


def unit_settings(text: str) -> dict:
    """`Section.Key` -> its values in a systemd unit, in order; an empty one drops those before it."""
    settings: dict = {}
    section = ""
    for line in map(str.strip, re.sub(r"\\\n\s*", " ", text).splitlines()):
        key, mark, value = (part.strip() for part in line.partition("="))
        if line.startswith("["):
            section = line.strip("[]")
        elif mark and key[:1] not in ("#", ";"):
            values = settings.setdefault(f"{section}.{key}", [])
            values[:] = [*values, value] if value else []
    return settings


def timer_period(timer: dict) -> float:
    """Seconds between the calls of a systemd timer; 0 where it does not say so simply."""
    span, date = ((timer.get(f"Timer.{key}") or [""])[-1] for key in ("OnUnitActiveSec", "OnCalendar"))
    found = re.fullmatch(r"(?:\*-\*-\* )?\*:(?:\*|\d+/(\d+))(?::\d+)?", date)
    try:
        return duration_seconds(re.sub(r"([a-z])[a-z]*", r"\1", span))  # 1min 30sec
    except ValueError:
        return MINUTE * int(found[1] or 1) if found else PERIODS.get(date, 0.0)


def systemd_entries(control: str, home: str, units: dict, enabled: set) -> Iterator[Entry]:
    """Those of systemd's units, name -> (file, text with drop-ins); `control` is the systemctl that is theirs."""
    parsed = {name: unit_settings(text) for name, (_, text) in units.items()}
    timers = {(unit.get("Timer.Unit") or [name[:-6] + ".service"])[-1]: name for name, unit in parsed.items() if name.endswith(".timer")}
    for name, unit in parsed.items():
        call = next(filter(None, (tick_call(unit_words(command.lstrip("@-:+!"), home)) for command in unit.get("Service.ExecStart", []))), None)
        if not call:
            continue
        place, timer = units[name][0], timers.get(name, "")
        drop_in, mode = shell_word(place + ".d"), (unit.get("Service.KillMode") or [""])[-1]
        mend = f"mkdir -p {drop_in} && printf '[Service]\\nKillMode=process\\n' > {drop_in}/killmode.conf && {control} daemon-reload"
        wrong = (
            (not timer, "no timer calls it", f"write a timer beside it, then: {control} enable --now {name[:-8]}.timer"),
            (timer and timer not in enabled, f"{timer} is not enabled", f"{control} enable --now {timer}"),
            (mode not in ("process", "none"), "without KillMode=process systemd kills what a tick started as soon as the tick ends", mend),
        )
        env = environment_of(word for line in unit.get("Service.Environment", []) for word in unit_words(line, home))
        user = "" if "--user" in control else (unit.get("Service.User") or ["root"])[-1]
        problems = tuple((words, mend) for is_so, words, mend in wrong if is_so)
        remove = f"{control} disable --now {timer}"
        yield Entry("systemd", place, timer_period(parsed.get(timer, {})), problems, call, {**env, **call.env}, user, timer in enabled, remove)


def launchd_entries(plist: dict, place: str, user: str) -> Iterator[Entry]:
    """That of a launchd job, if it calls `tick`."""
    call = tick_call(list(filter(is_text, as_list(plist.get("ProgramArguments")))))
    every: Any = plist.get("StartInterval")
    dates, name = plist.get("StartCalendarInterval"), shell_word(place)
    is_on, load = plist.get("Disabled") is not True, f"launchctl unload {name}; launchctl load -w {name}"
    wrong = (
        (not is_on, "it is disabled", load),
        (not every and dates is None, "nothing calls it again", f"add StartInterval 60 to {place}; {load}"),
        (plist.get("AbandonProcessGroup") is not True, "without AbandonProcessGroup launchd kills what a tick started as soon as the tick ends",
         f"plutil -replace AbandonProcessGroup -bool true {name}; {load}"),
    )  # fmt: skip
    if call:
        period = float(every) if is_number(every) else MINUTE if dates == {} else 0.0
        problems = tuple((words, mend) for is_so, words, mend in wrong if is_so)
        env = {**only_set(object_at(plist, "EnvironmentVariables")), **call.env}
        yield Entry("launchd", place, period, problems, call, env, str(plist.get("UserName", user)), is_on, f"launchctl unload -w {name}")


# ==== STATE ==============================================================
# What is remembered between ticks: its JSON shape, how old files become new ones, and how wrong or
# future values are survived.  A value of the wrong type counts as absent, alone.

STATE_VERSION = 2
FORGET_AFTER = 30 * DAY  # memory of a job that left the config
OUTBOX_LIMIT = 500
DONE_KEPT, DONE_MOST = DAY, 20  # finished queue entries stay for those who look: so long, so many
PENDING_MOST = 10  # entries of one job that one other job may have waiting
TICKS_KEPT = 10
PROGRESS_BYTES = 500  # of a progress object that memory keeps, as JSON
FACT_TEXT = 160  # letters of a fact that an incident keeps

# Record -> JSON key -> (attribute, type of its value, whether that is the time of a past event).
KEYS: dict = {
    kind: {camel(name): (name, type(absent), name.endswith("_at")) for name, absent in zip(kind._fields, kind())} for kind in (Memory, Incident, Gate)
}
ABSENT: dict = {kind: kind() for kind in KEYS}


def thaw(kind: Any, raw: Any, now: float) -> Any:
    """A record from its JSON object.  Past events dated in the future happened now."""
    known, values = KEYS[kind], {}
    for key, value in object_at(raw).items():
        if key not in known:
            continue
        name, wanted, is_event = known[key]
        if wanted is float and type(value) in (int, float) and abs(value) < 1e15:  # NaN is not
            value = min(float(value), now) if is_event else float(value)
        elif wanted is float or type(value) is not wanted:
            continue
        elif name == "incidents":
            value = {about: thaw(Incident, item, now) for about, item in value.items() if isinstance(item, dict)}
        values[name] = value
    return kind(**values)


def freeze(record: Any, raw: Any = None) -> dict:
    """The JSON object of a record: what differs from absent, and keys of `raw`, its last one, that we do not know."""
    known, raw = KEYS[type(record)], object_at(raw)
    made = {key: item for key, item in raw.items() if key not in known}
    for key, item, absent in zip(known, record, ABSENT[type(record)]):
        if item is absent or item == absent:
            continue
        if type(item) is float:
            item = round(item, 3)
        elif key == "incidents":
            item = {about: freeze(incident, object_at(raw, key).get(about)) for about, incident in item.items()}
        made[key] = item
    return made


def small_progress(progress: dict) -> dict:
    """The scalars of a progress object, few and short, for later differences."""
    kept: dict = {}
    room = PROGRESS_BYTES
    for key, value in progress.items():
        if isinstance(value, (int, float, str)):
            value = value[:40] if isinstance(value, str) else value
            room -= len(f"{key}{value}".encode("utf-8", "replace")) + 8
            if room < 0:
                break
            kept[key] = value
    return kept


def small_facts(facts: dict) -> dict:
    """The facts of an incident as memory keeps them, for `status`."""
    return {key: clip(value, FACT_TEXT) if isinstance(value, str) else value for key, value in facts.items()}


def epoch_seconds(value: Any) -> float:
    """Epoch seconds of a number (seconds or milliseconds) or ISO text; 0.0 for anything else."""
    if is_number(value):
        return max(0.0, float(value) / (1000.0 if value > 1e11 else 1.0))
    if not value or not isinstance(value, str):
        return 0.0
    from datetime import datetime, timezone  # rare: v1 files only

    try:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


class State:
    """The content of the state file while it is read or changed.

    `raw` is the JSON object; jobs are thawed when asked for and frozen when remembered, so
    that a tick over 1,000 jobs touches only what it changes.
    """

    # Queue entry: id, jobId, by (who asked for it), createdAt, notBefore, status (pending, running, done or blocked),
    # attempt (runs begun), doneAt.
    # Outbox entry: id, text, rank, createdAt, notBefore, wait (seconds from its setting to notBefore), about ([job id, kind]:
    # a newer entry about the same takes its place; [] = none does), tries and error (of the latest), refusedBy (identity of
    # the receiver that waits are due to), sending (a try has begun), maybeSent (the end of a try is unknown).
    # All times are epoch seconds.  jobs: id -> Memory; gates: id -> Gate; self: the monitor's own Memory; receiver: the last
    # that worked.  Beside these: version, savedAt, configFile (that it serves), recoveredAt (a lost state was replaced),
    # dropped (alerts the outbox had no room for), moved (chat -> the one it became), refused (way -> left alone until).
    SHAPE = {"jobs": dict, "gates": dict, "queue": list, "outbox": list, "receiver": dict, "self": dict}

    def __init__(self, raw: dict, now: float, is_migrated: bool = False):
        self.raw = raw
        self.now = now
        self.is_migrated = is_migrated  # the file was v1's
        self.history: list = []  # records to append once this state is on disk
        for key, kind in self.SHAPE.items():
            raw[key] = raw[key] if isinstance(raw.get(key), kind) else kind()
        saved: list = [raw.get("savedAt"), raw["self"].get("lookedAt")]
        if any(is_number(at) and at > now + 0.001 for at in saved):
            self._set_back()
        raw["queue"] = [self._mended(entry) for entry in raw["queue"] if isinstance(entry, dict)]
        raw["outbox"] = [self._mended(entry) for entry in raw["outbox"] if isinstance(object_at(entry).get("text"), str)]
        for entry in raw["outbox"]:
            if type(entry.get("rank")) is not int or not isinstance(entry.get("id"), str):
                entry.update(rank=ALERT, id=str(entry.get("id")))

    @property
    def jobs(self) -> dict:
        return self.raw["jobs"]

    @property
    def queue(self) -> list:
        return self.raw["queue"]

    @property
    def outbox(self) -> list:
        return self.raw["outbox"]

    def memory(self, job_id: str) -> Memory:
        return thaw(Memory, self.jobs.get(job_id), self.now)

    def remember(self, job_id: str, memory: Memory) -> None:
        self.jobs[job_id] = freeze(memory, self.jobs.get(job_id))

    def gate(self, job_id: str) -> Gate:
        return thaw(Gate, self.raw["gates"].get(job_id), self.now)

    def keep_gate(self, job_id: str, gate: Gate) -> None:
        self.raw["gates"][job_id] = freeze(gate, self.raw["gates"].get(job_id))

    def own_memory(self) -> Memory:
        """The monitor's memory of its own troubles: config, delivery, state."""
        return thaw(Memory, self.raw["self"], self.now)

    def remember_own(self, memory: Memory) -> None:
        self.raw["self"] = freeze(memory, self.raw["self"])

    @property
    def ticks(self) -> list:
        """When the scheduler called `tick`, the last times, the oldest first; if the clock was set back, those still to come do not count."""
        return [at for at in self.own_memory().ticks if is_number(at) and at <= self.now]

    def note_tick(self) -> None:
        self.remember_own(self.own_memory()._replace(ticks=[*self.ticks, round(self.now, 3)][-TICKS_KEPT:]))

    def record(self, event: str, job_id: str = "", **facts: Any) -> None:
        """Note one line for the history file."""
        self.history.append({"at": round(self.now, 3), "event": event, **({"job": job_id} if job_id else {}), **facts})

    def _set_back(self) -> None:
        """The clock was set back since this was saved: what is dated in the future happened now, from now on."""
        for job_id in self.jobs:
            self.remember(job_id, self.memory(job_id))
        for job_id in self.raw["gates"]:
            self.keep_gate(job_id, self.gate(job_id))
        self.remember_own(self.own_memory())
        self.raw.pop("recoveredAt", None)

    def _mended(self, entry: dict) -> dict:
        """A queue or outbox entry with times that the clock allows."""
        created, not_before = (epoch_seconds(entry.get(key)) for key in ("createdAt", "notBefore"))
        if created > self.now:  # the clock was set back: keep the wait, not the date
            not_before = self.now + max(0.0, not_before - created)
            created = self.now
        wait: Any = entry.get("wait")
        if is_number(wait) and wait >= 0:
            not_before = min(not_before, self.now + wait)
        done: Any = entry.get("doneAt")
        if is_number(done):
            entry["doneAt"] = min(done, self.now)
        entry.update(createdAt=created or self.now, notBefore=not_before)
        return entry


V1_TIMES = ("lastSeen", "lastProgressAt", "lastReportAt", "lastAutoResumeAt", "lastAnomalyReportAt")
V1_KEYS = {*V1_TIMES, "lastProgressKey", "lastAnomalyKey", "reportedCompleted"}


def memory_of_v1(old: dict) -> Memory:
    """What v1 knew of a job, so that the first tick repeats no report and no alert."""
    seen, moved, reported, resumed, alerted = (epoch_seconds(old.get(name)) for name in V1_TIMES)
    key = old.get("lastProgressKey")
    if not isinstance(key, str):
        key = "" if key is None else json.dumps(key, sort_keys=True, separators=(",", ":"))
    completed = old.get("reportedCompleted") is True
    return Memory(
        looked_at=seen or max(reported, moved),
        key=key, key_at=moved, stalled_for=max(0.0, seen - moved) if moved else 0.0,
        reported_at=reported, reported_key=key if reported else "",
        completed_fired=completed, completed_told=completed,
        attempts=int(resumed > 0), attempt_at=resumed, attempt_key=key if resumed else "",
        inherited_at=alerted or seen if old.get("lastAnomalyKey") else 0.0,
    )  # fmt: skip


def migrate_v1(raw: dict) -> dict:
    """A v1 state object as ours.  Keys that neither version knows are kept."""
    jobs = {}
    for job_id, old in object_at(raw, "jobs").items():
        if isinstance(old, dict):
            jobs[job_id] = freeze(memory_of_v1(old), {key: value for key, value in old.items() if key not in V1_KEYS})
    made = {key: value for key, value in raw.items() if key != "lastConfigErrorAt"}
    made.update(version=STATE_VERSION, jobs=jobs)
    told_at = epoch_seconds(raw.get("lastConfigErrorAt"))
    return {**made, "self": freeze(Memory(inherited_at=told_at))} if told_at else made


def read_state(text: str, now: float) -> State:
    """The state in a file's text.  Raises ValueError (not JSON, not an object) or StateError (newer)."""
    try:
        raw = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(raw, dict):
        raise ValueError(f"expected an object, found {found_text(raw)}")
    version: Any = raw.get("version")
    if is_number(version) and version > STATE_VERSION:
        raise StateError(f"the state file has version {version}, this program writes {STATE_VERSION}", "upgrade ops-monitor.py")
    return State(raw, now) if version == STATE_VERSION else State(migrate_v1(raw), now, is_migrated=True)


# ==== JUDGEMENT ==========================================================
# When to speak, when to act, and why not.  Pure: everything comes in as an argument, everything
# goes out as a value.
#
# One look at a long job is judged in five steps, each an ordered list of questions; the first that
# is answered with yes names the reason:
#
#   remember   the observation becomes memory: a new run? progress? how long awake without any?
#   resume     may it be started again by itself, and is it time?
#   findings   what is wrong now: unknown, stopped, stalled, level (each a Finding, None or UNSURE)
#   incidents  each finding against what a person was told: open, worse, changed, remind, resolve
#   report     is routine progress due?
#
# What a person was told is remembered apart from what is true, so every tick decides again from
# both: what quiet hours or a mute held back is told later if it is still true, and never if not.

LONGEST_BACKOFF = 6 * HOUR
LONGEST_REPEAT = DAY
TEXTS_TOLD = 5  # really different texts of one incident
RESUMING = ("resume.now", "resume.backoff", "resume.state_lost")  # it will be started, now or later
UNSURE = object()  # a finding that this look can neither confirm nor deny


def first_reason(*questions: tuple) -> Reason:
    """The Reason of the first question, (is it so, key, again_at, facts), that is answered with yes."""
    return next(Reason(*question[1:]) for question in questions if question[0])


def minute_of_day(text: str) -> int:
    """`08:30` -> 510."""
    return int(text[:2]) * 60 + int(text[3:])


def quiet_left(policy: Any, minute: int) -> float:
    """Seconds of quiet hours still to come; 0 outside them."""
    start, end = map(minute_of_day, policy.quiet_hours)
    is_inside = (minute - start) % 1440 < (end - start) % 1440
    return (end - minute) % 1440 * MINUTE if is_inside else 0.0


def is_muted(memory: Memory, now: Instant) -> bool:
    return memory.muted_for > 0 and now.at < memory.muted_at + memory.muted_for


def doubled(seconds: float, times: int, longest: float) -> float:
    """A wait doubled so many times, but not beyond `longest`, unless it began there."""
    return min(seconds * 2.0 ** min(max(0, times), 40), max(longest, seconds))


def backoff(policy: Any, attempts: int) -> float:
    """Seconds to wait after attempt number `attempts`."""
    return doubled(policy.auto_resume_backoff_seconds, attempts - 1, LONGEST_BACKOFF) if attempts else 0.0


# ---- reading what a command printed


class Written(float):
    """A number that remembers how it was written: 1.50 stays 1.50."""

    text = ""

    @classmethod
    def read(cls, text: str) -> Written:
        number = cls(text)
        if not float("-inf") < number < float("inf"):  # NaN, Infinity, 1e999: JSON cannot carry them any further
            raise ValueError(text)
        number.text = text
        return number


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def code_phrase(code: Optional[int]) -> Phrase:
    """How a run ended, by its exit code as it is remembered."""
    if code is None or code == NOT_RUN:
        return Phrase("run.not_run")
    if code < 0:
        return Phrase("run.signal", {"signal": signal_name(-code)})
    return Phrase({126: "run.exit126", 127: "run.exit127"}.get(code, "run.exit"), {"code": code})


def outcome_phrase(outcome: Outcome) -> Optional[Phrase]:
    """Why a run is not good, or None."""
    if outcome.failure:
        return outcome.failure
    if outcome.timed_out:
        return Phrase("run.timeout", {"seconds": duration_text(outcome.limit)})
    return code_phrase(outcome.code) if outcome.code else None


def redacted(phrase: Optional[Phrase], redact: Redactor) -> Optional[Phrase]:
    """The phrase with facts that are safe to keep and to show: a program's name may hold anything."""
    return phrase and phrase._replace(facts=redact.scrub(phrase.facts))


STATUS_LIMIT = 1 << 20  # bytes of a status answer
AS_WRITTEN = json.JSONDecoder(parse_float=Written.read, parse_constant=Written.read)  # reads JSON whose numbers keep their form


def status_answer(outcome: Outcome) -> Any:
    """The object that a good status command printed, or the Phrase that says why it is none."""
    if outcome.out_size > STATUS_LIMIT:
        return Phrase("status.large")
    try:
        answer = AS_WRITTEN.decode(outcome.out.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Phrase("status.utf8")
    except (ValueError, RecursionError):
        return Phrase("status.json" if outcome.out.strip() else "status.empty")
    if not isinstance(answer, dict):
        return Phrase("status.object")
    for field in ("running", "completed"):
        if not isinstance(answer.get(field), bool):
            return Phrase("status.boolean", {"field": field})
    return Phrase("status.both") if answer["running"] and answer["completed"] else answer


def progress_key(key: Any, progress: dict, redact: Redactor) -> str:
    """`progressKey`, else the canonical JSON of `progress`; by its digest where it is long or not to be shown."""
    text = key if isinstance(key, str) else ""
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        text = number_text(key)
    elif progress and not text:
        text = json.dumps(progress, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if len(text.encode("utf-8", "replace")) <= 100 and redact.tidy(text) == text:
        return text
    import hashlib  # rare: only for such keys

    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def observed(when: Instant, answer: dict, redact: Redactor) -> Observation:
    """The observation in a valid answer: optional parts of the wrong type count as absent."""
    progress, level, pid = object_at(answer, "progress"), answer.get("level"), answer.get("pid")
    message, stop_reason = (clip(redact.tidy(text).strip(), 1000) if isinstance(text, str) else ""
                            for text in (answer.get("message"), answer.get("stopReason")))  # fmt: skip
    return Observation(
        when,
        RUNNING if answer["running"] else COMPLETED if answer["completed"] else STOPPED,
        key=progress_key(answer.get("progressKey"), progress, redact),
        pid=pid if type(pid) is int and 1 < pid < 1 << 31 else 0,
        progress=redact.scrub(progress),
        level=level if level in ("warn", "alert") else "ok",
        message=message,
        waiting=answer.get("waiting") is True,
        stop_reason=stop_reason,
    )


def read_status(outcome: Outcome, redact: Redactor) -> Observation:
    """The observation in a status command's outcome: the status contract, CONTRACT of v1."""
    answer = redacted(outcome_phrase(outcome), redact) or status_answer(outcome)
    if isinstance(answer, dict):
        return observed(outcome.ended, answer, redact)
    detail = last_lines(redact.read(outcome.err) or redact.read(outcome.out), 3, 400)
    return Observation(outcome.ended, UNKNOWN, problem=answer, detail=detail)


# ---- remember


def is_acting(memory: Memory, now: Instant) -> bool:
    """Whether an intention without a result still blocks another start."""
    return bool(memory.action) and now.at < memory.action_at + memory.action_for


def end_action(memory: Memory) -> Memory:
    """The intention has its result."""
    return memory._replace(action="", action_at=0.0, action_for=0.0, action_id="", action_tries=0, action_entry="")


def has_appeared(memory: Memory, look: Observation) -> bool:
    """Whether a job that was started by hand shows; until then, or for the time of a start, older looks may linger."""
    has_completed = look.state == COMPLETED and memory.state != COMPLETED
    return look.state == RUNNING or has_completed or not is_acting(memory, look.when)


def differ(known: Any, seen: Any) -> bool:
    """Whether both are said and are not the same."""
    return bool(known and seen and known != seen)


def is_new_run(memory: Memory, look: Observation) -> bool:
    """Whether a running look shows another run than the one remembered."""
    return memory.state not in (RUNNING, "") or differ(memory.pid, look.pid) or differ(memory.run, look.run)


def stalled_for(memory: Memory, look: Observation) -> float:
    """Awake seconds without progress, this running look included."""
    if look.key and look.key != memory.key or is_new_run(memory, look):
        return 0.0
    counts = memory.last_look == RUNNING and look.key and not look.waiting
    return memory.stalled_for + (max(0.0, look.when.awake - memory.looked_awake) if counts else 0.0)


def has_recovered(memory: Memory, look: Observation, policy: Any) -> bool:
    """Whether a resumed job has shown that it works: the attempts start again from none."""
    if look.key:
        return look.key != memory.attempt_key
    if look.state != RUNNING:
        return False
    began_at = max(memory.attempt_at, memory.state_at if memory.state == RUNNING else look.when.at)
    return look.when.at - began_at > backoff(policy, memory.attempts)


def remember_look(memory: Memory, look: Observation, policy: Any) -> Memory:
    """Memory after a look, before anything is decided."""
    when = look.when
    if memory.boot not in ("", when.boot):
        memory = memory._replace(stalled_for=0.0, last_look="")
    has_ended_anew = look.state != RUNNING and differ(memory.run, look.run)
    is_same = memory.state == look.state and memory.state_at and not has_ended_anew
    learnt: dict = {"looked_at": when.at, "looked_awake": when.awake, "boot": when.boot, "last_look": UNKNOWN, "left_at": 0.0}
    if look.state != UNKNOWN:
        learnt.update(
            last_look="waiting" if look.waiting else look.state if look.key or look.state != RUNNING else "keyless",
            state=look.state, state_at=memory.state_at if is_same else when.at,
            pid=look.pid, run=look.run or memory.run, key=look.key or memory.key,
        )  # fmt: skip
        if look.state == RUNNING or differ(memory.run, look.run):
            learnt.update(completed_fired=False, completed_told=False)
        if look.key and look.key != memory.key:
            learnt["key_at"] = when.at
        if look.held and look.run != memory.run:  # memory was lost since
            learnt["held_at"] = memory.held_at or when.at
        if memory.attempts and not memory.gave_up_at and has_recovered(memory, look, policy):
            learnt.update(attempts=0, attempt_at=0.0, attempt_key="")
    if look.state == RUNNING:
        learnt["stalled_for"] = stalled_for(memory, look)
        if memory.state == COMPLETED:
            learnt.update(reported_at=0.0, reported_key="", reported_progress={})
    if memory.action == "started" and look.state != UNKNOWN and has_appeared(memory, look):
        return end_action(memory._replace(**learnt))
    return memory._replace(**learnt)


# ---- resume: may it be started again by itself, and is it time?


def resume_reason(job: Any, look: Observation, memory: Memory, now: Instant, state_lost: bool = False) -> Reason:
    """Why a job is, or is not, started again by itself at this moment."""
    policy = job.policy
    restart = look.state == RUNNING and policy.on_stall == "restart" and can_restart(job)
    is_stalled = look.key and not look.waiting and 0 < policy.stall_seconds <= memory.stalled_for
    due_at = memory.attempt_at + backoff(policy, memory.attempts)
    next_attempt = {"attempt": memory.attempts + 1}
    return first_reason(
        (not job.enabled, "resume.disabled"),
        (not restart and not policy.auto_resume, "resume.off"),
        (job.kind != LONG_READ or job.risk != READ_ONLY, "resume.not_read_only"),
        (look.state == UNKNOWN, "resume.unknown"),
        (memory.held_at, "resume.held"),
        (restart and not is_stalled, "resume.moving"),
        (not restart and look.state != STOPPED, "resume.not_stopped"),
        (look.orphaned, "resume.orphan"),
        (not look.resumable, "resume.changed"),
        (memory.gave_up_at or 0 < policy.auto_resume_max_attempts <= memory.attempts, "resume.gave_up"),
        (is_acting(memory, now), "resume.acting", memory.action_at + memory.action_for),
        (state_lost, "resume.state_lost"),
        (memory.attempts and now.at < due_at, "resume.backoff", due_at, next_attempt),
        (True, "resume.now", 0.0, next_attempt),
    )


def begin_attempt(job: Any, look: Observation, memory: Memory, now: Instant, marker: str) -> Decision:
    """The intention to resume: counted and told before anything is started.  Of a job that is known to flap it is not told."""
    policy, attempt = job.policy, memory.attempts + 1
    restart = look.state == RUNNING
    kind, action, row = ("stalled", "restart", "autorun.restart") if restart else ("stopped", "start", "autorun")
    stop_time = policy.stop_timeout_seconds if restart else 0.0
    incident = memory.incidents.get(kind) or Incident(since_at=now.at, looks=1, rank=NOTICE, key=kind)
    incident = incident._replace(opened_at=incident.opened_at or now.at)
    is_told = not 0 < memory.flapping_at < incident.since_at
    if is_told:
        incident = incident._replace(told_at=now.at, told_rank=max(NOTICE, incident.told_rank) if restart else NOTICE)
    after = memory._replace(
        attempts=attempt, attempt_at=now.at, attempt_key=memory.key, stalled_for=0.0, incidents={**memory.incidents, kind: incident},
        action=action, action_at=now.at, action_for=policy.start_timeout_seconds + stop_time + 10.0, action_id=marker,
    )  # fmt: skip
    facts = {"for": duration_text(memory.stalled_for)} if restart else {"reason": look.stop_reason}
    phrase = Phrase(row, {"attempt": attempt, "most": policy.auto_resume_max_attempts or "∞", **facts})
    notify = Notify(kind, "autorun", NOTICE, phrase, look.detail, incident.since_at, look, memory.reported_progress)
    return Decision(after, (notify,) if is_told else (), {"resume": Reason("resume.now")})


# ---- findings: what one look at a long job shows to be wrong


def find_unknown(job: Any, look: Observation, memory: Memory, now: Instant, resume: str) -> Any:
    return Finding("unknown", ALERT, look.problem or Phrase("status.json"), look.detail) if look.state == UNKNOWN else None


def find_stopped(job: Any, look: Observation, memory: Memory, now: Instant, resume: str) -> Any:
    if is_acting(memory, now):
        return UNSURE
    if look.state != STOPPED:
        is_on_trial = look.state == RUNNING and memory.attempts and not (memory.gave_up_at and has_recovered(memory, look, job.policy))
        return UNSURE if is_on_trial else None  # resumed, but not yet shown to work
    if memory.held_at:
        return None
    row = "stopped.changed" if not look.resumable else "stopped.gave_up" if resume == "resume.gave_up" else "stopped"
    phrase = Phrase(row, {"reason": look.stop_reason, "attempts": memory.attempts})
    return Finding("stopped", NOTICE if resume in RESUMING else ALERT, phrase, look.detail)


def find_stalled(job: Any, look: Observation, memory: Memory, now: Instant, resume: str) -> Any:
    if look.state != RUNNING:
        return None
    if look.waiting or not look.key:
        return UNSURE
    if not job.policy.stall_seconds:
        return None
    if memory.stalled_for < job.policy.stall_seconds:
        was_restarted = memory.attempts and "stalled" in memory.incidents
        return UNSURE if was_restarted else None  # restarted, but not yet shown to move
    facts = {"for": duration_text(memory.stalled_for), "key": one_line(memory.key, 80)}
    return Finding("stalled", NOTICE if resume in RESUMING else ALERT, Phrase("stalled", facts), look.detail)


def find_level(job: Any, look: Observation, memory: Memory, now: Instant, resume: str) -> Any:
    if look.state != RUNNING or look.level == "ok":
        return None
    return Finding("level", ALERT if look.level == "alert" else WARN, Phrase("level", {"message": one_line(look.message, 300)}))


RUN_KINDS = ("failed", "attention")  # what only a run of a check can show: a job may have been one before
LONG_QUESTIONS = {"unknown": find_unknown, "stopped": find_stopped, "stalled": find_stalled, "level": find_level}


# ---- incidents: what is wrong against what was told

TELLINGS = {"incident." + telling: telling for telling in ("opened", "worse", "changed", "reminder", "resolved")}
FORGOTTEN: dict = {"worse": {"reminders": 0, "acked_at": 0.0}, "changed": {"acked_at": 0.0}}  # what starts over with a telling
FLIPS_AN_HOUR, FLIPS_A_DAY = 6, 12  # openings and closings of one job that are told one by one


def finding_text(finding: Finding) -> str:
    return masked_digits(finding.phrase.key + " " + json.dumps(finding.phrase.facts, sort_keys=True, ensure_ascii=False))


def is_new_text(incident: Incident, finding: Finding) -> bool:
    """Whether a person has not yet read this of the incident, and has not read too many texts of it."""
    text = finding_text(finding)
    return text != incident.told_text and incident.texts < TEXTS_TOLD and text_digest(text) not in incident.earlier


def told(incident: Incident, finding: Finding, now: Instant, telling: str = "opened") -> Incident:
    """The incident once this finding is told."""
    if telling == "reminder":
        return incident._replace(told_at=now.at, reminders=incident.reminders + 1)
    text, earlier = finding_text(finding), incident.earlier
    if incident.told_text not in ("", text):
        earlier = [*earlier, text_digest(incident.told_text)][-TEXTS_TOLD:]
    texts = incident.texts + (text != incident.told_text)
    return incident._replace(told_at=now.at, told_rank=finding.rank, told_text=text, earlier=earlier, texts=texts, **FORGOTTEN.get(telling, {}))


def telling_reason(incident: Incident, finding: Finding, policy: Any, now: Instant, hold: float) -> Reason:
    """Why a person hears, or does not hear, of what is wrong at this moment.

    `hold` is how many more seconds of quiet hours hold back what does not ring.
    """
    due_at = incident.told_at + doubled(policy.alert_repeat_seconds, incident.reminders, LONGEST_REPEAT)
    return first_reason(
        (not incident.opened_at and incident.looks < policy.alert_after,
         "incident.not_yet", 0.0, {"looks": incident.looks, "needed": policy.alert_after}),
        (finding.rank == NOTICE, "incident.by_attempt"),
        (hold and finding.rank < ALERT, "incident.quiet_hours", now.at + hold),
        (not incident.told_at, "incident.opened"),
        (finding.rank > incident.told_rank, "incident.worse"),
        (is_new_text(incident, finding), "incident.changed"),
        (incident.acked_at, "incident.acked"),
        (not policy.alert_repeat_seconds, "incident.told_once"),
        (now.at < due_at, "incident.told", due_at),
        (True, "incident.reminder"),
    )  # fmt: skip


def judge_incident(incident: Optional[Incident], finding: Any, policy: Any, now: Instant, hold: float) -> tuple:
    """(what becomes of one incident, why a person hears of it now or does not), not yet told.

    `finding` is a Finding, None (not so) or UNSURE (this look cannot say).
    """
    if finding is UNSURE:
        return incident, Reason("incident.unsure")
    if finding is None:
        was = incident or Incident()
        key = "incident.none" if not was.opened_at else "incident.resolved" if was.told_at else "incident.came_and_went"
        return None, Reason(key)
    incident = incident or Incident(since_at=now.at)
    incident = incident._replace(
        looks=incident.looks + (not incident.opened_at), rank=finding.rank, key=finding.phrase.key, facts=small_facts(finding.phrase.facts)
    )
    reason = telling_reason(incident, finding, policy, now, hold)
    if reason.key != "incident.not_yet":
        incident = incident._replace(opened_at=incident.opened_at or now.at)
    return incident, reason


def inherit(memory: Memory, findings: dict, now: Instant) -> Memory:
    """After an upgrade from v1: what is wrong now was told by v1, so it counts as told."""
    at = memory.inherited_at
    if not at or all(finding is UNSURE for finding in findings.values()):
        return memory
    incidents = dict(memory.incidents)
    for kind, finding in findings.items():
        if isinstance(finding, Finding) and kind not in incidents:
            incidents[kind] = told(Incident(since_at=at, looks=1, opened_at=at, rank=finding.rank), finding, now)._replace(told_at=at)
    return memory._replace(inherited_at=0.0, incidents=incidents)


def flips_since(flips: list, since_at: float, now: Instant) -> list:
    return [at for at in flips if is_number(at) and since_at < at <= now.at]


def flips_too_often(flips: list, has_turned: bool, now: Instant) -> bool:
    """Whether a job flaps from now on.  What is told late, in the morning or once it has settled, has turned before.

    However often it turned today: what was steady for an hour before this turn is told as what it is.
    """
    lately = len(flips_since(flips, now.at - HOUR, now))
    return lately > FLIPS_AN_HOUR or has_turned and len(flips) > FLIPS_A_DAY and lately > 1


def judge_flapping(decision: Decision, flaps: bool, now: Instant) -> Decision:
    """Say once that a job flips, and once that it has settled for an hour; what is open then is told."""
    memory = decision.memory
    begins = flaps and not memory.flapping_at
    if not begins and (flips_since(memory.flips, now.at - HOUR, now) or not memory.flapping_at):
        return decision
    telling, rank = ("opened", WARN) if begins else ("resolved", NOTICE)
    effect = Notify("flapping", telling, rank, Phrase("flapping"), since_at=memory.flapping_at)
    return decision._replace(memory=memory._replace(flapping_at=now.at if begins else 0.0), effects=(*decision.effects, effect))


def judge_incidents(policy: Any, findings: dict, memory: Memory, now: Instant, look: Optional[Observation] = None) -> Decision:
    """Every incident of one job: new memory, notifications, and a reason per kind."""
    memory = inherit(memory, findings, now)
    if not (any(findings.values()) or memory.incidents or memory.flips or memory.flapping_at):  # nothing is wrong, nothing was
        return Decision(memory, (), dict.fromkeys(findings, Reason("incident.none")))
    hold = quiet_left(policy, now.minute)
    incidents, effects, reasons = dict(memory.incidents), [], {}
    flips, flaps = flips_since(memory.flips, now.at - DAY, now), bool(memory.flapping_at)
    for kind, finding in findings.items():
        before = incidents.pop(kind, None)
        after, reason = judge_incident(before, finding, policy, now, hold)
        telling = TELLINGS.get(reason.key, "")
        turned = bool(before and before.opened_at) != bool(after and after.opened_at)
        was_seen = telling in ("opened", "resolved") or turned and reason.key == "incident.by_attempt"
        counts = turned if memory.flapping_at else was_seen  # what quiet hours hold back turns unseen
        if counts:
            flips = [*flips, round(now.at, 3)][-FLIPS_A_DAY - 1 :]
            flaps = flaps or flips_too_often(flips, turned, now)
        if telling and flaps:  # it happens, and nothing is said of it
            telling, reason = "", Reason("incident.flapping")
        if telling:
            said = finding or Finding(kind, NOTICE, Phrase(before.key, before.facts))
            since_at = (after or before).since_at
            effects.append(Notify(kind, telling, said.rank, said.phrase, said.detail, since_at, look, memory.reported_progress))
        if after:
            incidents[kind] = told(after, finding, now, telling) if telling else after
        reasons[kind] = reason
    return judge_flapping(Decision(memory._replace(incidents=incidents, flips=flips), tuple(effects), reasons), flaps, now)


def judge_own(findings: dict, memory: Memory, now: Instant, **policy: Any) -> Decision:
    """The monitor's own incidents.  They never count as flapping: its troubles have nothing to do with each other."""
    decision = judge_incidents(make_policy(policy), findings, memory._replace(flips=[], flapping_at=0.0), now)
    return decision._replace(memory=decision.memory._replace(flips=[], looked_at=now.at))


def judge_write(policy: Any, findings: dict, memory: Memory, now: Instant) -> Decision:
    """The incidents of a write.  They never count as flapping: a person stands behind each run, and has to hear how it went."""
    decision = judge_incidents(policy, findings, memory._replace(flips=[], flapping_at=0.0), now)
    return decision._replace(memory=decision.memory._replace(flips=[]))


# ---- report: is routine progress due?

PROGRESS_DUE = ("report.first", "report.by_time", "report.by_change")


def report_reason(job: Any, look: Observation, memory: Memory, now: Instant) -> Reason:
    """Why routine is, or is not, told at this moment."""
    policy = job.policy
    every, since = policy.report_every_seconds, now.at - memory.reported_at
    by_time_at = memory.reported_at + every if every else 0.0
    floor_at = memory.reported_at + policy.min_report_seconds
    reason = first_reason(
        (look.state == COMPLETED and memory.completed_told, "report.completed_before"),
        (look.state == COMPLETED and memory.action == "started", "report.started", memory.action_at + memory.action_for),
        (look.state == COMPLETED, "report.completed"),
        (look.state != RUNNING, "report.not_running"),
        (not policy.report_while_running, "report.off"),
        (not memory.reported_at, "report.first"),
        (every and since >= every, "report.by_time"),
        (not policy.only_on_change or not look.key or look.key == memory.reported_key, "report.nothing_new", by_time_at),
        (since < policy.min_report_seconds, "report.too_soon", min(floor_at, by_time_at or floor_at)),
        (True, "report.by_change"),
    )
    quiet = quiet_left(policy, now.minute) if reason.key in (*PROGRESS_DUE, "report.completed") else 0.0
    return Reason("report.quiet_hours", now.at + quiet) if quiet else reason


def follow_ups(job: Any, is_good: bool) -> tuple:
    """What the end of a job queues."""
    wanted = ("always", "success" if is_good else "failure")
    return tuple(Enqueue(after.job_id, after.delay_seconds) for after in job.after if after.when in wanted)


def judge_report(job: Any, look: Observation, memory: Memory, now: Instant) -> Decision:
    """Routine: what is told of progress and completion, and what completion queues."""
    effects: tuple = ()
    reason = report_reason(job, look, memory, now)
    if look.state == COMPLETED and not memory.completed_fired and memory.action != "started":
        effects = follow_ups(job, is_good=True)
        memory = memory._replace(completed_fired=True)
    if reason.key == "report.completed":
        effects += (Notify("routine", "completed", NOTICE, Phrase("completed"), look.detail, look=look, reported=memory.reported_progress),)
        memory = memory._replace(completed_told=True, reported_at=now.at, reported_key=look.key)
    elif reason.key in PROGRESS_DUE:
        effects += (Notify("routine", "routine", ROUTINE, Phrase("running"), look=look, reported=memory.reported_progress),)
        memory = memory._replace(reported_at=now.at, reported_key=look.key, reported_progress=small_progress(look.progress))
    return Decision(memory, effects, {"report": reason})


# ---- the whole


def open_incidents(memory: Memory) -> list:
    """(kind, incident) of what is open, the worst first."""
    found = [(kind, incident) for kind, incident in memory.incidents.items() if incident.opened_at]
    return sorted(found, key=lambda item: (-item[1].rank, item[1].since_at))


def hold_muted(decision: Decision, now: Instant) -> Decision:
    """While a job is muted its messages are counted, not told; afterwards they are summed up."""
    memory, effects, reasons = decision
    if not memory.muted_for:
        return decision
    if is_muted(memory, now):
        others = tuple(effect for effect in effects if not isinstance(effect, Notify))
        count = memory.muted_count + len(effects) - len(others)
        return Decision(memory._replace(muted_count=count), others, {**reasons, "mute": Reason("muted", memory.muted_at + memory.muted_for)})
    if memory.muted_count:
        effects += (Notify("muted", "muted", NOTICE, Phrase("muted.summary", {"count": memory.muted_count})),)
    spoken = {effect.kind for effect in effects if isinstance(effect, Notify)}
    if memory.flapping_at and "flapping" not in spoken:
        effects += (Notify("flapping", "opened", WARN, Phrase("flapping"), since_at=memory.flapping_at),)
    incidents = dict(memory.incidents)
    for kind, incident in open_incidents(memory):
        if kind in spoken or incident.acked_at:
            continue
        if incident.rank >= ALERT:
            effects += (Notify(kind, "reminder", incident.rank, Phrase(incident.key, incident.facts), since_at=incident.since_at),)
        else:  # quiet hours may hold it: the next look tells it
            incidents[kind] = incident._replace(told_at=0.0)
    return Decision(memory._replace(muted_at=0.0, muted_for=0.0, muted_count=0, incidents=incidents), effects, reasons)


def decide_long(job: Any, look: Observation, memory: Memory, now: Instant, state_lost: bool = False) -> Decision:
    """The judgement on one look at a long job."""
    if memory.boot == look.when.boot and look.when.awake < memory.looked_awake <= now.awake:
        return Decision(memory, (), {"look": Reason("look.older")})
    memory = remember_look(memory, look, job.policy)
    resume = resume_reason(job, look, memory, now, state_lost)
    if look.state == STOPPED and memory.attempts and resume.key == "resume.gave_up":
        memory = memory._replace(gave_up_at=memory.gave_up_at or now.at)
    findings = {kind: question(job, look, memory, now, resume.key) for kind, question in LONG_QUESTIONS.items()}
    if look.state == UNKNOWN:  # such a look shows nothing else
        findings = {**dict.fromkeys(findings, UNSURE), "unknown": findings["unknown"]}
    findings.update({kind: None for kind in RUN_KINDS if kind in memory.incidents})
    incidents = judge_incidents(job.policy, findings, memory, now, look)
    report = judge_report(job, look, incidents.memory, now)
    act = (Resume(restart=look.state == RUNNING),) if resume.key == "resume.now" else ()
    # The one reason to keep is of an incident if there is one, else of routine.
    first = next((reason.key for reason in incidents.reasons.values() if reason.key != "incident.none"), report.why("report"))
    reasons = {**incidents.reasons, **report.reasons, "resume": resume}
    memory = report.memory if report.memory.reason == first else report.memory._replace(reason=first)
    return hold_muted(Decision(memory, incidents.effects + report.effects + act, reasons), now)


def remind(job: Any, memory: Memory, now: Instant) -> Decision:
    """The reminders that are due while nothing looks: of a check between two of its runs."""
    policy, incidents, effects = job.policy, dict(memory.incidents), []
    if memory.flapping_at or not (job.enabled and policy.every_seconds and policy.alert_repeat_seconds):
        return Decision(memory)
    hold = quiet_left(policy, now.minute)
    for kind, incident in open_incidents(memory):
        due_at = incident.told_at + doubled(policy.alert_repeat_seconds, incident.reminders, LONGEST_REPEAT)
        if incident.acked_at or not incident.told_at or now.at < due_at or hold and incident.rank < ALERT:
            continue
        incidents[kind] = incident._replace(told_at=now.at, reminders=incident.reminders + 1)
        effects.append(Notify(kind, "reminder", incident.rank, Phrase(incident.key, incident.facts), since_at=incident.since_at))
    return Decision(memory._replace(incidents=incidents), tuple(effects))


# ---- writes

UNVERIFIED = ("pending", "failed", "other")  # a run is still to be verified


def is_overdue(gate: Gate, now: float) -> bool:
    return gate.verify == "pending" and now >= gate.run_ended_at + gate.verify_for


def is_approved(gate: Gate, now: float) -> bool:
    return bool(gate.digest) and now < gate.approved_at + gate.approved_for


def gate_word(gate: Gate, now: float) -> str:
    """The word of a write's gate where it says more than its last exit code; '' else."""
    if gate.run in ("begun", "unknown"):
        return "running" if gate.run == "begun" else "outcome_unknown"
    if gate.verify in UNVERIFIED:
        return "verify_failed" if gate.verify != "pending" else "overdue" if is_overdue(gate, now) else "unverified"
    return "approved" if is_approved(gate, now) else ""


def left_to_verify(gate: Gate) -> dict:
    """The fact that names the verification jobs which stand in the way."""
    names = gate.verify_left if gate.verify == "pending" or not gate.verify_failed else gate.verify_failed
    return {"jobs": ", ".join(map(str, names))}


def gate_reason(gate: Gate, digest: str, problem: str, changed: list, now: float) -> Reason:
    """Why a write may, or may not, run at this moment.  `digest` and `changed` are of its plan now."""
    left = left_to_verify(gate)
    expires_at = gate.approved_at + gate.approved_for
    return first_reason(
        (gate.run == "begun", "gate.running"),
        (gate.verify == "failed", "gate.verify_failed", 0.0, left),
        (gate.verify == "other", "gate.verify_other", 0.0, left),
        (is_overdue(gate, now), "gate.verify_overdue", 0.0, left),
        (gate.verify == "pending", "gate.verify_pending", 0.0, left),
        (problem, "gate.unreadable", 0.0, {"what": problem}),
        (not gate.digest, "gate.none"),
        (now >= expires_at, "gate.expired"),
        (gate.digest != digest, "gate.changed", 0.0, {"what": ", ".join(changed[:5]) or "-"}),
        (True, "gate.open", expires_at),
    )


def gate_findings(gate: Gate, now: float) -> dict:
    """What is wrong with a write that has run."""
    row = {"failed": "verify.wrong", "other": "verify.other"}.get(gate.verify) or ("verify.overdue" if is_overdue(gate, now) else "")
    return {
        "verification": Finding("verification", ALERT, Phrase(row, left_to_verify(gate))) if row else None,
        "outcome": Finding("outcome", ALERT, Phrase("write.unknown")) if gate.run == "unknown" else None,
    }


def verified(gate: Gate, job_id: str, began_at: float, is_good: bool, is_same: bool = True) -> Gate:
    """The gate after a run of one of its verification jobs; `is_same`: it is the check that was approved with the write.

    Only a run of that one that began after the write counts.
    """
    if gate.verify not in UNVERIFIED or began_at < gate.run_ended_at:
        return gate
    known = gate.verify_failed or ([] if gate.verify == "pending" else gate.verify_left)
    left, failed = ([name for name in names if name != job_id] for names in (gate.verify_left, known))
    if not (is_good and is_same):
        result = "other" if is_good and not (gate.verify == "failed" and failed) else "failed"
        return gate._replace(verify=result, verify_left=[*left, job_id], verify_failed=[*failed, job_id])
    return gate._replace(verify="passed" if not left else gate.verify if failed else "pending", verify_left=left, verify_failed=failed)


# ---- one-shot reads


def slot_before(at: float, anchor_at: float, every: float) -> int:
    """Number of the latest slot at or before `at`; times are kept with three decimals."""
    return int((at - anchor_at + 0.001) / max(every, 0.001))


def next_slot(job: Any, memory: Memory) -> float:
    """When a scheduled check is due next, epoch seconds; 0 = it never ran, so at once, or it has no schedule."""
    every, anchor_at = job.policy.every_seconds, memory.anchor_at
    return anchor_at + (slot_before(memory.slot_at, anchor_at, every) + 1) * every if anchor_at and every else 0.0


def due_reason(job: Any, memory: Memory, now: Instant) -> Reason:
    """Why a scheduled check is, or is not, run at this moment.  Every job is asked at every tick: no table, it is slower."""
    if not job.enabled:
        return Reason("due.disabled")
    if not job.policy.every_seconds:
        return Reason("due.not_scheduled")
    if memory.action == "run":
        return Reason("due.unfinished")
    if not memory.anchor_at:
        return Reason("due.first")
    due_at = next_slot(job, memory)
    return Reason("due.now") if now.at >= due_at else Reason("due.later", due_at)


def take_slot(job: Any, memory: Memory, now: Instant, marker: str, tries: int = 1) -> Memory:
    """The intention to run: the slot is taken before the run begins."""
    every = job.policy.every_seconds
    if every:
        anchor_at = memory.anchor_at or now.at
        memory = memory._replace(anchor_at=anchor_at, slot_at=anchor_at + slot_before(now.at, anchor_at, every) * every)
    return memory._replace(action="run", action_at=now.at, action_for=run_timeout(job) + 10.0, action_id=marker, action_tries=tries, left_at=0.0)


def run_findings(outcome: Outcome, redact: Redactor) -> dict:
    """What one run shows: did it fail, does it ask for attention?"""
    phrase = redacted(outcome_phrase(outcome), redact)
    output = redact.read(outcome.err).strip() or redact.read(outcome.out).strip()
    lines = "\n".join(one_line(redact.read(line), 300) for line in outcome.attention)
    return {
        "failed": Finding("failed", ALERT, phrase, last_lines(output)) if phrase else None,
        "attention": Finding("attention", ALERT, Phrase("attention", {"lines": lines})) if outcome.attention else None,
    }


def decide_run(job: Any, outcome: Outcome, memory: Memory, now: Instant, redact: Redactor, scheduled: bool) -> Decision:
    """The judgement on one finished run of a one-shot read.

    A scheduled check has incidents: told when they open, closed by the next good run.  A run that
    somebody asked for is told once, and a good one closes what a scheduled run opened.
    """
    code = NOT_RUN if outcome.code is None else outcome.code
    memory = end_action(memory)._replace(ran_at=now.at, ran_code=code, left_at=0.0)
    findings = {**{kind: None for kind in LONG_QUESTIONS if kind in memory.incidents}, **run_findings(outcome, redact)}
    wrong = [finding for finding in findings.values() if finding]
    once: tuple = ()
    if not scheduled:
        once = tuple(Notify(found.kind, "told", found.rank, found.phrase, found.detail, now.at) for found in wrong)
        findings = {kind: UNSURE if findings.get(kind) else None for kind in memory.incidents}
    decision = judge_incidents(job.policy, findings, memory, now)
    memory = decision.memory._replace(reason="run." + (wrong[0].kind if wrong else "good"))
    effects = decision.effects + once + follow_ups(job, outcome.is_good)
    return hold_muted(Decision(memory, effects, decision.reasons), now)


# ---- the daily digest

DIGEST_GAP = 12 * HOUR  # between two digests at least
CLOCK_SHIFT = 2 * HOUR  # no change to or from summer time is larger


def last_digest_time(wanted: str, now: Instant) -> float:
    """When the wall clock last showed the minute `wanted`, epoch seconds, if it has not been changed since."""
    return now.at - now.at % MINUTE - (now.minute - minute_of_day(wanted)) % 1440 * MINUTE


def digest_reason(wanted: str, last_at: float, now: Instant) -> Reason:
    """Why the daily digest is, or is not, told at this moment.  A missed one comes late, once."""
    time_at = last_digest_time(wanted, now)
    is_told = time_at < last_at + CLOCK_SHIFT
    return first_reason(
        (not last_at and now.at - time_at >= MINUTE, "digest.first", time_at + DAY),
        (is_told or now.at < last_at + DIGEST_GAP, "digest.told", max(time_at + (DAY if is_told else 0.0), last_at + DIGEST_GAP)),
        (True, "digest.now"),
    )


class Summary(NamedTuple):
    """One job in the digest, and what history tells of it since the last one."""

    job: Any
    memory: Memory
    gate: Gate
    progress: dict  # at this tick's look
    counts: Counter = Counter()  # of events and tellings
    spans: Iterable[tuple] = ()  # (began, ended) of each trouble that is over


def days_of(records: Iterable[dict], since_at: float) -> dict:
    """Job id -> (counts, spans) of a Summary, from records of the history file, in which anything may be missing."""
    days: dict = {}
    began: dict = {}  # trouble that has been told -> when first
    for item in records:
        counts, spans = days.setdefault(str(item.get("job")), (Counter(), []))
        what, about = str(item.get("telling" if item.get("event") == "told" else "event")), f"{item.get('job')} {item.get('kind')}"
        counts[what] += 1
        if what in ("run", "write ended"):
            counts["failed"] += item.get("code") != 0
        elif what == "verification":
            counts["verified"] += item.get("result") == "passed"
        elif what in ("opened", "worse", "changed", "reminder", "autorun"):
            began.setdefault(about, item["at"])
        elif what == "resolved":
            spans.append((began.pop(about, since_at), item["at"]))
    return days


def open_troubles(memory: Memory) -> list:
    """(kind, incident) of what is wrong with a job, the worst first; that it flaps is one of them."""
    flapping = Incident(since_at=memory.flapping_at, rank=WARN, key="flapping")
    return open_incidents(memory) + ([("flapping", flapping)] if memory.flapping_at else [])


def time_in_trouble(item: Summary, since_at: float, now: float) -> float:
    """Seconds since the last digest in which something was wrong with a job."""
    total, counted_to = 0.0, since_at
    for began, ended in sorted([*item.spans, *((trouble.since_at, now) for _, trouble in open_troubles(item.memory))]):
        total += max(0.0, ended - max(began, counted_to))
        counted_to = max(counted_to, ended)
    return total


def badness(item: Summary, since_at: float, now: float) -> tuple:
    """What comes first in a digest: open trouble, then time in trouble, then failed runs."""
    return max([trouble.rank for _, trouble in open_troubles(item.memory)], default=0), time_in_trouble(item, since_at, now), item.counts["failed"]


def word_of_state(job: Any, memory: Memory, gate: Gate, seen: str, now: float) -> str:
    """The word for the state of a job; `seen` is what a look at a long one saw."""
    if job.kind == LONG_READ:
        return "held" if memory.held_at and seen in (STOPPED, IDLE) else seen
    word = gate_word(gate, now) if job.kind == WRITE else ""
    asks = memory.incidents.get("attention", Incident()).opened_at
    return word or ("running" if memory.action == "run" else "never_ran" if not memory.ran_at
                    else "failed" if memory.ran_code else "attention" if asks else "good")  # fmt: skip


def last_seen(memory: Memory) -> tuple:
    """(state of a long job as its latest look saw it, since when)."""
    if memory.last_look == UNKNOWN or not memory.state:
        return UNKNOWN, memory.incidents.get("unknown", Incident()).since_at or memory.looked_at
    return "waiting" if memory.last_look == "waiting" and memory.state == RUNNING else memory.state, memory.state_at


# ==== VOICE ==============================================================
# Decisions as text: sections, messages, tables.  It changes nothing and knows no clock; the time of
# day comes in as a function.

SECTION_LIMIT = 3500  # UTF-16 units; Telegram cuts at 4096 characters after parsing
MESSAGE_LIMIT = 4000
MESSAGES_A_TICK = 5
LATE_AFTER = 120.0  # seconds after which a message says when it happened
HEADINGS = {"resolved": "🟢 RESOLVED", "autorun": "🔁 AUTORUN", "completed": "✅ COMPLETED"}
MARKS = {"routine": "▶️ ", "muted": "🔈 ", "digest": "📋 "}
DIGEST_LIMIT = SECTION_LIMIT - 400  # UTF-16 units: room for the headline, and for what a late message says of itself


class Message(NamedTuple):
    """One message as it will be sent, and the outbox entries that it carries."""

    text: str
    rings: bool
    entries: tuple  # their ids
    counted: int = 0  # sections that were dropped for want of room and are counted in it


def phrase_text(lang: str, phrase: Phrase) -> str:
    return say(lang, phrase.key, **phrase.facts)


def difference(value: Any, before: Any) -> str:
    """` (+12)` since the last report; nothing where there is none."""
    if not is_number(value) or not is_number(before) or value == before:
        return ""
    change = value - before
    return f" ({format(change, '+d' if isinstance(change, int) else '+.6g')})"


def progress_lines(progress: dict, before: dict, limit: int = 8) -> list:
    """`done: 40 (+12)` a line, numbers as they were written."""
    lines = []
    for key, value in list(progress.items())[:limit]:
        if isinstance(value, (int, float)):
            shown = number_text(value) + difference(value, before.get(key))
        else:
            shown = one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 120)
        lines.append(f"{one_line(str(key), 60)}: {shown}")
    return lines + ([f"… {len(progress) - limit}"] if len(progress) > limit else [])


def job_label(name: str, job_id: str) -> str:
    return name + (f" ({job_id})" if job_id not in ("", name) else "")


def headline(lang: str, job_name: str, job_id: str, notify: Notify) -> str:
    """`🔴 ACTION REQUIRED · Nightly index (nightly)`."""
    telling = notify.telling
    if telling in HEADINGS:
        heading = HEADINGS[telling]
    elif telling in MARKS:
        heading = MARKS[telling] + say(lang, "headline." + telling)
    elif notify.rank >= ALERT:
        heading = "🔴 ACTION REQUIRED" if notify.kind in ("stopped", "blocked") else "🔴 ALERT"
    else:
        heading = "🟡 " + say(lang, "headline.warn" if notify.rank == WARN else "headline.notice")
    return f"{heading} · {job_label(job_name, job_id)}"


def look_lines(lang: str, notify: Notify) -> list:
    """State, stop reason, message and progress of the look behind a notification."""
    look = notify.look
    if look is None or look.state == UNKNOWN:
        return []
    lines = []
    if look.state == RUNNING and (notify.telling == "routine" or notify.kind in ("stalled", "level") and notify.telling != "autorun"):
        key = "state.running_pid" if look.pid else "state.waiting" if look.waiting else "state.running"
        lines.append(say(lang, key, pid=look.pid))
    if look.stop_reason and "reason" not in notify.phrase.facts:
        lines.append(say(lang, "line.stop_reason", reason=one_line(look.stop_reason, 300)))
    if look.message and notify.kind != "level":
        lines.append(one_line(look.message, 300))
    return lines + progress_lines(look.progress, notify.reported)


def section_text(lang: str, job_name: str, job_id: str, notify: Notify, clock_text: Callable[[float], str], advice: str = "") -> str:
    """One section: what happened to one job, as facts."""
    lines = [headline(lang, job_name, job_id, notify)]
    if notify.telling != "routine":
        words = phrase_text(lang, notify.phrase)
        words = say(lang, "unknown", why=words) if notify.kind == "unknown" else words
        lines.append(say(lang, "line.was", words=words) if notify.telling == "resolved" else words)
    if notify.telling in ("reminder", "resolved", "changed", "worse") and notify.since_at:
        lines.append(say(lang, "since", time=clock_text(notify.since_at)))
    lines += look_lines(lang, notify)
    if notify.detail:
        lines += [say(lang, "line.output"), notify.detail]
    if advice and notify.rank >= ALERT:
        lines.append(say(lang, "help.next", command=advice))
    return clip("\n".join(line for line in lines if line), SECTION_LIMIT)


def header_text(time_text: str, host: str) -> str:
    return f"🛠️ Ops 快报（{time_text}）" + (f" {host}" if host else "")


def may_be_sent(entry: dict) -> bool:
    """Whether an attempt to send this entry has an unknown end: it said so, or its process died over it."""
    return entry.get("maybeSent") is True or entry.get("sending") is True


def entry_text(lang: str, entry: dict, now: float, clock_text: Callable[[float], str]) -> str:
    """An outbox entry as it is sent now: a late one says when it happened."""
    notes = []
    if now - entry["createdAt"] > LATE_AFTER:
        notes.append(say(lang, "line.late", time=clock_text(entry["createdAt"])))
    if may_be_sent(entry):
        notes.append(say(lang, "line.repeat"))
    return clip("\n".join([*notes, entry["text"]]), SECTION_LIMIT)


def compose(
    lang: str, entries: list, now: float, header: str, clock_text: Callable[[float], str],
    most: int = MESSAGES_A_TICK, dropped: int = 0, see: str = "ops-monitor.py status",
) -> list:  # fmt: skip
    """The messages that carry these entries: worst first, whole sections, what rings apart.

    More than `most` messages: the last one counts what is left out and names the command `see` that
    shows it; it carries those entries too.  `dropped` sections are counted with them.
    """
    messages: list = []
    for entry in sorted(entries, key=lambda entry: (-entry["rank"], entry["createdAt"])):
        part = "\n\n" + entry_text(lang, entry, now, clock_text)
        rings = entry["rank"] >= WARN
        last = messages[-1] if messages else None
        if last and last.rings == rings and utf16_length(last.text + part) <= MESSAGE_LIMIT:
            messages[-1] = Message(last.text + part, rings, (*last.entries, entry["id"]))
        else:
            messages.append(Message(clip(header + part, MESSAGE_LIMIT), rings, (entry["id"],)))
    left_out = [name for message in messages[most:] for name in message.entries]
    if not messages or not left_out and not dropped:
        return messages
    *whole, last = messages[:most]
    note = "\n\n" + say(lang, "line.more", count=dropped + len(left_out), command=see)
    text = clip(last.text, MESSAGE_LIMIT - utf16_length(note)) + note
    return [*whole, Message(text, last.rings, (*last.entries, *left_out), dropped)]


def bar(progress: dict) -> str:
    """`█████░░░░░ 50%` where `done` and `total`, or `percent`, are given; else ''."""
    numbers = {key: value for key, value in progress.items() if is_number(value)}
    if "done" in numbers and numbers.get("total", 0) > 0:
        share = numbers["done"] / numbers["total"]
    elif "percent" in numbers:
        share = numbers["percent"] / 100
    else:
        return ""
    share = min(1.0, max(0.0, share)) + 1e-9  # 0.29 * 100 is a little less than 29
    return ("█" * int(share * 10)).ljust(10, "░") + f" {int(share * 100)}%"


def digest_facts(lang: str, item: Summary, trouble: float) -> list:
    """What ran, failed, went on and came to its end since the last digest; nothing where nothing did."""
    counts, runs = item.counts, item.counts["run"] + item.counts["write ended"]
    facts: tuple = (
        (runs or item.job.kind == CHECK and item.job.policy.every_seconds, "digest.runs", {"runs": runs, "failed": counts["failed"]}),
        (counts["verified"], "digest.verified", {"count": counts["verified"]}),
        (counts["resume"] or item.memory.attempts, "digest.resumes", {"count": counts["resume"], "attempts": item.memory.attempts}),
        (item.memory.gave_up_at, "digest.gave_up", {}),
        (counts["completed"], "digest.completed", {"count": counts["completed"]}),
        (item.spans, "digest.trouble", {"for": duration_text(int(trouble))}),
    )
    progress = ", ".join(progress_lines(item.progress, item.memory.digest_progress)[:3])
    return [say(lang, key, **holes) for holds, key, holes in facts if holds] + [text for text in (bar(item.progress), progress) if text]


def digest_lines(lang: str, item: Summary, since_at: float, now: float) -> str:
    """One job in the digest: its state and what is open; below it, where there is any, what it did."""
    job, memory = item.job, item.memory
    rank, trouble, failed = badness(item, since_at, now)
    seen, seen_at = last_seen(memory)
    state = say(lang, "word." + word_of_state(job, memory, item.gate, seen, now))
    state += f" {duration_text(int(now - seen_at))}" if job.kind == LONG_READ else ""
    open_now = ", ".join(f"{say(lang, 'topic.' + kind)} {duration_text(int(now - found.since_at))}" for kind, found in open_troubles(memory))
    mark = "🔴" if rank >= ALERT else "🟡" if rank or trouble or failed else "🟢"
    first = f"{mark} {one_line(Redactor()(job.name), 60)}: {state}" + (" · " + say(lang, "digest.open", what=open_now) if open_now else "")
    return "\n   ".join(filter(None, [first, clip(" · ".join(digest_facts(lang, item, trouble)), 300)]))


def digest_text(lang: str, items: list, since_at: float, now: float, notes: list, see: str = "ops-monitor.py status") -> str:
    """The jobs of a digest, the worst first, as many as there is room for; the others are counted."""
    items = sorted(items, key=lambda item: badness(item, since_at, now), reverse=True)
    lines: list = []
    room = DIGEST_LIMIT - utf16_length("\n".join(notes))
    for item in items:
        lines.append(digest_lines(lang, item, since_at, now))
        room -= utf16_length(lines[-1]) + 1
        if room < 0:
            left = len(items) - len(lines) + 1
            lines[-1] = say(lang, "line.more", count=left, command=see)
            break
    return "\n".join(lines + notes)


def cut_columns(line: str, limit: int) -> str:
    """`line` cut to `limit` display columns."""
    if display_width(line) <= limit:
        return line
    while display_width(line) > limit - 1:
        line = line[:-1]
    return line + "…"


def folded(text: str, limit: int, margin: str) -> list:
    """`text` as lines of `limit` columns, all but the first behind `margin`; cut at blanks where there are any."""
    lines = []
    while display_width(text) > limit:
        head = cut_columns(text, limit + 1)[:-1]
        at = head.rfind(" ", len(head) // 2) if text[len(head)] != " " else len(head)
        at = at if at > 0 else len(head)
        lines.append(text[:at])
        text = margin + text[at:].strip()
    return [*lines, text]


def table(rows: list, limit: int = 0) -> list:
    """Rows of cells as aligned lines; the last column is cut so that a line has `limit` columns."""
    widths = [max(map(display_width, column)) for column in zip(*rows)]
    lines = ["  ".join(map(pad, row, widths)).rstrip() for row in rows]
    return [cut_columns(line, limit) for line in lines] if limit else lines


# ------ the threshold: everything below may touch clock, files, processes and network ------


# ==== WORLD ==============================================================
# Everything outside: clock, files, locks, processes, HTTP.  It judges nothing.


def reach(step: str) -> None:
    """Called before every step that others can see; proofs replace it to stop exactly there."""


def warn(*lines: str) -> None:
    """Lines on standard error, without credentials.  A closed pipe or a full disk behind it is no reason to stop what is being done."""
    redact = Redactor(secret_values(dict(os.environ)))
    try:
        for line in lines:
            print(redact(line), file=sys.stderr)
    except OSError:
        pass  # nobody reads


# ---- programs


def find_executable(program: str, path: str, cwd: str) -> str:
    """The file that `program` names.  Raises OSError as execvp would."""
    trouble: OSError = FileNotFoundError(errno.ENOENT, "no such program", program)
    try:
        os.fsencode(program)
    except UnicodeEncodeError:  # half a letter: no file can be called so
        raise trouble from None
    if "/" in program:
        return os.path.normpath(os.path.join(cwd, program))
    for place in path.split(":"):
        candidate = os.path.join(cwd, place, program)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            trouble = PermissionError(errno.EACCES, "permission denied", candidate)
    raise trouble


def runnable(program: str, path: str, cwd: str = "/") -> str:
    """The file that `program` names, if it can be executed; else ''."""
    try:
        found = find_executable(program, path, cwd)
    except OSError:
        return ""
    return found if os.access(found, os.X_OK) else ""


def spawn(argv: list, cwd: str, env: dict, files: list) -> int:
    """Start a child in its own session; its pid.  `files` are (its descriptor, ours).

    posix_spawn because it costs a third of fork and the same for a small or a large parent.  It
    cannot change directory, so we do: this program is single-threaded and its own paths are absolute.
    """
    os.chdir(cwd)
    program = find_executable(argv[0], env.get("PATH", ""), cwd)
    actions: list = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]  # unless `files` has one
    actions += [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in files]
    reach("spawn")
    return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=SIGNALS_OF_OURS)


def quick_output(argv: list) -> str:
    """What a small system program prints.  Raises OSError if it cannot be run."""
    source, sink = os.pipe()
    with open(source, "rb") as file:
        try:
            pid = spawn(argv, "/", {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}, [(1, sink)])
        finally:
            os.close(sink)
        output = file.read()
    os.waitpid(pid, 0)
    return output.decode("utf-8", "replace")


# ---- clock


def awake_seconds() -> float:
    """Seconds on a clock that stops while the machine sleeps and never jumps."""
    if sys.platform == "darwin":  # documented; not tried there
        return time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def boot_identity() -> str:
    """A text that is the same until the machine restarts; '' where it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        pass
    try:  # macOS; documented, not tried there
        return quick_output(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]).strip()
    except OSError:
        return ""


class Clock:
    """Reads the time; tells it in the configured time zone."""

    def __init__(self, timezone: str = ""):
        self.boot = boot_identity()
        self.zone: Any = None
        self.problem = ""
        if timezone:
            try:
                from zoneinfo import ZoneInfo  # rare: only with monitor.timezone

                self.zone = ZoneInfo(timezone)
            except (ImportError, ValueError, OSError, KeyError):
                self.problem = f"monitor.timezone: no time zone '{visible(timezone, 40)}' on this machine; local time is used"

    def now(self) -> Instant:
        at = time.time()
        local = self.local(at)
        return Instant(at, awake_seconds(), self.boot, local[3] * 60 + local[4])

    def local(self, at: float) -> Any:
        """`struct_time` in the configured zone."""
        at = min(at, 253370764800.0)  # 9999-01-01: the calendar ends there
        if self.zone is None:
            return time.localtime(at)
        from datetime import datetime

        return datetime.fromtimestamp(at, self.zone).timetuple()

    def text(self, at: float) -> str:
        """`HH:MM`, with the date when it is not within half a day."""
        near = abs(time.time() - at) < 12 * HOUR
        return time.strftime("%H:%M" if near else "%Y-%m-%d %H:%M", self.local(at))

    def short_text(self, at: float) -> str:
        """`HH:MM`, with month and day when it is not within half a day."""
        return self.text(at)[-11:]

    def full_text(self, at: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", self.local(at))

    def time_text(self, at: float) -> str:
        return time.strftime("%H:%M:%S", self.local(at))


# ---- files


def os_words(error: OSError) -> str:
    """An error of the operating system in its own words, lower case."""
    words = (error.strerror or str(error) or type(error).__name__).strip()
    return words[:1].lower() + words[1:]


def existing_place(path: str) -> str:
    """The directory that `path` is in; where that is not made yet, the nearest one above it that is.  A link that leads nowhere is there."""
    place = os.path.dirname(path)
    while place and not os.path.lexists(place):
        place = os.path.dirname(place)
    return place or "."


FULL_ADVICE = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EROFS: "mount it writable"}


def file_advice(path: str, error: OSError) -> str:
    """What to do about a file that cannot be used."""
    there = path if os.path.lexists(path) else existing_place(path)
    return FULL_ADVICE.get(error.errno or 0, f"ls -ld {shell_word(there)}")


def make_private_dir(path: str) -> None:
    """The directory and its parents, each made one 0700 whatever the umask.  `path` is absolute."""
    if os.path.isdir(path):
        return
    make_private_dir(os.path.dirname(path))
    reach("mkdir")
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None


def open_private(path: str, flags: int) -> int:
    """A descriptor of a file that is 0600 if this call makes it."""
    reach("open")
    fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)
    found = os.fstat(fd)
    if found.st_mode & 0o777 != 0o600 and found.st_uid == os.geteuid():
        os.fchmod(fd, 0o600)
    return fd


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        reach("write")
        view = view[os.write(fd, view) :]


def write_private(path: str, flag: int, text: str) -> None:
    """Write a text with os.O_TRUNC or os.O_APPEND, neither at once nor durably."""
    fd = open_private(path, os.O_WRONLY | flag)
    try:
        write_all(fd, text.encode("utf-8", "replace"))
    finally:
        os.close(fd)


def flush_to_disk(fd: int) -> None:
    reach("fsync")
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone does not reach the platter
    if full_sync is None:
        os.fsync(fd)
    else:
        fcntl.fcntl(fd, full_sync)


def flush_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        reach("fsync")
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some filesystems cannot
            raise
    finally:
        os.close(fd)


def remove_quietly(path: str) -> None:
    try:
        reach("unlink")
        os.unlink(path)
    except OSError:
        pass  # what is not there need not go


def write_durably(path: str, data: bytes) -> None:
    """Replace a file's content so that a crash leaves the old one or the new one, whole.

    Callers hold the lock of that file: the temporary name is fixed, so a crash leaves at most one.
    """
    temporary = path + ".tmp"
    try:
        fd = open_private(temporary, os.O_WRONLY | os.O_TRUNC)
        try:
            write_all(fd, data)
            flush_to_disk(fd)
        finally:
            os.close(fd)
        reach("replace")
        os.replace(temporary, path)
        flush_directory(os.path.dirname(path))
    except OSError as error:
        remove_quietly(temporary)
        error.filename = error.filename or path  # neither write nor fsync says which
        raise


def read_file(path: str, limit: int = 64 << 20) -> bytes:
    """A regular file's bytes.  Raises OSError, also for what is no regular file or too large."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:  # a FIFO must not hold us
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        data = file.read(min(found.st_size, limit) + (1 << 16))  # as much memory is asked for at once
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit >> 10} KiB", path)
    return data


def paths_in(directory: str, *endings: str) -> list:
    """The paths of what is in a directory and ends so, sorted; none where there is no such, or it is not ours to read."""
    try:
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.endswith(endings or "")]
    except OSError:
        return []


def text_in(path: str) -> str:
    """The text of a small file; "" where there is none, or it is not ours to read."""
    try:
        return read_file(path, 1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""


def mount_of(path: str, mounts: str) -> tuple:
    """(mount point, type of its filesystem) of an absolute path in the text of /proc/mounts; ("", "") where it does not say."""
    lines = ([*line.split(" "), "", "", ""] for line in reversed(mounts.splitlines()))  # the latest of a place hides the others
    points = ((re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point), kind) for _, point, kind, *_ in lines)
    return max((mount for mount in points if f"{path}/".startswith(mount[0].rstrip("/") + "/")), key=lambda mount: len(mount[0]), default=("", ""))


def read_secret_file(path: str) -> str:
    """The text of a token file.  Raises OSError for a symlink or anything but a regular file."""
    if stat.S_ISLNK(os.lstat(path).st_mode):
        raise OSError(errno.ELOOP, "is a symlink")
    return read_file(path, 1 << 20).decode("utf-8", "replace")


def way_to(path: str) -> list:
    """Everything that leads to `path`: each directory and link that is passed, and what it is."""
    steps, names, place, links = ["/"], path.split("/"), "/", 0
    while names:
        name = names.pop(0)
        if name in ("", "."):
            continue
        step = os.path.normpath(os.path.join(place, name))
        steps.append(step)
        if os.path.islink(step) and links < 40:
            links += 1
            target = os.readlink(step)
            names = target.split("/") + names
            place = "/" if target.startswith("/") else place
        else:
            place = step
    return steps


class Trust(NamedTuple):
    """Whether others could have written a file."""

    refusal: str = ""  # why it is refused
    warning: str = ""  # what to think of, although it is not
    mend: str = ""  # the command that ends either

    @property
    def doubt(self) -> str:
        """Either, on one line."""
        return self.refusal or self.warning and f"{self.warning}; {self.mend}"


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def check_trust(path: str, home: str) -> Trust:
    """Who may change `path`: itself and the directories on its way, link and target, up to HOME or `/`."""
    real, real_home = os.path.realpath(path), os.path.realpath(home)
    is_below = (real + "/").startswith(real_home + "/")
    above = {*way_to(os.path.dirname(home)), *way_to(os.path.dirname(real_home))} if is_below else set()
    trust = Trust()
    for step in dict.fromkeys(way_to(path)):
        if step in above:
            continue
        try:
            found = os.lstat(step)
        except OSError:
            continue
        if found.st_uid not in (os.geteuid(), 0):
            return Trust(f"{step} belongs to {user_name(found.st_uid)}", mend=f"chown {user_name(os.geteuid())} {shell_word(step)}")
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        mode = 0 if sticky or stat.S_ISLNK(found.st_mode) else found.st_mode
        if mode & stat.S_IWOTH:
            return Trust(f"{step} can be written by everyone", mend=f"chmod o-w {shell_word(step)}")
        if mode & stat.S_IWGRP and not trust.warning:
            trust = Trust("", f"{step} can be written by its group", f"chmod g-w {shell_word(step)}")
    return trust


def home_directory(env: dict) -> str:
    """HOME, else the account's; cron need not set it."""
    import pwd

    if os.path.isabs(env.get("HOME", "")):
        return env["HOME"]
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


def python_command() -> str:
    """How a person calls Python: `python3`, unless that is known to be too old, or is not there."""
    found = runnable("python3", os.environ.get("PATH", os.defpath))
    is_good = found and not re.search(r"/python3\.[0-8]$", os.path.realpath(found))
    return "python3" if is_good else shell_word(sys.executable or "python3")


def absolute_path(path: str, home: str) -> str:
    return os.path.abspath(expand_home(path, home))


def script_command(path: str = "") -> str:
    """How a person calls this very file, or its copy at `path`, in a shell."""
    path, home = os.path.abspath(path or __file__), home_directory(dict(os.environ)).rstrip("/")
    return python_command() + " " + ("~/" + shell_word(path[len(home) + 1 :]) if home and path.startswith(home + "/") else shell_word(path))


# ---- locks


def try_lock(path: str) -> Optional[int]:
    """A descriptor that holds the lock on `path`, or None if another process holds it.

    flock on a file that is never replaced nor removed; closing the descriptor lets go.
    """
    make_private_dir(os.path.dirname(path))
    fd = open_private(path, os.O_RDWR)
    try:
        reach("lock")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise


def wait_lock(path: str, seconds: float) -> Optional[int]:
    """The same, tried again for at most `seconds`."""
    until = time.monotonic() + seconds
    fd = try_lock(path)
    while fd is None and time.monotonic() < until:
        time.sleep(0.01)
        fd = try_lock(path)
    return fd


def is_held(path: str, seconds: float = 0.0) -> bool:
    """Whether another process holds the lock on `path`, and keeps it for so long; nothing is made."""
    until = time.monotonic() + seconds
    while True:
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            if time.monotonic() >= until:
                return True
        time.sleep(0.02)


# ---- the state file


STATE_LOCK_WAIT = 20.0  # transactions take milliseconds; a holder that takes longer is stopped or swapped out
HISTORY_LIMIT = 4 << 20


def history_records(path: str) -> Iterator[dict]:
    """The records of both history files, the oldest first; lines that are torn are left out.  OSError as `open` has it."""
    for name in (path + ".1", path):
        try:
            with open(name, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 2 * HISTORY_LIMIT))
                lines = file.read(2 * HISTORY_LIMIT).splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                item = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(item, dict) and is_number(item.get("at")):
                yield item


class Store:
    """The state file: short transactions under a lock, each durable before it counts."""

    def __init__(self, path: str, clock: Clock):
        self.path = path
        self.clock = clock
        self.on_lost: Callable[[State, str], None] = lambda state, aside: None  # told inside the transaction that moved an unreadable file aside
        self.seen: Any = ((), None, "")  # the file as last read or written: its signature, the State in it, its text (None: unreadable)
        self.stem = path.removesuffix(".json")
        self.history_path = self.stem + ".history.jsonl"

    def lock_path(self, name: str) -> str:
        return f"{self.stem}.locks/{name}.lock"

    def job_dir(self, job_id: str) -> str:
        return f"{self.stem}.jobs/{slug(job_id)}"

    def lock(self, name: str, seconds: float = 0.0, limit: float = 0.0) -> Any:
        """A file that holds the lock `name` until it is closed, or None if that is not to be had within `seconds`.

        The file's time says when its holder should have ended, `limit` seconds from now.
        """
        path = self.lock_path(name)
        try:
            fd = wait_lock(path, seconds)
        except OSError as error:
            raise self._trouble("lock", path, error) from None
        if fd is None:
            return None
        if limit:
            now = self.clock.now().at
            try:
                os.utime(fd, (now, now + limit))
            except OSError:
                pass  # then nobody is told of a holder that hangs
        return open(fd, "rb")

    def overdue(self, name: str) -> float:
        """Seconds since whoever took the lock `name` last should have ended; who finds it taken may ask."""
        try:
            return max(0.0, self.clock.now().at - os.stat(self.lock_path(name)).st_mtime)
        except OSError:
            return 0.0

    def view(self) -> State:
        """The state as it is now, to look at until the next change.  An unreadable one looks empty."""
        state = self._load()[0]
        state.now = self.clock.now().at
        return state

    def change(self, *applies: Callable[[State], Any]) -> list:
        """Apply functions to the state in one transaction; their results, once it is durable.

        Raises StateError with the old file untouched, BusyError if the lock is not to be had.
        """
        lock = self.lock("state", STATE_LOCK_WAIT)
        if lock is None:
            path = self.lock_path("state")
            raise BusyError(f"another process has held {path} for {STATE_LOCK_WAIT:g} s", "lsof " + shell_word(path))
        with lock:
            known, before = self._load()
            self.seen = ((), None, "")  # what fails half-way is read again
            state = State(known.raw, self.clock.now().at, known.is_migrated)
            if before is None:
                self._move_aside(state)
            results = [apply(state) for apply in applies]
            self._save(state, before or "")
            if state.history:
                self._append_history(state.history)
            return results

    def attempt(self, apply: Callable[[State], Any]) -> Optional[OpsError]:
        """The same for one who has to go on whether or not it can be saved: why it cannot, or None."""
        try:
            self.change(apply)
        except (StateError, BusyError) as error:
            return error
        return None

    def _trouble(self, verb: str, path: str, error: OSError) -> StateError:
        return StateError(f"cannot {verb} {path}: {os_words(error)}", file_advice(existing_place(path), error))

    def _signature(self) -> tuple:
        found = os.stat(self.path)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> tuple:
        """(state, text of the file); an unreadable file gives an empty state and no text."""
        now = self.clock.now().at
        signature: tuple = ()
        try:
            signature = self._signature()
            if signature != self.seen[0]:
                text = read_file(self.path).decode("utf-8")
                self.seen = (signature, read_state(text, now), text)
        except FileNotFoundError:
            self.seen = ((), State({"version": STATE_VERSION}, now), "")
        except OSError as error:
            raise self._trouble("read", self.path, error) from None
        except ValueError:
            self.seen = (signature, State({"version": STATE_VERSION, "recoveredAt": now}, now), None)
        return self.seen[1:]

    def is_unreadable(self) -> bool:
        """Whether the file holds no state, so that what is shown of it is empty."""
        return self._load()[1] is None

    def _move_aside(self, state: State) -> None:
        """The unreadable file gives way to a new state; it is kept, not lost."""
        aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(state.now))}"
        while os.path.lexists(aside):
            aside += "+"
        try:
            reach("link")
            os.link(self.path, aside)  # a second name: until the new state takes the first, a crash tells again
        except OSError:
            try:  # a filesystem without hard links
                write_durably(aside, read_file(self.path))
            except OSError as error:
                raise self._trouble("move aside", self.path, error) from None
        self.on_lost(state, aside)

    def _save(self, state: State, before: str) -> None:
        """Write the state unless nothing but the time of saving would change."""
        raw = {key: value for key, value in state.raw.items() if key != "savedAt"}
        text = json.dumps(raw, ensure_ascii=False, separators=(",", ":"))
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate in a key that is not ours
            text = json.dumps(raw, separators=(",", ":"))
        unsaved = text[:-1] + ',"savedAt":'  # `version` at least stands before it
        try:
            if before.startswith(unsaved):
                text = before
            else:
                state.raw["savedAt"] = round(state.now, 3)
                text = f"{unsaved}{state.raw['savedAt']}}}"
                if state.is_migrated and not os.path.exists(self.path + ".v1-backup"):
                    write_durably(self.path + ".v1-backup", before.encode("utf-8"))
                write_durably(self.path, text.encode("utf-8"))
                state.is_migrated = False
            self.seen = (self._signature(), state, text)
        except OSError as error:
            raise self._trouble("write", self.path, error) from None

    def _append_history(self, records: list) -> None:
        """Best effort: history tells what happened, nothing is decided from it."""
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in records)
        try:
            write_private(self.history_path, os.O_APPEND, lines)
            if os.path.getsize(self.history_path) > HISTORY_LIMIT:
                reach("replace")
                os.replace(self.history_path, self.history_path + ".1")
        except OSError as error:
            if sys.stderr.isatty():  # lasting, and nothing is decided from it: no mail from cron each minute
                warn(f"warning: cannot write {self.history_path}: {os_words(error)}")


# ---- processes


COMMON_PLACES = ("~/.local/bin", "/opt/homebrew/bin", "/usr/local/bin")  # what works by hand works under cron
HEAD_KEPT, TAIL_KEPT = 16 << 10, 48 << 10
GRACE = 5.0  # seconds between TERM and KILL
AFTER_EXIT = 0.5  # seconds that output may still come once the child has ended
RUN_MARK = "OPS_RUN"  # environment variable that marks a run's processes
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # ask this process to end
SIGNALS_OF_OURS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)  # ignored or caught here, not in children


class Command(NamedTuple):
    """A request: run this, come back with its Outcome."""

    argv: list
    cwd: str
    env: dict
    timeout: float  # seconds
    marker: str = ""  # value of OPS_RUN in its environment
    head: int = HEAD_KEPT  # bytes kept of the beginning of standard output
    patterns: tuple = ()  # attention patterns to look for in everything it prints
    log: str = ""  # file that gets its output instead of us
    stdin: bytes = b""
    is_strict: bool = False  # KILL at the timeout, without TERM and a moment; what it leaves behind ends with it
    is_look: bool = False  # it asks and changes nothing: a second process may run it, and we once more if that one is lost


def caller_environment() -> dict:
    """The environment as our caller made it.

    Where the locale is C, Python sets LC_CTYPE to UTF-8 for itself and for its children (PEP 538).  Those of a
    caller that names no locale, as cron, are better off with it; a caller that names C means it.
    """
    env = dict(os.environ)
    if env.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        return env
    try:
        with open("/proc/self/environ", encoding="utf-8", errors="surrogateescape") as file:
            given = dict(entry.split("=", 1) for entry in file.read().split("\0") if "=" in entry)
    except OSError:
        return env  # macOS: nobody can tell who set it
    named = {name: given[name] for name in ("LANG", "LC_CTYPE") if given.get(name)}
    if named:
        del env["LC_CTYPE"]
    return {**named, **env}


def child_environment(env: dict, home: str, declared: dict) -> dict:
    """The caller's environment, its PATH completed, HOME set, the declared variables last."""
    path = [place for place in env.get("PATH", "/usr/bin:/bin").split(":") if place]
    path += [place for place in (common.replace("~", home) for common in COMMON_PLACES) if place not in path]
    return {"HOME": home, **env, "PATH": ":".join(path), **declared}


def spawn_failure(error: Exception, command: Command) -> Phrase:
    """Why a command could not be started, in words."""
    program = command.argv[0]
    number = getattr(error, "errno", 0)
    if number and not os.path.isdir(command.cwd):
        return Phrase("run.no_cwd", {"cwd": command.cwd})
    if number == errno.EACCES and not os.access(command.cwd, os.X_OK):
        return Phrase("run.cwd_denied", {"cwd": command.cwd})
    if number == errno.ENOENT and "/" in program and os.path.exists(os.path.join(command.cwd, program)):
        return Phrase("run.no_interpreter", {"program": program})
    keys = {errno.ENOENT: "run.missing", errno.ENOTDIR: "run.missing", errno.EACCES: "run.denied", errno.ENOEXEC: "run.no_interpreter"}
    words = os_words(error) if isinstance(error, OSError) else one_line(str(error))
    return Phrase(keys.get(number, "run.cannot"), {"program": program, "error": words})


TERMINAL_COLOR = rb"\x1b\[[0-9;?]*[ -/]*[@-~]"


def whole_word(needle: bytes) -> bytes:
    """The pattern of `needle` where no letter, digit or `_` continues it; an edge that is none of these needs no boundary."""
    letters, word = b"[A-Za-z0-9_]", re.escape(needle)
    after = b"(?!" + letters + b")" if re.match(letters, needle[-1:]) else b""
    before = b"(?<!" + letters + word + b")" if re.match(letters, needle) else b""
    return word + after + before  # the literal first: it lets `re` jump; what may not stand before it is asked last


class Attention:
    """Looks for whole words in a stream of any length and keeps the lines that hold them."""

    LINES, LINE_KEPT = 20, 2048

    def __init__(self, patterns: Iterable[str]):
        self.needles = [pattern.encode("utf-8") for pattern in patterns]
        self.pattern = b"|".join(map(whole_word, self.needles))
        self.common = set.intersection(*map(set, self.needles))  # bytes that every needle has: most text lacks one of them
        self.reach = max(map(len, self.needles)) + 1
        self.kept = max(self.reach, self.LINE_KEPT) + 2  # bytes of a chunk without a match that the next one may need
        self.rest = b""  # what is not yet looked at, after one byte that tells where a word begins
        self.lines: list = []
        self.looked = False  # whether the first byte of `rest` was looked at before

    def feed(self, chunk: bytes) -> None:
        is_possible = all(byte in chunk or byte in self.rest for byte in self.common)  # looking for single bytes costs a tenth
        data = self.rest + (chunk if is_possible else chunk[-self.kept :])
        if is_possible and b"\x1b" in data:  # the `m` that ends a colour is no letter of a word
            data = re.sub(TERMINAL_COLOR, b"", data)
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > self.LINE_KEPT:  # a line without end: look at what is there
            cut = len(data) - self.reach
        if is_possible and len(self.lines) < self.LINES and any(all(map(data.__contains__, needle)) and needle in data for needle in self.needles):
            self._collect(data, cut)
        self.rest = data[max(0, cut - 1) :]
        self.looked = self.looked or cut > 0

    def end(self) -> list:
        """The lines, once nothing more can come."""
        self._collect(self.rest, len(self.rest))
        return self.lines

    @staticmethod
    def _around(data: bytes, begin: int, match: Any, end: int) -> bytes:
        """The match and what stands around it on its line; where that is cut, no part of a word."""
        first = max(begin, match.start() - 200)
        last = max(match.end(), min(end, first + 600))
        before, after = data[first : match.start()], data[match.end() : last]
        return (without_cut_begin(before) if first > begin else before) + match.group() + (without_cut_end(after) if last < end else after)

    def _collect(self, data: bytes, cut: int) -> None:
        """Keep the lines around matches that begin before `cut`."""
        last = -1
        for match in re.finditer(self.pattern, data):
            if match.start() >= cut or len(self.lines) >= self.LINES:
                return
            begin = data.rfind(b"\n", 0, match.start()) + 1
            if begin == last or match.start() == 0 and self.looked:
                continue
            end = data.find(b"\n", match.end())
            self.lines.append(self._around(data, begin, match, end if end >= 0 else len(data)))
            last = begin


class Stream:
    """One output of a child: its beginning, its end, its size."""

    def __init__(self, head: int, patterns: Optional[tuple]):
        self.head_limit = head
        self.head = self.tail = b""
        self.size = 0
        self.attention = Attention(patterns) if patterns else None

    def feed(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.attention:
            self.attention.feed(chunk)
        room = self.head_limit - len(self.head)
        if room:
            self.head += chunk[:room]
            chunk = chunk[room:]
        self.tail = (chunk if len(chunk) >= TAIL_KEPT else self.tail + chunk)[-TAIL_KEPT:]

    def kept(self) -> bytes:
        """Head and tail; where something is missing between them, a line says so."""
        if self.size == len(self.head) + len(self.tail):
            return self.head + self.tail
        whole = self.tail[self.tail.find(b"\n") + 1 :]
        return self.head + b"\n[... %d bytes left out ...]\n" % (self.size - len(self.head) - len(whole)) + whole


class Child:
    """A running command."""

    def __init__(self, command: Command, token: Any, began: Instant):
        self.command = command
        self.token = token
        self.began = began
        self.pid = 0
        self.streams = [Stream(head, command.patterns) for head in (command.head, HEAD_KEPT)]  # standard output, standard error
        self.open_files: dict = {}  # our end of a pipe -> its Stream
        self.deadline = time.monotonic() + command.timeout  # once it has ended: of a grandchild that keeps the pipe
        self.signals = 0  # times that it was told to end
        self.code: Optional[int] = None


def ring_on_exit() -> tuple:
    """A pipe (read end, write end) that becomes readable when a child of ours ends."""
    source, sink = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # the wake-up descriptor is written all the same
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # whoever called us may have blocked it
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    return source, sink


def on_signal(number: int, frame: Any) -> None:
    """Once is enough: whoever ends others first is not disturbed by a second Ctrl-C, or by one for all and one for it."""
    for ending in ENDING_SIGNALS:
        signal.signal(ending, lambda number, frame: None)
    raise Interrupted(number)


def end_one(pid: int, number: int, kill: Callable[[int, int], None] = os.kill) -> None:
    reach("kill")
    try:
        kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone already, or (macOS) only zombies are left


def end_group(pid: int, number: int) -> None:
    end_one(pid, number, os.killpg)


def marked_processes(marker: str) -> list:
    """Pids whose environment carries OPS_RUN=`marker`: what a run left, wherever it went."""
    if not marker:
        return []
    wanted = f"{RUN_MARK}={marker}"
    if not os.path.isdir("/proc/self"):  # macOS, own processes; documented, not tried there
        lines = quick_output(["/bin/ps", "-E", "-x", "-o", "pid=,command="]).splitlines()
        return [int(line.split(None, 1)[0]) for line in lines if wanted in line.split()]
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted.encode() in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue  # ended, or another user's
    return found


def strays(marker: str, group: int) -> list:
    """Marked processes that have left the group: the others had its signal already."""
    found = []
    for pid in marked_processes(marker):
        try:
            if os.getpgid(pid) != group:
                found.append(pid)
        except OSError:
            continue  # gone meanwhile
    return found


SHARED_LOOKS = (200, 2000)  # so many are worth a second process; the numbers of so many fit into any pipe, were it one page


def can_share() -> bool:
    """Whether a fork of this process gains time and is safe (on macOS the system's own libraries do not bear one)."""
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


class Share:
    """Many looks, divided between this process and a fork of it.

    Whoever starts a command waits until the kernel has loaded it, so one process alone hardly fills one CPU,
    however many there are.  The numbers of all looks lie in a pipe, and each of the two takes the next ones
    when it has room.  What the fork saw comes through a second pipe, which ends with the fork: when no number
    is left and its last command has ended, or when it is lost.
    """

    def __init__(self, looks: list, parallel: int, now: Callable[[], Instant]):
        self.looks = dict(enumerate(looks))  # number -> (command, token), until taken by us or seen by the fork
        self.begun = b""  # of a message that has not come whole
        self.patience = max(command.timeout for command, _ in looks) + 3 * GRACE  # seconds: longer without a word, and it hangs
        self.deadline = time.monotonic() + self.patience
        self.numbers, numbers = os.pipe()
        self.source, sink = os.pipe()
        try:
            write_all(numbers, b"".join(number.to_bytes(2, "big") for number in self.looks))
            os.close(numbers)
            reach("fork")
            self.pid = os.fork()
            if not self.pid:
                self._serve(sink, Pool(parallel, now))
        except OSError:
            os.close(self.numbers)
            os.close(self.source)
            raise
        finally:
            os.close(sink)

    def take(self, count: int) -> list:
        """The numbers of the next looks, at most `count`."""
        numbers = os.read(self.numbers, 2 * count)
        return [int.from_bytes(numbers[at : at + 2], "big") for at in range(0, len(numbers), 2)]

    def receive(self) -> Optional[list]:
        """(token, Outcome) of what the fork saw; None when it has ended."""
        data = os.read(self.source, 1 << 20)
        self.deadline = time.monotonic() + self.patience
        self.begun += data
        found = []
        while len(self.begun) >= 4 and len(self.begun) >= (end := 4 + int.from_bytes(self.begun[:4], "big")):
            number, began, ended, code, timed_out, failure, *more = marshal.loads(self.begun[4:end])
            self.begun = self.begun[end:]
            failure = Phrase(*failure) if failure else None
            found.append((self.looks.pop(number)[1], Outcome(Instant(*began), Instant(*ended), code, timed_out, failure, *more)))
        return found if data else None

    def close(self) -> list:
        """Let go of the fork that has ended; (command, token) of what nobody has seen."""
        os.close(self.numbers)
        os.close(self.source)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # somebody else's wait took it
        return list(self.looks.values())

    def _serve(self, sink: int, pool: Pool) -> None:
        """The fork's life.  It keeps nothing of ours, no lock and no file, and never returns."""
        try:
            signal.set_wakeup_fd(-1)
            for fd in map(int, os.listdir("/proc/self/fd")):
                if fd > 2 and fd not in (self.numbers, sink):
                    os.closerange(fd, fd + 1)  # the listing's own is closed already
            for number in ENDING_SIGNALS:
                signal.signal(number, on_signal)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
            try:
                self._look(sink, pool)
            finally:  # done, told to end, or nobody listens any more
                pool.end_all()
        finally:
            os._exit(0)

    def _look(self, sink: int, pool: Pool) -> None:
        while True:
            for number in self.take(pool.parallel - len(pool.children)):
                pool.add(self.looks[number][0], number)
            if not pool.busy:
                return
            ended, began = pool.wait(HOUR), time.monotonic()
            for number, outcome in ended:
                message = marshal.dumps((number, *(tuple(part) if isinstance(part, tuple) else part for part in outcome)))
                write_all(sink, len(message).to_bytes(4, "big") + message)
            pool.forgive(time.monotonic() - began)  # they may be sending, and not listen for a while


DESCRIPTORS_OF_OURS = 20  # standard ones, the state and its locks, the bell, a connection


class Pool:
    """Runs commands side by side, at most `parallel` at once, and never waits for one alone."""

    def __init__(self, parallel: int, now: Callable[[], Instant]):
        limit = os.sysconf("SC_OPEN_MAX")  # -1: none; who runs takes two pipes, and perhaps its lock
        self.parallel = parallel if limit < 0 else max(1, min(parallel, (limit - DESCRIPTORS_OF_OURS) // 3))
        self.now = now
        self.waiting: list = []  # (command, token)
        self.children: dict = {}  # pid -> Child
        self.files: dict = {}  # our end of a pipe -> Child
        self.finished: list = []  # (token, Outcome)
        self.poll = select.poll()
        self.bell: tuple = ()
        self.share: Optional[Share] = None
        self.may_share = parallel > 1 and can_share()

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.children or self.finished or self.share)

    def add(self, command: Command, token: Any) -> None:
        self.waiting.append((command, token))

    def wait(self, seconds: float) -> list:
        """(token, Outcome) of what ends within `seconds`; at once when something has."""
        until = time.monotonic() + seconds
        while True:
            self._start_waiting()
            if self.finished or not (self.children or self.share) or seconds < 0:
                break
            self._pump(seconds)
            seconds = until - time.monotonic()
        ended, self.finished = self.finished, []
        return ended

    def forgive(self, seconds: float) -> None:
        """We did not read for a while: that time is not counted against those who run."""
        for one in self._dated():
            one.deadline += seconds

    def _dated(self) -> list:
        """What has a deadline: the children, and the fork."""
        return [*self.children.values(), *([self.share] if self.share else [])]

    def end_all(self) -> None:
        """End every child: TERM, a moment, KILL.  For an interrupted program."""
        if self.share:
            end_one(self.share.pid, signal.SIGTERM)
        for child in self.children.values():
            self._time_out(child)
        while self.children or self.share:
            self._pump(0.2)
        self.waiting.clear()

    def _start_waiting(self) -> None:
        """Start as many as may run.  An interruption comes before or after, not between a start and our knowing of it."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            if self.may_share and len(self.waiting) >= SHARED_LOOKS[0]:
                self._share_looks()
            limit = self.parallel
            if self.share:
                limit -= self.parallel // 2
                taken = self.share.take(max(0, limit - len(self.children) - len(self.waiting)))
                self.waiting += map(self.share.looks.pop, taken)
            while self.waiting and len(self.children) < limit:
                self._start(*self.waiting.pop(0))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _share_looks(self) -> None:
        looks = [entry for entry in self.waiting if entry[0].is_look]
        least, most = SHARED_LOOKS
        if len(looks) < least or self.share:
            return
        try:
            self.share = Share(looks[:most], self.parallel // 2, self.now)
        except OSError:
            self.may_share = False  # no more processes, or no descriptors: alone, then
            return
        self.waiting = looks[most:] + [entry for entry in self.waiting if not entry[0].is_look]
        self.poll.register(self.share.source, select.POLLIN)

    def _hear(self, share: Share) -> None:
        found = share.receive()
        if found is not None:
            self.finished += found
            return
        self.poll.unregister(share.source)
        self.share = None
        lost = share.close()
        self.waiting += lost
        self.may_share = not lost

    def _start(self, command: Command, token: Any) -> None:
        child = Child(command, token, self.now())
        files: list = []
        try:
            if not self.bell:
                self.bell = ring_on_exit()
                self.poll.register(self.bell[0], select.POLLIN)
            self._connect(child, files)
            env = {**command.env, RUN_MARK: command.marker} if command.marker else command.env
            child.pid = spawn(command.argv, command.cwd, env, files)
            self.children[child.pid] = child
        except (OSError, ValueError) as error:
            self._close(*child.open_files)
            self.finished.append((token, Outcome(child.began, self.now(), failure=spawn_failure(error, command))))
        for fd in {ours for _, ours in files}:
            os.close(fd)

    def _connect(self, child: Child, files: list) -> None:
        """Add to `files` what the child gets: (its descriptor, ours, which is closed once it has it)."""
        command = child.command
        if command.stdin:
            import tempfile  # rare: only what is sent through a command, and supervisors

            with tempfile.TemporaryFile() as file:
                reach("write")
                file.write(command.stdin)
                file.flush()
                file.seek(0)
                files.append((0, os.dup(file.fileno())))
        if command.log:
            fd = open_private(command.log, os.O_WRONLY | os.O_APPEND)
            files += [(1, fd), (2, fd)]
            return
        for number, stream in enumerate(child.streams, 1):
            source, sink = os.pipe()
            files.append((number, sink))
            os.set_blocking(source, False)
            self.files[source] = child
            child.open_files[source] = stream
            self.poll.register(source, select.POLLIN)

    def _pump(self, seconds: float) -> None:
        """Wait for output, an exit or a deadline; do what it asks for."""
        moment = time.monotonic()
        wake = min([moment + seconds, *(one.deadline for one in self._dated())])
        has_rung = False
        for fd, _ in self.poll.poll(max(0, int((wake - moment) * 1000) + 1)):
            if fd in self.bell:
                has_rung = bool(os.read(fd, 4096))
            elif self.share and fd == self.share.source:
                self._hear(self.share)
            else:
                self._read(fd)
        moment = time.monotonic()
        if self.share and moment >= self.share.deadline:
            end_one(self.share.pid, signal.SIGKILL)  # then its pipe ends, and what it had is looked at here
            self.share.deadline = moment + GRACE
        for child in list(self.children.values()):
            if child.code is None and (has_rung or moment >= child.deadline):
                self._reap(child)
            is_due = moment >= child.deadline
            if child.code is None and is_due and child.signals < 2:
                self._time_out(child)
            elif is_due or child.code is not None and not child.open_files:
                self._finish(child)  # without a code if not even KILL ends it (stuck in the kernel): say so, go on without it

    def _read(self, fd: int) -> None:
        """Take what is there.  A flood goes on as long as we read, so the others get their turn after a while."""
        stream = self.files[fd].open_files[fd]
        chunks, size = [], 0
        try:
            while size < 1 << 18:
                chunk = os.read(fd, 1 << 16)
                if not chunk:
                    self._close(fd)
                    break
                chunks.append(chunk)
                size += len(chunk)
        except BlockingIOError:
            pass  # that was all for now
        stream.feed(b"".join(chunks))

    def _close(self, *fds: int) -> None:
        for fd in fds:
            self.poll.unregister(fd)
            del self.files.pop(fd).open_files[fd]
            os.close(fd)

    def _reap(self, child: Child) -> None:
        reach("wait")
        try:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else's wait took it: its code is not to be had
            pid, status = child.pid, 255 << 8
        if pid:
            child.code = os.waitstatus_to_exitcode(status)
            child.deadline = time.monotonic() + AFTER_EXIT

    def _time_out(self, child: Child) -> None:
        """TERM the first time, KILL the second."""
        self._end(child, signal.SIGKILL if child.signals or child.command.is_strict else signal.SIGTERM)
        child.signals += 1
        child.deadline = time.monotonic() + GRACE

    def _end(self, child: Child, number: int) -> None:
        """A signal to the whole group and to what has left it."""
        end_group(child.pid, number)
        for pid in strays(child.command.marker, child.pid):
            end_one(pid, number)

    def _finish(self, child: Child) -> None:
        self._close(*child.open_files)
        del self.children[child.pid]
        has_timed_out = child.signals > 0
        if has_timed_out or child.command.is_strict:
            self._end(child, signal.SIGKILL)
        lines = [line for stream in child.streams if stream.attention for line in stream.attention.end()]
        out, err = child.streams
        limit = child.command.timeout
        outcome = Outcome(child.began, self.now(), child.code, has_timed_out, None, out.kept(), err.kept(), tuple(lines[:20]), out.size, limit)
        self.finished.append((child.token, outcome))


def process_fields(pid: int) -> list:
    """What Linux tells of a process, from its state on (the name before it may hold anything); [] if nothing."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def process_start(pid: int) -> str:
    """When a process began, as a text that its pid alone cannot fake; '' if it is not there."""
    if os.path.isdir("/proc/self"):
        fields = process_fields(pid)
        return fields[19].decode() if fields else ""
    return quick_output(["/bin/ps", "-o", "lstart=", "-p", str(pid)]).strip()  # macOS; documented, not tried there


def is_zombie(pid: int) -> bool:
    return process_fields(pid)[:1] in ([b"Z"], [b"X"])


# ---- HTTP


class Sent(NamedTuple):
    """What came of one attempt to send."""

    result: str  # sent, not_sent (definitely), unknown, wait, refused (definitely, and for long), later (not tried)
    detail: str = ""
    retry_after: float = 0.0  # seconds the receiver asked for
    moved_to: str = ""  # the chat's new id


HTTP_TIMEOUT = 10.0


class Lost(Exception):
    """The request went out and no answer came: nobody knows whether it was heard."""


def end_when_late(connection: Any, is_over: Any, deadline: list) -> None:
    """The time limit of a whole exchange: a server or a proxy that drips ends in a broken connection.  A thread's life."""
    while not is_over.wait(max(0.1, deadline[0] - time.monotonic())):
        if time.monotonic() < deadline[0]:
            continue
        try:
            connection.sock.shutdown(2)
        except (AttributeError, OSError):
            pass  # not there yet, or it has ended by itself


def connection_to(url: str, proxy: str) -> tuple:
    """(connection that is not made yet, what to request on it, headers) for a URL, by way of a proxy if one is named."""
    import http.client
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(url)
        via = urlsplit(proxy if "://" in proxy else "http://" + proxy) if proxy else parts
        is_secret = parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_secret else http.client.HTTPConnection
        connection = kind(via.hostname or "", via.port or (443 if via.scheme == "https" else 80), timeout=HTTP_TIMEOUT)
        port = parts.port or 443
    except (ValueError, http.client.HTTPException):  # its words may quote a part of a password
        raise OSError(f"channels.telegram.{'proxy or ' * bool(proxy)}apiRoot is not a URL that can be used") from None
    login = {}
    if proxy and via.username:
        import base64

        pair = f"{unquote(via.username)}:{unquote(via.password or '')}"
        login = {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    if proxy and is_secret:
        connection.set_tunnel(parts.hostname or "", port, login)
    return connection, url if proxy and not is_secret else parts.path, {} if is_secret else login


def post_json(url: str, body: dict, proxy: str = "") -> tuple:
    """(status, bytes) of a POST.  Raises OSError before the request went out, Lost after it.

    http.client rather than urllib: it tells connecting from answering, follows no redirect, and
    loads in half the time.  Both are dear, so only when there is something to send.
    """
    import http.client
    import threading

    connection, target, headers = connection_to(url, proxy)
    is_over, deadline = threading.Event(), [time.monotonic() + HTTP_TIMEOUT]
    threading.Thread(target=end_when_late, args=(connection, is_over, deadline), daemon=True).start()
    was_sent = False
    try:
        reach("connect")
        connection.connect()
        was_sent = True
        deadline[0] = time.monotonic() + HTTP_TIMEOUT  # once more for the rest: what has begun is better finished
        reach("send")
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        connection.request("POST", target, data, {"Content-Type": "application/json; charset=utf-8", "Connection": "close", **headers})
        reach("receive")
        response = connection.getresponse()
        raw = response.read(65536)
        if time.monotonic() >= deadline[0]:
            raise TimeoutError("no whole answer in time")
        return response.status, raw
    except (OSError, http.client.HTTPException) as error:
        words = one_line(str(error) or type(error).__name__, 1000)  # redacted first, then cut
        raise Lost(words) if was_sent else OSError(words) from None
    finally:
        is_over.set()
        connection.close()


# ---- schedulers: the texts that SCHEDULERS reads


def read_plist(path: str) -> dict:
    import plistlib  # rare: macOS only

    try:
        return object_at(plistlib.loads(read_file(path, 1 << 20)))
    except Exception:  # whatever it or its XML parser says: launchd could not run it either
        return {}


def read_units(directories: list) -> tuple:
    """(unit -> (file, its text and that of its drop-ins), units that are enabled); of equal names the first file counts."""
    units: dict = {}
    for path in (path for directory in directories for path in paths_in(directory, ".service", ".timer")):
        name = os.path.basename(path)
        drop_ins = (part for directory in directories for part in paths_in(f"{directory}/{name}.d", ".conf"))
        units.setdefault(name, (path, "\n".join(map(text_in, [path, *drop_ins]))))
    wants = (place for directory in directories for place in paths_in(directory, ".wants"))
    return units, {os.path.basename(path) for place in wants for path in paths_in(place)}


def find_schedulers(root: str, home: str, crontab: str) -> list:
    """Every Entry below `root` (/etc, /Library) and in `home`; `crontab` is what `crontab -l` printed."""
    found = list(crontab_entries(crontab, "crontab -l", False))
    for path in (f"{root}/etc/crontab", *paths_in(f"{root}/etc/cron.d")):
        found += crontab_entries(text_in(path), path, True)
    found += systemd_entries("systemctl --user", home, *read_units([f"{home}/.config/systemd/user", f"{root}/etc/systemd/user"]))
    found += systemd_entries("systemctl", home, *read_units([f"{root}/etc/systemd/system"]))
    for place, user in ((f"{home}/Library/LaunchAgents", ""), (f"{root}/Library/LaunchAgents", ""), (f"{root}/Library/LaunchDaemons", "root")):
        for path in paths_in(place, ".plist"):
            found += launchd_entries(read_plist(path), path, user)
    return found


# ==== MANAGED ============================================================
# Managed jobs: a small supervisor runs the work, and its records answer the status contract.
#
# In the job's directory: `run.lock` (held by supervisor and job as an inherited descriptor),
# `run.json` (what runs, later how it ended), `stopped` (the run that `stop` asked to end: its exit 0 is a
# pause, not its completion), `run.log`, `progress.json`, `checkpoint/`.  An exit record wins; else the
# job runs while the lock is held or while the recorded process (pid + start + boot) lives; else it
# stopped.  Nothing is guessed from a pid alone.

LOG_LIMIT, LOG_KEPT = 8 << 20, 4 << 20  # of run.log; a flood may pass the limit between two looks
SHUTDOWN_TIME = 2 * MINUTE  # systemd and launchd give less to what they have asked to end
PROGRESS_LIMIT = 64 << 10


# ---- the supervisor: what stays beside a managed job, in an interpreter of its own
#
# A bare interpreter gets these functions as byte code (9 MB instead of 25, and an upgrade of this
# file cannot change them half-way).  So they use nothing but each other, the functions of WORLD
# that go with them, and the modules and constants that `supervisor_command` names.


def trim_log(log: str, pid: int) -> None:
    """Keep the newest lines.  For the last part of it the job waits a moment, so that nothing is written between copying and cutting."""
    edit = os.open(log, os.O_RDWR)  # not O_APPEND: Linux would append whatever the offset
    begin, length = os.fstat(edit).st_size - LOG_KEPT, 0
    begin += os.pread(edit, 1 << 16, begin).find(b"\n") + 1
    try:
        for is_last in (False, True):
            if is_last:
                end_group(pid, signal.SIGSTOP)
                time.sleep(0.01)  # a write that has begun ends
            for chunk in iter(lambda: os.pread(edit, 1 << 20, begin + length), b""):
                length += os.pwrite(edit, chunk, length)
                if length > 2 * LOG_KEPT and not is_last:
                    break  # it writes as fast as we copy
        os.ftruncate(edit, length)
    finally:
        os.close(edit)
        end_group(pid, signal.SIGCONT)


def wait_and_trim(pid: int, bell: int, log: str, log_fd: int) -> int:
    """Keep the log short until the job ends; its exit code."""
    before, pause = 0, 0.02
    while True:
        if select.select([bell], [], [], pause)[0]:
            os.read(bell, 4096)
        ended, status = os.waitpid(pid, os.WNOHANG)
        size = os.fstat(log_fd).st_size
        if size > LOG_LIMIT:
            try:
                trim_log(log, pid)
            except OSError:
                pass  # somebody moved the log away, or the disk is full: the exit code counts more
        if ended:
            return os.waitstatus_to_exitcode(status)
        pause = 0.002 if size - before > 1 << 16 else min(0.2, pause * 1.5)  # how far a flood can get between two looks
        before = min(size, LOG_KEPT)


def record_end(directory: str, record: bytes) -> None:
    """Put on record how the job ended, however long the disk is full; until then its lock is held, and nothing starts it again."""
    pause = 0.5
    while os.path.isdir(directory):
        try:
            return write_durably(f"{directory}/run.json", record)
        except OSError:
            time.sleep(pause)
            pause = min(30.0, 2 * pause)


def leave_terminal() -> list:
    """Go on in a session of its own, with nothing on descriptors 0 to 2; only KILL ends it.

    Each TERM puts its time (monotonic) on the list: a machine that shuts down sends one to everybody, the job included.
    """
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    asked_at: list = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked_at.append(time.monotonic()))
    return asked_at


def supervise(directory: str, program: str, argv: list, mark: dict, head: str) -> None:
    """Launch a job and stay beside it: the whole life of the supervisor.  `head` is the record so far, without its end.

    Exit code 0: the job runs.  75: another run holds the lock.
    """
    log, pid = f"{directory}/run.log", 0
    try:
        lock = wait_lock(f"{directory}/run.lock", 0.5)  # somebody who only looks holds it for an instant
        log_fd = open_private(log, os.O_RDWR | os.O_APPEND)
    except OSError as error:
        os.write(2, f"{directory}: {error.strerror}\n".encode())
        os._exit(126)
    if lock is None:
        os.write(2, b"another run holds run.lock\n")
        os._exit(75)
    source, sink = os.pipe()
    if os.fork():
        os.close(sink)
        answer = os.read(source, 4096)
        os.write(2, answer[1:])
        os._exit({b"+": 0, b"?": 127}.get(answer[:1], 126))
    asked_at = leave_terminal()
    os.set_inheritable(lock, True)  # the one child that is made is the job
    bell, _ = ring_on_exit()
    actions = [(os.POSIX_SPAWN_DUP2, log_fd, 1), (os.POSIX_SPAWN_DUP2, log_fd, 2)]
    defaults = (*SIGNALS_OF_OURS, signal.SIGHUP)
    try:
        pid = os.posix_spawn(program, argv, {**caller_environment(), **mark}, file_actions=actions, setsid=True, setsigmask=(), setsigdef=defaults)
        head += f',"pid":{pid},"processStart":"{process_start(pid)}","supervisor":{os.getpid()},"startedAt":{time.time():.3f}'
        write_durably(f"{directory}/run.json", f"{head}}}\n".encode())
    except OSError as error:  # nothing may run that is not on record
        if pid:
            end_group(pid, signal.SIGKILL)
        os.write(sink, f"{'?' if error.errno == errno.ENOENT else '-'}{program}: {error.strerror}\n".encode())
        os._exit(126)
    os.write(sink, b"+")
    os.close(sink)
    code = wait_and_trim(pid, bell, log, log_fd)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):  # what the job left in its group ends with it
            os.killpg(pid, number)
            time.sleep(0.2)
    except OSError:
        pass  # nothing is left
    was_asked = any(time.monotonic() - at < SHUTDOWN_TIME for at in asked_at)
    record_end(directory, f'{head},"exitCode":{code},"wasAsked":{"true" if was_asked else "false"},"endedAt":{time.time():.3f}}}\n'.encode())
    os._exit(0)


SUPERVISOR = (  # all that its interpreter gets
    reach, find_executable, spawn, quick_output, make_private_dir, open_private, write_all, flush_to_disk, flush_directory, remove_quietly,
    write_durably, try_lock, wait_lock, ring_on_exit, end_one, end_group, process_fields, process_start,
    caller_environment, trim_log, wait_and_trim, record_end, leave_terminal, supervise,
)  # fmt: skip
SUPERVISOR_START = (
    "import errno,fcntl,marshal,os,select,signal,sys,time;codes,constants,facts=marshal.loads(sys.stdin.buffer.read());"
    "here=globals();here.update(constants,**{code.co_name:type(lambda:0)(code,here)for code in codes});supervise(**facts)"
)


def supervisor_command(job_id: str, cwd: str, env: dict, timeout: float, **facts: Any) -> Command:
    """The command that launches a managed job and returns once it runs; the facts are what `supervise` takes."""
    codes = [function.__code__ for function in SUPERVISOR]
    constants = {"LOG_LIMIT": LOG_LIMIT, "LOG_KEPT": LOG_KEPT, "SHUTDOWN_TIME": SHUTDOWN_TIME, "SIGNALS_OF_OURS": [*map(int, SIGNALS_OF_OURS)]}
    argv = [sys.executable or "python3", "-I", "-S", "-c", SUPERVISOR_START, "ops-monitor-supervisor", job_id]
    return Command(argv, cwd, env, timeout, stdin=marshal.dumps((codes, constants, facts)))


# ---- its records


class Run(NamedTuple):
    """The record of a managed job's latest run."""

    run: str = ""
    command: str = ""  # fingerprint of argv, cwd and env
    attempt: int = 0
    boot: str = ""
    pid: int = 0
    process_start: str = ""
    exit_code: Optional[int] = None  # negative: the signal that ended it; None: it runs, or nobody could write down how it ended
    was_asked: bool = False  # its supervisor was asked to end shortly before: the machine shut down, or everything of this user ended


def read_run(directory: str) -> Optional[Run]:
    """The record, or None where the job never ran.  Raises ValueError if it cannot be read."""
    try:
        raw = json.loads(read_file(f"{directory}/run.json", 1 << 16))
    except FileNotFoundError:
        return None
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from None
    values = {name: raw[camel(name)] for name in Run._fields if camel(name) in raw} if isinstance(raw, dict) else {}
    blank = Run(exit_code=0)
    if "pid" not in values or any(type(value) is not type(getattr(blank, name)) for name, value in values.items()):
        raise ValueError("not a run record")
    return Run(**values)


def is_alive(run: Run, boot: str) -> bool:
    """Whether exactly the recorded process lives: pid, start and boot."""
    return run.pid > 1 and run.boot == boot and process_start(run.pid) == run.process_start != "" and not is_zombie(run.pid)


def is_lock_held(directory: str) -> bool:
    return is_held(f"{directory}/run.lock")


def read_progress(directory: str) -> tuple:
    """(answer fields, Phrase or None) from the job's progress file; anything but an object is said."""
    try:
        raw = read_file(f"{directory}/progress.json", PROGRESS_LIMIT)
        progress = AS_WRITTEN.decode(raw.decode("utf-8-sig"))
        if not isinstance(progress, dict):
            raise ValueError
        named = {key: progress.pop(key) for key in ("progressKey", "level", "message", "waiting") if key in progress}
        return {**named, "progress": progress}, None
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, Phrase("progress.unreadable", {"error": os_words(error)})
    except (ValueError, RecursionError):
        return {}, Phrase("progress.not_json")


def who_stopped(directory: str, run: Run) -> str:
    """Who asked this run to end, `person` or `tick`; '' = nobody.  Many save their work then, and exit 0."""
    try:
        name, _, who = read_file(f"{directory}/stopped", 100).decode("ascii", "replace").partition(" ")
    except OSError:
        return ""
    return who or "person" if name == run.run else ""


def forgive_stop(directory: str) -> None:
    """A person wants the job to run: its last run has been asked to end, but holds it no longer."""
    try:
        name = read_file(f"{directory}/stopped", 100).decode("ascii", "replace").partition(" ")[0]
        write_private(f"{directory}/stopped", os.O_TRUNC, f"{name} tick")
    except OSError:
        pass  # nobody stopped it, or the disk is full: then the start says so


def stop_words(run: Run, boot: str) -> str:
    """How a run that is not alive ended, in the words of the status contract."""
    if run.exit_code is None:
        return "lost: machine restarted" if run.boot != boot else "lost: exit code unknown"
    if run.exit_code == 0:
        return "asked to end, exit 0"
    return f"killed by {signal_name(-run.exit_code)}" if run.exit_code < 0 else f"exit {run.exit_code}"


def file_tail(path: str, redact: Redactor, count: int = 8) -> str:
    """The last lines of a log; '' if there is none."""
    try:
        with open(path, "rb") as file:
            begin = file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            data = file.read()
            return last_lines(redact.read(without_cut_begin(data) if begin else data), count)
    except OSError:
        return ""


def managed_look(directory: str, when: Instant, redact: Redactor, fingerprint: str, known: Optional[Memory] = None) -> Observation:
    """The observation of a managed job, from its records and what is known of it."""
    try:
        held = is_lock_held(directory)  # first: once it is free, the record read after it is final
        run = read_run(directory)
    except (OSError, ValueError) as error:
        return Observation(when, UNKNOWN, problem=Phrase("managed.record", {"error": one_line(str(error), 100)}))
    if run is None and not held and known and known.run and known.state == RUNNING and not known.held_at:
        row = "managed.gone" if known.boot == when.boot else "managed.lost"
        return Observation(when, UNKNOWN, problem=Phrase(row, {"directory": directory}))
    if run is None:
        return Observation(when, RUNNING if held else IDLE)
    answer, problem = read_progress(directory)
    alive = run.exit_code is None and (held or is_alive(run, when.boot))
    stopped_by = who_stopped(directory, run)
    completed = run.exit_code == 0 and not run.was_asked and not stopped_by
    look = observed(when, {**answer, "running": alive, "completed": completed, "pid": run.pid if alive else 0}, redact)
    look = look._replace(run=run.run, problem=problem, resumable=run.command in ("", fingerprint), held=stopped_by == "person" and not alive)
    if look.state != STOPPED:
        return look
    return look._replace(stop_reason=stop_words(run, when.boot), detail=file_tail(f"{directory}/run.log", redact, 6))


# ==== ENGINE =============================================================
# Decisions become deeds.  Each piece of work is a flow: a generator that yields what it needs and is
# sent the answer, so that it reads from top to bottom while hundreds of them run side by side:
#
#   outcome = yield Command(…)        run this; its Outcome
#   result  = yield Change(function)  apply this to the state; its result, once that is durable
#   yield Turn()                      wait until fewer than `parallel` flows are at work
#   yield Pause(seconds)
#
# Every flow that starts something saves the intention first, acts, and saves the result.

CHANGE_WAIT = 1.0  # seconds that a change may wait for others to share its transaction
ROUND = 5.0  # seconds after which what is known is delivered although something still runs
DELIVERY_BUDGET = 30.0  # seconds of a tick within which another send may begin
OPENCLAW_TIMEOUT = 90.0
REFUSAL = 6 * HOUR  # a receiver that refused for good is left alone for so long
SENDING_LIMIT = 300.0  # seconds after which whoever holds the delivery lock does not send any more: it was stopped, or hangs
STATE_LOST_PAUSE = 50.0  # seconds after a lost state in which nothing is resumed


class Change(NamedTuple):
    apply: Callable[[State], Any]
    urgent: bool = False  # do not wait for others


class Turn(NamedTuple):
    pass


class Pause(NamedTuple):
    seconds: float


def asking(request: Any) -> Flow:
    """A flow that is one request."""
    return (yield request)


def digest_of(value: Any) -> str:
    import hashlib  # dear: only where something is compared by content

    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Site:
    """One installation as this process serves it: config, state, clock, receiver, language."""

    def __init__(self, config: Config, config_file: str, store: Store, env: dict, home: str, openclaw_dirs: Any):
        self.config = config
        self.config_file = config_file
        self.store = store
        self.clock = store.clock
        self.env = env
        self.home = home
        self.child_env = child_environment(env, home, {})  # of every job that declares nothing
        self.dirs = openclaw_dirs
        self.redact = Redactor(secret_values(env))
        self.pool = Pool(config.monitor.parallel, self.clock.now)
        self.target = ""  # --target
        self.call = ("ops-monitor.py", "")  # how a person calls this program: before and after the command
        self.sent = 0  # messages of this tick
        self.called_openclaw = False  # in this tick: it takes up to 90 s
        self.progress: dict = {}  # job id -> progress at this tick's look
        self.printed: Optional[list] = None  # --print-only: sections go here instead of the outbox
        self.receiver: Any = None  # found when first needed
        self.config_risk = ""  # why writes must not be run from this config: others could have written it
        self.verifies: dict = {}  # check -> {write that it verifies: its number among the verifications there}
        for job in config.jobs.values():
            if job.env:
                self.redact.learn(secret_values(job.env))
            for number, after in enumerate(verifications(job, config.jobs) if job.kind == WRITE else (), 1):
                self.verifies.setdefault(after.job_id, {}).setdefault(job.id, number)

    @property
    def lang(self) -> str:
        return self.config.monitor.language

    def directory(self, job: Any) -> str:
        """The job's working directory, absolute."""
        return os.path.join(self.dirs.ours_dir, expand_home(job.cwd or self.dirs.ours_dir, self.home))

    def environment(self, job: Any) -> dict:
        return {**self.child_env, **job.env} if job.env else self.child_env

    def fingerprint(self, job: Any) -> str:
        """Tells one start command from another."""
        return digest_of([job.commands.start, self.directory(job), job.env])

    @property
    def host(self) -> str:
        return self.redact(self.config.monitor.host)

    def say(self, key: str, **facts: Any) -> str:
        return say(self.lang, key, **facts)

    def words(self, phrase: Phrase) -> str:
        """A phrase as a person may see it."""
        return self.redact(phrase_text(self.lang, phrase))

    def advise(self, command: str, job_id: str = "", *flags: str) -> str:
        """The next command to type."""
        before, after = self.call
        if job_id.startswith("-"):  # it must not be taken for an option
            return " ".join([before, command, *flags]) + f"{after} -- {shell_word(job_id)}"
        return " ".join([before, command, *([shell_word(job_id)] if job_id else []), *flags]) + after


class Driver:
    """Runs flows side by side: commands in the pool, changes in shared transactions."""

    def __init__(self, site: Site):
        self.site = site
        self.alive = 0  # flows that have not ended
        self.results: dict = {}  # flow -> what it returned
        self.ready: list = []  # (flow, value to send)
        self.changes: list = []  # (flow, Change), waiting for their transaction
        self.commit_at = float("inf")  # when the first of them has waited long enough
        self.sleeping: list = []  # (until, flow)
        self.turns: list = []  # flows that wait for their turn
        self.working: set = set()  # flows that have one and whose command has not ended

    def add(self, flow: Flow) -> Flow:
        self.ready.append((flow, None))
        self.alive += 1
        return flow

    def run(self, seconds: float = float("inf"), until: Optional[Flow] = None) -> None:
        """Go on until every flow has ended, or `until` has, or for about `seconds`."""
        stop_at = time.monotonic() + seconds
        try:
            while self.alive and until not in self.results:
                self._advance()
                self._commit_if_due()
                if self.ready or until in self.results:
                    continue
                if time.monotonic() >= stop_at:
                    return
                self._wait(stop_at)
        except BaseException:  # interrupted, or the state cannot be saved: leave no child behind
            self.site.pool.end_all()
            raise

    def finish(self, flow: Flow) -> Any:
        """Run this flow to its end, the others beside it; what it returned."""
        self.run(until=self.add(flow))
        return self.results[flow]

    def _advance(self) -> None:
        while self.ready:
            flow, value = self.ready.pop(0)
            try:
                request = flow.send(value)
            except StopIteration as end:
                self.results[flow] = end.value
                self.working.discard(flow)
                self.alive -= 1
                continue
            if isinstance(request, Command):
                self.site.pool.add(request, flow)
            elif isinstance(request, Change):
                self.changes.append((flow, request))
                self.commit_at = min(self.commit_at, time.monotonic() + (0.0 if request.urgent else CHANGE_WAIT))
            elif isinstance(request, Turn):
                self.turns.append(flow)
            else:
                self.sleeping.append((time.monotonic() + request.seconds, flow))
        while self.turns and len(self.working) < self.site.pool.parallel:
            flow = self.turns.pop(0)
            self.working.add(flow)
            self.ready.append((flow, None))

    def _commit_if_due(self) -> None:
        if self.ready or not self.changes or self.site.pool.busy and time.monotonic() < self.commit_at:
            return
        batch, self.changes, self.commit_at = self.changes, [], float("inf")
        results = self.site.store.change(*[change.apply for _, change in batch])
        self.ready += [(flow, result) for (flow, _), result in zip(batch, results)]

    def _wait(self, until: float) -> None:
        wake = min(until, self.commit_at, *(at for at, _ in self.sleeping))
        left = max(0.0, min(wake - time.monotonic(), 3600.0))
        if self.site.pool.busy:
            for flow, outcome in self.site.pool.wait(left):
                self.working.discard(flow)
                self.ready.append((flow, outcome))
        elif self.sleeping:
            time.sleep(left)
        moment = time.monotonic()
        self.ready += [(flow, None) for at, flow in self.sleeping if at <= moment]
        self.sleeping = [(at, flow) for at, flow in self.sleeping if at > moment]


# ---- effects: what a decision brings about, inside the transaction that saves it


def new_id() -> str:
    return os.urandom(6).hex()


def name_of_job(site: Site, job_id: str) -> str:
    job = site.config.jobs.get(job_id)
    return site.redact(job.name) if job else job_id


def dropped_count(state: State) -> int:
    """Alerts that the outbox had no room for; the next message counts them."""
    count = state.raw.get("dropped")
    return count if type(count) is int and count > 0 else 0


def has_expired(entry: dict, now: float) -> bool:
    alert_until = max(entry["notBefore"], entry["createdAt"]) + 7 * DAY
    return now > (alert_until if entry["rank"] else entry["notBefore"] + HOUR)


def trim_outbox(state: State) -> None:
    """Drop what has expired, and beyond the limit the oldest of the least important."""
    kept = [entry for entry in state.outbox if not has_expired(entry, state.now)]
    spare = len(kept) - OUTBOX_LIMIT
    if spare > 0:
        kept.sort(key=lambda entry: (entry["rank"], entry["createdAt"]))
        state.raw["dropped"] = dropped_count(state) + sum(entry["rank"] >= WARN for entry in kept[:spare])
        del kept[:spare]
    state.raw["outbox"] = kept


# Kind of incident -> the command to type on hearing of it.
ADVICE = {
    "stopped": "start", "verification": "explain", "outcome": "explain", "unknown": "explain", "stalled": "explain", "level": "explain",
    "failed": "explain", "attention": "explain", "flapping": "explain", "blocked": "status", "config": "validate-config", "state": "doctor",
}  # fmt: skip


def advice_on(site: Site, job_id: str, told: Notify) -> str:
    """The command to type on hearing of this; '' = there is none."""
    job, command = site.config.jobs.get(job_id), ADVICE.get(told.kind, "")
    if job and (told.kind == "blocked" and job.kind == WRITE or command == "start" and (job.risk != READ_ONLY or told.phrase.key == "stopped.changed")):
        command = "explain"  # a plain `start` would be refused
    if command == "explain" and not job:  # of what has left the config, history alone can be asked
        command = "history"
    return site.advise(command, job_id if command in ("start", "explain", "history") else "") if command else ""


def tell(site: Site, state: State, job_id: str, effect: Notify) -> None:
    """Put one section into the outbox; it takes the place of an older one about the same."""
    name = name_of_job(site, job_id) if job_id else site.say("name.monitor")
    text = site.redact(section_text(site.lang, name, job_id, effect, site.clock.text, advice_on(site, job_id, effect)))
    state.record("told", job_id, kind=effect.kind, telling=effect.telling, text=one_line(text, 300))
    entry: dict = {"id": new_id(), "createdAt": state.now, "notBefore": state.now, "rank": effect.rank, "text": text}
    if site.printed is not None:
        site.printed.append(entry)
        return
    about = [] if effect.telling in ("told", "autorun") else [job_id, effect.kind]
    entry["about"] = [] if effect.telling == "completed" else about  # no later news takes the place of a completion
    older = [old for old in state.outbox if about and old.get("about") == about]
    if any(map(may_be_sent, older)):
        entry["maybeSent"] = True
    if effect.telling == "resolved" and older:
        key = "line.maybe_queued" if "maybeSent" in entry else "line.was_queued"
        entry["text"] += "\n" + site.say(key, time=site.clock.text(older[0]["createdAt"]))
    refused = max((old for old in state.outbox if old.get("refusedBy")), key=lambda old: old["notBefore"], default=entry)
    if refused["notBefore"] > state.now:  # whom the receiver has refused for long is not asked again for this one
        entry.update(notBefore=refused["notBefore"], wait=refused["notBefore"] - state.now, refusedBy=refused["refusedBy"])
    state.raw["outbox"] = [old for old in state.outbox if old not in older] + [entry]
    trim_outbox(state)


def enqueue(state: State, job_id: str, delay: float, by: str) -> dict:
    entry = {
        "id": new_id(), "jobId": job_id, "notBefore": state.now + delay, "status": "pending",
        "attempt": 0, "createdAt": state.now, "by": by,
    }  # fmt: skip
    state.queue.append(entry)
    state.record("queued", job_id, by=by, delay=delay)
    return entry


def enqueue_after(state: State, job_id: str, delay: float, ended: str) -> None:
    """Queue what follows on the end of a job; one that ends faster than its follower runs must not fill the queue."""
    by = f"after {ended}"
    waiting = [entry for entry in state.queue if (entry.get("jobId"), entry.get("by"), entry.get("status")) == (job_id, by, "pending")]
    if len(waiting) < PENDING_MOST:
        enqueue(state, job_id, delay, by)


def perform(site: Site, state: State, job_id: str, decision: Decision) -> None:
    """Remember, and bring about every effect that lives in the state; of a job that is muted nothing is told, whoever decided."""
    if decision.memory.muted_for:
        decision = hold_muted(decision, site.clock.now())
    state.remember(job_id, decision.memory)
    for effect in decision.effects:
        if isinstance(effect, Notify):
            tell(site, state, job_id, effect)
        elif isinstance(effect, Enqueue):
            enqueue_after(state, effect.job_id, effect.delay, job_id)


# ---- looking


def job_command(site: Site, job: Any, argv: list, timeout: float, **more: Any) -> Command:
    return Command(argv, site.directory(job), site.environment(job), timeout, **more)


def look_at(site: Site, job: Any) -> Flow:
    """One observation of a long job, now."""
    if job.managed:
        known = site.store.view().memory(job.id)
        return managed_look(site.store.job_dir(job.id), site.clock.now(), site.redact, site.fingerprint(job), known)
    outcome = yield job_command(site, job, job.commands.status, job.policy.status_timeout_seconds, head=STATUS_LIMIT + 1, marker=new_id(), is_look=True)
    return read_status(outcome, site.redact)


def is_configured(site: Site, job_id: str) -> bool:
    return job_id in site.config.jobs or job_id in site.config.broken


def is_orphan(site: Site, job_id: str) -> bool:
    """Whether a managed job runs although the config no longer has it, or not as a managed one."""
    job = site.config.jobs.get(job_id)
    if job_id in site.config.broken or job and job.managed:
        return False
    return managed_look(site.store.job_dir(job_id), site.clock.now(), site.redact, "").state == RUNNING


def decide_now(site: Site, state: State, job: Any, look: Observation) -> Decision:
    if look.state == STOPPED and not job.managed and object_at(state.jobs, job.id).get("run") and is_orphan(site, job.id):
        look = look._replace(orphaned=True)
    recovered: Any = state.raw.get("recoveredAt")
    state_lost = is_number(recovered) and 0 <= state.now - recovered < STATE_LOST_PAUSE
    return decide_long(job, look, state.memory(job.id), site.clock.now(), state_lost)


def settle_look(site: Site, state: State, job: Any, look: Observation) -> Decision:
    decision = decide_now(site, state, job, look)
    perform(site, state, job.id, decision)
    return decision


def is_resuming(decision: Decision) -> bool:
    return any(isinstance(effect, Resume) for effect in decision.effects)


# ---- a job's lock: whoever starts, stops or runs it holds that


def try_job_lock(site: Site, job: Any, seconds: float = 0.0) -> Any:
    """The job's lock as a file, dated for as long as its work may take; None if another process holds it for so long."""
    policy = job.policy
    long = policy.status_timeout_seconds + policy.stop_timeout_seconds + policy.start_timeout_seconds
    return site.store.lock(slug(job.id), seconds, 2 * MINUTE + (long if job.kind == LONG_READ else run_timeout(job)))


def job_lock(site: Site, job: Any, seconds: float, doing: str = "run by another process", advice: str = "status") -> Any:
    """The same for a person, who waits for it.  Raises BusyError."""
    lock = try_job_lock(site, job, seconds)
    if lock is None:
        raise BusyError(f"job '{job.id}' is being {doing}", site.advise(advice, job.id))
    return lock


def settle_lock(site: Site, state: State, job: Any, overdue: float) -> None:
    """Tell that whoever holds the job's lock should have ended long ago; `overdue` 0: it is free again."""
    words = Phrase("busy", {"for": duration_text(overdue), "command": "lsof " + shell_word(site.store.lock_path(slug(job.id)))})
    now, finding = site.clock.now(), Finding("busy", ALERT, words) if overdue else None
    policy = job.policy._replace(alert_after=max(2, job.policy.alert_after))  # once may be the end of a sleep
    perform(site, state, job.id, judge_incidents(policy, {"busy": finding}, state.memory(job.id), now))


def is_said_busy(site: Site, job: Any) -> bool:
    """Whether its lock was overdue when it was last wanted."""
    return "busy" in object_at(site.store.view().jobs.get(job.id), "incidents")


def under_lock(work: Callable[..., Flow]) -> Callable[..., Flow]:
    """The same flow under the job's lock; nothing happens while another process holds it, but if that lasts a person is told."""

    def locked(site: Site, job: Any, *more: Any) -> Flow:
        lock = try_job_lock(site, job)
        if lock is None:
            overdue = site.store.overdue(slug(job.id))
            if overdue:
                yield Change(lambda state: settle_lock(site, state, job, overdue))
            return
        with lock:
            if is_said_busy(site, job):
                yield Change(lambda state: settle_lock(site, state, job, 0.0))
            yield from work(site, job, *more)

    return locked


@under_lock
def look_at_lock(site: Site, job: Any) -> Flow:
    """Nothing but the lock: is it free again?"""
    yield from ()


# ---- starting and stopping


def begin_resume(site: Site, state: State, job: Any, look: Observation, marker: str) -> Optional[Decision]:
    """Decide again under the job's lock; the intention if it still is to be resumed."""
    decision = settle_look(site, state, job, look)
    if not is_resuming(decision):
        return None
    begun = begin_attempt(job, look, decision.memory, site.clock.now(), marker)
    perform(site, state, job.id, begun)
    state.record("resume", job.id, attempt=begun.memory.attempts, action=begun.memory.action)
    return begun


def start_output(site: Site, job: Any, outcome: Optional[Outcome]) -> str:
    """The last lines that `start` printed."""
    if job.managed:
        return last_lines(site.redact.read(outcome.err)) if outcome else ""
    return file_tail(f"{site.store.job_dir(job.id)}/start.log", site.redact)


def settle_start(site: Site, state: State, job: Any, outcome: Optional[Outcome]) -> None:
    """The result of an automatic start; a failed one is told with its last output."""
    memory = end_action(state.memory(job.id))
    phrase = outcome_phrase(outcome) if outcome else Phrase("stop.failed")
    state.record("start failed" if phrase else "started", job.id, reason=phrase_text("en", phrase) if phrase else "")
    effects: tuple = ()
    if phrase:
        words = Phrase("start.failed", {"why": site.words(phrase)})
        effects = (Notify("start", "told", NOTICE, words, start_output(site, job, outcome)),)
    perform(site, state, job.id, Decision(memory, effects))


def file_size(path: str) -> int:
    """Bytes in a file; 0 if there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


START_LOG_LIMIT = 2 << 20


def prepare_job_dir(site: Site, job: Any) -> str:
    """The job's own directory, its id written inside.  An OSError names it."""
    directory = site.store.job_dir(job.id)
    log = f"{directory}/start.log"
    try:
        make_private_dir(directory)
        if not os.path.exists(f"{directory}/id"):
            write_private(f"{directory}/id", os.O_TRUNC, job.id)
        if file_size(log) > START_LOG_LIMIT:
            reach("replace")
            os.replace(log, log + ".1")
    except OSError as error:
        error.filename = error.filename or directory
        raise
    return directory


def last_attempt(directory: str) -> int:
    """The number of the latest attempt of a managed job; 0 = none is known."""
    try:
        return (read_run(directory) or Run()).attempt
    except ValueError:
        return 0


def set_checkpoint_aside(checkpoint: str) -> None:
    """Keep the last checkpoint as `checkpoint.old`; one older than that goes."""
    import shutil  # rare: a job that begins anew

    reach("unlink")
    shutil.rmtree(checkpoint + ".old", ignore_errors=True)
    reach("replace")
    os.replace(checkpoint, checkpoint + ".old")


def managed_command(site: Site, job: Any, directory: str, marker: str, is_fresh: bool) -> Command:
    """The command that starts a managed job: its supervisor, told all that it needs to know."""
    checkpoint, progress = f"{directory}/checkpoint", f"{directory}/progress.json"
    attempt = 1 if is_fresh else last_attempt(directory) + 1
    if is_fresh:
        remove_quietly(f"{directory}/run.json")  # first: should this start fail, the next one begins anew too
        if os.path.isdir(checkpoint):
            set_checkpoint_aside(checkpoint)
    make_private_dir(checkpoint)
    if attempt == 1:
        remove_quietly(progress)
    argv, cwd = job.commands.start, site.directory(job)
    env = {
        **site.environment(job), "OPS_JOB_ID": job.id, "OPS_CHECKPOINT_DIR": checkpoint, "OPS_PROGRESS_FILE": progress,
        "OPS_ATTEMPT": str(attempt), "OPS_RESUME": str(int(attempt > 1)),
    }  # fmt: skip
    env.pop(RUN_MARK, None)  # of a job that called `start`: its end must not be that of our supervisor
    head = {"version": 1, "jobId": job.id, "run": marker, "command": site.fingerprint(job), "attempt": attempt, "boot": site.clock.boot}
    try:
        program = find_executable(argv[0], env["PATH"], cwd)
    except OSError:
        program = argv[0]  # the supervisor says what is wrong with it
    mark = {RUN_MARK: marker}  # of the job alone: what ends its processes must not end the supervisor
    return supervisor_command(
        job.id, cwd, env, job.policy.start_timeout_seconds,
        directory=directory, program=program, argv=argv, mark=mark, head=json.dumps(head)[:-1],
    )  # fmt: skip


def start_or_say(site: Site, job: Any, marker: str, is_fresh: bool) -> Flow:
    """Start a long job, its output in the job's log; a place that cannot be made is an Outcome too."""
    try:
        directory = prepare_job_dir(site, job)
        if job.managed:
            command = managed_command(site, job, directory, marker, is_fresh)
        else:
            command = job_command(site, job, job.commands.start, job.policy.start_timeout_seconds, marker=marker, log=f"{directory}/start.log")
    except OSError as error:
        now = site.clock.now()
        return Outcome(now, now, failure=Phrase("run.cannot", {"program": error.filename or job.commands.start[0], "error": os_words(error)}))
    return (yield command)


def end_marked(run: str, patience: float) -> Flow:
    """The same where no record tells the leader: what carries the mark of the run; False if nothing did."""
    was_there = bool(marked_processes(run))
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, GRACE)):
        until = time.monotonic() + seconds
        for pid in marked_processes(run):
            end_one(pid, number)
        while time.monotonic() < until and marked_processes(run):
            yield Pause(0.1)
    return was_there


def end_managed(site: Site, job_id: str, patience: float, who: str = "person") -> Flow:
    """TERM to the job's group, `patience` seconds, KILL; False if nothing of it was alive."""
    directory, boot = site.store.job_dir(job_id), site.clock.boot
    try:
        run = read_run(directory)
    except ValueError as error:
        raise OpsError(f"{directory}/run.json cannot be read: {error}", "cat " + shell_word(f"{directory}/run.json")) from None
    held = is_lock_held(directory)
    if run is None and held:
        raise OpsError(f"{directory}/run.json is missing: it cannot be told which process is '{job_id}'", f"lsof {shell_word(directory)}/run.lock")
    if run is None:
        known = site.store.view().memory(job_id)
        return (yield from end_marked(known.run, patience)) if known.run and known.state == RUNNING else False
    if not (held or is_alive(run, boot)):
        return False
    if run.exit_code is None:
        try:
            write_private(f"{directory}/stopped", os.O_TRUNC, f"{run.run} {who}")
        except OSError:
            pass  # a full disk must not keep it running
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, GRACE)):
        until, leads, others_know = time.monotonic() + seconds, is_alive(run, boot), False
        if leads:
            end_group(run.pid, number)
        while time.monotonic() < until:
            leads = leads and is_alive(run, boot)
            if not leads and not is_lock_held(directory):
                return True
            if not others_know and (number == signal.SIGKILL or not leads):  # what left the group: its leader has the first word
                others_know = True
                for pid in marked_processes(run.run):
                    end_one(pid, number)
            yield Pause(0.05)
    if not is_alive(run, boot):
        return True
    remove_quietly(f"{directory}/stopped")  # it goes on, and may still complete
    return False


def end_job(site: Site, job: Any) -> Flow:
    """Stop a long job; True once it is known to have ended or its stop command succeeded."""
    if job.managed:
        return (yield from end_managed(site, job.id, job.policy.stop_timeout_seconds, "tick"))
    if not job.commands.stop:
        return False
    outcome = yield job_command(site, job, job.commands.stop, job.policy.stop_timeout_seconds, marker=new_id())
    return outcome.is_good


@under_lock
def resume_job(site: Site, job: Any) -> Flow:
    """An automatic start: lock, look again, decide again, save the intention, act, save the result."""
    look = yield from look_at(site, job)
    marker = new_id()
    begun = yield Change(lambda state: begin_resume(site, state, job, look, marker))
    if not begun:
        return
    may_start = begun.memory.action == "start" or (yield from end_job(site, job))
    outcome = (yield from start_or_say(site, job, marker, is_fresh=False)) if may_start else None
    yield Change(lambda state: settle_start(site, state, job, outcome))


def watch_job(site: Site, job: Any) -> Flow:
    """A tick's work on one long job."""
    look = yield from look_at(site, job)
    site.progress[job.id] = look.progress
    decision = yield Change(lambda state: settle_look(site, state, job, look))
    if is_resuming(decision):
        yield from resume_job(site, job)
    elif "busy" in decision.memory.incidents:
        yield from look_at_lock(site, job)


# ---- plans: everything that decides what a write will do, as it is at one moment


HASHED_UP_TO = 256 << 20  # bytes of a file that are bound by content; larger ones by inode, size and mtime
FIXED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"  # of writes and verifications


def fixed_environment(job: Any) -> dict:
    """The environment of writes and verifications, whoever calls: nothing of the caller's bends them."""
    user = user_name(os.geteuid())
    return {"PATH": FIXED_PATH, "HOME": home_directory({}), "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", **job.env}


class Plan(NamedTuple):
    """Everything that decides what a write will do."""

    items: dict  # label -> what is bound under it, as text
    loose: tuple  # labels of what is named but not bound by content
    problem: str = ""  # something exists and cannot be read: no approval

    @property
    def digest(self) -> str:
        return digest_of(self.items)


NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


def file_item(path: str) -> str:
    """What binds a file: its content, or what stands for it.  Raises OSError if it cannot be read."""
    import hashlib

    try:
        found = os.stat(path)
    except ValueError:
        return "absent"
    except OSError as error:
        if error.errno in NO_FILE:
            return "absent"
        raise
    if stat.S_ISDIR(found.st_mode):
        return f"directory {os.path.realpath(path)}, contents not bound"
    if not stat.S_ISREG(found.st_mode):
        return f"special file {stat.S_IFMT(found.st_mode):o} {found.st_rdev}, contents not bound"
    if found.st_size > HASHED_UP_TO:
        return f"large file inode {found.st_ino} size {found.st_size} mtime {found.st_mtime_ns} {os.path.realpath(path)}"
    total = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not os.path.samestat(found, os.fstat(file.fileno())):
            raise OSError(errno.EAGAIN, "was replaced while it was read", path)
        try:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                total.update(chunk)
        except OSError as error:
            error.filename = error.filename or path
            raise
    return f"sha256 {total.hexdigest()} {os.path.realpath(path)}"


def command_items(site: Site, job: Any, prefix: str) -> Iterator[tuple]:
    """(label, text) of one job's command: argv, program, operands, cwd, declared environment."""
    argv, cwd = job.commands.run, site.directory(job)
    yield prefix + "argv", json.dumps(argv, ensure_ascii=False)
    program = find_executable(argv[0], job.env.get("PATH", FIXED_PATH), cwd)
    yield prefix + "program", f"{program} {file_item(program)}"
    for word in argv[1:]:
        for operand in {word, word.partition("=")[2]} - {""}:
            item = file_item(os.path.join(cwd, operand))
            if item != "absent" or not re.search(r"\s", operand):  # a script's text is in argv already
                yield f"{prefix}file {operand}", item
    yield prefix + "cwd", f"{cwd} {file_item(cwd)}"
    for name, value in sorted(job.env.items()):
        yield f"{prefix}env {name}", value


def make_plan(site: Site, job: Any) -> Plan:
    """The plan of a write at this moment."""
    items = {"risk": job.risk, "job": job.id, "via": job.approval.via if job.approval else "local"}
    problem = ""
    parts: list = [(job, "", {})]
    for number, after in enumerate(verifications(job, site.config.jobs), 1):
        name = f"verification {number}"
        parts.append((site.config.jobs[after.job_id], name + ": ", {name: f"{after.job_id} (when {after.when}, delay {after.delay_seconds:g} s)"}))
    for part, prefix, title in parts:
        items.update(title)
        try:
            items.update(command_items(site, part, prefix))
        except OSError as error:
            problem = problem or f"{error.filename or part.commands.run[0]}: {os_words(error)}"
    loose = tuple(label for label, text in items.items() if text.endswith("contents not bound") or text.startswith("large file"))
    return Plan(items, loose, problem)


def remembered(plan: Plan, salt: str, prefix: str = "") -> dict:
    """Label -> salted hash of what a plan binds, for the state: no value and no operand that is not a file."""
    import hashlib

    return {
        label: hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest()[:24]
        for label, text in plan.items.items()
        if text != "absent" and label.startswith(prefix)
    }


# ---- one-shot reads


def run_command(site: Site, job: Any, marker: str) -> Command:
    """The command of a one-shot read.  A verification gets a fixed environment, whoever calls."""
    env = fixed_environment(job) if job.id in site.verifies else site.environment(job)
    return Command(job.commands.run, site.directory(job), env, run_timeout(job), marker=marker, patterns=tuple(job.policy.attention_patterns))


def id_of_entry(entry: dict) -> str:
    """The id of a queue entry; '' if somebody else wrote it and gave it none."""
    return entry["id"] if isinstance(entry.get("id"), str) else ""


def queue_entry(state: State, entry_id: str) -> Optional[dict]:
    return next((entry for entry in state.queue if entry_id and entry.get("id") == entry_id), None)


def finish_entry(state: State, entry_id: str, outcome: Optional[Outcome]) -> None:
    entry = queue_entry(state, entry_id)
    if entry:
        entry.update(status="done", doneAt=state.now)
        if outcome:
            entry["exitCode"] = outcome.code


def may_run_again(site: Site, state: State, job: Any, memory: Memory) -> bool:
    """Tell that a run has no result; whether it is run once more."""
    again = memory.action_tries < 2 and (bool(memory.action_entry) or job.enabled)
    row = "interrupted.again" if again else "interrupted" if memory.action_tries > 1 else "interrupted.off"
    words = Phrase(row, {"time": site.clock.text(memory.action_at)})
    state.record("interrupted", job.id, again=again)
    if not again:
        finish_entry(state, memory.action_entry, None)
        memory = end_action(memory)
    effect = Notify("interrupted", "told", WARN if again else ALERT, words)
    perform(site, state, job.id, Decision(memory, (effect,)))
    return again


def begin_run(site: Site, state: State, job: Any, entry_id: str, marker: str) -> bool:
    """The intention to run, under the job's lock; False if there is nothing to run any more."""
    now, memory, tries = site.clock.now(), state.memory(job.id), 1
    if memory.action == "run":
        entry_id, tries = memory.action_entry, memory.action_tries + 1
        if not may_run_again(site, state, job, memory):
            return False
    entry = queue_entry(state, entry_id)
    if entry_id and (entry is None or entry.get("status") not in ("pending", "running")):
        state.remember(job.id, end_action(memory))
        return False
    if not entry and tries == 1 and due_reason(job, memory, now).key not in ("due.first", "due.now"):
        return False
    taken = take_slot(job, memory, now, marker, tries)
    if entry:  # what is queued takes no slot
        entry.update(status="running", attempt=tries)
        taken = taken._replace(slot_at=memory.slot_at, anchor_at=memory.anchor_at)
    state.remember(job.id, taken._replace(action_entry=entry_id))
    return True


def settle_gate(site: Site, state: State, job: Any) -> None:
    """Tell what is wrong with a write that has run: unknown outcome, failed or missing verification."""
    findings = gate_findings(state.gate(job.id), state.now)
    perform(site, state, job.id, judge_write(job.policy, findings, state.memory(job.id), site.clock.now()))


def forget_blocked(state: State, job_id: str) -> None:
    """What was blocked is answered: nothing to resolve, nothing to say."""
    memory = state.memory(job_id)
    incidents = dict(memory.incidents)
    if incidents.pop("blocked", None):
        state.remember(job_id, memory._replace(incidents=incidents))


def plans_to_verify(site: Site, check: Any) -> dict:
    """Write -> its plan now, of those that wait for this check; hashed here, because no transaction may last so long."""
    state = site.store.view() if check.id in site.verifies else None
    waiting = [job_id for job_id in site.verifies.get(check.id, ()) if state and state.gate(job_id).verify in UNVERIFIED]
    return {job_id: make_plan(site, site.config.jobs[job_id]) for job_id in waiting}


def settle_verifications(site: Site, state: State, check: Any, outcome: Outcome, plans: dict) -> None:
    """What the run of a check means for the writes that it verifies."""
    for job_id, plan in plans.items():
        job, before, number = site.config.jobs[job_id], state.gate(job_id), site.verifies[check.id][job_id]
        if before.verify not in UNVERIFIED:
            continue
        own = f"verification {number}: "
        now = remembered(plan, before.verify_salt, own)
        same = all(now.get(label) == value for label, value in before.verify_items.items() if label.startswith(own))
        gate = verified(before, check.id, outcome.began.at, outcome.is_good and not outcome.attention, same)
        if gate != before:
            state.keep_gate(job_id, gate)
            if gate.verify == "passed":
                forget_blocked(state, job_id)
            state.record("verification", job_id, by=check.id, result=gate.verify, run=gate.run_id)
            settle_gate(site, state, job)


def settle_run(site: Site, state: State, job: Any, outcome: Outcome, plans: dict, by: str = "") -> Decision:
    """The result of a one-shot read, its telling, and what it queues."""
    memory = state.memory(job.id)
    by_whom = by or ("queue" if memory.action_entry else "schedule")
    decision = decide_run(job, outcome, memory, site.clock.now(), site.redact, by_whom == "schedule")
    if by:  # a run by hand is not the result of another run's intention
        kept = {name: getattr(memory, name) for name in Memory._fields if name.startswith("action")}
        decision = decision._replace(memory=decision.memory._replace(**kept))
    else:
        finish_entry(state, memory.action_entry, outcome)
    perform(site, state, job.id, decision)
    settle_verifications(site, state, job, outcome, plans)
    state.record("run", job.id, code=outcome.code, seconds=round(outcome.ended.awake - outcome.began.awake, 3), by=by_whom)
    return decision


@under_lock
def run_due(site: Site, job: Any, entry_id: str) -> Flow:
    """Intention, run, result of a read that has its turn."""
    left = site.store.view().memory(job.id)
    living = marked_processes(left.action_id) if left.action == "run" else []
    if living and is_acting(left, site.clock.now()):
        return  # its tick died, the run itself still lives
    for pid in living:  # beyond its timeout, and nobody else ends it
        end_one(pid, signal.SIGKILL)
    marker = new_id()
    if (yield Change(lambda state: begin_run(site, state, job, entry_id, marker))):
        outcome = yield run_command(site, job, marker)
        plans = plans_to_verify(site, job)
        yield Change(lambda state: settle_run(site, state, job, outcome, plans))


def run_check(site: Site, job: Any, entry_id: str = "") -> Flow:
    """A tick's run of a scheduled or queued read."""
    yield Turn()
    yield from run_due(site, job, entry_id)


def has_to_say(job: Any, memory: Memory, now: Instant) -> bool:
    """Whether a check that is not run now has something to say all the same: the end of its mute, a reminder."""
    return bool(memory.muted_for and not is_muted(memory, now) or memory.incidents and remind(job, memory, now).effects)


def speak_between(site: Site, job: Any) -> Flow:
    """A check is not looked at between its runs: a tick ends its mute, sums it up, and reminds."""

    yield Change(lambda state: perform(site, state, job.id, remind(job, state.memory(job.id), site.clock.now())))


def refuse_entry(site: Site, entry: dict) -> Flow:
    """A queued job that may not run: said, and done with.  One without an id gets one in this tick, and its turn in the next."""

    def apply(state: State) -> None:
        stored = queue_entry(state, id_of_entry(entry))
        if not stored or stored.get("status") != "pending":
            return
        job_id = str(entry.get("jobId"))
        job, shown = site.config.jobs.get(job_id), site.redact.tidy(job_id)
        stored.update(status="blocked", doneAt=state.now, jobId=shown)
        words = Phrase("blocked.queue", {"job": shown, "kind": job.kind}) if job else Phrase("blocked.unknown", {"job": shown})
        tell(site, state, shown, Notify("blocked", "told", ALERT, words))
        state.record("blocked", shown, by=entry.get("by") or "queue")

    yield Change(apply)


# ---- writes, as far as a tick has to do with them


def notice_lost(state: State, job: Any) -> Gate:
    """What is remembered of a write; a run that ended unseen is noted first.

    Asked under the job's lock: who began that run is gone; a daemon it left may live on.
    """
    gate = state.gate(job.id)
    if gate.run == "begun" and (state.now > gate.run_began_at + run_timeout(job) or not marked_processes(gate.run_id)):
        gate = gate._replace(run="unknown", run_ended_at=state.now)
        state.record("write outcome unknown", job.id, run=gate.run_id)
    state.keep_gate(job.id, gate)  # also: times that the clock has mended stay mended
    return gate


@under_lock
def watch_write(site: Site, job: Any) -> Flow:
    """A tick's work on one write: notice a lost run, an overdue verification.  It never runs one."""

    def apply(state: State) -> None:
        notice_lost(state, job)
        settle_gate(site, state, job)

    yield Change(apply)


# ---- the daily digest


def read_days(site: Site, since_at: float) -> tuple:
    """(what `days_of` gives, since when the history reaches back; 0.0 = far enough)."""
    path = site.store.history_path
    try:
        oldest = next((item["at"] for item in history_records(path)), since_at)
        days = days_of((item for item in history_records(path) if item["at"] >= since_at), since_at)
        return days, oldest if oldest > since_at and os.path.exists(path + ".1") else 0.0
    except OSError:  # a digest without it is better than none
        return {}, site.clock.now().at


def settle_digest(site: Site, state: State, days: dict, known_from: float) -> None:
    """Tell the daily digest if it still is due, and remember when, and where each job stood."""
    now, own, jobs = site.clock.now(), state.own_memory(), site.config.jobs.values()
    if digest_reason(site.config.monitor.digest_at, own.digest_at, now).key != "digest.now":
        state.remember_own(own._replace(digest_at=own.digest_at or last_digest_time(site.config.monitor.digest_at, now)))
        return
    since_at = own.digest_at or now.at - DAY
    shown = [job for job in jobs if job.enabled or job.kind == WRITE]
    items = [Summary(job, state.memory(job.id), state.gate(job.id), site.progress.get(job.id, {}), *days.get(job.id, ())) for job in shown]
    counts = {"digest.disabled": len(jobs) - len(shown), "digest.broken": len(site.config.broken)}
    notes = [site.say(key, count=count) for key, count in counts.items() if count]
    notes += [site.say("digest.partial", time=site.clock.text(known_from))] if known_from else []
    text = digest_text(site.lang, items, since_at, now.at, notes, site.advise("status"))
    troubled = sum(bool(open_troubles(item.memory)) for item in items)
    phrase = Phrase("digest", {"time": site.clock.text(since_at), "jobs": len(shown), "count": troubled, "lines": text})
    tell(site, state, "", Notify("digest", "digest", NOTICE, phrase))
    state.remember_own(own._replace(digest_at=now.at))
    for item in items:
        if item.progress:
            state.remember(item.job.id, item.memory._replace(digest_progress=small_progress(item.progress)))


def tell_digest(site: Site) -> None:
    """The monitor's own message of the day, once every job has been looked at."""
    wanted, own = site.config.monitor.digest_at, site.store.view().own_memory()
    if digest_reason(wanted, own.digest_at, site.clock.now()).key != "digest.told":
        days, known_from = read_days(site, own.digest_at or site.clock.now().at - DAY)  # no transaction may last that long
        site.store.change(lambda state: settle_digest(site, state, days, known_from))


def forget_digest(state: State) -> None:
    """Without digestAt nothing of it is kept: set again one day, it begins anew."""
    own = state.own_memory()
    if own.digest_at:
        state.remember_own(own._replace(digest_at=0.0))
        for raw in filter(object_at, state.jobs.values()):
            raw.pop("digestProgress", None)


# ---- delivery


class Receiver(NamedTuple):
    """Where and how a person is told."""

    ways: tuple = ()  # of `api`, `openclaw`, `command`, in the order to try
    chat: str = ""
    thread: str = ""
    channel: str = "telegram"
    account: str = ""
    token: str = ""
    root: str = ""
    proxy: str = ""
    binary: str = ""
    command: list = []
    problem: str = ""  # why there is no way, for a person
    advice: str = ""

    @property
    def identity(self) -> str:
        """Changes when something changes that a refusal may have depended on; holds no secret."""
        import zlib

        return format(zlib.crc32(repr((self.ways, self.channel, self.account, self.chat, self.thread, self.root, self.token, self.binary)).encode()), "08x")


def wanted_chat(site: Site, loaded: OpenClaw) -> tuple:
    """(what --target or delivery.target says, what that or else OpenClaw's config means on Telegram, None on another channel)."""
    delivery = site.config.delivery
    given = str(site.target or delivery.target or "")
    if delivery.channel != "telegram":  # a Telegram chat is nobody there
        return given, None
    return given, parse_target(given) if given else find_target(loaded, delivery.account)


def find_chat(site: Site, loaded: OpenClaw) -> tuple:
    """(chat, thread) of whom to tell; chat "" = nobody."""
    given, known = wanted_chat(site, loaded)
    last = object_at(site.store.view().raw, "receiver")
    if loaded.problems and not (known or given) and last.get("channel") == site.config.delivery.channel:
        known = str(last.get("target") or ""), last.get("threadId")  # while OpenClaw's config is broken: who was told last
    chat, thread = known[:2] if known else (given, "")
    moved = object_at(site.store.view().raw, "moved").get(chat)
    return moved if isinstance(moved, str) else chat, thread


def openclaw_binary(site: Site) -> str:
    return runnable("openclaw", site.child_env["PATH"])


def token_advice(token: Token, loaded: OpenClaw) -> str:
    """What gives us a bot token: where one is configured, or could not be read, that is to be mended."""
    where = loaded.path or "openclaw.json"
    if loaded.problems and not token.source and os.path.exists(loaded.path):
        return f"mend {loaded.problems[0]}"
    if token.source:
        return f"mend {token.source} in {where}" if "." in token.source else f"mend {token.source} in the environment or in .env beside {where}"
    return f"set channels.telegram.botToken in {where}; without OpenClaw: delivery.via command"


def no_way(delivery: Any, token: Token, loaded: OpenClaw) -> Receiver:
    """Why neither the Bot API nor `openclaw` can be used."""
    no_token = token.problem or "no bot token in OpenClaw's config" + "".join(f" ({problem})" for problem in loaded.problems[:1])
    is_beyond_api = delivery.channel != "telegram" or bool(token.value)
    if is_beyond_api:
        no_token = "the Bot API cannot be used with this channel or proxy"
    problems = {"api": no_token, "openclaw": "no openclaw program was found", "auto": f"{no_token}, and no openclaw program was found"}
    advice = "put openclaw on the PATH, or set delivery.via to auto" if delivery.via == "openclaw" else token_advice(token, loaded)
    if is_beyond_api and delivery.via != "openclaw":
        advice = "put openclaw on the PATH" if delivery.via == "auto" else "set delivery.via to auto"
    elif delivery.via == "auto" and token.source:  # it may be one that only openclaw can read
        advice += ", or put openclaw on the PATH"
    return Receiver(problem=problems[delivery.via], advice=advice)


def load_openclaw_of(site: Site, env: Optional[dict] = None) -> OpenClaw:
    """OpenClaw's config as it reads with this environment, without one with ours."""
    env = site.env if env is None else env
    return load_openclaw(site.dirs.config_file, env, lambda path: read_file(path).decode("utf-8-sig"), site.dirs.state_dir)


def find_receiver(site: Site) -> Receiver:
    """The receiver that config, command line and OpenClaw's config give."""
    delivery = site.config.delivery
    if delivery.via == "none":
        return Receiver(problem="delivery.via is none", advice="set delivery.via in the config")
    if delivery.via == "command" and not delivery.command:
        return Receiver(problem="delivery.command is missing", advice="add delivery.command to the config")
    if delivery.via == "command":
        return Receiver(("command",), command=delivery.command)
    loaded = load_openclaw_of(site)
    token = find_token(loaded, delivery.account, read_secret_file)
    if token.value:
        site.redact.learn([token.value])
    api = find_api(loaded, delivery.account)
    proxy = api.proxy or ""
    binary = openclaw_binary(site)
    possible = {"api": token.value and delivery.channel == "telegram" and not proxy.lower().startswith("socks"), "openclaw": binary}
    ways = tuple(way for way in possible if possible[way] and delivery.via in ("auto", way))
    if not ways:
        return no_way(delivery, token, loaded)
    chat, thread = find_chat(site, loaded)
    thread = str(delivery.thread_id or thread or "")
    receiver = Receiver(ways, chat, thread, delivery.channel, delivery.account or "", token.value or "", api.root, proxy, binary)
    return receiver if chat else receiver._replace(problem="no target", advice=f"set delivery.target in {site.config_file} to your chat id")


def read_api_answer(status: int, raw: bytes, redact: Redactor) -> Sent:
    """What the Bot API said."""
    try:
        answer = object_at(json.loads(raw))
    except (ValueError, RecursionError):
        answer = {}
    if answer.get("ok") is True:
        return Sent("sent") if status < 300 else Sent("unknown", f"HTTP {status} with ok")
    if answer.get("ok") is not False:
        return Sent("not_sent" if 300 <= status < 500 else "unknown", f"HTTP {status}, no answer of the Bot API")
    code = answer["error_code"] if is_number(answer.get("error_code")) else status
    detail = f"{code} {one_line(redact.tidy(str(answer.get('description') or '')), 100)}"
    parameters = object_at(answer, "parameters")
    moved: Any = parameters.get("migrate_to_chat_id")
    wait: Any = parameters.get("retry_after")
    if moved and isinstance(moved, (int, str)):
        return Sent("not_sent", detail, moved_to=str(moved))
    if is_number(wait) and wait > 0 and code < 500:
        return Sent("wait", detail, retry_after=min(float(wait), DAY))
    results = {400: "refused", 401: "refused", 403: "refused", 404: "refused", 429: "wait"}
    return Sent("unknown" if code >= 500 else results.get(code, "not_sent"), detail)


def ask_api(site: Site, receiver: Receiver, method: str, body: dict) -> tuple:
    """(Sent, what the Bot API answered as bytes) of one call of a method."""
    try:
        status, raw = post_json(f"{receiver.root}/bot{receiver.token}/{method}", body, receiver.proxy)
        return read_api_answer(status, raw, site.redact), raw
    except (Lost, OSError, ValueError) as error:
        return Sent("unknown" if isinstance(error, Lost) else "not_sent", one_line(site.redact(str(error)), 100)), b""


def chat_id(receiver: Receiver) -> Any:
    return int(receiver.chat) if re.fullmatch(r"-?\d+", receiver.chat) else receiver.chat


def send_api(site: Site, receiver: Receiver, message: Message) -> Flow:
    """sendMessage of the Bot API; decided on error_code, never on words."""
    body = {
        "chat_id": chat_id(receiver),
        "text": message.text,
        "disable_notification": not message.rings,
        "link_preview_options": {"is_disabled": True},
    }
    if receiver.thread.isdigit() and receiver.thread != "1":
        body["message_thread_id"] = int(receiver.thread)
    yield from ()  # a flow like the other ways, although it needs nothing from the driver
    began = time.monotonic()
    sent, _ = ask_api(site, receiver, "sendMessage", body)
    site.pool.forgive(time.monotonic() - began)
    return sent


MAYBE_SENT_WORDS = r"network request|delivered \d+ of"  # the gateway may go on with it; a part is there
NOT_SENT_WORDS = (
    "requires credentials|gateway not reachable|gateway is not running|econnrefused|unknown channel|unknown target|"
    "config(uration)? (is )?invalid|invalid config|token (is )?missing|missing token|no bot token|"
    "requires node|unsupported node|node\\.js v?\\d+.* (is )?required"
)


def openclaw_environment(site: Site, binary: str) -> dict:
    """The environment of a child `openclaw`; its own directories come first in PATH, for the Node that belongs to it."""
    env = child_environment(env_for_openclaw(site.env, site.dirs), site.home, {})
    return {**env, "PATH": ":".join([os.path.dirname(binary), os.path.dirname(os.path.realpath(binary)), env["PATH"]])}


def openclaw_argv(receiver: Receiver, text: str) -> list:
    given = {
        "--channel": receiver.channel, "--target": receiver.chat, "--message": text, "--account": receiver.account, "--thread-id": receiver.thread,
    }  # fmt: skip
    return [receiver.binary, "message", "send", *(word for pair in given.items() if pair[1] for word in pair)]


def send_openclaw(site: Site, receiver: Receiver, message: Message) -> Flow:
    """`openclaw message send`; only some of its failures say that nothing was sent."""
    site.called_openclaw = True
    argv = openclaw_argv(receiver, "```\n" + message.text.replace("```", "'''") + "\n```")
    argv += [] if message.rings else ["--silent"]
    outcome = yield Command(argv, site.home, openclaw_environment(site, receiver.binary), OPENCLAW_TIMEOUT, marker=new_id())
    phrase = outcome_phrase(outcome)
    if phrase is None:
        return Sent("sent")
    words = site.redact.read(outcome.err) + "\n" + site.redact.read(outcome.out)
    detail = one_line(phrase_text("en", phrase) + " " + last_lines(words, 2), 160)
    if outcome.failure or outcome.code in (126, 127):
        return Sent("not_sent", detail)
    if re.search(MAYBE_SENT_WORDS, words, re.I):
        return Sent("unknown", detail)
    if re.search(NOT_SENT_WORDS, words, re.I):
        return Sent("not_sent", detail)
    is_refused = re.search(r"(\berror_code\D{0,4}|\()(400|401|403|404)\b|\b(401|403|404): ", words)
    return Sent("refused" if is_refused else "unknown", detail)


def own_command(site: Site, argv: list, timeout: float, declared: dict, **more: Any) -> Command:
    """A command of the monitor itself, of no job."""
    cwd = site.dirs.ours_dir if os.path.isdir(site.dirs.ours_dir) else site.home
    return Command(argv, cwd, child_environment(site.env, site.home, declared), timeout, marker=new_id(), **more)


def send_command(site: Site, receiver: Receiver, message: Message) -> Flow:
    """The user's own command gets the text on stdin; exit 0 = sent."""
    text = message.text.encode("utf-8", "replace")
    outcome = yield own_command(site, receiver.command, OPENCLAW_TIMEOUT, {"OPS_RINGS": "1" if message.rings else "0"}, stdin=text)
    phrase = outcome_phrase(outcome)
    if phrase is None:
        return Sent("sent")
    words = last_lines(site.redact.read(outcome.err) or site.redact.read(outcome.out), 1, 100)
    return Sent("not_sent" if outcome.failure else "unknown", site.redact(phrase_text("en", phrase)) + (words and f": {words}"))


SENDERS = {"api": send_api, "openclaw": send_openclaw, "command": send_command}


def refusals(state: State, receiver: Receiver) -> dict:
    """`by`: this receiver; way -> until when it is left alone, because it refused, while another way works."""
    known = object_at(state.raw, "refused")
    return known if known.get("by") == receiver.identity else {"by": receiver.identity}


def usable_ways(site: Site, receiver: Receiver) -> list:
    """The ways to try now: not one that refused this receiver within 6 h, not the binary twice a tick."""
    state = site.store.view()
    refused = refusals(state, receiver)
    ways = [way for way in receiver.ways if not 0 < epoch_seconds(refused.get(way)) - state.now <= REFUSAL] or receiver.ways
    return [way for way in ways if way != "openclaw" or not site.called_openclaw]


def send_by(site: Site, way: str, message: Message) -> Flow:
    """One message by one way; where the group has got a new id once more, there, and from now on."""
    receiver = site.receiver
    sent = yield from SENDERS[way](site, receiver, message)
    if not sent.moved_to:
        return sent
    yield Change(lambda state: state.raw.update(moved={**object_at(state.raw, "moved"), receiver.chat: sent.moved_to}), urgent=True)
    site.receiver = receiver._replace(chat=sent.moved_to)
    return (yield from SENDERS[way](site, site.receiver, message))


def send(site: Site, message: Message) -> Flow:
    """One message by the first way that does not definitely fail."""
    sent = Sent("later")
    receiver = site.receiver
    for way in usable_ways(site, receiver):
        sent = yield from send_by(site, way, message)
        receiver = site.receiver
        if sent.result == "refused":
            yield Change(lambda state: state.raw.update(refused={**refusals(state, receiver), way: state.now + REFUSAL}), urgent=True)
        elif sent.result != "not_sent":
            break
    return sent


def begin_sending(state: State, message: Message) -> None:
    """The intention to send: should this process die over it, the next one says "(possible repeat)"."""
    for entry in state.outbox:
        if entry["id"] in message.entries:
            entry.update(sending=True, **({"maybeSent": True} if may_be_sent(entry) else {}))


def postpone(state: State, message: Message, sent: Sent, receiver: Receiver) -> None:
    """Date the next attempt; a receiver that refuses, or asks for time, means every entry."""
    for_all = sent.result in ("refused", "wait")
    for entry in state.outbox:
        was_carried = entry["id"] in message.entries
        if was_carried or for_all:
            tries = entry["tries"] if is_number(entry.get("tries")) else 0
            wait = REFUSAL if sent.result == "refused" else sent.retry_after or min(30.0 * 2.0 ** min(tries, 20), 1800.0)
            entry["notBefore"] = max(entry["notBefore"], state.now + wait)
            entry["wait"] = round(entry["notBefore"] - state.now, 3)  # should the clock be set back
        if was_carried:
            entry.update(tries=tries + 1, error=sent.detail, **({"maybeSent": True} if sent.result == "unknown" else {}))
        if for_all:
            entry["refusedBy"] = receiver.identity


def last_receiver(site: Site) -> dict:
    """What is needed to tell a person when the config cannot be read; no secret."""
    receiver, config = site.receiver, site.config
    words = " ".join(receiver.command)
    return {
        "via": config.delivery.via, "channel": receiver.channel, "target": receiver.chat, "threadId": receiver.thread,
        "account": receiver.account, "language": site.lang, "host": site.host,
        **({"command": receiver.command} if words and site.redact(words) == words else {}),
    }  # fmt: skip


def wake_outbox(state: State) -> None:
    """The receiver works again: what waited for that goes now."""
    for entry in state.outbox:
        if entry.pop("refusedBy", None) or entry.get("tries"):
            entry["notBefore"] = min(entry["notBefore"], state.now)


def wake_receiver(state: State) -> None:
    """The same at a person's wish: also a way that refused is asked again."""
    state.raw.pop("refused", None)
    wake_outbox(state)


def settle_sent(site: Site, state: State, message: Message, sent: Sent) -> None:
    """Take out what was confirmed; date what was not."""
    for entry in state.outbox:
        if entry["id"] in message.entries:
            entry.pop("sending", None)
    if sent.result == "sent":
        state.raw["outbox"] = [entry for entry in state.outbox if entry["id"] not in message.entries]
        if not site.target:  # --target is for once
            state.raw["receiver"] = last_receiver(site)
        if message.counted:
            state.raw["dropped"] = max(0, dropped_count(state) - message.counted)
        wake_outbox(state)
    elif sent.result != "later":
        postpone(state, message, sent, site.receiver)
        state.record("not delivered", error=sent.detail, result=sent.result)


def outbox_error(outbox: list) -> Any:
    """Why the first message that could not be sent could not; None if none was tried in vain."""
    return next((entry["error"] for entry in outbox if entry.get("error")), None)


class Delivered(NamedTuple):
    """How a delivery ended."""

    left: int = 0  # entries that stay
    problem: str = ""
    advice: str = ""
    is_elsewhere: bool = False  # another process is sending: nothing is known here


def due_messages(site: Site, state: State) -> list:
    """Messages of the entries whose wait is over; a refusal by another receiver than today's does not count."""
    room = MESSAGES_A_TICK - site.sent
    if room <= 0:
        return []
    apart = (None, site.receiver.identity)
    living = [entry for entry in state.outbox if not has_expired(entry, state.now)]
    due = [entry for entry in living if entry["notBefore"] <= state.now or entry.get("refusedBy") not in apart]
    header = header_text(site.clock.time_text(state.now), site.host)
    return compose(site.lang, due, state.now, header, site.clock.text, room, dropped_count(state), site.advise("status"))


def send_due(site: Site) -> Flow:
    site.receiver = receiver = site.receiver or find_receiver(site)
    state = site.store.view()
    if receiver.problem:
        return Delivered(len(state.outbox), receiver.problem, receiver.advice)
    began = time.monotonic()
    problem = ""
    for message in due_messages(site, state):
        if time.monotonic() - began > DELIVERY_BUDGET:
            break
        yield Change(lambda state: begin_sending(state, message), urgent=True)
        sent = yield from send(site, message)
        yield Change(lambda state: settle_sent(site, state, message, sent), urgent=True)
        if sent.result != "sent":
            problem = sent.detail
            break
        site.sent += 1
    left = site.store.view().outbox
    problem = problem or str(outbox_error(left) or "")
    return Delivered(len(left), problem, site.advise("doctor", "", "--online" if "api" in receiver.ways else "--send-test"))


def deliver(site: Site) -> Flow:
    """Send what is due, worst first, and save each confirmation; what is left and why."""
    left = len(site.store.view().outbox)
    if not left:
        return Delivered()
    lock = site.store.lock("delivery", limit=SENDING_LIMIT)
    if lock:
        with lock:
            return (yield from send_due(site))
    if site.store.overdue("delivery"):
        yield Pause(0.1)  # it may be in the act of taking it
    overdue, path = site.store.overdue("delivery"), site.store.lock_path("delivery")
    if overdue:
        return Delivered(left, f"another process holds {path} and should have ended {duration_text(overdue)} ago", f"lsof {shell_word(path)}")
    return Delivered(is_elsewhere=True)


def warn_undelivered(delivered: Delivered) -> None:
    if delivered.left:
        why = f": {delivered.problem}" if delivered.problem else ""
        warn(f"note: undelivered messages: {delivered.left}{why}; the next tick tries again")


# ---- what commands printed


def drop_output(fd: int) -> None:
    """What is still printed there goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def show(text: str, stream: Any) -> None:
    """Print what a command printed; a closed pipe must not keep us from saving the result."""
    if text:
        try:
            print(text, end="" if text.endswith("\n") else "\n", file=stream, flush=True)
        except OSError as error:
            if stream is sys.stdout and not isinstance(error, BrokenPipeError):
                raise
            drop_output(stream.fileno())


def show_output(site: Site, outcome: Outcome) -> None:
    """What a command printed, on the same streams."""
    show(site.redact.read(outcome.out), sys.stdout)
    show(site.redact.read(outcome.err), sys.stderr)


def log_text(site: Site, path: str, begin: int = 0) -> str:
    """What a command has written to its log from `begin` on, head and tail; "" without one."""
    kept = Stream(HEAD_KEPT, None)
    try:
        with open(path, "rb") as file:
            file.seek(max(0, begin - 1))
            is_cut = begin > 0 and file.read(1) != b"\n"
            for chunk in iter(lambda: file.read(1 << 20), b""):
                kept.feed(without_cut_begin(chunk) if is_cut and not kept.size else chunk)
    except OSError:
        return ""
    return site.redact.read(kept.kept())


# ==== GATE ===============================================================
# Writes: approved by a person for exactly these bytes, run once, verified by a read-only job.
# Nothing else in this file runs a write: the tick, the queue, `after` and auto-resume have no way here.

CODE_LIFE = 900.0  # seconds
CODE_TRIES = 5  # guesses at one code
CODE_REQUESTS = 3  # codes an hour
CODE_ROUNDS = 600_000
VERIFY_SLACK = HOUR  # after delay and timeout, before a verification counts as overdue


def changed_items(gate: Gate, plan: Plan) -> list:
    """Labels that differ from what was approved."""
    now = remembered(plan, gate.salt)
    return sorted(label for label in {*now, *gate.items} if now.get(label) != gate.items.get(label))


def item_lines(site: Site, label: str, text: str, is_loose: bool) -> list:
    """One bound item as a person reads it; none for what says nothing."""
    kind, _, name = label.partition(" ")
    if kind in ("job", "via") or text == "absent" and "/" not in name:
        return []
    if kind == "argv":
        text = " ".join(map(shell_word, json.loads(text)))
    elif kind == "cwd":
        text = text.partition(" directory ")[0]
    elif kind == "env":
        is_secret = secret_values({name: text.ljust(8)})
        text = f"{name}={MASK if is_secret else text}"
    elif kind == "file":
        text = name + site.say("plan.loose") if is_loose else f"{name}  {text}"
    shown = site.redact.tidy(text).replace("\n", "\n" + " " * 14)  # a value with line feeds cannot look like ours
    return [f"  {pad(site.say('plan.' + kind), 12)}{shown}"]


def approval_life(job: Any) -> float:
    """Seconds that an approval of this write holds."""
    return float(job.approval.ttl_seconds if job.approval else 3600)


def plan_lines(site: Site, job: Any, plan: Plan) -> list:
    """The plan as a person reads it before approving: what, where, which files, what verifies it."""
    lines = [site.say("plan.title", name=name_of_job(site, job.id), job=job.id)]
    for label, text in plan.items.items():
        own = label.partition(": ")[2] if label.startswith("verification ") else label
        if own:
            lines += item_lines(site, own, text, label in plan.loose)
        else:
            lines.append("\n" + site.say("plan.verified", what=text))
    return [*lines, "", site.say("plan.ttl", time=duration_text(approval_life(job)))]


def who_asks() -> str:
    """The person as history knows them: user, uid, terminal."""
    try:
        terminal = os.ttyname(0)
    except OSError:
        terminal = "no terminal"
    return f"{user_name(os.getuid())} (uid {os.getuid()}, {terminal})"


# ---- approving


def without_code(gate: Gate) -> Gate:
    return gate._replace(code_hash="", code_salt="", code_digest="", code_at=0.0, code_tries=0)


def grant(site: Site, state: State, job: Any, plan: Plan, clear: bool, is_unseen: bool = False) -> None:
    """An approval of this plan for one run; `is_unseen`: nobody typed it at a terminal, so the person hears of it."""
    by = who_asks()
    salt = os.urandom(8).hex()
    gate = without_code(state.gate(job.id))._replace(
        digest=plan.digest, items=remembered(plan, salt), salt=salt, approved_at=state.now, approved_for=approval_life(job)
    )
    state.keep_gate(job.id, gate._replace(verify="", verify_left=[], verify_failed=[]) if clear else gate)
    forget_blocked(state, job.id)
    settle_gate(site, state, job)
    if is_unseen:
        tell(site, state, job.id, Notify("approved", "told", NOTICE, Phrase("approved.told", {"who": by, "digest": plan.digest[:16]})))
    state.record("approved", job.id, digest=plan.digest, who=by, despite=clear)


def without_approval(gate: Gate) -> Gate:
    return gate._replace(digest="", items={}, salt="", approved_at=0.0, approved_for=0.0)


def hashed_code(code: str, salt: str) -> str:
    import hashlib

    return hashlib.pbkdf2_hmac("sha256", code.encode("utf-8", "replace"), bytes.fromhex(salt), CODE_ROUNDS).hex()


def count_request(state: State, job: Any, plan: Plan) -> bool:
    """Count a request for a code; False if there were too many within the hour."""
    gate = state.gate(job.id)
    recent = [min(at, state.now) for at in gate.requests if is_number(at) and state.now - HOUR < at]
    if len(recent) >= CODE_REQUESTS:
        return False
    state.keep_gate(job.id, without_code(gate)._replace(requests=[*recent, state.now]))
    state.record("code requested", job.id, digest=plan.digest, who=who_asks())
    return True


def request_code(site: Site, job: Any, plan: Plan) -> Flow:
    """Send a one-time code with the plan to the person; it counts once the Bot API has confirmed it."""
    if not (yield Change(lambda state: count_request(state, job, plan), urgent=True)):
        raise BlockedError("BLOCKED: " + site.say("code.too_many", job=job.id), site.advise("history", job.id))
    site.receiver = receiver = find_receiver(site)
    if "api" not in receiver.ways or not receiver.chat:
        raise UndeliveredError(site.say("code.no_api"), receiver.advice or "set delivery.via to api and channels.telegram.botToken")
    code = f"{int.from_bytes(os.urandom(8), 'big') % 10**8:08d}"
    header = header_text(site.clock.time_text(site.clock.now().at), site.host)
    words = header + "\n\n" + site.say("code.message", code=code, job=job.id) + "\n\n"  # first: a long plan must not push it out
    plan_text = clip("\n".join(plan_lines(site, job, plan)), SECTION_LIMIT - utf16_length(words))
    sent = yield from send_by(site, "api", Message(words + plan_text, True, ()))
    if sent.result != "sent":
        raise UndeliveredError(site.say("code.not_sent", why=sent.detail), site.advise("approve", job.id, "--request"))
    salt = os.urandom(16).hex()
    made: dict = {"code_hash": hashed_code(code, salt), "code_salt": salt, "code_digest": plan.digest, "code_tries": 0}
    yield Change(lambda state: state.keep_gate(job.id, state.gate(job.id)._replace(code_at=state.now, **made)), urgent=True)


def check_code(site: Site, job: Any, plan: Plan, code: str, clear: bool) -> Flow:
    """Count one guess; grant the approval if it is the code.  "" or why not, as a MESSAGES row."""
    salt = site.store.view().gate(job.id).code_salt
    hashed = hashed_code(code, salt) if salt else ""

    def apply(state: State) -> str:
        gate = state.gate(job.id)
        if not gate.code_hash or gate.code_salt != salt or state.now >= gate.code_at + CODE_LIFE:
            return "code.none"
        if gate.code_tries >= CODE_TRIES:
            return "code.spent"
        state.keep_gate(job.id, gate._replace(code_tries=gate.code_tries + 1))
        if gate.code_digest != plan.digest:
            return "code.other_plan"
        if hashed != gate.code_hash:
            return "code.wrong"
        grant(site, state, job, plan, clear)
        return ""

    return (yield Change(apply, urgent=True))


# ---- running: the output goes to a file, so that the end of this process cannot break a write


def write_reason(site: Site, gate: Gate, plan: Plan, now: float) -> Reason:
    """Why a write may, or may not, run at this moment, as far as its gate and its config say."""
    if site.config_risk:
        return Reason("gate.config_writable", facts={"why": site.config_risk})
    return gate_reason(gate, plan.digest, plan.problem, changed_items(gate, plan), now)


def begin_write(site: Site, state: State, job: Any, plan: Plan, run_id: str) -> Optional[Reason]:
    """Why it may not run, or None: then the approval is used up and the run is on record."""
    gate = notice_lost(state, job)
    settle_gate(site, state, job)
    reason = write_reason(site, gate, plan, state.now)
    if reason.key != "gate.open":
        state.record("refused", job.id, reason=reason.key, who=who_asks(), digest=plan.digest)
        return reason
    salt = os.urandom(8).hex()
    begun = without_approval(gate)._replace(
        run="begun", run_id=run_id, run_began_at=state.now, run_ended_at=0.0, run_code=0, run_digest=plan.digest, verify="",
        verify_salt=salt, verify_items=remembered(plan, salt, "verification "),
    )  # fmt: skip
    state.keep_gate(job.id, begun)
    forget_blocked(state, job.id)
    settle_gate(site, state, job)  # what was wrong with the run before is over: should this one go wrong alike, that is told
    state.record("write begun", job.id, digest=plan.digest, who=who_asks(), run=run_id)
    return None


def settle_write(site: Site, state: State, job: Any, outcome: Outcome, plan: Plan, log: str) -> None:
    """The result of a write, and what has to verify it; `plan` is from after it."""
    phrase = outcome_phrase(outcome)
    code = NOT_RUN if outcome.code is None else outcome.code
    gate = state.gate(job.id)
    endings = ("always", "failure" if phrase else "success")
    due = [after for after in verifications(job, site.config.jobs) if after.when in endings]
    longest = max([after.delay_seconds + run_timeout(site.config.jobs[after.job_id]) for after in due], default=0.0)
    now = remembered(plan, gate.verify_salt, "verification ")  # what the write itself changed is its work, not a change of its check
    gate = gate._replace(
        run="failed" if phrase else "good", run_ended_at=state.now, run_code=code,
        verify="pending" if due or not phrase else "",  # a good write that nothing can verify stays unverified
        verify_left=[after.job_id for after in due], verify_failed=[], verify_for=longest + VERIFY_SLACK,
        verify_items={label: value for label, value in gate.verify_items.items() if now.get(label) == value or ": file " not in label},
    )  # fmt: skip
    state.keep_gate(job.id, gate)
    state.remember(job.id, state.memory(job.id)._replace(ran_at=state.now, ran_code=code, left_at=0.0))
    for after in job.after:
        if after.when in endings:
            enqueue_after(state, after.job_id, after.delay_seconds, job.id)
    state.record("write ended", job.id, code=outcome.code, run=gate.run_id, digest=gate.run_digest)
    if phrase:
        tell(site, state, job.id, Notify("failed", "told", ALERT, phrase, file_tail(log, site.redact)))
    settle_gate(site, state, job)


def gate_advice(site: Site, job: Any, reason: Reason) -> str:
    """The command that leads on from where a write stands."""
    gate = site.store.view().gate(job.id)
    left = [name for name in map(str, gate.verify_failed or gate.verify_left) if name in site.config.jobs]  # it may have changed
    if reason.key in ("gate.verify_failed", "gate.verify_pending", "gate.verify_overdue") and left:
        return site.advise("run", left[0])
    if reason.key.startswith("gate.verify"):
        return site.advise("approve", job.id, "--despite-failed-verification")
    if reason.key == "gate.config_writable":
        return site.advise("doctor")
    command, *flags = {"gate.open": ("run", "--verify"), "gate.running": ("logs",)}.get(reason.key, ("approve",))
    return site.advise(command, job.id, *flags)


def tell_blocked(site: Site, job: Any, reason: Reason) -> Flow:
    """A refused write: the person is told once, the caller gets exit 4 and the next step."""
    words = site.say(reason.key, **reason.facts)
    finding = Finding("blocked", ALERT, Phrase("blocked.write", {"job": job.id, "why": words}))
    policy = job.policy._replace(alert_after=1, alert_repeat_seconds=HOUR)  # asked here only when somebody tries again
    now = site.clock.now()
    yield Change(lambda state: perform(site, state, job.id, judge_write(policy, {"blocked": finding}, state.memory(job.id), now)), urgent=True)
    warn_undelivered((yield from deliver(site)))
    v1 = " " + site.say("gate.v1") if job.approval and (job.approval.granted or not job.approval.required) else ""
    raise BlockedError(f"BLOCKED: {words}{v1}", gate_advice(site, job, reason))


def settle_verify_now(site: Site, state: State, job: Any, check: Any, outcome: Outcome, plans: dict) -> None:
    """The result of a verification by hand; the queued run of it is done as well."""
    settle_run(site, state, check, outcome, plans, by="verify")
    for entry in state.queue:
        if (entry.get("jobId"), entry.get("by"), entry.get("status")) == (check.id, f"after {job.id}", "pending"):
            finish_entry(state, entry["id"], outcome)


def verify_now(site: Site, job: Any) -> Flow:
    """Run the verifications of a write that just ended, each after its delay; 0 = all passed."""
    for after in verifications(job, site.config.jobs):
        yield Pause(after.delay_seconds)
        check = site.config.jobs[after.job_id]
        with job_lock(site, check, run_timeout(check), advice="run"):
            if check.id in site.store.view().gate(job.id).verify_left:  # else a tick was faster
                outcome = yield run_command(site, check, new_id())
                plans = plans_to_verify(site, check)
                yield Change(lambda state: settle_verify_now(site, state, job, check, outcome, plans), urgent=True)
                show_output(site, outcome)
    passed = site.store.view().gate(job.id).verify == "passed"
    print(site.say("verify.passed" if passed else "verify.failed", job=job.id))
    return DONE if passed else JOB_FAILED


def run_write(site: Site, job: Any, verify: bool) -> Flow:
    """One approved run: digest under the lock, approval used up durably, then the command."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)  # nothing of the caller's bends what was approved
    with job_lock(site, job, 10.0):
        log = os.path.join(prepare_job_dir(site, job), "write.log")
        plan = make_plan(site, job)
        run_id = new_id()
        refused = yield Change(lambda state: begin_write(site, state, job, plan, run_id), urgent=True)
        if refused:
            yield from tell_blocked(site, job, refused)
        try:
            reach("replace")
            os.replace(log, log + ".1")
        except OSError:
            pass  # the first run; nothing may fail between the mark and the run
        outcome = yield Command(job.commands.run, site.directory(job), fixed_environment(job), run_timeout(job), marker=run_id, log=log)
        plan = make_plan(site, job)
        yield Change(lambda state: settle_write(site, state, job, outcome, plan, log), urgent=True)
    show(log_text(site, log), sys.stdout)
    phrase = outcome_phrase(outcome)
    if phrase:
        code = JOB_FAILED
        warn("error: " + site.words(phrase))
    else:
        print(site.say("write.done", job=job.id))
        code = (yield from verify_now(site, job)) if verify else DONE
    warn_undelivered((yield from deliver(site)))
    return code


# ==== COMMANDS ===========================================================
# What a person can type.  To add a command is to add one decorated function, do_NAME: its docstring is
# its help, the decorator says what it takes.  Commands print; everything else returns values.


class CommandRow(NamedTuple):
    function: Callable
    options: tuple  # what `option` gives
    example: str
    wants_site: bool  # the config and state are opened first


COMMANDS: dict = {}


def option(*flags: str, **settings: Any) -> tuple:
    """One argument of a command, as argparse takes it."""
    return flags, settings


def typed(*options: tuple, example: str = "", wants_site: bool = True) -> Callable:
    """Register do_NAME as the command NAME."""

    def register(function: Callable) -> Callable:
        name = function.__name__.partition("_")[2].replace("_", "-")
        COMMANDS[name] = CommandRow(function, options, example or name, wants_site)
        return function

    return register


def seconds_argument(text: str) -> float:
    try:
        return duration_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def line_count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number of lines, found '{one_line(text, 40)}'")
    return int(text)


def flag(name: str, words: str) -> tuple:
    return option(name, action="store_true", help=words)


JOB = option("job", metavar="JOB", help="id of a job")
SOME_JOB = option("job", metavar="JOB", nargs="?", help="id of a job; default: all")
AS_JSON = flag("--json", "print JSON instead of text")
TARGET = option("--target", default="", metavar="ID", help="chat to tell instead of the configured one")
TRUST = flag("--trust-permissions", "accept a config that others could have written; reads only")
TIMEOUT = option("--timeout-seconds", type=seconds_argument, metavar="S", help="limit of the command; default: the job's policy")
ALLOW_RISK = flag("--allow-risk", "start a job whose risk is not read_only")
CONFIG_FILE = option("--config-file", default="", metavar="PATH", help="default: net/config/ops-jobs.json in OpenClaw's state dir")
STATE_FILE = option("--state-file", default="", metavar="PATH", help="default: net/state/ops-monitor.json in OpenClaw's state dir")


def put(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def indented(text: str, margin: str) -> str:
    return margin + text.replace("\n", "\n" + margin)


# ---- opening the installation


class Files(NamedTuple):
    """Where this process finds its files."""

    config_file: str
    state_file: str
    home: str
    dirs: Any  # of OpenClaw


def files_for(env: dict, config_file: str, state_file: str) -> Files:
    """The files of a process with this environment and these flags."""
    home = home_directory(env)
    dirs = openclaw_places(env, home, os.path.exists)
    ours = dirs.ours_dir or home
    config = expand_home(config_file or f"{ours}/net/config/ops-jobs.json", home)
    state = expand_home(state_file or f"{ours}/net/state/ops-monitor.json", home)
    return Files(os.path.abspath(config), os.path.abspath(state), home, dirs)


def find_files(args: Any) -> Files:
    files = files_for(dict(os.environ), args.config_file, args.state_file)
    if os.path.realpath(files.config_file) == os.path.realpath(files.state_file):
        raise UsageError(f"{files.state_file} is the config; the state needs a file of its own", "name another with --state-file")
    return files


def refuse_foreign_root(*paths: str) -> None:
    """Root in somebody else's directory would leave files that lock the owner out."""
    for place in map(existing_place, paths if os.geteuid() == 0 else ()):
        owner = os.stat(place).st_uid
        if owner != 0:
            words = sys.argv[1:] if sys.argv[0].endswith(os.path.basename(__file__)) else ["tick"]  # as a module: by a scheduler
            command = " ".join(["sudo -u", user_name(owner), script_command(), *map(shell_word, words)])
            raise UsageError(f"{place} belongs to {user_name(owner)}, you are root", command)


MOVES_US = ("OPENCLAW_HOME", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH")


def how_called(args: Any, script: str = "") -> tuple:
    """How a person calls this program with the same files, from any directory: before and after the command."""
    env, home = os.environ, home_directory(dict(os.environ))
    before = "".join(f"{name}={shell_word(absolute_path(env[name].strip(), home))} " for name in MOVES_US if not is_unset(env.get(name)))
    named = ((kind, getattr(args, kind + "_file", "")) for kind in ("config", "state"))
    after = "".join(f" --{kind}-file {shell_word(absolute_path(path, home))}" for kind, path in named if path)
    return before + script_command(script), after


def load_config(files: Files, args: Any) -> tuple:
    """(Config, a warning or '').  Raises UsageError with one clear line if nothing in it can be used."""
    path = files.config_file
    try:
        raw = read_file(path)
    except FileNotFoundError:
        if os.path.islink(path):  # `init` would leave it as it is
            raise UsageError(f"{path} is a link to what is not there", f"ls -l {shell_word(path)}") from None
        is_new = not os.path.exists(files.state_file)  # else `init` would put a starter config in the place of one that was moved
        advice = " init".join(how_called(args)) if is_new else "ls -l " + shell_word(existing_place(path))
        raise UsageError(f"{path}: no such file; --config-file names another", advice) from None
    except OSError as error:
        raise UsageError(f"{path}: {os_words(error)}", f"ls -ld {shell_word(path)}") from None
    trust = check_trust(path, files.home)
    if trust.refusal and not getattr(args, "trust_permissions", False):
        refuse_foreign_root(path, files.state_file)  # what is foreign to root is its owner's: nothing is to be mended there
        raise UsageError(f"{path} is not trusted: {trust.refusal}", trust.mend)
    try:
        return read_config(raw.decode("utf-8-sig")), trust.doubt
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise UsageError(f"{path}:{line}:{column}: error: not UTF-8 text", "save the file as UTF-8") from None
    except Malformed as error:
        raise UsageError(f"{path}:{error.line}:{error.column}: error: {error.problem}", "mend the file, then: " + " validate-config".join(how_called(args))) from None


def last_config(last: dict) -> Config:
    """No jobs, and the receiver that worked last: what is known while the config cannot be used."""
    known = {name: read_settings(name, {key: last[key] for key in FIELD_OF[name] if last.get(key)}, (), []) for name in ("monitor", "delivery")}
    if "command" not in known["delivery"] and last.get("via") == "command":  # it held a secret and was not remembered
        del known["delivery"]["via"]
    return Config({}, {}, filled("monitor", known["monitor"]), filled("delivery", known["delivery"]), ())


def usable_config(files: Files, args: Any, last: dict) -> tuple:
    """(Config, None), or where none can be used (what is known without one, the UsageError that says why)."""
    try:
        return load_config(files, args)[0], None
    except UsageError as error:
        return last_config(last), error


def make_site(files: Files, config: Config) -> Site:
    store = Store(files.state_file, Clock(config.monitor.timezone))
    return Site(config, files.config_file, store, caller_environment(), files.home, files.dirs)


def called_site(files: Files, config: Config, args: Any) -> Site:
    """The site as the command line has called it: its target, its next commands, its alarm for a lost state."""
    site = make_site(files, config)
    site.target = getattr(args, "target", "")
    site.call = how_called(args)

    def tell_lost(state: State, aside: str) -> None:
        tell(site, state, "", Notify("state", "told", ALERT, Phrase("state.lost", {"path": site.store.path, "aside": aside})))
        state.record("state lost", aside=aside)

    site.store.on_lost = tell_lost
    return site


def open_site(files: Files, config: Config, args: Any) -> Site:
    """The installation that the command works on."""
    refuse_foreign_root(files.state_file)
    return called_site(files, config, args)


def find_job(site: Site, job_id: str) -> Any:
    """The job with this id.  Raises UsageError that names the nearest one."""
    if job_id in site.config.jobs:
        return site.config.jobs[job_id]
    if job_id in site.config.broken:
        raise UsageError(f"job '{job_id}' has an error: {site.config.broken[job_id]}", site.advise("validate-config"))
    raise UsageError(f"no job '{job_id}'" + did_you_mean(job_id, site.config.jobs), site.advise("status"))


def limited(job: Any, args: Any, limit: str) -> Any:
    return job if args.timeout_seconds is None else job._replace(policy=job.policy._replace(**{limit: args.timeout_seconds}))


def find_long_job(site: Site, args: Any, limit: str) -> Any:
    """The long job that was named; --timeout-seconds takes the place of its policy's `limit`."""
    job = find_job(site, args.job)
    if job.kind != LONG_READ:
        advice = "run" if limit == "start_timeout_seconds" else "status"
        raise UsageError(f"job '{job.id}' is a {job.kind}, not a {LONG_READ}", site.advise(advice, job.id))
    return limited(job, args, limit)


def find_write(site: Site, job_id: str) -> Any:
    job = find_job(site, job_id)
    if job.kind != WRITE:
        raise UsageError(f"job '{job_id}' is a {job.kind}; only a {WRITE} is approved", site.advise("status"))
    return job


def blocked(site: Site, job: Any, key: str, *advice: str, **facts: Any) -> BlockedError:
    """A refusal in the person's language; `advice` is the command that leads on, and its options."""
    words = site.say(key, job=job.id, **facts)
    return BlockedError("BLOCKED: " + words, site.advise(advice[0], job.id, *advice[1:]) if advice else "")


def conclude(site: Site, key: str, code: int = DONE, **facts: Any) -> int:
    """Print what came of a command; its exit code."""
    print(site.say(key, **facts))
    return code


# ---- validate-config, schema


def missing_things(site: Site) -> Iterator[Problem]:
    """Warnings for commands and directories that do not exist."""
    known: dict = {}  # a thousand jobs share few programs
    for job in site.config.jobs.values():
        cwd, search = site.directory(job), site.environment(job)["PATH"]
        if not os.path.isdir(cwd):
            yield Problem(("jobs", job.index, "cwd"), f"no directory {visible(cwd, 300)}", is_error=False)
            continue
        for name, argv in zip(job.commands._fields, job.commands):
            key = argv and (argv[0], cwd, search)
            if key and key not in known:
                known[key] = bool(runnable(argv[0], search, cwd))
            if key and not known[key]:
                yield Problem(("jobs", job.index, "commands", name), f"no program '{visible(argv[0], 300)}'", is_error=False)


@typed(
    flag("--strict", "warnings count as errors"),
    TRUST,
    example="validate-config --config-file ./ops-jobs.json",
    wants_site=False,
)
def do_validate_config(files: Files, args: Any) -> int:
    """Check the config: every problem at once, with its place."""
    config, warning = load_config(files, args)
    site = make_site(files, config)
    whole = config._replace(problems=(*config.problems, *missing_things(site)))
    warnings = [text for text in (warning, site.clock.problem) if text]
    warn(*problem_lines(whole, files.config_file, args.strict, site.redact), *(f"{files.config_file}: warning: {site.redact(text)}" for text in warnings))
    if config.errors or args.strict and (whole.problems or warnings):
        return USAGE
    print(f"OK: version=1 jobs={len(config.jobs)}")
    if sys.stdout.isatty():  # scripts compare the output
        print("next: " + " doctor".join(how_called(args)))
    return DONE


@typed(example="schema > ops-jobs.schema.json", wants_site=False)
def do_schema(files: Files, args: Any) -> int:
    """Print the JSON Schema of the config."""
    print(json.dumps(config_schema(), indent=2, ensure_ascii=False))
    return DONE


# ---- init


# As in ops-jobs.example.json, but it takes about a minute, so that a tick can watch it.
STARTER_JOB = """import json, os, time
root, table = '/usr/share', os.path.join(os.environ['OPS_CHECKPOINT_DIR'], 'sizes.json')

def save(path, value):
    with open(path + '.new', 'w') as file:
        json.dump(value, file)
    os.replace(path + '.new', path)

sizes = json.load(open(table)) if os.path.exists(table) else {}
names = sorted(os.listdir(root))
for name in names:
    if name not in sizes:
        found = [os.path.join(place, file) for place, _, files in os.walk(os.path.join(root, name)) for file in files]
        sizes[name] = sum(os.lstat(path).st_size for path in found if os.path.lexists(path))
        save(table, sizes)
        time.sleep(60 / len(names))
    save(os.environ['OPS_PROGRESS_FILE'], {'done': len(sizes), 'total': len(names), 'bytes': sum(sizes.values())})
for name in sorted(sizes, key=sizes.get)[-10:]:
    print(sizes[name], name)"""

STARTER_CONFIG = r"""{
  "version": 1,
  "monitor": { "//": "en or zh", "language": "en" },
  "delivery": { "//": "auto: by the token and chat in OpenClaw's config. Set target if your chat id is not found there.", "via": "auto" },
  "jobs": [
    {
      "//": "A long read to try things with. Kill it at any moment: it goes on from its checkpoint.",
      "id": "share-sizes", "name": "Sizes in /usr/share", "kind": "long_running_read", "risk": "read_only",
      "enabled": true, "managed": true, "cwd": "~",
      "commands": { "start": ["PYTHON", "-c", "STARTER_JOB"] },
      "policy": { "autoResume": true, "stallSeconds": 900 }
    },
    {
      "//": "Tells when / or your home is over 90 % full. Looks once an hour.",
      "id": "disk-space", "name": "Disk space", "kind": "one_shot_read", "risk": "read_only",
      "enabled": true, "cwd": "~",
      "commands": {
        "run": [
          "sh", "-c",
          "df -P / \"$HOME\" | awk 'NR > 1 && !seen[$1]++ { print ($5 + 0 > 90 ? \"ALERT: \" : \"\") $6 \" is \" $5 \" full\" } END { exit NR < 2 }'"
        ]
      },
      "policy": { "everySeconds": 3600, "runTimeoutSeconds": 60 }
    }
  ]
}
"""


SETUP_WAIT = 10.0


def setup_lock(site: Site, command: str) -> Any:
    """The lock of whoever changes the installation itself.  Raises BusyError."""
    lock = site.store.lock("init", SETUP_WAIT)
    if lock is None:
        raise BusyError("another process is at the same work", site.advise(command))
    return lock


def make_file(site: Site, path: str, data: bytes) -> None:
    """Write a file, unless there is one."""
    is_there = os.path.lexists(path)
    if not is_there:
        write_durably(path, data)
    conclude(site, "init.there" if is_there else "init.made", path=path)


def install_script(site: Site, path: str, upgrade: bool) -> bool:
    """Copy this script to `path`; False if another one is there and stays."""
    data = read_file(os.path.abspath(__file__))
    there = read_file(path) if os.path.lexists(path) else data
    if there == data:
        make_file(site, path, data)
    elif upgrade:
        mode, old = os.stat(path).st_mode & 0o777, f"{path}.{time.strftime('%Y%m%dT%H%M%S')}.old"
        while os.path.lexists(old):
            old += "+"
        write_durably(old, there)
        write_durably(path, data)
        os.chmod(path, mode)  # somebody may call it without naming Python
        conclude(site, "init.replaced", path=path, old=old)
    else:
        conclude(site, "init.other", path=path)
    return there == data or upgrade


@typed(flag("--upgrade", "replace the installed script by this one; the old one stays beside it"), wants_site=False)
def do_init(files: Files, args: Any) -> int:
    """Make the directories, copy this script there, write a config to start with.  Overwrites nothing."""
    script = f"{files.dirs.ours_dir}/net/tools/ops-monitor.py"
    refuse_foreign_root(script, files.config_file)
    site = open_site(files, usable_config(files, args, {})[0], args)
    for directory in dict.fromkeys(map(os.path.dirname, (script, files.config_file, files.state_file))):
        if not os.path.isdir(directory):
            make_private_dir(directory)
            conclude(site, "init.made", path=directory)
    with setup_lock(site, "init"):
        text = STARTER_CONFIG.replace('"PYTHON"', json.dumps(sys.executable or "python3")).replace('"STARTER_JOB"', json.dumps(STARTER_JOB))
        make_file(site, files.config_file, text.encode())
        if not install_script(site, script, args.upgrade):
            return conclude(site, "help.next", command=site.advise("init --upgrade"))
    site.call = how_called(args, script)
    return conclude(site, "help.next", command=site.advise("validate-config"))


# ---- schedule


CRONTAB = "crontab"  # where other schedulers have paths


def ask_system(site: Site, argv: list, stdin: bytes = b"", env: Optional[dict] = None, seconds: float = 20.0) -> Outcome:
    """What came of a program that is no job's; one that cannot be run or hangs gives an Outcome as well."""
    usual = {"XDG_RUNTIME_DIR": f"/run/user/{os.geteuid()}", **site.child_env, "LC_ALL": "C"}  # agents often lack the first
    return Driver(site).finish(asking(Command(argv, "/", env or usual, seconds, marker=new_id(), head=16 << 20, stdin=stdin)))


def tell_system(site: Site, argv: list, stdin: bytes = b"", none: bytes = b"(?!)") -> bytes:
    """What the program printed; nothing if it failed in words of the pattern `none`.  Raises OpsError with its words for other failures."""
    outcome = ask_system(site, argv, stdin)
    phrase = outcome_phrase(outcome)
    if phrase and not re.search(none, outcome.err):
        said = one_line(site.redact.read(outcome.err or outcome.out), 400)
        raise OpsError(": ".join(filter(None, [" ".join(argv), site.words(phrase), said])), site.advise("schedule print"))
    return b"" if phrase else outcome.out


def read_crontab(site: Site) -> bytes:
    return tell_system(site, ["crontab", "-l"], none=b"no crontab for|can't open '.*': No such file")  # the second: busybox


def files_of(kind: str, calling: Calling, home: str) -> dict:
    """Path -> content of what a scheduler reads; last the one that it knows us by."""
    if kind == "cron":
        return {CRONTAB: cron_lines(calling).encode()}
    if kind == "systemd":
        return {f"{home}/.config/systemd/user/{name}": text.encode() for name, text in systemd_units(calling).items()}
    import plistlib  # rare: it loads an XML parser

    return {f"{home}/Library/LaunchAgents/local.{calling.name}.plist": plistlib.dumps(launchd_settings(calling))}


def change_files(site: Site, kind: str, name: str, files: dict) -> None:
    """Give systemd or launchd these files (None: no such file); if that fails, those that were there."""
    known = list(files)[-1]
    begin, end = agent_commands(kind, name, known, os.geteuid())

    def give(contents: dict, call: Callable) -> None:
        for path, data in contents.items():
            if data is not None:
                make_private_dir(os.path.dirname(path))
                write_durably(path, data)
            elif os.path.lexists(path):
                os.unlink(path)
        for argv in begin if contents[known] is not None else begin[:-1]:
            call(site, argv)

    before = {path: read_file(path) if os.path.lexists(path) else None for path in files}
    if before[known] is not None:
        tell_system(site, end, none=b"No such process")  # launchd has not loaded it
    try:
        give(files, tell_system)
    except BaseException:
        ask_system(site, end)
        give(before, ask_system)
        raise


def change_schedule(site: Site, kind: str, calling: Calling, is_wanted: bool) -> None:
    """Let a scheduler call `tick`, or no longer."""
    files = {path: data if is_wanted else None for path, data in files_of(kind, calling, site.home).items()}
    if kind == "cron":
        table = read_crontab(site)
        merged = merge_crontab(table, calling.name, files[CRONTAB] or b"")
        if merged != table:
            tell_system(site, ["crontab", "-"], merged)
    else:
        change_files(site, kind, calling.name, files)
    for path in files:
        conclude(site, "schedule.written" if is_wanted else "schedule.removed", path=path)


def make_calling(site: Site, args: Any) -> Calling:
    """How `tick` of this installation is called.  An account's usual one has the plain name."""
    account = home_directory({})
    usual, real = map(os.path.realpath, (f"{account}/.openclaw/net/state/ops-monitor.json", site.store.path))
    named = (("--config-file", args.config_file, site.config_file), ("--state-file", args.state_file, site.store.path))
    words = [word for name, given, path in named if given for word in (name, path)]
    env = {name: absolute_path(site.env[name].strip(), site.home) for name in MOVES_US if not is_unset(site.env.get(name))}
    if os.path.realpath(site.home) != os.path.realpath(account):  # a scheduler sets the account's
        env["HOME"] = site.home
    argv = tick_argv(sys.executable or "/usr/bin/python3", os.path.abspath(__file__), ["tick", *words])
    for text in (*argv, *env.values()):
        if not text.isprintable():
            raise UsageError(f"{text!a} has characters that no scheduler can be told", "name a plainer path")
    return Calling("ops-monitor" if real == usual else f"ops-monitor-{digest_of(real)[:8]}", argv, env, args.every)


def calling_kinds(site: Site, calling: Calling) -> list:
    """The schedulers that call `tick` for this installation; a crontab that cannot be read has no line of ours."""
    kinds = [kind for kind in ("systemd", "launchd") if os.path.lexists(list(files_of(kind, calling, site.home))[-1])]
    table = ask_system(site, ["crontab", "-l"]).out
    return kinds + (["cron"] if merge_crontab(table, calling.name, b"") != table else [])


def find_kind(site: Site) -> str:
    """The scheduler of this machine."""
    if sys.platform == "darwin":
        return "launchd"
    if ask_system(site, ["systemctl", "--user", "show-environment"]).code == 0:
        return "systemd"
    if ask_system(site, ["crontab", "-l"]).failure is None:
        return "cron"
    raise UsageError("no user manager of systemd answers, and there is no crontab", "install cron, for example: sudo apt-get install cron")


def refuse_interval(site: Site, what: str, kind: str, every: float) -> None:
    """All take whole seconds, cron some only."""
    steps: Any = CRON_GRID if kind == "cron" else range(1, 86401)
    if every not in steps:
        better = duration_text(min((step for step in steps if step >= every), default=DAY)).replace(" ", "")
        known = ", ".join(map(duration_text, steps)) if kind == "cron" else "whole number of seconds up to 1d"
        advice = site.advise(f"schedule {what} --kind {kind} --every {better}")
        raise UsageError(f"{kind} cannot call every {duration_text(every)}; possible: {known}", advice)


def ask_linger(site: Site) -> Outcome:
    """Whether a user's systemd goes on when the user logs out; `Linger=yes` or `Linger=no`, where it is known."""
    return ask_system(site, ["loginctl", "show-user", user_name(os.geteuid()), "--property=Linger"])


def install_schedule(site: Site, kind: str, calling: Calling) -> int:
    with setup_lock(site, "schedule install"):
        change_schedule(site, kind, calling, is_wanted=True)
    conclude(site, "schedule.soon" if kind == "cron" else "schedule.now", every=duration_text(calling.every))
    if kind == "systemd" and b"Linger=yes" not in ask_linger(site).out:
        conclude(site, "schedule.linger")
    first = next((job.id for job in site.config.jobs.values() if job.managed and job.enabled), "")
    return conclude(site, "help.next", command=site.advise("start", first) if first else site.advise("status"))


def remove_schedule(site: Site, calling: Calling, kinds: list) -> int:
    if not kinds and ask_system(site, ["crontab", "-l"]).failure is None:
        read_crontab(site)  # if that cannot be done, nobody knows
    for kind in kinds:
        change_schedule(site, kind, calling, is_wanted=False)
    return DONE if kinds else conclude(site, "schedule.none", path=site.store.path)


@typed(
    option("what", choices=("install", "print", "remove"), help="let the scheduler call tick; show what install would write; end it"),
    option("--every", type=seconds_argument, default=MINUTE, metavar="S", help="how often: 60, 5m, 1h; default: 60"),
    option("--kind", choices=("systemd", "launchd", "cron"), help="default: the one that calls it already, else what this machine has"),
    example="schedule install --every 60",
    wants_site=False,
)
def do_schedule(files: Files, args: Any) -> int:
    """Let the operating system's scheduler call `tick`, show how, or end that."""
    refuse_foreign_root(files.state_file)
    config = load_config(files, args)[0] if args.what == "install" else usable_config(files, args, {})[0]
    site = open_site(files, config, args)
    calling = make_calling(site, args)
    kinds = calling_kinds(site, calling)
    if args.what == "remove":
        return remove_schedule(site, calling, [kind for kind in kinds if args.kind in (None, kind)])
    kind = args.kind or (kinds[0] if kinds else find_kind(site))
    refuse_interval(site, args.what, kind, calling.every)
    if args.what == "print":
        for path, data in files_of(kind, calling, site.home).items():
            print(f"# {path}\n{data.decode()}", end="")
        return DONE
    others = [other for other in kinds if other != kind]
    if others:
        raise UsageError(f"{others[0]} calls tick already", site.advise(f"schedule remove --kind {others[0]}"))
    return install_schedule(site, kind, calling)


# ---- looking at jobs without changing anything


class Row(NamedTuple):
    """What is known of one job, and what a tick at this moment would decide."""

    job: Any
    memory: Memory
    look: Any  # Observation of a long job; else None
    decision: Any  # Decision on it; else None
    gate: Gate


def look_around(site: Site, jobs: list) -> list:
    """A Row for each job: long ones are looked at, nothing is written."""
    driver = Driver(site)
    state = site.store.view()
    flows = [driver.add(look_at(site, job)) if job.kind == LONG_READ else None for job in jobs]
    driver.run()
    rows = []
    for job, flow in zip(jobs, flows):
        look = driver.results.get(flow)
        decision = decide_now(site, state, job, look) if look else None
        memory = state.memory(job.id)
        if job.kind == CHECK and is_held(site.store.lock_path(slug(job.id))):  # by hand: that saves no intention
            memory = memory._replace(action="run")
        rows.append(Row(job, memory, look, decision, state.gate(job.id)))
    return rows


def reason_text(site: Site, reason: Reason) -> str:
    text = site.say(reason.key, **reason.facts)
    return text + (" " + site.say("again", time=site.clock.text(reason.again_at)) if reason.again_at else "")


def decision_lines(site: Site, job: Any, decision: Decision) -> list:
    """What would be done, then why, one line each."""
    lines = []
    for effect in decision.effects:
        if isinstance(effect, Notify):
            lines.append(site.say("would.tell", what=headline(site.lang, name_of_job(site, job.id), job.id, effect)))
        elif isinstance(effect, Resume):
            lines.append(site.say("would.restart" if effect.restart else "would.resume"))
        else:
            lines.append(site.say("would.queue", job=effect.job_id))
    return lines + [f"{site.say('topic.' + topic)}: {reason_text(site, reason)}" for topic, reason in decision.reasons.items()]


# ---- tick


def print_trouble(site: Site, kind: str, phrase: Optional[Phrase], loud: bool, *lines: str) -> None:
    """Print a trouble that nobody is told otherwise: at a terminal always, else on the reminder schedule.  None: it is over."""
    if phrase is None and kind not in site.store.view().own_memory().incidents:
        return

    def apply(state: State) -> bool:
        decision = judge_own({kind: Finding(kind, ALERT, phrase) if phrase else None}, state.own_memory(), site.clock.now())
        state.remember_own(decision.memory)
        return bool(phrase and (loud or decision.effects))

    warn(*(lines if site.store.change(apply)[0] else ()))


AFTER_TICK_TIMEOUT = 10.0


def after_tick(site: Site, driver: Driver, loud: bool) -> None:
    """Let an outside dead-man's switch know that this tick was good.  It cannot make a good tick a bad one."""
    outcome = driver.finish(asking(own_command(site, site.config.monitor.after_tick, AFTER_TICK_TIMEOUT, {}, is_strict=True)))
    failure, words = outcome_phrase(outcome), last_lines(site.redact.read(outcome.err) or site.redact.read(outcome.out), 1, 160)
    phrase = failure and Phrase("after_tick", {"why": site.words(failure) + (words and f": {words}")})
    print_trouble(site, "after_tick", phrase, loud, f"warning: {phrase and site.words(phrase)}", f"help: see monitor.afterTick in {site.config_file}")


def print_report(site: Site) -> None:
    """What --print-only has instead of messages; it counts as told, so it is printed however the tick ends."""
    now = site.clock.now().at
    header = header_text(site.clock.time_text(now), site.host)
    put(message.text + "\n" for message in compose(site.lang, site.printed or [], now, header, site.clock.text, see=site.advise("status")))


def finish_tick(site: Site, driver: Driver, loud: bool) -> int:
    """Deliver, say what could not be delivered, let others know that all was well; the exit code."""
    code = USAGE if site.config.errors else DONE
    if site.config.monitor.digest_at:
        tell_digest(site)
    if site.printed is not None:
        return code
    delivered = driver.finish(deliver(site))
    if delivered.is_elsewhere:
        return code
    phrase = Phrase("undelivered", {"problem": site.redact(delivered.problem)}) if delivered.problem else None
    words = f"error: undelivered messages: {delivered.left}: {delivered.problem}"
    print_trouble(site, "delivery", phrase, loud, words, f"help: {delivered.advice}")
    code = code or (UNDELIVERED if delivered.left else DONE)
    if code == DONE and site.config.monitor.after_tick:
        after_tick(site, driver, loud)
    return code


def other_config(site: Site, state: State) -> str:
    """The config that this state serves, if it is another one and still there; else ''."""
    serves = state.raw.get("configFile")
    return serves if isinstance(serves, str) and serves != site.config_file and os.path.exists(serves) else ""


def plan_tick(site: Site) -> Driver:
    """The driver of a tick with its flows: a look at each long job, each due check, each queued read."""
    driver, state = Driver(site), site.store.view()
    now = site.clock.now()
    others = other_config(site, state)
    taken = set()
    for entry in state.queue:
        job_id = str(entry.get("jobId"))
        job = site.config.jobs.get(job_id)
        if entry.get("status") != "pending" or entry["notBefore"] > now.at or job_id in site.config.broken or others and not job:
            continue
        if job is None or job.kind != CHECK or job.risk != READ_ONLY:
            driver.add(refuse_entry(site, entry))
        elif job_id not in taken:
            taken.add(job_id)
            driver.add(run_check(site, job, id_of_entry(entry)))
    for job in site.config.jobs.values():
        if job.kind == LONG_READ and job.enabled:
            driver.add(watch_job(site, job))
        elif job.kind == CHECK and job.id not in taken:
            memory = state.memory(job.id)
            if memory.action == "run" or due_reason(job, memory, now).key in ("due.first", "due.now"):
                driver.add(run_check(site, job))
            elif is_said_busy(site, job):
                driver.add(look_at_lock(site, job))
            elif has_to_say(job, memory, now):
                driver.add(speak_between(site, job))
        elif job.kind == WRITE and job.id in state.raw["gates"]:
            driver.add(watch_write(site, job))
    return driver


def judge_self(site: Site, state: State, findings: dict, **policy: Any) -> bool:
    """Judge troubles of the monitor itself; whether something was told."""
    decision = judge_own(findings, state.own_memory(), site.clock.now(), **policy)
    state.remember_own(decision.memory)
    for effect in decision.effects:
        tell(site, state, "", effect)
    return bool(decision.effects)


def keep_jobs(site: Site, state: State) -> None:
    """Memory of jobs that left the config goes after 30 days; of one that still runs the person hears once."""
    policy = make_policy({"quietHours": site.config.quiet_hours, "alertRepeatSeconds": 0})
    for job_id, raw in list(state.jobs.items()):
        is_here, job = is_configured(site, job_id), site.config.jobs.get(job_id)
        known = object_at(raw)
        was_managed = job and not job.managed and known.get("run") or "orphan" in object_at(known, "incidents")
        if is_here and not was_managed and "leftAt" not in known:
            continue
        memory, runs = state.memory(job_id), is_orphan(site, job_id)
        if not (is_here or runs) and memory.left_at and state.now - memory.left_at > FORGET_AFTER:
            del state.jobs[job_id]
            state.raw["gates"].pop(job_id, None)
            continue
        memory = memory._replace(left_at=0.0 if is_here else memory.left_at or state.now)
        state.remember(job_id, memory)
        findings: dict = {}
        if runs or "orphan" in memory.incidents:
            words = Phrase("orphan", {"command": site.advise("stop", job_id)})
            findings["orphan"] = Finding("orphan", WARN, words) if runs else None
        gate = state.gate(job_id)
        if not is_here and gate.verify in UNVERIFIED:
            findings["verification"] = Finding("verification", ALERT, Phrase("verify.left", left_to_verify(gate)))
        if findings:
            perform(site, state, job_id, judge_incidents(policy, findings, memory, site.clock.now()))


def is_waiting(entry: dict) -> bool:
    return entry.get("status") in ("pending", "running")


def keep_queue(state: State) -> None:
    """Finished entries go after a day; entries without an id get one; what is said to run and does not waits again."""
    done = [entry for entry in state.queue if not is_waiting(entry)]
    gone = [entry for entry in done if state.now - epoch_seconds(entry.get("doneAt") or entry["createdAt"]) >= DONE_KEPT] + done[:-DONE_MOST]
    state.raw["queue"] = [entry for entry in state.queue if entry not in gone]
    for entry in state.queue:
        entry["id"] = id_of_entry(entry) or new_id()
        if entry.get("status") == "running" and state.memory(str(entry.get("jobId"))).action_entry != entry["id"]:
            entry["status"] = "pending"


def keep_house(site: Site, state: State, loud: bool, warning: str) -> list:
    """The monitor's own part of a tick: its troubles, its memory of jobs, its queue.  Lines to print."""
    lines = problem_lines(site.config, site.config_file, False, site.redact) if site.config.errors else []
    first = [line for line in lines if ": error: " in line]
    words = Phrase("config.errors", {"count": len(first), "lines": "\n".join(first[:5]), "jobs": ", ".join(site.config.broken) or "-"})
    told = judge_self(site, state, {"config": Finding("config", ALERT, words) if first else None, "config_file": None})
    serves = other_config(site, state)
    other = serves and f"{site.store.path} serves {serves}, not {site.config_file}; use another --state-file"
    if not serves:
        state.raw["configFile"] = site.config_file
        keep_jobs(site, state)
    if not loud:
        state.note_tick()
    keep_queue(state)
    trim_outbox(state)
    if not site.config.monitor.digest_at:
        forget_digest(state)
    warnings = [warning, site.clock.problem, other] if loud else [other]
    return [*(f"warning: {text}" for text in warnings if text), *lines] if loud or told else []


def tell_unusable_config(files: Files, args: Any, problem: str) -> bool:
    """Tell by the receiver that worked last, once two ticks agree, that nothing is watched; whether to print it too."""
    refuse_foreign_root(files.state_file)
    site = open_site(files, last_config(Store(files.state_file, Clock()).view().raw["receiver"]), args)
    if args.dry_run or args.print_only:
        return True
    finding = Finding("config_file", ALERT, Phrase("config.unusable", {"problem": problem}))
    told = site.store.change(lambda state: judge_self(site, state, {"config_file": finding}, alertAfter=2))[0]
    Driver(site).finish(deliver(site))
    return told


def dry_tick(site: Site) -> int:
    """Run the status commands, print every decision and its reason, change nothing."""
    warn(*(problem_lines(site.config, site.config_file) if site.config.errors else ()))
    for row in look_around(site, [job for job in site.config.jobs.values() if job.enabled or job.kind != LONG_READ]):
        job = row.job
        if row.look:
            print(f"{job.id}: {site.say('word.' + row.look.state)}")
            put("  " + line for line in decision_lines(site, job, row.decision))
        elif job.kind == CHECK:
            print(f"{job.id}: {reason_text(site, due_reason(job, row.memory, site.clock.now()))}")
    for entry in site.store.view().queue:
        if entry.get("status") == "pending":
            print(site.say("dry.queued", job=str(entry.get("jobId")), time=site.clock.text(entry["notBefore"])))
    if site.config.monitor.digest_at:
        reason = digest_reason(site.config.monitor.digest_at, site.store.view().own_memory().digest_at, site.clock.now())
        print(f"{site.say('headline.digest')}: {reason_text(site, reason)}")
    return USAGE if site.config.errors else DONE


@typed(
    flag("--print-only", "print the report instead of sending it"),
    flag("--dry-run", "look, print what would be done and why; write and send nothing"),
    TARGET,
    TRUST,
    example="tick --dry-run",
    wants_site=False,
)
def do_tick(files: Files, args: Any) -> int:
    """Look at every job once, decide, act, tell.  The scheduler calls this."""
    loud = sys.stderr.isatty()
    try:
        config, warning = load_config(files, args)
    except UsageError as error:
        if tell_unusable_config(files, args, f"{error}; {error.advice}" if error.advice else str(error)) or loud:
            raise
        return USAGE
    site = open_site(files, config, args)
    if args.dry_run:
        return dry_tick(site)
    if args.print_only:
        site.printed = []
    driver = plan_tick(site)
    try:
        warn(*driver.finish(asking(Change(lambda state: keep_house(site, state, loud, warning)))))
        while driver.alive:
            driver.run(ROUND)
            if driver.alive and site.printed is None:
                driver.finish(deliver(site))
        return finish_tick(site, driver, loud)
    finally:
        print_report(site)


# ---- start, stop, run, approve, revoke, enqueue


def refuse_start(site: Site, job: Any, look: Observation, args: Any) -> None:
    """What stands in the way of a start by hand."""
    if look.state == UNKNOWN and not args.despite_unknown:
        words = site.words(look.problem or Phrase("status.json"))
        raise blocked(site, job, "start.unknown", "start", "--despite-unknown", why=words)
    if is_lock_held(site.store.job_dir(job.id)):
        raise BusyError(site.say("start.left", job=job.id), site.advise("stop", job.id))
    if look.state == STOPPED and not look.resumable and not (args.resume or args.fresh):
        raise blocked(site, job, "start.changed", "start", "--resume")


def wanted_again(memory: Memory) -> Memory:
    """A person wants the job to run: what held it is over."""
    return memory._replace(held_at=0.0, gave_up_at=0.0, attempts=0, attempt_at=0.0, attempt_key="")


def begin_start(site: Site, state: State, job: Any, marker: str, anyway: bool, is_fresh: bool) -> None:
    """The intention to start; `anyway`: although the last start has gone well and does not show yet."""
    memory = state.memory(job.id)
    now = site.clock.now()
    has_started = memory.action == "started"
    if is_acting(memory, now) and not (has_started and anyway):
        left = duration_text(memory.action_at + memory.action_for - now.at)
        words = "was started and does not show as running yet" if has_started else "is being started, without a result yet"
        advice = site.advise("start", job.id, "--despite-unknown") if has_started else site.advise("status", job.id)
        raise BusyError(f"'{job.id}' {words}; that blocks another start for {left}", advice)
    limit = job.policy.start_timeout_seconds + 10.0
    if is_fresh and memory.state == RUNNING:  # it has ended, and its records go first
        memory = memory._replace(state=IDLE)
    begun: dict = {"action": "start", "action_at": now.at, "action_for": limit, "action_id": marker}
    state.remember(job.id, wanted_again(memory)._replace(stalled_for=0.0, **begun))
    state.record("start", job.id, by="hand")


def end_start(state: State, job: Any, outcome: Outcome) -> None:
    memory = state.memory(job.id)
    if outcome.is_good and not job.managed:  # a managed run has an identity: its looks cannot be taken for the last one's
        memory = memory._replace(completed_fired=False, completed_told=False, action="started")
    else:
        memory = end_action(memory)
    state.remember(job.id, memory)
    phrase = outcome_phrase(outcome)
    state.record("start failed" if phrase else "started", job.id, reason=phrase_text("en", phrase) if phrase else "")


def start_by_hand(site: Site, job: Any, args: Any) -> Flow:
    with job_lock(site, job, 10.0, "started, stopped or run by another process"):
        if job.managed:
            forgive_stop(site.store.job_dir(job.id))
        look = yield from look_at(site, job)
        if look.state == RUNNING:
            yield Change(lambda state: state.remember(job.id, wanted_again(state.memory(job.id))), urgent=True)
            return conclude(site, "start.already", job=job.id)
        refuse_start(site, job, look, args)
        if look.state == COMPLETED and job.enabled:  # no tick may have seen that
            yield Change(lambda state: settle_look(site, state, job, look))
        marker = new_id()
        log = os.path.join(prepare_job_dir(site, job), "start.log")
        printed = file_size(log)
        is_fresh = args.fresh or look.state in (COMPLETED, IDLE)
        yield Change(lambda state: begin_start(site, state, job, marker, args.despite_unknown, is_fresh), urgent=True)
        outcome = yield from start_or_say(site, job, marker, is_fresh)
        yield Change(lambda state: end_start(state, job, outcome), urgent=True)
    phrase = outcome_phrase(outcome)
    show_output(site, outcome)
    if not job.managed:
        show(log_text(site, log, printed), sys.stderr if phrase else sys.stdout)
    if phrase:
        is_missing = outcome.failure or outcome.code in (126, 127)
        raise OpsError(site.say("start.failed", why=site.words(phrase)), site.advise("validate-config") if is_missing else site.advise("explain", job.id))
    conclude(site, "start.done", job=job.id)
    if not job.enabled:
        conclude(site, "start.disabled")
    is_watched = site.clock.now().at - site.store.view().own_memory().looked_at < 5 * MINUTE
    return conclude(site, "help.next", command=site.advise("status", job.id) if is_watched else site.advise("tick"))


@typed(
    JOB,
    ALLOW_RISK,
    flag("--fresh", "managed: begin anew; the old checkpoint is kept aside"),
    flag("--resume", "managed: continue although the command has changed"),
    flag("--despite-unknown", "start although the status cannot be told, or the last start does not show yet"),
    TIMEOUT,
    TRUST,
    example="start nightly-index",
)
def do_start(site: Site, args: Any) -> int:
    """Start a long job, and end a person's stop."""
    job = find_long_job(site, args, "start_timeout_seconds")
    if (args.fresh or args.resume) and not job.managed:
        raise UsageError(f"--fresh and --resume are for managed jobs; '{job.id}' keeps its own checkpoint", site.advise("start", job.id))
    if job.risk != READ_ONLY and not args.allow_risk:
        raise BlockedError(f"BLOCKED: job '{job.id}' has risk {job.risk}", site.advise("start", job.id, "--allow-risk"))
    return Driver(site).finish(start_by_hand(site, job, args))


def hold_job(state: State, job_id: str) -> None:
    state.remember(job_id, state.memory(job_id)._replace(held_at=state.now))
    state.record("stop", job_id, by="hand")


def keep_held(state: State, job_id: str) -> None:
    """The start whose lock a stop waited for has ended the hold; the stop came later and counts."""
    memory = state.memory(job_id)
    state.remember(job_id, memory._replace(held_at=memory.held_at or state.now))


def stop_by_pid(site: Site, job: Any) -> Flow:
    """TERM to the pid that the status names, and wait until it is gone; False if there is none."""
    look = yield from look_at(site, job)
    if look.state == UNKNOWN:
        words = site.words(look.problem or Phrase("status.json"))
        raise OpsError(site.say("stop.unknown", job=job.id, why=words), site.advise("status", job.id))
    if look.state != RUNNING:
        return False
    began = process_start(look.pid) if look.pid not in (0, os.getpid(), os.getppid()) else ""
    if not began:
        raise OpsError(site.say("stop.no_pid", job=job.id), site.advise("status", job.id))
    end_one(look.pid, signal.SIGTERM)
    until = time.monotonic() + job.policy.stop_timeout_seconds
    while process_start(look.pid) == began and not is_zombie(look.pid):
        if time.monotonic() >= until:
            raise OpsError(site.say("stop.still_alive", job=job.id, pid=look.pid), site.advise("status", job.id))
        yield Pause(0.05)
    return True


def stop_by_command(site: Site, job: Any) -> Flow:
    """Run the job's own stop command."""
    outcome = yield job_command(site, job, job.commands.stop, job.policy.stop_timeout_seconds, marker=new_id())
    show_output(site, outcome)
    phrase = outcome_phrase(outcome)
    if phrase:
        raise OpsError(site.say("stop.command_failed", job=job.id, why=site.words(phrase)), site.advise("status", job.id))
    return True


def stop_by_hand(site: Site, job: Any) -> Flow:
    """Hold the job and end it; whether something of it was alive, and the StateError of a hold that could not be saved."""
    site.store.attempt(lambda state: hold_job(state, job.id))
    with job_lock(site, job, 10.0, "started, stopped or run by another process; it will not be resumed", "stop"):
        trouble = site.store.attempt(lambda state: keep_held(state, job.id))
        if job.managed:
            ended = yield from end_managed(site, job.id, job.policy.stop_timeout_seconds)
        else:
            ended = yield from stop_by_command(site, job) if job.commands.stop else stop_by_pid(site, job)
    return ended, trouble


def stop_orphan(site: Site, job_id: str, patience: float) -> Flow:
    """The same for a managed job of which the config says nothing (any more, or because of a mistake): it may come back."""
    trouble = site.store.attempt(lambda state: hold_job(state, job_id))
    return (yield from end_managed(site, job_id, patience)), trouble


@typed(JOB, TIMEOUT, TRUST, example="stop nightly-index", wants_site=False)
def do_stop(files: Files, args: Any) -> int:
    """Stop a long job and keep it stopped: nothing resumes it until `start`."""
    config, problem = usable_config(files, args, {})
    site = open_site(files, config, args)
    job, stops = config.jobs.get(args.job), []
    if not job and os.path.exists(os.path.join(site.store.job_dir(args.job), "run.json")) or is_orphan(site, args.job):
        if problem:
            warn(f"warning: {problem}")
        stops.append(stop_orphan(site, args.job, 60.0 if args.timeout_seconds is None else args.timeout_seconds))
    elif problem:
        raise problem
    if not stops or job and job.kind == LONG_READ:
        stops.append(stop_by_hand(site, find_long_job(site, args, "stop_timeout_seconds")))
    results = [Driver(site).finish(stop) for stop in stops]
    ended, trouble = any(ended for ended, _ in results), next((trouble for _, trouble in results if trouble), None)
    if trouble:  # a full disk must not keep it running
        conclude(site, "stop.not_held" if ended else "stop.nothing", job=args.job)
        raise trouble
    return conclude(site, "stop.done", job=args.job) if ended else conclude(site, "stop.not_running", JOB_FAILED, job=args.job)


def run_by_hand(site: Site, job: Any) -> Flow:
    with job_lock(site, job, 1.0):
        outcome = yield run_command(site, job, new_id())
        plans = plans_to_verify(site, job)
        trouble = site.store.attempt(lambda state: settle_run(site, state, job, outcome, plans, by="hand"))
    show_output(site, outcome)  # last: a pager that waits must not hold the job
    if trouble:
        raise trouble
    warn_undelivered((yield from deliver(site)))
    phrase = outcome_phrase(outcome)
    if phrase:
        warn("error: " + site.words(phrase))
    return JOB_FAILED if phrase else DONE


@typed(
    JOB,
    flag("--dry-run", "print what would be run; run nothing"),
    flag("--verify", "writes: run the verification too, exit by its result"),
    ALLOW_RISK,
    TIMEOUT,
    TARGET,
    TRUST,
    example="run disk-space",
)
def do_run(site: Site, args: Any) -> int:
    """Run a one-shot job now, print its output, tell what needs attention.  A write needs an approval."""
    job = limited(find_job(site, args.job), args, "run_timeout_seconds")
    if job.kind == LONG_READ:
        raise UsageError(f"job '{job.id}' is a {LONG_READ}", site.advise("start", job.id))
    if args.dry_run:
        return conclude(site, "run.would", argv=site.redact(" ".join(map(shell_word, job.commands.run))), cwd=site.directory(job))
    return Driver(site).finish(run_write(site, job, args.verify) if job.kind == WRITE else run_by_hand(site, job))


def unverified(site: Site, gate: Gate) -> Optional[Reason]:
    """Why the last run of a write does not count as verified; None if it does."""
    return gate_reason(gate, "", "", [], site.clock.now().at) if gate.verify in UNVERIFIED else None


def gate_notes(site: Site, job: Any) -> list:
    """What the next approver should know of the last run."""
    gate = site.store.view().gate(job.id)
    key = {"failed": "note.failed", "unknown": "write.unknown", "begun": "gate.running"}.get(gate.run)
    lines = [site.say(key, code=site.words(code_phrase(gate.run_code)))] if key else []
    reason = unverified(site, gate)
    if reason:
        lines.append(site.say(reason.key, **reason.facts))
    return ["", *lines] if lines else []


def refuse_approval(site: Site, job: Any, plan: Plan, args: Any) -> None:
    """What no person's word can approve."""
    if plan.problem:
        raise blocked(site, job, "gate.unreadable", what=plan.problem)
    if site.config_risk:
        raise blocked(site, job, "gate.config_writable", why=site.config_risk)
    reason = unverified(site, site.store.view().gate(job.id))
    if reason and not args.despite_failed_verification:
        advice = gate_advice(site, job, reason)  # a check that has yet to run comes first
        if reason.key == "gate.verify_failed":
            advice = site.advise("approve", job.id, *(["--request"] if args.request else []), "--despite-failed-verification")
        raise BlockedError("BLOCKED: " + site.say(reason.key, job=job.id, **reason.facts), advice)


def confirm_plan(site: Site, job: Any, plan: Plan, args: Any) -> None:
    """The person's word: the digest, or the job id typed at a terminal."""
    if args.digest:
        if args.digest != plan.digest:
            raise blocked(site, job, "approve.other_digest", "approve", "--show")
        return
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise blocked(site, job, "approve.no_terminal", "approve", "--show")
    print("\n" + site.say("approve.ask"), end="", flush=True)
    if sys.stdin.readline().strip() != job.id:
        raise blocked(site, job, "approve.not_typed", "approve")


def approve_plan(site: Site, job: Any, plan: Plan, args: Any) -> Flow:
    """Ask for the person's word in the way that the job demands, and keep it."""
    refuse_approval(site, job, plan, args)
    clear = args.despite_failed_verification
    despite = ["--despite-failed-verification"] if clear else []
    by_code = bool(job.approval) and job.approval.via == "telegram"
    if args.request:
        if not by_code:
            raise UsageError("approval.via of this job is not telegram", site.advise("approve", job.id))
        yield from request_code(site, job, plan)
        return conclude(site, "code.sent", command=site.advise("approve", job.id, "--digest", "HEX", "--code", "CODE", *despite))
    if by_code and not args.code:
        raise blocked(site, job, "code.needed", "approve", "--request", *despite)
    confirm_plan(site, job, plan, args)
    if by_code:
        refused = yield from check_code(site, job, plan, args.code, clear)
        if refused:
            again = ["--digest", plan.digest, "--code", "CODE"] if refused == "code.wrong" else ["--request"]
            raise blocked(site, job, refused, "approve", *again, *despite)
    else:
        yield Change(lambda state: grant(site, state, job, plan, clear, is_unseen=bool(args.digest)), urgent=True)
    warn_undelivered((yield from deliver(site)))
    conclude(site, "approved", job=job.id, time=duration_text(approval_life(job)))
    return conclude(site, "help.next", command=site.advise("run", job.id, "--verify"))


@typed(
    JOB,
    flag("--show", "print the plan and its digest; approve nothing"),
    option("--digest", default="", metavar="HEX", help="approve exactly the plan with this digest, without a terminal"),
    flag("--request", "approval.via telegram: send a one-time code to the person"),
    option("--code", default="", metavar="CODE", help="the one-time code that the person gave"),
    flag("--despite-failed-verification", "approve although the last run is not verified"),
    example="approve prune-backups",
)
def do_approve(site: Site, args: Any) -> int:
    """Show exactly what a write will do, and approve one run of it."""
    job = find_write(site, args.job)
    plan = make_plan(site, job)
    put([*plan_lines(site, job, plan), *gate_notes(site, job)])
    if args.show:
        print(f"digest: {plan.digest}")
        return DONE
    try:
        return Driver(site).finish(approve_plan(site, job, plan, args))
    except (BlockedError, UndeliveredError) as error:
        why = one_line(str(error))
        site.store.change(lambda state: state.record("approval refused", job.id, why=why, who=who_asks(), digest=plan.digest))
        raise


@typed(JOB, example="revoke prune-backups")
def do_revoke(site: Site, args: Any) -> int:
    """End the approval of a write."""
    job = find_write(site, args.job)

    def apply(state: State) -> bool:
        gate = state.gate(job.id)
        state.keep_gate(job.id, without_code(without_approval(gate)))
        forget_blocked(state, job.id)
        state.record("revoked", job.id, digest=gate.digest, who=who_asks())
        return bool(gate.digest)

    return conclude(site, "revoked" if site.store.change(apply)[0] else "revoke.none", job=job.id)


@typed(
    JOB,
    option("--delay", type=seconds_argument, default=0.0, metavar="S", help="not before this long from now: 90, 15m, 2h"),
    TRUST,
    example="enqueue disk-space --delay 15m",
)
def do_enqueue(site: Site, args: Any) -> int:
    """Queue a one-shot read; the next tick after the delay runs it."""
    job = find_job(site, args.job)
    if job.kind != CHECK or job.risk != READ_ONLY:
        advice = site.advise("start" if job.kind == LONG_READ else "run", job.id)
        raise BlockedError(f"BLOCKED: job '{job.id}' is a {job.kind}; only a one_shot_read is run from the queue", advice)
    entry = site.store.change(lambda state: enqueue(state, job.id, args.delay, "enqueue"))[0]
    return conclude(site, "queued", job=job.id, id=entry["id"], time=site.clock.text(entry["notBefore"]))


# ---- ack, mute, unmute


def change_memory(site: Site, job_id: str, event: str, change: Callable[[Memory, float], dict]) -> tuple:
    """Apply a person's word to a job's memory: `change` gives what becomes different; (memory before, after)."""
    find_job(site, job_id)

    def apply(state: State) -> tuple:
        before = state.memory(job_id)
        after = before._replace(**change(before, state.now))
        state.remember(job_id, after)
        state.record(event, job_id, who=who_asks())
        return before, after

    return site.store.change(apply)[0]


@typed(JOB, TRUST, example="ack nightly-index")
def do_ack(site: Site, args: Any) -> int:
    """End the reminders of a job's open incidents until they change."""

    def acked(memory: Memory, now: float) -> dict:
        opened = {kind: incident._replace(acked_at=now) for kind, incident in open_incidents(memory)}
        return {"incidents": {kind: incident for kind, incident in {**memory.incidents, **opened}.items() if kind != "blocked"}}

    before, _ = change_memory(site, args.job, "ack", acked)
    kinds = [site.say("topic." + kind) for kind, _ in open_incidents(before)]
    return conclude(site, "acked" if kinds else "ack.none", job=args.job, kinds=", ".join(kinds))


@typed(
    JOB,
    option("--for", dest="duration", type=seconds_argument, default=HOUR, metavar="S", help="how long: 90, 15m, 2h; default: 1h"),
    TRUST,
    example="mute nightly-index --for 2h",
)
def do_mute(site: Site, args: Any) -> int:
    """Hold all messages of a job for a while; they are counted and summed up at the end."""
    _, memory = change_memory(site, args.job, "mute", lambda memory, now: {"muted_at": now, "muted_for": args.duration})
    return conclude(site, "mute.done", job=args.job, time=site.clock.text(memory.muted_at + memory.muted_for))


@typed(JOB, TRUST, example="unmute nightly-index")
def do_unmute(site: Site, args: Any) -> int:
    """End a mute now; the next look sums up what was held."""

    def ended(memory: Memory, now: float) -> dict:
        return {"muted_for": min(memory.muted_for, 0.001), "muted_at": min(memory.muted_at, now - 1.0)}

    change_memory(site, args.job, "unmute", ended)
    return conclude(site, "mute.ended", job=args.job)


# ---- status, explain


def state_word(site: Site, row: Row) -> str:
    """The state of a job in one or two words."""
    look = row.look
    seen = "" if look is None else "waiting" if look.state == RUNNING and look.waiting else look.state
    word = site.say("word." + word_of_state(row.job, row.memory, row.gate, seen, site.clock.now().at))
    return word + (", " + site.say("word.held") if row.memory.held_at and seen in (RUNNING, "waiting", UNKNOWN) else "")


def next_action(site: Site, row: Row) -> tuple:
    """(words, epoch seconds or 0.0) of what happens next by itself."""
    job = row.job
    reason = row.decision and row.decision.reasons.get("resume") or Reason("resume.off")
    has_slots, is_stopped = job.kind == CHECK and job.enabled and job.policy.every_seconds, row.look and row.look.state == STOPPED
    queued = [entry["notBefore"] for entry in site.store.view().queue if entry.get("jobId") == job.id and entry.get("status") == "pending"]
    runs = [*(queued if job.kind == CHECK else ()), *([next_slot(job, row.memory)] if has_slots else ())]
    found = first_reason(
        (runs, "next.run", min(runs, default=0.0)),
        (not job.enabled and job.kind != WRITE, "next.disabled"),
        (job.kind != LONG_READ, "next.by_hand"),
        (reason.key in ("resume.now", "resume.backoff"), "next.resume", reason.again_at),
        (is_stopped and row.memory.held_at, "next.held"),
        (is_stopped and reason.key in ("resume.gave_up", "resume.changed"), "next." + reason.key.partition(".")[2]),
        (True, "next.look"),
    )
    return site.say(found.key), found.again_at


def next_text(site: Site, row: Row, time_text: Callable[[float], str]) -> str:
    words, at = next_action(site, row)
    return words + (" " + time_text(at) if at else "")


def gate_json(gate: Gate, now: float) -> dict:
    valid = gate if is_approved(gate, now) else Gate()
    until = valid.approved_at + valid.approved_for
    approval = {"approved": bool(valid.digest), "digest": valid.digest or None, "approvedUntil": until or None}
    return {**approval, "run": gate.run or None, "verification": "failed" if gate.verify == "other" else gate.verify or None, "overdue": is_overdue(gate, now)}


def incident_json(site: Site, kind: str, incident: Incident) -> dict:
    return {
        "kind": kind,
        "level": {WARN: "warn", ALERT: "alert"}.get(incident.rank, "notice"),
        "sinceAt": incident.since_at,
        "toldAt": incident.told_at or None,
        "ackedAt": incident.acked_at or None,
        "text": one_line(say(site.lang, incident.key, **incident.facts), 300),
    }


def job_json(site: Site, row: Row) -> dict:
    """One job as `status --json` gives it; keys are stable, more may come."""
    job, memory, look = row.job, row.memory, row.look
    words, at = next_action(site, row)
    state = look.state if look else "running" if memory.action == "run" else "idle"
    shown = {key: getattr(job, key) for key in ("id", "name", "kind", "risk", "enabled", "managed")}
    shown["name"] = name_of_job(site, job.id)
    shown.update(
        state=state, running=state == RUNNING, completed=state == COMPLETED, held=bool(memory.held_at) and job.kind == LONG_READ,
        attempts=memory.attempts, gaveUp=bool(memory.gave_up_at), lastLookAt=memory.looked_at or None, lastReportAt=memory.reported_at or None,
        lastRunAt=memory.ran_at or None, lastExitCode=memory.ran_code if memory.ran_at and memory.ran_code != NOT_RUN else None,
        stalledForSeconds=round(memory.stalled_for, 3), mutedUntil=memory.muted_at + memory.muted_for if is_muted(memory, site.clock.now()) else None,
        incidents=[incident_json(site, *item) for item in open_incidents(memory)], next={"action": words, "at": at or None},
    )  # fmt: skip
    if job.kind == WRITE:
        shown["gate"] = gate_json(row.gate, site.clock.now().at)
    if look:
        shown.update(
            pid=look.pid or None, progress=look.progress, progressKey=look.key or None, level=look.level, waiting=look.waiting,
            message=look.message or None, stopReason=look.stop_reason or None,
            problem=site.words(look.problem) if look.problem else None,
        )  # fmt: skip
    return shown


def orphans(site: Site, state: State) -> list:
    return [] if other_config(site, state) else [job_id for job_id in state.jobs if is_orphan(site, job_id)]


def status_json(site: Site, state: State, rows: list) -> dict:
    error = outbox_error(state.outbox) or (state.outbox and find_receiver(site).problem) or None  # nobody to tell: not even tried
    return {
        "version": 1,
        "at": round(state.now, 3),
        "configFile": site.config_file,
        "stateFile": site.store.path,
        "lastTickAt": state.own_memory().looked_at or None,
        "jobs": [job_json(site, row) for row in rows],
        "broken": [{"id": job_id, "problem": problem} for job_id, problem in site.config.broken.items()],
        "orphans": orphans(site, state),
        "queue": [{key: entry.get(key) for key in ("id", "jobId", "notBefore", "status", "attempt")} for entry in filter(is_waiting, state.queue)],
        "outbox": {"waiting": len(state.outbox), "error": error},
    }


def progress_words(site: Site, look: Optional[Observation]) -> str:
    """How far a job is, or why that cannot be told."""
    if look is None or look.problem:
        return site.words(look.problem) if look and look.problem else ""
    is_keyless = look.state == RUNNING and not look.key
    share = " ".join(reversed(bar(look.progress).split()))  # the number first: it is what must stay
    return share or ", ".join(progress_lines(look.progress, {})[:2]) or (site.say("status.keyless") if is_keyless else "")


ID_COLUMNS = 24  # a longer id has a line of its own
PIPED_COLUMNS = 100  # of a line where there is no terminal


def status_cells(site: Site, row: Row) -> list:
    """The cells of one job, the progress last: it gives way where room is short."""
    told_at = row.memory.reported_at or row.memory.ran_at
    return [
        row.job.id if display_width(row.job.id) <= ID_COLUMNS else "",
        state_word(site, row),
        site.clock.short_text(told_at) if told_at else "-",
        next_text(site, row, site.clock.short_text),
        one_line(progress_words(site, row.look), 60) or "-",
    ]


def columns_shown(piped: int = PIPED_COLUMNS) -> tuple:
    """(columns of a line, whether to colour it); both are steady where there is no terminal."""
    try:
        is_terminal = sys.stdout.isatty()
        columns = os.get_terminal_size(sys.stdout.fileno()).columns if is_terminal else 0  # also 0 where nobody told the terminal
        return columns or piped, is_terminal and not os.environ.get("NO_COLOR")
    except (OSError, ValueError):
        return piped, False


def job_lines(site: Site, row: Row, line: str, width: int) -> list:
    """The line of a job in the table; above it an id that is too long, below it each trouble."""
    lines = [line] if line[:1].strip() else [row.job.id, line]
    if is_muted(row.memory, site.clock.now()):
        lines.append("  " + site.say("word.muted", time=site.clock.short_text(row.memory.muted_at + row.memory.muted_for)))
    for kind, incident in open_troubles(row.memory):
        words = one_line(say(site.lang, incident.key, **incident.facts))
        text = site.say("status.trouble", kind=site.say("topic." + kind), time=site.clock.short_text(incident.since_at), text=words)
        lines += folded("  " + text, max(width, 40), "    ")
    return lines


def colored(lines: list, row: Row) -> list:
    """The lines of a job in trouble in red or yellow."""
    ranks = [incident.rank for _, incident in open_troubles(row.memory)]
    color = 31 if max(ranks, default=0) >= ALERT else 33
    return [f"\x1b[{color}m{line}\x1b[0m" for line in lines] if ranks else lines


def status_lines(site: Site, state: State, rows: list) -> list:
    """The table, then what else a person should know."""
    head = [site.say("column." + name) for name in ("job", "state", "report", "next", "progress")]
    width, has_color = columns_shown()
    first, *others = table([head, *(status_cells(site, row) for row in rows)], width)
    lines = [first]
    for row, line in zip(rows, others):
        mine = job_lines(site, row, line, width)
        lines += colored(mine, row) if has_color else mine
    notes = [site.say("status.broken", job=job_id, problem=problem) for job_id, problem in site.config.broken.items()]
    notes += [site.say("status.orphan", job=job_id, command=site.advise("stop", job_id)) for job_id in orphans(site, state)]
    waiting = [one_line(str(entry.get("jobId")), 40) for entry in state.queue if is_waiting(entry)]
    if waiting:
        notes.append(site.say("status.queue", jobs=", ".join(waiting[:8]), count=len(waiting)))
    if state.outbox:
        error = outbox_error(state.outbox)
        notes.append(site.say("status.outbox" if error else "status.untried", count=len(state.outbox), error=error, command=site.advise("doctor")))
    ticked = state.own_memory().looked_at
    notes.append(site.say("status.tick", time=site.clock.full_text(ticked)) if ticked else site.say("status.no_tick"))
    return lines + [part for note in notes for part in folded(note, max(width, 40), "  ")]


@typed(SOME_JOB, AS_JSON, TRUST, example="status --json")
def do_status(site: Site, args: Any) -> int:
    """Look at the jobs and show them.  Sends nothing, writes nothing."""
    rows = look_around(site, [find_job(site, args.job)] if args.job else list(site.config.jobs.values()))
    state = site.store.view()
    if site.store.is_unreadable():
        warn("warning: " + site.say("state.unreadable", path=site.store.path))
    put([json.dumps(status_json(site, state, rows), ensure_ascii=False, indent=2)] if args.json else status_lines(site, state, rows))
    return DONE


def known_lines(site: Site, row: Row) -> list:
    """What is known of a job."""
    job, memory, look, full_text = row.job, row.memory, row.look, site.clock.full_text
    is_off = not job.enabled and job.kind != WRITE
    lines = [f"{job_label(name_of_job(site, job.id), job.id)} · {job.kind} · {job.risk}" + (" · " + site.say("next.disabled") if is_off else "")]
    since = " " + site.say("since", time=full_text(memory.state_at)) if look and look.state == memory.state else ""
    lines.append(site.say("explain.state", state=state_word(site, row)) + since)
    if look:
        facts = [site.words(look.problem)] if look.problem else []
        facts += [site.say("line.stop_reason", reason=look.stop_reason)] if look.stop_reason else []
        lines += ["  " + line for line in facts + progress_lines(look.progress, memory.reported_progress)]
        if look.key and look.key == memory.key:
            stalled, limit = duration_text(memory.stalled_for), duration_text(job.policy.stall_seconds) if job.policy.stall_seconds else "-"
            lines.append(site.say("explain.key", time=full_text(memory.key_at), stalled=stalled, limit=limit))
    if memory.ran_at:
        lines.append(site.say("explain.ran", time=full_text(memory.ran_at), code=site.words(code_phrase(memory.ran_code))))
    for kind, incident in open_troubles(memory):
        words, kind = one_line(say(site.lang, incident.key, **incident.facts), 200), site.say("topic." + kind)
        told = site.say("explain.incident", kind=kind, time=full_text(incident.since_at), text=words, reminders=incident.reminders)
        lines.append(told + (" · " + site.say("incident.acked") if incident.acked_at else ""))
    return lines


def rule_lines(site: Site, row: Row) -> list:
    """What a tick at this moment would decide, and why."""
    job, memory = row.job, row.memory
    lines = [reason_text(site, Reason("muted", memory.muted_at + memory.muted_for))] if is_muted(memory, site.clock.now()) else []
    if job.kind == LONG_READ and not job.enabled:
        return [*lines, site.say("explain.disabled")]
    if row.decision:
        return [*lines, site.say("explain.decisions"), *("  " + line for line in decision_lines(site, job, row.decision))]
    if job.kind == CHECK:
        return [*lines, f"{site.say('topic.due')}: {reason_text(site, due_reason(job, memory, site.clock.now()))}"]
    plan = make_plan(site, job)
    reason = write_reason(site, row.gate, plan, site.clock.now().at)
    words = site.say(reason.key, **reason.facts)
    notes = [note for note in gate_notes(site, job) if note not in ("", words)]
    return [*lines, words, *notes, site.say("help.next", command=gate_advice(site, job, reason))]


@typed(JOB, TRUST, example="explain nightly-index")
def do_explain(site: Site, args: Any) -> int:
    """What is known of a job, which rule decided what and why, and what happens next."""
    row = look_around(site, [find_job(site, args.job)])[0]
    put([*known_lines(site, row), *rule_lines(site, row)])
    print(site.say("explain.next", action=next_text(site, row, site.clock.full_text)))
    return DONE


# ---- history, logs


FACT_ROWS = {"reason": "", "by": "by.", "result": "result.", "again": "again."}  # facts that are words, and where their rows begin


def fact_words(site: Site, name: str, value: Any) -> str:
    """A fact of a history record in the person's language, as short as it is still told."""
    row = FACT_ROWS.get(name, "?") + number_text(value)
    if row in MESSAGES:
        return site.say(row).rstrip("-:： ")  # a record does not keep the facts of a reason
    if name == "by" and str(value).startswith("after "):
        return site.say("by.after", job=value[6:])
    if name in ("seconds", "delay") and is_number(value):
        return duration_text(value)
    if name == "code" and (value is None or type(value) is int):
        return site.words(code_phrase(value))
    return "" if value is None else str(value)[:12] if name == "digest" else one_line(str(value), 300)


def history_line(site: Site, item: dict, job_columns: int, width: int) -> str:
    """One record on one line."""
    row, job_id = f"event.{item.get('event')}".replace(" ", "_"), str(item.get("job") or "")
    facts = {name: value for name, value in {"reason": item.get("code"), **item}.items() if name not in ("at", "event", "job")}
    words = say(site.lang, row, **{name: fact_words(site, name, value) for name, value in facts.items()})
    words = words.replace(f" · {job_label(name_of_job(site, job_id), job_id)} ", " · ", 1) if job_id else words  # it stands before them
    job = pad(cut_columns(job_id or "-", job_columns), job_columns) + "  " if job_columns else ""
    return cut_columns(f"{site.clock.full_text(item['at'])[5:]}  {job}{words}", width)


@typed(
    SOME_JOB,
    option("--since", type=seconds_argument, default=DAY, metavar="S", help="how far back: 90, 15m, 2d; default: 1d"),
    AS_JSON,
    TRUST,
    example="history nightly-index --since 2d",
    wants_site=False,
)
def do_history(files: Files, args: Any) -> int:
    """What happened: starts, runs, approvals, incidents, messages."""
    config, problem = usable_config(files, args, {})
    site = open_site(files, config, args)
    is_unknown = args.job and args.job not in site.store.view().jobs
    if problem and is_unknown:
        raise problem
    if problem:
        warn(f"warning: {problem}")
    elif is_unknown:
        find_job(site, args.job)  # or the nearest name is said
    since = site.clock.now().at - args.since
    items = [item for item in history_records(site.store.history_path) if item["at"] >= since and args.job in (None, item.get("job"))]
    job_columns = 0 if args.job else min(20, max((display_width(str(item.get("job") or "-")) for item in items), default=0))
    width, _ = columns_shown(10_000)  # nothing is cut off for a program that reads it
    put(json.dumps(item, ensure_ascii=False) if args.json else history_line(site, item, job_columns, width) for item in items)
    return DONE


@typed(
    JOB,
    option("-n", type=line_count, default=40, metavar="N", help="lines from the end; default: 40"),
    option("-f", "--follow", action="store_true", help="go on as the log grows"),
    TRUST,
    example="logs nightly-index -n 20",
)
def do_logs(site: Site, args: Any) -> int:
    """Show the log of a long job (its start log, if it is not managed) or of a write."""
    directory = site.store.job_dir(args.job)
    job = site.config.jobs.get(args.job) if os.path.isdir(directory) else find_job(site, args.job)
    name = "write.log" if job and job.kind == WRITE else "start.log" if job and not job.managed else "run.log"
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        if job and job.kind == CHECK:
            raise UsageError(f"a {CHECK} keeps no log: `run` prints its output, `history` tells of its runs", site.advise("history", job.id))
        raise OpsError(f"no log yet: {path}", site.advise("approve" if job and job.kind == WRITE else "start", args.job))
    with open(path, "rb") as file:
        begin = file.seek(max(0, file_size(path) - (1 << 20)))
        data = file.read()
        lines = site.redact.read(without_cut_begin(data) if begin else data).split("\n")
        lines = lines if lines[-1] else lines[:-1]
        put(lines[max(0, len(lines) - args.n) :])
        rest = b""
        while args.follow:
            sys.stdout.flush()
            time.sleep(0.3)
            if file_size(path) < file.tell():  # trimmed: go on at its end
                file.seek(0, os.SEEK_END)
            data = rest + file.read(1 << 20)
            whole = max(data.rfind(end) for end in (b"\n", b"\r")) + 1 or len(data) >> 16 << 16  # half a credential is not known as one
            print(site.redact.read(data[:whole]), end="")
            rest = data[whole:]
    return DONE


# ---- selftest: is this file whole, and can this machine carry it?


def scratch_site(directory: str, config: str) -> Site:
    """An installation in a directory of its own; what it would tell is kept in `printed`."""
    dirs = openclaw_places({"OPENCLAW_HOME": directory}, directory, os.path.exists)
    files = Files(os.path.join(directory, "ops-jobs.json"), os.path.join(directory, "state.json"), directory, dirs)
    site = make_site(files, read_config(config))
    site.printed = []
    return site


def check_decisions(directory: str) -> Iterator[str]:
    """A few rows of the judgement's table."""
    job = make_job({"id": "x", "kind": LONG_READ, "risk": READ_ONLY, "enabled": True, "commands": {}, "policy": {"autoResume": True}}, {}, 0)
    noon, night = Instant(1_000_000.0, 9_000.0, "boot"), Instant(1_000_000.0, 9_000.0, "boot", minute=0)
    stuck = Memory(state=RUNNING, last_look=RUNNING, key="k", boot="boot", looked_awake=5_000.0)
    told = Memory(incidents={"unknown": Incident(opened_at=1.0, told_at=1.0, told_rank=ALERT, texts=TEXTS_TOLD)})
    for now, state, memory, topic, expected in (
        (noon, STOPPED, Memory(), "resume", "resume.now"),
        (noon, UNKNOWN, Memory(), "resume", "resume.unknown"),
        (noon, STOPPED, Memory(held_at=1.0), "resume", "resume.held"),
        (noon, RUNNING, stuck, "stalled", "incident.opened"),
        (noon, RUNNING, Memory(), "report", "report.first"),
        (night, RUNNING, Memory(), "report", "report.quiet_hours"),
        (noon, UNKNOWN, Memory(), "unknown", "incident.opened"),
        (noon, UNKNOWN, told, "unknown", "incident.reminder"),
        (noon, RUNNING, told, "unknown", "incident.resolved"),
    ):
        found = decide_long(job, Observation(now, state, key="k"), memory, now).why(topic)
        if found != expected:
            yield f"decision rules: expected {expected}, found {found or 'nothing'}: this file is damaged, copy it again"


def check_texts(directory: str) -> Iterator[str]:
    """The redactor and the tolerant JSON reader."""
    token = "1" * 9 + ":" + "Aa0_-" * 7  # made here: a literal would look like somebody's
    if token in Redactor().tidy(f"POST /bot{token}/x") or "hunter" in Redactor(["hunter-42"]).tidy("it is hunter-42"):
        yield "a credential is not masked: messages and logs could show it"
    if parse_json("{// so\n a: 'b', n: [+.5,],}") != {"a": "b", "n": [0.5]}:
        yield "JSON with comments is misread: the config could be misunderstood"


def check_clocks(directory: str) -> Iterator[str]:
    first = awake_seconds()
    if awake_seconds() < first or not boot_identity():
        yield "no boot identity or no steady clock on this machine: stalls and living processes cannot be told"


def check_locks(directory: str) -> Iterator[str]:
    locks = [try_lock(os.path.join(directory, "check.lock")) for _ in range(2)]
    for fd in filter(None, locks):
        os.close(fd)
    if locks[0] is None or locks[1] is not None:
        yield f"locks do not exclude each other in {directory}: two ticks could start one job twice"


def check_writes(directory: str) -> Iterator[str]:
    path = os.path.join(directory, "check.json")
    write_durably(path, b"old")
    write_durably(path, b"new")
    if read_file(path) != b"new":
        yield f"a replaced file in {directory} shows its old content: what was told could be told again"


def check_state(directory: str) -> Iterator[str]:
    """A tiny state of v1: taken over, changed, read again."""
    path = os.path.join(directory, "state-v1.json")
    write_durably(path, b'{"jobs": {"x": {"lastProgressKey": "7", "lastReportAt": 1000}}, "mine": 1}')
    Store(path, Clock()).change(lambda state: state.remember("x", state.memory("x")._replace(pid=4)))
    state = Store(path, Clock()).view()
    memory = state.memory("x")
    if (memory.key, memory.reported_at, memory.pid, state.raw.get("mine")) != ("7", 1000.0, 4, 1) or not os.path.exists(path + ".v1-backup"):
        yield "a state file does not come back as it was saved: jobs could be forgotten or told twice"


LEAVER = "import os, time\nif not os.fork(): os.setsid()\ntime.sleep(60)"  # half of it leaves the process group


def check_processes(directory: str) -> Iterator[str]:
    """Exit codes, output and signals arrive; a command that hangs ends in time, and so does what left its group."""
    pool, env, marker = Pool(4, Clock().now), {"PATH": "/usr/bin:/bin"}, new_id()
    pool.add(Command(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], directory, env, 5.0), "exit")
    pool.add(Command(["/bin/sh", "-c", "kill -9 $$"], directory, env, 5.0), "signal")
    pool.add(Command([sys.executable or "python3", "-I", "-S", "-c", LEAVER], directory, env, 0.5, marker=marker), "hang")
    found: dict = {}
    try:
        while pool.busy:
            found.update(pool.wait(6.0))
    finally:
        pool.end_all()
    ended = found["exit"]
    if (ended.code, ended.out, ended.err) != (3, b"out\n", b"err\n"):
        yield f"a command's exit code or output was lost: {ended.code}: failures would go unseen"
    if found["signal"].code != -signal.SIGKILL:
        yield f"a killed command does not show as killed: {found['signal'].code}"
    until = time.monotonic() + 1.0
    while marked_processes(marker) and time.monotonic() < until:
        time.sleep(0.01)
    if not found["hang"].timed_out or marked_processes(marker):
        yield "a command that hangs was not ended with all it started: it would pile up, tick after tick"


GATE_CONFIG = """{"version": 1, "jobs": [
  {"id": "write", "kind": "one_shot_write", "risk": "write_local", "after": [{"jobId": "look"}],
   "commands": {"run": ["/bin/sh", "-c", "echo > written"]}},
  {"id": "look", "kind": "one_shot_read", "risk": "read_only", "commands": {"run": ["/bin/sh", "-c", ":"]}}
]}"""


def check_gate(directory: str) -> Iterator[str]:
    """A write that somebody queued: a tick refuses it, and says so."""
    site = scratch_site(directory, GATE_CONFIG)
    site.store.change(lambda state: enqueue(state, "write", 0.0, "selftest"))
    plan_tick(site).run()
    told = [entry["text"] for entry in site.printed or []]
    if os.path.exists(os.path.join(directory, "written")) or "BLOCKED" not in "".join(told):
        yield "a tick ran a write, or did not refuse it: this file is damaged, do not use it"


SELFTESTS = (check_decisions, check_texts, check_clocks, check_locks, check_writes, check_state, check_processes, check_gate)


@typed(wants_site=False)
def do_selftest(files: Files, args: Any) -> int:
    """Check this installation offline: locks, durable writes, process groups, clocks, decision rules, state file."""
    import tempfile

    problems: list = []
    parent = os.path.dirname(files.state_file)
    with tempfile.TemporaryDirectory(dir=parent if os.access(parent, os.W_OK) else None, prefix=".ops-selftest-") as directory:
        for check in SELFTESTS:
            try:
                problems += check(directory)
            except (OSError, OpsError) as error:  # a full, read-only or broken disk is what it looks for
                problems.append(f"cannot work in {parent}: {os_words(error) if isinstance(error, OSError) else error}")
    warn(*(f"error: {problem}" for problem in dict.fromkeys(problems)))
    if problems:
        return JOB_FAILED
    print("selftest: OK")
    return DONE


# ---- doctor: all that stands between a job and a person.  Facts first, then what mends them.

MACHINE = ""  # what stands before /etc, /Library and /proc; tests build a machine of their own
OLDEST_PYTHON = (3, 9)
RELEASE_YEAR = 2026  # no clock that is right shows an earlier one
HELD_LONG = 1.0  # seconds; transactions take milliseconds
NETWORK_FILESYSTEM = r"nfs4?|cifs|smb.*|9p|afs|ceph|davfs|fuse\.(sshfs|rclone|davfs2|glusterfs|s3fs)"


class Health(NamedTuple):
    """One line of `doctor`: how it is, and what mends it."""

    level: str  # ok, warn or fail
    facts: str
    mend: str = ""  # a command, or the step to take


def state_of_entry(entry: Entry, home: str) -> str:
    """The state file that a scheduler's entry works on."""
    env = {"HOME": home, **entry.env}
    words = [part for word in entry.call.options for part in word.split("=", 1)]
    given = next((path for name, path in zip(words, words[1:]) if name == "--state-file"), "")
    return os.path.realpath(files_for(env, "", re.sub(r"^\$(HOME|\{HOME\})(?=/)", "~", given)).state_file)


class Patient:
    """What the checks look at, collected once, whatever is broken."""

    def __init__(self, files: Files, args: Any):
        self.files, self.args = files, args
        self.was_heard = False  # a test message has arrived just now
        self.trust = check_trust(files.config_file, files.home)
        self.state, self.has_state = State({"version": STATE_VERSION}, time.time()), False  # examine_state says why
        try:
            store = Store(files.state_file, Clock())
            self.state, self.has_state = store.view(), not store.is_unreadable()
        except OpsError:
            pass
        trusting = argparse.Namespace(**{**vars(args), "trust_permissions": True})
        config, self.trouble = usable_config(files, trusting, self.state.raw["receiver"])  # examine_config tells the trouble
        self.site = called_site(files, config, args)
        self.delivery = config.delivery
        self.openclaw = load_openclaw_of(self.site)
        self.token = find_token(self.openclaw, self.delivery.account, read_secret_file)
        self.site.redact.learn([self.token.value] if self.token.value else [])
        try:
            self.receiver = find_receiver(self.site)
        except OpsError as error:
            self.receiver = Receiver(problem=str(error), advice=error.advice)
        self.needs_openclaw = self.delivery.via in ("auto", "api", "openclaw")
        listed = ask_system(self.site, ["crontab", "-l"])
        found = find_schedulers(MACHINE, files.home, listed.out.decode("utf-8", "replace") if listed.is_good else "")
        mine = [entry for entry in found if entry.user in ("", user_name(os.geteuid()))]
        self.entries = [entry for entry in mine if state_of_entry(entry, files.home) == os.path.realpath(files.state_file)]
        self.strangers = [entry for entry in mine if entry not in self.entries]

    def words(self, outcome: Outcome) -> str:
        """Its last line, after why it is not good."""
        said = last_lines(self.site.redact.read(outcome.out + b"\n" + outcome.err), 1, 200)
        phrase = outcome_phrase(outcome)
        return ": ".join(filter(None, [phrase and phrase_text("en", phrase), said]))


def examine_python(patient: Patient) -> Iterator[Health]:
    """Of this process, which is new enough, or it would not be here; entry_problems asks for the scheduler's."""
    yield Health("ok", f"{sys.version.split()[0]} at {sys.executable}, ops-monitor.py {VERSION} at {os.path.abspath(__file__)}")


def examine_clock(patient: Patient) -> Iterator[Health]:
    clock, mend = patient.site.clock, "set the clock, then: date"
    now, saved_at = clock.now().at, epoch_seconds(patient.state.raw.get("savedAt"))
    text = time.strftime("%Y-%m-%d %H:%M:%S %z", clock.local(now))
    if clock.local(now).tm_year < RELEASE_YEAR:
        yield Health("fail", f"it shows {text}, a time before this program was released", mend)
    elif saved_at > now + 5.0:
        yield Health("warn", f"it shows {text} and was set back: the state was saved {duration_text(saved_at - now)} later", mend)
    else:
        yield Health("ok", text)
    if clock.problem:
        yield Health("warn", clock.problem, f"mend monitor.timezone in {patient.files.config_file}, or install the system's tzdata")


def examine_config(patient: Patient) -> Iterator[Health]:
    site, path, config = patient.site, patient.files.config_file, patient.site.config
    if patient.trouble:
        yield Health("fail", str(patient.trouble), patient.trouble.advice)
        return
    warnings = [problem for problem in config.problems if not problem.is_error]
    missing = list(missing_things(site))
    for level, what, problems in (("fail", "errors", config.errors), ("warn", "warnings", warnings), ("warn", "missing", missing)):
        for line in problem_lines(config._replace(problems=tuple(problems)), path)[:1]:
            yield Health(level, f"{what}: {len(problems)}, the first: {line}", site.advise("validate-config"))
    jobs = config.jobs.values()
    watched = [job for job in jobs if job.kind == LONG_READ or job.policy.every_seconds]
    if not jobs:
        yield Health("warn", "it has no job", f"add one to {path}; ops-jobs.example.json shows some")
    elif watched and not any(job.enabled for job in watched):
        yield Health("warn", "no job is enabled: a tick watches nothing", f'set "enabled": true of a job in {path}')
    else:
        yield Health("ok", f"{path}, jobs: {len(jobs)}, enabled: {sum(job.enabled for job in jobs)}")


def examine_permissions(patient: Patient) -> Iterator[Health]:
    home, secret, found = patient.files.home, patient.openclaw.path, []
    refuse_foreign_root(patient.files.config_file, patient.files.state_file)  # what is foreign to root is its owner's: nothing to mend
    writes = ", ".join([job.id for job in patient.site.config.jobs.values() if job.kind == WRITE][:5])
    blocked_too = f"; these writes stay BLOCKED: {writes}" if writes else ""
    state, openclaw = (check_trust(path, home) if path else Trust() for path in (patient.files.state_file, secret))
    for level, what, trust, more in (
        ("fail", "config", patient.trust, blocked_too), ("fail", "state", state, blocked_too), ("warn", "OpenClaw's config", openclaw, ""),
    ):  # fmt: skip
        if trust.doubt:
            found.append(Health(level if trust.refusal else "warn", f"{what}: {trust.refusal or trust.warning}{more}", trust.mend))
    if os.path.exists(secret) and os.stat(secret).st_mode & 0o077:
        found.append(Health("warn", f"{secret} holds the token, and others may open it", f"chmod 600 {shell_word(secret)}"))
    yield from found or [Health("ok", "nobody else can write the config, the state or what leads to them")]


def examine_place(patient: Patient) -> Iterator[Health]:
    """The directory of the state: may we write there, do locks and durable writes work, is it on this machine?"""
    import tempfile

    refuse_foreign_root(patient.files.state_file)
    place, me = existing_place(patient.files.state_file), user_name(os.geteuid())
    owner = os.stat(place).st_uid
    if not os.path.isdir(place):
        yield Health("fail", f"{place} is not a directory", f"mv {shell_word(place)} {shell_word(place)}.aside")
        return
    if not os.access(place, os.W_OK | os.X_OK):
        wanted = os.path.dirname(patient.files.state_file)
        owned = f"chmod u+rwx {shell_word(place)}" if owner == os.geteuid() else f"sudo install -d -m 700 -o {os.geteuid()} {shell_word(wanted)}"
        yield Health("fail", f"{place} cannot be written by {me}", "mount it writable" if os.statvfs(place).f_flag & os.ST_RDONLY else owned)
        return
    elsewhere = "name a state file on a local disk: --state-file PATH"
    with tempfile.TemporaryDirectory(dir=place, prefix=".ops-doctor-") as directory:
        found = [Health("fail", words.replace(directory, place), elsewhere) for words in (*check_locks(directory), *check_writes(directory))]
    point, kind = mount_of(os.path.realpath(place), text_in(f"{MACHINE}/proc/mounts"))
    if re.fullmatch(NETWORK_FILESYSTEM, kind):
        found.append(Health("warn", f"{place} is on a network filesystem ({kind} at {point}): its locks may not hold", elsewhere))
    yield from found or [Health("ok", f"{place} {kind}".strip())]


def examine_disk(patient: Patient) -> Iterator[Health]:
    place = existing_place(patient.files.state_file)
    found = os.statvfs(place)
    free, share = found.f_bavail * found.f_frsize / 1e6, found.f_bavail / max(1, found.f_blocks)
    inodes = found.f_favail / found.f_files if found.f_files else 1.0  # some filesystems do not count them
    level = "fail" if free < 20 or not inodes else "warn" if free < 200 or min(share, inodes) < 0.05 else "ok"
    facts = f"free beside the state: {free:.0f} MB, {share:.0%} of the space, {inodes:.0%} of the inodes"
    yield Health(level, facts, f"df -h {shell_word(place)}; df -i {shell_word(place)}; then remove what is not needed")


def examine_state(patient: Patient) -> Iterator[Health]:
    site, path = patient.site, patient.files.state_file
    lock = site.store.lock_path("state")
    if is_held(lock, HELD_LONG):
        yield Health("fail", f"another process holds {lock}: nothing can be saved", f"lsof {shell_word(lock)}")
    aside = [other for other in paths_in(os.path.dirname(path)) if other.startswith(f"{path}.corrupt-")]
    if aside:
        yield Health("warn", f"states that could not be read: {len(aside)}, the last: {aside[-1]}", f"look into it, then: rm {shell_word(aside[-1])}")
    if site.store.is_unreadable():
        yield Health("fail", f"{path} is not a state: the next tick moves it aside and begins anew", site.advise("tick"))
        return
    for other, is_right in ((site.store.history_path, os.path.isfile), (site.store.stem + ".jobs", os.path.isdir)):
        if os.path.exists(other) and not (is_right(other) and os.access(other, os.W_OK)):
            yield Health("fail", f"{other} cannot be written by {user_name(os.geteuid())}", f"ls -ld {shell_word(other)}")
    serves = other_config(site, site.store.view())
    if serves:
        yield Health("warn", f"{site.store.path} serves {serves}, not {site.config_file}", site.advise("status"))
    yield Health("ok", path if os.path.exists(path) else f"{path} is not there yet, the first tick makes it")


def examine_openclaw(patient: Patient) -> Iterator[Health]:
    """OpenClaw's config: broken, it stops OpenClaw; us only if it takes away the token or the target."""
    if not patient.needs_openclaw:
        yield Health("ok", f"not needed: delivery.via is {patient.delivery.via}")
    elif not patient.openclaw.problems:
        yield Health("ok", patient.openclaw.path)
    else:
        for problem in patient.openclaw.problems[:5]:
            name, ours = problem.split(":")[0], patient.files.config_file
            mend = f"mend {name}" if os.path.exists(name) else f"name it with OPENCLAW_CONFIG_PATH, or set delivery.via in {ours}"
            yield Health("fail" if patient.receiver.problem else "warn", problem, mend)


def examine_token(patient: Patient) -> Iterator[Health]:
    token, has_program = patient.token, "openclaw" in patient.receiver.ways
    if not patient.needs_openclaw:
        return
    if token.value:
        bot = re.match(r"\d{5,12}:", token.value)  # its public number
        yield Health("ok", f"{bot[0] if bot else ''}{MASK} from {token.source}")
        env = {"HOME": patient.files.home, **(patient.entries[0].env if patient.entries else {})}
        if find_token(load_openclaw_of(patient.site, env), patient.delivery.account, read_secret_file).value != token.value:
            mend = f"put the variable into {patient.site.dirs.state_dir}/.env, mode 0600"
            yield Health("warn", "it comes from the environment of this shell, which a scheduler does not have", mend)
    else:
        why = f"{token.problem} ({token.source})" if token.source else "none in OpenClaw's config, nor in TELEGRAM_BOT_TOKEN"
        mend = token_advice(token, patient.openclaw)
        yield Health("warn" if has_program else "fail", why + ("; openclaw will send" if has_program else ""), mend)


def examine_target(patient: Patient) -> Iterator[Health]:
    site, delivery = patient.site, patient.delivery
    if not patient.needs_openclaw:
        return
    given, found = wanted_chat(site, patient.openclaw)
    if given and (found or delivery.channel != "telegram"):
        yield Health("ok", f"{given} from {'--target' if site.target else 'delivery.target'}")
    elif found:
        yield Health("ok", f"{found[0]} from {found[2]} in OpenClaw's config")
    elif patient.receiver.chat and not given:
        yield Health("warn", f"{patient.receiver.chat}, whom the last message reached: OpenClaw's config is broken", f"mend {patient.openclaw.problems[0]}")
    else:
        words = f"'{given}' is no chat of Telegram" if given else "none is named: nobody would be told"
        chat = "your chat id, a number" if delivery.channel == "telegram" else f"whom to tell on {delivery.channel}"
        yield Health("fail", words, f"set delivery.target in {patient.files.config_file} to {chat}")


def examine_way(patient: Patient) -> Iterator[Health]:
    receiver, delivery = patient.receiver, patient.delivery
    if receiver.problem:
        yield Health("fail", receiver.problem, receiver.advice)
        return
    why = f"delivery.via is {delivery.via}"
    if delivery.via == "auto":
        why += (", a token can be read" if "api" in receiver.ways else ", no token can be read" if not patient.token.value
                else ", the channel is not telegram" if delivery.channel != "telegram" else ", the proxy is none for us")  # fmt: skip
    yield Health("ok", f"{', else '.join(receiver.ways)}: {why}")


def examine_program(patient: Patient) -> Iterator[Health]:
    """`openclaw` as sending calls it: a Node script, which under cron finds the wrong Node or none."""
    binary = openclaw_binary(patient.site) if patient.delivery.via in ("auto", "openclaw") else ""
    outcome = ask_system(patient.site, [binary, "--version"], env=openclaw_environment(patient.site, binary), seconds=30.0) if binary else None
    if outcome and outcome.is_good:
        yield Health("ok", f"{binary}: {patient.words(outcome)}")
    elif outcome:
        node = os.path.dirname(binary) + "/node"
        is_node = re.search("node", patient.words(outcome), re.I) and not os.path.lexists(node)
        mend = f'put the Node that it wants beside it: ln -s "$(command -v node)" {shell_word(node)}' if is_node else shell_word(binary) + " --version"
        yield Health("warn" if "api" in patient.receiver.ways else "fail", f"{binary} does not work: {patient.words(outcome)}", mend)


def examine_online(patient: Patient) -> Iterator[Health]:
    """Does the Bot API know the token and the chat?  Nothing is sent, no message is read."""
    receiver, is_asked = patient.receiver, patient.args.online or patient.args.send_test
    if is_asked and "api" not in receiver.ways:
        yield Health("ok", "not asked: messages do not go by the Bot API")
    questions: list = [("getMe", {}, "ask @BotFather for the token, then " + token_advice(patient.token, patient.openclaw))]
    if receiver.chat:
        no_chat = f"write to the bot there, or set delivery.target in {patient.files.config_file}"
        questions.append(("getChat", {"chat_id": chat_id(receiver)}, no_chat))
    for method, body, mend in questions if is_asked and "api" in receiver.ways else ():
        sent, raw = ask_api(patient.site, receiver, method, body)
        if sent.result != "sent":
            is_refused = sent.result == "refused" or bool(sent.moved_to)
            words = f"{method} is {'refused' if is_refused else 'not answered'}: {sent.detail}"
            if sent.moved_to:
                mend = f"set delivery.target in {patient.files.config_file} to {sent.moved_to}"
            yield Health("fail", words, mend if is_refused else f"curl -sS {shell_word(receiver.root)}")
            return
        known = object_at(json.loads(raw), "result")
        yield Health("ok", f"{method}: {known.get('username') or known.get('title') or known.get('first_name') or 'known'}")


def what_mends(patient: Patient, way: str, detail: str) -> str:
    """What mends, or else shows, why a message did not go this way; of the Bot API we know already that it knows token and chat."""
    site, receiver = patient.site, patient.site.receiver
    if way == "api":
        at = f"in {patient.files.config_file}"
        known = {"403": "let the bot in again: write to it there", "thread": f"set delivery.threadId {at}", "429": site.advise("tick")}
        return next((mend for words, mend in known.items() if words in detail), site.advise("doctor", "", "--online"))
    argv = receiver.command if way == "command" else openclaw_argv(receiver, "test")
    words = site.redact(" ".join(map(shell_word, argv)))
    return f"echo test | {words}" if way == "command" else words


def examine_test(patient: Patient) -> Iterator[Health]:
    """One silent message by the way that a tick would take; never through the outbox."""
    site, receiver, trust = patient.site, patient.receiver, patient.trust
    if not patient.args.send_test:
        return
    if trust.refusal or receiver.problem:
        why = f"others could have written the config: {trust.refusal}" if trust.refusal else receiver.problem
        yield Health("fail", f"not sent: {why}", trust.mend or receiver.advice)
        return
    text = f"{header_text(site.clock.time_text(site.clock.now().at), site.host)}\n\n{site.say('doctor.test')}"
    site.receiver = receiver
    for way in receiver.ways:
        sent = Driver(site).finish(send_by(site, way, Message(text, False, ())))
        words = f"by {way} to {site.receiver.chat or 'your command'}: {sent.result.replace('_', ' ')}"
        if sent.result == "sent":
            was_tried = not site.target and any(entry.get("refusedBy") or entry.get("tries") for entry in patient.state.outbox)
            is_awake = was_tried and not site.store.attempt(wake_receiver)
            patient.was_heard = not site.target
            yield Health("ok", words + ("; what waited for that goes with the next tick" if is_awake else ""))
            return
        goes_on = sent.result in ("not_sent", "refused") and way != receiver.ways[-1]
        yield Health("warn" if goes_on else "fail", f"{words}: {sent.detail}", what_mends(patient, way, sent.detail))
        if not goes_on:
            return


def entry_problems(patient: Patient, entry: Entry) -> Iterator[tuple]:
    """(what, mend) of all that is wrong with a scheduler's entry, its script and its Python included."""
    yield from entry.problems
    script, python, me = entry.call.script, entry.call.python or "python3", user_name(os.geteuid())
    if os.path.isabs(script) and not os.path.exists(script):
        yield f"there is no {script}", f"{entry.remove}; then: {patient.site.advise('schedule install')}"
    path = entry.env.get("PATH", "/usr/bin:/bin" if entry.kind == "cron" else "/usr/local/bin:/usr/bin:/bin")
    words = patient.words(ask_system(patient.site, [python, "--version"], env={"HOME": patient.files.home, "PATH": path}))
    version = re.fullmatch(r"Python (\d+)\.(\d+).*", words)
    if not version or (int(version[1]), int(version[2])) < OLDEST_PYTHON:
        yield f"it calls {python}: {words}; Python 3.9 or newer is needed", f"name another there, such as {sys.executable}"
    if entry.kind == "systemd" and not entry.user:
        answer = patient.words(ask_linger(patient.site))
        if "Linger=no" in answer or "not logged in or lingering" in answer:
            yield f"lingering is off: its timer stops when {me} logs out", f"loginctl enable-linger {me}"


def examine_scheduler(patient: Patient) -> Iterator[Health]:
    site, entries = patient.site, patient.entries
    alive = [entry for entry in entries if entry.is_on]
    for entry in alive or entries:  # what is off while another one ticks need not be mended
        problems = list(entry_problems(patient, entry))
        yield from (Health("fail", f"{entry.place}: {words}", mend) for words, mend in problems)
        if not problems:
            yield Health("ok", entry.place + (f", every {duration_text(entry.period)}" if entry.period else ""))
    if len(alive) > 1:
        yield Health("warn", f"tick is called more than once: {', '.join(entry.place for entry in alive)}", f"keep one of them: {alive[-1].remove}")
    for entry in [] if entries else patient.strangers:
        facts = f"{entry.place} calls tick for {state_of_entry(entry, patient.files.home)}, not for {site.store.path}"
        yield Health("warn", facts, site.advise("schedule install"))
    if not (entries or patient.strangers or patient.state.ticks):
        yield Health("warn", "nothing calls tick: no entry of cron, systemd or launchd was found", site.advise("schedule install"))


SCHEDULERS = {"cron": "journalctl -u cron -u crond", "systemd": "systemctl --user list-timers; systemctl list-timers", "launchd": "launchctl list"}


def examine_ticks(patient: Patient) -> Iterator[Health]:
    """Does the scheduler tick as often as it says?"""
    ticks, alive = patient.state.ticks, [entry for entry in patient.entries if entry.is_on]
    period = min((entry.period for entry in alive if entry.period), default=0.0)
    gaps = sorted(after - before for before, after in zip(ticks, ticks[1:]))
    usual, age = gaps[len(gaps) // 2] if gaps else 0.0, patient.site.clock.now().at - max(ticks, default=0.0)
    facts = f"the last one {duration_text(int(age))} ago" + (f", usually one in {duration_text(usual)}" if gaps else "")
    if not ticks and alive and patient.has_state:
        look = f"if it is new, wait {duration_text(period or MINUTE)}; else: {SCHEDULERS[alive[0].kind]}"
        yield Health("fail", f"{alive[0].place} has not called tick for this state yet", look)
    elif ticks and age > 3 * (period or usual or MINUTE) + MINUTE:
        yield Health("fail", f"{facts}: nothing calls tick any more", SCHEDULERS[alive[0].kind] if alive else patient.site.advise("schedule install"))
    elif len(gaps) >= 4 and usual < period / 2:
        words = f"{facts}, {duration_text(period)} was agreed: something else calls tick as well"
        yield Health("warn", words, "crontab -l; systemctl --user list-timers; systemctl list-timers")
    elif ticks:
        yield Health("ok", facts + ("" if alive else "; who calls it was not found"))


def examine_outbox(patient: Patient) -> Iterator[Health]:
    site, waiting, error = patient.site, patient.state.outbox, outbox_error(patient.state.outbox)
    lock = site.store.lock_path("delivery")
    if not patient.has_state:
        return
    if is_held(lock, HELD_LONG):
        yield Health("warn", f"another process is sending and holds {lock}", f"wait a minute; if it stays: lsof {shell_word(lock)}")
    if not waiting:
        yield Health("ok", "nothing waits to be told")
        return
    facts = f"undelivered messages: {len(waiting)}, since {site.clock.full_text(min(entry['createdAt'] for entry in waiting))}"
    if error and not patient.was_heard:
        flag = "--send-test" if patient.args.online or "api" not in patient.receiver.ways else "--online"
        yield Health("fail", f"{facts}; the last error: {error}", site.advise(f"doctor {flag}"))
    else:
        yield Health("warn", facts, site.advise("tick"))


def examine_intentions(patient: Patient) -> Iterator[Health]:
    """Starts and runs without a result, beyond their limits; ticks end them, if ticks come."""
    site, state, jobs = patient.site, patient.state, patient.site.config.jobs
    memories, gates = {job_id: state.memory(job_id) for job_id in state.jobs}, {job_id: state.gate(job_id) for job_id in state.raw["gates"]}
    begun = [(job_id, memory.action, memory.action_at, memory.action_for) for job_id, memory in memories.items() if memory.action not in ("", "started")]
    begun += [(job_id, "write", gate.run_began_at, run_timeout(jobs[job_id]) if job_id in jobs else HOUR)
              for job_id, gate in gates.items() if gate.run == "begun"]  # fmt: skip
    for job_id, action, at, limit in begun:
        if site.clock.now().at >= at + limit:
            mend = site.advise("explain", job_id) if job_id in jobs else site.advise("status")
            yield Health("warn", f"{job_id}: its {action} of {site.clock.full_text(at)} has no result; it had {duration_text(limit)}", mend)


EXAMINATIONS = {
    "python": examine_python, "clock": examine_clock, "config": examine_config, "permissions": examine_permissions,
    "disk": examine_disk, "directory": examine_place, "state": examine_state, "openclaw.json": examine_openclaw, "token": examine_token,
    "target": examine_target, "way": examine_way, "openclaw": examine_program, "online": examine_online, "test message": examine_test,
    "scheduler": examine_scheduler, "ticks": examine_ticks, "outbox": examine_outbox, "unfinished": examine_intentions,
}  # fmt: skip


def examined(patient: Patient, examine: Callable[[Patient], Iterator[Health]]) -> Iterator[Health]:
    """What an examination finds; what it stumbles over is a finding too."""
    try:
        yield from examine(patient)
    except OpsError as error:
        yield Health("fail", str(error), error.advice)
    except OSError as error:
        path = str(error.filename or patient.files.state_file)
        yield Health("fail", f"cannot use {path}: {os_words(error)}", file_advice(path, error))


def next_step(found: list, site: Site) -> str:
    """What mends the first failure; without one a scheduler, where there is none; else what mends the first warning."""
    fails, warns = ([health.mend for health in found if health.level == level] for level in ("fail", "warn"))
    schedule = site.advise("schedule install")
    return [*fails, *(mend for mend in warns if mend == schedule), *warns, site.advise("status")][0]


@typed(
    flag("--send-test", "send one silent test message, and say what came back"),
    flag("--online", "ask the Bot API whether it knows the token and the chat"),
    TARGET,
    example="doctor --online",
    wants_site=False,
)
def do_doctor(files: Files, args: Any) -> int:
    """Check all that stands between your jobs and you, and say what mends it.  Changes nothing."""
    patient, found = Patient(files, args), []
    tidy = patient.site.redact.tidy
    for subject, examine in EXAMINATIONS.items():
        for health in examined(patient, examine):
            found.append(health)
            mend = f"\n      {tidy(health.mend)}" if health.mend and health.level != "ok" else ""
            print(f"{health.level:4}  {subject}: {tidy(one_line(health.facts, 600))}{mend}", flush=True)
    levels = [health.level for health in found]
    print("\ndoctor: " + ", ".join(f"{level} {levels.count(level)}" for level in ("ok", "warn", "fail")))
    print(f"next: {tidy(next_step(found, patient.site))}")
    return JOB_FAILED if "fail" in levels else DONE


# ---- demo


DEMO_JOB = """
import json, os, sys, time
place = os.environ["OPS_CHECKPOINT_DIR"] + "/done"
done = int(open(place).read()) if os.path.exists(place) else 0
print("resume" if os.environ["OPS_RESUME"] == "1" else "start", "at", done, flush=True)
while done < 40:
    if done == 20 and not os.path.exists(os.environ["OPS_CHECKPOINT_DIR"] + "/woken"):
        time.sleep(0.05)
        continue
    done += 1
    for path, text in ((place, str(done)), (os.environ["OPS_PROGRESS_FILE"], json.dumps({"done": done, "total": 40}))):
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)
    time.sleep(0.1)
print("all 40 read")
"""

# The jobs of the demo, with policies in seconds instead of minutes.
DEMO_CONFIG = """{
  "version": 1,
  "monitor": {"host": "demo"},
  "delivery": {"via": "none"},
  "jobs": [
    {"id": "reader", "name": "Read 40 pages", "kind": "long_running_read", "risk": "read_only", "enabled": true, "managed": true,
     "commands": {"start": ["PYTHON", "-c", "DEMO_JOB"]},
     "policy": {"reportEverySeconds": 0, "minReportSeconds": 0.8, "stallSeconds": 1.2, "autoResume": true, "autoResumeBackoffSeconds": 1,
                "quietHours": {"start": "00:00", "end": "00:00"}}},
    {"id": "disk", "name": "Disk check", "kind": "one_shot_read", "risk": "read_only", "enabled": true,
     "commands": {"run": ["/bin/sh", "-c", "echo 'ALERT: /data is 97% full'"]}, "policy": {"everySeconds": 3600}},
    {"id": "verify", "kind": "one_shot_read", "risk": "read_only",
     "commands": {"run": ["/bin/sh", "-c", "test ! -e pages && echo no pages are left"]}},
    {"id": "prune", "name": "Prune old pages", "kind": "one_shot_write", "risk": "write_local",
     "commands": {"run": ["/bin/rm", "-r", "pages"]}, "after": [{"jobId": "verify"}]}
  ]
}"""


def scene(text: str) -> None:
    print(f"\n# {text}", flush=True)


def show_told(site: Site) -> str:
    """Print what was told, each message as the phone would show it; all of it."""
    texts = [entry["text"] for entry in site.printed or []]
    for text in texts:
        print(indented(text, "    │ ") + "\n", flush=True)
    site.printed = []
    return "\n".join(texts)


def tick_until(site: Site, token: str) -> None:
    """Tick the demo until a message says `token`."""
    end = time.monotonic() + 8.0
    while True:
        plan_tick(site).run()
        if token in show_told(site):
            return
        if time.monotonic() > end:
            raise OpsError(f"the demo waited 8 s for {token}", "ops-monitor.py selftest")
        time.sleep(0.25)


def play_read(site: Site) -> None:
    """The demo's scenes of a long read job."""
    place = site.store.job_dir("reader")
    scene("A long read job is started by hand; ticks watch it. A check runs too, and has something to say.")
    Driver(site).finish(start_by_hand(site, site.config.jobs["reader"], argparse.Namespace(fresh=False, resume=False, despite_unknown=False)))
    tick_until(site, "done:")
    scene("Somebody kills it (SIGKILL). The next tick continues it from its checkpoint, and says so.")
    run_: Any = read_run(place)
    end_group(run_.pid, signal.SIGKILL)
    tick_until(site, "AUTORUN")
    scene("It moves again.")
    tick_until(site, "RESOLVED")
    scene("It hangs at page 20: alive, but without progress for stallSeconds.")
    tick_until(site, "ALERT")
    scene("What it waited for arrives; it goes on to the end.")
    os.mkdir(os.path.join(place, "checkpoint", "woken"))
    tick_until(site, "COMPLETED")


def play_write(site: Site, prune: Any) -> None:
    """The demo's scenes of a write job."""
    os.mkdir(os.path.join(site.dirs.ours_dir, "pages"))
    scene("An agent tries to run a write job that nobody has approved.")
    try:
        Driver(site).finish(run_write(site, prune, verify=True))
    except BlockedError as error:
        print(f"    exit {error.code}: {error}", flush=True)
    show_told(site)
    scene("Its owner reads what exactly would be run, and approves one run of it. It runs once, and is verified.")
    plan = make_plan(site, prune)
    print(indented("\n".join(plan_lines(site, prune, plan)), "    "))
    site.store.change(lambda state: grant(site, state, prune, plan, clear=False))
    print("    approved", flush=True)
    Driver(site).finish(run_write(site, prune, verify=True))


@typed(wants_site=False)
def do_demo(files: Files, args: Any) -> int:
    """Show the main job at work, with real processes, in a temporary directory; nothing is sent."""
    import tempfile

    config = DEMO_CONFIG.replace('"PYTHON"', json.dumps(sys.executable or "python3")).replace('"DEMO_JOB"', json.dumps(DEMO_JOB))
    with tempfile.TemporaryDirectory(prefix="ops-demo-") as directory:
        site = scratch_site(directory, config)
        try:
            play_read(site)
            play_write(site, site.config.jobs["prune"])
        finally:
            Driver(site).finish(end_managed(site, "reader", 1.0))
    print("That was all real, except the phone. Next: ops-monitor.py init")
    return DONE


# ==== DOOR ===============================================================
# The way in: arguments, the one boundary where errors become lines and exit codes, `main`.


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are ours: one line, the nearest name, exit 2."""

    def error(self, message: str) -> Any:
        raise UsageError(message, f"{script_command()} {self.prog.rpartition(' ')[2]} -h")


def parser_of(name: str) -> Parser:
    row = COMMANDS[name]
    setattr(argparse, "_", str)  # noqa: B010  # -h is English; argparse looks for translations 12 times a start (3 ms)
    parser = Parser(
        prog=f"ops-monitor.py {name}",
        description=row.function.__doc__,
        epilog=f"example: ops-monitor.py {row.example}",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),  # else it loads shutil to ask for the width
    )
    for flags, settings in (*row.options, CONFIG_FILE, STATE_FILE):
        parser.add_argument(*flags, **settings)
    return parser


def overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name.ljust(width)}{row.function.__doc__.splitlines()[0]}" for name, row in COMMANDS.items()]
    return "usage: ops-monitor.py COMMAND [-h] ...\n\ncommands:\n" + "\n".join(lines) + "\n\nfirst: ops-monitor.py demo; then: ops-monitor.py init"


def parse_command_line(argv: list) -> tuple:
    """(name, arguments).  Raises UsageError that names the nearest command or option."""
    name = argv[0]
    if name not in COMMANDS:
        raise UsageError(f"no command '{name}'" + did_you_mean(name, COMMANDS), f"{script_command()} -h")
    parser = parser_of(name)
    args, unknown_words = parser.parse_known_args(argv[1:])
    if unknown_words:
        word = unknown_words[0]
        flags = [name for action in parser._actions for name in action.option_strings] if word.startswith("-") else []
        raise UsageError(f"unknown argument '{word}'" + did_you_mean(word.split("=")[0], flags), f"{script_command()} {name} -h")
    return name, args


def dispatch(argv: list) -> int:
    """Run one command to its exit code."""
    if tuple(sys.version_info[:2]) < OLDEST_PYTHON:
        words = f"this is Python {sys.version.split()[0]} at {sys.executable}; 3.9 or newer is needed"
        raise UsageError(words, "call it with another: ls /usr/bin/python3*")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE if argv else USAGE
    if argv[0] == "--version":
        print(VERSION)
        return DONE
    name, args = parse_command_line(argv)
    row = COMMANDS[name]
    files = find_files(args)
    if not row.wants_site:
        return row.function(files, args)
    config, warning = load_config(files, args)
    if warning and sys.stderr.isatty():
        warn(f"warning: {warning}")
    site = open_site(files, config, args)
    state_doubt = check_trust(files.state_file, files.home).doubt  # it holds the approvals
    site.config_risk = "; ".join(filter(None, [warning, state_doubt]))
    return row.function(site, args)


def complain(problem: str, advice: str = "") -> None:
    """Print an error, and the next step where there is one."""
    prefix = "" if ": error: " in problem else "error: "  # a problem with a place says so itself
    warn(f"{prefix}{problem}", *([f"help: {advice}"] if advice else []))


def write_crash(error: Exception) -> str:
    """The path of a file for those who mend it."""
    import tempfile
    import traceback

    text = Redactor(secret_values(dict(os.environ))).tidy("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    try:
        fd, path = tempfile.mkstemp(prefix="ops-monitor-crash-", suffix=".txt")
        with open(fd, "w", encoding="utf-8") as file:
            file.write(f"ops-monitor {VERSION}, Python {sys.version}\n{text}")
        return path
    except OSError as trouble:
        return f"could not be written, {os_words(trouble)}"


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # what the disk behind standard output says; every other file has its name in its error


def lost_output(error: OSError) -> int:
    """The exit code of whoever could not print, which is said; a closed pipe is silent."""
    if isinstance(error, BrokenPipeError):
        return DONE
    complain(f"cannot write standard output: {os_words(error)}", "df")
    return STATE_TROUBLE


def flush_streams() -> int:
    """What is printed goes out; the exit code of that.  The interpreter must not complain of it at its end."""
    code = DONE
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            drop_output(stream.fileno())
            code = lost_output(error) if stream is sys.stdout else code
    return code


def run_command_line(argv: list) -> int:
    """The error boundary: whatever happens becomes a line and an exit code."""
    try:
        return dispatch(argv)
    except OpsError as error:
        complain(one_line(str(error), 4000), error.advice)
        return error.code
    except Interrupted as end:
        return 128 + end.number
    except BrokenPipeError:
        return DONE
    except Exception as error:
        path = getattr(error, "filename", None)
        if isinstance(error, OSError) and not path and error.errno in FULL:
            drop_output(1)  # what is left of it need not fail once more
            return lost_output(error)
        if isinstance(error, OSError) and path:
            complain(f"cannot use {path}: {os_words(error)}", file_advice(str(path), error))
            return STATE_TROUBLE
        complain(f"a bug in ops-monitor.py: {type(error).__name__}; details: {write_crash(error)}")
        return BUG


def prepare_process() -> None:
    """Descriptors 0 to 2 exist, no other one is inherited by children, text is UTF-8."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for fd in map(int, os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ()):
        if fd > 2:
            try:
                os.set_inheritable(fd, False)  # a caller's lock must not live on in a job
            except OSError:
                pass  # the descriptor of this listing itself
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    for number in ENDING_SIGNALS:
        signal.signal(number, on_signal)


def main(argv: Optional[list] = None) -> int:
    """Run the command line `argv`; the exit code."""
    prepare_process()
    try:
        code = run_command_line(sys.argv[1:] if argv is None else argv)
        lost = flush_streams()
        return code or lost
    except Interrupted as end:  # while whoever reads took the last of it
        return 128 + end.number
    finally:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # all is done: nothing is left to interrupt


def run_and_exit(argv: Optional[list] = None) -> None:
    """`main` as a program.  Python's own end is left out: it takes 5 ms after a big tick, and could be interrupted."""
    os._exit(main(argv))


if __name__ == "__main__":
    run_and_exit()
