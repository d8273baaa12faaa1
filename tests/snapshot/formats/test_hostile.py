# SPDX-License-Identifier: MIT
"""Damaged and hostile files: BadBlob or a read, nothing else, within the limits of time and memory."""

from __future__ import annotations

import lzma
import os
import random
import resource
import time

import cbor2
import pytest

from kvmabi.errors import UsageError
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import cborskim, json_, jsonspans, text
from kvmabi.snapshot.source import BadBlob
from snapshot import encoders
from snapshot.formats.test_samples import DATA, SAMPLES

MOST_KIB = 64 << 10
MOST_SECONDS = 2.0
"""For 1 MiB."""
MIB = 1 << 20


def log_and_trace() -> tuple[bytes, bytes]:
    """The reads of one vCPU, as a trace of steps and as a log."""
    (registers,) = encoders.saved("cortex-a57", 1)
    reads = [f"G 0 {id:x}\tOK {data.hex()}\n" for id, data in registers.items()]
    events = [
        f"{n} VM 1 vCPU 0 KVM_GET_ONE_REG {id:#x} = {data.hex()}: OK\n"
        for n, (id, data) in enumerate(registers.items())
    ]
    return "".join(["# host cortex-a57\nN 1\tOK\nL 0 9\tOK 0\n", *reads]).encode(), "".join(events).encode()


def blobs() -> dict[str, bytes]:
    """A blob of every format."""
    found = {name: lzma.decompress((DATA / f"{name}.xz").read_bytes()) for name in SAMPLES}
    snapshot = opening.read_bytes(found["fc15-a57-badcrc.vmstate"])
    trace, log = log_and_trace()
    written = {"json": json_.write(snapshot).encode(), "text": text.write(snapshot).encode()}
    return {**found, **written, "trace": trace, "log": log}


BLOBS = blobs()
STRANGE = (
    b"[",
    b"{",
    b'"',
    b"[" * 100,
    b"\\",
    b"\x9b" + b"\xff" * 8,
    b"\x5f",
    b"9" * 30,
    b"1e999",
    b"-1",
    b"*999999999.",
)


def mutated(random: random.Random, blob: bytes) -> bytes:
    """The blob with some bytes changed, removed, repeated or put in."""
    out = bytearray(blob)
    for _ in range(random.choice((1, 1, 2, 8))):
        at, length = random.randrange(len(out) + 1), random.randrange(1, 400)
        match random.randrange(6):
            case 0:
                out[at : at + 1] = random.randbytes(1)
            case 1:
                out[at : at + 8] = random.choice((b"\xff" * 8, bytes(8), (1 << 32).to_bytes(8, "little")))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at:at] = random.choice(STRANGE)
            case _:
                del out[at:]
    return bytes(out)


