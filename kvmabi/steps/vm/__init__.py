# SPDX-License-Identifier: MIT
"""A real arm64 kernel in QEMU: its executor, the initramfs that holds it, and the serial line to it."""
