# SPDX-License-Identifier: MIT
"""Small blobs for the tests of fleets, as text: whole ones and broken ones."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from cli.schemas import validate

import kvmabi


@cache
def text(sve: bool = False) -> str:
    """A vCPU of a host without vectors, or with SVE, as lines of id=hex."""
    with kvmabi.open(host="neoverse-n2" if sve else "cortex-a57") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve"} if sve else ())
        if sve:
            vcpu.finalize()
        lengths = [kvmabi.regid.parse("sve_vls")] if sve else []
        ids = [*lengths, *(id for id in vcpu.reg_list() if id not in lengths)]
        return "".join(f"{id:#018x}={vcpu[id].hex()}\n" for id in ids)


def folder(path: Path, count: int = 12) -> Path:
    """A manifest of ``count`` files below a path: whole, except that every fifth is not a blob."""
    lines = []
    for number in range(count):
        file = path / f"{number}.txt"
        file.write_text("not a blob\n" if number % 5 == 4 else text(), "utf-8")
        lines.append(f"{file}\t{file.stat().st_size}\tv1\n")
    manifest = path / "manifest"
    manifest.write_text("".join(lines), "utf-8")
    return manifest


def results(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results, each as the schema says."""
    lines = path.read_text("utf-8").splitlines()
    return [validate("blob-result", line) for line in lines]


def statuses(path: Path) -> list[str]:
    """The status of each file."""
    return [json.loads(line)["status"] for line in path.read_text("utf-8").splitlines()]
