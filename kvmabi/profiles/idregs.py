# SPDX-License-Identifier: MIT
"""The fields of ID registers (idregs.toml): what they show, which ones INIT clears, which values are safe to write."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.profiles import features, files, switches
from kvmabi.profiles.files import Reader
from kvmabi.profiles.switches import Switches

PLACE = re.compile(r"(\w+)\[(\d+)\+:(\d+)\]")


LOWER_SAFE, HIGHER_SAFE, HIGHER_OR_ZERO_SAFE = "FTR_LOWER_SAFE", "FTR_HIGHER_SAFE", "FTR_HIGHER_OR_ZERO_SAFE"
EXACT = "FTR_EXACT"
RULES = frozenset({LOWER_SAFE, HIGHER_SAFE, HIGHER_OR_ZERO_SAFE, EXACT})


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an ID register: its lowest bit, its width in bits and the rule of values that are safe to write.

    ``rule`` is one of RULES, named as in the kernel's arch/arm64/kernel/cpufeature.c. ``signed``: the field is a
    two's-complement number. ``exact`` is the safe value of FTR_EXACT. ``most`` is the greatest value, all bits 1,
    and ``mask`` the field's bits in the register.
    """

    id: int
    lsb: int
    width: int
    rule: str = LOWER_SAFE
    signed: bool = False
    exact: int = 0
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
        """Whether a register can be set to ``value`` in a VM whose limit is ``limit``."""
        new, old = self.get(value), self.get(limit)
        if new == old:
            return True
        match self.rule:
            case "FTR_LOWER_SAFE":
                sign = 1 << (self.width - 1) if self.signed else 0
                return new ^ sign < old ^ sign
            case "FTR_HIGHER_SAFE":
                return new > old
            case "FTR_HIGHER_OR_ZERO_SAFE":
                return new == 0 or (old != 0 and new > old)
        return new == self.exact


class Clear(NamedTuple):
    """A field that INIT clears on a vCPU without any of the features ``needs``.

    With a ``switch`` it does so only on kernels where the switch has the value ``on``.
    """

    field: Field
    needs: frozenset[str]
    switch: str
    on: bool

    def applies(self, features: frozenset[str], switches: Switches) -> bool:
        """Whether the field of a vCPU with these features reads as zero."""
        if self.switch and getattr(switches, self.switch) != self.on:
            return False
        return not self.needs & features


class Nested(NamedTuple):
    """A field that differs from the host's on a vCPU with EL2, and with the feature ``needs`` if that is not "".

    The field is ``value``, or with ``limit`` at most ``value``.
    """

    field: Field
    value: int
    limit: bool
    needs: str

    def apply(self, value: int) -> int:
        """Returns the register's value on such a vCPU."""
        new = min(self.field.get(value), self.value) if self.limit else self.value
        return value & ~self.field.mask | new << self.field.lsb


class Demand(NamedTuple):
    """A field that a set cannot lower below ``least``; ``or_zero``: 0 is accepted.

    It applies to kernels with the ``switch`` ("": all) and to vCPUs with the features ``needs``.
    """

    field: Field
    least: int
    or_zero: bool
    switch: str
    needs: frozenset[str]

    def applies(self, features: frozenset[str], switches: Switches) -> bool:
        """Whether the kernel makes this demand of a vCPU with these features."""
        return self.needs <= features and (not self.switch or bool(getattr(switches, self.switch)))

    def met(self, value: int) -> bool:
        """Whether the demand accepts a register's value."""
        field = self.field.get(value)
        return field >= self.least or (self.or_zero and not field)


@cache
def _data() -> Reader:
    return files.builtin("idregs.toml")


def _field(row: Reader, key: str = "field") -> Field:
    """A field written as "register[lsb+:width]"."""
    return _place(row, key, row.text(key))


def _place(table: Reader, key: str, text: str) -> Field:
    match = PLACE.fullmatch(text)
    if not match:
        raise table.wrong(key, f"{text!r} is not a field such as id_aa64pfr0_el1[32+:4]")
    return Field(table.register(key, match[1]), int(match[2]), int(match[3]))


def _switch(row: Reader) -> str:
    """The name of a switch that is true or false; "" for none."""
    return row.one_of("switch", ("", *switches.flags()), "")


