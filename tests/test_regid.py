# SPDX-License-Identifier: MIT
"""Register IDs: Python's are gcc's, names and IDs convert to each other, errors are UsageErrors only."""

from __future__ import annotations

import inspect
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from ctools import INCLUDE, compile_c, evaluate
from hypothesis import example, given
from hypothesis import strategies as st

from kvmabi import _uapi_macros, regid, uapi
from kvmabi.errors import UsageError

U64 = st.integers(0, (1 << 64) - 1)
KNOWN = sorted(map(regid.parse, regid.names()))
MACROS = {
    name: len(inspect.signature(macro).parameters)
    for name in _uapi_macros.__all__
    if inspect.isfunction(macro := getattr(uapi, name)) and name != "KVM_REG_ARM_CORE_REG"
}
CORE = [
    *(f"regs.regs[{n}]" for n in range(31)),
    *("regs.sp", "regs.pc", "regs.pstate", "sp_el1", "elr_el1", "fp_regs.fpsr", "fp_regs.fpcr"),
    *(f"spsr[{n}]" for n in range(5)),
    *(f"fp_regs.vregs[{n}]" for n in range(32)),
]


@st.composite
def ids(draw: st.DrawFn) -> int:
    """Any ID, mostly a known one with some bits changed."""
    if draw(st.integers(0, 3)) == 0:
        return draw(U64)
    bits = draw(st.lists(st.integers(0, 63), max_size=3))
    return draw(st.sampled_from(KNOWN)) ^ sum(1 << bit for bit in set(bits))


@pytest.fixture(scope="module")
def gcc_macros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A C program that answers each line "number of a macro, five arguments" with the macro's value."""
    cases = "\n".join(
        f"case {i}: v = {name}({', '.join(f'a[{n}]' for n in range(count))}); break;"
        for i, (name, count) in enumerate(MACROS.items())
    )
    source = f"""#include <linux/kvm.h>
#include <stdio.h>
int main(void) {{
    unsigned which; __u64 v = 0, a[5];
    while (scanf("%u %llu %llu %llu %llu %llu", &which, &a[0], &a[1], &a[2], &a[3], &a[4]) == 6) {{
        switch (which) {{ {cases} }}
        printf("%llu\\n", v); fflush(stdout);
    }}
    return 0;
}}"""
    program = tmp_path_factory.mktemp("macros") / "macros"
    compile_c(source, ["-std=gnu11", "-Wno-format", f"-I{INCLUDE}", "-o", str(program)])
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@given(name=st.sampled_from(sorted(MACROS)), arguments=st.lists(U64 | st.integers(0, 300), min_size=5, max_size=5))
def test_macros_compute_what_gcc_computes(gcc_macros: subprocess.Popen[str], name: str, arguments: list[int]) -> None:
    """Each function-like macro, Python against C, for any 64-bit arguments."""
    assert gcc_macros.stdin
    assert gcc_macros.stdout
    print(list(MACROS).index(name), *arguments, file=gcc_macros.stdin)
    expected = int(gcc_macros.stdout.readline())
    assert getattr(uapi, name)(*arguments[: MACROS[name]]) == expected


def test_core_ids_are_what_gcc_computes(tmp_path: Path) -> None:
    """Each core register's ID in C, including its size, is that of a name."""
    sizes = ["U32" if "fp_regs.fp" in m else "U128" if "vregs" in m else "U64" for m in CORE]
    expressions = [
        f"KVM_REG_ARM64 | KVM_REG_ARM_CORE | KVM_REG_SIZE_{size} | KVM_REG_ARM_CORE_REG({member})"
        for member, size in zip(CORE, sizes, strict=True)
    ]
    evaluated = evaluate(tmp_path, expressions, [f"-I{INCLUDE}"])
    assert sorted(evaluated) == [id for id in KNOWN if regid.decode(id).family == "core"]
    assert len(evaluated) == 75


