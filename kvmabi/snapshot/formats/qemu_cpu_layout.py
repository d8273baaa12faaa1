# SPDX-License-Identifier: MIT
"""The tables of section ``cpu`` of a QEMU stream, version 22: fields, subsections, and the registers without an id."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

from kvmabi import regid
from kvmabi.snapshot.formats.qemu_layout import Layout

VERSION: Final = 22
SUBSECTION: Final = 5
MOST_REGISTERS: Final = 2048
"""A list of ids is never longer: kernels list some hundreds."""

HEAD: Final = Layout(
    [
        *(("env.regs", "I", 16), ("env.xregs", "Q", 32), ("env.pc", "Q"), ("cpsr", "I"), ("env.spsr", "I")),
        *(("env.banked_spsr", "Q", 8), ("env.banked_r13", "I", 8), ("env.banked_r14", "I", 8)),
        *(("env.usr_regs", "I", 5), ("env.fiq_regs", "I", 5), ("env.elr_el", "Q", 4), ("env.sp_el", "Q", 4)),
        ("cpreg_vmstate_array_len", "I"),
    ]
)
"""What stands before the ids. ids and values follow, a be64 each."""
TAIL: Final = Layout(
    [
        *(("env.exclusive_addr", "Q"), ("env.exclusive_val", "Q"), ("env.exclusive_high", "Q"), ("unused", "8s")),
        *(("env.exception.syndrome", "I"), ("env.exception.fsr", "I"), ("env.exception.vaddress", "Q")),
        *(("gt_timer[GTIMER_PHYS]", "Q"), ("gt_timer[GTIMER_VIRT]", "Q"), ("power_state", "B")),
    ]
)
"""What stands behind the values."""

VFP, FPCR_FPSR, SVE, SME, ZT0, FPMR, SERROR = (
    f"cpu/{name}" for name in ("vfp", "vfp/fpcr_fpsr", "sve", "sme", "zt0", "fpmr", "serror")
)
Z_LOW_WORDS, Z_HIGH_WORDS, P_WORDS, ZA_ROW_WORDS, ZA_ROWS, ZT0_WORDS = 2, 14, 4, 32, 256, 8
SUBSECTIONS: Final[dict[str, tuple[int, Layout]]] = {
    VFP: (3, Layout([("zregs", "Q", 32 * Z_LOW_WORDS), ("xregs", "I", 15), ("fpscr", "I")])),
    FPCR_FPSR: (1, Layout([("fpcr", "Q"), ("fpsr", "Q")])),
    SVE: (1, Layout([("zregs", "Q", 32 * Z_HIGH_WORDS), ("pregs", "Q", 17 * P_WORDS)])),
    SME: (1, Layout([("za", "Q", ZA_ROWS * ZA_ROW_WORDS)])),
    ZT0: (1, Layout([("zt0", "Q", ZT0_WORDS)])),
    FPMR: (1, Layout([("fpmr", "Q")])),
    "cpu/irq-line-state": (1, Layout([("irq_line_state", "I")])),
    "cpu/wfxt-timer": (1, Layout([("wfxt_timer", "Q")])),
    SERROR: (1, Layout([("pending", "B"), ("has_esr", "B"), ("esr", "Q")])),
}
"""The subsections of an arm64 vCPU: version and layout."""
AARCH32_SUBSECTIONS: Final = frozenset(
    f"cpu/{name}" for name in ("iwmmxt", "m", "thumb2ee", "pmsav7", "pmsav8", "m-security")
)
"""Subsections of CPUs that are not arm64 vCPUs of a VM."""

FPSR_MASK: Final = 0xF800009F
FPCR_MASK: Final = 0x07FF9F00
PSTATE_AARCH32: Final = 1 << 4
AARCH32_MODE: Final = 0x1F
AARCH32_BANKS: Final = {0x10: 0, 0x1F: 0, 0x13: 1, 0x17: 2, 0x1B: 3, 0x12: 4, 0x11: 5, 0x1A: 6, 0x16: 7}
"""The bank of each AArch32 mode: USR and SYS, SVC, ABT, UND, IRQ, FIQ, HYP, MON."""
FIQ_BANK, HYP_BANK = 5, 6
POWER_STATES: Final = ("on", "off", "on-pending")
BANKED: Final = ("usr", "el1", "abt", "und", "irq", "fiq", "el2", "el3")
"""The banks of banked_spsr; core registers are those from el1 to fiq."""


class Unlisted(NamedTuple):
    """The registers that have no id in the stream."""

    x: tuple[int, ...]
    core: dict[str, int]
    v: tuple[int, ...]
    z: tuple[int, ...]
    p: tuple[int, ...]
    za: tuple[int, ...]


@cache
def unlisted() -> Unlisted:
    """The ids of those registers."""
    names = ["sp", "pc", "pstate", "sp_el1", "elr_el1", "fpsr", "fpcr", "ffr", "zt0", "fpmr"]
    names += [f"spsr_{bank}" for bank in BANKED[1:6]]
    names += ["id_aa64pfr0_el1", "id_aa64smfr0_el1", "zcr_el1"]

    def run(form: str, count: int) -> tuple[int, ...]:
        return tuple(regid.parse(form.format(n)) for n in range(count))

    core = {name: regid.parse(name) for name in names}
    return Unlisted(run("x{}", 31), core, run("v{}", 32), run("z{}", 32), run("p{}", 16), run("za.h[{}]", ZA_ROWS))
