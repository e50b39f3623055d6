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
import os
import re
import select
import signal
import stat
import time
from collections import namedtuple

TYPE_CHECKING = False  # type checkers read the first branch; `typing` costs 8 ms of each start for these records
if TYPE_CHECKING:
    from typing import Any, Callable, Generator, Iterable, Iterator, NamedTuple, Optional

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
    code: Optional[int] = None  # exit code; negative: the signal that ended it; None: never ran
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
    action: str = ""  # intention without a result: start, restart or run
    action_at: float = 0.0  # when it was saved
    action_for: float = 0.0  # seconds within which it must have ended
    action_id: str = ""  # marker of its processes; run: tells a living one from a lost one
    action_tries: int = 0  # runs of the same slot or queue entry so far
    action_entry: str = ""  # id of the queue entry that is being run; "" = a scheduled slot
    incidents: dict = {}  # kind -> Incident
    anchor_at: float = 0.0  # first scheduled run; the grid of everySeconds starts here
    slot_at: float = 0.0  # latest slot that was taken
    ran_at: float = 0.0  # end of the last one-shot run
    ran_code: int = 0  # its exit code, negative: signal, 255: did not run
    muted_at: float = 0.0  # messages are held from here …
    muted_for: float = 0.0  # … for this long, in seconds
    muted_count: int = 0  # messages held so far
    flips: list = []  # times within the last hour at which an incident opened or closed
    flapping_at: float = 0.0  # told as flapping since; 0 = it is not
    left_at: float = 0.0  # first tick that did not find the job in the config
    inherited_at: float = 0.0  # v1 had told an anomaly at this time; the first incident adopts it
    reason: str = ""  # why the last look led to what it led to (a MESSAGES row)


class Gate(NamedTuple):
    """What is remembered of a write job: its approval, its code, its latest run, its verification."""

    digest: str = ""  # of the plan that a person approved; "" = no approval
    items: dict = {}  # label -> salted hash of what was approved, to name what changed
    salt: str = ""
    approved_at: float = 0.0
    approved_for: float = 0.0  # seconds that the approval holds
    approved_by: str = ""
    code_hash: str = ""  # one-time code, slowly hashed; "" = none is out
    code_salt: str = ""
    code_digest: str = ""  # the plan that the code was sent with
    code_at: float = 0.0
    code_tries: int = 0
    requests: list = []  # times of code requests within the last hour
    run: str = ""  # begun, good, failed or unknown
    run_id: str = ""  # marker of its processes
    run_digest: str = ""
    run_began_at: float = 0.0
    run_ended_at: float = 0.0
    run_code: int = 0
    verify: str = ""  # pending, passed or failed
    verify_left: list = []  # verification jobs that have not passed yet
    verify_items: dict = {}  # label -> salted hash of what the verifications were and are to be; only those verify
    verify_salt: str = ""
    verify_for: float = 0.0  # seconds after the run's end within which they must


class Finding(NamedTuple):
    """Something wrong that one look or one run shows."""

    kind: str
    rank: int
    phrase: Phrase
    detail: str = ""  # output lines to show with it
    by_attempt: bool = False  # told through AUTORUN, not by itself


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
    since_at: float = 0.0
    look: Optional[Observation] = None
    told: Memory = Memory()  # memory before the telling, for differences


class Resume(NamedTuple):
    """Effect: start a stopped job again, or stop and start a stalled one."""

    restart: bool = False


class Enqueue(NamedTuple):
    """Effect: queue a follow-up job."""

    job_id: str
    delay: float


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
        return f"{seconds:.1f}s" if seconds >= 0.1 else f"{seconds:.3g}s"
    left = max(0, int(seconds + 0.5))
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def duration_seconds(text: str) -> float:
    """Seconds in `90`, `1.5h`, `2d 3h`.  Raises ValueError for anything else."""
    if not re.fullmatch(r"\s*(?:\d{1,12}(?:\.\d+)?|(?:\d{1,12}(?:\.\d+)?\s*[smhd]\s*)+)\s*", text):
        raise ValueError(f"expected a duration like 90, 15m or 2h, found '{one_line(text, 40)}'")
    sizes = {"": 1.0, "s": 1.0, "m": MINUTE, "h": HOUR, "d": DAY}
    return sum(float(number) * sizes[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text))


def number_text(value: Any) -> str:
    """A number as it was written; true and false as JSON writes them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return getattr(value, "text", None) or str(value)


def utf16_length(text: str) -> int:
    """UTF-16 units, in which Telegram counts."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def clip(text: str, limit: int, ending: str = " …") -> str:
    """`text` cut to `limit` UTF-16 units; the cut shows."""
    if len(text) * 2 <= limit or utf16_length(text) <= limit:
        return text
    room = limit - utf16_length(ending)
    units = 0
    for index, letter in enumerate(text):
        units += 2 if ord(letter) > 0xFFFF else 1
        if units > room:
            return text[:index] + ending
    return text


def one_line(text: str, limit: int = 200) -> str:
    """`text` on one line, white space folded."""
    return clip(" ".join(text.split()), limit)


