"""A token is planted in every field, argument, variable, output, error, progress and answer.

Each home carries a different token in each place; then its commands are typed, its ticks run, its receiver
fails with the token in its words, and everything that a person or a file got is searched: messages, both
outputs of every command, state, history, crash files.  Where a text is cut, the cut may fall into a token:
therefore it is not the whole token that is looked for, but any ten letters of its random part.
"""

from __future__ import annotations

import json
import os
import string

from benchmarks.claims.home import Home, check, long_job, ops, sh, write

CLAIM = "secrets stay in: a token planted anywhere shows up nowhere"
FULL, QUICK = 30, 1
HOMES, QUICK_HOMES = 4, 1  # of one part
WINDOW = 10  # letters of a token that nobody may see in a row
LETTERS = string.ascii_letters + string.digits
# Where texts are cut, in letters.
CUTS = (0, 3, 40, 100, 150, 180, 200, 290, 300, 390, 400, 560, 600, 1000, 1200, 2048, 8192, 16 << 10, 48 << 10, 64 << 10)

# The forms of a token: how it is recognised, and which part of it is the secret.
FORMS = {
    "telegram": ("{digits}:{s}", 35), "openai": ("sk-{s}", 40), "github": ("ghp_{s}", 36), "github fine": ("github_pat_{s}", 50),
    "aws": ("AKIA{upper}", 16),
    "slack": ("xoxb-{s}", 30), "bearer": ("Authorization: Bearer {s}", 30), "labelled": ("password={s}", 20), "quoted": ('"api_key": "{s}"', 24),
    "url": ("https://user:{s}@example.org/", 20), "private key": ("-----BEGIN RSA PRIVATE KEY-----\\n{s}\\n-----END RSA PRIVATE KEY-----", 64),
    "a variable's value": ("{s}", 24),
}  # fmt: skip


class Secret:
    """One token, and the text that carries it."""

    def __init__(self, rng, place):
        self.place, self.form = place, rng.choice(list(FORMS))
        shape, length = FORMS[self.form]
        alphabet = string.ascii_uppercase + string.digits if "{upper}" in shape else LETTERS
        self.core = "".join(rng.choice(alphabet) for _ in range(length))
        self.text = shape.format(s=self.core, upper=self.core, digits=rng.randint(10**8, 10**9)).replace("\\n", "\n")

    @property
    def is_known_by_name(self):
        return self.form == "a variable's value"

    def shows_in(self, text):
        """The first piece of it that can be read in the text, or ''."""
        pieces = (self.core[begin : begin + WINDOW] for begin in range(len(self.core) - WINDOW + 1))
        return next((piece for piece in pieces if piece in text), "")


