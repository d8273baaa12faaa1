# SPDX-License-Identifier: MIT
"""Snapshots of vCPUs: read from any format, judged, compared, and restored in the one order that loses nothing."""
