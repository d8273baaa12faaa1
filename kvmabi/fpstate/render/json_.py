# SPDX-License-Identifier: MIT
"""A trace as JSON, and the parser for replay."""

from __future__ import annotations

import json
from typing import Any

from kvmabi.errors import UsageError
from kvmabi.fpstate.config import Config, config_from
from kvmabi.fpstate.events import Event
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.render.rows import shown
from kvmabi.fpstate.trace import Step, Trace, component_names


def state_dict(m: Machine) -> dict[str, dict[str, str]]:
    """A machine as nested mappings of names to readable values."""
    parts = zip(component_names(m), m.components(), strict=True)
    return {n: {f: shown(f, v) for f, v in zip(p.FIELDS, p.values(), strict=True)} for n, p in parts}


def _step(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "cpu": step.event.cpu,
        "event": step.event.name,
        "arg": step.event.arg,
        "who": step.who,
        "changes": {f"{n}.{f}": [shown(f, was), shown(f, now)] for n, f, was, now in step.changes},
        "breaches": [{"clause": b.clause, "kind": b.kind, "text": b.text} for b in step.breaches],
    }


def trace_dict(trace: Trace) -> dict[str, Any]:
    """The trace as JSON-ready data: variant, bits, config, events, violation."""
    violation = None
    if trace.observation:
        breach, lie = trace.observation[0], trace.first_lie
        violation = {
            "clause": breach.clause,
            "kind": breach.kind,
            "text": breach.text,
            "step": len(trace.steps),
            "first_lie": None if lie is None else {"step": lie[0].number, "clause": lie[1].clause, "text": lie[1].text},
        }
    return {
        "variant": trace.variant.name,
        "bits": list(trace.variant.bits),
        "config": trace.config.as_dict(),
        "start": state_dict(trace.start),
        "events": [_step(s) for s in trace.steps],
        "violation": violation,
    }


def dump(data: Any) -> str:
    """JSON text, indented, in ASCII, with a final newline: it has the same meaning in every locale."""
    return json.dumps(data, indent=2) + "\n"


def story_from(text: str) -> tuple[Config, tuple[Event, ...]]:
    """Parse the configuration and events of a trace's JSON. Raises UsageError on anything else."""
    try:
        data = json.loads(text)
        config = config_from(data["config"])
        events = tuple(Event(str(e["event"]), int(e["cpu"]), int(e.get("arg", -1))) for e in data["events"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"not a trace as --format json writes it: {error!r}") from error
    return config, events
