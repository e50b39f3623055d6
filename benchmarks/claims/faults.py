"""The disk is full, read-only, closed or broken at each step of a tick or a command.

The fault is an OSError raised where the system would raise it, once or from that step on; a short write
is the system's own answer to a full disk.  Then: the state is what it was at that moment, whoever called
gets one line that names a path or a cause, exit 74 where the state was concerned, and never a traceback;
once the disk works again, two clean ticks bring about everything that was to happen.
"""

from __future__ import annotations

import errno
import os
import re

from benchmarks.claims import crashes
from benchmarks.claims.home import Home, long_job, ops

CLAIM = "full, read-only, closed or broken disk at any step: state intact, one line, exit 74"
FULL, QUICK = 60, 1
CASES, QUICK_CASES = 60, 18  # of one part
DISK = ("mkdir", "open", "write", "fsync", "replace", "unlink", "link")
DISK_ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT)
ERRORS = {
    **dict.fromkeys(DISK, DISK_ERRORS),
    "lock": (errno.EIO, errno.ENOLCK),
    "spawn": (errno.EAGAIN, errno.ENOMEM, errno.EACCES),
    "connect": (errno.ECONNREFUSED, errno.ENETUNREACH),
    "send": (errno.EPIPE, errno.ECONNRESET),
    "receive": (errno.ECONNRESET, errno.EIO),
}
CODES = {0, 1, 2, 3, 4, 74, 75}
NAMING = ("mkdir", "open", "replace", "unlink", "link")  # steps whose errors name their file


