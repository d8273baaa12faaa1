# SPDX-License-Identifier: MIT
"""The report of ``kvmabi run``: the same verdict as text, JSON, JUnit's XML, SARIF, a line and annotations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.readers import run_of, suite_of
from cli.schemas import validate
from kvmabi.cli import github
from kvmabi.cli.remarks import Remarks
from kvmabi.cli.runforms import annotated
from kvmabi.cli.runreport import render, summary
from kvmabi.events import Origin
from kvmabi.order import Finding, Loss, NotJudged, Pair, Severity, Verdict
from kvmabi.order.causes import CAUSES

FORMS = ("text", "json", "junit", "sarif")
ANYTHING = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.integers(0, 5)


def origin_of(frames: tuple[str, ...]) -> Origin:
    """Where in a program something happened."""
    origin = Origin()
    origin.fill(7, 8, "vcpu0", lambda: frames)
    return origin


LOSS = Loss("z9", 0x6080000000150120, (4, 5), "event 5 wrote svcr = 0x1", b"\x01\x02", b"\x01\x02", None, False)
PAIR = Pair(2, 0, 1, 0, 12, 80, 0.5, 415, False, 1, "")
LOST = Finding("destroyed", 2, 0, (LOSS,), PAIR)
LATENT = Finding("vls-late-equal", 2, 0, (LOSS,), PAIR)
ALONE = Finding("changed", 3, 0, (LOSS,))
UNJUDGED = NotJudged(4, 1, 17, "two saves fit", "declare the pair", True)

PAIRS = st.builds(
    Pair,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.floats(0, 9),
    NUMBERS,
    st.booleans(),
    NUMBERS,
    ANYTHING,
)
VALUES = st.none() | st.binary(max_size=4)
LOSSES = st.builds(
    Loss,
    ANYTHING,
    st.integers(0, 2**64 - 1),
    st.lists(NUMBERS).map(tuple),
    ANYTHING,
    VALUES,
    VALUES,
    VALUES,
    st.booleans(),
)
FRAMES = ANYTHING | st.builds("{} at {}:{}".format, ANYTHING, ANYTHING, st.integers(0, 10**12))
ORIGINS = st.tuples(ANYTHING, st.lists(FRAMES, max_size=3).map(tuple).map(origin_of))


FINDINGS = st.builds(
    Finding,
    cause=st.sampled_from(sorted(CAUSES)),
    vm=NUMBERS,
    vcpu=NUMBERS,
    losses=st.lists(LOSSES, min_size=1, max_size=20).map(tuple),
    pair=st.none() | PAIRS,
    lines=st.lists(ANYTHING, max_size=2).map(tuple),
    notes=st.lists(ANYTHING, max_size=2).map(tuple),
    origins=st.lists(ORIGINS, max_size=2).map(tuple),
)
VERDICTS = st.builds(
    Verdict,
    events=NUMBERS,
    findings=st.lists(FINDINGS, max_size=3).map(tuple),
    judged=st.lists(PAIRS, max_size=2).map(tuple),
    not_judged=st.lists(
        st.builds(NotJudged, NUMBERS, NUMBERS, NUMBERS, ANYTHING, ANYTHING, st.booleans()), max_size=2
    ).map(tuple),
)


def made(
    events: int,
    findings: tuple[Finding, ...],
    judged: tuple[Pair, ...] = (),
    not_judged: tuple[NotJudged, ...] = (),
) -> Verdict:
    """A verdict."""
    return Verdict(events, findings, judged, not_judged)


@given(verdict=VERDICTS, lines=st.lists(ANYTHING, max_size=2), program=ANYTHING)
def test_any_verdict_in_any_form(verdict: Verdict, lines: list[str], program: str) -> None:
    """Every form is well-formed and has every finding; names, reasons, paths and frames may be anything."""
    reports = {form: render(verdict, form, Remarks(lines, lines), program=program) for form in FORMS}
    assert len(validate("run", reports["json"])["findings"]) == len(verdict.findings)
    suite_of(reports["junit"])
    assert len(run_of(reports["sarif"])["results"]) == len(verdict.findings)
    assert all(str(finding) in reports["text"] for finding in verdict.findings)
    for annotation in annotated(verdict):
        assert github.text(annotation).isprintable()


def test_json() -> None:
    """The verdict, every register with its values in hex, the pair, and what was not judged."""
    report = validate("run", render(made(90, (LOST, ALONE), (PAIR,), (UNJUDGED,)), "json", Remarks(["w"], ["r"])))
    assert (report["events"], report["verdict"], report["warnings"], report["refused"]) == (90, "lost", ["w"], ["r"])
    lost, alone = report["findings"]
    assert (lost["kind"], lost["vm"], lost["vcpu"], lost["severity"]) == ("destroyed-by-svcr", 2, 0, "lost")
    assert lost["registers"] == [
        {
            "name": "z9",
            "id": "0x6080000000150120",
            "events": [4, 5],
            "why": "event 5 wrote svcr = 0x1",
            "saved": "0102",
            "written": "0102",
            "left": None,
            "consequence": False,
        }
    ]
    assert lost["pair"] == report["judged"][0]
    assert alone["pair"] is None
    assert report["not_judged"][0]["is_restore"] is True


@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (made(3, (), (PAIR,)), "clean"),
        (made(3, ()), "nothing judged"),
        (made(0, ()), "nothing judged"),
        (made(3, (LATENT,)), "latent"),
        (made(3, (LATENT, ALONE)), "changed"),
        (made(3, (LATENT, LOST, ALONE)), "lost"),
    ],
)
def test_verdict_is_the_worst(verdict: Verdict, word: str) -> None:
    assert validate("run", render(verdict, "json", Remarks()))["verdict"] == word


def test_junit_has_a_case_for_each_pair() -> None:
    """A pair with a finding fails, one without passes; what was not judged is skipped, and says why."""
    good = replace(PAIR, vm=7)
    verdict = made(90, (LOST, LATENT, ALONE), (PAIR, good), (UNJUDGED,))
    suite = suite_of(render(verdict, "junit", Remarks(["a warning"])))
    failed, passed, alone, skipped = suite.findall("testcase")
    assert failed.get("name") == "VM 2 vCPU 0 restored from VM 1 vCPU 0"
    assert (failed[0].tag, failed[0].get("type"), failed[0].get("message")) == (
        "failure",
        "destroyed-by-svcr",
        LOST.title,
    )
    assert LATENT.title in (failed[0].text or "")
    assert (passed.get("name"), len(passed)) == ("VM 7 vCPU 0 restored from VM 1 vCPU 0", 0)
    assert (alone.get("name"), alone[0].tag) == ("VM 3 vCPU 0: restore-differs", "failure")
    assert (skipped[0].tag, skipped[0].get("message")) == ("skipped", "not judged: two saves fit: declare the pair")
    assert "a warning" in (suite.findtext("system-out") or "")


def test_junit_fails_for_the_severities_asked_for() -> None:
    """Latent findings do not fail a case, unless ``fails`` says so."""
    verdict = made(9, (LATENT,), (PAIR,))
    passed = suite_of(render(verdict, "junit", Remarks()))
    assert passed.get("failures") == "0"
    assert LATENT.title in (passed.findtext("testcase/system-out") or "")
    assert suite_of(render(verdict, "junit", Remarks(), fails=set(Severity))).get("failures") == "1"


@pytest.mark.parametrize(("events", "why"), [(0, "/dev/kvm was never used"), (9, "no save and restore was seen")])
def test_junit_is_never_empty(events: int, why: str) -> None:
    """If nothing was judged there is one case, which is skipped and says why."""
    (case,) = suite_of(render(made(events, ()), "junit", Remarks()))
    assert (case[0].tag, case[0].get("message")) == ("skipped", f"nothing was judged: {why}")


def test_strict() -> None:
    """A restore that was not judged fails its case and is annotated; another vCPU is skipped. The line counts it."""
    verdict = made(9, (), (), (UNJUDGED, replace(UNJUDGED, vm=5, is_restore=False)))
    restored, other = suite_of(render(verdict, "junit", Remarks(), strict=True))
    assert (restored[0].tag, other[0].tag) == ("failure", "skipped")
    assert suite_of(render(verdict, "junit", Remarks())).get("failures") == "0"
    (annotation,) = annotated(verdict, strict=True)
    assert annotation.message == "VM 4 vCPU 1 was not judged: two saves fit: declare the pair"
    assert list(annotated(verdict)) == []
    assert summary(verdict, "f") == "no findings, 1 restored vCPU not judged: the report is in f"


@pytest.mark.parametrize("form", FORMS)
def test_strict_where_nothing_was_judged(form: str) -> None:
    """Registers were saved, or written, and nothing was judged: a strict report says so, and the verdict fails."""
    set_up = replace(UNJUDGED, is_restore=False)
    for verdict in (Verdict(9, (), (), (), saves=1), Verdict(9, (), (), (set_up,))):
        assert verdict.fails(strict=True)
        assert not verdict.fails()
        assert ("nothing was judged: declare" in render(verdict, form, Remarks(), strict=True)) is (form != "json")
        assert "nothing was judged: declare" not in render(verdict, form, Remarks())
        assert [one.title for one in annotated(verdict, strict=True)] == ["kvmabi: nothing was judged"]
        assert summary(verdict, "f") == "no findings, and nothing was judged: the report is in f"
    for verdict in (Verdict(9, (), (PAIR,), (), saves=1), Verdict(9, (), (), ())):
        assert not verdict.fails(strict=True)


def test_sarif_levels_rules_and_places() -> None:
    """Severities as levels, kinds as rules, vCPU and registers as logical locations, the innermost line as place."""
    origin = origin_of(("memcpy", "restore at /nowhere/vmm.c:41", "main at /nowhere/vmm.c:9"))
    lost = Finding("destroyed", 2, 0, (LOSS,), PAIR, origins=(("z9 was written", origin),))
    run = run_of(render(made(9, (lost, LATENT, ALONE)), "sarif", Remarks(["w"], ["r"]), program="/nowhere/vmm"))
    first, second, third = run["results"]
    assert [first["level"], second["level"], third["level"]] == ["error", "note", "warning"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == [f"{found.kind}/{found.cause}" for found in (LOST, LATENT, ALONE)]
    (location,) = first["locations"]
    assert location["physicalLocation"] == {
        "artifactLocation": {"uri": "file:///nowhere/vmm.c"},
        "region": {"startLine": 41},
    }
    names = [thing["fullyQualifiedName"] for thing in location["logicalLocations"]]
    assert names == ["VM 2/vCPU 0", "VM 2/vCPU 0/z9"]
    (stack,) = first["stacks"]
    assert (stack["message"]["text"], len(stack["frames"])) == ("z9 was written", 3)
    program = {"artifactLocation": {"uri": "file:///nowhere/vmm"}}
    assert second["locations"][0]["physicalLocation"] == program
    notices = run["invocations"][0]["toolExecutionNotifications"]
    assert [(notice["level"], notice["message"]["text"]) for notice in notices] == [("warning", "w"), ("note", "r")]


def test_sarif_without_a_file() -> None:
    """Without origins and program a result has only its logical location."""
    (result,) = run_of(render(made(9, (LOST,)), "sarif", Remarks()))["results"]
    assert "physicalLocation" not in result["locations"][0]


def test_annotations() -> None:
    """Errors, warnings and notices; at the line of the source, if it is known."""
    lost = Finding("destroyed", 2, 0, (LOSS,), PAIR, origins=(("", origin_of(("restore at vmm.c:41",))),))
    lines = [github.text(one) for one in annotated(made(9, (lost, ALONE, LATENT)))]
    assert lines[0].startswith(
        "::error title=kvmabi%3A values destroyed by a later SVCR write,file=vmm.c,line=41::values"
    )
    assert lines[0].endswith("z9. event 5 wrote svcr = 0x1. Fix: write svcr before these registers.")
    assert lines[1].startswith("::warning title=kvmabi%3A other values than were saved::")
    assert lines[2].startswith("::notice ")


def test_many_registers_are_counted() -> None:
    """An annotation names some of the registers and counts the rest."""
    many = replace(LOST, losses=tuple(LOSS._replace(name=f"z{number}") for number in range(32)))
    (annotation,) = annotated(made(9, (many,)))
    assert "z11 and 20 more." in annotation.message


@given(verdict=VERDICTS)
def test_summary_counts(verdict: Verdict) -> None:
    """How many findings of each severity, and where the report is."""
    counts = Counter(str(finding.severity) for finding in verdict.findings)
    line = summary(verdict, "out.xml")
    assert line.endswith("the report is in out.xml")
    assert line.startswith(f"{len(verdict.findings) or 'no'} finding")
    assert all(f"{count} {severity}" in line for severity, count in counts.items())


def test_text_has_warnings_and_refusals() -> None:
    """Below the verdict, each under its heading."""
    text = render(made(9, (LOST,)), "text", Remarks(["the VM is dead"], ["EBUSY"]))
    assert text.splitlines()[-4:] == [
        "kvmabi: warnings:",
        "  the VM is dead",
        "kvmabi: the program failed; what was refused last:",
        "  EBUSY",
    ]
