# SPDX-License-Identifier: MIT
"""An ITS: its registers, its command queue, and the controls that save and restore its tables.

Source: Documentation/virt/kvm/devices/arm-vgic-its.rst, and the answers of Linux 6.1 to 7.3 in tests/golden.
"""

from __future__ import annotations

import errno
from typing import Final

from kvmabi import uapi
from kvmabi.gicnames import ITS, OFFSET_MASK, WORD_BYTES, parse, places
from kvmabi.model.guestmemory import GuestMemory
from kvmabi.model.itscommands import COMMAND_BYTES, Tables, message, process
from kvmabi.model.itstables import INDIRECT, VALID, Mappings, Table
from kvmabi.model.refusal import Refusal
from kvmabi.model.vgic import placed
from kvmabi.profiles.switches import Switches

CTLR, IIDR, TYPER, CBASER, CWRITER, CREADR, BASER, IDS = (
    parse(f"gits_{name}")[1] for name in ("ctlr", "iidr", "typer", "cbaser", "cwriter", "creadr", "baser[0]", "pidr[4]")
)
"""Offsets of the registers; those below TYPER and from IDS on have 32 bits, the others 64."""
LONG_BYTES: Final = 8
LONG_MASK: Final = (1 << 64) - 1
ENABLE, QUIESCENT = 1 << 0, 1 << 31
IIDR_VALUE, REVISION_SHIFT, REVISION_MASK = 0x4B00_043B, 12, 0xF
REVISIONS: Final = 1
"""How many revisions of the tables' layout there are."""
TYPER_VALUE: Final = 0x1_EF71
"""Physical LPIs, entries of 8 bytes, 16 bits for events and for devices, IDs for vCPUs."""
ID_VALUES: Final = {
    parse(f"gits_{name}")[1]: value
    for name, value in {
        **{"pidr[4]": 0x40, "pidr[5]": 0, "pidr[6]": 0, "pidr[7]": 0},
        **{"pidr[0]": 0x92, "pidr[1]": 0xB4, "pidr[2]": 0x3B, "pidr[3]": 0},
        **{"cidr[0]": 0x0D, "cidr[1]": 0xF0, "cidr[2]": 0x05, "cidr[3]": 0xB1},
    }.items()
}
QUEUE_MASK: Final = 0xF_FFE0
"""The bits of an offset in the queue."""
QUEUE_ADDRESS_MASK: Final = ((1 << 52) - 1) & ~0xFFFF
QUEUE_PAGE_BYTES, QUEUE_PAGES_MASK = 4096, 0xFF
CBASER_ZERO: Final = 0xF000
"""Bits of GITS_CBASER that are 0: the queue is aligned to 64 KiB."""
BASER_DEVICES: Final = 0x0107_0000_0000_0000
BASER_COLLECTIONS: Final = 0x0407_0000_0000_0000
"""The read-only bits of a GITS_BASER: the kind of table and the size of an entry, 8 bytes."""
BASER_RESET: Final = 0x1800_0000_0000_0600
BASER_ZERO: Final = 0x071F_0000_0000_0100
"""Bits of a GITS_BASER that a write does not set: the read-only ones, and one of the size of a page."""
PAGE_64K: Final = 0x200
SHAREABILITY_SHIFT, SHAREABILITY_MASK, OUTER_SHAREABLE, INNER_SHAREABLE = 10, 3, 2, 1
INNER_SHIFT, OUTER_SHIFT, CACHEABILITY_MASK = 59, 53, 7
WRITE_BACK: Final = 3

MISALIGNED = Refusal(errno.EINVAL, "the offset is not a multiple of the register's size")
NO_REGISTER = Refusal(errno.ENXIO, "an ITS has no register at this offset")
NO_ADDRESS = Refusal(
    errno.ENXIO, "the ITS has no address", "set KVM_VGIC_ITS_ADDR_TYPE before its registers are read or written"
)
BAD_REVISION = Refusal(errno.EINVAL, f"the tables have a layout of revision {REVISIONS - 1} only")
BEYOND_QUEUE = Refusal(errno.EINVAL, "the offset lies beyond the queue", "write GITS_CBASER before GITS_CREADR")
ENABLED = Refusal(
    errno.EBUSY, "GITS_CREADR cannot be written while the ITS is enabled", "write GITS_CREADR before GITS_CTLR"
)
OFF = Refusal(errno.EBUSY, "the ITS is not enabled: nothing has set GITS_CTLR.Enabled")
LPIS_OFF = Refusal(errno.EBUSY, "the vCPU's redistributor does not have LPIs enabled (GICR_CTLR)")
OOPS = Refusal(
    errno.EIO, "Linux 6.1 dies here: an event of a collection that was unmapped cannot be saved", modelled=False
)


