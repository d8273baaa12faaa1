# SPDX-License-Identifier: MIT
"""``kvmabi run``: an unmodified VMM on the emulated /dev/kvm, and a report on the state that it lost."""

from __future__ import annotations

import os
import re
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from contextlib import ExitStack, suppress
from pathlib import Path

from kvmabi import regid, wholefile
from kvmabi.cli import common, formats, running, runreport
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.cli.eventlines import LogFile, Refusals, Unmodelled, Warnings
from kvmabi.cli.remarks import Remarks
from kvmabi.errors import GUEST_FAILED, UsageError
from kvmabi.events import EventLog
from kvmabi.interpose.launch import OWN_FAILURE
from kvmabi.order import FAILING, OrderChecker, Place, Severity, Verdict, kept
from kvmabi.profiles import Kernel

MOST_STATUS = 255
NO_SAVES = "none"
"""How the warning of a failed guest begins (kvmabi.guests.scripts)."""
PAIR = re.compile(r"(\d{1,9})(?:/(\d{1,9}))?=(\d{1,9})(?:/(\d{1,9}))?")
EXAMPLE = """\
  kvmabi run --host sme-demo -- ./my-vmm --restore snapshot
  kvmabi run --format junit --output kvmabi.xml -- ./my-vmm --self-test
  kvmabi run --pair 2=1 --strict -- ./my-test   # VM 2 is restored from VM 1
  kvmabi run --guest guests.py:boots -- ./my-vmm   # a script in KVM_RUN
  kvmabi run --fault 'SET_ONE_REG za.h[3] EINTR once' -- ./my-vmm --restore f
  kvmabi run --sysroot ~/arm64-root -- ./arm64-vmm   # on any machine, with qemu-user

exit status: the program's own (128 + S if signal S ended it); 99, or what
--error-exitcode says, if it ended with 0 but there are findings that --fail-on
names, or with --strict a restore that was not judged; 125 for a failure or
misuse of kvmabi run; 126 and 127 if the program cannot be run or is not found"""


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    formats.add_report(parser)
    parser.add_argument(
        "--error-exitcode",
        type=_status,
        default=int(ExitStatus.FINDINGS),
        metavar="N",
        help="the exit status for findings (default: 99)",
    )
    parser.add_argument(
        "--fail-on",
        type=_severities,
        default=FAILING,
        metavar="S,…",
        help="the severities that decide the exit status, of lost, changed, latent (default: lost,changed)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="a restore that was not judged is a failure, too, or a run without any",
    )
    parser.add_argument(
        "--pair",
        type=_pair,
        action="append",
        default=[],
        metavar="DST=SRC",
        help="VM DST was restored from VM SRC (2=1), or one vCPU from another (2/0=1/0)",
    )
    parser.add_argument("--ignore", default="", metavar="R,…", help="registers to leave out of findings, by name or id")
    parser.add_argument(
        "--saves",
        metavar="DIR",
        help="keep saves in DIR, the newest 256, and look there for those of other runs (default: a folder that "
        "commands started by one shell or script share, for a week at most; none: neither)",
    )
    parser.add_argument("--output", metavar="FILE", help="write the report into a file instead of stderr")
    parser.add_argument("--log", metavar="FILE", help="write every ioctl with its answer and reason into a file")
    running.add(parser)
    running.add_program(parser)


def run(args: Namespace) -> int:
    """Run the program, then report."""
    argv = running.program(args)
    _check(args)
    machine = running.machine(args)
    if args.format == formats.NONE:
        return _run_only(args, argv, machine)
    ignored = map(regid.parse, common.words(args.ignore))
    checker = OrderChecker(ignored, pairs=dict(args.pair), counter_hz=machine.host.counter_hz, kernel=machine.kernel)
    refusals, warnings, unmodelled, log = Refusals(), Warnings(), Unmodelled(), EventLog(kept=0)
    log.watchers += [checker.watch, refusals.watch, warnings.watch, unmodelled.watch]
    log.any_origin = False
    with ExitStack() as stack:
        if args.log:
            log.watchers.append(stack.enter_context(LogFile(args.log)).watch)
        status = running.run(args, argv, machine, log)
    if isinstance(status, int):
        return status
    others = _other_saves(args.saves)
    verdict = checker.verdict(other_saves=others.load if others is not None else tuple)
    on_terminal = args.output is None and args.format == formats.TEXT
    remarks = Remarks(
        warnings=[str(one) for one in warnings.first if not one.reason.startswith(GUEST_FAILED)],
        refused=[str(event) for event in refusals.last] if status.program else [],
        not_modelled=unmodelled.lines(),
        faults=() if machine.faults is None else machine.faults.lines(),
        failures=() if machine.script is None else machine.script.failures,
        notes=_notes(machine.kernel),
    )
    program = shutil.which(argv[0]) or argv[0]
    report = runreport.render(verdict, args.format, remarks, program=program, fails=args.fail_on, strict=args.strict)
    _write(report, args.output)
    if on_terminal:
        _annotate(verdict, strict=args.strict)
    elif args.output is not None and (verdict.findings or verdict.unseen or (args.strict and verdict.is_vacuous)):
        with suppress(OSError):  # stderr is closed
            common.complain(runreport.summary(verdict, args.output))
    if others is not None:
        _keep(others, checker, argv, wanted=args.saves is not None)
    if machine.script is not None and machine.script.failures:
        if on_terminal or args.output is not None:
            running.complain_of(machine.script)
        return OWN_FAILURE
    if status.code == 0 and verdict.fails(args.fail_on, strict=args.strict):
        return int(args.error_exitcode)
    return status.code


