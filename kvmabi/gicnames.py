# SPDX-License-Identifier: MIT
"""Attributes of a vGICv3 and its ITS: group and number of KVM_SET_DEVICE_ATTR ↔ names such as ``gicd_isenabler[3]``.

Registers have the names of the GIC's specification in lower case. What follows in brackets is the vCPU, where a
register is a vCPU's own, and the register's index where there are several. ``cpu1`` is the vCPU with the affinity that
KVM gives the vCPU with the ID 1; any other affinity is four numbers, the highest first (``gicr_ctlr[0.0.1.20]``).
``.high`` is the upper word of a register of 64 bits. A place without a register is the frame and the offset
(``gicd+0x14``, ``gicr+0x10[cpu0]``).

>>> name_of(6, 1 << 32 | 0xC230), name_of(8, 0x108)
('icc_pmr_el1[cpu1]', 'gits_baser[1]')
>>> name_of(1, 0x10C), name_of(1, 0x6144), name_of(5, 1 << 32 | 8), name_of(7, 32), name_of(4, 0)
('gicd_isenabler[3]', 'gicd_irouter[40].high', 'gicr_typer[cpu1]', 'line_level[32]', 'ctrl_init')
>>> parse("gicr_ipriorityr[cpu1][3]")
(5, 4295033868)

https://docs.kernel.org/virt/kvm/devices/arm-vgic-v3.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final, NamedTuple

from kvmabi import uapi
from kvmabi.errors import UsageError

DIST: Final = int(uapi.KVM_DEV_ARM_VGIC_GRP_DIST_REGS)
REDIST: Final = int(uapi.KVM_DEV_ARM_VGIC_GRP_REDIST_REGS)
LEVEL: Final = int(uapi.KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO)
CPU: Final = int(uapi.KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS)
ITS: Final = int(uapi.KVM_DEV_ARM_VGIC_GRP_ITS_REGS)
WORD_BYTES: Final = 4
MOST_IRQS: Final = 1024
IRQS_OF_A_WORD: Final = 32
AFFINITY_SHIFT: Final = int(uapi.KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT)
OFFSET_MASK: Final = int(uapi.KVM_DEV_ARM_VGIC_OFFSET_MASK)
LAST_PRIVATE: Final = 31
_LINE_LEVEL: Final = "line_level"
_HIGH: Final = ".high"

_ROWS: Final = (
    ("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V3_ADDR_TYPE_DIST", "dist_addr"),
    ("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V3_ADDR_TYPE_REDIST", "redist_addr"),
    ("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_ITS_ADDR_TYPE", "its_addr"),
    ("KVM_DEV_ARM_VGIC_GRP_ADDR", "KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION", "redist_region"),
    ("KVM_DEV_ARM_VGIC_GRP_NR_IRQS", "", "nr_irqs"),
    ("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_CTRL_INIT", "ctrl_init"),
    ("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_ITS_SAVE_TABLES", "its_save_tables"),
    ("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_ITS_RESTORE_TABLES", "its_restore_tables"),
    ("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES", "save_pending_tables"),
    ("KVM_DEV_ARM_VGIC_GRP_CTRL", "KVM_DEV_ARM_ITS_CTRL_RESET", "its_reset"),
    ("KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ", "", "maint_irq"),
)
"""Attributes that are not registers: the header's names of the group and of the attribute ("": it is 0), and the name.

The ITS's, which is a device of its own, are among them."""
FIXED: Final[dict[tuple[int, int], str]] = {
    (int(vars(uapi)[group]), int(vars(uapi)[attr]) if attr else 0): name for group, attr, name in _ROWS
}
"""The same, by group and number."""
MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    group: tuple(attr for other, attr, _ in _ROWS if other == group and attr) for group, _, _ in _ROWS
}
"""The header's names of the attributes of a group, by its name."""


class Range(NamedTuple):
    """Registers of one name: their place in the frame in bytes, the size of one in bytes, and how many there are.

    ``irq_bits`` are the bits that each interrupt has in them, from interrupt 0 on (0: they are not about interrupts).
    ``first`` is the index of the first; None: there is one, which has no index.
    """

    name: str
    offset: int
    size_bytes: int = WORD_BYTES
    registers: int = 1
    irq_bits: int = 0
    first: int | None = None

    @property
    def end(self) -> int:
        """The offset behind the last register."""
        return self.offset + self.size_bytes * self.registers


