"""Days of trouble, played minute by minute, and how many messages a person gets.

Each part is one day of jobs that are wrong in each way there is and stay so, one day of jobs that go wrong
and right again every so many minutes, and the moment at which a thousand jobs are in trouble together and
recover together.
"""

from __future__ import annotations

import collections

from benchmarks.claims.stage import Stage, job, ops, status

CLAIM = "few messages: 5 for an unchanged day, 8 for a flapping one, 5 for 1,000 jobs at once"
FULL, QUICK = 16, 1
DAY_MINUTES, QUICK_MINUTES = 1440, 300
MOST_UNCHANGED, MOST_FLAPPING, MOST_AT_ONCE = 5, 8, 5
CROWD, QUICK_CROWD = 1000, 200
RUNNING = {"running": True, "progressKey": "7"}

# Each way to be wrong: (kind of job, policy, what it answers while it is, and while it is not, at a minute).
WAYS = {
    "unknown": (ops.LONG_READ, {}, lambda minute: b"no JSON", lambda minute: status(**RUNNING)),
    "stopped": (ops.LONG_READ, {}, lambda minute: status(stopReason=f"exit {minute}"), lambda minute: status(**RUNNING)),
    "alert": (ops.LONG_READ, {}, lambda minute: status(level="alert", message=f"{minute} of 1440 lost", **RUNNING), lambda minute: status(**RUNNING)),
    "warn": (ops.LONG_READ, {}, lambda minute: status(level="warn", message=f"{minute} of 1440 lost", **RUNNING), lambda minute: status(**RUNNING)),
    "stalled": (ops.LONG_READ, {"stallSeconds": 30}, lambda minute: status(**RUNNING), lambda minute: status(running=True, progressKey=f"{minute}")),
    "failing": (ops.CHECK, {"everySeconds": 60}, lambda minute: {"code": 3, "err": f"row {minute} is wrong".encode()}, lambda minute: b""),
    "attention": (ops.CHECK, {"everySeconds": 60}, lambda minute: {"attention": (f"ALERT: row {minute}".encode(),)}, lambda minute: b""),
    "in turns": (ops.LONG_READ, {}, lambda minute: b"no JSON" if minute % 2 else {"code": 3}, lambda minute: status(**RUNNING)),
    "given up": (ops.LONG_READ, {"autoResume": True, "autoResumeMaxAttempts": 1, "autoResumeBackoffSeconds": 60},
                 lambda minute: status(stopReason="exit 3"), lambda minute: status(running=True, progressKey=f"{minute}")),
}  # fmt: skip
RESUMED = {"autoResume": True, "autoResumeBackoffSeconds": 60}


def messages_about(told, names):
    """Name -> messages with a section on it."""
    counts = collections.Counter()
    for text in told:
        counts.update(name for name in names if f" · {name}\n" in text)
    return counts


class Day:
    """A day of some jobs; each is wrong when its function of the minute says so."""

    def __init__(self, ways, policy=None):
        self.minute = 0
        self.ways = ways  # name -> (way, is it wrong at this minute)
        usual = {"reportWhileRunning": False, "stallSeconds": 0}
        jobs = [job(name, WAYS[way][0], policy={**usual, **WAYS[way][1], **(policy or {})}) for name, (way, _) in ways.items()]
        self.stage = Stage(jobs, self.answer)

    def answer(self, name, word, command):
        if word in ("start", "stop"):
            return b""
        way, is_wrong = self.ways[name]
        return WAYS[way][2 if is_wrong(self.minute) else 3](self.minute)

    def live(self, minutes):
        """What a person was told in this time."""
        with self.stage as stage:
            for _ in range(minutes):
                stage.tick()
                stage.pass_time(60.0)
                self.minute += 1
            return stage.told


def prove_unchanged(ledger, minutes):
    begins = ledger.rng.randint(1, 30)
    day = Day({f"{way} all day": (way, lambda minute: minute >= begins) for way in WAYS})
    told = day.live(minutes)
    counts = messages_about(told, day.ways)
    for name in day.ways:
        ledger.case(unchanged_days=1)
        most = MOST_UNCHANGED + name.startswith("in turns")  # it is told both its texts
        ledger.check(1 <= counts[name] <= most, f"{name}: {counts[name]} messages in {minutes} minutes", told)


def prove_flapping(ledger, minutes):
    rng = ledger.rng
    ways = {}
    for way in WAYS:
        if way == "in turns":
            continue
        period, begins = rng.choice([1, 1, 2, 2, 3, 4, 5, 6, 7, 8]), rng.randint(0, 30)
        ways[f"{way} every {period}"] = (way, lambda minute, period=period, begins=begins: minute >= begins and (minute - begins) // period % 2 == 0)
    day = Day(ways, rng.choice([{}, {}, {"alertAfter": 2}, RESUMED]))
    told = day.live(minutes)
    counts = messages_about(told, ways)
    for name in ways:
        ledger.case(flapping_days=1)
        own = [text for text in told if f" · {name}\n" in text]
        policy = day.stage.config["jobs"][0]["policy"]
        ledger.check(counts[name] <= MOST_FLAPPING, f"{name} ({policy}): {counts[name]} messages in {minutes} minutes", own[-12:])


def prove_crowd(ledger, size):
    rng = ledger.rng
    ways = {f"job {number}": (rng.choice(list(WAYS)), lambda minute: minute == 1) for number in range(size)}
    day = Day(ways, {"onlyOnChange": False, "reportEverySeconds": 0})
    with day.stage as stage:
        for day.minute in range(3):
            stage.told.clear()
            stage.tick()
            stage.pass_time(60.0)
            ledger.check(len(stage.told) <= MOST_AT_ONCE, f"{size} jobs, minute {day.minute}: {len(stage.told)} messages")
            ledger.check(day.minute != 1 or stage.told, f"{size} jobs in trouble, and nobody hears of it")
            ledger.check(all(ops.utf16_length(text) <= 4000 for text in stage.told), "a message is too long")
        left = stage.state["outbox"]
        ledger.check(len(left) <= ops.OUTBOX_LIMIT, f"{len(left)} sections wait")
    ledger.case(crowds=1)


def prove(ledger, quick=False):
    minutes = QUICK_MINUTES if quick else DAY_MINUTES
    for proof, amount in ((prove_unchanged, minutes), (prove_flapping, minutes), (prove_crowd, QUICK_CROWD if quick else CROWD)):
        try:
            proof(ledger, amount)
        except Exception:
            ledger.broke(proof.__name__)
    return ledger.tally()
