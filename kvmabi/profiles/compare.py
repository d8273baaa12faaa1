# SPDX-License-Identifier: MIT
"""The differences between two kernels that userspace can see, read from their profiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any

from kvmabi import regid
from kvmabi.profiles import files, switches
from kvmabi.profiles.kernel import Kernel, load_kernel
from kvmabi.tables import Table

Difference = tuple[str, str, str, str]
NAMES = frozenset({"name", "title", "forecast", "switches"})


def diff(a: str | Kernel, b: str | Kernel) -> list[Difference]:
    """Returns (switch or field, its meaning, its value in ``a``, in ``b``) for each difference.

    Raises UsageError if one of them is not a kernel profile.
    """
    one, other = load_kernel(a), load_kernel(b)
    differences: list[Difference] = []
    for name, switch in switches.described().items():
        values = getattr(one.switches, name), getattr(other.switches, name)
        if values[0] != values[1]:
            differences.append((name, switch.text, _text(values[0]), _text(values[1])))
    for field in fields(Kernel):
        if field.name not in NAMES:
            differences += _field(field.name, getattr(one, field.name), getattr(other, field.name))
    return differences


@cache
def meanings() -> Table:
    """The meaning of each field of a kernel profile (kernel_fields.toml)."""
    return files.builtin_table("kernel_fields.toml")


def _field(name: str, one: Any, other: Any) -> Iterator[Difference]:
    text = meanings()[name]
    if not isinstance(one, dict):
        if one != other:
            yield name, text, _text(one), _text(other)
        return
    for key in sorted(one.keys() | other.keys(), key=str):
        if one.get(key) != other.get(key):
            label = regid.name_of(key) if isinstance(key, int) else key
            yield f"{name}.{label}", text, _text(one.get(key)), _text(other.get(key))


def _text(value: Any) -> str:
    """Returns a value as text for people."""
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return hex(value) if value > 0xFFFF else str(value)
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    if isinstance(value, dict):
        return ", ".join(f"{key} = {_text(item)}" for key, item in value.items())
    if hasattr(value, "_asdict"):
        return ", ".join(f"{key} {_text(item)}" for key, item in value._asdict().items())
    if isinstance(value, tuple | list):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
