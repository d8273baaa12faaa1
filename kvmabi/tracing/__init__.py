# SPDX-License-Identifier: MIT
"""Ioctls as they happen, decoded: as lines of text and as data."""
