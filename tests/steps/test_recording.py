# SPDX-License-Identifier: MIT
"""Records: what a program did, as steps that replay with the same answers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ctools import INCLUDE, compile_c
from hypothesis import given, settings

from kvmabi.device import open_system
from kvmabi.events import EventLog
from kvmabi.model.system import System
from kvmabi.profiles import load_host, load_kernel
from kvmabi.steps.doer import Doer
from kvmabi.steps.modelport import ModelPort
from kvmabi.steps.recording import Recorder
from kvmabi.steps.replay import Result, agree, machine, replay
from kvmabi.steps.trace import Trace
from kvmabi.testing import strategies

HOST = "sme-demo"

EVERYTHING = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define X0 0x6030000000100000ULL
#define Z0 0x6080000000150000ULL

static int kvm;

static void *save(void *of)
{
	int vcpu = *(int *)of;
	static _Thread_local struct { uint64_t n, ids[4096]; } list = { 4096 };
	unsigned char data[2048];

	ioctl(vcpu, KVM_GET_REG_LIST, &list);
	for (uint64_t i = 0; i < list.n; i++) {
		struct kvm_one_reg reg = { list.ids[i], (uintptr_t)data };
		ioctl(vcpu, KVM_GET_ONE_REG, &reg);
	}
	return NULL;
}

static int machine(int *vcpus)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 40), feature = KVM_ARM_VCPU_SVE;
	struct kvm_vcpu_init init = { .target = 5, .features = { 1 << KVM_ARM_VCPU_SVE | 1 << KVM_ARM_VCPU_PSCI_0_2 } };

	for (int i = 0; i < 2; i++) {
		vcpus[i] = ioctl(vm, KVM_CREATE_VCPU, 1 - i);
		ioctl(vcpus[i], KVM_ARM_VCPU_INIT, &init);
		ioctl(vcpus[i], KVM_ARM_VCPU_FINALIZE, &feature);
	}
	return vm;
}

static void faults(int vcpu)
{
	unsigned char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned char *end = pages + PAGE;
	struct kvm_one_reg reg = { Z0, (uintptr_t)end - 20 }, nowhere = { X0, 16 };

	munmap(end, PAGE);
	memset(end - 20, 0x5a, 20);
	ioctl(vcpu, KVM_GET_ONE_REG, &reg);
	for (int i = 0; i < 20; i++)
		end[i - 20] = (unsigned char)(3 + 7 * i + (i >> 4));
	ioctl(vcpu, KVM_SET_ONE_REG, &reg);
	ioctl(vcpu, KVM_GET_ONE_REG, &nowhere);
	ioctl(vcpu, KVM_SET_ONE_REG, &nowhere);
	ioctl(vcpu, KVM_GET_ONE_REG, end);
	ioctl(vcpu, KVM_ARM_VCPU_INIT, NULL);
	*(uint64_t *)(end - 24) = 4096;
	ioctl(vcpu, KVM_GET_REG_LIST, end - 24);
}

static void devices(int vm)
{
	uint64_t address = 0x8000000;
	uint32_t irqs = 96;
	struct kvm_create_device gic = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	struct kvm_device_attr attr = { .group = KVM_DEV_ARM_VGIC_GRP_ADDR, .attr = KVM_VGIC_V3_ADDR_TYPE_DIST };
	struct { struct kvm_irq_routing head; struct kvm_irq_routing_entry entries[300]; } routes = { 0 };

	ioctl(vm, KVM_CREATE_DEVICE, &gic);
	attr.addr = (uintptr_t)&address;
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	ioctl((int)gic.fd, KVM_GET_DEVICE_ATTR, &attr);
	attr.addr = 16;
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	attr = (struct kvm_device_attr) { .group = KVM_DEV_ARM_VGIC_GRP_NR_IRQS, .addr = (uintptr_t)&irqs };
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	attr = (struct kvm_device_attr) { .group = KVM_DEV_ARM_VGIC_GRP_CTRL, .attr = KVM_DEV_ARM_VGIC_CTRL_INIT };
	ioctl((int)gic.fd, KVM_SET_DEVICE_ATTR, &attr);
	attr = (struct kvm_device_attr) { .group = 77 };
	ioctl((int)gic.fd, KVM_HAS_DEVICE_ATTR, &attr);
	ioctl((int)gic.fd, KVM_RUN, 0);
	routes.head.nr = 300;
	for (unsigned i = 0; i < 300; i++)
		routes.entries[i] = (struct kvm_irq_routing_entry) {
			.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip.pin = i % 64 };
	ioctl(vm, KVM_SET_GSI_ROUTING, &routes);
	for (int i = 0; i < 7; i++) {
		struct kvm_irqfd irqfd = { .fd = (uint32_t)eventfd(0, 0), .gsi = (uint32_t)i };
		ioctl(vm, KVM_IRQFD, &irqfd);
		ioctl(vm, KVM_IRQFD, &irqfd);
		if (i & 1) {
			irqfd.fd = (uint32_t)dup((int)irqfd.fd);
			irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
			ioctl(vm, KVM_IRQFD, &irqfd);
		}
	}
	ioctl(vm, KVM_IRQFD, &(struct kvm_irqfd) { .fd = 999 });
	ioctl(vm, KVM_IRQFD, &(struct kvm_irqfd) { .fd = (uint32_t)open("/dev/null", O_RDONLY) });
}

static void memory(int vm)
{
	struct kvm_userspace_memory_region region = { .memory_size = 64 * PAGE, .flags = KVM_MEM_LOG_DIRTY_PAGES };
	uint64_t bits[2] = { 5, 6 };
	struct kvm_dirty_log log = { .dirty_bitmap = bits };

	region.userspace_addr = (uintptr_t)mmap(NULL, 64 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	log.dirty_bitmap = (void *)16;
	ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	log.slot = 5;
	ioctl(vm, KVM_GET_DIRTY_LOG, &log);
	close(ioctl(vm, KVM_GET_STATS_FD, 0));
	ioctl(vm, KVM_CHECK_EXTENSION, 0xA6410000);
	ioctl(vm, _IO(0xAE, 0xee), 3);
	ioctl(vm, _IOW(0xAE, 0xef, long), bits);
}

int main(void)
{
	int a[2], b[2], first, second;
	struct kvm_run *run;
	struct kvm_mp_state state = { KVM_MP_STATE_STOPPED };
	pthread_t threads[2];

	kvm = open("/dev/kvm", O_RDWR);
	first = machine(a);
	second = machine(b);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, save, i ? b : a);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	faults(a[0]);
	memory(second);
	devices(first);
	ioctl(b[0], KVM_SET_MP_STATE, &state);
	ioctl(b[0], KVM_GET_MP_STATE, &state);
	run = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b[0], 0);
	run->immediate_exit = 1;
	ioctl(b[0], KVM_RUN, 0);
	if (fork() == 0)
		_exit(ioctl(second, KVM_CREATE_VCPU, 5) == -1 && errno == EIO ? 0 : 1);
	wait(NULL);
	close(b[0]), close(b[1]), close(second);
	munmap(run, PAGE);
	usleep(150000);
	second = machine(b);
	save(b);
	return second < 0;
}
"""


