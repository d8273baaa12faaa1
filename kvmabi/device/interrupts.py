# SPDX-License-Identifier: MIT
"""A VM's ioctls for interrupts: routes, irqfds, ioeventfds, lines and messages."""

from __future__ import annotations

from typing import Protocol

from kvmabi import uapi
from kvmabi.device.eventfds import EventFds
from kvmabi.device.file import Call, Handler
from kvmabi.device.structs import layout
from kvmabi.model import interrupts
from kvmabi.model.eventfds import BAD_FLAGS, Access, IoEventFds
from kvmabi.model.interrupts import Route
from kvmabi.model.vm import Vm

ROUTING = layout("struct kvm_irq_routing")
ENTRY = layout("struct kvm_irq_routing_entry")
PIN = layout("struct kvm_irq_routing_irqchip")
IRQFD = layout("struct kvm_irqfd")
IOEVENTFD = layout("struct kvm_ioeventfd")
NUMBER = layout("__u32")
LEVEL_BYTES = uapi.ffi.sizeof("struct kvm_irq_level")
MSI = layout("struct kvm_msi")
DEASSIGN, RESAMPLE = int(uapi.KVM_IRQFD_FLAG_DEASSIGN), int(uapi.KVM_IRQFD_FLAG_RESAMPLE)


class HasInterrupts(Protocol):
    """A VM's file."""

    vm: Vm
    eventfds: EventFds
    ioeventfds: IoEventFds


def _set_gsi_routing(file: HasInterrupts, call: Call) -> int:
    count, flags = ROUTING.unpack(call.read(call.arg, ROUTING.size))
    interrupts.check_count(count, flags)
    table = call.read(call.arg + ROUTING.size, count * ENTRY.size) if count else b""
    interrupts.set_routes(file.vm, [_route(*fields) for fields in ENTRY.iter_unpack(table)])
    return 0


def _route(gsi: int, kind: int, flags: int, _pad: int, target: bytes) -> Route:
    return Route(gsi, kind, flags, *PIN.unpack_from(target))


def _irqfd(file: HasInterrupts, call: Call) -> int:
    fd, gsi, flags, resamplefd, _pad = IRQFD.unpack(call.read(call.arg, IRQFD.size))
    if flags & ~(DEASSIGN | RESAMPLE):
        raise BAD_FLAGS.error()
    if flags & DEASSIGN:
        file.eventfds.deassign(file.vm.number, call.memory, fd, gsi)
        return 0
    interrupts.check_irqfd(file.vm)
    file.eventfds.number(call.memory, fd)
    if flags & RESAMPLE:
        file.eventfds.number(call.memory, resamplefd)
    file.eventfds.assign(file.vm.number, call.memory, fd, gsi)
    return 0


def _ioeventfd(file: HasInterrupts, call: Call) -> int:
    datamatch, addr, size_bytes, fd, flags, _pad = IOEVENTFD.unpack(call.read(call.arg, IOEVENTFD.size))
    access = Access(addr, size_bytes, flags, datamatch)
    if flags & uapi.KVM_IOEVENTFD_FLAG_DEASSIGN:
        file.ioeventfds.deassign(file.eventfds.number(call.memory, fd), access)
        return 0
    access.check()
    file.ioeventfds.assign(file.eventfds.number(call.memory, fd), access)
    return 0


def _irq_line(file: HasInterrupts, call: Call) -> int:
    _line(file, call.read(call.arg, LEVEL_BYTES))
    return 0


def _irq_line_status(file: HasInterrupts, call: Call) -> int:
    """KVM_IRQ_LINE that writes the struct back, with the result in the place of the interrupt: always 0 on arm64."""
    level = call.read(call.arg, LEVEL_BYTES)
    _line(file, level)
    call.write(call.arg, NUMBER.pack(0) + level[NUMBER.size :])
    return 0


def _line(file: HasInterrupts, level: bytes) -> None:
    """Set the line that a struct kvm_irq_level names: its number, and behind that the level."""
    interrupts.set_line(file.vm, *NUMBER.unpack_from(level), *NUMBER.unpack_from(level, NUMBER.size))


def _signal_msi(file: HasInterrupts, call: Call) -> int:
    low, high, _data, flags, _device, _pad = MSI.unpack(call.read(call.arg, MSI.size))
    interrupts.signal_message(file.vm, high << 32 | low, flags)
    return 0


IOCTLS: dict[int, tuple[str, Handler]] = {
    uapi.KVM_SET_GSI_ROUTING: ("KVM_SET_GSI_ROUTING", _set_gsi_routing),
    uapi.KVM_IRQFD: ("KVM_IRQFD", _irqfd),
    uapi.KVM_IOEVENTFD: ("KVM_IOEVENTFD", _ioeventfd),
    uapi.KVM_IRQ_LINE: ("KVM_IRQ_LINE", _irq_line),
    uapi.KVM_IRQ_LINE_STATUS: ("KVM_IRQ_LINE_STATUS", _irq_line_status),
    uapi.KVM_SIGNAL_MSI: ("KVM_SIGNAL_MSI", _signal_msi),
}
