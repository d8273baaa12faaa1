# SPDX-License-Identifier: MIT
"""The server answers correct clients whatever broken ones do."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from interpose.rawclient import COOKIE, RawClient, serving
from kvmabi import uapi
from kvmabi.device import SystemFile
from kvmabi.events import EventLog
from kvmabi.interpose import clients
from kvmabi.interpose.protocol import REQUEST, VERSION, Flag, Message
from kvmabi.interpose.server import Server

FEW_FDS = 40
MAX_ANSWERS = 20_000


@pytest.fixture
def good(server: Server, tmp_path: Path) -> Iterator[RawClient]:
    """A client that must be served all the time."""
    with RawClient(tmp_path) as client:
        assert client.works()
        yield client
        assert client.works()
    assert server.failures == 0


def test_memory_of_the_client(good: RawClient) -> None:
    """Arguments are read from and results written to the client's memory; a bad address is EFAULT."""
    vm = good.make(good.open(), uapi.KVM_CREATE_VM)
    init = ctypes.create_string_buffer(uapi.ffi.sizeof("struct kvm_vcpu_init"))
    init[4] = b"\xff"
    assert good.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, ctypes.addressof(init)).result == 0
    assert init[4] == b"\0"
    for address in (0, 8, 1 << 63, (1 << 64) - 1):
        assert good.ioctl(vm, uapi.KVM_ARM_PREFERRED_TARGET, address).error == errno.EFAULT
    os.close(vm)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        bytes(REQUEST.size - 1),
        bytes(REQUEST.size + 1),
        bytes(100_000),
        REQUEST.pack(0, 0, bytes(16), 0),
        REQUEST.pack(max(Message) + 1, 0, bytes(16), 0),
        REQUEST.pack((1 << 32) - 1, 0, b"\xff" * 16, (1 << 64) - 1),
        REQUEST.pack(Message.HELLO, VERSION, COOKIE, 0),
    ],
)
def test_wrong_message(good: RawClient, tmp_path: Path, data: bytes) -> None:
    """A client that sends an invalid request, or a second greeting, is disconnected."""
    with RawClient(tmp_path) as bad:
        bad.sock.send(data)
        assert bad.is_dropped()


@pytest.mark.parametrize(
    ("message", "version"), [(Message.OPEN, 0), (Message.IOCTL, 0), (Message.HELLO, VERSION + 1), (Message.HELLO, 0)]
)
def test_wrong_greeting(good: RawClient, tmp_path: Path, message: Message, version: int) -> None:
    """A client that does not greet first, or has another version, is disconnected."""
    with RawClient(tmp_path, cookie=None) as bad:
        bad.send(message, version, COOKIE)
        assert bad.is_dropped()


@pytest.mark.parametrize("distance", [-1, 1 << 40])
def test_addresses_that_are_not_the_processs(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], distance: int
) -> None:
    """A client whose memory is elsewhere than it says is disconnected; one line says why, the run has failed."""
    cookie = ctypes.create_string_buffer(COOKIE, 16)
    for _ in range(2):
        with RawClient(tmp_path, cookie=None) as bad:
            bad.send(Message.HELLO, VERSION, COOKIE, ctypes.addressof(cookie) + distance)
            assert bad.is_dropped()
    assert server.failures == 2
    assert capfd.readouterr().err == f"kvmabi: {clients.OUT_OF_REACH}\n"


