# SPDX-License-Identifier: MIT
"""``kvmabi blob plan``: the order in which a snapshot's registers are restored."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

from kvmabi import regid
from kvmabi.cli import blob_options, formats
from kvmabi.cli.command import Command
from kvmabi.errors import UsageError
from kvmabi.model.plan import Plan, Stage, stage_of
from kvmabi.snapshot import restoring
from kvmabi.snapshot.snapshot import Snapshot, VcpuSnapshot

EXAMPLE = """\
  kvmabi blob plan guest.qemu
  kvmabi blob plan snapshot/ --vcpu 1 --format json
  kvmabi blob plan guest.blob --format c > order.h

exit status: 0 printed, 2 misuse or not readable"""
C = "c"


def options(parser: ArgumentParser) -> None:
    """Adds the command's options."""
    blob_options.add_file(parser)
    parser.add_argument("--vcpu", type=int, metavar="N", help="only the vCPU of this index")
    blob_options.add_facts(parser)
    blob_options.add_force(parser)


def run(args: Namespace) -> int:
    """Print the plans."""
    snapshot = blob_options.read_whole(args.file, args)
    chosen = [vcpu for vcpu in snapshot.vcpus if args.vcpu in (None, vcpu.index)]
    if not chosen:
        held = ", ".join(str(vcpu.index) for vcpu in snapshot.vcpus[:16])
        raise UsageError(f"{args.file}: has no vCPU {args.vcpu}: take one of {held}")
    if args.format == formats.JSON:
        formats.print_json({"vcpus": [_as_dict(vcpu, plan) for vcpu, plan in _plans(snapshot, chosen)]})
    elif args.format == C:
        print("\n".join(_c_lines(snapshot, chosen)))
    else:
        print("\n".join(_text_lines(snapshot, chosen)))
    return 0


def _plans(snapshot: Snapshot, chosen: list[VcpuSnapshot]) -> Iterator[tuple[VcpuSnapshot, Plan]]:
    """The plan of each vCPU; VM-wide registers are in that of the first one of the VM only."""
    for vcpu in chosen:
        yield vcpu, Plan.of(restoring.written(snapshot, vcpu), first_vcpu=vcpu is snapshot.vcpus[0])


def _as_dict(vcpu: VcpuSnapshot, plan: Plan) -> dict[str, Any]:
    steps = []
    for step in plan.steps():
        register = {} if step.id is None else {"id": f"{step.id:#018x}", "name": regid.name_of(step.id)}
        ioctl = "KVM_SET_ONE_REG" if step.id is not None else str(step)
        steps.append({"ioctl": ioctl, "stage": step.stage.name.lower(), **register})
    return {"index": vcpu.index, "steps": steps}


def _text_lines(snapshot: Snapshot, chosen: list[VcpuSnapshot]) -> Iterator[str]:
    for vcpu, plan in _plans(snapshot, chosen):
        yield f"vCPU {vcpu.index}: {len(plan.ids)} registers"
        if plan.vector and not any(stage_of(id) is Stage.LENGTHS for id in plan.ids):
            yield "  (the vector lengths are not known: without --sve and --sme the guest gets all of the host's)"
        number = 0
        for stage in Stage:
            ids = [id for id in plan.ids if stage_of(id) is stage]
            if not ids and (stage not in (Stage.INIT, Stage.FINALIZE) or (stage is Stage.FINALIZE and not plan.vector)):
                continue
            number += 1
            yield f"  {number}. {stage.title}"
            yield f"     ({stage.why})"
            yield from (f"       {id:#018x} {regid.name_of(id)}" for id in ids)


def _c_lines(snapshot: Snapshot, chosen: list[VcpuSnapshot]) -> Iterator[str]:
    yield "/* The order in which KVM_SET_ONE_REG restores each vCPU; KVM_ARM_VCPU_INIT comes before the first one. */"
    yield "#include <stdint.h>"
    for vcpu, plan in _plans(snapshot, chosen):
        early = sum(stage_of(id) < Stage.FINALIZE for id in plan.ids)
        yield ""
        if plan.vector:
            yield f"/* vCPU {vcpu.index}: KVM_ARM_VCPU_FINALIZE comes after the first {early}. */"
            yield f"static const unsigned int vcpu{vcpu.index}_before_finalize = {early};"
        yield f"static const uint64_t vcpu{vcpu.index}_order[] = {{"
        yield from (f"\t{id:#018x}, /* {regid.name_of(id)} */" for id in plan.ids)
        yield "};"


COMMAND = Command(
    "plan",
    "Print the order in which the registers of a snapshot are restored: INIT, vector lengths, ID registers, FINALIZE, "
    "svcr, then all others. VM-wide registers are restored with the first vCPU.",
    EXAMPLE,
    run,
    options,
    summary="the order of the restore",
    formats=(formats.TEXT, formats.JSON, C),
)
