# SPDX-License-Identifier: MIT
"""Doing the steps of a trace on the device, with a memory that holds one struct and one payload."""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable
from functools import lru_cache

from kvmabi import hexruns, uapi
from kvmabi.device import SystemFile, VcpuFile, VmFile
from kvmabi.errors import KvmError
from kvmabi.events import EventLog
from kvmabi.model.row import size_of
from kvmabi.model.system import System
from kvmabi.replay.trace import Step

UNMAPPED = 0x10
ARGUMENT = 0x1000
PAYLOAD = 0x2000
PAYLOAD_BYTES = 4096
ONE_REG = struct.Struct("=QQ")
INIT = struct.Struct("=8I")
COUNT = struct.Struct("=Q")
RUN_FLAGS = uapi.ffi.offsetof("struct kvm_run", "immediate_exit")
MASK = (1 << 64) - 1
UNTOUCHED = b"\xaa"  # what the recorder filled its buffer with


class StepMemory:
    """What a step's ioctl reads and writes: an argument struct, a payload, and nothing else."""

    def __init__(self) -> None:
        self.address_space: Hashable = "trace"
        self.argument = b""
        self.payload = b""
        self.written = bytearray()

    def read(self, addr: int, size: int) -> bytes:
        """See Memory.read."""
        if addr == ARGUMENT:
            return self.argument[:size]
        if addr == PAYLOAD:
            return self.payload[:size].ljust(min(size, PAYLOAD_BYTES), b"\0")
        return b""

    def write(self, addr: int, data: bytes) -> int:
        """See Memory.write: the argument struct is changed in place, a payload is kept in ``written``."""
        if addr == ARGUMENT:
            self.argument = data + self.argument[len(data) :]
            return len(data)
        if addr in (PAYLOAD, ARGUMENT + COUNT.size):
            self.written += data
            return len(data)
        return 0


