# SPDX-License-Identifier: MIT
"""``kvmabi hosts``: the built-in hosts."""

from __future__ import annotations

from argparse import Namespace, _SubParsersAction
from typing import Any

from kvmabi.cli import common
from kvmabi.profiles import host_names, load_host


def register(commands: _SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = common.command(
        commands,
        "hosts",
        "List the built-in hosts: vector lengths in bits, kernel, and what was recorded.",
        "  kvmabi hosts",
    )
    common.add_json(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Print the hosts."""
    hosts = [load_host(name) for name in host_names()]
    if args.json:
        common.print_json(
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
        (host.name, host.kernel, _lengths(host.sve_vector_bits), _lengths(host.sme_vector_bits), host.recorded)
        for host in hosts
    )
    common.print_table(("host", "kernel", "SVE bits", "SME bits", "data"), rows)
    return 0


def _lengths(bits: tuple[int, ...]) -> str:
    return "/".join(map(str, bits)) if len(bits) < 6 else f"{bits[0]}-{bits[-1]} ({len(bits)})" if bits else "-"
