# SPDX-License-Identifier: MIT
"""Hosts derived from golden records, where no capture exists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from golden import packs
from golden.lab import expand
from kvmabi import hexruns
from kvmabi.profiles import Host
from kvmabi.profiles.host import from_json

COUNTERS = ("df01", "df1a")
SAME_CPU = {"sme-v12.sve256_sme512_nested": "sme-v12.sve512_sme512"}


def from_records(name: str) -> Host:
    """The host on which a file of records was recorded."""
    table: dict[str, Any] = {"name": name, "recorded_from": "real Linux KVM (arm64) under QEMU TCG", "capabilities": {}}
    resets: dict[str, dict[str, str | None]] = {}
    for record in packs.read(f"{name}.jsonl"):
        match record["t"]:
            case "host" | "header":
                _describe(table, name, record)
            case "caps":
                table["capabilities"][record["fd"]] = record["nonzero"]
            case "vls" if "host" in record:
                table["sve_vector_bits"] = [128 * n for n in range(1, 17) if int(record["host"], 16) >> (n - 1) & 1]
            case "reset" if record["e"] == "OK" and not record["svcr"]:
                _note(resets.setdefault(record["feat"], {}), record["id"], record["v"])
            case "reg" if record["get"] == "OK":
                _note(resets.setdefault(record["combo"], {}), record["id"], record["val"])
    table["resets"] = resets
    host = from_json(name, table)
    # Where every vCPU had EL2, the ID registers show what that leaves of the host's: take those of the same CPU.
    same_cpu = SAME_CPU.get(name)
    return replace(host, registers=packs.host(same_cpu).registers) if same_cpu else host


def _describe(table: dict[str, Any], name: str, record: dict[str, Any]) -> None:
    table["qemu"] = record.get("qemu", table.get("qemu"))
    series = name.partition(".")[0]
    if series != "mainline":
        table["kernel_profile"] = series
    elif "kernel" in record:
        table["kernel_profile"] = "linux-" + ("6.12" if record["kernel"].startswith("6.12") else record["kernel"][:3])
    for key in ("sve", "sme"):
        if f"{key}_vls" in record:
            table[f"{key}_vector_bits"] = [int(bits) for bits in record[f"{key}_vls"].split(",") if bits]


def _note(values: dict[str, str | None], id: str, text: str) -> None:
    values[id] = None if id.endswith(COUNTERS) else hexruns.compress(expand(text))
