# SPDX-License-Identifier: MIT
"""/dev/kvm in this process: ``Kvm.ioctl`` takes what ``fcntl.ioctl`` takes; ``Vm`` and ``Vcpu`` are objects above it.

>>> import kvmabi
>>> with kvmabi.open(host="sme-demo") as kvm:
...     vcpu = kvm.create_vm().create_vcpu(0)
...     vcpu.init({"sve", "sme"})
...     vcpu.finalize()
...     vcpu["svcr"] = 2
...     vcpu["za.h[3]"] = b"\\x07" * 256
...     vcpu["za.h[3]"][:2]
b'\\x07\\x07'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from kvmabi import callers, forks, regid, uapi, vcpuruns
from kvmabi.device import DeviceFile, OwnMemory, VcpuFile, ioctl_names, open_system
from kvmabi.device.descriptors import Descriptors, HasFileno
from kvmabi.device.file import Answer, PlainFile, Refused, Wait
from kvmabi.device.mark import Mark
from kvmabi.errors import KvmError, UsageError
from kvmabi.events import KEPT, EventLog
from kvmabi.faults import Faults
from kvmabi.guests.scripts import GuestFunction, OnKernel
from kvmabi.model.row import size_of
from kvmabi.model.vcpu import Payload
from kvmabi.model.vcpu import Vcpu as VcpuModel
from kvmabi.order import Finding, Open, OrderChecker, Verdict
from kvmabi.profiles import Host, Kernel, load_host, load_kernel
from kvmabi.profiles.initwords import feature_bits, feature_words
from kvmabi.waiting import wait_for_signal

MAX_ARG = (1 << 64) - 1
ADDRESS = uapi.ffi.typeof("uintptr_t")
WORD = (1 << 32) - 1
SMALL_BYTES = 1024  # as fcntl.ioctl: shorter buffers are copied into one of this size
ARGUMENT_KINDS = "an ioctl takes a number, a cffi pointer, bytes or a writable buffer"
FIRST_LABEL = WORD + 1
"""The first label of ``Kvm.saved``: those of C programs (include/kvmabi/mark.h) have 32 bits."""
USUAL_IDS = 1024  # room in the first KVM_GET_REG_LIST
UNSET_BUFFER = bytes(1 << 15)
"""What the buffer of a get holds before: as many zeroes as an ID's size field can ask for."""
MORE = bytes(8)
"""What follows a value in memory: the kernel reads 8 bytes of an ID that it does not have, whatever its size field."""


