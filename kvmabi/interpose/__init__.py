# SPDX-License-Identifier: MIT
"""Runs unmodified programs: a preloaded library sends their calls on /dev/kvm to a server, which asks the device."""
