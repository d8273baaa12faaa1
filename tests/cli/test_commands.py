# SPDX-License-Identifier: MIT
"""Every command: help with an example, JSON, and plain text without a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import vmms

from cli.conftest import Kvmabi
from kvmabi import cli, regid

KVMABI = (sys.executable, "-m", "kvmabi")
TRACE = "# host sme-demo\n# seq 1.0\nN 1\tOK\nI 0 5 10\tOK\nG 0 6030000000100000\tOK 00*8.\n"
WRONG = TRACE.replace("00*8.", "01*8.")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_ends_with_an_example(kvmabi: Kvmabi, command: str) -> None:
    """The example is a command line of that command."""
    ended = kvmabi(command, "--help")
    assert (ended.status, ended.err) == (0, "")
    assert re.search(rf"(?m)^example:\n +kvmabi {command}\b", ended.out)


def test_help_names_every_command(kvmabi: Kvmabi) -> None:
    out = kvmabi("--help").out
    for name, about in cli.COMMANDS.items():
        assert name in out
        assert about.split()[0] in out


@pytest.mark.parametrize("command", ["reg", "regs", "hosts", "kernels"])
def test_example_of_the_help_works(kvmabi: Kvmabi, command: str) -> None:
    """Each line of it."""
    for line in re.findall(rf"(?m)^  kvmabi ({command}\b.*)$", kvmabi(command, "--help").out):
        ended = kvmabi(*line.split())
        assert (ended.status, ended.err) == (0, "")
        assert ended.out


@pytest.mark.parametrize(
    "line",
    [
        "kernels",
        "kernels diff linux-7.3 sme-forecast",
        "regs --kernel sme-forecast --features sme --svcr za",
        "matrix sme-demo --kernel sme-forecast",
        "conformance --kernel sme-forecast --case sme.svcr-values",
        "include --kernel sme-forecast",
    ],
)
def test_forecast_is_marked(kvmabi: Kvmabi, line: str) -> None:
    """Whatever names the kernel for people says that it is a forecast; a kernel that exists is not marked."""
    ended = kvmabi(*line.split())
    assert "forecast" in re.sub("sme-forecast", "", ended.out + ended.err)
    other = kvmabi(*line.replace("sme-forecast", "sme-v12").split())
    assert ("forecast" in other.out + other.err) == (line == "kernels")


def test_flags_have_the_numbers_of_a_kernel(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """Those of SME where the kernel has it, of a profile of the user's own, too."""
    own = tmp_path / "own.toml"
    own.write_text('base = "sme-v12"\n[features]\nsme = { bit = 11, capability = 260 }\n')
    for kernel, bit, capability in (("sme-v9", 9, 252), ("sme-forecast", 10, 252), (str(own), 11, 260)):
        flags = kvmabi("include", "--kernel", kernel).out.split()
        assert flags[1:] == [f"-DKVM_ARM_VCPU_SME={bit}", f"-DKVM_CAP_ARM_SME={capability}"]
    assert len(kvmabi("include", "--kernel", "linux-7.3").out.split()) == 1


@pytest.mark.parametrize("line", ["reg svcr za.h[3] 0", "regs --features sve,sme", "hosts", "kernels"])
def test_json_parses(kvmabi: Kvmabi, line: str) -> None:
    """A list of objects with the same keys in all that they share."""
    rows = json.loads(kvmabi(*line.split(), "--json").out)
    assert rows
    assert all(isinstance(row, dict) for row in rows)


@pytest.mark.slow
def test_hosts_and_kernels_by_name(kvmabi: Kvmabi) -> None:
    hosts = {row["name"]: row for row in json.loads(kvmabi("hosts", "--json").out)}
    assert hosts["sme-demo"]["sme_vector_bits"] == [256, 512, 1024]
    assert hosts["sme-demo"]["recorded"]
    kernels = {row["name"]: row for row in json.loads(kvmabi("kernels", "--json").out)}
    assert {"linux-7.3", "sme-v12"} <= kernels.keys()
    assert kernels["sme-v12"]["features"]["sme"] == 9
    for name in hosts | kernels:
        assert name in kvmabi("hosts").out + kvmabi("kernels").out


def test_reg_there_and_back(kvmabi: Kvmabi) -> None:
    """Names to IDs, IDs to names, in any mixture; unknown IDs are described, not refused."""
    names = ["za.h[3]", "svcr", "z7", "x0", "ccsidr[2]", "psci_version", "sme_vls"]
    rows = json.loads(kvmabi("reg", "--json", *names).out)
    assert [row["name"] for row in rows] == names
    again = json.loads(kvmabi("reg", "--json", *(row["id"] for row in rows)).out)
    assert again == rows
    assert kvmabi("reg", "0xffffffffffffffff").status == 0
    assert kvmabi("reg", "ZA.H[3]").out.split()[:2] == ["0x6080000000170060", "za.h[3]"]


