# SPDX-License-Identifier: MIT
"""The RAM of a QEMU migration stream: passed over exactly, record by record, and never kept.

Section ``ram``, version 4. START lists the blocks; every part then holds records, each a be64 of address and flags
and what the flags say, until one with END_OF_PART. Runs of equal records are passed by slices with a stride, so that
a run costs what reading it costs.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from kvmabi.snapshot.source import BadBlob, Source, Truncated

FILL: Final = 0x02
SIZES: Final = 0x04
PAGE: Final = 0x08
END_OF_PART: Final = 0x10
SAME_BLOCK: Final = 0x20
XBZRLE: Final = 0x40
COMPRESSED: Final = 0x100
MULTIFD_FLUSH: Final = 0x200
FLAG_BITS: Final = 0xFFF
"""The part of a record that holds flags: addresses are those of pages, of 4096 bytes at least."""
RECORD_BYTES: Final = 8
VERSION: Final = 4
MAPPED_RAM: Final = "mapped-ram"

MOST_BLOCKS: Final = 4096
FIRST_CHUNK_BYTES: Final = 1 << 10
CHUNK_BYTES: Final = 1 << 18
"""How much of a part is looked at at once: little first, because a part may be empty."""
_FIRST_RUN: Final = 32
_MOST_EXTRA_FIELDS: Final = 4
_U64: Final = Struct(">Q")
_MAPPED_BLOCK: Final = Struct(">IQQQ")
_NO_LOW_FLAGS: Final = bytes(value & 0x0F for value in range(256))
"""Keeps of a record's second-last byte what belongs to its flags."""


class Block(NamedTuple):
    """A block of RAM: its name and size."""

    name: str
    size_bytes: int


def take_blocks(source: Source, capabilities: tuple[str, ...]) -> list[Block]:
    """Read the list of blocks at the beginning of section START, up to the first record. Raises BadBlob.

    With the capability mapped-ram the pages of each block follow its entry in the file; they are skipped.
    """
    first = _U64.unpack(source.take(RECORD_BYTES))[0]
    if first & FLAG_BITS != SIZES:
        raise BadBlob("section ram does not begin with the size of RAM", source.at - RECORD_BYTES)
    left_bytes = first - SIZES
    blocks: list[Block] = []
    while left_bytes > 0:
        if len(blocks) == MOST_BLOCKS:
            raise BadBlob(f"section ram lists more than {MOST_BLOCKS} blocks", source.at, "too-large")
        name = _take_name(source)
        size_bytes = _U64.unpack(source.take(RECORD_BYTES))[0]
        blocks.append(Block(name, size_bytes))
        left_bytes -= size_bytes
        if MAPPED_RAM in capabilities:
            _skip_mapped(source, size_bytes)
        else:
            _skip_extra(source, last=left_bytes <= 0)
    if left_bytes:
        raise BadBlob("the blocks of RAM are larger than RAM", source.at)
    return blocks


def skip_records(source: Source, page_bytes: int) -> None:
    """Pass over the records of one part, up to and including END_OF_PART. Raises BadBlob."""
    wanted_bytes = FIRST_CHUNK_BYTES
    while True:
        data = source.peek(wanted_bytes)
        used_bytes, ended = _pass(data, page_bytes, source.at)
        source.skip(used_bytes)
        if ended:
            return
        if not used_bytes:
            if len(data) < wanted_bytes:
                raise Truncated("section ram", source.at + len(data), 1)
            wanted_bytes += 2 * page_bytes + CHUNK_BYTES
        else:
            wanted_bytes = min(8 * wanted_bytes, CHUNK_BYTES)


def _take_name(source: Source) -> str:
    length = source.take(1)[0]
    if not length:
        raise BadBlob("a block of RAM has no name", source.at - 1)
    return source.take(length).decode("ascii", "backslashreplace")


def _skip_mapped(source: Source, size_bytes: int) -> None:
    """Go behind the pages of a block whose offsets count from the beginning of the file that QEMU wrote."""
    version, _, bitmap_at, pages_at = _MAPPED_BLOCK.unpack(source.take(_MAPPED_BLOCK.size))
    if version != 1:
        raise BadBlob(f"mapped-ram of version {version} is not known", source.at)
    if pages_at < bitmap_at:
        raise BadBlob("the pages of a block of mapped-ram lie before its bitmap", source.at)
    source.seek(source.at + pages_at - bitmap_at + size_bytes)


def _skip_extra(source: Source, *, last: bool) -> None:
    """Pass over be64s that capabilities add to a block's entry: the size of its pages, its address.

    Their first byte is 0, which no name's length is; after the last entry, they have no flags, as every record has.
    """
    for _ in range(_MOST_EXTRA_FIELDS):
        field = source.peek(RECORD_BYTES)
        if len(field) < RECORD_BYTES or field[0] or (last and _U64.unpack(field)[0] & FLAG_BITS):
            return
        source.skip(RECORD_BYTES)


def _pass(data: bytes, page_bytes: int, base: int) -> tuple[int, bool]:
    """How many bytes of whole records ``data`` begins with, and whether END_OF_PART is the last of them."""
    at, size_bytes = 0, len(data)
    while at + RECORD_BYTES <= size_bytes:
        flags = data[at + 6] << 8 & FLAG_BITS | data[at + 7]
        if flags == FILL | SAME_BLOCK:
            passed = _run(data, at, RECORD_BYTES + 1, flags)
        elif flags == PAGE | SAME_BLOCK:
            passed = _run(data, at, RECORD_BYTES + page_bytes, flags)
        elif flags == END_OF_PART:
            return at + RECORD_BYTES, True
        else:
            passed = _record_bytes(data, at, flags, page_bytes, base)
        if not passed:
            break
        at += passed
    return at, False


def _run(data: bytes, at: int, stride: int, flags: int) -> int:
    """How many bytes of whole records of one size and with these flags stand at ``at``.

    The flags of the n-th record are looked at only if all before it have that size: a run is exact.
    """
    most = (len(data) - at) // stride
    count, step = 0, _FIRST_RUN
    last_byte = bytes([flags & 0xFF])
    while count < most:
        begin = at + count * stride
        end = at + min(count + step, most) * stride
        lows = data[begin + 7 : end : stride]
        highs = data[begin + 6 : end : stride].translate(_NO_LOW_FLAGS)
        equal = min(len(lows) - len(lows.lstrip(last_byte)), len(highs) - len(highs.lstrip(b"\0")))
        count += equal
        if equal < len(lows):
            break
        step *= 16
    return count * stride


def _record_bytes(data: bytes, at: int, flags: int, page_bytes: int, base: int) -> int:
    """The size of a record of another kind; 0 if ``data`` ends before the record does."""
    end = at + RECORD_BYTES
    kind = flags & ~SAME_BLOCK
    if kind not in (FILL, PAGE, XBZRLE, COMPRESSED, MULTIFD_FLUSH):
        raise BadBlob(f"section ram has a record with the flags {flags:#x}, which is not known", base + at)
    if kind == MULTIFD_FLUSH:
        return RECORD_BYTES
    if not flags & SAME_BLOCK:
        if end >= len(data):
            return 0
        end += 1 + data[end]
    if kind == FILL:
        end += 1
    elif kind == PAGE:
        end += page_bytes
    elif kind == XBZRLE:
        end += 3 + int.from_bytes(data[end + 1 : end + 3], "big")
    else:
        end += 4 + int.from_bytes(data[end : end + 4], "big")
        if end - at > RECORD_BYTES + 256 + 4 + 2 * page_bytes:
            raise BadBlob("a compressed page is larger than two pages", base + at)
    return end - at if end <= len(data) else 0
