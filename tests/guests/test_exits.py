# SPDX-License-Identifier: MIT
"""What a script yields ends KVM_RUN as it does in the kernel: struct kvm_run, memory, eventfds, debug exits."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guests.machines import DEVICE, RAM, dirty, irq_line, machine, memory, once, set_mp_state, wait
from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.guests import Brk, Cpu, GuestError, Hypercall, Mmio, Wfe, Wfi
from kvmabi.kvm import Vcpu, Vm

SIZES = st.sampled_from((1, 2, 4, 8))
SENTINEL = b"\xee" * 8


@given(SIZES, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 40) - 9), st.booleans())
def test_an_access_outside_of_memory_is_an_mmio_exit(size: int, number: int, addr: int, write: bool) -> None:
    """phys_addr, len, is_write and the data; a load takes as many bytes of the VMM's data, and the PC goes on."""
    number &= (1 << 8 * size) - 1
    seen = []

    def guest(cpu: Cpu) -> Iterator[Any]:
        cpu.pc = 0x1000
        seen.append((yield Mmio(addr, size, number if write else None)))
        yield

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        vcpu.kvm_run.mmio.data = SENTINEL
        run = vcpu.run()
        assert (run.exit_reason, run.mmio.phys_addr, run.mmio.len) == (uapi.KVM_EXIT_MMIO, addr, size)
        assert (run.mmio.is_write, vcpu.read("pc")) == (write, 0x1000)
        assert (
            bytes(run.mmio.data)
            == (number.to_bytes(size, "little") if write else b"") + SENTINEL[size if write else 0 :]
        )
        if not write:
            run.mmio.data = number.to_bytes(8, "little")
        wait(vcpu)
        assert (seen, vcpu.read("pc")) == ([None if write else number], 0x1004)


def test_immediate_exit_completes_a_load_without_entering_the_guest() -> None:
    """The VMM's way to a consistent state: the register has the value, the PC is behind; the script has not gone on."""
    seen = []

    def guest(cpu: Cpu) -> Iterator[Any]:
        seen.append((yield Mmio(DEVICE, register=9)))
        yield

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        vcpu.run().mmio.data = (7).to_bytes(8, "little")
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run(immediate_exit=True)
        assert (seen, vcpu.read("pc"), vcpu.read("x9")) == ([], 4, 7)
        vcpu.kvm_run.mmio.data = bytes(8)
        wait(vcpu)
        assert seen == [7]


def test_an_exit_that_the_vmm_did_not_take_comes_again() -> None:
    """Another exit_reason in kvm_run means that the load is not complete: the instruction runs again."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Mmio(DEVICE)
        yield Mmio(DEVICE + 4)

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        vcpu.run().exit_reason = uapi.KVM_EXIT_UNKNOWN
        assert vcpu.run().mmio.phys_addr == DEVICE
        assert vcpu.read("pc") == 0
        assert vcpu.run().mmio.phys_addr == DEVICE + 4


def test_memory_is_the_vmms_and_writes_make_it_dirty() -> None:
    """Slices, read and write, and accesses that are yielded; a page is dirty once it is written."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        assert cpu.memory[RAM : RAM + 4] == b"boot"
        cpu.memory[RAM + 0x1FFE : RAM + 0x2002] = b"page"
        cpu.memory.write(RAM + 0x5000, b"five")
        value = yield Mmio(RAM, 4)
        yield Mmio(RAM + 0x8000, 2, value & 0xFFFF)
        yield Mmio(DEVICE)

    with machine() as (vm, (vcpu,)):
        ram = memory(vm, flags=uapi.KVM_MEM_LOG_DIRTY_PAGES)
        ram[:4] = b"boot"
        vcpu.guest = guest
        assert vcpu.run().mmio.phys_addr == DEVICE
        assert (ram[0x1FFE:0x2002], ram[0x5000:0x5004], ram[0x8000:0x8002]) == (b"page", b"five", b"bo")
        assert dirty(vm, 16) == [1, 2, 5, 8]
        assert dirty(vm, 16) == []


