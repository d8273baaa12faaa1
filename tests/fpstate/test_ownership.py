# SPDX-License-Identifier: MIT
"""The driver of one machine: the API for a vCPU emulator."""

import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate.catalogue import bugs
from kvmabi.fpstate.ownership import LIVE, Ownership, Violation
from kvmabi.fpstate.variants import presets


@pytest.mark.parametrize("kernel", [n for n, v in presets().items() if v.window])
def test_a_quiet_run_is_right_on_every_kernel(kernel: str) -> None:
    """Without preemption, softirqs or SVE in the VMM, guest and VMM see their own registers on all kernels."""
    o = Ownership(kernel)
    for _ in range(2):
        o.run()
    assert o.broken == ()
    assert o.guest_value() == "fresh"
    assert o.guest_value(register="Z") == "fresh"


def test_current_kernel_survives_preemption_and_softirqs_everywhere() -> None:
    """Between any two steps of KVM_RUN; O4 is asserted after each."""
    o = Ownership()
    for disturb in (o.preempt, o.softirq_neon):
        o.vcpu_load()
        disturb()
        for _ in range(3):
            o.guest_enter()
            o.fp_trap()
            o.assert_guest_sees_its_own()
            o.guest_write()
            o.guest_exit()
            disturb()
        o.vcpu_put()
        disturb()
        o.ret_to_user()
    assert o.guest_value() == "fresh"


def test_moves_tell_what_to_copy() -> None:
    """The guest's first access loads its registers; vcpu_put saves them."""
    o = Ownership()
    o.vcpu_load()
    o.guest_enter()
    o.guest_write()
    o.guest_exit()
    moved = {(m.where, m.what) for m in o.vcpu_put()}
    assert {("V0", "sV"), ("V0", "sZ"), ("T0", "FOREIGN"), ("CPU0", "st")} <= moved


def test_a_second_access_does_not_trap() -> None:
    """The guest owns the registers across an exit, so the next entry moves nothing."""
    o = Ownership()
    o.vcpu_load()
    o.guest_enter()
    assert o.fp_trap()
    o.guest_exit()
    o.guest_enter()
    assert o.fp_trap() == []


def test_historical_kernel_shows_its_bug() -> None:
    """On v6.12 a softirq before vcpu_load, and the VMM's V registers are old after KVM_RUN (B2)."""
    o = Ownership("v6.12")
    for name, arg in (("switch", 0), ("ret_to_user", -1), ("user_write_v", -1), ("el0_sve_trap", -1)):
        o.do(name, 0, arg)
    for name in ("do_sve_acc", "ret_to_user", "el0_svc", "softirq_neon"):
        o.do(name)
    o.vcpu_load()
    o.vcpu_put()
    with pytest.raises(Violation, match=r"O1\.V") as caught:
        o.ret_to_user()
    lie = caught.value.trace.first_lie
    assert lie is not None
    assert lie[0].event.name == "vcpu_load"


def test_watching_does_not_raise() -> None:
    """check=None collects the breaches instead, so that a session can continue."""
    bug = bugs()["H3"]
    o = Ownership("v6.12", bug.config, check=None)
    o.vcpu_load()
    o.guest_enter()
    o.fp_trap()
    o.do("guest_write_zcr")
    o.guest_exit()
    o.softirq_neon()
    assert [b.clause for b in o.broken] == ["O6"]


def test_misuse_is_reported() -> None:
    """A step that cannot happen now raises UsageError and does not corrupt the state."""
    o = Ownership()
    with pytest.raises(UsageError, match="cannot happen"):
        o.guest_enter()
    with pytest.raises(UsageError, match="not in guest mode"):
        o.fp_trap()
    with pytest.raises(UsageError, match="not another task"):
        Ownership(config=LIVE.with_flags(tasks=1)).preempt()
    with pytest.raises(UsageError, match="V and Z"):
        o.guest_value(register="X")
    o.vcpu_load()
    with pytest.raises(UsageError, match="cannot start KVM_RUN"):
        o.vcpu_load()
