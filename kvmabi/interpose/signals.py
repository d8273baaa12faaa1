# SPDX-License-Identifier: MIT
"""Signals to kvmabi while it serves: they are forwarded to the program, and must not leave the socket behind."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


class Signals:
    """Forwards signals to a process. While there is no process, signals are held, and ``stop`` is True.

    A signal that the terminal sends to its foreground group reaches the program as well and is not
    forwarded. Ignored signals remain ignored. Only the main thread can handle signals.
    """

    def __init__(self) -> None:
        self._target: int | None = None
        self._held: list[int] = []
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def stop(self) -> bool:
        """Whether signals are held because there is no process to forward them to."""
        return bool(self._held)

    def pass_to(self, target: int | None) -> None:
        """Forward held and future signals to the process ``target``; None: hold future signals."""
        self._target = target
        if target is not None:
            held, self._held = self._held, []
            for number in held:
                self._handle(number, None)

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in FORWARDED:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._target is None:
            self._held.append(number)
        elif number not in FROM_TERMINAL or not _in_foreground():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._target, number)


def _in_foreground() -> bool:
    """Whether this process is in the foreground process group of its terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)
