# SPDX-License-Identifier: MIT
"""KVM_HAS_DEVICE_ATTR, KVM_SET_DEVICE_ATTR and KVM_GET_DEVICE_ATTR: attributes are data, of a vCPU or of a device."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from kvmabi import uapi
from kvmabi.device.file import Call, Handler
from kvmabi.device.memory import Memory
from kvmabi.device.structs import layout
from kvmabi.errors import KvmError

ATTR = layout("struct kvm_device_attr")
ANY = None
"""In a table's key: any attribute of the group."""


class UserValue:
    """The caller's value of the attribute with the number ``attr``; the handler decides when it is read."""

    __slots__ = ("_addr", "_call", "_size_bytes", "attr")

    def __init__(self, call: Call, attr: int, addr: int, size_bytes: int) -> None:
        self._call, self._addr, self._size_bytes = call, addr, size_bytes
        self.attr = attr

    @property
    def memory(self) -> Memory:
        """The caller's memory."""
        return self._call.memory

    def take(self) -> int:
        """Read it. Raises KvmError, EFAULT."""
        self._call.data = data = self._call.read(self._addr, self._size_bytes)
        return int.from_bytes(data, "little")

    def give(self, number: int) -> None:
        """Write a number to the caller. Raises KvmError, EFAULT."""
        data = number.to_bytes(self._size_bytes, "little")
        self._call.write(self._addr, data)
        self._call.data = data


class NoValue(UserValue):
    """For a read that no caller asked for: there is no value to take."""

    __slots__ = ()

    def __init__(self, attr: int) -> None:
        self.attr = attr

    def take(self) -> int:
        """See UserValue.take."""
        raise KvmError(errno.EFAULT, "a read for the report has no value to take")


class Attribute(NamedTuple):
    """One attribute: its value's size in bytes, and what a get and a set do (None: ENXIO), called with the file.

    Both take the caller's value where and if they need it. ``present``, called with the file and the attribute's
    number, says whether KVM_HAS_DEVICE_ATTR finds it.
    """

    size_bytes: int
    get: Callable[[Any, UserValue], int] | None = None
    set: Callable[[Any, UserValue], object] | None = None
    present: Callable[[Any, int], bool] | None = None


Attributes = Mapping[tuple[int, int | None], Attribute]
"""By group and attribute."""


def attribute_of(attributes: Attributes, group: int, attr: int) -> Attribute | None:
    """The attribute that a group and a number name in a table, None if there is none."""
    return attributes.get((group, attr)) or attributes.get((group, ANY))


class HasAttributes(Protocol):
    """A file with the ``attributes`` that its kernel has, except those of the groups that are not modelled."""

    attributes: Attributes
    unmodelled_groups: frozenset[int]

    @property
    def kind(self) -> str:
        """See DeviceFile.kind."""


def absent(_file: object, _attr: int) -> bool:
    """For ``present``: the attribute does not exist, although a set checks other things first."""
    return False


def no_such_attr(_file: object, value: UserValue) -> int:
    """Fails with ENXIO after reading the value."""
    value.take()
    raise KvmError(errno.ENXIO, "the group does not have this attribute")


def _find(file: HasAttributes, call: Call) -> tuple[Attribute, UserValue]:
    """The attribute that a call names, and the caller's value; ENXIO if there is none."""
    _flags, group, attr, addr = ATTR.unpack(call.read(call.arg, ATTR.size))
    call.attribute = file.kind, group, attr
    attribute = attribute_of(file.attributes, group, attr)
    if attribute is None:
        known = group not in file.unmodelled_groups
        reason = f"group {group} has no attribute {attr:#x}" if known else f"the registers of attribute group {group}"
        raise KvmError(errno.ENXIO, reason, modelled=known)
    return attribute, UserValue(call, attr, addr, attribute.size_bytes)


def peek(file: HasAttributes, group: int, attr: int) -> bytes | None:
    """What a get of an attribute would return, None where it would fail. Changes nothing."""
    attribute = attribute_of(file.attributes, group, attr)
    if attribute is None or attribute.get is None:
        return None
    try:
        return attribute.get(file, NoValue(attr)).to_bytes(attribute.size_bytes, "little")
    except KvmError:
        return None


def _has(file: HasAttributes, call: Call) -> int:
    attribute, value = _find(file, call)
    if attribute.present is not None and not attribute.present(file, value.attr):
        raise KvmError(errno.ENXIO, "this file does not have this attribute")
    return 0


def _set(file: HasAttributes, call: Call) -> int:
    attribute, value = _find(file, call)
    if attribute.set is None:
        raise KvmError(errno.ENXIO, "the attribute cannot be set")
    attribute.set(file, value)
    return 0


def _get(file: HasAttributes, call: Call) -> int:
    attribute, value = _find(file, call)
    if attribute.get is None:
        raise KvmError(errno.ENXIO, "the attribute cannot be read")
    value.give(attribute.get(file, value))
    return 0


IOCTLS: dict[int, tuple[str, Handler]] = {
    uapi.KVM_HAS_DEVICE_ATTR: ("KVM_HAS_DEVICE_ATTR", _has),
    uapi.KVM_SET_DEVICE_ATTR: ("KVM_SET_DEVICE_ATTR", _set),
    uapi.KVM_GET_DEVICE_ATTR: ("KVM_GET_DEVICE_ATTR", _get),
}
