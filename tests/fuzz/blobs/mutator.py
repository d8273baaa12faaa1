# SPDX-License-Identifier: MIT
"""Damages blobs: seeded, so that a case is named by its sample, seed and number."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import struct
from collections.abc import Callable, Mapping

import zstandard

from fuzz.blobs.samples import cut_points

EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 63,
    (1 << 64) - 1,
)
WIDTHS = (1, 2, 4, 8)
MOST_BYTES = 1 << 20
DEEP = (
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\x81" * 3000,
    b"\x9f" * 3000,
    b"\xd8\x23" * 1500,
    b"[]," * 2000,
    b'"x":1,' * 2000,
)
STRANGE = (
    *(b"\\ud800", b"1e999", b"-1", b"NaN", b"9" * 400, b"*999999999.", b"00*256.", b"null", b"[vcpu 9]\n", b"\xff\xfe"),
    *(b"\xfb\x7e\0\0\0\0\0\0", b"\xc2\x58\xff", b"\x5f", b"\xbf", b"0x" + b"f" * 17, b'{"id": "0x0", "data": "zz"},'),
    *(b"\x7e\0\0\0\x06", b"\0\x06\xff\xff\xff\xff", b"\x04\0\0\0\x06\x03cpu", b"\x05", b"\r\n", b"\x1f\x8b\x08\0"),
)
PACKERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda blob: gzip.compress(blob, 1),
    lambda blob: bz2.compress(blob, 1),
    lambda blob: lzma.compress(blob, preset=0),
    lambda blob: zstandard.compress(blob, 1),
)


class Mutator:
    """Damages one sample; ``others`` are what parts are taken from."""

    def __init__(self, name: str, blobs: Mapping[str, bytes], seed: int) -> None:
        self.name = name
        self.blob = blobs[name]
        self.others = [blob for other, blob in blobs.items() if other != name]
        self.random = random.Random(f"{name} {seed}")
        self.cuts = cut_points(self.blob)
        self.packed: list[bytes] = []

    def __call__(self) -> bytes:
        """Another damaged blob, of 1 MiB at most unless the sample is larger."""
        choose = self.random.random
        if choose() < 0.04:
            return self._packed()
        out = bytearray(self.blob)
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8, 30))):
            self.random.choice(MUTATIONS)(self, out)
        out = out[: max(MOST_BYTES, len(self.blob))]
        if choose() < 0.02:
            return self.random.choice(PACKERS)(bytes(out))
        return bytes(out)

    def _packed(self) -> bytes:
        """The sample compressed, and the compressed bytes damaged."""
        if not self.packed:
            self.packed = [packer(self.blob) for packer in PACKERS]
        out = bytearray(self.random.choice(self.packed))
        for _ in range(self.random.choice((1, 2, 8))):
            self.random.choice((flip, run, extreme, truncate))(self, out)
        return bytes(out)


def flip(mutator: Mutator, out: bytearray) -> None:
    """One bit."""
    if out:
        out[mutator.random.randrange(len(out))] ^= 1 << mutator.random.randrange(8)


def run(mutator: Mutator, out: bytearray) -> None:
    """A run of bytes of one value, or random ones."""
    at, length = mutator.random.randrange(len(out) + 1), mutator.random.choice((1, 2, 8, 64, 1000))
    value = mutator.random.choice((b"\0", b"\xff", b"0", b"[", b"\x9f"))
    out[at : at + length] = mutator.random.choice((value * length, mutator.random.randbytes(length)))


def extreme(mutator: Mutator, out: bytearray) -> None:
    """A number of 1 to 8 bytes, or one in decimal, becomes an extreme one."""
    width, value = mutator.random.choice(WIDTHS), mutator.random.choice(EXTREMES)
    at = mutator.random.randrange(len(out) + 1)
    if mutator.random.random() < 0.15:
        digits = [place for place in range(at, min(at + 200, len(out))) if 0x30 <= out[place] <= 0x39]
        if digits:
            out[digits[0] : digits[0] + 1] = str(value).encode()
            return
    order = mutator.random.choice("<>")
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
    out[at : at + width] = struct.pack(order + code, value & (1 << 8 * width) - 1)


def truncate(mutator: Mutator, out: bytearray) -> None:
    """The end is missing."""
    del out[mutator.random.randrange(len(out) + 1) :]


def remove(mutator: Mutator, out: bytearray) -> None:
    """Some bytes in the middle are missing."""
    at = mutator.random.randrange(len(out) + 1)
    del out[at : at + mutator.random.choice((1, 2, 8, 100, 5000))]


def splice(mutator: Mutator, out: bytearray) -> None:
    """A part of another sample takes the place of a part, or is put in."""
    other = mutator.random.choice(mutator.others)
    begin, length = mutator.random.randrange(len(other)), mutator.random.choice((8, 100, 3000, 50_000))
    at = mutator.random.randrange(len(out) + 1)
    out[at : at + mutator.random.choice((0, length))] = other[begin : begin + length]


def cross(mutator: Mutator, out: bytearray) -> None:
    """The beginning of this one and the end of another one."""
    other = mutator.random.choice(mutator.others)
    cuts = cut_points(other)
    out[mutator.random.randrange(len(out) + 1) :] = other[mutator.random.choice(cuts) :]


def repeat(mutator: Mutator, out: bytearray) -> None:
    """A part is there several times."""
    begin, end = sorted(mutator.random.choices(mutator.cuts, k=2))
    part = out[begin : min(end, begin + 20_000)]
    out[end:end] = part * mutator.random.choice((1, 1, 2, 20))


def swap(mutator: Mutator, out: bytearray) -> None:
    """Two parts change places."""
    first, middle, last = sorted(mutator.random.choices(mutator.cuts, k=3))
    out[first:last] = out[middle:last] + out[first:middle]


def strange(mutator: Mutator, out: bytearray) -> None:
    """Something is put in that parsers stumble over."""
    at = mutator.random.randrange(len(out) + 1)
    out[at:at] = mutator.random.choice(STRANGE if mutator.random.random() < 0.8 else DEEP)


MUTATIONS = (flip, flip, run, extreme, extreme, truncate, remove, splice, cross, repeat, swap, strange)
