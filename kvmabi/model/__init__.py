# SPDX-License-Identifier: MIT
"""VMs and vCPUs as userspace sees them, without ioctl numbers and files."""