@pytest.mark.slow
def test_random_requests(good: RawClient, tmp_path: Path) -> None:
    """Random numbers and addresses on every kind of file are answered, without a failure of the server."""
    dice = random.Random(1)
    numbers = [*range(uapi.KVM_GET_API_VERSION, uapi.KVM_GET_API_VERSION + 256)]
    with RawClient(tmp_path, cookie=b"random" * 2 + b"bits") as bad:
        system = bad.open()
        vm = bad.make(system, uapi.KVM_CREATE_VM)
        vcpu = bad.make(vm, uapi.KVM_CREATE_VCPU)
        for _ in range(3000):
            number = dice.choice(
                [dice.getrandbits(32), dice.choice(numbers), uapi.KVM_GET_ONE_REG ^ 1 << dice.randrange(32)]
            )
            argument = dice.choice([0, 1, dice.getrandbits(64), dice.getrandbits(12)])
            reply = bad.ioctl(dice.choice([system, vm, vcpu]), number, argument)
            assert (reply.result >= 0) != (reply.error > 0)
            if reply.fd is not None:
                os.close(reply.fd)
        for fd in (system, vm, vcpu):
            os.close(fd)


def test_a_vcpu_without_room_for_its_fd_is_undone(good: RawClient) -> None:
    """The vCPU's ID is free again, once; older vCPUs are unaffected."""
    system = good.open()
    vm = good.make(system, uapi.KVM_CREATE_VM)
    vcpu = good.make(vm, uapi.KVM_CREATE_VCPU, 0)
    undone = good.make(vm, uapi.KVM_CREATE_VCPU, 1)
    for _ in range(2):
        good.send(Message.UNDO)
        assert good.receive().error == 0
    assert good.ioctl(undone, uapi.KVM_GET_MP_STATE, 0).flags == Flag.FOREIGN
    assert good.ioctl(vm, uapi.KVM_CREATE_VCPU, 0).error == errno.EEXIST
    again = good.make(vm, uapi.KVM_CREATE_VCPU, 1)
    assert good.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 0).error == errno.EFAULT
    for fd in (system, vm, vcpu, undone, again):
        os.close(fd)


def test_unknown_file(good: RawClient) -> None:
    """A file that the server never handed out is left to the kernel."""
    ends = socket.socketpair()
    with ends[0], ends[1]:
        assert good.ioctl(ends[0].fileno(), uapi.KVM_CREATE_VM).flags == Flag.FOREIGN
    good.send(Message.IOCTL, uapi.KVM_CREATE_VM, b"\xff" * 16)
    assert good.receive().flags == Flag.FOREIGN


def test_never_reads(good: RawClient, tmp_path: Path) -> None:
    """A client that reads no answers is disconnected when its queue is full; the server does not wait for it."""
    with RawClient(tmp_path) as bad:
        fd = bad.open()
        status = os.fstat(fd)
        dropped = False
        for _ in range(MAX_ANSWERS):
            try:
                bad.send(Message.IOCTL, uapi.KVM_GET_API_VERSION, _identity(status))
            except ConnectionError:
                dropped = True
                break
        assert dropped
        os.close(fd)


def test_leaves_amid_a_request(good: RawClient, tmp_path: Path) -> None:
    """Clients that go without waiting for their answers, fds among them, leave nothing behind."""
    before = _open_fds()
    for _ in range(200):
        with RawClient(tmp_path) as bad:
            bad.send(Message.OPEN)
            bad.send(Message.OPEN)
    assert good.works()
    assert _settles(before)


def test_sends_fds(good: RawClient, tmp_path: Path) -> None:
    """Fds that a client sends along do not stay open."""
    before = _open_fds()
    with RawClient(tmp_path) as bad:
        for _ in range(50):
            request = REQUEST.pack(Message.IOCTL, 0, bytes(16), 0)
            socket.send_fds(bad.sock, [request], [bad.sock.fileno()] * 20)
            assert bad.receive().flags == Flag.FOREIGN
        assert _settles(before + 2)


