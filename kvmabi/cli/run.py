# SPDX-License-Identifier: MIT
"""``kvmabi run``: an unmodified VMM on the emulated /dev/kvm, and a report on the state that it lost."""

from __future__ import annotations

import shutil
import sys
from argparse import REMAINDER, ArgumentParser, ArgumentTypeError, Namespace
from contextlib import ExitStack, suppress
from pathlib import Path

from kvmabi import cli, regid, wholefile
from kvmabi.cli import common, formats, github, runreport
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.cli.eventlines import LogFile, Refusals, Warnings, line
from kvmabi.cli.verdicts import Severity, verdict_of
from kvmabi.device import open_system
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.interpose import launch
from kvmabi.interpose.program import CannotRun
from kvmabi.order import OrderChecker

MOST_STATUS = 255
EXAMPLE = """\
  kvmabi run --host sme-demo -- ./my-vmm --restore snapshot
  kvmabi run --format junit --output kvmabi.xml -- ./my-vmm --self-test

exit status: the program's own (128 + S if signal S ended it); 99, or what
--error-exitcode says, if it ended with 0 but there are findings; 125 for a
failure or misuse of kvmabi run; 126 and 127 if the program cannot be run or
is not found"""


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    common.add_profiles(parser)
    formats.add_report(parser)
    parser.add_argument(
        "--error-exitcode",
        type=_status,
        default=int(ExitStatus.FINDINGS),
        metavar="N",
        help="the exit status for findings (default: 99)",
    )
    parser.add_argument("--ignore", default="", metavar="R,…", help="registers to leave out of findings, by name or id")
    parser.add_argument("--output", metavar="FILE", help="write the report into a file instead of stderr")
    parser.add_argument("--log", metavar="FILE", help="write every ioctl with its answer and reason into a file")
    parser.add_argument("program", nargs=REMAINDER, metavar="-- PROGRAM ARGS…", help="the program and its arguments")


def run(args: Namespace) -> int:
    """Run the program, then report."""
    argv = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not argv:
        raise UsageError("no program to run (see kvmabi run --help)")
    host, kernel = common.profiles(args.host, args.kernel)
    checker = OrderChecker(regid.parse(word) for word in common.words(args.ignore))
    refusals, warnings, log = Refusals(), Warnings(), EventLog(kept=0)
    log.watchers += [checker.watch, refusals.watch, warnings.watch]
    with ExitStack() as stack:
        if args.log:
            log.watchers.append(stack.enter_context(LogFile(args.log)).watch)
        try:
            status = launch.run(argv, open_system(host, kernel, log))
        except CannotRun as error:
            cli.complain(error)
            return error.code
    refused = [line(event) for event in refusals.last] if status.program else []
    warned = [line(event) for event in warnings.first]
    verdict = verdict_of(log.count, checker.findings)
    program = shutil.which(argv[0]) or argv[0]
    report = runreport.render(verdict, args.format, warned, refused, program=program, fails=frozenset(Severity))
    _write(report, args.output)
    if args.output is None and args.format == formats.TEXT:
        github.show(runreport.annotated(verdict))
    elif args.output is not None and verdict.findings:
        with suppress(OSError):  # stderr is closed
            cli.complain(runreport.summary(verdict, args.output))
    if status.code == 0 and checker.findings:
        return int(args.error_exitcode)
    return status.code


def _write(report: str, path: str | None) -> None:
    if path is None:
        with suppress(OSError):  # stderr is closed: the exit status still reports findings
            print(report, file=sys.stderr, flush=True)
    else:
        wholefile.replace(Path(path), report + "\n")


def _status(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_STATUS:
        raise ArgumentTypeError(f"{text!r} is not an exit status: take a number from 0 to {MOST_STATUS}")
    return int(text)


COMMAND = Command(
    "run",
    "Run a dynamically linked program of this machine's architecture on an emulated /dev/kvm, and report on stderr "
    "which registers its saves and restores lost. Needs no root, no KVM and no Arm hardware.",
    EXAMPLE,
    run,
    options,
    formats=formats.LOCATES,
)
