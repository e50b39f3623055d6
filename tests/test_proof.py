"""The quick share of every claim of `benchmarks/proof.py`, and the cases that it brought to light."""

import errno
import json
import os
import unittest

from benchmarks import proof
from tests import ops
from tests.test_engine import STOPPED, Installation, check, long_job, write

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
    LOOKS = (["status"], ["status", "--json"], ["explain", "a"], ["history"], ["-h"], ["schema"])
    COMMANDS = (*LOOKS, ["tick", "--dry-run"], ["run", "c"], ["validate-config"])

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


class TestAProgramThatNoFileCanBeCalled(unittest.TestCase):
    def test_half_a_letter_in_its_name_is_a_missing_program_everywhere(self):
        for program in ("no\ud800such", "/no/\udfffsuch"):
            home = Installation(self)
            home.config["jobs"] = [{**job, "commands": {"run": [program]}} for job in (check("c", "", everySeconds=60), write("w", "", "c"))]
            home.put(home.config_path, json.dumps(home.config))
            for argv, code in ((["validate-config"], 0), (["tick"], 0), (["run", "c"], 1), (["explain", "w"], 0), (["approve", "w", "--show"], 0)):
                ran = home.call(*argv)
                self.assertEqual(ran.code, code, (argv, ran))
            self.assertIn("no program", home.call("validate-config").err)
            self.assertTrue(home.told_with("no such program"))


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
            lines = ran.err.splitlines()
            self.assertEqual((ran.code, len(set(lines))), (1, len(lines)), ran.err)
            for line in lines:
                self.assertRegex(line, "^error: .*[Nn]o space left on device")


class TestInitOnABadDisk(unittest.TestCase):
    def test_what_the_disk_refuses_names_the_file_and_is_neither_a_bug_nor_the_fault_of_the_output(self):
        for number in (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS):
            for step in ("write", "fsync"):
                home = Installation(self)

                def fails(reached, step=step, number=number):
                    if reached == step:
                        raise OSError(number, os.strerror(number))

                def bend(fails=fails):
                    ops.reach = fails

                ran = home.call("init", bend=bend)
                self.assertEqual(ran.code, 74)
                self.assertRegex(ran.err, r"^error: cannot use .*/net/tools/ops-monitor.py: [a-z /-]+\nhelp: (ls -ld |free some space|mount it writable)")


class TestSecretsStayIn(unittest.TestCase):
    """Each place in which the proof could read a token once."""

    CORE = "Zx9Qw3Er7Ty1Ui5Op2As8Df4Gh6Jk0Lz"
    TOKEN = "ghp_" + CORE + "Xc3V"

    def no_trace(self, *texts):
        for text in texts:
            pieces = [self.CORE[begin : begin + 10] for begin in range(len(self.CORE) - 9)]
            self.assertEqual([piece for piece in pieces if piece in text], [], text[:500])

    def test_names_the_host_and_the_time_zone(self):
        home = Installation(self, {**long_job("a"), "name": "a " + self.TOKEN}, monitor={"host": self.TOKEN, "timezone": self.TOKEN})
        home.says("a", **STOPPED)
        calls = [home.call(*argv) for argv in (["tick", "--dry-run"], ["tick"], ["explain", "a"], ["status", "--json"], ["validate-config"])]
        self.assertEqual(len(home.told), 1)
        self.no_trace(*home.told, home.read(home.state_path), *(text for call in calls for text in (call.out, call.err)))

    def test_programs_and_directories_that_are_missing(self):
        missing = {**check("c", "", everySeconds=60), "commands": {"run": ["/nowhere/" + self.TOKEN]}}
        nowhere = {**check("d", ":", everySeconds=60), "cwd": "/nowhere/" + self.TOKEN}
        home = Installation(self, missing, nowhere)
        home.tick()
        calls = [home.call(*argv) for argv in (["status", "--json"], ["explain", "c"], ["run", "c"], ["run", "d"], ["validate-config"])]
        self.no_trace(*home.told, home.read(home.state_path), *(text for call in calls for text in (call.out, call.err)))

    def test_words_that_are_typed(self):
        home = Installation(self, check("c", ":"))
        for argv in (["start", self.TOKEN], [self.TOKEN], ["status", "--" + self.TOKEN], ["mute", "c", "--for", self.TOKEN]):
            self.no_trace(home.call(*argv).err)

    def test_a_syntax_error_at_a_token(self):
        for text in ("{-%s: 1}", "[%s]", '{"a": %s}', '{"%s": 1, "%s": 2}'):
            with self.assertRaises(ops.Malformed) as caught:
                ops.parse_json(text.replace("%s", self.CORE if "-%s" in text else self.TOKEN), "refuse")
            self.no_trace(str(caught.exception))

    def test_a_value_that_is_quoted_in_part(self):
        for pad in range(0, 60, 3):
            self.no_trace(ops.found_text("x" * pad + " " + self.TOKEN), ops.path_text(("x" * pad + " " + self.TOKEN,)))

    def test_what_is_left_of_a_token_where_an_output_is_cut(self):
        redact = ops.Redactor()
        for cut in range(0, 40, 3):
            for limit in (ops.HEAD_KEPT, ops.TAIL_KEPT):
                stream = ops.Stream(ops.HEAD_KEPT, None)
                before = b"x " * (limit // 2) if limit == ops.HEAD_KEPT else b"y " * 80_000
                after = b" z" * 80_000 if limit == ops.HEAD_KEPT else b" z" * (limit // 2)
                stream.feed(before[cut:] + self.TOKEN.encode() + after[cut:])
                self.no_trace(redact.read(stream.kept()))

    def test_what_is_left_of_a_token_where_a_log_or_a_line_is_cut(self):
        home = Installation(self)
        for cut in range(0, 40, 3):
            home.put("log", "x\n" + self.TOKEN + " " + "y" * (8191 - cut))
            self.no_trace(ops.file_tail(home.path("log"), ops.Redactor()))
            attention = ops.Attention(("ALERT",))
            attention.feed((f"{self.TOKEN} {'x' * (199 - cut)} ALERT {'y' * (392 - 199 + cut)} {self.TOKEN}\n").encode())
            attention.feed((f"ALERT {'y' * (594 - cut)} {self.TOKEN}\n").encode())
            self.no_trace(*(ops.Redactor().read(line) for line in attention.end()))

    def test_a_key_whose_first_lines_are_gone(self):
        self.no_trace(ops.Redactor()(f"{self.CORE}{self.CORE}\n{self.CORE}\n-----END RSA PRIVATE KEY-----\n"))

    def test_the_job_of_an_entry_that_somebody_queued(self):
        home = Installation(self, check("c", ":"))
        home.set_state(queue=[{"id": "x", "jobId": self.TOKEN, "status": "pending", "notBefore": 0}])
        home.tick()
        self.assertEqual(len(home.told_with("BLOCKED")), 1)
        self.no_trace(*home.told, home.read(home.state_path))


if __name__ == "__main__":
    unittest.main()
