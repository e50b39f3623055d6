"""examples/inventory.py counts every name once, whatever happens to it on the way.

Most attempts run in a forked child, where a test can bend one function of the module ("kill
yourself before the seventh step") and the death is a real one. A few are real command lines.
"""

import contextlib
import errno
import importlib.util
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import types
import unittest

# Hundreds of checkpoints are made durable here; in memory that takes no time, on a busy disk it does.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "examples" / "inventory.py"


def load_script():
    """The script as a module; no bytecode is left beside it."""
    spec = importlib.util.spec_from_file_location("inventory", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    kept, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = kept
    return module


inventory = load_script()  # bent in forked children only


def make_files(directory, count, name="file-{}.txt"):
    """As many names, of files of 0 to 49 bytes; more than 50 are hard links, which are cheap."""
    os.makedirs(directory)
    paths = [os.path.join(directory, name.format(number)) for number in range(count)]
    for size, path in enumerate(paths[:50]):
        with open(path, "wb") as file:
            file.write(b"x" * size)
    for number, path in enumerate(paths[50:], 50):
        os.link(paths[number % 50], path)


def make_strange_tree(root):
    """A small tree with all that has ever surprised somebody."""
    make_files(os.path.join(root, "plain", "deep", "deeper"), 40)
    make_files(os.path.join(root, "kinds"), 30, "same.{}")
    os.makedirs(os.path.join(root, "empty"))
    os.symlink("..", os.path.join(root, "plain", "loop"))
    os.symlink("nowhere", os.path.join(root, "broken link"))
    os.symlink("plain/deep/deeper/file-7.txt", os.path.join(root, "link to a file"))
    os.link(os.path.join(root, "kinds", "same.1"), os.path.join(root, "hard link"))
    os.mkfifo(os.path.join(root, "fifo"))
    names = [b"line\nbreak.txt", b" ", b"-rf", b".hidden", b"UPPER.TXT", b"dir\nwith\\n/x\n", "文件.数据".encode()]
    if sys.platform != "darwin":  # whose file systems accept UTF-8 only
        names += [b"caf\xe9.txt", b"dir-\xff\xfe/inner-\x80.\xe9"]
    for name in names:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name * 3)


def walk(root):
    """An independent count."""
    count = dict.fromkeys(("directories", "files", "bytes", "symlinks", "other"), 0)
    for here, directories, names in os.walk(os.fsencode(root)):
        count["directories"] += 1
        for path in (os.path.join(here, name) for name in directories + names):
            if os.path.islink(path):
                count["symlinks"] += 1
            elif os.path.isfile(path):
                count["files"] += 1
                count["bytes"] += os.path.getsize(path)
            elif not os.path.isdir(path):
                count["other"] += 1
    return count


class Attempt:
    """One attempt in a forked child: `code` is the exit code, or minus the signal that killed it."""

    def __init__(self, arguments, environment, sabotage):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            sys.stdout.flush()
            sys.stderr.flush()
            pid = os.fork()
            if pid == 0:
                self.be_the_child(arguments, environment, sabotage, out.fileno(), err.fileno())
            self.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            self.out, self.err = (self.text_of(file) for file in (out, err))

    @property
    def so_far(self):
        """The files that this attempt found already counted."""
        return int(self.out.splitlines()[0].rpartition(" ")[2])

    @staticmethod
    def be_the_child(arguments, environment, sabotage, out, err):
        code = 99  # an exception that nobody caught
        try:
            sys.stdout, sys.stderr = open(out, "w", closefd=False), open(err, "w", closefd=False)
            for name in [name for name in os.environ if name.startswith("OPS_")]:
                del os.environ[name]
            os.environ.update(environment)
            sabotage(inventory)
            code = inventory.main(arguments)
        except SystemExit as end:
            code = end.code
        except BaseException as bug:
            print(f"traceback: {bug!r}", file=sys.stderr)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    @staticmethod
    def text_of(file):
        file.seek(0)
        return file.read().decode(errors="replace")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def stopping_at(step, act=die):
    """A sabotage: `act` is called before the given step. A step is one touch of the world."""
    steps = itertools.count(1)

    def counted(function):
        def call(*arguments, **options):
            if next(steps) == step:
                act()
            return function(*arguments, **options)

        return call

    def sabotage(module):
        def connect(*arguments, **options):
            real = sqlite3.connect(*arguments, **options)
            return types.SimpleNamespace(execute=counted(real.execute), close=counted(real.close))

        module.sqlite3 = types.SimpleNamespace(**{**vars(sqlite3), "connect": connect})
        names = ("lstat", "scandir", "replace", "fsync", "remove")
        changed = {name: counted(getattr(os, name)) for name in names}
        module.os = types.SimpleNamespace(**{**vars(os), **changed})

    return sabotage


