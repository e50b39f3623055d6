"""init and schedule: from one file anywhere to a scheduler that calls it, and the README's way there.

The texts for systemd, launchd and cron are read back by the rules of each; what they call is then really
called.  `crontab`, `systemctl`, `loginctl` and `launchctl` are programs of this test that keep what they
are told in a directory: no test touches the crontab or the units of whoever runs it.
"""

import ast
import json
import os
import plistlib
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

from tests import NOON, ROOT, SCRIPT, ops
from tests.botapi import OWNER, TOKEN, BotApi
from tests.test_engine import DIED, MARK, Installation

ODD = ["plain", "with blanks", "it's", 'a "quote"', "100% of %h and \\%", "$HOME ${X} $$", "back\\slash \\\\ end\\", "!x `id` #;&|", "用户 é 🛠️", "~"]

FAKES = {
    "crontab": """case $1 in
    -l) [ -e table ] && exec cat table; echo "no crontab for somebody" >&2; exit 1 ;;
    -) cat > table.new && mv table.new table ;;
esac""",
    "systemctl": ":",
    "loginctl": "cat linger 2>/dev/null || echo Linger=no",
    "launchctl": '[ "$1" = print ] && exec test -e loaded; [ "$1" = bootstrap ] && : > loaded; [ "$1" = bootout ] && rm -f loaded; :',
}
# Each notes its call, and fails if a line of the file `fails` is in it.
FAKE = """#!/bin/sh
cd "{place}" || exit 9
echo "{name} $*" >> calls
while read -r word; do case "{name} $*" in *"$word"*) echo "{name} says no" >&2; exit 1 ;; esac; done < fails
{body}
"""


def last(answer):
    """The last line that a call printed."""
    return answer.out.rstrip("\n").split("\n")[-1]


