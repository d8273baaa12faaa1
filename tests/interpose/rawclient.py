# SPDX-License-Identifier: MIT
"""A client without the interposer: sends the messages that a test chooses."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.device import DeviceFile
from kvmabi.interpose.entrance import Entrance
from kvmabi.interpose.protocol import IDENTITY, REPLY, REQUEST, VERSION, Flag, Message
from kvmabi.interpose.server import Server

COOKIE = bytes(range(16))


class Reply(NamedTuple):
    result: int
    error: int
    flags: int
    fd: int | None


class RawClient:
    """A connection to the server in ``folder``. ``cookie`` None: sends no HELLO."""

    def __init__(self, folder: Path, *, cookie: bytes | None = COOKIE) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        self.sock.connect(str(folder / "socket"))
        self.cookie = ctypes.create_string_buffer(cookie or b"", 16)
        if cookie is not None:
            self.send(Message.HELLO, VERSION, cookie, address_of(self.cookie))

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.sock.close()

    def send(self, message: int, request: int = 0, identity: bytes = bytes(16), argument: int = 0) -> None:
        self.sock.send(REQUEST.pack(message, request, identity, argument))

    def receive(self) -> Reply:
        data, fds, _flags, _address = socket.recv_fds(self.sock, 100, 1)
        if not data:
            raise ConnectionError("the server hung up")
        result, error, flags, _place, _sigmask = REPLY.unpack(data)
        return Reply(result, error, flags, fds[0] if fds else None)

    def open(self) -> int:
        self.send(Message.OPEN)
        reply = self.receive()
        assert reply.flags == Flag.FD
        assert reply.fd is not None
        return reply.fd

    def ioctl(self, fd: int, request: int, argument: int = 0) -> Reply:
        status = os.fstat(fd)
        self.send(Message.IOCTL, request, IDENTITY.pack(status.st_dev, status.st_ino), argument)
        return self.receive()

    def make(self, fd: int, request: int, argument: int = 0) -> int:
        """An ioctl that opens another file: its fd."""
        reply = self.ioctl(fd, request, argument)
        assert reply.fd is not None
        return reply.fd

    def works(self) -> bool:
        """Whether the server answers this client as it should."""
        fd = self.open()
        try:
            return self.ioctl(fd, uapi.KVM_GET_API_VERSION) == (12, 0, 0, None)
        finally:
            os.close(fd)

    def is_dropped(self) -> bool:
        """Whether the server has hung up or does so now."""
        try:
            return self.sock.recv(100) == b""
        except ConnectionError:
            return True


@contextmanager
def serving(system: DeviceFile, folder: Path) -> Iterator[Server]:
    """A server on ``folder``/socket, served by a thread."""
    server = Entrance(folder / "socket", lambda: system).server()
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            server.step(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close()


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)
