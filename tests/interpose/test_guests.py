# SPDX-License-Identifier: MIT
"""Scripted guests under an unmodified VMM, through every transport. The program checks what it sees itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interpose.conftest import Start
from interpose.rawclient import RawClient, Reply, serving
from kvmabi import uapi
from kvmabi.device import SystemFile, open_system
from kvmabi.events import EventLog, Kind
from kvmabi.guests import Cpu, Mmio, Wfi, bound, cpu_on, system_off
from kvmabi.guests.scripts import Script
from kvmabi.interpose.protocol import IDENTITY, Flag, Message
from kvmabi.interpose.server import Server
from kvmabi.order import OrderChecker
from kvmabi.profiles import load_host, load_kernel

RAM, INDEX, RESULT, RAISE, KICK = 0x40000000, 0x9000000, 0x9000008, 0x9000010, 0x9000018
ENTRY = 0x8000


def two_vcpus(cpu: Cpu) -> Iterator[Any]:
    """The first switches the second on, polls memory for its answer, waits for an interrupt, and ends the system."""
    index = yield Mmio(INDEX)
    yield Mmio(RESULT, 1, index)
    if cpu.index == 0:
        assert (yield cpu_on(1, ENTRY, 77)) == 0
        while cpu.memory.read(RAM + 0x3000, 4) != b"done":
            yield
        yield Wfi()
        yield Mmio(RESULT, 1, 77)
        yield system_off()
    assert (cpu.pc, cpu.x[0]) == (ENTRY + 8, 77)
    for _ in range(3):
        yield Mmio(KICK, 4, 1)
    cpu.memory[RAM + 0x3000 : RAM + 0x3004] = b"done"
    yield Mmio(RAISE, 4, 0)
    yield Wfi()


def interrupted(cpu: Cpu) -> Iterator[Any]:
    """Goes on for ever, and lets others run."""
    while True:
        yield


def endless(cpu: Cpu) -> Iterator[Any]:
    """Never yields."""
    while True:
        pass
    yield


def shared_registers(cpu: Cpu) -> Iterator[Any]:
    """Streaming mode with ZA, what the VMM wrote to X0, and out of it."""
    cpu.msr("smcr_el1", 15)
    cpu.smstart()
    for n in range(1, 4):
        cpu.za[3] = bytes([n]) * cpu.svl
        assert cpu.x[0] == (10 * n - 5 if n > 1 else 0)
        cpu.x[0] = 10 * n
        yield Mmio(INDEX, 4, 0)
    cpu.smstop()
    yield Mmio(INDEX, 4, 0)


@pytest.fixture
def script(request: pytest.FixtureRequest) -> Script:
    """The guest that the test names."""
    return Script(request.param)


@pytest.fixture
def system(log: EventLog, script: Script) -> SystemFile:
    """The demo's host, with the guest on every vCPU."""
    return open_system(load_host("sme-demo"), load_kernel(load_host("sme-demo").kernel), log, script)


@pytest.fixture
def served(system: SystemFile, tmp_path: Path) -> Iterator[Server]:
    """A server in a thread."""
    with serving(system, tmp_path) as server:
        yield server


def with_guest(guest: Callable[[Cpu], Any]) -> pytest.MarkDecorator:
    """The test's guest."""
    return pytest.mark.parametrize("script", [guest], indirect=True, ids=[guest.__name__])


@with_guest(two_vcpus)
def test_two_vcpus(start: Start, script: Script, log: EventLog) -> None:
    """Threads that wait in KVM_RUN are woken by another vCPU's guest and by interrupts; each KVM_RUN is one event."""
    assert start("guests", "two_vcpus") == (0, 0)
    assert script.failures == []
    runs = [event for event in log.events if event.what == "KVM_RUN" and event.kind is Kind.IOCTL]
    assert len(runs) == 8
    assert [event.errno for event in runs if event.errno] == [4]


@with_guest(interrupted)
def test_a_signal_ends_a_guest_that_goes_on_for_ever(start: Start, script: Script) -> None:
    """EINTR, KVM_EXIT_INTR, again and again."""
    assert start("guests", "interrupted") == (0, 0)
    assert script.failures == []


@with_guest(endless)
def test_a_guest_that_never_yields_holds_nobody_up(
    start: Start, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its script fails, and the server goes on."""
    monkeypatch.setattr(bound, "MOST_LINES", 10_000)
    assert start("guests", "endless") == (0, 0)
    assert ["NeverYields" in line for line in script.failures] == [True]


@with_guest(shared_registers)
def test_what_a_guest_leaves_is_what_the_vmm_gets(start: Start, script: Script, log: EventLog) -> None:
    """Also where the preloaded library answers by itself; the order checker knows that the guest changed the state."""
    checker = OrderChecker()
    log.watchers.append(checker.watch)
    assert start("guests", "shared_registers") == (0, 0)
    assert script.failures == []
    assert checker.findings() == []


def resume(client: RawClient, fd: int, interrupted: int) -> Reply:
    """A RESUME, which only a client in KVM_RUN has a reason for."""
    status = os.fstat(fd)
    client.send(Message.RESUME, 0, IDENTITY.pack(status.st_dev, status.st_ino), interrupted)
    return client.receive()


@with_guest(interrupted)
def test_a_client_that_resumes_what_does_not_run_harms_nobody(served: Server, script: Script, tmp_path: Path) -> None:
    """Another kind of file, another client's vCPU, a vCPU that is not in KVM_RUN, or was left by another call."""
    with RawClient(tmp_path) as client, RawClient(tmp_path, cookie=bytes(range(16, 32))) as other:
        system = client.open()
        vm = client.make(system, uapi.KVM_CREATE_VM)
        vcpu = client.make(vm, uapi.KVM_CREATE_VCPU)
        init = uapi.ffi.new("struct kvm_vcpu_init *", {"target": 5})
        assert client.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, int(uapi.ffi.cast("uintptr_t", init))).result == 0
        for interrupted_ in (0, 1, (1 << 64) - 1):
            assert resume(client, system, interrupted_).flags == Flag.FOREIGN
            assert resume(client, vm, interrupted_).flags == Flag.FOREIGN
            assert resume(client, vcpu, interrupted_)[:2] == (-1, errno.EINTR)
            assert resume(other, vcpu, interrupted_)[:2] == (-1, errno.EIO)
        for _ in range(3):
            assert client.ioctl(vcpu, uapi.KVM_RUN).flags & Flag.WAIT
        assert resume(other, vcpu, 1)[:2] == (-1, errno.EIO)
        assert resume(client, vcpu, 0).flags & Flag.WAIT
        assert resume(client, vcpu, 1)[:3] == (-1, errno.EINTR, 0)
        assert resume(client, vcpu, 0)[:3] == (-1, errno.EINTR, 0)
        assert client.works()
        assert other.works()
        for fd in (vcpu, vm, system):
            os.close(fd)
    assert (served.failures, script.failures) == (0, [])
