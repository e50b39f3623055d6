#!/usr/bin/env python3
"""What `ops-monitor.py` costs, each figure beside the least that anything could cost for the same work.

`python3 benchmarks/speed.py` prints one table (about two minutes); `--quick` makes it with small
numbers (about twenty seconds) to see that everything still runs.  README.md here tells how to read it.

How it measures
    Figure and floor are run in turns (A B A B), so that a busy moment hits both.  The smallest and the
    middle one of several runs are shown; the verdict takes the smallest of a time, the largest of a memory.
    Commands are started by a bare interpreter, not by this one: a process begins life with its parent's
    memory peak, so a fat parent would be measured instead of the child.
    Times come from the monotonic clock, CPU and memory from what the kernel says when a child ends.

Nothing is installed, nothing outside a temporary directory is written, nothing but loopback is spoken to.
"""

import argparse
import http.server
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Callable, NamedTuple, Optional

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "ops-monitor.py"
GIB = 1 << 30
MIB = 1 << 20
ANSWER = json.dumps({"running": True, "completed": False, "pid": 4242, "progress": {"done": 1200, "total": 5000}, "progressKey": "1200"})
HEARD = {"via": "command", "command": ["/bin/cat"]}  # takes every message, so that the second tick has nothing left to tell
DAYTIME = {"quietHours": {"start": "00:00", "end": "00:00"}}  # the same table at any hour

RUNNER = """
import json, os, sys, time
peak = 1 if sys.platform == "darwin" else 1024
for line in sys.stdin:
    argv, env, source, complaints = json.loads(line)
    files = [(0, source, os.O_RDONLY), (1, os.devnull, os.O_WRONLY), (2, complaints, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)]
    actions = [(os.POSIX_SPAWN_OPEN, fd, path, flags, 0o600) for fd, path, flags in files]
    began = time.monotonic()
    pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions)
    _, status, used = os.wait4(pid, 0)
    wall = time.monotonic() - began
    print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss * peak, os.waitstatus_to_exitcode(status)]), flush=True)
"""


class Sample(NamedTuple):
    """What one run of one command cost, its children included."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    peak: float  # bytes resident


class Task(NamedTuple):
    """A command to measure."""

    argv: list
    source: str = os.devnull  # file on its standard input
    before: Callable[[], None] = lambda: None  # done before each run, not measured
    after: Callable[[], None] = lambda: None  # the same behind it: checks that the work was done


class Goal(NamedTuple):
    """What a figure must not pass, and the words for it."""

    words: str
    limit: float


NO_GOAL = Goal("", float("inf"))


class Workshop:
    """A temporary installation, and the bare interpreter that starts what is measured."""

    def __init__(self, directory: str, lang: str):
        self.root = pathlib.Path(directory)
        self.home = self.root / "home"
        (self.home / ".openclaw").mkdir(parents=True)
        self.script = self.root / "tool" / SCRIPT.name
        self.script.parent.mkdir()
        shutil.copy(SCRIPT, self.script)  # its bytecode cache stays in the temporary directory too
        self.complaints = str(self.root / "stderr")
        self.env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.home), "LANG": lang}
        argv = [sys.executable, "-I", "-S", "-c", RUNNER]
        self.runner = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=self.root, text=True)

    def close(self) -> None:
        self.runner.stdin.close()
        self.runner.wait()
        self.runner.stdout.close()

    def measure(self, task: Task) -> Sample:
        """One run.  Ends the program if the command fails: its cost would mean nothing."""
        task.before()
        self.runner.stdin.write(json.dumps([task.argv, self.env, task.source, self.complaints]) + "\n")
        self.runner.stdin.flush()
        wall, cpu, peak, code = json.loads(self.runner.stdout.readline())
        if code:
            sys.exit(f"exit {code}: {' '.join(task.argv)[:300]}\n{pathlib.Path(self.complaints).read_text()[-2000:]}")
        task.after()
        return Sample(wall, cpu, peak)

    def in_turns(self, runs: int, *tasks: Task) -> list:
        """A list of samples for each task: all tasks once unmeasured, then A B C A B C …"""
        for task in tasks:
            self.measure(task)
        rounds = [[self.measure(task) for task in tasks] for _ in range(runs)]
        return [list(samples) for samples in zip(*rounds)]

    def file(self, name: str, content: str) -> str:
        path = self.root / name
        path.write_text(content, encoding="utf-8")
        return str(path)

    def installation(self, name: str, jobs: list, **more: object) -> "Installation":
        folder = self.root / name
        folder.mkdir()
        config = self.file(f"{name}/jobs.json", json.dumps({"version": 1, "jobs": jobs, "defaults": DAYTIME, **more}))
        return Installation(self, config, str(folder / "state.json"))


class Installation(NamedTuple):
    """One config with its state."""

    shop: Workshop
    config: str
    state: str

    def argv(self, command: str, *words: str) -> list:
        return [sys.executable, str(self.shop.script), command, *words, "--config-file", self.config, "--state-file", self.state]

    def scheduled(self) -> list:
        """A tick as a scheduler calls it: a bare interpreter, the script as a module from Python's bytecode cache."""
        words = ["tick", "--config-file", self.config, "--state-file", self.state]
        folder, module = str(self.shop.script.parent), self.shop.script.stem
        return bare(f"import sys; sys.path.insert(0, {folder!r}); __import__({module!r}).run_and_exit({words!r})")

    def content(self) -> dict:
        return json.loads(pathlib.Path(self.state).read_text(encoding="utf-8"))


