# SPDX-License-Identifier: MIT
"""The structs of the KVM API as struct.Struct, generated from the headers: no layout is written by hand.

>>> from kvmabi.device.structs import layout
>>> layout("struct kvm_one_reg").unpack(bytes(16))
(0, 0)

cffi objects of the same structs (``uapi.ffi.new``) are easier to read; a struct.Struct packs and unpacks in a tenth of
the time, which matters on the path of every ioctl.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from kvmabi.uapi import ffi

UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
"""Format characters by size in bytes; a signed field has the small letter."""


@cache
def layout(name: str) -> struct.Struct:
    """Returns the layout of a type by its C name, padding included, in the machine's byte order.

    Fields are in declaration order. Arrays of numbers are flattened into their elements, structs into their fields;
    an array of bytes, a union and bit fields that share a unit are one ``bytes`` value each. A flexible array takes no
    space.
    """
    ctype = ffi.typeof(name)
    compiled = struct.Struct("=" + "".join(_formats(ctype)))
    assert compiled.size == ffi.sizeof(ctype), name
    return compiled


def _formats(ctype: Any) -> Iterator[str]:
    """The format of a type, piece by piece."""
    size = ffi.sizeof(ctype)
    if ctype.kind in ("primitive", "enum"):
        negative = int(ffi.cast(ctype, -1)) < 0
        yield UNSIGNED[size].lower() if negative else UNSIGNED[size]
    elif ctype.kind == "pointer":
        yield UNSIGNED[size]
    elif ctype.kind == "array" and ctype.length and ffi.sizeof(ctype.item) > 1:
        for _ in range(ctype.length):
            yield from _formats(ctype.item)
    elif ctype.kind == "struct":
        yield from _fields(ctype)
    elif size:  # bytes, or a union
        yield f"{size}s"


def _fields(ctype: Any) -> Iterator[str]:
    """The formats of a struct's fields, and of the padding between and after them."""
    place = 0
    for start, end, types in _spans(ctype):
        if start > place:
            yield f"{start - place}x"
        if len(types) == 1:
            yield from _formats(types[0])
        else:
            yield f"{end - start}s"
        place = end
    if place < ffi.sizeof(ctype):
        yield f"{ffi.sizeof(ctype) - place}x"


def _spans(ctype: Any) -> Iterator[tuple[int, int, list[Any]]]:
    """Where each field begins and ends, and its type; fields that share bytes (an anonymous union) are one span."""
    spans: list[tuple[int, int, list[Any]]] = []
    for _, field in ctype.fields:
        if field.type.kind == "array" and not field.type.length:
            continue
        start, end, types = field.offset, field.offset + ffi.sizeof(field.type), [field.type]
        while spans and start < spans[-1][1]:
            other = spans.pop()
            start, end, types = min(start, other[0]), max(end, other[1]), other[2] + types
        spans.append((start, end, types))
    yield from spans
