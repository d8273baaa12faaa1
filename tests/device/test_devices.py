# SPDX-License-Identifier: MIT
"""KVM_CREATE_DEVICE in this process: where a device's descriptor arrives, and what closing it leaves."""

from __future__ import annotations

import errno
import os
import struct

import pytest

import kvmabi
from kvmabi import uapi
from kvmabi.errors import KvmError

TYPE, LATER = uapi.KVM_DEV_TYPE_ARM_VGIC_V3, 0xDEAD


def create(kvm: kvmabi.Kvm, vm: int, kind: int = TYPE, flags: int = 0) -> int:
    """The descriptor that the struct holds afterwards."""
    argument = bytearray(struct.pack("=3I", kind, LATER, flags))
    assert kvm.ioctl(vm, uapi.KVM_CREATE_DEVICE, argument) == 0
    return struct.unpack("=3I", argument)[1]


def test_the_descriptor_comes_in_the_struct() -> None:
    """For bytes as argument in the copy that is the result; a test opens none."""
    with kvmabi.open() as kvm:
        vm = kvm.create_vm().fd
        assert create(kvm, vm, flags=uapi.KVM_CREATE_DEVICE_TEST) == LATER
        fd = create(kvm, vm)
        assert kvm.file(fd).kind == "device"
        changed = kvm.ioctl(vm, uapi.KVM_CREATE_DEVICE, struct.pack("=3I", uapi.KVM_DEV_TYPE_ARM_VGIC_ITS, 0, 0))
        assert isinstance(changed, bytes)
        assert kvm.file(struct.unpack("=3I", changed)[1]).kind == "device"


def test_a_device_closed_stays_the_vms() -> None:
    """The vGIC outlives its descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    with kvmabi.open() as kvm:
        vm = kvm.create_vm().fd
        kvm.close(create(kvm, vm))
        with pytest.raises(KvmError) as error:
            create(kvm, vm)
        assert error.value.errno == errno.EEXIST
    assert len(os.listdir("/proc/self/fd")) == before


def test_stolen_time_lies_in_a_memory_slot() -> None:
    """KVM_ARM_VCPU_PVTIME_IPA: aligned, in a slot, once."""
    with kvmabi.open() as kvm:
        vm = kvm.create_vm()
        vcpu = vm.create_vcpu(0)

        def set_ipa(value: int) -> int:
            place = uapi.ffi.new("__u64 *", value)
            arguments = 0, uapi.KVM_ARM_VCPU_PVTIME_CTRL, uapi.KVM_ARM_VCPU_PVTIME_IPA
            argument = struct.pack("=IIQQ", *arguments, int(uapi.ffi.cast("uintptr_t", place)))
            try:
                kvm.ioctl(vcpu.fd, uapi.KVM_SET_DEVICE_ATTR, bytearray(argument))
            except KvmError as error:
                return error.errno or 0
            return 0

        assert set_ipa(0x40000040) == errno.EINVAL
        slot = struct.pack("=IIQQQ", 0, 0, 0x40000000, 0x10000, 0x10000)
        kvm.ioctl(vm.fd, uapi.KVM_SET_USER_MEMORY_REGION, bytearray(slot))
        assert set_ipa(0x40000041) == errno.EINVAL
        assert set_ipa(0x40000040) == 0
        assert set_ipa(0x40000080) == errno.EEXIST
