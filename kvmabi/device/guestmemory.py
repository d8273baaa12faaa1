# SPDX-License-Identifier: MIT
"""A guest's memory through the slots of its VM, in the memory of the caller."""

from __future__ import annotations

from kvmabi.device.memory import Memory
from kvmabi.model.slots import PAGE_BYTES, READONLY, Slots


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
        while len(data) < size_bytes:
            place = address + len(data)
            slot = self._slots.find(place)
            if slot is None:
                break
            wanted = min(size_bytes - len(data), slot.guest + slot.size - place)
            part = self._memory.read(slot.user + place - slot.guest, wanted)
            data += part
            if len(part) < wanted:
                break
        return data

    def write(self, address: int, data: bytes) -> int:
        """See SlotMemory.write."""
        done = 0
        while done < len(data):
            place = address + done
            slot = self._slots.find(place)
            if slot is None or slot.flags & READONLY:
                break
            offset = place - slot.guest
            part = data[done : done + slot.size - offset]
            written = self._memory.write(slot.user + offset, part)
            if slot.dirty is not None and written:
                for page in range(offset // PAGE_BYTES, (offset + written - 1) // PAGE_BYTES + 1):
                    slot.dirty.mark(page)
            done += written
            if written < len(part):
                break
        return done
