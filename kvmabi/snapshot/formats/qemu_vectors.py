# SPDX-License-Identifier: MIT
"""FP, SVE and SME registers in section ``cpu`` of a QEMU stream, subsection by subsection."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from kvmabi.snapshot.formats.qemu_cpu_layout import (
    FPCR_FPSR,
    FPCR_MASK,
    FPMR,
    FPSR_MASK,
    SME,
    SUBSECTIONS,
    SVE,
    VFP,
    Z_HIGH_WORDS,
    Z_LOW_WORDS,
    ZA_ROWS,
    ZT0,
    ZT0_WORDS,
    unlisted,
)
from kvmabi.snapshot.formats.qemu_layout import payloads
from kvmabi.snapshot.snapshot import Problem

_FA64_BIT: Final = 63


def add_vectors(
    data: bytes,
    found: Mapping[str, int],
    registers: dict[int, bytes],
    sve: bool,
    sm: bool,
    base: int,
    index: int,
    problems: list[Problem],
) -> None:
    """Add FP, SVE and SME registers: V where the vCPU has no Z, and what each subsection holds."""
    ids = unlisted()
    has_z = sve or sm
    for name in (VFP, SVE) if has_z else (VFP,):
        if name not in found:
            text = f"vCPU {index} has no subsection {name}: its registers are missing"
            problems.append(Problem("missing-subsection", text, base, index))
    if VFP in found:
        begin = found[VFP]
        lows = _LOWS.unpack(payloads(data[begin : begin + _LOWS.size]))
        if not has_z:
            registers.update(zip(ids.v, lows, strict=True))
        elif SVE in found:
            highs = _HIGHS.unpack(payloads(data[found[SVE] : found[SVE] + _HIGHS.size]))
            registers.update((id, low + high + _BEYOND) for id, low, high in zip(ids.z, lows, highs, strict=True))
        _control(data, found, registers, base, index, problems)
    if has_z and SVE in found:
        begin = found[SVE] + _HIGHS.size
        *predicates, ffr = _PREDICATES.unpack(payloads(data[begin : begin + _PREDICATES.size]))
        registers.update(zip(ids.p, predicates, strict=True))
        if not sm or _has_fa64(registers):
            registers[ids.core["ffr"]] = ffr
    if SME in found:
        registers.update(zip(ids.za, _ROWS.unpack(payloads(data[found[SME] : found[SME] + _ROWS.size])), strict=True))
    if ZT0 in found:
        registers[ids.core["zt0"]] = payloads(data[found[ZT0] : found[ZT0] + 8 * ZT0_WORDS])
    if FPMR in found:
        registers.setdefault(ids.core["fpmr"], payloads(data[found[FPMR] : found[FPMR] + 8]))


_LOWS: Final = Struct("16s" * 32)
_HIGHS: Final = Struct("112s" * 32)
_PREDICATES: Final = Struct("32s" * 17)
_ROWS: Final = Struct("256s" * ZA_ROWS)
_BEYOND: Final = bytes(256 - 8 * (Z_LOW_WORDS + Z_HIGH_WORDS))
"""Bits 1024 to 2047 of Z, which the stream does not hold."""


def _has_fa64(registers: Mapping[int, bytes]) -> bool:
    smfr0 = registers.get(unlisted().core["id_aa64smfr0_el1"])
    return smfr0 is not None and bool(int.from_bytes(smfr0, "little") >> _FA64_BIT)


def _control(
    data: bytes,
    found: Mapping[str, int],
    registers: dict[int, bytes],
    base: int,
    index: int,
    problems: list[Problem],
) -> None:
    """FPSR and FPCR: together as the AArch32 FPSCR, or each in a subsection where that cannot hold them."""
    layout = SUBSECTIONS[VFP][1]
    at = found[VFP] + layout.at["fpscr"]
    fpscr = int.from_bytes(data[at : at + 4], "big")
    fpcr, fpsr = fpscr & FPCR_MASK, fpscr & FPSR_MASK
    if FPCR_FPSR in found:
        if fpscr:
            text = f"vCPU {index} has FPCR and FPSR twice, in {VFP} and in {FPCR_FPSR}: the latter is taken"
            problems.append(Problem("fpscr-twice", text, base + at, index))
        fpcr, fpsr = SUBSECTIONS[FPCR_FPSR][1].struct.unpack_from(data, found[FPCR_FPSR])
        if (fpcr | fpsr) >> 32:
            text = f"vCPU {index}: FPCR or FPSR has bits beyond its 32"
            problems.append(Problem("value-too-wide", text, base + found[FPCR_FPSR], index))
    core = unlisted().core
    registers[core["fpsr"]] = (fpsr & 0xFFFFFFFF).to_bytes(4, "little")
    registers[core["fpcr"]] = (fpcr & 0xFFFFFFFF).to_bytes(4, "little")
