# SPDX-License-Identifier: MIT
"""Doing steps with ioctls of this process: on the real /dev/kvm or on one that ``kvmabi.open_kvm`` opened."""

from __future__ import annotations

import ctypes
import errno
import mmap
import struct
from collections.abc import Callable

from kvmabi import hexruns, uapi
from kvmabi.conformance import steps

PAGE_BYTES = 65536  # a multiple of every page size that arm64 has
DATA_BYTES = 1 << 15  # the most that an id's size field can say
ONE_REG = struct.Struct("=QQ")
INIT = struct.Struct("=8I")
INT = struct.Struct("=i")
COUNT = struct.Struct("=Q")
MASK_RANGE = struct.Struct("=QI13I")
DEVICE_ATTR = struct.Struct("=IIQQ")
ENABLE_CAP = struct.Struct("=II4Q64s")
IMMEDIATE_EXIT = uapi.ffi.offsetof("struct kvm_run", "immediate_exit")
MASK_OP1S = (0, 1, 3)
UNTOUCHED = bytes((steps.UNTOUCHED,)) * steps.MAX_REGISTER_BYTES
MAX_VCPUS = 16
WORD, LONG = 0xFFFFFFFF, (1 << 64) - 1


class Ioctls:
    """Does steps with ``ioctl(fd, request, argument)``, which raises OSError, on the system file ``kvm``."""

    def __init__(self, kvm: int, ioctl: Callable[[int, int, int], int], close: Callable[[int], object]) -> None:
        self._kvm, self._ioctl, self._close = kvm, ioctl, close
        self._vm = -1
        self._vcpus: list[int] = []
        self._devices: list[int] = []
        self._runs: dict[int, mmap.mmap] = {}
        self._data = ctypes.create_string_buffer(DATA_BYTES)
        self._list = ctypes.create_string_buffer(COUNT.size * (1 + steps.MAX_IDS))
        self._masks = ctypes.create_string_buffer(8 * int(uapi.KVM_ARM_FEATURE_ID_RANGE_SIZE))
        self._edge = Edge()

    def do(self, step: str) -> str:
        """The answer to a step; ValueError if it is none."""
        op, *words = step.split()
        if op not in steps.WORDS or len(words) < steps.WORDS[op]:
            raise ValueError(f"{step[:60]!r} is no step")
        try:
            return _DO[op](self, *words[: steps.WORDS[op]])
        except OSError as error:
            return _name(error)

    def close(self) -> None:
        """Close the VM and its vCPUs."""
        for run in self._runs.values():
            run.close()
        for fd in (*self._devices, *reversed(self._vcpus)):
            self._close(fd)
        if self._vm >= 0:
            self._close(self._vm)
        self._runs, self._vcpus, self._devices, self._vm = {}, [], [], -1

    def _file(self, name: str) -> int:
        if name == "s":
            return self._kvm
        if name == "v":
            return self._vm
        files = self._devices if name[0] == "d" else self._vcpus
        number = int(name.removeprefix("d"))
        if not 0 <= number < len(files):
            raise OSError(errno.EBADF, f"there is no vCPU or device {name}")
        return files[number]

    def _call(self, file: str, request: int, argument: bytes) -> None:
        """An ioctl on a struct; what the kernel writes into it is lost."""
        holder = ctypes.create_string_buffer(argument, len(argument))
        self._ioctl(self._file(file), request, ctypes.addressof(holder))

    def _one_reg(self, vcpu: str, request: int, id: str, address: int) -> None:
        self._call(vcpu, request, ONE_REG.pack(int(id, 16) & LONG, address))

    # --- the VM and its vCPUs

    def _new(self, vcpus: str) -> str:
        self.close()
        self._vm = self._ioctl(self._kvm, uapi.KVM_CREATE_VM, 0)
        for index in range(int(vcpus)):
            self._create_vcpu(str(index))
        return "OK"

    def _create_vcpu(self, index: str) -> str:
        fd = self._ioctl(self._vm, uapi.KVM_CREATE_VCPU, int(index))
        if len(self._vcpus) >= MAX_VCPUS:
            raise ValueError(f"more than {MAX_VCPUS} vCPUs")
        self._vcpus.append(fd)
        return "OK"

    def _enable_cap(self, capability: str) -> str:
        self._call("v", uapi.KVM_ENABLE_CAP, ENABLE_CAP.pack(int(capability), 0, 0, 0, 0, 0, b""))
        return "OK"

    def _init(self, vcpu: str, target: str, *features: str) -> str:
        words = [int(word, 16) & WORD for word in features]
        self._call(vcpu, uapi.KVM_ARM_VCPU_INIT, INIT.pack(int(target) & WORD, *words, *(0,) * (7 - len(words))))
        return "OK"

    def _finalize(self, vcpu: str, feature: str) -> str:
        self._call(vcpu, uapi.KVM_ARM_VCPU_FINALIZE, INT.pack(int(feature)))
        return "OK"

    def _run(self, vcpu: str) -> str:
        fd = self._file(vcpu)
        if fd not in self._runs:
            self._runs[fd] = mmap.mmap(fd, self._ioctl(self._kvm, uapi.KVM_GET_VCPU_MMAP_SIZE, 0))
        self._runs[fd][IMMEDIATE_EXIT] = 1
        self._ioctl(fd, uapi.KVM_RUN, 0)
        return "OK"

    # --- registers

    def _get(self, vcpu: str, id: str) -> str:
        address = ctypes.addressof(self._data)
        ctypes.memset(address, steps.UNTOUCHED, steps.MAX_REGISTER_BYTES)
        try:
            self._one_reg(vcpu, uapi.KVM_GET_ONE_REG, id, address)
        except OSError as error:
            return _name(error) + ("" if self._shown(steps.MAX_REGISTER_BYTES) == UNTOUCHED else " !touched")
        return "OK " + hexruns.compress(self._shown(uapi.KVM_REG_SIZE(int(id, 16))))

    def _shown(self, size: int) -> bytes:
        return ctypes.string_at(self._data, min(size, steps.MAX_REGISTER_BYTES))

    def _set(self, vcpu: str, id: str, data: str) -> str:
        return self._set_bytes(vcpu, id, hexruns.expand(data))

    def _pattern(self, vcpu: str, id: str, seed: str) -> str:
        return self._set_bytes(vcpu, id, steps.pattern(int(seed) % 256))

    def _set_bytes(self, vcpu: str, id: str, data: bytes) -> str:
        address = ctypes.addressof(self._data)
        data = data.ljust(steps.MAX_REGISTER_BYTES, b"\0")
        ctypes.memmove(address, data, min(len(data), DATA_BYTES))
        self._one_reg(vcpu, uapi.KVM_SET_ONE_REG, id, address)
        return "OK"

    def _bad_get(self, vcpu: str, id: str) -> str:
        self._one_reg(vcpu, uapi.KVM_GET_ONE_REG, id, steps.UNMAPPED)
        return "OK"

    def _bad_set(self, vcpu: str, id: str) -> str:
        self._one_reg(vcpu, uapi.KVM_SET_ONE_REG, id, steps.UNMAPPED)
        return "OK"

    def _torn_get(self, vcpu: str, id: str, mapped: str) -> str:
        self._one_reg(vcpu, uapi.KVM_GET_ONE_REG, id, self._edge.hold(bytes(_room(mapped))))
        return "OK"

    def _torn_set(self, vcpu: str, id: str, mapped: str, seed: str) -> str:
        self._one_reg(vcpu, uapi.KVM_SET_ONE_REG, id, self._edge.hold(steps.pattern(int(seed), _room(mapped))))
        return "OK"

    # --- lists

    def _reg_list(self, vcpu: str, room: str) -> str:
        self._list.raw = COUNT.pack(int(room) & LONG).ljust(len(self._list), b"\0")
        try:
            self._ioctl(self._file(vcpu), uapi.KVM_GET_REG_LIST, ctypes.addressof(self._list))
        except OSError as error:
            return f"{_name(error)} {COUNT.unpack_from(self._list)[0]}"
        count = COUNT.unpack_from(self._list)[0]
        ids = struct.unpack_from(f"={min(count, steps.MAX_IDS)}Q", self._list, COUNT.size)
        return " ".join(["OK", str(count), *(f"{id:x}" for id in ids)])

    def _torn_list(self, vcpu: str, room: str, mapped: str) -> str:
        address = self._edge.hold(COUNT.pack(int(room) & LONG).ljust(COUNT.size * (1 + _room(mapped)), b"\0"))
        answer = "OK"
        try:
            self._ioctl(self._file(vcpu), uapi.KVM_GET_REG_LIST, address)
        except OSError as error:
            answer = _name(error)
        return f"{answer} {COUNT.unpack(ctypes.string_at(address, COUNT.size))[0]}"

    def _writable_masks(self) -> str:
        ctypes.memset(ctypes.addressof(self._masks), 0, len(self._masks))
        arguments = ctypes.addressof(self._masks), 0, *(0,) * 13
        self._call("v", uapi.KVM_ARM_GET_REG_WRITABLE_MASKS, MASK_RANGE.pack(*arguments))
        masks = struct.unpack(f"={len(self._masks) // 8}Q", self._masks)
        return " ".join(["OK", *(f"{_mask_id(place):x}={mask:x}" for place, mask in enumerate(masks) if mask)])

    # --- devices and attributes

    def _create_device(self, kind: str, flags: str) -> str:
        device = uapi.ffi.new("struct kvm_create_device *", [int(kind) & WORD, 0, int(flags) & WORD])
        self._ioctl(self._vm, uapi.KVM_CREATE_DEVICE, int(uapi.ffi.cast("uintptr_t", device)))
        if device.flags & uapi.KVM_CREATE_DEVICE_TEST:
            return "OK"
        if len(self._devices) < steps.MAX_DEVICES:
            self._devices.append(int(device.fd))
        else:
            self._close(int(device.fd))
        return "OK"

    def _has_attr(self, file: str, *words: str) -> str:
        return self._attr(file, uapi.KVM_HAS_DEVICE_ATTR, *words)

    def _set_attr(self, file: str, *words: str) -> str:
        return self._attr(file, uapi.KVM_SET_DEVICE_ATTR, *words)

    def _get_attr(self, file: str, *words: str) -> str:
        return f"{self._attr(file, uapi.KVM_GET_DEVICE_ATTR, *words)} {COUNT.unpack_from(self._data)[0]:x}"

    def _attr(self, file: str, request: int, group: str, attr: str, value: str) -> str:
        place = steps.UNMAPPED if value == "-" else ctypes.addressof(self._data)
        ctypes.memmove(self._data, COUNT.pack(0 if value == "-" else int(value, 16) & LONG), COUNT.size)
        self._call(file, request, DEVICE_ATTR.pack(0, int(group) & WORD, int(attr, 16) & LONG, place))
        return "OK"

    # --- anything else

    def _with_number(self, file: str, request: str, argument: str) -> str:
        return f"OK {self._ioctl(self._file(file), int(request, 16), int(argument, 16))}"

    def _with_struct(self, file: str, request: str) -> str:
        number = int(request, 16)
        ctypes.memset(ctypes.addressof(self._data), 0, DATA_BYTES)
        self._ioctl(self._file(file), number, ctypes.addressof(self._data))
        return "OK " + hexruns.compress(self._shown(number >> 16 & 0x3FFF))

    def _cpu_features(self) -> str:
        try:
            with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
                told = (line.partition(":")[2].strip() for line in lines if line.startswith("Features"))
                return f"OK {next(told, '')}".rstrip()
        except OSError:
            return "OK"


