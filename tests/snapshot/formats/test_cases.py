# SPDX-License-Identifier: MIT
"""What each format is recognised by, refuses by name, and reports as a problem."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import anycrc
import pytest

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.snapshot import opening
from kvmabi.snapshot.formats import json_, lines, text
from kvmabi.snapshot.snapshot import Fact, Problem, Snapshot
from kvmabi.snapshot.source import BadBlob, Source
from snapshot import encoders
from snapshot.encoders import Registers

A57, V1 = "cortex-a57", "neoverse-v1"
X0, V0, Z0 = map(regid.parse, ("x0", "v0", "z0"))


def rules(snapshot: Snapshot) -> list[str]:
    """The rules of the problems, in their order."""
    return [problem.rule for problem in snapshot.problems]


def sealed_again(blob: bytes) -> bytes:
    """A Firecracker file with the right CRC for its content."""
    return blob[:-8] + struct.pack("<Q", anycrc.Model("CRC64-REDIS").calc(blob[:-8]))


# Firecracker


@pytest.mark.parametrize("encode", [encoders.bincode, encoders.bitcode])
def test_a_wrong_crc_is_named_and_the_rest_is_read(encode: Callable[[list[Registers]], bytes]) -> None:
    machines = encoders.saved(V1, 2)
    blob = bytearray(encode(machines))
    blob[20] ^= 1
    snapshot = opening.read_bytes(bytes(blob))
    assert rules(snapshot) == ["bad-crc"]
    assert snapshot.problems[0].offset == len(blob) - 8
    assert [vcpu.registers for vcpu in snapshot.vcpus] == machines


def test_features_and_states_of_bincode() -> None:
    """power_off does not last beyond INIT; a struct of zeros was not filled in."""
    machines = encoders.saved(V1, 2)
    snapshot = opening.read_bytes(encoders.bincode(machines, features=0b11100))
    assert (snapshot.target, snapshot.features) == (5, {"psci_0_2", "pmu_v3", "sve"})
    assert [vcpu.mp_state for vcpu in snapshot.vcpus] == [0, 3]
    assert not snapshot.unknown & {Fact.FEATURES, Fact.MP_STATE, Fact.ORDER}
    zeros = opening.read_bytes(encoders.bincode(machines[:1], features=0))
    assert zeros.features is None
    assert Fact.FEATURES in zeros.unknown


@pytest.mark.parametrize("encode", [encoders.bincode, encoders.bitcode])
def test_a_list_with_another_width_of_one_register(encode: Callable[[list[Registers]], bytes]) -> None:
    """Only the size field of one ID says something else: the data are still found, and that register is reported."""
    machines = encoders.saved(A57, 2)
    blob = encode(machines)
    sctlr = regid.parse("sctlr_el1")
    narrow = sctlr - (1 << 52)
    blob = sealed_again(blob.replace(struct.pack("<Q", sctlr), struct.pack("<Q", narrow)))
    snapshot = opening.read_bytes(blob)
    assert [(each.rule, each.register) for each in snapshot.problems] == [("wrong-size", narrow)] * 2
    assert "sctlr_el1 says 4 bytes" in snapshot.problems[0].text
    for vcpu, registers in zip(snapshot.vcpus, machines, strict=True):
        assert vcpu.registers == {id: data for id, data in registers.items() if id != sctlr}


@pytest.mark.parametrize("encode", [encoders.bincode, encoders.bitcode])
@pytest.mark.parametrize("place", [0, 1, 10, 40, 200])
def test_a_damaged_id_costs_no_other_register(encode: Callable[[list[Registers]], bytes], place: int) -> None:
    machines = encoders.saved(A57, 2)
    blob = encode(machines)
    at = blob.index(struct.pack("<Q", list(machines[0])[place]))
    snapshot = opening.read_bytes(blob[: at + 5] + b"\x40" + blob[at + 6 :])
    assert len(snapshot.vcpus) == 2
    for vcpu, registers in zip(snapshot.vcpus, machines, strict=True):
        missing = registers.keys() - vcpu.registers.keys()
        assert len(missing) <= 1
        assert all(vcpu.registers[id] == registers[id] for id in registers.keys() - missing)


def test_bitcode_without_its_lengths() -> None:
    """The lengths are overwritten: vCPUs are told apart by their first ID, the data found by plausibility."""
    machines = encoders.saved(V1, 2)
    blob = bytearray(encoders.bitcode(machines))
    ids = sum(map(len, machines))
    start = blob.index(struct.pack("<QQ", *list(machines[0])[:2]))
    blob[start - 6 : start - 1] = b"\x07" * 5
    blob[start + 8 * ids : start + 8 * ids + 7] = b"\xfe" * 7
    snapshot = opening.read_bytes(bytes(blob))
    assert [vcpu.registers for vcpu in snapshot.vcpus] == machines
    assert "malformed" in rules(snapshot)


def test_fewer_vcpus_than_a_file_states() -> None:
    machines = encoders.saved(A57, 2)
    blob = bytearray(encoders.bincode(machines))
    second = blob.rindex(struct.pack("<Q", len(machines[1])))
    del blob[second:]
    assert "missing-vcpu" in rules(opening.read_bytes(bytes(blob)))


@pytest.mark.parametrize(
    ("head", "rule", "why"),
    [
        ("0000648684191007", "foreign-architecture", "x86-64"),
        ("0300aaaa84191007", "old-version", "before 1.7"),
        ("0000aaaa84191007", "no-vcpu", "no vCPU"),
        ("000000aaaa84191007", "no-vcpu", "no vCPU"),
    ],
)
def test_other_files_of_firecracker_are_named(head: str, rule: str, why: str) -> None:
    with pytest.raises(BadBlob, match=why) as caught:
        opening.read_bytes(bytes.fromhex(head) + bytes(100))
    assert caught.value.rule == rule


# cloud-hypervisor


def test_the_other_hypervisor_is_named() -> None:
    blob = (
        encoders.cloud_hypervisor(encoders.saved(A57, 1))
        .replace(b'{\\"Kvm\\"', b'{\\"Mshv\\"')
        .replace(b"core_regs", b"regs")
    )
    with pytest.raises(BadBlob, match="mshv") as caught:
        opening.read_bytes(blob)
    assert caught.value.rule == "foreign-hypervisor"


def test_vcpus_are_found_however_they_are_nested() -> None:
    """In lists, in one string together, in a string within a string; the key's number is the vCPU's."""
    machines = encoders.saved(A57, 3)
    tree = json.loads(encoders.cloud_hypervisor(machines, "v40", in_string=False))
    vcpus = tree["snapshots"]["cpu-manager"]["snapshots"]
    states = [vcpus[str(n)]["snapshot_data"] for n in range(3)]
    for nested in (
        {"snapshots": {"vcpus": states}},
        {"snapshot_data": {"state": json.dumps({"vcpu_states": states})}},
        {"snapshot_data": json.dumps({"state": json.dumps({f"vcpu{n}": states[n] for n in (2, 0, 1)})})},
    ):
        snapshot = opening.read_bytes(json.dumps(nested).encode())
        assert [(vcpu.index, vcpu.registers) for vcpu in snapshot.vcpus] == list(enumerate(machines))
        assert all(vcpu.places for vcpu in snapshot.vcpus)


def test_v_of_a_vcpu_with_sve() -> None:
    """Zeros are no register; what is not zero stays, for rules to judge. Before v53 what Z held is lost."""
    (registers,) = encoders.saved(V1, 1)
    read = opening.read_bytes(encoders.cloud_hypervisor([registers], "v40"))
    assert V0 not in read.vcpus[0].registers
    assert rules(read) == ["v-on-sve-vcpu"]
    assert read.unknown >= {Fact.SVE, Fact.VECTOR_LENGTHS}
    read = opening.read_bytes(encoders.cloud_hypervisor([{**registers, V0: b"\1" * 16}], "v40"))
    assert read.vcpus[0].data("v0") == b"\1" * 16
    assert rules(read) == ["v-on-sve-vcpu"]


def test_a_damaged_vcpu_leaves_the_others() -> None:
    blob = encoders.cloud_hypervisor(encoders.saved(A57, 3))
    at = blob.index(b"mp_state", len(blob) // 2)
    snapshot = opening.read_bytes(blob[: at + 11] + b"]" + blob[at + 11 :])
    assert (len(snapshot.vcpus), set(rules(snapshot))) == (2, {"malformed"})


def test_a_vcpu_twice_and_a_register_twice() -> None:
    state = {"core_regs": [0] * 864, "sys_regs": [list(struct.pack("<QQ", regid.parse("midr_el1"), n)) for n in (1, 2)]}
    blob = json.dumps({"snapshots": {"a": {"7": state}, "b": {"7": state}}}).encode()
    snapshot = opening.read_bytes(blob)
    assert rules(snapshot) == ["duplicate-register", "duplicate-vcpu"]
    assert [(vcpu.index, vcpu.value("midr_el1")) for vcpu in snapshot.vcpus] == [(7, 2)]


def test_directory_of_cloud_hypervisor(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(encoders.cloud_hypervisor(encoders.saved(A57, 2)))
    (tmp_path / "config.json").write_text('{"cpus": {"boot_vcpus": 4}}')
    (tmp_path / "memory-ranges").write_bytes(bytes(9))
    snapshot = opening.read(tmp_path)
    assert rules(snapshot) == ["missing-vcpu"]
    assert snapshot.devices[-1] == {"name": "memory-ranges", "size_bytes": 9}
    (tmp_path / "state.json").unlink()
    (tmp_path / "state.json").symlink_to("config.json")
    with pytest.raises(UsageError, match="symbolic link"):
        opening.read(tmp_path)
    (tmp_path / "state.json").unlink()
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(UsageError, match="not a regular file"):
        opening.read(tmp_path)


# crosvm


def crosvm_folder(root: Path, count: int = 2) -> list[Registers]:
    """Write a snapshot's directory; returns what it holds."""
    machines = encoders.saved(A57, count)
    (root / "vcpu").mkdir()
    for index, registers in enumerate(machines):
        (root / "vcpu" / f"vcpu{index}").write_bytes(encoders.crosvm_vcpu(index, registers))
    (root / "irqchip").write_bytes(b"\xa0")
    return [encoders.held_by_crosvm(registers) for registers in machines]


