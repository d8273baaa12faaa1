# SPDX-License-Identifier: MIT
"""Hosts and kernels of every shape, drawn at random: vector lengths that SVE and SME need not share, or none."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

from kvmabi.profiles import Host, Kernel, load_host, load_kernel

DEMO = "sme-demo"
SME_KERNELS = ("sme-v12",)
OTHER_KERNELS = ("linux-7.3", "linux-7.2", "linux-6.12", "linux-6.1")
OTHER_HOSTS = (DEMO, DEMO, "neoverse-v1", "neoverse-n2", "cortex-a57", "qemu-max")
SME_SHARE = 0.75
"""The share of runs under a kernel that has SME."""
USUAL_BITS = (128, 256, 512)
LONG_BITS, LONGEST_BITS = 1024, 2048
LONG_SHARE, LONGEST_SHARE = 0.06, 0.02
"""The shares of long vectors: 2048 bits of SME have 256 rows of ZA."""
ABSENT_SHARE = 0.2


@cache
def _host(name: str) -> Host:
    return load_host(name)


@cache
def _kernel(name: str) -> Kernel:
    return load_kernel(name)


def vector_bits(rng: Random) -> tuple[int, ...]:
    """Vector lengths in bits, in ascending order: some of the powers of two from 128 to 2048, or none."""
    if rng.random() < ABSENT_SHARE:
        return ()
    lengths = list(USUAL_BITS)
    share = rng.random()
    if share < LONGEST_SHARE:
        lengths += (LONG_BITS, LONGEST_BITS)
    elif share < LONG_SHARE:
        lengths.append(LONG_BITS)
    if len(lengths) > len(USUAL_BITS):
        return tuple(sorted({lengths[-1], *rng.sample(lengths, rng.randint(0, 3))}))
    return tuple(sorted(rng.sample(lengths, rng.randint(1, len(lengths)))))


def draw(rng: Random, sme_kernel: str = "") -> tuple[Host, Kernel]:
    """A host and the kernel that runs on it; ``sme_kernel`` takes the place of one with SME, and changes no draw."""
    with_sme = rng.random() < SME_SHARE
    drawn = rng.choice(SME_KERNELS if with_sme else OTHER_KERNELS)
    kernel = _kernel(sme_kernel if with_sme and sme_kernel else drawn)
    name = DEMO if with_sme else rng.choice(OTHER_HOSTS)
    if name != DEMO:
        return _host(name), kernel
    return replace(_host(DEMO), sve_vector_bits=vector_bits(rng), sme_vector_bits=vector_bits(rng)), kernel
