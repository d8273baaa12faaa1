# SPDX-License-Identifier: MIT
"""Restores in random orders: the report is what comparing the registers shows, no more and no less."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmms import HOSTS, VLS, Saved, differing, guest, lost, opened, registers_lost, restore, save, vcpu_of

KINDS = {"sme": (0, 1, 2, 3), "both": (0, 1, 2, 3), "sve": (0,), "neither": (0,)}


@st.composite
def plans(draw: st.DrawFn, saved: Saved) -> list[str]:
    """An order in which registers are written: those that matter shuffled, with SVCR anywhere, some twice or never."""
    names = [name for name in saved if name not in VLS]
    order = draw(st.permutations(names))
    if draw(st.booleans()):
        order = order + draw(st.lists(st.sampled_from(names), max_size=20, unique=True))
    if draw(st.booleans()):
        dropped = draw(st.sets(st.sampled_from(names), max_size=20))
        order = [name for name in order if name not in dropped]
    return order


@pytest.mark.slow
@pytest.mark.parametrize(("of", "svcr"), [(of, svcr) for of, modes in KINDS.items() for svcr in modes])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_report_is_what_comparing_shows(of: str, svcr: int, data: st.DataObject) -> None:
    """The registers reported are those that have another value than the guest's; "not-saved" are those forgotten."""
    with opened(HOSTS[of]) as kvm:
        source = guest(kvm.create_vm(), svcr, seed=data.draw(st.integers(0, 254)))
        names = source.names()
        forgotten = data.draw(st.sets(st.sampled_from(names), max_size=10))
        saved = save(source, [name for name in names if name not in forgotten])
        target = vcpu_of(kvm.create_vm())
        restore(target, saved, data.draw(plans(saved)))
        reported, not_saved = lost(kvm), registers_lost(kvm).get("not-saved", set())
        differ = differing(target, save(source))
        assert reported == differ
        assert not_saved == (differ & forgotten) - {"svcr"}
