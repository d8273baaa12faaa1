# SPDX-License-Identifier: MIT
"""The renderers: the same trace in four forms, and an SVG that a browser renders."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import browsers
import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate.catalogue import bugs, search
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.render.json_ import dump, story_from, trace_dict
from kvmabi.fpstate.render.mermaid import mermaid
from kvmabi.fpstate.render.rows import LIE, SEEN, rows
from kvmabi.fpstate.render.svg import svg
from kvmabi.fpstate.render.text import text
from kvmabi.fpstate.trace import Trace, replay
from kvmabi.fpstate.variants import find_variant


def _trace(bug: str) -> Trace:
    trace = search(bugs()[bug], find_variant(bugs()[bug].present_in[-1])).trace
    assert trace is not None
    return trace


@pytest.mark.slow
@pytest.mark.parametrize("bug", list(bugs()))
def test_every_form_has_every_step(bug: str) -> None:
    """Text, Mermaid, SVG and JSON have one entry per step, and mark the observation once."""
    trace = _trace(bug)
    steps = len(trace.steps)
    assert text(trace).count(f" {SEEN}") >= 1
    assert [r.number for r in rows(trace)] == list(range(1, steps + 1))
    drawing = mermaid(trace)
    assert all(f": {n} " in drawing for n in range(1, steps + 1))
    assert ";" not in drawing
    ElementTree.fromstring(svg(trace))
    assert len(json.loads(dump(trace_dict(trace)))["events"]) == steps


def test_text_has_one_column_a_cpu() -> None:
    """Two CPUs have two columns; the acting CPU is marked with a star."""
    lines = text(_trace("C1x")).splitlines()
    assert lines[1].split()[:4] == ["#", "CPU0", "CPU1", "event"]
    assert sum(LIE in line for line in lines) == 2
    assert lines[2].count("*") == 1


def test_json_replays_to_the_same_trace() -> None:
    """Events and configuration survive; the replay ends in the same breach."""
    trace = _trace("A1")
    config, story = story_from(dump(trace_dict(trace)))
    again, stop = replay(trace.variant, config, story, select("O1.V"))
    assert stop == ""
    assert again.observation == trace.observation
    assert text(again) == text(trace)


BROKEN = ["", "[]", "{}", '{"config": {}, "events": [{}]}', '{"config": {"x": 1}, "events": []}', "1"]


@pytest.mark.parametrize("data", BROKEN)
def test_broken_json_is_misuse(data: str) -> None:
    """Never an internal error."""
    with pytest.raises(UsageError):
        story_from(data)


def _pixels(path: Path) -> bytes:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") > 400
    return data


def test_svg_is_drawn(tmp_path: Path) -> None:
    """A browser renders the picture in the size that the SVG declares."""
    page = tmp_path / "trace.svg"
    page.write_text(svg(_trace("C1x")))
    shot = browsers.screenshot(page, tmp_path)
    assert len(_pixels(shot)) > 5_000


def test_svg_text_stays_inside_the_picture() -> None:
    """No text begins outside the declared width, and the longest line fits at 7.3 px per character."""
    for bug in ("B2", "C1x", "H3"):
        root = ElementTree.fromstring(svg(_trace(bug)))
        width = float(root.attrib["width"])
        for node in root.iter("{http://www.w3.org/2000/svg}text"):
            assert float(node.attrib["x"]) + 7.3 * len(node.text or "") <= width + 1
