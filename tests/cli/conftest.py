# SPDX-License-Identifier: MIT
"""The command line in this process: arguments, exit status and output."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from kvmabi.cli import main


class Ended(NamedTuple):
    """How a command ended: exit status and output."""

    status: int
    out: str
    err: str


Kvmabi = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _not_in_github_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests run decides nothing about what they see."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def kvmabi(capsys: pytest.CaptureFixture[str]) -> Kvmabi:
    """kvmabi("regs", "--svcr", "za"): run a command line."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        status = main(words)
        return Ended(status, *capsys.readouterr())

    return run


def one_line(ended: Ended, status: int, *words: str) -> None:
    """The exit status, nothing on stdout, one line on stderr that says what is wrong."""
    assert ended.status == status
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("kvmabi: ")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err
