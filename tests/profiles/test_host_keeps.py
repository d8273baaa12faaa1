# SPDX-License-Identifier: MIT
"""The bits that a CPU preserves of registers that KVM_RUN passes through it: measured, or known for QEMU's versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hosttoml
import pytest

from kvmabi import regid
from kvmabi.capture import capture
from kvmabi.capture.host import cpu_keeps
from kvmabi.errors import UsageError
from kvmabi.profiles import load_host, load_kernel
from kvmabi.profiles.host import Host, cpus, from_json
from kvmabi.steps.backends.model import ModelBackend

ALL_BITS = (1 << 64) - 1
SCTLR, TCR2, CSSELR = (regid.parse(name) for name in ("sctlr_el1", "tcr2_el1", "csselr_el1"))
UNDER_QEMU = {"kernel_profile": "linux-7.3", "recorded_from": "real Linux KVM (arm64) under QEMU TCG", "qemu": "10.0.2"}


def host(**more: Any) -> Host:
    """A captured host with only the given fields."""
    return from_json("x", UNDER_QEMU | more)


def test_what_was_measured_holds() -> None:
    """The measured key takes precedence over what is known for QEMU; IDs are in hex, with or without 0x."""
    measured = {f"{SCTLR:#x}": "0xff", f"{TCR2:x}": "0x0"}
    assert host(cpu_keeps=measured).cpu_keeps == {SCTLR: 0xFF, TCR2: 0}
    assert host(cpu_keeps={}).cpu_keeps == {}


def test_without_a_measurement_the_version_of_qemu_decides() -> None:
    """Hosts recorded without the key preserve the bits that their QEMU version does; other machines, all bits."""
    qemu_10 = {regid.parse(name): mask for name, mask in cpus()["qemu-10"].items() if name != "text"}
    assert host().cpu_keeps == qemu_10
    assert host(recorded_from="a board").cpu_keeps == {}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [(["a"], "cpu_keeps: must be a table"), ({"zz": "0x0"}, "not a number"), ({"0x1": "-1"}, "whole number")],
)
def test_a_wrong_measurement_is_refused(wrong: object, complaint: str) -> None:
    """Anything but a table of IDs and masks is an error that names the field."""
    with pytest.raises(UsageError, match=complaint):
        host(cpu_keeps=wrong)


@pytest.mark.parametrize("measured", [{}, {f"{SCTLR:#x}": "0xff", f"{CSSELR:#x}": "0xf"}])
def test_a_measurement_survives_as_toml(measured: dict[str, str], tmp_path: Path) -> None:
    """A capture written as a profile of names retains the measurement, even an empty one."""
    captured = host(cpu_keeps=measured)
    path = tmp_path / "host.toml"
    path.write_text(hosttoml.to_toml(captured, name="x", recorded="x"), "utf-8")
    assert load_host(str(path)).cpu_keeps == captured.cpu_keeps


@pytest.mark.slow
def test_a_run_keeps_what_was_measured() -> None:
    """On a host with VHE, KVM_RUN clears all but the measured bits of exactly the registers that the kernel loads."""
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
    """A capture of the model measures the host's own bits, for the registers that the kernel passes through the CPU."""
    with ModelBackend("qemu-max", load_kernel(kernel)) as model:
        measured = {int(id, 16): int(mask, 16) for id, mask in cpu_keeps(model, ("sve",)).items()}
    wanted = load_host("qemu-max").cpu_keeps
    loaded = {regid.parse(name) for name in load_kernel(kernel).run_loads}
    assert measured == {id: mask for id, mask in wanted.items() if id in loaded}
