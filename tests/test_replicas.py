# SPDX-License-Identifier: MIT
"""The replicas of well-known VMMs: each trap with the registers it costs, on hosts of several shapes, and the fix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ctools import CC, CROSS_CC, INCLUDE, ROOT, STRICT
from test_examples import BUILDS, NEEDS_QEMU
from test_tutorial import FENCE, Block, converse
from vmms import HOSTS, host, host_file

from kvmabi import regid

REPLICAS = ROOT / "vmm_examples/replicas"
PAGE = ROOT / "docs/how-to/add-sme.md"
NAMES = sorted(source.stem for source in REPLICAS.glob("*.c"))
SHAPES = HOSTS | {
    "apart": host(sve=[128], sme=[512]),
    "longest": host(sve=[128, 256, 512, 1024, 2048], sme=[2048]),
    "shortest": host(sve=[128, 256], sme=[128]),
}
NO_FA64 = "sme-sve256-sme512-nofa64"
WITHOUT_SME = ("sve", "neither")
VECTORS = "fpsr z0-31 p0-15 ffr"
STREAMING = (1, 3)


class Trap(NamedTuple):
    """A run that goes wrong: on which hosts, with which arguments, and what the report says.

    ``cause`` and ``registers`` are the only finding's, "" if there is none; ``error`` is what the VMM prints, "" where
    it notices nothing; ``refused`` is in the last line of a report on a VMM that failed.
    """

    hosts: str
    command: str
    cause: str = ""
    registers: str = ""
    error: str = ""
    refused: str = ""


EPERM, EBUSY, ENOENT, EINVAL = (
    "Operation not permitted",
    "Device or resource busy",
    "No such file or directory",
    "Invalid argument",
)
LATE = f"restore 0x606000000017fffe: {EPERM}"
NO_ZA = f"restore 0x6080000000170000: {EBUSY}"
TRAPS = [
    Trap("sme", "qemu --svcr 2", "not-saved", "za.h[0-63] zt0"),
    Trap("both apart", "qemu --svcr 3", "not-saved", "za.h[0-63] zt0"),
    Trap("longest", "qemu --svcr 3", "not-saved", "za.h[0-255] zt0"),
    Trap("shortest", "qemu --svcr 3", "not-saved", "za.h[0-15] zt0"),
    Trap(NO_FA64, "qemu --svcr 1", error=f"save 0x6050000000150600: {ENOENT}", refused="KVM_GET_ONE_REG ffr: ENOENT"),
    Trap("sme", "qemu --svcr 1", error=f"save 0x6040000000100054: {EINVAL}", refused="KVM_GET_ONE_REG v0: EINVAL"),
    Trap("both", "firecracker --svcr 0", "vls-late", "sme_vls", LATE, "sme_vls: EPERM"),
    Trap("both", "firecracker --svcr 3", "vls-late", "sme_vls", LATE, "sme_vls: EPERM"),
    Trap("apart longest", "firecracker", "vls-late-equal", "sme_vls", LATE),
    Trap("sme", "firecracker --svcr 1", "absent", "z0", f"restore 0x6080000000150000: {ENOENT}", "z0: ENOENT"),
    Trap("both longest", "firecracker --lengths-first --svcr 1", "destroyed", VECTORS),
    Trap("apart", "firecracker --lengths-first", "za-off", "za.h[0]", NO_ZA, "EBUSY"),
    Trap("both apart longest", "cloud_hypervisor --svcr 1", "destroyed", VECTORS),
    Trap("sme", "cloud_hypervisor --svcr 1", "absent", "z0", f"restore 0x6080000000150000: {ENOENT}", "z0: ENOENT"),
    Trap("both", "cloud_hypervisor --svcr 2", "za-off", "za.h[0]", NO_ZA, "EBUSY"),
    Trap("longest", "cloud_hypervisor --svcr 2", error="Argument list too long", refused="E2BIG: room for 500"),
    Trap("sme", "crosvm --svcr 0", "not-saved", "sme_vls"),
    Trap("both sme", "crosvm --svcr 2", "not-saved", "sme_vls za.h[0-63] zt0"),
    Trap("apart", "crosvm --svcr 2", "not-saved", "za.h[0-63] zt0"),
    Trap("longest", "crosvm --svcr 2", "not-saved", "za.h[0-255] zt0"),
    Trap("sme", "crosvm --svcr 1", error=f"save 0x6040000000100054: {EINVAL}", refused="v0: EINVAL"),
]
"""One host at least for each way in which a replica goes wrong."""
HARMLESS = [
    ("both longest", "qemu --svcr 1"),
    ("sme", "firecracker --svcr 0"),
    ("both", "firecracker --lengths-first --svcr 0"),
    ("apart", "cloud_hypervisor --svcr 0"),
    ("apart longest", "crosvm --svcr 0"),
    *((shape, name) for shape in WITHOUT_SME for name in NAMES),
]
"""Where the naive order loses nothing: by the guest's mode, or because the host has no SME or one length of it."""


