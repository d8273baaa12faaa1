# SPDX-License-Identifier: MIT
"""The userspace side of arm64 KVM, emulated: one register map decides what every ioctl answers.

>>> import kvmabi
>>> with kvmabi.open(host="sme-demo") as kvm:
...     vcpu = kvm.create_vm().create_vcpu(0)
...     vcpu.init({"sve", "sme"})
...     vcpu.finalize()
...     vcpu["svcr"] = 2
...     len(vcpu["za.h[3]"])
256
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmabi.errors import KvmError, UsageError
    from kvmabi.events import Event, Origin
    from kvmabi.kvm import Kvm, Vcpu, Vm
    from kvmabi.kvm import open_kvm as open
    from kvmabi.model.plan import Plan
    from kvmabi.order import Finding
    from kvmabi.profiles import Host, Kernel, host_names, kernel_names, load_host, load_kernel
    from kvmabi.snapshot.comparing.diff import diff
    from kvmabi.snapshot.matrix.matrix import matrix
    from kvmabi.snapshot.restoring import RestoreError, restore
    from kvmabi.snapshot.saving import save
    from kvmabi.snapshot.snapshot import Snapshot

__version__ = "0.1.0"  # pyproject.toml reads it here
__all__ = [
    "Event",
    "Finding",
    "Host",
    "Kernel",
    "Kvm",
    "KvmError",
    "Origin",
    "Plan",
    "RestoreError",
    "Snapshot",
    "UsageError",
    "Vcpu",
    "Vm",
    "__version__",
    "diff",
    "host_names",
    "kernel_names",
    "load_host",
    "load_kernel",
    "matrix",
    "open",
    "restore",
    "save",
]

_HOMES = {
    "Event": "kvmabi.events",
    "Finding": "kvmabi.order",
    "Host": "kvmabi.profiles",
    "Kernel": "kvmabi.profiles",
    "Kvm": "kvmabi.kvm",
    "KvmError": "kvmabi.errors",
    "Origin": "kvmabi.events",
    "Plan": "kvmabi.model.plan",
    "RestoreError": "kvmabi.snapshot.restoring",
    "Snapshot": "kvmabi.snapshot.snapshot",
    "UsageError": "kvmabi.errors",
    "Vcpu": "kvmabi.kvm",
    "Vm": "kvmabi.kvm",
    "diff": "kvmabi.snapshot.comparing.diff",
    "host_names": "kvmabi.profiles",
    "kernel_names": "kvmabi.profiles",
    "load_host": "kvmabi.profiles",
    "load_kernel": "kvmabi.profiles",
    "matrix": "kvmabi.snapshot.matrix.matrix",
    "open": "kvmabi.kvm",
    "restore": "kvmabi.snapshot.restoring",
    "save": "kvmabi.snapshot.saving",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, so that a command that needs few of them starts fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kvmabi' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), "open_kvm" if name == "open" else name)
    return value


def __dir__() -> list[str]:
    """The API, also the names that are not imported yet."""
    return sorted(__all__)
