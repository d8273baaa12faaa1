# SPDX-License-Identifier: MIT
"""Hosts, events and verdicts come back from JSON as they were."""

from __future__ import annotations

import json

import pytest
from vmms import VLS, guest, restore, save, vcpu_of

import kvmabi
from kvmabi.events import Event
from kvmabi.profiles import host_names, load_host
from kvmabi.profiles.host import from_json
from kvmabi.testing import records


@pytest.mark.parametrize("name", host_names())
def test_every_host(name: str) -> None:
    """All fields, negative capabilities and measured bits included."""
    host = load_host(name)
    again = from_json(name, json.loads(json.dumps(records.host_data(host))))
    assert (again, again.cpu_keeps) == (host, host.cpu_keeps)


def test_every_event_and_the_verdict() -> None:
    """With refusals, payloads, effects, a pair, findings with and without values, and vCPUs that were not judged."""
    with kvmabi.open() as kvm:
        saved = save(guest(kvm.create_vm(), 3))
        target = vcpu_of(kvm.create_vm())
        restore(target, saved, [name for name in saved if name not in VLS])
        restore(target, saved, VLS)
        verdict = kvm.verdict()
        events = list(kvm.log.events)
    assert verdict.findings
    assert verdict.judged
    assert verdict.not_judged
    assert str(records.verdict_of(json.loads(json.dumps(verdict.as_dict())))) == str(verdict)
    again = [records.event_of(json.loads(json.dumps(records.event_data(event)))) for event in events]
    assert list(map(_all, again)) == list(map(_all, events))
    assert any(event.effects for event in again)
    assert any(event.errno for event in again)


def _all(event: Event) -> tuple[object, ...]:
    names = ("number", "kind", "what", "vm", "vcpu", "svcr", "errno", "reason", "hint", "register", "data", "effects")
    return (*(getattr(event, name) for name in names), str(event.mode), str(event))
