# SPDX-License-Identifier: MIT
"""What KVM_SET_DEVICE_ATTR sets up on a vCPU: its PMU and the interrupts of its timers.

Source: Documentation/virt/kvm/devices/vcpu.rst, and the answers of Linux 6.1 to 7.3 in tests/golden/devices.
"""

from __future__ import annotations

import errno
from typing import Protocol

from kvmabi.errors import KvmError
from kvmabi.model import pmu
from kvmabi.model.refusal import Refusal
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vgic import NOT_A_PPI, Vgic, is_ppi, is_spi

FILTER_ACTIONS = 2
EVENTS = 1 << 16

NO_PMU = Refusal(errno.ENODEV, "the vCPU has no PMU", "give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_PMU_V3")
PMU_READY = Refusal(errno.EBUSY, "the PMU is initialised already")
NO_VGIC = Refusal(errno.EINVAL, "the VM has no vGIC, so it has no interrupts to assign")
NO_PMU_IRQ = Refusal(errno.ENXIO, "the PMU's interrupt is not set", "set KVM_ARM_VCPU_PMU_V3_IRQ first")
IRQ_SET = Refusal(errno.EBUSY, "the PMU's interrupt is set already")
BAD_IRQ = Refusal(errno.EINVAL, "the interrupt is neither a PPI nor an SPI")
OTHER_IRQ = Refusal(errno.EINVAL, "the PMUs of all vCPUs use one PPI, or each an SPI of its own")
VGIC_NOT_READY = Refusal(
    errno.ENODEV, "in a VM with a vGIC, the PMU is initialised after the vGIC", "set KVM_DEV_ARM_VGIC_CTRL_INIT first"
)
BAD_FILTER = Refusal(errno.EINVAL, "the event filter goes beyond the last event, or has no such action")
FIXED_BY_RUN = Refusal(errno.EBUSY, "a vCPU of the VM has run")
NO_SUCH_PMU = Refusal(errno.ENXIO, "the host has no such PMU")
NO_PMU_CHOSEN = Refusal(
    errno.ENXIO,
    "with KVM_ARM_VCPU_PMU_V3_STRICT no PMU is chosen yet",
    "choose one with KVM_ARM_VCPU_PMU_V3_SET_PMU first",
)
COUNTERS_OF_NOTHING = NO_PMU_CHOSEN._replace(errno=errno.EINVAL)
NO_SUCH_IRQ = Refusal(
    errno.EINVAL, "the vGIC has no such interrupt", "set KVM_DEV_ARM_VGIC_GRP_NR_IRQS before its INIT"
)
OWNED = Refusal(errno.EEXIST, "interrupt {irq} belongs to {owner}")
SAME_IRQS = Refusal(
    errno.EINVAL,
    "a timer of the vCPU has the interrupt of another timer or of the PMU",
    "give each its own by KVM_ARM_VCPU_TIMER_CTRL and KVM_ARM_VCPU_PMU_V3_CTRL",
)
NO_SUCH_ATTR = Refusal(errno.ENXIO, "the group does not have this attribute")
NO_SUCH_TIMER = Refusal(errno.ENXIO, "userspace cannot set the interrupt of this timer")
TOO_MANY_COUNTERS = Refusal(errno.EINVAL, "the host's PMU has fewer counters")


class Value(Protocol):
    """The caller's value of an attribute."""

    def take(self) -> int:
        """Read it. Raises KvmError, EFAULT."""


def _require_fresh_pmu(vcpu: Vcpu) -> None:
    """ENODEV without a PMU, EBUSY once it is initialised."""
    if not has_pmu(vcpu):
        raise NO_PMU.error()
    if vcpu.pmu_ready:
        raise PMU_READY.error()


def _require_vgic(vcpu: Vcpu) -> None:
    """EINVAL without a vGIC."""
    if vcpu.vm.vgic is None:
        raise NO_VGIC.error()


def has_pmu(vcpu: Vcpu) -> bool:
    """The vCPU has a PMU."""
    return "pmu_v3" in _features(vcpu)


def _features(vcpu: Vcpu) -> frozenset[str]:
    """The vCPU's features: before its own INIT those of the VM, or those that an INIT which failed left behind."""
    if vcpu.system.kernel.switches.vcpus_share_features:
        return vcpu.vm.features or frozenset()
    return vcpu.leftover if vcpu.features is None else vcpu.features


def pmu_irq(vcpu: Vcpu) -> int:
    """KVM_ARM_VCPU_PMU_V3_IRQ as a get returns it."""
    _require_vgic(vcpu)
    if not has_pmu(vcpu):
        raise NO_PMU.error()
    if vcpu.pmu_irq is None:
        raise NO_PMU_IRQ.error()
    return vcpu.pmu_irq


def set_pmu_irq(vcpu: Vcpu, value: Value) -> None:
    """KVM_ARM_VCPU_PMU_V3_IRQ: a PPI that all vCPUs share, or an SPI of this vCPU."""
    _require_fresh_pmu(vcpu)
    _require_vgic(vcpu)
    irq = value.take()
    if not is_ppi(irq) and not is_spi(irq):
        raise BAD_IRQ.error()
    others = [other.pmu_irq for other in vcpu.vm.vcpus.values() if other.pmu_irq is not None]
    if any((other == irq) != is_ppi(irq) for other in others):
        raise OTHER_IRQ.error()
    if vcpu.pmu_irq is not None:
        raise IRQ_SET.error()
    vcpu.pmu_irq = irq


