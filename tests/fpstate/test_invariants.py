# SPDX-License-Identifier: MIT
"""Each invariant can be broken, is reported by name, and can be chosen alone."""

from collections.abc import Callable

import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate import events
from kvmabi.fpstate.config import Config
from kvmabi.fpstate.events import Event
from kvmabi.fpstate.invariants import MEANING, breaches, select
from kvmabi.fpstate.machine import Breach, Machine
from kvmabi.fpstate.state import FREE, GUEST, SVE
from kvmabi.fpstate.tokens import JUNK, fresh, guest, kernel, stale, user
from kvmabi.fpstate.variants import find_variant

CONFIG = Config(cpus=2, tasks=2, vcpus=1, sve=True, neon=True, softirq=True, idle=True, guest_fp=True, guest_sve=True)
TO_USER = [("switch", 0), ("ret_to_user", -1)]
TO_SYSCALL = [*TO_USER, ("user_write_v", -1), ("el0_svc", -1)]
TO_NEON = [*TO_SYSCALL, ("kernel_neon_begin", -1)]
TO_GUEST = [*TO_SYSCALL, ("vcpu_load", 0), ("guest_enter", -1), ("guest_fp_trap", -1), ("guest_write", -1)]
TO_EXIT = [*TO_GUEST, ("guest_exit", -1)]


def _at(story: list[tuple[str, int]]) -> Machine:
    m = Machine.boot(find_variant("v6.16").knobs, CONFIG)
    for name, arg in story:
        assert Event(name, 0, arg) in list(events.enabled(m))
        assert events.apply(m, Event(name, 0, arg))
    assert list(breaches(m)) == []
    return m


def _set(kind: str, **values: object) -> Callable[[Machine], None]:
    def change(m: Machine) -> None:
        part = {"cpu": m.cpus[0], "task": m.tasks[0], "vcpu": m.vcpus[0]}[kind]
        for field, value in values.items():
            setattr(part, field, value)

    return change


LIES: list[tuple[str, list[tuple[str, int]], Callable[[Machine], None]]] = [
    ("O1.V", TO_USER, _set("cpu", V=stale(user(0)))),
    ("O1.Z", TO_USER, _set("cpu", Z=JUNK, ZEN=1)),
    ("O2.Z", TO_USER, _set("task", want_Z=fresh(user(0)))),
    ("O3.V", TO_NEON, _set("cpu", V=fresh(kernel(1)))),
    ("O4.V", TO_GUEST, _set("cpu", V=stale(guest(0)))),
    ("O4.Z", TO_GUEST, _set("cpu", Z=0)),
    ("M1.ZEN", TO_USER, _set("cpu", ZEN=1)),
    ("M2", TO_SYSCALL, _set("cpu", st=user(1))),
    ("M3", TO_SYSCALL, _set("cpu", V=JUNK)),
    ("M4", TO_EXIT, _set("task", fV=0)),
    ("M5", TO_NEON, _set("task", FOREIGN=0)),
    ("M6", TO_SYSCALL, _set("task", type=SVE)),
    ("M7", TO_EXIT, _set("cpu", st=user(0))),
]


@pytest.mark.parametrize(("clause", "story", "lie"), LIES, ids=lambda x: x if isinstance(x, str) else "")
def test_a_lie_is_noticed(clause: str, story: list[tuple[str, int]], lie: Callable[[Machine], None]) -> None:
    """A correct state has no breach; with one field falsified this clause is among the breaches."""
    m = _at(story)
    lie(m)
    broken = list(breaches(m))
    assert clause in {b.clause for b in broken}
    assert any(select(clause.partition(".")[0]).wants(b) for b in broken)


def test_o6_is_reported_by_the_step() -> None:
    """A WARN edge of the kernel counts."""
    m = _at(TO_USER)
    m.tasks[0].SVE = 1
    assert events.apply(m, Event("el0_sve_trap", 0))
    assert events.apply(m, Event("do_sve_acc", 0))
    assert "O6" in {b.clause for b in breaches(m)}


def test_o7_is_the_leaks_among_the_observations() -> None:
    """Another owner's token breaks O7, a stale value of the same owner does not."""
    assert select("O7").wants(Breach("O1.V", "leak", ""))
    assert select("O7").wants(Breach("O4.Z", "leak", ""))
    assert not select("O7").wants(Breach("O1.V", "stale", ""))
    assert not select("O7").wants(Breach("O5.V", "leak", ""))


def test_m8_sees_two_claims() -> None:
    """Two CPUs that both claim a task cannot both be its fpsimd_cpu: the clause is structural."""
    m = _at(TO_USER)
    m.cpus[1].st = user(0)
    assert "M8" not in {b.clause for b in breaches(m)}


@pytest.mark.parametrize("name", list(MEANING))
def test_each_invariant_can_be_chosen_alone(name: str) -> None:
    """A selection wants its own number and no other."""
    chosen = select(name)
    wanted = [n for n in MEANING if chosen.wants(Breach(n, "lie", ""))]
    assert wanted == [name]


@pytest.mark.parametrize("text", ["", "O9", "O1:weird", "obs,Q", "M"])
def test_wrong_selections_are_misuse(text: str) -> None:
    """One clear error."""
    with pytest.raises(UsageError):
        select(text)


def test_groups_and_kinds() -> None:
    """ "obs", "meta" and "clause:kind"."""
    assert select("obs,meta").names == select("all").names
    assert select("O1.V:leak").wants(Breach("O1.V", "leak", ""))
    assert not select("O1.V:leak").wants(Breach("O1.V", "lost", ""))


def test_owner_free_guest_is_not_checked() -> None:
    """A guest that has not used FP observes nothing."""
    m = _at(TO_GUEST[:-2])
    m.cpus[0].V = JUNK
    assert m.cpus[0].owner == FREE != GUEST
    assert "O4.V" not in {b.clause for b in breaches(m)}
