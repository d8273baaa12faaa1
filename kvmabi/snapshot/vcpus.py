# SPDX-License-Identifier: MIT
"""What can be saved and restored: vCPUs and VMs of a Kvm, and descriptors of the /dev/kvm that this process opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from kvmabi.errors import UsageError
from kvmabi.kvm import Kvm, Vcpu, Vm
from kvmabi.snapshot.access import Access, Ioctls, KvmPort
from kvmabi.steps.libcport import LibcPort

Where = Vm | Vcpu | int | Sequence[Vcpu] | Sequence[int]
"""A VM, a vCPU, or some vCPUs: objects of one Kvm, or descriptors that ioctls of this process's /dev/kvm returned."""

NO_FD = -1


class Vcpus:
    """The vCPUs of a save or a restore, in their order. ``kvm`` is None for descriptors.

    ``vm`` is set if a whole VM was given. The numbers of descriptors are their places.
    """

    def __init__(self, where: Where) -> None:
        self.vm = where if isinstance(where, Vm) else None
        self.given = _listed(where)
        self.kvm = _kvm(where if isinstance(where, Vm) else None, self.given)
        self._port: Ioctls = LibcPort(NO_FD) if self.kvm is None else KvmPort(self.kvm)

    def access(self) -> list[Access]:
        """The vCPUs as they are accessed."""
        return [
            Access(self._port, vcpu, place) if isinstance(vcpu, int) else Access(self._port, vcpu.fd, vcpu.index)
            for place, vcpu in enumerate(self.given)
        ]

    def fill(self, numbers: Iterable[int]) -> None:
        """Take the vCPUs of the VM with these numbers; those that it lacks are created. Raises KvmError."""
        assert self.vm is not None
        there = {vcpu.index: vcpu for vcpu in self.vm.vcpus()}
        self.given = [there.get(number) or self.vm.create_vcpu(number) for number in numbers]


def _listed(where: Where) -> list[Vcpu | int]:
    if isinstance(where, Vm):
        return list(where.vcpus())
    given = [where] if isinstance(where, Vcpu | int) else list(where)
    if not all(isinstance(vcpu, Vcpu | int) for vcpu in given):
        raise UsageError("a save or a restore takes a Vm, a Vcpu, a vCPU's file descriptor, or several of one kind")
    return cast(list[Vcpu | int], given)


def _kvm(vm: Vm | None, vcpus: list[Vcpu | int]) -> Kvm | None:
    if vm is not None:
        return vm.kvm
    kvms = {vcpu.kvm if isinstance(vcpu, Vcpu) else None for vcpu in vcpus}
    if len(kvms) != 1:
        raise UsageError("the vCPUs belong to different /dev/kvm" if kvms else "no vCPU was given")
    return kvms.pop()
