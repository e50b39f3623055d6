"""Nothing one job does can blind the others: each bad job beside two healthy ones, in a real tick.

The neighbours' sections must be the same, letter for letter, as without the bad job, and the bad
one is told with its reason in words.
"""

import os
import re
import unittest

from tests.test_engine import Installation, check, long_job, sh

DEEP = """{"running": true, "completed": false, "progress": """
GOOD = '{"running": true, "completed": false, "progressKey": "3", "progress": {"done": 3}}'

# A bad status command, and words that its section must have.
BAD_STATUS = {
    "a missing program": (["/no/such/program"], "no such program: /no/such/program"),
    "a program that is nowhere on PATH": (["no-such-program-anywhere"], "no such program: no-such-program-anywhere"),
    "a directory as program": (["/usr"], "/usr"),
    "a file that nobody may execute": (["./plain-file"], "not allowed to execute ./plain-file"),
    "a script without its interpreter": (["./no-interpreter"], "names no interpreter"),
    "a shell that finds nothing": (sh("no-such-program-anywhere"), "exit code 127"),
    "a failure": (sh("echo the disk is on fire >&2; exit 3"), "exit code 3"),
    "a crash by signal": (sh("kill -SEGV $$"), "SIGSEGV"),
    "its own KILL": (sh("kill -KILL $$"), "SIGKILL"),
    "a KILL to its whole group": (sh("kill -KILL 0"), "SIGKILL"),
    "a hang": (sh("exec sleep 60"), "took longer than"),
    "a hang that ignores TERM politely": (sh("trap 'exit 0' TERM; sleep 60 & wait"), "took longer than"),
    "a shell that waits for a grandchild": (sh("sleep 60; echo never"), "took longer than"),
    "no output": (sh(":"), "printed nothing"),
    "white space": (sh("echo; echo ' '"), "printed nothing"),
    "garbage": (sh("head -c 3000 /dev/urandom"), "not"),
    "invalid UTF-8": (sh(r"printf '{\"running\": true, \"completed\": false, \"message\": \"\377\376\"}'"), "not UTF-8"),
    "NUL bytes": (sh(r"printf '\000\000\000'"), "not JSON"),
    "words": (sh("echo all is well"), "not JSON"),
    "half an object": (sh("""printf '{"running": true, "comp'"""), "not JSON"),
    "two objects": (sh(f"echo '{GOOD}'; echo '{GOOD}'"), "not JSON"),
    "NaN": (sh("""echo '{"running": true, "completed": false, "progress": {"rate": NaN}}'"""), "not JSON"),
    "a number beyond all bounds": (sh("""echo '{"running": true, "completed": false, "progress": {"rate": 1e999}}'"""), "not JSON"),
    "a list": (sh("echo '[]'"), "not a JSON object"),
    "a number": (sh("echo 5"), "not a JSON object"),
    "a missing field": (sh("""echo '{"running": true}'"""), "'completed'"),
    "a number for a boolean": (sh("""echo '{"running": 1, "completed": false}'"""), "'running'"),
    "running and completed": (sh("""echo '{"running": true, "completed": true}'"""), "running and completed at once"),
    "deep lists": (sh(f"printf '{DEEP}'; head -c 100000 /dev/zero | tr '\\0' '['; head -c 100000 /dev/zero | tr '\\0' ']'; echo '}}'"), "not JSON"),
    "over 1 MiB": (sh(f"printf '{DEEP}\"'; head -c 1100000 /dev/zero | tr '\\0' x; echo '\"}}'"), "over 1 MiB"),
    "endless output": (sh("exec yes"), "took longer than"),
    "endless errors": (sh("exec yes >&2"), "took longer than"),
    "endless output from a grandchild": (sh("yes & exit 5"), "exit code 5"),
    "a grandchild that keeps the pipe": (sh("sleep 60 & echo not JSON; exit 0"), "not JSON"),
    "closing its outputs, then sleeping": (sh(f"echo '{GOOD}'; exec >&- 2>&-; exec sleep 60"), "took longer than"),
    "terminal controls": (sh(r"printf '\033[2J\033]0;owned\007'; printf '\033[31mfire\033[0m\n' >&2; exit 1"), "exit code 1"),
}

