# SPDX-License-Identifier: MIT
"""The conformance suite: cases as data, one runner, and backends that answer them: the model or a real kernel.

``load()`` returns the cases, ``open_backend("model", host="...")`` a backend to run them on, and
``run(backend, cases)`` an outcome for each: passed, failed or skipped, and why.
"""

from kvmabi.conformance.case import Case, load, read, read_file
from kvmabi.conformance.runner import Difference, Outcome, run, select
from kvmabi.steps.backends import Backend, open_backend
from kvmabi.steps.hostfeatures import HostFeatures

__all__ = [
    "Backend",
    "Case",
    "Difference",
    "HostFeatures",
    "Outcome",
    "load",
    "open_backend",
    "read",
    "read_file",
    "run",
    "select",
]
