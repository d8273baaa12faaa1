# SPDX-License-Identifier: MIT
"""Steps about an ITS and the GIC's CPU interfaces that are recorded: a VMM's, and its mistakes.

The vGIC is d0 and the ITS d1. The memory begins at 0x40000000, with the places of kvmabi.fuzz.its.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi import hexruns, uapi
from kvmabi.fuzz.its import COLLECTIONS, DEVICES, EVENTS, GUEST, LEVEL_2, PENDING, PROPERTIES, SIZE_BYTES, VALID
from kvmabi.gicnames import CPU_REGISTERS

Command = tuple[int, int, int, int]
REGION, MESSAGE, LOG = (
    f"{request:x}" for request in (uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SIGNAL_MSI, uapi.KVM_GET_DIRTY_LOG)
)
PLACES, INIT, ITS_BASE = ["o d0 0 2 8000000", "o d0 0 3 80a0000"], "o d0 4 0 0", "o d1 0 4 8080000"
SAVE, RESTORE, RESET, SAVE_PENDING = "o d1 4 1 0", "o d1 4 2 0", "o d1 4 4 0", "o d0 4 3 0"
INDIRECT = 1 << 62
ALL_BITS = (1 << 64) - 1
OFFSETS = (0, 4, 8, 0xC, 0x10, 0x80, 0x84, 0x88, 0x90, 0x94, 0x100, 0x104, 0x108, 0x110, 0x118, 0x138, 0x140)
IDS = (0xFFB0, *range(0xFFD0, 0x10000, 4), 0x10000, 0x20000, 1 << 32, ALL_BITS)
CPU = {name: f"{encoding:x}" for name, encoding in CPU_REGISTERS.items()}
LOOK = [f"r {place:x} 64" for place in (DEVICES, COLLECTIONS, EVENTS)]
CLEAN = [f"m {place:x} 00*64." for place in (DEVICES, COLLECTIONS, EVENTS)]


def vm(vcpus: int = 1, *, memory: bool = True, base: bool = True, init: bool = True) -> list[str]:
    """A VM with a vGIC, an ITS and memory for its tables."""
    steps = [f"N {vcpus}", *(f"I {vcpu} 5 0" for vcpu in range(vcpus)), *([slot()] if memory else ()), "D 7 0", "D 8 0"]
    return steps + PLACES + ([ITS_BASE] if base else []) + ([INIT, "o d1 4 0 0"] if init else [])


def slot(size: int = SIZE_BYTES, flags: int = 0, user: str = "@m") -> str:
    """A memory slot."""
    numbers = b"".join(
        (number.to_bytes(size, "little") for number, size in ((0, 4), (flags, 4), (GUEST, 8), (size, 8)))
    )
    return f"Y v {REGION} {numbers.hex()}{user}"


def lpis(vcpus: int = 1, *, enable: bool = True) -> list[str]:
    """The redistributors' registers for LPIs."""
    steps = [f"o d0 5 70 {GUEST + PROPERTIES | 15:x}"]
    for vcpu in range(vcpus):
        steps.append(f"o d0 5 {vcpu << 32 | 0x78:x} {GUEST + PENDING + 0x10000 * vcpu:x}")
        steps += [f"o d0 5 {vcpu << 32:x} 1"] if enable else []
    return steps


def bases(devices: int = VALID | GUEST + DEVICES, collections: int = VALID | GUEST + COLLECTIONS) -> list[str]:
    """The registers that say where tables and queue are."""
    return [f"o d1 8 100 {devices:x}", f"o d1 8 108 {collections:x}", f"o d1 8 80 {VALID | GUEST:x}"]


def put(place: int, *numbers: int) -> str:
    """Write numbers to the memory."""
    return f"m {place:x} {hexruns.compress(b''.join(number.to_bytes(8, 'little') for number in numbers))}"


def queue(*commands: Command, first: int = 0) -> list[str]:
    """Commands in the queue, behind ``first`` others."""
    end = 32 * (first + len(commands))
    words = [word for command in commands for word in command]
    return [put(32 * first, *words), f"o d1 8 88 {end:x}", "q d1 8 90 0", "q d1 8 88 0"]


