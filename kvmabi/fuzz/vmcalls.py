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
STATS_SHARE = 0.1
Call = tuple[str, str, list[str]]
"""The file, the ioctl, and the fields of its struct."""
BITMAPS = ("ff*24.", "aa*24.", "0f0f0f00*5.ff*16.", "00*24.")


def call(random: Random) -> str:
    """A step of the kind ``ioctl-bytes``, or of ``stats``."""
    if random.random() < STATS_SHARE:
        return f"T {random.choice('v01s')}"
    file, ioctl, words = random.choice((_routing, _irqfd, _ioeventfd, _line, _message, _region, _region, _log, _clear,
                                        _capability, _events, _debug))(random)  # fmt: skip
    return f"Y {file} {vars(uapi)[ioctl]:x} {argument(ioctl, words)}"


def _routing(random: Random) -> Call:
    table = [*_route(random), *_route(random)]
    head = [f"nr={random.choice((0, 1, 2, 2, 4097))}", f"flags={random.choice((0, 0, 0, 1))}"]
    return "v", "KVM_SET_GSI_ROUTING", head + table


def _route(random: Random) -> list[str]:
    pick = random.choice
    place = [f"u.irqchip.irqchip={pick((0, 0, 0, 1))}", f"u.irqchip.pin={pick((0, 1, 987, 988))}"]
    kind = [f"gsi={pick((0, 1, 2, 4095, 4096))}", f"type={pick((1, 1, 2, 2, 3))}", f"flags={pick((0, 0, 0, 1, 2))}"]
    return [NEXT, *kind, *place]


def _irqfd(random: Random) -> Call:
    pick = random.choice
    fds = [f"fd={pick(EVENTFDS)}", f"resamplefd={pick(EVENTFDS)}"]
    return "v", "KVM_IRQFD", [*fds, f"gsi={pick((0, 1, 32))}", f"flags={pick((0, 0, 1, 1, 2, 3, 4))}"]


def _ioeventfd(random: Random) -> Call:
    pick = random.choice
    match = [f"len={pick((0, 1, 2, 4, 8, 3))}", f"flags={pick((0, 1, 4, 5, 2, 6, 8, 12, 32))}"]
    place = [f"fd={pick(EVENTFDS)}", f"addr={pick((0, 0x1000, 0x1004, (1 << 64) - 8))}"]
    return "v", "KVM_IOEVENTFD", [*place, *match, f"datamatch={pick((0, 1))}"]


def _line(random: Random) -> Call:
    ioctl = random.choice(("KVM_IRQ_LINE", "KVM_IRQ_LINE_STATUS"))
    return "v", ioctl, [f"irq={random.choice(LINES)}", f"level={random.choice((0, 1))}"]


def _message(random: Random) -> Call:
    address = random.choice((0, 0x8090040, 0x80A0000))
    return "v", "KVM_SIGNAL_MSI", [f"flags={random.choice((0, 1, 1, 2))}", f"address_lo={address}"]


def _region(random: Random) -> Call:
    pick = random.choice
    ioctl = pick(("KVM_SET_USER_MEMORY_REGION", "KVM_SET_USER_MEMORY_REGION2"))
    what = [f"slot={pick(SLOTS)}", f"flags={pick((0, 1, 1, 2, 3, 4, 8))}", f"guest_phys_addr={pick(PAGES)}"]
    where = [f"memory_size={pick((0, 0x1000, 0x1000, 0x41000, 0x800))}", f"userspace_addr={pick((0, 0, 0x1000, 1))}"]
    return "v", ioctl, what + where + (["guest_memfd=@4"] if ioctl.endswith("2") else [])


def _log(random: Random) -> Call:
    address = random.choice(("@p", "@p", "0x10"))
    return "v", "KVM_GET_DIRTY_LOG", [f"slot={random.choice(SLOTS)}", f"dirty_bitmap={address}", "behind=aa*24."]


def _clear(random: Random) -> Call:
    pick = random.choice
    pages = [f"first_page={pick((0, 0, 1, 64, 128))}", f"num_pages={pick((0, 1, 2, 64, 65, 128))}"]
    bits = f"behind={pick(BITMAPS)}"
    return "v", "KVM_CLEAR_DIRTY_LOG", [f"slot={pick(SLOTS)}", *pages, "dirty_bitmap=@p", bits]


def _capability(random: Random) -> Call:
    pick = random.choice
    words = [f"cap={pick(CAPABILITIES)}", f"args={pick(OPTIONS)}", f"flags={pick((0, 0, 0, 1))}"]
    return pick("vvv0"), "KVM_ENABLE_CAP", words


def _events(random: Random) -> Call:
    pick = random.choice
    words = [f"exception.serror_pending={pick((0, 1))}", f"exception.serror_has_esr={pick((0, 1))}"]
    syndrome = f"exception.serror_esr={pick((0, 5, 0x1FFFFFF, 0x2000000))}"
    return pick("01"), "KVM_SET_VCPU_EVENTS", [*words, syndrome, f"reserved={pick((0, 0, 0, 1))}"]


def _debug(random: Random) -> Call:
    return random.choice("01"), "KVM_SET_GUEST_DEBUG", [f"control={random.choice((0, 1, 2, 4, 0x10003, 0x40000))}"]