def replacing(name, function):
    """A sabotage: `os.NAME` is something else for the script."""

    def sabotage(module):
        module.os = types.SimpleNamespace(**{**vars(os), name: function})

    return sabotage


class InventoryTest(unittest.TestCase):
    def setUp(self):
        self.top = tempfile.mkdtemp(prefix="inventory-test-", dir=FAST)
        self.addCleanup(shutil.rmtree, self.top)
        self.tree = os.path.join(self.top, "tree")
        self.fresh_checkpoint()

    def fresh_checkpoint(self):
        self.folder = tempfile.mkdtemp(dir=self.top)
        self.checkpoint = os.path.join(self.folder, "checkpoint.db")

    def environment(self, **more):
        return {
            "OPS_CHECKPOINT_DIR": self.folder,
            "OPS_PROGRESS_FILE": os.path.join(self.folder, "told.json"),
            "OPS_JOB_ID": "inventory",
            "OPS_ATTEMPT": "1",
            **more,
        }

    def attempt(self, *options, sabotage=lambda module: None, directory=None, **environment):
        arguments = [directory or self.tree, *options]
        return Attempt(arguments, self.environment(**environment), sabotage)

    def complete(self, *options, **more):
        """The report of an attempt that must complete."""
        attempt = self.attempt(*options, **more)
        self.assertEqual((attempt.code, attempt.err), (0, ""))
        return self.report()

    def report(self, path=None):
        with open(path or os.path.join(self.folder, "report.json"), encoding="utf-8") as file:
            return json.load(file)

    def told(self):
        with open(os.path.join(self.folder, "told.json"), encoding="utf-8") as file:
            return json.load(file)

    def interrupt(self, after_names=5, **more):
        """Leaves the checkpoint of an inventory that was killed under way."""
        lstat, calls = os.lstat, itertools.count()
        sabotage = replacing("lstat", lambda path: die() if next(calls) == after_names else lstat(path))
        self.assertEqual(self.attempt("--checkpoint-seconds=0", sabotage=sabotage, **more).code, -9)


