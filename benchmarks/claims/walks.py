"""`unknown` never acts, and a stall is told neither falsely nor late, whatever the clocks do.

Two kinds of walks at random.  Those of `tests/test_walks.py` judge one job step by step against a model
that says the contract a second time, in whole lists.  Those of this file play the whole engine with
several jobs at once, its state on disk between all ticks, while the machine sleeps for a minute or three
days, its wall clock jumps by a year, it reboots, ticks are missed, and one tick in ten is made twice; their
model knows each job's truth and says only what may be started and when a stall must be known.
"""

from __future__ import annotations

import unittest

from benchmarks.claims.stage import Stage, job, status
from tests.test_walks import STEPS, Walk

CLAIM = "unknown never acts; a stall is told neither falsely nor late, on any clock"
FULL, QUICK = 100, 2
WALKS, QUICK_WALKS = 4, 1  # of one part, STEPS each, judged against the slow model
TICKS, QUICK_TICKS = 60, 30  # of one part, played; each is a step of every job
JOBS = 6
GAPS = (20.0, 60.0, 60.0, 60.0, 61.0, 300.0, 900.0)
SLEEPS = (60.0, 3600.0, 8 * 3600.0, 72 * 3600.0)
JUMPS = (-365 * 86400.0, -86400.0, -3600.0, 3600.0, 86400.0, 365 * 86400.0)
UNREADABLE = (b"", b"no JSON", b"[]", b'{"running": true}', b'{"running": true, "completed": true}',
              {"code": 1}, {"code": None, "timed_out": True}, {"code": -9})  # fmt: skip


class Truth:
    """What one job really does, and what the contract lets the engine do with it."""

    def __init__(self, rng, number):
        self.name = f"job {number}"
        self.rng = rng
        self.limit = rng.choice([120.0, 600.0, 3600.0])
        self.resumes, self.restarts = rng.random() < 0.5, rng.random() < 0.3
        self.state, self.key, self.run = "running", 0, 100
        self.still = 0.0  # awake seconds without progress while it was seen running, from look to look
        self.gap = None  # awake instant of the look before, where the time since then counts
        self.boot = self.last_run = None
        self.seen_key = None
        self.waits, self.stall_is_open = False, False
        self.moves, self.breaks = rng.choice([0.02, 0.02, 0.3]), rng.choice([0.02, 0.1])
        self.stalled_looks = 0  # of this tick

    def policy(self):
        return {"stallSeconds": self.limit, "autoResume": self.resumes, "autoResumeBackoffSeconds": 60, "autoResumeMaxAttempts": 0,
                "onStall": "restart" if self.restarts else "alert", "reportWhileRunning": False}  # fmt: skip

    def move(self):
        """Between two looks."""
        chance = self.rng.random()
        if chance < self.moves:
            self.key += 1
        elif chance < self.moves + self.breaks / 2:
            self.state = "stopped"
        elif chance < self.moves + 2 * self.breaks and self.state == "stopped":
            self.begin()

    def begin(self):
        self.state, self.run = "running", self.run + 1

    def look(self):
        """(what its status prints, what a reader may conclude)."""
        if self.rng.random() < self.breaks:
            return self.rng.choice(UNREADABLE), "unknown"
        self.waits = self.state == "running" and self.rng.random() < 0.05
        running = self.state == "running"
        answer = {"progressKey": f"step {self.key}", "pid": self.run if running else 0, "waiting": self.waits, "stopReason": "words"}
        return status(running=running, **answer), "waiting" if self.waits else self.state

    def note(self, seen, now):
        """The model: awake time adds up between consecutive running looks with one key, in one run and one boot."""
        if self.boot not in (None, now.boot):
            self.still, self.gap = 0.0, None
        self.boot = now.boot
        if seen == "unknown":
            self.gap = None
            return
        if seen == "stopped":
            self.gap, self.last_run, self.seen_key = None, None, self.key
            return
        if self.key != self.seen_key or self.run != self.last_run:
            self.still, self.gap = 0.0, None
        if self.gap is not None and seen == "running":
            self.still += now.awake - self.gap
        self.seen_key, self.last_run = self.key, self.run
        self.gap = now.awake if seen == "running" else None
        self.stalled_looks += seen == "running" and self.still >= self.limit


