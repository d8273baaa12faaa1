# SPDX-License-Identifier: MIT
"""``kvmabi capture``: record a real host as a profile."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from kvmabi.capture import capture as record
from kvmabi.capture import origin, write
from kvmabi.capture.host import Captured
from kvmabi.cli import backend_options, common, formats
from kvmabi.cli.command import Command
from kvmabi.steps.hostfeatures import HostFeatures

EXAMPLE = """\
  kvmabi capture -o my-server.json
  kvmabi run --host my-server.json -- ./my-vmm
  kvmabi capture --backend vm --kernel-image vmlinuz --cpu neoverse-n2 -o n2.json --format json

exit status: 0 recorded, 2 misuse, or recording failed"""


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    backend_options.add(parser, "--backend", ("device", "vm"), default="device")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the profile to write (.json)")
    parser.add_argument("--name", help="the name of the host (default: the file's name)")


def capture(args: Namespace) -> int:
    """Record a host and write it."""
    name = args.name or Path(args.output).stem
    progress = common.Progress("capture", 1)

    def tick(done: int, total: int) -> None:
        progress.total = total
        progress.update(done)

    with backend_options.open_from(args) as backend:
        try:
            table = record(backend, name, origin(backend), tick)
        finally:
            progress.close()
        host_features = backend.describe()
    write(args.output, table)
    if args.format == formats.JSON:
        formats.print_json(_summary(name, args.output, table, host_features))
        return 0
    print(host_features)
    counts = f"{len(table['registers'])} registers with {table['features']}, {len(table['resets'])} other sets"
    print(f"{args.output}: {counts}")
    return 0


def _summary(name: str, path: str, table: Captured, host_features: HostFeatures) -> dict[str, Any]:
    """Returns what was recorded, as data for JSON; the profile itself is in the file."""
    return {
        "name": name,
        "file": path,
        "kernel": host_features.kernel,
        "release": host_features.release,
        "features": sorted(host_features.features | host_features.traits),
        "sve_vector_bits": [vq * 128 for vq in host_features.sve_vqs],
        "sme_vector_bits": [vq * 128 for vq in host_features.sme_vqs],
        "registers": len(table["registers"]),
        "other_sets": len(table["resets"]),
    }


COMMAND = Command(
    "capture",
    "Record what a real /dev/kvm offers and every register of a vCPU after reset, for each set of features: a host "
    "profile for --host.",
    EXAMPLE,
    capture,
    options,
    formats=formats.DATA,
)
