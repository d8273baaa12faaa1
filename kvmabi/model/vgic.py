# SPDX-License-Identifier: MIT
"""A vGICv3's addresses, the number of its interrupts, and whether it is initialised: what KVM_RUN depends on.

Its registers are in kvmabi.model.gicstate and gicframes. Source: Documentation/virt/kvm/devices/arm-vgic-v3.rst, and
the answers of Linux 6.1 to 7.3 in tests/golden/devices.
"""

from __future__ import annotations

import errno
from collections.abc import Collection

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.model.gicstate import GicState
from kvmabi.model.refusal import Refusal

ALIGNMENT_BYTES = 0x10000
DIST_BYTES, REDIST_BYTES = int(uapi.KVM_VGIC_V3_DIST_SIZE), int(uapi.KVM_VGIC_V3_REDIST_SIZE)
UNSET_ADDRESS = (1 << 64) - 1
"""The value of an address before it is set."""
IRQS_OF_A_VCPU = 32
FIRST_PPI = 16
LAST_IRQ = 1019
MAX_IRQS = 1023
DEFAULT_IRQS = 256
BASE_MASK = 0x000F_FFFF_FFFF_0000
COUNT_SHIFT, FLAGS_SHIFT, FLAGS_MASK, INDEX_MASK = 52, 12, 0xF, 0xFFF

ALREADY = Refusal(errno.EEXIST, "the address is set already")
MISALIGNED = Refusal(errno.EINVAL, "the address is not a multiple of 64 KiB")
BEYOND = Refusal(errno.E2BIG, "the frames lie beyond the VM's guest-physical addresses")
WRAPS = Refusal(errno.EINVAL, "the frames wrap around the end of the address space")
OVERLAP = Refusal(errno.EINVAL, "redistributors overlap other frames, or grew beyond the guest's addresses")
MIXED = Refusal(errno.EINVAL, "KVM_VGIC_V3_ADDR_TYPE_REDIST cannot follow redistributor regions")
BAD_REGION = Refusal(errno.EINVAL, "a region needs a count above 0, no flags, and the next free index")
NO_REGION = Refusal(errno.ENOENT, "there is no redistributor region of this index")
BAD_IRQS = Refusal(errno.EINVAL, "the number of interrupts must be a multiple of 32 from 64 to 992")
IRQS_FIXED = Refusal(errno.EBUSY, "the number of interrupts is fixed: it was set, or the vGIC is initialised")
NOT_A_PPI = Refusal(errno.EINVAL, "the interrupt is not a PPI, 16 to 31")
INITIALIZED = Refusal(errno.EBUSY, "the vGIC is initialised already")
NOTHING_TO_SAVE = Refusal(errno.ENXIO, "the vGIC is not initialised")
NO_PLACE = Refusal(
    errno.ENXIO,
    "the vGIC has no distributor address, or fewer redistributors than the VM has vCPUs",
    "set KVM_VGIC_V3_ADDR_TYPE_DIST and KVM_VGIC_V3_ADDR_TYPE_REDIST before KVM_RUN",
)
NOT_INITIALIZED = Refusal(
    errno.EBUSY, "the vGIC is not initialised", "set KVM_DEV_ARM_VGIC_CTRL_INIT after the addresses and the vCPUs"
)


class Region:
    """Frames for redistributors: ``frames`` of them, or one per vCPU if 0; ``used`` are assigned to vCPUs."""

    def __init__(self, base: int, frames: int) -> None:
        self.base, self.frames, self.used = base, frames, 0

    def size_bytes(self, vcpus: int) -> int:
        """Its size in a VM with ``vcpus`` vCPUs."""
        return (self.frames or vcpus) * REDIST_BYTES

    def overlaps(self, base: int, size_bytes: int, vcpus: int) -> bool:
        """Whether it shares an address with other frames."""
        return self.base < base + size_bytes and base < self.base + self.size_bytes(vcpus)


