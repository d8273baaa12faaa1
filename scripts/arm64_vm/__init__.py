# SPDX-License-Identifier: MIT
"""A command in a VM with a real arm64 kernel, Debian's Python and this checkout's kvmabi: a /dev/kvm on any machine.

``PYTHONPATH=scripts python -m arm64_vm --kernel-image vmlinuz -- kvmabi conformance --backend device`` boots the kernel
in QEMU and runs the command there; what it prints and its exit status are passed on. Nothing is kept in the VM.
"""
