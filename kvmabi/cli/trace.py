# SPDX-License-Identifier: MIT
"""``kvmabi trace``: a VMM on the emulated /dev/kvm, and every KVM ioctl as it happens, as strace shows system calls."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from typing import TextIO

from kvmabi.cli import common, formats, running
from kvmabi.cli.command import Command
from kvmabi.errors import UsageError
from kvmabi.events import Event, EventLog, Kind
from kvmabi.steps.backends import realkvm
from kvmabi.tracing import filters
from kvmabi.tracing.lines import Lines

EXAMPLE = """\
  kvmabi trace -- ./my-vmm --restore snapshot
  kvmabi trace -e set,run --vcpu 0 -o trace.txt -- ./my-vmm
  kvmabi trace -e failed --format json -- ./my-vmm
  kvmabi trace --real -- ./my-vmm   # on an arm64 machine with KVM
  kvmabi trace --record bug.trace -- ./my-vmm; kvmabi replay bug.trace

exit status: the program's own (128 + S if signal S ended it); 125 for a failure
or misuse of kvmabi trace; 126 and 127 if the program cannot be run or is not found"""
TIMES = ("none", "relative", "delta", "clock")


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "-e",
        "--events",
        metavar="W,…",
        default="",
        help=f"only these ioctls, by name, pattern or class ({', '.join((*filters.CLASSES, *filters.ANSWERS))}); "
        "!W leaves W out",
    )
    parser.add_argument("--vcpu", metavar="N", help="only this vCPU of any VM, or with VM/N of one")
    parser.add_argument("-o", "--output", metavar="FILE", help="write the trace into a file instead of stderr")
    parser.add_argument(
        "--times",
        choices=TIMES,
        default=TIMES[0],
        help="seconds since the start, since the line before, or the time of day before each line (default: none)",
    )
    parser.add_argument("--full", action="store_true", help="do not shorten long values")
    parser.add_argument(
        "--real",
        action="store_true",
        help="run on the machine's own /dev/kvm, an arm64 one, instead of an emulated one; a record "
        "names the host captured, or that of --host",
    )
    running.add(parser)
    running.add_program(parser)


def run(args: Namespace) -> int:
    """Run the program and show what it does."""
    argv = running.program(args)
    running.check_names(args, ("output", *running.NAMES))
    machine = running.machine(args)
    if args.real:
        machine = machine._replace(kernel=realkvm.check(args.kernel))
    shown = [filters.by_what(common.words(args.events))]
    if args.vcpu is not None:
        shown.append(filters.by_vcpu(args.vcpu))
    lines = Lines({feature.bit: name for name, feature in machine.kernel.features.items()}, full=args.full)
    log = EventLog(kept=0)
    log.any_origin, log.detailed = False, True
    with ExitStack() as stack:
        stream = sys.stderr if args.output is None else stack.enter_context(_opened(args.output))
        form = _json(lines) if args.format == formats.JSON else _text(lines, args.times)
        shower = Shower(stream, form, filters.both(shown))
        log.watchers.append(shower.watch)
        ended = running.run(args, argv, machine, log, real=args.real)
        shower.flush()
    ended = running.script_judged(machine, ended)
    if shower.failed:
        common.complain(f"{args.output or 'stderr'}: cannot be written: {shower.failed}; the trace is not complete")
    elif not log.count and not isinstance(ended, int):
        common.complain(f"{argv[0]} made no ioctl on /dev/kvm")
    if args.output is not None and shower.failed and not isinstance(ended, int):
        ended = ended._replace(failures=ended.failures + 1)
    return running.code_of(ended)


class Shower:
    """Watches events and writes those that pass a test; ``failed`` says why it stopped, "" if it did not."""

    def __init__(self, stream: TextIO, form: Callable[[Event], str], shown: filters.Test) -> None:
        self.failed = ""
        self._stream, self._form, self._shown = stream, form, shown

    def watch(self, event: Event) -> None:
        """Take in an event."""
        if self.failed or event.kind is Kind.RUN or not self._shown(event):
            return
        try:
            self._stream.write(self._form(event) + "\n")
            self._stream.flush()
        except Exception as error:  # also a mistake here must not become an answer to the program
            self._fail(error)

    def flush(self) -> None:
        """Write what is left."""
        if not self.failed:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.failed = (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """The file of --output. What fails when it is closed has failed before."""
    try:
        stream = open(path, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield stream
    finally:
        with suppress(OSError):
            stream.close()


def _text(lines: Lines, times: str) -> Callable[[Event], str]:
    start = last = time.monotonic()
    wall = time.time() - start

    def text(event: Event) -> str:
        nonlocal last
        line = common.printable(lines.text(event))
        moment = event.moment
        before, last = last, moment
        if times == "none":
            return line
        if times == "clock":
            return f"{datetime.fromtimestamp(wall + moment).strftime('%H:%M:%S.%f')} {line}"
        return f"{moment - (start if times == 'relative' else before):10.6f} {line}"

    return text


def _json(lines: Lines) -> Callable[[Event], str]:
    start = time.monotonic()

    def text(event: Event) -> str:
        return json.dumps({"seconds": round(event.moment - start, 6), **lines.data(event)})

    return text


COMMAND = Command(
    "trace",
    "Run a program as kvmabi run does, and show each of its KVM ioctls as it happens, with names and decoded values, "
    "on stderr or in a file. There is no verdict: kvmabi run has one.",
    EXAMPLE,
    run,
    options,
    formats=formats.DATA,
)
