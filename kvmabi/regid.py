# SPDX-License-Identifier: MIT
"""Register ids of KVM_GET_ONE_REG: 64 bits, their fields, and names such as ``za.h[3]`` or ``svcr``.

Names are those of the Arm ARM in lower case. A slice other than the first is a suffix in brackets
(``z7[1]``, ``za.h[3][1]``). A system register without a name is written as in assembly,
``s3_0_c1_c2_4``; any other id without a name is the number itself. The timers are named after the
register that the kernel accesses: the ids of ``cntv_cval_el0`` and ``cntvct_el0`` have each other's
encodings. https://docs.kernel.org/virt/kvm/api.html#kvm-set-one-reg
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from kvmabi import uapi
from kvmabi.errors import UsageError

_ARM64_U32: Final = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32
_ARM64_U64: Final = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64
_ARM64_U128: Final = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U128
_ARCH_SHIFT: Final = 56
_SIZE_SHIFT: Final = uapi.KVM_REG_SIZE_SHIFT
_COPROC_SHIFT: Final = uapi.KVM_REG_ARM_COPROC_SHIFT
_ARM64: Final = uapi.KVM_REG_ARM64 >> _ARCH_SHIFT
_SLICE: Final = uapi.KVM_ARM64_SVE_MAX_SLICES - 1
_NUMBERED: Final = {  # families of which only some members have a name of their own: id of [0], greatest index
    "ccsidr": (_ARM64_U32 | uapi.KVM_REG_ARM_DEMUX | uapi.KVM_REG_ARM_DEMUX_ID_CCSIDR, uapi.KVM_REG_ARM_DEMUX_VAL_MASK),
    "fw": (uapi.KVM_REG_ARM_FW_REG(0), 0xFFFF),
    "fw_bmap": (uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(0), 0xFFFF),
}

FAMILIES: Final[dict[int, str]] = {
    id >> _COPROC_SHIFT: family
    for id, family in {
        uapi.KVM_REG_ARM_CORE: "core",
        uapi.KVM_REG_ARM_DEMUX: "demux",
        uapi.KVM_REG_ARM64_SYSREG: "sysreg",
        uapi.KVM_REG_ARM_FW: "firmware",
        uapi.KVM_REG_ARM64_SVE: "sve",
        uapi.KVM_REG_ARM_FW_FEAT_BMAP: "firmware_bitmap",
        uapi.KVM_REG_ARM64_SME: "sme",
    }.items()
}
"""Coprocessor field of an id to the family of registers. Kernel profiles and commands use these names, too."""

ARCHITECTURES: Final[dict[int, str]] = {
    vars(uapi)[f"KVM_REG_{name.upper()}"] >> _ARCH_SHIFT: name
    for name in ("generic", "ppc", "x86", "ia64", "arm", "s390", "arm64", "mips", "riscv", "loongarch")
}
"""Architecture field to name."""


_IN_RANGES: Final = re.compile(r"(x|v|z|p|za\.h\[|ccsidr\[|dbg[bw][vc]r)(\d+)(|\]|_el1)")
"""Registers of which there are many."""


class RegId(NamedTuple):
    """The fields of a register id.

    ``arch`` and ``coproc`` are the fields' numbers, ``size_bytes`` the size of a transfer,
    ``index`` the remaining 40 bits (bits 51..28 above bits 15..0). Fields that the id's family does
    not have are None: ``n`` and ``slice`` belong to vector registers, rows and other numbered ones,
    ``op0`` to ``op2`` to system registers. ``family`` is "" for an id outside arm64's families.
    """

    id: int
    name: str
    family: str
    arch: int
    size_bytes: int
    coproc: int
    index: int  # type: ignore[assignment]  # in place of tuple.index
    n: int | None = None
    slice: int | None = None
    op0: int | None = None
    op1: int | None = None
    crn: int | None = None
    crm: int | None = None
    op2: int | None = None

    @property
    def arch_name(self) -> str:
        """The architecture's name, or its number in hex."""
        return ARCHITECTURES.get(self.arch, f"{self.arch:#x}")


class _Named(NamedTuple):
    """A register with a name: its number in its bank, and whether it has slices."""

    name: str
    n: int | None = None
    sliced: bool = False


