# SPDX-License-Identifier: MIT
"""struct kvm_run of a vCPU, which the VMM has mapped: its fields by name, such as "exit_reason" or "mmio.len"."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from kvmabi.uapi import ffi

KVM_RUN = "struct kvm_run"
RUN_BYTES = ffi.sizeof(KVM_RUN)


class Field(NamedTuple):
    """A field's place and size, both in bytes."""

    offset: int
    size_bytes: int


@cache
def field(name: str) -> Field:
    """A field of struct kvm_run, also in its unions and structs."""
    return Field(ffi.offsetof(KVM_RUN, *name.split(".")), _size_of(ffi.typeof(KVM_RUN), name.split(".")))


def _size_of(kind: Any, names: list[str]) -> int:
    """The size of the field that ``names`` lead to, through unions and structs without a name."""
    if not names:
        return int(ffi.sizeof(kind))
    for name, member in kind.fields:
        if name == names[0]:
            return _size_of(member.type, names[1:])
        if not name:
            size_bytes = _size_of(member.type, names)
            if size_bytes:
                return size_bytes
    return 0


class RunPage:
    """The start of a vCPU's file, by its descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def raw(self, name: str, size_bytes: int) -> bytes:
        """The first bytes of a field."""
        return os.pread(self._fd, size_bytes, field(name).offset)

    def content(self) -> bytes:
        """The whole of struct kvm_run."""
        return os.pread(self._fd, RUN_BYTES, 0)

    def number(self, name: str) -> int:
        """A field's value as a number."""
        return int.from_bytes(self.raw(name, field(name).size_bytes), "little")

    def write(self, values: Mapping[str, int | bytes]) -> None:
        """Write fields, in this order; bytes can be fewer than the field has."""
        for name, value in values.items():
            offset, size_bytes = field(name)
            data = value if isinstance(value, bytes) else value.to_bytes(size_bytes, "little")
            os.pwrite(self._fd, data, offset)
