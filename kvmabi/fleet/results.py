# SPDX-License-Identifier: MIT
"""Results of a shard: lines that are appended as files are judged, so that a run that was interrupted goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from kvmabi.errors import UsageError
from kvmabi.fleet.manifest import Entry
from kvmabi.fleet.task import Result

PART = ".part"
PARQUET = ".parquet"
JUDGED = frozenset({"clean", "errors"})
"""The statuses that are kept when a shard is run again: other failures may not happen again."""
MOST_LINE_BYTES = 1 << 20
SYNC_EVERY = 1000
"""How many results may have to be judged again after a crash of the machine."""


class Results:
    """The file of a shard's results, in the order of its manifest.

    Lines go to a file with ``.part`` at the end of its name, which gets its own name when all are there. Opened again,
    it goes on after the last whole line. A finished file is opened again, too: results of files whose URL and etag have
    not changed stay. ``against`` says what the files are judged against: results of other options are not used. Raises
    UsageError if it cannot be read or written, and for a file that holds anything else.
    """

    def __init__(self, path: str, against: str = "") -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + PART)
        self.against = against
        self._unsynced = 0
        try:
            _check_is_results(self.path)
            self._old = self.path.open("rb") if self.path.exists() and self.path.suffix != PARQUET else None
            self._offsets = {} if self._old is None else _offsets(self._old)
            self._file: IO[bytes] = self.part.open("ab+")
            self._done = self._whole_lines()
        except OSError as error:
            raise UsageError(f"{error.filename or path}: {error.strerror}") from None

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._old is not None:
            self._old.close()

    def taken_over(self) -> Iterator[Result]:
        """The results that the interrupted run left, in their order."""
        self._file.seek(0)
        for _ in range(self._done):
            result: Result = json.loads(self._file.readline())
            if result["against"] != self.against:
                was, now = result["against"] or "no options", self.against or "none"
                raise UsageError(f"{self.part}: was begun with {was}, now there are {now}: remove it to begin anew")
            yield result
        self._file.seek(0, os.SEEK_END)

    def known(self, entry: Entry) -> Result | None:
        """The result of a file that an earlier, finished run judged; None if it is another version, new, or failed.

        A file without an etag is judged again: what is in it may have changed.
        """
        offset = self._offsets.get(_key(entry.url, entry.etag))
        if offset is None or self._old is None:
            return None
        self._old.seek(offset)
        found: Result = json.loads(self._old.readline())
        same = entry.etag and (found["url"], found["etag"], found["against"]) == (*entry.key, self.against)
        return found if same and found["status"] in JUDGED else None

    def add(self, result: Result) -> None:
        """Append a result."""
        try:
            result = result | {"against": self.against}
            self._file.write(json.dumps(result, separators=(",", ":")).encode() + b"\n")
            self._unsynced += 1
            if self._unsynced >= SYNC_EVERY:
                self._sync()
        except OSError as error:
            raise UsageError(f"{self.part}: cannot be written: {error.strerror}") from None

    def finish(self) -> None:
        """All results are there: give the file its name."""
        try:
            self._sync()
            if self.path.suffix == PARQUET:
                _to_parquet(self.part, self.path)
                self.part.unlink()
            else:
                os.replace(self.part, self.path)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _whole_lines(self) -> int:
        """Count the whole lines of the part; what follows the last one is cut off."""
        self._file.seek(0)
        count = end = 0
        for line in self._file:
            if not line.endswith(b"\n") or _parsed(line) is None:
                break
            count += 1
            end += len(line)
        self._file.truncate(end)
        return count


def _check_is_results(path: Path) -> None:
    """Fail for a path at which something else is: it would be lost. Raises UsageError and OSError."""
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline(MOST_LINE_BYTES) if path.is_file() else b"-"
    if first and _parsed(first) is None and not (path.suffix == PARQUET and first.startswith(b"PAR1")):
        raise UsageError(f"{path}: is there, and does not hold results: name another file for them")


def _key(url: str, etag: str) -> int:
    return hash((url, etag))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the results; None if it is not one."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return (
        found if isinstance(found, dict) and {"url", "etag", "status", "findings", "against"} <= found.keys() else None
    )


def _offsets(file: IO[bytes]) -> dict[int, int]:
    """Where the result of each file stands."""
    offsets = {}
    offset = 0
    for line in file:
        found = _parsed(line)
        if found is not None:
            offsets[_key(str(found["url"]), str(found["etag"]))] = offset
        offset += len(line)
    return offsets


def read(path: Path) -> Iterator[Result]:
    """The results in a file of lines."""
    with path.open("rb") as file:
        for line in file:
            found = _parsed(line)
            if found is not None:
                yield found


def _to_parquet(lines: Path, target: Path) -> None:
    """Write the results as Parquet, some at a time."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(f"{target}: Parquet needs the Python package pyarrow: pip install 'kvmabi[fleet]'") from None
    text, number = pyarrow.string(), pyarrow.int64()
    finding = pyarrow.struct(
        {"rule": text, "severity": text, "vcpu": number, "registers": pyarrow.list_(text), "count": number}
    )
    schema = pyarrow.schema(
        {
            **dict.fromkeys(("url", "etag"), text),
            "size": number,
            **dict.fromkeys(("status", "reason", "against", "format", "host", "kernel"), text),
            "vcpus": number,
            "findings": pyarrow.list_(finding),
            "seconds": pyarrow.float64(),
        }
    )
    unfinished = target.with_name(f".{target.name}.unfinished")
    with pyarrow.parquet.ParquetWriter(unfinished, schema) as writer:
        for batch in _batches(read(lines), 10_000):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, target)


def _batches(results: Iterable[Result], size: int) -> Iterator[list[Result]]:
    batch: list[Result] = []
    for result in results:
        batch.append(result)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
