# SPDX-License-Identifier: MIT
"""``Kvm.ioctl`` takes what fcntl.ioctl takes, and its descriptors behave as descriptors do."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
from vmms import opened, vcpu_of

import kvmabi
from kvmabi import KvmError, UsageError, regid, uapi
from kvmabi.kvm import Vcpu
from kvmabi.profiles import load_host, load_kernel

X0 = regid.parse("x0")


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def limit(soft: int) -> Iterator[None]:
    """Another soft limit of open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def one_reg_forms(payload: Any) -> dict[str, Any]:
    """struct kvm_one_reg in every form that an argument may have."""
    address = int(uapi.ffi.cast("uintptr_t", payload))
    packed = struct.pack("=QQ", X0, address)
    struct_pointer = uapi.ffi.new("struct kvm_one_reg *", {"id": X0, "addr": address})
    return {
        "cffi pointer": struct_pointer,
        "void pointer": uapi.ffi.cast("void *", struct_pointer),
        "number": int(uapi.ffi.cast("uintptr_t", struct_pointer)),
        "bytearray": bytearray(packed),
        "bytes": packed,
        "memoryview": memoryview(bytearray(packed)),
        "cffi buffer": uapi.ffi.buffer(struct_pointer),
    }


@pytest.mark.parametrize("form", list(one_reg_forms(uapi.ffi.new("char[8]"))))
def test_argument_forms(form: str) -> None:
    """Pointers, numbers, writable buffers and bytes mean the same struct."""
    payload = uapi.ffi.new("char[8]")
    forms = one_reg_forms(payload)
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["x0"] = 0x1234
        kvm.ioctl(vcpu.fd, uapi.KVM_GET_ONE_REG, forms[form])
    assert bytes(uapi.ffi.buffer(payload)) == (0x1234).to_bytes(8, "little")


def test_bytes_are_answered_with_bytes() -> None:
    """As fcntl.ioctl: a buffer is changed in place, bytes come back changed."""
    with opened() as kvm:
        vm = kvm.create_vm()
        buffer = bytearray(32)
        assert kvm.ioctl(vm.fd, uapi.KVM_ARM_PREFERRED_TARGET, buffer) == 0
        assert kvm.ioctl(vm.fd, uapi.KVM_ARM_PREFERRED_TARGET, bytes(32)) == bytes(buffer)
        assert struct.unpack_from("=I", buffer) == (kvm.kernel.target,)


def test_file_object_and_dup_stand_for_the_descriptor() -> None:
    """Any object with a fileno works, and so does a duplicate of a descriptor."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        copy = os.dup(vcpu.fd)
        with os.fdopen(copy, "rb") as file:
            assert kvm.ioctl(file, uapi.KVM_GET_MP_STATE, bytearray(4)) == 0
            assert kvm.ioctl(copy, uapi.KVM_GET_MP_STATE, bytearray(4)) == 0


def test_descriptors_of_two_kvms_are_not_mixed_up() -> None:
    with opened() as one, opened() as other:
        with pytest.raises(KvmError, match="EBADF"):
            other.ioctl(one.fd, uapi.KVM_GET_API_VERSION)
        with pytest.raises(UsageError, match="is not a vCPU"):
            one.vcpu_model(one.fd)


def test_close_leaves_no_descriptor() -> None:
    """Neither handed-out ones nor kvmabi's own."""
    before = descriptors()
    with opened() as kvm:
        for _ in range(3):
            vm = kvm.create_vm()
            for index in range(4):
                vcpu_of(vm, index)
        kvm.close(vm.fd)
    assert descriptors() == before


def test_scratch_vms_leave_nothing() -> None:
    """A VM closed with its vCPUs gives everything back while the Kvm stays open, except memory for the next vCPU."""
    with opened() as kvm:

        def make_and_close() -> None:
            vm = kvm.create_vm()
            vcpu = vcpu_of(vm)
            vm.close()
            kvm.close(vcpu.fd)

        make_and_close()
        before = descriptors()
        for _ in range(20):
            make_and_close()
        assert descriptors() == before


