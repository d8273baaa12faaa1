# SPDX-License-Identifier: MIT
"""The interrupt controllers take part in a verdict: what a restore does not bring back of them is found by name."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmms import guest, opened, restored, save

from kvmabi import Kvm, KvmError, gicnames, uapi
from kvmabi.kvm import Vm
from kvmabi.order import OrderChecker, Severity
from kvmabi.order.kept import KeptSaves
from kvmabi.testing.records import verdict_of

DIST_ADDR, REDIST_ADDR, ITS_ADDR = 0x800_0000, 0x80A_0000, 0x900_0000
GUEST_STATE = {
    "gicd_isenabler[1]": 0x500,
    "gicd_ipriorityr[9]": 0xA0B0_C0D0,
    "gicr_ispendr0[cpu0]": 1 << 20,
    "icc_pmr_el1[cpu0]": 0xF0,
    "icc_igrpen1_el1[cpu0]": 1,
    "icc_bpr1_el1[cpu0]": 3,
    "gits_cbaser": 1 << 63 | 0x4000_0000,
    "gits_baser[0]": 1 << 63 | 0x4001_0000,
}
NAMES = [*GUEST_STATE, "icc_sre_el1[cpu0]", "gits_iidr"]


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with opened() as opened_kvm:
        yield opened_kvm


class Gic:
    """A VM's vGICv3 and its ITS, by the names of their registers."""

    def __init__(self, vm: Vm) -> None:
        self.kvm = vm.kvm
        self.fds = {
            kind: self._create(vm, kind) for kind in (uapi.KVM_DEV_TYPE_ARM_VGIC_V3, uapi.KVM_DEV_TYPE_ARM_VGIC_ITS)
        }
        for name, address in (("dist_addr", DIST_ADDR), ("redist_addr", REDIST_ADDR), ("its_addr", ITS_ADDR)):
            self[name] = address
        for fd in self.fds.values():
            self._do(fd, uapi.KVM_SET_DEVICE_ATTR, *gicnames.parse("ctrl_init"), 0)

    def __setitem__(self, name: str, value: int) -> None:
        self._do(self._fd(name), uapi.KVM_SET_DEVICE_ATTR, *gicnames.parse(name), value)

    def __getitem__(self, name: str) -> int:
        return self._do(self._fd(name), uapi.KVM_GET_DEVICE_ATTR, *gicnames.parse(name), 0)

    def _fd(self, name: str) -> int:
        its = name.startswith(("gits", "its"))
        return self.fds[uapi.KVM_DEV_TYPE_ARM_VGIC_ITS if its else uapi.KVM_DEV_TYPE_ARM_VGIC_V3]

    def _create(self, vm: Vm, kind: int) -> int:
        device = uapi.ffi.new("struct kvm_create_device *", {"type": kind})
        self.kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
        return int(device.fd)

    def _do(self, fd: int, request: int, group: int, number: int, value: int) -> int:
        place = uapi.ffi.new("uint64_t *", value)
        address = int(uapi.ffi.cast("uintptr_t", place))
        attribute = {"group": group, "attr": number, "addr": address}
        self.kvm.ioctl(fd, request, uapi.ffi.new("struct kvm_device_attr *", attribute))
        return int(place[0])


class Saved:
    """A VM with a guest in it, saved."""

    def __init__(self, kvm: Kvm, names: list[str] = NAMES) -> None:
        vm = kvm.create_vm()
        vcpu = guest(vm)
        gic = Gic(vm)
        for name, value in GUEST_STATE.items():
            gic[name] = value
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        self.registers = save(vcpu)
        self.gic = {name: gic[name] for name in names}

    def load(self, kvm: Kvm, names: list[str] | None = None) -> Gic:
        """Restore the vCPU, and these registers of the interrupt controllers in this order; enter the guest."""
        vm = kvm.create_vm()
        vcpu = restored(vm, self.registers)
        gic = Gic(vm)
        for name in NAMES if names is None else names:
            if name in self.gic:
                gic[name] = self.gic[name]
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        return gic


def found(kvm: Kvm) -> dict[str, set[str]]:
    """The registers of each cause of the verdict."""
    return {finding.cause: set(finding.registers) for finding in kvm.findings()}


def test_a_right_restore_is_clean(kvm: Kvm) -> None:
    """Every register was written back: nothing to report, and the vCPU was judged."""
    Saved(kvm).load(kvm)
    assert found(kvm) == {}
    assert len(kvm.verdict().judged) == 1


def test_what_kvm_makes_of_a_value_is_not_a_loss(kvm: Kvm) -> None:
    """A base register that was never written reads as zero; written back, it has the attributes that KVM chooses."""
    saved = Saved(kvm)
    vm = kvm.create_vm()
    source = guest(vm)
    gic = Gic(vm)
    with pytest.raises(KvmError, match="EINTR"):
        source.run()
    saved.registers = save(source)
    saved.gic = {name: gic[name] for name in NAMES}
    assert saved.gic["gits_cbaser"] == 0
    assert saved.load(kvm)["gits_cbaser"] != 0
    assert found(kvm) == {}


