"""A tick, or a command by hand, is killed before each of its steps; then ticks come that are not.

A world is a home with a few actors, each a job at a moment when something is to happen to it: an alert
opens, repeats or resolves, a job is to be resumed, a check is due, a write is to be run and verified,
a person stops, acknowledges or mutes while a tick is under way.  The world is killed at every step of
that moment (one time in ten at any instant between two steps, one time in four once more while it
recovers), and after two clean ticks each actor says what must hold.
"""

from __future__ import annotations

import collections
import json
import os
import re
import time

from benchmarks.claims.home import NOON, Home, Kill, check, long_job, ops, write

CLAIM = "killed at any step: no alert lost, one duplicate a crash, nothing twice"
FULL, QUICK = 100, 1
KILLS = 100  # of one part
QUICK_KILLS = 25
MOVING = {"running": True, "progressKey": "7"}
STOPPED = {"progressKey": "5", "stopReason": "the disk went away"}
STARTS = "echo x >> {0}.starts; echo '{{\"running\": true, \"completed\": false, \"progressKey\": \"9\"}}' > {0}.status"


def told(home, *words):
    """How often a person has read a section that begins so."""
    return sum(text.count(f"{' · '.join(words)}\n") for text in home.told)


class Actor:
    """A job and the moment at which something happens to it."""

    wait = 60.0  # seconds until the moment
    once = ""  # the heading that a person must read, once or with each crash once more
    codes = (0,)
    config: dict = {}  # what else stands in the config

    def __init__(self, name):
        self.name = name

    def jobs(self):
        """What stands in the config."""
        return [long_job(self.name, reportWhileRunning=False, stallSeconds=0)]

    def before(self, home):
        """How it is at the ticks before the moment."""
        home.says(self.name, **MOVING)

    def moment(self, home):
        """What is different when the tick comes that dies."""

    def holds(self, ledger, home, crashes, where):
        """What must be so in the end."""
        if self.once:
            self.is_told(ledger, home, crashes, where)

    def is_told(self, ledger, home, crashes, where):
        """A person has read it, and the same words not more than once again with each crash."""
        heading = f"{self.once} · {self.name}"
        told = [re.sub(r"(?m)^\((late|possible repeat).*\n", "", text) for message in home.told for text in message.split("\n\n")]
        found = collections.Counter(text for text in told if heading + "\n" in text)
        count = max(found.values(), default=0)
        ledger.check(1 <= count <= 1 + crashes, f"{heading} was told {count} times:", where, home.told)

    def once_in(self, ledger, home, where, name, most=1, least=0):
        count = len(home.lines(name))
        ledger.check(least <= count <= most, f"{name}: {count} times:", where, home.memory(self.name))
        return count


class Idle(Actor):
    """Nothing happens."""

    def holds(self, ledger, home, crashes, where):
        ledger.check(not any(f" · {self.name}\n" in text for text in home.told), "something was told of an idle job:", where, home.told)


class Opens(Actor):
    once = "ACTION REQUIRED"

    def moment(self, home):
        home.says(self.name, **STOPPED)


class Level(Actor):
    once = "ALERT"

    def moment(self, home):
        home.says(self.name, level="alert", message="the pond is empty", **MOVING)


class Unknown(Actor):
    once = "ALERT"

    def moment(self, home):
        home.put(f"{self.name}.status", "no JSON\n")


class Repeats(Actor):
    once, wait = "ACTION REQUIRED", 14500.0

    def before(self, home):
        home.says(self.name, **STOPPED)


class Resolves(Repeats):
    once, wait = "RESOLVED", 60.0

    def moment(self, home):
        home.says(self.name, **MOVING)


class Completes(Actor):
    once = "COMPLETED"

    def jobs(self):
        follow = check(self.name + "-then", f"echo x >> {self.name}.followed")
        return [{**super().jobs()[0], "after": [{"jobId": follow["id"]}]}, follow]

    def moment(self, home):
        home.says(self.name, completed=True)

    def holds(self, ledger, home, crashes, where):
        super().holds(ledger, home, crashes, where)
        queued = [entry for entry in home.state["queue"] if entry["jobId"] == self.name + "-then"]
        ledger.check(len(queued) == 1, "what follows a completion is queued once:", where, queued)
        self.once_in(ledger, home, where, self.name + ".followed", 1 + crashes)


