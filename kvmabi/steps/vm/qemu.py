# SPDX-License-Identifier: MIT
"""QEMU with an arm64 kernel whose init is the executor, and the serial line to it."""

from __future__ import annotations

import ctypes
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

from kvmabi.errors import UsageError

QEMU = "qemu-system-aarch64"
CPU = "max,pauth-impdef=on"  # the architected pointer authentication is slow to emulate
MACHINE = "virt,virtualization=on,gic-version=3"
MEMORY_MIB = 512
KERNEL_ARGUMENTS = "console=ttyAMA0 rdinit=/init panic=-1 quiet loglevel=1 rcupdate.rcu_expedited=1"
BOOT_SECONDS = 120.0
STEP_SECONDS = 60.0
WINDOW_BYTES = 3500
"""How much may be in flight: the line discipline of the guest's terminal holds 4095 bytes."""
GREETING = "kvmabi-executor 1 "
GIVE_UP = "! "
LAST_WORDS = ("Kernel panic", "Internal error", "Unable to handle", "Oops", "BUG:", "synchronous exception")
MAX_HEARD_LINES = 20
PR_SET_PDEATHSIG = 1  # linux/prctl.h
IMAGE_MAGIC, GZIP_MAGIC, EFI_MAGIC = b"ARM\x64", b"\x1f\x8b", (b"MZ", b"zimg")
"""Source: https://docs.kernel.org/arch/arm64/booting.html"""
MAX_LINE_BYTES = 1 << 20


