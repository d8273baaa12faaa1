# SPDX-License-Identifier: MIT
"""Steps about the registers of an ITS and of the GIC's CPU interfaces that are recorded."""

from __future__ import annotations

from collections.abc import Iterator

from golden.its_scripts import INIT, PLACES
from kvmabi.fuzz.its import VALID
from kvmabi.gicnames import CPU_REGISTERS

ALL_BITS = (1 << 64) - 1
OFFSETS = (0, 4, 8, 0xC, 0x10, 0x80, 0x84, 0x88, 0x90, 0x94, 0x100, 0x104, 0x108, 0x110, 0x118, 0x138, 0x140)
IDS = (0xFFB0, *range(0xFFD0, 0x10000, 4), 0x10000, 0x20000, 1 << 32, ALL_BITS)
OF_EL1 = {name: encoding for name, encoding in CPU_REGISTERS.items() if name.endswith("_el1")}
CPU = {name: f"{encoding:x}" for name, encoding in OF_EL1.items()}
"""The registers that a vCPU without EL2 has."""


def registers() -> Iterator[list[str]]:
    """Every register: presence, values, what a write of bits keeps; order of address, enabling, reset."""
    alone = ["N 1", "D 8 0"]
    based = [*alone, "o d0 0 4 8080000"]
    yield [*alone, *(f"h d0 8 {offset:x} 0" for offset in (*OFFSETS, *IDS, 1, 2, 6, 0x44, 0x98))]
    yield [*alone, "q d0 8 0 0", "q d0 8 0 -", "q d0 8 2 0", "q d0 8 10 0", "o d0 8 10 0", "o d0 8 10 -", "o d0 8 2 -"]
    yield [*based, *(f"q d0 8 {offset:x} 0" for offset in (*OFFSETS, *IDS)), "q d0 8 0 -", "o d0 8 0 -", "h d0 8 0 -"]
    for value in (ALL_BITS, 0):
        yield [*based, *(f"{op} d0 8 {o:x} {value:x}" for o in (*OFFSETS, *IDS[1:6]) for op in "oq")]
    for offset in (0x80, 0x88, 0x90, 0x100, 0x108):
        yield [*based, *(f"{op} d0 8 {offset:x} {1 << bit:x}" for bit in range(64) for op in "oq")]
    yield [*based, *(f"{op} d0 8 4 {v:x}" for v in (0x1000, 0x43B, 0xF000, 0x143B, 0x4B00043B, 1) for op in "oq")]
    for cbaser in (VALID, VALID | 0xFF, VALID | 0x10001):
        values = (0x20, 0xFE0, 0xFFF, 0x1000, 0x1FE0, 0x2000, 0xFFFE0, 0x100000, 0xFFFFFFFF, 0x1F)
        moves = [f"{op} d0 8 {o:x} {v:x}" for o in (0x88, 0x90) for v in values for op in "oq"]
        yield [*based, f"o d0 8 80 {cbaser:x}", *moves, "o d0 8 80 0", "q d0 8 88 0", "q d0 8 90 0"]
    enabling = [f"{op} d0 8 {o:x} {v:x}" for o in (0x80, 0x100, 0x108) for v in (VALID,) for op in "oq"]
    tries = [
        step for written in range(0, 6, 2) for step in (*enabling[written : written + 2], "o d0 8 0 1", "q d0 8 0 0")
    ]
    locked = [
        f"{op} d0 8 {o:x} {v:x}"
        for o, v in ((0x100, 0), (0x108, 0), (0x80, 0), (0x90, 0x40), (4, 0x43B))
        for op in "oq"
    ]
    yield [*based, *tries, *locked, "o d0 4 4 0", *(f"q d0 8 {offset:x} 0" for offset in OFFSETS), "q d0 0 4 0"]
    yield [*alone, "o d0 4 4 0", "o d0 4 1 0", "o d0 4 2 0", "o d0 4 4 -", "h d0 6 0 0", "h d0 9 0 0", "o d0 5 0 0"]
    yield [
        "N 1",
        "D 8 0",
        "D 8 0",
        "o d0 0 4 8080000",
        "o d1 0 4 8080000",
        "o d1 0 4 80a0000",
        "q d0 8 0 0",
        "q d1 8 0 0",
    ]
    for vcpus in (1, 2, 4):
        yield [f"N {vcpus}", "D 8 0", "o d0 0 4 8080000", "q d0 8 8 0", "V 9", "q d0 8 8 0"]