class NewUser(Installation):
    """A home with nothing in it, the script copied alone somewhere else, and schedulers of its own."""

    def __init__(self, test, name="home"):
        self.test, self.calls = test, 0
        self.root = os.path.realpath(tempfile.mkdtemp(prefix="ops-setup-"))
        test.addCleanup(self.clear_away)
        self.home, self.fakes, self.bin = (os.path.join(self.root, part) for part in (name, "fakes", "bin"))
        for place in (self.home, self.fakes, self.bin):
            os.mkdir(place, 0o700)
        self.script = shutil.copy(SCRIPT, os.path.join(self.root, "copied.py"))
        for program, body in FAKES.items():
            self.write(os.path.join(self.bin, program), FAKE.format(place=self.fakes, name=program, body=body), 0o755)
        os.symlink(sys.executable, os.path.join(self.bin, "python3"))
        self.fails("show-environment")  # no user manager of systemd
        self.env = {"HOME": self.home, "PATH": f"{self.bin}:/usr/bin:/bin", "TMPDIR": self.root, "LANG": "C.UTF-8", "TZ": NOON, MARK: self.root}

    def call(self, *argv, script="", **env):
        """A call of the script at `script`; a forked child of this process, so that nothing is compiled again."""
        usual = self.env
        self.env = {**usual, **env}
        try:
            return super().call(*argv, bend=lambda: setattr(ops, "__file__", script or self.script))
        finally:
            self.env = usual

    @property
    def ours(self):
        return os.path.join(self.home, ".openclaw", "net")

    @property
    def installed(self):
        return os.path.join(self.ours, "tools", "ops-monitor.py")

    @property
    def shown(self):
        """The installed script as advice names it."""
        return "~/" + ops.shell_word(os.path.relpath(self.installed, self.home))

    @property
    def config_file(self):
        return os.path.join(self.ours, "config", "ops-jobs.json")

    @property
    def state_file(self):
        return os.path.join(self.ours, "state", "ops-monitor.json")

    @property
    def name(self):
        """What an installation outside the account's usual place is called."""
        return "ops-monitor-" + ops.digest_of(os.path.realpath(self.state_file))[:8]

    def write(self, path, text, mode=0o600):
        with open(os.path.join(self.fakes, path), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode("utf-8"))
        os.chmod(os.path.join(self.fakes, path), mode)

    def bytes_of(self, path):
        try:
            with open(os.path.join(self.fakes, path), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def fails(self, *words):
        """Calls of the schedulers' programs that hold one of these fail from now on."""
        self.write("fails", "".join(word + "\n" for word in words))

    def noted(self):
        """What the schedulers were told since this was asked last."""
        lines = self.bytes_of("calls").decode().splitlines()
        self.write("calls", "")
        return [line for line in lines if not re.search(r" -l$| print | show-", line)]

    def tree(self):
        """Every file of the home with its content."""
        return {os.path.join(place, name): self.bytes_of(os.path.join(place, name)) for place, _, files in os.walk(self.home) for name in files}


# ---- the words of the schedulers


def stub(test, name, stem="ops-monitor"):
    """A script in a directory with this name that prints how it was called."""
    root = os.path.realpath(tempfile.mkdtemp(prefix="ops-setup-"))
    test.addCleanup(shutil.rmtree, root, True)
    directory = os.path.join(root, name)
    os.mkdir(directory)
    path = os.path.join(directory, stem + ".py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            "import json, os, sys\ndef run_and_exit(argv):\n    print(json.dumps([argv, os.environ.get('A'), os.environ.get('B')]))\n"
            "if __name__ == '__main__':\n    run_and_exit(sys.argv[1:])\n"
        )
    return path


def run(argv, **more):
    found = subprocess.run(argv, stdout=subprocess.PIPE, cwd="/", env={"PATH": "/usr/bin:/bin", **more}, timeout=60, check=True)
    return json.loads(found.stdout)


def systemd_words(text):
    """The words of a unit file's line, by systemd.syntax(7) and systemd.unit(5): quotes, C escapes, specifiers."""
    words = []
    for found in re.finditer(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s'"]+))(?=\s|$)""", text):
        word = next(part for part in found.groups() if part is not None)
        word = re.sub(r"\\(.)", r"\1", word)
        assert not re.search(r"%(?!%)", word.replace("%%", "")), word
        words.append(word.replace("%%", "%"))
    return words


def cron_command(line, halves):
    """What cron gives to /bin/sh: cron(8) makes `%` of `\\%`; some crons also make one backslash of two."""
    command = line.split(None, 5)[5]
    command = re.sub(r"\\([%\\])" if halves else r"\\(%)", r"\1", command) if "\\" in command else command
    return command


def minutes_of(fields):
    """The minutes of the day at which five fields of cron come true."""

    def grid(field, size):
        first, _, step = field.partition("/")
        return range(0, size, int(step or 1)) if first == "*" else [int(first)]

    minute, hour, *rest = fields.split()
    assert rest == ["*", "*", "*"]
    return [h * 60 + m for h in grid(hour, 24) for m in grid(minute, 60)]


class TheWordsOfTheSchedulers(unittest.TestCase):
    def calling(self, path, name, words=("tick",), every=60):
        return ops.Calling("ops-monitor", ops.tick_argv(sys.executable, path, list(words)), {"A": name, "B": "b"}, every)

    def test_a_python_word_means_its_text_and_holds_nothing_that_others_read(self):
        for text in (*ODD, "\n\0\x7f", "\udcff"):
            word = ops.python_word(text)
            self.assertEqual(ast.literal_eval(word), text)
            self.assertNotRegex(word[1:-1], "['\"%$\n]")

    def test_the_command_runs_the_script_as_a_module_wherever_it_is(self):
        for name in ODD:
            with self.subTest(name):
                argv = ops.tick_argv(sys.executable, stub(self, name), ["tick", "--state-file", name])
                self.assertEqual(argv[1:4], ["-I", "-S", "-c"])
                self.assertEqual(run(argv)[0], ["tick", "--state-file", name])

    def test_a_name_that_no_module_can_have_is_run_as_a_script(self):
        path = stub(self, "x", "ops-monitor.v2")
        argv = ops.tick_argv(sys.executable, path, ["tick"])
        self.assertEqual((argv[3], run(argv)[0]), (path, ["tick"]))

    def test_systemd_reads_the_command_and_the_environment_as_they_were(self):
        for name in ODD:
            with self.subTest(name):
                calling = self.calling(stub(self, name), name)
                units = ops.systemd_units(calling)
                self.assertEqual(list(units), ["ops-monitor.service", "ops-monitor.timer"])
                service = units["ops-monitor.service"]
                command = re.search("(?m)^ExecStart=(.*)$", service)[1]
                argv = [word.replace("$$", "$") for word in systemd_words(command)]
                self.assertNotRegex(command.replace("$$", ""), r"\$")
                self.assertEqual([word for word in argv if word != "/usr/bin/env"], calling.argv)
                env = [systemd_words(line) for line in re.findall("(?m)^Environment=(.*)$", service)]
                self.assertEqual(env, [["A=" + name], ["B=b"]])
                self.assertEqual(run(argv)[0], ["tick"])

    def test_systemd_gets_no_program_with_an_odd_name(self):
        for program, begin in (("/usr/bin/python3", "/usr/bin/python3"), ("/o'p/python3", "/usr/bin/env"), ("/a b/$x%", "/usr/bin/env '/a b/$$x%%' -c")):
            unit = ops.systemd_units(ops.Calling("x", [program, "-c"], {}, 60))["x.service"]
            self.assertIn(f"\nExecStart={begin}", unit)

    def test_what_keeps_jobs_alive_is_in_the_units(self):
        units = ops.systemd_units(self.calling("/x/ops-monitor.py", "a", every=90.0))
        for line in ("Type=oneshot", "KillMode=process", "TimeoutStartSec=infinity"):
            self.assertIn(f"\n{line}\n", units["ops-monitor.service"])
        for line in ("OnActiveSec=1", "OnUnitActiveSec=90", "WantedBy=timers.target"):
            self.assertIn(f"\n{line}\n", units["ops-monitor.timer"])

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    def test_systemd_itself_finds_nothing_wrong(self):
        for name in ODD:
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                path = stub(self, name)
                python = os.path.join(os.path.dirname(path), "py " + name)
                os.symlink(sys.executable, python)
                calling = self.calling(path, name)
                paths = []
                for argv in (calling.argv, [python, *calling.argv[1:]]):
                    for unit, text in ops.systemd_units(calling._replace(name=f"ops-{len(paths)}", argv=argv)).items():
                        paths.append(os.path.join(folder, unit))
                        with open(paths[-1], "w", encoding="utf-8") as file:
                            file.write(text)
                env = {**os.environ, "XDG_RUNTIME_DIR": folder, "HOME": folder}
                argv = ["systemd-analyze", "verify", "--user", *paths]
                found = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=60, check=False)
                self.assertEqual((found.returncode, found.stdout + found.stderr), (0, ""))

    def test_launchd_reads_a_property_list(self):
        for name in ODD:
            calling = self.calling(stub(self, name), name, every=90.0)
            (path, data), = ops.files_of("launchd", calling, "/home/me").items()
            self.assertEqual(path, "/home/me/Library/LaunchAgents/local.ops-monitor.plist")
            read = plistlib.loads(data)
            self.assertEqual(read["ProgramArguments"], calling.argv)
            self.assertEqual(read["EnvironmentVariables"], {"A": name, "B": "b"})
            self.assertEqual((read["Label"], read["StartInterval"]), ("local.ops-monitor", 90))
            self.assertIs(type(read["StartInterval"]), int)
            self.assertTrue(read["AbandonProcessGroup"] and read["RunAtLoad"])
            self.assertEqual(read["ProcessType"], "Background")
        self.assertNotIn("EnvironmentVariables", ops.launchd_settings(ops.Calling("x", ["y"], {}, 60)))

    def test_cron_and_its_shell_read_the_command_and_the_environment_as_they_were(self):
        for name in ODD:
            for halves in (False, True):
                with self.subTest(name, halves=halves):
                    calling = self.calling(stub(self, name), name, ["tick", "--config-file", name])
                    comment, line, rest = ops.cron_lines(calling).split("\n")
                    self.assertEqual((comment[0], line[:10], rest), ("#", "* * * * * ", ""))
                    self.assertNotRegex(line, r"(?<!\\)%")
                    self.assertEqual(run(["/bin/sh", "-c", cron_command(line, halves)]), [["tick", "--config-file", name], name, "b"])

    def test_what_is_written_is_found_again_by_doctor(self):
        for name in ODD:
            path, words = f"/x/{name}/own-name.py", ["tick", "--state-file", f"/s/{name}.json"]
            calling = ops.Calling("ops-monitor", ops.tick_argv("/usr/bin/python3", path, words), {"HOME": f"/h/{name}"}, 60)
            units = {unit: ("/u/" + unit, text) for unit, text in ops.systemd_units(calling).items()}
            (_, plist), = ops.files_of("launchd", calling, "/h").items()
            for entries in (
                ops.crontab_entries(ops.cron_lines(calling), "crontab -l", False),
                ops.systemd_entries("systemctl --user", "/h", units, set(units)),
                ops.launchd_entries(plistlib.loads(plist), "/l.plist", ""),
            ):
                (entry,) = entries
                with self.subTest(name, kind=entry.kind):
                    self.assertEqual((entry.problems, entry.period, entry.env), ((), 60.0, calling.env))
                    self.assertEqual((entry.call.python, entry.call.script, entry.call.options), ("/usr/bin/python3", path, words[1:]))

    def test_without_an_environment_cron_calls_python_itself(self):
        calling = self.calling("/x/ops-monitor.py", "a")._replace(env={})
        self.assertTrue(ops.cron_lines(calling).split("\n")[1].startswith(f"* * * * * {sys.executable} -I -S -c 'import sys; "))

    def test_what_cron_is_told_is_what_was_asked_for(self):
        self.assertEqual(len(ops.CRON_GRID), 19)
        for seconds, fields in ops.CRON_GRID.items():
            minutes = minutes_of(fields)
            gaps = {later - sooner for sooner, later in zip(minutes, [*minutes[1:], minutes[0] + 1440])}
            self.assertEqual(gaps, {seconds / 60}, fields)


class TheCrontabKeepsWhatIsNotOurs(unittest.TestCase):
    OURS = b"# ops-monitor: new\n0 0 * * * tick new\n"
    OLD = b"# ops-monitor: old words\n* * * * * tick old\n"
    OTHER = b"# ops-monitor-1a2b3c4d: another installation\n* * * * * tick other\n"

    def test_each_line_of_others_stays_byte_for_byte(self):
        ours, old, other = self.OURS, self.OLD, self.OTHER
        for words, before, installed, removed in (
            ("an empty one", b"", ours, b""),
            ("the end is where ours goes", b"A=1\n", b"A=1\n" + ours, b"A=1\n"),
            ("a last line without its end gets one", b"A=1", b"A=1\n" + ours, b"A=1"),
            ("carriage returns", b"A=1\r\n# x\r\n", b"A=1\r\n# x\r\n" + ours, b"A=1\r\n# x\r\n"),
            ("no text at all", b"\xff\xfe \x00\r \x0b\x0c\x85\n\n", b"\xff\xfe \x00\r \x0b\x0c\x85\n\n" + ours, b"\xff\xfe \x00\r \x0b\x0c\x85\n\n"),
            ("ours where it stood", b"A=1\n" + old + b"B=2", b"A=1\n" + ours + b"B=2", b"A=1\nB=2"),
            ("ours alone", old, ours, b""),
            ("ours without the last end", old[:-1], ours, b""),
            ("another installation", other + old, other + ours, other),
            ("another one below", old + other, ours + other, other),
            ("ours twice becomes once", old + b"x\n" + old, ours + b"x\n", b"x\n"),
            ("a line that slipped in between", b"# ops-monitor: old\nB=2\n * tick\n", ours + b"B=2\n * tick\n", b"B=2\n * tick\n"),
            ("ours switched off", b"# ops-monitor: old\n#* * * * * tick\n", ours, b""),
            ("what only looks like ours", b"#ops-monitor: x\n * tick\n# ops-monitor\n", b"#ops-monitor: x\n * tick\n# ops-monitor\n" + ours, None),
        ):
            with self.subTest(words):
                self.assertEqual(ops.merge_crontab(before, "ops-monitor", ours), installed)
                self.assertEqual(ops.merge_crontab(before, "ops-monitor", b""), before if removed is None else removed)
                self.assertEqual(ops.merge_crontab(installed, "ops-monitor", ours), installed, "once more changes nothing")

    def test_the_lines_are_known_again(self):
        calling = ops.Calling("ops-monitor", ["python3", "-c", 'x.run_and_exit(["tick"])'], {}, 60)
        lines = ops.cron_lines(calling).encode()
        self.assertEqual(ops.merge_crontab(b"A=1\n" + lines + b"B=2\n", "ops-monitor", b""), b"A=1\nB=2\n")


# ---- init


class Init(unittest.TestCase):
    def is_refused(self, answer, *words, code=2):
        self.assertEqual(answer.code, code, answer)
        self.assertRegex(answer.err, r"\Aerror: [^\n]+\nhelp: [^\n]+\n\Z")
        for word in words:
            self.assertIn(word, answer.err)

    def test_an_empty_home_gets_everything_and_each_path_is_real(self):
        user = NewUser(self)
        answer = user.call("init", PYTHONPATH="/nowhere")
        self.assertEqual((answer.code, answer.err), (0, ""))
        for place in ("", "tools", "config", "state"):
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(user.ours, place)).st_mode), 0o700)
        for path in (user.installed, user.config_file):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(user.bytes_of(user.installed), user.bytes_of(SCRIPT))
        for path in re.findall(r"(?m)^made: (.*)$", answer.out):
            self.assertTrue(os.path.exists(path), path)
        self.assertEqual(len(re.findall("(?m)^made: ", answer.out)), 5)
        self.assertEqual(last(answer), f"next: python3 {user.shown} validate-config")

    def test_the_umask_changes_nothing(self):
        user = NewUser(self)
        script = f"umask 0; exec '{sys.executable}' '{user.script}' init"
        subprocess.run(["/bin/sh", "-c", script], env=user.env, stdout=subprocess.DEVNULL, check=True, timeout=60)
        for place, directories, files in os.walk(os.path.join(user.home, ".openclaw")):
            self.assertEqual({stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode) for name in directories}, {0o700} if directories else set())
            self.assertEqual({stat.S_IMODE(os.stat(os.path.join(place, name)).st_mode) for name in files}, {0o600} if files else set())

    def test_a_disk_that_is_full_is_named_by_the_file_that_could_not_be_written(self):
        user = NewUser(self)
        script = f"ulimit -f 8; exec '{sys.executable}' '{user.script}' init"  # the config fits, the script does not
        ran = subprocess.run(["/bin/sh", "-c", script], env=user.env, capture_output=True, text=True, timeout=60)
        place = os.path.dirname(user.installed)
        self.assertEqual((ran.returncode, ran.stderr), (74, f"error: cannot use {user.installed}: file too large\nhelp: ls -ld {place}\n"))
        self.assertEqual((os.path.exists(user.config_file), os.listdir(place)), (True, []))

    def test_a_second_init_changes_nothing_and_says_what_is_there(self):
        user = NewUser(self)
        user.call("init")
        user.write(user.config_file, '{"version": 1, "jobs": []} // mine\n')
        before = user.tree()
        for script in (user.script, user.installed):
            answer = user.call("init", script=script)
            self.assertEqual((answer.code, answer.err, user.tree()), (0, "", before))
            self.assertEqual(answer.out.count("there already, left as it is: "), 2)
            self.assertEqual(last(answer), f"next: python3 {user.shown} validate-config")

    def test_another_script_stays_until_upgrade_and_then_lies_beside_it(self):
        user = NewUser(self)
        user.call("init")
        user.write(user.installed, b"# an older one\n", 0o755)
        before = user.tree()
        answer = user.call("init")
        self.assertEqual((answer.code, user.tree()), (0, before))
        self.assertIn(f"not the same as this script, left as it is: {user.installed}\n", answer.out)
        self.assertEqual(last(answer), f"next: python3 {user.script} init --upgrade")
        answer = user.call("init", "--upgrade")
        old = re.search(r"(?m)^replaced: (.*); the old one: (.*)$", answer.out)
        self.assertEqual(old[1], user.installed)
        self.assertEqual((user.bytes_of(old[2]), user.bytes_of(user.installed)), (b"# an older one\n", user.bytes_of(SCRIPT)))
        self.assertEqual(stat.S_IMODE(os.stat(user.installed).st_mode), 0o755, "who calls it without naming Python still can")
        self.assertEqual(user.tree(), {**before, user.installed: user.bytes_of(SCRIPT), old[2]: b"# an older one\n"})
        self.assertEqual(user.call("init", "--upgrade", script=user.installed).out.count("there already"), 2)

    def test_what_is_no_file_of_ours_is_not_replaced(self):
        user = NewUser(self)
        os.makedirs(os.path.dirname(user.config_file))
        os.symlink("/nonexistent/jobs.json", user.config_file)
        answer = user.call("init")
        self.assertEqual(os.readlink(user.config_file), "/nonexistent/jobs.json")
        self.assertIn(f"left as it is: {user.config_file}", answer.out)
        user = NewUser(self)
        user.write(os.path.join(user.home, ".openclaw"), "a file")
        self.is_refused(user.call("init"), user.home, code=74)
        user = NewUser(self)
        os.makedirs(user.installed)
        self.is_refused(user.call("init", "--upgrade"), user.installed, "is a directory", code=74)

    def test_the_variables_and_the_options_say_where(self):
        user = NewUser(self, "ho me")
        there = os.path.join(user.root, "there")
        answer = user.call("init", OPENCLAW_HOME=there)
        self.assertEqual(sorted(os.listdir(os.path.join(there, "net"))), ["config", "state", "tools"])
        self.assertIn(f"{there}/net/tools/ops-monitor.py validate-config", last(answer))
        self.assertEqual(os.listdir(user.home), [])
        config, state = os.path.join(user.root, "c d", "jobs.json"), os.path.join(user.root, "s", "state.json")
        answer = user.call("init", "--config-file", config, "--state-file", state)
        words = f"python3 {user.shown} validate-config --config-file '{config}' --state-file {state}"
        self.assertEqual((answer.code, last(answer)), (0, "next: " + words))
        self.assertTrue(os.path.isfile(config) and os.path.isdir(os.path.dirname(state)))
        found = subprocess.run(["/bin/sh", "-c", words], env=user.env, capture_output=True, timeout=60, check=False)
        self.assertEqual((found.returncode, found.stdout), (0, b"OK: version=1 jobs=2\n"), found.stderr)

    def test_it_can_be_killed_before_each_step_and_done_again(self):
        steps = 1
        while True:
            home = Installation(self)
            shutil.rmtree(home.path("net"))
            if home.call("init", die_before=steps).code != DIED:
                break
            steps += 1
            for path in filter(os.path.exists, (home.path("net", "tools", "ops-monitor.py"), home.config_path)):
                with open(path, "rb") as file:
                    self.assertTrue(file.read().endswith((b"    run_and_exit()\n", b"    }\n  ]\n}\n")), "never half")
            self.assertEqual(home.call("init").code, 0)
            self.assertEqual(home.call("validate-config", "--strict").out, "OK: version=1 jobs=2\n")
        self.assertGreater(steps, 15)

    @unittest.skipUnless(os.geteuid() == 0, "only root can be in somebody else's directory")
    def test_root_in_somebody_elses_home_is_refused(self):
        user = NewUser(self)
        os.chown(user.home, 65534, 65534)
        for argv in (["init"], ["schedule", "install"], ["schedule", "print"], ["schedule", "remove"]):
            self.is_refused(user.call(*argv), "you are root", "sudo -u ")
        self.assertEqual(os.listdir(user.home), [])


