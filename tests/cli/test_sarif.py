# SPDX-License-Identifier: MIT
"""SARIF 2.1.0: what the standard requires of the parts that are written, whatever the texts hold."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.readers import run_of
from kvmabi.cli.sarif import Level, Notice, Place, Report, Result, Rule, Stack, Thing, uri, write

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=20)
PATHS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
NO_PATHS = st.text(st.characters(exclude_categories=()), min_size=1, max_size=20)
RULES = ("one", "two", "\ud800")
RESULTS = st.builds(
    Result,
    rule=st.sampled_from(RULES),
    level=st.sampled_from(Level),
    message=ANYTHING,
    things=st.lists(st.builds(Thing, kind=st.just("register"), name=ANYTHING), max_size=3).map(tuple),
    place=st.none() | st.builds(Place, path=NO_PATHS, line=st.integers(0, 99)),
    stacks=st.lists(
        st.builds(
            Stack,
            label=ANYTHING,
            places=st.lists(
                st.builds(Place, path=st.just("") | PATHS, line=st.integers(0, 99), function=ANYTHING), max_size=2
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
)


@given(results=st.lists(RESULTS, max_size=4), texts=st.lists(ANYTHING, min_size=4, max_size=4))
def test_hostile_strings(results: list[Result], texts: list[str]) -> None:
    """Any texts, names and paths: the report is valid and keeps every result in its place and level."""
    rules = [Rule(id, *texts[:3]) for id in RULES]
    run = run_of(write(Report("kvmabi run", rules, results, [Notice(Level.NOTE, texts[3])])))
    assert [result["level"] for result in run["results"]] == [result.level for result in results]
    for result, found in zip(results, run["results"], strict=True):
        (location,) = found.get("locations", [{}])
        assert ("physicalLocation" in location) == (result.place is not None)
        if result.place is not None and result.place.line:
            assert location["physicalLocation"]["region"]["startLine"] == result.place.line


@given(path=PATHS)
def test_uri_is_the_path(path: str) -> None:
    """A reader that decodes the reference, from the working directory, has the path again."""
    parts = urlsplit(uri(path))
    assert parts.scheme in ("", "file")
    assert not parts.query
    assert not parts.fragment
    read = os.path.join(os.fsencode(Path.cwd()), unquote_to_bytes(parts.path))
    assert os.path.normpath(read) == os.fsencode(os.path.abspath(path))


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("a b.c", "a%20b.c"),
        ("./src/../src/a.c", "src/a.c"),
        ("c:a", "c%3Aa"),
        ("/nowhere/a.c", "file:///nowhere/a.c"),
        (os.fsdecode(b"\xff.c"), "%FF.c"),
        ("\ud800.c", "%5Cud800.c"),
        ("/\ud800.c", "file:///%5Cud800.c"),
    ],
)
def test_uri(path: str, reference: str) -> None:
    """Relative below the working directory; names that are not UTF-8 byte for byte, and those that no file has."""
    assert uri(path) == reference


def test_a_link_in_a_message_is_text() -> None:
    """SARIF shows ``[text](target)`` as a link; a trace or a program cannot put one there."""
    run = run_of(write(Report("c", [Rule("r", "t", "t", "h")], [Result("r", Level.ERROR, "[here](https://x)")])))
    assert "](" not in run["results"][0]["message"]["text"]


def test_nothing_found() -> None:
    """A report without results is one run that succeeded."""
    run = run_of(write(Report("kvmabi run", [], [])))
    assert (run["results"], run["invocations"]) == ([], [{"executionSuccessful": True}])
