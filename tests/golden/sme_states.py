# SPDX-License-Identifier: MIT
"""Records of the SME kernels with all floating-point state before and after an operation, or with a restore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from golden.lab import Lab, LabVcpu
from golden.sme_players import SME_VLS, SVCR, SVE_VLS, Record, lengths, started, vls
from kvmabi import regid
from kvmabi.model import core, sme, sve
from kvmabi.model.row import size_of

ROWS = 256
GROUPS: dict[str, tuple[int, ...]] = {
    "V": core.V_IDS,
    "Z": sve.Z_IDS,
    "P": sve.P_IDS,
    "FFR": (sve.FFR_ID,),
    "ZA": sme.ZA_IDS,
    "ZT0": (sme.ZT0_ID,),
    "FPSR": (core.FPSR_ID,),
    "FPCR": (core.FPCR_ID,),
    **{name: (regid.parse(name.lower()),) for name in ("FPMR", "SMCR_EL1", "ZCR_EL1", "TPIDR2_EL0")},
}
COUNTERS = frozenset(map(regid.parse, ("cntpct_el0", "cntvct_el0")))
ALWAYS_OWN = frozenset({"mpidr_el1"})


def pattern(id: int) -> bytes:
    """A value for a register that is its own, and that no reset gives."""
    return bytes((id * 7 + 13 * n + 1) % 251 | 1 for n in range(size_of(id)))


def fill(vcpu: LabVcpu) -> dict[int, bytes]:
    """Set every writable floating-point register; returns the values read back."""
    filled: dict[int, bytes] = {}
    for id in (id for ids in GROUPS.values() for id in ids):
        if vcpu.set(id, pattern(id)) == "OK" and vcpu.get(id) == "OK":
            filled[id] = vcpu.value(id)
    return filled


def dump(vcpu: LabVcpu, record: Record, filled: dict[int, bytes]) -> Record:
    """The result for each group of registers, in the record's format."""
    groups: Record = {}
    for name, recorded in record["g"].items():
        ids = GROUPS[name][: recorded["n"]]
        count = {"n": len(ids), "filled": sum(id in filled for id in ids), "same": 0, "zero": 0, "other": 0, "err": 0}
        for id in ids:
            result = vcpu.get(id)
            if result != "OK":
                count["err"] += 1
                count["errno"] = result
                continue
            value = bytes(vcpu.memory.buffer[: size_of(id)])
            kind = "same" if value == filled.get(id) else "other" if any(value) else "zero"
            count[kind] += 1
        groups[name] = {**count, **{key: value for key, value in recorded.items() if key == "first"}}
        if "errno" in recorded and "errno" in count:
            groups[name]["errno"] = count["errno"]
    return {"svcr": svcr(vcpu), "g": groups}


def svcr(vcpu: LabVcpu) -> str:
    """SVCR as the records have it; all ones without SVCR."""
    return hex(vcpu.number(SVCR) if vcpu.get(SVCR) == "OK" else (1 << 64) - 1)


