# SPDX-License-Identifier: MIT
"""How often the checker's verdict is the truth: random VMMs, right ones and wrong ones, whose losses are known.

python benchmarks/verdicts.py [--runs N] [--seed S] [--processes P] [--behaviour NAME] [--mistake NAME]
python benchmarks/verdicts.py --show SEED [--right | --wrong]

Prints a table by behaviour and by mistake, and the first seeds of every kind of wrong answer. Exits with status 1
unless no right run has a finding, at least 99 % of the wrong runs are judged exactly, and the rest is not judged.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

from kvmabi.testing.vmms.behaviours import BEHAVIOURS
from kvmabi.testing.vmms.judge import Outcome, difference, judge
from kvmabi.testing.vmms.mistakes import names as mistake_names
from kvmabi.testing.vmms.play import play

CHUNK = 20
SEEDS_SHOWN = 12
EXACT_SHARE = 0.99
COLUMNS = tuple(Outcome)


class Run(NamedTuple):
    """What became of one run."""

    seed: int
    wrong: bool
    behaviours: tuple[str, ...]
    mistake: str | None
    outcome: Outcome
    events: int
    seconds: float


def judged(job: tuple[int, bool], *, behaviour: str | None, mistake: str | None) -> Run:
    """Plays one run and judges the verdict on it."""
    seed, wrong = job
    kvm, scenario = play(seed, wrong=wrong, behaviour=behaviour, mistake=mistake if wrong else None)
    with kvm:
        start = time.perf_counter()
        outcome = judge(kvm.verdict(), scenario)
        seconds = time.perf_counter() - start
        return Run(seed, wrong, scenario.behaviours, scenario.mistake, outcome, kvm.log.count, seconds)


def show(seed: int, wrong: bool, *, behaviour: str | None, mistake: str | None) -> None:
    """Prints a run's story, its truth, the report, and how they differ."""
    kvm, scenario = play(seed, wrong=wrong, behaviour=behaviour, mistake=mistake if wrong else None)
    with kvm:
        verdict = kvm.verdict()
        print(f"seed {seed}, {'wrong' if wrong else 'right'}: {judge(verdict, scenario)}")
        print("\n".join(f"  {line}" for line in scenario.story))
        missing, extra = difference(verdict, scenario)
        for title, places in (
            *(("lost", scenario.truth), ("latent", scenario.latent)),
            *(("not reported", missing), ("reported in vain", extra)),
        ):
            for line in _by_vcpu(places):
                print(f"{title}: {line}")
        print(verdict)


def _by_vcpu(places: Iterable[tuple[int, int, str]]) -> list[str]:
    names = defaultdict(list)
    for vm, vcpu, name in sorted(places):
        names[vm, vcpu].append(name)
    return [f"VM {vm} vCPU {vcpu}: {' '.join(found)}" for (vm, vcpu), found in names.items()]


def table(title: str, rows: dict[str, Counter[Outcome]]) -> None:
    """Prints how many runs have which outcome."""
    print(f"\n{title:34}" + "".join(f"{column:>13}" for column in COLUMNS))
    for name, counts in sorted(rows.items()):
        print(f"{name:34}" + "".join(f"{counts[column] or '':>13}" for column in COLUMNS))


def report(runs: list[Run], seconds: float) -> bool:
    """Prints the tables; returns whether the figures are met."""
    behaviours: dict[str, Counter[Outcome]] = defaultdict(Counter)
    mistakes: dict[str, Counter[Outcome]] = defaultdict(Counter)
    total: Counter[Outcome] = Counter(run.outcome for run in runs)
    for run in runs:
        mistakes[run.mistake or "none"][run.outcome] += 1
        for name in set(run.behaviours):
            behaviours[name][run.outcome] += 1
    table("behaviour", behaviours)
    table("mistake", mistakes)
    table("all", {"": total})
    for outcome in COLUMNS:
        seeds = [run.seed for run in runs if run.outcome is outcome]
        if seeds and outcome not in (Outcome.CLEAN, Outcome.EXACT):
            print(f"{outcome}: seeds {' '.join(map(str, seeds[:SEEDS_SHOWN]))}")
    events = sum(run.events for run in runs)
    verdicts = sum(run.seconds for run in runs)
    print(f"{len(runs)} runs, {events} events in {seconds:.1f} s: {events / seconds:,.0f} events per second", end="")
    print(f", {seconds / len(runs) * 1e3:.1f} ms a run, {verdicts / len(runs) * 1e3:.1f} ms of them for the verdict")
    wrong = sum(run.wrong for run in runs)
    bad = total[Outcome.FALSE_ALARM] + total[Outcome.WRONG_SET] + total[Outcome.MISS]
    return not bad and total[Outcome.EXACT] >= EXACT_SHARE * wrong


def main() -> int:
    """Runs what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="right runs, and as many wrong ones")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--behaviour", choices=[behaviour.name for behaviour in BEHAVIOURS])
    parser.add_argument("--mistake", choices=mistake_names())
    parser.add_argument("--show", type=int, metavar="SEED", help="print one run's story and the report on it")
    parser.add_argument("--right", action="store_true", help="right runs only")
    parser.add_argument("--wrong", action="store_true", help="wrong runs only")
    options = parser.parse_args()
    limits = {"behaviour": options.behaviour, "mistake": options.mistake}
    kinds = [wrong for wrong, without in ((False, options.wrong), (True, options.right)) if not without]
    if options.show is not None:
        for wrong in kinds:
            show(options.show, wrong, **limits)
        return 0
    jobs = [(options.seed + number, wrong) for number in range(options.runs) for wrong in kinds]
    start = time.perf_counter()
    with get_context("spawn").Pool(options.processes) as pool:
        runs = list(pool.imap_unordered(partial(judged, **limits), jobs, CHUNK))
    runs.sort(key=lambda run: run.seed)
    return 0 if report(runs, time.perf_counter() - start) else 1


if __name__ == "__main__":
    sys.exit(main())
