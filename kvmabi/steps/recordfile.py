# SPDX-License-Identifier: MIT
"""The file of a record: a trace that grows line by line under another name, and gets its own when the run ends.

Until then it is called FILE.part. Each line is written at once, so that FILE.part has all that happened, up to a whole
line, even if kvmabi itself is killed; it is a trace, too.
"""

from __future__ import annotations

import lzma
import os
from pathlib import Path
from types import TracebackType

from kvmabi import wholefile
from kvmabi.errors import UsageError
from kvmabi.events import Event, EventLog
from kvmabi.steps.recording import Recorder
from kvmabi.steps.trace import PACKED

PART = ".part"
SEQUENCE = "record"
NOTHING_OPEN = "Z\tOK"
"""The first step: what a backend did before does not count."""


class RecordFile:
    """A record under way; the end of the context finishes it, or drops it after a UsageError.

    Raises UsageError if it cannot be written.

    ``host`` and ``kernel`` are names of profiles, ``source`` is one line that says what is recorded, and by what.
    ``failed`` says in one line why the record is not complete, "" if it is: a full disk ends the record, not the run.
    """

    def __init__(self, path: str, host: str, kernel: str, source: str) -> None:
        self.failed = ""
        self._path = Path(path)
        self._part = Path(f"{path}{PART}")
        if self._path.exists() and not self._path.is_file():
            raise UsageError(f"{path}: is not a regular file")
        try:
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"{self._part}: cannot be written: {error.strerror}") from None
        origin = source.encode("unicode_escape").decode("ascii")
        head = [
            f"# host {host}",
            f"# kernel {kernel}",
            f"# recorded by {origin}",
            f"# seq {SEQUENCE}",
            NOTHING_OPEN,
        ]
        for line in head:
            self._write(line)
        if self.failed:
            raise UsageError(self.failed)

    def watch(self, log: EventLog) -> None:
        """Record what happens from now on."""
        log.detailed = True
        recorder = Recorder(self._write)

        def watch(event: Event) -> None:
            if self.failed:
                return
            try:
                recorder.watch(event)
            except Exception as error:  # a mistake here must not become an answer to the program
                self.failed = (
                    f"internal error: {type(error).__name__}: {error}; the record ends at event {event.number}"
                )

        log.watchers.append(watch)

    def _write(self, line: str) -> None:
        if self.failed:
            return
        data = f"{line}\n".encode("utf-8", "backslashreplace")
        try:
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError as error:
            self.failed = f"{self._part}: cannot be written: {error.strerror}; the record ends before the run did"
            self._drop_rest(done)

    def _drop_rest(self, size_bytes: int) -> None:
        """Take back the first part of a line that did not fit."""
        if size_bytes:
            os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR) - size_bytes)

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UsageError):  # nothing was run: a record that is there stays
            os.close(self._fd)
            self._part.unlink(missing_ok=True)
            return
        try:
            os.fsync(self._fd)
            os.close(self._fd)
            if str(self._path).endswith(PACKED):
                wholefile.replace(self._path, lzma.compress(self._part.read_bytes()))
                self._part.unlink()
            else:
                os.replace(self._part, self._path)
        except (OSError, UsageError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            self.failed = self.failed or f"{self._path}: cannot be written: {reason}; what was recorded is {self._part}"
