# SPDX-License-Identifier: MIT
"""apt in a root of its own: packages of other suites and architectures, signatures checked, the system untouched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from fetch_kernel.sources import for_suite
from kvmabi.errors import UsageError

ARCHITECTURE = "arm64"
SECONDS = 600
TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
    "dpkg-deb": "dpkg",
}
CROSS_LIBC = Path("/usr/aarch64-linux-gnu/lib/libc.a"), "libc6-dev-arm64-cross"


def install_tools() -> list[str]:
    """Install QEMU and the cross compiler with the system's apt where they are missing; tells the packages."""
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if not CROSS_LIBC[0].exists():
        missing.append(CROSS_LIBC[1])
    if missing:
        root = [] if os.geteuid() == 0 else ["sudo"]
        environment = [*root, "env", "DEBIAN_FRONTEND=noninteractive"]
        run([*root, "apt-get", "--quiet", "update"])
        run([*environment, "apt-get", "--quiet", "--yes", "--no-install-recommends", "install", *missing])
    return missing


def run(command: list[str], folder: Path | None = None) -> str:
    """Run a command and return what it prints; UsageError with its last complaint if it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{command[0]}: {error}") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        what = [command[0], *(word for word in command[1:] if word in ("update", "download", "install", "show"))]
        raise UsageError(f"{' '.join(what)}: {complaints[-1] if complaints else f'status {done.returncode}'}")
    return done.stdout


class Suite:
    """A suite of Debian's for one architecture, arm64 unless another is named, with package lists below ``folder``."""

    def __init__(self, name: str, folder: Path, architecture: str = ARCHITECTURE) -> None:
        self.name = name
        self._architecture = architecture
        self._folder = (folder / (name if architecture == ARCHITECTURE else f"{name}-{architecture}")).resolve()
        for place in ("lists/partial", "cache/archives/partial", "sources", "packages"):
            (self._folder / place).mkdir(parents=True, exist_ok=True)
        (self._folder / "status").touch()
        (self._folder / "sources" / "suite.sources").write_text(for_suite(name, architecture), "utf-8")

    def update(self) -> None:
        """Fetch the suite's package lists."""
        run(["apt-get", *self._options(), "--quiet", "update"])

    def show(self, package: str) -> dict[str, str]:
        """What the suite says of its newest version of a package: field to value; empty if it has none."""
        try:
            text = run(["apt-cache", *self._options(), "--no-all-versions", "show", package])
        except UsageError:
            return {}
        lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
        return {name: value.strip() for name, _, value in lines if not name.startswith(" ")}

    def download(self, package: str) -> Path:
        """The package's file, fetched unless it is there."""
        place = self._folder / "packages"
        version = self.show(package).get("Version", "").replace(":", "%3a")
        names = f"{package}_{version}_*.deb"
        if not list(place.glob(names)):
            run(["apt-get", *self._options(), "--quiet", "download", package], place)
        found = sorted(place.glob(names))
        if not found:
            raise UsageError(f"{package}: apt-get downloaded no such package")
        return found[0]

    def closure(self, packages: Iterable[str]) -> list[Path]:
        """The files of packages and of all that they depend on, fetched unless they are there."""
        place = self._folder / "cache" / "archives"
        install = ["--quiet", "--yes", "--no-install-recommends", "--download-only", "install", *packages]
        run(["apt-get", *self._options(), *install])
        planned = run(["apt-get", *self._options(), "--simulate", *install])
        names = re.findall(r"^Inst (\S+) \((\S+)", planned, re.MULTILINE)
        found = [path for name, version in names for path in place.glob(f"{name}_{version.replace(':', '%3a')}_*.deb")]
        if len(found) < len(names) or not found:
            raise UsageError(f"{' '.join(packages)}: apt-get downloaded {len(found)} of {len(names)} packages")
        return found

    def _options(self) -> list[str]:
        """Options on top of the system's configuration, so that its proxies and keys stay in force."""
        settings = {
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": f"{self._folder}/sources",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": f"{self._folder}/lists",
            "Dir::State::Status": f"{self._folder}/status",
            "Dir::Cache": f"{self._folder}/cache",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Sandbox::User": "",
            # a mirror's copy of a moving suite may be days old; signatures are checked all the same
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
