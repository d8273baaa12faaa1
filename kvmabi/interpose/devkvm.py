# SPDX-License-Identifier: MIT
"""The path /dev/kvm and its stat() results, for programs without the preloaded library; devkvm.h is the same for C."""

from __future__ import annotations

import errno
import os
import stat
import struct

PATH = "/dev/kvm"
MODE = stat.S_IFCHR | 0o666
INODE = 232
MAJOR, MINOR = 10, 232
BLOCK_BYTES = 4096
STATX_BASIC_STATS = 0x7FF
STATX_BYTES = 256
TIMES = 6
STATX = struct.Struct("=IIQIIIHHQQQQ64xII")
"""struct statx up to stx_rdev_minor."""


def is_path(folder: str, path: str) -> bool:
    """Whether ``path``, relative to ``folder``, is /dev/kvm; symbolic links are not followed."""
    return "/" + os.path.normpath(os.path.join(folder, path)).lstrip("/") == PATH


def opening_error(flags: int) -> int:
    """The errno of open() with these flags, 0 if it succeeds."""
    if flags & os.O_DIRECTORY:
        return errno.ENOTDIR
    return errno.EEXIST if flags & os.O_CREAT and flags & os.O_EXCL else 0


def access_error(mode: int) -> int:
    """The errno of access() with this mode, 0 if it succeeds."""
    if mode & ~(os.R_OK | os.W_OK | os.X_OK):
        return errno.EINVAL
    return errno.EACCES if mode & os.X_OK else 0


def stat_bytes() -> bytes:
    """The kernel's struct stat of this machine."""
    device = os.makedev(MAJOR, MINOR)
    if os.uname().machine == "x86_64":  # nlink is before mode
        start = struct.pack("=QQQIIIIQqqq", 0, INODE, 1, MODE, 0, 0, 0, device, 0, BLOCK_BYTES, 0)
        return start + bytes(8 * (TIMES + 3))
    start = struct.pack("=QQIIIIQQqiiq", 0, INODE, MODE, 1, 0, 0, device, 0, 0, BLOCK_BYTES, 0, 0)
    return start + bytes(8 * (TIMES + 1))


def statx_bytes() -> bytes:
    """struct statx."""
    found = STATX.pack(STATX_BASIC_STATS, BLOCK_BYTES, 0, 1, 0, 0, MODE, 0, INODE, 0, 0, 0, MAJOR, MINOR)
    return found + bytes(STATX_BYTES - len(found))
