# SPDX-License-Identifier: MIT
"""Does the operation of each type of record of the SME kernels on the model, and returns its result."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any

from golden.lab import BUFFER, Lab, LabVcpu
from kvmabi import regid, uapi
from kvmabi.device.structs import layout
from kvmabi.model import core, sme, sve
from kvmabi.steps.answers import name_of

Record = dict[str, Any]
SVE_VLS, SME_VLS, SVCR = uapi.KVM_REG_ARM64_SVE_VLS, uapi.KVM_REG_ARM64_SME_VLS, regid.parse("svcr")
VLS = {"SVE_VLS": SVE_VLS, "SME_VLS": SME_VLS}
BAD = 0x10


def lengths(text: str) -> bytes:
    """A vector-length set written as "128,256" (bits) as the register's 64 bytes."""
    if text == "many":
        return b"\xff" * 64
    return sum(1 << (int(bits) // 128 - 1) for bits in text.split(",") if bits).to_bytes(64, "little")


def vls(vcpu: LabVcpu, id: int) -> tuple[str, str]:
    """The errno of reading a vector-length set, and the set as text."""
    result = vcpu.get(id)
    value = int.from_bytes(vcpu.memory.buffer[:64], "little") if result == "OK" else 0
    return result, ",".join(str((n + 1) * 128) for n in range(512) if value >> n & 1)


def play_init(lab: Lab, record: Record) -> Record:
    return {"e": lab.vcpu().init(int(record["features0"], 16))}


def play_init2(lab: Lab, record: Record) -> Record:
    vcpu = lab.vcpu()
    first = vcpu.init(record["first"])
    final = vcpu.finalize() if record["finalized"] else record["fin_e"]
    return {"first_e": first, "fin_e": final, "second_e": vcpu.init(record["second"])}


def started(lab: Lab, feat: str, stage: str | int = "init", svcr: int = 0) -> LabVcpu:
    """A vCPU with features, at a stage ("noinit", "init", "final"), SVCR written before it is finalised."""
    vcpu = lab.vcpu()
    if stage in ("noinit", 0):
        return vcpu
    vcpu.init(feat)
    if svcr:
        vcpu.set(SVCR, svcr)
    if stage in ("final", 2):
        vcpu.finalize()
    return vcpu


def play_vls(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], record["stage"])
    (sve_e, sve), (sme_e, sme) = vls(vcpu, SVE_VLS), vls(vcpu, SME_VLS)
    return {"sve_e": sve_e, "sve": sve, "sme_e": sme_e, "sme": sme}


def play_vls_set(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], record["stage"])
    id = VLS[record["reg"]]
    result = vcpu.set(id, lengths(record["set"]))
    after_e, after = vls(vcpu, id)
    return {"e": result, "after_e": after_e, "after": after}


def play_vls_trunc(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    id = VLS[record["reg"]]
    result = vcpu.set(id, lengths(record["set"]))
    after_e, after = vls(vcpu, id)
    other_e, other = vls(vcpu, SME_VLS if id == SVE_VLS else SVE_VLS)
    return {"e": result, "after_e": after_e, "after": after, "other_e": other_e, "other": other}


def play_fin(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "noinit" if record["feat"] == "noinit" else "init")
    sequence = [{"arg": step["arg"], "e": vcpu.finalize(step["arg"])} for step in record["seq"]]
    return {"seq": sequence, "badptr": vcpu.ioctl(uapi.KVM_ARM_VCPU_FINALIZE, BAD)}


def play_acc(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], record["stage"], record["svcr"])
    id = int(record["id"], 16)
    size = 1 << (id >> 52 & 15)
    result = vcpu.get(id)
    value = bytes(vcpu.memory.buffer[:size]) if result == "OK" else b""
    other = re.fullmatch(r"[A-Z0-9_]+=([0-9x<|]+)", record["reg"])
    new = sum(map(term, other[1].split("|"))).to_bytes(8, "little") if other else value
    return {"get": result, "val": value, "set": vcpu.set(id, new.ljust(size, b"\0"))}


def term(text: str) -> int:
    """A number as the records write it: "3", "0x4" or "1<<63"."""
    value, _, shift = text.partition("<<")
    return int(value, 0) << int(shift or "0")


