# SPDX-License-Identifier: MIT
"""The timers' interrupts in the vGIC: lines that follow the timers, and an active state that is the host's.

From a vCPU's first KVM_RUN on, its timers drive their lines: each KVM_RUN sets them to what the timers say. With VHE
both are interrupts of the host's timers, without it only the virtual one; userspace cannot change whether such an
interrupt is active. Measured on a host with VHE and one without, on vCPUs without EL2; tests/golden/vgic is with VHE.
"""

from __future__ import annotations

from kvmabi.model import timer
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vgic import Vgic


def connect(vcpu: Vcpu, vgic: Vgic) -> None:
    """The timers' interrupts become those of the host's timers."""
    timers = len(timer.COMPARES) if vcpu.system.host_shows("vhe") else 1
    mapped = sum(1 << irq for irq in set(vcpu.vm.timer_irqs[:timers]))
    vgic.state.redistributor(vcpu.index).mapped = mapped


def follow(vcpu: Vcpu, vgic: Vgic) -> None:
    """Set the lines to what the timers say now."""
    irqs = vgic.state.redistributor(vcpu.index).irqs
    for irq, control in _claimed(vcpu):
        irqs.inject(irq, level=timer.fires(vcpu, control))


def reset(vcpu: Vcpu) -> None:
    """INIT: the timers' lines are low, and what is the host's is neither pending nor active."""
    vgic = vcpu.vm.vgic
    if vgic is None or not vcpu.timers_enabled:
        return
    redistributor = vgic.state.redistributor(vcpu.index)
    irqs = redistributor.irqs
    for irq, _ in _claimed(vcpu):
        irqs.inject(irq, level=False)
        others = ~(redistributor.mapped & 1 << irq)
        irqs.latch, irqs.active = irqs.latch & others, irqs.active & others


def _claimed(vcpu: Vcpu) -> list[tuple[int, int]]:
    """The interrupts of the vCPU's timers, unless a VMM gave them others later, and each timer's control register."""
    pairs = zip(vcpu.vm.timer_irqs, timer.COMPARES, strict=False)
    return [(irq, control) for irq, control in pairs if irq in vcpu.irq_owners]
