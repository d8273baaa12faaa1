# SPDX-License-Identifier: MIT
"""A script as users give it: loaded from a file, wrong before the VMM starts, wrong later, or without an end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guests.machines import DEVICE, RAM, machine, memory, wait
from kvmabi import uapi
from kvmabi.errors import KvmError, UsageError
from kvmabi.guests import Cpu, GuestError, Mmio, OnKernel, bound, scripts
from kvmabi.guests.scripts import Script

GUEST = "def guest(cpu):\n    yield\n"
WRONG = {
    "missing.py:guest": ("", "there is no such file"),
    "script:guest": (GUEST, "take FILE.py:NAME"),
    "script.py:": (GUEST, "take FILE.py:NAME"),
    "script.py:__import__('os')": (GUEST, "take FILE.py:NAME"),
    "script.py:guess": (GUEST, "script.py has no 'guess': did you mean guest"),
    "script.py": ("x = 1\n", "script.py has no 'guest': it has no guest"),
    "script.py:x": ("x = 1\n", "a guest is a generator function, def guest(cpu) with a yield: 1 is not"),
    "script.py:f": ("def f(cpu): pass\n", "a guest is a generator function, def guest(cpu) with a yield: f is not"),
    "script.py:g": ("def g():\n    yield\n", "g: a guest takes the cpu"),
    "script.py:h": ("\n\n1 / 0\n", "script.py:3: ZeroDivisionError: division by zero"),
    "script.py:i": ("\nif True:\nx\n", "script.py:3: IndentationError: expected an indented block"),
    "script.py:j": ("import nothing_of_that_name\n", "script.py:1: ModuleNotFoundError: No module named"),
    "script.py:k": ("import sys\nsys.exit(3)\n", "script.py:2: SystemExit: 3"),
}


@pytest.mark.parametrize("text", WRONG)
def test_a_script_that_cannot_be_loaded_is_one_line(text: str, tmp_path: Path) -> None:
    """With the line of the file where it fails."""
    content, message = WRONG[text]
    (tmp_path / "script.py").write_text(content, "utf-8")
    with pytest.raises(UsageError) as caught:
        scripts.load(f"{tmp_path}/{text}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_script_finds_the_modules_next_to_it(tmp_path: Path) -> None:
    """And leaves the search path as it was; each load is a module of its own."""
    (tmp_path / "neighbour_of_a_guest.py").write_text("ADDRESS = 5\n", "utf-8")
    (tmp_path / "script.py").write_text(f"import neighbour_of_a_guest\nBEGUN = []\n{GUEST}", "utf-8")
    before = list(sys.path)
    first, second = (scripts.load(f"{tmp_path / 'script.py'}:guest") for _ in range(2))
    assert sys.path == before
    assert first.function is not second.function


def test_a_guest_on_a_kernel_is_loaded_by_its_name(tmp_path: Path) -> None:
    """The name in the file can be an OnKernel."""
    text = f"from kvmabi.guests import OnKernel\n{GUEST}old = OnKernel(guest, 'v6.12')\n"
    (tmp_path / "script.py").write_text(text, "utf-8")
    assert scripts.load(f"{tmp_path / 'script.py'}:old").variant == "v6.12"


def test_what_another_process_cannot_find_is_misuse() -> None:
    """A function in a function, a lambda, an OnKernel."""

    def local(cpu: Cpu) -> Iterator[None]:
        yield

    for guest in (local, lambda cpu: (yield), OnKernel(local, "v6.12"), 5, print):
        with pytest.raises(UsageError):
            scripts.named(guest)
    assert scripts.named(module_guest) == f"{Path(__file__).resolve()}:module_guest"


def module_guest(cpu: Cpu) -> Iterator[None]:
    """A guest that another process finds."""
    yield


def failing(cpu: Cpu) -> Iterator[Any]:
    """Fails after its first exit."""
    cpu.x[1] = 5
    yield Mmio(DEVICE)
    cpu.x[2] = 1 // (cpu.x[1] - 5)


def test_a_script_that_fails_ends_its_guest_and_nothing_else() -> None:
    """KVM_RUN returns KVM_EXIT_INTERNAL_ERROR, now and later; registers and other vCPUs are whole."""
    line = failing.__code__.co_firstlineno + 4
    with machine("psci_0_2", count=2) as (vm, (vcpu, other)):
        vcpu.guest = failing
        other.guest = module_guest
        vcpu.run()
        for _ in range(2):
            vm.kvm.ioctl(vcpu.fd, uapi.KVM_RUN)
            run = vcpu.kvm_run
            assert (run.exit_reason, run.internal.suberror, run.internal.ndata) == (
                uapi.KVM_EXIT_INTERNAL_ERROR,
                uapi.KVM_INTERNAL_ERROR_EMULATION,
                0,
            )
        with pytest.raises(GuestError, match=rf"test_scripts\.py:{line}: ZeroDivisionError") as caught:
            vcpu.run()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert (vcpu.read("x1"), vcpu.read("pc")) == (5, 4)
        wait(other)
        warnings = [event.reason for event in vm.kvm.log.events if event.what == "warning"]
        assert len(warnings) == 1
        assert f"test_scripts.py:{line}" in warnings[0]


def test_init_begins_a_failed_guest_anew() -> None:
    """As a reset does with a crashed one."""
    with machine("psci_0_2") as (_vm, (vcpu,)):
        vcpu.guest = failing
        vcpu.run()
        with pytest.raises(GuestError):
            vcpu.run()
        vcpu.init({"psci_0_2"})
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def test_an_error_that_the_script_handles_is_its_own() -> None:
    """The script goes on after GuestError, and its instruction has not happened."""

    def guest(cpu: Cpu) -> Iterator[Any]:
        try:
            yield Mmio(DEVICE, 5)
        except GuestError:
            yield Mmio(DEVICE, 4)

    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        assert vcpu.run().mmio.len == 4
        assert vcpu.read("pc") == 0


def endless(cpu: Cpu) -> Iterator[Any]:
    """Never yields again."""
    yield Mmio(DEVICE)
    while True:
        cpu.x[0] += 1


def deaf(cpu: Cpu) -> Iterator[Any]:
    """Catches everything."""
    yield Mmio(DEVICE)
    while True:
        try:
            cpu.x[0] += 1
        except Exception:
            continue


def asleep(cpu: Cpu) -> Iterator[Any]:
    """Blocks."""
    yield Mmio(DEVICE)
    time.sleep(3600)


@pytest.mark.parametrize("guest", [endless, deaf, asleep], ids=lambda guest: guest.__name__)
def test_a_script_that_never_yields_is_ended(guest: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the lines that it runs or the time that it takes; the report says so, and the vCPU is whole."""
    monkeypatch.setattr(bound, "MOST_LINES", 1000)
    monkeypatch.setattr(bound, "MOST_SECONDS", 0.1)
    with machine() as (_vm, (vcpu,)):
        vcpu.guest = guest
        vcpu.run()
        with pytest.raises(GuestError, match=r"test_scripts\.py:\d+: NeverYields: it ran"):
            vcpu.run()
        assert vcpu["x0"]


