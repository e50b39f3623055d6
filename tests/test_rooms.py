"""The building: rooms in order, nothing used from a later one, and no world above the threshold.

Everything is read from the script's syntax tree and bytecode; each failure lists every finding.
"""

import ast
import builtins
import dis
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import unittest

from tests import ROOT, SCRIPT

BANNER = re.compile(r"^# ==== (.+?) =+$")
THRESHOLD = "the threshold"

# What a quiet room may take from a module that can also touch the world.
PURE = {
    "os": {f"os.path.{name}" for name in ("basename", "commonpath", "dirname", "isabs", "join", "normpath", "split", "splitext")} | {"os.sep"},
    "signal": {"signal.Signals"},
    "stat": {f"stat.{name}" for name in ("S_ISDIR", "S_ISREG", "S_ISLNK", "S_ISVTX", "S_IWOTH", "S_IWGRP", "S_IMODE")},
    "sys": {"sys.maxunicode"},
    "time": set(),
    "select": set(),
    "fcntl": set(),
    "argparse": set(),
    "datetime": {"datetime.datetime", "datetime.timezone", "datetime.timedelta", "datetime.fromisoformat"},
}
QUIET_IMPORTS = {"bisect", "collections", "datetime", "difflib", "errno", "functools", "hashlib", "hmac", "itertools", "json", "math", "re", "shlex", "string",
                 "textwrap", "typing", "unicodedata", "zlib"}  # fmt: skip
WORLD_NAMES = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint", "globals", "help", "exit", "quit"}
CLOCKS = {"now", "today", "utcnow", "localtime", "gmtime"}  # of datetime objects: a clock in disguise


class Building:
    """The script with the room of each line."""

    def __init__(self, source):
        self.source = source
        self.tree = ast.parse(source)
        self.reads = list(global_reads(compile(source, "house", "exec", dont_inherit=True)))
        self.rooms = []  # (first line, name)
        for number, line in enumerate(source.split("\n"), 1):
            found = BANNER.match(line)
            if found:
                self.rooms.append((number, found.group(1)))

    def room_of(self, line):
        """Index of the room that a line is in; -1 = the entrance."""
        return sum(first <= line for first, _ in self.rooms) - 1

    def name_of(self, line):
        index = self.room_of(line)
        return self.rooms[index][1] if index >= 0 else "the entrance"

    def listed(self):
        """(names, index of the threshold) as the module docstring lists them."""
        names, threshold = [], None
        for line in ast.get_docstring(self.tree, clean=False).split("\n"):
            if THRESHOLD in line:
                threshold = len(names)
            found = re.match(r" {8}([A-Z]+(?: [A-Z]+)*) +[^A-Z\s]", line)
            if found:
                names.append(found.group(1))
        return names, threshold

    def first_definitions(self):
        """Module-level name -> line of its first definition."""
        made = {}
        for node in self.tree.body:
            for name in names_bound_by(node):
                made.setdefault(name, node.lineno)
        return made

    def upward_references(self):
        """`line: function in ROOM uses name of LATER ROOM`, one for each."""
        made = self.first_definitions()
        found = set()

        def note(line, name, where):
            if name in made and self.room_of(made[name]) > self.room_of(line):
                found.add((line, f"line {line}: {where} in {self.name_of(line)} uses {name} of {self.name_of(made[name])}"))

        for line, name, where in self.reads:
            note(line, name, where)
        for node in ast.walk(self.tree):  # annotations are not evaluated, but they are read by people
            for annotation in [getattr(node, "annotation", None), getattr(node, "returns", None)]:
                for part in ast.walk(annotation) if annotation is not None else ():
                    if isinstance(part, ast.Name):
                        note(part.lineno, part.id, "an annotation")
        return [text for _, text in sorted(found)]

    def world_calls(self):
        """What the quiet rooms do that they should not, one line for each."""
        names, threshold = self.listed()
        quiet = set(names[:threshold])
        found = []
        for node in self.tree.body:
            if self.name_of(node.lineno) in quiet:
                found += [(line, f"line {line}: {self.name_of(line)}: {what}") for line, what in world_uses(node)]
        return [text for _, text in sorted(set(found))]


