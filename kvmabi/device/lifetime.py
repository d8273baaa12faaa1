# SPDX-License-Identifier: MIT
"""The lifetime of a file: as in the kernel, a VM lives as long as a descriptor of it, its vCPUs or its devices."""

from __future__ import annotations


class Kept:
    """A file that its own descriptor and the open files made from it keep alive.

    The owner of descriptors calls ``opened`` when it hands one out and ``closed`` when the last copy of it is gone;
    this class decides which files that ends. ``release`` runs once, when nothing keeps the file alive any more.
    """

    def __init__(self, parent: Kept | None = None) -> None:
        self.is_open = False
        self._parent = parent
        self._keepers = 0

    def opened(self) -> None:
        """A descriptor of the file was handed out."""
        self.is_open = True
        self._keep()

    def closed(self) -> None:
        """The last descriptor of the file was closed; a second call does nothing."""
        if self.is_open:
            self.is_open = False
            self.on_close()
            self._drop()

    def on_close(self) -> None:
        """Called when the last descriptor is closed, before any file is released."""

    def release(self) -> None:
        """Release what the file holds."""

    def _keep(self) -> None:
        self._keepers += 1
        if self._parent is not None:
            self._parent._keep()

    def _drop(self) -> None:
        self._keepers -= 1
        if not self._keepers:
            self.release()
        if self._parent is not None:
            self._parent._drop()
