# SPDX-License-Identifier: MIT
"""The files that a program's code comes from, and the names in them.

A file is opened while the process lives, and named when a report is made: by then the process has ended, and the file
can be gone or replaced, as a test's build often is.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
import weakref
from collections.abc import Iterable, Iterator

from kvmabi.interpose import lines
from kvmabi.interpose.symbols import Symbols

MOST_SECONDS = 0.7
"""What the names of one run may take: with the symbol table that is being read when this is over, under a second."""
MOST_PLACES = 1000
"""How many places of a file are named with one look at it."""
MANGLED = ("_Z", "_R")
"""How the names of C++ and Rust begin in a symbol table."""


class Budget:
    """The time that is left for names."""

    def __init__(self, seconds: float = MOST_SECONDS) -> None:
        self.seconds = seconds

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """The time inside is spent."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds -= time.monotonic() - start


class Image:
    """A mapped file, at ``path``. ``fd`` None: it could not be opened, so its code has no names."""

    def __init__(self, path: str, fd: int | None, budget: Budget) -> None:
        self.path = path
        self._fd = fd
        self._budget = budget
        self._unnamed: dict[int, None] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._symbols: Symbols | None = None
        if fd is not None:
            weakref.finalize(self, os.close, fd)

    def note(self, offset: int) -> None:
        """An offset in the file that names may be asked for."""
        if offset not in self._names and len(self._unnamed) < MOST_PLACES:
            self._unnamed[offset] = None

    def names(self, offsets: Iterable[int]) -> dict[int, tuple[str, ...]]:
        """What is at each offset, as frames (see ``Origin.frames``): several for inlined functions."""
        offsets = list(offsets)
        missing = [offset for offset in offsets if offset not in self._names]
        if missing and self._fd is not None and self._budget.seconds > 0:
            with self._budget.spent():
                self._look_up(self._fd, list(dict.fromkeys([*missing, *self._unnamed])))
            self._unnamed.clear()
        return {offset: self._names.get(offset) or (f"{self.path}+{offset:#x}",) for offset in offsets}

    def _look_up(self, fd: int, offsets: list[int]) -> None:
        start = time.monotonic()
        if self._symbols is None:
            self._symbols = Symbols(fd)
        symbols = self._symbols
        addresses = {offset: address for offset in offsets if (address := symbols.address_of(offset)) is not None}
        left = self._budget.seconds - (time.monotonic() - start)
        known = lines.look_up(fd, addresses.values(), left) if addresses else {}
        for offset, address in addresses.items():
            if named := self._named(symbols.find(address), known.get(address, ())):
                self._names[offset] = tuple(map(printable, named))

    def _named(self, symbol: tuple[str, int] | None, known: tuple[lines.Line, ...]) -> list[str]:
        with_place = [line for line in known if line.place]
        name, distance = symbol or ("", 0)
        if with_place:
            return [f"{line.function or name or lines.UNKNOWN} at {line.place}" for line in with_place]
        if not name:
            return []
        if known and known[-1].function and name.startswith(MANGLED):
            name = known[-1].function
        return [f"{name}+{distance:#x} in {self.path}"]


def open_mapped(pid: int, path: str, inode: int) -> int | None:
    """Opens a file that a process has mapped; None if the file at its path is another one by now.

    The path is the process's own, in its mount namespace. Only regular files are opened: a pipe would block.
    """
    for place in (f"/proc/{pid}/root{path}", f"/proc/{pid}/exe"):
        with contextlib.suppress(OSError, ValueError):
            found = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                status = os.fstat(found)
                if status.st_ino == inode and stat.S_ISREG(status.st_mode):
                    return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(found)
    return None


def printable(text: str) -> str:
    """Text of a file or a process without what a terminal could obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
