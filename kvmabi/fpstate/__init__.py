# SPDX-License-Identifier: MIT
"""Ownership of the FP registers: the arm64 kernel's protocol as a model, its bugs as counterexamples.

The API: :class:`Ownership` drives one machine step by step; :func:`find_variant`, :class:`Explorer` and
:func:`select` explore every reachable state; :mod:`kvmabi.fpstate.catalogue` lists the known bugs.
"""

from kvmabi.fpstate.config import Config
from kvmabi.fpstate.explorer import Bounds, Explorer, Result
from kvmabi.fpstate.invariants import select
from kvmabi.fpstate.ownership import Move, Ownership, Violation
from kvmabi.fpstate.trace import Trace, replay, trace_of
from kvmabi.fpstate.variants import Variant, find_variant, presets

__all__ = [
    "Bounds",
    "Config",
    "Explorer",
    "Move",
    "Ownership",
    "Result",
    "Trace",
    "Variant",
    "Violation",
    "find_variant",
    "presets",
    "replay",
    "select",
    "trace_of",
]
