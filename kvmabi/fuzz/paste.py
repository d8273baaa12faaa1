# SPDX-License-Identifier: MIT
"""A finding as a case of the conformance suite: names in place of numbers, and the kernel's answers."""

from __future__ import annotations

from kvmabi import gicnames, hexruns, regid, uapi
from kvmabi.errors import UsageError
from kvmabi.fuzz.hunt import Finding
from kvmabi.profiles import Kernel
from kvmabi.steps.arguments import WHOLE
from kvmabi.steps.grammar import LETTERS, ON_REGISTER
from kvmabi.steps.hostfeatures import HostFeatures

NUMBER_BYTES = 8


def case_text(finding: Finding, name: str, host_features: HostFeatures, kernel: Kernel) -> str:
    """Returns the finding as TOML, ready to be pasted into a file of cases; a comment has the model's answer."""
    lines = []
    for step, answer in zip(finding.steps, finding.expected, strict=True):
        line, wanted = _step(step, host_features, kernel), _answer(step, answer)
        lines.append(line if wanted == "OK" else f"{line} -> {wanted}")
    if finding.steps[-1].startswith("L "):
        lines[-1] = _list_line(finding, host_features, kernel)
    return "\n".join(
        [
            "[[case]]",
            f'name = "found.{name}"',
            'rule = "TODO: what this proves"',
            f'source = "Linux {host_features.release}, {host_features.kernel}"',
            'steps = """',
            *lines,
            f"# the model answers: {_answer(finding.steps[-1], finding.got[-1])[:120]}",
            '"""',
        ]
    )


def _step(step: str, host_features: HostFeatures, kernel: Kernel) -> str:
    """Returns a step as a case writes it, without what a recording appends to the step's words."""
    letter, *words = step.split()
    op = LETTERS[letter]
    words = words[: len(op.words)]
    if letter in "Ii":
        return _init(words, host_features, kernel)
    if letter in ON_REGISTER:
        id = int(words[1], 16)
        words[1] = _register(id)
        if letter == "S":
            words[2] = _value(words[2], uapi.KVM_REG_SIZE(id))
    if letter == "Y":
        words[2] = f"{WHOLE}{words[2]}"
    if letter in "hoq" and words[0].startswith("d"):
        words[1:3] = _attribute(int(words[1]), int(words[2], 16))
    if letter in "XAY":
        words[1] = uapi.IOCTL_NAMES.get(int(words[1], 16), f"0x{words[1]}")
        if letter == "X":
            words[2] = f"0x{words[2]}"
    return " ".join([op.word, *words])


def _init(words: list[str], host_features: HostFeatures, kernel: Kernel) -> str:
    vcpu, target, first, *others = words
    line = ["init", vcpu, _features(int(first, 16), kernel)]
    if int(target) != host_features.target:
        line.append(f"target {target}")
    line += [f"word {place} {int(word, 16):#x}" for place, word in enumerate(others, 1) if int(word, 16)]
    return " ".join(line)


def _features(word: int, kernel: Kernel) -> str:
    names = {feature.bit: name for name, feature in kernel.features.items()}
    return "+".join(names.get(bit, f"bit{bit}") for bit in range(32) if word >> bit & 1) or "none"


def _register(id: int) -> str:
    name = regid.name_of(id)
    try:
        return name if regid.parse(name) == id else f"{id:#x}"
    except UsageError:
        return f"{id:#x}"


def _attribute(group: int, attr: int) -> list[str]:
    """An attribute's name, or its group and number."""
    name = gicnames.name_of(group, attr)
    return [str(group), f"{attr:x}"] if "/" in name else [name]


def _value(data: str, size: int) -> str:
    raw = hexruns.expand(data)
    return f"={int.from_bytes(raw, 'little'):#x}" if size <= NUMBER_BYTES == max(len(raw), 8) else hexruns.compress(raw)


def _answer(step: str, answer: str) -> str:
    result, _, rest = answer.partition(" ")
    if step[0] == "G" and result == "OK":
        return f"OK {_value(rest, len(hexruns.expand(rest)))}"
    if step[0] in "Ll" and result != "OK":
        return answer
    if step[0] in "XAq" and result == "OK":
        return answer
    return result


def _list_line(finding: Finding, host_features: HostFeatures, kernel: Kernel) -> str:
    """Returns the line of a list, with what the kernel lists and the model does not, and the other way round."""
    line, expected, got = _step(finding.steps[-1], host_features, kernel), finding.expected[-1], finding.got[-1]
    theirs, ours = expected.split()[2:], got.split()[2:]
    missing = [_register(int(id, 16)) for id in theirs if id not in set(ours)]
    extra = [_register(int(id, 16)) for id in ours if id not in set(theirs)]
    if not expected.startswith("OK") or not got.startswith("OK"):
        return f"{line} -> {' '.join(expected.split()[:2])}"
    wanted = " ".join([*(["with", *missing] if missing else []), *(["without", *extra] if extra else [])])
    return f"{line} -> OK {wanted}" if wanted else f"{line} -> OK  # the same registers in another order"
