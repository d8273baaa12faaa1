# SPDX-License-Identifier: MIT
"""Streams that QEMU 7.2, 10.0 and 11.1 wrote, of TCG guests and of guests on real kernels, and what was in their vCPUs.

``data/qemu.tar.xz`` holds the streams as they were written and truth.json: per stream whose it is, and each vCPU's
registers as the guest, or KVM, had them: name to the payload's valid bytes.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from kvmabi.snapshot import opening
from kvmabi.snapshot.snapshot import Snapshot, VcpuSnapshot

DATA = Path(__file__).parent / "data"
MAPPED = "q111-max-mappedram-sm-za"
SAVEVM = "q111-savevm-qcow2-sm-za"
UNDESCRIBED = "q111-max-novmdesc-sm-za"
ALL_MODES = "q111-max-sve256-sme512-sm-za-zt"
SMALL = "q72-a57-start"
KVM = "k612-q100-sve256"
LONG_Z_BYTES = 128
"""How much of Z a stream holds."""


class Pipe(io.BytesIO):
    """Bytes that cannot be seeked."""

    def seekable(self) -> bool:
        """They cannot."""
        return False


@cache
def _pack() -> dict[str, bytes]:
    with tarfile.open(DATA / "qemu.tar.xz", "r:xz") as members:
        return {member.name: cast(BinaryIO, members.extractfile(member)).read() for member in members}


@cache
def truth() -> dict[str, Any]:
    """What is true of every stream."""
    table: dict[str, Any] = json.loads(_pack()["truth.json"])
    return table


def names(*, mapped: bool = False) -> list[str]:
    """Every stream; with those that are too large to unpack for every test if asked for."""
    return sorted(name for name in truth() if mapped or name != MAPPED)


@cache
def sample(name: str) -> bytes:
    """A file as QEMU wrote it."""
    return lzma.decompress((DATA / f"{MAPPED}.xz").read_bytes()) if name == MAPPED else _pack()[name]


def read(data: bytes, kind: type[io.BytesIO] = io.BytesIO) -> Snapshot:
    """The snapshot in bytes, from a file that can be seeked or from a pipe."""
    return opening.read_stream(cast(BinaryIO, kind(data)), "blob")


def without_ram(stream: bytes) -> bytes:
    """A stream whose pages are left out, as that of a guest without memory: a tenth of the size."""
    footer = b"\x7e" + stream[stream.index(b"\x03ram") - 4 :][:4]
    start = stream.index(b"\x10" + footer) + 1 + len(footer)
    end = stream.rindex(b"\x10" + footer) + 1 + len(footer)
    return stream[:start] + b"\x03" + footer[1:] + bytes(7) + b"\x10" + footer + stream[end:]


def differences(vcpu: VcpuSnapshot, registers: dict[str, str], *, cut_z: bool = False) -> list[str]:
    """The registers that are not what they were; ``cut_z``: the stream lacks the upper bits of Z."""
    wrong = []
    for name, digits in registers.items():
        data, valid = vcpu.data(name), bytes.fromhex(digits)
        if cut_z and name[0] == "z" and name[1:].isdigit():
            valid = valid[:LONG_Z_BYTES]
        if data is None or data != valid.ljust(len(data), b"\0"):
            wrong.append(name)
    return wrong