def test_system_register_ids_are_what_gcc_computes(tmp_path: Path) -> None:
    """Each row of sysregs.toml, except the two whose IDs are swapped, has the ID that its encoding gives in C."""
    table = tomllib.loads((Path(regid.__file__).parent / "profiles" / "sysregs.toml").read_text())
    expressions = {
        name: row.get("id") or f"ARM64_SYS_REG({', '.join(map(str, row['enc']))})" for name, row in table.items()
    }
    values = evaluate(tmp_path, expressions.values(), [f"-I{INCLUDE}"])
    assert dict(zip(expressions, values, strict=True)) == {name: regid.parse(name) for name in expressions}
    assert [name for name, row in table.items() if "id" in row] == ["cntvct_el0", "cntv_cval_el0"]


@given(id=ids())
@example(uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM64_SYSREG | 0xFFFF)
def test_fields_are_where_the_macros_say(id: int) -> None:
    """The header's shifts and masks describe the same 64 bits; an encoding is that of a system register only."""
    fields = regid.decode(id)
    assert fields.size_bytes == 1 << ((id & uapi.KVM_REG_SIZE_MASK) >> uapi.KVM_REG_SIZE_SHIFT)
    assert fields.coproc == (id & uapi.KVM_REG_ARM_COPROC_MASK) >> uapi.KVM_REG_ARM_COPROC_SHIFT
    assert (fields.family == "sysreg") == (fields.arch_name == "arm64" and fields.coproc == 0x13)
    for field in ("op0", "op1", "crn", "crm", "op2"):
        mask = getattr(uapi, f"KVM_REG_ARM64_SYSREG_{field.upper()}_MASK")
        shift = getattr(uapi, f"KVM_REG_ARM64_SYSREG_{field.upper()}_SHIFT")
        assert getattr(fields, field) == ((id & mask) >> shift if fields.family == "sysreg" else None)


@given(id=ids())
@example(0)
@example((1 << 64) - 1)
@example(0x6030000010100000)
def test_ids_round_trip(id: int) -> None:
    """Any ID decodes; its fields and its name both encode to it."""
    fields = regid.decode(id)
    assert regid.encode(fields) == id
    assert regid.encode(fields.name) == regid.parse(fields.name.upper()) == id
    assert fields.size_bytes == uapi.KVM_REG_SIZE(id)
    assert fields.arch == id >> 56
    assert fields.coproc == id >> 16 & 0xFFF
    assert fields.index == (id >> 28 & 0xFFFFFF) << 16 | id & 0xFFFF


def test_flipped_bits_never_keep_the_name() -> None:
    """No ID one bit away from a known register has that register's name."""
    for id in KNOWN:
        for bit in range(64):
            assert regid.name_of(id ^ 1 << bit) != regid.name_of(id)


def test_names_round_trip() -> None:
    """Every name converts to an ID and back, also of slices and of registers that are only numbered."""
    names = [*regid.names(), *(f"ccsidr[{n}]" for n in range(256)), "fw[9]", "fw_bmap[65535]", "s3_0_c1_c2_3"]
    sliced = [name for name in regid.names() if regid.decode(regid.parse(name)).slice == 0]
    assert {name.rstrip("0123456789]") for name in sliced} == {"z", "p", "ffr", "za.h["}
    names += [f"{name}[{slice}]" for name in sliced for slice in (1, 31)]
    assert [regid.name_of(regid.parse(name)) for name in names] == names
    assert len(set(map(regid.parse, names))) == len(names)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("za.h[3]", 0x6080_0000_0017_0060),
        ("za.h[255]", 0x6080_0000_0017_1FE0),
        ("zt0", 0x6060_0000_0017_0600),
        ("sme_vls", 0x6060_0000_0017_FFFE),
        ("sve_vls", 0x6060_0000_0015_FFFF),
        ("z7", 0x6080_0000_0015_00E0),
        ("p2", 0x6050_0000_0015_0440),
        ("ffr", 0x6050_0000_0015_0600),
        ("x0", 0x6030_0000_0010_0000),
        ("v0", 0x6040_0000_0010_0054),
        ("fpcr", 0x6020_0000_0010_00D5),
        ("svcr", 0x6030_0000_0013_DA12),
        ("tpidr2_el0", 0x6030_0000_0013_DE85),
        ("smidr_el1", 0x6030_0000_0013_C806),
        ("fpmr", 0x6030_0000_0013_DA22),
        ("ccsidr[2]", 0x6020_0000_0011_0002),
        ("psci_version", 0x6030_0000_0014_0000),
        ("vendor_hyp_bmap_2", 0x6030_0000_0016_0003),
        ("cntv_cval_el0", 0x6030_0000_0013_DF02),
        ("cntvct_el0", 0x6030_0000_0013_DF1A),
    ],
)
def test_ids_as_published(name: str, id: int) -> None:
    """IDs as real kernels list them, typed out once."""
    assert regid.parse(name) == id
    assert regid.name_of(id) == name