@pytest.mark.parametrize(
    ("of", "svcr"), [(of, svcr) for of, host in vmms.HOSTS.items() for svcr in range(4 if host.sme_vector_bits else 1)]
)
def test_regs_is_the_map(kvmabi: Kvmabi, tmp_path: Path, of: str, svcr: int) -> None:
    """Order, sizes and answers are those that ioctls on such a vCPU give."""
    host = vmms.HOSTS[of]
    file = vmms.host_file(host, tmp_path / "host.toml")
    bits = ",".join(name for bit, name in ((1, "sm"), (2, "za")) if svcr & bit)
    words = ["regs", "--host", str(file), "--features", ",".join(vmms.features(host)), "--svcr", bits]
    rows = json.loads(kvmabi(*words, "--json").out)
    with vmms.opened(host) as kvm:
        vcpu = vmms.vcpu_of(kvm.create_vm())
        if svcr:
            vcpu["svcr"] = svcr
        listed = sorted((row for row in rows if row["listed"] is not None), key=lambda row: row["listed"])
        assert [row["name"] for row in listed] == vcpu.names()
        for row in rows:
            assert regid.parse(row["id"]) == regid.parse(row["name"])
            assert row["valid_bytes"] <= row["size_bytes"] == regid.decode(int(row["id"], 16)).size_bytes
            assert row["get"] == _answer(vcpu, row["name"])
    text = kvmabi(*words).out.splitlines()
    assert text[0].endswith(f"{len(listed)} registers listed")
    assert len(text) == 2 + len(rows)


def _answer(vcpu: vmms.Vcpu, name: str) -> str:
    try:
        vcpu[name]
    except vmms.KvmError as error:
        return error.name
    return "OK"


def test_regs_before_finalize(kvmabi: Kvmabi) -> None:
    """Vector registers are not accessible, and the list fails."""
    rows = json.loads(kvmabi("regs", "--features", "sve,sme", "--not-finalized", "--json").out)
    answers = {row["name"]: row["get"] for row in rows}
    assert (answers["z0"], answers["za.h[0]"], answers["x0"]) == ("EPERM", "EBUSY", "OK")


def test_replay_counts_and_explains(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """0 if every answer agrees, 1 with the mismatch explained; the same as JSON."""
    good, bad = tmp_path / "good.trace", tmp_path / "bad.trace"
    good.write_text(TRACE)
    bad.write_text(WRONG)
    ended = kvmabi("replay", str(good))
    assert (ended.status, ended.out) == (0, "3 steps, 0 mismatches\n")
    ended = kvmabi("replay", str(good), str(bad))
    assert ended.status == 1
    assert ended.out.endswith("6 steps, 1 mismatches\n")
    assert "bad.trace:5" in ended.out
    result = json.loads(kvmabi("replay", "--json", str(bad)).out)
    assert (result["steps"], result["mismatches"]) == (3, 1)


# --- as processes


@pytest.mark.slow
def test_output_has_no_colour_off_a_terminal() -> None:
    """Neither stdout nor stderr holds an escape."""
    for words in (("hosts",), ("reg", "svcr"), ("nonsense",), ("--help",)):
        done = subprocess.run([*KVMABI, *words], capture_output=True, check=False)
        assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.slow
def test_progress_only_on_a_terminal(tmp_path: Path) -> None:
    """A replay draws its progress on a terminal's stderr, and takes it away."""
    trace = tmp_path / "good.trace"
    trace.write_text(TRACE)
    ours, theirs = pty.openpty()
    done = subprocess.run([*KVMABI, "replay", str(trace)], stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    drawn = os.read(ours, 10_000)
    os.close(ours)
    assert b"replay [" in drawn
    assert drawn.endswith(b"\r\x1b[K")
    assert done.stdout == b"3 steps, 0 mismatches\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", [("hosts",), ("regs", "--features", "sve,sme", "--svcr", "sm,za"), ("--help",)])
def test_reader_that_leaves(words: tuple[str, ...]) -> None:
    """A closed pipe ends a command without a message, with the status of a program that SIGPIPE ended."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*KVMABI, *words], stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 128 + signal.SIGPIPE


@pytest.mark.slow
def test_no_stdout_at_all() -> None:
    """Started with stdout closed."""
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *KVMABI, "hosts"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*KVMABI, "hosts"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_output_that_cannot_be_encoded() -> None:
    """Under an ASCII locale letters that it lacks are escaped."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*KVMABI, "regs", "--help"], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("--json", "diff"), ("diff", "--json")])
def test_kernels_diff_is_a_subcommand(kvmabi: Kvmabi, words: tuple[str, ...]) -> None:
    """It has a help of its own, and --json counts before and after its name."""
    rows = json.loads(kvmabi("kernels", *words, "sme-v10", "sme-v12").out)
    assert {"zt0_space", "za_id_rows"} <= {row["name"] for row in rows}
    assert kvmabi("kernels", "diff", "sme-v10", "sme-v12").out.endswith("differences between sme-v10 and sme-v12\n")
    ended = kvmabi("kernels", "diff", "--help")
    assert re.search(r"(?m)^example:\n +kvmabi kernels diff sme-v10 sme-v12$", ended.out)


@pytest.mark.parametrize("words", [("diff",), ("diff", "sme-v10"), ("diff", "a", "b", "c"), ("dif", "a", "b")])
def test_kernels_diff_takes_two_kernels(kvmabi: Kvmabi, words: tuple[str, ...]) -> None:
    """Anything else is misuse, in one line that names the help."""
    ended = kvmabi("kernels", *words)
    assert (ended.status, ended.out) == (2, "")
    assert re.fullmatch(r"kvmabi: .* \(see kvmabi .*--help\)\n", ended.err)


def test_no_private_names_of_argparse() -> None:
    """The commands are data: none of them touches argparse's internals."""
    sources = Path(cli.__file__).parent.glob("*.py")
    assert [source.name for source in sources if "_SubParsersAction" in source.read_text("utf-8")] == []
