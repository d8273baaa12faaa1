# SPDX-License-Identifier: MIT
"""Hosts, events and verdicts as data for JSON and back, for the process that serves a test's VMM."""

from __future__ import annotations

import errno
from typing import Any

from kvmabi import gicnames
from kvmabi.events import PSEUDO_REGISTERS, Event, Kind, Origin
from kvmabi.model.effects import Effect
from kvmabi.model.refusal import Refusal
from kvmabi.order import Finding, Loss, NotJudged, Pair, Verdict
from kvmabi.order.controllers import id_of
from kvmabi.profiles import Host

Data = dict[str, Any]
PSEUDO_IDS = {name: id for id, name in PSEUDO_REGISTERS.items()}


def host_data(host: Host) -> Data:
    """A host in the form of a capture, which ``kvmabi.profiles.host.from_json`` reads."""
    data: Data = {
        "name": host.name,
        "kernel_profile": host.kernel,
        "recorded_from": host.recorded,
        "sve_vector_bits": list(host.sve_vector_bits),
        "sme_vector_bits": list(host.sme_vector_bits),
        "capabilities": {
            "system": _answers(host.capabilities_system),
            "vm": _answers(host.capabilities_vm),
        },
        "registers": {f"{id:#x}": value.to_bytes(8, "little").hex() for id, value in host.registers.items()},
        "cpu_profile": host.cpu,
        "counter_hz": host.counter_hz,
    }
    if host.measured_keeps is not None:
        data["cpu_keeps"] = {f"{id:#x}": mask for id, mask in host.measured_keeps.items()}
    return data


def event_data(event: Event) -> Data:
    """An event; its ``registers`` are those of a moment and stay behind."""
    return {
        "number": event.number,
        "kind": event.kind.value,
        "what": event.what,
        "vm": event.vm,
        "vcpu": event.vcpu,
        "mode": str(event.mode),
        "svcr": event.svcr,
        "errno": event.errno,
        "reason": event.reason,
        "hint": event.hint,
        "modelled": event.modelled,
        "register": event.register,
        "data": _hex(event.data),
        "effects": [[effect.id, effect.before.hex(), effect.after.hex()] for effect in event.effects],
    }


def event_of(data: Data) -> Event:
    """The event that ``event_data`` was given."""
    effects = tuple(Effect(id, bytes.fromhex(before), bytes.fromhex(after)) for id, before, after in data["effects"])
    return Event(
        data["number"],
        Kind(data["kind"]),
        data["what"],
        data["vm"],
        data["vcpu"],
        data["mode"],
        data["svcr"],
        Refusal(data["errno"], data["reason"], data["hint"], data["modelled"]),
        data["register"],
        _bytes(data["data"]),
        effects,
    )


def verdict_of(data: Data) -> Verdict:
    """The verdict whose ``as_dict`` the data is."""
    return Verdict(
        events=data["events"],
        findings=tuple(map(_finding, data["findings"])),
        judged=tuple(map(_pair, data["judged"])),
        not_judged=tuple(NotJudged(**vcpu) for vcpu in data["not_judged"]),
    )


def _pair(data: Data) -> Pair:
    return Pair(**data | {"edited": tuple(data["edited"])})


def _finding(data: Data) -> Finding:
    return Finding(
        cause=data["cause"],
        vm=data["vm"],
        vcpu=data["vcpu"],
        losses=tuple(map(_loss, data["registers"])),
        pair=None if data["pair"] is None else _pair(data["pair"]),
        lines=tuple(data["events"]),
        notes=tuple(data["notes"]),
        origins=tuple((origin["what"], _origin(origin)) for origin in data["origins"]),
    )


def _origin(data: Data) -> Origin:
    origin, frames = Origin(), tuple(data["frames"])
    origin.fill(data["process"], data["thread"], data["thread_name"], lambda: frames)
    return origin


def _id_by_name(name: str) -> int:
    """The ID of what is not a register: a vCPU's other state, or a register of an interrupt controller."""
    return PSEUDO_IDS[name] if name in PSEUDO_IDS else id_of(gicnames.parse(name))


def _loss(data: Data) -> Loss:
    return Loss(
        name=data["name"],
        id=int(data["id"], 16) if data["id"] else _id_by_name(data["name"]),
        events=tuple(data["events"]),
        why=data["why"],
        saved=_bytes(data["saved"]),
        written=_bytes(data["written"]),
        left=_bytes(data["left"]),
        consequence=data["consequence"],
    )


def _answers(capabilities: dict[int, int]) -> dict[str, int | str]:
    return {str(n): value if value >= 0 else f"-{errno.errorcode[-value]}" for n, value in capabilities.items()}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