def mapd(device: int, itt: int, bits: int, valid: int = 1) -> Command:
    """MAPD."""
    return 8 | device << 32, bits - 1, itt | valid << 63, 0


def mapc(collection: int, target: int, valid: int = 1) -> Command:
    """MAPC."""
    return 9, 0, collection | target << 16 | valid << 63, 0


def mapti(device: int, event: int, lpi: int, collection: int) -> Command:
    """MAPTI."""
    return 0xA | device << 32, event | lpi << 32, collection, 0


def other(code: int, device: int = 0, event: int = 0, third: int = 0, fourth: int = 0) -> Command:
    """Any other command."""
    return code | device << 32, event, third, fourth


def device(following: int, itt: int, bits: int) -> int:
    """An entry of the device table."""
    return VALID | following << 49 | itt >> 8 << 5 | bits - 1


def event(following: int, lpi: int, collection: int) -> int:
    """An entry of an interrupt translation table."""
    return following << 48 | lpi << 16 | collection


def message(event: int, *, device: int = 1, flags: int = 1, address: int = 0x8090040) -> str:
    """KVM_SIGNAL_MSI."""
    numbers = b"".join(
        number.to_bytes(size, "little") for number, size in ((address, 8), (event, 4), (flags, 4), (device, 4))
    )
    return f"Y v {MESSAGE} {numbers.hex()}00*12."


ITT = GUEST + EVENTS
SOME = [mapd(1, ITT, 5), mapc(0, 0), mapc(1, 1), mapti(1, 3, 8192, 0), mapti(1, 5, 8193, 1), mapti(1, 7, 8194, 0)]
SOME += [mapti(1, 9, 8195, 2), other(0xB, 1, 8196, 0)]
READY = [*vm(2), *lpis(2), *bases(), "o d1 8 0 1"]
MAPPED = [*READY, *queue(*SOME)]
EMPTY = [*vm(2), *lpis(2), *bases()]


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
    near = [number + offset for number in CPU_REGISTERS.values() for offset in (-1, 0, 1)]
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


