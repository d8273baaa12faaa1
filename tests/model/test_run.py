# SPDX-License-Identifier: MIT
"""KVM_RUN returns an exit: its result, whether it waits, and what it writes to struct kvm_run."""

from __future__ import annotations

import errno

import pytest

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.model import run
from model.conftest import Make


def test_immediate_exit_leaves_kvm_run_alone(make: Make) -> None:
    """The guest is not entered: EINTR at once, nothing written."""
    ended = run.run(make("sve", final=True), immediate_exit=True)
    assert not isinstance(ended.result, int)
    assert ended.result.errno == errno.EINTR
    assert not ended.waits
    assert not ended.written


def test_signal_ends_an_idle_guest(make: Make) -> None:
    """EINTR once a signal has come, with the exit reason for it."""
    ended = run.run(make("sve", final=True), immediate_exit=False)
    assert ended.waits
    assert ended.written["exit_reason"] == uapi.KVM_EXIT_INTR


def test_refused_run_is_not_an_exit(make: Make) -> None:
    """EPERM before FINALIZE: no exit is returned, and nothing is written."""
    with pytest.raises(KvmError, match="EPERM"):
        run.run(make("sve"), immediate_exit=True)
