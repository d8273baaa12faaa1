# SPDX-License-Identifier: MIT
"""The same events on two variants, side by side: where do the runs diverge?"""

from __future__ import annotations

from dataclasses import dataclass

from kvmabi.fpstate.render.json_ import state_dict
from kvmabi.fpstate.trace import Trace


@dataclass(frozen=True)
class Difference:
    """One step at which two runs differ: field, value in the first, value in the second."""

    number: int
    event: str
    fields: tuple[tuple[str, str, str], ...]


def differences(first: Trace, second: Trace) -> list[Difference]:
    """The steps after which the two machines differ in a field that did not differ before."""
    result = []
    before: dict[str, tuple[str, str]] = {}
    for one, two in zip(first.steps, second.steps, strict=False):
        left, right = state_dict(one.after), state_dict(two.after)
        now = {
            f"{name}.{field}": (value, right[name][field])
            for name, fields in left.items()
            for field, value in fields.items()
            if value != right[name][field]
        }
        new = tuple((k, *v) for k, v in now.items() if before.get(k) != v)
        if new:
            result.append(Difference(one.number, str(one.event), new))
        before = now
    return result


def side_by_side(first: Trace, second: Trace, stops: tuple[str, str]) -> str:
    """Both runs as text: each event once, and the value of each variant where they differ."""
    a, b = first.variant.name, second.variant.name
    apart = {d.number: d for d in differences(first, second)}
    lines = [f"{a} and {b}, {first.config.summary}"]
    longest = max(len(first.steps), len(second.steps))
    for i in range(longest):
        step = first.steps[i] if i < len(first.steps) else second.steps[i]
        lines.append(f"{step.number:3}  CPU{step.event.cpu}  {step.who:12}  {step.event}")
        if step.number in apart:
            for field, left, right in apart[step.number].fields:
                lines.append(f"       {field}: {left} in {a}, {right} in {b}")
        for trace in (first, second):
            if i + 1 == len(trace.steps) and trace.observation:
                breach = trace.observation[0]
                lines.append(f"       ✗ {trace.variant.name}: {breach.clause}: {breach.text}")
    for trace, stop in zip((first, second), stops, strict=True):
        ending = f"stops, {stop}" if stop else trace.summary
        lines.append(f"{trace.variant.name}: {ending}")
    return "\n".join(lines) + "\n"
