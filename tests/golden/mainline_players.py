# SPDX-License-Identifier: MIT
"""What each type of record of the mainline kernels says was done: done again on the model, and what that gives."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

from golden.lab import BUFFER, STRUCT, Lab, LabVcpu, outcome
from golden.sme_players import BAD, SVE_VLS, Record, play_caps, play_preferred
from kvmabi import uapi
from kvmabi.model.registermap import size_of

COMBOS = {
    "none": "none", "sve": "SVE", "psci": "PSCI", "pmu": "PMU", "ptrauth": "PA+PG", "el1_32bit": "EL1_32",
    "sve+ptrauth+psci+pmu": "SVE+PA+PG+PSCI+PMU", "sve+ptrauth+psci+pmu+vgic": "SVE+PA+PG+PSCI+PMU",
    "el2": "EL2", "el2+e2h0": "EL2+E2H0", "el2+sve+ptrauth+psci+pmu": "EL2+SVE+PA+PG+PSCI+PMU",
}  # fmt: skip
CORE = uapi.KVM_REG_ARM64 | uapi.KVM_REG_ARM_CORE
Z5, P5 = uapi.KVM_REG_ARM64_SVE_ZREG(5, 0), uapi.KVM_REG_ARM64_SVE_PREG(5, 0)
RUNNING = ("df01", "df1a")


def made(lab: Lab, combo: str, *, final: bool = True) -> LabVcpu:
    """A vCPU with a combination of features, finalised if it has SVE."""
    vcpu = lab.vcpu()
    vcpu.init(COMBOS.get(combo, combo))
    if final and "sve" in combo.lower():
        vcpu.finalize()
    return vcpu


def play_init(lab: Lab, record: Record) -> Record:
    words = [int(record.get("features0", "0"), 16)]
    if "features_word" in record:
        words = [0] * record["features_word"] + [1]
    return {"got": lab.vcpu().words(record.get("target", lab.kernel.target), *words)}


def runs(answers: Iterator[str]) -> list[list[Any]]:
    """Answers by number as [first, last, answer] of each run of equals."""
    found: list[list[Any]] = []
    for number, answer in enumerate(answers):
        if found and found[-1][2] == answer:
            found[-1][1] = number
        else:
            found.append([number, number, answer])
    return found


def play_coremap(lab: Lab, record: Record) -> Record:
    vcpu = made(lab, "none")
    size = record["size_log2"] << uapi.KVM_REG_SIZE_SHIFT
    return {"runs": runs(vcpu.get(CORE | size | offset) for offset in range(0x400))}


def _access(vcpu: LabVcpu, record: Record, get_key: str, set_key: str) -> Record:
    id = int(record["id"], 16)
    size = size_of(id)
    result = vcpu.get(id)
    value = bytes(vcpu.memory.buffer[:size]) if result == "OK" else b"\xcc" * size
    out: Record = {get_key: result, set_key: vcpu.set(id, value)}
    out |= {"get_efault": vcpu.get(id, addr=BAD), "set_efault": vcpu.set(id, addr=BAD)}
    if "val" in record and not record["id"].endswith(RUNNING):
        out["val"] = value
    return out


def play_id(lab: Lab, record: Record) -> Record:
    return _access(made(lab, "none"), record, "got", "set_same")


def play_sveid(lab: Lab, record: Record) -> Record:
    return _access(made(lab, "sve", final="after" in record["phase"]), record, "get", "set")


def play_vls(lab: Lab, _record: Record) -> Record:
    vcpu = made(lab, "sve", final=False)
    value = int.from_bytes(vcpu.value(SVE_VLS), "little")
    return {"host": hex(value), "max_vq": value.bit_length()}


def play_vls_all(lab: Lab, _record: Record) -> Record:
    """All 65,536 sets of the lengths up to 16 quadwords."""
    vcpu = made(lab, "sve", final=False)
    accepted, counts = [], {"OK": 0, "EINVAL": 0}
    for number in range(1 << 16):
        result = vcpu.set(SVE_VLS, number.to_bytes(64, "little"))
        counts[result] = counts.get(result, 0) + 1
        if result == "OK":
            accepted.append([hex(number), hex(vcpu.number(SVE_VLS))])
    return {"accepted": accepted, "counts": counts}


def play_slices(lab: Lab, record: Record) -> Record:
    vcpu = made(lab, "sve", final="after" in record["phase"])
    counts: dict[str, int] = {}
    banks = [uapi.KVM_REG_ARM64_SVE_ZREG(n, 0) for n in range(32)]
    banks += [uapi.KVM_REG_ARM64_SVE_PREG(n, 0) for n in range(16)] + [uapi.KVM_REG_ARM64_SVE_FFR(0)]
    for id in (bank | slice for bank in banks for slice in range(1, 32)):
        for result in (vcpu.get(id), vcpu.set(id)):
            counts[result] = counts.get(result, 0) + 1
    return {"counts": counts}


def play_limit(lab: Lab, record: Record) -> Record:
    vcpu = made(lab, "sve", final=False)
    value = int(record["set"], 16)
    first = vcpu.set(SVE_VLS, value.to_bytes(64, "little")), vcpu.finalize()
    pattern = bytes(n + 1 & 0xFF for n in range(255)) + b"\x07"
    z_set = vcpu.set(uapi.KVM_REG_ARM64_SVE_ZREG(0, 0), pattern)
    seen = vcpu.value(uapi.KVM_REG_ARM64_SVE_ZREG(0, 0))
    stuck = next((n for n in range(256) if seen[n] != pattern[n]), 256)
    zcr = uapi.ARM64_SYS_REG(3, 0, 1, 2, 0)
    return {
        "set_vls": first[0], "finalize": first[1], "vls": hex(vcpu.number(SVE_VLS)), "z_set": z_set, "z_bytes": stuck,
        "rest_zero": int(not any(seen[stuck:])), "nregs": vcpu.reg_list()[1],
        "zcr_set_ones": vcpu.set(zcr, (1 << 64) - 1), "zcr_read": hex(vcpu.number(zcr)),
    }  # fmt: skip


def _fault(vcpu: LabVcpu, id: int, mapped: int) -> tuple[str, str, bytes]:
    """A get and a set of a register at a buffer that ends after so many bytes, and what the register holds then."""
    size = size_of(id)
    vcpu.set(id, b"\x11" * size)
    vcpu.memory.end_of_page(mapped)
    got = vcpu.get(id, addr=vcpu.memory.base)
    vcpu.memory.buffer[:mapped] = b"\x77" * mapped
    result = vcpu.set(id, addr=vcpu.memory.base)
    vcpu.memory.end_of_page(None)
    return got, result, vcpu.value(id)


def play_zfault(lab: Lab, record: Record) -> Record:
    got, result, value = _fault(made(lab, "sve"), Z5, record["mapped_bytes"])
    return {"get": got, "set": result, "z_after_set": value}


def _one_quadword(lab: Lab) -> LabVcpu:
    vcpu = made(lab, "sve", final=False)
    vcpu.set(SVE_VLS, (1).to_bytes(64, "little"))
    vcpu.finalize()
    return vcpu


def play_zfault_vq1(lab: Lab, record: Record) -> Record:
    got, result, value = _fault(_one_quadword(lab), Z5, record["mapped_bytes"])
    return {"get": got, "set": result, "z_after_set": value}


def play_pfault_vq1(lab: Lab, record: Record) -> Record:
    got, result, value = _fault(_one_quadword(lab), P5, record["mapped_bytes"])
    return {"get": got, "set": result, "p_after_set": value}


def _encoded(name: str) -> int:
    ops = re.fullmatch(r"S(\d)_(\d)_C(\d+)_C(\d+)_(\d)", name)
    assert ops is not None
    return int(uapi.ARM64_SYS_REG(*map(int, ops.groups())))


def play_idmask(lab: Lab, record: Record) -> Record:
    masks = lab.vcpu().file.vcpu.system.writable_masks()
    return {"writable": f"{masks.get(_encoded(record['reg']), 0):#018x}"}


def play_idreg(lab: Lab, record: Record) -> Record:
    vcpu = lab.vcpu()
    vcpu.init(int(record["features0"], 16))
    vcpu.finalize()
    id = _encoded(record["reg"])
    value = vcpu.number(id)
    fields = {}
    for key in record["fields"]:
        now = value >> int(key) & 15
        answers = []
        for new in ((now - 1) & 15, 0, (now + 1) & 15, 15):
            wanted = value & ~(15 << int(key)) | new << int(key)
            result = vcpu.set(id, wanted)
            answers.append(result + ("*" if result == "OK" and vcpu.number(id) != wanted else ""))
            vcpu.set(id, value)
        fields[key] = [now, *answers]
    return {"val": f"{value:#018x}", "fields": fields}


def play_combo(lab: Lab, record: Record) -> Record:
    return {"init": lab.vcpu().init(COMBOS[record["combo"]])}


def play_list(lab: Lab, record: Record) -> Record:
    result, count, _ = made(lab, record["combo"]).reg_list()
    return {"got": result, "n": count} if "n" in record else {"got": result}


def play_reg(lab: Lab, record: Record) -> Record:
    vcpu = lab.cached(record["combo"], lambda: made(lab, record["combo"]))
    id = int(record["id"], 16)
    place = vcpu.file.vcpu.reg_list()[record["i"]]
    result = vcpu.get(id)
    value = bytes(vcpu.memory.buffer[: size_of(id)])
    out: Record = {"id": f"{place:#018x}", "get": result, "set": vcpu.set(id, value)}
    return out if record["id"].endswith(RUNNING) else {**out, "val": value}


def play_wr(lab: Lab, record: Record) -> Record:
    vcpu = lab.cached(f"wr {record['combo']}", lambda: made(lab, record["combo"]))
    id = int(record["id"], 16)
    size = size_of(id)
    before = vcpu.value(id)
    out: Record = {}
    for new, key in ((b"\xff" * size, "1"), (bytes(size), "0")):
        out[f"set{key}"] = vcpu.set(id, new)
        read = vcpu.value(id)
        if read != (new if out[f"set{key}"] == "OK" else before):
            out[f"read{key}"] = read
        vcpu.set(id, before)
    if record["id"].endswith(RUNNING):
        return {key: value for key, value in out.items() if key.startswith("set")}
    unread = {key: None for key in ("read0", "read1") if key in record and key not in out}
    return out | unread


def play_n(lab: Lab, record: Record) -> Record:
    """KVM_GET_REG_LIST's count, where the case is one of the general ones."""
    where = re.fullmatch(r"([a-z0-9_+]+): GET_REG_LIST n=(.+)", record["case"])
    if where is None or where[1] not in COMBOS:
        return {}
    vcpu = made(lab, where[1])
    total = vcpu.reg_list()[1]
    rooms = {"0": 0, "total-1": total - 1, "total": total, "total+5": total + 5, "2^64-1": (1 << 64) - 1}
    result, count, _ = vcpu.reg_list(rooms[where[2]])
    return {"got": result, "n": count}


