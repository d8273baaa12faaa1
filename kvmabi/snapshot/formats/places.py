# SPDX-License-Identifier: MIT
"""Registers' places in a file, worked out once for all vCPUs of a shape."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping


class Places(Mapping[int, int]):
    """Places of registers: ``within`` a vCPU, which begins at ``base`` in the file; only of those that are ``held``.

    >>> places = Places({1: 0, 2: 8, 3: 16}, 100, {1: b"", 3: b""})
    >>> dict(places), 2 in places
    ({1: 100, 3: 116}, False)
    """

    __slots__ = ("_base", "_held", "_within")

    def __init__(self, within: Mapping[int, int], base: int, held: Container[int]) -> None:
        self._within = within
        self._base = base
        self._held = held

    def __getitem__(self, id: int) -> int:
        if id not in self._held:
            raise KeyError(id)
        return self._base + self._within[id]

    def __contains__(self, id: object) -> bool:
        return id in self._held and id in self._within

    def __iter__(self) -> Iterator[int]:
        return (id for id in self._within if id in self._held)

    def __len__(self) -> int:
        return sum(1 for _ in self)
