# SPDX-License-Identifier: MIT
"""What a kernel copies from and to a caller's memory in an ioctl besides its struct: where it is, as the struct says.

An emulated /dev/kvm does these copies itself; of a real one they are known only from the ABI.
https://docs.kernel.org/virt/kvm/api.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from kvmabi import uapi
from kvmabi.detail import size_of_argument
from kvmabi.device import its, vcpuattrs, vgic, vmattrs
from kvmabi.device.attr import ATTR, Attributes, attribute_of
from kvmabi.device.interrupts import ENTRY, ROUTING
from kvmabi.device.slots import CLEAR_DIRTY_LOG, DIRTY_LOG, POINTER
from kvmabi.device.vcpu import COUNT, ONE_REG
from kvmabi.device.vm import MASK_RANGE, MASKS_BYTES
from kvmabi.model.dirtypages import bitmap_bytes
from kvmabi.model.row import size_of

MOST_BYTES = 1 << 20
"""The most that is read of a caller's memory for one copy."""
LONG_BYTES = 8
"""The size of an attribute's value that is not known here."""
SIGNAL_MASK_LENGTH = uapi.ffi.sizeof("struct kvm_signal_mask")
ATTRIBUTES: Final[dict[str, Attributes]] = {
    "device": {**its.ITS, **vgic.VGIC},
    "vcpu": vcpuattrs.ALL,
    "vm": vmattrs.ATTRIBUTES,
}


class Copy(NamedTuple):
    """A copy at an address, from the caller unless it ``writes``."""

    address: int
    size_bytes: int
    writes: bool


class Asked(NamedTuple):
    """An ioctl: the kind of its file, its argument, the struct's bytes, and the sizes of the VM's slots in bytes."""

    kind: str
    argument: int
    before: bytes
    slots: Mapping[int, int]


def copies(name: str, request: int, asked: Asked) -> list[Copy]:
    """The copies of an ioctl; none if its struct could not be read."""
    find = COPIES.get(name)
    if find is None or len(asked.before) < size_of_argument(request):
        return []
    return [copy._replace(size_bytes=min(copy.size_bytes, MOST_BYTES)) for copy in find(asked)]


def _one_reg(asked: Asked, *, writes: bool) -> list[Copy]:
    id, address = ONE_REG.unpack(asked.before)
    return [Copy(address, size_of(id), writes)]


def _attribute(asked: Asked, *, writes: bool) -> list[Copy]:
    _flags, group, attr, address = ATTR.unpack(asked.before)
    found = attribute_of(ATTRIBUTES.get(asked.kind, {}), group, attr)
    size_bytes = found.size_bytes if found else LONG_BYTES
    return [Copy(address, size_bytes, writes)] if size_bytes else []


def _routing(asked: Asked) -> list[Copy]:
    count, _flags = ROUTING.unpack(asked.before)
    return [Copy(asked.argument + ROUTING.size, count * ENTRY.size, writes=False)]


def _signal_mask(asked: Asked) -> list[Copy]:
    length = int.from_bytes(asked.before[:SIGNAL_MASK_LENGTH], "little")
    return [Copy(asked.argument + SIGNAL_MASK_LENGTH, length, writes=False)]


def _dirty_log(asked: Asked) -> list[Copy]:
    slot, _padding, bitmap = DIRTY_LOG.unpack(asked.before)
    size_bytes = asked.slots.get(slot, 0)
    return [Copy(POINTER.unpack(bitmap)[0], bitmap_bytes(size_bytes >> 12), writes=True)] if size_bytes else []


def _clear_dirty_log(asked: Asked) -> list[Copy]:
    _slot, pages, _first, bitmap = CLEAR_DIRTY_LOG.unpack(asked.before)
    return [Copy(POINTER.unpack(bitmap)[0], bitmap_bytes(pages), writes=False)]


def _masks(asked: Asked) -> list[Copy]:
    return [Copy(MASK_RANGE.unpack(asked.before)[0], MASKS_BYTES, writes=True)]


COPIES: Final[dict[str, Callable[[Asked], list[Copy]]]] = {
    "KVM_GET_ONE_REG": lambda asked: _one_reg(asked, writes=True),
    "KVM_SET_ONE_REG": lambda asked: _one_reg(asked, writes=False),
    "KVM_GET_DEVICE_ATTR": lambda asked: _attribute(asked, writes=True),
    "KVM_SET_DEVICE_ATTR": lambda asked: _attribute(asked, writes=False),
    "KVM_SET_GSI_ROUTING": _routing,
    "KVM_SET_SIGNAL_MASK": _signal_mask,
    "KVM_GET_DIRTY_LOG": _dirty_log,
    "KVM_CLEAR_DIRTY_LOG": _clear_dirty_log,
    "KVM_ARM_GET_REG_WRITABLE_MASKS": _masks,
}
"""By the ioctl's name; KVM_GET_REG_LIST is in `listed`, because its copies depend on its result."""


def listed(argument: int, count: int, *, with_ids: bool) -> list[Copy]:
    """What KVM_GET_REG_LIST writes: the count, and the IDs if they fit."""
    ids = [Copy(argument + COUNT.size, min(count * COUNT.size, MOST_BYTES), writes=True)] if with_ids else []
    return [Copy(argument, COUNT.size, writes=True), *ids]
