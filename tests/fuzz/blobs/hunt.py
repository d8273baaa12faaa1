# SPDX-License-Identifier: MIT
"""Damages every sample and does all that is done with a blob (chain.py), within limits of time and memory.

    PYTHONPATH=tests python -m fuzz.blobs.hunt [--mutations N] [--truncations] [--seconds S] [--only NAME] [--out FILE]

It needs no library for fuzzing. Batches run in processes of their own; the growth of memory is a batch's, the time is
CPU time of one blob. What goes wrong is printed with the sample, seed and number, and its bytes are stored beside FILE.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.blobs import chain
from fuzz.blobs.mutator import Mutator
from fuzz.blobs.samples import samples

BATCH = 250
MOST_GROWTH_KIB = 64 << 10
MOST_SECONDS = 2.0
"""For 1 MiB."""
HANGS_SECONDS = 60
THOROUGH_EVERY = 16
MIB = 1 << 20


@dataclass
class Tally:
    """What became of one sample's damaged copies."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    growth_kib: int = 0
    bad: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "outcomes": dict(self.outcomes), "slowest_seconds": round(self.slowest_seconds, 3)}


class Hung(BaseException):
    """A blob that takes much longer than it may."""


def peak_kib(*, reset: bool = False) -> int:
    """The peak of this process's resident memory, after setting it to what is used now if asked for."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def judge(blob: bytes, number: int, tally: Tally, case: str, store: Path | None) -> None:
    """One blob: what is wrong goes into ``tally.bad``."""
    began = time.process_time()
    trouble = ""
    try:
        outcome = chain.run(blob, piped=number % 2 == 1, thorough=number % THOROUGH_EVERY == 0)
    except Hung:
        outcome, trouble = "hung", "".join(traceback.format_exc().splitlines(keepends=True)[-6:])
    except BaseException:
        outcome, trouble = "error", traceback.format_exc()
    spent = time.process_time() - began
    tally.outcomes[outcome] += 1
    tally.slowest_seconds = max(tally.slowest_seconds, spent)
    if not trouble and spent > MOST_SECONDS * max(1, len(blob) / MIB):
        trouble = f"{spent:.1f} s for {len(blob)} bytes"
    if trouble and len(tally.bad) < 20:
        tally.bad.append(f"{case}: {trouble}")
        if store is not None:
            (store / f"{case.replace(' ', '_').replace(',', '')}.blob").write_bytes(blob)


def batches(name: str, mutations: int, seed: int, truncations: bool) -> Iterator[tuple[str, int]]:
    """The batches of a sample: kind and first number."""
    if truncations:
        yield from (("truncated", first) for first in range(0, len(samples()[name]), BATCH))
    yield from ((f"seed {seed}", first) for first in range(0, mutations, BATCH))


def work(name: str, kind: str, first: int, store: Path | None) -> Tally:
    """One batch, in this process."""
    tally = Tally()
    blobs = samples()
    if kind == "truncated":
        cases = iter([blobs[name][:end] for end in range(first, min(first + BATCH, len(blobs[name])))])
    else:
        mutator = Mutator(name, blobs, int(f"{kind.split()[1]}{first:07}"))
        cases = (mutator() for _ in range(BATCH))
    signal.signal(signal.SIGALRM, _hangs)
    for number, blob in enumerate(cases, first):
        before = peak_kib(reset=True) if number % 10 == 0 else 0
        signal.alarm(HANGS_SECONDS)
        judge(blob, number, tally, f"{name} {kind} {number}", store)
        signal.alarm(0)
        if before:
            base = before
        if number % 10 == 9:
            growth = peak_kib() - base
            tally.growth_kib = max(tally.growth_kib, growth)
            if growth > MOST_GROWTH_KIB:
                tally.bad.append(f"{name} {kind} {number - 9}-{number}: grows by {growth >> 10} MiB")
    return tally


def _hangs(_signal: int, _frame: object) -> None:
    raise Hung


def forked(name: str, kind: str, first: int, store: Path | None) -> Tally:
    """One batch in a process of its own."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(read_end)
            tally = work(name, kind, first, store)
            with os.fdopen(write_end, "w") as out:
                json.dump(tally.as_dict(), out)
            code = 0
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if not text:
        return Tally(bad=[f"{name} {kind} {first}: the process ended with status {status}"])
    found = json.loads(text)
    return Tally(Counter(found["outcomes"]), found["slowest_seconds"], found["growth_kib"], found["bad"])


def main() -> int:
    """Hunts, prints a table, returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=2000, help="of each sample (default: %(default)s)")
    parser.add_argument("--truncations", action="store_true", help="and every length of each sample")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to stop")
    parser.add_argument("--only", default="", help="the samples whose name has this in it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="the counts as JSON")
    args = parser.parse_args()
    store = None if args.out is None else args.out.parent / "bad"
    if store is not None:
        store.mkdir(exist_ok=True)
    for blob in samples().values():
        chain.run(blob, thorough=True)
    names = [name for name in samples() if args.only in name]
    todo = {name: batches(name, args.mutations, args.seed, args.truncations) for name in names}
    tallies = {name: Tally() for name in names}
    end = time.monotonic() + args.seconds
    while todo and time.monotonic() < end:
        for name in list(todo):
            batch = next(todo[name], None)
            if batch is None:
                del todo[name]
                continue
            if time.monotonic() >= end:
                break
            found, tally = forked(name, *batch, store), tallies[name]
            tally.outcomes += found.outcomes
            tally.slowest_seconds = max(tally.slowest_seconds, found.slowest_seconds)
            tally.growth_kib = max(tally.growth_kib, found.growth_kib)
            tally.bad += found.bad
            for line in found.bad:
                print(line, file=sys.stderr, flush=True)
            if args.out is not None:
                args.out.write_text(json.dumps({name: tally.as_dict() for name, tally in tallies.items()}, indent=1))
    for name, tally in tallies.items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.outcomes.items()))
        print(f"{name}: {counts}; slowest {tally.slowest_seconds:.2f} s, {tally.growth_kib >> 10} MiB")
    return any(tally.bad for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main())
