# SPDX-License-Identifier: MIT
"""A naive search to compare the explorer with: whole machines, no memo, no symmetry."""

from __future__ import annotations

from kvmabi.fpstate import events, invariants
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.invariants import Selection
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.variants import Variant


def key(m: Machine) -> tuple[object, ...]:
    """The machine as a tuple."""
    return tuple(c.values() for c in m.components())


def search(variant: Variant, config: Config, selection: Selection) -> tuple[str, int, int]:
    """Verdict, number of states (until the breach), steps of the shortest counterexample (or 0)."""
    boot = Machine.boot(variant.knobs, config)
    seen = {key(boot)}
    frontier, depth = [boot], 0
    while frontier:
        depth += 1
        following = []
        for machine in frontier:
            for event in events.enabled(machine):
                after = machine.copy()
                going = events.apply(after, event)
                broken = [b for b in (invariants.breaches(after) if going else after.broken) if selection.wants(b)]
                if broken:
                    return "violated", len(seen), depth
                after.broken.clear()
                if going and key(after) not in seen:
                    seen.add(key(after))
                    following.append(after)
        frontier = following
    return "holds", len(seen), 0
