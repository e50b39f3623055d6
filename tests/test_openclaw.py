"""OPENCLAW: another program's config, read for whom to reach and how, whatever state it is in."""

import json
import random
import unittest

from tests import ops

HOME = "/home/ann"
CONFIG = "/claw/openclaw.json"
UNSET = ("", "  ", "null", "undefined", " null ")


def reader(files):
    """A `read` over {path: text}; an exception in the place of a text is raised."""

    def read(path):
        found = files.get(path, FileNotFoundError(2, "No such file or directory"))
        if isinstance(found, Exception):
            raise found
        return found

    return read


def load(config, env=None, files=None, **options):
    """The config (text, or a value to be written) loaded, beside other files of its directory."""
    text = config if isinstance(config, str) else json.dumps(config)
    beside = {f"/claw/{name}": text for name, text in (files or {}).items()}
    return ops.load_openclaw(CONFIG, env or {}, reader({CONFIG: text, **beside}), **options)


def telegram(**settings):
    return {"channels": {"telegram": settings}}


def token(config, account=None, env=None, files=None):
    openclaw = config if isinstance(config, ops.OpenClaw) else load(config, env)
    return ops.find_token(openclaw, account, reader(files or {}))


def expand(path):
    return HOME + path[1:] if path[0] == "~" else path


class PlacesOfThings(unittest.TestCase):
    # (sentence, variables without OPENCLAW_, what exists, state dir, config file, our dir)
    TABLE = [
        ("a fresh machine", {}, ["None/net"], "~/.openclaw", "~/.openclaw/openclaw.json", "~/.openclaw"),
        ("the usual machine", {}, ["~/.openclaw/openclaw.json", "~/.openclaw/net"],
         "~/.openclaw", "~/.openclaw/openclaw.json", "~/.openclaw"),
        ("the legacy config is found", {}, ["~/.clawdbot/clawdbot.json"],
         "~/.clawdbot", "~/.clawdbot/clawdbot.json", "~/.clawdbot"),
        ("the new config comes before the legacy one", {}, ["~/.clawdbot/clawdbot.json", "~/.openclaw/openclaw.json"],
         "~/.openclaw", "~/.openclaw/openclaw.json", "~/.openclaw"),
        ("with the legacy config our files stay where v1 had them", {}, ["~/.clawdbot/clawdbot.json", "~/.openclaw/net"],
         "~/.clawdbot", "~/.clawdbot/clawdbot.json", "~/.openclaw"),
        ("OPENCLAW_STATE_DIR", {"STATE_DIR": "/s"}, ["~/.openclaw/openclaw.json", "~/.openclaw/net"],
         "/s", "/s/openclaw.json", "/s"),
        ("OPENCLAW_STATE_DIR comes before OPENCLAW_HOME", {"STATE_DIR": "/s", "HOME": "/o"}, ["/o/openclaw.json"],
         "/s", "/s/openclaw.json", "/s"),
        ("an existing $OPENCLAW_HOME/net wins for our files", {"STATE_DIR": "/s", "HOME": "/o"}, ["/o/net", "/s/net"],
         "/s", "/s/openclaw.json", "/o"),
        ("OPENCLAW_CONFIG_PATH with a state dir", {"CONFIG_PATH": "/x/c.json", "STATE_DIR": "/s"}, ["/x/net"],
         "/s", "/x/c.json", "/s"),
        ("OPENCLAW_CONFIG_PATH with OPENCLAW_HOME", {"CONFIG_PATH": "/x/c.json", "HOME": "/o"}, ["/o/.openclaw/openclaw.json"],
         "/o/.openclaw", "/x/c.json", "/o/.openclaw"),
        ("our files are not looked for beside that config then", {"CONFIG_PATH": "/x/c.json", "HOME": "/o"}, ["/x/net"],
         "/o", "/x/c.json", "/o"),
        ("OPENCLAW_CONFIG_PATH alone moves no state", {"CONFIG_PATH": "/x/c.json"}, ["/x/c.json"],
         "~/.openclaw", "/x/c.json", "~/.openclaw"),
        ("but our files are found beside that config", {"CONFIG_PATH": "/x/c.json"}, ["/x/net"],
         "~/.openclaw", "/x/c.json", "/x"),
        ("unless they are in the state dir", {"CONFIG_PATH": "/x/c.json"}, ["/x/net", "~/.openclaw/net"],
         "~/.openclaw", "/x/c.json", "~/.openclaw"),
        ("OPENCLAW_HOME as v1 meant it", {"HOME": "/o"}, ["/o/openclaw.json", "/o/.openclaw/openclaw.json"],
         "/o", "/o/openclaw.json", "/o"),
        ("OPENCLAW_HOME as OpenClaw means it", {"HOME": "/o"}, ["/o/.openclaw/openclaw.json"],
         "/o/.openclaw", "/o/.openclaw/openclaw.json", "/o/.openclaw"),
        ("our files of v1 beside OpenClaw's own nested dir", {"HOME": "/o"}, ["/o/.openclaw/openclaw.json", "/o/net"],
         "/o/.openclaw", "/o/.openclaw/openclaw.json", "/o"),
        ("OPENCLAW_HOME with net alone", {"HOME": "/o"}, ["/o/net"], "/o", "/o/openclaw.json", "/o"),
        ("an empty OPENCLAW_HOME never leads to another home", {"HOME": "/o"}, ["~/.openclaw/openclaw.json", "~/.openclaw/net"],
         "/o", "/o/openclaw.json", "/o"),
        ("a tilde expands", {"HOME": "~/claw", "CONFIG_PATH": "~/c.json"}, [], "~/claw", "~/c.json", "~/claw"),
        ("a tilde alone", {"STATE_DIR": "~"}, [], "~", "~/openclaw.json", "~"),
        ("a tilde of someone else stays", {"STATE_DIR": "/~bob"}, [], "/~bob", "/~bob/openclaw.json", "/~bob"),
        ("slashes at the end and blanks are cut", {"STATE_DIR": " /s/ "}, [], "/s", "/s/openclaw.json", "/s"),
        *(
            (f"{text!r} is unset", {"HOME": text, "STATE_DIR": text, "CONFIG_PATH": text}, [],
             "~/.openclaw", "~/.openclaw/openclaw.json", "~/.openclaw")
            for text in UNSET
        ),
    ]

    def test_the_order_serves_openclaw_and_v1(self):
        for sentence, variables, existing, *expected in self.TABLE:
            with self.subTest(sentence):
                env = {f"OPENCLAW_{name}": value for name, value in variables.items()}
                exists = {expand(path) for path in existing}.__contains__
                self.assertEqual(ops.openclaw_places(env, HOME, exists), tuple(map(expand, expected)))

    def test_without_a_home_only_variables_say_where(self):
        def nothing(path):
            return False

        self.assertEqual(ops.openclaw_places({}, None, nothing), (None, None, None))
        self.assertEqual(ops.openclaw_places({"OPENCLAW_HOME": "~/o"}, None, nothing), ("~/o", "~/o/openclaw.json", "~/o"))
        self.assertEqual(ops.openclaw_places({"OPENCLAW_HOME": "/o"}, None, nothing), ("/o", "/o/openclaw.json", "/o"))
        self.assertEqual(ops.openclaw_places({"OPENCLAW_CONFIG_PATH": "/x/c.json"}, None, nothing), ("/x", "/x/c.json", "/x"))

    def test_a_child_openclaw_gets_our_places_and_no_home_of_its_own(self):
        env = {"OPENCLAW_HOME": "/o", "PATH": "/bin", "NO_COLOR": "0"}
        expected = {"PATH": "/bin", "OPENCLAW_STATE_DIR": "/s", "OPENCLAW_CONFIG_PATH": "/s/c.json", "OPENCLAW_NO_RESPAWN": "1", "NO_COLOR": "1"}
        self.assertEqual(ops.env_for_openclaw(env, ops.Places("/s", "/s/c.json", "/o")), expected)
        self.assertEqual(env["OPENCLAW_HOME"], "/o", "the caller's environment was changed")
        self.assertNotIn("OPENCLAW_STATE_DIR", ops.env_for_openclaw({}, ops.Places(None, None, None)))