class Resumes(Actor):
    once = "AUTORUN"
    policy = {"autoResume": True, "autoResumeBackoffSeconds": 1, "startTimeoutSeconds": 20, "reportWhileRunning": False}

    def jobs(self):
        return [long_job(self.name, STARTS.format(self.name), **self.policy)]

    def moment(self, home):
        home.says(self.name, **STOPPED)

    def holds(self, ledger, home, crashes, where):
        super().holds(ledger, home, crashes, where)
        self.once_in(ledger, home, where, self.name + ".starts", least=0 if crashes > 1 else 1)


class Restarts(Resumes):
    policy = {**Resumes.policy, "onStall": "restart", "stallSeconds": 2000, "stopTimeoutSeconds": 5}
    wait = 2100.0

    def jobs(self):
        stop = f"echo '{{\"running\": false, \"completed\": false}}' > {self.name}.status"
        return [long_job(self.name, STARTS.format(self.name), stop, **self.policy)]

    def before(self, home):
        home.says(self.name, **MOVING)

    def moment(self, home):
        pass

    def holds(self, ledger, home, crashes, where):
        self.is_told(ledger, home, crashes, where)
        starts = self.once_in(ledger, home, where, self.name + ".starts")
        if not starts:  # the attempt came to nothing: the next stall is the next attempt
            home.at += self.wait
            home.tick()
            self.once_in(ledger, home, where, self.name + ".starts", least=1)


class Managed(Resumes):
    def jobs(self):
        job = long_job(self.name, **self.policy)
        job["managed"], job["commands"] = True, {"start": ["/bin/sh", "-c", f"echo x >> {self.name}.starts; exec sleep 600"]}
        return [job]

    def before(self, home):
        place = home.job_dir(self.name)
        os.makedirs(place, exist_ok=True)
        run = {"version": 1, "run": "first", "attempt": 1, "boot": ops.boot_identity(), "pid": 7, "processStart": "0", "startedAt": NOON}
        home.put(os.path.join(place, "run.json"), json.dumps({**run, "exitCode": 0, "endedAt": NOON}))

    def moment(self, home):
        path = os.path.join(home.job_dir(self.name), "run.json")
        home.put(path, home.read(path).replace('"exitCode": 0', '"exitCode": 3'))

    def holds(self, ledger, home, crashes, where):
        until = time.monotonic() + 5
        while home.managed_pids() and not home.lines(self.name + ".starts") and time.monotonic() < until:
            time.sleep(0.002)  # it is on record before it has written a line
        super().holds(ledger, home, crashes, where)


class Due(Actor):
    """A scheduled check whose slot comes, and which has something to say."""

    once, wait = "ALERT", 3700.0

    def jobs(self):
        return [check(self.name, f"echo x >> {self.name}.runs; cat {self.name}.says 2> /dev/null; exit 0", everySeconds=3600)]

    def before(self, home):
        pass

    def moment(self, home):
        home.put(f"{self.name}.says", "ALERT: the pond is empty\n")
        home.put(f"{self.name}.runs", "")

    def holds(self, ledger, home, crashes, where):
        super().holds(ledger, home, crashes, where)
        runs = self.once_in(ledger, home, where, self.name + ".runs", 1 + crashes, least=int(crashes < 2))
        if runs > 1:  # said, like every second run of a slot
            ledger.check("interrupted" in "".join(home.told), "a second run is not explained:", where, home.told)
        ledger.check(not home.memory(self.name).get("action"), "a run stays without a result:", where)


class Queued(Due):
    """A queued read that fails, and is followed by another."""

    wait = 60.0

    def jobs(self):
        follow = check(self.name + "-then", f"echo x >> {self.name}.followed")
        first = check(self.name, f"echo x >> {self.name}.runs; exit 3")
        return [{**first, "after": [{"jobId": follow["id"], "when": "failure"}]}, follow]

    def moment(self, home):
        home.call("enqueue", self.name)

    def holds(self, ledger, home, crashes, where):
        super().holds(ledger, home, crashes, where)
        queued = [entry for entry in home.state["queue"] if entry["jobId"] == self.name + "-then"]
        least = 0 if crashes > 1 else 1  # a run that is interrupted twice is given up, and said to be
        ledger.check(least <= len(queued) <= 1, "what follows a run is queued once:", where, queued)


