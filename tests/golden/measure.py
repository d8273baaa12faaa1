# SPDX-License-Identifier: MIT
"""Plays every record and every trace, and notes in results.json how many there are and how many agree.

``python -m golden.measure`` does it anew, in some minutes; scripts/fidelity.py makes docs/fidelity.md of the numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from golden import devices, packs, test_mainline_records, test_sme_records
from golden.lab import Lab
from golden.sme_players import Record
from kvmabi.steps.replay import Result, machine, replay
from kvmabi.steps.trace import Trace

RESULTS = Path(__file__).parent / "results.json"
PACKS = ("hosts", "records", "traces", *packs.OF_DEVICES)
SPOILED = "spoiled"
"""The type of a line that the recorder's console corrupted."""

Tally = dict[str, dict[str, int]]
"""By type of record: how many "agree", "differ" and are "not played"."""


def digests() -> dict[str, str]:
    """The packs' SHA-256, which a result records as its source."""
    return {name: hashlib.sha256((packs.HERE / f"{name}.tar.xz").read_bytes()).hexdigest() for name in PACKS}


def record_types(name: str) -> Counter[str]:
    """How many records of each type a file has, and how many lines are spoiled."""
    counts: Counter[str] = Counter()
    with open(packs.path("records", name), encoding="utf-8") as lines:
        for line in lines:
            try:
                counts[json.loads(line)["t"]] += 1
            except ValueError:
                counts[SPOILED] += 1
    return counts


def played_records(name: str) -> tuple[Tally, Counter[str]]:
    """Play all records of a file: the tally, and how many records of each named case were not played."""
    mainline = name.startswith("mainline.")
    module = test_mainline_records if mainline else test_sme_records
    host = packs.host(name.removesuffix(".jsonl"))
    lab = Lab(host, packs.kernel(host.kernel), always="EL2" if "nested" in name and not mainline else "")
    tally: Tally = {}
    for kind, count in record_types(name).items():
        tally[kind] = {"agree": 0, "differ": 0, "not played": count if kind == SPOILED else 0}
    unplayed: Counter[str] = Counter()
    for record in packs.read(name):
        outcome = _outcome(module, lab, record)
        tally[record["t"]][outcome] += 1
        if outcome == "not played" and record["t"] == "err":
            unplayed[record["case"]] += 1
    lab.close()
    return tally, unplayed


def _outcome(module: Any, lab: Lab, record: Record) -> str:
    """The outcome of one record: a player that compares nothing has not played it."""
    kind = record["t"]
    if kind not in module.PLAYERS or (kind == "reset" and record["id"] in test_sme_records.COUNTERS):
        return "not played"
    play, compared = module.PLAYERS[kind], 0

    def counted(lab: Lab, record: Record) -> Record:
        nonlocal compared
        got = play(lab, record)
        compared = len(got)
        return got

    module.PLAYERS[kind] = counted
    try:
        wrong = module.differences(lab, record)
    finally:
        module.PLAYERS[kind] = play
    if wrong:
        print(f"{str(record)[:100]}: {wrong[0][:100]}", file=sys.stderr)
        return "differ"
    return "agree" if compared else "not played"


def played_trace(name: str) -> dict[str, Any]:
    """Replay all steps of a trace."""
    trace, result = Trace(packs.path("traces", name)), Result()
    replay(trace, machine(packs.system(trace.host)), result)
    return {
        "host": trace.host,
        "kernel": packs.host(trace.host).kernel,
        "steps": result.steps,
        "mismatches": result.mismatches,
    }


def played_devices(pack: str, name: str) -> dict[str, int]:
    """Do all steps of a recording about devices."""
    steps, wrong = devices.differences(packs.kernel(name.removesuffix(".steps")), name, pack)
    return {"steps": steps, "mismatches": len(wrong)}


def measure(processes: int | None = None) -> dict[str, Any]:
    """Play everything: the packs' digests, the tally of each file of records, steps and mismatches of each trace."""
    results: dict[str, Any] = {"packs": digests()}
    for pack in PACKS:
        packs._unpacked(pack)
    with ProcessPoolExecutor(processes) as pool:
        names = packs.records()
        played = dict(zip(names, pool.map(played_records, names), strict=True))
        names = packs.traces()
        results["traces"] = dict(zip(names, pool.map(played_trace, names), strict=True))
    results["records"] = {name: tally for name, (tally, _) in played.items()}
    results["cases"] = sum((unplayed for _, unplayed in played.values()), Counter())
    for pack in packs.OF_DEVICES:
        results[pack] = {name: played_devices(pack, name) for name in packs.devices()}
    results["kernels"] = {name: packs.host(name.removesuffix(".jsonl")).kernel for name in packs.records()}
    return results


def main() -> int:
    """Play everything and write results.json; 1 if something differs."""
    results = measure(os.cpu_count())
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    differ = sum(count["differ"] for tally in results["records"].values() for count in tally.values())
    mismatches = sum(
        results[kind][name]["mismatches"] for kind in ("traces", *packs.OF_DEVICES) for name in results[kind]
    )
    print(f"{differ} records differ, {mismatches} steps of traces and about devices")
    return int(bool(differ or mismatches))


if __name__ == "__main__":
    sys.exit(main())
