# SPDX-License-Identifier: MIT
"""One client: the connection of an address space, whose every message may be a lie."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable

from kvmabi.device import DeviceFile, ProcessMemory, VcpuFile
from kvmabi.errors import KvmError
from kvmabi.interpose.files import OpenFile, OpenFiles
from kvmabi.interpose.protocol import REPLY, REQUEST, VERSION, Flag, Message

CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""

_FOREIGN = REPLY.pack(-1, 0, Flag.FOREIGN, 0, 0)
_EXCESS = 1
"""Bytes received beyond a request, so that a longer message is told from a right one."""


class Disconnect(Exception):
    """The client left or broke the protocol; there is nobody to answer."""


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """The pid and uid of the process at the other end, as they were when it connected."""
    pid, uid, _gid = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid


class Client:
    """A connected process. ``complain`` is told what went wrong in the device, which the client sees as EIO."""

    def __init__(self, sock: socket.socket, pid: int, files: OpenFiles, complain: Callable[[Exception], None]) -> None:
        self.closed = False
        self._sock = sock
        self._pid = pid
        self._files = files
        self._complain = complain
        self._memory: ProcessMemory | None = None
        self._sent: tuple[DeviceFile, OpenFile] | None = None
        sock.setblocking(False)

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self._sock.close()

    def serve(self) -> None:
        """Answer the message that has come. Raises Disconnect."""
        try:
            data = self._sock.recv(REQUEST.size + _EXCESS)
        except BlockingIOError:
            return
        except OSError as error:
            raise Disconnect from error
        if len(data) != REQUEST.size:
            raise Disconnect
        message, request, identity, argument = REQUEST.unpack(data)
        memory = self._memory
        if memory is None:
            if message != Message.HELLO or request != VERSION:
                raise Disconnect
            self._memory = ProcessMemory(self._pid, identity)
        elif message == Message.IOCTL:
            self._ioctl(identity, request, argument, memory)
        elif message == Message.OPEN:
            self._open()
        elif message == Message.UNDO:
            self._undo()
        else:
            raise Disconnect

    def _open(self) -> None:
        try:
            fd = self._files.open_system(self)
        except OSError as error:
            self._send(_refusal(error.errno or errno.EIO))
        else:
            self._send_fd(fd)

    def _undo(self) -> None:
        """The client had no room for the fd of the vCPU that it was sent last."""
        if self._sent is not None:
            self._files.undo(*self._sent)
            self._sent = None
        self._send(REPLY.pack(0, 0, 0, 0, 0))

    def _ioctl(self, identity: bytes, request: int, argument: int, memory: ProcessMemory) -> None:
        self._sent = None
        file = self._files.find(identity)
        if file is None:
            self._send(_FOREIGN)
            return
        answer = self._ask(file.device, request, argument, memory)
        if isinstance(answer, bytes):
            self._send(answer)
        else:
            self._hand_out(answer, file)

    def _ask(self, device: DeviceFile, request: int, argument: int, memory: ProcessMemory) -> bytes | DeviceFile:
        """What the device answers: a reply, or the file that it opened."""
        try:
            result = device.ioctl(request, argument, memory)
            return result if isinstance(result, DeviceFile) else REPLY.pack(result, 0, 0, 0, 0)
        except KvmError as error:
            return _wait(device) if error.waits else _refusal(error.errno or errno.EIO)
        except Exception as error:
            self._complain(error)
            return _refusal(errno.EIO)

    def _hand_out(self, device: DeviceFile, parent: OpenFile) -> None:
        """Answer with an fd for what an ioctl on ``parent`` made."""
        try:
            fd = self._files.add(device, parent, self)
        except OSError as error:
            device.discard()
            self._send(_refusal(error.errno or errno.EIO))
        else:
            self._sent = device, parent
            self._send_fd(fd, device.fd_place)

    def _send(self, reply: bytes) -> None:
        """Send without waiting: who has not read its last answers has no claim to another. Raises Disconnect."""
        try:
            self._sock.send(reply, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise Disconnect from error

    def _send_fd(self, fd: int, place: int | None = None) -> None:
        """Send an fd, closed here in any case; its number goes to ``place`` in the argument. Raises Disconnect."""
        flags = Flag.FD if place is None else Flag.FD | Flag.STORE
        try:
            socket.send_fds(self._sock, [REPLY.pack(0, 0, flags, place or 0, 0)], [fd], socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise Disconnect from error
            self._send(_refusal(errno.EMFILE))  # too many fds that somebody does not receive
        finally:
            os.close(fd)


def _refusal(error: int) -> bytes:
    return REPLY.pack(-1, error, 0, 0, 0)


def _wait(device: DeviceFile) -> bytes:
    """The answer to KVM_RUN: EINTR, once a signal has come."""
    mask = device.sigmask if isinstance(device, VcpuFile) else None
    if mask is None:
        return REPLY.pack(-1, errno.EINTR, Flag.WAIT, 0, 0)
    return REPLY.pack(-1, errno.EINTR, Flag.WAIT | Flag.SIGMASK, 0, int.from_bytes(mask, sys.byteorder))
