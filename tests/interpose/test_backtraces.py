# SPDX-License-Identifier: MIT
"""The server asks a client where an ioctl came from, and trusts nothing in what it sends."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpose.rawclient import RawClient, Reply
from kvmabi import uapi
from kvmabi.events import Event, EventLog, Origin
from kvmabi.interpose import backtraces
from kvmabi.interpose.backtraces import Backtraces, Callers, Trace, decode
from kvmabi.interpose.protocol import BACKTRACE, CALLED, IDENTITY, MOST_FRAMES, REPLY, REQUEST, Flag, Message
from kvmabi.interpose.server import Server

MASK = (1 << 64) - 1


def message(
    *addresses: int, thread: int = 1, count: int | None = None, kind: int = Message.BACKTRACE, name: bytes = b""
) -> bytes:
    """A backtrace, right unless ``count`` or ``kind`` is not."""
    start = BACKTRACE.pack(kind, thread, len(addresses) if count is None else count, 0, name)
    return start + struct.pack(f"={len(addresses)}Q", *addresses)


@pytest.fixture
def asked(log: EventLog) -> list[Origin]:
    """The origins of KVM_GET_API_VERSION; others are not asked for."""
    origins: list[Origin] = []

    def watch(event: Event) -> None:
        if event.what == "KVM_GET_API_VERSION":
            origins.append(event.ask_origin())

    log.watchers.append(watch)
    return origins


@pytest.fixture
def client(server: Server, asked: list[Origin], tmp_path: Path) -> Iterator[RawClient]:
    """A client that was asked for a backtrace, and has not sent it yet."""
    with RawClient(tmp_path) as connected:
        system = connected.open()
        assert connected.ioctl(system, uapi.KVM_GET_API_VERSION) == (12, 0, Flag.ORIGIN, None)
        yield connected
        os.close(system)
    assert server.failures == 0


def test_only_what_is_asked_for(server: Server, tmp_path: Path) -> None:
    """Without a watcher that asks, replies have no flag."""
    with RawClient(tmp_path) as quiet:
        assert quiet.works()


def test_backtrace_fills_the_origin(client: RawClient, asked: list[Origin]) -> None:
    """Before it, only the process is known; afterwards its frames, and the client goes on as before."""
    assert [(origin.pid, origin.thread, origin.frames) for origin in asked] == [(os.getpid(), 0, ())]
    function = ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    assert function is not None
    client.sock.send(message(function + 1, 8, thread=threading.get_native_id()))
    assert client.receive() == (0, 0, 0, None)
    (origin,) = asked
    assert origin.thread == threading.get_native_id()
    assert "getpid+0x1 in " in origin.frames[0] or "getpid at " in origin.frames[0]
    assert origin.frames[1] == "0x8"
    vm = client.make(client.open(), uapi.KVM_CREATE_VM)
    os.close(vm)


def test_backtrace_with_the_request(client: RawClient, asked: list[Origin]) -> None:
    """A client that expects to be asked sends both at once: one reply, and the origin is that of this request."""
    client.sock.send(message())
    client.receive()
    reply = called(client, message(8, 16, thread=threading.get_native_id(), name=b"vcpu 0"))
    assert reply == (12, 0, 0, None)
    origin = asked[-1]
    assert (origin.pid, origin.thread, origin.thread_name) == (os.getpid(), threading.get_native_id(), "vcpu 0")
    assert origin.frames == ("0x8", "0x10")
    assert client.ioctl(client.open(), uapi.KVM_GET_API_VERSION).flags == Flag.ORIGIN


@pytest.mark.parametrize(
    ("kind", "data"),
    [(CALLED, b""), (CALLED, message(1)[:-1]), (CALLED, message(1) + b"\0"), (CALLED, bytes(100_000)), (0, message())],
)
def test_hostile_backtrace_with_the_request(client: RawClient, tmp_path: Path, kind: int, data: bytes) -> None:
    """What is not a backtrace, or is there unannounced, disconnects that client and no other."""
    client.sock.send(message())
    client.receive()
    client.sock.send(REQUEST.pack(Message.OPEN | kind, 0, bytes(16), 0) + data)
    assert client.is_dropped()
    with RawClient(tmp_path) as other:
        os.close(other.open())


def called(client: RawClient, backtrace: bytes) -> Reply:
    """KVM_GET_API_VERSION with a backtrace."""
    system = client.open()
    status = os.fstat(system)
    identity = IDENTITY.pack(status.st_dev, status.st_ino)
    client.sock.send(REQUEST.pack(Message.IOCTL | CALLED, uapi.KVM_GET_API_VERSION, identity, 0) + backtrace)
    os.close(system)
    return client.receive()


def test_no_frames(client: RawClient, asked: list[Origin]) -> None:
    """An unwinder that finds nothing is not an error."""
    client.sock.send(message())
    assert client.receive() == (0, 0, 0, None)
    assert asked[0].frames == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(BACKTRACE.size),
        message(kind=Message.BACKTRACE)[:-1],
        message(*range(MOST_FRAMES + 1)),
        message(1, 2, count=1),
        message(1, 2, count=3),
        message(1, count=MASK >> 32),
        message(1)[:-1],
        message(1) + b"\0",
        bytes(100_000),
        message(1, kind=Message.IOCTL),
        BACKTRACE.pack(Message.BACKTRACE, 1, 0, 1, b""),
        REQUEST.pack(Message.OPEN, 0, bytes(16), 0),
        REQUEST.pack(Message.BACKTRACE, 0, bytes(range(16)), 0),
    ],
)
def test_hostile_backtrace(client: RawClient, tmp_path: Path, data: bytes) -> None:
    """Too long, too short, a wrong count or another message: that client is disconnected, and no other."""
    client.sock.send(data)
    assert client.is_dropped()
    with RawClient(tmp_path, cookie=b"another's cookie") as other:
        assert other.open() >= 0


def test_backtrace_that_was_not_asked_for(server: Server, tmp_path: Path) -> None:
    """A client that sends one is disconnected."""
    for data in (message(1), message(1, 2)):
        with RawClient(tmp_path) as bad:
            bad.sock.send(data)
            assert bad.is_dropped()


@pytest.mark.parametrize("thread", [0, 1, (1 << 32) - 1])
def test_thread_of_another_process(client: RawClient, asked: list[Origin], thread: int) -> None:
    """A thread that the process does not have is not reported."""
    client.sock.send(message(thread=thread))
    assert client.receive() == (0, 0, 0, None)
    assert (asked[0].thread, asked[0].thread_name) == (0, "")


@pytest.mark.parametrize("address", [0, 1, 1 << 47, 1 << 63, MASK])
def test_any_address(client: RawClient, asked: list[Origin], address: int) -> None:
    """An address that is not in a file is shown as it is."""
    client.sock.send(message(address))
    assert client.receive() == (0, 0, 0, None)
    assert asked[0].frames == (f"{address:#x}",)


def test_many_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that invents addresses does not fill the server's memory; its origins stay as they were."""
    monkeypatch.setattr(backtraces, "MOST_KNOWN", 4)
    callers = Callers(os.getpid(), Backtraces(EventLog()))
    origins = [Origin() for _ in range(20)]
    for number, origin in enumerate(origins):
        callers.fill([origin], Trace(0, (number,)))
        assert len(callers._known) <= 4
    assert [origin.frames for origin in origins] == [(f"{number:#x}",) for number in range(20)]


