# SPDX-License-Identifier: MIT
"""QEMU's stub for GDB, as a way to give a stopped vCPU's registers values.

Protocol: https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Self

CHUNK_BYTES = 0xFFB
SECONDS = 30.0
REGISTER = re.compile(r'<reg name="(?P<name>\w+)" bitsize="(?P<bits>\d+)"(?P<rest>[^>]*)/>')
NUMBER = re.compile(r'regnum="(\d+)"')
ANNEX = re.compile(r'href="([^"]+)"')


class Gdb:
    """A connection to the stub at a Unix socket; ``sizes`` are the registers' sizes in bits, by name."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SECONDS)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        self.ask("qSupported:xmlRegisters=aarch64")
        self.sizes: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        for annex in ANNEX.findall(self._described("target.xml")):
            self._learn(self._described(annex))

    def choose(self, vcpu: int) -> None:
        """What follows concerns this vCPU. Only packet g has QEMU fetch its registers from the kernel."""
        assert self.ask(f"Hgp1.{vcpu + 1:x}") == "OK"
        self.ask("g")

    def write(self, name: str, value: bytes) -> None:
        """Give a register of the chosen vCPU a value."""
        assert len(value) * 8 == self.sizes[name], f"{name} has {self.sizes[name]} bits"
        assert self.ask(f"P{self._numbers[name]:x}={value.hex()}") == "OK", name

    def read(self, name: str) -> bytes:
        """The value of a register of the chosen vCPU."""
        return bytes.fromhex(self.ask(f"p{self._numbers[name]:x}"))

    def ask(self, packet: str) -> str:
        """Send a packet; returns the answer's text."""
        self._socket.sendall(f"${packet}#{sum(packet.encode()) % 256:02x}".encode())
        while (byte := self._file.read(1)) != b"$":
            assert byte, "QEMU has closed its stub"
        answer = bytearray()
        while (byte := self._file.read(1)) != b"#":
            answer += bytes([self._file.read(1)[0] ^ 0x20]) if byte == b"}" else byte
        self._file.read(2)
        self._socket.sendall(b"+")
        return answer.decode("latin-1")

    def _described(self, annex: str) -> str:
        text = ""
        while True:
            answer = self.ask(f"qXfer:features:read:{annex}:{len(text):x},{CHUNK_BYTES:x}")
            text += answer[1:]
            if answer[:1] != "m":
                return text

    def _learn(self, description: str) -> None:
        for register in REGISTER.finditer(description):
            name, number = register["name"], NUMBER.search(register["rest"])
            self._numbers[name] = int(number[1]) if number else max(self._numbers.values(), default=-1) + 1
            self.sizes[name] = int(register["bits"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()
