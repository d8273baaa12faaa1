# SPDX-License-Identifier: MIT
"""What a guest's script yields: what takes the vCPU out of the guest, or may. Each is one instruction at the PC.

>>> from kvmabi.guests import Mmio, Wfi, cpu_off
>>> def guest(cpu):
...     status = yield Mmio(0x9000018, 4)  # read four bytes of a device
...     yield Mmio(0x9000000, 4, status | 1)  # and write them
...     yield Wfi()
...     yield cpu_off()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvmabi import uapi


class Mmio(NamedTuple):
    """A load of ``size`` bytes (1, 2, 4 or 8) from a guest-physical address, or a store of ``data``, a number.

    The yield returns what was loaded, None for a store. In the VMM's memory slots it is an access to memory; a store
    to a read-only slot and what lies outside of them is the VMM's to answer: KVM_EXIT_MMIO, unless an ioeventfd
    matches. A load also goes to X<register>, if one is given, as soon as it is complete: that is before the guest goes
    on, where the VMM ends KVM_RUN by immediate_exit.
    """

    addr: int
    size: int = 4
    data: int | None = None
    register: int | None = None


class Hypercall(NamedTuple):
    """HVC (or SMC) with a function's number in W0 and arguments from X1 on. The yield returns X0 afterwards.

    KVM answers PSCI and SMCCC; the VMM does what its SMCCC filter forwards: KVM_EXIT_HYPERCALL.
    """

    nr: int
    args: Sequence[int] = ()
    smc: bool = False


class Wfi(NamedTuple):
    """Wait for an interrupt: KVM_RUN goes on waiting until one is pending. The yield returns those that are.

    A signal that ends KVM_RUN ends the wait as well, and then there may be none: ``while not (yield Wfi())``.
    """


class Wfe(NamedTuple):
    """Wait for an event: KVM lets others run, and the guest goes on."""


class Brk(NamedTuple):
    """BRK with a number of 16 bits: KVM_EXIT_DEBUG if the VMM uses software breakpoints, else nothing."""

    imm: int = 0


class Preempt(NamedTuple):
    """Another task of the host, which uses FP registers, runs in between. Only a guest ``OnKernel`` can notice."""


class SoftirqNeon(NamedTuple):
    """A softirq of the host uses NEON in between. Only a guest ``OnKernel`` can notice."""


Action = Mmio | Hypercall | Wfi | Wfe | Brk | Preempt | SoftirqNeon | None
"""What can be yielded. None: time passes, in which other vCPUs run and signals arrive."""


def cpu_on(mpidr: int, entry: int, context: int = 0) -> Hypercall:
    """PSCI CPU_ON of the vCPU with these affinity fields of MPIDR_EL1: its guest starts at ``entry``, with X0."""
    return Hypercall(int(uapi.PSCI_0_2_FN64_CPU_ON), (mpidr, entry, context))


def cpu_off() -> Hypercall:
    """PSCI CPU_OFF: the vCPU waits in KVM_RUN until another one's CPU_ON."""
    return Hypercall(int(uapi.PSCI_0_2_FN_CPU_OFF))


def cpu_suspend(power_state: int = 0, entry: int = 0, context: int = 0) -> Hypercall:
    """PSCI CPU_SUSPEND, which KVM treats as WFI."""
    return Hypercall(int(uapi.PSCI_0_2_FN64_CPU_SUSPEND), (power_state, entry, context))


def system_off() -> Hypercall:
    """PSCI SYSTEM_OFF: KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_SHUTDOWN, and every vCPU is stopped."""
    return Hypercall(int(uapi.PSCI_0_2_FN_SYSTEM_OFF))


def system_reset() -> Hypercall:
    """PSCI SYSTEM_RESET: KVM_EXIT_SYSTEM_EVENT, KVM_SYSTEM_EVENT_RESET, and every vCPU is stopped."""
    return Hypercall(int(uapi.PSCI_0_2_FN_SYSTEM_RESET))
