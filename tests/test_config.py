"""CONFIG: every key of ops-jobs.json has its type, default and bound, and every mistake its place.

Tables say what is accepted; the rest derives from ops.FIELDS, so that a new row is tested the
moment it stands there. The command line is called in process, with its own environment.
"""

import contextlib
import copy
import io
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from tests import ROOT, SCRIPT, ops

DATA = ROOT / "tests" / "data"
LINE = re.compile(r"FILE:(\d+):(\d+): (error|warning): (.*)", re.S)


def check(job_id, **more):
    return {"id": job_id, "kind": "one_shot_read", "risk": "read_only", "commands": {"run": ["/bin/echo", "fine"]}, **more}


def write(job_id, *verified_by, **more):
    after = [{"jobId": name} for name in verified_by]
    return {"id": job_id, "kind": "one_shot_write", "risk": "write_local", "commands": {"run": ["/bin/echo"]}, "after": after, **more}


def long_job(job_id, **more):
    commands = {"start": ["/bin/echo"], "status": ["/bin/echo", "{}"]}
    return {"id": job_id, "kind": "long_running_read", "risk": "read_only", "commands": commands, **more}


def managed(job_id, **more):
    return dict(long_job(job_id), managed=True, commands=more.pop("commands", {"start": ["/bin/echo"]}), **more)


def document(*jobs, **more):
    return {"version": 1, "jobs": list(jobs), **more}


def read(*jobs, **more):
    return ops.read_config(json.dumps(document(*jobs, **more)))


def lines_of(text, strict=False):
    """What is said of a config, with FILE for its path."""
    return ops.problem_lines(ops.read_config(text), "FILE", strict)


def said_of(*jobs, strict=False, **more):
    """The same without places: `error: jobs[0].x: …`."""
    found = lines_of(json.dumps(document(*jobs, **more)), strict)
    return [re.sub(r"^FILE:\d+:\d+: ", "", line) for line in found]


def only_job(config):
    (job,) = config.jobs.values()
    return job


def whole():
    """A config that mentions every section of FIELDS."""
    return document(
        check("look", after=[{"jobId": "other"}]),
        check("other"),
        write("prune", "look", approval={}, policy={"quietHours": {}}),
        long_job("crawl"),
        defaults={},
        monitor={},
        delivery={},
    )


HOLDERS = {  # section of FIELDS -> where an object of it stands in whole()
    "config": (), "monitor": ("monitor",), "delivery": ("delivery",), "job": ("jobs", 0), "commands": ("jobs", 3, "commands"),
    "policy": ("jobs", 2, "policy"), "quietHours": ("jobs", 2, "policy", "quietHours"), "approval": ("jobs", 2, "approval"),
    "after": ("jobs", 0, "after", 0),
}  # fmt: skip


def with_value(section, key, value):
    """(text of whole() with that setting, its path)."""
    made = holder = whole()
    for step in HOLDERS[section]:
        holder = holder[step]
    holder[key] = value
    return json.dumps(made, indent=1), (*HOLDERS[section], key)


def problems_at(text, path):
    """What is wrong at a path, or what keeps the whole file from being read."""
    try:
        config = ops.read_config(text)
    except ops.Malformed as error:
        return [f"{error.line}:{error.column}: {error.problem}"]
    return [problem.text for problem in config.problems if problem.is_error and problem.path[: len(path)] == path]


