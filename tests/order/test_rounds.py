# SPDX-License-Identifier: MIT
"""What belongs together of a VM: writes from INIT to INIT, a reset, and the saves of one pass over its vCPUs."""

from __future__ import annotations

import pytest
from vmms import VLS, guest, mp_state, opened, restore, run, save

from kvmabi import regid, uapi
from kvmabi.events import MP_STATE, VCPU_EVENTS, Event, Kind
from kvmabi.order.moments import agreed, moments, of_vcpu
from kvmabi.order.rounds import is_set_up_anew, is_written_back, rounds
from kvmabi.order.saves import Save
from kvmabi.order.writes import FEWEST_WRITES, Attempt, Writes

X = [regid.parse(f"x{number}") for number in range(FEWEST_WRITES)]


def writes(vcpu: int, start: int, *ids: int, fresh: bool = True, wiped: bool = False, end: int = 0) -> Writes:
    """Writes of some registers of a vCPU of VM 1; with ``end`` the guest was entered then."""
    undone = Writes(1, vcpu, 0, True, {}) if wiped else None
    found = Writes(1, vcpu, start, fresh, {}, undone, {id: Attempt() for id in ids})
    found.entered, found.end = bool(end), end
    return found


@pytest.mark.parametrize(
    ("ids", "anew"),
    [
        ((), False),
        (X[:1], True),
        (X[:-1], True),
        (X, False),
        ((MP_STATE,), False),
        ((MP_STATE, VCPU_EVENTS, X[0]), True),
        ((*X[:-1], MP_STATE), True),
    ],
)
def test_a_few_registers_after_init_set_a_vm_up_anew(ids: tuple[int, ...], anew: bool) -> None:
    """One to seven registers are a boot, none and eight are not; MP state and events do not count either way."""
    assert is_set_up_anew([writes(0, 10), writes(1, 11, *ids, wiped=True)]) is anew


def test_without_init_again_nothing_is_set_up_anew() -> None:
    """The first boot of a vCPU undoes nothing."""
    assert not is_set_up_anew([writes(0, 10, X[0])])


def test_writes_belong_together_from_init_to_init() -> None:
    """Both vCPUs' lives before their INIT are one round with what follows the entries, those after it another one."""
    first, second = writes(0, 1, end=10), writes(1, 2, end=11)
    later = writes(0, 12, fresh=False)
    again = [writes(0, 20), writes(1, 21)]
    assert rounds([first, second, later, *again]) == [[first, second, later], again]


def save_of(vcpu: int, first: int, *again: int, small: bool = False) -> Save:
    """A save of a vCPU of VM 1 that has four registers: all of them, or one, were read."""
    state = dict.fromkeys(X[:4], bytes(8))
    read = list(state)[: 1 if small else 4]
    save = Save(1, vcpu, state, dict.fromkeys(read, first), {}, 0.0)
    save.again.extend(again)
    return save


def test_unchanged_vcpu_belongs_to_each_pass() -> None:
    """vCPU 1 was read at 20 and 40 in one state: its one save is of both passes."""
    old, new, other = save_of(0, 10), save_of(0, 30), save_of(1, 20, 40)
    passes = moments([old, other, new], before=100)
    assert passes == [{0: [old], 1: [other]}, {0: [new], 1: [other]}]
    assert of_vcpu(passes, 1) == [other]
    assert agreed(passes, [[new], [other]]) == [passes[1]]
    assert agreed(passes, [[other]]) == passes


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_passes_go_in_any_order(order: tuple[int, int]) -> None:
    """A VMM may save its last vCPU first."""
    saves = [save_of(vcpu, 10 * place + 10) for place, vcpu in enumerate(order * 2)]
    assert moments(saves, before=100) == [{save.vcpu: [save] for save in saves[place : place + 2]} for place in (0, 2)]


def test_a_look_out_of_turn_does_not_shift_passes() -> None:
    """vCPU 1 was read by a debugger before the pass; what was read after the restore, or a little, is no pass."""
    look, first, second = save_of(1, 10), save_of(0, 20), save_of(1, 30)
    passes = moments([look, first, second, save_of(0, 40), save_of(0, 25, small=True)], before=40)
    assert passes == [{1: [look]}, {0: [first], 1: [second]}]


def test_nothing_agrees_with_nothing() -> None:
    """Without a vCPU that equals a save, no pass is the one."""
    assert agreed(moments([save_of(0, 10)], before=100), []) == []


@pytest.mark.parametrize("host", ["neoverse-v1", "cortex-a57"])
def test_what_was_read_and_written_back_restores_nothing(host: str) -> None:
    """A VMM that stops a vCPU, reads it, writes it back and goes on has not restored the state before its run."""
    with opened(host) as kvm:
        vcpu = guest(kvm.create_vm())
        save(vcpu)
        run(vcpu)
        saved, state = save(vcpu), mp_state(vcpu, uapi.KVM_GET_MP_STATE)
        restore(vcpu, saved, [name for name in saved if name not in VLS])
        vcpu["cntvct_el0"] = saved["cntvct_el0"]
        mp_state(vcpu, uapi.KVM_SET_MP_STATE, state)
        run(vcpu)
        assert kvm.findings() == []
        assert kvm.verdict().judged == ()


def test_another_mp_state_than_was_read_is_a_write() -> None:
    """What is written back with the value that the VMM read is no restore; a value of its own may be one.

    The guest's time was set before the reads: a stop that follows a start at once.
    """
    read = Save(1, 0, dict.fromkeys((*X, MP_STATE), b"\x00"), {MP_STATE: 12}, {}, 0.0, first_event=12)
    sync = writes(0, 10, MP_STATE, fresh=False, end=40)
    sync.state, sync.first, sync.last = dict.fromkeys(X, b"\x00"), 11, kvm_event(30)
    sync.written_back = {id: kvm_event(20 + place) for place, id in enumerate(X)}
    for value, expected in ((b"\0", True), (b"\1", False)):
        sync.attempts[MP_STATE].good = [kvm_event(30, value)]
        assert is_written_back(sync, [read]) is expected
    assert not is_written_back(sync, [])


def kvm_event(number: int, data: bytes = b"") -> Event:
    """A write that succeeded."""
    return Event(number, Kind.IOCTL, "KVM_SET_ONE_REG", 1, 0, "", 0, data=data)
