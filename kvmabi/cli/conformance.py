# SPDX-License-Identifier: MIT
"""``kvmabi conformance``: the rules of the ABI as cases, on the model, this machine's KVM or a kernel in QEMU."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from kvmabi.cli import backend_options, common, conformance_output, formats, github
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.conformance import Case, Outcome, load, read_file, run, select
from kvmabi.conformance.report import FORMATS
from kvmabi.errors import UsageError
from kvmabi.steps.backends import NAMES

EXAMPLE = """\
  kvmabi conformance --backend model --host sme-demo
  kvmabi conformance --backend vm --kernel-image vmlinuz --case 'vls.*'
  kvmabi conformance --backend device --format junit > results.xml

exit status: 0 every case passed or was skipped, 1 some differ, 2 misuse, or no case could run"""

OTHER_FORMATS = {formats.JUNIT: conformance_output.as_junit, formats.SARIF: conformance_output.as_sarif}


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    backend_options.add(parser, "--backend", NAMES, default="model")
    parser.add_argument("--host", metavar="H", help="model: a built-in host or a file (default: sme-demo)")
    parser.add_argument(
        "--case",
        metavar="PATTERN",
        action="append",
        default=[],
        help="only cases with this name or shell pattern, such as 'sme.*'; can be repeated",
    )
    parser.add_argument(
        "--cases",
        metavar="FILE",
        action="append",
        default=[],
        help="run the cases of this TOML file instead of the built-in ones; can be repeated",
    )
    parser.add_argument("--list", action="store_true", help="only list the cases with their rules and sources")


def conformance(args: Namespace) -> int:
    """Run the suite and report; 1 if an answer differed."""
    cases = select([case for file in args.cases for case in read_file(file)] or load(), *args.case)
    if args.list:
        return _list(cases, args.format)
    progress = common.Progress("conformance", len(cases))
    done: dict[str, None] = {}

    def tick(outcome: Outcome) -> None:
        done[outcome.case.name.partition("[")[0]] = None
        progress.update(len(done), outcome.case.name)

    with backend_options.open_from(args, host=args.host) as backend:
        try:
            outcomes = run(backend, cases, tick)
        finally:
            progress.close()
        host_features = backend.describe()
    if args.format in FORMATS:
        print(FORMATS[args.format](host_features, outcomes))
    else:
        print(OTHER_FORMATS[args.format](host_features, outcomes, args.cases))
    if args.format == formats.TEXT:
        github.show(conformance_output.annotated(outcomes, args.cases))
    different = any(outcome.differences for outcome in outcomes)
    return ExitStatus.DIFFERENT if different else ExitStatus.SUCCESS


def _list(cases: Sequence[Case], form: str) -> int:
    if form not in formats.DATA:
        raise UsageError(f"--list judges nothing: it has no --format {form}")
    rows = [{"name": case.name, "rule": case.rule, "source": case.source} for case in cases]
    if form == formats.JSON:
        formats.print_json(rows)
    else:
        for row in rows:
            print(f"{row['name']}\n  {row['rule']}\n  source: {row['source']}")
    return 0


COMMAND = Command(
    "conformance",
    "Run cases, each of which proves a rule of the ABI, and report the answers that differ. Cases adapt to what the "
    "host offers; cases that cannot run there are skipped, and the report says why.",
    EXAMPLE,
    conformance,
    options,
    formats=formats.LOCATES,
)
