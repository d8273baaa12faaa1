# SPDX-License-Identifier: MIT
"""The growth curves: axes that fit, and a picture that is well-formed and shows every point."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from bench.__main__ import pictures
from bench.curves import HEIGHT, WIDTH, svg, ticks
from bench.growth import Fleet, Growth, Saved
from hypothesis import example, given
from hypothesis import strategies as st

from kvmabi.model.state import SIZE_BYTES

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (512, [0, 200, 400, 600]),
        (0.67, [0, 0.2, 0.4, 0.6, 0.8]),
        (5, [0, 1, 2, 3, 4, 5]),
        (100, [0, 20, 40, 60, 80, 100]),
    ],
)
def test_ticks(most: float, expected: list[float]) -> None:
    """Round numbers from 0 to at least the largest value."""
    assert ticks(most) == pytest.approx(expected)


@given(st.floats(1e-9, 1e12))
@example(0.5000000005)
def test_ticks_cover(most: float) -> None:
    """The largest value is on the axis, which is not much longer."""
    marks = ticks(most)
    assert 2 <= len(marks) <= 6
    assert most * (1 - 1e-6) <= marks[-1] <= most * 2.5


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=8))
def test_points_are_in_the_picture(points: list[tuple[float, float]]) -> None:
    """Each is a circle inside, whatever the values, zeroes only included."""
    root = ET.fromstring(svg("a <title>", "x", "y & z", points))
    circles = root.findall(f"{SVG}circle")
    assert len(circles) == len(points)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= HEIGHT


def test_more_is_higher() -> None:
    """y grows upwards, x to the right."""
    first, second = ET.fromstring(svg("t", "x", "y", [(1, 10), (2, 20)])).findall(f"{SVG}circle")
    assert float(second.attrib["cx"]) > float(first.attrib["cx"])
    assert float(second.attrib["cy"]) < float(first.attrib["cy"])


GROWTH = Growth([Fleet(1, 0.1, 1000), Fleet(3, 0.3, 1000 + 4 * SIZE_BYTES)], [Saved(303, 50.0), Saved(543, 70.0)])


def test_memory_ratio() -> None:
    """What does not depend on the number of vCPUs does not count."""
    assert GROWTH.memory_ratio == 2


def test_pictures() -> None:
    """One for each curve, small enough for a repository."""
    made = pictures(GROWTH)
    assert set(made) == {"growth-time.svg", "growth-memory.svg", "growth-save.svg"}
    for picture in made.values():
        ET.fromstring(picture)
        assert len(picture) < 4096
