# SPDX-License-Identifier: MIT
"""Random ioctls of a VM with a struct: interrupts, eventfds, memory slots and their dirty pages, capabilities."""

from __future__ import annotations

from random import Random

from kvmabi import uapi
from kvmabi.steps.arguments import NEXT, argument

LINES = (0, 1, 2, 0x10000, 0x1000020, 0x100001F, 0x10000FF, 0x1000100, 0x2000010, 0x200000F, 0x2010010, 0x3000010)
EVENTFDS = ("@0", "@0", "@1", "@2", "@3", "@4", "0xffffffff")
PAGES = (0, 0x1000, 0x2000, 0x41000, 0x1001, 0xFFFFFFF000, 1 << 40)
SLOTS = (0, 0, 1, 2, 3, 32766, 32767, 0x10001)
CAPABILITIES = (168, 168, 177, 182, 216, 223, 225, 228, 239, 245, 9, 400)
OPTIONS = (0, 1, 2, 3, 4, 0x1000, 0x10000, 0x200000, 0x100000000)
BITMAP = ("ff*24.", "aa*24.", "0f*3.00*5.ff*16.", "00*24.")


def call(random: Random) -> str:
    """A step of the kind ``ioctl-bytes``, or of ``stats``."""
    pick = random.choice
    ioctl, words = pick((
        lambda: ("KVM_SET_GSI_ROUTING", [f"nr={pick((0, 1, 2, 2, 4097))}", f"flags={pick((0, 0, 0, 1))}",
                                         *_route(random), *_route(random)]),
        lambda: ("KVM_IRQFD", [f"fd={pick(EVENTFDS)}", f"gsi={pick((0, 1, 32))}", f"flags={pick((0, 0, 1, 1, 2, 3, 4))}",
                               f"resamplefd={pick(EVENTFDS)}"]),
        lambda: ("KVM_IOEVENTFD", [f"fd={pick(EVENTFDS)}", f"addr={pick((0, 0x1000, 0x1004, (1 << 64) - 8))}",
                                   f"len={pick((0, 1, 2, 4, 8, 3))}", f"flags={pick((0, 1, 4, 5, 2, 6, 8, 12, 32))}",
                                   f"datamatch={pick((0, 1))}"]),
        lambda: (pick(("KVM_IRQ_LINE", "KVM_IRQ_LINE_STATUS")), [f"irq={pick(LINES)}", f"level={pick((0, 1))}"]),
        lambda: ("KVM_SIGNAL_MSI", [f"flags={pick((0, 1, 1, 2))}", f"address_lo={pick((0, 0x8090040, 0x80A0000))}"]),
    ))()  # fmt: skip
    if random.random() < STATS_SHARE:
        return f"T {pick('v01s')}"
    return f"Y v {vars(uapi)[ioctl]:x} {argument(ioctl, words)}"


STATS_SHARE = 0.03


def _route(random: Random) -> list[str]:
    pick = random.choice
    return [NEXT, f"gsi={pick((0, 1, 2, 4095, 4096))}", f"type={pick((1, 1, 2, 2, 3))}", f"flags={pick((0, 0, 0, 1, 2))}",
            f"u.irqchip.irqchip={pick((0, 0, 0, 1))}", f"u.irqchip.pin={pick((0, 1, 987, 988))}"]  # fmt: skip
