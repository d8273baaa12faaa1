# SPDX-License-Identifier: MIT
"""What the order checker compares with what: free-running bits, reads in two modes, writes that are not a restore."""

from __future__ import annotations

import pytest
from vmms import HOSTS, opened, registers_lost, restore, restored, save, vcpu_of

import kvmabi

ENABLE, ISTATUS = 1, 1 << 2
LATE = 1 << 40
FEWEST_PLAIN = 16
"""Writes of values as right after INIT that make a restore, if no other value is written."""


@pytest.mark.parametrize(("left", "lost"), [(ENABLE, set()), (0, {"cntv_ctl_el0"})])
def test_status_of_a_timer_is_not_a_loss(left: int, lost: set[str]) -> None:
    """ISTATUS follows the running count and is not compared; ENABLE is."""
    with kvmabi.open(host=HOSTS["sve"], kernel="linux-6.12") as kvm:
        source = vcpu_of(kvm.create_vm())
        source["x5"], source["cntv_cval_el0"], source["cntv_ctl_el0"] = 5, LATE, ENABLE
        source["cntvct_el0"] = 0
        saved = save(source)
        assert saved["cntv_ctl_el0"][0] == ENABLE
        target = restored(kvm.create_vm(), saved)
        target["cntv_ctl_el0"] = left
        target["cntvct_el0"] = 2 * LATE
        assert target.read("cntv_ctl_el0") == left | ISTATUS
        assert registers_lost(kvm).get("restore-differs", set()) == lost


def test_reads_in_another_mode_are_another_save() -> None:
    """What was read before the guest changed SVCR is not counted as read afterwards: it was not saved."""
    with opened() as kvm:
        source = vcpu_of(kvm.create_vm())
        source["x5"] = 5
        assert save(source, ["x5"])
        source["svcr"] = 2
        source["za.h[1]"] = b"\1" * 256
        saved = save(source, ["svcr", "za.h[1]"])
        restore(vcpu_of(kvm.create_vm()), saved)
        assert registers_lost(kvm) == {"not-saved": {"x5"}}


def test_reads_in_the_same_mode_are_one_save() -> None:
    """The same with SVCR as it was: the first read counts, so that x5 was saved and not restored."""
    with opened() as kvm:
        source = vcpu_of(kvm.create_vm())
        source["x5"], source["svcr"] = 5, 2
        assert save(source, ["x5"])
        source["za.h[1]"] = b"\1" * 256
        saved = save(source, ["svcr", "za.h[1]"])
        restore(vcpu_of(kvm.create_vm()), saved)
        assert registers_lost(kvm) == {"restore-differs": {"x5"}}


@pytest.mark.parametrize("writes", [FEWEST_PLAIN - 1, FEWEST_PLAIN])
def test_few_writes_of_reset_values_are_not_a_restore(writes: int) -> None:
    """A VMM that sets a few registers of a new vCPU to what they are restores nothing; with many it does."""
    with opened() as kvm:
        source = vcpu_of(kvm.create_vm())
        source["z0"] = b"\1" * 256
        saved = save(source)
        plain = [f"x{number}" for number in range(writes)]
        restore(vcpu_of(kvm.create_vm()), saved, plain)
        assert registers_lost(kvm) == ({} if writes < FEWEST_PLAIN else {"restore-differs": {"z0"}})
