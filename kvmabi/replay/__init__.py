# SPDX-License-Identifier: MIT
"""Replaying recorded ioctl sequences on the model: every answer is compared with the real kernel's."""
