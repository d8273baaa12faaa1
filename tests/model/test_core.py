# SPDX-License-Identifier: MIT
"""pstate's modes, and how a 32-bit one narrows x registers and pc."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmabi.errors import KvmError
from kvmabi.model import core

ONES = b"\xff" * 8
quick = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(mode=st.integers(0, 31), rest=st.integers(0, (1 << 59) - 1))
def test_pstate_takes_the_vcpus_modes_alone(make, mode: int, rest: int) -> None:
    """EL0 and EL1, and AArch32's user mode where the host has it; the other bits are stored as they are."""
    vcpu = make()
    data = (rest << 5 | mode).to_bytes(8, "little")
    if mode in (0, 4, 5) or (mode == 16 and vcpu.system.el0_32bit):
        vcpu.set_one_reg(core.PSTATE_ID, data)
        assert vcpu.get_one_reg(core.PSTATE_ID) == data
        return
    with pytest.raises(KvmError, match="EINVAL"):
        vcpu.set_one_reg(core.PSTATE_ID, data)


def test_a_32_bit_mode_narrows_x0_to_x14_and_pc(make) -> None:
    """At the write of pstate and at every later one of a core register; the effects name them."""
    vcpu = make(host="qemu-max")
    if not vcpu.system.el0_32bit:
        pytest.skip("the host has no AArch32")
    ids = [id for id, _, _ in (*core.X_REGISTERS, core.PC)]
    for id in ids:
        vcpu.set_one_reg(id, ONES)
    effects = vcpu.set_one_reg(core.PSTATE_ID, (0x10).to_bytes(8, "little"))
    narrowed = [*ids[: core.USER_REGISTERS], ids[-1]]
    assert [effect.id for effect in effects] == narrowed
    assert all((vcpu.get_one_reg(id) == b"\xff" * 4 + bytes(4)) == (id in narrowed) for id in ids)
    vcpu.set_one_reg(ids[3], ONES)
    assert vcpu.get_one_reg(ids[3]) == b"\xff" * 4 + bytes(4)
    vcpu.set_one_reg(core.PSTATE_ID, (5).to_bytes(8, "little"))
    vcpu.set_one_reg(ids[3], ONES)
    assert vcpu.get_one_reg(ids[3]) == ONES


@quick
@given(number=st.integers(0, 31), data=st.binary(min_size=16, max_size=16))
def test_v_reads_back(make, number: int, data: bytes) -> None:
    """On a vCPU without SVE."""
    vcpu = make()
    vcpu.set_one_reg(core.V_IDS[number], data)
    assert vcpu.get_one_reg(core.V_IDS[number]) == data
