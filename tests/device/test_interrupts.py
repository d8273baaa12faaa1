# SPDX-License-Identifier: MIT
"""Eventfds of this process in KVM_IRQFD and KVM_IOEVENTFD: who they are, also after they were closed."""

from __future__ import annotations

import errno
import gc
import os
import resource
from collections.abc import Iterator

import pytest
from pages import Edge

import kvmabi
from kvmabi import Kvm, uapi
from kvmabi.errors import KvmError

VGIC, CTRL = uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL
DEASSIGN = uapi.KVM_IRQFD_FLAG_DEASSIGN
MANY = 4096


def vm_and_vgic(kvm: Kvm) -> tuple[int, int]:
    """The descriptors of a VM and of its vGIC, which is initialised."""
    vm = kvm.create_vm().fd
    device = uapi.ffi.new("struct kvm_create_device *", {"type": VGIC})
    kvm.ioctl(vm, uapi.KVM_CREATE_DEVICE, device)
    init = {"group": CTRL, "attr": uapi.KVM_DEV_ARM_VGIC_CTRL_INIT}
    kvm.ioctl(device.fd, uapi.KVM_SET_DEVICE_ATTR, uapi.ffi.new("struct kvm_device_attr *", init))
    return vm, device.fd


def with_vgic(kvm: Kvm) -> int:
    """The descriptor of a VM with a vGIC."""
    return vm_and_vgic(kvm)[0]


def irqfd(kvm: Kvm, vm: int, fd: int, gsi: int, flags: int = 0, resamplefd: int = 0) -> None:
    fields = {"fd": fd, "gsi": gsi, "flags": flags, "resamplefd": resamplefd}
    kvm.ioctl(vm, uapi.KVM_IRQFD, uapi.ffi.new("struct kvm_irqfd *", fields))


def ioeventfd(kvm: Kvm, vm: int, fd: int, **fields: int) -> None:
    kvm.ioctl(vm, uapi.KVM_IOEVENTFD, uapi.ffi.new("struct kvm_ioeventfd *", {"fd": fd, **fields}))


@pytest.fixture
def eventfd() -> Iterator[int]:
    fd = os.eventfd(0)
    yield fd
    os.close(fd)


def test_closing_an_eventfd_takes_its_irqfd_away(kvm: Kvm) -> None:
    """The next eventfd has the same descriptor and the same number in the kernel, and is another."""
    vm = with_vgic(kvm)
    fd = os.eventfd(0)
    irqfd(kvm, vm, fd, 32)
    os.close(fd)
    again = os.eventfd(0)
    assert again == fd
    irqfd(kvm, vm, again, 32)
    with pytest.raises(KvmError) as error:
        irqfd(kvm, vm, again, 33)
    assert error.value.errno == errno.EBUSY
    os.close(again)


def test_a_duplicate_is_the_same_eventfd(kvm: Kvm, eventfd: int) -> None:
    """EBUSY goes by what is open, not by the descriptor; closing one of two descriptors changes nothing."""
    vm = with_vgic(kvm)
    other = os.dup(eventfd)
    irqfd(kvm, vm, other, 32)
    os.close(other)
    with pytest.raises(KvmError) as error:
        irqfd(kvm, vm, eventfd, 33)
    assert error.value.errno == errno.EBUSY
    irqfd(kvm, vm, eventfd, 32, DEASSIGN)
    irqfd(kvm, vm, eventfd, 33)


@pytest.mark.parametrize(("kernel", "name"), [("linux-7.2", "EBUSY"), ("linux-6.12", "OK")])
def test_an_eventfd_in_two_vms(kernel: str, name: str, eventfd: int) -> None:
    """On present kernels an eventfd serves one VM; the VM's end frees it."""
    with kvmabi.open(host="no-sve-no-sme", kernel=kernel) as kvm:
        first, second = with_vgic(kvm), with_vgic(kvm)
        irqfd(kvm, first, eventfd, 32)
        answer = "OK"
        try:
            irqfd(kvm, second, eventfd, 32)
        except KvmError as error:
            answer = error.name
        assert answer == name


