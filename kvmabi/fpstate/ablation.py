# SPDX-License-Identifier: MIT
"""A kernel without one of its commits: harmless, by exhaustion, or broken, with the shortest counterexample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvmabi.fpstate.config import Config, config_from, named_configs
from kvmabi.fpstate.explorer import BOUND, VIOLATED, Bounds, Explorer
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.parallel import spread
from kvmabi.fpstate.trace import Trace, trace_of
from kvmabi.fpstate.variants import Commit, Variant, commits

HARMLESS, LIES, BROKEN = "harmless", "lies only", "broken"
NO_EFFECT, SAME, UNDECIDED = "no effect in this model", "superseded", "undecided"
LIMIT = Bounds(states=8_000_000)

SPOTS: tuple[dict[str, object], ...] = (
    {"with": ["sve", "signal", "softirq", "prctl_vl", "execve"]},
    {"with": ["sme", "fpmr", "softirq", "signal", "execve"]},
    {"vcpus": 1, "with": ["sve", "softirq", "guest_fp", "guest_sve"]},
    {"vcpus": 1, "with": ["sve", "nvhe", "softirq", "guest_fp", "guest_sve", "guest_vl"]},
    {"vcpus": 1, "with": ["fpmr", "guest_fp"]},
    {"cpus": 2, "with": ["sve", "idle"]},
    {"cpus": 2, "with": ["sme", "idle"]},
    {"cpus": 2, "with": ["neon", "idle"]},
    {"tasks": 2, "with": ["rt", "neon"]},
    {"tasks": 2, "with": ["neon"]},
    {"tasks": 2, "with": ["sve", "smc"]},
    {"tasks": 2, "with": ["sme", "signal"]},
    {"tasks": 2, "with": ["sme", "neon", "one_neon"]},
    {"with": ["sve", "clone", "softirq", "svc_window"]},
)
"""Small configurations, tried first: together they show every catalogued bug."""


@dataclass(frozen=True)
class Ablation:
    """What one commit's absence does."""

    commit: Commit
    verdict: str
    states: int
    configs: int
    trace: Trace | None = None

    @property
    def line(self) -> str:
        """One line for a table."""
        exhausted = f"{self.states:,} states in {self.configs} configurations, exhausted"
        if self.trace is not None:
            lie = self.trace.first_lie
            if self.verdict == LIES:
                return f"{self.trace.summary}; nobody sees anything: {exhausted}"
            if lie is None or lie[1] in self.trace.observation:
                return self.trace.summary
            return f"{self.trace.summary}; first lie: {lie[1].clause} at step {lie[0].number}"
        if self.verdict == NO_EFFECT:
            return self.commit.what
        if self.verdict == SAME:
            return "a later commit says otherwise anyway"
        return exhausted


def configurations(variant: Variant) -> list[Config]:
    """Where a variant is looked at: the spots, then the quick named configurations that claim it."""
    spots = [config_from(dict(s)) for s in SPOTS]
    named = [c.config for c in named_configs().values() if variant.name in c.variants and not c.slow]
    return [*spots, *named]


def _ablate(job: tuple[Variant, Commit, tuple[Config, ...]]) -> Ablation:
    return ablate_one(*job)


def ablate_one(variant: Variant, commit: Commit, configs: Sequence[Config]) -> Ablation:
    """Remove one commit and explore what is left: first for what somebody sees, then for what only lies."""
    if not commit.effective:
        return Ablation(commit, NO_EFFECT, 0, 0)
    without = variant.minus(commit.bit)
    if without.knobs == variant.knobs:
        return Ablation(commit, SAME, 0, 0)
    sme = without.knobs.sme and without.knobs.sme_code
    possible = [c for c in configs if (sme or not c.sme) and (without.knobs.fpmr or not c.fpmr)]
    seen = _first(without, possible, "obs")
    if isinstance(seen, Trace):
        return Ablation(commit, BROKEN, 0, len(possible), seen)
    lied = _first(without, possible, "meta")
    if isinstance(lied, Trace):
        return Ablation(commit, LIES, seen, len(possible), lied)
    undecided = seen < 0 or lied < 0
    return Ablation(commit, UNDECIDED if undecided else HARMLESS, seen, len(possible))


def _first(variant: Variant, configs: Sequence[Config], invariants: str) -> Trace | int:
    """The first counterexample in the configurations, or how many states they have (-1: gave up)."""
    states = 0
    for config in configs:
        explorer = Explorer(variant, config, select(invariants))
        result = explorer.run(LIMIT)
        if result.verdict == VIOLATED:
            return trace_of(explorer, variant, result)
        if result.verdict == BOUND:
            return -1
        states += result.states
    return states


def ablate(
    variant: Variant, configs: Sequence[Config] | None = None, *, processes: int | None = None
) -> list[Ablation]:
    """Remove each of the variant's commits in turn and explore what is left."""
    chosen = tuple(configs if configs is not None else configurations(variant))
    jobs = [(variant, commits()[bit], chosen) for bit in variant.bits]
    return list(spread(_ablate, jobs, processes))
