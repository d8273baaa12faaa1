# SPDX-License-Identifier: MIT
"""A suite's newest arm64 kernel, out of its package."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path
from typing import IO, NamedTuple

from fetch_kernel.apt import Suite
from kvmabi.errors import UsageError

META_PACKAGE = "linux-image-arm64"
IMAGE_PACKAGE = re.compile(r"linux-image-([0-9]\S*)")


class Image(NamedTuple):
    """A kernel image and the package version that it came in."""

    path: Path
    version: str


def newest(suite: Suite, folder: Path) -> Image:
    """Download and unpack the suite's newest kernel below ``folder``; UsageError if it has none."""
    meta = suite.show(META_PACKAGE)
    found = IMAGE_PACKAGE.search(meta.get("Depends", ""))
    if not found:
        raise UsageError(f"{suite.name}: the suite has no {META_PACKAGE}")
    binary = f"linux-binary-{found[1]}"  # from 7.0 on the image is in a package of its own
    package = binary if suite.show(binary) else found[0]
    image = folder / f"vmlinuz-{found[1]}"
    if not image.exists():
        _extract(suite.download(package), image)
    return Image(image, meta.get("Version", found[1]))


def _extract(package: Path, image: Path) -> None:
    """The file vmlinuz of a package, whole or not at all."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking:
        try:
            data = _vmlinuz(unpacking.stdout)
        finally:
            unpacking.kill()
    partial = image.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(image)


def _vmlinuz(stream: IO[bytes] | None) -> bytes:
    with tarfile.open(fileobj=stream, mode="r|") as files:
        for member in files:
            if member.isfile() and Path(member.name).name.startswith("vmlinuz"):
                file = files.extractfile(member)
                if file is not None:
                    return file.read()
    raise UsageError("the kernel's package holds no vmlinuz")
