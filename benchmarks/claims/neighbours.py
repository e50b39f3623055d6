"""One job's commands answer anything at all; its neighbours must be treated as if it were not there.

Most cases give the answer to the engine as the outcome of a command, through the same code that real
outcomes take; a share of them runs real commands that print, hang, flood, die and fork.  What a tick
remembers of the neighbours, runs for them, queues for them and tells of them is compared, word by
word, with the same ticks over a config without the job that misbehaves.
"""

from __future__ import annotations

import contextlib
import json
import random

from benchmarks.claims import home as homes
from benchmarks.claims.stage import Stage, job, ops, status

CLAIM = "one job cannot hide or change another, whatever its commands answer"
FULL, QUICK = 40, 1
CASES, REAL = 500, 8  # of one part
QUICK_CASES, QUICK_REAL = 120, 2
VICTIM = "victim"
LIMIT = ops.STATUS_LIMIT

# Values that a status answer may hold where another was expected.
ODD = (None, True, False, 0, 1, -1, 4242, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, "", "text", "0", " ", "\0", "\x1b[31m", "\ud800",
       "🔴 ALERT · watched\n", "x" * 5000, "\u202e", "e\u0301",
       [], [1], {}, {"a": {"b": [None]}}, [[[[[[]]]]]], {"done": 1, "total": 0}, {"": ""})  # fmt: skip
KEYS = ("running", "completed", "pid", "stopReason", "progress", "progressKey", "level", "message", "waiting", "extra", "")
TEXTS = (
    b"", b" \n", b"null", b"[]", b"{", b'{"running": true', b"NaN", b'{"running": NaN, "completed": false}',
    b"\xff\xfe", b"\xef\xbb\xbf{}", b"\0" * 64,
    b"[" * 100_000, b'{"a":' * 50_000, b'{"running": true, "running": false, "completed": false}', b'"\\ud800"', b"ALERT\nACTION REQUIRED\n" * 500,
    b'{"running": true, "completed": false, "progress": {"x": 1e999}}', b'{"running": 1, "completed": 0}', "{'running': true}".encode("utf-16"),
)  # fmt: skip


def random_value(rng, depth=0):
    chance = rng.random()
    if depth < 4 and chance < 0.15:
        return {random_text(rng): random_value(rng, depth + 1) for _ in range(rng.randint(0, 5))}
    if depth < 4 and chance < 0.25:
        return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 5))]
    if chance < 0.4:
        return rng.choice([rng.randint(-(2**70), 2**70), rng.random() * 10 ** rng.randint(-300, 300)])
    return random_text(rng) if chance < 0.6 else rng.choice(ODD)


LETTERS = [*map(chr, range(128)), *map(chr, range(0x80, 0x10000, 97)), *map(chr, range(0x1F300, 0x1F700, 17)), "\ud800", "\udfff", "\u202e"]


def random_text(rng):
    return "".join(rng.choices(LETTERS, k=rng.randint(0, 40)))


def random_bytes(rng, most):
    count = rng.randint(0, most)
    return rng.getrandbits(8 * count + 1).to_bytes(count + 1, "big")[:count]


