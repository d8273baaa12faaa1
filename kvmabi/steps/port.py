# SPDX-License-Identifier: MIT
"""A port does the ioctls of steps, and has the memory that they read and write."""

from __future__ import annotations

from typing import Protocol


class StepMemory(Protocol):
    """Buffers that ioctls read and write, by address.

    ``argument`` is for an ioctl's struct, ``payload`` for a register's bytes and ``array`` for a list of IDs. ``guest``
    is the address of GUEST_BYTES that memory slots can have.
    """

    argument: int
    payload: int
    array: int

    @property
    def guest(self) -> int:
        """The address of the memory for slots."""

    def poke(self, addr: int, data: bytes) -> None:
        """Write data to the beginning of a buffer, and zeroes to the rest of it."""

    def peek(self, addr: int, size: int) -> bytes:
        """Returns ``size`` bytes from the beginning of a buffer."""

    def edge(self, size: int) -> int:
        """Returns the address of a buffer of ``size`` bytes, at most EDGE_BYTES, followed by unmapped memory."""

    def write_guest(self, offset: int, data: bytes) -> None:
        """Write to the memory for slots, all of it inside."""

    def read_guest(self, offset: int, size: int) -> bytes:
        """Read the memory for slots, all of it inside."""

    def clear_guest(self) -> None:
        """Fill the memory for slots with zeroes."""


class Port(Protocol):
    """An open /dev/kvm."""

    @property
    def kvm(self) -> int:
        """The descriptor of /dev/kvm."""

    @property
    def memory(self) -> StepMemory:
        """The memory that ioctls read and write."""

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """Do an ioctl; returns its result, or the negative errno."""

    def immediate_exit(self, fd: int, value: bool) -> int:
        """Set or clear kvm_run.immediate_exit of a vCPU; returns 0, or the negative errno."""

    def enter(self, fd: int) -> int:
        """KVM_RUN, which a signal ends if nothing else does; returns its result, or the negative errno."""

    def descriptor(self, name: str) -> int:
        """The descriptor that a character stands for in an argument (grammar.argument_parts)."""

    def keep_guest_memfd(self, fd: int) -> None:
        """Keep a descriptor until the next one comes: it is the guest_memfd that was created last."""

    def contents(self, fd: int, most: int) -> bytes:
        """Read a file that an ioctl opened, at most so many bytes."""

    def close(self, fd: int) -> None:
        """Close a descriptor that an ioctl opened."""

    def shut(self) -> None:
        """Close ``kvm`` and everything else that is open."""

    @property
    def reason(self) -> str:
        """Why the last failed ioctl failed, in words."""

    def cpu_features(self) -> str:
        """The CPU features that the host's kernel reports, in /proc/cpuinfo's words."""
