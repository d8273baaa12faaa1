# SPDX-License-Identifier: MIT
"""Events as lines of text: the ioctl, its answer and the reason."""

from __future__ import annotations

import errno
from collections import Counter, deque
from types import TracebackType
from typing import TextIO

from kvmabi.errors import UsageError
from kvmabi.events import Event, Kind

PROBES = {"KVM_GET_REG_LIST": (errno.E2BIG,)}
"""Errors that a VMM asks for, and then does the ioctl again."""
REFUSALS_KEPT = 20
WARNINGS_KEPT = 5
UNMODELLED_KEPT = 100


class Refusals:
    """Watches events and keeps the last that failed; EINTR is counted only if it is a fault that was asked for.

    E2BIG of KVM_GET_REG_LIST is, if the VMM does not ask again: it has no room for the list.
    """

    def __init__(self) -> None:
        self._last: deque[Event] = deque(maxlen=REFUSALS_KEPT)
        self._probes: dict[tuple[int | None, int | None], Event] = {}

    @property
    def last(self) -> list[Event]:
        """The last that failed, in their order."""
        return sorted([*self._last, *self._probes.values()], key=lambda event: event.number)[-REFUSALS_KEPT:]

    def watch(self, event: Event) -> None:
        """Take in an event."""
        if event.kind is not Kind.IOCTL:
            return
        probe = self._probes.pop((event.vm, event.vcpu), None) if self._probes else None
        if probe is not None and event.what != probe.what:
            self._last.append(probe)
        if event.errno in PROBES.get(event.what, ()):
            self._probes[event.vm, event.vcpu] = event
        elif event.errno and (event.errno != errno.EINTR or event.asked_for):
            self._last.append(event)


class Warnings:
    """Watches events and keeps the first warnings: damage that a real kernel would have done to itself or to a VM."""

    def __init__(self) -> None:
        self.first: list[Event] = []

    def watch(self, event: Event) -> None:
        """Take in an event."""
        if event.kind is Kind.WARNING and len(self.first) < WARNINGS_KEPT:
            self.first.append(event)


class Unmodelled:
    """Watches events and counts what kvmabi does not model: a kernel may answer otherwise, or do more."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def watch(self, event: Event) -> None:
        """Take in an event."""
        if not event.modelled and event.kind is Kind.IOCTL:
            what = f"{event.what}: {event.reason}"
            if what in self.counts or len(self.counts) < UNMODELLED_KEPT:
                self.counts[what] += 1

    def lines(self) -> list[str]:
        """A line for each, with how often it came."""
        return [f"{what} ({count} time{'s' if count != 1 else ''})" for what, count in self.counts.items()]


class LogFile:
    """Watches events and writes each as a line into a file, at once. Raises UsageError if it cannot."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._stream: TextIO = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None

    def watch(self, event: Event) -> None:
        """Take in an event."""
        if event.kind is not Kind.RUN:
            print(str(event), file=self._stream)

    def __enter__(self) -> LogFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
