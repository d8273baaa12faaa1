# SPDX-License-Identifier: MIT
"""What ``kvmabi run`` and ``kvmabi trace`` share: the options of how a program runs, and its record."""

from __future__ import annotations

import shlex
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import kvmabi
from kvmabi.cli import common
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.interpose import launch
from kvmabi.interpose.launch import ExitStatus
from kvmabi.interpose.program import CannotRun
from kvmabi.profiles import Host, Kernel

if TYPE_CHECKING:
    from kvmabi.steps.recordfile import RecordFile

CAPTURED = "captured"
NAMES = ("record", "sysroot")
"""The options that take the name of a file or folder."""


def add(parser: ArgumentParser) -> None:
    """Adds the options; ``add_program`` comes last."""
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="write the run as a trace that kvmabi replay and kvmabi conformance --cases take, packed if its name "
        "ends with .xz; FILE.part until the run ends",
    )
    parser.add_argument(
        "--sysroot",
        metavar="DIR",
        help="the root of the libraries of arm64 programs, which run through qemu-user (default: Debian's libc6:arm64 "
        "or libc6-arm64-cross)",
    )
    parser.add_argument(
        "--transport",
        choices=("preload", "seccomp"),
        help="how the program's calls reach kvmabi: through a preloaded library, or through the kernel, as for static "
        "programs and those that make system calls themselves (default: by the kind of program)",
    )


def add_program(parser: ArgumentParser) -> None:
    """Adds the program and its arguments."""
    parser.add_argument("program", nargs=REMAINDER, metavar="-- PROGRAM ARGS…", help="the program and its arguments")


def program(args: Namespace) -> list[str]:
    """The program and its arguments. Raises UsageError if there is none."""
    argv: list[str] = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not argv:
        raise UsageError(f"no program to run (see kvmabi {args.command} --help)")
    return argv


def check_names(args: Namespace, names: Sequence[str]) -> None:
    """Raises UsageError for an option of these that has an empty name."""
    for name in names:
        if getattr(args, name) == "":
            raise UsageError(f"--{name} takes a name, which is empty")


def run(
    args: Namespace, argv: Sequence[str], host: Host, kernel: Kernel, log: EventLog, *, real: bool = False
) -> ExitStatus | int:
    """Runs the program, with a record if one is wanted; returns how it ended, or why it did not begin as a status.

    ``real``: it has the machine's own /dev/kvm, of which the record names the host CAPTURED unless --host names one.

    A record that cannot be begun is a UsageError, before the program starts; one that is not complete is reported, and
    counts as a failure of kvmabi's own.
    """
    record: RecordFile | None = None
    try:
        with ExitStack() as stack:
            if args.record is not None:
                from kvmabi.steps.recordfile import RecordFile  # here: a start of the command costs less without it

                name = CAPTURED if real and args.host == common.DEMO_HOST else host.name
                source = f"kvmabi {kvmabi.__version__}: {shlex.join(argv)}"
                record = stack.enter_context(RecordFile(args.record, name, kernel.name, source))
                record.watch(log)
            sysroot = None if args.sysroot is None else Path(args.sysroot)
            ended = launch.run(
                argv, launch.opener(host, kernel, log), sysroot=sysroot, transport=args.transport, real=real
            )
    except CannotRun as error:
        common.complain(error)
        return error.code
    if record is not None and record.failed:
        common.complain(record.failed)
        return ended._replace(failures=ended.failures + 1)
    return ended


def code_of(ended: ExitStatus | int) -> int:
    """The exit status of the whole command."""
    return ended if isinstance(ended, int) else ended.code