def test_resized_and_shut_down(good: RawClient, tmp_path: Path) -> None:
    """A vCPU's file cannot be cut short; a VM's socket that is shut down is a closed VM."""
    with RawClient(tmp_path, cookie=b"another process!") as bad:
        vm = bad.make(bad.open(), uapi.KVM_CREATE_VM)
        vcpu = bad.make(vm, uapi.KVM_CREATE_VCPU)
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):
                os.ftruncate(vcpu, size)
        os.write(vcpu, b"\xff" * 8192)
        assert bad.ioctl(vcpu, uapi.KVM_RUN).error
        vm_socket = socket.socket(fileno=vm)
        vm_socket.send(b"not for reading" * 100)
        vm_socket.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 10
        while bad.ioctl(vm, uapi.KVM_CHECK_EXTENSION).flags != Flag.FOREIGN:
            assert time.monotonic() < deadline
        vm_socket.close()
        os.close(vcpu)


def test_thousands_of_connections(system: SystemFile, tmp_path: Path) -> None:
    """At the limit of fds new clients are rejected at once, old ones are served, and new ones again later."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.enter_context(serving(system, tmp_path))
        first = stack.enter_context(RawClient(tmp_path))
        assert first.works()
        spare = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(FEW_FDS)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (_highest_fd() + 1, limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        taken = _all_free_fds()
        stack.callback(_close_all, taken[FEW_FDS // 2 :])
        _close_all(taken[: FEW_FDS // 2])
        for sock in spare:
            sock.settimeout(10)
            sock.connect(str(tmp_path / "socket"))
        assert sum(_hung_up(sock) for sock in spare) >= FEW_FDS // 4
        assert first.ioctl(first.sock.fileno(), uapi.KVM_CREATE_VM).flags == Flag.FOREIGN
        first.send(Message.OPEN)
        assert first.receive().error == errno.EMFILE
        for sock in spare:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with RawClient(tmp_path) as late:
            assert late.works()


def test_too_many_fds_under_way(good: RawClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel lets no more fds be sent, because others do not receive theirs, the answer is EMFILE."""

    def refuse(*_arguments: object) -> int:
        raise OSError(errno.ETOOMANYREFS, "too many references")

    with RawClient(tmp_path) as client, monkeypatch.context() as patch:
        patch.setattr(clients.socket, "send_fds", refuse)
        client.send(Message.OPEN)
        assert client.receive().error == errno.EMFILE


def test_failure_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """An error of kvmabi's own becomes EIO, one line on standard error, and is counted; serving goes on."""

    class Broken(SystemFile):
        def __init__(self) -> None:
            self.log = EventLog()

        def release(self) -> None:
            pass

        def ioctl(self, request: int, arg: int, memory: object) -> int:
            if request == uapi.KVM_GET_API_VERSION:
                return 12
            if request == uapi.KVM_CHECK_EXTENSION:
                return 1 << 40
            raise ZeroDivisionError("two\nlines")

    with serving(Broken(), tmp_path) as server, RawClient(tmp_path) as client:
        fd = client.open()
        assert client.ioctl(fd, uapi.KVM_CREATE_VM).error == errno.EIO
        assert client.ioctl(fd, uapi.KVM_CHECK_EXTENSION).error == errno.EIO
        assert client.works()
        assert server.failures == 2
        os.close(fd)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("kvmabi: internal error: ZeroDivisionError: two lines (")


def test_private_socket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of other users are disconnected, even if they reach the socket."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with RawClient(tmp_path, cookie=None) as stranger:
        assert stranger.is_dropped()


def _identity(status: os.stat_result) -> bytes:
    return status.st_dev.to_bytes(8, "little") + status.st_ino.to_bytes(8, "little")


def _hung_up(sock: socket.socket) -> bool:
    sock.settimeout(0.2)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def _highest_fd() -> int:
    return max(map(int, os.listdir("/proc/self/fd")))


def _all_free_fds() -> list[int]:
    """Take every fd that the limit leaves."""
    taken = [os.open("/dev/null", os.O_RDONLY)]
    with suppress(OSError):
        while True:
            taken.append(os.dup(taken[0]))
    return taken


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _settles(most: int) -> bool:
    deadline = time.monotonic() + 10
    while _open_fds() > most and time.monotonic() < deadline:
        time.sleep(0.01)
    return _open_fds() <= most
