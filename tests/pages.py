# SPDX-License-Identifier: MIT
"""Memory that ends: a page that can be accessed, followed by one that cannot."""

from __future__ import annotations

import ctypes
import mmap

PAGE = mmap.PAGESIZE
PROT_NONE = 0
NOWHERE = 16
"""An address that is never mapped."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Edge:
    """A page of memory that ends at the address ``end``."""

    def __init__(self) -> None:
        self._pages = mmap.mmap(-1, 2 * PAGE)
        self._view = (ctypes.c_char * (2 * PAGE)).from_buffer(self._pages)
        self.start = ctypes.addressof(self._view)
        self.end = self.start + PAGE
        assert _libc.mprotect(self.end, PAGE, PROT_NONE) == 0

    def put(self, data: bytes) -> int:
        """Write ``data`` so that it ends with the page; returns its address."""
        self._pages[PAGE - len(data) : PAGE] = data
        return self.end - len(data)

    def tail(self, size: int) -> bytes:
        """The last ``size`` bytes of the page."""
        return self._pages[PAGE - size : PAGE]
