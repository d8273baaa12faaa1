# SPDX-License-Identifier: MIT
"""Random VMs on the built-in hosts: features, vector lengths, a mode, and as many register values as KVM accepts."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import NamedTuple

from hypothesis import strategies as st

import kvmabi
from kvmabi import KvmError, Vm, regid
from kvmabi.kvm import Kvm
from kvmabi.model.facts import Facts
from kvmabi.model.row import size_of
from kvmabi.profiles import load_host, load_kernel
from kvmabi.testing import strategies

FIXED = frozenset(map(regid.parse, ("sve_vls", "sme_vls", "svcr")))
LENGTHS = {"sve": "sve_vls", "sme": "sme_vls"}
VECTORS = frozenset(LENGTHS)


class Machine(NamedTuple):
    """A VM to be made: the same values make the same VM."""

    host: str
    kernel: str
    features: frozenset[str]
    modes: tuple[int, ...]
    cut: int
    seed: int

    def open(self) -> Kvm:
        """Its /dev/kvm."""
        return kvmabi.open(host=self.host, kernel=self.kernel)

    def create(self, kvm: Kvm) -> Vm:
        """The VM, with a vCPU for each of ``modes``, in that mode if it has SME."""
        rng, vm = random.Random(self.seed), kvm.create_vm()
        host_lengths = {"sve": kvm.host.sve_vector_bits, "sme": kvm.host.sme_vector_bits}
        vcpus = [vm.create_vcpu(index) for index in range(len(self.modes))]
        for vcpu in vcpus:
            vcpu.init(self.features)
        for vcpu, mode in zip(vcpus, self.modes, strict=True):
            for feature in sorted(VECTORS & self.features):
                kept = host_lengths[feature][: 1 + self.cut % len(host_lengths[feature])]
                vcpu[LENGTHS[feature]] = sum(1 << bits // 128 - 1 for bits in kept)
            if VECTORS & self.features:
                vcpu.finalize()
            if "sme" in self.features:
                vcpu["svcr"] = mode
            for id in vcpu.reg_list():
                if id not in FIXED and rng.random() < 0.8:
                    with suppress(KvmError):
                        vcpu[id] = rng.randbytes(size_of(id))
        return vm


@st.composite
def machines(draw: st.DrawFn, host: str) -> Machine:
    """Machines of a host, under its own kernel or any other."""
    kernel = draw(st.sampled_from([load_host(host).kernel, *kvmabi.kernel_names()]))
    offered = Facts(load_host(host), load_kernel(kernel)).features & VECTORS
    features = draw(st.one_of(st.just(offered), strategies.features(host, kernel)))
    modes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    return Machine(host, kernel, frozenset(features), tuple(modes), draw(st.integers(0, 15)), draw(st.integers(0, 999)))


def any_machine() -> st.SearchStrategy[Machine]:
    """Machines of any host."""
    return st.sampled_from(kvmabi.host_names()).flatmap(machines)
