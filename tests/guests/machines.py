# SPDX-License-Identifier: MIT
"""VMs with guests for tests: memory, vCPUs, and KVM_RUN until the script is over."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import kvmabi
from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.guests import Cpu
from kvmabi.kvm import Vcpu, Vm

DEVICE = 0x9000000
"""An address without memory."""
RAM = 0x40000000
Body = Callable[[Cpu], Any]


@contextmanager
def machine(
    *features: str, count: int = 1, host: Any = "sme-demo", kernel: str | None = None
) -> Iterator[tuple[Vm, list[Vcpu]]]:
    """A VM with vCPUs of these features, those after the first powered off."""
    with kvmabi.open(host=host, kernel=kernel) as kvm:
        vm = kvm.create_vm()
        vcpus = [vm.create_vcpu(n) for n in range(count)]
        for vcpu in vcpus:
            vcpu.init({*features, *({"power_off"} if vcpu.index else ())})
            if {"sve", "sme"} & set(features):
                vcpu.finalize()
        yield vm, vcpus


def once(body: Body, *features: str, host: Any = "sme-demo", kernel: str | None = None) -> Any:
    """What a function returns that runs as a guest of a vCPU with these features."""
    results: list[Any] = []

    def guest(cpu: Cpu) -> Iterator[None]:
        results.append(body(cpu))
        yield

    with machine(*features, host=host, kernel=kernel) as (_vm, (vcpu,)):
        vcpu.guest = guest
        wait(vcpu)
    return results[0]


def wait(vcpu: Vcpu) -> None:
    """KVM_RUN of a guest that ends up waiting."""
    try:
        run = vcpu.run()
    except KvmError as error:
        assert error.name == "EINTR"  # noqa: PT017
        return
    raise AssertionError(f"exit {run.exit_reason}")


def memory(vm: Vm, *, slot: int = 0, guest: int = RAM, size: int = 1 << 16, flags: int = 0) -> mmap.mmap:
    """A memory slot; the memory is the caller's to keep."""
    ram = mmap.mmap(-1, size)
    address = int(uapi.ffi.cast("uintptr_t", uapi.ffi.from_buffer(ram)))
    fields = {
        "slot": slot,
        "flags": flags,
        "guest_phys_addr": guest,
        "memory_size": size,
        "userspace_addr": address,
    }
    vm.kvm.ioctl(vm.fd, uapi.KVM_SET_USER_MEMORY_REGION, uapi.ffi.new("struct kvm_userspace_memory_region *", fields))
    return ram


def dirty(vm: Vm, pages: int, *, slot: int = 0) -> list[int]:
    """The dirty pages of a slot, which KVM_GET_DIRTY_LOG clears."""
    bitmap = uapi.ffi.new("uint64_t[]", (pages + 63) // 64)
    log = uapi.ffi.new("struct kvm_dirty_log *", {"slot": slot, "dirty_bitmap": bitmap})
    vm.kvm.ioctl(vm.fd, uapi.KVM_GET_DIRTY_LOG, log)
    return [page for page in range(pages) if bitmap[page // 64] >> page % 64 & 1]


def mp_state(vcpu: Vcpu) -> int:
    """KVM_GET_MP_STATE."""
    state = uapi.ffi.new("struct kvm_mp_state *")
    vcpu.kvm.ioctl(vcpu.fd, uapi.KVM_GET_MP_STATE, state)
    return int(state.mp_state)


def set_mp_state(vcpu: Vcpu, state: int) -> None:
    """KVM_SET_MP_STATE."""
    vcpu.kvm.ioctl(vcpu.fd, uapi.KVM_SET_MP_STATE, uapi.ffi.new("struct kvm_mp_state *", {"mp_state": state}))


def irq_line(vm: Vm, irq: int, level: int) -> None:
    """KVM_IRQ_LINE with an interrupt as it encodes one."""
    vm.kvm.ioctl(vm.fd, uapi.KVM_IRQ_LINE, uapi.ffi.new("struct kvm_irq_level *", {"irq": irq, "level": level}))


def smccc_filter(vm: Vm, base: int, count: int, action: int) -> None:
    """KVM_ARM_VM_SMCCC_FILTER."""
    rule = uapi.ffi.new("struct kvm_smccc_filter *", {"base": base, "nr_functions": count, "action": action})
    attr = uapi.ffi.new(
        "struct kvm_device_attr *",
        {
            "group": uapi.KVM_ARM_VM_SMCCC_CTRL,
            "attr": uapi.KVM_ARM_VM_SMCCC_FILTER,
            "addr": int(uapi.ffi.cast("uintptr_t", rule)),
        },
    )
    vm.kvm.ioctl(vm.fd, uapi.KVM_SET_DEVICE_ATTR, attr)


def exits(vcpu: Vcpu, reasons: Iterable[int]) -> None:
    """KVM_RUN again and again: the exits come in this order."""
    for reason in reasons:
        assert vcpu.run().exit_reason == reason
