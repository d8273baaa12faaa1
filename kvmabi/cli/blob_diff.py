# SPDX-License-Identifier: MIT
"""``kvmabi blob diff``: compares two snapshots, or a snapshot and a host, or explains what a VMM's log names."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from kvmabi.cli import blob_options, common, formats
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.snapshot import page
from kvmabi.snapshot.comparing import sides
from kvmabi.snapshot.comparing.diff import diff
from kvmabi.snapshot.comparing.difference import Diff, Difference, Effect
from kvmabi.snapshot.comparing.sides import Side
from kvmabi.snapshot.page import Page
from kvmabi.snapshot.picture import Mark

EXAMPLE = """\
  kvmabi blob diff 0x1013c096
  kvmabi blob diff 0x1013c096 --host sme-demo --format json
  kvmabi blob diff source.vmstate destination.vmstate
  kvmabi blob diff stream --host cortex-a57 --kernel linux-7.3
  qemu-system-aarch64 ... 2>&1 | kvmabi blob diff -

exit status: 0 equal, or explained, 1 different, 2 misuse"""
STDIN = "-"


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument(
        "first", metavar="A", help="a snapshot, a list of registers, a VMM's log (- for stdin), or a register's number"
    )
    parser.add_argument("second", metavar="B", nargs="?", help="another one, as the destination of a migration from A")
    blob_options.add_force(parser)
    parser.add_argument("--host", metavar="H", help="instead of B: a built-in host or a file")
    parser.add_argument("--kernel", metavar="K", help="its kernel (default: the host's)")
    parser.add_argument("--features", metavar="F,…", help="its vCPU's features (default: those of A)")


def run(args: Namespace) -> int:
    """Print the differences."""
    features = None if args.features is None else common.words(args.features)
    first = _side(args.first, args.force)
    found = diff(
        first,
        None if args.second is None else _side(args.second, args.force),
        host=args.host,
        kernel=args.kernel,
        features=features,
    )
    if args.format == formats.JSON:
        formats.print_json(found.as_dict())
    elif args.format == formats.HTML:
        print(page.write([_page(first, found)]))
    else:
        print(common.printable(found.text()), end="")
    return ExitStatus.SUCCESS if found.equal or not found.b else ExitStatus.DIFFERENT


def _side(text: str, force: bool) -> Side:
    side = sides.of_stream(sys.stdin.buffer, "stdin") if text == STDIN else sides.side_of(text)
    if side.snapshot is not None and not force:
        blob_options.refuse_damaged(text, side.snapshot)
    return side


def _page(first: Side, found: Diff) -> Page:
    """A page with the register files of A, on which what differs is marked, and the differences as a table."""
    marks: dict[int, dict[int, Mark]] = {}
    for difference in reversed(found.differences):  # what is refused comes first, and wins
        mark = Mark.ERROR if difference.effect is Effect.REFUSED else Mark.DIFFERS
        for index in difference.vcpus:
            marks.setdefault(index, {}).update(dict.fromkeys(difference.registers, mark))
    rows = [
        (one.kind.value, ", ".join(map(str, one.vcpus)), one.name, "\n".join(_lines(one))) for one in found.differences
    ]
    vcpus = [] if first.snapshot is None else first.snapshot.vcpus
    sides_of = [("A", found.a), *([("B", found.b)] if found.b else []), *(("note", note) for note in found.notes)]
    header = ("how", "vCPU", "registers", "what") if rows else ()
    return Page("What differs", sides_of, header, rows, vcpus, marks)


def _lines(difference: Difference) -> Iterator[str]:
    if difference.a or difference.b:
        yield f"{difference.a or '(absent)'} -> {difference.b or '(absent)'}"
    yield from map(str, difference.parts)
    if difference.why:
        yield f"why: {difference.why}"
    if difference.consequence:
        yield f"A -> B: {difference.effect.value}: {difference.consequence}"


COMMAND = Command(
    "diff",
    "Compare two snapshots, or a snapshot and a host, by the names and the meaning of registers: what differs, why it "
    "does in practice, and what becomes of it in a migration from A to B. Lists of registers and the lines of a VMM's "
    "log can stand in place of a snapshot; a log or a number alone is explained.",
    EXAMPLE,
    run,
    options,
    summary="compare two snapshots, or a snapshot and a host",
    formats=(*formats.DATA, formats.HTML),
)
