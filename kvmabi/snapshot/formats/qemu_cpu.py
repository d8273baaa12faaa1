# SPDX-License-Identifier: MIT
"""Section ``cpu`` of a QEMU stream, version 22: one arm64 vCPU as its registers.

The section has one layout since QEMU 7.2: core registers, the list of ids and values, subsections that say what they
are. Vectors are arrays of be64, so a payload is every word with its bytes swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

from kvmabi import regid, uapi
from kvmabi.model.mode import SVCR_SM
from kvmabi.model.plan import SVCR
from kvmabi.snapshot import infer
from kvmabi.snapshot.formats.places import Places
from kvmabi.snapshot.formats.qemu_cpu_layout import (
    AARCH32_BANKS,
    AARCH32_MODE,
    AARCH32_SUBSECTIONS,
    BANKED,
    FIQ_BANK,
    FPCR_FPSR,
    FPMR,
    HEAD,
    HYP_BANK,
    MOST_REGISTERS,
    P_WORDS,
    POWER_STATES,
    PSTATE_AARCH32,
    SERROR,
    SME,
    SUBSECTION,
    SUBSECTIONS,
    SVE,
    TAIL,
    VFP,
    Z_LOW_WORDS,
    ZA_ROW_WORDS,
    ZT0,
    ZT0_WORDS,
    unlisted,
)
from kvmabi.snapshot.formats.qemu_layout import payloads
from kvmabi.snapshot.formats.qemu_vectors import add_vectors
from kvmabi.snapshot.snapshot import Problem, VcpuSnapshot
from kvmabi.snapshot.source import BadBlob


class IdList(NamedTuple):
    """A list of ids, parsed: ``layout`` cuts the swapped values to the ids' sizes, ``spare`` what must be zero."""

    ids: tuple[int, ...]
    layout: Struct
    spare: Struct
    spared: tuple[int, ...]
    wrong: tuple[tuple[str, str, int, int], ...]
    arm64: bool


class Vcpu(NamedTuple):
    """A vCPU and what decides about it: whether it has SVE and SME, and where the section ends."""

    vcpu: VcpuSnapshot
    ids: tuple[int, ...]
    sve: bool
    sme: bool
    subsections: tuple[str, ...]
    end: int


def size_of(data: bytes, at: int) -> int | None:
    """The size of the section whose data begin at ``at``, by its layout; None if it does not fit."""
    count_at = at + HEAD.at["cpreg_vmstate_array_len"]
    count = int.from_bytes(data[count_at : count_at + 4], "big")
    end = at + HEAD.size_bytes + 16 * count + TAIL.size_bytes
    if count > MOST_REGISTERS or end > len(data):
        return None
    while (found := _subsection(data, end)) is not None:
        name, _, begin = found
        if name not in SUBSECTIONS:
            return None
        end = begin + SUBSECTIONS[name][1].size_bytes
    return end - at if end <= len(data) else None


