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
    from kvmabi.kvm import Kvm
    from kvmabi.kvm import open_kvm as open

__all__ = ["Kvm", "KvmError", "UsageError", "open"]

_WHERE = {
    "Kvm": ("kvmabi.kvm", "Kvm"),
    "KvmError": ("kvmabi.errors", "KvmError"),
    "UsageError": ("kvmabi.errors", "UsageError"),
    "open": ("kvmabi.kvm", "open_kvm"),
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: a command that needs few of them starts fast."""
    if name not in _WHERE:
        raise AttributeError(f"module 'kvmabi' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value
