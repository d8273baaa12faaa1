# SPDX-License-Identifier: MIT
"""The fields of ID registers (idregs.toml): what they show, what INIT clears, and which values are safe to write."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from kvmabi import regid
from kvmabi.profiles import files


def _lower(value: int, limit: int, _width: int) -> bool:
    return value <= limit


def _lower_signed(value: int, limit: int, width: int) -> bool:
    half = 1 << (width - 1)
    return (value ^ half) <= (limit ^ half)


def _same_or_zero(value: int, limit: int, _width: int) -> bool:
    return value in (0, limit)


def _higher_or_zero(value: int, limit: int, _width: int) -> bool:
    return value == 0 or (limit != 0 and value >= limit)


SAFE: dict[str, Callable[[int, int, int], bool]] = {
    "lower": _lower,
    "lower_signed": _lower_signed,
    "same_or_zero": _same_or_zero,
    "higher_or_zero": _higher_or_zero,
}


class Field(NamedTuple):
    """A field of an ID register: its lowest bit, its width in bits and the rule of values safe to write."""

    id: int
    lsb: int
    width: int
    rule: str = "lower"

    @property
    def mask(self) -> int:
        """The field's bits in the register."""
        return ((1 << self.width) - 1) << self.lsb

    def get(self, value: int) -> int:
        """The field's value in a register's value."""
        return value >> self.lsb & ((1 << self.width) - 1)

    def safe(self, value: int, limit: int) -> bool:
        """Whether a register may be set to ``value`` where the VM can hold ``limit``."""
        return SAFE[self.rule](self.get(value), self.get(limit), self.width)


class Clear(NamedTuple):
    """A field that reads as zero on a vCPU with none of the features ``needs``."""

    field: Field
    needs: frozenset[str]


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
def predicates() -> tuple[tuple[str, Field, int], ...]:
    """(name, field, least value): what a VM shows while the field is at least that."""
    return tuple((name, _field(row["field"]), row["least"]) for name, row in _data()["shows"].items())


@cache
def clears() -> tuple[Clear, ...]:
    """The fields that INIT clears without a feature."""
    return tuple(Clear(_field(row["field"]), frozenset(row["needs"])) for row in _data()["clears"])


@cache
def gic_fields() -> tuple[Field, ...]:
    """The fields that tell a guest of a GIC with system registers."""
    return tuple(_field(text) for text in _data()["gic"])
