# SPDX-License-Identifier: MIT
"""A shard on a Dask cluster: the same entries, judged by its workers in portions of about the same size."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

from kvmabi.errors import UsageError
from kvmabi.fleet import results
from kvmabi.fleet.manifest import KEYS, Entry
from kvmabi.fleet.task import Result, Todo

PORTION_BYTES = 256 << 20
PORTION_FILES = 2000
UNKNOWN_BYTES = 1 << 20
"""How large a file counts whose size the manifest does not say."""
CONNECT_SECONDS = 10
PORTIONS_AHEAD = 64
"""How many portions the scheduler has at a time: its work does not grow with the number of files."""


def portions(todo: Iterable[Todo]) -> Iterator[list[Todo]]:
    """Files in lists of at most PORTION_FILES and some PORTION_BYTES: a task each. Known results cost nothing.

    >>> [len(portion) for portion in portions(map(Todo, [Entry("a", 200 << 20), Entry("b", 100 << 20), Entry("c")]))]
    [1, 2]
    """
    portion: list[Todo] = []
    size_bytes = 0
    for one in todo:
        known_bytes = UNKNOWN_BYTES if one.entry.size_bytes is None else one.entry.size_bytes
        more_bytes = known_bytes if one.known is None else 0
        if portion and (len(portion) == PORTION_FILES or size_bytes + more_bytes > PORTION_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(one)
        size_bytes += more_bytes
    if portion:
        yield portion


def run(address: str, todo: Iterator[Todo], options: Sequence[str]) -> Iterator[Result]:
    """The results of the entries, in their order, from the cluster whose scheduler has this address.

    ``options`` are those of ``kvmabi blob validate`` that say what the files are judged against, and the limits. Raises
    UsageError.
    """
    try:
        from distributed import Client
    except ImportError:
        raise UsageError("a Dask cluster needs the Python package distributed: pip install 'kvmabi[fleet]'") from None
    scheduler = address.removeprefix("dask://")
    if scheduler == address or not scheduler:
        raise UsageError(f"--scheduler: {address!r:.80} is not dask://HOST:PORT")
    try:
        client: Any = cast(Any, Client)(f"tcp://{scheduler}", timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(f"--scheduler {address}: cannot be reached: {error}") from None
    with client:
        yield from _in_order(client, portions(todo), tuple(options))


def judged(portion: list[Entry], options: Sequence[str]) -> list[Result]:
    """What a worker of the cluster does: a shard in a process of its own, so that no file can end the worker.

    Raises RuntimeError where the command itself fails, which the cluster reports.
    """
    with tempfile.TemporaryDirectory() as folder:
        manifest, found = Path(folder, "manifest"), Path(folder, "results")
        manifest.write_text("".join(json.dumps(dict(zip(KEYS, entry, strict=True))) + "\n" for entry in portion))
        words = ["--manifest", str(manifest), "--out", str(found), "--processes", "1", *options]
        command = [sys.executable, "-m", "kvmabi", "blob", "validate", *words]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if ended.returncode not in (0, 1):
            raise RuntimeError(ended.stderr.strip() or f"kvmabi ended with {ended.returncode}")
        return list(results.read(found))


def _in_order(client: Any, todo: Iterator[list[Todo]], options: Sequence[str]) -> Iterator[Result]:
    waiting = deque(_submitted(client, portion, options) for portion in islice(todo, PORTIONS_AHEAD))
    while waiting:
        portion, future = waiting.popleft()
        try:
            found = iter(future.result() if future is not None else ())
        except RuntimeError as error:
            raise UsageError(f"a worker of the cluster failed: {error}") from None
        yield from (next(found) if one.known is None else one.known for one in portion)
        waiting += [_submitted(client, portion, options) for portion in islice(todo, 1)]


def _submitted(client: Any, portion: list[Todo], options: Sequence[str]) -> tuple[list[Todo], Any]:
    """A portion, and the future of those of its results that are not known."""
    entries = [one.entry for one in portion if one.known is None]
    return portion, client.submit(judged, entries, options, pure=False) if entries else None
