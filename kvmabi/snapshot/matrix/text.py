# SPDX-License-Identifier: MIT
"""A fleet's matrix as text: tables of lengths, the CPU template, and what still blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kvmabi import regid
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot.lengths import Lengths
from kvmabi.snapshot.matrix.blockers import REFUSED, Blocker
from kvmabi.snapshot.matrix.common import Common
from kvmabi.snapshot.matrix.commonids import IdRegister
from kvmabi.snapshot.matrix.commonlengths import CommonLengths
from kvmabi.snapshot.wording import wrapped

NONE = "-"
MOST_DIRECTIONS = 4
"""How many directions of a blocker are spelt out."""


def text(matrix: Common) -> str:
    """The matrix for readers."""
    parts = (_lengths(matrix), _template(matrix), _without(matrix), _bound(matrix), _blockers(matrix), _notes(matrix))
    return "\n".join(line for part in parts for line in part)


def bits_text(bits: Lengths | None) -> str:
    """A set of vector lengths in bits.

    >>> bits_text((128, 256)), bits_text(()), bits_text(None)
    ('128 256', '-', 'not known')
    """
    return "not known" if bits is None else " ".join(map(str, bits)) or NONE


def values_text(values: Mapping[str, int]) -> str:
    """Values and the hosts that have each, the most common first.

    >>> values_text({"a": 1, "b": 2, "c": 1})
    '0x1: a, c; 0x2: b'
    """
    hosts: dict[int, list[str]] = {}
    for host, value in values.items():
        hosts.setdefault(value, []).append(host)
    ranked = sorted(hosts.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{value:#x}: {', '.join(names)}" for value, names in ranked)


def directions_text(directions: Sequence[tuple[str, str]], hosts: int) -> str:
    """Directions in short: by their destinations where every host is a source, by their number where they are many.

    >>> directions_text([("a", "c"), ("b", "c")], 3), directions_text([("a", "b")], 3)
    ('to c from all others', 'a -> b')
    """
    if len(directions) == hosts * (hosts - 1) and hosts > 2:
        return "in every direction"
    for place, words in ((1, "to {} from all others"), (0, "from {} to all others")):
        ends = dict.fromkeys(direction[place] for direction in directions)
        if hosts > 2 and len(directions) == len(ends) * (hosts - 1):
            return words.format(" and ".join(ends) if len(ends) < 4 else f"{len(ends)} hosts")
    shown = ", ".join(f"{source} -> {target}" for source, target in directions[:MOST_DIRECTIONS])
    more = len(directions) - MOST_DIRECTIONS
    return f"{shown} and {more} more" if more > 0 else shown


def _lengths(matrix: Common) -> Iterator[str]:
    """The table of sets, and what follows from them."""
    sets = matrix.sve.sets, matrix.sme.sets
    rows = [["host", "kernel", "SVE bits", "SME bits"]]
    rows += [
        [one.name, one.kernel_label or "not known", *(bits_text(known[one.name]) for known in sets)]
        for one in matrix.members
    ]
    both = matrix.sve, matrix.sme
    rows.append(["shared by all", "", *(bits_text(one.shared) for one in both)])
    rows.append(["widest guest", "", *(bits_text(one.widest) for one in both)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    for one in both:
        yield from _verdict(one)


def _verdict(one: CommonLengths) -> Iterator[str]:
    """What the sets of one extension mean for guests."""
    name = one.extension.upper()
    if one.unknown:
        yield from wrapped(f"{name}: not known of {', '.join(one.unknown)}: left out")
    if one.shared and one.shared != one.widest:
        reasons = "; ".join(map(str, one.shared_problems))
        yield from wrapped(
            f"{name}: the shared lengths ({bits_text(one.shared)}) are not a set that every host can give: {reasons}"
        )
    if one.accepted:
        sets = "; ".join(bits_text(bits) for bits in one.accepted)
        yield from wrapped(f"{name}: every host accepts: {sets}")
    elif any(one.sets.values()):
        yield f"{name}: every host accepts only guests without {name}"
    if one.guest is not None:
        problems = "; ".join(map(str, one.guest_problems))
        yield from wrapped(f"{name}: a guest with {bits_text(one.guest)}: {problems or 'every host accepts it'}")


def _template(matrix: Common) -> Iterator[str]:
    yield ""
    yield from wrapped(f"guest features: {feature_rules.label(matrix.features)}")
    changed = [one for one in matrix.registers if one.id in matrix.template]
    if not changed:
        yield "CPU template: none is needed where values are common: the hosts' own are equal"
        return
    yield f"CPU template: {len(changed)} ID registers that differ have a value that each host has or takes; the widest:"
    for one in changed:
        names = ", ".join(choice.name for choice in one.fields if choice.differs)
        yield from wrapped(f"{one.name} = {one.value:#018x}: {names}", "  ")


def _without(matrix: Common) -> Iterator[str]:
    if not matrix.no_common_value:
        return
    yield ""
    yield "No value suits every host:"
    for one in matrix.no_common_value:
        if one.absent:
            yield from wrapped(f"{one.name}: absent on {', '.join(one.absent)}", "  ")
        if one.value is None:
            yield from _stuck(one)


def _stuck(one: IdRegister) -> Iterator[str]:
    """The fields of a register that keep it from having a common value."""
    stuck = [choice for choice in one.fields if choice.value is None]
    if not stuck:
        yield from wrapped(f"{one.name}: bits outside every field differ: {values_text(one.values)}", "  ")
    for choice in stuck:
        yield from wrapped(f"{one.name}.{choice.name} {choice.field.rule}: {values_text(choice.values)}", "  ")


def _bound(matrix: Common) -> Iterator[str]:
    if not matrix.bound:
        return
    yield ""
    yield "They describe the CPU and its caches, and differ:"
    names: dict[str, list[str]] = {}
    for name, values in matrix.bound.items():
        names.setdefault(values_text(values), []).append(name)
    for values_of, registers in names.items():
        yield from wrapped(f"{regid.ranges(registers)}: {values_of}", "  ")


def _blockers(matrix: Common) -> Iterator[str]:
    hosts = sum(one.host is not None for one in matrix.members)
    if hosts < 2:
        return
    yield ""
    for effect, title in (
        (REFUSED, "Refused with this template:"),
        ("", "Left at reset, as only some hosts list them:"),
    ):
        found = [one for one in matrix.blockers if (one.effect == REFUSED) == bool(effect)]
        if found:
            yield title
        for one in found:
            yield from _blocker(one, hosts, why=bool(effect))
    if matrix.migratable:
        yield "With this template a guest moves between all of them, and nothing is refused."


def _blocker(one: Blocker, hosts: int, *, why: bool) -> Iterator[str]:
    reason = f": {one.why}" if why else ""
    yield from wrapped(f"{one.name}{reason} ({directions_text(one.directions, hosts)})", "  ")


def _notes(matrix: Common) -> Iterator[str]:
    for note in matrix.notes:
        yield from wrapped(f"note: {note}")
    yield ""
