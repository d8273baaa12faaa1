# SPDX-License-Identifier: MIT
"""How many bytes of a register are real: the rest of Z, P, FFR and ZA's rows lies beyond the vector length."""

from __future__ import annotations

from functools import lru_cache

from kvmabi import regid
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS, lengths_bits
from kvmabi.snapshot.snapshot import Snapshot, VcpuSnapshot

MOST_VL_BYTES = 256
"""The size of Z and of a row of ZA in a transfer."""
Z_BYTES_PER_P = 8
BITS = 8


@lru_cache(1 << 14)
def stored_bytes(id: int, z_bytes: int, za_bytes: int) -> int:
    """The size of a register without the bytes beyond its valid length: a Z has ``z_bytes``, a row of ZA ``za_bytes``.

    >>> from kvmabi import regid
    >>> [stored_bytes(regid.parse(name), 32, 64) for name in ("z7", "p0", "ffr", "za.h[3]", "v0", "x0", "zt0", "z7[1]")]
    [32, 4, 4, 64, 16, 8, 64, 256]
    """
    register = regid.decode(id)
    if register.slice != 0:
        return register.size_bytes
    if register.family == "sme":
        return za_bytes
    return z_bytes if register.name.startswith("z") else z_bytes // Z_BYTES_PER_P


def lengths_bytes(snapshot: Snapshot, vcpu: VcpuSnapshot) -> tuple[int, int]:
    """The valid bytes of Z in the vCPU's mode, and of a row of ZA; 256 where the snapshot does not have the lengths."""
    sve = _longest_bytes(vcpu.data(SVE_VLS), snapshot.sve_bits)
    sme = _longest_bytes(vcpu.data(SME_VLS), snapshot.sme_bits)
    return sme if vcpu.sm else sve, sme


def _longest_bytes(vls: bytes | None, known_bits: tuple[int, ...] | None) -> int:
    lengths = (known_bits or ()) if vls is None else lengths_bits(vls)
    longest = max(lengths, default=0) // BITS
    return longest if 0 < longest <= MOST_VL_BYTES else MOST_VL_BYTES
