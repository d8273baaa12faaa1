# SPDX-License-Identifier: MIT
"""``kvmabi regs``: the register map of a vCPU in a mode, as the kernel would list it."""

from __future__ import annotations

import errno
from argparse import ArgumentParser, Namespace
from typing import Any

from kvmabi.cli import common, formats
from kvmabi.cli.command import Command
from kvmabi.errors import KvmError, UsageError
from kvmabi.kvm import Kvm
from kvmabi.model.refusal import Refusal
from kvmabi.model.row import Row

EXAMPLE = """\
  kvmabi regs --host sme-demo --features sve,sme --svcr sm,za
  kvmabi regs --features sve,sme --format json

exit status: 0 listed, 2 misuse"""
SVCR_BITS = {"sm": 1, "za": 2}


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    common.add_profiles(parser)
    parser.add_argument(
        "--features", default="", metavar="F,…", help="vCPU features for INIT, such as sve,sme,pmu,ptrauth"
    )
    parser.add_argument("--svcr", default="", metavar="B,…", help="bits of SVCR that are set: sm, za")
    parser.add_argument("--not-finalized", action="store_true", help="show the vCPU before KVM_ARM_VCPU_FINALIZE")


def run(args: Namespace) -> int:
    """Print the register map."""
    bits = common.words(args.svcr)
    common.one_of("bit of SVCR", bits, SVCR_BITS)
    host, kernel = common.profiles(args.host, args.kernel)
    with Kvm(host, kernel, kept_events=0) as kvm:
        try:
            rows = _rows(kvm, common.words(args.features), sum({SVCR_BITS[bit] for bit in bits}), args.not_finalized)
        except KvmError as error:
            raise UsageError(f"host {host.name} under kernel {kernel.label} refuses that: {error}") from None
    if args.format == formats.JSON:
        formats.print_json(rows)
        return 0
    listed = sum(row["listed"] is not None for row in rows)
    print(f"host {host.name}, kernel {kernel.label}: {listed} registers listed")
    header = ("list", "register", "id", "bytes", "valid", "get", "set")
    common.print_table(header, (["-" if cell is None else cell for cell in row.values()] for row in rows))
    return 0


def _rows(kvm: Kvm, features: list[str], svcr: int, not_finalized: bool) -> list[dict[str, Any]]:
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init(features)
    model = kvm.vcpu_model(vcpu.fd)
    if model.mode.vector and not not_finalized:
        vcpu.finalize()
    if svcr:
        vcpu["svcr"] = svcr
    regmap = model.require_init()
    numbers = {id: number for number, id in enumerate(regmap.listed)}
    return [_describe(row, numbers.get(row.id)) for row in regmap.rows.values()]


def _describe(row: Row, number: int | None) -> dict[str, Any]:
    return {
        "listed": number,
        "name": row.name,
        "id": f"{row.id:#018x}",
        "size_bytes": row.size_bytes,
        "valid_bytes": row.valid_bytes,
        "get": _answer(row.get),
        "set": _answer(row.set),
    }


def _answer(refusal: Refusal | None) -> str:
    return "OK" if refusal is None else errno.errorcode[refusal.errno]


COMMAND = Command(
    "regs",
    "List the registers of a vCPU: number in KVM_GET_REG_LIST (- if it is not listed), id, transfer size and valid "
    "length in bytes, and the answers of a get and a set.",
    EXAMPLE,
    run,
    options,
    formats=formats.DATA,
)
