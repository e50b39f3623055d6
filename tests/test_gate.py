"""GATE: a write runs once, for exactly what a person approved, and a read verifies it.

`Gatehouse` is an installation with a write `w` that leaves a line in the file `ran` and a check `v`
that verifies it. What a write did is counted in that file, never taken from what we print.
"""

import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
import unittest
import warnings
from unittest import mock

from tests import botapi, ops
from tests.test_engine import Installation, check, long_job, sh

SIDES = {"w": "a write", "v": "its verification"}
LEAVE_A_MARK = "echo ran >> ran"
WAIT = "n=0; until test -e go; do n=$((n+1)); test $n -gt 2000 && exit 99; sleep 0.01; done"  # for the file `go`, but not for ever


def write(*argv, job_id="w", after=("v",), **more):
    """A write of `argv` that these checks verify."""
    entries = [{"jobId": entry} if isinstance(entry, str) else entry for entry in after]
    run = list(argv) or sh(LEAVE_A_MARK)
    return {"id": job_id, "kind": "one_shot_write", "risk": "write_local", "commands": {"run": run}, "after": entries, **more}


def proof(run="test -e ran", job_id="v", **policy):
    return check(job_id, run, **policy)


class Gatehouse(Installation):
    """An installation with a write, and short words for what is done with it."""

    def __init__(self, test, *jobs, **config):
        self.digests: dict = {}
        teller = {"via": "command", "command": ["/usr/bin/tee", "-a", "told"]}  # half as dear as a shell, and most calls here tell something
        self.begun: set = set()
        super().__init__(test, *(jobs or (write(), proof())), **{"delivery": teller, **config})
        test.addCleanup(self.end_calls)

    def begin(self, *argv, **how):
        begun = super().begin(*argv, **how)
        self.begun.add(begun[0])
        return begun

    def end(self, begun):
        self.begun.discard(begun[0])
        return super().end(begun)

    def end_calls(self):
        """Calls that a failed test left alone, and the writes that they began."""
        for pid in self.begun:
            ops.end_one(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        gates = self.state.get("gates") or {}
        for gate in (gate for gate in gates.values() if isinstance(gate, dict) and gate.get("run") == "begun"):
            for pid in ops.marked_processes(gate.get("runId", "")):
                ops.end_one(pid, signal.SIGKILL)

    @property
    def told(self):
        return [text for text in self.read("told").split("🛠️") if text]

    def plan(self, job="w", **how):
        """What `approve --show` prints."""
        result = self.call("approve", job, "--show", **how)
        self.test.assertEqual((result.code, result.err), (0, ""))
        return result.out

    def digest(self, job="w", **how):
        found = re.search(r"^digest: ([0-9a-f]{64})$", self.plan(job, **how), re.M)[1]
        self.digests[job, self.read(self.config_path)] = found
        return found

    def known_digest(self, job="w", **how):
        """The digest as it was last shown for this config: one call less where no file has changed."""
        return self.digests.get((job, self.read(self.config_path))) or self.digest(job, **how)

    def approve(self, job="w", *flags, **how):
        result = self.call("approve", job, "--digest", self.known_digest(job, **how), *flags, **how)
        self.test.assertEqual((result.code, result.err), (0, ""))
        return result

    def run(self, job="w", *flags, **how):
        return self.call("run", job, *flags, **how)

    def must_block(self, *words, job="w", **how):
        """A `run` now: exit 4, these words, and nothing is executed."""
        before = self.ran
        result = self.run(job, **how)
        self.test.assertEqual(result.code, 4, result.err)
        self.test.assertIn("BLOCKED", result.err)
        for word in words:
            self.test.assertIn(word, result.err)
        self.test.assertEqual(self.ran, before, "it was executed all the same")
        return result

    def must_run(self, job="w", *flags, **how):
        before = self.ran
        result = self.run(job, *flags, **how)
        self.test.assertEqual((result.code, self.ran), (0, before + 1), result.err)
        return result

    @property
    def ran(self):
        return len(self.lines("ran"))

    def settle(self):
        """Wait until nothing of the latest run is alive."""
        wait_for(self.test, lambda: not ops.marked_processes(self.gate().get("runId", "")))

    def gate(self, job="w"):
        return self.state.get("gates", {}).get(job, {})

    def change_gate(self, job="w", **keys):
        """Change what the state file says of a gate; None takes a key out."""
        gate = {key: value for key, value in {**self.gate(job), **keys}.items() if value is not None}
        self.set_state(gates={**self.state.get("gates", {}), job: gate})

    def shown(self, job="w", **how):
        """The write in `status --json`."""
        result = self.call("status", "--json", **how)
        return next(item for item in json.loads(result.out)["jobs"] if item["id"] == job)

    @property
    def history(self):
        return [json.loads(line) for line in self.lines(os.path.join("net", "state", "ops-monitor.history.jsonl"))]

    def events(self, *names):
        return [record for record in self.history if record["event"] in names]


# ---- what the digest binds


PROGRAM = '#!/bin/sh\necho ran >> "$(dirname "$0")/../ran"\n'


class Bound(Gatehouse):
    """A write whose plan has everything that a plan can have."""

    def __init__(self, test):
        env = {"MODE": "soft", "PATH": "tools:/usr/bin:/bin", "OTHER": "kept"}
        words = ["notes.txt", "--list=names.txt", "drawer", "later.txt", "--out=later.log", "plain", "link.txt"]
        self.job = write("tool", "job.script", *words, cwd="", env=env, risk="write_local", after=[{"jobId": "v", "delaySeconds": 5}])
        self.proof = {**proof(), "commands": {"run": ["./prove", "proof.script", "--against=expected.txt"]}, "env": {"STRICT": "1"}}
        super().__init__(test, self.job, self.proof)
        for number, job in enumerate(self.config["jobs"]):
            job["cwd"] = self.path(("place", "proofs")[number])
        self.lay()

    def lay(self):
        """Every file as it was, and the config."""
        for name in ("place", "place/tools", "place/first", "place/drawer", "proofs", "elsewhere"):
            os.makedirs(self.path(name), exist_ok=True)
        for name in ("notes.txt", "names.txt", "job.script", "plain.txt", "target.txt"):
            self.put("place/" + name, name)
        for name in ("proof.script", "expected.txt"):
            self.put("proofs/" + name, name)
        for name in ("place/tools/tool", "proofs/prove"):
            self.put(name, PROGRAM.replace("/../ran", "/../../ran"))
            os.chmod(self.path(name), 0o755)
        os.symlink("target.txt", self.path("place/link.txt"))
        self.config["jobs"] = json.loads(json.dumps([{**self.job, "cwd": self.path("place")}, {**self.proof, "cwd": self.path("proofs")}]))
        self.configure()

    def reset(self, state):
        ops_remove(self.path("place"), self.path("proofs"), self.path("elsewhere"), self.path("ran"))
        self.lay()
        self.put(self.state_path, state)

    # what may change

    def job_set(self, number=0, **keys):
        self.config["jobs"][number].update(keys)
        self.configure()

    def argv(self, change, number=0):
        run = list(self.config["jobs"][number]["commands"]["run"])
        change(run)
        self.job_set(number, commands={"run": run})

    def declare(self, number=0, **keys):
        env = {key: value for key, value in {**self.config["jobs"][number]["env"], **keys}.items() if value is not None}
        self.job_set(number, env=env)

    def append(self, name):
        with open(self.path(name), "a", encoding="utf-8") as file:
            file.write(" ")

    def swap(self, name):
        """A symlink to a file with the same bytes, somewhere else."""
        os.replace(self.path(name), self.path("elsewhere/same"))
        os.symlink(self.path("elsewhere/same"), self.path(name))

    def shadow(self):
        """The same program, found earlier on the declared PATH."""
        self.put("place/first/tool", PROGRAM.replace("/../ran", "/../../ran"))
        os.chmod(self.path("place/first/tool"), 0o755)


def ops_remove(*paths):
    """Take away files and directories, whatever of them is there."""
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            for name in os.listdir(path):
                ops_remove(os.path.join(path, name))
            os.rmdir(path)
        elif os.path.lexists(path):
            os.unlink(path)


def point_to(home, name, target):
    os.unlink(home.path(name))
    os.symlink(target, home.path(name))


# What changes (in words), how, and the word that `run` must name it with.
CHANGES = (
    ("a word of argv", lambda h: h.argv(lambda run: run.append("-v")), "argv"),
    ("the order of argv", lambda h: h.argv(lambda run: run.insert(1, run.pop())), "argv"),
    ("two words become one", lambda h: h.argv(lambda run: run.__setitem__(slice(6, 8), ["plain link.txt"])), "argv"),
    ("a byte of the program", lambda h: h.append("place/tools/tool"), "program"),
    ("the program is the same at another place", lambda h: h.swap("place/tools/tool"), "program"),
    ("a byte of the script that an interpreter is given", lambda h: h.append("place/job.script"), "job.script"),
    ("a byte of a file that is named", lambda h: h.append("place/notes.txt"), "notes.txt"),
    ("a byte of a file that is named after =", lambda h: h.append("place/names.txt"), "names.txt"),
    ("a named file is gone", lambda h: os.unlink(h.path("place/notes.txt")), "notes.txt"),
    ("a named file is a link to the same bytes", lambda h: h.swap("place/notes.txt"), "notes.txt"),
    ("a named file is a directory", lambda h: (os.unlink(h.path("place/notes.txt")), os.mkdir(h.path("place/notes.txt"))), "notes.txt"),
    ("a named link leads elsewhere", lambda h: point_to(h, "place/link.txt", "names.txt"), "link.txt"),
    ("a byte behind a link", lambda h: h.append("place/target.txt"), "link.txt"),
    ("a named directory is a file", lambda h: (os.rmdir(h.path("place/drawer")), h.put("place/drawer", "")), "drawer"),
    ("a named file was absent and appears", lambda h: h.put("place/later.txt", ""), "later.txt"),
    ("a named directory was absent and appears", lambda h: os.mkdir(h.path("place/later.txt")), "later.txt"),
    ("a file after = was absent and appears", lambda h: h.put("place/later.log", ""), "later.log"),
    ("a word is now a file", lambda h: h.put("place/plain", ""), "plain"),
    ("cwd is another directory", lambda h: h.job_set(cwd=h.path("elsewhere"), env={**h.job["env"], "PATH": h.path("place/tools")}), "cwd"),
    ("cwd is a link now", lambda h: (os.rename(h.path("place"), h.path("moved")), os.symlink(h.path("moved"), h.path("place"))), "cwd"),
    ("a value of env", lambda h: h.declare(MODE="hard"), "env MODE"),
    ("an empty value of env", lambda h: h.declare(MODE=""), "env MODE"),
    ("env has one more", lambda h: h.declare(EXTRA="1"), "env EXTRA"),
    ("env has one less", lambda h: h.declare(OTHER=None), "env OTHER"),
    ("the program is found earlier on the PATH", lambda h: (h.shadow(), h.declare(PATH="first:tools:/usr/bin:/bin")), "env PATH"),
    ("the risk", lambda h: h.job_set(risk="write_external"), "risk"),
    ("a word of the verification", lambda h: h.argv(lambda run: run.append("x"), 1), "verification"),
    ("a byte of the verification's program", lambda h: h.append("proofs/prove"), "verification"),
    ("a byte of the verification's script", lambda h: h.append("proofs/proof.script"), "proof.script"),
    ("a byte of a file after = of the verification", lambda h: h.append("proofs/expected.txt"), "expected.txt"),
    ("env of the verification", lambda h: h.declare(1, STRICT="0"), "env STRICT"),
    ("cwd of the verification", lambda h: h.job_set(1, cwd=h.path("place")), "verification"),
    ("the delay of the verification", lambda h: h.job_set(after=[{"jobId": "v"}]), "verification"),
    ("when it is verified", lambda h: h.job_set(after=[{"jobId": "v", "delaySeconds": 5, "when": "always"}]), "verification"),
)


class TestTheDigest(unittest.TestCase):
    def test_it_binds_everything_that_decides(self):
        home = Bound(self)
        digest = home.digest()
        home.approve()
        approved = home.read(home.state_path)
        for words, change, name in CHANGES:
            with self.subTest(words):
                self.addCleanup(ops_remove, home.path("moved"))
                change(home)
                home.must_block("changed since approval", name)
                self.assertNotEqual(home.events("refused")[-1]["digest"], digest)
            ops_remove(home.path("place"), home.path("moved"))
            home.reset(approved)
        self.assertEqual(home.digest(), digest)
        home.must_run()

    def test_the_digest_of_yesterday_approves_nothing(self):
        for words, change, _ in CHANGES[5:7]:
            with self.subTest(words):
                home = Bound(self)
                digest = home.digest()
                change(home)
                self.assertNotEqual(home.digest(), digest)
                self.assertEqual(home.call("approve", "w", "--digest", digest).code, 4)
                home.must_block("not approved")

    def test_it_leaves_out_what_does_not_decide(self):
        def add_job(home):
            home.config["jobs"].append(proof(job_id="other"))
            home.configure()

        rows = (
            ("the time of a file", lambda h: os.utime(h.path("place/notes.txt"), (1, 1))),
            ("the mode of a file", lambda h: os.chmod(h.path("place/notes.txt"), 0o600)),
            ("what lies in a named directory", lambda h: h.put("place/drawer/new", "x")),
            ("another file in cwd", lambda h: h.put("place/unrelated", "x")),
            ("another job", add_job),
            ("its name", lambda h: h.job_set(name="Something")),
            ("its policy", lambda h: h.job_set(policy={"runTimeoutSeconds": 9})),
            ("whether it is enabled", lambda h: h.job_set(enabled=True)),
            ("the language", lambda h: (h.config.update(monitor={"language": "zh"}), h.configure())),
        )
        home = Bound(self)
        digest = home.digest()
        home.approve()
        for words, change in rows:
            with self.subTest(words):
                change(home)
                self.assertEqual(home.digest(), digest)
        home.must_run()

    def test_the_plan_shows_what_is_bound_and_what_is_not(self):
        home = Bound(self)
        plan = home.plan()
        for words in ("tool job.script notes.txt", home.path("place/tools/tool"), "notes.txt  sha256 ", "write_local", "MODE=soft", "verifies it"):
            self.assertIn(words, plan)
        self.assertRegex(plan, r"drawer .*contents are not bound")

    def test_two_plans_never_look_alike_because_of_a_job_id(self):
        """The ids of verifications may hold what our labels are made of."""
        home = Gatehouse(self, write(after=("v", "v: argv")), proof(), proof("test -e ran", "v: argv"))
        digest = home.digest()
        home.approve()
        home.config["jobs"][1]["commands"]["run"] = sh("true")
        home.configure()
        self.assertNotEqual(home.digest(), digest)
        home.must_block("changed since approval")

    def test_a_plan_is_readable_whatever_a_job_is_called(self):
        for name in ("disk: check", "a: b: c", "检查：磁盘", "env X", ": "):
            with self.subTest(name):
                home = Gatehouse(self, write(after=(name,)), proof(job_id=name))
                plan = home.plan()
                self.assertIn(f"verifies it: {name} (when success, delay 0 s)", plan)
                self.assertNotIn("plan.", plan)

    def test_an_operand_may_be_called_anything(self):
        for name in ("a: b", "verification v", "env X", "a=b", "=", "-", "日 本"):
            with self.subTest(name):
                home = Gatehouse(self, write("/bin/echo", name), proof())
                home.put(name, "one")
                digest = home.digest()
                home.put(name, "two")
                self.assertNotEqual(home.digest(), digest)

    def test_a_large_file_is_bound_by_inode_size_and_time(self):
        def small():
            ops.HASHED_UP_TO = 8

        def rewrite(home, data):
            """Other bytes in the same file with the same time."""
            found = os.stat(home.path("big"))
            with open(home.path("big"), "r+b") as file:
                file.write(data)
            os.utime(home.path("big"), ns=(found.st_atime_ns, found.st_mtime_ns))

        def renew(home):
            """The same bytes and time in another file."""
            found = os.stat(home.path("big"))
            home.put("big", home.read("big"))
            os.utime(home.path("big"), ns=(found.st_atime_ns, found.st_mtime_ns))

        home = Gatehouse(self, write("/bin/echo", "big", "--from=edge"), proof())
        home.put("big", "123456789")
        home.put("edge", "12345678")
        plan = home.plan(bend=small)
        self.assertRegex(plan, r"big .*not bound")
        self.assertRegex(plan, r"edge  sha256")
        for words, change, is_change in (
            ("bytes", lambda: rewrite(home, b"987654321"), False),
            ("size", lambda: rewrite(home, b"0123456789"), True),
            ("time", lambda: os.utime(home.path("big"), (1, 1)), True),
            ("inode", lambda: renew(home), True),
        ):
            before = home.digest(bend=small)
            change()
            self.assertEqual(home.digest(bend=small) != before, is_change, words)

    def test_files_that_are_no_files_are_named_and_never_read(self):
        home = Gatehouse(self, write("/bin/echo", "pipe", "/dev/zero"), proof())
        os.mkfifo(home.path("pipe"))
        plan = home.plan()
        for name in ("pipe", "/dev/zero"):
            self.assertRegex(plan, rf"{name} .*not bound")

    @unittest.skipUnless(os.path.exists("/proc/self/mem"), "needs a file that nobody can read from its beginning")
    def test_what_cannot_be_read_cannot_be_approved(self):
        for job in (write("/bin/echo", "/proc/self/mem"), write("/bin/echo", "--from=/proc/self/mem")):
            home = Gatehouse(self, job, proof())
            result = home.call("approve", "w", "--digest", "0" * 64)
            self.assertEqual(result.code, 4)
            self.assertIn("cannot be read", result.err)
            self.assertRegex(result.err, "cannot be read: /proc/self/mem")
            home.must_block()
            self.assertFalse(home.gate().get("digest"))
        home = Gatehouse(self, write(), {**proof(), "commands": {"run": ["/bin/cat", "/proc/self/mem"]}})
        self.assertEqual(home.call("approve", "w", "--digest", home.digest()).code, 4, "nor if only the verification names it")

    @unittest.skipUnless(os.path.exists("/proc/self/mem"), "needs a file that nobody can read from its beginning")
    def test_what_could_be_read_at_the_approval_and_no_longer_can(self):
        home = Gatehouse(self, write("/bin/sh", "-c", LEAVE_A_MARK, "notes.txt"), proof())
        home.put("notes.txt", "x")
        home.approve()
        point_to(home, "notes.txt", "/proc/self/mem")
        home.must_block("cannot be read")

    @unittest.skipIf(os.geteuid() == 0, "root can read everything")
    def test_a_file_without_permission_cannot_be_approved(self):
        home = Gatehouse(self, write("/bin/echo", "notes.txt"), proof())
        home.put("notes.txt", "x")
        os.chmod(home.path("notes.txt"), 0)
        result = home.call("approve", "w", "--digest", home.digest())
        self.assertEqual(result.code, 4)
        self.assertIn("notes.txt", result.err)

    def test_a_program_that_is_not_there_cannot_be_approved(self):
        home = Gatehouse(self, write("no-such-program-anywhere"), proof())
        result = home.call("approve", "w", "--digest", home.digest())
        self.assertEqual(result.code, 4)
        self.assertIn("no-such-program-anywhere", result.err)

    def test_secrets_are_not_shown_and_not_kept(self):
        env = {"API_TOKEN": "correct-horse", "PIN_PASSWORD": "1234", "PLAIN": "visible"}
        job = write("/bin/echo", "--password=battery-staple", "--key", "correct-horse", env=env)
        home = Gatehouse(self, job, {**proof(), "env": {"THE_KEY": "open sesame"}})
        plan = home.plan()
        self.assertIn("PLAIN=visible", plan)
        home.approve()
        home.run()
        home.must_block()
        home.tick()
        home.config["jobs"][0]["commands"]["run"][1] = "--password=battery-stapler"
        home.configure()
        home.run()
        home.call("explain", "w")
        for secret in ("correct-horse", "battery-staple", "open sesame", "=1234"):
            self.assertNotIn(secret, plan)
            with self.subTest(secret):
                self.assertEqual([path for path in files_with(home, secret) if path != home.config_path and not path.endswith("write.log")], [])

    def test_what_a_plan_quotes_cannot_pass_for_our_own_lines(self):
        home = Gatehouse(self, write("/bin/echo", "x\n  runs        /bin/true", env={"A": "y\n\nAfterwards this verifies it: z"}), proof())
        lines = home.plan().splitlines()
        self.assertEqual(sum(line.startswith("Afterwards") for line in lines), 1)
        self.assertEqual(sum(line.startswith("  runs ") for line in lines), 2)


def files_with(home, text):
    """The files of an installation that hold `text`."""
    found = []
    for place, _, names in os.walk(home.root):
        for path in (os.path.join(place, name) for name in names):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    if text.encode("utf-8") in file.read():
                        found.append(path)
    return found


# ---- an approval holds once, and not for ever


def impatient():
    """This process waits for no lock."""
    ops.wait_lock = lambda path, seconds: ops.try_lock(path)


class TestSingleUse(unittest.TestCase):
    def test_an_approval_is_for_one_run(self):
        home = Gatehouse(self)
        home.must_block("not approved")
        home.approve()
        home.must_run("w", "--verify")
        home.must_block("not approved")

    def test_of_eight_runs_at_once_one_executes(self):
        home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; sleep 0.05")), proof())
        home.approve()
        runs = [home.real("run", "w", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(8)]
        codes = sorted(run.wait(60) for run in runs)
        self.assertEqual((home.ran, codes[0]), (1, 0))
        self.assertLessEqual(set(codes[1:]), {4, 75})

    def test_of_eight_runs_at_the_same_moment_one_executes(self):
        home = Gatehouse(self)
        home.approve()
        codes = at_the_same_moment(home, [("run", "w")] * 8)
        self.assertEqual((home.ran, codes.count(0)), (1, 1), codes)
        self.assertLessEqual(set(codes), {0, 4, 75})

    def test_approving_while_it_runs_does_not_let_it_run_beside_itself(self):
        home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; " + WAIT)), proof())
        home.approve()
        first = home.begin("run", "w")
        wait_for(self, lambda: home.ran)
        home.approve()
        self.assertEqual(home.call("run", "w", bend=impatient).code, 75, "busy")
        home.put("go", "")
        self.assertEqual((home.end(first).code, home.ran), (0, 1))
        home.must_block("not verified")

    def test_when_an_approval_ends(self):
        def age(home, seconds):
            home.change_gate(approvedAt=time.time() - seconds)

        def forge(home):
            home.change_gate(digest="0" * 64)

        rows = (
            ("its time is over", lambda h: age(h, 3601), "expired"),
            ("its own time is over", lambda h: (age(h, 61), h.change_gate(approvedFor=60.0)), "expired"),
            ("it holds for no time", lambda h: h.change_gate(approvedFor=0.0), "expired"),
            ("it was revoked", lambda h: h.call("revoke", "w"), "not approved"),
            ("it is for another plan", forge, "changed since approval"),
            ("its items are lost", lambda h: (forge(h), h.change_gate(items=None)), "changed since approval"),
            ("its instant is lost", lambda h: h.change_gate(approvedAt=None), "expired"),
            ("its length is no number", lambda h: h.change_gate(approvedFor="1e9"), "expired"),
            ("its gate is no object", lambda h: h.set_state(gates={"w": ["digest"]}), "not approved"),
            ("there are no gates", lambda h: h.set_state(gates=None), "not approved"),
        )
        home = Gatehouse(self)
        home.approve()
        approved = home.read(home.state_path)
        for words, change, reason in rows:
            with self.subTest(words):
                change(home)
                home.must_block(reason)
            home.put(home.state_path, approved)
        age(home, 3590)
        home.must_run()

    def test_the_config_says_how_long_it_holds(self):
        for ttl, is_open in ((0, False), (60, True)):
            home = Gatehouse(self, write(approval={"ttlSeconds": ttl}), proof())
            home.approve()
            self.assertEqual(home.run(later=ttl - 10 if ttl else 0).code, 0 if is_open else 4)

    def test_a_longer_time_in_the_config_does_not_prolong_an_approval(self):
        home = Gatehouse(self, write(approval={"ttlSeconds": 60}), proof())
        home.approve()
        home.configure(write(approval={"ttlSeconds": 86400}), proof())
        home.must_block("expired", later=61)

    def test_a_clock_that_is_set_back_does_not_prolong_an_approval(self):
        for words, look in (("a tick", ("tick",)), ("a refused run", ("run", "w"))):
            with self.subTest(words):
                home = Gatehouse(self)
                home.approve(later=86400)
                if look[0] == "run":
                    home.put("net/config/ops-jobs.json.keep", home.read(home.config_path))
                    home.configure(write("/bin/echo", "changed"), proof())
                    home.call(*look)
                    home.configure(write(), proof())
                else:
                    home.call(*look)
                home.must_block("expired", later=3700)
        home = Gatehouse(self)
        home.approve(later=86400)
        home.tick()
        home.must_run(later=3500)

    def test_the_wrong_digest_approves_nothing(self):
        home = Gatehouse(self)
        digest = home.digest()
        other = write(job_id="w2")
        home.configure(write(), proof(), other)
        for wrong in ("0" * 64, digest[:-1], digest.upper(), digest + "0", " " + digest, home.digest("w2")):
            with self.subTest(wrong):
                result = home.call("approve", "w", "--digest", wrong)
                self.assertEqual(result.code, 4)
                self.assertFalse(home.gate().get("digest"))
        home.must_block("not approved")

    def test_showing_approves_nothing(self):
        home = Gatehouse(self)
        digest = home.digest()
        self.assertEqual(home.call("approve", "w", "--show", "--digest", digest).code, 0)
        self.assertEqual(home.state, {}, "nor does it write anything")
        home.must_block("not approved")

    def test_only_writes_are_approved(self):
        home = Gatehouse(self)
        for command in ("approve", "revoke"):
            self.assertEqual(home.call(command, "v").code, 2)
            self.assertIn("'w'", home.call(command, "ww").err)
        for command in ("enqueue", "start"):
            home.approve()
            self.assertIn(home.call(command, "w").code, (2, 4))
            self.assertEqual(home.ran, 0)

    def test_a_dry_run_runs_nothing_and_uses_up_nothing(self):
        home = Gatehouse(self)
        home.approve()
        result = home.call("run", "w", "--dry-run")
        self.assertEqual((result.code, home.ran), (0, 0))
        self.assertIn(LEAVE_A_MARK, result.out)
        home.must_run()

    def test_a_person_is_told_once_that_something_asks(self):
        home = Gatehouse(self)
        for _ in range(3):
            home.must_block()
        home.tick()
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "BLOCKED")), 1)
        home.approve()
        home.must_run("w", "--verify")
        home.must_block()
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "BLOCKED")), 2, "that was another matter")

    def test_a_refusal_in_chinese_says_blocked_as_well(self):
        home = Gatehouse(self, monitor={"language": "zh"})
        result = home.must_block("未批准")
        self.assertRegex(result.err, r"approve w")

    def test_an_approval_with_a_digest_is_told_to_the_person(self):
        home = Gatehouse(self)
        home.approve()
        self.assertEqual(len(home.told_with("w", "--digest")), 1)