def bare(program: str) -> list:
    return [sys.executable, "-I", "-S", "-c", program]


# ---- the table


WIDTHS = (49, 21, 21, 17, 17)


def print_line(*cells: str) -> None:
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, (*WIDTHS, 0))).rstrip(), flush=True)


def shown(values: list, unit: str) -> str:
    """`min / median unit`, or the one value."""
    scale, digits = {"ms": (1000, 1), "s": (1, 2), "MB": (1 / 1e6, 1), "B": (1, 0), "": (1, 0)}[unit]
    pair = [min(values), statistics.median(values)] if len(values) > 1 else values
    return " / ".join(f"{value * scale:.{digits}f}" for value in pair) + f" {unit}"


def print_row(name: str, unit: str, ours: list, floor: Optional[list] = None, relation: str = "", goal: Goal = NO_GOAL) -> None:
    """One figure.  `relation` to its floor: `ratio`, `above` (the difference), or nothing."""
    against, judged = "", max(ours) if unit in ("MB", "B") else min(ours)
    if relation == "ratio":
        judged = min(ours) / min(floor)
        against = f"{judged:.2f} / {statistics.median(ours) / statistics.median(floor):.2f} x"
    elif relation == "above":
        judged = min(ours) - min(floor)
        against = "+" + shown([judged, statistics.median(ours) - statistics.median(floor)], unit)
    if unit == "MB":
        ours, floor = [max(ours)], [max(floor)] if floor else floor
    verdict = "" if not goal.words else "met" if judged <= goal.limit else "MISSED"
    print_line(name, shown(ours, unit), shown(floor, unit) if floor else "-", against, goal.words, verdict)


def column(samples: list, name: str) -> list:
    return [getattr(sample, name) for sample in samples]


# ---- what is measured


def idle_ticks(shop: Workshop, runs: int) -> None:
    """A tick with nothing to do: what every minute costs.  The goal is for the form that `schedule install` writes."""
    empty = shop.installation("idle", [])
    forms = (("tick, no jobs, as a scheduler calls it", empty.scheduled(), bare("pass"), Goal("<= 45 ms above", 0.045)),
             ("tick, no jobs, as typed", empty.argv("tick"), [sys.executable, "-c", "pass"], NO_GOAL))  # fmt: skip
    for name, argv, nothing, goal in forms:
        ours, floor = shop.in_turns(runs, Task(argv), Task(nothing))
        print_row(f"{name}: CPU", "ms", column(ours, "cpu"), column(floor, "cpu"), "above", goal)
        print_row(f"{name}: wall", "ms", column(ours, "wall"), column(floor, "wall"), "above")
        print_row(f"{name}: memory", "MB", column(ours, "peak"), column(floor, "peak"))


def long_job(number: int, status: list, **more: object) -> dict:
    commands = {"start": ["/bin/echo", "started"], "status": status}
    return {"id": f"job-{number:05}", "kind": "long_running_read", "risk": "read_only", "enabled": True, "cwd": "/", "commands": commands, **more}


def many_jobs(shop: Workshop, count: int, runs: int) -> None:
    """Steady state: every job was seen and told before, and now nothing has changed."""
    here = shop.installation(f"many-{count}", [long_job(number, ["/bin/echo", ANSWER]) for number in range(count)], delivery=HEARD)
    words = shop.file(f"many-{count}/words", f"{ANSWER}\0" * count)
    floors = [Task(["xargs", "-0", "-P", str(width), "-n", "1", "/bin/echo"], words) for width in (16, 32)]
    ours, scheduled, floor16, floor32 = shop.in_turns(runs, Task(here.argv("tick")), Task(here.scheduled()), *floors)
    big = count >= 1000
    goal = Goal("<= 1.15 x", 1.15) if big else NO_GOAL
    name = f"{count:,} jobs"
    print_row(f"{name}, as scheduled: wall, xargs -P 16", "s", column(scheduled, "wall"), column(floor16, "wall"), "ratio", goal)
    print_row(f"{name}, as scheduled: wall, xargs -P 32", "s", column(scheduled, "wall"), column(floor32, "wall"), "ratio")
    print_row(f"{name}, as scheduled: CPU, xargs -P 16", "s", column(scheduled, "cpu"), column(floor16, "cpu"), "ratio")
    print_row(f"{name}, as typed: wall, xargs -P 16", "s", column(ours, "wall"), column(floor16, "wall"), "ratio")
    if big:
        print_row(f"{name}, as scheduled: memory", "MB", column(scheduled, "peak"), None, "", Goal("< 45 MB", 45e6))
        print_row(f"{name}, as typed: memory", "MB", column(ours, "peak"))
    size = os.path.getsize(here.state) / count
    print_row(f"{name}: state a job", "B", [size], None, "", Goal("< 1 KB", 1000) if big else NO_GOAL)


