# SPDX-License-Identifier: MIT
"""``kvmabi hosts``: the built-in hosts."""

from __future__ import annotations

from argparse import Namespace

from kvmabi.cli import common, formats
from kvmabi.cli.command import Command
from kvmabi.profiles import host_names, load_host, load_kernel

EXAMPLE = """\
  kvmabi hosts
  kvmabi hosts --format json

exit status: 0 listed, 2 misuse"""


def run(args: Namespace) -> int:
    """Print the hosts."""
    hosts = [load_host(name) for name in host_names()]
    if args.format == formats.JSON:
        formats.print_json(
            [
                {
                    "name": host.name,
                    "kernel": host.kernel,
                    "sve_vector_bits": host.sve_vector_bits,
                    "sme_vector_bits": host.sme_vector_bits,
                    "recorded": host.recorded,
                }
                for host in hosts
            ]
        )
        return 0
    rows = (
        (
            host.name,
            load_kernel(host.kernel).label,
            _lengths(host.sve_vector_bits),
            _lengths(host.sme_vector_bits),
            host.recorded,
        )
        for host in hosts
    )
    common.print_table(("host", "kernel", "SVE bits", "SME bits", "data"), rows)
    return 0


def _lengths(bits: tuple[int, ...]) -> str:
    return "/".join(map(str, bits)) if len(bits) < 6 else f"{bits[0]}-{bits[-1]} ({len(bits)})" if bits else "-"


COMMAND = Command(
    "hosts",
    "List the built-in hosts: vector lengths in bits, kernel, and the origin of the data.",
    EXAMPLE,
    run,
    formats=formats.DATA,
)
