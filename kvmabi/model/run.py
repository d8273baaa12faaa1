# SPDX-License-Identifier: MIT
"""KVM_RUN: what it refuses, what the first one freezes; the guest itself does nothing but wait."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmabi.errors import KvmError
from kvmabi.model import idreg
from kvmabi.model.registermap import Refusal
from kvmabi.model.vcpu import refusal_error

if TYPE_CHECKING:
    from kvmabi.model.vcpu import Vcpu
    from kvmabi.model.vgic import Vgic

PMU_NOT_READY = Refusal(
    errno.EINVAL,
    "the vCPU has a PMU that was not initialised",
    "use KVM_SET_DEVICE_ATTR with KVM_ARM_VCPU_PMU_V3_CTRL and KVM_ARM_VCPU_PMU_V3_INIT first",
)
SAME_IRQS = Refusal(
    errno.EINVAL, "two of the vCPU's timers have the same interrupt", "give each its own by KVM_ARM_VCPU_TIMER_CTRL"
)
INTERRUPTED = "a signal or immediate_exit ended the run"


def run(vcpu: Vcpu, *, immediate_exit: bool) -> KvmError:
    """Run a vCPU until something ends it; tells the EINTR that did, or raises what refused the run.

    A VM without a vGIC loses the GIC fields of its ID registers at the first attempt; ID
    registers are frozen only by one that gets as far as the guest.
    """
    vcpu.require_final()
    if vcpu.vm.vgic is not None and not vcpu.vm.has_run:
        _map_vgic(vcpu, vcpu.vm.vgic)
    if vcpu.vm.vgic is None and not vcpu.vm.has_run and vcpu.system.kernel.switches.gic_hidden_without_vgic:
        idreg.show_gic(vcpu, shown=False)
    if vcpu.vm.vgic is not None and not vcpu.has_run:
        _check_timers(vcpu)
    if "pmu_v3" in vcpu.mode.features and not vcpu.pmu_ready:
        raise refusal_error(PMU_NOT_READY, mode=vcpu.mode)
    vcpu.has_run = vcpu.vm.has_run = True
    _pass_through_cpu(vcpu)
    return KvmError(errno.EINTR, INTERRUPTED, mode=vcpu.mode, waits=not immediate_exit)


def _map_vgic(vcpu: Vcpu, vgic: Vgic) -> None:
    """A vGIC that is not fit for a run is the end of its VM."""
    try:
        vgic.map_resources(len(vcpu.vm.vcpus))
    except KvmError:
        vcpu.vm.dead = True
        raise


def _check_timers(vcpu: Vcpu) -> None:
    """Beside a vGIC the timers that the vCPU has, two or with EL2 four, have an interrupt each."""
    count = 4 if "has_el2" in vcpu.mode.features else 2
    claims = vcpu.timer_claims if vcpu.system.kernel.switches.timer_irqs_stay_claimed else {}
    if any(claims.setdefault(irq, timer) != timer for timer, irq in enumerate(vcpu.vm.timer_irqs[:count])):
        raise refusal_error(SAME_IRQS, mode=vcpu.mode)


def _pass_through_cpu(vcpu: Vcpu) -> None:
    """With VHE, EL1 registers are loaded into the CPU and saved from it, which keeps only bits that it has."""
    for id, keeps in vcpu.system.cpu_keeps:
        row = vcpu.row(id)
        if row.get is None:
            vcpu.store(row, (vcpu.value(row) & keeps).to_bytes(8, "little"))
