#!/usr/bin/env python3
"""An inventory of a directory tree: how many files, how large, of which kinds. Reads only.

A real job, and the pattern to copy for your own: it may be killed at any moment, any number of
times, and its report still counts every name exactly once. How it does that:

 1. The work is a table on disk. Each row is one piece of it: here, a path to look at. Looking at a
    directory adds the paths in it. All that is known so far is one small dictionary.
 2. Both change in one SQLite transaction, committed each second. A kill takes back what came
    after the last commit, in both; it is done again, and nothing is counted twice.
 3. SIGTERM only sets a flag; the next `pulse` commits and leaves with 143.
 4. Progress is told each second. Its `progressKey` changes when work was really done, also within
    one huge directory: this is how "slow" is told from "stuck".

Counted is each name below DIR, and DIR, as it is when its turn comes; a hard link is a name like
any other. Bytes are lengths, as in `ls -l`. Nothing but directories is opened, symbolic links are
never followed. Fifos, sockets and devices are `other`; names that are gone by then `vanished`;
what the system refuses to show, also a path over its limit, `unreadable`. The checkpoint
directory is left out. Bytes that are not UTF-8 are reported as \\xNN.

Memory does not grow with the tree: what is known is bounded, the work is on disk and done newest
first, so that it stays short. A directory is listed in one piece, of a million names in some
seconds; each name in it is then a piece of its own.
Exit: 0 complete, 2 refused, 74 cannot keep its own files, 143 stopped.
"""

import argparse
import heapq
import json
import os
import signal
import sqlite3
import stat
import sys
import time
import zlib

VERSION = 1  # of the checkpoint; one of another version is not understood
LARGEST = 20  # files named in the report
UNREADABLE = 100  # paths named in the report; all are counted
EXTENSIONS = 1000  # rows of the table; those met when it is full share the row "(other)"


def refuse(text):
    """Ends a run that the caller must mend first."""
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


# ==== THE PATTERN: copy this ====


def save(path, value):
    """The file is all of the old one or all of the new one, whenever we are killed."""
    with open(path + ".new", "w", encoding="ascii") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


