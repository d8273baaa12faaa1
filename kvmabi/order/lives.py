# SPDX-License-Identifier: MIT
"""Follows one vCPU through its lives, each from an INIT to the next: what is saved of it and what is written to it."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

from kvmabi.events import Event
from kvmabi.model.effects import Effect
from kvmabi.order.controllers import Controllers
from kvmabi.order.saves import Reader, Save
from kvmabi.order.values import Values, unchanged
from kvmabi.order.writes import FEWEST_WRITES, Writes

ENTERED = (0, errno.EINTR)
"""How a KVM_RUN ends that entered the guest."""


class Life:
    """One vCPU as the checker follows it.

    ``controllers`` are the VM's. ``keep_save`` and ``keep_writes`` are called with every save, and with what was
    written, when it is complete.
    """

    def __init__(
        self,
        event: Event,
        controllers: Controllers,
        keep_save: Callable[[Save], None],
        keep_writes: Callable[[Writes], None],
    ) -> None:
        assert event.vm is not None
        assert event.vcpu is not None
        self.vm, self.vcpu = event.vm, event.vcpu
        self._controllers = controllers
        self._keep_save = keep_save
        self._keep_writes = keep_writes
        self.written = 0
        self._entering: tuple[Event, Values] | None = None
        self._entry = 0
        self._begin(event, None)

    def init(self, event: Event) -> None:
        """KVM_ARM_VCPU_INIT again: what was written since the last guest entry is gone."""
        before = self.writes
        undone = before if before.attempts else before.wiped
        self._begin(event, None if undone is None or before.entered else undone)

    def _begin(self, event: Event, wiped: Writes | None) -> None:
        self.base = event.state
        self.reader = Reader()
        self.writes = Writes(self.vm, self.vcpu, event.number, True, self.base, wiped, entry=self._entry)
        self._passed: dict[int, Effect] = {}

    def got(self, event: Event) -> None:
        """KVM_GET_ONE_REG."""
        if event.errno or event.register is None or event.data is None:
            return
        self.writes.read(event)
        if self.reader.read(event):
            self._open_save(event)
        if self.reader.has_read(len(self.base) // 2):
            self.writes.seen = event.number

    def got_pseudo(self, id: int, event: Event) -> None:
        """An ioctl that reads a pseudo-register."""
        if not event.errno:
            self.reader.note(id, event.number)

    def _open_save(self, event: Event) -> None:
        event.ask_origin()
        reader, state, before = self.reader, event.state, self.reader.save
        if before is not None and unchanged(state, before.state) and not before.is_torn:
            before.again.append(min(reader.reads.values()))
            before.reads.update(reader.reads)
            before.last_event = event.number
            reader.open(before)
            return
        earlier: dict[int, bytes] = {}
        if before is not None:
            earlier = {id: value for id in before.known & state.keys() if (value := before.value_read(id)) is not None}
            state = {id: old if (old := before.state.get(id)) == value else value for id, value in state.items()}
        save = Save(self.vm, self.vcpu, state, reader.reads, earlier, event.moment, event)
        save.controllers = self._controllers.reads
        reader.open(save)
        self._keep_save(save)

    def declare_saved(self, event: Event, label: int) -> None:
        """The VMM declares that the vCPU's state now is a save."""
        save = Save(self.vm, self.vcpu, event.state, {}, {}, time.monotonic(), event, label)
        save.controllers = self._controllers.reads
        save.first_event = save.last_event = event.number
        if self.reader.save is not None:
            save.reads = self.reader.save.reads
        self._keep_save(save)

    def declare_restored(self, label: int) -> None:
        """The VMM declares that what it writes to the vCPU restores that save."""
        self.writes.restores = label

    def set(self, event: Event) -> None:
        """KVM_SET_ONE_REG, successful or not."""
        if event.register is None:
            return
        self.written += 1
        passed = self._passed.get(event.register)
        if passed is not None and not self._writes_what_is_left(passed, event):
            del self._passed[event.register]
        self.writes.attempt(event.register, event)
        self.reader.changed()

    def set_pseudo(self, id: int, event: Event) -> None:
        """An ioctl that sets a pseudo-register."""
        if not event.errno:
            self.writes.attempt(id, event)
        self.reader.changed()

    def changed(self, _event: Event) -> None:
        """Another ioctl that may change the vCPU's state."""
        self.reader.changed()

    def entering(self, event: Event) -> None:
        """A KVM_RUN is about to enter the guest."""
        writes = self.writes
        concerned = writes.attempts or writes.wiped is not None or writes.fresh or writes.restores is not None
        if concerned:
            event.ask_origin()
        self._entering = (event, self.left(event.state) if concerned else {})
        self._controllers.entering(event, restored=len(writes.attempts) >= FEWEST_WRITES)

    def ran(self, event: Event) -> Writes | None:
        """KVM_RUN returned, or its thread is in the guest; returns what the guest was entered with."""
        entering, self._entering = self._entering, None
        if entering is None or event.errno not in ENTERED:
            # with immediate_exit, the vCPU's registers pass through the CPU and the guest is not entered
            new = (effect for effect in event.effects if effect.id not in self._passed)
            self._passed |= {effect.id: effect for effect in new if self._has_left(effect.id, effect.before)}
            return None
        before, state = entering
        self.reader.changed()
        writes = self.writes
        self.finish(before, state, entered=True)
        self._passed = {}
        self._entry = event.number
        self.writes = Writes(self.vm, self.vcpu, event.number, False, self.base, entry=event.number)
        self._controllers.ran()
        return writes

    def closing(self, event: Event) -> None:
        """The vCPU is closed, and the guest was not entered after what was written."""
        self._controllers.entering(event, restored=len(self.writes.attempts) >= FEWEST_WRITES)
        self.finish(event, self.left(event.state), entered=False)

    def _writes_what_is_left(self, passed: Effect, event: Event) -> bool:
        """Whether the VMM, which had written the register before, has read what the CPU left of it and writes that."""
        read = self.writes.reads_since_write.get(passed.id) or self.writes.looked.get(passed.id)
        was_written = passed.id in self.writes.attempts or passed.id in self.writes.written_back
        return was_written and read is not None and event.data == read.data == passed.after

    @property
    def by_cpu(self) -> dict[int, bytes]:
        """What the CPU has left of registers since the VMM wrote them."""
        return {id: effect.after for id, effect in self._passed.items()}

    def left(self, state: Values) -> Values:
        """A state with the registers as the VMM left them that the CPU did not preserve before the guest is entered."""
        passed = {id: effect.before for id, effect in self._passed.items() if state.get(id) == effect.after}
        return {**state, **passed} if passed else state

    def _has_left(self, id: int, value: bytes) -> bool:
        """Whether a value is the last that the VMM wrote to a register, or read of it without writing it since."""
        writes = self.writes
        attempt = writes.attempts.get(id)
        known = [writes.written_back.get(id), writes.looked.get(id), writes.reads_since_write.get(id)]
        known.append(attempt.last if attempt is not None else None)
        last = max((event for event in known if event is not None), key=lambda event: event.number, default=None)
        return last is not None and last.data == value

    def finish(self, event: Event, state: Values, *, entered: bool) -> None:
        """What was written is complete: ``state`` is what the vCPU has."""
        writes = self.writes
        writes.state, writes.svcr, writes.end, writes.entered = state, event.svcr, event.number, entered
        writes.by_cpu = self.by_cpu
        writes.seconds = time.monotonic()
        writes.controllers = self._controllers.sets
        writes.run = event
        many = len(writes.attempts) >= FEWEST_WRITES or (writes.attempts and len(writes.looked) >= FEWEST_WRITES)
        may_be_restore = many or writes.wiped is not None or writes.restores is not None
        lossy = entered and any(attempt.refused or attempt.gone for attempt in writes.attempts.values())
        if may_be_restore or lossy or (entered and writes.fresh):
            self._keep_writes(writes)
