# SPDX-License-Identifier: MIT
"""``kvmabi demo``: the examples in C, compiled, run and judged."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import kvmabi
from kvmabi.cli import common
from kvmabi.cli.command import Command, ExitStatus
from kvmabi.errors import UsageError
from kvmabi.profiles import load_host

EXAMPLE = """\
  kvmabi demo

exit status: 0 if every example was judged as it should be, 1 if not, 2 misuse"""
# What each example does, and the exit status with which kvmabi run ends.
PROGRAMS = {
    "save_restore": ("vector lengths, FINALIZE, SVCR, then all else", 0),
    "naive_list_order": ("in the order of KVM_GET_REG_LIST", ExitStatus.FINDINGS),
    "late_svcr": ("vectors and ZA first, SVCR last, errors ignored", ExitStatus.FINDINGS),
}


def run(_args: Namespace) -> int:
    """Compile, run, compare the exit status with what it should be."""
    root = Path(kvmabi.__file__).parents[1]
    examples = root / "vmm_examples"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not examples.is_dir():
        raise UsageError(f"the demo runs from a checkout of the project: there is no {examples}")
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
    return 0 if all(judged) else 1


def _judge(compiler: str, examples: Path, folder: Path, program: str) -> bool:
    """Compile and run one example; tells whether it was judged as it should be."""
    does, expected = PROGRAMS[program]
    print(f"\n== {program}.c: restores {does}", flush=True)
    binary = folder / program
    command = [compiler, "-std=gnu11", "-O2", "-I../include", f"{program}.c", "-o", str(binary)]
    if subprocess.run(command, cwd=examples, check=False).returncode:
        return False
    ended = subprocess.run(
        [sys.executable, "-m", "kvmabi", "run", "--host", common.DEMO_HOST, "--", str(binary)],
        stderr=subprocess.STDOUT,
        check=False,
    )
    as_should = ended.returncode == expected
    print(f"== exit status {ended.returncode}{'' if as_should else f', where {expected} was expected'}", flush=True)
    return as_should


COMMAND = Command(
    "demo",
    "Compile the examples of vmm_examples/ with the C compiler and run each on the emulated /dev/kvm: a VMM that "
    "saves and restores an SME guest rightly, and two that lose state.",
    EXAMPLE,
    run,
)
