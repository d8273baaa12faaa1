# SPDX-License-Identifier: MIT
"""The command ``kvmabi``: each subcommand is a file, imported only when it is used."""

from __future__ import annotations

import os
import sys
from argparse import Action, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

import kvmabi
from kvmabi.cli import common, formats
from kvmabi.cli.command import Command, ExitStatus, Parser
from kvmabi.errors import UsageError

COMMANDS = {
    "demo": "three C programs save and restore an SME guest: one does it correctly",
    "run": "run a VMM on the emulated /dev/kvm and report the state that it lost",
    "trace": "run a VMM and show every KVM ioctl as it happens, decoded",
    "reg": "decode and encode register ids",
    "regs": "list a vCPU's registers with sizes, valid lengths and errnos",
    "include": "print the compiler flags for the KVM headers that kvmabi ships",
    "hosts": "list the built-in hosts",
    "kernels": "list the built-in kernels",
    "blob": "read, validate, compare and convert migration blobs",
    "matrix": "which guests a fleet of hosts can take",
    "replay": "replay recorded ioctl sequences on the model",
    "conformance": "run the suite of ABI cases on the model, a real /dev/kvm or a kernel in a VM",
    "fuzz": "look for differences between the model and a real kernel",
    "capture": "record a host from a real /dev/kvm",
    "fpstate": "explore the kernel's protocol for the ownership of FP registers, and its bugs",
}

RUNNERS = ("run", "trace")
"""The commands that run a program, to which they leave all exit statuses below 125."""


class Version(Action):
    """Prints the version."""

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        """Print and leave."""
        print(f"kvmabi {kvmabi.__version__}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status (2 for misuse, 125 for misuse of RUNNERS)."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), "")
    misuse = ExitStatus.RUN_MISUSE if command in RUNNERS else ExitStatus.MISUSE
    if sys.stdout is None:  # the caller closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name is not always valid text
    try:
        status = _run(command, words)
        sys.stdout.flush()
        return _flush_errors(status)
    except UsageError as error:
        common.complain(error)
        return misuse
    except BrokenPipeError:
        _forget_output()
        return ExitStatus.READER_LEFT
    except OSError as error:  # of our own output: all other failures are UsageErrors
        _forget_output()
        with suppress(OSError):  # it may have been stderr
            common.complain(f"cannot go on: {error}")
        return _flush_errors(misuse)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED


def _run(command: str, words: Sequence[str]) -> int:
    try:
        args = parser(command).parse_args(words)
    except SystemExit:  # --help, which is printed already
        return 0
    formats.settle(args)
    status: int = args.run(args)
    return status


def _flush_errors(status: int) -> int:
    """Flush stderr; a closed pipe does not change the exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return status


def _forget_output() -> None:
    """Discard what Python would flush to stdout at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parser(command: str) -> Parser:
    """The parser of the whole command line, in full only for ``command``."""
    top = Parser(
        prog="kvmabi",
        description="The userspace ABI of arm64 KVM with SVE and SME, emulated and checked.",
        epilog="example:\n  kvmabi run --host sme-demo -- ./my-vmm\n\n"
        "exit status: 0 success, 1 differences found, 2 misuse; see also kvmabi run --help",
        formatter_class=RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        below = commands.add_parser(name, help=summary)
        if name == command:
            _command(name).fill(below)
    return top


def _command(name: str) -> Command:
    command: Command = import_module(f"kvmabi.cli.{name}").COMMAND
    return command
