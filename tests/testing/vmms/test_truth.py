# SPDX-License-Identifier: MIT
"""The truth of the generator: what differs from the state at a save, read without an event."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import kvmabi
from kvmabi import Kvm, regid, uapi
from kvmabi.kvm import Vcpu
from kvmabi.testing.vmms.machine import STOPPED, get_mp_state, set_mp_state
from kvmabi.testing.vmms.truth import MP_STATE, State, lost, mp_state, state_of

HZ = 1000
CNTVCT, CNTPCT, CTL = map(regid.parse, ("cntvct_el0", "cntpct_el0", "cntv_ctl_el0"))
X0, X1 = map(regid.parse, ("x0", "x1"))


@pytest.fixture
def vcpu() -> Iterator[Vcpu]:
    with kvmabi.open(kept_events=10) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        yield vcpu


def state(values: dict[int, bytes], count: int = 0) -> State:
    return State(values, count, bytes(4), bytes(8))


def test_reading_the_truth_is_no_event(vcpu: Vcpu) -> None:
    """A checker that watches does not see it; it is what ioctls read."""
    kvm: Kvm = vcpu.kvm
    before = kvm.log.count
    vcpu_state = state_of(vcpu)
    assert kvm.log.count == before
    assert vcpu_state.values[X0] == vcpu[X0]
    set_mp_state(vcpu, STOPPED)
    assert mp_state(vcpu) == get_mp_state(vcpu) == STOPPED


def test_what_differs_is_lost(vcpu: Vcpu) -> None:
    """A register that was changed, one that is no longer visible, and the MP state."""
    vcpu["svcr"] = 2
    vcpu["za.h[3]"] = bytes([5]) * 256
    before = state_of(vcpu)
    vcpu["x3"] = 7
    vcpu["svcr"] = 0
    set_mp_state(vcpu, STOPPED)
    names = lost(before, state_of(vcpu), HZ)
    assert names == {"x3", "svcr", "zt0", MP_STATE} | {f"za.h[{n}]" for n in range(128)}


def test_registers_of_the_destination_alone_do_not_count() -> None:
    assert lost(state({X0: bytes(8)}), state({X0: bytes(8), X1: b"\1" * 8}), HZ) == set()


def test_shorter_value_is_followed_by_zeroes() -> None:
    assert lost(state({X0: b"\1" + bytes(7)}), state({X0: b"\1"}), HZ) == set()
    assert lost(state({X0: b"\1" * 8}), state({X0: b"\1"}), HZ) == {"x0"}


def test_free_running_counters_and_status_bits_are_left_out() -> None:
    """ISTATUS, bit 2 of the control register, follows the counter; the enable bit does not."""
    assert lost(state({CNTPCT: bytes(8)}), state({CNTPCT: b"\1" * 8}), HZ) == set()
    assert lost(state({CTL: bytes(8)}), state({CTL: b"\4" + bytes(7)}), HZ) == set()
    assert lost(state({CTL: bytes(8)}), state({CTL: b"\5" + bytes(7)}), HZ) == {"cntv_ctl_el0"}


@pytest.mark.parametrize(("ahead", "names"), [(60, set()), (-60, set()), (61, {"cntvct_el0"}), (-61, {"cntvct_el0"})])
def test_virtual_count_may_be_a_minute_off(ahead: int, names: set[str]) -> None:
    """In both directions, around the end of 64 bits as well."""
    now = state({CNTVCT: bytes(8)}, ahead * HZ % (1 << 64))
    assert lost(state({CNTVCT: bytes(8)}), now, HZ) == names


def test_pending_events_count(vcpu: Vcpu) -> None:
    before = state_of(vcpu)
    events = bytearray(before.events)
    events[uapi.ffi.offsetof("struct kvm_vcpu_events", "exception", "serror_pending")] = 1
    vcpu.kvm.ioctl(vcpu.fd, uapi.KVM_SET_VCPU_EVENTS, bytes(events))
    assert lost(before, state_of(vcpu), HZ) == {"vcpu_events"}
