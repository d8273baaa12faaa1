# SPDX-License-Identifier: MIT
"""The system's own apt sources, asked for another suite and architecture. Formats: sources.list(5)."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path

from kvmabi.errors import UsageError

ETC = Path("/etc/apt")
SECURITY = "-security"
FIELD = re.compile(r"([A-Za-z-]+):\s*(.*)")
ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.+)")
KEPT = ("URIs", "Signed-By", "Trusted")
Stanza = dict[str, str]


def stanzas(etc: Path = ETC) -> Iterator[Stanza]:
    """The system's package sources, of either format, as fields of deb822."""
    for path in sorted([*etc.glob("sources.list"), *etc.glob("sources.list.d/*.list")]):
        for line in path.read_text("utf-8", "replace").splitlines():
            if match := ONE_LINE.match(line.strip()):
                yield _from_line(match)
    for path in sorted(etc.glob("sources.list.d/*.sources")):
        for text in re.split(r"\n\s*\n", path.read_text("utf-8", "replace")):
            stanza = _from_text(text)
            if "deb" in stanza.get("Types", "").split() and stanza.get("Enabled", "yes").lower() != "no":
                yield stanza


def for_suite(suite: str, architecture: str, etc: Path = ETC) -> str:
    """A deb822 stanza for a suite, from the mirror and with the keys that the system uses for its own.

    Raises UsageError if the system has no source of that kind.
    """
    release = codename()
    for stanza in stanzas(etc):
        suites = stanza.get("Suites", "").split()
        fits = any(name.endswith(SECURITY) for name in suites) if suite.endswith(SECURITY) else release in suites
        if fits and "main" in stanza.get("Components", "").split():
            fields = {key: stanza[key] for key in KEPT if key in stanza}
            fields |= {"Types": "deb", "Suites": suite, "Components": "main", "Architectures": architecture}
            return "".join(f"{key}: {value}\n" for key, value in fields.items())
    raise UsageError(f"the system's apt sources have none of Debian's that {suite} could come from")


def codename() -> str:
    """The code name of the system's release; UsageError if it has none."""
    try:
        name = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        name = ""
    if not name:
        raise UsageError("this is no Debian release: fetch an arm64 kernel by hand and use --kernel-image")
    return name


def _from_text(text: str) -> Stanza:
    stanza: Stanza = {}
    last = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and last:
            stanza[last] += "\n" + line
        elif match := FIELD.match(line):
            last = match[1]
            stanza[last] = match[2]
    return stanza


def _from_line(match: re.Match[str]) -> Stanza:
    stanza = {"Types": "deb", "URIs": match[2], "Suites": match[3], "Components": match[4].partition("#")[0].strip()}
    for option in (match[1] or "").split():
        key, _, value = option.partition("=")
        if key.lower() == "signed-by":
            stanza["Signed-By"] = value
    return stanza
