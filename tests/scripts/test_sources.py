# SPDX-License-Identifier: MIT
"""The system's apt sources, of either format, rewritten for another suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from fetch_kernel import sources

from kvmabi.errors import UsageError

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://mirror.invalid/security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN KEY-----
 abc
 -----END KEY-----

Types: deb-src
URIs: http://mirror.invalid/source
Suites: bookworm
Components: main
"""
ONE_LINE = """\
# deb http://commented.invalid/debian bookworm main
deb-src http://mirror.invalid/debian bookworm main
deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.invalid/debian bookworm main contrib # here
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as /etc/apt of a system called bookworm."""
    monkeypatch.setattr(sources, "codename", lambda: "bookworm")
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_deb822(etc: Path) -> None:
    """A stanza keeps the mirror and the key and gets the suite, main and the architecture."""
    (etc / "sources.list.d" / "debian.sources").write_text(DEB822)
    stanza = sources.for_suite("sid", "arm64", etc)
    assert "URIs: http://mirror.invalid/debian\n" in stanza
    assert "Suites: sid\n" in stanza
    assert "Components: main\n" in stanza
    assert "Architectures: arm64\n" in stanza
    assert "Signed-By: /usr/share/keyrings/debian.gpg\n" in stanza


def test_security_suites_have_a_mirror_of_their_own(etc: Path) -> None:
    """A -security suite comes from the source of the system's -security; a key inside the stanza is preserved."""
    (etc / "sources.list.d" / "debian.sources").write_text(DEB822)
    stanza = sources.for_suite("trixie-security", "arm64", etc)
    assert "URIs: http://mirror.invalid/security\n" in stanza
    assert " -----END KEY-----" in stanza


def test_one_line(etc: Path) -> None:
    """The old format is read as well; what is commented out and deb-src is not."""
    (etc / "sources.list").write_text(ONE_LINE)
    stanza = sources.for_suite("sid", "arm64", etc)
    assert "URIs: http://mirror.invalid/debian\n" in stanza
    assert "Signed-By: /keys/debian.gpg\n" in stanza


def test_a_disabled_source_is_ignored(etc: Path) -> None:
    """Enabled: no counts, and having no source is a UsageError."""
    (etc / "sources.list.d" / "debian.sources").write_text("Enabled: no\n" + DEB822.split("\n\n")[0].split("\n", 1)[1])
    with pytest.raises(UsageError, match="sid"):
        sources.for_suite("sid", "arm64", etc)
