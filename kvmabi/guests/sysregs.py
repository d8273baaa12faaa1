# SPDX-License-Identifier: MIT
"""MSR and MRS of a guest at EL1: which system registers it can read and write, and what a write stores.

A register that userspace does not see on this vCPU is UNDEFINED to its guest. Those whose writes do more than store,
and are not in ``WRITES``, are refused as not modelled.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmabi import regid, tables
from kvmabi.errors import UsageError
from kvmabi.guests.board import GuestError
from kvmabi.guests.vectors import LEN_MASK, SMCR_ID, SVCR_ID, ZCR_ID, Vectors
from kvmabi.model import timer
from kvmabi.model.row import Row

FA64, EZT0 = 1 << 31, 1 << 30
MASK = (1 << 64) - 1
CSSELR_OP1, COUNTERS = 2, frozenset({timer.CNTVCT_ID, timer.CNTPCT_ID})
CORE_REGISTERS = frozenset({"fpsr", "fpcr", "elr_el1", "spsr_el1"})
"""System registers of the guest that are core registers to userspace."""
READ_ONLY = frozenset({"oslsr_el1", "mdscr_el0", "ctr_el0", "dczid_el0"})


def read(vectors: Vectors, name: str) -> int:
    """MRS. Raises GuestError."""
    vcpu = vectors.vcpu
    if name.strip().lower() == "svcr" and vcpu.mode.sme:
        return vcpu.mode.svcr
    row = _row(vectors, name)
    value = vcpu.get(row)
    if not isinstance(value, bytes):
        raise GuestError(f"UNDEFINED: {name}: {value.reason if value is not None else 'it cannot be read'}")
    return int.from_bytes(value, "little")


def write(vectors: Vectors, name: str, value: int) -> None:
    """MSR. Raises GuestError."""
    if not isinstance(value, int) or not 0 <= value <= MASK:
        raise GuestError(f"msr({name!r}) takes a number of 64 bits, not {value!r:.40}")
    row = _row(vectors, name)
    special = WRITES.get(row.id)
    if special is not None:
        special(vectors, row, value)
        return
    if _is_read_only(row.id, name.strip().lower()):
        raise GuestError(f"UNDEFINED: {name} is read-only")
    known = vectors.vcpu.system.sysreg_by_id.get(row.id)
    if known is not None and known.rule:
        raise GuestError(f"kvmabi does not model this: a guest's write of {name}")
    _store(vectors, row, value)


def _store(vectors: Vectors, row: Row, value: int) -> None:
    size = min(row.size_bytes, 8)
    vectors.vcpu.store(row, (value & ((1 << 8 * size) - 1)).to_bytes(size, "little"))
    vectors.vcpu.generation += 1


def _set_svcr(vectors: Vectors, _row: Row, value: int) -> None:
    vectors.set_svcr(value)


def _set_zcr(vectors: Vectors, row: Row, value: int) -> None:
    if vectors.access is not None:
        vectors.access.choose_length()
    _store(vectors, row, value & LEN_MASK)


def _set_smcr(vectors: Vectors, row: Row, value: int) -> None:
    """LEN, and the bits of features that the vCPU has."""
    exposed = vectors.vcpu.mode.exposed
    bits = LEN_MASK | (FA64 if "fa64" in exposed else 0) | (EZT0 if "sme2" in exposed else 0)
    _store(vectors, row, value & bits)


def _set_timer(vectors: Vectors, row: Row, value: int) -> None:
    """ENABLE and IMASK; ISTATUS follows from the count."""
    _store(vectors, row, value & (timer.ENABLE | timer.IMASK))


WRITES: dict[int, Callable[[Vectors, Row, int], None]] = {
    SVCR_ID: _set_svcr,
    ZCR_ID: _set_zcr,
    SMCR_ID: _set_smcr,
    **dict.fromkeys(timer.COMPARES, _set_timer),
}
"""Writes that do more, or less, than store."""


def _row(vectors: Vectors, name: str) -> Row:
    """The row of a system register by its name in the Arm ARM. Raises GuestError."""
    if not isinstance(name, str):
        raise GuestError(f"a system register has a name, such as 'tpidr2_el0', not {name!r:.40}")
    word = name.strip().lower()
    known = vectors.vcpu.system.sysreg_by_id
    try:
        id = regid.parse(word)
    except UsageError:
        names = [*map(regid.name_of, known), *CORE_REGISTERS]
        raise GuestError(f"{name!r} is not a system register: {tables.guess(word, names)}") from None
    if id not in known and word not in CORE_REGISTERS:
        raise GuestError(f"{name!r} is not a system register of this kernel's guests")
    row = vectors.vcpu.row(id)
    if row.get is not None:
        raise GuestError(f"UNDEFINED: {name}: {row.get.reason}")
    return row


def _is_read_only(id: int, name: str) -> bool:
    """Feature ID, identification and counter registers: those with CRn = 0, except op1 = 2, which selects a cache."""
    if name in CORE_REGISTERS:
        return False
    if id in COUNTERS or name in READ_ONLY:
        return True
    op0, op1, crn = id >> 14 & 3, id >> 11 & 7, id >> 7 & 15
    return op0 == 3 and crn == 0 and op1 != CSSELR_OP1
