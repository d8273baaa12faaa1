# SPDX-License-Identifier: MIT
"""A guest's memory as the kernel accesses it for a device: by guest-physical address, with a bound on the work."""

from __future__ import annotations

import errno
from typing import Protocol

from kvmabi.model.refusal import Refusal

MOST_BYTES = 64 << 20
"""How much of a guest's memory one ioctl reads. Tables of an ITS can chain much more, and a kernel walks all of it."""
MOST_STEPS = 1 << 18
"""How many table entries, interrupts or commands one ioctl looks at one by one."""
FAULT = Refusal(errno.EFAULT, "a table of the GIC is not in the guest's memory, or not in memory of the VMM")
TOO_MUCH = Refusal(
    errno.ENOMEM,
    f"tables of the GIC with more than {MOST_BYTES >> 20} MiB or {MOST_STEPS} entries",
    modelled=False,
)


class SlotMemory(Protocol):
    """The memory that a VM's slots have."""

    def visible(self, address: int) -> bool:
        """Whether a guest-physical address is in a slot."""

    def read(self, address: int, size_bytes: int) -> bytes:
        """The bytes from an address up to the first that cannot be read: fewer than asked for is a fault."""

    def write(self, address: int, data: bytes) -> int:
        """Write bytes, and mark their pages as dirty; returns how many could be written."""


class GuestMemory:
    """The memory of a guest during one ioctl."""

    def __init__(self, slots: SlotMemory) -> None:
        self._slots = slots
        self._bytes_left, self._steps_left = MOST_BYTES, MOST_STEPS
        self.visible = slots.visible

    def read(self, address: int, size_bytes: int) -> bytes:
        """``size_bytes`` at an address. Raises KvmError, EFAULT."""
        data = self.read_up_to(address, size_bytes)
        if len(data) < size_bytes:
            raise FAULT.error()
        return data

    def number(self, address: int) -> int:
        """The number of 64 bits at an address. Raises KvmError, EFAULT."""
        return int.from_bytes(self.read(address, 8), "little")

    def read_up_to(self, address: int, size_bytes: int) -> bytes:
        """The bytes from an address up to the first that cannot be read."""
        self._bytes_left -= size_bytes
        if self._bytes_left < 0:
            raise TOO_MUCH.error()
        return self._slots.read(address, size_bytes)

    def write(self, address: int, data: bytes) -> None:
        """Write bytes. Raises KvmError, EFAULT."""
        if self._slots.write(address, data) < len(data):
            raise FAULT.error()

    def put_number(self, address: int, value: int) -> None:
        """Write a number of 64 bits. Raises KvmError, EFAULT."""
        self.write(address, value.to_bytes(8, "little"))

    def step(self, count: int = 1) -> None:
        """Count what is looked at one by one; fails beyond the bound."""
        self._steps_left -= count
        if self._steps_left < 0:
            raise TOO_MUCH.error()
