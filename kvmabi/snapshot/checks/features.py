# SPDX-License-Identifier: MIT
"""The features of INIT and the vector lengths: do they go with the registers, and does the target give them?"""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi import regid
from kvmabi.model import sme
from kvmabi.model.row import size_of
from kvmabi.snapshot import infer
from kvmabi.snapshot.checks import modes
from kvmabi.snapshot.checks.case import SME, SVE, VLS, Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.checks.vectors import Z_AND_P
from kvmabi.snapshot.lengths import Lengths, impossible, of_vqs

SHOWN = frozenset({"sve", "sme", "pmu_v3", "ptrauth_address", "ptrauth_generic", "has_el2"})
"""Features that show in the list of every vCPU that has them, if the format holds their registers."""


def features(case: Case) -> Iterator[Seen]:
    """Features that the registers contradict, and features that the target does not give."""
    if case.tcg:
        return
    if case.given_features is not None:
        shown = infer.signs(case.registers)
        explained = {id for ids in modes.misplaced(case).values() for id in ids}
        for name, ids in shown.items():
            if name not in case.given_features and not explained.issuperset(ids):
                yield Seen("features-mismatch", f"{name} is not given, and {len(ids)} of its registers are there", ids)
        for name in sorted(case.given_features & SHOWN - shown.keys()):
            yield Seen("features-mismatch", f"{name} is given, and none of its registers is there")
    trial = case.trial
    if trial is not None and trial.failure:
        yield Seen("features-refused", f"{', '.join(sorted(case.features)) or 'no features'}: {trial.failure}")


def lengths(case: Case) -> Iterator[Seen]:
    """Vector lengths that are missing, contradict what the user gives, or that the target cannot give."""
    for kind, given in ((SVE, case.target.sve_bits), (SME, case.target.sme_bits)):
        id = VLS[kind]
        known = case.lengths(kind)
        if given and known and known != given:
            yield Seen(
                "lengths-differ", f"{kind.upper()}: the file has {_bits(known)}, given are {_bits(given)}", (id,)
            )
        yield from _denied(case, kind, given)
        yield from _impossible(kind, known, given)
        if case.tcg:
            continue
        yield from _missing(case, kind)
        yield from _target(case, kind, known)


def _denied(case: Case, kind: str, given: Lengths | None) -> Iterator[Seen]:
    """Registers of an extension that the vCPU does not have, as the user or the file says."""
    stored = case.snapshot.sve_bits if kind == SVE else case.snapshot.sme_bits
    if () not in (given, stored):
        return
    ids = (VLS[kind], *(Z_AND_P if kind == case.z_kind else ()), *((*sme.ZA_IDS, sme.ZT0_ID) if kind == SME else ()))
    there = case.present(ids)
    if there:
        yield Seen(
            "lengths-differ", f"{kind.upper()}: given are none, and {len(there)} of its registers are there", there
        )


def _impossible(kind: str, *sets: Lengths | None) -> Iterator[Seen]:
    for lengths in dict.fromkeys(filter(None, sets)):
        why = impossible(kind, lengths)
        if why:
            yield Seen("lengths-impossible", f"{kind.upper()}: {_bits(lengths)}: {why}", (VLS[kind],))


def _missing(case: Case, kind: str) -> Iterator[Seen]:
    id = VLS[kind]
    wanted = kind in case.features and case.expected((id,)) and case.holds_lengths
    data = case.registers.get(id)
    if wanted and (data is None or (len(data) == size_of(id) and not any(data))):
        what = "is not in the file" if data is None else "holds no length"
        yield Seen("vls-missing", f"the vCPU has {kind.upper()}, and {regid.name_of(id)} {what}", (id,))


def _target(case: Case, kind: str, known: tuple[int, ...] | None) -> Iterator[Seen]:
    trial, id = case.trial, VLS[kind]
    if trial is None or trial.map is None or not known:
        return
    system = case.target.system
    assert system is not None
    offered = of_vqs(system.sve_vqs if kind == SVE else system.sme_vqs)
    if id in trial.refused:
        text = f"{kind.upper()}: the guest has {_bits(known)}, the target {_bits(offered)}"
        yield Seen("lengths-refused", text, (id,), ({"guest_bits": known, "target_bits": offered},))
    elif known != offered and kind in trial.features:
        yield Seen("lengths-truncated", f"{kind.upper()}: {_bits(known)} of the target's {_bits(offered)}", (id,))


def _bits(lengths: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, lengths))} bits" if lengths else "none"
