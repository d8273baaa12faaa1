# SPDX-License-Identifier: MIT
"""``kvmabi fuzz``: random ioctl sequences on the model and on a real kernel, every answer compared."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

from kvmabi.capture import capture, origin
from kvmabi.cli import backend_options, common, formats, junit
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.cli.trace_profiles import TraceProfiles
from kvmabi.errors import UsageError
from kvmabi.fuzz import Finding, Generator, World, case_text, hunt, recorded, state
from kvmabi.fuzz.saved import SavedTrace
from kvmabi.fuzz.state import State
from kvmabi.profiles import Kernel, load_host
from kvmabi.profiles.host import from_json
from kvmabi.steps.backends import Backend
from kvmabi.steps.backends.model import ModelBackend
from kvmabi.steps.hostfeatures import HostFeatures
from kvmabi.steps.trace import Trace, trace_paths

EXAMPLE = """\
  kvmabi fuzz --against vm --kernel-image vmlinuz --seed 1 --steps 200000 --state run.json
  kvmabi fuzz --against trace --hosts hosts --seed 7 --steps 50000 traces/*.trace.xz
  kvmabi fuzz --against device --steps 200000 --format junit > fuzz.xml

A difference is shrunk to the fewest steps that show it and printed as a case of the conformance suite.
--save-trace keeps it as a trace, too: kvmabi replay TRACE shows it until the model answers as the kernel did.

exit status: 0 no difference, 1 differences found, 2 misuse"""
CAPTURED = "captured"
STEPS = 10_000


@dataclass(frozen=True)
class Found:
    """A difference: its kind (the step and both answers' results), and the case that shows it."""

    kind: tuple[str, ...]
    case: str


@dataclass(frozen=True)
class Fuzzed:
    """What a run was against, and what it has found."""

    against: str
    seed: int
    steps: int
    differences: list[Found]


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    backend_options.add(parser, "--against", ("vm", "device", "trace"))
    parser.add_argument("files", nargs="*", metavar="FILE", help="trace: recorded sequences, plain or .xz")
    parser.add_argument("--hosts", metavar="DIR", help="trace: a folder with the traces' hosts as NAME.json")
    parser.add_argument(
        "--host", metavar="H", help="vm, device: the model's host (default: captured from the real one)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="the seed of the random sequences (default: 0)"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, metavar="N", help="the least number of steps (default: 10000)"
    )
    parser.add_argument(
        "--findings", type=int, default=10, metavar="N", help="stop after this many kinds of differences (default: 10)"
    )
    parser.add_argument(
        "--state", metavar="FILE", help="where the state of the run is kept; a later run continues from it"
    )
    parser.add_argument(
        "--save-trace",
        metavar="TRACE",
        help="vm, device: write what differs, shrunk, as a trace for kvmabi replay, and the captured host next to it",
    )


def fuzz(args: Namespace) -> int:
    """Fuzz and report; 1 if there are differences."""
    if args.steps < 1 or args.findings < 1:
        raise UsageError("--steps and --findings are at least 1")
    return _recorded(args) if args.backend == "trace" else _live(args)


def _live(args: Namespace) -> int:
    for given, flag in ((args.files, "FILE"), (args.hosts, "--hosts")):
        if given:
            raise UsageError(f"{flag} is for --against trace")
    with backend_options.open_from(args) as kernel:
        against = f"{kernel.name} {kernel.release} {kernel.kernel.name} {getattr(kernel, 'cpu', '')}".strip()
        run = state.load(args.state, args.seed, against)
        table = json.loads(json.dumps(capture(kernel, CAPTURED, origin(kernel))))
        host = load_host(args.host) if args.host else from_json(CAPTURED, table)
        with ModelBackend(host, kernel.kernel) as model:
            generator = Generator(args.seed, World(kernel.describe(), kernel.kernel, table))
            sequences = ((number, generator.sequence(number)) for number in count(run.next))
            saved = _saved(args, kernel, table, run)
            steps = _hunt(args, kernel, model, sequences, run, saved)
    found = [Found(tuple(kind), text) for kind, text in zip(run.kinds, run.found, strict=False)]
    return _report(Fuzzed(against, args.seed, steps, found), f"{steps} steps against {against}", args.format)


def _hunt(
    args: Namespace,
    kernel: Backend,
    model: Backend,
    sequences: Iterator[tuple[int, list[str]]],
    run: State,
    saved: SavedTrace | None,
) -> int:
    """Adds the differences to ``run``; returns how many steps the run has done."""
    progress = common.Progress("fuzz", args.steps)
    kinds = {tuple(kind) for kind in run.kinds}
    drawn = run.steps

    def tick(number: int, steps: int) -> None:
        run.next, run.steps = number, run.steps + steps
        run.save(args.state)
        progress.update(run.steps, f"{len(run.found)} found")

    def wanted() -> Iterator[tuple[int, list[str]]]:
        nonlocal drawn
        for number, sequence in sequences:
            if drawn >= args.steps:
                return
            drawn += len(sequence)
            yield number, sequence

    try:
        for finding in hunt(kernel, model, wanted(), tick, kinds):
            kinds.add(finding.kind)
            run.kinds.append(list(finding.kind))
            run.found.append(_case_text(finding, args.seed, kernel.describe(), kernel.kernel))
            if saved is not None:
                saved.add(args.seed, finding)
            progress.update(run.steps, f"{len(run.found)} found")
            if len(run.found) >= args.findings:
                break
        run.save(args.state)
    finally:
        progress.close()
    return drawn  # run.steps lacks the batch in which the last wanted difference was


def _saved(args: Namespace, kernel: Backend, captured: dict[str, Any], run: State) -> SavedTrace | None:
    """The trace that --save-trace names; a run that goes on continues it."""
    if args.save_trace is None:
        return None
    return SavedTrace(
        args.save_trace,
        host=args.host,
        captured=captured,
        kernel=args.kernel or kernel.kernel.name,
        more=bool(run.found),
    )


def _case_text(finding: Finding, seed: int, host_features: HostFeatures, kernel: Kernel) -> str:
    return case_text(finding, f"seed-{seed}.{finding.sequence}", host_features, kernel)


def _recorded(args: Namespace) -> int:
    if not args.files:
        raise UsageError("--against trace needs traces")
    if args.state or args.host or args.kernel_image or args.device or args.save_trace:
        raise UsageError("--state, --host, --kernel-image, --device and --save-trace are not for --against trace")
    profiles = TraceProfiles(args.hosts, args.kernel)
    traces = [(trace, *profiles.of(trace)) for trace in map(Trace, trace_paths(args.files))]
    progress = common.Progress("fuzz", args.steps)
    kinds: dict[tuple[str, ...], str] = {}
    done = 0

    def tick(steps: int) -> None:
        nonlocal done
        done = steps
        progress.update(steps)

    try:
        for finding, host, kernel in recorded.hunt(traces, args.seed, args.steps, tick):
            with ModelBackend(host, kernel) as model:
                kinds.setdefault(finding.kind, _case_text(finding, args.seed, model.describe(), kernel))
            if len(kinds) >= args.findings:
                break
    finally:
        progress.close()
    fuzzed = Fuzzed("trace", args.seed, done, [Found(kind, text) for kind, text in kinds.items()])
    return _report(fuzzed, f"{done} recorded steps", args.format)


def _report(fuzzed: Fuzzed, counted: str, form: str) -> int:
    """Print the differences; ``counted`` says in words what was done. Returns the exit status."""
    if form == formats.JSON:
        formats.print_json(asdict(fuzzed))
    elif form == formats.JUNIT:
        print(junit.write(_suite(fuzzed, counted)))
    else:
        for difference in fuzzed.differences:
            print(difference.case)
        print(f"{counted}, seed {fuzzed.seed}: {len(fuzzed.differences) or 'no'} differences")
    return ExitStatus.DIFFERENT if fuzzed.differences else ExitStatus.SUCCESS


def _suite(fuzzed: Fuzzed, counted: str) -> junit.Suite:
    """Returns the run as JUnit's suite: a failed case for each difference, or one case that passed."""
    group, seed = f"fuzz {fuzzed.against}", f"seed {fuzzed.seed}"
    cases = [
        junit.Case(group, " ".join(found.kind), failure="the model answers differently", details=found.case)
        for found in fuzzed.differences
    ]
    return junit.Suite("kvmabi fuzz", cases or [junit.Case(group, seed)], f"{counted}, {seed}")


COMMAND = Command(
    "fuzz",
    "Run random ioctl sequences on the model and on a real kernel, and compare every answer. The real host is captured "
    "first and becomes the host of the model, unless --host names a profile.",
    EXAMPLE,
    fuzz,
    options,
    formats=formats.JUDGES,
)
