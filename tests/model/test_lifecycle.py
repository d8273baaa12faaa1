# SPDX-License-Identifier: MIT
"""INIT's reset: the same from every state, except for what it preserves."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmabi import regid
from kvmabi.errors import KvmError
from kvmabi.model import lifecycle, state
from model.conftest import attempt, init, still

SETS = [(), ("psci_0_2",), ("sve",), ("sme",), ("sve", "sme", "psci_0_2"), ("pmu_v3",)]


@pytest.mark.parametrize("features", SETS, ids=lambda names: "+".join(names) or "none")
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_reset_forgets_what_was_written(make, features: tuple[str, ...], data: st.DataObject) -> None:
    """Registers written in between do not show after INIT again, unless they are the VM's or among those that INIT
    keeps (PMCR_EL0.N, the number of counters, is the VM's); a second INIT changes nothing more."""
    vcpu = make(*features)
    fresh = still(vcpu)
    preserved = {
        reg.id for reg in vcpu.system.sysregs if reg.kept or reg.rule.startswith("counter") or reg.rule == "pmcr"
    }
    preserved |= {row.id for row in vcpu.map.rows.values() if row.offset in state.BANKED_EL1}
    rows = [row for row in vcpu.map.rows.values() if row.set is None and not row.shared and row.id not in preserved]
    for row in data.draw(st.lists(st.sampled_from(rows), max_size=6)):
        if regid.name_of(row.id).startswith("ccsidr"):
            continue
        value = data.draw(st.binary(min_size=row.valid_bytes, max_size=row.valid_bytes))
        assert attempt(vcpu, row.id, value) in {"OK", "EINVAL", "EBUSY", "EPERM"}
    init(vcpu, *features)
    once = still(vcpu)
    assert {id for id in fresh if once.get(id) != fresh[id]} <= preserved
    init(vcpu, *features)
    assert still(vcpu) == once


def test_finalize_comes_once(make) -> None:
    """EPERM the second time, EINVAL for a vCPU without vectors or another feature."""
    vcpu = make("sve", final=True)
    for other, feature, error in ((vcpu, 4, "EPERM"), (vcpu, 5, "EINVAL"), (make(), 4, "EINVAL")):
        with pytest.raises(KvmError, match=error):
            lifecycle.finalize(other, feature)


def test_lengths_stay_once_finalised(make) -> None:
    """INIT again leaves the vCPU finalised, in SVCR = 0."""
    vcpu = make("sve", "sme", final=True)
    vcpu.set_one_reg(regid.parse("svcr"), (3).to_bytes(8, "little"))
    init(vcpu, "sve", "sme")
    assert vcpu.mode.finalized
    assert vcpu.mode.svcr == 0


@pytest.mark.parametrize("features", [("sve",), ()])
def test_features_cannot_change(make, features: tuple[str, ...]) -> None:
    """EINVAL, and the vCPU is as it was."""
    vcpu = make("psci_0_2")
    before = vcpu.mode
    with pytest.raises(KvmError, match="EINVAL"):
        init(vcpu, *features)
    assert vcpu.mode == before