def init_pmu(vcpu: Vcpu, _value: Value) -> None:
    """KVM_ARM_VCPU_PMU_V3_INIT."""
    _require_fresh_pmu(vcpu)
    _check_chosen(vcpu, NO_PMU_CHOSEN)
    if vcpu.vm.vgic is not None:
        if not vcpu.vm.vgic.initialized:
            raise VGIC_NOT_READY.error()
        if vcpu.pmu_irq is None:
            raise NO_PMU_IRQ.error()
        if not vcpu.vm.vgic.has_irq(vcpu.pmu_irq):
            raise NO_SUCH_IRQ.error()
        claim(vcpu, vcpu.pmu_irq, "the PMU")
    vcpu.pmu_ready = True


def set_filter(vcpu: Vcpu, value: Value) -> None:
    """KVM_ARM_VCPU_PMU_V3_FILTER, which changes nothing that is modelled."""
    _require_fresh_pmu(vcpu)
    event_filter = value.take()
    first, count, action = event_filter & 0xFFFF, event_filter >> 16 & 0xFFFF, event_filter >> 32 & 0xFF
    if first + count > EVENTS or action >= FILTER_ACTIONS:
        raise BAD_FILTER.error()
    _check_chosen(vcpu, NO_PMU_CHOSEN)
    if vcpu.vm.has_run:
        raise FIXED_BY_RUN.error()


def _check_chosen(vcpu: Vcpu, refusal: Refusal) -> None:
    """Fails with KVM_ARM_VCPU_PMU_V3_STRICT: userspace has not chosen a PMU, as set_pmu accepts none."""
    if pmu.STRICT in _features(vcpu):
        raise refusal.error()


def set_pmu(vcpu: Vcpu, value: Value) -> None:
    """KVM_ARM_VCPU_PMU_V3_SET_PMU: fails with ENXIO, as the IDs of a host's PMUs are not modelled."""
    _require_fresh_pmu(vcpu)
    value.take()
    raise NO_SUCH_PMU.error()


def set_counters(vcpu: Vcpu, value: Value) -> None:
    """KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS: the number of event counters of the VM's PMU."""
    _require_fresh_pmu(vcpu)
    count = value.take()
    _check_chosen(vcpu, COUNTERS_OF_NOTHING)
    if count > pmu.counters(vcpu.system):
        raise TOO_MANY_COUNTERS.error()
    vcpu.vm.pmu_counters = count


def no_pmu_attr(vcpu: Vcpu, _value: Value) -> None:
    """An attribute that the kernel's PMU group does not have."""
    _require_fresh_pmu(vcpu)
    raise NO_SUCH_ATTR.error()


def claim(vcpu: Vcpu, irq: int, owner: str) -> None:
    """Assign an interrupt to the PMU or a timer of the vCPU. Errors: EEXIST if it has another owner."""
    if vcpu.irq_owners.setdefault(irq, owner) != owner:
        reason = OWNED.reason.format(irq=irq, owner=vcpu.irq_owners[irq])
        raise OWNED._replace(reason=reason).error()


def enable_timers(vcpu: Vcpu) -> None:
    """Assign the interrupts of two timers (four with EL2) for good, at a vCPU's first run in a VM with a vGIC."""
    irqs = vcpu.vm.timer_irqs[: 4 if "has_el2" in vcpu.mode.features else 2]
    if len(set(irqs)) < len(irqs) and not vcpu.system.kernel.switches.timer_irqs_stay_claimed:
        raise SAME_IRQS.error(mode=vcpu.mode)
    for timer, irq in enumerate(irqs):
        try:
            claim(vcpu, irq, f"timer {timer}")
        except KvmError:
            raise SAME_IRQS.error(mode=vcpu.mode) from None
    vcpu.timers_enabled = True


def check_pmu_at_run(vcpu: Vcpu, vgic: Vgic) -> None:
    """EINVAL for a PMU that was initialised, before the vGIC was created, without an interrupt of the vGIC."""
    if vcpu.pmu_ready and (vcpu.pmu_irq is None or not vgic.has_irq(vcpu.pmu_irq)):
        raise NO_PMU_IRQ._replace(errno=errno.EINVAL).error(mode=vcpu.mode)


def set_timer_irq(vcpu: Vcpu, timer: int | None, value: Value) -> None:
    """KVM_ARM_VCPU_TIMER_IRQ_*: the PPI of a timer (None: a timer that does not exist), in all vCPUs of the VM."""
    _require_vgic(vcpu)
    irq = value.take()
    if not is_ppi(irq):
        raise NOT_A_PPI.error()
    own_only = vcpu.system.kernel.switches.timer_irqs_stay_claimed
    if any(other.timers_enabled for other in ((vcpu,) if own_only else vcpu.vm.vcpus.values())):
        raise FIXED_BY_RUN.error()
    if timer is None:
        raise NO_SUCH_TIMER.error()
    vcpu.vm.timer_irqs[timer] = irq
