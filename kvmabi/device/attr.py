# SPDX-License-Identifier: MIT
"""KVM_HAS_DEVICE_ATTR, KVM_SET_DEVICE_ATTR and KVM_GET_DEVICE_ATTR: attributes are data, of a vCPU or of a device."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from kvmabi import uapi
from kvmabi.device.file import Call, Handler
from kvmabi.errors import KvmError

ATTR = struct.Struct("=IIQQ")
ANY = None
"""In a table's key: whatever the attribute is."""


class Attribute(NamedTuple):
    """One attribute: its value's size in bytes, and what a get and a set do (None: ENXIO), called with the file.

    ``check`` refuses a set before the value is read; ``present`` tells whether the attribute is there at all.
    ``selects``: a get reads from its value what it is asked for.
    """

    size_bytes: int
    get: Callable[[Any], int] | None = None
    set: Callable[[Any, int], object] | None = None
    check: Callable[[Any], object] | None = None
    present: Callable[[Any], bool] | None = None
    selects: Callable[[Any, int], int] | None = None


Attributes = Mapping[tuple[int, int | None], Attribute]
"""By group and attribute."""


class HasAttributes(Protocol):
    """A file with attributes: all that it has under its kernel."""

    attributes: Attributes


def absent(_file: object) -> bool:
    """For ``present``: the attribute is not there, though a set looks at more before it says so."""
    return False


def no_such_attr(*_: object) -> int:
    """ENXIO."""
    raise KvmError(errno.ENXIO, "there is no such attribute in this group")


def _find(file: HasAttributes, call: Call) -> tuple[Attribute, int]:
    """The attribute that a call names, and the address of its value; ENXIO if there is none."""
    _flags, group, attr, addr = ATTR.unpack(call.read(call.arg, ATTR.size))
    found = file.attributes.get((group, attr)) or file.attributes.get((group, ANY))
    if found is None:
        raise KvmError(errno.ENXIO, f"there is no attribute {attr:#x} in group {group}, or kvmabi does not model it")
    return found, addr


def _has(file: HasAttributes, call: Call) -> int:
    attribute, _ = _find(file, call)
    if attribute.present is not None and not attribute.present(file):
        raise KvmError(errno.ENXIO, "this file has no such attribute")
    return 0


def _set(file: HasAttributes, call: Call) -> int:
    attribute, addr = _find(file, call)
    if attribute.set is None:
        raise KvmError(errno.ENXIO, "the attribute cannot be set")
    if attribute.check is not None:
        attribute.check(file)
    attribute.set(file, int.from_bytes(call.read(addr, attribute.size_bytes), "little"))
    return 0


def _get(file: HasAttributes, call: Call) -> int:
    attribute, addr = _find(file, call)
    if attribute.selects is not None:
        asked = int.from_bytes(call.read(addr, attribute.size_bytes), "little")
        value = attribute.selects(file, asked)
    elif attribute.get is not None:
        value = attribute.get(file)
    else:
        raise KvmError(errno.ENXIO, "the attribute cannot be read")
    call.write(addr, value.to_bytes(attribute.size_bytes, "little"))
    return 0


IOCTLS: dict[int, tuple[str, Handler]] = {
    uapi.KVM_HAS_DEVICE_ATTR: ("KVM_HAS_DEVICE_ATTR", _has),
    uapi.KVM_SET_DEVICE_ATTR: ("KVM_SET_DEVICE_ATTR", _set),
    uapi.KVM_GET_DEVICE_ATTR: ("KVM_GET_DEVICE_ATTR", _get),
}
