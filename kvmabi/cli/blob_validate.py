# SPDX-License-Identifier: MIT
"""``kvmabi blob validate``: whether snapshots are whole, and whether a host and kernel can take them."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from functools import partial

from kvmabi.cli import blob_options, blob_report, common, formats
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.errors import UsageError
from kvmabi.fleet import cluster, shard
from kvmabi.fleet.pool import Limits
from kvmabi.fleet.summary import Summary
from kvmabi.snapshot import opening
from kvmabi.snapshot.checks.findings import Report
from kvmabi.snapshot.checks.rules import Severity
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.target import Target
from kvmabi.snapshot.validate import validate

EXAMPLE = """\
  kvmabi blob validate guest.qemu
  kvmabi blob validate snapshot/ --host neoverse-v1 --kernel linux-7.2
  kvmabi blob validate guest.qemu --sve 128,256 --sme 512 --format sarif > report.sarif
  kvmabi blob validate --manifest shard.tsv --out results.jsonl --host neoverse-v1

exit status: 0 clean, 1 errors found, 2 misuse or not readable"""
FAIL_ON = tuple(str(severity) for severity in Severity)
MOST_PROCESSES = 1024


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    blob_options.add_files(parser, number="*")
    blob_options.add_target(parser)
    blob_options.add_facts(parser)
    blob_options.add_force(parser)
    parser.add_argument(
        "--fail-on", choices=FAIL_ON, default="error", help="the mildest finding that fails (default: %(default)s)"
    )
    many = parser.add_argument_group("many files")
    many.add_argument(
        "--manifest", metavar="SHARD", help="judge the files that this file names: URL, size, etag a line"
    )
    many.add_argument("--out", metavar="RESULTS", help="where their results go: lines of JSON, or .parquet")
    many.add_argument("--processes", type=int, metavar="N", help="how many processes (default: one for each core)")
    many.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds for one file (default: 30)")
    many.add_argument("--memory", type=int, default=512, metavar="MIB", help="memory for one file (default: 512 MiB)")
    many.add_argument(
        "--fail-above", type=float, default=0.0, metavar="PERCENT", help="the share of files that may fail (default: 0)"
    )
    many.add_argument("--scheduler", metavar="dask://…", help="a Dask cluster that does the work")


def run(args: Namespace) -> int:
    """Judge the files and print the findings."""
    target = _target(args)
    if args.manifest:
        return _run_shard(args, target)
    if args.out or args.scheduler:
        raise UsageError("--out and --scheduler belong to --manifest")
    if not args.files:
        raise UsageError("blob validate: name a file, or --manifest")
    judged: list[blob_report.Judged] = []
    unreadable: list[UsageError] = []
    for path in args.files:
        try:
            snapshot = opening.read(path, numbers=args.numbers, selected=args.snapshot)
            judged.append((path, snapshot, judge(snapshot, args, target)))
        except UsageError as error:
            unreadable.append(error)
    if judged:
        print(blob_report.render(judged, args.format, _failing(args.fail_on)))
    for failure in unreadable[:-1]:
        common.complain(failure)
    if unreadable:  # after the report on the others: a file that cannot be read hides none of them
        raise unreadable[-1]
    worst = any(blob_report.fails(report, _failing(args.fail_on)) for _, _, report in judged)
    return ExitStatus.DIFFERENT if worst else ExitStatus.SUCCESS


def judge(snapshot: Snapshot, args: Namespace, target: Target) -> Report:
    """The report on one snapshot: after a wrong checksum only that one finding, unless --force is given."""
    report = validate(blob_options.completed(snapshot, args), target)
    damage = [finding for finding in report.findings if finding.rule.id == blob_options.DAMAGE]
    if damage and not args.force:
        hint = damage[0].rule._replace(fix=f"{damage[0].rule.fix}; --force judges the rest as it is")
        return Report(report.subject, [replace(finding, rule=hint) for finding in damage])
    return report


def _target(args: Namespace) -> Target:
    host, kernel = blob_options.profiles(args)
    lengths = [blob_options.vector_bits(f"--{name}", vars(args)[name]) for name in ("sve", "sme")]
    return Target(host, kernel, blob_options.features(args.features), *lengths)


def _failing(mildest: str) -> frozenset[str]:
    """The severities that fail."""
    return frozenset(FAIL_ON[: FAIL_ON.index(mildest) + 1])


def _run_shard(args: Namespace, target: Target) -> int:
    if args.files:
        raise UsageError("blob validate: name files or --manifest, not both")
    if args.snapshot is not None:
        raise UsageError("--snapshot chooses in one file, not in those of a manifest")
    if not args.out:
        raise UsageError("--manifest needs --out, the file for the results")
    if args.format not in formats.DATA:
        raise UsageError(f"the summary of a manifest has the forms {' and '.join(formats.DATA)}")
    processes = (os.cpu_count() or 1) if args.processes is None else args.processes
    if not 0 < processes <= MOST_PROCESSES or args.timeout <= 0 or args.memory <= 0:
        raise UsageError(f"--processes is 1 to {MOST_PROCESSES}; --timeout and --memory are more than 0")
    if not 0 <= args.fail_above <= 100:
        raise UsageError("--fail-above is a percentage, 0 to 100")
    limits = Limits(args.timeout, args.memory << 20)
    judge_one = partial(judge, args=args, target=target)
    bar = common.Progress("validating", shard.count(args.manifest) if os.path.isfile(args.manifest) else 0)
    try:
        if args.scheduler:
            limited = [f"--timeout={args.timeout}", f"--memory={args.memory}", f"--fail-on={args.fail_on}"]
            judged = partial(cluster.run, args.scheduler, options=[*_words(args), *limited])
        else:
            judged = partial(
                shard.on_this_machine, validate=judge_one, processes=processes, limits=limits, numbers=args.numbers
            )
        summary = shard.run(
            args.manifest,
            args.out,
            judged,
            failing=_failing(args.fail_on),
            against=" ".join(_words(args)),
            progress=bar.update,
        )
    finally:
        bar.close()
    _print_summary(summary, args)
    too_many = summary.percent > args.fail_above
    return ExitStatus.DIFFERENT if too_many else ExitStatus.SUCCESS


def _print_summary(summary: Summary, args: Namespace) -> None:
    if args.format == formats.JSON:
        formats.print_json({"results": args.out, **summary.as_dict()})
    else:
        print(common.printable(f"{summary}\nresults: {args.out}"))


def _words(args: Namespace) -> list[str]:
    """The options that say what files are judged against, and how they are read."""
    names = ("host", "kernel", "sve", "sme", "features")
    words = [f"--{name}={value}" for name in names if (value := vars(args)[name]) is not None]
    return [*words, *(f"--{name}" for name in ("numbers", "force") if vars(args)[name])]


COMMAND = Command(
    "validate",
    "Judge snapshots: are they whole, do their registers fit their mode and vector lengths, does the stored order lose "
    "state, and (with --host and --kernel) will the destination take them. What a file cannot hold is not judged, and "
    "the report says so.",
    EXAMPLE,
    run,
    options,
    summary="find what is wrong with a snapshot",
    formats=(*formats.LOCATES, formats.HTML),
)
