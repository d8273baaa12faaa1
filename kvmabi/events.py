# SPDX-License-Identifier: MIT
"""What happened: one event for every ioctl, and a few for what is not an ioctl.

Reports, the order checker and test assertions read this stream only.
"""

from __future__ import annotations

import errno
import re
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from enum import Enum
from threading import get_ident
from typing import Protocol

from kvmabi import gicnames, hexruns, regid
from kvmabi.detail import Detail
from kvmabi.errors import ASKED_FOR, NOT_MODELLED
from kvmabi.model.effects import Effect, Effects
from kvmabi.model.refusal import Refusal

KEPT = 10_000
MOST_ASKED = 64
"""How many origins a thread's carrier may leave unfilled before the oldest are forgotten."""
NO_VALUES: Mapping[int, bytes] = {}
MP_STATE = 1 << 64
VCPU_EVENTS = MP_STATE + 1
PSEUDO_REGISTERS = {MP_STATE: "mp_state", VCPU_EVENTS: "vcpu_events"}
"""State of a vCPU that is not a register, by an ID that no register has."""


class Kind(Enum):
    """What an event is about. Only an IOCTL takes a number of its own; the others have the last ioctl's.

    RUN comes before a KVM_RUN that is to enter the guest, while the vCPU's registers are still as the VMM left them;
    with kvm_run.immediate_exit there is none. If that KVM_RUN then fails (not with EINTR), the guest was not entered.
    WARNING is what a real kernel would have done to itself or to a VM without an errno. MARK comes after the ioctl
    with which a VMM declares a save or a restore (include/kvmabi/mark.h): ``what`` is "saved" or "restored", ``data``
    the save's label in 8 bytes, the lowest first. If that vCPU has no state, ``reason`` says why. RELEASED comes when
    nothing holds a VM any more, if the log is detailed.
    """

    IOCTL = "ioctl"
    RUN = "run"
    CLOSED = "closed"
    WARNING = "warning"
    MARK = "mark"
    RELEASED = "released"


STARTING = ("__libc_start", "_start+", "start_thread", "clone", "__clone")
"""How the frames begin that call every program and every thread."""
UNNAMED_START = re.compile(r"\S*/libc\.so\.6\+0x[0-9a-f]+$")
"""Such a frame of a C library whose local symbols are stripped."""


class Origin:
    """Where in the VMM an ioctl came from: the process, the thread (its tid and name), and who called whom.

    A watcher gets it from ``Event.ask_origin``. What carries the ioctl (``Kvm``, the interposer's server) fills it once
    the ioctl is answered; until then, and where nothing carries it, all of it is empty.
    """

    __slots__ = ("_frames", "pid", "thread", "thread_name")

    def __init__(self) -> None:
        self.pid = self.thread = 0
        self.thread_name = ""
        self._frames: Callable[[], tuple[str, ...]] = tuple

    @property
    def frames(self) -> tuple[str, ...]:
        """The calls, the ioctl's caller first; names are looked up when this is read.

        A frame is "function at file:line", "symbol+0xoffset in file" or "file+0xoffset", as far as it is known. Those
        that every program and thread starts with are left out.
        """
        frames = [frame for frame in self._frames() if not frame.startswith(STARTING)]
        while len(frames) > 1 and UNNAMED_START.match(frames[-1]):
            frames.pop()
        return tuple(frames)

    def fill(self, pid: int, thread: int, thread_name: str, frames: Callable[[], tuple[str, ...]]) -> None:
        """Called by the carrier of the ioctl."""
        self.pid, self.thread, self.thread_name, self._frames = pid, thread, thread_name, frames

    def __repr__(self) -> str:
        return f"<Origin in process {self.pid}, thread {self.thread} {self.thread_name!r}>"


class Source(Protocol):
    """What an event is about: a file whose vCPU, if it has one, can be read."""

    def values(self) -> Mapping[int, bytes]:
        """Every visible register now, by ID."""

    def pseudo_values(self) -> Mapping[int, bytes]:
        """The state of the vCPU that is not a register, by the IDs of PSEUDO_REGISTERS."""

    def controllers(self) -> Mapping[tuple[int, int], bytes]:
        """Every register of the VM's interrupt controllers, by group and number of its attribute."""


