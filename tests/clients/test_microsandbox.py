# SPDX-License-Identifier: MIT
"""microsandbox makes a VM with libkrun, and its vCPU runs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from fetch_clients.place import Place

from clients import running
from clients.available import needs_client, needs_vgic_registers

CLIENT = "microsandbox"
BUNDLED = Place(CLIENT).path / "root/microsandbox/_bundled"
pytestmark = [*needs_client(CLIENT), needs_vgic_registers()]


def test_the_vcpu_runs(tmp_path: Path) -> None:
    """The VM is made as libkrun makes it, and its vCPU waits in KVM_RUN; nothing that it asks for is missing."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    kernels = sorted((BUNDLED / "lib").glob("libkrunfw.so*"))
    program = BUNDLED / "bin/msb"
    command = [program, "run", "--no-net", root, "--", "/bin/true"]
    with TemporaryDirectory(prefix="msb-", dir="/tmp") as home:  # a short name: there are sockets below it
        environment = {"MSB_HOME": home, "MSB_PATH": str(program), "MSB_LIBKRUNFW_PATH": str(kernels[-1])}
        folder = tmp_path / "run"
        result = running.run(command, folder, kernel="linux-6.12", host="neoverse-v1", environment=environment)
    assert result.in_guest, result.output[-2000:]
    assert (result.report["findings"], result.report["not_modelled"]) == ([], [])
