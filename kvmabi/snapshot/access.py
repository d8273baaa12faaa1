# SPDX-License-Identifier: MIT
"""One vCPU behind a port: the ioctls of a save and of a restore, on the model and on any /dev/kvm alike.

A port is what steps use (kvmabi.steps.port); saves and restores need only its ioctl and its memory. ``KvmPort`` is the
one of a ``kvmabi.Kvm``; descriptors of this process's /dev/kvm, real or interposed, have a LibcPort.
"""

from __future__ import annotations

import errno
from typing import Protocol

from kvmabi import regid, uapi
from kvmabi.device.file import Refused
from kvmabi.device.structs import layout
from kvmabi.errors import KvmError
from kvmabi.kvm import Kvm
from kvmabi.model.mode import SVCR_ZA
from kvmabi.model.plan import SVCR
from kvmabi.model.row import size_of
from kvmabi.steps.grammar import MAX_IDS
from kvmabi.steps.modelport import ModelMemory
from kvmabi.steps.port import StepMemory
from kvmabi.steps.structs import COUNT, INIT, INT, ONE_REG

MP_STATE = layout("struct kvm_mp_state")
EVENTS_BYTES = uapi.ffi.sizeof("struct kvm_vcpu_events")
SError = tuple[bool, bool, int]
"""What struct kvm_vcpu_events says of an SError: pending, has an ESR, the ESR."""


class Ioctls(Protocol):
    """The part of a Port (kvmabi.steps.port) that a save and a restore use."""

    @property
    def memory(self) -> StepMemory:
        """The memory that ioctls read and write."""

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """Do an ioctl; returns its result, or the negative errno."""

    @property
    def reason(self) -> str:
        """Why the last failed ioctl failed, in words."""


class KvmPort:
    """The vCPUs of a Kvm: their events are those of its log, and its order checker watches."""

    memory: ModelMemory

    def __init__(self, kvm: Kvm) -> None:
        self.memory = ModelMemory(kvm.memory.address_space)
        self._kvm = kvm
        self._reason = ""

    @property
    def reason(self) -> str:
        """See Ioctls.reason."""
        return self._reason

    def ioctl(self, fd: int, request: int, argument: int) -> int:
        """See Ioctls.ioctl."""
        try:
            answer = self._kvm.file(fd).ioctl(request, argument, self.memory)
        except KvmError as error:
            self._reason = error.reason
            return -(error.errno or errno.EBADF)
        if self._kvm.log.asked:
            self._kvm.answered()
        if isinstance(answer, int):
            return answer
        assert isinstance(answer, Refused)  # only KVM_RUN waits, and these ioctls open no file
        why = answer.refusal
        self._reason = f"{why.reason}: {why.hint}" if why.hint else why.reason
        return -why.errno