def last_lines(text: str, count: int = 8, limit: int = 1200) -> str:
    """The last non-blank lines of an output, for a person."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    chosen = "\n".join(clip(line, 300) for line in lines[-count:])
    return chosen if len(chosen) <= limit else "… " + chosen[-limit:]


def display_width(text: str) -> int:
    """Columns on a terminal: wide letters take two, combining marks none."""
    if text.isascii():
        return len(text)
    import unicodedata  # 1 MB of tables: only for text that needs them

    def columns(letter: str) -> int:
        if unicodedata.combining(letter) or letter in "\u200d\ufe0f":
            return 0
        return 2 if unicodedata.east_asian_width(letter) in "WF" else 1

    return sum(map(columns, text))


def pad(text: str, columns: int) -> str:
    return text + " " * max(0, columns - display_width(text))


def camel(name: str) -> str:
    """`looked_at` -> `lookedAt`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def snake(key: str) -> str:
    """`stallSeconds` -> `stall_seconds`."""
    return re.sub(r"[A-Z]", lambda match: "_" + match.group().lower(), key)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` most probably means, or ''."""
    import difflib  # dear and rare: only after a mistake

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""


def masked_digits(text: str) -> str:
    """`text` as an identity: other numbers do not make it a different text."""
    return re.sub(r"\d+(?:[.,]\d+)*(?:[dhms]\b(?: \d+[dhms]\b)*)?", "#", text)[:100]  # `1h 5m` is one number


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
LABELLED = (
    r"(?i)(\bBearer\s+|\bBasic\s+(?=[A-Za-z0-9+/=]{12})"
    r"|(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key)\\*[\"']?\s*[=:]\s*)"
    r"(\\*\"[^\"\n]*|\\*'[^'\n]*|[^\s\"'&,;]+)"
)
URL_PASSWORD = r"(://[^\s/:@]*:)[^\s/]+@"
SECRET_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "KEY")
MASK = "***"
# Escape sequences of terminals; control characters but tab and line feed; characters that turn text around.
UNPRINTABLE = r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"


def secret_values(env: dict) -> set:
    """Values of 8 or more characters whose names say that they are secret."""
    return {
        value
        for name, value in env.items()
        if len(value) >= 8 and any(word in name.upper() for word in SECRET_NAMES)
    }


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
        if not text or text.isdigit():
            return text
        text = re.sub(CREDENTIALS, MASK, text)
        if "=" in text or ":" in text or "earer" in text or "asic" in text:
            text = re.sub(LABELLED, lambda match: match.group(1) + MASK, text)
            text = re.sub(URL_PASSWORD, lambda match: match.group(1) + MASK + "@", text)
        return text

    def tidy(self, text: str) -> str:
        """`text` safe to show: no terminal controls, no lone surrogates, no credentials."""
        if not text.isprintable():
            text = re.sub(UNPRINTABLE, "", text.replace("\r\n", "\n").replace("\r", "\n"))
            text = text.encode("utf-8", "replace").decode("utf-8")
        return self(text)

    def read(self, raw: bytes) -> str:
        """Bytes of a command as text safe to show; invalid UTF-8 becomes U+FFFD."""
        return self.tidy(raw.decode("utf-8", "replace"))

    def scrub(self, value: Any, depth: int = 6) -> Any:
        """A JSON value with every text in it made safe to show."""
        if isinstance(value, str):
            return self.tidy(value)
        if isinstance(value, dict) and depth:
            return {self.tidy(str(key)): self.scrub(item, depth - 1) for key, item in value.items()}
        if isinstance(value, list) and depth:
            return [self.scrub(item, depth - 1) for item in value]
        return value if isinstance(value, (int, float, bool)) or value is None else MASK


# ==== MESSAGES ===========================================================
# Every sentence a person may read, English and Chinese in one row with the same holes.  The tokens
# ALERT, ACTION REQUIRED, RESOLVED, COMPLETED, AUTORUN and BLOCKED stay as they are: people grep them.

MESSAGES = {
    # what a command did
    "run.timeout": ("took longer than {seconds} and was ended", "超过 {seconds} 未结束，已被终止"),
    "run.signal": ("ended by signal {signal}", "被信号 {signal} 终止"),
    "run.exit": ("exit code {code}", "退出码 {code}"),
    "run.exit126": ("exit code {code}: a program could not be executed", "退出码 {code}：程序无法执行"),
    "run.exit127": ("exit code {code}: a program was not found", "退出码 {code}：找不到程序"),
    "run.missing": ("no such program: {program}", "没有这个程序：{program}"),
    "run.no_cwd": ("no such directory: {cwd}", "没有这个目录：{cwd}"),
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
    "managed.record": ("the run record cannot be read: {error}", "运行记录无法读取：{error}"),
    "progress.unreadable": ("the progress file cannot be read: {error}", "进度文件无法读取：{error}"),
    "progress.not_json": ("the progress file is not a JSON object", "进度文件不是 JSON 对象"),
    # incidents
    "unknown": ("the status cannot be told: {why}", "无法判断状态：{why}"),
    "stopped": ("stopped before it was complete; reason: {reason}", "未完成就停止；原因：{reason}"),
    "stopped.resuming": ("stopped before it was complete; reason: {reason}", "未完成就停止；原因：{reason}"),
    "stopped.gave_up": ("stopped; all attempts to resume are used up: {attempts}; reason: {reason}", "已停止；续跑次数已用完：{attempts}；原因：{reason}"),
    "stopped.changed": ("stopped; its command has changed since the checkpoint, so it is not resumed; reason: {reason}", "已停止；命令在检查点之后有改动，不自动续跑；原因：{reason}"),
    "flapping": ("it keeps going wrong and right again; single changes are not told until it has been steady for an hour", "反复出现异常又恢复；稳定一小时之前不再逐次告知"),
    "orphan": ("it runs, but the config no longer has it; {command}", "正在运行，但配置中已没有它；{command}"),
    "stalled": ("running without progress for {for}; progress key: {key}", "运行中但 {for} 没有进展；进度键：{key}"),
    "level": ("the job reports: {message}", "任务报告：{message}"),
    "attention": ("its output asks for attention:\n{lines}", "输出内容需要关注：\n{lines}"),
    "interrupted.again": ("the run that began {time} was interrupted; it is run once more", "{time} 开始的运行被中断；将再运行一次"),
    "interrupted": ("the run that began {time} was interrupted again; it is not repeated", "{time} 开始的运行再次被中断；不再重试"),
    "autorun": ("stopped ({reason}); continued from its checkpoint, attempt {attempt} of {most}", "已停止（{reason}）；从检查点续跑，第 {attempt} 次，上限 {most}"),
    "autorun.restart": ("no progress; stopped and started again, attempt {attempt} of {most}; {reason}", "没有进展；已停止并重新启动，第 {attempt} 次，上限 {most}；{reason}"),
    "completed": ("done", "已完成"),
    "running": ("running", "运行中"),
    "muted.summary": ("no longer muted; messages held: {count}", "静音结束；期间未发送的消息：{count}"),
    "blocked.unknown": ("BLOCKED: the queue names job '{job}', which the config does not have", "BLOCKED：队列中的任务“{job}”不在配置中"),
    "blocked.queue": ("BLOCKED: job '{job}' is a {kind}; only a one_shot_read is run from the queue", "BLOCKED：任务“{job}”是 {kind}；队列只运行 one_shot_read"),
    "blocked.write": ("BLOCKED: '{job}' was asked to run and did not: {why}", "BLOCKED：有人要求运行“{job}”，未执行：{why}"),
    "verify.wrong": ("the write ran, its verification failed: {jobs}", "写入已执行，验证失败：{jobs}"),
    "verify.overdue": ("the write ran, its verification is overdue: {jobs}", "写入已执行，验证逾期未完成：{jobs}"),
    "write.unknown": ("the outcome of the last run is unknown: it began and its result was lost; look before you approve again", "上次运行结果未知：已开始，但结果丢失；再次批准前请先检查"),
    "config.errors": ("the config has errors: {count}; jobs left out: {jobs}\n{lines}", "配置有错误：{count}；未参与监控的任务：{jobs}\n{lines}"),
    "config.unusable": ("the config cannot be used, nothing is watched: {problem}", "配置无法使用，目前没有任何监控：{problem}"),
    "state.lost": ("the state file {path} could not be read; it was moved to {aside}; nothing is resumed in this tick", "状态文件 {path} 无法读取，已移到 {aside}；本轮不会自动续跑"),
    "undelivered": ("messages cannot be delivered: {problem}", "消息无法送达：{problem}"),
    "name.monitor": ("ops-monitor itself", "监控程序自身"),
    # parts of a section
    "headline.warn": ("WARNING", "注意"),
    "headline.notice": ("note", "提示"),
    "headline.routine": ("running", "运行中"),
    "headline.muted": ("unmuted", "静音结束"),
    "state.running": ("running", "运行中"),
    "state.running_pid": ("running, pid {pid}", "运行中，pid {pid}"),
    "state.waiting": ("running, waiting on purpose", "运行中，主动等待"),
    "line.stop_reason": ("stop reason: {reason}", "停止原因：{reason}"),
    "line.since": ("since {time}", "始于 {time}"),
    "line.output": ("last output:", "最后的输出："),
    "line.next": ("next: {command}", "下一步：{command}"),
    "line.late": ("(late: this happened at {time})", "（延迟送达：发生于 {time}）"),
    "line.repeat": ("(possible repeat)", "（可能重复）"),
    "line.was_queued": ("the alert of {time} had not been delivered", "{time} 的告警未能送达"),
    "line.maybe_queued": ("the alert of {time} may not have been delivered", "{time} 的告警可能未送达"),
    "line.more": ("… and more: {count}. See: {command}", "……还有：{count}。查看：{command}"),
    # reasons: incidents
    "incident.none": ("nothing wrong", "没有异常"),
    "incident.open": ("this look cannot tell", "本次查看无法判断"),
    "incident.came_and_went": ("it came and went before it was told", "告知之前已经恢复"),
    "incident.resolved": ("told: it is resolved", "已告知：已恢复"),
    "incident.not_yet": ("looks that agree: {looks} of {needed}", "一致的查看次数：{looks}/{needed}"),
    "incident.by_attempt": ("auto-resume handles it; AUTORUN tells it", "由自动续跑处理，以 AUTORUN 告知"),
    "incident.quiet_hours": ("held by quiet hours", "安静时段内暂不告知"),
    "incident.opened": ("told: it is new", "已告知：新出现"),
    "incident.worse": ("told: it got worse", "已告知：情况恶化"),
    "incident.changed": ("told: its text is really different", "已告知：内容有实质变化"),
    "incident.flapping": ("the job is flapping: nothing is told of single changes", "任务反复变化：不逐次告知"),
    "incident.acked": ("a person has acknowledged it", "已有人确认"),
    "incident.told_once": ("told; reminders are off", "已告知；不再提醒"),
    "incident.told": ("told; the next reminder is not due", "已告知；未到下次提醒时间"),
    "incident.reminder": ("told: a reminder was due", "已告知：到了提醒时间"),
    # reasons: resume
    "resume.disabled": ("disabled", "未启用"),
    "resume.off": ("autoResume is off", "未开启 autoResume"),
    "resume.not_read_only": ("only read-only long jobs are resumed", "只有只读长任务才会续跑"),
    "resume.unknown": ("unknown is not stopped", "状态未知不等于已停止"),
    "resume.held": ("a person stopped it; `start` ends that", "由人停止；用 start 解除"),
    "resume.moving": ("it is not stalled", "没有停滞"),
    "resume.not_stopped": ("it is not stopped", "没有停止"),
    "resume.changed": ("its command has changed since the checkpoint", "命令在检查点之后有改动"),
    "resume.gave_up": ("all attempts are used up; `start` begins anew", "续跑次数已用完；用 start 重新开始"),
    "resume.acting": ("a start is under way", "正在启动"),
    "resume.state_lost": ("the state was lost a moment ago", "状态刚刚丢失"),
    "resume.backoff": ("attempt {attempt} waits", "第 {attempt} 次续跑等待中"),
    "resume.now": ("attempt {attempt} is due", "应进行第 {attempt} 次续跑"),
    # reasons: routine
    "report.completed": ("told: it is completed", "已告知：已完成"),
    "report.completed_before": ("its completion was told", "完成已告知过"),
    "report.quiet_hours": ("held by quiet hours", "安静时段内暂不告知"),
    "report.not_running": ("no routine: it is not running", "无例行报告：未在运行"),
    "report.off": ("reportWhileRunning is off", "未开启 reportWhileRunning"),
    "report.first": ("told: first seen running", "已告知：首次看到运行"),
    "report.by_time": ("told: reportEverySeconds have passed", "已告知：到了 reportEverySeconds"),
    "report.by_change": ("told: progress has changed", "已告知：进度有变化"),
    "report.too_soon": ("progress has changed, minReportSeconds have not passed", "进度有变化，但未满 minReportSeconds"),
    "report.nothing_new": ("nothing new to report", "没有新内容"),
    "look.older": ("a newer look has been judged", "已有更新的查看结果"),
    "muted": ("muted: messages are counted, not told", "静音中：消息只计数，不告知"),
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
    "gate.config_writable": ("others could have written the config: {why}", "配置文件可能被他人改写：{why}"),
    "gate.v1": ("(approval.granted and approval.required grant nothing)", "（approval.granted 和 approval.required 不构成批准）"),
    "note.failed": ("the last run failed, exit code {code}", "上次运行失败，退出码 {code}"),
    "plan.title": ("One run of {name} ({job}):", "运行一次 {name}（{job}）："),
    "plan.risk": ("risk", "风险"),
    "plan.argv": ("runs", "命令"),
    "plan.program": ("program", "程序"),
    "plan.file": ("names", "涉及"),
    "plan.cwd": ("in", "目录"),
    "plan.env": ("with", "环境"),
    "plan.loose": ("  (by its path only: its contents are not bound)", "（仅绑定路径，不绑定内容）"),
    "plan.verified": ("Afterwards this verifies it: {what}", "之后由此验证：{what}"),
    "plan.ttl": ("an approval holds for {time} and for one run; any change ends it", "批准有效期 {time}，仅限一次运行；任何改动都会使其失效"),
    "approve.ask": ("Type the job id to approve: ", "输入任务 id 以批准："),
    "approve.not_typed": ("the job id was not typed; nothing is approved", "未输入任务 id，未批准"),
    "approve.no_terminal": ("no terminal to ask at; --digest approves what --show showed", "没有终端可供确认；用 --digest 批准 --show 所示内容"),
    "approve.other_digest": ("the digest is not that of the plan above; nothing is approved", "摘要与上面的计划不符，未批准"),
    "approved.told": ("one run was approved with --digest by {who}; digest {digest}…", "{who} 用 --digest 批准了一次运行；摘要 {digest}…"),
    "approved": ("approved: {job}, for one run within {time}", "已批准：{job}，{time} 内可运行一次"),
    "revoked": ("revoked: {job}", "已撤销：{job}"),
    "revoke.none": ("nothing to revoke: {job} is not approved", "无可撤销：{job} 未被批准"),
    "code.message": ("One-time code to approve {job}: {code}\nIt holds for 15 minutes. Give it only to whom you want to run exactly this.", "批准 {job} 的一次性验证码：{code}\n有效期 15 分钟。只把它交给你希望执行上述操作的人。"),
    "code.sent": ("a one-time code was sent to the person; it holds for 15 minutes: approve {job} --digest HEX --code CODE", "验证码已发送给本人，有效期 15 分钟：approve {job} --digest HEX --code CODE"),
    "code.needed": ("'{job}' is approved with a one-time code that only its owner gets", "“{job}”需要一次性验证码，只有所有者会收到"),
    "code.none": ("no code is out, or it has expired", "没有有效的验证码，或已过期"),
    "code.spent": ("too many wrong codes; ask for a new one", "错误次数过多；请重新请求"),
    "code.wrong": ("wrong code", "验证码错误"),
    "code.other_plan": ("the plan has changed since the code was sent", "验证码发送之后计划有改动"),
    "code.too_many": ("too many codes were asked for '{job}' within an hour", "一小时内为“{job}”请求验证码次数过多"),
    "code.no_api": ("the code can only be sent by the Bot API, and that is not available", "验证码只能经 Bot API 发送，目前不可用"),
    "code.not_sent": ("the code was not confirmed as sent and is void: {why}", "验证码未确认送达，已作废：{why}"),
    "write.done": ("done: {job}", "已完成：{job}"),
    "verify.passed": ("verified: {job}", "已验证：{job}"),
    "verify.failed": ("not verified: {job}", "未通过验证：{job}"),
    # topics
    "topic.unknown": ("unknown", "状态未知"),
    "topic.stopped": ("stopped", "停止"),
    "topic.stalled": ("stalled", "停滞"),
    "topic.level": ("level", "级别"),
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
    "topic.due": ("schedule", "定时"),
    "topic.config": ("config", "配置"),
    # by hand
    "would.tell": ("would tell: {what}", "将告知：{what}"),
    "would.resume": ("would start it again", "将续跑"),
    "would.restart": ("would stop and start it", "将停止并重新启动"),
    "would.queue": ("would queue: {job}", "将入队：{job}"),
    "dry.queued": ("queued: {job}, from {time}", "队列：{job}，{time} 起"),
    "start.already": ("already running: {job}", "已在运行：{job}"),
    "start.done": ("started: {job}", "已启动：{job}"),
    "start.failed": ("the start failed: {why}", "启动失败：{why}"),
    "start.unknown": ("the status of '{job}' is unknown, a second copy might be started: {why}", "“{job}”状态未知，可能会启动第二份：{why}"),
    "start.left": ("something that an earlier run of '{job}' left is still alive", "“{job}”之前的运行留下的进程仍在运行"),
    "start.changed": ("the command of '{job}' has changed since its checkpoint was begun", "“{job}”的命令在检查点建立后有改动"),
    "stop.done": ("stopped: {job}; nothing resumes it until `start`", "已停止：{job}；在 start 之前不会续跑"),
    "stop.not_running": ("not running: {job}; nothing resumes it until `start`", "未在运行：{job}；在 start 之前不会续跑"),
    "stop.failed": ("its stop command failed", "停止命令失败"),
    "stop.command_failed": ("the stop command of '{job}' failed: {why}", "“{job}”的停止命令失败：{why}"),
    "stop.still_alive": ("pid {pid} of '{job}' is still alive after TERM", "“{job}”的进程 {pid} 收到 TERM 后仍在运行"),
    "run.would": ("would run: {argv}\nin: {cwd}", "将运行：{argv}\n目录：{cwd}"),
    "queued": ("queued: {job}, entry {id}, from {time}", "已入队：{job}，条目 {id}，{time} 起"),
    "acked": ("acknowledged: {job}: {kinds}; no reminders until it changes", "已确认：{job}：{kinds}；有变化之前不再提醒"),
    "ack.none": ("nothing is open: {job}", "没有未解决的异常：{job}"),
    "mute.done": ("muted until {time}: {job}", "静音至 {time}：{job}"),
    "mute.ended": ("no longer muted: {job}", "静音结束：{job}"),
    "help.next": ("next: {command}", "下一步：{command}"),
    # status and explain
    "column.job": ("JOB", "任务"),
    "column.state": ("STATE", "状态"),
    "column.progress": ("PROGRESS", "进度"),
    "column.report": ("TOLD", "上次报告"),
    "column.trouble": ("TROUBLE", "异常"),
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
    "next.disabled": ("disabled", "未启用"),
    "next.run": ("run", "运行"),
    "next.by_hand": ("by hand", "手动"),
    "next.resume": ("resume", "续跑"),
    "next.held": ("waits for start", "等待 start"),
    "next.gave_up": ("gave up: start", "已放弃：需 start"),
    "next.changed": ("changed: start", "已改动：需 start"),
    "next.look": ("look", "查看"),
    "since": ("since {time}", "始于 {time}"),
    "status.keyless": ("no progress key: stalls cannot be seen", "没有进度键：无法发现停滞"),
    "status.broken": ("left out: {job}: {problem}", "未参与监控：{job}：{problem}"),
    "status.orphan": ("orphan: {job} runs, but is not in the config; {command}", "孤儿任务：{job} 在运行，但不在配置中；{command}"),
    "status.queue": ("queued: {count}: {jobs}", "队列：{count}：{jobs}"),
    "status.outbox": ("undelivered messages: {count}; last error: {error}", "未送达消息：{count}；最近的错误：{error}"),
    "status.tick": ("last tick: {time}", "上次 tick：{time}"),
    "status.no_tick": ("last tick: never; the scheduler does not call `tick` yet", "上次 tick：从未；调度器还没有调用 tick"),
    "explain.state": ("state: {state}", "状态：{state}"),
    "explain.key": ("progress key unchanged since {time}; awake without progress: {stalled}, limit {limit}", "进度键自 {time} 未变；清醒且无进展：{stalled}，上限 {limit}"),
    "explain.ran": ("last run: {time}, exit code {code}", "上次运行：{time}，退出码 {code}"),
    "explain.incident": ("open: {kind} since {time}, reminders: {reminders}: {text}", "未解决：{kind}，始于 {time}，提醒次数：{reminders}：{text}"),
    "explain.decisions": ("a tick at this moment would decide:", "此刻 tick 的判断："),
    "explain.next": ("next by itself: {action}", "之后自动：{action}"),
}  # fmt: skip


def say(lang: str, key: str, /, **facts: Any) -> str:
    """The sentence `key` in a language, its holes filled; empty facts show as `-`."""
    row = MESSAGES.get(key)
    if row is None:  # a state file of another version names a row that we do not have
        return key + "".join(f" {name}={value}" for name, value in facts.items())
    text = row[1] if lang == "zh" else row[0]
    return text.format_map(Facts(facts))


class Facts(dict):
    """Facts for a sentence; a missing or empty one shows as `-`."""

    def __init__(self, facts: dict):
        super().__init__({key: "-" if value in ("", None) else value for key, value in facts.items()})

    def __missing__(self, key: str) -> str:
        return "-"


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
  | (?P<odd>  /\*|. )"""
ESCAPES = r"(?s)((?:\\u[0-9a-fA-F]{4})+)|\\x([0-9a-fA-F]{2})|\\(0[0-9]|\r\n|.)"
LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0",
           "\n": "", "\r": "", "\r\n": "", "\u2028": "", "\u2029": ""}
CONSTANTS = {"true": True, "false": False, "null": None}
NUMBER_FORMS = (  # integers longer than Python agrees to print become floats, as in JavaScript all numbers are
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


class Reading(NamedTuple):
    value: Any
    places: dict  # path, such as ("jobs", 2, "id"), or () for the root -> (line, column) of the value


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
    yield "end", "", line, len(text) - line_start + 1


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


class JsonReader:
    """Turns pieces into values. It stands on the first piece that is not yet used."""

    def __init__(self, text: str, duplicates: str):
        self.pieces, self.duplicates = pieces_of(text), duplicates
        self.places: dict = {}
        self.step()

    def step(self) -> None:
        self.kind, self.source, self.line, self.column = next(self.pieces)

    def take(self, mark: str, wanted: str) -> None:
        if self.source != mark:
            raise self.missing(wanted)
        self.step()

    def error(self, problem: str) -> Malformed:
        return Malformed(problem, self.line, self.column)

    def missing(self, wanted: str) -> Malformed:
        """The error of a piece in a wrong place. It quotes no text: that may be a secret."""
        shown = {"end": "the end", "text": "a text"}.get(self.kind) or repr(self.source[:20])
        return self.error(UNCLOSED.get(self.source) or f"expected {wanted}, found {shown}")

    def value(self, path: tuple) -> Any:
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
            members[key] = self.value((*path, key))
            if self.source != close:
                self.take(",", f"',' or '{close}'")
        self.step()
        return members if close == "}" else list(members.values())

    def key(self, members: dict) -> str:
        """The next key, a text or a name as in ECMAScript 5, and its colon."""
        key = self.text() if self.kind in ("text", "word") else ""
        if self.kind != "text" and not key.replace("$", "_").isidentifier():
            raise self.missing("a key or '}'")
        if self.duplicates == "refuse" and key in members:
            raise self.error(f"duplicate key {key[:80]!r}")
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
        if self.source in CONSTANTS:
            return CONSTANTS[self.source]
        for pattern, number in NUMBER_FORMS:
            if re.fullmatch(pattern, self.source):
                return number(self.source)
        if re.match("[+-]?0[oO]?[0-9]", self.source):
            raise self.error("octal numbers are not accepted")
        raise self.missing("a value")


def read_tolerant(text: str, duplicates: str = "last") -> Reading:
    """`text` read as JSON5; of equal keys the last wins, or with "refuse" the second is Malformed."""
    reader = JsonReader(text[1:] if text[:1] == "\ufeff" else text, duplicates)
    value = reader.value(())
    if reader.kind != "end":
        raise reader.missing("the end")
    return Reading(value, reader.places)


def parse_json(text: str) -> Any:
    """The value of `text`, read strictly (fast) or else tolerantly; raises Malformed."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return read_tolerant(text).value


# ==== CONFIG =============================================================
# What may stand in ops-jobs.json.  FIELDS is the only source of types, defaults, bounds, documents
# and schema: to add a setting is to add a row.


class Kind(NamedTuple):
    """A type of value: words for `expected …`, a question, and its JSON Schema."""

    expected: str
    accepts: Callable[[Any], bool]
    schema: dict
    section: str = ""  # the value is an object of this section of FIELDS
    many: bool = False  # … or a list of such objects


class Field(NamedTuple):
    """One setting."""

    key: str
    kind: Kind
    default: Any
    doc: str


def is_number(value: Any) -> bool:
    """A finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e15 < value < 1e15


def is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def is_argv(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value)) and value[0] != ""


def is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key and "=" not in key and is_text(key) and is_text(item) for key, item in value.items()
    )


def is_clock(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value))


def one_of(*words: str) -> Kind:
    return Kind("one of " + ", ".join(words), lambda value: value in words if isinstance(value, str) else False, {"enum": list(words)})


def section(name: str) -> Kind:
    return Kind("an object", lambda value: isinstance(value, dict), {"$ref": f"#/$defs/{name}"}, section=name)


def list_of(name: str) -> Kind:
    return Kind("a list of objects", lambda value: isinstance(value, list), {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}, section=name, many=True)


TEXT = Kind("text", is_text, {"type": "string"})
JOB_ID = Kind(
    "printable text of 1 to 128 characters",
    lambda value: isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable(),
    {"type": "string", "minLength": 1, "maxLength": 128},
)
TEXT_OR_NUMBER = Kind("text or a whole number", lambda value: is_text(value) or type(value) is int, {"type": ["string", "integer"]})
BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool), {"type": "boolean"})
SECONDS = Kind("a number of seconds, 0 or more", lambda value: is_number(value) and value >= 0, {"type": "number", "minimum": 0})
COUNT = Kind("a whole number, 0 or more", lambda value: type(value) is int and value >= 0, {"type": "integer", "minimum": 0})
LOOKS = Kind("a whole number, 1 or more", lambda value: type(value) is int and value >= 1, {"type": "integer", "minimum": 1})
PARALLEL = Kind("a whole number from 1 to 256", lambda value: type(value) is int and 1 <= value <= 256, {"type": "integer", "minimum": 1, "maximum": 256})
ARGV = Kind("a list of texts, the program first", is_argv, {"type": "array", "items": {"type": "string"}, "minItems": 1})
TEXTS = Kind(
    "a list of texts that are not empty",
    lambda value: isinstance(value, list) and all(is_text(item) and item.strip() for item in value),
    {"type": "array", "items": {"type": "string", "minLength": 1}},
)
ENVIRONMENT = Kind("an object of texts", is_environment, {"type": "object", "additionalProperties": {"type": "string"}})
CLOCK = Kind("a time of day like 23:00", is_clock, {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"})
ANYTHING = Kind("anything", lambda value: True, {})

REQUIRED = "(required)"

FIELDS = {
    "config": (
        Field("version", Kind("1", lambda value: value == 1 and is_number(value), {"const": 1}), REQUIRED, "format of this file"),
        Field("jobs", list_of("job"), REQUIRED, "the jobs"),
        Field("defaults", section("policy"), {}, "policy keys for every job"),
        Field("monitor", section("monitor"), {}, "settings of the monitor itself"),
        Field("delivery", section("delivery"), {}, "how a person is told"),
    ),
    "monitor": (
        Field("language", one_of("en", "zh"), "en", "language of messages, status and explain"),
        Field("timezone", TEXT, None, "IANA name for quiet hours and times; default: local"),
        Field("host", TEXT, "", "shown in the header of every message"),
        Field("parallel", PARALLEL, 32, "commands that run at once"),
        Field("digestAt", CLOCK, None, "time of one quiet message a day; default: none"),
        Field("afterTick", ARGV, None, "command run after each good tick; default: none"),
    ),
    "delivery": (
        Field("via", one_of("auto", "openclaw", "api", "command", "none"), "auto", "the way to the person"),
        Field("channel", TEXT, "telegram", "a channel that openclaw knows; only telegram goes by the Bot API"),
        Field("target", TEXT_OR_NUMBER, None, "chat; default: found in OpenClaw's config"),
        Field("threadId", TEXT_OR_NUMBER, None, "topic of the chat; default: none"),
        Field("account", TEXT, None, "OpenClaw account; default: OpenClaw's default"),
        Field("command", ARGV, None, "for via command: gets the text on stdin; default: none"),
    ),
    "job": (
        Field("id", JOB_ID, REQUIRED, "unique name"),
        Field("name", TEXT, None, "shown in reports; default: the id"),
        Field("kind", one_of(LONG_READ, CHECK, WRITE), REQUIRED, "what sort of work it is"),
        Field("risk", one_of(READ_ONLY, "write_local", "write_external"), REQUIRED, "what it may change"),
        Field("enabled", BOOLEAN, False, "false stops looks, auto-resume and everySeconds"),
        Field("cwd", TEXT, None, "working directory, `~` expands; default: OpenClaw's state dir"),
        Field("env", ENVIRONMENT, {}, "added to the environment"),
        Field("commands", section("commands"), REQUIRED, "argv lists; never a shell"),
        Field("managed", BOOLEAN, False, "long jobs: the framework runs and watches commands.start"),
        Field("policy", section("policy"), {}, "when to speak and act"),
        Field("approval", section("approval"), None, "writes only; default: none"),
        Field("after", list_of("after"), [], "jobs queued when this one ends"),
    ),
    "commands": (
        Field("start", ARGV, None, "long jobs: starts the work and returns (managed: is the work)"),
        Field("status", ARGV, None, "long jobs: prints one JSON object"),
        Field("stop", ARGV, None, "long jobs, optional: ends the work"),
        Field("run", ARGV, None, "one-shot jobs: the work"),
    ),
    "policy": (
        Field("reportEverySeconds", SECONDS, 1800, "routine progress while running; 0 = none by time"),
        Field("onlyOnChange", BOOLEAN, True, "also report when progress has changed"),
        Field("minReportSeconds", SECONDS, 300, "such extra reports come no closer than this"),
        Field("reportWhileRunning", BOOLEAN, True, "false: only completion and trouble"),
        Field("stallSeconds", SECONDS, 3600, "running this long with the same progressKey is a stall; 0 = off"),
        Field("onStall", one_of("alert", "restart"), "alert", "restart: stop, then start, as a resume attempt"),
        Field("autoResume", BOOLEAN, False, "start again what was interrupted"),
        Field("autoResumeBackoffSeconds", SECONDS, 900, "wait after the first attempt; doubles, at most 6 h"),
        Field("autoResumeMaxAttempts", COUNT, 5, "attempts in a row; 0 = no limit"),
        Field("quietHours", section("quietHours"), {}, "routine is held meanwhile"),
        Field("alertRepeatSeconds", SECONDS, 14400, "first reminder; each next wait doubles, at most 24 h; 0 = never"),
        Field("alertAfter", LOOKS, 1, "looks in a row that must agree before an incident opens"),
        Field("everySeconds", SECONDS, 0, "one_shot_read: run by tick on this grid; 0 = not"),
        Field("statusTimeoutSeconds", SECONDS, 30, "limit of commands.status"),
        Field("startTimeoutSeconds", SECONDS, 60, "limit of commands.start"),
        Field("stopTimeoutSeconds", SECONDS, 60, "limit of commands.stop"),
        Field("runTimeoutSeconds", SECONDS, None, "limit of commands.run; default: 300, writes 3600"),
        Field("attentionPatterns", TEXTS, ["ACTION REQUIRED", "ALERT"], "whole words in a run's output that a person must see"),
    ),
    "quietHours": (
        Field("start", CLOCK, "23:00", "first quiet minute, local"),
        Field("end", CLOCK, "08:00", "first minute that is not quiet; equal to start = none"),
    ),
    "approval": (
        Field("via", one_of("local", "telegram"), "local", "telegram: also needs a one-time code"),
        Field("ttlSeconds", SECONDS, 3600, "how long an approval holds"),
        Field("required", BOOLEAN, True, "v1; false grants nothing"),
        Field("granted", BOOLEAN, False, "v1; true grants nothing"),
    ),
    "after": (
        Field("jobId", JOB_ID, REQUIRED, "the job to queue"),
        Field("when", one_of("success", "failure", "always"), "success", "which endings count"),
        Field("delaySeconds", SECONDS, 0, "wait before it runs"),
    ),
}
FIELD_OF = {name: {field.key: field for field in fields} for name, fields in FIELDS.items()}


def record(name: str, section_name: str, *more: str) -> Any:
    """A record type with one attribute per row of a section (camelCase becomes snake_case)."""
    return namedtuple(name, [snake(field.key) for field in FIELDS[section_name]] + list(more))


Monitor: Any = record("Monitor", "monitor")
Delivery: Any = record("Delivery", "delivery")
Job: Any = record("Job", "job", "index")
Commands: Any = record("Commands", "commands")
Policy: Any = record("Policy", "policy")
QuietHours: Any = record("QuietHours", "quietHours")
Approval: Any = record("Approval", "approval")
After: Any = record("After", "after")


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

    @property
    def errors(self) -> list:
        return [problem for problem in self.problems if problem.is_error]


def visible(text: str, limit: int) -> str:
    """`text` on one line, with control characters as escapes."""
    return clip(text if text.isprintable() else json.dumps(text)[1:-1], limit)


def found_text(value: Any) -> str:
    """A value as an error names it."""
    if isinstance(value, str):
        return f"text '{visible(value, 40)}'"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (int, float)):
        return f"number {one_line(repr(value), 30)}" if value == value else "NaN"
    if not value:
        return ("a list" if isinstance(value, list) else "an object") + " that is empty"
    if isinstance(value, dict):
        return "an object"
    odd = next((index for index, item in enumerate(value) if not is_text(item) or not item.strip()), None)
    if odd is None:
        return "a list"
    item = value[odd]
    if isinstance(item, str) and "\0" in item:
        return f"a NUL character in item {odd}"
    return f"{'a list' if isinstance(item, list) else found_text(item)} as item {odd}"


def path_text(path: tuple) -> str:
    """`("jobs", 2, "policy")` -> `jobs[2].policy`."""
    text = ""
    for step in path:
        step = step if isinstance(step, int) else visible(step, 60)
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "the file"


def read_settings(name: str, value: dict, path: tuple, problems: list) -> dict:
    """The valid settings that `value` gives for a section; the others are noted."""
    settings = {}
    fields = FIELD_OF[name]
    for key, item in value.items():
        field = fields.get(key)
        if field is not None:
            read = read_value(field, item, (*path, key), problems)
            if read is not problems:
                settings[key] = read
        elif not key.startswith(("_", "$", "//")):
            near = nearest(key, fields)
            advice = f"; did you mean '{near}'?" if near else ""
            problems.append(Problem((*path, key), f"unknown key{advice}", is_error=False))
    for key, field in fields.items():
        if field.default is REQUIRED and key not in value:
            problems.append(Problem(path, f"'{key}' is missing: expected {field.kind.expected}"))
    return settings


def read_value(field: Field, value: Any, path: tuple, problems: list) -> Any:
    """A value as the records hold it, or `problems` itself if it is not valid."""
    kind = field.kind
    if value is None and field.default is None:
        return None
    if not kind.accepts(value):
        problems.append(Problem(path, f"expected {kind.expected}, found {found_text(value)}"))
        return problems
    if kind.many:
        return read_list(kind.section, value, path, problems) if kind.section != "job" else value
    if kind.section:
        return read_settings(kind.section, value, path, problems)
    return value


def read_list(name: str, items: list, path: tuple, problems: list) -> list:
    read = []
    for index, item in enumerate(items):
        if isinstance(item, dict):
            read.append(read_settings(name, item, (*path, index), problems))
        else:
            problems.append(Problem((*path, index), f"expected an object, found {found_text(item)}"))
    return read


def filled(kind_of: Any, section_name: str, settings: dict, **more: Any) -> Any:
    """The record of a section: its settings over its defaults."""
    return kind_of(*[settings.get(field.key, field.default) for field in FIELDS[section_name]], *more.values())


def make_policy(*layers: dict) -> Any:
    """A policy from several objects, the last one strongest; quiet hours merge by half."""
    merged: dict = {}
    quiet: dict = {}
    for layer in layers:
        merged.update(layer)
        quiet.update(layer.get("quietHours", {}))
    merged["quietHours"] = filled(QuietHours, "quietHours", quiet)
    return filled(Policy, "policy", merged)


def make_job(settings: dict, defaults: dict, index: int) -> Any:
    """A Job from settings that have no error."""
    approval = settings.get("approval")
    whole = dict(
        settings,
        name=settings.get("name") or settings["id"],
        commands=filled(Commands, "commands", settings["commands"]),
        policy=make_policy(defaults, settings.get("policy", {})),
        approval=None if approval is None else filled(Approval, "approval", approval),
        after=[filled(After, "after", item) for item in settings.get("after", [])],
    )
    return filled(Job, "job", whole, index=index)


def job_faults(job: Any, own_policy: dict) -> Iterator[tuple]:
    """(key path, text, is_error) for settings that are valid alone and wrong together.

    `own_policy` is what the job itself says: what it has from `defaults` need not fit every job.
    """
    is_long = job.kind == LONG_READ
    needed = (("start",) if job.managed else ("start", "status")) if is_long else ("run",)
    for name in needed:
        if not getattr(job.commands, name):
            yield ("commands",), f"'{name}' is missing: a {job.kind} needs it", True
    for name, argv in zip(job.commands._fields, job.commands):
        if argv and job.managed and name in ("status", "stop"):
            yield ("commands", name), "a managed job has none: the framework answers and stops itself", True
        elif argv and name not in (*needed, "stop"):
            yield ("commands", name), f"a {job.kind} does not use it", False
    if job.managed and not is_long:
        yield ("managed",), f"expected a {LONG_READ}, found kind {job.kind}", True
    if job.kind == CHECK and job.risk != READ_ONLY:
        yield ("risk",), f"expected read_only for a one_shot_read, found {job.risk}", True
    if job.kind == WRITE and job.risk == READ_ONLY:
        yield ("risk",), "a one_shot_write is treated as a write; say write_local or write_external", False
    if own_policy.get("autoResume") and (not is_long or job.risk != READ_ONLY):
        yield ("policy", "autoResume"), "only a long_running_read with risk read_only is ever resumed", False
    if own_policy.get("everySeconds") and job.kind != CHECK:
        yield ("policy", "everySeconds"), "only a one_shot_read is run by the clock", False
    if own_policy.get("onStall") == "restart" and not can_restart(job):
        yield ("policy", "onStall"), "restart needs risk read_only and managed or commands.stop; it will alert", False
    if job.approval and (job.approval.granted or not job.approval.required):
        key = "granted" if job.approval.granted else "required"
        yield ("approval", key), f"grants nothing; `approve {job.id}` approves one run", False


def can_restart(job: Any) -> bool:
    """Whether a stall of this job may be answered by stop and start."""
    return job.kind == LONG_READ and job.risk == READ_ONLY and bool(job.managed or job.commands.stop)


def after_faults(job: Any, jobs: dict, broken: dict) -> Iterator[tuple]:
    """The same for what `after` says about other jobs."""
    for index, after in enumerate(job.after):
        other = jobs.get(after.job_id)
        path = ("after", index, "jobId")
        if other is None and after.job_id not in broken:
            near = nearest(after.job_id, jobs)
            yield path, f"no job '{visible(after.job_id, 60)}'" + (f"; did you mean '{near}'?" if near else ""), True
        elif other and other.kind == WRITE:
            yield path, "a write is never run by itself; it will be BLOCKED", False
        elif other and other.kind == LONG_READ and job.kind != WRITE:
            yield path, "only a one_shot_read is run from the queue; it will be BLOCKED", False
    if job.kind == WRITE:
        yield from verification_faults(job, jobs, broken)


def verifications(job: Any, jobs: dict) -> list:
    """The `after` entries of a write that can verify it."""
    return [
        after
        for after in job.after
        if after.when != "failure" and after.job_id in jobs and jobs[after.job_id].kind == CHECK and jobs[after.job_id].risk == READ_ONLY
    ]


def verification_faults(job: Any, jobs: dict, broken: dict) -> Iterator[tuple]:
    if verifications(job, jobs):
        return
    wanted = [after.job_id for after in job.after if after.when != "failure"]
    if any(job_id in broken for job_id in wanted):
        yield ("after",), "its verification job has an error, so this write is left out too", True
    elif any(job_id in jobs and jobs[job_id].kind == LONG_READ and jobs[job_id].risk == READ_ONLY for job_id in wanted):
        yield ("after",), "a long job cannot verify: this write can never become verified; name a one_shot_read", False
    elif all(after.job_id in jobs for after in job.after):
        yield ("after",), "a write needs a verification: an entry with when success or always that names a read_only one_shot_read", True


def in_cycles(jobs: dict) -> list:
    """Ids of jobs that lead back to themselves along `after`."""
    after = {job.id: {item.job_id for item in job.after if item.job_id in jobs} for job in jobs.values()}
    before: dict = {}
    for job_id, others in after.items():
        for other in others:
            before.setdefault(other, []).append(job_id)
    ended = [job_id for job_id, others in after.items() if not others]
    while ended:  # take out what leads nowhere, until only what leads to a cycle is left
        job_id = ended.pop()
        del after[job_id]
        for previous in before.get(job_id, ()):
            after[previous].discard(job_id)
            if not after[previous]:
                ended.append(previous)
    return [job_id for job_id in after if leads_to(job_id, job_id, after)]


def leads_to(start: str, goal: str, after: dict) -> bool:
    """Whether a way along `after` leads from `start` to `goal`."""
    seen: set = set()
    ahead = list(after[start])
    while ahead:
        job_id = ahead.pop()
        if job_id == goal:
            return True
        if job_id not in seen:
            seen.add(job_id)
            ahead += after[job_id]
    return False


def parse_config(text: str) -> Any:
    """The JSON value of a config's text.  Raises Malformed with its place."""

    def unique(pairs: list) -> dict:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("duplicate key")
        return made

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return read_tolerant(text, duplicates="refuse").value


def read_jobs(items: list, defaults: dict, problems: list) -> tuple:
    """(jobs by id, ids that are broken) of the `jobs` list; problems are noted."""
    jobs: dict = {}
    broken: dict = {}
    for index, item in enumerate(items):
        path = ("jobs", index)
        mine: list = []
        settings = read_settings("job", item, path, mine) if isinstance(item, dict) else {}
        if not isinstance(item, dict):
            mine.append(Problem(path, f"expected an object, found {found_text(item)}"))
        elif settings.get("id") in jobs or settings.get("id") in broken:
            mine.append(Problem((*path, "id"), f"a job '{settings['id']}' stands above already"))
        if not any(problem.is_error for problem in mine):
            job = make_job(settings, defaults, index)
            mine += [Problem((*path, *key), text, error) for key, text, error in job_faults(job, settings.get("policy", {}))]
        if any(problem.is_error for problem in mine):
            name = settings.get("id")
            broken[path_text(path) if name is None or name in jobs else name] = next(p for p in mine if p.is_error).text
        else:
            jobs[job.id] = job
        problems += mine
    return jobs, broken


def cross_check(jobs: dict, broken: dict, problems: list) -> None:
    """Take out jobs whose `after` is wrong, then the writes whose verification that leaves out."""
    looping = in_cycles(jobs)
    warnings: dict = {}
    before = -1
    while len(broken) != before:
        before = len(broken)
        for job in list(jobs.values()):
            faults = list(after_faults(job, jobs, broken)) if job.after or job.kind == WRITE else []
            if job.id in looping:
                faults.append((("after",), "forms a cycle through " + ", ".join(looping[:5]), True))
            mine = [Problem(("jobs", job.index, *key), text, error) for key, text, error in faults]
            warnings[job.id] = mine
            errors = [problem.text for problem in mine if problem.is_error]
            if errors:
                broken[job.id] = errors[0]
                del jobs[job.id]
    problems += [problem for mine in warnings.values() for problem in mine]


def read_config(text: str) -> Config:
    """A config as understood.  Raises Malformed if nothing in it can be used."""
    value = parse_config(text)
    if not isinstance(value, dict):
        raise Malformed(f"expected an object, found {found_text(value)}", 1, 1)
    problems: list = []
    settings = read_settings("config", value, (), problems)
    fatal = [problem for problem in problems if problem.path in ((), ("version",), ("jobs",))]
    if fatal:
        line, column = find_places(text).get(fatal[0].path, (1, 1))
        where = path_text(fatal[0].path)
        raise Malformed(fatal[0].text if where == "the file" else f"{where}: {fatal[0].text}", line, column)
    jobs, broken = read_jobs(settings["jobs"], settings.get("defaults", {}), problems)
    cross_check(jobs, broken, problems)
    monitor = filled(Monitor, "monitor", settings.get("monitor", {}))
    delivery = filled(Delivery, "delivery", settings.get("delivery", {}))
    return Config(jobs, broken, monitor, delivery, tuple(problems), text)


def find_places(text: str) -> dict:
    """Path -> (line, column) of every value; empty for a text that only the plain parser reads."""
    try:
        return read_tolerant(text).places
    except Malformed:  # nested deeper than the tolerant parser goes
        return {}


def problem_lines(config: Config, path: str, strict: bool = False) -> list:
    """Every problem as `PATH:LINE:COL: error: jobs[2].x: …`, in the order of the file."""
    if not config.problems:
        return []
    places = find_places(config.text)
    lines = []
    for problem in config.problems:
        place = problem.path
        while place and place not in places:
            place = place[:-1]
        line, column = places.get(place, (1, 1))
        level = "error" if problem.is_error or strict else "warning"
        lines.append((line, column, f"{path}:{line}:{column}: {level}: {path_text(problem.path)}: {problem.text}"))
    redact = Redactor()
    return [redact(text) for _, _, text in sorted(lines)]


def run_timeout(job: Any) -> float:
    """Seconds that `commands.run` may take."""
    given = job.policy.run_timeout_seconds
    return float(given if given is not None else 3600 if job.kind == WRITE else 300)


def config_schema() -> dict:
    """The JSON Schema of ops-jobs.json (draft 2020-12), derived from FIELDS."""

    def shape(fields: tuple) -> dict:
        properties = {}
        for field in fields:
            row = dict(field.kind.schema, description=field.doc)
            if field.default is not REQUIRED and field.default is not None:
                row["default"] = field.default
            if field.default is None:
                row = {"anyOf": [row, {"type": "null"}], "description": row.pop("description")}
            properties[field.key] = row
        needed = [field.key for field in fields if field.default is REQUIRED]
        return {"type": "object", "properties": properties, **({"required": needed} if needed else {})}

    whole = shape(FIELDS["config"])
    whole["$defs"] = {name: shape(fields) for name, fields in FIELDS.items() if name != "config"}
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


def object_at(value: Any, *keys: str) -> dict:
    """The object that `keys` lead to; an empty one where the way ends or something else stands."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


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
    paths = (env.get("OPENCLAW_" + name) for name in ("CONFIG_PATH", "STATE_DIR", "HOME"))
    named, state, base = (
        None if is_unset(path) else os.path.normpath(expand_home(str(path).strip(), home)) for path in paths
    )
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
    beside = None if state or base or not named else os.path.dirname(named)
    ours = (base, os.path.dirname(usual[0]), state_dir, beside)
    holders = (place for place in ours if place and exists(f"{place}/net"))
    return Places(state_dir, named or found, next(holders, state_dir))


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

    def __init__(self, directory: str, read: Callable[[str], str]):
        self.root, self.read, self.count = os.path.join(directory, ""), read, 0
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
        self.count += 1
        refuse_if(
            (not path.startswith(self.root), "expected a file inside the config's directory"),
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


def config_variables(config: dict, outer: dict) -> dict:
    """The variables that the config's `env` sets, `outer` ones put into them; unresolved means unset."""
    own = substitute(only_set({**object_at(config, "env"), **object_at(config, "env", "vars")}), outer)
    return {name: text for name, text in own.items() if "${" not in text}


def load_openclaw(
    path: Optional[str], env: dict, read: Callable[[str], str], state_dir: Optional[str] = None
) -> OpenClaw:
    """The config at the absolute `path`, and the variables; `.env` is looked for beside it and in `state_dir`.

    `read` may raise OSError and ValueError. Symlinks are its business: here names are judged.
    """
    if not path:
        return OpenClaw("", {}, only_set(env), [])
    path = os.path.normpath(path)
    directory = os.path.dirname(path)
    includes = Includes(directory, read)
    problems, config = includes.problems, None
    try:
        config = includes.resolve(read_document(path, read), (path,))
        if not isinstance(config, dict):
            problems.append(f"{path}: expected an object")
    except Unavailable as error:
        problems.append(str(error))
    config, outer = object_at(config), {}
    for place in dict.fromkeys((directory, state_dir or directory)):
        outer.update(read_dotenv(os.path.join(place, ".env"), read, problems))
    outer.update(only_set(env))
    variables = {**config_variables(config, outer), **outer}
    return OpenClaw(path, substitute(config, variables), variables, problems)


def default_account(openclaw: OpenClaw) -> str:
    """`defaultAccount` if there is such a one, else `default`, else the first in alphabetical order."""
    telegram = object_at(openclaw.config, "channels", "telegram")
    accounts = object_at(telegram, "accounts")
    wishes = (telegram.get("defaultAccount"), "default", *sorted(accounts))
    return next((wish for wish in wishes if isinstance(wish, str) and wish in accounts), "default")


def telegram_layers(openclaw: OpenClaw, account: Optional[str]) -> list:
    """The settings of `account` (None: the default one), then the channel's, each as (where, object)."""
    account = account or default_account(openclaw)
    channel = object_at(openclaw.config, "channels", "telegram")
    return [(f"channels.telegram.accounts.{account}", object_at(channel, "accounts", account)),
            ("channels.telegram", channel)]


def check_text(value: Any) -> str:
    """`value` trimmed; Unavailable when it is no text, or when a variable in it is not set."""
    text = value.strip() if isinstance(value, str) else ""
    unset = ", ".join(found[0] for found in re.finditer(VARIABLE_FORM, text))
    refuse_if((is_unset(text), "there is no text in it"), ("${" in text, f"a variable is not set: {unset}"))
    return text


def read_named(openclaw: OpenClaw, path: Any, read_file: Callable[[str], str]) -> str:
    """The text of a file that the config names; a relative one is beside the config."""
    path = expand_home(check_text(path), openclaw.variables.get("HOME"))
    try:
        return read_file(os.path.join(os.path.dirname(openclaw.path), path))
    except (OSError, ValueError) as error:
        raise Unavailable(f"the file cannot be read: {explain_unreadable(error)}") from None


def follow_reference(openclaw: OpenClaw, reference: dict, read_file: Callable[[str], str]) -> Any:
    """What a secret reference `{source, provider, id}` leads to; `id` is a variable or a JSON pointer."""
    source, provider, name = (str(reference.get(key, "default")) for key in ("source", "provider", "id"))
    if source == "env":
        return substitute("${%s}" % name, openclaw.variables)
    settings = object_at(openclaw.config, "secrets", "providers", provider)
    refuse_if(
        (source != "file", f"secret reference by {source[:20]}: only openclaw can read it"),
        (not settings, f"the secret provider {provider[:40]} is not configured"),
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
        (not re.fullmatch("[!-~]+", text), "it is not a token: it has blanks or characters beyond ASCII"),
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
    if account not in {"default", *object_at(layers[1][1], "accounts")}:
        return Token(None, layers[0][0], "there is no such account", account)
    for where, values in layers:
        if values.get("enabled") is False:
            return Token(None, f"{where}.enabled", "it is off in OpenClaw (enabled: false)", account)
    keys = ("tokenFile", "botToken")
    sources = [(f"{where}.{key}", key, values.get(key)) for where, values in layers for key in keys]
    if account in ("default", default_account(openclaw)):
        sources.append(("TELEGRAM_BOT_TOKEN", "", openclaw.variables.get("TELEGRAM_BOT_TOKEN")))
    for source, key, value in sources:
        try:
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
    layers = telegram_layers(openclaw, account)
    for source, value, parse in (
        ("heartbeat.to of agent main", heartbeat_target(openclaw.config), parse_target),
        ("commands.ownerAllowFrom", object_at(openclaw.config, "commands").get("ownerAllowFrom"), parse_person),
        *((f"{where}.defaultTo", values.get("defaultTo"), parse_target) for where, values in layers),
        *((f"{where}.allowFrom", values.get("allowFrom"), parse_person) for where, values in layers),
    ):
        found = next(filter(None, map(parse, as_list(value))), None)
        if found:
            return Target(found[0], found[1], source)
    return None


def find_api(openclaw: OpenClaw, account: Optional[str]) -> Api:
    """The Bot API's address and the proxy on the way to it; the account's come before the channel's."""
    (_, own), (_, channel) = telegram_layers(openclaw, account)
    settings = {**only_set(channel), **only_set(own)}
    root = settings.get("apiRoot", "https://api.telegram.org").strip()
    return Api(re.sub("/*(/bot[0-9]+:[^/]*)?/*$", "", root), settings.get("proxy", "").strip() or None)


def gateway_port(openclaw: OpenClaw) -> int:
    for given in (openclaw.variables.get("OPENCLAW_GATEWAY_PORT"), object_at(openclaw.config, "gateway").get("port")):
        port = str(given)
        if re.fullmatch(r"\s*[1-9][0-9]{0,4}\s*", port) and int(port) < 65536:
            return int(port)
    return 18789


# ==== STATE ==============================================================
# What is remembered between ticks: its JSON shape, how old files become new ones, and how wrong or
# future values are survived.  A value of the wrong type counts as absent, alone.

STATE_VERSION = 2
FORGET_AFTER = 30 * DAY  # memory of a job that left the config
OUTBOX_LIMIT = 500
DONE_KEPT = DAY  # finished queue entries stay this long, for those who look
PROGRESS_BYTES = 500  # of a progress object that memory keeps, as JSON
FACT_TEXT = 160  # letters of a fact that an incident keeps

KEYS: dict = {kind: {camel(name): name for name in kind._fields} for kind in (Memory, Incident, Gate)}


def thaw(kind: Any, raw: Any, now: float) -> Any:
    """A record from its JSON object.  Past events dated in the future happened now."""
    names = KEYS[kind]
    blank = kind()
    values = {}
    for key, value in raw.items() if isinstance(raw, dict) else ():
        name = names.get(key)
        if name is None:
            continue
        wanted = type(getattr(blank, name))
        if wanted is float and type(value) is int:
            value = float(value) if abs(value) < 1e15 else None
        if type(value) is wanted and (wanted is not float or abs(value) < 1e15):  # NaN fails that too
            values[name] = min(value, now) if name.endswith("_at") else value
    if "incidents" in values:
        values["incidents"] = {
            key: thaw(Incident, item, now) for key, item in values["incidents"].items() if isinstance(item, dict)
        }
    return kind(**values)


def freeze(value: Any, raw: Optional[dict] = None) -> dict:
    """The JSON object of a record: what differs from absent, and keys that we do not know."""
    names = KEYS[type(value)]
    made = {key: item for key, item in (raw or {}).items() if key not in names}
    for (key, name), item, absent in zip(names.items(), value, type(value)()):
        if item != absent:
            if name == "incidents":
                old = (raw or {}).get("incidents")
                kept = {kind: known for kind, known in old.items() if isinstance(known, dict)} if isinstance(old, dict) else {}
                item = {kind: freeze(incident, kept.get(kind)) for kind, incident in item.items()}
            made[key] = round(item, 3) if type(item) is float else item
    return made


def small_progress(progress: dict) -> dict:
    """The scalars of a progress object, few and short, for later differences."""
    kept: dict = {}
    room = PROGRESS_BYTES
    for key, value in progress.items():
        value = value[:40] if isinstance(value, str) else value
        if not isinstance(value, (int, float, str)) or isinstance(value, float) and abs(value) == float("inf"):
            continue
        room -= len(f"{key}{value}".encode("utf-8", "replace")) + 8
        if room < 0:
            break
        kept[key] = value
    return kept


def small_facts(facts: dict) -> dict:
    """The facts of an incident as memory keeps them, for `status`."""
    return {key: clip(value, FACT_TEXT) if isinstance(value, str) else value for key, value in facts.items()}


class State:
    """The content of the state file while it is read or changed.

    `raw` is the JSON object; jobs are thawed when asked for and frozen when remembered, so
    that a tick over 1,000 jobs touches only what it changes.
    """

    def __init__(self, raw: dict, now: float, is_migrated: bool = False):
        self.raw = raw
        self.now = now
        self.is_migrated = is_migrated  # the file was v1's
        self.history: list = []  # records to append once this state is on disk
        for key, kind in (("jobs", dict), ("gates", dict), ("queue", list), ("outbox", list), ("receiver", dict), ("self", dict)):
            if not isinstance(raw.get(key), kind):
                raw[key] = kind()
        saved: list = [raw.get("savedAt"), raw["self"].get("lookedAt")]
        if any(is_number(at) and at > now + 0.001 for at in saved):
            self._set_back()
        raw["queue"] = [entry for entry in map(self._mended, raw["queue"]) if entry is not None]
        raw["outbox"] = [entry for entry in map(self._mended, raw["outbox"]) if entry and isinstance(entry.get("text"), str)]
        for entry in raw["outbox"]:
            if type(entry.get("rank")) is not int or not isinstance(entry.get("id"), str):
                entry.update(rank=ALERT, id=str(entry.get("id")))

    @property
    def jobs(self) -> dict:
        return self.raw["jobs"]

    @property
    def queue(self) -> list:
        """Entries `{id, jobId, notBefore, status: pending|running|done, attempt, createdAt, by}`."""
        return self.raw["queue"]

    @property
    def outbox(self) -> list:
        """Entries `{id, createdAt, notBefore, rank, text, about, tries, maybeSent, refusedBy}`."""
        return self.raw["outbox"]

    def memory(self, job_id: str) -> Memory:
        return thaw(Memory, self.jobs.get(job_id), self.now)

    def remember(self, job_id: str, memory: Memory) -> None:
        raw = self.jobs.get(job_id)
        self.jobs[job_id] = freeze(memory, raw if isinstance(raw, dict) else None)

    def gate(self, job_id: str) -> Gate:
        return thaw(Gate, self.raw["gates"].get(job_id), self.now)

    def keep_gate(self, job_id: str, gate: Gate) -> None:
        raw = self.raw["gates"].get(job_id)
        self.raw["gates"][job_id] = freeze(gate, raw if isinstance(raw, dict) else None)

    def own_memory(self) -> Memory:
        """The monitor's memory of its own troubles: config, delivery, state."""
        return thaw(Memory, self.raw["self"], self.now)

    def remember_own(self, memory: Memory) -> None:
        self.raw["self"] = freeze(memory, self.raw["self"])

    def record(self, event: str, job_id: str = "", **facts: Any) -> None:
        """Note one line for the history file."""
        self.history.append({"at": round(self.now, 3), "event": event, **({"job": job_id} if job_id else {}), **facts})

    def _set_back(self) -> None:
        """The clock was set back since this was saved: what is dated in the future happened now, from now on."""
        for job_id in list(self.jobs):
            self.remember(job_id, self.memory(job_id))
        for job_id in list(self.raw["gates"]):
            self.keep_gate(job_id, self.gate(job_id))
        self.remember_own(self.own_memory())
        self.raw.pop("recoveredAt", None)

    def _mended(self, entry: Any) -> Optional[dict]:
        """A queue or outbox entry with times that the clock allows; None if it is none."""
        if not isinstance(entry, dict):
            return None
        created = epoch_seconds(entry.get("createdAt"))
        not_before = epoch_seconds(entry.get("notBefore"))
        if created > self.now:  # the clock was set back: keep the wait, not the date
            not_before = self.now + max(0.0, not_before - created)
            created = self.now
        wait: Any = entry.get("wait")
        if is_number(wait) and wait >= 0:
            not_before = min(not_before, self.now + wait)
        done: Any = entry.get("doneAt")
        if is_number(done) and done > self.now:
            entry["doneAt"] = self.now
        if entry.get("createdAt") != created:
            entry["createdAt"] = created or self.now
        if entry.get("notBefore") != not_before:
            entry["notBefore"] = not_before
        return entry


def epoch_seconds(value: Any) -> float:
    """Epoch seconds of a number (seconds or milliseconds) or ISO text; 0.0 for anything else."""
    if is_number(value):
        return float(value) / (1000.0 if value > 1e11 else 1.0) if value > 0 else 0.0
    if isinstance(value, str) and value:
        from datetime import datetime, timezone  # rare: v1 files only

        try:
            moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return 0.0
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return 0.0


V1_KEYS = {
    "lastSeen", "lastProgressKey", "lastProgressAt", "lastReportAt", "lastAnomalyKey", "lastAnomalyReportAt",
    "lastAutoResumeAt", "reportedCompleted",
}  # fmt: skip


def memory_of_v1(old: dict) -> Memory:
    """What v1 knew of a job, so that the first tick repeats no report and no alert."""
    seen, moved, reported = (epoch_seconds(old.get(key)) for key in ("lastSeen", "lastProgressAt", "lastReportAt"))
    key = old.get("lastProgressKey")
    key = key if isinstance(key, str) else "" if key is None else json.dumps(key, sort_keys=True, separators=(",", ":"))
    resumed = epoch_seconds(old.get("lastAutoResumeAt"))
    completed = old.get("reportedCompleted") is True
    return Memory(
        looked_at=seen or max(reported, moved),
        key=key,
        key_at=moved,
        stalled_for=max(0.0, seen - moved) if seen and moved else 0.0,
        reported_at=reported,
        reported_key=key if reported else "",
        completed_fired=completed,
        completed_told=completed,
        attempts=1 if resumed else 0,
        attempt_at=resumed,
        attempt_key=key if resumed else "",
        inherited_at=(epoch_seconds(old.get("lastAnomalyReportAt")) or seen) if old.get("lastAnomalyKey") else 0.0,
    )


def migrate_v1(raw: dict) -> dict:
    """A v1 state object as ours.  Keys that neither version knows are kept."""
    made = dict(raw, version=STATE_VERSION, jobs={})
    made.pop("lastConfigErrorAt", None)
    jobs = raw.get("jobs")
    for job_id, old in jobs.items() if isinstance(jobs, dict) else ():
        if isinstance(old, dict):
            kept = {key: value for key, value in old.items() if key not in V1_KEYS}
            made["jobs"][job_id] = freeze(memory_of_v1(old), kept)
    told_at = epoch_seconds(raw.get("lastConfigErrorAt"))
    if told_at:
        made["self"] = freeze(Memory(inherited_at=told_at))
    return made


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
# One look at a long job is judged in four steps, each an ordered list of questions that answer
# early and with a named reason:
#
#   remember   the observation becomes memory: a new run? progress? how long awake without any?
#   findings   what is wrong now: unknown, stopped, stalled, level (each PRESENT, ABSENT or OPEN)
#   incidents  each finding against what a person was told: open, worse, changed, remind, resolve
#   resume     may it be started again by itself, and is it time?
#   report     is routine progress due?
#
# What a person was told is remembered apart from what is true, so every tick decides again from
# both: what quiet hours or a mute held back is told later if it is still true, and never if not.

LONGEST_BACKOFF = 6 * HOUR
LONGEST_REPEAT = DAY
TEXTS_TOLD = 5  # really different texts of one incident
RESUMING = ("resume.now", "resume.backoff", "resume.state_lost")  # it will be started, now or later
OPEN = object()  # a finding that this look can neither confirm nor deny


def quiet_left(policy: Any, minute: int) -> float:
    """Seconds of quiet hours still to come; 0 outside them."""
    start, end = (int(text[:2]) * 60 + int(text[3:]) for text in policy.quiet_hours)
    inside = start <= minute < end if start <= end else minute >= start or minute < end
    return ((end - minute) % 1440) * MINUTE if inside and start != end else 0.0


def is_muted(memory: Memory, now: Instant) -> bool:
    return memory.muted_for > 0 and now.at < memory.muted_at + memory.muted_for


def backoff(policy: Any, attempts: int) -> float:
    """Seconds to wait after attempt number `attempts`."""
    return min(policy.auto_resume_backoff_seconds * 2.0 ** min(max(0, attempts - 1), 40), max(LONGEST_BACKOFF, policy.auto_resume_backoff_seconds)) if attempts else 0.0


# ---- reading what a command printed


class Written(float):
    """A number that remembers how it was written: 1.50 stays 1.50."""

    text = ""

    @classmethod
    def read(cls, text: str) -> "Written":
        number = cls(text)
        if number in (float("inf"), float("-inf")):  # 1e999: JSON cannot carry it any further
            raise ValueError(text)
        number.text = text
        return number


def unknown(outcome: Outcome, key: str, redact: Redactor, **facts: Any) -> Observation:
    detail = last_lines(redact.read(outcome.err) or redact.read(outcome.out), 3, 400)
    return Observation(outcome.ended, UNKNOWN, problem=Phrase(key, facts), detail=detail)


def outcome_phrase(outcome: Outcome) -> Optional[Phrase]:
    """Why a run is not good, or None."""
    if outcome.failure:
        return outcome.failure
    if outcome.timed_out:
        return Phrase("run.timeout", {"seconds": duration_text(outcome.limit)})
    code = outcome.code or 0
    if code < 0:
        return Phrase("run.signal", {"signal": signal_name(-code)})
    named = {126: "run.exit126", 127: "run.exit127"}
    return Phrase(named.get(code, "run.exit"), {"code": code}) if code else None


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


STATUS_LIMIT = 1 << 20  # bytes of a status answer


def read_status(outcome: Outcome, redact: Redactor) -> Observation:
    """The observation in a status command's outcome: the status contract, CONTRACT of v1."""
    failed = outcome_phrase(outcome)
    if failed:
        return unknown(outcome, failed.key, redact, **failed.facts)
    if outcome.out_size > STATUS_LIMIT:
        return unknown(outcome, "status.large", redact)
    try:
        answer = json.loads(outcome.out.decode("utf-8-sig"), parse_float=Written.read, parse_constant=refuse_constant)
    except UnicodeDecodeError:
        return unknown(outcome, "status.utf8", redact)
    except (ValueError, RecursionError):
        return unknown(outcome, "status.json" if outcome.out.strip() else "status.empty", redact)
    if not isinstance(answer, dict):
        return unknown(outcome, "status.object", redact)
    for field in ("running", "completed"):
        if not isinstance(answer.get(field), bool):
            return unknown(outcome, "status.boolean", redact, field=field)
    if answer["running"] and answer["completed"]:
        return unknown(outcome, "status.both", redact)
    return observed(outcome.ended, answer, redact)


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def observed(when: Instant, answer: dict, redact: Redactor) -> Observation:
    """The observation in a valid answer: optional parts of the wrong type count as absent."""
    progress = redact.scrub(answer["progress"]) if isinstance(answer.get("progress"), dict) else {}
    level, pid = answer.get("level"), answer.get("pid")
    return Observation(
        when,
        RUNNING if answer["running"] else COMPLETED if answer["completed"] else STOPPED,
        key=progress_key(answer.get("progressKey"), answer.get("progress"), redact),
        pid=pid if type(pid) is int and 1 < pid < 1 << 31 else 0,
        progress=progress,
        level=level if level in ("warn", "alert") else "ok",
        message=text_of(answer.get("message"), redact),
        waiting=answer.get("waiting") is True,
        stop_reason=text_of(answer.get("stopReason"), redact),
    )


def text_of(value: Any, redact: Redactor) -> str:
    return clip(redact.tidy(value).strip(), 1000) if isinstance(value, str) else ""


def progress_key(key: Any, progress: Any, redact: Redactor) -> str:
    """`progressKey`, else the canonical JSON of `progress`; by its digest where it is long or not to be shown."""
    if isinstance(key, (int, float)) and not isinstance(key, bool):
        text = number_text(key)
    elif isinstance(key, str) and key:
        text = key
    elif isinstance(progress, dict) and progress:
        text = json.dumps(progress, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    else:
        return ""
    if len(text.encode("utf-8", "replace")) <= 100 and redact.tidy(text) == text:
        return text
    import hashlib  # rare: only for such keys

    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


# ---- remember


def is_new_run(memory: Memory, look: Observation) -> bool:
    """Whether a running look shows another run than the one remembered."""
    if memory.state not in (RUNNING, ""):
        return True
    return bool(memory.pid and look.pid and memory.pid != look.pid or memory.run and look.run and memory.run != look.run)


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
    began_at = max(memory.attempt_at, memory.state_at if memory.state == RUNNING else look.when.at)
    return look.when.at - began_at > backoff(policy, memory.attempts)


def remember_look(memory: Memory, look: Observation, policy: Any) -> Memory:
    """Memory after a look, before anything is decided."""
    when = look.when
    if memory.boot and memory.boot != when.boot:
        memory = memory._replace(stalled_for=0.0, last_look="")
    if look.state == UNKNOWN:
        return memory._replace(looked_at=when.at, looked_awake=when.awake, boot=when.boot, last_look=UNKNOWN, left_at=0.0)
    changed = memory.state != look.state
    if look.run and memory.run and look.run != memory.run:
        memory = memory._replace(completed_fired=False, completed_told=False)
    if look.state == RUNNING:
        memory = memory._replace(stalled_for=stalled_for(memory, look), completed_fired=False, completed_told=False)
        if memory.attempts and not memory.gave_up_at and has_recovered(memory, look, policy):
            memory = memory._replace(attempts=0, attempt_at=0.0, attempt_key="")
        if changed and memory.state == COMPLETED:
            memory = memory._replace(reported_at=0.0, reported_key="", reported_progress={})
        if look.key and look.key != memory.key:
            memory = memory._replace(key_at=when.at)
    return memory._replace(
        looked_at=when.at,
        looked_awake=when.awake,
        boot=when.boot,
        left_at=0.0,
        last_look="waiting" if look.waiting else look.state if look.key or look.state != RUNNING else "keyless",
        state=look.state,
        state_at=when.at if changed or not memory.state_at else memory.state_at,
        pid=look.pid,
        run=look.run or memory.run,
        key=look.key or memory.key,
    )


# ---- findings: what one look at a long job shows to be wrong


def find_unknown(job: Any, look: Observation, memory: Memory, now: Instant) -> Any:
    if look.state != UNKNOWN:
        return None
    return Finding("unknown", ALERT, look.problem or Phrase("status.json"), look.detail)


def find_stopped(job: Any, look: Observation, memory: Memory, now: Instant) -> Any:
    if look.state == UNKNOWN or is_acting(memory, now):
        return OPEN
    if look.state != STOPPED:
        proven = look.state != RUNNING or not memory.attempts or memory.gave_up_at and has_recovered(memory, look, job.policy)
        return None if proven else OPEN  # resumed, but not yet shown to work
    if memory.held_at:
        return None
    facts = {"reason": look.stop_reason}
    why = resume_reason(job, look, memory, now).key
    if why in RESUMING:
        return Finding("stopped", NOTICE, Phrase("stopped.resuming", facts), look.detail, by_attempt=True)
    if why == "resume.gave_up":
        return Finding("stopped", ALERT, Phrase("stopped.gave_up", {**facts, "attempts": memory.attempts}), look.detail)
    key = "stopped.changed" if why == "resume.changed" else "stopped"
    return Finding("stopped", ALERT, Phrase(key, facts), look.detail)


def find_stalled(job: Any, look: Observation, memory: Memory, now: Instant) -> Any:
    if look.state == UNKNOWN or look.state == RUNNING and (look.waiting or not look.key):
        return OPEN
    if look.state != RUNNING or not job.policy.stall_seconds:
        return None
    if memory.stalled_for < job.policy.stall_seconds:
        restarted = memory.attempts and "stalled" in memory.incidents
        return OPEN if restarted else None  # restarted, but not yet shown to move
    facts = {"for": duration_text(memory.stalled_for), "key": one_line(memory.key, 80)}
    will_restart = resume_reason(job, look, memory, now).key in RESUMING
    rank = NOTICE if will_restart else ALERT
    return Finding("stalled", rank, Phrase("stalled", facts), look.detail, by_attempt=will_restart)


def find_level(job: Any, look: Observation, memory: Memory, now: Instant) -> Any:
    if look.state == UNKNOWN:
        return OPEN
    if look.state != RUNNING or look.level == "ok":
        return None
    return Finding("level", ALERT if look.level == "alert" else WARN, Phrase("level", {"message": one_line(look.message, 300)}))


LONG_QUESTIONS = {"unknown": find_unknown, "stopped": find_stopped, "stalled": find_stalled, "level": find_level}


# ---- incidents: what is wrong against what was told


class Step(NamedTuple):
    """One incident after one look."""

    incident: Optional[Incident]
    telling: str  # "" = nothing is said
    reason: Reason


def finding_text(finding: Finding) -> str:
    return masked_digits(finding.phrase.key + " " + json.dumps(finding.phrase.facts, sort_keys=True, ensure_ascii=False))


def repeat_wait(policy: Any, reminders: int) -> float:
    """Seconds from the telling number `reminders` to the next one."""
    first = policy.alert_repeat_seconds
    return min(first * 2.0 ** min(reminders, 40), max(LONGEST_REPEAT, first))


def told(incident: Incident, finding: Finding, now: Instant, **more: Any) -> Incident:
    """The incident once this finding is told."""
    text = finding_text(finding)
    return incident._replace(
        told_at=now.at, told_rank=finding.rank, told_text=text, texts=incident.texts + (text != incident.told_text), **more
    )


def judge_incident(incident: Optional[Incident], finding: Any, policy: Any, now: Instant, hold: float = 0.0) -> Step:
    """What becomes of one incident, and whether a person hears of it now.

    `finding` is a Finding, None (not so) or OPEN (this look cannot say); `hold` is how many more
    seconds of quiet hours hold back what does not ring.
    """
    if finding is OPEN:
        return Step(incident, "", Reason("incident.open"))
    if finding is None:
        if incident is None or not incident.opened_at:
            return Step(None, "", Reason("incident.none"))
        if not incident.told_at:
            return Step(None, "", Reason("incident.came_and_went"))
        return Step(None, "resolved", Reason("incident.resolved"))
    incident = incident or Incident(since_at=now.at)
    incident = incident._replace(looks=min(incident.looks + 1, 1000), rank=finding.rank, key=finding.phrase.key, facts=small_facts(finding.phrase.facts))
    if not incident.opened_at and incident.looks < policy.alert_after:
        return Step(incident, "", Reason("incident.not_yet", facts={"looks": incident.looks, "needed": policy.alert_after}))
    incident = incident._replace(opened_at=incident.opened_at or now.at)
    if finding.by_attempt:
        return Step(incident, "", Reason("incident.by_attempt"))
    return judge_telling(incident, finding, policy, now, hold)


def judge_telling(incident: Incident, finding: Finding, policy: Any, now: Instant, hold: float) -> Step:
    """The second half: an open incident, against what was told of it."""
    held = hold if finding.rank < ALERT else 0.0
    if held:
        return Step(incident, "", Reason("incident.quiet_hours", now.at + held))
    if not incident.told_at:
        return Step(told(incident, finding, now), "opened", Reason("incident.opened"))
    if finding.rank > incident.told_rank:
        return Step(told(incident, finding, now, reminders=0, acked_at=0.0), "worse", Reason("incident.worse"))
    if finding_text(finding) != incident.told_text and incident.texts < TEXTS_TOLD:
        return Step(told(incident, finding, now, acked_at=0.0), "changed", Reason("incident.changed"))
    if incident.acked_at:
        return Step(incident, "", Reason("incident.acked"))
    if not policy.alert_repeat_seconds:
        return Step(incident, "", Reason("incident.told_once"))
    due_at = incident.told_at + repeat_wait(policy, incident.reminders)
    if now.at < due_at:
        return Step(incident, "", Reason("incident.told", due_at))
    return Step(incident._replace(told_at=now.at, reminders=incident.reminders + 1), "reminder", Reason("incident.reminder"))


def inherit(memory: Memory, findings: dict, now: Instant) -> Memory:
    """After an upgrade from v1: what is wrong now was told by v1, so it counts as told."""
    if not memory.inherited_at or all(finding is OPEN for finding in findings.values()):
        return memory
    incidents = dict(memory.incidents)
    for kind, finding in findings.items():
        if isinstance(finding, Finding) and kind not in incidents:
            at = memory.inherited_at
            incident = Incident(since_at=at, looks=1, opened_at=at, rank=finding.rank)
            incidents[kind] = told(incident, finding, now)._replace(told_at=at)
    return memory._replace(inherited_at=0.0, incidents=incidents)


FLIPS_AN_HOUR = 6  # openings and closings of one job that are told one by one


def judge_incidents(policy: Any, findings: dict, memory: Memory, now: Instant, look: Optional[Observation] = None) -> Decision:
    """Every incident of one job: new memory, notifications, and a reason per kind."""
    memory = inherit(memory, findings, now)
    hold = quiet_left(policy, now.minute)
    incidents, effects, reasons = dict(memory.incidents), [], {}
    flips = [at for at in memory.flips if is_number(at) and now.at - HOUR < at <= now.at]
    for kind, finding in findings.items():
        before = incidents.pop(kind, None)
        step = judge_incident(before, finding, policy, now, hold)
        turned = bool(before and before.opened_at) != bool(step.incident and step.incident.opened_at)
        seen = step.telling in ("opened", "resolved") or turned and step.reason.key == "incident.by_attempt"
        if turned if memory.flapping_at else seen:  # what quiet hours hold back turns unseen
            flips = [*flips, round(now.at, 3)][-FLIPS_AN_HOUR - 1 :]
        if memory.flapping_at or len(flips) > FLIPS_AN_HOUR:
            step = untold(step, before)
        if step.incident:
            incidents[kind] = step.incident
        reasons[kind] = step.reason
        if step.telling == "resolved" and before:
            effects.append(Notify(kind, "resolved", NOTICE, Phrase(before.key, before.facts), since_at=before.since_at, look=look, told=memory))
        elif step.telling and step.incident:
            since = step.incident.since_at
            effects.append(Notify(kind, step.telling, finding.rank, finding.phrase, finding.detail, since, look, memory))
    decision = Decision(memory._replace(incidents=incidents, flips=flips), tuple(effects), reasons)
    return judge_flapping(decision, now)


def untold(step: Step, before: Optional[Incident]) -> Step:
    """The same step of a flapping job: it happens, and nothing is said of it."""
    if not step.telling:
        return step
    was = before or Incident()
    told_before = {name: getattr(was, name) for name in ("told_at", "told_rank", "told_text", "texts", "reminders", "acked_at")}
    return Step(step.incident and step.incident._replace(**told_before), "", Reason("incident.flapping"))


def judge_flapping(decision: Decision, now: Instant) -> Decision:
    """Say once that a job flips, and once that it has settled for an hour; what is open then is told."""
    memory = decision.memory
    if not memory.flapping_at and len(memory.flips) > FLIPS_AN_HOUR:
        effect = Notify("flapping", "opened", WARN, Phrase("flapping"), told=memory)
        memory = memory._replace(flapping_at=now.at)
    elif memory.flapping_at and not memory.flips:
        effect = Notify("flapping", "resolved", NOTICE, Phrase("flapping"), since_at=memory.flapping_at, told=memory)
        memory = memory._replace(flapping_at=0.0)
    else:
        return decision
    return decision._replace(memory=memory, effects=(*decision.effects, effect))


def judge_own(findings: dict, memory: Memory, now: Instant, **policy: Any) -> Decision:
    """The monitor's own incidents.  They never count as flapping: its troubles have nothing to do with each other."""
    decision = judge_incidents(make_policy(policy), findings, memory._replace(flips=[], flapping_at=0.0), now)
    return decision._replace(memory=decision.memory._replace(flips=[], looked_at=now.at))


# ---- resume: may it be started again by itself, and is it time?


def is_acting(memory: Memory, now: Instant) -> bool:
    """Whether an intention without a result still blocks another start."""
    return bool(memory.action) and now.at < memory.action_at + memory.action_for


def resume_reason(job: Any, look: Observation, memory: Memory, now: Instant, state_lost: bool = False) -> Reason:
    """Why a job is, or is not, started again by itself at this moment."""
    policy = job.policy
    if not job.enabled:
        return Reason("resume.disabled")
    restart = look.state == RUNNING and policy.on_stall == "restart" and can_restart(job)
    if not restart and not policy.auto_resume:
        return Reason("resume.off")
    if job.kind != LONG_READ or job.risk != READ_ONLY:
        return Reason("resume.not_read_only")
    if look.state == UNKNOWN:
        return Reason("resume.unknown")
    if memory.held_at:
        return Reason("resume.held")
    if restart:
        limit = policy.stall_seconds
        if not look.key or look.waiting or not limit or memory.stalled_for < limit:
            return Reason("resume.moving")
    elif look.state != STOPPED:
        return Reason("resume.not_stopped")
    if not look.resumable:
        return Reason("resume.changed")
    if memory.gave_up_at or policy.auto_resume_max_attempts and memory.attempts >= policy.auto_resume_max_attempts:
        return Reason("resume.gave_up")
    if is_acting(memory, now):
        return Reason("resume.acting", memory.action_at + memory.action_for)
    if state_lost:
        return Reason("resume.state_lost")
    due_at = memory.attempt_at + backoff(policy, memory.attempts)
    if memory.attempts and now.at < due_at:
        return Reason("resume.backoff", due_at, {"attempt": memory.attempts + 1})
    return Reason("resume.now", facts={"attempt": memory.attempts + 1})


def begin_attempt(job: Any, look: Observation, memory: Memory, now: Instant, marker: str) -> Decision:
    """The intention to resume: counted and told before anything is started."""
    restart = look.state == RUNNING
    policy = job.policy
    attempt = memory.attempts + 1
    facts = {"attempt": attempt, "most": policy.auto_resume_max_attempts or "∞", "reason": look.stop_reason}
    phrase = Phrase("autorun.restart" if restart else "autorun", facts)
    kind = "stalled" if restart else "stopped"
    incidents = dict(memory.incidents)
    incident = incidents.get(kind) or Incident(since_at=now.at, looks=1, opened_at=now.at, rank=NOTICE, key=kind)
    incidents[kind] = incident._replace(opened_at=incident.opened_at or now.at, told_at=now.at, told_rank=max(NOTICE, incident.told_rank if restart else NOTICE))
    after = memory._replace(
        attempts=attempt,
        attempt_at=now.at,
        attempt_key=memory.key,
        stalled_for=0.0,
        action="restart" if restart else "start",
        action_at=now.at,
        action_for=policy.start_timeout_seconds + (policy.stop_timeout_seconds if restart else 0.0) + 10.0,
        action_id=marker,
        incidents=incidents,
    )
    notify = Notify(kind, "autorun", NOTICE, phrase, look.detail, incident.since_at, look, memory)
    return Decision(after, (notify,), {"resume": Reason("resume.now")})


def end_action(memory: Memory) -> Memory:
    """The intention has its result."""
    return memory._replace(action="", action_at=0.0, action_for=0.0, action_id="", action_tries=0, action_entry="")


# ---- report: is routine progress due?


def report_reason(job: Any, look: Observation, memory: Memory, now: Instant) -> Reason:
    """Why routine is, or is not, told at this moment."""
    policy = job.policy
    quiet = quiet_left(policy, now.minute)
    if look.state == COMPLETED:
        if memory.completed_told:
            return Reason("report.completed_before")
        return Reason("report.quiet_hours", now.at + quiet) if quiet else Reason("report.completed")
    if look.state != RUNNING:
        return Reason("report.not_running")
    if not policy.report_while_running:
        return Reason("report.off")
    reason = progress_reason(policy, look, memory, now)
    if quiet and reason.key in ("report.first", "report.by_time", "report.by_change"):
        return Reason("report.quiet_hours", now.at + quiet)
    return reason


def progress_reason(policy: Any, look: Observation, memory: Memory, now: Instant) -> Reason:
    """The same for a running job whose routine is wanted."""
    if not memory.reported_at:
        return Reason("report.first")
    every = policy.report_every_seconds
    if every and now.at - memory.reported_at >= every:
        return Reason("report.by_time")
    by_time_at = memory.reported_at + every if every else 0.0
    if not policy.only_on_change or not look.key or look.key == memory.reported_key:
        return Reason("report.nothing_new", by_time_at)
    if now.at - memory.reported_at < policy.min_report_seconds:
        floor_at = memory.reported_at + policy.min_report_seconds
        return Reason("report.too_soon", min(floor_at, by_time_at) if by_time_at else floor_at)
    return Reason("report.by_change")


def judge_report(job: Any, look: Observation, memory: Memory, now: Instant) -> Decision:
    """Routine: what is told of progress and completion, and what completion queues."""
    effects: list = []
    reason = report_reason(job, look, memory, now)
    if look.state == COMPLETED and not memory.completed_fired:
        effects += [Enqueue(after.job_id, after.delay_seconds) for after in job.after if after.when != "failure"]
        memory = memory._replace(completed_fired=True)
    if reason.key == "report.completed":
        effects.append(Notify("routine", "completed", NOTICE, Phrase("completed"), look.detail, look=look, told=memory))
        memory = memory._replace(completed_told=True, reported_key=look.key)
    elif reason.key in ("report.first", "report.by_time", "report.by_change"):
        effects.append(Notify("routine", "routine", ROUTINE, Phrase("running"), look=look, told=memory))
        memory = memory._replace(reported_at=now.at, reported_key=look.key, reported_progress=small_progress(look.progress))
    return Decision(memory, tuple(effects), {"report": reason})


# ---- the whole


def decide_long(job: Any, look: Observation, memory: Memory, now: Instant, state_lost: bool = False) -> Decision:
    """The judgement on one look at a long job."""
    if memory.boot == look.when.boot and look.when.awake < memory.looked_awake:
        return Decision(memory, (), {"look": Reason("look.older")})
    memory = remember_look(memory, look, job.policy)
    if look.state == STOPPED and memory.attempts and resume_reason(job, look, memory, now).key == "resume.gave_up":
        memory = memory._replace(gave_up_at=memory.gave_up_at or now.at)
    findings = {kind: question(job, look, memory, now) for kind, question in LONG_QUESTIONS.items()}
    incidents = judge_incidents(job.policy, findings, memory, now, look)
    report = judge_report(job, look, incidents.memory, now)
    resume = resume_reason(job, look, report.memory, now, state_lost)
    act = (Resume(restart=look.state == RUNNING),) if resume.key == "resume.now" else ()
    reasons = {**incidents.reasons, **report.reasons, "resume": resume}
    effects = incidents.effects + report.effects
    memory = report.memory._replace(reason=main_reason(reasons))
    return hold_muted(Decision(memory, effects + act, reasons), now)


def main_reason(reasons: dict) -> str:
    """The one reason to keep: of an incident if there is one, else of routine."""
    telling = [reason.key for topic, reason in reasons.items() if topic in LONG_QUESTIONS and reason.key != "incident.none"]
    return telling[0] if telling else reasons["report"].key if "report" in reasons else ""


def open_incidents(memory: Memory) -> list:
    """(kind, incident) of what is open, the worst first."""
    found = [(kind, incident) for kind, incident in memory.incidents.items() if incident.opened_at]
    return sorted(found, key=lambda item: (-item[1].rank, item[1].since_at))


def hold_muted(decision: Decision, now: Instant) -> Decision:
    """While a job is muted its messages are counted, not told; afterwards they are summed up."""
    memory = decision.memory
    if not memory.muted_for:
        return decision
    others = tuple(effect for effect in decision.effects if not isinstance(effect, Notify))
    held = len(decision.effects) - len(others)
    if is_muted(memory, now):
        reasons = {**decision.reasons, "mute": Reason("muted", memory.muted_at + memory.muted_for)}
        return Decision(memory._replace(muted_count=memory.muted_count + held), others, reasons)
    spoken = {effect.kind for effect in decision.effects if isinstance(effect, Notify)}
    tellings = [Notify("muted", "muted", NOTICE, Phrase("muted.summary", {"count": memory.muted_count}), told=memory)] if memory.muted_count else []
    incidents = dict(memory.incidents)
    for kind, incident in open_incidents(memory):
        if incident.rank >= ALERT and kind not in spoken:
            tellings.append(Notify(kind, "reminder", incident.rank, Phrase(incident.key, incident.facts), since_at=incident.since_at, told=memory))
        elif kind not in spoken:  # quiet hours may hold it: the next look tells it
            incidents[kind] = incident._replace(told_at=0.0)
    memory = memory._replace(muted_at=0.0, muted_for=0.0, muted_count=0, incidents=incidents)
    return Decision(memory, decision.effects + tuple(tellings), decision.reasons)


# ---- writes


def is_overdue(gate: Gate, now: float) -> bool:
    return gate.verify == "pending" and now >= gate.run_ended_at + gate.verify_for


def gate_reason(gate: Gate, digest: str, problem: str, changed: list, now: float) -> Reason:
    """Why a write may, or may not, run at this moment.  `digest` and `changed` are of its plan now."""
    if gate.run == "begun":
        return Reason("gate.running")
    if gate.verify == "failed":
        return Reason("gate.verify_failed", facts={"jobs": ", ".join(map(str, gate.verify_left))})
    if gate.verify == "pending":
        return Reason("gate.verify_overdue" if is_overdue(gate, now) else "gate.verify_pending", facts={"jobs": ", ".join(map(str, gate.verify_left))})
    if problem:
        return Reason("gate.unreadable", facts={"what": problem})
    if not gate.digest:
        return Reason("gate.none")
    if now >= gate.approved_at + gate.approved_for:
        return Reason("gate.expired")
    if gate.digest != digest:
        return Reason("gate.changed", facts={"what": ", ".join(changed[:5]) or "-"})
    return Reason("gate.open", gate.approved_at + gate.approved_for)


def gate_findings(gate: Gate, now: float) -> dict:
    """What is wrong with a write that has run."""
    failed, overdue = gate.verify == "failed", is_overdue(gate, now)
    jobs = {"jobs": ", ".join(map(str, gate.verify_left))}
    return {
        "verification": Finding("verification", ALERT, Phrase("verify.wrong" if failed else "verify.overdue", jobs)) if failed or overdue else None,
        "outcome": Finding("outcome", ALERT, Phrase("write.unknown")) if gate.run == "unknown" else None,
    }


def verified(gate: Gate, job_id: str, began_at: float, is_good: bool) -> Gate:
    """The gate after a run of one of its verification jobs.  Only a run that began after the write counts."""
    if gate.verify not in ("pending", "failed") or began_at < gate.run_ended_at:
        return gate
    left = [name for name in gate.verify_left if name != job_id]
    if not is_good:
        return gate._replace(verify="failed", verify_left=[*left, job_id])
    return gate._replace(verify=gate.verify if left else "passed", verify_left=left)


# ---- one-shot reads


ROUNDED = 0.001  # seconds: times are kept with three decimals


def next_slot(job: Any, memory: Memory) -> float:
    """When a scheduled check is due next; 0 = at once, because it never ran."""
    every = job.policy.every_seconds
    if not memory.anchor_at or not every:
        return 0.0
    slots = int((memory.slot_at - memory.anchor_at + ROUNDED) / every) + 1
    return memory.anchor_at + slots * every


def due_reason(job: Any, memory: Memory, now: Instant) -> Reason:
    """Why a scheduled check is, or is not, run at this moment."""
    if not job.enabled:
        return Reason("due.disabled")
    if not job.policy.every_seconds:
        return Reason("due.not_scheduled")
    if memory.action:
        return Reason("due.unfinished")
    if not memory.anchor_at:
        return Reason("due.first")
    due_at = next_slot(job, memory)
    return Reason("due.now") if now.at >= due_at else Reason("due.later", due_at)


def take_slot(job: Any, memory: Memory, now: Instant, marker: str, tries: int = 1) -> Memory:
    """The intention to run: the slot is taken before the run begins."""
    every = job.policy.every_seconds
    slot_at = memory.slot_at
    if every:
        anchor = memory.anchor_at or now.at
        slot_at = anchor + int((now.at - anchor + ROUNDED) / every) * every
        memory = memory._replace(anchor_at=anchor)
    return memory._replace(
        slot_at=slot_at, action="run", action_at=now.at, action_for=run_timeout(job) + 10.0, action_id=marker, action_tries=tries, left_at=0.0
    )


def run_findings(outcome: Outcome, redact: Redactor) -> dict:
    """What one run shows: did it fail, does it ask for attention?"""
    phrase = outcome_phrase(outcome)
    lines = [one_line(redact.read(line), 300) for line in outcome.attention]
    output = redact.read(outcome.err).strip() or redact.read(outcome.out).strip()
    rank_phrase = Phrase("attention", {"lines": "\n".join(lines)})
    return {
        "failed": Finding("failed", ALERT, phrase, last_lines(output)) if phrase else None,
        "attention": Finding("attention", ALERT, rank_phrase) if lines else None,
    }


def decide_run(job: Any, outcome: Outcome, memory: Memory, now: Instant, redact: Redactor, scheduled: bool) -> Decision:
    """The judgement on one finished run of a one-shot read.

    A scheduled check has incidents: told when they open, closed by the next good run.  A run that
    somebody asked for is told once, and a good one closes what a scheduled run opened.
    """
    code = 255 if outcome.code is None else outcome.code
    memory = end_action(memory)._replace(ran_at=now.at, ran_code=code, left_at=0.0)
    findings = run_findings(outcome, redact)
    if scheduled:
        decision = judge_incidents(job.policy, findings, memory, now)
    else:
        wrong = [finding for finding in findings.values() if finding]
        closing = {kind: OPEN if findings.get(kind) else None for kind in memory.incidents}
        decision = judge_incidents(job.policy, closing, memory, now)
        once = tuple(Notify(f.kind, "told", f.rank, f.phrase, f.detail, now.at, told=memory) for f in wrong)
        decision = decision._replace(effects=decision.effects + once)
    good = outcome.is_good
    follow = tuple(
        Enqueue(after.job_id, after.delay_seconds) for after in job.after if after.when == "always" or (after.when == "success") == good
    )
    reason = next((kind for kind, finding in findings.items() if finding), "good")
    memory = decision.memory._replace(reason=f"run.{reason}")
    return hold_muted(decision._replace(memory=memory, effects=decision.effects + follow), now)


# ==== VOICE ==============================================================
# Decisions as text: sections, messages, tables.  It changes nothing and knows no clock; the time of
# day comes in as a function.

SECTION_LIMIT = 3500  # UTF-16 units; Telegram cuts at 4096 characters after parsing
MESSAGE_LIMIT = 4000
MESSAGES_A_TICK = 5
LATE_AFTER = 120.0  # seconds after which a message says when it happened
TOKENS = {"stopped": "ACTION REQUIRED", "blocked": "ACTION REQUIRED"}
ICONS = {"resolved": "🟢", "autorun": "🔁", "completed": "✅", "routine": "▶️", "muted": "🔈"}


class Message(NamedTuple):
    """One message as it will be sent, and the outbox entries that it carries."""

    text: str
    rings: bool
    entries: tuple
    counted: int = 0  # sections that were dropped for want of room and are counted in it


def phrase_text(lang: str, phrase: Phrase) -> str:
    return say(lang, phrase.key, **phrase.facts)


def progress_lines(progress: dict, before: dict, limit: int = 8) -> list:
    """`done: 40 (+12)` a line, numbers as they were written."""
    lines = []
    for key, value in list(progress.items())[:limit]:
        if isinstance(value, (dict, list)):
            shown = one_line(json.dumps(value, ensure_ascii=False), 120)
        elif isinstance(value, (int, float)):
            shown = number_text(value) + difference(value, before.get(key))
        else:
            shown = one_line("null" if value is None else str(value), 120)
        lines.append(f"{one_line(str(key), 60)}: {shown}")
    return lines + ([f"… {len(progress) - limit}"] if len(progress) > limit else [])


def difference(value: Any, before: Any) -> str:
    """` (+12)` since the last report; nothing where there is none."""
    numbers = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in (value, before))
    if not numbers or value == before or not (abs(value) <= 1e15 and abs(before) <= 1e15):
        return ""
    change = value - before
    return f" ({'+' if change > 0 else ''}{number_text(change) if isinstance(change, int) else format(change, '.6g')})"


def headline(lang: str, job_name: str, job_id: str, notify: Notify) -> str:
    """`🔴 ACTION REQUIRED · Nightly index (nightly)`."""
    telling = notify.telling
    if telling in ICONS:
        icon = ICONS[telling]
        token = {"resolved": "RESOLVED", "autorun": "AUTORUN", "completed": "COMPLETED"}.get(telling) or say(lang, "headline." + telling)
    elif notify.rank >= ALERT:
        icon, token = "🔴", TOKENS.get(notify.kind, "ALERT")
    else:
        icon, token = "🟡", say(lang, "headline.warn" if notify.rank == WARN else "headline.notice")
    named = job_name if job_name == job_id or not job_id else f"{job_name} ({job_id})"
    return f"{icon} {token} · {named}"


def look_lines(lang: str, notify: Notify) -> list:
    """State, stop reason, message and progress of the look behind a notification."""
    look = notify.look
    if look is None or look.state == UNKNOWN:
        return []
    lines = []
    if notify.telling == "routine" or notify.kind in ("stalled", "level"):
        key = "state.running_pid" if look.pid else "state.waiting" if look.waiting else "state.running"
        lines.append(say(lang, key, pid=look.pid))
    if look.stop_reason and "reason" not in notify.phrase.facts:
        lines.append(say(lang, "line.stop_reason", reason=one_line(look.stop_reason, 300)))
    if look.message and notify.kind != "level":
        lines.append(one_line(look.message, 300))
    before = notify.told.reported_progress
    return lines + progress_lines(look.progress, before)


def section_text(lang: str, job_name: str, job_id: str, notify: Notify, clock_text: Callable[[float], str], advice: str = "") -> str:
    """One section: what happened to one job, as facts."""
    lines = [headline(lang, job_name, job_id, notify)]
    if notify.telling != "routine":
        words = phrase_text(lang, notify.phrase)
        lines.append(say(lang, "unknown", why=words) if notify.kind == "unknown" else words)
    if notify.telling in ("reminder", "resolved", "changed", "worse") and notify.since_at:
        lines.append(say(lang, "line.since", time=clock_text(notify.since_at)))
    lines += look_lines(lang, notify)
    if notify.detail:
        lines += [say(lang, "line.output"), notify.detail]
    if advice and notify.rank >= ALERT:
        lines.append(say(lang, "line.next", command=advice))
    return clip("\n".join(line for line in lines if line), SECTION_LIMIT)


def header_text(time_text: str, host: str) -> str:
    return f"🛠️ Ops 快报（{time_text}）" + (f" {host}" if host else "")


def entry_text(lang: str, entry: dict, now: float, clock_text: Callable[[float], str]) -> str:
    """An outbox entry as it is sent now: a late one says when it happened."""
    notes = []
    if now - entry["createdAt"] > LATE_AFTER:
        notes.append(say(lang, "line.late", time=clock_text(entry["createdAt"])))
    if entry.get("maybeSent") is True:
        notes.append(say(lang, "line.repeat"))
    return clip("\n".join([*notes, entry["text"]]), SECTION_LIMIT)


def compose(
    lang: str, entries: list, now: float, header: str, clock_text: Callable[[float], str], most: int = MESSAGES_A_TICK, dropped: int = 0
) -> list:
    """The messages that carry these entries: worst first, whole sections, what rings apart.

    More than `most` messages: the last one counts what is left out and names the command that
    shows it; it carries those entries too.  `dropped` sections are counted with them.
    """
    ordered = sorted(entries, key=lambda entry: (-entry["rank"], entry["createdAt"]))
    messages = []
    for rings in (True, False):
        mine = [entry for entry in ordered if (entry["rank"] >= WARN) == rings]
        for text, group in joined(lang, mine, now, header, clock_text):
            messages.append(Message(text, rings, tuple(entry["id"] for entry in group)))
    rest = messages[most:]
    left = dropped + sum(len(message.entries) for message in rest)
    if not left or not messages:
        return messages
    last = messages[min(most, len(messages)) - 1]
    note = "\n\n" + say(lang, "line.more", count=left, command="ops-monitor.py status")
    text = clip(last.text, MESSAGE_LIMIT - utf16_length(note)) + note
    return [*messages[: most - 1][: len(messages) - 1], Message(text, last.rings, sum((message.entries for message in rest), last.entries), dropped)]


def joined(lang: str, entries: list, now: float, header: str, clock_text: Callable[[float], str]) -> Iterator[tuple]:
    """(text, entries) of messages that join whole sections up to the limit."""
    text = header
    group: list = []
    for entry in entries:
        part = "\n\n" + entry_text(lang, entry, now, clock_text)
        if group and utf16_length(text + part) > MESSAGE_LIMIT:
            yield text, group
            text, group = header, []
        text = clip(text + part, MESSAGE_LIMIT)
        group = [*group, entry]
    if group:
        yield text, group


def bar(progress: dict, width: int = 10) -> str:
    """`█████░░░░░ 50%` where `done` and `total`, or `percent`, are given; else ''."""
    done: Any = progress.get("done")
    total: Any = progress.get("total")
    percent: Any = progress.get("percent")
    if is_number(done) and is_number(total) and total > 0:
        share = done / total
    elif is_number(percent):
        share = percent / 100.0
    else:
        return ""
    share = min(1.0, max(0.0, share))
    full = int(share * width + 1e-9)
    return "█" * full + "░" * (width - full) + f" {int(share * 100 + 1e-9)}%"


def table(rows: list, limit: int = 0) -> list:
    """Rows of cells as aligned lines; the last column is cut so that a line has `limit` columns."""
    if not rows:
        return []
    widths = [max(display_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        line = "  ".join(pad(cell, width) for cell, width in zip(row, widths)).rstrip()
        lines.append(cut_columns(line, limit) if limit else line)
    return lines


def cut_columns(line: str, limit: int) -> str:
    """`line` cut to `limit` display columns."""
    if display_width(line) <= limit:
        return line
    kept = ""
    for letter in line:
        if display_width(kept + letter) > limit - 1:
            break
        kept += letter
    return kept + "…"


# ------ the threshold: everything below may touch clock, files, processes and network ------


# ==== WORLD ==============================================================
# Everything outside: clock, files, locks, processes, HTTP.  It judges nothing.


def reach(step: str) -> None:
    """Called before every step that others can see; proofs replace it to stop exactly there."""


# ---- clock


def awake_seconds() -> float:
    """Seconds on a clock that stops while the machine sleeps and never jumps."""
    if sys.platform == "darwin":  # documented; not tried there
        return time.clock_gettime(getattr(time, "CLOCK_UPTIME_RAW"))
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
                self.problem = f"monitor.timezone: no time zone '{one_line(timezone, 40)}' on this machine; local time is used"

    def now(self) -> Instant:
        at = time.time()
        local = self.local(at)
        return Instant(at, awake_seconds(), self.boot, local[3] * 60 + local[4])

    def local(self, at: float) -> Any:
        """`struct_time` in the configured zone."""
        if self.zone is None:
            return time.localtime(at)
        from datetime import datetime

        return datetime.fromtimestamp(at, self.zone).timetuple()

    def text(self, at: float) -> str:
        """`HH:MM`, with the date when it is not within half a day."""
        near = abs(time.time() - at) < 12 * HOUR
        return time.strftime("%H:%M" if near else "%Y-%m-%d %H:%M", self.local(at))

    def full_text(self, at: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", self.local(at))

    def time_text(self, at: float) -> str:
        return time.strftime("%H:%M:%S", self.local(at))


# ---- files


def os_words(error: OSError) -> str:
    """An error of the operating system in its own words, lower case."""
    words = (error.strerror or str(error) or type(error).__name__).strip()
    return words[:1].lower() + words[1:]


def make_private_dir(path: str) -> None:
    """The directory and its parents, each made one 0700 whatever the umask."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and parent != path:
        make_private_dir(parent)
    reach("mkdir")
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


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


def flush_to_disk(fd: int) -> None:
    reach("fsync")
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone does not reach the platter
    if full_sync is not None:
        fcntl.fcntl(fd, full_sync)
    else:
        os.fsync(fd)


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
    except OSError:
        remove_quietly(temporary)
        raise
    flush_directory(os.path.dirname(path))


def flush_directory(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_CLOEXEC)
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
        os.unlink(path)
    except OSError:
        pass  # what is not there need not go


def read_file(path: str, limit: int = 64 << 20) -> bytes:
    """A regular file's bytes.  Raises OSError, also for what is no regular file or too large."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit >> 20} MiB")
    return data


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
    """Whether others could have written a file: why it is refused, or what to warn of."""

    refusal: str = ""
    mend: str = ""
    warning: str = ""


def check_trust(path: str, home: str) -> Trust:
    """Who may change `path`: itself and the directories on its way, link and target, up to HOME or `/`."""
    real, real_home = os.path.realpath(path), os.path.realpath(home)
    is_below = (real + "/").startswith(real_home + "/")
    above = {*way_to(os.path.dirname(home)), *way_to(os.path.dirname(real_home))} if is_below else set()
    warning = ""
    for step in dict.fromkeys(way_to(path)):
        if step in above:
            continue
        try:
            found = os.lstat(step)
        except OSError:
            continue
        if found.st_uid not in (os.geteuid(), 0):
            return Trust(f"{step} belongs to {user_name(found.st_uid)}", f"chown {user_name(os.geteuid())} {shell_word(step)}")
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        mode = 0 if sticky or stat.S_ISLNK(found.st_mode) else found.st_mode
        if mode & stat.S_IWOTH:
            return Trust(f"{step} can be written by everyone", f"chmod o-w {shell_word(step)}")
        if mode & stat.S_IWGRP and not warning:
            warning = f"{step} can be written by its group; chmod g-w {shell_word(step)}"
    return Trust(warning=warning)


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def home_directory(env: dict) -> str:
    """HOME, else the account's; cron need not set it."""
    import pwd

    if os.path.isabs(env.get("HOME", "")):
        return env["HOME"]
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"


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
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EINTR):
            return None
        raise
    return fd


def wait_lock(path: str, seconds: float) -> Optional[int]:
    """The same, tried again for at most `seconds`."""
    until = time.monotonic() + seconds
    pause = 0.002
    while True:
        fd = try_lock(path)
        if fd is not None or time.monotonic() >= until:
            return fd
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


# ---- the state file


STATE_LOCK_WAIT = 20.0  # transactions take milliseconds; a holder that takes longer is stopped or swapped out
HISTORY_LIMIT = 4 << 20


class Store:
    """The state file: short transactions under a lock, each durable before it counts."""

    def __init__(self, path: str, clock: Clock, on_lost: Callable[[State, str], None] = lambda state, aside: None):
        self.path = path
        self.clock = clock
        self.on_lost = on_lost  # told inside the transaction that moved an unreadable file aside
        self.known: tuple = ((), "")  # signature of the file as last seen, and its text
        stem = path[: -len(".json")] if path.endswith(".json") else path
        self.history_path = stem + ".history.jsonl"
        self.locks_dir = stem + ".locks"
        self.jobs_dir = stem + ".jobs"

    def lock_path(self, name: str) -> str:
        return os.path.join(self.locks_dir, name + ".lock")

    def job_dir(self, job_id: str) -> str:
        return os.path.join(self.jobs_dir, slug(job_id))

    def _text(self) -> str:
        try:
            found = os.stat(self.path)
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)
            if signature != self.known[0]:
                self.known = (signature, read_file(self.path).decode("utf-8"))
            return self.known[1]
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise self._trouble("read", error) from None

    def _trouble(self, verb: str, error: OSError) -> StateError:
        advice = {errno.ENOSPC: "free some space", errno.EDQUOT: "free some space", errno.EROFS: "mount it writable"}
        return StateError(f"cannot {verb} {self.path}: {os_words(error)}", advice.get(error.errno or 0, f"ls -ld {os.path.dirname(self.path)}"))

    def view(self) -> State:
        """The state as it is now, to look at.  An unreadable one looks empty."""
        now = self.clock.now().at
        try:
            text = self._text()
            return read_state(text, now) if text or os.path.exists(self.path) else State({"version": STATE_VERSION}, now)
        except ValueError:
            return State({"version": STATE_VERSION, "recoveredAt": now}, now)

    def lock(self, name: str, seconds: float = 0.0) -> Optional[int]:
        """A descriptor that holds the lock `name`, or None if it is not to be had within `seconds`."""
        path = self.lock_path(name)
        try:
            return wait_lock(path, seconds)
        except OSError as error:
            raise StateError(f"cannot lock {path}: {os_words(error)}", f"ls -ld {shell_word(os.path.dirname(path))}") from None

    def change(self, *applies: Callable[[State], Any]) -> list:
        """Apply functions to the state in one transaction; their results, once it is durable.

        Raises StateError with the old file untouched, BusyError if the lock is not to be had.
        """
        fd = self.lock("state", STATE_LOCK_WAIT)
        if fd is None:
            raise BusyError(f"another process has held {self.lock_path('state')} for {STATE_LOCK_WAIT:g} s", f"lsof {self.lock_path('state')}")
        try:
            state, before = self._load()
            state.raw["savedAt"] = round(state.now, 3)
            results = [apply(state) for apply in applies]
            self._save(state, before)
            return results
        finally:
            os.close(fd)

    def _load(self) -> tuple:
        now = self.clock.now().at
        try:
            text = self._text()
            if not text and not os.path.exists(self.path):
                return State({"version": STATE_VERSION}, now), ""
            state = read_state(text, now)
        except ValueError:
            return self._recovered(now), ""
        return state, text

    def _recovered(self, now: float) -> State:
        """A new state where the file was unreadable; the old one is moved aside, not lost."""
        aside = f"{self.path}.corrupt-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now))}"
        while os.path.lexists(aside):
            aside += "+"
        try:
            reach("replace")
            os.replace(self.path, aside)
        except OSError as error:
            raise self._trouble("move aside", error) from None
        state = State({"version": STATE_VERSION, "recoveredAt": now}, now)
        self.on_lost(state, aside)
        return state

    def _save(self, state: State, before: str) -> None:
        try:
            text = json.dumps(state.raw, ensure_ascii=False, separators=(",", ":"))
            data = text.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate in a key that is not ours
            text = json.dumps(state.raw, separators=(",", ":"))
            data = text.encode("utf-8")
        if text == before:
            self._append_history(state.history)
            return
        try:
            if state.is_migrated and not os.path.exists(self.path + ".v1-backup"):
                write_durably(self.path + ".v1-backup", before.encode("utf-8"))
            write_durably(self.path, data)
            found = os.stat(self.path)
        except OSError as error:
            raise self._trouble("write", error) from None
        self.known = ((found.st_ino, found.st_mtime_ns, found.st_size), text)
        self._append_history(state.history)

    def _append_history(self, records: list) -> None:
        """Best effort: history tells what happened, nothing is decided from it."""
        if not records:
            return
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in records).encode("utf-8", "replace")
        try:
            fd = open_private(self.history_path, os.O_WRONLY | os.O_APPEND)
            try:
                write_all(fd, lines)
                full = os.fstat(fd).st_size > HISTORY_LIMIT
            finally:
                os.close(fd)
            if full:
                os.replace(self.history_path, self.history_path + ".1")
        except OSError as error:
            print(f"warning: cannot write {self.history_path}: {os_words(error)}", file=sys.stderr)


# ---- processes


COMMON_PLACES = ("~/.local/bin", "/opt/homebrew/bin", "/usr/local/bin")  # what works by hand works under cron
HEAD_KEPT, TAIL_KEPT = 16 << 10, 48 << 10
GRACE = 5.0  # seconds between TERM and KILL
AFTER_EXIT = 0.5  # seconds that output may still come once the child has ended
RUN_MARK = "OPS_RUN"  # environment variable that marks a run's processes


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


def child_environment(env: dict, home: str, declared: dict) -> dict:
    """The caller's environment, its PATH completed, HOME set, the declared variables last."""
    made = dict(env)
    made.setdefault("HOME", home)
    path = [place for place in made.get("PATH", "/usr/bin:/bin").split(":") if place]
    for place in COMMON_PLACES:
        place = home + place[1:] if place.startswith("~") else place
        if place not in path:
            path.append(place)
    made["PATH"] = ":".join(path)
    return {**made, **declared}


def find_executable(program: str, path: str, cwd: str) -> str:
    """The file that `program` names.  Raises OSError as execvp would."""
    if "/" in program:
        return os.path.normpath(os.path.join(cwd, program))
    denied = ""
    for place in path.split(":"):
        candidate = os.path.join(cwd, place, program)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            denied = candidate
    if denied:
        raise PermissionError(errno.EACCES, "permission denied", denied)
    raise FileNotFoundError(errno.ENOENT, "no such program", program)


def spawn(argv: list, cwd: str, env: dict, files: tuple) -> int:
    """Start a child in its own session; its pid.  `files` are (its descriptor, ours).

    posix_spawn because it costs a third of fork and the same for a small or a large parent.  It
    cannot change directory, so we do: this program is single-threaded and its own paths are absolute.
    """
    os.chdir(cwd)
    program = find_executable(argv[0], env.get("PATH", ""), cwd)
    actions: list = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in files]
    if not any(theirs == 0 for theirs, _ in files):
        actions.insert(0, (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0))
    reach("spawn")
    defaults = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    return os.posix_spawn(program, argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=defaults)


def spawn_failure(error: Exception, command: Command) -> Phrase:
    """Why a command could not be started, in words."""
    program = command.argv[0]
    if not isinstance(error, OSError):
        return Phrase("run.cannot", {"program": program, "error": one_line(str(error))})
    if not os.path.isdir(command.cwd):
        return Phrase("run.no_cwd", {"cwd": command.cwd})
    if error.errno == errno.ENOENT and "/" in program and os.path.exists(os.path.join(command.cwd, program)):
        return Phrase("run.no_interpreter", {"program": program})
    keys = {errno.ENOENT: "run.missing", errno.ENOTDIR: "run.missing", errno.EACCES: "run.denied", errno.ENOEXEC: "run.no_interpreter"}
    return Phrase(keys.get(error.errno or 0, "run.cannot"), {"program": program, "error": os_words(error)})


class Attention:
    """Looks for whole words in a stream of any length and keeps the lines that hold them."""

    LINES, LINE_KEPT = 20, 2048

    def __init__(self, patterns: Iterable[str]):
        self.needles = [pattern.encode("utf-8") for pattern in patterns]
        # The literal first: it lets `re` jump; what may not stand before it is asked last.
        words = [re.escape(needle) for needle in self.needles]
        self.pattern = b"|".join(word + b"(?![A-Za-z0-9_])(?<![A-Za-z0-9_]" + word + b")" for word in words)
        self.reach = max(map(len, self.needles)) + 1
        self.rest = b""  # what is not yet looked at, after one byte that tells where a word begins
        self.lines: list = []
        self.looked = False  # whether the first byte of `rest` was looked at before

    def feed(self, chunk: bytes) -> None:
        data = self.rest + chunk
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > self.LINE_KEPT:  # a line without end: look at what is there
            cut = len(data) - self.reach
        # Its single bytes first: looking for them costs a tenth, and most text lacks one.
        if len(self.lines) < self.LINES and any(all(map(data.__contains__, needle)) and needle in data for needle in self.needles):
            self._collect(data, cut)
        self.rest = data[max(0, cut - 1) :]
        self.looked = self.looked or cut > 0

    def end(self) -> None:
        self._collect(self.rest, len(self.rest))

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
            self.lines.append(data[max(begin, match.start() - 200) : end if end >= 0 else len(data)][:600])
            last = begin


class Stream:
    """One output of a child: its beginning, its end, its size."""

    def __init__(self, head: int, attention: Optional[Attention]):
        self.head_limit = head
        self.head = b""
        self.tail = b""
        self.size = 0
        self.attention = attention

    def feed(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.attention:
            self.attention.feed(chunk)
        room = self.head_limit - len(self.head)
        if room > 0:
            self.head += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self.tail = (self.tail + chunk)[-TAIL_KEPT:] if len(chunk) < TAIL_KEPT else chunk[-TAIL_KEPT:]

    def kept(self) -> bytes:
        """Head and tail; where something is missing between them, a line says so."""
        missing = self.size - len(self.head) - len(self.tail)
        if missing <= 0:
            return self.head + self.tail
        whole = self.tail[self.tail.find(b"\n") + 1 :] if b"\n" in self.tail else self.tail
        return self.head + b"\n[... %d bytes left out ...]\n" % (self.size - len(self.head) - len(whole)) + whole


class Child:
    """A running command."""

    def __init__(self, command: Command, began: Instant):
        self.command = command
        self.began = began
        self.pid = 0
        attention = [Attention(command.patterns) if command.patterns else None for _ in range(2)]
        self.streams = {1: Stream(command.head, attention[0]), 2: Stream(HEAD_KEPT, attention[1])}
        self.open_files: dict = {}  # our end of a pipe -> its Stream
        self.deadline = time.monotonic() + command.timeout
        self.timed_out = False
        self.signals = 0  # times that it was told to end
        self.code: Optional[int] = None
        self.drained_by = 0.0  # when reading ends although a grandchild keeps the pipe


class Pool:
    """Runs commands side by side, at most `parallel` at once, and never waits for one alone."""

    def __init__(self, parallel: int, now: Callable[[], Instant]):
        self.parallel = parallel
        self.now = now
        self.waiting: list = []  # (command, token), newest first once reversed
        self.children: dict = {}  # pid -> (Child, token)
        self.files: dict = {}  # our end of a pipe -> Child
        self.finished: list = []  # (token, Outcome)
        self.poll = select.poll()
        self.bell: tuple = ()

    @property
    def busy(self) -> bool:
        return bool(self.waiting or self.children or self.finished)

    def add(self, command: Command, token: Any) -> None:
        self.waiting.append((command, token))

    def wait(self, seconds: float) -> list:
        """(token, Outcome) of what ends within `seconds`; at once when something has."""
        until = time.monotonic() + seconds
        while True:
            self._fill()
            if self.finished or not self.children:
                break
            self._pump(max(0.0, until - time.monotonic()))
            if time.monotonic() >= until:
                break
        ended, self.finished = self.finished, []
        return ended

    def forgive(self, seconds: float) -> None:
        """We did not read for a while: that time is not counted against those who run."""
        for child, _ in self.children.values():
            child.deadline += seconds
            child.drained_by += seconds if child.drained_by else 0.0

    def end_all(self) -> None:
        """End every child: TERM, a moment, KILL.  For an interrupted program."""
        self.waiting.clear()
        for child, _ in self.children.values():
            self._time_out(child)
        while self.children:
            self._pump(0.2)

    def _fill(self) -> None:
        while self.waiting and len(self.children) < self.parallel:
            command, token = self.waiting.pop(0)
            self._start(command, token)

    def _start(self, command: Command, token: Any) -> None:
        child = Child(command, self.now())
        ours: list = []
        theirs: list = []
        try:
            if not self.bell:
                self.bell = ring_on_exit()
                self.poll.register(self.bell[0], select.POLLIN)
            files = self._outputs(command, child, ours, theirs)
            env = {**command.env, RUN_MARK: command.marker} if command.marker else command.env
            child.pid = spawn(command.argv, command.cwd, env, files)
        except (OSError, ValueError) as error:
            for fd in ours + theirs:
                os.close(fd)
            self.finished.append((token, Outcome(child.began, self.now(), failure=spawn_failure(error, command))))
            return
        for fd in theirs:
            os.close(fd)
        for fd in ours:
            self.files[fd] = child
            self.poll.register(fd, select.POLLIN)
        self.children[child.pid] = (child, token)

    def _outputs(self, command: Command, child: Child, ours: list, theirs: list) -> tuple:
        """The descriptors that the child gets; ours and theirs are noted in the lists."""
        files = []
        if command.stdin:
            import tempfile  # rare: only what is sent through a command, and supervisors

            with tempfile.TemporaryFile() as file:
                file.write(command.stdin)
                file.flush()
                theirs.append(os.dup(file.fileno()))
            os.lseek(theirs[-1], 0, os.SEEK_SET)
            files.append((0, theirs[-1]))
        if command.log:
            fd = open_private(command.log, os.O_WRONLY | os.O_APPEND)
            theirs.append(fd)
            return (*files, (1, fd), (2, fd))
        for number, stream in child.streams.items():
            source, sink = os.pipe()
            ours.append(source)
            theirs.append(sink)
            os.set_blocking(source, False)
            child.open_files[source] = stream
            files.append((number, sink))
        return tuple(files)

    def _pump(self, seconds: float) -> None:
        """Wait for output, an exit or a deadline; do what it asks for."""
        moment = time.monotonic()
        wake = min([moment + seconds, *(child.drained_by or child.deadline for child, _ in self.children.values())])
        check_exits = False
        for fd, _ in self.poll.poll(max(0, int((wake - moment) * 1000) + 1)):
            if fd == self.bell[0]:
                os.read(fd, 4096)
                check_exits = True
            else:
                check_exits = self._read(fd) or check_exits
        moment = time.monotonic()
        for child, token in list(self.children.values()):
            if child.code is None and (check_exits or moment >= child.deadline):
                self._reap(child)
            if child.code is not None and (not child.open_files or moment >= child.drained_by):
                self._finish(child, token)
            elif child.code is None and moment >= child.deadline:
                if child.signals < 2:
                    self._time_out(child)
                else:  # not even KILL ends it (stuck in the kernel): say so, go on without it
                    self._finish(child, token)

    def _read(self, fd: int) -> bool:
        """Read what is there; whether this file has ended."""
        child = self.files[fd]
        for _ in range(16):  # then the others get their turn
            try:
                chunk = os.read(fd, 1 << 16)
            except BlockingIOError:
                return False
            if not chunk:
                self._close(fd)
                return not child.open_files
            child.open_files[fd].feed(chunk)
        enlarge_pipe(fd)
        return False

    def _close(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.files.pop(fd).open_files.pop(fd)
        os.close(fd)

    def _reap(self, child: Child) -> None:
        try:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else's wait took it: its code is not to be had
            pid, status = child.pid, 255 << 8
        if pid:
            child.code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            child.drained_by = time.monotonic() + AFTER_EXIT

    def _time_out(self, child: Child) -> None:
        """TERM to the whole group the first time, KILL the second; also to what left the group."""
        number = signal.SIGKILL if child.signals else signal.SIGTERM
        child.signals += 1
        child.timed_out = True
        child.deadline = time.monotonic() + GRACE
        end_group(child.pid, number)
        for pid in strays(child.command.marker, child.pid):
            end_one(pid, number)

    def _finish(self, child: Child, token: Any) -> None:
        for fd in list(child.open_files):
            self._close(fd)
        del self.children[child.pid]
        if child.timed_out:
            end_group(child.pid, signal.SIGKILL)
            for pid in marked_processes(child.command.marker):
                end_one(pid, signal.SIGKILL)
        command = child.command
        lines: list = []
        for stream in child.streams.values():
            if stream.attention:
                stream.attention.end()
                lines += stream.attention.lines
        out, err = child.streams[1], child.streams[2]
        outcome = Outcome(child.began, self.now(), child.code, child.timed_out, None, out.kept(), err.kept(), tuple(lines[:20]), out.size, command.timeout)
        self.finished.append((token, outcome))


def ring_on_exit() -> tuple:
    """A pipe (read end, write end) that becomes readable when a child of ours ends."""
    source, sink = os.pipe()
    os.set_blocking(source, False)
    os.set_blocking(sink, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # the wake-up descriptor is written all the same
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    return source, sink


def enlarge_pipe(fd: int) -> None:
    """A flood: let the kernel hand over 1 MiB at a time instead of 64 KiB (Linux)."""
    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), 1 << 20)
    except OSError:
        pass  # not Linux, or the user's share of pipe memory is used up: slower, nothing else


def end_group(pid: int, number: int) -> None:
    try:
        reach("kill")
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone already, or (macOS) only zombies are left


def end_one(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def marked_processes(marker: str) -> list:
    """Pids whose environment carries OPS_RUN=`marker`: what a run left, wherever it went."""
    if not marker:
        return []
    wanted = f"{RUN_MARK}={marker}".encode()
    if not os.path.isdir("/proc/self"):
        return marked_processes_by_ps(wanted.decode())
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted in file.read().split(b"\0"):
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


def marked_processes_by_ps(wanted: str) -> list:
    """The same on macOS, for own processes; documented, not tried there."""
    lines = quick_output(["/bin/ps", "-E", "-x", "-o", "pid=,command="]).splitlines()
    return [int(line.split(None, 1)[0]) for line in lines if wanted in line.split()]


def quick_output(argv: list) -> str:
    """What a small system program prints.  Raises OSError if it cannot be run."""
    source, sink = os.pipe()
    try:
        pid = spawn(argv, "/", {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"}, ((1, sink),))
    except OSError:
        os.close(source)
        raise
    finally:
        os.close(sink)
    with open(source, "rb") as file:
        output = file.read()
    os.waitpid(pid, 0)
    return output.decode("utf-8", "replace")


def process_start(pid: int) -> str:
    """When a process began, as a text that its pid alone cannot fake; '' if it is not there."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        pass
    if os.path.isdir("/proc/self"):
        return ""
    return quick_output(["/bin/ps", "-o", "lstart=", "-p", str(pid)]).strip()  # macOS; documented, not tried there


def is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False


# ---- HTTP


class Sent(NamedTuple):
    """What came of one attempt to send."""

    result: str  # sent, not_sent (definitely), unknown, wait, refused (definitely, and for long), later (not tried)
    detail: str = ""
    retry_after: float = 0.0  # seconds the receiver asked for
    moved_to: str = ""  # the chat's new id


HTTP_TIMEOUT = 10.0


def post_json(url: str, body: dict, proxy: str = "") -> tuple:
    """(status, bytes) of a POST.  Raises OSError before the request went out, Lost after it.

    http.client rather than urllib: it tells connecting from answering, follows no redirect, and
    loads in half the time.  Both are dear, so only when there is something to send.
    """
    import http.client
    import threading
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    via = urlsplit(proxy if "://" in proxy else "http://" + proxy) if proxy else parts
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(via.hostname or "", via.port or (443 if via.scheme == "https" else 80), timeout=HTTP_TIMEOUT)
    except http.client.HTTPException as error:  # a host that cannot be one
        raise OSError(errno.EINVAL, one_line(str(error), 100)) from None
    target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    if proxy and parts.scheme == "https":
        connection.set_tunnel(parts.hostname or "", parts.port or 443)
    elif proxy:
        target = url
    watch = threading.Timer(HTTP_TIMEOUT, end_connection, (connection,))
    watch.daemon = True
    try:
        reach("connect")
        connection.connect()
        began = time.monotonic()
        watch.start()
        try:
            reach("send")
            data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
            connection.request("POST", target, data, {"Content-Type": "application/json; charset=utf-8", "Connection": "close"})
            reach("receive")
            response = connection.getresponse()
            raw = response.read(65536)
            if time.monotonic() - began >= HTTP_TIMEOUT:
                raise TimeoutError("no whole answer in time")
            return response.status, raw
        except (OSError, http.client.HTTPException) as error:
            raise Lost(one_line(str(error) or type(error).__name__, 100)) from None
    except http.client.HTTPException as error:
        raise OSError(errno.EPROTO, one_line(str(error), 100)) from None
    finally:
        watch.cancel()
        connection.close()


def end_connection(connection: Any) -> None:
    """The time limit of a whole exchange: a server that drips ends in a broken connection."""
    try:
        connection.sock.shutdown(2)
    except (AttributeError, OSError):
        pass  # it has ended by itself


class Lost(Exception):
    """The request went out and no answer came: nobody knows whether it was heard."""


# ==== MANAGED ============================================================
# Managed jobs: a small supervisor runs the work, and its records answer the status contract.
#
# In the job's directory: `run.lock` (held by supervisor and job as an inherited descriptor),
# `run.json` (what runs, later how it ended), `run.log`, `progress.json`, `checkpoint/`.
# An exit record wins; else the job runs while the lock is held or while the recorded process
# (pid + start + boot) lives; else it stopped.  Nothing is guessed from a pid alone.

LOG_LIMIT, LOG_KEPT = 12 << 20, 6 << 20  # of run.log; a flood may pass the limit between two looks
PROGRESS_LIMIT = 64 << 10


def supervise(spec: dict) -> None:
    """Launch a job and stay beside it: the whole program of the supervisor.

    Runs in a bare interpreter that got this function as byte code (9 MB instead of 25, and an
    upgrade of this file cannot change it half-way); so it uses nothing but its arguments and
    modules that it imports.  Exit code 0: the job runs.  75: another run holds the lock.
    """
    import errno
    import fcntl
    import os
    import select
    import signal
    import time

    directory = spec["directory"]

    def path(name: str) -> str:
        return os.path.join(directory, name)

    def take_lock() -> int:
        fd = os.open(path("run.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        for _ in range(50):  # somebody who only looks holds it for an instant
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    raise
            time.sleep(0.01)
        os.write(2, b"another run holds run.lock\n")
        os._exit(75)

    def record(text: str) -> None:
        fd = os.open(path("run.json.tmp"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, (spec["head"] + text + "}\n").encode())
        os.fsync(fd)
        os.close(fd)
        os.replace(path("run.json.tmp"), path("run.json"))
        folder = os.open(directory, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def started(pid: int) -> str:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                return file.read().rpartition(b")")[2].split()[19].decode()
        except OSError:  # macOS; documented, not tried there
            with os.popen(f"/bin/ps -o lstart= -p {int(pid)}") as lines:
                return lines.read().strip()

    def trim() -> None:
        """Keep the newest lines; what is written meanwhile is copied until nothing is."""
        edit = os.open(path("run.log"), os.O_RDWR)  # not O_APPEND: Linux would append whatever the offset
        begin, length = os.fstat(edit).st_size - spec["log_kept"], 0
        begin += os.pread(edit, 1 << 16, begin).find(b"\n") + 1
        while True:
            chunk = os.pread(edit, 1 << 20, begin + length)
            if not chunk:
                break
            os.pwrite(edit, chunk, length)
            length += len(chunk)
        os.ftruncate(edit, length)
        os.close(edit)

    def watch(pid: int, log: int, bell: int) -> int:
        """Until the job ends; its wait status."""
        before, pause = 0, 0.02
        while True:
            select.select([bell], [], [], pause)
            try:
                os.read(bell, 4096)
            except BlockingIOError:
                pass
            ended, status = os.waitpid(pid, os.WNOHANG)
            size = os.fstat(log).st_size
            if size > spec["log_limit"]:
                trim()
            if ended:
                return status
            pause = 0.02 if size - before > 1 << 20 else min(1.0, pause * 1.5)
            before = min(size, spec["log_kept"])

    try:
        lock = take_lock()
        log = os.open(path("run.log"), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        os.write(2, f"{directory}: {error.strerror}\n".encode())
        os._exit(126)
    source, sink = os.pipe()
    if os.fork():
        os.close(sink)
        answer = os.read(source, 4096)
        os.write(2, answer[1:])
        os._exit(0 if answer[:1] == b"+" else 126)
    os.setsid()
    nothing = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    os.set_inheritable(lock, True)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    bell, clapper = os.pipe()
    os.set_blocking(bell, False)
    os.set_blocking(clapper, False)
    signal.set_wakeup_fd(clapper, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    defaults = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    pid = 0
    try:
        pid = os.posix_spawn(spec["program"], spec["argv"], {**os.environ, **spec["env"]}, file_actions=actions, setsid=True, setsigmask=(), setsigdef=defaults)
        os.set_inheritable(lock, False)
        who = f',"pid":{pid},"processStart":"{started(pid)}","supervisor":{os.getpid()},"startedAt":{time.time():.3f}'
        record(who)
    except OSError as error:  # nothing may run that is not on record
        if pid:
            os.killpg(pid, signal.SIGKILL)
        os.write(sink, f"-{spec['program']}: {error.strerror}\n".encode())
        os._exit(126)
    os.write(sink, b"+")
    os.close(sink)
    status = watch(pid, log, bell)
    for number in (signal.SIGTERM, signal.SIGKILL):  # what the job left in its group ends with it
        try:
            os.killpg(pid, number)
            time.sleep(0.2)
        except OSError:
            break
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    record(who + f',"exitCode":{code},"endedAt":{time.time():.3f}')
    os._exit(0)


def supervisor_command(spec: dict, cwd: str, env: dict, timeout: float) -> Command:
    """The command that launches a managed job and returns once it runs."""
    import marshal

    program = "import marshal,sys;c,s=marshal.loads(sys.stdin.buffer.read());type(lambda:0)(c,{'__builtins__':__builtins__})(s)"
    argv = [sys.executable or "python3", "-I", "-S", "-c", program, "ops-monitor-supervisor", spec["job_id"]]
    return Command(argv, cwd, env, timeout, stdin=marshal.dumps((supervise.__code__, spec)))


class Run(NamedTuple):
    """The record of a managed job's latest run."""

    run: str = ""
    command: str = ""  # fingerprint of argv, cwd and env
    attempt: int = 0
    boot: str = ""
    pid: int = 0
    process_start: str = ""
    started_at: float = 0.0
    exit_code: Optional[int] = None
    ended_at: float = 0.0


def read_run(directory: str) -> Optional[Run]:
    """The record, or None where the job never ran.  Raises ValueError if it cannot be read."""
    try:
        raw = json.loads(read_file(os.path.join(directory, "run.json"), 1 << 16))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    values = {name: raw[camel(name)] for name in Run._fields if camel(name) in raw} if isinstance(raw, dict) else {}
    wanted = {name: int if default is None else type(default) for name, default in Run._field_defaults.items()}
    if "pid" not in values or any(type(value) is not wanted[name] for name, value in values.items()):
        raise ValueError("not a run record")
    return Run(**values)


def is_alive(run: Run, boot: str) -> bool:
    """Whether exactly the recorded process lives: pid, start and boot."""
    return bool(
        run.pid > 1 and run.boot == boot and run.process_start and process_start(run.pid) == run.process_start and not is_zombie(run.pid)
    )


def is_lock_held(directory: str) -> bool:
    try:
        fd = os.open(os.path.join(directory, "run.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def read_progress(directory: str, redact: Redactor) -> tuple:
    """(answer fields, Phrase or None) from the job's progress file; anything but an object is said."""
    try:
        raw = read_file(os.path.join(directory, "progress.json"), PROGRESS_LIMIT)
        value = json.loads(raw.decode("utf-8-sig"), parse_float=Written.read, parse_constant=refuse_constant)
    except FileNotFoundError:
        return {}, None
    except OSError as error:
        return {}, Phrase("progress.unreadable", {"error": os_words(error)})
    except (ValueError, RecursionError):
        return {}, Phrase("progress.not_json")
    if not isinstance(value, dict):
        return {}, Phrase("progress.not_json")
    named = ("progressKey", "level", "message", "waiting")
    answer = {key: value[key] for key in named if key in value}
    return {**answer, "progress": {key: item for key, item in value.items() if key not in named}}, None


def stop_words(run: Run, boot: str) -> str:
    """How a run that is not alive ended, in the words of the status contract."""
    if run.exit_code is None:
        return "lost: machine restarted" if run.boot != boot else "lost: exit code unknown"
    return f"killed by {signal_name(-run.exit_code)}" if run.exit_code < 0 else f"exit {run.exit_code}"


def managed_look(directory: str, when: Instant, redact: Redactor, fingerprint: str) -> Observation:
    """The observation of a managed job, from its records."""
    try:
        run = read_run(directory)
    except ValueError as error:
        return Observation(when, UNKNOWN, problem=Phrase("managed.record", {"error": one_line(str(error), 100)}))
    held = is_lock_held(directory)
    if run is None:
        return Observation(when, RUNNING if held else IDLE)
    answer, problem = read_progress(directory, redact)
    alive = run.exit_code is None and (held or is_alive(run, when.boot))
    answer["running"], answer["completed"] = alive, run.exit_code == 0
    look = observed(when, {**answer, "pid": run.pid if alive else 0}, redact)
    same = not run.command or run.command == fingerprint
    look = look._replace(run=run.run, problem=problem, resumable=same)
    if look.state != STOPPED:
        return look
    return look._replace(stop_reason=stop_words(run, when.boot), detail=log_tail(directory, redact))


def log_tail(directory: str, redact: Redactor, lines: int = 6) -> str:
    """The last lines of the run log."""
    try:
        with open(os.path.join(directory, "run.log"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            return last_lines(redact.read(file.read()), lines)
    except OSError:
        return ""


def command_fingerprint(argv: list, cwd: str, env: dict) -> str:
    import hashlib

    return hashlib.sha256(json.dumps([argv, cwd, env], sort_keys=True).encode("utf-8", "replace")).hexdigest()


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
STATE_LOST_PAUSE = 50.0  # seconds after a lost state in which nothing is resumed


class Change(NamedTuple):
    apply: Callable[[State], Any]
    urgent: bool = False  # do not wait for others


class Turn(NamedTuple):
    pass


class Pause(NamedTuple):
    seconds: float


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
        for job in config.jobs.values():
            if job.env:
                self.redact.learn(secret_values(job.env))
        self.pool = Pool(config.monitor.parallel, self.clock.now)
        self.target = ""  # --target
        self.call = ("ops-monitor.py", "")  # how a person calls this program: before and after the command
        self.sent = 0  # messages of this tick
        self.called_openclaw = False  # in this tick: it takes up to 90 s
        self.printed: Optional[list] = None  # --print-only: sections go here instead of the outbox
        self.receiver: Any = None  # found when first needed
        self.config_risk = ""  # why writes must not be run from this config: others could have written it
        self.verifiers = {job.id: [after.job_id for after in verifications(job, config.jobs)] for job in config.jobs.values() if job.kind == WRITE}

    @property
    def lang(self) -> str:
        return self.config.monitor.language

    def directory(self, job: Any) -> str:
        """The job's working directory, absolute."""
        path = job.cwd or self.dirs.ours_dir
        path = self.home + path[1:] if path == "~" or path.startswith("~/") else path
        return os.path.join(self.dirs.ours_dir, path)

    def environment(self, job: Any) -> dict:
        return {**self.child_env, **job.env} if job.env else self.child_env

    def fingerprint(self, job: Any) -> str:
        return command_fingerprint(job.commands.start, self.directory(job), job.env)

    def say(self, key: str, **facts: Any) -> str:
        return say(self.lang, key, **facts)

    def advise(self, command: str, job_id: str = "", *flags: str) -> str:
        """The next command to type."""
        before, after = self.call
        return " ".join([before, command, *([shell_word(job_id)] if job_id else []), *flags]) + after


class Driver:
    """Runs flows side by side: commands in the pool, changes in shared transactions."""

    def __init__(self, site: Site):
        self.site = site
        self.ready: list = []  # (flow, value to send)
        self.changes: list = []  # (flow, Change), waiting for their transaction
        self.changes_since = 0.0
        self.turns: list = []  # flows that wait for their turn
        self.working: set = set()  # flows that have one and whose command has not ended
        self.sleeping: list = []  # (until, flow)
        self.results: dict = {}  # flow -> what it returned
        self.alive = 0

    def add(self, flow: Flow) -> Flow:
        self.ready.append((flow, None))
        self.alive += 1
        return flow

    def run(self, seconds: float = float("inf"), until: Optional[Flow] = None) -> None:
        """Go on until every flow has ended, or `until` has, or for about `seconds`."""
        stop_at = time.monotonic() + seconds
        try:
            while self.alive and (until is None or until not in self.results):
                self._advance()
                self._commit_if_due()
                if self.ready or until in self.results:
                    continue
                left = stop_at - time.monotonic()
                if left <= 0:
                    return
                self._wait(left)
        except BaseException:  # interrupted, or the state cannot be saved: leave no child behind
            self.site.pool.end_all()
            raise

    def finish(self, flow: Flow) -> Any:
        """Run this flow to its end, the others beside it; what it returned."""
        self.add(flow)
        self.run(until=flow)
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
                self.changes_since = self.changes_since if self.changes else time.monotonic()
                self.changes.append((flow, request))
            elif isinstance(request, Turn):
                self.turns.append(flow)
            else:
                self.sleeping.append((time.monotonic() + request.seconds, flow))
        while self.turns and len(self.working) < self.site.pool.parallel:
            flow = self.turns.pop(0)
            self.working.add(flow)
            self.ready.append((flow, None))

    def _commit_if_due(self) -> None:
        if not self.changes or self.ready:
            return
        waited = time.monotonic() - self.changes_since
        if self.site.pool.busy and waited < CHANGE_WAIT and not any(change.urgent for _, change in self.changes):
            return
        batch, self.changes = self.changes, []
        results = self.site.store.change(*[change.apply for _, change in batch])
        self.ready += [(flow, result) for (flow, _), result in zip(batch, results)]

    def _wait(self, left: float) -> None:
        moment = time.monotonic()
        if self.changes:
            left = min(left, self.changes_since + CHANGE_WAIT - moment)
        if self.sleeping:
            left = min(left, min(until for until, _ in self.sleeping) - moment)
        if self.site.pool.busy:
            for flow, outcome in self.site.pool.wait(max(0.0, min(left, 3600.0))):
                self.working.discard(flow)
                self.ready.append((flow, outcome))
        elif self.sleeping:
            time.sleep(max(0.0, left))
        moment = time.monotonic()
        self.ready += [(flow, None) for until, flow in self.sleeping if until <= moment]
        self.sleeping = [(until, flow) for until, flow in self.sleeping if until > moment]


# ---- effects: what a decision brings about, inside the transaction that saves it


def new_id() -> str:
    return os.urandom(6).hex()


def job_name(site: Site, job_id: str) -> str:
    job = site.config.jobs.get(job_id)
    return job.name if job else job_id


ADVICE = {"stopped": "start", "blocked": "", "unknown": "explain", "stalled": "explain", "failed": "explain", "attention": "explain"}


def notify(site: Site, state: State, job_id: str, effect: Notify) -> None:
    """Put one section into the outbox; it takes the place of an older one about the same."""
    command = ADVICE.get(effect.kind, "")
    advice = f"ops-monitor.py {command} {shell_word(job_id)}" if command and job_id else ""
    name = job_name(site, job_id) if job_id else site.say("name.monitor")
    text = site.redact(section_text(site.lang, name, job_id, effect, site.clock.text, advice))
    state.record("told", job_id, kind=effect.kind, telling=effect.telling, text=one_line(text, 300))
    if site.printed is not None:
        site.printed.append({"id": new_id(), "createdAt": state.now, "rank": effect.rank, "text": text})
        return
    about = [job_id, effect.kind] if effect.telling not in ("told", "autorun") else []
    queued = [entry for entry in state.outbox if about and entry.get("about") == about]
    if effect.telling == "resolved" and queued:
        key = "line.maybe_queued" if any(entry.get("maybeSent") is True for entry in queued) else "line.was_queued"
        text = text + "\n" + site.say(key, time=site.clock.text(queued[0]["createdAt"]))
    maybe_sent = any(entry.get("maybeSent") is True for entry in queued)
    state.raw["outbox"] = [entry for entry in state.outbox if entry not in queued]
    resting = max((entry["notBefore"] for entry in state.outbox + queued if entry.get("refusedBy")), default=0.0)
    entry = {"id": new_id(), "createdAt": state.now, "notBefore": max(state.now, resting), "rank": effect.rank, "text": text, "about": about}
    if maybe_sent:
        entry["maybeSent"] = True
    if resting > state.now:
        entry["refusedBy"] = next(entry["refusedBy"] for entry in state.outbox + queued if entry.get("refusedBy"))
    state.outbox.append(entry)
    trim_outbox(state)


def trim_outbox(state: State) -> None:
    """Drop what has expired, and beyond the limit the oldest of the least important."""
    state.raw["outbox"] = [entry for entry in state.outbox if not has_expired(entry, state.now)]
    spare = len(state.outbox) - OUTBOX_LIMIT
    if spare > 0:
        ordered = sorted(state.outbox, key=lambda entry: (entry["rank"], entry["createdAt"]))
        state.raw["outbox"] = ordered[spare:]
        state.raw["dropped"] = dropped_count(state) + sum(entry["rank"] >= WARN for entry in ordered[:spare])


def dropped_count(state: State) -> int:
    """Alerts that the outbox had no room for; the next message counts them."""
    count = state.raw.get("dropped")
    return count if type(count) is int and count > 0 else 0


def has_expired(entry: dict, now: float) -> bool:
    routine = not entry["rank"]
    return now > (entry["notBefore"] + HOUR if routine else max(entry["notBefore"], entry["createdAt"]) + 7 * DAY)


def enqueue(state: State, job_id: str, delay: float, by: str) -> dict:
    entry = {
        "id": new_id(), "jobId": job_id, "notBefore": state.now + delay, "status": "pending",
        "attempt": 0, "createdAt": state.now, "by": by,
    }  # fmt: skip
    state.queue.append(entry)
    state.record("queued", job_id, by=by, delay=delay)
    return entry


def perform(site: Site, state: State, job_id: str, decision: Decision) -> None:
    """Remember, and bring about every effect that lives in the state."""
    state.remember(job_id, decision.memory)
    for effect in decision.effects:
        if isinstance(effect, Notify):
            notify(site, state, job_id, effect)
        elif isinstance(effect, Enqueue):
            enqueue(state, effect.job_id, effect.delay, f"after {job_id}")


# ---- looking


def job_command(site: Site, job: Any, argv: list, timeout: float, **more: Any) -> Command:
    return Command(argv, site.directory(job), site.environment(job), timeout, **more)


def look_at(site: Site, job: Any) -> Flow:
    """One observation of a long job, now."""
    if job.managed:
        return managed_look(site.store.job_dir(job.id), site.clock.now(), site.redact, site.fingerprint(job))
    command = job_command(site, job, job.commands.status, job.policy.status_timeout_seconds, head=STATUS_LIMIT + 1, marker=new_id())
    outcome = yield command
    return read_status(outcome, site.redact)


def is_state_lost(state: State) -> bool:
    recovered: Any = state.raw.get("recoveredAt")
    return is_number(recovered) and 0 <= state.now - recovered < STATE_LOST_PAUSE


def decide_now(site: Site, state: State, job: Any, look: Observation) -> Decision:
    return decide_long(job, look, state.memory(job.id), site.clock.now(), is_state_lost(state))


def settle_look(site: Site, state: State, job: Any, look: Observation) -> Decision:
    decision = decide_now(site, state, job, look)
    perform(site, state, job.id, decision)
    return decision


def watch_job(site: Site, job: Any) -> Flow:
    """A tick's work on one long job."""
    look = yield from look_at(site, job)
    decision = yield Change(lambda state: settle_look(site, state, job, look))
    if any(isinstance(effect, Resume) for effect in decision.effects):
        yield from resume_job(site, job)


# ---- starting and stopping


def resume_job(site: Site, job: Any) -> Flow:
    """An automatic start: lock, look again, decide again, save the intention, act, save the result."""
    lock = site.store.lock(slug(job.id))
    if lock is None:
        return
    try:
        look = yield from look_at(site, job)
        marker = new_id()
        begun = yield Change(lambda state: begin_resume(site, state, job, look, marker))
        if not begun:
            return
        if begun.memory.action == "restart":
            stopped = yield from end_job(site, job)
            if not stopped:
                yield Change(lambda state: settle_start(site, state, job, None))
                return
        outcome = yield from start_or_say(site, job, marker, is_fresh=False)
        yield Change(lambda state: settle_start(site, state, job, outcome))
    finally:
        os.close(lock)


def begin_resume(site: Site, state: State, job: Any, look: Observation, marker: str) -> Optional[Decision]:
    """Decide again under the job's lock; the intention if it still is to be resumed."""
    decision = settle_look(site, state, job, look)
    if not any(isinstance(effect, Resume) for effect in decision.effects):
        return None
    begun = hold_muted(begin_attempt(job, look, decision.memory, site.clock.now(), marker), site.clock.now())
    perform(site, state, job.id, begun)
    state.record("resume", job.id, attempt=begun.memory.attempts, action=begun.memory.action)
    return begun


def settle_start(site: Site, state: State, job: Any, outcome: Optional[Outcome]) -> None:
    """The result of an automatic start; a failed one is told with its last output."""
    memory = end_action(state.memory(job.id))
    state.remember(job.id, memory)
    phrase = outcome_phrase(outcome) if outcome else Phrase("stop.failed")
    state.record("started" if phrase is None else "start failed", job.id, reason="" if phrase is None else phrase_text("en", phrase))
    if phrase is not None and not is_muted(memory, site.clock.now()):
        words = Phrase("start.failed", {"why": phrase_text(site.lang, phrase)})
        notify(site, state, job.id, Notify("start", "told", NOTICE, words, start_output(site, job, outcome)))


def start_output(site: Site, job: Any, outcome: Optional[Outcome] = None) -> str:
    """The last lines that `start` printed."""
    if job.managed:
        return last_lines(site.redact.read(outcome.err)) if outcome else ""
    try:
        with open(os.path.join(site.store.job_dir(job.id), "start.log"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            return last_lines(site.redact.read(file.read()))
    except OSError:
        return ""


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
    log = os.path.join(directory, "start.log")
    try:
        make_private_dir(directory)
        if not os.path.exists(os.path.join(directory, "id")):
            fd = open_private(os.path.join(directory, "id"), os.O_WRONLY | os.O_TRUNC)
            try:
                write_all(fd, job.id.encode("utf-8", "replace"))
            finally:
                os.close(fd)
        if file_size(log) > START_LOG_LIMIT:
            os.replace(log, log + ".1")
    except OSError as error:
        error.filename = error.filename or directory
        raise
    return directory


def start_command(site: Site, job: Any, marker: str, is_fresh: bool) -> Command:
    """The command that starts a long job, its output in the job's log."""
    directory = prepare_job_dir(site, job)
    if not job.managed:
        return job_command(site, job, job.commands.start, job.policy.start_timeout_seconds, marker=marker, log=os.path.join(directory, "start.log"))
    checkpoint = os.path.join(directory, "checkpoint")
    attempt = 1 if is_fresh else last_attempt(directory) + 1
    if is_fresh and os.path.isdir(checkpoint):
        set_checkpoint_aside(checkpoint)
    make_private_dir(checkpoint)
    resuming = attempt > 1
    if not resuming:
        remove_quietly(os.path.join(directory, "progress.json"))
    env = {
        **site.environment(job),
        "OPS_JOB_ID": job.id,
        "OPS_CHECKPOINT_DIR": checkpoint,
        "OPS_PROGRESS_FILE": os.path.join(directory, "progress.json"),
        "OPS_ATTEMPT": str(attempt),
        "OPS_RESUME": "1" if resuming else "0",
    }
    argv, cwd = job.commands.start, site.directory(job)
    head = {"version": 1, "jobId": job.id, "run": marker, "command": site.fingerprint(job), "attempt": attempt, "boot": site.clock.boot}
    try:
        program = find_executable(argv[0], env["PATH"], cwd)
    except OSError:
        program = argv[0]  # the supervisor says what is wrong with it
    spec = {
        "program": program,
        "argv": argv,
        "directory": directory,
        "job_id": job.id,
        "env": {RUN_MARK: marker},  # of the job alone: what ends its processes must not end the supervisor
        "head": json.dumps(head)[:-1],
        "log_limit": LOG_LIMIT,
        "log_kept": LOG_KEPT,
    }
    return supervisor_command(spec, cwd, env, job.policy.start_timeout_seconds)


def last_attempt(directory: str) -> int:
    """The number of the latest attempt of a managed job; 0 = none is known."""
    try:
        run = read_run(directory)
    except ValueError:
        return 0
    return run.attempt if run else 0


def start_or_say(site: Site, job: Any, marker: str, is_fresh: bool) -> Flow:
    """Run the start command; a place that cannot be made is an Outcome too."""
    try:
        command = start_command(site, job, marker, is_fresh)
    except OSError as error:
        now = site.clock.now()
        return Outcome(now, now, failure=Phrase("run.cannot", {"program": error.filename or job.commands.start[0], "error": os_words(error)}))
    outcome = yield command
    return outcome


def set_checkpoint_aside(checkpoint: str) -> None:
    """Keep the last checkpoint as `checkpoint.old`; one older than that goes."""
    import shutil  # rare: a job that begins anew

    old = checkpoint + ".old"
    if os.path.isdir(old):
        shutil.rmtree(old, ignore_errors=True)
    os.replace(checkpoint, old)


def end_job(site: Site, job: Any) -> Flow:
    """Stop a long job; True once it is known to have ended or its stop command succeeded."""
    if job.managed:
        ended = yield from end_managed(site, job.id, job.policy.stop_timeout_seconds)
        return ended
    if job.commands.stop:
        outcome = yield job_command(site, job, job.commands.stop, job.policy.stop_timeout_seconds, marker=new_id())
        return outcome if outcome.is_good else None
    return None


def end_managed(site: Site, job_id: str, patience: float) -> Flow:
    """TERM to the job's group, `patience` seconds, KILL; False if nothing of it was alive."""
    directory = site.store.job_dir(job_id)
    try:
        run = read_run(directory)
    except ValueError as error:
        raise OpsError(f"{directory}/run.json cannot be read: {error}", f"cat {directory}/run.json") from None
    boot = site.clock.boot
    if run is None or not (is_lock_held(directory) or is_alive(run, boot)):
        return False
    for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, GRACE)):
        if is_alive(run, boot):
            end_group(run.pid, number)
        if number == signal.SIGKILL or not is_alive(run, boot):
            for pid in marked_processes(run.run):
                end_one(pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not is_alive(run, boot) and not is_lock_held(directory):
                return True
            yield Pause(0.05)
    return not is_alive(run, boot)


# ---- plans: everything that decides what a write will do, as it is at one moment


HASHED_UP_TO = 256 << 20  # bytes of a file that are bound by content; larger ones by inode, size and mtime
FIXED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin"  # of writes and verifications


def fixed_environment(site: Site, job: Any) -> dict:
    """The environment of writes and verifications, whoever calls: nothing of the caller's bends them."""
    user = user_name(os.geteuid())
    return {"PATH": FIXED_PATH, "HOME": home_directory({}), "USER": user, "LOGNAME": user, "LANG": "C.UTF-8", **job.env}


def salted(salt: str, text: str) -> str:
    import hashlib

    return hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest()[:24]


class Plan(NamedTuple):
    """Everything that decides what a write will do."""

    items: dict  # label -> what is bound under it, as text
    loose: tuple  # labels of what is named but not bound by content
    problem: str = ""  # something exists and cannot be read: no approval

    @property
    def digest(self) -> str:
        import hashlib

        return hashlib.sha256(json.dumps(self.items, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def file_item(path: str) -> str:
    """What binds a file: its content, or what stands for it.  Raises OSError if it cannot be read."""
    import hashlib

    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return "absent"
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
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
        for chunk in iter(lambda: file.read(1 << 20), b""):
            total.update(chunk)
    return f"sha256 {total.hexdigest()} {os.path.realpath(path)}"


def command_items(site: Site, job: Any, prefix: str) -> Iterator[tuple]:
    """(label, text) of one job's command: argv, program, operands, cwd, declared environment."""
    argv, cwd = job.commands.run, site.directory(job)
    yield prefix + "argv", json.dumps(argv, ensure_ascii=False)
    program = find_executable(argv[0], fixed_environment(site, job)["PATH"], cwd)
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
    parts: list = [(job, "", "")]
    for number, after in enumerate(verifications(job, site.config.jobs), 1):
        what = f"{after.job_id} (when {after.when}, delay {after.delay_seconds:g} s)"
        parts.append((site.config.jobs[after.job_id], f"verification {number}", what))
    for part, name, what in parts:
        items.update({name: what} if name else {})
        try:
            items.update(command_items(site, part, name + ": " if name else ""))
        except OSError as error:
            problem = problem or f"{error.filename or part.commands.run[0]}: {os_words(error)}"
    loose = tuple(label for label, text in items.items() if text.endswith("contents not bound") or text.startswith("large file"))
    return Plan(items, loose, problem)


def remembered(plan: Plan, salt: str, prefix: str = "") -> dict:
    """Label -> salted hash of what a plan binds, for the state: no value and no operand that is not a file."""
    return {label: salted(salt, text) for label, text in plan.items.items() if text != "absent" and label.startswith(prefix)}


# ---- one-shot reads


def run_command(site: Site, job: Any, marker: str) -> Command:
    """The command of a one-shot read.  A verification gets a fixed environment, whoever calls."""
    env = site.environment(job)
    if any(job.id in names for names in site.verifiers.values()):
        env = fixed_environment(site, job)
    return Command(job.commands.run, site.directory(job), env, run_timeout(job), marker=marker, patterns=tuple(job.policy.attention_patterns))


def run_check(site: Site, job: Any, entry_id: str = "") -> Flow:
    """A tick's run of a scheduled or queued read."""
    yield Turn()
    lock = site.store.lock(slug(job.id))
    if lock is None:
        return
    try:
        left = site.store.view().memory(job.id)
        if left.action == "run" and marked_processes(left.action_id):
            return  # its tick died, the run itself still lives
        marker = new_id()
        begun = yield Change(lambda state: begin_run(site, state, job, entry_id, marker))
        if not begun:
            return
        outcome = yield run_command(site, job, marker)
        yield Change(lambda state: settle_run(site, state, job, outcome))
    finally:
        os.close(lock)


def begin_run(site: Site, state: State, job: Any, entry_id: str, marker: str) -> bool:
    """The intention to run, under the job's lock; False if there is nothing to run any more."""
    now = site.clock.now()
    memory = state.memory(job.id)
    tries = 1
    if memory.action == "run":
        entry_id, tries = memory.action_entry, memory.action_tries + 1
        if not interrupted(site, state, job, memory, is_wanted=bool(entry_id) or job.enabled):
            return False
    entry = queue_entry(state, entry_id)
    if entry_id:
        if entry is None or entry.get("status") not in ("pending", "running"):
            state.remember(job.id, end_action(memory))
            return False
        entry.update(status="running", attempt=tries)
    elif tries == 1 and due_reason(job, memory, now).key not in ("due.first", "due.now"):
        return False
    taken = take_slot(job, memory, now, marker, tries) if not entry_id else memory._replace(
        action="run", action_at=now.at, action_for=run_timeout(job) + 10.0, action_id=marker, action_tries=tries
    )
    state.remember(job.id, taken._replace(action_entry=entry_id))
    return True


def interrupted(site: Site, state: State, job: Any, memory: Memory, is_wanted: bool) -> bool:
    """Tell that a run has no result; whether it is run once more."""
    again = memory.action_tries < 2 and is_wanted
    words = Phrase("interrupted.again" if again else "interrupted", {"time": site.clock.text(memory.action_at)})
    state.record("interrupted", job.id, again=again)
    if not is_muted(memory, site.clock.now()):
        notify(site, state, job.id, Notify("interrupted", "told", WARN if again else ALERT, words))
    if not again:
        finish_entry(state, memory.action_entry, None)
        state.remember(job.id, end_action(memory))
    return again


def queue_entry(state: State, entry_id: str) -> Optional[dict]:
    return next((entry for entry in state.queue if entry_id and entry.get("id") == entry_id), None)


def finish_entry(state: State, entry_id: str, outcome: Optional[Outcome], status: str = "done") -> None:
    entry = queue_entry(state, entry_id)
    if entry is not None:
        entry.update(status=status, doneAt=state.now)
        if outcome is not None:
            entry["exitCode"] = outcome.code


def settle_run(site: Site, state: State, job: Any, outcome: Outcome, by: str = "") -> Decision:
    """The result of a one-shot read, its telling, and what it queues."""
    memory = state.memory(job.id)
    entry_id = "" if by else memory.action_entry
    scheduled = not by and not entry_id
    decision = decide_run(job, outcome, memory, site.clock.now(), site.redact, scheduled)
    if by and memory.action:  # a run by hand is not the result of another run's intention
        fields = {name: getattr(memory, name) for name in Memory._fields if name.startswith("action")}
        decision = decision._replace(memory=decision.memory._replace(**fields))
    finish_entry(state, entry_id, outcome)
    perform(site, state, job.id, decision)
    settle_verifications(site, state, job, outcome)
    state.record("run", job.id, code=outcome.code, seconds=round(outcome.ended.awake - outcome.began.awake, 3), by=by or ("queue" if entry_id else "schedule"))
    return decision


def refuse_entry(site: Site, state: State, entry: dict) -> None:
    """A queued job that may not run: said, and done with."""
    job_id = str(entry.get("jobId"))
    stored = queue_entry(state, str(entry.get("id"))) or entry
    if stored.get("status") != "pending":
        return
    stored.update(status="blocked", doneAt=state.now)
    job = site.config.jobs.get(job_id)
    words = Phrase("blocked.unknown" if job is None else "blocked.queue", {"job": site.redact.tidy(job_id), "kind": job.kind if job else ""})
    notify(site, state, site.redact.tidy(job_id), Notify("blocked", "told", ALERT, words))
    state.record("blocked", site.redact.tidy(job_id), by=entry.get("by") or "queue")


# ---- writes, as far as a tick has to do with them


def settle_gate(site: Site, state: State, job: Any) -> None:
    """Tell what is wrong with a write that has run: unknown outcome, failed or missing verification."""
    now = site.clock.now()
    findings = gate_findings(state.gate(job.id), state.now)
    decision = judge_incidents(job.policy, findings, state.memory(job.id), now)
    perform(site, state, job.id, hold_muted(decision, now))


def forget_blocked(state: State, job_id: str) -> None:
    """What was blocked is answered: nothing to resolve, nothing to say."""
    memory = state.memory(job_id)
    if "blocked" in memory.incidents:
        state.remember(job_id, memory._replace(incidents={kind: item for kind, item in memory.incidents.items() if kind != "blocked"}))


def settle_verifications(site: Site, state: State, check: Any, outcome: Outcome) -> None:
    """What the run of a check means for the writes that it verifies."""
    for job in site.config.jobs.values():
        if check.id not in site.verifiers.get(job.id, ()) or state.gate(job.id).verify not in ("pending", "failed"):
            continue
        before = state.gate(job.id)
        own = f"verification {site.verifiers[job.id].index(check.id) + 1}: "
        now = remembered(make_plan(site, job), before.verify_salt, own)
        same = now == {label: value for label, value in before.verify_items.items() if label.startswith(own)}
        gate = verified(before, check.id, outcome.began.at, outcome.is_good and not outcome.attention and same)
        if gate != before:
            state.keep_gate(job.id, gate)
            if gate.verify == "passed":
                forget_blocked(state, job.id)
            state.record("verification", job.id, by=check.id, result=gate.verify, run=gate.run_id)
            settle_gate(site, state, job)


def watch_write(site: Site, job: Any) -> Flow:
    """A tick's work on one write: notice a lost run, an overdue verification.  It never runs one."""
    lock = site.store.lock(slug(job.id))
    if lock is None:
        return
    try:
        lost = site.store.view().gate(job.id)
        is_lost = lost.run == "begun" and not marked_processes(lost.run_id)

        def apply(state: State) -> None:
            gate = state.gate(job.id)
            if is_lost and gate.run_id == lost.run_id:
                state.keep_gate(job.id, gate._replace(run="unknown", run_ended_at=state.now))
                state.record("write outcome unknown", job.id, run=gate.run_id)
            settle_gate(site, state, job)

        yield Change(apply)
    finally:
        os.close(lock)


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
    command: tuple = ()
    problem: str = ""  # why there is no way, for a person
    advice: str = ""

    @property
    def identity(self) -> str:
        """Changes when something changes that a refusal may have depended on; holds no secret."""
        import zlib

        return format(zlib.crc32(repr((self.ways, self.chat, self.thread, self.root, self.token, self.binary)).encode()), "08x")


def find_receiver(site: Site) -> Receiver:
    """The receiver that config, command line and OpenClaw's config give."""
    delivery = site.config.delivery
    if delivery.via == "none":
        return Receiver(problem="delivery.via is none", advice="set delivery.via in the config")
    if delivery.via == "command":
        if not delivery.command:
            return Receiver(problem="delivery.command is missing", advice="add delivery.command to the config")
        return Receiver(("command",), command=tuple(delivery.command))
    loaded = load_openclaw(site.dirs.config_file, site.env, lambda path: read_file(path).decode("utf-8-sig"), site.dirs.state_dir)
    token = find_token(loaded, delivery.account, read_secret_file)
    if token.value:
        site.redact.learn([token.value])
    target: Any = configured_target(site)
    if not target and delivery.channel == "telegram":  # a Telegram chat is nobody on another channel
        target = find_target(loaded, delivery.account)
    api = find_api(loaded, delivery.account)
    binary = openclaw_binary(site)
    by_http = delivery.channel == "telegram" and not (api.proxy or "").startswith("socks")
    possible = {"api": bool(token.value) and by_http, "openclaw": bool(binary)}
    wanted = ("api", "openclaw") if delivery.via == "auto" else (delivery.via,)
    ways = tuple(way for way in wanted if possible[way])
    found = Receiver(ways, channel=delivery.channel, account=delivery.account or "", token=token.value or "", root=api.root, proxy=api.proxy or "", binary=binary)
    if target:
        found = found._replace(chat=target[0], thread=str(delivery.thread_id or target[1] or ""))
    return found._replace(**receiver_problem(found, token, loaded))


def configured_target(site: Site) -> Any:
    """(chat, thread) of --target or delivery.target, or None."""
    given = site.target or site.config.delivery.target
    if given in (None, ""):
        return None
    if site.config.delivery.channel != "telegram":
        return str(given), ""
    return parse_target(str(given)) or (str(given), "")


def receiver_problem(found: Receiver, token: Any, loaded: Any) -> dict:
    if not found.ways:
        why = token.problem or "no bot token in OpenClaw's config"
        return {"problem": f"{why}, and no openclaw program was found", "advice": "set channels.telegram.botToken in openclaw.json"}
    if not found.chat:
        return {"problem": "no target", "advice": "set delivery.target in ops-jobs.json to your chat id"}
    return {}


def openclaw_binary(site: Site) -> str:
    try:
        return find_executable("openclaw", child_environment(site.env, site.home, {})["PATH"], "/")
    except OSError:
        return ""


def send_api(site: Site, receiver: Receiver, message: Message) -> Flow:
    """sendMessage of the Bot API; decided on error_code, never on words."""
    body: dict = {
        "chat_id": int(receiver.chat) if re.fullmatch(r"-?\d+", receiver.chat) else receiver.chat,
        "text": message.text,
        "disable_notification": not message.rings,
        "link_preview_options": {"is_disabled": True},
    }
    if receiver.thread.isdigit() and receiver.thread != "1":
        body["message_thread_id"] = int(receiver.thread)
    yield from ()  # a flow like the other ways, although it needs nothing from the driver
    began = time.monotonic()
    try:
        status, raw = post_json(f"{receiver.root}/bot{receiver.token}/sendMessage", body, receiver.proxy)
        sent = read_api_answer(status, raw, site.redact)
    except Lost as error:
        sent = Sent("unknown", site.redact(str(error)))
    except (OSError, ValueError) as error:
        sent = Sent("not_sent", site.redact(one_line(str(error), 100)))
    site.pool.forgive(time.monotonic() - began)
    return sent


def read_api_answer(status: int, raw: bytes, redact: Redactor) -> Sent:
    """What the Bot API said."""
    try:
        answer: Any = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        return Sent("unknown" if status >= 500 or status < 300 else "not_sent", f"HTTP {status}, no answer of the Bot API")
    if answer["ok"]:
        return Sent("sent") if status < 300 else Sent("unknown", f"HTTP {status} with ok")
    code: Any = answer.get("error_code") if is_number(answer.get("error_code")) else status
    detail = f"{code} {one_line(redact.tidy(str(answer.get('description') or '')), 100)}"
    parameters: Any = answer.get("parameters") if isinstance(answer.get("parameters"), dict) else {}
    moved: Any = parameters.get("migrate_to_chat_id")
    wait: Any = parameters.get("retry_after")
    if moved and isinstance(moved, (int, str)):
        return Sent("not_sent", detail, moved_to=str(moved))
    if is_number(wait) and wait > 0:
        return Sent("wait", detail, retry_after=min(float(wait), DAY))
    if code >= 500:
        return Sent("unknown", detail)
    return Sent("wait" if code == 429 else "refused" if code in (400, 401, 403, 404) else "not_sent", detail)


NOT_SENT_WORDS = (
    "requires credentials|gateway not reachable|gateway is not running|econnrefused|unknown channel|unknown target|"
    "config(uration)? (is )?invalid|invalid config|token (is )?missing|missing token|no bot token|"
    "requires node|unsupported node|node\\.js v?\\d+.* (is )?required"
)


def send_openclaw(site: Site, receiver: Receiver, message: Message) -> Flow:
    """`openclaw message send`; only some of its failures say that nothing was sent."""
    fenced = "```\n" + message.text.replace("```", "'''") + "\n```"
    argv = [receiver.binary, "message", "send", "--channel", receiver.channel, "--target", receiver.chat, "--message", fenced]
    argv += ["--account", receiver.account] if receiver.account else []
    argv += ["--thread-id", receiver.thread] if receiver.thread else []
    argv += [] if message.rings else ["--silent"]
    env = child_environment(env_for_openclaw(site.env, site.dirs), site.home, {})
    places = [os.path.dirname(receiver.binary), os.path.dirname(os.path.realpath(receiver.binary))]
    env["PATH"] = ":".join([*places, env["PATH"]])
    outcome = yield Command(argv, site.home, env, OPENCLAW_TIMEOUT, marker=new_id())
    if outcome.is_good:
        return Sent("sent")
    words = site.redact.read(outcome.err) + "\n" + site.redact.read(outcome.out)
    detail = one_line(phrase_text("en", outcome_phrase(outcome) or Phrase("run.exit", {"code": 0})) + " " + last_lines(words, 2), 160)
    if outcome.failure or outcome.code in (126, 127) or re.search(NOT_SENT_WORDS, words, re.I):
        return Sent("not_sent", detail)
    if re.search(r"\b(error_code\D{0,4}|\()(400|401|403|404)\b|\b(401|403|404): ", words):
        return Sent("refused", detail)
    return Sent("unknown", detail)


