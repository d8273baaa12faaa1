# SPDX-License-Identifier: MIT
"""The kernel's own tests of KVM, built for arm64 from Debian's package of the kernel's source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fetch_kernel.apt import Suite, run

from fetch_clients import packages
from kvmabi.errors import UsageError

META_PACKAGE = "linux-source"
PACKAGE = re.compile(r"linux-source-[0-9][\w.]*")
NEEDED = ("Makefile", "Kbuild", "Kconfig", "tools/*", "scripts/*", "include/*", "usr/*", "arch/arm64/*")
"""What of the source the tests, and the headers that they include, are built from."""
CROSS = ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")
TESTS = "tools/testing/selftests/kvm"
SECONDS = 600
ELF = b"\x7fELF"


def fetch(folder: Path, into: Path, *suites: str) -> str:
    """The tests of the newest kernel source of these suites as ``into``/bin; returns the version of its package."""
    source, package, version = _newest([packages.suite(name, folder) for name in suites])
    archive = source.download(package)
    unpacked = into / "package"
    packages.unpack([archive], unpacked)
    archive.unlink()
    _extract(next(unpacked.glob("usr/src/linux-source-*.tar.*")), into / "source")
    shutil.rmtree(unpacked)
    _make(["--silent", *CROSS, "headers"], into / "source")
    # a program that does not compile is missing among the results, and there is a list of those
    jobs = f"--jobs={os.cpu_count() or 1}"
    output = f"OUTPUT={into.resolve() / 'bin'}"
    _make(["--silent", "--keep-going", jobs, *CROSS, "-C", TESTS, output], into / "source", keep_going=True)
    _keep_programs(into / "bin")
    shutil.rmtree(into / "source")
    return version


def _newest(suites: Sequence[Suite]) -> tuple[Suite, str, str]:
    """The suite with the newest kernel source, the package's name and its version."""
    best: tuple[Suite, str, str] | None = None
    for source in suites:
        found = PACKAGE.search(source.show(META_PACKAGE).get("Depends", ""))
        if found:
            version = packages.version(source, found[0])
            if best is None or packages.is_newer(version, best[2]):
                best = source, found[0], version
    if best is None:
        raise UsageError(f"no {META_PACKAGE} in {', '.join(source.name for source in suites)}")
    return best


def _extract(archive: Path, into: Path) -> None:
    """The needed part of a kernel's source."""
    into.mkdir()
    options = ["--strip-components=1", "--no-same-owner", "--wildcards", "--directory", str(into)]
    run(["tar", "--extract", "--file", str(archive), *options, *(f"linux-source-*/{name}" for name in NEEDED)])


def _make(arguments: list[str], folder: Path, *, keep_going: bool = False) -> None:
    done = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode and not keep_going:
        raise UsageError(f"make {arguments[-1]}: {done.stderr.strip()[-200:]}")


def _keep_programs(folder: Path) -> None:
    """Remove what is not a program from a folder of built files; UsageError if nothing is left."""
    programs = 0
    for path in folder.rglob("*"):
        if path.is_file():
            is_program = os.access(path, os.X_OK) and path.open("rb").read(len(ELF)) == ELF
            programs += is_program
            if not is_program:
                path.unlink()
    if not programs:
        raise UsageError("no test of the kernel's was built")
