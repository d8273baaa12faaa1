# SPDX-License-Identifier: MIT
"""KVM_RUN: when it fails, what the first one freezes, how it ends. A guest without a script idles."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.model import affinity, idreg, timerlines, vcpuattrs
from kvmabi.model.effects import Effect
from kvmabi.model.refusal import Refusal
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vgic import Vgic

PMU_NOT_READY = Refusal(
    errno.EINVAL,
    "the vCPU has a PMU that was not initialised",
    "use KVM_SET_DEVICE_ATTR with KVM_ARM_VCPU_PMU_V3_CTRL and KVM_ARM_VCPU_PMU_V3_INIT first",
)
DEAD = "the VM is dead: from now on every ioctl on it and on its vCPUs and devices is EIO"
INTERRUPTED = Refusal(errno.EINTR, "a signal or immediate_exit ended the run")


class Exit(NamedTuple):
    """How a KVM_RUN ended.

    ``result`` is what the ioctl returns: 0, or why it fails. ``waits``: only once a signal has come. ``written`` are
    the fields of struct kvm_run that the kernel wrote, by name ("mmio.len"). ``again_ms``: while it waits, the guest
    goes on after that many milliseconds (0: it does not). ``effects`` are the registers that the CPU did not preserve,
    if the guest was not entered: what changes where it is entered is the guest's.
    """

    result: int | Refusal
    waits: bool = False
    written: Mapping[str, int | bytes] = {}  # read only
    again_ms: int = 0
    effects: tuple[Effect, ...] = ()


ENTERED: Mapping[str, int | bytes] = {"exit_reason": int(uapi.KVM_EXIT_UNKNOWN), "flags": 0}
"""What the kernel writes before it enters the guest."""


class Guest(Protocol):
    """What runs on a vCPU: kvmabi.guests has scripts."""

    def complete(self) -> None:
        """Finish what the last exit asked the VMM for, as every KVM_RUN does first, also one with immediate_exit."""

    def enter(self) -> Exit:
        """Enter the guest; returns why it was left."""


IMMEDIATE = Exit(INTERRUPTED)
"""kvm_run.immediate_exit was set: the guest is not entered and struct kvm_run stays as it is."""
SIGNAL = Exit(INTERRUPTED, waits=True, written={"exit_reason": int(uapi.KVM_EXIT_INTR), "flags": 0})
"""The guest idles until a signal comes."""


def run(vcpu: Vcpu, *, immediate_exit: bool, guest: Guest | None = None) -> Exit:
    """KVM_RUN of a vCPU; without a ``guest`` it idles. Raises KvmError where the kernel does not get as far.

    A VM without a vGIC loses the GIC fields of its ID registers at the first attempt; ID registers are frozen only by
    one that gets as far as the guest.
    """
    vcpu.require_final()
    vcpu.generation += 1
    if not vcpu.has_run and vcpu.system.kernel.switches.affinity_table:
        affinity.fix(vcpu.vm)
    vgic = vcpu.vm.vgic
    if vgic is not None:
        if not vcpu.vm.has_run:
            _map_vgic(vcpu, vgic)
        if not vcpu.timers_enabled:
            vcpuattrs.enable_timers(vcpu)
            timerlines.connect(vcpu, vgic)
        vcpuattrs.check_pmu_at_run(vcpu, vgic)
    elif not vcpu.vm.has_run and vcpu.system.kernel.switches.gic_hidden_without_vgic:
        idreg.show_gic(vcpu, shown=False)
    if "pmu_v3" in vcpu.mode.features and not vcpu.pmu_ready:
        raise PMU_NOT_READY.error(mode=vcpu.mode)
    vcpu.vm.has_run = vcpu.has_run = True
    if vgic is not None:
        timerlines.follow(vcpu, vgic)
        if vcpu.system.kernel.switches.run_passes_gic:
            vcpu.vm.cpu_interface(vcpu.index).pass_through_cpu()
    changed = _pass_through_cpu(vcpu)
    if guest is not None:
        guest.complete()
    if immediate_exit:
        return IMMEDIATE._replace(effects=changed)
    return SIGNAL if guest is None else guest.enter()


def _map_vgic(vcpu: Vcpu, vgic: Vgic) -> None:
    """Map the vGIC at the first run; a failure kills the VM."""
    try:
        vgic.map_resources(vcpu.vm.vcpus)
    except KvmError:
        vcpu.vm.die()
        vcpu.warn(DEAD)
        raise


def _pass_through_cpu(vcpu: Vcpu) -> tuple[Effect, ...]:
    """With VHE, EL1 registers are loaded into the CPU and saved from it, which keeps the bits that it has.

    Returns the registers that changed.
    """
    changed = []
    for id, keeps in vcpu.system.cpu_keeps:
        row = vcpu.row(id)
        if row.get is None:
            before = vcpu.value(row)
            if before & ~keeps:
                after = (before & keeps).to_bytes(8, "little")
                vcpu.store(row, after)
                changed.append(Effect(id, before.to_bytes(8, "little"), after))
    return tuple(changed)
