# SPDX-License-Identifier: MIT
"""A VMM declares saves and restores: by an ioctl that C programs do with kvmabi/mark.h, or by a call of Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ctools import INCLUDE, ROOT, STRICT, compile_c, evaluate
from hypothesis import given
from hypothesis import strategies as st
from vmms import opened, vcpu_of

from kvmabi import Kvm, KvmError, UsageError, regid, uapi
from kvmabi.device import mark
from kvmabi.device.mark import Mark, mark_of
from kvmabi.events import Event, Kind

MOST_CAPABILITY = (1 << 31) - 1
SAVED, RESTORED = 1, 2
PAGE = ROOT / "docs/how-to/vmm-in-ci.md"


def argument(operation: int, vcpu: int, label: int) -> int:
    """What mark.h asks KVM_CHECK_EXTENSION for."""
    return label << mark.LABEL_SHIFT | mark.MAGIC << mark.MAGIC_SHIFT | operation << mark.OPERATION_SHIFT | vcpu


def marks(kvm: Kvm) -> list[tuple[str, int | None, int | None, bytes | None]]:
    """The declarations among the kept events."""
    return [(e.what, e.vm, e.vcpu, e.data) for e in kvm.log.events if e.kind is Kind.MARK]


def test_c_makes_the_same_numbers(tmp_path: Path) -> None:
    """The argument that mark.h computes is the one that mark.py reads; every operation has its name in C."""
    cases = [(SAVED, 0, 0), (RESTORED, 511, 7), (SAVED, 0xFFFF, 0xFFFFFFFF)]
    expressions = [f"KVMABI_MARK({operation}, {vcpu}u, {label}u)" for operation, vcpu, label in cases]
    assert evaluate(tmp_path, expressions, [f"-I{INCLUDE}"], headers="<kvmabi/mark.h>") == [
        argument(*case) for case in cases
    ]
    names = [f"KVMABI_MARK_{name.upper()}" for name in mark.OPERATIONS.values()]
    assert evaluate(tmp_path, names, [f"-I{INCLUDE}"], headers="<kvmabi/mark.h>") == list(mark.OPERATIONS)


@given(st.sampled_from(sorted(mark.OPERATIONS)), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF))
def test_declaration_is_no_capability(operation: int, vcpu: int, label: int) -> None:
    """It is read back as it was made, and its lower 32 bits alone are beyond every capability, too."""
    extension = argument(operation, vcpu, label)
    assert mark_of(extension) == Mark(mark.OPERATIONS[operation], vcpu, label)
    assert extension & 0xFFFFFFFF > MOST_CAPABILITY


@given(st.integers(0, MOST_CAPABILITY))
def test_capability_is_no_declaration(capability: int) -> None:
    assert mark_of(capability) is None


def test_ioctl_declares() -> None:
    """The answer is 0; the event follows the ioctl's own, without a number, and watchers see the registers."""
    seen: list[tuple[Kind, int, bytes | None]] = []

    def watch(event: Event) -> None:
        if event.kind is Kind.MARK or event.what == "KVM_CHECK_EXTENSION":
            seen.append((event.kind, event.number, event.registers.get(regid.parse("x0"))))

    with opened() as kvm:
        vm = kvm.create_vm()
        vcpu_of(vm, 3)["x0"] = 5
        kvm.log.watchers.append(watch)
        assert kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, argument(SAVED, 3, 7)) == 0
        number = kvm.log.count
        assert marks(kvm) == [("saved", 1, 3, (7).to_bytes(8, "little"))]
    assert seen == [(Kind.IOCTL, number, None), (Kind.MARK, number, (5).to_bytes(8, "little"))]


