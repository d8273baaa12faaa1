# SPDX-License-Identifier: MIT
"""VMs and vCPUs as objects: registers by name, features by name, one class of errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vmms import opened, vcpu_of

from kvmabi import Kvm, KvmError, UsageError, regid
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
