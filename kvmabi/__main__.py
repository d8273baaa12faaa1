# SPDX-License-Identifier: MIT
"""``python -m kvmabi``."""

import sys

from kvmabi.cli import main

sys.exit(main())
