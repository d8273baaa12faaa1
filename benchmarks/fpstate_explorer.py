# SPDX-License-Identifier: MIT
"""Throughput of the explorer, and whether the named configurations hold.

    python benchmarks/fpstate_explorer.py            throughput in the 1 CPU / 2 task configurations
    python benchmarks/fpstate_explorer.py --all      every named configuration on every variant it claims
    python benchmarks/fpstate_explorer.py --matrix   the whole matrix, on all cores

Throughput is states per second of one process, with empty memo tables. Exits with 1 if it is under 50,000
(the required minimum) or a configuration does not hold. The goal is 100,000.
"""

from __future__ import annotations

import argparse
import time

from kvmabi.fpstate.config import NamedConfig, named_configs
from kvmabi.fpstate.explorer import HOLDS, Explorer, Result
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.matrix import matrix
from kvmabi.fpstate.parallel import spread
from kvmabi.fpstate.variants import find_variant

LEAST, AIM = 50_000, 100_000


def different(entry: NamedConfig) -> list[str]:
    """The variants that a configuration claims, without those whose knobs equal an earlier one's."""
    return list({find_variant(kernel).knobs: kernel for kernel in reversed(entry.variants)}.values())[::-1]


def explore(job: tuple[str, NamedConfig]) -> Result:
    """Explore one configuration on one variant, with empty memo tables."""
    kernel, entry = job
    return Explorer(find_variant(kernel), entry.config, select(entry.invariants)).run()


def show(job: tuple[str, NamedConfig], result: Result) -> None:
    """Print one line."""
    kernel, entry = job
    counts = f"{result.states:>10,} states  depth {result.depth:>3}  {result.seconds:>6.1f} s  {result.rate:>9,.0f}/s"
    print(f"{entry.name:14} {kernel:20} {result.verdict:9}{counts}", flush=True)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--matrix", action="store_true")
    parser.add_argument("--processes", type=int)
    args = parser.parse_args()
    if args.matrix:
        started = time.perf_counter()
        table = matrix(processes=args.processes)
        print(table.text() + f"{time.perf_counter() - started:.1f} s")
        return int("?" in table.cells.values())
    if args.all:
        jobs = [(kernel, entry) for entry in named_configs().values() for kernel in different(entry)]
        results = list(spread(explore, jobs, args.processes))
    else:
        two = [e for e in named_configs().values() if (e.config.cpus, e.config.tasks) == (1, 2) and not e.slow]
        jobs = [("v6.16", entry) for entry in two]
        results = [explore(job) for job in jobs]
    for job, result in zip(jobs, results, strict=True):
        show(job, result)
    if any(r.verdict != HOLDS for r in results):
        return 1
    if args.all:
        return 0
    large = [r for r in results if r.states > AIM]
    rate = sum(r.states for r in large) / sum(r.seconds for r in large)
    print(f"{rate:,.0f} states a second over the large ones (least {LEAST:,}, aim {AIM:,})")
    return int(rate < LEAST)


if __name__ == "__main__":
    raise SystemExit(main())
