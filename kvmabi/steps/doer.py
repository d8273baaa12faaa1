# SPDX-License-Identifier: MIT
"""Doing steps: the ioctls that a step stands for, and the answer in the words of traces, on any port.

>>> from kvmabi.device import open_system
>>> from kvmabi.events import EventLog
>>> from kvmabi.profiles import load_host, load_kernel
>>> from kvmabi.steps.modelport import ModelPort
>>> host = load_host("sme-demo")
>>> doer = Doer(ModelPort(open_system(host, load_kernel(host.kernel), EventLog(kept=0))))
>>> [doer.do(step) for step in ("new 1", "G 0 6030000000100000", "init 0 5 0", "G 0 6030000000100000")]
['OK', 'ENOEXEC', 'OK', 'OK 00*8.']
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvmabi import hexruns, uapi
from kvmabi.device.structs import layout
from kvmabi.steps.answers import list_answer, masks_answer, name_of, stats_answer
from kvmabi.steps.grammar import (
    BEHIND,
    GUEST_BYTES,
    GUEST_MEMORY,
    LONG_MASK,
    MAX_DEVICES,
    MAX_IDS,
    MAX_REGISTER_BYTES,
    MAX_VMS,
    OPS,
    UNMAPPED,
    WORD_MASK,
    File,
    argument_parts,
    parse,
    pattern,
)
from kvmabi.steps.port import Port
from kvmabi.steps.prepared import PREPARED
from kvmabi.steps.structs import COUNT, CREATE_DEVICE, DEVICE_ATTR, INIT, INT, ONE_REG

MASK_RANGE = layout("struct reg_mask_range")
MASKS_BYTES = COUNT.size * int(uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE)
SIZE_MASK = 0x3FFF
"""The size in an ioctl's number, in bytes, above its lowest 16 bits."""
MAX_STATS_BYTES = 1 << 16
CACHED_STEPS = 8192  # more make a sweep over all IDs slower: the cache no longer fits into the CPU's

GET_ONE_REG, SET_ONE_REG, GET_REG_LIST = uapi.KVM_GET_ONE_REG, uapi.KVM_SET_ONE_REG, uapi.KVM_GET_REG_LIST

Plan = Callable[[], str]
"""What a step's text comes to: how it is done, with its words."""


class _Vm:
    """The descriptors that steps name while one VM is used: /dev/kvm's and those of the VM."""

    def __init__(self, kvm: int) -> None:
        self.fds: dict[File, int] = {"s": kvm}
        self.vcpus = self.devices = 0