def test_directory_of_crosvm(tmp_path: Path) -> None:
    machines = crosvm_folder(tmp_path, 12)
    snapshot = opening.read(tmp_path)
    assert [vcpu.registers for vcpu in snapshot.vcpus] == machines
    assert snapshot.devices == [{"name": "irqchip"}]


def test_links_in_a_directory_are_not_followed(tmp_path: Path) -> None:
    crosvm_folder(tmp_path)
    (tmp_path / "vcpu/vcpu1").unlink()
    (tmp_path / "vcpu/vcpu1").symlink_to("vcpu0")
    with pytest.raises(UsageError, match="vcpu/vcpu1 is a symbolic link"):
        opening.read(tmp_path)
    (tmp_path / "vcpu").rename(tmp_path / "other")
    (tmp_path / "vcpu").symlink_to("other")
    with pytest.raises(UsageError, match="not one that"):
        opening.read(tmp_path)


def test_an_encrypted_snapshot_is_refused(tmp_path: Path) -> None:
    crosvm_folder(tmp_path)
    (tmp_path / "enc_metadata").write_bytes(b"")
    with pytest.raises(UsageError, match="encrypted"):
        opening.read(tmp_path)
    vcpu = encoders.crosvm_vcpu(0, encoders.saved(A57, 1)[0])
    with pytest.raises(BadBlob, match="encrypted") as caught:
        opening.read_bytes(encoders.tar({"a/vcpu/vcpu0": vcpu, "a/enc_metadata": b"x"}))
    assert caught.value.rule == "encrypted"