def read(data: bytes, at: int, index: int, problems: list[Problem]) -> Vcpu:
    """Read a vCPU. ``at`` is where the data stand in the stream.

    What is damaged becomes a Problem; BadBlob is raised for a vCPU without even a list of registers,
    or that is not an arm64 one.
    """
    if len(data) < HEAD.size_bytes:
        raise BadBlob(f"vCPU {index} ends within its core registers", at + len(data), "truncated")
    count = int.from_bytes(data[HEAD.size_bytes - 4 : HEAD.size_bytes], "big")
    if count > MOST_REGISTERS:
        raise BadBlob(f"vCPU {index} claims {count} registers", at + HEAD.size_bytes - 4)
    values_at = HEAD.size_bytes + 8 * count
    tail_at = values_at + 8 * count
    if len(data) < tail_at + TAIL.size_bytes:
        raise BadBlob(f"vCPU {index} ends within its {count} registers", at + len(data), "truncated")
    listed = id_list(data[HEAD.size_bytes : values_at])
    if not listed.arm64:
        raise BadBlob(f"vCPU {index} has no AArch64 register: not an arm64 vCPU", at + HEAD.size_bytes, "not-arm64")
    registers: dict[int, bytes] = {}
    facts: dict[str, Any] = {}
    head = HEAD.struct.unpack_from(data)
    _core(data, head, registers, facts)
    if head[HEAD.first["cpsr"]] & PSTATE_AARCH32:
        text = f"vCPU {index} is in AArch32 state: its X registers are those that the architecture maps to the banks"
        problems.append(Problem("aarch32-state", text, at + HEAD.at["cpsr"], index))
    for rule, text, position, id in listed.wrong:
        problems.append(Problem(rule, f"vCPU {index}: {text}", at + HEAD.size_bytes + 8 * position, index, id))
    words = payloads(data[values_at:tail_at])
    if any(listed.spare.unpack(words)):
        for position, rest in zip(listed.spared, listed.spare.unpack(words), strict=True):
            if rest:
                text = f"vCPU {index}: {regid.name_of(listed.ids[position])} has bits beyond its 32"
                where = at + values_at + 8 * position
                problems.append(Problem("value-too-wide", text, where, index, listed.ids[position]))
    registers.update(zip(listed.ids, listed.layout.unpack(words), strict=True))
    tail = TAIL.struct.unpack_from(data, tail_at)
    found, end = _subsections(data, tail_at + TAIL.size_bytes, at, index, problems)
    svcr = registers.get(SVCR)
    sm = bool(svcr is not None and svcr[0] & SVCR_SM)
    sme = svcr is not None
    sve = _has_sve(registers, SVE in found and not sme)
    level = _level(head[HEAD.first["cpsr"]])
    places = _places(at, listed.ids, values_at, found, registers, level, has_z=sve or sm)
    add_vectors(data, found, registers, sve, sm, at, index, problems)
    state, serror = _state(data, tail[TAIL.first["power_state"]], found, facts, at + tail_at, index, problems)
    vcpu = VcpuSnapshot(index, registers, state, serror, places, facts)
    return Vcpu(vcpu, listed.ids, sve, sme, tuple(found), end)


def id_list(data: bytes) -> IdList:
    """The parsed list of ids in ``data``; the lists of a fleet are mostly equal, so some are kept."""
    return _kept_list(data)


@lru_cache(32)
def _kept_list(data: bytes) -> IdList:
    ids = Struct(f">{len(data) // 8}Q").unpack(data)
    wrong: list[tuple[str, str, int, int]] = []
    cuts, spares, spared, seen = [], [], [], set()
    last = -1
    for position, id in enumerate(ids):
        size_bytes = 1 << (id >> uapi.KVM_REG_SIZE_SHIFT & 0xF)
        if id in seen:
            wrong.append(("duplicate-register", f"{regid.name_of(id)} is listed twice", position, id))
        elif id <= last:
            wrong.append(("malformed", f"{regid.name_of(id)} is not in ascending order", position, id))
        seen.add(id)
        last = id
        if size_bytes not in (4, 8):
            text = f"{regid.name_of(id)} has {size_bytes} bytes, in a list of registers of 4 or 8"
            wrong.append(("wrong-size", text, position, id))
        cut = min(size_bytes, 8)
        cuts.append(f"{cut}s{8 - cut}x")
        narrow = cut == 4 and id >> 56 == uapi.KVM_REG_ARM64 >> 56  # TCG shares AArch32 registers with wider ones
        spares.append("4xI" if narrow else "8x")
        if narrow:
            spared.append(position)
    arm64 = any(id >> 56 == uapi.KVM_REG_ARM64 >> 56 for id in ids)
    return IdList(ids, Struct("<" + "".join(cuts)), Struct("<" + "".join(spares)), tuple(spared), tuple(wrong), arm64)