def send_command(site: Site, receiver: Receiver, message: Message) -> Flow:
    """The user's own command gets the text on stdin; exit 0 = sent."""
    env = child_environment(site.env, site.home, {"OPS_RINGS": "1" if message.rings else "0"})
    outcome = yield Command(list(receiver.command), site.dirs.ours_dir, env, OPENCLAW_TIMEOUT, marker=new_id(), stdin=message.text.encode("utf-8", "replace"))
    phrase = outcome_phrase(outcome)
    if phrase is None:
        return Sent("sent")
    return Sent("not_sent" if outcome.failure else "unknown", phrase_text("en", phrase))


SENDERS = {"api": send_api, "openclaw": send_openclaw, "command": send_command}


def usable_ways(site: Site, receiver: Receiver) -> tuple:
    """The ways to try now: not one that refused this receiver within 6 h, not the binary twice a tick."""
    state = site.store.view()
    refused: Any = state.raw.get("refused")
    refused = refused if isinstance(refused, dict) else {}
    by_time = {way for way, until in refused.items() if is_number(until) and until > state.now and way in receiver.ways}
    resting = by_time if refused.get("by") == receiver.identity and len(by_time) < len(receiver.ways) else set()
    return tuple(way for way in receiver.ways if way not in resting and not (way == "openclaw" and site.called_openclaw))