class Unmutes(Actor):
    """A mute ends while something is open: it is told then."""

    once, wait = "ACTION REQUIRED", 600.0

    def before(self, home):
        if not home.memory(self.name):
            home.says(self.name, **MOVING)
        else:
            home.call("mute", self.name, "--for", "500")
            home.says(self.name, **STOPPED)


class Broken(Actor):
    """The config gets an error: told, and the others are looked at as before."""

    codes = (0, 2)

    def moment(self, home):
        home.config["jobs"].append({"id": "wrong", "kind": "nonsense"})
        home.configure()
        del home.config["jobs"][-1]

    def holds(self, ledger, home, crashes, where):
        count = sum(text.count("wrong") > 0 for text in home.told)
        ledger.check(1 <= count <= 1 + crashes, f"the config's error was told {count} times:", where, home.told)


class Digest(Actor):
    """The minute of the daily digest has come: it is told once, whatever else happens."""

    config = {"monitor": {"digestAt": "12:02"}}

    def jobs(self):
        return []

    def before(self, home):
        pass

    def holds(self, ledger, home, crashes, where):
        count = sum("daily digest" in text for text in home.told)
        ledger.check(1 <= count <= 1 + crashes, f"the digest was told {count} times:", where, home.told)


class Lost(Actor):
    """The state file is no state any more."""

    once = "ALERT"

    def __init__(self, name):
        super().__init__("ops-monitor itself")

    def jobs(self):
        return []

    def before(self, home):
        pass

    def moment(self, home):
        home.put(home.state_path, b"\0" * 200)

    def holds(self, ledger, home, crashes, where):
        count = told(home, "ALERT", self.name)
        ledger.check(1 <= count <= 1 + 2 * crashes, f"the lost state was told {count} times:", where, home.told)


class Verifies(Actor):
    """A write has run; the tick runs its verification."""

    def jobs(self):
        verify = check(self.name + "-verify", f"echo x >> {self.name}.verified; test -s {self.name}.written")
        return [write(self.name, f"echo x >> {self.name}.written", verify["id"]), verify]

    def before(self, home):
        if home.state:
            approve(home, self.name)
            home.call("run", self.name)

    def holds(self, ledger, home, crashes, where):
        self.once_in(ledger, home, where, self.name + ".written", least=1)
        runs = self.once_in(ledger, home, where, self.name + ".verified", 1 + crashes, 1)
        gate = home.state["gates"][self.name]
        ledger.check(gate["verify"] == "passed" or runs > 1, "the verification came to nothing:", where, gate)


ACTORS = (Idle, Opens, Level, Unknown, Repeats, Resolves, Completes, Resumes, Restarts, Managed, Due, Queued, Unmutes, Broken, Verifies, Digest)


def approve(home, name):
    """A person approves one run of a write."""
    shown = home.call("approve", name, "--show").out
    home.call("approve", name, "--digest", shown.rpartition("digest: ")[2].strip())


# ---- worlds: what is killed, and what then must hold


class TickWorld:
    """A tick with its actors is killed."""

    def __init__(self, ledger):
        rng = ledger.rng
        kinds = [Lost] if rng.random() < 0.05 else rng.sample(ACTORS, rng.randint(1, 4))
        self.actors = [kind(f"{kind.__name__.lower()}-{rng.randint(10, 99)}") for kind in kinds]
        self.title = "tick with " + ", ".join(actor.name for actor in self.actors)
        self.codes = {code for actor in self.actors for code in actor.codes}

    def jobs(self):
        return [job for actor in self.actors for job in actor.jobs()]

    @property
    def config(self):
        return {key: value for actor in self.actors for key, value in actor.config.items()}

    def prepare(self, home):
        for _ in range(2):
            for actor in self.actors:
                actor.before(home)
            home.tick()
            home.at += 60.0
        home.at += max(actor.wait for actor in self.actors) - 60.0
        for actor in self.actors:
            actor.moment(home)

    def act(self, home, seam):
        return home.begin("tick", seam=seam)

    def meanwhile(self, home):
        """What runs beside it; ended by `after`."""

    def after(self, home):
        pass

    def holds(self, ledger, home, crashes, where):
        for actor in self.actors:
            actor.holds(ledger, home, crashes, where)


