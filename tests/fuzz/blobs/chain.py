# SPDX-License-Identifier: MIT
"""All that is done with a blob, from its bytes to a plan and back: what a damaged one must not break."""

from __future__ import annotations

import io
from functools import cache
from typing import BinaryIO, cast

from snapshot.qemu_samples import Pipe

from kvmabi.errors import UsageError
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import json_, own, text
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.source import BadBlob
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

HOSTS = ("sme-demo", "neoverse-v1")
REFUSED, NOT_WRITTEN, READ = "refused", "read, not written", "read"


@cache
def targets() -> tuple[Target | None, ...]:
    """Without a target, and with some."""
    return None, *(Target.of(host=host) for host in HOSTS)


def run(blob: bytes, *, piped: bool = False, thorough: bool = False) -> str:
    """How it ends: refused, read, or read but not writable. Any error is one of kvmabi.

    ``piped``: the blob cannot be seeked. ``thorough``: every target, and JSON and text as well.
    """
    try:
        stream = cast(BinaryIO, (Pipe if piped else io.BytesIO)(blob))
        snapshot = opening.read_stream(stream, "blob")
    except (BadBlob, UsageError):
        return REFUSED
    for target in targets() if thorough else targets()[:2]:
        report = validate(snapshot, target)
        report.as_dict()
        if thorough:
            str(report)
    for vcpu in snapshot.vcpus:
        assert set(vcpu.places) <= set(vcpu.registers)
        assert sum(step.id is not None for step in vcpu.plan.steps()) == len(vcpu.registers)
    if thorough:
        _same(snapshot, json_.write(snapshot).encode(), thorough=True)
        as_text = text.write(snapshot).encode()
        if any(vcpu.registers for vcpu in snapshot.vcpus):
            opening.read_bytes(as_text)
    try:
        written = own.write(snapshot)
    except UsageError:
        return NOT_WRITTEN
    _same(snapshot, written, thorough=thorough)
    return READ


def _same(snapshot: Snapshot, written: bytes, *, thorough: bool) -> None:
    """What was written is read as the same snapshot; ``thorough``: to the last fact."""
    try:
        again = opening.read_bytes(written)
    except BadBlob:
        assert not snapshot.vcpus or any(not vcpu.registers for vcpu in snapshot.vcpus)
        return
    assert _essence(again) == _essence(snapshot)
    if thorough:
        ignored = {"format": None, "problems": None}
        assert json_.document(again) | ignored == json_.document(snapshot) | ignored


def _essence(snapshot: Snapshot) -> tuple[object, ...]:
    vcpus = [(each.index, each.mp_state, each.serror, list(each.registers.items())) for each in snapshot.vcpus]
    return vcpus, snapshot.features, snapshot.sve_bits, snapshot.sme_bits, snapshot.unknown, snapshot.origin