class TheConfig(unittest.TestCase):
    def test_strict_and_handwritten_json_are_read(self):
        for text in ('{"a": {"b": 1}}', "{a: {b: 1,}, /* x */}", "\ufeff{'a': {b: +1}}"):
            openclaw = load(text)
            self.assertEqual((openclaw.path, openclaw.config, openclaw.problems), (CONFIG, {"a": {"b": 1}}, []))

    def test_what_cannot_be_read_is_an_empty_config_and_one_problem(self):
        for text, problem in [
            ('{"a": 1,\n "botToken": "777:SECRET" "x"}', f"{CONFIG}:2:27: expected ',' or '}}'"),
            ("{botToken: SECRET}", f"{CONFIG}:1:12: expected a value"),
            ("[1]", f"{CONFIG}: expected an object"),
            ("null", f"{CONFIG}: expected an object"),
            ("[" * 100_000, f"{CONFIG}:1:201: nested deeper than 200"),
            (PermissionError(13, "Permission denied"), f"{CONFIG}: Permission denied"),
            (OSError("a directory"), f"{CONFIG}: a directory"),
            (UnicodeDecodeError("utf-8", b"SECRET\xff", 6, 7, "invalid"), f"{CONFIG}: not readable as UTF-8 text"),
        ]:
            with self.subTest(problem):
                openclaw = ops.load_openclaw(CONFIG, {"A": "1"}, reader({CONFIG: text}))
                self.assertEqual((openclaw.config, openclaw.problems, openclaw.variables), ({}, [problem], {"A": "1"}))

    def test_without_a_path_the_environment_is_still_there(self):
        openclaw = ops.load_openclaw(None, {"TELEGRAM_BOT_TOKEN": "777:abc"}, reader({}))
        self.assertEqual(token(openclaw).value, "777:abc")

    def test_a_branch_that_is_too_deep_hides_nothing_else(self):
        for levels, problems in ((99, []), (100, [f"{CONFIG}: nested deeper than 100, left out"])):
            openclaw = load('{"deep": %s1%s, "a": 1}' % ("[" * levels, "]" * levels))
            self.assertEqual((openclaw.config["a"], openclaw.problems), (1, problems))

    def test_an_included_file_counts_as_deep_as_it_is_included(self):
        openclaw = load('{"deep": %s{"$include": "a"}%s}' % ("[" * 60, "]" * 60), files={"a": "[" * 60 + "]" * 60})
        self.assertEqual(openclaw.problems, ["/claw/a: nested deeper than 100, left out"])

    def test_a_path_may_go_round(self):
        files = {CONFIG: '{"$include": "a"}', "/claw/a": '{"x": 1}'}
        self.assertEqual(ops.load_openclaw("/claw/sub/.././openclaw.json", {}, reader(files)).config, {"x": 1})


