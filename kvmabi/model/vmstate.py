# SPDX-License-Identifier: MIT
"""What the vCPUs of a VM share, apart from how they are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from kvmabi.model.vgic import Vgic

VcpuType = TypeVar("VcpuType")


class VmState(Generic[VcpuType]):
    """The state of a VM as its vCPUs see it.

    ``features`` is what the first INIT fixed for all vCPUs (None before). ``shared`` holds what was set of the VM-wide
    registers, by place in the register file; ``enabled`` the capabilities that KVM_ENABLE_CAP switched on; ``has_run``
    whether a vCPU got as far as the guest; ``pmu_counters`` how many event counters the PMU has; ``el1_32bit`` whether
    EL1 is AArch32 (None before the first INIT); ``counter_offsets`` by how much each timer's count lags the host's
    counter. ``vgic`` is the interrupt controller, or None; ``has_its``: an ITS was created; ``timer_irqs`` are the PPIs
    of the vCPUs' timers. A ``dead`` VM fails every ioctl with EIO.
    """

    def __init__(
        self,
        number: int,
        ipa_bits: int,
        *,
        timer_irqs: Iterable[int],
        pmu_counters: int,
        counter_offsets: dict[int, int],
    ) -> None:
        self.number = number
        self.ipa_bits = ipa_bits
        self.vcpus: dict[int, VcpuType] = {}
        self.features: frozenset[str] | None = None
        self.shared: dict[int, bytes] = {}
        self.enabled: set[int] = set()
        self.has_run = False
        self.el1_32bit: bool | None = None
        self.pmu_counters = pmu_counters
        self.vgic: Vgic | None = None
        self.has_its = False
        self.timer_irqs = list(timer_irqs)
        self.dead = False
        self.counter_offsets = counter_offsets