class Kvm:
    """An open /dev/kvm of a host under a kernel. ``fd`` is its file descriptor, ``log`` its stream of events.

    File descriptors that its ioctls hand out are the process's own: a vCPU's can be mapped with mmap, all can be closed
    with ``close`` (or with os.close, which ``Kvm`` notices at its own close). ``checked``: the order checker watches.
    ``ignored`` are the IDs of registers that its findings leave out. ``faults`` strike ioctls.
    """

    def __init__(
        self,
        host: Host,
        kernel: Kernel,
        *,
        kept_events: int = KEPT,
        checked: bool = True,
        ignored: Iterable[int] = (),
        faults: Faults | None = None,
    ) -> None:
        self.host = host
        self.kernel = kernel
        self.log = EventLog(kept=kept_events)
        self._checker = OrderChecker(ignored, counter_hz=host.counter_hz)
        if checked:
            self.log.watchers.append(self._checker.watch)
        self._descriptors = Descriptors()
        self._memory = OwnMemory()
        self._next_label = FIRST_LABEL
        self.fd = self._descriptors.install(open_system(host, kernel, self.log, faults=faults))

    @property
    def memory(self) -> OwnMemory:
        """The memory of this process; a child of fork has another address space than its parent."""
        if self._memory.forks != forks.count:
            self._memory = OwnMemory()
        return self._memory

    def ioctl(self, fd: int | HasFileno, request: int, arg: Any = 0) -> int | bytes:
        """Do an ioctl on a file descriptor of this Kvm, or on a file object that has one.

        ``arg`` is a number (an address, or a value for ioctls that take one), a cffi pointer, a writable buffer, which
        is changed in place, or bytes: then the changed bytes are the result. Raises KvmError with the errno that the
        kernel gives, EBADF for a foreign descriptor.

        KVM_GET_STATS_FD and KVM_CREATE_GUEST_MEMFD return a descriptor without ioctls, which the caller closes with
        ``os.close``; the argument of the latter is then not bytes, whose result would be the struct.

        >>> import kvmabi
        >>> from kvmabi import uapi
        >>> with kvmabi.open() as kvm:
        ...     kvm.ioctl(kvm.fd, uapi.KVM_GET_API_VERSION)
        12
        """
        file = self._descriptors.file(fd)
        if isinstance(arg, int):
            if not -(1 << 63) <= arg <= MAX_ARG:
                raise UsageError(f"an ioctl's argument has 64 bits: {arg:#x} is too large")
            return self._do(file, request, arg & MAX_ARG)
        if isinstance(arg, uapi.ffi.CData):
            return self._do(file, request, _address(arg))
        try:
            view = memoryview(arg).cast("B")
        except TypeError as error:
            raise UsageError(f"{ARGUMENT_KINDS}: {error}") from None
        if isinstance(arg, bytes) or len(view) < SMALL_BYTES:
            return self._do_on_copy(file, request, arg, view)
        if view.readonly:
            raise UsageError(ARGUMENT_KINDS)
        return self._do(file, request, _address(uapi.ffi.from_buffer(view)))

    def create_vm(self, *, ipa_bits: int = 0) -> Vm:
        """KVM_CREATE_VM: a VM as an object; ``ipa_bits`` 0 is the kernel's default of 40."""
        return Vm(self, int(self.ioctl(self.fd, uapi.KVM_CREATE_VM, ipa_bits)))

    def verdict(self) -> Verdict:
        """What was lost, judged and not judged, every open vCPU as if it entered the guest now. Changes nothing."""
        files = [file for file in self._descriptors.files() if isinstance(file, VcpuFile)]
        of_vm = {file.vm: file.vm.controllers() for file in files}
        still_open = [
            Open(file.vm.vm.number, file.vcpu.index, file.state(), file.svcr, of_vm[file.vm]) for file in files
        ]
        return self._checker.verdict(still_open)

    def findings(self) -> list[Finding]:
        """The findings of the verdict."""
        return list(self.verdict().findings)

    def saved(self, vcpu: Vcpu) -> int:
        """Declare that the vCPU's state now is a save; returns its label for ``restored``. Not an ioctl.

        The order checker then compares the whole state, also registers that the VMM did not read. Raises UsageError
        for a vCPU that is not initialised or not of this Kvm.

        >>> import kvmabi
        >>> with kvmabi.open(host="no-sve-no-sme") as kvm:
        ...     source, target = kvm.create_vm().create_vcpu(0), kvm.create_vm().create_vcpu(0)
        ...     source.init()
        ...     label = kvm.saved(source)
        ...     saved = {id: source[id] for id in source.reg_list()}
        ...     target.init()
        ...     for id, value in saved.items():
        ...         target[id] = value
        ...     kvm.restored(target, label)
        ...     [event.what for event in kvm.log.events if event.kind is kvmabi.events.Kind.MARK]
        ['saved', 'restored']
        """
        self._declare("saved", vcpu, self._next_label)
        self._next_label += 1
        return self._next_label - 1

    def restored(self, vcpu: Vcpu, label: int) -> None:
        """Declare that what was written to the vCPU since its last guest entry restores the save ``label``.

        The label is one that ``saved`` returned, or a number of 32 bits that a program in C chose (``kvmabi/mark.h``).
        Raises UsageError as ``saved``, and for a label that is neither.
        """
        if not isinstance(label, int) or not 0 <= label < self._next_label:
            raise UsageError(f"a label is what Kvm.saved returned, not {label!r:.40}")
        self._declare("restored", vcpu, label)

    def _declare(self, what: str, vcpu: Vcpu, label: int) -> None:
        if vcpu.kvm is not self:
            raise UsageError(f"{vcpu!r} belongs to another Kvm")
        file = self.vcpu_file(vcpu.fd)
        if file.vcpu.map is None:
            raise UsageError(f"{vcpu!r} is not initialised: call init() first")
        file.vm.declare(Mark(what, file.vcpu.index, label))
        self.answered()

    def file(self, fd: int | HasFileno) -> DeviceFile:
        """The device file behind a descriptor of this Kvm. Raises KvmError, EBADF, for any other."""
        return self._descriptors.file(fd)

    def vcpu_file(self, fd: int | HasFileno) -> VcpuFile:
        """The file behind a vCPU's descriptor. Raises UsageError for another kind of file."""
        file = self.file(fd)
        if not isinstance(file, VcpuFile):
            raise UsageError(f"file descriptor {fd} is not a vCPU")
        return file

    def open_vcpus(self) -> list[tuple[int, VcpuFile]]:
        """Every open vCPU of every VM: its descriptor and its file."""
        return [(fd, file) for fd, file in self._descriptors.handed_out() if isinstance(file, VcpuFile)]

    def vcpu_model(self, fd: int) -> VcpuModel:
        """The modelled vCPU behind a vCPU's descriptor. Raises UsageError for another kind of file."""
        return self.vcpu_file(fd).vcpu

    def close(self, fd: int | None = None) -> None:
        """Close one descriptor of this Kvm, or (None) all that it handed out.

        As in the kernel, a VM is kept by its vCPUs and devices. A file is closed with the descriptor that this Kvm
        handed out, even if there are duplicates of it.
        """
        if fd is None:
            self._descriptors.close_all()
            self._memory.close()
        else:
            self._descriptors.close(fd)

    def __enter__(self) -> Kvm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Kvm of host {self.host.name} under {self.kernel.label}, fd {self.fd}>"

    def _do_on_copy(self, file: DeviceFile, request: int, arg: Any, view: memoryview) -> int | bytes:
        """An ioctl on a copy with room to spare: accesses beyond a short buffer stay inside the copy."""
        if view.readonly and not isinstance(arg, bytes):
            raise UsageError(ARGUMENT_KINDS)
        copy = uapi.ffi.new("char[]", max(len(view), SMALL_BYTES))
        uapi.ffi.memmove(copy, view, len(view))
        result = self._do(file, request, _address(copy))
        changed = bytes(uapi.ffi.buffer(copy, len(view)))
        if isinstance(arg, bytes):
            return changed
        view[:] = changed
        return result

    def _do(self, file: DeviceFile, request: int, arg: int) -> int:
        answer = vcpuruns.settled(file, file.ioctl(request, arg, self.memory))
        if self.log.asked:
            self.answered()
        if isinstance(answer, int):
            return answer
        if isinstance(answer, PlainFile):
            return answer.fd
        if not isinstance(answer, DeviceFile):
            raise self.failure(answer)
        fd = self._descriptors.install(answer)
        if answer.fd_place is None:
            return fd
        self.memory.write(arg + answer.fd_place, fd.to_bytes(4, "little"))
        return 0

    def answered(self) -> None:
        """An ioctl is answered: fill the origins that watchers asked for meanwhile."""
        for origin in self.log.take_asked():
            callers.fill(origin)

    def failure(self, answer: Answer) -> KvmError:
        """The exception for an ioctl that failed; one that waits for a signal fails when the signal has come."""
        if isinstance(answer, Wait):
            wait_for_signal(answer.sigmask)
        assert isinstance(answer, Refused | Wait)
        return answer.error()