def names_bound_by(node):
    """Names that a module-level statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [(item.asname or item.name).split(".")[0] for item in node.names]
    if isinstance(node, ast.Name):
        return [node.id] if isinstance(node.ctx, ast.Store) else []
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda)):
        return []  # their names are their own
    return [name for part in ast.iter_child_nodes(node) for name in names_bound_by(part)]


def global_reads(code, where="the module"):
    """(line, name, function) of each global that some code reads, nested code included."""
    starts = dict(dis.findlinestarts(code))
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = starts.get(step.offset) or line
        if "LOAD_GLOBAL" in step.opname or step.opname in ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield line, step.argval, where
        if hasattr(step.argval, "co_code"):
            name = step.argval.co_name
            inner = name if name.startswith("<") else f"{name}()" if where == "the module" else f"{where}.{name}"
            yield from global_reads(step.argval, where if name.startswith("<") else inner)


def dotted(node):
    """`os.path.join` of an attribute expression, or ''."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def world_uses(node):
    """(line, what) of every touch of the world inside a statement."""
    inner = {id(part.value) for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    for part in ast.walk(node):
        if isinstance(part, (ast.Import, ast.ImportFrom)):
            modules = [part.module or ""] if isinstance(part, ast.ImportFrom) else [item.name for item in part.names]
            yield from ((part.lineno, f"imports {module}") for module in modules if module.split(".")[0] not in QUIET_IMPORTS)
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load) and part.id in WORLD_NAMES:
            yield part.lineno, f"uses {part.id}"
        elif isinstance(part, ast.Name) and part.id in PURE and id(part) not in inner:
            yield part.lineno, f"hands on the module {part.id}"
        elif isinstance(part, ast.Attribute) and id(part) not in inner:
            name = dotted(part)
            module = name.split(".")[0]
            allowed = PURE.get(module)
            if allowed is not None and not any(name == pure or name.startswith(pure + ".") for pure in allowed):
                yield part.lineno, f"uses {name}"
            elif part.attr in CLOCKS and isinstance(part.value, (ast.Name, ast.Attribute)) and "datetime" in dotted(part.value):
                yield part.lineno, f"reads a clock: {name}"
        elif isinstance(part, ast.Global):
            yield part.lineno, f"changes a module-level name: {', '.join(part.names)}"


BUILDING = Building(SCRIPT.read_text(encoding="utf-8"))


def listing(findings):
    return f"{len(findings)} findings:\n" + "\n".join(findings)


class TheRoomsStandInOrder(unittest.TestCase):
    def test_they_are_those_of_the_docstring_in_its_order(self):
        names, threshold = BUILDING.listed()
        self.assertEqual([name for _, name in BUILDING.rooms], names)
        self.assertIsNotNone(threshold, "the docstring shows the threshold")
        self.assertEqual(names[threshold], "WORLD")
        self.assertEqual(names[0], "WORDS")
        self.assertEqual(names[-1], "DOOR")

    def test_each_banner_is_followed_by_its_purpose(self):
        lines = BUILDING.source.split("\n")
        for first, name in BUILDING.rooms:
            with self.subTest(name):
                self.assertRegex(lines[first], r"^# [A-Z].{20,}", "one sentence of purpose under the banner")
                self.assertEqual(len(lines[first - 1]), 75, "banners are as wide as each other")
        self.assertNotIn("MISC", [name for _, name in BUILDING.rooms])

    def test_no_room_uses_a_later_one(self):
        findings = BUILDING.upward_references()
        self.assertEqual(findings, [], listing(findings))

    def test_every_global_that_is_read_is_defined(self):
        made = set(BUILDING.first_definitions()) | set(dir(builtins)) | {"__name__", "__file__", "__doc__"}
        findings = sorted(
            {f"line {line}: {where} reads {name}" for line, name, where in BUILDING.reads if where != "the module" and name not in made}
        )
        findings = [text for text in findings if not re.search(r" reads (__module__|__qualname__|__classdict__)$", text) and "reads __" not in text]
        classes = {node.name for node in ast.walk(BUILDING.tree) if isinstance(node, ast.ClassDef)}
        findings = [text for text in findings if not any(f": {name}" in text for name in classes)]  # a class body reads its own names
        self.assertEqual(findings, [], listing(findings))

    def test_no_name_is_defined_twice(self):
        seen, findings = {}, []
        for node in BUILDING.tree.body:
            for name in set(names_bound_by(node)) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)) else ():
                if name in seen:
                    findings.append(f"line {node.lineno}: {name} was defined in line {seen[name]}")
                seen[name] = node.lineno
        self.assertEqual(findings, [], listing(findings))


class TheRoomsAboveTheThresholdAreQuiet(unittest.TestCase):
    def test_they_touch_no_clock_file_process_or_network(self):
        findings = BUILDING.world_calls()
        self.assertEqual(findings, [], listing(findings))


