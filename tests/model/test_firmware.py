# SPDX-License-Identifier: MIT
"""The bitmaps of firmware services and PSCI's version."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmabi import uapi
from kvmabi.errors import KvmError

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(number=st.integers(0, 2), value=st.one_of(st.integers(0, 15), st.integers(0, (1 << 64) - 1)))
def test_a_bitmap_takes_the_kernels_bits_alone(make, number: int, value: int) -> None:
    """For all vCPUs of the VM."""
    one = make()
    other = make(vm=one.vm)
    id = uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(number)
    before = one.get_one_reg(id)
    data = value.to_bytes(8, "little")
    if value & ~one.system.kernel.firmware_bitmap_bits[number]:
        with pytest.raises(KvmError, match="EINVAL"):
            one.set_one_reg(id, data)
        data = before
    else:
        one.set_one_reg(id, data)
    assert one.get_one_reg(id) == other.get_one_reg(id) == data


@pytest.mark.parametrize("number", range(3))
def test_a_run_fixes_the_bitmaps(make, number: int) -> None:
    """EBUSY for another value, EINVAL still comes first, the value it has is taken."""
    vcpu = make()
    vcpu.vm.has_run = True
    id = uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(number)
    value = vcpu.get_one_reg(id)
    vcpu.set_one_reg(id, value)
    with pytest.raises(KvmError, match="EINVAL"):
        vcpu.set_one_reg(id, b"\xff" * 8)
    if any(value):
        with pytest.raises(KvmError, match="EBUSY"):
            vcpu.set_one_reg(id, bytes(8))


@quick
@given(psci=st.booleans(), version=st.one_of(st.integers(0, 4), st.integers(0x10000, 0x10008), st.integers(0, 1 << 63)))
def test_psci_versions_follow_the_feature(make, psci: bool, version: int) -> None:
    """With PSCI_0_2 those that the kernel offers, without it 0.1 alone."""
    vcpu = make(*["psci_0_2"][:psci])
    kernel = vcpu.system.kernel
    id, data = uapi.KVM_REG_ARM_FW_REG(0), version.to_bytes(8, "little")
    if version in (kernel.psci_versions if psci else {kernel.psci_without}):
        vcpu.set_one_reg(id, data)
        assert vcpu.get_one_reg(id) == data
    else:
        with pytest.raises(KvmError, match="EINVAL"):
            vcpu.set_one_reg(id, data)
