# SPDX-License-Identifier: MIT
"""The vector registers as a guest sees them: lengths from ZCR_EL1 and SMCR_EL1, what exists in which mode, and SVCR.

Source: Arm ARM, B1.4 (SVE), B1.5 (SME). A write zeroes the register beyond the present length; a change of length keeps
what is stored. Traps are left out: CPACR_EL1 and SMCR_EL1.EZT0 are not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from kvmabi import regid
from kvmabi.guests.board import GuestError
from kvmabi.model import sme, state
from kvmabi.model.mode import SVCR_SM, SVCR_ZA
from kvmabi.model.refusal import Refusal
from kvmabi.model.vcpu import Vcpu

LEN_MASK = 0xF
ZCR_ID, SMCR_ID, SVCR_ID = map(regid.parse, ("zcr_el1", "smcr_el1", "svcr"))
BITS = {"sm": SVCR_SM, "za": SVCR_ZA, "": SVCR_SM | SVCR_ZA}
"""The operand of SMSTART and SMSTOP."""
NO_SME = "UNDEFINED: this vCPU has no SME (give KVM_ARM_VCPU_INIT the feature KVM_ARM_VCPU_SME)"
NO_SVE = "UNDEFINED: this vCPU has no SVE, so Z and P exist in streaming mode only"
NO_ZA = "ZA and ZT0 are not accessible while SVCR.ZA = 0: smstart('za') first"
NO_SME2 = "UNDEFINED: this vCPU has no SME2, so no ZT0"
NO_FFR = "UNDEFINED: FFR does not exist here: without SVE, or in streaming mode without FEAT_SME_FA64"


class FpAccess(Protocol):
    """What stands between the guest and its Z registers: a kernel's protocol for who owns them."""

    def write(self, n: int, value: bytes) -> None:
        """The guest writes Z<n>, in full size."""

    def read(self, n: int) -> bytes:
        """The guest reads Z<n>, in full size."""

    def choose_length(self) -> None:
        """The guest writes ZCR_EL1."""


class Vectors:
    """The vector state of a vCPU. ``access`` stands between it and the guest, if anything does."""

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.access: FpAccess | None = None

    @property
    def vl_bytes(self) -> int:
        """The length of Z now."""
        mode = self.vcpu.mode
        if not mode.has_z:
            raise GuestError(NO_SVE)
        return self.svl_bytes if mode.sm else self._length(ZCR_ID, self.vcpu.system.sve_vqs, mode.sve_vq)

    @property
    def svl_bytes(self) -> int:
        """The streaming vector length, and the number of ZA's rows."""
        if not self.vcpu.mode.sme:
            raise GuestError(NO_SME)
        return self._length(SMCR_ID, self.vcpu.system.sme_vqs, self.vcpu.mode.sme_vq)

    def _length(self, control: int, host_vqs: frozenset[int], most_vq: int) -> int:
        """The longest length that the vCPU has and the control register allows, else the shortest that it has."""
        asked = (self.vcpu.value(self.vcpu.row(control)) & LEN_MASK) + 1
        lengths = [vq for vq in host_vqs if vq <= most_vq]
        return 16 * max((vq for vq in lengths if vq <= asked), default=min(lengths))

    def set_svcr(self, value: int) -> None:
        """Write SVCR; a change of SM zeroes Z, P and FFR, and ZA and ZT0 are zero whenever ZA becomes 1."""
        vcpu = self.vcpu
        if not vcpu.mode.sme:
            raise GuestError(NO_SME)
        value &= SVCR_SM | SVCR_ZA
        outcome = sme.set_svcr(vcpu, vcpu.row(SVCR_ID), value.to_bytes(8, "little"))
        if isinstance(outcome, Refusal):
            raise GuestError(outcome.reason)

    def start(self, what: str, *, on: bool) -> None:
        """SMSTART or SMSTOP of "sm", "za" or "" (both)."""
        bits = BITS.get(what.lower())
        if bits is None:
            raise GuestError(f"smstart and smstop take 'sm', 'za' or nothing, not {what!r:.40}")
        svcr = self.vcpu.mode.svcr
        self.set_svcr(svcr | bits if on else svcr & ~bits)

    def read(self, start: int, size_bytes: int) -> bytes:
        """Bytes of the register file."""
        value: bytes = self.vcpu.memory[start : start + size_bytes]
        return value

    def write(self, start: int, room_bytes: int, data: bytes) -> None:
        """Write a register, and zero the rest of its place."""
        self.vcpu.memory[start : start + room_bytes] = data.ljust(room_bytes, b"\0")
        self.vcpu.generation += 1