# Answers that are strange and still valid: nothing is told but routine.
STRANGE_AND_GOOD = {
    "a byte order mark": sh(r"printf '\357\273\277'; echo '" + GOOD + "'"),
    "a good answer and a flood of errors": sh(f"head -c 3000000 /dev/zero | tr '\\0' e >&2; echo '{GOOD}'"),
    "a good answer and a grandchild that keeps the pipe": sh(f"sleep 60 & echo '{GOOD}'"),
    "optional parts of the wrong type": sh(
        """echo '{"running": true, "completed": false, "pid": true, "progress": 5, "level": [], "message": {}}'"""
    ),
    "long numbers": sh(
        """echo '{"running": true, "completed": false, "pid": 1e300, "progress": {"n": 0.1e-300, "m": 123456789012345678901234567890}}'"""
    ),
    "lone surrogates": sh(r"""echo '{"running": true, "completed": false, "message": "\ud800", "progress": {"\udfff": "\ud800"}}'"""),
}

# A bad one-shot run, and words of its section.
BAD_RUN = {
    "a missing program": (["/no/such/program"], "no such program"),
    "a hang": (sh("echo begun; exec sleep 60"), "took longer than"),
    "a crash by signal": (sh("kill -ABRT $$"), "SIGABRT"),
    "endless output": (sh("exec yes"), "took longer than"),
    "an endless line": (sh("exec cat /dev/zero"), "took longer than"),
    "an alarm before a flood": (
        sh("echo 'ALERT: the pond is empty'; head -c 3000000 /dev/zero | tr '\\0' x; echo; yes | head -c 3000000"),
        "the pond is empty",
    ),
    "invalid UTF-8 in an alarm": (sh(r"printf 'ALERT: \377\376 pond\n'"), "pond"),
    "a flood of alarms": (sh("yes 'ALERT: again' | head -n 20000"), "ALERT: again"),
    "a grandchild that keeps the pipe": (sh("sleep 60 & echo 'ACTION REQUIRED: look'"), "ACTION REQUIRED: look"),
}


def bad_job(status, **more):
    job = long_job("bad", statusTimeoutSeconds=0.3)
    job["commands"]["status"] = status
    return {**job, **more}


def bad_check(run, **more):
    job = check("bad", ":", everySeconds=60, runTimeoutSeconds=0.3)
    job["commands"]["run"] = run
    return {**job, **more}


