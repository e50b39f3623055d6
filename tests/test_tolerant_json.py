"""TOLERANT JSON: what people write by hand is read, and what cannot be read is placed."""

import json
import math
import random
import unittest

from tests import ops

READ = [
    ("plain JSON stays what it is", '{"a": [1, -2.5e3, "x", true, false, null]}', {"a": [1, -2500.0, "x", True, False, None]}),
    ("an empty object", "{}", {}),
    ("an empty list", "[ ]", []),
    ("a lone value may be the root", " 'x' ", "x"),
    ("a comment runs to the end of its line", '{"a": 1, // "b": 2\n"c": 3}', {"a": 1, "c": 3}),
    ("a comment may end the file", "1 // done", 1),
    ("a comment touches a number", "[1//x\n,2/*y*/]", [1, 2]),
    ("a comment spans lines", "[1, /* 2,\n * 3,\n **/ 4]", [1, 4]),
    ("a comment inside a text is text", '"http://x/*y*/"', "http://x/*y*/"),
    ("an object ends in a comma", '{"a": 1,}', {"a": 1}),
    ("a list ends in a comma and a comment", "[1, 2, /* last */ ]", [1, 2]),
    ("single quotes", "{'a': 'it is \"so\"'}", {"a": 'it is "so"'}),
    ("an apostrophe in double quotes", '"it\'s"', "it's"),
    ("keys without quotes", "{a: 1, _b$: 2, $include: './x', c3: 4}", {"a": 1, "_b$": 2, "$include": "./x", "c3": 4}),
    ("keys that are words of the language", "{true: 1, null: 2, NaN: 3, class: 4}", {"true": 1, "null": 2, "NaN": 3, "class": 4}),
    ("keys with letters beyond ASCII", "{größe: 1, 名前: 2, ключ: 3, ที่: 4}", {"größe": 1, "名前": 2, "ключ": 3, "ที่": 4}),
    ("a key with an escaped letter", r"{\u0061b: 1}", {"ab": 1}),
    ("a plus before a number", "[+1, +.5, +0x10]", [1, 0.5, 16]),
    ("a point before or after the digits", "[.5, 5., -.5, 5.e1]", [0.5, 5.0, -0.5, 50.0]),
    ("hexadecimal", "[0xAF, 0Xaf, -0x1]", [175, 175, -1]),
    ("infinity", "[Infinity, +Infinity, -Infinity]", [math.inf, math.inf, -math.inf]),
    ("escapes of ECMAScript", r"'\x41\v\0\'\q'", "A\v\0'q"),
    ("escapes of JSON", r'"\"\\\/\b\f\n\r\t\u00e9"', '"\\/\b\f\n\r\té'),
    ("an escaped backslash before u", r"'\\u0041'", r"\u0041"),
    ("a text continues on the next line", "'a\\\nb\\\r\nc\\\rd\\\u2028e\\\u2029f'", "abcdef"),
    ("a tab inside a text", '"a\tb"', "a\tb"),
    ("two surrogates are one character", r'"\ud83d\ude00"', "\U0001f600"),
    ("a lone surrogate stays", r'"\ud800x\udc00"', "\ud800x\udc00"),
    ("a lone surrogate before a pair", r'"\ud83d\ud83d\ude00"', "\ud83d\U0001f600"),
    ("a byte order mark", '\ufeff{"a": 1}', {"a": 1}),
    ("white space of every kind", "\t\v\f\r\n\u00a0\u2003\ufeff1\u2029", 1),
    ("of equal keys the last wins", '{"a": 1, a: 2}', {"a": 2}),
    ("an integer longer than Python prints", "1" * 5000, math.inf),
    ("zero with a sign", "-0", 0),
]

