# SPDX-License-Identifier: MIT
"""Structures of a QEMU stream as tables of fields: big-endian, without padding."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from struct import Struct, calcsize
from typing import Any, Final, NamedTuple

BIG_ENDIAN: Final = ">"


class Member(NamedTuple):
    """A field: ``code`` is that of the struct module, ``items`` how many of them there are."""

    name: str
    code: str
    items: int = 1

    @property
    def size_bytes(self) -> int:
        """The size of all items."""
        return calcsize(BIG_ENDIAN + self.code) * self.items


class Layout:
    """A structure of fields that follow each other.

    >>> layout = Layout([("pc", "Q"), ("cpsr", "I"), ("spsr", "Q", 2)])
    >>> layout.size_bytes, layout.at["spsr"], layout.first["spsr"]
    (28, 12, 2)
    """

    def __init__(self, members: Iterable[tuple[Any, ...]]) -> None:
        self.members = tuple(Member(*member) for member in members)
        self.struct = Struct(BIG_ENDIAN + "".join(member.code * member.items for member in self.members))
        self.size_bytes = self.struct.size
        self.at: dict[str, int] = {}
        """Where each field begins, in bytes."""
        self.first: dict[str, int] = {}
        """Which of the unpacked values is the first one of each field."""
        place = value = 0
        for member in self.members:
            self.at[member.name], self.first[member.name] = place, value
            place += member.size_bytes
            value += member.items


def payloads(data: bytes, width_bytes: int = 8) -> bytes:
    """Big-endian numbers as KVM_GET_ONE_REG transfers them, each in its place.

    >>> payloads(bytes.fromhex("0000000000000102")).hex()
    '0201000000000000'
    """
    words = array({4: "I", 8: "Q"}[width_bytes], data)
    words.byteswap()
    return words.tobytes()
