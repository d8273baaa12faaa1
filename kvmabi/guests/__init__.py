# SPDX-License-Identifier: MIT
"""Scripted guests: generator functions that run on a vCPU inside KVM_RUN, as the guest's architecture sees it.

A script reads and writes registers and memory through the ``Cpu`` that it gets, and yields what can take the vCPU out
of the guest. docs/how-to/scripted-guests.md shows how.

>>> import kvmabi
>>> from kvmabi.guests import Mmio
>>> def guest(cpu):
...     cpu.x[0] = yield Mmio(0x9000000, 4)
>>> with kvmabi.open() as kvm:
...     vcpu = kvm.create_vm().create_vcpu(0)
...     vcpu.init()
...     vcpu.guest = guest
...     run = vcpu.run()
...     hex(run.mmio.phys_addr), run.mmio.len
('0x9000000', 4)
"""

from __future__ import annotations

from kvmabi.guests.actions import (
    Action,
    Brk,
    Hypercall,
    Mmio,
    Preempt,
    SoftirqNeon,
    Wfe,
    Wfi,
    cpu_off,
    cpu_on,
    cpu_suspend,
    system_off,
    system_reset,
)
from kvmabi.guests.board import GuestError
from kvmabi.guests.cpu import Cpu
from kvmabi.guests.scripts import GuestFunction, OnKernel

__all__ = [
    "Action",
    "Brk",
    "Cpu",
    "GuestError",
    "GuestFunction",
    "Hypercall",
    "Mmio",
    "OnKernel",
    "Preempt",
    "SoftirqNeon",
    "Wfe",
    "Wfi",
    "cpu_off",
    "cpu_on",
    "cpu_suspend",
    "system_off",
    "system_reset",
]
