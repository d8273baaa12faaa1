# SPDX-License-Identifier: MIT
"""The VM's files: unpacked Debian packages, kvmabi's source, the command, and the first process."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import construct

from kvmabi.errors import UsageError
from kvmabi.interpose import libraries
from kvmabi.steps.vm.initramfs import DIRECTORY, Entry

PACKAGES = ("python3", "python3-cffi-backend")
PYTHON = "/usr/bin/python3"
ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = "source"
UNNEEDED = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/zoneinfo/", "usr/share/lintian/")
LIBRARIES = "lib", "usr/lib"
MODULES = "*.py", "*.toml", "*.json", "*.c", "*.h"
CONSOLE = Entry("dev/console", 0o020600, device=(5, 1))


def entries(packages: Iterable[Path], command: Sequence[str], programs: Sequence[Path] = ()) -> list[Entry]:
    """The archive's entries; a folder comes before what it holds. ``programs`` stand in the root folder.

    Raises UsageError for a package that is damaged, or a program that cannot be read.
    """
    found: dict[str, Entry] = {"dev": Entry("dev", DIRECTORY), CONSOLE.name: CONSOLE}
    for package in packages:
        for entry in unpacked(package):
            found.setdefault(entry.name, entry)
    if LIBRARIES[0] not in found:  # all packages of newer releases have their files below /usr
        found["lib"] = Entry(LIBRARIES[0], stat.S_IFLNK | 0o777, LIBRARIES[1].encode())
    for place, content in files(command):
        found[place] = Entry(place, stat.S_IFREG | 0o644, content)
    for program in programs:
        try:
            found[program.name] = Entry(program.name, stat.S_IFREG | 0o755, program.read_bytes())
        except OSError as error:
            raise UsageError(f"{program}: {error.strerror}") from None
    return sorted([*_folders(found), *found.values()], key=lambda entry: PurePosixPath(entry.name).parts)


def unpacked(package: Path) -> Iterator[Entry]:
    """The files, folders and links of a Debian package, hard links as copies."""
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise UsageError(f"{package}: not a Debian package")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            name = str(PurePosixPath("/", member.name).relative_to("/"))
            if name == "." or f"{name}/".startswith(UNNEEDED):
                continue
            if member.isdir():
                yield Entry(name, DIRECTORY)
            elif member.issym():
                yield Entry(name, stat.S_IFLNK | 0o777, member.linkname.encode())
            elif (file := archive.extractfile(member)) is not None:
                yield Entry(name, stat.S_IFREG | member.mode, file.read())


def files(command: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """What is not Debian's: kvmabi, the library that its snapshots need, the command and the first process."""
    for folder in (ROOT / "kvmabi", Path(construct.__file__).parent):
        for pattern in MODULES:
            for path in sorted(folder.rglob(pattern)):
                yield f"{SOURCE}/{folder.name}/{path.relative_to(folder)}", path.read_bytes()
    if libraries.ARM64.is_file():  # built where there is a cross compiler; kvmabi trace --real preloads it
        yield f"{SOURCE}/{libraries.PRELOAD.relative_to(ROOT)}", libraries.ARM64.read_bytes()
    yield "command.json", json.dumps(list(command)).encode()
    yield "init.py", (Path(__file__).parent / "init.py").read_bytes()


def _folders(found: dict[str, Entry]) -> list[Entry]:
    """The folders that no package names."""
    parents = {str(parent) for name in found for parent in PurePosixPath(name).parents}
    return [Entry(name, DIRECTORY) for name in sorted(parents - found.keys() - {"."})]
