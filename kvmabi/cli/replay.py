# SPDX-License-Identifier: MIT
"""``kvmabi replay``: recorded ioctl sequences on the model, every answer compared."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from functools import partial
from pathlib import Path

from kvmabi.cli import common
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.cli.trace_profiles import TraceProfiles
from kvmabi.model.system import System
from kvmabi.steps.doer import Doer
from kvmabi.steps.replay import FAMILIES, Result, machine, replay
from kvmabi.steps.trace import Trace

EXAMPLE = """\
  kvmabi replay --hosts hosts --family core,sve,sme traces/*.random.trace.xz

exit status: 0 every answer agrees, 1 some differ, 2 misuse"""


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a trace, plain or .xz")
    parser.add_argument(
        "--hosts",
        metavar="DIR",
        help="a folder with the hosts as NAME.json (default: built-in ones, and the trace's folder)",
    )
    parser.add_argument("--kernel", metavar="K", help="a built-in kernel or a file (default: the trace's)")
    parser.add_argument(
        "--family",
        default="",
        metavar="F,…",
        help="count only steps on registers of these families, and those that create and prepare vCPUs; SME's system "
        f"registers belong to sme ({', '.join(FAMILIES)})",
    )
    common.add_json(parser)


def run(args: Namespace) -> int:
    """Replay the files and report the answers that differ."""
    families = common.words(args.family)
    common.one_of("register family", families, FAMILIES)
    profiles = TraceProfiles(args.hosts, args.kernel)
    traces = [(trace, *profiles.of(trace)) for trace in map(Trace, args.files)]
    result = Result()
    doers: dict[tuple[int, int], Doer] = {}
    progress = common.Progress("replay", len(traces))
    for done, (trace, host, kernel) in enumerate(traces):
        name = Path(trace.path).name
        progress.update(done, name)
        tick = partial(_tick, progress, done, name)
        key = id(host), id(kernel)  # two profiles may have one name
        if key not in doers:
            doers[key] = machine(System(host, kernel))
        replay(trace, doers[key], result, families=families, tick=tick)
    progress.close()
    if args.json:
        common.print_json(asdict(result))
    else:
        for mismatch in result.first:
            print(mismatch)
        print(f"{result.steps} steps, {result.mismatches} mismatches")
    return ExitStatus.DIFFERENT if result.mismatches else ExitStatus.SUCCESS


def _tick(progress: common.Progress, done: int, name: str, steps: int) -> None:
    progress.update(done, f"{name}: {steps} steps")


COMMAND = Command(
    "replay",
    "Replay recorded ioctl sequences on the model and compare every answer with the real kernel's. A trace names "
    "its host, and the host names the kernel that answered.",
    EXAMPLE,
    run,
    options,
)
