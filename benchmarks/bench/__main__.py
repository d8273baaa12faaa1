# SPDX-License-Identifier: MIT
"""What kvmabi costs, in one table, both sides measured in turn in one run; docs/explanation/costs.md explains it."""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from bench import curves, growth, realkernel, sides, table
from kvmabi.errors import UsageError

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "pictures"
ROUNDS = 3


def main() -> int:
    """Print the table; with --pictures also write the curves. Returns 2 for misuse."""
    parser = ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--kernel", default="", metavar="IMAGE", help="an arm64 kernel to boot in QEMU and measure")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="(default: %(default)s)")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write the growth curves there as SVG")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds takes a number from 1 on")
    before = sides.load()
    try:
        with tempfile.TemporaryDirectory() as folder:
            real = realkernel.measured(args.kernel) if args.kernel else realkernel.RECORDED_KERNEL
            measured = sides.measure(sides.sides(Path(folder)), args.rounds)
            with sides.explained():
                grown = growth.measure(Path(folder), args.rounds)
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    lines = table.lines(measured, real)
    facts = {"rounds": args.rounds, "load": {"before": before, "after": sides.load()}}
    if args.format == "json":
        points = {"fleets": [one._asdict() for one in grown.fleets], "saves": [one._asdict() for one in grown.saves]}
        print(table.to_json(lines, real, {**facts, "growth": {**points, "memory_ratio": grown.memory_ratio}}))
    else:
        print(table.text(lines, real, notes(grown, args.rounds, before, sides.load())))
    if args.pictures is not None:
        for name, picture in pictures(grown).items():
            (args.pictures / name).write_text(picture, "utf-8")
    return 0


def notes(grown: growth.Growth, rounds: int, before: str, after: str) -> list[str]:
    """What follows the table: growth, and the conditions."""
    last = grown.fleets[-1]
    return [
        f"{last.vcpus} vCPUs made, saved and restored: {last.seconds:.2f} s (target {growth.TARGET_SECONDS:g}), "
        f"{grown.memory_ratio:.2f} times their register files of memory (target {growth.TARGET_MEMORY:g})",
        f"{rounds} rounds; load {before} before, {after} after",
    ]


def pictures(grown: growth.Growth) -> dict[str, str]:
    """The curves by file name."""
    fleets, mib = grown.fleets, 1 << 20
    seconds = [(float(one.vcpus), one.seconds) for one in fleets]
    memory = [(float(one.vcpus), one.memory_bytes / mib) for one in fleets]
    saves = [(float(one.registers), one.microseconds) for one in grown.saves]
    return {
        "growth-time.svg": curves.svg("Create, finalise, save and restore vCPUs", "vCPUs", "seconds", seconds),
        "growth-memory.svg": curves.svg("Memory of kvmabi and the program", "vCPUs", "MiB", memory),
        "growth-save.svg": curves.svg("Save of a vCPU", "registers", "µs", saves),
    }


if __name__ == "__main__":
    sys.exit(main())