class Counting(InventoryTest):
    def test_it_counts_what_an_independent_walk_counts(self):
        make_strange_tree(self.tree)
        report = self.complete()
        self.assertEqual({key: report[key] for key in walk(self.tree)}, walk(self.tree))
        self.assertEqual((report["vanished"], report["unreadable"]), (0, 0))
        rows = report["byExtension"].values()
        self.assertEqual(sum(files for files, size in rows), report["files"])
        self.assertEqual(sum(size for files, size in rows), report["bytes"])
        self.assertEqual(report["byExtension"][".txt"][0], 42 + (sys.platform != "darwin"))

    def test_the_largest_files_are_named_in_order(self):
        make_files(self.tree, 50, "{:02}.bin")
        expected = [[size, os.path.join(os.path.realpath(self.tree), f"{size:02}.bin")] for size in range(49, 29, -1)]
        self.assertEqual(self.complete()["largest"], expected)

    @unittest.skipIf(sys.platform == "darwin", "its file systems accept UTF-8 only")
    def test_strange_names_stay_recognisable_in_valid_utf_8(self):
        make_strange_tree(self.tree)
        with open(os.path.join(os.fsencode(self.tree), b"huge-\xff\n"), "wb") as file:
            file.truncate(10**6)
        report = self.complete()
        self.assertEqual(os.path.basename(report["largest"][0][1]), "huge-\\xff\n")

    def test_the_table_of_extensions_has_a_limit_and_loses_nothing(self):
        make_files(self.tree, 1100, "{0}.kind{0}")
        rows = self.complete()["byExtension"]
        self.assertEqual((len(rows), rows["(other)"][0]), (1001, 100))

    def test_the_checkpoint_inside_the_tree_is_not_counted(self):
        make_files(self.tree, 3)
        self.folder = os.path.join(self.tree, "checkpoint")
        report = self.complete()
        self.assertEqual((report["files"], report["directories"]), (3, 1))

    def test_a_link_given_as_dir_means_the_directory_behind_it(self):
        make_files(self.tree, 3)
        os.symlink(self.tree, self.tree + "-link")
        self.assertEqual(self.complete(directory=self.tree + "-link")["files"], 3)

    @unittest.skipIf(os.geteuid() == 0, "root may read everything")
    def test_an_unreadable_directory_is_counted_and_named(self):
        make_strange_tree(self.tree)
        closed, listed = (os.path.join(os.path.realpath(self.tree), name) for name in ("empty", "kinds"))
        for path, mode in ((closed, 0), (listed, 0o444)):
            os.chmod(path, mode)
            self.addCleanup(os.chmod, path, 0o700)
        report = self.complete()
        self.assertEqual(report["unreadable"], 1 + 30)
        self.assertIn([closed, os.strerror(errno.EACCES)], report["unreadableFirst"])
        self.assertEqual(report["directories"], walk(self.tree)["directories"] + 1)

    def test_what_the_system_refuses_is_counted_and_the_list_has_a_limit(self):
        make_files(self.tree, 150)
        lstat = os.lstat

        def refusing(path):
            if path.endswith(b".txt"):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return lstat(path)

        report = self.complete(sabotage=replacing("lstat", refusing))
        self.assertEqual((report["unreadable"], len(report["unreadableFirst"])), (150, 100))
        self.assertEqual((report["files"], report["directories"]), (0, 1))

    def test_names_that_vanish_under_way_are_survived(self):
        make_files(os.path.join(self.tree, "sub"), 5)
        make_files(os.path.join(self.tree, "zub"), 5)
        scandir = os.scandir

        def vanishing(path):
            if path.endswith(b"sub"):
                shutil.rmtree(path)  # after it was found to be a directory
            elif path.endswith(b"zub"):
                entries = list(scandir(path))
                os.remove(entries[0].path)  # after it was listed
                return contextlib.nullcontext(entries)
            return scandir(path)

        report = self.complete(sabotage=replacing("scandir", vanishing))
        self.assertEqual((report["vanished"], report["files"], report["unreadable"]), (2, 4, 0))


