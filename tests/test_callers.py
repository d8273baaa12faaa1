# SPDX-License-Identifier: MIT
"""A watcher asks where in this process an ioctl came from."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator

import pytest
from vmms import opened, vcpu_of

from kvmabi import Kvm, KvmError, uapi
from kvmabi.callers import MOST_FRAMES
from kvmabi.events import Event, EventLog, Kind, Origin


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with opened() as kvm:
        yield kvm


@pytest.fixture
def asked(kvm: Kvm) -> list[Origin]:
    """The origins of all events, in order."""
    origins: list[Origin] = []
    kvm.log.watchers.append(lambda event: origins.append(event.ask_origin()))
    return origins


def test_every_way_to_do_an_ioctl(kvm: Kvm, asked: list[Origin]) -> None:
    """Objects, Kvm.ioctl, errors and declarations: the first frame is the caller, and none is of the package."""

    def restore() -> None:
        vcpu = vcpu_of(kvm.create_vm())
        vcpu["x0"] = 1
        assert vcpu["x0"]
        kvm.ioctl(vcpu.vm.fd, uapi.KVM_CHECK_EXTENSION, 1)
        with pytest.raises(KvmError):
            vcpu["za.h[0]"] = 0
        with pytest.raises(KvmError):
            vcpu.run()
        kvm.saved(vcpu)

    restore()
    assert len(asked) == 11  # with RUN and MARK
    names = [re.sub(r" at .*/(.*):\d+$", r" at \1", origin.frames[0]) for origin in asked]
    in_helper = {"vcpu_of at vmms.py"}
    assert set(names) - in_helper == {"test_every_way_to_do_an_ioctl.<locals>.restore at test_callers.py"}
    for origin in asked:
        assert (origin.pid, origin.thread, origin.thread_name) == (
            os.getpid(),
            threading.get_native_id(),
            threading.current_thread().name,
        )
        assert not any("/kvmabi/kvm.py" in frame or "/kvmabi/device/" in frame for frame in origin.frames)
    assert not kvm.log.asked


def test_threads_have_their_own(kvm: Kvm, asked: list[Origin]) -> None:
    """An ioctl of another thread, which is answered in between, does not fill what this thread's was asked for."""
    vcpu = vcpu_of(kvm.create_vm())
    asked.clear()
    other = threading.Thread(target=kvm.create_vm, name="other")

    def in_between(event: Event) -> None:
        if event.what == "KVM_RUN":
            other.start()
            other.join()

    kvm.log.watchers.append(in_between)
    with pytest.raises(KvmError, match="EINTR"):
        vcpu.run()
    own = threading.current_thread().name
    assert [origin.thread_name for origin in asked] == [own, own, "other"]  # RUN, KVM_RUN, KVM_CREATE_VM
    assert asked[2].thread == other.native_id


def test_deep_stack(kvm: Kvm, asked: list[Origin]) -> None:
    """The innermost frames are kept."""

    def deeper(depth: int) -> None:
        if depth:
            deeper(depth - 1)
        else:
            kvm.create_vm()

    deeper(100)
    assert len(asked[0].frames) == MOST_FRAMES


def test_only_what_is_asked_for(kvm: Kvm) -> None:
    """Nobody asks: events have no origin. Asked twice, it is one."""
    kvm.create_vm()
    assert kvm.log.events[-1].origin is None
    same: list[bool] = []
    kvm.log.watchers.append(lambda event: same.append(event.ask_origin() is event.ask_origin()))
    kvm.create_vm()
    assert same == [True]
    assert kvm.log.events[-1].origin is not None


def test_close_has_no_origin(kvm: Kvm, asked: list[Origin]) -> None:
    """It is not an ioctl, and what it asked for does not go to the next one."""
    vcpu = vcpu_of(kvm.create_vm())
    kvm.close(vcpu.fd)
    assert (asked[-1].pid, asked[-1].frames) == (0, ())
    assert not kvm.log.asked


def test_without_a_carrier_little_is_kept() -> None:
    """Where nothing fills origins, they do not add up."""
    log = EventLog()

    def watch(event: Event) -> None:
        event.ask_origin()

    log.watchers.append(watch)
    for number in range(1000):
        log.append(Event(number, Kind.IOCTL, "KVM_RUN", 1, 0, "", 0))
    assert len(list(log.take_asked())) < 100
    assert list(log.take_asked()) == []
