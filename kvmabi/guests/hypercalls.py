# SPDX-License-Identifier: MIT
"""A guest's HVC and SMC: what the VMM's filter says, the few SMCCC calls that are modelled, and PSCI.

Source: Arm DEN 0028 and devices/vm.rst, 6 KVM_ARM_VM_SMCCC_CTRL.
"""

from __future__ import annotations

from kvmabi import uapi
from kvmabi.guests import exits, psci
from kvmabi.guests.actions import Hypercall
from kvmabi.guests.board import Board, GuestError
from kvmabi.guests.psci import NOT_SUPPORTED, WORD, Done
from kvmabi.model.vcpu import Vcpu

SMCCC_1_1 = 0x10001
ARCH_FEATURES, ARCH_SOC_ID = 0x80000001, 0x80000002
OWNERS_OF_OTHERS = frozenset({0x5, 0x6})
"""Standard hypervisor services and those of the hypervisor's vendor: stolen time, PTP …"""
TRNG = range(0x50, 0x60)
MOST_ARGUMENTS = 17


def check(call: Hypercall) -> None:
    """Raises GuestError for a call that cannot be made."""
    numbers = (call.nr, *call.args)
    if len(numbers) > MOST_ARGUMENTS + 1 or not all(isinstance(n, int) and -(1 << 63) <= n < 1 << 64 for n in numbers):
        raise GuestError(f"a hypercall has a number and up to {MOST_ARGUMENTS} arguments of 64 bits, not {call!r:.80}")


def answer(vcpu: Vcpu, board: Board, call: Hypercall, args: tuple[int, int, int]) -> Done:
    """What becomes of a call whose function is in W0 and whose first arguments are ``args``."""
    function = call.nr & WORD
    if call.smc and not vcpu.system.kernel.switches.vm_attributes:
        return Done(NOT_SUPPORTED)  # before the filter existed, an SMC was answered with -1
    action = board.action(function)
    if action == uapi.KVM_SMCCC_FILTER_DENY:
        return Done(NOT_SUPPORTED)
    if action == uapi.KVM_SMCCC_FILTER_FWD_TO_USER:
        return Done(None, exits.hypercall(function, smc=call.smc))
    if function == psci.SMCCC_VERSION:
        return Done(SMCCC_1_1)
    if function in (ARCH_FEATURES, ARCH_SOC_ID) or function >> 24 & 0x3F in OWNERS_OF_OTHERS or _is_trng(function):
        board.unmodelled(f"a guest's SMCCC call {function:#x}: it returns NOT_SUPPORTED")
        return Done(NOT_SUPPORTED)
    return psci.answer(vcpu, function, args)


def _is_trng(function: int) -> bool:
    return function >> 24 & 0x3F == 4 and function & 0xFFFF in TRNG
