"""Configs that were damaged in every way are judged: accepted, or refused with a place; never a traceback.

They come from the example, from v1's config and from a generator that uses every setting.  Bytes are changed,
cut, doubled and spliced; values, keys and whole branches are exchanged, wrapped, nested, renamed and removed.
Each goes through `validate-config` as typed, and a share of those that are accepted, in part or whole, is
ticked with commands that are answered by the proof, so that nothing of a damaged config is ever executed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from unittest import mock

from benchmarks.claims.neighbours import ODD, random_bytes, random_text, random_value
from benchmarks.claims.stage import Stage, ops
from tests import ROOT

CLAIM = "configs are judged, never crashed; every refusal names a place"
FULL, QUICK = 50, 1
CASES, QUICK_CASES = 1000, 250  # of one part
TICKED = 0.1  # share of the cases that a tick sees too
PIECES = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"'", b"\\", b"//", b"/*", b"*/", b"\\u", b"\\ud800", b"\0", b"\xff", b"\xef\xbb\xbf",
    b"NaN", b"-", b"1e999", b"0x", b"010", b"null", b"true", b"\n", b"\r", b"\xe2\x80\xa8", b'"jobs":', b'"id": "a",', b"$include",
    b"[" * 300, b'{"a":' * 300, b"9" * 5000,
)  # fmt: skip
PLACE = r"\d+:\d+: error: \S"


def sources():
    """Texts of configs that are good."""
    texts = [(ROOT / "ops-jobs.example.json").read_bytes()]
    texts += [path.read_bytes() for path in sorted((ROOT / "tests" / "data").glob("*jobs*.json"))]
    return texts


def random_setting(rng, field):
    """A value that a row of FIELDS accepts."""
    kind = field.kind
    if kind.section:
        whole = random_section(rng, kind.section)
        return whole if kind.expected == "an object" else [whole, random_section(rng, kind.section)][: rng.randint(1, 2)]
    if "enum" in kind.schema:
        return rng.choice(kind.schema["enum"])
    values = {
        "version": 1, "text": random_text(rng).replace("\0", ""), "id": rng.choice(["a", "b", "c", "job one", "工作"]),
        "text or number": rng.choice(["-100", 777]), "boolean": rng.random() < 0.5, "seconds": rng.choice([0, 1, 0.5, 3600]),
        "count": rng.randint(0, 9), "looks": rng.randint(1, 9), "parallel": rng.randint(1, 64),
        "argv": ["job", rng.choice("abc"), "run"], "texts": ["ALERT"], "environment": {"A": "b"}, "clock": rng.choice(["00:00", "23:59"]),
    }  # fmt: skip
    return values[next(name for name, known in ops.KINDS.items() if known is kind)]


def random_section(rng, name):
    fields = ops.FIELDS[name]
    return {field.key: random_setting(rng, field) for field in fields if field.default is ops.REQUIRED or rng.random() < 0.4}


def random_config(rng):
    jobs = [random_section(rng, "job") for _ in range(rng.randint(0, 6))]
    for number, one in enumerate(jobs):
        if rng.random() < 0.8:
            one["id"] = "abcdef"[number]
    return {**random_section(rng, "config"), "jobs": jobs}


# ---- damage


def places_in(value, path=()):
    """Paths of every value in it."""
    yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in members:
        yield from places_in(item, (*path, key))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def bend(rng, value):
    """One change of the structure."""
    places = [path for path in places_in(value) if path]
    if not places:
        return rng.choice(ODD)
    path = rng.choice(places)
    holder, key = at(value, path[:-1]), path[-1]
    what = rng.randrange(8)
    if what == 0:
        holder[key] = rng.choice(ODD)
    elif what == 1:
        holder[key] = random_value(rng)
    elif what == 2:
        del holder[key]
    elif what == 3:
        holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
    elif what == 4:
        holder[key] = json.loads(json.dumps(at(value, rng.choice(places))))
    elif what == 5 and isinstance(holder, dict):
        name = rng.choice([key.lower(), key[1:], key + "s", random_text(rng), "", "__proto__", "_" + key])
        holder[name] = holder.pop(key)
    elif what == 6 and isinstance(holder, list):
        holder += [json.loads(json.dumps(holder[key]))] * rng.choice([1, 2, 50])
    else:
        for _ in range(rng.choice([1, 5, 150, 400])):
            holder[key] = {"a": holder[key]}
    return value


def break_bytes(rng, text):
    text = bytearray(text)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        place = rng.randrange(len(text) + 1)
        what = rng.randrange(6)
        if what == 0:
            text[place : place + 1] = random_bytes(rng, 2)
        elif what == 1:
            del text[place : place + rng.choice([1, 1, 3, 50, 5000])]
        elif what == 2:
            text[place:place] = rng.choice(PIECES)
        elif what == 3:
            other = rng.randrange(len(text) + 1)
            text[place:place] = text[other : other + rng.choice([1, 10, 300])]
        elif what == 4:
            del text[place:]
        elif place < len(text):
            text[place] ^= 1 << rng.randrange(8)
    return bytes(text)


def damaged(rng, texts):
    """The bytes of one config to judge."""
    text = rng.choice(texts)
    chance = rng.random()
    value = random_config(rng) if chance < 0.5 else json.loads(text)
    if rng.random() < 0.7:
        try:
            for _ in range(rng.choice([1, 1, 2, 3, 8])):
                value = bend(rng, value)
            text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 2])).encode("utf-8", "surrogatepass")
        except (RecursionError, ValueError):
            pass  # nested too deep for us too: the text stays as it was
    if rng.random() < 0.5:
        text = break_bytes(rng, text)
    if rng.random() < 0.03:
        text = text.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-8-sig", "latin-1", "utf-32"]), "replace")
    return text


# ---- judging


class Judge:
    """A place for one config after the other."""

    def __init__(self, ledger, root):
        self.ledger, self.root, self.path = ledger, root, f"{root}/ops-jobs.json"

    def judge(self, text):
        """The exit code of validate-config; its words are checked."""
        with open(self.path, "wb") as file:
            file.write(text)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = ops.run_command_line(["validate-config", "--config-file", self.path, "--state-file", f"{self.root}/state.json"])
        out, err = out.getvalue(), err.getvalue()
        check, shown = self.ledger.check, self.shown(text)
        check(code in (0, 2), "exit code", code, err, shown)
        check("Traceback" not in err and "a bug in" not in err, err, shown)
        check(code != 0 or re.fullmatch(r"OK: version=1 jobs=\d+\n", out), "accepted without a word:", out, shown)
        lines = [line for line in err.splitlines() if "error: " in line and not line.startswith("help: ")]
        check(code != 2 or lines, "refused without a word:", out, err, shown)
        for line in lines:
            place = re.match(re.escape(self.path) + r":(\d+):(\d+): error: \S", line)
            check(place and self.is_in(text, int(place[1]), int(place[2])), "no place, or one beyond the text:", line[:300], shown)
        strange = [line for line in err.splitlines() if not line.startswith((self.path + ":", "help: "))]
        check(not strange, "strange lines:", strange[:3], shown)
        return code

    @staticmethod
    def is_in(text, line, column):
        lines = text.decode("utf-8-sig", "replace").split("\n")
        return 1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1].encode()) + 1

    def tick(self, text):
        """A tick over it: its commands are answered with nothing, and it may say what is wrong, and no more."""
        with Stage([], lambda name, word, command: b"") as stage:
            with open(stage.files.config_file, "wb") as file:
                file.write(text)
            try:
                for _ in range(2):
                    code = stage.tick()
                    self.ledger.check(code in (0, 2, 3), "a tick's exit code", code, self.shown(text))
                    stage.pass_time(60.0)
            except ops.UsageError:
                pass  # it cannot be used at all: said with a place, as above
        self.ledger.counts["ticked"] += 1

    def shown(self, text):
        return text if len(text) < 3000 else text[:1500] + b" [...] " + text[-1500:]


def prove(ledger, quick=False):
    texts = sources()
    with tempfile.TemporaryDirectory(prefix="ops-proof-") as root, mock.patch.dict(os.environ, {"HOME": root, "PATH": "/usr/bin:/bin"}, clear=True), \
            mock.patch.object(tempfile, "tempdir", root):  # fmt: skip
        judge = Judge(ledger, os.path.realpath(root))
        for _ in range(QUICK_CASES if quick else CASES):
            text = damaged(ledger.rng, texts)
            try:
                code = judge.judge(text)
                ledger.case(**{"accepted" if code == 0 else "refused": 1})
                if ledger.rng.random() < TICKED:
                    judge.tick(text)
            except Exception:
                ledger.case(fell=1)
                ledger.broke(judge.shown(text))
    return ledger.tally()