def test_the_timer_of_crosvm_has_the_architectures_encodings() -> None:
    """0xdf02 is the counter and 0xdf1a the compare value; KVM's IDs exchange them."""
    (registers,) = encoders.saved(A57, 1)
    counter, compare = map(regid.parse, ("cntvct_el0", "cntv_cval_el0"))
    registers[counter], registers[compare] = bytes([1] * 8), bytes([2] * 8)
    (vcpu,) = opening.read_bytes(encoders.crosvm([registers])).vcpus
    assert (vcpu.registers[counter], vcpu.registers[compare]) == (bytes([1] * 8), bytes([2] * 8))
    assert (counter & 0xFFFF, compare & 0xFFFF) == (0xDF1A, 0xDF02)


def test_what_crosvm_holds_too_large_or_twice() -> None:
    (registers,) = encoders.saved(A57, 1)
    vcpu = encoders.crosvm_vcpu(0, registers)
    twice = vcpu.replace(b"\x19\xc0\x01", b"\x19\xc0\x00")
    fpsr = vcpu.replace(b"\x19\xda\x21\x1a", b"\x19\xda\x21\x3a")
    assert rules(opening.read_bytes(encoders.tar({"vcpu/vcpu0": fpsr}))) == ["wrong-size"]
    if twice != vcpu:
        assert rules(opening.read_bytes(encoders.tar({"vcpu/vcpu0": twice}))) == ["duplicate-register"]


def test_a_tar_file_that_ends_early_keeps_its_vcpus() -> None:
    blob = encoders.crosvm(encoders.saved(A57, 3))
    third = blob.index(b"snap/vcpu/vcpu2")
    snapshot = opening.read_bytes(blob[: third + 700])
    assert (len(snapshot.vcpus), rules(snapshot)) == (2, ["truncated"])
    with pytest.raises(BadBlob, match="without vcpu/vcpuN"):
        opening.read_bytes(encoders.tar({"etc/passwd": b"x"}))


