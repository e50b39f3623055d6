"""Durations, numbers, widths and cuts as people read them; and what is never shown to anybody."""

import random
import re
import signal
import unittest

from tests import ops

BOT_TOKEN = "123456789:" + "AAb1_" * 7  # made of pieces: a scanner of sources shall find no credential here
SK, GHP, GHS, PAT = "sk-" + "a1B2" * 6, "ghp_" + "a1B2" * 9, "ghs_" + "a1B2" * 9, "github_" + "pat_" + "a1B2" * 8
AKIA, XOX = "AKIA" + "A1B2" * 4, "xoxb-" + "12ab" * 5
PEM = "-----BEGIN {}PRIVATE " + "KEY-----"
WORDS = ["disk", "full", "进度", "🛠️", "👨‍👩‍👧", "e\u0301", "—", "\n", " ", "a" * 50, "表" * 30, "😀" * 20]


def any_text(rng, parts=12):
    return "".join(rng.choice(WORDS) for _ in range(rng.randrange(parts)))


class Durations(unittest.TestCase):
    WRITTEN = [
        (0, "0s"), (1, "1s"), (59, "59s"), (60, "1m"), (95, "1m 35s"), (3599, "59m 59s"), (3599.7, "1h"), (3600, "1h"), (3605, "1h 5s"),
        (3660, "1h 1m"), (86400, "1d"), (90061, "1d 1h"), (86400 * 400, "400d"), (-5, "0s"),
    ]  # fmt: skip
    READ = [
        ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1.5h", 5400), ("2d 3h", 183600), ("2d3h", 183600), (" 5 m ", 300),
        ("0", 0), ("0.5", 0.5),
    ]  # fmt: skip
    REFUSED = ["", " ", "-5", "5x", "h", "1h-", "1:30", "five", "1e3", "nan", "inf", "5 minutes", "1..5h", "９9x", "1 2", "1" * 60 + "x", "9" * 400]

    def test_a_duration_is_written_in_at_most_two_units(self):
        for seconds, text in self.WRITTEN:
            self.assertEqual(ops.duration_text(seconds), text)

    def test_a_short_duration_is_not_rounded_to_nothing(self):
        for seconds in (0.001, 0.05, 0.4, 1.5, 9.9):
            self.assertNotEqual(ops.duration_text(seconds), "0s")

    def test_a_duration_is_read_as_it_is_written(self):
        for text, seconds in self.READ:
            self.assertEqual(ops.duration_seconds(text), seconds, text)
        for seconds in range(0, 100_000, 37):
            text = ops.duration_text(seconds)
            self.assertLess(abs(ops.duration_seconds(text) - seconds), 3600 if "d" in text else 60 if "h" in text else 1)

    def test_anything_else_is_refused_and_never_waited_for(self):
        def too_long(number, frame):
            raise AssertionError(f"reading {text[:20]!r} does not end")

        before = signal.signal(signal.SIGALRM, too_long)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        for text in self.REFUSED:
            signal.setitimer(signal.ITIMER_REAL, 20)
            with self.subTest(text=text[:20]), self.assertRaises(ValueError):
                ops.duration_seconds(text)

    def test_a_refusal_names_what_was_found_and_what_is_expected(self):
        with self.assertRaisesRegex(ValueError, "15m.*'5x'"):
            ops.duration_seconds("5x")


class Numbers(unittest.TestCase):
    def test_a_number_is_shown_as_it_was_written(self):
        for text in ("1.50", "1e3", "1E-7", "0.10", "-0.0", "100000000000000000000.0"):
            self.assertEqual(ops.number_text(ops.Written.read(text)), text)
        for value, text in ((5, "5"), (True, "true"), (False, "false"), (1.5, "1.5"), (-3, "-3")):
            self.assertEqual(ops.number_text(value), text)


