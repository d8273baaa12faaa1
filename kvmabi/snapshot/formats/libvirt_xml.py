# SPDX-License-Identifier: MIT
"""What a libvirt domain's XML says about its vCPUs. The XML is hostile: no document type, no entities, size limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from xml.parsers import expat

from kvmabi.snapshot.lengths import VQ_BITS
from kvmabi.snapshot.source import BadBlob

MOST_BYTES: Final = 4 << 20
MOST_DEPTH: Final = 64
MOST_TEXT: Final = 256
MOST_CPU_FEATURES: Final = 256
MOST_VQ: Final = 16
ON: Final = frozenset({"require", "force"})
OFF: Final = frozenset({"disable", "forbid"})
_SVE_LENGTH: Final = re.compile(r"sve([1-9][0-9]{2,3})")
_TEXTS: Final[dict[tuple[str, ...], str]] = {
    ("domain", "name"): "name",
    ("domain", "uuid"): "uuid",
    ("domain", "vcpu"): "vcpus",
}
"""Elements whose text is kept, and as what."""
_ATTRIBUTES: Final = {
    (("domain",), "type"): "type",
    (("domain", "os", "type"), "machine"): "machine",
    (("domain", "os", "type"), "arch"): "arch",
    (("domain", "cpu"), "mode"): "cpu_mode",
}


@dataclass
class Domain:
    """What is kept of a domain. ``cpu_features`` are the policies by name of ``<feature>`` in ``<cpu>``."""

    values: dict[str, str] = field(default_factory=dict)
    cpu_features: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """All of it, as facts of a snapshot."""
        return self.values | ({"cpu_features": self.cpu_features} if self.cpu_features else {})


def domain_of(data: bytes) -> Domain:
    """Parse a domain's XML. Raises BadBlob if it is not well-formed, too large, or declares anything."""
    if len(data) > MOST_BYTES:
        raise BadBlob(f"the domain's XML is larger than {MOST_BYTES >> 20} MiB", rule="too-large")
    domain = Domain()
    path: list[str] = []
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise BadBlob("the domain's XML declares a document type", parser.CurrentByteIndex, "domain-xml")

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        if len(path) > MOST_DEPTH:
            raise BadBlob("the domain's XML is nested too deeply", parser.CurrentByteIndex, "domain-xml")
        here = tuple(path)
        for (where, attribute), key in _ATTRIBUTES.items():
            if here == where and attribute in attributes:
                domain.values[key] = attributes[attribute][:MOST_TEXT]
        if here == ("domain", "cpu", "feature") and len(domain.cpu_features) < MOST_CPU_FEATURES:
            feature = attributes.get("name", "")[:MOST_TEXT]
            domain.cpu_features[feature] = attributes.get("policy", "require")[:MOST_TEXT]

    def end(_: str) -> None:
        path.pop()

    def text(content: str) -> None:
        key = _TEXTS.get(tuple(path)) if len(path) == 2 else None
        if key is not None:
            domain.values[key] = (domain.values.get(key, "") + content.strip())[:MOST_TEXT]

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise BadBlob(f"the domain's XML is damaged: {error}", rule="domain-xml") from None
    return domain


def sve_bits(domain: Domain) -> tuple[int, ...] | None:
    """The set of SVE vector lengths in bits that the domain's CPU features determine; None if they do not.

    QEMU takes the longest length that is switched on as the longest of all, and adds the shorter powers of two. What
    else is shorter depends on the host under KVM, unless a feature decides it; TCG adds nothing else.

    >>> sve_bits(Domain({"type": "kvm"}, {"sve256": "require"}))
    (128, 256)
    >>> sve_bits(Domain({"type": "kvm"}, {"sve512": "require"})) is None
    True
    >>> sve_bits(Domain({"type": "kvm"}, {"sve512": "require", "sve384": "disable"}))
    (128, 256, 512)
    """
    policies = domain.cpu_features
    if policies.get("sve") in OFF:
        return ()
    vqs: dict[int, bool] = {}
    for name, policy in policies.items():
        match = _SVE_LENGTH.fullmatch(name)
        if match is None:
            continue
        vq, rest = divmod(int(match[1]), VQ_BITS)
        if rest or vq > MOST_VQ or policy not in ON | OFF:
            return None
        vqs[vq] = policy in ON
    most = max((vq for vq, on in vqs.items() if on), default=0)
    if not most:
        return None
    lengths = []
    for vq in range(1, most + 1):
        power = vq & (vq - 1) == 0
        if vq not in vqs and not power and domain.values.get("type") != "qemu":
            return None
        if vqs.get(vq, power):
            lengths.append(vq * VQ_BITS)
        elif power:  # the architecture has no such set: QEMU refuses it, or fails to start
            return None
    return tuple(lengths)
