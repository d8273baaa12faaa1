# SPDX-License-Identifier: MIT
"""The interrupt lines that a VMM holds high with KVM_IRQ_LINE: what wakes a guest that waits for an interrupt."""

from __future__ import annotations

OF_THE_VM = -1
"""In place of a vCPU's number: the interrupt is an SPI, which goes to the first vCPU of the VM."""


class Lines:
    """The lines of a VM that are high: a vCPU's number or OF_THE_VM, and the interrupt.

    All count as level-sensitive and enabled, whatever the vGIC's registers say.
    """

    def __init__(self) -> None:
        self._high: set[tuple[int, int]] = set()

    def set(self, vcpu: int, irq: int, *, high: bool) -> None:
        """Raise or lower a line."""
        if high:
            self._high.add((vcpu, irq))
        else:
            self._high.discard((vcpu, irq))

    def pending(self, vcpu: int, *, is_first: bool) -> frozenset[int]:
        """The interrupts that are pending on a vCPU; ``is_first``: it is the VM's first, which has the SPIs."""
        return frozenset(irq for owner, irq in self._high if owner == vcpu or (is_first and owner == OF_THE_VM))
