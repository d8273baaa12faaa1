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
SAVES_KEPT = 256
NO_AGREEMENT = (-(1 << 16), 0)
PLAIN_LEAST = 16


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
        """Take in an event."""
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
                del self._saves[:-SAVES_KEPT]
        elif event.what == "KVM_SET_ONE_REG":
            life.wrote(event)
        elif event.kind in VERDICTS:
            self.findings += self._judge(life, event)
            life.forget()
        if event.kind is Kind.CLOSED:
            del self._lives[place]

    def preview(self, vm: int, vcpu: int, registers: Values, svcr: int) -> list[Finding]:
        """The verdict on a vCPU that has these registers now, as if it were closed. Changes nothing."""
        life = self._lives.get((vm, vcpu))
        return [] if life is None else self._verdict(life, registers, svcr)

    def _judge(self, life: Life, event: Event) -> list[Finding]:
        """The verdict at an event."""
        return self._verdict(life, event.registers, event.svcr) if life.writes or life.refused else []

    def _verdict(self, life: Life, state: Values, svcr: int) -> list[Finding]:
        """What is wrong with a vCPU that is left in this state."""
        if not (life.writes or life.refused):
            return []
        found = {
            "vls-after-finalize": _vls(life),
            "destroyed-by-svcr": _destroyed(life),
            "za-disabled": _za_disabled(life),
        }
        save = self._restored_from(life)
        if save is not None:
            found["mode-not-restored"] = _mode(save, state, svcr)
            found["not-saved"] = _not_saved(save, life, state)
            found["restore-differs"] = _differs(save, life, state)
        told = {kind: tuple(loss for loss in losses if loss.id not in self._ignored) for kind, losses in found.items()}
        return [Finding(kind, life.vm, life.vcpu, losses) for kind, losses in told.items() if losses]

    def _restored_from(self, life: Life) -> Save | None:
        """The save that a vCPU was restored from: the one that what was written agrees with most.

        The first of equals: a later one may be of a vCPU restored from it with the same losses.
        """
        best, most = None, NO_AGREEMENT
        for save in self._saves:
            agreement = _agreement(save, life)
            if agreement > most:
                best, most = save, agreement
        return best


def _agreement(save: Save, life: Life) -> tuple[int, int]:
    """How well what was written agrees with what was saved; NO_AGREEMENT if it was no restore of this save.

    What tells most are values other than those right after INIT. Without any of these it takes many
    writes, none of them of another value, and another vCPU or INIT: a VMM that sets up a vCPU may write
    back what it read of it. Registers that run tell nothing, nor does a write that a later one, refused,
    was meant to replace.
    """
    telling = plain = against = 0
    for id, write in life.writes.items():
        saved = save.values.get(id)
        if saved is None or id in RUNNING or id in life.refused or write.event < save.first_event:
            continue
        if not saved.startswith(write.data):
            against += 1
        elif saved == life.reset.get(id):
            plain += 1
        else:
            telling += 1
    if telling:
        return (telling - against, plain) if telling + plain > against else NO_AGREEMENT
    return (0, plain) if plain >= PLAIN_LEAST and not against and save.reset is not life.reset else NO_AGREEMENT


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
    """Registers that the guest had changed and nobody read, where the restored vCPU has another value now."""
    for id, value in save.state.items():
        if id in save.values or same(id, value, save.reset.get(id, bytes(len(value)))):
            continue
        if id not in life.writes and not same(id, value, state.get(id)):
            yield _loss(id, "never read while it was saved", save.first_event)


def _differs(save: Save, life: Life, state: Values) -> Iterator[Loss]:
    for id, value in save.values.items():
        if not same(id, value, state.get(id)):
            yield _loss(id, *_story(id, value, life, state))


def _story(id: int, saved: bytes, life: Life, state: Values) -> tuple[str, int] | tuple[str]:
    """Why a register has not got the value that was saved, and the event that decided it."""
    if id in life.destroyed:
        gone = life.destroyed[id]
        return f"set, then reset by the write of svcr = {gone.svcr:#x}", gone.svcr_write
    if id in life.refused:
        refused = life.refused[id]
        return f"refused with {errno.errorcode.get(refused.errno, refused.errno)}: {refused.reason}", refused.event
    if id not in life.writes:
        return ("never written",)
    if id not in state:
        return "written, but out of view in the mode the vCPU was left in", life.writes[id].event
    written = life.writes[id].data
    if len(written) < len(saved) and saved.startswith(written) and state[id].startswith(written):
        return f"cut off after {len(written)} bytes: the vector length is shorter here", life.writes[id].event
    return "holds another value than was saved", life.writes[id].event
