# SPDX-License-Identifier: MIT
"""Whether an answer is the one that a case asks for; what it is called by ``$name`` is remembered."""

from __future__ import annotations

import re

from kvmabi import hexruns, regid
from kvmabi.conformance import values
from kvmabi.steps.hostfeatures import HostFeatures

NAME = re.compile(r"\$([a-z_]\w*)([+-]\d+)?")
Names = dict[str, str]


def agrees(expected: str, got: str, size: int, host_features: HostFeatures, names: Names) -> bool:
    """Whether ``got`` is what ``expected`` says; new names in ``expected`` are bound in ``names``."""
    if expected == "any":
        return True
    result, _, rest = expected.partition(" ")
    told, _, told_rest = got.partition(" ")
    if told not in result.split("|"):
        return False
    if not rest:
        return told == "OK" or not told_rest or told_rest.isdecimal()
    if rest.startswith(("with ", "without ")):
        return _list_agrees(rest, told_rest)
    first = told_rest.partition(" ")[0]
    if match := NAME.fullmatch(rest):
        if match[1] not in names and not match[2]:
            names[match[1]] = first
            return True
        return first == resolve(rest, names)
    if rest.isdecimal():
        return first == rest
    if not size:
        return told_rest == rest
    return _bytes(first) == values.data(rest, size, host_features)


def _bytes(told: str) -> bytes | None:
    """The bytes of an answer; None if it has none, which is the backend's fault and no case's."""
    try:
        return hexruns.expand(told)
    except ValueError:
        return None


def resolve(text: str, names: Names) -> str:
    """A text with its ``$name``, ``$name+1`` replaced; ValueError for a name that nothing is called by."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in names:
            raise ValueError(f"nothing was called {match[0]} before")
        found = names[match[1]]
        return str(int(found) + int(match[2])) if match[2] else found

    return NAME.sub(value, text)


def unknown_names(text: str, names: Names) -> bool:
    """Whether a text has a ``$name`` that stands for nothing yet."""
    return any(match[1] not in names for match in NAME.finditer(text))


def _list_agrees(wanted: str, told: str) -> bool:
    count, *ids = told.split()
    found = {int(id, 16) for id in ids}
    if len(found) != len(ids) or count != str(len(ids)):
        return False
    present = True
    for word in wanted.split():
        if word in ("with", "without"):
            present = word == "with"
        elif (regid.parse(word) in found) != present:
            return False
    return True