def tables() -> Iterator[list[str]]:
    """Mapping by commands, saving, restoring, messages, and pending LPIs."""
    yield [*MAPPED, SAVE, *LOOK, "o d1 8 0 0", RESET, *bases(), RESTORE, *CLEAN, SAVE, *LOOK]
    for steps in (
        vm(2),
        [*vm(2), *lpis(2)[:1]],
        [*vm(2), *lpis(2)[1:]],
        [*vm(2), *lpis(2, enable=False)],
        vm(2, init=False),
    ):
        yield [*steps, *bases(), "o d1 8 0 1", *queue(*SOME, other(3, 1, 3)), SAVE, *LOOK, SAVE_PENDING, "r 110400 8"]
    yield [*vm(2, base=False), SAVE, RESTORE]
    yield [*vm(2, memory=False), *lpis(2), *bases(), "o d1 8 0 1", "o d1 8 88 40", "q d1 8 90 0", SAVE, RESTORE]
    yield [
        *vm(2),
        *lpis(2),
        *bases(),
        *queue(*SOME),
        "o d1 8 0 1",
        "q d1 8 90 0",
        SAVE,
        *LOOK,
        "o d1 8 88 0",
        "q d1 8 90 0",
    ]
    wrong = [other(0), other(0xFF), other(2), mapti(9, 0, 8192, 0), mapti(1, 0, 5, 0), mapti(1, 40, 8200, 0)]
    wrong += [
        mapti(1, 0, 1 << 16, 0),
        mapd(1 << 16, ITT, 5),
        mapd(2, ITT, 17),
        mapd(3, ITT, 5, 0),
        mapc(5, 9),
        mapc(5, 9, 0),
    ]
    yield [*MAPPED, *queue(*wrong, first=len(SOME)), SAVE, *LOOK]
    more = [other(3, 1, 3), other(3, 1, 5), other(3, 1, 9), other(3, 1, 4), other(0xC, 1, 3), other(0xD)]
    yield [
        *MAPPED,
        *queue(*more, first=8),
        SAVE_PENDING,
        "r 110400 4",
        "r 120400 4",
        *queue(other(4, 1, 3), first=14),
        SAVE_PENDING,
        "r 110400 4",
        *queue(other(1, 1, 5), first=15),
        SAVE_PENDING,
        "r 110400 4",
        "r 120400 4",
        SAVE,
        *LOOK,
    ]
    yield [
        *MAPPED,
        *queue(other(0xE, 0, 0, 0, 1 << 16), other(3, 1, 3), first=8),
        SAVE_PENDING,
        "r 110400 4",
        "r 120400 4",
    ]
    yield [
        *MAPPED,
        SAVE,
        *queue(other(0xF, 1, 3), first=8),
        *LOOK,
        SAVE,
        *LOOK,
        *queue(mapd(1, 0, 5, 0), first=9),
        *LOOK,
        SAVE,
    ]
    yield [*MAPPED, *queue(mapd(1, ITT + 0x1000, 4), mapc(0, 1), first=8), SAVE, *LOOK]
    two = [mapd(1, ITT, 5), mapd(0x2001, ITT + 0x1000, 5), mapd(0x4001, ITT, 5), *SOME[1:4]]
    indirect = bases(VALID | INDIRECT | GUEST + DEVICES)
    levels = put(DEVICES, VALID | GUEST + LEVEL_2, VALID | GUEST + LEVEL_2 + 0x10000)
    yield [
        *vm(2),
        *lpis(2),
        levels,
        *indirect,
        "o d1 8 0 1",
        *queue(*two),
        SAVE,
        *LOOK,
        f"r {LEVEL_2:x} 64",
        f"r {LEVEL_2 + 0x10000:x} 64",
        RESET,
        *indirect,
        RESTORE,
        f"m {LEVEL_2:x} 00*64.",
        SAVE,
        f"r {LEVEL_2:x} 64",
    ]
    sends = [message(3), message(4), message(9), message(0, device=2), message(3, flags=0), message(3, address=0x100)]
    yield [*MAPPED, *sends, SAVE_PENDING, "r 110400 4", "o d1 8 0 0", *sends]
    yield [
        *vm(2),
        *lpis(2, enable=False),
        *bases(),
        "o d1 8 0 1",
        *queue(*SOME),
        *sends,
        "o d0 5 0 1",
        *sends,
        SAVE_PENDING,
        "r 110400 4",
    ]
    yield [
        "N 1",
        "V 5",
        "I 0 5 0",
        "I 1 5 0",
        slot(),
        "D 7 0",
        "D 8 0",
        *PLACES,
        ITS_BASE,
        INIT,
        *lpis(),
        *bases(),
        "o d1 8 0 1",
        *queue(mapc(0, 1), mapc(1, 5), mapc(2, 0)),
        SAVE,
        *LOOK,
        put(COLLECTIONS, VALID | 1 << 16),
        RESET,
        *bases(),
        RESTORE,
        put(COLLECTIONS, VALID | 5 << 16),
        RESET,
        *bases(),
        RESTORE,
    ]
    logged = [slot(flags=1) if step == slot() else step for step in MAPPED]
    yield [*logged, SAVE, f"Y v {LOG} 00*8.@paa*72."]
    yield [slot(flags=2) if step == slot() else step for step in [*MAPPED, SAVE, *LOOK, RESTORE]]
    yield [slot(user="001000*6.") if step == slot() else step for step in [*MAPPED, SAVE, RESTORE]]
    yield [slot(0x28000) if step == slot() else step for step in [*MAPPED, SAVE, *LOOK, RESTORE]]
    yield [*MAPPED, "o d1 8 0 0", "o d1 8 100 0", bases()[0], SAVE, *LOOK]
    yield [*MAPPED, "o d1 8 0 0", f"o d1 8 100 {VALID | GUEST + DEVICES | 1:x}", SAVE, *LOOK]
    beginning = [
        "N 1",
        "I 0 5 0",
        slot(),
        "D 7 0",
        "D 8 0",
        *PLACES,
        ITS_BASE,
        INIT,
        "o d0 1 0 12",
        f"m {PROPERTIES:x} ff*8.",
    ]
    yield [
        *beginning,
        *lpis(),
        *bases(),
        "o d1 8 0 1",
        *queue(*SOME[:2], SOME[3], other(3, 1, 3), other(0xF, 1, 3)),
        SAVE_PENDING,
        "r 110400 4",
        "R 0",
        SAVE_PENDING,
        "r 110400 4",
    ]


