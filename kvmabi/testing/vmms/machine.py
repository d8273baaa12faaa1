# SPDX-License-Identifier: MIT
"""A VM as its VMM handles it: vCPUs, features, the saves taken so far; and what the VMM does to a vCPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.kvm import Kvm, Vcpu, Vm
from kvmabi.testing.vmms.families import SVCR
from kvmabi.testing.vmms.truth import State

SM, ZA = 1, 2
RUNNABLE, STOPPED = (state.to_bytes(4, "little") for state in (uapi.KVM_MP_STATE_RUNNABLE, uapi.KVM_MP_STATE_STOPPED))
EVENTS_BYTES = uapi.ffi.sizeof("struct kvm_vcpu_events")
SERROR_PENDING = uapi.ffi.offsetof("struct kvm_vcpu_events", "exception", "serror_pending")


class Save(NamedTuple):
    """What a VMM saved of one vCPU: values by ID in the order of the reads, and what is not a register if it cares.

    ``state`` is the truth at that moment, which the VMM does not know; ``had_run``: the VM had entered its guest.
    ``must_run``: so little was saved that only an entry shows that the VMM was done with its restore.
    """

    vcpu: int
    values: dict[int, bytes]
    mp_state: bytes | None
    events: bytes | None
    state: State
    had_run: bool
    must_run: bool = False

    @property
    def svcr(self) -> int:
        """SVCR as it really was."""
        return int.from_bytes(self.state.values.get(SVCR, b""), "little")


@dataclass(eq=False)
class Machine:
    """A VM. ``off``: its secondary vCPUs start powered off. ``vls`` are the vector lengths that its VMM chose.

    ``early_lists`` are the IDs that KVM_GET_REG_LIST gave right after FINALIZE, for each vCPU; ``saves`` the
    saves of each moment, the oldest first, ``torn_from`` the state of a vCPU in the middle of a torn save;
    ``has_run``: a vCPU has entered the guest. Of a VM that was restored, ``must_run``: only an entry shows that the VMM
    was done, ``given_up``: it was not, and never enters.
    """

    vm: Vm
    features: frozenset[str]
    off: bool
    count: int
    vls: dict[int, bytes] = field(default_factory=dict)
    narrowed: bool = False
    vcpus: list[Vcpu] = field(default_factory=list)
    early_lists: list[list[int]] = field(default_factory=list)
    saves: list[list[Save]] = field(default_factory=list)
    torn_from: dict[int, State] = field(default_factory=dict)
    has_run: bool = False
    must_run: bool = False
    given_up: bool = False

    @property
    def number(self) -> int:
        """The VM's number, as in events."""
        return number_of(self.vm)

    @property
    def vector(self) -> bool:
        """Whether its vCPUs need FINALIZE."""
        return bool(self.features & {"sve", "sme"})

    def features_of(self, index: int) -> frozenset[str]:
        """The features that INIT gets for a vCPU."""
        return self.features | {"power_off"} if self.off and index else self.features

    def first_mp_state(self, index: int) -> bytes:
        """The MP state of a vCPU after INIT."""
        return STOPPED if self.off and index else RUNNABLE


def number_of(vm: Vm) -> int:
    """A VM's number, as in events."""
    assert vm.number is not None
    return vm.number


def ids_of(vcpu: Vcpu) -> list[int]:
    """The IDs that KVM_GET_REG_LIST would list now, without an event."""
    regmap = vcpu.kvm.vcpu_model(vcpu.fd).map
    return [] if regmap is None else regmap.listed


def values_of(vcpu: Vcpu) -> Mapping[int, bytes]:
    """The values of all visible registers, without an event."""
    return vcpu.kvm.vcpu_model(vcpu.fd).values()


def svcr_of(vcpu: Vcpu) -> int:
    """SVCR now, without an event."""
    return vcpu.kvm.vcpu_file(vcpu.fd).svcr


def features_of(kvm: Kvm) -> frozenset[str]:
    """The vCPU features that the host has under its kernel."""
    scratch = kvm.create_vm()
    vcpu = scratch.create_vcpu(0)
    found = kvm.vcpu_model(vcpu.fd).system.features
    kvm.close(vcpu.fd)
    scratch.close()
    return found


def enter(vcpu: Vcpu) -> None:
    """Enters the guest, which a signal ends after it has taken a pending SError.

    Raises KvmError where the kernel does not get that far.
    """
    _interrupted(vcpu, immediate_exit=False)
    vcpu.kvm.vcpu_file(vcpu.fd).serror.reset()  # KVM_SET_VCPU_EVENTS cannot: 0 leaves it pending


def kick(vcpu: Vcpu) -> None:
    """KVM_RUN with kvm_run.immediate_exit, which does not enter the guest."""
    _interrupted(vcpu, immediate_exit=True)


def _interrupted(vcpu: Vcpu, *, immediate_exit: bool) -> None:
    try:
        vcpu.run(immediate_exit=immediate_exit)
    except KvmError as error:
        if error.name != "EINTR":
            raise


def get_mp_state(vcpu: Vcpu) -> bytes:
    """KVM_GET_MP_STATE, as a VMM does it."""
    return _result(vcpu, uapi.KVM_GET_MP_STATE, bytes(4))


def set_mp_state(vcpu: Vcpu, state: bytes) -> None:
    """KVM_SET_MP_STATE."""
    _result(vcpu, uapi.KVM_SET_MP_STATE, state)


def get_events(vcpu: Vcpu) -> bytes:
    """KVM_GET_VCPU_EVENTS, as a VMM does it."""
    return _result(vcpu, uapi.KVM_GET_VCPU_EVENTS, bytes(EVENTS_BYTES))


def is_serror_pending(events: bytes) -> bool:
    """Whether struct kvm_vcpu_events has a pending SError."""
    return bool(events[SERROR_PENDING])


def set_events(vcpu: Vcpu, events: bytes) -> None:
    """KVM_SET_VCPU_EVENTS."""
    _result(vcpu, uapi.KVM_SET_VCPU_EVENTS, events)


def _result(vcpu: Vcpu, request: int, struct: bytes) -> bytes:
    result = vcpu.kvm.ioctl(vcpu.fd, request, struct)
    assert isinstance(result, bytes)
    return result
