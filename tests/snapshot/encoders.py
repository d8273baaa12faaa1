# SPDX-License-Identifier: MIT
"""Writers of foreign formats, for tests only: made from the formats' rules, not from their readers."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
from collections.abc import Sequence
from functools import cache
from typing import Any

import anycrc
import cbor2

import kvmabi
from kvmabi import regid
from kvmabi.errors import KvmError

Registers = dict[int, bytes]
VECTOR_FEATURES = (("sve", "sme"), ("sme",), ("sve",), ())
SVCR = regid.parse("svcr")
TIMER = {regid.parse("cntvct_el0"): 0xDF02, regid.parse("cntv_cval_el0"): 0xDF1A}
CORE_OF_CROSVM = {
    "sp_el1": 0xE208,
    "elr_el1": 0xC201,
    "spsr_el1": 0xC200,
    "spsr_abt": 0xE219,
    "spsr_und": 0xE21A,
    "spsr_irq": 0xE218,
    "spsr_fiq": 0xE21B,
    "fpcr": 0xDA20,
    "fpsr": 0xDA21,
}


@cache
def _listed(host: str, svcr: int) -> tuple[tuple[int, bytes], ...]:
    """The registers of a vCPU with all vector features of a built-in host in the kernel's order."""
    for features in VECTOR_FEATURES:
        with kvmabi.open(host=host, checked=False) as kvm:
            vcpu = kvm.create_vm().create_vcpu(0)
            try:
                vcpu.init({*features, "pmu_v3", "psci_0_2"})
                if features:
                    vcpu.finalize()
            except (KvmError, kvmabi.UsageError):
                continue
            if "sme" in features:
                vcpu["svcr"] = svcr
            return tuple((id, vcpu[id]) for id in vcpu.reg_list())
    raise AssertionError(host)


def saved(host: str, vcpus: int, seed: int = 1, svcr: int = 2) -> list[Registers]:
    """Registers of a VM's vCPUs: core and vector registers hold noise."""
    noise = random.Random(seed)
    machines = []
    for index in range(vcpus):
        registers = {}
        for id, data in _listed(host, svcr):
            row = regid.decode(id)
            if row.family in ("core", "sve", "sme") and not row.name.endswith("_vls"):
                data = noise.randbytes(len(data))
            registers[id] = data
        registers[regid.parse("mpidr_el1")] = (0x80000000 | index).to_bytes(8, "little")
        registers[regid.parse("pc")] = (0x40080000 + 4 * index).to_bytes(8, "little")
        machines.append(registers)
    return machines


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _sealed(body: bytes) -> bytes:
    return body + struct.pack("<Q", anycrc.Model("CRC64-REDIS").calc(body))


def bincode(machines: Sequence[Registers], *, features: int = 0b11100, version: str = "8.0.0") -> bytes:
    """A Firecracker file whose body is bincode; what stands before the vCPUs is filler."""
    out = bytearray(struct.pack("<QQ", 0x07101984AAAA0000, len(version)) + version.encode() + bytes(77))
    out += struct.pack("<Q", len(machines))
    for index, registers in enumerate(machines):
        out += struct.pack("<QI", 4, 3 if index else 0)
        out += struct.pack(f"<Q{len(registers)}Q", len(registers), *registers)
        data = b"".join(registers.values())
        out += struct.pack("<Q", len(data)) + data + registers[regid.parse("mpidr_el1")]
        out += struct.pack("<Q8I", 32, 5, features | (1 if index else 0), *[0] * 6)
        out += b"\1" + struct.pack("<Q", 0x3F000000 + 64 * index) if index % 2 else b"\0"
    return _sealed(bytes(out + bytes(40)))


def packed_octets(values: bytes) -> bytes:
    """A column of bytes as bitcode packs it."""
    if len(values) <= 2:
        return values
    ranges = ((1, 5, 2, 8), (2, 4, 3, 5), (3, 3, 4, 4), (5, 2, 6, 3), (15, 1, 16, 2))

    def kind_for(most: int) -> tuple[int, int, int]:
        return next(((kind, base, each) for top, kind, base, each in ranges if most <= top), (0, 256, 1))

    minimum = min(values) if len(values) > 5 and kind_for(max(values) - min(values)) > kind_for(max(values)) else None
    shifted = values if minimum is None else bytes(value - minimum for value in values)
    kind, base, each = kind_for(max(shifted))
    header = bytes([2 * kind]) if minimum is None else bytes([2 * kind - 1, minimum])
    if kind == 0:
        return header + shifted
    chunks = (shifted[at : at + each] for at in range(0, len(shifted), each))
    return header + bytes(sum(value * base**place for place, value in enumerate(chunk)) for chunk in chunks)


def packed_words(values: Sequence[int]) -> bytes:
    """A column of 64-bit numbers as bitcode packs it."""
    if not values:
        return b""

    def kind_for(most: int) -> int:
        return sum(most < 1 << width for width in (32, 16, 8))

    minimum = min(values) if len(values) > 5 and kind_for(max(values) - min(values)) > kind_for(max(values)) else None
    shifted = [value - (minimum or 0) for value in values]
    kind = kind_for(max(shifted))
    header = bytes([2 * kind]) if minimum is None else struct.pack("<BQ", 2 * kind - 1, minimum)
    if kind == 3:
        return header + packed_octets(bytes(shifted))
    return header + struct.pack(f"<{len(values)}{'QIH'[kind]}", *shifted)


def packed_lengths(values: Sequence[int]) -> bytes:
    """A column of lengths."""
    return packed_octets(bytes(min(value, 255) for value in values)) + packed_words([v for v in values if v >= 255])


