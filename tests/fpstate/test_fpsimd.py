# SPDX-License-Identifier: MIT
"""fpsimd.c's functions: formats, the elision, sections."""

import pytest

from kvmabi.fpstate import fpsimd
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.machine import Crash, Machine
from kvmabi.fpstate.state import CURRENT, FPSIMD, SVE, SYSCALL, USER, VL_GUEST
from kvmabi.fpstate.tokens import NOBODY, ZERO, fresh, kernel, user
from kvmabi.fpstate.variants import find_variant

MINE = fresh(user(0))


def _live(kernel_name: str, mode: str = USER, **flags: bool) -> Machine:
    """T0 live on CPU0 with SVE in use."""
    config = Config(tasks=2, sve=True, neon=True).with_flags(**flags)
    m = Machine.boot(find_variant(kernel_name).knobs, config)
    m.cpus[0].cur, m.tasks[0].on, m.tasks[0].mode = 0, 0, mode
    m.tasks[0].FOREIGN, m.tasks[0].SVE = 0, 1
    m.cpus[0].V = m.cpus[0].Z = MINE
    fpsimd.fpsimd_bind_task_to_cpu(m, 0)
    return m


FORMATS = [
    *(("v5.17", USER, True), ("v5.17", SYSCALL, True), ("v6.2", USER, True)),
    *(("v6.2", SYSCALL, False), ("v6.16", SYSCALL, True)),
]


@pytest.mark.parametrize(("kernel_name", "mode", "sve"), FORMATS)
def test_format_of_a_save(kernel_name: str, mode: str, sve: bool) -> None:
    """By TIF_SVE up to 6.1; by syscallno in 6.2 to 6.15; by to_save from 6.16."""
    m = _live(kernel_name, mode)
    fpsimd.fpsimd_save_user_state(m, 0)
    t = m.tasks[0]
    assert (t.sV == MINE, t.fV == MINE) == (sve, not sve)
    assert t.type == (SVE if sve and m.knobs.fp_type else FPSIMD)


def test_syscall_entry_of_6_16_makes_a_save_fpsimd() -> None:
    """to_save is what fpsimd_syscall_enter left."""
    m = _live("v6.16", SYSCALL)
    m.cpus[0].to_save = FPSIMD
    fpsimd.fpsimd_save_user_state(m, 0)
    assert (m.tasks[0].fV, m.tasks[0].sV) == (MINE, ZERO)


def test_foreign_registers_are_never_saved() -> None:
    """FOREIGN is the guard of every save."""
    m = _live("v6.16")
    m.tasks[0].FOREIGN = 1
    fpsimd.fpsimd_save_user_state(m, 0)
    assert (m.tasks[0].fV, m.tasks[0].sV) == (ZERO, ZERO)


def test_wrong_vector_length_is_a_kill() -> None:
    """A save in SVE format under another length saves nothing."""
    m = _live("v6.12")
    m.cpus[0].vl = VL_GUEST
    fpsimd.fpsimd_save_user_state(m, 0)
    assert [b.clause for b in m.broken] == ["O6"]
    assert m.tasks[0].sV == ZERO


def test_saving_through_nothing_is_a_crash() -> None:
    """FOREIGN=0 with fpsimd_last_state.st of NULL."""
    m = _live("v6.16")
    m.cpus[0].st = NOBODY
    with pytest.raises(Crash):
        fpsimd.fpsimd_save_user_state(m, 0)


@pytest.mark.parametrize(("st", "fcpu", "foreign"), [(0, 0, 0), (0, -1, 1), (1, 0, 1), (NOBODY, 0, 1)])
def test_elision_needs_both_halves(st: int, fcpu: int, foreign: int) -> None:
    """fpsimd_last_state and fpsimd_cpu must both agree."""
    m = _live("v6.16")
    m.cpus[0].st, m.tasks[0].fcpu = st, fcpu
    fpsimd.fpsimd_thread_switch_in(m, 0, 0)
    assert foreign == m.tasks[0].FOREIGN


def test_load_follows_fp_type_and_sets_the_flag() -> None:
    """From 6.2 on TIF_SVE follows the format that was loaded."""
    m = _live("v6.2")
    m.tasks[0].FOREIGN = 1
    m.tasks[0].type = FPSIMD
    fpsimd.fpsimd_restore_current_state(m, 0)
    assert (m.tasks[0].SVE, m.cpus[0].ZEN, m.cpus[0].to_save) == (0, 0, CURRENT)


def test_flush_in_a_switch_marks_the_outgoing_task() -> None:
    """``current`` is still the old one in fpsimd_thread_switch."""
    m = _live("v6.16")
    m.tasks[1].KERN, m.tasks[1].FOREIGN, m.tasks[1].kV = 1, 1, fresh(kernel(1))
    fpsimd.fpsimd_thread_switch(m, 0, 1)
    assert m.tasks[0].FOREIGN == 1
    assert (m.cpus[0].st, m.cpus[0].V) == (NOBODY, fresh(kernel(1)))


def test_softirq_in_a_section_gives_the_registers_back() -> None:
    """The interrupted section's registers are saved and loaded."""
    m = _live("v6.16", SYSCALL)
    fpsimd.kernel_neon_begin(m, 0)
    m.wrote(0, kernel(0), "V")
    fpsimd.kernel_neon_begin(m, 0, softirq=True)
    m.cpus[0].V = ZERO
    fpsimd.kernel_neon_end(m, 0, softirq=True)
    assert (fresh(kernel(0)), 1) == (m.cpus[0].V, m.tasks[0].KERN)
