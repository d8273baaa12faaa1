# SPDX-License-Identifier: MIT
"""Lines of a trace: what is shown of ioctls, registers, structs, failures and exits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvmabi import KvmError, regid, uapi
from kvmabi.detail import Detail, size_of_argument
from kvmabi.errors import UsageError
from kvmabi.events import Event, Kind
from kvmabi.kvm import Kvm, open_kvm
from kvmabi.tracing import attributes, decoding, filters, names
from kvmabi.tracing.lines import Lines


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    """A machine whose events have details."""
    with open_kvm(host="sme-demo") as opened:
        opened.log.detailed = True
        yield opened


def lines_of(kvm: Kvm, *, full: bool = False) -> Lines:
    """Lines for the machine's kernel."""
    return Lines({feature.bit: name for name, feature in kvm.kernel.features.items()}, full=full)


def shown(kvm: Kvm, **options: bool) -> list[str]:
    """What was done, as text."""
    return [lines_of(kvm, **options).text(event) for event in kvm.log.events]


def test_a_vcpus_life(kvm: Kvm) -> None:
    """VMs, vCPUs, features and capabilities go by their names, new files by their numbers."""
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu(3)
    vcpu.init({"sve", "sme"})
    vcpu.finalize()
    vcpu["svcr"] = 3
    text = shown(kvm)
    assert "kvm CREATE_VM 0 -> vm1" in text
    assert "vm1 CREATE_VCPU 3 -> vcpu3" in text
    assert any(line.startswith("vm1/vcpu3 ARM_VCPU_INIT {target=5, features=") and "|sme}" in line for line in text)
    assert "vm1/vcpu3 ARM_VCPU_FINALIZE SVE -> 0" in text
    assert text[-1].startswith("vm1/vcpu3 SET_ONE_REG svcr = SM|ZA -> 0")


def test_a_long_value_is_cut_unless_all_is_wanted(kvm: Kvm) -> None:
    """The size of what is cut is shown."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve"})
    vcpu.finalize()
    data = bytes(range(32))
    vcpu["z0"] = data.ljust(256, b"\0")
    assert shown(kvm)[-1].endswith("…(32 bytes) -> 0")
    assert data.hex() in shown(kvm, full=True)[-1]


def test_a_failure_has_its_reason_and_hint(kvm: Kvm) -> None:
    """In parentheses, after the errno."""
    vcpu = kvm.create_vm().create_vcpu(0)
    with pytest.raises(KvmError):
        vcpu["x0"]
    assert shown(kvm)[-1].startswith("vm1/vcpu0 GET_ONE_REG")
    assert "-> ENOEXEC  (" in shown(kvm)[-1]


def test_a_device_and_its_attributes(kvm: Kvm) -> None:
    """Groups and attributes have their names, a device its number; what is not modelled says so."""
    vm = kvm.create_vm()
    gic = uapi.ffi.new("struct kvm_create_device *", {"type": uapi.KVM_DEV_TYPE_ARM_VGIC_V3})
    kvm.ioctl(vm.fd, uapi.KVM_CREATE_DEVICE, uapi.ffi.buffer(gic))
    assert shown(kvm)[-1].startswith("vm1 CREATE_DEVICE {type=ARM_VGIC_V3, fd=")
    assert shown(kvm)[-1].endswith("-> dev0")


def test_events_that_are_not_ioctls(kvm: Kvm) -> None:
    """A warning, a declared save, the end of a vCPU and of a VM."""
    vm = kvm.create_vm()
    vm.create_vcpu(0).init({"sve"})
    kvm.ioctl(vm.fd, uapi.KVM_CHECK_EXTENSION, 7 << 32 | 0xA64 << 20 | 1 << 16)
    assert shown(kvm)[-1] == "vm1/vcpu0 --- declared saved: save 7 ---"
    warning = Event(1, Kind.WARNING, "warning", 2, None, "", 0)
    assert lines_of(kvm).text(warning).startswith("vm2 --- warning: ")
    assert lines_of(kvm).text(Event(1, Kind.CLOSED, "closed", 2, 1, "", 0)) == "vm2/vcpu1 +++ closed +++"


def test_data_has_all_bytes(kvm: Kvm) -> None:
    """The register's bytes in hex, whole, and its decoded value."""
    vcpu = kvm.create_vm().create_vcpu(0)
    vcpu.init({"sve"})
    vcpu["x1"] = 0x1234
    data = lines_of(kvm).data(kvm.log.events[-1])
    assert data["register"] == {
        "id": f"{regid.parse('x1'):#018x}",
        "name": "x1",
        "data": "3412000000000000",
        "value": "0x1234",
    }
    assert (data["what"], data["errno"], data["modelled"]) == ("KVM_SET_ONE_REG", None, True)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("svcr", bytes(8), "0"),
        ("svcr", (7).to_bytes(8, "little"), "SM|ZA|0x4"),
        ("sve_vls", bytes([0b1011]) + bytes(63), "vq 1,2,4"),
        ("sme_vls", bytes(64), "no length"),
        ("x0", (1000).to_bytes(8, "little"), "1000"),
        ("v0", b"\1" * 16, "01*16."),
    ],
)
def test_values_of_registers(name: str, data: bytes, text: str) -> None:
    """Bits and lengths by name, numbers, bytes with runs."""
    assert decoding.register_text(regid.parse(name), data) == text


