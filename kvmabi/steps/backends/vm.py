# SPDX-License-Identifier: MIT
"""An arm64 kernel in QEMU as a backend: any machine has a real KVM to compare with."""

from __future__ import annotations

from collections.abc import Iterable

from kvmabi.steps.backends.base import Backend, kernel_for
from kvmabi.steps.vm.compiler import executor
from kvmabi.steps.vm.initramfs import initramfs
from kvmabi.steps.vm.qemu import CPU, QEMU, Guest, check, version


class VmBackend(Backend):
    """A booted kernel image, with the executor as its init.

    ``cpu`` is QEMU's -cpu, ``arguments`` go to the kernel's command line, ``kernel`` names a kernel profile
    (by default the one of the kernel's release). Every failure is a UsageError; the executor is compiled only if the
    image and QEMU exist.
    """

    name = "vm"

    def __init__(
        self, kernel_image: str, *, cpu: str = CPU, kernel: str | None = None, qemu: str = QEMU, arguments: str = ""
    ) -> None:
        super().__init__()
        self.cpu = cpu
        self.arguments = arguments
        check(kernel_image, qemu)
        self.qemu_version = version(qemu)
        self._guest = Guest(kernel_image, initramfs(executor()), cpu=cpu, qemu=qemu, arguments=arguments)
        self._lists: list[str] = []
        try:
            self.release = self._guest.release
            self.kernel = kernel_for(self.release, kernel)
        except BaseException:
            self._guest.close()
            raise

    def answers(self, steps: Iterable[str]) -> list[str]:
        """See Backend.answers."""
        asked = list(steps)
        answers = zip(asked, self._guest.ask(asked), strict=True)
        return [whole(step, answer, self._lists) for step, answer in answers]

    def close(self) -> None:
        """See Backend.close."""
        self._guest.close()


LIST = "L "
"""How a step begins whose answer is a list."""
LISTS_KEPT = 64
"""How many different lists of IDs the executor abbreviates when they repeat."""


def whole(step: str, answer: str, lists: list[str]) -> str:
    """Returns a step's answer with its list of IDs: the executor sends a repeated one as an index into ``lists``."""
    if not step.startswith(LIST):
        return answer
    result, count, ids = ([*answer.split(" ", 2), "", ""])[:3]
    if result != "OK" or not ids:
        return answer
    if ids.startswith("="):
        return f"{result} {count} {lists[int(ids[1:])]}"
    if "=" not in ids and count.isdecimal():
        lists.append(ids)
    return answer