def test_fields_of_families() -> None:
    """Numbers, slices and encodings have their names; fields that a family lacks are None."""
    za = regid.decode(regid.parse("za.h[200][3]"))
    assert (za.family, za.n, za.slice, za.size_bytes, za.op0) == ("sme", 200, 3, 256, None)
    svcr = regid.decode(regid.parse("svcr"))
    assert (svcr.op0, svcr.op1, svcr.crn, svcr.crm, svcr.op2, svcr.n) == (3, 3, 4, 2, 2, None)
    assert (svcr.family, svcr.arch_name) == ("sysreg", "arm64")
    other = regid.decode(uapi.KVM_REG_RISCV | 0x0020_0000_0013_0000)
    assert (other.arch_name, other.family, other.name) == ("riscv", "", "0x8020000000130000")
    assert regid.decode(uapi.KVM_REG_ARCH_MASK).arch_name == "0xff"


def test_numbers_and_case() -> None:
    """Hex and decimal numbers are IDs; names are accepted in either case and with blanks around."""
    svcr = regid.parse("svcr")
    assert [regid.parse(text) for text in (f"{svcr:#x}", f"{svcr:#X}", str(svcr), " SVCR\n", "S3_3_C4_C2_2")] == [
        svcr
    ] * 5
    assert regid.parse("z7[0]") == regid.parse("z7")


@pytest.mark.slow
@given(
    text=st.text(max_size=12) | st.from_regex(r"(za\.h|z|p|ffr|ccsidr|fw|s3)_?\[?\d{0,6}\]?(\[\d*\])?", fullmatch=True)
)
@example("0x" + "1" * 17)
@example("1" * 21)
@example("x" * 100_000)
def test_other_text_is_misuse(text: str) -> None:
    """Text is a register or a UsageError of one line, never anything else."""
    try:
        id, said = regid.parse(text), ""
    except UsageError as error:
        id, said = 0, str(error)
    assert 0 <= id < 1 << 64
    assert len(said) < 400
    assert "\n" not in said


def test_misuse_names_what_comes_near() -> None:
    """The error for a misspelt name suggests the right one."""
    with pytest.raises(UsageError, match=r"no register 'svrc': did you mean svcr"):
        regid.parse("svrc")
    with pytest.raises(UsageError, match="take a name such as"):
        regid.parse("")
    for name in ("za.h[256]", "z32", "p16", "x31", "ccsidr[256]", "z7[32]", "zt1", "ffr[01]", "svcr[0]"):
        with pytest.raises(UsageError):
            regid.parse(name)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"arch": 0x60, "size_bytes": 8, "coproc": 19},
        {"arch": 0x100, "size_bytes": 8, "coproc": 19, "index": 0},
        {"arch": 0x60, "size_bytes": 3, "coproc": 19, "index": 0},
        {"arch": 0x60, "size_bytes": 8, "coproc": 0x1000, "index": 0},
        {"arch": 0x60, "size_bytes": 8, "coproc": 19, "index": -1},
        {"arch": 0x60, "size_bytes": 1 << 16, "coproc": 19, "index": 1 << 40},
    ],
)
def test_fields_without_an_id_are_misuse(fields: dict[str, int]) -> None:
    """Missing or oversized fields are named, not cut off."""
    with pytest.raises(UsageError, match="register id"):
        regid.encode(fields)


def test_encode_takes_names_and_fields() -> None:
    """A name and a mapping of fields encode to the same ID."""
    assert regid.encode("svcr") == regid.encode({"arch": 0x60, "size_bytes": 8, "coproc": 0x13, "index": 0xDA12})
