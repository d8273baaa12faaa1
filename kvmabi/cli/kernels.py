# SPDX-License-Identifier: MIT
"""``kvmabi kernels``: the built-in kernel profiles."""

from __future__ import annotations

from argparse import Namespace, _SubParsersAction
from typing import Any

from kvmabi.cli import common
from kvmabi.profiles import kernel_names, load_kernel


def register(commands: _SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = common.command(
        commands,
        "kernels",
        "List the built-in kernel profiles and the vCPU features that each knows.",
        "  kvmabi kernels",
    )
    common.add_json(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Print the kernels."""
    kernels = [load_kernel(name) for name in kernel_names()]
    if args.json:
        common.print_json(
            [
                {
                    "name": kernel.name,
                    "title": kernel.title,
                    "features": {name: feature.bit for name, feature in kernel.features.items()},
                }
                for kernel in kernels
            ]
        )
        return 0
    rows = ((kernel.name, kernel.title, " ".join(kernel.features)) for kernel in kernels)
    common.print_table(("kernel", "what", "vCPU features"), rows)
    return 0
