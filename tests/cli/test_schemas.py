# SPDX-License-Identifier: MIT
"""Each command's JSON output is as its schema in docs/reference/schemas says, and commands.md lists the schemas."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fleet import blobs
from jsonschema import Draft202012Validator, ValidationError

from cli.conftest import Kvmabi
from cli.schemas import FOLDER, SCHEMAS, SUFFIX, validate
from cli.test_formats import COMMANDS
from kvmabi.cli import backend_options, main
from kvmabi.steps.backends.model import ModelBackend

PAGE = FOLDER.parent / "commands.md"
TRACE = "# host sme-demo\n# seq 1.0\nN 1\tOK\nI 0 5 0\tOK\nG 0 6030000000100000\tOK 01*8.\n"
OUTPUTS = [
    ("reg", "reg svcr za.h[3] x0 ccsidr[2] 0xffffffffffffffff", 0),
    ("regs", "regs --features sve,sme --svcr sm,za", 0),
    ("regs", "regs --features sve,sme --not-finalized", 0),
    ("include", "include", 0),
    ("hosts", "hosts", 0),
    ("kernels", "kernels", 0),
    ("kernels-diff", "kernels diff linux-6.1 sme-v12", 0),
    ("matrix", "matrix neoverse-n2 neoverse-v1 a64fx --guest-sve 128", 0),
    ("matrix", "matrix sme-demo sme-sve256-sme512only --guest-sme 256,512", 1),
    ("blob-diff", "blob diff 0x1013c096", 0),
    ("blob-diff", "blob diff LIST --host sme-demo --features sve,sme", 1),
    ("blob-diff", "blob diff LIST LIST", 0),
    ("conformance", "conformance --case life.*", 0),
    ("conformance", "conformance --host a64fx --case sme.* --case life.*", 0),
    ("conformance-list", "conformance --list", 0),
    ("blob-info", "blob info BLOB", 0),
    ("blob-info", "blob info BLOB BLOB --features pmu,psci", 0),
    ("blob-validate", "blob validate BLOB --host neoverse-v1", 1),
    ("blob-plan", "blob plan BLOB", 0),
    ("blob-convert", "blob convert BLOB --to json --out OUT", 0),
    ("replay", "replay TRACE", 1),
    ("fuzz", "fuzz --against trace TRACE", 1),
    ("fpstate-variants", "fpstate variants", 0),
    ("fpstate-check", "fpstate check --variant v6.8 --tasks 2 --events neon --inv obs", 1),
    ("fpstate-check", "fpstate check --events softirq --hw sve", 0),
    ("fpstate-check", "fpstate check --states 100", 3),
    ("fpstate-bug", "fpstate bug C1 --on v6.8", 0),
    ("fpstate-bug", "fpstate bug C1 --on v6.10", 1),
    ("fpstate-matrix", "fpstate matrix --variants v6.14 --processes 1", 0),
    ("fpstate-replay", "fpstate replay C1 --variant v6.8", 1),
    ("fpstate-replay", "fpstate replay C1 --variant v6.10", 0),
    ("fpstate-diff", "fpstate diff v6.8 v6.10 --trace C1", 1),
    ("fpstate-explain", "fpstate explain FOREIGN", 0),
    ("fpstate-audit", "fpstate audit --base v5.15 --commits COMMITS --processes 1", 1),
]
ELSEWHERE = {"blob-result", "blob-summary", "demo", "run", "capture", "fpstate-trace"}
"""Schemas that other tests check, or that another schema refers to."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "line", "status"), OUTPUTS, ids=[line for _, line, _ in OUTPUTS])
def test_output_is_as_the_schema_says(kvmabi: Kvmabi, tmp_path: Path, name: str, line: str, status: int) -> None:
    """Real output, with differences and without."""
    (tmp_path / "a.trace").write_text(TRACE, "utf-8")
    (tmp_path / "commits").write_text("e92bee9f861b x\n2632e2521769 x\nno such commit: \u00e9\n", "utf-8")
    (tmp_path / "blob").write_text(blobs.text(), "utf-8")
    names = {"TRACE": "a.trace", "COMMITS": "commits", "LIST": "list", "BLOB": "blob", "OUT": "out"}
    files = {word: str(tmp_path / name) for word, name in names.items()}
    (tmp_path / "list").write_text("x0\nsvcr\n0x6030000000150000\n", "utf-8")
    ended = kvmabi(*(files.get(word, word) for word in line.split()), "--format", "json")
    assert (ended.status, ended.err) == (status, "")
    assert ended.out.isascii()
    validate(name, ended.out)


