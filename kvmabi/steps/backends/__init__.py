# SPDX-License-Identifier: MIT
"""What cases and random sequences can be run on: the model, this machine's /dev/kvm, a kernel in QEMU."""

from __future__ import annotations

from kvmabi.errors import UsageError
from kvmabi.steps.backends.base import Backend

NAMES = ("model", "device", "vm")


def open_backend(
    name: str,
    *,
    host: str | None = None,
    kernel: str | None = None,
    device: str | None = None,
    kernel_image: str | None = None,
    cpu: str | None = None,
    qemu: str | None = None,
    kernel_arguments: str | None = None,
) -> Backend:
    """Open a backend by name. ``kernel`` names a profile; each other option is for one backend, else a UsageError."""
    options: dict[str, dict[str, str | None]] = {
        "model": {"host": host},
        "device": {"device": device},
        "vm": {"kernel_image": kernel_image, "cpu": cpu, "qemu": qemu, "arguments": kernel_arguments},
    }
    if name not in options:
        raise UsageError(f"no backend {name!r}: take one of {', '.join(NAMES)}")
    for other, given in options.items():
        misplaced = [key for key, value in given.items() if value is not None and other != name]
        if misplaced:
            raise UsageError(f"--{misplaced[0].replace('_', '-')} is for the backend {other}, not {name}")
    own = {key: value for key, value in options[name].items() if value is not None}
    if name == "model":
        from kvmabi.steps.backends.model import ModelBackend

        return ModelBackend(own.get("host", DEFAULT_HOST), kernel)
    if name == "device":
        from kvmabi.steps.backends.device import DeviceBackend

        return DeviceBackend(**own, kernel=kernel)
    if "kernel_image" not in own:
        raise UsageError("the backend vm needs --kernel-image: an arm64 kernel (vmlinuz or Image)")
    from kvmabi.steps.backends.vm import VmBackend

    return VmBackend(own.pop("kernel_image"), **own, kernel=kernel)


DEFAULT_HOST = "sme-demo"

__all__ = ["DEFAULT_HOST", "NAMES", "Backend", "open_backend"]
