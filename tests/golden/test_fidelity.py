# SPDX-License-Identifier: MIT
"""docs/fidelity.md says what was measured: its numbers are of the present packs, its text is the script's."""

from __future__ import annotations

import json
import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from golden import measure, packs, test_mainline_records, test_sme_records

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "scripts/fidelity.py")
RESULTS = json.loads(measure.RESULTS.read_text("utf-8"))


def test_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is what the script makes of results and notes."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, "--check"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(SCRIPT, run_name="__main__")
    assert stop.value.code == 0, "run scripts/fidelity.py"


def test_results_are_of_the_present_packs() -> None:
    """Other packs need another ``python -m golden.measure``."""
    assert RESULTS["packs"] == measure.digests()
    assert sorted(RESULTS["records"]) == packs.records()
    assert sorted(RESULTS["traces"]) == packs.traces()
    assert all(sorted(RESULTS[pack]) == packs.devices() for pack in packs.OF_DEVICES)


@pytest.mark.slow
def test_every_record_is_counted() -> None:
    """By type and file, including the records that the console corrupted."""
    for name in packs.records():
        counted = {kind: sum(counts.values()) for kind, counts in RESULTS["records"][name].items()}
        assert counted == dict(measure.record_types(name)), name


def test_nothing_measured_differs() -> None:
    """What cannot be matched would have to be explained record by record."""
    tallies = [count for tally in RESULTS["records"].values() for count in tally.values()]
    assert sum(count["differ"] for count in tallies) == 0
    assert sum(steps["mismatches"] for kind in ("traces", *packs.OF_DEVICES) for steps in RESULTS[kind].values()) == 0


def test_what_has_a_player_is_played() -> None:
    """Every type without a player has a reason, and every reason has a type."""
    left = set()
    for name, tally in RESULTS["records"].items():
        mainline = name.startswith("mainline.")
        players = (test_mainline_records if mainline else test_sme_records).PLAYERS
        for kind, count in tally.items():
            assert kind in players or not count["agree"]
            if count["not played"]:
                left.add(f"{'mainline' if mainline else 'sme'}.{kind}")
    notes = tomllib.loads((ROOT / "scripts/fidelity.toml").read_text("utf-8"))
    assert left == set(notes["not_played"])


def test_cases_that_are_not_played_are_counted() -> None:
    """By name; all of them are records of type "err"."""
    left = sum(tally["err"]["not played"] for tally in RESULTS["records"].values() if "err" in tally)
    assert sum(RESULTS["cases"].values()) == left


@pytest.mark.slow
def test_a_file_played_again_gives_the_reported_numbers() -> None:
    """The smallest of the mainline files with guests that ran."""
    name = "mainline.7.3-cortex-a57.jsonl"
    tally, unplayed = measure.played_records(name)
    assert tally == RESULTS["records"][name]
    assert all(count <= RESULTS["cases"][case] for case, count in unplayed.items())
