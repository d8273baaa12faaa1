# SPDX-License-Identifier: MIT
"""Finds the program that a command names, and how it can be run with an emulated /dev/kvm. Format: elf(5)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from collections.abc import Sequence
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kvmabi.errors import UsageError

PT_INTERP = 3
IDENT_SIZE = 6
"""Bytes at the start of an ELF file: magic number, class and byte order."""
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
REACHED = "kvmabi run reaches dynamically linked programs of this machine's architecture"


class Kind(Enum):
    """The kind of program a file is, by how its system calls can be reached."""

    PRELOADABLE = auto()
    """The dynamic loader brings a preloaded library into it."""
    STATIC = auto()
    """It has no dynamic loader."""
    OTHER_MACHINE = auto()
    """It is built for another machine."""
    OTHER_FORMAT = auto()
    """It has another word size or byte order."""
    PRIVILEGED = auto()
    """exec raises its privileges, so that the loader ignores LD_PRELOAD."""


class Way(NamedTuple):
    """How a program can be run: its ``kind``, and the ``file`` that exec loads, which for a script is its interpreter.

    ``machine`` is the file's ELF machine, None if it was not read. ``obstacle`` states in one line why a library
    cannot be preloaded, and is empty if it can.
    """

    kind: Kind
    file: str
    machine: int | None = None
    obstacle: str = ""


class CannotRun(UsageError):
    """The program could not be started. ``code`` is the exit status for it, as env(1) gives: 126 or 127."""

    def __init__(self, name: str, error: OSError) -> None:
        self.code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        super().__init__(f"{name}: {error.strerror}")


def find(name: str, path: str = os.defpath) -> str:
    """The file that execvp(3) would run for ``name`` with this PATH. Errors: CannotRun."""
    if "/" in name:
        return name
    program = shutil.which(name, path=path)
    if program is None:
        raise CannotRun(name, OSError(_why_not_found(name, path), "not found in PATH, or not executable"))
    return program


def _why_not_found(name: str, path: str) -> int:
    """The errno of execvp(3): EACCES if the file exists or a folder cannot be searched, else ENOENT."""
    for folder in path.split(os.pathsep):
        try:
            os.stat(os.path.join(folder, name))
        except PermissionError:
            return errno.EACCES
        except OSError:
            continue
        return errno.EACCES
    return errno.ENOENT


def check(file: str) -> Way:
    """How a program can be run, without running it.

    A file that cannot be read, does not exist or is not a program counts as preloadable: exec reports the error.
    """
    for _ in range(SCRIPT_DEPTH):
        try:
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode):
                break
            with open(file, "rb") as program:
                interpreter = _interpreter(program)
                if interpreter is None:
                    return _way_of_elf(file, program, status)
        except OSError:
            break
        file = interpreter
    return Way(Kind.PRELOADABLE, file)


def _interpreter(program: BinaryIO) -> str | None:
    """The interpreter that a script names, None if the file is not a script."""
    start = program.read(SCRIPT_LINE)
    program.seek(0)
    words = start[2:].split(b"\n", 1)[0].split() if start.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else None


def _way_of_elf(file: str, program: BinaryIO, status: os.stat_result) -> Way:
    machine = None
    start = program.read(HEADER.size)
    if start.startswith(b"\x7fELF"):
        with open("/proc/self/exe", "rb") as own:
            mine = own.read(HEADER.size)
        if start[:IDENT_SIZE] != mine[:IDENT_SIZE] or len(start) < HEADER.size:
            obstacle = f"{file} is a program of another word size or byte order; {REACHED}"
            return Way(Kind.OTHER_FORMAT, file, None, obstacle)
        header, own_machine = HEADER.unpack(start), HEADER.unpack(mine)[2]
        machine = header[2]
        if machine != own_machine:
            obstacle = f"{file} is built for another machine (ELF machine {machine}, not {own_machine}); {REACHED}"
            return Way(Kind.OTHER_MACHINE, file, machine, obstacle)
        if not _is_dynamic(header, program) and not _is_loader(file):
            obstacle = f"{file} is linked statically and would not notice a preloaded library; {REACHED}"
            return Way(Kind.STATIC, file, machine, obstacle)
    if _raises_privileges(file, status):
        obstacle = f"{file} runs with other privileges than yours, so nothing can be preloaded into it"
        return Way(Kind.PRIVILEGED, file, machine, obstacle)
    return Way(Kind.PRELOADABLE, file, machine)


def _is_dynamic(header: Sequence[int], program: BinaryIO) -> bool:
    """Whether a program header asks for a dynamic loader."""
    offset, size, count = header[5], header[9], header[10]
    if size != SEGMENT.size or offset >= MAX_OFFSET:
        return True  # exec fails with ENOEXEC
    program.seek(offset)
    table = program.read(size * count)
    whole = table[: len(table) // size * size]
    return any(segment[0] == PT_INTERP for segment in SEGMENT.iter_unpack(whole))


def _is_loader(file: str) -> bool:
    """ld.so itself, which can be called with a program as its argument and does preload."""
    name = Path(file).name
    return name.startswith("ld") and ".so" in name


def _raises_privileges(file: str, status: os.stat_result) -> bool:
    other_user = status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()
    other_group = status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
    capable = os.geteuid() != 0 and "security.capability" in os.listxattr(file)
    return bool(other_user or other_group or capable)
