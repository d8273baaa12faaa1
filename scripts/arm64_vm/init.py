# SPDX-License-Identifier: MIT
"""The VM's first process: mounts what a program expects, runs the command of /command.json and switches the VM off."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"))
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONPATH": "/source"}
ENDED = "arm64-vm: ended "
"""Before the exit status, in the last line."""
POWER_OFF = 0x4321FEDC  # linux/reboot.h
CANNOT_RUN = 126


def main() -> None:
    """Never returns."""
    libc = ctypes.CDLL(None, use_errno=True)
    status = CANNOT_RUN
    try:
        for kind, place in MOUNTS:
            Path(place).mkdir(exist_ok=True)
            if libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None) and kind != "devtmpfs":
                raise OSError(ctypes.get_errno(), f"cannot mount {place}")
        command = json.loads(Path("/command.json").read_text("utf-8"))
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None  # a pipe: the command does not draw for a terminal
            for line in process.stdout:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        code = process.returncode
        status = code if code >= 0 else 128 - code
    except OSError as error:
        print(f"arm64-vm: {error}", flush=True)
    finally:
        sys.stdout.flush()
        print(f"\n{ENDED}{status}", flush=True)
        os.sync()
        libc.reboot(POWER_OFF)


main()
