# SPDX-License-Identifier: MIT
"""crosvm's snapshots: a directory with a file ``vcpu/vcpuN`` of CBOR for each vCPU, or a tar file of such a directory.

System registers stand by the 16 bits of their encoding. Nine of those are core registers for KVM, and the counter and
the compare value of the virtual timer have the encodings of the architecture, which KVM's IDs exchange. Only V is kept
of the vectors. The maps are sorted by key: their order says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kvmabi import regid, uapi
from kvmabi.model.core import V_IDS
from kvmabi.snapshot.formats import cborskim, folders, tar
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.gathering import MOST_REGISTERS_IN_ALL, Gathered, Problems, finished, missing_library
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob, Source

ENCRYPTED = "enc_metadata"
"""The file whose presence says that the others are encrypted."""
VCPU_FOLDER = "vcpu"
_VCPU_NAME = re.compile(r"vcpu([0-9]{1,4})")
_VCPU_PATH = re.compile(rf"(.*/|){VCPU_FOLDER}/{_VCPU_NAME.pattern}")
_ENCRYPTED_PATH = re.compile(rf"(.*/|){ENCRYPTED}")

CORE_OF = {
    0xE208: "sp_el1",
    0xC201: "elr_el1",
    0xC200: "spsr_el1",
    0xE219: "spsr_abt",
    0xE21A: "spsr_und",
    0xE218: "spsr_irq",
    0xE21B: "spsr_fiq",
    0xDA20: "fpcr",
    0xDA21: "fpsr",
}
"""The encodings of system registers that are core registers for KVM."""
TIMER_OF = {0xDF02: "cntvct_el0", 0xDF1A: "cntv_cval_el0"}
"""The encodings that KVM's IDs exchange."""
_SYSTEM_REGISTER = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG
_IDS = {encoding: regid.parse(name) for encoding, name in {**CORE_OF, **TIMER_OF}.items()}
_CCSIDR = regid.parse("ccsidr[0]")
_MOST_CCSIDR = uapi.KVM_REG_ARM_DEMUX_VAL_MASK
_X_COUNT = 31
_WORD = 1 << 16
UNKNOWN = frozenset(
    {
        *(Fact.VECTOR_LENGTHS, Fact.FEATURES, Fact.HOST, Fact.KERNEL, Fact.ORDER, Fact.MP_STATE, Fact.EVENTS),
        *(Fact.SVE, Fact.SME, Fact.LONG_Z, Fact.FIRMWARE_BITMAPS),
    }
)


class Fragment(NamedTuple):
    """A vCPU's file: the number in its name, its bytes, and where they stand in the whole."""

    number: int
    data: bytes
    start: int


def read(source: Source) -> Snapshot:
    """Read a tar file of a snapshot's directory."""
    fragments: list[Fragment] = []
    problems = Problems()
    facts: dict[str, Any] = {"container": "tar"}
    devices: list[dict[str, Any]] = []
    try:
        for member in tar.members(source):
            if _ENCRYPTED_PATH.fullmatch(member.path):
                raise _encrypted(member.at)
            if match := _VCPU_PATH.fullmatch(member.path):
                fragments.append(_fragment(source, member, int(match[2])))
                if sum(len(fragment.data) for fragment in fragments) > cborskim.MOST_BYTES * 2:
                    raise BadBlob("the vCPUs' files are too large", member.at, "too-large")
            elif len(devices) < _WORD >> 4:
                devices.append({"name": member.path[:200], "size_bytes": member.size_bytes})
    except BadBlob as error:
        if not fragments or error.rule == "encrypted":
            raise
        problems.report(error.rule, f"{error.text}: what follows in the tar file is not read", error.offset)
    if not fragments:
        raise BadBlob("is a tar file without vcpu/vcpuN: no snapshot of crosvm", 0, "no-vcpu")
    snapshot = _snapshot(iter(fragments), problems)
    snapshot.facts, snapshot.devices = facts, devices
    return snapshot


def read_folder(root: Path) -> Snapshot | None:
    """Read a snapshot's directory; None if it has no file vcpu/vcpuN."""
    numbers = [int(match[1]) for name in folders.names(root, VCPU_FOLDER) if (match := _VCPU_NAME.fullmatch(name))]
    if not numbers:
        return None
    files = folders.names(root)
    if ENCRYPTED in files:
        raise _encrypted(None)
    snapshot = _snapshot(_fragments(root, sorted(numbers)), Problems())
    snapshot.facts = {"container": "directory"}
    snapshot.devices = [{"name": name} for name in files if name != VCPU_FOLDER]
    return snapshot


def _encrypted(offset: int | None) -> BadBlob:
    return BadBlob("the snapshot is encrypted (enc_metadata is there): decrypt it with crosvm", offset, "encrypted")


def _fragment(source: Source, member: tar.Member, index: int) -> Fragment:
    if member.size_bytes > cborskim.MOST_BYTES:
        raise BadBlob(f"{member.path} is larger than {cborskim.MOST_BYTES >> 20} MiB", member.at, "too-large")
    return Fragment(index, source.take(member.size_bytes), member.at)


