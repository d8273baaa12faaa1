# SPDX-License-Identifier: MIT
"""The userspace side of arm64 KVM, emulated: one register map decides what every ioctl answers."""