def slow_statuses(shop: Workshop, runs: int) -> None:
    """A hundred status commands that think for 0.2 s."""
    program = f"sleep 0.2; echo '{ANSWER}'"
    here = shop.installation("slow", [long_job(number, ["/bin/sh", "-c", program]) for number in range(100)], delivery=HEARD)
    words = shop.file("slow/words", f"{program}\0" * 100)
    floor = Task(["xargs", "-0", "-P", "32", "-n", "1", "/bin/sh", "-c"], words)
    goal = Goal("<= 1.2 x", 1.2)
    ours, scheduled, theirs = shop.in_turns(runs, Task(here.argv("tick")), Task(here.scheduled()), floor)
    print_row("100 jobs of 0.2 s, as scheduled: wall, xargs -P 32", "s", column(scheduled, "wall"), column(theirs, "wall"), "ratio", goal)
    print_row("100 jobs of 0.2 s, as typed: wall, xargs -P 32", "s", column(ours, "wall"), column(theirs, "wall"), "ratio", goal)


def hung_statuses(shop: Workshop, runs: int) -> None:
    """One in five hangs; the others must be seen all the same."""
    policy = {"statusTimeoutSeconds": 2}
    jobs = [long_job(number, ["/bin/sleep", "60"] if number % 5 == 0 else ["/bin/echo", ANSWER], policy=policy) for number in range(100)]
    here = shop.installation("hung", jobs, delivery=HEARD)
    seen: list = []

    def count_seen() -> None:
        looks = [memory.get("lastLook") for memory in here.content()["jobs"].values()]
        seen.append((looks.count("running"), looks.count("unknown")))

    samples = [shop.measure(Task(here.argv("tick"), after=count_seen)) for _ in range(runs)]
    print_row("20 of 100 hang, limit 2 s: wall", "s", column(samples, "wall"), [2.0], "", Goal("< 5 s", 5.0))
    running, unknown = min(seen)
    verdict = "met" if (running, unknown) == (80, 20) else "MISSED"
    print_line("20 of 100 hang: others seen, hung noticed", f"{running}, {unknown}", "80, 20", "", "80, 20", verdict)


def floods(shop: Workshop, size: int, runs: int) -> None:
    """A check that prints without end; every byte of it is searched for what needs attention."""
    text = f"{size // MIB} MiB"
    programs = (("of zeros", f"exec head -c {size} /dev/zero"), ("of lines", f"yes 'all is well, alerts: 0' | head -c {size}"))
    for number, (name, program) in enumerate(programs):
        job = {"id": "flood", "kind": "one_shot_read", "risk": "read_only", "enabled": True, "cwd": "/"}
        job.update(commands={"run": ["/bin/sh", "-c", program]}, policy={"everySeconds": 0.001})
        here = shop.installation(f"flood-{number}", [job], delivery=HEARD)
        floor = Task(["/bin/sh", "-c", f"({program}) | cat > /dev/null"])
        began = time.time()

        def check_ran(here: Installation = here, began: float = began) -> None:
            memory = here.content()["jobs"]["flood"]
            assert memory["ranAt"] >= began and not memory.get("ranCode"), memory

        ours, scheduled, theirs = shop.in_turns(runs, Task(here.argv("tick"), after=check_ran), Task(here.scheduled(), after=check_ran), floor)
        print_row(f"{text} {name}, as scheduled: wall, | cat", "s", column(scheduled, "wall"), column(theirs, "wall"), "ratio", Goal("<= 2 x", 2.0))
        print_row(f"{text} {name}, as scheduled: memory", "MB", column(scheduled, "peak"), column(theirs, "peak"), "", Goal("< 20 MB", 20e6))
        print_row(f"{text} {name}, as typed: memory", "MB", column(ours, "peak"), column(theirs, "peak"))