class CommandLine:
    """The command line in this process, in a temporary home."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(os.chdir, os.getcwd())  # a tick works in its jobs' directories
        self.home = os.path.realpath(folder.name)
        self.config_file = os.path.join(self.home, "ops-jobs.json")
        self.state_file = os.path.join(self.home, "state", "ops-monitor.json")
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def save(self, content):
        raw = content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
        pathlib.Path(self.config_file).write_bytes(raw)

    def call(self, *argv):
        """(exit code, stdout, stderr) of a command."""
        out, err = io.StringIO(), io.StringIO()
        env = {"HOME": self.home, "OPENCLAW_HOME": self.home, "PATH": "/usr/bin:/bin"}
        files = ["--config-file", self.config_file, "--state-file", self.state_file]
        crash_files = mock.patch.object(tempfile, "tempdir", self.home)
        with crash_files, mock.patch.dict(os.environ, env, clear=True), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = ops.main([*argv, *files])
        return code, out.getvalue(), err.getvalue()

    def validate(self, content, *options):
        self.save(content)
        return self.call("validate-config", *options)


# ---- every key


REQUIRED = ops.REQUIRED
DEFAULTS = {  # the contract's tables, by hand
    "config": {"version": REQUIRED, "jobs": REQUIRED, "defaults": {}, "monitor": {}, "delivery": {}},
    "job": {
        "id": REQUIRED, "name": None, "kind": REQUIRED, "risk": REQUIRED, "enabled": False, "cwd": None, "env": {}, "commands": REQUIRED,
        "managed": False, "policy": {}, "approval": None, "after": [],
    },
    "commands": {"start": None, "status": None, "stop": None, "run": None},
    "policy": {
        "reportEverySeconds": 1800, "onlyOnChange": True, "minReportSeconds": 300, "reportWhileRunning": True, "stallSeconds": 3600,
        "onStall": "alert", "autoResume": False, "autoResumeBackoffSeconds": 900, "autoResumeMaxAttempts": 5, "quietHours": {},
        "alertRepeatSeconds": 14400, "alertAfter": 1, "everySeconds": 0, "statusTimeoutSeconds": 30, "startTimeoutSeconds": 60,
        "stopTimeoutSeconds": 60, "runTimeoutSeconds": None, "attentionPatterns": ["ACTION REQUIRED", "ALERT"],
    },
    "quietHours": {"start": "23:00", "end": "08:00"},
    "approval": {"via": "local", "ttlSeconds": 3600, "required": True, "granted": False},
    "after": {"jobId": REQUIRED, "when": "success", "delaySeconds": 0},
    "monitor": {"language": "en", "timezone": None, "host": "", "parallel": 32, "digestAt": None, "afterTick": None},
    "delivery": {"via": "auto", "channel": "telegram", "target": None, "threadId": None, "account": None, "command": None},
}  # fmt: skip

SECONDS = ([0, 0.5, 1, 86400, 1e9], [-1, -0.001, "60", True, None, [], {}, float("nan"), float("inf")])
BOOLEAN = ([True, False], [0, 1, "true", None, [], {}])
CLOCK = (["00:00", "23:59", "08:05"], ["24:00", "8:05", "08:60", "08:05:00", " 08:05", "", 800, None, True])
ARGV = ([["/bin/ls"], ["ls", ""], ["ls", "-l", "a b"]], [[], [""], "ls", ["ls", 5], ["ls", None], ["l\0s"], ["ls", "\0"], {}, 5, True])
TEXT = (["", "a", "文字", "two\nlines"], [5, True, [], {}, "a\0b"])
ID = (["a", "文字 🛠", "x" * 128, "a/b..c d"], ["", "x" * 129, "a\nb", "a\0", 5, None, True, [], {}])
CHAT = (["777", 777, -100123, "@name", "telegram:5:topic:3", None], [True, 1.5, [], {}, "a\0"])
VALUES = {  # what each key accepts, and what it refuses
    "config.version": ([1], [2, 0, "1", True, None, [1]]),
    "config.jobs": ([[]], [{}, None, "x", 1, True]),
    "config.defaults": ([{}, {"stallSeconds": 1}], [[], None, 5, {"stallSeconds": -1}]),
    "config.monitor": ([{}], [[], None, 5]),
    "config.delivery": ([{}], [[], None, "auto"]),
    "monitor.language": (["en", "zh"], ["de", "EN", "", None, 1, []]),
    "monitor.timezone": (["Europe/Zurich", None], [5, True, []]),
    "monitor.host": (["", "mini"], [None, 5, ["a"]]),
    "monitor.parallel": ([1, 32, 256], [0, -1, 257, 1.5, "8", True, None]),
    "monitor.digestAt": (["08:00", None], ["8", 8, True, "24:00"]),
    "monitor.afterTick": ([["/bin/true"], None], [[], "true", [5], [""]]),
    "delivery.via": (["auto", "openclaw", "api", "command", "none"], ["telegram", "", None, 5]),
    "delivery.channel": (["telegram", "feishu"], [None, 5, True]),
    "delivery.target": CHAT,
    "delivery.threadId": CHAT,
    "delivery.account": (["default", None], [5, True, []]),
    "delivery.command": ([["/bin/cat"], None], [[], "cat", [5]]),
    "job.id": ID,
    "job.name": ([*TEXT[0], None], TEXT[1]),
    "job.kind": (["long_running_read", "one_shot_read", "one_shot_write"], ["one_shot", "", None, 1, []]),
    "job.risk": (["read_only", "write_local", "write_external"], ["none", "", None, 1, []]),
    "job.enabled": BOOLEAN,
    "job.cwd": (["~", "/tmp", "here", None], [5, True, [], "a\0b"]),
    "job.env": ([{}, {"A": "", "B": "x"}], [[], None, "A=B", {"A": 5}, {"A": None}, {"A=B": "x"}, {"": "x"}, {"A": "\0"}, {"A\0": ""}]),
    "job.commands": ([{"run": ["ls"]}], [[], None, ["ls"], "ls"]),
    "job.managed": BOOLEAN,
    "job.policy": ([{}], [[], None, 5, {"stallSeconds": "1h"}]),
    "job.approval": ([None, {}], [[], True, "local"]),
    "job.after": ([[], [{"jobId": "other"}]], [{}, None, "other", ["other"], [{}], [{"jobId": 5}]]),
    "commands.start": ([*ARGV[0], None], ARGV[1]),
    "commands.status": ([*ARGV[0], None], ARGV[1]),
    "commands.stop": ([*ARGV[0], None], ARGV[1]),
    "commands.run": ([*ARGV[0], None], ARGV[1]),
    "policy.onlyOnChange": BOOLEAN,
    "policy.reportWhileRunning": BOOLEAN,
    "policy.autoResume": BOOLEAN,
    "policy.onStall": (["alert", "restart"], ["", "stop", None, True]),
    "policy.autoResumeMaxAttempts": ([0, 1, 5, 1000], [-1, 1.5, "5", True, None]),
    "policy.alertAfter": ([1, 2, 100], [0, -1, 1.5, "1", True, None]),
    "policy.quietHours": ([{}, {"start": "22:00"}, {"end": "07:00"}, {"start": "01:00", "end": "01:00"}], [[], None, "22-07", {"start": 22}]),
    "policy.runTimeoutSeconds": ([*SECONDS[0], None], [value for value in SECONDS[1] if value is not None]),
    "policy.attentionPatterns": ([[], ["ALERT"], ["警告", "NOT OK"]], ["ALERT", [""], [" "], [5], None, {}, ["a\0"]]),
    "quietHours.start": CLOCK,
    "quietHours.end": CLOCK,
    "approval.via": (["local", "telegram"], ["", "mail", None, True]),
    "approval.required": BOOLEAN,
    "approval.granted": BOOLEAN,
    "after.jobId": (["other"], ID[1]),
    "after.when": (["success", "failure", "always"], ["ok", "", None, True]),
}  # fmt: skip
DURATIONS = [f"{section}.{field.key}" for section, fields in ops.FIELDS.items() for field in fields if field.key.endswith("Seconds")]


class EveryKeyHasItsTypeDefaultAndBound(unittest.TestCase):
    def test_the_keys_and_defaults_are_those_of_the_contract(self):
        found = {section: {field.key: field.default for field in fields} for section, fields in ops.FIELDS.items()}
        self.assertEqual(found, DEFAULTS)

    def test_what_each_key_accepts_and_refuses(self):
        table = {**dict.fromkeys(DURATIONS, SECONDS), **VALUES}
        self.assertEqual(set(table), {f"{section}.{key}" for section, keys in DEFAULTS.items() for key in keys}, "a row for each key")
        for name, (good, bad) in table.items():
            section, _, key = name.partition(".")
            for value in good:
                with self.subTest(key=name, accepted=value):
                    text, path = with_value(section, key, value)
                    said = [line for line in problems_at(text, path) if "expected" in line and "one_shot_read" not in line]
                    self.assertEqual(said, [], "a check may not write nor be managed: that is another test's")
            for value in bad:
                with self.subTest(key=name, refused=value):
                    text, path = with_value(section, key, value)
                    self.assertTrue(problems_at(text, path), "nothing was said")

    def test_each_refusal_says_what_was_expected_where_and_what_was_found(self):
        for section, fields in ops.FIELDS.items():
            for field in fields:
                for value, found in (([[]], "found a list"), (float("nan"), "found NaN"), ("\0", "found text")):
                    if field.kind.accepts(value):
                        continue
                    text, path = with_value(section, field.key, value)
                    row = next(number for number, line in enumerate(text.split("\n"), 1) if f'"{field.key}": {json.dumps(value)[:1]}' in line)
                    with self.subTest(path=path, value=value):
                        try:
                            said = [LINE.match(line).groups() for line in lines_of(text)]
                        except ops.Malformed as error:
                            said = [(str(error.line), str(error.column), "error", error.problem)]
                        mine = [item for item in said if item[3].startswith(ops.path_text(path) + ": ")]
                        self.assertEqual(len(mine), 1, said)
                        line, column, level, words = mine[0]
                        self.assertEqual(level, "error")
                        self.assertIn(f"expected {field.kind.expected}", words)
                        self.assertIn(found, words)
                        source = text.split("\n")[int(line) - 1]
                        self.assertIn(f'"{field.key}": ', source[: int(column) - 1], f"the place of the value; row {row}")

    def test_each_required_key_is_missed_where_its_object_stands(self):
        for section, fields in ops.FIELDS.items():
            for field in fields:
                if field.default is not REQUIRED:
                    continue
                with self.subTest(section=section, key=field.key):
                    made = holder = whole()
                    for step in HOLDERS[section]:
                        holder = holder[step]
                    del holder[field.key]
                    self.assertTrue(any(f"'{field.key}' is missing" in line for line in problems_at(json.dumps(made), HOLDERS[section])))

    def test_a_job_that_says_nothing_has_the_defaults(self):
        job = only_job(read(check("a")))
        policy = job.policy
        self.assertEqual((job.name, job.enabled, job.cwd, job.env, job.managed, job.approval, job.after), ("a", False, None, {}, False, None, []))
        self.assertEqual(tuple(policy.quiet_hours), ("23:00", "08:00"))
        for key, default in DEFAULTS["policy"].items():
            if key != "quietHours":
                self.assertEqual(getattr(policy, ops.snake(key)), default, key)

    def test_a_write_may_run_for_an_hour_and_a_read_for_five_minutes_unless_it_says_otherwise(self):
        config = read(
            check("v"), write("w", "v"), check("mine", policy={"runTimeoutSeconds": 1.5}), check("none", policy={"runTimeoutSeconds": None})
        )
        self.assertEqual([ops.run_timeout(job) for job in config.jobs.values()], [300, 3600, 1.5, 300])

    def test_approval_and_after_have_their_own_defaults(self):
        config = read(check("v"), write("w", "v", approval={}))
        self.assertEqual(tuple(config.jobs["w"].approval), ("local", 3600, True, False))
        self.assertEqual(tuple(config.jobs["w"].after[0]), ("v", "success", 0))

    def test_every_row_has_a_document_line_and_every_section_a_row(self):
        for section, fields in ops.FIELDS.items():
            for field in fields:
                self.assertTrue(field.doc.strip(), f"{section}.{field.key}")
                if field.kind.section:
                    self.assertIn(field.kind.section, ops.FIELDS)


class DefaultsMerge(unittest.TestCase):
    def quiet(self, defaults, own):
        job = only_job(read(check("a", policy=own), defaults=defaults))
        return tuple(job.policy.quiet_hours)

    def test_the_job_wins_over_the_defaults_and_these_over_ours(self):
        config = read(
            check("a"), check("b", policy={"stallSeconds": 5, "alertAfter": 2}), defaults={"stallSeconds": 7, "attentionPatterns": ["PANIC"]}
        )
        a, b = (job.policy for job in config.jobs.values())
        self.assertEqual((a.stall_seconds, a.alert_after, a.attention_patterns), (7, 1, ["PANIC"]))
        self.assertEqual((b.stall_seconds, b.alert_after, b.attention_patterns), (5, 2, ["PANIC"]))

    def test_a_missing_half_of_quiet_hours_is_the_default_half(self):
        table = (
            ({}, {}, ("23:00", "08:00")),
            ({}, {"start": "22:00"}, ("22:00", "08:00")),
            ({}, {"end": "07:00"}, ("23:00", "07:00")),
            ({"start": "21:00"}, {"end": "07:00"}, ("21:00", "07:00")),
            ({"start": "21:00", "end": "06:00"}, {"end": "07:00"}, ("21:00", "07:00")),
            ({"end": "06:00"}, {"start": "00:00", "end": "00:00"}, ("00:00", "00:00")),
        )
        for default, own, expected in table:
            with self.subTest(default=default, own=own):
                self.assertEqual(self.quiet({"quietHours": default}, {"quietHours": own}), expected)

    def test_quiet_hours_hold_within_and_equal_halves_never(self):
        for hours, minute, left in (
            ({}, 23 * 60, 9 * 3600), ({}, 22 * 60 + 59, 0), ({}, 0, 8 * 3600), ({}, 8 * 60 - 1, 60), ({}, 8 * 60, 0),
            ({"start": "12:00", "end": "13:00"}, 12 * 60 + 30, 1800), ({"start": "12:00", "end": "13:00"}, 0, 0),
            ({"start": "08:00"}, 8 * 60, 0), ({"start": "05:00", "end": "05:00"}, 5 * 60, 0),
        ):  # fmt: skip
            with self.subTest(hours=hours, minute=minute):
                self.assertEqual(ops.quiet_left(ops.make_policy({"quietHours": hours}), minute), left)

    def test_one_job_does_not_see_the_settings_of_another(self):
        config = read(check("a", policy={"quietHours": {"start": "01:00"}, "stallSeconds": 1}), check("b", env={}), check("c"))
        self.assertEqual(config.jobs["c"].policy, only_job(read(check("c"))).policy)

    def test_a_wrong_default_is_one_error_and_the_jobs_stay(self):
        config = read(check("a"), check("b"), defaults={"stallSeconds": "1h", "alertAfter": 3})
        self.assertEqual([ops.path_text(problem.path) for problem in config.errors], ["defaults.stallSeconds"])
        self.assertEqual({job.policy.alert_after for job in config.jobs.values()}, {3})

    def test_a_default_that_does_not_fit_every_job_is_no_mistake_of_theirs(self):
        for key, value in (("autoResume", True), ("everySeconds", 600), ("onStall", "restart")):
            with self.subTest(key=key):
                self.assertEqual(said_of(check("v"), write("w", "v"), long_job("l"), defaults={key: value}), [])


# ---- places and words


class EveryProblemHasItsPlaceAndIsReportedAtOnce(CommandLine, unittest.TestCase):
    def test_a_line_names_file_line_column_and_path(self):
        rows = [
            '{"version": 1, "jobs": [',
            json.dumps(check("a")) + ",",
            json.dumps(check("b")) + ",",
            '  {"id": "c", "kind": "one_shot_read", "risk": "read_only",',
            '   "commands": {"run": ["ls"]},',
            '   "policy": {',
            '      "stallSeconds": "1h"}}',
            "]}",
        ]
        text = "\n".join(rows)
        self.assertEqual(lines_of(text), ["FILE:7:23: error: jobs[2].policy.stallSeconds: expected a number of seconds, 0 or more, found text '1h'"])

    def test_the_same_place_under_json5(self):
        text = "// jobs of the mini\n{version: 1, jobs: [{id: 'a', kind: 'one_shot_read', risk: 'read_only',\n"
        text += " commands: {run: ['ls',],},\n\tenabled: 'yes',}]}"
        self.assertEqual(lines_of(text), ["FILE:4:11: error: jobs[0].enabled: expected true or false, found text 'yes'"])

    def test_all_problems_at_once_in_the_order_of_the_file(self):
        text = json.dumps(
            document(
                {"id": "", "kind": "once", "risk": 3, "commands": {"run": []}, "enabled": 1},
                check("b", policy={"stallSeconds": -1, "alertAfter": 0}, frobnicate=1),
                "job",
                monitor={"language": "de"},
                defaults={"onStall": "cry"},
            ),
            indent=1,
        )
        found = [LINE.match(line).groups() for line in lines_of(text)]
        self.assertEqual(
            [words.split(":")[0] for _, _, _, words in found],
            [
                "jobs[0].id", "jobs[0].kind", "jobs[0].risk", "jobs[0].commands.run", "jobs[0].enabled", "jobs[1].policy.stallSeconds",
                "jobs[1].policy.alertAfter", "jobs[1].frobnicate", "jobs[2]", "monitor.language", "defaults.onStall",
            ],
        )  # fmt: skip
        places = [(int(line), int(column)) for line, column, _, _ in found]
        self.assertEqual(places, sorted(places))
        self.assertEqual([level for _, _, level, _ in found].count("warning"), 1)

    def test_the_command_line_prints_them_all_and_exits_2(self):
        code, out, err = self.validate(document(check("a", enabled=0), check("b", cwd=5), check("c")))
        self.assertEqual((code, out), (2, ""))
        errors = [line for line in err.splitlines() if ": error: " in line]
        self.assertEqual(len(errors), 2, err)
        for line in errors:
            self.assertRegex(line, re.escape(self.config_file) + r":\d+:\d+: error: jobs\[\d\]\.")

    def test_a_good_config_is_ok_with_its_warnings(self):
        code, out, err = self.validate(document(check("a", cwd="/"), check("b", cwd="/", colour="red")))
        self.assertEqual((code, out), (0, "OK: version=1 jobs=2\n"))
        self.assertIn(": warning: jobs[1].colour: unknown key", err)
        self.assertNotIn("error", err)

    def test_strict_turns_warnings_into_errors(self):
        code, out, err = self.validate(document(check("a", cwd="/", colour="red")), "--strict")
        self.assertEqual((code, out), (2, ""))
        self.assertIn(": error: jobs[0].colour: unknown key", err)
        self.assertEqual(self.validate(document(check("a", cwd="/")), "--strict")[:2], (0, "OK: version=1 jobs=1\n"))

    def test_an_unknown_key_names_the_nearest_known_one(self):
        for made, expected in (
            (check("a", enable=True), "jobs[0].enable: unknown key; did you mean 'enabled'?"),
            (check("a", policy={"stallSecond": 1}), "jobs[0].policy.stallSecond: unknown key; did you mean 'stallSeconds'?"),
            (
                check("a", policy={"quietHours": {"begin": "01:00", "strat": "01:00"}}),
                "jobs[0].policy.quietHours.strat: unknown key; did you mean 'start'?",
            ),
            (check("a", zzzz=1), "jobs[0].zzzz: unknown key"),
        ):
            with self.subTest(expected):
                self.assertIn("warning: " + expected, said_of(made))

    def test_keys_that_begin_with_an_underscore_a_dollar_or_two_slashes_are_comments(self):
        comments = {"_": 1, "_note": [], "$schema": "x", "//": "why", "// enabled": True}
        made = document(
            check("a", policy=dict(comments), **comments), **comments, monitor=dict(comments), delivery=dict(comments), defaults=dict(comments)
        )
        made["jobs"][0]["commands"].update(comments)
        self.assertEqual(lines_of(json.dumps(made), strict=True), [])

    def test_a_problem_is_one_line_without_control_characters(self):
        made = check("a", **{"line\nfeed": 1, "\x1b[31mred": 1, "name": ["\n"], "cwd": "x\n\x1b[2J\0", "kind": "a\rb\x1b[0m"})
        for line in lines_of(json.dumps(document(made))):
            self.assertEqual([letter for letter in line if not letter.isprintable()], [], repr(line))

    def test_a_problem_shows_no_secret(self):
        made = document(
            check("a", env="API_TOKEN=abcd1234efgh5678"), delivery={"target": ["x"], "command": "curl -H 'Authorization: Bearer abcdefgh12345678'"}
        )
        said = "\n".join(lines_of(json.dumps(made)))
        self.assertIn("jobs[0].env", said)
        self.assertNotIn("abcd1234efgh5678", said)
        self.assertNotIn("abcdefgh12345678", said)

    def test_a_problem_of_a_key_that_the_job_does_not_say_itself_is_placed_at_the_job(self):
        text = json.dumps(document(write("w"), check("v", kind="one_shot_read", risk="write_local")), indent=1)
        for line in lines_of(text):
            self.assertNotRegex(line, r"^FILE:1:1:")

    def test_the_place_of_an_after_entry_is_its_own(self):
        made = document(check("broken", risk="x"), check("a", after=[{"jobId": "broken"}, {"jobId": "nowhere"}]))
        self.assertIn("error: jobs[1].after[1].jobId: no job 'nowhere'", said_of(*made["jobs"]))

    def test_a_long_value_is_cut(self):
        for value in ("x" * 5000, 10**4000, [1] * 5000):
            self.assertLess(len(said_of(check("a", enabled=value))[0]), 200)


# ---- the file


class EveryUnusableFileIsOneClearLine(CommandLine, unittest.TestCase):
    """Exit 2, one `error:` line with a place where there is one, never a traceback."""

    def refused(self, content, *expected):
        code, out, err = self.validate(content)
        self.check_refusal(code, out, err, *expected)
        return err

    def check_refusal(self, code, out, err, *expected):
        self.assertEqual((code, out), (2, ""), err)
        self.assertNotIn("Traceback", err)
        errors = [line for line in err.splitlines() if not line.startswith("help: ")]
        self.assertEqual(len(errors), 1, err)
        self.assertIn("error:", errors[0])
        self.assertIn(self.config_file, errors[0])
        for word in expected:
            self.assertIn(word, errors[0])

    def test_texts_that_are_no_config(self):
        good = json.dumps(document(check("a")))
        for name, content, expected in (
            ("empty", "", (":1:1:", "the end")),
            ("blank", " \n\n ", (":3:2:", "the end")),
            ("only a comment", "// nothing yet\n", (":2:1:",)),
            ("a list", "[]", (":1:1:", "an object", "a list")),
            ("a number", "5", (":1:1:", "number 5")),
            ("null", "null", (":1:1:", "null")),
            ("cut short", good[:-1], (f":1:{len(good)}:", "the end")),
            ("a missing comma", '{"version": 1\n "jobs": []}', (":2:2:", "','")),
            ("text not closed", '{"version": 1,\n "jobs": ["a]}', (":2:11:", "not closed")),
            ("a stray word", '{"version": 1, "jobs": nope}', (":1:24:", "nope")),
            ("two values", "{} {}", (":1:4:", "the end")),
            ("octal", '{"version": 01}', (":1:13:", "octal")),
            ("a duplicate key", '{"version": 1,\n "jobs": [],\n "jobs": []}', (":3:2:", "duplicate key 'jobs'")),
            ("a duplicate key deep down", '{"version": 1, "jobs": [{"id": "a",\n "id": "b"}]}', (":2:2:", "duplicate key 'id'")),
            ("no version", '{"jobs": []}', (":1:1:", "'version' is missing")),
            ("another version", '{"version": 2, "jobs": []}', (":1:13:", "version", "number 2")),
            ("no jobs", '{"version": 1}', (":1:1:", "'jobs' is missing")),
            ("jobs that are no list", '{"version": 1, "jobs": {}}', (":1:24:", "jobs", "an object")),
            ("deeper than anybody writes", '{"version": 1, "jobs": ' + "[" * 5000 + "]" * 5000 + "}", ()),
        ):
            with self.subTest(name):
                self.refused(content, *expected)

    def test_nesting_under_a_comment_key_breaks_nothing(self):
        for depth in (150, 250, 900, 5000):
            text = '{"version": 1, "jobs": [], "typo": 1, "_deep": ' + "[" * depth + "]" * depth + "}"
            with self.subTest(depth=depth):
                code, _, err = self.validate(text)
                self.assertIn(code, (0, 2))
                self.assertTrue("unknown key" in err or "nested" in err, err)

    def test_wrong_encodings(self):
        text = '{"version": 1,\n "jobs": [], "_": "é"}'
        self.refused(text.encode("latin-1"), ":2:20:", "UTF-8")
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            with self.subTest(encoding):
                self.assertRegex(self.refused(text.encode(encoding)), r":[12]:\d+: ")
        self.refused(b"\xff\xfe\x00\xd8", "UTF-8")
        self.refused(b'{"version": 1, "jobs": [], "_": "\xed\xa0\x80"}', ":1:34:", "UTF-8")
        self.refused(b"\x00" * 64, ":1:1:")

    def test_utf8_with_and_without_a_byte_order_mark_is_read(self):
        text = json.dumps(document(check("文字", cwd="/")), ensure_ascii=False)
        for encoding in ("utf-8", "utf-8-sig"):
            self.assertEqual(self.validate(text.encode(encoding))[:2], (0, "OK: version=1 jobs=1\n"), encoding)

    def test_a_byte_order_mark_does_not_move_the_places(self):
        self.refused(b'\xef\xbb\xbf{"version": 3, "jobs": []}', ":1:13:", "version")

    def test_json5_is_accepted(self):
        text = """// the mini's jobs
        {
          version: +1, /* since 2026 */ 'jobs': [
            {id: 'a', "kind": "one_shot_read", risk: 'read_only', cwd: '/', commands: {run: ['/bin/echo', 'a\\
b',]}, policy: {everySeconds: .5, stallSeconds: 0xFF, alertRepeatSeconds: 5.,},},
          ],
        }
        """
        self.assertEqual(self.validate(text), (0, "OK: version=1 jobs=1\n", ""))
        policy = only_job(ops.read_config(text)).policy
        self.assertEqual((policy.every_seconds, policy.stall_seconds, policy.alert_repeat_seconds), (0.5, 255, 5.0))
        self.assertEqual(only_job(ops.read_config(text)).commands.run, ["/bin/echo", "ab"])

    def test_nan_infinity_and_numbers_without_end_are_no_durations(self):
        for word in ("NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 5000, "-0.1"):
            text = json.dumps(document(check("a", policy={"stallSeconds": 123456}))).replace("123456", word)
            with self.subTest(word[:20]):
                (line,) = lines_of(text)
                self.assertIn("jobs[0].policy.stallSeconds: expected a number of seconds", line)
                self.assertLess(len(line), 200)

    def test_booleans_are_no_numbers_and_numbers_no_booleans(self):
        said = said_of(check("a", enabled=1, policy={"stallSeconds": True, "autoResume": 0, "alertAfter": True}), monitor={"parallel": True})
        self.assertEqual(len(said), 5, said)

    def test_nul_in_argv_is_named(self):
        for argv in (["a\0"], ["/bin/echo", "\0"]):
            (line,) = said_of(check("a", commands={"run": argv}))
            self.assertRegex(line, r"(?i)^error: jobs\[0\]\.commands\.run.*\b(NUL|u0000)\b")

    def test_texts_that_no_process_can_take_are_survived(self):
        for more in ({"commands": {"run": ["\ud800"]}}, {"cwd": "\ud800"}, {"env": {"A\ud800": "\udfff", "PATH": "\ud800"}}, {"id": "\ud800"}):
            with self.subTest(more=repr(more)):
                code, _, err = self.validate(document(dict(check("a", cwd="/"), **more)))
                self.assertIn(code, (0, 2), err)
                self.assertNotIn("bug", err)

    def test_a_missing_file_a_directory_and_a_fifo(self):
        self.check_refusal(*self.call("validate-config"), "no such file")
        os.mkdir(self.config_file)
        self.check_refusal(*self.call("validate-config"), "directory")
        os.rmdir(self.config_file)
        os.mkfifo(self.config_file)
        self.check_refusal(*self.call("validate-config"), "regular file")

    @unittest.skipIf(os.geteuid() == 0, "root reads what nobody may")
    def test_a_file_that_may_not_be_read(self):
        self.save("{}")
        os.chmod(self.config_file, 0)
        self.check_refusal(*self.call("validate-config"), "ermission denied")

    def test_the_real_command_line_says_the_same(self):
        self.save("{")
        argv = [sys.executable, str(SCRIPT), "validate-config", "--config-file", self.config_file]
        found = subprocess.run(argv, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": self.home}, timeout=60)
        self.check_refusal(found.returncode, found.stdout, found.stderr, ":1:2:")


class OthersMustNotWriteTheConfig(CommandLine, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.save(document(check("a", cwd="/")))

    def test_a_file_or_directory_that_everyone_can_write_is_refused_with_the_mend(self):
        for path, mode in ((self.config_file, 0o666), (self.home, 0o777)):
            kept = os.stat(path).st_mode & 0o7777
            os.chmod(path, mode)
            with mock.patch.object(self, "home", "/nowhere"):
                code, out, err = self.call("validate-config")
            self.assertEqual((code, out), (2, ""))
            self.assertIn(f"chmod o-w {path}", err)
            with mock.patch.object(self, "home", "/nowhere"):
                self.assertEqual(self.call("validate-config", "--trust-permissions")[0], 0)
            os.chmod(path, kept)

    def test_a_link_counts_with_its_target(self):
        folder = os.path.join(self.home, "shared")
        os.mkdir(folder)
        os.chmod(folder, 0o777)
        target = os.path.join(folder, "jobs.json")
        os.replace(self.config_file, target)
        os.symlink(target, self.config_file)
        code, _, err = self.call("validate-config")
        self.assertEqual(code, 2)
        self.assertIn(f"chmod o-w {folder}", err)

    def test_a_sticky_directory_is_fine_and_a_group_is_a_warning(self):
        os.chmod(self.config_file, 0o664)
        code, out, err = self.call("validate-config")
        self.assertEqual((code, out), (0, "OK: version=1 jobs=1\n"))
        self.assertIn(f"chmod g-w {self.config_file}", err)
        self.assertEqual(self.call("validate-config", "--strict")[0], 2)

    @unittest.skipUnless(os.geteuid() == 0, "only root can give a file away")
    def test_a_foreign_owner_is_refused_with_the_mend(self):
        os.chown(self.config_file, 12345, -1)
        code, _, err = self.call("validate-config")
        self.assertEqual(code, 2)
        self.assertIn(f"chown root {self.config_file}", err)


# ---- what is wrong together


class SettingsThatAreWrongTogether(unittest.TestCase):
    def test_cross_checks_by_sentence(self):
        verified = check("v")
        table = (
            ("after names a job that exists", [check("a", after=[{"jobId": "b"}]), check("beta")], "error: jobs[0].after[0].jobId: no job 'b'"),
            ("the nearest one is named", [check("a", after=[{"jobId": "bata"}]), check("beta")], "did you mean 'beta'?"),
            ("a job does not follow itself", [check("a", after=[{"jobId": "a"}])], "error: jobs[0].after: forms a cycle"),
            ("a write needs a verification", [verified, write("w")], "error: jobs[1].after: a write needs a verification"),
            ("not one after failure", [verified, write("w", after=[{"jobId": "v", "when": "failure"}])], "error: jobs[1].after: a write needs"),
            ("not another write", [verified, write("x", "v"), write("w", "x")], "error: jobs[2].after: a write needs"),
            ("a long job cannot verify, says a warning", [long_job("l"), write("w", "l")], "warning: jobs[1].after: a long job cannot verify"),
            (
                "v1's granted grants nothing",
                [verified, write("w", "v", approval={"granted": True})],
                "warning: jobs[1].approval.granted: grants nothing",
            ),
            (
                "nor does required: false",
                [verified, write("w", "v", approval={"required": False})],
                "warning: jobs[1].approval.required: grants nothing",
            ),
            ("… and approve is named", [verified, write("w", "v", approval={"granted": True})], "approve w"),
            ("a check is read_only", [check("a", risk="write_local")], "error: jobs[0].risk: expected read_only"),
            ("a check needs run", [check("a", commands={})], "error: jobs[0].commands: 'run' is missing"),
            ("a long job needs start", [long_job("a", commands={"status": ["x"]})], "error: jobs[0].commands: 'start' is missing"),
            ("a long job needs status", [long_job("a", commands={"start": ["x"]})], "error: jobs[0].commands: 'status' is missing"),
            ("a write needs run", [verified, write("w", "v", commands={"run": None})], "error: jobs[1].commands: 'run' is missing"),
            ("a managed job has no status", [managed("a", commands={"start": ["x"], "status": ["x"]})], "error: jobs[0].commands.status"),
            ("a managed job has no stop", [managed("a", commands={"start": ["x"], "stop": ["x"]})], "error: jobs[0].commands.stop"),
            ("only long jobs are managed", [check("a", managed=True)], "error: jobs[0].managed"),
            ("a check has no use for start", [check("a", commands={"run": ["x"], "start": ["x"]})], "warning: jobs[0].commands.start"),
            ("only reads resume", [long_job("a", risk="write_local", policy={"autoResume": True})], "warning: jobs[0].policy.autoResume"),
            ("only checks run by the clock", [long_job("a", policy={"everySeconds": 60})], "warning: jobs[0].policy.everySeconds"),
            ("a restart needs a stop", [long_job("a", policy={"onStall": "restart"})], "warning: jobs[0].policy.onStall"),
            ("a job that stands there twice", [check("a"), check("a")], "error: jobs[1].id:"),
        )
        for sentence, jobs, expected in table:
            with self.subTest(sentence):
                said = said_of(*jobs)
                self.assertTrue(any(expected in line for line in said), said)

    def test_what_is_right_together_is_not_mentioned(self):
        jobs = [
            check("v", policy={"everySeconds": 60}),
            write("w", "v"),
            write("x", after=[{"jobId": "v", "when": "always"}, {"jobId": "y", "when": "failure"}]),
            check("y"),
            write("z", "v", approval={"via": "telegram", "ttlSeconds": 60}),
            managed("m", policy={"onStall": "restart", "autoResume": True}),
            long_job("l", risk="write_external", after=[{"jobId": "v"}]),
        ]
        self.assertEqual(said_of(*jobs), [])

    def test_a_cycle_of_any_length_is_shown_and_takes_out_only_its_members(self):
        for length in (1, 2, 3, 40):
            ring = [check(f"r{number}", after=[{"jobId": f"r{(number + 1) % length}"}]) for number in range(length)]
            config = read(check("into", after=[{"jobId": "r0"}]), *ring, check("free"))
            with self.subTest(length=length):
                self.assertEqual({name for name in config.broken if name.startswith("r")}, {f"r{number}" for number in range(length)})
                self.assertIn("free", config.jobs)
                self.assertTrue(all("cycle" in config.broken[f"r{number}"] for number in range(length)))

    def test_a_diamond_is_no_cycle(self):
        jobs = [
            check("a", after=[{"jobId": "b"}, {"jobId": "c"}]),
            check("b", after=[{"jobId": "d"}]),
            check("c", after=[{"jobId": "d"}]),
            check("d"),
        ]
        self.assertEqual(said_of(*jobs), [])


class AJobWithAnErrorIsLeftOutAndTheOthersStay(unittest.TestCase):
    def left(self, *jobs):
        config = read(*jobs)
        self.assertFalse(set(config.jobs) & set(config.broken), "a job is either usable or not")
        return sorted(config.jobs), sorted(config.broken)

    def test_who_stays_and_who_goes(self):
        wrong = {"enabled": "yes"}
        for sentence, jobs, stay, go in (
            ("one wrong job", [check("a", **wrong), check("b"), long_job("c")], ["b", "c"], ["a"]),
            ("a write goes with its verification", [check("v", **wrong), write("w", "v"), check("b")], ["b"], ["v", "w"]),
            ("a write with another verification stays", [check("v", **wrong), check("u"), write("w", "v", "u")], ["u", "w"], ["v"]),
            ("a wrong write leaves its verification", [check("v"), write("w", "v", **wrong)], ["v"], ["w"]),
            ("a check whose follower is wrong stays", [check("a", after=[{"jobId": "b"}]), check("b", **wrong)], ["a"], ["b"]),
            ("a check with a wrong after goes", [check("a", after=[{"jobId": "nowhere"}]), check("b")], ["b"], ["a"]),
            ("and takes its write with it", [check("v", after=[{"jobId": "nowhere"}]), write("w", "v"), check("b")], ["b"], ["v", "w"]),
            ("also a write that stands before it", [write("w", "v"), check("v", after=[{"jobId": "nowhere"}]), check("b")], ["b"], ["v", "w"]),
            ("a write whose verification is in a cycle goes", [write("w", "v"), check("v", after=[{"jobId": "v"}])], [], ["v", "w"]),
            ("of two with one id the first stays", [check("a"), check("a"), check("b")], ["a", "b"], ["jobs[1]"]),
            ("a job without a usable id is known by its place", [check(5), check("b")], ["b"], ["jobs[0]"]),
            ("what is no object too", [5, check("b"), None], ["b"], ["jobs[0]", "jobs[2]"]),
        ):
            with self.subTest(sentence):
                self.assertEqual(self.left(*jobs), (stay, go))

    def test_the_first_problem_is_kept_as_the_reason(self):
        config = read(check("v", enabled="yes", cwd=5), write("w", "v"))
        self.assertIn("expected true or false", config.broken["v"])
        self.assertIn("verification", config.broken["w"])


class TheTickGoesOnWithoutTheWrongJob(CommandLine, unittest.TestCase):
    def test_it_runs_the_others_tells_the_error_and_exits_2(self):
        mark = os.path.join(self.home, "ran")
        good = check("good", enabled=True, cwd="/", policy={"everySeconds": 3600}, commands={"run": ["/bin/sh", "-c", f"echo x >> {mark}"]})
        bad = check(
            "bad", enabled=True, policy={"everySeconds": 3600, "stallSeconds": "1h"}, commands={"run": ["/bin/sh", "-c", f"echo bad >> {mark}"]}
        )
        self.save(document(bad, good, delivery={"via": "none"}))
        code, out, err = self.call("tick")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("jobs[0].policy.stallSeconds", err)
        self.assertEqual(pathlib.Path(mark).read_text(), "x\n")
        told = json.loads(pathlib.Path(self.state_file).read_text())["outbox"]
        self.assertEqual(len(told), 1)
        self.assertIn("stallSeconds", told[0]["text"])
        self.assertEqual(self.call("tick"), (2, "", ""), "told once; the exit code stays")

    def test_a_syntax_error_stops_all_and_is_told_once_two_ticks_agree(self):
        told = os.path.join(self.home, "told")
        delivery = {"via": "command", "command": ["/bin/sh", "-c", f"cat >> {told}"]}
        good = check(
            "good",
            enabled=True,
            cwd="/",
            policy={"everySeconds": 0.001},
            commands={"run": ["/bin/sh", "-c", f"echo ALERT; echo x >> {self.home}/ran"]},
        )
        self.save(document(good, delivery=delivery))
        self.assertEqual(self.call("tick")[0], 0)
        ran = pathlib.Path(self.home, "ran")
        self.assertEqual((ran.read_text(), pathlib.Path(told).read_text().count("ALERT") > 0), ("x\n", True))
        self.save(json.dumps(document(good, delivery=delivery))[:-20])
        self.assertEqual(self.call("tick")[0], 2)
        self.assertNotIn(f"{self.config_file}:", pathlib.Path(told).read_text(), "an editor may be half-way")
        self.assertEqual(self.call("tick")[0], 2)
        self.assertEqual(pathlib.Path(told).read_text().count(f"{self.config_file}:"), 1)
        self.assertEqual(self.call("tick"), (2, "", ""))
        self.assertEqual(pathlib.Path(told).read_text().count(f"{self.config_file}:"), 1)
        self.assertEqual(ran.read_text(), "x\n", "nothing of it was executed")


class WhatDoesNotExistIsAWarning(CommandLine, unittest.TestCase):
    def test_a_command_or_directory_that_is_not_there(self):
        for sentence, made, expected in (
            ("a program", check("a", cwd="/", commands={"run": ["/nowhere/program"]}), "jobs[0].commands.run"),
            ("a name that is not on the path", check("a", cwd="/", commands={"run": ["no-such-program-here"]}), "no-such-program-here"),
            ("a file that is no program", check("a", cwd="/", commands={"run": [self.config_file]}), "jobs[0].commands.run"),
            ("a directory", check("a", cwd="/nowhere/at/all"), "jobs[0].cwd"),
        ):
            with self.subTest(sentence):
                code, out, err = self.validate(document(made))
                self.assertEqual((code, out), (0, "OK: version=1 jobs=1\n"))
                self.assertRegex(err, r":\d+:\d+: warning: ")
                self.assertIn(expected, err)

    def test_what_is_there_is_not_mentioned(self):
        tool = os.path.join(self.home, "tool")
        pathlib.Path(tool).write_text("#!/bin/sh\n")
        os.chmod(tool, 0o755)
        jobs = [
            check("a", cwd="/", commands={"run": [tool]}), check("b", cwd="~", commands={"run": ["./tool"]}), check("c", commands={"run": ["sh"]}),
            check("d", cwd="/", env={"PATH": self.home}, commands={"run": ["tool"]}),
        ]  # fmt: skip
        self.assertEqual(self.validate(document(*jobs)), (0, "OK: version=1 jobs=4\n", ""))

    def test_a_time_zone_that_is_not_known_is_a_warning(self):
        for zone in ("Nowhere/Land", "../../etc/passwd", "/etc", ""):
            code, _, err = self.validate(document(monitor={"timezone": zone}))
            self.assertEqual(code, 0)
            self.assertEqual("warning" in err, bool(zone), zone)


# ---- v1


class AConfigOfVersion1GoesOnWorking(CommandLine, unittest.TestCase):
    text = (DATA / "v1-ops-jobs.json").read_text(encoding="utf-8")

    def test_it_is_ok_with_warnings_about_what_grants_nothing(self):
        code, out, err = self.validate(self.text)
        self.assertEqual((code, out), (0, "OK: version=1 jobs=5\n"))
        self.assertNotIn("error", err)
        for expected in ("jobs[3].approval.granted", "jobs[4].approval.required", "jobs[4].after"):
            self.assertIn(expected, err)
        self.assertNotIn("unknown key", err)

    def test_it_uses_no_key_that_is_newer(self):
        newer = {"managed", "env", "minReportSeconds", "reportWhileRunning", "onStall", "alertRepeatSeconds", "alertAfter", "everySeconds", "via"}
        self.assertEqual({key for key in newer if f'"{key}"' in self.text}, set())

    def test_its_settings_mean_what_they_meant(self):
        jobs = ops.read_config(self.text).jobs
        photo, mail = jobs["photo-index"], jobs["mail crawl"]
        self.assertEqual(
            (photo.policy.report_every_seconds, photo.policy.auto_resume, tuple(photo.policy.quiet_hours)), (900, True, ("22:30", "07:30"))
        )
        self.assertEqual((mail.name, mail.policy.report_every_seconds, ops.quiet_left(mail.policy, 0)), ("mail crawl", 0, 0))
        self.assertEqual(tuple(mail.after[0]), ("disk-check", "success", 30))


# ---- the schema


def conforms(value, schema, whole_schema):
    """Whether a value conforms to the part of JSON Schema that ours uses."""
    if "$ref" in schema and not conforms(value, whole_schema["$defs"][schema["$ref"].rpartition("/")[2]], whole_schema):
        return False
    if "anyOf" in schema and not any(conforms(value, item, whole_schema) for item in schema["anyOf"]):
        return False
    wanted = schema.get("type")
    if wanted is not None and not any(TYPES_OF_SCHEMA[kind](value) for kind in ([wanted] if isinstance(wanted, str) else wanted)):
        return False
    if "const" in schema and (value != schema["const"] or isinstance(value, bool)):
        return False
    if "enum" in schema and not any(value == item and type(value) is type(item) for item in schema["enum"]):
        return False
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, str):
        fits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        return fits and ("pattern" not in schema or re.search(schema["pattern"], value) is not None)
    if isinstance(value, list):
        return len(value) >= schema.get("minItems", 0) and all(conforms(item, schema.get("items", {}), whole_schema) for item in value)
    if isinstance(value, dict):
        if any(key not in value for key in schema.get("required", ())):
            return False
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", {})
        return all(conforms(item, known.get(key, rest), whole_schema) for key, item in value.items())
    return True


TYPES_OF_SCHEMA = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
WORDS_OF_SCHEMA = {
    "$schema", "$id", "$defs", "$ref", "title", "description", "default", "type", "properties", "required", "items", "minItems", "enum", "const",
    "minimum", "maximum", "minLength", "maxLength", "pattern", "anyOf", "additionalProperties",
}  # fmt: skip
SAMPLE = [
    None, True, False, 0, 1, -1, 2, 256, 257, 0.5, "", "a", "x" * 129, "08:00", "24:00", "en", "zh", "auto", "api", "alert", "restart",
    "local", "telegram", "read_only", "write_local", "one_shot_read", "success", [], [5], ["a"], ["a", ""], [[]], [{}], {}, {"a": "b"}, {"a": 5},
    {"start": "01:00"}, {"start": 5}, [{"jobId": "other"}], {"run": ["ls"]}, {"stallSeconds": -1},
]  # fmt: skip


class TheSchemaSaysTheSameAsTheChecks(CommandLine, unittest.TestCase):
    schema = json.loads(json.dumps(ops.config_schema()))

    def test_the_command_prints_it_without_a_config(self):
        code, out, err = self.call("schema")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(json.loads(out), self.schema)

    def test_it_is_well_formed(self):
        def walk(schema, path):
            self.assertIsInstance(schema, dict, path)
            self.assertLessEqual(set(schema), WORDS_OF_SCHEMA, path)
            if "$ref" in schema:
                self.assertIn(schema["$ref"].replace("#/$defs/", ""), self.schema["$defs"], path)
            for name in ("properties", "$defs"):
                for key, item in schema.get(name, {}).items():
                    walk(item, (*path, key))
            for item in [*schema.get("anyOf", []), *[schema[name] for name in ("items", "additionalProperties") if name in schema]]:
                walk(item, path)
            self.assertLessEqual(set(schema.get("required", [])), set(schema.get("properties", {})), path)
            if "pattern" in schema:
                re.compile(schema["pattern"])

        walk(self.schema, ())
        self.assertIn("2020-12", self.schema["$schema"])

    def test_every_key_is_described_with_its_default(self):
        for section, fields in ops.FIELDS.items():
            shape = self.schema if section == "config" else self.schema["$defs"][section]
            self.assertEqual(list(shape["properties"]), [field.key for field in fields])
            for field in fields:
                row = shape["properties"][field.key]
                self.assertEqual(row["description"], field.doc)
                if field.default is not REQUIRED and field.default is not None:
                    self.assertEqual(row["default"], field.default)
                    self.assertTrue(conforms(field.default, row, self.schema), f"the default of {section}.{field.key}")
                self.assertEqual(field.key in shape.get("required", []), field.default is REQUIRED)

    def test_whole_configs_conform(self):
        for text in (json.dumps(whole()), AConfigOfVersion1GoesOnWorking.text, json.dumps(document(check("a", _note=1, **{"//": "x"})))):
            self.assertTrue(conforms(json.loads(text), self.schema, self.schema))

    def test_it_agrees_with_the_checks_on_a_sample_of_values_for_each_key(self):
        compared = 0
        for section, fields in ops.FIELDS.items():
            shape = self.schema if section == "config" else self.schema["$defs"][section]
            for field in fields:
                for value in SAMPLE:
                    problems = []
                    ops.read_value(field, value, (), problems)
                    accepted = not any(problem.is_error for problem in problems)
                    if field.key == "jobs" and isinstance(value, list):
                        accepted = not value or None  # jobs are checked one by one
                    elif (field.key, value) == ("afterTick", ["a", ""]):
                        accepted = True
                    with self.subTest(section=section, key=field.key, value=value):
                        if accepted is not None:
                            self.assertEqual(conforms(value, shape["properties"][field.key], self.schema), accepted)
                            compared += 1
        self.assertGreater(compared, 1500)


# ---- many and strange


BASE = """{
  // the jobs of a small home server
  "version": 1,
  "defaults": {"stallSeconds": 900, "quietHours": {"start": "22:00"}},
  "monitor": {"language": "zh", "host": "mini", "parallel": 4},
  "delivery": {"via": "api", "target": -1001, 'threadId': '7'},
  "jobs": [
    {"id": "crawl", "kind": "long_running_read", "risk": "read_only", "enabled": true,
     "commands": {"start": ["./crawl"], "status": ["./crawl", "--status"]}, "policy": {"autoResume": true}},
    {"id": "disk", "kind": "one_shot_read", "risk": "read_only", "commands": {"run": ["df"]}, "policy": {"everySeconds": .5e3}},
    {"id": "prune", "kind": "one_shot_write", "risk": "write_local", "env": {"A": "\\u00e9"}, "commands": {"run": ["rm", "x"]},
     "approval": {"ttlSeconds": 60}, "after": [{"jobId": "disk", "delaySeconds": 5}]},
  ]
}
"""
CRUMBS = [
    '"', "'", "{", "}", "[", "]", ",", ":", "\\", "/", "//", "/*", "*/", "\n", "\r", "\t", "\0", " ", "_", "$", "-", "\ufeff", "\u2028", "é", "𝄞",
    "\ud800", "\\u12", "\\ud800", "\\x", "NaN", "-Infinity", "1e999", "0x", "00", "true", "null", "9" * 400, '"a\\nb":1,', '"version":1,', "[" * 150,
]  # fmt: skip
JUNK = [
    None, True, False, 0, -1, 1e308, float("nan"), 10**400, "", "x", "a\nb", "\ud800", "\0", "crawl", "disk", "one_shot_write", "long_running_read",
    [], [[]], [None] * 3, [{"jobId": "prune"}], {}, {"id": "disk"}, {"jobId": "crawl"}, {"\n": 1}, {"\x1b[2J": {}},
]  # fmt: skip


def mutated_text(chance):
    """BASE with one to four pieces cut out, doubled, moved or sprinkled in."""
    text = BASE
    for _ in range(chance.randrange(1, 5)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((0, 1, 1, 2, 5, 40)))
        piece = text[start:end]
        new = chance.choice(("", piece * 2, chance.choice(CRUMBS), piece[::-1], chance.choice(CRUMBS) + piece))
        text = text[:start] + new + text[end:]
    return text[: chance.randrange(len(text) + 1)] if chance.random() < 0.05 else text


def mutated_value(chance):
    """The value of BASE with one to four settings replaced, removed or renamed."""
    value = ops.parse_json(BASE)
    for _ in range(chance.randrange(1, 5)):
        holder = value
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(holder[key], (dict, list)) and chance.random() < 0.8:
                holder = holder[key]
                continue
            if chance.random() < 0.15 and isinstance(holder, dict):
                holder[chance.choice(["kind", "after", "x\n", "_", "id", "runn", "policy"])] = holder.pop(key)
            elif chance.random() < 0.15:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(chance.choice(JUNK))
            break
    return json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice((None, 1)))


class WhateverAFileHoldsTheAnswerIsAConfigOrAPlace(unittest.TestCase):
    def test_the_base_itself_is_good(self):
        self.assertEqual(lines_of(BASE), [])

    def check_text(self, text):
        lines = text.split("\n")
        try:
            config = ops.read_config(text)
        except ops.Malformed as error:
            self.assertTrue(1 <= error.line <= len(lines), "the line is in the text")
            self.assertTrue(1 <= error.column <= len(lines[error.line - 1]) + 1, "the column is in the line")
            self.assertTrue(error.problem and "\n" not in error.problem)
            return False
        self.assertFalse(set(config.jobs) & set(config.broken))
        for strict in (False, True):
            said = ops.problem_lines(config, "FILE", strict)
            self.assertEqual(len(said), len(config.problems))
            for one in said:
                line, column, level, words = LINE.fullmatch(one).groups()
                self.assertTrue(1 <= int(line) <= len(lines) and 1 <= int(column) <= len(lines[int(line) - 1]) + 1, one)
                self.assertTrue(words and "\n" not in words, repr(one))
                self.assertTrue(level == "error" or not strict)
        for job in config.jobs.values():
            self.assertGreaterEqual(ops.run_timeout(job), 0)
            ops.quiet_left(job.policy, 0)
        return True

    def test_3000_mutations(self):
        usable = 0
        for seed in range(3000):
            chance = random.Random(seed)
            text = (mutated_text if seed % 2 else mutated_value)(chance)
            try:
                usable += self.check_text(text)
            except Exception as error:  # the seed is what one needs to mend it
                self.fail(f"seed {seed}: {type(error).__name__}: {error}\n{text!r}")
        self.assertTrue(700 < usable < 2700, f"both answers are exercised: {usable}")


class ManyJobs(unittest.TestCase):
    def test_ten_thousand_jobs_load(self):
        jobs = []
        for number in range(2500):
            jobs += [check(f"check {number}"), write(f"write {number}", f"check {number}"), long_job(f"long {number}"), managed(f"managed {number}")]
        config = read(*jobs)
        self.assertEqual((len(config.jobs), config.problems), (10000, ()))
        self.assertEqual(config.jobs["write 2499"].after[0].job_id, "check 2499")

    def test_a_chain_of_three_thousand_jobs_loads(self):
        chain = [check(f"{number}", after=[{"jobId": f"{number + 1}"}]) for number in range(2999)]
        self.assertEqual(len(read(*chain, check("2999")).jobs), 3000)


if __name__ == "__main__":
    unittest.main()
