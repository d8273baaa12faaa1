# SPDX-License-Identifier: MIT
"""Fetching what a real arm64 KVM needs, with nothing but Debian's packages.

``PYTHONPATH=scripts python -m fetch_kernel [SUITE...]`` installs QEMU and a cross compiler where they are missing,
downloads the newest arm64 kernel of each suite and prints where its image is. ``make oracle`` compares the model
with it.
"""
