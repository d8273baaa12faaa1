# SPDX-License-Identifier: MIT
"""PSCI as KVM answers a guest's calls: a function's number to what it does, by the VM's PSCI version.

Source: Arm DEN 0022 and api.rst, 5 (KVM_EXIT_SYSTEM_EVENT).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.guests import exits
from kvmabi.model import affinity, core, lifecycle
from kvmabi.model.run import Exit
from kvmabi.model.vcpu import Vcpu

AFFINITY = 0xFF00FFFFFF
"""The affinity fields of MPIDR_EL1."""
LAST_LEVEL = 3
WORD = (1 << 32) - 1
RUNNABLE, STOPPED = int(uapi.KVM_MP_STATE_RUNNABLE), int(uapi.KVM_MP_STATE_STOPPED)
SUCCESS, NOT_SUPPORTED, INVALID = (
    int(uapi.PSCI_RET_SUCCESS),
    int(uapi.PSCI_RET_NOT_SUPPORTED),
    int(uapi.PSCI_RET_INVALID_PARAMS),
)
ALREADY_ON, FAILURE = int(uapi.PSCI_RET_ALREADY_ON), int(uapi.PSCI_RET_INTERNAL_FAILURE)
VERSION_0_1, VERSION_0_2, VERSION_1_0, VERSION_1_1, VERSION_1_3 = 0x00001, 0x00002, 0x10000, 0x10001, 0x10003
SUSPEND_ENABLED = uapi.KVM_CAP_ARM_SYSTEM_SUSPEND


class Done(NamedTuple):
    """What a call came to: X0 afterwards (None: unchanged), the exit, if it is one, and whether it waits as WFI."""

    x0: int | None
    exit: Exit | None = None
    waits: bool = False


class Call(NamedTuple):
    """A call of a vCPU's guest; arguments are X1 to X3."""

    vcpu: Vcpu
    version: int
    args: tuple[int, int, int]


def version_of(vcpu: Vcpu) -> int:
    """The VM's PSCI version, as the register psci_version has it."""
    return vcpu.value(vcpu.row(PSCI_VERSION_ID)) if "psci_0_2" in vcpu.mode.features else VERSION_0_1


def answer(vcpu: Vcpu, function: int, args: tuple[int, int, int]) -> Done:
    """Answer a call. An unknown function is NOT_SUPPORTED."""
    version = version_of(vcpu)
    known = FUNCTIONS_0_1 if version == VERSION_0_1 else FUNCTIONS
    row = known.get(function)
    if row is None or version < row.since:
        return Done(NOT_SUPPORTED)
    if row.is_32bit:
        first, second, third = args
        args = first & WORD, second & WORD, third & WORD
    return row.does(Call(vcpu, version, args))


def power_off_all(vcpu: Vcpu) -> None:
    """No vCPU of the VM runs until the VMM says so."""
    for other in vcpu.vm.vcpus.values():
        other.mp_state = STOPPED


def _version(call: Call) -> Done:
    return Done(call.version)


def _cpu_suspend(_call: Call) -> Done:
    return Done(SUCCESS, waits=True)


def _cpu_off(call: Call) -> Done:
    call.vcpu.mp_state = STOPPED
    return Done(SUCCESS)


def _cpu_on(call: Call) -> Done:
    mpidr, entry, context = call.args
    wanted = _packed(mpidr)
    target = None if wanted is None else affinity.find(call.vcpu.vm, wanted)
    if target is None or target.map is None:
        return Done(INVALID)
    if target.mp_state != STOPPED:
        return Done(INVALID if call.version == VERSION_0_1 else ALREADY_ON)
    lifecycle.reset(target)  # a kernel does it before anything can be seen of it
    for place, value in ((core.PC[2], entry), (core.X_REGISTERS[0][2], context)):
        target.memory[place : place + 8] = value.to_bytes(8, "little")
    target.is_new = True
    target.mp_state = RUNNABLE
    return Done(SUCCESS)


def _affinity_info(call: Call) -> Done:
    target, level, _ = call.args
    wanted = _packed(target)
    if wanted is None or level > LAST_LEVEL:
        return Done(INVALID)
    low = 8 * level
    matching = [vcpu for vcpu in call.vcpu.vm.vcpus.values() if affinity.affinity(vcpu) >> low == wanted >> low]
    if not matching:
        return Done(INVALID)
    is_on = any(vcpu.mp_state != STOPPED for vcpu in matching)
    return Done(int(uapi.PSCI_0_2_AFFINITY_LEVEL_ON if is_on else uapi.PSCI_0_2_AFFINITY_LEVEL_OFF))


def _migrate_info_type(_call: Call) -> Done:
    return Done(int(uapi.PSCI_0_2_TOS_MP))


def _ends(call: Call, kind: int, flags: int = 0) -> Done:
    """The system goes down: a VMM that runs the vCPU again shows its guest an internal failure."""
    power_off_all(call.vcpu)
    return Done(FAILURE, exits.system_event(kind, flags))


def _system_off(call: Call) -> Done:
    return _ends(call, int(uapi.KVM_SYSTEM_EVENT_SHUTDOWN))


