# SPDX-License-Identifier: MIT
"""Saves of other runs: kept by content, read back whole, bounded, and never trusted."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmms import differing, guest, opened, restore, save, vcpu_of

import kvmabi
from kvmabi.order import OrderChecker, kept
from kvmabi.order.kept import KeptSaves


@pytest.fixture(scope="module")
def made() -> OrderChecker:
    """A checker that saw one save."""
    with kvmabi.open() as kvm:
        checker = OrderChecker()
        kvm.log.watchers.append(checker.watch)
        save(guest(kvm.create_vm(), 3))
        return checker


def test_what_is_kept_is_read_back(made: OrderChecker, tmp_path: Path) -> None:
    """State, reads and place are the same; the run has its name, and its age is kept."""
    KeptSaves(tmp_path / "new").keep(made.saves, "vmm, process 7")
    (read,) = KeptSaves(tmp_path / "new").load()
    (save,) = made.saves
    assert (read.state, read.reads, read.place) == (save.state, save.reads, save.place)
    assert read.from_run == "vmm, process 7"
    assert read.seconds == pytest.approx(save.seconds, abs=1)


def test_equal_saves_are_one_file(made: OrderChecker, tmp_path: Path) -> None:
    """The name is the content's, whatever run it is of."""
    for run in ("first", "second"):
        KeptSaves(tmp_path).keep(made.saves, run)
    assert len(list(tmp_path.iterdir())) == 1


def test_restore_in_another_run_is_judged(made: OrderChecker, tmp_path: Path) -> None:
    """The run that restores has not seen the save, and finds it."""
    KeptSaves(tmp_path).keep(made.saves, "saver")
    (state,) = (save.state for save in made.saves)
    with opened() as kvm:
        checker = OrderChecker()
        kvm.log.watchers.append(checker.watch)
        target = vcpu_of(kvm.create_vm())
        saved = {kvmabi.regid.name_of(id): value for id, value in state.items() if id < 1 << 64}
        restore(target, saved)
        missing = differing(target, saved)
        with pytest.raises(kvmabi.KvmError):
            target.run()
        verdict = checker.verdict(other_saves=KeptSaves(tmp_path).load)
    assert {name for finding in verdict.findings for name in finding.registers} - {"sve_vls", "sme_vls"} == missing
    assert [pair.from_run for pair in verdict.judged] == ["saver"]


def test_old_and_surplus_saves_go(made: OrderChecker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are left; other files are not touched."""
    monkeypatch.setattr(kept, "MOST_FILES", 3)
    folder = tmp_path / "saves-1-1"
    folder.mkdir()
    for name in ("notes.txt", "game.save"):
        (folder / name).write_text("mine")
        os.utime(folder / name, (0, 0))
    for number in range(5):
        path = folder / f"{number:032x}.save"
        path.write_text("{}")
        age = kept.MOST_AGE_SECONDS + 1 if number == 4 else number
        os.utime(path, (time.time() - age, time.time() - age))
    KeptSaves(folder).keep(made.saves, "run")
    left = {path.name for path in folder.iterdir()}
    assert {"notes.txt", "game.save", f"{0:032x}.save", f"{1:032x}.save"} < left
    assert len(left) == 5


def test_a_users_own_folder_is_not_aged(made: OrderChecker, tmp_path: Path) -> None:
    """A save that was kept for CI stays."""
    KeptSaves(tmp_path).keep(made.saves, "run")
    (path,) = tmp_path.iterdir()
    os.utime(path, (0, 0))
    made.saves[0].reads[1 << 63] = 1
    KeptSaves(tmp_path).keep(made.saves, "run")
    del made.saves[0].reads[1 << 63]
    assert len(list(tmp_path.iterdir())) == 2


@given(
    st.binary(max_size=200)
    | st.recursive(st.integers() | st.text(), st.lists, max_leaves=5).map(json.dumps).map(str.encode)
)
def test_damaged_files_are_left_out(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("saves")
    (folder / f"{7:032x}.save").write_bytes(content)
    assert KeptSaves(folder).load() == []


@pytest.mark.parametrize(
    "change",
    [
        {"vm": -1},
        {"vcpu": "0"},
        {"state": {"1": [1 << 30, "00"]}},
        {"state": {"1": [1, "0000"]}},
        {"state": {"fffffffffffffffffffffff": [1, "00"]}},
        {"reads": [1]},
        {"when": []},
        {"when": 10**400},
        {"when": float("-inf")},
        {"run": ""},
        {"run": "\n::error::"},
        {"format": "other"},
    ],
    ids=str,
)
def test_hostile_saves_are_left_out(made: OrderChecker, tmp_path: Path, change: dict[str, object]) -> None:
    """Each field of a save that is otherwise right."""
    KeptSaves(tmp_path).keep(made.saves, "run")
    (path,) = tmp_path.iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert KeptSaves(tmp_path).load() == []


def test_session_folder_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by the parent process; one that others can enter is not used; those of ended processes are removed."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = kept.session_folder()
    assert folder is not None
    assert folder == kept.session_folder()
    assert str(os.getppid()) in folder.name
    ended = folder.parent / "saves-999999999-1"
    ended.mkdir()
    (ended / "x.save").write_text("{}")
    kept.session_folder()
    assert not ended.exists()
    folder.parent.chmod(0o755)
    assert kept.session_folder() is None


def test_equal_state_of_another_run_does_not_hide_a_loss(made: OrderChecker, tmp_path: Path) -> None:
    """What was destroyed here is lost, even if it makes the vCPU equal to a guest of another run."""
    KeptSaves(tmp_path).keep(made.saves, "saver")
    (state,) = (save.state for save in made.saves)
    with opened() as kvm:
        checker = OrderChecker()
        kvm.log.watchers.append(checker.watch)
        elsewhere = {kvmabi.regid.name_of(id): value for id, value in state.items() if id < 1 << 64}
        source = guest(kvm.create_vm(), 3)
        source["x3"] = 0x1234
        saved = save(source)
        target = vcpu_of(kvm.create_vm(), final=False)
        restore(target, saved, ["sve_vls", "sme_vls"])
        target.finalize()
        restore(target, saved, [name for name in saved if name not in ("sve_vls", "sme_vls", "x3", "svcr")])
        restore(target, elsewhere, ["svcr", *(name for name in elsewhere if not name.startswith("x"))])
        with pytest.raises(kvmabi.KvmError):
            target.run()
        verdict = checker.verdict(other_saves=KeptSaves(tmp_path).load)
    assert "x3" in {name for finding in verdict.findings for name in finding.registers}
