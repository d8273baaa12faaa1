# SPDX-License-Identifier: MIT
"""Records a host: what a real /dev/kvm offers, and every register after reset, as a host profile in JSON."""

from kvmabi.capture.host import capture, origin
from kvmabi.capture.write import write

__all__ = ["capture", "origin", "write"]
