# SPDX-License-Identifier: MIT
"""VMs and vCPUs as objects: registers by name, features by name, one class of errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from vmms import opened, vcpu_of

import kvmabi
from kvmabi import Kvm, KvmError, UsageError, regid, uapi
from kvmabi.kvm import Vcpu
from kvmabi.profiles import load_kernel


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with opened() as opened_kvm:
        yield opened_kvm


@pytest.fixture
def vcpu(kvm: Kvm) -> Vcpu:
    return vcpu_of(kvm.create_vm())


def test_registers_by_name_and_by_id(vcpu: Vcpu) -> None:
    vcpu["svcr"] = 2
    row = bytes(range(128)) + bytes(128)
    vcpu["za.h[3]"] = row
    assert vcpu[regid.parse("za.h[3]")] == row
    vcpu["X0"] = 0x1122
    assert vcpu["x0"] == b"\x22\x11" + bytes(6)
    assert vcpu.read("x0") == 0x1122
    vcpu["x0"] = bytearray(8)
    assert vcpu.read("x0") == 0


def test_list_and_names_agree_and_follow_svcr(vcpu: Vcpu) -> None:
    """The list is the kernel's, ZA in it only while SVCR.ZA = 1."""
    assert [regid.parse(name) for name in vcpu.names()] == vcpu.reg_list()
    assert "za.h[0]" not in vcpu.names()
    vcpu["svcr"] = 2
    assert {"za.h[0]", "za.h[127]", "zt0"} <= set(vcpu.names())


@pytest.mark.parametrize("value", [b"", b"short", bytes(257), 1 << 2048, -1])
def test_value_that_does_not_fit(vcpu: Vcpu, value: bytes | int) -> None:
    """Reported before any ioctl, with the register's name and size."""
    events = vcpu.kvm.log.count
    with pytest.raises(UsageError, match=r"z0: .*256"):
        vcpu["z0"] = value
    assert vcpu.kvm.log.count == events


@pytest.mark.parametrize("register", ["z32", "", "za.h[256]", -1, 1 << 64])
def test_register_that_cannot_be(vcpu: Vcpu, register: str | int) -> None:
    with pytest.raises(UsageError, match="regist"):
        vcpu[register]


def test_unknown_id_is_the_kernels_to_refuse(vcpu: Vcpu) -> None:
    for register in (0, 2**64 - 1):
        with pytest.raises(KvmError, match="EINVAL"):
            vcpu[register]


def test_refusal_has_register_rule_mode_and_hint(vcpu: Vcpu) -> None:
    with pytest.raises(KvmError) as refused:
        vcpu["zt0"] = 0
    error = refused.value
    assert (error.name, error.register, error.mode) == ("EBUSY", "zt0", "SVCR.SM=0 SVCR.ZA=0")
    assert "SVCR.ZA = 0" in error.reason
    assert "svcr" in error.hint


def test_features_by_name(kvm: Kvm) -> None:
    """The kernel's names and short ones; the error for an unknown one lists the choices."""
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(0)
    with pytest.raises(UsageError, match=r"take some of .*sve"):
        vcpu.init({"swe"})
    vcpu.init(["sve", "ptrauth", "psci"])
    assert "apiakeylo_el1" in vm_names(vcpu)


def vm_names(vcpu: Vcpu) -> list[str]:
    vcpu.finalize()
    return vcpu.names()


@pytest.mark.parametrize("target", [0, -1, 1 << 40])
def test_target_out_of_range(kvm: Kvm, target: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        kvm.create_vm().create_vcpu(0).init(target=target)


@pytest.mark.parametrize("feature", [0, -1, 1 << 40])
def test_finalize_out_of_range(kvm: Kvm, feature: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        vcpu_of(kvm.create_vm(), final=False).finalize(feature)


@pytest.mark.parametrize("index", [-1, 512, 1 << 31])
def test_vcpu_number_out_of_range(kvm: Kvm, index: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        kvm.create_vm().create_vcpu(index)


def test_run_ends_at_once(vcpu: Vcpu) -> None:
    with pytest.raises(KvmError, match="EINTR"):
        vcpu.run()


def test_kernel_without_sme_has_no_such_feature() -> None:
    """The kernel profile defines the names of features."""
    assert "sme" not in load_kernel("linux-7.3").features
    with opened() as kvm:
        assert "sme" in kvm.kernel.features


def test_get_that_a_kernel_carries_out_backwards() -> None:
    """A kernel that copies from the buffer of a get leaves it as it was: as long as the register, in no event."""
    with kvmabi.open(host="sme-demo", kernel="sme-v9") as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["svcr"] = 2
        row = vcpu["za.h[3]"]
        assert row == bytes(256)
        assert kvm.log.events[-1].data is None
        vcpu["za.h[3]"] = row


def test_values_follow_the_number_of_counters(kvm: Kvm) -> None:
    """The PMU's counters belong to the VM: what one vCPU's ioctl changes about them, the events of both report."""
    vm = kvm.create_vm()
    vcpus = [vm.create_vcpu(index) for index in range(2)]
    for vcpu in vcpus:
        vcpu.init({"pmu_v3"})
    pmcr = regid.parse("pmcr_el0")
    files = [kvm.vcpu_file(vcpu.fd) for vcpu in vcpus]
    assert [file.values()[pmcr] for file in files] == [vcpu[pmcr] for vcpu in vcpus]
    count = uapi.ffi.new("unsigned int *", 2)
    attr = uapi.ffi.new("struct kvm_device_attr *")
    attr.group, attr.attr = uapi.KVM_ARM_VCPU_PMU_V3_CTRL, uapi.KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS
    attr.addr = int(uapi.ffi.cast("uintptr_t", count))
    kvm.ioctl(vcpus[0].fd, uapi.KVM_SET_DEVICE_ATTR, attr)
    assert [file.values()[pmcr] for file in files] == [vcpu[pmcr] for vcpu in vcpus]
    vcpus[0]["pmcr_el0"] = 1 << 11
    assert [file.values()[pmcr] for file in files] == [vcpu[pmcr] for vcpu in vcpus]


def test_run_of_a_closed_vcpu(kvm: Kvm) -> None:
    """It fails with EBADF and opens no file."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init()
    kvm.close(vcpu.fd)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KvmError, match="EBADF"):
        vcpu.run()
    assert set(os.listdir("/proc/self/fd")) == before


def test_register_that_a_kernel_makes_the_vms() -> None:
    """A register without a rule to which a kernel profile gives the scope "vm" is set in every vCPU."""
    kernel = load_kernel("sme-v12")
    changed = replace(kernel, sysregs={**kernel.sysregs, "vbar_el1": {"scope": "vm"}})
    with kvmabi.open(host="sme-demo", kernel=changed) as kvm:
        vm = kvm.create_vm()
        vcpus = [vm.create_vcpu(index) for index in range(2)]
        for vcpu in vcpus:
            vcpu.init()
        vcpus[0]["vbar_el1"] = 0x8000
        assert [vcpu.read("vbar_el1") for vcpu in vcpus] == [0x8000, 0x8000]
