# SPDX-License-Identifier: MIT
"""Descriptors of a /dev/kvm that a process opens itself: saves and restores go through the C library's ioctl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "filesvmm.py"
ROOT = PROGRAM.parents[2]


@pytest.mark.slow
def test_a_python_vmm_under_the_interposer() -> None:
    """What it restores is what it saved, two vCPUs in two modes; the order checker agrees; a refusal is no success."""
    command = [sys.executable, "-m", "kvmabi", "run", "--host", "sme-demo", "--", sys.executable, str(PROGRAM)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    lines = done.stdout.splitlines()
    assert lines[0] == "features None unknown ['FEATURES', 'HOST', 'KERNEL'] (256,)", done.stderr
    assert lines[1] == "inferred sme sve"
    assert lines[2] == "differ []"
    assert lines[4].startswith("refused ")
    assert "KVM_SET_ONE_REG sme_vls: ENOENT: No such file or directory" in lines[4]
    assert done.returncode == 99  # the last restore, of which the VMM knows, was not whole
    assert "of VM 3 vCPU 0" in done.stderr
    assert "of VM 2 vCPU" not in done.stderr
