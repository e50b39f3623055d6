"""Ticks, starts and resumes at once, all let go in the same instant; each job notices a second copy of itself.

A job's command makes a directory that only one of its kind can make, and notes a double if it is there
already.  Some racers are killed on the way, and some are typed as a person would, `python3 ops-monitor.py`;
the others are forked from a process that has the script in memory, which makes them collide far more often.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.claims.home import SCRIPT, Home, Kill, check, long_job

CLAIM = "never started twice: 2 to 16 ticks, starts and resumes at once"
FULL, QUICK = 100, 1
RACES, QUICK_RACES = 20, 5  # of one part
ALONE = "mkdir {0}.on 2> /dev/null || echo {0} >> doubles; echo x >> {0}.starts; "
RUNS = "echo '{{\"running\": true, \"completed\": false, \"progressKey\": \"9\"}}' > {0}.status"
RESUMED = {"autoResume": True, "autoResumeBackoffSeconds": 1, "reportWhileRunning": False, "stallSeconds": 0}
RESTARTED = {**RESUMED, "onStall": "restart", "stallSeconds": 1000}


def jobs():
    slow = "sleep 0.0{1}; ".format
    managed = long_job("managed", **RESUMED)
    managed.update(managed=True, commands={"start": ["/bin/sh", "-c", ALONE.format("managed") + "exec sleep 600"]})
    return [
        long_job("resumed", ALONE.format("resumed") + slow(0, 2) + RUNS.format("resumed"), **RESUMED),
        long_job("restarted", ALONE.format("restarted") + RUNS.format("restarted"), "rmdir restarted.on; echo '{}' > restarted.status", **RESTARTED),
        managed,
        check("due", ALONE.format("due") + slow(0, 2) + "rmdir due.on; echo ALERT: due", everySeconds=3600),
        check("queued", ALONE.format("queued") + "rmdir queued.on; exit 4"),
    ]


NAMES = ("resumed", "restarted", "managed", "due", "queued")


class Race:
    """A home in which each of its jobs is about to be started."""

    def __init__(self, ledger, home, is_typed):
        self.ledger, self.home, self.rng, self.is_typed = ledger, home, ledger.rng, is_typed
        self.names = [name for name in NAMES if name != "restarted" or not is_typed]  # nobody waits for a real stall
        home.says("restarted", running=True, progressKey="5")
        home.says("resumed", running=True, progressKey="5")
        if is_typed:
            home.at = 0
        else:
            home.tick()
            home.at += 3700.0
        os.mkdir(home.path("restarted.on"))
        place = home.job_dir("managed")
        os.makedirs(place, exist_ok=True)
        home.put(os.path.join(place, "run.json"), '{"run": "first", "pid": 7, "exitCode": 3}')
        home.says("resumed", progressKey="5", stopReason="the disk went away")
        home.call("enqueue", "queued")
        for name in NAMES:
            if os.path.exists(home.path(name + ".starts")):
                os.unlink(home.path(name + ".starts"))
        home.forget_told()
        self.start = home.snapshot()

    def run(self):
        """One race, and what must hold after it."""
        rng, home = self.rng, self.home
        home.restore(self.start)
        racers = [["tick"] for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6, 10]))]
        racers += [["start", rng.choice(["resumed", "managed"])] for _ in range(rng.choice([1, 1, 2, 2, 3, 4, 6]))]
        rng.shuffle(racers)
        kills = rng.random() < 0.25
        gate, opener = os.pipe()
        begun, since = [], time.monotonic()
        for number, argv in enumerate(racers):
            seam = Kill(rng.randint(1, 120)) if kills and number == 0 else None
            begun.append(home.begin(*argv, seam=seam, gate=gate, bend=lambda: os.close(opener), since=since))
        typed = [self.type(argv) for argv in racers[: 2 * self.is_typed]]
        time.sleep(0.08 * self.is_typed)  # they compile the script first
        os.close(opener)
        os.close(gate)
        done = [call.end() for call in begun]
        errors = [process.communicate(timeout=120)[1] for process in typed]
        home.settle()
        killed = any(call.was_killed for call in done)
        self.ledger.case(racers=len(racers) + len(typed), typed=len(typed), killed=int(killed))
        where = f"[{' | '.join(' '.join(argv) for argv in racers)}{', two of them typed too' if typed else ''}{', one was killed' if killed else ''}]"
        self.look(where, done, errors, killed)
        home.at += 0 if self.is_typed else 300.0
        home.tick()
        home.settle()
        self.look(where + " and a tick later", [], [], killed)
        # Two that look at once may leave a start to each other: then the next tick makes it.
        missing = [name for name in self.names if not home.lines(name + ".starts")]
        self.ledger.check(not missing or killed, "not started at all:", where, missing)

    def type(self, argv):
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, str(SCRIPT), *argv], env=self.home.env, cwd=self.home.root, **streams)

    def look(self, where, done, errors, killed):
        check, home = self.ledger.check, self.home
        until = time.monotonic() + 5
        while home.managed_pids() and not home.lines("managed.starts") and time.monotonic() < until:
            time.sleep(0.002)
        strange = [call for call in done if call.code not in (0, 3, 4, 75, -9) or "Traceback" in call.err or "a bug" in call.err]
        check(not strange, "a racer fell:", where, strange)
        check(not any(b"Traceback" in text or b"a bug" in text for text in errors), "a typed racer fell:", where, errors)
        check(not home.lines("doubles"), "two at once:", where, home.lines("doubles"))
        for name in ("resumed", "restarted", "managed"):
            check(len(home.lines(name + ".starts")) <= 1, name, "was started twice:", where, home.memory(name))
        for name in ("due", "queued"):  # a killed run is run once more, and that is said
            check(len(home.lines(name + ".starts")) <= 1 + killed, name, "ran twice:", where, home.memory(name))


def prove(ledger, quick=False):
    is_typed = ledger.part % 10 == 9
    with Home(jobs(), ledger.rng.choice(["command", "api"])) as home:
        try:
            race = Race(ledger, home, is_typed)
            for _ in range(QUICK_RACES if quick else RACES):
                race.run()
        except Exception:
            ledger.broke("a race")
    return ledger.tally()