class Event:
    """One ioctl and its answer, or something else that happened to a vCPU.

    ``number`` counts ioctls from 1, in the order in which they were done. ``what`` is the ioctl's name. ``vm`` and
    ``vcpu`` are None where there is none. ``register`` is the register's ID, ``attribute`` the kind of file, group and
    number of an attribute, and ``data`` what was read or written of it. ``argument`` is a number that the ioctl is
    about: the capability of KVM_CHECK_EXTENSION, the feature bits of KVM_ARM_VCPU_INIT. ``errno`` is 0 for success,
    otherwise ``reason`` and ``hint`` explain. If not ``modelled``, a kernel may answer otherwise, or do more:
    ``reason`` says what kvmabi does not model. ``mode`` is the vCPU's mode before the ioctl, ``svcr`` the value of SVCR
    afterwards. ``origin`` is None unless a watcher asked for it, ``detail`` unless the log is detailed and the
    ioctl was more than a plain get or set of a register. ``seconds`` is when it happened on the monotonic clock, for an
    event that is recorded later; None: it happens now.
    """

    __slots__ = (
        "_effects",
        "_source",
        "argument",
        "attribute",
        "data",
        "detail",
        "errno",
        "hint",
        "kind",
        "mode",
        "modelled",
        "number",
        "origin",
        "reason",
        "register",
        "seconds",
        "svcr",
        "vcpu",
        "vm",
        "what",
    )

    def __init__(
        self,
        number: int,
        kind: Kind,
        what: str,
        vm: int | None,
        vcpu: int | None,
        mode: object,
        svcr: int,
        refusal: Refusal | None = None,
        register: int | None = None,
        data: bytes | None = None,
        effects: Iterable[Effect] = (),
        source: Source | None = None,
        attribute: tuple[str, int, int] | None = None,
        argument: int | None = None,
    ) -> None:
        self.argument = argument
        self.number = number
        self.kind = kind
        self.what = what
        self.vm = vm
        self.vcpu = vcpu
        self.mode = mode
        self.svcr = svcr
        self.errno, self.reason, self.hint, self.modelled = refusal or (0, "", "", True)
        self.register = register
        self.attribute = attribute
        self.data = data
        self.origin: Origin | None = None
        self.detail: Detail | None = None
        self.seconds: float | None = None
        self._effects = effects
        self._source = source

    @property
    def asked_for(self) -> bool:
        """Whether a fault that was asked for made the ioctl fail: it did not reach the emulated kernel."""
        return bool(self.errno) and self.reason.startswith(ASKED_FOR)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """The other registers that the ioctl changed, with their values before and after."""
        if not isinstance(self._effects, tuple):
            self._effects = tuple(self._effects)
        return self._effects

    @property
    def may_have_effects(self) -> bool:
        """Whether the ioctl is of those that can change other registers: cheaper than to look for effects."""
        return bool(self._effects)

    def effects_on(self, ids: Container[int]) -> Iterable[Effect]:
        """The effects on registers of ``ids``: cheaper than all of them where few are of interest."""
        if isinstance(self._effects, Effects):
            return self._effects.among(ids)
        return (effect for effect in self.effects if effect.id in ids)

    @property
    def registers(self) -> Mapping[int, bytes]:
        """Every visible register of the vCPU, read on demand while watchers look at the event; empty afterwards."""
        return NO_VALUES if self._source is None else self._source.values()

    @property
    def state(self) -> dict[int, bytes]:
        """A new dict of ``registers`` and, by the IDs of PSEUDO_REGISTERS, of the state that is not a register."""
        return {} if self._source is None else {**self._source.values(), **self._source.pseudo_values()}

    @property
    def controllers(self) -> Mapping[tuple[int, int], bytes]:
        """Every register of the VM's interrupt controllers, by group and number, while watchers look at it."""
        return {} if self._source is None else self._source.controllers()

    @property
    def moment(self) -> float:
        """When it happened on the monotonic clock, asked while watchers look at the event."""
        return time.monotonic() if self.seconds is None else self.seconds

    @property
    def attribute_name(self) -> str:
        """The name of ``attribute``, or its group and number; "" if the event is not about one."""
        if self.attribute is None:
            return ""
        kind, group, number = self.attribute
        return gicnames.name_of(group, number) if kind == "device" else f"{group}/{number:#x}"

    def ask_origin(self) -> Origin:
        """Asks for the origin of the ioctl, while a watcher looks at the event: it is filled once that is answered.

        The origin of a CLOSED event stays empty: it does not belong to an ioctl.
        """
        if self.origin is None:
            self.origin = Origin()
        return self.origin

    def happened_at(self, seconds: float, source: Source | None) -> None:
        """The event is recorded later: when it happened on the monotonic clock, and where its registers are found."""
        self.seconds = seconds
        self._source = source

    def is_over(self, *, kept: bool) -> None:
        """The vCPU goes on: its registers are no longer those of this event.

        An event that is kept holds its effects, not the far more bytes in which they are looked for.
        """
        self._source = None
        if kept and self._effects:
            self._effects = self.effects

    def __str__(self) -> str:
        """The event in a line: "12 VM 1 vCPU 0 KVM_SET_ONE_REG svcr = 02*1.00*7.: OK"."""
        register = f" {regid.name_of(self.register)}" if self.register is not None else ""
        if self.attribute is not None:
            register = f" {self.attribute_name}"
        value = f" = {hexruns.compress(self.data)}" if self.data else ""
        if self.kind is Kind.MARK and self.data is not None:
            value = f" {int.from_bytes(self.data, 'little')}"
        answer = errno.errorcode.get(self.errno, "OK")
        text = f"{self.number}{self._place()} {self.what}{register}{value}: {answer}"
        text += "" if self.modelled else f": {NOT_MODELLED}"
        for part in (self.reason, self.hint):
            text += f": {part}" if part else ""
        if self.effects:
            text += f"; changed {regid.ranges(regid.name_of(lost.id) for lost in self.effects)}"
        return text

    def __repr__(self) -> str:
        return f"<Event {self.number} {self.what}{self._place()} errno {self.errno}>"

    def _place(self) -> str:
        return "".join(f" {kind} {n}" for kind, n in (("VM", self.vm), ("vCPU", self.vcpu)) if n is not None)