@given(st.lists(st.tuples(st.integers(0, (1 << 16) - 1), st.integers(1, 5000)), max_size=6))
def test_dirty_pages_are_those_that_were_written(writes: list[tuple[int, int]]) -> None:
    """Whatever the guest writes, in a slot that is logged."""
    writes = [(place, min(size, (1 << 16) - place)) for place, size in writes]

    def guest(cpu: Cpu) -> Iterator[Any]:
        for place, size in writes:
            cpu.memory.write(RAM + place, b"\1" * size)
        yield

    with machine() as (vm, (vcpu,)):
        ram = memory(vm, flags=uapi.KVM_MEM_LOG_DIRTY_PAGES)
        vcpu.guest = guest
        wait(vcpu)
        assert dirty(vm, 16) == [page for page in range(16) if any(ram[page << 12 : page + 1 << 12])]


def test_an_access_crosses_into_the_next_slot() -> None:
    """Slots that touch are one memory to the guest; beyond the last one there is none."""

    def body(cpu: Cpu) -> bytes:
        cpu.memory.write(RAM + 0xFFFE, b"over")
        with pytest.raises(GuestError, match="there is no memory at 0x40020000"):
            cpu.memory.read(RAM + 0x1FFFE, 4)
        return cpu.memory.read(RAM + 0xFFFC, 8)

    with machine() as (vm, (vcpu,)):
        memories = [memory(vm), memory(vm, slot=1, guest=RAM + 0x10000)]
        results = []

        def guest(cpu: Cpu) -> Iterator[Any]:
            results.append(body(cpu))
            yield

        vcpu.guest = guest
        wait(vcpu)
        assert results == [b"\0\0over\0\0"]
        assert memories[1][:2] == b"er"


def test_a_write_to_read_only_memory_is_the_vmms_to_answer() -> None:
    """It reads as memory; a store that is yielded exits, one in between cannot."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        assert (yield Mmio(RAM, 1)) == 9
        with pytest.raises(GuestError, match="read-only"):
            cpu.memory[RAM : RAM + 1] = b"\0"
        yield Mmio(RAM, 1, 5)

    with machine() as (vm, (vcpu,)):
        ram = memory(vm, flags=uapi.KVM_MEM_READONLY)
        ram[0] = 9
        vcpu.guest = guest
        run = vcpu.run()
        assert (run.exit_reason, run.mmio.phys_addr, run.mmio.is_write) == (uapi.KVM_EXIT_MMIO, RAM, 1)
        assert ram[0] == 9


def test_memory_that_the_vmm_lacks_is_efault() -> None:
    """KVM_RUN fails, nothing is dirty, and the access is done again by the next one."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Mmio(RAM, 4, 1)
        yield Mmio(DEVICE)

    with machine() as (vm, (vcpu,)):
        ram = memory(vm, flags=uapi.KVM_MEM_LOG_DIRTY_PAGES)
        address = int(uapi.ffi.cast("uintptr_t", uapi.ffi.from_buffer(ram)))
        _mprotect(address, len(ram), 0)
        vcpu.guest = guest
        for _ in range(2):
            with pytest.raises(KvmError, match="EFAULT"):
                vcpu.run()
        assert dirty(vm, 16) == []
        _mprotect(address, len(ram), mmap.PROT_READ | mmap.PROT_WRITE)
        assert vcpu.run().mmio.phys_addr == DEVICE
        assert ram[0] == 1


def _mprotect(address: int, size: int, protection: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), protection) == 0


def ioeventfd(vm: Vm, fd: int, addr: int, size: int = 0, match: int | None = None) -> None:
    """KVM_IOEVENTFD."""
    flags = 0 if match is None else uapi.KVM_IOEVENTFD_FLAG_DATAMATCH
    fields = {"addr": addr, "len": size, "fd": fd, "datamatch": match or 0, "flags": flags}
    vm.kvm.ioctl(vm.fd, uapi.KVM_IOEVENTFD, uapi.ffi.new("struct kvm_ioeventfd *", fields))


