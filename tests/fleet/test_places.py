# SPDX-License-Identifier: MIT
"""URLs: opened in ranges, whatever the store; what cannot be opened is a result, not an end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import Kvmabi

from fleet import blobs
from kvmabi.fleet import places

fsspec: Any = pytest.importorskip("fsspec", reason="needs fsspec")


@pytest.fixture
def store() -> Iterator[Any]:
    """A store in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_paths() -> None:
    """Paths, also as file URLs; anything else with :// is a URL."""
    assert places.path_of("file:///a%20b/c") == "/a b/c"
    assert places.path_of("a://b") is None
    assert places.path_of("file://other-machine/x") is None


def test_a_url_is_read_in_ranges(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seekable file, of which the end is read without what comes before."""
    store.pipe("/big", bytes(8 << 20) + b"end")
    with places.open_url("memory://big") as stream:
        assert stream.seekable()
        stream.seek(8 << 20)
        assert stream.read() == b"end"


def test_urls_in_a_shard(kvmabi: Kvmabi, store: Any, tmp_path: Path) -> None:
    """What is there is judged; what is not, or has an unknown scheme, is not readable."""
    store.pipe("/a", blobs.text().encode())
    manifest, out = tmp_path / "manifest", tmp_path / "out"
    manifest.write_text(f"memory://a\nmemory://none\nnonsense://x\n{tmp_path}/none\n", "utf-8")
    ended = kvmabi("blob", "validate", "--manifest", str(manifest), "--out", str(out))
    assert (ended.status, ended.err) == (1, "")
    assert blobs.statuses(out) == ["clean", "unreadable", "unreadable", "unreadable"]
    assert "nonsense" in blobs.results(out)[2]["reason"]
