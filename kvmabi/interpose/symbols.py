# SPDX-License-Identifier: MIT
"""The functions in an ELF file: its segments and its symbol table (elf(5)), for 64 bits, little-endian.

Only what naming an address takes, and fast: 100 000 symbols take a tenth of a second. A file that is
not ELF, or broken, has no symbols.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from operator import itemgetter

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
IDENT = b"\x7fELF\x02\x01"
"""The magic, 64 bits, little-endian."""
PT_LOAD = 1
SHT_SYMTAB, SHT_DYNSYM = 2, 11
FUNCTIONS = (2, 10)
"""STT_FUNC and STT_GNU_IFUNC, in the lower four bits of st_info."""
MOST_BYTES = 8 << 20
"""What is read of a table of symbols at most: 350 000 of them."""
MOST_STRING_BYTES = 64 << 20
MOST_NAME = 512


Symbol = tuple[int, int, int]
"""A function: its address, its size in bytes (0: unknown), and where its name is in the string table."""


class Symbols:
    """The functions of the file behind ``fd``, which is read now and not kept."""

    def __init__(self, fd: int) -> None:
        self._segments: list[tuple[int, int, int]] = []
        self._symbols: list[Symbol] = []
        self._strings = b""
        try:
            self._read(fd)
        except (OSError, OverflowError, struct.error):
            self._symbols = []

    def address_of(self, offset: int) -> int | None:
        """The address that the linker gave to an offset in the file; None if the file's segments do not hold it."""
        for start, size, address in self._segments:
            if start <= offset < start + size:
                return offset - start + address
        return None

    def find(self, address: int) -> tuple[str, int] | None:
        """The function that an address is in, and how many bytes from its start."""
        place = bisect_right(self._symbols, address, key=itemgetter(0))
        if not place:
            return None
        start, size, string = self._symbols[place - 1]
        if size and address >= start + size:
            return None
        end = self._strings.find(b"\0", string)
        name = self._strings[string : min(end, string + MOST_NAME)] if end >= 0 else b""
        return (name.decode("utf-8", "replace"), address - start) if name else None

    def _read(self, fd: int) -> None:
        header = HEADER.unpack(os.pread(fd, HEADER.size, 0))
        if not header[0].startswith(IDENT):
            return
        segments, sections = header[5], header[6]
        segment_count, section_count = header[10], header[12]
        for segment in SEGMENT.iter_unpack(os.pread(fd, SEGMENT.size * segment_count, segments)):
            kind, _flags, start, address, _physical, size = segment[:6]
            if kind == PT_LOAD:
                self._segments.append((start, size, address))
        table = list(SECTION.iter_unpack(os.pread(fd, SECTION.size * section_count, sections)))
        for kind in (SHT_SYMTAB, SHT_DYNSYM):
            for section in table:
                if section[1] == kind and section[6] < len(table):
                    self._read_symbols(fd, section, table[section[6]])
                    return

    def _read_symbols(self, fd: int, section: tuple[int, ...], strings: tuple[int, ...]) -> None:
        data = os.pread(fd, min(section[5], MOST_BYTES), section[4])
        data = data[: len(data) // SYMBOL.size * SYMBOL.size]
        self._symbols = sorted(
            (address, size, name)
            for name, info, _other, section_index, address, size in SYMBOL.iter_unpack(data)
            if info & 15 in FUNCTIONS and section_index
        )
        self._strings = os.pread(fd, min(strings[5], MOST_STRING_BYTES), strings[4])
