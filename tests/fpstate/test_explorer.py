# SPDX-License-Identifier: MIT
"""The explorer agrees with the naive search, and stops at its bounds."""

import pytest

from fpstate.naive import search as naive_search
from kvmabi.fpstate.config import Config, config_from
from kvmabi.fpstate.explorer import BOUND, HOLDS, VIOLATED, Bounds, Explorer
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.trace import trace_of
from kvmabi.fpstate.variants import find_variant

SMALL = [
    {"with": ["sve", "softirq", "signal", "prctl_vl"]},
    {"vcpus": 1, "with": ["sve", "guest_fp", "guest_sve", "softirq"]},
    {"cpus": 2, "with": ["sve", "idle"]},
    {"cpus": 2, "with": ["neon", "idle"]},
    {"tasks": 2, "with": ["neon", "softirq"]},
    {"tasks": 2, "with": ["rt", "neon", "one_neon"]},
    {"with": ["sve", "sme", "softirq", "idle"]},
    {"vcpus": 1, "with": ["sve", "nvhe", "softirq", "guest_fp", "guest_sve", "guest_vl"]},
]
KERNELS = ["pre517", "v5.17", "v6.2", "v6.8", "v6.12", "v6.16"]


@pytest.mark.slow
@pytest.mark.parametrize("table", SMALL, ids=lambda t: " ".join(map(str, t["with"])))
@pytest.mark.parametrize("kernel", KERNELS)
def test_explorer_agrees_with_naive_search(kernel: str, table: dict[str, object]) -> None:
    """Without reductions the state counts are equal; with them the verdict and the shortest length are."""
    variant, config = find_variant(kernel), config_from(table)
    selection = select("all")
    verdict, states, steps = naive_search(variant, config, selection)
    plain = Explorer(variant, config, selection, reduce=False, forget=False).run()
    assert plain.verdict == verdict
    if verdict == HOLDS:
        assert plain.states == states
    explorer = Explorer(variant, config, selection)
    reduced = explorer.run()
    assert reduced.verdict == verdict
    assert reduced.states <= 1.05 * plain.states + 2
    if verdict == VIOLATED:
        assert len(trace_of(explorer, variant, reduced).steps) == steps


@pytest.mark.slow
def test_bounds_are_reported() -> None:
    """States, depth and memory each stop the search, inconclusively."""
    explorer = Explorer(find_variant("v6.16"), Config(tasks=2, sve=True, neon=True, softirq=True), select("all"))
    assert (explorer.run(Bounds(states=100)).verdict, explorer.run(Bounds(states=100)).bound) == (BOUND, "states")
    assert explorer.run(Bounds(depth=3)).bound == "depth"
    assert explorer.run(Bounds(memory=1)).bound == "memory"


@pytest.mark.slow
def test_symmetry_shrinks_the_search_without_changing_its_answer() -> None:
    """Two interchangeable tasks, two interchangeable CPUs: fewer states, same verdict."""
    variant = find_variant("v6.16")
    for config in (Config(tasks=2, neon=True), Config(cpus=2, sve=True, idle=True), Config(cpus=2, tasks=2)):
        whole = Explorer(variant, config, select("all"), reduce=False).run()
        half = Explorer(variant, config, select("all")).run()
        assert whole.verdict == half.verdict == HOLDS
        assert half.states < 0.75 * whole.states


def test_memo_stays_warm() -> None:
    """A second run of one explorer gives the same result."""
    explorer = Explorer(find_variant("v6.8"), Config(tasks=2, neon=True), select("obs"))
    first, second = explorer.run(), explorer.run()
    assert (first.verdict, first.states, first.path) == (second.verdict, second.states, second.path)
