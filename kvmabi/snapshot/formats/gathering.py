# SPDX-License-Identifier: MIT
"""What readers of formats share: collecting one vCPU's registers, and what follows for a snapshot from all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.model.core import FPCR_ID, FPSR_ID, PLAIN, V_IDS, V_PLACES
from kvmabi.model.mode import SVCR_SM
from kvmabi.model.plan import SVCR
from kvmabi.model.row import size_of
from kvmabi.profiles import features, load_kernel
from kvmabi.snapshot import infer
from kvmabi.snapshot.lengths import SME_VLS, SVE_VLS, Lengths, lengths_bits
from kvmabi.snapshot.snapshot import Fact, Problem, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob

MOST_REGISTERS = 4096
"""More registers than any vCPU lists."""
MOST_REGISTERS_IN_ALL = 1 << 18
"""More registers than the largest VM's vCPUs have together."""
MOST_DATA_BYTES = 32 << 20
"""What their data take at most where a file can be larger than memory may be."""
MOST_VCPUS = 4096
MOST_PROBLEMS = 256
"""How many problems of one file are kept: a hostile one has a million."""
_CORE_PLACES = (
    *((id, offset, size_bytes) for id, size_bytes, offset in PLAIN),
    *V_PLACES,
    *((id, (id & 0xFFFF) * 4, size_of(id)) for id in (FPSR_ID, FPCR_ID)),
)
Shows = Callable[[infer.Registers], bool | None]
"""Whether an ID register shows an extension; None if it is absent."""


def core_places() -> tuple[tuple[int, int, int], ...]:
    """The fields of struct kvm_regs: register ID, offset and size in bytes, in the order of offsets."""
    return _CORE_PLACES


class Problems(list[Problem]):
    """The first MOST_PROBLEMS problems of one file."""

    def report(
        self, rule: str, text: str, offset: int | None = None, vcpu: int | None = None, register: int | None = None
    ) -> None:
        """Add a problem; the arguments are those of Problem."""
        if len(self) < MOST_PROBLEMS:
            self.append(Problem(rule, text, offset, vcpu, register))


class Held:
    """Counts what the vCPUs of a file hold together, so that a file of any size takes memory within limits."""

    def __init__(self) -> None:
        self.registers = 0
        self.data_bytes = 0

    def add(self, data: bytes, offset: int | None) -> None:
        """Count one more register. Raises BadBlob beyond the limits."""
        self.registers += 1
        self.data_bytes += len(data)
        if self.registers > MOST_REGISTERS_IN_ALL or self.data_bytes > MOST_DATA_BYTES:
            raise BadBlob("more registers, or larger ones, than can be held at once", offset, "too-large")

    def forget(self, registers: Mapping[int, bytes]) -> None:
        """Registers that were counted are no longer held."""
        self.registers -= len(registers)
        self.data_bytes -= sum(map(len, registers.values()))


class Gathered:
    """The registers of one vCPU, checked as they come in: size, duplicates, number. ``offsets`` are their places."""

    def __init__(self, index: int, problems: Problems) -> None:
        self.index = index
        self.problems = problems
        self.registers: dict[int, bytes] = {}
        self.offsets: dict[int, int] = {}

    def add(self, id: int, data: bytes, offset: int | None = None, *, any_size: bool = False) -> None:
        """Take in one register. A wrong size or a duplicate is a problem; of duplicates the last one counts.

        A value of a wrong size is left out, unless ``any_size`` is set. Raises BadBlob for more than MOST_REGISTERS.
        """
        if len(data) != size_of(id):
            name = regid.name_of(id)
            text = f"{name} has {len(data)} bytes of data, where its ID says {size_of(id)}"
            self.problems.report("wrong-size", text, offset, self.index, id)
            if not any_size:
                return
        if id in self.registers:
            same = "the same value" if self.registers[id] == data else "another value: the last one counts"
            text = f"{regid.name_of(id)} is there twice, the second time with {same}"
            self.problems.report("duplicate-register", text, offset, self.index, id)
        elif len(self.registers) >= MOST_REGISTERS:
            raise BadBlob(f"more than {MOST_REGISTERS} registers of one vCPU", offset, "too-large")
        self.registers[id] = data
        if offset is not None:
            self.offsets[id] = offset

    def add_number(self, id: int, value: object, offset: int | None = None) -> None:
        """Take in a register that the file has as a number, which must fit into it."""
        size_bytes = size_of(id)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 8 * size_bytes:
            shown = f"{value:#x}" if isinstance(value, int) and abs(value) < 1 << 256 else "something else"
            text = f"{regid.name_of(id)} is {shown}, which is not a number of {size_bytes} bytes"
            self.problems.report("wrong-size", text, offset, self.index, id)
            return
        self.add(id, value.to_bytes(size_bytes, "little"), offset)

    def drop_absent_v(self) -> None:
        """Leave out V0-V31 if all are zero and the vCPU has Z instead: with SVE, or in streaming mode.

        Formats with a fixed place for V store zeros there then. V that is not zero stays, for rules to judge. A vCPU
        whose Z registers are absent has lost them, which is a problem.
        """
        if not has_z(self.registers):
            return
        v_is_zero = not any(any(self.registers.get(id, b"")) for id in V_IDS)
        if not any(regid.decode(id).family == "sve" and id != SVE_VLS for id in self.registers):
            zero = "zero, and " if v_is_zero else ""
            why = "with SVE (ID_AA64PFR0_EL1.SVE)" if has_sve(self.registers) else "in streaming mode (svcr.SM)"
            text = f"V is {zero}not a register of a vCPU {why}, and Z, P and FFR are lost"
            self.problems.report("v-on-sve-vcpu", text, self.offsets.get(V_IDS[0]), self.index, V_IDS[0])
        if v_is_zero:
            for id in V_IDS:
                self.registers.pop(id, None)
                self.offsets.pop(id, None)

    def done(self, mp_state: int | None = None) -> VcpuSnapshot:
        """The vCPU."""
        offsets = self.offsets
        return VcpuSnapshot(self.index, self.registers, mp_state, offsets=(lambda: offsets) if offsets else None)


