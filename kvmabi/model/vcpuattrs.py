# SPDX-License-Identifier: MIT
"""What KVM_SET_DEVICE_ATTR sets up on a vCPU: its PMU and the interrupts of its timers.

Source: Documentation/virt/kvm/devices/vcpu.rst, and the answers of Linux 6.1 to 7.3 in tests/golden/devices.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from kvmabi.errors import KvmError
from kvmabi.model import pmu
from kvmabi.model.registermap import Refusal
from kvmabi.model.vcpu import refusal_error
from kvmabi.model.vgic import NOT_A_PPI, is_ppi, is_spi

if TYPE_CHECKING:
    from kvmabi.model.vcpu import Vcpu
    from kvmabi.model.vgic import Vgic

FILTER = struct.Struct("=HHB3x")
FILTER_ACTIONS = 2
EVENTS = 1 << 16

NO_PMU = Refusal(errno.ENODEV, "the vCPU has no PMU", "give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_PMU_V3")
PMU_READY = Refusal(errno.EBUSY, "the PMU is initialised already")
NO_VGIC = Refusal(errno.EINVAL, "the VM has no vGIC, so nothing has an interrupt number")
NO_PMU_IRQ = Refusal(errno.ENXIO, "the PMU's interrupt is not set", "set KVM_ARM_VCPU_PMU_V3_IRQ first")
IRQ_SET = Refusal(errno.EBUSY, "the PMU's interrupt is set already")
BAD_IRQ = Refusal(errno.EINVAL, "the interrupt is neither a PPI nor an SPI")
OTHER_IRQ = Refusal(errno.EINVAL, "the vCPUs' PMUs have the same PPI, or an SPI each of its own")
VGIC_NOT_READY = Refusal(
    errno.ENODEV, "a PMU beside a vGIC is initialised after it", "set KVM_DEV_ARM_VGIC_CTRL_INIT first"
)
BAD_FILTER = Refusal(errno.EINVAL, "the event filter goes beyond the last event, or has no such action")
FIXED_BY_RUN = Refusal(errno.EBUSY, "a vCPU of the VM has run")
NO_SUCH_PMU = Refusal(errno.ENXIO, "the host has no such PMU")
NO_PMU_CHOSEN = Refusal(
    errno.ENXIO, "KVM_ARM_VCPU_PMU_V3_STRICT leaves the PMU open", "choose one with KVM_ARM_VCPU_PMU_V3_SET_PMU first"
)
COUNTERS_OF_NOTHING = NO_PMU_CHOSEN._replace(errno=errno.EINVAL)
NO_SUCH_IRQ = Refusal(
    errno.EINVAL, "the vGIC has no such interrupt", "set KVM_DEV_ARM_VGIC_GRP_NR_IRQS before its INIT"
)
OWNED = Refusal(errno.EEXIST, "interrupt {irq} is {owner}'s")
SAME_IRQS = Refusal(
    errno.EINVAL,
    "a timer of the vCPU has the interrupt of another timer or of the PMU",
    "give each its own by KVM_ARM_VCPU_TIMER_CTRL and KVM_ARM_VCPU_PMU_V3_CTRL",
)
NO_SUCH_TIMER = Refusal(errno.ENXIO, "the kernel lets userspace set no such timer's interrupt")
TOO_MANY_COUNTERS = Refusal(errno.EINVAL, "the host's PMU has fewer counters")


def check_pmu(vcpu: Vcpu) -> None:
    """What is refused of a PMU's attribute before its value is read."""
    if not has_pmu(vcpu):
        raise refusal_error(NO_PMU)
    if vcpu.pmu_ready:
        raise refusal_error(PMU_READY)


def check_vgic(vcpu: Vcpu) -> None:
    """EINVAL without a vGIC."""
    if vcpu.vm.vgic is None:
        raise refusal_error(NO_VGIC)


def check_pmu_irq(vcpu: Vcpu) -> None:
    """What is refused of the PMU's interrupt before its number is read: no PMU, or no vGIC."""
    check_pmu(vcpu)
    check_vgic(vcpu)


def has_pmu(vcpu: Vcpu) -> bool:
    """The vCPU has a PMU."""
    return "pmu_v3" in _features(vcpu)


def _features(vcpu: Vcpu) -> frozenset[str]:
    """The vCPU's features: where all vCPUs of a VM have the same, even before its own INIT."""
    shared = vcpu.system.kernel.switches.vcpus_share_features
    return (vcpu.vm.features if shared else vcpu.features) or frozenset()


def pmu_irq(vcpu: Vcpu) -> int:
    """KVM_ARM_VCPU_PMU_V3_IRQ as it reads."""
    check_vgic(vcpu)
    if not has_pmu(vcpu):
        raise refusal_error(NO_PMU)
    if vcpu.pmu_irq is None:
        raise refusal_error(NO_PMU_IRQ)
    return vcpu.pmu_irq


