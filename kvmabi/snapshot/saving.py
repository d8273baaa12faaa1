# SPDX-License-Identifier: MIT
"""``save``: what vCPUs are now, read by the ioctls that a VMM would use.

>>> import kvmabi
>>> with kvmabi.open(host="sme-demo") as kvm:
...     vcpu = kvm.create_vm().create_vcpu(0)
...     vcpu.init({"sve", "sme"})
...     vcpu.finalize()
...     vcpu["svcr"] = 3
...     snapshot = save(vcpu)
...     print(snapshot.host, snapshot.sve_bits, snapshot.sme_bits, snapshot.vcpus[0].za)
sme-demo (128, 256) (256, 512, 1024) True
"""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi.errors import UsageError
from kvmabi.profiles import features as feature_rules
from kvmabi.snapshot.access import Access
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS, lengths_bits
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot, VcpuSnapshot
from kvmabi.snapshot.vcpus import Vcpus, Where

OF_MODEL, OF_FILES = "model", "kvm"


def save(
    where: Where,
    *,
    features: Iterable[str] | None = None,
    target: int | None = None,
    host: str = "",
    kernel: str = "",
) -> Snapshot:
    """Read all listed registers, the MP state and the pending SError of a VM, of a vCPU, or of several vCPUs.

    The vCPUs must be initialised, finalised and must not run. ``where`` is a ``kvmabi.Vm`` or ``Vcpu``, a vCPU's file
    descriptor, or a list of one of them; for descriptors, ``features`` and ``target`` of INIT, and the names of host
    and kernel, are the caller's: no ioctl reports them (None: they are unknown). Raises KvmError for an ioctl that
    fails, with the register's name, and UsageError for anything that is not a vCPU.
    """
    vcpus = Vcpus(where)
    accesses = vcpus.access()
    if not accesses:
        raise UsageError("the VM has no vCPU")
    saved = [_vcpu(access) for access in accesses]
    given = None if features is None else frozenset(feature_rules.expand(features))
    if vcpus.kvm is not None:
        model = vcpus.kvm.vcpu_model(accesses[0].fd)
        given = model.features if given is None else given
        target = model.target if target is None else target
        host, kernel = host or vcpus.kvm.host.name, kernel or vcpus.kvm.kernel.name
    lists = [vcpu.registers for vcpu in saved]
    return Snapshot(
        OF_FILES if vcpus.kvm is None else OF_MODEL,
        saved,
        Origin.KVM,
        features=given,
        target=target,
        host=host,
        kernel=kernel,
        sve_bits=_lengths(lists, SVE_VLS),
        sme_bits=_lengths(lists, SME_VLS),
        unknown=_unknown(saved, given, host, kernel),
    )


def _vcpu(access: Access) -> VcpuSnapshot:
    registers = {id: data for id in access.reg_list() if (data := access.held(id)) is not None}
    return VcpuSnapshot(access.index, registers, access.mp_state(), access.serror())


def _lengths(lists: list[dict[int, bytes]], vls: int) -> tuple[int, ...]:
    """The longest set of the vCPUs; empty without the extension: KVM lists the register with it."""
    return max((lengths_bits(registers.get(vls, b"")) for registers in lists), key=len)


def _unknown(saved: list[VcpuSnapshot], features: frozenset[str] | None, host: str, kernel: str) -> frozenset[Fact]:
    missing = {
        Fact.FEATURES: features is None,
        Fact.HOST: not host,
        Fact.KERNEL: not kernel,
        Fact.MP_STATE: any(vcpu.mp_state is None for vcpu in saved),
        Fact.EVENTS: any(vcpu.serror is None for vcpu in saved),
    }
    return frozenset(fact for fact, is_missing in missing.items() if is_missing)
