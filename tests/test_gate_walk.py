"""No path leads to a write: walks at random over configs, queues, chains and states.

Every walk is an installation whose writes, and everything else that is not read_only, would leave a
line in the file `written`. Their gates are in every combination of approved, begun, pending and
nonsense; the queue names them; chains lead to them. Ticks and commands go by, also over a clock that
jumps, and the file must not appear. Only `run` may make it, and the last step proves that it can.
A failure shows the seed; `OPS_WALK_SEED=… python3 -m unittest tests.test_gate_walk` walks that one alone.
"""

import os
import random
import time
import unittest

from tests import ops
from tests.test_engine import sh
from tests.test_gate import Gatehouse, proof, write

WALKS, TICKS = 12, 3
LEAVE_A_LINE = 'echo "$OPS_RUN" >> written'
WRITES = ("w", "w2", "写")
READS = ("v", "v2", "watch")


def random_after(rng, names):
    """Some of these names as a chain."""
    entries = []
    for name in rng.sample(names, min(len(names), rng.randrange(3))):
        entries.append({"jobId": name, "when": rng.choice(["success", "failure", "always"]), "delaySeconds": rng.choice([0, 0, 0.5, 60])})
    return entries


def random_jobs(rng):
    """Reads that lead to writes, writes that lead to writes, and jobs that only pretend to be reads."""
    policy = {"everySeconds": rng.choice([0, 1, 60]), "autoResume": True, "autoResumeBackoffSeconds": 0, "onStall": "restart", "stallSeconds": 1}
    jobs = []
    for name in WRITES:
        after = [{"jobId": "v", "when": rng.choice(["success", "always"])}, *random_after(rng, WRITES[WRITES.index(name) + 1 :])]
        more = {"enabled": rng.random() < 0.8, "policy": policy if rng.random() < 0.7 else {}}
        if rng.random() < 0.5:
            more["approval"] = rng.choice([{"granted": True}, {"required": False}, {"required": False, "granted": True, "ttlSeconds": 10**9}])
        more["risk"] = rng.choice(["write_local", "write_external", "read_only"])
        jobs.append(write(*sh(LEAVE_A_LINE), job_id=name, after=after, **more))
    jobs.append({**proof(rng.choice(["true", "false", "echo ALERT"]), "v", **policy), "after": []})
    jobs.append({**proof(rng.choice(["true", "false"]), "v2", **policy), "after": random_after(rng, WRITES)})
    for name, risk in (("watch", "read_only"), ("mill", "write_local"), ("kiln", "write_external")):
        start = ":" if risk == "read_only" else LEAVE_A_LINE
        commands = {"start": sh(start), "status": sh(f"cat {name}.status"), "stop": sh(start)}
        jobs.append({"id": name, "kind": "long_running_read", "risk": risk, "enabled": True, "commands": commands, "policy": policy,
                     "after": random_after(rng, [*WRITES, "v2"])})  # fmt: skip
    jobs.append({"id": "managed", "kind": "long_running_read", "risk": "write_local", "enabled": True, "managed": True, "policy": policy,
                 "commands": {"start": sh(LEAVE_A_LINE)}})  # fmt: skip
    if rng.random() < 0.5:  # a job that is wrong: left out, whatever names it
        jobs.append({**proof(LEAVE_A_LINE, "pretender", **policy), "risk": rng.choice(["write_local", "write_external"])})
    rng.shuffle(jobs)
    return jobs


def random_gate(rng, approved):
    """What the state file may say of a write: true, forged, begun, half, or nonsense."""
    now = time.time()
    approval = rng.choice([{}, approved, approved, {"digest": "0" * 64, "approvedAt": now, "approvedFor": 1e9}])
    time_left = rng.choice([{}, {"approvedAt": now + 1e6}, {"approvedFor": 1e12}])
    begun = {"run": "begun", "runId": rng.choice(["", "000000000000"]), "runBeganAt": now - 5}
    run = rng.choice([{}, begun, begun, {"run": "unknown"}, {"run": "failed", "runCode": 3}])
    pending = {"verify": "pending", "verifyLeft": ["v"], "runEndedAt": now - rng.choice([1, 1e5]), "verifyFor": 100.0}
    verify = rng.choice([{}, pending, {"verify": "failed"}, {"verify": "passed"}])
    gate = {**approval, **time_left, **run, **verify}
    return rng.choice([gate] * 8 + [None, [], "approved", {"approved": True}])


