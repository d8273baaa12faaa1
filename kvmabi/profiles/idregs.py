# SPDX-License-Identifier: MIT
"""The fields of ID registers (idregs.toml): what they show, what INIT clears, and which values are safe to write."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from kvmabi import regid
from kvmabi.profiles import files
from kvmabi.profiles.switches import Switches


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an ID register: its lowest bit, its width in bits and the rule of values safe to write.

    The rules: "lower" and "lower_signed" (the field is a two's-complement number), "higher" and
    "higher_or_zero", or "same_or_<n>" (the value it has, or n). ``most`` is the greatest value, all
    bits 1, and ``mask`` the field's bits in the register.
    """

    id: int
    lsb: int
    width: int
    rule: str = "lower"
    most: int = field(init=False)
    mask: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "most", (1 << self.width) - 1)
        object.__setattr__(self, "mask", self.most << self.lsb)

    @property
    def place(self) -> str:
        """The field's bits as the Arm ARM writes them ("bits 27:24")."""
        return f"bits {self.lsb + self.width - 1}:{self.lsb}" if self.width > 1 else f"bit {self.lsb}"

    def get(self, value: int) -> int:
        """The field's value in a register's value."""
        return value >> self.lsb & self.most

    def safe(self, value: int, limit: int) -> bool:
        """Whether a register may be set to ``value`` where the VM can hold ``limit``."""
        new, old = self.get(value), self.get(limit)
        if new == old:
            return True
        match self.rule:
            case "lower":
                return new < old
            case "lower_signed":
                sign = 1 << (self.width - 1)
                return new ^ sign < old ^ sign
            case "higher":
                return new > old
            case "higher_or_zero":
                return new == 0 or (old != 0 and new > old)
        return new == int(self.rule.removeprefix("same_or_"))


class Clear(NamedTuple):
    """A field that reads as zero on a vCPU with none of the features ``needs``, with a kernel's switch so or always."""

    field: Field
    needs: frozenset[str]
    switch: str
    on: bool

    def applies(self, features: frozenset[str], switches: Switches) -> bool:
        """Whether a vCPU with these features reads zero there."""
        if self.switch and getattr(switches, self.switch) != self.on:
            return False
        return not self.needs & features


class Nested(NamedTuple):
    """A field that a vCPU with EL2, and with the feature ``needs`` if any, has otherwise than the host.

    It is ``value``, or with ``limit`` no more than that.
    """

    field: Field
    value: int
    limit: bool
    needs: str

    def apply(self, value: int) -> int:
        """A register's value as such a vCPU has it."""
        new = min(self.field.get(value), self.value) if self.limit else self.value
        return value & ~self.field.mask | new << self.field.lsb


class Demand(NamedTuple):
    """A field that no set may put below ``least``, but to 0 if ``or_zero``.

    That holds on kernels with the ``switch``, if any, and on vCPUs with the features ``needs``.
    """

    field: Field
    least: int
    or_zero: bool
    switch: str
    needs: frozenset[str]

    def met(self, value: int) -> bool:
        """Whether a register's value is one that the demand allows."""
        field = self.field.get(value)
        return field >= self.least or (self.or_zero and not field)


@cache
def _data() -> files.Table:
    return files.builtin_table("idregs.toml")


def _field(text: str) -> Field:
    """A field written as "register[lsb+:width]"."""
    register, _, place = text.partition("[")
    lsb, _, width = place.rstrip("]").partition("+:")
    return Field(regid.parse(register), int(lsb), int(width))


@cache
def fields(id: int) -> tuple[Field, ...]:
    """All fields of an ID register: those that the table describes, and four-bit fields that may only sink between."""
    described = [Field(id, lsb, width, rule) for lsb, width, rule in _data()["fields"].get(regid.name_of(id), ())]
    taken = sum(field.mask for field in described)
    plain = (Field(id, lsb, 4) for lsb in range(0, 64, 4))
    return (*described, *(field for field in plain if not field.mask & taken))


@cache
def field_bits(id: int) -> int:
    """The bits of an ID register that belong to a field."""
    return sum(field.mask for field in fields(id))


@cache
def predicates() -> tuple[tuple[str, Field, int], ...]:
    """(name, field, least value): what a VM shows while the field is at least that."""
    return tuple((name, _field(row["field"]), row["least"]) for name, row in _data()["shows"].items())


@cache
def deciding() -> frozenset[int]:
    """The ID registers on which it depends what a VM shows."""
    return frozenset(field.id for _, field, _ in predicates())


def host_predicate(name: str) -> tuple[Field, int]:
    """The field and its least value by which a host shows something."""
    row = _data()["host"][name]
    return _field(row["field"]), row["least"]


@cache
def clears() -> tuple[Clear, ...]:
    """The fields that INIT clears without a feature."""
    return tuple(
        Clear(_field(row["field"]), frozenset(row["needs"]), row.get("switch", ""), row.get("on", True))
        for row in _data()["clears"]
    )


@cache
def nested() -> tuple[Nested, ...]:
    """What a vCPU with EL2 has otherwise than the host, in the order in which it applies."""
    return tuple(
        Nested(_field(row["field"]), row.get("is", row.get("most")), "most" in row, row.get("needs", ""))
        for row in _data()["nested"]
    )


@cache
def gic_fields() -> tuple[Field, ...]:
    """The fields that tell a guest of a GIC with system registers."""
    return tuple(_field(text) for text in _data()["gic"])


@cache
def demands(id: int) -> tuple[Demand, ...]:
    """What every set of an ID register must leave in it."""
    return tuple(demand for demand in map(_demand, _data()["demands"]) if demand.field.id == id)


def _demand(row: files.Table) -> Demand:
    zero, switch, needs = row.get("or_zero", False), row.get("switch", ""), frozenset(row.get("needs", ()))
    return Demand(_field(row["field"]), row["least"], zero, switch, needs)


@cache
def impdef(id: int) -> tuple[Field, ...]:
    """The fields of an ID register in which a set takes all ones, "implementation defined", for 0."""
    return tuple(field for field in map(_field, _data()["impdef"]) if field.id == id)
