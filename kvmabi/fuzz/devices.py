# SPDX-License-Identifier: MIT
"""Random steps on devices: they create a vGIC and an ITS, and access their attributes and a vCPU's."""

from __future__ import annotations

from random import Random

FILES, VCPUS = ("d0", "d1"), ("0", "1")
ADDRESSES = (0x8000000, 0x8010000, 0x80A0000, 0x80C0000, 0x8080000, 0x9000000, 0xFFFFFC0000, 0xFFFFFF0000, 0x8000800)
IRQS = ("f", "10", "17", "1b", "1c", "1e", "1f", "20", "21", "3fb", "3ff")
UNMAPPED_SHARE = 0.05


def create(random: Random) -> str:
    """KVM_CREATE_DEVICE, sometimes as a test only."""
    return f"D {random.choice((7, 7, 7, 8))} {random.choice((0, 0, 0, 1))}"


def attribute(random: Random) -> str:
    """A set, get or test of an attribute, whether its file exists or not."""
    pick = random.choice
    bad = "-" if random.random() < UNMAPPED_SHARE else ""
    address = f"{pick(ADDRESSES):x}"
    region = f"{random.randrange(4) << 52 | pick(ADDRESSES) & ~0xFFF | random.randrange(3):x}"
    return pick((
        lambda: f"o {pick(FILES)} 0 2 {bad or address}",
        lambda: f"o {pick(FILES)} 0 3 {bad or address}",
        lambda: f"o {pick(FILES)} 0 4 {bad or address}",
        lambda: f"o d0 0 5 {bad or region}",
        lambda: f"o d0 3 0 {bad or pick(('20', '40', '100', '3e0'))}",
        lambda: f"o {pick(FILES)} 4 {pick((0, 0, 1))} 0",
        lambda: f"o d0 9 0 {bad or pick(IRQS)}",
        lambda: f"q {pick(FILES)} 0 {pick((2, 3, 4, 5))} {bad or pick('012')}",
        lambda: f"q {pick(FILES)} {pick((3, 9))} 0 {bad or 0}",
        lambda: f"o {pick(VCPUS)} 0 0 {bad or pick(IRQS)}",
        lambda: f"o {pick(VCPUS)} 0 {pick((1, 1, 4))} {bad or pick('02')}",
        lambda: f"q {pick(VCPUS)} 0 0 {bad or 0}",
        lambda: f"o {pick(VCPUS)} 1 {random.randrange(3)} {bad or pick(IRQS)}",
        lambda: f"q {pick(VCPUS)} 1 {random.randrange(3)} {bad or 0}",
        lambda: f"h {pick(VCPUS)} {random.randrange(3)} {random.randrange(5)} 0",
    ))()  # fmt: skip
