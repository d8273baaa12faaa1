# SPDX-License-Identifier: MIT
"""``kvmabi demo``: the examples in C, compiled, run and judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kvmabi.cli import common, formats, github, shipped
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.errors import UsageError
from kvmabi.profiles import Host, load_host

EXAMPLE = """\
  kvmabi demo
  kvmabi demo --format json

exit status: 0 if every example ends as expected, 1 if not, 2 misuse"""
# How each example restores, and the exit status of kvmabi run.
PROGRAMS = {
    "save_restore": ("vector lengths, FINALIZE, SVCR, then all else", ExitStatus.SUCCESS),
    "naive_list_order": ("in the order of KVM_GET_REG_LIST", ExitStatus.FINDINGS),
    "late_svcr": ("vectors and ZA first, SVCR last, errors ignored", ExitStatus.FINDINGS),
}


@dataclass(frozen=True)
class Ended:
    """How an example ended: the exit status of ``kvmabi run`` (None: not compiled), and the kinds of its findings."""

    program: str
    restores: str
    status: int | None
    expected: int
    findings: list[str] = field(default_factory=list)


def run(args: Namespace) -> int:
    """Compile and run the examples, and compare each exit status with the expected one."""
    examples = shipped.folder("vmm_examples")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UsageError("the demo needs a C compiler: no cc or gcc in PATH")
    host = load_host(common.DEMO_HOST)
    as_json = args.format == formats.JSON
    if not as_json:
        print(f"host {host.name}: {_lengths(host)} bits", flush=True)
    with tempfile.TemporaryDirectory(prefix="kvmabi-demo-") as folder:
        ended = list(_all(compiler, examples, Path(folder), as_json))
    if as_json:
        formats.print_json({"host": host.name, "programs": [asdict(one) for one in ended]})
    return ExitStatus.SUCCESS if all(one.status == one.expected for one in ended) else ExitStatus.DIFFERENT


def _lengths(host: Host) -> str:
    lengths = (("SVE", host.sve_vector_bits), ("SME", host.sme_vector_bits))
    return "; ".join(f"{name} {'/'.join(map(str, bits)) or 'none'}" for name, bits in lengths)


def _all(compiler: str, examples: Path, folder: Path, as_json: bool) -> Iterator[Ended]:
    """Compile and run each example: as JSON in silence, else with a heading, its output and its report."""
    for program, (restores, expected) in PROGRAMS.items():
        if not as_json:
            print(f"\n== {program}.c: restores {restores}", flush=True)
        binary = folder / program
        include = f"-I{shipped.folder('include')}"
        command = [compiler, "-std=gnu11", "-g", "-O2", include, str(examples / f"{program}.c"), "-o", str(binary)]
        if subprocess.run(command, check=False).returncode:
            yield Ended(program, restores, None, int(expected))
        elif as_json:
            yield _judge_in_silence(binary, restores, int(expected))
        else:
            yield _judge(binary, restores, int(expected))


def _judge(binary: Path, restores: str, expected: int) -> Ended:
    ended = subprocess.run(_command(binary), stderr=subprocess.STDOUT, env=_environment(), check=False)
    as_expected = ended.returncode == expected
    print(f"== exit status {ended.returncode}{'' if as_expected else f', where {expected} was expected'}", flush=True)
    return Ended(binary.name, restores, ended.returncode, expected)


def _judge_in_silence(binary: Path, restores: str, expected: int) -> Ended:
    report = binary.with_suffix(".json")
    command = _command(binary, "--format", "json", "--output", str(report))
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    findings = json.loads(report.read_text("utf-8"))["findings"] if report.exists() else []
    return Ended(binary.name, restores, ended.returncode, expected, [finding["kind"] for finding in findings])


def _environment() -> dict[str, str]:
    """Returns the environment without what has findings annotated: here they are expected."""
    return {name: value for name, value in os.environ.items() if name != github.VARIABLE}


def _command(binary: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "kvmabi", "run", "--host", common.DEMO_HOST, *options, "--", str(binary)]


COMMAND = Command(
    "demo",
    "Compile three example VMMs with the C compiler and run each on the emulated /dev/kvm: one that "
    "saves and restores an SME guest correctly, and two that lose state.",
    EXAMPLE,
    run,
    formats=formats.DATA,
)
