# SPDX-License-Identifier: MIT
"""hypothesis strategies for tests of VMMs: hosts, kernels, vCPU features, vCPU states, sequences of ioctls.

>>> from hypothesis import given, settings
>>> from kvmabi import open
>>> from kvmabi.testing import strategies
>>> @settings(max_examples=5, database=None)
... @given(strategies.hosts())
... def test_every_host_lists_x0(host):
...     with open(host=host) as kvm:
...         vcpu = kvm.create_vm().create_vcpu(0)
...         vcpu.init()
...         assert "x0" in vcpu
>>> test_every_host_lists_x0()

https://hypothesis.readthedocs.io/en/latest/
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("kvmabi.testing.strategies needs hypothesis: pip install 'kvmabi[testing]'") from None

from kvmabi import regid
from kvmabi.kvm import Kvm, Vcpu, Vm, open_kvm
from kvmabi.model.facts import Facts
from kvmabi.model.plan import Plan, Stage, in_order
from kvmabi.profiles import Host, Kernel, kernel_names, load_host, load_kernel
from kvmabi.profiles import features as feature_rules
from kvmabi.profiles.host import MAX_VECTOR_BITS
from kvmabi.testing.stepstrategies import ioctl_sequences
from kvmabi.testing.vmms.play import Scenario, play

__all__ = [
    "RandomVmm",
    "VcpuState",
    "features",
    "hosts",
    "ioctl_sequences",
    "kernels",
    "vcpu_states",
    "vector_lengths",
    "vmms",
]

LENGTHS_BITS = tuple(128 << n for n in range(MAX_VECTOR_BITS.bit_length() - (128).bit_length() + 1))
VECTORS = frozenset({"sve", "sme"})
VLS = {"sve": "sve_vls", "sme": "sme_vls"}
MODES = (0, 1, 2, 3)
"""The values of SVCR: SM and ZA."""
FILLED = ("z", "p", "ffr", "v", "za", "zt0", "x")
MOST_SEED = (1 << 32) - 1
FILLS = ("zeroes", "ones", "pattern")


def vector_lengths(*, min_size: int = 0) -> st.SearchStrategy[tuple[int, ...]]:
    """Sets of vector lengths in bits, powers of two from 128 to 2048, in rising order; empty: none."""
    lengths = st.sets(st.sampled_from(LENGTHS_BITS), min_size=min_size)
    return lengths.map(lambda chosen: tuple(sorted(chosen)))


def hosts(
    *,
    sve: st.SearchStrategy[tuple[int, ...]] | None = None,
    sme: st.SearchStrategy[tuple[int, ...]] | None = None,
    base: str | Host = "sme-demo",
) -> st.SearchStrategy[Host]:
    """Hosts with sets of vector lengths that are independent of one another: overlapping, apart, one of them, neither.

    ``sve`` and ``sme`` draw the sets, as ``vector_lengths`` does by default; all else is the host ``base``.
    """
    of = load_host(base)

    def host(*, sve_bits: tuple[int, ...], sme_bits: tuple[int, ...]) -> Host:
        sets = (("sve", sve_bits), ("sme", sme_bits))
        name = "-".join([of.name, *(f"{kind}{'-'.join(map(str, bits))}" for kind, bits in sets if bits)])
        return replace(of, name=name, sve_vector_bits=sve_bits, sme_vector_bits=sme_bits)

    sets = [vector_lengths() if chosen is None else chosen for chosen in (sve, sme)]
    return st.builds(host, sve_bits=sets[0], sme_bits=sets[1])


def kernels() -> st.SearchStrategy[Kernel]:
    """The built-in kernels."""
    return st.sampled_from(kernel_names()).map(load_kernel)


def features(host: str | Host, kernel: str | Kernel | None = None) -> st.SearchStrategy[frozenset[str]]:
    """Sets of vCPU features that KVM_ARM_VCPU_INIT accepts on a host under a kernel (None: the host's own)."""
    _host, _kernel = _machine(host, kernel)
    offered = sorted(Facts(_host, _kernel).features)
    if not offered:
        return st.just(frozenset())
    whole = st.sets(st.sampled_from(offered)).map(_with_needs)
    return whole.filter(lambda chosen: chosen <= set(offered) and not feature_rules.conflict(chosen))


class VcpuState:
    """A vCPU as a guest leaves it: its features, and every visible register by name, in the order in which to write.

    That order is kvmabi.model.plan's. ``mode`` is the value of SVCR.
    """

    def __init__(self, features: frozenset[str], mode: int, registers: dict[str, bytes]) -> None:
        self.features = features
        self.mode = mode
        self.registers = registers

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.features)) or "no vectors"
        return f"<VcpuState with {names}, SVCR {self.mode:#x}, {len(self.registers)} registers>"

    def create(self, vm: Vm, index: int = 0) -> Vcpu:
        """A new vCPU of a VM that has this state. Raises KvmError on a host or kernel that does not fit."""
        vcpu = vm.create_vcpu(index)
        for step in Plan.of(map(regid.parse, self.registers)).steps():
            if step.stage is Stage.INIT:
                vcpu.init(self.features)
            elif step.id is None:
                vcpu.finalize()
            else:
                vcpu[step.id] = self.registers[regid.name_of(step.id)]
        return vcpu


