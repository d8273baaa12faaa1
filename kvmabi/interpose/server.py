# SPDX-License-Identifier: MIT
"""The server: one thread that answers the requests of all clients in turn."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import sys
import time
from typing import Protocol

from kvmabi.device import DeviceFile
from kvmabi.errors import UsageError
from kvmabi.interpose.backtraces import Backtraces
from kvmabi.interpose.clients import Client, Disconnect, peer_credentials
from kvmabi.interpose.files import OpenFiles
from kvmabi.interpose.notified import Notified

SWEEP_SECONDS = 0.05
"""How often the vCPUs of closed VMs are checked: their close is not reported."""
LOOK_SECONDS = 0.05
"""How often the server looks for events that clients left, while none of them asks for anything."""
REST_SECONDS = 0.001
"""How long no client must have asked for anything before events are recorded."""
EVENTS_AT_ONCE = 16
"""How many are recorded before the server looks for requests again."""
SPIN_SECONDS = 60e-6
"""How long the server stays awake for the next request: being woken takes longer than answering."""


class Served(Protocol):
    """What is behind a descriptor that becomes readable."""

    def serve(self) -> None:
        """Answer what was received. Raises Disconnect when this is to be closed."""

    def close(self) -> None:
        """Release it."""


class Server:
    """Serves a device file to processes of the same user, which connect to ``listener``.

    ``poll`` reports the listener, and what else ends a step (entrance.py).

    ``failures`` counts errors of kvmabi itself, each printed on standard error; clients see them as EIO.
    """

    def __init__(self, listener: socket.socket, poll: select.epoll, system: DeviceFile) -> None:
        self.failures = 0
        self._said: set[str] = set()
        self._poll = poll
        self._spare: int | None = _spare_fd()
        self._next_sweep = 0.0
        self._clients: dict[int, Served] = {}
        self._notified: Notified | None = None
        self._files = OpenFiles(system, self._poll, self._complain)
        self._traces = Backtraces(system.log)
        self._listener = listener

    @property
    def in_use(self) -> bool:
        """A process is connected or has a file open."""
        return len(self._clients) > (self._notified is not None) or bool(self._files)

    def step(self, timeout: float | None = None) -> bool:
        """Wait until something happens, at most ``timeout`` seconds, and serve it; True if a watched fd ended it."""
        files = self._files
        if files.leaving:
            timeout = SWEEP_SECONDS if timeout is None else min(timeout, SWEEP_SECONDS)
            if time.monotonic() >= self._next_sweep:
                self._next_sweep = time.monotonic() + SWEEP_SECONDS
                files.record()
                files.sweep()
        if files.shares:
            timeout = LOOK_SECONDS if timeout is None else min(timeout, LOOK_SECONDS)
        watched = False
        notified = self._notified
        if notified is not None and notified.waits:
            notified.look()
            pause = notified.pause()
            timeout = pause if timeout is None or (pause is not None and pause < timeout) else timeout
        happened = self._wait(timeout)
        if not happened:
            files.backlog.collect()
        for fd, events in happened:
            client = self._clients.get(fd)
            if client is not None:
                self._serve(fd, client, events)
                continue
            files.record()
            if files.has_end(fd):
                files.hang_up(fd)
            elif fd == self._listener.fileno():
                self._accept()
            else:
                watched = True
        return watched

    def listen(self, listener: int) -> None:
        """Serve the processes under the filter of this seccomp listener as well."""
        self._notified = Notified(listener, self._files, self._traces, self._attach, self._complain)
        self._attach(listener, self._notified)

    def close(self) -> None:
        """Hang up on every client and release every file."""
        self._files.record()
        self._listener.close()
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        self._files.close()
        self._poll.close()
        if self._spare is not None:
            os.close(self._spare)

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """The events within ``timeout`` seconds: polled without sleep at first."""
        poll, backlog = self._poll.poll, self._files.backlog
        if self._notified is not None and not backlog:
            return poll(timeout)  # clients under a filter get this processor when the server sleeps
        happened = poll(0)
        if not happened and self._notified is None:
            end = time.monotonic() + SPIN_SECONDS
            while not happened and time.monotonic() < end:
                os.sched_yield()
                happened = poll(0)
        if backlog and not happened:
            happened = poll(REST_SECONDS)
            while backlog and not happened:
                backlog.record_some(EVENTS_AT_ONCE)
                happened = poll(0)
        return happened or poll(timeout)

    def _serve(self, fd: int, client: Served, events: int) -> None:
        try:
            if not events & select.EPOLLIN:  # nothing is left to be served
                raise Disconnect
            client.serve()
        except Disconnect:
            self._files.record()
            del self._clients[fd]
            client.close()

    def _attach(self, fd: int, client: Served) -> None:
        self._clients[fd] = client
        self._poll.register(fd, select.EPOLLIN)

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return
        pid, uid = peer_credentials(sock)
        if uid != os.geteuid() or not pid:
            sock.close()
            return
        self._attach(sock.fileno(), Client(sock, pid, self._files, self._traces, self._complain))

    def _turn_away(self) -> None:
        """Out of descriptors for another client: use the spare one to hang up, so that it does not block forever."""
        if self._spare is None:
            return
        os.close(self._spare)
        self._spare = None
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = _spare_fd()

    def _complain(self, error: Exception) -> None:
        """Report an error of kvmabi itself, or once a UsageError: what a client needs that this machine lacks."""
        self.failures += 1
        what = str(error)
        if not isinstance(error, UsageError):
            import traceback  # here: only an error of kvmabi itself needs it

            place = traceback.extract_tb(error.__traceback__)[-1]
            what = f"internal error: {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        elif what in self._said:
            return
        self._said.add(what)
        print(f"kvmabi: {what}".replace("\n", " "), file=sys.stderr, flush=True)


def _spare_fd() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