@lru_cache(4096)  # clients can ask for any id
def decode(id: int) -> RegId:
    """Returns an id's fields and name, for every 0 <= id < 2**64."""
    arch, coproc = id >> _ARCH_SHIFT, id >> _COPROC_SHIFT & 0xFFF
    family = FAMILIES.get(coproc, "") if arch == _ARM64 else ""
    n = slice = op0 = op1 = crn = crm = op2 = None
    if family == "sysreg":
        op0, op1, crn, crm, op2 = _encoding(id)
    elif named := _named().get(id):
        n, slice = named.n, 0 if named.sliced else None
    elif named := _sliced(id):
        n, slice = named.n, id & _SLICE
    elif numbered := _numbered(id):
        n = numbered[1]
    size_bytes = 1 << (id >> _SIZE_SHIFT & 0xF)
    index = id >> 12 & 0xFFFFFF0000 | id & 0xFFFF
    return RegId(id, name_of(id), family, arch, size_bytes, coproc, index, n, slice, op0, op1, crn, crm, op2)


def _encoding(id: int) -> tuple[int, int, int, int, int]:
    """Op0, Op1, CRn, CRm and Op2 of a system register's id, as KVM_REG_ARM64_SYSREG_OP0_SHIFT and so on place them."""
    return id >> 14 & 3, id >> 11 & 7, id >> 7 & 0xF, id >> 3 & 0xF, id & 7


def encode(what: str | RegId | Mapping[str, int]) -> int:
    """Returns the id of a name, or of the fields arch, size_bytes, coproc and index; UsageError if there is none."""
    if isinstance(what, str):
        return parse(what)
    if isinstance(what, RegId):
        what = {name: getattr(what, name) for name in ("arch", "size_bytes", "coproc", "index")}
    limits = {"arch": 1 << 8, "size_bytes": (1 << 15) + 1, "coproc": 1 << 12, "index": 1 << 40}
    if what.keys() != limits.keys():
        raise UsageError(f"a register id has the fields {', '.join(limits)}, not {', '.join(map(str, what)) or 'none'}")
    for name, limit in limits.items():
        if not 0 <= what[name] < limit:
            raise UsageError(f"{name} of a register id must be less than {limit:#x}, not {what[name]:#x}")
    if what["size_bytes"].bit_count() != 1:
        raise UsageError(f"size_bytes of a register id must be a power of two, not {what['size_bytes']}")
    log2_size = what["size_bytes"].bit_length() - 1
    index_high, index_low = divmod(what["index"], 1 << 16)
    fields = what["arch"] << _ARCH_SHIFT | log2_size << _SIZE_SHIFT | what["coproc"] << _COPROC_SHIFT
    return fields | index_high << 28 | index_low


@lru_cache(4096)  # clients can ask for any id
def name_of(id: int) -> str:
    """Returns the name of an id, or the id in hex if it has none."""
    if named := _named().get(id):
        return named.name
    if named := _sliced(id):
        return f"{named.name}[{id & _SLICE}]"
    if numbered := _numbered(id):
        return "{}[{}]".format(*numbered)
    if id & ~0xFFFF == _ARM64_U64 | uapi.KVM_REG_ARM64_SYSREG:
        return _generic_name(id)
    return f"{id:#018x}"


@lru_cache(4096)
def parse(text: str) -> int:
    """Returns the id of a name or number (hex or decimal), in either case; the UsageError suggests near names."""
    name = text.strip().lower()
    if (id := _ids().get(name)) is not None:
        return id
    if re.fullmatch(r"0x[0-9a-f]{1,16}|[0-9]{1,20}", name):
        id = int(name, 16 if name.startswith("0x") else 10)
        if id < 1 << 64:
            return id
    if match := re.fullmatch(r"s([0-3])_([0-7])_c([0-9]|1[0-5])_c([0-9]|1[0-5])_([0-7])", name):
        return uapi.ARM64_SYS_REG(*map(int, match.groups()))
    if match := re.fullmatch(r"(.+)\[(0|[1-9][0-9]{0,4})\]", name):
        bank, number = match[1], int(match[2])
        named = _named().get(_ids().get(bank, -1))
        if named and named.sliced and number <= _SLICE:
            return _ids()[bank] | number
        if bank in _NUMBERED and number <= _NUMBERED[bank][1]:
            return _NUMBERED[bank][0] | number
    raise UsageError(_unknown(text))


def names() -> list[str]:
    """Every register that has a name of its own, first slices only."""
    return list(_ids())


def ranges(names: Iterable[str]) -> str:
    """Names with runs folded, in the order in which they first appear.

    >>> ranges(["za.h[0]", "za.h[1]", "za.h[2]", "zt0", "z0", "z1", "x7"])
    'za.h[0-2] zt0 z0-1 x7'
    """
    runs: list[tuple[str, int, int, str]] = []
    for name in names:
        match = _IN_RANGES.fullmatch(name)
        if match is None:
            runs.append((name, -1, -1, ""))
            continue
        head, number, tail = match[1], int(match[2]), match[3]
        if runs and runs[-1][::3] == (head, tail) and runs[-1][2] == number - 1:
            runs[-1] = head, runs[-1][1], number, tail
        else:
            runs.append((head, number, number, tail))
    return " ".join(map(_range, runs))


