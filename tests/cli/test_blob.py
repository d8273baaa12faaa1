# SPDX-License-Identifier: MIT
"""``kvmabi blob``: the forms of its reports, what the options add, and one clear line for misuse."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fleet import blobs

from cli.conftest import Kvmabi, one_line
from kvmabi import regid, save
from kvmabi.kvm import open_kvm
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import own

SVE = regid.parse("id_aa64pfr0_el1")
CRC = Path(__file__).parents[1] / "snapshot/data/fc15-a57-badcrc.vmstate.xz"


@pytest.fixture
def clean(tmp_path: Path) -> str:
    """A whole snapshot."""
    path = tmp_path / "clean.txt"
    path.write_text(blobs.text(sve=True), "utf-8")
    return str(path)


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    """One whose SVCR has a reserved bit, although the vCPU has no SME."""
    path = tmp_path / "wrong.txt"
    path.write_text(f"{blobs.text()}svcr=0400000000000000\n", "utf-8")
    return str(path)


def test_info(kvmabi: Kvmabi, clean: str) -> None:
    """Format, mode, registers and what the file cannot hold; --registers prints every value."""
    ended = kvmabi("blob", "info", clean, "--registers")
    assert ended.status == 0
    assert "clean.txt: text, 1 vCPU" in ended.out
    assert re.search(r"not in this file: .*features of\s+KVM_ARM_VCPU_INIT \(give --features\)", ended.out, re.DOTALL)
    assert "0x603000000013c020 id_aa64pfr0_el1 = " in ended.out


def test_info_json_reads_back(kvmabi: Kvmabi, clean: str, tmp_path: Path) -> None:
    """The JSON of info is a format that is read, register for register; for several files it is an array."""
    ended = kvmabi("blob", "info", clean, "--json")
    (tmp_path / "again.json").write_text(ended.out, "utf-8")
    assert opening.read(tmp_path / "again.json").vcpus[0].registers == opening.read(clean).vcpus[0].registers
    assert [found["file"] for found in json.loads(kvmabi("blob", "info", clean, clean, "--json").out)] == [clean] * 2


def test_options_add_what_a_file_lacks(kvmabi: Kvmabi, clean: str) -> None:
    """Features are known then, and no longer named as missing."""
    ended = kvmabi("blob", "info", clean, "--features", "sve,psci")
    assert "features: psci_0_2, sve" in ended.out
    assert "give --features" not in ended.out


@pytest.mark.parametrize("form", ["text", "json", "junit", "sarif", "html"])
def test_validate_forms(kvmabi: Kvmabi, clean: str, wrong: str, form: str) -> None:
    """Each form names both files and the one rule that is broken, and ends with 1."""
    ended = kvmabi("blob", "validate", clean, wrong, "--format", form)
    assert (ended.status, ended.err) == (1, "")
    assert "wrong.txt" in ended.out
    assert "svcr" in ended.out
    if form == "json":
        found = json.loads(ended.out)
        assert [file["fails"] for file in found["files"]] == [False, True]
        assert {finding["file"] for finding in found["findings"] if finding["severity"] == "error"} == {wrong}
    elif form == "junit":
        suite = ElementTree.fromstring(ended.out)[0]
        assert [case.find("failure") is not None for case in suite.iter("testcase")] == [False, True]
    elif form == "sarif":
        (run,) = json.loads(ended.out)["runs"]
        assert {result["ruleId"] for result in run["results"]} == {
            rule["id"] for rule in run["tool"]["driver"]["rules"]
        }


def test_fail_on(kvmabi: Kvmabi, clean: str) -> None:
    """Notes fail if that is asked for."""
    assert kvmabi("blob", "validate", clean).status == 0
    assert kvmabi("blob", "validate", clean, "--fail-on", "warning").status == 0
    assert kvmabi("blob", "validate", clean, "--fail-on", "note").status == 1


def test_wrong_checksum(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """It is named, alone; --force judges the rest. Commands that use the registers refuse it without --force."""
    first = kvmabi("blob", "validate", str(CRC))
    assert (first.status, first.out.count("\nerror: ")) == (1, 1)
    assert "--force judges the rest" in first.out
    forced = kvmabi("blob", "validate", str(CRC), "--force", "--host", "neoverse-n2")
    assert "<bad-crc>" in forced.out
    assert "<host-bound>" in forced.out
    one_line(kvmabi("blob", "plan", str(CRC)), 2, "CRC64", "--force")
    one_line(kvmabi("blob", "convert", str(CRC), "--out", str(tmp_path / "out")), 2, "--force")
    assert not (tmp_path / "out").exists()
    assert kvmabi("blob", "plan", str(CRC), "--force").status == 0
    assert kvmabi("blob", "info", str(CRC)).status == 1


@pytest.mark.parametrize("form", ["blob", "json", "text"])
def test_convert(kvmabi: Kvmabi, clean: str, tmp_path: Path, form: str) -> None:
    """Registers stay as they are, in their order, in every format that is written."""
    out = tmp_path / f"out.{form}"
    assert kvmabi("blob", "convert", clean, "--to", form, "--out", str(out)).status == 0
    assert list(opening.read(out).vcpus[0].registers.items()) == list(opening.read(clean).vcpus[0].registers.items())


def test_plan(kvmabi: Kvmabi, clean: str) -> None:
    """Text, JSON and C have the same order, in which FINALIZE comes after the lengths and the ID registers."""
    steps = json.loads(kvmabi("blob", "plan", clean, "--json").out)["vcpus"][0]["steps"]
    ids = [step["id"] for step in steps if "id" in step]
    assert steps[0]["ioctl"] == "KVM_ARM_VCPU_INIT"
    assert steps[1]["name"] == "sve_vls"
    finalize = [step["stage"] for step in steps].index("finalize")
    assert {step["stage"] for step in steps[1:finalize]} == {"lengths", "id_registers"}
    listed = kvmabi("blob", "plan", clean, "--format", "c").out
    assert re.findall(r"^\t(0x[0-9a-f]{16}), ", listed, re.MULTILINE) == ids
    assert f"vcpu0_before_finalize = {finalize - 1};" in listed
    assert re.findall(r"^ {7}(0x[0-9a-f]{16}) ", kvmabi("blob", "plan", clean).out, re.MULTILINE) == ids


def test_plan_of_several_vcpus(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """VM-wide registers are written with the first vCPU only; --vcpu picks one."""
    path = tmp_path / "two.txt"
    path.write_text(f"[vcpu 0]\n{blobs.text()}[vcpu 1]\n{blobs.text()}", "utf-8")
    first, second = json.loads(kvmabi("blob", "plan", str(path), "--json").out)["vcpus"]
    assert "midr_el1" in {step.get("name") for step in first["steps"]}
    assert "midr_el1" not in {step.get("name") for step in second["steps"]}
    assert "mpidr_el1" in {step.get("name") for step in second["steps"]}
    assert kvmabi("blob", "plan", str(path), "--vcpu", "1").out.startswith("vCPU 1: ")
    one_line(kvmabi("blob", "plan", str(path), "--vcpu", "7"), 2, "has no vCPU 7")


def test_diff_page(kvmabi: Kvmabi, clean: str, tmp_path: Path) -> None:
    """The page of a comparison marks what differs in the picture of A."""
    other = tmp_path / "other.txt"
    other.write_text(
        re.sub(r"(?m)^0x6030000000100006=.*$", "0x6030000000100006=0100000000000000", blobs.text(sve=True))
    )
    ended = kvmabi("blob", "diff", clean, str(other), "--format", "html")
    assert ended.status == 1
    assert '<rect class="differs"' in ended.out
    assert "x3" in ended.out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["info", "EMPTY"], "is empty"),
        (["validate", "FOLDER"], "is an empty directory"),
        (["validate", "NOTHING"], "is not a snapshot in any format"),
        (["info", "NONE"], "No such file"),
        (["info", "CLEAN", "--sve", "100"], "multiples of 128"),
        (["info", "CLEAN", "--sve", "x"], "is not a list of vector lengths"),
        (["info", "CLEAN", "--sve", "256"], "the file itself says 128"),
        (["info", "CLEAN", "--features", "nonsense"], "no vCPU feature 'nonsense'"),
        (["validate", "CLEAN", "--host", "nowhere"], "nowhere"),
        (["validate", "CLEAN", "--kernel", "linux-0"], "linux-0"),
        (["convert", "CLEAN", "--format", "json"], "--out"),
        (["convert", "CLEAN", "--out", "/nowhere/x"], "cannot be written"),
        (["plan"], "FILE"),
        (["diff", "CLEAN", "EMPTY"], "is empty"),
    ],
)
def test_misuse(kvmabi: Kvmabi, tmp_path: Path, clean: str, words: list[str], reason: str) -> None:
    """One line, status 2, whatever the command."""
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "nothing").write_bytes(bytes(range(256)) * 8)
    names = {"EMPTY": "empty", "FOLDER": "folder", "NOTHING": "nothing", "NONE": "none"}
    paths = {word: str(tmp_path / name) for word, name in names.items()} | {"CLEAN": clean}
    one_line(kvmabi("blob", *(paths.get(word, word) for word in words)), 2, reason)


def test_diff_of_a_pipe(kvmabi: Kvmabi, clean: str, tmp_path: Path) -> None:
    """A pipe is read once, and is a snapshot as a file is."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(pipe.write_bytes, Path(clean).read_bytes())
        ended = kvmabi("blob", "diff", str(pipe), clean)
        writing.result(timeout=30)
    assert ended.status == 0
    assert "equal in all that was compared" in ended.out