REFUSED = [
    ("nothing", "", "expected a value, found the end", (1, 1)),
    ("only a comment", "// x", "expected a value, found the end", (1, 5)),
    ("two commas in a list", "[1,,2]", "expected a value, found ','", (1, 4)),
    ("two commas in an object", '{"a": 1,, "b": 2}', "expected a key or '}', found ','", (1, 9)),
    ("a comma alone", "[,]", "expected a value, found ','", (1, 2)),
    ("a comma is missing in an object", '{"a": 1\n "b": 2}', "expected ',' or '}', found a text", (2, 2)),
    ("a comma is missing in a list", "[1 x]", "expected ',' or ']', found 'x'", (1, 4)),
    ("a colon is missing", "{a 1}", "expected ':', found '1'", (1, 4)),
    ("a value is missing", "{a: }", "expected a value, found '}'", (1, 5)),
    ("the wrong bracket", "[1}", "expected ',' or ']', found '}'", (1, 3)),
    ("an object is not closed", '{"a": 1', "expected ',' or '}', found the end", (1, 8)),
    ("a text is not closed", '{\n "a": "x\n}', "text is not closed", (2, 7)),
    ("a text in single quotes is not closed", "'x", "text is not closed", (1, 1)),
    ("a comment is not closed", "[1, /* x", "comment is not closed", (1, 5)),
    ("something follows", "{} {}", "expected the end, found '{'", (1, 4)),
    ("octal", "[010]", "octal numbers are not accepted", (1, 2)),
    ("octal with a sign", "-017", "octal numbers are not accepted", (1, 1)),
    ("octal of the new kind", "0o17", "octal numbers are not accepted", (1, 1)),
    ("an octal escape", r"['\1']", r"unknown escape \1", (1, 2)),
    ("an octal escape of two digits", r"'\01'", r"unknown escape \01", (1, 1)),
    ("a short hexadecimal escape", r"'\x4'", r"unknown escape \x", (1, 1)),
    ("a short unicode escape", r"'\u12'", r"unknown escape \u", (1, 1)),
    ("a hexadecimal number without digits", "0x", "expected a value, found '0x'", (1, 1)),
    ("a number with underlines", "1_000", "expected a value, found '1_000'", (1, 1)),
    ("digits of other scripts", "٣", "expected a value, found '٣'", (1, 1)),
    ("a sign alone", "-", "expected a value, found '-'", (1, 1)),
    ("a word", "{a: yes}", "expected a value, found 'yes'", (1, 5)),
    ("a long word is cut", "x" * 21, f"expected a value, found '{'x' * 8}…'", (1, 1)),
    ("Python's constants", "[None]", "expected a value, found 'None'", (1, 2)),
    ("a key with a hyphen", "{a-b: 1}", "expected a key or '}', found 'a-b'", (1, 2)),
    ("a key that is a number", "{1: 1}", "expected a key or '}', found '1'", (1, 2)),
    ("a control character", "\0", r"expected a value, found '\x00'", (1, 1)),
    ("two hundred and one levels", "[" * 201, "nested deeper than 200", (1, 201)),
    ("a hundred thousand levels", '{"a":' * 100_000, "nested deeper than 200", (1, 1001)),
    ("carriage returns do not shift the place", "{\r\n  a: 1,\r\n  b: ?\r\n}", "expected a value, found '?'", (3, 6)),
]

FRAGMENTS = [*'{}[]:,"\'\\/\n\t\r 017-+.eExa$_#', "//", "/*", "*/", "\\u00", "\\u0041", "\\x4", "0x", "true", "NaN", "é", "\ufeff", "\u2028", "\0", "\ud800"]


def malformed(text, **options):
    try:
        value = ops.read_tolerant(text, **options)
    except ops.Malformed as error:
        return error
    raise AssertionError(f"{text[:60]!r} was read as {value!r}")