class Access:
    """A vCPU's file descriptor on a port. ``index`` is the vCPU's number."""

    def __init__(self, port: Ioctls, fd: int, index: int) -> None:
        self.port = port
        self.fd = fd
        self.index = index

    @property
    def reason(self) -> str:
        """Why the last ioctl failed."""
        return self.port.reason

    def init(self, target: int, words: tuple[int, ...]) -> int:
        """KVM_ARM_VCPU_INIT with the words of features[]; returns 0 or the errno."""
        return self._write(uapi.KVM_ARM_VCPU_INIT, INIT.pack(target, *words))

    def finalize(self) -> int:
        """KVM_ARM_VCPU_FINALIZE of the vectors; returns 0 or the errno."""
        return self._write(uapi.KVM_ARM_VCPU_FINALIZE, INT.pack(uapi.KVM_ARM_VCPU_VEC))

    def reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the IDs in the kernel's order. Raises KvmError: ENOEXEC, EPERM."""
        memory = self.port.memory
        memory.poke(memory.array, COUNT.pack(MAX_IDS))
        self._check(self.port.ioctl(self.fd, uapi.KVM_GET_REG_LIST, memory.array))
        (count,) = COUNT.unpack(memory.peek(memory.array, COUNT.size))
        held = memory.peek(memory.array, COUNT.size * (1 + count))
        ids = (int.from_bytes(held[at : at + COUNT.size], "little") for at in range(COUNT.size, len(held), COUNT.size))
        return [id for id in ids if id]  # some kernels count entries that they do not write

    def get(self, id: int) -> bytes:
        """KVM_GET_ONE_REG: the register's bytes. Raises KvmError with its name."""
        memory, size_bytes = self.port.memory, size_of(id)
        memory.poke(memory.payload, bytes(size_bytes))
        memory.poke(memory.argument, ONE_REG.pack(id, memory.payload))
        self._check(self.port.ioctl(self.fd, uapi.KVM_GET_ONE_REG, memory.argument), regid.name_of(id))
        return memory.peek(memory.payload, size_bytes)

    def held(self, id: int) -> bytes | None:
        """As ``get``; None for a listed register that holds nothing: some SME series list more than there is.

        That is ZA and ZT0 while SVCR.ZA is 0 (EBUSY), and FFR in streaming mode without FA64 (ENOENT).
        """
        try:
            return self.get(id)
        except KvmError as error:
            family = regid.decode(id).family
            if error.errno == errno.ENOENT and family == "sve":
                return None
            if error.errno == errno.EBUSY and family == "sme" and not self.get(SVCR)[0] & SVCR_ZA:
                return None
            raise

    def set(self, id: int, data: bytes) -> int:
        """KVM_SET_ONE_REG with as many bytes as the register has; returns 0 or the errno."""
        memory = self.port.memory
        memory.poke(memory.payload, data)
        return self._write(uapi.KVM_SET_ONE_REG, ONE_REG.pack(id, memory.payload))

    def mp_state(self) -> int | None:
        """KVM_GET_MP_STATE; None where the kernel does not have it."""
        data = self._read(uapi.KVM_GET_MP_STATE, MP_STATE.size)
        return None if data is None else int(MP_STATE.unpack(data)[0])

    def set_mp_state(self, state: int) -> int:
        """KVM_SET_MP_STATE; returns 0 or the errno."""
        return self._write(uapi.KVM_SET_MP_STATE, MP_STATE.pack(state))

    def serror(self) -> SError | None:
        """What KVM_GET_VCPU_EVENTS says of an SError; None where the kernel does not have it."""
        data = self._read(uapi.KVM_GET_VCPU_EVENTS, EVENTS_BYTES)
        if data is None:
            return None
        events = uapi.ffi.from_buffer("struct kvm_vcpu_events *", data).exception
        return bool(events.serror_pending), bool(events.serror_has_esr), int(events.serror_esr)

    def set_serror(self, serror: SError) -> int:
        """KVM_SET_VCPU_EVENTS with an SError; returns 0 or the errno."""
        pending, has_esr, esr = serror
        events = uapi.ffi.new("struct kvm_vcpu_events *")
        events.exception.serror_pending, events.exception.serror_has_esr = pending, has_esr
        events.exception.serror_esr = esr
        return self._write(uapi.KVM_SET_VCPU_EVENTS, bytes(uapi.ffi.buffer(events)))

    def _write(self, request: int, argument: bytes) -> int:
        memory = self.port.memory
        memory.poke(memory.argument, argument)
        return max(0, -self.port.ioctl(self.fd, request, memory.argument))

    def _read(self, request: int, size_bytes: int) -> bytes | None:
        memory = self.port.memory
        memory.poke(memory.argument, bytes(size_bytes))
        if self.port.ioctl(self.fd, request, memory.argument) < 0:
            return None
        return memory.peek(memory.argument, size_bytes)

    def _check(self, result: int, register: str | None = None) -> None:
        if result < 0:
            raise KvmError(-result, self.port.reason, register=register)