class TheInspectorSeesWhatItShould(unittest.TestCase):
    """A test that cannot fail is a defect: small buildings with one fault each."""

    FRONT = (
        '"""A house.\n\n        WORDS         words\n      ------ the threshold: rooms above it touch nothing\n'
        '        WORLD         world\n"""\nimport os\n'
    )

    def house(self, quiet="", world=""):
        return Building(f"{self.FRONT}import signal\nimport time\n# ==== WORDS ====\n{quiet}\n# ==== WORLD ====\n{world}\ndef deed(): return 1\n")

    def test_upward_references(self):
        for quiet, seen in (
            ("def a():\n    return deed()", True),
            ("class A:\n    def a(self):\n        return [deed() for _ in self]", True),
            ("def a(x: deed): pass", True),
            ("def a():\n    return lambda: deed", True),
            ("def a(deed):\n    return deed", False),
            ("def a():\n    deed = 5\n    return lambda: deed", False),
            ("def a(x):\n    return x.deed", False),
            ("def b(): pass\ndef a():\n    return b()", False),
        ):
            with self.subTest(quiet):
                self.assertEqual(bool(self.house(quiet).upward_references()), seen)
        self.assertEqual(self.house("def low(): pass", "def high():\n    return low()").upward_references(), [])

    def test_world_calls(self):
        for quiet, seen in (
            ("def a(): return time.time()", True),
            ("def a(): print(1)", True),
            ("def a(): open('x')", True),
            ("def a(): return os.getcwd()", True),
            ("def a(): return os.path.exists('x')", True),
            ("def a(): return os.environ", True),
            ("def a(): import subprocess", True),
            ("def a():\n    from socket import socket", True),
            ("X = os.urandom", True),
            ("def a(x=time): pass", True),
            ("def a(): return os.stat('x')", True),
            ("def a():\n    from datetime import datetime\n    return datetime.now()", True),
            ("def a():\n    global x\n    x = 1", True),
            ("def a(): return signal.signal(1, None)", True),
            ("def a(): return signal.Signals(1).name", False),
            ("def a(): return os.path.join('x', 'y')", False),
            ("def a():\n    import hashlib\n    return hashlib", False),
            ("def a(time_text): return time_text(5)", False),
            ("def a(x): return x.time", False),
        ):
            with self.subTest(quiet):
                self.assertEqual(bool(self.house(quiet).world_calls()), seen)
        self.assertEqual(self.house(world="def high():\n    print(time.time(), os.getcwd())").world_calls(), [])


# ---- imports


@functools.cache
def imports_of(path):
    """(line, module) of every import in a file, those inside functions included."""
    tree = BUILDING.tree if path == SCRIPT else ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return [(node.lineno, name) for node in nodes for name in names_of_import(node)]


def is_standard(module):
    """Whether a module comes with Python."""
    top = module.split(".")[0]
    if hasattr(sys, "stdlib_module_names"):  # 3.10 and later
        return top in sys.stdlib_module_names
    found = importlib.util.find_spec(top)
    if found is None or found.origin in ("built-in", "frozen", None):
        return found is not None
    places = [os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    origin = os.path.realpath(found.origin)
    return "-packages" not in origin and any(origin.startswith(place + os.sep) for place in places)


class NothingFromOutsideTheStandardLibrary(unittest.TestCase):
    def test_the_question_itself(self):
        self.assertTrue(all(map(is_standard, ("json", "os.path", "sys", "_thread", "xml.etree", "curses"))))
        self.assertFalse(is_standard("pip") or is_standard("no_such_module"))

    def test_every_import_of_script_examples_benchmarks_and_tests(self):
        files = [SCRIPT, *(path for name in ("tests", "examples", "benchmarks") for path in sorted((ROOT / name).rglob("*.py")))]
        own = {"tests", "benchmarks", *(path.stem for path in files)}
        findings = [
            f"{path.relative_to(ROOT)}:{line}: {module}"
            for path in files
            for line, module in imports_of(path)
            if not is_standard(module) and module.split(".")[0] not in own
        ]
        self.assertEqual(findings, [], listing(findings))

    def test_the_script_imports_no_file_of_the_checkout(self):
        own = {path.stem for path in ROOT.rglob("*.py")} - {SCRIPT.stem}
        findings = [f"line {line}: {module}" for line, module in imports_of(SCRIPT) if module.split(".")[0] in own]
        self.assertEqual(findings, [], listing(findings))

    def test_what_is_dear_is_not_imported_at_the_start(self):
        dear = {
            "urllib",
            "http",
            "ssl",
            "dataclasses",
            "logging",
            "secrets",
            "pathlib",
            "concurrent",
            "subprocess",
            "tempfile",
            "shutil",
            "hashlib",
            "datetime",
        }
        top = [(node.lineno, name) for node in BUILDING.tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) for name in names_of_import(node)]
        findings = [f"line {line}: {name}" for line, name in top if name.split(".")[0] in dear]
        self.assertEqual(findings, [], listing(findings))


def names_of_import(node):
    return [node.module or "."] if isinstance(node, ast.ImportFrom) else [item.name for item in node.names]


# ---- importing and neighbours