class Killed(InventoryTest):
    def test_killed_before_any_step_it_continues_to_the_same_report(self):
        make_files(os.path.join(self.tree, "a"), 2)
        os.symlink("..", os.path.join(self.tree, "a", "loop"))
        undisturbed, kept = self.complete(), 0
        for step in itertools.count(1):
            self.fresh_checkpoint()
            killed = self.attempt("--checkpoint-seconds=0", sabotage=stopping_at(step))
            if killed.code == 0:
                break
            self.assertEqual(killed.code, -signal.SIGKILL, f"step {step}: {killed.err}")
            is_reported = os.path.exists(os.path.join(self.folder, "report.json"))
            resumed = self.attempt(OPS_RESUME="1" if is_reported else "")
            self.assertEqual((resumed.code, resumed.err), (0, ""), f"killed before step {step}")
            self.assertEqual(self.report(), undisturbed, f"killed before step {step}")
            self.assertGreaterEqual(resumed.so_far, kept, f"killed before step {step}, work was lost")
            kept = resumed.so_far
        self.assertEqual(kept, undisturbed["files"])
        self.assertGreater(step, 50)

    def test_killed_again_and_again_at_random_steps_it_completes_to_the_same_report(self):
        make_strange_tree(self.tree)
        undisturbed = self.complete()
        for seed in range(3):
            self.fresh_checkpoint()
            choice, attempts = random.Random(seed), 0
            while True:
                attempts += 1
                seconds = choice.choice((0, 0, 0.0005, 0.002))
                sabotage = stopping_at(choice.randint(1, 400))
                attempt = self.attempt(f"--checkpoint-seconds={seconds}", sabotage=sabotage)
                if attempt.code == 0:
                    break
                self.assertEqual(attempt.code, -signal.SIGKILL, f"seed {seed}: {attempt.err}")
            self.assertEqual(self.report(), undisturbed, f"seed {seed}, attempts: {attempts}")
            self.assertGreater(attempts, 2, f"seed {seed}")

    def test_a_real_process_killed_at_random_moments_completes_to_the_same_report(self):
        make_files(os.path.join(self.tree, "one"), 1000)
        make_files(os.path.join(self.tree, "two", "three"), 1000)
        undisturbed = self.complete()
        self.fresh_checkpoint()
        choice, continued = random.Random(7), 0
        for attempts in range(1, 200):
            process = self.spawn("--checkpoint-seconds=0.005")
            if attempts < 50 and self.has_told(process):
                time.sleep(choice.uniform(0, 0.03))
                process.kill()
            out = process.communicate(timeout=30)[0]
            continued += "files so far: 0\n" not in out
            if process.returncode == 0:
                break
            self.assertEqual(process.returncode, -signal.SIGKILL)
        self.assertEqual(self.report(), undisturbed, f"attempts: {attempts}")
        self.assertGreater(continued, 0)

    def spawn(self, *options):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.folder, "told.json"))
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), self.tree, *options],
            env={**os.environ, **self.environment()},
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )

    def has_told(self, process):
        """Waits for the process to tell progress, or to end. True: it did tell, and lives."""
        while process.poll() is None:
            if os.path.exists(os.path.join(self.folder, "told.json")):
                return True
            time.sleep(0.001)
        return False


class Stopped(InventoryTest):
    def test_sigterm_keeps_what_was_done_and_leaves_with_143(self):
        make_files(self.tree, 30)
        undisturbed = self.complete()
        self.fresh_checkpoint()
        lstat, calls = os.lstat, itertools.count(1)

        def stopping(path):
            if next(calls) == 11:  # DIR itself, then the tenth file
                os.kill(os.getpid(), signal.SIGTERM)
            return lstat(path)

        stopped = self.attempt("--checkpoint-seconds=3600", sabotage=replacing("lstat", stopping))
        self.assertEqual(stopped.code, 143)
        self.assertEqual(self.told()["files"], 10)
        resumed = self.attempt(OPS_RESUME="1", OPS_ATTEMPT="2")
        self.assertEqual(resumed.out.splitlines()[0], "attempt: 2, files so far: 10")
        self.assertEqual(self.report(), undisturbed)

    def test_within_a_huge_directory_it_tells_progress_and_obeys_sigterm(self):
        make_files(self.tree, 3)
        listings = itertools.count()

        def entries(path):
            for number in range(1, 45_001):
                if number == 35_000:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield types.SimpleNamespace(path=b"%s/%d" % (path, number))

        def scandir(path):  # the first time only to see whether DIR can be read
            return contextlib.nullcontext(entries(path)) if next(listings) else os.scandir(path)

        def sabotage(module):
            replacing("scandir", scandir)(module)
            save = module.save
            module.save = lambda path, value: print(value["progressKey"]) or save(path, value)

        stopped = self.attempt("--checkpoint-seconds=0", sabotage=sabotage)
        self.assertEqual(stopped.code, 143)
        self.assertEqual(stopped.out.splitlines()[1:], ["0.10000", "0.20000", "0.30000", "0.40000"])
        self.assertEqual(self.complete()["files"], 3)


