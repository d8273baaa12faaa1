# SPDX-License-Identifier: MIT
"""KVM_RUN in this process: waits that a guest or a signal ends, and what a vCPU has in struct kvm_run."""

from __future__ import annotations

import time
from typing import Any

from kvmabi import memfd, uapi
from kvmabi.device import DeviceFile, Memory, VcpuFile
from kvmabi.device.file import Answer, Done, Late, Refused, Wait
from kvmabi.guests.board import GuestError
from kvmabi.guests.exits import SOON_MS
from kvmabi.guests.scripts import GuestFunction, OnKernel, Script
from kvmabi.waiting import wait_for_signal

MOST_TURNS = 1000
"""How often ``run_once`` lets a guest go on that lets others run."""


def settled(file: DeviceFile, answer: Answer) -> Done:
    """The answer once it is decided: a guest that waits goes on until then, or until a signal comes."""
    while isinstance(answer, Wait) and answer.again_ms and isinstance(file, VcpuFile):
        answer = file.resume(interrupted=wait_for_signal(answer.sigmask, answer.again_ms))
    return _when_due(answer)


def run_once(file: VcpuFile, memory: Memory, *, immediate_exit: bool) -> Done:
    """KVM_RUN that a signal ends as soon as it would wait."""
    file.immediate_exit(immediate_exit)
    turns = 0
    try:
        answer = file.ioctl(uapi.KVM_RUN, 0, memory)
        while isinstance(answer, Wait) and answer.again_ms:
            turns += 1
            answer = file.resume(interrupted=answer.again_ms > SOON_MS or turns > MOST_TURNS)
    finally:
        file.immediate_exit(False)
    return _when_due(answer)


def _when_due(answer: Answer) -> Done:
    """An answer, when it is due."""
    if isinstance(answer, Late):
        time.sleep(answer.seconds)
        return answer.answer
    return answer


def check(file: VcpuFile, answer: Done) -> None:
    """Raises KvmError if KVM_RUN failed, GuestError if the guest's script did."""
    if isinstance(answer, Refused | Wait):
        raise answer.error()
    running = file.guest
    if running is not None and running.error is not None and running.script is not None:
        raise GuestError(running.script.failures[-1]) from running.error


def guest_of(file: VcpuFile) -> GuestFunction | OnKernel | None:
    """The guest of a vCPU, as it was given."""
    script = None if file.guest is None else file.guest.script
    return None if script is None else script.guest


def give_guest(file: VcpuFile, guest: GuestFunction | OnKernel | None) -> None:
    """Give a vCPU a guest. Raises UsageError for what is not one."""
    file.set_guest(None if guest is None else Script(guest))


class Page:
    """The struct kvm_run of a vCPU, mapped as a VMM does; ``pointer`` is valid as long as this object lives."""

    def __init__(self, file: VcpuFile) -> None:
        size_bytes = uapi.ffi.sizeof("struct kvm_run")
        self._memory = memfd.map_shared(file.run_fd, 0, size_bytes)
        self.pointer: Any = uapi.ffi.cast("struct kvm_run *", uapi.ffi.from_buffer(self._memory))