def send(site: Site, receiver: Receiver, message: Message) -> Flow:
    """One message by the first way that does not definitely fail."""
    sent = Sent("later")
    for way in usable_ways(site, receiver):
        site.called_openclaw = site.called_openclaw or way == "openclaw"
        sent = yield from SENDERS[way](site, receiver, message)
        if sent.moved_to:  # the group has a new id: once more, there, and from now on
            yield Change(moving(receiver.chat, sent.moved_to), urgent=True)
            site.receiver = receiver = receiver._replace(chat=sent.moved_to)
            sent = yield from SENDERS[way](site, receiver, message)
        if sent.result == "refused":
            yield Change(refusing(way, receiver.identity), urgent=True)
        elif sent.result != "not_sent":
            break
    return sent


def refusing(way: str, identity: str) -> Callable[[State], None]:
    """Remember that this way refused this receiver, so that it is left alone for 6 h while another way works."""

    def apply(state: State) -> None:
        known: Any = state.raw.get("refused")
        kept = known if isinstance(known, dict) and known.get("by") == identity else {}
        state.raw["refused"] = {**kept, "by": identity, way: state.now + 6 * HOUR}

    return apply


def moving(old: str, new: str) -> Callable[[State], None]:
    def apply(state: State) -> None:
        state.raw["moved"] = {**(state.raw.get("moved") or {}), old: new}

    return apply