class Job:
    """Pieces of work on disk, and what is `known` from those that are done. A subclass says what
    to `do` with a piece, and the `progress` to tell."""

    def __init__(self, folder, subject, first_piece, known, seconds=1.0):
        self.path = os.path.join(folder, "checkpoint.db")
        by_hand = os.path.join(folder, "progress.json")
        self.progress_file = os.environ.get("OPS_PROGRESS_FILE") or by_hand
        self.seconds, self.due_at, self.stop_signal = seconds, 0, None
        try:
            state = self.open()
        except sqlite3.OperationalError:
            raise  # in use by another one, disk full, no permission: anything but damage
        except (sqlite3.DatabaseError, ValueError, TypeError) as damage:
            print(f"warning: {self.path} is damaged, beginning anew: {damage}", file=sys.stderr)
            self.db.close()
            open(self.path + "-journal", "w").close()  # first: it must not be played into a new one
            open(self.path, "w").close()
            state = self.open()
        resume = os.environ.get("OPS_RESUME")  # not set by hand: only the unfinished is continued
        if state and state["finished"] and resume != "1":
            state = None
        if state and state["subject"] != subject:
            refuse(f"{self.path} belongs to {state['subject']}, not to {subject}\n"
                   "help: finish that one, remove it, or set OPS_CHECKPOINT_DIR")  # fmt: skip
        if not state or resume == "0":
            self.db.execute("DELETE FROM todo")
            self.db.execute("INSERT INTO todo VALUES (?)", [first_piece])
            state = {
                "subject": subject,  # another one is refused
                "finished": False,  # the result is written; only OPS_RESUME=1 still looks at this
                "done": 0,  # pieces
                "pending": 1,  # pieces, in `todo`
                "known": known,
            }
        self.state, self.known = state, state["known"]

    def open(self):
        """Opens the checkpoint, for us alone, and a transaction. The state saved last, or None."""
        self.db = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        self.db.execute("PRAGMA fullfsync = ON")  # on macOS as well, a power cut is just a kill
        self.db.execute("PRAGMA auto_vacuum = FULL")  # the file shrinks with the work
        self.db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.db.execute("BEGIN EXCLUSIVE")
        self.db.execute("CREATE TABLE IF NOT EXISTS todo (piece BLOB)")
        self.db.execute("CREATE TABLE IF NOT EXISTS state (json BLOB, crc32 INTEGER)")
        verdict = self.db.execute("PRAGMA quick_check").fetchone()[0]
        row = self.db.execute("SELECT json, crc32 FROM state").fetchone()
        if verdict != "ok" or (row and zlib.crc32(row[0], VERSION) != row[1]):
            raise ValueError("wrong order, checksum or version")
        return json.loads(row[0]) if row else None

    def run(self):
        """Does what is still to do, the newest first, also what is added meanwhile."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.ask_to_stop)
        newest = "SELECT rowid, piece FROM todo ORDER BY rowid DESC LIMIT 1"
        while row := self.db.execute(newest).fetchone():
            self.db.execute("DELETE FROM todo WHERE rowid = ?", row[:1])
            self.do(row[1])
            self.state["done"] += 1
            self.state["pending"] -= 1
            self.pulse()

    def add(self, pieces):
        for count, piece in enumerate(pieces, 1):
            self.db.execute("INSERT INTO todo VALUES (?)", [piece])
            self.state["pending"] += 1
            if count % 10_000 == 0:
                self.pulse(within=count)

    def pulse(self, within=0):
        """Once a second, and when asked to stop: keeps what is done, and tells it. Within a long
        piece, after so many steps of it, it only tells: half a piece is never kept."""
        if time.monotonic() < self.due_at and not self.stop_signal:
            return
        if not within:
            text = json.dumps(self.state).encode()
            row = [text, zlib.crc32(text, VERSION)]
            self.db.execute("REPLACE INTO state (rowid, json, crc32) VALUES (1, ?, ?)", row)
            self.db.execute("COMMIT")
            self.db.execute("BEGIN EXCLUSIVE")
            self.due_at = time.monotonic() + self.seconds
        key = f"{self.state['done']}.{within}"
        save(self.progress_file, {**self.progress(), "progressKey": key})
        if self.stop_signal:
            print("stopped; the next start continues", file=sys.stderr)
            sys.exit(128 + self.stop_signal)

    def ask_to_stop(self, number, _frame):
        self.stop_signal = number

    def finish(self):
        """To be called when the result is safe. An attempt killed before that writes it again."""
        self.state["finished"] = True
        self.stop_signal, self.due_at = None, 0  # too late to stop
        self.pulse()


# ==== THE INVENTORY: put your own work here ====


def shown(path):
    """The path as text, for people."""
    return path.decode("utf-8", "backslashreplace")


class Inventory(Job):
    def __init__(self, folder, root, seconds):
        self.own_directory = os.stat(folder)
        nothing = {
            "directory": shown(root), "directories": 0, "files": 0, "bytes": 0,
            "symlinks": 0, "other": 0, "vanished": 0, "unreadable": 0,
            "unreadableFirst": [],  # [path, why]
            "byExtension": {},  # ".py": [files, bytes]; also "(none)", "(other)"
            "largest": [],  # [bytes, path], a heap
        }  # fmt: skip
        super().__init__(folder, shown(root), root, nothing, seconds)

    def progress(self):
        known = self.known
        return {"done": known["directories"], "files": known["files"], "bytes": known["bytes"],
                "pending names": self.state["pending"]}  # fmt: skip

    def do(self, path):
        """Counts what is at the path; of a directory, adds what is in it."""
        try:
            found = os.lstat(path)
        except OSError as problem:
            return self.note(path, problem)
        if stat.S_ISREG(found.st_mode):
            self.count_file(path, found.st_size)
        elif stat.S_ISLNK(found.st_mode):
            self.known["symlinks"] += 1
        elif not stat.S_ISDIR(found.st_mode):
            self.known["other"] += 1
        elif not os.path.samestat(found, self.own_directory):
            self.add(self.paths_in(path))
            self.known["directories"] += 1

    def paths_in(self, path):
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    yield entry.path
        except OSError as problem:  # of reading; a full disk is raised in `add`, not here
            self.note(path, problem)

    def note(self, path, problem):
        if isinstance(problem, (FileNotFoundError, NotADirectoryError)):
            self.known["vanished"] += 1
            return
        self.known["unreadable"] += 1
        if len(self.known["unreadableFirst"]) < UNREADABLE:
            self.known["unreadableFirst"].append([shown(path), problem.strerror])

    def count_file(self, path, size):
        self.known["files"] += 1
        self.known["bytes"] += size
        rows, largest = self.known["byExtension"], self.known["largest"]
        extension = shown(os.path.splitext(path)[1]).lower() or "(none)"
        if extension not in rows and len(rows) >= EXTENSIONS:
            extension = "(other)"
        files, total = rows.get(extension, (0, 0))
        rows[extension] = [files + 1, total + size]
        heapq.heappush(largest, [size, shown(path)])
        if len(largest) > LARGEST:
            heapq.heappop(largest)

    def report(self):
        """What is known, the largest first."""
        rows = sorted(self.known["byExtension"].items(), key=lambda row: (-row[1][1], row[0]))
        largest = sorted(self.known["largest"], key=lambda row: (-row[0], row[1]))
        return {**self.known, "byExtension": dict(rows), "largest": largest}


def take_inventory(options):
    root = os.path.realpath(os.fsencode(options.dir))
    folder = os.path.abspath(os.environ.get("OPS_CHECKPOINT_DIR") or "inventory-checkpoint")
    output = os.path.abspath(options.output or os.path.join(folder, "report.json"))
    try:
        os.scandir(root).close()
    except OSError as problem:
        refuse(f"cannot read {shown(root)}: {problem.strerror}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.path.isdir(output) or not os.access(os.path.dirname(output), os.W_OK):
        refuse(f"cannot write {output}")  # said now, not after hours of counting
    job = Inventory(folder, root, options.checkpoint_seconds)
    attempt = os.environ.get("OPS_ATTEMPT", "1")
    print(f"attempt: {attempt}, files so far: {job.known['files']}", flush=True)
    job.run()
    report = job.report()
    save(output, report)
    job.finish()
    for word in ("directories", "files", "bytes", "symlinks", "other", "vanished", "unreadable"):
        print(f"{word}: {report[word]}")
    print(f"report: {shown(os.fsencode(output))}")


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Counts what is in DIR. Killed and started again, it continues where it was.",
        epilog="environment: OPS_CHECKPOINT_DIR (default: ./inventory-checkpoint), "
        "OPS_PROGRESS_FILE (default: progress.json in it), OPS_RESUME (0: begin anew)",
    )
    parser.add_argument("dir", metavar="DIR")
    parser.add_argument("--output", metavar="FILE", help="report (default: report.json there, too)")
    parser.add_argument("--checkpoint-seconds", metavar="S", type=float, default=1.0,
                        help="time between two checkpoints (default: %(default)s)")  # fmt: skip
    try:
        take_inventory(parser.parse_args(argv))
        return 0
    except (OSError, sqlite3.Error) as problem:  # of our own files: those in DIR are counted
        print(f"error: cannot keep checkpoint, progress or report: {problem}\n"
              "note: the last checkpoint is intact; if locked, another one is at work with it",
              file=sys.stderr)  # fmt: skip
        return 74


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a strange path must not be what ends us
    sys.exit(main())