def test_an_exit_has_its_details() -> None:
    """The reason by name, and the member of the union that belongs to it; any bytes are an exit."""
    run = uapi.ffi.new("struct kvm_run *", {"exit_reason": uapi.KVM_EXIT_MMIO})
    run.mmio.phys_addr, run.mmio.len, run.mmio.is_write = 0x9000000, 4, 1
    reason, details = decoding.exit_of(bytes(uapi.ffi.buffer(run)))
    assert reason == "MMIO"
    assert (details["phys_addr"], details["len"], details["is_write"]) == ("0x9000000", "4", "1")
    assert decoding.exit_of(b"\xff" * 12)[0] == "0xffffffff"
    run = uapi.ffi.new("struct kvm_run *", {"exit_reason": uapi.KVM_EXIT_SYSTEM_EVENT})
    run.system_event.type = uapi.KVM_SYSTEM_EVENT_SHUTDOWN
    assert decoding.exit_of(bytes(uapi.ffi.buffer(run)))[1]["type"] == "SHUTDOWN"


@pytest.mark.parametrize("name", [name for name in uapi.IOCTL_ARGUMENTS if uapi.IOCTL_ARGUMENTS[name]])
def test_every_struct_can_be_decoded(name: str) -> None:
    """Of any bytes, readable or not, on a file of any kind."""
    decoder = decoding.Decoder({})
    request = vars(uapi)[name]
    for kind in ("system", "vm", "vcpu", "device"):
        for fill in (b"\0", b"\xff", b"\5"):
            before = fill * size_of_argument(request)
            assert decoder.argument(name, Detail(request, 16, kind, before=before, after=before)) is not None
        if size_of_argument(request):
            assert decoder.argument(name, Detail(request, 16, kind)) == "0x10"


def test_every_exit_can_be_decoded() -> None:
    """Of any bytes."""
    for reason in (*uapi.EXIT_NAMES, 12345):
        run = uapi.ffi.new("struct kvm_run *", {"exit_reason": reason})
        assert decoding.exit_of(bytes(uapi.ffi.buffer(run)))[0]


def test_names_of_attributes_exist() -> None:
    """Every name of the tables is a constant of the headers."""
    for group in sum(attributes.GROUPS.values(), ()):
        assert isinstance(vars(uapi)[group], int)
    for group, members in attributes.MEMBERS.items():
        assert any(group in known for known in attributes.GROUPS.values())
        assert all(isinstance(vars(uapi)[member], int) for member in members)
    assert attributes.names("vcpu", 0, 1) == ("VCPU_PMU_V3_CTRL", "VCPU_PMU_V3_INIT")
    assert attributes.names("vm", 99, 5000) == ("99", "0x1388")


def test_names_of_fields_exist() -> None:
    """Every field of the table is one of its struct, and its names are found."""
    for key, means in names.FIELDS.items():
        struct, field = key.split(".")
        if not struct.startswith("exit "):
            assert field in dict(uapi.ffi.typeof(f"struct {struct}").fields), key
        assert means.text(1)
    assert names.Flags("KVM_MEM_").text(0) == "0"
    assert names.Flags("KVM_MEM_").text(0x101) == "LOG_DIRTY_PAGES|0x100"


def event(what: str, *, vm: int = 1, vcpu: int | None = 0, errno: int = 0) -> Event:
    """An ioctl's event."""
    made = Event(1, Kind.IOCTL, what, vm, vcpu, "", 0)
    made.errno = errno
    return made


@pytest.mark.parametrize(
    ("words", "what", "passes"),
    [
        ([], "KVM_RUN", True),
        (["one_reg"], "KVM_GET_ONE_REG", True),
        (["one_reg"], "KVM_RUN", False),
        (["one_reg", "run"], "KVM_RUN", True),
        (["check_extension"], "KVM_CHECK_EXTENSION", True),
        (["kvm_run"], "KVM_RUN", True),
        (["*dirty*"], "KVM_GET_DIRTY_LOG", True),
        (["!run"], "KVM_RUN", False),
        (["!run"], "KVM_GET_REG_LIST", True),
        (["one_reg", "!get"], "KVM_GET_ONE_REG", False),
        (["failed"], "KVM_RUN", False),
    ],
)
def test_filters_by_what(words: list[str], what: str, passes: bool) -> None:
    """Classes, names, patterns, and what is left out."""
    assert filters.by_what(words)(event(what)) == passes


def test_filters_by_whom() -> None:
    """A vCPU of any VM, or of one."""
    assert filters.by_vcpu("0")(event("KVM_RUN", vm=2))
    assert not filters.by_vcpu("1/0")(event("KVM_RUN", vm=2))
    assert not filters.by_vcpu("0")(event("KVM_CREATE_VCPU", vcpu=None))
    for wrong in ("", "x", "1/", "-1", "1/2/3"):
        with pytest.raises(UsageError, match="is not a vCPU"):
            filters.by_vcpu(wrong)


@pytest.mark.parametrize("word", ["nothing", "!nothing", "*x_y_z*", "kvm_", "!"])
def test_a_filter_that_names_nothing(word: str) -> None:
    """Each class names an ioctl; a word that does not is misuse."""
    with pytest.raises(UsageError, match="no ioctl has this name"):
        filters.by_what([word])
    for name in (*filters.CLASSES, *filters.ANSWERS):
        filters.by_what([name])
