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
EM_AARCH64 = 183
ARM64_LOADER = "ld-linux-aarch64.so.1"
"""The dynamic loader of glibc, which is what the interposer is linked with."""
IDENT_SIZE = 6
"""Bytes at the start of an ELF file: magic number, class and byte order."""
HEADER = struct.Struct("=16sHHIQQQIHHHHHH")
"""Elf64_Ehdr: 4 the entry, 5 e_phoff, 9 e_phentsize, 10 e_phnum; 2 e_machine."""
SEGMENT = struct.Struct("=II6Q")
"""Elf64_Phdr: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align."""
MUSL_LOADER = "ld-musl"
MAX_OFFSET = 1 << 63
SCRIPT_LINE = 256
"""Bytes of a script in which the kernel looks for its interpreter."""
SCRIPT_DEPTH = 5
MOST_PATH = 4096
NOT_FOUND = 127
NOT_EXECUTABLE = 126
REACHED = "kvmabi run reaches programs of this machine's architecture, and dynamically linked arm64 programs"
WAYS_OUT = "link it dynamically with glibc, build it for this machine, or run kvmabi on an arm64 machine"


class Kind(Enum):
    """The kind of program a file is, by how its system calls can be reached."""

    PRELOADABLE = auto()
    """The dynamic loader brings a preloaded library into it."""
    EMULATED = auto()
    """It is an arm64 program on another machine; its loader brings a preloaded library into it under qemu-user."""
    STATIC = auto()
    """It has no dynamic loader, or musl's, which cannot load a library that is linked with glibc."""
    OTHER_MACHINE = auto()
    """It is built for another machine and cannot be reached under qemu-user."""
    OTHER_FORMAT = auto()
    """It has another word size or byte order."""
    PRIVILEGED = auto()
    """exec raises its privileges, so that the loader ignores LD_PRELOAD."""


class Way(NamedTuple):
    """How a program can be run: its ``kind``, and the ``file`` that exec loads, which for a script is its interpreter.

    ``machine`` is the file's ELF machine, None if it was not read. ``obstacle`` states in one line why a library
    cannot be preloaded, and is empty if it can. ``script`` are the words that exec puts in the place of a script's
    name: its interpreter, the option in its first line, its path.
    """

    kind: Kind
    file: str
    machine: int | None = None
    obstacle: str = ""
    script: tuple[str, ...] = ()


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
    script: tuple[str, ...] = ()
    for _ in range(SCRIPT_DEPTH):
        try:
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode):
                break
            with open(file, "rb") as program:
                interpreter = _interpreter(program)
                if not interpreter:
                    return _way_of_elf(file, program, status)._replace(script=script)
        except OSError:
            break
        script = (*interpreter, file, *script[1:])
        file = interpreter[0]
    return Way(Kind.PRELOADABLE, file, script=script)


def _interpreter(program: BinaryIO) -> tuple[str, ...]:
    """The interpreter that a script names, and its option if it has one; empty if the file is not a script."""
    start = program.read(SCRIPT_LINE)
    program.seek(0)
    words = start[2:].split(b"\n", 1)[0].split(None, 1) if start.startswith(b"#!") else []
    return tuple(os.fsdecode(word.rstrip()) for word in words)


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
        loader = _loader(header, program)
        if machine == EM_AARCH64 != own_machine:
            return _way_of_arm64(file, loader)
        if machine != own_machine:
            obstacle = f"{file} is built for another machine (ELF machine {machine}, not {own_machine}); {REACHED}"
            return Way(Kind.OTHER_MACHINE, file, machine, obstacle)
        if not _is_loader(file) and (not loader or Path(loader).name.startswith(MUSL_LOADER)):
            how = f"with {loader}" if loader else "statically"
            obstacle = (
                f"{file} is linked {how} and would not notice a preloaded library; --transport seccomp reaches it"
            )
            return Way(Kind.STATIC, file, machine, obstacle)
    if _raises_privileges(file, status):
        obstacle = f"{file} runs with other privileges than yours, so nothing can be preloaded into it"
        return Way(Kind.PRIVILEGED, file, machine, obstacle)
    return Way(Kind.PRELOADABLE, file, machine)


def _way_of_arm64(file: str, loader: str) -> Way:
    """How an arm64 program can be run on another machine."""
    if Path(loader).name == ARM64_LOADER or _is_loader(file):
        return Way(Kind.EMULATED, file, EM_AARCH64)
    how = f"linked with {loader}" if loader else "linked statically"
    obstacle = f"{file} is an arm64 program and {how}: qemu-user makes its system calls, out of reach; {WAYS_OUT}"
    return Way(Kind.OTHER_MACHINE, file, EM_AARCH64, obstacle)


def _loader(header: Sequence[int], program: BinaryIO) -> str:
    """The dynamic loader that a program header asks for, empty if none does."""
    offset, size, count = header[5], header[9], header[10]
    if size != SEGMENT.size or offset >= MAX_OFFSET:
        return "?"  # exec fails with ENOEXEC
    program.seek(offset)
    table = program.read(size * count)
    whole = table[: len(table) // size * size]
    for kind, _flags, place, _address, _physical, length, *_rest in SEGMENT.iter_unpack(whole):
        if kind == PT_INTERP and place < MAX_OFFSET:
            program.seek(place)
            return os.fsdecode(program.read(min(length, MOST_PATH)).split(b"\0")[0]) or "?"
    return ""


def _is_loader(file: str) -> bool:
    """ld.so itself, which can be called with a program as its argument and does preload."""
    name = Path(file).name
    return name.startswith("ld") and ".so" in name


def _raises_privileges(file: str, status: os.stat_result) -> bool:
    other_user = status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()
    other_group = status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
    capable = os.geteuid() != 0 and "security.capability" in os.listxattr(file)
    return bool(other_user or other_group or capable)
