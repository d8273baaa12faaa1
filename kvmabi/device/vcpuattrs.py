# SPDX-License-Identifier: MIT
"""The attributes of a vCPU's file: its PMU, its timers' interrupts, and the address of its stolen time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.device.attr import ANY, Attribute, Attributes, UserValue, absent
from kvmabi.errors import KvmError
from kvmabi.model import vcpuattrs
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vgic import UNSET_ADDRESS
from kvmabi.profiles import Kernel

if TYPE_CHECKING:
    from kvmabi.device.vcpu import VcpuFile

INT_BYTES = uapi.ffi.sizeof("int")
LONG_BYTES = uapi.ffi.sizeof("__u64")
FILTER_BYTES = uapi.ffi.sizeof("struct kvm_pmu_event_filter")
STOLEN_TIME_BYTES = 64
Key = tuple[int, int | None]


def _set_stolen_time(file: VcpuFile, value: UserValue) -> None:
    """KVM_ARM_VCPU_PVTIME_IPA: once, in a memory slot."""
    address = value.take()
    if address % STOLEN_TIME_BYTES:
        raise KvmError(errno.EINVAL, "the address is not a multiple of 64")
    if file.stolen_time != UNSET_ADDRESS:
        raise KvmError(errno.EEXIST, "the address is set already")
    if not file.vm.slots.holds(address):
        raise KvmError(errno.EINVAL, "the address is not in a memory slot", hint="KVM_SET_USER_MEMORY_REGION first")
    file.stolen_time = address


def _of_pmu(size_bytes: int, setter: Callable[[Vcpu, UserValue], object]) -> Attribute:
    """An attribute of a PMU: present on a vCPU that has one."""
    return Attribute(
        size_bytes,
        set=lambda file, value: setter(file.vcpu, value),
        present=lambda file, _attr: vcpuattrs.has_pmu(file.vcpu),
    )


def _set_timer_irq(timer: int | None, file: VcpuFile, value: UserValue) -> None:
    vcpuattrs.set_timer_irq(file.vcpu, timer, value)


def _timer_irq(timer: int, file: VcpuFile, _value: UserValue) -> int:
    return file.vcpu.vm.timer_irqs[timer]


PMU: dict[int, Attribute] = {
    uapi.KVM_ARM_VCPU_PMU_V3_IRQ: _of_pmu(INT_BYTES, vcpuattrs.set_pmu_irq)._replace(
        get=lambda file, _value: vcpuattrs.pmu_irq(file.vcpu)
    ),
    uapi.KVM_ARM_VCPU_PMU_V3_INIT: _of_pmu(0, vcpuattrs.init_pmu),
    uapi.KVM_ARM_VCPU_PMU_V3_FILTER: _of_pmu(FILTER_BYTES, vcpuattrs.set_filter),
    uapi.KVM_ARM_VCPU_PMU_V3_SET_PMU: _of_pmu(INT_BYTES, vcpuattrs.set_pmu),
    uapi.KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS: _of_pmu(INT_BYTES, vcpuattrs.set_counters),
}
NO_PMU_ATTR = _of_pmu(0, vcpuattrs.no_pmu_attr)._replace(present=absent)
NO_TIMER_ATTR = Attribute(INT_BYTES, set=partial(_set_timer_irq, None), present=absent)
STOLEN_TIME = Attribute(LONG_BYTES, lambda file, _value: file.stolen_time, _set_stolen_time)


def attributes(kernel: Kernel) -> Attributes:
    """Returns the attributes of vCPUs under a kernel."""
    pmu: dict[Key, Attribute] = {
        (uapi.KVM_ARM_VCPU_PMU_V3_CTRL, attr): PMU[attr] for attr in PMU if attr < kernel.pmu_attrs
    }
    timers: dict[Key, Attribute] = {
        (uapi.KVM_ARM_VCPU_TIMER_CTRL, timer): Attribute(
            INT_BYTES, partial(_timer_irq, timer), partial(_set_timer_irq, timer)
        )
        for timer in range(len(kernel.timer_irqs))
    }
    pmu[uapi.KVM_ARM_VCPU_PMU_V3_CTRL, ANY] = NO_PMU_ATTR
    timers[uapi.KVM_ARM_VCPU_TIMER_CTRL, ANY] = NO_TIMER_ATTR
    return {**pmu, **timers, (uapi.KVM_ARM_VCPU_PVTIME_CTRL, uapi.KVM_ARM_VCPU_PVTIME_IPA): STOLEN_TIME}
