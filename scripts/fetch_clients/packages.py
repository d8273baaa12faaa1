# SPDX-License-Identifier: MIT
"""Debian's packages unpacked into a folder: nothing is configured, and no package's script runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from fetch_kernel.apt import Suite, run

from kvmabi.errors import UsageError

MERGED = ("bin", "lib", "sbin")
"""Folders that are links to those of /usr, as installed systems have them."""
LISTS = "lists"


def suite(name: str, folder: Path, architecture: str = "arm64") -> Suite:
    """A suite whose package lists are fetched anew below ``folder``."""
    found = Suite(name, folder / LISTS, architecture)
    found.update()
    return found


def root(source: Suite, folder: Path, *packages: str) -> None:
    """Unpack packages, and all that they depend on, into a root below ``folder``."""
    unpack(source.closure(packages), folder / "root")


def unpack(archives: Iterable[Path], into: Path) -> None:
    """Unpack packages' files into a root."""
    for name in MERGED:
        (into / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (into / name).is_symlink():
            (into / name).symlink_to(f"usr/{name}")
    for archive in archives:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as files:
            tar = ["tar", "--extract", "--keep-directory-symlink", "--no-same-owner", "--directory", str(into)]
            done = subprocess.run(tar, stdin=files.stdout, capture_output=True, text=True)
        if done.returncode or files.returncode:
            raise UsageError(f"{archive.name}: it cannot be unpacked: {done.stderr.strip()[-200:]}")


def version(source: Suite, package: str) -> str:
    """The version of a package in a suite; UsageError if it has none."""
    found = source.show(package).get("Version", "")
    if not found:
        raise UsageError(f"{source.name} has no package {package}")
    return found


def is_newer(version: str, other: str) -> bool:
    """Whether a package's version is newer than another."""
    try:
        run(["dpkg", "--compare-versions", version, "gt", other])
    except UsageError:
        return False
    return True
