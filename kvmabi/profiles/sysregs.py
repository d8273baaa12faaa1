# SPDX-License-Identifier: MIT
"""The table of system registers (sysregs.toml), in the order in which the kernel lists them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from kvmabi import regid
from kvmabi.profiles import files

RESETS = {"unknown": 0x1DE7EC7EDBADC0DE}


class SysReg(NamedTuple):
    """One system register.

    ``slot`` is its place among all of the table, ``needs`` the vCPU features and ID-register
    predicates without which it does not exist, ``reset`` its value after INIT (None: the host
    decides), ``shared`` whether it belongs to the VM, ``rule`` the name of what a set does
    beyond storing ("" for nothing).
    """

    name: str
    id: int
    slot: int
    needs: frozenset[str]
    reset: int | None
    shared: bool
    rule: str


@cache
def table() -> tuple[SysReg, ...]:
    """Every system register that some kernel serves, in the order of their encodings."""
    rows = files.builtin_table("sysregs.toml")
    served = sorted((row["enc"], name) for name, row in rows.items() if row.get("served", True))
    return tuple(_row(slot, name, rows[name]) for slot, (_, name) in enumerate(served))


@cache
def by_id() -> dict[int, SysReg]:
    """The same table by register id."""
    return {reg.id: reg for reg in table()}


def _row(slot: int, name: str, row: files.Table) -> SysReg:
    reset = row.get("reset")
    rule = row.get("rule", "")
    return SysReg(
        name=name,
        id=regid.parse(name),
        slot=slot,
        needs=frozenset(row.get("needs", ())),
        reset=RESETS[reset] if isinstance(reset, str) else reset,
        shared=rule.endswith("_id"),
        rule=rule,
    )
