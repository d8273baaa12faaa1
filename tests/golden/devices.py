# SPDX-License-Identifier: MIT
"""Playing what was recorded about devices (record_devices.py) and the registers of a vGIC (record_vgic.py)."""

from __future__ import annotations

from golden import packs
from kvmabi.profiles import Kernel
from kvmabi.steps.backends.model import ModelBackend


def differences(kernel: Kernel, name: str, pack: str = "devices") -> tuple[int, list[str]]:
    """Do a recording's steps under a kernel: how many, and those with another answer."""
    with open(packs.path(pack, name), encoding="utf-8") as lines:
        recorded = [line.rstrip("\n").split("\t") for line in lines]
    host = packs.path("devices", f"{name.removesuffix('.steps')}.json")
    backend = ModelBackend(host, kernel)
    answers = backend.answers(step for step, _ in recorded)
    backend.close()
    return len(recorded), [
        f"{name}:{number}: {step}: expected {wanted!r}, got {answer!r}"
        for number, ((step, wanted), answer) in enumerate(zip(recorded, answers, strict=True), 1)
        if wanted != answer
    ]