def test_too_many_addresses() -> None:
    """Also where a message of that size would arrive whole."""
    assert decode(message(*range(MOST_FRAMES))) is not None
    assert decode(message(*range(MOST_FRAMES + 1))) is None


def test_client_that_leaves(client: RawClient, asked: list[Origin], tmp_path: Path) -> None:
    """Its origin has the process only."""
    client.sock.shutdown(socket.SHUT_RDWR)
    with RawClient(tmp_path, cookie=b"another's cookie") as other:
        assert other.open() >= 0
    assert (asked[0].pid, asked[0].frames) == (os.getpid(), ())


@given(st.lists(st.integers(0, MASK), max_size=MOST_FRAMES), st.integers(0, MASK >> 32))
def test_decodes_what_is_right(addresses: list[int], thread: int) -> None:
    assert decode(message(*addresses, thread=thread, name=b"vcpu")) == Trace(thread, tuple(addresses), "vcpu")


@given(st.binary(max_size=backtraces.MOST_BYTES + 8))
def test_decodes_nothing_else(data: bytes) -> None:
    """What is decoded says so itself: encoded again it is the same message."""
    trace = decode(data)
    name = BACKTRACE.unpack_from(data)[-1] if trace is not None else b""
    assert trace is None or message(*trace.addresses, thread=trace.thread, name=name) == data


def test_reply_size_is_unchanged() -> None:
    """The flag needs no room of its own."""
    assert REPLY.size == 24


def test_failure_is_reported(
    client: RawClient, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An error of kvmabi's own leaves the origin without frames, is counted, and the client is served."""

    def broken(_pid: int) -> list[backtraces.Mapping]:
        raise ZeroDivisionError

    monkeypatch.setattr(backtraces, "_file_mappings", broken)
    client.sock.send(message(1))
    assert client.receive() == (0, 0, 0, None)
    assert server.failures == 1
    assert "ZeroDivisionError" in capfd.readouterr().err
    server.failures = 0
