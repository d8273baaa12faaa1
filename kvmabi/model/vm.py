# SPDX-License-Identifier: MIT
"""A VM: its vCPUs and what they share, such as the ID registers."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmabi.model import idreg, pmu, timer
from kvmabi.model.registermap import Refusal
from kvmabi.model.vcpu import Vcpu, refusal_error
from kvmabi.model.vgic import Vgic

if TYPE_CHECKING:
    from kvmabi.model.system import System

IPA_BITS = 40
"""How many bits guest-physical addresses have where KVM_CREATE_VM does not say."""
VGIC_READY = Refusal(
    errno.EBUSY, "the vGIC is initialised, so there can be no more vCPUs", "make them before KVM_DEV_ARM_VGIC_CTRL_INIT"
)
VGIC_EXISTS = Refusal(errno.EEXIST, "the VM has a vGIC already")
VGIC_TOO_LATE = Refusal(errno.EBUSY, "a vCPU has run", "make the vGIC before KVM_RUN")
VCPU_EXISTS = Refusal(errno.EEXIST, "the VM has a vCPU of this number already")


class Vm:
    """One VM. ``features`` is what its first INIT fixed for all its vCPUs (None before).

    ``shared`` holds what was set of the VM-wide registers, by place in the register file;
    ``enabled`` the capabilities that KVM_ENABLE_CAP switched on; ``has_run`` whether a vCPU
    got as far as the guest; ``pmu_counters`` how many event counters its PMU has;
    ``el1_32bit`` whether its EL1 is AArch32 (None before the first INIT);
    ``counter_offsets`` by how much each timer's count is behind the host's counter. ``vgic`` is
    its interrupt controller, beside which it ``has_its``; ``timer_irqs`` the PPIs of the vCPUs'
    timers. A ``dead`` VM answers nothing any more.
    """

    def __init__(self, system: System, number: int, ipa_bits: int = IPA_BITS) -> None:
        self.system = system
        self.number = number
        self.vcpus: dict[int, Vcpu] = {}
        self.features: frozenset[str] | None = None
        self.shared: dict[int, bytes] = {}
        self.enabled: set[int] = set()
        self.has_run = False
        self.el1_32bit: bool | None = None
        self.pmu_counters = pmu.counters(system)
        self.ipa_bits = ipa_bits
        self.vgic: Vgic | None = None
        self.timer_irqs = list(system.kernel.timer_irqs)
        self.dead = False
        self.has_its = False
        self.counter_offsets = {timer.CNTVCT_ID: timer.now(system.host.counter_hz)}

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU. Errors: EINVAL for a number the kernel does not take, EEXIST for one in use, EBUSY once
        the vGIC is initialised, EINVAL where its redistributors are not sound."""
        if not 0 <= index < self.system.kernel.max_vcpus:
            reason = f"vCPU numbers go from 0 to {self.system.kernel.max_vcpus - 1}"
            raise refusal_error(Refusal(errno.EINVAL, reason))
        in_use = index in self.vcpus
        ready = self.vgic is not None and self.vgic.initialized
        if ready and not (in_use and self.system.kernel.switches.vcpu_in_use_first):
            raise refusal_error(VGIC_READY)
        if in_use:
            raise refusal_error(VCPU_EXISTS)
        if self.vgic is not None:
            self.vgic.place(index, len(self.vcpus))
        vcpu = self.vcpus[index] = Vcpu(self, index)
        return vcpu

    def create_vgic(self) -> Vgic:
        """KVM_CREATE_DEVICE of a vGICv3. Errors: EEXIST, EBUSY once a vCPU has run."""
        if self.vgic is not None:
            raise refusal_error(VGIC_EXISTS)
        if self.has_run:
            raise refusal_error(VGIC_TOO_LATE)
        self.vgic = Vgic(self.ipa_bits)
        ready = [vcpu for vcpu in self.vcpus.values() if vcpu.map is not None]
        if ready and self.system.kernel.switches.vgic_shows_gic:
            idreg.show_gic(ready[0], shown=True)
        return self.vgic

    def id_registers_changed(self, source: Vcpu) -> None:
        """Give every initialised vCPU the register map that the VM's ID registers now call for."""
        shown = self.system.shown(source.file.memory)
        if shown == source.mode.shown:
            return
        for vcpu in self.vcpus.values():
            if vcpu.map is not None:
                vcpu.remap(shown=shown)

    def close(self) -> None:
        """Give every vCPU's memory back."""
        for vcpu in self.vcpus.values():
            vcpu.close()
