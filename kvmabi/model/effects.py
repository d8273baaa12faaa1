# SPDX-License-Identifier: MIT
"""The registers that an access changed besides the one it names, computed on iteration."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
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
    only when effects are asked for.
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
            else:
                yield from _lost(*part)

    def among(self, ids: Container[int]) -> Iterator[Effect]:
        """The effects on registers of ``ids``: where few are of interest, the others are not compared."""
        for part in self._parts:
            if not isinstance(part, Effect):
                before, start, places, visible = part
                yield from _lost(before, start, [place for place in places if place[0] in ids], visible)
            elif part.id in ids:
                yield part


def _lost(before: bytes, start: int, places: Iterable[Place], visible: Callable[[int], bool]) -> Iterator[Effect]:
    """The effects of a wipe: see Effects.wiped."""
    for id, offset, size in places:
        value, zero = before[offset - start : offset - start + size], bytes(size)
        if value != zero and visible(id):  # any() would look at each byte
            yield Effect(id, value, zero)
