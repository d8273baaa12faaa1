# SPDX-License-Identifier: MIT
"""The examples as a newcomer runs them: the right ones clean, the wrong ones reported with all that they lost."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import CC, CROSS_CC, INCLUDE, ROOT, STRICT
from lacking import needs
from vmms import HOSTS, host, host_file

from kvmabi import regid

EXAMPLES = ROOT / "vmm_examples"
LOSSY = ("naive_list_order", "late_svcr")
SHAPES = HOSTS | {"apart": host(sve=[128], sme=[512]), "longest": host(sve=[128, 256, 512], sme=[128, 2048])}


BUILDS = {"native": CC, "static": (*CC, "-static"), "arm64": CROSS_CC}
NEEDS_QEMU = [needs(*CROSS_CC, what="an arm64 cross compiler"), needs("qemu-aarch64", what="qemu-user")]


@pytest.fixture(scope="session", params=["native", "static", pytest.param("arm64", marks=NEEDS_QEMU)])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled examples; any warning is an error."""
    folder = tmp_path_factory.mktemp("examples")
    for source in EXAMPLES.glob("*.c"):
        command = [
            *BUILDS[request.param],
            "-std=gnu11",
            "-O2",
            *STRICT,
            f"-I{INCLUDE}",
            str(source),
            "-o",
            str(folder / source.stem),
        ]
        subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session", params=SHAPES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's file."""
    return host_file(SHAPES[request.param], tmp_path_factory.mktemp("hosts") / f"{request.param}.toml")


def run(machine: Path | str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """An example under kvmabi run."""
    command = [sys.executable, "-m", "kvmabi", "run", "--host", str(machine), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def lost(output: str) -> set[str]:
    """What the example itself found to differ, by name."""
    return {regid.name_of(int(id, 16)) for id in re.findall(r"^lost (0x[0-9a-f]{16})$", output, re.MULTILINE)}


@pytest.mark.slow
def test_right_one_is_clean(machine: Path, built: Path) -> None:
    done = run(machine, "--", built / "save_restore")
    assert done.returncode == 0, done.stderr
    assert "nothing was lost" in done.stderr
    assert re.fullmatch(r"\d+ registers saved and restored, 0 differ\n", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("program", LOSSY)
def test_report_is_complete(machine: Path, built: Path, program: str) -> None:
    """The findings that are not latent name every register that reading finds to differ, and no other."""
    done = run(machine, "--report", "json", "--", built / program, "--compare")
    findings = json.loads(done.stderr)["findings"]
    truth = lost(done.stdout)
    named = {
        register["name"] for finding in findings if finding["severity"] != "latent" for register in finding["registers"]
    }
    assert named == truth
    assert done.returncode == (99 if truth else 0)
    assert bool(truth) == (machine.stem not in ("sve", "neither"))


@pytest.mark.slow
@pytest.mark.parametrize("program", LOSSY)
def test_text_names_every_register(built: Path, program: str) -> None:
    """The text for people names the same registers, the rules and the fixes; without reading back, too."""
    truth = lost(run("sme-demo", "--", built / program, "--compare").stdout)
    assert {"z0", "z31", "p0", "p15", "ffr", "za.h[0]", "za.h[63]", "zt0"} <= truth
    done = run("sme-demo", "--", built / program)
    assert done.returncode == 99
    for registers in ("z0-31", "p0-15", "ffr", "za.h[0-63]", "zt0"):
        assert registers in done.stderr.split()
    for kind in ("destroyed by a later SVCR write", "ZA and ZT0 refused", "rule: ", "fix: "):
        assert kind in done.stderr


def test_naive_one_sets_vector_lengths_too_late(built: Path) -> None:
    """The report of the example that forgets them says so, with both names."""
    report = json.loads(run("sme-demo", "--report", "json", "--", built / "naive_list_order").stderr)
    late = [finding for finding in report["findings"] if finding["kind"] == "vls-after-finalize"]
    assert {register["name"] for of in late for register in of["registers"]} == {"sve_vls", "sme_vls"}


def test_python_example_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "save_restore.py"), run_name="__main__")
    assert re.fullmatch(r"\d+ registers saved and restored, 0 differ\n", capsys.readouterr().out)