def bitcode(machines: Sequence[Registers], *, version: str = "10.0.0") -> bytes:
    """A Firecracker file whose body is bitcode; other columns are filler."""
    out = b"\0" + struct.pack("<Q", 0x07101984AAAA0000) + bytes([len(version)]) + version.encode() + bytes(50)
    ids = [id for registers in machines for id in registers]
    data = [b"".join(registers.values()) for registers in machines]
    out += bytes([2, 4, 4, 10, 0]) + packed_lengths([len(registers) for registers in machines]) + packed_words(ids)
    out += packed_lengths(list(map(len, data))) + packed_octets(b"".join(data))
    return _sealed(out + packed_words([_number(registers[regid.parse("mpidr_el1")]) for registers in machines]))


def _struct_kvm_regs(registers: Registers) -> bytes:
    out = bytearray(864)
    for id, data in registers.items():
        if regid.decode(id).family == "core":
            out[(id & 0xFFFF) * 4 : (id & 0xFFFF) * 4 + len(data)] = data
    return bytes(out)


def _fields_of_kvm_regs(data: bytes) -> dict[str, Any]:
    words = struct.unpack_from("<36Q", data)
    vectors = [_number(data[0x150 + 16 * n : 0x160 + 16 * n]) for n in range(32)]
    spsr = struct.unpack_from("<5Q", data, 36 * 8)
    fpsr, fpcr = struct.unpack_from("<II", data, 0x350)
    regs = {"regs": words[:31], "sp": words[31], "pc": words[32], "pstate": words[33]}
    floating = {"vregs": vectors, "fpsr": fpsr, "fpcr": fpcr}
    return {"regs": regs, "sp_el1": words[34], "elr_el1": words[35], "spsr": spsr, "fp_regs": floating}


def cloud_hypervisor(
    machines: Sequence[Registers], shape: str = "v53", *, wrapped: bool = True, in_string: bool = True, indent: int = 0
) -> bytes:
    """A state.json: shape "v53", "v40", or "derived" for the objects of still older versions."""
    vcpus = {}
    for index, registers in enumerate(machines):
        core: Any = _struct_kvm_regs(registers)
        small = {id: data for id, data in registers.items() if len(data) <= 8 and regid.decode(id).family != "core"}
        wide = {id: data for id, data in registers.items() if len(data) > 8 and regid.decode(id).family != "core"}
        mp_state: Any = [3 if index else 0, 0, 0, 0]
        if shape == "derived":
            core = _fields_of_kvm_regs(core)
            mp_state = {"mp_state": 3 if index else 0}
            system: Any = [{"id": id, "addr": _number(data)} for id, data in small.items()]
        else:
            core = list(core)
            system = [list(struct.pack("<QQ", id, _number(data))) for id, data in small.items()]
        state = {"mp_state": mp_state, "core_regs": core, "sys_regs": system}
        if shape == "v53":
            lengths = [{"id": id, "data": list(wide[id])} for id in wide if regid.name_of(id).endswith("_vls")]
            state["pre_finalize_regs"] = lengths
            others = [{"id": id, "data": list(wide[id])} for id in wide if not regid.name_of(id).endswith("_vls")]
            state["extended_regs"] = others
        held: Any = {"Kvm": state} if wrapped else state
        held = {"state": json.dumps(held)} if in_string else held
        vcpus[str(index)] = {"snapshots": {}, "snapshot_data": held}
    gic = {"Kvm": {"dist": [1, 2, 3], "rdist": [0] * 40, "icc": [7] * 20, "gicd_ctlr": 0x12, "its_iidr": 0x43B}}
    devices = {"gic-v3-its": {"snapshots": {}, "snapshot_data": {"state": json.dumps(gic)}}}
    tree = {
        "snapshots": {
            "cpu-manager": {"snapshots": dict(reversed(vcpus.items())), "snapshot_data": None},
            "device-manager": {"snapshots": devices, "snapshot_data": None},
        },
        "snapshot_data": None,
    }
    return json.dumps(tree, indent=indent or None).encode()


def crosvm_vcpu(index: int, registers: Registers) -> bytes:
    """The file of one vCPU in a snapshot of crosvm, without what that cannot hold."""

    def value(name: str) -> int:
        return _number(registers.get(regid.parse(name), b""))

    sys = {}
    for id, data in registers.items():
        if regid.decode(id).family == "sysreg":
            sys[TIMER.get(id, id & 0xFFFF)] = _number(data)
    sys |= {key: value(name) for name, key in CORE_OF_CROSVM.items()}
    families = {id: regid.decode(id).family for id in registers}
    item = {
        "vcpu_id": index,
        "sp": value("sp"),
        "pc": value("pc"),
        "pstate": value("pstate"),
        "x": [value(f"x{n}") for n in range(31)],
        "v": [value(f"v{n}") for n in range(32)],
        "sys": dict(sorted(sys.items())),
        "cache_arch_info": {id & 0xFF: _number(registers[id]) for id in registers if families[id] == "demux"},
        "hypervisor_data": {
            "firmware_regs": {id & 0xFFFF: _number(registers[id]) for id in registers if families[id] == "firmware"}
        },
    }
    return cbor2.dumps(item)


def held_by_crosvm(registers: Registers) -> Registers:
    """The registers that crosvm keeps."""
    return {id: registers[id] for id in registers if regid.decode(id).family not in ("sve", "sme", "firmware_bitmap")}


def tar(files: dict[str, bytes]) -> bytes:
    """A tar file of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def crosvm(machines: Sequence[Registers]) -> bytes:
    """A tar file of a snapshot's directory."""
    vcpus = {f"snap/vcpu/vcpu{index}": crosvm_vcpu(index, registers) for index, registers in enumerate(machines)}
    return tar({"snap/mem": bytes(100_000), **vcpus, "snap/irqchip": b"\xa0"})
