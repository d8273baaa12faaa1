# SPDX-License-Identifier: MIT
"""A kernel with one commit removed: harmless (search exhausted) or broken (with the shortest counterexample)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvmabi.fpstate.config import Config, config_from, named_configs
from kvmabi.fpstate.explorer import BOUND, HOLDS, VIOLATED, Bounds, Explorer
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.parallel import spread
from kvmabi.fpstate.relevance import relevant
from kvmabi.fpstate.trace import Trace, trace_of
from kvmabi.fpstate.variants import Commit, Variant

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
"""Small configurations, explored first. Together they reproduce every catalogued bug."""


@dataclass(frozen=True)
class Ablation:
    """The effect of removing one commit."""

    commit: Commit
    verdict: str
    states: int
    configs: int
    trace: Trace | None = None

    @property
    def line(self) -> str:
        """The result as one line of a table."""
        exhausted = f"{self.states:,} states in {self.configs} configurations, exhausted"
        if self.trace is not None:
            lie = self.trace.first_lie
            if self.verdict == LIES:
                return f"{self.trace.summary}; not observable: {exhausted}"
            if lie is None or lie[1] in self.trace.observation:
                return self.trace.summary
            return f"{self.trace.summary}; first lie: {lie[1].clause} at step {lie[0].number}"
        if self.verdict == NO_EFFECT:
            return self.commit.what
        if self.verdict == SAME:
            return "a later commit overrides it"
        return exhausted


def configurations(variant: Variant) -> list[Config]:
    """The configurations to explore a variant in: SPOTS, then the quick named configurations that claim it."""
    spots = [config_from(dict(s)) for s in SPOTS]
    named = [c.config for c in named_configs().values() if variant.name in c.variants and not c.slow]
    return [*spots, *named]


Question = tuple[Variant, Config, str]


def _ask(question: Question) -> tuple[str, int]:
    variant, config, invariants = question
    result = Explorer(variant, config, select(invariants)).run(LIMIT)
    return result.verdict, result.states


def _identity(question: Question) -> object:
    variant, config, invariants = question
    return relevant(variant.knobs, config), config, invariants


def ablate(
    variant: Variant, which: Sequence[Commit], configs: Sequence[Config], *, processes: int | None = None
) -> list[Ablation]:
    """Remove each of these commits in turn and explore the remaining kernel: first for the observation
    invariants, then for the metadata invariants. Kernels that a configuration cannot distinguish are
    explored once."""
    cases = [(c, variant.minus(c.bit)) for c in which]
    asked = {
        _identity(q): q
        for commit, without in cases
        if commit.effective and without.knobs != variant.knobs
        for q in _questions(without, configs)
    }
    answers = dict(zip(asked, spread(_ask, list(asked.values()), processes), strict=True))
    return [_verdict(variant, commit, without, configs, answers) for commit, without in cases]


def _questions(without: Variant, configs: Sequence[Config]) -> list[Question]:
    sme = without.knobs.sme and without.knobs.sme_code
    possible = [c for c in configs if (sme or not c.sme) and (without.knobs.fpmr or not c.fpmr)]
    return [(without, c, invariants) for invariants in ("obs", "meta") for c in possible]


def _verdict(
    variant: Variant,
    commit: Commit,
    without: Variant,
    configs: Sequence[Config],
    answers: dict[object, tuple[str, int]],
) -> Ablation:
    if not commit.effective:
        return Ablation(commit, NO_EFFECT, 0, 0)
    if without.knobs == variant.knobs:
        return Ablation(commit, SAME, 0, 0)
    questions = _questions(without, configs)
    answered = [(q, *answers[_identity(q)]) for q in questions]
    count = len(questions) // 2
    states = sum(n for (_, _, invariants), verdict, n in answered if invariants == "obs" and verdict == HOLDS)
    for question, verdict, _ in answered:
        if verdict == VIOLATED:
            damage = BROKEN if question[2] == "obs" else LIES
            return Ablation(commit, damage, states, count, _trace(question))
    undecided = any(verdict == BOUND for _, verdict, _ in answered)
    return Ablation(commit, UNDECIDED if undecided else HARMLESS, states, count)


def _trace(question: Question) -> Trace:
    variant, config, invariants = question
    explorer = Explorer(variant, config, select(invariants))
    return trace_of(explorer, variant, explorer.run(LIMIT))
