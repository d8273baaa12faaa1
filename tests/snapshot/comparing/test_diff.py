# SPDX-License-Identifier: MIT
"""Differences between snapshots, lists, logs and hosts, and what they mean for a migration."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi import regid, uapi
from kvmabi.errors import UsageError
from kvmabi.profiles import sysregs
from kvmabi.snapshot.comparing import meaning
from kvmabi.snapshot.comparing.diff import diff
from kvmabi.snapshot.comparing.difference import Diff, Effect, Kind
from kvmabi.snapshot.snapshot import Origin, Snapshot, VcpuSnapshot
from snapshot.streams import snapshot, stream

LOG = "system register 0x1013c096 in the incoming stream but unknown on the destination: fail migration\n"


def names(found: Diff, kind: Kind) -> set[str]:
    """The registers with a difference of one kind."""
    return {regid.name_of(id) for one in found.of(kind) for id in one.registers}


def one_register(id: int, value: int) -> Snapshot:
    """A snapshot with one register of 64 bits."""
    return Snapshot("text", [VcpuSnapshot(0, {id: value.to_bytes(8, "little")})])


def only(found: Diff, name: str) -> Effect:
    """The effect of the difference in one register."""
    (effect,) = {one.effect for one in found.differences if regid.parse(name) in one.registers}
    return effect


@pytest.mark.slow
def test_newer_kernel_to_older() -> None:
    """Linux 7.2 to 6.12 on one machine: two registers too many, one of which QEMU 11.1 tolerates, as its value is 0."""
    found = diff(stream("k72-q100-sve256"), stream("k612-q100-sve256"))
    assert names(found, Kind.ONLY_A) == {"sctlr2_el1", "vendor_hyp_bmap_2"}
    assert not found.of(Kind.ONLY_B)
    assert only(found, "sctlr2_el1") is Effect.REFUSED
    assert only(found, "vendor_hyp_bmap_2") is Effect.TOLERATED
    assert "linux-6.12" not in (found.differences[0].kernels or ())
    assert {"linux-7.2", "linux-7.3"} <= set(found.differences[0].kernels or ())


@pytest.mark.slow
def test_older_kernel_to_newer() -> None:
    """The reverse passes, and the two registers keep their reset values; 6.1 to 6.12 adds 17."""
    found = diff(stream("k612-q100-sve256"), stream("k72-q100-sve256"))
    assert names(found, Kind.ONLY_B) == {"sctlr2_el1", "vendor_hyp_bmap_2"}
    assert {one.effect for one in found.of(Kind.ONLY_B)} == {Effect.RESET}
    older = diff(stream("k61-q72-sve256"), stream("k612-q100-sve256"))
    assert len(names(older, Kind.ONLY_B)) == 17
    assert not older.of(Kind.ONLY_A)


@pytest.mark.slow
def test_registers_that_left_with_linux_6_13() -> None:
    """A Cortex-A57 under 6.12 to one under 7.3: exactly three are unknown there, and two more are added."""
    found = diff(stream("k612-q111-a57"), host="cortex-a57", kernel="linux-7.3")
    assert names(found, Kind.ONLY_A) == {"tcr2_el1", "pir_el1", "pire0_el1"}
    assert {one.tolerated for one in found.of(Kind.ONLY_A)} == {("QEMU 11.1",)}
    added = {name for name in names(found, Kind.ONLY_B) if regid.decode(regid.parse(name)).family != "core"}
    assert added == {"pmmir_el1", "vendor_hyp_bmap_2"}
    assert not found.refused


@pytest.mark.slow
def test_another_cpu() -> None:
    """A Cortex-A57's guest to a Neoverse N2: MIDR_EL1 by its fields, and what else that host refuses, asked of it."""
    found = diff(stream("k612-q111-a57"), host="neoverse-n2", kernel="linux-7.3")
    assert {"midr_el1", "id_aa64dfr0_el1"} <= {regid.name_of(id) for one in found.refused for id in one.registers}
    (midr,) = (one for one in found.differences if one.registers == (regid.parse("midr_el1"),))
    assert "PartNum (bits 15:4): 0xd07 -> 0xd49" in map(str, midr.parts)
    assert midr.consequence.startswith("EINVAL: ")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["k612-q100-sve256", "k612-q111-a57", "k72-q100-sve256", "k61-q72-sve256"])
def test_a_snapshot_equals_itself(name: str) -> None:
    """No difference, and exit status 0 of the command."""
    found = diff(stream(name), stream(name))
    assert found.equal
    assert found.text().endswith("A and B are equal in all that was compared\n")


@given(st.integers(0, 2**64 - 1), st.sampled_from(sorted(sysregs.free_running_ids())))
def test_free_running_counters_never_differ(value: int, id: int) -> None:
    """Whatever their values."""
    assert diff(one_register(id, 0), one_register(id, value)).equal