def version(qemu: str) -> str:
    """The first line that QEMU prints about its version; "" if it prints none."""
    try:
        done = subprocess.run([*shlex.split(qemu), "--version"], capture_output=True, text=True, timeout=BOOT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.partition("\n")[0]


_libc = ctypes.CDLL(None)


class Guest:
    """A booted kernel. ``release`` is its own release string. Every error is a UsageError of one line."""

    def __init__(
        self,
        kernel_image: str,
        initramfs: bytes,
        *,
        cpu: str = CPU,
        qemu: str = QEMU,
        arguments: str = "",
        boot_seconds: float = BOOT_SECONDS,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        command = check(kernel_image, qemu)
        self._step_seconds = step_seconds
        self._pending = b""
        self._unsent = bytearray()
        self._heard: deque[str] = deque(maxlen=MAX_HEARD_LINES)
        self._errors = _memory("errors")
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        try:
            with theirs, _memory("initramfs", initramfs) as image:
                fds = [theirs.fileno(), image.fileno()]
                self._process = subprocess.Popen(
                    [*command, *_options(kernel_image, cpu, arguments, *fds)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=fds,
                    preexec_fn=end_with_parent,
                )
        except OSError as error:
            self._line.close()
            self._errors.close()
            raise UsageError(f"{command[0]}: {error.strerror}") from None
        try:
            self.release = self._greeting(boot_seconds)
        except BaseException:
            self.close()
            raise

    def ask(self, lines: list[str]) -> list[str]:
        """Send lines and return as many answers; the line never holds more than the guest can take."""
        answers: list[str] = []
        sizes = [len(line) + 1 for line in lines]
        sent = in_flight = 0
        while len(answers) < len(lines):
            while sent < len(lines) and (not in_flight or in_flight + sizes[sent] <= WINDOW_BYTES):
                self._unsent += lines[sent].encode() + b"\n"
                in_flight += sizes[sent]
                sent += 1
            answers.append(self._answer(lines[len(answers)]))
            in_flight -= sizes[len(answers) - 1]
        return answers

    def close(self) -> None:
        """End QEMU."""
        self._process.kill()
        self._process.wait()
        self._line.close()
        self._errors.close()

    def _greeting(self, seconds: float) -> str:
        end = time.monotonic() + seconds
        while True:
            line = self._read(end, "the boot")
            if line.startswith(GIVE_UP):
                raise UsageError(f"the kernel booted, but {line.removeprefix(GIVE_UP)}")
            _, greeting, release = line.partition(GREETING)
            if greeting:
                return release

    def _answer(self, step: str) -> str:
        line = self._read(time.monotonic() + self._step_seconds, f"the step {step[:60]!r}")
        if any(words in line for words in LAST_WORDS):
            raise UsageError(f"the guest's kernel died at the step {step[:60]!r}: {line.strip()[:200]}")
        return line

    def _read(self, end: float, what: str) -> str:
        """The next line; UsageError if QEMU ended or the time is up."""
        while b"\n" not in self._pending:
            left = end - time.monotonic()
            if left <= 0:
                raise UsageError(f"no answer from the guest in time, at {what}{self._tail()}")
            self._transfer(left, what)
            if len(self._pending) > MAX_LINE_BYTES:
                raise UsageError(f"the guest's answer has no end, at {what}")
        line, _, self._pending = self._pending.partition(b"\n")
        text = line.decode("ascii", "replace").rstrip("\r")
        self._heard.append(text)
        return text

    def _transfer(self, seconds: float, what: str) -> None:
        """Send and receive what is possible, waiting if necessary. QEMU stops reading while its output is blocked."""
        writers = [self._line] if self._unsent else []
        readable, writable, _ = select.select([self._line], writers, [], seconds)
        try:
            if writable:
                del self._unsent[: self._line.send(self._unsent)]
            if readable:
                data = self._line.recv(1 << 16)
                if not data:
                    raise UsageError(f"QEMU ended, at {what}{self._tail()}")
                self._pending += data
        except BlockingIOError:
            return
        except OSError as error:
            raise UsageError(f"QEMU is gone, at {what}: {error.strerror}{self._tail()}") from None

    def _tail(self) -> str:
        """The last error message of QEMU or the guest's kernel, as the end of an error's line."""
        complaints = os.pread(self._errors.fileno(), MAX_LINE_BYTES, 0).decode("utf-8", "replace").splitlines()
        words = [line for line in self._heard if any(word in line for word in LAST_WORDS)]
        last = (words or complaints or [""])[0 if words else -1].strip()
        return f": {last[:200]}" if last else ""


def check(kernel_image: str, qemu: str) -> list[str]:
    """Returns QEMU's command; UsageError if QEMU or the kernel image is missing."""
    if not Path(kernel_image).is_file():
        raise UsageError(f"{kernel_image}: no such kernel image")
    if not is_kernel(kernel_image):
        raise UsageError(f"{kernel_image}: not an arm64 kernel (Image, or that compressed)")
    command = shlex.split(qemu)
    if not command or not shutil.which(command[0]):
        raise UsageError(f"no {qemu}: install QEMU for arm64 (Debian: qemu-system-arm), or name it with --qemu")
    return command


def _memory(name: str, data: bytes = b"") -> BinaryIO:
    """A file in memory, which ends with the processes that have it open."""
    file = os.fdopen(os.memfd_create(f"kvmabi-{name}"), "w+b")
    file.write(data)
    file.flush()
    return file


def end_with_parent() -> None:
    """Runs in the child before exec: QEMU dies with the parent (PR_SET_PDEATHSIG)."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def is_kernel(path: str) -> bool:
    """Whether a file looks like what QEMU boots: an arm64 Image, one compressed by gzip, or an EFI image of such."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return head[56:60] == IMAGE_MAGIC or head.startswith(GZIP_MAGIC) or (head[:2], head[4:8]) == EFI_MAGIC


def machine(cpu: str, memory_mib: int) -> list[str]:
    """QEMU's options for a machine with EL2 and nothing but a processor, memory and interrupts."""
    parts = ["-M", MACHINE, "-cpu", cpu, "-accel", "tcg,thread=single", "-smp", "1", "-m", str(memory_mib)]
    return [*parts, "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"]


def _options(kernel: str, cpu: str, arguments: str, line: int, initramfs: int) -> list[str]:
    serial = ["-chardev", f"socket,id=line,fd={line}", "-serial", "chardev:line"]
    append = f"{KERNEL_ARGUMENTS} {arguments}".strip()
    start = ["-kernel", kernel, "-initrd", f"/proc/self/fd/{initramfs}", "-append", append]
    return [*machine(cpu, MEMORY_MIB), *serial, *start]