def at_the_same_moment(home, calls):
    """Exit codes of calls that begin together."""
    waits, starts = os.pipe()
    begun = [home.begin(*argv, gate=waits) for argv in calls]
    os.write(starts, b"x" * len(begun))  # a byte lets one of them go
    os.close(starts)
    os.close(waits)
    return [home.end(item).code for item in begun]


def wait_for(test, is_so, seconds=20.0):
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            test.fail("it never came about")
        time.sleep(0.005)


# ---- the command and its surroundings


class TestTheRun(unittest.TestCase):
    def test_nothing_of_the_caller_reaches_a_write_or_its_verification(self):
        env = {"MODE": "soft", "LD_BIND_NOW": "1"}
        home = Gatehouse(self, write("/usr/bin/env", env=env), {**proof(), "commands": {"run": ["/usr/bin/env"]}, "env": {"STRICT": "1"}})
        os.mkdir(home.path("evil"))
        for name in ("sh", "env", "test", "echo"):
            home.put("evil/" + name, "#!/bin/sh\necho evil >> evil.log\n")
            os.chmod(home.path("evil/" + name), 0o755)
        home.approve()
        bent = {"PATH": home.path("evil") + ":/usr/bin:/bin", "LD_PRELOAD": "/nowhere.so", "PYTHONPATH": home.path("evil")}
        home.env.update(bent, BASH_ENV="/x", ENV="/x", IFS="x", LANG="tlh", LD_LIBRARY_PATH="/x", GIT_DIR="/x", SOME_SECRET="1")
        for name, result in (("w", home.run()), ("v", home.run("v"))):
            with self.subTest(SIDES[name]):
                self.assertEqual(result.code, 0, result.err)
                got = dict(line.split("=", 1) for line in result.out.splitlines() if "=" in line)
                declared = {"w": env, "v": {"STRICT": "1"}}[name]
                self.assertEqual({key: got.get(key) for key in declared}, declared)
                self.assertLessEqual(set(got) - set(declared), {"PATH", "HOME", "USER", "LOGNAME", "LANG", "OPS_RUN"})
                self.assertNotIn("evil", got["PATH"])
                self.assertNotEqual(got["HOME"], home.root)
        self.assertEqual(home.read("evil.log"), "")

    def test_the_verification_of_a_tick_has_the_same_environment(self):
        home = Gatehouse(self, write(), {**proof("env > env.v"), "env": {"STRICT": "1"}})
        home.env.update(LD_LIBRARY_PATH="/x", GIT_DIR="/x")
        home.approve()
        home.must_run()
        home.tick()
        got = home.read("env.v")
        self.assertIn("STRICT=1", got)
        self.assertNotRegex(got, "LD_LIBRARY_PATH|GIT_DIR|HOME=" + re.escape(home.root))

    def test_a_program_that_only_the_callers_path_has_is_not_found(self):
        home = Gatehouse(self, write("mytool"), proof())
        os.mkdir(home.path("mine"))
        home.put("mine/mytool", "#!/bin/sh\n" + LEAVE_A_MARK)
        os.chmod(home.path("mine/mytool"), 0o755)
        home.env["PATH"] = home.path("mine") + ":/usr/bin:/bin"
        self.assertEqual(home.call("approve", "w", "--digest", home.digest()).code, 4)
        home.configure(write("mytool", env={"PATH": home.path("mine") + ":/usr/bin:/bin"}), proof())
        home.approve()
        home.must_run()

    def test_the_callers_umask_does_not_reach_a_write(self):
        home = Gatehouse(self, write("/bin/sh", "-c", "umask"), proof())
        home.approve()
        result = home.run(bend=lambda: os.umask(0))
        self.assertRegex(result.out, r"(?m)^0?022$|^0?0?077$")

    def test_the_callers_files_and_terminal_do_not_reach_a_write(self):
        home = Gatehouse(self, write("/bin/sh", "-c", "cat; ls -l /dev/fd/; exit 0"), proof())
        home.approve()
        source, sink = os.pipe()
        os.write(sink, b"from the caller")
        os.close(sink)

        def bend():
            os.dup2(source, 0)
            os.dup2(source, 9)

        result = home.run(bend=bend)
        os.close(source)
        self.assertEqual(result.code, 0)
        self.assertNotIn("from the caller", result.out)
        self.assertNotRegex(result.out, r"(?m) 9 ->")

    def test_a_hang_up_does_not_end_it(self):
        home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; " + WAIT)), proof())
        home.approve()
        begun = home.begin("run", "w")
        wait_for(self, lambda: home.ran)
        os.kill(begun[0], signal.SIGHUP)
        home.put("go", "")
        self.assertEqual((home.end(begun).code, home.gate()["run"]), (0, "good"))

    def test_an_interrupt_ends_it_and_its_outcome_is_unknown(self):
        home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; " + WAIT)), proof())
        home.approve()
        begun = home.begin("run", "w")
        wait_for(self, lambda: home.ran)
        os.kill(begun[0], signal.SIGTERM)
        self.assertEqual(home.end(begun).code, 143)
        home.settle()
        home.tick()
        self.assertEqual((home.gate()["run"], home.ran), ("unknown", 1))
        home.must_block("not approved")

    def test_it_fails_as_its_command_does(self):
        rows = (
            ("exit 3", write(*sh("exit 3")), "exit code 3"),
            ("a signal", write(*sh("kill -9 $$")), "SIGKILL"),
            ("its time", write(*sh("sleep 20"), policy={"runTimeoutSeconds": 0.2}), "0.2s"),
            ("no such directory", write(cwd="/no/such/place"), "/no/such/place"),
        )
        for words, job, told in rows:
            with self.subTest(words):
                home = Gatehouse(self, job, proof())
                home.approve()
                result = home.run()
                self.assertEqual(result.code, 1)
                self.assertIn(told, result.err)
                self.assertEqual((home.gate()["run"], home.state["queue"]), ("failed", []))
                self.assertEqual(len(home.told_with("ALERT", told)), 1)
                self.assertIn("the last run failed", home.plan())
                home.must_block("not approved")

    def test_the_next_approve_tells_a_lost_outcome(self):
        home = Gatehouse(self)
        home.change_gate(run="unknown", runId="gone", runEndedAt=time.time())
        self.assertIn("unknown", home.plan())
        home.approve()
        home.must_run("w", "--verify")
        self.assertNotIn("unknown", home.plan())

    def test_a_disk_that_fails_before_the_command_is_no_bug(self):
        home = Gatehouse(self)
        home.approve()
        home.put("net/state/ops-monitor.jobs", "a file where a directory should be")
        result = home.run()
        self.assertEqual((result.code, home.ran), (74, 0), result.err)
        self.assertIn("ops-monitor.jobs", result.err)

    def test_its_output_is_printed_and_kept(self):
        home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; echo hello; echo Bearer abcdefgh12345678 >&2")), proof())
        home.approve()
        result = home.must_run()
        self.assertIn("hello", result.out)
        self.assertNotIn("abcdefgh12345678", result.out + result.err)
        self.assertIn("hello", home.call("logs", "w").out)


