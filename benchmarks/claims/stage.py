"""The real engine in this process, with a clock, commands and a receiver that obey the proof.

    with Stage(config, answer) as stage:
        stage.at += 60.0                a minute later
        stage.tick()                    one whole tick: config read, state file locked, written and synced

`answer(job_id, word, command)` is asked instead of a process: it gives back the bytes that the command
prints, or a dictionary of Outcome's fields.  Everything else is the script's: `do_tick` as it stands.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
from unittest import mock

from benchmarks.claims.home import NOON, scratch
from tests import ops

DAYTIME = {"quietHours": {"start": "00:00", "end": "00:00"}}


def job(job_id, kind=ops.LONG_READ, **more):
    """A job whose commands are questions to `answer`."""
    words = ("start", "status", "stop") if kind == ops.LONG_READ else ("run",)
    risk = "write_local" if kind == ops.WRITE else ops.READ_ONLY
    return {"id": job_id, "kind": kind, "risk": risk, "enabled": True, "commands": {word: ["job", job_id, word] for word in words}, **more}


def status(running=False, completed=False, **more):
    return json.dumps({"running": running, "completed": completed, **more}).encode()


class Stage:
    """One installation, played in this process."""

    def __init__(self, jobs, answer, **config):
        self.answer = answer
        self.at, self.awake, self.boot, self.minutes = NOON, 5000.0, "boot-1", 0
        self.root = scratch("ops-proof-")
        self.told, self.ran, self.complaints = [], [], ""
        self.config = {"version": 1, "defaults": DAYTIME, "delivery": {"via": "command", "command": ["receiver"]}, **config, "jobs": jobs}
        self.files = ops.Files(f"{self.root}/jobs.json", f"{self.root}/state.json", self.root, ops.Places(self.root, None, self.root))
        self.receive = lambda text: {}  # Outcome's fields for a message
        self.read: dict = {}  # configs as understood, by their text: a thousand jobs are not read a thousand times
        self.configure()

    def __enter__(self):
        stage = self

        class StageClock(ops.Clock):
            def __init__(self, timezone=""):
                self.boot, self.zone, self.problem = stage.boot, None, ""

            def now(self):
                return stage.now

        read = ops.read_config
        self.patches = contextlib.ExitStack()
        for name, value in (
            ("Clock", StageClock),
            ("Pool", lambda parallel, now: StagePool(stage, parallel)),
            ("read_config", lambda text: self.read.get(text) or self.read.setdefault(text, read(text))),
        ):
            self.patches.enter_context(mock.patch.object(ops, name, value))
        self.patches.enter_context(mock.patch.dict(os.environ, {"HOME": self.root, "PATH": "/usr/bin:/bin", "TZ": "UTC"}, clear=True))
        return self

    def __exit__(self, *error):
        self.patches.close()
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def now(self):
        return ops.Instant(self.at, self.awake, self.boot, (int(self.at // 60) + self.minutes) % 1440)

    def pass_time(self, seconds):
        self.at += seconds
        self.awake += seconds

    def configure(self):
        self.read.clear()
        with open(self.files.config_file, "w", encoding="utf-8") as file:
            json.dump(self.config, file)

    def tick(self, **flags):
        """One tick; its exit code.  What it prints is in `complaints`."""
        args = argparse.Namespace(**{"dry_run": False, "print_only": False, "target": "", "trust_permissions": False,
                                     "config_file": self.files.config_file, "state_file": self.files.state_file, **flags})  # fmt: skip
        self.ran = []
        printed = io.StringIO()
        with mock.patch.object(sys, "stderr", printed), mock.patch.object(sys, "stdout", printed):
            code = ops.do_tick(self.files, args)
        self.complaints = printed.getvalue()
        return code

    def change(self, apply):
        """Apply a function to the state, as a command by hand would."""
        return ops.Store(self.files.state_file, ops.Clock()).change(apply)[0]

    @property
    def state_bytes(self):
        return os.path.getsize(self.files.state_file)

    @property
    def state(self):
        with open(self.files.state_file, encoding="utf-8") as file:
            return json.load(file)

    def memory(self, job_id):
        return self.state["jobs"].get(job_id, {})

    def history(self):
        return list(ops.history_records(f"{self.root}/state.history.jsonl"))


class StagePool:
    """Answers commands in the order in which they came, at once."""

    def __init__(self, stage, parallel):
        self.stage, self.parallel, self.asked = stage, parallel, []

    @property
    def busy(self):
        return bool(self.asked)

    def add(self, command, token):
        self.asked.append((command, token))

    def wait(self, seconds):
        asked, self.asked = self.asked, []
        return [(token, self.outcome(command)) for command, token in asked]

    def outcome(self, command):
        stage = self.stage
        if command.argv[0] == "receiver":
            given = stage.receive(command.stdin.decode("utf-8"))
            if not given:
                stage.told.append(command.stdin.decode("utf-8"))
        else:
            job_id, word = command.argv[1:] if len(command.argv) == 3 else ("", "")
            stage.ran.append((job_id, word))
            given = stage.answer(job_id, word, command)
        given = {"out": given} if isinstance(given, bytes) else given
        given = {"code": 0, "limit": command.timeout, **given}
        return ops.Outcome(stage.now, stage.now, **{"out_size": len(given.get("out", b"")), **given})

    def forgive(self, seconds):
        pass

    def end_all(self):
        self.asked.clear()
