# SPDX-License-Identifier: MIT
"""A vCPU's file: INIT, FINALIZE, the register ioctls and KVM_RUN."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from kvmabi import uapi
from kvmabi.device import attr, usercopy
from kvmabi.device.file import Call, DeviceFile, Handler, fault, no_argument
from kvmabi.device.memory import Memory, ProcessMemory
from kvmabi.errors import KvmError
from kvmabi.events import WARNING, Lost
from kvmabi.model import lifecycle, run
from kvmabi.model.registermap import Effect
from kvmabi.model.vgic import NOWHERE

if TYPE_CHECKING:
    from kvmabi.device.vm import VmFile
    from kvmabi.model.vcpu import Vcpu

ONE_REG = struct.Struct("=QQ")
INIT = struct.Struct("=8I")
COUNT = struct.Struct("=Q")
INT = struct.Struct("=i")
WORD = struct.Struct("=I")
IMMEDIATE_EXIT = uapi.ffi.offsetof("struct kvm_run", "immediate_exit")
EVENTS_BYTES = uapi.ffi.sizeof("struct kvm_vcpu_events")
SERROR_PENDING = uapi.ffi.offsetof("struct kvm_vcpu_events", "exception", "serror_pending")
SERROR_HAS_ESR = uapi.ffi.offsetof("struct kvm_vcpu_events", "exception", "serror_has_esr")
SIGSET_BYTES = 8
NOBODY = ProcessMemory(0, None)
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class VcpuFile(DeviceFile):
    """The file that KVM_CREATE_VCPU opens.

    ``run_fd`` is a memfd with struct kvm_run, which a VMM maps; ``sigmask`` the signal mask that
    KVM_SET_SIGNAL_MASK gave for KVM_RUN (None: the thread's own).
    """

    kind = "vcpu"

    def __init__(self, vm: VmFile, vcpu: Vcpu) -> None:
        super().__init__(vm.log)
        self.vm = vm
        self.vcpu = vcpu
        self.attributes = vm.vcpu_attributes
        size = vcpu.system.kernel.vcpu_mmap_bytes
        self.run_fd = os.memfd_create("kvm-vcpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.run_fd, size)
            fcntl.fcntl(self.run_fd, fcntl.F_ADD_SEALS, SEALS)
            self._run = mmap.mmap(self.run_fd, size)
        except OSError:
            os.close(self.run_fd)
            raise
        self.sigmask: bytes | None = None
        self.stolen_time = NOWHERE
        self._mp_state = uapi.KVM_MP_STATE_RUNNABLE
        self._has_esr = vcpu.system.check_extension(uapi.KVM_CAP_ARM_INJECT_SERROR_ESR, on_vm=True)
        self._events = bytearray(EVENTS_BYTES)
        self._events[SERROR_HAS_ESR] = self._has_esr
        self._set_by: dict[int, int] = {}
        self._changed = True  # since the last read
        self._judgeable = True  # a set was tried since the last run

    def check(self, memory: Memory) -> None:
        """See VmFile.check."""
        self.vm.check(memory)

    def where(self) -> tuple[Any, int | None, int | None]:
        """See DeviceFile.where."""
        return self.vcpu.mode, self.vcpu.vm.number, self.vcpu.index

    def svcr(self) -> int:
        """See DeviceFile.svcr."""
        return self.vcpu.mode.svcr

    def release(self) -> None:
        """Tell watchers the vCPU's last state; give its memory back."""
        if self._run.closed:
            return
        self.tell_state("close")
        self._run.close()
        os.close(self.run_fd)

    def discard(self) -> None:
        """See DeviceFile.discard: the VM gets its number back."""
        self.release()
        self.vm.forget(self.vcpu.index)

    def tell_state(self, what: str) -> None:
        """Log an event that is no ioctl and carries the vCPU's registers, if somebody watches."""
        if self.log.watchers and self.vcpu.map is not None:
            call = Call(0, NOBODY)
            call.state = self.vcpu.state()
            self._log(what, call, None, *self.where())

    def immediate_exit(self, value: bool) -> None:
        """Set kvm_run.immediate_exit, as a VMM does through its mapping."""
        self._run[IMMEDIATE_EXIT] = value

    # --- registers

    def _get_one_reg(self, call: Call) -> int:
        known = self.vcpu.require_init()
        id, addr = ONE_REG.unpack(call.read(call.arg, ONE_REG.size))
        call.register = id
        row = known.row(id)
        if row.backwards and row.get is None:
            self.vcpu.swallow(row, call.memory.read(addr, row.valid_bytes))
            self._changed = True
            return 0
        data = self.vcpu.get(row)
        call.data = data
        if self.vcpu.system.copies_exactly:
            done = call.memory.write(addr, data)
        else:
            done = usercopy.to_user(call.memory, addr, data, row.valid_bytes)
        if done < len(data):
            raise fault(addr)
        if self._changed and self.log.watchers:
            call.state = self.vcpu.state()
            self._changed = False
        return 0

    def _set_one_reg(self, call: Call) -> int:
        vcpu = self.vcpu
        known = vcpu.require_init()
        id, addr = ONE_REG.unpack(call.read(call.arg, ONE_REG.size))
        call.register = id
        row = known.row(id)
        reads = row.set is None or row.fault_first
        data = call.memory.read(addr, row.valid_bytes) if reads else b""
        if len(data) < row.valid_bytes and not vcpu.system.copies_exactly:
            data = data[: usercopy.from_user(addr, row.valid_bytes, len(data))]
        call.data = data
        self._changed = self._judgeable = True  # a set that faults halfway has changed the register, too
        effects = vcpu.set(row, data)
        if not self.log.idle:
            call.effects = self._lost(effects)
        if vcpu.warnings:
            self._warn()
        self._set_by[id] = self.log.count + 1
        return 0

    def _warn(self) -> None:
        """Log what a real kernel would have done to itself."""
        while self.vcpu.warnings:
            warning = KvmError(0, self.vcpu.warnings.pop(0))
            self._log(WARNING, Call(0, NOBODY), warning, *self.where())

    def _lost(self, effects: Iterable[Effect]) -> tuple[Lost, ...]:
        return tuple(Lost(*effect, self._set_by.pop(effect.id, None)) for effect in effects)

    def _get_reg_list(self, call: Call) -> int:
        ids = self.vcpu.reg_list()
        (room,) = COUNT.unpack(call.read(call.arg, COUNT.size))
        count = len(ids) + self.vcpu.require_init().unwritten
        call.write(call.arg, COUNT.pack(count))
        if room < count:
            raise KvmError(errno.E2BIG, f"room for {room} ids where {count} are", remedy="call again with that n")
        call.write(call.arg + COUNT.size, struct.pack(f"={len(ids)}Q", *ids))
        return 0

    # --- life

    def _init(self, call: Call) -> int:
        target, *features = INIT.unpack(call.read(call.arg, INIT.size))
        lifecycle.init(self.vcpu, target, features)
        self._warn()
        off = features[0] >> uapi.KVM_ARM_VCPU_POWER_OFF & 1 or "power_off" in self.vcpu.mode.features
        self._mp_state = uapi.KVM_MP_STATE_STOPPED if off else uapi.KVM_MP_STATE_RUNNABLE
        self._set_by.clear()
        self._changed = True
        if self.log.watchers:
            call.state = self.vcpu.state()
        return 0

    def _finalize(self, call: Call) -> int:
        self.vcpu.require_init()
        (feature,) = INT.unpack(call.read(call.arg, INT.size))
        lifecycle.finalize(self.vcpu, feature)
        self._changed = True
        return 0

    def _run_vcpu(self, call: Call) -> int:
        no_argument(call)
        self.vcpu.require_final()
        if self._judgeable and self.log.watchers:
            call.state = self.vcpu.state()  # before the run, which takes the GIC's fields out of ID registers
            self._judgeable = False
        self._changed = True
        try:
            raise run.run(self.vcpu, immediate_exit=bool(self._run[IMMEDIATE_EXIT]))
        finally:
            self._warn()

    def _set_signal_mask(self, call: Call) -> int:
        if not call.arg:
            self.sigmask = None
            return 0
        (size,) = WORD.unpack(call.read(call.arg, WORD.size))
        if size != SIGSET_BYTES:
            raise KvmError(errno.EINVAL, f"a signal mask has {SIGSET_BYTES} bytes")
        self.sigmask = call.read(call.arg + WORD.size, SIGSET_BYTES)
        return 0

    def _get_mp_state(self, call: Call) -> int:
        call.write(call.arg, WORD.pack(self._mp_state))
        return 0

    def _set_mp_state(self, call: Call) -> int:
        (state,) = WORD.unpack(call.read(call.arg, WORD.size))
        if state not in (uapi.KVM_MP_STATE_RUNNABLE, uapi.KVM_MP_STATE_STOPPED, uapi.KVM_MP_STATE_SUSPENDED):
            raise KvmError(errno.EINVAL, f"an arm64 vCPU has no state {state}")
        self._mp_state = state
        return 0

    def _get_events(self, call: Call) -> int:
        self.vcpu.require_init()
        call.write(call.arg, bytes(self._events))
        return 0

    def _set_events(self, call: Call) -> int:
        self.vcpu.require_init()
        events = call.read(call.arg, EVENTS_BYTES)
        self._events = bytearray(EVENTS_BYTES)
        self._events[SERROR_PENDING] = bool(events[SERROR_PENDING])
        self._events[SERROR_HAS_ESR] = self._has_esr
        return 0

    table: ClassVar[dict[int, tuple[str, Handler]]] = {
        uapi.KVM_GET_ONE_REG: ("KVM_GET_ONE_REG", _get_one_reg),
        uapi.KVM_SET_ONE_REG: ("KVM_SET_ONE_REG", _set_one_reg),
        uapi.KVM_GET_REG_LIST: ("KVM_GET_REG_LIST", _get_reg_list),
        uapi.KVM_ARM_VCPU_INIT: ("KVM_ARM_VCPU_INIT", _init),
        uapi.KVM_ARM_VCPU_FINALIZE: ("KVM_ARM_VCPU_FINALIZE", _finalize),
        uapi.KVM_RUN: ("KVM_RUN", _run_vcpu),
        uapi.KVM_SET_SIGNAL_MASK: ("KVM_SET_SIGNAL_MASK", _set_signal_mask),
        uapi.KVM_GET_MP_STATE: ("KVM_GET_MP_STATE", _get_mp_state),
        uapi.KVM_SET_MP_STATE: ("KVM_SET_MP_STATE", _set_mp_state),
        uapi.KVM_GET_VCPU_EVENTS: ("KVM_GET_VCPU_EVENTS", _get_events),
        uapi.KVM_SET_VCPU_EVENTS: ("KVM_SET_VCPU_EVENTS", _set_events),
        **attr.IOCTLS,
    }
