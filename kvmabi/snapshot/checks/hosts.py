# SPDX-License-Identifier: MIT
"""The target's list and values: registers that only one side has, and values that belong to another host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvmabi import regid, uapi
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.model.registermap import FIXED_BITS
from kvmabi.profiles import idnames, kernel_names
from kvmabi.snapshot import infer, presence, tolerances
from kvmabi.snapshot.checks import modes
from kvmabi.snapshot.checks.case import V_IDS, VECTOR_IDS, ZA_IDS, Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.checks.registers import is_known, width_of
from kvmabi.snapshot.snapshot import Fact
from kvmabi.snapshot.target import is_decisive

HOST_RULES = frozenset({"implementation_id", "constant", "clidr"})
"""The rules of system registers that have the host's value (model/sysreg.py)."""


def lists(case: Case) -> Iterator[Seen]:
    """Registers that the target refuses because it has none of them, and registers that the snapshot lacks."""
    if case.tcg:
        return
    refused = tuple(_refused(case))
    for text, ids in _grouped(case, refused, tolerances.SOURCE):
        yield Seen("register-refused", text, ids)
    if case.map is not None:
        missing = tuple(_missing(case, case.map.listed))
        for text, ids in _grouped(case, missing, tolerances.DESTINATION):
            yield Seen("left-at-reset", text, ids)


def values(case: Case) -> Iterator[Seen]:
    """Values that the target refuses, except those that the checks of lengths, modes and ID registers explain."""
    trial, system = case.trial, case.target.system
    if trial is None or system is None:
        return
    groups: dict[tuple[str, str], list[int]] = {}
    for id, refusal in trial.refused.items():
        register = system.sysreg_by_id.get(id)
        if id == SVCR or id in LENGTHS or (register is not None and register.rule in idnames.FEATURE_RULES):
            continue
        is_cache = regid.decode(id).family == "demux"
        host_bound = is_cache or (register is not None and register.rule in HOST_RULES)
        groups.setdefault(("host-bound" if host_bound else "value-refused", refusal.reason), []).append(id)
    for (rule, reason), ids in groups.items():
        details = [
            {"register": regid.name_of(id), "file": case.vcpu.value(id) or 0, "target": trial.before[id]} for id in ids
        ]
        values = [
            f"{each['register']}: the file has {each['file']:#x}, the target {each['target']:#x}" for each in details
        ]
        yield Seen(rule, "\n".join([*values, reason]), tuple(ids), tuple(details))


def _refused(case: Case) -> Iterator[int]:
    """The registers that the target does not have, as far as the checks of modes and widths do not explain it."""
    kernel = case.target.kernel
    map = case.map
    if kernel is None or (case.trial is not None and map is None):
        return
    explained = {id for ids in modes.misplaced(case).values() for id in ids}
    if case.trial is not None and case.trial.lost:
        explained |= {id for name, ids in infer.signs(case.registers).items() if name in case.trial.lost for id in ids}
        explained |= VECTOR_IDS
    for id in case.registers:
        if id in LENGTHS or id in explained or id & FIXED_BITS != uapi.KVM_REG_ARM64 or width_of(id):
            continue
        if map is None:
            if kernel.name in kernel_names() and id not in presence.listed_by(kernel.name) and is_known(id):
                yield id
        elif map.row(id).set is not None and not _is_room(case, id):
            yield id


def _is_room(case: Case, id: int) -> bool:
    """Whether a register is V in a struct, room of the format for the longest vectors, or judged by its content."""
    if id in V_IDS:
        return case.snapshot.format in modes.V_IN_STRUCT
    if id not in VECTOR_IDS:
        return False
    return (id in ZA_IDS and case.has_sme) if any(case.content(id)) else not case.holds_lengths


def _missing(case: Case, listed: Iterable[int]) -> Iterator[int]:
    other_width = {width_of(id) for id in case.registers}
    for id in listed:
        if id in other_width or id in case.registers or id in LENGTHS or id in VECTOR_IDS:
            continue
        family = regid.decode(id).family
        lost = {"sve": Fact.SVE, "sme": Fact.SME, "firmware_bitmap": Fact.FIRMWARE_BITMAPS}.get(family)
        if family in ("sve", "sme") or id == SVCR or (lost is not None and case.lacks(lost)):
            continue
        if id in V_IDS and case.has_z:
            continue
        yield id


def _grouped(case: Case, ids: Iterable[int], at: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Registers with the same explanation together."""
    groups: dict[str, list[int]] = {}
    for id in ids:
        groups.setdefault(_presence(case, id, at), []).append(id)
    for text, group in groups.items():
        yield text, tuple(group)


def _presence(case: Case, id: int, at: str) -> str:
    """Which kernels have a register, why it comes and goes, why this target lacks it, and which VMMs tolerate that."""
    having = presence.kernels_with(id)
    lacking = [name for name in kernel_names() if name not in having]
    if not having:
        parts = ["no built-in kernel lists it"]
    elif not lacking:
        parts = ["all built-in kernels list it on some host"]
    else:
        parts = [f"listed by {', '.join(having)}; not by {', '.join(lacking)}"]
    if reason := tolerances.reason_of(id):
        since = f"since {reason.since}: " if reason.since else ""
        parts.append(f"{since}{reason.why}")
    refusal = None if case.map is None or at == tolerances.DESTINATION else case.map.row(id).set
    if refusal is not None:
        parts.append(f"here: {refusal.reason}")
    tolerant = tolerances.tolerated_by(id, at, case.vcpu.value(id) if is_decisive(id) else None)
    if tolerant:
        parts.append(f"tolerated by {', '.join(map(str, tolerant))}, refused by older ones")
    return "; ".join(parts)
