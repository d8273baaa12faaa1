# SPDX-License-Identifier: MIT
"""The architecture's names of the fields of ID registers, MIDR_EL1 and SVCR (idnames.toml)."""

from __future__ import annotations

from functools import cache

from kvmabi import regid
from kvmabi.profiles import files, idregs, sysregs
from kvmabi.profiles.idregs import Field

FEATURE_RULES = frozenset({"feature_id", "aarch32_id"})
"""The rules of sysregs.toml for registers whose fields have rules of their own."""


@cache
def feature_ids() -> tuple[int, ...]:
    """The feature ID registers: those that a VMM can lower field by field."""
    return tuple(reg.id for reg in sysregs.table() if reg.rule in FEATURE_RULES)


@cache
def _names() -> dict[int, dict[tuple[int, int], str]]:
    """For each register's id: (lowest bit, width) to name."""
    table = files.builtin("idnames.toml")
    names: dict[int, dict[tuple[int, int], str]] = {}
    nibbles = table.reader("nibbles")
    for register in nibbles.table:
        words = nibbles.text(register).split()
        names[regid.parse(register)] = {(4 * n, 4): word for n, word in enumerate(words) if word != "-"}
    for register, rows in table.sub("fields").items():
        names[regid.parse(register)] = {(lsb, width): name for name, lsb, width in rows}
    return names


def name_of(field: Field) -> str:
    """A field's name, "" for one without.

    >>> name_of(Field(regid.parse("id_aa64pfr1_el1"), 24, 4))
    'SME'
    """
    return _names().get(field.id, {}).get((field.lsb, field.width), "")


def label(field: Field) -> str:
    """A field as reports write it: its name and its bits, or its bits alone.

    >>> label(Field(regid.parse("id_aa64pfr1_el1"), 24, 4)), label(Field(regid.parse("revidr_el1"), 0, 4))
    ('SME (bits 27:24)', 'bits 3:0')
    """
    name = name_of(field)
    return f"{name} ({field.place})" if name else field.place


@cache
def fields(id: int) -> tuple[Field, ...]:
    """The fields into which a register's value is taken apart, the highest first; none of most registers.

    Those of a feature ID register have their rules. MIDR_EL1's and SVCR's have names only.
    """
    names = _names().get(id, {})
    found = idregs.fields(id) if id in feature_ids() else [Field(id, lsb, width) for lsb, width in names]
    return tuple(sorted(found, key=lambda field: -field.lsb))
