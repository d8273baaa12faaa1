# SPDX-License-Identifier: MIT
"""An initramfs with one program in it: a cpio archive of the newc kind, as the kernel unpacks it.

https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
"""

from __future__ import annotations

from typing import NamedTuple

MAGIC = "070701"
ALIGNMENT_BYTES = 4
TRAILER = "TRAILER!!!"
DIRECTORY, DEVICE, FILE = 0o040755, 0o020600, 0o100755


class Entry(NamedTuple):
    """A file of the archive; ``device`` is major and minor number of a device node."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def initramfs(program: bytes) -> bytes:
    """The archive whose init is ``program``; the console exists before any file system is mounted."""
    return archive(
        [
            Entry("dev", DIRECTORY),
            Entry("dev/console", DEVICE, device=(5, 1)),
            Entry("proc", DIRECTORY),
            Entry("init", FILE, program),
        ]
    )


def archive(entries: list[Entry]) -> bytes:
    """The entries as a cpio archive."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry(TRAILER, 0)], 1):
        name = entry.name.encode() + b"\0"
        links = 2 if entry.mode == DIRECTORY else 1
        # inode, mode, uid, gid, links, mtime, size, device of the file system, device node, name's size, checksum
        numbers = [number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0]
        out += MAGIC.encode() + b"".join(b"%08X" % value for value in numbers) + name
        _pad(out)
        out += entry.data
        _pad(out)
    return bytes(out)


def _pad(out: bytearray) -> None:
    out += bytes(-len(out) % ALIGNMENT_BYTES)
