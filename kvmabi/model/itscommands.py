# SPDX-License-Identifier: MIT
"""The commands that a guest, or a VMM in its place, writes to the queue of an ITS.

A command that is wrong has no effect, and the queue goes on. Source: the GIC architecture specification (IHI 0069),
5.3 ITS commands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from kvmabi.errors import KvmError
from kvmabi.model.guestmemory import GuestMemory
from kvmabi.model.itstables import EVENT_BITS, VALID, Collection, Device, Event, Mappings, Table
from kvmabi.model.lpis import FIRST_LPI

COMMAND_BYTES: Final = 32
WORDS = struct.Struct("<4Q")
CODE_MASK, SIZE_MASK, ID_MASK, COLLECTION_MASK = 0xFF, 0x1F, 0xFFFF_FFFF, 0xFFFF
ITT_MASK: Final = ((1 << 52) - 1) & ~0xFF
TARGET_SHIFT: Final = 16


class Command(NamedTuple):
    """One command: its four words, and their fields."""

    words: tuple[int, int, int, int]

    @property
    def code(self) -> int:
        """What it does."""
        return self.words[0] & CODE_MASK

    @property
    def device(self) -> int:
        """The ID of a device."""
        return self.words[0] >> 32

    @property
    def event(self) -> int:
        """The ID of an event."""
        return self.words[1] & ID_MASK

    @property
    def intid(self) -> int:
        """The ID of an LPI."""
        return self.words[1] >> 32

    @property
    def event_bits(self) -> int:
        """How many bits a device's events have."""
        return (self.words[1] & SIZE_MASK) + 1

    @property
    def collection(self) -> int:
        """The ID of a collection."""
        return self.words[2] & COLLECTION_MASK

    @property
    def valid(self) -> bool:
        """Whether it maps."""
        return bool(self.words[2] & VALID)

    @property
    def itt(self) -> int:
        """The address of an interrupt translation table."""
        return self.words[2] & ITT_MASK

    @property
    def target(self) -> int:
        """The vCPU of a collection."""
        return self.words[2] >> TARGET_SHIFT & ID_MASK

    @property
    def other_target(self) -> int:
        """The vCPU that MOVALL moves to."""
        return self.words[3] >> TARGET_SHIFT & ID_MASK


class Tables(NamedTuple):
    """Where an ITS keeps what it maps."""

    devices: Table
    collections: Table


def process(mappings: Mappings, tables: Tables, command: bytes, memory: GuestMemory) -> None:
    """Carry out a command of 32 bytes. Raises KvmError only for what is not modelled."""
    words = Command(WORDS.unpack(command))
    handler = HANDLERS.get(words.code)
    memory.step()
    if handler is not None:
        try:
            handler(mappings, tables, words, memory)
        except KvmError as error:
            if not error.modelled:
                raise


def message(mappings: Mappings, device: int, event: int) -> bool | None:
    """A device raises an event: whether its LPI becomes pending, None if its vCPU's LPIs are not enabled."""
    found = mappings.event(device, event)
    vcpu = _vcpu(mappings, found)
    if found is None or vcpu is None:
        return False
    if not mappings.lpis.tables.redistributor(vcpu).lpis_enabled:
        return None
    mappings.lpis.trigger(found.lpi)
    mappings.translated.add((device, event))
    return True


def _vcpu(mappings: Mappings, event: Event | None) -> int | None:
    """The ID of the vCPU that takes an event."""
    if event is None or event.collection is None or not event.collection.mapped:
        return None
    return mappings.vcpu_of(event.collection.target)


def _map_device(mappings: Mappings, tables: Tables, command: Command, memory: GuestMemory) -> None:
    place = tables.devices.entry(command.device, memory)
    if place is None or (command.valid and command.event_bits > EVENT_BITS):
        return
    old = mappings.device(command.device)
    if old is not None:
        memory.step(len(old.events))
        mappings.drop_device(old)
    if command.valid:
        mappings.add_device(Device(command.device, command.itt, command.event_bits))
    else:
        memory.put_number(place, 0)


