# SPDX-License-Identifier: MIT
"""``kvmabi kernels``: the built-in kernel profiles, and the differences between two."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser, Namespace

from kvmabi.cli import common, formats
from kvmabi.cli.command import Command
from kvmabi.profiles import Kernel, kernel_names, load_kernel
from kvmabi.profiles.compare import diff

EXAMPLE = """\
  kvmabi kernels
  kvmabi kernels --format json
  kvmabi kernels diff sme-v10 sme-v12

exit status: 0 listed, 2 misuse"""
DIFF_EXAMPLE = """\
  kvmabi kernels diff sme-v10 sme-v12
  kvmabi kernels diff linux-7.2 my-kernel.toml --format json

exit status: 0 compared, 2 misuse"""
WIDTH = 100


def run(args: Namespace) -> int:
    """Print the kernels."""
    return _list(args.format == formats.JSON)


def run_diff(args: Namespace) -> int:
    """Print the differences between two kernels."""
    return _diff(args.first, args.second, args.format == formats.JSON)


def diff_options(parser: ArgumentParser) -> None:
    """Adds the options of ``kernels diff``."""
    parser.add_argument("first", metavar="A", help="a built-in kernel or a file")
    parser.add_argument("second", metavar="B", help="another one")


def _list(as_json: bool) -> int:
    kernels = [load_kernel(name) for name in kernel_names()]
    if as_json:
        formats.print_json(
            [
                {
                    "name": kernel.name,
                    "title": kernel.title,
                    "forecast": kernel.forecast,
                    "features": {name: feature.bit for name, feature in kernel.features.items()},
                }
                for kernel in kernels
            ]
        )
        return 0
    rows = ((kernel.name, kernel.title, " ".join(kernel.features)) for kernel in kernels)
    common.print_table(("kernel", "what", "vCPU features"), rows)
    for kernel in kernels:
        _say_if_forecast(kernel)
    return 0


def _say_if_forecast(kernel: Kernel) -> None:
    if kernel.forecast:
        print(f"{kernel.name} is a forecast: {kernel.forecast}")


def _diff(one: str, other: str, as_json: bool) -> int:
    differences = diff(one, other)
    if as_json:
        formats.print_json([dict(zip(("name", "what", "first", "second"), row, strict=True)) for row in differences])
        return 0
    for name, what, a, b in differences:
        print(f"{name}: {a} -> {b}")
        print(textwrap.fill(what, WIDTH, initial_indent="    ", subsequent_indent="    "))
    print(f"{len(differences)} differences between {one} and {other}")
    for kernel in map(load_kernel, (one, other)):
        _say_if_forecast(kernel)
    return 0


DIFF = Command(
    "diff",
    "Show the differences between two kernels that userspace can see, and what each one means.",
    DIFF_EXAMPLE,
    run_diff,
    diff_options,
    summary="compare two kernels",
    formats=formats.DATA,
)
COMMAND = Command(
    "kernels",
    "List the built-in kernel profiles and the vCPU features of each, or compare two.",
    EXAMPLE,
    run,
    commands=(DIFF,),
    formats=formats.DATA,
)
