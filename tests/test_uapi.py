# SPDX-License-Identifier: MIT
"""The headers compile anywhere, and Python sees in them what a C compiler sees."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctools import CC, INCLUDE, STRICT, compile_c, evaluate
from lacking import needs

from kvmabi import _uapi_macros, build_uapi, uapi

HEADERS = sorted(str(path.relative_to(INCLUDE)) for path in INCLUDE.rglob("*.h"))
OURS = [f"-I{INCLUDE}", "-std=c11", "-Wno-overflow"]
CONSTANTS = {name: value for name, value in vars(_uapi_macros).items() if isinstance(value, int)}
U64 = (1 << 64) - 1


def members(ctype: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """Each member of a cffi struct, written as in C, and its offset; members of members, too."""
    for name, field in ctype.fields or ():
        here = f"{path}.{name}" if path and name else path or name
        if name:
            yield here, field.offset
        if field.type.kind in ("struct", "union"):
            for inner, offset in members(field.type, here):
                yield inner, field.offset + offset


@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_as_c11(header: str) -> None:
    """Every header compiles alone in strict C11 with -Iinclude only."""
    compile_c(f"#include <{header}>\nint none;\n", ["-std=c11", *STRICT, f"-I{INCLUDE}", "-c", "-o", os.devnull])


@needs("g++", what="a C++ compiler")
@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_as_cxx17(header: str) -> None:
    """Every header compiles alone in strict C++17 with -Iinclude only."""
    flags = ["-std=c++17", *STRICT, f"-I{INCLUDE}", "-c", "-o", os.devnull]
    compile_c(f"#include <{header}>\nint none;\n", flags, compiler=["g++"], language="c++")


@needs("aarch64-linux-gnu-gcc", what="an arm64 cross compiler")
def test_headers_compile_for_arm64() -> None:
    """On arm64, where the host's ptrace.h takes part, core IDs and sizes are the same."""
    source = """#include <linux/kvm.h>
_Static_assert(sizeof(struct kvm_regs) == %d, "size");
_Static_assert(KVM_REG_ARM_CORE_REG(fp_regs.vregs[31]) == %d, "offset");
"""
    values = (uapi.ffi.sizeof("struct kvm_regs"), uapi.KVM_REG_ARM_CORE_REG("fp_regs.vregs[31]"))
    flags = ["-std=c11", *STRICT, f"-I{INCLUDE}", "-c", "-o", os.devnull]
    compile_c(source % values, flags, compiler=["aarch64-linux-gnu-gcc"])


@pytest.mark.parametrize("order", ["sh", "hs"])
def test_headers_get_along_with_the_system(order: str) -> None:
    """PSCI, signal and ptrace headers of the system may come before or after ours."""
    system = "#include <linux/psci.h>\n#include <signal.h>\n#include <sys/ptrace.h>\n#include <sys/ioctl.h>\n"
    text = {"s": system, "h": "#include <linux/kvm.h>\n"}
    compile_c(
        "".join(text[part] for part in order) + "int none;\n",
        ["-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDE}", "-c", "-o", os.devnull],
    )


def test_system_kvm_header_is_not_used() -> None:
    """Of all kvm.h files, only those of include/ are read."""
    used = compile_c("#include <linux/kvm.h>\n", [f"-I{INCLUDE}", "-M", "-MT", "x"]).replace("\\\n", " ").split()
    assert sorted(Path(path).resolve() for path in used if path.endswith("/kvm.h")) == [
        INCLUDE / "asm" / "kvm.h",
        INCLUDE / "linux" / "kvm.h",
    ]


def test_moving_sme_numbers_can_be_given(tmp_path: Path) -> None:
    """The capability and the feature bit of SME give way to numbers from the command line."""
    flags = [*OURS, "-DKVM_CAP_ARM_SME=300", "-DKVM_ARM_VCPU_SME=12"]
    assert evaluate(tmp_path, ["KVM_CAP_ARM_SME", "KVM_ARM_VCPU_SME"], flags) == [300, 12]


@pytest.mark.slow
def test_generated_modules_are_current() -> None:
    """The package's generated modules are what the headers give now."""
    package = Path(_uapi_macros.__file__).parent
    for name, source in build_uapi.generate(INCLUDE).items():
        assert (package / name).read_text() == source, f"{name} is stale: run make venv"