def _per_irq(name: str, offset: int, irq_bits: int, irqs: int = MOST_IRQS) -> Range:
    """Registers with ``irq_bits`` for each interrupt: one of 64 bits each, or words that several share."""
    size_bytes = max(WORD_BYTES, irq_bits // 8)
    registers = irqs * irq_bits // (8 * size_bytes)
    return Range(name, offset, size_bytes, registers, irq_bits, None if registers == 1 else 0)


def _identification(frame: str) -> tuple[Range, ...]:
    """The registers at the end of every frame."""
    pidr, cidr = f"{frame}_pidr", f"{frame}_cidr"
    return (
        Range(pidr, 0xFFD0, registers=4, first=4),
        Range(pidr, 0xFFE0, registers=4, first=0),
        Range(cidr, 0xFFF0, registers=4, first=0),
    )


DISTRIBUTOR: Final = (
    Range("gicd_ctlr", 0x0),
    Range("gicd_typer", 0x4),
    Range("gicd_iidr", 0x8),
    Range("gicd_typer2", 0xC),
    Range("gicd_statusr", 0x10),
    _per_irq("gicd_igroupr", 0x80, 1),
    _per_irq("gicd_isenabler", 0x100, 1),
    _per_irq("gicd_icenabler", 0x180, 1),
    _per_irq("gicd_ispendr", 0x200, 1),
    _per_irq("gicd_icpendr", 0x280, 1),
    _per_irq("gicd_isactiver", 0x300, 1),
    _per_irq("gicd_icactiver", 0x380, 1),
    _per_irq("gicd_ipriorityr", 0x400, 8),
    _per_irq("gicd_itargetsr", 0x800, 8),
    _per_irq("gicd_icfgr", 0xC00, 2),
    _per_irq("gicd_igrpmodr", 0xD00, 1),
    _per_irq("gicd_irouter", 0x6000, 64),
    *_identification("gicd"),
)
"""The distributor's frame, in the order of offsets."""
_SGI: Final = 0x10000
_PRIVATE: Final = LAST_PRIVATE + 1
REDISTRIBUTOR: Final = (
    Range("gicr_ctlr", 0x0),
    Range("gicr_iidr", 0x4),
    Range("gicr_typer", 0x8, 8),
    Range("gicr_waker", 0x14),
    Range("gicr_propbaser", 0x70, 8),
    Range("gicr_pendbaser", 0x78, 8),
    Range("gicr_invlpir", 0xA0, 8),
    Range("gicr_invallr", 0xB0, 8),
    Range("gicr_syncr", 0xC0),
    *_identification("gicr"),
    _per_irq("gicr_igroupr0", _SGI + 0x80, 1, _PRIVATE),
    _per_irq("gicr_isenabler0", _SGI + 0x100, 1, _PRIVATE),
    _per_irq("gicr_icenabler0", _SGI + 0x180, 1, _PRIVATE),
    _per_irq("gicr_ispendr0", _SGI + 0x200, 1, _PRIVATE),
    _per_irq("gicr_icpendr0", _SGI + 0x280, 1, _PRIVATE),
    _per_irq("gicr_isactiver0", _SGI + 0x300, 1, _PRIVATE),
    _per_irq("gicr_icactiver0", _SGI + 0x380, 1, _PRIVATE),
    _per_irq("gicr_ipriorityr", _SGI + 0x400, 8, _PRIVATE),
    _per_irq("gicr_icfgr", _SGI + 0xC00, 2, _PRIVATE),
    _per_irq("gicr_igrpmodr0", _SGI + 0xD00, 1, _PRIVATE),
    Range("gicr_nsacr", _SGI + 0xE00),
)
"""A redistributor's two frames, one behind the other, in the order of offsets."""
TRANSLATOR: Final = (
    Range("gits_ctlr", 0x0),
    Range("gits_iidr", 0x4),
    Range("gits_typer", 0x8, 8),
    Range("gits_cbaser", 0x80, 8),
    Range("gits_cwriter", 0x88, 8),
    Range("gits_creadr", 0x90, 8),
    Range("gits_baser", 0x100, 8, 8, first=0),
    *_identification("gits"),
)
"""An ITS's frame of registers, in the order of offsets."""
FRAMES: Final[dict[int, tuple[Range, ...]]] = {DIST: DISTRIBUTOR, REDIST: REDISTRIBUTOR, ITS: TRANSLATOR}
"""The registers of each group."""
FRAME_NAMES: Final = {DIST: "gicd", REDIST: "gicr", ITS: "gits"}
REGISTERS: Final = frozenset({DIST, REDIST, LEVEL, CPU, ITS})
"""The groups whose attributes are state of the interrupt controllers."""
DEVICE: Final = "device"
"""The kind of file that has these attributes."""
ENCODING_MASK: Final = int(uapi.KVM_DEV_ARM_VGIC_SYSREG_INSTR_MASK)


def _encoding(crn: int, crm: int, op2: int, op1: int = 0) -> int:
    """A system register with op0 = 3 as attributes have it: the fields of KVM_GET_ONE_REG's IDs."""
    return int(uapi.ARM64_SYS_REG(3, op1, crn, crm, op2)) & ENCODING_MASK


CPU_REGISTERS: Final = {
    "icc_pmr_el1": _encoding(4, 6, 0),
    "icc_bpr0_el1": _encoding(12, 8, 3),
    **{f"icc_ap0r{index}_el1": _encoding(12, 8, 4 + index) for index in range(4)},
    **{f"icc_ap1r{index}_el1": _encoding(12, 9, index) for index in range(4)},
    "icc_bpr1_el1": _encoding(12, 12, 3),
    "icc_ctlr_el1": _encoding(12, 12, 4),
    "icc_sre_el1": _encoding(12, 12, 5),
    "icc_igrpen0_el1": _encoding(12, 12, 6),
    "icc_igrpen1_el1": _encoding(12, 12, 7),
    **{f"ich_ap0r{index}_el2": _encoding(12, 8, index, 4) for index in range(4)},
    **{f"ich_ap1r{index}_el2": _encoding(12, 9, index, 4) for index in range(4)},
    "icc_sre_el2": _encoding(12, 9, 5, 4),
    "ich_hcr_el2": _encoding(12, 11, 0, 4),
    "ich_vtr_el2": _encoding(12, 11, 1, 4),
    "ich_vmcr_el2": _encoding(12, 11, 7, 4),
    **{f"ich_lr{index}_el2": _encoding(12, 12 + index // 8, index % 8, 4) for index in range(16)},
}
"""The registers of a vCPU's GIC CPU interface, by name; those of EL2 are a hypervisor's in the guest."""
_CPU_NAMES: Final = {encoding: name for name, encoding in CPU_REGISTERS.items()}


class Place(NamedTuple):
    """A word of a register: the range, the register's number in it from 0 on, and whether it is the upper word.

    ``first_irq`` is the first interrupt that it is about, 0 if there is none.
    """

    range: Range
    number: int
    high: bool
    first_irq: int


def _places(ranges: tuple[Range, ...]) -> Iterator[tuple[int, Place]]:
    for range_ in ranges:
        for offset in range(range_.offset, range_.end, WORD_BYTES):
            number, within = divmod(offset - range_.offset, range_.size_bytes)
            irq = number * 8 * range_.size_bytes // range_.irq_bits if range_.irq_bits else 0
            yield offset, Place(range_, number, within > 0, irq)


@cache
def places(group: int) -> dict[int, Place]:
    """What is at each offset of a group's frame at which there is a word of a register."""
    return dict(_places(FRAMES[group]))


def registers_of_vgic(affinities: Iterable[int], irqs: int) -> Iterator[tuple[int, int]]:
    """Group and number of each register of a vGIC with vCPUs of these affinities and ``irqs`` interrupts."""
    for offset, place in places(DIST).items():
        if not place.range.irq_bits or place.first_irq < irqs:
            yield DIST, offset
    for first in range(_PRIVATE, irqs, IRQS_OF_A_WORD):
        yield LEVEL, first
    for affinity in affinities:
        own = affinity << AFFINITY_SHIFT
        yield LEVEL, own
        for group, numbers in ((REDIST, places(REDIST)), (CPU, CPU_REGISTERS.values())):
            for number in numbers:
                yield group, own | number


def affinity_of(vcpu: int) -> int:
    """The affinity, as attributes have it, that KVM gives the vCPU with this ID: 16 vCPUs to a cluster."""
    return vcpu & 0xF | (vcpu >> 4 & 0xFF) << 8 | (vcpu >> 12 & 0xFF) << 16


def name_of(group: int, attr: int) -> str:
    """Returns the name of an attribute of a vGIC or an ITS; ``group/attr`` as numbers for one without a name."""
    affinity, offset = attr >> AFFINITY_SHIFT, attr & OFFSET_MASK
    if group in FRAMES:
        own = _cpu(affinity) if affinity or group == REDIST else ""
        place = places(group).get(offset)
        return f"{FRAME_NAMES[group]}+{offset:#x}{own}" if place is None else _register(place, own)
    if group == CPU and offset in _CPU_NAMES:
        return f"{_CPU_NAMES[offset]}{_cpu(affinity)}"
    if group == LEVEL and offset < MOST_IRQS:
        return f"{_LINE_LEVEL}{_cpu(affinity) if affinity or offset <= LAST_PRIVATE else ''}[{offset}]"
    return FIXED.get((group, attr), f"{group}/{attr:#x}")


def _register(place: Place, own: str) -> str:
    index = "" if place.range.first is None else f"[{place.range.first + place.number}]"
    return f"{place.range.name}{own}{index}{_HIGH if place.high else ''}"


def _cpu(affinity: int) -> str:
    """A vCPU in brackets."""
    levels = [affinity >> shift & 0xFF for shift in (24, 16, 8, 0)]
    vcpu = levels[1] << 12 | levels[2] << 4 | levels[3]
    return f"[cpu{vcpu}]" if affinity_of(vcpu) == affinity else f"[{'.'.join(map(str, levels))}]"


_NAME: Final = re.compile(
    r"(?P<name>[a-z][a-z0-9_]*)(?:\+(?P<offset>0x[0-9a-f]{1,8}))?"
    r"(?:\[(?:cpu(?P<vcpu>[0-9]{1,7})|(?P<levels>[0-9]{1,3}(?:\.[0-9]{1,3}){3}))\])?"
    r"(?:\[(?P<index>[0-9]{1,4})\])?(?P<high>\.high)?"
)
_NUMBERS: Final = re.compile(r"([0-9]{1,10})/(0x[0-9a-f]{1,16})")


def parse(name: str) -> tuple[int, int]:
    """Returns group and number of the attribute that a name stands for; UsageError if there is none.

    >>> parse("gicr_typer[0.0.1.20].high") == (5, 0x114 << 32 | 0xC)
    True
    """
    found = _attribute(name)
    if found is None or name_of(*found) != name:
        raise UsageError(f"{name[:80]!r} is not an attribute of a vGIC, such as gicd_isenabler[3] or gicr_typer[cpu1]")
    return found


def _attribute(name: str) -> tuple[int, int] | None:
    """An attribute whose name may be this one."""
    if numbers := _NUMBERS.fullmatch(name):
        return int(numbers[1]), int(numbers[2], 16)
    fixed = next((key for key, other in FIXED.items() if other == name), None)
    match = _NAME.fullmatch(name)
    if fixed or match is None:
        return fixed
    affinity = affinity_of(int(match["vcpu"] or 0))
    if match["levels"]:
        affinity = int.from_bytes(bytes(int(level) & 0xFF for level in match["levels"].split(".")), "big")
    index = int(match["index"] or 0)
    if match["name"] == _LINE_LEVEL:
        return LEVEL, affinity << AFFINITY_SHIFT | index
    if match["name"] in CPU_REGISTERS:
        return CPU, affinity << AFFINITY_SHIFT | CPU_REGISTERS[match["name"]]
    for group, ranges in FRAMES.items():
        if match["offset"] and match["name"] == FRAME_NAMES[group]:
            return group, affinity << AFFINITY_SHIFT | int(match["offset"], 16)
        for range_ in ranges:
            number = index - (range_.first or 0)
            if range_.name == match["name"] and 0 <= number < range_.registers:
                offset = range_.offset + number * range_.size_bytes + (WORD_BYTES if match["high"] else 0)
                return group, affinity << AFFINITY_SHIFT | offset
    return None
