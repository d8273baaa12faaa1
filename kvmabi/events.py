# SPDX-License-Identifier: MIT
"""What happened: one event for every ioctl. Reports, the order checker and test assertions read this stream only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

KEPT = 10_000
WARNING = "warning"
"""``Event.what`` where a real kernel would have done something to itself or to a VM that no errno tells."""


class Lost(NamedTuple):
    """A register whose value an ioctl on another register changed; ``set_by`` is the event that had set it, if any."""

    id: int
    before: bytes
    after: bytes
    set_by: int | None


@dataclass(slots=True, eq=False)
class Event:
    """One ioctl and its answer.

    ``number`` counts from 1. ``vm`` and ``vcpu`` are None where there is none; ``what`` is the ioctl's
    name. ``register`` is the register's id and ``data`` what was read or written of it. ``errno``
    is 0 for success, otherwise ``reason`` and ``remedy`` explain. ``mode`` is the vCPU's mode before the
    ioctl, ``svcr`` the value afterwards. ``effects`` tells what else changed. ``state``, only where
    somebody watches: every register after KVM_ARM_VCPU_INIT, at the first read that follows a change,
    and when the vCPU runs or is closed.
    """

    number: int
    vm: int | None
    vcpu: int | None
    what: str
    register: int | None
    data: bytes | None
    errno: int
    reason: str
    remedy: str
    mode: str
    svcr: int
    effects: Sequence[Lost]
    state: Mapping[int, bytes] | None


class EventLog:
    """The stream of events: the last ``kept`` of them in ``events``, each handed to every watcher first."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self.events: deque[Event] = deque(maxlen=kept)
        self.watchers: list[Callable[[Event], None]] = []
        self.count = 0

    @property
    def idle(self) -> bool:
        """Nobody will see an event: none is kept and nobody watches."""
        return not self.events.maxlen and not self.watchers

    def append(self, event: Event) -> None:
        """Add an event; its ``state``, meant for watchers, is not kept."""
        for watcher in self.watchers:
            watcher(event)
        event.state = None
        self.events.append(event)
