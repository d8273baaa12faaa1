# SPDX-License-Identifier: MIT
"""The page of a report: a picture of each register file, the findings, nothing from outside and no script."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import browsers
import pytest

import kvmabi
from kvmabi import regid
from kvmabi.snapshot import page, picture
from kvmabi.snapshot.page import MOST_VCPUS, Page
from kvmabi.snapshot.picture import Mark
from kvmabi.snapshot.snapshot import VcpuSnapshot

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x>&\"'"


def vcpu(svcr: int = 3, index: int = 0) -> VcpuSnapshot:
    """A vCPU of the demo host with data in z3 and za.h[5]."""
    with kvmabi.open() as kvm:
        made = kvm.create_vm().create_vcpu(index)
        made.init({"sve", "sme"})
        made.finalize()
        made["svcr"] = svcr
        made["z3"] = bytes([1] * 64 + [0] * 192)
        if svcr & 2:
            made["za.h[5]"] = bytes([1] * 64 + [0] * 192)
        return VcpuSnapshot(index, {id: made[id] for id in made.reg_list()})


def kinds(svg: str, register: str) -> list[str]:
    """The classes of a register's rectangles."""
    root = ElementTree.fromstring(svg)
    return [
        rect.attrib["class"]
        for rect in root.iter(f"{SVG}rect")
        if re.match(rf"{re.escape(register)}(:| =)", rect.findtext(f"{SVG}title") or "")
    ]


def test_what_holds_data() -> None:
    """Data, zero and absent registers look different; ZA is absent while SVCR.ZA = 0."""
    live, off = picture.draw(vcpu()), picture.draw(vcpu(svcr=0))
    assert kinds(live, "z3") == ["room", "data"]
    assert kinds(live, "z4") == ["room"]
    assert kinds(live, "x0") == ["zero"]
    assert kinds(live, "svcr") == ["data"]
    assert kinds(live, "za.h[5]") == ["data"]
    assert kinds(live, "zt0") == ["room"]
    assert kinds(off, "za.h[5]") == []
    assert kinds(off, "zt0") == ["absent"]


@pytest.mark.parametrize("mark", [Mark.DIFFERS, Mark.WARNING, Mark.ERROR])
@pytest.mark.parametrize("register", ["x3", "z3", "za.h[5]", "svcr", "midr_el1"])
def test_marks_win(register: str, mark: Mark) -> None:
    """What a report says about a register is what its colour says."""
    assert kinds(picture.draw(vcpu(), {regid.parse(register): mark}), register)[-1] == mark


def test_missing_registers_are_drawn_where_they_are_reported() -> None:
    """A register that the blob lacks has a place if a report names it."""
    svg = picture.draw(vcpu(svcr=0), {regid.parse("za.h[7]"): Mark.ERROR, regid.parse("tcr2_el1"): Mark.WARNING})
    assert kinds(svg, "za.h[7]") == ["error"]
    assert kinds(svg, "tcr2_el1") == ["warning"]


def test_everything_is_inside_the_picture() -> None:
    """No rectangle of the part that is drawn in place begins beyond the declared size."""
    root = ElementTree.fromstring(picture.draw(vcpu()))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for group in root.iter(f"{SVG}g"):
        left, top = map(float, group.attrib["transform"].removeprefix("translate(").rstrip(")").split())
        for rect in group.iter(f"{SVG}rect"):
            assert left + float(rect.attrib["x"]) + float(rect.attrib["width"]) <= width
            assert top + float(rect.attrib["y"]) + float(rect.attrib["height"]) <= height


def test_many_vcpus() -> None:
    """Of many vCPUs those with marks are drawn, and the page says that there are more."""
    one = vcpu()
    vcpus = [VcpuSnapshot(index, one.registers) for index in range(40)]
    text = page.write([Page("x", vcpus=vcpus, marks={33: {regid.parse("x3"): Mark.ERROR}})])
    assert "vCPU 33:" in text
    assert "24 more vCPUs are not drawn" in text
    assert text.count("<figure>") == MOST_VCPUS


def test_a_browser_shows_it_and_runs_nothing(tmp_path: Path) -> None:
    """Text from a blob stays text; the page has no reference to anything outside; the picture is drawn."""
    path = tmp_path / "page.html"
    path.write_text(
        page.write([Page(HOSTILE, [(HOSTILE, HOSTILE)], (HOSTILE,), [(HOSTILE,)], [vcpu()])]), encoding="utf-8"
    )
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href)\s*=|url\(|<script|<img""", text.replace("src=http://127.0.0.1:9/x", "")) == []
    shown = browsers.content(path, tmp_path)
    assert "<title>kvmabi blob</title>" in shown
    assert "vCPU 0: " in shown
    assert len(browsers.screenshot(path, tmp_path, "1000,1000").read_bytes()) > 20_000