class Vm:
    """A VM of a Kvm: ``fd`` is its file descriptor."""

    def __init__(self, kvm: Kvm, fd: int) -> None:
        self.kvm = kvm
        self.fd = fd
        self.number = kvm.file(fd).vm_number

    def create_vcpu(self, index: int) -> Vcpu:
        """KVM_CREATE_VCPU. Errors: EEXIST, EINVAL."""
        return Vcpu(self, int(self.kvm.ioctl(self.fd, uapi.KVM_CREATE_VCPU, index)))

    def vcpus(self) -> list[Vcpu]:
        """The VM's vCPUs whose descriptors are open, by their numbers."""
        files = self.kvm.open_vcpus()
        mine = [Vcpu(self, fd) for fd, file in files if file.vm_number == self.number]
        return sorted(mine, key=lambda vcpu: vcpu.index)

    def close(self) -> None:
        """Close the VM's file descriptor."""
        self.kvm.close(self.fd)

    def __repr__(self) -> str:
        return f"<Vm {self.number}, fd {self.fd}>"


class Vcpu:
    """A vCPU: ``fd`` is its file descriptor. Registers are named as in ``kvmabi reg``, or given by ID."""

    def __init__(self, vm: Vm, fd: int) -> None:
        self.vm = vm
        self.kvm = vm.kvm
        self.fd = fd
        self._file = vm.kvm.vcpu_file(fd)
        self.index = self._file.vcpu.index
        self._run_page: vcpuruns.Page | None = None

    def init(self, features: Iterable[str] = (), *, target: int | None = None) -> None:
        """KVM_ARM_VCPU_INIT with features by name ("sve", "sme", "pmu_v3" …). Errors: EINVAL, ENOENT."""
        init = uapi.ffi.new("struct kvm_vcpu_init *")
        init.target = (self.kvm.kernel.target if target is None else target) & WORD
        bits = feature_bits(self.kvm.kernel, features)
        init.features = feature_words(bits)
        self._ioctl(uapi.KVM_ARM_VCPU_INIT, init)

    def finalize(self, feature: int = uapi.KVM_ARM_VCPU_VEC) -> None:
        """KVM_ARM_VCPU_FINALIZE: fixes both vector lengths. Errors: ENOEXEC, EINVAL, EPERM."""
        self._ioctl(uapi.KVM_ARM_VCPU_FINALIZE, uapi.ffi.new("int *", uapi.ffi.cast("int", feature)))

    def reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the IDs of the visible registers, in the kernel's order. Errors: ENOEXEC, EPERM."""
        room = USUAL_IDS
        while True:
            ids = uapi.ffi.new("struct kvm_reg_list *", {"n": room, "reg": room})
            try:
                self._ioctl(uapi.KVM_GET_REG_LIST, ids)
            except KvmError as error:
                if error.name != "E2BIG":
                    raise
                room = ids.n
                continue
            return list(uapi.ffi.unpack(ids.reg, ids.n)) if ids.n else []

    def names(self) -> list[str]:
        """The names of the visible registers, in the kernel's order."""
        return [regid.name_of(id) for id in self.reg_list()]

    def __getitem__(self, register: str | int) -> bytes:
        """KVM_GET_ONE_REG: the register's value, as many bytes as its ID says, the lowest first."""
        id = regid.parse(register) if type(register) is str else _id(register)
        buffer = Payload(UNSET_BUFFER)
        file = self._file if self._file.is_open else self.kvm.vcpu_file(self.fd)
        answer = file.get_register(id, buffer, self.kvm.memory)
        if file.log.asked:
            self.kvm.answered()
        if answer != 0 and (answer := vcpuruns.settled(file, answer)) != 0:
            raise self.kvm.failure(answer)
        return UNSET_BUFFER[: size_of(id)] if buffer.given is None else buffer.given

    def __setitem__(self, register: str | int, value: bytes | int) -> None:
        """KVM_SET_ONE_REG: bytes as long as the register, or a number of that many bytes."""
        id = _id(register)
        size_bytes = size_of(id)
        if isinstance(value, int):
            try:
                data = value.to_bytes(size_bytes, "little")
            except OverflowError:
                raise UsageError(f"{regid.name_of(id)}: {value:#x} does not fit into {size_bytes} bytes") from None
        else:
            try:
                data = bytes(memoryview(value))
            except TypeError:
                raise UsageError(f"{regid.name_of(id)}: takes bytes or a number") from None
        if len(data) != size_bytes:
            raise UsageError(f"{regid.name_of(id)}: has {size_bytes} bytes, {len(data)} were given")
        file = self._file if self._file.is_open else self.kvm.vcpu_file(self.fd)
        answer = file.set_register(id, Payload(data + MORE), self.kvm.memory)
        if file.log.asked:
            self.kvm.answered()
        if answer != 0 and (answer := vcpuruns.settled(file, answer)) != 0:
            raise self.kvm.failure(answer)

    def __contains__(self, register: str | int) -> bool:
        """Whether KVM_GET_REG_LIST names the register now."""
        return _id(register) in self.reg_list()

    def __iter__(self) -> Iterator[int]:
        """The IDs of the visible registers, in the kernel's order."""
        return iter(self.reg_list())

    def read(self, register: str | int) -> int:
        """A register's value as a number."""
        return int.from_bytes(self[register], "little")

    def run(self, *, immediate_exit: bool = False) -> Any:
        """KVM_RUN that a signal ends as soon as it would wait: the guest was entered; raises KvmError, EINTR.

        With ``immediate_exit`` the guest is never entered, as kvm_run.immediate_exit has it: EINTR, too. With a
        ``guest`` it returns ``kvm_run`` at an exit to userspace, and raises GuestError if the script fails.
        """
        file = self.kvm.vcpu_file(self.fd)
        answer = vcpuruns.run_once(file, self.kvm.memory, immediate_exit=immediate_exit)
        self.kvm.answered()
        vcpuruns.check(file, answer)
        return self.kvm_run

    @property
    def guest(self) -> GuestFunction | OnKernel | None:
        """What runs from the next KVM_RUN on: a generator function (kvmabi.guests), ``OnKernel``, or None: it idles."""
        return vcpuruns.guest_of(self.kvm.vcpu_file(self.fd))

    @guest.setter
    def guest(self, guest: GuestFunction | OnKernel | None) -> None:
        vcpuruns.give_guest(self.kvm.vcpu_file(self.fd), guest)

    @property
    def kvm_run(self) -> Any:
        """The vCPU's struct kvm_run, as a VMM maps it: a cffi pointer that is valid as long as this object lives."""
        if self._run_page is None:
            self._run_page = vcpuruns.Page(self.kvm.vcpu_file(self.fd))
        return self._run_page.pointer

    def __repr__(self) -> str:
        mode = f", {self._file.mode}" if str(self._file.mode) else ""
        return f"<Vcpu {self.index} of VM {self.vm.number}, fd {self.fd}{mode}>"

    def _ioctl(self, request: int, arg: Any) -> None:
        self.kvm.ioctl(self.fd, request, arg)