class TheStarterConfig(unittest.TestCase):
    def setUp(self):
        self.user = NewUser(self)
        self.user.call("init")

    def call(self, *argv):
        return self.user.call(*argv, script=self.user.installed)

    def test_it_validates_without_a_word(self):
        self.assertEqual(self.call("validate-config", "--strict")[:3], (0, "OK: version=1 jobs=2\n", ""))
        json.loads(self.user.bytes_of(self.user.config_file))

    def test_its_check_works(self):
        answer = self.call("run", "disk-space")
        self.assertEqual(answer.code, 0, answer)
        self.assertRegex(answer.out, r"(?m)^(ALERT: )?/ is \d+% full$")

    def test_its_job_is_watched_killed_resumed_and_stopped(self):
        config = json.loads(self.user.bytes_of(self.user.config_file))
        config["delivery"] = {"via": "command", "command": ["/bin/sh", "-c", 'cat >> "$HOME/told"']}
        self.user.write(self.user.config_file, json.dumps(config))
        answer = self.call("start", "share-sizes")
        self.assertEqual(last(answer), f"next: python3 {self.user.shown} tick", "nothing calls tick yet")
        first = self.progress(0)
        self.assertEqual(self.call("tick").code, 0)
        self.assertIn("Sizes in /usr/share", self.user.bytes_of(os.path.join(self.user.home, "told")).decode())
        os.kill(first["pid"], signal.SIGKILL)
        until = time.monotonic() + 20
        while json.loads(self.call("status", "--json").out)["jobs"][0]["state"] != "stopped" and time.monotonic() < until:
            time.sleep(0.05)
        self.assertEqual(self.call("tick").code, 0)
        again = self.progress(first["progress"]["done"])
        self.assertGreater(again["progress"]["done"], first["progress"]["done"])
        self.assertEqual(self.call("stop", "share-sizes").code, 0)

    def progress(self, more_than):
        """The job once it has done more than that."""
        until = time.monotonic() + 20
        while True:
            job = json.loads(self.call("status", "--json").out)["jobs"][0]
            if job.get("progress", {}).get("done", 0) > more_than and job["state"] == "running":
                return job
            self.assertLess(time.monotonic(), until, job)

    def test_start_names_status_once_ticks_come(self):
        self.call("tick")
        self.assertEqual(last(self.call("start", "share-sizes")), f"next: python3 {self.user.shown} status share-sizes")

    def test_a_missing_config_names_init(self):
        os.unlink(self.user.config_file)
        self.assertIn(f"help: python3 {self.user.shown} init", self.call("status").err)


