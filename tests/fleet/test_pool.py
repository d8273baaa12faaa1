# SPDX-License-Identifier: MIT
"""The pool judges every task in order, whatever a task does to its worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from kvmabi.fleet import pool
from kvmabi.fleet.pool import Limits

QUICK = Limits(seconds=0.3, memory_bytes=64 << 20)


def judge(task: Any) -> Any:
    """What the tasks of these tests do, by name."""
    match task:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(60)
        case "swallow":
            while True:
                with suppress(BaseException):
                    time.sleep(60)
        case "memory":
            bytearray(1 << 30)
        case "worker":
            return os.getpid()
    return task


def failed(task: Any, why: str) -> Any:
    """The result of a failed task."""
    return task, why


def results(tasks: list[Any], processes: int = 2, limits: Limits = QUICK) -> list[Any]:
    """The results of tasks."""
    return list(pool.run(judge, tasks, processes=processes, limits=limits, failed=failed))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_order(processes: int) -> None:
    """Results come in the order of the tasks, also of more tasks than are held at a time."""
    assert results(list(range(2000)), processes) == list(range(2000))


def test_no_tasks() -> None:
    """A pool without tasks ends."""
    assert results([]) == []


@pytest.mark.slow
@pytest.mark.parametrize("poison", ["crash", "sleep", "memory", "swallow"])
def test_poisoned_task(poison: str) -> None:
    """A task that kills its worker, hangs, takes too much memory or does not stop fails alone."""
    why = {"crash": "crash", "memory": "memory"}.get(poison, "time")
    tasks = [*range(50), poison, *range(50, 100)]
    assert results(tasks) == [*range(50), (poison, why), *range(50, 100)]


@pytest.mark.slow
def test_every_task_poisoned() -> None:
    """Each of many crashes costs one task."""
    assert results(["crash"] * 40) == [("crash", "crash")] * 40


@pytest.mark.slow
def test_slow_reader_costs_nothing() -> None:
    """A worker is not late because its results are not read."""
    found = []
    for result in pool.run(judge, list(range(300)), processes=2, limits=Limits(0.1, 64 << 20), failed=failed):
        found.append(result)
        if result in (1, 100):
            time.sleep(1.5)
    assert found == list(range(300))


def test_workers_end_with_the_run() -> None:
    """After the last result, and after a run that is given up, no worker is left."""
    workers = set(results(["worker"] * 20))
    run: Iterator[Any] = pool.run(judge, ["worker"] * 20, processes=2, limits=QUICK, failed=failed)
    workers.add(next(run))
    run.close()
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
