# SPDX-License-Identifier: MIT
"""The language of ioctl sequences: a step is one ioctl, and an answer is what a kernel did with it.

``grammar`` is the table of steps, ``doer`` does them on a port (the model, or a real /dev/kvm), ``backends`` answer
them (the model, this machine's KVM, a kernel in QEMU), ``trace`` reads and writes recordings, and ``replay`` compares
the model with one.
"""
