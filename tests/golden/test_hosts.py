# SPDX-License-Identifier: MIT
"""Every register of every recorded host, after every INIT that was tried, is what the model gives."""

from __future__ import annotations

import json
from pathlib import Path

import hosttoml
import pytest

from golden import packs
from golden.lab import Lab
from kvmabi import hexruns

HOSTS = [name.removesuffix(".json") for name in packs.names("hosts", ".json")]


@pytest.mark.parametrize("name", HOSTS)
def test_resets_are_made_by_rule(name: str) -> None:
    """Reset values follow from the host's ID registers and the features; INIT refuses what the host refused."""
    table = json.loads(Path(packs.path("hosts", f"{name}.json")).read_text("utf-8"))
    lab = Lab(packs.host(name), packs.kernel(table["kernel_profile"]))
    for features, registers in ({table["features"]: table["registers"]} | table["resets"]).items():
        vcpu = lab.vcpu()
        result = vcpu.init(features)
        assert (result == "OK") == (registers is not None), features
        if registers is None:
            continue
        vcpu.finalize()
        for id, text in registers.items():
            if text is not None:
                got = vcpu.get(int(id, 16))
                value = hexruns.compress(bytes(vcpu.memory.buffer[: 1 << (int(id, 16) >> 52 & 15)]))
                assert got != "OK" or value == text, (features, id)
    lab.close()


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_profile_keeps_what_its_capture_says(name: str, tmp_path) -> None:
    """A capture written as a profile of names loads as the same host."""
    from kvmabi.profiles import load_host

    host = packs.host(name)
    path = tmp_path / "host.toml"
    path.write_text(hosttoml.to_toml(host, name=host.name, recorded=host.recorded), "utf-8")
    loaded = load_host(str(path))
    assert loaded.capabilities_vm == host.capabilities_vm
    assert loaded.capabilities_system == host.capabilities_system
    assert (loaded.sve_vector_bits, loaded.sme_vector_bits) == (host.sve_vector_bits, host.sme_vector_bits)
    assert loaded.cpu == host.cpu
    assert all(
        loaded.registers.get(id, 0) == value for id, value in host.registers.items() if hosttoml.host_decides(id)
    )
