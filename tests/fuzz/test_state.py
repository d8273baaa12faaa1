# SPDX-License-Identifier: MIT
"""The state file: a run goes on where it was, and a file that is none is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvmabi.errors import UsageError
from kvmabi.fuzz import state


def test_a_run_goes_on(tmp_path: Path) -> None:
    """What was saved is loaded; without a file, or without a path, a run is new."""
    path = str(tmp_path / "run.json")
    run = state.load(path, 3, "vm 7.3")
    assert (run.next, run.steps) == (0, 0)
    run.next, run.steps, run.found, run.kinds = 17, 1234, ["case"], [["G 1", "OK", "EINVAL"]]
    run.save(path)
    assert state.load(path, 3, "vm 7.3") == run
    state.load(None, 3, "vm 7.3").save(None)


@pytest.mark.parametrize(("seed", "against"), [(4, "vm 7.3"), (3, "vm 7.2")])
def test_another_run_is_refused(tmp_path: Path, seed: int, against: str) -> None:
    """The state of another seed or kernel is not gone on with."""
    path = str(tmp_path / "run.json")
    state.load(path, 3, "vm 7.3").save(path)
    with pytest.raises(UsageError, match="the state of another run"):
        state.load(path, seed, against)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "cannot be read as a state of kvmabi fuzz"),
        ("{", "cannot be read as a state of kvmabi fuzz"),
        ("\0", "cannot be read as a state of kvmabi fuzz"),
        ("[]", "a state of kvmabi fuzz is a table of names and values"),
        ('{"seed": 1}', "against: is missing: must be a string"),
        ('{"seed": 1, "against": "x", "next": "y"}', "next: 'y' is not a number"),
        ('{"seed": 1, "against": "x", "nxt": 1}', "nxt: unknown key: did you mean next"),
        ('{"seed": 1, "against": "x", "kinds": ["y"]}', "kinds: must be an array of arrays of strings"),
    ],
)
def test_no_state(tmp_path: Path, text: str, error: str) -> None:
    """A file that is not a state is a UsageError that names file and field."""
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"run\.json: {error}"):
        state.load(str(path), 1, "x")


def test_the_file_is_whole_or_old(tmp_path: Path) -> None:
    """Saving replaces the file in one go: it is never half written."""
    path = tmp_path / "run.json"
    run = state.load(str(path), 1, "x")
    for step in range(5):
        run.steps = step
        run.save(str(path))
        assert json.loads(path.read_text())["steps"] == step
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]
