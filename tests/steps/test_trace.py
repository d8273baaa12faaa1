# SPDX-License-Identifier: MIT
"""Reading traces: steps as written, one clear line for what is none, and an end to every file."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi.cli import main
from kvmabi.errors import UsageError
from kvmabi.steps.trace import MAX_LINE_BYTES, WORDS, Trace, trace_paths

HEAD = "# host h\n# seq 1.0\n"


@pytest.fixture
def steps(tmp_path: Path):
    """Reads the steps of a text as a trace."""

    def read(text: str):
        path = tmp_path / "a.trace"
        path.write_text(text, "utf-8")
        return list(Trace(str(path)).steps())

    return read


def test_steps_carry_line_and_sequence(steps) -> None:
    """Comments are no steps, empty lines count, the last sequence named is the step's."""
    found = steps(HEAD + "N 1\tOK\n\n# seq 1.1\n# a comment\nG 0 6030 3\tOK 00*8.\n")
    assert [(step.text, step.answer, step.line, step.sequence) for step in found] == [
        ("N 1", "OK", 3, "1.0"),
        ("G 0 6030 3", "OK 00*8.", 7, "1.1"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the trace is empty"),
        ("N 1\tOK\n", ":1: a trace begins with"),
        ("# host \n", ":1: a trace begins with"),
        ("# seq # host h\n", ":1: a trace begins with"),
        (HEAD + "N 1 OK\n", ":3: 'N 1 OK' is no step with an answer"),
        (HEAD + "\tOK\n", ":3: "),
        (HEAD + "X 1 2 3\tOK\n", ":3: "),
        (HEAD + "G 0\tOK\n", ":3: "),
        (HEAD + "N " + "1" * MAX_LINE_BYTES + "\tOK\n", ":3: longer than 1 MiB"),
        ("x" * (MAX_LINE_BYTES + 1), ":1: longer than 1 MiB"),
    ],
)
def test_what_is_no_trace_is_one_clear_line(steps, text: str, told: str) -> None:
    """The line's number and its beginning."""
    with pytest.raises(UsageError) as error:
        steps(text)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@given(st.sampled_from(sorted(WORDS)), st.integers(0, 6), st.integers(0, 9))
def test_a_step_needs_its_words_and_may_have_more(op: str, words: int, number: int) -> None:
    """More words than a step uses are noise of the generator; fewer are an error."""
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile("w", suffix=".trace") as file:
        file.write(f"{HEAD}{' '.join([op, *[str(number)] * words])}\tOK\n")
        file.flush()
        trace = Trace(file.name)
        if words >= WORDS[op]:
            (step,) = trace.steps()
            assert (step.op, step.words) == (op, [str(number)] * words)
        else:
            with pytest.raises(UsageError, match="is no step"):
                list(trace.steps())


def test_packed_traces_are_read_too(tmp_path: Path) -> None:
    """A trace may be xz; one that is broken off is told."""
    path = tmp_path / "a.trace.xz"
    path.write_bytes(packed := lzma.compress((HEAD + "N 1\tOK\n" * 50_000).encode()))
    assert sum(1 for _ in Trace(str(path)).steps()) == 50_000
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match="cannot be read as a trace"):
        list(Trace(str(path)).steps())


def test_a_line_without_end_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/zero is one line for ever."""
    assert main(["replay", "/dev/zero"]) == 2
    assert "longer than 1 MiB" in capsys.readouterr().err


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    """A trace is UTF-8."""
    path = tmp_path / "a.trace"
    path.write_bytes(b"# host h\n\xff\xfe\n")
    with pytest.raises(UsageError, match="cannot be read as a trace"):
        list(Trace(str(path)).steps())


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before anything is replayed."""
    with pytest.raises(UsageError, match="no such file"):
        trace_paths([str(tmp_path / "none.trace")])