# ---- a writer that dies


class TestDyingWriters(unittest.TestCase):
    def test_killed_before_any_step_it_never_runs_twice(self):
        home = Gatehouse(self)
        home.tick()
        home.approve()
        approved = home.read(home.state_path)
        seen = set()
        for step in range(1, 200):
            ops_remove(home.path("ran"), home.path("told"))
            home.put(home.state_path, approved)
            died = home.run(die_before=step)
            if died.code != 87:
                break
            home.settle()
            with self.subTest(step=step, before=died.steps[-1:]):
                gate = home.gate()
                ran = home.ran
                is_begun = gate.get("run") == "begun"
                seen.add((gate.get("run", ""), ran))
                self.assertLessEqual(ran, 1)
                self.assertTrue(ran == 0 or gate.get("run"), "it ran, and its approval is still there")
                for _ in range(2 if is_begun else bool(gate.get("run"))):
                    home.tick()
                self.assertEqual(home.ran, ran, "a tick ran it again")
                unknown = home.told_with("unknown")
                self.assertEqual(len(unknown), 1 if is_begun else 0, "told once, and only if the outcome is not known")
                if is_begun:
                    self.assertEqual(home.gate()["run"], "unknown")
                result = home.run()
                self.assertEqual((result.code, home.ran), (4, ran) if gate.get("run") else (0, 1), result.err)
        self.assertEqual((died.code, home.ran), (0, 1))
        self.assertLessEqual({("", 0), ("begun", 0), ("begun", 1), ("good", 1)}, seen, "the steps are no longer where they were")

    def test_killed_while_the_write_goes_on(self):
        home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; " + WAIT + "; echo end >> ended")), proof())
        home.approve()
        begun = home.begin("run", "w")
        wait_for(self, lambda: home.ran)
        os.kill(begun[0], signal.SIGKILL)
        self.assertEqual(home.end(begun).code, -signal.SIGKILL)
        home.tick()
        self.assertEqual(home.gate()["run"], "begun", "it is still running")
        home.approve()
        home.must_block("has begun")
        self.assertEqual(home.told_with("unknown"), [])
        home.put("go", "")
        wait_for(self, lambda: home.read("ended"))
        home.settle()
        home.tick()
        self.assertEqual((home.gate()["run"], home.ran, len(home.told_with("unknown"))), ("unknown", 1, 1))