def test_device_keeps_its_vm() -> None:
    """As in the kernel: a VM whose vGIC is open is not released when its own and its vCPU's descriptors are closed."""
    with opened("qemu-max") as kvm:
        vm = kvm.create_vm()
        vcpu = vm.create_vcpu(0)
        device = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_ARM_VGIC_V3})
        kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
        model = kvm.vcpu_model(vcpu.fd)
        vm.close()
        kvm.close(vcpu.fd)
        attr = uapi.ffi.new("struct kvm_device_attr *", {"group": uapi.KVM_DEV_ARM_VGIC_GRP_CTRL})
        assert kvm.ioctl(device.fd, uapi.KVM_HAS_DEVICE_ATTR, attr) == 0
        assert len(model.memory) > 0
        kvm.close(device.fd)
        with pytest.raises(ValueError, match="closed"):
            len(model.memory)


def test_close_twice_and_behind_the_back() -> None:
    """os.close by the user, and another file under the same number, are handled."""
    kvm = kvmabi.open()
    vm = kvm.create_vm()
    os.close(vm.fd)
    other = os.open("/dev/null", os.O_RDONLY)
    assert other == vm.fd
    kvm.close()
    kvm.close()
    assert os.read(other, 1) == b""
    os.close(other)
    with pytest.raises(KvmError, match="EBADF"):
        kvm.ioctl(kvm.fd, uapi.KVM_GET_API_VERSION)


def test_as_many_vcpus_as_the_kernel_takes() -> None:
    """512 vCPUs, each usable, each closed."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 4096:
        pytest.skip(f"512 vCPUs need more open files than the hard limit of {most}")
    before = descriptors()
    with limit(most), opened() as kvm:
        vm = kvm.create_vm()
        vcpus = [vm.create_vcpu(index) for index in range(kvm.kernel.max_vcpus)]
        for vcpu in vcpus[::100]:
            vcpu.init({"sve", "sme"})
            vcpu.finalize()
        assert vcpus[-1].fd >= 512
    assert descriptors() == before


def test_no_descriptor_left_is_emfile() -> None:
    """As from the kernel, and without a half-created vCPU: its ID can be used later."""
    with opened() as kvm:
        vm = kvm.create_vm()
        with limit(len(descriptors()) + 20):
            made: list[Vcpu] = []
            with pytest.raises(KvmError, match="EMFILE") as refused:
                made.extend(vm.create_vcpu(index) for index in range(100))
            assert "ulimit" in refused.value.hint
        vm.create_vcpu(len(made)).init({"sve"})


def test_open_takes_names_and_profiles() -> None:
    """Built-in names, loaded profiles, and what the host was recorded with by default."""
    host, kernel = load_host("sme-demo"), load_kernel("linux-7.3")
    with kvmabi.open(host=replace(host, name="mine"), kernel=kernel) as kvm:
        assert (kvm.host.name, kvm.kernel.name) == ("mine", "linux-7.3")
        with pytest.raises(UsageError, match="no vCPU feature 'sme'"):
            kvm.create_vm().create_vcpu(0).init({"sme"})
    with kvmabi.open() as kvm:
        assert kvm.kernel.name == host.kernel


@pytest.mark.parametrize(("option", "choices"), [("host", "sme-demo"), ("kernel", "sme-v12")])
def test_unknown_name_lists_the_choices(option: str, choices: str) -> None:
    with pytest.raises(UsageError, match=choices):
        kvmabi.open(**{option: "sme-dem"})


def test_public_names() -> None:
    """The package gives the names that it promises, and no others."""
    assert all(getattr(kvmabi, name) for name in kvmabi.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kvmabi.nothing


def test_ioctls_need_no_descriptor() -> None:
    """An ioctl that opens no file works where no descriptor is left, on any thread."""
    with opened() as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        other = kvm.create_vm().create_vcpu(0)
        lists: list[int] = []
        with limit(3):
            vcpu.init({"sve"})
            vcpu.finalize()
            reading = Thread(target=lambda: lists.append(len(vcpu.reg_list())))
            reading.start()
            reading.join()
        assert lists == [len(vcpu.reg_list())]
        other.init()


def test_a_vm_names_its_open_vcpus() -> None:
    """In the order of their numbers, without closed ones and those of other VMs."""
    with kvmabi.open() as kvm:
        vm, other = kvm.create_vm(), kvm.create_vm()
        last, first, closed = vm.create_vcpu(2), vm.create_vcpu(0), vm.create_vcpu(1)
        other.create_vcpu(0)
        kvm.close(closed.fd)
        assert [vcpu.fd for vcpu in vm.vcpus()] == [first.fd, last.fd]