def retry_wait(sent: Sent, tries: int) -> float:
    """Seconds until the next attempt, after `tries` failed ones."""
    if sent.result == "refused":
        return 6 * HOUR
    return sent.retry_after or min(30.0 * 2.0 ** min(tries, 20), 1800.0)


def settle_sent(site: Site, state: State, message: Message, sent: Sent, receiver: Receiver) -> None:
    """Take out what was confirmed; date what was not."""
    carried = [entry for entry in state.outbox if entry["id"] in message.entries]
    if sent.result == "sent":
        state.raw["outbox"] = [entry for entry in state.outbox if entry not in carried]
        state.raw["receiver"] = last_receiver(site, receiver)
        if message.counted:
            state.raw["dropped"] = max(0, dropped_count(state) - message.counted)
        for entry in state.outbox:  # it works again: what waited for that goes now
            if entry.get("tries") or entry.get("refusedBy"):
                entry["notBefore"] = min(entry["notBefore"], state.now)
                entry.pop("refusedBy", None)
        return
    if sent.result == "later":
        return
    strict = sent.result in ("refused", "wait")
    for entry in state.outbox if strict else carried:
        tries: Any = entry.get("tries") if is_number(entry.get("tries")) else 0
        if entry in carried:
            entry["tries"] = tries + 1
            entry["error"] = sent.detail
            entry["wait"] = retry_wait(sent, int(tries))
            entry.update({"maybeSent": True} if sent.result == "unknown" else {})
        entry["notBefore"] = max(entry["notBefore"], state.now + retry_wait(sent, int(tries)))
        if strict:
            entry["refusedBy"] = receiver.identity
    state.record("not delivered", error=sent.detail, result=sent.result)


