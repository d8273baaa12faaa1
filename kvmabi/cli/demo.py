# SPDX-License-Identifier: MIT
"""``kvmabi demo``: the examples in C, compiled, run and judged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from kvmabi.cli import common, shipped
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.errors import UsageError
from kvmabi.profiles import load_host

EXAMPLE = """\
  kvmabi demo

exit status: 0 if every example ends as expected, 1 if not, 2 misuse"""
# How each example restores, and the exit status of kvmabi run.
PROGRAMS = {
    "save_restore": ("vector lengths, FINALIZE, SVCR, then all else", ExitStatus.SUCCESS),
    "naive_list_order": ("in the order of KVM_GET_REG_LIST", ExitStatus.FINDINGS),
    "late_svcr": ("vectors and ZA first, SVCR last, errors ignored", ExitStatus.FINDINGS),
}


def run(_args: Namespace) -> int:
    """Compile and run the examples, and compare each exit status with the expected one."""
    examples = shipped.folder("vmm_examples")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise UsageError("the demo needs a C compiler: no cc or gcc in PATH")
    host = load_host(common.DEMO_HOST)
    lengths = "; ".join(
        f"{name} {'/'.join(map(str, bits)) or 'none'}"
        for name, bits in (("SVE", host.sve_vector_bits), ("SME", host.sme_vector_bits))
    )
    print(f"host {host.name}: {lengths} bits", flush=True)
    with tempfile.TemporaryDirectory(prefix="kvmabi-demo-") as folder:
        judged = [_judge(compiler, examples, Path(folder), program) for program in PROGRAMS]
    return ExitStatus.SUCCESS if all(judged) else ExitStatus.DIFFERENT


def _judge(compiler: str, examples: Path, folder: Path, program: str) -> bool:
    """Compile and run one example; returns whether its exit status was the expected one."""
    does, expected = PROGRAMS[program]
    print(f"\n== {program}.c: restores {does}", flush=True)
    binary = folder / program
    include = f"-I{shipped.folder('include')}"
    command = [compiler, "-std=gnu11", "-O2", include, str(examples / f"{program}.c"), "-o", str(binary)]
    if subprocess.run(command, check=False).returncode:
        return False
    ended = subprocess.run(
        [sys.executable, "-m", "kvmabi", "run", "--host", common.DEMO_HOST, "--", str(binary)],
        stderr=subprocess.STDOUT,
        check=False,
    )
    as_expected = ended.returncode == expected
    print(f"== exit status {ended.returncode}{'' if as_expected else f', where {expected} was expected'}", flush=True)
    return as_expected


COMMAND = Command(
    "demo",
    "Compile three example VMMs with the C compiler and run each on the emulated /dev/kvm: one that "
    "saves and restores an SME guest correctly, and two that lose state.",
    EXAMPLE,
    run,
)
