# SPDX-License-Identifier: MIT
"""The form of a command's output: the option ``--format``, its short form and its older spelling.

Every command names the forms that it has (``Command.formats``), the first of which is the default. ``--json`` is short
for ``--format json``. ``kvmabi run`` also accepts ``--report``, the option's first name.
"""

from __future__ import annotations

import json
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, Final

from kvmabi.errors import UsageError

TEXT: Final = "text"
JSON: Final = "json"
JUNIT: Final = "junit"
SARIF: Final = "sarif"
HTML: Final = "html"
NONE: Final = "none"
"""No report: only ``--report`` of ``kvmabi run`` takes it."""
DATA = (TEXT, JSON)
"""The forms of a command that prints data."""
JUDGES = (TEXT, JSON, JUNIT)
"""Those of a command that judges: each case, file or pair that it judges is a JUnit test case."""
LOCATES = (*JUDGES, SARIF)
"""Those of a command that judges and knows where, in a file or in a VM."""
SPELLINGS = {"format": "--format", "json": "--json", "report": "--report"}
"""Where the parser puts each spelling of the option."""


def add(parser: ArgumentParser, formats: Sequence[str]) -> None:
    """Adds ``--format`` with these choices, and ``--json``.

    Neither has a default in the parser, so that a subcommand does not undo what stands before its name.
    """
    parser.add_argument(
        "--format", choices=formats, default=SUPPRESS, help=f"the form of the output (default: {formats[0]})"
    )
    parser.add_argument("--json", action="store_const", const=JSON, default=SUPPRESS, help="short for --format json")


def add_report(parser: ArgumentParser) -> None:
    """Adds ``--report``: ``none``, and ``text|json``, an older spelling of ``--format``."""
    parser.add_argument(
        "--report",
        choices=(*DATA, NONE),
        metavar="none",
        default=SUPPRESS,
        help="watch and report nothing: the exit status is the program's",
    )


def settle(args: Namespace) -> None:
    """Sets ``args.format`` from whichever spelling was given. Raises UsageError for two that contradict each other.

    >>> args = Namespace(json="json")
    >>> settle(args)
    >>> args.format
    'json'
    """
    given = {spelling: vars(args)[name] for name, spelling in SPELLINGS.items() if name in vars(args)}
    if len(set(given.values())) > 1:
        words = " and ".join(
            spelling if spelling == "--json" else f"{spelling} {form}" for spelling, form in given.items()
        )
        raise UsageError(f"{words} contradict each other: give one of them")
    args.format = next(iter(given.values()), TEXT)


def print_json(value: Any) -> None:
    """Prints a value for machines, in ASCII: it has the same meaning in every locale."""
    print(json.dumps(value, indent=2))
