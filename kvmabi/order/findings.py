# SPDX-License-Identifier: MIT
"""Findings: what was lost of one vCPU by one cause, as text and as data for JSON."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.events import Origin
from kvmabi.order.causes import CAUSES, Cause, Severity
from kvmabi.order.values import first_difference

WIDTH = 100
MOST_RUNS = 6
SHOWN_BYTES = 16
LINES_SHOWN = 4
FRAMES_SHOWN = 3


class Loss(NamedTuple):
    """One register of a finding: its name and ID, the numbers of the events involved, and the reason in words.

    ``saved``, ``written`` and ``left`` are the value at the save, the one last written and the one that is there, None
    where there is none. ``consequence``: it follows from a finding on the same vCPU that SVCR was not restored.
    """

    name: str
    id: int
    events: tuple[int, ...]
    why: str
    saved: bytes | None = None
    written: bytes | None = None
    left: bytes | None = None
    consequence: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Returns the register as data for JSON; bytes are in hexadecimal, the lowest first."""
        return {
            "name": self.name,
            "id": "" if self.id >> 64 else f"{self.id:#x}",
            "events": list(self.events),
            "why": self.why,
            "saved": _hex(self.saved),
            "written": _hex(self.written),
            "left": _hex(self.left),
            "consequence": self.consequence,
        }


@dataclass(frozen=True)
class Pair:
    """A vCPU that was judged, and the save that it was compared with.

    The save is of ``source_vcpu`` of VM ``source_vm``, read by the events from ``first_event`` to ``last_event``,
    ``seconds_before`` the verdict's moment; ``from_run`` is the run that made it, "" for this one. ``registers``
    were compared; ``edits`` of them, named in ``edited``, were restored as saved and then written again on purpose.
    ``declared``: the user said so.
    """

    vm: int
    vcpu: int
    source_vm: int
    source_vcpu: int
    first_event: int
    last_event: int
    seconds_before: float
    registers: int
    declared: bool = False
    edits: int = 0
    edited: tuple[str, ...] = ()
    from_run: str = ""

    @property
    def source(self) -> str:
        """The save in words."""
        declared = ", declared" if self.declared else ""
        if self.from_run:
            return f"VM {self.source_vm} vCPU {self.source_vcpu} (saved by {self.from_run}{declared})"
        events = f"events {self.first_event}-{self.last_event}"
        if self.first_event == self.last_event:
            events = f"event {self.first_event}"
        return f"VM {self.source_vm} vCPU {self.source_vcpu} ({events}, {self.seconds_before:.3g} s before{declared})"

    def __str__(self) -> str:
        edits = f"; edited after the restore: {regid.ranges(self.edited)}" if self.edits else ""
        where = f"VM {self.vm} vCPU {self.vcpu}"
        return f"{where}: {self.registers} registers compared with the save of {self.source}{edits}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the pair as data for JSON."""
        return {
            "vm": self.vm,
            "vcpu": self.vcpu,
            "source_vm": self.source_vm,
            "source_vcpu": self.source_vcpu,
            "first_event": self.first_event,
            "last_event": self.last_event,
            "seconds_before": round(self.seconds_before, 6),
            "registers": self.registers,
            "declared": self.declared,
            "edits": self.edits,
            "edited": list(self.edited),
            "from_run": self.from_run,
        }


