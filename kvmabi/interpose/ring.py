# SPDX-License-Identifier: MIT
"""The events that a client leaves in a vCPU's ring (share.h), decoded.

Nothing in the ring is trusted: each field is read once and checked, and what breaks the layout ends the sharing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kvmabi.interpose.share import (
    EVENT,
    EVENTS_BYTES,
    MOST_CALLS_BYTES,
    MOST_EVENT_BYTES,
    MOST_REGISTER_BYTES,
    EventKind,
)

LAST_PLACE = EVENTS_BYTES - MOST_EVENT_BYTES
"""An event that would begin behind this place in the ring is at its start."""
GOT, SET, CALLS = map(int, (EventKind.GOT, EventKind.SET, EventKind.CALLS))
TIMES = {GOT: 1, SET: 2, CALLS: 1}
"""How many times its ``bytes`` follow an event."""

MOST_BYTES = {GOT: MOST_REGISTER_BYTES, SET: MOST_REGISTER_BYTES, CALLS: MOST_CALLS_BYTES}


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
        times = TIMES.get(kind)
        if times is None or size > MOST_BYTES[kind]:
            raise Broken
        position += EVENT.size + (times * size + 7 & ~7)
        if position > end:
            raise Broken
        place += EVENT.size
        before = b""
        if kind == SET:
            before = ring[place : place + size]
            place += size
        found.append(Entry(nanoseconds, kind, id, ring[place : place + size], before, position))
    return found


def pages(start: int, end: int, page_bytes: int) -> list[tuple[int, int]]:
    """The whole pages of the ring between two positions: (place, bytes) of each contiguous run.

    >>> pages(100, 9000, 4096)
    [(4096, 4096)]
    """
    start, end = -(-start // page_bytes) * page_bytes, end // page_bytes * page_bytes
    if start >= end:
        return []
    place = start % EVENTS_BYTES
    before_end = min(end - start, EVENTS_BYTES - place)
    rest = end - start - before_end
    return [(place, before_end), (0, rest)] if rest else [(place, before_end)]
