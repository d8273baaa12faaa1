# SPDX-License-Identifier: MIT
"""Worker processes that survive poisoned files: each file has a limit of time and memory, and its worker may die."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

AHEAD = 32
"""How many files a worker is given at once, so that it does not wait for the parent."""
GRACE = 2.0
"""A worker that does not stop by itself is killed after this many times the limit of a file."""


class Limits(NamedTuple):
    """What one file may cost: seconds, and bytes of memory beyond what an idle worker has."""

    seconds: float = 30.0
    memory_bytes: int = 512 << 20


class OutOfTime(BaseException):
    """The limit of time has passed: not an Exception, so that no reader takes it for a damaged file."""


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    given: deque[tuple[int, Any]] = field(default_factory=deque)
    since: float = 0.0


def run(
    judge: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    processes: int,
    limits: Limits,
    failed: Callable[[Any, str], Any],
) -> Iterator[Any]:
    """The results of ``judge(task)`` in the order of the tasks, from ``processes`` workers.

    A task that exceeds a limit, or whose worker dies, has the result ``failed(task, why)``; ``why`` is "time", "memory"
    or "crash". No more than a few hundred tasks and results are held at a time, however many there are.
    """
    numbered = enumerate(tasks)
    workers = [_start(judge, limits) for _ in range(processes)]
    done: dict[int, Any] = {}
    next_number = 0
    more = True
    try:
        while True:
            for place, worker in enumerate(workers):
                room = AHEAD - len(worker.given) if len(done) < AHEAD * processes * 8 else 0
                while more and room and len(worker.given) < AHEAD:
                    task = next(numbered, None)
                    more = task is not None
                    if task is not None:
                        _give(worker, task)
                late = worker.given and time.monotonic() - worker.since > GRACE * limits.seconds + 1
                if late and not worker.pipe.poll():
                    workers[place] = _replace(judge, limits, worker, done, failed, "time")
            while next_number in done:
                yield done.pop(next_number)
                next_number += 1
            busy = {worker.pipe: place for place, worker in enumerate(workers) if worker.given}
            if not busy:
                if not more:
                    return
                continue
            for pipe in wait(list(busy), timeout=limits.seconds):
                place = busy[pipe]  # type: ignore[index]
                if not _receive(workers[place], done, failed):
                    workers[place] = _replace(judge, limits, workers[place], done, failed, "crash")
    finally:
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()
            worker.process.join()


def _start(judge: Callable[[Any], Any], limits: Limits) -> _Worker:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(judge, there, here, limits), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _give(worker: _Worker, task: tuple[int, Any]) -> None:
    if not worker.given:
        worker.since = time.monotonic()
    worker.given.append(task)
    with suppress(OSError):  # a worker that has died is noticed where its results are expected
        worker.pipe.send(task[1])


def _receive(worker: _Worker, done: dict[int, Any], failed: Callable[[Any, str], Any]) -> bool:
    """Take one result; False if the worker has died."""
    try:
        kind, result = worker.pipe.recv()
    except (EOFError, OSError):
        return False
    number, task = worker.given.popleft()
    done[number] = failed(task, kind) if kind else result
    worker.since = time.monotonic()
    return True


def _replace(
    judge: Callable[[Any], Any],
    limits: Limits,
    worker: _Worker,
    done: dict[int, Any],
    failed: Callable[[Any, str], Any],
    why: str,
) -> _Worker:
    """A new worker for one that has died or hangs: the file that it was at has failed, the others are given again."""
    worker.process.kill()
    while worker.given and worker.pipe.poll() and _receive(worker, done, failed):
        pass
    worker.process.join()
    worker.pipe.close()
    if worker.given:
        number, task = worker.given.popleft()
        done[number] = failed(task, why)
    fresh = _start(judge, limits)
    for task in worker.given:
        _give(fresh, task)
    return fresh


def _work(judge: Callable[[Any], Any], pipe: Connection, parents: Connection, limits: Limits) -> None:
    """A worker: tasks come in, results go out. It ends with its parent."""
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _out_of_time)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    most_bytes = used_bytes + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
    with suppress(EOFError, OSError):
        while True:
            task = pipe.recv()
            pipe.send(_judged(judge, task, limits))


def _judged(judge: Callable[[Any], Any], task: Any, limits: Limits) -> tuple[str, Any]:
    try:
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        try:
            return "", judge(task)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except OutOfTime:
        return "time", None
    except MemoryError:
        return "memory", None


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTime
