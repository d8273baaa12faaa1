# SPDX-License-Identifier: MIT
"""JUnit's XML: any XML parser reads it, whatever the names and texts hold."""

from __future__ import annotations

import xml.dom.minidom

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.readers import suite_of
from kvmabi.cli.junit import Case, Suite, escape, write

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=30)
"""Surrogates and control characters, too."""
CASES = st.builds(
    Case,
    group=ANYTHING,
    name=ANYTHING,
    seconds=st.floats(0, 1e6),
    failure=ANYTHING,
    kind=ANYTHING,
    details=ANYTHING,
    skipped=ANYTHING,
    output=ANYTHING,
)


@given(suite=st.builds(Suite, name=ANYTHING, cases=st.lists(CASES, max_size=4), output=ANYTHING))
@example(Suite("]]>", [Case("<a>&\"'", "\x00\x1b[2J\x85\r\n\t", failure="]]>", details="<![CDATA[ ]]>\r")], "\ufffe"))
def test_hostile_strings(suite: Suite) -> None:
    """Every string comes back as ``escape`` has it, and two parsers accept the text."""
    text = write(suite)
    xml.dom.minidom.parseString(text.encode("ascii"))
    element = suite_of(text)
    assert element.get("name") == escape(suite.name)
    for case, found in zip(suite.cases, element.findall("testcase"), strict=True):
        assert found.get("classname") == escape(case.group)
        assert (found.get("name") or "").startswith(escape(case.name))
        if case.failure:
            failure = found[0]
            assert failure.get("message") == escape(case.failure)
            assert (failure.text or "") == escape(case.details)
        elif case.skipped:
            assert found[0].get("message") == escape(case.skipped)
        else:
            assert len(found) == bool(case.output)
        assert (found.findtext("system-out") or "") == escape(case.output)
    if suite.output:
        assert element.findtext("system-out") == escape(suite.output)


@given(text=ANYTHING)
def test_escape(text: str) -> None:
    """What XML can hold stays as it is; the result has no character that a terminal obeys."""
    escaped = escape(text)
    assert all(char in "\t\n" or char.isprintable() or ord(char) >= 0xA0 for char in escaped)
    assert escape(escaped) == escaped
    if all(char.isprintable() for char in text):
        assert escaped == text


@given(cases=st.lists(CASES, max_size=5))
def test_counts(cases: list[Case]) -> None:
    """The suite's counts are those of its elements."""
    suite = suite_of(write(Suite("s", cases)))
    assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
    assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))
    assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))
    assert suite.get("errors") == "0"


@given(names=st.lists(st.sampled_from(["a", "a (2)", "b"]), max_size=6))
def test_names_differ(names: list[str]) -> None:
    """Cases of one group get different names: some readers keep only one of equal ones."""
    suite = suite_of(write(Suite("s", [Case("g", name) for name in names])))
    written = [case.get("name") for case in suite]
    assert len(set(written)) == len(names)


@pytest.mark.parametrize(
    ("case", "tags"),
    [
        (Case("g", "n"), []),
        (Case("g", "n", failure="f"), ["failure"]),
        (Case("g", "n", skipped="s"), ["skipped"]),
        (Case("g", "n", failure="f", skipped="s"), ["failure"]),
    ],
)
def test_a_case_has_one_outcome(case: Case, tags: list[str]) -> None:
    """Passed, failed or skipped; a failure goes first."""
    (found,) = suite_of(write(Suite("s", [case])))
    assert [element.tag for element in found] == tags