def random_entry(rng, number):
    """A queue entry: of ours, of v1, or of somebody who would like a write to run."""
    name = rng.choice([*WRITES, *WRITES, *READS, "mill", "managed", "pretender", "nobody"])
    now = time.time()
    entry = {"id": f"q{number}", "jobId": name, "notBefore": now - rng.choice([0, 5, -30]), "status": "pending", "attempt": 0, "createdAt": now - 9}
    disguise = rng.choice([{"kind": "one_shot_read", "risk": "read_only"}, {"commands": {"run": sh(LEAVE_A_LINE)}}, {"by": "approve", "force": True}])
    entry.update(rng.choice([{}, {}, {"status": "running"}, {"status": "approved"}, {"status": None}, {"id": None}, {"id": "q0"}]))
    entry.update(rng.choice([{}, {}, disguise]))
    entry.update(rng.choice([{}, {}, {}, {"jobId": [name]}, {"jobId": {"id": name}}, {"jobId": None}, {"jobId": name + " "}, {"notBefore": "now"}]))
    return rng.choice([entry] * 12 + [name, None, [entry]])


def random_memory(rng):
    """What the state may remember of a job, a write as well: an unfinished action, a slot that is due."""
    now = time.time()
    action = {"action": rng.choice(["run", "start", "restart", "write"]), "actionAt": now - 99, "actionFor": 1.0, "actionId": "0"}
    memory = {**rng.choice([{}, {**action, "actionTries": rng.choice([0, 1, 2])}]), "anchorAt": now - 1e5, "slotAt": now - 1e5, "attempts": 0}
    if rng.random() < 0.5:
        memory["actionEntry"] = f"q{rng.randrange(6)}"
    return memory


def random_command(rng):
    """What an agent may type, except a `run` of a write."""
    name = rng.choice([*WRITES, "mill", "managed", "pretender", "v", "v2"])
    rows = (
        ("enqueue", name), ("enqueue", name, "--delay", "0"), ("start", name), ("start", name, "--trust-permissions"), ("stop", "watch"),
        ("run", rng.choice(["v", "v2", "pretender"])), ("run", name, "--dry-run"), ("approve", name), ("approve", name, "--show"),
        ("approve", name, "--digest", "0" * 64), ("revoke", name), ("explain", name), ("status",), ("ack", name), ("unmute", name),
        ("tick", "--dry-run"),
    )  # fmt: skip
    return rng.choice(rows)