# ---- verification


VERDICTS = (
    # what the verification does, its policy, and whether that passes
    ("it exits 0 and is silent", "exit 0", {}, True),
    ("it exits 0 and talks, but no whole word", "echo all well; echo ALERTS: 0", {}, True),
    ("it exits 1", "exit 1", {}, False),
    ("it is killed", "kill -9 $$", {}, False),
    ("it takes too long", "sleep 20", {"runTimeoutSeconds": 0.2}, False),
    ("it exits 0 and warns", "echo ALERT: 3 files are missing", {}, False),
    ("it exits 0 and asks", "echo ACTION REQUIRED >&2", {}, False),
    ("it exits 0 and says a word of its own", "echo KAPUTT", {"attentionPatterns": ["KAPUTT"]}, False),
)


class TestVerification(unittest.TestCase):
    def test_what_passes_and_what_does_not(self):
        for words, script, policy, passes in VERDICTS:
            with self.subTest(words):
                home = Gatehouse(self, write(), proof(script, **policy))
                home.approve()
                result = home.run("w", "--verify")
                self.assertEqual((result.code, home.ran), (0 if passes else 1, 1), result.err)
                self.assertEqual(home.gate()["verify"], "passed" if passes else "failed")
                self.assertEqual(len(home.told_with("ALERT", "verification failed")), 0 if passes else 1)
                home.must_block("not approved" if passes else "failed: v")

    def test_by_a_tick_it_is_the_same(self):
        for words, script, policy, passes in (VERDICTS[0], VERDICTS[-3]):
            with self.subTest(words):
                home = Gatehouse(self, write(), proof(script, **policy))
                home.approve()
                self.assertEqual(home.run().code, 0)
                self.assertEqual(home.gate()["verify"], "pending")
                home.tick()
                self.assertEqual(home.gate()["verify"], "passed" if passes else "failed")

    def test_until_then_it_is_unverified(self):
        home = Gatehouse(self)
        home.approve()
        home.must_run()
        gate = home.shown()["gate"]
        self.assertEqual((gate["verification"], gate["run"], gate["approved"], gate["overdue"]), ("pending", "good", False, False))
        self.assertIn("unverified", home.call("status").out)
        home.must_block("not verified yet: v")
        result = home.call("approve", "w", "--digest", home.digest())
        self.assertEqual(result.code, 4, "the next approval waits as well")
        self.assertIn(" run v\n", result.err)
        home.tick()
        self.assertEqual(home.gate()["verify"], "passed")
        self.assertEqual(home.shown()["gate"]["verification"], "passed")
        home.must_block("not approved")

    def test_the_states_of_a_gate_in_status(self):
        now = time.time()
        waiting = {"run": "good", "verify": "pending", "verifyFor": 3900.0, "verifyLeft": ["v"]}
        rows = (
            ({}, "never ran", {"approved": False, "digest": None, "run": None, "verification": None, "overdue": False}),
            ({"digest": "d", "approvedAt": now, "approvedFor": 3600.0}, "approved", {"approved": True, "digest": "d"}),
            ({"digest": "d", "approvedAt": now - 3700, "approvedFor": 3600.0}, "never ran", {"approved": False, "digest": None}),
            ({"run": "begun", "runId": "x"}, "running", {"run": "begun"}),
            ({"run": "unknown", "runId": "x"}, "outcome?", {"run": "unknown"}),
            ({**waiting, "runEndedAt": now}, "unverified", {"verification": "pending", "overdue": False}),
            ({**waiting, "runEndedAt": now - 4000}, "overdue", {"verification": "pending", "overdue": True}),
            ({**waiting, "runEndedAt": now, "verify": "failed"}, "verify failed", {"verification": "failed"}),
        )
        home = Gatehouse(self)
        for gate, word, facts in rows:
            with self.subTest(word):
                home.set_state(gates={"w": gate} if gate else {})
                shown = home.shown()["gate"]
                self.assertEqual({key: shown[key] for key in facts}, facts)
                self.assertIn(word, home.call("status", "w").out)
                self.assertEqual(home.call("explain", "w").code, 0)

    def test_overdue_after_delay_timeout_and_an_hour(self):
        home = Gatehouse(self, write(after=[{"jobId": "v", "delaySeconds": 600}]), proof(runTimeoutSeconds=100))
        home.approve()
        home.must_run()
        home.set_state(queue=[])  # nobody verifies it
        home.tick(later=600 + 100 + 3600 - 20)
        self.assertEqual(home.told_with("overdue"), [])
        self.assertFalse(home.shown(later=600 + 100 + 3600 - 10)["gate"]["overdue"])
        for _ in range(2):
            home.tick(later=600 + 100 + 3600 + 20)
        self.assertEqual(len(home.told_with("ALERT", "overdue", "w")), 1)
        self.assertTrue(home.shown(later=600 + 100 + 3600 + 20)["gate"]["overdue"])
        home.must_block("overdue: v", later=600 + 100 + 3600 + 20)
        home.run("v", later=600 + 100 + 3600 + 30)
        self.assertEqual(home.gate()["verify"], "passed")
        home.tick(later=600 + 100 + 3600 + 40)
        self.assertEqual(len(home.told_with("RESOLVED")), 1)

    def test_one_that_began_before_the_write_does_not_count(self):
        home = Gatehouse(self, write(), proof("touch looking; " + WAIT))
        home.approve()
        begun = home.begin("run", "v")
        wait_for(self, lambda: os.path.exists(home.path("looking")))
        home.must_run()
        home.put("go", "")
        self.assertEqual(home.end(begun).code, 0)
        self.assertEqual(home.gate()["verify"], "pending", "it may have looked before the write")
        home.run("v")
        self.assertEqual(home.gate()["verify"], "passed")

    def test_a_clock_that_is_set_back_does_not_keep_it_unverified(self):
        home = Gatehouse(self)
        home.approve(later=7200)
        home.must_run(later=7200)
        home.set_state(queue=[])
        home.tick()
        self.assertEqual(home.run("v", later=10).code, 0)
        self.assertEqual(home.gate()["verify"], "passed")

    def test_a_later_good_run_by_hand_clears_a_failed_one(self):
        home = Gatehouse(self, write(), proof("test -e mended"))
        home.approve()
        self.assertEqual(home.run("w", "--verify").code, 1)
        home.run("v")
        self.assertEqual(home.gate()["verify"], "failed")
        home.must_block("failed")
        home.put("mended", "")
        self.assertEqual(home.run("v").code, 0)
        self.assertEqual(home.gate()["verify"], "passed")
        home.tick()
        self.assertEqual(len(home.told_with("RESOLVED")), 1)
        home.approve()
        home.must_run()

    def test_a_person_may_approve_despite_it(self):
        for words, script, flags in (("failed", "exit 1", ("--verify",)), ("pending", "exit 0", ())):
            with self.subTest(words):
                home = Gatehouse(self, write(), proof(script))
                home.approve()
                home.run("w", *flags)
                self.assertEqual(home.call("approve", "w", "--digest", home.digest()).code, 4)
                home.approve("w", "--despite-failed-verification")
                home.must_run()
                self.assertTrue(home.events("approved")[-1]["despite"])

    def test_all_of_several_must_pass(self):
        job = write(after=("v", "v2", {"jobId": "v3", "when": "failure"}))
        home = Gatehouse(self, job, proof(), proof("test -e second", "v2"), proof("exit 1", "v3"))
        home.approve()
        self.assertEqual(home.run("w", "--verify").code, 1)
        home.must_block("v2")
        home.run("v")
        self.assertEqual(home.gate()["verify"], "failed", "the first alone is not enough")
        home.put("second", "")
        home.run("v2")
        self.assertEqual(home.gate()["verify"], "passed")

    def test_one_of_several_may_be_late(self):
        home = Gatehouse(self, write(after=("v", "v2")), proof(), proof("exit 0", "v2"))
        home.approve()
        home.must_run()
        home.run("v2")
        self.assertEqual((home.gate()["verify"], home.gate()["verifyLeft"]), ("pending", ["v"]))
        home.run("v")
        self.assertEqual(home.gate()["verify"], "passed")

    def test_another_verification_than_the_approved_one_does_not_count(self):
        for words, change in (("argv", lambda h: h.configure(write(), proof("true"))), ("a file", lambda h: h.put("proof.script", "exit 0"))):
            with self.subTest(words):
                home = Gatehouse(self, write(), {**proof(), "commands": {"run": ["/bin/sh", "proof.script"]}})
                home.put("proof.script", "exit 1")
                home.approve()
                home.must_run()
                change(home)
                home.run("v")
                home.tick()
                self.assertNotEqual(home.gate()["verify"], "passed")
                home.must_block("v")

    def test_what_the_write_makes_is_no_change_of_its_verification(self):
        looks = {**proof(), "commands": {"run": ["/bin/sh", "-c", "exit 0", "out.txt", "in.txt"]}}
        for script in ("echo x > out.txt", "rm in.txt", "echo y > in.txt"):
            with self.subTest(script):
                home = Gatehouse(self, write(*sh(script)), looks)
                home.put("in.txt", "x")
                home.approve()
                result = home.run("w", "--verify")
                self.assertEqual((result.code, home.gate()["verify"]), (0, "passed"), result.out)
        home = Gatehouse(self, write(), looks)
        home.approve()
        home.must_run()
        home.put("out.txt", "made by what the write set going")
        home.run("v")
        self.assertEqual(home.gate()["verify"], "passed")

    def test_a_long_job_cannot_verify(self):
        home = Gatehouse(self, write(after=("watch",)), long_job("watch"))
        home.says("watch", completed=True)
        home.approve()
        result = home.run("w", "--verify")
        self.assertEqual((result.code, home.ran), (1, 1))
        home.tick()
        home.tick(later=60)
        self.assertEqual(home.gate()["verify"], "pending")
        home.must_block("not verified")
        home.tick(later=7300)
        self.assertEqual(len(home.told_with("ALERT", "overdue")), 1)
        home.approve("w", "--despite-failed-verification")
        home.must_run()

    def test_a_write_that_fails_is_verified_where_that_is_wanted(self):
        rows = (("success", "", []), ("always", "pending", ["v"]))
        for when, verify, queued in rows:
            with self.subTest(when):
                home = Gatehouse(self, write(*sh(LEAVE_A_MARK + "; exit 5"), after=[{"jobId": "v", "when": when}]), proof())
                home.approve()
                self.assertEqual(home.run("w", "--verify").code, 1)
                self.assertEqual((home.gate()["run"], home.gate().get("verify", "")), ("failed", verify))
                self.assertEqual([entry["jobId"] for entry in home.state["queue"]], queued)
                self.assertIn("the last run failed, exit code 5", home.plan())
                home.must_block("not verified yet" if verify else "not approved")
                home.tick()
                self.assertEqual(home.gate().get("verify", ""), "passed" if verify else "")

    def test_it_runs_once_and_after_its_delay(self):
        home = Gatehouse(self, write(after=[{"jobId": "v", "delaySeconds": 0.2}]), proof("echo looked >> looks"))
        home.approve()
        self.assertEqual(home.run("w", "--verify").code, 0)
        began, ended = home.events("write ended")[0]["at"], home.events("run")[0]["at"]
        self.assertGreaterEqual(ended - began, 0.2)
        home.tick(later=60)
        self.assertEqual(len(home.lines("looks")), 1, "the queue's run of it is done as well")

    def test_the_others_in_after_are_queued_too(self):
        after = ("v", {"jobId": "good", "delaySeconds": 30}, {"jobId": "bad", "when": "failure"}, {"jobId": "both", "when": "always"})
        others = [proof("true", name) for name in ("good", "bad", "both")]
        home = Gatehouse(self, write(after=after), proof(), *others)
        home.approve()
        home.must_run()
        self.assertEqual(sorted(entry["jobId"] for entry in home.state["queue"]), ["both", "good", "v"])

    def test_a_killed_verification_is_made_up_for(self):
        home = Gatehouse(self, write(), proof("test -e go || kill -9 $PPID; test -e go"))
        home.approve()
        self.assertEqual(home.run("w", "--verify").code, -9)
        self.assertEqual(home.gate()["verify"], "pending")
        home.put("go", "")
        home.tick()
        self.assertEqual((home.gate()["verify"], home.ran), ("passed", 1))


