# SPDX-License-Identifier: MIT
"""Replaces a file atomically: written under another name, synced, renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kvmabi.errors import UsageError


def replace(target: Path, content: str | bytes) -> None:
    """Replaces the content of a file; readers see the old or the new content. UsageError if it cannot be written."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o644)
                os.replace(file.name, target)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise UsageError(f"{target}: cannot be written: {error.strerror}") from None
