# SPDX-License-Identifier: MIT
"""What ``kvmabi run`` and ``kvmabi trace`` share: the options of how a program runs, and its record."""

from __future__ import annotations

import shlex
from argparse import REMAINDER, ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import kvmabi
from kvmabi.cli import common
from kvmabi.errors import GUEST_FAILED, UsageError
from kvmabi.events import EventLog
from kvmabi.interpose import launch
from kvmabi.interpose.launch import ExitStatus
from kvmabi.interpose.program import CannotRun
from kvmabi.profiles import Host, Kernel

if TYPE_CHECKING:
    from kvmabi.faults import Faults
    from kvmabi.guests.scripts import Script
    from kvmabi.steps.recordfile import RecordFile

CAPTURED = "captured"
NAMES = ("record", "sysroot")
"""The options that take the name of a file or folder."""


class Machine(NamedTuple):
    """What a program runs on: a host under a kernel, the guest of every vCPU, and faults that strike its ioctls."""

    host: Host
    kernel: Kernel
    script: Script | None = None
    faults: Faults | None = None


def add(parser: ArgumentParser) -> None:
    """Adds the options; ``add_program`` comes last."""
    common.add_profiles(parser)
    parser.add_argument(
        "--guest",
        metavar="FILE.py:NAME",
        help="what runs on every vCPU: a generator function in a file of Python (default: the guest idles)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="RULE",
        help='have ioctls fail or be late, as in "SET_ONE_REG za.h[3] EINTR once" or "RUN delay=20ms every=10"; '
        "conditions: once, times=N, after=N, every=N, p=0.1, vm=N, vcpu=N",
    )
    parser.add_argument(
        "--fault-seed", type=int, default=0, metavar="N", help="decides which ioctls p=… strikes (default: 0)"
    )
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


def machine(args: Namespace) -> Machine:
    """The machine that the options describe. Raises UsageError."""
    script = None
    if args.guest is not None:
        from kvmabi.guests import scripts  # here: few runs have one, and a start of the command costs less without it

        script = scripts.load(args.guest)
    faults = None
    if args.fault:
        from kvmabi.device import ioctl_names
        from kvmabi.faults import Faults

        faults = Faults.parse(args.fault, ioctl_names(), args.fault_seed)
    return Machine(*common.profiles(args.host, args.kernel), script, faults)


def check_names(args: Namespace, names: Sequence[str]) -> None:
    """Raises UsageError for an option of these that has an empty name."""
    for name in names:
        if getattr(args, name) == "":
            raise UsageError(f"--{name} takes a name, which is empty")


def run(args: Namespace, argv: Sequence[str], on: Machine, log: EventLog, *, real: bool = False) -> ExitStatus | int:
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

                name = CAPTURED if real and args.host == common.DEMO_HOST else on.host.name
                source = f"kvmabi {kvmabi.__version__}: {shlex.join(argv)}"
                record = stack.enter_context(RecordFile(args.record, name, on.kernel.name, source))
                record.watch(log)
            sysroot = None if args.sysroot is None else Path(args.sysroot)
            system = launch.opener(on.host, on.kernel, log, on.script, on.faults)
            ended = launch.run(argv, system, sysroot=sysroot, transport=args.transport, real=real)
    except CannotRun as error:
        common.complain(error)
        return error.code
    if record is not None and record.failed:
        common.complain(record.failed)
        return ended._replace(failures=ended.failures + 1)
    return ended


def script_judged(on: Machine, ended: ExitStatus | int) -> ExitStatus | int:
    """How it ended, with a guest's script that failed as a failure of kvmabi's own, which is reported: its line."""
    if on.script is None or not on.script.failures or isinstance(ended, int):
        return ended
    complain_of(on.script)
    return ended._replace(failures=ended.failures + 1)


def complain_of(script: Script) -> None:
    """Report where the guest's script failed, on each vCPU."""
    for line in script.failures:
        with suppress(OSError):  # stderr is closed
            common.complain(f"{GUEST_FAILED}{line}")


def code_of(ended: ExitStatus | int) -> int:
    """The exit status of the whole command."""
    return ended if isinstance(ended, int) else ended.code
