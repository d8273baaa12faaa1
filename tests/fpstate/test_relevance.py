# SPDX-License-Identifier: MIT
"""Kernels that a configuration cannot distinguish are searched once, and that is sound."""

from dataclasses import replace

import pytest

from kvmabi.fpstate.catalogue import bugs
from kvmabi.fpstate.config import config_from
from kvmabi.fpstate.explorer import Explorer
from kvmabi.fpstate.relevance import relevant
from kvmabi.fpstate.variants import Variant, find_variant

SMALL = [
    {"with": ["sve", "softirq"]},
    {"with": ["sve", "sme", "softirq", "idle"]},
    {"tasks": 2, "with": ["neon"]},
    {"vcpus": 1, "with": ["sve", "guest_fp", "guest_sve", "softirq"]},
    {"vcpus": 1, "with": ["sve", "nvhe", "guest_fp", "guest_sve", "guest_vl"]},
    {"cpus": 2, "with": ["sve", "idle"]},
    {"with": ["sve", "fpmr", "signal", "execve", "clone"]},
]


@pytest.mark.slow
@pytest.mark.parametrize("table", SMALL, ids=lambda t: " ".join(map(str, t["with"])))
@pytest.mark.parametrize("kernel", ["v5.17", "v6.2", "v6.8", "v6.12", "v6.16"])
def test_neutral_knobs_change_nothing(kernel: str, table: dict[str, object]) -> None:
    """With the irrelevant knobs at their defaults the graph of states has the same size."""
    variant, config = find_variant(kernel), config_from(table)
    plain = Variant("plain", "", (), variant.bits)
    plain.__dict__["knobs"] = relevant(variant.knobs, config)
    nothing = replace(bugs()["C1"].looks_for, names=frozenset({"none"}))
    whole, same = (Explorer(v, config, nothing).run() for v in (variant, plain))
    assert (whole.states, whole.depth) == (same.states, same.depth)


def test_a_knob_that_counts_is_kept() -> None:
    """C1's configuration distinguishes flag_only from flush_after, and A1's does not."""
    one, two = find_variant("v6.8"), find_variant("v6.8+flush_after")
    for bug, differ in (("C1", True), ("A1", False)):
        config = bugs()[bug].config
        assert (relevant(one.knobs, config) != relevant(two.knobs, config)) is differ
