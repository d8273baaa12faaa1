# SPDX-License-Identifier: MIT
"""The KVM side of the protocol (kernel: arch/arm64/kvm/fpsimd.c and hyp/include/hyp/switch.h)."""

from __future__ import annotations

from kvmabi.fpstate.entry import sve_to_fpsimd
from kvmabi.fpstate.fpsimd import (
    fpsimd_bind_state_to_cpu,
    fpsimd_save_and_flush_cpu_state,
    set_fp_type,
)
from kvmabi.fpstate.machine import Crash, Machine
from kvmabi.fpstate.state import (
    CURRENT,
    FPSIMD,
    FREE,
    GUEST,
    GUEST_MODE,
    HOST,
    SVE,
    SYSCALL,
    VCPU,
    VL_GUEST,
    VL_GUEST_MAX,
    VL_HOST,
    Cpu,
    Vcpu,
)
from kvmabi.fpstate.tokens import ZERO


def notes(m: Machine, c: int, vcpu: int) -> Cpu | Vcpu:
    """Where KVM records the owner of the registers: in the vCPU up to 6.9, per CPU from 6.10 (5294afdbf45a)."""
    return m.cpus[c] if m.knobs.owner_percpu else m.vcpus[vcpu]


def fpsimd_kvm_prepare(m: Machine, c: int) -> None:
    """Discard the VMM's SVE state before a guest can run (93ae6b01bafe to 6.13)."""
    current = m.current(c)
    if not current.SVE:
        return
    if m.knobs.kvm == "prop0121":
        if current.FOREIGN:
            return
        current.SVE = m.cpus[c].ZEN = 0
        if m.knobs.prepare_sets_type:
            set_fp_type(m, current, FPSIMD)
        return
    if m.knobs.prepare_live_only and current.FOREIGN:
        return
    current.SVE = 0
    sve_to_fpsimd(current)
    set_fp_type(m, current, FPSIMD)


def host_traps(m: Machine, cpu: Cpu) -> int:
    """The EL0 enables that vcpu_put restores: HOST_SVE_ENABLED in bit 0, HOST_SME_ENABLED in bit 1."""
    return cpu.ZEN * m.knobs.host_zen_restore | 2 * cpu.SMEN * m.knobs.host_smen_restore


def kvm_arch_vcpu_load_fp(m: Machine, c: int, vcpu: int) -> None:
    """vcpu_load(), also called by the preempt notifier's sched_in: record who owns the registers."""
    cpu, current, note = m.cpus[c], m.current(c), notes(m, c, vcpu)
    if m.knobs.kvm == "saveflush":
        note.hostsve = host_traps(m, cpu)
        fpsimd_save_and_flush_cpu_state(m, c)
        note.owner = FREE
        return
    if m.knobs.kvm != "tif":
        fpsimd_kvm_prepare(m, c)
    elif current.SVE and not m.knobs.hyp_saves_host_sve:
        m.bug("kvm_arch_vcpu_load_fp: BUG_ON(test_thread_flag(TIF_SVE))")
        raise Crash
    note.owner = HOST
    note.hostsve = (note.hostsve if m.knobs.sticky else 0) | host_traps(m, cpu)
    if m.config.sme and (cpu.SM or cpu.ZA):
        note.owner = FREE
        fpsimd_save_and_flush_cpu_state(m, c)


def vcpu_load(m: Machine, c: int, vcpu: int) -> None:
    """KVM_RUN (or another vCPU ioctl) begins: current loads the vCPU."""
    current = m.current(c)
    current.mode, current.vcpu = VCPU, vcpu
    m.vcpus[vcpu].user = m.cpus[c].cur
    kvm_arch_vcpu_load_fp(m, c, vcpu)


def kvm_arch_vcpu_ctxflush_fp(m: Machine, c: int, vcpu: int) -> None:
    """Before each guest entry, interrupts off: if the registers became foreign, mark them as free."""
    if m.current(c).FOREIGN:
        notes(m, c, vcpu).owner = FREE


def guest_enter(m: Machine, c: int) -> None:
    """Enter the guest. Its FP accesses trap unless it already owns the registers."""
    current = m.current(c)
    kvm_arch_vcpu_ctxflush_fp(m, c, current.vcpu)
    current.mode = GUEST_MODE
    m.cpus[c].guest = current.vcpu


def guest_has_registers(m: Machine, c: int) -> bool:
    """Whether the guest on this CPU owns the registers, so that its next FP access does not trap."""
    cpu = m.cpus[c]
    return bool(cpu.hyp) or notes(m, c, cpu.guest).owner == GUEST


