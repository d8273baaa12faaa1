# SPDX-License-Identifier: MIT
"""The conformance suite: cases as data, one runner, and backends that answer them: the model or a real kernel.

``load()`` gives the cases, ``open_backend("model", host="...")`` something to run them on, and ``run(backend, cases)``
says of each whether it passed, failed or was skipped, and why.
"""

from kvmabi.conformance.backends import Backend, open_backend
from kvmabi.conformance.case import Case, load, read
from kvmabi.conformance.offer import Offer
from kvmabi.conformance.runner import Difference, Outcome, run, select

__all__ = ["Backend", "Case", "Difference", "Offer", "Outcome", "load", "open_backend", "read", "run", "select"]
