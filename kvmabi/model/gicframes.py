# SPDX-License-Identifier: MIT
"""The registers of a vGICv3 as userspace reads and writes them: one rule for each name of kvmabi.gicnames.

An access is to an aligned word. Where there is no register, or only one of interrupts that the VM does not have, a read
is 0 and a write does nothing. Source: Documentation/virt/kvm/devices/arm-vgic-v3.rst, and the answers of Linux 6.1 to
7.3 in tests/golden/vgic, which agree except for what the switch ``gic_ids_before_init`` decides.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from kvmabi import gicnames
from kvmabi.gicnames import LAST_PRIVATE, Place
from kvmabi.model.gicstate import ALL, IRQS_OF_A_WORD, REVISIONS, Irqs, Redistributor
from kvmabi.model.refusal import Refusal
from kvmabi.model.vgic import Vgic

# Identification of KVM's distributor and redistributors: product, revision, implementer.
IIDR: Final = 0x4B00043B
REVISION_SHIFT: Final = 12
REVISION_MASK: Final = 0xF << REVISION_SHIFT
PIDR2: Final = 0x3B
ENABLE_GROUP1: Final = 1 << 1
ARE_AND_DS: Final = 1 << 4 | 1 << 6
TYPER_LPIS: Final = 1 << 17
TYPER_ID_BITS_SHIFT: Final = 19
ID_BITS, ID_BITS_WITH_LPIS = 10, 16
ENABLE_LPIS: Final = 1 << 0
DISABLE_LPIS_FEATURES: Final = 1 << 1 | 1 << 2
"""GICR_CTLR.CES and IR: LPIs can be disabled again, and registers invalidate them."""
TYPER_PLPIS, TYPER_LAST = 1 << 0, 1 << 4
VCPU_SHIFT, VCPU_MASK = 8, 0xFFFF
PRIORITY_MASK: Final = 0xF8F8F8F8
"""A priority has 5 bits."""
AFFINITY_MASK: Final = 0xFFFFFF
"""Aff2 to Aff0: KVM's GIC has no Aff3."""
PROPBASER_RES0: Final = 0x1F << 59 | 0xF << 52 | 0x3 << 5
PENDBASER_RES0: Final = 1 << 63 | 1 << 62 | 0x7 << 59 | 0xF << 52 | 0xF << 12 | 0x7F
"""Bit 62, PTZ, is written only."""
SHAREABILITY, INNER_CACHE, OUTER_CACHE = (10, 0x3), (7, 0x7), (56, 0x7)
"""Fields of PROPBASER and PENDBASER: place and mask."""
OUTER_SHAREABLE, INNER_SHAREABLE = 2, 1
DEVICE_CACHES, WRITE_BACK = (0, 1), 3
OUTER_CACHES: Final = (0, 1)
"""Outer caches that are kept: the same as the inner one, and none."""

NOT_THIS_GIC = Refusal(
    errno.EINVAL, "GICD_IIDR names another GIC: only its revision can be changed, to 2 or 3", "write what was read"
)
NO_SUCH_FEATURE = Refusal(errno.EINVAL, "this host's GIC has nothing that GICD_TYPER2 shows", "write what was read")
FIXED_FEATURES = Refusal(
    errno.EBUSY, "GICD_TYPER2 is fixed once the vGIC is initialised", "write it before KVM_DEV_ARM_VGIC_CTRL_INIT"
)


class Access(NamedTuple):
    """An access to a word of a register: in the vGIC, at the vCPU with an ID, by the affinity that the VMM gave."""

    vgic: Vgic
    place: Place
    vcpu: int
    affinity: int

    @property
    def redistributor(self) -> Redistributor:
        """The vCPU's."""
        return self.vgic.state.redistributor(self.vcpu)

    @property
    def irqs(self) -> Irqs | None:
        """The interrupts that the register is about; None in the distributor for those that are a vCPU's own."""
        irq = self.place.first_irq
        if irq <= LAST_PRIVATE and self.place.range.name.startswith(DIST_PREFIX):
            return None
        return self.vgic.state.irqs(irq, self.vcpu)


DIST_PREFIX: Final = gicnames.FRAME_NAMES[gicnames.DIST]


class Rule(NamedTuple):
    """What a read returns, and what a write does (None: nothing)."""

    read: Callable[[Access], int]
    write: Callable[[Access, int], None] | None = None


# --- a bit for each interrupt


def _bits(field: str, access: Access) -> int:
    irqs = access.irqs
    return 0 if irqs is None else int(getattr(irqs, field))


def _write_bits(field: str, change: Callable[[int, int], int], access: Access, value: int) -> None:
    irqs = access.irqs
    if irqs is not None:
        setattr(irqs, field, change(getattr(irqs, field), value))


def _replaced(_old: int, value: int) -> int:
    return value


def _set(old: int, value: int) -> int:
    return old | value


def _cleared(old: int, value: int) -> int:
    return old & ~value


