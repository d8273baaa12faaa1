# SPDX-License-Identifier: MIT
"""docs/how-to/migration-blobs.md: every command prints what the page shows, from files as users have them."""

from __future__ import annotations

import re
import shlex
import tarfile
from collections.abc import Iterable
from lzma import decompress
from pathlib import Path

import pytest
from cli.conftest import Kvmabi, kvmabi
from ctools import ROOT

from kvmabi import regid
from kvmabi.kvm import open_kvm

PAGE = ROOT / "docs/how-to/migration-blobs.md"
DATA = ROOT / "tests/snapshot/data"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STREAMS = {
    "source.qemu": "k72-q100-sve256",
    "destination.qemu": "k612-q100-sve256",
    "a57.qemu": "k612-q111-a57",
    "long.qemu": "q111-max-sve2048-sme2048-sm-za",
    "streaming.qemu": "q111-max-sve256-sme512-sm-za-zt",
}
LOG = (
    "qemu-system-aarch64: handle_cpreg_only_in_incoming_stream: system register 0x1013c096 in the incoming stream but "
    "unknown on the destination: fail migration\n"
)
WIDTH = regid.parse("mdscr_el1")
NARROW = WIDTH & ~(0xF << 52) | 2 << 52
__all__ = ["kvmabi"]


def registers(host: str, features: set[str]) -> dict[str, str]:
    """A vCPU's registers after FINALIZE: name to hex."""
    with open_kvm(host=host) as kvm:
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init(features)
        if "sve" in features:
            vcpu.finalize()
        return {regid.name_of(id): vcpu[id].hex() for id in vcpu.reg_list()}


def write(path: Path, values: dict[str, str]) -> None:
    """A dump in text."""
    path.write_text("".join(f"{name} = {value}\n" for name, value in values.items()), "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page names."""
    path = tmp_path_factory.mktemp("howto")
    with tarfile.open(DATA / "qemu.tar.xz") as tar:
        for name, stream in STREAMS.items():
            member = tar.extractfile(stream)
            assert member is not None
            (path / name).write_bytes(member.read())
    (path / "guest.vmstate").write_bytes(decompress((DATA / "fc14-neoverse-v1.vmstate.xz").read_bytes()))
    (path / "qemu.log").write_text(LOG, "utf-8")
    (path / "snapshots").mkdir()
    sve = registers("neoverse-v1", {"sve", "psci", "pmu"})
    vectors = {name for name in sve if re.fullmatch(r"[zp][0-9]+|ffr", name)}
    write(
        path / "dump.txt",
        {name: value for name, value in sve.items() if name not in vectors} | {f"v{n}": "11" * 16 for n in range(32)},
    )
    plain = registers("cortex-a57", {"psci", "pmu"})
    by_id = {f"{regid.parse(name):#018x}": value for name, value in plain.items()}
    narrow = {f"{NARROW:#018x}" if int(id, 16) == WIDTH else id: value for id, value in by_id.items()}
    narrow[f"{NARROW:#018x}"] = "00000000"
    (path / "width.txt").write_text("".join(f"{id}={value}\n" for id, value in narrow.items()), "utf-8")
    write(path / "core4.txt", plain | {"ccsidr[0]": "ffe0ff70"})
    timers = {"cntv_cval_el0": 123456789012, "cntvct_el0": 0, "cntv_ctl_el0": 1}
    write(path / "timers.txt", plain | {name: value.to_bytes(8, "little").hex() for name, value in timers.items()})
    profile = (ROOT / "kvmabi/profiles/hosts/sme-demo.toml").read_text("utf-8")
    small = re.sub(r"(?m)^sme_vector_bits = .*$", "sme_vector_bits = [128, 256]", profile)
    (path / "small-sme.toml").write_text(small, "utf-8")
    return path


def commands() -> Iterable[tuple[str, list[str]]]:
    """Each command of the page, and the lines that it shows."""
    for block in BLOCK.findall(PAGE.read_text("utf-8")):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, *lines = part.splitlines()
            yield command, lines


COMMANDS = list(commands())


def shows(shown: list[str], printed: list[str]) -> str:
    """The first shown line that is not printed where it should be, "" if there is none."""
    place, skipping = 0, False
    for line in [*shown, None]:
        if line == "…":
            skipping = True
            continue
        while skipping and place < len(printed) and (printed[place] != line or line is None):
            place += 1
        if place == len(printed):
            return line or ""
        if printed[place] != line:
            return line or f"no end, but {printed[place]}"
        place, skipping = place + 1, False
    return ""


def test_shows() -> None:
    """The comparison fails for a line that is missing, in another place, or not shown."""
    printed = ["a", "b", "c"]
    assert shows(["a", "…", "c"], printed) == shows(["…", "b", "…"], printed) == shows(printed, printed) == ""
    assert shows(["…", "d", "…"], printed) == "d"
    assert shows(["a", "c"], printed) == "c"
    assert shows(["…", "c", "…", "b", "…"], printed) == "b"
    assert shows(["a", "b"], printed).startswith("no end")


@pytest.mark.slow
@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_command(folder: Path, monkeypatch: pytest.MonkeyPatch, kvmabi: Kvmabi, command: str, shown: list[str]) -> None:
    """The lines that the page shows are printed in their order; others stand between them only at an ellipsis."""
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    assert words[0] == "kvmabi"
    ended = kvmabi(*words[1:])
    assert shows(shown, (ended.out + ended.err).splitlines()) == "", ended.out + ended.err
