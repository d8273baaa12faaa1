# SPDX-License-Identifier: MIT
"""Named cases of the mainline records that are independent: each follows a pattern, on a vCPU of its own."""

from __future__ import annotations

import re
from collections.abc import Callable

from golden.lab import BUFFER, Lab, LabVcpu
from golden.mainline_scripts import FILL, Answers
from golden.sme_players import BAD, SVE_VLS, Record
from kvmabi import uapi
from kvmabi.device import VmFile

COMBOS = {
    "none": "none", "sve": "SVE", "psci": "PSCI", "pmu": "PMU", "ptrauth": "PA+PG", "el1_32bit": "EL1_32",
    "sve+ptrauth+psci+pmu": "SVE+PA+PG+PSCI+PMU", "sve+ptrauth+psci+pmu+vgic": "SVE+PA+PG+PSCI+PMU",
    "el2": "EL2", "el2+e2h0": "EL2+E2H0", "el2+sve+ptrauth+psci+pmu": "EL2+SVE+PA+PG+PSCI+PMU",
}  # fmt: skip
WITH_VGIC = frozenset({"sve+ptrauth+psci+pmu+vgic", "el2", "el2+e2h0", "el2+sve+ptrauth+psci+pmu"})
CORE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE


def made(lab: Lab, combo: str, *, final: bool = True) -> LabVcpu:
    """A vCPU with a combination of features, finalised if it has SVE."""
    vm = lab.vm()
    if combo in WITH_VGIC:
        _vgic(lab, vm)
    vcpu = lab.vcpu(vm)
    vcpu.init(COMBOS.get(combo, combo))
    if final and "sve" in combo.lower():
        vcpu.finalize()
    return vcpu


def _vgic(lab: Lab, vm: VmFile) -> str:
    lab.memory.put("struct kvm_create_device", uapi.KVM_DEV_TYPE_ARM_VGIC_V3, 0, 0)
    return lab.outcome(vm, uapi.KVM_CREATE_DEVICE)


def play_case(lab: Lab, record: Record) -> Record:
    """A named case: the next answer of the scripts to it, or else what the first pattern that its name fits gives."""
    case = record["reg"] if record["t"] == "sticks" else record["case"]
    answer = lab.kept("answers", lambda: Answers(lab)).next(record["t"], case)
    if answer is not None:
        return answer
    for pattern, play in CASES:
        found = pattern.fullmatch(case)
        if found:
            got = play(lab, found)
            return {"got": got} if isinstance(got, str) else {key: got[key] for key in got if key in record}
    return {}


def _listed(lab: Lab, found: re.Match[str]) -> Record:
    """KVM_GET_REG_LIST with room for some of the list, all of it or more: the count, and the first entry."""
    vcpu = made(lab, found[1])
    total = vcpu.reg_list()[1]
    rooms = {"0": 0, "total-1": total - 1, "total": total, "total+5": total + 5, "2^64-1": (1 << 64) - 1}
    result, count, _ = vcpu.reg_list(rooms[found[2]], fill=FILL)
    return {"got": result, "n": count, "first": hex(_entry(lab, 0))}


def _entry(lab: Lab, index: int) -> int:
    return int.from_bytes(lab.memory.buffer[8 + 8 * index : 16 + 8 * index], "little")


def _after_last(lab: Lab, found: re.Match[str]) -> Record:
    count = made(lab, found[1]).reg_list(fill=FILL)[1]
    return {"v": hex(_entry(lab, count))}


def _unfinished(lab: Lab, found: re.Match[str]) -> Record:
    result, count, _ = made(lab, found[1], final=False).reg_list(0)
    return {"n": count, "got": result}


def _unmapped(lab: Lab, found: re.Match[str]) -> Record:
    """KVM_GET_REG_LIST where the page ends after the count."""
    vcpu, memory = made(lab, found[1]), lab.memory
    room = 0 if found[2] else vcpu.reg_list()[1]
    memory.end_of_page(8)
    memory.buffer[:8] = room.to_bytes(8, "little")
    result = vcpu.ioctl(uapi.KVM_GET_REG_LIST, memory.base)
    return {"got": result, "n": int.from_bytes(memory.buffer[:8], "little")}


def _bad_list(lab: Lab, found: re.Match[str]) -> str:
    vcpu = made(lab, found[1], final=not found[2])
    return vcpu.ioctl(uapi.KVM_GET_REG_LIST, BAD)


def _lengths(lab: Lab, found: re.Match[str]) -> str:
    """KVM_SET_ONE_REG of SVE_VLS with one bit alone, added to the host's or taken from them; bit 0 is 1 quadword."""
    vcpu = made(lab, "sve", final=False)
    bit = 1 << int(found[3]) - (found[2] == "vq")
    host = int.from_bytes(vcpu.value(SVE_VLS), "little")
    value = {"only": bit, "host +": host | bit, "host -": host & ~bit}[found[1]]
    return vcpu.set(SVE_VLS, value.to_bytes(64, "little"))


