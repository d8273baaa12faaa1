# SPDX-License-Identifier: MIT
"""Tests of snapshots."""
