# SPDX-License-Identifier: MIT
"""The 32-bit numbers by which QEMU's messages name registers, and the register IDs that they stand for.

QEMU keeps system registers by a number of its own and prints that. Bit 28 marks an AArch64 register: the rest is the
low half of its ID. Without it the register is one of AArch32: bit 29 is its non-secure bank, bit 15 says that it has
64 bits.
"""

from __future__ import annotations

from kvmabi import regid, uapi

AARCH64 = 1 << 28
NON_SECURE = 1 << 29
WIDE = 1 << 15
COPROCESSORS = (14, 15)
"""The coprocessors of AArch32 whose registers there are."""
MOST = (1 << 32) - 1
_COPROC = 0xFFF << uapi.KVM_REG_ARM_COPROC_SHIFT


def id_of(number: int) -> int | None:
    """The register ID that a number stands for; an ID stands for itself. None for a number that is neither.

    >>> [hex(id_of(number) or 0) for number in (0x1013C096, 0x200F8012, 0x603000000013C096)]
    ['0x603000000013c096', '0x40300000200f0012', '0x603000000013c096']
    >>> id_of(0x40000000) is None
    True
    """
    if number > MOST:
        known = number >> 56 in (uapi.KVM_REG_ARM64 >> 56, uapi.KVM_REG_ARM >> 56)
        return number if known and number < 1 << 64 else None
    if number & AARCH64:
        return _aarch64(number & ~AARCH64)
    if number & NON_SECURE and number >> 16 & 0x1FFF in COPROCESSORS:
        size = uapi.KVM_REG_SIZE_U64 if number & WIDE else uapi.KVM_REG_SIZE_U32
        return uapi.KVM_REG_ARM | size | number & ~WIDE
    return None


def _aarch64(low: int) -> int | None:
    """The ID whose low half is ``low``: the half that is missing has only the architecture and the size."""
    if regid.FAMILIES.get((low & _COPROC) >> uapi.KVM_REG_ARM_COPROC_SHIFT) is None or low >> 28:
        return None
    demux = low & _COPROC == uapi.KVM_REG_ARM_DEMUX
    return uapi.KVM_REG_ARM64 | (uapi.KVM_REG_SIZE_U32 if demux else uapi.KVM_REG_SIZE_U64) | low


def is_aarch32(id: int) -> bool:
    """Whether an ID names a register of AArch32, as streams of QEMU's TCG have them."""
    return id >> 56 == uapi.KVM_REG_ARM >> 56


def title(id: int) -> str:
    """A register's name; of an AArch32 one its coprocessor, opc1, CRn, CRm and opc2 as in assembly.

    >>> title(0x603000000013C096), title(0x40200000200E0298)
    ('smcr_el1', 'p14, 3, c0, c5, 0 (AArch32)')
    """
    if not is_aarch32(id):
        return regid.name_of(id)
    coproc, opc1, crn, crm, opc2 = id >> 16 & 0xFF & ~0x20, id >> 3 & 0xF, id >> 11 & 0xF, id >> 7 & 0xF, id & 7
    if id & uapi.KVM_REG_SIZE_MASK == uapi.KVM_REG_SIZE_U64:
        return f"p{coproc}, {opc1}, c{crm} (AArch32)"
    return f"p{coproc}, {opc1}, c{crn}, c{crm}, {opc2} (AArch32)"
