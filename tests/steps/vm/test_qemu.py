# SPDX-License-Identifier: MIT
"""The line to a guest, with a program that plays QEMU: flow control, time-outs, and one line for every way to die."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvmabi.errors import UsageError
from kvmabi.steps.vm.qemu import Guest, is_kernel

FAKE = Path(__file__).with_name("fake_qemu.py")


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A file that looks like an arm64 kernel."""
    path = tmp_path / "Image"
    path.write_bytes(bytes(56) + b"ARM\x64" + bytes(100))
    return str(path)


def guest(image: str, how: str, **seconds: float) -> Guest:
    return Guest(image, b"", qemu=shlex.join([sys.executable, str(FAKE), how]), **seconds)


@pytest.mark.slow
def test_steps_are_answered_in_order(image: str) -> None:
    """Thousands of steps of every length arrive, one answer each, and never more than the line can hold."""
    lines = [f"step {number} {'x' * (number * 37 % 2000)}" for number in range(1000)]
    fake = guest(image, "good")
    try:
        assert fake.release == "7.3-fake"
        assert fake.ask([]) == []
        assert fake.ask(lines) == [f"OK {number} {line}" for number, line in enumerate(lines, 1)]
    finally:
        fake.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("dumb", "no answer from the guest in time, at the boot"),
        ("broken", "(QEMU ended|QEMU is gone), at the boot.*fake: cannot allocate"),
        ("no-kvm", "the kernel booted, but /dev/kvm: No such file"),
    ],
)
def test_a_boot_that_fails(image: str, how: str, words: str) -> None:
    """A boot that says nothing, ends or finds no KVM is a UsageError of one line, soon."""
    start = time.monotonic()
    with pytest.raises(UsageError, match=words) as caught:
        guest(image, how, boot_seconds=2 if how == "dumb" else 20)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("panic", "the guest's kernel died at the step 'c': .*Kernel panic"),
        ("hang", "no answer from the guest in time, at the step 'c'"),
        ("gone", "(QEMU ended|QEMU is gone), at the step 'c'.*fake: bye"),
    ],
)
def test_a_guest_that_dies(image: str, how: str, words: str) -> None:
    """A panic, a hang and an end of QEMU name the step at which it happened."""
    fake = guest(image, how, step_seconds=2)
    try:
        with pytest.raises(UsageError, match=words):
            fake.ask(["a", "b", "c", "d"])
    finally:
        fake.close()


def test_nothing_is_left_in_the_file_system(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a guest that was closed, by a boot that failed, or by a QEMU that cannot be started."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    guest(image, "good").close()
    with pytest.raises(UsageError):
        guest(image, "broken", boot_seconds=20)
    program = tmp_path / "qemu"
    program.write_text("not a program")
    program.chmod(0o755)
    with pytest.raises(UsageError, match="Exec format error"):
        Guest(image, b"", qemu=str(program))
    assert list(folder.iterdir()) == []


def test_the_initramfs_arrives(image: str) -> None:
    """QEMU opens what -initrd names and finds the archive."""
    fake = Guest(image, b"ARCHIVE", qemu=shlex.join([sys.executable, str(FAKE), "initrd"]))
    assert fake.release == "ARCHIVE"
    fake.close()


def test_close_leaves_nothing(image: str) -> None:
    """A closed guest's process is gone; a second close does nothing."""
    fake = guest(image, "good")
    fake.close()
    assert fake._process.poll() is not None
    fake.close()


@pytest.mark.slow
def test_qemu_ends_with_its_parent(image: str) -> None:
    """A process that dies without closing its guest, even by SIGKILL, leaves no QEMU behind."""
    program = (
        "import os, sys\nfrom kvmabi.steps.vm.qemu import Guest\n"
        f"guest = Guest({image!r}, b'', qemu=sys.argv[1])\n"
        "print(guest._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    fake = shlex.join([sys.executable, str(FAKE), "good"])
    done = subprocess.run([sys.executable, "-c", program, fake], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9
    assert _gone(int(done.stdout))


def _gone(pid: int) -> bool:
    """Whether a process ends within ten seconds; a zombie has ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("head", "result"),
    [
        (bytes(56) + b"ARM\x64", True),
        (b"\x1f\x8b" + bytes(70), True),
        (b"MZ\0\0zimg" + bytes(70), True),
        (b"\x7fELF" + bytes(70), False),
        (b"", False),
    ],
)
def test_what_is_a_kernel(tmp_path: Path, head: bytes, result: bool) -> None:
    """An Image, one in gzip and an EFI one are kernels; nothing else is handed to QEMU."""
    path = tmp_path / "file"
    path.write_bytes(head)
    assert is_kernel(str(path)) is result
