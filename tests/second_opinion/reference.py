# SPDX-License-Identifier: MIT
"""A second opinion: modes, sizes, vector lengths and zeroing as the ABI's public documents specify them.

Written from https://docs.kernel.org/virt/kvm/api.html (KVM_ARM_VCPU_INIT, KVM_ARM_VCPU_FINALIZE, KVM_SET_ONE_REG), the
additions of the SME series, and the Arm ARM's description of SVCR. It shares no code with the model and is short enough
to read in one sitting: a dictionary of bytes and five rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SM, ZA = 1, 2
ARM64, SYSREG = 0x6 << 60, 0x13 << 16
SVE, SME = 0x15 << 16, 0x17 << 16


def size(log2: int) -> int:
    return log2 << 52


Z = [ARM64 | size(8) | SVE | n << 5 for n in range(32)]
P = [ARM64 | size(5) | SVE | 0x400 | n << 5 for n in range(16)]
FFR = ARM64 | size(5) | SVE | 0x600
SVE_VLS = ARM64 | size(6) | SVE | 0xFFFF
ROWS = [ARM64 | size(8) | SME | n << 5 for n in range(256)]
ZT0 = ARM64 | size(6) | SME | 0x600
SME_VLS = ARM64 | size(6) | SME | 0xFFFE
SVCR = ARM64 | size(3) | SYSREG | 3 << 14 | 3 << 11 | 4 << 7 | 2 << 3 | 2
VECTORS = {*Z, *P, FFR}


def size_bytes(id: int) -> int:
    return 1 << (id >> 52 & 15)


def vls(vqs: set[int]) -> bytes:
    """A set of vector lengths in quadwords, in the format of SVE_VLS and SME_VLS."""
    return sum(1 << (vq - 1) for vq in vqs).to_bytes(64, "little")


@dataclass
class Reference:
    """One vCPU with SVE, SME or both, on a host with these vector lengths in quadwords."""

    host: dict[int, set[int]]
    sve: bool
    sme: bool
    sme2: bool
    fa64: bool
    finalized: bool = False
    svcr: int = 0
    lengths: dict[int, set[int]] = field(default_factory=dict)
    values: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lengths = {id: set(self.host[id]) for id in (SVE_VLS, SME_VLS) if self.has(id)}

    def has(self, id: int) -> bool:
        return self.sve if id == SVE_VLS else self.sme

    def init_again(self) -> None:
        """INIT resets registers, and the vector lengths unless FINALIZE has fixed them."""
        self.svcr, self.values = 0, {}
        if not self.finalized:
            self.__post_init__()

    def finalize(self) -> str:
        """FINALIZE succeeds once."""
        if self.finalized:
            return "EPERM"
        self.finalized = True
        return "OK"

    def refusal(self, id: int) -> str:
        """The errno of an access to a register now; "" if it succeeds."""
        if id in (SVE_VLS, SME_VLS):
            return "" if self.has(id) else "ENOENT"
        if id == SVCR:
            return "" if self.sme else "ENOENT"
        if id in VECTORS:
            streaming = self.svcr & SM
            if not (self.sve or streaming) or (id == FFR and streaming and not self.fa64):
                return "ENOENT"
            return "" if self.finalized else "EPERM"
        if not self.sme or (id == ZT0 and not self.sme2):
            return "ENOENT"
        if id != ZT0 and ROWS.index(id) >= max(self.lengths[SME_VLS]) * 16:
            return "EINVAL"
        if not self.svcr & ZA:
            return "EBUSY"
        return "" if self.finalized else "EPERM"

    def valid_bytes(self, id: int) -> int:
        """The number of bytes of a register that are valid; the rest of the transfer is zero."""
        if id not in VECTORS and id not in ROWS:
            return size_bytes(id)
        streaming = id in ROWS or self.svcr & SM
        vl = max(self.lengths[SME_VLS if streaming else SVE_VLS]) * 16
        return vl // 8 if id in P or id == FFR else vl

    def get(self, id: int) -> tuple[str, bytes]:
        """The result of KVM_GET_ONE_REG and the bytes."""
        refused = self.refusal(id)
        if refused:
            return refused, b""
        if id in (SVE_VLS, SME_VLS):
            return "OK", vls(self.lengths[id])
        if id == SVCR:
            return "OK", self.svcr.to_bytes(8, "little")
        return "OK", self.values.get(id, b"").ljust(size_bytes(id), b"\0")

    def set(self, id: int, data: bytes) -> str:
        """The result of KVM_SET_ONE_REG."""
        refused = self.refusal(id)
        if refused:
            return refused
        if id in (SVE_VLS, SME_VLS):
            return self._set_lengths(id, data)
        if id == SVCR:
            return self._set_svcr(int.from_bytes(data, "little"))
        self.values[id] = data[: self.valid_bytes(id)]
        return "OK"

    def _set_lengths(self, id: int, data: bytes) -> str:
        """Before FINALIZE: only the host's set up to one of its members is accepted."""
        if self.finalized:
            return "EPERM"
        allowed = {vls({vq for vq in self.host[id] if vq <= most}): most for most in self.host[id]}
        if data not in allowed:
            return "EINVAL"
        self.lengths[id] = {vq for vq in self.host[id] if vq <= allowed[data]}
        return "OK"

    def _set_svcr(self, value: int) -> str:
        """A change of SM zeroes Z, P and FFR; setting ZA zeroes ZA and ZT0; other bits are reserved."""
        if value & ~(SM | ZA):
            return "EINVAL"
        if (value ^ self.svcr) & SM:
            self.values = {id: data for id, data in self.values.items() if id not in VECTORS}
        if value & ~self.svcr & ZA:
            self.values = {id: data for id, data in self.values.items() if id in VECTORS}
        self.svcr = value
        return "OK"
