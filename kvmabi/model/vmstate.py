# SPDX-License-Identifier: MIT
"""What the vCPUs of a VM share; kvmabi.model.vm creates them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from kvmabi.model.cpuinterface import CpuInterface
from kvmabi.model.its import Its
from kvmabi.model.lines import Lines
from kvmabi.model.lpis import Lpis
from kvmabi.model.vgic import Vgic

VcpuType = TypeVar("VcpuType")


class VmState(Generic[VcpuType]):
    """The state of a VM as its vCPUs see it.

    ``features`` is what the first INIT fixed for all vCPUs (None before). ``shared`` holds the VM-wide registers that
    were set, by offset in the register file; ``enabled`` the capabilities that KVM_ENABLE_CAP enabled; ``has_run``: a
    vCPU has entered the guest; ``pmu_counters`` is the number of event counters of the PMU; ``el1_32bit``: EL1 is
    AArch32 (None before the first INIT); ``counter_offsets`` are subtracted from the host's counter, by the register ID
    of the timer's count. ``vgic`` is the interrupt controller, or None; ``its``: its ITSs; ``lpis``: the interrupts
    that they map; ``cpu_interfaces``: those of the vCPUs, by ID; ``routes`` are those of KVM_SET_GSI_ROUTING, by GSI;
    ``lines`` are the interrupt lines that are high; ``timer_irqs`` are the PPIs of the vCPUs' timers.
    ``dirty_ring_bytes`` is the size of each vCPU's dirty ring (0: none); ``fixed_counters``:
    KVM_ARM_SET_COUNTER_OFFSET fixed the offsets. ``affinities`` is the kernel's table of affinities
    (kvmabi.model.affinity): the bits that count, and the vCPU's ID by these. A ``dead`` VM fails every ioctl with EIO.
    ``remaps`` counts how often one of its vCPUs took a register map, or the VM died; ``before_sharing`` is called
    before a VM-wide register changes.
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
        self.its: list[Its] = []
        self.lpis = Lpis()
        self.cpu_interfaces: dict[int, CpuInterface] = {}
        self.routes: Mapping[int, object] = {}
        self.lines = Lines()
        self.timer_irqs = list(timer_irqs)
        self.dead = False
        self.remaps = 0
        self.before_sharing: Callable[[], None] | None = None
        self.dirty_ring_bytes = 0
        self.fixed_counters = False
        self.affinities: tuple[int, dict[int, int]] | None = None
        self.counter_offsets = counter_offsets

    def cpu_interface(self, index: int) -> CpuInterface:
        """The GIC's CPU interface of the vCPU with an ID."""
        return self.cpu_interfaces.setdefault(index, CpuInterface())

    def die(self) -> None:
        """From now on every ioctl fails."""
        self.dead = True
        self.remaps += 1
