# SPDX-License-Identifier: MIT
"""Judges one file of a fleet: what it is, and how often each rule is broken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from kvmabi import regid
from kvmabi.errors import UsageError
from kvmabi.fleet import places
from kvmabi.fleet.manifest import Entry
from kvmabi.snapshot import opening
from kvmabi.snapshot.checks.findings import Finding, Report
from kvmabi.snapshot.snapshot import Snapshot
from kvmabi.snapshot.source import BadBlob

MOST_NAME_CHARS = 100
MOST_REGISTERS = 8
"""How many registers of a finding a result names."""

Result = dict[str, Any]
"""One line of the results: the keys that ``result`` sets. ``status`` is clean, errors, unreadable or failed."""


class Todo(NamedTuple):
    """A file of a shard, and its result if that is known from an earlier run."""

    entry: Entry
    known: Result | None = None


def judge(entry: Entry, validate: Callable[[Snapshot], Report], *, numbers: bool = False) -> Result:
    """Read and judge one file; what is wrong with it is in the result. ``numbers`` as in ``opening.read``."""
    began = time.perf_counter()
    try:
        path = places.path_of(entry.url)
        if path is not None:
            snapshot = opening.read(path, numbers=numbers)
        else:
            with places.open_url(entry.url) as stream:
                snapshot = opening.read_stream(stream, entry.url, numbers=numbers)
        report = validate(snapshot)
    except (UsageError, BadBlob, OSError) as error:
        return result(entry, "unreadable", reason=str(error), seconds=time.perf_counter() - began)
    return result(
        entry,
        "errors" if report.errors else "clean",
        format=snapshot.format,
        host=snapshot.host[:MOST_NAME_CHARS],
        kernel=snapshot.kernel[:MOST_NAME_CHARS],
        vcpus=len(snapshot.vcpus),
        findings=list(map(_short, report.findings)),
        seconds=time.perf_counter() - began,
    )


def failed(entry: Entry, why: str) -> Result:
    """The result of a file that exceeded a limit ("time", "memory") or ended its worker ("crash")."""
    return result(entry, "failed", reason=why)


def result(entry: Entry, status: str, **known: Any) -> Result:
    """A line of the results: every key, whatever is known."""
    line: Result = {
        "url": entry.url,
        "etag": entry.etag,
        "size": entry.size_bytes,
        "status": status,
        "reason": "",
        "against": "",
        "format": "",
        "host": "",
        "kernel": "",
        "vcpus": 0,
        "findings": [],
        "seconds": 0.0,
    } | known
    line["seconds"] = round(line["seconds"], 6)
    return line


def _short(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule.id,
        "severity": str(finding.severity),
        "vcpu": finding.vcpu,
        "registers": [regid.name_of(id) for id in finding.registers[:MOST_REGISTERS]],
        "count": len(finding.registers),
    }
