# SPDX-License-Identifier: MIT
"""Offered means answered: what KVM_CHECK_EXTENSION reports on a built-in host works, or is listed as not modelled."""

from __future__ import annotations

import os
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest
from pages import NOWHERE

import kvmabi
from kvmabi import Kvm, uapi
from kvmabi.device.system import SystemFile
from kvmabi.device.vcpu import VcpuFile
from kvmabi.device.vm import VmFile
from kvmabi.errors import KvmError
from kvmabi.profiles import load_host
from kvmabi.profiles.host import host_names

TEXTS = Path(__file__).parent.parent.parent / "scripts/coverage.toml"
MEANINGS: dict[str, list[str]] = tomllib.loads(TEXTS.read_text("utf-8"))["capabilities"]
UNKNOWN = "no arm64 kernel up to this one has this ioctl"
NEEDS = {"ptrauth_address": "ptrauth_generic", "ptrauth_generic": "ptrauth_address", "pmu_v3_strict": "pmu_v3"}


def enable(kvm: Kvm, vm: int, name: str, argument: int) -> None:
    """KVM_ENABLE_CAP, which must succeed."""
    cap = uapi.ffi.new("struct kvm_enable_cap *", {"cap": vars(uapi)[name], "args": [argument]})
    kvm.ioctl(vm, uapi.KVM_ENABLE_CAP, cap)


def answers(kvm: Kvm, fd: int, name: str) -> None:
    """The file has the ioctl, and does not say that no kernel has it."""
    request, reason = vars(uapi)[name], ""
    try:
        result = kvm.ioctl(fd, request, NOWHERE if request >> 30 else 0)
    except KvmError as error:
        reason = error.reason
    else:
        if name == "KVM_GET_STATS_FD":
            assert isinstance(result, int)
            os.close(result)
    assert not reason.startswith(UNKNOWN), name


def works(kvm: Kvm, name: str, words: list[str]) -> None:
    """Every word of a capability's meaning holds, on a VM of its own."""
    vm = kvm.create_vm()
    for word in words:
        kind, _, rest = word.partition(" ")
        if kind == "enable":
            enable(kvm, vm.fd, name, int(rest))
        elif kind == "after":
            enable(kvm, vm.fd, rest, 1 << 16)
        elif kind == "feature":
            vm.create_vcpu(0).init([rest, *([NEEDS[rest]] if rest in NEEDS else [])])
        elif kind == "vm":
            assert any(entry == rest for entry, _ in VmFile.table.values())
            answers(kvm, vm.fd, rest)
        elif kind == "vcpu":
            assert any(entry == rest for entry, _ in VcpuFile.table.values())
            vcpu = kvm.create_vm().create_vcpu(0)
            vcpu.init()
            answers(kvm, vcpu.fd, rest) if rest != "KVM_RUN" else None
        elif kind == "system":
            assert any(entry == rest for entry, _ in SystemFile.table.values())
        else:
            assert word in ("number", "guest", "scripted") or word.startswith("not modelled: ")


@pytest.mark.parametrize("host", host_names())
def test_what_is_offered_is_answered(host: str) -> None:
    """All capabilities of a host under the kernel that it was recorded with."""
    with kvmabi.open(host=host) as kvm:
        vm = kvm.create_vm()
        offered = []
        for number in sorted({*load_host(host).capabilities_vm, *uapi.CAPABILITY_NAMES}):
            with suppress(KvmError):  # the kernel does not answer for some
                if kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, number):
                    offered.append(number)
        assert len(offered) > 50
        for number in offered:
            name = uapi.CAPABILITY_NAMES[number]
            works(kvm, name, MEANINGS[name])


def test_under_an_older_kernel_less_is_offered() -> None:
    """A host of Linux 7.3 under 6.1 does not offer what 6.1 refuses."""
    new = (uapi.KVM_CAP_USER_MEMORY2, uapi.KVM_CAP_GUEST_MEMFD, uapi.KVM_CAP_COUNTER_OFFSET)
    for kernel, expected in (("linux-7.3", True), ("linux-6.1", False)):
        with kvmabi.open(host="neoverse-v1", kernel=kernel) as kvm:
            vm = kvm.create_vm()
            assert [bool(kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, number)) for number in new] == [expected] * 3