def _notes(kernel: Kernel) -> list[str]:
    """What bears on the whole run."""
    return [f"the kernel {kernel.name} is a forecast: {kernel.forecast}"] if kernel.forecast else []


def _run_only(args: Namespace, argv: list[str], machine: running.Machine) -> int:
    """Run the program without a report. Events are recorded only for a log or a record."""
    log = EventLog(kept=0)
    with ExitStack() as stack:
        if args.log:
            log.watchers.append(stack.enter_context(LogFile(args.log)).watch)
        log.any_origin = not (args.log or args.record)
        return running.code_of(running.script_judged(machine, running.run(args, argv, machine, log)))


def _check(args: Namespace) -> None:
    """Raises UsageError for what would fail only when the program has ended."""
    running.check_names(args, ("output", "saves", "log", *running.NAMES))
    if args.format == formats.NONE and args.output is not None:
        raise UsageError("--report none leaves nothing to write to --output")
    if args.output is not None and not os.access(Path(args.output).absolute().parent, os.W_OK | os.X_OK):
        raise UsageError(f"{args.output}: its folder cannot be written to")
    restored = [pair[0] for pair in args.pair]
    for place in restored:
        if restored.count(place) > 1:
            raise UsageError(f"--pair: VM {place[0]} is restored from two sources")


def _other_saves(folder: str | None) -> kept.KeptSaves | None:
    """Where the saves of other runs are."""
    path = kept.session_folder() if folder is None else None if folder == NO_SAVES else Path(folder)
    return None if path is None else kept.KeptSaves(path)


def _keep(others: kept.KeptSaves, checker: OrderChecker, argv: list[str], *, wanted: bool) -> None:
    """Keep this run's saves for others; a failure matters only where the user wants it."""
    try:
        others.keep(checker.sources(), kept.run_name(argv[0]))
    except UsageError:
        if wanted:
            raise


def _write(report: str, path: str | None) -> None:
    if path is None:
        with suppress(OSError):  # stderr is closed: the exit status still reports findings
            print(report, file=sys.stderr, flush=True)
    else:
        wholefile.replace(Path(path), report + "\n")


def _annotate(verdict: Verdict, *, strict: bool) -> None:
    """Annotate the job that this run is part of, if there can be something to say."""
    if strict or verdict.findings or verdict.unseen:
        from kvmabi.cli import github, runforms  # here: a start of the command costs less without them

        github.show(runforms.annotated(verdict, strict=strict))


def _status(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_STATUS:
        raise ArgumentTypeError(f"{text!r} is not an exit status: take a number from 0 to {MOST_STATUS}")
    return int(text)


def _severities(text: str) -> tuple[Severity, ...]:
    words = common.words(text)
    if not words or not set(words) <= set(Severity):
        raise ArgumentTypeError(f"{text!r} is not a list of severities: take some of {', '.join(Severity)}")
    return tuple(map(Severity, words))


def _pair(text: str) -> tuple[Place, Place]:
    match = PAIR.fullmatch(text)
    if match is None or (match[2] is None) != (match[4] is None):
        raise ArgumentTypeError(f"{text!r} is not a pair: take two VMs (2=1) or two vCPUs (2/0=1/0)")
    vm, vcpu, source_vm, source_vcpu = (None if number is None else int(number) for number in match.groups())
    assert vm is not None
    assert source_vm is not None
    if (vm, vcpu) == (source_vm, source_vcpu):
        raise ArgumentTypeError(f"{text!r} is a pair of a thing with itself")
    return (vm, vcpu), (source_vm, source_vcpu)


COMMAND = Command(
    "run",
    "Run a program of this machine's architecture, or an arm64 program through qemu-user, on an emulated /dev/kvm, and "
    "report on stderr which registers its saves and restores lost. Needs no root, no KVM and no Arm hardware.",
    EXAMPLE,
    run,
    options,
    formats=formats.LOCATES,
)
