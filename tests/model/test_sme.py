# SPDX-License-Identifier: MIT
"""What a write of SVCR does to every other register."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmabi import regid
from kvmabi.errors import KvmError
from kvmabi.model import core, sme, sve
from model.conftest import still

SVCR = regid.parse("svcr")
FEATURES = [("sve", "sme"), ("sme",)]


def is_streaming_state(id: int) -> bool:
    """Whether a change of SM resets the register."""
    return id in {*core.V_IDS, *sve.Z_IDS, *sve.P_IDS, sve.FFR_ID, core.FPSR_ID, sme.FPMR_ID}


def write(vcpu, value: int):
    """Write SVCR."""
    return vcpu.set_one_reg(SVCR, value.to_bytes(8, "little"))


def fill(vcpu) -> None:
    """Put a pattern into every register of vector state that can be written now."""
    for id, row in list(vcpu.map.rows.items()):
        if row.set is None and (is_streaming_state(id) or id in sme.ZA_IDS or id == sme.ZT0_ID):
            vcpu.set_one_reg(id, bytes([0x11]) * row.valid_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("features", FEATURES, ids="+".join)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_effects_are_the_registers_that_changed(make, features: tuple[str, ...], path: list[int]) -> None:
    """SM resets V, Z, P, FFR, FPSR and FPMR when it changes, ZA and ZT0 are zero when ZA begins; nothing else moves."""
    vcpu = make(*features, final=True)
    for value in path:
        fill(vcpu)
        before, old = still(vcpu), vcpu.mode
        effects = {effect.id for effect in write(vcpu, value)}
        after = still(vcpu)
        assert vcpu.mode.svcr == value == int.from_bytes(after[SVCR], "little")
        changed = {id for id in before.keys() & after.keys() if before[id] != after[id]} - {SVCR}
        assert changed <= effects
        assert all(is_streaming_state(id) for id in changed)
        assert effects == set() or old.svcr != value
        if bool(value & 1) != old.sm:
            assert not any(any(after[id]) for id in (*sve.Z_IDS, *core.V_IDS) if id in after)
            assert after[core.FPSR_ID] == sme.FPSR_RESET
        if value & 2 and not old.za:
            assert not any(any(after[id]) for id in (*sme.ZA_IDS, sme.ZT0_ID) if id in after)


@pytest.mark.parametrize("value", [4, 1 << 63, 7])
def test_other_bits_are_refused(make, value: int) -> None:
    """And nothing changes."""
    vcpu = make("sve", "sme", final=True)
    before = still(vcpu)
    with pytest.raises(KvmError, match="EINVAL"):
        write(vcpu, value)
    assert still(vcpu) == before


@pytest.mark.parametrize("svcr", range(4))
def test_za_is_accessible_only_while_it_is_on(make, svcr: int) -> None:
    """EBUSY otherwise, and not listed."""
    vcpu = make("sve", "sme", final=True)
    write(vcpu, svcr)
    assert (sme.ZA_IDS[0] in vcpu.reg_list()) == bool(svcr & 2)
    if svcr & 2:
        assert vcpu.get_one_reg(sme.ZA_IDS[0]) == bytes(256)
    else:
        with pytest.raises(KvmError, match="EBUSY"):
            vcpu.get_one_reg(sme.ZA_IDS[0])
