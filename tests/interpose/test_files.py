# SPDX-License-Identifier: MIT
"""What clients close is released, neither earlier nor never."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from interpose.conftest import Start
from interpose.rawclient import RawClient
from kvmabi import uapi
from kvmabi.device import SystemFile, VcpuFile, VmFile
from kvmabi.events import Event, EventLog
from kvmabi.interpose import files
from kvmabi.interpose.protocol import Flag
from kvmabi.interpose.server import Server

SCRATCH_VMS = 2000
FEW = 100
"""More fds than a server that leaks none needs for a moment."""


def test_scratch_vms_leak_nothing(start: Start, log: EventLog) -> None:
    """2000 VMs with a vCPU each, closed in either order, leave the server with no more fds than before."""
    most = 0

    def count(event: Event) -> None:
        nonlocal most
        if event.what == "KVM_CREATE_VM" and log.count % 50 < 5:
            most = max(most, len(os.listdir("/proc/self/fd")))

    log.watchers.append(count)
    before = len(os.listdir("/proc/self/fd"))
    assert start("scratch", str(SCRATCH_VMS)) == (0, 0)
    assert before < most < before + FEW
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What kinds of file were released, in order."""
    kinds: list[str] = []

    def note(kind: type[VmFile | VcpuFile | SystemFile]) -> None:
        original = kind.release

        def release(self: VmFile | VcpuFile | SystemFile) -> None:
            kinds.append(self.kind)
            original(self)

        monkeypatch.setattr(kind, "release", release)

    for kind in (SystemFile, VmFile, VcpuFile):
        note(kind)
    return kinds


def until(kinds: list[str], expected: list[str]) -> None:
    """Wait until these kinds of file have been released."""
    deadline = time.monotonic() + 10
    while kinds != expected:
        assert time.monotonic() < deadline, kinds
        time.sleep(0.005)


@pytest.mark.usefixtures("server")
def test_released_with_the_last_copy(released: list[str], tmp_path: Path) -> None:
    """A VM lives until its fd, every copy of it, its vCPU's fd and the vCPU's mapping are gone."""
    with RawClient(tmp_path) as client:
        system = client.open()
        vm = client.make(system, uapi.KVM_CREATE_VM)
        vcpu = client.make(vm, uapi.KVM_CREATE_VCPU)
        mapping = mmap.mmap(vcpu, 8192)
        copy = os.dup(vm)
        for fd in (system, vm):
            os.close(fd)
        assert client.ioctl(copy, uapi.KVM_CHECK_EXTENSION).error == 0
        os.close(copy)
        assert client.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).error  # EFAULT: the vCPU is there
        os.close(vcpu)
        time.sleep(0.2)
        assert released == []
        mapping.close()
        until(released, ["vcpu", "vm", "vcpu"])  # the VM releases its vCPUs, too
        assert client.works()


@pytest.mark.usefixtures("server")
def test_vcpu_outlives_its_maker(released: list[str], tmp_path: Path) -> None:
    """A vCPU passed to another process keeps the VM when its maker is gone."""
    with RawClient(tmp_path) as maker:
        vm = maker.make(maker.open(), uapi.KVM_CREATE_VM)
        vcpu = maker.make(vm, uapi.KVM_CREATE_VCPU)
    os.close(vm)
    with RawClient(tmp_path) as client:
        time.sleep(0.2)
        assert client.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).flags == 0
        assert released == []
        os.close(vcpu)
        until(released, ["vcpu", "vm", "vcpu"])


@pytest.mark.usefixtures("server")
def test_where_leases_tell_nothing(released: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without leases a vCPU is closed when its VM is and its maker has left."""

    def refuse(_fd: int, _command: int, _argument: int) -> int:
        raise OSError(22, "no leases")

    monkeypatch.setattr(files.fcntl, "fcntl", refuse)
    with RawClient(tmp_path) as maker:
        system = maker.open()
        vm = maker.make(system, uapi.KVM_CREATE_VM)
        monkeypatch.undo()
        vcpu = maker.make(vm, uapi.KVM_CREATE_VCPU)
        monkeypatch.setattr(files.fcntl, "fcntl", refuse)
        os.close(vm)
        os.close(system)
        time.sleep(0.2)
        assert maker.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).flags == 0
    with RawClient(tmp_path) as client:
        deadline = time.monotonic() + 10
        while client.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).flags != Flag.FOREIGN:
            assert time.monotonic() < deadline
    os.close(vcpu)


def test_everything_is_released_at_the_end(server: Server, released: list[str], tmp_path: Path) -> None:
    """A server that is closed releases what clients still have open."""
    with RawClient(tmp_path) as client:
        vm = client.make(client.open(), uapi.KVM_CREATE_VM)
        client.make(vm, uapi.KVM_CREATE_VCPU)
        assert server.in_use
    assert released == []
