# SPDX-License-Identifier: MIT
"""The table of rules: complete for the whole source tree, and every entry says why and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvmabi.snapshot
from kvmabi.snapshot.checks import rules

SOURCES = sorted(Path(kvmabi.snapshot.__file__).parent.rglob("*.py"))
REPORTING = {"BadBlob": 2, "Problem": 0, "Seen": 0, "problem": 0, "report": 0}
"""Calls that name a rule, and the position of its ID among their arguments."""
RULE_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def named(call: ast.Call) -> Iterator[str]:
    """The IDs of rules that a call names."""
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name not in REPORTING:
        return
    given = [*call.args[REPORTING[name] : REPORTING[name] + 1]]
    given += [keyword.value for keyword in call.keywords if keyword.arg == "rule"]
    for value in given:
        for part in (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,):
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and RULE_ID.fullmatch(part.value):
                yield part.value


def used() -> dict[str, set[str]]:
    """The IDs of rules that the source tree names, with the files."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                for id in named(node):
                    found.setdefault(id, set()).add(path.name)
    return found


def test_every_rule_that_is_used_has_an_entry() -> None:
    """A finding without why and fix would be worth little."""
    assert {id: files for id, files in used().items() if id not in rules.rules()} == {}
    assert {"svcr-reserved", "empty", "beyond-target"} <= used().keys()


@pytest.mark.parametrize("rule", rules.rules().values(), ids=lambda rule: rule.id)
def test_entries(rule: rules.Rule) -> None:
    """An ID of lower-case words, one line of title, and for all but the notes on missing facts why and fix."""
    assert RULE_ID.fullmatch(rule.id)
    assert rule.title
    assert not rule.title.endswith(".")
    if rule.id != "not-judged":
        assert rule.why
        assert rule.fix
    assert set(rule.needs) <= rules.missing().keys()


def test_a_rule_without_an_entry_is_an_error() -> None:
    """The table is open: readers can report what it does not have yet."""
    assert rules.rule("not-there-yet")._asdict() == {
        "id": "not-there-yet",
        "severity": rules.Severity.ERROR,
        "title": "not there yet",
        "why": "",
        "fix": "",
        "needs": (),
    }


def test_every_fact_is_needed_by_a_rule() -> None:
    """Otherwise its note would name no rule."""
    assert {need for rule in rules.rules().values() for need in rule.needs} == rules.missing().keys()
