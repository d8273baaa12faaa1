# SPDX-License-Identifier: MIT
"""``kvmabi include``: the compiler flags for the KVM headers that kvmabi ships."""

from __future__ import annotations

from argparse import Namespace

from kvmabi.cli import formats, shipped
from kvmabi.cli.command import Command, ExitStatus

EXAMPLE = """\
  kvmabi include
  cc $(kvmabi include) my-vmm.c -o my-vmm

exit status: 0 printed, 2 misuse"""


def run(args: Namespace) -> int:
    """Print the flags."""
    flags = [f"-I{shipped.folder('include')}"]
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
    formats=formats.DATA,
)
