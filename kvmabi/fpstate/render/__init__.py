# SPDX-License-Identifier: MIT
"""Traces as text, SVG, Mermaid and JSON. All four read the same rows (rows.py)."""
