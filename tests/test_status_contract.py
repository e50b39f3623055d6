"""What a status command printed becomes one observation, whatever it printed (CONTRACT 4).

A good answer is a table row with what is seen in it; anything else is `unknown` with the reason in
plain words. A fuzz at the end feeds bytes of every sort: an Observation comes back, never an
exception, and it can be stored, told and shown.
"""

import json
import random
import unittest

from tests import ops

BEGAN, ENDED = ops.Instant(1000.0, 50.0, "boot", 700), ops.Instant(1001.0, 51.0, "boot", 700)
RUNNING = b'{"running": true, "completed": false%s}'


def outcome(out=b"", code=0, err=b"", **more):
    return ops.Outcome(BEGAN, ENDED, **{"code": code, "out": out, "err": err, "out_size": len(out), **more})


def look_at(*args, **more):
    return ops.read_status(outcome(*args, **more), ops.Redactor())


def running(rest=b""):
    """The look at a running job whose answer has this as well."""
    return look_at(RUNNING % (b", " + rest if rest else b""))


# (sentence, outcome, MESSAGES row of the reason)
UNKNOWN = [
    ("another exit code than 0, whatever was printed", outcome(RUNNING % b"", 1), "run.exit"),
    ("exit code 126", outcome(b"", 126), "run.exit126"),
    ("exit code 127", outcome(b"", 127), "run.exit127"),
    ("ended by a signal", outcome(RUNNING % b"", -9), "run.signal"),
    ("ended by a signal without a name", outcome(b"", -63), "run.signal"),
    ("timed out, even with a whole answer", outcome(RUNNING % b"", -15, timed_out=True), "run.timeout"),
    ("timed out with exit code 0", outcome(RUNNING % b"", 0, timed_out=True), "run.timeout"),
    ("no such program", outcome(code=None, failure=ops.Phrase("run.missing", {"program": "x"})), "run.missing"),
    ("not allowed", outcome(code=None, failure=ops.Phrase("run.denied", {"program": "x", "error": "y"})), "run.denied"),
    ("no output", outcome(b""), "status.empty"),
    ("blanks alone", outcome(b" \n\t "), "status.empty"),
    ("words", outcome(b"all is well"), "status.json"),
    ("two objects", outcome(b"{}{}"), "status.json"),
    ("an object and a line of log", outcome(b"starting\n" + RUNNING % b""), "status.json"),
    ("an object cut short", outcome((RUNNING % b"")[:-1]), "status.json"),
    ("a comment, which strict JSON has not", outcome(b"/* x */" + RUNNING % b""), "status.json"),
    ("a trailing comma", outcome(RUNNING % b","), "status.json"),
    ("single quotes", outcome(b"{'running': true}"), "status.json"),
    ("NaN", outcome(RUNNING % b', "progress": {"a": NaN}'), "status.json"),
    ("Infinity", outcome(RUNNING % b', "progress": {"a": -Infinity}'), "status.json"),
    ("a number beyond all numbers", outcome(RUNNING % b', "progress": {"a": 1e999}'), "status.json"),
    ("invalid UTF-8", outcome(RUNNING % b', "message": "\xff"'), "status.utf8"),
    ("UTF-16", outcome((RUNNING % b"").decode().encode("utf-16")), "status.utf8"),
    ("a list", outcome(b"[]"), "status.object"),
    ("null", outcome(b"null"), "status.object"),
    ("a text", outcome(b'"running"'), "status.object"),
    ("a number", outcome(b"1"), "status.object"),
    ("an empty object", outcome(b"{}"), "status.boolean"),
    ("no `running`", outcome(b'{"completed": false}'), "status.boolean"),
    ("no `completed`", outcome(b'{"running": false}'), "status.boolean"),
    ("`running` as a number", outcome(b'{"running": 1, "completed": false}'), "status.boolean"),
    ("`running` as a text", outcome(b'{"running": "true", "completed": false}'), "status.boolean"),
    ("`completed` as null", outcome(b'{"running": true, "completed": null}'), "status.boolean"),
    ("a wrong letter case", outcome(b'{"Running": true, "Completed": false}'), "status.boolean"),
    ("running and completed at once", outcome(b'{"running": true, "completed": true}'), "status.both"),
    ("one byte over 1 MiB", outcome(RUNNING % b"" + b" " * (1 << 20)), "status.large"),
    ("over 1 MiB, of which the beginning was kept", outcome(RUNNING % b"", out_size=(1 << 20) + 1), "status.large"),
    ("nesting without end", outcome(b"[" * 500_000), "status.json"),
    ("an object nested without end", outcome(b'{"running":' * 50_000), "status.json"),
]

