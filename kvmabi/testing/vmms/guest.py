# SPDX-License-Identifier: MIT
"""Guest code, played: writes to a vCPU right after a real KVM_RUN are what the guest left when it exited."""

from __future__ import annotations

from random import Random

from kvmabi import regid
from kvmabi.kvm import Vcpu
from kvmabi.model.row import size_of
from kvmabi.testing.vmms import families
from kvmabi.testing.vmms.families import FPCR, FPMR, FPSR, PC, PSTATE, SP, SVCR, X
from kvmabi.testing.vmms.machine import EVENTS_BYTES, SERROR_PENDING, SM, ZA, ids_of, set_events, svcr_of, values_of

PSTATES = (0x3C5, 0x60000305, 0x80000005, 0x20000000, 0x800003C4)
SYSTEM = tuple(
    map(
        regid.parse,
        (
            *("sctlr_el1", "cpacr_el1", "ttbr0_el1", "ttbr1_el1", "tcr_el1", "esr_el1", "far_el1", "par_el1"),
            *("mair_el1", "amair_el1", "vbar_el1", "contextidr_el1", "tpidr_el1", "tpidr_el0", "tpidrro_el0"),
            *("cntkctl_el1", "mdscr_el1", "dbgbvr0_el1", "tpidr2_el0", "tcr2_el1", "pir_el1", "pire0_el1"),
            *("afsr0_el1", "sp_el1", "elr_el1", "cntv_cval_el0", "por_el0", "zcr_el1", "smcr_el1", "smpri_el1"),
        ),
    )
)
TIMER_CTL = regid.parse("cntv_ctl_el0")
SERROR = bytearray(EVENTS_BYTES)
SERROR[SERROR_PENDING] = 1
SPARSE_SHARE = 0.15
"""The share of vector registers that a guest leaves as they are."""
KERNEL = 0xFFFF_8000_0000_0000


class Image:
    """A guest image: what several guests booted from it have in common.

    Values are drawn from ``rng``, a share of them (``alike``) once for all guests. ``with_events``: an SError can be
    pending when a guest exits.
    """

    def __init__(self, rng: Random, *, alike: float, with_events: bool) -> None:
        self.with_events = with_events
        self._rng = rng
        self.alike = alike
        self._common: dict[int, bytes] = {}

    def value(self, id: int, size_bytes: int) -> bytes:
        """A value of a register, not zero: the image's own or a new one."""
        rng = self._rng
        if self.alike and rng.random() < self.alike:
            value = self._common.get(id)
            if value is None:
                value = self._common[id] = _random(rng, size_bytes)
            return value
        return _random(rng, size_bytes)


def _random(rng: Random, size_bytes: int) -> bytes:
    value = rng.randbytes(size_bytes)
    return bytes((value[0] | 1,)) + value[1:]


def boot(vcpu: Vcpu, rng: Random) -> None:
    """What a VMM sets before a vCPU's first run: pc, x0 and pstate."""
    vcpu[PC] = 0x4008_0000 + 0x1000 * rng.randrange(4)
    vcpu[X[0]] = 0x4800_0000
    vcpu[PSTATE] = 0x3C5


def svcr_choice(vcpu: Vcpu, rng: Random) -> int | None:
    """A value of SVCR, None on a vCPU without it."""
    return rng.choice((0, SM, ZA, SM | ZA)) if SVCR in ids_of(vcpu) else None


def change_all(vcpu: Vcpu, rng: Random, image: Image, svcr: int | None) -> None:
    """Guest code that sets its mode and leaves values in nearly every register."""
    if svcr is not None:
        vcpu[SVCR] = svcr
    change_vectors(vcpu, rng, image, keep=SPARSE_SHARE if rng.random() < 0.5 else 0)
    change_scalars(vcpu, rng, image)


def change_vectors(vcpu: Vcpu, rng: Random, image: Image, *, keep: float = 0) -> None:
    """Guest code that leaves values in the vector registers of its mode, except a share of them that it keeps."""
    for id in families.of(ids_of(vcpu), *families.VECTOR_FAMILIES):
        if not keep or rng.random() >= keep:
            vcpu[id] = image.value(id, size_of(id))
    vcpu[FPSR] = 0x0800_0010 | rng.randrange(16)
    if FPMR in ids_of(vcpu):
        vcpu[FPMR] = 3 + 8 * rng.randrange(8)


def change_scalars(vcpu: Vcpu, rng: Random, image: Image) -> None:
    """Guest code that leaves values in the core registers and in some system registers."""
    for id in X:
        vcpu[id] = image.value(id, 8)
    vcpu[PC] = KERNEL + 4 * rng.randrange(1 << 20)
    vcpu[SP] = KERNEL + 0x8100_0000 + 16 * rng.randrange(1 << 16)
    vcpu[PSTATE] = rng.choice(PSTATES)
    vcpu[FPCR] = rng.choice((0, 0x00C0_0000, 0x0040_0000))
    visible = ids_of(vcpu)
    keeps = dict(vcpu.kvm.vcpu_model(vcpu.fd).system.cpu_keeps)
    for id in rng.sample(SYSTEM, rng.randint(6, len(SYSTEM))):
        if id in visible:
            value = int.from_bytes(image.value(id, 8), "little")
            vcpu[id] = value & keeps.get(id, value)  # a guest cannot leave bits that the CPU does not have
    if rng.random() < 0.3:
        vcpu[TIMER_CTL] = rng.choice((0, 1, 3))
    if image.with_events and rng.random() < 0.5:
        set_events(vcpu, bytes(SERROR))


def change_little(vcpu: Vcpu, rng: Random, image: Image) -> None:
    """Guest code that went a few instructions further: pc, a few core registers, a vector or two."""
    vcpu[PC] = int.from_bytes(vcpu.kvm.vcpu_model(vcpu.fd).get_one_reg(PC), "little") + 4 * rng.randint(1, 64)
    for id in rng.sample(X, rng.randint(1, 4)):
        vcpu[id] = image.value(id, 8)
    vectors = families.of(ids_of(vcpu), *families.VECTOR_FAMILIES)
    for id in rng.sample(vectors, min(len(vectors), rng.randint(0, 2))):
        vcpu[id] = image.value(id, size_of(id))


def change_mode(vcpu: Vcpu, rng: Random, image: Image) -> None:
    """Guest code that switched SM or ZA and then used some vector registers, or loaded the same values again."""
    svcr = svcr_choice(vcpu, rng)
    before = values_of(vcpu)
    if svcr is not None:
        vcpu[SVCR] = svcr
        if rng.random() < 0.5:
            for id in families.of(ids_of(vcpu), "z", "p"):
                vcpu[id] = before.get(id, image.value(id, size_of(id)))
            return
    change_vectors(vcpu, rng, image, keep=rng.choice((0, 0.5, 0.9)))


def change(vcpu: Vcpu, rng: Random, image: Image) -> None:
    """One of the above."""
    kind = rng.random()
    if kind < 0.3:
        change_little(vcpu, rng, image)
    elif kind < 0.45:
        change_scalars(vcpu, rng, image)
    elif kind < 0.7:
        change_mode(vcpu, rng, image)
    else:
        change_all(vcpu, rng, image, rng.choice((svcr_of(vcpu), svcr_choice(vcpu, rng))) if _has_svcr(vcpu) else None)


def _has_svcr(vcpu: Vcpu) -> bool:
    return SVCR in ids_of(vcpu)
