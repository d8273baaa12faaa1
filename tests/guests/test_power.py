# SPDX-License-Identifier: MIT
"""Power states of several vCPUs under random calls and ioctls, against the simplest model of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import kvmabi
from guests.machines import DEVICE, mp_state, set_mp_state
from kvmabi import uapi
from kvmabi.errors import KvmError
from kvmabi.guests import Cpu, Hypercall, Mmio, cpu_off, cpu_on

COUNT = 3
VCPUS = st.integers(0, COUNT - 1)
RUNNABLE, STOPPED = uapi.KVM_MP_STATE_RUNNABLE, uapi.KVM_MP_STATE_STOPPED


class Power(RuleBasedStateMachine):
    """Each vCPU's guest makes the next call of its queue, stores the result, and exits."""

    def __init__(self) -> None:
        super().__init__()
        self.kvm = kvmabi.open(host="no-sve-no-sme", checked=False)
        vm = self.kvm.create_vm()
        self.vcpus = [vm.create_vcpu(n) for n in range(COUNT)]
        self.queues: list[deque[Hypercall]] = [deque() for _ in range(COUNT)]
        self.on = [True] + [False] * (COUNT - 1)
        self.entry = [0] * COUNT
        self.begun = [0] * COUNT
        self.expected_begun = [0] * COUNT
        self.will_begin = [True] * COUNT
        for vcpu in self.vcpus:
            vcpu.init({"psci_0_2", *({"power_off"} if vcpu.index else ())})
            vcpu.guest = self.guest

    def guest(self, cpu: Cpu) -> Iterator[Any]:
        """Runs what is queued."""
        self.begun[cpu.index] += 1
        assert cpu.x[0] == self.entry[cpu.index]
        while True:
            if self.queues[cpu.index]:
                call = self.queues[cpu.index].popleft()
                cpu.x[9] = (yield call) & 0xFF
                if call == cpu_off():
                    continue  # the VMM has switched it on again
            yield Mmio(DEVICE, 8, cpu.x[9])

    def run(self, n: int) -> int | None:
        """KVM_RUN; what the guest stored, None if it waits."""
        try:
            run = self.vcpus[n].run()
        except KvmError as error:
            assert error.name == "EINTR"  # noqa: PT017
            return None
        assert run.exit_reason == uapi.KVM_EXIT_MMIO
        if self.will_begin[n]:
            self.will_begin[n] = False
            self.expected_begun[n] += 1
        return int(run.mmio.data[0])

    @rule(caller=VCPUS, other=VCPUS, context=st.integers(1, 1 << 60))
    def switch_on(self, caller: int, other: int, context: int) -> None:
        """CPU_ON: success for one that is off, ALREADY_ON else."""
        self.queues[caller].append(cpu_on(other, 0x8000, context))
        result = self.run(caller)
        if not self.on[caller]:
            assert result is None
            self.queues[caller].clear()
        elif self.on[other]:
            assert result == -4 & 0xFF
        else:
            assert result == 0
            self.on[other], self.entry[other], self.will_begin[other] = True, context, True

    @rule(n=VCPUS)
    def switch_off(self, n: int) -> None:
        """CPU_OFF waits in KVM_RUN."""
        self.queues[n].append(cpu_off())
        assert self.run(n) is None
        if self.on[n] and self.will_begin[n]:
            self.will_begin[n] = False
            self.expected_begun[n] += 1
        self.queues[n].clear()
        self.on[n] = False

    @rule(n=VCPUS, on=st.booleans())
    def set_state(self, n: int, on: bool) -> None:
        """KVM_SET_MP_STATE."""
        set_mp_state(self.vcpus[n], RUNNABLE if on else STOPPED)
        self.on[n] = on

    @rule(caller=VCPUS, other=VCPUS)
    def ask(self, caller: int, other: int) -> None:
        """AFFINITY_INFO."""
        self.queues[caller].append(Hypercall(uapi.PSCI_0_2_FN64_AFFINITY_INFO, (other, 0)))
        result = self.run(caller)
        if not self.on[caller]:
            assert result is None
            self.queues[caller].clear()
        else:
            assert result == (0 if self.on[other] else 1)

    @invariant()
    def states_agree(self) -> None:
        """KVM_GET_MP_STATE is what the model says, and scripts began as often as it says."""
        assert [mp_state(vcpu) == RUNNABLE for vcpu in self.vcpus] == self.on
        assert self.begun == self.expected_begun

    def teardown(self) -> None:
        """Close everything."""
        self.kvm.close()


Power.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
test_power_states_agree = Power.TestCase
