"""Random walks over looks and clocks, against a small model that knows only CONTRACT's sentences.

Every walk takes one job with a policy at random and leads it through looks at random, while the
machine sleeps, its clock is set, it reboots, ticks are missed, and a person stops and starts the
job. The walks state what must never happen, and what must never fail to happen. A failure shows
the seed; `OPS_WALK_SEED=… python3 -m unittest tests.test_walks` walks that one alone.
"""

import json
import os
import random
import unittest
from typing import NamedTuple

from tests import ops

WALKS, STEPS = 100, 160
SIX_HOURS = 21600.0
START = 1.7e9
GAPS = (7.5, 60.0, 60.0, 60.0, 60.125, 61.5, 300.0, 900.0, 3600.0)  # seconds between ticks
SLEEPS = (60.0, 3600.0, 30000.0, 72 * 3600.0)
JUMPS = (3600.0, 86400.0, 365 * 86400.0)


class World:
    """The clocks of a machine that is treated badly."""

    def __init__(self, rng):
        self.rng, self.at, self.awake, self.boot, self.minute_shift = rng, START, 1000.0, 1, 0
        self.was_set_back = False

    @property
    def now(self):
        return ops.Instant(self.at, self.awake, f"boot-{self.boot}", int(self.at // 60 + self.minute_shift) % 1440)

    def go_on(self):
        """Time until the next tick; sometimes a tick is missed, the machine sleeps, the clock jumps."""
        self.was_set_back = False
        gap = self.rng.choice(GAPS)
        self.at += gap
        self.awake += gap
        chance = self.rng.random()
        if chance < 0.04:
            self.at += self.rng.choice(SLEEPS)
        elif chance < 0.06:
            self.at += self.rng.choice(JUMPS)
        elif chance < 0.08:
            self.at -= self.rng.choice(JUMPS)
            self.was_set_back = True
        elif chance < 0.09:
            self.boot, self.awake = self.boot + 1, self.rng.choice([1.0, 50.0, self.awake + 5.0])
        elif chance < 0.10:
            self.minute_shift += self.rng.choice([60, -60])


def random_policy(rng):
    return {
        "stallSeconds": rng.choice([0, 300, 3600]),
        "onStall": rng.choice(["alert", "alert", "restart"]),
        "autoResume": rng.random() < 0.75,
        "autoResumeBackoffSeconds": rng.choice([0, 60, 900, 7200]),
        "autoResumeMaxAttempts": rng.choice([0, 1, 3, 5]),
        "alertAfter": rng.choice([1, 1, 1, 2, 3]),
        "alertRepeatSeconds": rng.choice([0, 600, 14400]),
        "reportEverySeconds": rng.choice([0, 1800]),
        "reportWhileRunning": rng.random() < 0.6,
        "onlyOnChange": rng.random() < 0.7,
        "minReportSeconds": rng.choice([0, 300]),
        "quietHours": rng.choice([{}, {"start": "00:00", "end": "00:00"}, {"start": "12:00", "end": "20:30"}]),
    }


def random_job(rng):
    commands = {"start": ["start"], "status": ["status"]}
    if rng.random() < 0.6:
        commands["stop"] = ["stop"]
    return ops.make_job(
        {
            "id": "walker", "kind": "long_running_read", "risk": rng.choice(["read_only"] * 5 + ["write_local"]), "enabled": True,
            "commands": commands, "policy": random_policy(rng), "after": [{"jobId": "next"}],
        }, {}, 0,
    )  # fmt: skip


class Job(NamedTuple):
    """How one walk's job behaves: whether it says a key, a pid, a run."""

    says_key: float
    says_pid: bool
    moves: float
    breaks: float

    @classmethod
    def at_random(cls, rng):
        return cls(rng.choice([0.0, 0.9, 1.0]), rng.random() < 0.5, rng.choice([0.02, 0.3]), rng.choice([0.02, 0.2]))


class Life:
    """What the job really does, from look to look."""

    def __init__(self, rng):
        self.rng, self.job, self.state, self.key, self.pid = rng, Job.at_random(rng), ops.RUNNING, 0, 100

    def begin(self):
        self.state, self.pid = ops.RUNNING, self.pid + 1

    def look(self, when):
        rng, job = self.rng, self.job
        if rng.random() < job.breaks:
            self.state = rng.choice([ops.STOPPED, ops.STOPPED, ops.COMPLETED, ops.IDLE, ops.RUNNING])
            if self.state == ops.RUNNING and rng.random() < 0.5:
                self.begin()
        if self.state == ops.RUNNING and rng.random() < job.moves:
            self.key += 1
        if rng.random() < 0.06:
            return ops.Observation(when, ops.UNKNOWN, problem=ops.Phrase(rng.choice(["status.json", "status.empty"])))
        is_running = self.state == ops.RUNNING
        return ops.Observation(
            when, self.state, key=f"key {self.key}" if rng.random() < job.says_key else "",
            pid=self.pid if is_running and job.says_pid else 0, run=f"run {self.pid}" if job.says_pid else "",
            progress={"done": self.key} if rng.random() < 0.5 else {}, level=rng.choice(["ok"] * 6 + ["warn", "alert"]), message="words",
            waiting=is_running and rng.random() < 0.08, stop_reason=rng.choice(["", "exit 1", "exit 2", "killed"]),
            resumable=rng.random() < 0.97,
        )  # fmt: skip


class Model:
    """The contract, said a second time and more slowly: whole lists instead of running sums."""

    def __init__(self, job):
        self.policy, self.job = job.policy, job
        self.looks = []  # looks of this boot since the last new key, new run or restart
        self.last_known = None  # the last look that was not unknown
        self.attempts, self.attempt_at, self.attempt_key, self.running_since = 0, 0.0, "", None
        self.last_key = self.last_run = ""
        self.is_held = self.has_given_up = False
        self.open = set()  # incidents that a person was told of
        self.told_at, self.is_flapping = [], False  # openings and closings told one by one
        self.is_completion_told = self.is_completion_queued = False

    def mend(self, now):
        """The clock was set back: what lies in the future is now."""
        self.attempt_at = min(self.attempt_at, now.at)
        if self.running_since is not None:
            self.running_since = min(self.running_since, now.at)

    def see(self, look):
        if self.looks and self.looks[-1].when.boot != look.when.boot:
            self.looks = []
        if look.state != ops.UNKNOWN:
            self.see_known(look)
        self.looks.append(look)

    def see_known(self, look):
        is_new_run = self.last_known is not None and (self.last_known.state != ops.RUNNING or self.last_known.run != look.run)
        is_new_key = bool(look.key) and look.key != self.last_key
        if look.state != ops.RUNNING:
            self.running_since = None
        else:
            if is_new_run or is_new_key:
                self.looks = []
            if self.running_since is None:
                self.running_since = look.when.at
            self.is_completion_told = self.is_completion_queued = False
        if (look.key or look.state == ops.RUNNING) and self.has_recovered(look):  # a key is new whenever it is seen
            self.attempts = 0
        if look.run and self.last_run and look.run != self.last_run:
            self.is_completion_told = self.is_completion_queued = False
        self.last_known, self.last_key, self.last_run = look, look.key or self.last_key, look.run or self.last_run

    def has_recovered(self, look):
        if self.has_given_up or not self.attempts:
            return False
        if look.key:
            return look.key != self.attempt_key
        return look.when.at - max(self.running_since, self.attempt_at) > self.wait

    @property
    def wait(self):
        """Seconds of the back-off after the latest attempt."""
        return min(self.policy.auto_resume_backoff_seconds * 2 ** (self.attempts - 1), SIX_HOURS)

    @property
    def stalled_for(self):
        """Awake seconds between neighbouring running looks with one key."""
        pairs = zip(self.looks, self.looks[1:])
        return sum(b.when.awake - a.when.awake for a, b in pairs if self.counts(a) and self.counts(b))

    @staticmethod
    def counts(look):
        return look.state == ops.RUNNING and bool(look.key) and not look.waiting

    def is_stalled(self, look):
        return bool(self.policy.stall_seconds) and self.counts(look) and self.stalled_for >= self.policy.stall_seconds

    def may_start(self, look, now):
        """Whether the contract wants an automatic start (or restart) now."""
        wants = self.policy.auto_resume and look.state == ops.STOPPED
        if self.policy.on_stall == "restart" and self.job.commands.stop:
            wants = wants or self.is_stalled(look)
        most = self.policy.auto_resume_max_attempts
        if not wants or self.job.risk != "read_only" or self.is_held or self.has_given_up or not look.resumable:
            return False
        if most and self.attempts >= most:
            return False
        return not self.attempts or now.at >= self.attempt_at + self.wait

    def attempt(self, now):
        self.attempts += 1
        self.attempt_at, self.attempt_key, self.looks = now.at, self.last_key, self.looks[-1:]

    def start_by_hand(self):
        self.is_held = self.has_given_up = False
        self.attempts = 0


def through_json(memory, now):
    return ops.thaw(ops.Memory, json.loads(json.dumps(ops.freeze(memory))), now.at)


class Walk:
    """One job, one machine, one model, step by step."""

    def __init__(self, test, seed):
        self.test, self.rng = test, random.Random(seed)
        self.job, self.world, self.life = random_job(self.rng), World(self.rng), Life(self.rng)
        self.model, self.memory = Model(self.job), ops.Memory()
        self.reasons, self.tellings = set(), set()

    def step(self):
        self.world.go_on()
        now = self.world.now
        self.remember(now)
        self.model.mend(now)
        self.interfere(now)
        if self.rng.random() < 0.03:
            self.check_old_look(now)
        look = self.life.look(now)
        self.model.see(look)
        decision = ops.decide_long(self.job, look, self.memory, now)
        self.memory = decision.memory
        self.reasons.update(reason.key for reason in decision.reasons.values())
        self.tellings.update(effect.telling for effect in decision.effects if isinstance(effect, ops.Notify))
        self.check_start(look, decision, now)
        self.check_stall(look, decision)
        self.check_completion(look, decision)
        self.check_incidents(decision)
        self.check_flapping(decision, now)
        self.check_quiet(decision, now)
        if any(isinstance(effect, ops.Resume) for effect in decision.effects):
            self.attempt(look, now)
        elif look.state == ops.STOPPED and decision.why("resume") == "resume.gave_up":
            self.model.has_given_up = True

    def remember(self, now):
        """The memory goes to disk and back, and is the same, except what a clock set back mends."""
        read = through_json(self.memory, now)
        if not self.world.was_set_back:
            self.test.assertEqual(read, self.memory, "the state file changed the memory")
        self.test.assertEqual(through_json(read, now), read)
        late = [name for name, value in read._asdict().items() if name.endswith("_at") and value > now.at]
        self.test.assertEqual(late, [], "an event of the past is dated in the future")
        self.memory = read

    def interfere(self, now):
        """A person now and then."""
        chance = self.rng.random()
        if chance < 0.01:
            self.memory, self.model.is_held = self.memory._replace(held_at=now.at), True
            self.life.state = ops.STOPPED
        elif chance < 0.03:
            self.memory = ops.wanted_again(self.memory)
            self.model.start_by_hand()
            self.life.begin()

    def check_old_look(self, now):
        """A look that was made before the last one judged says nothing any more."""
        if self.memory.boot == now.boot and self.memory.looked_awake > 1:
            old = ops.Observation(now._replace(awake=self.memory.looked_awake - 1), self.rng.choice([ops.STOPPED, ops.UNKNOWN, ops.COMPLETED]))
            self.test.assertEqual(ops.decide_long(self.job, old, self.memory, now)[:2], (self.memory, ()))

    def attempt(self, look, now):
        begun = ops.begin_attempt(self.job, look, self.memory, now, "marker")
        again = ops.decide_long(self.job, look, begun.memory, now)
        self.test.assertFalse([effect for effect in again.effects if isinstance(effect, ops.Resume)], "an intention does not block")
        self.model.attempt(now)
        self.model.open.update(effect.kind for effect in begun.effects)
        self.memory = ops.end_action(begun.memory)
        if self.rng.random() < 0.7:
            self.life.begin()

    def check_start(self, look, decision, now):
        starts = [effect for effect in decision.effects if isinstance(effect, ops.Resume)]
        if look.state == ops.UNKNOWN or self.model.is_held or self.model.has_given_up or self.job.risk != "read_only":
            self.test.assertEqual(starts, [])
        if starts and self.model.attempts:
            self.test.assertGreaterEqual(now.at, self.model.attempt_at + self.model.wait, "inside the back-off")
        expected = self.model.may_start(look, now)
        self.test.assertEqual(bool(starts), expected, f"{decision.why('resume')} {look} {self.job.policy}")
        self.test.assertLessEqual(len(starts), 1)

    def check_stall(self, look, decision):
        self.test.assertAlmostEqual(decision.memory.stalled_for if look.state == ops.RUNNING else 0.0,
                                    self.model.stalled_for if look.state == ops.RUNNING else 0.0, 3)  # fmt: skip
        incident = decision.memory.incidents.get("stalled")
        news = [effect.telling for effect in decision.effects if getattr(effect, "kind", "") == "stalled"]
        if "opened" in news:
            self.test.assertTrue(self.model.is_stalled(look), "a false stall")
        if self.model.is_stalled(look):
            self.test.assertIsNotNone(incident, "a stall came late")
            self.test.assertTrue(incident.opened_at or incident.looks < self.job.policy.alert_after)

    def check_completion(self, look, decision):
        told = [effect for effect in decision.effects if getattr(effect, "telling", "") == "completed"]
        queued = [effect for effect in decision.effects if isinstance(effect, ops.Enqueue)]
        if look.state != ops.COMPLETED:
            self.test.assertEqual((told, queued), ([], []))
            return
        self.test.assertFalse(told and self.model.is_completion_told, "a completion was told twice")
        self.test.assertEqual(len(queued), 0 if self.model.is_completion_queued else 1)
        self.model.is_completion_queued = True
        self.model.is_completion_told |= bool(told)

    def check_incidents(self, decision):
        """Between two openings of one incident stands a resolved; what was told never just vanishes."""
        for effect in decision.effects:
            telling = getattr(effect, "telling", "")
            if getattr(effect, "kind", "") == "flapping":
                self.test.assertEqual(telling, "resolved" if self.model.is_flapping else "opened")
            elif telling == "opened":
                self.test.assertNotIn(effect.kind, self.model.open, "opened twice")
                self.model.open.add(effect.kind)
            elif telling in ("worse", "changed", "reminder"):
                self.test.assertIn(effect.kind, self.model.open, f"{telling}, but never opened")
            elif telling == "resolved":
                self.test.assertIn(effect.kind, self.model.open, "resolved, but never told")
                self.model.open.discard(effect.kind)
        if decision.memory.flapping_at or self.model.is_flapping:  # single closings are not told
            self.model.open &= set(decision.memory.incidents)
        told = {kind for kind, incident in decision.memory.incidents.items() if incident.told_at}
        self.test.assertEqual(told, self.model.open)
        self.test.assertLessEqual(max([incident.texts for incident in decision.memory.incidents.values()], default=0), 5)

    def check_flapping(self, decision, now):
        """Not more than six openings and closings an hour, none while it is told as flapping."""
        mine = [effect for effect in decision.effects if getattr(effect, "kind", "") in ops.LONG_QUESTIONS]
        self.model.told_at = [at for at in self.model.told_at if now.at - 3600 < at <= now.at]
        self.model.told_at += [now.at for effect in mine if effect.telling in ("opened", "resolved")]
        self.test.assertLessEqual(len(self.model.told_at), 6)
        news = [effect.telling for effect in decision.effects if getattr(effect, "kind", "") == "flapping"]
        if self.model.is_flapping:
            self.test.assertEqual(mine, [], "single changes of a flapping job")
        self.model.is_flapping = "opened" in news or (self.model.is_flapping and "resolved" not in news)

    def check_quiet(self, decision, now):
        if not ops.quiet_left(self.job.policy, now.minute):
            return
        for effect in decision.effects:
            if isinstance(effect, ops.Notify):
                self.test.assertNotIn(effect.telling, ("routine", "completed"))
                self.test.assertFalse(effect.rank == ops.WARN and effect.kind != "flapping", "a warning in quiet hours")


class LongJobs(unittest.TestCase):
    def test_what_must_never_happen_to_a_long_job_never_does(self):
        alone = os.environ.get("OPS_WALK_SEED")
        reasons, tellings = set(), set()
        for seed in [int(alone)] if alone else range(WALKS):
            walk, step = Walk(self, seed), 0
            try:
                while step < STEPS:
                    walk.step()
                    step += 1
            except Exception as error:
                raise AssertionError(f"OPS_WALK_SEED={seed}, step {step}: {error}") from error
            reasons |= walk.reasons
            tellings |= walk.tellings
        if not alone:
            self.check_that_the_walks_went_everywhere(reasons, tellings)

    def check_that_the_walks_went_everywhere(self, reasons, tellings):
        """A walk that never leaves the house proves nothing."""
        self.assertLessEqual({"resume.now", "resume.backoff", "resume.unknown", "resume.gave_up", "resume.changed", "resume.moving", "resume.held",
                              "report.quiet_hours", "report.by_time", "report.by_change", "report.too_soon", "incident.quiet_hours",
                              "incident.not_yet", "incident.unsure", "incident.came_and_went", "incident.flapping"}, reasons)  # fmt: skip
        self.assertLessEqual({"opened", "worse", "changed", "reminder", "resolved", "routine", "completed"}, tellings)


class Mutes(unittest.TestCase):
    def test_a_muted_job_never_speaks_and_what_it_held_is_counted(self):
        for seed in range(30):
            rng = random.Random(f"mute {seed}")
            job, world, life, memory = random_job(rng), World(rng), Life(rng), ops.Memory()
            held = 0
            for step in range(80):
                world.go_on()
                now = world.now
                memory = through_json(memory, now)
                if rng.random() < 0.05:
                    memory = memory._replace(muted_at=now.at, muted_for=7200.0)
                look = life.look(now)
                unmuted = ops.decide_long(job, look, memory._replace(muted_for=0.0, muted_at=0.0, muted_count=0), now)
                decision = ops.decide_long(job, look, memory, now)
                where = f"seed {seed}, step {step}"
                said = [effect for effect in decision.effects if isinstance(effect, ops.Notify)]
                deeds = [[effect for effect in which.effects if not isinstance(effect, ops.Notify)] for which in (decision, unmuted)]
                self.assertEqual(*deeds, where)
                if ops.is_muted(memory, now):
                    held += len(unmuted.effects) - len(deeds[1])
                    self.assertEqual((said, decision.memory.muted_count), ([], held), where)
                elif memory.muted_for:
                    counted = [effect.phrase.facts["count"] for effect in said if effect.telling == "muted"]
                    self.assertEqual(sum(counted), held, where)
                    held = 0
                memory = decision.memory


class Checks(unittest.TestCase):
    def test_a_scheduled_check_runs_once_a_slot_whatever_the_clocks_do(self):
        for seed in range(40):
            rng = random.Random(f"check {seed}")
            world = World(rng)
            every = rng.choice([60, 600, 3600, 86400])
            check = {"id": "c", "kind": "one_shot_read", "risk": "read_only", "enabled": True, "commands": {"run": ["c"]}}
            job = ops.make_job({**check, "policy": {"everySeconds": every}}, {}, 0)
            memory, anchor, taken_at = ops.Memory(), None, None
            for step in range(100):
                world.go_on()
                now = world.now
                memory = through_json(memory, now)
                if anchor is not None:
                    anchor, taken_at = min(anchor, now.at), min(taken_at, now.at)
                    expected = (now.at - anchor) // every > (taken_at - anchor) // every
                else:
                    expected = True
                is_due = ops.due_reason(job, memory, now).key in ("due.first", "due.now")
                self.assertEqual(is_due, expected, f"seed {seed}, step {step}")
                if is_due:
                    anchor = now.at if anchor is None else anchor
                    taken_at = now.at
                    memory = ops.take_slot(job, memory, now, "marker")
                    self.assertEqual(ops.due_reason(job, through_json(memory, now), now).key, "due.unfinished")
                    outcome = ops.Outcome(now, now, code=rng.choice([0, 0, 1, -9]))
                    decision = ops.decide_run(job, outcome, memory, now, ops.Redactor(), scheduled=True)
                    self.assertLessEqual(len(decision.effects), 1)
                    memory = decision.memory


class Thawing(unittest.TestCase):
    """Whatever a state file holds, memory comes of it, and again the same memory."""

    JUNK = [None, True, 0, -1, 1.5, 1e308, 10**30, float("nan"), "", "text", [], [1], ["x", None], {}, {"a": {"toldAt": "x"}},
            {"stopped": {"toldAt": 1e12, "rank": "3"}}]  # fmt: skip

    def test_wrong_types_are_ignored_one_by_one(self):
        rng = random.Random(7)
        keys = [ops.camel(name) for name in ops.Memory._fields] + ["unknownKey"]
        for _ in range(600):
            raw = {key: rng.choice(self.JUNK) for key in rng.sample(keys, 12)}
            memory = ops.thaw(ops.Memory, raw, 1000.0)
            for name, value in memory._asdict().items():
                self.assertIs(type(value), type(getattr(ops.Memory(), name)), (name, raw))
            kept = ops.freeze(memory, raw)
            if "unknownKey" in raw:
                self.assertIn("unknownKey", kept)
            self.assertEqual(repr(ops.thaw(ops.Memory, kept, 1000.0)), repr(ops.thaw(ops.Memory, json.loads(json.dumps(kept)), 1000.0)))

    def test_one_wrong_value_costs_no_other(self):
        raw = {"attempts": 3, "heldAt": "yesterday", "incidents": {"stopped": {"openedAt": 5.0, "rank": None}, "level": 7}}
        memory = ops.thaw(ops.Memory, raw, 1000.0)
        self.assertEqual((memory.attempts, memory.held_at, set(memory.incidents)), (3, 0.0, {"stopped"}))
        self.assertEqual(memory.incidents["stopped"].opened_at, 5.0)

    def test_thawed_junk_can_be_judged(self):
        rng = random.Random(11)
        keys = [ops.camel(name) for name in ops.Memory._fields]
        for _ in range(300):
            job, now = random_job(rng), ops.Instant(1000.0, 10.0, "b", 600)
            memory = ops.thaw(ops.Memory, {key: rng.choice(self.JUNK) for key in rng.sample(keys, 15)}, now.at)
            for state in (ops.RUNNING, ops.STOPPED, ops.COMPLETED, ops.UNKNOWN):
                ops.decide_long(job, ops.Observation(now, state, key="k"), memory, now)


if __name__ == "__main__":
    unittest.main()
