# SPDX-License-Identifier: MIT
"""Every golden record of the kernels with the SME series is what the model gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from golden import packs, sme_players, sme_states
from golden.lab import Lab, assert_records_agree, expand
from golden.sme_players import Record

PLAYERS = {**sme_players.PLAYERS, **sme_states.PLAYERS}
NOT_ABI = frozenset({"header", "meta", "cpuinfo", "const", "end", "default_vl"})
"""What describes the recording or the host's kernel, not KVM."""
COUNTERS = frozenset({"603000000013df01", "603000000013df1a"})
EVERY = {"restore": 9, "acc": 3, "reset": 5, "trans": 3, "vls_set": 2, "efault": 3}
"""Of these types, unless all are requested, only every Nth record is played."""
FILES = [name for name in packs.records() if name.startswith("sme-")]


def differences(lab: Lab, record: Record) -> list[str]:
    """Returns the differences between the model and a record."""
    got = PLAYERS[record["t"]](lab, record)
    recorded = {key: expand(record[key]) if isinstance(value, bytes) else record[key] for key, value in got.items()}
    return [f"{key}: expected {recorded[key]!r}, got {value!r}" for key, value in got.items() if value != recorded[key]]


def played(name: str) -> list[Record]:
    """The records of a file that are played in this run."""
    count: dict[str, int] = {}
    chosen = []
    for record in packs.read(name):
        kind = record["t"]
        if kind in NOT_ABI or (kind == "reset" and record["id"] in COUNTERS):
            continue
        count[kind] = count.get(kind, -1) + 1
        if packs.FULL or count[kind] % EVERY.get(kind, 1) == 0:
            chosen.append(record)
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_records_are_what_the_model_gives(name: str) -> None:
    """Lists, resets, accesses, vector lengths, transitions, faults, re-INIT, ID registers and restores agree."""
    host = packs.host(name.removesuffix(".jsonl"))
    lab = Lab(host, packs.kernel(host.kernel), always="EL2" if "nested" in name else "")
    assert_records_agree(lab, played(name), differences)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sme-v12.nosve_sme512.jsonl", "sme-v12.sve256_sme512_nofa64.jsonl"])
def test_forecast_follows_the_series(name: str, tmp_path: Path) -> None:
    """The forecast's SME is what was recorded of v12: all but the numbers of features, and PMMIR_EL1, which 7.3 has."""
    on_72 = tmp_path / "forecast.toml"
    on_72.write_text('base = "sme-forecast"\nwithout = ["pmmir_el1"]\n')
    lab = Lab(packs.host(name.removesuffix(".jsonl")), packs.kernel(str(on_72)))
    assert_records_agree(lab, [record for record in played(name) if record["t"] != "init"], differences)
