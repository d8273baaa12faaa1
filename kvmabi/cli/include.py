# SPDX-License-Identifier: MIT
"""``kvmabi include``: the compiler flags for the KVM headers that kvmabi ships."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from kvmabi.cli import common, formats, shipped
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.profiles import load_kernel

EXAMPLE = """\
  kvmabi include
  cc $(kvmabi include) my-vmm.c -o my-vmm
  cc $(kvmabi include --kernel sme-forecast) my-vmm.c -o my-vmm   # SME's numbers there

exit status: 0 printed, 2 misuse"""


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--kernel", metavar="K", help="a built-in kernel or a file whose numbers SME has")


def run(args: Namespace) -> int:
    """Print the flags."""
    kernel = None if args.kernel is None else load_kernel(args.kernel)
    flags = shipped.flags(kernel)
    if kernel is not None and kernel.forecast:
        common.complain(f"{kernel.name} is a forecast: {kernel.forecast}")
    if args.format == formats.JSON:
        formats.print_json({"flags": flags})
    else:
        print(*flags)
    return ExitStatus.SUCCESS


COMMAND = Command(
    "include",
    "Print the C compiler's flags for the arm64 KVM headers (linux/kvm.h with SVE and SME) that kvmabi ships, so that "
    "a VMM can be compiled on any machine.",
    EXAMPLE,
    run,
    options,
    formats=formats.DATA,
)