def build(folder: Path, how: str, extra: tuple[str, ...] = ("-std=c11", *STRICT)) -> Path:
    """Compile all replicas."""
    for name in NAMES:
        source, program = REPLICAS / f"{name}.c", folder / name
        subprocess.run([*BUILDS[how], *extra, "-O2", f"-I{INCLUDE}", str(source), "-o", str(program)], check=True)
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the replicas, compiled as strict C11; any warning is an error."""
    return build(tmp_path_factory.mktemp("replicas"), "native")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A host by name: a shape's file, or a built-in one."""
    folder = tmp_path_factory.mktemp("hosts")
    files = {name: str(host_file(shape, folder / f"{name}.toml")) for name, shape in SHAPES.items()}
    return lambda name: files.get(name, name)


def run(machine: str, folder: Path, command: str, kernel: str = "sme-v12") -> tuple[int, str, dict[str, Any]]:
    """A replica under kvmabi run: exit status, its output, and the report."""
    report = folder / "report.json"
    name, *words = command.split()
    words = [
        "--host",
        machine,
        "--kernel",
        kernel,
        "--saves",
        "none",
        "--report",
        "json",
        "--output",
        str(report),
        "--",
        name,
        *words,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "kvmabi", "run", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
        env={"PATH": f"{folder}:/usr/bin:/bin"},
    )
    return done.returncode, done.stdout + done.stderr, json.loads(report.read_text("utf-8"))


