# SPDX-License-Identifier: MIT
"""A host under a kernel as the destination of a restore: what its vCPU has after INIT and FINALIZE, and refuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, Final

from kvmabi.errors import KvmError, UsageError
from kvmabi.model.plan import LENGTHS, SVCR
from kvmabi.model.system import System
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vm import Vm
from kvmabi.order.values import same
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot.comparing.sides import Side, SideKind, SideVcpu
from kvmabi.snapshot.infer import usual_features
from kvmabi.snapshot.lengths import Lengths, lengths_bits, vls_of
from kvmabi.snapshot.snapshot import Origin
from kvmabi.snapshot.trying import initialized, readable, restore

LENGTH_FACTS: Final = dict(zip(LENGTHS, ("sve_bits", "sme_bits"), strict=True))
MOST_VCPUS: Final = 64
"""How many vCPUs of a snapshot are tried on the host: answers differ between vCPUs only where values do."""
Sets = Mapping[int, Lengths | None]


def host_side(
    host: str | Host,
    kernel: str | Kernel | None = None,
    features: Iterable[str] | None = None,
    *,
    like: Side | None = None,
) -> Side:
    """The side that a host under a kernel is, as the destination of ``like``.

    It has a vCPU for each one of ``like``, after INIT with ``features`` (None: those of ``like``, as far as the
    host has them) and FINALIZE, in the SVCR mode and with the vector lengths of its source, as far as the host can
    give them. ``refused`` and ``kept`` are of a second vCPU, to which the registers of ``like`` are restored in
    the order of Plan. Raises UsageError for an unknown host or kernel, or for ``features``
    that the host refuses.

    >>> side = host_side("neoverse-n2", features={"sve", "psci"})
    >>> side.facts["sve_bits"], len(side.vcpus)
    ((128,), 1)
    """
    chosen_host = load_host(host)
    chosen_kernel = load_kernel(chosen_host.kernel if kernel is None else kernel)
    system = System(chosen_host, chosen_kernel)
    wanted = _wanted(like, features)
    missing = wanted - system.features
    place = f"host {chosen_host.name} under kernel {chosen_kernel.label}"
    if missing and features is not None:
        raise UsageError(f"{place} has no {', '.join(sorted(missing))}")
    with closing(Vm(system, 1)) as vm, closing(Vm(system, 2)) as restored:
        try:
            side = _side(vm, restored, wanted - missing, like)
        except KvmError as error:
            raise UsageError(f"{place} refuses that: {error}") from None
    side.facts |= {"host": chosen_host.name, "kernel": chosen_kernel.name}
    side.name = f"{chosen_host.name} under {chosen_kernel.label}"
    side.kernel = chosen_kernel.name
    if missing:
        side.notes.append(f"{place} has no {', '.join(sorted(missing))}: compared without")
    return side


def _wanted(like: Side | None, features: Iterable[str] | None) -> frozenset[str]:
    """The features that the destination is asked for."""
    if features is not None:
        return frozenset(feature_rules.expand(features))
    if like is None or not like.vcpus:
        return frozenset({"psci_0_2"})
    stored = like.facts.get("features")
    if stored is not None:
        return frozenset(feature_rules.lasting(stored))
    return usual_features({id: data or b"" for id, data in like.vcpus[0].registers.items()})


def _side(vm: Vm, restored: Vm, features: frozenset[str], like: Side | None) -> Side:
    sources = like.vcpus[:MOST_VCPUS] if like and like.vcpus else [SideVcpu(0, {})]
    sets: Sets = {id: like.facts.get(name) if like else None for id, name in LENGTH_FACTS.items()}
    vcpus = []
    for number, source in enumerate(sources):
        lengths = _lengths(sets, source)
        vcpu = initialized(vm, features, number)
        svcr = source.registers.get(SVCR)
        restore(vcpu, lengths if svcr is None else lengths | {SVCR: svcr})
        vcpus.append(SideVcpu(source.index, readable(vcpu)))
        if any(data is not None for data in source.registers.values()):
            _try(vcpus[-1], initialized(restored, features, number), lengths, source)
    facts: dict[str, Any] = {"features": features}
    facts |= {name: lengths_bits(vcpus[0].registers.get(id) or b"") for id, name in LENGTH_FACTS.items()}
    return Side("", SideKind.HOST, vcpus, facts, Origin.KVM, any_vcpu=like is None or like.any_vcpu)


def _try(target: SideVcpu, vcpu: Vcpu, lengths: Mapping[int, bytes], source: SideVcpu) -> None:
    """Restore the source on a vCPU after INIT; fills in what it refuses, and what it does not keep."""
    values = {id: data for id, data in source.registers.items() if data is not None}
    answers = restore(vcpu, {**lengths, **values}, first_vcpu=vcpu.index == 0)
    target.refused = {id: answer.text for id, answer in answers.items()}
    for id, data in readable(vcpu).items():
        value = values.get(id)
        if value is not None and data is not None and id not in target.refused and not same(id, value, data):
            target.kept[id] = data


def _lengths(sets: Sets, source: SideVcpu) -> dict[int, bytes]:
    """The values of SVE_VLS and SME_VLS, from the registers or else from what is known of the source."""
    values: dict[int, bytes] = {}
    for id, bits in sets.items():
        data = source.registers.get(id)
        if data is not None:
            values[id] = data
        elif bits:
            values[id] = vls_of(bits)
    return values