@pytest.mark.slow
def test_writing_leaves_current_files_alone(tmp_path: Path) -> None:
    """A second run writes nothing: generation is deterministic."""
    build_uapi.write(INCLUDE, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    build_uapi.write(INCLUDE, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert sorted(before) == ["_uapi_cffi.py", "_uapi_macros.py"]


def test_constants_are_what_gcc_computes(tmp_path: Path) -> None:
    """Each constant and enumerator in Python has the value that the C compiler gives it."""
    values = evaluate(tmp_path, CONSTANTS, OURS)
    different = {n: (v, c) for (n, v), c in zip(CONSTANTS.items(), values, strict=True) if v & U64 != c}
    assert not different


def test_every_macro_is_translated() -> None:
    """Every macro that has a value for gcc is in Python, except those without a meaning of their own."""
    text = compile_c("#include <linux/kvm.h>\n", [f"-I{INCLUDE}", "-E", "-dM"])
    bare = compile_c("#include <linux/types.h>\n#include <linux/ioctl.h>\n#include <stddef.h>\n", ["-E", "-dM"])
    defined = {line.split()[1].split("(")[0] for line in text.splitlines() if len(line.split()) > 2}
    system = {line.split()[1].split("(")[0] for line in bare.splitlines()}
    assert defined - system - set(_uapi_macros.__all__) == set(uapi.NOT_TRANSLATED)
    assert set(uapi.NOT_TRANSLATED) == {"ARM64_SYS_REG_SHIFT_MASK", "KVM_COALESCED_MMIO_MAX"}


def test_structs_are_what_gcc_lays_out(tmp_path: Path) -> None:
    """Sizes and member offsets in cffi are the C compiler's, also of the V registers that cffi cannot express."""
    structs = [name for name in uapi.ffi.list_types()[1] if uapi.ffi.typeof(f"struct {name}").fields]
    expected = {f"sizeof(struct {name})": uapi.ffi.sizeof(f"struct {name}") for name in structs}
    for name in structs:
        for member, offset in members(uapi.ffi.typeof(f"struct {name}")):
            if member != "__vregs_pad":
                expected[f"offsetof(struct {name}, {member})"] = offset
    assert len(expected) > 200
    assert dict(zip(expected, evaluate(tmp_path, expected, OURS), strict=True)) == expected


def test_tables_of_names() -> None:
    """Numbers convert to names: ioctls, capabilities, exits."""
    assert uapi.IOCTL_NAMES[uapi.KVM_GET_REG_LIST] == "KVM_GET_REG_LIST"
    assert uapi.ioctl_name(uapi.KVM_SET_ONE_REG) == "KVM_SET_ONE_REG"
    assert uapi.ioctl_name(uapi.KVM_ARM_SET_DEVICE_ADDR) == "KVM_GET_ONE_REG"  # the one number with two meanings
    assert uapi.ioctl_name(0x5401) == "0x5401"
    assert len(uapi.IOCTL_NAMES) == len(uapi.IOCTL_ARGUMENTS) - 1
    assert uapi.IOCTL_ARGUMENTS["KVM_ARM_VCPU_FINALIZE"] == "int"
    assert uapi.CAPABILITY_NAMES[uapi.KVM_CAP_ARM_SVE] == "KVM_CAP_ARM_SVE"
    assert sorted(uapi.EXIT_NAMES) == list(range(len(uapi.EXIT_NAMES)))
    assert uapi.EXIT_NAMES[uapi.KVM_EXIT_EXCEPTION] == "KVM_EXIT_EXCEPTION"


def test_arithmetic_is_that_of_c() -> None:
    """Unsigned types wrap, division rounds down, comparisons are ints, literals take the types of the standard."""
    translator = build_uapi.Translator({"five": 5}, lambda name: 24)
    for expression, value in {
        "~((1U << 16) - 1)": 0xFFFF0000,
        "-1": -1,
        "-1 + 0U": 0xFFFFFFFF,
        "(-1ul)": U64,
        "0xffffffff + 1": 0,
        "4294967295 + 1": 1 << 32,
        "1 << five": 32,
        "7 / 2 * 2": 6,
        "(3 == 3) + (3 > 4)": 1,
        "sizeof(struct kvm_vcpu_events) - 25": U64,
        "010 | 0x10": 24,
    }.items():
        assert translator.translate(expression).low == value, expression


@pytest.mark.parametrize("expression", ["PAGE_SIZE", "1 << 31", "f(3)", "1.5", '"text"', "1 +"])
def test_what_has_no_value_is_refused(expression: str) -> None:
    """Names without a definition, overflow and non-integers are not translated."""
    with pytest.raises(build_uapi.Untranslatable):
        build_uapi.Translator({}, lambda name: 8).translate(expression)


def test_missing_header_stops_the_build(tmp_path: Path) -> None:
    """A missing header ends the build with its name."""
    (tmp_path / "linux").mkdir()
    (tmp_path / "linux" / "kvm.h").write_text("#include <asm/kvm.h>\n")
    with pytest.raises(SystemExit, match=r"asm/kvm\.h"):
        build_uapi.generate(tmp_path)


def test_compiler_is_there() -> None:
    """The rest of this file rests on a C compiler."""
    subprocess.run([*CC, "--version"], check=True, capture_output=True)
