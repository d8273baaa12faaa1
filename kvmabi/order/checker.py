# SPDX-License-Identifier: MIT
"""Watching events for lost state: verdicts fall when a vCPU runs and when it is closed."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from kvmabi import regid
from kvmabi.events import Event
from kvmabi.order.findings import Finding, Loss
from kvmabi.order.lives import Life, Save, Values

VLS = frozenset({regid.parse("sve_vls"), regid.parse("sme_vls")})
SVCR = regid.parse("svcr")
# Registers that run by themselves, so that no restore brings back what was saved.
RUNNING = frozenset({regid.parse("cntpct_el0"), regid.parse("cntvct_el0")})
SAVES_KEPT = 1024


class OrderChecker:
    """Reads every event as it happens (give ``watch`` to ``EventLog.watchers``) and collects ``findings``."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._lives: dict[tuple[int, int], Life] = {}
        self._saves: list[Save] = []

    def watch(self, event: Event) -> None:
        """Take in an event."""
        if event.vm is None or event.vcpu is None:
            return
        place = event.vm, event.vcpu
        if event.what == "KVM_ARM_VCPU_INIT":
            if not event.errno:
                self._lives[place] = Life(event.vm, event.vcpu, event.state or {})
            return
        life = self._lives.get(place)
        if life is None:
            return
        if event.what == "KVM_SET_ONE_REG":
            life.wrote(event)
        elif event.what == "KVM_GET_ONE_REG":
            save = life.read(event)
            if save is not None:
                self._saves.append(save)
                del self._saves[:-SAVES_KEPT]
        elif event.state is not None:
            self._judge(life, event.state, event.svcr)
            life.forget()

    def _judge(self, life: Life, state: Values, svcr: int) -> None:
        if not (life.writes or life.refused):
            return
        self._find(life, "vls-after-finalize", _vls(life))
        self._find(life, "destroyed-by-svcr", _destroyed(life))
        self._find(life, "za-disabled", _za_disabled(life))
        save = self._restored_from(life)
        if save is not None:
            self._find(life, "mode-not-restored", _mode(save, state, svcr))
            self._find(life, "not-saved", _not_saved(save, life, state))
            self._find(life, "restore-differs", _differs(save, life, state))

    def _find(self, life: Life, kind: str, losses: Iterator[Loss]) -> None:
        found = tuple(losses)
        if found:
            self.findings.append(Finding(kind, life.vm, life.vcpu, found))

    def _restored_from(self, life: Life) -> Save | None:
        """The save that a vCPU was restored from: it has most in common with what was written; the latest of equals.

        Only values that differ from those after INIT count.
        """
        best, most = None, 0
        for save in self._saves:
            common = sum(
                write.event > save.first_event and _same(write.data, save.values.get(id), life.reset.get(id))
                for id, write in life.writes.items()
            )
            if common and common >= most:
                best, most = save, common
        return best


def _same(written: bytes, saved: bytes | None, reset: bytes | None) -> bool:
    """A value that was written is one that was saved, as far as it reaches, and not the one that was there anyway."""
    return saved is not None and saved.startswith(written) and saved != reset


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
        if id in save.values or id in RUNNING or value == save.reset.get(id, bytes(len(value))):
            continue
        if id not in life.writes and state.get(id) != value:
            yield _loss(id, "never read while it was saved", save.first_event)


def _differs(save: Save, life: Life, state: Values) -> Iterator[Loss]:
    for id, value in save.values.items():
        if id not in RUNNING and state.get(id) != value:
            yield _loss(id, *_story(id, life, state))


def _story(id: int, life: Life, state: Values) -> tuple[str, int] | tuple[str]:
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
    return "holds another value than was saved", life.writes[id].event