def unmapping() -> Iterator[list[str]]:
    """Events that lose their collection, which Linux 6.1 dies of."""
    yield [*MAPPED, *queue(mapc(0, 0, 0), first=8), SAVE, *LOOK]
    yield [*MAPPED, *queue(mapc(0, 0, 0), mapc(0, 0), other(3, 1, 3), first=8), SAVE_PENDING, "r 110400 4", SAVE, *LOOK]
    yield [*MAPPED, SAVE, RESTORE, *CLEAN, SAVE, *LOOK]
    yield [*MAPPED, SAVE, put(COLLECTIONS, VALID | 7, 0), RESTORE, *CLEAN, SAVE, *LOOK]
    yield [*MAPPED, SAVE, put(COLLECTIONS, VALID | 7, 0), put(DEVICES, VALID | 31), RESTORE, *CLEAN, SAVE, *LOOK]
    yield [*MAPPED, "o d1 8 0 0", f"o d1 8 108 {VALID | GUEST + COLLECTIONS | 1:x}", SAVE, *LOOK]


def broken_tables() -> Iterator[list[str]]:
    """Tables that were not saved: entries that are not valid, too large, beyond the end, or in no memory."""
    good = (
        put(DEVICES, device(0, ITT, 5)),
        put(COLLECTIONS, VALID, VALID | 1 << 16 | 1),
        put(EVENTS, event(1, 8192, 0), event(0, 8193, 1)),
    )
    for change in (
        put(PENDING + 1024, 0xF),
        put(COLLECTIONS, VALID, VALID | 7 << 16 | 1),
        put(COLLECTIONS, VALID, VALID | 1 << 16),
        put(COLLECTIONS, VALID, VALID | 0xFFFFFFFF << 16 | 1),
        put(EVENTS, event(1, 8192, 0), event(0, 8193, 9)),
        put(EVENTS, event(1, 8192, 0), event(0, 5, 1)),
        put(EVENTS, event(32, 8192, 0)),
        put(EVENTS, event(1, 8192, 0), event(1, 0x10000000, 1), event(0, 8192, 1)),
        put(EVENTS, 0, 0, event(1, 8192, 0), 0, event(0, 8193, 1)),
        put(DEVICES, 0, device(1, ITT, 5), device(0, GUEST + 0x10000000, 2)),
        put(DEVICES, 0, device(1, ITT, 5), device(0, ITT + 0x100, 2), device(0, ITT, 2)),
        put(DEVICES, device(1, ITT, 16), device(0, ITT + 0x100, 17)),
        put(DEVICES, device(1, ITT, 32)),
        put(DEVICES, device(0x3FFF, ITT, 5)),
    ):
        yield [*EMPTY, *good, change, RESTORE, *CLEAN, SAVE, *LOOK, SAVE_PENDING, "r 110400 4"]
    yield [*vm(2), *bases(), *good, RESTORE, SAVE, *LOOK]
    yield [*EMPTY, *good, *bases(VALID | INDIRECT | GUEST + DEVICES), RESTORE, SAVE, *LOOK]
    yield [*EMPTY, *good, *bases(VALID | GUEST + 0x10000000), RESTORE, SAVE, *LOOK]
    yield [*EMPTY, *good, *bases(collections=VALID | GUEST + 0x10000000), RESTORE, SAVE, *LOOK]
    yield [*EMPTY, *good, *bases(VALID | GUEST + DEVICES | 0xFF), RESTORE, SAVE, *LOOK]


def scripts(*, careful: bool) -> Iterator[list[str]]:
    """All sequences. ``careful``: none that Linux 6.1 dies of."""
    yield from registers()
    yield from cpu_interfaces()
    yield from tables()
    yield from broken_tables()
    if not careful:
        yield from unmapping()
