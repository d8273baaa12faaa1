# SPDX-License-Identifier: MIT
"""Every golden record of the mainline kernels that a player can do again is what the model gives."""

from __future__ import annotations

import pytest

from golden import packs
from golden.lab import Lab, assert_records_agree, expand
from golden.mainline_players import PLAYERS
from golden.sme_players import Record

EVERY = {"reg": 5, "wr": 4, "sweep": 3, "bitflip": 2}
"""Of these types, unless all are requested, only every Nth record is played."""
FILES = [name for name in packs.records() if name.startswith("mainline.")]


def differences(lab: Lab, record: Record) -> list[str]:
    """Returns the differences between the model and a record."""
    wrong = []
    for key, value in PLAYERS[record["t"]](lab, record).items():
        recorded = record.get(key)
        if isinstance(value, bytes) and recorded is not None:
            recorded = expand(recorded)
        if recorded != value:
            wrong.append(f"{key}: expected {recorded!r}, got {value!r}")
    return wrong


def played(name: str) -> list[Record]:
    """The records of a file that are played in this run."""
    count: dict[str, int] = {}
    chosen = []
    for record in packs.read(name):
        kind = record["t"]
        count[kind] = count.get(kind, -1) + 1
        if kind in PLAYERS and (packs.FULL or count[kind] % EVERY.get(kind, 1) == 0):
            chosen.append(record)
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_records_are_what_the_model_gives(name: str) -> None:
    """INIT, ids, vector lengths, faults, ID registers, every register's value and write, and whole ID spaces agree."""
    host = packs.host(name.removesuffix(".jsonl"))
    lab = Lab(host, packs.kernel(host.kernel))
    assert_records_agree(lab, played(name), differences)
