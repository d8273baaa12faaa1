# SPDX-License-Identifier: MIT
"""A shard on a Dask cluster has the results that this machine has."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from cli.conftest import Kvmabi

from fleet import blobs
from kvmabi.fleet import cluster
from kvmabi.fleet.cluster import PORTION_FILES
from kvmabi.fleet.manifest import Entry
from kvmabi.fleet.task import Todo, failed


def test_portions() -> None:
    """No portion is empty or too long; known results cost nothing; all are there, in order."""
    known = failed(Entry("k"), "time")
    todo = [Todo(Entry(str(number), number % 7 << 25), known if number % 3 else None) for number in range(9000)]
    portions = list(cluster.portions(todo))
    assert [one for portion in portions for one in portion] == todo
    assert all(0 < len(portion) <= PORTION_FILES for portion in portions)
    assert len(list(cluster.portions(Todo(Entry("x", 1 << 40)) for _ in range(3)))) == 3


@pytest.mark.slow
def test_same_results(kvmabi: Kvmabi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, several portions, some results known already."""
    distributed = pytest.importorskip("distributed", reason="needs distributed")
    monkeypatch.setattr(cluster, "PORTION_FILES", 5)
    manifest, here, there = blobs.folder(tmp_path), tmp_path / "here", tmp_path / "there"
    words = ["--manifest", str(manifest), "--host", "cortex-a57"]
    kvmabi("blob", "validate", *words, "--out", str(here))
    dask = pytest.importorskip("dask")
    options = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the cluster's own code
        with (
            dask.config.set({"temporary-directory": str(tmp_path)}),
            distributed.LocalCluster(**options, protocol="tcp", host="127.0.0.1") as made,
        ):
            scheduler = made.scheduler_address.replace("tcp://", "dask://")
            for _ in range(2):
                ended = kvmabi("blob", "validate", *words, "--out", str(there), "--scheduler", scheduler)
                assert (ended.status, ended.err) == (1, "")
    assert _without_times(there) == _without_times(here)


def _without_times(path: Path) -> list[dict[str, object]]:
    return [{key: value for key, value in result.items() if key != "seconds"} for result in blobs.results(path)]


@pytest.mark.slow
def test_no_cluster(kvmabi: Kvmabi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the address."""
    pytest.importorskip("distributed", reason="needs distributed")
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    words = ["--manifest", str(blobs.folder(tmp_path)), "--out", str(tmp_path / "out")]
    ended = kvmabi("blob", "validate", *words, "--scheduler", "dask://127.0.0.1:1")
    assert ended.status == 2
    assert "dask://127.0.0.1:1: cannot be reached" in ended.err