def random_answer(rng):
    """What a status command may print."""
    chance = rng.random()
    if chance < 0.1:
        return rng.choice(TEXTS)
    if chance < 0.2:
        return random_bytes(rng, 3000)
    answer = {"running": rng.random() < 0.5, "completed": rng.random() < 0.2}
    for _ in range(rng.randint(0, 6)):
        answer[rng.choice(KEYS)] = random_value(rng)
    text = json.dumps(answer, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance < 0.4:  # bytes are changed, cut or doubled
        text = bytearray(text)
        for _ in range(rng.randint(1, 5)):
            place = rng.randrange(len(text) + 1)
            text[place : place + rng.randint(0, 3)] = random_bytes(rng, 3)
        text = bytes(text)
    return text + b" " * (LIMIT if chance > 0.995 else 0)


def random_outcome(rng):
    """Outcome's fields for anything that a command can do."""
    given = {"out": random_answer(rng), "err": random_answer(rng) if rng.random() < 0.3 else b""}
    chance = rng.random()
    if chance < 0.3:
        given["code"] = rng.choice([1, 2, 3, 75, 126, 127, 255, -1, -9, -11, -15, -64, rng.randint(-64, 255)])
    elif chance < 0.37:
        given.update(code=rng.choice([None, -15, -9]), timed_out=True)
    elif chance < 0.44:
        row = rng.choice(["run.missing", "run.no_cwd", "run.denied", "run.cannot"])
        given.update(code=None, failure=ops.Phrase(row, {"program": random_text(rng), "cwd": random_text(rng), "error": random_text(rng)}))
    if rng.random() < 0.2:
        given["attention"] = tuple(random_answer(rng)[:600] for _ in range(rng.randint(1, 20)))
    return given


def random_victim(rng, commands=None):
    """The job that misbehaves: of any kind, with any policy."""
    kind = rng.choice([ops.LONG_READ, ops.LONG_READ, ops.LONG_READ, ops.CHECK])
    policy = {
        "autoResume": rng.random() < 0.5, "autoResumeBackoffSeconds": rng.choice([0, 60]), "stallSeconds": rng.choice([0, 50, 3600]),
        "onStall": rng.choice(["alert", "restart"]), "everySeconds": 60 if kind == ops.CHECK else 0, "alertAfter": rng.choice([1, 2]),
        "reportEverySeconds": rng.choice([0, 60]), "minReportSeconds": 0, "statusTimeoutSeconds": 1, "runTimeoutSeconds": 1, "startTimeoutSeconds": 1,
    }  # fmt: skip
    made = job(VICTIM, kind, name=random_text(rng).replace("\0", "") or None, policy=policy)
    if rng.random() < 0.3:
        made["after"] = [{"jobId": "plain", "when": rng.choice(["success", "failure", "always"]), "delaySeconds": 7200}]
    return {**made, "commands": commands} if commands else made


# ---- the neighbours: one of each sort, and what they do from tick to tick

NEIGHBOURS = ("watched", "resumed", "finished", "blind", "slow", "plain", "failing", "then")


def neighbours():
    quick = {"autoResume": True, "autoResumeBackoffSeconds": 60, "minReportSeconds": 0}
    return [
        job("watched", policy={"minReportSeconds": 0}),
        job("resumed", policy=quick),
        job("finished", after=[{"jobId": "then"}]),
        job("blind"),
        job("slow", policy={"stallSeconds": 100}),
        job("plain", ops.CHECK, policy={"everySeconds": 60}),
        job("failing", ops.CHECK, policy={"everySeconds": 60}, after=[{"jobId": "then", "when": "failure", "delaySeconds": 30}]),
        job("then", ops.CHECK),
    ]


def answer_well(turn, job_id, word):
    """What a neighbour's command answers at a tick."""
    answers = {
        ("watched", "status"): lambda: status(running=True, progress={"done": turn * 10, "total": 100}, pid=4242),
        ("resumed", "status"): lambda: status(running=turn == 2, progressKey=str(turn), stopReason="the disk went away"),
        ("finished", "status"): lambda: status(running=turn == 0, completed=turn > 0),
        ("blind", "status"): lambda: b"no JSON" if turn == 1 else status(running=True, progressKey="1"),
        ("slow", "status"): lambda: status(running=True, progressKey="same"),
        ("failing", "run"): lambda: {"code": 3 if turn < 2 else 0, "err": b"the pond is empty"},
    }
    return answers.get((job_id, word), lambda: b"")()


class Seen:
    """What some ticks remembered, ran and told of the neighbours."""

    def __init__(self, stage, ran):
        state = stage.state
        self.memories = {name: state["jobs"].get(name) for name in NEIGHBOURS}
        self.ran = sorted(item for item in ran if item[1] != VICTIM)
        hidden = ("id", "by")
        own = [entry for entry in state["queue"] if entry.get("by") != f"after {VICTIM}"]
        self.queue = sorted(json.dumps({key: value for key, value in entry.items() if key not in hidden}, sort_keys=True) for entry in own)
        history = [item for item in stage.history() if item.get("job") in NEIGHBOURS and item.get("by") != f"after {VICTIM}"]
        self.history = json.dumps(history).replace(stage.root, "~")
        told = [text.replace(stage.root, "~") for message in stage.told for text in sections(message)]
        self.sections = sorted(text for text in told if VICTIM not in text.splitlines()[0])

    def differences(self, other):
        return [f"{name}: {mine} != {theirs}" for name, mine in vars(self).items() for theirs in [vars(other)[name]] if mine != theirs]


def sections(message):
    """The sections of a message, its header left out."""
    return message.split("\n\n")[1:]


def play(jobs, victim_answers, turns):
    """Some ticks over these jobs."""
    turn = [0]

    def answer(job_id, word, command):
        return answer_well(turn[0], job_id, word) if job_id != VICTIM else victim_answers(turn[0], word)

    with Stage(jobs, answer) as stage:
        ran, codes = [], []
        for turn[0] in range(turns):
            codes.append(stage.tick())
            ran += [(turn[0], *item) for item in stage.ran]
            stage.pass_time(60.0)
        return Seen(stage, ran), codes, stage.complaints


def prove_played(ledger, cases):
    rng = ledger.rng
    undisturbed = {turns: play(neighbours(), None, turns)[0] for turns in (1, 2, 3)}
    for number in range(cases):
        case_seed = rng.getrandbits(40)
        own = random.Random(case_seed)
        jobs = neighbours()
        victim = random_victim(own)
        jobs.insert(own.randrange(len(jobs) + 1), victim)
        given = {}

        def answers(turn, word, own=own, given=given):
            return given.setdefault((turn, word), random_outcome(own))

        turns = own.choice([1, 1, 2, 3])
        alone = undisturbed[turns]
        ledger.case(played=1)
        try:
            seen, codes, complaints = play(jobs, answers, turns)
        except Exception:
            ledger.broke("case", number, victim, given)
            continue
        spoken = set(alone.sections)
        seen.sections = sorted(text for text in seen.sections if text in spoken)  # what is left is of the victim
        differences = seen.differences(alone)
        ledger.check(not differences, "case", number, *differences, victim, given)
        ledger.check(set(codes) == {0} and not complaints, "case", number, "a tick is not clean:", codes, complaints, victim, given)


# ---- with real commands

TRICKS = (
    "exit {code}",
    "kill -{signal} $$",
    "head -c {size} /dev/urandom",
    "head -c {size} /dev/zero | tr '\\0' A",
    "printf '%s' '{{\"running\": true, \"completed\": false}}'; sleep 30",
    "sleep 30 & echo '{{\"running\": true, \"completed\": false}}'",
    "exec 1>&- 2>&-; sleep 30",
    "trap '' TERM; printf 'ALERT\\n'; exec 1>&-; sleep 30",
    "yes ALERT | head -c {size}; kill -9 $$",
    "printf '\\377\\376\\000{{}}'; exit {code}",
    "cat < /dev/stdin; ulimit -n 0; exit 1",
    "kill -STOP $$; echo never",
    "rm -f state.json jobs.json; echo '{{}}'",
    "for i in 1 2 3 4 5 6 7 8; do (sleep 30 &) ; done; echo '[]'",
    "nosuchprogram",
    "printf '%s' '{text}'",
)


def random_trick(rng):
    text = json.dumps({"running": True, "completed": False, "message": random_text(rng), "progress": random_value(rng)}).replace("'", "")
    number, size = rng.choice([1, 2, 3, 6, 9, 11, 13, 15]), rng.choice([100, 70_000, 3_000_000])
    facts = {"code": rng.randint(0, 255), "signal": number, "size": size, "text": text}
    return rng.choice(TRICKS).format(**facts)


def real_neighbours():
    """Neighbours with commands: `says ID` is the file that holds the answer."""
    jobs = [homes.long_job("watched", minReportSeconds=0), homes.long_job("stopped"), homes.long_job("level"), homes.long_job("blind"),
            homes.check("failing", "echo x >> failing.runs; echo the pond is empty >&2; exit 3", everySeconds=60),
            homes.check("attends", "echo ALERT: the pond; exit 0", everySeconds=60)]  # fmt: skip
    return jobs


def arrange(home, turn):
    home.says("watched", running=True, progress={"done": turn * 10, "total": 100})
    home.says("stopped", stopReason="the disk went away", progressKey=str(turn))
    home.says("level", running=True, level="warn" if turn else "alert", message="low water")
    home.put("blind.status", "no JSON\n" if turn else '{"running": true, "completed": false}\n')


def steady(memory):
    """A memory without what the clock of a real process makes different each time."""
    if isinstance(memory, dict):
        return {key: steady(value) for key, value in memory.items() if not key.endswith(("At", "Awake")) and key not in ("stalledFor", "flips")}
    return memory


def hurry():
    """A command that hangs is given up sooner than in real life."""
    ops.GRACE = 0.3


def hurry_shared():
    """The same, with looks from two processes however few they are."""
    hurry()
    ops.SHARED_LOOKS = 2, 100


def play_really(*configs):
    """For each config: (memories, sections, runs of a check) after two real ticks; all of them side by side."""
    with contextlib.ExitStack() as stack:
        rooms = [stack.enter_context(homes.Home(jobs)) for jobs in configs]
        for turn in range(2):
            begun = []
            for number, home in enumerate(rooms):
                arrange(home, turn)
                begun.append(home.begin("tick", bend=hurry_shared if number % 2 else hurry))
            done = [call.end() for call in begun]
            for home in rooms:
                home.at += 75.0  # the slot of a minute has passed, however slow the machine is
        return [found_in(home, call) for home, call in zip(rooms, done)]


def found_in(home, call):
    memories = {name: steady(home.memory(name)) for name in ("watched", "stopped", "level", "blind", "failing", "attends")}
    told = sorted(text.replace(home.root, "~") for message in home.told for text in sections(message) if VICTIM not in text)
    return memories, told, home.lines("failing.runs"), call.code, call.err


def prove_real(ledger, cases):
    victims = []
    for _ in range(cases):
        trick = random_trick(ledger.rng)
        victim = random_victim(ledger.rng)
        victim["name"], victim["commands"] = VICTIM, dict.fromkeys(victim["commands"], homes.sh(trick))
        victim.pop("after", None)
        victims.append(victim)
        ledger.case(real=1)
    alone, *seen = play_really(real_neighbours(), *([victim, *real_neighbours()] for victim in victims))
    for victim, (memories, told, *others) in zip(victims, seen):
        known = [text for text in told if text in alone[1]]
        ledger.check((memories, known, *others) == alone, "real case", victim, memories, told, others, "instead of", alone)


def prove(ledger, quick=False):
    prove_played(ledger, QUICK_CASES if quick else CASES)
    prove_real(ledger, QUICK_REAL if quick else REAL)
    return ledger.tally()
