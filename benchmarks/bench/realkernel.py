# SPDX-License-Identifier: MIT
"""The same figures of a real arm64 kernel in QEMU's TCG, or the recorded ones."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import fastpath

from bench.rows import BOOT, RECORDED
from bench.sides import COUNTED, microseconds, reason
from bench.table import Real
from kvmabi.errors import UsageError
from kvmabi.steps.vm.compiler import compiler
from kvmabi.steps.vm.initramfs import initramfs
from kvmabi.steps.vm.qemu import QEMU, Guest, check, version

RECORDED_KERNEL = Real("a minimal kernel with SME in QEMU 11's TCG, a save of 543 registers", RECORDED, recorded=True)


def measured(image: str) -> Real:
    """Boots an arm64 kernel image and has it run fastpath.c. Errors: UsageError if something is missing."""
    check(image, QEMU)
    with tempfile.TemporaryDirectory() as folder:
        try:
            program = fastpath.compiled(Path(folder), compiler(), "-static", source="bench/guest.c")
        except subprocess.CalledProcessError as error:
            raise UsageError(reason(error)) from None
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
    counts = [counted[2] for counted in map(COUNTED.match, nanoseconds) if counted]
    saved = f", a save of {counts[0]} registers" if counts else ""
    figures = {COUNTED.sub(r"\1", figure): taken for figure, taken in microseconds(nanoseconds).items()}
    return Real(name + saved, figures | {BOOT: booted_seconds * 1e6}, recorded=False)
