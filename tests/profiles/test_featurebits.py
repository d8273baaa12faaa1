# SPDX-License-Identifier: MIT
"""What feature bits mean on other kernels, and the forecast of SME's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from ctools import INCLUDE, compile_c, evaluate

import kvmabi
from kvmabi import KvmError, uapi
from kvmabi.errors import UsageError
from kvmabi.profiles import featurebits, features, host_names, kernel_names, load_host, load_kernel
from kvmabi.profiles.compare import diff

FORECAST = load_kernel("sme-forecast")


def test_forecast_is_73_with_the_changes_of_v12() -> None:
    """It differs from 7.3 in what v12 changes, and from v12 in what 7.3 changes, numbers apart."""
    series = {row[0] for row in diff("linux-7.2", "sme-v12")}
    release = {row[0] for row in diff("linux-7.2", "linux-7.3")}
    assert {row[0] for row in diff("linux-7.3", "sme-forecast")} == series
    assert {row[0] for row in diff("sme-v12", "sme-forecast")} == release | {"features.sme"}


def test_forecast_takes_the_next_free_numbers() -> None:
    """No built-in kernel without SME has the bit or the capability; the numbers before them are taken."""
    bit, capability = FORECAST.features["sme"]
    others = [feature for name in kernel_names() for key, feature in load_kernel(name).features.items() if key != "sme"]
    assert max(feature.bit for feature in others) == bit - 1
    assert max(feature.capability or 0 for feature in others) == (capability or 0) - 1
    assert FORECAST.max_features == bit + 1


@pytest.mark.parametrize("name", kernel_names())
def test_only_the_forecast_is_marked(name: str) -> None:
    """A profile of a kernel that exists is not marked; the forecast is, in its title, label and repr."""
    kernel = load_kernel(name)
    assert (
        bool(kernel.forecast)
        == ("FORECAST" in kernel.title)
        == ("(forecast)" in kernel.label)
        == (name == FORECAST.name)
    )
    assert kernel.label in repr(kernel)


def test_profiles_on_a_forecast_are_forecasts(tmp_path: Path) -> None:
    """A profile of the user's own inherits that it is one."""
    own = tmp_path / "own.toml"
    own.write_text('base = "sme-forecast"\nname = "own"\n[features]\nsme = { bit = 12, capability = 300 }\n')
    kernel = load_kernel(str(own))
    assert (kernel.forecast, kernel.max_features) == (FORECAST.forecast, 13)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "linux-7.3"\nchanges_of = 3\n', "changes_of"),
        ('base = "linux-7.3"\nchanges_of = "none"\n', "no kernel 'none'"),
        ('changes_of = "sme-v12"\nname = "x"\n', "changes_of: needs a base"),
        ('base = "linux-7.3"\nchanges_of = "sme-v12"\n', "features.sme: bit 9 is that of pmu_v3_strict"),
        ('base = "linux-7.3"\n[features]\nsme = { bit = 11, capability = 170 }\n', "capability 170 is that of sve"),
        ('base = "linux-7.3"\nforecast = true\n', "forecast: must be a string"),
    ],
)
def test_a_wrong_profile_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    """The error names the field."""
    own = tmp_path / "wrong.toml"
    own.write_text(text)
    with pytest.raises(UsageError, match=message) as failed:
        load_kernel(str(own))
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("host", [name for name in host_names() if load_host(name).sme_vector_bits])
def test_a_vcpu_has_sme_by_the_forecast_numbers(host: str) -> None:
    """The capability says so, INIT takes bit 10, and the vCPU has ZA."""
    with kvmabi.open(host=host, kernel="sme-forecast") as kvm:
        assert kvm.ioctl(kvm.fd, uapi.KVM_CHECK_EXTENSION, FORECAST.features["sme"].capability) == 1
        vcpu = kvm.create_vm().create_vcpu(0)
        vcpu.init({"sme"})
        vcpu.finalize()
        vcpu["svcr"] = 2
        assert len(vcpu["za.h[0]"]) == 256


