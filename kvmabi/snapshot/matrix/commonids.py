# SPDX-License-Identifier: MIT
"""The widest value of each ID register that every member of a fleet accepts: field by field, by the kernel's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvmabi import regid
from kvmabi.model import idreg
from kvmabi.profiles import idnames, idregs
from kvmabi.profiles.idregs import EXACT, HIGHER_OR_ZERO_SAFE, HIGHER_SAFE, Field
from kvmabi.snapshot.matrix.members import Member

ALL_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class FieldChoice:
    """One field: its values by member, and the widest one that all accept (None: there is none)."""

    field: Field
    values: Mapping[str, int]
    value: int | None

    @property
    def name(self) -> str:
        """The field's name and bits."""
        return idnames.label(self.field)

    @property
    def differs(self) -> bool:
        """Whether the common value is not every member's own."""
        return self.value is None or set(self.values.values()) != {self.value}

    def as_dict(self) -> dict[str, Any]:
        """The field for JSON."""
        return {
            "name": self.name,
            "lsb": self.field.lsb,
            "width": self.field.width,
            "rule": self.field.rule,
            "signed": self.field.signed,
            "hosts": {name: f"{value:#x}" for name, value in self.values.items()},
            "value": None if self.value is None else f"{self.value:#x}",
        }


@dataclass(frozen=True)
class IdRegister:
    """One ID register of a fleet.

    ``values`` are the members' own values, ``fields`` its fields, ``value`` the widest common value (None: there is
    none). ``settable``: for each member "own" (it has the value already), "writable", "unknown" (the kernel is not
    known: by the rules alone), or why it refuses the value. ``absent`` are the members without the register.
    """

    id: int
    values: Mapping[str, int]
    fields: tuple[FieldChoice, ...]
    value: int | None
    settable: Mapping[str, str]
    absent: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The register's name."""
        return regid.name_of(self.id)

    @property
    def differs(self) -> bool:
        """Whether a template must set it, or cannot make it equal."""
        return self.value is None or bool(self.absent) or set(self.values.values()) != {self.value}

    def as_dict(self) -> dict[str, Any]:
        """The register for JSON."""
        return {
            "name": self.name,
            "id": f"{self.id:#018x}",
            "hosts": {name: f"{value:#x}" for name, value in self.values.items()},
            "absent": list(self.absent),
            "value": None if self.value is None else f"{self.value:#x}",
            "settable": dict(self.settable),
            "fields": [choice.as_dict() for choice in self.fields if choice.differs],
        }


def common(id: int, members: Sequence[Member], features: frozenset[str]) -> IdRegister:
    """The widest value of a feature ID register that every member accepts in a VM with these features."""
    having = [member for member in members if id in member.limits]
    values = {member.name: member.limits[id] for member in having}
    choices = tuple(_choose(field, having, features) for field in idregs.fields(id))
    rest = {value & ALL_BITS & ~idregs.field_bits(id) for value in values.values()}
    value: int | None = None
    if len(rest) == 1 and all(choice.value is not None for choice in choices):
        value = rest.pop() | sum((choice.value or 0) << choice.field.lsb for choice in choices)
    return IdRegister(
        id,
        values,
        tuple(sorted(choices, key=lambda choice: -choice.field.lsb)),
        value,
        {} if value is None else {member.name: settable(member, id, value, features) for member in having},
        tuple(member.name for member in members if id not in member.limits),
    )


def settable(member: Member, id: int, value: int, features: frozenset[str]) -> str:
    """Whether a member takes a value of an ID register, as in IdRegister.settable."""
    limit = member.limits[id]
    if value == limit:
        return "own"
    if id in member.zero:
        return "EINVAL: reads as zero: the host has no AArch32"
    if member.kernel is None:
        refused = idreg.refused_change(id, value, limit, ALL_BITS)
        return str(_text(refused)) if refused else "unknown"
    if idreg.taken(member.kernel, id, value) != value:
        return "the kernel takes an IMPLEMENTATION DEFINED PMU for none"
    refused = idreg.refused_demand(member.kernel, features, id, value) or idreg.refused_change(
        id, value, limit, member.kernel.writable_masks.get(id, 0)
    )
    return _text(refused) if refused else "writable"


def width_of(field: Field, value: int) -> int:
    """A number that is greater for a value of a field that promises a guest more.

    >>> from kvmabi.profiles.idregs import LOWER_SAFE
    >>> signed = Field(0, 0, 4, LOWER_SAFE, signed=True)
    >>> sorted((0, 1, 0xF), key=lambda value: width_of(signed, value)) == [0xF, 0, 1]
    True
    """
    if field.rule == HIGHER_SAFE:
        return -value
    if field.rule == HIGHER_OR_ZERO_SAFE:
        return -value if value else -field.most - 1
    if field.rule == EXACT:
        return int(value != field.exact)
    sign = 1 << (field.width - 1) if field.signed else 0
    return value ^ sign


def _choose(field: Field, members: Sequence[Member], features: frozenset[str]) -> FieldChoice:
    values = {member.name: field.get(member.limits[field.id]) for member in members}
    good = [
        value for value in range(field.most + 1) if all(_takes(member, field, value, features) for member in members)
    ]
    widest = max(good, key=lambda value: width_of(field, value), default=None)
    return FieldChoice(field, values, widest)


def _takes(member: Member, field: Field, value: int, features: frozenset[str]) -> bool:
    """Whether a member takes its own value of the register with one field changed."""
    changed = member.limits[field.id] & ~field.mask | value << field.lsb
    return settable(member, field.id, changed, features) in ("own", "writable", "unknown")


def _text(refused: Any) -> str:
    return f"{refused.error().name}: {refused.reason}"