def _id(register: str | int) -> int:
    if isinstance(register, str):
        return regid.parse(register)
    if not isinstance(register, int) or not 0 <= register < 1 << 64:
        raise UsageError(f"a register is a name or an ID of 64 bits, not {register!r:.40}")
    return register


def _address(arg: Any) -> int:
    """The address of a cffi object, or the one that it holds."""
    try:
        return int(uapi.ffi.cast(ADDRESS, arg))
    except TypeError as error:
        raise UsageError(f"{ARGUMENT_KINDS}: {error}") from None


def open_kvm(
    *,
    host: str | Host = "sme-demo",
    kernel: str | Kernel | None = None,
    kept_events: int = KEPT,
    checked: bool = True,
    ignored: Iterable[int] = (),
    faults: Iterable[str] = (),
    fault_seed: int = 0,
) -> Kvm:
    """Open /dev/kvm of ``host`` under ``kernel``: names of built-in profiles, files, or loaded profiles.

    Without ``kernel`` it is the one that the host was recorded with. ``kept_events`` is how many events ``log.events``
    holds, ``checked`` whether the order checker watches, ``ignored`` the IDs of registers that findings leave out.
    ``faults`` are rules by which ioctls fail or are late ("SET_ONE_REG za.h[3] EINTR once", see kvmabi.faults),
    ``fault_seed`` decides where a rule has a probability. Raises UsageError that lists the choices.
    """
    chosen_host = load_host(host)
    chosen_kernel = load_kernel(chosen_host.kernel if kernel is None else kernel)
    rules = Faults.parse(faults, ioctl_names(), fault_seed)
    return Kvm(chosen_host, chosen_kernel, kept_events=kept_events, checked=checked, ignored=ignored, faults=rules)