def set_pmu_irq(vcpu: Vcpu, irq: int) -> None:
    """KVM_ARM_VCPU_PMU_V3_IRQ: a PPI that all vCPUs share, or an SPI for this one alone."""
    if not is_ppi(irq) and not is_spi(irq):
        raise refusal_error(BAD_IRQ)
    others = [other.pmu_irq for other in vcpu.vm.vcpus.values() if other.pmu_irq is not None]
    if any((other == irq) != is_ppi(irq) for other in others):
        raise refusal_error(OTHER_IRQ)
    if vcpu.pmu_irq is not None:
        raise refusal_error(IRQ_SET)
    vcpu.pmu_irq = irq


def init_pmu(vcpu: Vcpu, _value: int) -> None:
    """KVM_ARM_VCPU_PMU_V3_INIT."""
    _check_chosen(vcpu, NO_PMU_CHOSEN)
    if vcpu.vm.vgic is not None:
        if not vcpu.vm.vgic.initialized:
            raise refusal_error(VGIC_NOT_READY)
        if vcpu.pmu_irq is None:
            raise refusal_error(NO_PMU_IRQ)
        if not vcpu.vm.vgic.has_irq(vcpu.pmu_irq):
            raise refusal_error(NO_SUCH_IRQ)
        claim(vcpu, vcpu.pmu_irq, "the PMU")
    vcpu.pmu_ready = True


def set_filter(vcpu: Vcpu, value: int) -> None:
    """KVM_ARM_VCPU_PMU_V3_FILTER, which changes nothing that is modelled."""
    first, count, action = FILTER.unpack(value.to_bytes(8, "little"))
    if first + count > EVENTS or action >= FILTER_ACTIONS:
        raise refusal_error(BAD_FILTER)
    _check_chosen(vcpu, NO_PMU_CHOSEN)
    if vcpu.vm.has_run:
        raise refusal_error(FIXED_BY_RUN)


def _check_chosen(vcpu: Vcpu, refusal: Refusal) -> None:
    """With KVM_ARM_VCPU_PMU_V3_STRICT no PMU is the vCPU's before userspace chose one."""
    if pmu.STRICT in _features(vcpu):
        raise refusal_error(refusal)


def set_pmu(_vcpu: Vcpu, _value: int) -> None:
    """KVM_ARM_VCPU_PMU_V3_SET_PMU: of the host's PMUs no number is known."""
    raise refusal_error(NO_SUCH_PMU)


def set_counters(vcpu: Vcpu, count: int) -> None:
    """KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS: how many event counters the VM's PMU has."""
    _check_chosen(vcpu, COUNTERS_OF_NOTHING)
    if count > pmu.counters(vcpu.system):
        raise refusal_error(TOO_MANY_COUNTERS)
    vcpu.vm.pmu_counters = count


def claim(vcpu: Vcpu, irq: int, owner: str) -> None:
    """Let the PMU or a timer of the vCPU have an interrupt. Errors: EEXIST if it is another's."""
    if vcpu.irq_owners.setdefault(irq, owner) != owner:
        raise refusal_error(OWNED._replace(reason=OWNED.reason.format(irq=irq, owner=vcpu.irq_owners[irq])))


def enable_timers(vcpu: Vcpu) -> None:
    """Beside a vGIC the first run of a vCPU gives its timers, two or with EL2 four, their interrupts for good."""
    irqs = vcpu.vm.timer_irqs[: 4 if "has_el2" in vcpu.mode.features else 2]
    if len(set(irqs)) < len(irqs) and not vcpu.system.kernel.switches.timer_irqs_stay_claimed:
        raise refusal_error(SAME_IRQS, mode=vcpu.mode)
    for timer, irq in enumerate(irqs):
        try:
            claim(vcpu, irq, f"timer {timer}")
        except KvmError:
            raise refusal_error(SAME_IRQS, mode=vcpu.mode) from None
    vcpu.timers_enabled = True


def check_pmu_at_run(vcpu: Vcpu, vgic: Vgic) -> None:
    """Beside a vGIC a PMU that is initialised has an interrupt: EINVAL if that was done before there was a vGIC."""
    if vcpu.pmu_ready and (vcpu.pmu_irq is None or not vgic.has_irq(vcpu.pmu_irq)):
        raise refusal_error(NO_PMU_IRQ._replace(errno=errno.EINVAL), mode=vcpu.mode)


def set_timer_irq(vcpu: Vcpu, timer: int | None, irq: int) -> None:
    """KVM_ARM_VCPU_TIMER_IRQ_*: the PPI of a timer (None: of none that there is), in all vCPUs of the VM."""
    if not is_ppi(irq):
        raise refusal_error(NOT_A_PPI)
    alone = vcpu.system.kernel.switches.timer_irqs_stay_claimed
    if any(other.timers_enabled for other in ((vcpu,) if alone else vcpu.vm.vcpus.values())):
        raise refusal_error(FIXED_BY_RUN)
    if timer is None:
        raise refusal_error(NO_SUCH_TIMER)
    vcpu.vm.timer_irqs[timer] = irq
