# SPDX-License-Identifier: MIT
"""What a guest finds around its vCPU, and why it cannot go on; the device is the board."""

from __future__ import annotations

from typing import Protocol

from kvmabi.model.slots import Slots
from kvmabi.model.vm import Vm


class GuestError(Exception):
    """What a script does and a guest of this vCPU cannot: an UNDEFINED instruction, a register that it lacks."""


class MemoryFault(BaseException):
    """The VMM's memory behind a slot cannot be accessed: KVM_RUN fails with EFAULT. Not for a script to catch."""


class Board(Protocol):
    """The VM of a vCPU as its guest sees it, during KVM_RUN."""

    @property
    def vm(self) -> Vm:
        """The VM."""

    @property
    def slots(self) -> Slots:
        """Its memory slots."""

    def read_user(self, addr: int, size_bytes: int) -> bytes:
        """The VMM's memory, up to the first byte that cannot be read."""

    def write_user(self, addr: int, data: bytes) -> int:
        """Write to the VMM's memory; returns the number of bytes before the first that cannot be written."""

    def signals(self, addr: int, size_bytes: int, value: int) -> bool:
        """Signal the eventfd of a write, if one listens; returns whether one does."""

    def is_frame(self, addr: int) -> bool:
        """Whether an address belongs to a device in the kernel, such as the vGIC's distributor."""

    def action(self, function: int) -> int:
        """What the VMM's filter says of an SMCCC function: KVM_SMCCC_FILTER_*."""

    def unmodelled(self, what: str) -> None:
        """Note what a kernel does here and kvmabi does not."""
