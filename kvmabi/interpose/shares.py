# SPDX-License-Identifier: MIT
"""The vCPUs whose registers clients get and set by themselves: what is published to them, and the events they leave.

docs/explanation/fast-path.md has the protocol, share.h the layout.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import Any

from kvmabi.device import DeviceFile, VcpuFile, VmFile
from kvmabi.device.vcpu import GET, SEALS, SET
from kvmabi.events import Event, EventLog, Kind
from kvmabi.interpose.backtraces import ADDRESS, Callers, Trace
from kvmabi.interpose.ring import Broken, Entry, Past, decode, plain_row
from kvmabi.interpose.rowfiles import RowFiles
from kvmabi.interpose.share import (
    EVENTS_AT,
    EVENTS_BYTES,
    FILE_BYTES,
    HEADER_AT,
    HEADER_BYTES,
    REGISTERS_AT,
    EventKind,
    Word,
)
from kvmabi.memfd import map_shared
from kvmabi.model.registermap import RegisterMap
from kvmabi.model.state import SIZE_BYTES
from kvmabi.model.vmstate import VmState
from kvmabi.uapi import ffi, libc

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
RINGS_KEPT = 8
"""With more vCPUs than that, the memory of events that were read is given back to the kernel."""
MAP, DRAINED, WANTED, WRITTEN = map(int, (Word.MAP, Word.DRAINED, Word.WANTED, Word.WRITTEN))
GOT, CALLS = int(EventKind.GOT), int(EventKind.CALLS)
NO_CALLS = Trace(0, ())


def place_registers(device: VcpuFile) -> None:
    """Give a new vCPU a file that has room for what is shared. Errors: OSError."""
    fd = os.memfd_create("kvm-vcpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, FILE_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        registers = map_shared(fd, REGISTERS_AT, SIZE_BYTES)
    except OSError:
        os.close(fd)
        raise
    device.use_file(fd, registers)


class Share:
    """A vCPU whose file a client has mapped. ``regmap`` is the register map that is published."""

    def __init__(self, device: VcpuFile, session: Hashable, callers: Callers) -> None:
        self.device = device
        self.session = session
        self.callers = callers
        self.calls = NO_CALLS
        self.regmap: RegisterMap | None = None
        self._header = map_shared(device.run_fd, HEADER_AT, HEADER_BYTES)
        self._ring = map_shared(device.run_fd, EVENTS_AT, EVENTS_BYTES)
        self.words: Any = ffi.cast("uint64_t *", ffi.from_buffer(self._header))
        self.drained = self.words[DRAINED] = self.words[WRITTEN]
        self.past = Past(device, self._ring, self.words, WRITTEN)

    def take(self) -> list[Entry]:
        """The events that were left since the last call. Raises Broken."""
        end = self.words[WRITTEN]
        entries = decode(self._ring, self.drained, end)
        self.drained = end
        return entries

    def give_back(self, start: int, *, memory: bool) -> None:
        """The client may write to the ring again where the events from ``start`` on were."""
        if memory:
            for first, last in _places(start, self.drained):
                libc.fallocate(
                    self.device.run_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, EVENTS_AT + first, last - first
                )
        self.words[DRAINED] = self.drained


class Shares:
    """All shared vCPUs of a server. ``complain`` is called with internal errors of kvmabi."""

    def __init__(self, log: EventLog, complain: Callable[[Exception], None]) -> None:
        self._log = log
        self._complain = complain
        self._rows = RowFiles()
        self._shares: dict[VcpuFile, Share] = {}
        self._of_vm: dict[VmState[Any], list[Share]] = {}
        self._published: dict[VmState[Any], int] = {}

    def __bool__(self) -> bool:
        return bool(self._shares)

    def open(self, device: VcpuFile, session: Hashable, callers: Callers) -> int:
        """Share a vCPU; returns a new descriptor of its file. Errors: OSError."""
        if device not in self._shares:
            share = Share(device, session, callers)
            share.words[WANTED] = not self._log.idle
            vm = device.vm.vm
            self._shares[device] = share
            self._of_vm.setdefault(vm, []).append(share)
            self._published.setdefault(vm, vm.remaps)
            vm.before_sharing = lambda: self._hold(vm)
            self._publish(share)
            if not self._log.idle:
                callers.remember()
        return os.dup(device.run_fd)

    def rows(self, device: VcpuFile) -> int | None:
        """A new descriptor of the rows of a shared vCPU in its mode; None if there are none. Errors: OSError."""
        share = self._shares.get(device)
        if share is None or share.regmap is None:
            return None
        fd = self._rows.open(share.regmap)
        self._publish(share)
        return fd

    def update(self, device: DeviceFile) -> None:
        """An ioctl on this file was done: publish the register maps that it changed."""
        vm = _vm_of(device)
        if vm is None or vm not in self._of_vm:
            return
        changes = vm.remaps - self._published[vm]
        if not changes:
            return
        self._published[vm] = vm.remaps
        share = self._shares.get(device) if isinstance(device, VcpuFile) else None
        if changes == 1 and share is not None and share.regmap is not share.device.vcpu.map:
            self._publish(share)
            return
        for each in self._of_vm[vm]:
            self._publish(each)

    def _publish(self, share: Share) -> None:
        vcpu = share.device.vcpu
        share.regmap = None if vcpu.vm.dead else vcpu.map
        share.words[MAP] = 0 if share.regmap is None else self._rows.number(share.regmap)

    def _hold(self, vm: VmState[Any]) -> None:
        """A register of all vCPUs is about to change: until `update`, clients ask the server."""
        shares = self._of_vm.get(vm, ())
        if len(shares) > 1:
            for share in shares:
                share.words[MAP] = 0
            vm.remaps += 2

    def remove(self, device: VcpuFile) -> None:
        """A vCPU was closed."""
        share = self._shares.pop(device, None)
        if share is None:
            return
        vm = device.vm.vm
        shares = self._of_vm[vm]
        shares.remove(share)
        if not shares:
            del self._of_vm[vm], self._published[vm]

    def close(self) -> None:
        """Forget everything."""
        self._shares.clear()
        self._of_vm.clear()
        self._rows.close()

    # --- events

    def drain_for(self, session: Hashable, *, left_events: bool) -> None:
        """Record the events that come before a message of a session, which says whether it has left any."""
        if left_events or any(share.session is not session for share in self._shares.values()):
            self.drain()

    def drain(self) -> None:
        """Record all events that clients left, in the order in which they happened."""
        taken: list[tuple[Share, int]] = []
        batch: list[tuple[int, Share, Entry]] = []
        for share in list(self._shares.values()):
            start = share.drained
            if share.words[WRITTEN] == start:
                continue
            try:
                batch += ((entry.nanoseconds, share, entry) for entry in share.take())
            except Broken:
                self._end(share)
                continue
            taken.append((share, start))
        if len(taken) > 1:
            batch.sort(key=itemgetter(0))
        for _, share, entry in batch:
            try:
                self._record(share, entry)
            except Exception as error:
                self._complain(error)
        for share, start in taken:
            share.give_back(start, memory=len(self._shares) > RINGS_KEPT)

    def _end(self, share: Share) -> None:
        """The client has broken the ring: its vCPU is answered by the server alone."""
        share.words[MAP] = 0
        self.remove(share.device)

    def _record(self, share: Share, entry: Entry) -> None:
        if entry.kind == CALLS:
            addresses = tuple(address for (address,) in ADDRESS.iter_unpack(entry.data[: len(entry.data) & ~7]))
            share.calls = Trace(entry.id & 0xFFFFFFFF, addresses)
            return
        device, log = share.device, self._log
        if plain_row(device, entry) is None:
            return
        got = entry.kind == GOT
        if not got:
            device.vcpu.generation += 1
        log.count += 1
        mode = device.mode
        event = Event(
            log.count,
            Kind.IOCTL,
            GET if got else SET,
            device.vm_number,
            device.vcpu_number,
            mode,
            mode.svcr,
            None,
            entry.id,
            entry.data,
            (),
            share.past,
        )
        event.seconds = entry.nanoseconds / 1e9
        share.past.position = entry.end
        log.append(event)
        if log.asked:
            share.callers.fill(log.take_asked(), share.calls)


def _vm_of(device: DeviceFile) -> VmState[Any] | None:
    """The VM that an ioctl on a file can change."""
    file = device if isinstance(device, VmFile) else getattr(device, "vm", None)
    return file.vm if isinstance(file, VmFile) else None


def _places(start: int, end: int) -> list[tuple[int, int]]:
    """The whole pages of the ring between two positions, as ranges of places."""
    page = os.sysconf("SC_PAGESIZE")
    start, end = -(-start // page) * page, end // page * page
    if start >= end:
        return []
    first, size = start % EVENTS_BYTES, end - start
    return [
        (first, min(first + size, EVENTS_BYTES)),
        *([(0, first + size - EVENTS_BYTES)] if first + size > EVENTS_BYTES else []),
    ]