def _of_irqs(field: str, change: Callable[[int, int], int]) -> Rule:
    return Rule(partial(_bits, field), partial(_write_bits, field, change))


def _set_active(access: Access, value: int) -> None:
    access.redistributor.irqs.active |= value & ~access.redistributor.mapped


def _clear_active(access: Access, value: int) -> None:
    access.redistributor.irqs.active &= ~(value & ~access.redistributor.mapped)


# --- more than a bit


def _priorities(access: Access) -> int:
    irqs = access.irqs
    return 0 if irqs is None else irqs.priorities[access.place.number % len(irqs.priorities)]


def _set_priorities(access: Access, value: int) -> None:
    irqs = access.irqs
    if irqs is not None:
        irqs.priorities[access.place.number % len(irqs.priorities)] = value & PRIORITY_MASK


IRQS_OF_ICFGR: Final = 16


def _configuration(access: Access) -> int:
    """Two bits for each interrupt, of which the upper one is set where it is edge-triggered."""
    irqs = access.irqs
    if irqs is None:
        return 0
    shift = access.place.first_irq % IRQS_OF_A_WORD
    return sum((irqs.edge >> shift + n & 1) << 2 * n + 1 for n in range(IRQS_OF_ICFGR))


def _set_configuration(access: Access, value: int) -> None:
    """Only of interrupts that the vCPUs share."""
    irqs, shift = access.irqs, access.place.first_irq % IRQS_OF_A_WORD
    if irqs is None or access.place.first_irq <= LAST_PRIVATE:
        return
    edge = sum((value >> 2 * n + 1 & 1) << n for n in range(IRQS_OF_ICFGR))
    irqs.edge = irqs.edge & ~(((1 << IRQS_OF_ICFGR) - 1) << shift) | edge << shift


def _router(access: Access) -> int:
    return 0 if access.place.high else access.vgic.state.routers.get(access.place.first_irq, 0)


def _set_router(access: Access, value: int) -> None:
    irq = access.place.first_irq
    if irq > LAST_PRIVATE and not access.place.high:
        access.vgic.state.routers[irq] = value & AFFINITY_MASK


# --- the distributor


def _ctlr(access: Access) -> int:
    return ARE_AND_DS | (ENABLE_GROUP1 if access.vgic.state.enabled else 0)


def _set_ctlr(access: Access, value: int) -> None:
    access.vgic.state.enabled = bool(value & ENABLE_GROUP1)


