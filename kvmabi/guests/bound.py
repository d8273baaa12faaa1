# SPDX-License-Identifier: MIT
"""A bound on what a guest's script does between two yields, so that one that never yields holds up no other.

Two nets: the lines of the script that run, counted by a trace function wherever no debugger or coverage tool traces
already, and the time that passes, by SIGALRM where that is free and this is the main thread: it also ends a script that
sleeps. Neither interrupts kvmabi's own functions, so that a vCPU is never left half changed.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

MOST_LINES = 1_000_000
MOST_SECONDS = 5.0
AGAIN_SECONDS = 0.01
OWN_FOLDER = str(Path(__file__).resolve().parent.parent)


class NeverYields(BaseException):
    """The script did not yield in time. Not for a script to catch."""


Trace = Callable[[FrameType, str, Any], Any]


@contextmanager
def bounded(script: Any) -> Iterator[None]:
    """Raises NeverYields inside the script, a generator, if it goes on for too long."""
    before = sys.gettrace()
    counting = None if before is not None else _counter()
    with _alarm(script):
        if counting is None:
            yield
            return
        sys.settrace(counting)
        try:
            yield
        finally:
            if sys.gettrace() is counting or sys.gettrace() is None:
                sys.settrace(before)


def _counter() -> Trace:
    """A trace function that counts the lines of all that the script calls, except in kvmabi."""
    left = MOST_LINES

    def line(_frame: FrameType, event: str, _argument: Any) -> Trace:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                raise NeverYields(f"it ran {MOST_LINES:,} lines")
        return line

    def call(frame: FrameType, _event: str, _argument: Any) -> Trace | None:
        return None if is_own(frame) else line

    return call


@contextmanager
def _alarm(script: Any) -> Iterator[None]:
    """SIGALRM ends the script after a while."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return

    def ring(_number: int, frame: FrameType | None) -> None:
        while frame is not None and not is_own(frame):
            if frame is script.gi_frame:
                raise NeverYields(f"it ran for {MOST_SECONDS:g} s")
            frame = frame.f_back

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS, AGAIN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def is_own(frame: FrameType) -> bool:
    """Whether a frame is kvmabi's."""
    return frame.f_code.co_filename.startswith(OWN_FOLDER)
