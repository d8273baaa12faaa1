# SPDX-License-Identifier: MIT
"""How costs grow: with the number of vCPUs, time and memory; with the number of registers, the time of a save."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

import fastpath

from bench.rows import COUNTED
from kvmabi.model.state import SIZE_BYTES

VCPUS = (1, 64, 128, 256, 512)
WAY = "reports off"
"""Growth is measured without reports: a verdict compares every save with every restore."""
MEMORY = "memory of kvmabi and the program, kB"
"""What fastpath.c calls the memory; the figure itself is in bytes."""
TARGET_SECONDS = 3.0
TARGET_MEMORY = 1.3
"""The most that vCPUs may take of memory, in multiples of their register files."""


class Fleet(NamedTuple):
    """vCPUs with SVE and SME at 2048 bits, created, finalised, saved and restored.

    ``memory_bytes`` is that of kvmabi and of the program, at the end; what they share counts once.
    """

    vcpus: int
    seconds: float
    memory_bytes: int


class Saved(NamedTuple):
    """A save of all registers of a vCPU."""

    registers: int
    microseconds: float


class Growth(NamedTuple):
    """The points of both curves, medians of the rounds."""

    fleets: list[Fleet]
    saves: list[Saved]

    @property
    def memory_ratio(self) -> float:
        """Memory of a vCPU more, in multiples of its register file."""
        first, last = self.fleets[0], self.fleets[-1]
        return (last.memory_bytes - first.memory_bytes) / ((last.vcpus - first.vcpus) * SIZE_BYTES)


def measure(folder: Path, rounds: int) -> Growth:
    """Both curves."""
    program, host = fastpath.compiled(folder), fastpath.host(folder)
    fleets = []
    for count in VCPUS:
        found = [fleet(program, host, count) for _ in range(rounds)]
        seconds = statistics.median(one.seconds for one in found)
        fleets.append(Fleet(count, seconds, int(statistics.median(one.memory_bytes for one in found))))
    saves = []
    for bits in fastpath.LENGTHS:
        points = [save(program, fastpath.host(folder, bits)) for _ in range(rounds)]
        saves.append(Saved(points[0].registers, statistics.median(one.microseconds for one in points)))
    return Growth(fleets, saves)


def fleet(program: Path, host: Path, count: int) -> Fleet:
    """One run with ``count`` vCPUs."""
    figures = fastpath.figures(program, host, WAY, str(count))
    memory = figures.pop(MEMORY)
    return Fleet(count, max(figures.values()) / 1e9, int(memory))


def save(program: Path, host: Path) -> Saved:
    """A save of a vCPU with the host's longest vectors."""
    for name, nanoseconds in fastpath.figures(program, host, WAY).items():
        if (counted := COUNTED.match(name)) and counted[1] == "save":
            return Saved(int(counted[2]), nanoseconds / 1e3)
    raise AssertionError("fastpath.c prints no save")
