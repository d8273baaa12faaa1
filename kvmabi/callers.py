# SPDX-License-Identifier: MIT
"""Where in this process an ioctl came from: the Python functions that led to it, without those of this package."""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType

from kvmabi.events import Origin

PACKAGE = "kvmabi"
MOST_FRAMES = 32


def fill(origin: Origin) -> None:
    """Fills an origin with the calling thread and its callers outside of this package."""
    frames = _frames(sys._getframe(1))
    origin.fill(os.getpid(), threading.get_native_id(), threading.current_thread().name, lambda: frames)


def _frames(frame: FrameType | None) -> tuple[str, ...]:
    found: list[str] = []
    while frame is not None and len(found) < MOST_FRAMES:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] != PACKAGE:
            code = frame.f_code
            found.append(f"{code.co_qualname} at {code.co_filename}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(found)
