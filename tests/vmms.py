# SPDX-License-Identifier: MIT
"""What VMMs do, in Python: hosts of several shapes, guests full of numbers, saves and restores in any order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

import kvmabi
from kvmabi import Kvm, KvmError, regid, uapi
from kvmabi.kvm import Vcpu, Vm
from kvmabi.order import Severity
from kvmabi.profiles import Host, load_host, sysregs

SVE_BITS, SME_BITS = (128, 256), (256, 512, 1024)
VLS = ("sve_vls", "sme_vls")
RUNNING = frozenset(map(regid.name_of, sysregs.free_running_ids()))
Saved = dict[str, bytes]


def host(*, sve: Iterable[int] = SVE_BITS, sme: Iterable[int] = SME_BITS) -> Host:
    """The demo's host with other vector lengths."""
    return replace(load_host("sme-demo"), sve_vector_bits=tuple(sve), sme_vector_bits=tuple(sme))


HOSTS = {"both": host(), "sme": host(sve=()), "sve": host(sme=()), "neither": host(sve=(), sme=())}


def host_file(of: Host, path: Path) -> Path:
    """The demo's host with another one's vector lengths, as a file."""
    text = files("kvmabi.profiles").joinpath("hosts/sme-demo.toml").read_text("utf-8")
    for key in ("sve_vector_bits", "sme_vector_bits"):
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {list(getattr(of, key))}", text)
        assert count == 1
    path.write_text(text, "utf-8")
    return path


def features(of: Host) -> set[str]:
    """The vector features of a host."""
    return {name for name, bits in (("sve", of.sve_vector_bits), ("sme", of.sme_vector_bits)) if bits}


def vcpu_of(vm: Vm, index: int = 0, *, final: bool = True) -> Vcpu:
    """A vCPU with every vector feature of the host, finalised."""
    wanted = features(vm.kvm.host)
    vcpu = vm.create_vcpu(index)
    vcpu.init(wanted)
    if final and wanted:
        vcpu.finalize()
    return vcpu


def guest(vm: Vm, svcr: int = 0, index: int = 0, *, seed: int = 1) -> Vcpu:
    """A vCPU as a guest leaves it: in a mode, every vector register and some others full of numbers."""
    vcpu = vcpu_of(vm, index)
    if svcr:
        vcpu["svcr"] = svcr
    fill(vcpu, seed)
    return vcpu


def fill(vcpu: Vcpu, seed: int = 1) -> None:
    """Give every vector register, x0-x30, pc and some system registers values that differ from one another."""
    for number, id in enumerate(vcpu.reg_list()):
        reg = regid.decode(id)
        plain = reg.name.startswith(("x", "v")) or reg.name in ("pc", "fpsr", "tpidr_el0", "tpidr2_el0")
        if (plain or reg.family in ("sve", "sme")) and reg.name not in VLS and "bmap" not in reg.name:
            vcpu[id] = bytes(1 + (seed + number + byte) % 255 for byte in range(reg.size_bytes))


def save(vcpu: Vcpu, names: Iterable[str] | None = None) -> Saved:
    """What a VMM saves: every visible register, or those of ``names`` that can be read."""
    saved: Saved = {}
    for name in vcpu.names() if names is None else names:
        try:
            saved[name] = vcpu[name]
        except KvmError:
            assert names is not None
    return saved


def restore(vcpu: Vcpu, saved: Saved, names: Iterable[str] | None = None) -> int:
    """Write what was saved in an order, the save's by default; returns how many were refused."""
    refused = 0
    for name in list(saved) if names is None else names:
        try:
            vcpu[name] = saved[name]
        except KvmError:
            refused += 1
    return refused


def in_order(saved: Saved) -> list[str]:
    """The right order for what remains after FINALIZE: svcr, then all other registers."""
    rest = [name for name in saved if name not in (*VLS, "svcr")]
    return ["svcr", *rest] if "svcr" in saved else rest


def put(vcpu: Vcpu, saved: Saved) -> None:
    """A restore in the right order of all that FINALIZE leaves."""
    restore(vcpu, saved, in_order(saved))


def restored(vm: Vm, saved: Saved, index: int = 0) -> Vcpu:
    """A vCPU into which a save was restored correctly."""
    vcpu = vcpu_of(vm, index, final=False)
    assert restore(vcpu, saved, [name for name in VLS if name in saved]) == 0
    if features(vm.kvm.host):
        vcpu.finalize()
    assert restore(vcpu, saved, in_order(saved)) == 0
    return vcpu


def differing(vcpu: Vcpu, saved: Saved) -> set[str]:
    """The registers that do not read as they were saved."""
    lost = set()
    for name, value in saved.items():
        try:
            if name not in RUNNING and vcpu[name] != value:
                lost.add(name)
        except KvmError:
            lost.add(name)
    return lost


def registers_lost(kvm: Kvm) -> dict[str, set[str]]:
    """The registers of every kind of finding."""
    kinds: dict[str, set[str]] = {}
    for finding in kvm.findings():
        kinds.setdefault(finding.kind, set()).update(finding.registers)
    return kinds


def lost(kvm: Kvm) -> set[str]:
    """The registers of all findings that are not latent."""
    return {name for of in kvm.findings() if of.severity is not Severity.LATENT for name in of.registers}


@contextmanager
def opened(of: Host | str = "sme-demo") -> Iterator[Kvm]:
    """/dev/kvm of a host, closed afterwards."""
    with kvmabi.open(host=of) as kvm:
        yield kvm


def run(vcpu: Vcpu, *, immediate_exit: bool = False) -> None:
    """KVM_RUN, which ends at once."""
    with pytest.raises(KvmError, match="EINTR"):
        vcpu.run(immediate_exit=immediate_exit)


def mp_state(vcpu: Vcpu, request: int, state: int = 0) -> int:
    """KVM_GET_MP_STATE or KVM_SET_MP_STATE."""
    place = uapi.ffi.new("struct kvm_mp_state *", {"mp_state": state})
    vcpu.kvm.ioctl(vcpu.fd, request, place)
    return int(place.mp_state)
