# SPDX-License-Identifier: MIT
"""The invariants: observations O1-O7 and metadata M1-M8. Each clause can be selected separately.

O5 and O6 are properties of steps, not of states: the transitions report them (Machine.broken).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvmabi.errors import UsageError
from kvmabi.fpstate import kvm
from kvmabi.fpstate.machine import Breach, Machine
from kvmabi.fpstate.state import GUEST, GUEST_MODE, NEON, SM, SVE, USER, VCPU, Cpu, Task
from kvmabi.fpstate.tokens import ZERO, difference, fresh, guest, kernel, name, owner_name, user

MEANING = {
    "O1": "a user sees its own newest V, Z, FPMR, SM and ZA",
    "O2": "a user whose next SVE instruction traps has no live SVE state",
    "O3": "a kernel-mode NEON section sees what it wrote",
    "O4": "a guest sees its own newest registers",
    "O5": "signal frames and cloned children get the newest state",
    "O6": "no SIGKILL, BUG or WARN",
    "O7": "no owner sees another owner's registers (the leaks among O1 to O4)",
    "M1": "in user mode, not streaming: ZEN agrees with TIF_SVE, SMEN with TIF_SME",
    "M2": "FOREIGN=0: this CPU's fpsimd_last_state is current's, or its vCPU's",
    "M3": "fpsimd_last_state and fpsimd_cpu agree on a task: the registers hold its newest state",
    "M4": "a task that is live nowhere has its newest state in the copy that will be loaded",
    "M5": "inside a preemptible NEON section FOREIGN is set",
    "M6": "without SME: fp_type=SVE only with TIF_SVE",
    "M7": "after a guest exit with the guest's registers live, fpsimd_last_state is the vCPU's",
    "M8": "at most one CPU believes that it holds a task's state",
}
OBSERVATION = tuple(n for n in MEANING if n[0] == "O")
METADATA = tuple(n for n in MEANING if n[0] == "M")
KINDS = ("leak", "stale", "lost", "lie", "bug")


@dataclass(frozen=True)
class Selection:
    """The selected breaches. ``names`` holds invariants ("O1"), clauses ("O1.V") or kinds of them ("O1.V:leak")."""

    names: frozenset[str]

    def wants(self, breach: Breach) -> bool:
        """Whether this breach is selected."""
        number, clause = breach.invariant, breach.clause
        wanted = {number, clause, f"{number}:{breach.kind}", f"{clause}:{breach.kind}"}
        if breach.kind == "leak" and number in ("O1", "O3", "O4"):
            wanted.add("O7")
        return not wanted.isdisjoint(self.names)

    @property
    def needs_m4(self) -> bool:
        """Whether M4, the only clause that spans all CPUs, is selected."""
        return any(n.startswith("M4") for n in self.names)

    def __str__(self) -> str:
        return ",".join(sorted(self.names))


def select(text: str) -> Selection:
    """Parse "obs", "meta", "all" or a list such as "O1,M3,O1.V:leak". Raises UsageError on unknown names."""
    names: set[str] = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        groups = {"obs": OBSERVATION, "meta": METADATA, "all": (*OBSERVATION, *METADATA)}
        if part in groups:
            names.update(groups[part])
            continue
        head, _, kind = part.partition(":")
        if head.partition(".")[0] not in MEANING or (kind and kind not in KINDS):
            raise UsageError(f"no invariant {part!r}: name obs, meta, all, or some of {', '.join(MEANING)}")
        names.add(part)
    if not names:
        raise UsageError("no invariant is chosen")
    return Selection(frozenset(names))


def _register(clause: str, who: str, seen: int, wanted: int) -> Iterator[Breach]:
    if seen != wanted:
        register = clause.partition(".")[2]
        text = f"{who} reads {register}={name(seen)}, expected {name(wanted)}"
        yield Breach(clause, difference(seen, wanted), text)


def _user_mode(m: Machine, c: int, cpu: Cpu, t: Task) -> Iterator[Breach]:
    who = f"T{cpu.cur} user"
    yield from _register("O1.V", who, cpu.V, t.want_V)
    if m.config.fpmr:
        yield from _register("O1.F", who, cpu.F, t.want_F)
    if m.config.sme:
        if t.want_SM != cpu.SM:
            yield Breach("O1.SM", "lost" if t.want_SM else "stale", f"{who} has SM={cpu.SM}, expected {t.want_SM}")
        if t.want_ZA != cpu.ZA:
            yield Breach("O1.ZA", "lost" if t.want_ZA else "stale", f"{who} has ZA={cpu.ZA}, expected {t.want_ZA}")
        if not cpu.SM and cpu.SMEN != t.SME:
            yield Breach("M1.SMEN", "lie", f"{who} runs with SMEN={cpu.SMEN} but TIF_SME={t.SME}")
    if cpu.SM or (m.config.sve and cpu.ZEN):
        yield from _register("O1.Z", who, cpu.Z, t.want_Z)
    elif t.want_Z != ZERO:
        yield Breach("O2.Z", "lost", f"{who}'s next SVE instruction traps and reads Z=0, expected {name(t.want_Z)}")
    if not cpu.SM and cpu.ZEN != t.SVE:
        yield Breach("M1.ZEN", "lie", f"{who} runs with ZEN={cpu.ZEN} but TIF_SVE={t.SVE}")


def _guest_mode(m: Machine, c: int, cpu: Cpu) -> Iterator[Breach]:
    if not kvm.guest_has_registers(m, c):
        return
    vcpu, who = m.vcpus[cpu.guest], f"V{cpu.guest} guest"
    yield from _register("O4.V", who, cpu.V, vcpu.want_V)
    if m.config.guest_sve:
        yield from _register("O4.Z", who, cpu.Z, vcpu.want_Z)


def breaches_of_current(m: Machine, c: int) -> Iterator[Breach]:
    """The breaches of the CPU's current task, NEON section or guest."""
    cpu, t = m.cpus[c], m.current(c)
    if t.mode == USER:
        yield from _user_mode(m, c, cpu, t)
    elif t.mode == NEON:
        yield from _register("O3.V", f"T{cpu.cur} NEON section", cpu.V, fresh(kernel(cpu.cur)))
    elif t.mode == GUEST_MODE:
        yield from _guest_mode(m, c, cpu)
    if t.FOREIGN:
        return
    own = cpu.st == user(cpu.cur) and t.fcpu == c
    if not own and (t.vcpu < 0 or cpu.st != guest(t.vcpu)):
        text = f"T{cpu.cur} has FOREIGN=0 but CPU{c}'s registers belong to {owner_name(cpu.st)}"
        yield Breach("M2", "lie", text)
    if t.mode == VCPU and kvm.notes(m, c, t.vcpu).owner == GUEST and cpu.st != guest(t.vcpu):
        yield Breach("M7", "lie", f"KVM says GUEST but CPU{c}'s registers belong to {owner_name(cpu.st)}")


