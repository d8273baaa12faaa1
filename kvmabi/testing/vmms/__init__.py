# SPDX-License-Identifier: MIT
"""A generator of VMMs: random saves and restores, right and wrong, of which it is known what they lose."""
