# SPDX-License-Identifier: MIT
"""The vectors' content before the vector lengths: bits that no length allows, and what length they imply."""

from __future__ import annotations

from collections.abc import Iterator

from kvmabi.model import sme, sve
from kvmabi.snapshot.checks.case import SME, SVE, Case
from kvmabi.snapshot.checks.findings import Seen
from kvmabi.snapshot.lengths import VQ_BITS
from kvmabi.snapshot.snapshot import Fact

LONG_Z_BITS = 1024
Z_AND_P = (*sve.Z_IDS, *sve.P_IDS, sve.FFR_ID)
P_IDS = frozenset((*sve.P_IDS, sve.FFR_ID))
ROWS = {id: row for row, id in enumerate(sme.ZA_IDS)}


def valid_bytes(id: int, length_bits: int) -> int:
    """How many bytes of Z, P, FFR or a row of ZA are real at a vector length.

    >>> valid_bytes(sve.Z_IDS[0], 256), valid_bytes(sve.P_IDS[0], 256), valid_bytes(sme.ZA_IDS[32], 256)
    (32, 4, 0)
    """
    if id in P_IDS:
        return length_bits // 64
    return 0 if ROWS.get(id, 0) >= length_bits // 8 else length_bits // 8


def lengths_here(case: Case) -> dict[int, int]:
    """The length in bits of every vector register of the vCPU, as far as it is known."""
    lengths: dict[int, int] = {}
    for ids, kind in ((Z_AND_P, case.z_kind), (sme.ZA_IDS, SME)):
        longest = case.longest(kind)
        if longest:
            lengths |= dict.fromkeys(case.present(ids), longest)
    return lengths


def beyond(case: Case) -> Iterator[Seen]:
    """Bits beyond the lengths that the file or the user gives."""
    other_kind = SVE if case.sm else SME
    other = case.longest(other_kind) or 0
    found: dict[str, list[int]] = {}
    for id, length in lengths_here(case).items():
        used = case.used[id]
        if used > valid_bytes(id, length):
            fits_other = id not in ROWS and used <= valid_bytes(id, other)
            found.setdefault("other-mode-length" if fits_other else "beyond-length", []).append(id)
    for rule, ids in found.items():
        kinds = {SME if id in ROWS else case.z_kind for id in ids}
        lengths = ", ".join(f"{kind.upper()} vectors have {case.longest(kind)} bits" for kind in sorted(kinds))
        also = f"; {other_kind.upper()}'s have {other}" if rule == "other-mode-length" else ""
        yield Seen(rule, f"SVCR.SM = {case.sm:d}: {lengths}{also}; {_used(case, ids)}", tuple(ids))


def implied_bits(case: Case, kind: str) -> tuple[int, int | None]:
    """A lower bound in bits of a length, by the registers' content, and the register that shows it."""
    most, shown_by = 0, None
    for id in case.present((*(Z_AND_P if kind == case.z_kind else ()), *(sme.ZA_IDS if kind == SME else ()))):
        used = case.used[id]
        if not used:
            continue
        bits = used * (64 if id in P_IDS else 8)
        if id in ROWS:
            bits = max(bits, (ROWS[id] + 1) * 8)
        if bits > most:
            most, shown_by = bits, id
    return -(-most // VQ_BITS) * VQ_BITS, shown_by


def implied(case: Case) -> Iterator[Seen]:
    """What follows from the content where the lengths are unknown, and where they exceed the target's."""
    for kind in (SVE, SME):
        if not (case.has_sve if kind == SVE else case.has_sme):
            continue
        known = case.longest(kind)
        bits, shown_by = (0, None) if known else implied_bits(case, kind)
        if shown_by is not None:
            text = f"{kind.upper()} vectors have at least {bits} bits"
            yield Seen("length-implied", text, (shown_by,), ({"kind": kind, "least_bits": bits},))
        yield from _beyond_target(case, kind)
        length = max(known or 0, bits)
        if kind == case.z_kind and length > LONG_Z_BITS and case.lacks(Fact.LONG_Z):
            least = "" if known else "at least "
            text = f"Z has {least}{length} bits, and bits {LONG_Z_BITS} to {length - 1} are not in the file"
            yield Seen("long-z-lost", text, case.present(sve.Z_IDS))


def _beyond_target(case: Case, kind: str) -> Iterator[Seen]:
    longest, known = case.host_longest(kind), case.longest(kind)
    if longest is None or (known is not None and known <= longest):
        return
    ids = (*(Z_AND_P if kind == case.z_kind else ()), *(sme.ZA_IDS if kind == SME else ()))
    cut = [id for id in case.present(ids) if case.used[id] > valid_bytes(id, longest)]
    if cut and longest:
        yield Seen(
            "beyond-target", f"the target's {kind.upper()} vectors have {longest} bits; {_used(case, cut)}", tuple(cut)
        )
    elif cut:
        yield Seen("beyond-target", f"the target has no {kind.upper()}; {_used(case, cut)}", tuple(cut))


def _used(case: Case, ids: list[int]) -> str:
    sizes = [case.used[id] for id in ids]
    return f"{len(ids)} register{'s have' if len(ids) > 1 else ' has'} bits beyond, up to byte {max(sizes) - 1}"


def mask(ids: tuple[int, ...], lengths: tuple[int, ...], sizes: tuple[int, ...]) -> int:
    """The bits beyond the lengths in the joined values of some registers, as one number."""
    parts = (
        (bytes(valid_bytes(id, length)) + b"\xff" * size)[:size]
        for id, length, size in zip(ids, lengths, sizes, strict=True)
    )
    return int.from_bytes(b"".join(parts), "little")