# ---- who approves: at a terminal


class Terminal:
    """A call with a pseudo-terminal as its standard input and output."""

    def __init__(self, home, *argv, **how):
        self.home = home
        self.ours, theirs = os.openpty()
        settings = termios.tcgetattr(theirs)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, settings)

        def bend():
            for fd in (0, 1):
                os.dup2(theirs, fd)
            sys.stdin, sys.stdout = open(0, encoding="utf-8", closefd=False), open(1, "w", encoding="utf-8", closefd=False)

        self.begun = home.begin(*argv, bend=bend, **how)
        os.close(theirs)
        self.text = ""

    def read_until(self, word):
        data = b""
        while word.encode("utf-8") not in data:
            try:
                chunk = os.read(self.ours, 4096)
            except OSError:  # Linux: the other end is closed
                break
            if not chunk:
                break
            data += chunk
        self.text += data.decode("utf-8").replace("\r\n", "\n")

    def type(self, text):
        os.write(self.ours, text.encode("utf-8"))

    def end(self):
        self.read_until("\0")
        result = self.home.end(self.begun)
        os.close(self.ours)
        return result


class TestAtATerminal(unittest.TestCase):
    def dialogue(self, home, typed, job="w", question="Type the job id to approve: "):
        terminal = Terminal(home, "approve", job)
        terminal.read_until(question)
        if typed is not None:
            terminal.type(typed)
        result = terminal.end()
        return result, terminal.text

    def test_the_typed_id_approves(self):
        home = Gatehouse(self)
        digest = home.digest()
        result, text = self.dialogue(home, "w\n")
        self.assertEqual(result.code, 0, result.err)
        for words in ("echo ran >> ran", "/bin/sh", "write_local", "verifies it: v"):
            self.assertIn(words, text)
        self.assertEqual(home.gate()["digest"], digest)
        self.assertIn("/dev/", home.events("approved")[0]["who"])
        home.must_run()

    def test_anything_else_does_not(self):
        home = Gatehouse(self)
        for typed in ("\n", "y\n", "yes\n", "W\n", "ww\n", "w w\n", "v\n", "\x04", "\x15\n"):
            with self.subTest(typed):
                result, _ = self.dialogue(home, typed)
                self.assertEqual(result.code, 4)
                self.assertFalse(home.gate().get("digest"))
        home.must_block("not approved")

    def test_in_chinese(self):
        home = Gatehouse(self, write(job_id="清理备份", after=("检查",)), proof(job_id="检查"), monitor={"language": "zh"})
        result, text = self.dialogue(home, "清理\n", "清理备份", "输入任务 id 以批准：")
        self.assertEqual((result.code, "BLOCKED" in result.err), (4, True))
        self.assertIn("检查", text)
        result, text = self.dialogue(home, "清理备份\n", "清理备份", "输入任务 id 以批准：")
        self.assertEqual(result.code, 0, result.err)
        self.assertIn("已批准", text)
        home.must_run("清理备份", "--verify")

    def test_what_is_approved_is_what_was_shown(self):
        home = Gatehouse(self, write("/bin/sh", "job.script"), proof())
        home.put("job.script", LEAVE_A_MARK)
        terminal = Terminal(home, "approve", "w")
        terminal.read_until("approve: ")
        home.put("job.script", LEAVE_A_MARK + "; rm -r everything")
        terminal.type("w\n")
        self.assertEqual(terminal.end().code, 0)
        home.must_block("changed since approval", "job.script")

    def test_secrets_do_not_reach_the_screen(self):
        home = Gatehouse(self, write(env={"API_KEY": "sesame-sesame", "PLAIN": "seen"}), proof())
        _, text = self.dialogue(home, "no\n")
        self.assertIn("API_KEY=***", text)
        self.assertIn("PLAIN=seen", text)
        self.assertNotIn("sesame", text)

    def test_without_a_terminal_a_digest_is_needed(self):
        home = Gatehouse(self)
        result = home.call("approve", "w")
        self.assertEqual(result.code, 4)
        self.assertIn("--digest", result.err)
        self.assertIn("approve w --show", result.err)

    def test_a_terminal_on_one_side_alone_is_not_enough(self):
        home = Gatehouse(self)
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        self.addCleanup(os.close, theirs)
        os.write(ours, b"w\n")

        def bend():
            os.dup2(theirs, 0)
            sys.stdin = open(0, encoding="utf-8", closefd=False)

        self.assertEqual(home.call("approve", "w", bend=bend).code, 4, "nobody has seen the plan")


