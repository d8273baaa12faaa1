# SPDX-License-Identifier: MIT
"""Which program a command means, and whether a preloaded library reaches it. Format: elf(5)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from kvmabi.errors import UsageError

PT_INTERP = 3
IDENT_SIZE = 6
"""Bytes of an ELF file that tell its class, byte order and version."""
HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
"""Elf64_Ehdr: 4 the entry, 5 e_phoff, 9 e_phentsize, 10 e_phnum; 2 e_machine."""
SEGMENT = struct.Struct("=II6Q")
"""Elf64_Phdr: 0 is p_type."""
MAX_OFFSET = 1 << 63
SCRIPT_LINE = 256
"""Bytes of a script in which the kernel looks for its interpreter."""
SCRIPT_DEPTH = 5
NOT_FOUND = 127
NOT_EXECUTABLE = 126
REMEDY = "kvmabi run reaches dynamically linked programs of this machine's architecture"


class CannotRun(UsageError):
    """The program could not be started. ``code`` is the exit status for it, as env(1) gives: 126 or 127."""

    def __init__(self, name: str, error: OSError) -> None:
        self.code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        super().__init__(f"{name}: {error.strerror}")


def find(name: str, path: str = os.defpath) -> str:
    """The file that execvp(3) would run for ``name`` with this PATH. Errors: CannotRun."""
    if "/" in name:
        return name
    found = shutil.which(name, path=path)
    if found is None:
        raise CannotRun(name, OSError(_why_not_found(name, path), "not found in PATH, or not executable"))
    return found


def _why_not_found(name: str, path: str) -> int:
    """The errno of execvp(3): EACCES if there is something, or a folder that cannot be looked into."""
    for folder in path.split(os.pathsep):
        try:
            os.stat(os.path.join(folder, name))
        except PermissionError:
            return errno.EACCES
        except OSError:
            continue
        return errno.EACCES
    return errno.ENOENT


def check(file: str) -> None:
    """Refuse a program that would run past the interposer: static, of another architecture, or set-user-ID.

    What cannot be read or does not exist passes: exec knows better what to say. Errors: UsageError.
    """
    for _ in range(SCRIPT_DEPTH):
        try:
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode):
                return
            with open(file, "rb") as program:
                interpreter = _interpreter(program)
                if interpreter is None:
                    _check_elf(file, program)
                    _check_privileges(file, status)
        except OSError:
            return
        if interpreter is None:
            return
        file = interpreter


def _interpreter(program: BinaryIO) -> str | None:
    """The interpreter that a script names, None if this is no script."""
    start = program.read(SCRIPT_LINE)
    program.seek(0)
    words = start[2:].split(b"\n", 1)[0].split() if start.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else None


def _check_elf(file: str, program: BinaryIO) -> None:
    start = program.read(HEADER.size)
    if not start.startswith(b"\x7fELF"):
        return
    with open("/proc/self/exe", "rb") as own:
        mine = own.read(HEADER.size)
    if start[:IDENT_SIZE] != mine[:IDENT_SIZE] or len(start) < HEADER.size:
        raise UsageError(f"{file} is a program of another word size or byte order; {REMEDY}")
    header, machine = HEADER.unpack(start), HEADER.unpack(mine)[2]
    if header[2] != machine:
        raise UsageError(f"{file} is built for another machine (ELF machine {header[2]}, not {machine}); {REMEDY}")
    if not _is_dynamic(header, program) and not _is_loader(file):
        raise UsageError(f"{file} is linked statically and would not notice a preloaded library; {REMEDY}")


def _is_dynamic(header: Sequence[int], program: BinaryIO) -> bool:
    """Whether a program header asks for a dynamic loader."""
    offset, size, count = header[5], header[9], header[10]
    if size != SEGMENT.size or offset >= MAX_OFFSET:
        return True  # exec refuses it
    program.seek(offset)
    table = program.read(size * count)
    whole = table[: len(table) // size * size]
    return any(segment[0] == PT_INTERP for segment in SEGMENT.iter_unpack(whole))


def _is_loader(file: str) -> bool:
    """ld.so itself, which can be called with a program as its argument and does preload."""
    name = Path(file).name
    return name.startswith("ld") and ".so" in name


def _check_privileges(file: str, status: os.stat_result) -> None:
    """The loader ignores LD_PRELOAD where exec raises privileges."""
    other_user = status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()
    other_group = status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
    capable = os.geteuid() != 0 and "security.capability" in os.listxattr(file)
    if other_user or other_group or capable:
        raise UsageError(f"{file} runs with other privileges than yours, so that nothing can be preloaded into it")