def test_a_write_that_an_ioeventfd_matches_signals_it() -> None:
    """Address, length and value decide; what does not match exits, and so does every load."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Mmio(DEVICE, 2, 7)
        yield Mmio(DEVICE, 2, 7)
        yield Mmio(DEVICE + 8, 4, 1)
        yield Mmio(DEVICE, 2, 8)
        yield Mmio(DEVICE, 4, 7)
        yield Mmio(DEVICE, 2)

    with machine() as (vm, (vcpu,)):
        exact, any_value = os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)
        ioeventfd(vm, exact, DEVICE, 2, 7)
        ioeventfd(vm, any_value, DEVICE + 8)
        vcpu.guest = guest
        run = vcpu.run()
        assert (run.mmio.phys_addr, run.mmio.data[0]) == (DEVICE, 8)
        assert (os.eventfd_read(exact), os.eventfd_read(any_value)) == (2, 1)
        assert (vcpu.run().mmio.len, vcpu.run().mmio.is_write) == (4, 0)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(exact)
        os.close(exact)
        os.close(any_value)


def test_an_eventfd_is_signalled_under_another_descriptor() -> None:
    """The VMM may have closed the descriptor that it gave, and kept another."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Mmio(DEVICE, 4, 0)

    with machine() as (vm, (vcpu,)):
        given_, kept = os.eventfd(0, os.EFD_NONBLOCK), -1
        kept = os.dup(given_)
        ioeventfd(vm, given_, DEVICE)
        os.close(given_)
        vcpu.guest = guest
        wait(vcpu)
        assert os.eventfd_read(kept) == 1
        os.close(kept)


def ready_vgic(vm: Vm) -> None:
    """A vGICv3 in place and initialised."""
    device = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_ARM_VGIC_V3})
    vm.kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, device)
    for group, attr, value in (
        (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V3_ADDR_TYPE_DIST, 0x8000000),
        (uapi.KVM_DEV_ARM_VGIC_GRP_ADDR, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, 0x80A0000),
        (uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT, None),
    ):
        holder = uapi.ffi.new("uint64_t *", value or 0)
        fields = {"group": group, "attr": attr, "addr": int(uapi.ffi.cast("uintptr_t", holder))}
        vm.kvm.ioctl(device.fd, uapi.KVM_SET_DEVICE_ATTR, uapi.ffi.new("struct kvm_device_attr *", fields))


SPI, PPI = uapi.KVM_ARM_IRQ_TYPE_SPI << 24 | 40, uapi.KVM_ARM_IRQ_TYPE_PPI << 24 | 20