def cpu_interfaces() -> Iterator[list[str]]:
    """Every ICC register: presence, values, bits that are kept; affinities; initialisation; a run."""
    ready = ["N 1", "I 0 5 0", "D 7 0", INIT]
    near = [number + offset for number in OF_EL1.values() for offset in (-1, 0, 1)]
    yield ["N 1", "D 7 0", *(f"h d0 6 {number:x} 0" for number in (*near, 0, 0x8000, 0xFFFF, 0x1C230))]
    early = [f"{op} d0 6 {number} {value}" for number in (CPU["icc_pmr_el1"], "c000") for op in "qoh" for value in "0-"]
    yield ["N 1", "D 7 0", *early, INIT, *early]
    for name, number in CPU.items():
        bits = [f"{op} d0 6 {number} {1 << bit:x}" for bit in (*range(17), 31, 32, 63) for op in "oq"]
        ends = [f"{op} d0 6 {number} {value}" for value in (f"{ALL_BITS:x}", "0", "-") for op in "oq"]
        yield [
            *ready,
            f"q d0 6 {number} 0",
            *bits,
            *ends,
            f"h d0 6 {number} 0",
            name and f"q d0 6 {CPU['icc_ctlr_el1']} 0",
        ]
    ctlr, bpr0, bpr1 = (CPU[f"icc_{name}_el1"] for name in ("ctlr", "bpr0", "bpr1"))
    modes = (0x8C03, 0x8403, 0x8402, 0x8C02, 0x8800, 0x8400, 0x8000, 0xC000, 0x8700, 0xFFFF8C00)
    yield [
        *ready,
        *(step for mode in modes for step in (f"o d0 6 {ctlr} {mode:x}", f"q d0 6 {ctlr} 0", f"q d0 6 {bpr1} 0")),
    ]
    points = [f"{op} d0 6 {number} {value}" for number in (bpr0, bpr1) for value in range(8) for op in "oq"]
    yield [
        *ready,
        *points,
        f"o d0 6 {ctlr} 8401",
        *points,
        f"q d0 6 {bpr1} 0",
        f"o d0 6 {ctlr} 8400",
        f"q d0 6 {bpr1} 0",
    ]
    affinities = (0, 1, 2, 3, 4, 0x100, 0x10000, 0x1000000, 0x80000000, 0xFFFFFFFF)
    pmrs = [f"{op} d0 6 {affinity << 32 | 0xC230:x} {7 + affinity:x}" for affinity in affinities for op in "hoq"]
    yield ["N 4", *(f"I {vcpu} 5 0" for vcpu in range(4)), "D 7 0", INIT, *pmrs, "I 1 5 0", *pmrs[3:6]]
    yield ["N 2", "D 7 0", INIT, "I 1 5 0", *pmrs]
    yield ["N 1", "V 200", "I 1 5 0", "D 7 0", INIT, *(f"q d0 6 {a << 32 | 0xC230:x} 0" for a in (0, 0x8, 0xC8, 0xC08))]
    reads = [f"q d0 6 {number} 0" for number in CPU.values()]
    writes = [
        f"o d0 6 {number} {value}"
        for number, value in ((bpr0, 1), (bpr1, 0), (CPU["icc_pmr_el1"], "ff"), (ctlr, "8403"))
    ]
    yield [*ready, *PLACES, *writes, "R 0", *reads, "I 0 5 0", *reads, *writes[:2], "R 0", *reads]
    yield [*ready, *PLACES, "R 0", *reads, f"o d0 6 {bpr0} 6", f"o d0 6 {bpr1} 7", "R 0", *reads]
