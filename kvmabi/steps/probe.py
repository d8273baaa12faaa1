# SPDX-License-Identifier: MIT
"""Probes what a host offers, by steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from kvmabi import hexruns, regid, uapi
from kvmabi.profiles import Kernel, features
from kvmabi.steps.hostfeatures import HostFeatures

CAPABILITIES = 301
"""How many capability numbers are probed: all that Linux has assigned, and some more."""
FA64_BIT = 1 << 63
SME2, SME_SHIFT = 2, 24
EL0_32BIT = 2


class Answering(Protocol):
    """The part of a backend (kvmabi.steps.backends) that the probe uses."""

    kernel: Kernel
    release: str

    def answers(self, steps: Iterable[str]) -> list[str]:
        """See Backend.answers."""


def probe(backend: Answering) -> HostFeatures:
    """Returns what a backend offers."""
    kernel = backend.kernel
    bits = {name: 1 << feature.bit for name, feature in kernel.features.items()}
    (_, preferred) = backend.answers(["N 0", f"A v {uapi.KVM_ARM_PREFERRED_TARGET:x}"])
    target = int.from_bytes(_bytes(preferred)[:4], "little") if preferred.startswith("OK") else kernel.target

    def register(wanted: Iterable[str], name: str) -> bytes:
        word = sum(bits[feature] for feature in wanted)
        *_, answer = backend.answers(["N 1", f"I 0 {target} {word:x}", f"G 0 {regid.parse(name):x}"])
        return _bytes(answer)

    accepted = set()
    for name in kernel.features:
        word = sum(bits[other] for other in (name, *features.needs(name)) if other in bits)
        if backend.answers(["N 1", f"I 0 {target} {word:x}"])[1] == "OK":
            accepted.add(name)
    sve = _vqs(register(["sve"], "sve_vls")) if "sve" in accepted else ()
    sme = _vqs(register(["sme"], "sme_vls")) if "sme" in accepted else ()
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
    return HostFeatures(
        kernel=kernel.name,
        release=backend.release,
        target=target,
        features=frozenset(accepted),
        sve_vqs=sve,
        sme_vqs=sme,
        traits=frozenset(traits),
        capabilities_system=_capabilities(backend, "s"),
        capabilities_vm=capabilities,
    )


def _capabilities(backend: Answering, file: str) -> dict[int, int | str]:
    checks = [f"X {file} {uapi.KVM_CHECK_EXTENSION:x} {number:x}" for number in range(CAPABILITIES)]
    answers: dict[int, int | str] = {}
    for number, answer in enumerate(backend.answers(["N 0", *checks])[1:]):
        result, _, value = answer.partition(" ")
        if result != "OK":
            answers[number] = result
        elif int(value):
            answers[number] = int(value)
    return answers


def _bytes(answer: str) -> bytes:
    result, _, data = answer.partition(" ")
    return hexruns.expand(data) if result == "OK" else b""


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _vqs(vls: bytes) -> tuple[int, ...]:
    bits = _number(vls)
    return tuple(bit + 1 for bit in range(uapi.KVM_ARM64_SVE_VQ_MAX) if bits >> bit & 1)
