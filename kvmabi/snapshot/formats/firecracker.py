# SPDX-License-Identifier: MIT
"""Firecracker's vmstate file: bincode (1.7 to 1.14) or bitcode (from 1.15), with a CRC64 at the end.

Most of the file describes devices, in types that change with every release. The vCPUs' register IDs are found as what
they are, long runs of IDs (``idruns``), and checked by the lengths around them; the rest is passed over. The order of
the IDs is KVM_GET_REG_LIST's at the save, and Firecracker restores in it. Of a bitcode file the features, MP states
and the interrupt controller are not read: their columns cannot be told apart without the types.
"""

from __future__ import annotations

import struct
from typing import Any

from kvmabi.snapshot.formats import fcbincode, fcbitcode
from kvmabi.snapshot.formats.format import Format
from kvmabi.snapshot.formats.gathering import Problems, features_of_word, finished, missing_library
from kvmabi.snapshot.snapshot import Fact, Origin, Snapshot
from kvmabi.snapshot.source import BadBlob, Source

MOST_BYTES = 10 << 20
"""Firecracker reads no larger file."""
CRC_BYTES = 8
CRC_MODEL = "CRC64-REDIS"
MAGICS = {0x0710_1984_AAAA_0000: "arm64", 0x0710_1984_8664_0000: "x86-64"}
VERSION_BITS = 0xFFFF
"""The part of the magic in which versionize, before 1.7, has the version of its data."""
BITCODE_HEADER = b"\0"
LONGEST_VERSION = 32
RELEASES = {
    1: "1.7",
    2: "1.8",
    3: "1.9 to 1.10",
    5: "1.11",
    6: "1.12",
    8: "1.13 to 1.14",
    9: "1.15",
    10: "1.16",
    11: "later than 1.16",
}
"""Firecracker's releases by the major version of their snapshots."""
HEAD_BYTES = 9
NEVER_HELD = frozenset({Fact.HOST, Fact.KERNEL, Fact.EVENTS})
"""Pending events are in the file, in a place that is not read."""


def _magic(head: bytes) -> tuple[int, int] | None:
    """The magic and its place, 0 in a bincode file and 1 in a bitcode file; None if there is none."""
    for at in (0, 1):
        if len(head) < at + 8 or (at and head[:at] != BITCODE_HEADER):
            continue
        magic: int = struct.unpack_from("<Q", head, at)[0]
        if magic & ~VERSION_BITS in MAGICS:
            return magic, at
    return None


def recognises(head: bytes) -> bool:
    """Whether a file begins with Firecracker's magic, of any version and architecture."""
    return _magic(head) is not None


def read(source: Source) -> Snapshot:
    """Read a vmstate file. A wrong CRC is a problem, bad-crc, and the rest is read."""
    data = source.rest(MOST_BYTES)
    magic, at = _magic(data[:HEAD_BYTES]) or (0, 0)
    architecture = MAGICS.get(magic & ~VERSION_BITS)
    if architecture != "arm64":
        raise BadBlob(f"is a snapshot of Firecracker on {architecture}, not on arm64", at, "foreign-architecture")
    if magic & VERSION_BITS:
        raise BadBlob(
            f"is a snapshot of Firecracker before 1.7 (versionize, data version {magic & VERSION_BITS}): load it with "
            "that release and save it with a newer one",
            at,
            "old-version",
        )
    problems = Problems()
    facts: dict[str, Any] = {"body": "bitcode" if at else "bincode"}
    body_at = _version(data, at, facts)
    end = max(body_at, len(data) - CRC_BYTES)
    facts["crc"] = _check_crc(data, problems)
    snapshot = Snapshot("firecracker", [], Origin.KVM, unknown=NEVER_HELD, facts=facts, problems=problems)
    body = data[:end]
    if at:
        snapshot.unknown |= {Fact.MP_STATE, Fact.FEATURES}
        snapshot.vcpus = fcbitcode.vcpus(body, body_at, problems)
    else:
        snapshot.vcpus = fcbincode.vcpus(body, body_at, problems)
    if not snapshot.vcpus:
        why = f": {problems[0].text}" if problems else ""
        raise BadBlob(f"no vCPU's registers are found{why}", body_at, "no-vcpu")
    if not at:
        _take_features(snapshot)
    return finished(snapshot)


def _version(data: bytes, at: int, facts: dict[str, Any]) -> int:
    """Read the version of the snapshot behind the magic; returns where the body begins."""
    here = at + 8
    size_bytes = 1 if at else 8
    length = int.from_bytes(data[here : here + size_bytes], "little")
    here += size_bytes
    text = data[here : here + min(length, LONGEST_VERSION)]
    if length > LONGEST_VERSION or len(text) < length or not all(byte in b"0123456789." for byte in text):
        return here
    facts["version"] = text.decode("ascii")
    major = facts["version"].partition(".")[0]
    if major and int(major) in RELEASES:
        facts["releases"] = RELEASES[int(major)]
    return here + length


def _check_crc(data: bytes, problems: Problems) -> str:
    try:
        import anycrc
    except ImportError:
        raise missing_library("anycrc", "reading a Firecracker snapshot") from None
    stored = int.from_bytes(data[-CRC_BYTES:], "little")
    computed = anycrc.Model(CRC_MODEL).calc(memoryview(data)[:-CRC_BYTES])
    if stored == computed:
        return "right"
    text = f"the CRC64 is {stored:#018x}, but that of the content is {computed:#018x}: Firecracker refuses the file"
    problems.report("bad-crc", text, max(0, len(data) - CRC_BYTES))
    return "wrong"


def _take_features(snapshot: Snapshot) -> None:
    """Target and features from struct kvm_vcpu_init of the vCPUs.

    Firecracker always sets PSCI_0_2: a struct of zeros is one that was not filled in, not the absence of features.
    """
    filled = [vcpu.facts["kvi"] for vcpu in snapshot.vcpus if any(vcpu.facts.get("kvi", {}).get("features", ()))]
    if len(filled) < len(snapshot.vcpus):
        snapshot.unknown |= {Fact.FEATURES}
        return
    snapshot.target = filled[0]["target"]
    snapshot.features = frozenset().union(*(features_of_word(kvi["features"][0]) for kvi in filled))


FORMAT = Format("firecracker", "Firecracker's vmstate", recognises, read)
