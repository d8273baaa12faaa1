# SPDX-License-Identifier: MIT
"""Components: hardware rules, ageing, renumbering."""

import pytest

from kvmabi.fpstate.state import Component, Cpu, Task, Vcpu
from kvmabi.fpstate.tokens import JUNK, ZERO, fresh, guest, stale, user


@pytest.mark.parametrize("kind", [Cpu, Task, Vcpu])
def test_values_and_of_are_inverse(kind: type[Component]) -> None:
    """A component is its tuple."""
    values = tuple(range(len(kind.FIELDS)))
    assert kind.of(values).values() == values


def test_any_change_of_streaming_mode_zeroes() -> None:
    """Both directions zero V, Z and FPMR; no change keeps them."""
    cpu = Cpu.new()
    for sm in (1, 0):
        cpu.V = cpu.Z = cpu.F = JUNK
        cpu.set_streaming(sm)
        assert (cpu.V, cpu.Z, cpu.F) == (ZERO, ZERO, ZERO)
    cpu.V = JUNK
    cpu.set_streaming(0)
    assert cpu.V == JUNK


def test_smstop_ends_za_as_well() -> None:
    """SMSTOP without an argument is both bits of SVCR."""
    cpu = Cpu.new()
    cpu.SM = cpu.ZA = 1
    cpu.smstop()
    assert (cpu.SM, cpu.ZA) == (0, 0)


def test_ageing_touches_every_copy_and_nobody_elses() -> None:
    """A new value makes all copies of the old one stale, whichever owner's memory they are in."""
    task, vcpu, mine = Task.new(), Vcpu.new(), fresh(user(0))
    task.fV = task.sV = vcpu.fV = mine
    task.kV = fresh(user(1))
    for part in (task, vcpu):
        part.age(mine, "V")
    assert (task.fV, task.sV, vcpu.fV) == (stale(user(0)),) * 3
    assert task.kV == fresh(user(1))


def test_renumbering_is_undone_by_itself() -> None:
    """Swapping tasks and CPUs twice gives the same component back, and once moves every reference."""
    swap = (1, 0)
    cpu, task, vcpu = Cpu.new(), Task.new(), Vcpu.new()
    cpu.cur, cpu.st, cpu.V = 0, user(0), fresh(user(0))
    task.on, task.fcpu, task.fV = 0, 1, stale(user(1))
    vcpu.user, vcpu.sV = 1, fresh(guest(0))
    parts: list[Component] = [cpu, task, vcpu]
    for part in parts:
        once = part.renamed(swap, swap)
        assert once.values() != part.values()
        assert once.renamed(swap, swap).values() == part.values()
