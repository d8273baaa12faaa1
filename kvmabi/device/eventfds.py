# SPDX-License-Identifier: MIT
"""Which eventfd a caller's descriptor is: eventfd(2) gives each a number while it exists.

A number comes back once its eventfd is closed, and closing it takes its irqfds away (a poll wakes up in the kernel).
An epoll instance knows: it forgets a file when the last descriptor of it is closed, without keeping it open. Files in
it are known by file and descriptor, so that each is looked at under one reserved descriptor.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import RLock

from kvmabi.device.file import no_descriptor
from kvmabi.device.memory import Memory
from kvmabi.device.watched import EVENTFD_NUMBER
from kvmabi.errors import KvmError
from kvmabi.model.eventfds import IrqFds

LINK = "anon_inode:[eventfd]"
NOT_AN_EVENTFD = "file descriptor {} is not an eventfd"


class EventFds:
    """The eventfds of callers, and the irqfds of all VMs."""

    def __init__(self, irqfds: IrqFds) -> None:
        self.irqfds = irqfds
        self._lock = RLock()
        self._seat = self._parked = -1
        self._alive: select.epoll | None = None
        self._last: dict[int, str] = {}

    def number(self, memory: Memory, fd: int) -> int:
        """The number of the eventfd behind a caller's descriptor. Raises KvmError: EBADF, EINVAL."""
        with self._seated(memory, fd) as number:
            return number

    def assign(self, vm: int, memory: Memory, fd: int, gsi: int) -> None:
        """Assign an eventfd to an interrupt of a VM. Raises KvmError: EBADF, EINVAL, EBUSY."""
        with self._seated(memory, fd) as number:
            assert self._alive is not None
            try:
                self._alive.register(self._seat, 0)
                self.irqfds.gone(number)
            except FileExistsError:
                pass  # the same file as before, so its irqfds are, too
            self.irqfds.assign(vm, number, gsi)

    def deassign(self, vm: int, memory: Memory, fd: int, gsi: int) -> None:
        """Take an irqfd away, if there is one. Raises KvmError: EBADF, EINVAL."""
        with self._seated(memory, fd) as number:
            assert self._alive is not None
            if self.irqfds.deassign(vm, number, gsi):
                with suppress(OSError):
                    self._alive.unregister(self._seat)

    def signal(self, memory: Memory, number: int) -> None:
        """Add 1 to an eventfd of a caller, if the caller still has a descriptor of it."""
        here = self._descriptor(memory, number)
        if here is not None:
            try:
                os.set_blocking(here, False)  # a kernel does not wait either: the count stays at its maximum
                with suppress(BlockingIOError):
                    os.eventfd_write(here, 1)
            finally:
                os.close(here)

    def _descriptor(self, memory: Memory, number: int) -> int | None:
        """A new descriptor of the eventfd with this number, found among the caller's; the last one is tried first."""
        folder = f"/proc/{memory.pid}/fd"
        names: list[str] = []
        with suppress(OSError):
            names = sorted(os.listdir(folder), key=lambda name: name != self._last.get(number))
        for name in names:
            with suppress(KvmError, OSError):  # the descriptor was closed meanwhile
                if os.readlink(f"{folder}/{name}") != LINK:
                    continue
                here = memory.take_fd(int(name))
                if _number(here, int(name)) == number:
                    self._last[number] = name
                    return here
                os.close(here)
        return None

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            if self._alive is not None:
                self._alive.close()
                os.close(self._seat)
                os.close(self._parked)
                self._alive = None

    @contextmanager
    def _seated(self, memory: Memory, fd: int) -> Iterator[int]:
        """The caller's eventfd under the reserved descriptor, and its number."""
        with self._lock:
            self._reserve()
            copy = memory.take_fd(fd)
            try:
                os.dup2(copy, self._seat, inheritable=False)
            finally:
                os.close(copy)
            try:
                yield _number(self._seat, fd)
            finally:
                os.dup2(self._parked, self._seat, inheritable=False)

    def _reserve(self) -> None:
        """Take the descriptors that are needed for good. Raises KvmError, EMFILE."""
        if self._alive is not None:
            return
        with ExitStack() as undo:
            try:
                self._parked = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                undo.callback(os.close, self._parked)
                self._seat = os.dup(self._parked)
                undo.callback(os.close, self._seat)
                self._alive = select.epoll()
            except OSError as error:
                raise no_descriptor(error) from None
            undo.pop_all()


def _number(here: int, fd: int) -> int:
    """The number of the eventfd that is ``here``, the caller's ``fd``."""
    if os.readlink(f"/proc/self/fd/{here}") == LINK:
        try:
            with open(f"/proc/self/fdinfo/{here}", encoding="ascii") as lines:
                found = EVENTFD_NUMBER.search(lines.read())
        except OSError as error:
            raise no_descriptor(error) from None
        if found:
            return int(found[1])
    raise KvmError(errno.EINVAL, NOT_AN_EVENTFD.format(fd))