def _typer(access: Access) -> int:
    vgic = access.vgic
    features = TYPER_LPIS if vgic.state.has_its else 0
    id_bits = ID_BITS_WITH_LPIS if vgic.state.has_its else ID_BITS
    return (id_bits - 1) << TYPER_ID_BITS_SHIFT | features | (vgic.irqs // IRQS_OF_A_WORD - 1)


def _iidr(access: Access) -> int:
    return IIDR | access.vgic.state.revision << REVISION_SHIFT


def _set_iidr(access: Access, value: int) -> None:
    """Set the revision, the only field that can change."""
    revision = (value & REVISION_MASK) >> REVISION_SHIFT
    if value & ~REVISION_MASK != IIDR or revision not in REVISIONS:
        raise NOT_THIS_GIC.error()
    access.vgic.state.revision = revision


def _set_typer2(access: Access, value: int) -> None:
    vgic = access.vgic
    if value:
        raise (FIXED_FEATURES if vgic.initialized and vgic.ids_before_init else NO_SUCH_FEATURE).error()


# --- a redistributor


def _gicr_ctlr(access: Access) -> int:
    features = DISABLE_LPIS_FEATURES if access.vgic.state.revision >= REVISIONS[-1] else 0
    return features | (ENABLE_LPIS if access.redistributor.lpis_enabled else 0)


def _set_gicr_ctlr(access: Access, value: int) -> None:
    if access.vgic.state.has_its:
        access.redistributor.lpis_enabled = bool(value & ENABLE_LPIS)


def _gicr_iidr(_access: Access) -> int:
    return IIDR


def _gicr_typer(access: Access) -> int:
    if access.place.high:
        return access.affinity & AFFINITY_MASK
    vgic = access.vgic
    flags = (TYPER_PLPIS if vgic.state.has_its else 0) | (TYPER_LAST if vgic.is_last(access.vcpu) else 0)
    return (access.vcpu & VCPU_MASK) << VCPU_SHIFT | flags


def _half(access: Access, whole: int) -> int:
    return whole >> 32 if access.place.high else whole & ALL


def _with_half(access: Access, whole: int, value: int) -> int:
    return value << 32 | whole & ALL if access.place.high else whole & ALL << 32 | value


def _propbaser(access: Access) -> int:
    return _half(access, access.vgic.state.propbaser)


def _set_propbaser(access: Access, value: int) -> None:
    """One register for all redistributors; it is fixed at a vCPU whose LPIs are enabled."""
    if not access.redistributor.lpis_enabled:
        state = access.vgic.state
        state.propbaser = sanitised(_with_half(access, state.propbaser, value), PROPBASER_RES0)


def _pendbaser(access: Access) -> int:
    return _half(access, access.redistributor.pendbaser)


def _set_pendbaser(access: Access, value: int) -> None:
    redistributor = access.redistributor
    if not redistributor.lpis_enabled:
        redistributor.pendbaser = sanitised(_with_half(access, redistributor.pendbaser, value), PENDBASER_RES0)


def sanitised(base: int, res0: int) -> int:
    """A table's base register: memory that KVM cannot honour becomes inner shareable and write-back."""
    base &= ~res0
    base = _changed(base, SHAREABILITY, lambda kind: INNER_SHAREABLE if kind == OUTER_SHAREABLE else kind)
    base = _changed(base, INNER_CACHE, lambda kind: WRITE_BACK if kind in DEVICE_CACHES else kind)
    return _changed(base, OUTER_CACHE, lambda kind: kind if kind in OUTER_CACHES else OUTER_CACHES[0])


def _changed(base: int, field: tuple[int, int], change: Callable[[int], int]) -> int:
    shift, mask = field
    return base & ~(mask << shift) | change(base >> shift & mask) << shift


def _constant(value: int, _access: Access) -> int:
    return value


def _pidr(access: Access) -> int:
    return PIDR2 if access.place.range.first == 0 and access.place.number == 2 else 0


NOTHING: Final = Rule(partial(_constant, 0))
"""Reads as 0 and ignores writes."""

RULES: Final[dict[str, Rule]] = {
    "gicd_ctlr": Rule(_ctlr, _set_ctlr),
    "gicd_typer": Rule(_typer),
    "gicd_iidr": Rule(_iidr, _set_iidr),
    "gicd_typer2": Rule(partial(_constant, 0), _set_typer2),
    "gicd_statusr": Rule(partial(_constant, ALL)),
    "gicd_igroupr": _of_irqs("group", _replaced),
    "gicd_isenabler": _of_irqs("enabled", _set),
    "gicd_icenabler": _of_irqs("enabled", _cleared),
    "gicd_ispendr": _of_irqs("latch", _replaced),
    "gicd_icpendr": NOTHING,
    "gicd_isactiver": _of_irqs("active", _set),
    "gicd_icactiver": _of_irqs("active", _cleared),
    "gicd_ipriorityr": Rule(_priorities, _set_priorities),
    "gicd_itargetsr": NOTHING,
    "gicd_icfgr": Rule(_configuration, _set_configuration),
    "gicd_igrpmodr": NOTHING,
    "gicd_irouter": Rule(_router, _set_router),
    "gicd_pidr": Rule(_pidr),
    "gicd_cidr": NOTHING,
    "gicr_ctlr": Rule(_gicr_ctlr, _set_gicr_ctlr),
    "gicr_iidr": Rule(_gicr_iidr),
    "gicr_typer": Rule(_gicr_typer),
    "gicr_waker": NOTHING,
    "gicr_propbaser": Rule(_propbaser, _set_propbaser),
    "gicr_pendbaser": Rule(_pendbaser, _set_pendbaser),
    "gicr_invlpir": NOTHING,
    "gicr_invallr": NOTHING,
    "gicr_syncr": NOTHING,
    "gicr_pidr": Rule(_pidr),
    "gicr_cidr": NOTHING,
    "gicr_igroupr0": _of_irqs("group", _replaced),
    "gicr_isenabler0": _of_irqs("enabled", _set),
    "gicr_icenabler0": _of_irqs("enabled", _cleared),
    "gicr_ispendr0": _of_irqs("latch", _replaced),
    "gicr_icpendr0": NOTHING,
    "gicr_isactiver0": Rule(partial(_bits, "active"), _set_active),
    "gicr_icactiver0": Rule(partial(_bits, "active"), _clear_active),
    "gicr_ipriorityr": Rule(_priorities, _set_priorities),
    "gicr_icfgr": Rule(_configuration, _set_configuration),
    "gicr_igrpmodr0": NOTHING,
    "gicr_nsacr": NOTHING,
}
"""What each register is; its place, size and bits are in kvmabi.gicnames."""
IDENTIFICATION: Final = frozenset({"gicd_iidr", "gicd_typer2"})
"""Registers that later kernels have before the vGIC is initialised."""


def find(vgic: Vgic, group: int, offset: int) -> Place | None:
    """The word at an offset of a group's frame; None where it is not aligned, or of interrupts beyond the vGIC's."""
    place = gicnames.places(group).get(offset)
    return None if place is None or (place.range.irq_bits and place.first_irq >= vgic.irqs) else place


def read(access: Access) -> int:
    """The word that a get returns."""
    return RULES[access.place.range.name].read(access)


def write(access: Access, value: int) -> None:
    """A set of the word. Errors: EINVAL and EBUSY, of the identification registers only."""
    change = RULES[access.place.range.name].write
    if change is not None:
        change(access, value)