def test_diff_names_a_wrong_checksum(kvmabi: Kvmabi) -> None:
    """A damaged file is not compared unless that is asked for."""
    one_line(kvmabi("blob", "diff", str(CRC), "--host", "cortex-a57"), 2, "CRC64", "--force")
    assert kvmabi("blob", "diff", str(CRC), "--host", "cortex-a57", "--force").status in (0, 1)


def test_another_mode_is_not_refused(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """ZA that only A has because its SVCR says so is a difference, and no obstacle."""
    paths = []
    for svcr in (3, 0):
        with open_kvm() as kvm:
            vm = kvm.create_vm()
            vcpu = vm.create_vcpu(0)
            vcpu.init({"sve", "sme"})
            vcpu.finalize()
            vcpu["svcr"] = svcr
            paths.append(tmp_path / f"{svcr}.blob")
            paths[-1].write_bytes(own.write(save(vm)))
    ended = kvmabi("blob", "diff", *map(str, paths))
    assert ended.status == 1
    assert "za.h[0-" in ended.out
    assert "nothing is refused" in ended.out


def test_plan_and_text_have_the_lengths_of_the_options(kvmabi: Kvmabi, tmp_path: Path) -> None:
    """A set of lengths that the file lacks and the options give is restored, and written to text."""
    path = tmp_path / "novls.txt"
    path.write_text(re.sub(r"(?m)^0x606000000015ffff=.*\n", "", blobs.text(sve=True)), "utf-8")
    assert "without --sve and --sme" in kvmabi("blob", "plan", str(path)).out
    options = ("--sve", "128", "--features", "sve,psci")
    assert "0x606000000015ffff sve_vls" in kvmabi("blob", "plan", str(path), *options).out
    assert "0x606000000015ffff=01" in kvmabi("blob", "convert", str(path), "--to", "text", *options).out


def test_a_file_that_cannot_be_read_hides_no_other(kvmabi: Kvmabi, wrong: str, tmp_path: Path) -> None:
    """The report on the others is printed, each that failed is a line on stderr, and the status is 2."""
    ended = kvmabi("blob", "validate", str(tmp_path / "none"), wrong, str(tmp_path / "nothing"))
    assert ended.status == 2
    assert "wrong.txt" in ended.out
    assert [Path(line.split(":")[1].strip()).name for line in ended.err.splitlines()] == ["none", "nothing"]


def test_nothing_that_is_read_is_replaced(kvmabi: Kvmabi, clean: str, tmp_path: Path) -> None:
    """Neither the converted file, nor a manifest, nor a blob is overwritten by what is written."""
    before = Path(clean).read_bytes()
    (tmp_path / "manifest").write_text(f"{clean}\n", "utf-8")
    one_line(kvmabi("blob", "convert", clean, "--out", clean), 2, "is the file that is read")
    for out in (clean, str(tmp_path / "manifest"), "/dev/null"):
        ended = kvmabi("blob", "validate", "--manifest", str(tmp_path / "manifest"), "--out", out)
        one_line(ended, 2, "does not hold results")
    assert Path(clean).read_bytes() == before


def test_an_empty_host_is_not_none(kvmabi: Kvmabi, clean: str) -> None:
    """A variable that is unset in a script does not mean that there is no target."""
    one_line(kvmabi("blob", "validate", clean, "--host", ""), 2)
    one_line(kvmabi("blob", "validate", clean, "--kernel", ""), 2)
