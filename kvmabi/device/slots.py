# SPDX-License-Identifier: MIT
"""A VM's ioctls for memory: slots, their dirty pages, and guest_memfds."""

from __future__ import annotations

import os
from typing import ClassVar, Protocol

from kvmabi import uapi
from kvmabi.device import plainfiles
from kvmabi.device.file import Call, Handler, Outcome, PlainFile, unknown
from kvmabi.device.memory import Memory
from kvmabi.device.structs import layout
from kvmabi.errors import KvmError
from kvmabi.model import slots
from kvmabi.model.dirtypages import WORD_PAGES, bitmap_bytes
from kvmabi.model.slots import GUEST_MEMFD, LOG_DIRTY, READONLY, GuestMemfd, Limits, Region, Slots
from kvmabi.model.vm import Vm

REGION = layout("struct kvm_userspace_memory_region")
REGION2 = layout("struct kvm_userspace_memory_region2")
DIRTY_LOG = layout("struct kvm_dirty_log")
CLEAR_DIRTY_LOG = layout("struct kvm_clear_dirty_log")
CREATE_GUEST_MEMFD = layout("struct kvm_create_guest_memfd")
ZONE = layout("struct kvm_coalesced_mmio_zone")
POINTER = layout("__u64")
USER_BITS, WIDE_USER_BITS = 48, 52
MAX_MEMFD_BYTES = (1 << 63) - 1
Identity = tuple[int, int]


class HasSlots(Protocol):
    """A VM's file. ``memfds`` are its guest_memfds, by device and inode."""

    vm: Vm
    slots: Slots
    memfds: dict[Identity, GuestMemfd]
    unknown_errno: ClassVar[int]


def limits(vm: Vm, *, with_memfd: bool) -> Limits:
    """The limits of a VM's memory slots."""
    wide = vm.system.kernel.switches.wide_user_addresses and vm.system.host_shows("wide_addresses")
    offered = with_memfd and vm.system.check_extension(uapi.KVM_CAP_GUEST_MEMFD, on_vm=True)
    flags = LOG_DIRTY | READONLY | (GUEST_MEMFD if offered else 0)
    return Limits(flags, 1 << (WIDE_USER_BITS if wide else USER_BITS), 1 << vm.ipa_bits)


def _set_region(file: HasSlots, call: Call) -> int:
    region = Region(*REGION.unpack(call.read(call.arg, REGION.size)))
    return _put(file, call.memory, region, limits(file.vm, with_memfd=False), 0)


def _set_region2(file: HasSlots, call: Call) -> Outcome:
    if not file.vm.system.check_extension(uapi.KVM_CAP_USER_MEMORY2, on_vm=True):
        return unknown(file, call)
    fields = REGION2.unpack(call.read(call.arg, REGION2.size))
    region, memfd = Region(*fields[: len(Region._fields)]), fields[len(Region._fields)]
    return _put(file, call.memory, region, limits(file.vm, with_memfd=True), memfd)


def _put(file: HasSlots, memory: Memory, region: Region, bounds: Limits, memfd: int) -> int:
    file.slots.check(region, bounds)
    if not region.size:
        file.slots.remove(region.slot)
        return 0
    wanted = _find_memfd(file, memory, memfd) if region.flags & GUEST_MEMFD else None
    file.slots.set(region, bounds, wanted)
    return 0


def _find_memfd(file: HasSlots, memory: Memory, fd: int) -> GuestMemfd | KvmError | None:
    """The guest_memfd behind a caller's descriptor, None for another file, and the error where there is none."""
    try:
        copy = memory.take_fd(fd)
    except KvmError as error:
        return error
    try:
        status = os.fstat(copy)
        return file.memfds.get((status.st_dev, status.st_ino))
    finally:
        os.close(copy)


def _create_guest_memfd(file: HasSlots, call: Call) -> Outcome:
    check = file.vm.system.check_extension
    if not check(uapi.KVM_CAP_GUEST_MEMFD, on_vm=True):
        return unknown(file, call)
    size_bytes, flags = CREATE_GUEST_MEMFD.unpack(call.read(call.arg, CREATE_GUEST_MEMFD.size))[:2]
    if flags & ~check(uapi.KVM_CAP_GUEST_MEMFD_FLAGS, on_vm=True):
        raise slots.BAD_FLAGS.error()
    if not 0 < size_bytes <= MAX_MEMFD_BYTES or size_bytes % slots.PAGE_BYTES:
        raise slots.UNALIGNED.error()
    plain = plainfiles.memory("guest_memfd", size_bytes)
    status = os.fstat(plain.fd)
    mapped = bool(flags & uapi.GUEST_MEMFD_FLAG_MMAP)
    file.memfds[status.st_dev, status.st_ino] = GuestMemfd(size_bytes, can_be_mapped=mapped)
    return PlainFile(plain.fd)


def _get_dirty_log(file: HasSlots, call: Call) -> int:
    number, _padding, bitmap = DIRTY_LOG.unpack(call.read(call.arg, DIRTY_LOG.size))
    file.slots.check_log()
    dirty = file.slots.logged(number)
    (address,) = POINTER.unpack(bitmap)
    try:
        for offset, part in dirty.parts():
            call.write(address + offset, part)
    finally:
        if not file.slots.manual_clear:
            dirty.clear_all()
    return 0


def _clear_dirty_log(file: HasSlots, call: Call) -> int:
    number, pages, first_page, bitmap = CLEAR_DIRTY_LOG.unpack(call.read(call.arg, CLEAR_DIRTY_LOG.size))
    file.slots.check_log()
    if first_page % WORD_PAGES:
        raise slots.UNALIGNED_CLEAR.error()
    dirty = file.slots.logged(number)
    slots.check_clear(dirty, first_page, pages)
    bits = call.read(POINTER.unpack(bitmap)[0], bitmap_bytes(pages))
    if pages % WORD_PAGES:
        bits = (int.from_bytes(bits, "little") & (1 << pages) - 1).to_bytes(len(bits), "little")
    dirty.clear(first_page, bits)
    return 0


def _zone(_file: HasSlots, call: Call) -> int:
    """KVM_REGISTER_COALESCED_MMIO and its opposite: zones are ignored, so none is kept."""
    _addr, _size_bytes, port = ZONE.unpack(call.read(call.arg, ZONE.size))
    if int.from_bytes(port, "little") > 1:
        raise slots.BAD_FLAGS.error()
    return 0


IOCTLS: dict[int, tuple[str, Handler]] = {
    uapi.KVM_SET_USER_MEMORY_REGION: ("KVM_SET_USER_MEMORY_REGION", _set_region),
    uapi.KVM_SET_USER_MEMORY_REGION2: ("KVM_SET_USER_MEMORY_REGION2", _set_region2),
    uapi.KVM_CREATE_GUEST_MEMFD: ("KVM_CREATE_GUEST_MEMFD", _create_guest_memfd),
    uapi.KVM_GET_DIRTY_LOG: ("KVM_GET_DIRTY_LOG", _get_dirty_log),
    uapi.KVM_CLEAR_DIRTY_LOG: ("KVM_CLEAR_DIRTY_LOG", _clear_dirty_log),
    uapi.KVM_REGISTER_COALESCED_MMIO: ("KVM_REGISTER_COALESCED_MMIO", _zone),
    uapi.KVM_UNREGISTER_COALESCED_MMIO: ("KVM_UNREGISTER_COALESCED_MMIO", _zone),
}