def test_header_has_the_forecast(tmp_path: Path) -> None:
    """kvmabi/sme_forecast.h before linux/kvm.h gives the profile's numbers; without it they are those of sme-v12."""
    words = ["KVM_ARM_VCPU_SME", "KVM_CAP_ARM_SME", "KVM_ARM_VCPU_PMU_V3_STRICT"]
    strict = FORECAST.features["pmu_v3_strict"].bit
    asked = ["-include", "kvmabi/sme_forecast.h"]
    assert evaluate(tmp_path, words, [f"-I{INCLUDE}", *asked]) == [*FORECAST.features["sme"], strict]
    assert evaluate(tmp_path, words, [f"-I{INCLUDE}"]) == [*load_kernel("sme-v12").features["sme"], strict]


def test_header_too_late_is_an_error() -> None:
    """After linux/kvm.h it could change nothing, so that it does not compile; twice before it is fine."""
    late = "#include <linux/kvm.h>\n#include <kvmabi/sme_forecast.h>\n"
    with pytest.raises(AssertionError, match=r"before linux/kvm\.h"):
        compile_c(late, [f"-I{INCLUDE}", "-fsyntax-only"])
    twice = "#include <kvmabi/sme_forecast.h>\n" * 2 + "#include <linux/kvm.h>\nint none;\n"
    compile_c(twice, [f"-I{INCLUDE}", "-fsyntax-only", "-Wall", "-Wextra", "-Werror"])


@pytest.mark.parametrize("name", kernel_names())
def test_every_bit_is_where_the_profile_has_it(name: str) -> None:
    """A kernel's own meaning of a bit is not among those of others; every feature is found by its bit."""
    kernel = load_kernel(name)
    for feature, (bit, _) in kernel.features.items():
        assert featurebits.here(kernel, bit) == feature
        assert feature not in featurebits.elsewhere(kernel, bit)
        assert name in featurebits.meanings(bit)[feature]
    assert featurebits.here(kernel, kernel.max_features) == ""


@pytest.mark.parametrize(
    ("kernel", "bit", "words"),
    [
        ("linux-7.3", 9, "bit 9 is SME on sme-v10"),
        ("linux-7.3", 9, "linux-7.3 has no SME"),
        ("sme-forecast", 9, "sme-forecast has SME at bit 10"),
        (
            "sme-v12",
            9,
            "bit 9 is PMU_V3_STRICT on linux-7.3 and sme-forecast (a forecast); sme-v12 has no PMU_V3_STRICT",
        ),
        ("sme-v12", 10, "bit 10 is SME on sme-forecast (a forecast); sme-v12 has SME at bit 9"),
        ("linux-6.1", 7, "bit 7 is HAS_EL2 on linux-7.2"),
    ],
)
def test_words(kernel: str, bit: int, words: str) -> None:
    """The other meaning, where it is that, and what this kernel has."""
    assert words in featurebits.in_words(load_kernel(kernel), bit)


def test_nothing_else_is_no_word() -> None:
    """SVE's bit means SVE everywhere, and no kernel has bit 200."""
    for bit in (4, 200):
        assert featurebits.in_words(FORECAST, bit) == ""


@pytest.mark.parametrize(
    ("host", "kernel", "bits", "reason"),
    [
        ("qemu-max", "linux-7.3", "pmu_v3_strict", "needs pmu_v3: bit 9 is SME on"),
        ("sme-demo", "sme-forecast", "pmu_v3_strict pmu_v3", "has no pmu_v3_strict: bit 9 is SME on"),
    ],
)
def test_refusal_has_the_other_meaning(host: str, kernel: str, bits: str, reason: str) -> None:
    """An INIT that fails says what the VMM may have meant."""
    with kvmabi.open(host=host, kernel=kernel) as kvm:
        with pytest.raises(KvmError) as failed:
            kvm.create_vm().create_vcpu(0).init(set(bits.split()))
        assert failed.value.name == "EINVAL"
        assert reason in str(failed.value)


def test_labels_are_those_of_features() -> None:
    """Every feature of a kernel has rules, which judge whether a bit's other meaning was possible."""
    assert {name for kernel in kernel_names() for name in load_kernel(kernel).features} <= set(features.table())
