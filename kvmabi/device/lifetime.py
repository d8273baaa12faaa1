# SPDX-License-Identifier: MIT
"""How long a file lives: as in the kernel, a VM is kept by its own descriptor and by those of its vCPUs and devices."""

from __future__ import annotations


class Kept:
    """A file that its own descriptor and the open files made from it keep alive.

    The owner of descriptors calls ``opened`` when it hands one out and ``closed`` when the last copy of it is gone;
    which files that ends is decided here. ``release`` runs once, when nothing keeps the file any more.
    """

    def __init__(self, parent: Kept | None = None) -> None:
        self.is_open = False
        self._parent = parent
        self._keepers = 0

    @property
    def is_released(self) -> bool:
        """Nothing keeps the file any more."""
        return not self._keepers

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
        """The file cannot be reached any more, but what it keeps is still there."""

    def release(self) -> None:
        """Give back what the file holds."""

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
