# SPDX-License-Identifier: MIT
"""Looks at a page with the browser that is here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")


def command(folder: Path) -> list[str]:
    """The headless browser and its options, with a profile of its own; skips the test where there is none."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs a browser")
    options = ["--headless", "--no-sandbox", "--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    return [browser, *options, *(f"--disable-{what}" for what in QUIET)]


def screenshot(page: Path, folder: Path, size: str = "1200,700") -> Path:
    """A picture of a page."""
    shot = folder / "shot.png"
    options = [f"--screenshot={shot}", f"--window-size={size}", page.as_uri()]
    subprocess.run([*command(folder), *options], check=True, capture_output=True, timeout=120)
    return shot


def content(page: Path, folder: Path) -> str:
    """The page's elements after it was loaded."""
    options = ["--dump-dom", page.as_uri()]
    ended = subprocess.run([*command(folder), *options], check=True, capture_output=True, timeout=120)
    return ended.stdout.decode("utf-8")
