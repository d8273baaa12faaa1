# SPDX-License-Identifier: MIT
"""Sequences of steps (kvmabi.steps.grammar), drawn from the grammar's table: a strategy for each kind of word."""

from __future__ import annotations

from hypothesis import strategies as st

from kvmabi import hexruns
from kvmabi.kvm import open_kvm
from kvmabi.model.facts import Facts
from kvmabi.model.row import size_of
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.profiles.initwords import feature_bits
from kvmabi.steps.grammar import GUEST_BYTES, MAX_IDS, OPS, Op
from kvmabi.uapi import KVM_ARM_VCPU_VEC

MOST_STEPS = 40
VECTORS = ("sve", "sme")
FILES = ("0", "0", "0", "1", "v", "s", "d0")
ARGUMENT_PARTS = ("00*4.", "01000000", "00*8.", "ff*4.", "@0", "@1", "@4", "@5", "@p", "@m")
Words = st.SearchStrategy[str]


def ioctl_sequences(
    host: str | Host = "sme-demo", kernel: str | Kernel | None = None, *, max_size: int = MOST_STEPS
) -> st.SearchStrategy[list[str]]:
    """Lists of steps, as ``kvmabi.steps.doer.Doer`` does and traces hold them, at most ``max_size`` and a beginning.

    Each begins with a new VM of one or two vCPUs. Most go on with INIT and FINALIZE; what follows is any step with
    registers of the host, unknown IDs, good and bad arguments. They shrink to few and simple steps.
    """
    used = load_host(host)
    words = _Words(used, load_kernel(used.kernel if kernel is None else kernel))
    steps = st.one_of([words.step(op) for op in OPS if op.word != "new"])
    return st.builds(lambda first, rest: [*first, *rest], words.beginning(), st.lists(steps, max_size=max_size))


class _Words:
    """The strategies of the words of steps on one machine."""

    def __init__(self, host: Host, kernel: Kernel) -> None:
        self.target = kernel.target
        vectors = [name for name in VECTORS if name in Facts(host, kernel).features]
        sets = ([], vectors, *([name] for name in vectors))
        self.features = sorted({feature_bits(kernel, names) for names in sets})
        self.ids = _ids(host, kernel, vectors)
        number, byte = st.integers(-1, 16), st.integers(0, 255)
        self._named: dict[str, st.SearchStrategy[object]] = {
            "target": st.sampled_from([self.target, self.target, self.target, -1]),
            "feature": st.sampled_from([int(KVM_ARM_VCPU_VEC), int(KVM_ARM_VCPU_VEC), 0, -1]),
            "seed": byte,
            "n": st.sampled_from([MAX_IDS, 0, 1]),
            "id:number": st.integers(0, 2),
            "id:hex": self._id(),
            "features": st.one_of(st.sampled_from(self.features), st.integers(0, 0xFFFFFFFF)).map(_hex),
        }
        self._kinds: dict[str, st.SearchStrategy[object]] = {
            "file": st.sampled_from(FILES),
            "vcpu": st.integers(0, 1),
            "count": st.integers(1, 2),
            "number": number,
            "hex": st.integers(0, 0xFFFFFFFF).map(_hex),
            "bytes": st.binary(min_size=1, max_size=64).map(hexruns.compress),
            "offset": st.integers(0, GUEST_BYTES - 1).map(_hex),
            "value": st.one_of(st.just("-"), st.integers(0, 0xFFFFFFFF).map(_hex)),
            "argument": st.lists(st.sampled_from(ARGUMENT_PARTS), min_size=1, max_size=8).map("".join),
            "room": st.integers(0, 300),
            "ids": st.integers(0, 40),
        }

    def beginning(self) -> st.SearchStrategy[list[str]]:
        """A new VM; for most, INIT of the first vCPU and FINALIZE."""
        word = st.sampled_from(self.features)
        started = st.builds(
            lambda vcpus, bits: [f"N {vcpus}", f"I 0 {self.target} {bits:x}", f"F 0 {KVM_ARM_VCPU_VEC}"],
            st.integers(1, 2),
            word,
        )
        return st.one_of(started, started, st.integers(1, 2).map(lambda vcpus: [f"N {vcpus}"]))

    def step(self, op: Op) -> Words:
        """Steps of one kind."""
        if op.word == "set":
            return self._set()
        words = [self._word(name, kind) for name, kind in op.words]
        return st.tuples(*words).map(lambda values: " ".join([op.letter, *map(str, values)]))

    def _word(self, name: str, kind: str) -> st.SearchStrategy[object]:
        if name.startswith("features"):
            return self._named["features"]
        for key in (f"{name}:{kind}", name, kind):
            if key in self._named:
                return self._named[key]
        return self._kinds[kind]

    def _set(self) -> Words:
        """KVM_SET_ONE_REG of as many bytes as the register has."""

        def value(id: str) -> Words:
            data = st.one_of(st.just(b""), st.binary(max_size=16), st.just(b"\xff" * size_of(int(id, 16))))
            whole = data.map(lambda some: some[: size_of(int(id, 16))].ljust(size_of(int(id, 16)), b"\0"))
            return whole.map(lambda some: f"S 0 {id} {hexruns.compress(some) or '00'}")

        return self._id().flatmap(value)

    def _id(self) -> Words:
        return st.one_of(st.sampled_from(self.ids), st.sampled_from(self.ids).map(lambda id: id ^ 1)).map(_hex)


def _hex(number: int) -> str:
    return f"{number:x}"


def _ids(host: Host, kernel: Kernel, vectors: list[str]) -> list[int]:
    """The IDs of every register that a vCPU of the host has in some mode; simple ones come first."""
    with open_kvm(host=host, kernel=kernel, kept_events=0, checked=False) as kvm:
        ids: dict[int, None] = {}
        for features in ([], vectors):
            vcpu = kvm.create_vm().create_vcpu(0)
            vcpu.init(features)
            if features:
                vcpu.finalize()
            ids |= dict.fromkeys(vcpu.reg_list())
            if "sme" in features:
                vcpu["svcr"] = 3
                ids |= dict.fromkeys(vcpu.reg_list())
        return list(ids)
