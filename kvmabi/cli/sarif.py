# SPDX-License-Identifier: MIT
"""SARIF 2.1.0, as code scanning reads it: rules, results and where they are.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. A result is always somewhere in the world of VMs
(a logical location), and where a file is known also in that file. The text is ASCII.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import kvmabi

_Item = TypeVar("_Item")
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


class Level(StrEnum):
    """How severe a result is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """A rule that can be broken: its id, what it is called, what it says, and what to do where it is broken."""

    id: str
    title: str
    text: str
    help: str


@dataclass(frozen=True)
class Thing:
    """A logical location, such as a vCPU or a register: its kind, and its name in full."""

    kind: str
    name: str


@dataclass(frozen=True)
class Place:
    """A place in a file. ``line`` counts from 1; 0 means the file as a whole. ``function`` may be ""."""

    path: str
    line: int = 0
    function: str = ""


@dataclass(frozen=True)
class Stack:
    """A chain of calls, the innermost first, and what happened there."""

    label: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Result:
    """A broken rule (one of the report's rules, by id), where, and the calls that led to it."""

    rule: str
    level: Level
    message: str
    things: tuple[Thing, ...] = ()
    place: Place | None = None
    stacks: tuple[Stack, ...] = ()


@dataclass(frozen=True)
class Notice:
    """Something about the run that is not a result, such as a warning."""

    level: Level
    message: str


@dataclass(frozen=True)
class Report:
    """The results of one command. ``rules`` has each rule that a result names, once; ``failed``: it did not go well."""

    command: str
    rules: Sequence[Rule]
    results: Sequence[Result]
    notices: Sequence[Notice] = ()
    failed: bool = False


def write(report: Report) -> str:
    """Returns a report as SARIF, without a final newline."""
    numbers = {rule.id: number for number, rule in enumerate(report.rules)}
    driver = {"name": "kvmabi", "version": kvmabi.__version__, "rules": [_rule(rule) for rule in report.rules]}
    invocation: dict[str, Any] = {"executionSuccessful": not report.failed}
    if report.notices:
        invocation["toolExecutionNotifications"] = [
            {"level": notice.level, "message": _text(notice.message)} for notice in report.notices
        ]
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"{report.command}/"},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": [_result(result, numbers[result.rule]) for result in report.results],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def uri(path: str) -> str:
    """Returns a path as a URI reference: relative for a file below the working directory, else with ``file://``.

    >>> uri("vmm/restore loop.c")
    'vmm/restore%20loop.c'
    """
    whole = Path(os.path.abspath(path.replace("\0", "")))
    here = Path.cwd()
    if whole.is_relative_to(here):
        return quote(_bytes(whole.relative_to(here)))
    return f"file://{quote(_bytes(whole))}"


def _bytes(path: Path) -> bytes:
    """Returns a path as the system has it; escaped, if no file can have it, as a name in debug information may be."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return _encodable(str(path)).encode()


def _text(text: str) -> dict[str, str]:
    """Returns a message. It is never empty, and what SARIF takes for a link, ``[text](target)``, is none."""
    return {"text": _encodable(text).replace("](", "] (") or "(none)"}


def _encodable(text: str) -> str:
    """Returns a text that UTF-8 can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _once(items: list[_Item]) -> list[_Item]:
    """Returns a list without repetitions, which SARIF forbids here."""
    return [item for place, item in enumerate(items) if item not in items[:place]]


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": _encodable(rule.id),
        "shortDescription": _text(rule.title),
        "fullDescription": _text(rule.text),
        "help": _text(rule.help),
    }


def _result(result: Result, number: int) -> dict[str, Any]:
    data: dict[str, Any] = {
        "ruleId": _encodable(result.rule),
        "ruleIndex": number,
        "level": result.level,
        "message": _text(result.message),
    }
    location: dict[str, Any] = {}
    if result.place is not None:
        location["physicalLocation"] = _physical(result.place)
    if result.things:
        location["logicalLocations"] = _once([_logical(thing) for thing in result.things])
    if location:
        data["locations"] = [location]
    if result.stacks:
        data["stacks"] = _once([_stack(stack) for stack in result.stacks])
    return data


def _physical(place: Place) -> dict[str, Any]:
    data: dict[str, Any] = {"artifactLocation": {"uri": uri(place.path)}}
    if place.line > 0:
        data["region"] = {"startLine": place.line}
    return data


def _logical(thing: Thing) -> dict[str, str]:
    name = _encodable(thing.name)
    return {"name": name.rpartition("/")[2] or name, "fullyQualifiedName": name, "kind": thing.kind}


def _stack(stack: Stack) -> dict[str, Any]:
    return {"message": _text(stack.label), "frames": [_frame(place) for place in stack.places]}


def _frame(place: Place) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if place.path:
        location["physicalLocation"] = _physical(place)
    if place.function:
        location["logicalLocations"] = [_logical(Thing("function", place.function))]
    return {"location": location}
