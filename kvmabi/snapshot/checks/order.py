# SPDX-License-Identifier: MIT
"""The stored order, for VMMs that restore in it."""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi import regid
from kvmabi.model import core, sme
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.snapshot.checks.case import V_IDS, VECTOR_IDS, Z_IDS, ZA_IDS, Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.lengths import SVE_VLS
from kvmabi.snapshot.snapshot import Fact

REPLAYED = frozenset({"cloud-hypervisor", "firecracker"})
"""Formats whose VMM restores registers in the stored order."""
PLANNED = frozenset({"json", "kvm", "kvmabi", "model"})
"""Formats that kvmabi restores, by its plan."""
APART = {"firecracker": SVE_VLS}
"""Formats whose VMM takes a length out of the list and writes it before FINALIZE; the rest it restores as it stands."""
BY_SM = Z_IDS | V_IDS | {core.FPSR_ID, sme.FPMR_ID}
BY_ZA = ZA_IDS | {sme.ZT0_ID}
FINALIZED = VECTOR_IDS | {sme.ZT0_ID, SVCR}


def check(case: Case) -> Iterator[Seen]:
    """What a restore in the stored order loses."""
    if case.tcg or case.lacks(Fact.ORDER):
        return
    places = {id: place for place, id in enumerate(case.registers)}
    format = case.snapshot.format
    lost = tuple(_lost(case, places))
    if lost:
        mode = f"SVCR.SM = {case.sm:d}, ZA = {case.za:d}"
        text = f"{mode}; svcr is register {places[SVCR]} of the file, after {len(lost)} that it resets"
        yield Seen(_rule("order-svcr", format), text, (SVCR, *lost))
    if format in APART:
        yield from _apart(case, places, APART[format])
        return
    first = min((places[id] for id in FINALIZED if id in places), default=len(places))
    late = tuple(id for id in case.present(LENGTHS) if places[id] > first)
    if late:
        before = regid.name_of(list(places)[first])
        yield Seen(_rule("order-lengths", format), f"stored after {before}, which needs FINALIZE", late)


def _apart(case: Case, places: dict[int, int], apart: int) -> Iterator[Seen]:
    """The lengths in a list of which the VMM writes one before FINALIZE."""
    for id in case.present(LENGTHS):
        rule = "order-apart" if id == apart else "order-finalize"
        yield Seen(rule, f"{regid.name_of(id)} is register {places[id]} of {len(places)} in one list", (id,))


def _rule(replayed: str, format: str) -> str:
    """The rule that a wrong order breaks: only a VMM that restores in it loses something."""
    if format in REPLAYED:
        return replayed
    return "order-planned" if format in PLANNED else "order-stored"


def _lost(case: Case, places: dict[int, int]) -> Iterator[int]:
    """The registers before svcr that its write resets, or that do not exist before it."""
    end = places.get(SVCR, 0)
    for id, place in places.items():
        if place < end and ((case.sm and id in BY_SM) or (case.za and id in BY_ZA)):
            yield id
