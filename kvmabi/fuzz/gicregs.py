# SPDX-License-Identifier: MIT
"""Random steps on the registers of a vGIC: its set-up, accesses to words of its frames and lines, and interrupts."""

from __future__ import annotations

from random import Random

from kvmabi import gicnames, uapi
from kvmabi.fuzz import devices
from kvmabi.gicnames import DIST, LEVEL, REDIST
from kvmabi.steps.arguments import argument

SET_UP = ("D 7 0", "o d0 0 2 8000000", "o d0 0 3 80a0000", "o d0 4 0 0")
"""A vGIC, its addresses, and its initialisation."""
ITS_SHARE, IRQS_SHARE, REGION_SHARE, SHUFFLED_SHARE = 0.4, 0.5, 0.3, 0.1
IRQS = (0x40, 0x60, 0x100, 0x3E0)
WORDS = (0, 0, 1, 1, 2, 3, 7, 8, 15, 16, 29, 30, 31)
IDENTITIES = (0x4B00143B, 0x4B00243B, 0x4B00243B, 0x4B00343B, 0x4B00443B, 0x4B01343B)
VALUES = (0, 0, 1, 2, 3, 0x10, 0xFF, 0xFFFF, 0xFFFF0000, 0x55555555, 0xAAAAAAAA, 0xFFFFFFFF, 0xFFFFFFFF)
AFFINITIES = (0, 0, 0, 1, 1, 2, 3, 0x100, 0x1000000)
STRANGE_SHARE, UNMAPPED_SHARE, OTHER_SHARE = 0.04, 0.02, 0.04
SPI, PPI = int(uapi.KVM_ARM_IRQ_TYPE_SPI), int(uapi.KVM_ARM_IRQ_TYPE_PPI)
TYPE_SHIFT, VCPU_SHIFT = int(uapi.KVM_ARM_IRQ_TYPE_SHIFT), int(uapi.KVM_ARM_IRQ_VCPU_SHIFT)


def begin(random: Random, vcpus: int) -> list[str]:
    """Steps that set up a vGIC of a VM that has its vCPUs."""
    steps = list(SET_UP)
    if random.random() < REGION_SHARE:
        frames = random.randint(1, vcpus + 1)
        steps[2:3] = [f"o d0 0 5 {frames << 52 | 0x80A0000:x}"]
        if frames < vcpus or random.random() < OTHER_SHARE:
            base = random.choice((0x80A0000 + frames * 0x20000, 0x9000000))
            steps[3:3] = [f"o d0 0 5 {vcpus << 52 | base | 1:x}"]
    if random.random() < IRQS_SHARE:
        steps[1:1] = [f"o d0 3 0 {random.choice(IRQS):x}"]
    if random.random() < ITS_SHARE:
        steps.insert(random.randrange(len(steps) + 1), "D 8 0")
    if random.random() < SHUFFLED_SHARE:
        random.shuffle(steps)
    return steps


def step(random: Random) -> str:
    """An access to a register, a line that a VMM raises, or now and then something else that a vGIC depends on."""
    chance = random.random()
    if chance < OTHER_SHARE:
        return random.choice((devices.create, devices.attribute))(random)
    return line(random) if chance < 0.12 else access(random)


def access(random: Random) -> str:
    """A get, set or test of a word in a frame, or of the level of lines."""
    pick = random.choice
    group = pick((DIST, DIST, DIST, REDIST, REDIST, REDIST, LEVEL))
    offset = _level(random) if group == LEVEL else _register(random, group)
    if random.random() < STRANGE_SHARE:
        offset += pick((1, 2, 3, 4, 0x20000, 0x400, random.getrandbits(17)))
    affinity = pick(AFFINITIES) if group != DIST or random.random() < STRANGE_SHARE else 0
    attr = f"{group} {affinity << gicnames.AFFINITY_SHIFT | offset & gicnames.OFFSET_MASK:x}"
    kind = pick("qqqooooh")
    if kind == "h":
        return f"h d0 {attr} 0"
    if random.random() < UNMAPPED_SHARE:
        return f"{kind} d0 {attr} -"
    return f"{kind} d0 {attr} {_value(random, group, offset) if kind == 'o' else 0:x}"


def line(random: Random) -> str:
    """KVM_IRQ_LINE of an interrupt that accesses are likely to be about."""
    pick = random.choice
    private = random.random() < 0.5
    irq = random.randrange(16, 32) if private else pick(WORDS[2:]) * 32 + random.randrange(32)
    what = (PPI if private else SPI) << TYPE_SHIFT | pick((0, 0, 1)) << VCPU_SHIFT | irq
    words = [f"irq={what}", f"level={pick((0, 1, 1))}"]
    return f"Y v {uapi.KVM_IRQ_LINE:x} {argument('KVM_IRQ_LINE', words)}"


def _register(random: Random, group: int) -> int:
    """The offset of a word of a register, more often one of few interrupts."""
    found = random.choice(gicnames.FRAMES[group])
    words = (found.end - found.offset) // gicnames.WORD_BYTES
    word = random.choice(WORDS) if random.random() < 0.5 else random.randrange(words)
    if found.irq_bits and random.random() < 0.7:
        irq = random.choice(WORDS) * gicnames.IRQS_OF_A_WORD + random.choice((0, 0, 4, 16, 31))
        word = irq * found.irq_bits // (8 * gicnames.WORD_BYTES)
    return found.offset + word % words * gicnames.WORD_BYTES


def _level(random: Random) -> int:
    return random.choice(WORDS) * gicnames.IRQS_OF_A_WORD


def _value(random: Random, group: int, offset: int) -> int:
    place = gicnames.places(group).get(offset) if group in gicnames.FRAMES else None
    if place is not None and place.range.name == "gicd_iidr" and random.random() < 0.9:
        return random.choice(IDENTITIES)
    chance = random.random()
    if chance < 0.4:
        return random.choice(VALUES)
    return 1 << random.randrange(32) if chance < 0.6 else random.getrandbits(random.choice((32, 32, 64)))
