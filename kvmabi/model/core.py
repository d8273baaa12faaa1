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
FPSR_ID = BASE | uapi.KVM_REG_SIZE_U32 | state.FPSR // WORD_BYTES
FPCR_ID = FPSR_ID + 1
PSTATE_ID = BASE | uapi.KVM_REG_SIZE_U64 | state.PSTATE // WORD_BYTES

MODE_MASK, MODE_32BIT = 0x1F, 0x10
NARROWED = (*PLAIN[:15], PLAIN[32])  # x0-x14 and pc: r0-r14 and the 32-bit pc
AARCH64_MODES = frozenset({0x0, 0x4, 0x5})


def _set_pstate(vcpu: Vcpu, row: Row, data: bytes) -> list[Effect]:
    """Store pstate if its mode is one that the vCPU can be in; 32-bit user mode narrows x0-x14 and pc."""
    mode = data[0] & MODE_MASK
    if mode not in AARCH64_MODES and mode != MODE_32BIT:
        raise vcpu.refused(row, Refusal(errno.EINVAL, f"pstate's mode {mode:#x} is none that the vCPU can be in"))
    vcpu.store(row, data)
    if mode != MODE_32BIT:
        return []
    effects: list[Effect] = []
    for id, _, offset in NARROWED:
        effects += vcpu.overwrite(id, offset, vcpu.file.memory[offset : offset + 4] + bytes(4))
    return effects


def _rows(_system: System, mode: Mode) -> Iterator[Row]:
    for id, size, offset in PLAIN:
        yield Row(id, size, offset, size, rule=_set_pstate if id == PSTATE_ID else None)
    hidden = (V_HIDDEN_BY_SVE if mode.sve else V_HIDDEN_BY_SM) if mode.has_z else None
    for id, offset in VECTORS:
        yield Row(id, state.V_BYTES, offset, state.V_BYTES, listed=hidden is None, get=hidden, set=hidden)
    yield Row(FPSR_ID, 4, state.FPSR, 4)
    yield Row(FPCR_ID, 4, state.FPSR + 4, 4)


def _refuse(_system: System, _mode: Mode, id: int) -> Row:
    row = refuse(id, NOT_A_FIELD)
    word = id & ~(uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_ARM_CORE)
    if word >= WORDS or word + row.size_bytes // WORD_BYTES >= WORDS:
        row.get = row.set = BEYOND
    return row


FAMILY = Family("core", (uapi.KVM_REG_ARM_CORE,), lambda mode: (mode.has_z, mode.sve), _rows, _refuse)
