# SPDX-License-Identifier: MIT
"""The fields of ID registers (idregs.toml): what they show, what INIT clears, and which values are safe to write."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from kvmabi import regid
from kvmabi.profiles import files
from kvmabi.profiles.switches import Switches


class Field(NamedTuple):
    """A field of an ID register: its lowest bit, its width in bits and the rule of values safe to write.

    The rules: "lower" and "lower_signed" (the field is a two's-complement number), "higher" and
    "higher_or_zero", or "same_or_<n>" (the value it has, or n).
    """

    id: int
    lsb: int
    width: int
    rule: str = "lower"

    @property
    def most(self) -> int:
        """The field's greatest value: all bits 1."""
        return (1 << self.width) - 1

    @property
    def mask(self) -> int:
        """The field's bits in the register."""
        return self.most << self.lsb

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


class Demand(NamedTuple):
    """A field that no set may put below ``least``, but to 0 if ``or_zero``, on kernels with the ``switch`` if any."""

    field: Field
    least: int
    or_zero: bool
    switch: str

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
def gic_fields() -> tuple[Field, ...]:
    """The fields that tell a guest of a GIC with system registers."""
    return tuple(_field(text) for text in _data()["gic"])


@cache
def demands(id: int) -> tuple[Demand, ...]:
    """What every set of an ID register must leave in it."""
    demands = (
        Demand(_field(row["field"]), row["least"], row.get("or_zero", False), row.get("switch", ""))
        for row in _data()["demands"]
    )
    return tuple(demand for demand in demands if demand.field.id == id)


@cache
def impdef(id: int) -> tuple[Field, ...]:
    """The fields of an ID register in which a set takes all ones, "implementation defined", for 0."""
    return tuple(field for field in map(_field, _data()["impdef"]) if field.id == id)
