# SPDX-License-Identifier: MIT
"""``kvmabi fpstate``: who owns the FP registers, and what goes wrong when the kernel loses track.

Exit status: 0 it holds (for ``bug``: it reproduces), 1 violated (``bug``: it does not), 2 misuse, 3 a bound
was reached and nothing is decided.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from kvmabi.cli import fpstate_output as output
from kvmabi.errors import UsageError
from kvmabi.fpstate import catalogue, compare, config, invariants, matrix, trace, variants
from kvmabi.fpstate.audit import audit, read_list
from kvmabi.fpstate.explain import explain
from kvmabi.fpstate.explorer import BOUND, HOLDS, Bounds, Explorer
from kvmabi.fpstate.render.json_ import dump, story_from, trace_dict

HOLDS_, VIOLATED_, MISUSE, BOUND_ = 0, 1, 2, 3
FORMATS = ("text", "json", "mermaid", "svg")
PLAIN = ("text", "json")


class _Parser(argparse.ArgumentParser):
    """Misuse is one line on stderr."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISUSE, f"{self.prog}: {message}\n")


def _variants(args: argparse.Namespace) -> int:
    _write(output.variants_report(args.format))
    return HOLDS_


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
    if args.format in PLAIN:
        _write(output.check(variant, chosen, args.inv, result, found, args.format))
    elif found is None:
        sys.stderr.write(output.check(variant, chosen, args.inv, result, None, "text"))
    else:
        _write(output.picture(found, args.format))
    if result.verdict == BOUND:
        return BOUND_
    return HOLDS_ if result.verdict == HOLDS else VIOLATED_


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
        return BOUND_
    return HOLDS_ if finding.outcome == catalogue.REPRODUCES else VIOLATED_


def _matrix(args: argparse.Namespace) -> int:
    chosen = [variants.find_variant(v) for v in args.variants.split(",")] if args.variants else None
    found = matrix.matrix(chosen, processes=args.processes)
    _write(dump(found.as_dict()) if args.format == "json" else found.text())
    if args.format == "text":
        sys.stderr.write(matrix.LEGEND + "\n")
    return BOUND_ if "?" in found.cells.values() else HOLDS_


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
    else:
        _write(output.picture(found, args.format))
        if stop:
            sys.stderr.write(f"the runs part at {stop}\n")
    return VIOLATED_ if found.observation else HOLDS_


def _diff(args: argparse.Namespace) -> int:
    chosen, story = _story(args.trace)
    selection = invariants.select(args.inv)
    pairs = [trace.replay(variants.find_variant(v), chosen, story, selection) for v in (args.first, args.second)]
    (first, stop_first), (second, stop_second) = pairs
    if args.format == "json":
        _write(dump(output.diff_dict(first, second, (stop_first, stop_second))))
    else:
        _write(compare.side_by_side(first, second, (stop_first, stop_second)))
    return VIOLATED_ if first.observation or second.observation else HOLDS_


def _explain(args: argparse.Namespace) -> int:
    found = explain(args.name, variants.find_variant(args.variant))
    _write(output.explanation(found, args.format))
    return HOLDS_


def _audit(args: argparse.Namespace) -> int:
    listed = read_list(_read(args.commits))
    if not listed:
        raise UsageError(f"{args.commits} lists no commits")
    if not any(entry.commit for entry in listed):
        raise UsageError(f"{args.commits}: none of its {len(listed)} lines names a commit of the table")
    found = audit(variants.find_variant(args.base), listed, processes=args.processes)
    _write(output.audit_report(found, args.format))
    return VIOLATED_ if found.remaining else HOLDS_


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


def _add(
    commands: Any, name: str, run_: Callable[[argparse.Namespace], int], words: str, example: str, formats: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=words,
        description=words[0].upper() + words[1:] + ".",
        epilog=f"example:\n  kvmabi fpstate {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", choices=formats, default="text", help="default: text")
    parser.set_defaults(fpstate_run=run_)
    return parser


def _add_check(commands: Any) -> None:
    example = "check --variant v6.8 --tasks 2 --events neon,softirq --inv obs"
    words = "explore a variant in a configuration: every reachable state, or the shortest counterexample"
    parser = _add(commands, "check", _check, words, example, FORMATS)
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


def register(subparsers: Any) -> None:
    """Add ``fpstate`` and its commands to a program's subparsers."""
    top = subparsers.add_parser(
        "fpstate",
        help="who owns the FP registers: explore the kernel's protocol",
        description="Explore the kernel's protocol for who owns the FP registers, and its historical bugs.",
        epilog="example:\n  kvmabi fpstate bug C1 --on v6.8\n\n"
        "exit status: 0 it holds, 1 violated, 2 misuse, 3 a bound was reached",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="fpstate_command", metavar="COMMAND", parser_class=_Parser)
    top.set_defaults(run=run)
    top.error = functools.partial(_Parser.error, top)  # its class is the caller's
    example = "variants --format json"
    _add(commands, "variants", _variants, "list the known kernels, commit bits and releases", example, PLAIN)
    _add_check(commands)
    example = "bug C1 --on v6.8 --format svg > c1.svg"
    bug = _add(commands, "bug", _bug, "show a catalogued bug on a kernel", example, FORMATS)
    bug.add_argument("id", help=", ".join(catalogue.bugs()))
    bug.add_argument("--on", metavar="VARIANT", help="default: the last preset that has it")
    table = _add(commands, "matrix", _matrix, "search every bug on every kernel", "matrix --variants v6.8,v6.10", PLAIN)
    table.add_argument("--variants", help="comma-separated; default: all presets")
    table.add_argument("--processes", type=_whole, help="default: one a core")
    _add_comparisons(commands)
    example = "explain FOREIGN --variant v6.12"
    what = _add(commands, "explain", _explain, "which events read and write a piece of state", example, PLAIN)
    what.add_argument("name", help="FOREIGN, fp_type, st, ...")
    what.add_argument("--variant", default=variants.default_variant().name)
    example = "audit --base v5.15 --commits list.txt"
    port = _add(commands, "audit", _audit, "what a backport mends, and what it leaves", example, PLAIN)
    port.add_argument("--base", required=True, help="the kernel that the commits were put on")
    port.add_argument("--commits", required=True, metavar="FILE", help="git log --oneline, ids or titles (- for stdin)")
    port.add_argument("--processes", type=_whole, help="default: one a core")


def _add_comparisons(commands: Any) -> None:
    example = "replay C1 --variant v6.10"
    again = _add(commands, "replay", _replay, "let the same events happen on another kernel", example, FORMATS)
    again.add_argument("trace", help="a bug's id, or a file as --format json writes it (- for stdin)")
    again.add_argument("--variant", required=True)
    again.add_argument("--inv", default="obs")
    example = "diff v6.12 v6.14 --trace B1"
    apart = _add(commands, "diff", _diff, "the same events on two kernels, side by side", example, PLAIN)
    apart.add_argument("first")
    apart.add_argument("second")
    apart.add_argument("--trace", required=True, help="a bug's id, or a file as --format json writes it")
    apart.add_argument("--inv", default="obs")


def run(args: argparse.Namespace) -> int:
    """Run the chosen command; misuse is one line on stderr and 2."""
    try:
        if getattr(args, "fpstate_run", None) is None:
            raise UsageError("name a command: variants, check, bug, matrix, replay, diff, explain or audit")
        status: int = args.fpstate_run(args)
        return status
    except UsageError as error:
        sys.stderr.write(f"kvmabi fpstate: {error}\n")
        return MISUSE
