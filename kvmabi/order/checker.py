# SPDX-License-Identifier: MIT
"""Watches events for saves and for what is written to vCPUs; the verdict on them is formed when it is asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import NamedTuple

from kvmabi.events import MP_STATE, VCPU_EVENTS, Event
from kvmabi.order.controllers import Attribute, Controllers, register_of
from kvmabi.order.findings import Finding
from kvmabi.order.judging import Judge
from kvmabi.order.lives import Life
from kvmabi.order.mistaken import FeatureBits
from kvmabi.order.saves import Save
from kvmabi.order.values import SHARED, Values
from kvmabi.order.verdict import Place, Verdict
from kvmabi.order.writes import Writes
from kvmabi.profiles import Kernel

MOST_SAVES = 2048
MOST_WRITES = 512


class Open(NamedTuple):
    """A vCPU that is open when a verdict is asked for: its state, SVCR's value, and the VM's interrupt controllers."""

    vm: int
    vcpu: int
    state: Values
    svcr: int
    controllers: Mapping[Attribute, bytes] = {}


class OrderChecker:
    """Reads every event as it happens (give ``watch`` to ``EventLog.watchers``); ``verdict`` judges.

    ``ignored`` are the IDs of registers that findings leave out, ``pairs`` the pairs of vCPUs that the user declares
    (destination to source, each a VM and a vCPU or a VM and None for all its vCPUs), ``counter_hz`` the rate of the
    host's counter (0: the guest's time is not judged), ``kernel`` the one whose feature bits a VMM must
    know (None: they are not judged).
    """

    def __init__(
        self,
        ignored: Iterable[int] = (),
        *,
        pairs: Mapping[Place, Place] | None = None,
        counter_hz: int = 0,
        kernel: Kernel | None = None,
    ) -> None:
        self._ignored = frozenset(ignored)
        self._pairs = dict(pairs or {})
        self._counter_hz = counter_hz
        self._lives: dict[tuple[int | None, int | None], Life] = {}
        self.saves: deque[Save] = deque(maxlen=MOST_SAVES)
        self._writes: deque[Writes] = deque(maxlen=MOST_WRITES)
        self._controllers: dict[int | None, Controllers] = {}
        self._before_run: dict[int, tuple[int, Values]] = {}
        self._set_up: dict[tuple[int, int], int] = {}
        self._forgotten = 0
        self._dumps: set[int] = set()
        self._events = 0
        self._bits = None if kernel is None else FeatureBits(kernel)

    def watch(self, event: Event) -> None:
        """Process an event."""
        self._events = event.number
        if self._bits is not None:
            self._bits.watch(event)
        if event.vcpu is None and event.attribute is not None:
            self._device(event)
            return
        follow = FOLLOWED.get(event.what)
        if follow is None or event.vcpu is None:
            return
        life = self._lives.get((event.vm, event.vcpu))
        if life is not None:
            follow(self, life, event)
        elif event.what == "KVM_ARM_VCPU_INIT" and not event.errno:
            controllers = self._controllers.setdefault(event.vm, Controllers())
            self._lives[event.vm, event.vcpu] = Life(event, controllers, self._keep_save, self._keep)

    def findings(self, still_open: Iterable[Open] = ()) -> list[Finding]:
        """The findings of the verdict."""
        return list(self.verdict(still_open).findings)

    def verdict(self, still_open: Iterable[Open] = (), other_saves: Callable[[], Iterable[Save]] = tuple) -> Verdict:
        """The verdict on all that was written until now; vCPUs that are open count as if they entered the guest now.

        ``other_saves`` returns saves of other runs; it is called only where this run's do not suffice. Changes nothing.
        """
        writes = [*self._writes]
        set_up = dict(self._set_up)
        for vcpu in still_open:
            life = self._lives.get((vcpu.vm, vcpu.vcpu))
            if life is None:
                continue
            set_up[life.vm, life.vcpu] = life.written
            now = copy(life.writes)
            if now.attempts or now.wiped is not None or now.restores is not None:
                now.state, now.svcr, now.end = life.left(vcpu.state), vcpu.svcr, self._events
                now.seconds, now.entered, now.by_cpu = time.monotonic(), True, life.by_cpu
                now.controllers = replace(self._controllers[vcpu.vm].sets, state=vcpu.controllers)
                writes.append(self._as_before_run(now))
        judge = Judge(self.saves, other_saves, self._pairs, self._ignored, self._counter_hz)
        verdict = judge.verdict(writes, set_up, self._events, self._forgotten)
        self._dumps = judge.dumps
        bits = () if self._bits is None else tuple(self._bits.findings())
        return replace(verdict, findings=(*bits, *verdict.findings))

    def sources(self) -> list[Save]:
        """The saves, without looks at what was restored as far as the last verdict knew them."""
        return [save for save in self.saves if id(save) not in self._dumps]

    # --- what follows an event

    def _device(self, event: Event) -> None:
        """An attribute of a device was read or written."""
        attribute = register_of(event)
        if attribute is not None:
            controllers = self._controllers.setdefault(event.vm, Controllers())
            if event.what == "KVM_GET_DEVICE_ATTR":
                controllers.got(attribute, event)
            elif event.what == "KVM_SET_DEVICE_ATTR":
                controllers.set(attribute, event)

    def _init(self, life: Life, event: Event) -> None:
        if not event.errno:
            life.init(event)

    def _ran(self, life: Life, event: Event) -> None:
        writes = life.ran(event)
        if writes is not None and writes.vm not in self._before_run and writes.state:
            shared = {id: value for id, value in writes.state.items() if id in SHARED}
            self._before_run[writes.vm] = event.number, shared

    def _closed(self, life: Life, event: Event) -> None:
        self._set_up[life.vm, life.vcpu] = life.written
        if life.writes.attempts or life.writes.restores is not None:
            life.closing(event)
        del self._lives[life.vm, life.vcpu]

    def _saved(self, life: Life, event: Event) -> None:
        life.declare_saved(event, _label(event))

    def _restored(self, life: Life, event: Event) -> None:
        life.declare_restored(_label(event))

    def _keep_save(self, save: Save) -> None:
        self._forgotten += len(self.saves) == MOST_SAVES
        self.saves.append(save)

    def _keep(self, writes: Writes) -> None:
        self._forgotten += len(self._writes) == MOST_WRITES
        self._writes.append(self._as_before_run(writes))

    def _as_before_run(self, writes: Writes) -> Writes:
        """The same, with VM-wide registers as they were before the VM's first run, which another vCPU may have done."""
        first_run, before = self._before_run.get(writes.vm, (0, {}))
        if writes.start < first_run:
            later = {id for id, attempt in writes.attempts.items() if attempt.event.number > first_run}
            kept = {id: value for id, value in before.items() if id in writes.state and id not in later}
            writes.state = {**writes.state, **kept}
        return writes


