# SPDX-License-Identifier: MIT
"""A guest's memory through the slots of its VM, in the memory of the caller."""

from __future__ import annotations

from kvmabi.device.memory import Memory
from kvmabi.model.slots import READONLY, Slots


class MappedSlots:
    """The SlotMemory of a VM during an ioctl of a caller. Slots do not overlap, and an access can cross several."""

    def __init__(self, slots: Slots, memory: Memory) -> None:
        self._slots, self._memory = slots, memory

    def visible(self, address: int) -> bool:
        """See SlotMemory.visible."""
        return self._slots.holds(address)

    def read(self, address: int, size_bytes: int) -> bytes:
        """See SlotMemory.read."""
        data = b""
        for part in self._slots.parts(address, size_bytes):
            read = self._memory.read(part.user, part.size_bytes)
            data += read
            if len(read) < part.size_bytes:
                break
        return data

    def write(self, address: int, data: bytes) -> int:
        """See SlotMemory.write."""
        done = 0
        for part in self._slots.parts(address, len(data)):
            if part.slot.flags & READONLY:
                break
            written = self._memory.write(part.user, data[done : done + part.size_bytes])
            part.slot.written(part.address, written)
            done += written
            if written < part.size_bytes:
                break
        return done
