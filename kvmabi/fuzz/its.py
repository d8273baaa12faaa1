# SPDX-License-Identifier: MIT
"""Random steps on an ITS and on the GIC's CPU interfaces, in a VM with memory for their tables.

The vGIC is d0 and the ITS d1. The memory has the command queue first, then a page of 64 KiB for each of the tables.
"""

from __future__ import annotations

from random import Random

from kvmabi import hexruns, uapi

GUEST, SIZE_BYTES = 0x4000_0000, 0x20_0000
QUEUE, DEVICES, COLLECTIONS, EVENTS, LEVEL_2, PROPERTIES, PENDING = (
    *(0x0, 0x1_0000, 0x2_0000, 0x3_0000, 0x5_0000),
    *(0x10_0000, 0x11_0000),
)
"""Places in the memory."""
VALID, INDIRECT = 1 << 63, 1 << 62
CTLR, IIDR, CBASER, CWRITER, CREADR, BASER_0, BASER_1 = 0x0, 0x4, 0x80, 0x88, 0x90, 0x100, 0x108
REGISTERS = (0x0, 0x4, 0x8, 0xC, 0x80, 0x88, 0x90, 0x100, 0x108, 0x110, 0x138, 0x140, 0xFFD0, 0xFFE8, 0x2, 0x84)
SAVE, RESTORE, RESET = (
    int(number)
    for number in (
        uapi.KVM_DEV_ARM_ITS_SAVE_TABLES,
        uapi.KVM_DEV_ARM_ITS_RESTORE_TABLES,
        uapi.KVM_DEV_ARM_ITS_CTRL_RESET,
    )
)
REGION, MESSAGE = f"{uapi.KVM_SET_USER_MEMORY_REGION:x}", f"{uapi.KVM_SIGNAL_MSI:x}"
READONLY = int(uapi.KVM_MEM_READONLY)
ITS_BASE, DOORBELL = 0x808_0000, 0x809_0040
DEVICE_IDS, EVENT_IDS = (0, 1, 1, 1, 2, 0x1FFF, 0x2000, 0xFFFF, 0x10000), (0, 1, 2, 3, 3, 5, 31, 32)
COLLECTION_IDS, TARGETS = (0, 0, 0, 1, 2, 0xFFFF), (0, 0, 0, 1, 1, 2, 0xFFFF_FFFF)
LPIS = (8192, 8193, 8194, 8195, 8199, 8191, 8204, 65535, 65536)
ITTS = (EVENTS, EVENTS, EVENTS, EVENTS + 0x100, SIZE_BYTES - 0x100, SIZE_BYTES)
COMMANDS = (1, 3, 3, 4, 8, 8, 9, 9, 0xA, 0xA, 0xA, 0xA, 0xA, 0xB, 0xC, 0xD, 0xE, 0xF, 0xF, 5, 0, 0x20)
ENCODINGS = (
    *(0xC230, 0xC643, 0xC644, 0xC645, 0xC647, 0xC648, 0xC649),
    *(0xC663, 0xC664, 0xC664, 0xC664, 0xC665, 0xC666, 0xC667, 0xC123),
)
CPU_VALUES = (0, 1, 2, 3, 5, 7, 0xFF, 0x8403, 0x8C00, 0x8402, 0x8401, 0x8C01, 0x8200, 0xFFFF_FFFF, (1 << 64) - 1)
AFFINITIES = (0, 0, 0, 0, 1, 2, 0x100)
LOOKED_AT = (DEVICES, COLLECTIONS, EVENTS, LEVEL_2, PENDING + LPIS[0] // 8)
SHOWN_BYTES = 64
STEPS = (3, 25)


def sequence(random: Random, vcpus: int, *, careful: bool) -> list[str]:
    """Steps that set up an ITS and use it. ``careful``: no event loses its collection, which Linux 6.1 dies of."""
    steps = begin(random, vcpus)
    for _ in range(random.randrange(*STEPS)):
        steps += step(random, careful)
    return steps


def begin(random: Random, vcpus: int) -> list[str]:
    """Set up the VM: nearly always with memory, a vGIC and an ITS that works."""
    steps = [memory(random)] if random.random() < 0.95 else []
    steps += ["D 7 0", "D 8 0", "o d0 0 2 8000000", "o d0 0 3 80a0000"]
    if random.random() < 0.95:
        steps.append(f"o d1 0 4 {ITS_BASE:x}")
    if random.random() < 0.9:
        steps += ["o d0 4 0 0", "o d1 4 0 0"]
    if random.random() < 0.85:
        steps += redistributors(random, vcpus)
    steps += [f"o d1 8 {register:x} {value:x}" for register, value in _bases(random)]
    if random.random() < 0.85:
        steps.append(f"o d1 8 {CTLR:x} 1")
    return steps + (_queue(_mappings(random)) if random.random() < 0.8 else [])


def memory(random: Random) -> str:
    """A memory slot: all of the memory as a rule, or a part, or one that cannot be written or read."""
    chance = random.random()
    size = SIZE_BYTES if chance < 0.9 else random.choice((0x1000, 0x2_0000, 0x3_1000, 0x10_0000))
    flags = READONLY if chance > 0.97 else 0
    user = "@m" if chance > 0.02 else _long(0x1000)
    return f"Y v {REGION} {_word(0)}{_word(flags)}{_long(GUEST)}{_long(size)}{user}"


def redistributors(random: Random, vcpus: int) -> list[str]:
    """Where LPIs are configured and pending: registers of the redistributors."""
    bits = random.choice((15, 15, 15, 13, 12, 31))
    places = [(0x70, GUEST + PROPERTIES | bits)]
    places += [(vcpu << 32 | 0x78, GUEST + PENDING + 0x1_0000 * vcpu) for vcpu in range(vcpus)]
    steps = [f"o d0 5 {place:x} {value:x}" for place, value in places]
    return steps + [f"o d0 5 {vcpu << 32:x} 1" for vcpu in range(vcpus) if random.random() < 0.8]


def step(random: Random, careful: bool) -> list[str]:
    """One step, with those that belong to it."""
    makers = (*(_commands,) * 3, _register, *(_control,) * 3, _entry, _look, _cpu, _cpu, _message)
    return random.choice(makers)(random, careful)


def _bases(random: Random) -> list[tuple[int, int]]:
    indirect = INDIRECT if random.random() < 0.2 else 0
    far = 0x1000_0000 if random.random() < 0.03 else 0
    return [
        (BASER_0, VALID | indirect | GUEST + DEVICES + far | random.choice((0, 0, 0, 1, 7))),
        (BASER_1, VALID | GUEST + COLLECTIONS),
        (CBASER, VALID | GUEST + QUEUE | random.choice((0, 0, 1))),
    ]


def _mappings(random: Random) -> list[bytes]:
    """Commands of a correct guest: a device or two with events, and collections for them."""
    device, collections, events = (
        random.choice(DEVICE_IDS[:5]),
        range(random.randrange(1, 4)),
        random.sample(range(20), 5),
    )
    words = [(8 | device << 32, 4, VALID | GUEST + EVENTS, 0), (8 | 2 << 32, 3, VALID | GUEST + EVENTS + 0x100, 0)]
    words += [(9, 0, VALID | random.randrange(2) << 16 | collection, 0) for collection in collections]
    for number, event in enumerate(events):
        words.append((0xA | device << 32, event | LPIS[0] + number << 32, random.choice(collections), 0))
    return [b"".join(word.to_bytes(8, "little") for word in command) for command in words]


def _queue(commands: list[bytes]) -> list[str]:
    """Write commands to the beginning of the queue and have them processed."""
    kick = [f"o d1 8 {CWRITER:x} {32 * len(commands):x}", f"q d1 8 {CREADR:x} 0"]
    return [f"m {QUEUE:x} {hexruns.compress(b''.join(commands))}", *kick]


def _command(random: Random, careful: bool) -> bytes:
    pick = random.choice
    code, valid = pick(COMMANDS), VALID if random.random() < 0.85 else 0
    device, event, collection = pick(DEVICE_IDS), pick(EVENT_IDS), pick(COLLECTION_IDS)
    words = [code | device << 32, event | pick(LPIS) << 32, collection, 0]
    if code == 0xB:
        words[1] = pick(LPIS)
    if code == 0x8:
        words[1:3] = [pick((0, 1, 4, 4, 15, 16, 31)), valid | GUEST + pick(ITTS)]
    if code in (0x9, 0xE):
        words[2:] = [(VALID if careful else valid) | pick(TARGETS) << 16 | collection, pick(TARGETS) << 16]
    return b"".join(word.to_bytes(8, "little") for word in words)


def _commands(random: Random, careful: bool) -> list[str]:
    """Commands from the beginning of the queue, which CREADR may be behind: then it wraps around."""
    commands = [_command(random, careful) for _ in range(random.randrange(1, 12))]
    rewind = [f"o d1 8 {CTLR:x} 0", f"o d1 8 {CREADR:x} 0", f"o d1 8 {CTLR:x} 1"] if random.random() < 0.8 else []
    return [f"o d1 8 {CTLR:x} 0", f"o d1 8 {CWRITER:x} 0", *rewind, *_queue(commands)]


def _register(random: Random, careful: bool) -> list[str]:
    register = random.choice(REGISTERS)
    if careful and register == BASER_1:
        return [f"q d1 8 {BASER_1:x} 0"]
    chance = random.random()
    if chance < 0.4:
        return [f"q d1 8 {register:x} {'-' if chance < 0.02 else 0}"]
    if chance < 0.45:
        return [f"h d1 8 {register:x} 0"]
    sane = dict(_bases(random)).get(register, random.choice((0, 1, 0x20, 0xFE0, 0x1000)))
    value = f"{sane if chance < 0.94 else random.getrandbits(64):x}"
    return [f"o d1 8 {register:x} {'-' if chance > 0.98 else value}", f"q d1 8 {register:x} 0"]


def _control(random: Random, careful: bool) -> list[str]:
    control = random.choice((*(SAVE,) * 6, RESTORE, RESTORE, RESTORE, RESET))
    if control == RESTORE and (careful or random.random() < 0.8):
        again = [f"o d1 8 {register:x} {value:x}" for register, value in _bases(random)]
        changed = _entry(random, careful) if random.random() < 0.3 else []
        return [
            f"o d1 4 {SAVE} 0",
            f"o d1 4 {RESET} 0",
            *again,
            *changed,
            f"o d1 4 {RESTORE} 0",
            *_look(random, careful),
        ]
    pending = [f"o d0 4 {uapi.KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES} 0"] if random.random() < 0.3 else []
    return [f"o d1 4 {control} 0", *pending, *_look(random, careful)]


def _entry(random: Random, _careful: bool) -> list[str]:
    """An entry of a table, that a restore reads."""
    pick = random.choice
    valid = VALID if random.random() < 0.9 else 0
    index = pick((0, 0, 1, 2, 3))
    place, value = pick((
        (DEVICES, valid | pick((0, 1, 2)) << 49 | (GUEST + pick(ITTS)) >> 8 << 5 | pick((0, 1, 4, 4, 15, 16, 31))),
        (LEVEL_2, valid | pick((0, 1, 2)) << 49 | (GUEST + pick(ITTS)) >> 8 << 5 | pick((0, 4))),
        (DEVICES, valid | GUEST + LEVEL_2),
        (COLLECTIONS, valid | pick(TARGETS) << 16 | pick(COLLECTION_IDS)),
        (EVENTS, pick((0, 1, 1, 2, 40)) << 48 | pick(LPIS) << 16 | pick(COLLECTION_IDS)),
        (PROPERTIES, random.getrandbits(64)),
        (PENDING + LPIS[0] // 8, random.getrandbits(64)),
    ))  # fmt: skip
    return [f"m {place + 8 * index:x} {hexruns.compress(value.to_bytes(8, 'little'))}"]


def _look(random: Random, _careful: bool) -> list[str]:
    return [f"r {place:x} {SHOWN_BYTES}" for place in random.sample(LOOKED_AT, 3)]


def _cpu(random: Random, _careful: bool) -> list[str]:
    attribute = f"{random.choice(AFFINITIES) << 32 | random.choice(ENCODINGS):x}"
    bad = "-" if random.random() < 0.05 else ""
    value = random.choice(CPU_VALUES) if random.random() < 0.9 else random.getrandbits(64)
    return [
        random.choice(
            (
                f"q d0 6 {attribute} {bad or 0}",
                f"h d0 6 {attribute} 0",
                *(f"o d0 6 {attribute} {bad or f'{value:x}'}",) * 3,
            )
        ),
        f"q d0 6 {attribute} 0",
    ]


def _message(random: Random, _careful: bool) -> list[str]:
    address, data, flags, device = (
        *(random.choice((DOORBELL, DOORBELL, DOORBELL, 0)), random.choice(EVENT_IDS)),
        *(random.choice((1, 1, 1, 0)), random.choice(DEVICE_IDS)),
    )
    return [f"Y v {MESSAGE} {_long(address)}{_word(data)}{_word(flags)}{_word(device)}00*12."]


def _word(value: int) -> str:
    return value.to_bytes(4, "little").hex()


def _long(value: int) -> str:
    return value.to_bytes(8, "little").hex()
