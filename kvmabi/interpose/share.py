# SPDX-License-Identifier: MIT
"""The layout of a vCPU's file and of the rows of a register map; share.h defines the same for C and documents it."""

from __future__ import annotations

import struct
from enum import IntEnum

from kvmabi.interpose.protocol import MOST_FRAMES, THREAD_NAME_BYTES

REGISTERS_AT = 0x100000
HEADER_AT = 0x120000
EVENTS_AT = 0x130000
EVENTS_BYTES = 0x40000
FILE_BYTES = 0x170000
MOST_REGISTER_BYTES = 256


class Word(IntEnum):
    """Places of the header's fields, in units of 8 bytes."""

    MAP = 0
    DRAINED = 1
    WANTED = 2
    WRITTEN = 8


class Wanted(IntEnum):
    """What an access leaves in the ring."""

    NO_EVENTS = 0
    EVENTS_ONLY = 1
    ALL_CALLS = 2


SETTLED_AT = 128 + MOST_REGISTER_BYTES
SETTLED_BYTES = (HEADER_AT - REGISTERS_AT) // 4 // 8
HEADER_BYTES = SETTLED_AT + SETTLED_BYTES


class EventKind(IntEnum):
    """What an event in the ring is."""

    GOT = 1
    SET = 2
    CALLS = 3


EVENT = struct.Struct("=QQII")
"""id, nanoseconds, kind, bytes."""
MOST_EVENT_BYTES = EVENT.size + 2 * MOST_REGISTER_BYTES

MOST_CALLS_BYTES = THREAD_NAME_BYTES + 8 * MOST_FRAMES

ROWS = struct.Struct("=QQ")
"""map, count; the rows follow."""
ROW = struct.Struct("=QIHH")
"""id, place, get_bytes, set_bytes."""
