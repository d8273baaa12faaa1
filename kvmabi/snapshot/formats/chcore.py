# SPDX-License-Identifier: MIT
"""Core registers as cloud-hypervisor writes them: struct kvm_regs as bytes, or (older) as an object of its fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, TypeGuard

from kvmabi import regid
from kvmabi.model.core import FPCR_ID, FPSR_ID, V_IDS
from kvmabi.model.row import size_of
from kvmabi.model.state import CORE_BYTES
from kvmabi.snapshot.formats.gathering import core_places

_X_IDS = tuple(regid.parse(f"x{n}") for n in range(31))
_SPSR_IDS = tuple(regid.parse(f"spsr_{bank}") for bank in ("el1", "abt", "und", "irq", "fiq"))
_OUTER = (("sp_el1", "sp_el1"), ("elr_el1", "elr_el1"))
_INNER = (("sp", "sp"), ("pc", "pc"), ("pstate", "pstate"))
_U64_MASK = (1 << 64) - 1
Wrong = Callable[[str], None]


def is_u64(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a number of 64 bits."""
    return type(value) is int and 0 <= value <= _U64_MASK


def as_bytes(value: object) -> bytes | None:
    """The bytes that a list of numbers stands for; None for anything else."""
    if not isinstance(value, list):
        return None
    try:
        return bytes(value)
    except (ValueError, TypeError):
        return None


def core_registers(value: object, wrong: Wrong) -> Iterator[tuple[int, bytes]]:
    """The core registers in ``core_regs``, V included, in the struct's order. ``wrong`` is called for each problem."""
    if isinstance(value, dict):
        yield from _of_fields(value, wrong)
        return
    data = as_bytes(value)
    if data is None:
        wrong("core_regs is neither a list of bytes nor an object")
        return
    if len(data) != CORE_BYTES:
        wrong(f"core_regs has {len(data)} bytes, struct kvm_regs {CORE_BYTES}")
    for id, offset, size_bytes in core_places():
        if offset + size_bytes <= len(data):
            yield id, data[offset : offset + size_bytes]


def _of_fields(fields: Mapping[str, Any], wrong: Wrong) -> Iterator[tuple[int, bytes]]:
    """Of an object such as {"regs": {"regs": [...], "sp": 0, …}, "sp_el1": 0, …, "fp_regs": {"vregs": [...]}}."""
    inner = fields.get("regs")
    inner = inner if isinstance(inner, dict) else {}
    floating = fields.get("fp_regs")
    floating = floating if isinstance(floating, dict) else {}
    v_values = [_v_number(value) for value in _values(floating.get("vregs"))]
    values: Iterator[tuple[int, object]] = chain(
        zip(_X_IDS, _padded(inner.get("regs"), len(_X_IDS)), strict=False),
        ((regid.parse(name), inner.get(key)) for name, key in _INNER),
        ((regid.parse(name), fields.get(key)) for name, key in _OUTER),
        zip(_SPSR_IDS, _padded(fields.get("spsr"), len(_SPSR_IDS)), strict=False),
        zip(V_IDS, _padded(v_values, len(V_IDS)), strict=False),
        ((FPSR_ID, floating.get("fpsr")), (FPCR_ID, floating.get("fpcr"))),
    )
    for id, value in values:
        size_bytes = size_of(id)
        if type(value) is int and 0 <= value < 1 << 8 * size_bytes:
            yield id, value.to_bytes(size_bytes, "little")
        else:
            wrong(f"core_regs has no {regid.name_of(id)}, or not as a number of {size_bytes} bytes")


def _values(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _padded(value: object, count: int) -> list[Any]:
    values = _values(value)
    return [*values, *[None] * (count - len(values))]


def _v_number(value: object) -> object:
    """A 128-bit number: itself, 16 bytes, or two halves, the lower first."""
    data = as_bytes(value)
    if data is not None and len(data) == 16:
        return int.from_bytes(data, "little")
    if isinstance(value, list) and len(value) == 2 and all(map(is_u64, value)):
        return int(value[0] | value[1] << 64)
    return value
