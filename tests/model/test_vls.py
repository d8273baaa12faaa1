# SPDX-License-Identifier: MIT
"""SVE_VLS and SME_VLS against an oracle of two lines: a set is the host's cut off after one of its members."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kvmabi.errors import KvmError
from kvmabi.model import vls

HOSTS = ("sme-demo", "sme-sve128-256-512-sme128-512-1024", "qemu-max")
SETS = {
    "sme-demo": ({1, 2}, {2, 4, 8}),
    "sme-sve128-256-512-sme128-512-1024": ({1, 2, 4}, {1, 4, 8}),
    "qemu-max": (set(range(1, 17)), set()),
}
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def oracle(host: set[int], asked: set[int]) -> bool:
    """Whether the kernel takes a set of quadwords."""
    return bool(asked) and max(asked) in host and asked == {vq for vq in host if vq <= max(asked)}


def bitmap(vqs: set[int]) -> bytes:
    """A set as the register's 64 bytes."""
    return sum(1 << vq - 1 for vq in vqs).to_bytes(64, "little")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("register", [vls.SVE_ID, vls.SME_ID], ids=["sve", "sme"])
@quick
@example(asked=set())
@example(asked={1})
@example(asked={512})
@given(asked=st.sets(st.one_of(st.integers(1, 8), st.integers(1, 512)), max_size=6))
def test_a_set_is_taken_as_the_oracle_says(make, host: str, register: int, asked: set[int]) -> None:
    """A set that is taken reads back, one that is not leaves the host's."""
    mine = SETS[host][register == vls.SME_ID]
    if not mine:
        return
    vcpu = make(*("sve", "sme")[: 2 if SETS[host][1] else 1], host=host)
    before = vcpu.get_one_reg(register)
    assert before == bitmap(mine)
    if oracle(mine, asked):
        vcpu.set_one_reg(register, bitmap(asked))
        assert vcpu.get_one_reg(register) == bitmap(asked)
    else:
        with pytest.raises(KvmError) as error:
            vcpu.set_one_reg(register, bitmap(asked))
        assert error.value.name == "EINVAL"
        assert vcpu.get_one_reg(register) == before


def test_the_two_lengths_are_independent(make) -> None:
    """A shorter SVE length leaves SME's alone, and Z outside streaming mode follows SVE's."""
    vcpu = make("sve", "sme")
    vcpu.set_one_reg(vls.SVE_ID, bitmap({1}))
    assert vcpu.get_one_reg(vls.SME_ID) == bitmap({2, 4, 8})
    assert (vcpu.mode.sve_vq, vcpu.mode.sme_vq) == (1, 8)


@pytest.mark.parametrize("value", [bitmap({1, 2}), bytes(64)], ids=["same", "empty"])
def test_nothing_is_taken_after_finalize(make, value: bytes) -> None:
    """EPERM, even for the value that it has."""
    vcpu = make("sve", "sme", final=True)
    with pytest.raises(KvmError, match="EPERM"):
        vcpu.set_one_reg(vls.SVE_ID, value)


def test_encode_keeps_lengths_up_to_the_largest() -> None:
    """Bit 0 stands for one quadword."""
    assert vls.encode(frozenset({1, 2, 4}), 2) == bitmap({1, 2})
    assert vls.encode(frozenset({1, 2, 4}), 0) == bytes(64)
