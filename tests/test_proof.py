"""The quick share of every claim of `benchmarks/proof.py`, and the cases that it brought to light."""

import errno
import os
import unittest

from benchmarks import proof
from tests import ops
from tests.test_engine import STOPPED, Installation, check, long_job

FULL_DISK = "/dev/full"


class TestClaims(unittest.TestCase):
    def test_the_quick_share_of_every_claim_holds(self):
        parts = [part for name in proof.NAMES for part in proof.parts_of(name, seed=1, is_quick=True)]
        cases = dict.fromkeys(proof.NAMES, 0)
        for part, tally, _ in proof.prove(parts, processes=2):
            with self.subTest(part.name):
                self.assertEqual(tally.failures, (), "\n".join(tally.failures)[:5000])
                cases[part.name] += tally.cases
        self.assertEqual([name for name, count in cases.items() if not count], [], "a claim without a case proves nothing")


@unittest.skipUnless(os.path.exists(FULL_DISK), "no /dev/full on this system")
class TestAFullDiskBehindTheOutput(unittest.TestCase):
    COMMANDS = (["status"], ["status", "--json"], ["explain", "a"], ["history"], ["-h"], ["schema"], ["tick", "--dry-run"], ["run", "c"], ["validate-config"])

    def home(self):
        home = Installation(self, long_job("a"), check("c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo ALERT: the pond"))
        home.says("a", running=True, progressKey="7")
        home.tick()
        return home

    def test_what_cannot_be_printed_is_one_line_and_74(self):
        home = self.home()
        for argv in self.COMMANDS:
            with self.subTest(argv), open(FULL_DISK, "wb") as full:
                ran = home.real_call(*argv, stdout=full)
                self.assertEqual((ran.code, ran.err), (74, "error: cannot write standard output: no space left on device\nhelp: df\n"))

    def test_a_closed_pipe_stays_silent(self):
        home = self.home()
        for argv in self.COMMANDS:
            source, sink = os.pipe()
            os.close(source)
            with self.subTest(argv), open(sink, "wb") as closed:
                ran = home.real_call(*argv, stdout=closed)
                self.assertEqual((ran.code, ran.err), (0, ""))

    def test_a_result_is_saved_and_told_although_it_cannot_be_printed(self):
        home = self.home()
        with open(FULL_DISK, "wb") as full:
            home.real_call("run", "c", stdout=full)
        self.assertTrue(home.memory("c")["ranAt"])
        home.tick()
        self.assertEqual(len(home.told_with("ALERT: the pond")), 1)

    def test_a_tick_that_cannot_complain_goes_on(self):
        home = self.home()
        home.config["jobs"].append({"id": "wrong"})
        home.configure()
        home.says("a", **STOPPED)
        with open(FULL_DISK, "wb") as full:
            self.assertEqual(home.real_call("tick", stderr=full).code, 2)
        self.assertEqual(len(home.told_with("ACTION REQUIRED", "the disk went away")), 1)


class TestTextsThatComeBack(unittest.TestCase):
    def test_each_text_of_an_incident_is_told_once_however_often_it_comes_back(self):
        home = Installation(self, long_job("a", status="cat a.status"))
        for minute, text in enumerate(("no JSON", "[]", "no JSON", "[]", '{"running": 1}', "[]", "no JSON")):
            home.put("a.status", text)
            home.tick(later=60.0 * minute)
        self.assertEqual(["not JSON" in text for text in home.told], [True, False, False])
        self.assertEqual(len(home.told_with("not a JSON object")), 1)


class TestAJobThatIsResumedAgainAndAgain(unittest.TestCase):
    def test_once_it_is_known_to_flap_its_resumes_are_made_and_not_told(self):
        home = Installation(self, long_job("a", "echo x >> starts", autoResume=True, reportWhileRunning=False, stallSeconds=0))
        for minute in range(0, 60, 2):
            home.says("a", **STOPPED)
            home.tick(later=60.0 * minute)
            home.says("a", running=True, progressKey=str(minute))
            home.tick(later=60.0 * minute + 60)
        self.assertEqual(len(home.lines("starts")), 30, "it is resumed each time")
        self.assertEqual(len(home.told_with("going wrong and right again")), 1)
        self.assertLessEqual(len(home.told), 8)
        home.tick(later=7300)
        self.assertEqual(len(home.told_with("RESOLVED", "going wrong")), 1)


class TestWhatTheConfigNames(unittest.TestCase):
    def test_a_warning_stays_on_its_line_whatever_it_names(self):
        job = {**check("c", "true"), "cwd": "/nowhere\n/etc/passwd:1:1: error: you are root"}
        other = {**check("d", "true"), "commands": {"run": ["no\x1b[31m\nerror: such\x85program"]}}
        home = Installation(self, job, other)
        ran = home.call("validate-config")
        self.assertEqual((ran.code, len(ran.err.splitlines())), (0, 2), ran.err)
        self.assertNotIn("\x1b", ran.err)
        self.assertIn(r"no directory /nowhere\n/etc/passwd", ran.err)


class TestSelftestOnABadDisk(unittest.TestCase):
    def test_what_the_disk_refuses_is_found_and_is_no_bug(self):
        for step in ("lock", "write", "replace"):
            home = Installation(self)
            os.makedirs(os.path.dirname(home.state_path))

            def fails(reached, step=step):
                if reached == step:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            def bend(fails=fails):
                ops.reach = fails

            ran = home.call("selftest", bend=bend)
            self.assertEqual((ran.code, ran.err.count("\n")), (1, 1), ran.err)
            self.assertRegex(ran.err, "error: cannot work in .*/net/state: no space left on device")


if __name__ == "__main__":
    unittest.main()