class Doer:
    """Does steps on a port, which it owns.

    A trace's steps repeat: what a text stands for is worked out once (a plan) and kept.
    """

    def __init__(self, port: Port) -> None:
        self.port = port
        self.memory = port.memory
        self._vms: list[_Vm] = []
        self._use(_Vm(port.kvm))
        self._plans: dict[str, Plan] = {}
        self._ioctl = port.ioctl
        self._poke, self._peek = port.memory.poke, port.memory.peek
        self._argument, self._payload = port.memory.argument, port.memory.payload

    def do(self, text: str) -> str:
        """The answer to a step; ValueError if it is not one."""
        return (self._plans.get(text) or self._plan(text))()

    @property
    def reason(self) -> str:
        """Why the last step that was refused was."""
        return self.port.reason

    def close_vms(self) -> None:
        """Close every VM, their vCPUs and devices."""
        for vm in self._vms:
            self._use(vm)
            self._close_vm()
        self._vms.clear()
        self._use(_Vm(self.port.kvm))
        self.memory.clear_guest()

    def close(self) -> None:
        """Close everything."""
        self.close_vms()
        self.port.shut()

    def _plan(self, text: str) -> Plan:
        letter, values = parse(text)
        ready = PREPARED.get(letter)
        plan: Plan = partial(getattr(self, METHODS[letter]), *(ready(self._payload, *values) if ready else values))
        if len(self._plans) >= CACHED_STEPS:
            self._plans.clear()
        self._plans[text] = plan
        return plan

    def _fd(self, file: File) -> int:
        """The descriptor of a file; -1, which no ioctl takes, if there is none."""
        return self._fds.get(file, -1)

    def _use(self, vm: _Vm) -> None:
        self._vm, self._fds = vm, vm.fds

    def _on_struct(self, file: File, request: int, argument: bytes) -> int:
        """An ioctl on a struct."""
        self._poke(self._argument, argument)
        return self._ioctl(self._fds.get(file, -1), request, self._argument)

    # --- the VM and its vCPUs

    def _create_vm(self, kind: int) -> str:
        if len(self._vms) >= MAX_VMS:
            return "EMFILE"
        vm = self._ioctl(self.port.kvm, uapi.KVM_CREATE_VM, kind)
        if vm >= 0:
            self._vms.append(_Vm(self.port.kvm))
            self._use(self._vms[-1])
            self._fds["v"] = vm
        return name_of(vm)

    def _use_vm(self, vm: int) -> str:
        if vm >= len(self._vms):
            return "EBADF"
        self._use(self._vms[vm])
        return "OK"

    def _close_vm(self) -> str:
        for name in [name for name in reversed(self._fds) if name not in ("s", "v")]:
            self.port.close(self._fds.pop(name))
        if "v" in self._fds:
            self.port.close(self._fds.pop("v"))
        self._vm.vcpus = self._vm.devices = 0
        return "OK"

    def _close_all(self) -> str:
        self.close_vms()
        return "OK"

    def _new(self, vcpus: int) -> str:
        self.close_vms()
        created = self._create_vm(0)
        if created != "OK":
            return created
        for index in range(vcpus):
            answer = self._create_vcpu(index)
            if answer != "OK":
                return answer
        return "OK"

    def _create_vcpu(self, index: int) -> str:
        fd = self._ioctl(self._fd("v"), uapi.KVM_CREATE_VCPU, index & LONG_MASK)
        if fd < 0:
            return name_of(fd)
        self._fds[self._vm.vcpus] = fd
        self._vm.vcpus += 1
        return "OK"

    def _enable_cap(self, capability: int) -> str:
        cap = uapi.ffi.new("struct kvm_enable_cap *", {"cap": capability & WORD_MASK})
        return name_of(self._on_struct("v", uapi.KVM_ENABLE_CAP, bytes(uapi.ffi.buffer(cap))))

    def _init(self, file: File, target: int, *features: int) -> str:
        words = [word & WORD_MASK for word in (target, *features)]
        init = INIT.pack(*words, *(0,) * (8 - len(words)))
        return name_of(self._on_struct(file, uapi.KVM_ARM_VCPU_INIT, init))

    def _finalize(self, file: File, feature: int) -> str:
        word = (feature & WORD_MASK).to_bytes(INT.size, "little")
        return name_of(self._on_struct(file, uapi.KVM_ARM_VCPU_FINALIZE, word))

    def _run(self, vcpu: int) -> str:
        fd = self._fd(vcpu)
        result = self.port.immediate_exit(fd, True)
        return name_of(result if result < 0 else self._ioctl(fd, uapi.KVM_RUN, 0))

    def _enter(self, vcpu: int) -> str:
        fd = self._fd(vcpu)
        result = self.port.immediate_exit(fd, False)
        return name_of(result if result < 0 else self.port.enter(fd))

    # --- registers

    def _get(self, file: File, argument: bytes, untouched: bytes) -> str:
        payload = self._payload
        self._poke(self._argument, argument)
        self._poke(payload, untouched)
        result = self._ioctl(self._fds.get(file, -1), GET_ONE_REG, self._argument)
        data = self._peek(payload, len(untouched))
        if result >= 0:
            return "OK " + hexruns.compress(data)
        return name_of(result) if data == untouched else f"{name_of(result)} !touched"

    def _set(self, file: File, argument: bytes, data: bytes) -> str:
        self._poke(self._argument, argument)
        self._poke(self._payload, data)
        result = self._ioctl(self._fds.get(file, -1), SET_ONE_REG, self._argument)
        return "OK" if result >= 0 else name_of(result)

    def _at(self, file: File, request: int, id: int, addr: int) -> str:
        return name_of(self._on_struct(file, request, ONE_REG.pack(id, addr)))

    def _get_unmapped(self, file: File, id: int) -> str:
        return self._at(file, GET_ONE_REG, id, UNMAPPED)

    def _set_unmapped(self, file: File, id: int) -> str:
        return self._at(file, SET_ONE_REG, id, UNMAPPED)

    def _get_partial(self, file: File, id: int, mapped: int) -> str:
        return self._at(file, GET_ONE_REG, id, self.memory.edge(mapped))

    def _set_partial(self, file: File, id: int, mapped: int, seed: int) -> str:
        addr = self.memory.edge(mapped)
        self._poke(addr, pattern(seed % 256, mapped))
        return self._at(file, SET_ONE_REG, id, addr)

    # --- lists

    def _list(self, file: File, n: int) -> str:
        array = self.memory.array
        self._poke(array, COUNT.pack(n & LONG_MASK))
        result = self._ioctl(self._fd(file), GET_REG_LIST, array)
        (count,) = COUNT.unpack(self._peek(array, COUNT.size))
        if result < 0:
            return f"{name_of(result)} {count}"
        return list_answer(count, self._peek(array, COUNT.size * (1 + min(count, MAX_IDS))))

    def _list_partial(self, file: File, n: int, mapped: int) -> str:
        addr = self.memory.edge(COUNT.size * (1 + mapped))
        self._poke(addr, COUNT.pack(n & LONG_MASK))
        result = self._ioctl(self._fd(file), GET_REG_LIST, addr)
        return f"{name_of(result)} {COUNT.unpack(self._peek(addr, COUNT.size))[0]}"

    def _masks(self) -> str:
        self._poke(self._payload, b"")
        reserved = (0,) * (len(MASK_RANGE.unpack(bytes(MASK_RANGE.size))) - 1)
        argument = MASK_RANGE.pack(self._payload, *reserved)
        result = self._on_struct("v", uapi.KVM_ARM_GET_REG_WRITABLE_MASKS, argument)
        if result < 0:
            return name_of(result)
        return masks_answer(self._peek(self._payload, MASKS_BYTES))

    # --- devices and attributes

    def _create_device(self, kind: int, flags: int) -> str:
        argument = CREATE_DEVICE.pack(kind & WORD_MASK, 0, flags & WORD_MASK)
        result = self._on_struct("v", uapi.KVM_CREATE_DEVICE, argument)
        if result < 0:
            return name_of(result)
        _, fd, flags = CREATE_DEVICE.unpack(self._peek(self._argument, CREATE_DEVICE.size))
        if flags & uapi.KVM_CREATE_DEVICE_TEST:
            return "OK"
        if self._vm.devices < MAX_DEVICES:
            self._fds[f"d{self._vm.devices}"] = fd
            self._vm.devices += 1
        else:
            self.port.close(fd)
        return "OK"

    def _has_attr(self, file: File, group: int, attr: int, value: int | str) -> str:
        return name_of(self._attr(file, uapi.KVM_HAS_DEVICE_ATTR, group, attr, value))

    def _set_attr(self, file: File, group: int, attr: int, value: int | str) -> str:
        return name_of(self._attr(file, uapi.KVM_SET_DEVICE_ATTR, group, attr, value))

    def _get_attr(self, file: File, group: int, attr: int, value: int | str) -> str:
        result = self._attr(file, uapi.KVM_GET_DEVICE_ATTR, group, attr, value)
        if result < 0:
            return name_of(result)
        return f"OK {COUNT.unpack(self._peek(self._payload, COUNT.size))[0]:x}"

    def _attr(self, file: File, request: int, group: int, attr: int, value: int | str) -> int:
        addr = self._payload if isinstance(value, int) else UNMAPPED
        self._poke(self._payload, COUNT.pack(value) if isinstance(value, int) else b"")
        return self._on_struct(file, request, DEVICE_ATTR.pack(0, group & WORD_MASK, attr, addr))

    # --- anything else

    def _with_number(self, file: File, request: int, argument: int) -> str:
        result = self._ioctl(self._fd(file), request, argument)
        return name_of(result) if result < 0 else f"OK {result}"

    def _with_struct(self, file: File, request: int) -> str:
        self._poke(self._payload, b"")
        result = self._ioctl(self._fd(file), request, self._payload)
        if result < 0:
            return name_of(result)
        return "OK " + hexruns.compress(self._peek(self._payload, min(request >> 16 & SIZE_MASK, MAX_REGISTER_BYTES)))

    def _with_bytes(self, file: File, request: int, argument: str) -> str:
        size_bytes = request >> 16 & SIZE_MASK
        values = {
            BEHIND: COUNT.pack(self._payload + size_bytes),
            GUEST_MEMORY: COUNT.pack(self.memory.guest) if GUEST_MEMORY in argument else b"",
        }
        parts = argument_parts(argument)
        data = b"".join(
            part if isinstance(part, bytes) else values.get(part) or INT.pack(self.port.descriptor(part))
            for part in parts
        )
        self._poke(self._payload, data)
        result = self._ioctl(self._fd(file), request, self._payload)
        if result < 0:
            return name_of(result)
        if request == uapi.KVM_CREATE_GUEST_MEMFD:
            self.port.keep_guest_memfd(result)
            result = 0
        behind = self._peek(self._payload, len(data))[size_bytes:] if BEHIND in parts else b""
        return f"OK {result} {hexruns.compress(behind)}".rstrip()

    def _stats(self, file: File) -> str:
        fd = self._ioctl(self._fd(file), uapi.KVM_GET_STATS_FD, 0)
        if fd < 0:
            return name_of(fd)
        data = self.port.contents(fd, MAX_STATS_BYTES)
        self.port.close(fd)
        return stats_answer(data)

    def _write_memory(self, offset: int, data: bytes) -> str:
        if offset + len(data) > GUEST_BYTES:
            return "no room"
        self.memory.write_guest(offset, data)
        return "OK"

    def _read_memory(self, offset: int, size: int) -> str:
        if size > min(MAX_REGISTER_BYTES, GUEST_BYTES - offset):
            return "no room"
        return "OK " + hexruns.compress(self.memory.read_guest(offset, size))

    def _cpu_features(self) -> str:
        return f"OK {self.port.cpu_features()}".rstrip()


METHODS = {
    "N": "_new",
    "C": "_create_vm",
    "U": "_use_vm",
    "c": "_close_vm",
    "Z": "_close_all",
    "V": "_create_vcpu",
    "W": "_enable_cap",
    "I": "_init",
    "i": "_init",
    "F": "_finalize",
    "G": "_get",
    "S": "_set",
    "P": "_set",
    "B": "_get_unmapped",
    "b": "_set_unmapped",
    "g": "_get_partial",
    "s": "_set_partial",
    "L": "_list",
    "l": "_list_partial",
    "M": "_masks",
    "R": "_run",
    "E": "_enter",
    "X": "_with_number",
    "A": "_with_struct",
    "D": "_create_device",
    "h": "_has_attr",
    "o": "_set_attr",
    "q": "_get_attr",
    "Y": "_with_bytes",
    "T": "_stats",
    "m": "_write_memory",
    "r": "_read_memory",
    "Q": "_cpu_features",
}
"""How each kind of step is done: the method by the step's letter."""
assert METHODS.keys() == {op.letter for op in OPS}