def fpsimd_lazy_switch_to_guest(m: Machine, c: int) -> None:
    """pKVM from 6.10 (b5b9955617bc): save the host's registers to memory that only hyp can access."""
    cpu = m.cpus[c]
    cpu.hyp, cpu.hV, cpu.hZ = 1, cpu.V, cpu.Z


def fpsimd_lazy_switch_to_host(m: Machine, c: int, vcpu: Vcpu) -> None:
    """pKVM from 6.10: at exit, save the guest and restore the host. The host never sees the owner GUEST."""
    cpu = m.cpus[c]
    if m.config.guest_sve:
        vcpu.sV, vcpu.sZ = cpu.V, cpu.Z
    else:
        vcpu.fV = cpu.V
    cpu.V, cpu.Z, cpu.hyp = cpu.hV, cpu.hZ, 0
    cpu.hV = cpu.hZ = ZERO


def kvm_hyp_handle_fpsimd(m: Machine, c: int) -> None:
    """First FP access of the guest since entry: save the host's registers if still live, load the guest's."""
    cpu, current = m.cpus[c], m.current(c)
    vcpu = m.vcpus[cpu.guest]
    note = notes(m, c, cpu.guest)
    eager = m.config.pkvm and m.knobs.pkvm_eager
    if eager:
        fpsimd_lazy_switch_to_guest(m, c)
    elif note.owner == HOST and m.knobs.hyp_saves_host:
        if m.knobs.hyp_saves_host_sve and current.SVE:
            current.sV, current.sZ = cpu.V, cpu.Z
        else:
            current.fV = cpu.V
    if m.config.guest_sve:
        cpu.V, cpu.Z = vcpu.sV, vcpu.sZ
        cpu.vl = VL_GUEST if vcpu.zcr else VL_GUEST_MAX
    else:
        cpu.V, cpu.Z = vcpu.fV, ZERO
    if not eager:
        note.owner = GUEST


def kvm_arch_vcpu_ctxsync_fp(m: Machine, c: int, vcpu: int) -> None:
    """After each exit, interrupts off: if the guest's registers are live, bind them to the vCPU."""
    current = m.current(c)
    if notes(m, c, vcpu).owner != GUEST:
        return
    to_save = CURRENT
    if m.knobs.kvm_to_save:
        to_save = SVE if m.config.guest_sve else FPSIMD
    fpsimd_bind_state_to_cpu(m, c, vcpu, to_save)
    current.FOREIGN = 0
    if m.knobs.kvm_tif:
        current.SVE = int(m.config.guest_sve)


def guest_exit(m: Machine, c: int) -> None:
    """Leave the guest: hyp restores the host's traps and vector length, as far as this kernel does."""
    cpu, current = m.cpus[c], m.current(c)
    vcpu, cpu.guest = cpu.guest, -1
    current.mode = VCPU
    if not m.config.nvhe:
        cpu.ZEN = cpu.SMEN = 0
    if cpu.hyp:
        fpsimd_lazy_switch_to_host(m, c, m.vcpus[vcpu])
        cpu.vl = VL_HOST
    if cpu.vl == VL_GUEST and (not m.config.nvhe or m.knobs.eager_zcr):
        cpu.vl = VL_GUEST_MAX
    kvm_arch_vcpu_ctxsync_fp(m, c, vcpu)


def kvm_arch_vcpu_put_fp(m: Machine, c: int, vcpu: int) -> None:
    """vcpu_put(), also called by sched_out: save the guest's live registers to memory."""
    cpu, current, note = m.cpus[c], m.current(c), notes(m, c, vcpu)
    if note.owner == GUEST:
        if cpu.vl == VL_GUEST:
            cpu.vl = VL_GUEST_MAX
        fpsimd_save_and_flush_cpu_state(m, c)
    elif not m.config.nvhe:
        if m.knobs.host_zen_restore:
            cpu.ZEN = note.hostsve & 1
        if m.knobs.host_smen_restore:
            cpu.SMEN = note.hostsve >> 1
    if m.knobs.kvm_tif:
        current.SVE = 0


def vcpu_put(m: Machine, c: int) -> None:
    """KVM_RUN (or another vCPU ioctl) ends."""
    current = m.current(c)
    kvm_arch_vcpu_put_fp(m, c, current.vcpu)
    m.vcpus[current.vcpu].user = -1
    current.mode, current.vcpu = SYSCALL, -1