def _system_reset(call: Call) -> Done:
    return _ends(call, int(uapi.KVM_SYSTEM_EVENT_RESET))


def _system_reset2(call: Call) -> Done:
    kind = call.args[0]
    if kind > uapi.PSCI_1_1_RESET_TYPE_SYSTEM_WARM_RESET and kind < uapi.PSCI_1_1_RESET_TYPE_VENDOR_START:
        return Done(INVALID)
    return _ends(call, int(uapi.KVM_SYSTEM_EVENT_RESET), int(uapi.KVM_SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2))


def _system_off2(call: Call) -> Done:
    kind, cookie, _ = call.args
    if kind & ~uapi.PSCI_1_3_OFF_TYPE_HIBERNATE_OFF or cookie:
        return Done(INVALID)
    return _ends(call, int(uapi.KVM_SYSTEM_EVENT_SHUTDOWN), int(uapi.KVM_SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2))


def _system_suspend(call: Call) -> Done:
    """The registers stay as they are: the VMM reads the arguments there."""
    if SUSPEND_ENABLED not in call.vcpu.vm.enabled:
        return Done(NOT_SUPPORTED)
    return Done(None, exits.system_event(int(uapi.KVM_SYSTEM_EVENT_SUSPEND)))


def _features(call: Call) -> Done:
    function = call.args[0] & WORD
    row = FUNCTIONS.get(function)
    if function == uapi.PSCI_1_3_FN_SYSTEM_OFF2 or function == uapi.PSCI_1_3_FN64_SYSTEM_OFF2:
        return Done(int(uapi.PSCI_1_3_OFF_TYPE_HIBERNATE_OFF) if call.version >= VERSION_1_3 else NOT_SUPPORTED)
    if row is not None and row.does is _system_suspend and SUSPEND_ENABLED not in call.vcpu.vm.enabled:
        return Done(NOT_SUPPORTED)
    if function == SMCCC_VERSION or (row is not None and call.version >= row.since):
        return Done(SUCCESS)
    return Done(NOT_SUPPORTED)


def _packed(mpidr: int) -> int | None:
    """The affinity in an argument that looks like MPIDR_EL1, as 32 bits; None if it has other bits."""
    return None if mpidr & ~AFFINITY else mpidr >> 8 & 0xFF000000 | mpidr & 0xFFFFFF


class Function(NamedTuple):
    """What a function does, and since which version it exists."""

    does: Callable[[Call], Done]
    since: int = VERSION_0_2
    is_32bit: bool = False


def _both(number: int, number64: int, does: Callable[[Call], Done], since: int = VERSION_0_2) -> dict[int, Function]:
    return {int(number): Function(does, since, is_32bit=True), int(number64): Function(does, since)}


PSCI_VERSION_ID = int(uapi.KVM_REG_ARM_PSCI_VERSION)
SMCCC_VERSION = 0x80000000
FUNCTIONS: dict[int, Function] = {
    int(uapi.PSCI_0_2_FN_PSCI_VERSION): Function(_version),
    int(uapi.PSCI_0_2_FN_CPU_OFF): Function(_cpu_off),
    int(uapi.PSCI_0_2_FN_MIGRATE_INFO_TYPE): Function(_migrate_info_type),
    int(uapi.PSCI_0_2_FN_SYSTEM_OFF): Function(_system_off),
    int(uapi.PSCI_0_2_FN_SYSTEM_RESET): Function(_system_reset),
    **_both(uapi.PSCI_0_2_FN_CPU_SUSPEND, uapi.PSCI_0_2_FN64_CPU_SUSPEND, _cpu_suspend),
    **_both(uapi.PSCI_0_2_FN_CPU_ON, uapi.PSCI_0_2_FN64_CPU_ON, _cpu_on),
    **_both(uapi.PSCI_0_2_FN_AFFINITY_INFO, uapi.PSCI_0_2_FN64_AFFINITY_INFO, _affinity_info),
    int(uapi.PSCI_1_0_FN_PSCI_FEATURES): Function(_features, VERSION_1_0),
    **_both(uapi.PSCI_1_0_FN_SYSTEM_SUSPEND, uapi.PSCI_1_0_FN64_SYSTEM_SUSPEND, _system_suspend, VERSION_1_0),
    **_both(uapi.PSCI_1_1_FN_SYSTEM_RESET2, uapi.PSCI_1_1_FN64_SYSTEM_RESET2, _system_reset2, VERSION_1_1),
    **_both(uapi.PSCI_1_3_FN_SYSTEM_OFF2, uapi.PSCI_1_3_FN64_SYSTEM_OFF2, _system_off2, VERSION_1_3),
}
"""PSCI 0.2 and later, by number."""
FUNCTIONS_0_1: dict[int, Function] = {
    int(uapi.KVM_PSCI_FN_CPU_OFF): Function(_cpu_off, VERSION_0_1),
    int(uapi.KVM_PSCI_FN_CPU_ON): Function(_cpu_on, VERSION_0_1),
}
"""PSCI 0.1, by the numbers that KVM gave its functions."""
