# SPDX-License-Identifier: MIT
"""What every test has in common."""

from hypothesis import settings

# A busy machine is no failure: time is measured in benchmarks/.
settings.register_profile("kvmabi", deadline=None)
settings.load_profile("kvmabi")