# ---- schedule


class Schedule(unittest.TestCase):
    is_refused = Init.is_refused

    def setUp(self):
        self.user = NewUser(self)
        self.user.call("init")
        self.units = [os.path.join(self.user.home, ".config/systemd/user", f"{self.user.name}.{kind}") for kind in ("service", "timer")]
        self.plist = os.path.join(self.user.home, "Library/LaunchAgents", f"local.{self.user.name}.plist")

    def call(self, *argv, **env):
        return self.user.call("schedule", *argv, script=self.user.installed, **env)

    def program(self, name, script):
        self.user.write(os.path.join(self.user.bin, name), f"#!/bin/sh\n{script}\n", 0o755)

    def printed(self, *argv):
        """Path -> content as `print` shows it."""
        answer = self.call("print", *argv)
        self.assertEqual((answer.code, answer.err), (0, ""))
        parts = re.split(r"(?m)^# (crontab|/.*/.*)\n", answer.out)
        self.assertEqual(parts[0], "")
        return dict(zip(parts[1::2], parts[2::2]))

    def test_print_shows_what_install_writes_byte_for_byte_and_changes_nothing(self):
        before = self.user.tree()
        for kind in ("cron", "systemd", "launchd"):
            with self.subTest(kind):
                printed = self.printed("--kind", kind, "--every", "2m")
                self.assertEqual((self.user.tree(), self.user.noted()), (before, []))
                self.assertEqual(self.call("install", "--kind", kind, "--every", "2m").code, 0)
                written = {path: self.user.bytes_of("table" if path == "crontab" else path).decode() for path in printed}
                self.assertEqual(written, printed)
                self.assertEqual(self.call("remove").code, 0)
                self.user.noted()
                self.assertEqual(self.user.tree(), before)
        self.assertEqual(self.user.bytes_of("table"), b"")

    def test_cron_is_installed_changed_and_removed_among_other_lines(self):
        mine = b"MAILTO=\"\"\r\n# caf\xe9\n0 5 * * * /bin/true"
        self.user.write("table", mine)
        answer = self.call("install")
        self.assertEqual((answer.code, answer.err), (0, ""))
        self.assertEqual(answer.out.split("\n")[:2], ["written: crontab", "tick is called every 1m, the first time within 1m"])
        self.assertEqual(last(answer), f"next: python3 {self.user.shown} start share-sizes")
        table = self.user.bytes_of("table")
        self.assertTrue(table.startswith(mine + b"\n# " + self.user.name.encode()), table)
        self.assertEqual(table.count(b"tick"), 1)
        self.user.noted()
        self.assertEqual(self.call("install").out, answer.out)
        self.assertEqual((self.user.bytes_of("table"), self.user.noted()), (table, []), "nothing to write")
        self.call("install", "--every", "5m")
        self.assertEqual(self.user.bytes_of("table"), table.replace(b"\n* * * * * ", b"\n*/5 * * * * "))
        self.assertEqual(self.call("remove")[:2], (0, "removed: crontab\n"))
        self.assertEqual(self.user.bytes_of("table"), mine + b"\n")
        self.assertEqual(self.call("remove")[:2], (0, f"nothing to remove: no scheduler calls tick for {self.user.state_file}\n"))

    def test_what_cron_runs_is_a_tick_of_this_installation(self):
        there = os.path.join(self.user.root, "it's 100% \"there\" \\ $HOME 用户")
        config, state = os.path.join(there, "jobs %.json"), os.path.join(there, "st ate.json")
        files = ("--config-file", config, "--state-file", state)
        self.user.call("init", *files, OPENCLAW_HOME=there)
        script = os.path.join(there, "net/tools/ops-monitor.py")
        self.assertEqual(self.user.call("schedule", "install", *files, script=script, OPENCLAW_HOME=there).code, 0)
        line = self.user.bytes_of("table").decode().split("\n")[1]
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "SHELL": "/bin/sh", "LOGNAME": "me"}
        found = subprocess.run(["/bin/sh", "-c", cron_command(line, False)], env=env, cwd="/", capture_output=True, timeout=60, check=False)
        self.assertEqual(found.returncode, 0, found.stderr)
        with open(state, encoding="utf-8") as file:
            remembered = json.load(file)
        self.assertEqual(remembered["configFile"], config)
        self.assertIn("disk-space", remembered["jobs"])
        self.assertTrue(os.listdir(os.path.join(there, "net/tools/__pycache__")), "Python keeps its byte code")

    def test_a_crontab_that_cannot_be_read_is_never_written(self):
        self.user.write("table", b"mine\n")
        for fails in ("crontab -l", "crontab"):
            self.user.fails("show-environment", fails)
            for argv in (["install"], ["remove"]):
                self.is_refused(self.call(*argv), "crontab -l: exit code 1: crontab says no", "schedule print", code=1)
        self.program("crontab", f"[ $1 = -l ] && exit 2; cat > '{self.user.fakes}/table'")
        self.is_refused(self.call("install"), "exit code 2", code=1)
        self.assertEqual(self.user.bytes_of("table"), b"mine\n")

    def test_who_has_no_crontab_yet_gets_one_also_from_busybox(self):
        self.program("crontab", f"""cd '{self.user.fakes}'; case $1 in -) exec cat > table ;; esac
            cat table 2>/dev/null || {{ echo "crontab: can't open 'me': No such file or directory" >&2; exit 1; }}""")
        answer = self.call("install")
        self.assertEqual((answer.code, answer.err), (0, ""))
        self.assertIn(b"tick", self.user.bytes_of("table"))

    def test_two_who_install_at_once_do_not_undo_each_other(self):
        lock = ops.try_lock(ops.Store(self.user.state_file, ops.Clock()).lock_path("init"))
        with open(lock), unittest.mock.patch.object(ops, "SETUP_WAIT", 0.0):
            self.is_refused(self.call("install"), "another process is at the same work", "schedule install", code=75)
        self.assertEqual(self.user.noted(), [])

    def test_a_crontab_that_refuses_keeps_what_was_there(self):
        self.user.write("table", b"mine\n")
        self.program("crontab", f"[ $1 = -l ] && exec cat '{self.user.fakes}/table'; echo 'bad minute' >&2; exit 1")
        self.is_refused(self.call("install"), "crontab -: exit code 1: bad minute", code=1)
        self.assertEqual(self.user.bytes_of("table"), b"mine\n")

    def test_intervals_that_a_scheduler_cannot_do_are_named(self):
        for argv, words in (
            (("--kind", "cron", "--every", "90"), ("cron cannot call every 1m 30s; possible: 1m, 2m, 3m", "12h, 1d", "--kind cron --every 2m")),
            (("--kind", "cron", "--every", "7m"), ("--every 10m",)),
            (("--kind", "cron", "--every", "45m"), ("--every 1h",)),
            (("--kind", "cron", "--every", "2d"), ("--every 1d",)),
            (("--kind", "systemd", "--every", "0.5"), ("whole number of seconds", "--every 1s")),
            (("--kind", "launchd", "--every", "0"), ("--every 1s",)),
            (("--kind", "systemd", "--every", "90000"), ("up to 1d", "--every 1d")),
            (("--every", "soon"), ("expected a duration",)),
            (("--kind", "crom"), ("crom", "cron")),
        ):
            for what in ("install", "print"):
                with self.subTest(what, argv=argv):
                    self.is_refused(self.call(what, *argv), *words)
        self.is_refused(self.call("instal"), "instal")
        self.is_refused(self.call(), "what")
        self.assertEqual(self.user.noted(), [])

    def test_systemd_is_told_and_lingering_is_asked_for(self):
        self.user.fails()
        answer = self.call("install")
        paths = "".join(f"written: {path}\n" for path in self.units)
        self.assertEqual((answer.code, answer.err), (0, ""))
        self.assertTrue(answer.out.startswith(paths + "tick is called at once, then every 1m\n"), answer.out)
        self.assertIn("loginctl enable-linger\nnext: ", answer.out)
        timer = f"{self.user.name}.timer"
        begin, end = ["systemctl --user daemon-reload", f"systemctl --user enable --now {timer}"], f"systemctl --user disable --now {timer}"
        self.assertEqual(self.user.noted(), begin)
        self.user.write("linger", "Linger=yes\n")
        self.assertNotIn("linger", self.call("install", "--every", "20").out)
        self.assertEqual(self.user.noted(), [end, *begin])
        self.assertIn(b"OnUnitActiveSec=20\n", self.user.bytes_of(self.units[1]))
        self.assertEqual(self.call("remove").out, paths.replace("written", "removed"))
        self.assertEqual(self.user.noted(), [end, *begin[:1]])
        self.assertFalse(any(map(os.path.exists, self.units)))

    def test_a_unit_that_somebody_has_masked_stays_masked(self):
        self.user.fails()
        os.makedirs(os.path.dirname(self.units[1]))
        os.symlink("/dev/null", self.units[1])
        for argv in (["install"], ["remove"]):
            self.is_refused(self.call(*argv), self.units[1], "not a regular file", code=74)
        self.assertEqual((os.readlink(self.units[1]), self.user.noted()), ("/dev/null", []))

    def test_launchd_is_told(self):
        domain = f"gui/{os.geteuid()}"
        answer = self.call("install", "--kind", "launchd")
        self.assertTrue(answer.out.startswith(f"written: {self.plist}\ntick is called at once, then every 1m\nnext: "), answer.out)
        self.assertEqual(self.user.noted(), [f"launchctl bootstrap {domain} {self.plist}"])
        self.call("install", "--kind", "launchd", "--every", "2m")
        self.assertEqual(self.user.noted(), [f"launchctl bootout {domain}/local.{self.user.name}", f"launchctl bootstrap {domain} {self.plist}"])
        self.assertEqual(plistlib.loads(self.user.bytes_of(self.plist))["StartInterval"], 120)
        self.assertEqual(self.call("remove").out, f"removed: {self.plist}\n")
        self.assertEqual(self.user.noted(), [f"launchctl bootout {domain}/local.{self.user.name}"])

    def test_what_fails_leaves_what_was_there(self):
        for kind, fails in (("systemd", "daemon-reload"), ("systemd", "enable --now"), ("launchd", "bootstrap")):
            for first in (False, True):
                with self.subTest(kind, fails=fails, first=first):
                    self.user.fails()
                    self.call("remove")
                    if not first:
                        self.call("install", "--kind", kind)
                    before = self.user.tree()
                    self.user.fails(fails)
                    self.is_refused(self.call("install", "--kind", kind, "--every", "2m"), fails, "exit code 1", "says no", "schedule print", code=1)
                    self.assertEqual(self.user.tree(), before)
        self.user.fails()
        self.call("install", "--kind", "systemd")
        before = self.user.tree()
        self.user.fails("disable")
        self.is_refused(self.call("remove"), "disable", code=1)
        self.assertEqual(self.user.tree(), before)

    def test_a_second_scheduler_is_refused_while_one_calls(self):
        self.user.fails()
        for one, other in (("cron", "systemd"), ("systemd", "cron"), ("launchd", "cron")):
            with self.subTest(one, other=other):
                self.assertEqual(self.call("install", "--kind", one).code, 0)
                before, table = self.user.tree(), self.user.bytes_of("table")
                self.is_refused(self.call("install", "--kind", other), f"{one} calls tick already", f"schedule remove --kind {one}")
                self.assertEqual((self.user.tree(), self.user.bytes_of("table")), (before, table))
                self.assertEqual(self.call("install").code, 0, "without --kind the one that calls it stays")
                self.assertEqual((self.user.tree(), self.user.bytes_of("table")), (before, table))
                self.assertIn("nothing to remove", self.call("remove", "--kind", other).out)
                self.assertEqual(self.call("remove", "--kind", one).code, 0)

    def test_two_installations_stand_side_by_side(self):
        files = ("--config-file", self.user.config_file, "--state-file", os.path.join(self.user.root, "other.json"))
        for kind in ("cron", "systemd", "launchd"):
            with self.subTest(kind):
                self.call("install", "--kind", kind)
                before, table = self.user.tree(), self.user.bytes_of("table")
                self.assertEqual(self.call("install", "--kind", kind, *files).code, 0)
                self.assertTrue(self.user.tree().items() > before.items() or self.user.bytes_of("table") not in (b"", table))
                self.assertIn(table, self.user.bytes_of("table"))
                self.assertEqual(self.call("remove", *files).code, 0)
                self.assertEqual((self.user.tree(), self.user.bytes_of("table")), (before, table))
                self.call("remove")

    def test_no_scheduler_at_all_says_what_to_install(self):
        for program in FAKES:
            os.unlink(os.path.join(self.user.bin, program))
        nowhere = {"PATH": self.user.bin}
        if sys.platform != "darwin":
            self.is_refused(self.call("install", **nowhere), "systemd", "no crontab", "apt-get install cron")
        for kind, program in (("cron", "crontab"), ("systemd", "systemctl"), ("launchd", "launchctl")):
            self.is_refused(self.call("install", "--kind", kind, **nowhere), f"no such program: {program}", code=1)
        self.assertIn("nothing to remove", self.call("remove", **nowhere).out)
        self.assertFalse(any(map(os.path.exists, (*self.units, self.plist))))

    @unittest.skipIf(sys.platform == "darwin", "launchd is the default there")
    def test_the_default_is_a_user_manager_that_answers_else_cron(self):
        self.assertEqual(list(self.printed()), ["crontab"])
        self.user.fails()
        self.assertEqual(list(self.printed()), self.units)

    def test_a_config_that_cannot_be_used_stops_install_alone(self):
        self.call("install", "--kind", "cron")
        os.unlink(self.user.config_file)
        self.is_refused(self.call("install", "--kind", "cron"), "no such file", " init")
        self.assertEqual(list(self.printed()), ["crontab"])
        self.assertEqual(self.call("remove").out, "removed: crontab\n")

    def test_without_a_managed_job_the_next_step_is_status(self):
        self.user.write(self.user.config_file, '{"version": 1, "monitor": {"language": "zh"}, "jobs": []}')
        answer = self.call("install", "--kind", "cron")
        self.assertEqual(last(answer), f"下一步：python3 {self.user.shown} status")

    def test_a_path_that_no_scheduler_can_be_told_is_refused(self):
        self.is_refused(self.call("print", OPENCLAW_HOME=os.path.join(self.user.root, "a\nb")), r"a\nb", "plainer")


