# SPDX-License-Identifier: MIT
"""Records: what a program did, as steps that replay with the same answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import INCLUDE, compile_c
from hypothesis import given, settings

from kvmabi.device import open_system
from kvmabi.errors import KvmError
from kvmabi.events import EventLog
from kvmabi.kvm import open_kvm
from kvmabi.model.system import System
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps import recording
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort
from kvmabi.steps.recordfile import RecordFile
from kvmabi.steps.recording import Recorder
from kvmabi.steps.replay import Result, agree, machine, replay
from kvmabi.steps.trace import Trace
from kvmabi.testing import strategies

HOST = "sme-demo"
PROGRAM = Path(__file__).with_name("programs") / "everything.c"


def replayed(path: Path) -> Result:
    """The replay of a record."""
    trace, result = Trace(str(path)), Result()
    assert trace.kernel is not None
    replay(trace, machine(System(load_host(trace.host), load_kernel(trace.kernel))), result)
    return result


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a program that does everything."""
    folder = tmp_path_factory.mktemp("record")
    compile_c(PROGRAM.read_text("utf-8"), [f"-I{INCLUDE}", "-w", "-pthread", "-o", str(folder / "program")])
    command = [sys.executable, "-m", "kvmabi", "run", "--saves", "none", "--record", str(folder / "a.trace"), "--"]
    done = subprocess.run([*command, str(folder / "program")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "a.trace"


def test_a_program_that_does_everything_replays(record: Path) -> None:
    """VMs, vCPUs, threads, faults, devices, eventfds, memory, an mmap'd field: each answer is the recorded one."""
    result = replayed(record)
    assert not result.first, "\n".join(map(str, result.first))
    assert result.steps > 400
    assert not record.with_name("a.trace.part").exists()


@pytest.mark.parametrize(
    "line",
    [
        r"Z\tOK",
        r"C 28\tOK",
        r"U 1\tOK",
        r"V 1\tOK",
        r"g 0 6080000000150000 20\tEFAULT",
        r"s 0 6080000000150000 20 3\tEFAULT",
        r"B 0 6030000000100000\tEFAULT",
        r"b 0 6030000000100000\tEFAULT",
        r"X 0 4010aeab 10\tEFAULT",
        r"l 0 4096 2\tEFAULT \d+",
        r"o d0 0 2 8000000\tOK",
        r"q d0 0 2 \w+\tOK 8000000",
        r"o d0 0 2 -\tEFAULT",
        r"o d0 3 0 60\t\w+",
        r"R 0\tEINTR",
        r"c\tOK",
    ],
)
def test_what_the_program_did_is_in_the_record(record: Path, line: str) -> None:
    """Each kind of thing has its step."""
    assert re.search(f"^{line}$", record.read_text("utf-8"), re.MULTILINE)


def test_a_record_replays_after_other_steps(record: Path, tmp_path: Path) -> None:
    """It begins by closing everything: a backend that has VMs open counts its own."""
    text = record.read_text("utf-8")
    path = tmp_path / "a.trace"
    path.write_text(text.replace("# seq record\n", "# seq other\nN 2\tOK\nC 0\tOK\n# seq record\n"))
    assert not replayed(path).first


def test_eventfds_have_names(record: Path) -> None:
    """The fifth has a longer one; a closed descriptor is -1, another kind of file @4."""
    text = record.read_text("utf-8")
    for name in ("@0", "@3", "@e4.", "@e6.", "@4"):
        assert f"Y v 4020ae76 {name}" in text
    assert "Y v 4020ae76 ff*4." in text


def test_a_fault_is_a_comment() -> None:
    """What a rule struck did not reach the kernel: no step has its answer, so that a replay agrees."""
    rules = ["SET_ONE_REG x0 EIO once", "CREATE_VCPU ENOMEM once", "RUN EINTR once", "SET_ONE_REG x1 delay=1ms"]
    lines: list[str] = []
    with open_kvm(host=HOST, faults=rules) as kvm:
        kvm.log.detailed = True
        kvm.log.watchers.append(Recorder(lines.append).watch)
        vm = kvm.create_vm()
        with pytest.raises(KvmError):
            vm.create_vcpu(0)
        vcpu = vm.create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        with pytest.raises(KvmError):
            vcpu["x0"] = 5
        vcpu["x0"] = 6
        vcpu["x1"] = 7
        with pytest.raises(KvmError):
            vcpu.run()
    assert [line.split(": ")[2] for line in lines if line.startswith("# cannot")] == [
        "a fault that was asked for",
        "a fault that was asked for",
        "a fault that was asked for",
    ]
    steps = [line.split("\t") for line in lines if not line.startswith("#")]
    assert all(answer.startswith("OK") for _step, answer in steps)
    assert [step[:3] for step, _answer in steps if step[:1] in "VS"] == ["V 0", "S 0", "S 0"]


def test_another_process_is_a_comment(record: Path) -> None:
    """The model's replay has one address space: the step is left out, and the replay says so."""
    (found,) = replayed(record).left_out
    assert "KVM_CREATE_VCPU by another process" in found


@settings(max_examples=25, deadline=None)
@given(steps=strategies.ioctl_sequences(HOST))
def test_any_sequence_replays(steps: list[str]) -> None:
    """What a random sequence of ioctls did is recorded with the answers that it got."""
    host = load_host(HOST)
    log, lines = EventLog(kept=0), []
    log.detailed = True
    log.watchers.append(Recorder(lines.append).watch)
    doer = Doer(ModelPort(open_system(host, load_kernel(host.kernel), log)))
    for step in steps:
        doer.do(step)
    log.watchers.clear()
    doer.close()
    again = machine(System(host, load_kernel(host.kernel)))
    for line in lines:
        if line.startswith("# inexact"):
            break
        if not line.startswith("#"):
            step, _, answer = line.partition("\t")
            assert agree(step, answer, again.do(step)), line
    again.close()


def test_a_mistake_of_the_recorder_is_no_answer_to_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record ends there, and says so once."""
    monkeypatch.setitem(recording.METHODS, "KVM_CREATE_VM", lambda *_: 1 / 0)
    with open_kvm(host=HOST) as kvm, RecordFile(str(tmp_path / "a"), HOST, "sme-v12", "a test") as record:
        record.watch(kvm.log)
        kvm.create_vm().create_vcpu(0)
    assert record.failed.startswith("internal error: ZeroDivisionError")
    assert (tmp_path / "a").read_text().endswith("Z\tOK\n")