def read(blob: bytes) -> str:
    """How a read ends; anything but BadBlob, UsageError or a snapshot is an error of the test."""
    started = time.perf_counter()
    try:
        for vcpu in opening.read_bytes(blob).vcpus:
            assert len(vcpu.places) <= len(vcpu.registers)
        outcome = "read"
    except (BadBlob, UsageError):
        outcome = "refused"
    assert time.perf_counter() - started < MOST_SECONDS * max(1, len(blob) / MIB)
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOBS)
def test_truncated_anywhere(name: str) -> None:
    blob = BLOBS[name]
    ends = {*range(0, len(blob), 1 + len(blob) // 300), *range(len(blob) - 40, len(blob))}
    assert "refused" in {read(blob[:end]) for end in ends}


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOBS)
def test_mutated_anywhere(name: str) -> None:
    source = random.Random(name)
    assert {read(mutated(source, BLOBS[name])) for _ in range(300)} == {"read", "refused"}


def _state(inner: bytes) -> bytes:
    return b'{"snapshots": {"0": {"core_regs": ' + inner + b"}}}"


BOMBS = {
    "json, open brackets": b'{"snapshots": ' + b"[" * MIB,
    "json, empty arrays": b'{"snapshots": [' + b"[]," * (MIB // 3) + b"]}",
    "json, empty objects": _state(b"[" + b"{}," * (MIB // 3) + b"0]"),
    "json, numbers": _state(b"[" + b"1," * (MIB // 2) + b"1]"),
    "json, escapes": b'{"snapshots": "core_regs' + b'\\"' * (MIB // 2) + b'"}',
    "json, strings in it": b'{"snapshots": [' + b'"core_regs%s",' % (b"x" * 80) * (MIB // 92) + b"0]}",
    "json, one long number": _state(b"9" * MIB),
    "json, many vCPUs": b'{"snapshots": [' + b'{"core_regs":[]},' * (MIB // 17) + b"0]}",
    "json of ours, empty registers": b'{"vcpus": [' + b'{"registers": []},' * (MIB // 19) + b"0]}",
    "json of ours, beside the vCPUs": b'{"vcpus": [{"registers": []}], "facts": [' + b"[]," * (MIB // 3) + b"0]}",
    "text, one line": b"x0=" + b"0" * 2 * MIB,
    "text, one register": b"x0=0000000000000000\n" * (MIB // 20),
    "text, runs": b"z0=00*256.\n" * (MIB // 11),
    "text, vCPUs": b"x0=0000000000000000\n" + b"[vcpu 1]\n[vcpu 2]\n[vcpu 3]\n" * (MIB // 27),
    "trace, VMs": b"# host x\n" + b"N 1\tOK\nG 0 6030000000100000\tOK 00*8.\n" * (MIB // 40),
    "log, vCPUs": b"".join(b"1 VM %d vCPU %d KVM_GET_ONE_REG x0 = 00*8.: OK\n" % (n, n) for n in range(MIB // 52)),
    "bincode, short runs": bytes.fromhex("0000aaaa84191007")
    + bytes(16)
    + (bytes.fromhex("0000100000003060") * 15 + bytes(8)) * (MIB // 128),
    "bincode, 0x60": bytes.fromhex("0000aaaa84191007") + b"\x60" * MIB,
    "bincode, one long run": bytes.fromhex("0000aaaa84191007")
    + bytes(16)
    + bytes.fromhex("0000100000003060") * (MIB // 8),
    "bitcode, one ID": bytes.fromhex("000000aaaa84191007") + bytes(16) + bytes.fromhex("0000100000003060") * (MIB // 8),
    "bitcode, zeros": bytes.fromhex("000000aaaa84191007") + bytes(MIB),
    "tar, members": encoders.tar({f"vcpu/x{n}": b"" for n in range(2000)}),
    "cbor, items": encoders.tar({"vcpu/vcpu0": b"\x9a\x00\x0f\xff\xff" + b"\0" * 0xFFFFF}),
    "cbor, nesting": encoders.tar({"vcpu/vcpu0": b"\x81" * MIB}),
    "cbor, a large number": encoders.tar({"vcpu/vcpu0": b"\xc2\x5a\x00\x0f\x00\x00" + bytes([1]) * 0xF0000}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_little_time_and_memory(name: str) -> None:
    """About 1 MiB each: under 2 s and 64 MiB, in a process of its own."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            read(BOMBS[name])
            code = 2 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MOST_KIB)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x9f\xff", "indefinite"),
        (b"\xa1\x80\x01", "key"),
        (b"\xd8\x23\x41\x00", "tag 35"),
        (b"\xc2\x58\x20" + bytes(32), "128 bits"),
        (b"\x82\x01", "items are expected"),
        (b"\x44abc", "are left"),
        (b"\x01\x01", "follow"),
        (b"", "ends in the middle"),
        (b"\x19\x01", "ends in the middle"),
        (b"\x81" * 20 + b"\x01", "deeper"),
        (b"\x9a\xff\xff\xff\xff", "items are expected"),
    ],
)
def test_cbor_that_no_vcpu_consists_of_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadBlob, match=why):
        cborskim.skim(data)


def test_skim_finds_what_cbor2_reads() -> None:
    """Places of a real vCPU's values: the item that begins there is the value."""
    (registers,) = encoders.saved("cortex-a57", 1)
    data = encoders.crosvm_vcpu(0, registers)
    item = cbor2.loads(data)
    places = cborskim.skim(data).places
    for within in ("sys", "cache_arch_info", "v", "x"):
        values = item[within].items() if isinstance(item[within], dict) else enumerate(item[within])
        for key, value in values:
            at = places[within, key]
            assert data[at:].startswith(cbor2.dumps(value))


def test_a_json_text_is_walked_through_to_its_end() -> None:
    with pytest.raises(BadBlob, match="ends in the middle"):
        list(jsonspans.spans(b'{"a": [1, 2', set()))
    with pytest.raises(BadBlob, match="more text follows"):
        list(jsonspans.spans(b"{} {}", set()))
    with pytest.raises(BadBlob, match="none opened"):
        list(jsonspans.spans(b"]", set()))
