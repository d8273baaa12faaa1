# SPDX-License-Identifier: MIT
"""``kvmabi reg``: register ids to names and fields, and names to ids."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from kvmabi import regid
from kvmabi.cli import formats
from kvmabi.cli.command import Command

EXAMPLE = """\
  kvmabi reg za.h[3] svcr
  kvmabi reg 0x6080000000170060
  kvmabi reg svcr --format json

exit status: 0 decoded, 2 misuse"""
FIELDS = ("n", "slice", "op0", "op1", "crn", "crm", "op2")


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("registers", nargs="+", metavar="ID|NAME", help="an id (hex or decimal) or a name")


def run(args: Namespace) -> int:
    """Print the name and the fields of each register."""
    registers = [_describe(regid.parse(text)) for text in args.registers]
    if args.format == formats.JSON:
        formats.print_json(registers)
        return 0
    for one in registers:
        extra = "  ".join(f"{key} {value}" for key, value in one.items() if key not in ("id", "name") and value != "")
        print(f"{one['id']}  {one['name']}  {extra}")
    return 0


def _describe(id: int) -> dict[str, Any]:
    decoded = regid.decode(id)
    fields = {key: getattr(decoded, key) for key in FIELDS if getattr(decoded, key) is not None}
    return {
        "id": f"{id:#018x}",
        "name": decoded.name,
        "family": decoded.family,
        "arch": decoded.arch_name,
        "size_bytes": decoded.size_bytes,
        "coproc": f"{decoded.coproc:#x}",
        "index": f"{decoded.index:#x}",
        **fields,
    }


COMMAND = Command(
    "reg",
    "Decode register ids and encode register names.",
    EXAMPLE,
    run,
    options,
    formats=formats.DATA,
)
