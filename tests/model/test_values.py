# SPDX-License-Identifier: MIT
"""The values of all registers that events report are those that KVM_GET_ONE_REG returns, after every kind of ioctl."""

from __future__ import annotations

import pytest

import kvmabi
from kvmabi.kvm import Vcpu
from kvmabi.order.values import same


def stale(vcpus: list[Vcpu]) -> list[str]:
    """The registers whose reported values are not those that a get returns."""
    names: list[str] = []
    for vcpu in vcpus:
        values = vcpu.kvm.vcpu_file(vcpu.fd).values()
        names += [f"{vcpu.index}: {id:#x}" for id in vcpu if not same(id, vcpu[id], values.get(id))]
    return names


def test_values_follow_every_ioctl() -> None:
    """INIT and FINALIZE, a set by this vCPU and a VM-wide one by another, KVM_RUN, and INIT again."""
    with kvmabi.open(host="sme-demo") as kvm:
        vm = kvm.create_vm()
        vcpus = [vm.create_vcpu(index) for index in range(2)]
        one, other = vcpus
        for vcpu in vcpus:
            vcpu.init({"sve", "sme"})
            vcpu["sve_vls"] = vcpu["sve_vls"]
            kvm.vcpu_file(vcpu.fd).values()  # the vectors cannot be read yet
            vcpu.finalize()
        assert stale(vcpus) == []
        one["svcr"] = 3
        one["x5"] = 5
        assert stale(vcpus) == []
        other["id_aa64isar0_el1"] = 0
        assert stale(vcpus) == []
        for vcpu in vcpus:
            with pytest.raises(kvmabi.KvmError, match="EINTR"):
                vcpu.run()
            assert stale(vcpus) == []
        one.init({"sve", "sme"})
        assert one.read("x5") == 0
        assert stale(vcpus) == []
