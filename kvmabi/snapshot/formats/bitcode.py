# SPDX-License-Identifier: MIT
"""Columns of bitcode 0.6: the values of one field of all structs stand together, packed by their range.

A column of bytes longer than two begins with a header h: (h + 1) / 2 says how many values share a byte, an odd h that
a minimum follows, which is added to every value. A column of 64-bit numbers likewise has a header for their width.
Lengths are bytes; 255 stands for one in the column of 64-bit numbers that follows.
"""

from __future__ import annotations

import struct
from functools import cache

from kvmabi.snapshot.source import BadBlob

BASES = (256, 16, 6, 4, 3, 2)
"""How many values a packed byte of each kind distinguishes."""
VALUES_A_BYTE = (1, 2, 3, 4, 5, 8)
WIDTHS = ((8, "Q"), (4, "I"), (2, "H"), (1, "B"))
"""The widths of packed 64-bit numbers in bytes, and their letters in struct formats."""
LONGEST_RAW = 2
"""A column of so few bytes has no header."""
ESCAPE = 255
WORD_MASK = (1 << 64) - 1


@cache
def _digits(kind: int) -> tuple[bytes, ...]:
    """The values in each byte, the least first."""
    base, count = BASES[kind], VALUES_A_BYTE[kind]
    return tuple(bytes(byte // base**place % base for place in range(count)) for byte in range(256))


class Columns:
    """Reads columns from ``at`` on. Every method raises BadBlob if there is no such column.

    >>> columns = Columns(bytes([255, 4, 0x69, 1]), 0)
    >>> columns.lengths(1), columns.at
    ([361], 4)
    >>> Columns(bytes([9, 255, 0]), 0).octets(5)
    b'\\xff\\xff\\xff\\xff\\xff'
    """

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def octets(self, count: int) -> bytes:
        """A column of ``count`` bytes."""
        if count <= LONGEST_RAW:
            return self._take(count)
        header = self._take(1)[0]
        kind = (header + 1) // 2
        if kind >= len(BASES):
            raise BadBlob(f"{header} is not the header of a column of bytes", self.at - 1)
        minimum = self._take(1)[0] if header & 1 else 0
        packed = self._take(-(-count // VALUES_A_BYTE[kind]))
        values = packed if kind == 0 else b"".join(map(_digits(kind).__getitem__, packed))[:count]
        if minimum:
            values = values.translate(bytes((value + minimum) & 0xFF for value in range(256)))
        return values

    def words(self, count: int) -> list[int]:
        """A column of ``count`` 64-bit numbers."""
        if not count:
            return []
        header = self._take(1)[0]
        kind = (header + 1) // 2
        if kind >= len(WIDTHS):
            raise BadBlob(f"{header} is not the header of a column of 64-bit numbers", self.at - 1)
        minimum = struct.unpack("<Q", self._take(8))[0] if header & 1 else 0
        size_bytes, letter = WIDTHS[kind]
        if size_bytes == 1:
            values: tuple[int, ...] = tuple(self.octets(count))
        else:
            values = struct.unpack(f"<{count}{letter}", self._take(count * size_bytes))
        return [value + minimum & WORD_MASK for value in values]

    def lengths(self, count: int) -> list[int]:
        """A column of ``count`` lengths."""
        short = self.octets(count)
        long = iter(self.words(short.count(ESCAPE)))
        return [next(long) if length == ESCAPE else length for length in short]

    def skip_lengths(self, count: int) -> None:
        """Pass over a column of lengths: as ``lengths``, for less time."""
        long = self.octets(count).count(ESCAPE)
        if not long:
            return
        header = self._take(1)[0]
        kind = (header + 1) // 2
        if kind >= len(WIDTHS):
            raise BadBlob(f"{header} is not the header of a column of 64-bit numbers", self.at - 1)
        self.at += 8 * (header & 1)
        if WIDTHS[kind][0] == 1:
            self.octets(long)
        else:
            self.at += WIDTHS[kind][0] * long

    def _take(self, size_bytes: int) -> bytes:
        data = self.data[self.at : self.at + size_bytes]
        if len(data) < size_bytes:
            raise BadBlob("a column ends too early", len(self.data), "truncated")
        self.at += size_bytes
        return data
