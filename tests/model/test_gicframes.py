# SPDX-License-Identifier: MIT
"""Registers of a vGIC on the model alone: every name has a rule, and no write leads anywhere that a VMM cannot read."""

from __future__ import annotations

import errno
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi import gicnames
from kvmabi.errors import KvmError
from kvmabi.gicnames import DIST, REDIST
from kvmabi.model import gicframes, vgicattrs
from kvmabi.model.gicframes import PENDBASER_RES0, PROPBASER_RES0, RULES, Access, sanitised
from kvmabi.model.vgic import REDIST_BYTES, Vgic
from kvmabi.model.vm import Vm
from model.conftest import Make

WORDS = st.integers(0, 2**32 - 1)
WHOLE = "igroupr ispendr ipriorityr icfgr irouter"
"""Registers of shared interrupts that a write replaces as a whole."""


def initialized(irqs: int = 96, *, has_its: bool = True) -> Vgic:
    """A vGIC with two vCPUs' redistributors."""
    vgic = Vgic(40, has_its=has_its)
    vgic.set_dist(0x8000000)
    vgic.set_redist(0x80A0000, range(2))
    vgic.set_irqs(irqs)
    vgic.init()
    return vgic


def test_every_register_has_a_rule() -> None:
    """And every rule a register."""
    assert RULES.keys() == {one.name for group in (DIST, REDIST) for one in gicnames.FRAMES[group]}


@given(
    writes=st.lists(st.tuples(st.sampled_from((DIST, REDIST)), st.integers(0, 4500), st.integers(0, 1), WORDS)),
    irqs=st.sampled_from((64, 96, 992)),
)
def test_writes_leave_words(writes: list[tuple[int, int, int, int]], irqs: int) -> None:
    """Whatever is written, every register is a word afterwards, and only identification registers refuse."""
    vgic = initialized(irqs)
    for group, number, vcpu, value in writes:
        offsets = sorted(gicnames.places(group))
        place = gicframes.find(vgic, group, offsets[number % len(offsets)])
        if place is None:
            continue
        access = Access(vgic, place, vcpu, vcpu)
        refuses = place.range.name in ("gicd_iidr", "gicd_typer2")
        with suppress(KvmError) if refuses else nullcontext():
            gicframes.write(access, value)
        assert 0 <= gicframes.read(access) < 1 << 32


@pytest.mark.parametrize("irq", [32, 63, 64, 95])
@pytest.mark.parametrize("name", WHOLE.split())
def test_an_interrupt_has_bits_of_its_own(name: str, irq: int) -> None:
    """A write of one interrupt's bits changes no other interrupt's."""
    vgic = initialized()
    (found,) = (one for one in gicnames.DISTRIBUTOR if one.name == f"gicd_{name}")
    places = [gicnames.places(DIST)[offset] for offset in range(found.offset, found.end, 4)]
    shown = [place for place in places if 32 <= place.first_irq < vgic.irqs and not place.high]
    accesses = [Access(vgic, place, 0, 0) for place in shown]
    for access in accesses:
        gicframes.write(access, 0)
    irqs_in_one = 32 // min(32, found.irq_bits)
    mine = next(access for access in accesses if access.place.first_irq <= irq < access.place.first_irq + irqs_in_one)
    shift = irq % irqs_in_one * found.irq_bits
    gicframes.write(mine, (1 << min(32, found.irq_bits)) - 1 << shift)
    for access in accesses:
        value = gicframes.read(access)
        assert bool(value) == (access is mine)
        assert value & ~((1 << found.irq_bits) - 1 << shift) == 0


@given(base=st.integers(0, 2**64 - 1), res0=st.sampled_from((PROPBASER_RES0, PENDBASER_RES0)))
def test_what_was_read_can_be_written(base: int, res0: int) -> None:
    """A table's base register that KVM gave out is one that it takes as it is."""
    once = sanitised(base, res0)
    assert sanitised(once, res0) == once
    assert once & res0 == 0


@pytest.mark.parametrize(
    ("regions", "last"),
    [
        ([(2, 0)], {1}),
        ([(1, 0), (1, 1)], {1}),
        ([(1, 0), (1, 4)], {0, 1}),
        ([(1, 1), (1, 0)], {0}),
        ([(2, 0), (1, 2)], {1}),
    ],
)
def test_the_last_redistributor(regions: list[tuple[int, int]], last: set[int]) -> None:
    """Regions by place and number of frames, in units of a redistributor."""
    vgic = Vgic(40)
    for index, (frames, place) in enumerate(regions):
        vgic.add_region(frames << 52 | 0x9000000 + place * REDIST_BYTES | index, range(2))
    assert {vcpu for vcpu in range(3) if vgic.is_last(vcpu)} == last


def test_the_distributor_needs_a_vcpu(make: Make) -> None:
    """EINVAL in a VM without one, and in one without the vCPU that a redistributor's attribute names."""
    vcpu = make()
    vm = vcpu.vm
    assert isinstance(vm, Vm)
    vgic = vm.create_vgic()
    for group, attr in ((REDIST, 1 << 32), (REDIST, 1 << 56)):
        with pytest.raises(KvmError) as caught:
            vgicattrs.has_register(vm, vgic, group, attr)
        assert caught.value.errno == errno.EINVAL
    assert vgicattrs.has_register(vm, vgic, DIST, 1 << 32)