class Refused(InventoryTest):
    def test_the_checkpoint_of_another_directory_is_refused_and_stays_good(self):
        make_files(self.tree, 20)
        make_files(self.tree + "-2", 1)
        self.interrupt()
        for resume in ("0", "1", ""):
            refused = self.attempt(directory=self.tree + "-2", OPS_RESUME=resume)
            self.assertEqual(refused.code, 2)
            self.assertIn(f"belongs to {os.path.realpath(self.tree)}, not to", refused.err)
        self.assertEqual(self.complete()["files"], 20)

    def test_what_cannot_work_is_refused_in_one_line_before_any_counting(self):
        make_files(self.tree, 1)
        cases = [
            ("DIR does not exist", [self.tree + "/none"], "cannot read"),
            ("DIR is a file", [self.tree + "/file-0.txt"], "cannot read"),
            ("the report's directory does not exist", [self.tree, "--output=/none/such/report"], "cannot write"),
            ("the report is a directory", [self.tree, "--output", self.tree], "cannot write"),
        ]
        for sentence, arguments, expected in cases:
            with self.subTest(sentence):
                refused = Attempt(arguments, self.environment(), lambda module: None)
                self.assertEqual((refused.code, refused.out, refused.err.count("\n")), (2, "", 1))
                self.assertTrue(refused.err.startswith(f"error: {expected} "), refused.err)

    def test_a_second_inventory_on_the_same_checkpoint_is_turned_away(self):
        make_files(self.tree, 20)
        lstat, calls = os.lstat, itertools.count()

        def meeting_another(path):
            if next(calls) == 10:
                other = self.attempt()
                print(f"the other: {other.code}", "database is locked" in other.err)
            return lstat(path)

        attempt = self.attempt("--checkpoint-seconds=0", sabotage=replacing("lstat", meeting_another))
        self.assertEqual(attempt.code, 0)
        self.assertIn("the other: 74 True\n", attempt.out)
        self.assertEqual(self.report()["files"], 20)

    def test_a_full_disk_is_said_and_is_not_taken_for_an_unreadable_directory(self):
        make_files(self.tree, 20)

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        attempt = self.attempt("--checkpoint-seconds=0", sabotage=replacing("fsync", full))
        self.assertEqual(attempt.code, 74)
        self.assertIn(os.strerror(errno.ENOSPC), attempt.err)
        self.assertEqual(self.complete()["unreadable"], 0)


