# SPDX-License-Identifier: MIT
"""Work on all cores."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def _importable_main() -> bool:
    """Whether a new process can import the main module again: not if the program is read from stdin."""
    main = sys.modules["__main__"]
    name = getattr(main, "__file__", None)
    return getattr(main, "__spec__", None) is not None or name is None or os.path.exists(name)


def spread(work: Callable[[Any], Any], jobs: Sequence[Any], processes: int | None = None) -> Iterable[Any]:
    """The results of the jobs, in order, computed with one process per core."""
    processes = processes or len(os.sched_getaffinity(0))
    if processes <= 1 or len(jobs) <= 1 or not _importable_main():
        return map(work, jobs)
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        return pool.map(work, jobs, chunksize=1)