class Its:
    """An ITS of a VM, with the bits of its guest-physical addresses; it owns its ``mappings``."""

    def __init__(self, ipa_bits: int, mappings: Mappings, switches: Switches) -> None:
        self.ipa_bits = ipa_bits
        self.base: int | None = None
        self.enabled = False
        self._mappings = mappings
        self._switches = switches
        self._cbaser = self._creadr = self._cwriter = 0
        self._basers = [BASER_RESET | BASER_DEVICES, BASER_RESET | BASER_COLLECTIONS]

    def set_base(self, address: int) -> None:
        """KVM_VGIC_ITS_ADDR_TYPE."""
        self.base = placed(self.base, address, int(uapi.KVM_VGIC_V3_ITS_SIZE), self.ipa_bits)

    # --- KVM_DEV_ARM_VGIC_GRP_ITS_REGS

    def read(self, offset: int) -> int:
        """The value of a register. Errors: EINVAL, ENXIO."""
        offset = self._accessible(offset)
        index = _baser(offset)
        if index is not None:
            return self._basers[index] if index < len(self._basers) else 0
        return {
            CTLR: self.enabled * ENABLE | (self._creadr == self._cwriter) * QUIESCENT,
            IIDR: IIDR_VALUE,
            TYPER: TYPER_VALUE,
            CBASER: self._cbaser,
            CWRITER: self._cwriter,
            CREADR: self._creadr,
            **ID_VALUES,
        }[offset]

    def write(self, offset: int, value: int, memory: GuestMemory) -> None:
        """Write a register; commands that wait are processed. Errors: EINVAL, ENXIO, EBUSY."""
        offset = self._accessible(offset)
        if offset == CTLR:
            self._write_ctlr(value, memory)
        elif offset == IIDR:
            if value >> REVISION_SHIFT & REVISION_MASK >= REVISIONS:
                raise BAD_REVISION.error()
        elif offset == CBASER:
            if not self.enabled:
                self._cbaser = _attributes(value & ~CBASER_ZERO)
                self._creadr = self._cwriter = 0
        elif offset == CWRITER:
            if value & QUEUE_MASK < self._queue_bytes:
                self._cwriter = value & QUEUE_MASK
                self._process(memory)
        elif offset == CREADR:
            self._write_creadr(value & QUEUE_MASK)
        elif not self.enabled:
            self._write_baser(_baser(offset), value)

    def _accessible(self, offset: int) -> int:
        """The offset of a register that can be accessed."""
        offset = check_register(offset)
        if self.base is None:
            raise NO_ADDRESS.error()
        return offset

    def _write_ctlr(self, value: int, memory: GuestMemory) -> None:
        complete = all(table & VALID for table in (*self._basers, self._cbaser))
        if self.enabled or not value & ENABLE or complete:
            self.enabled = bool(value & ENABLE)
            if not self.enabled:
                self._mappings.translated.clear()
            self._process(memory)

    def _write_creadr(self, place: int) -> None:
        if self.enabled:
            raise ENABLED.error()
        if place >= self._queue_bytes:
            raise BEYOND_QUEUE.error()
        self._creadr = place

    def _write_baser(self, index: int | None, value: int) -> None:
        """Write a GITS_BASER: the third and those behind it do not exist, and other registers are read-only.

        Where the table is another than before, nothing that was in it is mapped.
        """
        if index is None or index >= len(self._basers):
            return
        fixed, zero = ((BASER_DEVICES, BASER_ZERO), (BASER_COLLECTIONS, BASER_ZERO | INDIRECT))[index]
        value = _attributes(value & ~zero) | fixed | PAGE_64K
        changes, self._basers[index] = value != self._basers[index], value
        if not value & VALID or (changes and self._switches.its_other_table_unmaps):
            (self._mappings.drop_devices, self._mappings.drop_collections)[index]()

    # --- the queue

    @property
    def _queue_bytes(self) -> int:
        return ((self._cbaser & QUEUE_PAGES_MASK) + 1) * QUEUE_PAGE_BYTES

    @property
    def _tables(self) -> Tables:
        return Tables(*map(Table, self._basers))

    def _process(self, memory: GuestMemory) -> None:
        """Process the commands that wait, if the ITS is enabled; one that cannot be read is passed over."""
        start = self._cbaser & QUEUE_ADDRESS_MASK
        while self.enabled and self._creadr != self._cwriter:
            command = memory.read_up_to(start + self._creadr, COMMAND_BYTES)
            if len(command) == COMMAND_BYTES:
                process(self._mappings, self._tables, command, memory)
            self._creadr = (self._creadr + COMMAND_BYTES) % self._queue_bytes

    def has_translated(self, device: int, event: int) -> bool:
        """Whether a device raised an event before, and its mapping is the same since."""
        return (device, event) in self._mappings.translated

    def signal(self, device: int, event: int) -> int:
        """A message of a device: 1 if its LPI is pending now, 0 if no vCPU takes the event. Errors: EBUSY."""
        if not self.enabled:
            raise OFF.error()
        pending = message(self._mappings, device, event)
        if pending is None:
            raise LPIS_OFF.error()
        return int(pending)

    # --- controls

    def save(self, memory: GuestMemory) -> None:
        """KVM_DEV_ARM_ITS_SAVE_TABLES. Errors: EINVAL, EFAULT."""
        if not self._switches.its_saves_unmapped and any(event.collection is None for event in self._mappings.events()):
            raise OOPS.error()
        self._mappings.save(*self._tables, memory)

    def restore(self, memory: GuestMemory) -> None:
        """KVM_DEV_ARM_ITS_RESTORE_TABLES. Errors: EINVAL, EEXIST, EFAULT."""
        self._mappings.restore(*self._tables, memory)

    def reset(self) -> None:
        """KVM_DEV_ARM_ITS_CTRL_RESET: nothing is mapped, and the tables are not valid."""
        self._basers = [baser & ~VALID for baser in self._basers]
        self._cbaser = self._creadr = self._cwriter = 0
        self.enabled = False
        self._mappings.drop_devices()
        self._mappings.drop_collections()


