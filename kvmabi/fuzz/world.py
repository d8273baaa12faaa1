# SPDX-License-Identifier: MIT
"""What random sequences use: the registers and features of a host, and the values worth writing to them."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from kvmabi import hexruns, regid, uapi
from kvmabi.profiles import Kernel, features, sysregs
from kvmabi.steps.hostfeatures import HostFeatures

SIZE_SHIFT = int(uapi.KVM_REG_SIZE_SHIFT)
SVCR, PSTATE = regid.parse("svcr"), regid.parse("pstate")
SVE_VLS, SME_VLS = int(uapi.KVM_REG_ARM64_SVE_VLS), int(uapi.KVM_REG_ARM64_SME_VLS)
VLS_BYTES = 64
PSCI_VERSION = int(uapi.KVM_REG_ARM_PSCI_VERSION)
TIMERS = sysregs.free_running_ids() | sysregs.status_bits().keys()
"""Free-running counters, and the controls with bits that follow them: the answers of two kernels always differ."""
CHANCE = frozenset({regid.parse("dbgvcr32_el2")})
"""QEMU's CPUs ignore the kernel's read of it: after a run of a 32-bit vCPU it holds the result of an earlier read."""
LEFT_ALONE = TIMERS | CHANCE
Z = tuple(int(uapi.KVM_REG_ARM64_SVE_ZREG(n, 0)) for n in range(32))
P = tuple(int(uapi.KVM_REG_ARM64_SVE_PREG(n, 0)) for n in range(16))
ZA = tuple(int(uapi.KVM_REG_ARM64_SME_ZAHREG(n, 0)) for n in range(256))
V = tuple(regid.parse(f"v{n}") for n in range(32))
VECTORS = (
    *Z,
    *P,
    *P,
    *(int(uapi.KVM_REG_ARM64_SVE_FFR(0)),) * 8,
    *ZA[:32],
    *ZA[64::37],
    *(int(uapi.KVM_REG_ARM64_SME_ZTREG(0)),) * 8,
    *V[::3],
)
SME_SYSREGS = tuple(map(regid.parse, ("svcr", "smcr_el1", "smidr_el1", "tpidr2_el0", "smpri_el1", "fpmr")))
STATUS = tuple(map(regid.parse, ("fpsr", "fpcr", "zcr_el1", "id_aa64pfr0_el1", "id_aa64pfr1_el1", "id_aa64zfr0_el1")))
PSTATES = (0x0, 0x4, 0x5, 0x3C5, 0x3C4, 0x10, 0x1D0, 0x13, 0x9, 0xD, 0x1, 0x60000005, 0xF0000000)
PSCI_VERSIONS = (0, 1, 2, 3, 0x10000, 0x10001, 0x10002, 0x10003, 0x10004, 0x20000)
SVCRS = (0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 7, 0x80, 1 << 32, 1 << 63, (1 << 64) - 1)
WORDS = (0, 1, 2, 0xF, 0xFFFFFFFF, (1 << 64) - 1, 1 << 63, 0x8000000080000000, 0x1DE7EC7EDBADC0DE)
OPT_IN = int(uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS)
UNKNOWN_CAPABILITY = 100_000
ID_GROUP = regid.parse("s3_0_c0_c0_0") & ~0x7F


class World:
    """A host as it was ``captured`` (kvmabi.capture), under a kernel profile."""

    def __init__(self, host_features: HostFeatures, kernel: Kernel, captured: Mapping[str, Any]) -> None:
        self.target = host_features.target
        self._kernel = kernel
        self.careful_with_its = not kernel.switches.its_saves_unmapped
        self._vqs = {SVE_VLS: host_features.sve_vqs, SME_VLS: host_features.sme_vqs}
        self._bits = {name: 1 << feature.bit for name, feature in kernel.features.items()}
        self._features = sorted(host_features.features)
        self._values = _numbers(captured["registers"])
        for table in captured["resets"].values():
            self._values = _numbers(table or {}) | self._values
        self._listed = sorted(id for id in self._values if id not in LEFT_ALONE)
        self._others = [id for id in self._listed if id not in VECTORS]
        self._ids = [id for id in self._others if id & ~0x7F == ID_GROUP]
        vectors = [id for id, vqs in self._vqs.items() if vqs]
        self._special = [SVCR, *SME_SYSREGS, *STATUS] if host_features.sme_vqs else [*STATUS, *STATUS, SVCR]
        self._special += [*(vectors or [SVE_VLS]) * 3, PSTATE, PSCI_VERSION]

    # --- the life of a vCPU

    def features(self, random: Random) -> int:
        """A set of features that INIT may accept: usually with vectors, and usually with what the features need."""
        word = 0
        for name in self._features:
            likely = {"sve": 0.7, "sme": 0.7, "pmu_v3": 0.15, "el1_32bit": 0.03, "power_off": 0.1}.get(name, 0.2)
            if random.random() < likely:
                word |= self._bits[name]
                if random.random() < 0.95:
                    for other in features.needs(name):
                        word |= self._bits.get(other, 0)
        return word

    def vector_lengths(self, random: Random, vcpu: str) -> list[str]:
        """Sets of vector lengths as a VMM gives them."""
        chosen = {id: _vls(vqs[: random.randint(1, len(vqs))]) for id, vqs in self._vqs.items() if vqs}
        return [f"S {vcpu} {id:x} {hexruns.compress(data)}" for id, data in chosen.items()]

    def modes(self, random: Random, vcpu: str) -> list[str]:
        """A write of SVCR, if the host has SME."""
        return [f"S {vcpu} {SVCR:x} {random.randrange(4).to_bytes(8, 'little').hex()}"] if self._vqs[SME_VLS] else []

    def opt_in(self, random: Random) -> int:
        """A capability to enable."""
        return OPT_IN if random.random() < 0.8 else UNKNOWN_CAPABILITY

    # --- IDs

    def readable(self, random: Random) -> int:
        """An ID to read: of a listed register, a vector register or no register, but none of LEFT_ALONE."""
        while True:
            id = self.any_id(random)
            if _plain(id) not in LEFT_ALONE:
                return id

    writable = patterned = readable

    def any_id(self, random: Random) -> int:
        """An ID of any kind."""
        chance = random.random()
        if chance < 0.36:
            return random.choice(VECTORS)
        if chance < 0.58:
            return random.choice(self._special)
        if chance < 0.7:
            return random.choice(self._ids or self._others)
        if chance < 0.88:
            return random.choice(self._others)
        if chance < 0.98:
            return _bent(random, random.choice(VECTORS + tuple(self._special) + tuple(self._others)))
        return random.getrandbits(64)

    # --- values

    def value(self, random: Random, id: int) -> bytes:
        """Bytes to write to a register: what makes sense there, and what does not."""
        size = uapi.KVM_REG_SIZE(id)
        if id in self._vqs:
            return self._lengths(random, id)
        if size > 8:
            return (random.randbytes(9) + bytes((random.choice((0, 255)),)) * 247)[:size]
        return (self._number(random, id) % (1 << 8 * size)).to_bytes(size, "little")

    def _number(self, random: Random, id: int) -> int:
        typical = {SVCR: SVCRS, PSTATE: PSTATES, PSCI_VERSION: PSCI_VERSIONS}.get(id)
        chance = random.random()
        if typical and chance < 0.9:
            return random.choice(typical)
        value = self._values.get(id, 0)
        if id & ~0x7F == ID_GROUP and chance < 0.7:
            shift = 4 * random.randrange(16)
            field = value >> shift & 0xF
            new = random.choice((field - 1, field - 1, 0, field + 1, 15)) & 0xF
            return value & ~(0xF << shift) | new << shift
        if chance < 0.3:
            return value
        if chance < 0.4:
            return value ^ 1 << random.randrange(64)
        return random.choice(WORDS) if chance < 0.7 else random.getrandbits(64)

    def _lengths(self, random: Random, id: int) -> bytes:
        vqs = self._vqs[id]
        chance = random.random()
        if vqs and chance < 0.6:
            return _vls(vqs[: random.randint(1, len(vqs))])
        if chance < 0.7:
            return _vls(vqs[random.randrange(len(vqs)) :]) if vqs else _vls((1,))
        if chance < 0.85:
            return _vls(tuple(vq for vq in range(1, 17) if random.random() < 0.5))
        return _vls(tuple(random.choice((1, 2, 4, 16, 17, 64, 65, 512)) for _ in range(random.randint(0, 3))))


def _vls(vqs: tuple[int, ...]) -> bytes:
    return sum(1 << (vq - 1) for vq in set(vqs)).to_bytes(VLS_BYTES, "little")


def _plain(id: int) -> int:
    """A system register's ID without the bits that some kernels ignore."""
    if id & uapi.KVM_REG_ARM_COPROC_MASK != uapi.KVM_REG_ARM64_SYSREG:
        return id
    return int(id & 0xFFFF | uapi.ARM64_SYS_REG(0, 0, 0, 0, 0))


def _bent(random: Random, id: int) -> int:
    """An ID that is nearly valid: of another size or slice, with a bit flipped, or next to a valid one."""
    how = random.randrange(6)
    if how == 0:
        return id & ~uapi.KVM_REG_SIZE_MASK | random.randrange(10) << SIZE_SHIFT
    if how == 1:
        return id | random.randrange(1, 32)
    if how == 2:
        return id ^ 1 << random.randrange(64)
    if how == 3:
        return (id + random.choice((1, 2, 4, 0x20, 0x200, 0x2000))) % (1 << 64)
    if how == 4:
        return id & ~0xFFFF | random.getrandbits(16)
    return id & ~0xFFF0000 | random.choice((0x10, 0x11, 0x13, 0x14, 0x15, 0x16, 0x17, 0x12, 0x18)) << 16


def _numbers(registers: Mapping[str, str | None]) -> dict[int, int]:
    return {
        int(id, 16): int.from_bytes(hexruns.expand(value), "little") if value else 0 for id, value in registers.items()
    }
