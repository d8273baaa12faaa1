# SPDX-License-Identifier: MIT
"""The host that a recorded trace names: from the folder of --hosts, or a built-in one."""

from __future__ import annotations

from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.profiles import Host, host_names, load_host
from kvmabi.replay.trace import Trace


def host_of(trace: Trace, folder: str | None) -> Host:
    """Returns the host of a trace; the UsageError lists the hosts that there are."""
    if "/" in trace.host or trace.host.startswith("."):
        raise UsageError(f"{trace.path}:1: {trace.host!r} is not a host name")
    if folder is None and trace.host not in host_names():
        choices = f"built-in ones are {', '.join(host_names())}; --hosts names a folder with others"
        raise UsageError(f"{trace.path}: its host {trace.host} is unknown: {choices}")
    if folder is None:
        return load_host(trace.host)
    path = Path(folder, f"{trace.host}.json")
    if not path.is_file():
        names = sorted(entry.stem for entry in Path(folder).glob("*.json"))
        choices = ", ".join(names) or f"none; built-in ones are {', '.join(host_names())}"
        raise UsageError(f"{trace.path}: its host {trace.host} is not in {folder}, which has {choices}")
    return load_host(str(path))
