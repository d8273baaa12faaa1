# SPDX-License-Identifier: MIT
"""``kvmabi kernels``: the built-in kernel profiles, and what changed from one to another."""

from __future__ import annotations

import textwrap
from argparse import Namespace, _SubParsersAction
from typing import Any

from kvmabi.cli import common
from kvmabi.errors import UsageError
from kvmabi.profiles import kernel_names, load_kernel
from kvmabi.profiles.compare import diff

EXAMPLE = """\
  kvmabi kernels
  kvmabi kernels diff sme-v10 sme-v12"""
WIDTH = 100


def register(commands: _SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = common.command(
        commands,
        "kernels",
        "List the built-in kernel profiles and the vCPU features that each knows, or tell what changed for userspace "
        "from one kernel to another.",
        EXAMPLE,
    )
    parser.add_argument("diff", nargs="*", metavar="diff A B", help="compare two kernels: built-in ones or files")
    common.add_json(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Print the kernels, or what differs between two."""
    if not args.diff:
        return _list(args.json)
    if args.diff[0] != "diff" or len(args.diff) != 3:
        raise UsageError("two kernels are compared by: kvmabi kernels diff A B")
    return _diff(args.diff[1], args.diff[2], args.json)


def _list(as_json: bool) -> int:
    kernels = [load_kernel(name) for name in kernel_names()]
    if as_json:
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


def _diff(one: str, other: str, as_json: bool) -> int:
    found = diff(one, other)
    if as_json:
        common.print_json([{"name": name, "what": what, one: a, other: b} for name, what, a, b in found])
        return 0
    for name, what, a, b in found:
        print(f"{name}: {a} -> {b}")
        print(textwrap.fill(what, WIDTH, initial_indent="    ", subsequent_indent="    "))
    print(f"{len(found)} differences between {one} and {other}")
    return 0
