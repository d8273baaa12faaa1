# SPDX-License-Identifier: MIT
"""Findings as text and as data: every one has registers, events, the rule and the fix."""

from __future__ import annotations

import json

import pytest

from kvmabi import regid
from kvmabi.order import Finding, Loss
from kvmabi.order.findings import KINDS


def loss(name: str, *events: int, why: str = "never written") -> Loss:
    return Loss(name, regid.parse(name), events, why)


@pytest.mark.parametrize("kind", KINDS)
def test_kind_has_title_rule_and_fix(kind: str) -> None:
    text = str(Finding(kind, 1, 0, (loss("z0", 7),)))
    title, rule, fix = KINDS[kind]
    assert text.startswith(f"{title}: 1 register of VM 1 vCPU 0\n")
    words = " ".join(text.split())
    assert f"rule: {rule}" in words
    assert f"fix: {fix}" in words


def test_registers_with_one_reason_are_grouped() -> None:
    """Stories in the order of their first register, event numbers as runs, lines that fit a terminal."""
    losses = [loss(f"z{n}", 10 + n, why="gone") for n in range(32)] + [loss("x0"), loss("zt0", 50, why="gone")]
    lines = str(Finding("restore-differs", 2, 3, tuple(losses))).splitlines()
    assert lines[0].endswith("34 registers of VM 2 vCPU 3")
    assert lines[1] == "  gone (events 10-41, 50)"
    assert lines[2].split()[:2] == ["z0", "z1"]
    assert "  never written (no event)" in lines
    assert max(map(len, lines)) <= 100


def test_machines_read_the_same() -> None:
    """as_dict is JSON with names, ids, events and the story of every register."""
    finding = Finding("za-disabled", 1, 0, (loss("za.h[3]", 7, why="refused with EBUSY"),))
    data = json.loads(json.dumps(finding.as_dict()))
    assert data["kind"] == "za-disabled"
    assert {"title", "rule", "fix", "vm", "vcpu"} < data.keys()
    (register,) = data["registers"]
    assert register == {
        "name": "za.h[3]",
        "id": f"{regid.parse('za.h[3]'):#x}",
        "events": [7],
        "why": "refused with EBUSY",
    }
    assert finding.registers == ("za.h[3]",)
    assert finding.title == KINDS["za-disabled"].title
