# SPDX-License-Identifier: MIT
"""Compares an answer with the one that a case expects, and binds ``$name`` to parts of answers."""

from __future__ import annotations

import re

from kvmabi import hexruns, regid
from kvmabi.conformance import values
from kvmabi.steps.hostfeatures import HostFeatures

NAME = re.compile(r"\$([a-z_]\w*)([+-]\d+)?")
Names = dict[str, str]


def agrees(expected: str, got: str, size: int, host_features: HostFeatures, names: Names) -> bool:
    """Whether ``got`` matches ``expected``; new names in ``expected`` are bound in ``names``."""
    if expected == "any":
        return True
    results, _, rest = expected.partition(" ")
    got_result, _, got_rest = got.partition(" ")
    if got_result not in results.split("|"):
        return False
    if not rest:
        return got_result == "OK" or not got_rest or got_rest.isdecimal()
    if rest.startswith(("with ", "without ")):
        return _list_agrees(rest, got_rest)
    first = got_rest.partition(" ")[0]
    if match := NAME.fullmatch(rest):
        if match[1] not in names and not match[2]:
            names[match[1]] = first
            return True
        return first == resolve(rest, names)
    if rest.isdecimal():
        return first == rest
    if not size:
        return got_rest == rest
    return _bytes(first) == values.data(rest, size, host_features)


def _bytes(text: str) -> bytes | None:
    """The bytes of an answer; None if it has none, which is an error of the backend, not of the case."""
    try:
        return hexruns.expand(text)
    except ValueError:
        return None


def resolve(text: str, names: Names) -> str:
    """Returns a text with its ``$name``, ``$name+1`` replaced; ValueError for a name that is not bound."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in names:
            raise ValueError(f"nothing was called {match[0]} before")
        bound = names[match[1]]
        return str(int(bound) + int(match[2])) if match[2] else bound

    return NAME.sub(value, text)


def unknown_names(text: str, names: Names) -> bool:
    """Whether a text has a ``$name`` that is not bound yet."""
    return any(match[1] not in names for match in NAME.finditer(text))


def _list_agrees(wanted: str, got: str) -> bool:
    count, *ids = got.split()
    listed = {int(id, 16) for id in ids}
    if len(listed) != len(ids) or count != str(len(ids)):
        return False
    present = True
    for word in wanted.split():
        if word in ("with", "without"):
            present = word == "with"
        elif (regid.parse(word) in listed) != present:
            return False
    return True
