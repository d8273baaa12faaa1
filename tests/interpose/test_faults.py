# SPDX-License-Identifier: MIT
"""Faults on demand in real programs, however their calls reach the server."""

from __future__ import annotations

import pytest

from interpose.builds import bare_system
from interpose.conftest import Start
from kvmabi.device import SystemFile, ioctl_names
from kvmabi.events import EventLog
from kvmabi.faults import Faults

LATE_MS = 60
RULES = (
    "SET_ONE_REG x3 EINTR once",
    "CREATE_VCPU ENOMEM after=1",
    f"CREATE_VM delay={LATE_MS}ms",
    f"SET_ONE_REG x4 delay={LATE_MS}ms after=1",
    "RUN EINTR",
)


@pytest.fixture
def system(log: EventLog) -> SystemFile:
    """A system whose ioctls these faults strike, although its register accesses could be answered in the program."""
    return bare_system(log, Faults.parse(RULES, ioctl_names()))


def test_faults_reach_the_program(start: Start, system: SystemFile, log: EventLog) -> None:
    """Native, arm64 and static programs get the errno or the answer late, and every access has its event."""
    assert start("faulty", str(LATE_MS)) == (0, 0)
    assert system.faults is not None
    assert [rule.struck for rule in system.faults.rules] == [1, 1, 1, 1, 0]
    assert sum(event.what == "KVM_SET_ONE_REG" for event in log.events) == 4
