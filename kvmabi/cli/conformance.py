# SPDX-License-Identifier: MIT
"""``kvmabi conformance``: the rules of the ABI as cases, on the model, this machine's KVM or a kernel in QEMU."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from kvmabi.cli import backend_options, common
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.conformance import Outcome, load, read_file, run, select
from kvmabi.conformance.report import FORMATS
from kvmabi.steps.backends import NAMES

EXAMPLE = """\
  kvmabi conformance --backend model --host sme-demo
  kvmabi conformance --backend vm --kernel-image vmlinuz --case 'vls.*'
  kvmabi conformance --backend device --format junit > results.xml

exit status: 0 every case passed or was skipped, 1 some differ, 2 misuse, or no case could run"""


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
    parser.add_argument("--format", choices=sorted(FORMATS), default="text", help="form of the report (default: text)")
    parser.add_argument("--list", action="store_true", help="only list the cases with their rules and sources")


def conformance(args: Namespace) -> int:
    """Run the suite and report; 1 if an answer differed."""
    cases = select([case for file in args.cases for case in read_file(file)] or load(), *args.case)
    if args.list:
        for case in cases:
            print(f"{case.name}\n  {case.rule}\n  source: {case.source}")
        return 0
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
    print(FORMATS[args.format](host_features, outcomes))
    different = any(outcome.differences for outcome in outcomes)
    return ExitStatus.DIFFERENT if different else ExitStatus.SUCCESS


COMMAND = Command(
    "conformance",
    "Run cases, each of which proves a rule of the ABI, and report the answers that differ. Cases adapt to what the "
    "host offers; cases that cannot run there are skipped, and the report says why.",
    EXAMPLE,
    conformance,
    options,
)
