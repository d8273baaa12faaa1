# SPDX-License-Identifier: MIT
"""Write the table "v6.16 without one of its commits" to the docs, or check that it is current.

    python scripts/fpstate_ablation.py [--check] [--processes N]

Exits with 0, or with 1 if --check finds the table out of date. Takes several minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kvmabi.fpstate.ablation import Ablation, ablate, configurations
from kvmabi.fpstate.variants import commits, find_variant

VARIANT = "v6.16"
PAGE = Path(__file__).parent.parent / "docs/explanation/fp-ownership-commits.md"
HEAD = """# {variant} without one of its commits

Written by `scripts/fpstate_ablation.py`; do not edit. Each row is {variant} with one commit bit removed and every
other kept, explored in {count} configurations (those in `kvmabi/fpstate/ablation.py` and the quick ones that
`configurations.toml` claims for {variant}; SME and FPMR ones only where the remaining kernel has these).

- **broken**: an owner sees wrong registers, or the kernel warns or kills; the row gives the shortest counterexample.
- **lies only**: metadata is wrong, but no owner sees wrong registers in these configurations.
- **harmless**: every reachable state is visited and all invariants hold.
- **superseded**: a later commit sets the same knob, so the removal changes nothing.
- **no effect in this model**: the commit changes only what the model leaves out.

A commit that is harmless to remove from {variant} may have fixed a bug when it was merged: later commits can
mask its absence. `kvmabi fpstate audit` answers for other sets of commits.

| commit | bit | title | verdict | what happens |
|---|---|---|---|---|
"""


def row(a: Ablation) -> str:
    """A line of the table."""
    cells = (f"`{a.commit.id}`", f"`{a.commit.bit}`", a.commit.title, f"**{a.verdict}**", a.line)
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |\n"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument("--processes", type=int, help="default: one a core")
    args = parser.parse_args()
    variant = find_variant(VARIANT)
    configs = configurations(variant)
    text = HEAD.format(variant=VARIANT, count=len(configs))
    which = [commits()[bit] for bit in variant.bits]
    text += "".join(row(a) for a in ablate(variant, which, configs, processes=args.processes))
    if args.check:
        return int(not PAGE.exists() or PAGE.read_text() != text)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
