# SPDX-License-Identifier: MIT
"""Write docs/fidelity.md, or check that it is current.

    python scripts/fidelity.py [--check]

The numbers are those of tests/golden/results.json (``python -m golden.measure`` plays everything anew); reasons
and guesses are in scripts/fidelity.toml, what concerns the ownership protocol in scripts/fidelity-fpstate.md.
Exit 0, or 1 if --check finds a difference.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "tests/golden/results.json"
NOTES = ROOT / "scripts/fidelity.toml"
FPSTATE = ROOT / "scripts/fidelity-fpstate.md"
PAGE = ROOT / "docs/fidelity.md"
STEPS = ("traces", "devices")
KINDS = ("random", "reset", "rules", "sweep")
HEAD = """# What is measured and what is guessed

Written by `scripts/fidelity.py`; do not edit. Real kernels were asked, their answers are packed in `tests/golden`,
and the model has to give the same ones. `make golden` asks it for all of them, `make test` for a sample.

- **{steps:,} steps** of ioctl sequences were replayed: {mismatches:,} answers differ.
- **{agree:,} golden records** were played: {differ:,} differ.
- {left:,} records were not played: they tell of the recording, of running counters or of what guest instructions did.
  Each class of them is in a table below.
"""
Table = dict[str, Any]


def row(*cells: object) -> str:
    """One line of a table; numbers get thousands' commas."""
    texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def by_type(results: Table) -> dict[tuple[str, str], Counter[str]]:
    """How many records of each series and type agree, differ and are not played."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for name, tally in results["records"].items():
        series = "mainline" if name.startswith("mainline.") else "sme"
        for kind, counts in tally.items():
            found.setdefault((series, kind), Counter()).update(counts)
    return dict(sorted(found.items()))


def kernels(results: Table) -> Iterator[str]:
    """What was measured, a line a kernel."""
    yield "## Measured: kernels and hosts"
    yield ""
    yield row("kernel", "hosts", "files of records", "records played", "differ", "steps", "mismatches")
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for kernel in sorted(set(results["kernels"].values())):
        files = [name for name, profile in results["kernels"].items() if profile == kernel]
        traces = [trace for trace in results["traces"].values() if trace["kernel"] == kernel]
        counts = [count for name in files for count in results["records"][name].values()]
        yield row(
            f"`{kernel}`",
            len({trace["host"] for trace in traces}),
            len(files),
            sum(count["agree"] + count["differ"] for count in counts),
            sum(count["differ"] for count in counts),
            sum(trace["steps"] for trace in traces),
            sum(trace["mismatches"] for trace in traces),
        )


def traces(results: Table) -> Iterator[str]:
    """The traces, a line a host."""
    yield "## Measured: steps of traces by host"
    yield ""
    yield row("host", "kernel", *KINDS, "mismatches")
    yield "|---|---|" + "---:|" * (len(KINDS) + 1)
    for host in sorted({trace["host"] for trace in results["traces"].values()}):
        own = {name: trace for name, trace in results["traces"].items() if trace["host"] == host}
        steps = [sum(t["steps"] for name, t in own.items() if name.endswith(f".{kind}.trace")) for kind in KINDS]
        kernel = next(iter(own.values()))["kernel"]
        yield row(f"`{host}`", f"`{kernel}`", *steps, sum(trace["mismatches"] for trace in own.values()))


def devices(results: Table) -> Iterator[str]:
    """What was recorded about devices, a line a kernel."""
    yield "## Measured: devices and attributes"
    yield ""
    yield "KVM_CREATE_DEVICE, the attributes of a vGIC, an ITS and a vCPU, and runs: scripts and random sequences."
    yield ""
    yield row("kernel", "steps", "mismatches")
    yield "|---|---:|---:|"
    for name, counts in results["devices"].items():
        yield row(f"`{name.removesuffix('.steps')}`", counts["steps"], counts["mismatches"])


def records(types: dict[tuple[str, str], Counter[str]]) -> Iterator[str]:
    """The records that were played, a line a type."""
    yield "## Measured: golden records by type"
    yield ""
    yield "The series are Debian's kernels (`mainline`) and the kernels with the SME series (`sme`)."
    yield ""
    yield row("series", "type", "agree", "differ")
    yield "|---|---|---:|---:|"
    for (series, kind), counts in types.items():
        if counts["agree"] or counts["differ"]:
            yield row(series, f"`{kind}`", counts["agree"], counts["differ"])


def not_played(types: dict[tuple[str, str], Counter[str]], notes: Table) -> Iterator[str]:
    """The records that were not played, a line a type, with the reason."""
    yield "## Not played"
    yield ""
    yield row("series", "type", "records", "why")
    yield "|---|---|---:|---|"
    for (series, kind), counts in types.items():
        if counts["not played"]:
            yield row(series, f"`{kind}`", counts["not played"], notes["not_played"][f"{series}.{kind}"])


def cases(results: Table, notes: Table) -> Iterator[str]:
    """The named cases that were not played, a line a class."""
    classes = {entry["begins"]: [0, 0] for entry in notes["cases"]}
    for case, count in results["cases"].items():
        sums = classes[next(begins for begins in classes if case.startswith(begins))]
        sums[0] += 1
        sums[1] += count
    yield "## Not played: named cases"
    yield ""
    yield row("their name begins with", "cases", "records", "what they are")
    yield "|---|---:|---:|---|"
    for entry in notes["cases"]:
        begins = f"`{entry['begins']}`" if entry["begins"] else "anything else"
        yield row(begins, *classes[entry["begins"]], entry["about"])


def guesses(notes: Table) -> Iterator[str]:
    """What no recording tells."""
    yield "## Guesses"
    yield ""
    yield "No recording that we have tells these. Check them before you rely on one."
    for entry in notes["guesses"]:
        yield ""
        yield f"**{entry['topic']}**"
        yield ""
        yield from (f"- {text}" for text in entry["says"])


def page() -> str:
    """The page as it has to be."""
    results = json.loads(RESULTS.read_text("utf-8"))
    notes = tomllib.loads(NOTES.read_text("utf-8"))
    types = by_type(results)
    totals = sum(types.values(), Counter())
    head = HEAD.format(
        steps=sum(told["steps"] for kind in STEPS for told in results[kind].values()),
        mismatches=sum(told["mismatches"] for kind in STEPS for told in results[kind].values()),
        agree=totals["agree"] + totals["differ"],
        differ=totals["differ"],
        left=totals["not played"],
    )
    parts = (
        kernels(results),
        traces(results),
        devices(results),
        records(types),
        not_played(types, notes),
        cases(results, notes),
        guesses(notes),
    )
    fpstate = FPSTATE.read_text("utf-8").replace("\n## ", "\n### ").replace("# ", "## ", 1)
    return "\n".join([head, *("\n".join(part) + "\n" for part in parts), fpstate])


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    args = parser.parse_args()
    text = page()
    if args.check:
        return int(not PAGE.exists() or PAGE.read_text("utf-8") != text)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
