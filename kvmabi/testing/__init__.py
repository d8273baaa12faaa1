# SPDX-License-Identifier: MIT
"""For tests of VMMs: declared saves and restores, hypothesis strategies, and a plugin that pytest loads by itself.

Importing this costs nothing: each name is imported at its first use. Strategies are in ``kvmabi.testing.strategies``,
random VMMs whose losses are known in ``kvmabi.testing.vmms.play``.

>>> import kvmabi
>>> from kvmabi.testing import restored, saved
>>> with kvmabi.open(host="no-sve-no-sme") as kvm:
...     source, target = (kvm.create_vm().create_vcpu(0) for _ in range(2))
...     source.init()
...     target.init()
...     source["x0"] = 7
...     restored(target, saved(source))
...     [finding.registers for finding in kvm.findings()]
[('x0',)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvmabi.testing.declared import Save, restored, saved
    from kvmabi.testing.judged import opened
    from kvmabi.testing.running import VmmRun, run_program

__all__ = ["Save", "VmmRun", "opened", "restored", "run_program", "saved"]

_HOMES = {
    "Save": "kvmabi.testing.declared",
    "VmmRun": "kvmabi.testing.running",
    "opened": "kvmabi.testing.judged",
    "restored": "kvmabi.testing.declared",
    "run_program": "kvmabi.testing.running",
    "saved": "kvmabi.testing.declared",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: pytest loads the plugin in this package for every project."""
    if name not in _HOMES:
        raise AttributeError(f"module 'kvmabi.testing' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    """The API, also the names that are not imported yet."""
    return sorted(__all__)