def replayed(path: Path) -> Result:
    """The replay of a record."""
    trace, result = Trace(str(path)), Result()
    assert trace.kernel is not None
    replay(trace, machine(System(load_host(trace.host), load_kernel(trace.kernel))), result)
    return result


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a program that does everything."""
    folder = tmp_path_factory.mktemp("record")
    compile_c(EVERYTHING, [f"-I{INCLUDE}", "-w", "-pthread", "-o", str(folder / "program")])
    command = [sys.executable, "-m", "kvmabi", "run", "--saves", "none", "--record", str(folder / "a.trace"), "--"]
    done = subprocess.run([*command, str(folder / "program")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "a.trace"


def test_a_program_that_does_everything_replays(record: Path) -> None:
    """VMs, vCPUs, threads, faults, devices, eventfds, memory, an mmap'd field: each answer is the recorded one."""
    result = replayed(record)
    assert not result.first, "\n".join(map(str, result.first))
    assert result.steps > 400
    assert not record.with_name("a.trace.part").exists()


@pytest.mark.parametrize(
    "line",
    [
        r"C 28\tOK",
        r"U 1\tOK",
        r"V 1\tOK",
        r"g 0 6080000000150000 20\tEFAULT",
        r"s 0 6080000000150000 20 3\tEFAULT",
        r"B 0 6030000000100000\tEFAULT",
        r"b 0 6030000000100000\tEFAULT",
        r"X 0 4010aeab 10\tEFAULT",
        r"l 0 4096 2\tEFAULT \d+",
        r"o d0 0 2 8000000\tOK",
        r"q d0 0 2 \w+\tOK 8000000",
        r"o d0 0 2 -\tEFAULT",
        r"o d0 3 0 60\t\w+",
        r"R 0\tEINTR",
        r"c\tOK",
    ],
)
def test_what_the_program_did_is_in_the_record(record: Path, line: str) -> None:
    """Each kind of thing has its step."""
    assert re.search(f"^{line}$", record.read_text("utf-8"), re.MULTILINE)


def test_eventfds_have_names(record: Path) -> None:
    """The fifth has a longer one; a closed descriptor is -1, another kind of file @4."""
    text = record.read_text("utf-8")
    for name in ("@0", "@3", "@e4.", "@e6.", "@4"):
        assert f"Y v 4020ae76 {name}" in text
    assert "Y v 4020ae76 ff*4." in text


def test_another_process_is_a_comment(record: Path) -> None:
    """The model's replay has one address space: the step is left out, and the replay says so."""
    (found,) = replayed(record).left_out
    assert "KVM_CREATE_VCPU by another process" in found


@settings(max_examples=25, deadline=None)
@given(steps=strategies.ioctl_sequences(HOST))
def test_any_sequence_replays(steps: list[str]) -> None:
    """What a random sequence of ioctls did is recorded with the answers that it got."""
    host = load_host(HOST)
    log, lines = EventLog(kept=0), []
    log.detailed = True
    log.watchers.append(Recorder(lines.append).watch)
    doer = Doer(ModelPort(open_system(host, load_kernel(host.kernel), log)))
    for step in steps:
        doer.do(step)
    log.watchers.clear()
    doer.close()
    again = machine(System(host, load_kernel(host.kernel)))
    for line in lines:
        if line.startswith("# inexact"):
            break
        if not line.startswith("#"):
            step, _, answer = line.partition("\t")
            assert agree(step, answer, again.do(step)), line
    again.close()
