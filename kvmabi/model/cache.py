# SPDX-License-Identifier: MIT
"""CLIDR_EL1 and CCSIDR_EL1: userspace can set a cache geometry within the limits of CTR_EL0."""

from __future__ import annotations

import errno

from kvmabi import regid
from kvmabi.model.facts import Facts
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import Outcome, Owner, Row

CLIDR_ID = regid.parse("clidr_el1")
CTR_ID = regid.parse("ctr_el0")
CTR_IDC = 1 << 28
CLIDR_RES0 = (1 << 64) - (1 << 47)
CACHES = 14  # seven levels, each with a data or unified cache (even) and an instruction cache (odd)
SEPARATE = 3  # CLIDR_EL1.Ctype<n> of a level with both
INSTRUCTION = 1  # bit 0 of CSSELR_EL1, the index of CCSIDR_EL1

BAD_CLIDR = Refusal(
    errno.EINVAL,
    "a reserved bit is set, or the host has CTR_EL0.IDC = 0 and LoC, or LoUIS and LoUU, are 0",
    "keep bits 63:47 zero, LoC above 0, and LoUIS or LoUU above 0",
)
SHORT_LINE = Refusal(errno.EINVAL, "the cache line is shorter than CTR_EL0's shortest")
NOT_THE_HOSTS = Refusal(errno.EINVAL, "the cache geometry belongs to the host and cannot be changed")


def set_clidr(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set CLIDR_EL1 to any geometry that does not promise a coherence that the host lacks."""
    value = int.from_bytes(data, "little")
    loc, louis, louu = value >> 24 & 7, value >> 21 & 7, value >> 27 & 7
    coherent = not loc or not (louis or louu)
    if value & CLIDR_RES0 or (coherent and not _ctr(vcpu.system) & CTR_IDC):
        return BAD_CLIDR
    vcpu.store(row, data)
    return None


def host_has(facts: Facts, index: int) -> bool:
    """Whether the host has the cache that CSSELR_EL1 selects with ``index``."""
    kind = facts.host.registers.get(CLIDR_ID, 0) >> index // 2 * 3 & 7
    if index & INSTRUCTION:
        return kind in (INSTRUCTION, SEPARATE)
    return kind > INSTRUCTION


def line_field(facts: Facts, index: int) -> int:
    """CCSIDR_EL1.LineSize of CTR_EL0's shortest line: log2 of the length in bytes, minus 4."""
    ctr = _ctr(facts)
    log2_words = ctr & 0xF if index & INSTRUCTION else ctr >> 16 & 0xF
    return max(0, log2_words + 2 - 4)


def set_ccsidr(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set CCSIDR_EL1 of one cache: any geometry whose lines are at least CTR_EL0's shortest."""
    if data[0] & 7 < line_field(vcpu.system, row.id & 0xFF):
        return SHORT_LINE
    vcpu.store(row, data)
    return None


def set_host_ccsidr(vcpu: Owner, row: Row, data: bytes) -> Outcome:
    """Set CCSIDR_EL1 where the only valid value is the host's."""
    if data != vcpu.memory[row.offset : row.offset + 4]:
        return NOT_THE_HOSTS
    return None


def _ctr(facts: Facts) -> int:
    return facts.host.registers.get(CTR_ID, 0)
