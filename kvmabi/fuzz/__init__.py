# SPDX-License-Identifier: MIT
"""Differential fuzzing: random ioctl sequences on the model and on a real kernel, every answer compared.

A sequence depends only on a seed and its number. A difference is shrunk to the fewest steps that show it and reported
as a case of the conformance suite.
"""

from kvmabi.fuzz.generator import Generator
from kvmabi.fuzz.hunt import Finding, compare, hunt
from kvmabi.fuzz.paste import case_text
from kvmabi.fuzz.shrink import shrink
from kvmabi.fuzz.world import World

__all__ = ["Finding", "Generator", "World", "case_text", "compare", "hunt", "shrink"]
