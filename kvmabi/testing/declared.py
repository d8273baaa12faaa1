# SPDX-License-Identifier: MIT
"""Saves and restores that a test declares: they are compared register by register, and nothing is inferred."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from kvmabi.errors import UsageError
from kvmabi.events import Event, Kind
from kvmabi.kvm import Kvm, Vcpu

FIRST_LABEL = 1 << 32
LABEL_BYTES = 8
_labels = count(FIRST_LABEL)


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
    label = next(_labels)
    _declare("saved", vcpu, label)
    return Save(vcpu.kvm, label, f"VM {vcpu.vm.number} vCPU {vcpu.index}")


def restored(vcpu: Vcpu, save: Save) -> None:
    """Declares that what was written to the vCPU since its last guest entry restores the save.

    They are compared when the vCPU enters the guest next, and if it does not, at the end of the test. Raises UsageError
    for a vCPU that is not initialised, or of another Kvm than the save's.
    """
    if not isinstance(save, Save):
        raise UsageError(f"a save is what saved(vcpu) returned, not {save!r:.60}")
    if save.kvm is not vcpu.kvm:
        raise UsageError(f"{vcpu!r} belongs to another Kvm than {save!r}")
    _declare("restored", vcpu, save.label)


def _declare(what: str, vcpu: Vcpu, label: int) -> None:
    """Record the event of a declaration, which is not an ioctl."""
    file, log = vcpu.kvm.vcpu_file(vcpu.fd), vcpu.kvm.log
    if file.vcpu.map is None:
        raise UsageError(f"{vcpu!r} is not initialised: call init() first")
    data = label.to_bytes(LABEL_BYTES, "little")
    place = file.vm_number, file.vcpu_number
    log.append(Event(log.count, Kind.MARK, what, *place, file.mode, file.svcr, data=data, source=file))
