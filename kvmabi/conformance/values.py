# SPDX-License-Identifier: MIT
"""Bytes as cases write them: numbers, patterns, sets of vector lengths, hex with runs.

=================  ============================================================================
=N                 a number (decimal or 0x...), little-endian, as long as the register
pattern:S          the pattern of the step ``P`` with that seed, as long as the register
pattern:S/N        its first N bytes and zeroes; N may be ``sve_vl``, ``sme_vl`` (the host's longest, in
                   bytes) or a quotient such as ``sve_vl/8``
vls:N,N,...        a set of vector lengths in quadwords, as the pseudo-registers hold it
vls:sve, vls:sme   the host's set; ``vls:sve<=N`` cut off at N quadwords; ``vls:none`` the empty one
hex                the bytes themselves, in which ``bb*count.`` is a run
=================  ============================================================================
"""

from __future__ import annotations

import re

from kvmabi import hexruns, uapi
from kvmabi.steps.grammar import pattern
from kvmabi.steps.hostfeatures import HostFeatures

VLS_BYTES = 8 * int(uapi.KVM_ARM64_SVE_VLS_WORDS)
VQ_BYTES = int(uapi.__SVE_VQ_BYTES)
HOST_SET = re.compile(r"(sve|sme)(?:<=(\d+))?")


def number(text: str, host_features: HostFeatures) -> int:
    """A number: decimal, 0x..., ``sve_vl``, ``sme_vl``, or a product or quotient of two such; ValueError."""
    for sign in "*/":
        left, operator, right = text.rpartition(sign)
        if operator:
            one, other = number(left, host_features), number(right, host_features)
            return one * other if sign == "*" else one // other
    lengths = {"sve_vl": host_features.sve_vqs, "sme_vl": host_features.sme_vqs}
    if text in lengths:
        return max(lengths[text], default=0) * VQ_BYTES
    return int(text, 0)


def data(text: str, size: int, host_features: HostFeatures) -> bytes:
    """Returns the bytes that a value stands for in a register of ``size`` bytes; ValueError if it is not a value."""
    if text.startswith("="):
        return (number(text[1:], host_features) % (1 << 8 * size)).to_bytes(size, "little")
    kind, _, rest = text.partition(":")
    if kind == "pattern":
        seed, _, valid = rest.partition("/")
        length = number(valid, host_features) if valid else size
        return pattern(int(seed) % 256, min(length, size)).ljust(size, b"\0")
    if kind == "vls":
        return vls(rest, host_features)
    return hexruns.expand(text)


def vls(text: str, host_features: HostFeatures) -> bytes:
    """Returns a set of vector lengths as SVE_VLS and SME_VLS hold it: bit N-1 stands for N quadwords."""
    host = HOST_SET.fullmatch(text)
    if host:
        most = int(host[2]) if host[2] else VLS_BYTES * 8
        vqs = [vq for vq in (host_features.sve_vqs if host[1] == "sve" else host_features.sme_vqs) if vq <= most]
    else:
        vqs = [] if text == "none" else [int(vq) for vq in text.split(",")]
    if not all(1 <= vq <= 8 * VLS_BYTES for vq in vqs):
        raise ValueError(f"vls:{text}: a set holds vector lengths from 1 to {8 * VLS_BYTES} quadwords")
    return sum(1 << (vq - 1) for vq in set(vqs)).to_bytes(VLS_BYTES, "little")
