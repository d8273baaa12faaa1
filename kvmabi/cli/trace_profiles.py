# SPDX-License-Identifier: MIT
"""The host and the kernel of a recorded trace: built-in, or files in the folder of --hosts or next to the trace."""

from __future__ import annotations

from pathlib import Path

from kvmabi.errors import UsageError
from kvmabi.profiles import Host, Kernel, host_names, kernel_names, load_host, load_kernel
from kvmabi.steps.trace import Trace

SUFFIXES = (".json", ".toml")


class TraceProfiles:
    """Loads the profiles that traces name, each once: traces of the same host share one object.

    ``folder`` is that of --hosts, ``kernel`` that of --kernel, which is taken for every trace.
    """

    def __init__(self, folder: str | None, kernel: str | None) -> None:
        self._folder, self._kernel = folder, kernel
        self._hosts: dict[str, Host] = {}
        self._kernels: dict[str, Kernel] = {}

    def of(self, trace: Trace) -> tuple[Host, Kernel]:
        """Returns the host and the kernel of a trace; the UsageError lists the hosts that there are."""
        for what, name in (("host", trace.host), ("kernel", trace.kernel or "")):
            if "/" in name or name.startswith("."):
                raise UsageError(f"{trace.path}: {name!r} is not a {what} name")
        host_path = self._host_path(trace)
        host = self._hosts.get(host_path) or self._hosts.setdefault(host_path, load_host(host_path))
        kernel_path = self._kernel or self._kernel_path(trace, host)
        kernel = self._kernels.get(kernel_path) or self._kernels.setdefault(kernel_path, load_kernel(kernel_path))
        return host, kernel

    def _host_path(self, trace: Trace) -> str:
        if self._folder is None and trace.host in host_names():
            return trace.host
        if path := self._file(trace, trace.host):
            return path
        builtin = f"built-in ones are {', '.join(host_names())}"
        if self._folder is None:
            choices = f"{builtin}; --hosts names a folder with others"
            raise UsageError(f"{trace.path}: its host {trace.host} is unknown: {choices}")
        choices = ", ".join(sorted(entry.stem for entry in Path(self._folder).glob("*.json"))) or f"none; {builtin}"
        raise UsageError(f"{trace.path}: its host {trace.host} is not in {self._folder}, which has {choices}")

    def _kernel_path(self, trace: Trace, host: Host) -> str:
        name = trace.kernel or host.kernel
        if name in kernel_names():
            return name
        if path := self._file(trace, name):
            return path
        if trace.kernel is None:
            return name  # the host's profile may name a file
        choices = f"built-in ones are {', '.join(kernel_names())}; --kernel names another or a file"
        raise UsageError(f"{trace.path}: its kernel {name} is unknown: {choices}")

    def _file(self, trace: Trace, name: str) -> str | None:
        """The file with the profile of that name."""
        folder = Path(trace.path).parent if self._folder is None else Path(self._folder)
        paths = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
        return next((str(path) for path in paths if path.is_file()), None)
