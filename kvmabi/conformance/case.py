# SPDX-License-Identifier: MIT
"""Conformance cases: what each proves, its source, what it needs, and its lines. They are data, in cases/*.toml.

A file is an array of tables ``case`` with ``name``, ``rule`` (in words), ``source``, ``steps`` (see
kvmabi.conformance.language), and optionally ``needs`` (features and traits of the host, ``!`` before what it must not
have, ``sve_vqs>1`` for a host with several lengths), ``kernels`` (patterns of profile names, where the rule is not
every kernel's) and ``each``: values by which the case is repeated, put in for ``{name}``; ``sve_vqs`` and ``sme_vqs``
stand for the host's vector lengths.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import product
from typing import Any

from kvmabi.conformance.language import Line, needed_features, parse
from kvmabi.errors import UsageError
from kvmabi.steps.hostfeatures import HostFeatures

FIELDS = frozenset({"name", "rule", "source", "needs", "kernels", "each", "steps"})
REQUIRED = ("name", "rule", "source", "steps")


@dataclass(frozen=True)
class Case:
    """One case, for one value of each of its parameters."""

    name: str
    rule: str
    source: str
    needs: tuple[str, ...]
    kernels: tuple[str, ...]
    each: dict[str, list[str] | str]
    steps: str

    @property
    def lines(self) -> list[Line]:
        """The lines of its steps."""
        return parse(self.steps)

    def for_host(self, host_features: HostFeatures) -> Iterator[Case]:
        """The case once for every combination of its parameters' values; with the host's own, which may be none."""
        choices = [_values(values, host_features) for values in self.each.values()]
        if not all(choices):
            yield replace(self, each={})
            return
        for chosen in product(*choices):
            texts = dict(zip(self.each, chosen, strict=True))
            name = self.name + "".join(f"[{key}={value}]" for key, value in texts.items())
            needs = tuple(_put_in(need, texts) for need in self.needs)
            yield replace(self, name=name, needs=needs, steps=_put_in(self.steps, texts), each={})

    def missing(self, host_features: HostFeatures) -> str:
        """Why the case cannot run on a host: "" if it can."""
        if self.kernels and not any(fnmatchcase(host_features.kernel, pattern) for pattern in self.kernels):
            return f"a rule of {', '.join(self.kernels)}, not of {host_features.kernel}"
        for need in self.needs:
            reason = _lacks(need, host_features)
            if reason:
                return reason
        return ""


def load() -> list[Case]:
    """All cases that ship with the package, by file and place in it."""
    folder = files("kvmabi.conformance").joinpath("cases")
    tables = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda entry: entry.name)
    return [case for entry in tables for case in read(entry.name, entry.read_text("utf-8"))]


def read(file: str, text: str) -> list[Case]:
    """The cases of a file; UsageError names the case and field that is wrong."""
    try:
        rows = tomllib.loads(text).get("case", [])
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    return [_case(file, row) for row in rows]


def _case(file: str, row: Any) -> Case:
    name = row.get("name", "?")
    wrong = [key for key in REQUIRED if not isinstance(row.get(key), str)] + sorted(row.keys() - FIELDS)
    if wrong:
        raise UsageError(f"{file}: case {name}: {wrong[0]}: missing, or no field of a case")
    return Case(
        name=name,
        rule=row["rule"],
        source=row["source"],
        needs=tuple(row.get("needs", ())),
        kernels=tuple(row.get("kernels", ())),
        each=dict(row.get("each", {})),
        steps=row["steps"],
    )


def _values(values: list[Any] | str, host_features: HostFeatures) -> list[str]:
    if isinstance(values, list):
        return [str(value) for value in values]
    host = {"sve_vqs": host_features.sve_vqs, "sme_vqs": host_features.sme_vqs}
    if values not in host:
        raise UsageError(f"each = {values!r}: take a list, sve_vqs or sme_vqs")
    return [str(vq) for vq in host[values]]


def _put_in(text: str, texts: dict[str, str]) -> str:
    for key, value in texts.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _lacks(need: str, host_features: HostFeatures) -> str:
    """Why a host does not have what a case needs, or "". Alternatives are not needed, so there are none."""
    name, several, least = need.partition(">")
    if several:
        lengths = {"sve_vqs": host_features.sve_vqs, "sme_vqs": host_features.sme_vqs}[name]
        return "" if len(lengths) > int(least) else f"the host has {len(lengths)} of {name}"
    have = host_features.features | host_features.traits
    if need.startswith("!"):
        return f"the host has {need[1:]}" if need[1:] in have else ""
    lacking = [feature for feature in needed_features(need) if feature not in have and not feature.startswith("bit")]
    return f"the host has no {', '.join(lacking)}" if lacking else ""
