# SPDX-License-Identifier: MIT
"""The table of ``make bench``, made of figures that are chosen here."""

from __future__ import annotations

import json

import pytest
from bench import rows
from bench.rows import BARE, RECORDED, ROWS, Row
from bench.table import Line, Measured, Real, lines, text, to_json

KERNEL = Real("Linux 9 in QEMU", {"get": 3.0}, recorded=False)
GET = Row("side", "get", "a get", 0.5, "get")


def measured(*gets: float, bare: float = 0.2) -> Measured:
    """One side with these figures of its get, a round each."""
    return Measured({BARE[0]: [{BARE[1]: bare}], "side": [{"get": value} for value in gets]})


def line(*gets: float, row: Row = GET, bare: float = 0.2) -> Line:
    [made] = lines(measured(*gets, bare=bare), KERNEL, [row])
    return made


def test_median_and_extremes() -> None:
    """One slow round does not move the median, and is shown."""
    made = line(0.4, 90.0, 0.1)
    assert (made.median, made.least, made.most) == (0.4, 0.1, 90.0)


def test_ratios() -> None:
    """To the bare ioctl and to the real kernel: how many of them it costs."""
    made = line(0.6, bare=0.2)
    assert made.times_bare == pytest.approx(3)
    assert made.times_real == pytest.approx(0.2)


def test_target() -> None:
    """A figure equal to its target meets it; a row without a target meets nothing and misses nothing."""
    assert line(0.5).met is True
    assert line(0.51).met is False
    assert line(0.5, row=GET._replace(target=None)).met is None


def test_saves_are_compared_by_register() -> None:
    """A kernel whose vCPU has half as many registers and takes half as long is as fast."""
    kernel = Real("Linux 9", {"save": 50.0, "get": 50.0}, recorded=False, registers=100)
    figures = Measured({"side": [{"save of 200 registers": 100.0, "get": 100.0}]})
    saved, got = lines(figures, kernel, [Row("side", "save of 200 registers", "save", None, "save"), GET])
    assert (saved.real, saved.times_real) == (50, 1)
    assert got.times_real == 2
    assert "Linux 9, whose vCPU has 100 registers" in text([saved], kernel, [])


def test_no_equivalent_of_a_real_kernel() -> None:
    """A figure that the kernel does not have leaves its columns empty."""
    made = line(0.5, row=GET._replace(real="svcr"))
    assert (made.real, made.times_real) == (None, None)


def test_side_that_lacks_something() -> None:
    """It is one line with the reason, however many rows it has."""
    lacking = Measured(missing={"side": "install qemu-user"})
    table = lines(lacking, KERNEL, [GET, GET._replace(title="another get")])
    assert [(made.title, made.missing) for made in table] == [("left out", "install qemu-user")]
    assert "  left out: install qemu-user" in text(table, KERNEL, []).splitlines()


def test_side_that_fails_later() -> None:
    """What the earlier rounds measured is kept."""
    figures = measured(0.5)
    figures.missing["side"] = "killed"
    [made] = lines(figures, KERNEL, [GET])
    assert made.median == 0.5


def test_unknown_figure() -> None:
    """A program that no longer prints a figure is reported, not left out silently."""
    assert line(0.5, row=GET._replace(figure="renamed")).missing == "not measured"


def test_text() -> None:
    """Times have three digits; the side is a heading; notes come last."""
    printed = text([line(1234.5), line(0.0412)], KERNEL, ["load 9"]).splitlines()
    assert printed[2] == "side"
    assert " ".join(printed[3].split()) == "a get 1,234 1,234 1,234 6,172 0.500 missed 3.00 412"
    assert " ".join(printed[4].split()) == "a get 0.041 0.041 0.041 0.206 0.500 met 3.00 0.014"
    assert printed[-2:] == ["real kernel: Linux 9 in QEMU", "load 9"]


def test_recorded_figures_are_marked() -> None:
    """A star, and a line that explains it."""
    recorded = Real("a kernel of another day", {"get": 3.2}, recorded=True)
    printed = text(lines(measured(0.5), recorded, [GET]), recorded, [])
    assert "3.20*" in printed
    assert printed.endswith("* recorded, not of this run: a kernel of another day")


def test_json() -> None:
    """The same figures, not rounded, with the facts on how they were measured."""
    loaded = json.loads(to_json([line(1 / 3)], KERNEL, {"rounds": 1}))
    assert loaded["rounds"] == 1
    assert loaded["real_kernel"] == {"name": "Linux 9 in QEMU", "recorded": False, "registers": 0}
    assert loaded["rows"][0]["median"] == 1 / 3


def test_rows() -> None:
    """No figure is shown twice, and each recorded figure belongs to a row."""
    assert len({(row.side, row.figure) for row in ROWS}) == len(ROWS)
    assert len({(row.side, row.title) for row in ROWS}) == len(ROWS)
    assert set(RECORDED) <= {row.real for row in ROWS}
    assert (ROWS[0].side, ROWS[0].figure) == BARE
    assert rows.BARE[0] == rows.NATIVE_OFF