# ---- who approves: with a code from the phone


class Phone(Gatehouse):
    """A write that its owner approves with a code, and the Bot API that brings it."""

    def __init__(self, test, *jobs, **config):
        self.bot = botapi.BotApi(test)
        catcher = warnings.catch_warnings()
        catcher.__enter__()
        test.addCleanup(catcher.__exit__, None, None, None)
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside the server's threads: the child does not need them
        jobs = jobs or (write(approval={"via": "telegram"}), proof())
        super().__init__(test, *jobs, **{"delivery": {"via": "auto"}, **config})
        owner = {"ownerAllowFrom": ["telegram:" + botapi.OWNER]}
        self.telegram = {"botToken": botapi.TOKEN, "apiRoot": self.bot.url}
        self.put("openclaw.json", json.dumps({"channels": {"telegram": self.telegram}, "commands": owner}))
        os.mkdir(self.path("bin"))
        self.put("bin/openclaw", '#!/bin/sh\necho "$@" >> "$(dirname "$0")/../calls"\n')
        os.chmod(self.path("bin/openclaw"), 0o755)
        self.env["PATH"] = self.path("bin") + ":/usr/bin:/bin"

    def begin(self, *argv, bend=None, **how):
        def quick():
            ops.CODE_ROUNDS = 10
            if bend:
                bend()

        return super().begin(*argv, bend=quick, **how)

    def request(self, *flags, **how):
        """A new code, as the phone shows it."""
        result = self.call("approve", "w", "--request", *flags, **how)
        self.test.assertEqual((result.code, result.err), (0, ""))
        self.test.assertRegex(result.out, r"\S/ops-monitor\.py approve w --digest HEX --code CODE\n\Z")
        return self.code

    @property
    def code(self):
        """The code of the latest message that arrived, read by a person or not."""
        return re.search(r"w: (\d{8})\b", self.bot.requests[-1].text)[1]

    def guess(self, code, **how):
        return self.call("approve", "w", "--digest", self.known_digest(**how), "--code", code, **how)

    @staticmethod
    def wrong(code, number=1):
        return f"{(int(code) + number) % 10**8:08d}"