# (sentence, what the answer says besides running, field of the observation, what it is)
SEEN = [
    ("a pid is an int above 1", b'"pid": 4711', "pid", 4711),
    ("pid 2 is one", b'"pid": 2', "pid", 2),
    ("pid 1 is not ours to touch", b'"pid": 1', "pid", 0),
    ("pid 0 is a whole group", b'"pid": 0', "pid", 0),
    ("a negative pid is a group", b'"pid": -5', "pid", 0),
    ("true is not pid 1", b'"pid": true', "pid", 0),
    ("a pid has no fraction", b'"pid": 4711.0', "pid", 0),
    ("a pid is no text", b'"pid": "4711"', "pid", 0),
    ("a pid is no list", b'"pid": [4711]', "pid", 0),
    ("a pid fits the machine", b'"pid": 99999999999999999999', "pid", 0),
    ("no pid", b'"pid": null', "pid", 0),
    ("a text is the progress key", b'"progressKey": "page 7"', "key", "page 7"),
    ("a number is accepted as key", b'"progressKey": 17', "key", "17"),
    ("as it was written", b'"progressKey": 1.50', "key", "1.50"),
    ("true is no key", b'"progressKey": true', "key", ""),
    ("a list is no key", b'"progressKey": [1]', "key", ""),
    ("an empty key is none", b'"progressKey": ""', "key", ""),
    ("without a key the canonical JSON of progress serves", b'"progress": {"b": 1, "a": "x"}', "key", '{"a":"x","b":1}'),
    ("an empty key lets progress serve", b'"progressKey": "", "progress": {"a": 1}', "key", '{"a":1}'),
    ("a key is stronger than progress", b'"progressKey": "k", "progress": {"a": 1}', "key", "k"),
    ("with neither there is no key", b'"progress": {}', "key", ""),
    ("progress of a wrong type is none", b'"progress": [1, 2]', "progress", {}),
    ("progress as a number is none", b'"progress": 12', "progress", {}),
    ("progress is kept as it is", b'"progress": {"done": 3, "of": null, "ok": true}', "progress", {"done": 3, "of": None, "ok": True}),
    ("level warn", b'"level": "warn"', "level", "warn"),
    ("level alert", b'"level": "alert"', "level", "alert"),
    ("level ok", b'"level": "ok"', "level", "ok"),
    ("a level that nobody knows is ok", b'"level": "panic"', "level", "ok"),
    ("a level in capitals is none that we know", b'"level": "ALERT"', "level", "ok"),
    ("a level as a list", b'"level": ["alert"]', "level", "ok"),
    ("a level as an object", b'"level": {}', "level", "ok"),
    ("no level", b'"level": null', "level", "ok"),
    ("a message", b'"message": " half way "', "message", "half way"),
    ("a message of a wrong type", b'"message": 5', "message", ""),
    ("terminal controls leave a message", b'"message": "\\u001b[31mred\\u001b[0m\\u0007"', "message", "red"),
    ("a credential leaves a message", b'"message": "password=hunter22"', "message", "password=***"),
    ("half a surrogate is made harmless", b'"message": "\\ud800!"', "message", "?!"),
    ("waiting on purpose", b'"waiting": true', "waiting", True),
    ("waiting of a wrong type", b'"waiting": 1', "waiting", False),
    ("waiting as a text", b'"waiting": "true"', "waiting", False),
    ("a stop reason", b'"stopReason": "disk full"', "stop_reason", "disk full"),
    ("a stop reason of a wrong type", b'"stopReason": ["x"]', "stop_reason", ""),
    ("keys that we do not know", b'"eta": 5, "running_since": "x"', "state", "running"),
    ("of equal keys the last wins", b'"running": true, "pid": 5, "pid": 6', "pid", 6),
]


