# SPDX-License-Identifier: MIT
"""Variants are sets of commits; releases, changes and titles find them."""

import pytest

from kvmabi.errors import UsageError
from kvmabi.fpstate import variants
from kvmabi.fpstate.variants import Knobs, commits, find_commit, find_variant, presets


def test_every_release_since_5_13_has_exactly_one_preset() -> None:
    """The windows cover all releases without a gap."""
    for release in [f"v5.{n}" for n in range(13, 20)] + [f"v6.{n}" for n in range(20)]:
        assert find_variant(release).name == release


SAME = [("v5.15", "pre517"), ("6.1", "v5.19"), ("v6.5", "v6.2"), ("v6.18.3", "v6.16")]


@pytest.mark.parametrize(("release", "preset"), SAME)
def test_a_release_is_its_preset(release: str, preset: str) -> None:
    """Any release of a window has the preset's bits."""
    assert find_variant(release).bits == presets()[preset].bits


def test_later_releases_of_a_window_have_what_came_meanwhile() -> None:
    """6.6 unmasks interrupts early, 6.9 has FPMR; each preset has the commits of its first release."""
    assert find_variant("v6.6").bits == find_variant("v6.2+f130ac0ae441").bits
    assert find_variant("v6.9").bits == find_variant("v6.8+fpmr").bits
    for name, variant in presets().items():
        if variant.window:
            assert find_variant(variant.window[0]).bits == variant.bits, name


def test_bits_are_in_table_order_and_known() -> None:
    """A preset's bits are a subsequence of the table, so that later commits override earlier ones."""
    order = list(commits())
    for variant in presets().values():
        assert list(variant.bits) == sorted(variant.bits, key=order.index)


def test_no_commit_is_without_a_knob_and_undescribed() -> None:
    """Each commit describes its change, and some commit sets each knob."""
    assert all(c.what for c in commits().values())
    turned = {k for c in commits().values() for k, _ in c.sets}
    assert turned == set(Knobs.__dataclass_fields__)


def test_changes_add_and_remove_commits() -> None:
    """ "-bit" and "+id" change a base."""
    assert find_variant("v6.16-klazy").knobs.klazy is False
    assert find_variant("v6.6+aefbab8e77eb+e92bee9f861b").knobs.kswitch == "flush_after"
    assert find_variant("v6.12-prep-live").knobs.prepare_live_only is True
    assert find_variant("v6.12-prep-live-kern").knobs.kern is False


def test_commits_are_found_by_id_title_and_bit() -> None:
    """Short ids of 7 digits and full ones, titles in any case."""
    title = "ARM64/FPSIMD: avoid erroneous elide of user state reload"
    for text in ("e92bee9", "e92bee9f861b", "e92bee9f861b" + "0" * 28, title):
        commit = find_commit(text)
        assert commit is not None
        assert commit.bit == "flush_after"
    assert find_commit("e92bee") is None
    assert find_commit("nothing of the kind") is None


@pytest.mark.parametrize("text", ["v4.19", "", "v6.16-nothing", "nonsense", "+klazy"])
def test_unknown_variants_are_misuse(text: str) -> None:
    """One clear error, never an internal one."""
    with pytest.raises(UsageError):
        find_variant(text)


def test_default_is_the_newest_release() -> None:
    """The default is the newest kernel."""
    assert variants.default_variant().name == "v6.19"
