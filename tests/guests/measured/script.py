# SPDX-License-Identifier: MIT
"""The guest of exits.c as a script: what code.S does, each access and call at the address of its instruction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvmabi.guests import Brk, Cpu, Hypercall, Mmio, Wfi

RAM, DEVICE = 0x40000000, 0x9000000
FIRST = (
    *(0x4, 0x8, 0xC, 0x10, 0x14, 0x20, 0x2C, 0x30, 0x38, 0x3C, 0x50, 0x54),
    *(0x70, 0x74, 0x90, 0x94, 0xA4, 0xA8, 0xBC, 0xC0, 0xCC, 0xD0, 0xDC, 0xE0),
    *(0xE8, 0xEC, 0xF4, 0xF8, 0x10C, 0x110, 0x124, 0x128, 0x13C, 0x140, 0x150, 0x154),
    *(0x160, 0x164, 0x178, 0x17C, 0x18C, 0x190, 0x194, 0x198, 0x19C, 0x1A0, 0x1A4, 0x1B0),
    *(0x1B4, 0x1C0, 0x1C4, 0x1D4, 0x1D8),
)
SECOND = (0x1004, 0x1008, 0x1014, 0x1018, 0x1028, 0x102C)
"""Where the instructions stand that can leave the guest."""


class Instructions:
    """Puts the PC at the next of those instructions."""

    def __init__(self, cpu: Cpu, places: tuple[int, ...]) -> None:
        self._cpu = cpu
        self._places = iter(places)

    def at(self, action: Any) -> Any:
        """The action, which the next instruction is."""
        self._cpu.pc = RAM + next(self._places)
        return action


def guest(cpu: Cpu) -> Iterator[Any]:
    """The first vCPU, and the second one when it is switched on."""
    yield from first(cpu, Instructions(cpu, FIRST)) if cpu.index == 0 else second(cpu, Instructions(cpu, SECOND))


def first(cpu: Cpu, code: Instructions) -> Iterator[Any]:
    """Accesses, calls, a wait, a breakpoint, and three ends."""
    yield code.at(Mmio(DEVICE, 4, register=2))
    yield code.at(Mmio(DEVICE + 8, 1, cpu.x[2] & 0xFF))
    yield code.at(Mmio(DEVICE + 2, 2, register=4))
    yield code.at(Mmio(DEVICE + 24, 8, cpu.x[2]))
    yield code.at(Mmio(DEVICE + 32, 8, register=6))
    yield code.at(Mmio(RAM + 0x3000, 4, cpu.x[2]))
    yield code.at(Mmio(RAM + 0x18000, 4, register=8))
    yield code.at(Mmio(RAM + 0x18000, 4, cpu.x[8]))
    version = yield code.at(Hypercall(0x84000000))
    yield code.at(Mmio(DEVICE + 40, 4, version))
    for call in CALLS:
        yield from _called(code, call)
    yield code.at(Wfi())
    yield code.at(Mmio(DEVICE + 48, 4, cpu.x[2]))
    yield code.at(Brk(1))
    yield code.at(Mmio(DEVICE + 56, 4, cpu.x[2]))
    yield code.at(Mmio(DEVICE + 64, 4, cpu.x[2]))
    for call in ENDS:
        yield from _called(code, call)


def second(cpu: Cpu, code: Instructions) -> Iterator[Any]:
    """What CPU_ON left in X0 and X5, CPU_OFF, CPU_SUSPEND."""
    yield code.at(Mmio(DEVICE + 72, 8, cpu.x[0]))
    yield code.at(Mmio(DEVICE + 72, 8, cpu.x[5]))
    for call in (Hypercall(0x84000002), Hypercall(0xC4000001, (0,))):
        x0 = yield code.at(call)
        yield code.at(Mmio(DEVICE + 72, 8, x0))


def _called(code: Instructions, call: Hypercall) -> Iterator[Any]:
    x0 = yield code.at(call)
    yield code.at(Mmio(DEVICE + 40, 8, x0))


CALLS = (
    Hypercall(0xC4000004, (1, 0)),
    Hypercall(0xC4000003, (5, 0x40001000, 77)),
    Hypercall(0xC4000003, (1, 0x40001000, 77)),
    Hypercall(0xC4000003, (1,)),
    Hypercall(0x86000001, (11, 12)),
    Hypercall(0x86000001, smc=True),
    Hypercall(0x86000101),
    Hypercall(0x84000000, smc=True),
    Hypercall(0x80000000),
    Hypercall(0xC400000E, (0x9000, 5)),
    Hypercall(0x8400000A, (0xC400000E,)),
    Hypercall(0x8400000A, (0xC4000015,)),
    Hypercall(0x8400000A, (0x80000000,)),
    Hypercall(0x84000006),
    Hypercall(0xC4000004, (0, 4)),
    Hypercall(0xC4000012, (1,)),
)
ENDS = (Hypercall(0x84000008), Hypercall(0x84000009), Hypercall(0xC4000012, (0,)))