@pytest.mark.parametrize(("line", "irq"), [(SPI, 40), (PPI, 20)])
def test_an_interrupt_wakes_a_guest_that_waits(line: int, irq: int) -> None:
    """WFI waits until a line is high, and returns what is pending; a signal ends it, too, and a low line does not."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        while not (pending := (yield Wfi())):
            cpu.x[1] += 1
        cpu.x[0] = sum(pending)
        yield Mmio(DEVICE)

    with machine() as (vm, (vcpu,)):
        ready_vgic(vm)
        vcpu.guest = guest
        wait(vcpu)
        irq_line(vm, line, 0)
        wait(vcpu)
        irq_line(vm, line, 1)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO
        assert (vcpu.read("x0"), vcpu.read("x1")) == (irq, 2)


def test_a_line_of_a_vm_without_vgic_wakes_its_vcpu() -> None:
    """IRQ and FIQ of a vCPU, for a VMM with an interrupt controller of its own."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Wfi()
        yield Mmio(DEVICE)

    with machine() as (vm, (vcpu,)):
        vcpu.guest = guest
        wait(vcpu)
        irq_line(vm, uapi.KVM_ARM_IRQ_TYPE_CPU << 24 | uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def test_a_line_that_is_high_already_is_not_waited_for() -> None:
    """WFI goes on at once."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        assert (yield Wfi()) == {0}
        yield Mmio(DEVICE)

    with machine() as (vm, (vcpu,)):
        irq_line(vm, uapi.KVM_ARM_IRQ_TYPE_CPU << 24 | uapi.KVM_ARM_IRQ_CPU_IRQ, 1)
        vcpu.guest = guest
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def test_a_due_timer_wakes_a_guest_that_waits() -> None:
    """The virtual timer's interrupt, unless it is masked or not enabled."""

    def body(cpu: Cpu) -> list[set[int]]:
        seen = []
        for control in (0, 1, 3):
            cpu.msr("cntv_cval_el0", cpu.mrs("cntvct_el0") - 1 & (1 << 64) - 1)
            cpu.msr("cntv_ctl_el0", control)
            seen.append(set(cpu.interrupts))
        return seen

    assert once(body) == [set(), {27}, set()]


def test_a_suspended_vcpu_reports_what_would_wake_it() -> None:
    """KVM_MP_STATE_SUSPENDED: KVM_RUN waits, then its exit says WAKEUP, until the VMM makes the vCPU runnable."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Mmio(DEVICE)

    with machine() as (vm, (vcpu,)):
        ready_vgic(vm)
        vcpu.guest = guest
        set_mp_state(vcpu, uapi.KVM_MP_STATE_SUSPENDED)
        wait(vcpu)
        irq_line(vm, SPI, 1)
        for _ in range(2):
            run = vcpu.run()
            assert (run.exit_reason, run.system_event.type) == (
                uapi.KVM_EXIT_SYSTEM_EVENT,
                uapi.KVM_SYSTEM_EVENT_WAKEUP,
            )
            assert run.system_event.ndata == 0
        set_mp_state(vcpu, uapi.KVM_MP_STATE_RUNNABLE)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def debug(vcpu: Vcpu, control: int) -> None:
    """KVM_SET_GUEST_DEBUG."""
    vcpu.kvm.ioctl(vcpu.fd, uapi.KVM_SET_GUEST_DEBUG, uapi.ffi.new("struct kvm_guest_debug *", {"control": control}))


def test_a_breakpoint_is_a_debug_exit_where_the_vmm_wants_it() -> None:
    """The syndrome has the instruction's number, and the PC stays; the VMM moves it on."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        yield Brk(1)
        yield Brk(0xF000)
        yield Wfe()
        yield Mmio(DEVICE)

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        debug(vcpu, uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_USE_SW_BP)
        run = vcpu.run()
        assert run.exit_reason == uapi.KVM_EXIT_DEBUG
        assert (run.debug.arch.hsr, run.flags) == (0xF2000001, uapi.KVM_DEBUG_ARCH_HSR_HIGH_VALID)
        assert vcpu.read("pc") == 0
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_DEBUG
        vcpu["pc"] = 4
        assert vcpu.run().debug.arch.hsr == 0xF200F000
        debug(vcpu, 0)
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


@pytest.mark.parametrize(
    "action",
    [
        Mmio(0, 4, register=31),
        Mmio(0, 4, 1, register=3),
        Mmio(0, 3),
        Mmio(-1, 4),
        Mmio((1 << 64) - 4, 8),
        Mmio([], {}),  # type: ignore[arg-type]
        Mmio(0, []),  # type: ignore[arg-type]
        Hypercall(1, 5),  # type: ignore[arg-type]
        Hypercall([]),  # type: ignore[arg-type]
        Brk("x"),  # type: ignore[arg-type]
        Mmio(0, 1, 256),
        Mmio(0, 1, -1),
        Brk(1 << 16),
        "exit",
        5,
    ],
    ids=str,
)
def test_what_cannot_be_done_fails_in_the_script(action: Any) -> None:
    """The script gets the error at its yield, and may go on."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        with pytest.raises(GuestError):
            yield action
        yield Mmio(DEVICE)

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        assert vcpu.run().mmio.phys_addr == DEVICE
