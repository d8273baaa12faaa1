# SPDX-License-Identifier: MIT
"""Right plans: whatever their order, a restore by one of them reads back as it was saved."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from vmms import HOSTS, features, guest, opened

from kvmabi import KvmError
from kvmabi.kvm import Vcpu
from kvmabi.testing.vmms import plan
from kvmabi.testing.vmms.machine import Save, kick
from kvmabi.testing.vmms.plan import Kind, Step, What
from kvmabi.testing.vmms.truth import lost, state_of


def saved(vcpu: Vcpu) -> Save:
    return Save(vcpu.index, {id: vcpu[id] for id in vcpu.reg_list()}, None, None, state_of(vcpu), False)


def do(vcpu: Vcpu, step: Step) -> None:
    """A VMM that ignores errors: a pass that is healed by the next one has some."""
    if step.what is What.FINALIZE:
        vcpu.finalize()
    elif step.what is What.KICK:
        kick(vcpu)
    elif step.what is What.INIT:
        vcpu.init(features(vcpu.kvm.host))
    else:
        with suppress(KvmError):
            vcpu[step.id] = step.value


@pytest.mark.slow
@pytest.mark.parametrize("of", HOSTS)
@pytest.mark.parametrize("kind", Kind)
def test_right_plans_lose_nothing(of: str, kind: Kind) -> None:
    """Into a new vCPU, after INIT again, and over what is there."""
    rng = Random(0)
    vector = bool(features(HOSTS[of]))
    for svcr in range(4) if HOSTS[of].sme_vector_bits else (0,):
        with opened(HOSTS[of]) as kvm:
            save = saved(guest(kvm.create_vm(), svcr))
            for _ in range(8):
                if kind is Kind.NEW:
                    target = kvm.create_vm().create_vcpu(0)
                    target.init(features(kvm.host))
                else:
                    target = guest(kvm.create_vm(), rng.randrange(4) if HOSTS[of].sme_vector_bits else 0, seed=9)
                for step in plan.right(rng, save, kind, vector=vector, early_svcr=True):
                    do(target, step)
                assert lost(save.state, state_of(target), kvm.host.counter_hz) == set()
