# SPDX-License-Identifier: MIT
"""The attributes of a vCPU's file: its PMU, its timers' interrupts, and where the guest reads its stolen time."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.device.attr import ANY, Attribute, Attributes, absent, no_such_attr
from kvmabi.errors import KvmError
from kvmabi.model import vcpuattrs
from kvmabi.model.vgic import NOWHERE

if TYPE_CHECKING:
    from kvmabi.device.vcpu import VcpuFile
    from kvmabi.model.vcpu import Vcpu
    from kvmabi.profiles import Kernel

INT_BYTES, LONG_BYTES = 4, 8
STOLEN_TIME_BYTES = 64
Key = tuple[int, int | None]


def _set_stolen_time(file: VcpuFile, address: int) -> None:
    """KVM_ARM_VCPU_PVTIME_IPA: once, in a memory slot."""
    if address % STOLEN_TIME_BYTES:
        raise KvmError(errno.EINVAL, "the address is no multiple of 64")
    if file.stolen_time != NOWHERE:
        raise KvmError(errno.EEXIST, "the address is set already")
    if not any(slot.guest <= address < slot.guest + slot.size for slot in file.vm.slots.values()):
        raise KvmError(errno.EINVAL, "the address lies in no memory slot", remedy="KVM_SET_USER_MEMORY_REGION first")
    file.stolen_time = address


def _of_pmu(size_bytes: int, setter: Callable[[Vcpu, int], object]) -> Attribute:
    """An attribute of a PMU: there and settable only on a vCPU that has one which is not initialised."""
    return Attribute(
        size_bytes,
        set=lambda file, value: setter(file.vcpu, value),
        check=lambda file: vcpuattrs.check_pmu(file.vcpu),
        present=lambda file: vcpuattrs.has_pmu(file.vcpu),
    )


def _set_timer_irq(timer: int, file: VcpuFile, irq: int) -> None:
    vcpuattrs.set_timer_irq(file.vcpu, timer, irq)


def _timer_irq(timer: int, file: VcpuFile) -> int:
    return file.vcpu.vm.timer_irqs[timer]


PMU: dict[int, Attribute] = {
    uapi.KVM_ARM_VCPU_PMU_V3_IRQ: _of_pmu(INT_BYTES, vcpuattrs.set_pmu_irq)._replace(
        get=lambda file: vcpuattrs.pmu_irq(file.vcpu), check=lambda file: vcpuattrs.check_pmu_irq(file.vcpu)
    ),
    uapi.KVM_ARM_VCPU_PMU_V3_INIT: _of_pmu(0, vcpuattrs.init_pmu),
    uapi.KVM_ARM_VCPU_PMU_V3_FILTER: _of_pmu(LONG_BYTES, vcpuattrs.set_filter),
    uapi.KVM_ARM_VCPU_PMU_V3_SET_PMU: _of_pmu(INT_BYTES, vcpuattrs.set_pmu),
    uapi.KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS: _of_pmu(INT_BYTES, vcpuattrs.set_counters),
}
NO_PMU_ATTR = _of_pmu(0, no_such_attr)._replace(present=absent)
NO_TIMER_ATTR = Attribute(
    INT_BYTES,
    set=lambda file, irq: vcpuattrs.set_timer_irq(file.vcpu, None, irq),
    check=lambda file: vcpuattrs.check_vgic(file.vcpu),
    present=absent,
)
STOLEN_TIME = Attribute(LONG_BYTES, lambda file: file.stolen_time, _set_stolen_time)


def attributes(kernel: Kernel) -> Attributes:
    """All that vCPUs have under a kernel."""
    pmu: dict[Key, Attribute] = {
        (uapi.KVM_ARM_VCPU_PMU_V3_CTRL, attr): PMU[attr] for attr in PMU if attr < kernel.pmu_attrs
    }
    timers: dict[Key, Attribute] = {
        (uapi.KVM_ARM_VCPU_TIMER_CTRL, timer): Attribute(
            INT_BYTES,
            partial(_timer_irq, timer),
            partial(_set_timer_irq, timer),
            check=lambda file: vcpuattrs.check_vgic(file.vcpu),
        )
        for timer in range(len(kernel.timer_irqs))
    }
    pmu[uapi.KVM_ARM_VCPU_PMU_V3_CTRL, ANY] = NO_PMU_ATTR
    timers[uapi.KVM_ARM_VCPU_TIMER_CTRL, ANY] = NO_TIMER_ATTR
    return {**pmu, **timers, (uapi.KVM_ARM_VCPU_PVTIME_CTRL, uapi.KVM_ARM_VCPU_PVTIME_IPA): STOLEN_TIME}
