# SPDX-License-Identifier: MIT
"""The events that a client leaves in a vCPU's ring: decoded, and the registers as they were after one of them.

Nothing in the ring is trusted: each field is read once and checked, and what breaks the layout ends the sharing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from kvmabi.device import VcpuFile
from kvmabi.interpose.share import EVENT, EVENTS_BYTES, MOST_EVENT_BYTES, MOST_REGISTER_BYTES, EventKind
from kvmabi.model.row import Row
from kvmabi.uapi import ffi

LAST_PLACE = EVENTS_BYTES - MOST_EVENT_BYTES
"""An event that would begin behind this place in the ring is at its start."""
SIZES = {EventKind.GOT: 1, EventKind.SET: 2, EventKind.CALLS: 1}
"""How many times its ``bytes`` follow an event."""


class Broken(Exception):
    """The client does not keep to the layout."""


class Entry(NamedTuple):
    """An event: ``data`` was got, set or called from, ``before`` what a set replaced, ``end`` where the next begins."""

    nanoseconds: int
    kind: int
    id: int
    data: bytes
    before: bytes
    end: int


def decode(ring: Any, start: int, end: int) -> list[Entry]:
    """The events between two positions. Raises Broken."""
    if not 0 <= end - start <= EVENTS_BYTES:
        raise Broken
    found = []
    position = start
    while position < end:
        place = position % EVENTS_BYTES
        if place > LAST_PLACE:
            position += EVENTS_BYTES - place
            continue
        id, nanoseconds, kind, size = EVENT.unpack_from(ring, place)
        times = SIZES.get(kind)
        if times is None or size > MOST_REGISTER_BYTES:
            raise Broken
        position += EVENT.size + (times * size + 7 & ~7)
        if position > end:
            raise Broken
        place += EVENT.size
        before = b""
        if kind == EventKind.SET:
            before = ring[place : place + size]
            place += size
        found.append(Entry(nanoseconds, kind, id, ring[place : place + size], before, position))
    return found


class Past:
    """The source of an event that is recorded after the fact: ``position`` is the end of the event in the ring.

    The values of that moment are those of the register file without the sets that came later.
    """

    def __init__(self, device: VcpuFile, ring: Any, words: Any, written: int) -> None:
        self.position = 0
        self._device = device
        self._ring = ring
        self._words = words
        self._written = written

    def values(self) -> Mapping[int, bytes]:
        """See events.Source."""
        vcpu = self._device.vcpu
        later: list[Entry] = []
        copy = ffi.buffer(ffi.new("char[]", bytes(vcpu.memory[:])))
        # a set leaves its event before it stores, so every set that is in the copy is in the ring now
        with suppress(Broken):
            later = decode(self._ring, self.position, self._words[self._written])
        for entry in reversed(later):
            row = plain_row(self._device, entry)
            if row is not None and entry.kind == EventKind.SET:
                copy[row.offset : row.offset + len(entry.before)] = entry.before
        return vcpu.values_in(copy)

    def pseudo_values(self) -> Mapping[int, bytes]:
        """See events.Source."""
        return self._device.pseudo_values()


def plain_row(device: VcpuFile, entry: Entry) -> Row | None:
    """The row of the register that was got or set; None if that is no plain access to this vCPU in its mode now.

    It was one when the event was left, unless the client lies or another vCPU's ioctl changed the mode meanwhile.
    """
    row = device.vcpu.map.find(entry.id) if device.vcpu.map is not None else None
    if row is None:
        return None
    if entry.kind == EventKind.SET:
        return row if row.plain_set and row.valid_bytes == len(entry.data) else None
    return row if row.plain_get and row.size_bytes == len(entry.data) else None
