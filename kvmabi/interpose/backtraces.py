# SPDX-License-Identifier: MIT
"""Where in a program an ioctl came from: the addresses that a client sends, found in the files that it has mapped.

Nothing in the message is trusted: an address can be anything, and the thread counts only if the process has it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from kvmabi.events import EventLog, Origin
from kvmabi.interpose.images import Budget, Image, open_mapped, printable
from kvmabi.interpose.protocol import BACKTRACE, MOST_FRAMES, THREAD_NAME_BYTES, Message

ADDRESS = struct.Struct("=Q")
MOST_BYTES = BACKTRACE.size + MOST_FRAMES * ADDRESS.size
"""The size of the longest message."""
MOST_IMAGES = 128
"""How many files are kept open to be named."""
MOST_KNOWN = 1024
"""How many call chains of an address space are remembered."""
MOST_MAPS_BYTES = 4 << 20
"""How much of /proc/PID/maps is read."""
MOST_THREADS = 1024
"""How many threads of an address space are remembered."""


class Trace(NamedTuple):
    """Where a call came from: the thread, and addresses in its calls, the innermost first.

    ``name`` is the thread's; None: the client has not sent it, and the thread waits.
    """

    thread: int
    addresses: tuple[int, ...]
    name: str | None = None


class Mapping(NamedTuple):
    """A part of a file that a process has mapped: addresses, the offset of the first in the file, and the file."""

    start: int
    end: int
    offset: int
    device: bytes
    inode: int
    path: str


class Frame(NamedTuple):
    """A place in a program: an offset in a file, or (``image`` None) an address outside of all files."""

    image: Image | None
    offset: int


def decode(message: bytes) -> Trace | None:
    """A message as a trace; None unless it is a whole one."""
    if len(message) < BACKTRACE.size:
        return None
    kind, thread, count, zero, _name = BACKTRACE.unpack_from(message)
    if (
        kind != Message.BACKTRACE
        or zero
        or count > MOST_FRAMES
        or len(message) != BACKTRACE.size + count * ADDRESS.size
    ):
        return None
    return decode_calls(thread, message[BACKTRACE.size - THREAD_NAME_BYTES :])


@lru_cache(MOST_KNOWN)  # calls come from few places
def decode_calls(thread: int, data: bytes) -> Trace:
    """The end of a message, as a client also leaves it in a ring (share.h): the thread's name and the addresses."""
    name = data[:THREAD_NAME_BYTES].split(b"\0")[0].decode("utf-8", "replace")
    rest = data[THREAD_NAME_BYTES:]
    addresses = ADDRESS.iter_unpack(rest[: len(rest) // ADDRESS.size * ADDRESS.size])
    return Trace(thread & 0xFFFFFFFF, tuple(address for (address,) in addresses), printable(name))


class Backtraces:
    """The origins that the watchers of ``log`` ask for, and the files of the programs that they are in."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._budget = Budget()
        self._images: dict[tuple[bytes, int, str], Image] = {}

    def image(self, pid: int, mapping: Mapping) -> Image:
        """The file of a mapping, opened when it is first seen."""
        key = mapping.device, mapping.inode, mapping.path
        image = self._images.get(key)
        if image is None:
            room = len(self._images) < MOST_IMAGES
            fd = open_mapped(pid, mapping.path, mapping.inode) if room else None
            image = Image(printable(mapping.path), fd, self._budget)
            if room:
                self._images[key] = image
        return image


class Callers:
    """The call chains of one address space, that of process ``pid``.

    Each chain is found in the process's maps once: the callers of ioctls are few, and the maps of a VMM are long.
    """

    def __init__(self, pid: int, backtraces: Backtraces) -> None:
        self._pid = pid
        self._backtraces = backtraces
        self._known: dict[tuple[int, ...], tuple[Frame, ...]] = {}
        self._remembered: list[Mapping] = []
        self._threads: set[int] = set()

    def remember(self) -> None:
        """Read the process's maps now, for calls that are reported when it has ended."""
        if not self._remembered:
            self._remembered = _file_mappings(self._pid)

    def checked(self, trace: Trace) -> Trace:
        """The trace of a call that waits, without its thread if the process does not have it."""
        if trace.thread in self._threads:
            return trace
        if not os.path.exists(f"/proc/{self._pid}/task/{trace.thread}"):
            return trace._replace(thread=0, name="")
        if len(self._threads) >= MOST_THREADS:
            self._threads.clear()
        self._threads.add(trace.thread)
        return trace

    def fill(self, asked: Iterable[Origin], trace: Trace) -> None:
        """Fill origins from a trace, while its process waits for the reply."""
        frames = self._known.get(trace.addresses)
        if frames is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            frames = self._known[trace.addresses] = self._found(trace.addresses)
        name = _thread_name(self._pid, trace.thread) if trace.name is None else trace.name
        thread = 0 if name is None else trace.thread
        for origin in asked:
            origin.fill(self._pid, thread, name or "", lambda: _named(frames))

    def _found(self, addresses: Sequence[int]) -> tuple[Frame, ...]:
        mappings = _file_mappings(self._pid) or self._remembered
        frames = []
        for address in addresses:
            mapping = next((known for known in mappings if known.start <= address < known.end), None)
            if mapping is None:
                frames.append(Frame(None, address))
                continue
            image = self._backtraces.image(self._pid, mapping)
            offset = address - mapping.start + mapping.offset
            image.note(offset)
            frames.append(Frame(image, offset))
        return tuple(frames)


def _named(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Frames as text, at most as many as there can be addresses: inlined functions have no address of their own."""
    images = dict.fromkeys(frame.image for frame in frames if frame.image is not None)
    names = {image: image.names(frame.offset for frame in frames if frame.image is image) for image in images}
    text: list[str] = []
    for frame in frames:
        text += (f"{frame.offset:#x}",) if frame.image is None else names[frame.image][frame.offset]
    return tuple(text[:MOST_FRAMES])


def _file_mappings(pid: int) -> list[Mapping]:
    """The mappings of files in /proc/PID/maps, none if it cannot be read.

    Code need not be executable: qemu-user translates it.
    """
    try:
        with open(f"/proc/{pid}/maps", "rb") as maps:
            text = maps.read(MOST_MAPS_BYTES)
    except OSError:
        return []
    found = []
    for line in text.split(b"\n")[:-1]:
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5].startswith(b"/"):
            start, _, end = words[0].partition(b"-")
            path = words[5].replace(rb"\012", b"\n").decode("utf-8", "surrogateescape")
            found.append(Mapping(int(start, 16), int(end, 16), int(words[2], 16), words[3], int(words[4]), path))
    return found


def _thread_name(pid: int, thread: int) -> str | None:
    """The name of a thread of a process, None if the process does not have the thread."""
    try:
        comm = os.open(f"/proc/{pid}/task/{thread}/comm", os.O_RDONLY | os.O_CLOEXEC)  # a third of what open() costs
        try:
            return printable(os.read(comm, THREAD_NAME_BYTES).rstrip(b"\n").decode("utf-8", "replace"))
        finally:
            os.close(comm)
    except OSError:
        return None
