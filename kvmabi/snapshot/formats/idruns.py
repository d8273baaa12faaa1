# SPDX-License-Identifier: MIT
"""Finds register IDs in bytes whose types are not known: a vCPU's list is a long run of 64-bit little-endian IDs."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.model.core import FPCR_ID, FPSR_ID, PLAIN, V_IDS
from kvmabi.model.row import size_of

LEAST_RUN = 16
"""Shorter runs are chance; every vCPU has some hundred registers."""
ID_BYTES = 8
MOST_LOST = LEAST_RUN + 1
"""How many IDs one damaged ID hides at most at the beginning of a list: it, and those before it, which are too few."""
_UPPER = rb"\0\0[\x20\x30\x40\x50\x60\x70\x80]\x60"
"""The upper half of an ID: arm64, a size of 4 to 256 bytes, bits 51 to 32 zero."""
_RUN = re.compile(_UPPER + rb"(?:.{4}" + _UPPER + rb")*+", re.DOTALL)
_LOWER_HALF_BYTES = 4
_SIZE_FIELD = uapi.KVM_REG_SIZE_MASK


class Run(NamedTuple):
    """``length`` IDs in a row, the first at byte ``start``."""

    start: int
    length: int


def runs(data: bytes, at: int = 0) -> Iterator[Run]:
    """The runs of at least LEAST_RUN IDs behind byte ``at``.

    >>> ids = [0x6030000000100000 + 2 * n for n in range(31)]
    >>> list(runs(b"filler" + struct.pack("<31Q", *ids) + b"more"))
    [Run(start=6, length=31)]
    """
    search_at = at + _LOWER_HALF_BYTES
    while match := _RUN.search(data, search_at):
        start = match.start() - _LOWER_HALF_BYTES
        count = (match.end() - start) // ID_BYTES
        if count < LEAST_RUN:
            search_at = match.start() + 1
            continue
        yield Run(start, count)
        search_at = match.end() + _LOWER_HALF_BYTES


def joined(found: Iterable[Run]) -> Iterator[Run]:
    """Runs that a few damaged IDs cut in two become one again.

    >>> list(joined([Run(8, 20), Run(8 + 21 * 8, 30), Run(1000, 16)]))
    [Run(start=8, length=51), Run(start=1000, length=16)]
    """
    last: Run | None = None
    for run in found:
        gap = -1 if last is None else run.start - last.start - last.length * ID_BYTES
        if last is not None and gap % ID_BYTES == 0 and 0 <= gap <= MOST_LOST * ID_BYTES:
            last = Run(last.start, last.length + gap // ID_BYTES + run.length)
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


def ids_at(data: bytes, start: int, count: int) -> tuple[int, ...]:
    """``count`` IDs from byte ``start`` on, fewer at the end of the data."""
    count = min(count, max(0, len(data) - start) // ID_BYTES)
    return struct.unpack_from(f"<{count}Q", data, start)


@lru_cache(4096)
def natural_size(id: int) -> int:
    """The size in bytes that the register has whatever the size field of ``id`` says; that one's for unknown IDs.

    >>> natural_size(0x6020000000100042), natural_size(0x602000000013c000)
    (8, 8)
    """
    wanted = {
        "core": _core_sizes().get(id & 0xFFFF, size_of(id)),
        "sysreg": 8,
        "firmware": 8,
        "firmware_bitmap": 8,
        "demux": 4,
    }
    return wanted.get(regid.decode(id).family, size_of(id))


def natural_id(id: int) -> int:
    """The ID with the size that the register has.

    >>> hex(natural_id(0x602000000013c000))
    '0x603000000013c000'
    """
    return id & ~_SIZE_FIELD | (natural_size(id).bit_length() - 1) << uapi.KVM_REG_SIZE_SHIFT


@lru_cache(1)
def _core_sizes() -> dict[int, int]:
    sizes = {id & 0xFFFF: size_bytes for id, size_bytes, _ in PLAIN}
    return {**sizes, **{id & 0xFFFF: size_of(id) for id in (*V_IDS, FPSR_ID, FPCR_ID)}}


def sizes_for(ids: Sequence[int], total_bytes: int) -> list[int] | None:
    """The size of each register's data if they sum up to ``total_bytes``: by the IDs, or by what the registers are.

    The second holds for an ID whose size field another kernel, or damage, changed.
    """
    for size in (size_of, natural_size):
        sizes = [size(id) for id in ids]
        if sum(sizes) == total_bytes:
            return sizes
    return None


def most_bytes(ids: Iterable[int]) -> int:
    """How many bytes of data the IDs ask for."""
    return sum(map(size_of, ids))
