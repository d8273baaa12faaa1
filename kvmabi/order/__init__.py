# SPDX-License-Identifier: MIT
"""Verdicts on saves and restores: which register values a VMM lost, derived from the events alone."""

from kvmabi.order.causes import Severity
from kvmabi.order.checker import Open, OrderChecker
from kvmabi.order.findings import Finding, Loss, Pair
from kvmabi.order.verdict import FAILING, NOTHING_JUDGED, NotJudged, Place, Verdict

__all__ = [
    "FAILING",
    "NOTHING_JUDGED",
    "Finding",
    "Loss",
    "NotJudged",
    "Open",
    "OrderChecker",
    "Pair",
    "Place",
    "Severity",
    "Verdict",
]
