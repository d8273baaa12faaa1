# SPDX-License-Identifier: MIT
"""arm64 programs on another machine: qemu-user, and where their dynamic loader and libraries are.

qemu-user's own option for a folder of libraries (-L) also redirects the paths that the program opens. So where the
system has no arm64 loader at the usual place, qemu-user runs the loader, which is called with the program. exec.c does
the same for the programs that a program starts.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kvmabi.environment import LIBRARIES_VARIABLE, LOADER_VARIABLE, QEMU_VARIABLE
from kvmabi.errors import UsageError
from kvmabi.interpose.program import ARM64_LOADER, Way

NAMES = ("qemu-aarch64", "qemu-aarch64-static")
PACKAGES = "qemu-user"
USUAL_LOADER = Path("/lib", ARM64_LOADER)
CROSS_LIBRARIES = Path("/usr/aarch64-linux-gnu")
"""Where the cross compiler's C library is."""
LIBRARY_FOLDERS = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib")
"""Where a system has its libraries, and one of them its loader."""


class QemuUser(NamedTuple):
    """How arm64 programs run: qemu-user's path; ``loader`` and its ``libraries``, "" if the program's own works."""

    qemu: str
    loader: str = ""
    libraries: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """What exec.c reads."""
        known = {QEMU_VARIABLE: self.qemu, LOADER_VARIABLE: self.loader, LIBRARIES_VARIABLE: self.libraries}
        return {name: value for name, value in known.items() if value}

    def command(self, file: str, way: Way, argv: Sequence[str], variables: Mapping[str, str]) -> list[str]:
        """The words that run an arm64 program, or a script with an arm64 interpreter."""
        name = way.file if way.script else argv[0]
        program = [*way.script, *argv[1:]] if way.script else [file, *argv[1:]]
        if not self.loader:
            return [self.qemu, "-0", name, *program]
        before = variables.get("LD_LIBRARY_PATH")  # the option takes its place
        libraries = f"{before}:{self.libraries}" if before else self.libraries
        as_name = ["--argv0", name] if name != program[0] else []  # loaders before glibc 2.33 do not have it
        return [self.qemu, self.loader, "--library-path", libraries, *as_name, *program]


def find(sysroot: Path | None) -> QemuUser:
    """What runs arm64 programs with the libraries below ``sysroot``, by default the system's. Errors: UsageError."""
    qemu = next(filter(None, map(shutil.which, NAMES)), None)
    if qemu is None:
        raise UsageError(f"arm64 programs run through {NAMES[0]}, which is not installed: install {PACKAGES}")
    if sysroot is None and USUAL_LOADER.exists():
        return QemuUser(qemu)
    root = CROSS_LIBRARIES if sysroot is None else sysroot.absolute()
    folders = [folder for name in LIBRARY_FOLDERS if (folder := root / name).is_dir()]
    loader = next((place for folder in folders if (place := folder / ARM64_LOADER).exists()), None)
    if loader is not None:
        return QemuUser(qemu, str(loader), ":".join(map(str, folders)))
    if sysroot is None:
        raise UsageError(
            "there is no arm64 C library: install libc6-arm64-cross (or libc6:arm64), or name a folder with --sysroot"
        )
    raise UsageError(f"--sysroot {sysroot}: there is no {ARM64_LOADER} in its folders of libraries")
