# SPDX-License-Identifier: MIT
"""``kvmabi blob convert``: a snapshot in another format."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kvmabi import wholefile
from kvmabi.cli import blob_options, formats
from kvmabi.cli.command import Command
from kvmabi.errors import UsageError
from kvmabi.snapshot import restoring
from kvmabi.snapshot.formats import json_, own, text
from kvmabi.snapshot.snapshot import Snapshot

EXAMPLE = """\
  kvmabi blob convert guest.qemu --to blob --out guest.blob
  kvmabi blob convert guest.blob --to text | grep svcr

exit status: 0 converted, 2 misuse or not readable"""


def _with_lengths(snapshot: Snapshot) -> Snapshot:
    """The snapshot with its vector lengths as registers, for a format that holds nothing else."""
    vcpus = [replace(vcpu, registers=restoring.written(snapshot, vcpu)) for vcpu in snapshot.vcpus]
    return replace(snapshot, vcpus=vcpus)


WRITERS: dict[str, Callable[[Snapshot], bytes]] = {
    "blob": own.write,
    "json": lambda snapshot: json_.write(snapshot).encode(),
    "text": lambda snapshot: text.write(_with_lengths(snapshot)).encode(),
}


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    blob_options.add_file(parser)
    parser.add_argument("--to", choices=WRITERS, default="blob", help="the format (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE", help="where to write (default: standard output)")
    blob_options.add_facts(parser)
    blob_options.add_force(parser)


def run(args: Namespace) -> int:
    """Write the snapshot in the other format."""
    if args.format == formats.JSON and not args.out:
        raise UsageError("--format json reports what was written with --out; --to json writes the snapshot as JSON")
    snapshot = blob_options.read_whole(args.file, args)
    content = WRITERS[args.to](snapshot)
    if not args.out:
        _print(content, args.to)
        return 0
    if os.path.exists(args.out) and os.path.samefile(args.file, args.out):
        raise UsageError(f"{args.out}: is the file that is read: name another one with --out")
    wholefile.replace(Path(args.out), content)
    report = {
        "file": args.out,
        "format": args.to,
        "vcpus": len(snapshot.vcpus),
        "registers": sum(len(vcpu.registers) for vcpu in snapshot.vcpus),
        "size_bytes": len(content),
    }
    if args.format == formats.JSON:
        formats.print_json(report)
    else:
        print("{file}: {format}, {vcpus} vCPUs, {registers} registers, {size_bytes} bytes".format(**report))
    return 0


def _print(content: bytes, form: str) -> None:
    if form == "blob" and sys.stdout.isatty():
        raise UsageError("blob convert: a blob is not text: name a file with --out")
    if form != "blob":
        print(content.decode(), end="")
        return
    sys.stdout.flush()
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        out.write(content)


COMMAND = Command(
    "convert",
    "Write a snapshot in kvmabi's own format, as JSON or as text. What the file cannot hold stays unknown, "
    "unless the options say it.",
    EXAMPLE,
    run,
    options,
    summary="write a snapshot in another format",
    formats=formats.DATA,
)
