# SPDX-License-Identifier: MIT
"""``make bench``: what kvmabi costs, and what a system call and a real kernel in QEMU cost, in one table."""
