# SPDX-License-Identifier: MIT
"""Conformance cases: what each proves, its source, what it needs, and its lines. They are data, in cases/*.toml.

A file is an array of tables ``case`` with ``name``, ``rule`` (in words), ``source``, ``steps`` (see
kvmabi.conformance.language), and optionally ``needs`` (features and traits of the host, ``!`` before one that it must
not have, ``sve_vqs>1`` for a host with several lengths), ``kernels`` (patterns of profile names, for a rule that some
kernels do not have) and ``each``: the case is repeated with each value in place of ``{name}``; ``sve_vqs`` and
``sme_vqs`` stand for the host's vector lengths. A trace (kvmabi.steps.trace) is a file of cases, too: each of its
sequences is one, and the answers are those of the record.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.resources import files
from itertools import product
from pathlib import Path

from kvmabi.conformance.language import Line, needed_features, parse
from kvmabi.errors import UsageError
from kvmabi.steps import grammar
from kvmabi.steps.hostfeatures import HostFeatures
from kvmabi.steps.trace import PACKED, Trace
from kvmabi.tables import Reader

FIELDS = ("name", "rule", "source", "needs", "kernels", "each", "steps")
HOSTS_OWN = ("sve_vqs", "sme_vqs")
"""The names of the host's vector lengths, for a parameter's values and for needs."""
TRACE_HEAD = "# host "
SEVERAL = re.compile(rf"({'|'.join(HOSTS_OWN)})>(\d{{1,3}})")


@dataclass(frozen=True)
class Case:
    """One case, for one value of each of its parameters."""

    name: str
    rule: str
    source: str
    needs: tuple[str, ...]
    kernels: tuple[str, ...]
    each: dict[str, list[str | int] | str]
    steps: str
    file: str = ""
    recorded: tuple[tuple[str, str], ...] = ()
    """The steps and answers of a sequence of a trace, which stand in the place of ``steps``."""

    @property
    def lines(self) -> list[Line]:
        """The lines of its steps."""
        return parse(self.steps)

    def for_host(self, host_features: HostFeatures) -> Iterator[Case]:
        """The case for every combination of its parameters' values; once, unchanged, if a parameter has no values."""
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
        """Returns why the case cannot run on a host, "" if it can."""
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


def read_file(path: str) -> list[Case]:
    """The cases of a file of the user's own, or of a trace; UsageError if it cannot be read or holds none."""
    if path.endswith(PACKED):
        return _of_trace(path)
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: {reason}") from None
    if text.startswith(TRACE_HEAD):
        return _of_trace(path)
    cases = read(path, text)
    if not cases:
        raise UsageError(f"{path}: the file has no cases")
    return cases


def _of_trace(path: str) -> list[Case]:
    """The sequences of a trace as cases."""
    trace = Trace(path)
    sequences: dict[str, list[tuple[str, str]]] = {}
    for number, step, answer in trace.steps():
        try:
            grammar.parse(step)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: {error}") from None
        sequences.setdefault(trace.sequence or Path(path).name, []).append((step, answer))
    if not sequences:
        raise UsageError(f"{path}: the trace has no steps")
    rule, source = "the answers are those of the record", f"{Path(path).name}, host {trace.host}"
    return [Case(name, rule, source, (), (), {}, "", path, tuple(steps)) for name, steps in sequences.items()]


def read(file: str, text: str) -> list[Case]:
    """The cases of a file; UsageError names the file, the case and the field that is wrong."""
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    reader = Reader(file, table)
    reader.only(["case"])
    return [_case(row) for row in reader.rows("case")]


def _case(row: Reader) -> Case:
    name = row.text("name")
    row.within = f"case {name}: "
    row.only(FIELDS)
    each = row.reader("each")
    return Case(
        name=name,
        rule=row.text("rule"),
        source=row.text("source"),
        needs=row.texts("needs"),
        kernels=row.texts("kernels"),
        each={key: _choices(each, key) for key in each.table},
        steps=row.text("steps"),
        file=row.name,
    )


def _choices(each: Reader, key: str) -> list[str | int] | str:
    """The values of a parameter as a file has them."""
    values = each.table[key]
    if isinstance(values, str):
        return each.one_of(key, HOSTS_OWN)
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        raise each.wrong(key, f"must be an array of strings and numbers, or one of {', '.join(HOSTS_OWN)}")
    return values


def _values(values: list[str | int] | str, host_features: HostFeatures) -> list[str]:
    """The values of a parameter on a host."""
    if isinstance(values, list):
        return [str(value) for value in values]
    return [str(vq) for vq in _lengths(values, host_features)]


def _lengths(name: str, host_features: HostFeatures) -> tuple[int, ...]:
    return host_features.sve_vqs if name == "sve_vqs" else host_features.sme_vqs


def _put_in(text: str, texts: dict[str, str]) -> str:
    for key, value in texts.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def _lacks(need: str, host_features: HostFeatures) -> str:
    """Why a host does not have what a case needs, or ""."""
    several = SEVERAL.fullmatch(need)
    if several:
        lengths = _lengths(several[1], host_features)
        return "" if len(lengths) > int(several[2]) else f"the host has {len(lengths)} of {several[1]}"
    have = host_features.features | host_features.traits
    if need.startswith("!"):
        return f"the host has {need[1:]}" if need[1:] in have else ""
    lacking = [feature for feature in needed_features(need) if feature not in have and not feature.startswith("bit")]
    return f"the host has no {', '.join(lacking)}" if lacking else ""