def settling(site: Site, message: Message, sent: Sent, receiver: Receiver) -> Callable[[State], None]:
    return lambda state: settle_sent(site, state, message, sent, receiver)


def last_receiver(site: Site, receiver: Receiver) -> dict:
    """What is needed to tell a person when the config cannot be read; no secret."""
    kept = {"via": site.config.delivery.via, "channel": receiver.channel, "target": receiver.chat, "threadId": receiver.thread, "account": receiver.account}
    kept.update(language=site.lang, host=site.config.monitor.host)
    if receiver.command and site.redact(" ".join(receiver.command)) == " ".join(receiver.command):
        kept["command"] = list(receiver.command)
    return kept


def due_entries(state: State, identity: str) -> list:
    """Entries whose wait is over; a refusal by another receiver than today's does not count."""
    return [entry for entry in state.outbox if entry["notBefore"] <= state.now or entry.get("refusedBy") not in (None, identity)]


class Delivered(NamedTuple):
    """How a delivery ended."""

    left: int = 0  # entries that stay
    problem: str = ""
    advice: str = ""


def deliver(site: Site) -> Flow:
    """Send what is due, worst first, and save each confirmation; what is left and why."""
    if not site.store.view().outbox:
        return Delivered()
    lock = site.store.lock("delivery")
    if lock is None:
        return Delivered()  # whoever holds it sends
    try:
        result = yield from send_due(site)
        return result
    finally:
        os.close(lock)


def send_due(site: Site) -> Flow:
    site.receiver = receiver = site.receiver or find_receiver(site)
    moved = site.store.view().raw.get("moved")
    if isinstance(moved, dict) and isinstance(moved.get(receiver.chat), str):
        site.receiver = receiver = receiver._replace(chat=moved[receiver.chat])
    if receiver.problem:
        return Delivered(len(site.store.view().outbox), receiver.problem, receiver.advice)
    began = time.monotonic()
    problem = ""
    state = site.store.view()
    now = state.now
    header = header_text(site.clock.time_text(now), site.config.monitor.host)
    room = MESSAGES_A_TICK - site.sent
    due = [entry for entry in due_entries(state, receiver.identity) if not has_expired(entry, now)]
    for message in compose(site.lang, due, now, header, site.clock.text, room, dropped_count(state)) if room > 0 else ():
        if time.monotonic() - began > DELIVERY_BUDGET:
            break
        sent = yield from send(site, receiver, message)
        receiver = site.receiver
        yield Change(settling(site, message, sent, receiver), urgent=True)
        if sent.result != "sent":
            problem = sent.detail
            break
        site.sent += 1
    left = site.store.view().outbox
    problem = problem or next((str(entry["error"]) for entry in left if entry.get("error")), "")
    return Delivered(len(left), problem, "ops-monitor.py status")


def warn_undelivered(delivered: Delivered) -> None:
    if delivered.left:
        print(f"note: undelivered messages: {delivered.left}: {delivered.problem}; the next tick tries again", file=sys.stderr)


def show(text: str, stream: Any) -> None:
    """Print what a command printed; a closed pipe must not keep us from saving the result."""
    if text:
        try:
            print(text, end="" if text.endswith("\n") else "\n", file=stream, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show_output(site: Site, outcome: Outcome) -> None:
    """What a command printed, on the same streams."""
    show(site.redact.read(outcome.out), sys.stdout)
    show(site.redact.read(outcome.err), sys.stderr)


def show_file(site: Site, path: str, begin: int = 0, stream: Any = None) -> None:
    """What a command has written to its log from `begin` on, head and tail."""
    kept = Stream(HEAD_KEPT, None)
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            for chunk in iter(lambda: file.read(1 << 20), b""):
                kept.feed(chunk)
    except OSError:
        return
    show(site.redact.read(kept.kept()), stream or sys.stdout)


# ==== GATE ===============================================================
# Writes: approved by a person for exactly these bytes, run once, verified by a read-only job.
# Nothing else in this file runs a write: the tick, the queue, `after` and auto-resume have no way here.

CODE_LIFE, CODE_TRIES, CODE_REQUESTS, CODE_ROUNDS = 900.0, 5, 3, 600_000
VERIFY_SLACK = HOUR  # after delay and timeout, before a verification counts as overdue


def changed_items(gate: Gate, plan: Plan) -> list:
    """Labels that differ from what was approved."""
    now = remembered(plan, gate.salt)
    return sorted(label for label in {*now, *gate.items} if now.get(label) != gate.items.get(label))


def item_line(site: Site, label: str, text: str, is_loose: bool) -> str:
    """One bound item as a person reads it; '' for what says nothing."""
    kind, _, name = label.partition(" ")
    if text == "absent" and "/" not in name:
        return ""
    if kind == "argv":
        text = " ".join(map(shell_word, json.loads(text)))
    elif kind == "cwd":
        text = text.partition(" directory ")[0]
    elif kind == "env":
        text = f"{name}={text}"
        text = f"{name}={MASK}" if secret_values({name: text + "        "}) else text
    elif kind == "file":
        text = name + site.say("plan.loose") if is_loose else f"{name}  {text}"
    shown = site.redact.tidy(text).replace("\n", "\n" + " " * 14)  # a value with line feeds cannot look like ours
    return f"  {pad(site.say('plan.' + kind), 12)}{shown}"


def plan_lines(site: Site, job: Any, plan: Plan) -> list:
    """The plan as a person reads it before approving: what, where, which files, what verifies it."""
    lines = [site.say("plan.title", name=job.name, job=job.id), f"  {pad(site.say('plan.risk'), 12)}{job.risk}"]
    for label, text in plan.items.items():
        loose = label in plan.loose
        if label.startswith("verification "):
            label = label.partition(": ")[2]
            lines.append(item_line(site, label, text, loose) if label else "\n" + site.say("plan.verified", what=text))
        elif label not in ("job", "risk", "via"):
            lines.append(item_line(site, label, text, loose))
    ttl = job.approval.ttl_seconds if job.approval else 3600
    return [line for line in lines if line] + ["", site.say("plan.ttl", time=duration_text(ttl))]


def who() -> str:
    """The person as history knows them: user, uid, terminal."""
    try:
        terminal = os.ttyname(0)
    except OSError:
        terminal = "no terminal"
    return f"{user_name(os.getuid())} (uid {os.getuid()}, {terminal})"


# ---- approving


def grant(site: Site, state: State, job: Any, plan: Plan, clear: bool, tell: bool = False) -> None:
    """An approval of this plan for one run; `tell`: nobody typed it at a terminal, so the person hears of it."""
    gate = state.gate(job.id)
    salt = os.urandom(8).hex()
    ttl = job.approval.ttl_seconds if job.approval else 3600.0
    items = remembered(plan, salt)
    gate = without_code(gate)._replace(digest=plan.digest, items=items, salt=salt, approved_at=state.now, approved_for=float(ttl), approved_by=who())
    if clear:
        gate = gate._replace(verify="", verify_left=[])
    state.keep_gate(job.id, gate)
    forget_blocked(state, job.id)
    if tell:
        words = Phrase("approved.told", {"who": gate.approved_by, "digest": plan.digest[:16]})
        notify(site, state, job.id, Notify("approved", "told", NOTICE, words))
    state.record("approved", job.id, digest=plan.digest, who=gate.approved_by, despite=clear)


def without_code(gate: Gate) -> Gate:
    return gate._replace(code_hash="", code_salt="", code_digest="", code_at=0.0, code_tries=0)


def without_approval(gate: Gate) -> Gate:
    return gate._replace(digest="", items={}, salt="", approved_at=0.0, approved_for=0.0, approved_by="")


def hashed_code(code: str, salt: str) -> str:
    import hashlib

    return hashlib.pbkdf2_hmac("sha256", code.encode("utf-8", "replace"), bytes.fromhex(salt), CODE_ROUNDS).hex()


def request_code(site: Site, job: Any, plan: Plan) -> Flow:
    """Send a one-time code with the plan to the person; True once the Bot API confirmed it."""

    def count(state: State) -> bool:
        gate = state.gate(job.id)
        recent = [min(at, state.now) for at in gate.requests if is_number(at) and state.now - HOUR < at]
        if len(recent) >= CODE_REQUESTS:
            return False
        state.keep_gate(job.id, without_code(gate)._replace(requests=[*recent, state.now]))
        state.record("code requested", job.id, digest=plan.digest, who=who())
        return True

    if not (yield Change(count, urgent=True)):
        raise BlockedError("BLOCKED: " + site.say("code.too_many", job=job.id))
    receiver = find_receiver(site)
    if "api" not in receiver.ways or not receiver.chat:
        raise UndeliveredError(site.say("code.no_api"), receiver.advice or "set delivery.via to api and channels.telegram.botToken")
    code = f"{int.from_bytes(os.urandom(8), 'big') % 10**8:08d}"
    header = header_text(site.clock.time_text(site.clock.now().at), site.config.monitor.host)
    words = header + "\n\n" + site.say("code.message", code=code, job=job.id) + "\n\n"  # first: a long plan must not push it out
    plan_text = clip("\n".join(plan_lines(site, job, plan)), SECTION_LIMIT - utf16_length(words))
    sent = yield from send_api(site, receiver, Message(words + plan_text, True, ()))
    if sent.result != "sent":
        raise UndeliveredError(site.say("code.not_sent", why=sent.detail), site.advise("approve", job.id, "--request"))
    salt = os.urandom(16).hex()
    hashed = hashed_code(code, salt)
    yield Change(lambda state: state.keep_gate(job.id, state.gate(job.id)._replace(code_hash=hashed, code_salt=salt, code_digest=plan.digest, code_at=state.now, code_tries=0)), urgent=True)


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

    refused = yield Change(apply, urgent=True)
    return refused


# ---- running: the output goes to a file, so that the end of this process cannot break a write


def run_write(site: Site, job: Any, verify: bool) -> Flow:
    """One approved run: digest under the lock, approval used up durably, then the command."""
    lock = site.store.lock(slug(job.id), 1.0)
    if lock is None:
        raise BusyError(f"job '{job.id}' is being run by another process", site.advise("status", job.id))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)  # nothing of the caller's bends what was approved
    try:
        directory = prepare_job_dir(site, job)
        plan = make_plan(site, job)
        refused = yield Change(lambda state: begin_write(site, state, job, plan), urgent=True)
        if refused:
            yield from tell_blocked(site, job, refused)
        log = os.path.join(directory, "write.log")
        if os.path.exists(log):
            os.replace(log, log + ".1")
        began = site.store.view().gate(job.id)
        outcome = yield Command(job.commands.run, site.directory(job), fixed_environment(site, job), run_timeout(job), marker=began.run_id, log=log)
        yield Change(lambda state: settle_write(site, state, job, outcome), urgent=True)
    finally:
        os.close(lock)
    show_file(site, log)
    phrase = outcome_phrase(outcome)
    code = JOB_FAILED if phrase else DONE
    print(site.say("write.done", job=job.id) if phrase is None else "error: " + phrase_text(site.lang, phrase), file=sys.stderr if phrase else sys.stdout)
    if verify and phrase is None:
        code = yield from verify_now(site, job)
    delivered = yield from deliver(site)
    warn_undelivered(delivered)
    return code


def begin_write(site: Site, state: State, job: Any, plan: Plan) -> Optional[Reason]:
    """Why it may not run, or None: then the approval is used up and the run is on record."""
    gate = noticed_loss(site, state, job)
    state.keep_gate(job.id, gate)  # times that the clock has mended stay mended
    reason = gate_reason(gate, plan.digest, plan.problem, changed_items(gate, plan), state.now)
    if site.config_risk:
        reason = Reason("gate.config_writable", facts={"why": site.config_risk})
    if reason.key != "gate.open":
        state.record("refused", job.id, reason=reason.key, who=who(), digest=plan.digest)
        return reason
    salt = os.urandom(8).hex()
    gate = gate._replace(verify_salt=salt, verify_items=remembered(plan, salt, "verification "))
    gate = without_approval(gate)._replace(run="begun", run_id=new_id(), run_began_at=state.now, run_ended_at=0.0, run_code=0, run_digest=plan.digest)
    state.keep_gate(job.id, gate)
    state.record("write begun", job.id, digest=plan.digest, who=who(), run=gate.run_id)
    return None


def noticed_loss(site: Site, state: State, job: Any) -> Gate:
    """The gate, where a run without result and without a process is an unknown outcome.  Caller holds the job's lock."""
    gate = state.gate(job.id)
    if gate.run == "begun" and not marked_processes(gate.run_id):
        gate = gate._replace(run="unknown", run_ended_at=state.now)
        state.keep_gate(job.id, gate)
        state.record("write outcome unknown", job.id, run=gate.run_id)
    return gate


def settle_write(site: Site, state: State, job: Any, outcome: Outcome) -> None:
    """The result of a write, and what has to verify it."""
    good = outcome.is_good
    due = [after for after in verifications(job, site.config.jobs) if after.when == "always" or good]
    longest = max([after.delay_seconds + run_timeout(site.config.jobs[after.job_id]) for after in due], default=0.0)
    gate = state.gate(job.id)._replace(run="good" if good else "failed", run_ended_at=state.now, run_code=255 if outcome.code is None else outcome.code)
    needed = bool(due) or good  # a write that nothing can verify stays unverified
    now = remembered(make_plan(site, job), gate.verify_salt, "verification ")  # what the write itself changed is its work, not a change of its check
    gate = gate._replace(verify_items={label: value for label, value in gate.verify_items.items() if now.get(label) == value})
    gate = gate._replace(verify="pending" if needed else "", verify_left=[after.job_id for after in due], verify_for=longest + VERIFY_SLACK)
    state.keep_gate(job.id, gate)
    state.remember(job.id, state.memory(job.id)._replace(ran_at=state.now, ran_code=gate.run_code, left_at=0.0))
    for after in job.after:
        if after.when == "always" or (after.when == "success") == good:
            enqueue(state, after.job_id, after.delay_seconds, f"after {job.id}")
    phrase = outcome_phrase(outcome)
    state.record("write ended", job.id, code=outcome.code, run=gate.run_id, digest=gate.run_digest)
    if phrase:
        notify(site, state, job.id, Notify("failed", "told", ALERT, phrase, log_end(site, job)))
    settle_gate(site, state, job)