@dataclass(frozen=True)
class Finding:
    """What was lost of one vCPU by one cause (a key of CAUSES); of the VM's interrupt controllers if ``vcpu`` is None.

    ``pair`` is the save that it was compared with, None if the vCPU's own events show the loss. ``lines`` are the
    events that explain it, ``notes`` what else is to be said, a line each.
    """

    cause: str
    vm: int
    vcpu: int | None
    losses: tuple[Loss, ...]
    pair: Pair | None = None
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    origins: tuple[tuple[str, Origin], ...] = ()

    @property
    def _row(self) -> Cause:
        return CAUSES[self.cause]

    @property
    def place(self) -> str:
        """What it is about, in words."""
        return f"VM {self.vm} {'interrupt controllers' if self.vcpu is None else f'vCPU {self.vcpu}'}"

    @property
    def kind(self) -> str:
        """The kind of finding, which causes share."""
        return self._row.kind

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self._row.severity

    @property
    def title(self) -> str:
        """What went wrong, in a line."""
        return self._row.title

    @property
    def rule(self) -> str:
        """The rule that was broken."""
        return self._row.rule

    @property
    def fix(self) -> str:
        """What to do about it."""
        return self._row.fix

    @property
    def registers(self) -> tuple[str, ...]:
        """The names of the registers concerned."""
        return tuple(loss.name for loss in self.losses)

    def as_dict(self) -> dict[str, Any]:
        """Returns the finding as data for JSON."""
        return {
            "kind": self.kind,
            "cause": self.cause,
            "severity": str(self.severity),
            "title": self.title,
            "vm": self.vm,
            "vcpu": self.vcpu,
            "rule": self.rule,
            "fix": self.fix,
            "pair": None if self.pair is None else self.pair.as_dict(),
            "registers": [loss.as_dict() for loss in self.losses],
            "events": list(self.lines),
            "notes": list(self.notes),
            "origins": [_origin(label, origin) for label, origin in self.origins],
        }

    def __str__(self) -> str:
        count = len(self.losses)
        what = f"{count} register{'s' if count != 1 else ''} of {self.place}" if count else self.place
        lines = [f"{self.severity}: {self.title}: {what}"]
        if self.pair is not None:
            lines.append(f"  saved:  {self.pair.source}")
        for why, losses in _by_reason(self.losses):
            lines += _wrapped("  ", regid.ranges(loss.name for loss in losses), "    ")
            lines.append(f"    {why}{_events(losses)}")
            lines += _values(losses[0], alone=len(losses) == 1)
        lines += [f"  event {line}" for line in self.lines]
        lines += [f"  {note}" for note in self.notes]
        lines += _calls(self.origins)
        lines += _wrapped("  rule:   ", self.rule, "          ") + _wrapped("  fix:    ", self.fix, "          ")
        return "\n".join(lines)


def _origin(label: str, origin: Origin) -> dict[str, Any]:
    """Returns an origin as data for JSON."""
    thread = {"process": origin.pid, "thread": origin.thread, "thread_name": origin.thread_name}
    return {"what": label, **thread, "frames": list(origin.frames)}


def _calls(origins: Sequence[tuple[str, Origin]]) -> Iterator[str]:
    """Returns the calls that led to the ioctls that matter, a line each, the innermost first."""
    here = f"{os.getcwd()}/"
    for label, origin in origins:
        frames = [frame.replace(here, "") for frame in origin.frames[:FRAMES_SHOWN]]
        if frames:
            thread = f"thread {origin.thread}" if origin.thread != origin.pid else f"process {origin.pid}"
            yield f"  {label} {' < '.join(frames)} ({thread} {origin.thread_name})"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _wrapped(label: str, text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=label, subsequent_indent=indent, break_long_words=False)


def _by_reason(losses: Sequence[Loss]) -> list[tuple[str, list[Loss]]]:
    """Returns the registers grouped by reason, in the order in which the reasons appear."""
    reasons: dict[str, list[Loss]] = {}
    for loss in losses:
        reasons.setdefault(loss.why, []).append(loss)
    return list(reasons.items())


def _values(loss: Loss, *, alone: bool) -> Iterator[str]:
    """Returns the values of a register in a line: those that there are, from the first differing byte on."""
    values = {"saved": loss.saved, "written": loss.written, "left": loss.left}
    known = {word: value for word, value in values.items() if value is not None}
    if loss.saved is None or len(known) < 2:
        return
    other = loss.left if loss.left is not None else loss.written
    at = first_difference(loss.saved, other or b"") or 0
    name = "" if alone else f"{loss.name} "
    shown = "  ".join(f"{word} {_from(value, at)}" for word, value in known.items())
    yield f"    {name}from byte {at}: {shown}"


def _from(value: bytes, at: int) -> str:
    part = value[at : at + SHOWN_BYTES]
    if not any(value[at:]):
        return "00.."
    return part.hex() + (".." if len(value) > at + SHOWN_BYTES else "")


def _events(losses: Sequence[Loss]) -> str:
    """Returns the event numbers of some registers, in runs ("; events 12-40, 97"), "" if there are none."""
    numbers = sorted({number for loss in losses for number in loss.events})
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    text = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:MOST_RUNS])
    if len(runs) > MOST_RUNS:
        text += f" and {len(runs) - MOST_RUNS} more runs"
    return f"; event{'s' if len(numbers) != 1 else ''} {text}" if text else ""