def random_value(rng, depth=0):
    """A value that JSON can hold."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind > 6:
        return {random_text(rng): random_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind > 5:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return [None, rng.random() < 0.5, rng.randrange(-(10**20), 10**20), rng.uniform(-1, 1) * 10.0 ** rng.randrange(-30, 30), random_text(rng), 0][kind]


def random_text(rng):
    return "".join(rng.choice("ab\"'\\/\n\t\0\u2028é名\U0001f600\ud800{}[],: ") for _ in range(rng.randrange(6)))


def mutated(rng, text):
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice([*FRAGMENTS, ""]) + text[place + rng.randrange(3):]
    return text


class Reading(unittest.TestCase):
    def test_what_people_write_by_hand_is_read(self):
        for sentence, text, expected in READ:
            with self.subTest(sentence):
                value = ops.read_tolerant(text).value
                self.assertEqual(value, expected)
                self.assertEqual(json.dumps(value), json.dumps(expected), "the types differ")

    def test_not_a_number_is_read(self):
        for text in ("NaN", "+NaN", "-NaN"):
            self.assertTrue(math.isnan(ops.read_tolerant(text).value), text)

    def test_what_cannot_be_read_is_said_and_placed(self):
        for sentence, text, problem, place in REFUSED:
            with self.subTest(sentence):
                error = malformed(text)
                self.assertEqual((error.problem, (error.line, error.column)), (problem, place))

    def test_two_hundred_levels_are_read(self):
        value = ops.read_tolerant("[" * 200 + "]" * 200).value
        for _ in range(199):
            (value,) = value
        self.assertEqual(value, [])

    def test_a_problem_quotes_no_text_since_it_may_be_a_secret(self):
        for text in ('{"botToken" "777:SECRET"}', '["777:SECRET" 1 "777:SECRET"]', '{"a": "777:SECRET', '"x" "777:SECRET"'):
            self.assertNotIn("SECRET", str(malformed(text)))


class Places(unittest.TestCase):
    def test_each_value_has_the_place_where_it_begins(self):
        text = '\ufeff// ours\n{\n  jobs: [\n    {id: "a"}, 7,\n    {"policy": /* x\n */ {stallSeconds: -1}},\n  ],\n}'
        self.assertEqual(
            ops.read_tolerant(text).places,
            {
                (): (2, 1),
                ("jobs",): (3, 9),
                ("jobs", 0): (4, 5),
                ("jobs", 0, "id"): (4, 10),
                ("jobs", 1): (4, 16),
                ("jobs", 2): (5, 5),
                ("jobs", 2, "policy"): (6, 5),
                ("jobs", 2, "policy", "stallSeconds"): (6, 20),
            },
        )

    def test_a_byte_order_mark_has_no_column(self):
        self.assertEqual(ops.read_tolerant("\ufeff[1]").places, {(): (1, 1), (0,): (1, 2)})

    def test_an_error_as_text_begins_with_its_place(self):
        self.assertEqual(str(malformed("[\n1 2]")), "2:3: expected ',' or ']', found '2'")

    def test_after_a_text_of_two_lines_the_places_are_right(self):
        self.assertEqual(ops.read_tolerant("['a\\\nb', 1]").places[(1,)], (2, 5))

    def test_of_equal_keys_the_last_has_the_place(self):
        self.assertEqual(ops.read_tolerant('{"a": 1,\n"a": 2}').places[("a",)], (2, 6))


class Duplicates(unittest.TestCase):
    def test_they_are_refused_where_the_second_key_stands(self):
        for text, place in (('{"a": 1,\n b: 2, a: 3}', (2, 8)), ("{x: {k: 1, 'k': 2}}", (1, 12)), (r"{a: 1, \u0061: 2}", (1, 8))):
            with self.subTest(text):
                error = malformed(text, duplicates="refuse")
                self.assertEqual((error.line, error.column), place)
                self.assertIn("duplicate key", error.problem)

    def test_the_same_key_in_another_object_is_no_duplicate(self):
        self.assertEqual(ops.read_tolerant("[{a: 1}, {a: {a: 2}}]", duplicates="refuse").value, [{"a": 1}, {"a": {"a": 2}}])


class Walks(unittest.TestCase):
    def test_json_reads_as_json(self):
        for seed in range(300):
            rng = random.Random(seed)
            value = random_value(rng)
            text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1]))
            with self.subTest(seed=seed):
                self.assertEqual(repr(ops.read_tolerant(text, "refuse").value), repr(json.loads(text)))

    def test_a_mutated_text_is_read_or_refused_at_a_place_inside_it(self):
        samples = [text for _, text, *_ in READ + REFUSED if len(text) < 200]
        for seed in range(3000):
            rng = random.Random(seed)
            text = mutated(rng, rng.choice(samples))
            with self.subTest(seed=seed, text=text):
                try:
                    self.assertIn((), ops.read_tolerant(text).places)
                except ops.Malformed as error:
                    lines = text.split("\n")
                    self.assertTrue(1 <= error.line <= len(lines), error)
                    self.assertTrue(1 <= error.column <= len(lines[error.line - 1]) + 1, error)

    def test_long_texts_take_their_time_once(self):
        for text in ("/*" * 200_000, "[" + "'\\a'," * 20_000, '"' + "\\" * 200_001, " \n" * 100_000, "'" * 200_001, "-" * 200_000):
            malformed(text)


if __name__ == "__main__":
    unittest.main()
