# SPDX-License-Identifier: MIT
"""The table of system registers (sysregs.toml), in the order in which the kernel lists them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.tables import Reader, Table

UNKNOWN = 0x1DE7EC7EDBADC0DE
CHANGEABLE = frozenset(
    {"needs", "reset", "rule", "get", "at", "kept", "served", "scope", "free_running", "status_bits"}
)
"""The columns that a kernel profile can change."""


class SysReg(NamedTuple):
    """One system register.

    ``slot`` is its place among all of the table (two views of one value share it), ``needs`` the vCPU
    features and ID-register predicates without which it does not exist, ``reset`` its value after INIT
    (None: host-defined; a name: model/reset.py computes it), ``shared`` whether all vCPUs of a VM share it,
    ``rule`` and ``get`` the names of what a set and a get do beyond storing and reading ("" for nothing),
    ``kept`` whether INIT again preserves it. ``free_running`` marks a counter whose value changes without
    a set, ``status_bits`` the bits that follow such a counter.
    """

    name: str
    id: int
    slot: int
    needs: frozenset[str]
    reset: int | str | None
    shared: bool
    rule: str
    get: str
    kept: bool
    free_running: bool
    status_bits: int


@cache
def table() -> tuple[SysReg, ...]:
    """Every system register that some kernel serves, in the order of their encodings."""
    return tuple(_row(name, row) for name, row in _rows().items() if row.get("served", True))


@cache
def by_id() -> dict[int, SysReg]:
    """The same table by register id."""
    return {reg.id: reg for reg in table()}


@cache
def free_running_ids() -> frozenset[int]:
    """The free-running counters: a restored value does not stay."""
    return frozenset(reg.id for reg in table() if reg.free_running)


@cache
def views() -> dict[int, int]:
    """Registers that are another view of a value, by id, with the register whose value it is (PMCNTENCLR: ...SET)."""
    return {regid.parse(name): regid.parse(row["at"]) for name, row in _rows().items() if "at" in row}


@cache
def status_bits() -> dict[int, int]:
    """The bits that follow a free-running counter, by register id: ISTATUS of the timers."""
    return {reg.id: reg.status_bits for reg in table() if reg.status_bits}


@cache
def needs() -> frozenset[str]:
    """Everything that some register needs to exist."""
    return frozenset(need for row in _rows().values() for need in row.get("needs", ()))


def changed(changes: Mapping[str, Mapping[str, Any]]) -> tuple[SysReg, ...]:
    """The table with some columns of some rows as a kernel profile has them."""
    rows = ((name, {**row, **changes.get(name, {})}) for name, row in _rows().items())
    return tuple(_row(name, row) for name, row in rows if row.get("served", True))


def names() -> frozenset[str]:
    """The names of all system registers, served or not."""
    return frozenset(_rows())


def check(row: Reader) -> None:
    """Fails for columns of a row that a kernel profile cannot change, or whose values have a wrong type."""
    row.only(CHANGEABLE)
    row.texts("needs")
    for column in ("rule", "get"):
        row.text(column, "")
    row.one_of("at", names(), next(iter(names())))
    row.one_of("scope", ("vm", "vcpu"), "vcpu")
    for column in ("kept", "served", "free_running"):
        row.flag(column, False)
    row.number("status_bits", 0)
    if not isinstance(row.table.get("reset"), str):
        row.number("reset", 0)


@cache
def _rows() -> dict[str, Table]:
    rows = regid.sysreg_rows()
    return {name: row for _, name, row in sorted((row["enc"], name, row) for name, row in rows.items())}


@cache
def _slots() -> dict[str, int]:
    return {name: slot for slot, name in enumerate(_rows())}


def _row(name: str, row: Table) -> SysReg:
    reset = row.get("reset")
    return SysReg(
        name=name,
        id=regid.parse(name),
        slot=_slots()[row.get("at", name)],
        needs=frozenset(row.get("needs", ())),
        reset=UNKNOWN if reset == "unknown" else reset,
        shared=row.get("scope") == "vm",
        rule=row.get("rule", ""),
        get=row.get("get", ""),
        kept=row.get("kept", False),
        free_running=row.get("free_running", False),
        status_bits=row.get("status_bits", 0),
    )
