# SPDX-License-Identifier: MIT
"""What a vCPU really holds and what it really lost, without the checker and without an event that it sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.device.file import Call
from kvmabi.kvm import Vcpu
from kvmabi.profiles import sysregs
from kvmabi.testing.vmms.families import CNTVCT

MP_STATE, EVENTS = "mp_state", "vcpu_events"
"""State that is not a register, by the names that findings use."""
TOLERANCE_S = 60
MASK = (1 << 64) - 1
FREE_RUNNING = sysregs.free_running_ids()
STATUS_BITS = sysregs.status_bits()


class State(NamedTuple):
    """All of a vCPU: every visible register by ID, the virtual count, the MP state and the pending events."""

    values: Mapping[int, bytes]
    virtual_count: int
    mp_state: bytes
    events: bytes


def state_of(vcpu: Vcpu) -> State:
    """Reads the state of a vCPU. No ioctl is done, so no watcher of events takes it for a VMM that reads back."""
    model = vcpu.kvm.vcpu_model(vcpu.fd)
    values = model.values()
    count = int.from_bytes(model.get_one_reg(CNTVCT), "little") if CNTVCT in values else 0
    return State(values, count, mp_state(vcpu), _read(vcpu, uapi.KVM_GET_VCPU_EVENTS, "struct kvm_vcpu_events"))


def mp_state(vcpu: Vcpu) -> bytes:
    """The MP state of a vCPU as in struct kvm_mp_state, read without an event."""
    return _read(vcpu, uapi.KVM_GET_MP_STATE, "struct kvm_mp_state")


def _read(vcpu: Vcpu, request: int, struct: str) -> bytes:
    """What an ioctl writes to its struct: its handler is called without the record of an event."""
    file = vcpu.kvm.vcpu_file(vcpu.fd)
    place = uapi.ffi.new(f"{struct} *")
    _, handler = file.table[request]
    handler(file, Call(int(uapi.ffi.cast("uintptr_t", place)), vcpu.kvm.memory))
    return bytes(uapi.ffi.buffer(place))


def lost(before: State, now: State, counter_hz: int) -> set[str]:
    """The names of what differs now from the state at a save.

    Free-running counters are left out, except the virtual count, which may be a minute off. Status bits of the timers
    are masked. Registers that only the later state has do not count.
    """
    names = set()
    for id, value in before.values.items():
        other = now.values.get(id)
        if value == other or id in FREE_RUNNING:
            continue
        if other is None or not _equal(value, other, STATUS_BITS.get(id, 0)):
            names.add(regid.name_of(id))
    if CNTVCT in before.values:
        ahead = (now.virtual_count - before.virtual_count) & MASK
        if min(ahead, MASK + 1 - ahead) > TOLERANCE_S * counter_hz:
            names.add(regid.name_of(CNTVCT))
    if before.mp_state != now.mp_state:
        names.add(MP_STATE)
    if before.events != now.events:
        names.add(EVENTS)
    return names


def _equal(value: bytes, other: bytes, status_bits: int) -> bool:
    """Whether two values are equal, the shorter one followed by zeroes, except status bits."""
    difference = int.from_bytes(value, "little") ^ int.from_bytes(other, "little")
    return not difference & ~status_bits
