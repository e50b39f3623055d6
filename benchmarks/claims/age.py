"""A thousand jobs for a simulated year, and what is left of it on disk and in each tick.

The year is not lived minute by minute: its ticks come in clusters, close together where rules count in
minutes and far apart where they count in hours, days and months.  Jobs fail, flap, stall, are resumed, give
up, complete, leave the config and come back; checks run, fail and queue others; people stop, acknowledge and
mute.  At the end the state must be small, the history bounded, and the last ticks as quick as the first.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time

from benchmarks.claims.stage import Stage, job, ops, status

CLAIM = "state survives age: 1,000 jobs for a year stay under 5 KB each, history bounded, ticks even"
FULL, QUICK = 1, 1
JOBS, QUICK_JOBS = 1000, 30
TICKS, QUICK_TICKS = 1500, 120
YEAR = 365 * 86400.0
STATE_A_JOB = 5000  # bytes
SLOWER = 1.5  # how much the last quarter's ticks may exceed the first's; the machine is not ours alone
PERSON = 0.05  # chance of a word by hand at a tick


class Life:
    """What one job does in a year."""

    def __init__(self, rng, number):
        self.rng, self.name = random.Random(rng.getrandbits(32)), f"job number {number} of the house"
        self.is_check = rng.random() < 0.3
        self.state, self.step = "running", 0
        self.restless = rng.choice([0.002, 0.02, 0.3])

    def config(self, others):
        rng = self.rng
        if self.is_check:
            after = [{"jobId": rng.choice(others), "when": "failure", "delaySeconds": 60}] if others and rng.random() < 0.1 else []
            return job(self.name, ops.CHECK, policy={"everySeconds": rng.choice([60, 3600, 86400])}, after=after)
        policy = {"autoResume": rng.random() < 0.5, "stallSeconds": rng.choice([300, 3600, 86400]), "alertRepeatSeconds": rng.choice([0, 14400]),
                  "autoResumeMaxAttempts": rng.choice([2, 5]), "onStall": rng.choice(["alert", "restart"])}  # fmt: skip
        return job(self.name, policy=policy)

    def answer(self, word):
        rng = self.rng
        if word == "start":
            if rng.random() < 0.7:
                self.state = "running"
            return b"started"
        if word == "run":
            if rng.random() < self.restless:
                return {"code": rng.choice([1, -9, None]), "timed_out": rng.random() < 0.2, "err": b"row %d is wrong\n" % rng.randrange(10**6) * 20}
            return {"attention": (b"ALERT: row %d" % rng.randrange(10**6),)} if rng.random() < self.restless / 3 else b"fine"
        if rng.random() < self.restless:
            self.state = rng.choice(["running", "stopped", "completed", "unknown", "stalled", "warn", "alert"])
        if self.state == "unknown":
            return rng.choice([b"no JSON", {"code": rng.randrange(1, 200)}, b"[]"])
        self.step += self.state != "stalled"
        progress = {"done": self.step, "total": 10**9, "words": "x" * rng.choice([1, 40, 400]), **{f"column {n}": rng.random() for n in range(20)}}
        more = {"level": self.state, "message": "low water " * 30} if self.state in ("warn", "alert") else {}
        running = self.state not in ("stopped", "completed")
        return status(running=running, completed=self.state == "completed", pid=4242, progress=progress, stopReason="the disk went away " * 9, **more)


class Year:
    """The house, its jobs and its clock."""

    def __init__(self, ledger, jobs):
        self.ledger, self.rng = ledger, ledger.rng
        self.lives = [Life(ledger.rng, number) for number in range(jobs)]
        checks = [life.name for life in self.lives if life.is_check]
        self.by_name = {life.name: life for life in self.lives}
        # What follows a check is one that follows nothing, so that they form no cycle.
        self.all = [life.config(checks[: len(checks) // 2] if number > jobs // 2 else []) for number, life in enumerate(self.lives)]
        self.stage = Stage(self.all, lambda name, word, command: self.by_name[name].answer(word))
        self.seconds, self.largest = [], 0.0

    def gaps(self, ticks):
        """Seconds to each next tick: clusters of minutes, hours and days that add up to a year."""
        gaps = [self.rng.choice([60.0, 60.0, 60.0, 300.0, 3600.0, 4 * 3600.0]) for _ in range(ticks)]
        left = YEAR - sum(gaps)
        far = self.rng.sample(range(ticks), ticks // 12)
        for number in far:
            gaps[number] += left / len(far)
        return gaps

    def live(self, ticks):
        stage = self.stage
        with stage:
            for number, gap in enumerate(self.gaps(ticks)):
                if number % 50 == 25:
                    self.leave_and_return()
                if self.rng.random() < PERSON:
                    self.say_something()
                is_deaf = number % 200 > 170  # nobody can be reached for a while
                stage.receive = lambda text, is_deaf=is_deaf: {"code": 1} if is_deaf else {}
                began = time.process_time()
                code = stage.tick()
                self.seconds.append(time.process_time() - began)
                is_clean = code in (0, 3) and (not stage.complaints or is_deaf and stage.complaints.startswith("error: undelivered"))
                self.ledger.check(is_clean, "a tick is not clean:", number, code, stage.complaints[:500])
                self.weigh(number)
                stage.told.clear()
                stage.pass_time(gap)
                self.ledger.case()
            self.look_back()

    def weigh(self, number):
        """The state is small; what waits for the receiver has a limit of its own."""
        state, size = self.stage.state, self.stage.state_bytes
        waiting = len(json.dumps(state["outbox"], ensure_ascii=False).encode())
        self.ledger.check(len(state["outbox"]) <= ops.OUTBOX_LIMIT, f"tick {number}: {len(state['outbox'])} sections wait")
        for name, raw in state["jobs"].items():
            self.ledger.check(len(json.dumps(raw)) <= STATE_A_JOB, f"tick {number}: {name} alone: {raw}")
        self.largest = max(self.largest, (size - waiting) / len(self.lives))
        self.ledger.check(size - waiting <= STATE_A_JOB * len(self.lives), f"tick {number}: {size} bytes of state, {waiting} of them wait to be told")

    def leave_and_return(self):
        """Some jobs leave the config; those that left before are back."""
        gone = set(self.rng.sample(range(len(self.all)), len(self.all) // 20))
        following = {after["jobId"] for one in self.all for after in one.get("after", ())}
        self.stage.config["jobs"] = [one for number, one in enumerate(self.all) if number not in gone or one["id"] in following]
        self.stage.configure()

    def say_something(self):
        """A person stops, acknowledges, mutes or queues."""
        name, word, rng = self.rng.choice(self.lives).name, self.rng.choice(["stop", "start", "ack", "mute", "queue"]), self.rng

        def apply(state):
            memory = state.memory(name)
            changes = {
                "stop": {"held_at": state.now},
                "start": {"held_at": 0.0, "gave_up_at": 0.0, "attempts": 0},
                "ack": {"incidents": {kind: incident._replace(acked_at=state.now) for kind, incident in memory.incidents.items()}},
                "mute": {"muted_at": state.now, "muted_for": rng.choice([600.0, 86400.0])},
            }
            if word == "queue":
                ops.enqueue(state, name, rng.choice([0.0, 7200.0]), "enqueue")
            else:
                state.remember(name, memory._replace(**changes[word]))

        self.stage.change(apply)

    def look_back(self):
        check, quarter = self.ledger.check, len(self.seconds) // 4
        first, last = (statistics.median(part) for part in (self.seconds[2 : quarter + 2], self.seconds[-quarter:]))
        check(last <= first * SLOWER, f"ticks became slower: median {first * 1000:.1f} ms in the first quarter, {last * 1000:.1f} ms in the last")
        sizes = {name: os.path.getsize(f"{self.stage.root}/{name}") for name in os.listdir(self.stage.root) if "history" in name}
        check(len(sizes) <= 2 and all(size <= ops.HISTORY_LIMIT + (1 << 20) for size in sizes.values()), "the history is too large:", sizes)
        self.ledger.counts.update({"bytes a job at most": int(self.largest), "ms a tick at first": int(first * 1000), "ms at last": int(last * 1000),
                                   "KiB of history": sum(sizes.values()) >> 10})  # fmt: skip


def prove(ledger, quick=False):
    year = Year(ledger, QUICK_JOBS if quick else JOBS)
    try:
        year.live(QUICK_TICKS if quick else TICKS)
    except Exception:
        ledger.broke("a year")
    return ledger.tally()
