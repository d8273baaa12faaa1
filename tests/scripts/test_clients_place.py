# SPDX-License-Identifier: MIT
"""A client's folder is there whole or not at all, and a note says why there is none."""

from __future__ import annotations

from pathlib import Path

from fetch_clients.place import Place

from kvmabi.errors import UsageError


def made(folder: Path) -> str:
    """Puts a file into the folder."""
    (folder / "program").touch()
    return "1.2"


def fails(folder: Path) -> str:
    """Half of a client, and then none."""
    (folder / "program").touch()
    raise UsageError("the mirror is down")


def test_a_client_is_fetched_once(tmp_path: Path) -> None:
    """What is there stays as it is, and is not fetched again."""
    place = Place("one", tmp_path)
    assert place.missing() == "it was not fetched: make clients"
    assert place.fill(made) == place.fill(fails) == place.missing() == ""
    assert (place.version(), [path.name for path in tmp_path.iterdir()]) == ("1.2", ["one"])


def test_a_failure_leaves_the_reason_alone(tmp_path: Path) -> None:
    """Nothing half done is left; the reason is found by the tests, until a later attempt succeeds."""
    place = Place("one", tmp_path)
    assert place.fill(fails) == place.missing() == "the mirror is down"
    assert [path.name for path in tmp_path.iterdir()] == ["one.missing"]
    assert place.fill(made) == place.missing() == ""
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
