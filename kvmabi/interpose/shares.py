# SPDX-License-Identifier: MIT
"""The vCPUs whose registers clients get and set by themselves, and what is published to those clients.

docs/explanation/fast-path.md has the protocol, share.h the layout.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from typing import Any

from kvmabi import uapi
from kvmabi.device import DeviceFile, VcpuFile, VmFile
from kvmabi.device.vcpu import SEALS
from kvmabi.events import EventLog
from kvmabi.interpose.backtraces import Callers, Trace
from kvmabi.interpose.past import Stretch
from kvmabi.interpose.ring import pages
from kvmabi.interpose.rowfiles import RowFiles
from kvmabi.interpose.share import (
    EVENTS_AT,
    EVENTS_BYTES,
    FILE_BYTES,
    HEADER_AT,
    HEADER_BYTES,
    REGISTERS_AT,
    SETTLED_AT,
    SETTLED_BYTES,
    Wanted,
    Word,
)
from kvmabi.memfd import map_shared
from kvmabi.model.registermap import RegisterMap
from kvmabi.model.state import SIZE_BYTES
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vmstate import VmState
from kvmabi.uapi import ffi, libc

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
MAP, DRAINED, WANTED, WRITTEN = map(int, (Word.MAP, Word.DRAINED, Word.WANTED, Word.WRITTEN))
NO_CALLS = Trace(0, ())
SETTLES = frozenset({uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG, uapi.KVM_GET_REG_LIST, uapi.KVM_CHECK_EXTENSION})
"""The ioctls that decide nothing about what a rule accepts."""


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
    """A vCPU whose file a client has mapped.

    ``session`` is the client's, ``callers`` names its calls, ``calls`` are those that gets come from now. ``regmap`` is
    the register map that is published. The events before ``taken`` are queued, those before ``released`` are recorded
    and their room is the client's again. ``in_use``: some events are of the present ``stretch``. ``gets_change``: the
    kernel has gets that change registers. Errors: OSError.
    """

    def __init__(self, device: VcpuFile, session: object, callers: Callers) -> None:
        self.device = device
        self.session = session
        self.callers = callers
        self.calls = NO_CALLS
        self.regmap: RegisterMap | None = None
        self.gets_change = device.vcpu.system.kernel.switches.za_get_writes
        self.in_use = False
        self._header = map_shared(device.run_fd, HEADER_AT, HEADER_BYTES)
        self.ring = map_shared(device.run_fd, EVENTS_AT, EVENTS_BYTES)
        self.settled: Any = ffi.buffer(ffi.from_buffer(self._header) + SETTLED_AT, SETTLED_BYTES)
        self.words: Any = ffi.cast("uint64_t *", ffi.from_buffer(self._header))
        self.taken = self.released = self.words[DRAINED] = self.words[WRITTEN]
        self.stretch = Stretch(device, self.ring, self.words)

    @property
    def written(self) -> int:
        """Where the client says that its events end."""
        return self.words[WRITTEN]  # type: ignore[no-any-return]

    def release(self, page_bytes: int, *, memory: bool) -> None:
        """All events that were taken are recorded: the client may write there again. ``memory``: give it back."""
        if self.released == self.taken:
            return
        if memory:
            for place, size in pages(self.released, self.taken, page_bytes):
                how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                libc.fallocate(self.device.run_fd, how, EVENTS_AT + place, size)
        self.words[DRAINED] = self.released = self.taken


class Settled:
    """The registers of a VM of which a set of the value that they have is known to succeed and to change nothing.

    A rule that has accepted a value accepts it again, until something else is done to the VM than gets and sets of
    registers: then `clear` forgets what is known. What holds for a VM-wide register in one vCPU holds in all.
    """

    def __init__(self) -> None:
        self._vm_wide = bytearray(SETTLED_BYTES)
        self._version = 0
        self._informed: dict[Share, int] = {}

    def clear(self) -> None:
        """Something was done to the VM, or is about to be."""
        if self._informed:
            for share in self._informed:
                share.settled[:] = bytes(SETTLED_BYTES)
            self._informed.clear()
            self._vm_wide = bytearray(SETTLED_BYTES)

    def update(self, share: Share, vcpu: Vcpu | None) -> None:
        """An ioctl on a vCPU was done; ``vcpu`` is given if it was a set of a register."""
        row = None if vcpu is None else vcpu.accepted
        if vcpu is not None and row is not None:
            vcpu.accepted = None
            index, bit = row.offset // 32, 1 << row.offset // 4 % 8
            if row.shared:
                self._vm_wide[index] |= bit
                self._version += 1
            share.settled[index] = bytes((share.settled[index][0] | bit,))
        elif self._informed.get(share) != self._version and self._version:
            present, known = int.from_bytes(share.settled[:], "little"), int.from_bytes(self._vm_wide, "little")
            share.settled[:] = (present | known).to_bytes(SETTLED_BYTES, "little")
        self._informed[share] = self._version

    def forget(self, share: Share) -> None:
        """The vCPU was closed."""
        self._informed.pop(share, None)


class Shares:
    """All shared vCPUs of a server."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._rows = RowFiles()
        self._shares: dict[DeviceFile, Share] = {}
        self._of_session: dict[object, int] = {}
        self._of_vm: dict[VmState[Any], list[Share]] = {}
        self._published: dict[VmState[Any], int] = {}
        self._settled: dict[VmState[Any], Settled] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def __iter__(self) -> Iterator[Share]:
        return iter(self._shares.values())

    def others(self, session: object) -> bool:
        """Whether other sessions share vCPUs. It is asked with every request, however many vCPUs there are."""
        return len(self._of_session) > (session in self._of_session)

    def of(self, device: DeviceFile) -> Share | None:
        """What is shared of a file."""
        return self._shares.get(device)

    def open(self, device: VcpuFile, session: object, callers: Callers) -> int:
        """Share a vCPU; returns a new descriptor of its file. Errors: OSError."""
        share = self._shares.get(device)
        if share is None:
            share = Share(device, session, callers)
            share.words[WANTED] = _wanted(self._log)
            vm = device.vm.vm
            self._shares[device] = share
            self._of_vm.setdefault(vm, []).append(share)
            self._published.setdefault(vm, vm.remaps)
            self._settled.setdefault(vm, Settled())
            vm.before_sharing = lambda: self._hold(vm)
            self._publish(share)
            if not self._log.idle:
                callers.remember()
        else:
            self._count(share.session, -1)
        self._count(session, 1)
        share.session, share.callers = session, callers
        return os.dup(device.run_fd)

    def rows(self, device: VcpuFile) -> int | None:
        """A new descriptor of the rows of a shared vCPU in its mode; None if there are none. Errors: OSError."""
        share = self._shares.get(device)
        if share is None or share.regmap is None:
            return None
        fd = self._rows.open(share.regmap)
        self._publish(share)
        return fd

    def update(self, device: DeviceFile, request: int) -> None:
        """An ioctl on this file was done: publish what it changed."""
        vm = _vm_of(device)
        if vm is None or vm not in self._of_vm:
            return
        settled = self._settled[vm]
        if request not in SETTLES:
            settled.clear()
        share = self._shares.get(device)
        if share is not None:
            settled.update(share, share.device.vcpu if request == uapi.KVM_SET_ONE_REG else None)
        changes = vm.remaps - self._published[vm]
        if not changes:
            return
        self._published[vm] = vm.remaps
        if changes == 1 and share is not None and share.regmap is not share.device.vcpu.map:
            self._publish(share)
            return
        for each in self._of_vm[vm]:
            self._publish(each)

    def remove(self, device: DeviceFile) -> None:
        """A vCPU was closed, or its client is not to be trusted: the server alone answers for it."""
        share = self._shares.pop(device, None)
        if share is None:
            return
        share.words[MAP] = 0
        self._count(share.session, -1)
        vm = share.device.vm.vm
        shares = self._of_vm[vm]
        shares.remove(share)
        if not shares:
            del self._of_vm[vm], self._published[vm], self._settled[vm]
        else:
            self._settled[vm].forget(share)

    def close(self) -> None:
        """Forget everything."""
        self._shares.clear()
        self._of_session.clear()
        self._of_vm.clear()
        self._settled.clear()
        self._rows.close()

    def _count(self, session: object, more: int) -> None:
        """One vCPU more or less is shared with a session."""
        count = self._of_session.get(session, 0) + more
        if count:
            self._of_session[session] = count
        else:
            del self._of_session[session]

    def _publish(self, share: Share) -> None:
        vcpu = share.device.vcpu
        share.regmap = None if vcpu.vm.dead else vcpu.map
        share.words[MAP] = 0 if share.regmap is None else self._rows.number(share.regmap)

    def _hold(self, vm: VmState[Any]) -> None:
        """A register of all vCPUs is about to change: until `update`, clients ask the server."""
        shares = self._of_vm.get(vm, ())
        if shares:
            self._settled[vm].clear()
        if len(shares) > 1:
            for share in shares:
                share.words[MAP] = 0
            vm.remaps += 2


def _wanted(log: EventLog) -> Wanted:
    if log.idle:
        return Wanted.NO_EVENTS
    return Wanted.ALL_CALLS if log.any_origin else Wanted.EVENTS_ONLY


def _vm_of(device: DeviceFile) -> VmState[Any] | None:
    """The VM that an ioctl on a file can change."""
    file = device if isinstance(device, VmFile) else getattr(device, "vm", None)
    return file.vm if isinstance(file, VmFile) else None