class IncludedFiles(unittest.TestCase):
    # (sentence, the config, {file: content}, the config as resolved)
    GOOD = [
        ("one file", {"$include": "a.json"}, {"a.json": {"x": 1}}, {"x": 1}),
        ("inside a branch", {"b": {"$include": "./a.json"}, "c": 1}, {"a.json": {"x": 1}}, {"b": {"x": 1}, "c": 1}),
        ("inside a list", {"b": [{"$include": "a.json"}]}, {"a.json": {"x": 1}}, {"b": [{"x": 1}]}),
        ("a file need not hold an object", {"b": {"$include": "a.json"}}, {"a.json": [1]}, {"b": [1]}),
        ("a list is merged in order: objects merge, lists concatenate, of scalars the later wins",
         {"$include": ["a.json", "b.json"]},
         {"a.json": {"o": {"p": 1, "q": 1}, "l": [1], "s": 1}, "b.json": {"o": {"q": 2}, "l": [2], "s": 2}},
         {"o": {"p": 1, "q": 2}, "l": [1, 2], "s": 2}),
        ("keys beside it win", {"s": 2, "o": {"q": 2}, "$include": "a.json"}, {"a.json": {"s": 1, "o": {"p": 1, "q": 1}, "t": 1}},
         {"s": 2, "o": {"p": 1, "q": 2}, "t": 1}),
        ("an included file includes, relative to itself", {"$include": "sub/a.json"},
         {"sub/a.json": {"$include": "../sub/b.json", "x": 1}, "sub/b.json": {"$include": "c.json"}, "sub/c.json": {"y": 2}},
         {"x": 1, "y": 2}),
        ("a full path inside the directory", {"$include": "/claw/sub/../a.json"}, {"a.json": {"x": 1}}, {"x": 1}),
        ("the same file twice is no circle", {"a": {"$include": "a.json"}, "b": {"$include": "a.json"}}, {"a.json": {"x": 1}},
         {"a": {"x": 1}, "b": {"x": 1}}),
        ("ten levels", {"$include": "1.json"}, {**{f"{n}.json": {"$include": f"{n + 1}.json"} for n in range(1, 10)}, "10.json": {"x": 1}},
         {"x": 1}),
    ]
    # (sentence, the config, {file: content or exception}, what is left, the end of the problem)
    BROKEN = [
        ("a missing file", {"a": {"$include": "no.json"}, "b": 1}, {}, {"a": {}, "b": 1}, "/claw/no.json: No such file or directory, left out"),
        ("a missing file among others", {"$include": ["no.json", "a.json"], "b": 1}, {"a.json": {"x": 1}}, {"x": 1, "b": 1},
         "/claw/no.json: No such file or directory, left out"),
        ("a malformed file", {"$include": "a.json", "b": 1}, {"a.json": "{x: SECRET}"}, {"b": 1}, "/claw/a.json:1:5: expected a value, left out"),
        ("an unreadable file", {"$include": "a.json", "b": 1}, {"a.json": PermissionError(13, "Permission denied")}, {"b": 1},
         "/claw/a.json: Permission denied, left out"),
        ("a path that no file can have", {"$include": "a\0.json", "b": 1}, {"a\0.json": ValueError("null byte")}, {"b": 1}, "left out"),
        ("outside the directory", {"$include": "../x.json", "b": 1}, {"../x.json": {"x": 1}}, {"b": 1}, "inside the config's directory, left out"),
        ("outside by a full path", {"$include": "/etc/x.json", "b": 1}, {}, {"b": 1}, "inside the config's directory, left out"),
        ("a neighbour whose name begins alike", {"$include": "/claw2/x.json", "b": 1}, {}, {"b": 1}, "inside the config's directory, left out"),
        ("a number", {"$include": 7, "b": 1}, {}, {"b": 1}, "inside the config's directory, left out"),
        ("itself", {"$include": "openclaw.json", "b": 1}, {}, {"b": 1}, "/claw/openclaw.json includes itself, left out"),
        ("a circle", {"$include": "a.json", "b": 1}, {"a.json": {"$include": "b.json", "x": 1}, "b.json": {"$include": "a.json", "y": 1}},
         {"b": 1, "x": 1, "y": 1}, "/claw/a.json includes itself, left out"),
        ("eleven levels", {"$include": "1.json"}, {f"{n}.json": {"$include": f"{n + 1}.json", "n": n} for n in range(1, 12)},
         {"n": 1}, "/claw/11.json is nested deeper than 10 files, left out"),
        ("a scalar beside other keys", {"$include": "a.json", "b": 1}, {"a.json": 7}, {"b": 1}, None),
    ]

    def load(self, config, files):
        written = {name: content if isinstance(content, (str, Exception)) else json.dumps(content) for name, content in files.items()}
        return load(config, files=written)

    def test_includes_are_resolved(self):
        for sentence, config, files, expected in self.GOOD:
            with self.subTest(sentence):
                openclaw = self.load(config, files)
                self.assertEqual((openclaw.config, openclaw.problems), (expected, []))

    def test_a_broken_include_hides_nothing_else(self):
        for sentence, config, files, expected, problem in self.BROKEN:
            with self.subTest(sentence):
                openclaw = self.load(config, files)
                self.assertEqual(openclaw.config, expected)
                self.assertTrue(not problem or openclaw.problems[-1].endswith(problem), openclaw.problems)
                self.assertNotIn("SECRET", str(openclaw.problems))

    def test_files_that_include_each_other_many_times_over_come_to_an_end(self):
        files = {f"{n}.json": {"$include": [f"{n + 1}.json"] * 10} for n in range(1, 10)}
        openclaw = self.load({"$include": "1.json", "b": 1}, {**files, "10.json": {"x": 1}})
        self.assertEqual(openclaw.config, {"x": 1, "b": 1})
        self.assertIn("comes after 1000 others", openclaw.problems[0])


