# SPDX-License-Identifier: MIT
"""Compares two sides, register by register and vCPU by vCPU, and says what each difference means for a migration.

>>> from kvmabi.snapshot.snapshot import Snapshot, VcpuSnapshot
>>> from kvmabi import regid
>>> a = Snapshot("text", [VcpuSnapshot(0, {regid.parse("pir_el1"): bytes(8), regid.parse("x0"): bytes(8)})])
>>> b = Snapshot("text", [VcpuSnapshot(0, {regid.parse("x0"): bytes(8)})])
>>> [(one.kind.value, one.name, one.effect.value) for one in diff(a, b).differences]
[('only in A', 'pir_el1', 'tolerated')]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.order.values import same
from kvmabi.profiles import Host, Kernel
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles.host import host_decides
from kvmabi.snapshot import tolerances
from kvmabi.snapshot.comparing import fate, meaning, qemunumbers
from kvmabi.snapshot.comparing.difference import Diff, Difference, Effect, Kind, grouped, sizeless
from kvmabi.snapshot.comparing.hostside import LENGTH_FACTS, host_side
from kvmabi.snapshot.comparing.meaning import number_text
from kvmabi.snapshot.comparing.sides import Side, SideKind, SideVcpu, side_of
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot, mp_state_text

What = str | Path | Snapshot | Iterable[int] | Side
EXCHANGED = "the two have each other's values: KVM gives CNTVCT_EL0 and CNTV_CVAL_EL0 each other's encodings as IDs"
HELD_BY = {"firmware_bitmap": Fact.FIRMWARE_BITMAPS, "sve": Fact.SVE, "sme": Fact.SME}
"""What a format must be able to hold for a family of registers to be in it."""
MODAL = frozenset({"core", "sve", "sme"})
"""Families whose registers depend on the mode, under TCG as under KVM."""
COUNT, COMPARE = regid.parse("cntvct_el0"), regid.parse("cntv_cval_el0")


def diff(
    a: What,
    b: What | None = None,
    *,
    host: str | Host | None = None,
    kernel: str | Kernel | None = None,
    features: Iterable[str] | None = None,
) -> Diff:
    """Compare ``a`` with ``b``, or with what a vCPU of ``host`` under ``kernel`` has, as the destination of ``a``.

    A side is a Snapshot or register IDs, or a file or text as ``side_of`` takes it. Without ``b`` and ``host``, the
    registers and messages of a log or a number are explained. Raises UsageError for anything else.
    """
    one = side_of(a)
    if host is None and (kernel is not None or features is not None):
        raise UsageError("a kernel and features need a host: give that, too")
    if host is not None and b is not None:
        raise UsageError("compare with B or with a host, not with both")
    if b is not None:
        return compare(one, side_of(b))
    if host is not None:
        return compare(one, host_side(host, kernel, features, like=one))
    if one.kind is not SideKind.LOG and not one.any_vcpu:
        raise UsageError(f"{one.name}: nothing to compare it with: give B or a host")
    return explained(one)


def compare(a: Side, b: Side) -> Diff:
    """Compare two sides."""
    result = Diff(f"{a.name}: {a.title}", f"{b.name}: {b.title}", notes=_notes(a, b))
    found = list(_facts(a, b))
    for one, other in _pairs(a, b):
        found += _vcpus(a, b, one, other)
    result.differences = grouped(found)
    return result


def explained(side: Side) -> Diff:
    """What the registers and messages of a log, a number or a list mean, without another side."""
    result = Diff(f"{side.name}: {side.title}", "", notes=_messages(side))
    result.differences = grouped(
        _only_b(id, None, ()) if id in side.missing else _only_a(id, None, (), "") for id in side.vcpus[0].registers
    )
    return result


def _pairs(a: Side, b: Side) -> Iterator[tuple[SideVcpu, SideVcpu]]:
    """The vCPUs that are compared: those of the same index; a side without vCPUs of its own with every one."""
    for one in a.vcpus:
        for other in b.vcpus:
            if a.any_vcpu or b.any_vcpu or one.index == other.index:
                yield one, other


def _vcpus(a: Side, b: Side, one: SideVcpu, other: SideVcpu) -> Iterator[Difference]:
    vcpus = () if a.any_vcpu and b.any_vcpu else (other.index if a.any_vcpu else one.index,)
    yield from _presence(a, b, one, other, vcpus)
    for id, data in one.registers.items():
        value = other.registers.get(id)
        if data is None or value is None or same(id, data, value):
            continue
        if b.kind is SideKind.HOST:
            judged = id in other.refused or id in other.kept or (host_decides(id) and id not in LENGTHS)
            if not judged:
                continue
            value = other.kept.get(id, value)
            answer, cut = other.refused.get(id, ""), id in other.kept
        else:
            answer, cut = None, False
        effect, consequence = (Effect.CUT, fate.CUT) if cut else fate.of_value(id, data, value, answer)
        yield Difference(
            Kind.VALUE,
            (id,),
            vcpus,
            a=number_text(data),
            b=number_text(value),
            parts=meaning.parts(id, data, value),
            why=EXCHANGED if id == COMPARE and _exchanged(one, other) else "",
            effect=effect,
            consequence=consequence,
        )
    if one.mp_state is not None and other.mp_state is not None and one.mp_state != other.mp_state:
        states = [mp_state_text(state) for state in (one.mp_state, other.mp_state)]
        yield Difference(Kind.FACT, vcpus=vcpus, fact="mp_state", a=states[0], b=states[1])


def _presence(a: Side, b: Side, one: SideVcpu, other: SideVcpu, vcpus: tuple[int, ...]) -> Iterator[Difference]:
    """Registers that one side has and the other lacks, and those under an ID of another size."""
    apart = _lists_differ_by_origin(a, b)
    mine = [id for id in one.registers if id not in other.registers and id not in a.missing]
    theirs = [id for id in other.registers if id not in one.registers and id not in b.missing]
    if apart:
        mine, theirs = ([id for id in ids if regid.decode(id).family in MODAL] for ids in (mine, theirs))
    sizes = {sizeless(id): id for id in theirs}
    for id in mine:
        wide = sizes.get(sizeless(id))
        if wide is not None:
            sizes_bytes = [regid.decode(number).size_bytes for number in (id, wide)]
            yield Difference(
                Kind.WIDTH,
                (id, wide),
                vcpus,
                a=f"{sizes_bytes[0]} bytes",
                b=f"{sizes_bytes[1]} bytes",
                effect=Effect.REFUSED,
                consequence=fate.OTHER_WIDTH,
            )
        elif b.kind is SideKind.SNAPSHOT and _by_mode(one, other, id):
            yield _alone(Kind.ONLY_A, id, vcpus, Effect.NONE, fate.OF_MODE, ())
        elif not b.partial and not _cannot_hold(b, id):
            yield _only_a(id, one.registers[id], vcpus, other.refused.get(id, ""))
    known = {sizeless(id) for id in mine}
    for id in theirs:
        if sizeless(id) not in known and (not a.partial or id in a.missing) and not _cannot_hold(a, id):
            if a.kind is SideKind.SNAPSHOT and _by_mode(one, other, id):
                yield _alone(Kind.ONLY_B, id, vcpus, Effect.NONE, fate.OF_MODE, ())
            else:
                yield _only_b(id, other.registers[id], vcpus)
    for id in a.missing & other.registers.keys() & one.registers.keys():
        yield _only_b(id, other.registers[id], vcpus)


def _by_mode(one: SideVcpu, other: SideVcpu, id: int) -> bool:
    """Whether only one of two vCPUs has a vector register because their modes differ: svcr brings it."""
    modes = one.registers.get(SVCR), other.registers.get(SVCR)
    return None not in modes and modes[0] != modes[1] and id not in LENGTHS and regid.decode(id).family in MODAL


def _cannot_hold(side: Side, id: int) -> bool:
    """Whether the format of a snapshot has no place for a register, so that its absence says nothing."""
    fact = HELD_BY.get(regid.decode(id).family)
    return fact is not None and side.snapshot is not None and fact in side.snapshot.unknown


def _only_a(id: int, data: bytes | None, vcpus: tuple[int, ...], refused: str) -> Difference:
    value = None if data is None else int.from_bytes(data, "little")
    alone = _alone(Kind.ONLY_A, id, vcpus, *fate.of_only_a(id, value, refused))
    return replace(alone, a=number_text(data))


def _only_b(id: int, data: bytes | None, vcpus: tuple[int, ...]) -> Difference:
    return replace(_alone(Kind.ONLY_B, id, vcpus, *fate.of_only_b(id)), b=number_text(data))


def _alone(
    kind: Kind, id: int, vcpus: tuple[int, ...], effect: Effect, consequence: str, tolerated: tuple[str, ...]
) -> Difference:
    reason = tolerances.reason_of(id)
    return Difference(
        kind,
        (id,),
        vcpus,
        why=fate.why_absent(id),
        since=reason.since if reason else "",
        kernels=fate.listed_by(id),
        tolerated=tolerated,
        effect=effect,
        consequence=consequence,
    )


def _facts(a: Side, b: Side) -> Iterator[Difference]:
    for fact, one in a.facts.items():
        other = b.facts.get(fact)
        if one is None or other is None or one == other:
            continue
        if b.kind is SideKind.HOST and fact in ("host", "kernel"):
            continue
        if fact == "features":
            one, other = (feature_rules.label(feature_rules.lasting(side)) for side in (one, other))
            if one == other:
                continue
        effect, consequence = fate.of_fact(fact, one, other)
        texts = [", ".join(map(str, side)) if isinstance(side, tuple) else str(side) for side in (one, other)]
        yield Difference(Kind.FACT, fact=fact, a=texts[0], b=texts[1], effect=effect, consequence=consequence)


def _notes(a: Side, b: Side) -> list[str]:
    notes = [*_messages(a), *_messages(b), *a.notes, *b.notes]
    if _lists_differ_by_origin(a, b):
        notes.append("the lists of system registers are not compared, as TCG's is not a kernel's; everything else is")
    for side in (a, b):
        lost = [fact.value for fact in HELD_BY.values() if side.snapshot is not None and fact in side.snapshot.unknown]
        if lost:
            notes.append(f"{'; '.join(lost)} are not compared: {side.name} cannot hold them")
    lengths = {name for side in (a, b) if side.snapshot for name in LENGTH_FACTS.values() if side.facts[name] is None}
    if lengths:
        notes.append(
            f"{' and '.join(sorted(lengths))} are not compared: a side does not hold the sets of vector lengths"
        )
    if b.kind is SideKind.HOST and a.partial:
        has = [id for id in b.vcpus[0].registers if id in a.vcpus[0].registers and id not in a.missing]
        if has:
            names = regid.ranges(map(qemunumbers.title, has))
            label = feature_rules.label(b.facts["features"])
            notes.append(
                f"with {label} the destination has {names}: the VMM asked INIT for less, or this is another host"
            )
    return notes


def _messages(side: Side) -> list[str]:
    return [f"{message.vmm}, {message.contains!r}: {message.means}" for message in side.messages]


def _lists_differ_by_origin(a: Side, b: Side) -> bool:
    """Whether one side has TCG's registers and the other one's a kernel's."""
    origins = {a.origin, b.origin}
    return origins == {Origin.TCG, Origin.KVM}


def _exchanged(one: SideVcpu, other: SideVcpu) -> bool:
    """Whether the virtual timer's count and compare value of one vCPU are the other one's exchanged."""
    mine, theirs = ([vcpu.registers.get(id) for id in (COUNT, COMPARE)] for vcpu in (one, other))
    return None not in mine and mine == theirs[::-1]