class AskingAProgram(unittest.TestCase):
    def test_one_that_is_asked_when_the_user_has_had_enough_is_ended(self):
        dirs = ops.openclaw_places({}, "/h", lambda path: False)
        site = ops.Site(ops.read_config('{"version": 1, "jobs": []}'), "/c.json", ops.Store("/s.json", ops.Clock()), {}, "/h", dirs)
        for number in (signal.SIGALRM, *ops.ENDING_SIGNALS):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        signal.signal(signal.SIGALRM, ops.on_signal)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with self.assertRaises(ops.Interrupted):
            ops.ask_system(site, ["/bin/sh", "-c", "exec sleep 20"])
        self.assertEqual(site.pool.children, {})


class TheNameOfAnInstallation(unittest.TestCase):
    def calling(self, home, account, state):
        clock = ops.Clock()
        dirs = ops.openclaw_places({}, home, lambda path: False)
        site = ops.Site(ops.read_config('{"version": 1, "jobs": []}'), "/c.json", ops.Store(state, clock), {"HOME": home}, home, dirs)
        args = ops.parse_command_line(["schedule", "print"])[1]
        with unittest.mock.patch.object(ops, "home_directory", lambda env: account):
            return ops.make_calling(site, args)

    def test_the_usual_one_of_an_account_has_the_plain_name_and_needs_no_environment(self):
        for home, account, state, is_plain in (
            ("/h/me", "/h/me", "/h/me/.openclaw/net/state/ops-monitor.json", True),
            ("/h/me", "/h/me", "/h/me/x.json", False),
            ("/sandbox", "/h/me", "/sandbox/.openclaw/net/state/ops-monitor.json", False),
        ):
            with self.subTest(home, state=state):
                made = self.calling(home, account, state)
                self.assertEqual(made.name == "ops-monitor", is_plain)
                self.assertRegex(made.name, r"^ops-monitor(-[0-9a-f]{8})?$")
                self.assertEqual(made.env, {} if home == account else {"HOME": home}, "a scheduler sets the account's HOME")


