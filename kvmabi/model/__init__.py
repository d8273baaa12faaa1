# SPDX-License-Identifier: MIT
"""The vCPU as the kernel keeps it for userspace; it knows neither ioctl numbers nor files."""
