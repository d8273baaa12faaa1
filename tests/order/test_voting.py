# SPDX-License-Identifier: MIT
"""Which VM a VM was restored from: where the saves of two fit, and where that cannot be told apart."""

from __future__ import annotations

import pytest
from vmms import RUNNING, Saved, differing, fill, guest, lost, put, restored, run, save, vcpu_of

from kvmabi import Kvm
from kvmabi.order.fitting import Fit
from kvmabi.order.saves import Save
from kvmabi.order.voting import sources
from kvmabi.order.writes import Writes

FROZEN = {"id_aa64pfr0_el1", "id_pfr1_el1"}
"""Registers that the first run changes."""


def moved(kvm: Kvm) -> tuple[list[Saved], list[Saved]]:
    """A VM of two vCPUs is moved to another one, where vCPU 1 goes on and vCPU 0 does not: both VMs' saves."""
    first, second = kvm.create_vm(), kvm.create_vm()
    vcpus = [guest(first, 3, index, seed=50 * index) for index in range(2)]
    for vcpu in vcpus:
        run(vcpu)
    before = [save(vcpu) for vcpu in vcpus]
    vcpus = [restored(second, saved, index) for index, saved in enumerate(before)]
    for vcpu in vcpus:
        run(vcpu)
    fill(vcpus[1], 99)
    vcpus[1]["x3"], vcpus[1]["tpidr_el1"] = 0, 7
    return before, [save(vcpu) for vcpu in vcpus]


def timeless(saved: Saved) -> Saved:
    """What a VMM saves that does not care for the guest's time."""
    return {name: value for name, value in saved.items() if name not in RUNNING}


@pytest.mark.parametrize("timed", [False, True], ids=["without time", "with time"])
def test_forgotten_vcpu_of_one_vm_or_another(kvm: Kvm, timed: bool) -> None:
    """vCPU 0 is the same in two VMs: what vCPU 1 lacks of both is reported, what they differ in is named.

    If the guest's time was restored it decides.
    """
    before, after = moved(kvm)
    target = kvm.create_vm()
    forgotten = vcpu_of(target, 1)
    right = restored(target, after[0] if timed else timeless(after[0]))
    missing = differing(forgotten, after[1])
    either = differing(forgotten, before[1]) & missing
    for vcpu in (right, forgotten):
        run(vcpu)
    assert lost(kvm) == (missing if timed else either)
    assert {"x3", "tpidr_el1"} & missing == {"tpidr_el1"}
    assert not {"x3", "tpidr_el1"} & either


def test_forgotten_vcpu_of_a_vm_or_none(kvm: Kvm) -> None:
    """vCPU 0 is the same in two VMs, of which only one has a vCPU 1: nothing is reported of it, and it is named."""
    source = guest(kvm.create_vm(), 3)
    run(source)
    state = save(source)
    both = kvm.create_vm()
    vcpus = [restored(both, state), guest(both, 3, 1, seed=50)]
    for vcpu in vcpus:
        run(vcpu)
    for vcpu in vcpus:
        save(vcpu)
    target = kvm.create_vm()
    off = vcpu_of(target, 1)
    for vcpu in (restored(target, timeless(state)), off):
        run(vcpu)
    assert lost(kvm) <= FROZEN
    (doubt,) = (each for each in kvm.verdict().not_judged if each.is_restore)
    assert (doubt.vm, doubt.vcpu) == (3, 1)
    assert "or none" in doubt.why


def test_vcpu_of_the_same_index_decides(kvm: Kvm) -> None:
    """vCPU 1 gets its own state and then vCPU 0's, which is the same in two VMs: the first one's values decide."""
    _, after = moved(kvm)
    target = kvm.create_vm()
    vcpus = [vcpu_of(target, index) for index in range(2)]
    put(vcpus[1], after[1])
    put(vcpus[1], after[0])
    missing = differing(vcpus[1], after[1]) | differing(vcpus[0], after[0])
    for vcpu in vcpus:
        run(vcpu)
    assert {(pair.vm, pair.source_vm) for pair in kvm.verdict().judged} == {(2, 1), (3, 2)}
    assert lost(kvm) == missing


def test_scores_are_sums_in_any_order() -> None:
    """Two VMs whose scores differ by rounding only cannot be told apart; this run's count before another one's."""
    states = [Save(vm, vcpu, {1: b"\1"}, {1: 1}, {}, 0.0) for vm in (1, 2) for vcpu in (0, 1)]
    other = Save(1, 0, {1: b"\1"}, {1: 1}, {}, 0.0, from_run="another")
    scores = {(1, 0): 0.1 + 0.2, (1, 1): 0.3, (2, 0): 0.3, (2, 1): 0.1 + 0.2}
    restored_vcpus = [Writes(3, vcpu, 5, True, {}) for vcpu in (0, 1)]
    fits = {
        id(of): [
            Fit(save, 1.0, 1.0, 1.0, 0.0, scores.get(save.place, 0.3), 4, 0.0, 0.0)
            for save in (*states, other)
            if save.vcpu == of.vcpu
        ]
        for of in restored_vcpus
    }
    assert sources(restored_vcpus, fits, fits) == [("", 1), ("", 2)]
    assert sources(restored_vcpus, {of: [] for of in fits}, fits) == []
