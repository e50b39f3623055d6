#!/usr/bin/env python3
"""Tries to break `ops-monitor.py`, and counts how often it could: one line a claim.

`python3 benchmarks/proof.py` makes the whole table (about half an hour on two CPUs), `--quick` a small
one (half a minute).  `proof.py crashes` proves one claim; `--seed` makes other cases; `--part N` makes
one part of a claim again, which is what each failure names.  Exit code 1 if anything failed.
README.md here tells how to read it.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import multiprocessing
import pathlib
import sys
import time
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from benchmarks.claims import Ledger, Tally

# The year of `age` is one part that takes longest: it begins first, and the others are made beside it.
NAMES = ("age", "crashes", "faults", "races", "neighbours", "walks", "quiet", "secrecy", "configs")
SHOWN = 60  # failures of one claim that are printed whole


def claim_named(name):
    return importlib.import_module("benchmarks.claims." + name)


class Part(NamedTuple):
    """A share of one claim's cases."""

    name: str
    seed: int
    number: int
    is_quick: bool


def prove_part(part):
    """(the part, its Tally, seconds)."""
    began = time.monotonic()
    ledger = Ledger(part.name, part.seed, part.number)
    try:
        tally = claim_named(part.name).prove(ledger, part.is_quick)
    except Exception:
        ledger.broke("the proof itself")
        tally = ledger.tally()
    return part, tally, time.monotonic() - began


def parts_of(name, seed, is_quick):
    claim = claim_named(name)
    return [Part(name, seed, number, is_quick) for number in range(claim.QUICK if is_quick else claim.FULL)]


def prove(parts, processes):
    """Yields (part, Tally, seconds) as they end, each made in a process of its own that ends with it."""
    context = multiprocessing.get_context("fork")
    with context.Pool(processes, maxtasksperchild=4) as pool:
        yield from pool.imap_unordered(prove_part, parts)


def clipped(text, limit=900):
    """A failure short enough for a list; its part alone shows it whole."""
    words, _, again = text.rpartition("\n")
    return text if len(words) <= limit else words[: limit - 200] + " [...] " + words[-200:] + "\n" + again


def counts_text(counts):
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(counts.items()) if count)


def print_row(claim, tally, seed, seconds):
    print(f"{claim:<96} {tally.cases:>8,} {len(tally.failures):>8} {seed:>6} {seconds:>8.1f}", flush=True)
    if tally.counts:
        print(f"    {counts_text(tally.counts)}", flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CLAIM", help="of " + ", ".join(NAMES) + "; default: all")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="other cases of the same kinds; default: 1")
    parser.add_argument("--quick", action="store_true", help="few cases, in half a minute")
    parser.add_argument("--part", type=int, metavar="N", help="this part of the claim alone")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count(), metavar="N", help="at once; default: one a CPU")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in NAMES:
            parser.error(f"no claim '{name}'; there are {', '.join(NAMES)}")
    print(f"{'claim':<96} {'cases':>8} {'failures':>8} {'seed':>6} {'seconds':>8}", flush=True)
    names = args.names or NAMES
    parts = [part for name in names for part in parts_of(name, args.seed, args.quick) if args.part in (None, part.number)]
    left = collections.Counter(part.name for part in parts)
    whole, spent = {name: Tally() for name in names}, collections.Counter()
    for part, tally, seconds in prove(parts, args.processes):
        name = part.name
        for text in tally.failures[: max(0, SHOWN - len(whole[name].failures))]:
            print(f"FAILED {name}: {text if args.part is not None else clipped(text)}", file=sys.stderr, flush=True)
        whole[name] = whole[name].joined(tally)
        left[name] -= 1
        spent[name] += seconds
        if not left[name]:
            print_row(claim_named(name).CLAIM, whole[name], args.seed, spent[name])
    return 1 if any(tally.failures for tally in whole.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
