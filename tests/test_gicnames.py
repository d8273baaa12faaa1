# SPDX-License-Identifier: MIT
"""Names of a vGIC's attributes: every attribute has one, and a name is that of one attribute only."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvmabi import gicnames
from kvmabi.errors import UsageError

AFFINITIES = st.one_of(st.just(0), st.integers(0, 600).map(gicnames.affinity_of), st.integers(0, 2**32 - 1))
OFFSETS = st.one_of(st.sampled_from([*gicnames.places(1), *gicnames.places(5)]), st.integers(0, 2**32 - 1))


@given(group=st.one_of(st.sampled_from((1, 5, 7)), st.integers(0, 12)), affinity=AFFINITIES, offset=OFFSETS)
@example(group=6, affinity=0, offset=0xC230)
def test_a_name_leads_back(group: int, affinity: int, offset: int) -> None:
    """Whatever a VMM asks for has a name, which stands for the same attribute."""
    attr = affinity << 32 | offset
    assert gicnames.parse(gicnames.name_of(group, attr)) == (group, attr)


@pytest.mark.parametrize(
    ("name", "group", "attr"),
    [
        ("gicd_ctlr", 1, 0),
        ("gicd_isenabler[3]", 1, 0x10C),
        ("gicd_irouter[40]", 1, 0x6140),
        ("gicd_irouter[40].high", 1, 0x6144),
        ("gicd_pidr[2]", 1, 0xFFE8),
        ("gicd+0x14", 1, 0x14),
        ("gicr_typer[cpu1]", 5, 1 << 32 | 8),
        ("gicr_ctlr[cpu16]", 5, 0x100 << 32),
        ("gicr_ctlr[0.0.0.16]", 5, 0x10 << 32),
        ("gicr_icfgr[cpu0][1]", 5, 0x10C04),
        ("line_level[32]", 7, 32),
        ("line_level[cpu2][0]", 7, 2 << 32),
        ("nr_irqs", 3, 0),
    ],
)
def test_names(name: str, group: int, attr: int) -> None:
    """The names of the GIC's specification, with the vCPU and the index."""
    assert gicnames.name_of(group, attr) == name
    assert gicnames.parse(name) == (group, attr)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gicd_ctlr[3]",
        "gicd_ctlr.high",
        "gicd_isenabler[32]",
        "gicd_isenabler[03]",
        "gicr_typer[300.0.0.1]",
        "x" * 999,
    ],
)
def test_what_is_not_a_name(name: str) -> None:
    """A name that no attribute has is misuse, in one short line."""
    with pytest.raises(UsageError) as caught:
        gicnames.parse(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("group", [1, 5])
def test_registers_do_not_overlap(group: int) -> None:
    """The tables are in the order of offsets, and no two registers share a byte."""
    ranges = gicnames.FRAMES[group]
    assert all(one.end <= other.offset for one, other in pairwise(ranges))
