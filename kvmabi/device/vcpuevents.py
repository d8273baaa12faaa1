# SPDX-License-Identifier: MIT
"""A vCPU's ioctls for its pending exceptions, and for debugging its guest."""

from __future__ import annotations

import errno
from typing import Protocol

from kvmabi import uapi
from kvmabi.device.file import Call, Handler
from kvmabi.device.structs import layout
from kvmabi.model.refusal import Refusal
from kvmabi.model.vcpu import Vcpu

EVENTS = layout("struct kvm_vcpu_events")
DEBUG_BYTES = uapi.ffi.sizeof("struct kvm_guest_debug")
CONTROL = layout("__u32")
ISS_MASK = (1 << 25) - 1
"""The bits of a syndrome that a VMM can choose."""
NO_SYNDROME = 1 << 24
"""The syndrome of an SError for which the VMM chose none (ISV)."""
DEBUG_FLAGS = (
    uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_SINGLESTEP | uapi.KVM_GUESTDBG_USE_SW_BP | uapi.KVM_GUESTDBG_USE_HW
)
RESERVED = Refusal(errno.EINVAL, "reserved fields and padding of struct kvm_vcpu_events are zero")
NO_RAS = Refusal(errno.EINVAL, "the host cannot inject an SError with a syndrome", "leave serror_has_esr 0")
BAD_SYNDROME = Refusal(errno.EINVAL, "the syndrome of an SError has 25 bits")
BAD_CONTROL = Refusal(errno.EINVAL, "unknown flags in kvm_guest_debug.control")
DATA_ABORT = "the external data abort that KVM_SET_VCPU_EVENTS injects: it would change ESR_EL1, FAR_EL1 and the PC"


class PendingSError:
    """The SError that a VMM injected, until INIT takes it back or the guest takes it.

    From Linux 6.12 on, INIT does so before the vCPU's first run only: the switch ``serror_outlives_init``.
    """

    def __init__(self) -> None:
        self.pending = False
        self.syndrome = 0

    def reset(self) -> None:
        """Nothing is pending, as on a new vCPU."""
        self.pending, self.syndrome = False, 0

    def inject(self, syndrome: int) -> None:
        """Make it pending; one that is pending already gets another syndrome."""
        self.pending, self.syndrome = True, syndrome


class HasEvents(Protocol):
    """A vCPU's file. ``has_esr``: the host can inject an SError with a syndrome."""

    vcpu: Vcpu
    serror: PendingSError
    has_esr: int


def _get_events(file: HasEvents, call: Call) -> int:
    file.vcpu.require_init()
    pending = file.serror.pending
    syndrome = file.serror.syndrome if pending and file.has_esr else 0
    reserved = [0] * (len(EVENTS.unpack(bytes(EVENTS.size))) - 5)
    call.write(call.arg, EVENTS.pack(pending, file.has_esr, 0, b"", syndrome, *reserved))
    return 0


def _set_events(file: HasEvents, call: Call) -> int:
    file.vcpu.require_init()
    fields = EVENTS.unpack(call.read(call.arg, EVENTS.size))
    pending, has_esr, data_abort, padding, syndrome, *reserved = fields
    if any(padding) or any(reserved):
        raise RESERVED.error()
    if pending and has_esr:
        if not file.has_esr:
            raise NO_RAS.error()
        if syndrome & ~ISS_MASK:
            raise BAD_SYNDROME.error()
    if pending:
        file.serror.inject(syndrome if has_esr else NO_SYNDROME)
    if data_abort:
        call.unmodelled = DATA_ABORT
    call.data = bytes((file.serror.pending,))
    return 0


def _set_guest_debug(file: HasEvents, call: Call) -> int:
    """What of the guest ends KVM_RUN: a scripted guest has breakpoints in its code."""
    (control,) = CONTROL.unpack_from(call.read(call.arg, DEBUG_BYTES))
    if control & ~DEBUG_FLAGS:
        raise BAD_CONTROL.error()
    file.vcpu.guest_debug = control if control & uapi.KVM_GUESTDBG_ENABLE else 0
    return 0


IOCTLS: dict[int, tuple[str, Handler]] = {
    uapi.KVM_GET_VCPU_EVENTS: ("KVM_GET_VCPU_EVENTS", _get_events),
    uapi.KVM_SET_VCPU_EVENTS: ("KVM_SET_VCPU_EVENTS", _set_events),
    uapi.KVM_SET_GUEST_DEBUG: ("KVM_SET_GUEST_DEBUG", _set_guest_debug),
}
