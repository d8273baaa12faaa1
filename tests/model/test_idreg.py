# SPDX-License-Identifier: MIT
"""The rule of ID registers: nothing unsafe is taken, what is taken reads back and is taken again, a run fixes all."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvmabi import regid
from kvmabi.errors import KvmError
from kvmabi.profiles import idregs
from model.conftest import attempt

NAMES = (
    "id_aa64pfr0_el1",
    "id_aa64pfr1_el1",
    "id_aa64isar0_el1",
    "id_aa64mmfr0_el1",
    "id_aa64dfr0_el1",
    "id_aa64zfr0_el1",
)
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data())
def test_what_is_taken_is_safe_and_stays(make, name: str, data: st.DataObject) -> None:
    """One field after another is written; each value taken is within mask and limit, and writing it again is idle."""
    id = regid.parse(name)
    vcpu = make("sve", "sme", "pmu_v3")
    limit = vcpu.get_one_reg(id)
    number = int.from_bytes(limit, "little")
    mask = vcpu.system.kernel.writable_masks.get(id, 0)
    for field in data.draw(st.lists(st.sampled_from(idregs.fields(id)), min_size=1, max_size=3)):
        now = vcpu.get_one_reg(id)
        value = int.from_bytes(now, "little") & ~field.mask | data.draw(st.integers(0, field.most)) << field.lsb
        result = attempt(vcpu, id, value.to_bytes(8, "little"))
        if result != "OK":
            assert (result, vcpu.get_one_reg(id)) == ("EINVAL", now)
            continue
        read = vcpu.get_one_reg(id)
        taken = int.from_bytes(read, "little")
        assert not (taken ^ number) & ~mask
        assert all(one.safe(taken, number) for one in idregs.fields(id))
        vcpu.set_one_reg(id, read)
        assert vcpu.get_one_reg(id) == read


@pytest.mark.parametrize("name", NAMES)
def test_a_run_fixes_them(make, name: str) -> None:
    """EBUSY for another value, success for the one it has, on every vCPU of the VM."""
    id = regid.parse(name)
    vcpu = make("sve", "sme")
    vcpu.vm.has_run = True
    value = vcpu.get_one_reg(id)
    vcpu.set_one_reg(id, value)
    field = idregs.fields(id)[-1]
    other = int.from_bytes(value, "little") ^ field.mask
    with pytest.raises(KvmError, match=r"EBUSY|EINVAL"):
        vcpu.set_one_reg(id, other.to_bytes(8, "little"))
    assert vcpu.get_one_reg(id) == value


def test_a_run_answers_ebusy(make) -> None:
    """For a value that would have been taken before."""
    id = regid.parse("id_aa64isar0_el1")
    vcpu = make()
    vcpu.set_one_reg(id, bytes(8))
    vcpu.vm.has_run = True
    with pytest.raises(KvmError, match="EBUSY"):
        vcpu.set_one_reg(id, vcpu.reset_value(vcpu.row(id)).to_bytes(8, "little"))


@quick
@given(st.sampled_from(NAMES), st.integers(0, (1 << 64) - 1))
def test_a_field_is_safe_where_it_is(name: str, value: int) -> None:
    """The same value is always safe; of two others at most one is safe for the other, but where any of two will do."""
    for field in idregs.fields(regid.parse(name)):
        assert field.safe(value, value)
        if field.rule == "FTR_LOWER_SAFE":
            other = value ^ field.mask
            assert field.safe(value, other) != field.safe(other, value)
