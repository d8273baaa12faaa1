# SPDX-License-Identifier: MIT
"""Plays QEMU with a kernel in it: fake_qemu.py HOW OPTIONS; answers on the line that QEMU's options name."""

from __future__ import annotations

import re
import socket
import sys
import time

GREETING = b"boot noise\r\nkvmabi-executor 1 7.3-fake\n"
WINDOW = 4095


def main() -> None:
    how = sys.argv[1]
    fd = re.search(r"socket,id=line,fd=(\d+)", " ".join(sys.argv))
    assert fd
    line = socket.socket(fileno=int(fd[1]))
    if how == "dumb":
        time.sleep(60)
    if how == "broken":
        sys.exit("fake: cannot allocate")
    if how == "no-kvm":
        line.sendall(b"! /dev/kvm: No such file or directory\n")
        time.sleep(60)
    if how == "initrd":
        with open(sys.argv[sys.argv.index("-initrd") + 1], "rb") as archive:
            line.sendall(GREETING.replace(b"7.3-fake", archive.read()))
    line.sendall(GREETING)
    waiting = b""
    count = 0
    while data := line.recv(WINDOW + 1):
        waiting += data
        assert len(waiting) <= WINDOW, "more than the line discipline holds"
        time.sleep(0.001)
        *steps, waiting = waiting.split(b"\n")
        for step in steps:
            count += 1
            if count == 3 and how == "panic":
                line.sendall(b"[   1.5] Kernel panic - not syncing: Attempted to kill init!\n")
            if count == 3 and how == "hang":
                time.sleep(60)
            if count == 3 and how == "gone":
                sys.exit("fake: bye")
            line.sendall(b"OK %d %s\n" % (count, step))


main()
