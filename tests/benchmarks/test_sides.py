# SPDX-License-Identifier: MIT
"""What ``make bench`` does with sides that fail, and with the answers of a guest; the programs still print the rows."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fastpath
import pytest
from bench import rows, sides
from bench.realkernel import real
from bench.rows import ROWS
from lacking import needs

from kvmabi.errors import UsageError


def fails(times: list[int]) -> dict[str, float]:
    times.append(1)
    raise UsageError("there is no qemu")


def test_a_side_that_lacks_something_is_asked_once() -> None:
    """The others are measured in every round."""
    times: list[int] = []
    measured = sides.measure({"lacking": partial(fails, times), "there": lambda: {"get": 1.0}}, 3)
    assert times == [1]
    assert measured.missing == {"lacking": "there is no qemu"}
    assert measured.values("there", "get") == [1.0] * 3


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        ("x.c:1: error: no such thing\ncollect2: failed\n", "x.c:1: error: no such thing"),
        ("first\nlast\n\n", "last"),
        ("", "cc ended with 4"),
    ],
)
def test_reason(stderr: str, line: str) -> None:
    """One line, even of a compiler that prints many."""
    assert sides.reason(subprocess.CalledProcessError(4, ["cc"], stderr=stderr)) == line


def missing_static(folder: Path) -> Path:
    return fastpath.compiled(folder, ("cc",), "-static", "-lno-such-library")


def test_compiler_that_cannot(tmp_path: Path) -> None:
    """A program that does not compile is a side that lacks something, not a traceback."""
    with pytest.raises(UsageError, match="no-such-library"):
        sides.program(partial(missing_static, tmp_path), fastpath.host(tmp_path), "reports on")


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one gets one line."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no cc"):
        sides.program(partial(sides.native, tmp_path), fastpath.host(tmp_path), "reports on")


def test_guest() -> None:
    """The figures have the names that rows ask for; the number of registers is kept."""
    kernel = real("get, other buffer|4000;save of 276 registers|1057168;restore of 276 registers|9;", "Linux 9", 1.5)
    assert (kernel.name, kernel.registers) == ("Linux 9", 276)
    assert kernel.figures == {
        rows.OTHER_GET: 4.0,
        rows.SAVE: pytest.approx(1057.168),
        rows.RESTORE: pytest.approx(0.009),
        rows.BOOT: 1.5e6,
    }


def test_guest_that_fails() -> None:
    """What the program printed is the error."""
    with pytest.raises(UsageError, match="Linux 9 gave no figures: /dev/kvm: No such file"):
        real("/dev/kvm: No such file or directory;", "Linux 9", 1.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "names"),
    [
        pytest.param(sides.native, (rows.NATIVE, rows.NATIVE_OFF), id="native"),
        pytest.param(sides.static, (rows.STATIC,), id="static"),
        pytest.param(
            sides.arm64,
            (rows.ARM64, rows.ARM64_OFF),
            id="arm64",
            marks=[
                needs("aarch64-linux-gnu-gcc", what="an arm64 cross compiler"),
                needs("qemu-aarch64", what="qemu-user"),
            ],
        ),
    ],
)
def test_programs_print_the_rows(build: Callable[[Path], Path], names: tuple[str, ...], tmp_path: Path) -> None:
    """Every figure that a row of the side names is in the program's output."""
    figures = sides.program(partial(build, tmp_path), fastpath.host(tmp_path), "reports off")
    assert {row.figure for row in ROWS if row.side in names} <= set(figures)
    assert all(value > 0 for value in figures.values())
