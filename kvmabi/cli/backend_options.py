# SPDX-License-Identifier: MIT
"""The options of the commands that use a backend."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from kvmabi.steps.backends import Backend, open_backend

OPTIONS = {
    "kernel": ("K", "a built-in kernel or a file (default: the host's, or the one for the kernel's release)"),
    "device": ("PATH", "device: the device file (default: /dev/kvm)"),
    "kernel_image": ("IMAGE", "vm: the arm64 kernel to boot (vmlinuz or Image)"),
    "cpu": ("CPU", "vm: QEMU's -cpu (default: max,pauth-impdef=on)"),
    "qemu": ("COMMAND", "vm: QEMU's command (default: qemu-system-aarch64)"),
    "kernel_arguments": ("WORDS", "vm: additions to the kernel's command line"),
}
ABOUT = {
    "model": "the emulation",
    "device": "this arm64 machine's KVM",
    "vm": "an arm64 kernel in QEMU",
    "trace": "recorded answers",
}


def add(parser: ArgumentParser, flag: str, names: Sequence[str], *, default: str | None = None) -> None:
    """Add ``flag``, which chooses one of the backends ``names``, and the options that these need."""
    about = "; ".join(f"{name}: {ABOUT[name]}" for name in names)
    parser.add_argument(
        flag,
        dest="backend",
        choices=names,
        default=default,
        required=default is None,
        help=about + (f" (default: {default})" if default else ""),
    )
    for option, (metavar, help) in OPTIONS.items():
        parser.add_argument(f"--{option.replace('_', '-')}", metavar=metavar, help=help)


def open_from(args: Namespace, *, host: str | None = None) -> Backend:
    """The backend that the options name; ``host`` is for the model."""
    return open_backend(args.backend, host=host, **{option: getattr(args, option) for option in OPTIONS})
