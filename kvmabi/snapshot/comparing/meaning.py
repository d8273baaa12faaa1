# SPDX-License-Identifier: MIT
"""Two values of a register compared by what they mean: fields of ID registers, named bits, ranges of bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

from kvmabi.profiles import idnames
from kvmabi.profiles.idregs import Field

MOST_NUMBER_BYTES = 8
"""A longer register is a vector: it is compared by bytes."""


class Part(NamedTuple):
    """A part of a register that differs: a field (with its rule, "" without one), or a range of bytes.

    ``a`` and ``b`` are the values, as text; empty for ranges of bytes.
    """

    name: str
    rule: str
    a: str
    b: str

    def __str__(self) -> str:
        rule = f" ({self.rule})" if self.rule else ""
        return f"{self.name}{rule}: {self.a} -> {self.b}" if self.a or self.b else self.name

    def as_dict(self) -> dict[str, Any]:
        """The part for JSON."""
        return {"name": self.name, "rule": self.rule or None, "a": self.a or None, "b": self.b or None}


def parts(id: int, a: bytes, b: bytes) -> tuple[Part, ...]:
    """Where two values of a register differ, the highest field or the lowest byte first; none for a plain number.

    >>> from kvmabi import regid
    >>> for part in parts(regid.parse("id_aa64pfr1_el1"), (2 << 24).to_bytes(8, "little"), bytes(8)):
    ...     print(part)
    SME (bits 27:24) (FTR_LOWER_SAFE): 0x2 -> 0x0
    >>> print(*parts(regid.parse("z0"), bytes(256), bytes(16) + b"x" * 16 + bytes(224)))
    bytes 16-31
    """
    if max(len(a), len(b)) > MOST_NUMBER_BYTES:
        return tuple(Part(text, "", "", "") for text in byte_ranges(a, b))
    ruled = id in idnames.feature_ids()
    return tuple(
        Part(idnames.label(field), field.rule if ruled else "", *_values(field, a, b))
        for field in idnames.fields(id)
        if field.get(_number(a)) != field.get(_number(b))
    )


def byte_ranges(a: bytes, b: bytes) -> list[str]:
    """The ranges of bytes that differ between two values; bytes that only one of them has differ if they are not 0."""
    size_bytes = max(len(a), len(b))
    one, other = a.ljust(size_bytes, b"\0"), b.ljust(size_bytes, b"\0")
    unequal = [n for n in range(size_bytes) if one[n] != other[n]]
    return [f"bytes {first}-{last}" if first != last else f"byte {first}" for first, last in _runs(unequal)]


def number_text(data: bytes | None) -> str:
    """A short value as text, "" for a vector or an unknown value."""
    return "" if data is None or len(data) > MOST_NUMBER_BYTES else f"{_number(data):#x}"


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Rising numbers as runs, those that lie less than 8 apart in one run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number - runs[-1][1] < 8:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def _values(field: Field, a: bytes, b: bytes) -> tuple[str, str]:
    return f"{field.get(_number(a)):#x}", f"{field.get(_number(b)):#x}"


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
