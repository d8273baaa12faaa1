# SPDX-License-Identifier: MIT
"""The rules of validate (rules.toml): what each one is about, how bad it is, why, what to do, and what it must know."""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import NamedTuple

from kvmabi.profiles.files import Reader, builtin


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """State is lost, or the restore fails."""
    WARNING = "warning"
    """The restore works, and the guest may notice."""
    NOTE = "note"
    """Worth knowing, or not judged."""


class Rule(NamedTuple):
    """One rule. ``needs`` names the facts (Missing) without which it judges nothing."""

    id: str
    severity: Severity
    title: str
    why: str
    fix: str
    needs: tuple[str, ...] = ()


class Missing(NamedTuple):
    """A fact that a snapshot can lack: what it is, and how it is given ("": it cannot be)."""

    id: str
    title: str
    give: str


@cache
def rules() -> dict[str, Rule]:
    """Every rule by ID.

    >>> rules()["svcr-reserved"].severity
    <Severity.ERROR: 'error'>
    """
    table = {}
    for id, row in _data().reader("rules").readers().items():
        row.only(("severity", "title", "why", "fix", "needs"))
        severity = Severity(row.one_of("severity", list(Severity)))
        needs = row.texts("needs", missing())
        table[id] = Rule(id, severity, row.text("title"), row.text("why"), row.text("fix"), needs)
    return table


def rule(id: str) -> Rule:
    """A rule by ID; one that the table lacks is an error without an explanation."""
    return rules().get(id) or Rule(id, Severity.ERROR, id.replace("-", " "), "", "")


@cache
def missing() -> dict[str, Missing]:
    """The facts that a snapshot can lack, by ID."""
    rows = _data().reader("facts").readers()
    return {id: Missing(id, row.text("title"), row.text("give", "")) for id, row in rows.items()}


@cache
def _data() -> Reader:
    return builtin("rules.toml", "kvmabi.snapshot.checks")
