# SPDX-License-Identifier: MIT
"""Does the operation of each type of record of the mainline kernels on the model, and returns its result."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from golden.lab import Lab, LabVcpu
from golden.mainline_cases import COMBOS, CORE, made, play_case
from golden.mainline_scripts import FILL
from golden.sme_players import BAD, SVE_VLS, Record, play_caps, play_preferred
from kvmabi import uapi
from kvmabi.model.row import size_of

Z5, P5 = uapi.KVM_REG_ARM64_SVE_ZREG(5, 0), uapi.KVM_REG_ARM64_SVE_PREG(5, 0)
RUNNING = ("df01", "df1a")


def play_api(lab: Lab, _record: Record) -> Record:
    version = lab.ioctl(lab.system, uapi.KVM_GET_API_VERSION, 0)
    return {"version": version, "vcpu_mmap_size": lab.ioctl(lab.system, uapi.KVM_GET_VCPU_MMAP_SIZE, 0)}


def play_init(lab: Lab, record: Record) -> Record:
    words = [int(record.get("features0", "0"), 16)]
    if "features_word" in record:
        words = [0] * record["features_word"] + [1]
    return {"got": lab.vcpu().words(record.get("target", lab.kernel.target), *words)}


def runs(answers: Iterator[str]) -> list[list[Any]]:
    """Answers by number as [first, last, answer] of each run of equals."""
    runs: list[list[Any]] = []
    for number, answer in enumerate(answers):
        if runs and runs[-1][2] == answer:
            runs[-1][1] = number
        else:
            runs.append([number, number, answer])
    return runs


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


def _fault(vcpu: LabVcpu, id: int, record: Record) -> Record:
    """A get and a set of a register at a buffer that ends after N bytes, and what each leaves."""
    mapped = record["mapped_bytes"]
    vcpu.set(id, b"\x11" * size_of(id))
    vcpu.memory.end_of_page(mapped)
    out: Record = {"get": vcpu.get(id, addr=vcpu.memory.base, fill=FILL)}
    out["got_bytes"] = bytes(vcpu.memory.buffer[:mapped])
    out["set"] = vcpu.set(id, b"\x77" * mapped, addr=vcpu.memory.base)
    vcpu.memory.end_of_page(None)
    out["z_after_set" if id == Z5 else "p_after_set"] = vcpu.value(id)
    return {key: value for key, value in out.items() if key in record}


def play_zfault(lab: Lab, record: Record) -> Record:
    return _fault(made(lab, "sve"), Z5, record)


def _one_quadword(lab: Lab) -> LabVcpu:
    vcpu = made(lab, "sve", final=False)
    vcpu.set(SVE_VLS, (1).to_bytes(64, "little"))
    vcpu.finalize()
    return vcpu


def play_zfault_vq1(lab: Lab, record: Record) -> Record:
    return _fault(_one_quadword(lab), Z5, record)


def play_pfault_vq1(lab: Lab, record: Record) -> Record:
    return _fault(_one_quadword(lab), P5, record)


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


def _operation(lab: Lab, record: Record) -> Callable[[int], str]:
    """What a sweep does with each ID: a get, or a set from an address that is not mapped."""
    vcpu = lab.cached(f"sweep {record['combo']}", lambda: made(lab, record["combo"]))
    return vcpu.get if record["op"] == "GET" else lambda id: vcpu.set(id, addr=BAD)


def play_sweep(lab: Lab, record: Record) -> Record:
    """One operation on every index from a base ID on."""
    act, base, last = _operation(lab, record), int(record["base"], 16), record["runs"][-1][1]
    return {"runs": runs(act(base + n) for n in range(last + 1))}


def play_sweep_coproc(lab: Lab, record: Record) -> Record:
    """One operation on the first 64-bit ID of every coprocessor."""
    act, base = _operation(lab, record), uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64
    return {"runs": runs(act(base | n << uapi.KVM_REG_ARM_COPROC_SHIFT) for n in range(1 << 12))}


def play_bitflip(lab: Lab, record: Record) -> Record:
    """One operation on an ID with each of its bits flipped."""
    act, id = _operation(lab, record), int(record["id"], 16)
    return {"errno_by_bit": [act(id ^ 1 << bit) for bit in range(64)]}


PLAYERS: dict[str, Callable[[Lab, Record], Record]] = {
    "caps": play_caps,
    "preferred": lambda lab, record: play_preferred(lab, record),
    **dict.fromkeys(("err", "n", "sticks"), play_case),
    **{name.removeprefix("play_"): play for name, play in list(globals().items()) if name.startswith("play_")},
}
