# SPDX-License-Identifier: MIT
"""Of many saves those are compared that have what was written, however many there are."""

from __future__ import annotations

import pytest
from vmms import Saved, fill, guest, in_order, lost, restore, restored, run, save

from kvmabi import Kvm
from kvmabi.events import Event, Kind
from kvmabi.order.fitting import shape_of
from kvmabi.order.narrowing import MOST_COMPARED, likeliest, varying
from kvmabi.order.saves import Save
from kvmabi.order.values import RUNNING
from kvmabi.order.writes import Attempt, Writes

COUNTER = min(RUNNING)


def save_of(number: int, values: dict[int, bytes]) -> Save:
    """A save that was made at an event."""
    return Save(1, 0, values, dict.fromkeys(values, number), {}, 0.0)


def test_only_what_differs_varies() -> None:
    """A register that one save has and another has not varies; a counter, and what is the same in all, does not."""
    first = {1: b"\1", 2: b"\2", 3: b"\3", COUNTER: b"\4"}
    shapes = [shape_of(save_of(1, first)), shape_of(save_of(2, {1: b"\1", 2: b"\5", COUNTER: b"\6"}))]
    assert varying(shapes) == {2, 3}
    assert varying([]) == frozenset()


def test_the_likeliest_stay_in_their_order() -> None:
    """Of many saves those with the values tried last, then any that were tried, then the newest; of few all."""
    shapes = [(3, shape_of(save_of(number, {1: bytes([number, 0]), 2: b"\7"}))) for number in range(1, 31)]
    writes = Writes(2, 0, 50, True, {}, attempts={1: Attempt(), 2: Attempt()})
    for value in (b"\3", b"\4"):
        writes.attempts[1].took(event(value))
    telling = varying([shape for _, shape in shapes])
    kept = [shape.save.first_event for _, shape in likeliest(writes, shapes, telling)]
    assert kept == [3, 4, *range(33 - MOST_COMPARED, 31)]
    assert likeliest(writes, shapes[:MOST_COMPARED], frozenset()) == shapes[:MOST_COMPARED]


def test_a_save_of_fewer_registers_is_no_less_likely() -> None:
    """The last of many checkpoints is of a mode with fewer registers, and the only one with the values tried last."""
    older = [(3, shape_of(save_of(number, {1: bytes([number]), 2: bytes([number])}))) for number in range(1, 31)]
    newest = (2, shape_of(save_of(40, {1: b"\x28"})))
    writes = Writes(2, 0, 50, True, {}, attempts={1: Attempt(), 2: Attempt()})
    writes.attempts[2].took(event(b"\x1e"))
    for number in (*range(23, 31), 40):
        writes.attempts[1].took(event(bytes([number])))
    shapes = [newest, *older]
    assert likeliest(writes, shapes, varying([shape for _, shape in shapes]))[0] is newest


def event(data: bytes) -> Event:
    """A write that succeeded."""
    return Event(60, Kind.IOCTL, "KVM_SET_ONE_REG", 2, 0, "", 0, data=data)


@pytest.mark.parametrize("wanted", [0, 2 * MOST_COMPARED])
def test_any_of_many_checkpoints(kvm: Kvm, wanted: int) -> None:
    """Checkpoints differ in two registers; the first or a later one is restored with z3 missing: that is lost."""
    source = guest(kvm.create_vm(), 3)
    checkpoints: list[Saved] = []
    for number in range(3 * MOST_COMPARED):
        run(source)
        source["x3"], source["tpidr_el1"] = 2 * number + 1, 3 * number
        checkpoints.append(save(source))
    target = restored(kvm.create_vm(), checkpoints[wanted] | {"z3": bytes(len(checkpoints[wanted]["z3"]))})
    run(target)
    assert lost(kvm) == {"z3"}


def test_each_of_many_machines_has_its_save(kvm: Kvm) -> None:
    """A program tests many machines, one after the other; the register that one loses is found."""
    for number in range(2 * MOST_COMPARED):
        source = guest(kvm.create_vm(), 3)
        if number % 2:
            fill(source, 3)
        state = save(source)
        target = restored(kvm.create_vm(), state)
        if number == MOST_COMPARED:
            target.init({"sve", "sme"})
            restore(target, state, [name for name in in_order(state) if name != "x7"])
        run(target)
    assert [(finding.vm, finding.registers) for finding in kvm.findings()] == [(2 * MOST_COMPARED + 2, ("x7",))]
