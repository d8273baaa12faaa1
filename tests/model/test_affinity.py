# SPDX-License-Identifier: MIT
"""vCPUs by affinity: before and after the table that a first KVM_RUN makes."""

from __future__ import annotations

import pytest

from kvmabi.model import affinity
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vm import Vm
from model.conftest import Make


def move(vcpu: Vcpu, number: int) -> None:
    """Give a vCPU another affinity, as a write of MPIDR_EL1 does."""
    offset = vcpu.system.sysreg_offset(affinity.MPIDR_ID)
    vcpu.memory[offset : offset + 8] = number.to_bytes(8, "little")


def vm_of(vcpu: Vcpu) -> Vm:
    """The VM, with its type."""
    assert isinstance(vcpu.vm, Vm)
    return vcpu.vm


@pytest.mark.parametrize("with_table", [False, True])
def test_each_vcpu_has_its_own(make: Make, with_table: bool) -> None:
    """16 vCPUs to a cluster; there is none elsewhere."""
    first = make()
    vm = vm_of(first)
    vcpus = [first, *(make(vm=vm) for _ in range(17))]
    if with_table:
        affinity.fix(vm)
    assert [affinity.find(vm, affinity.affinity(vcpu)) for vcpu in vcpus] == vcpus
    assert affinity.affinity(vcpus[17]) == 0x101
    assert affinity.find(vm, 0x12) is None


def test_of_two_the_first_without_a_table_and_the_last_with_one(make: Make) -> None:
    """Two vCPUs with one affinity, which a VMM can give them."""
    vcpus = [make()]
    vm = vm_of(vcpus[0])
    vcpus += [make(vm=vm), make(vm=vm)]
    move(vcpus[2], 1)
    assert affinity.find(vm, 1) is vcpus[1]
    affinity.fix(vm)
    assert affinity.find(vm, 1) is vcpus[2]


def test_the_table_is_made_once(make: Make) -> None:
    """The first run of another vCPU leaves it as it is."""
    vcpus = [make()]
    vm = vm_of(vcpus[0])
    vcpus += [make(vm=vm), make(vm=vm)]
    affinity.fix(vm)
    move(vcpus[2], 1)
    affinity.fix(vm)
    assert affinity.find(vm, 1) is vcpus[1]


def test_a_table_that_leads_elsewhere_is_passed_over(make: Make) -> None:
    """A vCPU is found by an affinity that it took after the table was made."""
    first = make()
    vm = vm_of(first)
    second = make(vm=vm)
    affinity.fix(vm)
    move(second, 0x04_00_030201)
    assert affinity.find(vm, 0x04030201) is second
    assert affinity.find(vm, 1) is None


def test_a_new_vcpu_ends_the_table(make: Make) -> None:
    """The next first run makes another."""
    first = make()
    vm = vm_of(first)
    make(vm=vm)
    affinity.fix(vm)
    third = make(vm=vm)
    assert vm.affinities is None
    assert affinity.find(vm, 2) is third
