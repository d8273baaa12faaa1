# SPDX-License-Identifier: MIT
"""The generic timers: free-running counters, and control registers with a computed status."""

from __future__ import annotations

import time
from typing import Any

from kvmabi import regid
from kvmabi.model.row import Buffer, Outcome, Owner, Row
from kvmabi.model.vmstate import VmState

ENABLE, IMASK, ISTATUS = 1 << 0, 1 << 1, 1 << 2
MASK = (1 << 64) - 1
CNTVCT_ID = regid.parse("cntvct_el0")
CNTPCT_ID = regid.parse("cntpct_el0")
# The count and the compare value from which the status in a timer's control register follows.
COMPARES = {
    regid.parse("cntv_ctl_el0"): (CNTVCT_ID, regid.parse("cntv_cval_el0")),
    regid.parse("cntp_ctl_el0"): (CNTPCT_ID, regid.parse("cntp_cval_el0")),
}


def now(hz: int) -> int:
    """The host's counter."""
    return time.monotonic_ns() * hz // 1_000_000_000 & MASK


def get_counter(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    """A free-running counter: the host's counter minus the VM's offset."""
    return _count(vcpu, row.id).to_bytes(8, "little")


def set_counter(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a free-running counter, for all vCPUs of the VM; ignored once their offsets are fixed."""
    if vcpu.vm.fixed_counters:
        return None
    vcpu.vm.counter_offsets[row.id] = now(vcpu.system.host.counter_hz) - int.from_bytes(data, "little") & MASK
    return None


def set_offset(vm: VmState[Any], offset: int) -> None:
    """KVM_ARM_SET_COUNTER_OFFSET: what is subtracted from the host's counter for both of the guest's, from now on."""
    vm.fixed_counters = True
    vm.counter_offsets.update({CNTVCT_ID: offset, CNTPCT_ID: offset})


def set_control(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set a timer's control register; userspace cannot write ISTATUS."""
    vcpu.store(row, (int.from_bytes(data, "little") & ~ISTATUS).to_bytes(8, "little"))
    return None


def set_control_32bit(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """The same, storing only the low 32 bits."""
    return set_control(vcpu, row, data[:4] + bytes(4))


def get_control_status(vcpu: Owner, row: Row, _buffer: Buffer) -> bytes:
    """A timer's control register, with ISTATUS computed from the count and the compare value."""
    return (vcpu.value(row) | (ISTATUS if _due(vcpu, row.id) else 0)).to_bytes(8, "little")


def fires(vcpu: Owner, control: int) -> bool:
    """Whether the timer with this control register asserts its interrupt now."""
    start = vcpu.system.sysreg_offset(control)
    bits = int.from_bytes(vcpu.memory[start : start + 8], "little")
    return bits & (ENABLE | IMASK) == ENABLE and _due(vcpu, control)


def _due(vcpu: Owner, control: int) -> bool:
    """Whether the count has reached the compare value."""
    count, compare = COMPARES[control]
    start = vcpu.system.sysreg_offset(compare)
    return int.from_bytes(vcpu.memory[start : start + 8], "little") <= _count(vcpu, count)


def _count(vcpu: Owner, id: int) -> int:
    return now(vcpu.system.host.counter_hz) - vcpu.vm.counter_offsets.get(id, 0) & MASK
