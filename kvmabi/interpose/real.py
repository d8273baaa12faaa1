# SPDX-License-Identifier: MIT
"""The ioctls of programs on the machine's own /dev/kvm, as the same events that an emulated one has.

The preloaded library asks before and after each ioctl (real.h), and this reads the program's memory. A kernel does not
say why it refuses something: an event has the errno and its usual text. Which file a descriptor is follows from the
ioctl that opened it; copies and inherited descriptors are found with kcmp(2).
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field

from kvmabi import detail, uapi
from kvmabi.detail import FD_BYTES, Access, Detail, Opened
from kvmabi.device import SystemFile, VcpuFile, VmFile
from kvmabi.device.file import MOST_CONTENTS_BYTES
from kvmabi.device.memory import ProcessMemory
from kvmabi.device.runpage import RUN_BYTES
from kvmabi.device.slots import REGION
from kvmabi.device.vcpu import COUNT, IMMEDIATE_EXIT
from kvmabi.device.vgic import ControlFile
from kvmabi.device.vm import CREATE_DEVICE, FOREIGN_MEMORY
from kvmabi.device.watched import WatchedMemory, identity_of
from kvmabi.errors import KvmError
from kvmabi.events import Event, EventLog, Kind
from kvmabi.interpose.processes import share_file
from kvmabi.interpose.realcopies import Asked, Copy, copies, listed
from kvmabi.model.refusal import Refusal

TABLES = {"system": SystemFile.table, "vm": VmFile.table, "vcpu": VcpuFile.table, "device": ControlFile.table}
MOST_BEGUN = 4096
"""How many ioctls are under way at most."""
SLOTS = frozenset({"KVM_SET_USER_MEMORY_REGION", "KVM_SET_USER_MEMORY_REGION2"})


@dataclass(eq=False)
class RealFile:
    """A KVM file of the machine's kernel. ``devices`` counts a VM's, ``slots`` are the sizes of its memory slots.

    ``owner`` is the address space that created a VM. ``link`` is what /proc says of its descriptor, once it was used.
    """

    kind: str
    vm: int | None = None
    vcpu: int | None = None
    device: int | None = None
    devices: int = 0
    slots: dict[int, int] = field(default_factory=dict)
    parent: RealFile | None = None
    owner: Hashable = None
    link: str = ""


@dataclass
class _Begun:
    """An ioctl that the kernel does."""

    name: str
    fd: int
    file: RealFile
    detail: Detail
    memory: WatchedMemory
    copies: list[Copy]


class RealKernel:
    """Makes events of what clients report. ``complain`` is called with internal errors of kvmabi."""

    def __init__(self, log: EventLog, complain: Callable[[Exception], None]) -> None:
        self._log = log
        self._complain = complain
        self._vms = 0
        self._files: dict[tuple[int, int], RealFile] = {}
        self._begun: dict[tuple[int, int], _Begun] = {}

    def before(self, memory: ProcessMemory, fd: int, thread: int, request: int, argument: int) -> None:
        """A thread is about to do an ioctl."""
        try:
            link = _link(memory.pid, fd)
            if link:
                file = self._file(memory.pid, fd, link)
                begun = self._begin(memory, fd, file, request, argument)
                if len(self._begun) >= MOST_BEGUN:  # threads that were killed, or that do not exist
                    self._begun.pop(next(iter(self._begun)))
                self._begun[memory.pid, thread] = begun
        except Exception as error:
            self._complain(error)

    def after(self, memory: ProcessMemory, result: int, thread: int) -> None:
        """The ioctl is done: its result, or the negative errno."""
        begun = self._begun.pop((memory.pid, thread), None)
        if begun is not None:
            try:
                self._end(begun, result)
            except Exception as error:
                self._complain(error)

    def _begin(self, memory: ProcessMemory, fd: int, file: RealFile, request: int, argument: int) -> _Begun:
        name = _name(file.kind, request)
        size_bytes = detail.size_of_argument(request)
        before = memory.read(argument, size_bytes) if size_bytes else b""
        found = Detail(request, argument, file.kind, file.device, before)
        watched = WatchedMemory(memory, found)
        asked = Asked(file.kind, argument, before, (file.parent or file).slots)
        begun = _Begun(name, fd, file, found, watched, copies(name, request, asked))
        if size_bytes and request >> detail.DIRECTION_SHIFT & detail.WRITES:
            watched.read(argument, size_bytes)
        for copy in begun.copies:
            if not copy.writes:
                watched.read(copy.address, copy.size_bytes)
        self._look_at_descriptors(begun)
        if name == "KVM_RUN" and not self._run_of(begun)[IMMEDIATE_EXIT]:
            log = self._log
            log.append(Event(log.count, Kind.RUN, Kind.RUN.value, file.vm, file.vcpu, "", 0))
        return begun

    def _end(self, begun: _Begun, result: int) -> None:
        found, file, memory = begun.detail, begun.file, begun.memory
        if file.kind == "system" and -result == errno.ENOTTY:
            return  # not a KVM file
        found.result = result if result >= 0 else None
        if found.size_bytes and found.request >> detail.DIRECTION_SHIFT & detail.READS:
            found.after = memory.peek(found.argument, found.size_bytes)
            if not found.request >> detail.DIRECTION_SHIFT & detail.WRITES:
                found.accesses.append(Access(found.argument, found.size_bytes, found.after, writes=True))
        if begun.name == "KVM_GET_REG_LIST" and len(found.after) == COUNT.size:
            begun.copies = listed(
                found.argument, COUNT.unpack(found.after)[0], with_ids=result >= 0 or -result == errno.EFAULT
            )
        for copy in begun.copies:
            if copy.writes and (result >= 0 or begun.name == "KVM_GET_REG_LIST"):
                done = memory.peek(copy.address, copy.size_bytes)
                found.accesses.append(Access(copy.address, copy.size_bytes, done, writes=True))
            elif copy.writes and -result == errno.EFAULT:
                mapped = memory.peek(copy.address, copy.size_bytes)
                found.accesses.append(Access(copy.address, copy.size_bytes, mapped, writes=True))
        if begun.name == "KVM_RUN":
            found.run = self._run_of(begun)
        if result >= 0:
            self._opened(begun, result)
        refusal = Refusal(-result, os.strerror(-result)) if result < 0 else None
        owner = (file.parent or file).owner
        if -result == errno.EIO and owner is not None and owner != memory.address_space:
            refusal = FOREIGN_MEMORY
        register, data = _register(begun)
        log = self._log
        log.count += 1
        event = Event(log.count, Kind.IOCTL, begun.name, file.vm, file.vcpu, "", 0, refusal, register, data)
        event.detail = found
        log.append(event)

    def _opened(self, begun: _Begun, result: int) -> None:
        """Note what an ioctl opened, and the sizes of slots. A struct that cannot be read says nothing."""
        found, file, pid = begun.detail, begun.file, begun.memory.pid
        if len(found.before) < found.size_bytes:
            return
        name = begun.name
        if name == "KVM_CREATE_VM":
            self._vms += 1
            self._files[pid, result] = RealFile("vm", self._vms, owner=begun.memory.address_space)
            found.opened = Opened("vm", self._vms)
        elif name == "KVM_CREATE_VCPU":
            self._files[pid, result] = RealFile("vcpu", file.vm, found.argument & 0xFFFFFFFF, parent=file)
            found.opened = Opened("vcpu", found.argument & 0xFFFFFFFF)
        elif name == "KVM_CREATE_DEVICE" and len(found.after) == CREATE_DEVICE.size:
            _kind, fd, flags = CREATE_DEVICE.unpack(found.after)
            if not flags & uapi.KVM_CREATE_DEVICE_TEST:
                self._files[pid, fd] = RealFile("device", file.vm, device=file.devices, parent=file)
                found.opened = Opened("device", file.devices)
                file.devices += 1
        elif name in ("KVM_GET_STATS_FD", "KVM_CREATE_GUEST_MEMFD"):
            found.opened = self._plain(begun, result)
        elif name in SLOTS:
            slot, _flags, _address, size_bytes, _user = REGION.unpack_from(found.before)
            file.slots[slot] = size_bytes

    def _plain(self, begun: _Begun, fd: int) -> Opened:
        try:
            copy = begun.memory.take_own(fd)
        except KvmError:
            return Opened("plain", -1)
        try:
            contents = os.pread(copy, MOST_CONTENTS_BYTES, 0) if begun.name == "KVM_GET_STATS_FD" else b""
            return Opened("plain", -1, identity_of(copy), contents)
        finally:
            os.close(copy)

    def _look_at_descriptors(self, begun: _Begun) -> None:
        before = begun.detail.before
        for place in detail.descriptor_places(begun.name, before):
            with suppress(KvmError):
                os.close(begun.memory.take_fd(int.from_bytes(before[place : place + FD_BYTES], "little")))

    def _run_of(self, begun: _Begun) -> bytes:
        """The vCPU's struct kvm_run, mapped for a moment; zeroes if it cannot be."""
        with suppress(KvmError, OSError, ValueError):
            copy = begun.memory.take_own(begun.fd)
            try:
                with mmap.mmap(copy, RUN_BYTES, mmap.MAP_SHARED, mmap.PROT_READ) as run:
                    return bytes(run[:RUN_BYTES])
            finally:
                os.close(copy)
        return bytes(RUN_BYTES)

    def _file(self, pid: int, fd: int, link: str) -> RealFile:
        """The file behind a descriptor of a process; /dev/kvm if it is none that an ioctl opened."""
        known = self._files.get((pid, fd))
        if known is not None and known.link in ("", link):
            known.link = link
            return known
        same = (
            file
            for (other, number), file in self._files.items()
            if (other, number) != (pid, fd) and share_file(pid, fd, other, number)
        )
        self._files[pid, fd] = next(same, None) or RealFile("system", link=link)
        return self._files[pid, fd]


def _register(begun: _Begun) -> tuple[int | None, bytes | None]:
    """The register that an ioctl is about, and its bytes."""
    found = begun.detail
    if begun.name not in ("KVM_GET_ONE_REG", "KVM_SET_ONE_REG") or len(found.before) < found.size_bytes:
        return None, None
    pointed = found.pointed
    data = pointed[-1].data if pointed and not pointed[-1].faulted else None
    return COUNT.unpack_from(found.before)[0], data


def _name(kind: str, request: int) -> str:
    """The name of an ioctl on a kind of file; a number if it is another kind's, or not one of KVM's."""
    if request in TABLES[kind]:
        return TABLES[kind][request][0]
    elsewhere = any(request in table for table in TABLES.values())
    return f"ioctl {request:#x}" if elsewhere else uapi.IOCTL_NAMES.get(request, f"ioctl {request:#x}")


def _link(pid: int, fd: int) -> str:
    """What /proc says of a descriptor: its text changes when the descriptor becomes another kind of file's."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""
