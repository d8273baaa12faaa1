# SPDX-License-Identifier: MIT
"""The attributes of KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS: the registers of a vCPU's GIC CPU interface."""

from __future__ import annotations

from typing import Protocol

from kvmabi import uapi
from kvmabi.device.attr import Attribute, UserValue
from kvmabi.gicnames import CPU
from kvmabi.model.cpuinterface import CpuInterface, has_register
from kvmabi.model.vgic import Vgic
from kvmabi.model.vgicattrs import NOT_READY, vcpu_of
from kvmabi.model.vm import Vm


class HasVm(Protocol):
    """A VM's file."""

    vm: Vm


class HasVgic(Protocol):
    """A vGIC's file."""

    vm: HasVm
    vgic: Vgic


EL2 = "has_el2"


def _find(file: HasVgic, number: int) -> tuple[CpuInterface, bool]:
    """The CPU interface that an attribute names, and whether the vCPU has EL2. Errors: EINVAL, EBUSY."""
    vcpu = vcpu_of(file.vm.vm, CPU, number)
    if not file.vgic.initialized:
        raise NOT_READY.error()
    return file.vm.vm.cpu_interface(vcpu.index), EL2 in vcpu.mode.features


def _get(file: HasVgic, value: UserValue) -> int:
    cpu, has_el2 = _find(file, value.attr)
    return cpu.read(value.attr, has_el2=has_el2)


def _set(file: HasVgic, value: UserValue) -> None:
    cpu, has_el2 = _find(file, value.attr)
    cpu.write(value.attr, value.take(), has_el2=has_el2)


def _has(file: HasVgic, number: int) -> bool:
    vcpu = vcpu_of(file.vm.vm, CPU, number)
    return has_register(number, has_el2=EL2 in vcpu.mode.features)


ATTRIBUTE = Attribute(uapi.ffi.sizeof("__u64"), _get, _set, present=_has)