class EventLog:
    """The stream of events: the last ``kept`` of them in ``events``, each handed to every watcher first."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self.kept = kept
        self.events: deque[Event] = deque(maxlen=kept)
        self.watchers: list[Callable[[Event], None]] = []
        self.count = 0
        self.any_origin = True
        """Watchers may ask for the origin of any event. Otherwise they ask of a get only when at least 8 were not
        interrupted by a change, and of a set only if it is refused or sets SVCR: others may have none."""
        self.detailed = False
        """Events of ioctls have their details (kvmabi.detail)."""
        self.held: list[Event] | None = None
        """Where events go instead, while something else must be recorded before them."""
        self.asked: dict[int, deque[Origin]] = {}
        """The origins that watchers asked for, by the thread that does the ioctl."""

    @property
    def idle(self) -> bool:
        """Events would reach neither a watcher nor the kept ones."""
        return not self.watchers and not self.kept

    def append(self, event: Event) -> None:
        """Hand an event to the watchers and keep it. A RUN is not kept: the event of its ioctl follows."""
        if self.held is not None:
            self.held.append(event)
            return
        for watcher in self.watchers:
            watcher(event)
        if event.origin is not None and event.kind is not Kind.CLOSED:
            self.asked.setdefault(get_ident(), deque(maxlen=MOST_ASKED)).append(event.origin)
        kept = self.kept > 0 and event.kind is not Kind.RUN
        event.is_over(kept=kept)
        if kept:
            self.events.append(event)

    def append_late(self, event: Event) -> None:
        """Append an event that was held back, with the number that it has now."""
        if event.kind is Kind.IOCTL:
            self.count += 1
        event.number = self.count
        self.append(event)

    def take_asked(self) -> Iterable[Origin]:
        """What watchers asked for during this thread's ioctl. Its carrier fills each, once the ioctl is answered."""
        return self.asked.pop(get_ident(), ())