class Fault:
    """An OSError before the n-th step, and, if it lasts, before each one of the disk's after it."""

    def __init__(self, home, at, number, lasts):
        self.state_path, self.seen_path, self.at, self.number, self.lasts = home.state_path, home.path("seen"), at, number, lasts
        self.has_begun = False

    def __call__(self, number, step):
        if number < self.at or self.number not in ERRORS.get(step, ()) or self.has_begun and not (self.lasts and step in DISK):
            return
        if not self.has_begun:
            self.remember(step)
        self.has_begun = True
        named = [self.state_path] if step in NAMING else []
        raise OSError(self.number, os.strerror(self.number), *named)

    def remember(self, step):
        """The step, and the state file as it is at this moment, for whoever compares."""
        with open(self.seen_path + ".step", "w", encoding="utf-8") as file:
            file.write(step)
        try:
            with open(self.state_path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        with open(self.seen_path, "wb") as file:
            file.write(data)


def write_little():
    """The system takes seven bytes at a time."""
    write = os.write
    os.write = lambda fd, data: write(fd, bytes(data[:7]))


class CommandWorld(crashes.TickWorld):
    """A command by hand, alone."""

    COMMANDS = (
        ["stop", "hand"], ["ack", "hand"], ["mute", "hand"], ["unmute", "hand"], ["start", "hand"], ["enqueue", "look"], ["run", "look"],
        ["approve", "w"], ["revoke", "w"], ["status"], ["status", "--json"], ["explain", "hand"], ["history"], ["logs", "hand"],
        ["validate-config"], ["selftest"], ["schema"], ["init"], ["schedule", "print"], ["doctor"],
    )  # fmt: skip

    def __init__(self, ledger):
        self.argv = ledger.rng.choice(self.COMMANDS)
        self.actors = [crashes.Repeats("hand")]
        self.title = " ".join(self.argv)
        self.codes = {0}

    def jobs(self):
        look = crashes.check("look", "echo x >> looks")
        return [long_job("hand", crashes.STARTS.format("hand"), reportWhileRunning=False), look, crashes.write("w", "echo x >> written", "look")]

    def act(self, home, seam):
        if self.argv[0] == "approve" and len(self.argv) == 2:
            shown = home.call("approve", "w", "--show").out
            self.argv = [*self.argv, "--digest", shown.rpartition("digest: ")[2].strip()]
        return home.begin(*self.argv, seam=seam)

    def holds(self, ledger, home, crashes, where):
        ledger.check(len(home.lines("written")) == 0, "a write ran:", where)
        ledger.check(len(home.lines("hand.starts")) <= 1 and len(home.lines("looks")) <= 2, "started twice:", where)


def make_world(ledger):
    chance = ledger.rng.random()
    kind = crashes.WriteWorld if chance < 0.12 else CommandWorld if chance < 0.4 else crashes.TickWorld
    world = kind(ledger)
    if any(isinstance(actor, (crashes.Idle, crashes.Lost)) for actor in world.actors):
        return make_world(ledger)  # a fault of spawn is something to tell of an idle job
    return world


class Trial:
    """One world, and one fault after the other from the same moment."""

    def __init__(self, ledger, home, world):
        self.ledger, self.home, self.world = ledger, home, world
        world.prepare(home)
        home.settle()
        home.forget_told()
        self.start = home.snapshot()
        whole = world.act(home, None).end()
        self.steps = [(number, step) for number, step in enumerate(whole.steps, 1) if step in ERRORS]

    def fail(self, number, step):
        rng, home = self.ledger.rng, self.home
        error, lasts = rng.choice(ERRORS[step]), rng.random() < 0.4
        home.restore(self.start)
        done = self.world.act(home, Fault(home, number, error, lasts)).end()
        home.settle()
        if not os.path.exists(home.path("seen")):
            return  # this time there were fewer steps
        step = home.read("seen.step")  # it need not be the one that was there the time before
        words = f"{errno.errorcode[error]} {'from' if lasts else 'at'} step {number} ({done.steps[number - 1]})"
        where = f"[{self.world.title}, {words} after {' '.join(done.steps[: number - 1][-5:])}]"
        self.ledger.case(**{errno.errorcode[error]: 1})
        self.is_clear(done, where)
        if done.code == ops.STATE_TROUBLE and not lasts:
            self.is_intact(where)
        if step != "spawn":
            self.recover(where)
        else:  # a look that sees nothing, a run that fails, a verification that does not verify: told, as in any such case
            self.ledger.check(self.home.told or done.out or done.err, "a command was not started, and nobody hears of it:", where, done)

    def is_clear(self, done, where):
        """One line that says what is wrong, and nothing that looks like a bug."""
        check = self.ledger.check
        check(done.code in CODES, "exit code", done.code, where, done)
        check("Traceback" not in done.err + done.out and "a bug in" not in done.err, "a bug:", where, done)
        crash_files = [name for name in os.listdir(self.home.root) if name.startswith("ops-monitor-crash")]
        check(not crash_files, "a crash file:", where, done)
        lines = done.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ") and not line.startswith("error: exit code")]  # a job's own
        if done.code == ops.STATE_TROUBLE:
            check(len(errors) == 1 and re.search(r"error: cannot \w+( aside)? /\S+: \w", errors[0]), "74 without one clear line:", where, done)
        strange = [line for line in lines if not re.match(r"(error|help|warning|note): |\S+: error: ", line)]
        check(not strange, "strange lines:", where, strange)

    def is_intact(self, where):
        with open(self.home.path("seen"), "rb") as file:
            seen = file.read()
        now = self.home.read(self.home.state_path).encode()
        self.ledger.check(seen == now, "the state is not what it was:", where, seen[:300], "->", now[:300])

    def recover(self, where):
        """Three clean ticks, and everything has happened."""
        home = self.home
        try:
            home.state  # noqa: B018  # it can be read
        except ValueError:
            self.ledger.fail("the state is torn:", where)
        for _ in range(3):
            home.at += 60.0
            clean = home.tick()
            home.settle()
            is_clean = clean.code in self.world.codes and (not clean.err or clean.code == 2)
            self.ledger.check(is_clean, "a clean tick is not clean:", where, clean)
        self.world.holds(self.ledger, home, 1, where)

    def write_short(self):
        """Everything happens as ever when the system writes a few bytes at a time."""
        home = self.home
        home.restore(self.start)
        home.at += 60.0
        done = home.call("tick", bend=write_little)
        home.settle()
        self.ledger.case(short_writes=1)
        self.is_clear(done, f"[{self.world.title}, short writes]")
        self.recover(f"[{self.world.title}, short writes]")


def prove_full_output(ledger, home):
    """What is printed goes nowhere: the disk behind standard output is full."""
    if not os.path.exists("/dev/full"):
        return
    more = (["run", "c"], ["approve", "w", "--show"], ["schema"])
    for argv in (["status"], ["explain", "a"], ["history"], ["-h"], ["tick", "--dry-run"], ["tick", "--print-only"], *more):
        home.at += 60.0
        done = home.call(*argv, bend=lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 1))
        ledger.case(full_output=1)
        clear = done.code == ops.STATE_TROUBLE and done.err.count("error: ") == 1 and "no space left" in done.err and "Traceback" not in done.err
        ledger.check(clear, " ".join(argv), "> /dev/full:", done)


def prove(ledger, quick=False):
    wanted = QUICK_CASES if quick else CASES
    if ledger.part == 0:
        jobs = [long_job("a"), crashes.check("c", "echo out"), crashes.write("w", "true", "c")]
        with Home(jobs) as home:
            home.says("a", running=True)
            home.tick()
            home.says("a", stopReason="the disk went away")
            prove_full_output(ledger, home)
    before = ledger.cases
    while ledger.cases - before < wanted:
        world = make_world(ledger)
        with Home(world.jobs(), ledger.rng.choice(["command", "api"]), **world.config) as home:
            try:
                trial = Trial(ledger, home, world)
                trial.write_short()
                steps = trial.steps
                ledger.rng.shuffle(steps)
                for number, step in steps[: min(30, wanted - ledger.cases + before)]:
                    trial.fail(number, step)
            except Exception:
                ledger.broke(world.title)
                return ledger.tally()
    return ledger.tally()
