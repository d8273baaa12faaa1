# SPDX-License-Identifier: MIT
"""The backends of the tests of steps, for the tests of cases."""

from __future__ import annotations

from steps.conftest import Answer, Liar, kernel_image, liar, model

__all__ = ["Answer", "Liar", "kernel_image", "liar", "model"]
