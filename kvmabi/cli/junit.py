# SPDX-License-Identifier: MIT
"""JUnit's XML, as CI systems read it: a suite for a command, a case for each thing that it judged.

The form has no standard. This is the part that all readers share: ``testsuites`` / ``testsuite`` / ``testcase`` with
``failure`` or ``skipped``. Characters that XML 1.0 cannot hold (https://www.w3.org/TR/xml/#charsets) are written as
escapes, such as ``\\x1b``, and the rest of what is not ASCII as references, so that the text means the same in every
encoding. There are no CDATA sections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, indent, tostring

FORBIDDEN = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 does not allow; and DEL, the C1 controls and CR, which readers change or terminals obey."""


@dataclass(frozen=True)
class Case:
    """One thing that was judged. It passed, unless ``failure`` or ``skipped`` says in a line why not.

    ``group`` is shown as the case's class, ``kind`` as the type of its failure. ``details`` is the text of the
    failure, in lines, ``output`` that of a case that passed. ``seconds`` is how long it took.
    """

    group: str
    name: str
    seconds: float = 0.0
    failure: str = ""
    kind: str = ""
    details: str = ""
    skipped: str = ""
    output: str = ""


@dataclass(frozen=True)
class Suite:
    """What one command judged. ``output`` is text for readers that belongs to no case."""

    name: str
    cases: Sequence[Case]
    output: str = ""


def write(suite: Suite) -> str:
    r"""Returns a suite as XML, without a final newline.

    >>> print(write(Suite("kvmabi run", [Case("vm", "VM 1", failure="lost \x1b]]>")])))
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites>
      <testsuite name="kvmabi run" tests="1" failures="1" errors="0" skipped="0" time="0.000">
        <testcase classname="vm" name="VM 1" time="0.000">
          <failure message="lost \x1b]]&gt;" type="failure" />
        </testcase>
      </testsuite>
    </testsuites>
    """
    root = Element("testsuites")
    below = SubElement(root, "testsuite", _counts(suite))
    taken: set[tuple[str, str]] = set()
    for case in suite.cases:
        _add(below, case, _unused(case, taken))
    if suite.output:
        SubElement(below, "system-out").text = escape(suite.output)
    indent(root)
    written: bytes = tostring(root, encoding="us-ascii", xml_declaration=False)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{written.decode()}'


def escape(text: str) -> str:
    r"""Returns a text with escapes in place of the characters that XML cannot hold.

    >>> escape("a\x00b")
    'a\\x00b'
    """
    return FORBIDDEN.sub(lambda match: ascii(match[0])[1:-1] if match[0] != "\r" else r"\x0d", text)


def _counts(suite: Suite) -> dict[str, str]:
    """Returns the attributes of a suite: its name, and how many of its cases passed, failed and were skipped."""
    return {
        "name": escape(suite.name),
        "tests": str(len(suite.cases)),
        "failures": str(sum(bool(case.failure) for case in suite.cases)),
        "errors": "0",
        "skipped": str(sum(bool(case.skipped) and not case.failure for case in suite.cases)),
        "time": f"{sum(case.seconds for case in suite.cases):.3f}",
    }


def _unused(case: Case, taken: set[tuple[str, str]]) -> str:
    """Returns the case's name, with a number if another one has it: some readers drop cases of equal names."""
    name, number = case.name, 1
    while (case.group, name) in taken:
        number += 1
        name = f"{case.name} ({number})"
    taken.add((case.group, name))
    return name


def _add(suite: Element, case: Case, name: str) -> None:
    seconds = f"{case.seconds:.3f}"
    element = SubElement(suite, "testcase", classname=escape(case.group), name=escape(name), time=seconds)
    if case.failure:
        kind = escape(case.kind or "failure")
        failure = SubElement(element, "failure", message=escape(case.failure), type=kind)
        failure.text = escape(case.details) or None
    elif case.skipped:
        SubElement(element, "skipped", message=escape(case.skipped))
    if case.output:
        SubElement(element, "system-out").text = escape(case.output)
