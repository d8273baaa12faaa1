# SPDX-License-Identifier: MIT
"""The registers that an access changed besides the one it names, computed on iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

Place = tuple[int, int, int]
"""A register's ID, its place in the register file and its size, both in bytes."""


class Effect(NamedTuple):
    """A register other than the one written whose value an ioctl changed."""

    id: int
    before: bytes
    after: bytes


class Effects:
    """The effects of one access, in order of occurrence.

    A write of SVCR can wipe 300 registers, and few callers ask which: the previous bytes are stored, and compared
    only by ``__iter__``.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[Effect | tuple[bytes, int, Iterable[Place], Callable[[int], bool]]] = []

    def changed(self, effect: Effect) -> None:
        """Add one register."""
        self._parts.append(effect)

    def wiped(self, before: bytes, start: int, places: Iterable[Place], visible: Callable[[int], bool]) -> None:
        """Add the registers at ``places`` that were ``visible`` and not zero in the bytes ``before`` from ``start``."""
        self._parts.append((before, start, places, visible))

    def __iter__(self) -> Iterator[Effect]:
        for part in self._parts:
            if isinstance(part, Effect):
                yield part
                continue
            before, start, places, visible = part
            for id, offset, size in places:
                value = before[offset - start : offset - start + size]
                if any(value) and visible(id):
                    yield Effect(id, value, bytes(size))
