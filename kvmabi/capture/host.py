# SPDX-License-Identifier: MIT
"""Asks a backend for everything that a host profile holds."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from kvmabi import hexruns, regid, uapi
from kvmabi.errors import UsageError
from kvmabi.profiles import sysregs
from kvmabi.profiles.features import aliases, label
from kvmabi.steps.backends import Backend
from kvmabi.steps.grammar import MAX_IDS

PTRAUTH = aliases()["ptrauth"]
REST = ("psci_0_2", "pmu_v3", *PTRAUTH)
SETS: tuple[tuple[str, ...], ...] = (
    (),
    ("psci_0_2",),
    ("pmu_v3",),
    ("sve",),
    PTRAUTH,
    ("el1_32bit",),
    REST,
    ("sve", *REST),
    ("sme",),
    ("sve", "sme"),
    ("sme", *REST),
    ("el1_32bit", "sve", "sme"),
)
"""The sets of features for which every register's reset value is recorded, besides the richest one."""
ALL_BITS = (1 << 64) - 1
TIMERS_CRN = 14
CSSELR = regid.parse("csselr_el1")
VECTOR = frozenset({"sve", "sme"})
COUNTERS = sysregs.free_running_ids() | {uapi.KVM_REG_ARM_PTIMER_CTL, uapi.KVM_REG_ARM_PTIMER_CVAL}
"""Free-running counters, and registers that depend on them: never recorded."""

Registers = dict[str, str | None]
Captured = dict[str, Any]


def capture(
    backend: Backend, name: str, recorded_from: str, tick: Callable[[int, int], None] | None = None
) -> Captured:
    """Returns the host behind a backend as a profile; ``tick`` gets the number of feature sets done, and of all.

    Raises UsageError if a vCPU with the host's features cannot be created.
    """
    host_features = backend.describe()
    kernel_features = backend.kernel.features
    richest = tuple(feature for feature in ("sve", "sme", *REST) if feature in host_features.features)
    others = [features for features in SETS if features != richest and kernel_features.keys() >= set(features)]
    registers = _registers(backend, richest)
    if registers is None:
        raise UsageError(f"{backend.name}: no vCPU can be created, so there is nothing to record")
    resets: dict[str, Registers | None] = {}
    for done, features in enumerate(others, 1):
        resets[label(features)] = _registers(backend, features)
        if tick is not None:
            tick(done, len(others))
    table: Captured = {
        "name": name,
        "recorded_from": recorded_from,
        "qemu": getattr(backend, "qemu_version", ""),
        "cpu": getattr(backend, "cpu", ""),
        "kernel_args": getattr(backend, "arguments", ""),
        "kernel_release": host_features.release,
        "kernel_profile": host_features.kernel,
        "cpuinfo_features": backend.answers(["Q"])[0][3:],
        "capabilities": {
            "system": _capabilities(host_features.capabilities_system),
            "vm": _capabilities(host_features.capabilities_vm),
        },
        "sve_vector_bits": [vq * 128 for vq in host_features.sve_vqs],
        "sme_vector_bits": [vq * 128 for vq in host_features.sme_vqs],
    }
    masks = _masks(backend)
    if masks is not None:
        table["writable_masks"] = masks
    table["cpu_keeps"] = cpu_keeps(backend, tuple(feature for feature in richest if feature != "pmu_v3"))
    return table | {"features": label(richest), "registers": registers, "resets": resets}


def origin(backend: Backend) -> str:
    """Returns where a capture comes from, in words."""
    place = "under QEMU TCG" if backend.name == "vm" else f"{platform.node()}, {platform.machine()}"
    return f"real Linux KVM (arm64) {place}"


def _registers(backend: Backend, features: tuple[str, ...]) -> Registers | None:
    """Every listed register of a vCPU after INIT and FINALIZE, null for free-running ones; None if INIT fails."""
    one = _read(backend, features)
    if one is None:
        return None
    other = _read(backend, features) or {}
    return {f"{id:#x}": value if value == other.get(id) and id not in COUNTERS else None for id, value in one.items()}


def _read(backend: Backend, features: tuple[str, ...]) -> dict[int, str] | None:
    _, initialized, *_, listed = backend.answers([*_begin(backend, features), f"L 0 {MAX_IDS}"])
    if initialized != "OK" or not listed.startswith("OK "):
        return None
    ids = listed.split()[2:]
    values = backend.answers(f"G 0 {id}" for id in ids)
    return {int(id, 16): value[3:] for id, value in zip(ids, values, strict=True) if value.startswith("OK ")}


def cpu_keeps(backend: Backend, features: tuple[str, ...]) -> dict[str, str]:
    """Returns the masks of bits that the CPU preserves in registers that KVM_RUN loads, for those that lose bits."""
    values = _read(backend, features) or {}
    ids = [id for id in values if _is_state(id)]
    ones = [f"S 0 {id:x} {'ff' * 8}" for id in ids]
    reads = [f"G 0 {id:x}" for id in ids]
    answers = backend.answers([*_begin(backend, features), *ones, *reads, "R 0", *reads])
    before, after = answers[-2 * len(ids) - 1 : -len(ids) - 1], answers[-len(ids) :] if ids else []
    lost = {id: _number(old) & ~_number(new) for id, old, new in zip(ids, before, after, strict=True)}
    return {f"{id:#x}": f"{ALL_BITS & ~bits:#x}" for id, bits in lost.items() if bits}


def _is_state(id: int) -> bool:
    """Whether a register is EL1 guest state: neither a timer nor an ID register, with which CSSELR_EL1 is encoded."""
    fields = regid.decode(id)
    runs, identifies = fields.crn == TIMERS_CRN, fields.crn == 0 and id != CSSELR
    return fields.family == "sysreg" and fields.op0 == 3 and not runs and not identifies


def _number(answer: str) -> int:
    return int.from_bytes(hexruns.expand(answer[3:]), "little") if answer.startswith("OK ") else 0


def _begin(backend: Backend, features: tuple[str, ...]) -> list[str]:
    """Returns the steps that create a vCPU with all its registers accessible."""
    word = sum(1 << backend.kernel.features[feature].bit for feature in features)
    finalize = [f"F 0 {uapi.KVM_ARM_VCPU_VEC}"] if VECTOR & set(features) else []
    return ["N 1", f"I 0 {backend.describe().target} {word:x}", *finalize]


def _capabilities(capabilities: Any) -> dict[str, int | str]:
    return {str(number): f"-{value}" if isinstance(value, str) else value for number, value in capabilities.items()}


def _masks(backend: Backend) -> dict[str, str] | None:
    _, answer = backend.answers(["N 1", "M"])
    result, *pairs = answer.split()
    if result != "OK":
        return None
    return {f"0x{id}": f"0x{mask}" for id, _, mask in (pair.partition("=") for pair in pairs)}
