# SPDX-License-Identifier: MIT
"""Guest-physical memory: the VMM's memory slots, with their dirty pages."""

from __future__ import annotations

from kvmabi.guests.board import Board, GuestError, MemoryFault
from kvmabi.model.slots import READONLY, Part

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
        pieces = []
        for part in self._parts(addr, size_bytes):
            piece = self._board.read_user(part.user, part.size_bytes)
            if len(piece) < part.size_bytes:
                raise MemoryFault
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, addr: int, data: bytes) -> None:
        """Write bytes to a guest-physical address; their pages become dirty."""
        view = bytes(data)
        parts = self._parts(addr, len(view))
        for part in parts:
            if part.slot.flags & READONLY:
                start = part.address
                raise GuestError(f"the memory at {start:#x} is read-only: yield Mmio({start:#x}, size, data) exits")
        for part in parts:
            start = part.address - addr
            done = self._board.write_user(part.user, view[start : start + part.size_bytes])
            if done and self._board.slots.ring_only:
                self._board.unmodelled(RING)
            part.slot.written(part.address, done)
            if done < part.size_bytes:
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

    def _parts(self, addr: int, size_bytes: int) -> list[Part]:
        """The parts of an access, which lies in slots altogether."""
        if not 0 <= size_bytes <= MOST_BYTES or addr < 0:
            raise GuestError(f"{size_bytes} bytes at {addr:#x} are not a part of guest memory")
        parts = list(self._board.slots.parts(addr, size_bytes))
        end = parts[-1].address + parts[-1].size_bytes if parts else addr
        if end < addr + size_bytes:
            raise GuestError(f"there is no memory at {end:#x}: yield Mmio({end:#x}, size) asks the VMM")
        return parts