class Edge:
    """A place in memory right behind which nothing can be read or written."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2 * PAGE_BYTES)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(self._start + PAGE_BYTES), ctypes.c_size_t(PAGE_BYTES), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def hold(self, data: bytes) -> int:
        """Put data right before the edge, at most 64 KiB; tells its address."""
        if len(data) > PAGE_BYTES:
            raise ValueError(f"more than {PAGE_BYTES} bytes")
        address = self._start + PAGE_BYTES - len(data)
        ctypes.memmove(address, data, len(data))
        return address


def _room(text: str) -> int:
    """How many bytes, or ids, of a buffer are mapped."""
    room = int(text)
    if not 0 <= room <= PAGE_BYTES:
        raise ValueError(f"0 to {PAGE_BYTES} bytes can be mapped, not {room}")
    return room


def _mask_id(place: int) -> int:
    """The register whose mask has a place in the table: op1 of 0, 1 or 3, CRm and op2."""
    return int(uapi.ARM64_SYS_REG(3, MASK_OP1S[place >> 6], 0, place >> 3 & 7, place & 7))


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error.errno))


_DO: dict[str, Callable[..., str]] = {
    "N": Ioctls._new,
    "V": Ioctls._create_vcpu,
    "W": Ioctls._enable_cap,
    "I": Ioctls._init,
    "i": Ioctls._init,
    "F": Ioctls._finalize,
    "G": Ioctls._get,
    "S": Ioctls._set,
    "P": Ioctls._pattern,
    "B": Ioctls._bad_get,
    "b": Ioctls._bad_set,
    "g": Ioctls._torn_get,
    "s": Ioctls._torn_set,
    "L": Ioctls._reg_list,
    "l": Ioctls._torn_list,
    "M": Ioctls._writable_masks,
    "R": Ioctls._run,
    "D": Ioctls._create_device,
    "h": Ioctls._has_attr,
    "o": Ioctls._set_attr,
    "q": Ioctls._get_attr,
    "X": Ioctls._with_number,
    "A": Ioctls._with_struct,
    "Q": Ioctls._cpu_features,
}
