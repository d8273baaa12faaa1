# SPDX-License-Identifier: MIT
"""A VMM in Python on the /dev/kvm that it opens: saves a VM of two vCPUs, restores it, and compares. Run by a test."""

from __future__ import annotations

import fcntl
import os
import sys

from kvmabi import regid, uapi
from kvmabi.order.values import same
from kvmabi.snapshot.restoring import RestoreError, restore
from kvmabi.snapshot.saving import save

FEATURES = 1 << uapi.KVM_ARM_VCPU_SVE | 1 << uapi.KVM_ARM_VCPU_SME
MODES = (3, 2)


def create(kvm: int) -> list[int]:
    """A VM's vCPUs."""
    vm = fcntl.ioctl(kvm, uapi.KVM_CREATE_VM, 0)
    return [fcntl.ioctl(vm, uapi.KVM_CREATE_VCPU, index) for index in range(len(MODES))]


def set_register(vcpu: int, name: str, data: bytes) -> None:
    """KVM_SET_ONE_REG by hand."""
    payload = uapi.ffi.new("char[]", data)
    argument = uapi.ffi.new(
        "struct kvm_one_reg *", {"id": regid.parse(name), "addr": int(uapi.ffi.cast("uintptr_t", payload))}
    )
    fcntl.ioctl(vcpu, uapi.KVM_SET_ONE_REG, bytes(uapi.ffi.buffer(argument)))


def main() -> None:
    """Prints what happened, a line each."""
    kvm = os.open("/dev/kvm", os.O_RDWR)
    source, target = create(kvm), create(kvm)
    for vcpu in source:
        init = uapi.ffi.new("struct kvm_vcpu_init *", {"target": 5, "features": [FEATURES]})
        fcntl.ioctl(vcpu, uapi.KVM_ARM_VCPU_INIT, bytes(uapi.ffi.buffer(init)))
    for vcpu, mode in zip(source, MODES, strict=True):
        set_register(vcpu, "sme_vls", bytes([2]) + bytes(63))
        fcntl.ioctl(vcpu, uapi.KVM_ARM_VCPU_FINALIZE, uapi.KVM_ARM_VCPU_VEC.to_bytes(4, "little"))
        set_register(vcpu, "svcr", bytes([mode]) + bytes(7))
        set_register(vcpu, "za.h[3]", b"\x07" * 256)
        set_register(vcpu, "z5", b"\x05" * 256)
    saved = save(source)
    print("features", saved.features, "unknown", sorted(fact.name for fact in saved.unknown), saved.sme_bits)
    restored = restore(saved, target)
    print("inferred", *sorted(restored.features))
    again = save(target, features={"sve", "sme"})
    print(
        "differ",
        [
            regid.name_of(id)
            for one, other in zip(saved.vcpus, again.vcpus, strict=True)
            for id, value in one.registers.items()
            if not same(id, value, other.registers[id])
        ],
    )
    print("registers", [len(vcpu.registers) for vcpu in saved.vcpus])
    try:
        restore(saved, create(kvm), features={"sve"})
    except RestoreError as error:
        print("refused", len(error.failures), error.failures[0])
    sys.stdout.flush()


if __name__ == "__main__":
    main()