class WhatIsUnknown(unittest.TestCase):
    def test_anything_but_a_good_answer_is_unknown_with_its_reason(self):
        for sentence, found, key in UNKNOWN:
            with self.subTest(sentence):
                look = ops.read_status(found, ops.Redactor())
                self.assertEqual((look.state, look.problem.key if look.problem else None), ("unknown", key))
                for lang in ("en", "zh"):
                    self.assertNotIn("{", ops.phrase_text(lang, look.problem))

    def test_the_missing_field_is_named(self):
        self.assertEqual(look_at(b'{"running": true}').problem.facts, {"field": "completed"})
        self.assertEqual(look_at(b'{"completed": true}').problem.facts, {"field": "running"})

    def test_how_the_command_ended_is_told_in_words(self):
        for found, words in (
            (outcome(code=3), "exit code 3"),
            (outcome(code=-9), "ended by signal SIGKILL"),
            (outcome(code=-63), "ended by signal 63"),
            (outcome(code=-15, timed_out=True, limit=30.0), "took longer than 30s and was ended"),
        ):
            self.assertEqual(ops.phrase_text("en", ops.read_status(found, ops.Redactor()).problem), words)

    def test_the_last_lines_of_the_output_come_along_without_credentials(self):
        look = look_at(b"", 1, b"one\ntwo\nTypeError: password=hunter22 \xff\x1b[0m\n")
        self.assertEqual(look.detail, "one\ntwo\nTypeError: password=*** \ufffd")
        self.assertIn("half an answer", look_at(b'{"half an answer').detail)

    def test_an_unknown_look_carries_nothing_that_could_be_taken_for_a_state(self):
        look = look_at(RUNNING % b', "pid": 5, "progressKey": "k", "level": "alert"', 1)
        self.assertEqual((look.pid, look.key, look.level, look.progress, look.run), (0, "", "ok", {}, ""))

    def test_a_look_is_dated_when_its_command_ended(self):
        self.assertEqual({look_at(b"").when, running().when}, {ENDED})


class WhatIsSeen(unittest.TestCase):
    def test_the_three_states(self):
        for answer, state in (
            (b'{"running": true, "completed": false}', "running"),
            (b'{"running": false, "completed": true}', "completed"),
            (b'{"running": false, "completed": false}', "stopped"),
            (b'\xef\xbb\xbf{"running": false, "completed": false}\r\n', "stopped"),
        ):
            look = look_at(answer)
            self.assertEqual((look.state, look.problem), (state, None))

    def test_optional_parts_are_read_and_wrong_types_count_as_absent(self):
        for sentence, rest, field, expected in SEEN:
            with self.subTest(sentence):
                look = running(rest)
                self.assertEqual((look.state, getattr(look, field)), ("running", expected))
                self.assertIs(type(getattr(look, field)), type(expected))

    def test_exactly_one_mebibyte_is_read(self):
        answer = RUNNING % b""
        self.assertEqual(look_at(answer + b" " * ((1 << 20) - len(answer))).state, "running")

    def test_output_on_standard_error_is_no_harm(self):
        self.assertEqual(look_at(RUNNING % b"", 0, b"warning: \xff").state, "running")

    def test_numbers_of_progress_stay_as_they_were_written(self):
        look = running(b'"progress": {"a": 1.50, "b": 1e3, "c": 7, "d": 100000000000000000000}')
        self.assertEqual(ops.progress_lines(look.progress, {}), ["a: 1.50", "b: 1e3", "c: 7", "d: 100000000000000000000"])

    def test_huge_integers_are_read_or_unknown_but_never_a_crash(self):
        for digits in (20, 400, 4000, 5000, 100_000):
            with self.subTest(digits=digits):
                look = running(b'"progress": {"n": ' + b"9" * digits + b'}, "pid": ' + b"9" * digits)
                self.assertIn(look.state, ("running", "unknown"))
                self.assertEqual(look.pid, 0)
                ops.progress_lines(look.progress, {"n": 1.5})
                ops.bar(look.progress)
                ops.small_progress(look.progress)


