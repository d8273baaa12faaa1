# SPDX-License-Identifier: MIT
"""Where a snapshot is read from: a file or a decompressor, read once from front to back, within limits."""

from __future__ import annotations

import io
from typing import BinaryIO

BLOCK_BYTES = 1 << 16
MOST_WHOLE_BYTES = 24 << 20
"""The most that a reader keeps of a file at once."""


class BadBlob(Exception):
    """A file that cannot be read as what it claims to be. ``offset`` is where, in bytes; ``rule`` as in Problem."""

    def __init__(self, text: str, offset: int | None = None, rule: str = "malformed") -> None:
        super().__init__(text)
        self.text = text
        self.offset = offset
        self.rule = rule


class Truncated(BadBlob):
    """A file that ends too early."""

    def __init__(self, what: str, offset: int, wanted_bytes: int) -> None:
        super().__init__(
            f"{what} ends after {offset} bytes, where {wanted_bytes} more are expected", offset, "truncated"
        )


class Source:
    """Bytes that are read once. ``name`` is what the user called it, ``packed`` its compression ("" for none).

    ``raw`` is a binary file; where it can be seeked, ``skip`` does not read. Positions count unpacked bytes from
    ``start``. Nothing is allocated for a length that the file claims until the bytes are there.

    >>> source = Source("blob", io.BytesIO(b"QEVM....rest"))
    >>> source.peek(4), source.take(8), source.at, source.rest(100)
    (b'QEVM', b'QEVM....', 8, b'rest')
    """

    def __init__(self, name: str, raw: BinaryIO, packed: str = "", start: int = 0) -> None:
        self.name = name
        self.raw = raw
        self.packed = packed
        self.start = start
        self.at = 0
        self._ahead = b""
        self._used = 0
        self.seekable = raw.seekable()
        if self.seekable:
            raw.seek(start)

    def peek(self, size_bytes: int) -> bytes:
        """The next bytes, which stay; fewer at the end of the file."""
        missing = self._used + size_bytes - len(self._ahead)
        if missing > 0:
            self._ahead = self._ahead[self._used :] + self._read(missing)
            self._used = 0
        return self._ahead[self._used : self._used + size_bytes]

    def take(self, size_bytes: int) -> bytes:
        """The next bytes. Raises Truncated if there are fewer."""
        data = self._some(size_bytes)
        if len(data) < size_bytes:
            raise Truncated(self.name, self.at, size_bytes - len(data))
        return data

    def rest(self, most_bytes: int = MOST_WHOLE_BYTES) -> bytes:
        """All that follows. Raises BadBlob if that is more than ``most_bytes``."""
        data = self._some(most_bytes + 1)
        if len(data) > most_bytes:
            raise BadBlob(f"more than {most_bytes >> 20} MiB where registers are expected", self.at, "too-large")
        return data

    def skip(self, size_bytes: int) -> None:
        """Pass over bytes, which are not read if the file can be seeked. Raises Truncated at the end of the others."""
        ahead = min(size_bytes, len(self._ahead) - self._used)
        self._used += ahead
        self.at += ahead
        left = size_bytes - ahead
        if left and self.seekable:
            try:
                self.raw.seek(left, io.SEEK_CUR)
            except (OSError, OverflowError, ValueError):  # further than any file can reach
                raise Truncated(self.name, self.at, left) from None
            self.at += left
            return
        while left:
            read = len(self._read(min(left, BLOCK_BYTES)))
            if not read:
                raise Truncated(self.name, self.at, left)
            self.at += read
            left -= read

    def seek(self, at: int) -> None:
        """Go to a position: backwards only where the file can be seeked. Raises BadBlob."""
        if at >= self.at:
            self.skip(at - self.at)
        elif self.seekable:
            self.raw.seek(self.start + at)
            self.at, self._ahead, self._used = at, b"", 0
        else:
            raise BadBlob("points back to bytes that were read already", self.at)

    @property
    def size_bytes(self) -> int | None:
        """How many bytes there are in all; None for a stream."""
        if not self.seekable:
            return None
        here = self.raw.tell()
        end = self.raw.seek(0, io.SEEK_END)
        self.raw.seek(here)
        return end - self.start

    def _some(self, size_bytes: int) -> bytes:
        data = self.peek(size_bytes)
        self._used += len(data)
        if self._used == len(self._ahead):
            self._ahead, self._used = b"", 0
        self.at += len(data)
        return data

    def _read(self, size_bytes: int) -> bytes:
        """Up to ``size_bytes`` of the file, in blocks, so that a length that lies costs nothing."""
        first = self.raw.read(min(size_bytes, BLOCK_BYTES))
        if len(first) == size_bytes or not first:
            return first
        parts, left = [first], size_bytes - len(first)
        while left and parts[-1]:
            parts.append(self.raw.read(min(left, max(BLOCK_BYTES, len(parts[-1])))))
            left -= len(parts[-1])
        return b"".join(parts)


class Rest(io.RawIOBase):
    """What is left of a source, as a file that cannot be seeked."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size_bytes: int = -1) -> bytes:
        """The next bytes; fewer at the end."""
        data = self.source.peek(size_bytes if size_bytes >= 0 else BLOCK_BYTES)
        self.source.skip(len(data))
        return data