def play_acc_setup(lab: Lab, record: Record) -> Record:
    vcpu = lab.vcpu()
    if record["stage"]:
        vcpu.init(record["feat"])
    setting = vcpu.set(SVCR, record["svcr"]) if record["svcr"] else record["set_svcr_before_fin"]
    final = vcpu.finalize() if record["stage"] == 2 else record["fin"]
    read = vcpu.get(SVCR)
    svcr = hex(int.from_bytes(vcpu.memory.buffer[:8], "little") if read == "OK" else (1 << 64) - 1)
    return {"set_svcr_before_fin": setting, "fin": final, "svcr_read": svcr, "list": vcpu.reg_list()[0]}


def play_list(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final", record["svcr"])
    n0_e, n0, _ = vcpu.reg_list(0)
    result, count, ids = vcpu.reg_list()
    if 0 in ids:  # counted but not written: in the record, what the list before had left in memory
        recorded = [int(id, 16) for id in record["ids"]]
        ids = [seen or id for id, seen in zip(recorded, ids, strict=False)]
    return {"n0_e": n0_e, "n0": n0, "e": result, "n": count, "ids": [f"{id:x}" for id in ids]}


def play_list_prefinal(lab: Lab, record: Record) -> Record:
    return {"e": started(lab, record["feat"]).reg_list()[0]}


def play_reset(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final", record["svcr"])
    id = int(record["id"], 16)
    result = vcpu.get(id)
    return {"e": result, "v": bytes(vcpu.memory.buffer[: 1 << (id >> 52 & 15)]) if result == "OK" else b""}


def play_save_err(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final", record["svcr"])
    return {"e": vcpu.get(int(record["id"], 16))}


def play_vls_fin(lab: Lab, record: Record) -> Record:
    return {"e": started(lab, record["feat"]).finalize()}


def play_prefinal(lab: Lab, record: Record) -> Record:
    feat = record["feat"]
    vcpu = started(lab, feat, "noinit" if feat == "noinit" else "init")
    return {
        "KVM_RUN": vcpu.run(),
        "KVM_GET_REG_LIST": vcpu.reg_list()[0],
        "KVM_GET_REGS": vcpu.ioctl(uapi.KVM_GET_REGS, BUFFER),
        "KVM_GET_MP_STATE": vcpu.ioctl(uapi.KVM_GET_MP_STATE),
    }


def play_host(lab: Lab, _record: Record) -> Record:
    vcpu = started(lab, "SVE+SME")
    (sve_e, sve), (sme_e, sme) = vls(vcpu, SVE_VLS), vls(vcpu, SME_VLS)
    if sve_e != "OK":
        sve_e, sve = vls(started(lab, "SVE"), SVE_VLS)
    if sme_e != "OK":
        sme_e, sme = vls(started(lab, "SME"), SME_VLS)
    return {"sve": int(sve_e == "OK"), "sme": int(sme_e == "OK"), "sve_vls": sve, "sme_vls": sme}


def play_caps(lab: Lab, record: Record) -> Record:
    vm = lab.vm()
    answers: dict[str, Any] = {}
    for number in range(301):
        answer = lab.ioctl(vm if record["fd"] == "vm" else lab.system, uapi.KVM_CHECK_EXTENSION, number)
        if answer:
            answers[str(number)] = answer if answer > 0 else f"-{name_of(answer)}"
    return {"nonzero": answers}


def play_preferred(lab: Lab, record: Record) -> Record:
    vm = lab.vm()
    result = lab.outcome(vm, uapi.KVM_ARM_PREFERRED_TARGET)
    init = layout("struct kvm_vcpu_init")
    target, *features = init.unpack(lab.memory.struct[: init.size])
    return {"e" if "e" in record else "got": result, "target": target, "features": features}


def play_vls_2cpu(lab: Lab, record: Record) -> Record:
    vm = lab.vm()
    one, two = lab.vcpu(vm, 0), lab.vcpu(vm, 1)
    feat = "SVE+SME" if lab.host.sve_vector_bits else "SME"
    low = str(lab.host.sme_vector_bits[0]) if len(lab.host.sme_vector_bits) > 1 else ""
    steps = [one.init(feat), two.init(feat), one.set(SME_VLS, lengths(low)), one.finalize(), two.finalize()]
    return {"e": steps, "cpu0": vls(one, SME_VLS)[1] if low else "", "cpu1": vls(two, SME_VLS)[1]}


def play_reinit_vls_final(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    for id, text in ((SVE_VLS, record["sve"]), (SME_VLS, record["sme"])):
        if text != "ENOENT":
            vcpu.set(id, lengths(text))
    vcpu.finalize()
    setting = vcpu.set(SVCR, 0) if "SME" in record["feat"] else record["set_svcr"]
    vcpu.init(record["feat"])
    shown = {name: text if result == "OK" else result for name, (result, text) in (
        ("sve", vls(vcpu, SVE_VLS)), ("sme", vls(vcpu, SME_VLS)))}  # fmt: skip
    return {**shown, "set_svcr": setting}


def play_reinit(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final" if record["finalized"] else "init")
    result = vcpu.init(record["second"])
    shown = {name: text if result == "OK" else result for name, (result, text) in (
        ("sve", vls(vcpu, SVE_VLS)), ("sme", vls(vcpu, SME_VLS)))}  # fmt: skip
    return {"e": result, **shown, "fin_again": vcpu.finalize()}


def play_combo(lab: Lab, record: Record) -> Record:
    feat = record["feat"]
    vcpu = started(lab, feat)
    sets = []
    for id, most, host in (
        (SVE_VLS, "sve_max", lab.host.sve_vector_bits),
        (SME_VLS, "sme_max", lab.host.sme_vector_bits),
    ):
        text = ",".join(str(bits) for bits in host if bits <= record[most])
        sets.append(vcpu.set(id, lengths(text)) if record[most] else "-")
    final = vcpu.finalize() if record["fin"] != "-" else "-"
    views = []
    for view in record["views"]:
        if "SME" in feat:
            vcpu.set(SVCR, view["svcr"])
        views.append(_view(vcpu, view))
    return {"set_sve": sets[0], "set_sme": sets[1], "fin": final if feat != "none" else record["fin"], "views": views}


VIEWED = {
    "Z31": uapi.KVM_REG_ARM64_SVE_ZREG(31, 0), "P15": uapi.KVM_REG_ARM64_SVE_PREG(15, 0),
    "FFR": uapi.KVM_REG_ARM64_SVE_FFR(0), "ZA0": uapi.KVM_REG_ARM64_SME_ZAHREG(0, 0),
}  # fmt: skip
BANKS = {
    "V": core.V_IDS, "Z": sve.Z_IDS, "P": sve.P_IDS, "FFR": (sve.FFR_ID,), "ZA": sme.ZA_IDS, "ZT": (sme.ZT0_ID,),
}  # fmt: skip


def _view(vcpu: LabVcpu, view: Record) -> Record:
    """How many bytes of some registers are real (an errno if they cannot be read), and what is listed."""
    seen: Record = {"svcr": view["svcr"]}
    for name, id in VIEWED.items():
        size = 1 << (id >> 52 & 15)
        result = vcpu.set(id, b"\xff" * size)
        data = vcpu.memory.buffer
        if result == "OK":
            data[:size] = bytes(size)
            result = vcpu.get(id)
        seen[name] = bytes(data[:size]).count(0xFF) if result == "OK" else -getattr(errno, result)
    _, count, ids = vcpu.reg_list()
    listed = set(ids)
    return {**seen, "n": count, "listed": {name: len(listed & set(bank)) for name, bank in BANKS.items()}}


def play_svcr_prefinal(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    setting = vcpu.set(SVCR, record["svcr"])
    read = hex(vcpu.number(SVCR))
    fpsr = f"OK:{int.from_bytes(vcpu.value(core.FPSR_ID), 'little'):#x}"
    sme_get = vcpu.get(SME_VLS)
    low = str(lab.host.sme_vector_bits[0])
    trunc = vcpu.set(SME_VLS, lengths(low)) if len(lab.host.sme_vector_bits) > 1 else "-"
    final = vcpu.finalize()
    return {
        "set": setting, "read": read, "fpsr": fpsr, "sme_vls_get": sme_get, "sme_vls_trunc": trunc, "fin": final,
        "read_after_fin": hex(vcpu.number(SVCR)), "list_n": vcpu.reg_list()[1],
    }  # fmt: skip


def play_svcr_prefinal_reinit(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    setting, fpsr = vcpu.set(SVCR, record["svcr"]), vcpu.set(core.FPSR_ID, b"\x11\0\0\0")
    again = vcpu.init(record["feat"])
    return {
        "set": setting, "fpsr_set": fpsr, "init_again": again, "svcr_read": hex(vcpu.number(SVCR)),
        "fpsr": hex(vcpu.number(core.FPSR_ID) & 0xFFFFFFFF),
    }  # fmt: skip


NAMED = {"Z5": "z5", "P5": "p5", "FFR": "ffr", "ZT0": "zt0", "Z0": "z0", "P0": "p0", "V0": "v0", "FPSR": "fpsr",
         "ZA[0]": "za.h[0]", "Z0.slice1": "z0[1]", "ZA[0].slice1": "za.h[0][1]", "SVCR": "svcr", "SMCR_EL1": "smcr_el1",
         "SVE_VLS": "sve_vls", "SME_VLS": "sme_vls", "SMPRI_EL1": "smpri_el1", "SMIDR_EL1": "smidr_el1",
         "PFR0": "id_aa64pfr0_el1", "PFR1": "id_aa64pfr1_el1", "SMFR0": "id_aa64smfr0_el1", "ZFR0": "id_aa64zfr0_el1",
         "PFR2": "id_aa64pfr2_el1"}  # fmt: skip


def register(vcpu: LabVcpu, name: str) -> int:
    """The ID of a register by the records' name."""
    mode = vcpu.file.vcpu.mode
    rows = max(1, mode.sme_vq * 16)
    match name:
        case "ZA[last]":
            return uapi.KVM_REG_ARM64_SME_ZAHREG(rows - 1, 0)
        case "ZA.beyond":
            return uapi.KVM_REG_ARM64_SME_ZAHREG(0, 0) + ((rows if mode.sme else uapi.KVM_ARM64_SME_MAX_ZAHREG) << 5)
        case "ZT1":
            return uapi.KVM_REG_ARM64_SME_ZTREG(0) + 1
        case "unknown sysreg":
            return uapi.ARM64_SYS_REG(3, 3, 15, 15, 7)
    lower = NAMED.get(name, name.lower())
    names = (lower, f"{lower}_el1", f"id_aa64{lower}_el1")
    return regid.parse(next((name for name in names if name in regid.names()), lower))


def play_pad(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final", record["svcr"])
    id = register(vcpu, record["reg"])
    size = 1 << (id >> 52 & 15)
    out: Record = {"bytes_written_beyond": 0}
    for byte, set_key, get_key, value_key in ((0xFF, "set_ff", "get", "v"), (0x11, "set_11", "get2", "v2")):
        out[set_key] = vcpu.set(id, bytes([byte]) * size)
        vcpu.memory.buffer[: size + 64] = b"\xaa" * (size + 64)
        out[get_key] = vcpu.get(id)
        out[value_key] = bytes(vcpu.memory.buffer[:size]) if out[get_key] == "OK" else b""
        out["bytes_written_beyond"] += 64 - bytes(vcpu.memory.buffer[size : size + 64]).count(0xAA)
    return out


def play_efault_struct(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, "none" if not lab.host.sve_vector_bits else "SVE", "final")
    requests = {
        "GET_ONE_REG": uapi.KVM_GET_ONE_REG,
        "SET_ONE_REG": uapi.KVM_SET_ONE_REG,
        "GET_REG_LIST": uapi.KVM_GET_REG_LIST,
    }
    return {name: vcpu.ioctl(request, BAD) for name, request in requests.items() if name in record}


def play_efault(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], record["stage"], record["svcr"])
    memory = vcpu.memory
    id = register(vcpu, record["reg"])
    out: Record = {"get_bad": vcpu.get(id, addr=BAD), "set_bad": vcpu.set(id, addr=BAD)}
    memory.writable = False
    out["get_ro"] = vcpu.get(id)
    memory.writable = True
    edges = {}
    for edge, (_, written, _) in record["edge_get_written_set"].items():
        memory.mapped = int(edge)
        memory.buffer[: int(edge)] = bytes(int(edge))
        got = vcpu.get(id)
        edges[edge] = [got, written, vcpu.set(id)]  # how far a failing get came is the CPU's affair
    memory.mapped = len(memory.buffer)
    return {**out, "edge_get_written_set": edges}


def play_efault_partial(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final", record["svcr"])
    id = register(vcpu, record["reg"])
    size = 1 << (id >> 52 & 15)
    fill = vcpu.set(id, b"\x55" * size)
    vcpu.memory.buffer[:size] = b"\x11" * size
    vcpu.memory.mapped = record["valid_bytes"]
    result = vcpu.set(id)
    vcpu.memory.mapped = len(vcpu.memory.buffer)
    vcpu.memory.buffer[:size] = b"\xaa" * size
    got = vcpu.get(id)
    return {"fill55": fill, "set": result, "get": got, "v": bytes(vcpu.memory.buffer[:size]) if got == "OK" else b""}


def play_idval(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    id = register(vcpu, record["reg"])
    result = vcpu.get(id)
    return {"e": result, "v": f"{vcpu.number(id):#018x}" if result == "OK" else record["v"]}


def play_idbits(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    id = register(vcpu, record["reg"])
    value = vcpu.number(id)
    out: Record = {"v": f"{value:#018x}", "zero": vcpu.set(id, 0), "restore": vcpu.set(id, value)}
    for key in ("clear", "set"):
        out[key] = []
        for bit, _ in record[key]:
            out[key].append([bit, vcpu.set(id, value ^ 1 << bit)])
            vcpu.set(id, value)
    return out


def play_smidr(lab: Lab, record: Record) -> Record:
    vm = lab.vm()
    if record["cap"] != "-":
        lab.memory.put("struct kvm_enable_cap", uapi.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, 0, 0, 0, 0, 0, b"")
        cap = lab.outcome(vm, uapi.KVM_ENABLE_CAP)
    vcpu = lab.vcpu(vm)
    vcpu.init(record["feat"])
    id = regid.parse("smidr_el1")
    read = vcpu.get(id)
    value = vcpu.number(id) if read == "OK" else 0
    written = []
    for text, _, _ in record["w"]:
        result = vcpu.set(id, int(text, 16))
        after = vcpu.number(id) if vcpu.get(id) == "OK" else (1 << 64) - 1
        written.append([text, result, hex(after)])
    return {"cap": cap if record["cap"] != "-" else "-", "get": read, "v": hex(value), "w": written}


def play_fa64(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final", record["svcr"])
    id = regid.parse("id_aa64smfr0_el1")
    value = vcpu.number(id)
    out: Record = {"had": value >> 63, "ffr_before": vcpu.get(sve.FFR_ID), "n_before": vcpu.reg_list()[1]}
    out["clear"] = vcpu.set(id, value & ~(1 << 63))
    return {**out, "ffr_after": vcpu.get(sve.FFR_ID), "n_after": vcpu.reg_list()[1]}


def play_pfr1_sme(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], record["stage"])
    id = regid.parse("id_aa64pfr1_el1")
    value = vcpu.number(id)
    out: Record = {"old": value >> 24 & 15, "e": vcpu.set(id, value & ~(15 << 24) | record["new"] << 24)}
    out["read"] = vcpu.number(id) >> 24 & 15
    if record["stage"] == "init":
        vcpu.finalize()
    vcpu.set(SVCR, 3)
    ids = set(vcpu.reg_list()[2])
    out["listed"] = {"ZA": int(sme.ZA_IDS[0] in ids), "ZT0": int(sme.ZT0_ID in ids), "FFR": int(sve.FFR_ID in ids)}
    names = {"ZT0": sme.ZT0_ID, "ZA0": sme.ZA_IDS[0], "SME_VLS": SME_VLS, "SMCR": regid.parse("smcr_el1"), "SVCR": SVCR}
    out["get"] = {name: vcpu.get(names[name]) for name in record["get"]}
    return out


PLAYERS: dict[str, Callable[[Lab, Record], Record]] = {
    name.removeprefix("play_"): play for name, play in list(globals().items()) if name.startswith("play_")
}
