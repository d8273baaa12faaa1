# SPDX-License-Identifier: MIT
"""``kvmabi blob diff`` and ``kvmabi matrix``: what a user types, and the exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from cli.conftest import Kvmabi, one_line

LOG = "qemu: handle_cpreg_only_in_incoming_stream: system register 0x1013c096 in the incoming stream but unknown\n"


@pytest.mark.slow
def test_qemus_number(kvmabi: Kvmabi) -> None:
    """Name, ID, since when, and what it means."""
    ended = kvmabi("blob", "diff", "0x1013c096")
    assert (ended.status, ended.err) == (0, "")
    for word in ("smcr_el1", "0x603000000013c096", "the feature SME", "sme-v12", "refused"):
        assert word in ended.out


@pytest.mark.slow
def test_qemus_log_on_stdin(kvmabi: Kvmabi, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a host that lacks the register."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LOG.encode())))
    ended = kvmabi("blob", "diff", "-", "--host", "cortex-a57")
    assert ended.status == 1
    assert "A -> B fails" in ended.out


@pytest.mark.slow
def test_lists(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Equal lists end with 0, others with 1."""
    (tmp_path / "a").write_text("x0\npc\n", "utf-8")
    (tmp_path / "b").write_text("pc\nx0\n", "utf-8")
    (tmp_path / "c").write_text("pc\nsvcr\n", "utf-8")
    assert kvmabi("blob", "diff", str(tmp_path / "a"), str(tmp_path / "b")).status == 0
    assert kvmabi("blob", "diff", str(tmp_path / "a"), str(tmp_path / "c")).status == 1


def test_misuse(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """One line each, exit status 2."""
    empty = tmp_path / "empty"
    empty.touch()
    one_line(kvmabi("blob", "diff", str(empty)), 2, "empty")
    (tmp_path / "folder").mkdir()
    one_line(kvmabi("blob", "diff", str(tmp_path / "folder")), 2, "empty directory")
    one_line(kvmabi("blob", "diff", str(tmp_path / "absent")), 2, "no such file")
    one_line(kvmabi("blob", "diff", "svrc"), 2, "did you mean svcr?")
    one_line(kvmabi("blob", "diff", "x0", "--kernel", "linux-6.1"), 2, "need a host")
    one_line(kvmabi("blob", "diff", "x0", "--host", "nohost"), 2, "no host 'nohost'")
    one_line(kvmabi("matrix", "nohost"), 2, "no host 'nohost'")
    one_line(kvmabi("matrix", str(empty)), 2, "empty")
    one_line(kvmabi("matrix", "a64fx", "--guest-sve", "big"), 2, "--guest-sve: 'big' is not a list")
    one_line(kvmabi("matrix", "a64fx", "--guest-sve", "100"), 2, "multiples of 128")
    one_line(kvmabi("matrix", "a64fx", "--features", "sme"), 2, "not every host offers sme")


@pytest.mark.slow
def test_matrix(kvmabi: Kvmabi) -> None:
    """Shared and widest are told apart; a guest that a host cannot give ends with 1."""
    hosts = ("sme-demo", "sme-sve256-sme512only")
    assert kvmabi("matrix", *hosts).status == 0
    ended = kvmabi("matrix", *hosts, "--guest-sme", "512", "--json")
    assert ended.status == 1
    sme = json.loads(ended.out)["sme"]
    assert (sme["shared"], sme["widest"]) == ([512], [])
    assert sme["guest_problems"] == [{"host": "sme-demo", "bits": 256, "what": "extra"}]
    assert kvmabi("matrix", *hosts, "--format", "svg").out.startswith("<svg ")


@pytest.mark.slow
def test_matrix_of_one_kernel(kvmabi: Kvmabi) -> None:
    """Under Linux 6.1 almost no ID register can be written."""
    found = json.loads(kvmabi("matrix", "neoverse-n2", "neoverse-v1", "--kernel", "linux-6.1", "--json").out)
    assert {host["kernel"] for host in found["hosts"]} == {"linux-6.1"}
    values = {one["name"]: one["value"] for one in found["id_registers"]}
    assert values["id_aa64isar0_el1"] is None


@pytest.mark.parametrize(
    ("hosts", "words", "status"),
    [
        ("a64fx neoverse-v1", "", 0),
        ("a64fx neoverse-v1", "--fail-on guest", 0),
        ("a64fx neoverse-v1", "--fail-on blockers", 1),
        ("neoverse-v1 neoverse-v1", "--fail-on blockers", 0),
        ("a64fx neoverse-v1", "--guest-sve 512", 1),
        ("neoverse-v1 neoverse-v1", "--guest-sve 512 --fail-on blockers", 1),
    ],
)
def test_matrix_fails_on(kvmabi: Kvmabi, hosts: str, words: str, status: int) -> None:
    """Blockers decide the exit status only where that is asked for; lengths that a host cannot give always do."""
    assert kvmabi("matrix", *hosts.split(), *words.split()).status == status