class TestNothingBlindsTheOthers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.alone = None

    def install(self, *jobs):
        healthy = long_job("healthy", status=f"echo '{GOOD}'"), check("watchful", "echo 'ALERT: the well is dry'; exit 2", everySeconds=60)
        home = Installation(self, healthy[0], *jobs, healthy[1], monitor={"parallel": 4})
        home.put("plain-file", "echo no\n")
        home.put("no-interpreter", "#!/no/such/interpreter\n")
        os.chmod(home.path("no-interpreter"), 0o755)
        return home

    def sections(self, home, begun=None):
        """The sections of one printed tick, by the id of their job, and the call's result."""
        result = home.end(begun or home.begin("tick", "--print-only"))
        found = {}
        for section in result.out.split("\n\n"):
            match = re.match(r"\S+ (?:ALERT|ACTION REQUIRED|running|WARNING|note|AUTORUN)\b.* · (?:.*\()?([^()\n]+?)\)?\n", section + "\n")
            if match:
                found[match.group(1)] = found.get(match.group(1), "") + section.replace(home.root, "HOME").strip()
        return found, result

    def side_by_side(self, cases, install):
        """(case, home, tick that has begun) of each case, a few at once: most of their time is waiting."""
        cases = list(cases)
        for index in range(0, len(cases), 4):
            batch = [(case, install(case)) for case in cases[index : index + 4]]
            for case, home, begun in [(case, home, home.begin("tick", "--print-only")) for case, home in batch]:
                yield case, home, begun
                home.clear_away()

    def neighbours_are_untouched(self, home, begun=None):
        """What the bad job's section says; everything else must be as if it were not there."""
        if TestNothingBlindsTheOthers.alone is None:
            TestNothingBlindsTheOthers.alone, _ = self.sections(self.install())
            self.assertEqual(set(self.alone), {"healthy", "watchful"}, "the scene itself")
        found, result = self.sections(home, begun)
        self.assertEqual((result.code, result.err), (0, ""))
        told = found.pop("bad", "")
        self.assertEqual(found, self.alone)
        self.assertFalse(re.search("[\0-\x08\x0b-\x1f\x7f]", told), repr(told))
        return told

    def test_by_a_bad_status_command(self):
        for (what, (_, words)), home, begun in self.side_by_side(BAD_STATUS.items(), lambda case: self.install(bad_job(case[1][0]))):
            with self.subTest(what):
                told = self.neighbours_are_untouched(home, begun)
                self.assertIn("ALERT · bad", told)
                self.assertIn(words, told)
                self.assertNotIn("longer than 0s", told)

    def test_by_a_strange_answer_that_is_good(self):
        for what, status in STRANGE_AND_GOOD.items():
            with self.subTest(what):
                job = bad_job(status)
                job["policy"]["statusTimeoutSeconds"] = 10
                told = self.neighbours_are_untouched(self.install(job))
                self.assertIn("running · bad", told)

    def test_by_a_bad_run(self):
        def install(case):
            job = bad_check(case[1][0])
            if "took longer" not in case[1][1]:
                job["policy"]["runTimeoutSeconds"] = 10
            return self.install(job)

        for (what, (_, words)), home, begun in self.side_by_side(BAD_RUN.items(), install):
            with self.subTest(what):
                told = self.neighbours_are_untouched(home, begun)
                self.assertIn("ALERT · bad", told)
                self.assertIn(words, told)
                self.assertLess(len(told), 3600)

    def test_by_a_directory_that_is_missing(self):
        for job in (bad_job(sh(":"), cwd="/no/such/place"), bad_check(sh(":"), cwd="/no/such/place")):
            with self.subTest(job["kind"]):
                told = self.neighbours_are_untouched(self.install(job))
                self.assertIn("no such directory: /no/such/place", told)

    def test_by_a_start_that_hangs_or_fails(self):
        for start, words in (
            (sh("exec sleep 60"), "took longer than"),
            (["/no/such/program"], "no such program"),
            (sh("echo woe; exit 9"), "exit code 9"),
        ):
            with self.subTest(start=start):
                job = long_job("bad", autoResume=True, startTimeoutSeconds=0.3)
                job["commands"]["start"] = start
                home = self.install(job)
                home.says("bad")
                told = self.neighbours_are_untouched(home)
                self.assertIn("AUTORUN · bad", told)
                self.assertIn(words, told)

    def test_by_all_bad_jobs_together(self):
        jobs = []
        for number, (status, _) in enumerate(BAD_STATUS.values()):
            jobs.append({**bad_job(status), "id": f"bad {number}"})
        self.assertGreater(len(jobs), 32, "more than run at once, and few enough for the messages of one tick")
        found, result = self.sections(self.install(*jobs))
        self.assertEqual((result.code, result.err), (0, ""))
        for name, text in (self.alone or {}).items():
            self.assertEqual(found.get(name), text)
        self.assertEqual(len([name for name in found if name.startswith("bad")]), len(jobs))

    def test_by_an_error_in_its_own_config(self):
        home = self.install(bad_job(sh(":"), kind="long_running"))
        found, result = self.sections(home)
        self.assertEqual(result.code, 2)
        for name, text in (self.alone or self.sections(self.install())[0]).items():
            self.assertEqual(found.get(name), text)
        self.assertIn("jobs left out: bad", result.out)


class TestNothingIsLeftBehind(unittest.TestCase):
    def test_a_grandchild_that_keeps_the_pipe_is_not_waited_for(self):
        """It still lives when the tick has ended."""
        for job in (bad_job(sh(f"sleep 20 & echo '{GOOD}'")), bad_check(sh("sleep 20 & echo fine"))):
            with self.subTest(job["kind"]):
                job["policy"].update(statusTimeoutSeconds=60, runTimeoutSeconds=60)
                home = Installation(self, job)
                self.assertEqual(home.call("tick", "--print-only").code, 0)
                self.assertEqual(len(home.processes()), 1)

    def test_what_times_out_is_ended_with_all_it_started(self):
        away = "setsid sleep 61 & sleep 62 & sleep 63"
        home = Installation(self, bad_job(sh(away)), {**bad_check(sh(away)), "id": "bad check"})
        home.call("tick", "--print-only")
        self.assertEqual(home.processes(), [])


if __name__ == "__main__":
    unittest.main()
