# SPDX-License-Identifier: MIT
"""The dirty pages of a memory slot, a bit for each: none, or all at first, until they are cleared.

A slot can have 2^31 pages, so only those parts of the bitmap take space that are neither as they began nor clear.
"""

from __future__ import annotations

from collections.abc import Iterator

PART_BYTES = 1 << 16
WORD_PAGES = 64


def bitmap_bytes(pages: int) -> int:
    """The size of a bitmap for so many pages: whole words of 64 bits."""
    return (pages + WORD_PAGES - 1) // WORD_PAGES * 8


class DirtyPages:
    """The dirty pages of a slot with so many ``pages``."""

    def __init__(self, pages: int, *, all_dirty: bool) -> None:
        self.pages = pages
        self._first = b"\xff" if all_dirty else b"\0"
        self._parts: dict[int, bytes | bytearray] = {}

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """The bitmap in parts: the offset in bytes and the bytes of each."""
        for offset in range(0, bitmap_bytes(self.pages), PART_BYTES):
            yield offset, bytes(self._part(offset))

    def mark(self, page: int) -> None:
        """The guest, or a device, wrote to a page."""
        offset = page // 8 // PART_BYTES * PART_BYTES
        part = self._parts.get(offset)
        if not isinstance(part, bytearray):
            part = self._parts[offset] = bytearray(self._part(offset))
        part[page // 8 - offset] |= 1 << page % 8

    def clear_all(self) -> None:
        """No page is dirty."""
        self._first = b"\0"
        self._parts.clear()

    def clear(self, first_page: int, bits: bytes) -> None:
        """Clear the pages whose bits are set; the first of them is ``first_page``, a multiple of 64."""
        place = first_page // 8
        while bits:
            offset = place // PART_BYTES * PART_BYTES
            start = place - offset
            chosen, bits = bits[: PART_BYTES - start], bits[PART_BYTES - start :]
            part = bytearray(self._part(offset))
            old = int.from_bytes(part[start : start + len(chosen)], "little")
            new = old & ~int.from_bytes(chosen, "little")
            if new != old:
                size = min(len(chosen), len(part) - start)
                part[start : start + size] = new.to_bytes(size, "little")
                self._parts[offset] = bytes(part) if any(part) else b""
            place = offset + PART_BYTES

    def _part(self, offset: int) -> bytes | bytearray:
        size = min(PART_BYTES, bitmap_bytes(self.pages) - offset)
        kept = self._parts.get(offset)
        if kept is not None:
            return kept or bytes(size)
        whole = self._first * size
        beyond = 8 * (offset + size) - self.pages
        if beyond <= 0:
            return whole
        return (int.from_bytes(whole, "little") & ((1 << 8 * size - beyond) - 1)).to_bytes(size, "little")