class Vgic:
    """A vGICv3 of a VM whose guest-physical addresses have ``ipa_bits``; errors as the kernel's, by KvmError.

    ``vcpus`` are the IDs of the VM's vCPUs, or their number. ``state`` is behind its registers; ``ids_before_init``:
    those that identify the GIC exist before the vGIC is initialised.
    """

    def __init__(self, ipa_bits: int, *, has_its: bool = False, ids_before_init: bool = True) -> None:
        self.ipa_bits = ipa_bits
        self.ids_before_init = ids_before_init
        self.state = GicState(has_its=has_its)
        self.dist: int | None = None
        self.regions: list[Region] = []
        self.irqs = IRQS_OF_A_VCPU
        self.maint_irq = 0
        self.initialized = False
        self._placed: dict[int, tuple[Region, int]] = {}

    def set_dist(self, address: int) -> None:
        """KVM_VGIC_V3_ADDR_TYPE_DIST."""
        self.dist = placed(self.dist, address, DIST_BYTES, self.ipa_bits)

    def set_redist(self, address: int, vcpus: Collection[int]) -> None:
        """KVM_VGIC_V3_ADDR_TYPE_REDIST: one region that has room for all vCPUs."""
        if self.regions:
            raise (MIXED if self.regions[-1].frames else ALREADY).error()
        region = Region(address, 0)
        if self.dist is not None and region.overlaps(self.dist, DIST_BYTES, len(vcpus)):
            raise OVERLAP.error()
        self._add(region, vcpus)

    @property
    def redist(self) -> int:
        """KVM_VGIC_V3_ADDR_TYPE_REDIST as a get returns it: the first region's address."""
        return self.regions[0].base if self.regions else UNSET_ADDRESS

    def add_region(self, value: int, vcpus: Collection[int]) -> None:
        """KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION: count, base, flags and index in one number."""
        frames, index = value >> COUNT_SHIFT, value & INDEX_MASK
        if value >> FLAGS_SHIFT & FLAGS_MASK or not frames or index != len(self.regions):
            raise BAD_REGION.error()
        self._add(Region(value & BASE_MASK, frames), vcpus)

    def region(self, value: int) -> int:
        """The region whose index ``value`` names, as it was set."""
        index = value & INDEX_MASK
        if index >= len(self.regions):
            raise NO_REGION.error()
        region = self.regions[index]
        return region.frames << COUNT_SHIFT | region.base | index

    def set_irqs(self, count: int) -> None:
        """KVM_DEV_ARM_VGIC_GRP_NR_IRQS."""
        if not 2 * IRQS_OF_A_VCPU <= count <= MAX_IRQS or count % IRQS_OF_A_VCPU:
            raise BAD_IRQS.error()
        if self.irqs > IRQS_OF_A_VCPU:
            raise IRQS_FIXED.error()
        self.irqs = count

    def set_maint_irq(self, irq: int) -> None:
        """KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ."""
        if self.initialized:
            raise INITIALIZED.error()
        if not is_ppi(irq):
            raise NOT_A_PPI.error()
        self.maint_irq = irq

    def init(self) -> None:
        """KVM_DEV_ARM_VGIC_CTRL_INIT; repeated calls succeed."""
        if self.irqs == IRQS_OF_A_VCPU:
            self.irqs = DEFAULT_IRQS
        if not self.initialized:
            self.state.size(self.irqs)
        self.initialized = True

    def has_irq(self, irq: int) -> bool:
        """Whether the VM has the interrupt: a PPI, or an SPI below the number of interrupts."""
        return is_ppi(irq) or IRQS_OF_A_VCPU <= irq < self.irqs

    def save_pending_tables(self) -> None:
        """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: there are none to save."""
        if not self.initialized:
            raise NOTHING_TO_SAVE.error()

    def place(self, vcpu: int, vcpus: int) -> None:
        """Assign the next free redistributor, if any, to a vCPU. Errors: EINVAL for frames that are not sound."""
        if vcpu in self._placed:
            return
        region = next((region for region in self.regions if not region.frames or region.used < region.frames), None)
        if region is None:
            return
        if not self._sound(vcpus):
            raise OVERLAP.error()
        self._placed[vcpu] = region, region.used
        region.used += 1

    def is_last(self, vcpu: int) -> bool:
        """Whether no redistributor in use follows a vCPU's: GICR_TYPER.Last. False for a vCPU without one."""
        if vcpu not in self._placed:
            return False
        region, index = self._placed[vcpu]
        if index < region.used - 1:
            return False
        end = region.base + region.frames * REDIST_BYTES
        is_full = region.frames and index == region.frames - 1
        return not (is_full and any(other.base == end and other.used for other in self.regions))

    def map_resources(self, vcpus: Collection[int]) -> None:
        """What the first KVM_RUN of a VM requires."""
        if self.dist is None or not self._placed.keys() >= set(vcpus):
            raise NO_PLACE.error()
        if not self._sound(len(vcpus)):
            raise OVERLAP.error()
        if not self.initialized:
            raise NOT_INITIALIZED.error()

    def _add(self, region: Region, vcpus: Collection[int]) -> None:
        """Add a region and assign its redistributors to the vCPUs without one; a failure removes the region again."""
        size_bytes = region.size_bytes(len(vcpus))
        if any(other.overlaps(region.base, size_bytes, len(vcpus)) for other in self.regions):
            raise OVERLAP.error()
        check_place(region.base, size_bytes, self.ipa_bits)
        self.regions.append(region)
        try:
            for vcpu in vcpus:
                self.place(vcpu, len(vcpus))
        except KvmError:
            self.regions.pop()
            raise

    def _sound(self, vcpus: int) -> bool:
        """Whether every region, with ``vcpus`` vCPUs, is within the guest's addresses and clear of the distributor."""
        if any(region.base + region.size_bytes(vcpus) > 1 << self.ipa_bits for region in self.regions):
            return False
        dist = self.dist
        return dist is None or not any(region.overlaps(dist, DIST_BYTES, vcpus) for region in self.regions)


class Its:
    """An ITS: its address, on which nothing else depends."""

    def __init__(self, ipa_bits: int) -> None:
        self.ipa_bits = ipa_bits
        self.base: int | None = None

    def set_base(self, address: int) -> None:
        """KVM_VGIC_ITS_ADDR_TYPE."""
        self.base = placed(self.base, address, int(uapi.KVM_VGIC_V3_ITS_SIZE), self.ipa_bits)


def placed(old: int | None, address: int, size_bytes: int, ipa_bits: int) -> int:
    """The new address; fails with EEXIST if one is already set."""
    if old is not None:
        raise ALREADY.error()
    check_place(address, size_bytes, ipa_bits)
    return address


def check_place(address: int, size_bytes: int, ipa_bits: int) -> None:
    """EINVAL for an address that is not aligned or wraps, E2BIG for frames beyond the guest's addresses."""
    if address % ALIGNMENT_BYTES:
        raise MISALIGNED.error()
    if address + size_bytes >= 1 << 64:
        raise WRAPS.error()
    if address + size_bytes > 1 << ipa_bits:
        raise BEYOND.error()


def is_ppi(irq: int) -> bool:
    """Whether an interrupt is private to a vCPU and not an SGI."""
    return FIRST_PPI <= irq < IRQS_OF_A_VCPU


def is_spi(irq: int) -> bool:
    """Whether an interrupt is shared by the vCPUs."""
    return IRQS_OF_A_VCPU <= irq <= LAST_IRQ
