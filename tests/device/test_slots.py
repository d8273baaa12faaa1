# SPDX-License-Identifier: MIT
"""Memory of a VM, as hostile callers ask for it: bitmaps that end, huge slots, a guest_memfd of another VM."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from pages import NOWHERE, PAGE, Edge

import kvmabi
from kvmabi import Kvm, uapi
from kvmabi.errors import KvmError

LOG = uapi.KVM_MEM_LOG_DIRTY_PAGES
MOST_SLOTS = 32767


def region(kvm: Kvm, vm: int, **fields: int) -> None:
    kvm.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION, uapi.ffi.new("struct kvm_userspace_memory_region *", fields))


def dirty_log(slot: int, address: int) -> Any:
    log = uapi.ffi.new("struct kvm_dirty_log *", {"slot": slot})
    log.padding2 = address
    return log


@pytest.fixture
def kvm73() -> Any:
    with kvmabi.open(host="neoverse-v1", kernel="linux-7.3") as opened:
        yield opened


def test_a_bitmap_that_ends_is_a_fault_and_clears_all_the_same(kvm: Kvm, edge: Edge) -> None:
    """As much as fits is written. The pages count as read: without manual protection a kernel clears them first."""
    vm = kvm.create_vm().fd
    cap = uapi.ffi.new("struct kvm_enable_cap *", {"cap": uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, "args": [3]})
    kvm.ioctl(vm, uapi.KVM_ENABLE_CAP, cap)
    pages = 8 * 2 * PAGE
    region(kvm, vm, memory_size=pages * PAGE, flags=LOG)
    cap.args[0] = 0
    kvm.ioctl(vm, uapi.KVM_ENABLE_CAP, cap)
    with pytest.raises(KvmError) as error:
        kvm.ioctl(vm, uapi.KVM_GET_DIRTY_LOG, dirty_log(0, edge.start))
    assert error.value.errno == errno.EFAULT
    bitmap = uapi.ffi.new("char[]", 2 * PAGE)
    kvm.ioctl(vm, uapi.KVM_GET_DIRTY_LOG, dirty_log(0, int(uapi.ffi.cast("uintptr_t", bitmap))))
    assert bytes(uapi.ffi.buffer(bitmap)) == bytes(2 * PAGE)


def test_a_huge_slot_takes_no_memory(kvm: Kvm) -> None:
    """2^28 pages that are logged: a bitmap is made only in parts, and a bad address ends it at once."""
    vm = kvm.create_vm().fd
    region(kvm, vm, memory_size=1 << 39, flags=LOG)
    with pytest.raises(KvmError) as error:
        kvm.ioctl(vm, uapi.KVM_GET_DIRTY_LOG, dirty_log(0, NOWHERE))
    assert error.value.errno == errno.EFAULT


def test_as_many_slots_as_there_can_be(kvm: Kvm) -> None:
    """In any order; the next number is EINVAL, an overlap EEXIST, and removal finds each."""
    vm = kvm.create_vm().fd
    order = [number * 7919 % MOST_SLOTS for number in range(MOST_SLOTS)]
    for number in order:
        region(kvm, vm, slot=number, memory_size=PAGE, guest_phys_addr=number * 2 * PAGE)
    for fields, expected in (
        ({"slot": MOST_SLOTS, "guest_phys_addr": PAGE}, errno.EINVAL),
        ({"slot": 5, "guest_phys_addr": 12 * PAGE}, errno.EEXIST),
    ):
        with pytest.raises(KvmError) as error:
            region(kvm, vm, memory_size=PAGE, **fields)
        assert error.value.errno == expected
    for number in order:
        region(kvm, vm, slot=number)


def test_a_guest_memfd_belongs_to_its_vm(kvm73: Kvm) -> None:
    """Another VM's is EINVAL, as any other file is."""
    first, second = kvm73.create_vm().fd, kvm73.create_vm().fd
    create = uapi.ffi.new("struct kvm_create_guest_memfd *", {"size": PAGE, "flags": uapi.GUEST_MEMFD_FLAG_MMAP})
    fd = kvm73.ioctl(first, uapi.KVM_CREATE_GUEST_MEMFD, create)
    assert isinstance(fd, int)
    fields = {"flags": uapi.KVM_MEM_GUEST_MEMFD, "memory_size": PAGE, "guest_memfd": fd}
    slot = uapi.ffi.new("struct kvm_userspace_memory_region2 *", fields)
    with pytest.raises(KvmError) as error:
        kvm73.ioctl(second, uapi.KVM_SET_USER_MEMORY_REGION2, slot)
    assert error.value.errno == errno.EINVAL
    kvm73.ioctl(first, uapi.KVM_SET_USER_MEMORY_REGION2, slot)
    os.close(fd)


def test_statistics_can_be_read_only(kvm: Kvm) -> None:
    """The id names process and vCPU; nobody can change the file, which has no ioctls."""
    vcpu = kvm.create_vm().create_vcpu(3)
    fd = kvm.ioctl(vcpu.fd, uapi.KVM_GET_STATS_FD)
    assert isinstance(fd, int)
    assert os.pread(fd, 48, 24).rstrip(b"\0") == f"kvm-{os.getpid()}/vcpu-3".encode()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(fd, 0)
    with pytest.raises(KvmError) as error:
        kvm.ioctl(fd, uapi.KVM_GET_API_VERSION)
    assert error.value.errno == errno.EBADF
    os.close(fd)


def test_what_is_not_modelled_says_so(kvm: Kvm) -> None:
    """An injected data abort succeeds, and a device that kernels have is refused: both events say why."""
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    vcpu.init()
    events = uapi.ffi.new("struct kvm_vcpu_events *")
    events.exception.ext_dabt_pending = 1
    kvm.ioctl(vcpu.fd, uapi.KVM_SET_VCPU_EVENTS, events)
    assert not kvm.log.events[-1].modelled
    assert kvm.log.events[-1].errno == 0
    device = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_VFIO})
    with pytest.raises(KvmError) as error:
        kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
    assert not error.value.modelled
    assert "kvmabi does not model this" in str(kvm.log.events[-1])
    device.type = 99
    with pytest.raises(KvmError) as error:
        kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
    assert error.value.modelled
