# SPDX-License-Identifier: MIT
"""Tokens name owners and classify wrong values."""

import pytest

from kvmabi.fpstate import tokens


def test_every_token_names_its_owner() -> None:
    """Owner and freshness survive the encoding, and names are distinct."""
    owners = [tokens.user(1), tokens.kernel(0), tokens.guest(3)]
    assert [tokens.owner_of(tokens.fresh(o)) for o in owners] == owners
    assert [tokens.owner_of(tokens.stale(o)) for o in owners] == owners
    names = {tokens.name(t) for o in owners for t in (tokens.fresh(o), tokens.stale(o))}
    assert names == {"u(T1)", "u(T1)old", "k(T0)", "k(T0)old", "g(V3)", "g(V3)old"}
    assert (tokens.name(tokens.ZERO), tokens.name(tokens.JUNK)) == ("0", "junk")


def test_owner_names() -> None:
    """fpsimd_last_state.st reads as in the timelines."""
    assert [tokens.owner_name(o) for o in (tokens.NOBODY, tokens.user(0), tokens.kernel(1), tokens.guest(0))] == [
        "None",
        "U(T0)",
        "K(T1)",
        "G(V0)",
    ]


@pytest.mark.parametrize(
    ("seen", "wanted", "kind"),
    [
        (tokens.ZERO, tokens.fresh(0), "lost"),
        (tokens.stale(0), tokens.fresh(0), "stale"),
        (tokens.fresh(tokens.kernel(0)), tokens.fresh(0), "leak"),
        (tokens.JUNK, tokens.ZERO, "leak"),
        (tokens.fresh(0), tokens.ZERO, "stale"),
    ],
)
def test_difference_tells_leak_stale_and_lost(seen: int, wanted: int, kind: str) -> None:
    """Another owner's value is a leak, one's own old value stale, zero lost."""
    assert tokens.difference(seen, wanted) == kind


def test_rename_follows_tasks_and_leaves_guests() -> None:
    """Swapping two tasks swaps their tokens, kernel sections included, and no vCPU's."""
    swap = (1, 0)
    assert tokens.rename(tokens.fresh(tokens.kernel(0)), swap) == tokens.fresh(tokens.kernel(1))
    assert tokens.rename(tokens.stale(tokens.user(1)), swap) == tokens.stale(tokens.user(0))
    assert tokens.rename(tokens.fresh(tokens.guest(0)), swap) == tokens.fresh(tokens.guest(0))
    assert tokens.rename(tokens.JUNK, swap) == tokens.JUNK
