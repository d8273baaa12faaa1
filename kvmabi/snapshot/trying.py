# SPDX-License-Identifier: MIT
"""Restores on the model that go on where KVM refuses a register: what does a target answer to each write?

The model's answer is the kernel's. ``restoring`` does the same by ioctls on any /dev/kvm, and reads everything back.

>>> from contextlib import closing
>>> from kvmabi.model.system import System
>>> from kvmabi.profiles import load_host, load_kernel
>>> system = System(load_host("cortex-a57"), load_kernel("linux-7.2"))
>>> with closing(Vm(system, 1)) as vm:
...     answers = restore(initialized(vm, {"psci_0_2"}), {SVCR: bytes(8)})
>>> answers[SVCR].of_value, answers[SVCR].text.partition(":")[0]
(False, 'ENOENT')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.model import lifecycle
from kvmabi.model.mode import SVCR_SM, SVCR_ZA
from kvmabi.model.plan import SVCR, Plan, Stage
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import size_of
from kvmabi.model.vcpu import Payload, Vcpu
from kvmabi.model.vm import Vm
from kvmabi.profiles.initwords import feature_bits, feature_words

MOST_NUMBER_BYTES = 8


class Answer(NamedTuple):
    """Why a write fails. ``of_value`` is False where every value is refused, as of a register that does not exist.

    ``before`` is the value that the register had, 0 for one of more than 8 bytes.
    """

    refusal: Refusal
    of_value: bool = True
    before: int = 0

    @property
    def text(self) -> str:
        """The errno's name, the reason and the hint."""
        error = self.refusal.error()
        name = f"{error.name}: " if error.errno else ""
        return f"{name}{error.reason}{f'; {error.hint}' if error.hint else ''}"


def initialized(vm: Vm, features: Iterable[str], index: int = 0) -> Vcpu:
    """A vCPU after KVM_ARM_VCPU_INIT with features by name. Raises KvmError, and UsageError for an unknown name."""
    kernel = vm.system.kernel
    vcpu = vm.create_vcpu(index)
    lifecycle.init(vcpu, kernel.target, feature_words(feature_bits(kernel, features)))
    return vcpu


def finalize(vcpu: Vcpu) -> None:
    """KVM_ARM_VCPU_FINALIZE, if the vCPU has SVE or SME. Raises KvmError."""
    if vcpu.mode.vector:
        lifecycle.finalize(vcpu, uapi.KVM_ARM_VCPU_VEC)


def readable(vcpu: Vcpu) -> dict[int, bytes | None]:
    """The registers of KVM_GET_REG_LIST; None for one that a kernel lists and that cannot be read in this mode."""
    values = {id: vcpu.get(vcpu.row(id)) for id in vcpu.reg_list()}
    return {id: value if isinstance(value, bytes) else None for id, value in values.items()}


def write(vcpu: Vcpu, id: int, data: bytes) -> Answer | None:
    """KVM_SET_ONE_REG; returns why it fails, None if it does not."""
    if len(data) != size_of(id):
        return Answer(Refusal(0, f"the ID asks for {size_of(id)} bytes, and {len(data)} are stored"))
    row = vcpu.row(id)
    if row.set is not None:
        return Answer(row.set, of_value=False)
    before = vcpu.value(row) if row.size_bytes <= MOST_NUMBER_BYTES else 0
    outcome = vcpu.write(row, Payload(data))
    return Answer(outcome, before=before) if isinstance(outcome, Refusal) else None


def restore(vcpu: Vcpu, values: Mapping[int, bytes], *, first_vcpu: bool = True) -> dict[int, Answer]:
    """Write values in the order of Plan to a vCPU after INIT, with FINALIZE in its place; returns what was refused.

    Where reserved bits of svcr are refused, the mode that was meant is set, so that what depends on the mode is judged
    by itself. ``first_vcpu``: it is the first one of its VM.
    """
    refused: dict[int, Answer] = {}
    for step in Plan.of(values, vector=vcpu.mode.vector, first_vcpu=first_vcpu).steps():
        if step.stage is Stage.FINALIZE:
            finalize(vcpu)
        if step.id is None:
            continue
        data = values[step.id]
        answer = write(vcpu, step.id, data)
        if answer is not None:
            refused[step.id] = answer
            if step.id == SVCR and answer.of_value and len(data) == size_of(SVCR):
                write(vcpu, SVCR, bytes([data[0] & (SVCR_SM | SVCR_ZA)]) + bytes(7))
    return refused
