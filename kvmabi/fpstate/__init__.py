# SPDX-License-Identifier: MIT
"""Who owns the FP registers: the arm64 kernel's protocol as a model, its bugs as counterexamples.

What others use: :class:`Ownership` drives one machine; :func:`find_variant`, :class:`Explorer` and
:func:`select` explore all of them; :mod:`kvmabi.fpstate.catalogue` has the bugs.
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
