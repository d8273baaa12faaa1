# SPDX-License-Identifier: MIT
"""The commands: exit statuses, formats, usage errors in one line."""

import io
import json
import xml.etree.ElementTree
from pathlib import Path

import pytest

from kvmabi.cli import main

BACKPORT = "e92bee9f861b x\n2632e2521769 x\naefbab8e77eb x\n"


def _run(line: str) -> int:
    return main(["fpstate", *line.split()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("check --variant v6.16 --events softirq,signal --hw sve", 0),
        ("check --variant v6.8 --tasks 2 --events neon --inv obs", 1),
        ("check --commits base=v6.6,aefbab8e77eb --tasks 2 --events neon", 1),
        ("check --commits base=v6.6,aefbab8e77eb,e92bee9f861b --tasks 2 --events neon", 0),
        ("check --depth 3", 3),
        ("check --states 100", 3),
        ("bug C1 --on v6.8", 0),
        ("bug c1", 0),
        ("bug C1 --on v6.10", 1),
        ("bug C5 --on v5.17", 1),
        ("replay C1 --variant v6.8", 1),
        ("replay C1 --variant v6.10", 0),
        ("diff v6.8 v6.10 --trace C1", 1),
        ("diff v6.14 v6.16 --trace C1", 0),
        ("explain FOREIGN", 0),
        ("explain fp_type --variant v6.2 --format json", 0),
        ("variants", 0),
        ("matrix --variants v6.14 --processes 1", 0),
    ],
)
def test_exit_status(line: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    """0: holds (a bug reproduces), 1: violated (it does not), 3: undecided; there is always output."""
    assert _run(line) == status
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nope",
        "check --variant v4.4",
        "check --variant v6.16-nothing",
        "check --config nope",
        "check --hw mmx",
        "check --events party",
        "check --guest party",
        "check --inv O99",
        "check --cpus 99",
        "check --cpus x",
        "check --depth -1",
        "check --format pdf",
        "check --variant v5.17 --hw sme",
        "check --variant v6.8 --hw fpmr",
        "check --commits e92bee9f861b",
        "check --commits base=v6.6,000000000000",
        "bug",
        "bug Z1",
        "bug C1 --on nope",
        "matrix --variants nope",
        "replay nope --variant v6.8",
        "replay /nonexistent.json --variant v6.8",
        "replay C1",
        "diff v6.8 --trace C1",
        "explain nothing",
        "audit --base v5.15 --commits /nonexistent",
        "audit --base v1.0 --commits /dev/null",
        "audit --base v5.15 --commits /dev/null",
    ],
)
def test_misuse_is_one_line_and_status_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, nothing on stdout."""
    status = _run(line)
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("kvmabi: ")
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["variants", "check", "bug", "matrix", "replay", "diff", "explain", "audit"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command shows how it is called."""
    assert _run(f"{command} --help") == 0
    assert f"kvmabi fpstate {command}" in capsys.readouterr().out.partition("example:")[2]


def test_formats_of_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """Text, JSON, Mermaid and SVG are available for the same trace."""
    outputs = {}
    for form in ("text", "json", "mermaid", "svg"):
        assert _run(f"bug C1 --on v6.8 --format {form}") == 0
        outputs[form] = capsys.readouterr().out
    assert "▲" in outputs["text"]
    assert "✗" in outputs["text"]
    trace = json.loads(outputs["json"])["trace"]
    assert trace["violation"]["first_lie"]["clause"] == "M3"
    assert outputs["mermaid"].startswith("sequenceDiagram")
    xml.etree.ElementTree.fromstring(outputs["svg"])


def test_a_holding_check_has_no_picture(capsys: pytest.CaptureFixture[str]) -> None:
    """stdout is empty, and the verdict goes to stderr."""
    assert _run("check --events softirq --hw sve --format svg") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "exhausted" in captured.err


def test_check_json_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """replay and diff accept a counterexample as JSON, on another kernel."""
    assert _run("check --variant v6.8 --tasks 2 --events neon --inv O1 --format json") == 1
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps(json.loads(capsys.readouterr().out)["trace"]))
    assert _run(f"replay {trace} --variant v6.8") == 1
    assert _run(f"replay {trace} --variant v6.10 --format json") == 0
    assert _run(f"diff v6.8 v6.10 --trace {trace} --format json") == 1


@pytest.mark.slow
def test_audit_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """- is stdin; what remains makes the status 1."""
    monkeypatch.setattr("sys.stdin", io.StringIO(BACKPORT))
    assert _run("audit --base v5.15 --commits -") == 1
    out = capsys.readouterr().out
    assert "without e92bee9f861b" in out
    assert "what remains" in out
    monkeypatch.setattr("sys.stdin", io.StringIO(BACKPORT))
    assert _run("audit --base v5.15 --commits - --format json") == 1
    assert json.loads(capsys.readouterr().out)["mended_by"]["e92bee9f861b"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "outcome"),
    [
        ("check --variant v6.8 --tasks 2 --events neon --inv obs", 1, "failure"),
        ("check --events softirq --hw sve", 0, None),
        ("check --states 100", 3, "skipped"),
        ("replay C1 --variant v6.8", 1, "failure"),
        ("replay C1 --variant v6.10", 0, None),
    ],
)
def test_junit(line: str, status: int, outcome: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """One test case, which fails if an invariant is violated and is skipped if nothing is decided."""
    assert _run(f"{line} --format junit") == status
    suite = xml.etree.ElementTree.fromstring(capsys.readouterr().out)[0]
    (case,) = suite.findall("testcase")
    assert [element.tag for element in case] == ([outcome] if outcome else [])


@pytest.mark.slow
def test_junit_of_an_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A test case for each bug of the base: those that remain fail, with their trace."""
    commits = tmp_path / "commits"
    commits.write_text(BACKPORT)
    words = f"audit --base v5.15 --processes 1 --commits {commits}"
    assert _run(f"{words} --format json") == 1
    audit = json.loads(capsys.readouterr().out)
    assert _run(f"{words} --format junit") == 1
    suite = xml.etree.ElementTree.fromstring(capsys.readouterr().out)[0]
    failed = {failure.get("type") for failure in suite.iter("failure")}
    assert failed == {bug["bug"] for bug in audit["remaining"]}
    assert len(suite.findall("testcase")) == len(set(audit["base_has"]) | failed)
