# SPDX-License-Identifier: MIT
"""Two sides compared: snapshots, lists of registers, a VMM's log, or a host as the destination (``diff``)."""
