# SPDX-License-Identifier: MIT
"""The same figures of a real arm64 kernel in QEMU's TCG, or the recorded ones."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import fastpath

from bench.rows import BOOT, COUNTED, RECORDED
from bench.sides import explained, microseconds
from bench.table import Real
from kvmabi.errors import UsageError
from kvmabi.steps.vm.compiler import compiler
from kvmabi.steps.vm.initramfs import initramfs
from kvmabi.steps.vm.qemu import QEMU, Guest, check, version

RECORDED_KERNEL = Real("a minimal kernel with SME in QEMU 11's TCG", RECORDED, recorded=True, registers=543)


def measured(image: str) -> Real:
    """Boots an arm64 kernel image and has it run fastpath.c. Errors: UsageError if something is missing."""
    check(image, QEMU)
    with tempfile.TemporaryDirectory() as folder:
        with explained():
            program = fastpath.compiled(Path(folder), compiler(), "-static", source="bench/guest.c")
        archive = initramfs(program.read_bytes())
    start = time.perf_counter()
    guest = Guest(image, archive)
    booted = time.perf_counter() - start
    try:
        [answer] = guest.ask(["figures"])
    finally:
        guest.close()
    return real(answer, f"Linux {guest.release} in {version(QEMU)}", booted)


def real(answer: str, name: str, booted_seconds: float) -> Real:
    """The figures that a guest answered, and how long it took to boot."""
    nanoseconds = fastpath.parsed("\n".join(part for part in answer.split(";") if "|" in part))
    if not nanoseconds:
        raise UsageError(f"{name} gave no figures: {answer.strip(';')[:200]}")
    counts = [int(counted[2]) for counted in map(COUNTED.match, nanoseconds) if counted]
    figures = {COUNTED.sub(r"\1", figure): taken for figure, taken in microseconds(nanoseconds).items()}
    return Real(name, figures | {BOOT: booted_seconds * 1e6}, recorded=False, registers=max(counts, default=0))
