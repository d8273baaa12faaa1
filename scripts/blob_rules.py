# SPDX-License-Identifier: MIT
"""Write docs/reference/blob-rules.md, or check that it is current.

    python scripts/blob_rules.py [--check]

The rules come from kvmabi/snapshot/checks/rules.toml. Exits with 0, or with 1 if --check finds a difference.
"""

from __future__ import annotations

from pathlib import Path

import written_page

from kvmabi.snapshot.checks import rules
from kvmabi.snapshot.checks.rules import Severity

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reference/blob-rules.md"
HEAD = """# Rules of `kvmabi blob validate`

Written by `scripts/blob_rules.py`; do not edit. {errors} errors, {warnings} warnings, {notes} notes. An *error* means
that state is lost, or that the restore fails; with a *warning* the guest may notice something; a *note* says what the
reader of the report should know. A rule that needs a fact which neither the file nor the options give judges nothing,
or only in part, and the report has a note about it.

Facts: {facts}.
"""


def text() -> str:
    """The page."""
    table = list(rules.rules().values())
    counts = {f"{severity}s": sum(rule.severity is severity for rule in table) for severity in Severity}
    facts = "; ".join(
        f"`{fact.id}` {fact.title}" + (f" (`{fact.give}`)" if fact.give else "") for fact in rules.missing().values()
    )
    lines = [HEAD.format(**counts, facts=facts)]
    for severity in Severity:
        lines += [f"## {str(severity).capitalize()}s", "", "| rule | what | why | how to mend it | needs |"]
        lines.append("|---|---|---|---|---|")
        for rule in table:
            if rule.severity is severity:
                cells = (f"`{rule.id}`", rule.title, rule.why, rule.fix, ", ".join(rule.needs))
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(written_page.main(PAGE, text(), __doc__))