class Variables(unittest.TestCase):
    def test_they_come_from_the_process_then_dotenv_then_the_config(self):
        config = {"env": {"vars": {"A": "vars", "B": "vars", "C": "vars"}, "D": "env", "shellEnv": {"enabled": True}, "E": 7}}
        openclaw = load(config, {"A": "process", "B": " "}, {".env": "A=file\nB=file"})
        self.assertEqual(openclaw.variables, {"A": "process", "B": "file", "C": "vars", "D": "env"})

    def test_every_way_to_write_a_line_of_dotenv(self):
        text = "\ufeffA=1\r\nexport B=\"two # x\" # c\n  C = 'it is' \n# D=4\nE=five # c\nF=\n\nG=\"open\nH=8\nno line\nI=a=b\nexport\tJ=`x`"
        expected = {"A": "1", "B": "two # x", "C": "it is", "E": "five", "G": '"open', "H": "8", "I": "a=b", "J": "`x`"}
        self.assertEqual(load("{}", files={".env": text}).variables, expected)

    def test_the_state_dir_has_a_dotenv_too_and_it_is_the_stronger(self):
        files = {CONFIG: "{}", "/claw/.env": "A=1\nB=1", "/state/.env": "B=2"}
        self.assertEqual(ops.load_openclaw(CONFIG, {}, reader(files), state_dir="/state").variables, {"A": "1", "B": "2"})

    def test_a_dotenv_that_cannot_be_read_is_one_problem(self):
        for error, problems in [
            (PermissionError(13, "Permission denied"), ["/claw/.env: Permission denied"]),
            (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), ["/claw/.env: not readable as UTF-8 text"]),
            (NotADirectoryError(20, "Not a directory"), []),
        ]:
            openclaw = load({"a": 1}, files={".env": error})
            self.assertEqual((openclaw.config, openclaw.problems), ({"a": 1}, problems))

    def test_they_are_put_into_every_text(self):
        env = {"A": "x", "LOOP": "${A}", "lower_1": "y"}
        for text, expected in [
            ("${A}", "x"), ("a${A}b${A}", "axbx"), ("$${A}", "${A}"), ("${UNSET}", "${UNSET}"), ("$A", "$A"), ("${lower_1}", "y"),
            ("${LOOP}", "${A}"), ("${A", "${A"), ("${}", "${}"), ("${A B}", "${A B}"), ("$${UNSET}", "${UNSET}"),
        ]:
            with self.subTest(text):
                self.assertEqual(load({"k": [{"t": text}]}, env).config, {"k": [{"t": expected}]})

    def test_the_configs_own_may_use_others_and_are_unset_without_them(self):
        config = {"env": {"vars": {"A": "<${OUTER}>", "B": "${UNSET}"}}, "a": "${A}", "b": "${B}"}
        openclaw = load(config, {"OUTER": "x"})
        self.assertEqual((openclaw.config["a"], openclaw.config["b"]), ("<x>", "${B}"))