def test_a_debugger_keeps_its_trace_function() -> None:
    """Under coverage or a debugger the script's lines are theirs to see."""
    seen: list[str] = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        seen.append(frame.f_code.co_name)
        return trace

    before = sys.gettrace()
    with machine() as (_vm, (vcpu,)):
        vcpu.guest = failing
        sys.settrace(trace)
        try:
            vcpu.run()
            assert sys.gettrace() is trace
        finally:
            sys.settrace(before)
    assert "failing" in seen


def test_a_bare_yield_lets_others_run() -> None:
    """A guest that polls memory sees what another vCPU writes there, and a signal ends its KVM_RUN."""

    def polls(cpu: Cpu) -> Iterator[Any]:
        while not cpu.memory.read(RAM, 1)[0]:
            yield
        yield Mmio(DEVICE)

    def writes(cpu: Cpu) -> Iterator[Any]:
        cpu.memory.write(RAM, b"\1")
        yield

    with machine("psci_0_2", count=2) as (vm, (vcpu, other)):
        memories = memory(vm)
        vcpu.guest, other.guest = polls, writes
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        other.init({"psci_0_2"})
        wait(other)
        assert memories[0] == 1
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def test_a_guest_can_be_taken_away_and_given_anew() -> None:
    """``vcpu.guest`` is what was given; another one begins at the next KVM_RUN."""
    with machine() as (_vm, (vcpu,)):
        assert vcpu.guest is None
        vcpu.guest = failing
        assert vcpu.guest is failing
        vcpu.run()
        vcpu.guest = failing
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO
        vcpu.guest = None
        with pytest.raises(KvmError, match="EINTR"):
            vcpu.run()
        with pytest.raises(UsageError, match="a guest is a generator function"):
            vcpu.guest = print  # type: ignore[assignment]


def test_a_failing_cleanup_is_nobodys_trouble() -> None:
    """A generator that raises when it is closed: INIT drops it."""

    def stubborn(cpu: Cpu) -> Iterator[Any]:
        try:
            yield Mmio(DEVICE)
        finally:
            raise ValueError("it does not want to end")

    with machine("psci_0_2") as (_vm, (vcpu,)):
        vcpu.guest = stubborn
        vcpu.run()
        vcpu.init({"psci_0_2"})
        assert vcpu.run().exit_reason == uapi.KVM_EXIT_MMIO


def test_scripts_of_a_file_share_their_failures() -> None:
    """One Script runs on many vCPUs: what failed is listed with the vCPU."""
    script = Script(failing)
    with machine("psci_0_2", count=2) as (vm, vcpus):
        for vcpu in vcpus:
            vcpu.init({"psci_0_2"})
            vm.kvm.vcpu_file(vcpu.fd).set_guest(script)
            vcpu.run()
            with pytest.raises(GuestError):
                vcpu.run()
    assert [line.rpartition("(")[2] for line in script.failures] == [
        "guest of VM 1 vCPU 0)",
        "guest of VM 1 vCPU 1)",
    ]
