# SPDX-License-Identifier: MIT
"""A trace as a Mermaid sequence diagram: CPUs and the memory copies, arrows for saves and loads."""

from __future__ import annotations

from kvmabi.fpstate import tokens
from kvmabi.fpstate.render.rows import closing, headline, rows
from kvmabi.fpstate.trace import Step, Trace

_COPIES = ("fV", "sV", "kV")


def _participants(trace: Trace) -> list[str]:
    m = trace.start
    names = [f"CPU{i}" for i in range(len(m.cpus))]
    names += [f"MEM_T{i}" for i in range(len(m.tasks))]
    return names + [f"MEM_V{i}" for i in range(len(m.vcpus))]


def _arrows(step: Step) -> list[str]:
    """Saves (a memory copy took the CPU's value) and loads (the CPU took a copy's value)."""
    cpu = step.event.cpu
    arrows = []
    for name, field, _, now in step.changes:
        if not name.startswith("CPU") and field in _COPIES and now == step.before.cpus[cpu].V:
            arrows.append(f"CPU{cpu}->>MEM_{name}: save {field}={tokens.name(now)}")
    new = step.after.cpus[cpu].V
    if new != step.before.cpus[cpu].V and step.event.name in ("ret_to_user", "switch", "guest_fp_trap"):
        owner = tokens.owner_of(new)
        source = None
        if step.event.name == "guest_fp_trap":
            source = f"MEM_V{step.before.cpus[cpu].guest}"
        elif owner != tokens.NOBODY and not tokens.is_guest(owner):
            source = f"MEM_T{owner % tokens.LIMIT}"
        elif step.after.cpus[cpu].cur >= 0:
            source = f"MEM_T{step.after.cpus[cpu].cur}"
        if source:
            arrows.append(f"{source}->>CPU{cpu}: load {tokens.name(new)}")
    return arrows


def mermaid(trace: Trace) -> str:
    """The source of the sequence diagram."""
    lines = ["sequenceDiagram", f"    %% {headline(trace)}"]
    lines += [f"    participant {name}" for name in _participants(trace)]
    for step, row in zip(trace.steps, rows(trace), strict=True):
        cpu = f"CPU{step.event.cpu}"
        label = f"{row.number} {step.who} {row.event}"
        lines.append(f"    {cpu}->>{cpu}: {label}")
        lines += [f"    {arrow}" for arrow in _arrows(step)]
        if row.changes:
            lines.append(f"    Note over {cpu}: {', '.join(row.changes)}")
        lines += [f"    Note over {cpu}: {note}" for note in row.notes]
    if closing(trace):
        lines.append(f"    %% {closing(trace)}")
    return "\n".join(line.replace(";", ",") for line in lines) + "\n"