class Keys(unittest.TestCase):
    """Equal keys mean no progress, so different answers need different keys."""

    DIFFERENT = [
        (b'"progressKey": "page 1"', b'"progressKey": "page 2"'),
        (b'"progressKey": 1', b'"progressKey": 1.0'),
        (b'"progressKey": "pageToken:eyJhbGciOi1"', b'"progressKey": "pageToken:eyJhbGciOi2"'),
        (b'"progressKey": "' + b"x" * 5000 + b'1"', b'"progressKey": "' + b"x" * 5000 + b'2"'),
        (b'"progress": {"cursor": "token=abcdefgh1"}', b'"progress": {"cursor": "token=abcdefgh2"}'),
        (b'"progress": {"a":' + b'{"a":' * 20 + b"1" + b"}" * 21, b'"progress": {"a":' + b'{"a":' * 20 + b"2" + b"}" * 21),
        (b'"progress": {"list": [1, 2, 3]}', b'"progress": {"list": [1, 2, 4]}'),
        (b'"progress": {"a": true}', b'"progress": {"a": 1}'),
    ]
    SAME = [
        (b'"progressKey": "k", "progress": {"at": 1}', b'"progressKey": "k", "progress": {"at": 2}'),
        (b'"progress": {"a": 1, "b": 2}', b'"progress": {"b": 2, "a": 1}'),
        (b'"progress": {"a": 1}, "message": "x"', b'"progress": {"a": 1}, "message": "y"'),
    ]

    def test_different_answers_have_different_keys(self):
        for one, other in self.DIFFERENT:
            with self.subTest(one[:60]):
                self.assertNotEqual(running(one).key, running(other).key)

    def test_equal_answers_have_equal_keys(self):
        for one, other in self.SAME:
            with self.subTest(one[:60]):
                self.assertEqual(running(one).key, running(other).key)

    def test_a_key_is_short_and_shows_no_credential(self):
        secret = b"sk-" + b"a1B2" * 12
        for rest in (b'"progressKey": "' + b"long " * 5000 + b'"', b'"progressKey": "' + secret + b'"', b'"progress": {"k": "' + secret + b'"}'):
            look = running(rest)
            self.assertLessEqual(len(look.key), 200)
            self.assertTrue(look.key)
            self.assertNotIn(secret.decode(), look.key + json.dumps(look.progress))

    def test_a_key_of_control_characters_can_still_be_told_from_another(self):
        self.assertNotEqual(running(b'"progressKey": "\\u0001"').key, "")


