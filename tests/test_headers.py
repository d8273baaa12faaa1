# SPDX-License-Identifier: MIT
"""Our headers have the names and values of the distribution's arm64 ones (Debian: linux-libc-dev-arm64-cross)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ctools import INCLUDE, compile_c, evaluate
from pycparser import c_ast, c_parser

DISTRIBUTION = Path("/usr/aarch64-linux-gnu/include")
OURS = [f"-I{INCLUDE}", "-DPAGE_SIZE=4096"]

pytestmark = pytest.mark.skipif(
    not (DISTRIBUTION / "linux" / "kvm.h").exists(),
    reason="needs arm64 kernel headers (linux-libc-dev-arm64-cross)",
)

# macros that the distribution's headers use but leave to the including file
KERNEL_WORDS = [
    "-DPAGE_SIZE=4096",
    "-DSZ_64K=0x10000",
    "-DBIT(n)=(1UL<<(n))",
    "-DGENMASK(h,l)=(((~0UL)<<(l))&(~0UL>>(63-(h))))",
]

# macro: why our value differs from an older distribution's
CHANGED_SINCE = {
    "KVM_DIRTY_LOG_PAGE_OFFSET": "arm64 got its dirty ring, at page 64, in Linux 6.2",
    "PSCI_1_1_FN_MEM_PROTECT_CHECK_RANGE": "mistyped until Linux 6.6: the specification says 20",
    "PSCI_1_1_FN64_MEM_PROTECT_CHECK_RANGE": "mistyped until Linux 6.6: the specification says 20",
}

# names that our headers leave out: those of other architectures and obsolete ones
FOREIGN = re.compile(
    r"_S390_|_X86_|_PPC_|_MIPS_|_HYPERV|_HV_|_XEN|_SEV_|_PV_|KVM_TRC_|KVM_TRACE_|DEPRECATED|ASSIGN|_SPAPR_|_MSR_|_MSRS"
    r"|CPUID|_LAPIC|_PIT|_XSAVE|_XCRS|_SREGS2|_DEBUGREGS|_TSC_KHZ|_TSS_ADDR|_VAPIC|TPR_ACCESS|IDENTITY_MAP|_BUS_LOCK_"
    r"|X2APIC|_SMI$|REINJECT|NESTED_STATE|KVM_MMU_FSL|DIRTY_TLB|ALLOCATE_RMA|MEMORY_ALIAS|SET_MEMORY_REGION$|DEBUG_GUEST"
    r"|KVM_DEV_IRQ_|MAX_MSIX|PMU_CAP_DISABLE|_VM_.*_(AUTO|TE|VZ)$"
)


@pytest.fixture(scope="module")
def theirs() -> list[str]:
    """Flags that replace the system's headers with the distribution's arm64 ones."""
    builtin = compile_c("", ["-print-file-name=include"]).strip()
    return ["-nostdinc", f"-isystem{DISTRIBUTION}", f"-isystem{builtin}", "-D__aarch64__", *KERNEL_WORDS]


def macros(flags: list[str]) -> dict[str, tuple[str, ...] | None]:
    """Name to parameters (None: object-like) of every macro with a value that linux/kvm.h defines."""

    def defined(text: str) -> dict[str, tuple[str, ...] | None]:
        parameters: dict[str, tuple[str, ...] | None] = {}
        for line in compile_c(text, [*flags, "-E", "-dM"]).splitlines():
            match = re.fullmatch(r"#define (\w+)(?:\(([^)]*)\))? (\S.*)", line)
            if match:
                parameters[match[1]] = None if match[2] is None else tuple(match[2].replace(" ", "").split(","))
        return parameters

    before = defined("#include <linux/types.h>\n#include <linux/ioctl.h>\n")
    return {name: parameters for name, parameters in defined("#include <linux/kvm.h>\n").items() if name not in before}


def members(flags: list[str]) -> dict[str, set[str]]:
    """Name to members of each struct that linux/kvm.h defines, in C syntax, including members of members."""
    text = compile_c(
        "#include <linux/kvm.h>\n",
        [*flags, "-E", "-P", "-D__attribute__(x)=", "-D__extension__=", "-D__int128=int", "-D__signed__=signed"],
    )
    tree = c_parser.CParser().parse("typedef int __uint128_t, __int128_t;\n" + text)
    structs: dict[str, Any] = {}

    class Visitor(c_ast.NodeVisitor):  # type: ignore[misc]
        def visit_Struct(self, node: Any) -> None:
            if node.name and node.decls:
                structs[node.name] = node
            self.generic_visit(node)

    def paths(node: Any, path: str) -> Iterator[str]:
        for declaration in node.decls or ():
            here = f"{path}.{declaration.name}" if path and declaration.name else path or declaration.name or ""
            if declaration.name:
                yield here
            inner = getattr(declaration.type, "type", declaration.type)
            inner = declaration.type if isinstance(declaration.type, (c_ast.Struct, c_ast.Union)) else inner
            if isinstance(inner, (c_ast.Struct, c_ast.Union)):
                yield from paths(inner if inner.decls else structs.get(inner.name, inner), here)

    Visitor().visit(tree)
    return {name: set(paths(node, "")) for name, node in structs.items()}


def calls(name: str, parameters: tuple[str, ...]) -> list[str]:
    """Sample calls of a function-like macro."""
    if name == "KVM_REG_ARM_CORE_REG":
        return [f"{name}({m})" for m in ("regs.regs[7]", "sp_el1", "spsr[4]", "fp_regs.vregs[31]", "fp_regs.fpcr")]
    if name == "ARM64_SYS_REG_SHIFT_MASK":
        return [f"{name}(0x1f, {field})" for field in ("OP0", "OP1", "CRN", "CRM", "OP2")]
    count = 5 if parameters == ("...",) else len(parameters)
    samples = [(0,) * 5, (1,) * 5, (3, 3, 14, 3, 2), (0x6080_0000_0015_0000, 31, 7, 9, 1), (255, 33, 16, 16, 8)]
    return [f"{name}({', '.join(f'{value}ULL' for value in sample[:count])})" for sample in samples]


def differences(folder: Path, expressions: list[str], theirs: list[str]) -> dict[str, tuple[int, int]]:
    """Expression to (our value, their value), for all expressions whose values differ."""
    ours = evaluate(folder, expressions, OURS)
    values = zip(ours, evaluate(folder, expressions, theirs), strict=True)
    return {e: (our, their) for e, (our, their) in zip(expressions, values, strict=True) if our != their}


def test_macros_have_the_distribution_s_values(tmp_path: Path, theirs: list[str]) -> None:
    """Each macro that both headers define has the same value, except those that Linux has changed since."""
    ours = macros(OURS)
    both = sorted(ours.keys() & macros(theirs).keys())
    assert len(both) > 500
    expressions: list[str] = []
    for name in both:
        parameters = ours[name]
        expressions += [name] if parameters is None else calls(name, parameters)
    assert differences(tmp_path, expressions, theirs).keys() <= CHANGED_SINCE.keys()


def test_structs_have_the_distribution_s_layout(tmp_path: Path, theirs: list[str]) -> None:
    """Each struct that both headers define has the same size, and each shared member the same offset."""
    ours, others = members(OURS), members(theirs)
    both = sorted(ours.keys() & others.keys())
    expressions = [f"sizeof(struct {name})" for name in both]
    expressions += [f"offsetof(struct {name}, {m})" for name in both for m in sorted(ours[name] & others[name])]
    assert len(both) > 40
    assert "offsetof(struct kvm_run, mmio.is_write)" in expressions
    assert differences(tmp_path, expressions, theirs) == {}


def test_nothing_of_arm64_is_left_out(theirs: list[str]) -> None:
    """Names that only the distribution's header defines belong to another architecture or are obsolete."""
    missing = {name for name in macros(theirs).keys() - macros(OURS).keys() if re.match("_*(KVM|PSCI|PSR)_", name)}
    assert sorted(name for name in missing if not FOREIGN.search(name)) == []


def test_members_are_those_of_the_distribution(theirs: list[str]) -> None:
    """A struct that both headers define has all members, except those of exits that arm64 never takes."""
    ours, others = members(OURS), members(theirs)
    missing = {f"{name}.{m}" for name in ours.keys() & others.keys() for m in others[name] - ours[name]}
    exits = r"kvm_run\.(tpr_access|s390_\w+|dcr|osi|papr_hcall|epr|eoi|hyperv|msr|xen|riscv_\w+)\b"
    assert sorted(m for m in missing if not re.match(exits, m)) == ["kvm_run.hypercall.pad"]