def check_register(offset: int) -> int:
    """The offset of the register that an attribute names. Errors: EINVAL, ENXIO."""
    offset &= OFFSET_MASK
    size_bytes = WORD_BYTES if offset < TYPER or offset >= IDS else LONG_BYTES
    if offset % size_bytes:
        raise MISALIGNED.error()
    if offset not in places(ITS):
        raise NO_REGISTER.error()
    return offset


def _baser(offset: int) -> int | None:
    """The index of the GITS_BASER at the offset of a register; None for another register."""
    place = places(ITS)[offset]
    return place.number if place.range.name == "gits_baser" else None


def _attributes(value: int) -> int:
    """The memory attributes that an ITS has instead of those that were written."""
    shareability = value >> SHAREABILITY_SHIFT & SHAREABILITY_MASK
    inner, outer = (value >> shift & CACHEABILITY_MASK for shift in (INNER_SHIFT, OUTER_SHIFT))
    value &= ~(
        SHAREABILITY_MASK << SHAREABILITY_SHIFT | CACHEABILITY_MASK << INNER_SHIFT | CACHEABILITY_MASK << OUTER_SHIFT
    )
    shareability = INNER_SHAREABLE if shareability == OUTER_SHAREABLE else shareability
    inner = WRITE_BACK if inner < 2 else inner
    outer = outer if outer < 2 else 0
    return value & LONG_MASK | shareability << SHAREABILITY_SHIFT | inner << INNER_SHIFT | outer << OUTER_SHIFT


def reaches(its: Its, address: int) -> bool:
    """Whether an address is in the frames of an ITS."""
    return its.base is not None and its.base <= address < its.base + int(uapi.KVM_VGIC_V3_ITS_SIZE)
