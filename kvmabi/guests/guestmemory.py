# SPDX-License-Identifier: MIT
"""Guest-physical memory: the VMM's memory slots, with their dirty pages."""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi.guests.board import Board, GuestError, MemoryFault
from kvmabi.model.slots import PAGE_BYTES, READONLY, Slot

RING = "the dirty ring of a vCPU: pages that a guest writes are not pushed to it"
MOST_BYTES = 1 << 26
"""How much one read or write can have."""


class GuestMemory:
    """``cpu.memory``: bytes at guest-physical addresses, as slices or through ``read`` and ``write``.

    All of an access lies in slots; elsewhere there is no memory, and the way there is ``yield Mmio(…)``. Raises
    GuestError.
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def read(self, addr: int, size_bytes: int) -> bytes:
        """The bytes at a guest-physical address."""
        parts = []
        for slot, start, size in self._parts(addr, size_bytes):
            part = self._board.read_user(slot.user + start - slot.guest, size)
            if len(part) < size:
                raise MemoryFault
            parts.append(part)
        return b"".join(parts)

    def write(self, addr: int, data: bytes) -> None:
        """Write bytes to a guest-physical address; their pages become dirty."""
        view = bytes(data)
        parts = list(self._parts(addr, len(view)))
        for slot, start, _size in parts:
            if slot.flags & READONLY:
                raise GuestError(f"the memory at {start:#x} is read-only: yield Mmio({start:#x}, size, data) exits")
        for slot, start, size in parts:
            done = self._board.write_user(slot.user + start - slot.guest, view[start - addr : start - addr + size])
            self._mark(slot, start - slot.guest, done)
            if done < size:
                raise MemoryFault

    def is_memory(self, addr: int, size_bytes: int, *, write: bool) -> bool:
        """Whether an access of a few bytes is one to memory, not an exit."""
        slots = self._board.slots.find(addr), self._board.slots.find(addr + size_bytes - 1)
        return all(slot is not None and not (write and slot.flags & READONLY) for slot in slots)

    def __getitem__(self, place: slice) -> bytes:
        return self.read(*self._range(place))

    def __setitem__(self, place: slice, data: bytes) -> None:
        addr, size_bytes = self._range(place)
        if len(data) != size_bytes:
            raise GuestError(f"{len(data)} bytes do not fit into the {size_bytes} at {addr:#x}")
        self.write(addr, data)

    def _range(self, place: slice) -> tuple[int, int]:
        if not isinstance(place, slice) or place.start is None or place.stop is None or place.step is not None:
            raise GuestError("memory is read and written as memory[address:address + size]")
        return place.start, place.stop - place.start

    def _parts(self, addr: int, size_bytes: int) -> Iterator[tuple[Slot, int, int]]:
        """The slots that an access lies in, each with its first address and size there."""
        if not 0 <= size_bytes <= MOST_BYTES or addr < 0:
            raise GuestError(f"{size_bytes} bytes at {addr:#x} are not a part of guest memory")
        end = addr + size_bytes
        while addr < end:
            slot = self._board.slots.find(addr)
            if slot is None:
                raise GuestError(f"there is no memory at {addr:#x}: yield Mmio({addr:#x}, size) asks the VMM")
            size = min(end, slot.guest + slot.size) - addr
            yield slot, addr, size
            addr += size

    def _mark(self, slot: Slot, offset: int, size_bytes: int) -> None:
        if not size_bytes:
            return
        if self._board.slots.ring_only:
            self._board.unmodelled(RING)
        if slot.dirty is not None:
            for page in range(offset // PAGE_BYTES, (offset + size_bytes - 1) // PAGE_BYTES + 1):
                slot.dirty.mark(page)