def _fragments(root: Path, numbers: list[int]) -> Iterator[Fragment]:
    for number in numbers:
        with folders.opened(root, VCPU_FOLDER, f"vcpu{number}") as file:
            yield Fragment(number, Source(f"vcpu{number}", file).rest(cborskim.MOST_BYTES), 0)


def _snapshot(fragments: Iterator[Fragment], problems: Problems) -> Snapshot:
    try:
        import cbor2
    except ImportError:
        raise missing_library("cbor2", "reading a snapshot of crosvm") from None
    snapshot = Snapshot("crosvm", [], Origin.KVM, unknown=UNKNOWN, problems=problems)
    seen: set[int] = set()
    total = 0
    for fragment in fragments:
        try:
            vcpu = _vcpu(fragment, cbor2.loads, cbor2.CBORDecodeError, problems)
        except BadBlob as error:
            offset = None if error.offset is None else fragment.start + error.offset
            raise BadBlob(f"vcpu{fragment.number}: {error.text}", offset, error.rule) from None
        total += len(vcpu.registers)
        if total > MOST_REGISTERS_IN_ALL:
            raise BadBlob("more registers than the vCPUs of any VM have", fragment.start, "too-large")
        if vcpu.index in seen:
            problems.report("duplicate-vcpu", f"vCPU {vcpu.index} is there twice: the first one counts", fragment.start)
            continue
        seen.add(vcpu.index)
        snapshot.vcpus.append(vcpu)
    return finished(snapshot)


def _vcpu(
    fragment: Fragment, loads: Callable[[bytes], Any], damaged: type[Exception], problems: Problems
) -> VcpuSnapshot:
    skimmed = cborskim.skim(fragment.data)
    try:
        item = loads(fragment.data)
    except (damaged, ValueError, EOFError, OverflowError, TypeError, RecursionError) as error:
        raise BadBlob(f"is not CBOR: {str(error)[:80]}", 0) from None
    if not isinstance(item, dict) or not isinstance(item.get("sys"), dict):
        raise BadBlob("is not a vCPU of crosvm: no map with the key sys", 0)
    gathered = Gathered(fragment.number, problems)
    if item.get("vcpu_id") not in (fragment.number, None):
        text = f"the file of vCPU {fragment.number} has the number of another one"
        problems.report("malformed", text, fragment.start, fragment.number)

    def add(id: int, value: object, *place: cborskim.Key) -> None:
        offset = skimmed.places.get((place[0], place[1]))
        gathered.add_number(id, value, None if offset is None else fragment.start + offset)

    for name in ("sp", "pc", "pstate"):
        if name in item:
            add(regid.parse(name), item[name], "", name)
    for name, ids in (("x", [regid.parse(f"x{n}") for n in range(_X_COUNT)]), ("v", list(V_IDS))):
        for number, (id, value) in enumerate(zip(ids, _list(item, name, problems, gathered.index), strict=False)):
            add(id, value, name, number)
    for key, value in _numbers(item["sys"], _WORD, "sys", problems, gathered.index):
        add(_IDS.get(key, _SYSTEM_REGISTER | key), value, "sys", key)
    for key, value in _numbers(
        item.get("cache_arch_info"), _MOST_CCSIDR + 1, "cache_arch_info", problems, gathered.index
    ):
        add(_CCSIDR + key, value, "cache_arch_info", key)
    data = item.get("hypervisor_data")
    firmware = data.get("firmware_regs") if isinstance(data, dict) else None
    for key, value in _numbers(firmware, _WORD, "firmware_regs", problems, gathered.index):
        add(int(uapi.KVM_REG_ARM_FW_REG(key)), value, "firmware_regs", key)
    for within, twice in skimmed.twice:
        text = f"{within}{f'[{twice:#x}]' if isinstance(twice, int) else twice} is there twice: the last one counts"
        problems.report("duplicate-register", text, fragment.start, gathered.index)
    gathered.drop_absent_v()
    return gathered.done()


def _list(item: dict[Any, Any], name: str, problems: Problems, index: int) -> list[object]:
    values = item.get(name)
    due = _X_COUNT if name == "x" else len(V_IDS)
    if isinstance(values, list):
        if len(values) != due:
            problems.report("malformed", f"{name} has {len(values)} values, not {due}", vcpu=index)
        return values
    problems.report("malformed", f"{name} is missing, or no list", vcpu=index)
    return []


def _numbers(table: object, limit: int, name: str, problems: Problems, index: int) -> Iterator[tuple[int, object]]:
    """The entries of a map by number; others are problems."""
    if table is None:
        return
    if not isinstance(table, dict):
        problems.report("malformed", f"{name} is not a map", vcpu=index)
        return
    for key, value in table.items():
        if isinstance(key, int) and 0 <= key < limit:
            yield key, value
        else:
            problems.report(
                "unknown-register", f"{name} has the key {str(key)[:40]}, which is not a register", vcpu=index
            )


FORMAT = Format("crosvm", "crosvm's snapshot directory", tar.recognises, read, read_folder)
