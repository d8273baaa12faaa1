# SPDX-License-Identifier: MIT
"""A VM: its vCPUs and what they share, such as the ID registers."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from kvmabi.model import pmu, timer
from kvmabi.model.registermap import Refusal, Row
from kvmabi.model.vcpu import Vcpu, refusal_error

if TYPE_CHECKING:
    from kvmabi.model.system import System

VCPU_EXISTS = Refusal(errno.EEXIST, "the VM has a vCPU of this number already")


class Vm:
    """One VM. ``features`` is what its first INIT fixed for all its vCPUs (None before).

    ``shared`` holds what was set of the VM-wide registers, by place in the register file;
    ``enabled`` the capabilities that KVM_ENABLE_CAP switched on; ``has_run`` whether a vCPU
    got as far as the guest; ``pmu_counters`` how many event counters its PMU has;
    ``el1_32bit`` whether its EL1 is AArch32 (None before the first INIT);
    ``counter_offsets`` by how much each timer's count is behind the host's counter.
    """

    def __init__(self, system: System, number: int) -> None:
        self.system = system
        self.number = number
        self.vcpus: dict[int, Vcpu] = {}
        self.features: frozenset[str] | None = None
        self.shared: dict[int, bytes] = {}
        self.enabled: set[int] = set()
        self.has_run = False
        self.el1_32bit: bool | None = None
        self.pmu_counters = pmu.counters(system)
        self.counter_offsets = {timer.CNTVCT_ID: timer.now(system.host.counter_hz)}

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU. Errors: EINVAL for a number the kernel does not take, EEXIST for one in use."""
        if not 0 <= index < self.system.kernel.max_vcpus:
            reason = f"vCPU numbers go from 0 to {self.system.kernel.max_vcpus - 1}"
            raise refusal_error(Refusal(errno.EINVAL, reason))
        if index in self.vcpus:
            raise refusal_error(VCPU_EXISTS)
        vcpu = self.vcpus[index] = Vcpu(self, index)
        return vcpu

    def reset_value(self, row: Row) -> int:
        """The value a register of 64 bits has right after INIT with the VM's features."""
        image = self.system.reset_image(self.features or frozenset())
        return int.from_bytes(image[row.offset : row.offset + 8], "little")

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
