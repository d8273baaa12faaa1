# SPDX-License-Identifier: MIT
"""The register map: for one mode, a row for every register ID that has a place, and a refusal for every other ID.

Everything that lists, reads, writes, explains, saves or draws registers reads this table, so no two of them can
disagree. The families (core, sve, sme, sysreg, firmware, demux) make the rows; maps are cached by mode, and a family's
part by what of the mode that family looks at.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from kvmabi import uapi
from kvmabi.model.facts import Facts
from kvmabi.model.mode import Mode
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import Row, refuse


class Family(NamedTuple):
    """One register family: the coprocessor fields it answers for and its two functions.

    ``rows(facts, mode)`` returns the rows in the kernel's list order; ``refuse(map, id)`` the row of an ID that is not
    among them, if the family ``answers`` for the coprocessor field; ``key(mode)`` the part of the mode that both depend
    on.
    """

    name: str
    coprocs: tuple[int, ...]
    key: Callable[[Mode], Hashable]
    rows: Callable[[Facts, Mode], Iterable[Row]]
    refuse: Callable[[RegisterMap, int], Row]
    answers: bool = True


COPROC: Final = uapi.KVM_REG_ARM_COPROC_MASK
FIXED_BITS: Final = (1 << 64) - (1 << 32) & ~uapi.KVM_REG_SIZE_MASK
"""Bits of an ID that are those of KVM_REG_ARM64 in every arm64 ID."""
BAD_ID = Refusal(errno.EINVAL, "no arm64 register ID has these bits")
ROWS_KEPT = 4096  # more than any mode has; a client that asks for every ID starts the cache anew


class Part:
    """One family's rows in one mode, by ID and as listed; modes that look alike to the family share it."""

    __slots__ = ("listed", "rows")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: dict[int, Row] = {row.id: row for row in rows}
        self.listed: list[int] = [row.id for row in self.rows.values() if row.listed]


class Families:
    """The register families of a kernel in its list order, and which of them an ID can belong to."""

    def __init__(self, families: Sequence[Family]) -> None:
        self.all = families
        self.places: dict[int, tuple[int, ...]] = {}
        """Coprocessor field to the positions of the families that can have an ID with it."""
        for place, family in enumerate(families):
            for coproc in family.coprocs:
                self.places[coproc] = (*self.places.get(coproc, ()), place)
        self._answering = {coproc: family for family in families for coproc in family.coprocs if family.answers}

    def of(self, id: int) -> Family:
        """The family that answers for IDs with the coprocessor field of ``id``; system registers for unknown ones."""
        return self._answering.get(id & COPROC) or self._answering[uapi.KVM_REG_ARM64_SYSREG]


class RegisterMap:
    """The rows of one mode, made of the families' parts.

    ``unwritten`` is how many entries KVM_GET_REG_LIST counts but does not write.
    """

    __slots__ = ("_asked", "_families", "_list_bytes", "_listed", "_parts", "_rows", "facts", "mode", "unwritten")

    def __init__(self, facts: Facts, mode: Mode, families: Families, parts: Sequence[Part], unwritten: int = 0) -> None:
        self.facts = facts
        self.mode = mode
        self.unwritten = unwritten
        self._families = families
        self._parts = parts
        self._asked: dict[int, Row] = {}
        self._rows: dict[int, Row] | None = None
        self._listed: list[int] | None = None
        self._list_bytes: bytes | None = None

    @property
    def rows(self) -> Mapping[int, Row]:
        """Every row by ID, in the kernel's order."""
        if self._rows is None:
            self._rows = {id: row for part in self._parts for id, row in part.rows.items()}
        return self._rows

    @property
    def listed(self) -> list[int]:
        """KVM_GET_REG_LIST's answer, as far as the kernel writes it."""
        if self._listed is None:
            self._listed = [id for part in self._parts for id in part.listed]
        return self._listed

    @property
    def list_bytes(self) -> bytes:
        """``listed`` as struct kvm_reg_list holds it."""
        if self._list_bytes is None:
            self._list_bytes = struct.pack(f"={len(self.listed)}Q", *self.listed)
        return self._list_bytes

    def row(self, id: int) -> Row:
        """The row of any 64-bit ID; one that has no place gets a row that refuses."""
        return self._asked.get(id) or self._look_up(id)

    def find(self, id: int) -> Row | None:
        """The row of an ID that has a place in this mode."""
        for place in self._families.places.get(id & COPROC, ()):
            row = self._parts[place].rows.get(id)
            if row is not None:
                return row
        return None

    def is_visible(self, id: int) -> bool:
        """Whether the ID has a place in this mode and can be read."""
        row = self.find(id)
        return row is not None and row.get is None

    def _look_up(self, id: int) -> Row:
        row = self.find(id)
        if row is None:
            if id & FIXED_BITS == uapi.KVM_REG_ARM64:
                row = self._families.of(id).refuse(self, id)
            else:
                row = refuse(id, BAD_ID)
        if len(self._asked) >= ROWS_KEPT:
            self._asked.clear()
        self._asked[id] = row
        return row