WITNESS = """
import builtins, importlib.util, json, os, signal, sys, threading
path = sys.argv[1]
seen = []
def handlers():
    return {number: str(signal.getsignal(number)) for number in signal.valid_signals()}
def around():
    mask = os.umask(0)
    os.umask(mask)
    limits = [os.getcwd(), mask, dict(os.environ), list(sys.path), sys.excepthook is sys.__excepthook__, sys.getrecursionlimit()]
    limits.append(sorted(os.listdir("/dev/fd")))
    return handlers(), limits, threading.active_count(), sys.stdout is sys.__stdout__
def listen(event, arguments):
    if not listening:
        return
    if event == "open":
        name = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else str(arguments[0])
        name = os.fsdecode(name)
        if not name.endswith((".py", ".pyc", ".so", ".dylib")):
            seen.append([event, name])
    elif event.split(".")[0] in ("os", "subprocess", "socket", "signal", "shutil", "tempfile", "fcntl", "time", "winreg", "sqlite3", "urllib"):
        if event not in ("os.listdir", "os.scandir"):  # the import system looks for modules
            seen.append([event, repr(arguments)[:200]])
listening = False
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("witnessed", path)
module = importlib.util.module_from_spec(spec)
sys.modules["witnessed"] = module
sys.addaudithook(listen)
before = around()
listening = True
spec.loader.exec_module(module)
listening = False
after = around()
sys.stderr.write(json.dumps({"seen": seen, "same": before == after, "before": repr(before), "after": repr(after)}))
"""


class ImportingDoesNothing(unittest.TestCase):
    def test_it_prints_nothing_opens_nothing_and_changes_nothing(self):
        import json

        with tempfile.TemporaryDirectory() as folder:
            found = subprocess.run([sys.executable, "-c", WITNESS, str(SCRIPT)], capture_output=True, text=True, cwd=folder, timeout=60)
            self.assertEqual(found.returncode, 0, found.stderr)
            self.assertEqual(found.stdout, "")
            answer = json.loads(found.stderr)
            self.assertEqual(answer["seen"], [], "world events while it was imported")
            self.assertTrue(answer["same"], f"{answer['before']}\n{answer['after']}")
            self.assertEqual(os.listdir(folder), [])


class ANeighbourIsNotImported(unittest.TestCase):
    """The script is copied among files that are named like every module it could want."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = pathlib.Path(folder.name)
        self.sprung = self.place / "sprung"
        shutil.copy(SCRIPT, self.place / SCRIPT.name)
        wanted = {module.split(".")[0] for _, module in imports_of(SCRIPT)} - {"__future__", "sys"}
        trap = f"open({str(self.sprung)!r}, 'a').write(__name__ + '\\n')\nraise SystemExit('a neighbour was imported: ' + __name__)\n"
        for name in wanted | {"queue", "json", "random", "copy", "types", "enum", "string", "token", "secrets", "calendar", "code", "ops"}:
            (self.place / f"{name}.py").write_text(trap)
        self.home = self.place / "home"
        self.home.mkdir(mode=0o700)
        self.env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1"}

    def run_script(self, *words, cwd=None):
        found = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=cwd or self.place, env=self.env, timeout=60)
        self.assertFalse(self.sprung.exists() and self.sprung.read_text(), found.stderr)
        self.assertNotIn("Traceback", found.stderr)
        return found

    def test_the_traps_work(self):
        found = subprocess.run([sys.executable, "-c", "import queue"], capture_output=True, text=True, cwd=self.place, env=self.env, timeout=60)
        self.assertNotEqual(found.returncode, 0)
        self.assertTrue(self.sprung.read_text())

    def test_by_name_by_path_and_from_elsewhere(self):
        for words, cwd in (
            (("ops-monitor.py", "--version"), None),
            ((str(self.place / "ops-monitor.py"), "--version"), "/"),
            (("-I", "-S", "ops-monitor.py", "--version"), None),
        ):
            found = self.run_script(*words, cwd=cwd)
            self.assertEqual((found.returncode, found.stdout), (0, found.stdout.strip() + "\n"), found.stderr)
            self.assertRegex(found.stdout, r"^\d+\.\d+\.\d+$")

    def test_commands_that_import_what_is_rare(self):
        config = self.place / "jobs.json"
        config.write_text(
            '{"version": 1, "jobs": [{"id": "文字", "kind": "one_shot_read", "risk": "read_only", "commands": {"run": ["ls"]}, "polcy": {}}]}'
        )
        files = ["--config-file", str(config), "--state-file", str(self.home / "state" / "ops-monitor.json")]
        for words, code in ((["valdate"], 2), (["validate-config", *files], 0), (["tick", *files], 0)):
            with self.subTest(words[0]):
                self.assertEqual(self.run_script("ops-monitor.py", *words).returncode, code)


if __name__ == "__main__":
    unittest.main()