def _operation(lab: Lab, record: Record) -> Callable[[int], str]:
    """What a sweep does with each id: a get, or a set from an address that is not mapped."""
    vcpu = lab.cached(f"sweep {record['combo']}", lambda: made(lab, record["combo"]))
    return vcpu.get if record["op"] == "GET" else lambda id: vcpu.set(id, addr=BAD)


def play_sweep(lab: Lab, record: Record) -> Record:
    """One operation on every index from a base id on."""
    act, base, last = _operation(lab, record), int(record["base"], 16), record["runs"][-1][1]
    return {"runs": runs(act(base + n) for n in range(last + 1))}


def play_sweep_coproc(lab: Lab, record: Record) -> Record:
    """One operation on the first 64-bit id of every coprocessor."""
    act, base = _operation(lab, record), uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64
    return {"runs": runs(act(base | n << uapi.KVM_REG_ARM_COPROC_SHIFT) for n in range(1 << 12))}


def play_bitflip(lab: Lab, record: Record) -> Record:
    """One operation on an id with each of its bits flipped."""
    act, id = _operation(lab, record), int(record["id"], 16)
    return {"errno_by_bit": [act(id ^ 1 << bit) for bit in range(64)]}


def play_err(lab: Lab, record: Record) -> Record:
    """The named cases that follow a pattern."""
    for pattern, play in CASES:
        found = pattern.fullmatch(record["case"])
        if found:
            return {"got": play(lab, found)}
    return {}


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
    lab.memory.struct[:] = struct.pack("=QI13I", BUFFER, reach, reserved, *(0,) * 12)
    return outcome(lambda: vm.ioctl(uapi.KVM_ARM_GET_REG_WRITABLE_MASKS, STRUCT, lab.memory))


Play = Callable[[Lab, "re.Match[str]"], str]
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
    )
)
PLAYERS: dict[str, Callable[[Lab, Record], Record]] = {
    "caps": play_caps,
    "preferred": lambda lab, record: play_preferred(lab, record),
    **{name.removeprefix("play_"): play for name, play in list(globals().items()) if name.startswith("play_")},
}
