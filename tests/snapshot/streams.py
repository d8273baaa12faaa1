# SPDX-License-Identifier: MIT
"""System registers of real KVM guests, as QEMU's streams hold them, and small snapshots made by hand."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path

from kvmabi import regid
from kvmabi.model.row import size_of
from kvmabi.snapshot.snapshot import Origin, Snapshot, VcpuSnapshot

FILE = Path(__file__).parent / "data/kvm-streams.json.xz"


@cache
def _streams() -> dict[str, dict[str, str]]:
    streams: dict[str, dict[str, str]] = json.loads(lzma.decompress(FILE.read_bytes()))
    return streams


def stream(name: str) -> Snapshot:
    """The system registers of a guest under Linux 6.1, 6.12 or 7.2 on one machine, or on a Cortex-A57."""
    values = {int(id, 16): int(value, 16) for id, value in _streams()[name].items()}
    registers = {id: value.to_bytes(8, "little")[: size_of(id)] for id, value in values.items()}
    return Snapshot("qemu", [VcpuSnapshot(0, registers)], Origin.KVM)


def snapshot(*vcpus: dict[str, int], origin: Origin = Origin.KVM) -> Snapshot:
    """A snapshot of vCPUs whose registers are given by name and number."""
    registers = [
        {regid.parse(name): value.to_bytes(size_of(regid.parse(name)), "little") for name, value in vcpu.items()}
        for vcpu in vcpus
    ]
    return Snapshot("text", [VcpuSnapshot(n, values) for n, values in enumerate(registers)], origin)
