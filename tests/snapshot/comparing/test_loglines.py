# SPDX-License-Identifier: MIT
"""Registers in log lines, numbers, names and lists."""

from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmabi import regid
from kvmabi.snapshot.comparing import loglines, qemunumbers

LOG = """\
qemu-system-aarch64: handle_cpreg_only_in_incoming_stream: system register 0x1013c096 in the incoming stream but \
unknown on the destination: fail migration
qemu-system-aarch64: handle_cpreg_only_in_incoming_stream: system register 0x10160003 in the incoming stream but \
unknown on the destination: fail migration
qemu-system-aarch64: error while loading state for instance 0x0 of device 'cpu'
qemu-system-aarch64: load of migration failed: Operation not permitted
"""
SMCR = regid.parse("smcr_el1")


def test_qemus_log() -> None:
    """Each register once, in the order of the lines; instance 0x0 is none; the last line is explained."""
    found = loglines.read((LOG + LOG).splitlines())
    assert [regid.name_of(id) for id in found.ids] == ["smcr_el1", "vendor_hyp_bmap_2"]
    assert [message.contains for message in found.messages] == ["load of migration failed: Operation not permitted"]
    assert not found.listed


@pytest.mark.parametrize("word", ["0x1013c096", "0x1013C096", "0x603000000013c096", "0xc096", "smcr_el1", "SMCR_EL1"])
def test_spellings_of_a_register(word: str) -> None:
    """QEMU's number, the ID, the encoding in 16 bits, the name."""
    assert loglines.register_of(word) == SMCR


@pytest.mark.parametrize(
    "word", ["", "0x0", "0x40000000", "12", "svcrx", "x", "0x", "-1", "0xffffffffffffffff", "s9_9"]
)
def test_words_that_are_no_register(word: str) -> None:
    """Guest addresses and other numbers of a log are none."""
    assert loglines.register_of(word) is None


@pytest.mark.parametrize(
    ("number", "id", "title"),
    [
        (0x200E0298, 0x40200000200E0298, "p14, 3, c0, c5, 0 (AArch32)"),
        (0x200F8012, 0x40300000200F0012, "p15, 2, c0 (AArch32)"),
        (0x10110003, 0x6020000000110003, "ccsidr[3]"),
        (0x10140000, 0x6030000000140000, "psci_version"),
    ],
)
def test_numbers_of_qemu(number: int, id: int, title: str) -> None:
    """AArch32 registers keep their bank; wide ones lose bit 15; CCSIDR has 32 bits."""
    assert qemunumbers.id_of(number) == id
    assert qemunumbers.title(id) == title


@pytest.mark.parametrize("name", [name for name in regid.names() if regid.decode(regid.parse(name)).family == "sysreg"])
def test_every_system_register_there_and_back(name: str) -> None:
    """QEMU's number is the low half of the ID with bit 28 set."""
    id = regid.parse(name)
    assert qemunumbers.id_of(id & 0xFFFFFFFF | 1 << 28) == id


@given(st.integers(0, 2**64 - 1))
def test_any_number_has_an_answer(number: int) -> None:
    """An ID of arm or arm64, or nothing."""
    id = qemunumbers.id_of(number)
    assert id is None or id >> 56 in (0x40, 0x60)
    if id is not None:
        assert qemunumbers.title(id)


@given(st.lists(st.text(max_size=80)))
def test_any_text_has_an_answer(lines: list[str]) -> None:
    """No line makes the reader fail."""
    assert len(loglines.read(lines).ids) <= loglines.MOST_REGISTERS


def test_lists() -> None:
    """Lines of names or IDs only, with comments, are a whole list; with one of QEMU's numbers they are not."""
    assert loglines.read(["# mine", "x0", "0x603000000013c096", "", "svcr # mode"]).listed
    assert not loglines.read(["x0", "0x1013c096"]).listed
    assert not loglines.read(["x0", "what is this"]).listed


def test_what_kvm_get_reg_list_fills_in() -> None:
    """The count must be right and every ID one of arm64: nothing else is taken for a list."""
    ids = [SMCR, regid.parse("z3")]
    data = struct.pack("<3Q", 2, *ids)
    assert loglines.read_list(data) == ids
    for wrong in (data[:-1], data + bytes(8), struct.pack("<3Q", 2, 1, 2), b"", bytes(8)):
        assert loglines.read_list(wrong) == []


def test_every_name_is_read() -> None:
    """Also members of banks, generic encodings and first slices; what only looks like one is passed over."""
    for name in [*regid.names(), "ccsidr[13]", "fw[9]", "fw_bmap[4]", "s3_0_c1_c2_4", "z7[0]"]:
        assert loglines.register_of(name) == regid.parse(name), name
    for name in ("ccsidr[256]", "x[1]", "za.h[256]", "s3_9_c1_c2_4", "zz[3]", "fw[65536]"):
        assert loglines.register_of(name) is None, name


@pytest.mark.slow
@pytest.mark.parametrize("line", ["z[1] zz[3] ", "0x1013c096 ", "register 0x", "s3_0_c1_c2_4\n", "q1[2]\n", "reg\n"])
def test_a_mebibyte_takes_no_two_seconds(line: str) -> None:
    """Whatever it is made of."""
    lines = (line * ((1 << 20) // len(line))).splitlines()
    start = time.process_time()
    loglines.read(lines)
    assert time.process_time() - start < 2


def test_a_register_that_the_stream_lacks() -> None:
    """QEMU reports both directions."""
    found = loglines.read(["x_cpreg_missing_in_incoming_stream: system register 0x1013c4f6 is missing"])
    assert found.missing == {regid.parse("pmmir_el1")}
