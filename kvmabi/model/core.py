# SPDX-License-Identifier: MIT
"""The core registers: struct kvm_regs, one id for each field, V0-V31 only while Z is not in view."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kvmabi import uapi
from kvmabi.model import state
from kvmabi.model.mode import Mode
from kvmabi.model.registermap import Effect, Family, Refusal, Row, refuse

if TYPE_CHECKING:
    from kvmabi.model.system import System
    from kvmabi.model.vcpu import Vcpu

BASE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE
WORD_BYTES = 4
WORDS = state.CORE_BYTES // WORD_BYTES

V_HIDDEN_BY_SVE = Refusal(
    errno.EINVAL, "V registers have no ids of their own on a vCPU with SVE", "use z<n>: its low 128 bits are v<n>"
)
V_HIDDEN_BY_SM = Refusal(
    errno.EINVAL,
    "in streaming mode V is a view of Z on a vCPU with SME only",
    "use z<n>, or write svcr with SM = 0 first",
)
BEYOND = Refusal(errno.ENOENT, "the offset lies beyond struct kvm_regs")
NOT_A_FIELD = Refusal(errno.EINVAL, "offset and size name no field of struct kvm_regs")


def _fields() -> Iterator[tuple[int, int]]:
    """(offset, size) in bytes of every field but V, FPSR and FPCR, in the kernel's order."""
    regs = state.CORE + uapi.ffi.offsetof("struct kvm_regs", "regs")
    for offset in range(regs, regs + uapi.ffi.sizeof("struct user_pt_regs"), 8):
        yield offset, 8
    for offset in range(uapi.ffi.offsetof("struct kvm_regs", "sp_el1"), _end_of("spsr"), 8):
        yield offset, 8


def _end_of(field: str) -> int:
    kind = dict(uapi.ffi.typeof("struct kvm_regs").fields)[field]
    return int(kind.offset + uapi.ffi.sizeof(kind.type))


_SIZES = {4: uapi.KVM_REG_SIZE_U32, 8: uapi.KVM_REG_SIZE_U64, 16: uapi.KVM_REG_SIZE_U128}
PLAIN = tuple((BASE | _SIZES[size] | offset // WORD_BYTES, size, offset) for offset, size in _fields())
VECTORS = tuple(
    (BASE | uapi.KVM_REG_SIZE_U128 | (state.V + n * state.V_BYTES) // WORD_BYTES, state.V + n * state.V_BYTES)
    for n in range(32)
)
V_IDS = tuple(id for id, _ in VECTORS)
V_PLACES = tuple((id, offset, state.V_BYTES) for id, offset in VECTORS)
FPSR_ID = BASE | uapi.KVM_REG_SIZE_U32 | state.FPSR // WORD_BYTES
FPCR_ID = FPSR_ID + 1
PSTATE_ID = BASE | uapi.KVM_REG_SIZE_U64 | state.PSTATE // WORD_BYTES

MODE_MASK, MODE_32BIT = uapi.PSR_MODE_MASK | uapi.PSR_MODE32_BIT, uapi.PSR_MODE32_BIT
USER_32BIT, SYSTEM_32BIT = 0x10, 0x1F
EL0_EL1 = frozenset({uapi.PSR_MODE_EL0t, uapi.PSR_MODE_EL1t, uapi.PSR_MODE_EL1h})
EL2 = frozenset({uapi.PSR_MODE_EL2t, uapi.PSR_MODE_EL2h})
EL1_32BIT = frozenset({0x11, 0x12, 0x13, 0x17, 0x1B, SYSTEM_32BIT})  # FIQ, IRQ, SVC, ABT, UND, SYS
X_REGISTERS, PC = PLAIN[:31], PLAIN[32]
USER_REGISTERS = 15  # of which user and system mode see the AArch32 ones; other modes have banked ones up to x30


def _allowed(vcpu: Vcpu, mode: int) -> bool:
    """Whether pstate's mode is one that the vCPU can be in."""
    features = vcpu.mode.features
    if mode == USER_32BIT:
        return vcpu.system.el0_32bit
    if mode in EL1_32BIT:
        return "el1_32bit" in features
    if mode in EL2 and "has_el2" not in features:
        return False
    return mode in EL0_EL1 | EL2 and "el1_32bit" not in features


def _set_pstate(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    """Store pstate if its mode is one that the vCPU can be in."""
    mode = data[0] & MODE_MASK
    if not _allowed(vcpu, mode):
        raise vcpu.refused(row, Refusal(errno.EINVAL, f"pstate's mode {mode:#x} is none that the vCPU can be in"))
    return _set(vcpu, row, data)


def _set(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    """Store a core register; while pstate is in a 32-bit mode every set narrows the x registers and pc to 32 bits."""
    vcpu.store(row, data)
    mode = vcpu.file.memory[state.PSTATE] & MODE_MASK
    if not mode & MODE_32BIT:
        return []
    count = USER_REGISTERS if mode in (USER_32BIT, SYSTEM_32BIT) else len(X_REGISTERS)
    effects: list[Effect] = []
    for id, _, offset in (*X_REGISTERS[:count], PC):
        effects += vcpu.overwrite(id, offset, vcpu.file.memory[offset : offset + 4] + bytes(4))
    return effects


def _rows(_system: System, mode: Mode) -> Iterator[Row]:
    for id, size, offset in PLAIN:
        yield Row(id, size, offset, size, rule=_set_pstate if id == PSTATE_ID else _set)
    hidden = (V_HIDDEN_BY_SVE if mode.sve else V_HIDDEN_BY_SM) if mode.has_z else None
    for id, offset in VECTORS:
        yield Row(id, state.V_BYTES, offset, state.V_BYTES, listed=hidden is None, get=hidden, set=hidden, rule=_set)
    yield Row(FPSR_ID, 4, state.FPSR, 4, rule=_set)
    yield Row(FPCR_ID, 4, state.FPSR + 4, 4, rule=_set)


def _refuse(_system: System, _mode: Mode, id: int) -> Row:
    row = refuse(id, NOT_A_FIELD)
    word = id & ~(uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_ARM_CORE)
    if word >= WORDS or word + row.size_bytes // WORD_BYTES >= WORDS:
        row.get = row.set = BEYOND
    return row


FAMILY = Family("core", (uapi.KVM_REG_ARM_CORE,), lambda mode: (mode.has_z, mode.sve), _rows, _refuse)
