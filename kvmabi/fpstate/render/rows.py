# SPDX-License-Identifier: MIT
"""A trace as rows: the contents that all renderers share."""

from __future__ import annotations

from dataclasses import dataclass

from kvmabi.fpstate import tokens
from kvmabi.fpstate.invariants import MEANING
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.trace import Step, Trace, where

LIE, SEEN = "▲", "✗"  # the first lie; the observation

_TOKENS = frozenset({"V", "Z", "F", "fV", "sV", "sZ", "kV", "hV", "hZ"})
_HIDDEN = frozenset({"cur", "on", "mode", "user", "guest"})
_CPU_NAMES = {"owner": "fp_owner", "vl": "VL"}


@dataclass(frozen=True)
class Row:
    """One step: the cell text of each CPU, and the changes of metadata and memory."""

    number: int
    cpu: int
    cells: tuple[str, ...]
    event: str
    registers: str
    changes: tuple[str, ...]
    marks: tuple[str, ...]
    notes: tuple[str, ...]


def shown(field: str, value: object) -> str:
    """A field's value in readable form."""
    if field in _TOKENS and isinstance(value, int):
        return tokens.name(value)
    if field == "st" and isinstance(value, int):
        return tokens.owner_name(value)
    if field in ("fcpu", "kcpu"):
        return "none" if value == -1 else f"CPU{value}"
    return str(value)


def registers(m: Machine, cpu: int) -> str:
    """A CPU's registers in short form: "V=u(T0) Z=0 st=U(T0)"."""
    c = m.cpus[cpu]
    parts = [f"V={tokens.name(c.V)}"]
    if m.config.sve or m.config.sme:
        parts.append(f"Z={tokens.name(c.Z)}")
    if m.config.fpmr:
        parts.append(f"F={tokens.name(c.F)}")
    if m.config.sme:
        parts.append(f"SM={c.SM}")
    if m.config.sve:
        parts.append(f"ZEN={c.ZEN}")
    return " ".join([*parts, f"st={tokens.owner_name(c.st)}"])


def _changes(step: Step) -> tuple[str, ...]:
    changes = []
    for name, field, _, now in step.changes:
        if field in _HIDDEN or field.startswith("want_") or (name.startswith("CPU") and field in ("V", "Z", "F")):
            continue
        if name.startswith("CPU") and field in ("st", "ZEN", "SM"):
            continue
        if field == "vcpu":
            continue
        label = _CPU_NAMES.get(field, field) if name.startswith("CPU") else field
        changes.append(f"{name}.{label}={shown(field, now)}")
    return tuple(changes)


def rows(trace: Trace) -> list[Row]:
    """The trace's rows, with the first lie and the observation marked."""
    lie = trace.first_lie
    result = []
    for step in trace.steps:
        cells = tuple(where(step.after, c) for c in range(len(step.after.cpus)))
        marks: list[str] = []
        notes: list[str] = []
        if lie is not None and step is lie[0]:
            marks.append(LIE)
            notes.append(f"{LIE} {lie[1].clause}: {lie[1].text}")
        if trace.observation and step is trace.steps[-1]:
            for breach in trace.observation:
                if lie is not None and step is lie[0] and breach == lie[1]:
                    continue
                marks.append(SEEN)
                notes.append(f"{SEEN} {breach.clause}: {breach.text} ({breach.kind})")
        result.append(
            Row(
                step.number,
                step.event.cpu,
                cells,
                str(step.event),
                registers(step.after, step.event.cpu),
                _changes(step),
                tuple(dict.fromkeys(marks)),
                tuple(notes),
            )
        )
    return result


def headline(trace: Trace) -> str:
    """The trace as one line: variant, configuration, verdict."""
    return f"variant {trace.variant.name}   {trace.config.summary}   {trace.summary}"


def closing(trace: Trace) -> str:
    """One line about the first lie; "" if no metadata invariant is broken."""
    lie = trace.first_lie
    if lie is None:
        return ""
    step, breach = lie
    meaning = f"{breach.invariant}: {MEANING[breach.invariant]}"
    return f"first lie: step {step.number}, {step.event} on CPU{step.event.cpu} ({meaning})"
