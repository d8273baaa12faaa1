# SPDX-License-Identifier: MIT
"""Is a snapshot whole, and will a target take it? What every check sees, as a report.

Checks are of three kinds. SHAPE depends on which registers there are, on the few values that decide about others, and
on the target: what it sees is kept by these. OF_FILE does, too, and is reported once for all vCPUs. CONTENT looks at
the vectors of each vCPU, after one comparison of all of them at once. A snapshot of a shape that was seen before costs
less than 100 µs a vCPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from typing import Any

from kvmabi.model import core
from kvmabi.model.plan import is_shared
from kvmabi.model.row import size_of
from kvmabi.profiles import sysregs
from kvmabi.snapshot.checks import features, formats, hosts, idregs, modes, order, registers, rules, timers, vectors
from kvmabi.snapshot.checks.case import SME, VECTOR_IDS, ZA_IDS, Case
from kvmabi.snapshot.checks.findings import NO_PLACES, Finding, Report, Seen, bound
from kvmabi.snapshot.checks.rules import Severity
from kvmabi.snapshot.snapshot import Fact, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.target import JUDGED_RULES, Target, is_decisive
from kvmabi.snapshot.wording import count

Check = Callable[[Case], Iterator[Seen]]
SHAPE: tuple[Check, ...] = (
    registers.sizes,
    registers.ids,
    modes.check,
    features.features,
    features.lengths,
    hosts.lists,
    hosts.values,
    idregs.check,
    order.check,
)
OF_FILE: tuple[Check, ...] = (formats.check, formats.not_judged)
CONTENT: tuple[Check, ...] = (vectors.beyond, vectors.implied)
KEPT = 512
MOST_REGISTERS = 2048
"""More registers of a vCPU than this, which no kernel comes near, are not judged."""
MOST_SHAPES = 256
"""The vCPUs of a VM have a few shapes: no more than this are judged in one snapshot."""
NOWHERE = Target()
RANK = {severity: rank for rank, severity in enumerate(Severity)}
Getter = Callable[[Mapping[int, bytes]], tuple[bytes, ...]]


class Layout:
    """A list of IDs: the sizes of their values, and the values to look at."""

    __slots__ = ("decisive", "pstate", "sizes", "vector_ids", "vectors")

    def __init__(self, ids: tuple[int, ...]) -> None:
        decisive = tuple(id for id in ids if is_decisive(id) and id != core.PSTATE_ID)
        self.sizes = tuple(map(size_of, ids))
        self.decisive = _getter(decisive)
        self.pstate = core.PSTATE_ID in ids
        self.vector_ids = tuple(id for id in ids if id in VECTOR_IDS)
        self.vectors = _getter(self.vector_ids)


class Judged:
    """What the checks of a shape have seen. ``mask`` are the vectors' bits beyond the lengths, as one number.

    ``always``: the vectors need a look of their own, since a length is not known, or longer than the format holds.
    """

    __slots__ = ("always", "features", "mask", "of_file", "seen")

    def __init__(self, case: Case, layout: Layout) -> None:
        self.features = case.features
        self.seen = [seen for check in SHAPE for seen in check(case)]
        self.of_file = [seen for check in OF_FILE for seen in check(case)]
        limits = [_limit(case, id) for id in layout.vector_ids]
        sizes = tuple(len(case.registers[id]) for id in layout.vector_ids)
        long_z = case.has_z and case.lacks(Fact.LONG_Z) and (case.longest(case.z_kind) or 0) > vectors.LONG_Z_BITS
        self.always = None in limits or long_z
        self.mask = 0 if self.always else vectors.mask(layout.vector_ids, tuple(limit or 0 for limit in limits), sizes)


_layouts: dict[tuple[int, ...], Layout] = {}
_judged: dict[Hashable, Judged] = {}


def validate(snapshot: Snapshot, target: Target | None = None) -> Report:
    """Judge a snapshot by itself and, if it is given, before a target.

    >>> from kvmabi import regid
    >>> vcpu = VcpuSnapshot(0, {regid.parse("svcr"): bytes([6]) + bytes(7)})
    >>> report = validate(Snapshot("text", [vcpu]))
    >>> [(finding.rule.id, finding.text) for finding in report.errors if finding.names == "svcr"]
    [('svcr-reserved', '0x6: reserved are 0x4')]
    """
    where = NOWHERE if target is None else target
    found = [_problem(problem) for problem in snapshot.problems]
    if not snapshot.vcpus:
        found.append(bound(Seen("no-vcpu", f"{snapshot.format}: no vCPU")))
    of_file = (
        snapshot.format,
        snapshot.origin,
        snapshot.features,
        snapshot.sve_bits,
        snapshot.sme_bits,
        snapshot.unknown,
        where,
    )
    gathered: dict[tuple[str, str, tuple[int, ...]], tuple[Seen, list[VcpuSnapshot]]] = {}
    common: dict[tuple[str, str], Seen] = {}
    shapes: set[Judged] = set()
    for vcpu in filter(_has_registers, snapshot.vcpus):
        judged_part, excess = _limited(vcpu, len(shapes))
        seen_here = [excess] if excess else []
        if len(shapes) < MOST_SHAPES:
            layout = _layout(tuple(judged_part.registers))
            judged = _judge(snapshot, judged_part, where, layout, of_file)
            shapes.add(judged)
            common |= {(seen.rule, seen.text): seen for seen in judged.of_file}
            seen_here += [*judged.seen, *_content(snapshot, judged_part, where, layout, judged)]
        for seen in seen_here:
            gathered.setdefault((seen.rule, seen.text, seen.registers), (seen, []))[1].append(vcpu)
    for seen, vcpus in gathered.values():
        places = vcpus[0].places if seen.registers else NO_PLACES
        found.append(bound(seen, tuple(vcpu.index for vcpu in vcpus), places))
    found += [bound(seen) for seen in common.values()]
    if len(snapshot.vcpus) > 1:
        found += _between(snapshot)
    found.sort(key=lambda finding: RANK[finding.severity])
    return Report(_subject(snapshot, where), found)


def _judge(snapshot: Snapshot, vcpu: VcpuSnapshot, target: Target, layout: Layout, of_file: Hashable) -> Judged:
    """What the checks of the shape see; from memory, if the shape was seen before."""
    values = vcpu.registers
    sizes = tuple(map(len, values.values()))
    pstate = values[core.PSTATE_ID][:1] if layout.pstate else b""
    key = (layout, layout.decisive(values), pstate, None if sizes == layout.sizes else sizes, of_file)
    judged = _judged.get(key)
    if judged is None:
        case = Case(snapshot, vcpu, target)
        judged = Judged(case, layout)
        if not case.reads_content:
            if len(_judged) >= KEPT:
                _judged.clear()
            _judged[key] = judged
    return judged


def _content(snapshot: Snapshot, vcpu: VcpuSnapshot, target: Target, layout: Layout, judged: Judged) -> Iterator[Seen]:
    """What the checks of the content see."""
    if judged.always or int.from_bytes(b"".join(layout.vectors(vcpu.registers)), "little") & judged.mask:
        case = Case(snapshot, vcpu, target, judged.features)
        for check in CONTENT:
            yield from check(case)
    yield from timers.check(vcpu.registers)


def _has_registers(vcpu: VcpuSnapshot) -> bool:
    return bool(vcpu.registers)


def _limited(vcpu: VcpuSnapshot, shapes: int) -> tuple[VcpuSnapshot, Seen | None]:
    """As much of a vCPU as is judged, and what is reported if that is not all of it."""
    if shapes >= MOST_SHAPES:
        return vcpu, Seen("too-large", f"the vCPUs are of more than {MOST_SHAPES} kinds; these are not judged")
    if len(vcpu.registers) <= MOST_REGISTERS:
        return vcpu, None
    text = f"{len(vcpu.registers)} registers of a vCPU; only the first {MOST_REGISTERS} are judged"
    first = dict(islice(vcpu.registers.items(), MOST_REGISTERS))
    return replace(vcpu, registers=first), Seen("too-large", text)


def _layout(ids: tuple[int, ...]) -> Layout:
    layout = _layouts.get(ids)
    if layout is None:
        layout = Layout(ids)
        if len(_layouts) >= KEPT:
            _layouts.clear()
            _judged.clear()
        _layouts[ids] = layout
    return layout


def _limit(case: Case, id: int) -> int | None:
    """The length in bits up to which a vector register may have content: the guest's, and not beyond the target's."""
    kind = SME if id in ZA_IDS else case.z_kind
    longest, target = case.longest(kind), case.host_longest(kind)
    if longest is None:
        return None
    return longest if target is None else min(longest, target)


def _getter(ids: tuple[int, ...]) -> Getter:
    if len(ids) > 1:
        getter: Any = itemgetter(*ids)
        return getter  # type: ignore[no-any-return]
    return lambda values: tuple(values[id] for id in ids)


def _between(snapshot: Snapshot) -> Iterator[Finding]:
    """Registers that the vCPUs of a VM should have in common."""
    vcpus = list(filter(_has_registers, snapshot.vcpus))
    first = next(iter(vcpus), None)
    if first is None:
        return
    common = [id for id in first.registers if is_common(id)]
    for vcpu in vcpus[1:]:
        differing = tuple(id for id in common if vcpu.registers.get(id, first.registers[id]) != first.registers[id])
        if differing:
            text = f"vCPU {first.index} has other values; here {_values(vcpu, differing)}"
            yield bound(Seen("vcpus-differ", text, differing), (vcpu.index,), vcpu.places)


def is_common(id: int) -> bool:
    """Whether all vCPUs of a VM should have one value: VM-wide registers, and those of the CPU and its caches."""
    register = sysregs.by_id().get(id)
    if register is not None and register.rule in JUDGED_RULES and register.reset is None:
        return True
    return is_shared(id) or (register is None and is_decisive(id) and id != core.PSTATE_ID and size_of(id) <= 8)


def _values(vcpu: VcpuSnapshot, ids: tuple[int, ...], most: int = 3) -> str:
    shown = ", ".join(f"{vcpu.value(id) or 0:#x}" for id in ids[:most])
    return shown if len(ids) <= most else f"{shown} …"


def _problem(problem: Problem) -> Finding:
    ids = () if problem.register is None else (problem.register,)
    vcpus = () if problem.vcpu is None else (problem.vcpu,)
    return Finding(rules.rule(problem.rule), problem.text, vcpus, ids, problem.offset)


def _subject(snapshot: Snapshot, target: Target) -> str:
    host = "" if target.host is None else f", for host {target.host.name}"
    kernel = (
        "" if target.kernel is None else f" under {target.kernel.label}" if host else f", for {target.kernel.label}"
    )
    return f"{snapshot.format}, {count(len(snapshot.vcpus), 'vCPU')}{host}{kernel}"
