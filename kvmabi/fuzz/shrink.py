# SPDX-License-Identifier: MIT
"""Removes steps from a sequence while the rest still shows its difference (delta debugging)."""

from __future__ import annotations

from collections.abc import Callable

MAX_TRIES = 400


def shrink(steps: list[str], shows: Callable[[list[str]], bool], *, tries: int = MAX_TRIES) -> list[str]:
    """Returns a part of ``steps``, in order, that still ``shows`` the difference, with the first and the last step."""
    first, middle, last = steps[:1], steps[1:-1], steps[-1:] if len(steps) > 1 else []
    size = max(len(middle) // 2, 1)
    while middle and tries > 0:
        place, removed = 0, False
        while place < len(middle) and tries > 0:
            fewer = middle[:place] + middle[place + size :]
            tries -= 1
            if shows(first + fewer + last):
                middle, removed = fewer, True
            else:
                place += size
        if size > 1:
            size //= 2
        elif not removed:
            break
    return first + middle + last
