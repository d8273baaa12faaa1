# SPDX-License-Identifier: MIT
"""A C program declares its saves and restores with kvmabi/mark.h."""

from __future__ import annotations

from interpose.conftest import Start
from kvmabi.events import EventLog, Kind

LABEL = (0xFFFFFFF7).to_bytes(8, "little")


def test_marks(start: Start, log: EventLog) -> None:
    """A save in one process and its restore in another are two events with one label."""
    assert start("marks") == (0, 0)
    marks = [(event.what, event.vm, event.vcpu, event.data) for event in log.events if event.kind is Kind.MARK]
    assert marks == [("saved", 1, 0, LABEL), ("restored", 2, 0, LABEL), ("restored", 2, 5, (1).to_bytes(8, "little"))]