def _map_collection(mappings: Mappings, tables: Tables, command: Command, memory: GuestMemory) -> None:
    vcpu = mappings.vcpu_of(command.target)
    if not command.valid and (vcpu is not None or mappings.unmaps_any):
        mappings.drop_collection(command.collection, memory)
    if not command.valid or vcpu is None:
        return
    collection = mappings.collections.get(command.collection)
    if collection is None:
        if tables.collections.entry(command.collection, memory) is not None:
            mappings.collections[command.collection] = Collection(command.collection, command.target)
        return
    collection.target = command.target
    for event in mappings.events():
        memory.step()
        if event.collection is collection:
            event.lpi.target = vcpu


def _map_to(mappings: Mappings, tables: Tables, command: Command, memory: GuestMemory, intid: int) -> None:
    device = mappings.device(command.device)
    if device is None or not device.has_place(command.event, memory) or command.event in device.events:
        return
    if not FIRST_LPI <= intid < mappings.lpis.end:
        return
    collection = mappings.collections.get(command.collection)
    is_new = collection is None
    if collection is None:
        if tables.collections.entry(command.collection, memory) is None:
            return
        collection = mappings.collections[command.collection] = Collection(command.collection)
    try:
        mappings.map_event(device, command.event, intid, collection, memory)
    except KvmError:
        if is_new:
            mappings.drop_collection(command.collection, memory)
        raise


def _map_event(mappings: Mappings, tables: Tables, command: Command, memory: GuestMemory) -> None:
    _map_to(mappings, tables, command, memory, command.intid)


def _map_event_itself(mappings: Mappings, tables: Tables, command: Command, memory: GuestMemory) -> None:
    _map_to(mappings, tables, command, memory, command.event)


def _move(mappings: Mappings, _tables: Tables, command: Command, _memory: GuestMemory) -> None:
    event = mappings.event(command.device, command.event)
    collection = mappings.collections.get(command.collection)
    if event is None or event.collection is None or not event.collection.mapped:
        return
    if collection is not None and collection.mapped:
        event.collection = collection
        event.lpi.target = mappings.vcpu_of(collection.target)
        mappings.translated.clear()


def _move_all(mappings: Mappings, _tables: Tables, command: Command, memory: GuestMemory) -> None:
    here, there = mappings.vcpu_of(command.target), mappings.vcpu_of(command.other_target)
    if here is not None and there is not None:
        for lpi in mappings.lpis.all():
            memory.step()
            if lpi.target == here:
                lpi.target = there


def _discard(mappings: Mappings, _tables: Tables, command: Command, memory: GuestMemory) -> None:
    device, event = mappings.device(command.device), mappings.event(command.device, command.event)
    if device is None or event is None or event.collection is None or not event.collection.mapped:
        return
    mappings.drop_event(device, event)
    mappings.translated.clear()
    memory.put_number(device.place(event.id), 0)


def _clear(mappings: Mappings, _tables: Tables, command: Command, _memory: GuestMemory) -> None:
    event = mappings.event(command.device, command.event)
    if event is not None:
        event.lpi.pending = False


def _interrupt(mappings: Mappings, _tables: Tables, command: Command, _memory: GuestMemory) -> None:
    message(mappings, command.device, command.event)


def _invalidate(mappings: Mappings, _tables: Tables, command: Command, memory: GuestMemory) -> None:
    event = mappings.event(command.device, command.event)
    if event is not None:
        mappings.lpis.configure(event.lpi, memory)


def _invalidate_all(mappings: Mappings, _tables: Tables, command: Command, memory: GuestMemory) -> None:
    collection = mappings.collections.get(command.collection)
    vcpu = mappings.vcpu_of(collection.target) if collection is not None and collection.mapped else None
    for lpi in mappings.lpis.all():
        memory.step()
        if vcpu is not None and lpi.target == vcpu:
            mappings.lpis.configure(lpi, memory)


HANDLERS: Final[dict[int, Callable[[Mappings, Tables, Command, GuestMemory], None]]] = {
    0x01: _move,
    0x03: _interrupt,
    0x04: _clear,
    0x08: _map_device,
    0x09: _map_collection,
    0x0A: _map_event,
    0x0B: _map_event_itself,
    0x0C: _invalidate,
    0x0D: _invalidate_all,
    0x0E: _move_all,
    0x0F: _discard,
}
"""By code: MOVI, INT, CLEAR, MAPD, MAPC, MAPTI, MAPI, INV, INVALL, MOVALL, DISCARD. SYNC has nothing to wait for."""
