# SPDX-License-Identifier: MIT
"""Packed states: round trips, and the guard that makes memoising sound."""

import random

import pytest

from kvmabi.fpstate import events
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.packing import OutOfScope, Packing, forget_dead
from kvmabi.fpstate.symmetry import canonical, permutations
from kvmabi.fpstate.variants import find_variant

CONFIG = Config(cpus=2, tasks=2, vcpus=1, sve=True, neon=True, softirq=True, idle=True, guest_fp=True)


def _walk(steps: int, seed: int) -> list[Machine]:
    m = Machine.boot(find_variant("v6.16").knobs, CONFIG)
    chance = random.Random(seed)
    seen = []
    for _ in range(steps):
        events.apply(m, chance.choice(list(events.enabled(m))))
        seen.append(m.copy())
    return seen


def test_unpack_is_the_inverse_of_pack() -> None:
    """Unpacking restores every component, with dead values normalised."""
    packing = Packing(Machine.boot(find_variant("v6.16").knobs, CONFIG))
    for m in _walk(300, 1):
        again = packing.unpack(packing.pack(m))
        assert [c.values() for c in again.components()] == [c.values() for c in m.components()]


def test_reading_outside_the_scope_fails() -> None:
    """A transition cannot depend on a component that its memo key leaves out."""
    packing = Packing(Machine.boot(find_variant("v6.16").knobs, CONFIG))
    m, effects = packing.partial(packing.boot, [0])
    m.tasks[0].FOREIGN = 0
    m.cpus[1].age(2, "V")
    assert effects == [(2, ("set", "FOREIGN", 0)), (1, ("age", 2, "V"))]
    with pytest.raises(OutOfScope):
        _ = m.tasks[0].FOREIGN


def test_renumbering_is_canonical() -> None:
    """All renumberings of a state have the same representative."""
    config = CONFIG.with_flags(vcpus=0)
    packing = Packing(Machine.boot(find_variant("v6.16").knobs, config))
    perms = permutations(packing)
    assert len(perms) == 3
    m = Machine.boot(find_variant("v6.16").knobs, config)
    chance = random.Random(2)
    for _ in range(300):
        events.apply(m, chance.choice(list(events.enabled(m))))
        state = packing.pack(m.copy())
        images = [sum(table[state & mask] for mask, table in perm) for perm in perms]
        assert {canonical(i, perms) for i in images} == {canonical(state, perms)}


def test_forgetting_keeps_values_that_count() -> None:
    """The registers of a NEON section are preserved, unowned registers are not."""
    m = Machine.boot(find_variant("v6.16").knobs, CONFIG)
    for name, arg in (("switch", 0), ("ret_to_user", -1), ("el0_svc", -1), ("kernel_neon_begin", -1)):
        assert events.apply(m, events.Event(name, 0, arg))
    held = m.cpus[0].V
    forget_dead(m, 0)
    assert held == m.cpus[0].V
    events.apply(m, events.Event("kernel_neon_end", 0))
    forget_dead(m, 0)
    assert m.cpus[0].V == 1