BOTH = {"tokenFile": "/t/{0}", "botToken": "7:{0}-text"}


def layer(name):
    return {key: text.format(name) for key, text in BOTH.items()}


class TheToken(unittest.TestCase):
    FILES = {"/t/account": " 7:account-file\n", "/t/channel": "7:channel-file", "/claw/t": "7:beside", "/home/ann/t": "7:home"}

    def test_the_strongest_source_that_is_configured_decides(self):
        env = {"TELEGRAM_BOT_TOKEN": "7:environment"}
        config = telegram(**layer("channel"), accounts={"default": layer("account")})
        channel = config["channels"]["telegram"]
        account = channel["accounts"]["default"]
        for holder, key, value, source in [
            (account, "tokenFile", "7:account-file", "channels.telegram.accounts.default.tokenFile"),
            (account, "botToken", "7:account-text", "channels.telegram.accounts.default.botToken"),
            (channel, "tokenFile", "7:channel-file", "channels.telegram.tokenFile"),
            (channel, "botToken", "7:channel-text", "channels.telegram.botToken"),
            (None, None, "7:environment", "TELEGRAM_BOT_TOKEN"),
        ]:
            with self.subTest(source):
                self.assertEqual(token(config, env=env, files=self.FILES), (value, source, None, "default"))
            if holder:
                del holder[key]
        self.assertEqual(token(config), (None, None, None, "default"))

    def test_a_configured_source_that_is_unavailable_stops_the_search(self):
        config = telegram(tokenFile="/t/no", botToken="7:SECRET")
        found = token(config, env={"TELEGRAM_BOT_TOKEN": "7:SECRET"})
        self.assertEqual(found, (None, "channels.telegram.tokenFile", "the file cannot be read: No such file or directory", "default"))

    def test_the_environment_serves_the_default_account_alone(self):
        env = {"TELEGRAM_BOT_TOKEN": "7:env"}
        config = telegram(accounts={"work": {}, "home": {}}, defaultAccount="work")
        self.assertEqual(token(config, "default", env).value, "7:env")
        self.assertEqual(token(config, None, env).value, "7:env")
        self.assertEqual(token(config, "work", env).value, "7:env")
        self.assertEqual(token(config, "home", env).value, None)
        self.assertEqual(token({}, "default", env).value, "7:env")

    def test_the_default_account(self):
        for sentence, settings, expected in [
            ("no accounts", {}, "default"),
            ("the one that is named", {"defaultAccount": "b", "accounts": {"a": {}, "b": {}, "default": {}}}, "b"),
            ("not if there is none of that name", {"defaultAccount": "x", "accounts": {"a": {}, "default": {}}}, "default"),
            ("the first in alphabetical order", {"accounts": {"b": {}, "a": {}}}, "a"),
            ("a name of the wrong type", {"defaultAccount": ["a"], "accounts": {"a": {}}}, "a"),
            ("accounts of the wrong type", {"accounts": ["a"]}, "default"),
        ]:
            with self.subTest(sentence):
                self.assertEqual(token(telegram(**settings)).account, expected)

    def test_an_account_that_is_not_there_has_no_token(self):
        found = token(telegram(botToken="7:x", accounts={"a": {}}), "b")
        self.assertEqual(found, (None, "channels.telegram.accounts.b", "there is no such account", "b"))

    def test_what_is_switched_off_has_no_token(self):
        on, off = {"botToken": "7:x", "enabled": True}, {"botToken": "7:x", "enabled": False}
        for config, where in [(telegram(**off), "channels.telegram.enabled"),
                              (telegram(**off, accounts={"default": on}), "channels.telegram.enabled"),
                              (telegram(**on, accounts={"default": off}), "channels.telegram.accounts.default.enabled")]:
            found = token(config, env={"TELEGRAM_BOT_TOKEN": "7:x"})
            self.assertEqual((found.value, found.source), (None, where))
            self.assertIn("enabled: false", found.problem)

    def test_a_token_file_is_trimmed_and_found_beside_the_config_or_at_home(self):
        env = {"HOME": HOME, "WHERE": "/t"}
        for path, expected in [("/t/account", "7:account-file"), ("t", "7:beside"), ("~/t", "7:home"), ("${WHERE}/channel", "7:channel-file")]:
            self.assertEqual(token(telegram(tokenFile=path), env=env, files=self.FILES).value, expected, path)

    # (sentence, botToken, value or None, part of the problem)
    TEXTS = [
        ("a text", " 7:abc ", "7:abc", None),
        ("${VAR}", "${T}", "7:var", None),
        ("$VAR", " $T ", "7:var", None),
        ("an unset ${VAR}", "${NO}", None, "a variable is not set: ${NO}"),
        ("an unset $VAR", "$NO", None, "a variable is not set: ${NO}"),
        ("an unset ${VAR} inside", "7:SECRET${NO}", None, "a variable is not set: ${NO}"),
        ("a literal ${VAR}", "$${T}", None, "a variable is not set: ${T}"),
        ("a variable that is blank", "$BLANK", None, "not set"),
        ("a redacted placeholder", "__OPENCLAW_REDACTED__", None, "redacted"),
        ("stars", "***", None, "redacted"),
        ("more stars", " ******** ", None, "redacted"),
        ("a placeholder from a variable", "$STARS", None, "redacted"),
        ("two words", "7:SECRET x", None, "not a token"),
        ("a line break", "7:SECRET\n7:SECRET", None, "not a token"),
        ("letters beyond ASCII", "7:SECRETé", None, "not a token"),
        ("a number", 777, None, "there is no text in it"),
        ("a list", ["7:SECRET"], None, "there is no text in it"),
        ("a reference to the environment", {"source": "env", "provider": "default", "id": "T"}, "7:var", None),
        ("... of a config's variable", {"source": "env", "id": "OWN"}, "7:own", None),
        ("... that is not set", {"source": "env", "provider": "default", "id": "NO"}, None, "a variable is not set: ${NO}"),
        ("... with a strange name", {"source": "env", "id": ["T"]}, None, "a variable is not set"),
        ("a reference to JSON", {"source": "file", "provider": "json", "id": "/channels/telegram/token"}, "7:json", None),
        ("... with a pointer's escapes and a list", {"source": "file", "provider": "json", "id": "/a~1b~0/1"}, "7:list", None),
        ("... that leads nowhere", {"source": "file", "provider": "json", "id": "/no/9"}, None, "there is no text in it"),
        ("... to an object", {"source": "file", "provider": "json", "id": "/channels"}, None, "there is no text in it"),
        ("a reference to a file of one value", {"source": "file", "provider": "single", "id": "value"}, "7:single", None),
        ("a file that is not JSON", {"source": "file", "provider": "torn", "id": "/a"}, None, "the secret file is not JSON"),
        ("a file that is missing", {"source": "file", "provider": "gone", "id": "/a"}, None, "No such file or directory"),
        ("a file that is not text", {"source": "file", "provider": "bytes", "id": "/a"}, None, "not readable as UTF-8 text"),
        ("a file that is refused", {"source": "file", "provider": "link", "id": "/a"}, None, "a symlink"),
        ("a provider without a path", {"source": "file", "provider": "pathless", "id": "/a"}, None, "there is no text in it"),
        ("an unknown provider", {"source": "file", "provider": "no", "id": "/a"}, None, "the secret provider no is not configured"),
        ("a provider of the wrong type", {"source": "file", "provider": {"a": 1}, "id": "/a"}, None, "is not configured"),
        ("a reference by exec", {"source": "exec", "provider": "vault", "id": "x"}, None, "secret reference by exec: only openclaw can read it"),
        ("a reference to the store", {"source": "store", "id": "x"}, None, "secret reference by store: only openclaw can read it"),
        ("a reference of no kind", {"a": 1}, None, "only openclaw can read it"),
    ]
    PROVIDERS = {"json": {"source": "file", "path": "/p/json", "mode": "json"}, "single": {"path": "/p/single", "mode": "singleValue"},
                 "torn": {"path": "/p/torn"}, "gone": {"path": "/p/gone"}, "link": {"path": "/p/link"}, "pathless": {"mode": "json"}, "bytes": {"path": "/p/bytes"}}
    SECRETS = {"/p/json": '{"channels": {"telegram": {"token": "7:json"}}, "a/b~": [0, "7:list"]}', "/p/single": "7:single\n",
               "/p/torn": "SECRET", "/p/bytes": UnicodeDecodeError("utf-8", b"SECRET\xff", 6, 7, "invalid"), "/p/link": OSError("a symlink")}

    def test_every_way_to_write_a_token(self):
        env = {"T": "7:var", "STARS": "***", "BLANK": " "}
        for sentence, written, value, problem in self.TEXTS:
            with self.subTest(sentence):
                config = {**telegram(botToken=written), "secrets": {"providers": self.PROVIDERS}, "env": {"vars": {"OWN": "7:own"}}}
                found = token(config, env={**env, "TELEGRAM_BOT_TOKEN": "7:never"}, files=self.SECRETS)
                self.assertEqual((found.value, found.source), (value, "channels.telegram.botToken"))
                self.assertIn(problem or "", found.problem or "")
                self.assertEqual(found.problem is None, value is not None)
                self.assertNotIn("SECRET", str(found))

    def test_what_is_blank_is_not_configured(self):
        for text in (*UNSET, None):
            self.assertEqual(token(telegram(tokenFile=text, botToken=text)), (None, None, None, "default"))
            self.assertEqual(token(telegram(tokenFile=text, botToken="7:x")).value, "7:x")


