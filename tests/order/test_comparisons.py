# SPDX-License-Identifier: MIT
"""What the order checker compares with what: free-running bits, reads in two modes, writes that are not a restore."""

from __future__ import annotations

import pytest
from vmms import HOSTS, VLS, fill, guest, opened, registers_lost, restore, restored, save, vcpu_of

import kvmabi

ENABLE, ISTATUS = 1, 1 << 2
LATE = 1 << 40


@pytest.mark.parametrize(("left", "lost"), [(ENABLE, set()), (0, {"cntv_ctl_el0"})])
def test_status_of_a_timer_is_not_a_loss(left: int, lost: set[str]) -> None:
    """ISTATUS follows the running count and is not compared; ENABLE is."""
    with kvmabi.open(host=HOSTS["sve"], kernel="linux-6.12") as kvm:
        source = guest(kvm.create_vm())
        source["cntv_cval_el0"], source["cntv_ctl_el0"] = LATE, ENABLE
        source["cntvct_el0"] = 0
        saved = save(source)
        assert saved["cntv_ctl_el0"][0] == ENABLE
        target = restored(kvm.create_vm(), saved | {"cntv_ctl_el0": left.to_bytes(8, "little")})
        target["cntvct_el0"] = 2 * LATE
        assert target.read("cntv_ctl_el0") == left | ISTATUS
        assert registers_lost(kvm).get("restore-differs", set()) == lost


FEW = ["x5", *(f"x{number}" for number in range(10, 20))]


@pytest.mark.parametrize("read", [0, 1])
def test_torn_save(read: int) -> None:
    """What was read before the guest ran on belongs to another state; what was not read at all was not saved."""
    with opened() as kvm:
        source = vcpu_of(kvm.create_vm())
        fill(source)
        saved = save(source, FEW[1 - read :])
        source["x5"] = 6
        saved |= save(source, [name for name in source.names() if name not in FEW])
        restore(vcpu_of(kvm.create_vm()), saved, [name for name in saved if name not in VLS])
        (finding,) = kvm.findings()
        assert (finding.cause, finding.registers) == (("torn", ("x5",)) if read else ("not-saved", ("x5",)))


@pytest.mark.parametrize("skipped", [("z0",), ("z0", *(f"x{number}" for number in range(31)), "p0", "pc")])
def test_writes_of_reset_values_are_a_restore_if_they_are_most(skipped: tuple[str, ...]) -> None:
    """Nearly the whole list is written, with values as after INIT: that is a restore, and the rest is missing."""
    with opened() as kvm:
        source = vcpu_of(kvm.create_vm())
        source["z0"] = b"\1" * 256
        saved = save(source)
        restore(vcpu_of(kvm.create_vm()), saved, [name for name in saved if name not in (*skipped, *VLS)])
        assert registers_lost(kvm) == {"restore-differs": {"z0"}}


def test_few_writes_of_reset_values_are_not_a_restore() -> None:
    """A VMM that sets some registers of a new vCPU to what they are restores nothing."""
    with opened() as kvm:
        source = vcpu_of(kvm.create_vm())
        source["z0"] = b"\1" * 256
        saved = save(source)
        restore(vcpu_of(kvm.create_vm()), saved, [f"x{number}" for number in range(31)])
        assert registers_lost(kvm) == {}