def log_end(site: Site, job: Any) -> str:
    try:
        with open(os.path.join(site.store.job_dir(job.id), "write.log"), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            return last_lines(site.redact.read(file.read()))
    except OSError:
        return ""


def tell_blocked(site: Site, job: Any, reason: Reason) -> Flow:
    """A refused write: the person is told once, the caller gets exit 4 and the next step."""
    words = site.say(reason.key, **reason.facts)

    def apply(state: State) -> None:
        phrase = Phrase("blocked.write", {"job": job.id, "why": words})
        policy = job.policy._replace(alert_after=1, alert_repeat_seconds=0)
        decision = judge_incidents(policy, {"blocked": Finding("blocked", ALERT, phrase)}, state.memory(job.id), site.clock.now())
        perform(site, state, job.id, hold_muted(decision, site.clock.now()))

    yield Change(apply, urgent=True)
    delivered = yield from deliver(site)
    warn_undelivered(delivered)
    advice = site.advise("explain", job.id) if reason.key.startswith("gate.verif") else site.advise("approve", job.id)
    v1 = " " + site.say("gate.v1") if job.approval and (job.approval.granted or not job.approval.required) else ""
    raise BlockedError(f"BLOCKED: {words}{v1}", advice)


def settling_verification(site: Site, job: Any, check: Any, outcome: Outcome) -> Callable[[State], None]:
    """The change after a verification by hand: its result; the queued run of it is done as well."""

    def apply(state: State) -> None:
        settle_run(site, state, check, outcome, by="verify")
        for entry in state.queue:
            if entry.get("jobId") == check.id and entry.get("by") == f"after {job.id}" and entry.get("status") == "pending":
                finish_entry(state, entry["id"], outcome)

    return apply


def verify_now(site: Site, job: Any) -> Flow:
    """Run the verifications of a write that just ended, each after its delay; 0 = all passed."""
    for after in verifications(job, site.config.jobs):
        yield Pause(after.delay_seconds)
        check = site.config.jobs[after.job_id]
        lock = site.store.lock(slug(check.id), run_timeout(check))
        if lock is None:
            raise BusyError(f"job '{check.id}' is being run by another process", site.advise("run", check.id))
        try:
            if check.id not in site.store.view().gate(job.id).verify_left:
                continue  # a tick was faster
            outcome = yield run_command(site, check, new_id())
            show_output(site, outcome)
            yield Change(settling_verification(site, job, check, outcome), urgent=True)
        finally:
            os.close(lock)
    passed = site.store.view().gate(job.id).verify == "passed"
    print(site.say("verify.passed" if passed else "verify.failed", job=job.id))
    return DONE if passed else JOB_FAILED


# ==== COMMANDS ===========================================================
# What a person can type.  To add a command is to add one decorated function: its docstring is its
# help, the decorator says what it takes.  Commands print; everything else returns values.


class Option(NamedTuple):
    """One argument of a command, as argparse takes it."""

    flags: tuple
    settings: dict


class CommandRow(NamedTuple):
    function: Callable
    options: tuple
    example: str
    wants_site: bool  # the config and state are opened first


COMMANDS: dict = {}


def option(*flags: str, **settings: Any) -> Option:
    return Option(flags, settings)


def command(name: str, *options: Option, example: str = "", wants_site: bool = True) -> Callable:
    """Register a function as a command."""

    def register(function: Callable) -> Callable:
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


JOB = option("job", metavar="JOB", help="id of a job")
SOME_JOB = option("job", metavar="JOB", nargs="?", help="id of a job; default: all")
AS_JSON = option("--json", action="store_true", help="print JSON instead of text")
TARGET = option("--target", default="", metavar="ID", help="chat to tell instead of the configured one")
TRUST = option("--trust-permissions", action="store_true", help="accept a config that others could have written; reads only")
TIMEOUT = option("--timeout-seconds", type=seconds_argument, default=None, metavar="S", help="limit of the command; default: the job's policy")
ALLOW_RISK = option("--allow-risk", action="store_true", help="start a job whose risk is not read_only")


# ---- opening the installation


class Files(NamedTuple):
    """Where this process finds its files."""

    config_file: str
    state_file: str
    home: str
    dirs: Any  # of OpenClaw


def find_files(args: Any) -> Files:
    env = dict(os.environ)
    home = home_directory(env)
    dirs = openclaw_places(env, home, os.path.exists)
    ours = dirs.ours_dir or home
    config = args.config_file or os.path.join(ours, "net", "config", "ops-jobs.json")
    state = args.state_file or os.path.join(ours, "net", "state", "ops-monitor.json")
    return Files(absolute(config, home), absolute(state, home), home, dirs)


def absolute(path: str, home: str) -> str:
    return os.path.abspath(home + path[1:] if path.startswith("~/") else path)


def refuse_foreign_root(state_file: str) -> None:
    """Root in somebody else's directory would leave files that lock the owner out."""
    if os.geteuid() != 0:
        return
    place = os.path.dirname(state_file)
    while not os.path.exists(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    owner = os.stat(place).st_uid
    if owner != 0:
        words = " ".join(map(shell_word, [sys.executable or "python3", *sys.argv]))
        raise UsageError(f"{place} belongs to {user_name(owner)}, you are root", f"sudo -u {user_name(owner)} {words}")


def load_config(path: str, home: str, trust_permissions: bool = False) -> tuple:
    """(Config, warnings).  Raises UsageError with one clear line if nothing in it can be used."""
    try:
        raw = read_file(path, 64 << 20)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file", "copy ops-jobs.example.json there, or name another with --config-file") from None
    except OSError as error:
        raise UsageError(f"{path}: {os_words(error)}", f"ls -ld {shell_word(path)}") from None
    trust = check_trust(path, home)
    if trust.refusal and not trust_permissions:
        raise UsageError(f"{path} is not trusted: {trust.refusal}", trust.mend)
    try:
        config = read_config(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise UsageError(f"{path}:{line}:{column}: not UTF-8 text", "save the file as UTF-8") from None
    except Malformed as error:
        raise UsageError(f"{path}:{error.line}:{error.column}: {error.problem}", "mend the file, then: ops-monitor.py validate-config") from None
    warnings = [trust.refusal or trust.warning] if trust.refusal or trust.warning else []
    return config, warnings


def open_site(files: Files, config: Config, args: Any) -> Site:
    """The installation that the command works on."""
    refuse_foreign_root(files.state_file)
    clock = Clock(config.monitor.timezone or "")
    store = Store(files.state_file, clock)
    site = Site(config, files.config_file, store, dict(os.environ), files.home, files.dirs)
    site.target = getattr(args, "target", "") or ""
    site.call = call_by_hand(args)
    store.on_lost = lambda state, aside: tell_lost_state(site, state, aside)
    return site


def call_by_hand(args: Any) -> tuple:
    """How a person calls this program, with the files that this call named: before and after the command."""
    named = (("--config-file", args.config_file), ("--state-file", args.state_file))
    return f"python3 {shell_word(os.path.abspath(__file__))}", "".join(f" {flag} {shell_word(path)}" for flag, path in named if path)


def tell_lost_state(site: Site, state: State, aside: str) -> None:
    words = Phrase("state.lost", {"path": site.store.path, "aside": aside})
    notify(site, state, "", Notify("state", "told", ALERT, words))
    state.record("state lost", aside=aside)


def find_job(site: Site, job_id: str, kind: str = "") -> Any:
    """The job with this id.  Raises UsageError that names the nearest one."""
    job = site.config.jobs.get(job_id)
    if job is not None:
        return job
    if job_id in site.config.broken:
        raise UsageError(f"job '{job_id}' has an error: {site.config.broken[job_id]}", site.advise("validate-config"))
    near = nearest(job_id, site.config.jobs)
    raise UsageError(f"no job '{job_id}'" + (f"; did you mean '{near}'?" if near else ""), site.advise("status"))


# ---- validate-config, schema


@command(
    "validate-config",
    option("--strict", action="store_true", help="warnings count as errors"),
    TRUST,
    example="validate-config --config-file ./ops-jobs.json",
    wants_site=False,
)
def validate_config(files: Files, args: Any) -> int:
    """Check the config: every problem at once, with its place."""
    config, warnings = load_config(files.config_file, files.home, args.trust_permissions)
    missing = missing_things(files, config)
    whole = config._replace(problems=config.problems + tuple(missing))
    for line in problem_lines(whole, files.config_file, args.strict):
        print(line, file=sys.stderr)
    clock = Clock(config.monitor.timezone or "")
    for warning in [*warnings, clock.problem]:
        if warning:
            print(f"{files.config_file}: warning: {warning}", file=sys.stderr)
    if config.errors or args.strict and (whole.problems or warnings or clock.problem):
        return USAGE
    print(f"OK: version=1 jobs={len(config.jobs)}")
    return DONE


def missing_things(files: Files, config: Config) -> Iterator[Problem]:
    """Warnings for commands and directories that do not exist."""
    store = Store(files.state_file, Clock())
    site = Site(config, files.config_file, store, dict(os.environ), files.home, files.dirs)
    seen: dict = {}
    for job in config.jobs.values():
        path = ("jobs", job.index)
        cwd = site.directory(job)
        if cwd not in seen:
            seen[cwd] = os.path.isdir(cwd)
        if not seen[cwd]:
            yield Problem((*path, "cwd"), f"no directory {cwd}", is_error=False)
            continue
        search = job.env.get("PATH") or ""
        for name, argv in zip(job.commands._fields, job.commands):
            if not argv:
                continue
            known = (argv[0], cwd if "/" in argv[0] and argv[0][0] != "/" else "", search)
            if known not in seen:
                seen[known] = is_runnable(argv[0], site.environment(job)["PATH"], cwd)
            if not seen[known]:
                yield Problem((*path, "commands", name), f"no program '{argv[0]}'", is_error=False)


def is_runnable(program: str, path: str, cwd: str) -> bool:
    try:
        return os.access(find_executable(program, path, cwd), os.X_OK)
    except OSError:
        return False


@command("schema", example="schema > ops-jobs.schema.json", wants_site=False)
def schema(files: Files, args: Any) -> int:
    """Print the JSON Schema of the config."""
    print(json.dumps(config_schema(), indent=2, ensure_ascii=False))
    return DONE


# ---- tick


@command(
    "tick",
    option("--print-only", action="store_true", help="print the report instead of sending it"),
    option("--dry-run", action="store_true", help="look, print what would be done and why; write and send nothing"),
    TARGET,
    TRUST,
    example="tick --dry-run",
    wants_site=False,
)
def tick(files: Files, args: Any) -> int:
    """Look at every job once, decide, act, tell.  The scheduler calls this."""
    try:
        config, warnings = load_config(files.config_file, files.home, args.trust_permissions)
    except UsageError as error:
        return tick_without_config(files, args, error)
    site = open_site(files, config, args)
    if args.dry_run:
        return dry_tick(site)
    if args.print_only:
        site.printed = []
    loud = sys.stderr.isatty()
    driver = Driver(site)
    plan_tick(site, driver)
    lines = driver.finish(keep_house(site, loud, warnings))
    for line in lines:
        print(line, file=sys.stderr)
    while driver.alive:
        driver.run(ROUND)
        if driver.alive and site.printed is None:
            driver.finish(deliver(site))
    return finish_tick(site, driver, loud)


def finish_tick(site: Site, driver: Driver, loud: bool) -> int:
    """Deliver, say what could not be delivered, and give the exit code."""
    code = USAGE if site.config.errors else DONE
    if site.printed is not None:
        print_sections(site)
        return code
    delivered = driver.finish(deliver(site))
    if delivered.left or site.store.view().own_memory().incidents.get("delivery"):
        lines = driver.finish(say_undelivered(site, delivered, loud))
        for line in lines:
            print(line, file=sys.stderr)
    return code or (UNDELIVERED if delivered.left else DONE)


def print_sections(site: Site) -> None:
    now = site.clock.now().at
    header = header_text(site.clock.time_text(now), site.config.monitor.host)
    for message in compose(site.lang, site.printed or [], now, header, site.clock.text):
        print(message.text + "\n")


def plan_tick(site: Site, driver: Driver) -> None:
    """The flows of a tick: a look at each long job, each due check, each queued read."""
    state = site.store.view()
    now = site.clock.now()
    jobs = site.config.jobs
    taken = set()
    for entry in state.queue:
        job_id = str(entry.get("jobId"))
        if entry.get("status") != "pending" or entry["notBefore"] > now.at or job_id in site.config.broken:
            continue
        job = jobs.get(job_id)
        if job is None or job.kind != CHECK or job.risk != READ_ONLY:
            driver.add(refuse(site, entry))
        elif job.id not in taken:
            taken.add(job.id)
            driver.add(run_check(site, job, ensure_id(entry)))
    for job in jobs.values():
        if job.kind == LONG_READ and job.enabled:
            driver.add(watch_job(site, job))
        elif job.kind == CHECK and job.id not in taken:
            memory = state.memory(job.id) if job.id in state.jobs or job.policy.every_seconds else Memory()
            if memory.action == "run" or due_reason(job, memory, now).key in ("due.first", "due.now"):
                driver.add(run_check(site, job))
        elif job.kind == WRITE and job.id in state.raw["gates"]:
            driver.add(watch_write(site, job))


def ensure_id(entry: dict) -> str:
    return entry["id"] if isinstance(entry.get("id"), str) and entry["id"] else ""


def refuse(site: Site, entry: dict) -> Flow:
    yield Change(lambda state: refuse_entry(site, state, entry))


def keep_house(site: Site, loud: bool, warnings: list) -> Flow:
    """The monitor's own part of a tick: its troubles, its memory of jobs, its queue.  Lines to print."""
    lines = yield Change(lambda state: tidy_house(site, state, loud))
    if loud:
        lines = [f"warning: {warning}" for warning in [*warnings, site.clock.problem] if warning] + lines
    return lines


def tidy_house(site: Site, state: State, loud: bool) -> list:
    now = site.clock.now()
    own = state.own_memory()
    lines = problem_lines(site.config, site.config_file) if site.config.errors else []
    first = [line for line in lines if ": error: " in line]
    words = Phrase("config.errors", {"count": len(first), "lines": "\n".join(first[:5]), "jobs": ", ".join(site.config.broken) or "-"})
    finding = Finding("config", ALERT, words) if first else None
    decision = judge_own({"config": finding, "config_file": None}, own, now)
    state.remember_own(decision.memory)
    for effect in decision.effects:
        notify(site, state, "", effect)
    others = serve_config(site, state)
    if not others:
        forget_jobs(site, state)
        tell_orphans(site, state)
    keep_queue(state)
    trim_outbox(state)
    return [*others, *lines] if loud or decision.effects else []


def serve_config(site: Site, state: State) -> list:
    """Remember which config this state serves; a warning if it is another one."""
    serves = state.raw.get("configFile")
    if isinstance(serves, str) and serves != site.config_file and os.path.exists(serves):
        return [f"warning: {site.store.path} serves {serves}, not {site.config_file}; use another --state-file"]
    state.raw["configFile"] = site.config_file
    return []


def is_orphan(site: Site, job_id: str) -> bool:
    """Whether a managed job runs although the config no longer has it."""
    if job_id in site.config.jobs or job_id in site.config.broken or not os.path.isdir(site.store.job_dir(job_id)):
        return False
    return managed_look(site.store.job_dir(job_id), site.clock.now(), site.redact, "").state == RUNNING


def forget_jobs(site: Site, state: State) -> None:
    """Memory of jobs that left the config goes after 30 days."""
    for job_id in list(state.jobs):
        is_here = job_id in site.config.jobs or job_id in site.config.broken
        if is_here and not (isinstance(state.jobs[job_id], dict) and "leftAt" in state.jobs[job_id]):
            continue
        memory = state.memory(job_id)
        if is_here:
            state.remember(job_id, memory._replace(left_at=0.0))
        elif not memory.left_at:
            state.remember(job_id, memory._replace(left_at=state.now))
        elif state.now - memory.left_at > FORGET_AFTER and not is_orphan(site, job_id):
            del state.jobs[job_id]
            state.raw["gates"].pop(job_id, None)


def tell_orphans(site: Site, state: State) -> None:
    """Say once that a job which left the config still runs."""
    policy = make_policy({"alertRepeatSeconds": 0})
    for job_id in [job_id for job_id in state.jobs if job_id not in site.config.jobs]:
        memory = state.memory(job_id)
        words = Phrase("orphan", {"command": f"ops-monitor.py stop {shell_word(job_id)}"})
        finding = Finding("orphan", WARN, words) if is_orphan(site, job_id) else None
        if finding or "orphan" in memory.incidents:
            perform(site, state, job_id, judge_incidents(policy, {"orphan": finding}, memory, site.clock.now()))


def keep_queue(state: State) -> None:
    """Finished entries go after a day; entries without an id get one."""
    state.raw["queue"] = [
        entry
        for entry in state.queue
        if entry.get("status") in ("pending", "running") or state.now - epoch_seconds(entry.get("doneAt") or entry["createdAt"]) < DONE_KEPT
    ]
    for entry in state.queue:
        if not ensure_id(entry):
            entry["id"] = new_id()


def say_undelivered(site: Site, delivered: Delivered, loud: bool) -> Flow:
    """Lines to print about undelivered messages: at a terminal always, else on the reminder schedule."""
    lines = yield Change(lambda state: judge_delivery(site, state, delivered, loud), urgent=True)
    return lines


def judge_delivery(site: Site, state: State, delivered: Delivered, loud: bool) -> list:
    finding = Finding("delivery", ALERT, Phrase("undelivered", {"problem": delivered.problem})) if delivered.left else None
    decision = judge_own({"delivery": finding}, state.own_memory(), site.clock.now())
    state.remember_own(decision.memory)
    if finding is None or not (loud or decision.effects):
        return []
    return [f"error: undelivered messages: {delivered.left}: {delivered.problem}", f"help: {delivered.advice}"]


def tick_without_config(files: Files, args: Any, error: UsageError) -> int:
    """Nothing in the config can be used: tell it by the receiver that worked last, once two ticks agree."""
    refuse_foreign_root(files.state_file)
    loud = sys.stderr.isatty() or args.dry_run or args.print_only
    store = Store(files.state_file, Clock())
    last = store.view().raw["receiver"]
    delivery = {key: last[key] for key in ("channel", "target", "threadId", "account") if isinstance(last.get(key), str) and last[key]}
    if last.get("via") in ("auto", "openclaw", "api") or last.get("via") == "command" and is_argv(last.get("command")):
        delivery.update({key: last[key] for key in ("via", "command") if key in last})
    monitor = {"language": "zh" if last.get("language") == "zh" else "en", "host": str(last.get("host") or "")}
    config = Config({}, {}, filled(Monitor, "monitor", monitor), filled(Delivery, "delivery", delivery), ())
    site = open_site(files, config, args)
    told = True
    if not (args.dry_run or args.print_only):
        driver = Driver(site)
        told = driver.finish(tell_config(site, str(error)))
        driver.finish(deliver(site))
    if loud or told:
        print(f"error: {error}" + (f"\nhelp: {error.advice}" if error.advice else ""), file=sys.stderr)
    return USAGE


def tell_config(site: Site, problem: str) -> Flow:
    def apply(state: State) -> bool:
        finding = Finding("config_file", ALERT, Phrase("config.unusable", {"problem": problem}))
        decision = judge_own({"config_file": finding}, state.own_memory(), site.clock.now(), alertAfter=2)
        state.remember_own(decision.memory)
        for effect in decision.effects:
            notify(site, state, "", effect)
        return bool(decision.effects)

    told_now = yield Change(apply, urgent=True)
    return told_now


def dry_tick(site: Site) -> int:
    """Run the status commands, print every decision and its reason, change nothing."""
    driver = Driver(site)
    state = site.store.view()
    looks = {job.id: driver.add(look_at(site, job)) for job in site.config.jobs.values() if job.kind == LONG_READ and job.enabled}
    driver.run()
    now = site.clock.now()
    for job in site.config.jobs.values():
        if job.id in looks:
            decision = decide_now(site, state, job, driver.results[looks[job.id]])
            print(f"{job.id}: {site.say('word.' + driver.results[looks[job.id]].state)}")
            for line in decision_lines(site, job, decision):
                print("  " + line)
        elif job.kind == CHECK:
            reason = due_reason(job, state.memory(job.id), now)
            print(f"{job.id}: {reason_text(site, reason)}")
    for entry in state.queue:
        if entry.get("status") == "pending":
            print(site.say("dry.queued", job=str(entry.get("jobId")), time=site.clock.text(entry["notBefore"])))
    return USAGE if site.config.errors else DONE


def decision_lines(site: Site, job: Any, decision: Decision) -> list:
    """What would be done, then why, one line each."""
    lines = []
    for effect in decision.effects:
        if isinstance(effect, Notify):
            lines.append(site.say("would.tell", what=headline(site.lang, job.name, job.id, effect)))
        elif isinstance(effect, Resume):
            lines.append(site.say("would.restart" if effect.restart else "would.resume"))
        else:
            lines.append(site.say("would.queue", job=effect.job_id))
    return lines + [f"{site.say('topic.' + topic)}: {reason_text(site, reason)}" for topic, reason in decision.reasons.items()]


def reason_text(site: Site, reason: Reason) -> str:
    text = site.say(reason.key, **reason.facts)
    return text + (" " + site.say("again", time=site.clock.text(reason.again_at)) if reason.again_at else "")


# ---- start, stop, run, enqueue


def long_job(site: Site, job_id: str) -> Any:
    job = find_job(site, job_id)
    if job.kind != LONG_READ:
        raise UsageError(f"job '{job_id}' is a {job.kind}, not a {LONG_READ}", site.advise("run", job_id))
    return job


@command(
    "start",
    JOB,
    ALLOW_RISK,
    option("--fresh", action="store_true", help="managed: begin anew; the old checkpoint is kept aside"),
    option("--resume", action="store_true", help="managed: continue although the command has changed"),
    option("--despite-unknown", action="store_true", help="start although the status cannot be told"),
    TIMEOUT,
    TRUST,
    example="start nightly-index",
)
def start(site: Site, args: Any) -> int:
    """Start a long job, and end a person's stop."""
    job = long_job(site, args.job)
    if job.risk != READ_ONLY and not args.allow_risk:
        raise BlockedError(f"BLOCKED: job '{job.id}' has risk {job.risk}", site.advise("start", job.id, "--allow-risk"))
    if args.timeout_seconds is not None:
        job = job._replace(policy=job.policy._replace(start_timeout_seconds=args.timeout_seconds))
    return Driver(site).finish(start_by_hand(site, job, args))


def start_by_hand(site: Site, job: Any, args: Any) -> Flow:
    lock = site.store.lock(slug(job.id), 10.0)
    if lock is None:
        raise BusyError(f"job '{job.id}' is being started, stopped or run by another process", site.advise("status", job.id))
    try:
        look = yield from look_at(site, job)
        if look.state == RUNNING:
            yield Change(lambda state: state.remember(job.id, wanted_again(state.memory(job.id))), urgent=True)
            print(site.say("start.already", job=job.id))
            return DONE
        refuse_start(site, job, look, args)
        marker = new_id()
        log = os.path.join(prepare_job_dir(site, job), "start.log")
        printed = file_size(log)
        yield Change(lambda state: begin_start(site, state, job, marker), urgent=True)
        outcome = yield from start_or_say(site, job, marker, is_fresh=args.fresh or look.state in (COMPLETED, IDLE))
        yield Change(lambda state: end_start(state, job, outcome), urgent=True)
    finally:
        os.close(lock)
    phrase = outcome_phrase(outcome)
    show_output(site, outcome)
    if not job.managed:
        show_file(site, log, printed, sys.stderr if phrase else sys.stdout)
    if phrase is None:
        print(site.say("start.done", job=job.id))
        print(site.say("help.next", command=site.advise("status", job.id)))
        return DONE
    raise OpsError(site.say("start.failed", why=phrase_text(site.lang, phrase)), site.advise("explain", job.id))


def refuse_start(site: Site, job: Any, look: Observation, args: Any) -> None:
    """What stands in the way of a start by hand."""
    if look.state == UNKNOWN and not args.despite_unknown:
        words = phrase_text(site.lang, look.problem or Phrase("status.json"))
        raise BlockedError("BLOCKED: " + site.say("start.unknown", job=job.id, why=words), site.advise("start", job.id, "--despite-unknown"))
    if job.managed and is_lock_held(site.store.job_dir(job.id)):
        raise BusyError(site.say("start.left", job=job.id), site.advise("stop", job.id))
    if look.state == STOPPED and not look.resumable and not (args.resume or args.fresh):
        raise BlockedError("BLOCKED: " + site.say("start.changed", job=job.id), site.advise("start", job.id, "--resume") + ", or --fresh to begin anew")


def wanted_again(memory: Memory) -> Memory:
    """A person wants the job to run: what held it is over."""
    return memory._replace(held_at=0.0, gave_up_at=0.0, attempts=0, attempt_at=0.0, attempt_key="")


def begin_start(site: Site, state: State, job: Any, marker: str) -> None:
    memory = state.memory(job.id)
    now = site.clock.now()
    if is_acting(memory, now):
        left = duration_text(memory.action_at + memory.action_for - now.at)
        raise BusyError(f"a start of '{job.id}' began and has no result yet; it blocks another for {left}", site.advise("status", job.id))
    memory = wanted_again(memory)._replace(stalled_for=0.0)
    state.remember(
        job.id,
        memory._replace(action="start", action_at=now.at, action_for=job.policy.start_timeout_seconds + 10.0, action_id=marker),
    )
    state.record("start", job.id, by="hand")


def end_start(state: State, job: Any, outcome: Outcome) -> None:
    phrase = outcome_phrase(outcome)
    memory = end_action(state.memory(job.id))
    if phrase is None and not job.managed:  # a managed run has an identity: its completion cannot be taken for the last one's
        memory = memory._replace(completed_fired=False, completed_told=False)
    state.remember(job.id, memory)
    state.record("started" if phrase is None else "start failed", job.id, code=outcome.code)


@command("stop", JOB, TIMEOUT, TRUST, example="stop nightly-index")
def stop(site: Site, args: Any) -> int:
    """Stop a long job and keep it stopped: nothing resumes it until `start`."""
    if args.job not in site.config.jobs and os.path.exists(os.path.join(site.store.job_dir(args.job), "run.json")):
        return Driver(site).finish(stop_orphan(site, args.job, args.timeout_seconds or 60.0))
    job = long_job(site, args.job)
    if args.timeout_seconds is not None:
        job = job._replace(policy=job.policy._replace(stop_timeout_seconds=args.timeout_seconds))
    return Driver(site).finish(stop_by_hand(site, job))


def stop_orphan(site: Site, job_id: str, patience: float) -> Flow:
    """Stop a managed job that is no longer in the config."""
    ended = yield from end_managed(site, job_id, patience)
    yield Change(lambda state: state.record("stop", job_id, by="hand", orphan=True), urgent=True)
    print(site.say("stop.done" if ended else "stop.not_running", job=job_id))
    return DONE if ended else JOB_FAILED


def hold_job(state: State, job: Any) -> None:
    state.remember(job.id, state.memory(job.id)._replace(held_at=state.now))
    state.record("stop", job.id, by="hand")


def stop_by_hand(site: Site, job: Any) -> Flow:
    yield Change(lambda state: hold_job(state, job), urgent=True)
    lock = site.store.lock(slug(job.id), 10.0)
    if lock is None:
        raise BusyError(f"job '{job.id}' is being started, stopped or run by another process; it will not be resumed", site.advise("stop", job.id))
    try:
        if job.managed:
            ended = yield from end_managed(site, job.id, job.policy.stop_timeout_seconds)
        elif job.commands.stop:
            outcome = yield job_command(site, job, job.commands.stop, job.policy.stop_timeout_seconds, marker=new_id())
            show_output(site, outcome)
            phrase = outcome_phrase(outcome)
            if phrase:
                raise OpsError(site.say("stop.command_failed", job=job.id, why=phrase_text(site.lang, phrase)), site.advise("status", job.id))
            ended = True
        else:
            ended = yield from stop_by_pid(site, job)
    finally:
        os.close(lock)
    print(site.say("stop.done" if ended else "stop.not_running", job=job.id))
    return DONE if ended else JOB_FAILED


def stop_by_pid(site: Site, job: Any) -> Flow:
    """TERM to the pid that the status names, and wait until it is gone; False if there is none."""
    look = yield from look_at(site, job)
    began = process_start(look.pid) if look.state == RUNNING and look.pid not in (0, os.getpid(), os.getppid()) else ""
    if not began:
        return False
    end_one(look.pid, signal.SIGTERM)
    until = time.monotonic() + job.policy.stop_timeout_seconds
    while process_start(look.pid) == began and not is_zombie(look.pid):
        if time.monotonic() >= until:
            raise OpsError(site.say("stop.still_alive", job=job.id, pid=look.pid), site.advise("status", job.id))
        yield Pause(0.05)
    return True


@command(
    "run",
    JOB,
    option("--dry-run", action="store_true", help="print what would be run; run nothing"),
    option("--verify", action="store_true", help="writes: run the verification too, exit by its result"),
    ALLOW_RISK,
    TIMEOUT,
    TARGET,
    TRUST,
    example="run disk-space",
)
def run(site: Site, args: Any) -> int:
    """Run a one-shot job now, print its output, tell what needs attention.  A write needs an approval."""
    job = find_job(site, args.job)
    if job.kind == LONG_READ:
        raise UsageError(f"job '{job.id}' is a {LONG_READ}", site.advise("start", job.id))
    if args.timeout_seconds is not None:
        job = job._replace(policy=job.policy._replace(run_timeout_seconds=args.timeout_seconds))
    if args.dry_run:
        print(site.say("run.would", argv=site.redact(" ".join(map(shell_word, job.commands.run))), cwd=site.directory(job)))
        return DONE
    driver = Driver(site)
    if job.kind == WRITE:
        return driver.finish(run_write(site, job, args.verify))
    return driver.finish(run_by_hand(site, driver, job))


def run_by_hand(site: Site, driver: Driver, job: Any) -> Flow:
    lock = site.store.lock(slug(job.id), 1.0)
    if lock is None:
        raise BusyError(f"job '{job.id}' is being run by another process", site.advise("status", job.id))
    try:
        outcome = yield run_command(site, job, new_id())
        show_output(site, outcome)
        yield Change(lambda state: settle_run(site, state, job, outcome, by="hand"), urgent=True)
    finally:
        os.close(lock)
    delivered = yield from deliver(site)
    warn_undelivered(delivered)
    phrase = outcome_phrase(outcome)
    if phrase:
        print("error: " + phrase_text(site.lang, phrase), file=sys.stderr)
    return JOB_FAILED if phrase else DONE


def write_job(site: Site, job_id: str) -> Any:
    job = find_job(site, job_id)
    if job.kind != WRITE:
        raise UsageError(f"job '{job_id}' is a {job.kind}; only a {WRITE} is approved", site.advise("status"))
    return job


@command(
    "approve",
    JOB,
    option("--show", action="store_true", help="print the plan and its digest; approve nothing"),
    option("--digest", default="", metavar="HEX", help="approve exactly the plan with this digest, without a terminal"),
    option("--request", action="store_true", help="approval.via telegram: send a one-time code to the person"),
    option("--code", default="", metavar="CODE", help="the one-time code that the person gave"),
    option("--despite-failed-verification", action="store_true", help="approve although the last run is not verified"),
    example="approve prune-backups",
)
def approve(site: Site, args: Any) -> int:
    """Show exactly what a write will do, and approve one run of it."""
    job = write_job(site, args.job)
    plan = make_plan(site, job)
    for line in [*plan_lines(site, job, plan), *gate_notes(site, job)]:
        print(line)
    if args.show:
        print(f"digest: {plan.digest}")
        return DONE
    try:
        return Driver(site).finish(approve_plan(site, job, plan, args))
    except BlockedError as error:
        why = one_line(str(error))
        site.store.change(lambda state: state.record("approval refused", job.id, why=why, who=who(), digest=plan.digest))
        raise


def gate_notes(site: Site, job: Any) -> list:
    """What the next approver should know of the last run."""
    gate = site.store.view().gate(job.id)
    notes = {"failed": "note.failed", "unknown": "write.unknown", "begun": "gate.running"}
    lines = [site.say(notes[gate.run], code=gate.run_code)] if gate.run in notes else []
    if gate.verify in ("pending", "failed"):
        lines.append(site.say(gate_reason(gate, "", "", [], site.clock.now().at).key, jobs=", ".join(map(str, gate.verify_left))))
    return ["", *lines] if lines else []


def approve_plan(site: Site, job: Any, plan: Plan, args: Any) -> Flow:
    gate = site.store.view().gate(job.id)
    if plan.problem:
        raise BlockedError("BLOCKED: " + site.say("gate.unreadable", what=plan.problem))
    if site.config_risk:
        raise BlockedError("BLOCKED: " + site.say("gate.config_writable", why=site.config_risk))
    if gate.verify in ("pending", "failed") and not args.despite_failed_verification:
        reason = gate_reason(gate, "", "", [], site.clock.now().at)
        raise BlockedError("BLOCKED: " + site.say(reason.key, **reason.facts), site.advise("approve", job.id, "--despite-failed-verification"))
    by_code = job.approval is not None and job.approval.via == "telegram"
    if args.request:
        if not by_code:
            raise UsageError("approval.via of this job is not telegram", site.advise("approve", job.id))
        yield from request_code(site, job, plan)
        print(site.say("code.sent", job=job.id))
        return DONE
    if by_code and not args.code:
        raise BlockedError("BLOCKED: " + site.say("code.needed", job=job.id), site.advise("approve", job.id, "--request"))
    confirm_plan(site, job, plan, args)
    if by_code:
        refused = yield from check_code(site, job, plan, args.code, args.despite_failed_verification)
        if refused:
            raise BlockedError("BLOCKED: " + site.say(refused), site.advise("approve", job.id, "--request"))
    else:
        yield Change(lambda state: grant(site, state, job, plan, args.despite_failed_verification, tell=bool(args.digest)), urgent=True)
    delivered = yield from deliver(site)
    warn_undelivered(delivered)
    print(site.say("approved", job=job.id, time=duration_text(job.approval.ttl_seconds if job.approval else 3600)))
    print(site.say("help.next", command=site.advise("run", job.id, "--verify")))
    return DONE


def confirm_plan(site: Site, job: Any, plan: Plan, args: Any) -> None:
    """The person's word: the digest, or the job id typed at a terminal."""
    if args.digest:
        if args.digest != plan.digest:
            raise BlockedError("BLOCKED: " + site.say("approve.other_digest"), site.advise("approve", job.id, "--show"))
        return
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise BlockedError("BLOCKED: " + site.say("approve.no_terminal"), site.advise("approve", job.id, "--show"))
    print("\n" + site.say("approve.ask"), end="", flush=True)
    if sys.stdin.readline().strip() != job.id:
        raise BlockedError("BLOCKED: " + site.say("approve.not_typed"), site.advise("approve", job.id))


@command("revoke", JOB, example="revoke prune-backups")
def revoke(site: Site, args: Any) -> int:
    """End the approval of a write."""
    job = write_job(site, args.job)

    def apply(state: State) -> bool:
        gate = state.gate(job.id)
        state.keep_gate(job.id, without_code(without_approval(gate)))
        state.record("revoked", job.id, digest=gate.digest, who=who())
        return bool(gate.digest)

    had = site.store.change(apply)[0]
    print(site.say("revoked" if had else "revoke.none", job=job.id))
    return DONE


@command(
    "enqueue",
    JOB,
    option("--delay", type=seconds_argument, default=0.0, metavar="S", help="not before this long from now: 90, 15m, 2h"),
    TRUST,
    example="enqueue disk-space --delay 15m",
)
def enqueue_job(site: Site, args: Any) -> int:
    """Queue a one-shot read; the next tick after the delay runs it."""
    job = find_job(site, args.job)
    if job.kind != CHECK or job.risk != READ_ONLY:
        raise BlockedError(f"BLOCKED: job '{job.id}' is a {job.kind}; only a one_shot_read is run from the queue", site.advise("start" if job.kind == LONG_READ else "run", job.id))
    entry = site.store.change(lambda state: enqueue(state, job.id, args.delay, "enqueue"))[0]
    print(site.say("queued", job=job.id, id=entry["id"], time=site.clock.text(entry["notBefore"])))
    return DONE


# ---- ack, mute, unmute


def change_memory(site: Site, job_id: str, event: str, change: Callable[[Memory, float], Memory]) -> Memory:
    """Apply a person's word to a job's memory; the new memory."""

    def apply(state: State) -> Memory:
        memory = change(state.memory(job_id), state.now)
        state.remember(job_id, memory)
        state.record(event, job_id, who=who())
        return memory

    return site.store.change(apply)[0]


@command("ack", JOB, TRUST, example="ack nightly-index")
def ack(site: Site, args: Any) -> int:
    """End the reminders of a job's open incidents until they change."""
    job = find_job(site, args.job)

    def acknowledge(memory: Memory, now: float) -> Memory:
        return memory._replace(incidents={kind: incident._replace(acked_at=now) for kind, incident in memory.incidents.items()})

    kinds = [site.say("topic." + kind) for kind, _ in open_incidents(change_memory(site, job.id, "ack", acknowledge))]
    print(site.say("acked" if kinds else "ack.none", job=job.id, kinds=", ".join(kinds)))
    return DONE


@command(
    "mute",
    JOB,
    option("--for", dest="duration", type=seconds_argument, default=HOUR, metavar="S", help="how long: 90, 15m, 2h; default: 1h"),
    TRUST,
    example="mute nightly-index --for 2h",
)
def mute(site: Site, args: Any) -> int:
    """Hold all messages of a job for a while; they are counted and summed up at the end."""
    job = find_job(site, args.job)
    memory = change_memory(site, job.id, "mute", lambda memory, now: memory._replace(muted_at=now, muted_for=args.duration))
    print(site.say("mute.done", job=job.id, time=site.clock.text(memory.muted_at + memory.muted_for)))
    return DONE


@command("unmute", JOB, TRUST, example="unmute nightly-index")
def unmute(site: Site, args: Any) -> int:
    """End a mute now; the next look sums up what was held."""
    job = find_job(site, args.job)
    change_memory(site, job.id, "unmute", lambda memory, now: memory._replace(muted_for=min(memory.muted_for, 0.001), muted_at=min(memory.muted_at, now - 1.0)))
    print(site.say("mute.ended", job=job.id))
    return DONE


# ---- status, explain, logs


class Row(NamedTuple):
    """What `status` and `explain` know of one job."""

    job: Any
    memory: Memory
    look: Optional[Observation]
    decision: Optional[Decision]
    gate: Gate


def look_around(site: Site, jobs: list) -> list:
    """A Row for each job: long ones are looked at, nothing is written."""
    driver = Driver(site)
    state = site.store.view()
    looks = {job.id: driver.add(look_at(site, job)) for job in jobs if job.kind == LONG_READ}
    driver.run()
    rows = []
    for job in jobs:
        look = driver.results[looks[job.id]] if job.id in looks else None
        decision = decide_now(site, state, job, look) if look else None
        rows.append(Row(job, state.memory(job.id), look, decision, state.gate(job.id)))
    return rows


def gate_word(gate: Gate, now: float) -> str:
    """The word of a write's gate where it says more than its last exit code; '' else."""
    if gate.run in ("begun", "unknown"):
        return {"begun": "running", "unknown": "outcome_unknown"}[gate.run]
    if gate.verify in ("pending", "failed"):
        return "overdue" if is_overdue(gate, now) else {"pending": "unverified", "failed": "verify_failed"}[gate.verify]
    return "approved" if gate.digest and now < gate.approved_at + gate.approved_for else ""


def state_word(site: Site, row: Row) -> str:
    """The state of a job in one or two words."""
    memory, look = row.memory, row.look
    if row.job.kind == WRITE and gate_word(row.gate, site.clock.now().at):
        return site.say("word." + gate_word(row.gate, site.clock.now().at))
    if look is None:
        if memory.action == "run":
            return site.say("word.running")
        return site.say("word.never_ran") if not memory.ran_at else site.say("word.good") if memory.ran_code == 0 else site.say("word.failed")
    if memory.held_at and look.state in (STOPPED, IDLE):
        return site.say("word.held")
    if look.state == RUNNING and look.waiting:
        return site.say("word.waiting")
    return site.say("word." + look.state)


def next_action(site: Site, row: Row) -> tuple:
    """(words, epoch seconds or 0.0) of what happens next by itself."""
    job, memory = row.job, row.memory
    if not job.enabled and job.kind != WRITE:
        return site.say("next.disabled"), 0.0
    if job.kind == CHECK:
        due_at = next_slot(job, memory)
        return (site.say("next.run"), due_at) if job.policy.every_seconds else (site.say("next.by_hand"), 0.0)
    if job.kind == WRITE:
        return site.say("next.by_hand"), 0.0
    reason = row.decision.reasons.get("resume") if row.decision else None
    if reason and reason.key in ("resume.now", "resume.backoff"):
        return site.say("next.resume"), reason.again_at
    if reason and row.look and row.look.state == STOPPED and reason.key in ("resume.held", "resume.gave_up", "resume.changed"):
        return site.say("next." + reason.key.split(".")[1]), 0.0
    return site.say("next.look"), 0.0


def job_json(site: Site, row: Row) -> dict:
    """One job as `status --json` gives it; keys are stable, more may come."""
    job, memory, look = row.job, row.memory, row.look
    words, at = next_action(site, row)
    state = look.state if look else "held" if memory.held_at else "running" if memory.action == "run" else "idle"
    shown = {
        "id": job.id,
        "name": job.name,
        "kind": job.kind,
        "risk": job.risk,
        "enabled": job.enabled,
        "managed": job.managed,
        "state": state,
        "running": state == RUNNING,
        "completed": state == COMPLETED,
        "held": bool(memory.held_at),
        "attempts": memory.attempts,
        "gaveUp": bool(memory.gave_up_at),
        "lastLookAt": memory.looked_at or None,
        "lastReportAt": memory.reported_at or None,
        "lastRunAt": memory.ran_at or None,
        "lastExitCode": memory.ran_code if memory.ran_at else None,
        "stalledForSeconds": round(memory.stalled_for, 3),
        "incidents": [incident_json(site, kind, incident) for kind, incident in open_incidents(memory)],
        "next": {"action": words, "at": at or None},
    }
    if job.kind == WRITE:
        gate = row.gate
        approved = bool(gate.digest) and site.clock.now().at < gate.approved_at + gate.approved_for
        shown["gate"] = {
            "approved": approved,
            "digest": gate.digest if approved else None,
            "approvedUntil": gate.approved_at + gate.approved_for if approved else None,
            "run": gate.run or None,
            "verification": gate.verify or None,
            "overdue": is_overdue(gate, site.clock.now().at),
        }
    if look:
        problem = phrase_text(site.lang, look.problem) if look.problem else None
        shown.update(
            pid=look.pid or None,
            progress=look.progress,
            progressKey=look.key or None,
            level=look.level,
            waiting=look.waiting,
            message=look.message or None,
            stopReason=look.stop_reason or None,
            problem=problem,
        )
    return shown


def incident_json(site: Site, kind: str, incident: Incident) -> dict:
    return {
        "kind": kind,
        "level": {WARN: "warn", ALERT: "alert"}.get(incident.rank, "notice"),
        "sinceAt": incident.since_at,
        "toldAt": incident.told_at or None,
        "text": one_line(say(site.lang, incident.key, **incident.facts), 300),
    }


@command("status", SOME_JOB, AS_JSON, TRUST, example="status --json")
def status(site: Site, args: Any) -> int:
    """Look at the jobs and show them.  Sends nothing, writes nothing."""
    jobs = [find_job(site, args.job)] if args.job else list(site.config.jobs.values())
    rows = look_around(site, jobs)
    state = site.store.view()
    if args.json:
        print(json.dumps(status_json(site, state, rows), ensure_ascii=False, indent=2))
        return DONE
    for line in status_lines(site, state, rows):
        print(line)
    return DONE


def status_json(site: Site, state: State, rows: list) -> dict:
    return {
        "version": 1,
        "at": round(state.now, 3),
        "configFile": site.config_file,
        "stateFile": site.store.path,
        "lastTickAt": state.own_memory().looked_at or None,
        "jobs": [job_json(site, row) for row in rows],
        "broken": [{"id": job_id, "problem": problem} for job_id, problem in site.config.broken.items()],
        "orphans": [job_id for job_id in state.jobs if is_orphan(site, job_id)],
        "queue": [
            {key: entry.get(key) for key in ("id", "jobId", "notBefore", "status", "attempt")} for entry in state.queue if entry.get("status") in ("pending", "running")
        ],
        "outbox": {"waiting": len(state.outbox), "error": next((entry["error"] for entry in state.outbox if entry.get("error")), None)},
    }


def status_lines(site: Site, state: State, rows: list) -> list:
    """The table, then what else a person should know."""
    head = [site.say("column." + name) for name in ("job", "state", "progress", "report", "next", "trouble")]
    cells = [head] + [status_cells(site, row) for row in rows]
    lines = colored(table(cells, terminal_width()), rows)
    lines += [site.say("status.broken", job=job_id, problem=problem) for job_id, problem in site.config.broken.items()]
    lines += [site.say("status.orphan", job=job_id, command=site.advise("stop", job_id)) for job_id in [job_id for job_id in state.jobs if is_orphan(site, job_id)]]
    waiting = [entry for entry in state.queue if entry.get("status") in ("pending", "running")]
    if waiting:
        lines.append(site.say("status.queue", jobs=", ".join(one_line(str(entry.get("jobId")), 40) for entry in waiting[:8]), count=len(waiting)))
    if state.outbox:
        error = next((str(entry["error"]) for entry in state.outbox if entry.get("error")), "-")
        lines.append(site.say("status.outbox", count=len(state.outbox), error=error))
    ticked = state.own_memory().looked_at
    lines.append(site.say("status.tick", time=site.clock.full_text(ticked)) if ticked else site.say("status.no_tick"))
    return lines


def status_cells(site: Site, row: Row) -> list:
    job, memory, look = row.job, row.memory, row.look
    trouble = [f"{site.say('topic.' + kind)} {site.say('since', time=site.clock.text(incident.since_at))}" for kind, incident in open_incidents(memory)]
    words, at = next_action(site, row)
    progress = ""
    if look:
        first = progress_lines(look.progress, {}, 2)
        progress = bar(look.progress) or ", ".join(line for line in first if not line.startswith("…"))
        if look.problem:
            progress = phrase_text(site.lang, look.problem)
        elif look.state == RUNNING and not look.key:
            progress = progress or site.say("status.keyless")
    told_at = memory.reported_at or memory.ran_at
    return [
        cut_columns(job.id, 24),
        state_word(site, row),
        cut_columns(one_line(progress, 60), 30) or "-",
        site.clock.text(told_at) if told_at else "-",
        words + (" " + site.clock.text(at) if at else ""),
        ", ".join(trouble) or "-",
    ]


def terminal_width() -> int:
    """Columns of the terminal; 0 = no terminal, lines stay whole."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    except (OSError, ValueError):
        return 0


def colored(lines: list, rows: list) -> list:
    """Lines of jobs in trouble in red or yellow; only on a terminal, never with NO_COLOR."""
    if not terminal_width() or os.environ.get("NO_COLOR"):
        return lines
    painted = lines[:1]
    for line, row in zip(lines[1:], rows):
        found = open_incidents(row.memory)
        color = "31" if found and found[0][1].rank >= ALERT else "33" if found else ""
        painted.append(f"\x1b[{color}m{line}\x1b[0m" if color else line)
    return painted


@command("explain", JOB, TRUST, example="explain nightly-index")
def explain(site: Site, args: Any) -> int:
    """What is known of a job, which rule decided what and why, and what happens next."""
    row = look_around(site, [find_job(site, args.job)])[0]
    for line in explain_lines(site, row):
        print(line)
    return DONE


def write_reason(site: Site, job: Any) -> Reason:
    """Why a write may, or may not, run now."""
    plan = make_plan(site, job)
    gate = site.store.view().gate(job.id)
    return gate_reason(gate, plan.digest, plan.problem, changed_items(gate, plan), site.clock.now().at)


def explain_lines(site: Site, row: Row) -> list:
    job, memory, look = row.job, row.memory, row.look
    clock = site.clock
    lines = [f"{job.name} ({job.id}) · {job.kind} · {job.risk}" + ("" if job.enabled else " · " + site.say("next.disabled"))]
    since = " " + site.say("since", time=clock.full_text(memory.state_at)) if memory.state_at and look else ""
    lines.append(site.say("explain.state", state=state_word(site, row)) + since)
    if look:
        if look.problem:
            lines.append("  " + phrase_text(site.lang, look.problem))
        if look.stop_reason:
            lines.append("  " + site.say("line.stop_reason", reason=look.stop_reason))
        lines += ["  " + line for line in progress_lines(look.progress, memory.reported_progress)]
        if look.key and memory.key_at:
            lines.append(site.say("explain.key", time=clock.full_text(memory.key_at), stalled=duration_text(memory.stalled_for), limit=duration_text(job.policy.stall_seconds)))
    if memory.ran_at:
        lines.append(site.say("explain.ran", time=clock.full_text(memory.ran_at), code=memory.ran_code))
    for kind, incident in open_incidents(memory):
        words = one_line(say(site.lang, incident.key, **incident.facts), 200)
        lines.append(site.say("explain.incident", kind=site.say("topic." + kind), time=clock.full_text(incident.since_at), text=words, reminders=incident.reminders))
    if memory.muted_for:
        lines.append(site.say("muted", time="") + " " + site.say("again", time=clock.text(memory.muted_at + memory.muted_for)))
    if row.decision:
        lines.append(site.say("explain.decisions"))
        lines += ["  " + line for line in decision_lines(site, job, row.decision)]
    elif job.kind == CHECK:
        lines.append(f"{site.say('topic.due')}: {reason_text(site, due_reason(job, memory, clock.now()))}")
    else:
        lines += [site.say(reason.key, **reason.facts) for reason in [write_reason(site, job)]] + gate_notes(site, job)
    words, at = next_action(site, row)
    lines.append(site.say("explain.next", action=words + (" " + clock.full_text(at) if at else "")))
    return lines


@command(
    "history",
    SOME_JOB,
    option("--since", type=seconds_argument, default=DAY, metavar="S", help="how far back: 90, 15m, 2d; default: 1d"),
    AS_JSON,
    TRUST,
    example="history nightly-index --since 2d",
)
def history(site: Site, args: Any) -> int:
    """What happened: starts, runs, approvals, incidents, messages."""
    since = site.clock.now().at - args.since
    for item in history_records(site.store.history_path):
        at: Any = item.get("at")
        if not is_number(at) or at < since or args.job and item.get("job") != args.job:
            continue
        if args.json:
            print(json.dumps(item, ensure_ascii=False))
            continue
        facts = ", ".join(f"{key}: {one_line(str(value), 100)}" for key, value in item.items() if key not in ("at", "event", "job") and value not in ("", None))
        print(f"{site.clock.full_text(at)}  {pad(str(item.get('job') or '-'), 20)}  {item.get('event')}" + (f"  ({facts})" if facts else ""))
    return DONE


def history_records(path: str) -> Iterator[dict]:
    """The records of both history files, the oldest first; lines that are torn are left out."""
    for name in (path + ".1", path):
        try:
            with open(name, "rb") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                item = json.loads(line)
            except ValueError:
                continue
            if isinstance(item, dict):
                yield item


@command(
    "logs",
    JOB,
    option("-n", type=line_count, default=40, metavar="N", help="lines from the end; default: 40"),
    option("-f", "--follow", action="store_true", help="go on as the log grows"),
    TRUST,
    example="logs nightly-index -n 20",
)
def logs(site: Site, args: Any) -> int:
    """Show the run log of a long job (its start log, if it is not managed)."""
    directory = site.store.job_dir(args.job)
    if args.job not in site.config.jobs and not os.path.isdir(directory):
        find_job(site, args.job)
    job = site.config.jobs.get(args.job)
    name = "write.log" if job and job.kind == WRITE else "start.log" if job and not job.managed else "run.log"
    path = os.path.join(directory, name)
    if not os.path.exists(path):
        raise OpsError(f"no log yet: {path}", site.advise("start", args.job))
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - (1 << 20)))
        lines = file.read().splitlines()[-args.n :] if args.n else []
        for line in lines:
            print(site.redact.read(line))
        while args.follow:
            sys.stdout.flush()
            time.sleep(0.3)
            if os.fstat(file.fileno()).st_size < file.tell():  # trimmed: go on at its end
                file.seek(0, os.SEEK_END)
            text = site.redact.read(file.read(1 << 20))
            print(text, end="")
    return DONE


# ---- selftest, demo


def check_decisions() -> str:
    """A few rows of the judgement's table, as a sign that this file is whole."""
    job = make_job({"id": "x", "kind": LONG_READ, "risk": READ_ONLY, "enabled": True, "commands": {"start": ["true"], "status": ["true"]}, "policy": {"autoResume": True}}, {}, 0)
    now = Instant(1_000_000.0, 1000.0, "boot", 720)
    stopped = decide_long(job, Observation(now, STOPPED), Memory(), now)
    unsure = decide_long(job, Observation(now, UNKNOWN, problem=Phrase("status.json")), Memory(), now)
    held = decide_long(job, Observation(now, STOPPED), Memory(held_at=999_999.0), now)
    expected = [("resume.now", stopped), ("resume.unknown", unsure), ("resume.held", held)]
    wrong = [key for key, decision in expected if decision.why("resume") != key]
    return f"decision rules: {wrong}" if wrong else ""


def check_locks(directory: str) -> str:
    path = os.path.join(directory, "check.lock")
    first = try_lock(path)
    second = try_lock(path)
    for fd in (first, second):
        if fd is not None:
            os.close(fd)
    return "" if first is not None and second is None else f"locks do not exclude each other in {directory}"


def check_writes(directory: str) -> str:
    path = os.path.join(directory, "check.json")
    write_durably(path, b'{"a": 1}')
    write_durably(path, b'{"a": 2}')
    return "" if read_file(path) == b'{"a": 2}' else f"a replaced file in {directory} shows its old content"


def check_processes(directory: str) -> str:
    """A command that ignores TERM and leaves its group ends in time, and so does what it left."""
    now = Clock().now
    pool = Pool(4, now)
    env = {"PATH": "/usr/bin:/bin"}
    marker = new_id()
    pool.add(Command(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], directory, env, 5.0), "exit")
    pool.add(Command(["/bin/sh", "-c", "sleep 60 & wait"], directory, env, 0.2, marker=marker), "hang")
    found: dict = {}
    while pool.busy:
        found.update(pool.wait(6.0))
    ended, hung = found["exit"], found["hang"]
    if ended.code != 3 or ended.out != b"out\n" or ended.err != b"err\n":
        return f"a command's exit code or output was lost: {ended.code}"
    return "" if hung.timed_out and not marked_processes(marker) else "a command that hangs was not ended with all it started"


def check_clock(directory: str) -> str:
    first, second = awake_seconds(), awake_seconds()
    return "" if second >= first and boot_identity() else "no boot identity or no steady clock on this machine"


@command("selftest", example="selftest", wants_site=False)
def selftest(files: Files, args: Any) -> int:
    """Check this installation offline: locks, durable writes, process groups, clocks, decision rules."""
    import tempfile

    parent = os.path.dirname(files.state_file)
    with tempfile.TemporaryDirectory(dir=parent if os.access(parent, os.W_OK) else None, prefix=".ops-selftest-") as directory:
        checks = (check_locks, check_writes, check_processes, check_clock)
        problems = [problem for problem in [check_decisions(), *(check(directory) for check in checks)] if problem]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        return JOB_FAILED
    print("selftest: OK")
    return DONE


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


def demo_config(python: str) -> dict:
    """The jobs of the demo, with policies in seconds instead of minutes."""
    policy = {"reportEverySeconds": 0, "minReportSeconds": 0.8, "stallSeconds": 1.2, "autoResume": True, "autoResumeBackoffSeconds": 1, "quietHours": {"start": "00:00", "end": "00:00"}}
    return {
        "version": 1,
        "monitor": {"host": "demo"},
        "delivery": {"via": "none"},
        "jobs": [
            {"id": "reader", "name": "Read 40 pages", "kind": LONG_READ, "risk": READ_ONLY, "enabled": True, "managed": True, "commands": {"start": [python, "-c", DEMO_JOB]}, "policy": policy},
            {"id": "disk", "name": "Disk check", "kind": CHECK, "risk": READ_ONLY, "enabled": True, "commands": {"run": ["/bin/sh", "-c", "echo 'ALERT: /data is 97% full'"]}, "policy": {"everySeconds": 3600}},
            {"id": "verify", "kind": CHECK, "risk": READ_ONLY, "commands": {"run": ["/bin/sh", "-c", "test ! -e pages && echo no pages are left"]}},
            {"id": "prune", "name": "Prune old pages", "kind": WRITE, "risk": "write_local", "commands": {"run": ["/bin/rm", "-r", "pages"]}, "after": [{"jobId": "verify"}]},
        ],
    }


class Demo:
    """Ticks a demo installation and prints each message as the phone would show it."""

    def __init__(self, directory: str):
        path = os.path.join(directory, "ops-jobs.json")
        text = json.dumps(demo_config(sys.executable or "python3"))
        config = read_config(text)
        dirs = openclaw_places({"OPENCLAW_HOME": directory}, directory, os.path.exists)
        self.site = Site(config, path, Store(os.path.join(directory, "state.json"), Clock()), dict(os.environ), directory, dirs)
        self.site.printed = []
        self.job = config.jobs["reader"]
        self.seen: list = []

    def scene(self, text: str) -> None:
        print(f"\n# {text}", flush=True)

    def tick(self) -> str:
        """One tick; what it told."""
        driver = Driver(self.site)
        plan_tick(self.site, driver)
        driver.run()
        return self.show()

    def show(self) -> str:
        told = ""
        for section_ in self.site.printed or []:
            told += section_["text"] + "\n"
            print("\n".join("    │ " + line for line in section_["text"].splitlines()) + "\n", flush=True)
        self.site.printed = []
        return told

    def until(self, token: str, seconds: float = 6.0) -> None:
        """Tick until a message says `token`."""
        end = time.monotonic() + seconds
        while token not in self.tick():
            if time.monotonic() > end:
                raise OpsError(f"the demo waited {seconds:g} s for {token}", "ops-monitor.py selftest")
            time.sleep(0.25)

    def start(self) -> None:
        args = argparse.Namespace(fresh=False, resume=False, despite_unknown=False)
        Driver(self.site).finish(start_by_hand(self.site, self.job, args))

    def reader(self) -> Run:
        run_ = read_run(self.site.store.job_dir("reader"))
        assert run_ is not None
        return run_


@command("demo", example="demo", wants_site=False)
def demo(files: Files, args: Any) -> int:
    """Show the main job at work, with real processes, in a temporary directory; nothing is sent."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ops-demo-") as directory:
        show = Demo(directory)
        try:
            play(show)
        finally:
            Driver(show.site).finish(end_managed(show.site, "reader", 1.0))
    print("That was all real, except the phone. Next: ops-monitor.py validate-config --config-file ops-jobs.example.json")
    return DONE


def play(show: Demo) -> None:
    """The scenes of the demo."""
    show.scene("A long read job is started by hand; ticks watch it. A check runs too, and has something to say.")
    show.start()
    show.until("done:")
    show.scene("Somebody kills it (SIGKILL). The next tick continues it from its checkpoint, and says so.")
    end_group(show.reader().pid, signal.SIGKILL)
    show.until("AUTORUN")
    show.scene("It moves again.")
    show.until("RESOLVED")
    show.scene("It hangs at page 20: alive, but without progress for stallSeconds.")
    show.until("ALERT")
    show.scene("What it waited for arrives; it goes on to the end.")
    with open(os.path.join(show.site.store.job_dir("reader"), "checkpoint", "woken"), "w", encoding="utf-8"):
        pass
    show.until("COMPLETED", 8.0)
    site, prune = show.site, show.site.config.jobs["prune"]
    os.mkdir(os.path.join(site.dirs.ours_dir, "pages"))
    show.scene("An agent tries to run a write job that nobody has approved.")
    try:
        Driver(site).finish(run_write(site, prune, verify=True))
    except BlockedError as error:
        print(f"    exit {error.code}: {error}", flush=True)
    show.show()
    show.scene("Its owner reads what exactly would be run, and approves one run of it. It runs once, and is verified.")
    plan = make_plan(site, prune)
    print("\n".join("    " + line for line in "\n".join(plan_lines(site, prune, plan)).splitlines()))
    site.store.change(lambda state: grant(site, state, prune, plan, clear=False))
    print("    approved", flush=True)
    Driver(site).finish(run_write(site, prune, verify=True))


# ==== DOOR ===============================================================
# The way in: arguments, the one boundary where errors become lines and exit codes, `main`.


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are ours: one line, the nearest name, exit 2."""

    def error(self, message: str) -> Any:
        raise UsageError(message, f"ops-monitor.py {self.prog.rpartition(' ')[2]} -h")


def plain_help(prog: str) -> argparse.HelpFormatter:
    """A formatter that knows its width; else argparse loads shutil to ask for it."""
    return argparse.HelpFormatter(prog, width=100)


def parser_of(name: str) -> Parser:
    row = COMMANDS[name]
    setattr(argparse, "_", str)  # noqa: B010  # -h is English; argparse looks for translations 12 times a start (3 ms)
    parser = Parser(
        prog=f"ops-monitor.py {name}",
        description=row.function.__doc__,
        epilog=f"example: ops-monitor.py {row.example}",
        allow_abbrev=False,
        formatter_class=plain_help,
    )
    for flags, settings in row.options:
        parser.add_argument(*flags, **settings)
    parser.add_argument("--config-file", default="", metavar="PATH", help="default: net/config/ops-jobs.json in OpenClaw's state dir")
    parser.add_argument("--state-file", default="", metavar="PATH", help="default: net/state/ops-monitor.json in OpenClaw's state dir")
    return parser


def overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name.ljust(width)}{(row.function.__doc__ or '').splitlines()[0]}" for name, row in COMMANDS.items()]
    return "usage: ops-monitor.py COMMAND [-h] ...\n\ncommands:\n" + "\n".join(lines) + "\n\nfirst: ops-monitor.py demo"


def parse(argv: list) -> tuple:
    """(name, arguments).  Raises UsageError that names the nearest command or option."""
    name = argv[0]
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        raise UsageError(f"no command '{name}'" + (f"; did you mean '{near}'?" if near else ""), "ops-monitor.py -h")
    parser = parser_of(name)
    args, unknown_words = parser.parse_known_args(argv[1:])
    if unknown_words:
        word = unknown_words[0]
        flags = [flag for action in parser._actions for flag in action.option_strings]
        near = nearest(word.split("=")[0], flags) if word.startswith("-") else ""
        raise UsageError(f"unknown argument '{word}'" + (f"; did you mean '{near}'?" if near else ""), f"ops-monitor.py {name} -h")
    return name, args


def on_signal(number: int, frame: Any) -> None:
    raise Interrupted(number)


def dispatch(argv: list) -> int:
    """Run one command to its exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE if argv else USAGE
    if argv[0] == "--version":
        print(VERSION)
        return DONE
    name, args = parse(argv)
    row = COMMANDS[name]
    files = find_files(args)
    if not row.wants_site:
        return row.function(files, args)
    config, warnings = load_config(files.config_file, files.home, getattr(args, "trust_permissions", False))
    for warning in warnings if sys.stderr.isatty() else ():
        print(f"warning: {warning}", file=sys.stderr)
    site = open_site(files, config, args)
    trust = check_trust(files.state_file, files.home)  # it holds the approvals
    site.config_risk = "; ".join(filter(None, [*warnings, trust.refusal or trust.warning]))
    return row.function(site, args)


def complain(line: str) -> None:
    """Print to standard error; a closed pipe is silent."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody reads


def run_command_line(argv: list) -> int:
    """The error boundary: whatever happens becomes a line and an exit code."""
    try:
        return dispatch(argv)
    except OpsError as error:
        complain(f"error: {one_line(str(error), 4000)}" + (f"\nhelp: {error.advice}" if error.advice else ""))
        return error.code
    except Interrupted as end:
        return 128 + end.number
    except BrokenPipeError:
        return DONE
    except OSError as error:
        if not error.filename:
            return report_bug(error)
        complain(f"error: cannot use {error.filename}: {os_words(error)}\nhelp: ls -ld {shell_word(str(error.filename))}")
        return STATE_TROUBLE
    except Exception as error:  # a bug, whatever it is: one line, and a file for those who mend it
        return report_bug(error)


def report_bug(error: Exception) -> int:
    import tempfile
    import traceback

    text = Redactor(secret_values(dict(os.environ))).tidy("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    try:
        fd, path = tempfile.mkstemp(prefix="ops-monitor-crash-", suffix=".txt")
        with open(fd, "w", encoding="utf-8") as file:
            file.write(f"ops-monitor {VERSION}, Python {sys.version}\n{text}")
    except OSError as trouble:
        path = f"could not be written, {os_words(trouble)}"
    complain(f"error: a bug in ops-monitor.py: {type(error).__name__}; details: {path}")
    return BUG


def flush_streams() -> None:
    """What is printed goes out; a closed pipe must not make the interpreter complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_process() -> None:
    """Descriptors 0 to 2 exist, no other one is inherited by children, text is UTF-8."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)  # a caller's lock must not live on in a job
            except OSError:
                pass  # the descriptor of this listing itself
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


def main(argv: Optional[list] = None) -> int:
    """Run the command line `argv`; the exit code."""
    prepare_process()
    code = run_command_line(sys.argv[1:] if argv is None else argv)
    flush_streams()
    return code


if __name__ == "__main__":
    sys.exit(main())
