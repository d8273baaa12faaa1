# SPDX-License-Identifier: MIT
"""What steps are done on: a port is a way to do ioctls, and a memory for what they read and write."""

from __future__ import annotations

from typing import Protocol


class StepMemory(Protocol):
    """Places for what ioctls read and write. Each is an address, or gives one.

    ``argument`` is for an ioctl's struct, ``payload`` for a register's bytes and ``array`` for a list of ids.
    """

    argument: int
    payload: int
    array: int

    def poke(self, addr: int, data: bytes) -> None:
        """Put data at the beginning of a place, and zeroes behind it to the place's end."""

    def peek(self, addr: int, size: int) -> bytes:
        """``size`` bytes from the beginning of a place."""

    def edge(self, size: int) -> int:
        """The address of a place of ``size`` bytes, at most EDGE_BYTES, behind which nothing is mapped."""


class Port(Protocol):
    """An open /dev/kvm."""

    @property
    def kvm(self) -> int:
        """The descriptor of /dev/kvm."""

    @property
    def memory(self) -> StepMemory:
        """What ioctls read and write."""

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """Do an ioctl: a result that is not negative, or the errno with a minus."""

    def immediate_exit(self, fd: int) -> int:
        """Set kvm_run.immediate_exit of a vCPU: 0, or the errno with a minus."""

    def close(self, fd: int) -> None:
        """Close a descriptor that an ioctl opened."""

    def shut(self) -> None:
        """Close ``kvm``, and everything else that is open."""

    @property
    def reason(self) -> str:
        """Why the last ioctl that failed did, in words."""

    def cpu_features(self) -> str:
        """The CPU features that the host's kernel reports, in /proc/cpuinfo's words."""
