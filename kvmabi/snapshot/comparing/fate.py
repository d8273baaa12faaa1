# SPDX-License-Identifier: MIT
"""Why a register is on one side only or has another value, and what becomes of it in a migration from A to B."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from kvmabi import regid
from kvmabi.model.plan import LENGTHS
from kvmabi.profiles import idnames, idregs, sysregs
from kvmabi.snapshot import tolerances
from kvmabi.snapshot.comparing import qemunumbers
from kvmabi.snapshot.comparing.difference import Effect
from kvmabi.snapshot.lengths import vls_of
from kvmabi.snapshot.presence import kernels_with

Fate = tuple[Effect, str]
MODES: Final = (
    (r"v\d+", "V exists only on a vCPU without SVE that is not in streaming mode; otherwise Z holds it"),
    (r"[zp]\d+", "Z and P exist with SVE, and without it in streaming mode"),
    (r"ffr", "FFR exists with SVE, in streaming mode only with FEAT_SME_FA64"),
    (r"za\.h\[\d+\]", "ZA's rows exist while SVCR.ZA = 1, as many as the SME vector length has bytes"),
    (r"zt0", "ZT0 exists while SVCR.ZA = 1, with SME2"),
    (r"sve_vls", "SVE_VLS exists with the feature SVE"),
    (r"sme_vls", "SME_VLS exists with the feature SME"),
    (r"ccsidr\[\d+\]", "the caches that a kernel lists depend on the host or on the kernel"),
)
"""Registers that a mode of the vCPU shows or hides: a pattern of names, and when they exist."""
IMPLEMENTATION: Final = frozenset({"implementation_id", "constant"})
"""The rules of registers that describe the CPU itself."""
CACHE: Final = frozenset({"clidr"})
GONE = "KVM_SET_ONE_REG of a register that the destination lacks fails, and QEMU ends the migration"
KEPT = "A does not hold it, so it keeps the value that it has after reset, without a message"
CUT = "accepted without an error, but the destination then has another value (B above)"
OF_MODE = "the two vCPUs are in different modes: a restore of A's svcr decides whether the register exists"
OTHER_WIDTH = "the same register under an ID of another size: to the destination it is an unknown register"
FOR_KVM = "VMMs that restore every register of their snapshot fail with ENOENT"


def listed_by(id: int) -> tuple[str, ...] | None:
    """The built-in kernels that list a register; None for an AArch32 one, which none does."""
    return None if qemunumbers.is_aarch32(id) else kernels_with(id)


@cache
def why_absent(id: int) -> str:
    """Why a register can be on one side only, "" if that is not known."""
    if qemunumbers.is_aarch32(id):
        return "a register of AArch32: QEMU's TCG has them in its streams, KVM lists none"
    reason = tolerances.reason_of(id)
    if reason is not None:
        return reason.why
    name = regid.name_of(id)
    for pattern, text in MODES:
        if re.fullmatch(pattern, name):
            return text
    register = sysregs.by_id().get(id)
    return f"exists only with {' and '.join(map(_need, sorted(register.needs)))}" if register and register.needs else ""


def _need(name: str) -> str:
    """What a register needs: a feature of INIT, or a field of an ID register."""
    for predicate, field, least in idregs.predicates():
        if predicate == name:
            return f"{regid.name_of(field.id)}.{idnames.label(field)} at least {least}"
    return f"the feature {name.upper()}"


def of_only_a(id: int, value: int | None, refused: str) -> tuple[Effect, str, tuple[str, ...]]:
    """The fate of a register that only A has, with this value (None: unknown), and the VMMs that tolerate it.

    ``refused`` is what the destination answers, "" if it was not asked.
    """
    found = tuple(map(str, tolerances.tolerated_by(id, tolerances.SOURCE, value)))
    if found:
        return Effect.TOLERATED, f"{', '.join(found)} tolerates it, older ones refuse it; {FOR_KVM}", found
    conditional = any(map(str, tolerances.tolerated_by(id, tolerances.SOURCE, 0)))
    zero = "; QEMU 11.1 tolerates it with the value 0 only" if conditional else ""
    answer = f" ({refused})" if refused else ""
    return Effect.REFUSED, f"{GONE}{zero}{answer}", ()


def of_only_b(id: int) -> tuple[Effect, str, tuple[str, ...]]:
    """The fate of a register that only B has."""
    found = tuple(map(str, tolerances.tolerated_by(id, tolerances.DESTINATION)))
    return Effect.RESET, KEPT, found


def of_value(id: int, a: bytes, b: bytes, refused: str | None) -> Fate:
    """The fate of a value that differs; ``refused`` is the destination's answer ("": accepted, None: not asked)."""
    if refused is not None:
        return (Effect.REFUSED, refused) if refused else (Effect.ACCEPTED, "the destination takes A's value")
    if id in LENGTHS:
        return of_lengths(int.from_bytes(a, "little"), int.from_bytes(b, "little"))
    rule = sysregs.by_id()[id].rule if id in sysregs.by_id() else ""
    if rule in idnames.FEATURE_RULES:
        return _of_id_register(id, int.from_bytes(a, "little"), int.from_bytes(b, "little"))
    if rule in IMPLEMENTATION:
        return (
            Effect.REFUSED,
            "it describes the CPU: it can only be set to the host's value, or after the VM's opt-in"
            " (KVM_CAP_ARM_WRITABLE_IMP_ID_REGS), where the kernel has that",
        )
    if rule in CACHE or regid.name_of(id).startswith("ccsidr["):
        return (
            Effect.REFUSED,
            "it describes the caches: up to Linux 6.2 it can only be set to the value of the core on which the vCPU"
            " lands (big.LITTLE: cores differ); from 6.3 on to a geometry that CTR_EL0 allows",
        )
    return Effect.NONE, ""


def of_lengths(a: int, b: int) -> Fate:
    """The fate of a set of vector lengths: the destination's set, cut off at the top, must be the source's.

    Sets are bitmaps as in SVE_VLS.

    >>> of_lengths(0b1, 0b11)[0].value, of_lengths(0b101, 0b111)[0].value
    ('accepted', 'refused')
    """
    if not a or a == b & ((1 << a.bit_length()) - 1):
        return Effect.ACCEPTED, "B's set can be cut off to A's, before KVM_ARM_VCPU_FINALIZE"
    return Effect.REFUSED, "B's set, cut off after A's largest length, is not A's set"


def of_fact(fact: str, a: object, b: object) -> Fate:
    """The fate of a fact that differs."""
    if fact in ("sve_bits", "sme_bits"):
        sets = (vls_of(side) if isinstance(side, tuple) else b"" for side in (a, b))
        return of_lengths(*(int.from_bytes(vls, "little") for vls in sets))
    return _FACTS.get(fact, (Effect.NONE, ""))


_FACTS: Final[dict[str, Fate]] = {
    "vcpus": (Effect.REFUSED, "the destination must have as many vCPUs"),
    "features": (Effect.REFUSED, "the destination's KVM_ARM_VCPU_INIT must ask for the source's features"),
    "machine": (Effect.REFUSED, "QEMU loads a stream only into the same machine type"),
}


def _of_id_register(id: int, a: int, b: int) -> Fate:
    unsafe = [idnames.label(field) for field in idregs.fields(id) if not field.safe(a, b)]
    if unsafe:
        return Effect.REFUSED, f"not safe on a host that has B's value: {', '.join(unsafe)}"
    return Effect.ACCEPTED, "every field is safe on a host that has B's value, if its kernel lets them be written"