# Text


def one(line: str) -> Snapshot:
    """The snapshot of two lines, the first a good one."""
    return opening.read_bytes(f"x0=0000000000000000\n{line}\n".encode())


@pytest.mark.parametrize(
    "line",
    [
        "svcr=0200000000000000",
        "SVCR : 0x0200000000000000  # ZA",
        "0x603000000013da12 0200000000000000",
        "603000000013DA12 = 0200000000000000",
        "\t0x603000000013da12 :0200000000000000\r",
        "svcr = 0200*7.",
    ],
)
def test_spellings_of_a_line(line: str) -> None:
    snapshot = one(line)
    assert snapshot.vcpus[0].value("svcr") == 2
    assert snapshot.problems == []


@pytest.mark.parametrize(
    ("line", "rule", "why"),
    [
        ("svcr=02", "wrong-size", "svcr has 2 hex digits, where its 8 bytes take 16"),
        ("svcr=0x2", "wrong-size", "svcr has 1 hex digits, where its 8 bytes take 16"),
        ("fpsr=0000000000000000", "wrong-size", "fpsr has 16 hex digits, where its 4 bytes take 8"),
        ("svrc=0200000000000000", "unknown-register", "line 2: there is no register 'svrc'"),
        ("svcr=02000000000000zz", "malformed", "line 2: '02000000000000zz' is not hex"),
        ("svcr", "malformed", "line 2, 'svcr', is not a register with a value"),
        ("x0=0100000000000000", "duplicate-register", "x0 is there twice, the second time with another value"),
        ("x0=0000000000000000", "duplicate-register", "x0 is there twice, the second time with the same value"),
    ],
)
def test_lines_that_are_problems(line: str, rule: str, why: str) -> None:
    (problem,) = one(line).problems
    assert (problem.rule, problem.offset, problem.vcpu) == (rule, 20, 0)
    assert why in problem.text


def test_a_long_comment_comes_first() -> None:
    assert opening.read_bytes(b"# about it\n" * 500 + b"x0=0000000000000000\n").format == "text"


def test_values_as_numbers() -> None:
    """The highest digit first, padded with zeros, refused if too large."""
    lines = b"svcr=0x2\nfpsr=0x100000000\npc=0000000040080000\n"
    snapshot = text.read(_source(lines), numbers=True)
    assert (snapshot.vcpus[0].value("svcr"), snapshot.vcpus[0].value("pc")) == (2, 0x40080000)
    assert rules(snapshot) == ["wrong-size"]


def _source(data: bytes) -> Source:
    import io

    return Source("text", io.BytesIO(data))


@pytest.mark.parametrize("data", [b"hello world\n", b"# only a comment\n", b"\xff\xfe", b"a,b\n1,2\n", b"\0" * 100])
def test_what_is_no_text_of_registers(data: bytes) -> None:
    with pytest.raises(BadBlob) as caught:
        opening.read_bytes(data)
    assert caught.value.rule == "unknown-format"


# JSON of ours


def test_json_by_hand() -> None:
    """Only registers: what has no value is unknown."""
    value = {"vcpus": [{"registers": [{"id": "0x603000000013da12", "data": "0300000000000000"}]}]}
    snapshot = opening.read_bytes(json.dumps(value).encode())
    assert (snapshot.format, snapshot.vcpus[0].svcr) == ("json", 3)
    assert snapshot.unknown >= {Fact.FEATURES, Fact.MP_STATE, Fact.VECTOR_LENGTHS, Fact.HOST}


def test_json_with_values_of_other_kinds() -> None:
    """Each is a problem, none an exception."""
    registers = [
        {"id": "0x603000000013da12", "data": "03"},
        {"id": 7, "data": "03"},
        {"id": "svcr", "data": "03"},
        {"id": "0x603000000013c000", "data": "zz"},
        [],
    ]
    value = {"target": "five", "sve_bits": [-1], "vcpus": [{"mp_state": [], "registers": registers}]}
    snapshot = opening.read_bytes(json.dumps(value).encode())
    assert rules(snapshot) == ["wrong-size", *["malformed"] * 7]
    assert snapshot.target is None


def test_json_keeps_serror_and_problems() -> None:
    snapshot = opening.read_bytes(encoders.bincode(encoders.saved(A57, 2)))
    snapshot.vcpus[1].serror = (True, False, 1 << 63)
    snapshot.problems = [Problem("bad-crc", "wrong", 7, 1, X0)]
    snapshot.facts["set"] = frozenset({"b", "a"})
    again = opening.read_bytes(json_.write(snapshot).encode())
    assert again.vcpus[1].serror == (True, False, 1 << 63)
    assert again.problems == snapshot.problems
    assert again.facts["set"] == ["a", "b"]
    assert json.loads(json_.write(snapshot)) == json_.document(snapshot)