def _range(run: tuple[str, int, int, str]) -> str:
    head, first, last, tail = run
    number = "" if first < 0 else f"{first}" if first == last else f"{first}-{last}"
    return f"{head}{number}{tail}"


def _unknown(text: str) -> str:
    from difflib import get_close_matches

    text = text if len(text) < 64 else text[:60] + "..."
    near = get_close_matches(text.strip().lower(), names(), 3)
    if near:
        return f"no register {text!r}: did you mean {', '.join(near)}?"
    return f"no register {text!r}: take a name such as z7, za.h[3], svcr or a number such as {_ids()['svcr']:#x}"


def _sliced(id: int) -> _Named | None:
    named = _named().get(id & ~_SLICE)
    return named if named and named.sliced else None


def _numbered(id: int) -> tuple[str, int] | None:
    for family, (first, last) in _NUMBERED.items():
        if first <= id <= first + last:
            return family, id - first
    return None


def _generic_name(id: int) -> str:
    return "s{}_{}_c{}_c{}_{}".format(*_encoding(id))


@cache
def _named() -> dict[int, _Named]:
    return dict([*_core(), *_vectors(), *_firmware(), *_sysregs()])


@cache
def _ids() -> dict[str, int]:
    return {named.name: id for id, named in _named().items()}


def _core() -> Iterator[tuple[int, _Named]]:
    def core(size: int, member: str) -> int:
        return size | uapi.KVM_REG_ARM_CORE | uapi.KVM_REG_ARM_CORE_REG(member)

    for n in range(31):
        yield core(_ARM64_U64, f"regs.regs[{n}]"), _Named(f"x{n}", n)
    for name in ("sp", "pc", "pstate"):
        yield core(_ARM64_U64, f"regs.{name}"), _Named(name)
    for name in ("sp_el1", "elr_el1"):
        yield core(_ARM64_U64, name), _Named(name)
    for bank in ("EL1", "ABT", "UND", "IRQ", "FIQ"):
        index = vars(uapi)[f"KVM_SPSR_{bank}"]
        yield core(_ARM64_U64, f"spsr[{index}]"), _Named(f"spsr_{bank.lower()}")
    for n in range(32):
        yield core(_ARM64_U128, f"fp_regs.vregs[{n}]"), _Named(f"v{n}", n)
    for name in ("fpsr", "fpcr"):
        yield core(_ARM64_U32, f"fp_regs.{name}"), _Named(name)


def _vectors() -> Iterator[tuple[int, _Named]]:
    for n in range(uapi.KVM_ARM64_SVE_NUM_ZREGS):
        yield uapi.KVM_REG_ARM64_SVE_ZREG(n, 0), _Named(f"z{n}", n, sliced=True)
    for n in range(uapi.KVM_ARM64_SVE_NUM_PREGS):
        yield uapi.KVM_REG_ARM64_SVE_PREG(n, 0), _Named(f"p{n}", n, sliced=True)
    yield uapi.KVM_REG_ARM64_SVE_FFR(0), _Named("ffr", sliced=True)
    yield uapi.KVM_REG_ARM64_SVE_VLS, _Named("sve_vls")
    for n in range(uapi.KVM_ARM64_SME_MAX_ZAHREG):
        yield uapi.KVM_REG_ARM64_SME_ZAHREG(n, 0), _Named(f"za.h[{n}]", n, sliced=True)
    yield uapi.KVM_REG_ARM64_SME_ZTREG(0), _Named("zt0", 0)
    yield uapi.KVM_REG_ARM64_SME_VLS, _Named("sme_vls")


def _firmware() -> Iterator[tuple[int, _Named]]:
    names = ["psci_version", *(f"smccc_arch_workaround_{n}" for n in (1, 2, 3))]
    names += ["std_bmap", "std_hyp_bmap", "vendor_hyp_bmap", "vendor_hyp_bmap_2"]
    for name in names:
        id = vars(uapi)[f"KVM_REG_ARM_{name.upper()}"]
        yield id, _Named(name, id & 0xFFFF)


@cache
def sysreg_rows() -> dict[str, dict[str, Any]]:
    """The table of system registers by name (profiles/sysregs.toml), as it stands in the file.

    It is read here, since the names are; profiles/sysregs.py knows what its columns mean.
    """
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "profiles", "sysregs.toml"), "rb") as table:
        return tomllib.load(table)


def _sysregs() -> Iterator[tuple[int, _Named]]:
    for name, row in sysreg_rows().items():
        yield vars(uapi)[row["id"]] if "id" in row else uapi.ARM64_SYS_REG(*row["enc"]), _Named(name)
