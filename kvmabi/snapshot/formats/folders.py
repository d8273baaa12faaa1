# SPDX-License-Identifier: MIT
"""Files of fixed names below a directory: regular ones only, reached without following a symbolic link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kvmabi.snapshot.source import BadBlob

MOST_NAMES = 1 << 16
"""How many entries of a directory are looked at."""


@contextlib.contextmanager
def _opened(root: Path, folders: tuple[str, ...]) -> Iterator[int]:
    """A descriptor of a directory below ``root``, which may be a link itself: the user names it."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(folder, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def names(root: Path, *folders: str) -> list[str]:
    """The sorted names in a directory below ``root``; none if it does not exist or is a link.

    Raises BadBlob for more than MOST_NAMES.
    """
    found: list[str] = []
    try:
        with _opened(root, folders) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                found.append(entry.name)
                if len(found) > MOST_NAMES:
                    raise BadBlob(f"{'/'.join(folders) or root} has more than {MOST_NAMES} entries", rule="too-large")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno == errno.ELOOP:
            return []
        raise
    return sorted(found)


def opened(root: Path, *path: str) -> BinaryIO:
    """A file below ``root``, open for reading. Raises BadBlob for what is not a regular file, links included."""
    *folders, name = path
    shown = "/".join(path)
    try:
        with _opened(root, tuple(folders)) as folder:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
    except OSError as error:
        reason = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise BadBlob(f"{shown} {reason}", rule="unreadable") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadBlob(f"{shown} is not a regular file", rule="unreadable")
    return os.fdopen(descriptor, "rb")
