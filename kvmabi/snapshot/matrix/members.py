# SPDX-License-Identifier: MIT
"""The members of a fleet: hosts under their kernels, or what a snapshot shows of the host that it was taken on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvmabi import regid
from kvmabi.errors import KvmError, UsageError
from kvmabi.model.system import System
from kvmabi.model.vcpu import Vcpu
from kvmabi.model.vm import Vm
from kvmabi.profiles import Host, Kernel, features, host_names, idnames, kernel_names, load_host, load_kernel
from kvmabi.snapshot import opening
from kvmabi.snapshot.infer import usual_features
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS, Lengths, of_vqs, vls_of
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.trying import finalize, initialized


@dataclass
class Member:
    """One member of a fleet.

    ``sve_bits`` and ``sme_bits`` are its sets of vector lengths, empty without the extension, None if they are not
    known. ``features`` are those that INIT offers. A snapshot has no ``host``, and a ``kernel`` only if it is known.
    ``limits`` are the values of its ID registers after INIT with the guest's features, ``zero`` those that read as
    zero and ignore writes, ``bound`` the registers that describe the CPU and its caches.
    """

    name: str
    sve_bits: Lengths | None
    sme_bits: Lengths | None
    features: frozenset[str]
    host: Host | None = None
    kernel: Kernel | None = None
    limits: dict[int, int] = field(default_factory=dict)
    zero: frozenset[int] = frozenset()
    bound: dict[int, int] = field(default_factory=dict)
    snapshot: Snapshot | None = None

    @property
    def kernel_name(self) -> str:
        """The kernel's name, "" if it is not known."""
        return self.kernel.name if self.kernel else ""

    @property
    def kernel_label(self) -> str:
        """The same for people: marked if it is a forecast."""
        return self.kernel.label if self.kernel else ""

    @contextmanager
    def vcpu(self, given: frozenset[str], sve_bits: Lengths = (), sme_bits: Lengths = ()) -> Iterator[Vcpu]:
        """A vCPU of the host after INIT with features and with sets of vector lengths, not finalised.

        Raises UsageError if the host refuses that.
        """
        assert self.host is not None
        assert self.kernel is not None
        with closing(Vm(System(self.host, self.kernel), 1)) as vm:
            try:
                vcpu = initialized(vm, given)
                for id, bits in ((SVE_VLS, sve_bits), (SME_VLS, sme_bits)):
                    if bits:
                        vcpu.set_one_reg(id, vls_of(bits))
            except KvmError as error:
                raise UsageError(f"{self.name} refuses that guest: {error}") from None
            yield vcpu

    def settle(self, given: frozenset[str]) -> None:
        """Fill the values of registers for a guest with these features."""
        if self.snapshot is not None:
            self._fill(self.snapshot.vcpus[0].registers)
            return
        with self.vcpu(given) as vcpu:
            finalize(vcpu)
            self.zero = frozenset(id for id in idnames.feature_ids() if vcpu.system.always_zero(id))
            self._fill({id: vcpu.get_one_reg(id) for id in vcpu.reg_list() if id in _interesting()})

    def _fill(self, registers: Mapping[int, bytes]) -> None:
        values = {id: int.from_bytes(data, "little") for id, data in registers.items()}
        self.limits = {id: values[id] for id in idnames.feature_ids() if id in values}
        self.bound = {id: value for id, value in values.items() if id in bound_ids()}


def member_of(what: str | Path | Host | Snapshot, kernel: str | Kernel | None = None) -> Member:
    """The member that a host, a file of one, or a snapshot or a file of one stands for.

    ``kernel`` is the member's kernel (None: the one that the host was recorded with, or the snapshot was taken on).
    Raises UsageError for anything else.
    """
    if isinstance(what, Snapshot):
        return _of_snapshot(what, what.format, kernel)
    if isinstance(what, Host):
        return _of_host(what, kernel)
    name = str(what)
    if name in host_names():
        return _of_host(load_host(name), kernel)
    if not os.path.exists(name):
        return _of_host(load_host(name), kernel)  # which names the choices
    if os.path.splitext(name)[1] in (".toml", ".json"):
        try:
            return _of_host(load_host(name), kernel)
        except UsageError as error:
            wrong = error
        try:
            return _of_snapshot(opening.read(name), name, kernel)
        except UsageError:
            raise wrong from None
    return _of_snapshot(opening.read(name), name, kernel)


def bound_ids() -> frozenset[int]:
    """The registers that describe the CPU and its caches."""
    return _BOUND


def _of_host(host: Host, kernel: str | Kernel | None) -> Member:
    chosen = load_kernel(host.kernel if kernel is None else kernel)
    system = System(host, chosen)
    return Member(host.name, of_vqs(system.sve_vqs), of_vqs(system.sme_vqs), system.features, host, chosen)


def _of_snapshot(snapshot: Snapshot, name: str, kernel: str | Kernel | None) -> Member:
    registers = snapshot.vcpus[0].registers if snapshot.vcpus else {}
    if not registers:
        raise UsageError(f"{name}: holds no vCPU")
    offered = usual_features(registers) if snapshot.features is None else snapshot.features
    known = snapshot.kernel if snapshot.kernel in kernel_names() else None
    chosen = kernel if kernel is not None else known
    return Member(
        name,
        snapshot.sve_bits if snapshot.sve_bits is not None or "sve" in offered else (),
        snapshot.sme_bits if snapshot.sme_bits is not None or "sme" in offered else (),
        features.lasting(offered),
        kernel=None if chosen is None else load_kernel(chosen),
        snapshot=snapshot,
    )


def _interesting() -> frozenset[int]:
    return _BOUND | frozenset(idnames.feature_ids())


_BOUND = frozenset(
    map(
        regid.parse,
        ["midr_el1", "revidr_el1", "aidr_el1", "smidr_el1", "clidr_el1", *(f"ccsidr[{n}]" for n in range(14))],
    )
)
