# SPDX-License-Identifier: MIT
"""SVCR and what it decides: which of V, Z, P, FFR, ZA and ZT0 a vCPU in this mode has."""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi.model import core, sme, sve
from kvmabi.model.mode import SVCR_SM, SVCR_ZA
from kvmabi.model.plan import SVCR
from kvmabi.snapshot.checks.case import SME, Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.snapshot import Fact

ZA_AND_ZT0 = (*sme.ZA_IDS, sme.ZT0_ID)
V_IN_STRUCT = frozenset({"cloud-hypervisor", "crosvm"})
"""Formats that keep V in a struct, where it is zero on a vCPU that has Z."""


def check(case: Case) -> Iterator[Seen]:
    """All that depends on the mode and on which registers there are."""
    yield from _svcr(case)
    for rule, ids in misplaced(case).items():
        yield Seen(rule, _mode(case), ids)
    yield from _missing_za(case)
    yield from _missing_z(case)


def misplaced(case: Case) -> dict[str, tuple[int, ...]]:
    """The registers that do not exist in the mode of the snapshot, by rule."""
    places = {
        "za-while-off" if SVCR in case.registers else "svcr-missing": () if case.za else case.present(ZA_AND_ZT0),
        "v-on-sve": _v(case),
        "z-without-sve": () if case.has_z else case.present((*sve.Z_IDS, *sve.P_IDS, sve.FFR_ID)),
        "ffr-in-streaming": _ffr(case),
    }
    return {rule: ids for rule, ids in places.items() if ids}


def _svcr(case: Case) -> Iterator[Seen]:
    data = case.registers.get(SVCR)
    reserved = 0 if data is None else int.from_bytes(data, "little") & ~(SVCR_SM | SVCR_ZA)
    if reserved:
        yield Seen("svcr-reserved", f"{int.from_bytes(data or b'', 'little'):#x}: reserved are {reserved:#x}", (SVCR,))


def _mode(case: Case) -> str:
    fa64 = {None: "unknown", True: "1", False: "0"}[case.shows("fa64")]
    sme_text = f"SVCR.SM = {case.sm:d}, ZA = {case.za:d}" if SVCR in case.registers else "no svcr"
    streaming = f", ID_AA64SMFR0_EL1.FA64 {fa64}" if case.sm else ""
    return f"{sme_text}{streaming}, {'SVE' if case.has_sve else 'no SVE'}"


def _v(case: Case) -> tuple[int, ...]:
    """V where Z is visible; V that stands in a struct counts only where it is not zero."""
    present = case.present(core.V_IDS) if case.has_z and not case.expected(core.V_IDS[:1] if case.map else ()) else ()
    if case.snapshot.format in V_IN_STRUCT and not any(any(case.content(id)) for id in present):
        return ()
    return present


def _ffr(case: Case) -> tuple[int, ...]:
    """FFR in streaming mode without FA64; one that is zero in a stream of TCG is only a field of the format."""
    if sve.FFR_ID not in case.registers or not case.sm or case.shows("fa64") is not False:
        return ()
    if case.map is not None and case.expected((sve.FFR_ID,)):
        return ()
    return () if case.tcg and not any(case.content(sve.FFR_ID)) else (sve.FFR_ID,)


def _missing_za(case: Case) -> Iterator[Seen]:
    if not case.za or case.lacks(Fact.SME):
        return
    longest = case.longest(SME)
    present = case.present(sme.ZA_IDS)
    rows = longest // 8 if longest else (sme.ZA_IDS.index(present[-1]) + 1 if present else 1)
    wanted = case.expected((*sme.ZA_IDS[:rows], *((sme.ZT0_ID,) if case.shows("sme2") else ())))
    missing = tuple(id for id in wanted if id not in case.registers)
    if missing:
        length = f"{longest} bits, so {rows} rows" if longest else "unknown length"
        yield Seen("za-missing", f"SVCR.ZA = 1, SME vectors of {length}; {len(missing)} registers are missing", missing)


def _missing_z(case: Case) -> Iterator[Seen]:
    if not case.has_z or case.lacks(Fact.SVE):
        return
    ffr = (sve.FFR_ID,) if (case.shows("fa64") if case.sm else case.has_sve) else ()
    missing = tuple(id for id in case.expected((*sve.Z_IDS, *sve.P_IDS, *ffr)) if id not in case.registers)
    if missing:
        yield Seen("vectors-missing", f"{_mode(case)}; {len(missing)} registers are missing", missing)
