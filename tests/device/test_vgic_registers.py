# SPDX-License-Identifier: MIT
"""A vGIC's registers by ioctls: saved and restored as a VMM does, and named in events."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from random import Random

import pytest

import kvmabi
from kvmabi import Kvm, gicnames, uapi
from kvmabi.errors import KvmError
from kvmabi.fuzz import gicregs
from kvmabi.gicnames import DIST, LEVEL, REDIST
from kvmabi.kvm import Vcpu

VCPUS, IRQS = 2, 96
SET_BY_BITS = {"isenabler": "icenabler", "isactiver": "icactiver"}
"""Registers that only set bits, which others clear."""


class Gic:
    """A VM with a vGIC, and its attributes as a VMM accesses them."""

    def __init__(self, kvm: Kvm) -> None:
        self.kvm = kvm
        vm = kvm.create_vm()
        self.vcpus: list[Vcpu] = []
        for index in range(VCPUS):
            vcpu = vm.create_vcpu(index)
            vcpu.init()
            self.vcpus.append(vcpu)
        device = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_ARM_VGIC_V3})
        kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
        self.fd = device.fd
        for name, value in (("dist_addr", 0x8000000), ("redist_addr", 0x80A0000), ("nr_irqs", IRQS), ("ctrl_init", 0)):
            self.set(name, value)

    def _ioctl(self, request: int, name: str, value: int) -> int:
        group, attr = gicnames.parse(name)
        place = uapi.ffi.new("__u64 *", value)
        fields = {"group": group, "attr": attr, "addr": int(uapi.ffi.cast("uintptr_t", place))}
        self.kvm.ioctl(self.fd, request, uapi.ffi.new("struct kvm_device_attr *", fields))
        return int(place[0])

    def set(self, name: str, value: int) -> None:
        """KVM_SET_DEVICE_ATTR."""
        self._ioctl(uapi.KVM_SET_DEVICE_ATTR, name, value)

    def get(self, name: str) -> int:
        """KVM_GET_DEVICE_ATTR."""
        return self._ioctl(uapi.KVM_GET_DEVICE_ATTR, name, 0)

    def save(self) -> dict[str, int]:
        """Every word of every register, and the lines."""
        return {name: self.get(name) for name in words()}

    def restore(self, saved: dict[str, int]) -> None:
        """Write all of it, bits that can only be set after those were cleared that others may have."""
        for name, value in saved.items():
            for setting, clearing in SET_BY_BITS.items():
                if setting in name:
                    self.set(name.replace(setting, clearing), 0xFFFFFFFF)
            if not any(clearing in name for clearing in SET_BY_BITS.values()):
                self.set(name, value)


def words() -> Iterator[str]:
    """The names of a vGIC's attributes that are state."""
    for group in (DIST, REDIST):
        for offset, place in gicnames.places(group).items():
            if place.range.irq_bits == 0 or place.first_irq < IRQS:
                for vcpu in range(VCPUS if group == REDIST else 1):
                    yield gicnames.name_of(group, vcpu << 32 | offset)
    yield from (gicnames.name_of(LEVEL, place) for place in (0, 1 << 32, 32, 64))


@pytest.fixture
def gic(kvm: Kvm) -> Gic:
    return Gic(kvm)


@pytest.mark.parametrize("seed", range(3))
def test_a_vgic_moves_to_another_vm(gic: Gic, seed: int) -> None:
    """What one VM's registers return makes another VM's return the same, whatever was written before."""
    random = Random(seed)
    device = gic.kvm.file(gic.fd)
    names = list(words())
    for name in random.sample(names, len(names) // 2):
        if not name.startswith(("gicd_iidr", "gicd_typer2")):
            gic.set(name, random.choice(gicregs.VALUES))
    saved = gic.save()
    assert device.kind == "device"
    other = Gic(gic.kvm)
    assert other.save() != saved
    other.restore(saved)
    assert other.save() == saved


def test_a_word_is_written_and_no_more(gic: Gic) -> None:
    """A get leaves the upper half of 8 bytes alone; a set ignores it."""
    gic.set("gicd_irouter[40]", 0xFFFFFFFF_00000001)
    assert gic.get("gicd_irouter[40]") == 1
    assert gic.get("gicd_irouter[40].high") == 0


def test_events_name_the_attribute(gic: Gic) -> None:
    """With the value that was read or written; an access that fails has the reason and the way out."""
    gic.set("gicd_ctlr", 2)
    assert gic.get("gicr_typer[cpu1]") == 0x110
    with pytest.raises(KvmError, match="no vCPU has the affinity") as caught:
        gic.get("gicr_typer[cpu7]")
    assert caught.value.errno == errno.EINVAL
    written, read, refused = map(str, list(gic.kvm.log.events)[-3:])
    assert "KVM_SET_DEVICE_ATTR gicd_ctlr = 02000000: OK" in written
    assert "KVM_GET_DEVICE_ATTR gicr_typer[cpu1] = 10010000: OK" in read
    assert "gicr_typer[cpu7]: EINVAL" in refused
    assert "MPIDR_EL1" in refused


def test_a_vgic_without_its_init(kvm: Kvm) -> None:
    """EBUSY, and the way out."""
    vm = kvm.create_vm()
    vm.create_vcpu(0).init()
    device = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_ARM_VGIC_V3})
    kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
    place = uapi.ffi.new("__u32 *")
    fields = {"group": DIST, "addr": int(uapi.ffi.cast("uintptr_t", place))}
    with pytest.raises(kvmabi.KvmError, match="KVM_DEV_ARM_VGIC_CTRL_INIT") as caught:
        kvm.ioctl(device.fd, uapi.KVM_GET_DEVICE_ATTR, uapi.ffi.new("struct kvm_device_attr *", fields))
    assert caught.value.errno == errno.EBUSY
