# SPDX-License-Identifier: MIT
"""The answers to steps in the words of traces, from an ioctl's result and what it wrote."""

from __future__ import annotations

import errno
import struct
from functools import lru_cache

from kvmabi import uapi
from kvmabi.device.structs import layout
from kvmabi.steps.structs import COUNT

STATS_HEADER = layout("struct kvm_stats_header")
STATS_DESC = layout("struct kvm_stats_desc")
ERRNOS = {-number: name for number, name in errno.errorcode.items()}
MASK_OP1S = (0, 1, 3)
"""The op1 fields of the table of writable masks, in its order."""


def name_of(result: int) -> str:
    """An ioctl's result as an answer: OK, or the errno's name."""
    return "OK" if result >= 0 else ERRNOS.get(result) or str(-result)


def stats_answer(data: bytes) -> str:
    """The answer to ``stats`` from the beginning of its file."""
    flags, name_size, count, id_offset, desc_offset, data_offset = STATS_HEADER.unpack(data[: STATS_HEADER.size])
    words = [f"OK {flags} {name_size} {count} {id_offset} {desc_offset} {data_offset} {len(data)}"]
    for n in range(count):
        start = desc_offset + n * (STATS_DESC.size + name_size)
        fields = STATS_DESC.unpack(data[start : start + STATS_DESC.size])
        name = data[start + STATS_DESC.size : start + STATS_DESC.size + name_size]
        words.append(":".join([name.rstrip(b"\0").decode("ascii", "replace"), *map(str, fields)]))
    return " ".join(words)


@lru_cache(256)
def list_answer(count: int, array: bytes) -> str:
    """The answer to a list that was written: the ids that the array has behind the count."""
    ids = struct.iter_unpack(COUNT.format, array[COUNT.size :])
    return " ".join([f"OK {count}", *(f"{id:x}" for (id,) in ids)])


def masks_answer(table: bytes) -> str:
    """The answer to ``masks``: the registers with a mask that is not zero."""
    masks = struct.iter_unpack(COUNT.format, table)
    return " ".join(["OK", *(f"{_mask_id(place):x}={mask:x}" for place, (mask,) in enumerate(masks) if mask)])


def _mask_id(place: int) -> int:
    """The register whose mask has a place in the table: op1 of 0, 1 or 3, CRm and op2."""
    return int(uapi.ARM64_SYS_REG(3, MASK_OP1S[place >> 6], 0, place >> 3 & 7, place & 7))
