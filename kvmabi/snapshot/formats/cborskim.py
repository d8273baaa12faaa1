# SPDX-License-Identifier: MIT
"""Looks over CBOR before a library decodes it: limits of depth and number, where values stand, keys that come twice.

Only what structs of crosvm consist of passes: integers, text, bytes, arrays and maps of definite length, tag 2 (a large
positive number), simple values, floats. https://www.rfc-editor.org/rfc/rfc8949
"""

from __future__ import annotations

from typing import NamedTuple

from kvmabi.snapshot.source import BadBlob

MOST_BYTES = 4 << 20
MOST_DEPTH = 8
MOST_ITEMS = 1 << 16
MOST_BIGNUM_BYTES = 16
"""The size of a u128."""
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_BIGNUM_TAG = 2
_LONGEST_SHOWN = 64
Key = int | str | None


class Skimmed(NamedTuple):
    """``places`` is where values of maps and arrays begin, by the key that leads to the map or array ("" for the

    outermost), and by the key or number in it. ``twice`` lists keys that a map has twice, likewise.
    """

    places: dict[tuple[Key, Key], int]
    twice: list[tuple[Key, Key]]


class _Open:
    """A map or array whose items are being passed."""

    __slots__ = ("is_map", "key", "keys", "left", "name", "number")

    def __init__(self, name: Key, left: int, is_map: bool) -> None:
        self.name = name
        self.left = left
        self.is_map = is_map
        self.key: Key = None
        self.number = 0
        self.keys: set[Key] = set()


def skim(data: bytes) -> Skimmed:
    """Pass over one item of CBOR that fills ``data``. Raises BadBlob.

    >>> skim(bytes.fromhex("a1 63 736574 82 01 02".replace(" ", ""))).places  # {"set": [1, 2]}
    {('', 'set'): 5, ('set', 0): 6, ('set', 1): 7}
    """
    skimmed = Skimmed({}, [])
    stack: list[_Open] = []
    at, tagged = 0, False
    for _ in range(MOST_ITEMS):
        start = at
        kind, value, at = _head(data, at)
        parent = stack[-1] if stack else None
        name: Key = ""
        if parent is not None and not tagged:
            if not parent.is_map:
                skimmed.places[parent.name, parent.number] = start
            elif parent.left % 2:
                skimmed.places.setdefault((parent.name, parent.key), start)
            else:
                parent.key = _key(data, kind, value, at, start)
                if parent.key in parent.keys:
                    skimmed.twice.append((parent.name, parent.key))
                parent.keys.add(parent.key)
        if parent is not None:
            name = parent.key if parent.is_map else parent.number
        if tagged and (kind != _BYTES or value > MOST_BIGNUM_BYTES):
            raise BadBlob("a large number of CBOR has more than 128 bits", start)
        tagged = kind == _TAG
        if tagged:
            if value != _BIGNUM_TAG:
                raise BadBlob(f"CBOR tag {value}, which no struct of crosvm has", start)
            continue
        if kind in (_BYTES, _TEXT):
            if value > len(data) - at:
                raise BadBlob(
                    f"{value} bytes of text or data are expected, {len(data) - at} are left", start, "truncated"
                )
            at += value
        if parent is not None:
            parent.left -= 1
            parent.number += 1
        if kind in (_ARRAY, _MAP):
            count = value * (2 if kind == _MAP else 1)
            if count > len(data) - at:
                raise BadBlob(f"{value} items are expected in {len(data) - at} bytes", start, "truncated")
            if len(stack) >= MOST_DEPTH:
                raise BadBlob(f"CBOR nests deeper than {MOST_DEPTH}", start, "too-large")
            stack.append(_Open(name, count, kind == _MAP))
        while stack and not stack[-1].left:
            stack.pop()
        if not stack:
            if at < len(data):
                raise BadBlob(f"{len(data) - at} bytes follow the CBOR item", at)
            return skimmed
    raise BadBlob(f"more than {MOST_ITEMS} items of CBOR", at, "too-large")


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """An item's kind, its number, and where its content begins."""
    if at >= len(data):
        raise BadBlob("CBOR ends in the middle of an item", at, "truncated")
    kind, short = data[at] >> 5, data[at] & 0x1F
    if short < 24:
        return kind, short, at + 1
    if short > 27:
        raise BadBlob("CBOR of indefinite length, or a reserved form", at)
    size_bytes = 1 << (short - 24)
    if at + 1 + size_bytes > len(data):
        raise BadBlob("CBOR ends in the middle of an item", len(data), "truncated")
    return kind, int.from_bytes(data[at + 1 : at + 1 + size_bytes], "big"), at + 1 + size_bytes


def _key(data: bytes, kind: int, value: int, at: int, start: int) -> Key:
    if kind == _UNSIGNED:
        return value
    if kind == _TEXT and value <= _LONGEST_SHOWN:
        return data[at : at + value].decode("utf-8", "replace")
    raise BadBlob("a key of a CBOR map is neither a number nor a short text", start)