def bound(m: Machine, c: int, task: int) -> bool:
    """The condition of the elision: this CPU and this task agree that the registers hold its state."""
    return m.cpus[c].st == user(task) and m.tasks[task].fcpu == c


def live(m: Machine, c: int, task: int) -> bool:
    """Whether the CPU holds the task's state: the metadata says so and no guest has taken the registers."""
    if not bound(m, c, task):
        return False
    cpu = m.cpus[c]
    if cpu.guest < 0:
        return True
    return cpu.cur == task and kvm.notes(m, c, cpu.guest).owner != GUEST


def breaches_of_binding(m: Machine, c: int, task: int) -> Iterator[Breach]:
    """M3: a CPU that claims a task's state must hold it."""
    if not live(m, c, task) or m.cpus[c].hyp:
        return
    cpu, t = m.cpus[c], m.tasks[task]
    wrong = [] if t.want_V == cpu.V else [f"V={name(cpu.V)}"]
    if m.config.fpmr and t.want_F != cpu.F:
        wrong.append(f"F={name(cpu.F)}")
    if t.want_SM != cpu.SM or t.want_ZA != cpu.ZA:
        wrong.append(f"SM={cpu.SM} ZA={cpu.ZA}")
    if (t.SVE or cpu.SM) and t.want_Z != cpu.Z:
        wrong.append(f"Z={name(cpu.Z)}")
    if wrong:
        text = f"st says U(T{task}) and fpsimd_cpu says CPU{c}, but its registers hold {', '.join(wrong)}"
        yield Breach("M3", "lie", text)


def memory_is_fresh(m: Machine, task: int) -> bool:
    """Whether a load would restore the task's newest state."""
    t = m.tasks[task]
    if m.config.fpmr and t.want_F != t.F:
        return False
    if m.config.sme and t.svcr != (SM * t.want_SM | 2 * t.want_ZA):
        return False
    borrowed = m.knobs.kvm_tif and t.mode in (VCPU, GUEST_MODE)  # TIF_SVE is the guest's there
    sve = t.type == SVE if m.knobs.load_by_type else bool((t.SVE and not borrowed) or t.svcr & SM)
    if sve:
        return t.sV == t.want_V and t.sZ == t.want_Z
    return t.fV == t.want_V and t.want_Z == ZERO


def breaches_of_task(m: Machine, task: int) -> Iterator[Breach]:
    """The breaches of a task's own metadata, whichever CPU it runs on."""
    t = m.tasks[task]
    if t.KERN and not t.FOREIGN:
        yield Breach("M5", "lie", f"T{task} is in a NEON section with FOREIGN=0")
    if not m.config.sme and m.knobs.fp_type and t.type == SVE and not t.SVE:
        yield Breach("M6", "lie", f"T{task} has fp_type=SVE but TIF_SVE=0")


def stale_copy(m: Machine, task: int) -> Breach:
    """The breach of M4 for a task whose state is live on no CPU."""
    t = m.tasks[task]
    copies = f"fV={name(t.fV)} sV={name(t.sV)} sZ={name(t.sZ)}"
    wanted = f"V={name(t.want_V)} Z={name(t.want_Z)} SM={t.want_SM}"
    if m.config.fpmr:
        copies += f" F={name(t.F)}"
        wanted += f" F={name(t.want_F)}"
    text = f"T{task} is live nowhere and memory has fp_type={t.type} SVE={t.SVE} svcr={t.svcr} {copies}"
    return Breach("M4", "lie", f"{text}, expected {wanted}")


def breaches(m: Machine) -> Iterator[Breach]:
    """All breaches of the state, and those of the step that led to it (m.broken)."""
    yield from m.broken
    for c in range(len(m.cpus)):
        if m.cpus[c].cur >= 0:
            yield from breaches_of_current(m, c)
    for task in range(len(m.tasks)):
        for c in range(len(m.cpus)):
            yield from breaches_of_binding(m, c, task)
        yield from breaches_of_task(m, task)
        claims = [c for c in range(len(m.cpus)) if bound(m, c, task)]
        if len(claims) > 1:
            yield Breach("M8", "lie", f"CPUs {claims} all claim T{task}'s state")
        if not any(live(m, c, task) for c in claims) and not memory_is_fresh(m, task):
            yield stale_copy(m, task)
