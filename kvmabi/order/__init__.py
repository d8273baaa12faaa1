# SPDX-License-Identifier: MIT
"""The save/restore order checker: which register values a VMM lost, derived from the events alone."""

from kvmabi.order.checker import OrderChecker
from kvmabi.order.findings import Finding, Loss

__all__ = ["Finding", "Loss", "OrderChecker"]
