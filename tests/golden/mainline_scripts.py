# SPDX-License-Identifier: MIT
"""Named cases of the mainline records that follow one another on the same vCPU, as scripts of steps.

Each script yields, in the order of the recording, the type and name of a record and what the model gives for it.
What guest instructions did is not among them: the model runs none.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from golden.lab import BUFFER, STRUCT, Lab, LabVcpu
from golden.sme_players import BAD, SVE_VLS, Record
from kvmabi import uapi

X0 = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE
Z0, Z3, Z7 = (uapi.KVM_REG_ARM64_SVE_ZREG(n, 0) for n in (0, 3, 7))
P3, FFR = uapi.KVM_REG_ARM64_SVE_PREG(3, 0), uapi.KVM_REG_ARM64_SVE_FFR(0)
FIRMWARE, BITMAP = uapi.KVM_REG_ARM_FW_REG(0), uapi.KVM_REG_ARM_FW_FEAT_BMAP_REG(0)
PFR0, MIDR = uapi.ARM64_SYS_REG(3, 0, 0, 4, 0), uapi.ARM64_SYS_REG(3, 0, 0, 0, 0)
FILL = b"\xee"
"""What the recorder filled its memory with."""
NO_SUCH_IOCTL = 0xAEFF
ONE_QUADWORD = (1).to_bytes(64, "little")
Step = tuple[str, str, Record]


def err(case: str, got: str, value: bytes | None = None) -> Step:
    """What a record of type "err" has: an errno, and a value if one was read."""
    return "err", case, {"got": got} if value is None else {"got": got, "val": value}


def read(case: str, vcpu: LabVcpu, id: int, size: int) -> Step:
    """A get, and the first bytes of what it gave."""
    got = vcpu.get(id)
    return err(case, got, bytes(vcpu.memory.buffer[:size]) if got == "OK" else None)


def wrong_files(lab: Lab) -> Iterator[Step]:
    """Ioctls of one kind of file on another, and arguments that are not an address."""
    vm = lab.vm()
    lab.memory.put("struct kvm_one_reg", SVE_VLS, BUFFER)
    for case, file, request, arg in (
        ("KVM_GET_API_VERSION arg=1", lab.system, uapi.KVM_GET_API_VERSION, 1),
        ("KVM_ARM_PREFERRED_TARGET on system fd", lab.system, uapi.KVM_ARM_PREFERRED_TARGET, STRUCT),
        ("KVM_ARM_PREFERRED_TARGET bad pointer", vm, uapi.KVM_ARM_PREFERRED_TARGET, BAD),
        ("KVM_GET_ONE_REG on vm fd", vm, uapi.KVM_GET_ONE_REG, STRUCT),
        ("KVM_GET_ONE_REG on system fd", lab.system, uapi.KVM_GET_ONE_REG, STRUCT),
    ):
        yield err(case, lab.outcome(file, request, arg))


def several_vcpus(lab: Lab) -> Iterator[Step]:
    """A failed INIT does no harm, the vCPUs of a VM have the same features, and each has a number of its own."""
    vm = lab.vm()
    first = lab.vcpu(vm)
    yield err("VCPU_INIT bad pointer", first.ioctl(uapi.KVM_ARM_VCPU_INIT, BAD))
    yield err("VCPU_INIT bad target and unknown feature", first.init(1 << 31, 77))
    yield err("VCPU_INIT after a failed one", first.init("SVE+PSCI"))
    second = lab.vcpu(vm, 1)
    yield err("second vCPU, other features", second.init("PSCI"))
    yield err("second vCPU, same features", second.init("SVE+PSCI"))
    yield err("third vCPU, same features + POWER_OFF", lab.vcpu(vm, 2).init("SVE+PSCI+OFF"))
    for case, index in (("in use", 1), ("512", 512), ("100000", 100000)):
        yield err(f"CREATE_VCPU id {case}", lab.outcome(vm, uapi.KVM_CREATE_VCPU, index))


def before_init(lab: Lab) -> Iterator[Step]:
    """A vCPU that had no KVM_ARM_VCPU_INIT refuses nearly everything, before it looks at what it is given."""
    vcpu = lab.vcpu()
    result, count, _ = vcpu.reg_list(0)
    yield err("before INIT: GET_REG_LIST n=0", result)
    yield "n", "before INIT: GET_REG_LIST n=0", {"n": count}
    for case, got in (
        ("GET_REG_LIST bad pointer", vcpu.ioctl(uapi.KVM_GET_REG_LIST, BAD)),
        ("GET_ONE_REG x0", vcpu.get(X0)),
        ("SET_ONE_REG x0", vcpu.set(X0)),
        ("GET_ONE_REG bad id 0", vcpu.get(0)),
        ("GET_ONE_REG bad kvm_one_reg pointer", vcpu.ioctl(uapi.KVM_GET_ONE_REG, BAD)),
        ("GET_ONE_REG SVE_VLS", vcpu.get(SVE_VLS)),
        ("SET_ONE_REG SVE_VLS", vcpu.set(SVE_VLS)),
        ("FINALIZE(SVE)", vcpu.finalize()),
        ("FINALIZE(99)", vcpu.finalize(99)),
        ("FINALIZE bad pointer", vcpu.ioctl(uapi.KVM_ARM_VCPU_FINALIZE, BAD)),
        ("KVM_RUN", vcpu.ioctl(uapi.KVM_RUN, 0)),
        ("GET_MP_STATE", vcpu.ioctl(uapi.KVM_GET_MP_STATE)),
        ("GET_VCPU_EVENTS", vcpu.ioctl(uapi.KVM_GET_VCPU_EVENTS)),
        ("KVM_GET_REGS", vcpu.ioctl(uapi.KVM_GET_REGS)),
    ):
        yield err(f"before INIT: {case}", got)
    yield err("unknown vcpu ioctl", vcpu.ioctl(NO_SUCH_IOCTL))


def bad_buffers(lab: Lab) -> Iterator[Step]:
    """What a get and a set do where the buffer, or the struct, is not all there."""
    vcpu, memory = lab.vcpu(), lab.memory
    vcpu.init(0)
    vcpu.set(X0, 0x1122334455667788)
    memory.end_of_page(4)
    yield err("x0 GET buffer straddles unmapped page", vcpu.get(X0, addr=memory.base, fill=FILL))
    yield err("... bytes written before the fault", "OK", FILL * 4 + bytes(memory.buffer[:4]))
    yield err("x0 SET buffer straddles unmapped page", vcpu.set(X0, addr=memory.base))
    memory.end_of_page(None)
    yield read("... x0 afterwards", vcpu, X0, 8)
    for name, request in (("GET", uapi.KVM_GET_ONE_REG), ("SET", uapi.KVM_SET_ONE_REG)):
        yield err(f"kvm_one_reg struct itself at bad address {name}", vcpu.ioctl(request, BAD))
    yield err("x0 GET into misaligned buffer", vcpu.get(X0, addr=BUFFER + 1))


def other_values(lab: Lab) -> Iterator[Step]:
    """A set of another cache geometry, and the version of PSCI 0.2 after INIT."""
    vcpu = lab.vcpu()
    vcpu.init(0)
    ccsidr = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX
    value = int.from_bytes(vcpu.value(ccsidr), "little")
    yield err("demux CCSIDR[0] other value", vcpu.set(ccsidr, (value ^ 8).to_bytes(4, "little")))
    vcpu = lab.vcpu()
    vcpu.init("PSCI")
    yield read("PSCI_0_2: PSCI_VERSION default", vcpu, FIRMWARE, 8)


def sve_life(lab: Lab) -> Iterator[Step]:
    """From INIT with SVE over FINALIZE to INIT again: which step is allowed when, and what it leaves."""
    vcpu = lab.vcpu()
    result = vcpu.init("SVE")
    yield err("sve: INIT", result)
    if result != "OK":
        return
    yield from _before_finalize(vcpu)
    yield err("sve: FINALIZE bad pointer", vcpu.ioctl(uapi.KVM_ARM_VCPU_FINALIZE, BAD))
    yield err("sve: FINALIZE(SVE)", vcpu.finalize())
    yield err("sve: FINALIZE(SVE) again", vcpu.finalize())
    yield err("sve: FINALIZE(99) after", vcpu.finalize(99))
    yield from _after_finalize(vcpu)
    yield from _init_again(vcpu)


def _before_finalize(vcpu: LabVcpu) -> Iterator[Step]:
    when = "sve, before FINALIZE"
    yield read(f"{when}: GET SVE_VLS", vcpu, SVE_VLS, 64)
    yield err(f"{when}: SET SVE_VLS same", vcpu.set(SVE_VLS))
    yield err(f"{when}: GET SVE_VLS bad pointer", vcpu.get(SVE_VLS, addr=BAD))
    yield err(f"{when}: SET SVE_VLS bad pointer", vcpu.set(SVE_VLS, addr=BAD))
    yield err(f"{when}: SET SVE_VLS empty", vcpu.set(SVE_VLS, bytes(64)))
    yield err(f"{when}: SET SVE_VLS {{vq1}}", vcpu.set(SVE_VLS, ONE_QUADWORD))
    yield read("... GET SVE_VLS", vcpu, SVE_VLS, 8)
    yield err("... INIT again same features", vcpu.init("SVE"))
    yield read("... GET SVE_VLS after INIT again", vcpu, SVE_VLS, 8)
    yield err("... INIT again without SVE", vcpu.init(0))
    yield err(f"{when}: KVM_RUN (immediate_exit)", vcpu.run())
    vcpu.file.immediate_exit(False)
    yield err(f"{when}: KVM_RUN", vcpu.run())
    yield err(f"{when}: GET_MP_STATE", vcpu.ioctl(uapi.KVM_GET_MP_STATE))
    yield err(f"{when}: GET_VCPU_EVENTS", vcpu.ioctl(uapi.KVM_GET_VCPU_EVENTS))


def _after_finalize(vcpu: LabVcpu) -> Iterator[Step]:
    when = "sve, after FINALIZE"
    yield read(f"{when}: GET SVE_VLS", vcpu, SVE_VLS, 64)
    yield err(f"{when}: SET SVE_VLS same", vcpu.set(SVE_VLS))
    yield err(f"{when}: SET SVE_VLS empty", vcpu.set(SVE_VLS, bytes(64)))
    yield err(f"{when}: SET SVE_VLS {{vq1}}", vcpu.set(SVE_VLS, ONE_QUADWORD))
    yield err(f"{when}: SET SVE_VLS bad pointer", vcpu.set(SVE_VLS, addr=BAD))
    pattern = bytes(n ^ 0x5A for n in range(256))
    for name, kind, id, size in (("Z3", "Z", Z3, 256), ("P3", "P", P3, 32), ("FFR", "FFR", FFR, 32)):
        yield err(f"sve: SET {name} pattern ({size} bytes)", vcpu.set(id, pattern[:size]))
        stored = vcpu.value(id)
        same = next((n for n in range(size) if stored[n] != pattern[n]), size)
        zero = next((n for n in range(same, size) if stored[n]), size)
        yield "sticks", kind, {"bytes": same, "zero_up_to": zero}


def _init_again(vcpu: LabVcpu) -> Iterator[Step]:
    vcpu.set(X0, 0x1234)
    vcpu.set(Z7, b"\xab" * 256)
    yield err("sve, after FINALIZE: INIT again same features", vcpu.init("SVE"))
    yield read("... Z7", vcpu, Z7, 256)
    yield read("... x0", vcpu, X0, 8)
    yield read("... GET SVE_VLS", vcpu, SVE_VLS, 64)
    yield err("... SET SVE_VLS", vcpu.set(SVE_VLS))
    yield err("... FINALIZE(SVE)", vcpu.finalize())
    yield "n", "... GET_REG_LIST", {"n": vcpu.reg_list()[1]}
    yield err("sve, after FINALIZE: INIT again without SVE", vcpu.init(0))
    yield err("sve, after FINALIZE: INIT again + PTRAUTH", vcpu.init("SVE+PA+PG"))


def two_lengths(lab: Lab) -> Iterator[Step]:
    """Each vCPU of a VM has its own vector lengths, and is finalised separately."""
    vm = lab.vm()
    first, second = lab.vcpu(vm), lab.vcpu(vm, 1)
    if first.init("SVE") != "OK":
        return
    second.init("SVE")
    yield err("two vCPUs: vCPU0 SET SVE_VLS {vq1}", first.set(SVE_VLS, ONE_QUADWORD))
    yield read("two vCPUs: vCPU1 GET SVE_VLS", second, SVE_VLS, 8)
    yield err("two vCPUs: vCPU0 FINALIZE", first.finalize())
    yield err("two vCPUs: vCPU1 GET Z0 (not finalized)", second.get(Z0))
    yield err("two vCPUs: vCPU1 FINALIZE", second.finalize())
    yield err("two vCPUs: CREATE third, INIT late", lab.vcpu(vm, 2).init("SVE"))


def after_run(lab: Lab) -> Iterator[Step]:
    """What can still be changed after a vCPU has run, without SVE and, twice, with it."""
    for name, features, others in (
        ("run plain", "PSCI", "SVE+PSCI"),
        ("run sve", "SVE+PSCI", "PSCI"),
        ("run sve zcr", "SVE+PSCI", "PSCI"),
    ):
        vm = lab.vm()
        lab.memory.put("struct kvm_userspace_memory_region", 0, 0, 0x10000, 0x20000, 0x100000)
        yield err("SET_USER_MEMORY_REGION", lab.outcome(vm, uapi.KVM_SET_USER_MEMORY_REGION))
        vcpu = lab.vcpu(vm)
        if vcpu.init(features) != "OK":
            continue
        vcpu.finalize()
        yield err(f"{name}: KVM_RUN immediate_exit", vcpu.run())
        yield from _writes_after_run(vcpu)
        if "SVE" in features:
            vcpu.get(SVE_VLS)
            yield err("after KVM_RUN: SET SVE_VLS same", vcpu.set(SVE_VLS))
            yield err("after KVM_RUN: FINALIZE", vcpu.finalize())
        yield err("after KVM_RUN: INIT again same features", vcpu.init(features))
        yield err("after KVM_RUN: INIT again other features", vcpu.init(others))
        yield err("after KVM_RUN: second vCPU INIT", lab.vcpu(vm, 1).init(features))
    vcpu = lab.vcpu()
    if vcpu.init("PMU") == "OK":
        vcpu.file.immediate_exit(False)
        yield err("PMU_V3 without PMU_V3_INIT: KVM_RUN", vcpu.run())


def _writes_after_run(vcpu: LabVcpu) -> Iterator[Step]:
    value = vcpu.number(PFR0)
    yield err("after KVM_RUN: SET ID_AA64PFR0_EL1 same", vcpu.set(PFR0, value))
    yield err("after KVM_RUN: SET ID_AA64PFR0_EL1 EL0 field=1", vcpu.set(PFR0, value & ~15 | 1))
    yield err("after KVM_RUN: SET FW bmap 0 same", vcpu.set(BITMAP, vcpu.number(BITMAP)))
    yield err("after KVM_RUN: SET FW bmap 0 = 0", vcpu.set(BITMAP, 0))
    yield err("after KVM_RUN: SET FW bmap 0 = ~0", vcpu.set(BITMAP, (1 << 64) - 1))
    yield err("after KVM_RUN: SET PSCI_VERSION=2", vcpu.set(FIRMWARE, 2))
    midr = vcpu.number(MIDR)
    yield err("after KVM_RUN: SET MIDR_EL1 same", vcpu.set(MIDR, midr))
    yield err("after KVM_RUN: SET MIDR_EL1 other", vcpu.set(MIDR, midr ^ 1))
    yield err("after KVM_RUN: SET x0", vcpu.set(X0, 5))


SCRIPTS = (
    wrong_files, several_vcpus, before_init, bad_buffers, other_values, sve_life, two_lengths, after_run,
)  # fmt: skip


class Answers:
    """The answers of all scripts on a lab's host, in the order of the records."""

    def __init__(self, lab: Lab) -> None:
        self.by_case: defaultdict[tuple[str, str], deque[Record]] = defaultdict(deque)
        for script in SCRIPTS:
            for kind, case, answer in script(lab):
                self.by_case[kind, case].append(answer)

    def next(self, kind: str, case: str) -> Record | None:
        """The next answer to a record of this type and name; None if there is no (further) one."""
        answers = self.by_case.get((kind, case))
        return answers.popleft() if answers else None
