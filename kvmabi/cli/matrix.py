# SPDX-License-Identifier: MIT
"""``kvmabi matrix``: which guest every host of a fleet can take, and what blocks migrations between them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from kvmabi.cli import common, formats
from kvmabi.cli.blob_options import vector_bits
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.snapshot.matrix.matrix import matrix

EXAMPLE = """\
  kvmabi matrix neoverse-n2 neoverse-v1
  kvmabi matrix sme-demo sme-sve256-sme512only --format json
  kvmabi matrix a64fx neoverse-v1 --guest-sve 128,256 --format svg

exit status: 0 compared; 1 a host cannot give the lengths of --guest-sve or
--guest-sme, or, with --fail-on blockers, a migration between two hosts is
refused; 2 misuse"""
SVG = "svg"
GUEST, BLOCKERS = "guest", "blockers"


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "hosts", nargs="+", metavar="HOST", help="a built-in host, a file of one, or a snapshot that was taken on one"
    )
    parser.add_argument("--guest-sve", metavar="BITS,…", help="a guest's SVE vector lengths: who cannot give them?")
    parser.add_argument("--guest-sme", metavar="BITS,…", help="the same for SME")
    parser.add_argument("--kernel", metavar="K", help="the kernel of all hosts (default: each one's own)")
    parser.add_argument("--features", metavar="F,…", help="the guest's vCPU features (default: all that are common)")
    parser.add_argument(
        "--fail-on",
        choices=(GUEST, BLOCKERS),
        default=GUEST,
        help="what decides the exit status: the lengths that were asked for (guest), or also what is refused between "
        "two hosts (blockers) (default: %(default)s)",
    )


def run(args: Namespace) -> int:
    """Print the matrix."""
    found = matrix(
        args.hosts,
        guest_sve=vector_bits("--guest-sve", args.guest_sve),
        guest_sme=vector_bits("--guest-sme", args.guest_sme),
        kernel=args.kernel,
        features=None if args.features is None else common.words(args.features),
    )
    if args.format == formats.JSON:
        formats.print_json(found.as_dict())
    else:
        sys.stdout.write(found.svg() if args.format == SVG else found.text())
    fails = found.refused_guest or (args.fail_on == BLOCKERS and not found.migratable)
    return ExitStatus.DIFFERENT if fails else ExitStatus.SUCCESS


COMMAND = Command(
    "matrix",
    "Compare the hosts of a fleet: their sets of vector lengths and the widest that every one can give a guest, the "
    "widest common value of each ID register (the CPU template), and what is still refused between two of them.",
    EXAMPLE,
    run,
    options,
    formats=(*formats.DATA, SVG),
)
