# SPDX-License-Identifier: MIT
"""What a host offers, found out with steps: the cases adapt to it, and a capture begins with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmabi import hexruns, regid, uapi

if TYPE_CHECKING:
    from kvmabi.conformance.backends.base import Backend

CAPABILITIES = 301
"""How many capability numbers are asked for: all that Linux has given away, and room for more."""
TOGETHER: dict[str, tuple[str, ...]] = {
    "ptrauth_address": ("ptrauth_generic",),
    "ptrauth_generic": ("ptrauth_address",),
    "pmu_v3_strict": ("pmu_v3",),
    "has_el2_e2h0": ("has_el2",),
}
"""Features that INIT takes only with others."""
FA64_BIT = 1 << 63
SME2, SME_SHIFT = 2, 24
EL0_32BIT = 2


@dataclass(frozen=True)
class Offer:
    """What a kernel on a host offers to a VMM.

    ``features`` are the vCPU features (names of the kernel's profile) that INIT takes. ``sve_vqs`` and ``sme_vqs`` are
    the vector lengths in quadwords (16 bytes). ``capabilities_system`` and ``capabilities_vm`` hold what
    KVM_CHECK_EXTENSION answers (an int, or the errno's name), without the zeroes. ``traits`` are
    what else cases may need: sme2, fa64, el0_32bit, writable_masks, serror_esr.
    """

    kernel: str
    release: str
    target: int
    features: frozenset[str]
    sve_vqs: tuple[int, ...]
    sme_vqs: tuple[int, ...]
    traits: frozenset[str]
    capabilities_system: Mapping[int, int | str] = field(repr=False)
    capabilities_vm: Mapping[int, int | str] = field(repr=False)

    def __str__(self) -> str:
        lengths = [
            f"{name} {','.join(str(vq * 128) for vq in vqs)} bits"
            for name, vqs in (("SVE", self.sve_vqs), ("SME", self.sme_vqs))
            if vqs
        ]
        rest = sorted((self.features | self.traits) - {"sve", "sme"})
        return f"Linux {self.release} ({self.kernel}): {'; '.join([*lengths, ' '.join(rest)])}"


def probe(backend: Backend) -> Offer:
    """Ask a backend what it offers."""
    kernel = backend.kernel
    bits = {name: 1 << feature.bit for name, feature in kernel.features.items()}
    (_, preferred) = backend.answers(["N 0", f"A v {uapi.KVM_ARM_PREFERRED_TARGET:x}"])
    target = int.from_bytes(_bytes(preferred)[:4], "little") if preferred.startswith("OK") else kernel.target

    def register(features: Iterable[str], name: str) -> bytes:
        word = sum(bits[feature] for feature in features)
        *_, answer = backend.answers(["N 1", f"I 0 {target} {word:x}", f"G 0 {regid.parse(name):x}"])
        return _bytes(answer)

    features = set()
    for name in kernel.features:
        word = sum(bits[other] for other in (name, *TOGETHER.get(name, ())) if other in bits)
        if backend.answers(["N 1", f"I 0 {target} {word:x}"])[1] == "OK":
            features.add(name)
    sve = _vqs(register(["sve"], "sve_vls")) if "sve" in features else ()
    sme = _vqs(register(["sme"], "sme_vls")) if "sme" in features else ()
    traits = set()
    if _number(register([], "id_aa64pfr0_el1")) & 0xF == EL0_32BIT:
        traits.add("el0_32bit")
    if sme and _number(register(["sme"], "id_aa64pfr1_el1")) >> SME_SHIFT & 0xF >= SME2:
        traits.add("sme2")
    if sme and _number(register(["sme"], "id_aa64smfr0_el1")) & FA64_BIT:
        traits.add("fa64")
    if backend.answers(["N 1", "M"])[1].startswith("OK"):
        traits.add("writable_masks")
    capabilities = _capabilities(backend, "v")
    if capabilities.get(uapi.KVM_CAP_ARM_INJECT_SERROR_ESR):
        traits.add("serror_esr")
    return Offer(
        kernel=kernel.name,
        release=backend.release,
        target=target,
        features=frozenset(features),
        sve_vqs=sve,
        sme_vqs=sme,
        traits=frozenset(traits),
        capabilities_system=_capabilities(backend, "s"),
        capabilities_vm=capabilities,
    )


def _capabilities(backend: Backend, file: str) -> dict[int, int | str]:
    asked = [f"X {file} {uapi.KVM_CHECK_EXTENSION:x} {number:x}" for number in range(CAPABILITIES)]
    told: dict[int, int | str] = {}
    for number, answer in enumerate(backend.answers(["N 0", *asked])[1:]):
        result, _, value = answer.partition(" ")
        if result != "OK":
            told[number] = result
        elif int(value):
            told[number] = int(value)
    return told


def _bytes(answer: str) -> bytes:
    result, _, data = answer.partition(" ")
    return hexruns.expand(data) if result == "OK" else b""


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _vqs(vls: bytes) -> tuple[int, ...]:
    bits = _number(vls)
    return tuple(bit + 1 for bit in range(uapi.KVM_ARM64_SVE_VQ_MAX) if bits >> bit & 1)
