# SPDX-License-Identifier: MIT
"""Counts the forks that led to this process: memory and descriptors that a parent shares are not the child's to use."""

from __future__ import annotations

import os

count = 0
"""Compare it with the count from when something was made: another one means that a parent process made it."""


def _in_child() -> None:
    global count
    count += 1


os.register_at_fork(after_in_child=_in_child)
