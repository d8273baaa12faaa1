# SPDX-License-Identifier: MIT
"""Who owns the FP registers: the arm64 kernel's protocol as a model, its bugs as counterexamples."""
