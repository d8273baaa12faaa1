# SPDX-License-Identifier: MIT
"""QEMU starts, runs an idle guest and migrates under ``kvmabi run``, and kvmabi finds fault only where there is one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from lacking import needs

from clients.available import needs_client, needs_vgic_registers
from clients.gdbstub import Gdb
from clients.qemu import LOOK_SECONDS, SECONDS, Qemu
from clients.running import Result
from kvmabi import regid
from kvmabi.snapshot.opening import read
from kvmabi.snapshot.snapshot import Snapshot

HOST, OTHER_HOST = "neoverse-v1", "neoverse-n2"
WIDE_HOST = "qemu-max"
"""A host with vectors of 2048 bits."""
STOPS = 25
"""How often a machine is started and stopped."""
COUNTERS = {"cntvct_el0", "cntpct_el0"}
"""Registers that run while nothing else does."""


class Version(NamedTuple):
    """A QEMU, and the kernel that its release of Debian has."""

    client: str
    kernel: str


BOOKWORM = Version("qemu-bookworm", "linux-6.1")
TRIXIE = Version("qemu-trixie", "linux-6.12")
VERSIONS = [
    pytest.param(version, marks=needs_client(version.client), id=version.client) for version in (BOOKWORM, TRIXIE)
]
SHAPES = [pytest.param(1, "host", id="sve"), pytest.param(4, "host,sve=off", id="4-without-sve")]
"""Numbers of vCPUs, and CPUs."""
EACH = pytest.mark.parametrize("version", VERSIONS)
pytestmark = needs_vgic_registers()


def started(
    version: Version,
    folder: Path,
    vcpus: int,
    cpu: str,
    *options: str | Path,
    host: str = HOST,
    saves: str | Path = "none",
) -> Qemu:
    """QEMU with so many vCPUs, stopped, and with a stub for GDB."""
    stub = ("-gdb", f"unix:{folder / 'gdb'},server=on,wait=off")
    more = ("-smp", str(vcpus), *stub, *options)
    return Qemu(
        version.client, folder, *more, kernel=version.kernel, host=host, cpu=cpu, run_options=("--saves", saves)
    )


def scribble(qemu: Qemu, vcpus: int, seed: int, only: Sequence[str] = ()) -> None:
    """Give registers of every vCPU values that differ from one another."""
    with Gdb(qemu.run.folder / "gdb") as gdb:
        vectors = ("z", "p") if "z0" in gdb.sizes else ("v",)
        names = [name for name in gdb.sizes if name[:1] in ("x", *vectors) and name[1:].isdecimal()]
        for vcpu in range(vcpus):
            gdb.choose(vcpu)
            for number, name in enumerate(only or [*names, "pc"]):
                size_bytes = gdb.sizes[name] // 8
                gdb.write(name, bytes((seed + 7 * number + 31 * vcpu + byte) % 255 + 1 for byte in range(size_bytes)))


def run_guest(qemu: Qemu, vcpus: int) -> None:
    """Let the idle guest run until every vCPU was in KVM_RUN, and stop it."""
    before = len(qemu.run.log.read_text("utf-8"))
    deadline = time.monotonic() + SECONDS
    ran = 0
    while ran < vcpus:
        assert time.monotonic() < deadline, "not every vCPU runs"
        qemu.command("cont")
        assert qemu.command("query-status")["running"]
        qemu.command("stop")
        log = qemu.run.log.read_text("utf-8")[before:]
        ran = sum(f"vCPU {vcpu} KVM_RUN" in log for vcpu in range(vcpus))


def registers(snapshot: Snapshot) -> Iterator[tuple[int, str, bytes]]:
    """Every register of every vCPU: the vCPU, the name, the value."""
    for vcpu in snapshot.vcpus:
        for id, value in vcpu.registers.items():
            if (name := regid.name_of(id)) not in COUNTERS:
                yield vcpu.index, name, value


def lost(result: Result) -> set[str]:
    """The registers that findings name."""
    return {register["name"] for finding in result.report["findings"] for register in finding["registers"]}


def saved(version: Version, folder: Path, vcpus: int, cpu: str, host: str = HOST, only: Sequence[str] = ()) -> Result:
    """Save a machine whose guest has run with numbers in its registers, as ``folder``/stream."""
    with started(version, folder / "source", vcpus, cpu, host=host, saves=folder / "saves") as qemu:
        scribble(qemu, vcpus, 1, only)
        run_guest(qemu, vcpus)
        qemu.migrate(folder / "stream")
        return qemu.quit()


@EACH
@pytest.mark.parametrize(("vcpus", "cpu"), SHAPES)
def test_starts_runs_and_stops(version: Version, vcpus: int, cpu: str, tmp_path: Path) -> None:
    """The monitor shows registers, the idle guest runs and stops, and there is neither a finding nor a refusal."""
    with started(version, tmp_path / "qemu", vcpus, cpu) as qemu:
        shown = qemu.monitor("info registers -a")
        run_guest(qemu, vcpus)
        assert not qemu.command("query-status")["running"]
        again = qemu.monitor("info registers -a")
        result = qemu.quit()
    assert shown == again
    assert [f"CPU#{vcpu}" in shown for vcpu in range(vcpus + 1)] == [True] * vcpus + [False]
    assert (result.status, result.report["findings"], result.report["refused"]) == (0, [], [])


@EACH
def test_quick_stops_and_starts(version: Version, tmp_path: Path) -> None:
    """A vCPU that is stopped as soon as it starts, whether it entered the guest or not, has lost nothing."""
    with started(version, tmp_path / "qemu", 4, "host,sve=off") as qemu:
        for count in range(STOPS):
            qemu.command("cont")
            time.sleep(LOOK_SECONDS * (count % 3) / 2)
            qemu.command("stop")
            if count % 5 == 0:
                qemu.monitor("info registers -a")
        result = qemu.quit()
    assert (result.status, result.report["findings"]) == (0, [])


@EACH
@pytest.mark.parametrize(("vcpus", "cpu"), SHAPES)
def test_migrates(version: Version, vcpus: int, cpu: str, tmp_path: Path) -> None:
    """A second process loads what the first saved: every register is the same, and kvmabi compared them all."""
    source = saved(version, tmp_path, vcpus, cpu)
    incoming = ("-incoming", f"exec:cat {tmp_path / 'stream'}")
    with started(version, tmp_path / "target", vcpus, cpu, *incoming, saves=tmp_path / "saves") as qemu:
        qemu.wait_for("query-status", "status", "paused", "prelaunch")
        run_guest(qemu, vcpus)
        qemu.migrate(tmp_path / "again")
        target = qemu.quit()
    assert (source.status, source.report["findings"]) == (0, [])
    assert (target.status, target.report["findings"]) == (0, [])
    assert [*registers(read(tmp_path / "again"))] == [*registers(read(tmp_path / "stream"))]
    judged = {pair["vcpu"] for pair in target.report["judged"] if pair["from_run"]}
    assert judged == set(range(vcpus))


@EACH
@needs("qemu-img")
def test_loads_an_internal_snapshot(version: Version, tmp_path: Path) -> None:
    """savevm and loadvm on a qcow2: registers return to what they were, and the image holds them for kvmabi."""
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    drive = ("-drive", f"if=none,format=qcow2,file={image}")
    with started(version, tmp_path / "qemu", 1, "host", *drive) as qemu:
        scribble(qemu, 1, 1)
        run_guest(qemu, 1)
        shown = qemu.monitor("info registers")
        assert not qemu.monitor("savevm here")
        scribble(qemu, 1, 101)
        run_guest(qemu, 1)
        assert qemu.monitor("info registers") != shown
        assert not qemu.monitor("loadvm here")
        assert qemu.monitor("info registers") == shown
        run_guest(qemu, 1)
        result = qemu.quit()
    assert (result.status, result.report["findings"]) == (0, [])
    assert result.report["judged"]
    assert read(image).vcpus[0].value("x0")


@EACH
def test_load_on_another_host_fails(version: Version, tmp_path: Path) -> None:
    """QEMU says little about why it cannot load; kvmabi names the registers that the other host refused."""
    saved(version, tmp_path, 1, "host,sve=off")
    incoming = ("-incoming", f"exec:cat {tmp_path / 'stream'}")
    target = Version(version.client, version.kernel)
    with started(
        target, tmp_path / "target", 1, "host,sve=off", *incoming, host=OTHER_HOST, saves=tmp_path / "saves"
    ) as qemu:
        result = qemu.ended()
    assert result.status not in (0, 99)
    refused = set(" ".join(result.report["refused"]).split())
    assert {"id_aa64isar1_el1", "id_aa64mmfr0_el1"} <= refused


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_load_on_an_older_kernel_fails(version: Version, tmp_path: Path) -> None:
    """A save of Linux 6.12 does not load under 6.1, which lacks some of its registers: QEMU counts them."""
    saved(version, tmp_path, 1, "host,sve=off")
    incoming = ("-incoming", f"exec:cat {tmp_path / 'stream'}")
    older = Version(version.client, BOOKWORM.kernel)
    with started(older, tmp_path / "target", 1, "host,sve=off", *incoming, saves=tmp_path / "saves") as qemu:
        result = qemu.ended()
    assert result.status not in (0, 99)
    assert "cpreg_vmstate_array_len" in result.output


@EACH
def test_vectors_beyond_1024_bits_are_lost(version: Version, tmp_path: Path) -> None:
    """QEMU saves half of a Z register of 2048 bits, without a word: that is a finding."""
    saved(version, tmp_path, 1, "host", WIDE_HOST, ["z0", "z31"])
    incoming = ("-incoming", f"exec:cat {tmp_path / 'stream'}")
    with started(version, tmp_path / "target", 1, "host", *incoming, host=WIDE_HOST, saves=tmp_path / "saves") as qemu:
        qemu.wait_for("query-status", "status", "paused", "prelaunch")
        run_guest(qemu, 1)
        result = qemu.quit()
    assert result.status == 99
    assert lost(result) == {"z0", "z31"}
