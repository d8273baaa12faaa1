# SPDX-License-Identifier: MIT
"""What is explored: the number of CPUs, tasks and vCPUs, the hardware, and the events that can happen.

The named configurations are data: configurations.toml.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any

from kvmabi.errors import UsageError
from kvmabi.fpstate.tokens import LIMIT
from kvmabi.tables import Reader, Table

HARDWARE = ("sve", "sme", "za", "fpmr", "nvhe", "pkvm", "rt")
EVENTS = ("neon", "softirq", "signal", "prctl_vl", "smc", "execve", "clone", "cpu_pm", "idle", "svc_window")
GUEST = ("guest_fp", "guest_sve", "guest_vl")
ROLES = ("plain_vmm", "one_neon")


@dataclass(frozen=True)
class Config:
    """One configuration; the flags are named in HARDWARE, EVENTS, GUEST and ROLES."""

    cpus: int = 1
    tasks: int = 1
    vcpus: int = 0
    vmms: int = 1  # the first ``vmms`` tasks can use vCPUs
    sve: bool = False
    sme: bool = False
    za: bool = False
    fpmr: bool = False
    nvhe: bool = False  # the host runs at EL1, hyp at EL2
    pkvm: bool = False  # protected KVM, which is nVHE
    rt: bool = False  # PREEMPT_RT
    neon: bool = False  # kernel-mode NEON sections in system calls
    softirq: bool = False  # NEON code in softirqs
    signal: bool = False
    prctl_vl: bool = False
    smc: bool = False
    execve: bool = False
    clone: bool = False
    cpu_pm: bool = False
    idle: bool = False  # a task can leave its CPU to the idle thread, and so migrate
    svc_window: bool = False  # interrupts between system call entry and setting syscallno
    guest_fp: bool = False  # the guest uses FP
    guest_sve: bool = False  # the vCPU has SVE
    guest_vl: bool = False  # the guest picks a vector length below its maximum
    plain_vmm: bool = False  # the tasks that use vCPUs never use SVE or SME themselves
    one_neon: bool = False  # only the first task uses kernel-mode NEON sections

    def __post_init__(self) -> None:
        if self.pkvm and not self.nvhe:
            object.__setattr__(self, "nvhe", True)
        if not (1 <= self.cpus <= LIMIT and 1 <= self.tasks <= LIMIT and 0 <= self.vcpus <= LIMIT):
            raise UsageError(f"a configuration has 1 to {LIMIT} CPUs and tasks and at most {LIMIT} vCPUs")

    @property
    def special_tasks(self) -> int:
        """The number of leading tasks that can do what the others cannot; symmetry does not mix the two kinds."""
        return min(self.tasks, max(self.vmms if self.vcpus else 0, int(self.one_neon)))

    @property
    def summary(self) -> str:
        """The configuration as one line: "1 CPU, 2 tasks, 1 vCPU; sve neon softirq"."""
        counts = [_count(self.cpus, "CPU"), _count(self.tasks, "task")]
        if self.vcpus:
            counts.append(_count(self.vcpus, "vCPU"))
        flags = [f for f in (*HARDWARE, *EVENTS, *GUEST, *ROLES) if getattr(self, f)]
        return ", ".join(counts) + ("; " + " ".join(flags) if flags else "")

    def as_dict(self) -> dict[str, Any]:
        """The three counts, and the fields that differ from the smallest configuration."""
        plain = Config()
        names = [f.name for f in fields(self)]
        keep = [n for n in names if n in ("cpus", "tasks", "vcpus") or getattr(self, n) != getattr(plain, n)]
        return {n: getattr(self, n) for n in keep}

    def with_flags(self, **changes: Any) -> Config:
        """The same configuration with some fields changed."""
        return replace(self, **changes)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


COUNTS = frozenset(f.name for f in fields(Config) if f.type == "int")
FLAGS = frozenset(f.name for f in fields(Config)) - COUNTS


def config_from(table: Table, name: str = "a configuration") -> Config:
    """Returns the configuration in a table, where ``with`` lists flags; an error begins with ``name``."""
    return _config(Reader(name, table))


def _config(read: Reader) -> Config:
    read.only({*COUNTS, *FLAGS, "with"})
    chosen: dict[str, Any] = dict.fromkeys(read.texts("with", FLAGS), True)
    for key in read.table.keys() - {"with"}:
        chosen[key] = read.number(key) if key in COUNTS else read.flag(key)
    return Config(**chosen)


@dataclass(frozen=True)
class NamedConfig:
    """A configuration of configurations.toml, with the variants and invariants it is explored for."""

    name: str
    title: str
    config: Config
    variants: tuple[str, ...]
    invariants: str
    slow: bool


@functools.cache
def named_configs() -> dict[str, NamedConfig]:
    """The named configurations, in the file's order."""
    return {
        name: NamedConfig(
            name,
            row.text("title"),
            _config(row.reader("config")),
            row.texts("variants"),
            row.text("invariants", "all"),
            row.flag("slow", False),
        )
        for name, row in builtin("configurations.toml").readers().items()
    }


def builtin(name: str) -> Reader:
    """Returns the reader of a table that ships with the package, by its path below kvmabi/fpstate."""
    return Reader(name, tomllib.loads(resources.files("kvmabi.fpstate").joinpath(name).read_text("utf-8")))


def named_config(name: str) -> NamedConfig:
    """The configuration with this name. Raises UsageError if there is none."""
    config = named_configs().get(name)
    if config is None:
        raise UsageError(f"no configuration {name!r}: choose from {', '.join(named_configs())}")
    return config
