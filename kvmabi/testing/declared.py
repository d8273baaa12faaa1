# SPDX-License-Identifier: MIT
"""Saves and restores that a test declares: they are compared register by register, and nothing is inferred."""

from __future__ import annotations

from dataclasses import dataclass

from kvmabi.errors import UsageError
from kvmabi.kvm import Kvm, Vcpu


@dataclass(frozen=True)
class Save:
    """A save that ``saved`` declared: of which vCPU, and its label among the saves of its Kvm."""

    kvm: Kvm
    label: int
    of: str

    def __repr__(self) -> str:
        return f"<Save {self.label} of {self.of}>"


def saved(vcpu: Vcpu) -> Save:
    """Declares that the vCPU's state now is a save: all of it, also registers that the VMM does not read.

    Raises UsageError for a vCPU that is not initialised.
    """
    return Save(vcpu.kvm, vcpu.kvm.saved(vcpu), f"VM {vcpu.vm.number} vCPU {vcpu.index}")


def restored(vcpu: Vcpu, save: Save) -> None:
    """Declares that what was written to the vCPU since its last guest entry restores the save.

    They are compared when the vCPU enters the guest next, and if it does not, at the end of the test. Raises UsageError
    for a vCPU that is not initialised, or of another Kvm than the save's.
    """
    if not isinstance(save, Save):
        raise UsageError(f"a save is what saved(vcpu) returned, not {save!r:.60}")
    if save.kvm is not vcpu.kvm:
        raise UsageError(f"{vcpu!r} belongs to another Kvm than {save!r}")
    vcpu.kvm.restored(vcpu, save.label)
