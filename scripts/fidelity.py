# SPDX-License-Identifier: MIT
"""Write docs/fidelity.md, or check that it is current.

    python scripts/fidelity.py [--check]

The numbers come from tests/golden/results.json (``python -m golden.measure`` in tests/ measures them), reasons and
guesses from scripts/fidelity.toml, the section on the ownership model from scripts/fidelity-fpstate.md.
Exits with 0, or with 1 if --check finds a difference.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import written_page

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "tests/golden/results.json"
NOTES = ROOT / "scripts/fidelity.toml"
FPSTATE = ROOT / "scripts/fidelity-fpstate.md"
PAGE = ROOT / "docs/fidelity.md"
OF_DEVICES = {"devices": "devices, interrupts, memory", "vgic": "the vGIC's registers"}
"""The packs of recordings about devices, and what each is about."""
STEPS = ("traces", *OF_DEVICES)
KINDS = ("random", "reset", "rules", "sweep")
HEAD = """# What is measured and what is guessed

Written by `scripts/fidelity.py`; do not edit. The answers of real kernels are recorded in `tests/golden`, and the model
must give the same answers. `make golden` plays all records, `make test` a sample.

- **{steps:,} steps** of ioctl sequences are replayed: {mismatches:,} answers differ.
- **{agree:,} golden records** are played: {differ:,} differ.
- {left:,} records are not played: they describe the recording, free-running counters or the effect of guest
  instructions. The tables below list each class of them.
"""
Table = dict[str, Any]


def row(*cells: object) -> str:
    """A line of a table; numbers have thousands separators."""
    texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def by_type(results: Table) -> dict[tuple[str, str], Counter[str]]:
    """The number of records of each series and type that agree, differ and are not played."""
    counts_by_type: dict[tuple[str, str], Counter[str]] = {}
    for name, tally in results["records"].items():
        series = "mainline" if name.startswith("mainline.") else "sme"
        for kind, counts in tally.items():
            counts_by_type.setdefault((series, kind), Counter()).update(counts)
    return dict(sorted(counts_by_type.items()))


def kernels(results: Table) -> Iterator[str]:
    """The measurements, one line per kernel."""
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
    """The traces, one line per host."""
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
    """The recordings about devices, one line per kernel."""
    yield "## Measured: devices, attributes, interrupts and memory"
    yield ""
    yield "KVM_CREATE_DEVICE, the attributes of a vGIC, an ITS and a vCPU, and runs: scripts and random sequences. Also"
    yield "irqfds, ioeventfds, routes, memory slots, dirty logs, capabilities, all ioctls on each file. Of the vGIC's"
    yield "registers: every word near one, before and after its initialisation, and what timers and lines change."
    yield ""
    yield row("about", "kernel", "steps", "mismatches")
    yield "|---|---|---:|---:|"
    for pack, about in OF_DEVICES.items():
        for name, counts in results[pack].items():
            yield row(about, f"`{name.removesuffix('.steps')}`", counts["steps"], counts["mismatches"])


def records(types: dict[tuple[str, str], Counter[str]]) -> Iterator[str]:
    """The records that are played, one line per type."""
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
    """The records that are not played, one line per type, with the reason."""
    yield "## Not played"
    yield ""
    yield row("series", "type", "records", "why")
    yield "|---|---|---:|---|"
    for (series, kind), counts in types.items():
        if counts["not played"]:
            yield row(series, f"`{kind}`", counts["not played"], notes["not_played"][f"{series}.{kind}"])


def cases(results: Table, notes: Table) -> Iterator[str]:
    """The named cases that are not played, one line per class."""
    classes = {entry["begins"]: [0, 0] for entry in notes["cases"]}
    for case, count in results["cases"].items():
        sums = classes[next(begins for begins in classes if case.startswith(begins))]
        sums[0] += 1
        sums[1] += count
    yield "## Not played: named cases"
    yield ""
    yield row("name begins with", "cases", "records", "reason")
    yield "|---|---:|---:|---|"
    for entry in notes["cases"]:
        begins = f"`{entry['begins']}`" if entry["begins"] else "anything else"
        yield row(begins, *classes[entry["begins"]], entry["about"])


def guesses(notes: Table) -> Iterator[str]:
    """The behaviour that no recording covers."""
    yield "## Guesses"
    yield ""
    yield "None of our recordings covers the following. Check a guess before you rely on it."
    for entry in notes["guesses"]:
        yield ""
        yield f"**{entry['topic']}**"
        yield ""
        yield from (f"- {text}" for text in entry["says"])


def page() -> str:
    """The current page."""
    results = json.loads(RESULTS.read_text("utf-8"))
    notes = tomllib.loads(NOTES.read_text("utf-8"))
    types = by_type(results)
    totals = sum(types.values(), Counter())
    head = HEAD.format(
        steps=sum(counts["steps"] for kind in STEPS for counts in results[kind].values()),
        mismatches=sum(counts["mismatches"] for kind in STEPS for counts in results[kind].values()),
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


if __name__ == "__main__":
    raise SystemExit(written_page.main(PAGE, page(), __doc__))
