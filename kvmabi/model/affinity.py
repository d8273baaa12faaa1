# SPDX-License-Identifier: MIT
"""Which vCPU has an affinity: that of MPIDR_EL1, so 0 before INIT, and what KVM_SET_ONE_REG made of it afterwards.

Later kernels first look into a table that they make at a first KVM_RUN (the switch ``affinity_table``). Its keys are
the affinity bits in which the vCPUs differed then: of two vCPUs with one affinity, the table leads to the later one.
"""

from __future__ import annotations

from functools import reduce
from operator import and_, or_
from typing import Final

from kvmabi import regid
from kvmabi.model import state
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vmstate import VmState
from kvmabi.profiles import sysregs

MPIDR_ID: Final = regid.parse("mpidr_el1")
OFFSET: Final = state.sysreg_offset(sysregs.by_id()[MPIDR_ID].slot)
MOST_BITS: Final = 10
"""A table with more bits would not fit into a page of 4 KiB."""


def affinity(vcpu: Vcpu) -> int:
    """A vCPU's affinity as attributes of a vGIC have it: Aff3 to Aff0 in 32 bits."""
    if vcpu.map is None:
        return 0
    mpidr = int.from_bytes(vcpu.memory[OFFSET : OFFSET + 8], "little")
    return mpidr >> 8 & 0xFF000000 | mpidr & 0xFFFFFF


def find(vm: VmState[Vcpu], wanted: int) -> Vcpu | None:
    """The vCPU that the kernel finds for an affinity, if it finds one."""
    if vm.affinities is not None:
        mask, by_bits = vm.affinities
        vcpu = vm.vcpus.get(by_bits.get(wanted & mask, next(iter(vm.vcpus))))
        if vcpu is not None and affinity(vcpu) == wanted:
            return vcpu
    lowest = (wanted & 0xFF).to_bytes(1, "little")
    for vcpu in vm.vcpus.values():  # a VM may have hundreds, and a VMM asks for hundreds of registers of each
        likely = vcpu.map is None or vcpu.memory[OFFSET : OFFSET + 1] == lowest
        if likely and affinity(vcpu) == wanted:
            return vcpu
    return None


def fix(vm: VmState[Vcpu]) -> None:
    """Make the table, unless there is one, or one vCPU only."""
    if vm.affinities is not None or len(vm.vcpus) < 2:
        return
    all_of_them = {index: affinity(vcpu) for index, vcpu in vm.vcpus.items()}
    mask = reduce(or_, all_of_them.values()) & ~reduce(and_, all_of_them.values())
    if mask.bit_count() <= MOST_BITS:
        vm.affinities = mask, {number & mask: index for index, number in all_of_them.items()}
