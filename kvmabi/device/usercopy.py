# SPDX-License-Identifier: MIT
"""How far arm64's copy_from_user and copy_to_user get before a fault.

With FEAT_MOPS the kernel copies up to the last mapped byte. Without it, the kernel moves blocks: a block that
faults is lost as a whole, and a copy that has not moved anything tries a single byte.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi.device.memory import PAGE_BYTES, Memory

STORE = 8
PAIR = 16
UNROLLED = 64


class ExactBuffer:
    """A register's payload at an address, copied as by a kernel with MOPS (see kvmabi.model.row.Buffer)."""

    __slots__ = ("_addr", "_memory", "given", "taken")

    def __init__(self, memory: Memory, addr: int) -> None:
        self._memory = memory
        self._addr = addr
        self.taken: bytes | None = None
        self.given: bytes | None = None

    def take(self, size_bytes: int) -> bytes:
        """See Buffer.take."""
        self.taken = data = self._memory.read(self._addr, size_bytes)
        return data

    def put(self, data: bytes, valid_bytes: int) -> bool:
        """See Buffer.put."""
        self.given = data
        return self._memory.write(self._addr, data) == len(data)


class BlockBuffer(ExactBuffer):
    """The same, copied as by a kernel without MOPS."""

    __slots__ = ()

    def take(self, size_bytes: int) -> bytes:
        """See Buffer.take."""
        data = self._memory.read(self._addr, size_bytes)
        if len(data) < size_bytes:
            data = data[: from_user(self._addr, size_bytes, len(data))]
        self.taken = data
        return data

    def put(self, data: bytes, valid_bytes: int) -> bool:
        """See Buffer.put."""
        self.given = data
        return to_user(self._memory, self._addr, data, valid_bytes) == len(data)


def to_user(memory: Memory, addr: int, data: bytes, valid: int) -> int:
    """Write a register's ``valid`` bytes and the zeroes after them as a kernel without MOPS does.

    Returns the number of bytes written. A copy can stop only at a page boundary. The part after the boundary is
    written first, so nothing has to be undone. Source: the golden records of partial gets.
    """
    here, size = PAGE_BYTES - addr % PAGE_BYTES, len(data)
    if here >= size or not memory.write(addr, data[:1]):
        return memory.write(addr, data)
    if memory.write(addr + here, data[here:]) == size - here:
        return memory.write(addr, data[:here]) + size - here
    done = valid + (here - valid) // STORE * STORE if here >= valid else sum(_fitting(valid, here)) or 1
    return memory.write(addr, data[:done])


def _fitting(size: int, writable: int) -> Iterator[int]:
    """The stores of a copy of ``size`` bytes that fit into the first ``writable`` bytes."""
    done = 0
    for unit in (*(STORE,) * (size // STORE), *_tail(size % STORE, 0)):
        done += unit
        if done > writable:
            return
        yield unit


def from_user(addr: int, size: int, readable: int) -> int:
    """Returns how many of ``size`` bytes from ``addr`` are stored if only the first ``readable`` can be loaded."""
    stored = loaded = 0
    for load, store in _moves(addr, size):
        loaded += load
        if loaded > readable:
            break
        stored += store
    return stored or min(readable, 1)


def _moves(addr: int, size: int) -> Iterator[tuple[int, int]]:
    """The loads and stores of a copy in their order, in bytes: (load, 0), (0, store), or a load stored at once."""
    if size >= PAIR:
        lead = -addr % PAIR
        for unit in (1, 2, 4, 8):
            if lead & unit:
                yield unit, unit
        size -= lead
        while size >= 2 * UNROLLED:
            yield from _interlaced(size // UNROLLED)
            size %= UNROLLED
        if size >= UNROLLED:
            yield from ((PAIR, PAIR), (PAIR, 0), (PAIR, 0), (0, 2 * PAIR), (PAIR, PAIR))
            size -= UNROLLED
    yield from ((unit, unit) for unit in _tail(size, size & (UNROLLED - 1)))


def _interlaced(blocks: int) -> Iterator[tuple[int, int]]:
    """Blocks of 64 bytes: each is loaded while the one before is stored."""
    yield from ((PAIR, 0),) * 4
    for _ in range(4 * (blocks - 1)):
        yield 0, PAIR
        yield PAIR, 0
    yield from ((0, PAIR),) * 4


def _tail(size: int, rest: int) -> Iterator[int]:
    """The units that move the remaining bytes: 16 bytes at a time, then 8, 4, 2 and 1."""
    yield from (PAIR,) * (rest // PAIR)
    yield from (unit for unit in (8, 4, 2, 1) if size & unit)
