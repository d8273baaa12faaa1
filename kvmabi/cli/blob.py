# SPDX-License-Identifier: MIT
"""``kvmabi blob``: migration blobs and snapshots of VMMs."""

from __future__ import annotations

from kvmabi.cli import blob_convert, blob_diff, blob_info, blob_plan, blob_validate
from kvmabi.cli.command import Command

EXAMPLE = """\
  kvmabi blob info guest.qemu
  kvmabi blob validate snapshot/ --host neoverse-v1 --kernel linux-7.2
  kvmabi blob diff before.blob after.blob

exit status: 0 clean or equal, 1 errors or differences found, 2 misuse or not readable"""

COMMAND = Command(
    "blob",
    "Read, validate, compare and convert migration blobs and snapshots: QEMU's streams, libvirt's save images, qcow2 "
    "files with a snapshot, the snapshots of cloud-hypervisor, crosvm and Firecracker, traces, text, JSON and "
    "kvmabi's own format. The format is recognised by the content.",
    EXAMPLE,
    None,
    commands=(
        blob_info.COMMAND,
        blob_validate.COMMAND,
        blob_diff.COMMAND,
        blob_convert.COMMAND,
        blob_plan.COMMAND,
    ),
)
