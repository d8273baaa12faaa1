# SPDX-License-Identifier: MIT
"""The register file of a vCPU: one flat buffer.

Every register has one fixed place, whatever the vCPU's mode; the register map says which places are
visible. Vector registers are 256 bytes apart, the most that SVE and SME allow, and what lies beyond the valid
length of one is zero: a get is a plain copy of the transfer size.
"""

from __future__ import annotations

import mmap
import os

from kvmabi import uapi

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




def sysreg_offset(slot: int) -> int:
    """The place of the system register with a slot of the table (profiles/sysregs.toml)."""
    return SYSREG + slot * 8


SPARE_FILES = 8


class RegisterFile:
    """A vCPU's registers as ``SIZE_BYTES`` bytes of memory that other processes can map: ``fd`` is its memfd.

    New memory costs more than all that a short-lived vCPU does, so a closed file's memory is zeroed and kept for the
    next one, unless it was ``shared``: the process that mapped it may go on writing. A child of fork has the
    parent's memory, not a copy, and leaves it alone.
    """

    __slots__ = ("_forks", "fd", "memory", "shared")

    def __init__(self) -> None:
        self.shared = False
        self._forks = _forks
        if _spare:
            self.fd, self.memory = _spare.pop()
            return
        self.fd = os.memfd_create("kvm-registers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, SIZE_BYTES)
            self.memory = mmap.mmap(self.fd, SIZE_BYTES)
        except OSError:
            os.close(self.fd)
            raise

    def zero(self, start: int, end: int) -> None:
        """Zero the bytes from offset ``start`` up to ``end``."""
        self.memory[start:end] = bytes(end - start)

    def close(self) -> None:
        """Give the memory back. Every use of the closed file is a ValueError; a second call does nothing."""
        if self.memory is CLOSED:
            return
        if len(_spare) < SPARE_FILES and not self.shared and self._forks == _forks:
            self.zero(0, SIZE_BYTES)
            _spare.append((self.fd, self.memory))
        else:
            self.memory.close()
            os.close(self.fd)
        self.memory = CLOSED


_spare: list[tuple[int, mmap.mmap]] = []
_forks = 0


def _after_fork() -> None:
    """In the child: the spare files are the parent's."""
    global _forks
    _forks += 1
    _spare.clear()


os.register_at_fork(after_in_child=_after_fork)
CLOSED = mmap.mmap(-1, 1)
"""The memory of a closed register file."""
CLOSED.close()