class Damaged(InventoryTest):
    def damage(self, change):
        with open(self.checkpoint, "rb") as file:
            data = file.read()
        with open(self.checkpoint, "wb") as file:
            file.write(change(data))

    def test_a_damaged_checkpoint_is_said_and_the_count_begins_anew(self):
        make_files(self.tree, 200)
        undisturbed = self.complete()
        cases = [
            ("other content", lambda data: b"not a database" * 500),
            ("the second half is missing", lambda data: data[: len(data) // 2]),
            ("zeros in the middle", lambda data: data[:4096] + bytes(4096) + data[8192:]),
            ("one digit of the totals", lambda data: data.replace(b'"directories": 1', b'"directories": 2')),
            ("one letter of a key", lambda data: data.replace(b'"vanished"', b'"banished"')),
        ]
        for sentence, change in cases:
            with self.subTest(sentence):
                self.fresh_checkpoint()
                self.interrupt(after_names=100)
                self.damage(change)
                attempt = self.attempt(OPS_RESUME="1")
                self.assertEqual((attempt.code, attempt.err.count("\n")), (0, 1), attempt.err)
                self.assertIn("is damaged, beginning anew", attempt.err)
                self.assertEqual(attempt.so_far, 0)
                self.assertEqual(self.report(), undisturbed)

    def test_an_empty_checkpoint_is_one_that_was_killed_before_it_knew_anything(self):
        make_files(self.tree, 20)
        self.interrupt()
        self.damage(lambda data: b"")
        self.assertEqual(self.complete()["files"], 20)


class Environment(InventoryTest):
    def test_after_the_end_only_ops_resume_1_gives_the_same_report_again(self):
        make_files(self.tree, 3)
        self.complete()
        make_files(os.path.join(self.tree, "more"), 3)
        for resume, files in (("1", 3), ("0", 6), ("", 6)):
            with self.subTest(OPS_RESUME=resume):
                self.assertEqual(self.complete(OPS_RESUME=resume)["files"], files)
        make_files(self.tree + "-2", 1)
        self.assertEqual(self.complete(directory=self.tree + "-2")["files"], 1)

    def test_after_the_end_the_checkpoint_takes_no_room_for_the_work(self):
        make_files(self.tree, 1500)
        self.complete()
        self.assertLess(os.path.getsize(self.checkpoint), 30_000)

    def test_ops_resume_0_begins_anew_and_anything_else_continues(self):
        make_files(self.tree, 20)
        for resume, so_far in (("0", 0), ("1", 4), ("", 4)):
            with self.subTest(OPS_RESUME=resume):
                self.fresh_checkpoint()
                self.interrupt()
                self.assertEqual(self.attempt(OPS_RESUME=resume).so_far, so_far)
                self.assertEqual(self.report()["files"], 20)

    def test_progress_is_one_object_without_any_promise_of_an_end(self):
        make_files(self.tree, 20)
        self.interrupt()
        told = self.told()
        self.assertEqual(list(told), ["done", "files", "bytes", "pending names", "progressKey"])
        self.assertEqual((told["files"], told["pending names"], told["progressKey"]), (4, 16, "5.0"))
        self.complete()
        self.assertEqual((self.told()["done"], self.told()["pending names"]), (1, 0))

    def test_by_hand_it_needs_no_environment(self):
        make_files(self.tree, 3)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPS_")}
        command = [sys.executable, str(SCRIPT), "tree", "--output", "out.json"]
        done = subprocess.run(command, cwd=self.top, env=environment, stdout=subprocess.PIPE, check=True)
        self.assertIn(b"files: 3\n", done.stdout)
        self.assertEqual(self.report(os.path.join(self.top, "out.json"))["files"], 3)
        default = os.listdir(os.path.join(self.top, "inventory-checkpoint"))
        self.assertEqual(sorted(default), ["checkpoint.db", "progress.json"])

    @unittest.skipIf(sys.platform == "darwin", "its file systems accept UTF-8 only")
    def test_paths_that_no_terminal_can_show_are_survived_on_all_channels(self):
        root = os.path.join(os.fsencode(self.top), b"\xff\n")
        os.mkdir(root)
        environment = {**os.environ, **self.environment(), "PYTHONIOENCODING": "ascii"}
        command = [sys.executable, str(SCRIPT), root, "--output", root + "/报告.json".encode()]
        done = subprocess.run(command, env=environment, capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, b""))


class Memory(InventoryTest):
    MEASURE = (
        "import runpy, sys, tracemalloc; tracemalloc.start()\n"
        "try: runpy.run_path(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(tracemalloc.get_traced_memory()[1])"
    )

    def peak(self, files, directories):
        """The most memory that Python's objects took at a time. SQLite's own cache is bounded."""
        tree = tempfile.mkdtemp(dir=self.top)
        make_files(os.path.join(tree, "flat"), files, "a rather long name of a file.{}")
        for number in range(directories):
            os.makedirs(os.path.join(tree, "wide", f"a rather long name of a directory {number}"))
        self.fresh_checkpoint()
        command = [sys.executable, "-B", "-c", self.MEASURE, str(SCRIPT), tree]
        done = subprocess.run(command, env={**os.environ, **self.environment()}, stdout=subprocess.PIPE, check=True)
        self.assertEqual(self.report()["files"], files)
        return int(done.stdout.split()[-1])

    def test_memory_does_not_grow_with_the_tree(self):
        small, large = self.peak(1_100, 100), self.peak(8_000, 2_000)
        self.assertLess(large - small, 300_000, f"bytes: {small} for 1,200 names, {large} for 10,000")


if __name__ == "__main__":
    unittest.main()
