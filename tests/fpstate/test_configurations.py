# SPDX-License-Identifier: MIT
"""The named configurations are exhausted without a violation."""

import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate.config import Config, config_from, named_config, named_configs
from kvmabi.fpstate.explorer import HOLDS, Explorer
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.variants import find_variant

LONG = {"kvm-neon"}  # two million states each: benchmarks/fpstate_explorer.py --all explores these and the slow ones


def _claims() -> list[tuple[str, str]]:
    """Each quick configuration with its variants, except those with equal knobs."""
    jobs = []
    for name, entry in named_configs().items():
        seen = set()
        for kernel in entry.variants:
            knobs = find_variant(kernel).knobs
            if entry.slow or knobs in seen or name in LONG:
                continue
            seen.add(knobs)
            jobs.append((name, kernel))
    return jobs


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kernel"), _claims())
def test_fixed_kernels_hold(name: str, kernel: str) -> None:
    """All invariants hold in every reachable state."""
    entry = named_config(name)
    result = Explorer(find_variant(kernel), entry.config, select(entry.invariants)).run()
    assert result.verdict == HOLDS


def test_newest_kernels_are_claimed_wherever_older_ones_are() -> None:
    """v6.14 (without SME) and later appear in every configuration that they can run."""
    for entry in named_configs().values():
        assert {"v6.16", "v6.19"} <= set(entry.variants)
        if not entry.config.sme and not entry.config.prctl_vl:
            assert "v6.14" in entry.variants


@pytest.mark.parametrize(
    "table", [{"cpus": 0}, {"cpus": 5}, {"tasks": 9}, {"with": ["nonsense"]}, {"sve": 1}, {"cpus": True}, {"what": 1}]
)
def test_impossible_configurations_are_misuse(table: dict[str, object]) -> None:
    """Out of range, unknown or of the wrong type: one clear error."""
    with pytest.raises(UsageError):
        config_from(table)


def test_a_configuration_survives_as_dict() -> None:
    """The JSON form is complete: parsing it gives an equal configuration."""
    for entry in named_configs().values():
        assert config_from(entry.config.as_dict()) == entry.config


def test_summary_names_what_differs() -> None:
    """The summary is one readable line."""
    assert Config(cpus=2, vcpus=1, sve=True, idle=True).summary == "2 CPUs, 1 task, 1 vCPU; sve idle"


def test_unknown_name_is_misuse() -> None:
    """The error lists the names."""
    with pytest.raises(UsageError, match="kvm-neon"):
        named_config("nope")