class AnyBytes(unittest.TestCase):
    """Whatever comes, an Observation comes of it that memory, messages and `status` can hold."""

    PIECES = [
        b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b"\\u", b"\\ud83d", b"\\udc00", b"\x00", b"\xff", b"\xc3", b"\x1b[2J", b"\n", b" ",
        b"true", b"false", b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b"0.10", b"12345678901234567890", b"9" * 400, b"1E400", b"-1e-400",
        b'"running"', b'"completed"', b'"pid"', b'"progress"', b'"progressKey"', b'"level"', b'"message"', b'"waiting"', b'"stopReason"', b'"alert"',
        "进度".encode(), "🛠️".encode(), "\u202e".encode(), b"password=hunter22",
    ]  # fmt: skip
    VALUES = [True, False, None, 0, 1, -1, 2**31, 10**30, 1.5, -0.0, "", "x", "alert", "warn", "token: abcdefgh", "\ud800", "\x00\x1b", "好" * 300,
              [], [1, [2]], {}, {"a": {"b": [1.25, None, "sk-aaaaaaaaaaaaaaaaaaaaaaaa"]}}, {str(n): n for n in range(40)}, {"": ""}]  # fmt: skip
    KEYS = ["running", "completed", "pid", "progress", "progressKey", "level", "message", "waiting", "stopReason", "done", "total", "percent"]

    def check(self, raw, code=0):
        redact = ops.Redactor(["hunter22"])
        look = ops.read_status(outcome(raw, code, err=raw[:200]), redact)
        self.assertIsInstance(look, ops.Observation)
        self.assertEqual(look.state == "unknown", look.problem is not None)
        if look.state != "unknown":
            self.assertIsInstance(json.loads(raw.decode("utf-8-sig")), dict)
            self.assertEqual(code, 0)
        job = ops.make_job(
            {"id": "j", "kind": "long_running_read", "risk": "read_only", "enabled": True, "commands": {"start": ["a"], "status": ["b"]}}, {}, 0
        )
        decision = ops.decide_long(job, look, ops.Memory(reported_progress={"done": 1.5, "total": 1}), ENDED)
        stored = json.dumps(ops.freeze(decision.memory), allow_nan=False)
        self.assertLessEqual(len(stored), 5000, "a job's memory outgrows its 5 KB")
        text = "".join(ops.section_text("en", "Job", "j", effect, str) for effect in decision.effects)
        self.assertTrue(text)
        shown = text + stored + json.dumps(look.progress, allow_nan=False) + look.message + look.stop_reason + look.detail + look.key
        self.assertNotIn("hunter22", shown)
        for harmful in ("\x1b", "\x00", "\u202e"):
            self.assertNotIn(harmful, shown)
        shown.encode("utf-8")
        ops.bar(look.progress)

    def test_pieces_of_json_in_any_order(self):
        rng = random.Random(4)
        for number in range(1500):
            raw = b"".join(rng.choice(self.PIECES) for _ in range(rng.randrange(20)))
            with self.subTest(number=number, raw=raw):
                self.check(raw)

    def test_random_bytes(self):
        rng = random.Random(5)
        for number in range(500):
            raw = bytes(rng.randrange(256) for _ in range(rng.randrange(60)))
            with self.subTest(number=number, raw=raw):
                self.check(raw, rng.choice([0, 0, 1, -9, 127]))

    def test_objects_with_anything_in_any_place(self):
        rng = random.Random(6)
        for number in range(1200):
            answer = {key: rng.choice(self.VALUES) for key in rng.sample(self.KEYS, rng.randrange(1, 9))}
            if rng.random() < 0.8:
                answer.update(running=True, completed=False)
            if isinstance(answer.get("progress"), dict):
                answer["progress"] = {**answer["progress"], rng.choice(self.KEYS): rng.choice(self.VALUES)}
            raw = json.dumps(answer, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
            with self.subTest(number=number, raw=raw[:200]):
                self.check(raw)

    def test_a_good_answer_with_one_byte_changed(self):
        rng = random.Random(8)
        good = RUNNING % b', "pid": 77, "progress": {"done": 3, "total": 10.50}, "progressKey": "k\\u00e9", "level": "warn", "message": "caf\xc3\xa9"'
        for number in range(800):
            raw = bytearray(good)
            for _ in range(rng.randrange(1, 3)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            with self.subTest(number=number, raw=bytes(raw)):
                self.check(bytes(raw))


if __name__ == "__main__":
    unittest.main()