@pytest.mark.parametrize(("index", "reason"), [(9, "vCPU 9 does not exist"), (0, "vCPU 0 is not initialised")])
def test_vcpu_without_state(index: int, reason: str) -> None:
    """The answer is 0 as from a kernel; the event says that there is nothing to compare."""
    with opened() as kvm:
        vm = kvm.create_vm()
        vm.create_vcpu(0)
        assert kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, argument(RESTORED, index, 1)) == 0
        event = kvm.log.events[-1]
        assert (event.kind, event.vcpu, event.errno) == (Kind.MARK, index, 0)
        assert event.reason.startswith(reason)


@pytest.mark.parametrize("operation", [0, 3, 15])
def test_unknown_operation_declares_nothing(operation: int) -> None:
    """The number is that of a capability that does not exist, no more."""
    with opened() as kvm:
        vm = kvm.create_vm()
        assert kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, argument(operation, 0, 1)) == 0
        assert marks(kvm) == []


def test_system_file_declares_nothing() -> None:
    """Only the VM's file takes declarations; /dev/kvm's answer is 0."""
    with opened() as kvm:
        assert kvm.ioctl(kvm.fd, uapi.KVM_CHECK_EXTENSION, argument(SAVED, 0, 1)) == 0
        assert marks(kvm) == []


def test_python_declares() -> None:
    """Each save has a label of its own, beyond the 32 bits of C; restored takes it, and those of C."""
    with opened() as kvm:
        source, target = vcpu_of(kvm.create_vm()), vcpu_of(kvm.create_vm(), 1)
        first, second = kvm.saved(source), kvm.saved(source)
        assert first != second
        assert min(first, second) > 0xFFFFFFFF
        kvm.restored(target, first)
        kvm.restored(target, 7)
        labels = [label.to_bytes(8, "little") for label in (first, second, first, 7)]
        assert marks(kvm) == [
            ("saved", 1, 0, labels[0]),
            ("saved", 1, 0, labels[1]),
            ("restored", 2, 1, labels[2]),
            ("restored", 2, 1, labels[3]),
        ]


def test_misuse_in_python() -> None:
    """A vCPU without INIT, of another Kvm, or closed, and a label that no save has."""
    with opened() as kvm, opened() as other:
        vm = kvm.create_vm()
        vcpu = vm.create_vcpu(0)
        with pytest.raises(UsageError, match="not initialised"):
            kvm.saved(vcpu)
        with pytest.raises(UsageError, match="another Kvm"):
            other.saved(vcpu)
        good = vcpu_of(vm, 1)
        for label in (kvm.saved(good) + 1, -1, "1"):
            with pytest.raises(UsageError, match="label"):
                kvm.restored(good, label)  # type: ignore[arg-type]
        kvm.close(good.fd)
        with pytest.raises(KvmError, match="EBADF"):
            kvm.saved(good)


@pytest.mark.parametrize("standard", ["c11", "gnu17"])
def test_example_of_the_page_compiles(standard: str) -> None:
    """What docs/how-to/vmm-in-ci.md shows."""
    (example,) = re.findall(r"^```c\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.M)
    flags = [f"-std={standard}", *STRICT, f"-I{INCLUDE}", "-c", "-o", "/dev/null"]
    compile_c(example, flags)


def test_header_works_with_the_systems_kvm_header(tmp_path: Path) -> None:
    """A VMM can copy the header instead of using kvmabi's folder."""
    (tmp_path / "kvmabi").mkdir()
    (tmp_path / "kvmabi/mark.h").write_text((INCLUDE / "kvmabi/mark.h").read_text("utf-8"))
    compile_c("#include <kvmabi/mark.h>\nint none;\n", ["-std=c11", *STRICT, f"-I{tmp_path}", "-c", "-o", "/dev/null"])


def test_line_of_the_log() -> None:
    """``kvmabi run --log`` shows a declaration with its label as a number, as the page says."""
    with opened() as kvm:
        vcpu = vcpu_of(kvm.create_vm())
        kvm.ioctl(vcpu.vm.fd, uapi.KVM_CHECK_EXTENSION, argument(SAVED, 0, 7))
        assert str(kvm.log.events[-1]) == f"{kvm.log.count} VM 1 vCPU 0 saved 7: OK"
