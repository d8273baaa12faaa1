# SPDX-License-Identifier: MIT
"""``kvmabi fpstate``: who owns the FP registers, and what goes wrong when the kernel loses track.

Exit status: 0 it holds (for ``bug``: it reproduces), 1 violated (``bug``: it does not), 2 misuse, 3 a bound
was reached and nothing is decided.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvmabi.cli import formats, fpstate_junit
from kvmabi.cli import fpstate_output as output
from kvmabi.cli.command import Command, ExitStatus, no_options
from kvmabi.errors import UsageError
from kvmabi.fpstate import catalogue, compare, config, invariants, matrix, trace, variants
from kvmabi.fpstate.audit import audit, read_list
from kvmabi.fpstate.explain import explain
from kvmabi.fpstate.explorer import BOUND, HOLDS, Bounds, Explorer
from kvmabi.fpstate.render.json_ import dump, story_from, trace_dict

PICTURES = ("mermaid", "svg")
Options = Callable[[argparse.ArgumentParser], None]


def _variants(args: argparse.Namespace) -> int:
    _write(output.variants_report(args.format))
    return ExitStatus.SUCCESS


def _config(args: argparse.Namespace) -> config.Config:
    flags: dict[str, Any] = {}
    if args.config:
        flags = config.named_config(args.config).config.as_dict()
    counts = {"cpus": args.cpus, "tasks": args.tasks, "vcpus": args.vcpus, "vmms": args.vmms}
    flags |= {name: value for name, value in counts.items() if value is not None}
    for option, allowed in (("hw", config.HARDWARE), ("events", config.EVENTS), ("guest", config.GUEST)):
        for name in filter(None, (getattr(args, option) or "").split(",")):
            if name not in allowed:
                raise UsageError(f"--{option} has no {name!r}; there are {', '.join(allowed)}")
            flags[name] = True
    if not args.config and args.hw is None and args.events is None and args.guest is None:
        flags = config.named_config("kvm").config.as_dict() | flags
    if flags.get("vcpus") and args.guest is None and not args.config:
        flags["guest_fp"] = True
    return config.config_from(flags)


def _variant(args: argparse.Namespace) -> variants.Variant:
    if not args.commits:
        return variants.find_variant(args.variant)
    first, *rest = [c.strip() for c in args.commits.split(",") if c.strip()]
    if not first.startswith("base="):
        raise UsageError("--commits begins with base=VERSION, then commit ids: base=v6.6,e92bee9f861b")
    found = variants.find_variant(first.removeprefix("base="))
    for word in rest:
        commit = variants.find_commit(word)
        if commit is None:
            raise UsageError(f"no commit {word!r} in the table (kvmabi fpstate variants lists them)")
        found = found.plus(commit.bit)
    return found


def _check(args: argparse.Namespace) -> int:
    variant, chosen = _variant(args), _config(args)
    if chosen.sme and not variant.knobs.sme_code:
        raise UsageError(f"{variant.name} has no SME code: leave sme out of --hw")
    if chosen.fpmr and not variant.knobs.fpmr:
        raise UsageError(f"{variant.name} does not know FPMR: leave fpmr out of --hw")
    explorer = Explorer(variant, chosen, invariants.select(args.inv))
    result = explorer.run(Bounds(args.states, args.depth, args.memory))
    found = trace.trace_of(explorer, variant, result) if result.path else None
    if args.format == formats.JUNIT:
        _write(fpstate_junit.check(variant, chosen, args.inv, result, found))
    elif args.format in formats.DATA:
        _write(output.check(variant, chosen, args.inv, result, found, args.format))
    elif found is None:
        sys.stderr.write(output.check(variant, chosen, args.inv, result, None, "text"))
    else:
        _write(output.picture(found, args.format))
    if result.verdict == BOUND:
        return ExitStatus.UNDECIDED
    return ExitStatus.SUCCESS if result.verdict == HOLDS else ExitStatus.DIFFERENT


def _bug(args: argparse.Namespace) -> int:
    bug = catalogue.find_bug(args.id)
    variant = variants.find_variant(args.on or bug.present_in[-1])
    finding = catalogue.search(bug, variant)
    if args.format == "json":
        _write(dump(output.finding_dict(finding)))
    elif args.format == "text":
        _write(output.finding(finding))
    elif finding.trace is not None:
        _write(output.picture(finding.trace, args.format))
    else:
        sys.stderr.write(output.finding(finding))
    if finding.outcome == catalogue.UNDECIDED:
        return ExitStatus.UNDECIDED
    return ExitStatus.SUCCESS if finding.outcome == catalogue.REPRODUCES else ExitStatus.DIFFERENT


def _matrix(args: argparse.Namespace) -> int:
    chosen = [variants.find_variant(v) for v in args.variants.split(",")] if args.variants else None
    found = matrix.matrix(chosen, processes=args.processes)
    _write(dump(found.as_dict()) if args.format == "json" else found.text())
    if args.format == "text":
        sys.stderr.write(matrix.LEGEND + "\n")
    return ExitStatus.UNDECIDED if "?" in found.cells.values() else ExitStatus.SUCCESS


def _story(text: str) -> tuple[config.Config, tuple[Any, ...]]:
    """Configuration and events of a trace file, or of a catalogued bug."""
    if Path(text).suffix == ".json" or Path(text).exists():
        return story_from(_read(text))
    bug = catalogue.find_bug(text)
    finding = catalogue.search(bug, variants.find_variant(bug.present_in[-1]))
    if finding.trace is None:
        raise UsageError(f"{bug.id} does not reproduce on {finding.variant.name}, so it has no trace")
    return bug.config, finding.trace.events


def _replay(args: argparse.Namespace) -> int:
    chosen, story = _story(args.trace)
    variant = variants.find_variant(args.variant)
    found, stop = trace.replay(variant, chosen, story, invariants.select(args.inv))
    if args.format == "json":
        _write(dump(trace_dict(found) | {"stopped": stop}))
    elif args.format == formats.JUNIT:
        _write(fpstate_junit.replay(found, stop))
    else:
        _write(output.picture(found, args.format))
        if stop:
            sys.stderr.write(f"the runs part at {stop}\n")
    return ExitStatus.DIFFERENT if found.observation else ExitStatus.SUCCESS


def _diff(args: argparse.Namespace) -> int:
    chosen, story = _story(args.trace)
    selection = invariants.select(args.inv)
    pairs = [trace.replay(variants.find_variant(v), chosen, story, selection) for v in (args.first, args.second)]
    (first, stop_first), (second, stop_second) = pairs
    if args.format == "json":
        _write(dump(output.diff_dict(first, second, (stop_first, stop_second))))
    else:
        _write(compare.side_by_side(first, second, (stop_first, stop_second)))
    return ExitStatus.DIFFERENT if first.observation or second.observation else ExitStatus.SUCCESS


def _explain(args: argparse.Namespace) -> int:
    found = explain(args.name, variants.find_variant(args.variant))
    _write(output.explanation(found, args.format))
    return ExitStatus.SUCCESS


def _audit(args: argparse.Namespace) -> int:
    listed = read_list(_read(args.commits))
    if not listed:
        raise UsageError(f"{args.commits} lists no commits")
    if not any(entry.commit for entry in listed):
        raise UsageError(f"{args.commits}: none of its {len(listed)} lines names a commit of the table")
    found = audit(variants.find_variant(args.base), listed, processes=args.processes)
    _write(fpstate_junit.audit(found) if args.format == formats.JUNIT else output.audit_report(found, args.format))
    return ExitStatus.DIFFERENT if found.remaining else ExitStatus.SUCCESS


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error


def _write(text: str) -> None:
    sys.stdout.write(text)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def _check_options(parser: argparse.ArgumentParser) -> None:
    newest = variants.default_variant().name
    names = f"v6.8, v6.6, v6.16-klazy, v6.6+e92bee9f861b (default {newest})"
    parser.add_argument("--variant", default=newest, help=names)
    parser.add_argument("--commits", help="instead: base=v6.6,e92bee9f861b,751ecf6afd65")
    parser.add_argument("--config", help=f"a named one: {', '.join(config.named_configs())} (default kvm)")
    for count in ("cpus", "tasks", "vcpus", "vmms"):
        parser.add_argument(f"--{count}", type=_whole, metavar="N")
    parser.add_argument("--hw", help=f"comma-separated: {', '.join(config.HARDWARE)}")
    parser.add_argument("--events", help=f"comma-separated: {', '.join(config.EVENTS)}")
    parser.add_argument("--guest", help=f"comma-separated: {', '.join(config.GUEST)}")
    parser.add_argument("--inv", default="all", help="obs, meta, all, or a list such as O1,M3,O1.V:leak (default all)")
    parser.add_argument("--depth", type=_whole, default=0, metavar="STEPS", help="give up here (0: never)")
    parser.add_argument("--states", type=_whole, default=5_000_000, help="give up here (0: never; default 5000000)")
    parser.add_argument("--memory", type=_whole, default=4096, metavar="MIB", help="give up here (default 4096)")


def _bug_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help=", ".join(catalogue.bugs()))
    parser.add_argument("--on", metavar="VARIANT", help="default: the last preset that has it")


def _matrix_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variants", help="comma-separated; default: all presets")
    parser.add_argument("--processes", type=_whole, help="default: one a core")


def _replay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", help="a bug's id, or a file as --format json writes it (- for stdin)")
    parser.add_argument("--variant", required=True)
    parser.add_argument("--inv", default="obs")


def _diff_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--trace", required=True, help="a bug's id, or a file as --format json writes it")
    parser.add_argument("--inv", default="obs")


def _explain_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="FOREIGN, fp_type, st, ...")
    parser.add_argument("--variant", default=variants.default_variant().name)


def _audit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base", required=True, help="the kernel that the commits were put on")
    parser.add_argument(
        "--commits", required=True, metavar="FILE", help="git log --oneline, ids or titles (- for stdin)"
    )
    parser.add_argument("--processes", type=_whole, help="default: one a core")


def _command(
    run: Callable[[argparse.Namespace], int],
    options: Options,
    forms: tuple[str, ...],
    summary: str,
    example: str,
    status: str = "0 printed, 2 misuse",
) -> Command:
    about = f"{summary[0].upper()}{summary[1:]}."
    example_text = f"  kvmabi fpstate {example}\n\nexit status: {status}"
    return Command(example.split()[0], about, example_text, run, options, summary, formats=forms)


COMMANDS = (
    _command(
        _variants,
        no_options,
        formats.DATA,
        "list the known kernels, commit bits and releases",
        "variants --format json",
    ),
    _command(
        _check,
        _check_options,
        (*formats.JUDGES, *PICTURES),
        "explore a variant in a configuration: every reachable state, or the shortest counterexample",
        "check --variant v6.8 --tasks 2 --events neon,softirq --inv obs --format junit",
        "0 the invariants hold, 1 one is violated, 2 misuse, 3 a bound was reached",
    ),
    _command(
        _bug,
        _bug_options,
        (*formats.DATA, *PICTURES),
        "show a catalogued bug on a kernel",
        "bug C1 --on v6.8 --format svg > c1.svg",
        "0 the bug reproduces, 1 it does not, 2 misuse, 3 a bound was reached",
    ),
    _command(
        _matrix,
        _matrix_options,
        formats.DATA,
        "search every bug on every kernel",
        "matrix --variants v6.8,v6.10 --format json",
        "0 each cell is decided, 2 misuse, 3 a bound was reached in one",
    ),
    _command(
        _replay,
        _replay_options,
        (*formats.JUDGES, *PICTURES),
        "let the same events happen on another kernel",
        "replay C1 --variant v6.10 --format junit",
        "0 nothing is violated, 1 an invariant is, 2 misuse",
    ),
    _command(
        _diff,
        _diff_options,
        formats.DATA,
        "the same events on two kernels, side by side",
        "diff v6.12 v6.14 --trace B1 --format json",
        "0 nothing is violated, 1 an invariant is on one of them, 2 misuse",
    ),
    _command(
        _explain,
        _explain_options,
        formats.DATA,
        "which events read and write a piece of state",
        "explain FOREIGN --variant v6.12",
    ),
    _command(
        _audit,
        _audit_options,
        formats.JUDGES,
        "what a backport mends, and what it leaves",
        "audit --base v5.15 --commits list.txt --format junit",
        "0 no catalogued bug remains, 1 some do, 2 misuse",
    ),
)
COMMAND = Command(
    "fpstate",
    "Explore the kernel's protocol for who owns the FP registers, and its historical bugs.",
    "  kvmabi fpstate bug C1 --on v6.8\n\nexit status: 0 it holds, 1 violated, 2 misuse, 3 a bound was reached",
    run=None,
    commands=COMMANDS,
)
