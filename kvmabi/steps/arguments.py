# SPDX-License-Identifier: MIT
"""The struct of an ioctl in a case: its fields by name, as the bytes that the step ``ioctl-bytes`` takes.

>>> from kvmabi import uapi
>>> argument("KVM_IRQFD", ["fd=@0", "gsi=32", "flags=KVM_IRQFD_FLAG_DEASSIGN"])
'@0200000000100*23.'
>>> argument("KVM_GET_DIRTY_LOG", ["slot=1", "dirty_bitmap=@p", "behind=aa*8."])
'0100*7.@paa*8.'
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvmabi import hexruns, uapi
from kvmabi.steps.grammar import ADDRESSES

NEXT = "|"
"""A word that begins the next element of the struct's flexible array."""
WHOLE = "bytes="
"""How the word begins that has the whole argument."""
BEHIND_KEY = "behind"
"""The key of bytes that follow the struct."""


def argument(ioctl: str, words: Iterable[str]) -> str:
    """The argument of ``ioctl-bytes`` for an ioctl; ValueError for a field or a value that does not exist.

    The one word ``bytes=…`` is the argument itself, for any ioctl.
    """
    words = list(words)
    if len(words) == 1 and words[0].startswith(WHOLE):
        return words[0].removeprefix(WHOLE)
    if ioctl not in uapi.IOCTL_ARGUMENTS:
        raise ValueError(f"{ioctl} is not an ioctl with a struct")
    ctype = uapi.ffi.typeof(uapi.IOCTL_ARGUMENTS[ioctl])
    values: dict[int, tuple[int, str]] = {}
    start, end, behind = 0, uapi.ffi.sizeof(ctype), ""
    for word in words:
        if word == NEXT:
            ctype = _element(ctype) if not start else ctype
            start, end = end, end + uapi.ffi.sizeof(ctype)
            continue
        key, _, value = word.partition("=")
        if key == BEHIND_KEY:
            behind = value
            continue
        offset, size_bytes = _place(ctype, key)
        values[start + offset] = size_bytes, value
    return _text(values, end) + behind


def _element(ctype: Any) -> Any:
    """The type of a flexible array's elements."""
    last = ctype.fields[-1][1].type if ctype.kind == "struct" else None
    if last is None or last.kind != "array" or last.length:
        raise ValueError(f"{ctype.cname} does not end with an array")
    return last.item


def _place(ctype: Any, key: str) -> tuple[int, int]:
    """Offset and size in bytes of a field; ``u.msi.data`` names one inside others."""
    offset = 0
    for name in key.split("."):
        fields = dict(ctype.fields or ()) if ctype.kind in ("struct", "union") else {}
        field = fields.get(name) or next(
            (dict(inner.type.fields).get(name) for outer, inner in fields.items() if not outer), None
        )
        if field is None:
            raise ValueError(f"{ctype.cname} has no field {name!r}")
        offset += uapi.ffi.offsetof(ctype, name)
        ctype = field.type
    return offset, uapi.ffi.sizeof(ctype)


def _text(values: dict[int, tuple[int, str]], size_bytes: int) -> str:
    """The fields at their offsets with zeroes around them, descriptors and the address as their marks."""
    text, data, place = "", b"", 0
    for offset in sorted(values):
        width, value = values[offset]
        data += bytes(offset - place)
        place = offset + width
        if value.startswith("@"):
            if width != (8 if value[1:] in ADDRESSES else 4):
                raise ValueError(f"{value} does not fit into a field of {width} bytes")
            text, data = text + hexruns.compress(data) + value, b""
        else:
            data += (_number(value) % (1 << 8 * width)).to_bytes(width, "little")
    return text + hexruns.compress(data + bytes(size_bytes - place))


def _number(text: str) -> int:
    """A number, or flags of the headers by name, joined by +."""
    total = 0
    for word in text.split("+"):
        named = vars(uapi).get(word)
        total += named if isinstance(named, int) else int(word, 0)
    return total
