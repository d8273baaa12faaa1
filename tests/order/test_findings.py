# SPDX-License-Identifier: MIT
"""Findings as text and as data: every one has registers, events, the rule and the fix."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kvmabi import regid
from kvmabi.order import Finding, Loss
from kvmabi.order.causes import CAUSES

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/findings.md"


def loss(name: str, *events: int, why: str = "never written") -> Loss:
    return Loss(name, regid.parse(name), events, why)


@pytest.mark.parametrize("cause", CAUSES)
def test_cause_has_title_rule_and_fix(cause: str) -> None:
    """Every finding says how bad it is, what, where, by which rule, and what to do."""
    finding = Finding(cause, 1, 0, (loss("z0", 7),))
    kind, severity, title, rule, fix = CAUSES[cause]
    text = str(finding)
    assert text.startswith(f"{severity}: {title}: 1 register of VM 1 vCPU 0\n")
    words = " ".join(text.split())
    assert f"rule: {rule}" in words
    assert f"fix: {fix}" in words
    assert (finding.kind, finding.rule, finding.fix, finding.title) == (kind, rule, fix, title)


def test_registers_with_one_reason_are_grouped() -> None:
    """Reasons in the order of their first register, registers and event numbers as ranges."""
    losses = [loss(f"z{n}", 10 + n, why="gone") for n in range(32)] + [loss("x0"), loss("zt0", 50, why="gone")]
    lines = str(Finding("never-written", 2, 3, tuple(losses))).splitlines()
    assert lines[0].endswith("34 registers of VM 2 vCPU 3")
    assert lines[1:5] == ["  z0-31 zt0", "    gone; events 10-41, 50", "  x0", "    never written"]
    assert max(map(len, lines)) <= 100


def test_values_are_shown_from_the_first_difference() -> None:
    """Saved, written and left from the first byte that differs; zeroes are short."""
    cut = Loss("z0", regid.parse("z0"), (7,), "cut", b"\1" * 32, b"\1" * 16, b"\1" * 16 + bytes(16))
    text = str(Finding("cut", 1, 0, (cut,)))
    assert f"from byte 16: saved {'01' * 16}  written 00..  left 00.." in text


def test_machines_read_the_same() -> None:
    """as_dict is JSON with names, ids, events, reason and values of every register."""
    finding = Finding("za-off", 1, 0, (loss("za.h[3]", 7, why="refused with EBUSY"),))
    data = json.loads(json.dumps(finding.as_dict()))
    assert (data["kind"], data["cause"], data["severity"]) == ("za-disabled", "za-off", "lost")
    assert {"title", "rule", "fix", "vm", "vcpu", "pair"} < data.keys()
    (register,) = data["registers"]
    assert register == {
        "name": "za.h[3]",
        "id": f"{regid.parse('za.h[3]'):#x}",
        "events": [7],
        "why": "refused with EBUSY",
        "saved": None,
        "written": None,
        "left": None,
        "consequence": False,
    }
    assert finding.registers == ("za.h[3]",)


def test_page_lists_every_cause() -> None:
    """docs/reference/findings.md has one row a cause, in the table's order."""
    rows = re.findall(r"(?m)^\| `([a-z-]+)` \| `([a-z-]+)` \| ([a-z]+) \| (.+) \|$", PAGE.read_text("utf-8"))
    assert rows == [(row.kind, cause, row.severity, row.title) for cause, row in CAUSES.items()]
