# SPDX-License-Identifier: MIT
"""What a CPU keeps of registers that KVM_RUN passes through it: as measured, or else as known of QEMU's versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvmabi import regid
from kvmabi.capture import capture
from kvmabi.capture.host import cpu_keeps
from kvmabi.conformance.backends.model import ModelBackend
from kvmabi.errors import UsageError
from kvmabi.profiles import hosttoml, load_host, load_kernel
from kvmabi.profiles.host import Host, cpus, from_json

ALL_BITS = (1 << 64) - 1
SCTLR, TCR2, CSSELR = (regid.parse(name) for name in ("sctlr_el1", "tcr2_el1", "csselr_el1"))
UNDER_QEMU = {"kernel_profile": "linux-7.3", "recorded_from": "real Linux KVM (arm64) under QEMU TCG", "qemu": "10.0.2"}


def host(**more: Any) -> Host:
    """A captured host with nothing but what is given."""
    return from_json("x", UNDER_QEMU | more)


def test_what_was_measured_holds() -> None:
    """The measured key decides, whatever is known of the CPU; ids are in hex, with or without 0x."""
    measured = {f"{SCTLR:#x}": "0xff", f"{TCR2:x}": "0x0"}
    assert host(cpu_keeps=measured).cpu_keeps == {SCTLR: 0xFF, TCR2: 0}
    assert host(cpu_keeps={}).cpu_keeps == {}


def test_without_a_measurement_the_version_of_qemu_tells() -> None:
    """Hosts that were recorded without the key keep what their QEMU is known to keep; other machines, every bit."""
    known = {regid.parse(name): mask for name, mask in cpus()["qemu-10"].items() if name != "text"}
    assert host().cpu_keeps == known
    assert host(recorded_from="a board").cpu_keeps == {}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [(["a"], "cpu_keeps: must be a table"), ({"zz": "0x0"}, "no number"), ({"0x1": "-1"}, "whole number")],
)
def test_a_wrong_measurement_is_refused(wrong: object, complaint: str) -> None:
    """Whatever is no table of ids and masks is an error that names the field."""
    with pytest.raises(UsageError, match=complaint):
        host(cpu_keeps=wrong)


@pytest.mark.parametrize("measured", [{}, {f"{SCTLR:#x}": "0xff", f"{CSSELR:#x}": "0xf"}])
def test_a_measurement_survives_as_toml(measured: dict[str, str], tmp_path: Path) -> None:
    """A capture written as a profile of names keeps what was measured, even if that is nothing."""
    captured = host(cpu_keeps=measured)
    path = tmp_path / "host.toml"
    path.write_text(hosttoml.to_toml(captured, name="x", recorded="x"), "utf-8")
    assert load_host(str(path)).cpu_keeps == captured.cpu_keeps


@pytest.mark.slow
def test_a_run_keeps_what_was_measured() -> None:
    """On a host with VHE, KVM_RUN leaves the measured bits of the registers that the kernel loads, and of no other."""
    with ModelBackend("qemu-max") as original:
        table = capture(original, "copy", "the model")
    table["cpu_keeps"] = {f"{SCTLR:#x}": "0xff", f"{CSSELR:#x}": "0xf"}
    for kernel, csselr in (("linux-6.1", 0xF), ("linux-7.3", ALL_BITS)):
        with ModelBackend(from_json("copy", table), load_kernel(kernel)) as model:
            ones = "ff" * 8
            steps = ["N 1", "I 0 5 0", f"S 0 {SCTLR:x} {ones}", f"S 0 {CSSELR:x} {ones}", "R 0"]
            *_, ran, first, second = model.answers([*steps, f"G 0 {SCTLR:x}", f"G 0 {CSSELR:x}"])
            assert (ran, first) == ("EINTR", "OK ff00*7.")
            assert second == f"OK {'ff*8.' if csselr == ALL_BITS else '0f00*7.'}"


@pytest.mark.parametrize("kernel", ["linux-6.1", "linux-7.3"])
def test_capture_measures_what_the_kernel_loads(kernel: str) -> None:
    """A capture's measurement is what the host is made of, as far as the kernel passes registers through the CPU."""
    with ModelBackend("qemu-max", load_kernel(kernel)) as model:
        found = {int(id, 16): int(mask, 16) for id, mask in cpu_keeps(model, ("sve",)).items()}
    wanted = load_host("qemu-max").cpu_keeps
    loaded = {regid.parse(name) for name in load_kernel(kernel).run_loads}
    assert found == {id: mask for id, mask in wanted.items() if id in loaded}
