"""The claims that `benchmarks/proof.py` proves, one module each.

A claim's module has
    CLAIM         one sentence: what is claimed
    FULL, QUICK   how many parts a full run and a quick one have
    prove(ledger) one part, the same for the same seed and number

A part takes a few seconds, knows nothing of the others, and can be run again alone, which is how a
failure is looked at.  `home` has a tool's home whose calls are real processes; `stage` the real
engine in this process, with a clock, commands and a receiver that obey the proof.
"""

from __future__ import annotations

import collections
import random
import traceback
from typing import NamedTuple


class Tally(NamedTuple):
    """What came of one part, or of several."""

    cases: int = 0
    failures: tuple = ()  # texts: what was expected, what came, which part makes it come again
    counts: dict = {}  # what the cases were made of

    def joined(self, other):
        counts = collections.Counter(self.counts)
        counts.update(other.counts)
        return Tally(self.cases + other.cases, self.failures + other.failures, dict(counts))


class Ledger:
    """Collects the cases and the failures of one part."""

    def __init__(self, name, seed, part):
        self.name, self.seed, self.part = name, seed, part
        self.rng = random.Random(f"{name} {seed} {part}")
        self.cases, self.failures, self.counts = 0, [], collections.Counter()

    def case(self, **counts):
        self.cases += 1
        self.counts.update(counts)

    def check(self, holds, *words):
        """Notes a failure unless it holds."""
        if not holds:
            self.fail(*words)
        return holds

    def fail(self, *words):
        again = f"proof.py {self.name} --seed {self.seed} --part {self.part}"
        self.failures.append(" ".join(map(str, words)) + f"\n    again: {again}")

    def broke(self, *words):
        """Notes the exception at hand."""
        self.fail(*words, "\n" + traceback.format_exc())

    def tally(self):
        return Tally(self.cases, tuple(self.failures), dict(self.counts))