class Cuts(unittest.TestCase):
    def test_utf16_units_are_counted_as_telegram_counts(self):
        rng = random.Random(1)
        for text in [any_text(rng) for _ in range(300)]:
            self.assertEqual(ops.utf16_length(text), len(text.encode("utf-16-le")) // 2)

    def test_a_cut_text_fits_shows_the_cut_and_halves_no_letter(self):
        rng = random.Random(2)
        for _ in range(600):
            text, limit = any_text(rng, 20), rng.randrange(4, 60)
            cut = ops.clip(text, limit)
            self.assertLessEqual(ops.utf16_length(cut), limit)
            if cut != text:
                self.assertGreater(ops.utf16_length(text), limit, "cut without need")
                self.assertTrue(cut.endswith(" …") and text.startswith(cut[:-2]))
                self.assertGreaterEqual(ops.utf16_length(cut), limit - 1, "more was cut than had to be")
            cut.encode("utf-8")

    def test_what_just_fits_is_not_cut(self):
        for text in ("a" * 10, "😀" * 5, "表" * 10):
            self.assertEqual(ops.clip(text, 10), text)
        self.assertEqual(ops.clip("a" * 11, 10), "a" * 8 + " …")
        self.assertEqual(ops.clip("😀" * 6, 10), "😀" * 4 + " …")

    def test_one_line_has_one_line(self):
        self.assertEqual(ops.one_line(" a\n\tb  c\r\nd "), "a b c d")
        self.assertLessEqual(ops.utf16_length(ops.one_line("😀 " * 500, 100)), 100)

    def test_the_last_lines_of_an_output_are_the_last_that_say_something(self):
        text = "".join(f"line {number}\n\n" for number in range(50))
        self.assertEqual(ops.last_lines(text, 3), "line 47\nline 48\nline 49")
        self.assertLess(len(ops.last_lines("x" * 100_000 + "\n" + "y" * 100_000)), 1300)
        self.assertEqual(ops.last_lines("\n \n"), "")


class Widths(unittest.TestCase):
    COLUMNS = [
        ("", 0), ("abc", 3), ("进度", 4), ("a进", 3), ("e\u0301", 1), ("✅", 2), ("ﾊﾝ", 2), ("Ａ", 2), ("—", 1), ("a\u200db", 2), ("🛠\ufe0f", 1),
    ]  # fmt: skip

    def test_wide_letters_take_two_columns_and_marks_none(self):
        for text, columns in self.COLUMNS:
            self.assertEqual(ops.display_width(text), columns, ascii(text))

    def test_padding_counts_columns(self):
        for text, _ in self.COLUMNS:
            self.assertEqual(ops.display_width(ops.pad(text, 9)), 9)
        self.assertEqual(ops.pad("进度进度", 3), "进度进度")

    def test_a_line_cut_to_columns_fits(self):
        rng = random.Random(3)
        for _ in range(300):
            text, limit = any_text(rng).replace("\n", ""), rng.randrange(1, 40)
            cut = ops.cut_columns(text, limit)
            self.assertLessEqual(ops.display_width(cut), limit)
            self.assertTrue(cut == text or cut.endswith("…"))

    def test_the_columns_of_a_table_stand_under_each_other_whatever_their_letters(self):
        rows = [["JOB", "状态", "NEXT"], ["夜间索引", "ok", "x"], ["e\u0301te\u0301", "运行中", "下一步"], ["plain", "✅", "-"]]
        lines = ops.table(rows)
        for column in (1, 2):
            starts = {ops.display_width(line[: line.index(row[column], len(row[0]))]) for line, row in zip(lines, rows)}
            self.assertEqual(len(starts), 1, lines)
        self.assertEqual([line.rstrip() for line in lines], lines)

    def test_a_table_is_cut_to_the_terminal_and_may_be_empty(self):
        self.assertEqual(ops.table([]), [])
        for limit in (10, 25, 80):
            for line in ops.table([["夜间索引" * 5, "x" * 30], ["a", "b"]], limit):
                self.assertLessEqual(ops.display_width(line), limit)


class Names(unittest.TestCase):
    def test_setting_names_go_both_ways(self):
        for fields in ops.FIELDS.values():
            for field in fields:
                self.assertEqual(ops.camel(ops.snake(field.key)), field.key)
        for name in ops.Memory._fields + ops.Incident._fields:
            self.assertEqual(ops.snake(ops.camel(name)), name)

    def test_the_nearest_word_is_found_or_none(self):
        self.assertEqual(ops.did_you_mean("stalSeconds", ["stallSeconds", "autoResume"]), "; did you mean 'stallSeconds'?")
        self.assertEqual(ops.did_you_mean("zzz", ["stallSeconds"]), "")

    def test_a_slug_is_a_file_name_and_no_two_jobs_share_one(self):
        ids = ["a", "A", "a b", "a/b", "../a", "夜间", "日间", "x" * 128, "-", "a-b", "🛠", "\ud800"]
        slugs = [ops.slug(job_id) for job_id in ids]
        self.assertEqual(len(set(slugs)), len(ids))
        for text in slugs:
            self.assertRegex(text, r"^[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{12}$")

    def test_a_word_for_the_shell_is_quoted_when_it_must_be(self):
        for word, quoted in (("nightly-1", "nightly-1"), ("a b", "'a b'"), ("it's", "'it'\"'\"'s'"), ("$(x)", "'$(x)'"), ("", "''")):
            self.assertEqual(ops.shell_word(word), quoted)


class Credentials(unittest.TestCase):
    """(a text, the secret in it): none of the secret may be left."""

    FORMS = [
        (BOT_TOKEN, BOT_TOKEN),
        (f"https://api.telegram.org/bot{BOT_TOKEN}/sendMessage", BOT_TOKEN),
        (f"token={BOT_TOKEN}", BOT_TOKEN),
        (f"GET /bot{BOT_TOKEN}/getMe failed", BOT_TOKEN),
        (f"key {SK} leaked", SK),
        (SK.replace("sk-", "sk-proj-"), SK[3:]),
        (GHP, GHP),
        (GHS, GHS),
        (PAT, PAT),
        (f"id {AKIA}.", AKIA),
        (XOX, XOX),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("authorization: bearer abcdef", "abcdef"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
        ("password=hunter22", "hunter22"),
        ("password=abc", "abc"),
        ("PASSWORD: hunter22", "hunter22"),
        ("password = 'my secret phrase'", "my secret phrase"),
        ('password="my secret phrase"', "my secret phrase"),
        ('{"password": "hunter22"}', "hunter22"),
        ("{'password': 'hunter22'}", "hunter22"),
        ('{\\"password\\": \\"hunter22\\"}', "hunter22"),
        ("db_password=hunter22&x=1", "hunter22"),
        ("api_key=hunter22", "hunter22"),
        ("apikey: hunter22", "hunter22"),
        ("API-KEY=hunter22", "hunter22"),
        ("client_secret=hunter22", "hunter22"),
        ("access_key=hunter22", "hunter22"),
        ("?access_token=hunter22&x=1", "hunter22"),
        ("https://user:hunter22@host/path", "hunter22"),
        ("postgres://user:p@ss-word@host/db", "ss-word"),
        ("postgres://:hunter22@host", "hunter22"),
        (PEM.format("RSA ") + "\nMIIEow\nxyz\n" + PEM.format("RSA ").replace("BEGIN", "END"), "MIIEow"),
        (PEM.format("") + "\nMIIEow\n(cut short)", "MIIEow"),
    ]
    HARMLESS = [
        "12:30:45 done", "123456 files", "disk at 91 %", "https://host/path?page=2", "keys: 5 of 9",
        "task-1 finished", "progress 40/100", "sk-1", "version 2.0.0", "http://localhost:8080/health", "2024-05-01T12:00:00Z", "进度 5：完成",
    ]  # fmt: skip

    def test_every_form_of_a_credential_is_masked_wherever_it_stands(self):
        for text, secret in self.FORMS:
            for around in ("{}", "error: {} (line 3)", "前文 {} 后文", "a\n{}\nb"):
                with self.subTest(text=around.format(text)):
                    shown = ops.Redactor().tidy(around.format(text))
                    self.assertNotIn(secret, shown)
                    self.assertIn("***", shown)

    def test_a_credential_coloured_or_cut_by_terminal_codes_is_masked(self):
        for raw in (b"\x1b[1mpassword\x1b[0m=\x1b[31mhunter22\x1b[0m", b"password=\x00hunter22", b"pass\x08word=hunter22", b"password=\r\nhunter22"):
            self.assertNotIn("hunter22", ops.Redactor().read(raw))

    def test_texts_without_a_credential_stay_as_they_are(self):
        for text in self.HARMLESS:
            self.assertEqual(ops.Redactor().tidy(text), text)

    def test_masking_twice_is_masking_once(self):
        redact = ops.Redactor(["correct horse"])
        for text, _ in self.FORMS:
            once = redact.tidy(text)
            self.assertEqual(redact.tidy(once), once)

    def test_words_after_a_credential_are_still_told(self):
        self.assertIn("disk full", ops.Redactor().tidy("password=hunter22 disk full"))
        self.assertIn("disk full", ops.Redactor().tidy(f"bot{BOT_TOKEN}/x disk full"))

    def test_no_text_makes_masking_slow(self):
        redact = ops.Redactor(["a" * 40])
        for text in ("password" * 5000, "://" * 20_000, "://a:" * 20_000, "-----BEGIN " * 3000, "1" * 60_000, "token:" * 10_000, "\x1b]" * 30_000,
                     "\\" * 40_000, "password" + " " * 40_000, "://u:" + "p" * 60_000, "bearer " * 10_000, "token" + "\\" * 40_000):  # fmt: skip
            self.assertIsInstance(redact.tidy(text), str)


class SecretsOfTheEnvironment(unittest.TestCase):
    def test_values_whose_names_say_so_are_secret_from_eight_characters_on(self):
        env = {"API_TOKEN": "aaaaaaaa", "my_secret": "bbbbbbbb", "DbPassword": "cccccccc", "SSH_KEY": "dddddddd"}
        env.update({"SHORT_TOKEN": "1234567", "HOME": "/home/somebody"})
        self.assertEqual(ops.secret_values(env), {"aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"})

    def test_they_are_masked_everywhere_also_inside_words_and_keys(self):
        redact = ops.Redactor(ops.secret_values({"X_TOKEN": "correct horse", "Y_KEY": "correct horse battery"}))
        for text in ("correct horse", "xcorrect horsex", "say correct horse battery staple", "正确correct horse的"):
            shown = redact.tidy(text)
            self.assertNotIn("correct", shown)
            self.assertNotIn("battery", shown)
        self.assertEqual(redact.scrub({"correct horse": ["a correct horse", 5, None, True]}), {"***": ["a ***", 5, None, True]})

    def test_a_secret_of_digits_alone_is_masked(self):
        self.assertEqual(ops.Redactor(["12345678"]).tidy("12345678"), "***")

    def test_what_is_learned_later_is_masked_from_then_on(self):
        redact = ops.Redactor()
        redact.learn(["swordfish"])
        redact.learn(["swordfish and chips"])
        self.assertEqual(redact.tidy("swordfish and chips, swordfish"), "***, ***")


class Harmless(unittest.TestCase):
    CONTROLS = [
        ("\x1b[31mred\x1b[0m", "red"), ("\x1b]0;title\x07text", "text"), ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"), ("a\x07b\x00c", "abc"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"), ("tab\tstays", "tab\tstays"), ("\x1b", ""), ("\x9b31mx", "31mx"), ("\x7f", ""),
        ("safe\u202etxt.exe", "safetxt.exe"), ("\u2066a\u2069\u200e\u200f", "a"), ("\u061ca", "a"), ("\ud800", "?"), ("好\u202d的", "好的"),
    ]  # fmt: skip

    def test_terminal_codes_controls_and_letters_that_turn_text_around_go(self):
        for text, shown in self.CONTROLS:
            self.assertEqual(ops.Redactor().tidy(text), shown, ascii(text))

    def test_invalid_utf8_becomes_visible_and_no_bytes_make_an_exception(self):
        self.assertEqual(ops.Redactor().read(b"caf\xe9"), "caf\ufffd")
        rng = random.Random(9)
        for _ in range(500):
            shown = ops.Redactor().read(bytes(rng.randrange(256) for _ in range(40)))
            shown.encode("utf-8")
            self.assertIsNone(re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown))

    def test_json_of_any_depth_is_made_safe(self):
        value = "password=hunter22"
        for _ in range(50):
            value = {"a": [value]}
        self.assertNotIn("hunter22", str(ops.Redactor().scrub(value)))


if __name__ == "__main__":
    unittest.main()
