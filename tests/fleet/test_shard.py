# SPDX-License-Identifier: MIT
"""Shards through the command: results in order, resumed, idempotent, with a summary and an exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.conftest import Kvmabi
from cli.schemas import validate

from fleet import blobs
from kvmabi.fleet import summary
from kvmabi.fleet.results import PART
from kvmabi.fleet.summary import OTHERS, Summary

EXPECTED = ["clean", "clean", "clean", "clean", "unreadable"] * 2 + ["clean", "clean"]


def judge(kvmabi: Kvmabi, manifest: Path, out: Path, *options: str) -> tuple[int, dict[str, object]]:
    """Run the command; returns its status and its summary."""
    words = ["--manifest", str(manifest), "--out", str(out), "--processes", "2", "--json", *options]
    ended = kvmabi("blob", "validate", *words)
    assert ended.err == ""
    return ended.status, validate("blob-summary", ended.out)


def test_results_and_summary(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A line for each file, in the manifest's order; the summary counts them; the status says that some fail."""
    manifest, out = blobs.folder(tmp_path), tmp_path / "out.jsonl"
    status, found = judge(kvmabi, manifest, out)
    assert [result["status"] for result in blobs.results(out)] == EXPECTED
    assert [Path(result["url"]).name for result in blobs.results(out)] == [f"{number}.txt" for number in range(12)]
    assert (status, found["files"], found["failures"]) == (1, 12, 2)
    assert found["statuses"] == {"clean": 10, "unreadable": 2}
    assert not Path(f"{out}{PART}").exists()