class TheTarget(unittest.TestCase):
    def test_every_way_to_write_an_id(self):
        for text, expected in [
            ("777000111", ("777000111", None)), (777000111, ("777000111", None)), ("-100123", ("-100123", None)), (-100123, ("-100123", None)),
            ("@name_1", ("@name_1", None)), ("telegram:777", ("777", None)), ("tg:telegram: TG:777 ", ("777", None)), ("telegram:@name", ("@name", None)),
            ("-100123:topic:7", ("-100123", 7)), ("-100123:7", ("-100123", 7)), ("telegram:-100123:topic:7", ("-100123", 7)),
            ("-100123:topic:1", ("-100123", None)), ("-100123:1", ("-100123", None)), ("-100123:0", ("-100123", None)),
            ("*", None), ("telegram:*", None), ("", None), (" ", None), ("telegram:", None), ("discord:777", None), ("+49170", None), ("0", None), ("-", None),
            ("777:topic:x", None), ("777 888", None), ("@", None), ("٣", None), ("9" * 5000, None), (10**400, None), (7.5, None),
            (True, None), (None, None), (["777"], None), ({"id": 777}, None),
        ]:
            with self.subTest(str(text)[:30]):
                self.assertEqual(ops.parse_target(text), expected)

    def test_the_first_source_that_gives_someone_decides(self):
        config = {
            **telegram(defaultTo="-4", allowFrom=["*", 6], accounts={"default": {"defaultTo": "@three", "allowFrom": ["tg:5"]}}),
            "agents": {"list": [{"id": "main", "heartbeat": {"target": "telegram", "to": "-1:topic:9"}}]},
            "commands": {"ownerAllowFrom": ["*", "discord:11", "telegram:2"]},
        }
        channel = config["channels"]["telegram"]
        account = channel["accounts"]["default"]
        for holder, key, expected in [
            (config, "agents", ("-1", 9, "heartbeat.to of agent main")),
            (config, "commands", ("2", None, "commands.ownerAllowFrom")),
            (account, "defaultTo", ("@three", None, "channels.telegram.accounts.default.defaultTo")),
            (channel, "defaultTo", ("-4", None, "channels.telegram.defaultTo")),
            (account, "allowFrom", ("5", None, "channels.telegram.accounts.default.allowFrom")),
            (channel, "allowFrom", ("6", None, "channels.telegram.allowFrom")),
        ]:
            with self.subTest(key):
                self.assertEqual(ops.find_target(load(config), None), expected)
            del holder[key]
        self.assertIsNone(ops.find_target(load(config), None))

    def test_the_heartbeat_of_agent_main_is_merged_over_the_defaults(self):
        telegram_to = {"target": "telegram", "to": 7}
        for sentence, agents, expected in [
            ("the defaults alone", {"defaults": {"heartbeat": telegram_to}}, "7"),
            ("the new form", {"entries": {"main": {"heartbeat": telegram_to}}}, "7"),
            ("the old form", {"list": [{"id": "other"}, {"id": "main", "heartbeat": telegram_to}]}, "7"),
            ("half from each", {"defaults": {"heartbeat": {"target": "telegram", "to": 1}}, "list": [{"id": "main", "heartbeat": {"to": 8}}]}, "8"),
            ("the new form is the stronger", {"list": [{"id": "main", "heartbeat": telegram_to}], "entries": {"main": {"heartbeat": {"to": 9}}}}, "9"),
            ("main speaks elsewhere", {"defaults": {"heartbeat": telegram_to}, "entries": {"main": {"heartbeat": {"target": "discord"}}}}, None),
            ("the target is the last channel used", {"defaults": {"heartbeat": {"target": "last", "to": 7}}}, None),
            ("no target", {"defaults": {"heartbeat": {"to": 7}}}, None),
            ("nobody named", {"defaults": {"heartbeat": {"target": "telegram"}}}, None),
            ("another agent", {"entries": {"work": {"heartbeat": telegram_to}}}, None),
        ]:
            with self.subTest(sentence):
                found = ops.find_target(load({"agents": agents}), None)
                self.assertEqual(found and found.chat, expected)

    def test_a_group_or_everyone_is_never_chosen_from_a_list_of_people(self):
        everyone = ["*", "telegram:*", "-100123", -100123, "@name", "discord:1", "whatsapp:+1", "123456789012345678", 2**52, None, True, {}, []]
        self.assertIsNone(ops.find_target(load({**telegram(allowFrom=everyone, groups={"-5": {}}), "commands": {"ownerAllowFrom": everyone}}), None))
        self.assertEqual(ops.find_target(load(telegram(allowFrom=[*everyone, 2**52 - 1])), None).chat, "4503599627370495")

    def test_an_account_has_its_own(self):
        config = load(telegram(defaultTo=1, accounts={"a": {"defaultTo": 2}, "b": {"defaultTo": 3}}))
        self.assertEqual([ops.find_target(config, name).chat for name in (None, "a", "b", "c")], ["2", "2", "3", "1"])


