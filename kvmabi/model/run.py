# SPDX-License-Identifier: MIT
"""KVM_RUN: what it refuses, what the first one freezes; the guest itself does nothing but wait."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmabi.errors import KvmError
from kvmabi.model import idreg, vcpuattrs
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
DEAD = "the VM is dead: from now on every ioctl on it and on its vCPUs and devices is EIO"
INTERRUPTED = "a signal or immediate_exit ended the run"


def run(vcpu: Vcpu, *, immediate_exit: bool) -> KvmError:
    """Run a vCPU until something ends it; tells the EINTR that did, or raises what refused the run.

    A VM without a vGIC loses the GIC fields of its ID registers at the first attempt; ID
    registers are frozen only by one that gets as far as the guest.
    """
    vcpu.require_final()
    vgic = vcpu.vm.vgic
    if vgic is not None:
        if not vcpu.vm.has_run:
            _map_vgic(vcpu, vgic)
        if not vcpu.timers_enabled:
            vcpuattrs.enable_timers(vcpu)
        vcpuattrs.check_pmu_at_run(vcpu, vgic)
    elif not vcpu.vm.has_run and vcpu.system.kernel.switches.gic_hidden_without_vgic:
        idreg.show_gic(vcpu, shown=False)
    if "pmu_v3" in vcpu.mode.features and not vcpu.pmu_ready:
        raise PMU_NOT_READY.error(mode=vcpu.mode)
    vcpu.vm.has_run = True
    _pass_through_cpu(vcpu)
    return KvmError(errno.EINTR, INTERRUPTED, mode=vcpu.mode, waits=not immediate_exit)


def _map_vgic(vcpu: Vcpu, vgic: Vgic) -> None:
    """A vGIC that is not fit for a run is the end of its VM."""
    try:
        vgic.map_resources(vcpu.vm.vcpus)
    except KvmError:
        vcpu.vm.dead = True
        vcpu.warn(DEAD)
        raise


def _pass_through_cpu(vcpu: Vcpu) -> None:
    """With VHE, EL1 registers are loaded into the CPU and saved from it, which keeps only bits that it has."""
    for id, keeps in vcpu.system.cpu_keeps:
        row = vcpu.row(id)
        if row.get is None:
            vcpu.store(row, (vcpu.value(row) & keeps).to_bytes(8, "little"))
