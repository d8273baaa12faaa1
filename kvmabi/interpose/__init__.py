# SPDX-License-Identifier: MIT
"""Unmodified programs: a preloaded library sends their calls on /dev/kvm to a server, which asks the device."""
