# SPDX-License-Identifier: MIT
"""Adoption of orphaned descendants of the program (prctl(2), PR_SET_CHILD_SUBREAPER)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


class Descendants:
    """While entered, this process adopts orphaned descendants. Children that it already has are ignored.

    Yama allows ancestors to access a process's memory; adopted processes remain descendants.
    """

    def __init__(self) -> None:
        self._prctl = ctypes.CDLL(None).prctl
        self._others = _children()
        self._was_reaper = ctypes.c_int()

    def __enter__(self) -> Descendants:
        self._prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(self._was_reaper), 0, 0, 0)
        self._prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
        return self

    def __exit__(self, *_error: object) -> None:
        self._prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(self._was_reaper.value), 0, 0, 0)

    def alive(self) -> bool:
        """Whether an adopted process is running. Reaps those that have ended."""
        running = {pid for pid in _children() - self._others if _runs(pid)}
        return bool(running)


def _children() -> set[int]:
    """The children of all threads of this process; empty if the kernel does not list them."""
    children: set[int] = set()
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children.update(map(int, file.read_text().split()))
    return children


def _runs(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None
    except ChildProcessError:
        return False
