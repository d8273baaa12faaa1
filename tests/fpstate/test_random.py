# SPDX-License-Identifier: MIT
"""Long random runs, and their agreement with the explorer on which kernels are safe."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from kvmabi.fpstate import events, invariants
from kvmabi.fpstate.catalogue import bugs
from kvmabi.fpstate.config import Config, config_from
from kvmabi.fpstate.explorer import HOLDS, VIOLATED, Explorer
from kvmabi.fpstate.invariants import Selection, select
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.variants import Variant, find_variant

NAMES = [*events.ACTIONS, "vcpu_load", "switch"]
WIDE = config_from(
    {
        "cpus": 2,
        "tasks": 2,
        "vcpus": 2,
        "vmms": 2,
        "with": [
            *("sve", "sme", "za", "fpmr", "neon", "softirq", "signal", "prctl_vl", "smc", "execve", "clone", "cpu_pm"),
            *("idle", "svc_window", "guest_fp", "guest_sve", "guest_vl"),
        ],
    }
)
"""Too large to exhaust: two of everything, with all modelled hardware and events."""
WIDE_NO_SME = WIDE.with_flags(sme=False, za=False, execve=False, prctl_vl=False, clone=False, fpmr=False)


class Run(RuleBasedStateMachine):
    """One machine, one rule per event, all invariants after each step."""

    variant: Variant
    config: Config

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine.boot(self.variant.knobs, self.config)

    def can(self, name: str) -> list[events.Event]:
        """The enabled events with this name."""
        return [e for e in events.enabled(self.machine) if e.name == name]

    @invariant()
    def nothing_is_broken(self) -> None:
        """O1-O7 and M1-M8."""
        assert list(invariants.breaches(self.machine)) == []


def _add_rule(name: str) -> None:
    @precondition(lambda self: self.can(name))
    @rule(pick=st.integers(0, 15))
    def step(self: Any, pick: int) -> None:
        allowed = self.can(name)
        assert events.apply(self.machine, allowed[pick % len(allowed)])

    step.__name__ = name
    setattr(Run, name, step)


for _name in NAMES:
    _add_rule(_name)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "config"), [("v6.16", WIDE), ("v6.19", WIDE), ("v6.14", WIDE_NO_SME)])
def test_safe_kernels_survive_long_random_runs(kernel: str, config: Config) -> None:
    """Two CPUs, two tasks, two vCPUs and every event: no invariant breaks."""
    chosen = type("Chosen", (Run,), {"variant": find_variant(kernel), "config": config})
    run_state_machine_as_test(
        chosen,
        settings=settings(
            max_examples=25,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _random_run(variant: Variant, config: Config, selection: Selection, steps: int, seed: int) -> bool:
    """Whether a random walk, restarted at times, reaches a breach."""
    chance = random.Random(seed)
    m = Machine.boot(variant.knobs, config)
    for n in range(steps):
        going = events.apply(m, chance.choice(list(events.enabled(m))))
        broken = list(invariants.breaches(m)) if going else m.broken
        if any(selection.wants(b) for b in broken):
            return True
        m.broken.clear()
        if not going or n % 200 == 199:
            m = Machine.boot(variant.knobs, config)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", ["B1", "B2", "A1", "C1", "C1k", "E1", "F1", "G1", "G2", "H2", "H3"])
def test_random_runs_agree_with_the_explorer(name: str) -> None:
    """Random runs also find the bug on its last kernel; with its fix neither they nor the explorer do."""
    bug = bugs()[name]
    for kernel in (bug.present_in[-1], "v6.16"):
        variant = find_variant(kernel)
        verdict = Explorer(variant, bug.config, bug.looks_for).run().verdict
        met = _random_run(variant, bug.config, bug.looks_for, 60_000 if verdict == VIOLATED else 4_000, seed=1)
        assert met == (verdict == VIOLATED)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["v5.19", "v6.2", "v6.8", "v6.12", "prop0121", "v6.14", "v6.16", "stable-6.1"])
def test_random_runs_agree_on_all_invariants(kernel: str) -> None:
    """Explorer and random runs name the same kernels safe for a VMM with an SVE guest."""
    config = Config(tasks=2, vcpus=1, sve=True, softirq=True, guest_fp=True, guest_sve=True)
    variant = find_variant(kernel)
    safe = Explorer(variant, config, select("all")).run().verdict == HOLDS
    assert _random_run(variant, config, select("all"), 8_000, seed=3) == (not safe)
