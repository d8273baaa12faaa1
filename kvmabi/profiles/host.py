# SPDX-License-Identifier: MIT
"""Host profiles: what a machine brings to KVM, recorded from a real one or written by hand."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from kvmabi import regid
from kvmabi.hexruns import expand
from kvmabi.profiles import files

KIND = "hosts"
MAX_VECTOR_BITS = 2048


@dataclass(frozen=True)
class Host:
    """A machine under one kernel.

    ``sve_vector_bits`` and ``sme_vector_bits`` are independent sets (empty: the host has none).
    ``capabilities_system`` and ``capabilities_vm`` are KVM_CHECK_EXTENSION's answers that are not 0
    (negative: that errno). ``registers`` holds what the host decides of a vCPU with every feature:
    ID registers, cache sizes, PMU and firmware state, by id. ``kernel`` names the profile of the
    kernel that answered, ``recorded`` what the data comes from.
    """

    name: str
    kernel: str
    recorded: str
    sve_vector_bits: tuple[int, ...]
    sme_vector_bits: tuple[int, ...]
    capabilities_system: dict[int, int] = field(repr=False)
    capabilities_vm: dict[int, int] = field(repr=False)
    registers: dict[int, int] = field(repr=False)


def host_names() -> list[str]:
    """The names of the built-in host profiles."""
    return files.builtin_names(KIND)


def load_host(name: str) -> Host:
    """A built-in host profile, or one from a TOML or JSON file; raises UsageError."""
    table, is_json = files.read(KIND, name)
    return from_json(name, table) if is_json else _from_toml(name, table)


def from_json(name: str, table: files.Table) -> Host:
    """A host in the form in which hosts are captured (JSON: ids in hex, values as in traces)."""
    read = files.Reader(name, table)
    capabilities = files.Reader(f"{name}: capabilities", read.sub("capabilities"))
    registers: dict[int, int] = {}
    for key, value in read.sub("registers").items():
        id = read.as_number(f"registers.{key}", key if key.startswith("0x") else f"0x{key}")
        if value is None:
            continue
        if not isinstance(value, str):
            raise read.wrong(f"registers.{key}", "must be bytes in hex")
        try:
            registers[id] = int.from_bytes(expand(value)[:8], "little")
        except ValueError as error:
            raise read.wrong(f"registers.{key}", str(error)) from None
    return Host(
        name=read.text("name", name),
        kernel=read.text("kernel_profile"),
        recorded=read.text("recorded_from", "a file"),
        sve_vector_bits=_vector_bits(read, "sve_vector_bits"),
        sme_vector_bits=_vector_bits(read, "sme_vector_bits"),
        capabilities_system=_capabilities(capabilities, "system"),
        capabilities_vm=_capabilities(capabilities, "vm"),
        registers=registers,
    )


def _from_toml(name: str, table: files.Table) -> Host:
    read = files.Reader(name, table)
    capabilities = files.Reader(f"{name}: capabilities", read.sub("capabilities"))
    both = _capabilities(capabilities, "both")
    return Host(
        name=read.text("name", name),
        kernel=read.text("kernel"),
        recorded=read.text("recorded"),
        sve_vector_bits=_vector_bits(read, "sve_vector_bits"),
        sme_vector_bits=_vector_bits(read, "sme_vector_bits"),
        capabilities_system=both | _capabilities(capabilities, "system"),
        capabilities_vm=both | _capabilities(capabilities, "vm"),
        registers={
            regid.parse(key): read.as_number(f"registers.{key}", value) for key, value in read.sub("registers").items()
        },
    )


def _vector_bits(read: files.Reader, key: str) -> tuple[int, ...]:
    lengths = [read.as_number(key, value, MAX_VECTOR_BITS) for value in read.items(key)]
    if any(bits % 128 or not bits for bits in lengths) or lengths != sorted(set(lengths)):
        raise read.wrong(key, f"must rise in multiples of 128 bits up to {MAX_VECTOR_BITS}")
    return tuple(lengths)


def _capabilities(read: files.Reader, key: str) -> dict[int, int]:
    answers: dict[int, int] = {}
    for number, value in read.sub(key).items():
        if isinstance(value, str) and value.startswith("-"):
            code = getattr(errno, value[1:], None)
            if not isinstance(code, int):
                raise read.wrong(f"{key}.{number}", f"{value!r} is no errno")
            answers[read.as_number(key, number)] = -code
        else:
            answers[read.as_number(key, number)] = read.as_number(f"{key}.{number}", value, 2**31 - 1)
    return answers
