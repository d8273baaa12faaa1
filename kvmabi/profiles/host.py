# SPDX-License-Identifier: MIT
"""Host profiles: what a machine offers to KVM, recorded on a real one or written by hand."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from kvmabi import regid, uapi
from kvmabi.hexruns import expand
from kvmabi.profiles import files, sysregs
from kvmabi.profiles.files import Reader
from kvmabi.tables import Table

KIND = "hosts"
MAX_VECTOR_BITS = 2048
COUNTER_HZ = 62_500_000
KEYS = frozenset(
    {
        *("name", "kernel", "recorded", "cpu", "counter_hz"),
        *("sve_vector_bits", "sme_vector_bits", "capabilities", "registers", "cpu_keeps"),
    }
)
"""The keys of a host profile written by hand; a captured one may have others, for the information of its readers."""
NOT_THE_HOSTS = frozenset({"mpidr_el1", "psci_version"})  # they depend on the vCPU's number and on INIT's features


@dataclass(frozen=True, repr=False)
class Host:
    """A machine under one kernel.

    ``sve_vector_bits`` and ``sme_vector_bits`` are independent sets (empty: the host has none).
    ``capabilities_system`` and ``capabilities_vm`` are the answers of KVM_CHECK_EXTENSION that are not 0
    (negative: that errno). ``registers`` holds the host-defined registers of a vCPU with every feature:
    ID registers, cache sizes, PMU and firmware state, by id. ``kernel`` names the profile of the kernel that
    answered, ``recorded`` the origin of the data. ``measured_keeps`` are the bits, by id, that the CPU preserves
    of registers that KVM_RUN passes through it (None: not measured, so cpus.toml has them under the name ``cpu``).
    ``counter_hz`` is the frequency of its counter.
    """

    name: str
    kernel: str
    recorded: str
    sve_vector_bits: tuple[int, ...]
    sme_vector_bits: tuple[int, ...]
    capabilities_system: dict[int, int]
    capabilities_vm: dict[int, int]
    registers: dict[int, int]
    cpu: str = ""
    counter_hz: int = COUNTER_HZ
    measured_keeps: dict[int, int] | None = None

    def __repr__(self) -> str:
        vectors = (("SVE", self.sve_vector_bits), ("SME", self.sme_vector_bits))
        lengths = ", ".join(f"{name} {'/'.join(map(str, bits))} bits" for name, bits in vectors if bits)
        return f"<Host {self.name}: {lengths or 'no SVE, no SME'}, kernel {self.kernel}>"

    @property
    def cpu_keeps(self) -> dict[int, int]:
        """The bits that the CPU preserves of registers that KVM_RUN passes through it, by id; of any other, all."""
        if self.measured_keeps is not None:
            return self.measured_keeps
        masks = cpus().get(self.cpu, {})
        return {regid.parse(name): mask for name, mask in masks.items() if isinstance(mask, int)}


@cache
def cpus() -> Table:
    """The CPUs whose preserved bits are known (cpus.toml)."""
    return files.builtin_table("cpus.toml")


def host_decides(id: int) -> bool:
    """Whether a register's value after INIT is host-defined, not given by the kernel's rules."""
    name = regid.name_of(id)
    if name in NOT_THE_HOSTS:
        return False
    reg = sysregs.by_id().get(id)
    if reg is not None:
        return reg.reset is None
    return id & uapi.KVM_REG_ARM_COPROC_MASK in (uapi.KVM_REG_ARM_FW, uapi.KVM_REG_ARM_DEMUX)


def host_names() -> list[str]:
    """The names of the built-in host profiles."""
    return files.builtin_names(KIND)


def load_host(name: str | Host) -> Host:
    """Returns a built-in host profile, or one from a TOML or JSON file; a Host is returned as it is.

    Raises UsageError for anything else.
    """
    if isinstance(name, Host):
        return name
    table, is_json = files.read(KIND, name)
    return from_json(name, table) if is_json else _from_toml(name, table)


def from_json(name: str, table: Table) -> Host:
    """Returns a host from a capture (JSON: ids in hex, values as in traces)."""
    read = Reader(name, table)
    capabilities = read.reader("capabilities")
    registers: dict[int, int] = {}
    sets = {read.text("features", ""): _register_values(read, "registers"), **_resets(read)}
    for features, values in sets.items():
        if "EL2" in features.upper():  # with EL2, ID registers differ, they do not show more
            continue
        for id, number in values.items():
            # A feature that INIT lacks hides fields, so the values of all sets together show the whole host.
            registers[id] = registers.get(id, 0) | number if host_decides(id) else registers.get(id, number)
    return Host(
        name=read.text("name", name),
        kernel=read.text("kernel_profile"),
        recorded=read.text("recorded_from", "a file"),
        sve_vector_bits=_vector_bits(read, "sve_vector_bits"),
        sme_vector_bits=_vector_bits(read, "sme_vector_bits"),
        capabilities_system=_capabilities(capabilities, "system"),
        capabilities_vm=_capabilities(capabilities, "vm"),
        registers=registers,
        cpu=read.text("cpu_profile", _emulator(read)),
        counter_hz=read.number("counter_hz", COUNTER_HZ),
        measured_keeps=_keeps(read, partial(_hex_id, read, "cpu_keeps")),
    )


def _emulator(read: Reader) -> str:
    """Returns the name in cpus.toml of a host that was recorded under QEMU; "" for any other machine."""
    if "QEMU" not in read.text("recorded_from", ""):
        return ""
    version = re.search(r"\b([0-9]+)\.[0-9]", read.text("qemu", "11.0"))
    return "qemu-10" if version and int(version[1]) < 11 else "qemu-11"


def _resets(read: Reader) -> dict[str, dict[int, int]]:
    """The values after INIT with each further set of features."""
    resets = read.reader("resets")
    return {
        features: _register_values(resets, features)
        for features, values in resets.table.items()
        if isinstance(values, dict)  # otherwise INIT refused these features
    }


def _register_values(read: Reader, key: str) -> dict[int, int]:
    values: dict[int, int] = {}
    for text, value in read.sub(key).items():
        id = _hex_id(read, key, text)
        if value is None:
            continue
        if not isinstance(value, str):
            raise read.wrong(f"{key}.{text}", "must be bytes in hex")
        try:
            values[id] = int.from_bytes(expand(value)[:8], "little")
        except ValueError as error:
            raise read.wrong(f"{key}.{text}", str(error)) from None
    return values


def _hex_id(read: Reader, key: str, text: str) -> int:
    """Returns a register id as captures write it: in hex, with or without 0x."""
    return read.as_number(f"{key}.{text}", text if text.startswith("0x") else f"0x{text}")


def _keeps(read: Reader, id_of: Callable[[str], int]) -> dict[int, int] | None:
    """Returns the bits that the CPU preserves, as measured; None if they were not measured."""
    if "cpu_keeps" not in read.table:
        return None
    return {id_of(text): read.as_number(f"cpu_keeps.{text}", mask) for text, mask in read.sub("cpu_keeps").items()}


def _from_toml(name: str, table: Table) -> Host:
    read = Reader(name, table)
    read.only(KEYS)
    read.only(("both", "system", "vm"), "capabilities")
    capabilities = read.reader("capabilities")
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
            read.register(f"registers.{key}", key): read.as_number(f"registers.{key}", value)
            for key, value in read.sub("registers").items()
        },
        cpu=read.text("cpu", ""),
        counter_hz=read.number("counter_hz", COUNTER_HZ),
        measured_keeps=_keeps(read, lambda key: read.register(f"cpu_keeps.{key}", key)),
    )


def _vector_bits(read: Reader, key: str) -> tuple[int, ...]:
    lengths = [read.as_number(key, value, MAX_VECTOR_BITS) for value in read.items(key)]
    if any(bits % 128 or not bits for bits in lengths) or lengths != sorted(set(lengths)):
        raise read.wrong(key, f"must rise in multiples of 128 bits up to {MAX_VECTOR_BITS}")
    return tuple(lengths)


def _capabilities(read: Reader, key: str) -> dict[int, int]:
    answers: dict[int, int] = {}
    for number, value in read.sub(key).items():
        if isinstance(value, str) and value.startswith("-"):
            code = getattr(errno, value[1:], None)
            if not isinstance(code, int):
                raise read.wrong(f"{key}.{number}", f"{value!r} is not an errno")
            answers[read.as_number(key, number)] = -code
        else:
            answers[read.as_number(key, number)] = read.as_number(f"{key}.{number}", value, 2**31 - 1)
    return answers
