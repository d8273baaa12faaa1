# SPDX-License-Identifier: MIT
"""The events that read and write a field in a variant: observed on long random runs, not declared."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, cast

from kvmabi.errors import UsageError
from kvmabi.fpstate import events
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.machine import Machine
from kvmabi.fpstate.state import Component, Cpu, Task, Vcpu
from kvmabi.fpstate.variants import Variant

STEPS = 4000

MEANING = {
    "cur": "the task that runs on the CPU",
    "V": "V0-V31, the low 128 bits of each vector",
    "Z": "the state that only SVE has: the rest of each vector, P, FFR",
    "F": "FPMR; in a task, thread.uw.fpmr",
    "SM": "PSTATE.SM: streaming mode; a change zeroes V, Z and F",
    "ZA": "PSTATE.ZA",
    "st": "fpsimd_last_state.st: the owner of the state in the registers",
    "to_save": "fpsimd_last_state.to_save: the format to save them in",
    "ZEN": "CPACR_EL1.ZEN for EL0: 0 traps SVE instructions in user mode",
    "SMEN": "CPACR_EL1.SMEN for EL0: 0 traps SME instructions in user mode",
    "owner": "KVM's owner of the registers: FREE, HOST or GUEST (host_data.fp_owner from 6.10)",
    "hostsve": "HOST_SVE_ENABLED and HOST_SME_ENABLED: the values that vcpu_put restores to ZEN and SMEN",
    "vl": "the SVE vector length in effect: the host's, the guest's maximum or the guest's choice",
    "guest": "the vCPU in guest mode on the CPU",
    "hyp": "pKVM: hyp has saved the host's registers and loaded the guest's",
    "hV": "pKVM: the host's V, saved where only hyp can access it",
    "hZ": "pKVM: the host's Z, saved where only hyp can access it",
    "on": "the CPU that runs the task",
    "mode": "where the task is: in user mode, in a system call, in the guest, ...",
    "vcpu": "the vCPU whose ioctl the task executes",
    "FOREIGN": "TIF_FOREIGN_FPSTATE: the registers do not hold the newest state of current (or of its guest)",
    "SVE": "TIF_SVE: user mode can use SVE; up to 6.1 also the format of the saved copy",
    "SME": "TIF_SME: user mode can use SME",
    "KERN": "TIF_KERNEL_FPSTATE: inside a preemptible kernel-mode NEON section",
    "fcpu": "thread.fpsimd_cpu: the CPU to which the task's user state was last bound",
    "kcpu": "thread.kernel_fpsimd_cpu: the same for its NEON section",
    "fV": "the FPSIMD-format copy in memory",
    "sV": "the SVE-format copy in memory, low 128 bits",
    "sZ": "the SVE-format copy in memory, the rest",
    "type": "thread.fp_type: the copy that is valid while the registers are not live",
    "svcr": "thread.svcr",
    "kV": "the NEON section's copy in memory",
    "user": "the task that has the vCPU loaded",
    "zcr": "whether the guest chose a vector length below its maximum",
}
ALIASES = {
    "fp_type": "type",
    "TIF_FOREIGN_FPSTATE": "FOREIGN",
    "TIF_SVE": "SVE",
    "TIF_SME": "SME",
    "TIF_KERNEL_FPSTATE": "KERN",
    "fpsimd_cpu": "fcpu",
    "kernel_fpsimd_cpu": "kcpu",
    "fp_owner": "owner",
    "last": "st",
    "FPMR": "F",
    "fpmr": "F",
    "HOST_SVE_ENABLED": "hostsve",
}


@dataclass(frozen=True)
class Explanation:
    """A field, and the events that read and change it in a variant, by kind of component."""

    field: str
    meaning: str
    variant: Variant
    reads: dict[str, tuple[str, ...]]
    writes: dict[str, tuple[str, ...]]


class Spy:
    """A proxy of a component that records which fields are read."""

    def __init__(self, inner: Component, noted: set[tuple[str, str]]) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_noted", noted)

    @property  # type: ignore[misc]  # isinstance(spy, Task) must hold as it does for the component
    def __class__(self) -> Any:
        return type(object.__getattribute__(self, "_inner"))

    def __getattr__(self, field: str) -> Any:
        inner = object.__getattribute__(self, "_inner")
        if field in inner.FIELDS:
            object.__getattribute__(self, "_noted").add((type(inner).__name__, field))
        return getattr(inner, field)

    def __setattr__(self, field: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_inner"), field, value)


def _spied(m: Machine, noted: set[tuple[str, str]]) -> Machine:
    cpus = cast(list[Cpu], [Spy(c, noted) for c in m.cpus])
    tasks = cast(list[Task], [Spy(t, noted) for t in m.tasks])
    return Machine(m.knobs, m.config, cpus, tasks, cast(list[Vcpu], [Spy(v, noted) for v in m.vcpus]))


def _everything(variant: Variant) -> Config:
    knobs = variant.knobs
    return Config(
        cpus=2, tasks=2, vcpus=1, sve=True, sme=knobs.sme_code, fpmr=knobs.fpmr, neon=True, softirq=True, signal=True,
        prctl_vl=True, smc=True, execve=True, clone=True, cpu_pm=True, idle=True, guest_fp=True, guest_sve=True,
    )  # fmt: skip


def explain(name: str, variant: Variant) -> Explanation:
    """The events that touch a field. Raises UsageError if there is no such field."""
    field = ALIASES.get(name, name)
    if field not in MEANING:
        raise UsageError(f"no field {name!r}: choose from {', '.join(MEANING)}")
    reads: dict[str, set[str]] = {}
    writes: dict[str, set[str]] = {}
    config = _everything(variant)
    chance = random.Random(0)
    m = Machine.boot(variant.knobs, config)
    for _ in range(STEPS):
        event = chance.choice(list(events.enabled(m)))
        noted: set[tuple[str, str]] = set()
        before = [c.values() for c in m.components()]
        if not events.apply(_spied(m, noted), event):
            m = Machine.boot(variant.knobs, config)
            continue
        for kind, seen in noted:
            if seen == field:
                reads.setdefault(kind, set()).add(event.name)
        for old, component in zip(before, m.components(), strict=True):
            if field in component.FIELDS:
                place = component.FIELDS.index(field)
                if old[place] != component.values()[place]:
                    writes.setdefault(type(component).__name__, set()).add(event.name)
    return Explanation(field, MEANING[field], variant, _sorted(reads), _sorted(writes))


def _sorted(events_by_kind: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(sorted(names)) for kind, names in sorted(events_by_kind.items())}
