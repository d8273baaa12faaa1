# SPDX-License-Identifier: MIT
"""The messages between the interposer and its server; protocol.h defines the same for C and documents them."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

from kvmabi.environment import SOCKET_VARIABLE as SOCKET_VARIABLE

VERSION = 5
REAL_SOCKET = "real"
MOST_FRAMES = 32
"""How many addresses a backtrace can have."""
THREAD_NAME_BYTES = 16


class Message(IntEnum):
    """What a request is for."""

    HELLO = 1
    OPEN = 2
    IOCTL = 3
    SHARE = 4
    UNDO = 5
    BACKTRACE = 6
    MAP = 7
    DRAIN = 8
    BEFORE = 9
    AFTER = 10
    RESUME = 11


class Flag(IntFlag):
    """What a reply contains besides the result."""

    FD = 1 << 0
    FOREIGN = 1 << 1
    WAIT = 1 << 2
    SIGMASK = 1 << 3
    STORE = 1 << 4
    ORIGIN = 1 << 5


LATE_SHIFT = 8
"""Above the flags: how many milliseconds the client waits before it returns from the ioctl."""
EVENTS = 1 << 16
"""Added to a request's message: the client has left events since its last request."""

CALLED = 1 << 17
"""Added to IOCTL: a backtrace follows in the same message."""

REQUEST = struct.Struct("=II16sQ")
"""message, request, identity (cookie, or st_dev and st_ino of 64 bits each), argument."""

BACKTRACE = struct.Struct(f"=IIII{THREAD_NAME_BYTES}s")
"""The start of a backtrace: message, thread (tid), count, zero, name. ``count`` addresses of 64 bits follow."""

IDENTITY = struct.Struct("=QQ")
"""st_dev and st_ino of the fd that an ioctl is for."""

REAL = struct.Struct("=qQ")
"""The identity of BEFORE and AFTER: an fd, or a result or the negative errno; and a tid."""

REPLY = struct.Struct("=iiIIQ")
"""result, error (an errno or 0), flags, place, sigmask (one bit per signal, bit 0 for signal 1)."""