class HandWorld(TickWorld):
    """A command by hand and a tick at once; one of them is killed."""

    WORDS = {"stop": ("stop",), "ack": ("ack",), "mute": ("mute", "--for", "9h"), "start": ("start",)}

    def __init__(self, ledger):
        self.rng = ledger.rng
        self.word = self.rng.choice(list(self.WORDS))
        self.kills_tick = self.rng.random() < 0.6
        actor = Resumes if self.word in ("stop", "start") else Repeats
        self.actors = [actor("hand")]
        self.title = f"{self.word} beside a tick, {'the tick' if self.kills_tick else 'the command'} is killed"
        self.codes = {0}

    def argv(self):
        word, *flags = self.WORDS[self.word]
        return [word, "hand", *flags]

    def act(self, home, seam):
        self.begun, since = [], time.monotonic()
        first, second = (["tick"], self.argv()) if self.kills_tick else (self.argv(), ["tick"])
        if self.rng.random() < 0.5:
            self.begun.append(home.begin(*second, since=since))
            time.sleep(self.rng.random() * 0.01)
        killed = home.begin(*first, seam=seam, since=since)
        if not self.begun:
            time.sleep(self.rng.random() * 0.01)
            self.begun.append(home.begin(*second, since=since))
        return killed

    def after(self, home):
        self.second = self.begun.pop().end()
        home.settle()
        self.starts = len(home.lines("hand.starts"))

    def holds(self, ledger, home, crashes, where):
        where = f"{where}, the other: {self.second}"
        ledger.check("Traceback" not in self.second.err and self.second.code in (0, 1, 4, 75), "the other one:", where)
        is_done = self.kills_tick and self.second.code in (0, 1)
        getattr(self, "after_" + self.word)(ledger, home, is_done, where)
        ledger.check(len(home.lines("hand.starts")) <= 1, "started twice:", where)

    def after_stop(self, ledger, home, is_done, where):
        if is_done:
            ledger.check(home.memory("hand").get("heldAt"), "a stop was forgotten:", where, home.memory("hand"))
        if home.memory("hand").get("heldAt"):
            ledger.check(len(home.lines("hand.starts")) == self.starts, "what is held was started:", where)

    def after_start(self, ledger, home, is_done, where):
        if is_done and self.second.code == 0:
            ledger.check(home.lines("hand.starts"), "a start that said so did not start:", where)

    def after_ack(self, ledger, home, is_done, where):
        acked = home.memory("hand")["incidents"]["stopped"].get("ackedAt")
        if is_done:
            ledger.check(acked, "an ack was forgotten:", where, home.memory("hand"))
        home.at += 30000.0
        home.forget_told()
        home.tick()
        count = told(home, "ACTION REQUIRED", "hand")
        ledger.check(count == (0 if acked else 1), f"reminders after an ack ({bool(acked)}): {count}:", where)

    def after_mute(self, ledger, home, is_done, where):
        muted = home.memory("hand").get("mutedFor")
        if is_done:
            ledger.check(muted, "a mute was forgotten:", where, home.memory("hand"))
        home.at += 30000.0
        home.forget_told()
        home.tick()
        count = told(home, "ACTION REQUIRED", "hand")
        ledger.check(count == (0 if muted else 1), f"messages while muted ({bool(muted)}): {count}:", where)


