# SPDX-License-Identifier: MIT
"""Invariants of the register map, in every mode that a vCPU can be in."""

from __future__ import annotations

import errno
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmabi import regid, uapi
from kvmabi.model import reset, sme, state, vls
from kvmabi.model.mode import Mode
from kvmabi.model.row import refuse, size_of
from kvmabi.model.system import System
from kvmabi.profiles import load_host, load_kernel

KERNELS = ("linux-6.1", "linux-6.12", "linux-7.2", "linux-7.3", "sme-v9", "sme-v10", "sme-v12", "sme-forecast")
HOST = load_host("sme-demo")
SYSTEMS = {name: System(HOST, load_kernel(name)) for name in KERNELS}


def modes(name: str) -> list[Mode]:
    """Every combination of features, stage, lengths and SVCR that counts."""
    system = SYSTEMS[name]
    exposed = system.exposed(reset.image(system, frozenset()))
    combinations = []
    for sve, has_sme, final, sm, za in product((False, True), repeat=5):
        if (
            (has_sme and "sme" not in system.features)
            or ((sm or za) and not has_sme)
            or (final and not (sve or has_sme))
        ):
            continue
        features = frozenset(n for n, has in (("sve", sve), ("sme", has_sme), ("psci_0_2", True)) if has)
        for see in (exposed, exposed | {"sme2", "fa64", "fpmr"}):
            combinations.append(Mode(features, final, 2 if sve else 0, 8 if has_sme else 0, sm, za, see))
    return combinations


@pytest.mark.parametrize("name", KERNELS)
def test_every_row_fits_its_place(name: str) -> None:
    """A row's size is its ID's, its valid bytes are no more, and it lies within the register file."""
    for mode in modes(name):
        for id, row in SYSTEMS[name].map(mode).rows.items():
            assert row.id == id
            assert row.size_bytes == size_of(id)
            assert 0 <= row.valid_bytes <= row.size_bytes
            assert 0 <= row.offset <= row.offset + row.size_bytes <= state.SIZE_BYTES


@pytest.mark.parametrize("name", KERNELS)
def test_every_listed_register_can_be_read(name: str) -> None:
    """What KVM_GET_REG_LIST names answers a get, once finalised; v9 and v10 list what SVCR hides, too."""
    for mode in modes(name):
        regmap = SYSTEMS[name].map(mode)
        assert len(set(regmap.listed)) == len(regmap.listed)
        if mode.vector and not mode.finalized:
            continue
        closed = [id for id in regmap.listed if regmap.row(id).get is not None]
        follows = SYSTEMS[name].kernel.switches.reg_list_follows_svcr
        assert not closed or not follows
        assert {regid.name_of(id).partition("[")[0] for id in closed} <= {"za.h", "zt0", "ffr"}


@pytest.mark.parametrize("name", KERNELS)
def test_places_do_not_overlap(name: str) -> None:
    """Two rows share no byte unless they are two views of one register."""
    alias = SYSTEMS[name].kernel.switches.za_row_alias_rows < state.ZA_ROWS
    views = {row.offset for row in _shared(SYSTEMS[name])}
    for mode in modes(name):
        end = 0
        for row in sorted(SYSTEMS[name].map(mode).rows.values(), key=lambda row: (row.offset, row.id)):
            if row.offset in views or (alias and row.id in sme.ZA_IDS):
                continue
            assert row.offset >= end, row.name
            end = row.offset + row.size_bytes


def _shared(system: System):
    """Rows of system registers at the offset of another one."""
    seen: dict[int, int] = {}
    for reg in system.sysregs:
        seen[reg.slot] = seen.get(reg.slot, 0) + 1
    offsets = {state.sysreg_offset(slot) for slot, count in seen.items() if count > 1}
    mode = modes(system.kernel.name)[0]
    return [row for row in system.map(mode).rows.values() if row.offset in offsets]


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_what_has_no_row_is_refused(name: str, data: st.DataObject) -> None:
    """An id without a row answers neither get nor set, and is not listed; find, row and rows agree."""
    mode = data.draw(st.sampled_from(modes(name)))
    regmap = SYSTEMS[name].map(mode)
    id = data.draw(st.one_of(st.sampled_from(list(regmap.rows)), st.integers(0, (1 << 64) - 1), _near(regmap.listed)))
    row = regmap.row(id)
    assert row.id == id
    if id in regmap.rows:
        assert regmap.find(id) is row is regmap.rows[id]
        return
    assert regmap.find(id) is None
    assert id not in regmap.listed
    loose = SYSTEMS[name].kernel.switches.invariant_ids_loose
    if row.get is None:
        assert loose or row.partial
        return
    assert {row.get.errno, row.set.errno} <= {errno.ENOENT, errno.EINVAL, errno.EBUSY, errno.EPERM}


def _near(ids: list[int]) -> st.SearchStrategy[int]:
    """Ids that differ from a register's in one bit."""
    return st.builds(lambda id, bit: id ^ 1 << bit, st.sampled_from(ids), st.integers(0, 63))


def test_a_refusal_answers_nothing() -> None:
    """The row of an ID that names no register."""
    row = refuse(vls.SVE_ID, sme.NO_SME)
    assert (row.listed, row.get, row.set, row.size_bytes) == (False, sme.NO_SME, sme.NO_SME, 64)


@given(st.integers(0, (1 << 64) - 1))
def test_size_is_the_ids_field(id: int) -> None:
    """Bits 55:52 hold the size's logarithm."""
    assert size_of(id) == 1 << (id >> uapi.KVM_REG_SIZE_SHIFT & 15)


def test_maps_of_equal_modes_are_one() -> None:
    """They are made once."""
    mode = modes("sme-v12")[0]
    assert SYSTEMS["sme-v12"].map(mode) is SYSTEMS["sme-v12"].map(Mode(*mode))
