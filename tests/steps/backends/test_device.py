# SPDX-License-Identifier: MIT
"""The device backend on an interposed /dev/kvm: real ioctls of a real process, and the suite passes as on the model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kvmabi.conformance import load, run
from kvmabi.interpose.launch import PRELOAD
from kvmabi.steps.backends.model import ModelBackend

KVMABI = [sys.executable, "-c", "import sys; from kvmabi.cli import main; sys.exit(main())"]
PROGRAM = """
import json
from kvmabi.conformance import load, open_backend, run, select
with open_backend("device", kernel="sme-v12") as backend:
    outcomes = run(backend, load())
print(json.dumps({outcome.case.name: outcome.status for outcome in outcomes}))
"""


@pytest.mark.slow
def test_it_passes_the_suite() -> None:
    """Each case has the same outcome on the device as on the model behind it."""
    if not PRELOAD.is_file():
        pytest.skip("the interposer was not built")
    command = [*KVMABI, "run", "--host", "sme-demo", "--", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    with ModelBackend("sme-demo") as model:
        expected = {outcome.case.name: outcome.status for outcome in run(model, load())}
    assert json.loads(done.stdout) == expected, done.stderr
