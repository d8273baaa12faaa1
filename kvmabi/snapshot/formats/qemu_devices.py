# SPDX-License-Identifier: MIT
"""What a QEMU stream says apart from its vCPUs: the run state, the interrupt controller, other devices, KVM or TCG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from kvmabi import regid, uapi
from kvmabi.snapshot.formats.qemu_description import Device
from kvmabi.snapshot.formats.qemu_layout import Layout
from kvmabi.snapshot.snapshot import Origin

Fields = tuple[tuple[str, int, int], ...]
"""Name, size of an item in bytes, number of items."""

INTERRUPT_CONTROLLERS: Final = frozenset({"arm_gic", "arm_gicv3", "arm_gicv3_its"})
GLOBAL_STATE: Final = Layout([("size", "I"), ("runstate", "100s")])
CPU_COMMON: Final = Layout([("halted", "I"), ("interrupt_request", "I")])

_GICV3: Final = (
    *(("gicd_ctlr", 4, 1), ("gicd_statusr", 4, 2), ("group", 4, 32), ("grpmod", 4, 32), ("enabled", 4, 32)),
    *(("pending", 4, 32), ("active", 4, 32), ("level", 4, 32), ("edge_trigger", 4, 32)),
    *(("gicd_ipriority", 1, 1020), ("gicd_irouter", 8, 1020), ("gicd_nsacr", 4, 64)),
)
_GICV3_CPU: Final = (
    *(("level", 4, 1), ("gicr_ctlr", 4, 1), ("gicr_statusr", 4, 2), ("gicr_waker", 4, 1)),
    *(("gicr_propbaser", 8, 1), ("gicr_pendbaser", 8, 1), ("gicr_igroupr0", 4, 1), ("gicr_ienabler0", 4, 1)),
    *(("gicr_ipendr0", 4, 1), ("gicr_iactiver0", 4, 1), ("edge_trigger", 4, 1), ("gicr_igrpmodr0", 4, 1)),
    *(("gicr_nsacr", 4, 1), ("gicr_ipriorityr", 1, 32), ("icc_ctlr_el1", 8, 2), ("icc_pmr_el1", 8, 1)),
    *(("icc_bpr", 8, 3), ("icc_apr", 8, 12), ("icc_igrpen", 8, 3), ("icc_ctlr_el3", 8, 1)),
)
_GICV3_SUBSECTIONS: Final[Mapping[str, tuple[int, Fields]]] = {
    "arm_gicv3/gicd_no_migration_shift_bug": (1, (("gicd_no_migration_shift_bug", 1, 1),)),
    "arm_gicv3/gicd_nmi": (1, (("nmi", 4, 32),)),
}
_GICV3_CPU_SUBSECTIONS: Final[Mapping[str, tuple[int, Fields]]] = {
    "arm_gicv3_cpu/virt": (
        1,
        (("ich_apr", 8, 12), ("ich_hcr_el2", 8, 1), ("ich_lr_el2", 8, 16), ("ich_vmcr_el2", 8, 1)),
    ),
    "arm_gicv3_cpu/sre_el1": (1, (("icc_sre_el1", 8, 1),)),
    "arm_gicv3_cpu/nmi": (1, (("gicr_inmir0", 4, 1),)),
}
_ITS: Final = (("ctlr", 4, 1), ("iidr", 4, 1), ("cbaser", 8, 1), ("cwriter", 8, 1), ("creadr", 8, 1), ("baser", 8, 8))


def run_state(data: bytes) -> str | None:
    """The run state in section globalstate, such as "paused"; None if the section is damaged."""
    if len(data) < GLOBAL_STATE.size_bytes:
        return None
    size_bytes, text = GLOBAL_STATE.struct.unpack_from(data)
    name = text[:size_bytes].partition(b"\0")[0]
    return name.decode("ascii") if name.isascii() and name and size_bytes <= len(text) else None


def interrupt_controller(device: Device | None, name: str, data: bytes, vcpus: int) -> dict[str, Any] | None:
    """The registers of an interrupt controller by name; None if the layout of the section is not certain.

    Names are those of the description, or, without one, of the layout that QEMU 7.2 to 11.1 write, if the section
    fits it to the byte.
    """
    if device is not None:
        return device.values(data) or None
    by_layout = fixed_layout(name, data, vcpus)
    return None if by_layout is None else by_layout.values(data)


def fixed_layout(name: str, data: bytes, vcpus: int) -> Device | None:
    """The layout of a section without a description; None if it is not known or does not fit ``data`` to the byte."""
    device = Device(name, 0, 0)
    if name == "arm_gicv3":
        at = _append(device, _GICV3, 0)
        for index in range(vcpus):
            prefix = f"cpu[{index}]." if vcpus > 1 else "cpu."
            at = _append(device, _GICV3_CPU, at, prefix)
            at = _append_subsections(device, _GICV3_CPU_SUBSECTIONS, data, at, prefix)
        at = _append_subsections(device, _GICV3_SUBSECTIONS, data, at, "")
    elif name == "arm_gicv3_its":
        at = _append(device, _ITS, 0)
    else:
        return None
    device.size_bytes = at
    return device if at == len(data) else None


def _append(device: Device, fields: Fields, at: int, prefix: str = "") -> int:
    for name, item_bytes, count in fields:
        device.add(prefix + name, at, item_bytes, count)
        at += item_bytes * count
    return at


def _append_subsections(
    device: Device, table: Mapping[str, tuple[int, Fields]], data: bytes, at: int, prefix: str
) -> int:
    for name, (version, fields) in table.items():
        mark = bytes([5, len(name)]) + name.encode() + version.to_bytes(4, "big")
        if data.startswith(mark, at):
            at = _append(device, fields, at + len(mark), prefix)
    return at


class Whose(NamedTuple):
    """Whose registers a list of ids is, and why."""

    origin: Origin
    reasons: tuple[str, ...]


@lru_cache(32)
def whose(ids: tuple[int, ...]) -> Whose:
    """Whether KVM or TCG has written a list of registers. Each leaves marks that the other never does.

    >>> from kvmabi import regid
    >>> whose((regid.parse("psci_version"), regid.parse("ccsidr[0]"))).origin.value
    'KVM'
    """
    counts = {mark: sum(map(test, ids)) for mark, test in _MARKS.items()}
    kvm = [f"{counts[mark]} {mark}" for mark in _KVM_MARKS if counts[mark]]
    tcg = [f"{counts[mark]} {mark}" for mark in _TCG_MARKS if counts[mark]]
    if bool(kvm) != bool(tcg):
        origin = Origin.KVM if kvm else Origin.TCG
        absent = [f"no {mark}" for mark in (_TCG_MARKS if kvm else _KVM_MARKS)]
        return Whose(origin, tuple(kvm + tcg + absent))
    return Whose(Origin.UNKNOWN, tuple(kvm + tcg) or ("no registers that only one of KVM and TCG has",))


_KVM_CVAL: Final = uapi.KVM_REG_ARM_TIMER_CVAL
_MARKS: Final = {
    "AArch32 registers": lambda id: id >> 56 == uapi.KVM_REG_ARM >> 56,
    "firmware registers": lambda id: regid.decode(id).family in ("firmware", "firmware_bitmap"),
    "cache sizes (CCSIDR)": lambda id: regid.decode(id).family == "demux",
    "timer registers in KVM's numbering": lambda id: id == _KVM_CVAL,
}
_KVM_MARKS: Final = ("firmware registers", "cache sizes (CCSIDR)", "timer registers in KVM's numbering")
_TCG_MARKS: Final = ("AArch32 registers",)


def version_hints(machine: str, types: Iterable[str], subsections: Iterable[str], *, configuration: bool) -> list[str]:
    """What a stream gives away about the release of QEMU that wrote it."""
    hints = []
    kind, _, version = machine.rpartition("-")
    if kind and version.replace(".", "").isdigit():
        hints.append(f"{version} or later: it has the machine {machine}")
    hints += [f"{_SINCE[name]} or later: it writes {name}" for name in subsections if name in _SINCE]
    if configuration:
        hints.append("8.0 or later: it describes its configuration")
    if "int32 le" in types:
        hints.append("before 11.1: it names a type int32 le")
    return hints


_SINCE: Final = {"cpu/sme": "7.1", "cpu/vfp/fpcr_fpsr": "9.1", "cpu/zt0": "10.1", "cpu/fpmr": "10.1"}