class TestTheCode(unittest.TestCase):
    def test_it_comes_with_the_plan_and_is_nowhere_else(self):
        home = Phone(self)
        code = home.request()
        message = home.bot.shown[-1]
        self.assertEqual(message.chat, botapi.OWNER)
        self.assertTrue(message.rings)
        for words in ("echo ran >> ran", "write_local", "verifies it: v", "15"):
            self.assertIn(words, message.text)
        self.assertEqual(files_with(home, code), [], "not in what was printed, the state, the history, a log")
        home.guess(home.wrong(code))
        result = home.guess(code)
        self.assertEqual(result.code, 0, result.err)
        self.assertEqual(files_with(home, code), [])
        self.assertEqual(home.read("calls"), "")
        home.must_run("w", "--verify")
        self.assertEqual(home.guess(code).code, 4, "it opens once")

    def test_it_follows_a_group_that_has_moved(self):
        home = Phone(self, delivery={"via": "auto", "target": "-500"})
        home.bot.always = botapi.moved(-100500)
        code = home.request()
        self.assertEqual([request.chat for request in home.bot.requests], ["-500", "-100500"])
        self.assertEqual(home.guess(code).code, 0)
        self.assertEqual(home.state["moved"], {"-500": "-100500"})

    def test_each_command_on_the_way_past_a_failed_verification_leads_on(self):
        home = Phone(self, write(approval={"via": "telegram"}), proof("exit 1"))
        home.guess(home.request())
        self.assertEqual(home.call("run", "w", "--verify").code, 1)
        argv = ["approve", "w"]
        for _ in range(4):
            result = home.call(*argv)
            argv = [home.digest() if word == "HEX" else home.code if word == "CODE" else word
                    for word in re.search(r"ops-monitor\.py (.*)", result.err or result.out)[1].split()]  # fmt: skip
            if "--code" in argv:
                break
        result = home.call(*argv)
        self.assertEqual((result.code, home.shown()["gate"]["approved"]), (0, True), result.err)

    def test_a_code_that_was_not_sent_is_in_the_history(self):
        home = Phone(self)
        home.bot.always = botapi.server_error
        self.assertEqual(home.call("approve", "w", "--request").code, 3)
        self.assertIn("not approved: ", home.call("history", "w").out)

    def test_it_is_hashed_slowly_with_a_salt_of_its_own(self):
        self.assertEqual(ops.CODE_ROUNDS, 600_000)
        home = Phone(self)
        hashes = []
        for _ in range(2):
            code = home.request()
            gate = home.gate()
            hashes.append((gate["codeHash"], gate["codeSalt"]))
            self.assertGreaterEqual(len(gate["codeSalt"]), 16)
            with mock.patch("hashlib.pbkdf2_hmac", return_value=b"slow") as slow:
                self.assertEqual(ops.hashed_code(code, gate["codeSalt"]), b"slow".hex())
            self.assertEqual(slow.call_args[0][3], 600_000)
        self.assertNotEqual(hashes[0], hashes[1])

    def test_without_it_nothing_is_approved(self):
        home = Phone(self)
        digest = home.digest()
        by_digest = ("--digest", digest)
        for flags in ((), by_digest, (*by_digest, "--code", ""), (*by_digest, "--code", "00000000"), ("--code", "00000000")):
            with self.subTest(flags):
                self.assertEqual(home.call("approve", "w", *flags).code, 4)
        code = home.request()
        result = home.call("approve", "w", *by_digest)
        self.assertEqual((result.code, "--request" in result.err, home.gate().get("codeTries", 0)), (4, True, 0), "that was no guess")
        self.assertEqual(home.call("approve", "w", "--code", code).code, 4, "nor without the digest")
        self.assertEqual(home.call("approve", "w", "--digest", "0" * 64, "--code", code).code, 4, "nor with another one")
        home.must_block("not approved")
        self.assertEqual(home.guess(code).code, 0)

    def test_a_typed_id_alone_does_not_approve(self):
        home = Phone(self)
        terminal = Terminal(home, "approve", "w")
        terminal.type("w\n")
        self.assertEqual(terminal.end().code, 4)
        code = home.request()
        terminal = Terminal(home, "approve", "w", "--code", code)
        terminal.read_until("approve: ")
        terminal.type("w\n")
        self.assertEqual(terminal.end().code, 0)
        home.must_run()

    def test_five_guesses_and_no_more(self):
        home = Phone(self)
        code = home.request()
        for number in range(4):
            self.assertIn("BLOCKED: wrong code", home.guess(home.wrong(code, number + 1)).err)
        self.assertEqual(home.guess(code).code, 0, "the fifth may be right")
        home.call("revoke", "w")
        code = home.request()
        for wrong in ("x", "٠" * 8, code[:-1], " " + code, home.wrong(code)):
            self.assertEqual(home.guess(wrong).code, 4, wrong)
        result = home.guess(code)
        self.assertEqual(result.code, 4)
        self.assertIn("too many", result.err)
        home.must_block("not approved")

    def test_five_guesses_also_when_they_come_at_once(self):
        home = Phone(self)
        code = home.request()
        digest = home.digest()
        guesses = [("approve", "w", "--digest", digest, "--code", home.wrong(code, number)) for number in range(1, 13)]
        self.assertEqual(at_the_same_moment(home, guesses), [4] * 12)
        self.assertEqual(home.gate()["codeTries"], 5)
        self.assertEqual(home.guess(code).code, 4)
        said = [home.read(f".{number}.err") for number in range(home.calls - 15, home.calls + 1)]
        self.assertEqual(sum("BLOCKED: wrong code" in text for text in said), 5)

    def test_a_right_guess_opens_once_also_when_it_comes_twice(self):
        home = Phone(self)
        code = home.request()
        call = ("approve", "w", "--digest", home.digest(), "--code", code)
        self.assertEqual(sorted(at_the_same_moment(home, [call] * 4)), [0, 4, 4, 4])

    def test_three_requests_an_hour(self):
        home = Phone(self)
        codes = [home.request() for _ in range(3)]
        result = home.call("approve", "w", "--request")
        self.assertEqual((result.code, len(home.bot.requests)), (4, 3))
        self.assertEqual(home.call("approve", "w", "--request", later=3500).code, 4)
        for code in codes[:-1]:
            self.assertEqual(home.guess(code).code, 4, "a new code voids the one before")
        self.assertEqual(home.guess(codes[-1]).code, 0)
        home.request(later=3700)

    def test_three_requests_also_when_they_come_at_once(self):
        home = Phone(self)
        codes = at_the_same_moment(home, [("approve", "w", "--request")] * 8)
        self.assertEqual((sorted(codes), len(home.bot.requests)), ([0] * 3 + [4] * 5, 3))

    def test_a_clock_that_is_set_back_gives_no_more_requests_and_no_more_time(self):
        home = Phone(self)
        for _ in range(3):
            home.request(later=86400)
        self.assertEqual(home.call("approve", "w", "--request").code, 4)
        code = home.code
        home.tick()
        self.assertEqual(home.guess(code, later=1000).code, 4)

    def test_fifteen_minutes(self):
        home = Phone(self)
        code = home.request()
        self.assertIn("expired", home.guess(code, later=901).err)
        self.assertEqual(home.guess(code, later=880).code, 0)

    def test_it_is_for_the_plan_that_came_with_it(self):
        home = Phone(self)
        code = home.request()
        home.configure(write(*sh(LEAVE_A_MARK + "; rm -r x"), approval={"via": "telegram"}), proof())
        result = home.guess(code)
        self.assertEqual(result.code, 4)
        self.assertIn("changed", result.err)
        home.must_block("not approved")

    def test_it_is_for_one_job(self):
        home = Phone(self)
        home.configure(*home.config["jobs"], write(job_id="w2", approval={"via": "telegram"}))
        code = home.request()
        result = home.call("approve", "w2", "--digest", home.digest("w2"), "--code", code)
        self.assertEqual(result.code, 4)

    def test_revoking_voids_it(self):
        home = Phone(self)
        code = home.request()
        home.call("revoke", "w")
        self.assertEqual(home.guess(code).code, 4)

    def test_it_is_void_unless_it_is_known_to_have_arrived(self):
        def impatient():
            ops.HTTP_TIMEOUT = 0.15

        home = Phone(self)
        rows = ("server_error", "bad_gateway", "garbage", "lost", "drop", "unauthorized", "blocked", "no_chat", "too_many", "denied_with_200", "hang")
        for name in rows:
            with self.subTest(name):
                home.set_state(gates={})
                home.bot.always = getattr(botapi, name)
                result = home.call("approve", "w", "--request", bend=impatient)
                self.assertEqual(result.code, 3, result.err)
                self.assertIn("void", result.err)
                self.assertEqual(home.guess(home.code).code, 4)
                self.assertEqual(files_with(home, home.code), [])
        home.bot.always = botapi.ok
        home.tick()
        self.assertEqual(len(home.bot.requests), len(rows), "none of them waits in the outbox")
        self.assertEqual((home.state["outbox"], home.read("calls")), ([], ""), "nor is the program asked to bring it")

    def test_nobody_listens(self):
        home = Phone(self)
        home.telegram["apiRoot"] = f"http://127.0.0.1:{botapi.free_port()}"
        home.put("openclaw.json", json.dumps({"channels": {"telegram": home.telegram}, "commands": {"ownerAllowFrom": ["telegram:" + botapi.OWNER]}}))
        self.assertEqual(home.call("approve", "w", "--request").code, 3)
        self.assertFalse(home.gate().get("codeHash"))
        self.assertEqual(home.read("calls"), "")

    def test_only_the_bot_api_brings_it(self):
        command = {"via": "command", "command": sh("cat >> told")}
        for delivery in ({"via": "openclaw"}, command, {"via": "none"}, {"via": "auto", "channel": "slack", "target": "C1"}):
            with self.subTest(delivery["via"]):
                home = Phone(self, delivery=delivery)
                self.assertEqual(home.call("approve", "w", "--request").code, 3)
                self.assertEqual((home.read("calls"), home.read("told"), home.bot.requests), ("", "", []))

    def test_the_caller_does_not_choose_who_gets_it(self):
        home = Phone(self)
        home.call("approve", "w", "--request", "--target", "999888777")
        self.assertEqual([request.chat for request in home.bot.requests if request.chat != botapi.OWNER], [])

    def test_a_long_plan_leaves_room_for_it(self):
        job = write(*sh(LEAVE_A_MARK), *(letter * 300 for letter in "abcdefghijklmnopqrstuvwxyz"), approval={"via": "telegram"})
        home = Phone(self, job, proof())
        home.call("approve", "w", "--request")
        self.assertRegex(home.bot.shown[-1].text, r"\b\d{8}\b")
        self.assertEqual(home.guess(home.code).code, 0)

    def test_only_where_it_is_wanted(self):
        home = Phone(self, write(), proof())
        self.assertEqual(home.call("approve", "w", "--request").code, 2)
        self.assertEqual(home.bot.requests, [])

    def test_in_chinese(self):
        home = Phone(self, monitor={"language": "zh"})
        self.assertEqual(home.call("approve", "w", "--request").code, 0)
        code = re.search(r"\b(\d{8})\b", home.bot.shown[-1].text.split("w", 1)[1])[1]
        self.assertEqual(home.guess(code).code, 0)

    def test_killed_before_any_step_of_a_request_there_is_no_code_without_a_message(self):
        home = Phone(self)
        empty = json.dumps({"version": 2})
        home.tick()
        for step in range(1, 100):
            home.put(home.state_path, empty)
            before = len(home.bot.shown)
            code = home.call("approve", "w", "--request", die_before=step).code
            self.assertFalse(home.gate().get("digest"))
            if home.gate().get("codeHash"):
                self.assertEqual(len(home.bot.shown), before + 1)
            if code != 87:
                break
        self.assertEqual((code, bool(home.gate()["codeHash"])), (0, True))


