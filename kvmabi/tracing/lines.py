# SPDX-License-Identifier: MIT
"""An event as a line of text, and as data for a line of JSON.

The text follows strace: who, what, its argument, an arrow and the answer, and in parentheses what else there is::

    vm1/vcpu0 SET_ONE_REG svcr = SM|ZA -> 0  (zeroed z0-31 p0-15 ffr)
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from kvmabi import regid
from kvmabi.detail import Opened
from kvmabi.errors import NOT_MODELLED
from kvmabi.events import Event, Kind
from kvmabi.tracing.decoding import Decoder, Value, exit_of, register_text

SHORT, STRUCT_SHORT = 60, 160
"""The most characters of a register's value and of a struct, unless all are wanted."""
CUT = "…"
KVM = "KVM_"
RUN = "KVM_RUN"


class Lines:
    """Makes lines of events on a kernel, given its ``features`` by bit. ``full``: long values are not shortened."""

    def __init__(self, features: Mapping[int, str], *, full: bool = False) -> None:
        self._decoder = Decoder(features)
        self._full = full

    def text(self, event: Event) -> str:
        """The event in one line."""
        if event.kind is not Kind.IOCTL:
            return f"{place(event)} {_happening(event)}"
        parts = [place(event), event.what.removeprefix(KVM), *self._argument(event), "->", _answer(event)]
        remarks = "; ".join(self._remarks(event))
        return " ".join(parts) + (f"  ({remarks})" if remarks else "")

    def data(self, event: Event) -> dict[str, Any]:
        """The event as data: see docs/reference/schemas/trace.schema.json."""
        detail = event.detail
        found: dict[str, Any] = {
            "number": event.number,
            "kind": event.kind.value,
            "vm": event.vm,
            "vcpu": event.vcpu,
            "device": None if detail is None else detail.device,
            "what": event.what,
        }
        if event.kind is Kind.IOCTL:
            argument = None if detail is None else self._decoder.argument(event.what, detail)
            found |= {
                "argument": None if event.register is not None else argument,
                "register": None if event.register is None else _register(event.register, _data(event)),
                "result": None if detail is None else detail.result,
                "errno": errno.errorcode.get(event.errno, str(event.errno)) if event.errno else None,
                "opened": None if detail is None or detail.opened is None else _opened(detail.opened),
                "exit": None if detail is None or not detail.run else _exit(detail.run),
                "effects": [
                    {"register": regid.name_of(id), "before": before.hex(), "after": after.hex()}
                    for id, before, after in event.effects
                ],
            }
        return found | {"reason": event.reason, "hint": event.hint, "modelled": event.modelled}

    def _argument(self, event: Event) -> list[str]:
        if event.register is not None:
            name, data = regid.name_of(event.register), _data(event)
            if not data:
                return [name]
            text = self._shortened(register_text(event.register, data))
            return [name, "=", f"{text}({len(data)} bytes)" if text.endswith(CUT) else text]
        if event.detail is None:
            return []
        argument = self._decoder.argument(event.what, event.detail)
        return [] if argument is None else [self._shortened(_flat(argument), STRUCT_SHORT)]

    def _remarks(self, event: Event) -> list[str]:
        found = [] if event.modelled else [NOT_MODELLED]
        if event.detail is not None and event.detail.run and event.what == RUN:
            name, details = exit_of(event.detail.run)
            found.append(f"exit {name}{' ' + _flat(details) if details else ''}")
        if event.errno or not event.modelled:
            found += [": ".join(filter(None, (event.reason, event.hint)))]
        changed = event.effects
        if changed:
            names = regid.ranges(regid.name_of(effect.id) for effect in changed)
            found.append(f"{'changed' if any(any(effect.after) for effect in changed) else 'zeroed'} {names}")
        return found

    def _shortened(self, text: str, most: int = SHORT) -> str:
        return text if self._full or len(text) <= most else text[: most - 1] + CUT


def place(event: Event) -> str:
    """Whom an event concerns: "kvm", "vm1", "vm1/vcpu0" or "vm1/dev0"."""
    if event.vm is None:
        return "kvm"
    if event.vcpu is not None:
        return f"vm{event.vm}/vcpu{event.vcpu}"
    device = None if event.detail is None else event.detail.device
    return f"vm{event.vm}" if device is None else f"vm{event.vm}/dev{device}"


def _happening(event: Event) -> str:
    """What an event reports that is not an ioctl."""
    if event.kind is Kind.MARK:
        label = int.from_bytes(event.data or b"", "little")
        return f"--- declared {event.what}: save {label}{': ' + event.reason if event.reason else ''} ---"
    if event.kind is Kind.WARNING:
        return f"--- warning: {event.reason} ---"
    return f"+++ {event.kind.value} +++"


def _answer(event: Event) -> str:
    if event.errno:
        return errno.errorcode.get(event.errno, str(event.errno))
    detail = event.detail
    if detail is None:
        return "0"
    opened = detail.opened
    if opened is None:
        return str(detail.result)
    return "a file" if opened.kind == "plain" else f"{'dev' if opened.kind == 'device' else opened.kind}{opened.number}"


def _flat(value: Value) -> str:
    """A value in braces and brackets."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_flat, value))}]"
    return "{" + ", ".join(f"{name}={_flat(part)}" for name, part in value.items()) + "}"


def _data(event: Event) -> bytes | None:
    """The register's bytes, also of a set that failed before the kernel read them."""
    offered = b"" if event.detail is None else event.detail.offered
    return offered or None if event.data is None else event.data


def _register(id: int, data: bytes | None) -> dict[str, Any]:
    return {
        "id": f"{id:#018x}",
        "name": regid.name_of(id),
        "data": None if data is None else data.hex(),
        "value": None if data is None else register_text(id, data),
    }


def _opened(opened: Opened) -> dict[str, Any]:
    return {"kind": opened.kind, "number": None if opened.kind == "plain" else opened.number}


def _exit(run: bytes) -> dict[str, Any]:
    name, details = exit_of(run)
    return {"reason": name, "details": details}
