# SPDX-License-Identifier: MIT
"""What happened and is not recorded yet: events of clients, and those of the server that come after them.

Recording an event takes longer than most ioctls. So a get that the server answers, and a set that changes nothing but
its register, do not wait for the events before them: they queue up behind, and the queue is worked off while no client
waits. Whatever needs the record, or the vCPU as it is at that moment, works it off first.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from kvmabi import regid, uapi
from kvmabi.device import DeviceFile, Memory
from kvmabi.device.file import Answer
from kvmabi.device.vcpu import GET, SET
from kvmabi.events import Event, EventLog, Kind
from kvmabi.interpose import ring
from kvmabi.interpose.backtraces import decode_calls
from kvmabi.interpose.past import Past, Stretch
from kvmabi.interpose.ring import Broken, Entry
from kvmabi.interpose.share import EVENTS_BYTES
from kvmabi.interpose.shares import Share

SVCR = regid.parse("svcr")
QUEUED = frozenset({uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG, uapi.KVM_GET_REG_LIST})
"""The ioctls whose events can wait."""
MOST_AT_ONCE = 1000
FEW_SHARES = 8
"""With more vCPUs than that, the memory of events that were recorded is given back to the kernel."""
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


class Left(NamedTuple):
    """Events in the ring of a vCPU from ``start`` to ``end``, left in a stretch of time."""

    share: Share
    stretch: Stretch
    start: int
    end: int


class Late(NamedTuple):
    """An event of an ioctl that the server did on a vCPU."""

    share: Share
    event: Event


class Work(NamedTuple):
    """An event to record: in a ring, with the vCPU as it was right after."""

    nanoseconds: int
    share: Share
    entry: Entry
    past: Past


class Backlog:
    """The queue of a server. ``shares`` are the vCPUs that clients leave events of, ``broken`` is called with one whose
    client does not keep to the layout, ``complain`` with internal errors of kvmabi."""

    def __init__(
        self,
        log: EventLog,
        shares: Iterable[Share],
        broken: Callable[[Share], None],
        complain: Callable[[Exception], None],
    ) -> None:
        self._log = log
        self._shares = shares
        self._broken = broken
        self._complain = complain
        self._queue: deque[list[Left] | Late] = deque()
        self._next: deque[Work] = deque()
        self._is_full = False

    def __bool__(self) -> bool:
        return bool(self._next or self._queue)

    def collect(self) -> None:
        """Queue what clients have left."""
        batch = []
        for share in list(self._shares):
            end = share.written
            if end == share.taken:
                continue
            batch.append(Left(share, share.stretch, share.taken, end))
            share.taken = end
            share.in_use = True
            if end - share.released > EVENTS_BYTES // 4 * 3:
                self._is_full = True
        if batch:
            self._queue.append(batch)
        if self._is_full:
            self.record_all()

    def record_all(self) -> None:
        """Work the queue off."""
        while self:
            self.record_some(MOST_AT_ONCE)

    def record_some(self, count: int) -> None:
        """Record the next ``count`` events."""
        for _ in range(count):
            try:
                if self._next:
                    self._record(self._next.popleft())
                elif not self._queue:
                    break
                elif isinstance(item := self._queue.popleft(), Late):
                    self._log.append_late(item.event)
                    self._fill_asked(item.share)
                else:
                    self._next.extend(self._decoded(item))
            except Exception as error:
                self._complain(error)
        if not self:
            self._is_full = False
            few = sum(1 for _ in self._shares) <= FEW_SHARES
            for share in self._shares:
                share.release(PAGE_BYTES, memory=not few)

    def run(self, share: Share | None, file: DeviceFile, request: int, argument: int, memory: Memory) -> Answer:
        """Do an ioctl on a file, whose event comes after those in the queue; ``share`` is what is shared of it."""
        waits = request not in QUEUED or self._log.any_origin
        if waits or share is None or (request == uapi.KVM_GET_ONE_REG and share.gets_change):
            self.record_all()
            return file.ioctl(request, argument, memory)
        if request == uapi.KVM_SET_ONE_REG:
            self._freeze()
        log = self._log
        count, log.held = log.count, []
        try:
            return file.ioctl(request, argument, memory)
        finally:
            events, log.held, log.count = log.held, None, count
            self._queue_or_record(share, events)

    def _queue_or_record(self, share: Share, events: list[Event]) -> None:
        """Only watchers of refused sets and of SVCR ask where they came from, while the client waits."""
        simple = all(event.kind is Kind.IOCTL and _is_simple(event) for event in events)
        if not simple:
            self.record_all()
        for event in events:
            if simple:
                event.happened_at(time.monotonic(), Past(share.stretch, share.taken))
                self._queue.append(Late(share, event))
            else:
                self._log.append_late(event)

    def _freeze(self) -> None:
        """The server is about to change registers, maybe those of several vCPUs."""
        for share in self._shares:
            if share.in_use:
                share.stretch.freeze()
                share.stretch = Stretch(share.device, share.ring, share.words)
                share.in_use = False

    def _decoded(self, batch: list[Left]) -> list[Work]:
        """What clients left at about the same time, in the order in which it happened."""
        found: list[Work] = []
        for share, stretch, start, end in batch:
            try:
                entries = ring.decode(share.ring, start, end)
            except Broken:
                self._broken(share)
                continue
            found += (Work(entry.nanoseconds, share, entry, Past(stretch, entry.end)) for entry in entries)
        if len(batch) > 1:
            found.sort(key=itemgetter(0))
        return found

    def _record(self, work: Work) -> None:
        _, share, entry, past = work
        if entry.kind == ring.CALLS:
            share.calls = decode_calls(entry.id, entry.data)
            return
        stretch, device, log = past.stretch, share.device, self._log
        if stretch.plain_row(entry) is None:
            return
        got = entry.kind == ring.GOT
        if not got:
            device.vcpu.generation += 1
        log.count += 1
        mode = stretch.mode
        event = Event(
            log.count,
            Kind.IOCTL,
            GET if got else SET,
            device.vm_number,
            device.vcpu_number,
            mode,
            mode.svcr,
            register=entry.id,
            data=entry.data,
        )
        event.happened_at(entry.nanoseconds / 1e9, past)
        log.append(event)
        self._fill_asked(share)

    def _fill_asked(self, share: Share) -> None:
        """Watchers asked where the last event came from: its client has left its calls in the ring."""
        if self._log.asked:
            share.callers.fill(self._log.take_asked(), share.calls)


def _is_simple(event: Event) -> bool:
    """Whether an event needs neither an origin nor the vCPU as it is at the moment."""
    return event.what != SET or not (event.errno or event.register == SVCR)
