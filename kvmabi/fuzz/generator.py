# SPDX-License-Identifier: MIT
"""Random sequences of steps: those of a correct VMM, mixed with those of a broken or hostile one."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from kvmabi import hexruns, uapi
from kvmabi.fuzz import devices, gicregs, vmcalls
from kvmabi.fuzz.world import World

SANE_SHARE = 0.75
"""The share of sequences that begin like a correct VMM."""
TWO_VCPUS_SHARE = 0.25
STEPS = (20, 130)
LIST_ROOM = (0, 1, 40, 41, 250, 400, 4096, 4096, 4096, 4096)
FINALIZED = (4, 4, 4, 4, 4, 4, 0, 3, 5, 9, 10, -1)
TARGETS = (0, 3, 4, 6, 77, 0xFFFFFFFF)
WRONG_FEATURE_BITS = (7, 8, 9, 10, 11, 19, 31)

# The kinds of steps and their weights.
MIX: dict[str, int] = {
    "get": 330,
    "set": 265,
    "pattern": 175,
    "bad_get": 20,
    "bad_set": 22,
    "partial_get": 12,
    "partial_set": 25,
    "list": 45,
    "partial_list": 4,
    "init": 30,
    "wide_init": 4,
    "finalize": 24,
    "run": 14,
    "masks": 2,
    "bad_call": 8,
    "vcpu": 4,
    "capability": 4,
    "query": 6,
    "struct": 6,
    "device": 10,
    "attribute": 12,
    "vm_call": 20,
}
CHANGING = frozenset({"init", "finalize", "run"})
"""Steps after which some of the registers that were set before are read."""
RECENT, LOOKED_AT = 16, 4
DEVICES_SHARE = 0.15
"""The share of sequences that create devices: a run with a vGIC that is not set up kills the VM."""
GIC_SHARE, GIC_STEPS_SHARE = 0.12, 0.7
"""The share of sequences that set up a vGIC after the vCPUs, and of their steps that are about its registers."""
BAD_CALLS = tuple(
    f"{request:x}" for request in (uapi.KVM_ARM_VCPU_INIT, uapi.KVM_ARM_VCPU_FINALIZE, uapi.KVM_GET_REG_LIST)
)
STRUCTS = (
    f"v {uapi.KVM_ARM_PREFERRED_TARGET:x}",
    f"0 {uapi.KVM_GET_MP_STATE:x}",
    f"0 {uapi.KVM_GET_VCPU_EVENTS:x}",
)


class Generator:
    """Generates sequences for a ``world``; sequence ``number`` of a seed is always the same."""

    def __init__(self, seed: int, world: World) -> None:
        self._seed = seed
        self._world = world
        self._kinds = list(MIX)
        self._weights = list(MIX.values())

    def sequence(self, number: int) -> list[str]:
        """The steps of a sequence; it begins with a new VM."""
        return _Sequence(Random(f"{self._seed}.{number}"), self._world, self._kinds, self._weights).steps


class _Sequence:
    def __init__(self, random: Random, world: World, kinds: list[str], weights: list[int]) -> None:
        self.random = random
        self.world = world
        self.vcpus = 2 if random.random() < TWO_VCPUS_SHARE else 1
        self.word = world.features(random)
        self.steps = [f"N {self.vcpus}"]
        self.written: list[str] = []
        self.with_devices = random.random() < DEVICES_SHARE
        if random.random() < 0.02:
            self.steps += [f"W {world.opt_in(random)}"]
        length = random.randint(*STEPS)
        if random.random() < SANE_SHARE:
            self.begin()
        with_gic = random.random() < GIC_SHARE
        if with_gic:
            self.steps += gicregs.begin(random, self.vcpus)
        while len(self.steps) < length:
            if with_gic and random.random() < GIC_STEPS_SHARE:
                self.steps.append(gicregs.step(random))
                continue
            kind = random.choices(kinds, weights)[0]
            self.steps.append(_MAKE[kind](self))
            if kind in CHANGING:
                self.look_back()

    def begin(self) -> None:
        """INIT, often vector lengths and FINALIZE, of every vCPU."""
        for vcpu in range(self.vcpus):
            self.steps.append(f"I {vcpu} {self.world.target} {self.word:x}")
            if self.random.random() < 0.5:
                self.steps += self.world.vector_lengths(self.random, str(vcpu))
            if self.random.random() < 0.85:
                self.steps.append(f"F {vcpu} 4")
            if self.random.random() < 0.4:
                self.steps += self.world.modes(self.random, str(vcpu))

    def look_back(self) -> None:
        """Read some of the registers that were set last."""
        recent = self.written[-RECENT:]
        self.steps += [f"G {place}" for place in self.random.sample(recent, min(LOOKED_AT, len(recent)))]

    def target_of_set(self, id: int) -> str:
        """Returns a vCPU and an ID as a step's words, and records them for ``look_back``."""
        place = f"{self.vcpu()} {id:x}"
        self.written.append(place)
        return place

    def vcpu(self) -> str:
        return str(self.random.randrange(self.vcpus))

    # --- one step each

    def get(self) -> str:
        return f"G {self.vcpu()} {self.world.readable(self.random):x}"

    def set(self) -> str:
        id = self.world.writable(self.random)
        return f"S {self.target_of_set(id)} {hexruns.compress(self.world.value(self.random, id))}"

    def pattern(self) -> str:
        return f"P {self.target_of_set(self.world.patterned(self.random))} {self.random.randrange(256)}"

    def bad_get(self) -> str:
        return f"B {self.vcpu()} {self.world.readable(self.random):x}"

    def bad_set(self) -> str:
        return f"b {self.vcpu()} {self.world.any_id(self.random):x}"

    def partial_get(self) -> str:
        return f"g {self.vcpu()} {self.world.readable(self.random):x} {self.mapped()}"

    def partial_set(self) -> str:
        return f"s {self.vcpu()} {self.world.patterned(self.random):x} {self.mapped()} {self.random.randrange(256)}"

    def mapped(self) -> int:
        """How much of a buffer is mapped: around the lengths that registers have."""
        near = self.random.choice((0, 2, 4, 8, 16, 32, 64, 128, 256))
        return max(0, near + self.random.choice((-1, 0, 0, 1)))

    def list(self) -> str:
        return f"L {self.vcpu()} {self.random.choice(LIST_ROOM)}"

    def partial_list(self) -> str:
        return f"l {self.vcpu()} {self.random.choice(LIST_ROOM)} {self.random.choice((0, 1, 30))}"

    def init(self) -> str:
        chance = self.random.random()
        target, word = self.world.target, self.word
        if chance < 0.08:
            target = self.random.choice(TARGETS)
        elif chance < 0.2:
            word ^= 1 << self.random.choice(WRONG_FEATURE_BITS)
        elif chance < 0.35:
            word = self.world.features(self.random)
        elif chance < 0.45:
            word ^= 1  # POWER_OFF, which may differ
        return f"I {self.vcpu()} {target} {word:x}"

    def wide_init(self) -> str:
        words = [self.word, 0, 0, 0, 0, 0, 0]
        words[self.random.randrange(7)] |= 1 << self.random.randrange(32)
        return " ".join(["i", self.vcpu(), str(self.world.target), *(f"{word:x}" for word in words)])

    def finalize(self) -> str:
        return f"F {self.vcpu()} {self.random.choice(FINALIZED)}"

    def run(self) -> str:
        return f"R {self.vcpu()}"

    def masks(self) -> str:
        return "M"

    def bad_call(self) -> str:
        return f"X {self.vcpu()} {self.random.choice(BAD_CALLS)} {self.random.choice(('8', '10'))}"

    def new_vcpu(self) -> str:
        return f"V {self.random.choice((0, 0, 511, 512, 513, 4096))}" if self.random.random() < 0.5 else "V 0"

    def capability(self) -> str:
        return f"W {self.world.opt_in(self.random)}"

    def query(self) -> str:
        file = self.random.choice("sv")
        return f"X {file} {uapi.KVM_CHECK_EXTENSION:x} {self.random.randrange(256):x}"

    def device(self) -> str:
        return devices.create(self.random) if self.with_devices else self.attribute()

    def attribute(self) -> str:
        return devices.attribute(self.random)

    def vm_call(self) -> str:
        return vmcalls.call(self.random)

    def struct(self) -> str:
        return f"A {self.random.choice(STRUCTS)}"


_MAKE: dict[str, Callable[[_Sequence], str]] = {
    "get": _Sequence.get,
    "set": _Sequence.set,
    "pattern": _Sequence.pattern,
    "bad_get": _Sequence.bad_get,
    "bad_set": _Sequence.bad_set,
    "partial_get": _Sequence.partial_get,
    "partial_set": _Sequence.partial_set,
    "list": _Sequence.list,
    "partial_list": _Sequence.partial_list,
    "init": _Sequence.init,
    "wide_init": _Sequence.wide_init,
    "finalize": _Sequence.finalize,
    "run": _Sequence.run,
    "masks": _Sequence.masks,
    "bad_call": _Sequence.bad_call,
    "vcpu": _Sequence.new_vcpu,
    "capability": _Sequence.capability,
    "query": _Sequence.query,
    "struct": _Sequence.struct,
    "device": _Sequence.device,
    "attribute": _Sequence.attribute,
    "vm_call": _Sequence.vm_call,
}
