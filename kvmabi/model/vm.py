# SPDX-License-Identifier: MIT
"""A VM: its vCPUs and what they share, such as the ID registers."""

from __future__ import annotations

import errno

from kvmabi.model import idreg, pmu, timer
from kvmabi.model.its import Its
from kvmabi.model.itstables import Mappings
from kvmabi.model.refusal import Refusal
from kvmabi.model.system import System
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vgic import Vgic
from kvmabi.model.vmstate import VmState

IPA_BITS = 40
"""The width of guest-physical addresses where KVM_CREATE_VM does not give one."""
VGIC_READY = Refusal(
    errno.EBUSY,
    "the vGIC is initialised, so no more vCPUs can be created",
    "create them before KVM_DEV_ARM_VGIC_CTRL_INIT",
)
VGIC_EXISTS = Refusal(errno.EEXIST, "the VM already has a vGIC")
VGIC_TOO_LATE = Refusal(errno.EBUSY, "a vCPU has run", "create the vGIC before KVM_RUN")
VCPU_EXISTS = Refusal(errno.EEXIST, "the VM already has a vCPU with this ID")


class Vm(VmState[Vcpu]):
    """One VM on a system."""

    def __init__(self, system: System, number: int, ipa_bits: int = IPA_BITS) -> None:
        super().__init__(
            number,
            ipa_bits,
            timer_irqs=system.kernel.timer_irqs,
            pmu_counters=pmu.counters(system),
            counter_offsets={timer.CNTVCT_ID: timer.now(system.host.counter_hz)},
        )
        self.system = system

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU. Errors: EINVAL for an ID out of range, EEXIST for one in use, EBUSY once
        the vGIC is initialised, EINVAL where its redistributors overlap or do not fit."""
        if not 0 <= index < self.system.kernel.max_vcpus:
            reason = f"vCPU IDs range from 0 to {self.system.kernel.max_vcpus - 1}"
            raise Refusal(errno.EINVAL, reason).error()
        in_use = index in self.vcpus
        ready = self.vgic is not None and self.vgic.initialized
        if ready and not (in_use and self.system.kernel.switches.vcpu_in_use_first):
            raise VGIC_READY.error()
        if in_use:
            raise VCPU_EXISTS.error()
        if self.vgic is not None:
            self.vgic.place(index, len(self.vcpus))
        vcpu = self.vcpus[index] = Vcpu(self, self.system, index)
        self.affinities = None
        return vcpu

    def create_vgic(self) -> Vgic:
        """KVM_CREATE_DEVICE of a vGICv3. Errors: EEXIST, EBUSY once a vCPU has run."""
        if self.vgic is not None:
            raise VGIC_EXISTS.error()
        if self.has_run:
            raise VGIC_TOO_LATE.error()
        early = self.system.kernel.switches.gic_ids_before_init
        self.vgic = Vgic(self.ipa_bits, has_its=bool(self.its), ids_before_init=early)
        self.lpis.tables = self.vgic.state
        ready = [vcpu for vcpu in self.vcpus.values() if vcpu.map is not None]
        if ready and self.system.kernel.switches.vgic_shows_gic:
            idreg.show_gic(ready[0], shown=True)
        return self.vgic

    def create_its(self) -> Its:
        """KVM_CREATE_DEVICE of an ITS, which gives the vGIC LPIs."""
        switches = self.system.kernel.switches
        its = Its(self.ipa_bits, Mappings(self.lpis, self._vcpu_of, switches), switches)
        self.its.append(its)
        if self.vgic is not None:
            self.vgic.state.add_its()
        return its

    def _vcpu_of(self, target: int) -> int | None:
        """The ID of the vCPU that a collection of an ITS has as its target."""
        return self.vcpu_id(target, by_id=self.system.kernel.switches.its_targets_by_id)

    def vcpu_id(self, number: int, *, by_id: bool) -> int | None:
        """The ID of the vCPU that a number means: its ID, or its place in the order of creation; None without one."""
        if not by_id:
            return list(self.vcpus)[number] if number < len(self.vcpus) else None
        return number if number in self.vcpus else None

    def close(self) -> None:
        """Release the memory of every vCPU."""
        for vcpu in self.vcpus.values():
            vcpu.close()
