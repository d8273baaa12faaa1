# SPDX-License-Identifier: MIT
"""microsandbox's arm64 wheel: a VMM with libkrun inside, and the kernel that it boots."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

from fetch_kernel.apt import run

from kvmabi.errors import UsageError

REQUIREMENT = "microsandbox>0.3"
PLATFORM = "manylinux_2_28_aarch64"
WHEEL = re.compile(r"microsandbox-([^-]+)-")


def fetch(_folder: Path, into: Path) -> str:
    """The newest arm64 wheel's files below ``into``/root; returns its version."""
    options = ["--no-deps", "--platform", PLATFORM, "--only-binary=:all:", "--dest", str(into)]
    run([sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", *options, REQUIREMENT])
    wheel = next(into.glob("*.whl"))
    found = WHEEL.match(wheel.name)
    if not found:
        raise UsageError(f"{wheel.name} is not a wheel of microsandbox")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(into / "root")
    wheel.unlink()
    for program in (into / "root").glob("microsandbox/_bundled/bin/*"):
        program.chmod(0o755)
    return found[1]
