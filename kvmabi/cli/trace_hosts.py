# SPDX-License-Identifier: MIT
"""The host that a recorded trace names: from the folder of --hosts, a built-in one, or next to the trace."""

from __future__ import annotations

from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.profiles import Host, host_names, load_host
from kvmabi.steps.trace import Trace


def host_of(trace: Trace, folder: str | None) -> Host:
    """Returns the host of a trace; the UsageError lists the hosts that there are."""
    for what, name in (("host", trace.host), ("kernel", trace.kernel or "")):
        if "/" in name or name.startswith("."):
            raise UsageError(f"{trace.path}: {name!r} is not a {what} name")
    builtin = f"built-in ones are {', '.join(host_names())}"
    if folder is None and trace.host in host_names():
        return load_host(trace.host)
    place = Path(trace.path).parent if folder is None else Path(folder)
    for suffix in (".json", ".toml"):
        if (path := place / f"{trace.host}{suffix}").is_file():
            return load_host(str(path))
    if folder is None:
        choices = f"{builtin}; --hosts names a folder with others"
        raise UsageError(f"{trace.path}: its host {trace.host} is unknown: {choices}")
    choices = ", ".join(sorted(entry.stem for entry in place.glob("*.json"))) or f"none; {builtin}"
    raise UsageError(f"{trace.path}: its host {trace.host} is not in {folder}, which has {choices}")