def test_threshold(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Two of twelve are 16.7 percent."""
    manifest = blobs.folder(tmp_path)
    assert judge(kvmabi, manifest, tmp_path / "a", "--fail-above", "17")[0] == 0
    assert judge(kvmabi, manifest, tmp_path / "b", "--fail-above", "16")[0] == 1


def test_goes_on_after_an_interruption(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """What stands in the part is taken over as it is; a torn last line is judged again."""
    manifest, out = blobs.folder(tmp_path), tmp_path / "out.jsonl"
    judge(kvmabi, manifest, out)
    lines = out.read_bytes().splitlines(keepends=True)
    first = json.loads(lines[0]) | {"format": "marked"}
    out.unlink()
    Path(f"{out}{PART}").write_bytes(json.dumps(first).encode() + b"\n" + lines[1] + lines[2][:20])
    judge(kvmabi, manifest, out)
    assert blobs.results(out)[0]["format"] == "marked"
    assert blobs.statuses(out) == EXPECTED


def test_part_of_another_manifest(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Results of other files are not mixed in: one line, status 2."""
    manifest, out = blobs.folder(tmp_path), tmp_path / "out.jsonl"
    judge(kvmabi, manifest, out)
    Path(f"{out}{PART}").write_bytes(out.read_bytes().splitlines(keepends=True)[3])
    ended = kvmabi("blob", "validate", "--manifest", str(manifest), "--out", str(out))
    assert ended.status == 2
    assert "holds results of another manifest" in ended.err


def test_run_again(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Files of the same etag keep their result; another etag, and what could not be read, is judged again."""
    manifest, out = blobs.folder(tmp_path), tmp_path / "out.jsonl"
    judge(kvmabi, manifest, out)
    for number in (0, 1, 4):
        (tmp_path / f"{number}.txt").write_text("broken" if number < 4 else blobs.text(), "utf-8")
    lines = manifest.read_text("utf-8").splitlines()
    lines[1] = lines[1].replace("v1", "v2")
    manifest.write_text("\n".join(lines), "utf-8")
    judge(kvmabi, manifest, out)
    assert blobs.statuses(out)[:5] == ["clean", "unreadable", "clean", "clean", "clean"]


def test_other_options_and_no_etag(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A result is used again only for the same target, and only for a file whose version is known."""
    manifest, out = blobs.folder(tmp_path), tmp_path / "out.jsonl"
    judge(kvmabi, manifest, out, "--host", "cortex-a57")
    assert {result["against"] for result in blobs.results(out)} == {"--host=cortex-a57"}
    judge(kvmabi, manifest, out, "--host", "neoverse-n2")
    assert blobs.statuses(out)[:2] == ["errors", "errors"]
    Path(f"{out}{PART}").write_bytes(out.read_bytes().splitlines(keepends=True)[0])
    ended = kvmabi("blob", "validate", "--manifest", str(manifest), "--out", str(out))
    assert (ended.status, "was begun with --host=neoverse-n2" in ended.err) == (2, True)
    Path(f"{out}{PART}").unlink()
    manifest.write_text(f"{tmp_path}/0.txt\n", "utf-8")
    judge(kvmabi, manifest, out)
    (tmp_path / "0.txt").write_text("broken", "utf-8")
    judge(kvmabi, manifest, out)
    assert blobs.statuses(out) == ["unreadable"]


def test_numbers(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """--numbers counts for the files of a manifest as for one that is named: svcr = 2 is ZA, not a reserved bit."""
    file, manifest, out = tmp_path / "numbers.txt", tmp_path / "manifest", tmp_path / "out.jsonl"
    file.write_text("svcr=0x0000000000000002\n", "utf-8")
    manifest.write_text(f"{file}\n", "utf-8")
    rules = []
    for options in ((), ("--numbers",)):
        judge(kvmabi, manifest, out, *options)
        rules.append({finding["rule"] for finding in blobs.results(out)[0]["findings"]})
    assert "svcr-reserved" in rules[0]
    assert "svcr-reserved" not in rules[1]


@pytest.mark.slow
def test_parquet(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """The same columns as the lines."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    manifest = blobs.folder(tmp_path)
    judge(kvmabi, manifest, tmp_path / "out.jsonl")
    judge(kvmabi, manifest, tmp_path / "out.parquet")
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    without = [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
    lines = blobs.results(tmp_path / "out.jsonl")
    assert without == [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.jsonl", "out.parquet"]


@pytest.mark.slow
def test_killed_and_resumed(tmp_path: Path) -> None:
    """A run that is killed leaves a part of which every whole line is used."""
    manifest, out = blobs.folder(tmp_path, 400), tmp_path / "out.jsonl"
    words = ["--manifest", str(manifest), "--out", str(out), "--processes", "1", "--fail-above", "100"]
    command = [sys.executable, "-m", "kvmabi", "blob", "validate", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        part = Path(f"{out}{PART}")
        while running.poll() is None and not (part.exists() and part.stat().st_size):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert not out.exists() or running.returncode == 0
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert blobs.statuses(out).count("clean") == 320


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--manifest", "M"], "--manifest needs --out"),
        (["--manifest", "M", "--out", "O", "file"], "name files or --manifest, not both"),
        (["--out", "O", "file"], "belong to --manifest"),
        (["--manifest", "M", "--out", "O", "--processes", "-1"], "--processes is 1 to"),
        (["--manifest", "M", "--out", "O", "--timeout", "0"], "--timeout and --memory are more than 0"),
        (
            ["--manifest", "M", "--out", "O", "--format", "sarif"],
            "the summary of a manifest has the forms text and json",
        ),
        (["--manifest", "M", "--out", "/nowhere/O"], "No such file or directory"),
        (["--manifest", "/nowhere/M", "--out", "O"], "cannot be read"),
        (["--manifest", "M", "--out", "O", "--scheduler", "tcp://x"], "is not dask://HOST:PORT"),
        ([], "name a file, or --manifest"),
    ],
)
def test_misuse(kvmabi: Kvmabi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], reason: str) -> None:
    """One line, status 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "M").write_text("nothing\n", "utf-8")
    ended = kvmabi("blob", "validate", *words)
    assert (ended.status, ended.out) == (2, "")
    assert reason in ended.err
    assert ended.err.count("\n") == 1


def test_the_summary_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts and kernels come from files: beyond a number of them they are counted together."""
    monkeypatch.setattr(summary, "MOST_GROUPS", 10)
    counts = Summary(frozenset({"error"}))
    for number in range(100):
        finding = {"rule": "r", "severity": "warning"}
        counts.add({"url": "u", "status": "clean", "host": f"h{number}", "kernel": "k", "findings": [finding]})
    assert counts.places["r", OTHERS, OTHERS] == 90
    assert (counts.failures, counts.rules["r", "warning"]) == (0, 100)


def test_no_worker_outlives_a_killed_run(tmp_path: Path) -> None:
    """Workers end with the process that started them, however it ends."""
    manifest, out = blobs.folder(tmp_path, 400), tmp_path / "out.jsonl"
    words = ["--manifest", str(manifest), "--out", str(out), "--processes", "2"]
    with subprocess.Popen([sys.executable, "-m", "kvmabi", "blob", "validate", *words], start_new_session=True) as run:
        while run.poll() is None and not Path(f"{out}{PART}").exists():
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("a worker is still there")