def _core(data: bytes, head: tuple[Any, ...], registers: dict[int, bytes], facts: dict[str, Any]) -> None:
    """The general registers. The stack pointer of the current exception level is xregs[31], not sp_el."""
    ids = unlisted()
    begin = HEAD.at["env.xregs"]
    words = payloads(data[begin : begin + 33 * 8])
    if head[HEAD.first["cpsr"]] & PSTATE_AARCH32:
        words = aarch32_words(head)
    registers.update(zip(ids.x, _X.unpack_from(words), strict=True))
    pstate = head[HEAD.first["cpsr"]]
    sp_el = list(head[HEAD.first["env.sp_el"] :][:4])
    level = _level(pstate)
    if level is not None:
        sp_el[level] = head[HEAD.first["env.xregs"] + 31]
    elr_el = head[HEAD.first["env.elr_el"] :][:4]
    spsr = head[HEAD.first["env.banked_spsr"] :][:8]
    core = ids.core
    registers[core["sp"]] = sp_el[0].to_bytes(8, "little")
    registers[core["pc"]] = words[32 * 8 :]
    registers[core["pstate"]] = pstate.to_bytes(8, "little")
    registers[core["sp_el1"]] = sp_el[1].to_bytes(8, "little")
    registers[core["elr_el1"]] = elr_el[1].to_bytes(8, "little")
    for bank, value in zip(BANKED[1:6], spsr[1:6], strict=True):
        registers[core[f"spsr_{bank}"]] = value.to_bytes(8, "little")
    for level in (2, 3):
        for name, value in (("sp", sp_el[level]), ("elr", elr_el[level]), ("spsr", spsr[level + 4])):
            if value:
                facts[f"{name}_el{level}"] = value


_X: Final = Struct("8s" * 31)


def aarch32_words(head: tuple[Any, ...]) -> bytes:
    """X0 to X30, a word that is not a register, and PC of a vCPU in AArch32 state, as the architecture maps them.

    QEMU keeps the registers of the current mode in env.regs, those of other modes in banks.
    """

    def field(name: str, count: int) -> list[int]:
        first = HEAD.first[name]
        return list(head[first : first + count])

    regs, stacks, links = field("env.regs", 16), field("env.banked_r13", 8), field("env.banked_r14", 8)
    user, fiq = field("env.usr_regs", 5), field("env.fiq_regs", 5)
    bank = AARCH32_BANKS.get(head[HEAD.first["cpsr"]] & AARCH32_MODE, 0)
    stacks[bank] = regs[13]
    links[0 if bank == HYP_BANK else bank] = regs[14]
    if bank == FIQ_BANK:
        fiq = regs[8:13]
    else:
        user = regs[8:13]
    others = [value for n in (4, 1, 2, 3) for value in (links[n], stacks[n])]  # IRQ, SVC, ABT, UND
    x = [*regs[:8], *user, stacks[0], links[0], stacks[HYP_BANK], *others, *fiq, stacks[FIQ_BANK], links[FIQ_BANK]]
    return Struct("<33Q").pack(*x, 0, regs[15])


def _level(pstate: int) -> int | None:
    """Of which exception level the current stack pointer is; None in AArch32 state, where X registers hold none."""
    if pstate & PSTATE_AARCH32:
        return None
    return pstate >> 2 & 3 if pstate & 1 else 0


def _subsection(data: bytes, at: int) -> tuple[str, int, int] | None:
    """The name, version and place of the data of a subsection whose header is at ``at``; None if none is there."""
    if data[at : at + 1] != bytes([SUBSECTION]) or at + 2 > len(data):
        return None
    begin = at + 2 + data[at + 1]
    name = data[at + 2 : begin]
    if not name.startswith(b"cpu/") or begin + 4 > len(data):
        return None
    version = int.from_bytes(data[begin : begin + 4], "big")
    return name.decode("ascii", "backslashreplace"), version, begin + 4


def _subsections(data: bytes, at: int, base: int, index: int, problems: list[Problem]) -> tuple[dict[str, int], int]:
    """The subsections that are known and whole: where the data of each begin; and where the last one ends."""
    found: dict[str, int] = {}
    while (header := _subsection(data, at)) is not None:
        name, version, begin = header
        if name in AARCH32_SUBSECTIONS:
            raise BadBlob(f"vCPU {index} has the subsection {name}: not an arm64 vCPU of a VM", base + at, "not-arm64")
        due, layout = SUBSECTIONS.get(name, (0, None))
        if layout is None or version != due:
            text = f"vCPU {index}: subsection {name} version {version} is not known, so what follows is not read"
            problems.append(Problem("unknown-subsection", text, base + at, index))
            return found, at
        if begin + layout.size_bytes > len(data):
            text = f"vCPU {index}: subsection {name} ends too early"
            problems.append(Problem("truncated", text, base + len(data), index))
            return found, len(data)
        if name in found:
            problems.append(Problem("malformed", f"vCPU {index}: {name} stands there twice", base + at, index))
        else:
            found[name] = begin
        at = begin + layout.size_bytes
    if at < len(data):
        text = f"vCPU {index}: {len(data) - at} bytes that no subsection begins with"
        problems.append(Problem("malformed", text, base + at, index))
    return found, at