# ---- what grants nothing


class TestWhatGrantsNothing(unittest.TestCase):
    def test_the_words_of_v1(self):
        for approval, key in (({"granted": True}, "granted"), ({"required": False}, "required"), ({"required": False, "granted": True}, "granted")):
            with self.subTest(approval):
                home = Gatehouse(self, write(approval=approval), proof())
                home.must_block("not approved", "approval.granted", "approve w")
                home.tick()
                self.assertEqual(home.ran, 0)
                checked = home.call("validate-config")
                self.assertEqual(checked.code, 0)
                self.assertRegex(checked.err, rf"warning: .*approval\.{key}: grants nothing.*approve w")
                home.approve()
                home.must_run()

    def test_a_config_that_others_can_write(self):
        rows = (("the file, by its group", "file", 0o660), ("its directory, by its group", "dir", 0o770))
        for words, what, mode in rows:
            with self.subTest(words):
                home = Gatehouse(self)
                path = home.config_path if what == "file" else os.path.dirname(home.config_path)
                before = os.stat(path).st_mode & 0o777
                digest = home.digest()
                home.approve()
                os.chmod(path, mode)
                home.must_block("could have written")
                self.assertEqual(home.run("w", "--trust-permissions").code, 4)
                self.assertEqual(home.call("approve", "w", "--digest", digest).code, 4)
                self.assertEqual((home.run("v").code, home.ran), (1, 0), "reads go on; this one finds nothing")
                os.chmod(path, before)
                home.must_run()

    def test_a_config_that_everyone_can_write(self):
        home = Gatehouse(self)
        home.approve()
        os.chmod(home.config_path, 0o666)
        self.assertEqual((home.run().code, home.ran), (2, 0))
        result = home.run("w", "--trust-permissions")
        self.assertEqual((result.code, home.ran), (4, 0))
        self.assertIn("BLOCKED", result.err)
        self.assertEqual(home.run("v", "--trust-permissions").code, 1, "reads: as asked for")

    def test_a_state_that_others_can_write(self):
        for mode in (0o666, 0o660):
            with self.subTest(oct(mode)):
                home = Gatehouse(self)
                home.approve()
                os.chmod(home.state_path, mode)
                home.must_block()


# ---- what remains of it


class TestHistory(unittest.TestCase):
    def test_every_step_says_who_when_what_and_with_what_result(self):
        home = Gatehouse(self)
        digest = home.digest()
        home.run()
        home.run()
        home.call("approve", "w", "--digest", "0" * 64)
        home.call("approve", "w")
        home.approve()
        home.call("revoke", "w")
        home.call("revoke", "w")
        home.approve()
        home.run("w", "--verify")
        home.run()
        wanted = (
            ("refused", {"reason": "gate.none"}), ("refused", {"reason": "gate.none"}),
            ("approval refused", {}), ("approval refused", {}), ("approved", {"despite": False}),
            ("revoked", {}), ("revoked", {"digest": ""}), ("approved", {}),
            ("write begun", {}), ("write ended", {"code": 0}), ("verification", {"result": "passed", "by": "v"}),
            ("refused", {"reason": "gate.none"}),
        )  # fmt: skip
        records = [record for record in home.history if record["event"] not in ("told", "run", "queued")]
        self.assertEqual([record["event"] for record in records], [event for event, _ in wanted])
        for record, (event, facts) in zip(records, wanted):
            with self.subTest(event):
                self.assertEqual({key: record[key] for key in facts}, facts)
                self.assertEqual(record["job"], "w")
                self.assertLess(abs(record["at"] - time.time()), 600)
                if event not in ("write ended", "verification"):
                    self.assertIn(f"uid {os.getuid()}", record["who"])
                    self.assertIn("no terminal", record["who"])
                if event != "verification" and "digest" not in facts:
                    self.assertEqual(record["digest"], digest)
        self.assertEqual(len({record["run"] for record in records if "run" in record}), 1)

    def test_a_lost_run_is_in_it(self):
        home = Gatehouse(self)
        home.change_gate(run="begun", runId="0123456789ab", runBeganAt=time.time() - 5)
        home.tick()
        self.assertEqual([record["run"] for record in home.events("write outcome unknown")], ["0123456789ab"])

    def test_codes_are_in_it_without_the_code(self):
        home = Phone(self)
        code = home.request()
        home.guess(home.wrong(code))
        home.guess(code)
        events = [record["event"] for record in home.history if record["event"] != "told"]
        self.assertEqual(events, ["code requested", "approval refused", "approved"])
        self.assertNotIn(code, json.dumps(home.history))


if __name__ == "__main__":
    unittest.main()