class Machine:
    """A system on which steps are done; ``do`` tells the answer in the trace's form."""

    def __init__(self, system: System, log: EventLog) -> None:
        self.system = SystemFile(system, log)
        self.memory = StepMemory()
        self.vm: VmFile | None = None
        self.vcpus: dict[str, VcpuFile] = {}
        self._error: KvmError | None = None

    @property
    def reason(self) -> str:
        """Why the last step was refused, if it was."""
        return str(self._error) if self._error else ""

    def do(self, step: Step) -> str:
        """Do a step; ``reason`` then tells why it was refused, if it was."""
        self._error = None
        try:
            return _DO[step.op](self, *step.words)
        except KvmError as error:
            self._error = error
            return error.name

    def close(self) -> None:
        """Release the VM."""
        if self.vm is not None:
            for file in (*self.vcpus.values(), self.vm):
                file.closed()
        self.vm, self.vcpus = None, {}

    def _ioctl(self, vcpu: str, request: int, argument: bytes, payload: bytes = b"") -> None:
        memory = self.memory
        memory.argument, memory.payload = argument, payload
        memory.written.clear()
        _done(self._vcpu(vcpu).ioctl(request, ARGUMENT, memory))

    def _vcpu(self, vcpu: str) -> VcpuFile:
        file = self.vcpus.get(vcpu)
        if file is None:
            raise ValueError(f"there is no vCPU {vcpu}")
        return file

    def new(self, vcpus: str, *_: str) -> str:
        """N: a new VM with so many vCPUs."""
        self.close()
        vm = self.system.ioctl(uapi.KVM_CREATE_VM, 0, self.memory)
        assert isinstance(vm, VmFile)
        self.vm = vm
        vm.opened()
        for index in range(int(vcpus)):
            vcpu = vm.ioctl(uapi.KVM_CREATE_VCPU, index, self.memory)
            assert isinstance(vcpu, VcpuFile)
            self.vcpus[str(index)] = vcpu
            vcpu.opened()
        return "OK"

    def init(self, vcpu: str, target: str, features: str, *_: str) -> str:
        """I: KVM_ARM_VCPU_INIT."""
        words = int(target) & 0xFFFFFFFF, int(features, 16) & 0xFFFFFFFF, *(0,) * 6
        self._ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, INIT.pack(*words))
        return "OK"

    def finalize(self, vcpu: str, feature: str, *_: str) -> str:
        """F: KVM_ARM_VCPU_FINALIZE."""
        self._ioctl(vcpu, uapi.KVM_ARM_VCPU_FINALIZE, (int(feature) & 0xFFFFFFFF).to_bytes(4, "little"))
        return "OK"

    def get(self, vcpu: str, id: str, *_: str) -> str:
        """G: KVM_GET_ONE_REG."""
        try:
            self._ioctl(vcpu, uapi.KVM_GET_ONE_REG, _one_reg(id, PAYLOAD))
        except KvmError as error:
            if self.memory.written:
                self._error = error
                return f"{error.name} !touched"
            raise
        written = bytes(self.memory.written)
        if len(written) < (size := _size(id)):
            written += UNTOUCHED * (size - len(written))
        return "OK " + hexruns.compress(written)

    def set(self, vcpu: str, id: str, data: str, *_: str) -> str:
        """S: KVM_SET_ONE_REG of given bytes."""
        payload = hexruns.expand(data)
        self._ioctl(vcpu, uapi.KVM_SET_ONE_REG, _one_reg(id, PAYLOAD), payload)
        return "OK"

    def pattern(self, vcpu: str, id: str, seed: str, *_: str) -> str:
        """P: KVM_SET_ONE_REG of a pattern that follows from a seed."""
        start = int(seed) % 256
        payload = _PATTERN[start] if start in _PATTERN else _pattern(start)
        self._ioctl(vcpu, uapi.KVM_SET_ONE_REG, _one_reg(id, PAYLOAD), payload)
        return "OK"

    def bad_get(self, vcpu: str, id: str, *_: str) -> str:
        """B: KVM_GET_ONE_REG into unmapped memory."""
        self._ioctl(vcpu, uapi.KVM_GET_ONE_REG, _one_reg(id, UNMAPPED))
        return "OK"

    def bad_set(self, vcpu: str, id: str, *_: str) -> str:
        """b: KVM_SET_ONE_REG from unmapped memory."""
        self._ioctl(vcpu, uapi.KVM_SET_ONE_REG, _one_reg(id, UNMAPPED))
        return "OK"

    def reg_list(self, vcpu: str, room: str, *_: str) -> str:
        """L: KVM_GET_REG_LIST."""
        try:
            self._ioctl(vcpu, uapi.KVM_GET_REG_LIST, COUNT.pack(int(room) & MASK))
        except KvmError as error:
            self._error = error
            return f"{error.name} {COUNT.unpack(self.memory.argument)[0]}"
        (count,) = COUNT.unpack(self.memory.argument)
        return _listing(count, bytes(self.memory.written))

    def masks(self, *_: str) -> str:
        """M: KVM_ARM_GET_REG_WRITABLE_MASKS."""
        assert self.vm is not None
        memory = self.memory
        memory.argument = struct.pack("=QI13I", PAYLOAD, 0, *(0,) * 13)
        memory.written.clear()
        _done(self.vm.ioctl(uapi.KVM_ARM_GET_REG_WRITABLE_MASKS, ARGUMENT, memory))
        table = struct.unpack(f"={len(memory.written) // 8}Q", memory.written)
        shown = [f"{_mask_id(place):x}={mask:x}" for place, mask in enumerate(table) if mask]
        return " ".join(["OK", *shown])

    def run(self, vcpu: str, *_: str) -> str:
        """R: KVM_RUN with immediate_exit."""
        file = self._vcpu(vcpu)
        file.immediate_exit(True)
        _done(file.ioctl(uapi.KVM_RUN, 0, self.memory))
        return "OK"


def _done(answer: object) -> None:
    if not isinstance(answer, int):
        raise answer.refusal.error()


@lru_cache(4096)
def _one_reg(id: str, addr: int) -> bytes:
    """struct kvm_one_reg for a register id as a trace writes it."""
    return ONE_REG.pack(int(id, 16) & MASK, addr)


@lru_cache(4096)
def _size(id: str) -> int:
    """The transfer size in bytes of a register id as a trace writes it."""
    return size_of(int(id, 16) & MASK)


@lru_cache(256)
def _listing(count: int, written: bytes) -> str:
    """KVM_GET_REG_LIST's answer as a trace tells it; the recorder's array was zero before the call."""
    ids = (*struct.unpack(f"={len(written) // 8}Q", written), *(0,) * (count - len(written) // 8))
    return f"OK {count} " + " ".join(f"{id:x}" for id in ids)


def _mask_id(place: int) -> int:
    """The register id that has a place in the table of writable masks: op1 of 0, 1 or 3, CRm and op2."""
    op1 = (0, 1, 3)[place >> 6]
    return int(uapi.ARM64_SYS_REG(3, op1, 0, place >> 3 & 7, place & 7))


def _pattern(seed: int) -> bytes:
    data = _PATTERN[seed] = bytes((seed + 7 * i + (i >> 4)) % 256 for i in range(PAYLOAD_BYTES))
    return data


_PATTERN: dict[int, bytes] = {}
_DO: dict[str, Callable[..., str]] = {
    "N": Machine.new,
    "I": Machine.init,
    "F": Machine.finalize,
    "G": Machine.get,
    "S": Machine.set,
    "P": Machine.pattern,
    "B": Machine.bad_get,
    "b": Machine.bad_set,
    "L": Machine.reg_list,
    "M": Machine.masks,
    "R": Machine.run,
}
