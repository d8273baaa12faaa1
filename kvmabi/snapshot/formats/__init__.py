# SPDX-License-Identifier: MIT
"""The formats of snapshots, one file each."""
