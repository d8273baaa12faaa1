# SPDX-License-Identifier: MIT
"""Reading traces: steps as written, one clear line for other text, and an end to every file."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from kvmabi.cli import main
from kvmabi.errors import UsageError
from kvmabi.steps.trace import MAX_LINE, Trace, trace_paths, write

HEAD = "# host h\n# seq 1.0\n"


@pytest.fixture
def steps(tmp_path: Path):
    """Reads the steps of a text as a trace."""

    def read(text: str):
        path = tmp_path / "a.trace"
        path.write_text(text, "utf-8")
        trace = Trace(str(path))
        return [(*step, trace.sequence) for step in trace.steps()]

    return read


def test_steps_carry_line_and_sequence(steps) -> None:
    """Comments are not steps, empty lines count, the last sequence named is the step's."""
    read = steps(HEAD + "N 1\tOK\n\n# seq 1.1\n# a comment\nG 0 6030 3\tOK 00*8.\n")
    assert read == [(3, "N 1", "OK", "1.0"), (7, "G 0 6030 3", "OK 00*8.", "1.1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the trace is empty"),
        ("N 1\tOK\n", ":1: a trace begins with"),
        ("# host \n", ":1: a trace begins with"),
        ("# seq # host h\n", ":1: a trace begins with"),
        (HEAD + "N 1 OK\n", ":3: 'N 1 OK' is not a step with an answer"),
        (HEAD + "\tOK\n", ":3: "),
        (HEAD + "N " + "1" * MAX_LINE + "\tOK\n", ":3: longer than 1 MiB"),
        ("x" * (MAX_LINE + 1), ":1: longer than 1 MiB"),
    ],
)
def test_what_is_not_a_trace_is_one_clear_line(steps, text: str, message: str) -> None:
    """The line's number and its beginning."""
    with pytest.raises(UsageError) as error:
        steps(text)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_kernel_may_follow_the_host(steps, tmp_path: Path) -> None:
    """The header's second line names the kernel; without one the host's profile does."""
    path = tmp_path / "a.trace"
    path.write_text("# host h\n# kernel k\nN 1\tOK\n")
    trace = Trace(str(path))
    assert (trace.host, trace.kernel) == ("h", "k")
    assert list(trace.steps()) == [(3, "N 1", "OK")]
    path.write_text(HEAD + "# kernel late\nN 1\tOK\n")
    assert Trace(str(path)).kernel is None


def test_lines_are_read_across_blocks(steps) -> None:
    """A line longer than a block is read whole; the last one may lack its end."""
    long = "S 0 0 " + "00" * 100_000
    assert steps(f"{HEAD}{long}\tOK\nN 1\tOK") == [(3, long, "OK", "1.0"), (4, "N 1", "OK", "1.0")]


@pytest.mark.parametrize("name", ["a.trace", "a.trace.xz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    """Plain or packed, written at once or in parts."""
    path = str(tmp_path / name)
    write(path, "h", [("1", [("N 1", "OK"), ("R 0", "ENOEXEC")])], kernel="k")
    write(path, "h", [("2", [("N 2", "OK")])], kernel="k", more=True)
    trace = Trace(path)
    assert (trace.host, trace.kernel) == ("h", "k")
    assert [(step, answer, trace.sequence) for _, step, answer in trace.steps()] == [
        ("N 1", "OK", "1"),
        ("R 0", "ENOEXEC", "1"),
        ("N 2", "OK", "2"),
    ]
    write(path, "other", [])
    assert Trace(path).host == "other"
    with pytest.raises(UsageError, match="cannot be written"):
        write(str(tmp_path / "nowhere" / name), "h", [])


def test_packed_traces_are_read_too(tmp_path: Path) -> None:
    """A trace can be xz; a truncated one is an error."""
    path = tmp_path / "a.trace.xz"
    path.write_bytes(packed := lzma.compress((HEAD + "N 1\tOK\n" * 50_000).encode()))
    assert sum(1 for _ in Trace(str(path)).steps()) == 50_000
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match="cannot be read as a trace"):
        list(Trace(str(path)).steps())


def test_a_line_without_end_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/zero is one line without end."""
    assert main(["replay", "/dev/zero"]) == 2
    assert "longer than 1 MiB" in capsys.readouterr().err


def test_bytes_that_are_not_text_are_reported(tmp_path: Path) -> None:
    """A trace is UTF-8."""
    path = tmp_path / "a.trace"
    path.write_bytes(b"# host h\n\xff\xfe\n")
    with pytest.raises(UsageError, match="cannot be read as a trace"):
        list(Trace(str(path)).steps())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Before anything is replayed."""
    with pytest.raises(UsageError, match="no such file"):
        trace_paths([str(tmp_path / "none.trace")])
