# SPDX-License-Identifier: MIT
"""Saves and restores that go on where KVM refuses a register: what can be read, and what is refused on a restore."""

from __future__ import annotations

from collections.abc import Mapping

from kvmabi.errors import KvmError
from kvmabi.kvm import Vcpu
from kvmabi.model.plan import Plan, Stage, stage_of
from kvmabi.model.row import size_of


def readable(vcpu: Vcpu) -> dict[int, bytes | None]:
    """The registers of KVM_GET_REG_LIST; None for one that a kernel lists and does not let be read in this mode."""
    values: dict[int, bytes | None] = {}
    for id in vcpu.reg_list():
        try:
            values[id] = vcpu[id]
        except KvmError:
            values[id] = None
    return values


def refusal(vcpu: Vcpu, id: int, data: bytes) -> str:
    """Why KVM_SET_ONE_REG fails, with a hint where there is one; "" if it does not.

    >>> import kvmabi
    >>> with kvmabi.open(host="cortex-a57") as kvm:
    ...     vcpu = kvm.create_vm().create_vcpu(0)
    ...     vcpu.init()
    ...     refusal(vcpu, 0x608000000015FFFF, bytes(63))
    'the ID asks for 256 bytes, and 63 are stored'
    """
    if len(data) != size_of(id):
        return f"the ID asks for {size_of(id)} bytes, and {len(data)} are stored"
    try:
        vcpu[id] = data
    except KvmError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return f"{error.name}: {error.reason or 'refused'}{hint}"
    return ""


def restore(vcpu: Vcpu, values: Mapping[int, bytes], *, vector: bool, first: bool = True) -> dict[int, str]:
    """Write values in the order of Plan to a vCPU after INIT; returns what was refused: register ID to error.

    ``vector``: the vCPU has SVE or SME, so FINALIZE is called in its place. ``first``: it is its VM's first vCPU.
    """
    refused: dict[int, str] = {}
    finalized = not vector
    for id in Plan.of(values, first_vcpu=first).ids:
        if stage_of(id) > Stage.FINALIZE and not finalized:
            vcpu.finalize()
            finalized = True
        error = refusal(vcpu, id, values[id])
        if error:
            refused[id] = error
    return refused
