# SPDX-License-Identifier: MIT
"""A captured host (JSON) as a host profile (TOML): what the host decides, by name, with the rest left to the rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from kvmabi import regid
from kvmabi.profiles import sysregs
from kvmabi.profiles.host import Host

WIDTH = 120
NOT_THE_HOSTS = frozenset({"mpidr_el1", "psci_version"})  # the vCPU's number and INIT's features decide these
FIRMWARE = frozenset({"fw", "demux"})


def to_toml(host: Host, *, name: str, recorded: str) -> str:
    """A host profile's text; ``recorded`` says what of it was recorded and what is hypothetical."""
    lines = [
        "# SPDX-License-Identifier: MIT",
        f"name = {json.dumps(name)}",
        f"kernel = {json.dumps(host.kernel)}",
        *_wrapped(f"recorded = {json.dumps(recorded)}"),
        f"sve_vector_bits = {list(host.sve_vector_bits)}",
        f"sme_vector_bits = {list(host.sme_vector_bits)}",
        "",
        "# KVM_CHECK_EXTENSION's answers that are not 0: of both files, and of one only.",
        *_capabilities(host),
        "",
        "# What the host decides of a vCPU with every feature; KVM's rules give everything else.",
        "[registers]",
        *_registers(host),
    ]
    return "\n".join(lines) + "\n"


def write(source: str, target: str, *, recorded: str) -> None:
    """Turn a captured host into a host profile that is named after its file."""
    from kvmabi.profiles.host import load_host

    path = Path(target)
    path.write_text(to_toml(load_host(source), name=path.stem, recorded=recorded), "utf-8")


def host_decides(id: int) -> bool:
    """Whether a register's value after INIT is the host's to tell, not the kernel's rules'."""
    name = regid.name_of(id)
    if name in NOT_THE_HOSTS:
        return False
    reg = sysregs.by_id().get(id)
    if reg is not None:
        return reg.reset is None
    return regid.decode(id).family in FIRMWARE


def _registers(host: Host) -> Iterator[str]:
    for id, value in host.registers.items():
        if value and host_decides(id):
            name = regid.name_of(id)
            yield f"{json.dumps(name) if '[' in name else name} = {value:#x}"


def _capabilities(host: Host) -> Iterator[str]:
    import errno

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
    import textwrap

    key, _, value = line.partition(" = ")
    text = textwrap.wrap(json.loads(value), WIDTH - 4)
    return [f'{key} = """\\', *(f"{part} \\" for part in text[:-1]), f'{text[-1]}"""']
