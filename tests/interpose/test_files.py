# SPDX-License-Identifier: MIT
"""Files that clients close are released, and not earlier."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from interpose.conftest import Start
from interpose.rawclient import RawClient, serving
from kvmabi import uapi
from kvmabi.device import DeviceFile, SystemFile, VcpuFile, VmFile, open_system
from kvmabi.device.its import ItsFile
from kvmabi.device.vgic import VgicFile
from kvmabi.events import Event, EventLog
from kvmabi.interpose import files
from kvmabi.interpose.protocol import Flag
from kvmabi.profiles import load_host, load_kernel

SCRATCH_VMS = 600
PATIENCE_SECONDS = 10
FEW = 100
"""More fds than a server that leaks none needs for a moment."""


@pytest.mark.slow
def test_scratch_vms_leak_nothing(start: Start, log: EventLog) -> None:
    """600 VMs with a vCPU each, closed in either order, leave the server with no more fds than before."""
    most = 0

    def count(event: Event) -> None:
        nonlocal most
        if event.what == "KVM_CREATE_VM" and log.count % 50 < 5:
            most = max(most, len(os.listdir("/proc/self/fd")))

    log.watchers.append(count)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    assert start("scratch", str(SCRATCH_VMS)) == (0, 0)
    assert before < most < before + FEW
    assert len(os.listdir("/proc/self/fd")) == before


KINDS = (SystemFile, VmFile, VcpuFile, VgicFile, ItsFile)


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What kinds of file were released, in order."""
    kinds: list[str] = []

    def note(kind: type[DeviceFile]) -> None:
        original = kind.release

        def release(self: DeviceFile) -> None:
            kinds.append(self.kind)
            original(self)

        monkeypatch.setattr(kind, "release", release)

    for kind in KINDS:
        note(kind)
    return kinds


def until(kinds: list[str], expected: list[str]) -> None:
    """Wait until these kinds of file, and nothing else, have been released."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing := Counter(expected) - Counter(kinds):
        assert time.monotonic() < deadline, f"{kinds} without {missing}"
        time.sleep(0.005)
    assert sorted(kinds) == sorted(expected)


def until_looked_at(released: list[str], folder: Path) -> None:
    """Wait until another VM that comes and goes is released: whatever was closed before it has been, too."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    expected = Counter(vm=released.count("vm") + 1, vcpu=1)
    with RawClient(folder, cookie=b"another process!") as other:
        system = other.open()
        vm = other.make(system, uapi.KVM_CREATE_VM)
        vcpu = other.make(vm, uapi.KVM_CREATE_VCPU)
        for fd in (system, vm, vcpu):
            os.close(fd)
    while expected - Counter(released):
        assert time.monotonic() < deadline, released
        time.sleep(0.005)
    for kind in ("vcpu", "vm"):
        released.remove(kind)


def create_device(client: RawClient, vm: int, kind: int) -> int:
    """KVM_CREATE_DEVICE: its fd."""
    device = uapi.ffi.new("struct kvm_create_device *", {"type": kind})
    return client.make(vm, uapi.KVM_CREATE_DEVICE, int(uapi.ffi.cast("uintptr_t", device)))


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
        until_looked_at(released, tmp_path)
        assert released == []
        mapping.close()
        until(released, ["vcpu", "vm"])
        assert client.works()


@pytest.mark.usefixtures("server")
def test_vcpu_before_its_vm(released: list[str], tmp_path: Path) -> None:
    """A vCPU whose fd is closed stays part of its VM, and both are released once."""
    with RawClient(tmp_path) as client:
        vm = client.make(client.open(), uapi.KVM_CREATE_VM)
        os.close(client.make(vm, uapi.KVM_CREATE_VCPU))
        assert client.ioctl(vm, uapi.KVM_CREATE_VCPU).error == errno.EEXIST
        os.close(vm)
        until(released, ["vcpu", "vm"])
        until_looked_at(released, tmp_path)
        assert released == ["vcpu", "vm"]


@pytest.mark.usefixtures("server")
def test_vcpu_outlives_its_creator(released: list[str], tmp_path: Path) -> None:
    """A vCPU passed to another process keeps the VM alive when its creator is gone."""
    with RawClient(tmp_path) as maker:
        vm = maker.make(maker.open(), uapi.KVM_CREATE_VM)
        vcpu = maker.make(vm, uapi.KVM_CREATE_VCPU)
    os.close(vm)
    with RawClient(tmp_path) as client:
        until_looked_at(released, tmp_path)
        assert client.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).flags == 0
        assert released == []
        os.close(vcpu)
        until(released, ["vcpu", "vm"])


@pytest.mark.parametrize("kind", [uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS])
def test_device_keeps_its_vm(released: list[str], log: EventLog, tmp_path: Path, kind: int) -> None:
    """A VM and its vCPU's memory stay while only a device's fd is open, which still answers."""
    system = open_system(load_host("qemu-max"), load_kernel("linux-7.3"), log)
    with serving(system, tmp_path), RawClient(tmp_path) as client:
        vm = client.make(client.open(), uapi.KVM_CREATE_VM)
        vcpu = client.make(vm, uapi.KVM_CREATE_VCPU)
        device = create_device(client, vm, kind)
        os.close(vm)
        os.close(vcpu)
        until_looked_at(released, tmp_path)
        assert "vm" not in released
        assert client.ioctl(device, uapi.KVM_HAS_DEVICE_ATTR, 8).error == errno.EFAULT  # the device is there
        os.close(device)
        until(released, ["vcpu", "device", "vm"])


@pytest.mark.usefixtures("server")
def test_where_leases_are_not_available(released: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a system without leases a vCPU is closed when its VM is closed and its creator has disconnected."""

    def refuse(_fd: int, _command: int, _argument: int) -> int:
        raise OSError(22, "no leases")

    with RawClient(tmp_path) as maker:
        system = maker.open()
        vm = maker.make(system, uapi.KVM_CREATE_VM)
        vcpu = maker.make(vm, uapi.KVM_CREATE_VCPU)
        monkeypatch.setattr(files.fcntl, "fcntl", refuse)
        os.close(vm)
        os.close(system)
        with RawClient(tmp_path) as other:
            os.close(other.make(other.open(), uapi.KVM_CREATE_VM))
        until(released, ["vm"])  # of the other one
        assert maker.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).flags == 0
    with RawClient(tmp_path) as client:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while client.ioctl(vcpu, uapi.KVM_GET_MP_STATE, 8).flags != Flag.FOREIGN:
            assert time.monotonic() < deadline
    os.close(vcpu)


def test_everything_is_released_at_the_end(released: list[str], system: SystemFile, tmp_path: Path) -> None:
    """A server that is closed releases what clients still have open, once."""
    with ExitStack() as stack:
        with serving(system, tmp_path) as server:
            client = stack.enter_context(RawClient(tmp_path))
            vm = client.make(client.open(), uapi.KVM_CREATE_VM)
            client.make(vm, uapi.KVM_CREATE_VCPU)
            assert server.in_use
            assert released == []
        assert sorted(released) == ["system", "vcpu", "vm"]
