# SPDX-License-Identifier: MIT
"""Watching events for lost state: a verdict is issued when a vCPU runs and when it is closed."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from kvmabi import regid
from kvmabi.events import Event, Kind
from kvmabi.order.findings import Finding, Loss
from kvmabi.order.lives import RUNNING, Life, Save, Values, same

VLS = frozenset({regid.parse("sve_vls"), regid.parse("sme_vls")})
SVCR = regid.parse("svcr")
VERDICTS = (Kind.RUN, Kind.CLOSED)
MAX_SAVES = 256
NO_AGREEMENT = (-(1 << 16), 0)
MIN_WRITES = 16
"""How many writes of values that a vCPU has after INIT count as a restore."""


class OrderChecker:
    """Reads every event as it happens (give ``watch`` to ``EventLog.watchers``) and collects ``findings``.

    ``ignored`` are the IDs of registers that findings leave out.
    """

    def __init__(self, ignored: Iterable[int] = ()) -> None:
        self.findings: list[Finding] = []
        self._ignored = frozenset(ignored)
        self._lives: dict[tuple[int, int], Life] = {}
        self._saves: list[Save] = []

    def watch(self, event: Event) -> None:
        """Process an event."""
        if event.vm is None or event.vcpu is None:
            return
        place = event.vm, event.vcpu
        if event.what == "KVM_ARM_VCPU_INIT":
            if not event.errno:
                self._lives[place] = Life(event.vm, event.vcpu, event.registers)
            return
        life = self._lives.get(place)
        if life is None:
            return
        if event.what == "KVM_GET_ONE_REG":
            save = life.read(event)
            if save is not None:
                self._saves.append(save)
                del self._saves[:-MAX_SAVES]
        elif event.what == "KVM_SET_ONE_REG":
            life.wrote(event)
        elif event.kind in VERDICTS:
            self.findings += self._judge(life, event)
            life.forget()
        if event.kind is Kind.CLOSED:
            del self._lives[place]

    def preview(self, vm: int, vcpu: int, registers: Values, svcr: int) -> list[Finding]:
        """Returns the verdict on a vCPU that has these registers now, as if it were closed. Changes nothing."""
        life = self._lives.get((vm, vcpu))
        return [] if life is None else self._verdict(life, registers, svcr)

    def _judge(self, life: Life, event: Event) -> list[Finding]:
        """Returns the verdict at an event."""
        return self._verdict(life, event.registers, event.svcr) if life.writes or life.refused else []

    def _verdict(self, life: Life, state: Values, svcr: int) -> list[Finding]:
        """Returns the findings on a vCPU whose final state this is."""
        if not (life.writes or life.refused):
            return []
        by_kind = {
            "vls-after-finalize": _vls(life),
            "destroyed-by-svcr": _destroyed(life),
            "za-disabled": _za_disabled(life),
        }
        save = self._restored_from(life)
        if save is not None:
            by_kind["mode-not-restored"] = _mode(save, state, svcr)
            by_kind["not-saved"] = _not_saved(save, life, state)
            by_kind["restore-differs"] = _differs(save, life, state)
        reported = {
            kind: tuple(loss for loss in losses if loss.id not in self._ignored) for kind, losses in by_kind.items()
        }
        return [Finding(kind, life.vm, life.vcpu, losses) for kind, losses in reported.items() if losses]

    def _restored_from(self, life: Life) -> Save | None:
        """Returns the save that best matches the values written to a vCPU, or None if none matches.

        Ties go to the earliest: a later save may be of a vCPU that was restored from it with the same losses.
        """
        best, most = None, NO_AGREEMENT
        for save in self._saves:
            agreement = _agreement(save, life)
            if agreement > most:
                best, most = save, agreement
        return best


def _agreement(save: Save, life: Life) -> tuple[int, int]:
    """Returns how well the values written match a save; NO_AGREEMENT if they are not a restore of it.

    Values that differ from those right after INIT count most. Without any, a restore is at least MIN_WRITES writes
    of saved values and no write of another value, on another vCPU or after another INIT: a VMM that sets up a vCPU
    may write back what it read from it. Free-running counters are ignored, and so are registers whose last write
    failed.
    """
    distinct = same_as_reset = mismatched = 0
    for id, write in life.writes.items():
        saved = save.values.get(id)
        if saved is None or id in RUNNING or id in life.refused or write.event < save.first_event:
            continue
        if not saved.startswith(write.data):
            mismatched += 1
        elif saved == life.reset.get(id):
            same_as_reset += 1
        else:
            distinct += 1
    if distinct:
        return (distinct - mismatched, same_as_reset) if distinct + same_as_reset > mismatched else NO_AGREEMENT
    is_restore = same_as_reset >= MIN_WRITES and not mismatched and save.reset is not life.reset
    return (0, same_as_reset) if is_restore else NO_AGREEMENT


def _loss(id: int, why: str, *events: int) -> Loss:
    return Loss(regid.name_of(id), id, events, why)


def _vls(life: Life) -> Iterator[Loss]:
    for id, refused in life.refused.items():
        if id in VLS and refused.errno == errno.EPERM:
            yield _loss(id, "refused with EPERM", refused.event)


def _destroyed(life: Life) -> Iterator[Loss]:
    for id, gone in life.destroyed.items():
        why = f"event {gone.svcr_write} wrote svcr = {gone.svcr:#x} after they were set"
        yield _loss(id, why, gone.set_by)


def _za_disabled(life: Life) -> Iterator[Loss]:
    for id, refused in life.refused.items():
        if refused.errno == errno.EBUSY and regid.decode(id).family == "sme":
            yield _loss(id, "refused with EBUSY", refused.event)


def _mode(save: Save, state: Values, svcr: int) -> Iterator[Loss]:
    if save.svcr != svcr and SVCR in state:
        yield _loss(SVCR, f"saved at svcr = {save.svcr:#x}, left at svcr = {svcr:#x}", save.first_event)


def _not_saved(save: Save, life: Life, state: Values) -> Iterator[Loss]:
    """Registers that differed from reset at the save, were never read, and have another value on the restored vCPU."""
    for id, value in save.state.items():
        if id in save.values or same(id, value, save.reset.get(id, bytes(len(value)))):
            continue
        if id not in life.writes and not same(id, value, state.get(id)):
            yield _loss(id, "never read by the save", save.first_event)


def _differs(save: Save, life: Life, state: Values) -> Iterator[Loss]:
    for id, value in save.values.items():
        if not same(id, value, state.get(id)):
            yield _loss(id, *_story(id, value, life, state))


def _story(id: int, saved: bytes, life: Life, state: Values) -> tuple[str, int] | tuple[str]:
    """Returns why a register does not have the saved value, and the event that decided it."""
    if id in life.destroyed:
        gone = life.destroyed[id]
        return f"set, then reset by the write of svcr = {gone.svcr:#x}", gone.svcr_write
    if id in life.refused:
        refused = life.refused[id]
        return f"refused with {errno.errorcode.get(refused.errno, refused.errno)}: {refused.reason}", refused.event
    if id not in life.writes:
        return ("never written",)
    if id not in state:
        return "written, but not visible in the final mode of the vCPU", life.writes[id].event
    written = life.writes[id].data
    if len(written) < len(saved) and saved.startswith(written) and state[id].startswith(written):
        return f"cut off after {len(written)} bytes: the vector length is shorter here", life.writes[id].event
    return "holds a value other than the saved one", life.writes[id].event
