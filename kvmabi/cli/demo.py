# SPDX-License-Identifier: MIT
"""``kvmabi demo``: the examples in C, compiled, run and judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kvmabi.cli import common, formats, github, shipped
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.errors import UsageError
from kvmabi.profiles import Host

EXAMPLE = """\
  kvmabi demo
  kvmabi demo --format json
  kvmabi demo --kernel sme-forecast

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


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--kernel", metavar="K", help="a built-in kernel with SME, or a file (default: the host's)")


def run(args: Namespace) -> int:
    """Compile and run the examples, and compare each exit status with the expected one."""
    examples = shipped.folder("vmm_examples")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UsageError("the demo needs a C compiler: no cc or gcc in PATH")
    host, kernel = common.profiles(common.DEMO_HOST, args.kernel)
    if "sme" not in kernel.features:
        raise UsageError(f"the demo needs a kernel with SME, which {kernel.name} does not have")
    as_json = args.format == formats.JSON
    if not as_json:
        under = f", kernel {kernel.label}" if args.kernel else ""
        print(f"host {host.name}{under}: {_lengths(host)} bits", flush=True)
    compile_it = [compiler, "-std=gnu11", "-g", "-O2", *shipped.flags(kernel)]
    run_it = [sys.executable, "-m", "kvmabi", "run", "--host", host.name, "--kernel", args.kernel or kernel.name]
    with tempfile.TemporaryDirectory(prefix="kvmabi-demo-") as folder:
        ended = list(_all(compile_it, run_it, examples, Path(folder), as_json))
    if as_json:
        formats.print_json({"host": host.name, "kernel": kernel.name, "programs": [asdict(one) for one in ended]})
    return ExitStatus.SUCCESS if all(one.status == one.expected for one in ended) else ExitStatus.DIFFERENT


def _lengths(host: Host) -> str:
    lengths = (("SVE", host.sve_vector_bits), ("SME", host.sme_vector_bits))
    return "; ".join(f"{name} {'/'.join(map(str, bits)) or 'none'}" for name, bits in lengths)


def _all(compile_it: list[str], run_it: list[str], examples: Path, folder: Path, as_json: bool) -> Iterator[Ended]:
    """Compile and run each example: as JSON in silence, else with a heading, its output and its report."""
    for program, (restores, expected) in PROGRAMS.items():
        if not as_json:
            print(f"\n== {program}.c: restores {restores}", flush=True)
        binary = folder / program
        command = [*compile_it, str(examples / f"{program}.c"), "-o", str(binary)]
        if subprocess.run(command, check=False).returncode:
            yield Ended(program, restores, None, int(expected))
        elif as_json:
            yield _judge_in_silence(run_it, binary, restores, int(expected))
        else:
            yield _judge(run_it, binary, restores, int(expected))


def _judge(run_it: list[str], binary: Path, restores: str, expected: int) -> Ended:
    ended = subprocess.run([*run_it, "--", str(binary)], stderr=subprocess.STDOUT, env=_environment(), check=False)
    as_expected = ended.returncode == expected
    print(f"== exit status {ended.returncode}{'' if as_expected else f', where {expected} was expected'}", flush=True)
    return Ended(binary.name, restores, ended.returncode, expected)


def _judge_in_silence(run_it: list[str], binary: Path, restores: str, expected: int) -> Ended:
    report = binary.with_suffix(".json")
    command = [*run_it, "--format", "json", "--output", str(report), "--", str(binary)]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    findings = json.loads(report.read_text("utf-8"))["findings"] if report.exists() else []
    return Ended(binary.name, restores, ended.returncode, expected, [finding["kind"] for finding in findings])


def _environment() -> dict[str, str]:
    """Returns the environment without what has findings annotated: here they are expected."""
    return {name: value for name, value in os.environ.items() if name != github.VARIABLE}


COMMAND = Command(
    "demo",
    "Compile three example VMMs with the C compiler and run each on the emulated /dev/kvm: one that "
    "saves and restores an SME guest correctly, and two that lose state.",
    EXAMPLE,
    run,
    options,
    formats=formats.DATA,
)
