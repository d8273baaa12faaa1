# SPDX-License-Identifier: MIT
"""Why KVM_RUN returns to the VMM, and what struct kvm_run then holds; and why it goes on waiting instead.

Source: api.rst, 5 "The kvm_run structure". Members of the union that an exit does not name keep what they had.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from kvmabi import uapi
from kvmabi.guests.actions import Mmio
from kvmabi.model.refusal import Refusal
from kvmabi.model.run import ENTERED, INTERRUPTED, SIGNAL, Exit

WAIT_MS = 2
"""How often a guest that waits looks whether it still has to."""
SOON_MS = 1
"""How soon a guest goes on that let others run."""
SYSTEM_EVENT_BYTES = uapi.ffi.sizeof(uapi.ffi.new("struct kvm_run *").system_event)
INTERNAL_BYTES = uapi.ffi.sizeof(uapi.ffi.new("struct kvm_run *").internal)
NO_MEMORY = Refusal(errno.EFAULT, "the VMM's memory behind a slot cannot be accessed")
BRK64_EC, EC_SHIFT, IL = 0x3C, 26, 1 << 25

WAITING = Exit(INTERRUPTED, waits=True, written=SIGNAL.written, again_ms=WAIT_MS)
"""The guest waits for an interrupt, or its vCPU to be powered on."""
LETTING_OTHERS_RUN = WAITING._replace(again_ms=SOON_MS)
ENDED = SIGNAL
"""The script is over: the guest idles until a signal comes."""
FAULTED = Exit(NO_MEMORY, written=ENTERED)


def _left(reason: int, written: Mapping[str, int | bytes]) -> Exit:
    """KVM_RUN returns 0 with an exit reason, and the members of the union."""
    return Exit(0, written={**ENTERED, "exit_reason": int(reason), **written})


FAILED = _left(
    uapi.KVM_EXIT_INTERNAL_ERROR,
    {"internal": bytes(INTERNAL_BYTES), "internal.suberror": int(uapi.KVM_INTERNAL_ERROR_EMULATION)},
)
"""The guest's script has failed."""


def mmio(access: Mmio) -> Exit:
    """KVM_EXIT_MMIO; what lies behind a store's data, and the data of a load, keep what they had."""
    written: dict[str, int | bytes] = {
        "mmio.phys_addr": access.addr,
        "mmio.len": access.size,
        "mmio.is_write": int(access.data is not None),
    }
    if access.data is not None:
        written["mmio.data"] = access.data.to_bytes(access.size, "little")
    return _left(uapi.KVM_EXIT_MMIO, written)


def hypercall(function: int, *, smc: bool) -> Exit:
    """KVM_EXIT_HYPERCALL: the arguments are in the vCPU's registers, and so is the VMM's answer."""
    written: dict[str, int | bytes] = {
        "hypercall": bytes(uapi.ffi.sizeof(uapi.ffi.new("struct kvm_run *").hypercall)),
        "hypercall.nr": function,
        "hypercall.flags": int(uapi.KVM_HYPERCALL_EXIT_SMC) if smc else 0,
    }
    return _left(uapi.KVM_EXIT_HYPERCALL, written)


def system_event(kind: int, flags: int | None = None) -> Exit:
    """KVM_EXIT_SYSTEM_EVENT of KVM_SYSTEM_EVENT_*; ``flags`` None: it has no data."""
    written: dict[str, int | bytes] = {
        "system_event": bytes(SYSTEM_EVENT_BYTES),
        "system_event.type": kind,
    }
    if flags is not None:
        written |= {"system_event.ndata": 1, "system_event.flags": flags}
    return _left(uapi.KVM_EXIT_SYSTEM_EVENT, written)


def breakpoint_(imm: int) -> Exit:
    """KVM_EXIT_DEBUG of a BRK instruction."""
    written: dict[str, int | bytes] = {
        "flags": int(uapi.KVM_DEBUG_ARCH_HSR_HIGH_VALID),
        "debug.arch.hsr": BRK64_EC << EC_SHIFT | IL | imm,
        "debug.arch.hsr_high": 0,
    }
    return _left(uapi.KVM_EXIT_DEBUG, written)