class Bank:
    """Registers by number: ``cpu.z[3]`` are bytes; less than all of them can be written, and zeroes follow.

    ``length`` returns the size of one in bytes, or raises GuestError where there are none.
    """

    def __init__(
        self,
        vectors: Vectors,
        name: str,
        count: Callable[[], int],
        length: Callable[[], int],
        get: Callable[[int, int], bytes],
        put: Callable[[int, bytes], None],
    ) -> None:
        self._vectors, self._name, self._count, self._length = vectors, name, count, length
        self._get, self._put = get, put

    def __getitem__(self, n: int) -> bytes:
        length = self._length()
        self._check(n)
        return self._get(n, length)

    def __setitem__(self, n: int, value: bytes) -> None:
        length = self._length()
        self._check(n)
        self._put(n, fitting(f"{self._name}[{n}]", value, length))

    def __len__(self) -> int:
        return self._count()

    def __iter__(self) -> Iterator[bytes]:
        return (self[n] for n in range(self._count()))

    def _check(self, n: int) -> None:
        if not isinstance(n, int) or not 0 <= n < self._count():
            raise GuestError(f"{self._name}[{n!r:.20}]: numbers are 0 to {self._count() - 1}")


def fitting(name: str, value: bytes, length_bytes: int) -> bytes:
    """A value that fits. Raises GuestError."""
    try:
        data = bytes(memoryview(value))
    except TypeError:
        raise GuestError(f"{name} takes bytes, not {value!r:.40}") from None
    if len(data) > length_bytes:
        raise GuestError(
            f"{name} has {length_bytes} bytes now, {len(data)} were given: zcr_el1 and smcr_el1 (bits 3:0) limit the "
            "vector lengths"
        )
    return data


def bank_z(vectors: Vectors) -> Bank:
    """Z0 to Z31."""

    def get(n: int, length: int) -> bytes:
        if vectors.access is not None and not vectors.vcpu.mode.sm:
            return vectors.access.read(n)[:length]
        return vectors.read(state.Z + n * state.Z_BYTES, length)

    def put(n: int, value: bytes) -> None:
        if vectors.access is not None and not vectors.vcpu.mode.sm:
            vectors.access.write(n, value.ljust(state.Z_BYTES, b"\0"))
        else:
            vectors.write(state.Z + n * state.Z_BYTES, state.Z_BYTES, value)

    return Bank(vectors, "z", lambda: 32, lambda: vectors.vl_bytes, get, put)


def bank_v(vectors: Vectors) -> Bank:
    """V0 to V31: the low 128 bits of Z where there is Z; a write zeroes the rest of it."""
    z = bank_z(vectors)

    def get(n: int, length: int) -> bytes:
        return z[n][:length] if vectors.vcpu.mode.has_z else vectors.read(state.V + n * state.V_BYTES, length)

    def put(n: int, value: bytes) -> None:
        if vectors.vcpu.mode.has_z:
            z[n] = value
        else:
            vectors.write(state.V + n * state.V_BYTES, state.V_BYTES, value)

    return Bank(vectors, "v", lambda: 32, lambda: state.V_BYTES, get, put)


def bank_p(vectors: Vectors) -> Bank:
    """P0 to P15, an eighth of Z's length."""
    return Bank(
        vectors,
        "p",
        lambda: 16,
        lambda: vectors.vl_bytes // 8,
        lambda n, length: vectors.read(state.P + n * state.P_BYTES, length),
        lambda n, value: vectors.write(state.P + n * state.P_BYTES, state.P_BYTES, value),
    )


def bank_za(vectors: Vectors) -> Bank:
    """The rows of ZA."""

    def length() -> int:
        if vectors.vcpu.mode.sme and not vectors.vcpu.mode.za:
            raise GuestError(NO_ZA)
        return vectors.svl_bytes

    return Bank(
        vectors,
        "za",
        lambda: vectors.svl_bytes,
        length,
        lambda n, length: vectors.read(state.ZA + n * state.Z_BYTES, length),
        lambda n, value: vectors.write(state.ZA + n * state.Z_BYTES, state.Z_BYTES, value),
    )
