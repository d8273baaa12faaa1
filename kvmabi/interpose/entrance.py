# SPDX-License-Identifier: MIT
"""The socket that the program's processes connect to. The server is made when the first of them does.

Most of kvmabi is imported only then: a program that never opens /dev/kvm, as many that a test suite runs, waits for
less than half of it, and one that does starts meanwhile.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmabi.device import DeviceFile
    from kvmabi.interpose.server import Server

BACKLOG = 256


class Entrance:
    """A socket at ``path``, and behind it the server of the device file that ``opened`` returns.

    ``opened`` is called once, before the first client is served.
    """

    def __init__(self, path: Path, opened: Callable[[], DeviceFile]) -> None:
        self._opened = opened
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(os.fspath(path))
        self._listener.listen(BACKLOG)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._server: Server | None = None

    @property
    def failures(self) -> int:
        """How many errors of kvmabi itself there were."""
        return 0 if self._server is None else self._server.failures

    @property
    def in_use(self) -> bool:
        """A process is connected or has a file open."""
        return self._server is not None and self._server.in_use

    def watch(self, fd: int) -> None:
        """Let `step` return when ``fd`` becomes readable."""
        self._poll.register(fd, select.EPOLLIN)

    def listen(self, listener: int) -> None:
        """Serve the processes under the filter of this seccomp listener as well."""
        self.server().listen(listener)

    def server(self) -> Server:
        """The server, which is made if it is not there yet."""
        if self._server is None:
            from kvmabi.interpose.server import Server

            self._server = Server(self._listener, self._poll, self._opened())
        return self._server

    def step(self, timeout: float | None = None) -> bool:
        """Wait until something happens, at most ``timeout`` seconds, and serve it; True if a watched fd ended it."""
        server = self._server
        if server is None:
            ready = [fd for fd, _events in self._poll.poll(timeout)]
            if self._listener.fileno() not in ready:
                return bool(ready)
            server = self.server()
        return server.step(timeout)

    def close(self) -> None:
        """Hang up on every client and release every file."""
        if self._server is None:
            self._listener.close()
            self._poll.close()
        else:
            self._server.close()