def test_conformance_with_differences(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A case that fails has its differences."""
    path = tmp_path / "mine.toml"
    path.write_text('[[case]]\nname = "a.b"\nrule = "r"\nsource = "s"\nsteps = "new 1\\nget 0 x0 -> OK"\n', "utf-8")
    ended = kvmabi("conformance", "--cases", str(path), "--json")
    assert ended.status == 1
    assert validate("conformance", ended.out)["cases"][0]["differences"][0]["got"] == "ENOEXEC"


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["sme-v12", "sme-forecast"])
def test_demo(kvmabi: Kvmabi, kernel: str) -> None:
    """The demo in silence, with a kernel's numbers: three programs end as expected, and two have findings."""
    ended = kvmabi("demo", "--json", "--kernel", kernel)
    demo = validate("demo", ended.out)
    assert demo["kernel"] == kernel
    programs = demo["programs"]
    assert [program["status"] for program in programs] == [program["expected"] for program in programs]
    assert [bool(program["findings"]) for program in programs] == [False, True, True]
    assert (ended.status, ended.err) == (0, "")


@pytest.mark.slow
def test_demo_is_not_annotated(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In GitHub Actions neither: its findings are expected."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main(["demo"]) == 0
    captured = capfd.readouterr()
    assert "values destroyed" in captured.out
    assert "::" not in captured.out + captured.err


@pytest.mark.slow
def test_capture(kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was recorded, and where it is."""
    monkeypatch.setattr(backend_options, "open_from", lambda *_, **__: ModelBackend("sme-demo"))
    ended = kvmabi("capture", "-o", str(tmp_path / "mine.json"), "--json")
    captured = validate("capture", ended.out)
    assert (captured["name"], captured["file"]) == ("mine", str(tmp_path / "mine.json"))
    assert captured["registers"] == len(json.loads((tmp_path / "mine.json").read_text())["registers"])


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--format", "json"), ("--json",), ("--report", "json")])
def test_run(kvmabi: Kvmabi, tmp_path: Path, option: tuple[str, ...]) -> None:
    """The report of a program that never opens /dev/kvm; each spelling of the option has the same effect."""
    path = tmp_path / "report.json"
    assert kvmabi("run", *option, "--output", str(path), "--", sys.executable, "-c", "").status == 0
    assert validate("run", path.read_text("utf-8"))["verdict"] == "nothing judged"


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_one(name: str) -> None:
    """Draft 2020-12, with a title; objects have no properties that it does not name, unless their keys are names."""
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMAS[name]["title"]
    assert all("additionalProperties" in found for found in objects(SCHEMAS[name]))


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every schema of an object in a schema."""
    children = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    here = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    return [*here, *(found for child in children for found in objects(child))]


def test_a_wrong_output_is_found() -> None:
    """A property more, one less, and a reference to another schema that does not hold."""
    audit: dict[str, Any] = {"base": "v5.15", "bits": [], "unknown": [], "base_has": [], "remaining": []}
    audit |= {"mended_by": {}, "remedies": {}}
    validate("fpstate-audit", json.dumps(audit))
    with pytest.raises(ValidationError):
        validate("include", '{"flags": ["-I/"], "more": 1}')
    with pytest.raises(ValidationError):
        validate("include", "{}")
    with pytest.raises(ValidationError):
        validate("fpstate-audit", json.dumps(audit | {"remaining": [1]}))


def test_every_command_has_a_schema() -> None:
    """And the page names each schema, with a link, in the row of its command."""
    assert {words.replace(" ", "-") for words in COMMANDS} <= SCHEMAS.keys()
    assert {name for name, _, _ in OUTPUTS} | ELSEWHERE == SCHEMAS.keys()
    linked = re.findall(rf"\(schemas/([\w-]+){re.escape(SUFFIX)}\)", PAGE.read_text("utf-8"))
    assert set(linked) == SCHEMAS.keys()


@pytest.mark.parametrize("words", COMMANDS)
def test_the_page_has_forms_and_exit_statuses(words: str) -> None:
    """docs/reference/commands.md: a row for each command with its forms, its exit statuses and its schema."""
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `kvmabi {words}`")]
    (row,) = rows
    _, _, does, forms, status, schema, _ = re.split(r"(?<!\\)\|", row)
    assert does.strip()
    assert tuple(re.findall(r"\w+", forms)) == COMMANDS[words].formats
    assert re.match(r"\s*(0 |the program)", status)
    assert f"(schemas/{words.replace(' ', '-')}{SUFFIX})" in schema
