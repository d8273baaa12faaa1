# SPDX-License-Identifier: MIT
"""The core registers: struct kvm_regs, one ID for each field, V0-V31 only while Z is not visible."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kvmabi import uapi
from kvmabi.model import state
from kvmabi.model.effects import Effects
from kvmabi.model.facts import Bytes, Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.registermap import Family, RegisterMap
from kvmabi.model.row import Outcome, Owner, Row, checked, refuse, size_of

BASE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE
WORD_BYTES = 4
WORDS = state.CORE_BYTES // WORD_BYTES

V_HIDDEN_BY_SVE = Refusal(
    errno.EINVAL, "V registers have no IDs of their own on a vCPU with SVE", "use z<n>: its low 128 bits are v<n>"
)
V_HIDDEN_BY_SM = Refusal(
    errno.EINVAL,
    "in streaming mode V is a view of Z on a vCPU with SME only",
    "use z<n>, or write svcr with SM = 0 first",
)
BEYOND = Refusal(errno.ENOENT, "the offset lies beyond struct kvm_regs")
NOT_A_FIELD = Refusal(errno.EINVAL, "offset and size do not name a field of struct kvm_regs")


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
USER_REGISTERS = 15  # visible in AArch32 user and system mode; other modes have banked registers up to x30


def narrowed(memory: Bytes) -> int:
    """Returns how many x registers a set of any core register truncates to 32 bits: 0 in a 64-bit pstate mode."""
    mode = memory[state.PSTATE : state.PSTATE + 1][0] & MODE_MASK
    if not mode & MODE_32BIT:
        return 0
    return USER_REGISTERS if mode in (USER_32BIT, SYSTEM_32BIT) else len(X_REGISTERS)


def _allowed(vcpu: Owner, mode: int) -> bool:
    """Whether pstate's mode is available on this vCPU."""
    features = vcpu.mode.features
    if mode == USER_32BIT:
        return vcpu.system.el0_32bit
    if mode in EL1_32BIT:
        return "el1_32bit" in features
    if mode in EL2 and "has_el2" not in features:
        return False
    return mode in EL0_EL1 | EL2 and "el1_32bit" not in features


def _set_pstate(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Store pstate if its mode is available on this vCPU."""
    mode = data[0] & MODE_MASK
    if not _allowed(vcpu, mode):
        return Refusal(errno.EINVAL, f"pstate mode {mode:#x} is not available on this vCPU")
    vcpu.store(row, data)
    count = narrowed(vcpu.memory)
    if count != vcpu.mode.narrowed:
        vcpu.remap(narrowed=count)
    return _narrow(vcpu) if count else None


def _store_and_narrow(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Store a core register while pstate is in a 32-bit mode."""
    vcpu.store(row, data)
    return _narrow(vcpu)


def _narrow(vcpu: Owner) -> Effects:
    """Truncate the x registers and pc to 32 bits."""
    effects = Effects()
    for id, _, offset in (*X_REGISTERS[: vcpu.mode.narrowed], PC):
        vcpu.overwrite(effects, id, offset, vcpu.memory[offset : offset + 4] + bytes(4))
    return effects


def _rows(_facts: Facts, mode: Mode) -> Iterator[Row]:
    set_any = checked(_store_and_narrow) if mode.narrowed else None
    for id, size, offset in PLAIN:
        yield Row(id, size, offset, size, setter=checked(_set_pstate) if id == PSTATE_ID else set_any)
    hidden = (V_HIDDEN_BY_SVE if mode.sve else V_HIDDEN_BY_SM) if mode.has_z else None
    set_v = None if hidden else set_any
    for id, offset in VECTORS:
        yield Row(id, state.V_BYTES, offset, state.V_BYTES, listed=hidden is None, get=hidden, set=hidden, setter=set_v)
    yield Row(FPSR_ID, 4, state.FPSR, 4, setter=set_any)
    yield Row(FPCR_ID, 4, state.FPSR + 4, 4, setter=set_any)


def _refuse(_map: RegisterMap, id: int) -> Row:
    word = id & ~(uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_ARM_CORE)
    if word >= WORDS or word + size_of(id) // WORD_BYTES >= WORDS:
        return refuse(id, BEYOND)
    return refuse(id, NOT_A_FIELD)


def _key(mode: Mode) -> tuple[bool, ...]:
    return mode.has_z, mode.sve, bool(mode.narrowed)


FAMILY = Family("core", (uapi.KVM_REG_ARM_CORE,), _key, _rows, _refuse)
