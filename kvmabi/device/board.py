# SPDX-License-Identifier: MIT
"""A VM as the guest of one of its vCPUs sees it (guests.board): memory, eventfds, the filter of its calls."""

from __future__ import annotations

from typing import Protocol

from kvmabi import uapi
from kvmabi.device.eventfds import EventFds
from kvmabi.device.file import Call
from kvmabi.model.eventfds import IoEventFds
from kvmabi.model.slots import Slots
from kvmabi.model.smcccfilter import SmcccFilter
from kvmabi.model.vgic import DIST_BYTES
from kvmabi.model.vm import Vm

ITS_BYTES = int(uapi.KVM_VGIC_V3_ITS_SIZE)


class HasDevices(Protocol):
    """A VM's file."""

    vm: Vm
    slots: Slots
    eventfds: EventFds
    ioeventfds: IoEventFds
    smccc_filter: SmcccFilter


class VmBoard:
    """The board of one vCPU. ``call`` is the KVM_RUN under way, in whose memory the guest has its own."""

    def __init__(self, file: HasDevices) -> None:
        self._file = file
        self.call: Call | None = None

    @property
    def vm(self) -> Vm:
        """See Board.vm."""
        return self._file.vm

    @property
    def slots(self) -> Slots:
        """See Board.slots."""
        return self._file.slots

    def read_user(self, addr: int, size_bytes: int) -> bytes:
        """See Board.read_user."""
        return self._running.memory.read(addr, size_bytes)

    def write_user(self, addr: int, data: bytes) -> int:
        """See Board.write_user."""
        return self._running.memory.write(addr, data)

    def signals(self, addr: int, size_bytes: int, value: int) -> bool:
        """See Board.signals."""
        eventfd = self._file.ioeventfds.find(addr, size_bytes, value)
        if eventfd is None:
            return False
        self._file.eventfds.signal(self._running.memory, eventfd)
        return True

    def is_frame(self, addr: int) -> bool:
        """See Board.is_frame."""
        vm = self._file.vm
        frames = [(its.base, ITS_BYTES) for its in vm.its]
        if vm.vgic is not None:
            frames.append((vm.vgic.dist, DIST_BYTES))
            frames += [(region.base, region.size_bytes(len(vm.vcpus))) for region in vm.vgic.regions]
        return any(base is not None and base <= addr < base + size for base, size in frames)

    def action(self, function: int) -> int:
        """See Board.action."""
        return self._file.smccc_filter.action(function)

    def unmodelled(self, what: str) -> None:
        """See Board.unmodelled."""
        self._running.unmodelled = what

    @property
    def _running(self) -> Call:
        assert self.call is not None
        return self.call
