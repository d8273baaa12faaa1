# SPDX-License-Identifier: MIT
"""A captured host (JSON) as a host profile (TOML): host-defined values by register name, not those that rules give."""

from __future__ import annotations

import errno
import json
import textwrap
from collections.abc import Iterator

from kvmabi import regid
from kvmabi.profiles.host import COUNTER_HZ, Host, host_decides

WIDTH = 120


def to_toml(host: Host, *, name: str, recorded: str) -> str:
    """A host profile's text; ``recorded`` says what of it was recorded and what is hypothetical."""
    lines = [
        "# SPDX-License-Identifier: MIT",
        f"name = {json.dumps(name)}",
        f"kernel = {json.dumps(host.kernel)}",
        *_wrapped(f"recorded = {json.dumps(recorded)}"),
        f"sve_vector_bits = {list(host.sve_vector_bits)}",
        f"sme_vector_bits = {list(host.sme_vector_bits)}",
        *([f"cpu = {json.dumps(host.cpu)}"] if host.cpu else []),
        *([f"counter_hz = {host.counter_hz}"] if host.counter_hz != COUNTER_HZ else []),
        "",
        "# Answers of KVM_CHECK_EXTENSION that are not 0: on both files, and on one only.",
        *_capabilities(host),
        "",
        "# Host-defined registers of a vCPU with every feature; KVM's rules give all others.",
        "[registers]",
        *_registers(host),
        *_keeps(host),
    ]
    return "\n".join(lines) + "\n"


def _registers(host: Host) -> Iterator[str]:
    for id, value in host.registers.items():
        if value and host_decides(id):
            yield f"{_key(id)} = {value:#x}"


def _keeps(host: Host) -> Iterator[str]:
    if host.measured_keeps is not None:
        yield from ("", "# The bits that the CPU preserves of registers that KVM_RUN passes through it.", "[cpu_keeps]")
        yield from (f"{_key(id)} = {mask:#x}" for id, mask in host.measured_keeps.items())


def _key(id: int) -> str:
    name = regid.name_of(id)
    return json.dumps(name) if "[" in name else name


def _capabilities(host: Host) -> Iterator[str]:
    system, vm = host.capabilities_system, host.capabilities_vm
    both = {number: value for number, value in system.items() if vm.get(number) == value}
    for key, answers in (("both", both), ("system", system), ("vm", vm)):
        own = answers if key == "both" else {n: value for n, value in answers.items() if n not in both}
        if own:
            yield f"[capabilities.{key}]"
            yield from (
                f'{n} = "-{errno.errorcode[-value]}"' if value < 0 else f"{n} = {value}" for n, value in own.items()
            )


def _wrapped(line: str) -> list[str]:
    """A string too long for a line as TOML's multi-line string."""
    if len(line) <= WIDTH:
        return [line]
    key, _, value = line.partition(" = ")
    text = textwrap.wrap(json.loads(value), WIDTH - 4)
    return [f'{key} = """\\', *(f"{part} \\" for part in text[:-1]), f'{text[-1]}"""']