# ---- the way of the README


def quick_start():
    """The lines of the README's quick start."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"(?s)## The first job.*?```sh\n(.*?)```", text)[1]
    return [line.partition("  #")[0].rstrip() for line in block.split("\n") if line.partition("#")[0].strip()]


class TheQuickStartOfTheReadme(unittest.TestCase):
    def setUp(self):
        self.user = NewUser(self)
        os.rename(self.user.script, os.path.join(self.user.root, "ops-monitor.py"))
        self.place = self.user.root

    def type(self, line):
        """What a line shows at a terminal; the directory it leaves us in is that of the next one."""
        ours, theirs = pty.openpty()
        script = f"{line}\ncode=$?; pwd > '{self.user.fakes}/pwd'; exit $code"
        with subprocess.Popen(["/bin/sh", "-c", script], stdin=theirs, stdout=theirs, stderr=theirs, cwd=self.place, env=self.user.env) as child:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    chunk = os.read(ours, 4096)
                except OSError:  # Linux: the last one has closed it
                    break
                if not chunk:
                    break
                shown += chunk
        os.close(ours)
        self.place = self.user.bytes_of("pwd").decode().rstrip("\n")
        return child.returncode, shown.decode().replace("\r\n", "\n")

    def follow(self, code_of_tick):
        """Type the whole quick start; what each command showed."""
        shown, following = {}, ""
        for line in quick_start():
            command = re.fullmatch(r"python3 ops-monitor\.py (.*)", line)
            if command and command[1].split()[0] not in ops.COMMANDS:
                self.assertEqual(command[1], "doctor", "the only command that may not be there yet")
                following = ""
                continue
            code, text = self.type(line)
            codes = {"tick": (code_of_tick,), "doctor": (0,) if code_of_tick == 0 else (0, 1)}.get(line.split()[-1], (0,))
            self.assertIn(code, codes, f"{line}\n{text}")
            if command:
                shown[command[1]] = text
                if following and following.split()[0] in ops.COMMANDS:
                    self.assertEqual(following, command[1], "each last line names the next one")
                last = text.rstrip("\n").split("\n")[-1]
                found = re.fullmatch(r"next: python3 (\S*/ops-monitor\.py) (.*)", last)
                following = found[2] if found else ""
                self.assertTrue(not found or os.path.exists(found[1].replace("~", self.user.home)), last)
        return shown

    def test_with_openclaw_as_its_pairing_leaves_it(self):
        bot = BotApi(self)
        os.mkdir(os.path.join(self.user.home, ".openclaw"), 0o700)
        openclaw = {"channels": {"telegram": {"botToken": TOKEN, "apiRoot": bot.url}}, "commands": {"ownerAllowFrom": [f"telegram:{OWNER}"]}}
        self.user.write(os.path.join(self.user.home, ".openclaw", "openclaw.json"), json.dumps(openclaw))
        shown = self.follow(0)
        self.assertTrue(any("Sizes in /usr/share" in text for text in bot.texts), bot.texts)
        self.assertLessEqual({"init", "validate-config", "schedule install", "start share-sizes", "tick"}, set(shown))
        self.assertIn(b'["tick"]', self.user.bytes_of("table") or self.user.bytes_of(os.path.join(self.user.home, "Library")))

    def test_without_openclaw_the_tick_says_what_is_missing(self):
        shown = self.follow(3)
        self.assertRegex(shown["tick"], "error: undelivered messages: 1: no bot token[^\n]*\nhelp: set channels\\.telegram\\.botToken ")


if __name__ == "__main__":
    unittest.main()