class Play:
    """One machine, its clocks and its jobs."""

    def __init__(self, ledger):
        self.ledger, self.rng = ledger, ledger.rng
        self.truths = {f"job {number}": Truth(ledger.rng, number) for number in range(JOBS)}
        self.stage = Stage([job(name, policy=truth.policy()) for name, truth in self.truths.items()], self.answer)
        self.seen, self.acted, self.is_fresh = {}, [], True

    def answer(self, name, word, command):
        truth = self.truths[name]
        if word != "status":
            self.acted.append((name, word, self.seen[name]))
            if word == "start":
                truth.begin()
            else:
                truth.state = "stopped"
            return b"" if self.rng.random() < 0.9 else {"code": 1}
        printed, self.seen[name] = truth.look()
        truth.note(self.seen[name], self.stage.now)
        return printed

    def pass_time(self):
        stage, rng = self.stage, self.rng
        stage.pass_time(rng.choice(GAPS))
        chance = rng.random()
        if chance < 0.05:
            stage.at += rng.choice(SLEEPS)  # asleep: only the wall clock goes on
        elif chance < 0.08:
            stage.at += rng.choice(JUMPS)
        elif chance < 0.10:
            stage.boot, stage.awake = stage.boot + "+", rng.choice([1.0, 60.0, stage.awake + 5.0])
        elif chance < 0.12:
            stage.minutes += rng.choice([60, -60])

    def step(self):
        if self.rng.random() < 0.9:
            self.pass_time()
        for truth in self.truths.values():
            truth.move()
            truth.stalled_looks = 0
        self.acted = []
        code = self.stage.tick()
        check, where = self.ledger.check, f"at {self.stage.now}"
        check(code == 0 and not self.stage.complaints, "a tick is not clean:", where, code, self.stage.complaints)
        state = self.stage.state["jobs"]
        for name, word, seen in self.acted:
            check(seen != "unknown", "it acted on a look that cannot tell:", name, word, where)
            may = ("stopped",) if word == "start" and not self.was_stopped(name) else ("running", "stopped")
            check(seen in may, "it acted on", seen, name, word, where)
        for name, truth in self.truths.items():
            self.ledger.case(played=1)
            self.check_stall(truth, state[name], where)

    def was_stopped(self, name):
        return any(one == name and word == "stop" for one, word, _ in self.acted)

    def check_stall(self, truth, memory, where):
        """Known as soon as it is so; never before."""
        is_open = "stalled" in memory.get("incidents", {})
        if truth.stalled_looks:
            self.ledger.counts["stalled looks"] += 1
            self.ledger.check(is_open, "a stall is late:", truth.name, truth.still, "of", truth.limit, memory, where)
        elif is_open:
            self.ledger.check(truth.stall_is_open, "a false stall:", truth.name, truth.still, "of", truth.limit, memory, where)
        truth.stall_is_open = is_open
        if any(name == truth.name for name, _, _ in self.acted):  # it starts over
            truth.still, truth.gap = 0.0, None


def prove(ledger, quick=False):
    test = unittest.TestCase()
    for _ in range(QUICK_WALKS if quick else WALKS):
        seed = ledger.rng.getrandbits(32)
        walk = Walk(test, seed)
        try:
            for _ in range(STEPS):
                walk.step()
                ledger.case(judged=1)
        except Exception:
            ledger.broke(f"OPS_WALK_SEED={seed} python3 -m unittest tests.test_walks")
    play = Play(ledger)
    with play.stage:
        for _ in range(QUICK_TICKS if quick else TICKS):
            try:
                play.step()
            except Exception:
                ledger.broke("played")
                break
    return ledger.tally()
