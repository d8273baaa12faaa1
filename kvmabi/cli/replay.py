# SPDX-License-Identifier: MIT
"""``kvmabi replay``: recorded ioctl sequences on the model, every answer compared."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from kvmabi.cli import common, formats, junit, sarif
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.cli.trace_profiles import TraceProfiles
from kvmabi.model.system import System
from kvmabi.steps.doer import Doer
from kvmabi.steps.replay import FAMILIES, Mismatch, Result, machine, replay
from kvmabi.steps.trace import Trace

EXAMPLE = """\
  kvmabi replay --hosts hosts --family core,sve,sme traces/*.random.trace.xz
  kvmabi replay --format junit traces/*.trace > results.xml

exit status: 0 every answer agrees, 1 some differ, 2 misuse"""
RULE = sarif.Rule(
    "answer-differs",
    "an answer of the model differs from the kernel's",
    "every ioctl of a recorded sequence has the answer that the real kernel gave",
    "compare the host and the kernel of the trace with the profiles that it is replayed on",
)


class Replayed(NamedTuple):
    """The replay of one trace, and how long it took."""

    path: str
    result: Result
    seconds: float


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


def run(args: Namespace) -> int:
    """Replay the files and report the answers that differ."""
    families = common.words(args.family)
    common.one_of("register family", families, FAMILIES)
    profiles = TraceProfiles(args.hosts, args.kernel)
    traces = [(trace, *profiles.of(trace)) for trace in map(Trace, args.files)]
    whole, replayed = Result(), []
    doers: dict[tuple[int, int], Doer] = {}
    progress = common.Progress("replay", len(traces))
    for done, (trace, host, kernel) in enumerate(traces):
        name = Path(trace.path).name
        progress.update(done, name)
        tick = partial(_tick, progress, done, name)
        key = id(host), id(kernel)  # two profiles may have one name
        if key not in doers:
            doers[key] = machine(System(host, kernel))
        result, start = Result(), monotonic()
        replay(trace, doers[key], result, families=families, tick=tick)
        replayed.append(Replayed(trace.path, result, monotonic() - start))
        whole.add(result)
    progress.close()
    print(_report(whole, replayed, args.format))
    return ExitStatus.DIFFERENT if whole.mismatches else ExitStatus.SUCCESS


def _tick(progress: common.Progress, done: int, name: str, steps: int) -> None:
    progress.update(done, f"{name}: {steps} steps")


def _report(whole: Result, replayed: Sequence[Replayed], form: str) -> str:
    if form == formats.JSON:
        return json.dumps(asdict(whole), indent=2)
    if form == formats.JUNIT:
        return junit.write(junit.Suite("kvmabi replay", [_case(one) for one in replayed]))
    if form == formats.SARIF:
        results = [_result(mismatch) for one in replayed for mismatch in one.result.first]
        return sarif.write(sarif.Report("kvmabi replay", [RULE] if results else [], results))
    return "\n".join([*map(str, whole.first), *whole.left_out, f"{whole.steps} steps, {whole.mismatches} mismatches"])


def _case(replayed: Replayed) -> junit.Case:
    """Returns a trace as a test case, which fails if an answer differs."""
    result = replayed.result
    failure = f"{result.mismatches} of {result.steps} steps differ" if result.mismatches else ""
    details = "\n".join(map(str, result.first))
    return junit.Case("replay", replayed.path, replayed.seconds, failure, RULE.id, details)


def _result(mismatch: Mismatch) -> sarif.Result:
    reason = f" ({mismatch.reason})" if mismatch.reason else ""
    message = f"{mismatch.step}: the kernel answered {mismatch.expected}, the model answers {mismatch.got}{reason}"
    thing = sarif.Thing("sequence", f"sequence {mismatch.sequence}")
    return sarif.Result(RULE.id, sarif.Level.ERROR, message, (thing,), sarif.Place(mismatch.file, mismatch.line))


COMMAND = Command(
    "replay",
    "Replay recorded ioctl sequences on the model and compare every answer with the real kernel's. A trace names "
    "its host, and the host names the kernel that answered.",
    EXAMPLE,
    run,
    options,
    formats=formats.LOCATES,
)
