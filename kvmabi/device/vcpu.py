# SPDX-License-Identifier: MIT
"""A vCPU's file: INIT, FINALIZE, the register ioctls and KVM_RUN."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from kvmabi import uapi
from kvmabi.device import attr, plainfiles, usercopy, vcpuevents
from kvmabi.device.board import VmBoard
from kvmabi.device.file import (
    Answer,
    Call,
    DeviceFile,
    Handler,
    Outcome,
    PlainFile,
    Refused,
    Wait,
    no_argument,
    refused,
)
from kvmabi.device.memory import PAGE_BYTES, Memory
from kvmabi.device.runpage import RunPage, field
from kvmabi.device.structs import layout
from kvmabi.device.vcpuevents import PendingSError
from kvmabi.device.watched import WatchedMemory
from kvmabi.errors import KvmError
from kvmabi.events import MP_STATE as MP_STATE_ID
from kvmabi.events import VCPU_EVENTS, Kind
from kvmabi.model import lifecycle, run, stats
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import Buffer, size_of
from kvmabi.model.vcpu import VCPU_NOT_INITIALIZED, Vcpu
from kvmabi.model.vgic import UNSET_ADDRESS

if TYPE_CHECKING:
    from kvmabi.device.vm import VmFile
    from kvmabi.guests.running import Running
    from kvmabi.guests.scripts import Script

ONE_REG = layout("struct kvm_one_reg")
INIT = layout("struct kvm_vcpu_init")
COUNT = layout("struct kvm_reg_list")
MP_STATE = layout("struct kvm_mp_state")
FEATURE = layout("int")
MASK_LENGTH = layout("struct kvm_signal_mask")
SIGSET_BYTES = 8
IMMEDIATE_EXIT = field("immediate_exit").offset
RING_OFFSET = uapi.KVM_DIRTY_LOG_PAGE_OFFSET * PAGE_BYTES
MP_STATES = frozenset({uapi.KVM_MP_STATE_RUNNABLE, uapi.KVM_MP_STATE_STOPPED, uapi.KVM_MP_STATE_SUSPENDED})
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
GET, SET, RUN = "KVM_GET_ONE_REG", "KVM_SET_ONE_REG", "KVM_RUN"


class VcpuFile(DeviceFile):
    """The file that KVM_CREATE_VCPU opens.

    ``sigmask`` is the signal mask that KVM_SET_SIGNAL_MASK gave for KVM_RUN (None: the thread's own).
    """

    kind = "vcpu"

    def __init__(self, vm: VmFile, vcpu: Vcpu) -> None:
        super().__init__(vm.log, vm)
        self.vm = vm
        self.vcpu = vcpu
        self.vm_number, self.vcpu_number = vm.vm_number, vcpu.index
        self.attributes = vm.vcpu_attributes
        self.damage = vcpu.warnings
        self._buffer = usercopy.ExactBuffer if vcpu.system.copies_exactly else usercopy.BlockBuffer
        self._run_fd: int | None = None
        self.sigmask: bytes | None = None
        self.stolen_time = UNSET_ADDRESS
        self._board = VmBoard(vm)
        self._guest: Running | None = None
        self._entered: tuple[Call, Mode] | None = None
        self.serror = PendingSError()
        self.has_esr = vcpu.system.check_extension(uapi.KVM_CAP_ARM_INJECT_SERROR_ESR, on_vm=True)

    @property
    def run_fd(self) -> int:
        """A memfd with struct kvm_run, which a VMM maps; made when first asked for. Errors: OSError."""
        if self._run_fd is None:
            fd = os.memfd_create("kvm-vcpu", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(fd, self._mapped_bytes)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            except OSError:
                os.close(fd)
                raise
            self._run_fd = fd
        return self._run_fd

    def use_file(self, fd: int, registers: Any) -> None:
        """Use a file made elsewhere as ``run_fd``, which now belongs to this; ``registers`` is the memory for them."""
        assert self._run_fd is None
        self._run_fd = fd
        self.vcpu.move_registers(registers)

    @property
    def has_dirty_ring(self) -> bool:
        """Whether a VMM maps a ring of dirty pages behind struct kvm_run."""
        return bool(self.vm.vm.dirty_ring_bytes)

    @property
    def _mapped_bytes(self) -> int:
        """The size of what a VMM can map: struct kvm_run, and the dirty ring if there is one."""
        ring = self.vm.vm.dirty_ring_bytes
        return RING_OFFSET + ring if ring else self.vcpu.system.kernel.vcpu_mmap_bytes

    def denies(self, memory: Memory) -> Refusal | None:
        """See VmFile.denies."""
        vm = self.vm
        return None if memory.address_space is vm.address_space and not vm.vm.dead else vm.denies(memory)

    @property
    def mode(self) -> Mode:
        """The vCPU's mode now."""
        return self.vcpu.mode

    @property
    def svcr(self) -> int:
        """SVCR's value now."""
        return self.vcpu.mode.svcr

    def values(self) -> Mapping[int, bytes]:
        """See DeviceFile.values."""
        return self.vcpu.values()

    def pseudo_values(self) -> Mapping[int, bytes]:
        """See DeviceFile.pseudo_values."""
        return {MP_STATE_ID: MP_STATE.pack(self.vcpu.mp_state), VCPU_EVENTS: bytes((self.serror.pending,))}

    def controllers(self) -> Mapping[tuple[int, int], bytes]:
        """See DeviceFile.controllers."""
        return self.vm.controllers()

    def on_close(self) -> None:
        """Report the end of the vCPU's use, while it still has its registers."""
        self._abandon()
        if self.vcpu.map is not None:
            self.report(Kind.CLOSED)

    def release(self) -> None:
        """Close struct kvm_run, and end the guest's script. The vCPU itself lives as long as its VM."""
        if self._guest is not None:
            self._guest.close()
        if self._run_fd is not None:
            os.close(self._run_fd)
            self._run_fd = None

    def discard(self) -> None:
        """See DeviceFile.discard: the VM gets its number back."""
        self.release()
        self.vm.forget(self.vcpu.index)

    def immediate_exit(self, value: bool) -> None:
        """Set kvm_run.immediate_exit, as a VMM does through its mapping."""
        os.pwrite(self.run_fd, bytes((value,)), IMMEDIATE_EXIT)

    # --- registers

    def get_register(self, id: int, buffer: Buffer, memory: Memory) -> Answer:
        """KVM_GET_ONE_REG without its struct, for callers in this process; answer and event are the same."""
        call = Call(0, memory, id)
        before = self.vcpu.mode
        fault = None if self.faults is None else self.struck(self.faults, GET, call)
        return self.done(GET, call, before, self.denies(memory) or fault or self._get(call, id, buffer))

    def set_register(self, id: int, buffer: Buffer, memory: Memory) -> Answer:
        """KVM_SET_ONE_REG without its struct, for callers in this process; answer and event are the same."""
        call = Call(0, memory, id)
        before = self.vcpu.mode
        fault = None if self.faults is None else self.struck(self.faults, SET, call)
        return self.done(SET, call, before, self.denies(memory) or fault or self._set(call, id, buffer))

    def _get(self, call: Call, id: int, buffer: Buffer) -> Outcome:
        vcpu = self.vcpu
        if vcpu.map is None:
            return VCPU_NOT_INITIALIZED
        call.register = id
        refusal = vcpu.read(vcpu.map.row(id), buffer)
        call.data = buffer.given
        return 0 if refusal is None else refusal

    def _set(self, call: Call, id: int, buffer: Buffer) -> Outcome:
        vcpu = self.vcpu
        if vcpu.map is None:
            return VCPU_NOT_INITIALIZED
        call.register = id
        outcome = vcpu.write(vcpu.map.row(id), buffer)
        call.data = buffer.taken
        if outcome is None:
            return 0
        if isinstance(outcome, Refusal):
            return outcome
        call.effects = outcome
        return 0

    def _get_one_reg(self, call: Call) -> Outcome:
        if self.vcpu.map is None:  # before the struct is read
            return VCPU_NOT_INITIALIZED
        id, addr = ONE_REG.unpack(call.read(call.arg, ONE_REG.size))
        return self._get(call, id, self._buffer(call.memory, addr))

    def _set_one_reg(self, call: Call) -> Outcome:
        if self.vcpu.map is None:
            return VCPU_NOT_INITIALIZED
        id, addr = ONE_REG.unpack(call.read(call.arg, ONE_REG.size))
        outcome = self._set(call, id, self._buffer(call.memory, addr))
        if type(call.memory) is WatchedMemory and call.data is None:
            call.memory.detail.offered = call.memory.peek(addr, size_of(id))
        return outcome

    def _get_reg_list(self, call: Call) -> int:
        regmap = self.vcpu.require_final()
        (room,) = COUNT.unpack(call.read(call.arg, COUNT.size))
        count = len(regmap.listed) + regmap.unwritten
        call.write(call.arg, COUNT.pack(count))
        if room < count:
            raise KvmError(errno.E2BIG, f"room for {room} IDs, the vCPU has {count}", hint="call again with that n")
        call.write(call.arg + COUNT.size, regmap.list_bytes)
        return 0

    # --- life

    def _init(self, call: Call) -> int:
        target, *features = INIT.unpack(call.read(call.arg, INIT.size))
        call.argument = sum(word << 32 * place for place, word in enumerate(features))
        lifecycle.init(self.vcpu, target, features)
        if not (self.vcpu.has_run and self.vcpu.system.kernel.switches.serror_outlives_init):
            self.serror.reset()
        off = features[0] >> uapi.KVM_ARM_VCPU_POWER_OFF & 1 or "power_off" in self.vcpu.mode.features
        self.vcpu.mp_state = int(uapi.KVM_MP_STATE_STOPPED if off else uapi.KVM_MP_STATE_RUNNABLE)
        if self._guest is not None:
            self._guest.reset()
        return 0

    def _finalize(self, call: Call) -> int:
        self.vcpu.require_init()
        (feature,) = FEATURE.unpack(call.read(call.arg, FEATURE.size))
        lifecycle.finalize(self.vcpu, feature)
        return 0

    def _run_vcpu(self, call: Call) -> Outcome:
        no_argument(call)
        self.vcpu.require_final()
        self._abandon()
        before = self.vcpu.mode
        immediate = bool(os.pread(self.run_fd, 1, IMMEDIATE_EXIT)[0])
        if not immediate:
            self.report(Kind.RUN)
        self._board.call = call
        exit = run.run(self.vcpu, immediate_exit=immediate, guest=self.guest)
        call.effects = exit.effects
        outcome = self._left(call, exit)
        if isinstance(outcome, Wait) and outcome.again_ms:
            self._entered = call, before
        return outcome

    def _left(self, call: Call, exit: run.Exit) -> Outcome:
        """What the ioctl comes to: struct kvm_run is written once that is decided."""
        page = RunPage(self.run_fd)
        page.write(run.ENTERED if exit.again_ms else exit.written)
        if type(call.memory) is WatchedMemory:
            call.memory.detail.run = page.content()
        if exit.waits and isinstance(exit.result, Refusal):
            return Wait(exit.result, self.sigmask, exit.again_ms)
        return exit.result

    # --- guests

    @property
    def guest(self) -> Running | None:
        """The vCPU's guest; one without a script waits to be powered on, if others of its VM have scripts."""
        if self._guest is None and self.vm.has_scripts:
            self.set_guest(self.vm.script)
        return self._guest

    def set_guest(self, script: Script | None) -> None:
        """Give the vCPU a guest, which begins at the next KVM_RUN."""
        from kvmabi.guests.running import Running  # takes a while, and few have guests

        self.vm.has_scripts = self.vm.has_scripts or script is not None
        self._abandon()
        self._guest = Running(self.vcpu, self._board, RunPage(self.run_fd), script)

    def resume(self, *, interrupted: bool) -> Answer:
        """A KVM_RUN that waits (``Wait.again_ms``) goes on; ``interrupted``: a signal came, which ends it."""
        if self._entered is None or self._guest is None:
            return Refused(run.INTERRUPTED, None, self.mode)
        call, before = self._entered
        outcome: Outcome | None = self.denies(call.memory)
        if interrupted:
            self._guest.interrupt()
        if outcome is None:
            exit = run.SIGNAL._replace(waits=False) if interrupted else self._guest.enter()
            outcome = self._left(call, exit)
        if not isinstance(outcome, Wait) or not outcome.again_ms:
            self._entered = None
        return self.done(RUN, call, before, outcome)

    def _abandon(self) -> None:
        """A KVM_RUN that waited was never resumed: its thread has left it for good."""
        if self._entered is not None:
            self.resume(interrupted=True)

    def _set_signal_mask(self, call: Call) -> int:
        if not call.arg:
            self.sigmask = None
            return 0
        (size,) = MASK_LENGTH.unpack(call.read(call.arg, MASK_LENGTH.size))
        if size != SIGSET_BYTES:
            raise KvmError(errno.EINVAL, f"a signal mask has {SIGSET_BYTES} bytes")
        self.sigmask = call.read(call.arg + MASK_LENGTH.size, SIGSET_BYTES)
        return 0

    def _get_mp_state(self, call: Call) -> int:
        call.write(call.arg, MP_STATE.pack(self.vcpu.mp_state))
        return 0

    def _set_mp_state(self, call: Call) -> int:
        (state,) = MP_STATE.unpack(call.read(call.arg, MP_STATE.size))
        if state not in MP_STATES:
            raise KvmError(errno.EINVAL, f"an arm64 vCPU does not have the state {state}")
        self.vcpu.mp_state = state
        call.data = MP_STATE.pack(state)
        return 0

    def _get_stats_fd(self, _call: Call) -> PlainFile:
        return plainfiles.read_only(
            "kvm-vcpu-stats", stats.contents(stats.OF_A_VCPU, f"{self.vm.stats_id}/vcpu-{self.vcpu.index}")
        )

    def __repr__(self) -> str:
        return f"<VcpuFile {self.vcpu_number} of VM {self.vm_number}>"

    table: ClassVar[dict[int, tuple[str, Handler]]] = {
        uapi.KVM_GET_ONE_REG: (GET, _get_one_reg),
        uapi.KVM_SET_ONE_REG: (SET, _set_one_reg),
        uapi.KVM_GET_REG_LIST: ("KVM_GET_REG_LIST", _get_reg_list),
        uapi.KVM_ARM_VCPU_INIT: ("KVM_ARM_VCPU_INIT", _init),
        uapi.KVM_ARM_VCPU_FINALIZE: ("KVM_ARM_VCPU_FINALIZE", _finalize),
        uapi.KVM_RUN: (RUN, _run_vcpu),
        uapi.KVM_SET_SIGNAL_MASK: ("KVM_SET_SIGNAL_MASK", _set_signal_mask),
        uapi.KVM_GET_MP_STATE: ("KVM_GET_MP_STATE", _get_mp_state),
        uapi.KVM_SET_MP_STATE: ("KVM_SET_MP_STATE", _set_mp_state),
        uapi.KVM_GET_STATS_FD: ("KVM_GET_STATS_FD", _get_stats_fd),
        uapi.KVM_SET_REGS: ("KVM_SET_REGS", partial(refused, uapi.ffi.sizeof("struct kvm_regs"))),
        uapi.KVM_TRANSLATE: ("KVM_TRANSLATE", partial(refused, uapi.ffi.sizeof("struct kvm_translation"))),
        **vcpuevents.IOCTLS,
        **attr.IOCTLS,
    }
