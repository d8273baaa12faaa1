# SPDX-License-Identifier: MIT
"""Faults on demand: what rules can be written, which ioctls they strike, and what a VMM and a report see of it."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvmabi
from kvmabi import uapi
from kvmabi.device import ioctl_names
from kvmabi.errors import KvmError, UsageError
from kvmabi.faults import Attempt, Faults, Rule, matches

NAMES = ["KVM_GET_ONE_REG", "KVM_SET_ONE_REG", "KVM_RUN", "KVM_CREATE_VM"]
SET_X0 = Attempt("KVM_SET_ONE_REG", "x0", 1, 0)


def struck(line: str, attempts: int, seed: int = 0) -> list[int]:
    """Which of several equal ioctls a rule strikes, from 1."""
    faults = Faults([Rule.parse(line, NAMES)], seed)
    return [number for number in range(1, attempts + 1) if faults.strike(SET_X0) is not None]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("SET_ONE_REG x0 EINTR", [1, 2, 3, 4, 5, 6, 7]),
        ("SET_ONE_REG EINTR once", [1]),
        ("kvm_set_one_reg EINTR times=2", [1, 2]),
        ("*_ONE_REG x* EINTR after=3 times=2", [4, 5]),
        ("SET_ONE_REG EINTR after=1 every=3", [4, 7]),
        ("SET_ONE_REG EINTR vm=1 vcpu=0 once", [1]),
        ("SET_ONE_REG EINTR vm=2", []),
        ("SET_ONE_REG EINTR vcpu=1", []),
        ("GET_ONE_REG EINTR", []),
        ("SET_ONE_REG x1 EINTR", []),
        ("RUN EINTR", []),
    ],
)
def test_conditions_choose_the_ioctls_that_are_struck(line: str, numbers: list[int]) -> None:
    """A rule counts the ioctls that it is about; its conditions choose among those."""
    assert struck(line, 7) == numbers


def test_a_probability_chooses_by_the_seed() -> None:
    """The same seed strikes the same ioctls, another seed others; about as many as the probability says."""
    line = "SET_ONE_REG EINTR p=0.25"
    assert struck(line, 400) == struck(line, 400)
    assert struck(line, 400) != struck(line, 400, seed=1)
    assert 60 < len(struck(line, 400)) < 140


def test_rules_do_not_disturb_each_other() -> None:
    """What a rule with a probability strikes does not depend on the rules before it."""
    line = "SET_ONE_REG EINTR p=0.5"
    both = Faults([Rule.parse("GET_ONE_REG EIO p=0.5", NAMES), Rule.parse(line, NAMES)])
    alone = Faults([Rule.parse("GET_ONE_REG EIO vm=9", NAMES), Rule.parse(line, NAMES)])
    get_x0 = SET_X0._replace(ioctl="KVM_GET_ONE_REG")
    for _ in range(50):
        both.strike(get_x0)
    assert [both.strike(SET_X0) is None for _ in range(50)] == [alone.strike(SET_X0) is None for _ in range(50)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "a rule is an ioctl"),
        ("RUN", "a rule is an ioctl"),
        ("RUN once", "RUN takes no register"),
        ("RUNN EINTR", "no ioctl is named RUNN"),
        ("RUN x0 EINTR", "RUN takes no register"),
        ("*R* x0 EINTR", r"\*R\* takes no register"),
        ("SET_ONE_REG x99 EINTR", "x99"),
        ("SET_ONE_REG qq* EINTR", r"no register is named qq\*"),
        ("SET_ONE_REG x0 x1 EINTR", "a rule is an ioctl"),
        ("RUN EBOGUS", "RUN takes no register"),
        ("SET_ONE_REG x0 EBOGUS once", "'EBOGUS' is neither an errno nor a delay"),
        ("RUN EINTR once times=2", "a condition is there twice"),
        ("RUN EINTR vm=1 vm=2", "a condition is there twice"),
        ("RUN delay=1h", "a delay is a time"),
        ("RUN delay=0ms", "a delay is a time"),
        ("RUN delay=999999s", "a delay is a time"),
        ("RUN EINTR twice", "'twice' is not one of once"),
        ("RUN EINTR times=0", "'times=0' is not one of once"),
        ("RUN EINTR every=0", "'every=0' is not one of once"),
        ("RUN EINTR p=0", "'p=0' is not one of once"),
        ("RUN EINTR p=1.5", "'p=1.5' is not one of once"),
        ("RUN EINTR after=-1", "'after=-1' is not one of once"),
        ("RUN EINTR errno=5", "'errno=5' is not one of once"),
        ("RUN EINTR times=" + "9" * 400, "is not one of once"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(line: str, why: str) -> None:
    """Every mistake in a rule is a UsageError of one short line, which says what would be right."""
    with pytest.raises(UsageError, match=why) as raised:
        Rule.parse(line, ioctl_names())
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


@given(st.text(max_size=60))
def test_any_text_is_a_rule_or_a_usage_error(line: str) -> None:
    """No text makes the parser raise anything else."""
    try:
        rule = Rule.parse(line, NAMES)
    except UsageError:
        return
    assert rule.errno or rule.seconds


@given(st.text("ab*", max_size=8), st.text("ab", max_size=8))
def test_a_star_stands_for_any_characters(pattern: str, name: str) -> None:
    """Patterns agree with the shell's, as far as a star goes."""
    assert matches(pattern, name) == fnmatchcase(name, pattern)


def test_brackets_are_characters_of_a_name() -> None:
    """Registers' names have brackets, which mean nothing else here."""
    assert matches("za.h[3]", "za.h[3]")
    assert not matches("za.h[3]", "za.h3")