class WriteWorld(TickWorld):
    """`run WRITE --verify` is killed."""

    def __init__(self, ledger):
        self.actors = []
        self.title = "a write with verification"
        self.codes = {0}
        self.fails = ledger.rng.random() < 0.3

    def jobs(self):
        verify = check("w-verify", "echo x >> verified; test -s written")
        return [write("w", "echo x >> written; exit " + str(3 * self.fails), verify["id"]), verify]

    def prepare(self, home):
        home.tick()
        approve(home, "w")
        home.at += 60.0

    def act(self, home, seam):
        return home.begin("run", "w", "--verify", seam=seam)

    def holds(self, ledger, home, crashes, where):
        written, verified = len(home.lines("written")), len(home.lines("verified"))
        gate = home.state["gates"]["w"]
        unknown = told(home, "ALERT", "w") and gate.get("run") == "unknown"
        where = f"{where}, written {written}, verified {verified}, gate {gate}"
        ledger.check(written <= 1, "a write ran twice:", where)
        ledger.check(bool(gate.get("digest")) == (not gate.get("run")), "an approval is used up by a run and by nothing else:", where)
        ledger.check(not written or gate.get("run") in ("good", "failed", "unknown"), "a write that ran is not on record:", where)
        ledger.check(gate.get("run") != "unknown" or unknown, "an unknown outcome is not told:", where, home.told)
        if gate.get("run") == "good":
            ledger.check(gate["verify"] == "passed" and verified, "a good write is not verified:", where)
        if gate.get("run") == "failed":
            ledger.check(1 <= told(home, "ALERT", "w") <= 1 + crashes, "a failed write is told once:", where, home.told)
        again = home.call("run", "w")
        ledger.check(again.code == (4 if gate.get("run") else 3 * 0 if not self.fails else 1), "a second run:", where, again)
        ledger.check(len(home.lines("written")) == (written or 1 - bool(gate.get("run"))), "a second run ran:", where, again)


def make_world(ledger):
    chance = ledger.rng.random()
    return (WriteWorld if chance < 0.12 else HandWorld if chance < 0.3 else TickWorld)(ledger)


# ---- killing


class Trial:
    """One world, killed again and again from the same moment."""

    def __init__(self, ledger, home, world):
        self.ledger, self.home, self.world = ledger, home, world
        world.prepare(home)
        home.settle()
        home.forget_told()
        self.start = home.snapshot()
        began = time.monotonic()
        whole = self.once(None)
        self.duration, self.steps = time.monotonic() - began, len(whole.steps)
        ledger.check("Traceback" not in whole.err, "not killed:", world.title, whole)

    def once(self, seam):
        """The moment, with or without its end."""
        begun = self.world.act(self.home, seam)
        ended = begun.end()
        self.world.after(self.home)
        self.home.settle()
        return ended

    def kill(self, number):
        """Kill before step `number`, or (0) at any instant; then recover, and look."""
        rng, home, world = self.ledger.rng, self.home, self.world
        home.restore(self.start)
        if number:
            ended = self.once(Kill(number))
        else:
            begun = world.act(home, None)
            time.sleep(rng.random() * self.duration)
            begun.kill()
            ended = begun.end()
            world.after(home)
            home.settle()
        if not ended.was_killed:
            return
        crashes = 1
        where = f"[{world.title}, killed before step {len(ended.steps)} after {' '.join(ended.steps[-6:])}]"
        self.is_sound(where)
        if rng.random() < 0.25:
            home.at += 60.0
            again = home.tick(seam=Kill(rng.randint(1, self.steps)))
            home.settle()
            crashes += again.was_killed
            where += f" and its next tick before step {len(again.steps)} after {' '.join(again.steps[-6:])}"
            self.is_sound(where)
        for _ in range(2 if crashes == 1 else 3):
            home.at += 60.0
            clean = home.tick()
            home.settle()
            is_clean = clean.code in world.codes and (not clean.err or clean.code == 2)
            self.ledger.check(is_clean, "a clean tick is not clean:", where, clean)
        self.is_sound(where)
        world.holds(self.ledger, home, crashes, where)
        for _ in range(crashes):
            self.ledger.case(between_steps=int(not number))

    def is_sound(self, where):
        """The state file can be read by anybody; nothing was moved aside."""
        try:
            whole = isinstance(self.home.state, dict)
        except ValueError:
            whole = isinstance(self.world.actors[0], Lost) and "\0" in self.home.read(self.home.state_path)
        self.ledger.check(whole, "the state is torn:", where)


def prove(ledger, quick=False):
    wanted = QUICK_KILLS if quick else KILLS
    while ledger.cases < wanted:
        world = make_world(ledger)
        with Home(world.jobs(), ledger.rng.choice(["command", "api"]), **world.config) as home:
            try:
                trial = Trial(ledger, home, world)
                numbers = list(range(1, trial.steps + 1))
                numbers += [0] * (len(numbers) // 10)
                ledger.rng.shuffle(numbers)
                for number in numbers[: wanted - ledger.cases]:
                    trial.kill(number)
            except Exception:
                ledger.broke(world.title)
                return ledger.tally()
    return ledger.tally()
