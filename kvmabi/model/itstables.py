# SPDX-License-Identifier: MIT
"""What an ITS maps, and its tables in the guest's memory: devices, collections, and a device's events.

The layout is that of ABI revision 0: https://docs.kernel.org/virt/kvm/devices/arm-vgic-its.html
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise, zip_longest
from typing import Final, NamedTuple

from kvmabi.errors import KvmError
from kvmabi.model.guestmemory import FAULT, GuestMemory
from kvmabi.model.lpis import FIRST_LPI, Lpi, Lpis
from kvmabi.model.refusal import Refusal
from kvmabi.profiles.switches import Switches

PAGE_BYTES: Final = 0x10000
ENTRY_BYTES: Final = 8
ENTRIES_OF_A_PAGE: Final = PAGE_BYTES // ENTRY_BYTES
ID_END: Final = 1 << 16
"""The first ID of a device or a collection that an ITS does not have; events have 16 bits, too."""
EVENT_BITS: Final = 16
VALID: Final = 1 << 63
INDIRECT: Final = 1 << 62
LEVEL_2_MASK: Final = ((1 << 52) - 1) & ~0xFFFF
NOT_MAPPED: Final = 0xFFFF_FFFF
"""The target of a collection that no MAPC has mapped."""
SIZE_MASK, ITT_MASK, ITT_SHIFT, ITT_UNIT_SHIFT = 0x1F, (1 << 44) - 1, 5, 8
NEXT_DEVICE_SHIFT, MOST_NEXT_DEVICE = 49, (1 << 14) - 1
COLLECTION_MASK, LPI_SHIFT, LPI_MASK, TARGET_SHIFT = 0xFFFF, 16, 0xFFFF_FFFF, 16
NEXT_EVENT_SHIFT, MOST_NEXT_EVENT = 48, (1 << 16) - 1

NO_PLACE = Refusal(errno.EINVAL, "the device table has no place for a device of the ITS")
BAD_TARGET = Refusal(errno.EINVAL, "an entry of the collection table names a vCPU that does not exist")
TWICE = Refusal(errno.EEXIST, "the collection is mapped already", "reset the ITS before its tables are restored")
BAD_COLLECTION = Refusal(errno.EINVAL, "the collection table has no place for a collection in it")
BAD_DEVICE = Refusal(
    errno.EINVAL, "the device table has an entry for a device beyond its end, or with more than 16 bits of events"
)
BAD_EVENT = Refusal(
    errno.EINVAL, "an entry of an interrupt translation table has no LPI, an unknown collection, or lies beyond the end"
)


class Collection:
    """A collection of events, and the vCPU that takes them: its number in MAPC, or NOT_MAPPED."""

    __slots__ = ("id", "target")

    def __init__(self, id: int, target: int = NOT_MAPPED) -> None:
        self.id, self.target = id, target

    @property
    def mapped(self) -> bool:
        """Whether a vCPU takes its events."""
        return self.target != NOT_MAPPED


class Event:
    """An event of a device, and the LPI that it becomes; ``collection`` is None after that was unmapped."""

    __slots__ = ("collection", "id", "lpi")

    def __init__(self, id: int, lpi: Lpi, collection: Collection | None) -> None:
        self.id, self.lpi, self.collection = id, lpi, collection


class Device:
    """A device with the address of its interrupt translation table, and the events that are mapped."""

    __slots__ = ("event_bits", "events", "id", "itt")

    def __init__(self, id: int, itt: int, event_bits: int) -> None:
        self.id, self.itt, self.event_bits = id, itt, event_bits
        self.events: dict[int, Event] = {}

    def place(self, event: int) -> int:
        """The address of the entry of an event."""
        return self.itt + event * ENTRY_BYTES

    def has_place(self, event: int, memory: GuestMemory) -> bool:
        """Whether the table has an entry for an event, in a memory slot."""
        return event < 1 << self.event_bits and memory.visible(self.place(event))


class Table(NamedTuple):
    """A table as a GITS_BASER describes it."""

    baser: int

    @property
    def valid(self) -> bool:
        """Whether there is a table."""
        return bool(self.baser & VALID)

    @property
    def address(self) -> int:
        """Where it begins: bits 51 to 48 stand in bits 15 to 12."""
        return self.baser & 0xFFFF_FFFF_0000 | (self.baser >> 12 & 0xF) << 48

    @property
    def size_bytes(self) -> int:
        """Its size, or that of its first level."""
        return ((self.baser & 0xFF) + 1) * PAGE_BYTES

    def entry(self, id: int, memory: GuestMemory) -> int | None:
        """The address of the entry for an ID, None if the table has none in a memory slot."""
        if id >= ID_END:
            return None
        if not self.baser & INDIRECT:
            address = self.address + id * ENTRY_BYTES
            return address if id < self.size_bytes // ENTRY_BYTES and memory.visible(address) else None
        index, rest = divmod(id, ENTRIES_OF_A_PAGE)
        if index >= self.size_bytes // ENTRY_BYTES:
            return None
        try:
            level_2 = memory.number(self.address + index * ENTRY_BYTES)
        except KvmError as error:
            if not error.modelled:
                raise
            return None
        address = (level_2 & LEVEL_2_MASK) + rest * ENTRY_BYTES
        return address if level_2 & VALID and memory.visible(address) else None


class Mappings:
    """The devices and collections of an ITS, whose events become the VM's ``lpis``.

    ``vcpu_of`` finds a vCPU's ID by a target as MAPC has it.
    ``unmaps_any``: a MAPC that unmaps needs no target that exists. ``translated`` are devices and events that were
    raised and whose mapping is the same since: a kernel keeps these translations.
    """

    def __init__(self, lpis: Lpis, vcpu_of: Callable[[int], int | None], switches: Switches) -> None:
        self.lpis, self.vcpu_of = lpis, vcpu_of
        self.unmaps_any, self._skips_unmapped = switches.its_targets_by_id, switches.its_skips_unmapped
        self._devices: dict[int, list[Device]] = {}
        self.collections: dict[int, Collection] = {}
        self.translated: set[tuple[int, int]] = set()

    # --- devices, collections, events

    def device(self, id: int) -> Device | None:
        """The device of an ID: the first, if restored tables had it twice."""
        return self._devices.get(id, (None,))[0]

    def add_device(self, device: Device) -> None:
        """A device is mapped."""
        self._devices.setdefault(device.id, []).append(device)

    def event(self, device: int, event: int) -> Event | None:
        """An event that is mapped."""
        found = self.device(device)
        return found.events.get(event) if found else None

    def events(self) -> Iterator[Event]:
        """All events."""
        for devices in self._devices.values():
            for device in devices:
                yield from device.events.values()

    def map_event(self, device: Device, event: int, intid: int, collection: Collection, memory: GuestMemory) -> None:
        """Map an event to an LPI. Raises KvmError, EFAULT."""
        target = self.vcpu_of(collection.target) if collection.mapped else None
        device.events[event] = Event(event, self.lpis.map(intid, target, memory), collection)

    def drop_event(self, device: Device, event: Event) -> None:
        """Unmap an event."""
        del device.events[event.id]
        self.lpis.release(event.lpi)

    def drop_device(self, device: Device) -> None:
        """Unmap a device and its events."""
        same = self._devices[device.id]
        same.remove(device)
        self.translated.clear()
        if not same:
            del self._devices[device.id]
        for event in list(device.events.values()):
            self.drop_event(device, event)

    def drop_devices(self) -> None:
        """No device is mapped."""
        for device in [device for devices in self._devices.values() for device in devices]:
            self.drop_device(device)

    def drop_collection(self, id: int, memory: GuestMemory) -> None:
        """A collection no longer exists; its events stay mapped, and reach no vCPU."""
        self.translated.clear()
        gone = self.collections.pop(id, None)
        if gone is not None:
            for event in self.events():
                memory.step()
                if event.collection is gone:
                    event.collection = None

    def drop_collections(self) -> None:
        """No collection exists."""
        self.translated.clear()
        self.collections.clear()
        for event in self.events():
            event.collection = None

    # --- KVM_DEV_ARM_ITS_SAVE_TABLES

    def save(self, devices: Table, collections: Table, memory: GuestMemory) -> None:
        """Write the tables. Errors: EINVAL, EFAULT; what was written until then stays."""
        if devices.valid:
            self._save_devices(devices, memory)
        if collections.valid:
            self._save_collections(collections, memory)

    def _save_devices(self, table: Table, memory: GuestMemory) -> None:
        for same in self._devices.values():
            same.reverse()  # a kernel sorts its list first, and devices with one ID change places
        devices = [device for id in sorted(self._devices) for device in self._devices[id]]
        for device, after in zip_longest(devices, devices[1:]):
            memory.step()
            place = table.entry(device.id, memory)
            if place is None:
                raise NO_PLACE.error()
            self._save_events(device, memory)
            offset = 0 if after is None else min(after.id - device.id, MOST_NEXT_DEVICE)
            itt = (device.itt >> ITT_UNIT_SHIFT & ITT_MASK) << ITT_SHIFT
            memory.put_number(place, VALID | offset << NEXT_DEVICE_SHIFT | itt | device.event_bits - 1)

    def _save_events(self, device: Device, memory: GuestMemory) -> None:
        events = sorted(device.events.values(), key=lambda event: event.id)
        listed = [event for event in events if event.collection or not self._skips_unmapped]
        after = {event.id: following.id - event.id for event, following in pairwise(listed)}
        memory.step(len(events))
        for event in events:
            entry = 0
            if event.collection is not None:
                offset = min(after.get(event.id, 0), MOST_NEXT_EVENT)
                entry = offset << NEXT_EVENT_SHIFT | event.lpi.intid << LPI_SHIFT | event.collection.id
            memory.put_number(device.place(event.id), entry)

    def _save_collections(self, table: Table, memory: GuestMemory) -> None:
        address, end = table.address, table.address + table.size_bytes
        for collection in self.collections.values():
            memory.put_number(address, VALID | collection.target << TARGET_SHIFT | collection.id)
            address += ENTRY_BYTES
        if address < end:
            memory.put_number(address, 0)

    # --- KVM_DEV_ARM_ITS_RESTORE_TABLES

    def restore(self, devices: Table, collections: Table, memory: GuestMemory) -> None:
        """Read the tables. Errors: EINVAL, EEXIST, EFAULT, after which nothing is mapped that was restored."""
        if collections.valid:
            try:
                self._restore_collections(collections, memory)
            except KvmError:
                self.drop_collections()
                raise
        if devices.valid:
            try:
                self._restore_devices(devices, memory)
            except KvmError:
                self.drop_devices()
                self.drop_collections()
                raise

    def _restore_collections(self, table: Table, memory: GuestMemory) -> None:
        for address in range(table.address, table.address + table.size_bytes, ENTRY_BYTES):
            entry = memory.number(address)
            if not entry & VALID:
                return
            memory.step()
            id, target = entry & COLLECTION_MASK, entry >> TARGET_SHIFT & NOT_MAPPED
            if target != NOT_MAPPED and self.vcpu_of(target) is None:
                raise BAD_TARGET.error()
            if id in self.collections:
                raise TWICE.error()
            if table.entry(id, memory) is None:
                raise BAD_COLLECTION.error()
            self.collections[id] = Collection(id, target)

    def _restore_devices(self, table: Table, memory: GuestMemory) -> None:
        def device(id: int, entry: int) -> int:
            return self._restore_device(table, id, entry, memory)

        def level_2(index: int, entry: int) -> int:
            if not entry & VALID:
                return 1
            return _scan(memory, entry & LEVEL_2_MASK, PAGE_BYTES, device, first_id=index * ENTRIES_OF_A_PAGE)

        _scan(memory, table.address, table.size_bytes, level_2 if table.baser & INDIRECT else device)

    def _restore_device(self, table: Table, id: int, entry: int, memory: GuestMemory) -> int:
        """Restore a device from its entry; returns the offset to the next one."""
        if not entry & VALID:
            return 1
        event_bits = (entry & SIZE_MASK) + 1
        if table.entry(id, memory) is None or event_bits > EVENT_BITS:
            raise BAD_DEVICE.error()
        itt = (entry >> ITT_SHIFT & ITT_MASK) << ITT_UNIT_SHIFT
        device = Device(id, itt, event_bits)
        self.add_device(device)

        def event(id: int, entry: int) -> int:
            return self._restore_event(device, id, entry, memory)

        _scan(memory, itt, ENTRY_BYTES << device.event_bits, event)
        return entry >> NEXT_DEVICE_SHIFT & MOST_NEXT_DEVICE

    def _restore_event(self, device: Device, id: int, entry: int, memory: GuestMemory) -> int:
        """Restore an event from its entry; returns the offset to the next one."""
        intid, offset = entry >> LPI_SHIFT & LPI_MASK, entry >> NEXT_EVENT_SHIFT
        if not intid:
            return 1
        collection = self.collections.get(entry & COLLECTION_MASK)
        beyond = id + offset >= 1 << device.event_bits or not device.has_place(id, memory)
        if intid < FIRST_LPI or beyond or collection is None:
            raise BAD_EVENT.error()
        self.map_event(device, id, intid, collection, memory)
        return offset


def _scan(
    memory: GuestMemory, address: int, size_bytes: int, restore: Callable[[int, int], int], first_id: int = 0
) -> int:
    """Call ``restore`` with ID and value of the entries of a table, each of which returns the offset to the next.

    Returns 1 if the table ended, and 0 if an entry was the last. Raises KvmError, EFAULT.
    """
    index, count = 0, size_bytes // ENTRY_BYTES
    entries, start, end = array("Q"), 0, 0
    while index < count:
        if not start <= index < end:
            start = index // ENTRIES_OF_A_PAGE * ENTRIES_OF_A_PAGE
            wanted = min(count - start, ENTRIES_OF_A_PAGE) * ENTRY_BYTES
            skipped = (index - start) * ENTRY_BYTES
            page = bytes(skipped) + memory.read_up_to(address + start * ENTRY_BYTES + skipped, wanted - skipped)
            entries = array("Q", page[: len(page) // ENTRY_BYTES * ENTRY_BYTES])
            end = start + len(entries)
            if index >= end:
                raise FAULT.error()
            if not page.strip(b"\0"):
                index = end
                continue
        entry = entries[index - start]
        if entry:
            memory.step()
        offset = restore(first_id + index, entry) if entry else 1
        if offset <= 0:
            return 0
        index += offset
    return 1
