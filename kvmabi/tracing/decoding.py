# SPDX-License-Identifier: MIT
"""The bytes of an ioctl's argument, of a register and of struct kvm_run as names and values.

Values are text; a struct is a dict of its fields without padding, an array a list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kvmabi import hexruns, regid, uapi
from kvmabi.detail import Detail
from kvmabi.tracing import attributes
from kvmabi.tracing.names import EXITS, Capability, Meaning, meaning, number

Value = str | list["Value"] | dict[str, "Value"]
PADDING = re.compile(r"_?pad(ding)?\d*|reserved\d*")
SVCR_BITS = {1: "SM", 2: "ZA"}
LENGTH_SETS = frozenset({"sve_vls", "sme_vls"})
NUMBER_BYTES = 8
ATTRIBUTES = frozenset({"KVM_HAS_DEVICE_ATTR", "KVM_SET_DEVICE_ATTR", "KVM_GET_DEVICE_ATTR"})
CHECK_EXTENSION = "KVM_CHECK_EXTENSION"
CREATE_VM, CREATE_VCPU = "KVM_CREATE_VM", "KVM_CREATE_VCPU"
REG_LIST = "KVM_GET_REG_LIST"
INIT, PREFERRED_TARGET, FINALIZE = "KVM_ARM_VCPU_INIT", "KVM_ARM_PREFERRED_TARGET", "KVM_ARM_VCPU_FINALIZE"
RUN = "struct kvm_run"
FLEXIBLE = {"KVM_SET_GSI_ROUTING": ("nr", "entries", "struct kvm_irq_routing_entry")}
"""Structs that end with an array: the field with its length, its name and the type of its elements."""


class Decoder:
    """Decodes ioctls on one kernel, whose ``features`` are the names of feature bits of KVM_ARM_VCPU_INIT."""

    def __init__(self, features: Mapping[int, str]) -> None:
        self._features = features

    def argument(self, name: str, detail: Detail) -> Value | None:
        """The argument of an ioctl: its struct, or a number; None if it has none that can be read."""
        if name == CHECK_EXTENSION:
            return Capability().text(detail.argument)
        if name == CREATE_VM:
            return f"ipa_bits={detail.argument}" if detail.argument else "0"
        if not detail.size_bytes:
            return number(detail.argument) if detail.argument or name == CREATE_VCPU else None
        data = detail.after if detail.after and not _is_read(detail) else detail.before
        if len(data) < detail.size_bytes:
            return f"{detail.argument:#x}"
        if name in ATTRIBUTES:
            return self._attribute(detail)
        if name == REG_LIST:
            return {"n": str(int.from_bytes(data[:NUMBER_BYTES], "little"))}
        if name == FINALIZE:
            feature = int.from_bytes(data, "little", signed=True)
            return self._features.get(feature, number(feature)).upper()
        if name in (INIT, PREFERRED_TARGET):
            return self._init(data)
        ctype = uapi.IOCTL_ARGUMENTS.get(name, "")
        if not ctype.startswith("struct "):
            return f"{detail.argument:#x}"
        found = struct(ctype, data)
        if name in FLEXIBLE:
            found |= _elements(name, detail)
        return found

    def _init(self, data: bytes) -> Value:
        words = uapi.ffi.from_buffer("struct kvm_vcpu_init *", data)
        bits = [32 * place + bit for place, word in enumerate(words.features) for bit in range(32) if word >> bit & 1]
        names = [self._features.get(bit, f"bit {bit}") for bit in bits]
        return {"target": str(words.target), "features": "|".join(names) or "0"}

    def _attribute(self, detail: Detail) -> Value:
        attr = uapi.ffi.from_buffer("struct kvm_device_attr *", detail.before)
        group, name = attributes.names(detail.kind, attr.group, attr.attr)
        found: dict[str, Value] = {"group": group, "attr": name}
        if attr.flags:
            found["flags"] = number(attr.flags)
        for access in detail.pointed:
            if not access.faulted:
                found["value"] = value_text(access.data)
        return found


def struct(ctype: str, data: bytes) -> dict[str, Value]:
    """The fields of a struct, without padding; a flexible array is left out."""
    return _struct(uapi.ffi.typeof(ctype), data)


def register_text(id: int, data: bytes) -> str:
    """A register's value: bits by name, a number, or bytes.

    >>> register_text(regid.parse("svcr"), bytes([3, 0, 0, 0, 0, 0, 0, 0]))
    'SM|ZA'
    """
    name = regid.name_of(id)
    if name == "svcr":
        value = int.from_bytes(data, "little")
        names = [text for bit, text in SVCR_BITS.items() if value & bit]
        rest = value & ~sum(SVCR_BITS)
        return "|".join([*names, *([f"{rest:#x}"] if rest else [])]) or "0"
    if name in LENGTH_SETS:
        vqs = [bit + 1 for bit in range(8 * len(data)) if data[bit >> 3] >> (bit & 7) & 1]
        return "vq " + ",".join(map(str, vqs)) if vqs else "no length"
    return value_text(data)


def value_text(data: bytes) -> str:
    """Bytes as a number if there are at most 8 of them, otherwise as hex with runs."""
    if len(data) <= NUMBER_BYTES:
        return number(int.from_bytes(data, "little"))
    return hexruns.compress(data)


def exit_of(run: bytes) -> tuple[str, dict[str, Value]]:
    """The exit reason of struct kvm_run by name, and the member of its union that belongs to it."""
    kind = uapi.ffi.typeof(RUN)
    whole = run.ljust(uapi.ffi.sizeof(kind), b"\0")
    reason = int.from_bytes(_bytes_of(kind, "exit_reason", whole), "little")
    name = uapi.EXIT_NAMES.get(reason, number(reason)).removeprefix("KVM_EXIT_")
    member = EXITS.get(reason)
    if member is None:
        return name, {}
    place = uapi.ffi.offsetof(kind, member)
    ctype = _member(kind, member)
    return name, _struct(ctype, whole[place : place + uapi.ffi.sizeof(ctype)], f"exit {member}")


def _is_read(detail: Detail) -> bool:
    """Whether the kernel reads the struct."""
    return bool(detail.request >> 30 & 1)


def _elements(name: str, detail: Detail) -> dict[str, Value]:
    """The array behind a struct, as far as it was read."""
    _count, field, ctype = FLEXIBLE[name]
    size_bytes, start = uapi.ffi.sizeof(ctype), detail.argument + detail.size_bytes
    data = next((access.data for access in detail.accesses if access.address == start), b"")
    return {field: [struct(ctype, data[at : at + size_bytes]) for at in range(0, len(data), size_bytes)]}


def _member(ctype: Any, name: str) -> Any:
    """The type of a field, perhaps one of an unnamed union."""
    for field_name, field in ctype.fields:
        if field_name == name:
            return field.type
        if not field_name and name in dict(field.type.fields or ()):
            return dict(field.type.fields)[name].type
    raise KeyError(name)


def _bytes_of(ctype: Any, name: str, data: bytes) -> bytes:
    place = uapi.ffi.offsetof(ctype, name)
    return data[place : place + uapi.ffi.sizeof(_member(ctype, name))]


def _struct(ctype: Any, data: bytes, called: str = "") -> dict[str, Value]:
    """The fields of a struct, which is ``called`` so in the table of meanings if not by its own name."""
    found: dict[str, Value] = {}
    for name, field in ctype.fields:
        if PADDING.fullmatch(name):
            continue
        if not name:  # a union or a struct without a name: its first field stands for it
            inner, kind = next(iter(field.type.fields))
            found[inner] = _value(kind.type, data[field.offset :], meaning(called or ctype.cname, inner))
        elif not (field.type.kind == "array" and not field.type.length):
            found[name] = _value(field.type, data[field.offset :], meaning(called or ctype.cname, name))
    return found


def _value(ctype: Any, data: bytes, means: Meaning | None) -> Value:
    """A value at the beginning of some bytes."""
    data = data[: uapi.ffi.sizeof(ctype)]
    if ctype.kind in ("primitive", "enum", "pointer"):
        signed = ctype.kind != "pointer" and int(uapi.ffi.cast(ctype, -1)) < 0
        plain = int.from_bytes(data, "little", signed=signed)
        return means.text(plain) if means else number(plain)
    if ctype.kind == "array" and uapi.ffi.sizeof(ctype.item) > 1:
        step = uapi.ffi.sizeof(ctype.item)
        items = [_value(ctype.item, data[at : at + step], means) for at in range(0, len(data), step)]
        while len(items) > 1 and items[-1] == "0":
            items.pop()
        return items
    return _struct(ctype, data) if ctype.kind == "struct" else hexruns.compress(data)