@pytest.mark.parametrize("data", [b"{}", b"{", b'{"vcpus": []}', b'{"vcpus": [{"registers": 1}]} x'])
def test_other_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadBlob):
        opening.read_bytes(data)


# Traces and logs


def test_a_trace_is_what_was_read_since_the_list() -> None:
    """Reads before the list, of an older VM and ones that failed do not count; writes are not read."""
    steps = """
# host sme-v12.sve256_sme512
# kernel linux-7.2
N 1	OK
G 0 6030000000100002	OK 01*8.
N 2	OK
I 0 5 14	OK
I 1 5 15	OK
G 0 6030000000100004	OK 02*8.
L 0 9	E2BIG 1
L 0 9	OK 1 6030000000100000
G 0 6030000000100000	OK 07*8.
G 0 6030000000100006	ENOENT
S 0 6030000000100008 00*8.	OK
get 1 6030000000100000	OK 0807*7.
"""
    snapshot = opening.read_bytes(steps.lstrip().encode())
    assert [(vcpu.index, vcpu.registers) for vcpu in snapshot.vcpus] == [
        (0, {X0: b"\7" * 8}),
        (1, {X0: b"\10" + b"\7" * 7}),
    ]
    assert (snapshot.host, snapshot.kernel, snapshot.target) == ("sme-v12.sve256_sme512", "linux-7.2", 5)
    assert snapshot.features == {"psci_0_2", "sve"}
    assert snapshot.problems == []


def test_a_trace_without_reads_holds_no_vcpu() -> None:
    for data in (b"# host x\nN 1\tOK\nS 0 6030000000100000 00*8.\tOK\n", b"3 VM 1 vCPU 0 KVM_RUN: EINTR: x\n"):
        with pytest.raises(BadBlob, match="holds no vCPU") as caught:
            opening.read_bytes(data)
        assert caught.value.rule == "no-vcpu"


def test_a_kernel_that_a_trace_names_is_not_a_path(tmp_path: Path) -> None:
    profile = tmp_path / "k.toml"
    profile.write_text("broken")
    snapshot = opening.read_bytes(
        f"# host x\n# kernel {profile}\nN 1\tOK\nI 0 5 4\tOK\nG 0 6030000000100000\tOK 00*8.\n".encode()
    )
    assert snapshot.features == {"psci_0_2"}


def test_a_log_that_this_package_writes() -> None:
    """The lines of the events of a save: the snapshot is that vCPU's state."""
    import kvmabi

    with kvmabi.open(host="sme-demo") as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sve", "sme"})
        vcpu.finalize()
        vcpu["svcr"] = 2
        state = {id: vcpu[id] for id in vcpu.reg_list()}
        log = "".join(f"{event}\n" for event in kvm.log.events)
    (read,) = opening.read_bytes(log.encode()).vcpus
    assert list(read.registers.items()) == list(state.items())


# All


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format that needs a library of the extra says which, and that the extra has it."""
    import sys

    machines = encoders.saved(A57, 1)
    blobs = {"orjson": encoders.cloud_hypervisor(machines), "cbor2": encoders.crosvm(machines)}
    for library, blob in {**blobs, "anycrc": encoders.bincode(machines)}.items():
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(UsageError, match=rf"{library}: pip install 'kvmabi\[blobs\]'"):
            opening.read_bytes(blob)


def test_json_keeps_a_value_of_a_wrong_size() -> None:
    """It is a problem, and the register stays, so that what a reader of another format saw is not lost on the way."""
    registers = [{"id": "0x603000000013da12", "data": "03"}]
    snapshot = opening.read_bytes(json.dumps({"vcpus": [{"registers": registers}]}).encode())
    assert rules(snapshot) == ["wrong-size"]
    assert snapshot.vcpus[0].registers == {0x603000000013DA12: b"\3"}


def test_a_compressed_text_of_very_many_lines_is_refused() -> None:
    """A few kilobytes unpack to hours of lines; the same text as it is costs what its size allows."""
    content = b"svcr=0200000000000000\n" + b"#\n" * (lines.MOST_PACKED_LINES + 70_000)
    assert opening.read_bytes(content).vcpus[0].svcr == 2
    with pytest.raises(BadBlob, match="unpack it first"):
        opening.read_bytes(gzip.compress(content, 1))
