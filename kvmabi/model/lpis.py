# SPDX-License-Identifier: MIT
"""The LPIs of a VM: interrupts that ITSs map, configured and pending in tables in the guest's memory.

Source: the GIC architecture specification (IHI 0069), 6.1 LPIs, and the answers of Linux 6.1 to 7.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from kvmabi.errors import KvmError
from kvmabi.model.guestmemory import GuestMemory

FIRST_LPI = 8192
MOST_ID_BITS = 16
"""The most bits that KVM's interrupt IDs have."""
ID_BITS_MASK = 0x1F
PROPERTIES_MASK = ((1 << 52) - 1) & ~0xFFF
PENDING_MASK = ((1 << 52) - 1) & ~0xFFFF
ENABLED = 1
"""A property: the LPI is enabled."""


class Redistributor(Protocol):
    """What a vCPU's redistributor says of LPIs: GICR_PENDBASER, and GICR_CTLR.EnableLPIs."""

    pendbaser: int
    lpis_enabled: bool


class LpiTables(Protocol):
    """What a vGIC says of LPIs.

    ``propbaser`` is GICR_PROPBASER, which the redistributors of a VM share; ``enabled``: the distributor forwards
    interrupts.
    """

    propbaser: int
    enabled: bool

    def redistributor(self, vcpu: int) -> Redistributor:
        """The redistributor of the vCPU with an ID."""


class NoRedistributor:
    """The Redistributor of a vCPU without one."""

    pendbaser = 0
    lpis_enabled = False


class NoTables:
    """The LpiTables of a VM without a vGICv3."""

    propbaser = 0
    enabled = False

    def redistributor(self, _vcpu: int) -> Redistributor:
        """See LpiTables.redistributor."""
        return NoRedistributor()


class Lpi:
    """One LPI. ``target`` is the ID of the vCPU that takes it, or None.

    ``references`` counts the events that map to it; one that is ``queued`` for its vCPU exists until the vCPU takes it.
    """

    __slots__ = ("enabled", "intid", "pending", "queued", "references", "target")

    def __init__(self, intid: int, target: int | None) -> None:
        self.intid, self.target = intid, target
        self.enabled = self.pending = self.queued = False
        self.references = 1


class Lpis:
    """The LPIs of a VM."""

    def __init__(self) -> None:
        self.tables: LpiTables = NoTables()
        self._by_intid: dict[int, Lpi] = {}

    @property
    def end(self) -> int:
        """The first ID beyond those that GICR_PROPBASER has room for."""
        return 1 << min((self.tables.propbaser & ID_BITS_MASK) + 1, MOST_ID_BITS)

    def map(self, intid: int, target: int | None, memory: GuestMemory) -> Lpi:
        """The LPI of an ID for one more event; a new one takes its state from the tables. Raises KvmError, EFAULT."""
        lpi = self._by_intid.get(intid)
        if lpi is not None:
            lpi.references += 1
            return lpi
        lpi = Lpi(intid, target)
        self._by_intid[intid] = lpi
        try:
            self.configure(lpi, memory)
            self._take_pending(lpi, memory)
        except KvmError:
            self.release(lpi)
            raise
        return lpi

    def release(self, lpi: Lpi) -> None:
        """An event no longer maps to an LPI."""
        lpi.references -= 1
        if not lpi.references and not lpi.queued:
            self._by_intid.pop(lpi.intid, None)

    def configure(self, lpi: Lpi, memory: GuestMemory) -> None:
        """Read an LPI's properties. Raises KvmError, EFAULT."""
        start = self.tables.propbaser & PROPERTIES_MASK
        lpi.enabled = bool(memory.read(start + lpi.intid - FIRST_LPI, 1)[0] & ENABLED)
        self._queue(lpi)

    def trigger(self, lpi: Lpi) -> None:
        """An LPI becomes pending."""
        lpi.pending = True
        self._queue(lpi)

    def all(self) -> Iterable[Lpi]:
        """All LPIs."""
        return self._by_intid.values()

    def save_pending(self, memory: GuestMemory) -> None:
        """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: write which LPIs are pending. Errors: EFAULT."""
        for intid in sorted(self._by_intid):
            lpi = self._by_intid[intid]
            if lpi.target is None:
                continue
            memory.step()
            address, bit = self._pending_bit(lpi)
            byte = memory.read(address, 1)[0]
            if bool(byte & bit) != lpi.pending:
                memory.write(address, bytes((byte ^ bit,)))

    def _take_pending(self, lpi: Lpi, memory: GuestMemory) -> None:
        """Move an LPI's pending state from the table of its vCPU to the LPI."""
        if lpi.target is None:
            return
        address, bit = self._pending_bit(lpi)
        byte = memory.read(address, 1)[0]
        lpi.pending = bool(byte & bit)
        self._queue(lpi)
        if lpi.pending:
            memory.write(address, bytes((byte & ~bit,)))

    def _pending_bit(self, lpi: Lpi) -> tuple[int, int]:
        """The address of the byte and the bit for an LPI in its vCPU's table."""
        assert lpi.target is not None
        start = self.tables.redistributor(lpi.target).pendbaser & PENDING_MASK
        return start + lpi.intid // 8, 1 << lpi.intid % 8

    def _queue(self, lpi: Lpi) -> None:
        if lpi.enabled and lpi.pending and lpi.target is not None and self.tables.enabled:
            lpi.queued = True
