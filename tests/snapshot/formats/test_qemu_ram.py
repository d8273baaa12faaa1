# SPDX-License-Identifier: MIT
"""The walk over RAM: every kind of record, in any mixture and in pieces of any size, ends where the part ends."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.snapshot.formats import qemu_ram
from kvmabi.snapshot.formats.qemu_ram import skip_records, take_blocks
from kvmabi.snapshot.source import BadBlob, Source, Truncated
from snapshot.qemu_samples import Pipe

PAGE_BYTES = 4096
END = struct.pack(">Q", qemu_ram.END_OF_PART)


def record(flags: int, data: bytes, page: int = 3, name: bytes = b"ram") -> bytes:
    """A record, with the name of its block unless the flags say that it is the same."""
    block = b"" if flags & (qemu_ram.SAME_BLOCK | qemu_ram.MULTIFD_FLUSH) else bytes([len(name)]) + name
    return struct.pack(">Q", page * PAGE_BYTES | flags) + block + data


PAGE = b"\x22" * PAGE_BYTES
"""A page of bytes that look like flags."""
RECORDS = {
    "fill": record(0x22, b"\x22"),
    "fill of a block": record(0x02, b"\0"),
    "page": record(0x28, PAGE),
    "page of a block": record(0x08, PAGE),
    "xbzrle": record(0x60, b"\x01\0\x05abcde"),
    "xbzrle of a block": record(0x40, b"\x01\0\0"),
    "compressed": record(0x120, struct.pack(">I", 7) + b"1234567"),
    "flush": record(0x200, b"", page=0),
}


def source(data: bytes, kind: type[io.BytesIO] = Pipe) -> Source:
    """Bytes as a source."""
    return Source("ram", cast(BinaryIO, kind(data)))


@given(st.lists(st.tuples(st.sampled_from(sorted(RECORDS)), st.integers(1, 70)), max_size=12), st.booleans())
def test_any_mixture(runs: list[tuple[str, int]], piped: bool) -> None:
    """The walk ends behind the end of the part, not at bytes of pages that look like it."""
    part = b"".join(RECORDS[name] * count for name, count in runs) + END
    stream = source(part + END * 3, Pipe if piped else io.BytesIO)
    skip_records(stream, PAGE_BYTES)
    assert stream.at == len(part)


@pytest.mark.parametrize("name", RECORDS)
def test_truncated(name: str) -> None:
    """At every byte of the last record, after a run of others."""
    part = RECORDS["fill"] * 40 + RECORDS[name]
    for size in range(len(RECORDS["fill"]) * 40, len(part), 1 if len(part) < 1000 else 37):
        with pytest.raises(Truncated):
            skip_records(source(part[:size]), PAGE_BYTES)


@pytest.mark.parametrize(
    "data", [record(0x2A, b"\0"), record(0x80, b""), record(0, b""), record(0x120, struct.pack(">I", 1 << 31))]
)
def test_records_that_are_none(data: bytes) -> None:
    """Two kinds at once, a hook, no flags, a page that is larger than pages are; the offset is the record's."""
    with pytest.raises(BadBlob) as refused:
        skip_records(source(RECORDS["fill"] * 5 + data), PAGE_BYTES)
    assert refused.value.offset == 45


def test_every_flag_of_a_run_counts() -> None:
    """Flags beyond the last byte of a record end a run."""
    with pytest.raises(BadBlob) as refused:
        skip_records(source(RECORDS["fill"] * 100 + record(0x222, b"") + b"\0" + RECORDS["fill"] * 100), PAGE_BYTES)
    assert refused.value.offset == 900


def block(name: bytes, size_bytes: int, more: bytes = b"") -> bytes:
    """A block's entry."""
    return bytes([len(name)]) + name + struct.pack(">Q", size_bytes) + more


def blocks(*entries: bytes, total_bytes: int) -> bytes:
    """The list of blocks."""
    return struct.pack(">Q", total_bytes | qemu_ram.SIZES) + b"".join(entries)


@pytest.mark.parametrize("extra", [b"", struct.pack(">Q", 1 << 21), struct.pack(">QQ", 1 << 21, 1 << 30)])
def test_fields_that_capabilities_add(extra: bytes) -> None:
    """be64s behind each entry, as x-ignore-shared and huge pages add, are no names and no records."""
    stream = source(blocks(block(b"a", 4096, extra), block(b"b", 8192, extra), total_bytes=12288) + END)
    assert take_blocks(stream, ()) == [("a", 4096), ("b", 8192)]
    skip_records(stream, PAGE_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        blocks(block(b"a", 8192), total_bytes=4096),
        blocks(block(b"", 4096), total_bytes=4096),
        struct.pack(">Q", 4096),
        blocks(*[block(b"a", 0)] * 5000, total_bytes=4096),
        blocks(block(b"a", 4096), total_bytes=1 << 40),
    ],
)
def test_lists_of_blocks_that_lie(data: bytes) -> None:
    """Sums, names, the size itself, a count without end."""
    with pytest.raises(BadBlob):
        take_blocks(source(data), ())


def test_mapped_ram_that_lies() -> None:
    """Offsets behind any file, and pages before their bitmap."""
    for bitmap_at, pages_at in ((0, (1 << 64) - 1), (4096, 0)):
        entry = block(b"a", 4096, struct.pack(">IQQQ", 1, 4096, bitmap_at, pages_at))
        for kind in (io.BytesIO, Pipe):
            with pytest.raises(BadBlob):
                take_blocks(source(blocks(entry, total_bytes=4096), kind), (qemu_ram.MAPPED_RAM,))