def has_sve(registers: Mapping[int, bytes]) -> bool:
    """Whether a vCPU has SVE, by its registers: KVM shows the ID field only to a vCPU with the feature."""
    return SVE_VLS in registers or bool(infer.shows_sve(registers))


def has_z(registers: Mapping[int, bytes]) -> bool:
    """Whether a vCPU has Z registers, which V is then only a view of."""
    return has_sve(registers) or bool(int.from_bytes(registers.get(SVCR, b""), "little") & SVCR_SM)


def _lengths(vcpus: Iterable[VcpuSnapshot], vls: int, shows: Shows) -> Lengths | None:
    """The lengths of the first vCPU that has the register; () if no vCPU has the extension, None if unknown."""
    shown = []
    for vcpu in vcpus:
        if data := vcpu.registers.get(vls):
            return lengths_bits(data)
        shown.append(shows(vcpu.registers))
    return () if shown and all(has is False for has in shown) else None


def finished(snapshot: Snapshot) -> Snapshot:
    """Sort the vCPUs and settle what follows from their registers: the vector lengths, and which facts are unknown.

    What a format cannot hold is not lost by a VM whose ID registers show that it does not have it.
    """
    snapshot.vcpus.sort(key=lambda vcpu: vcpu.index)
    if snapshot.sve_bits is None:
        snapshot.sve_bits = _lengths(snapshot.vcpus, SVE_VLS, infer.shows_sve)
    if snapshot.sme_bits is None:
        snapshot.sme_bits = _lengths(snapshot.vcpus, SME_VLS, infer.shows_sme)
    unknown = set(snapshot.unknown)
    if None in (snapshot.sve_bits, snapshot.sme_bits):
        unknown.add(Fact.VECTOR_LENGTHS)
    else:
        unknown.discard(Fact.VECTOR_LENGTHS)
    if snapshot.sme_bits == ():
        unknown.discard(Fact.SME)
        if snapshot.sve_bits == ():
            unknown -= {Fact.SVE, Fact.LONG_Z}
    snapshot.unknown = frozenset(unknown)
    return snapshot


FEATURES_OF = "linux-7.2"
"""The bits of struct kvm_vcpu_init that this kernel has mean the same on every other one."""


@cache
def feature_bits() -> dict[str, int]:
    """The bits of features[0] in struct kvm_vcpu_init whose meaning no kernel changes, by the features' names."""
    return {name: feature.bit for name, feature in load_kernel(FEATURES_OF).features.items()}


def features_of_word(word: int) -> frozenset[str]:
    """The features that last beyond INIT in features[0]; bits that kernels use differently are left out.

    >>> sorted(features_of_word(0b10101))
    ['psci_0_2', 'sve']
    """
    return features.lasting(name for name, bit in feature_bits().items() if word >> bit & 1)


def missing_library(name: str, what: str) -> UsageError:
    """The error for a library of the extra ``blobs`` that is not installed; ``what`` is what needs it."""
    return UsageError(f"{what} needs the Python package {name}: pip install 'kvmabi[blobs]'")
