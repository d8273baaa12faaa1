# SPDX-License-Identifier: MIT
"""A shard: the files of a manifest, judged on all cores of this machine, and results that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from kvmabi.errors import UsageError
from kvmabi.fleet import manifest, pool, task
from kvmabi.fleet.pool import Limits
from kvmabi.fleet.results import Results
from kvmabi.fleet.summary import Summary
from kvmabi.fleet.task import Result, Todo
from kvmabi.snapshot.checks.findings import Report
from kvmabi.snapshot.snapshot import Snapshot


def run(
    manifest_path: str,
    results_path: str,
    judge: Callable[[Iterator[Todo]], Iterator[Result]],
    *,
    failing: frozenset[str],
    against: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Judge every file of a manifest; returns the summary of all results.

    ``judge`` returns the results of entries in their order; ``failing`` are the severities of findings that fail,
    ``against`` is what ``judge`` judges against, in words.
    Files that an interrupted run has judged are not judged again; nor are those of a finished run whose URL and etag
    are the same, and what they are judged against. Raises UsageError, also if the interrupted run was another one.
    """
    summary = Summary(failing)
    with Results(results_path, against) as results:
        entries = manifest.read(manifest_path)
        for old in results.taken_over():
            entry = next(entries, None)
            if entry is None or entry.key != (old["url"], old["etag"]):
                raise UsageError(f"{results.part}: holds results of another manifest: remove it, or name another file")
            summary.add(old)
        for result in judge(Todo(entry, results.known(entry)) for entry in entries):
            results.add(result)
            summary.add(result)
            progress(summary.files)
        results.finish()
    return summary


def on_this_machine(
    todo: Iterator[Todo],
    *,
    validate: Callable[[Snapshot], Report],
    processes: int,
    limits: Limits,
    numbers: bool = False,
) -> Iterator[Result]:
    """The results of entries from processes of this machine."""
    judge = partial(_judge_or_keep, validate=validate, numbers=numbers)
    return pool.run(judge, todo, processes=processes, limits=limits, failed=_failed)


def _judge_or_keep(todo: Todo, validate: Callable[[Snapshot], Report], numbers: bool) -> Result:
    return task.judge(todo.entry, validate, numbers=numbers) if todo.known is None else todo.known


def _failed(todo: Todo, why: str) -> Result:
    return task.failed(todo.entry, why)


def count(manifest_path: str) -> int:
    """How many files a manifest names."""
    return sum(1 for _ in manifest.read(manifest_path))