class Planted:
    """A home full of secrets, and the list of them."""

    def __init__(self, rng):
        self.rng, self.secrets = rng, []
        self.env = {}  # name -> value that the name declares secret

    def plant(self, place):
        """A text for this place with a secret somewhere in it."""
        secret = Secret(self.rng, place)
        self.secrets.append(secret)
        if secret.is_known_by_name:
            self.env[f"SERVICE_{len(self.secrets)}_TOKEN"] = secret.core
        return secret.text

    def line(self, place):
        return self.plant(place).replace("\n", " ")

    def in_a_path(self, place):
        """One that is itself when it stands in a path."""
        while True:
            text = self.line(place)
            if "/" not in text:
                return "/nowhere/" + text
            self.secrets.pop()

    def declare(self, home):
        """What a name declares secret is declared."""
        home.env.update(self.env)

    def padded(self, place):
        """The same in a longer text, with the secret where a cut may fall into it."""
        cut = self.rng.choice(CUTS)
        before = max(0, cut - self.rng.randint(0, 60))
        after = self.rng.choice([0, 5, 50, 300, 8192 - 20, 70_000])
        letter = self.rng.choice(["x", "x y ", "word ", "line\n"])
        pad = lambda size: (letter * (size // len(letter) + 1))[:size]  # noqa: E731
        return f"{pad(before)} {self.plant(place)} {pad(after)}"

    def prints(self, home, name, text, *more):
        """A script that prints this text."""
        home.put(name, text)
        return f"cat {name}; " + "; ".join(more)


def fill(planted, home):
    """Jobs that carry secrets wherever they can."""
    p, rng = planted, planted.rng
    status = {
        "running": True, "completed": False, "progressKey": p.padded("progressKey"), "message": p.padded("message"),
        "stopReason": p.padded("stopReason"), "level": rng.choice(["warn", "alert"]),
        "progress": {p.line("progress key"): 1, "rows": p.padded("progress"), "deep": {"a": [p.line("deep progress")]}},
    }  # fmt: skip
    starts = p.prints(home, "start.out", p.padded("output of start"), "exit 0")
    good = long_job("good", starts, p.prints(home, "stop.out", p.padded("output of stop"), "exit 3"))
    good["name"] = p.line("name")
    good["commands"]["start"].append(p.line("argv of start"))
    home.put("good.status", json.dumps(status) + "\n")
    stopped = {**status, "running": False, "stopReason": p.padded("reason of a stop")}
    home.put("stopped.status", json.dumps(stopped) + "\n")
    fails = p.prints(home, "failed.out", p.padded("output of a failed start"), "exit 3")
    jobs = [
        good,
        long_job("stopped", fails, autoResume=True),
        long_job("odd", status=p.prints(home, "odd.out", p.padded("a status that is no JSON"), "cat odd.out >&2", f"exit {rng.choice([0, 1])}")),
        check("loud", p.prints(home, "loud.out", "ALERT " + p.padded("an attention line"), "exit 0"), everySeconds=60),
        check("fails", p.prints(home, "fails.out", p.padded("output of a failed check"), "cat fails.out >&2; exit 4"), everySeconds=60),
        check("quiet", p.prints(home, "quiet.out", p.padded("output of a run by hand"), "exit 0")),
        {**check("missing", ":", everySeconds=60), "commands": {"run": [p.in_a_path("a program"), p.line("an argument")]}},
        {**check("nowhere", ":", everySeconds=60), "cwd": p.in_a_path("a directory")},
        write("w", p.prints(home, "w.out", p.padded("output of a write"), f"exit {rng.choice([0, 3])}"), "quiet"),
        {"id": "managed", "kind": "long_running_read", "risk": "read_only", "enabled": True, "managed": True, "policy": {"autoResume": True},
         "commands": {"start": sh(p.prints(home, "m.out", p.padded("output of a managed job"), "cat m.progress > $OPS_PROGRESS_FILE; exit 5"))}},
    ]  # fmt: skip
    home.put("m.progress", json.dumps({"message": p.padded("managed message"), "rows": p.line("managed progress"), "level": "warn"}))
    jobs[-2]["commands"]["run"].append(p.line("argv of a write"))
    jobs[-2]["env"] = {"PLAIN": p.line("env of a write")}
    home.config["jobs"] = jobs
    home.config["monitor"] = {"host": p.line("host"), "timezone": p.line("time zone")}
    home.config[p.line("an unknown key")] = p.line("the value of an unknown key")
    for number, (name, value) in enumerate(p.env.items()):
        if number % 2:
            home.env[name] = value
        else:  # in the declared variables of each job, where its output can show it
            for job in jobs:
                job.setdefault("env", {})[name] = value
    home.configure()


def fail_to_deliver(planted, home):
    """The receiver's own words hold a secret, and so does its command."""
    words = planted.padded("words of the receiver")
    home.put("receiver.out", words)
    home.config["delivery"]["command"] = sh("cat receiver.out >&2; cat receiver.out; exit 1")
    planted.declare(home)
    home.configure()


def break_config(planted, home):
    """A config that cannot be read, with a secret where its error is."""
    text = home.read(home.config_path)
    bad = planted.line("a syntax error").replace('"', "")
    home.put(home.config_path, text.replace('"jobs"', f'{bad} "jobs"', 1))
    planted.declare(home)


COMMANDS = (
    ["validate-config"], ["tick", "--dry-run"], ["tick"], ["status"], ["status", "--json"], ["explain", "good"], ["explain", "odd"],
    ["explain", "stopped"], ["explain", "missing"], ["run", "quiet"], ["run", "fails"], ["run", "loud", "--dry-run"], ["run", "missing"],
    ["start", "managed"], ["tick", "--print-only"], ["logs", "managed"], ["logs", "good"], ["start", "stopped"], ["stop", "good"],
    ["approve", "w", "--show"], ["run", "w"], ["run", "w", "--dry-run"], ["tick"],
    ["logs", "w"], ["logs", "stopped"], ["history"], ["history", "--json"], ["explain", "managed"], ["status", "managed", "--json"],
)  # fmt: skip


def prove_home(ledger):
    rng = ledger.rng
    planted = Planted(rng)
    with Home() as home:
        fill(planted, home)
        seen = []

        def call(*argv, **how):
            home.at += 60.0
            done = home.call(*argv, **how)
            home.settle(2.0)
            seen.append((" ".join(argv) + " (stdout)", done.out))
            seen.append((" ".join(argv) + " (stderr)", done.err))
            return done

        for argv in COMMANDS:
            done = call(*argv)
            if argv == ["approve", "w", "--show"]:
                call("approve", "w", "--digest", done.out.rpartition("digest: ")[2].strip())
            ledger.check(done.code not in (70, 99), "it fell:", argv, done)
        entry = {"id": "x", "jobId": planted.line("jobId of a queue entry"), "status": "pending", "notBefore": 0}
        typed = [["start", planted.line("a typed job")], [planted.line("a typed command")], ["status", "--" + planted.line("a typed option")]]
        planted.declare(home)
        state = home.state
        state["queue"].append(entry)
        home.put(home.state_path, json.dumps(state))
        call("tick")
        for argv in typed:
            call(*argv)
        fail_to_deliver(planted, home)
        call("tick")
        call("status")
        call("tick", bend=fall)
        break_config(planted, home)
        for argv in (["tick"], ["tick"], ["validate-config"], ["status"]):
            call(*argv)
        told = home.told
        seen += [("a message", text) for text in told]
        for name in os.listdir(home.root):
            if name.startswith("ops-monitor-crash"):
                seen.append(("a crash file", home.read(name)))
        seen += [("the state", home.read(home.state_path)), ("the history", home.read("net/state/ops-monitor.history.jsonl"))]
    for secret in planted.secrets:
        ledger.case()
        ledger.counts[secret.form] += 1
        for where, text in seen:
            piece = secret.shows_in(text)
            if piece:
                begin = text.index(piece)
                ledger.fail(f"{secret.form} in {secret.place} shows in {where}: …{text[max(0, begin - 80) : begin + 60]!r}…")
                break


def fall():
    """A bug: its crash file must not hold what the bug saw."""

    def compose(lang, entries, *more, **others):
        raise ValueError([entry["text"] for entry in entries])

    ops.compose = compose


def prove(ledger, quick=False):
    for _ in range(QUICK_HOMES if quick else HOMES):
        try:
            prove_home(ledger)
        except Exception:
            ledger.broke("a home")
    return ledger.tally()