def _has_sve(registers: Mapping[int, bytes], otherwise: bool) -> bool:
    """Whether the guest has SVE: by its ID register, which TCG does not write, or else by ZCR_EL1."""
    shown = infer.shows_sve(registers)
    return unlisted().core["zcr_el1"] in registers or otherwise if shown is None else shown


def _state(
    data: bytes,
    power_state: int,
    found: Mapping[str, int],
    facts: dict[str, Any],
    at: int,
    index: int,
    problems: list[Problem],
) -> tuple[int | None, tuple[bool, bool, int]]:
    """The MP state and the pending SError."""
    serror = (False, False, 0)
    if SERROR in found:
        pending, has_esr, esr = SUBSECTIONS[SERROR][1].struct.unpack_from(data, found[SERROR])
        serror = (bool(pending), bool(has_esr), esr)
    if power_state >= len(POWER_STATES):
        text = f"vCPU {index} is in power state {power_state}, which is not known"
        problems.append(Problem("malformed", text, at + TAIL.at["power_state"], index))
        return None, serror
    facts["power_state"] = POWER_STATES[power_state]
    stopped = POWER_STATES[power_state] == "off"
    return uapi.KVM_MP_STATE_STOPPED if stopped else uapi.KVM_MP_STATE_RUNNABLE, serror


def _places(
    base: int,
    listed: tuple[int, ...],
    values_at: int,
    found: Mapping[str, int],
    registers: Mapping[int, bytes],
    level: int | None,
    *,
    has_z: bool,
) -> Callable[[], Mapping[int, int]]:
    """Where registers stand in the stream, worked out when they are asked for."""
    shape = listed, values_at, tuple(found.items()), level, has_z
    return lambda: Places(_within(*shape), base, registers)


@lru_cache(32)
def _within(
    listed: tuple[int, ...], values_at: int, found: tuple[tuple[str, int], ...], level: int | None, has_z: bool
) -> Mapping[int, int]:
    """Where registers stand in the section of a vCPU."""
    ids, core, at, begins = unlisted(), unlisted().core, HEAD.at, dict(found)
    result = {core["pstate"]: at["cpsr"]}
    if level is not None:  # in AArch32 state they come from the banks
        result |= {id: at["env.xregs"] + 8 * n for n, id in enumerate(ids.x)}
        result[core["pc"]] = at["env.pc"]
    for n, name in enumerate(("sp", "sp_el1")):
        result[core[name]] = at["env.xregs"] + 31 * 8 if n == level else at["env.sp_el"] + 8 * n
    result |= {core["elr_el1"]: at["env.elr_el"] + 8}
    for n, bank in enumerate(BANKED[1:6], 1):
        result[core[f"spsr_{bank}"]] = at["env.banked_spsr"] + 8 * n
    result |= {id: values_at + 8 * n for n, id in enumerate(listed)}
    tables = [
        (VFP, "zregs", 8 * Z_LOW_WORDS, ids.z if has_z else ids.v),
        (SVE, "pregs", 8 * P_WORDS, (*ids.p, core["ffr"]) if has_z else ()),
        (SME, "za", 8 * ZA_ROW_WORDS, ids.za),
        (ZT0, "zt0", 8 * ZT0_WORDS, (core["zt0"],)),
        (FPMR, "fpmr", 8, (core["fpmr"],)),
        (VFP, "fpscr", 0, (core["fpsr"], core["fpcr"])),
        (FPCR_FPSR, "fpcr", 8, (core["fpcr"], core["fpsr"])),
    ]
    own = frozenset(listed)
    for name, field, step, family in tables:
        if name in begins:
            begin = begins[name] + SUBSECTIONS[name][1].at[field]
            result |= {id: begin + step * n for n, id in enumerate(family) if id not in own}
    return result
