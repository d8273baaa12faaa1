# SPDX-License-Identifier: MIT
"""The truth of whole runs has a second witness: what KVM_GET_ONE_REG reads at the same moment."""

from __future__ import annotations

import pytest

from kvmabi import KvmError
from kvmabi.kvm import Vcpu
from kvmabi.testing.vmms import stage
from kvmabi.testing.vmms.machine import get_mp_state
from kvmabi.testing.vmms.play import play
from kvmabi.testing.vmms.truth import FREE_RUNNING, STATUS_BITS, State, state_of

MOVING = FREE_RUNNING | STATUS_BITS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_truth_is_what_ioctls_read(wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state that a run is judged by is that of KVM_GET_REG_LIST, KVM_GET_ONE_REG and KVM_GET_MP_STATE."""
    witnessed = 0

    def state_with_witness(vcpu: Vcpu) -> State:
        nonlocal witnessed
        state = state_of(vcpu)
        assert get_mp_state(vcpu) == state.mp_state
        try:
            ids = vcpu.reg_list()
        except KvmError:  # not finalised
            return state
        assert state.values.keys() == set(ids)
        assert {id: vcpu[id] for id in ids if id not in MOVING} == {
            id: value for id, value in state.values.items() if id not in MOVING
        }
        witnessed += 1
        return state

    monkeypatch.setattr(stage, "state_of", state_with_witness)
    for seed in range(20):
        kvm, _ = play(seed, wrong=wrong, checked=False)
        kvm.close()
    assert witnessed >= 20
