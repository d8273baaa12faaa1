# SPDX-License-Identifier: MIT
"""VMs and vCPUs as Python objects over the ioctls: ``vcpu["za.h[3]"] = data``, ``vcpu.reg_list()``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kvmabi import regid, uapi
from kvmabi.device import VcpuFile
from kvmabi.errors import KvmError, UsageError
from kvmabi.model.registermap import size_of
from kvmabi.profiles import Kernel

if TYPE_CHECKING:
    from kvmabi.kvm import Kvm

WORD = (1 << 32) - 1
# What people say for the kernel's names of features.
SHORT_NAMES = {
    "pmu": ("pmu_v3",),
    "psci": ("psci_0_2",),
    "ptrauth": ("ptrauth_address", "ptrauth_generic"),
    "el2": ("has_el2",),
}


def feature_bits(kernel: Kernel, features: Iterable[str]) -> int:
    """The bits of features[] in struct kvm_vcpu_init, 32 a word, for features by name.

    Names are a kernel profile's, or their short forms. Raises UsageError for a name that the kernel does not know.
    """
    bits = 0
    for said in features:
        for name in SHORT_NAMES.get(said, (said,)):
            feature = kernel.features.get(name)
            if feature is None:
                known = ", ".join(sorted({*kernel.features, *SHORT_NAMES}))
                raise UsageError(f"kernel {kernel.name} has no vCPU feature {said!r}: take some of {known}")
            bits |= 1 << feature.bit
    return bits


class Vm:
    """A VM of a Kvm: ``fd`` is its file descriptor."""

    def __init__(self, kvm: Kvm, fd: int) -> None:
        self.kvm = kvm
        self.fd = fd

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU. Errors: EEXIST, EINVAL."""
        return Vcpu(self, int(self.kvm.ioctl(self.fd, uapi.KVM_CREATE_VCPU, index)))

    def close(self) -> None:
        """Close the VM's file descriptor."""
        self.kvm.close(self.fd)


class Vcpu:
    """A vCPU: ``fd`` is its file descriptor. Registers are named as in ``kvmabi reg``, or given by id."""

    def __init__(self, vm: Vm, fd: int) -> None:
        self.vm = vm
        self.kvm = vm.kvm
        self.fd = fd

    def init(self, features: Iterable[str] = (), *, target: int | None = None) -> None:
        """KVM_ARM_VCPU_INIT with features by name ("sve", "sme", "pmu_v3" …). Errors: EINVAL, ENOENT."""
        init = uapi.ffi.new("struct kvm_vcpu_init *")
        init.target = (self.kvm.kernel.target if target is None else target) & WORD
        bits = feature_bits(self.kvm.kernel, features)
        init.features = [bits >> 32 * n & WORD for n in range(len(init.features))]
        self._ioctl(uapi.KVM_ARM_VCPU_INIT, init)

    def finalize(self, feature: int = uapi.KVM_ARM_VCPU_VEC) -> None:
        """KVM_ARM_VCPU_FINALIZE: fixes both vector lengths. Errors: ENOEXEC, EINVAL, EPERM."""
        self._ioctl(uapi.KVM_ARM_VCPU_FINALIZE, uapi.ffi.new("int *", uapi.ffi.cast("int", feature)))

    def reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the ids of the registers in view, in the kernel's order. Errors: ENOEXEC, EPERM."""
        room = 0
        while True:
            ids = uapi.ffi.new("struct kvm_reg_list *", {"n": room, "reg": room})
            try:
                self._ioctl(uapi.KVM_GET_REG_LIST, ids)
            except KvmError as error:
                if error.name != "E2BIG":
                    raise
                room = ids.n
                continue
            return list(uapi.ffi.unpack(ids.reg, ids.n)) if ids.n else []

    def names(self) -> list[str]:
        """The names of the registers in view, in the kernel's order."""
        return [regid.name_of(id) for id in self.reg_list()]

    def __getitem__(self, register: str | int) -> bytes:
        """KVM_GET_ONE_REG: the register's value, as many bytes as its id says, the lowest first."""
        id = _id(register)
        value = uapi.ffi.new("char[]", size_of(id))
        self._one_reg(uapi.KVM_GET_ONE_REG, id, value)
        return bytes(uapi.ffi.buffer(value))

    def __setitem__(self, register: str | int, value: bytes | int) -> None:
        """KVM_SET_ONE_REG: bytes as long as the register, or a number of that many bytes."""
        id = _id(register)
        size_bytes = size_of(id)
        if isinstance(value, int):
            number = value
            try:
                value = number.to_bytes(size_bytes, "little")
            except OverflowError:
                raise UsageError(f"{regid.name_of(id)}: {number:#x} is no number of {size_bytes} bytes") from None
        try:
            value = bytes(memoryview(value))
        except TypeError:
            raise UsageError(f"{regid.name_of(id)}: takes bytes or a number") from None
        if len(value) != size_bytes:
            raise UsageError(f"{regid.name_of(id)}: has {size_bytes} bytes, {len(value)} were given")
        self._one_reg(uapi.KVM_SET_ONE_REG, id, uapi.ffi.from_buffer(value))

    def __contains__(self, register: str | int) -> bool:
        """Whether KVM_GET_REG_LIST names the register now."""
        return _id(register) in self.reg_list()

    def __iter__(self) -> Iterator[int]:
        """The ids of the registers in view, in the kernel's order."""
        return iter(self.reg_list())

    def read(self, register: str | int) -> int:
        """A register's value as a number."""
        return int.from_bytes(self[register], "little")

    def run(self) -> None:
        """KVM_RUN with kvm_run.immediate_exit set; raises KvmError with EINTR where a guest would have run."""
        file = self.kvm.file(self.fd)
        if not isinstance(file, VcpuFile):
            raise UsageError(f"file descriptor {self.fd} is no vCPU's")
        file.immediate_exit(True)
        try:
            self._ioctl(uapi.KVM_RUN, 0)
        finally:
            file.immediate_exit(False)

    def _one_reg(self, request: int, id: int, payload: Any) -> None:
        addr = int(uapi.ffi.cast("uintptr_t", payload))
        self._ioctl(request, uapi.ffi.new("struct kvm_one_reg *", {"id": id, "addr": addr}))

    def _ioctl(self, request: int, arg: Any) -> None:
        self.kvm.ioctl(self.fd, request, arg)


def _id(register: str | int) -> int:
    if isinstance(register, str):
        return regid.parse(register)
    if not 0 <= register < 1 << 64:
        raise UsageError(f"a register id has 64 bits, {register:#x} has more")
    return register
