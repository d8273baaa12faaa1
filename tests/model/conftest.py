# SPDX-License-Identifier: MIT
"""vCPUs of the model, without ioctls: made once a host and kernel, given back at the end of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.model import lifecycle
from kvmabi.model.system import System
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vm import Vm
from kvmabi.profiles import load_host, load_kernel

Make = Callable[..., Vcpu]
_systems: dict[tuple[str, str], System] = {}


def system_of(host: str, kernel: str = "") -> System:
    """A host under its own kernel, or another one."""
    system = _systems.get((host, kernel))
    if system is None:
        profile = load_host(host)
        system = _systems[host, kernel] = System(profile, load_kernel(kernel or profile.kernel))
    return system


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a vCPU with features by name in a VM of its own."""
    vms: list[Vm] = []

    def made(*features: str, host: str = "sme-demo", final: bool = False, vm: Vm | None = None) -> Vcpu:
        if vm is None:
            vm = Vm(system_of(host), len(vms))
            vms.append(vm)
        vcpu = vm.create_vcpu(len(vm.vcpus))
        init(vcpu, *features)
        if final:
            lifecycle.finalize(vcpu, uapi.KVM_ARM_VCPU_VEC)
        return vcpu

    yield made
    for vm in vms:
        vm.close()


def init(vcpu: Vcpu, *features: str) -> None:
    """KVM_ARM_VCPU_INIT with features by name."""
    kernel = vcpu.system.kernel
    word = sum(1 << kernel.features[name].bit for name in features)
    lifecycle.init(vcpu, kernel.target, [word])


def still(vcpu: Vcpu) -> dict[int, bytes]:
    """The values of all visible registers, except free-running counters."""
    running = {reg.id for reg in vcpu.system.sysregs if reg.get == "counter"}
    return {id: value for id, value in vcpu.values().items() if id not in running}


def attempt(vcpu: Vcpu, id: int, data: bytes) -> str:
    """Set a register; returns the errno's name, or "OK"."""
    try:
        vcpu.set_one_reg(id, data)
    except KvmError as error:
        return error.name
    return "OK"
