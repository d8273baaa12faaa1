# SPDX-License-Identifier: MIT
"""The fds that clients hold: which device file stands behind one, and when the last copy of it is closed.

A client may dup an fd, pass it on or inherit it; what stays is its inode, so that names it. System and VM
fds are sockets whose other end the server keeps: it hangs up with the last close. A vCPU's fd must be one
that can be mapped, so it is a file that the client has open by itself: nobody tells when it is closed, but
the kernel grants a write lease (fcntl(2), F_SETLEASE) only to the single opener of a file.
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
from kvmabi.interpose.protocol import IDENTITY


class Owner(Protocol):
    """Who made a file: the connection of a process."""

    closed: bool


@dataclass(eq=False, slots=True)
class OpenFile:
    """A system, VM or vCPU file that clients have open.

    ``end`` is the server's end of a socket, None for a vCPU. ``vcpus`` are those of a VM that are open.
    """

    device: DeviceFile
    identity: bytes
    owner: Owner
    end: socket.socket | None = None
    vcpus: list[OpenFile] = field(default_factory=list)


class OpenFiles:
    """All files that clients have open, by the identity of their inode. ``poll`` hears of hang-ups.

    ``system`` is the file behind /dev/kvm: all opens share it, and whoever made it releases it.
    ``complain`` is told what goes wrong in the device when something is released.
    """

    def __init__(self, system: DeviceFile, poll: select.epoll, complain: Callable[[Exception], None]) -> None:
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
        """There are VMs of which only vCPUs are open: nothing but `sweep` sees these closed."""
        return bool(self._leaving)

    def find(self, identity: bytes) -> OpenFile | None:
        """The file of this inode, None if it is none of ours."""
        return self._files.get(identity)

    def open_system(self, owner: Owner) -> int:
        """A new fd for /dev/kvm, to be closed here once it is sent. Errors: OSError, such as EMFILE."""
        return self._add_socket(self._system, owner)

    def add(self, device: DeviceFile, parent: OpenFile, owner: Owner) -> int:
        """A new fd for what an ioctl on ``parent`` made, to be closed here once it is sent. Errors: OSError."""
        if not isinstance(device, VcpuFile):
            return self._add_socket(device, owner)
        fd = _open_anew(device.run_fd)
        file = OpenFile(device, _identity(fd), owner)
        self._files[file.identity] = file
        parent.vcpus.append(file)
        return fd

    def undo(self, device: DeviceFile, parent: OpenFile) -> None:
        """Nobody got the fd of a vCPU that an ioctl on ``parent`` made; sockets tell of themselves."""
        for vcpu in parent.vcpus:
            if vcpu.device is device:
                parent.vcpus.remove(vcpu)
                self._files.pop(vcpu.identity, None)
                device.discard()
                return

    def has_end(self, fd: int) -> bool:
        """Whether ``fd`` is the server's end of a client's file."""
        return fd in self._ends

    def hang_up(self, fd: int) -> None:
        """The server's end ``fd`` hung up: nobody has the system or VM file behind it open any more."""
        file = self._ends.pop(fd)
        del self._files[file.identity]
        self._poll.unregister(fd)
        if file.end is not None:
            file.end.close()
        if file.device is not self._system:
            self._leaving.append(file)
            self.sweep()

    def sweep(self) -> None:
        """Release what nobody has open any more: as in the kernel, an open vCPU keeps its VM."""
        leaving = []
        for vm in self._leaving:
            vm.vcpus = [vcpu for vcpu in vm.vcpus if not self._is_closed(vcpu)]
            if vm.vcpus:
                leaving.append(vm)
            else:
                self._release(vm)
        self._leaving = leaving

    def close(self) -> None:
        """Release everything."""
        for fd in list(self._ends):
            self.hang_up(fd)
        for vm in self._leaving:
            self._release(vm)
        self._leaving.clear()
        self._files.clear()

    def _add_socket(self, device: DeviceFile, owner: Owner) -> int:
        ours, theirs = socket.socketpair()
        file = OpenFile(device, _identity(theirs.fileno()), owner, ours)
        self._poll.register(ours, 0)  # a hang-up is always told; what a client writes need not be
        self._files[file.identity] = file
        self._ends[ours.fileno()] = file
        return theirs.detach()

    def _is_closed(self, vcpu: OpenFile) -> bool:
        """Whether nobody has a vCPU open any more, which then is released."""
        if _is_open_elsewhere(vcpu):
            return False
        del self._files[vcpu.identity]
        self._release(vcpu)
        return True

    def _release(self, file: OpenFile) -> None:
        try:
            file.device.release()
        except Exception as error:
            self._complain(error)


def _identity(fd: int) -> bytes:
    status = os.fstat(fd)
    return IDENTITY.pack(status.st_dev, status.st_ino)


def _open_anew(fd: int) -> int:
    """Open the file behind an fd once more, which makes its openers countable."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


def _is_open_elsewhere(vcpu: OpenFile) -> bool:
    """Whether anybody has a vCPU's file open or mapped; where leases do not tell, its maker's life decides."""
    assert isinstance(vcpu.device, VcpuFile)
    try:
        probe = _open_anew(vcpu.device.run_fd)
    except OSError:  # no fd left: not known yet
        return True
    try:
        fcntl.fcntl(probe, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN or not vcpu.owner.closed
    finally:
        os.close(probe)
    return False
