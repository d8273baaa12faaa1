# SPDX-License-Identifier: MIT
"""The calls of one address space, without a transport."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator

import pytest

from kvmabi import uapi
from kvmabi.device import SystemFile
from kvmabi.device.file import Refused
from kvmabi.interpose.files import OpenFiles
from kvmabi.interpose.protocol import IDENTITY
from kvmabi.interpose.session import NewFd, Session


def fail(error: Exception) -> None:
    """Nothing goes wrong in these tests."""
    raise error


@pytest.fixture
def session(system: SystemFile) -> Iterator[Session]:
    """A session of this process."""
    with select.epoll() as poll:
        files = OpenFiles(system, poll, fail)
        yield Session(os.getpid(), bytes(IDENTITY.size), files, fail)
        files.close()


def identity(answer: object) -> bytes:
    """The identity of a file that was opened."""
    assert isinstance(answer, NewFd)
    status = os.fstat(answer.fd)
    return IDENTITY.pack(status.st_dev, status.st_ino)


def test_what_is_undone_is_the_file_of_the_answer(session: Session) -> None:
    """A late descriptor that does not arrive undoes its own vCPU, not the one that another thread created meanwhile."""
    kvm = session.open()
    vm = session.ioctl(identity(kvm), uapi.KVM_CREATE_VM, 0)
    first, second = (session.ioctl(identity(vm), uapi.KVM_CREATE_VCPU, index) for index in (0, 1))
    assert isinstance(first, NewFd)
    session.undo(first)
    again = session.ioctl(identity(vm), uapi.KVM_CREATE_VCPU, 0)
    assert isinstance(again, NewFd)
    refused = session.ioctl(identity(vm), uapi.KVM_CREATE_VCPU, 1)
    assert isinstance(refused, Refused)
    assert refused.errno == errno.EEXIST
    for answer in (kvm, vm, first, second, again):
        assert isinstance(answer, NewFd)
        os.close(answer.fd)