def test_what_was_not_written_back(kvm: Kvm) -> None:
    """A register that was saved and left alone is named; one that has its saved value anyway is not."""
    Saved(kvm).load(kvm, ["icc_pmr_el1[cpu0]", "gits_cbaser"])
    missing = GUEST_STATE.keys() - {"icc_pmr_el1[cpu0]", "gits_cbaser"}
    assert found(kvm) == {"gic-never-written": missing}
    (finding,) = kvm.findings()
    assert (finding.vm, finding.vcpu, finding.severity) == (2, None, Severity.LOST)
    assert "of VM 2 interrupt controllers" in str(finding)
    assert {loss.name: loss.left for loss in finding.losses}["icc_bpr1_el1[cpu0]"] != (3).to_bytes(8, "little")


def test_interrupt_controllers_that_were_forgotten(kvm: Kvm) -> None:
    """A VMM that writes no register at all of them is found as well."""
    Saved(kvm).load(kvm, [])
    assert found(kvm) == {"gic-never-written": set(GUEST_STATE)}


def test_what_was_not_saved_is_not_judged(kvm: Kvm) -> None:
    """Only what the save read is compared: a VMM without migration of interrupts is left in peace."""
    Saved(kvm, []).load(kvm, [])
    assert found(kvm) == {}


def test_a_register_that_a_later_write_took(kvm: Kvm) -> None:
    """Written as saved, then overwritten by another register's write: an ITS that is reset loses its tables."""
    saved = Saved(kvm)
    vm = kvm.create_vm()
    vcpu = restored(vm, saved.registers)
    gic = Gic(vm)
    for name in NAMES:
        gic[name] = saved.gic[name]
    gic._do(gic._fd("its"), uapi.KVM_SET_DEVICE_ATTR, *gicnames.parse("its_reset"), 0)
    with pytest.raises(KvmError, match="EINTR"):
        vcpu.run()
    assert found(kvm) == {"gic-undone": {"gits_cbaser", "gits_baser[0]"}}


def test_a_write_that_comes_after_the_guest(kvm: Kvm) -> None:
    """What is written only after KVM_RUN was not there when the guest was entered."""
    saved = Saved(kvm)
    gic = saved.load(kvm, [name for name in NAMES if name != "icc_pmr_el1[cpu0]"])
    gic["icc_pmr_el1[cpu0]"] = saved.gic["icc_pmr_el1[cpu0]"]
    assert found(kvm) == {"gic-late": {"icc_pmr_el1[cpu0]"}}


def test_another_value(kvm: Kvm) -> None:
    """A value that was changed on the way is the VMM's doing."""
    saved = Saved(kvm)
    saved.gic["icc_bpr1_el1[cpu0]"] = 5
    saved.load(kvm)
    assert found(kvm) == {"gic-changed": {"icc_bpr1_el1[cpu0]"}}
    assert kvm.verdict().worst is Severity.CHANGED


def test_a_refused_write(kvm: Kvm) -> None:
    """A register that was refused before the vGIC's initialisation and never written again."""
    saved = Saved(kvm)
    vm = kvm.create_vm()
    vcpu = restored(vm, saved.registers)

    class Early(Gic):
        def __setitem__(self, name: str, value: int) -> None:
            if name == "dist_addr":
                with pytest.raises(KvmError) as raised:
                    super().__setitem__("icc_pmr_el1[cpu0]", saved.gic["icc_pmr_el1[cpu0]"])
                assert raised.value.errno == errno.EBUSY
            super().__setitem__(name, value)

    gic = Early(vm)
    for name in NAMES:
        if name != "icc_pmr_el1[cpu0]":
            gic[name] = saved.gic[name]
    with pytest.raises(KvmError, match="EINTR"):
        vcpu.run()
    assert found(kvm) == {"gic-refused": {"icc_pmr_el1[cpu0]"}}


def test_a_guest_that_was_not_entered(kvm: Kvm) -> None:
    """A VM that is restored and asked about before its first KVM_RUN is judged as it is."""
    saved = Saved(kvm)
    vm = kvm.create_vm()
    restored(vm, saved.registers)
    gic = Gic(vm)
    for name in NAMES[1:]:
        gic[name] = saved.gic[name]
    assert found(kvm) == {"gic-never-written": {NAMES[0]}}
    gic[NAMES[0]] = saved.gic[NAMES[0]]
    assert found(kvm) == {}


def test_the_next_run_of_the_vm_is_another_state(kvm: Kvm) -> None:
    """What the guest or the VMM changes after a right restore is not compared with the save."""
    gic = Saved(kvm).load(kvm)
    gic["icc_pmr_el1[cpu0]"] = 0x80
    assert found(kvm) == {}


def test_a_save_of_another_run(kvm: Kvm, tmp_path: Path) -> None:
    """A save that was kept has the interrupt controllers' registers; a run that restores it is judged by them."""
    kept = KeptSaves(tmp_path)
    checker = OrderChecker()
    kvm.log.watchers.append(checker.watch)
    saved = Saved(kvm)
    kept.keep(checker.sources(), "one")
    (again,) = kept.load()
    assert {gicnames.name_of(*attribute) for attribute in again.controllers.values} == set(NAMES)
    with opened() as other:
        second = OrderChecker()
        other.log.watchers.append(second.watch)
        saved.load(other, [name for name in NAMES if name != "icc_pmr_el1[cpu0]"])
        verdict = second.verdict(other_saves=kept.load)
    assert [(finding.cause, finding.registers) for finding in verdict.findings] == [
        ("gic-never-written", ("icc_pmr_el1[cpu0]",))
    ]
    assert verdict_of(verdict.as_dict()).findings[0].losses[0].id == verdict.findings[0].losses[0].id
