# SPDX-License-Identifier: MIT
"""A fleet of hosts compared: the guest that every one of them can take, and what blocks migrations between them."""
