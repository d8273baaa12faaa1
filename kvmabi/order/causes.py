# SPDX-License-Identifier: MIT
"""Why a register does not have its value: the causes as a table, with what is wrong, the rule and the fix."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from kvmabi.model.plan import Stage, Step


class Severity(StrEnum):
    """How bad a finding is."""

    LOST = "lost"
    """The interface took the value: destroyed, refused, cut, never written, of the wrong vCPU or an older save."""
    CHANGED = "changed"
    """The VMM wrote another value than was saved, and it is there, or got another feature: a mistake or an edit."""
    LATENT = "latent"
    """Right here by luck."""


class Cause(NamedTuple):
    """A cause: the kind of its findings, their severity, a title, the rule that was broken, and the fix."""

    kind: str
    severity: Severity
    title: str
    rule: str
    fix: str


LOST, CHANGED, LATENT = Severity.LOST, Severity.CHANGED, Severity.LATENT
INIT, FINALIZE = Step(Stage.INIT), Step(Stage.FINALIZE)
AND_CHECKED = "these registers; check every KVM_SET_ONE_REG for errors"
NUMBERS = (
    "the bits of KVM_ARM_VCPU_INIT and the capabilities that report them belong to a kernel; one may use another's"
)
CHECKED = (
    "ask KVM_CHECK_EXTENSION for the capability before setting the bit, and take both numbers from the headers of the "
    "kernel that has the feature"
)
AFTER_RESTORE = "after a restore every register has the value that was saved"


def _in_order(stage: Stage, after: Step, before: Step) -> str:
    """The fix that puts a stage between two ioctls, which the plan has in this order."""
    assert after.stage < stage < before.stage
    return f"write {stage.title} between {after} and {before}"


def _before(what: str, stage: Stage, later: Stage) -> str:
    """The fix that puts a stage before what belongs to a later one."""
    assert stage < later
    return f"write {stage.title} before {what}"


CAUSES = {
    "bit-mistaken": Cause(
        "feature-bit", CHANGED, "a feature bit that is another feature on this kernel", NUMBERS, CHECKED
    ),
    "bit-unchecked": Cause(
        "feature-bit", LATENT, "a feature bit that other kernels use for another feature", NUMBERS, CHECKED
    ),
    "vcpu-forgotten": Cause(
        "restore-differs",
        LOST,
        "a vCPU that was saved and not restored",
        "every vCPU of a VM has a state of its own",
        "restore every vCPU of the VM before the first KVM_RUN",
    ),
    "mode": Cause(
        "mode-not-restored",
        LOST,
        "saved in a mode that was not restored",
        "SVCR decides which registers exist and their sizes: values saved in one mode are valid only in that mode",
        "save svcr too, restore it before the registers that depend on it, and leave it alone afterwards",
    ),
    "destroyed": Cause(
        "destroyed-by-svcr",
        LOST,
        "values destroyed by a later SVCR write",
        "a write of SVCR that changes SM resets V, Z, P, FFR, FPSR and FPMR; one that changes ZA loses ZA and ZT0",
        _before("these registers", Stage.SVCR, Stage.REST),
    ),
    "za-off": Cause(
        "za-disabled",
        LOST,
        "ZA and ZT0 refused while SVCR.ZA = 0",
        "ZA and ZT0 can be accessed only while SVCR.ZA = 1",
        _before("za.h[<n>] and zt0, and check every KVM_SET_ONE_REG for errors", Stage.SVCR, Stage.REST),
    ),
    "vls-late": Cause(
        "vls-after-finalize",
        LOST,
        "vector lengths written after FINALIZE",
        "SVE_VLS and SME_VLS are fixed by KVM_ARM_VCPU_FINALIZE",
        _in_order(Stage.LENGTHS, INIT, FINALIZE),
    ),
    "vls-late-equal": Cause(
        "vls-after-finalize",
        LATENT,
        "vector lengths written after FINALIZE, equal here by luck",
        "SVE_VLS and SME_VLS are fixed by KVM_ARM_VCPU_FINALIZE; on a host with other lengths they would differ",
        _in_order(Stage.LENGTHS, INIT, FINALIZE),
    ),
    "not-saved": Cause(
        "not-saved",
        LOST,
        "guest state that the save did not read",
        "the list of registers depends on SVCR and the ID registers: an earlier or shortened list lacks some of them",
        "call KVM_GET_REG_LIST for every save, with room for all of it, and read every register in the list",
    ),
    "never-written": Cause(
        "restore-differs",
        LOST,
        "saved, and never written back",
        AFTER_RESTORE,
        "write every register that was saved; look for a filter, a short file or a count that leaves these out",
    ),
    "init": Cause(
        "restore-differs",
        LOST,
        "values undone by KVM_ARM_VCPU_INIT",
        Stage.INIT.why,
        f"call {INIT} once, before the restore",
    ),
    "absent": Cause(
        "restore-differs",
        LOST,
        "registers that do not exist in the vCPU's mode, or on this host and kernel",
        "Z, P and FFR of a vCPU without SVE exist only while SVCR.SM = 1, and only after FINALIZE",
        f"call {FINALIZE} and {_before(AND_CHECKED, Stage.SVCR, Stage.REST)}",
    ),
    "refused": Cause(
        "restore-differs",
        LOST,
        "values that KVM_SET_ONE_REG refused",
        "a refused value is not stored",
        "check every KVM_SET_ONE_REG for errors; the reason says what this host or kernel does not accept",
    ),
    "cut": Cause(
        "restore-differs",
        LOST,
        "vectors cut to a shorter length",
        "in streaming mode Z, P and FFR have SME's vector length, else SVE's: bytes beyond the length are ignored",
        f"restore {Stage.LENGTHS.title}, {Stage.SVCR.title}, then vectors; a destination needs the source's lengths",
    ),
    "cut-by-vmm": Cause(
        "restore-differs",
        CHANGED,
        "values that the VMM wrote only in part, the rest zero",
        "a register has as many bytes as its ID says; Z holds its mode's vector length, of which V is the first 16",
        "keep as many bytes as KVM_GET_ONE_REG returns: 8 for most, 256 for Z, 32 for P",
    ),
    "torn": Cause(
        "restore-differs",
        LOST,
        "read before the guest ran on, in the middle of the save",
        "a save is of one state: what is read before the guest runs on belongs to another one",
        "pause every vCPU, then read all registers",
    ),
    "wrong-vcpu": Cause(
        "restore-differs",
        LOST,
        "state of another vCPU",
        "every vCPU of a VM has a state of its own",
        "check how saved states are assigned to vCPUs",
    ),
    "older-save": Cause(
        "restore-differs",
        LOST,
        "values of an older save",
        "all registers of a restore belong to one save",
        "check which buffer or file these registers come from",
    ),
    "shifted": Cause(
        "restore-differs",
        CHANGED,
        "values that were saved for other registers",
        AFTER_RESTORE,
        "keep each value with its register's ID, not by its place in the list",
    ),
    "byte-order": Cause(
        "restore-differs",
        CHANGED,
        "values whose bytes are in another order",
        "values are in the byte order of the VMM; vectors are bytes, the lowest first",
        "write back the bytes that KVM_GET_ONE_REG returned, unchanged",
    ),
    "changed": Cause(
        "restore-differs",
        CHANGED,
        "other values than were saved",
        AFTER_RESTORE,
        "if this is an edit, write the saved value first and the new one after it, or leave it out with --ignore",
    ),
    "kept-other": Cause(
        "restore-differs",
        LOST,
        "values that were accepted and are not there",
        AFTER_RESTORE,
        "compare hosts and kernels: what this one keeps of the value differs",
    ),
    "gic-refused": Cause(
        "vgic-differs",
        LOST,
        "registers of the interrupt controllers that KVM_SET_DEVICE_ATTR refused",
        "a vGIC's registers can be written once it is initialised, and while no vCPU runs",
        "create the vCPUs, call KVM_DEV_ARM_VGIC_CTRL_INIT, then write the registers, and check every call for errors",
    ),
    "gic-never-written": Cause(
        "vgic-differs",
        LOST,
        "registers of the interrupt controllers that were saved and never written back",
        "enabled, pending and active interrupts and their priorities and targets are guest state",
        "write back every register of the distributor, of each redistributor and CPU interface, and of the ITS",
    ),
    "gic-late": Cause(
        "vgic-differs",
        LOST,
        "registers of the interrupt controllers that were written after the guest was entered",
        "the guest takes or misses interrupts by what its controllers hold when it is entered",
        "restore the interrupt controllers before the first KVM_RUN of any vCPU",
    ),
    "gic-undone": Cause(
        "vgic-differs",
        LOST,
        "registers of the interrupt controllers that were written as saved and are not there",
        "GICD_IIDR decides what later writes mean; a table's address is fixed while GICR_CTLR or GITS_CTLR enables it; "
        "ICENABLER, ICPENDR and ICACTIVER clear what ISENABLER, ISPENDR and ISACTIVER set",
        "write GICD_IIDR first, clear before you set, and write GICR_CTLR and GITS_CTLR after the addresses of tables",
    ),
    "gic-changed": Cause(
        "vgic-differs",
        CHANGED,
        "registers of the interrupt controllers with other values than were saved",
        AFTER_RESTORE,
        "write back the value that KVM_GET_DEVICE_ATTR returned, for the same affinity and register",
    ),
    "time": Cause(
        "restore-differs",
        LOST,
        "the guest's time jumps",
        "cntvct_el0 is the guest's time: it must not go back, and not run ahead by more than the time that passed",
        "save and restore cntvct_el0 (KVM_REG_ARM_TIMER_CNT) or set the VM's counter offset",
    ),
}
"""What can be the matter, in the order in which a report shows it."""
