# SPDX-License-Identifier: MIT
"""The register file of a vCPU: one flat buffer.

Every register has one fixed place, whatever the vCPU's mode; the register map says which places are
visible. Vector registers are 256 bytes apart, the most that SVE and SME allow, and what lies beyond the valid
length of one is zero: a get is a plain copy of the transfer size.
"""

from __future__ import annotations

import mmap
from functools import cache
from typing import Any

from kvmabi import forks, uapi
from kvmabi.memfd import MemFd

Z_BYTES = 256
P_BYTES = 32
ZT_BYTES = 64
VLS_BYTES = 64
ZA_ROWS = 256
FW_SLOTS = 16
CCSIDR_SLOTS = 16


def _up(value: int, to: int) -> int:
    return (value + to - 1) // to * to


CORE = 0
CORE_BYTES = uapi.ffi.sizeof("struct kvm_regs")
Z = _up(CORE_BYTES, Z_BYTES)
P = Z + 32 * Z_BYTES
FFR = P + 16 * P_BYTES
ZA = _up(FFR + P_BYTES, Z_BYTES)
ZT0 = ZA + ZA_ROWS * Z_BYTES
SVE_VLS = ZT0 + ZT_BYTES
SME_VLS = SVE_VLS + VLS_BYTES
FW = SME_VLS + VLS_BYTES
FW_BMAP = FW + FW_SLOTS * 8
CCSIDR = FW_BMAP + FW_SLOTS * 8
SYSREG = CCSIDR + CCSIDR_SLOTS * 4
SYSREG_SLOTS = 1024
SIZE_BYTES = _up(SYSREG + SYSREG_SLOTS * 8, mmap.PAGESIZE)

V = CORE + uapi.ffi.offsetof("struct kvm_regs", "fp_regs")
V_BYTES = 16
FPSR = V + uapi.ffi.offsetof("struct user_fpsimd_state", "fpsr")
BANKED_EL1 = tuple(CORE + uapi.ffi.offsetof("struct kvm_regs", name) for name in ("sp_el1", "elr_el1", "spsr"))
"""SP_EL1, ELR_EL1 and SPSR_EL1: core registers to userspace, system registers to the kernel."""
PSTATE = CORE + uapi.ffi.offsetof("struct kvm_regs", "regs") + uapi.ffi.offsetof("struct user_pt_regs", "pstate")


@cache
def zeroes(size_bytes: int) -> bytes:
    """As many zeroes."""
    return bytes(size_bytes)


def sysreg_offset(slot: int) -> int:
    """The place of the system register with a slot of the table (profiles/sysregs.toml)."""
    return SYSREG + slot * 8


class RegisterFile:
    """A vCPU's registers as ``SIZE_BYTES`` bytes of memory that other processes can map: ``fd`` is its memfd.

    ``memory`` is given where the registers are part of another file, and ``fd`` is -1.
    """

    __slots__ = ("_forks", "_memfd", "_pool", "fd", "memory", "shared")

    def __init__(self, pool: RegisterFiles | None = None, memory: Any = None) -> None:
        self._pool = pool
        self._forks = forks.count
        self.shared = False
        """Another process has mapped the memory, and may write to it even when the file is closed."""
        self._memfd: MemFd | None = None
        if memory is not None:
            self.fd = -1
            self.memory = memory
            return
        self._memfd = MemFd("kvm-registers", SIZE_BYTES)
        self.fd = self._memfd.fd
        self.memory = self._memfd.memory

    def zero(self, start: int, end: int) -> None:
        """Zero the bytes from offset ``start`` up to ``end``."""
        self.memory[start:end] = zeroes(end - start)

    @property
    def is_reusable(self) -> bool:
        """Only this process has the memory. A child of fork has its parent's memory, not a copy."""
        return not self.shared and self._forks == forks.count

    def close(self) -> None:
        """Give the memory back to the pool, or to the kernel."""
        if self._pool is None or not self._pool.give_back(self):
            self.free()

    def free(self) -> None:
        """Give the memory back to the kernel; a second call does nothing."""
        self.memory = CLOSED
        if self._memfd is not None:
            self._memfd.close()
            self._memfd = None

    def __del__(self) -> None:
        """A system that is dropped takes its spare files along."""
        self.free()


class RegisterFiles:
    """Makes register files and keeps a few closed ones: new memory costs more than a short-lived vCPU's whole life.

    A file that another process mapped is not used again.
    """

    KEPT = 8

    def __init__(self) -> None:
        self._spare: list[RegisterFile] = []
        self._is_closed = False

    def take(self) -> RegisterFile:
        """A register file full of zeroes. Errors: OSError."""
        while self._spare:
            file = self._spare.pop()
            if file.is_reusable:
                return file
            file.free()
        return RegisterFile(self)

    def give_back(self, file: RegisterFile) -> bool:
        """Keep a file that was closed; False if there is no room, or another process has it."""
        if self._is_closed or len(self._spare) >= self.KEPT or not file.is_reusable:
            return False
        file.zero(0, SIZE_BYTES)
        self._spare.append(file)
        return True

    def close(self) -> None:
        """Give the spare memory back to the kernel, and from now on every closed file."""
        self._is_closed = True
        while self._spare:
            self._spare.pop().free()


CLOSED = mmap.mmap(-1, 1)
"""The memory of a vCPU without a register file: every use is a ValueError."""
CLOSED.close()