@given(st.sampled_from(sorted(sysregs.status_bits())), st.integers(0, 2**64 - 1))
def test_status_bits_never_differ(id: int, value: int) -> None:
    """Any other bit of the register does."""
    status = sysregs.status_bits()[id]
    assert diff(one_register(id, 0), one_register(id, value)).equal == (not value & ~status)


@given(st.binary(min_size=256, max_size=256), st.binary(min_size=256, max_size=256))
def test_ranges_of_bytes(a: bytes, b: bytes) -> None:
    """Every byte that differs is in a range, and each range begins and ends with one."""
    found = [text.split()[1].split("-") for text in meaning.byte_ranges(a, b)]
    runs = [(int(run[0]), int(run[-1])) for run in found]
    differ = {n for n in range(256) if a[n] != b[n]}
    assert differ <= {n for first, last in runs for n in range(first, last + 1)}
    assert {n for run in runs for n in run} <= differ


def test_vectors_fold_by_their_bytes() -> None:
    """Rows of ZA that differ in the same bytes are one difference; others are apart."""
    rows = {f"za.h[{n}]": 0xFF << 8 * 16 for n in range(8)}
    found = diff(snapshot({"svcr": 2, **rows}), snapshot({"svcr": 2, **dict.fromkeys(rows, 0), "za.h[7]": 1}))
    assert [(one.name, [part.name for part in one.parts]) for one in found.differences] == [
        ("za.h[0-6]", ["byte 16"]),
        ("za.h[7]", ["byte 0", "byte 16"]),
    ]


def test_fields_of_id_registers() -> None:
    """By name and rule; more than the destination shows is not safe, less is."""
    more, less = snapshot({"id_aa64pfr1_el1": 2 << 24}), snapshot({"id_aa64pfr1_el1": 1 << 24})
    (one,) = diff(more, less).differences
    assert [str(part) for part in one.parts] == ["SME (bits 27:24) (FTR_LOWER_SAFE): 0x2 -> 0x1"]
    assert one.effect is Effect.REFUSED
    assert only(diff(less, more), "id_aa64pfr1_el1") is Effect.ACCEPTED


def test_bits_of_svcr() -> None:
    """SM and ZA by name, without a rule."""
    (one,) = diff(snapshot({"svcr": 1}), snapshot({"svcr": 2})).differences
    assert [str(part) for part in one.parts] == ["ZA (bit 1): 0x0 -> 0x1", "SM (bit 0): 0x1 -> 0x0"]


def test_another_width() -> None:
    """The same register under an ID of another size is one difference, not two registers."""
    id = regid.parse("x3")
    narrow = id & ~uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_SIZE_U32
    a, b = snapshot({"x3": 1}), snapshot({})
    b.vcpus[0].registers[narrow] = bytes(4)
    (one,) = diff(a, b).differences
    assert (one.kind, one.registers, one.a, one.b) == (Kind.WIDTH, (id, narrow), "8 bytes", "4 bytes")
    assert one.effect is Effect.REFUSED


def test_v_and_z() -> None:
    """V on one side and Z on the other: the vCPU has SVE, and the difference says so."""
    found = diff(snapshot({"v0": 1}), snapshot({"z0": 1}))
    assert [(one.kind, one.name) for one in found.differences] == [(Kind.ONLY_A, "v0"), (Kind.ONLY_B, "z0")]
    assert "Z holds it" in found.differences[0].why


def test_one_cache_geometry() -> None:
    """As on a machine whose cores differ."""
    (one,) = diff(snapshot({"ccsidr[0]": 0x701FE00A}), snapshot({"ccsidr[0]": 0x700FE01A})).differences
    assert one.effect is Effect.REFUSED
    assert "core" in one.consequence


def test_exchanged_timer() -> None:
    """A compare value that is the other side's count: the two IDs were exchanged."""
    a = snapshot({"cntvct_el0": 100, "cntv_cval_el0": 7000})
    b = snapshot({"cntvct_el0": 7000, "cntv_cval_el0": 100})
    (one,) = diff(a, b).differences
    assert "each other's" in one.why


def test_vcpus_by_index() -> None:
    """A difference that several vCPUs have is one; the number of vCPUs is a fact."""
    a = snapshot({"x0": 1, "x1": 5}, {"x0": 1, "x1": 5}, {"x0": 1})
    b = snapshot({"x0": 2, "x1": 5}, {"x0": 2, "x1": 6})
    found = diff(a, b)
    assert [(one.name, one.vcpus) for one in found.differences] == [("vcpus", ()), ("x0", (0, 1)), ("x1", (1,))]