def play_trans(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final")
    vcpu.set(SVCR, record["from"])
    filled = fill(vcpu)
    if record["step"] != "filled":
        vcpu.set(SVCR, record["to"])
    if record["step"].startswith("back"):
        vcpu.set(SVCR, record["from"])
    return dump(vcpu, record, filled)


def play_trans_bad(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"], "final")
    vcpu.set(SVCR, record["from"])
    filled = fill(vcpu)
    return {"what": vcpu.set(SVCR, record["to"]), **dump(vcpu, record, filled)}


def play_reinit_state(lab: Lab, record: Record) -> Record:
    vcpu = _shortened(lab, record["feat"])
    vcpu.finalize()
    if "SME" in record["feat"]:
        vcpu.set(SVCR, record["from"])
    filled = fill(vcpu)
    if record["step"] != "before":
        vcpu.init(record["feat"])
    if record["step"].endswith("again"):
        vcpu.set(SVCR, record["from"])
    return dump(vcpu, record, filled)


def play_svcr_prefinal_state(lab: Lab, record: Record) -> Record:
    vcpu = _shortened(lab, record["feat"], record["to"])
    vcpu.finalize()
    return dump(vcpu, record, {})


def _shortened(lab: Lab, feat: str, svcr: int = 0) -> LabVcpu:
    """A vCPU before FINALIZE whose streaming vector length is the shortest."""
    vcpu = started(lab, feat, "init", svcr)
    if len(lab.host.sme_vector_bits) > 1:
        vcpu.set(SME_VLS, lengths(str(lab.host.sme_vector_bits[0])))
    return vcpu


def play_reinit_vls(lab: Lab, record: Record) -> Record:
    vcpu = started(lab, record["feat"])
    results = {}
    for name, id, host in (("SVE", SVE_VLS, lab.host.sve_vector_bits), ("SME", SME_VLS, lab.host.sme_vector_bits)):
        low = str(host[0]) if host else "128"
        results[name] = f"trunc {name} to {low}: {vcpu.set(id, lengths(low))}"
    if record["step"].startswith("trunc"):
        return {"step": results[record["step"].split()[1]]}
    if record["step"].startswith("after"):
        vcpu.init(record["feat"])
    shown = {name: vls(vcpu, id) for name, id in (("sve", SVE_VLS), ("sme", SME_VLS))}
    return {name: text if result == "OK" else result for name, (result, text) in shown.items()}


def play_restore(lab: Lab, record: Record) -> Record:
    """Save a filled vCPU in list order and restore it in the record's mode; returns errors and differences."""
    source = started(lab, record["feat"], "final")
    source.set(SVCR, record["svcr"])
    fill(source)
    _, count, ids = source.reg_list()
    saved = {id: source.value(id) for id in ids if id and source.get(id) == "OK"}
    mode = record["mode"]
    dest, first, final = _destination(lab, record, saved)
    passes = 2 if "twice" in mode else 1
    order = list(saved)
    if "without VLS and SVCR" in mode:
        order = [id for id in order if id not in (SVE_VLS, SME_VLS, SVCR)]
    if "sysregs first" in mode:
        order.sort(key=lambda id: regid.decode(id).family != "sysreg")
    errors = [
        [number, f"{id:x}", result]
        for number in range(passes)
        for id in order
        if (result := dest.set(id, saved[id])) != "OK"
    ]
    _, dest_count, _ = dest.reg_list()
    different = _differences(dest, ids, saved)
    if 0 in ids:  # entries that the kernel counts but does not write: the recorder took what memory held for ids
        listed = [entry for entry in record["mismatch"] if int(entry[0], 16) in ids]
        different = record["mismatch"] if different == list(map(list, dict.fromkeys(map(tuple, listed)))) else different
    return {
        "n": count,
        "svcr_first": first,
        "fin": final,
        "set_errors": errors,
        "mismatch": different,
        "dest_n": dest_count,
        "dest_svcr": svcr(dest),
    }


def _destination(lab: Lab, record: Record, saved: dict[int, bytes]) -> tuple[LabVcpu, str, str]:
    """The vCPU to restore into, and how its SVCR, if it comes first, and its FINALIZE were answered."""
    mode, feat = record["mode"], record["feat"]
    for name in ("SVE", "SME"):
        if f"dest without {name}" in mode:
            feat = "+".join(part for part in feat.split("+") if part != name)
    dest = started(lab, feat)
    for name, id, host in (("SVE", SVE_VLS, lab.host.sve_vector_bits), ("SME", SME_VLS, lab.host.sme_vector_bits)):
        if f"dest {name} truncated" in mode:
            dest.set(id, lengths(str(host[0])))
    early = "before FINALIZE" in mode
    if "VLS+SVCR" in mode:
        for id in (SVE_VLS, SME_VLS):
            if id in saved:
                dest.set(id, saved[id])
    first = dest.set(SVCR, record["svcr"]) if early else "-"
    final = dest.finalize()
    if "SVCR first" in mode and not early:
        first = dest.set(SVCR, record["svcr"])
    return dest, first, final


def _differences(dest: LabVcpu, ids: list[int], saved: dict[int, bytes]) -> list[list[str]]:
    differences = []
    for id in filter(None, ids):
        result = dest.get(id)
        if result != "OK":
            differences.append([f"{id:x}", result])
        elif id in COUNTERS or (id in saved and bytes(dest.memory.buffer[: size_of(id)]) != saved[id]):
            differences.append([f"{id:x}", "differs"])
    return differences


PLAYERS: dict[str, Callable[[Lab, Record], dict[str, Any]]] = {
    name.removeprefix("play_"): play for name, play in list(globals().items()) if name.startswith("play_")
}
