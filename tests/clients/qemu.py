# SPDX-License-Identifier: MIT
"""QEMU's arm64 system emulator, built for arm64, under ``kvmabi run``, driven through its monitor.

Protocol: QMP, https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from fetch_clients.place import Place

from clients.running import Result, Run

SECONDS = 60.0
LOOK_SECONDS = 0.02
MACHINE = ("-accel", "kvm", "-nodefaults", "-nographic", "-S", "-m", "64")
GIC = "virt,gic-version=3"


class Qemu:
    """One QEMU of a client's, started stopped. ``options`` are QEMU's, ``run_options`` those of ``kvmabi run``."""

    def __init__(
        self,
        client: str,
        folder: Path,
        *options: str | Path,
        kernel: str,
        host: str,
        cpu: str = "host",
        run_options: Sequence[str | Path] = ("--saves", "none"),
    ) -> None:
        root = Place(client).path / "root"
        folder.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "qmp"))
        self._listener.listen()
        monitor = ("-qmp", f"unix:{folder / 'qmp'}")
        program = (root / "usr/bin/qemu-system-aarch64", *MACHINE, "-M", GIC, "-cpu", cpu, *monitor, *options)
        self.run = Run(program, folder, kernel=kernel, host=host, options=("--sysroot", root, *run_options))
        self.events: list[dict[str, Any]] = []

    def command(self, name: str, **arguments: object) -> Any:
        """A command of QMP; returns what it returns, fails with QEMU's error."""
        request = {"execute": name, "arguments": arguments} if arguments else {"execute": name}
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        while "event" in (answer := self._read()):
            self.events.append(answer)
        assert "return" in answer, answer["error"]["desc"]
        return answer["return"]

    def monitor(self, line: str) -> str:
        """A command of the monitor for people; returns what it prints."""
        return str(self.command("human-monitor-command", **{"command-line": line})).replace("\r\n", "\n")

    def wait_for(self, name: str, field: str, *values: str) -> str:
        """Ask until a field of an answer has one of these values; returns it."""
        deadline = time.monotonic() + SECONDS
        while (value := self.command(name).get(field)) not in values:
            assert time.monotonic() < deadline, f"{name}: {field} is still {value}"
            time.sleep(LOOK_SECONDS)
        return str(value)

    def migrate(self, path: Path) -> None:
        """Save the machine into a file."""
        self.command("migrate", uri=f"exec:cat > {path}")
        assert self.wait_for("query-migrate", "status", "completed", "failed") == "completed"

    def quit(self) -> Result:
        """End QEMU."""
        self.command("quit")
        self.run.process.wait(SECONDS)
        return self.run.result()

    def ended(self) -> Result:
        """Wait until QEMU ends by itself."""
        self.run.process.wait(SECONDS)
        return self.run.result()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._stream.readline()
        except ConnectionError:
            line = ""
        assert line, f"QEMU has ended: {self.ended().output}"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def _connect(self) -> None:
        self._listener.settimeout(LOOK_SECONDS * 5)
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                connection, _ = self._listener.accept()
                break
            except TimeoutError:
                assert self.run.process.poll() is None, self.run.result().output
                assert time.monotonic() < deadline, "QEMU does not open its monitor"
        connection.settimeout(SECONDS)
        self._stream = connection.makefile("rw", encoding="utf-8")
        connection.close()  # the stream keeps it open
        self._read()
        self.command("qmp_capabilities")

    def __enter__(self) -> Self:
        self.run.__enter__()
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        if hasattr(self, "_stream"):
            self._stream.close()
        self.run.__exit__()