class TestNoPathLeadsToAWrite(unittest.TestCase):
    def walk(self, seed):
        rng = random.Random(seed)
        home = Gatehouse(self, *random_jobs(rng))
        for name in ("watch", "mill", "kiln"):
            home.says(name, **rng.choice([{"stopReason": "x"}, {"running": True, "progressKey": "1"}, {"completed": True}]))
        name = rng.choice(WRITES)
        home.approve(name)
        gates = {name: random_gate(rng, home.gate(name)) for name in WRITES}
        queue = [random_entry(rng, number) for number in range(6)]
        memories = {name: random_memory(rng) for name in (*WRITES, *READS, "mill", "managed", "pretender") if rng.random() < 0.6}
        home.set_state(gates=gates, queue=queue, jobs=memories)
        for number in range(TICKS):
            home.tick(later=rng.choice([0, 0, 70, 4000, -4000]))
            self.assertEqual(home.read("written"), "", f"a tick ran a write, tick {number}")
            argv = random_command(rng)
            home.call(*argv)
            self.assertEqual(home.read("written"), "", f"`{' '.join(argv)}` ran a write")
        return home

    def test_only_run_with_an_approval_executes_one(self):
        seeds = [int(os.environ["OPS_WALK_SEED"])] if "OPS_WALK_SEED" in os.environ else range(WALKS)
        for seed in seeds:
            with self.subTest(seed=seed):
                home = self.walk(seed)
                if seed % 8 == 0:
                    home.set_state(gates={})
                    self.assertEqual(home.run("w").code, 4)
                    self.assertEqual(home.read("written"), "")
                    home.approve("w")
                    self.assertEqual(home.run("w").code, 0)
                    self.assertEqual(len(home.lines("written")), 1)

    def test_an_approved_write_waits_for_its_run(self):
        check = {**proof("true", everySeconds=1), "after": [{"jobId": "w2"}]}
        home = Gatehouse(self, write(policy={"everySeconds": 1}, enabled=True), check, write(job_id="w2", after=("u",)), proof(job_id="u"))
        for name in ("w", "w2"):
            home.approve(name)
        home.set_state(queue=[random_entry(random.Random(1), 1), {"id": "a", "jobId": "w", "notBefore": 1, "status": "pending"}])
        for seconds in (0, 60, 600, 3000):
            home.tick(later=seconds)
        self.assertEqual(home.ran, 0)
        self.assertTrue(home.told_with("BLOCKED", "ACTION REQUIRED", "'w2'"), "the chain that leads to a write is told")
        self.assertTrue(home.told_with("BLOCKED", "ACTION REQUIRED", "'w'"), "the queue entry as well")
        home.must_run("w2")


class TestTheJudgement(unittest.TestCase):
    """`gate_reason` is open for an approval that holds, for the plan it was given for, and for nothing else."""

    def test_it_is_open_in_one_case_only(self):
        rng = random.Random(7)
        now = 1.7e9
        opened = 0
        for _ in range(4000):
            gate = ops.Gate(
                digest=rng.choice(["", "a", "a", "b"]), approved_at=now - rng.choice([0, 10, 100]), approved_for=rng.choice([0.0, 10.0, 3600.0]),
                run=rng.choice(["", "begun", "good", "failed", "unknown"]), verify=rng.choice(["", "", "pending", "failed", "passed"]),
                run_ended_at=now - rng.choice([1, 1e5]), verify_for=3900.0, verify_left=["v"],
            )  # fmt: skip
            problem = rng.choice(["", "", "", "unreadable"])
            reason = ops.gate_reason(gate, "a", problem, ["argv"], now)
            is_approved = gate.digest == "a" and now < gate.approved_at + gate.approved_for and not problem
            may = is_approved and gate.run != "begun" and gate.verify in ("", "passed")
            self.assertEqual(reason.key == "gate.open", may, (gate, problem, reason))
            self.assertIn(reason.key, ops.MESSAGES)
            opened += may
        self.assertGreater(opened, 50)

    def test_a_verification_counts_if_it_began_after_the_write(self):
        rows = (
            # verify, left, who ran, began before the end, good -> verify, left
            ("pending", ["v"], "v", False, True, "passed", []),
            ("pending", ["v"], "v", True, True, "pending", ["v"]),
            ("pending", ["v"], "v", True, False, "pending", ["v"]),
            ("pending", ["v"], "v", False, False, "failed", ["v"]),
            ("failed", ["v"], "v", False, True, "passed", []),
            ("failed", ["v"], "v", True, True, "failed", ["v"]),
            ("pending", ["v", "u"], "v", False, True, "pending", ["u"]),
            ("pending", ["v", "u"], "v", False, False, "failed", ["u", "v"]),
            ("failed", ["u"], "v", False, True, "failed", ["u"]),
            ("passed", [], "v", False, False, "passed", []),
            ("", [], "v", False, False, "", []),
        )
        for verify, left, name, is_early, is_good, then, still in rows:
            with self.subTest(verify=verify, left=left, early=is_early, good=is_good):
                gate = ops.Gate(run="good", run_ended_at=100.0, verify=verify, verify_left=left)
                gate = ops.verified(gate, name, 99.0 if is_early else 101.0, is_good)
                self.assertEqual((gate.verify, gate.verify_left), (then, still))


if __name__ == "__main__":
    unittest.main()
