# SPDX-License-Identifier: MIT
"""The descriptors that clients hold: which device file is behind one, and when the last copy of it is closed.

A client can dup a descriptor, pass it on or inherit it; the inode stays the same and identifies the file. The
descriptors of /dev/kvm, VMs and devices are sockets whose other end the server holds: it hangs up with the last close.
A vCPU's descriptor must be mappable, so it is a file opened for the client alone: its close is not reported, but the
kernel grants a write lease (fcntl(2), F_SETLEASE) only to the single opener of a file.

kvmabi.device.lifetime decides what a close ends, and what keeps a VM alive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kvmabi.device import DeviceFile, VcpuFile
from kvmabi.interpose.backlog import Backlog
from kvmabi.interpose.protocol import IDENTITY
from kvmabi.interpose.shares import Shares, place_registers


class Owner(Protocol):
    """The session that created a file."""

    closed: bool


@dataclass(eq=False, slots=True)
class OpenFile:
    """A file that clients have open.

    ``end`` is the server's end of a socket, None for a vCPU. ``vcpus`` are the vCPUs of a VM that are open.
    """

    device: DeviceFile
    identity: bytes
    owner: Owner
    end: socket.socket | None = None
    vcpus: list[OpenFile] = field(default_factory=list)


class OpenFiles:
    """All files that clients have open, by the identity of their inode. ``poll`` reports hang-ups.

    ``shares`` are the vCPUs that clients have mapped, ``backlog`` the events that are not recorded yet.

    ``system`` is the file behind /dev/kvm: all opens share it. ``complain`` is called with internal errors of kvmabi
    when a file is released.
    """

    def __init__(self, system: DeviceFile, poll: select.epoll, complain: Callable[[Exception], None]) -> None:
        self.shares = shares = Shares(system.log)
        self.backlog = Backlog(system.log, shares, lambda share: shares.remove(share.device), complain)
        self._system = system
        self._poll = poll
        self._complain = complain
        self._files: dict[bytes, OpenFile] = {}
        self._ends: dict[int, OpenFile] = {}
        self._leaving: list[OpenFile] = []

    def __len__(self) -> int:
        return len(self._files)

    @property
    def leaving(self) -> bool:
        """Some vCPUs are open after their VM's descriptor was closed; only `sweep` detects their close."""
        return bool(self._leaving)

    def find(self, identity: bytes) -> OpenFile | None:
        """The file of this inode, None if it is not one of these files."""
        return self._files.get(identity)

    def open_system(self, owner: Owner) -> int:
        """A new fd for /dev/kvm; the caller closes it. Errors: OSError, such as EMFILE."""
        return self._add_socket(self._system, owner)

    def add(self, device: DeviceFile, parent: OpenFile, owner: Owner) -> int:
        """A new fd for the file that an ioctl on ``parent`` opened; the caller closes it. Errors: OSError."""
        if not isinstance(device, VcpuFile):
            return self._add_socket(device, owner)
        if not device.has_dirty_ring:  # which has the place of what would be shared
            place_registers(device)
        fd = _open_anew(device.run_fd)
        file = OpenFile(device, _identity(fd), owner)
        self._files[file.identity] = file
        parent.vcpus.append(file)
        device.opened()
        return fd

    def others_share(self, owner: Owner) -> bool:
        """Whether other sessions than ``owner`` share vCPUs, so that they can have left events."""
        return self.shares.others(owner)

    def record(self) -> None:
        """Record what happened until now."""
        self.backlog.collect()
        self.backlog.record_all()

    def undo(self, device: DeviceFile, parent: OpenFile) -> None:
        """Undo KVM_CREATE_VCPU on ``parent``: the client did not get the descriptor. Sockets hang up by themselves."""
        for vcpu in parent.vcpus:
            if vcpu.device is device:
                parent.vcpus.remove(vcpu)
                self._files.pop(vcpu.identity, None)
                self._close(vcpu)
                device.discard()
                return

    def has_end(self, fd: int) -> bool:
        """Whether ``fd`` is the server's end of a client's file."""
        return fd in self._ends

    def hang_up(self, fd: int) -> None:
        """The server's end ``fd`` hung up: the last descriptor of the file behind it is closed."""
        file = self._ends.pop(fd)
        del self._files[file.identity]
        self._poll.unregister(fd)
        if file.end is not None:
            file.end.close()
        if file.device is not self._system:
            self._close(file)
            if file.vcpus:
                self._leaving.append(file)
                self.sweep()

    def sweep(self) -> None:
        """Close the vCPUs of closed VMs whose last descriptor and mapping are gone."""
        for vm in self._leaving:
            vm.vcpus = [vcpu for vcpu in vm.vcpus if not self._is_closed(vcpu)]
        self._leaving = [vm for vm in self._leaving if vm.vcpus]

    def close(self) -> None:
        """Close everything."""
        for fd in list(self._ends):
            self.hang_up(fd)
        for vm in self._leaving:
            for vcpu in vm.vcpus:
                self._close(vcpu)
        self._leaving.clear()
        self._files.clear()
        self.shares.close()
        self._system.release()

    def _add_socket(self, device: DeviceFile, owner: Owner) -> int:
        ours, theirs = socket.socketpair()
        file = OpenFile(device, _identity(theirs.fileno()), owner, ours)
        self._poll.register(ours, 0)  # hang-ups are always reported; what a client writes is ignored
        self._files[file.identity] = file
        self._ends[ours.fileno()] = file
        if device is not self._system:
            device.opened()
        return theirs.detach()

    def _is_closed(self, vcpu: OpenFile) -> bool:
        """Whether no process has the vCPU open any more; if so, closes it."""
        if _is_open_elsewhere(vcpu):
            return False
        del self._files[vcpu.identity]
        self._close(vcpu)
        return True

    def _close(self, file: OpenFile) -> None:
        try:
            if isinstance(file.device, VcpuFile):
                self.shares.remove(file.device)
            file.device.closed()
        except Exception as error:
            self._complain(error)


def _identity(fd: int) -> bytes:
    status = os.fstat(fd)
    return IDENTITY.pack(status.st_dev, status.st_ino)


def _open_anew(fd: int) -> int:
    """Open the file behind a descriptor once more, so that its openers can be counted."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


def _is_open_elsewhere(vcpu: OpenFile) -> bool:
    """Whether a process has a vCPU's file open or mapped; without leases, whether its creator is still connected."""
    assert isinstance(vcpu.device, VcpuFile)
    try:
        probe = _open_anew(vcpu.device.run_fd)
    except OSError:  # no fd left: unknown, so assume that it is open
        return True
    try:
        fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN or not vcpu.owner.closed
    finally:
        os.close(probe)
    return False
