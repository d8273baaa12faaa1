# SPDX-License-Identifier: MIT
"""One client of the preloaded library: the connection of an address space. Its messages are not trusted."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable

from kvmabi.device.file import Refused, Wait
from kvmabi.errors import UsageError
from kvmabi.events import Origin
from kvmabi.interpose import backtraces
from kvmabi.interpose.backtraces import Backtraces, Callers, Trace
from kvmabi.interpose.files import OpenFiles
from kvmabi.interpose.protocol import CALLED, EVENTS, LATE_SHIFT, REPLY, REQUEST, VERSION, Flag, Message
from kvmabi.interpose.session import Answer, Delayed, NewFd, NotOurs, Session

CREDENTIALS = struct.Struct("=iII")
"""struct ucred: pid, uid, gid."""

OUT_OF_REACH = (
    "the memory of a program cannot be read at the addresses that it uses: run qemu-user without a guest base "
    "(-B, -R, QEMU_GUEST_BASE, QEMU_RESERVED_VA), or allow ptrace"
)

MOST_BYTES = REQUEST.size + backtraces.MOST_BYTES
_EXCESS = 1
"""Bytes received beyond the longest message, to recognise one that is too long."""

_ASK_ORIGIN = int(Flag.ORIGIN)


class Disconnect(Exception):
    """The client left or broke the protocol, so it gets no answer."""


def peer_credentials(sock: socket.socket) -> tuple[int, int]:
    """The pid and uid of the process at the other end, as they were when it connected."""
    pid, uid, _gid = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid


class Client:
    """A connected process. ``complain`` is called with internal errors of kvmabi."""

    def __init__(
        self,
        sock: socket.socket,
        pid: int,
        files: OpenFiles,
        traces: Backtraces,
        complain: Callable[[Exception], None],
    ) -> None:
        self._sock = sock
        self._log = traces.log
        self._callers = Callers(pid, traces)
        self._asked: tuple[Origin, ...] = ()
        self._pid = pid
        self._files = files
        self._complain = complain
        self._session: Session | None = None
        sock.setblocking(False)

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.closed = True
        self._sock.close()

    def serve(self) -> None:
        """Answer the message that was received. Raises Disconnect."""
        try:
            data = self._sock.recv(MOST_BYTES + _EXCESS)
        except BlockingIOError:
            return
        except OSError as error:
            raise Disconnect from error
        if self._asked:
            self._fill_asked(data)
            return
        if len(data) < REQUEST.size:
            raise Disconnect
        message, request, identity, argument = REQUEST.unpack_from(data)
        calls = None
        if message & CALLED:
            message &= ~CALLED
            calls = _decoded(data[REQUEST.size :])
        elif len(data) > REQUEST.size:
            raise Disconnect
        session = self._session
        if session is None:
            if message != Message.HELLO or request != VERSION:
                raise Disconnect
            session = Session(self._pid, identity, self._files, self._complain)
            if not session.reads(identity, argument):
                self._complain(UsageError(OUT_OF_REACH))
                raise Disconnect
            self._session = session
            return
        if message & EVENTS or self._files.others_share(session):
            self._files.backlog.collect()
        message &= ~EVENTS
        if message == Message.IOCTL:
            answer = session.ioctl(identity, request, argument)
            if self._log.asked:
                self._ask(calls)
            self._answer(answer)
        elif message == Message.RESUME:
            answer = session.resume(identity, interrupted=bool(argument))
            if self._log.asked:
                self._ask(calls)
            self._answer(answer)
        elif message == Message.OPEN:
            self._answer(session.open())
        elif message == Message.UNDO:
            self._answer(session.undo())
        elif message == Message.SHARE:
            self._answer(session.share(identity, self._callers))
        elif message == Message.MAP:
            self._answer(session.rows(identity))
        elif message in (Message.BEFORE, Message.AFTER) and self._files.real is not None:
            self._answer(session.report_real(self._files.real, Message(message), identity, request, argument))
        elif message == Message.DRAIN:
            self._files.backlog.record_all()
            self._answer(0)
        else:
            raise Disconnect

    def _ask(self, calls: Trace | None) -> None:
        """Watchers asked where the ioctl came from: ask the client, unless its message has ``calls``.

        Its process is all that is known until it replies.
        """
        asked = tuple(self._log.take_asked())
        for origin in asked:
            origin.fill(self._pid, 0, "", tuple)
        if calls is None:
            self._asked = asked
        else:
            self._fill(asked, calls)

    def _fill_asked(self, message: bytes) -> None:
        """The client's reply to ``_ask``. Raises Disconnect."""
        calls = _decoded(message)
        asked, self._asked = self._asked, ()
        self._fill(asked, calls)
        self._answer(0)

    def _fill(self, asked: tuple[Origin, ...], calls: Trace) -> None:
        try:
            self._callers.fill(asked, self._callers.checked(calls))
        except Exception as error:
            self._complain(error)

    def _answer(self, answer: Answer) -> None:
        """Encode and send. Raises Disconnect."""
        late = 0
        if isinstance(answer, Delayed):
            late = max(1, round(answer.seconds * 1000)) << LATE_SHIFT
            answer = answer.answer
        if isinstance(answer, NewFd):
            self._send_fd(answer, late)
            return
        try:
            reply = _encoded(answer, self._flags | late)
        except struct.error as error:  # a result that is not an int of C
            self._complain(error)
            reply = REPLY.pack(-1, errno.EIO, self._flags, 0, 0)
        self._send(reply)

    @property
    def _flags(self) -> int:
        """The flags of every reply."""
        return _ASK_ORIGIN if self._asked else 0

    def _send(self, reply: bytes) -> None:
        """Send without waiting: a client that does not drain its replies is disconnected. Raises Disconnect."""
        try:
            self._sock.send(reply, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise Disconnect from error

    def _send_fd(self, answer: NewFd, late: int) -> None:
        """Send a descriptor and close it, also on failure. Raises Disconnect."""
        flags = Flag.FD if answer.place is None else Flag.FD | Flag.STORE
        reply = REPLY.pack(0, 0, flags | self._flags | late, answer.place or 0, 0)
        try:
            socket.send_fds(self._sock, [reply], [answer.fd], socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise Disconnect from error
            self._send(REPLY.pack(-1, errno.EMFILE, self._flags, 0, 0))  # too many descriptors in flight
        finally:
            os.close(answer.fd)


def _decoded(message: bytes) -> Trace:
    """A message as a trace. Raises Disconnect."""
    trace = backtraces.decode(message)
    if trace is None:
        raise Disconnect
    return trace


def _encoded(answer: int | Refused | Wait | NotOurs, flags: int) -> bytes:
    """An answer without a descriptor as a reply (protocol.h), with ``flags`` and its own."""
    if isinstance(answer, int):
        return REPLY.pack(answer, 0, flags, 0, 0)
    if isinstance(answer, Refused):
        return REPLY.pack(-1, answer.errno, flags, 0, 0)
    if isinstance(answer, NotOurs):
        return REPLY.pack(-1, 0, flags | Flag.FOREIGN, 0, 0)
    if answer.sigmask is None:
        return REPLY.pack(-1, answer.then.errno, flags | Flag.WAIT, answer.again_ms, 0)
    mask = int.from_bytes(answer.sigmask, sys.byteorder)
    return REPLY.pack(-1, answer.then.errno, flags | Flag.WAIT | Flag.SIGMASK, answer.again_ms, mask)