def found(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The causes of the findings, and the registers of each."""
    return [(of["cause"], regid.ranges(register["name"] for register in of["registers"])) for of in report["findings"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "trap"),
    [pytest.param(shape, trap, id=f"{shape} {trap.command}") for trap in TRAPS for shape in trap.hosts.split()],
)
def test_trap(programs: Path, machine: Callable[[str], str], shape: str, trap: Trap) -> None:
    """The naive replica loses these registers by this cause; with --fixed the same guest arrives whole."""
    status, output, report = run(machine(shape), programs, trap.command)
    assert found(report) == ([(trap.cause, trap.registers)] if trap.cause else [])
    assert trap.error in output
    assert status == (1 if trap.error else 99)
    assert len(report["refused"]) == bool(trap.error)  # a KVM_GET_REG_LIST that asks for the number is not among them
    assert trap.refused in "".join(report["refused"])
    status, output, report = run(machine(shape), programs, f"{trap.command} --fixed --compare")
    assert (status, output, found(report), report["verdict"]) == (0, "restored\n", [], "clean")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "command"), [(shape, command) for hosts, command in HARMLESS for shape in hosts.split()]
)
def test_harmless(programs: Path, machine: Callable[[str], str], shape: str, command: str) -> None:
    """Where the naive order loses nothing, there is no finding, and both vCPUs are equal."""
    status, output, report = run(machine(shape), programs, f"{command} --compare")
    assert (status, output, found(report)) == (0, "restored\n", [])


@pytest.mark.slow
@pytest.mark.parametrize("svcr", STREAMING)
@pytest.mark.parametrize("name", NAMES)
def test_fixed_without_fa64(programs: Path, name: str, svcr: int) -> None:
    """With --fixed nothing is lost where streaming mode has no FFR."""
    status, output, report = run(NO_FA64, programs, f"{name} --fixed --compare --svcr {svcr}")
    assert (status, output, found(report)) == (0, "restored\n", [])


def lost(output: str) -> set[str]:
    """What the replica itself finds to differ."""
    return {regid.name_of(int(id, 16)) for id in re.findall(r"^lost (0x[0-9a-f]{16})$", output, re.MULTILINE)}


def test_report_is_what_the_vcpus_show(programs: Path) -> None:
    """A silent loss names every register in which the two vCPUs differ, and no other."""
    for command in ("qemu", "firecracker --lengths-first --svcr 1", "cloud_hypervisor", "crosvm"):
        _, output, report = run("sme-demo", programs, f"{command} --compare")
        named = {register["name"] for of in report["findings"] for register in of["registers"]}
        assert lost(output) == named
        assert named


@pytest.mark.slow
@pytest.mark.parametrize("how", ["static", pytest.param("arm64", marks=NEEDS_QEMU)])
def test_other_builds(tmp_path: Path, how: str) -> None:
    """A static replica and an arm64 one get the same findings."""
    build(tmp_path, how)
    for command, cause in (("qemu", "not-saved"), ("firecracker", "vls-late"), ("cloud_hypervisor", "destroyed")):
        assert [cause for cause, _ in found(run("sme-demo", tmp_path, command)[2])] == [cause]
    for name in NAMES:
        assert run("sme-demo", tmp_path, f"{name} --fixed")[0] == 0


@pytest.mark.slow
def test_forecast(tmp_path: Path) -> None:
    """Compiled with SME's forecast numbers, they lose and keep the same on the kernel that may have them."""
    build(tmp_path, "native", ("-std=c11", *STRICT, "-include", "kvmabi/sme_forecast.h"))
    for command, cause in (("qemu", "not-saved"), ("firecracker", "vls-late"), ("cloud_hypervisor", "destroyed")):
        assert [cause for cause, _ in found(run("sme-demo", tmp_path, command, "sme-forecast")[2])] == [cause]
    for name in NAMES:
        status, _, report = run("sme-demo", tmp_path, f"{name} --fixed", "sme-forecast")
        assert (status, found(report)) == (0, [])
        assert "is a forecast" in report["notes"][0]


@pytest.mark.parametrize("compiler", [CC, pytest.param(CROSS_CC, marks=NEEDS_QEMU[:1])], ids=["native", "arm64"])
def test_static_compiles(tmp_path: Path, compiler: tuple[str, ...]) -> None:
    """A static program compiles without a warning, too; a static arm64 one cannot run here."""
    command = [*compiler, "-static", "-std=c11", *STRICT, f"-I{INCLUDE}", str(REPLICAS / "qemu.c")]
    subprocess.run([*command, "-o", str(tmp_path / "qemu")], check=True)


def test_misuse_is_a_line(programs: Path) -> None:
    """An option that a replica does not have is exit 2 with its usage."""
    done = subprocess.run([programs / "crosvm", "--lengths-first"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (2, [])
    assert done.stderr.startswith("usage: ")


@pytest.mark.slow
def test_page(tmp_path: Path) -> None:
    """Each console of the page shows what the replicas print, in the reports' words."""
    for folder in ("vmm_examples", "kvmabi"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    blocks = [Block("", *match.groups()) for match in FENCE.finditer(PAGE.read_text("utf-8"))]
    consoles = [block for block in blocks if block.language == "console"]
    assert len(consoles) > len(NAMES)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    for block in consoles:
        converse(block, tmp_path, PATH=path)


@pytest.mark.parametrize("name", NAMES)
def test_head_explains(name: str) -> None:
    """Each program's head says what the VMM does, which traps it shows and what the fix is; the page has it."""
    head = (REPLICAS / f"{name}.c").read_text("utf-8").partition("#include")[0]
    assert [word for word in ("What it does:", "The trap", "The fix:") if word not in head] == []
    assert f"{name}.c" in PAGE.read_text("utf-8")
