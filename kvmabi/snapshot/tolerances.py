# SPDX-License-Identifier: MIT
"""Why registers come and go between kernels, and which VMMs tolerate it (tolerances.toml)."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from kvmabi import regid
from kvmabi.profiles.files import Reader, builtin

SOURCE, DESTINATION, EITHER = PLACES = ("source", "destination", "either")
BANK: Final = "[*]"


class Reason(NamedTuple):
    """Why a register can stand in one list and not in another; ``since`` names the first kernel where that is known."""

    registers: tuple[str, ...]
    since: str
    why: str


class Tolerance(NamedTuple):
    """A difference that a VMM tolerates from the release ``since`` on.

    ``at`` is where the register may stand alone (one of PLACES), ``zero``: only with the value 0.
    """

    registers: tuple[str, ...]
    vmm: str
    since: str
    at: str
    zero: bool

    def covers(self, name: str, at: str, value: int | None) -> bool:
        """Whether the VMM tolerates a register of this name and value (None: unknown) that stands ``at`` one end only.

        >>> tolerances()[1].covers("vendor_hyp_bmap_2", "source", 1)
        False
        """
        return name in self.registers and self.at in (EITHER, at) and (not self.zero or value == 0)

    def __str__(self) -> str:
        return f"{self.vmm} {self.since}"


@cache
def _data() -> Reader:
    return builtin("tolerances.toml", "kvmabi.snapshot")


@cache
def reasons() -> tuple[Reason, ...]:
    """Every reason, in the order of the file."""
    rows = _data().rows("reason")
    for row in rows:
        row.only(Reason._fields)
    return tuple(Reason(_registers(row), row.text("since"), row.text("why")) for row in rows)


@cache
def tolerances() -> tuple[Tolerance, ...]:
    """Every tolerance, in the order of the file."""
    rows = _data().rows("tolerance")
    for row in rows:
        row.only(Tolerance._fields)
    return tuple(
        Tolerance(
            _registers(row), row.text("vmm"), row.text("since"), row.one_of("at", PLACES), row.flag("zero", False)
        )
        for row in rows
    )


def reason_of(id: int) -> Reason | None:
    """Why a register comes and goes between kernels; None for one that the file does not name.

    >>> from kvmabi import regid
    >>> reason_of(regid.parse("ccsidr[7]")).registers
    ('ccsidr[*]',)
    """
    name = regid.name_of(id)
    bank = name.partition("[")[0] + BANK
    return next((reason for reason in reasons() if name in reason.registers or bank in reason.registers), None)


def tolerated_by(id: int, at: str, value: int | None = None) -> tuple[Tolerance, ...]:
    """The tolerances of a register that stands ``at`` SOURCE or DESTINATION only; ``value`` None: unknown.

    >>> from kvmabi import regid
    >>> [str(found) for found in tolerated_by(regid.parse("pir_el1"), SOURCE)]
    ['QEMU 11.1']
    """
    name = regid.name_of(id)
    return tuple(tolerance for tolerance in tolerances() if tolerance.covers(name, at, value))


def _registers(row: Reader) -> tuple[str, ...]:
    names = row.texts("registers")
    for name in names:
        row.register("registers", name.replace(BANK, "[0]"))
    return names