@pytest.mark.parametrize(("a", "b", "effect"), [((128,), (128, 256), "accepted"), ((128, 256), (128,), "refused")])
def test_sets_of_lengths(a: tuple[int, ...], b: tuple[int, ...], effect: str) -> None:
    """The source's set must be the destination's, cut off at the top."""
    one, other = snapshot({"x0": 0}), snapshot({"x0": 0})
    one.sve_bits, other.sve_bits = a, b
    (difference,) = diff(one, other).differences
    assert (difference.fact, difference.effect.value) == ("sve_bits", effect)


def test_tcg_against_a_kernel() -> None:
    """The lists are not compared, and the report says so; the values are."""
    found = diff(
        snapshot({"x0": 1, "far_el1": 0, "hcr_el2": 0}, origin=Origin.TCG), snapshot({"x0": 2, "mdscr_el1": 0})
    )
    assert names(found, Kind.ONLY_A) == names(found, Kind.ONLY_B) == set()
    assert names(found, Kind.VALUE) == {"x0"}
    assert "TCG" in " ".join(found.notes)


def test_registers_of_a_mode_count_under_tcg_too() -> None:
    """V beside Z, and ZA beside none, follow from the mode, not from who runs the guest."""
    found = diff(snapshot({"z0": 1, "za.h[0]": 1}, origin=Origin.TCG), snapshot({"v0": 1}))
    assert names(found, Kind.ONLY_A) == {"z0", "za.h[0]"}
    assert names(found, Kind.ONLY_B) == {"v0"}


@pytest.mark.slow
def test_a_vector_that_is_cut() -> None:
    """Z of 256 bits on a host whose longest has 128: KVM takes it without an error, and the upper half is gone."""
    long, short = snapshot({"zcr_el1": 0, "z3": 1 << 200}), snapshot({"zcr_el1": 0, "z3": 1 << 100})
    found = diff(long, host="neoverse-n2")
    assert only(found, "z3") is Effect.CUT
    assert "loses state without an error" in found.text()
    assert names(diff(short, host="neoverse-n2"), Kind.VALUE) == set()


def test_verdicts() -> None:
    """The last line: equal, refused, tolerated, or passing."""
    a = snapshot({"x0": 1, "pir_el1": 0})
    assert (
        diff(a, snapshot({"x0": 1})).summary() == "A -> B passes only with a VMM that tolerates what B lacks: QEMU 11.1"
    )
    assert diff(snapshot({"x0": 1}), a).summary() == "A -> B passes: nothing is refused"
    assert diff(snapshot({"x0": 1, "svcr": 0}), a).summary() == "A -> B fails: one difference is refused"
    assert diff(a, a).summary() == "A and B are equal in all that was compared"


def test_a_log_alone_is_explained(tmp_path: Path) -> None:
    """QEMU's line, and its number alone, name SMCR_EL1; what names no register is explained."""
    path = tmp_path / "qemu.log"
    path.write_text(LOG + "qemu: failed to load cpu:cpreg_vmstate_array_len\n", "utf-8")
    for what in (str(path), "0x1013c096", LOG):
        found = diff(what)
        assert [one.name for one in found.differences] == ["smcr_el1"]
        assert not found.b
    assert "names none" in diff(str(path)).notes[0]


def test_lists(tmp_path: Path) -> None:
    """Names against what KVM_GET_REG_LIST filled in: only the presence is compared."""
    text, dump = tmp_path / "a", tmp_path / "b"
    text.write_text("x0\npc\nsvcr\n", "utf-8")
    dump.write_bytes(struct.pack("<3Q", 2, regid.parse("x0"), regid.parse("pc")))
    found = diff(text, dump)
    assert names(found, Kind.ONLY_A) == {"svcr"}
    assert not diff(dump, [regid.parse("pc"), regid.parse("x0")]).differences


def test_misuse(tmp_path: Path) -> None:
    """One line each."""
    with pytest.raises(UsageError, match="nothing to compare"):
        diff(snapshot({"x0": 1}))
    with pytest.raises(UsageError, match="not with both"):
        diff("x0", "x1", host="sme-demo")
    with pytest.raises(UsageError, match="no such file"):
        diff(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="need a host"):
        diff("x0", kernel="linux-6.1")
    with pytest.raises(UsageError, match="has no sme"):
        diff("x0", host="cortex-a57", features={"sme"})


def test_any_bytes_have_an_answer(tmp_path: Path) -> None:
    """A file of any content is compared or refused in one line."""
    path = tmp_path / "blob"
    seed = random.Random(1)
    for size_bytes in (1, 8, 100, 5000):
        path.write_bytes(seed.randbytes(size_bytes))
        with pytest.raises(UsageError):
            diff(str(path))