def _label(event: Event) -> int:
    return int.from_bytes(event.data or b"", "little")


Follow = Callable[[OrderChecker, Life, Event], None]


FOLLOWED: dict[str, Follow] = {
    "KVM_GET_ONE_REG": lambda _checker, life, event: life.got(event),
    "KVM_SET_ONE_REG": lambda _checker, life, event: life.set(event),
    "KVM_ARM_VCPU_INIT": OrderChecker._init,
    "run": lambda _checker, life, event: life.entering(event),
    "KVM_RUN": OrderChecker._ran,
    "closed": OrderChecker._closed,
    "saved": OrderChecker._saved,
    "restored": OrderChecker._restored,
    "KVM_GET_MP_STATE": lambda _checker, life, event: life.got_pseudo(MP_STATE, event),
    "KVM_GET_VCPU_EVENTS": lambda _checker, life, event: life.got_pseudo(VCPU_EVENTS, event),
    "KVM_SET_MP_STATE": lambda _checker, life, event: life.set_pseudo(MP_STATE, event),
    "KVM_SET_VCPU_EVENTS": lambda _checker, life, event: life.set_pseudo(VCPU_EVENTS, event),
    **dict.fromkeys(
        ("KVM_ARM_VCPU_FINALIZE", "KVM_SET_DEVICE_ATTR"),
        lambda _checker, life, event: life.changed(event),
    ),
}
"""What follows an event of a vCPU, by the event's name."""