def test_a_vms_end_frees_its_eventfds(eventfd: int) -> None:
    """A VM that is closed has no irqfds, while the eventfd lives on."""
    with kvmabi.open(host="no-sve-no-sme") as kvm:
        vm, device = vm_and_vgic(kvm)
        irqfd(kvm, vm, eventfd, 32)
        kvm.close(device)
        kvm.close(vm)
        irqfd(kvm, with_vgic(kvm), eventfd, 32)


def test_many_irqfds_and_ioeventfds(kvm: Kvm) -> None:
    """4,096 of each, of one eventfd after the other; no descriptor is left over."""
    vm = with_vgic(kvm)
    fd = os.eventfd(0)
    irqfd(kvm, vm, fd, 0)
    irqfd(kvm, vm, fd, 0, DEASSIGN)
    os.close(fd)
    gc.collect()  # what earlier tests left open is not closed in between
    before = len(os.listdir("/proc/self/fd"))
    for number in range(MANY):
        fd = os.eventfd(0)
        irqfd(kvm, vm, fd, number)
        ioeventfd(kvm, vm, fd, addr=0x1000, len=4, datamatch=number, flags=uapi.KVM_IOEVENTFD_FLAG_DATAMATCH)
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("fd", [0xFFFFFFFF, 0x7FFFFFFF, 1 << 20])
def test_a_descriptor_that_is_not_open(kvm: Kvm, fd: int) -> None:
    """EBADF, for any number."""
    vm = with_vgic(kvm)
    for flags in (0, DEASSIGN):
        with pytest.raises(KvmError) as error:
            irqfd(kvm, vm, fd, 32, flags)
        assert error.value.errno == errno.EBADF


@pytest.mark.parametrize("ioctl", ["KVM_IRQFD", "KVM_IOEVENTFD"])
def test_a_vms_own_descriptor_is_not_an_eventfd(kvm: Kvm, ioctl: str) -> None:
    """EINVAL for /dev/kvm, a VM, and a file."""
    vm = with_vgic(kvm)
    with open(__file__, "rb") as file:
        for fd in (kvm.fd, vm, file.fileno()):
            argument = uapi.ffi.new(f"{uapi.IOCTL_ARGUMENTS[ioctl]} *", {"fd": fd})
            with pytest.raises(KvmError) as error:
                kvm.ioctl(vm, vars(uapi)[ioctl], argument)
            assert error.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("count", "expected"), [(MANY, errno.EFAULT), (MANY + 1, errno.EINVAL), (0xFFFFFFFF, errno.EINVAL)]
)
def test_a_table_of_routes_that_is_not_there(kvm: Kvm, edge: Edge, count: int, expected: int) -> None:
    """EFAULT for entries beyond the caller's memory; EINVAL for a count beyond 4096, before they are read."""
    vm = kvm.create_vm().fd
    with pytest.raises(KvmError) as error:
        kvm.ioctl(vm, uapi.KVM_SET_GSI_ROUTING, edge.put(count.to_bytes(8, "little")))
    assert error.value.errno == expected


def test_routes_are_replaced_whole_or_not_at_all(kvm: Kvm) -> None:
    """A bad route among good ones leaves the table as it was."""
    vm = kvm.create_vm()
    model = kvm.file(vm.fd).vm
    good = bytes([1, 0, 0, 0, 0, 0, 0, 0]) + (5).to_bytes(4, "little") + (1).to_bytes(4, "little") + bytes(40)
    kvm.ioctl(vm.fd, uapi.KVM_SET_GSI_ROUTING, bytearray(good))
    assert list(model.routes) == [5]
    bad = bytearray(bytes([2]) + good[1:] + (6).to_bytes(4, "little") + (9).to_bytes(4, "little") + bytes(40))
    with pytest.raises(KvmError):
        kvm.ioctl(vm.fd, uapi.KVM_SET_GSI_ROUTING, bad)
    assert list(model.routes) == [5]


def test_without_a_free_descriptor(kvm: Kvm, eventfd: int) -> None:
    """EMFILE, whichever descriptor is the one too many; afterwards all is as before."""
    vm = with_vgic(kvm)
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    top = os.dup(eventfd)
    os.close(top)
    for free in range(4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (top + free, hard))
        try:
            with pytest.raises(KvmError) as error:
                irqfd(kvm, vm, eventfd, 32)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert error.value.errno == errno.EMFILE
        if free < 3:
            assert len(os.listdir("/proc/self/fd")) == before
    irqfd(kvm, vm, eventfd, 32)