def big_config(shop: Workshop, count: int, runs: int) -> None:
    here = shop.installation("config", [long_job(number, ["/bin/echo", ANSWER]) for number in range(count)])
    floor = [sys.executable, "-c", f"import json; json.load(open({here.config!r}))"]
    ours, theirs = shop.in_turns(runs, Task(here.argv("validate-config")), Task(floor))
    print_row(f"validate-config, {count:,} jobs, json.load: wall", "s", column(ours, "wall"), column(theirs, "wall"), "ratio")
    print_row(f"validate-config, {count:,} jobs", "s", column(ours, "wall"), None, "", Goal("< 1 s", 1.0))


class BotApi(http.server.BaseHTTPRequestHandler):
    """A Bot API that takes everything."""

    taken: list = []

    def do_POST(self) -> None:
        self.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
        answer = json.dumps({"ok": True, "result": {"message_id": len(self.taken)}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: object) -> None:
        pass


def one_delivery(shop: Workshop, runs: int) -> None:
    """A tick that finds one message waiting, against one that finds none."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BotApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    telegram = {"botToken": "123456:" + "A" * 35, "apiRoot": f"http://127.0.0.1:{server.server_port}", "allowFrom": ["777000111"]}
    shop.file("home/.openclaw/openclaw.json", json.dumps({"channels": {"telegram": telegram}}))
    here, idle = shop.installation("delivery", []), shop.installation("no-delivery", [])

    def put_message() -> None:
        now = time.time()
        entry = {"id": "0123456789ab", "createdAt": now, "notBefore": now, "rank": 3, "text": "ACTION REQUIRED: a section of usual length\n" * 8}
        pathlib.Path(here.state).write_text(json.dumps({"version": 2, "outbox": [entry]}), encoding="utf-8")

    BotApi.taken.clear()
    ours, floor = shop.in_turns(runs, Task(here.argv("tick"), before=put_message), Task(idle.argv("tick")))
    server.shutdown()
    server.server_close()
    assert len(BotApi.taken) == runs + 1, f"messages sent: {runs + 1}, taken: {len(BotApi.taken)}"
    print_row("one message to a loopback Bot API: CPU", "ms", column(ours, "cpu"), column(floor, "cpu"), "above")
    print_row("one message to a loopback Bot API: wall", "ms", column(ours, "wall"), column(floor, "wall"), "above")
    print_row("one message to a loopback Bot API: memory", "MB", column(ours, "peak"), column(floor, "peak"))


def resident_bytes(pid: int) -> float:
    """Memory of a living process, as `ps` and `/proc/PID/status` (VmRSS) say it."""
    answer = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], stdout=subprocess.PIPE, text=True, check=True)
    return float(answer.stdout) * 1024


def supervisor(shop: Workshop) -> None:
    """What stays in memory beside a managed job."""
    job = {"id": "kept", "kind": "long_running_read", "risk": "read_only", "managed": True, "cwd": "/", "commands": {"start": ["/bin/sleep", "60"]}}
    here = shop.installation("managed", [job])
    shop.measure(Task(here.argv("start", "kept")))
    record = json.loads(next(pathlib.Path(here.state[: -len(".json")] + ".jobs").glob("*/run.json")).read_text())
    nothing = subprocess.Popen(bare("import time; time.sleep(60)"))
    try:
        time.sleep(0.5)
        print_row("supervisor of a managed job, bare python: memory", "MB", [resident_bytes(record["supervisor"])], [resident_bytes(nothing.pid)])
    finally:
        nothing.kill()
        nothing.wait()
        shop.measure(Task(here.argv("stop", "kept")))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure ops-monitor.py against the least that the same work can cost.")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that everything runs; its verdicts mean little")
    parser.add_argument("--lang", default="C", metavar="LOCALE", help="LANG of all that is measured; default: C, where an `echo` is cheapest")
    args = parser.parse_args()
    quick = args.quick
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, CPUs: {os.cpu_count()}, LANG: {args.lang}, load: {load}{', quick' * quick}")
    print_line("figure, floor", "min / median", "floor", "against the floor", "goal")
    print_line(*("-" * width for width in (*WIDTHS, 6)))
    with tempfile.TemporaryDirectory(prefix="ops-speed-") as directory:
        shop = Workshop(directory, args.lang)
        try:
            idle_ticks(shop, 3 if quick else 15)
            for count, runs in ((10, 3), (100, 2)) if quick else ((10, 11), (100, 9), (1000, 7)):
                many_jobs(shop, count, runs)
            slow_statuses(shop, 1 if quick else 5)
            hung_statuses(shop, 1 if quick else 3)
            floods(shop, 64 * MIB if quick else GIB, 1 if quick else 3)
            big_config(shop, 1000 if quick else 10_000, 1 if quick else 5)
            one_delivery(shop, 2 if quick else 9)
            supervisor(shop)
        finally:
            shop.close()


if __name__ == "__main__":
    main()
