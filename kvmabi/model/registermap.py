# SPDX-License-Identifier: MIT
"""The register map: for one mode, a row for every register id that has a place, and a refusal for every other id.

Everything that lists, reads, writes, explains, saves or draws registers reads this table, so no
two of them can disagree. The families (core, sve, sme, sysreg, firmware, demux) make the rows;
maps are cached by mode, and a family's part by what of the mode that family looks at.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from kvmabi import regid, uapi
from kvmabi.model.mode import Mode

if TYPE_CHECKING:
    from kvmabi.model.system import System
    from kvmabi.model.vcpu import Vcpu


class Refusal(NamedTuple):
    """Why an access fails: the errno the VMM sees, the rule, and the way out ("" if there is none)."""

    errno: int
    reason: str
    remedy: str = ""


class Effect(NamedTuple):
    """A register other than the one written whose value an ioctl changed."""

    id: int
    before: bytes
    after: bytes


@dataclass(slots=True, eq=False)
class Row:
    """What one register id means in one mode.

    ``size_bytes`` is what a transfer moves, ``offset`` the register's place in the register file
    and ``valid_bytes`` how many of its bytes are real now: a set stores and reads from the VMM no
    more than those, a get fills up with zeroes. ``get`` and ``set`` refuse or are None.
    ``fault_first``: a set that is refused reads its payload before, so a bad pointer's EFAULT wins.
    ``torn``: a set that faults halfway has stored what it could read and zeroed the rest.
    ``rule`` checks and stores a set that does more than store (None: it just stores) and tells its
    effects on other registers. ``get_rule`` makes the value of a get that does more than read.
    ``shared``: the register is the VM's, a set reaches all its vCPUs. ``backwards``: a get takes the
    register's bytes from the caller's memory instead of writing them there, a kernel's mistake.
    """

    id: int
    size_bytes: int
    offset: int = 0
    valid_bytes: int = 0
    listed: bool = True
    get: Refusal | None = None
    set: Refusal | None = None
    fault_first: bool = False
    torn: bool = False
    shared: bool = False
    rule: Callable[[Vcpu, Row, bytes], Iterable[Effect]] | None = None
    get_rule: Callable[[Vcpu, Row], bytes] | None = None
    backwards: bool = False

    @property
    def name(self) -> str:
        """The register's name ("za.h[3]")."""
        return regid.name_of(self.id)


def refuse(regid: int, refusal: Refusal, *, fault_first: bool = False, set_bytes: int = 8) -> Row:
    """A row for an id that answers nothing; ``set_bytes`` is what a set reads before it is refused."""
    return Row(regid, size_of(regid), 0, set_bytes, listed=False, get=refusal, set=refusal, fault_first=fault_first)


def size_of(id: int) -> int:
    """The transfer size in bytes that a register id's size field asks for."""
    return 1 << ((id & uapi.KVM_REG_SIZE_MASK) >> uapi.KVM_REG_SIZE_SHIFT)


class Family(NamedTuple):
    """One register family: the coprocessor fields it answers for and its two functions.

    ``rows(system, mode)`` gives the rows in the kernel's list order; ``refuse(system, mode, id)`` the
    row of an id that is not among them, if the family ``answers`` for the coprocessor field; ``key(mode)``
    the part of the mode that both depend on.
    """

    name: str
    coprocs: tuple[int, ...]
    key: Callable[[Mode], Hashable]
    rows: Callable[[System, Mode], Iterable[Row]]
    refuse: Callable[[System, Mode, int], Row]
    answers: bool = True


COPROC: Final = uapi.KVM_REG_ARM_COPROC_MASK
BAD_ID = Refusal(errno.EINVAL, "no arm64 register id has these bits")


class Part:
    """One family's rows in one mode, by id and as listed; modes that look alike to the family share it."""

    __slots__ = ("listed", "rows")

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows: dict[int, Row] = {row.id: row for row in rows}
        self.listed: list[int] = [row.id for row in self.rows.values() if row.listed]


class RegisterMap:
    """The rows of one mode, made of the families' parts.

    ``unwritten`` is how many entries KVM_GET_REG_LIST counts but does not write.
    """

    __slots__ = ("_found", "_listed", "_parts", "_rows", "mode", "system", "unwritten")

    def __init__(self, system: System, mode: Mode, parts: Sequence[Part]) -> None:
        self.system = system
        self.mode = mode
        self.unwritten = 0
        self._parts = parts
        self._found: dict[int, Row] = {}  # what was asked for, so that it is found at once
        self._rows: dict[int, Row] | None = None
        self._listed: list[int] | None = None

    @property
    def rows(self) -> dict[int, Row]:
        """Every row by id, in the kernel's order."""
        if self._rows is None:
            self._rows = {id: row for part in self._parts for id, row in part.rows.items()}
        return self._rows

    @property
    def listed(self) -> list[int]:
        """KVM_GET_REG_LIST's answer, as far as the kernel writes it."""
        if self._listed is None:
            self._listed = [id for part in self._parts for id in part.listed]
        return self._listed

    def row(self, id: int) -> Row:
        """The row of any 64-bit id; one that has no place gets a row that refuses."""
        return self.find(id) or self.missing(id)

    def find(self, id: int) -> Row | None:
        """The row of an id that has a place in this mode."""
        row = self._found.get(id)
        if row is None:
            for place in self.system.places.get(id & COPROC, ()):
                row = self._parts[place].rows.get(id)
                if row is not None:
                    self._found[id] = row
                    break
        return row

    def missing(self, id: int) -> Row:
        """The row of an id that has no place in this mode."""
        if (id & ~uapi.KVM_REG_SIZE_MASK) >> 32 != uapi.KVM_REG_ARM64 >> 32:
            return refuse(id, BAD_ID)
        family = self.system.family_of(id)
        return family.refuse(self.system, self.mode, id)
