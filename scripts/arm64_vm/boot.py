# SPDX-License-Identifier: MIT
"""Boots a kernel in QEMU, passes on what its console prints, and returns the exit status that its last line has."""

from __future__ import annotations

import os
import selectors
import subprocess
import tempfile
import time
from typing import IO

from kvmabi.errors import UsageError
from kvmabi.steps.vm import qemu

MEMORY_MIB = 1024
KERNEL_ARGUMENTS = "console=ttyAMA0 rdinit=/usr/bin/python3 panic=-1 quiet loglevel=1 -- /init.py"
ENDED = "arm64-vm: ended "
"""As in init.py."""
CHUNK_BYTES = 1 << 16


def run(kernel_image: str, archive: bytes, seconds: float) -> int:
    """Boot the kernel on an initramfs; returns the command's exit status.

    Raises UsageError if the VM ends without one, or does not end in time.
    """
    command = qemu.check(kernel_image, qemu.QEMU)
    with tempfile.NamedTemporaryFile(prefix="kvmabi-initramfs-") as file:
        file.write(archive)
        file.flush()
        words = [*command, *qemu.machine(qemu.CPU, MEMORY_MIB), "-serial", "stdio", "-kernel", kernel_image]
        words += ["-initrd", file.name, "-append", KERNEL_ARGUMENTS]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=qemu.end_with_parent
        ) as process:
            try:
                assert process.stdout is not None
                return _passed_on(process.stdout, time.monotonic() + seconds)
            finally:
                process.kill()


def _passed_on(console: IO[bytes], end: float) -> int:
    """Print the console's lines as they come, up to the last one."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(console, selectors.EVENT_READ)
        while selector.select(max(0.0, end - time.monotonic())):
            data = os.read(console.fileno(), CHUNK_BYTES)
            if not data:
                raise UsageError("the VM ended before the command did")
            *lines, pending = (pending + data).replace(b"\r\n", b"\n").split(b"\n")
            for line in lines:
                text = line.decode("utf-8", "replace")
                if text.startswith(ENDED) and text.removeprefix(ENDED).isdecimal():
                    return int(text.removeprefix(ENDED))
                print(text, flush=True)
    raise UsageError("the command did not end in time")
