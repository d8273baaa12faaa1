# SPDX-License-Identifier: MIT
"""QEMU's migration stream: what ``migrate``, ``savevm`` and libvirt write, of arm64 machines, versions 7.2 to 11.1.

The stream does not hold the sets of vector lengths, the features of INIT, the order of restore, or bits 1024 to 2047
of Z. Rows of ZA beyond the streaming vector length are zero in the stream: all 256 are returned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kvmabi.snapshot.formats import qemu_cpu, qemu_devices, qemu_sections
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.qemu_cpu import Vcpu
from kvmabi.snapshot.formats.qemu_cpu_layout import VERSION
from kvmabi.snapshot.formats.qemu_stream import CPU, MAGIC, Section, Stream
from kvmabi.snapshot.snapshot import Fact, Origin, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob, Source

NAME: Final = "qemu"
MOST_VCPUS: Final = 512
MOST_REGISTERS: Final = 1 << 18
"""The registers of all vCPUs."""
UNKNOWN: Final = frozenset({Fact.FEATURES, Fact.HOST, Fact.KERNEL, Fact.ORDER})


def read(source: Source) -> Snapshot:
    """Read the stream that begins at the source's position. Raises BadBlob if it holds no vCPU that can be read."""
    stream = qemu_sections.cut(source)
    vcpus, problems = _vcpus(stream)
    if not vcpus:
        first = next(iter(problems or stream.problems), None)
        text = f"holds no arm64 vCPU{f': {first.text}' if first else ''}"
        raise BadBlob(text, first.offset if first else None, first.rule if first else "no-vcpu")
    whose = qemu_devices.whose(vcpus[0].ids)
    sve, sme = any(vcpu.sve for vcpu in vcpus), any(vcpu.sme for vcpu in vcpus)
    unknown = UNKNOWN
    if sve or sme:
        unknown |= {Fact.VECTOR_LENGTHS}
    if sve or any(vcpu.vcpu.sm for vcpu in vcpus):
        unknown |= {Fact.LONG_Z}
    if any(vcpu.vcpu.mp_state is None for vcpu in vcpus):
        unknown |= {Fact.MP_STATE}
    return Snapshot(
        NAME,
        [vcpu.vcpu for vcpu in vcpus],
        origin=whose.origin,
        sve_bits=None if sve else (),
        sme_bits=None if sme else (),
        unknown=unknown,
        facts=_facts(stream, vcpus, whose, packed=source.packed),
        devices=[_device(section) for section in stream.sections],
        problems=stream.problems + problems,
    )


def _vcpus(stream: Stream) -> tuple[list[Vcpu], list[Problem]]:
    """The vCPUs by index, and what is wrong with them."""
    problems: list[Problem] = []
    vcpus: dict[int, Vcpu] = {}
    count = 0
    for section in stream.sections:
        if section.name != CPU:
            continue
        if section.version != VERSION:
            text = f"section cpu has the version {section.version}; that of arm64 vCPUs is {VERSION}"
            raise BadBlob(text, section.at, "not-arm64")
        index = section.instance_id
        if index in vcpus:
            problems.append(Problem("duplicate-vcpu", f"vCPU {index} stands there twice", section.at, index))
            continue
        try:
            vcpu = qemu_cpu.read(section.data, section.at, index, problems)
        except BadBlob as error:
            if error.rule == "not-arm64":
                raise
            problems.append(Problem(error.rule, error.text, error.offset, index))
            continue
        vcpus[index] = vcpu
        count += len(vcpu.ids)
        if len(vcpus) > MOST_VCPUS or count > MOST_REGISTERS:
            raise BadBlob("more vCPUs than a VM can have", section.at, "too-large")
    return [vcpus[index] for index in sorted(vcpus)], problems


def _facts(stream: Stream, vcpus: list[Vcpu], whose: qemu_devices.Whose, *, packed: str) -> dict[str, Any]:
    """What the stream says about the machine."""
    types: Iterable[str] = ()
    if stream.description is not None:
        cpu = next((device for device in stream.description.devices if device.name == CPU), None)
        types = () if cpu is None else (cpu.types.get("cpreg_vmstate_array_len", ""),)
    facts: dict[str, Any] = {
        "machine": stream.machine,
        "page_bytes": 1 << stream.page_bits,
        "qemu": qemu_devices.version_hints(
            stream.machine,
            types,
            vcpus[0].subsections,
            configuration=stream.description is not None and stream.description.describes_configuration,
        ),
        "origin": list(whose.reasons),
        "described": stream.description is not None,
        "ram": [{"name": block.name, "size_bytes": block.size_bytes} for block in stream.blocks],
        "ram_was_read": stream.ram_was_read,
    }
    if whose.origin is Origin.TCG:
        facts["note"] = "a TCG stream: its list of registers is QEMU's own, not a kernel's; timer ids are architectural"
    for key, value in (("capabilities", list(stream.capabilities)), ("uuid", stream.uuid), ("packed", packed)):
        if value:
            facts[key] = value
    halted: dict[int, VcpuSnapshot] = {vcpu.vcpu.index: vcpu.vcpu for vcpu in vcpus}
    for section in stream.sections:
        if section.name == "globalstate":
            _run_state(section, facts, stream)
        elif section.name == "cpu_common" and section.instance_id in halted:
            layout = qemu_devices.CPU_COMMON
            if len(section.data) >= layout.size_bytes:
                halted[section.instance_id].facts["halted"] = bool(layout.struct.unpack_from(section.data)[0])
        elif section.name in qemu_devices.INTERRUPT_CONTROLLERS:
            _interrupt_controller(section, facts, len(vcpus))
    return facts


def _run_state(section: Section, facts: dict[str, Any], stream: Stream) -> None:
    state = qemu_devices.run_state(section.data)
    if state is None:
        stream.problem("malformed", "section globalstate holds no run state", section.at)
    else:
        facts["run_state"] = state


def _interrupt_controller(section: Section, facts: dict[str, Any], vcpus: int) -> None:
    values = qemu_devices.interrupt_controller(section.device, section.name, section.data, vcpus)
    if values is None:
        reason = f"{section.name} has no description and does not fit the layout that is known: not read"
        facts.setdefault("not_read", []).append(reason)
    else:
        facts.setdefault("vgic", {})[section.name] = values


def _device(section: Section) -> dict[str, Any]:
    return {
        "name": section.name,
        "instance_id": section.instance_id,
        "version": section.version,
        "size_bytes": len(section.data),
        "offset": section.at,
    }


FORMAT = Format(NAME, "QEMU migration stream", lambda head: head.startswith(MAGIC), read)