class TheWay(unittest.TestCase):
    def test_the_api_root(self):
        for written, expected in [
            (None, "https://api.telegram.org"), (" ", "https://api.telegram.org"), (7, "https://api.telegram.org"),
            (" http://127.0.0.1:8081 ", "http://127.0.0.1:8081"), ("https://x.example/", "https://x.example"), ("https://x.example//", "https://x.example"),
            ("https://x.example/bot777:AbC-d_e", "https://x.example"), ("https://x.example/tg/bot777:AbC/", "https://x.example/tg"),
            ("https://x.example/botapi", "https://x.example/botapi"), ("https://x.example/robot7:x/y", "https://x.example/robot7:x/y"),
        ]:
            with self.subTest(written):
                self.assertEqual(ops.find_api(load(telegram(apiRoot=written)), None), (expected, None))

    def test_the_accounts_values_come_before_the_channels(self):
        config = load(telegram(apiRoot="http://c", proxy=" http://p:1 ", accounts={"a": {"apiRoot": "http://a", "proxy": " "}}))
        self.assertEqual(ops.find_api(config, None), ("http://a", "http://p:1"))
        self.assertEqual(ops.find_api(config, "b"), ("http://c", "http://p:1"))


class Walks(unittest.TestCase):
    WHOLE = {
        "env": {"vars": {"A": "1"}, "B": "2"},
        "gateway": {"port": 1},
        "secrets": {"providers": {"p": {"path": "/p", "mode": "json"}}},
        "commands": {"ownerAllowFrom": ["telegram:2"]},
        "agents": {"defaults": {"heartbeat": {"target": "telegram"}}, "list": [{"id": "main", "heartbeat": {"to": 1}}], "entries": {"main": {}}},
        "channels": {"telegram": {
            "enabled": True, "defaultAccount": "a", "tokenFile": "/t", "botToken": "$A", "allowFrom": [1], "defaultTo": 2, "apiRoot": "http://x",
            "accounts": {"a": {"botToken": {"source": "file", "provider": "p", "id": "/x/0"}, "allowFrom": ["3"]}},
        }},
    }
    ODD = [None, True, 0, -1, 1.5, 10**30, "", "x", "$A", "${A}", "***", "\0", [], [[]], ["x", 1], {}, {"a": {}}, {"$include": "a"}, {"$include": [[], "b"]},
           {"source": "env", "id": {}}, {"source": ["file"], "provider": [], "id": None}, {"source": "file", "provider": "p", "id": 0}]

    def with_oddities(self, rng, value):
        if rng.random() < 0.12:
            return rng.choice(self.ODD)
        if isinstance(value, dict):
            return {key: self.with_oddities(rng, item) for key, item in value.items() if rng.random() > 0.1}
        return [self.with_oddities(rng, item) for item in value] if isinstance(value, list) else value

    def test_wrong_types_anywhere_break_nothing(self):
        for seed in range(1500):
            rng = random.Random(seed)
            config = self.with_oddities(rng, self.WHOLE)
            files = {"a": json.dumps(rng.choice(self.ODD[:17])), "b": "{", ".env": rng.choice(["A=1", "\0=", "=", '"'])}
            with self.subTest(seed=seed, config=config):
                openclaw = load(config, {"HOME": HOME}, files)
                self.assertIsInstance(openclaw.config, dict)
                self.assertTrue(all(isinstance(text, str) for text in [*openclaw.variables.values(), *openclaw.problems]))
                for account in (None, "a", "default", "no"):
                    found = token(openclaw, account, files={"/p": '{"x": ["7:x"]}', "/t": "7:t"})
                    self.assertFalse(found.value and found.problem)
                    target = ops.find_target(openclaw, account)
                    self.assertTrue(target is None or isinstance(target.chat, str))
                    self.assertIsInstance(ops.find_api(openclaw, account).root, str)


if __name__ == "__main__":
    unittest.main()
