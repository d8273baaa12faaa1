# SPDX-License-Identifier: MIT
"""The features of KVM_ARM_VCPU_INIT (features.toml): names, labels, and which of them go together.

Which features a kernel has, and their bits, is in its profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from kvmabi.errors import UsageError
from kvmabi.profiles import files

NO_FEATURES = "none"


class Rules(NamedTuple):
    """The rules of one feature, the same on every kernel that has it; the columns of features.toml."""

    name: str
    label: str
    alias: str
    needs: tuple[str, ...]
    wanted: tuple[str, ...]
    excludes: tuple[str, ...]
    lasts: bool


@cache
def table() -> dict[str, Rules]:
    """Every feature by name, in the order in which labels are written."""
    rows = files.builtin("features.toml").readers()
    rules = {}
    for name, row in rows.items():
        row.only(("label", "alias", "needs", "with", "excludes", "lasts"))
        rules[name] = Rules(
            name=name,
            label=row.text("label"),
            alias=row.text("alias", ""),
            needs=row.texts("needs", rows),
            wanted=row.texts("with", rows),
            excludes=row.texts("excludes", rows),
            lasts=row.flag("lasts", True),
        )
    return rules


@cache
def aliases() -> dict[str, tuple[str, ...]]:
    """Short names and the features that each stands for: "ptrauth" for both of the pair."""
    names = dict.fromkeys(rules.alias for rules in table().values() if rules.alias)
    return {alias: tuple(rules.name for rules in table().values() if rules.alias == alias) for alias in names}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the features' own names, each once; names that are no alias stay. UsageError for a mere string."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        kind = type(names).__name__
        raise UsageError(f'features are given as a set such as {{"sve", "sme"}}, not as {kind} {names!r}')
    return tuple(dict.fromkeys(own for name in names for own in aliases().get(name, (name,))))


def needs(name: str) -> tuple[str, ...]:
    """Returns the features that a VMM asks for together with this one."""
    rules = table().get(name)
    return (*rules.needs, *rules.wanted) if rules else ()


def conflict(names: frozenset[str]) -> str:
    """Returns why INIT refuses the set of features, or "" if they go together."""
    for rules in table().values():
        if rules.name not in names:
            continue
        for other in rules.needs:
            if other not in names:
                return _missing(rules.name, other)
        for other in rules.excludes:
            if other in names:
                return f"{rules.name} and {other} exclude one another"
    return ""


def _missing(name: str, other: str) -> str:
    if name in table()[other].needs:
        return "{} and {} go together".format(*(feature for feature in table() if feature in (name, other)))
    return f"{name} needs {other}"


def lasting(names: Iterable[str]) -> frozenset[str]:
    """Returns the features that stay with a vCPU after INIT."""
    rules = table()
    return frozenset(name for name in names if name not in rules or rules[name].lasts)


def label(names: Iterable[str]) -> str:
    """Returns a set of features as recordings write it: "SVE+PSCI", or "none"."""
    given = frozenset(names)
    return "+".join(rules.label for rules in table().values() if rules.name in given) or NO_FEATURES


@cache
def by_label() -> dict[str, str]:
    """The features by the labels of recordings."""
    return {rules.label: rules.name for rules in table().values()}