def _sized(lab: Lab, found: re.Match[str]) -> str:
    vcpu = made(lab, "none")
    offset = 0 if found[1] == "x0" else uapi.KVM_REG_ARM_CORE_REG("fp_regs.vregs[0]")
    id = CORE | offset | int(found[2]) << uapi.KVM_REG_SIZE_SHIFT
    return vcpu.get(id) if found[3] == "GET" else vcpu.set(id, bytes(512))


def _psci(lab: Lab, found: re.Match[str]) -> str:
    vcpu = made(lab, "psci" if found[1] == "PSCI_0_2" else "none")
    return vcpu.set(uapi.KVM_REG_ARM_FW_REG(0), int(found[2], 16))


def _other(lab: Lab, found: re.Match[str]) -> str:
    encodings = {"MIDR": (3, 0, 0, 0, 0), "REVIDR": (3, 0, 0, 0, 6), "AIDR": (3, 1, 0, 0, 7), "CTR": (3, 3, 0, 0, 1)}
    vcpu = made(lab, "none")
    id = uapi.ARM64_SYS_REG(*encodings.get(found[1], (3, 1, 0, 0, 1)))
    return vcpu.set(id, vcpu.number(id) ^ 1)


def _bitmap(lab: Lab, found: re.Match[str]) -> str:
    values = {"0": 0, "~0": (1 << 64) - 1}
    value = values.get(found[2])
    id = uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(int(found[1]))
    return made(lab, "none").set(id, 1 << int(found[2].split()[1]) if value is None else value)


def _again(lab: Lab, found: re.Match[str]) -> str:
    """INIT again of a vCPU with SVE and PSCI."""
    features, target = AGAIN[found[1]]
    vcpu = lab.vcpu()
    vcpu.init("SVE+PSCI")
    return vcpu.init(features, target)


AGAIN: dict[str, tuple[str, int | None]] = {
    "same features": ("SVE+PSCI", None), "PSCI dropped": ("SVE", None), "SVE dropped": ("PSCI", None),
    "POWER_OFF added": ("SVE+PSCI+OFF", None), "PTRAUTH added": ("SVE+PSCI+PA+PG", None),
    "unknown feature added": ("SVE+PSCI+b20", None), "other target": ("SVE+PSCI", 3),
}  # fmt: skip


def _masks(lab: Lab, found: re.Match[str]) -> str:
    vm = lab.vm()
    reach, reserved = int(found[1] == "range=1"), int(found[1] == "reserved=1")
    lab.memory.put("struct reg_mask_range", BUFFER, reach, reserved, *(0,) * 12)
    return lab.outcome(vm, uapi.KVM_ARM_GET_REG_WRITABLE_MASKS)


Play = Callable[[Lab, "re.Match[str]"], str | Record]
COMBO = "|".join(re.escape(combo) for combo in COMBOS)
CASES: tuple[tuple[re.Pattern[str], Play], ...] = tuple(
    (re.compile(pattern), play)
    for pattern, play in (
        (r"(x0|v0) with size 2\^(\d): (GET|SET)", _sized),
        (r"no features: FINALIZE\((-?\d+)\)", lambda lab, found: made(lab, "none").finalize(int(found[1]))),
        (
            r"pstate mode (0x[0-9a-f]+)",
            lambda lab, found: made(lab, "none").set(
                CORE | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE_REG("regs.pstate"), 0x3C0 | int(found[1], 16)
            ),
        ),
        (r"(no PSCI_0_2|PSCI_0_2): PSCI_VERSION=(0x[0-9a-f]+)", _psci),
        (
            r"FW reg (\d) \(WA\d\) = (0x[0-9a-f]+)",
            lambda lab, found: made(lab, "none").set(uapi.KVM_REG_ARM_FW_REG(int(found[1])), int(found[2], 16)),
        ),
        (r"FW bmap (\d) = (0|~0|bit \d+)", _bitmap),
        (r"(\w+)_EL[01] other value", _other),
        (rf"VCPU_INIT again, ({'|'.join(AGAIN)})", _again),
        (r"KVM_ARM_GET_REG_WRITABLE_MASKS (before any vCPU|range=1|reserved=1)", _masks),
        (
            r"sve, before FINALIZE: FINALIZE\((-?\d+)\)",
            lambda lab, found: made(lab, "sve", final=False).finalize(int(found[1])),
        ),
        (r"sve, before FINALIZE: SET SVE_VLS (only|host [+-]) (bit|vq) (\d+)", _lengths),
        (rf"({COMBO}): FINALIZE\(SVE\)", lambda lab, found: made(lab, found[1], final=False).finalize()),
        (rf"({COMBO}), before FINALIZE: GET_REG_LIST n=0", _unfinished),
        (rf"({COMBO}): CREATE_DEVICE vgic-v3", lambda lab, found: _vgic(lab, lab.vm())),
        (rf"({COMBO}): GET_REG_LIST array unmapped(, n=0)?", _unmapped),
        (rf"({COMBO})(, before FINALIZE)?: GET_REG_LIST bad pointer", _bad_list),
        (rf"({COMBO}): GET_REG_LIST n=(.+)", _listed),
        (rf"({COMBO}): entry after the last, untouched", _after_last),
    )
)
