# SPDX-License-Identifier: MIT
"""Interrupts that a VMM raises: the table of routes, interrupt lines and messages.

A line's level is kept, or an edge latched, in the vGIC's state; high lines wake a scripted guest.

Source: api.rst, 4.25 KVM_IRQ_LINE, 4.52 KVM_SET_GSI_ROUTING and 4.70 KVM_SIGNAL_MSI, and the answers of Linux 6.1 to
7.3.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import NamedTuple

from kvmabi import uapi
from kvmabi.model.its import reaches
from kvmabi.model.lines import OF_THE_VM
from kvmabi.model.refusal import Refusal
from kvmabi.model.vgic import IRQS_OF_A_VCPU, is_ppi
from kvmabi.model.vm import Vm

MAX_ROUTES = 4096
PINS = 988
"""Inputs of the vGIC that a route can name: its SPIs."""
CPU_LINES = 2
"""IRQ and FIQ."""

TOO_MANY = Refusal(errno.EINVAL, f"a table has at most {MAX_ROUTES} routes, and no flags")
BAD_GSI = Refusal(errno.EINVAL, f"the GSI of a route is below {MAX_ROUTES}")
BAD_ROUTE_FLAGS = Refusal(errno.EINVAL, "only a route to a message has a flag, KVM_MSI_VALID_DEVID")
BAD_TYPE = Refusal(errno.EINVAL, "a route leads to the vGIC (KVM_IRQ_ROUTING_IRQCHIP) or to a message (_MSI)")
BAD_PIN = Refusal(errno.EINVAL, f"the vGIC is interrupt controller 0 and has the pins 0 to {PINS - 1}")
TWO_ROUTES = Refusal(errno.EINVAL, "a GSI has one route only")
BAD_LINE_TYPE = Refusal(errno.EINVAL, "an interrupt is a vCPU's line, an SPI or a PPI (KVM_ARM_IRQ_TYPE_*)")
NO_VGIC = Refusal(errno.ENXIO, "the VM has no vGIC", "KVM_CREATE_DEVICE creates one")
HAS_VGIC = Refusal(errno.ENXIO, "the lines of a vCPU cannot be set in a VM that has a vGIC")
NOT_READY = Refusal(errno.EBUSY, "the vGIC is not initialised", "set KVM_DEV_ARM_VGIC_CTRL_INIT first")
NOT_READY_FOR_IRQFD = Refusal(
    errno.EAGAIN, "the VM has no vGIC, or it is not initialised", "set KVM_DEV_ARM_VGIC_CTRL_INIT first"
)
NO_VCPU = Refusal(errno.EINVAL, "the VM has no such vCPU")
NO_IRQ = Refusal(errno.EINVAL, "the vGIC has no such interrupt")
BAD_MESSAGE = Refusal(errno.EINVAL, "a message needs a vGIC, and has no flag except KVM_MSI_VALID_DEVID")
NO_ITS = Refusal(errno.ENODEV, "the VM has no ITS")
NO_DEVICE = Refusal(errno.EINVAL, "a message to an ITS names its device: flag KVM_MSI_VALID_DEVID")
NO_DOORBELL = Refusal(errno.EINVAL, "the message's address is not an ITS's")


class Route(NamedTuple):
    """A route of a GSI: its type, flags, and for the vGIC controller and pin."""

    gsi: int
    type: int
    flags: int
    irqchip: int
    pin: int

    def check(self) -> None:
        """EINVAL for a route that an arm64 kernel does not take, except for its GSI."""
        is_message = self.type == uapi.KVM_IRQ_ROUTING_MSI
        if self.flags & ~(uapi.KVM_MSI_VALID_DEVID if is_message else 0):
            raise BAD_ROUTE_FLAGS.error()
        if is_message:
            return
        if self.type != uapi.KVM_IRQ_ROUTING_IRQCHIP:
            raise BAD_TYPE.error()
        if self.irqchip or self.pin >= PINS:
            raise BAD_PIN.error()


def check_count(count: int, flags: int) -> None:
    """EINVAL for a table of routes that is too long or has flags."""
    if count > MAX_ROUTES or flags:
        raise TOO_MANY.error()


def set_routes(vm: Vm, routes: Iterable[Route]) -> None:
    """KVM_SET_GSI_ROUTING: replace the table. Errors: EINVAL, which leaves it as it was."""
    table = list(routes)
    if any(route.gsi >= MAX_ROUTES for route in table):
        raise BAD_GSI.error()
    by_gsi: dict[int, Route] = {}
    for route in table:
        route.check()
        if route.gsi in by_gsi:
            raise TWO_ROUTES.error()
        by_gsi[route.gsi] = route
    vm.routes = by_gsi


def check_irqfd(vm: Vm) -> None:
    """EAGAIN unless the VM can take an irqfd."""
    if vm.vgic is None or not vm.vgic.initialized:
        raise NOT_READY_FOR_IRQFD.error()


def set_line(vm: Vm, line: int, level: int) -> None:
    """KVM_IRQ_LINE of the interrupt that ``line`` encodes. Errors: ENXIO, EBUSY, EINVAL.

    The interrupts of timers and of the PMU are the kernel's own: a line does not change them.
    """
    irq = line & uapi.KVM_ARM_IRQ_NUM_MASK
    kind = line >> uapi.KVM_ARM_IRQ_TYPE_SHIFT & uapi.KVM_ARM_IRQ_TYPE_MASK
    number = line >> uapi.KVM_ARM_IRQ_VCPU_SHIFT & uapi.KVM_ARM_IRQ_VCPU_MASK
    number += (line >> uapi.KVM_ARM_IRQ_VCPU2_SHIFT & uapi.KVM_ARM_IRQ_VCPU2_MASK) * (uapi.KVM_ARM_IRQ_VCPU_MASK + 1)
    switches = vm.system.kernel.switches
    vcpu = vm.vcpu_id(number, by_id=switches.irq_line_by_id)
    if kind == uapi.KVM_ARM_IRQ_TYPE_CPU:
        if vm.vgic is not None:
            raise HAS_VGIC.error()
        if vcpu is None:
            raise NO_VCPU.error()
        if irq >= CPU_LINES:
            raise NO_IRQ.error()
        vm.lines.set(vcpu, irq, high=bool(level))
        return
    if kind not in (uapi.KVM_ARM_IRQ_TYPE_SPI, uapi.KVM_ARM_IRQ_TYPE_PPI):
        raise BAD_LINE_TYPE.error()
    if vm.vgic is None:
        raise NO_VGIC.error()
    is_private = kind == uapi.KVM_ARM_IRQ_TYPE_PPI
    wrong = None
    if is_private and vcpu is None:
        wrong = NO_VCPU
    elif not is_ppi(irq) if is_private else irq < IRQS_OF_A_VCPU:
        wrong = NO_IRQ
    if wrong is not None and not switches.irq_line_wants_vgic_first:
        raise wrong.error()
    if not vm.vgic.initialized:
        raise NOT_READY.error()
    if wrong is not None:
        raise wrong.error()
    if not is_private and irq >= vm.vgic.irqs:
        raise NO_IRQ.error()
    target = OF_THE_VM
    if is_private and vcpu is not None:
        found = vm.vcpu_id(vcpu, by_id=switches.irq_line_by_id)  # a kernel that counts takes the ID for a number again
        if found is None:
            raise NO_VCPU.error()
        target = found
    owners = [vm.vcpus[target]] if is_private else vm.vcpus.values()
    if not any(irq in owner.irq_owners for owner in owners):
        vm.vgic.state.irqs(irq, target).inject(irq % IRQS_OF_A_VCPU, level=bool(level))
        vm.lines.set(target, irq, high=bool(level))


def signal_message(vm: Vm, address: int, data: int, flags: int, device: int) -> int:
    """KVM_SIGNAL_MSI: a message to the ITS at an address. Returns 1 if an LPI is pending now, 0 if the event is not
    mapped to a vCPU. Errors: EINVAL, ENODEV, EBUSY.
    """
    if vm.vgic is None or flags & ~uapi.KVM_MSI_VALID_DEVID:
        raise BAD_MESSAGE.error()
    if not vm.its:
        raise NO_ITS.error()
    its = next((its for its in vm.its if reaches(its, address)), None)
    known = its is not None and its.has_translated(device, data)  # a kernel finds these before it looks at the flag
    if not flags & uapi.KVM_MSI_VALID_DEVID and not known:
        raise NO_DEVICE.error()
    if its is None:
        raise NO_DOORBELL.error()
    return its.signal(device, data)
