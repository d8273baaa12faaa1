# SPDX-License-Identifier: MIT
"""What the copies of an ioctl say of its argument: where it faulted, and what stands behind its struct."""

from __future__ import annotations

from kvmabi import hexruns
from kvmabi.detail import FD_BYTES, Access, Detail
from kvmabi.steps.grammar import LONG_MASK
from kvmabi.steps.structs import COUNT

ADDRESS_MARK = "@p"


def faults(detail: Detail) -> bool:
    """Whether the struct itself cannot be read, or be written."""
    return len(detail.before) < detail.size_bytes


def mapped_bytes(detail: Detail, addr: int) -> int | None:
    """How many bytes from an address on could be copied, None if all."""
    ends = [access.end for access in detail.pointed if access.faulted]
    return max(0, min(ends) - addr) if ends else None


def slot_of(detail: Detail, address: int) -> int | None:
    """Where in the struct the address stands."""
    places = range(0, len(detail.before) - COUNT.size + 1, COUNT.size)
    found = (place for place in places if COUNT.unpack_from(detail.before, place)[0] & LONG_MASK == address & LONG_MASK)
    return next(found, None)


def around(accesses: list[Access], start: int) -> tuple[bytes, bytes]:
    """The bytes from an address on before and after copies from and to them; zeroes where nothing was read."""
    size_bytes = max(access.address + access.wanted for access in accesses) - start
    before, after = bytearray(size_bytes), bytearray(size_bytes)
    for access in accesses:
        place = access.address - start
        for memory in (after,) if access.writes else (before, after):
            memory[place : place + len(access.data)] = access.data
    return bytes(before), bytes(after)


def marked(data: bytes, marks: dict[int, str]) -> str:
    """Bytes with descriptors and the address as their marks."""
    text, done = "", 0
    for place in sorted(marks):
        text += hexruns.compress(data[done:place]) + marks[place]
        done = place + (COUNT.size if marks[place] == ADDRESS_MARK else FD_BYTES)
    return text + hexruns.compress(data[done:])