@pytest.fixture
def faulty() -> Iterator[kvmabi.Kvm]:
    """A machine on which one write of za.h[3] is interrupted, and the second vCPU cannot be made."""
    rules = ["SET_ONE_REG za.h[3] EINTR once", "CREATE_VCPU ENOMEM after=1"]
    with kvmabi.open(host="sme-demo", faults=rules) as kvm:
        yield kvm


def in_za(kvm: kvmabi.Kvm) -> kvmabi.Vcpu:
    """A vCPU with ZA on."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve", "sme"})
    vcpu.finalize()
    vcpu["svcr"] = 2
    return vcpu


def test_a_fault_changes_nothing_and_is_explained(faulty: kvmabi.Kvm) -> None:
    """The ioctl fails with the errno, its register keeps its value, the event names the rule; the next one works."""
    vcpu = in_za(faulty)
    row, off = b"\x07" * 256, bytes(256)
    with pytest.raises(KvmError, match=r"a fault that was asked for: SET_ONE_REG za\.h\[3\] EINTR once") as raised:
        vcpu["za.h[3]"] = row
    assert (raised.value.errno, raised.value.register) == (errno.EINTR, "za.h[3]")
    assert vcpu["za.h[3]"] == off
    assert [event.errno for event in faulty.log.events if event.what == "KVM_SET_ONE_REG"] == [0, errno.EINTR]
    vcpu["za.h[3]"] = row
    assert vcpu["za.h[3]"] != off


def test_files_of_all_kinds_have_the_faults(faulty: kvmabi.Kvm) -> None:
    """The VM's ioctls are struck as the vCPU's are, and what was to be made is not there."""
    vm = faulty.create_vm()
    vm.create_vcpu(0)
    with pytest.raises(KvmError) as raised:
        vm.create_vcpu(1)
    assert raised.value.errno == errno.ENOMEM
    assert [vcpu.index for vcpu in vm.vcpus()] == [0]


def test_the_vcpu_that_is_to_be_made_is_a_condition() -> None:
    """KVM_CREATE_VCPU, an ioctl of the VM, is about the vCPU that it asks for; other ioctls of the VM about none."""
    with kvmabi.open(host="sme-demo", faults=["CREATE_VCPU ENOMEM vm=1 vcpu=1", "CHECK_EXTENSION EIO vcpu=1"]) as kvm:
        vm = kvm.create_vm()
        vm.create_vcpu(0)
        with pytest.raises(KvmError, match="asked for"):
            vm.create_vcpu(1)
        assert kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, 1) == 0
        kvm.create_vm().create_vcpu(1)


def test_a_vmm_that_does_not_try_again_loses_what_it_wrote(faulty: kvmabi.Kvm) -> None:
    """A restore that passes over the errno is found: the register is named."""
    target = in_za(faulty)
    refused = 0
    for row in range(8):
        try:
            target[f"za.h[{row}]"] = bytes([row + 1]) * len(target["za.h[0]"])
        except KvmError as error:
            refused += error.errno == errno.EINTR
    with pytest.raises(KvmError):
        target.run()
    assert refused == 1
    assert [finding.registers for finding in faulty.findings()] == [("za.h[3]",)]


def test_an_answer_can_be_late() -> None:
    """A delay lets the ioctl work, and its caller waits for the answer."""
    with kvmabi.open(host="sme-demo", faults=["CREATE_VM delay=30ms once", "SET_ONE_REG x0 delay=30ms"]) as kvm:
        begin = time.monotonic()
        vcpu = in_za(kvm)
        middle = time.monotonic()
        vcpu["x0"] = 5
        assert middle - begin >= 0.03
        assert time.monotonic() - middle >= 0.03
        assert vcpu.read("x0") == 5


def test_a_late_failure_fails() -> None:
    """What fails without the delay fails with it, with the kernel's reason; so does a KVM_RUN."""
    with kvmabi.open(host="sme-demo", faults=["SET_ONE_REG delay=1ms", "RUN delay=1ms"]) as kvm:
        vcpu = in_za(kvm)
        with pytest.raises(KvmError) as raised:
            vcpu["sme_vls"] = bytes(64)
        assert raised.value.errno == errno.EPERM
        with pytest.raises(KvmError) as raised:
            vcpu.run()
        assert raised.value.errno == errno.EINTR


def test_an_ioctl_through_its_struct_is_struck_by_its_register(faulty: kvmabi.Kvm) -> None:
    """KVM_SET_ONE_REG as a VMM makes it, with struct kvm_one_reg: the register's ID is read there."""
    vcpu = in_za(faulty)
    value = uapi.ffi.new("char[256]")
    register = uapi.ffi.new("struct kvm_one_reg *")
    register.addr = int(uapi.ffi.cast("uintptr_t", value))
    answers = []
    for name in ("za.h[2]", "za.h[3]", "za.h[3]"):
        register.id = kvmabi.regid.parse(name)
        try:
            answers.append(faulty.ioctl(vcpu.fd, uapi.KVM_SET_ONE_REG, register))
        except KvmError as error:
            answers.append(error.errno or 0)
    assert answers == [0, errno.EINTR, 0]


def test_a_struct_that_cannot_be_read_stays_efault() -> None:
    """A rule for a register does not meet a call without one; the kernel's answer remains."""
    with kvmabi.open(host="sme-demo", faults=["SET_ONE_REG x0 EIO"]) as kvm:
        vcpu = in_za(kvm)
        with pytest.raises(KvmError) as raised:
            kvm.ioctl(vcpu.fd, uapi.KVM_SET_ONE_REG, 8)
    assert raised.value.errno == errno.EFAULT
