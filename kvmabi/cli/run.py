# SPDX-License-Identifier: MIT
"""``kvmabi run``: a VMM, unmodified, on the emulated /dev/kvm, and what it lost."""

from __future__ import annotations

import json
import sys
from argparse import REMAINDER, ArgumentTypeError, Namespace, _SubParsersAction
from typing import Any

from kvmabi import cli
from kvmabi.cli import common
from kvmabi.device import open_system
from kvmabi.errors import UsageError
from kvmabi.events import EventLog
from kvmabi.interpose import launch
from kvmabi.interpose.program import CannotRun
from kvmabi.order import Finding, OrderChecker

FINDINGS = 99
MOST_STATUS = 255
EXAMPLE = """\
  kvmabi run --host sme-demo --report json -- ./my-vmm --restore snapshot

exit status: the program's own (128 + S if signal S ended it); 99, or what
--error-exitcode says, if it ended with 0 but there are findings; 125 for a
failure or misuse of kvmabi run; 126 and 127 if the program cannot be run or
is not found"""


def register(commands: _SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = common.command(
        commands,
        "run",
        "Run a dynamically linked program of this machine's architecture on an emulated /dev/kvm, and report on stderr "
        "which registers its saves and restores lost. Needs no root, no KVM and no Arm hardware.",
        EXAMPLE,
    )
    common.add_profiles(parser)
    parser.add_argument(
        "--report", choices=("text", "json"), default="text", help="how findings are told (default: text)"
    )
    parser.add_argument(
        "--error-exitcode",
        type=_status,
        default=FINDINGS,
        metavar="N",
        help="the exit status for findings (default: 99)",
    )
    parser.add_argument("program", nargs=REMAINDER, metavar="-- PROGRAM ARGS…", help="the program and its arguments")
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Run the program, then report."""
    argv = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not argv:
        raise UsageError("no program to run (see kvmabi run --help)")
    host, kernel = common.profiles(args.host, args.kernel)
    log, checker = EventLog(kept=0), OrderChecker()
    log.watchers.append(checker.watch)
    try:
        status = launch.run(argv, open_system(host, kernel, log))
    except CannotRun as error:
        cli.complain(error)
        return error.code
    report(checker.findings, log.count, args.report)
    if status.code == 0 and checker.findings:
        return int(args.error_exitcode)
    return status.code


def report(findings: list[Finding], events: int, form: str) -> None:
    """Print findings on stderr, as text or as JSON."""
    if form == "json":
        told = {"events": events, "findings": [finding.as_dict() for finding in findings]}
        print(json.dumps(told, indent=2), file=sys.stderr)
        return
    count = len(findings)
    what = f"{count} finding{'s' if count != 1 else ''}" if count else "nothing was lost"
    print(f"kvmabi: {events} events, {what}", file=sys.stderr)
    for number, finding in enumerate(findings, 1):
        print(f"\n{number}. {finding}", file=sys.stderr)


def _status(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_STATUS:
        raise ArgumentTypeError(f"{text!r} is no exit status: take a number from 0 to {MOST_STATUS}")
    return int(text)
