# SPDX-License-Identifier: MIT
"""docs/how-to/scripted-guests.md: every block is a file that is written, or commands that print what the page shows."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ctools import CC, ROOT
from lacking import needs
from test_tutorial import FENCE, Block, converse

PAGE = ROOT / "docs/how-to/scripted-guests.md"
NAME = re.compile(r"`(\w+\.(?:py|c))`")
pytestmark = needs(CC[0])


def test_every_block_does_what_the_page_says(tmp_path: Path) -> None:
    """A file is named in the paragraph before its block or behind it; guests that the page does not run, run here."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    text = PAGE.read_text("utf-8")
    names = []
    for match in FENCE.finditer(text):
        language, content = match.groups()
        if language == "console":
            converse(Block("", language, content), tmp_path, PATH=path)
            continue
        before = NAME.findall(text[: match.start()].rstrip().rpartition("\n\n")[2])
        after = NAME.findall(text[match.end() :].lstrip().partition("\n\n")[0])
        suffix = {"python": ".py", "c": ".c"}[language]
        wanted = [name for name in (*reversed(before), *after) if name.endswith(suffix) and name not in names]
        names.append(wanted[0])
        (tmp_path / wanted[0]).write_text(content, "utf-8")
    assert names == ["hello.py", "vmm.c", "streaming.py", "once.py", "test_guests.py", "broken.py", "old.py", "lost.py"]
