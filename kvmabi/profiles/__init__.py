# SPDX-License-Identifier: MIT
"""The differences between kernels and between hosts, as data: profiles, register tables and their loaders."""

from kvmabi.profiles.host import Host, host_names, load_host
from kvmabi.profiles.kernel import Kernel, kernel_names, load_kernel

__all__ = ["Host", "Kernel", "host_names", "kernel_names", "load_host", "load_kernel"]