@st.composite
def vcpu_states(draw: st.DrawFn, host: str | Host = "sme-demo", kernel: str | Kernel | None = None) -> VcpuState:
    """States of a vCPU in every mode that a host and a kernel allow: with SVE, SME, both or neither, SM and ZA 0 or 1.

    Vector lengths are cut off at the top. Vector registers, ZA and x0 to x30 hold zeroes, ones or a pattern of bytes.
    """
    used_host, used_kernel = _machine(host, kernel)
    offered = sorted(VECTORS & Facts(used_host, used_kernel).features)
    chosen = frozenset(draw(st.sets(st.sampled_from(offered)))) if offered else frozenset[str]()
    mode = draw(st.sampled_from(MODES)) if "sme" in chosen else 0
    longest = {name: draw(st.sampled_from(_lengths(used_host, name))) for name in sorted(chosen)}
    fills = {family: draw(st.sampled_from(FILLS)) for family in FILLED}
    seed = draw(st.integers(0, 255))
    with open_kvm(host=used_host, kernel=used_kernel, kept_events=0, checked=False) as kvm:
        vcpu = _vcpu(kvm, used_host, longest)
        if "sme" in chosen:
            vcpu["svcr"] = mode
        for number, name in enumerate(vcpu.names()):
            family = _family(name)
            if family is not None:
                vcpu[name] = _bytes(fills[family], regid.decode(regid.parse(name)).size_bytes, seed + number)
        return VcpuState(chosen, mode, _in_order({name: vcpu[name] for name in vcpu.names()}))


class RandomVmm(NamedTuple):
    """A random VMM (kvmabi.testing.vmms.play): right, or with one mistake; the same values give the same run."""

    seed: int
    wrong: bool
    mistake: str | None = None

    def play(self) -> tuple[Kvm, Scenario]:
        """Play it on a Kvm, which the caller closes; the scenario says what it has lost."""
        return play(self.seed, wrong=self.wrong, mistake=self.mistake)


def vmms(*, wrong: bool | None = None, mistake: str | None = None) -> st.SearchStrategy[RandomVmm]:
    """Random VMMs: right ones, wrong ones, or (None) both; ``mistake`` is the one that wrong ones make.

    What a seed draws is not related to its neighbours, so a failing VMM does not shrink to a simpler one.
    """
    kinds = st.booleans() if wrong is None else st.just(wrong)
    return st.builds(RandomVmm, seed=st.integers(0, MOST_SEED), wrong=kinds, mistake=st.just(mistake))


def _machine(host: str | Host, kernel: str | Kernel | None) -> tuple[Host, Kernel]:
    used = load_host(host)
    return used, load_kernel(used.kernel if kernel is None else kernel)


def _with_needs(chosen: set[str]) -> frozenset[str]:
    return frozenset(chosen).union(*(feature_rules.needs(name) for name in chosen))


def _lengths(host: Host, feature: str) -> tuple[int, ...]:
    return host.sve_vector_bits if feature == "sve" else host.sme_vector_bits


def _vcpu(kvm: Kvm, host: Host, longest: dict[str, int]) -> Vcpu:
    """A finalised vCPU whose vector lengths, in bits, go up to the ``longest`` of each feature."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init(longest)
    for feature, most in longest.items():
        vcpu[VLS[feature]] = sum(1 << bits // 128 - 1 for bits in _lengths(host, feature) if bits <= most)
    if longest:
        vcpu.finalize()
    return vcpu


def _family(name: str) -> str | None:
    """The family of FILLED that a register belongs to, None for a register that keeps its value after INIT."""
    stem = name.split(".")[0].rstrip("0123456789")
    if name == "zt0":
        return name
    return stem if stem in FILLED and (name[-1].isdigit() or "." in name or name == stem == "ffr") else None


def _bytes(fill: str, size_bytes: int, seed: int) -> bytes:
    if fill == "pattern":
        return bytes(1 + (seed + byte) % 255 for byte in range(size_bytes))
    return bytes(size_bytes) if fill == "zeroes" else b"\xff" * size_bytes


def _in_order(registers: dict[str, bytes]) -> dict[str, bytes]:
    return {name: registers[name] for name in map(regid.name_of, in_order(map(regid.parse, registers)))}
