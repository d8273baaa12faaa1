# SPDX-License-Identifier: MIT
"""Run a command in a VM with an arm64 kernel, Debian's Python and kvmabi."""

from __future__ import annotations

import sys
from argparse import REMAINDER, ArgumentParser
from pathlib import Path

from fetch_kernel import apt, sources

from arm64_vm import boot, tree
from kvmabi.errors import UsageError
from kvmabi.steps.vm import initramfs

FOLDER = Path("build/oracle")
KVMABI = "kvmabi"


def main() -> int:
    """The command's exit status; 2 if it could not be run."""
    parser = ArgumentParser(
        prog="python -m arm64_vm", description=__doc__, epilog="A command that begins with kvmabi is kvmabi's own."
    )
    parser.add_argument("--kernel-image", required=True, metavar="FILE", help="an arm64 kernel with KVM built in")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where packages are kept (default: %(default)s)")
    parser.add_argument("--add", type=Path, action="append", default=[], metavar="FILE", help="add a program as /NAME")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it may take (default: %(default).0f)")
    parser.add_argument("command", nargs=REMAINDER, metavar="-- COMMAND", help="the command and its arguments")
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    try:
        if not command:
            raise UsageError("no command to run")
        if command[0] == KVMABI:
            command = [tree.PYTHON, "-m", *command]
        apt.install_tools()
        suite = apt.Suite(sources.codename(), args.folder)
        suite.update()
        archive = initramfs.archive(tree.entries(suite.closure(tree.PACKAGES), command, args.add))
        return boot.run(args.kernel_image, archive, 60 * args.minutes)
    except UsageError as error:
        print(f"arm64_vm: {error}", file=sys.stderr, flush=True)
        return 2


if __name__ == "__main__":
    sys.exit(main())