@cache
def fields(id: int) -> tuple[Field, ...]:
    """All fields of an ID register: the table's; all other bits are unsigned 4-bit FTR_LOWER_SAFE fields."""
    described = _described().get(id, [])
    taken = sum(field.mask for field in described)
    plain = (Field(id, lsb, 4) for lsb in range(0, 64, 4))
    return (*described, *(field for field in plain if not field.mask & taken))


@cache
def _described() -> dict[int, list[Field]]:
    table = _data().reader("fields")
    return {regid.parse(name): [_row(table, name, row) for row in table.items(name)] for name in table.table}


def _row(table: Reader, name: str, row: Any) -> Field:
    """A field written as [lowest bit, width, rule], and "FTR_SIGNED" or the safe value of FTR_EXACT."""
    match row:
        case [int(lsb), int(width), "FTR_EXACT", int(exact)]:
            return Field(regid.parse(name), lsb, width, EXACT, exact=exact)
        case [int(lsb), int(width), str(rule)] if rule in RULES - {EXACT}:
            return Field(regid.parse(name), lsb, width, rule)
        case [int(lsb), int(width), "FTR_LOWER_SAFE", "FTR_SIGNED"]:
            return Field(regid.parse(name), lsb, width, LOWER_SAFE, signed=True)
    rules = ", ".join(sorted(RULES))
    raise table.wrong(name, f"{row!r} is not a field: [lowest bit, width, one of {rules}, FTR_SIGNED or a safe value]")


@cache
def field_bits(id: int) -> int:
    """The bits of an ID register that belong to a field."""
    return sum(field.mask for field in fields(id))


@cache
def predicates() -> tuple[tuple[str, Field, int], ...]:
    """(name, field, least value): what a VM has while the field is at least that value."""
    rows = _data().reader("shows").readers()
    return tuple((name, _field(row), row.number("least")) for name, row in rows.items())


@cache
def deciding() -> frozenset[int]:
    """The ID registers that decide what a VM has."""
    return frozenset(field.id for _, field, _ in predicates())


def host_predicate(name: str) -> tuple[Field, int]:
    """The field that shows whether a host has something, and the least value that says so."""
    row = _data().reader("host").reader(name)
    return _field(row), row.number("least")


@cache
def clears() -> tuple[Clear, ...]:
    """The fields that INIT clears without a feature."""
    return tuple(
        Clear(_field(row), frozenset(row.texts("needs", features.table())), _switch(row), row.flag("on", True))
        for row in _rows("clears", "field", "needs", "switch", "on")
    )


@cache
def nested() -> tuple[Nested, ...]:
    """The fields of a vCPU with EL2 that differ from the host's, in the order in which they apply."""
    return tuple(
        Nested(_field(row), row.number("most" if "most" in row.table else "is"), "most" in row.table, _needed(row))
        for row in _rows("nested", "field", "is", "most", "needs")
    )


def _needed(row: Reader) -> str:
    return row.one_of("needs", ("", *features.table()), "")


@cache
def gic_fields() -> tuple[Field, ...]:
    """The fields that show a guest a GIC with system registers."""
    return tuple(_place(_data(), "gic", text) for text in _data().texts("gic"))


@cache
def demands(id: int) -> tuple[Demand, ...]:
    """The demands that the kernel makes of every set of an ID register."""
    return tuple(demand for demand in _demands() if demand.field.id == id)


@cache
def _demands() -> tuple[Demand, ...]:
    return tuple(
        Demand(
            field=_field(row),
            least=row.number("least"),
            or_zero=row.flag("or_zero", False),
            switch=_switch(row),
            needs=frozenset(row.texts("needs", features.table())),
        )
        for row in _rows("demands", "field", "least", "or_zero", "switch", "needs")
    )


def _rows(key: str, *columns: str) -> list[Reader]:
    rows = _data().rows(key)
    for row in rows:
        row.only(columns)
    return rows


@cache
def impdef(id: int) -> tuple[Field, ...]:
    """The fields of an ID register in which a set replaces all ones (IMPLEMENTATION DEFINED) by 0."""
    fields = (_place(_data(), "impdef", text) for text in _data().texts("impdef"))
    return tuple(field for field in fields if field.id == id)
