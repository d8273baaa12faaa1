# SPDX-License-Identifier: MIT
"""Fetch real arm64 programs that use KVM, for tests/clients. What cannot be had is reported, and its tests skipped."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

from fetch_clients import kvm_ioctls, microsandbox, qemu, selftests
from fetch_clients.place import FOLDER, Place

AT_ONCE = 3
"""Downloads wait for the network, and builds for the processor."""
CLIENTS: dict[str, Callable[[Path, Path], str]] = {
    "kvm-ioctls": lambda folder, into: kvm_ioctls.fetch(folder, into, "trixie"),
    "selftests-newest": lambda folder, into: selftests.fetch(folder, into, "sid", "experimental"),
    "selftests-bookworm": lambda folder, into: selftests.fetch(folder, into, "bookworm"),
    "qemu-trixie": lambda folder, into: qemu.fetch(folder, into, "trixie"),
    "qemu-bookworm": lambda folder, into: qemu.fetch(folder, into, "bookworm"),
    "microsandbox": microsandbox.fetch,
}
"""Each client's name, and what puts it into an empty folder; those that take longest come first."""


def main() -> int:
    """Fetch clients; 1 if one of them cannot be had."""
    parser = ArgumentParser(prog="python -m fetch_clients", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"some of {', '.join(CLIENTS)} (default: all)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to keep them (default: %(default)s)")
    args = parser.parse_args()
    names = args.clients or list(CLIENTS)
    if unknown := [name for name in names if name not in CLIENTS]:
        parser.error(f"{unknown[0]} is not a client: take some of {', '.join(CLIENTS)}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return int(not all(list(pool.map(lambda name: _fetch(name, args.folder), names))))


def _fetch(name: str, folder: Path) -> bool:
    start = monotonic()
    place = Place(name, folder.absolute())
    why = place.fill(lambda into: CLIENTS[name](place.folder / f"{name}.apt", into))
    what = f"not to be had: {why}" if why else f"{place.version()} in {monotonic() - start:.0f} s"
    print(f"clients: {name}: {what}", file=sys.stderr, flush=True)
    return not why


if __name__ == "__main__":
    sys.exit(main())
