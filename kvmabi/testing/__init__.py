# SPDX-License-Identifier: MIT
"""For tests of kvmabi and of VMMs: random VMMs whose losses are known (``kvmabi.testing.play``)."""
