# SPDX-License-Identifier: MIT
"""Fetch arm64 kernels, and what it takes to boot them, and print where the images are."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from time import monotonic

from fetch_kernel import apt, kernel
from kvmabi.errors import UsageError

FOLDER = Path("build/oracle")
SUITES = ("sid",)


def main() -> int:
    """Print the path of each suite's newest kernel image; 2 if something cannot be had."""
    parser = ArgumentParser(prog="python -m fetch_kernel", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="Debian suites (default: sid)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to keep it (default: %(default)s)")
    args = parser.parse_args()
    try:
        installed = apt.install_tools()
        if installed:
            tell(f"installed {' '.join(installed)}")
        for name in args.suites or SUITES:
            print(_fetched(name, args.folder), flush=True)
    except UsageError as error:
        tell(str(error))
        return 2
    return 0


def _fetched(name: str, folder: Path) -> Path:
    start = monotonic()
    suite = apt.Suite(name, folder)
    suite.update()
    image = kernel.newest(suite, folder)
    tell(f"{name}: Linux {image.version} in {monotonic() - start:.0f} s")
    return image.path


def tell(what: str) -> None:
    """Tell on stderr: stdout has the images."""
    print(f"oracle: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
