# SPDX-License-Identifier: MIT
"""The attributes of a VM's file: its SMCCC filter. They can be set, not read."""

from __future__ import annotations

from typing import ClassVar, Protocol

from kvmabi import uapi
from kvmabi.device import attr
from kvmabi.device.attr import Attribute, Attributes, UserValue
from kvmabi.device.file import Call, Handler, Outcome, unknown
from kvmabi.device.structs import layout
from kvmabi.model.smcccfilter import SmcccFilter
from kvmabi.model.vm import Vm

FILTER = layout("struct kvm_smccc_filter")


class HasFilter(Protocol):
    """A VM's file."""

    vm: Vm
    smccc_filter: SmcccFilter
    attributes: Attributes
    unknown_errno: ClassVar[int]


def _set_filter(file: HasFilter, value: UserValue) -> None:
    fields = FILTER.unpack(value.take().to_bytes(FILTER.size, "little"))
    file.smccc_filter.add(*fields, has_run=file.vm.has_run)


ATTRIBUTES: Attributes = {
    (uapi.KVM_ARM_VM_SMCCC_CTRL, uapi.KVM_ARM_VM_SMCCC_FILTER): Attribute(FILTER.size, set=_set_filter)
}


def _if_there(request: int) -> Handler:
    """The handler of an attribute ioctl on kernels whose VMs have attributes."""
    _name, handler = attr.IOCTLS[request]

    def answer(file: HasFilter, call: Call) -> Outcome:
        return handler(file, call) if file.vm.system.kernel.switches.vm_attributes else unknown(file, call)

    return answer


IOCTLS: dict[int, tuple[str, Handler]] = {
    request: (attr.IOCTLS[request][0], _if_there(request))
    for request in (uapi.KVM_HAS_DEVICE_ATTR, uapi.KVM_SET_DEVICE_ATTR)
}
