# SPDX-License-Identifier: MIT
"""Steps about an ITS with tables in memory that are recorded: a VMM's, and its mistakes.

The vGIC is d0 and the ITS d1. The memory begins at 0x40000000, with the places of kvmabi.fuzz.its.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi import hexruns, uapi
from kvmabi.fuzz.its import COLLECTIONS, DEVICES, EVENTS, GUEST, LEVEL_2, PENDING, PROPERTIES, SIZE_BYTES, VALID

Command = tuple[int, int, int, int]
REGION, MESSAGE, LOG = (
    f"{request:x}" for request in (uapi.KVM_SET_USER_MEMORY_REGION, uapi.KVM_SIGNAL_MSI, uapi.KVM_GET_DIRTY_LOG)
)
PLACES, INIT, ITS_BASE = ["o d0 0 2 8000000", "o d0 0 3 80a0000"], "o d0 4 0 0", "o d1 0 4 8080000"
SAVE, RESTORE, RESET, SAVE_PENDING = "o d1 4 1 0", "o d1 4 2 0", "o d1 4 4 0", "o d0 4 3 0"
INDIRECT = 1 << 62
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
