# SPDX-License-Identifier: MIT
"""Which of the built-in kernels have a register: asked of the model, on every built-in host, in every kind of mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import cache

from kvmabi.model.plan import SVCR
from kvmabi.model.system import System
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vm import Vm
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles import host_names, kernel_names, load_host, load_kernel
from kvmabi.snapshot.trying import finalize, initialized

NOT_ALWAYS = frozenset({"el1_32bit", "power_off", "has_el2", "has_el2_e2h0", "pmu_v3_strict"})
"""Features that a vCPU with all that its host offers leaves out: they exclude others or hide registers."""
WITH_EL2 = frozenset({"el1_32bit", "power_off", "has_el2_e2h0", "pmu_v3_strict"})
"""The same for a vCPU with EL2."""
SVCR_VALUES = (0, 1, 2)
"""Together the modes in which each register is listed: V needs SM = 0 on a vCPU without SVE, ZA needs ZA = 1."""


@cache
def kernels_with(id: int) -> tuple[str, ...]:
    """The names of the built-in kernels that list a register on some built-in host.

    >>> from kvmabi import regid
    >>> [name for name in kernels_with(regid.parse("sctlr2_el1")) if name.startswith("linux")]
    ['linux-7.2', 'linux-7.3']
    >>> kernels_with(0x6030000000150000)
    ()
    """
    return tuple(name for name in kernel_names() if id in listed_by(name))


@cache
def listed_by(kernel: str) -> frozenset[int]:
    """The register IDs that a built-in kernel lists on some built-in host."""
    return frozenset().union(*(_listed(host, kernel) for host in host_names()))


@cache
def _listed(host: str, kernel: str) -> frozenset[int]:
    system = System(load_host(host), load_kernel(kernel))
    return frozenset(id for vcpu in _vcpus(system) for id in vcpu.reg_list())


def _vcpus(system: System) -> Iterator[Vcpu]:
    """A vCPU in each kind of mode that the host and the kernel offer."""
    for without in (NOT_ALWAYS, WITH_EL2):
        if without is WITH_EL2 and "has_el2" not in system.features:
            continue
        with closing(Vm(system, 1)) as vm:
            vcpu = initialized(vm, usual(system.features, without))
            finalize(vcpu)
            for value in SVCR_VALUES if "sme" in vcpu.mode.features else ():
                vcpu.set_one_reg(SVCR, value.to_bytes(8, "little"))
                yield vcpu
            yield vcpu


def usual(offered: frozenset[str], without: frozenset[str] = NOT_ALWAYS) -> frozenset[str]:
    """The features of a guest that takes what a host offers, without those that exclude others or hide registers."""
    chosen = offered - without
    return chosen - {"ptrauth_address", "ptrauth_generic"} if feature_rules.conflict(chosen) else chosen
