# SPDX-License-Identifier: MIT
"""The forms of output as other programs read them: JUnit's XML by an XML parser, SARIF by its schema."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from jsonschema import Draft202012Validator


def suite_of(text: str) -> ElementTree.Element:
    """The only test suite of a JUnit report."""
    root = ElementTree.fromstring(text.encode("ascii"))
    assert root.tag == "testsuites"
    (suite,) = root
    return suite


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    """An object of these properties, some of them required, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def several(items: Any, *, unique: bool = False) -> dict[str, Any]:
    return {"type": "array", "items": items, "uniqueItems": unique}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed("text", text=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
LOCATION = closed(
    physicalLocation=closed(
        "artifactLocation",
        artifactLocation=closed("uri", uri={"type": "string", "pattern": r"^[!-~]+$"}),
        region=closed("startLine", startLine={"type": "integer", "minimum": 1}),
    ),
    logicalLocations=several(
        closed("name", "fullyQualifiedName", "kind", name={}, fullyQualifiedName={}, kind=TEXT), unique=True
    ),
)
SCHEMA = closed(
    "version",
    "runs",
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs=several(
        closed(
            "tool",
            "results",
            tool=closed(
                "driver",
                driver=closed(
                    "name",
                    name={"const": "kvmabi"},
                    version=TEXT,
                    rules=several(
                        closed("id", id=TEXT, shortDescription=MESSAGE, fullDescription=MESSAGE, help=MESSAGE),
                        unique=True,
                    ),
                ),
            ),
            automationDetails=closed(id={"type": "string", "pattern": "/$"}),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            invocations=several(
                closed(
                    "executionSuccessful",
                    executionSuccessful={"type": "boolean"},
                    toolExecutionNotifications=several(closed("message", message=MESSAGE, level=LEVEL)),
                )
            ),
            results=several(
                closed(
                    "message",
                    ruleId=TEXT,
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=LEVEL,
                    message=MESSAGE,
                    locations=several(LOCATION),
                    stacks=several(
                        closed("frames", message=MESSAGE, frames=several(closed("location", location=LOCATION))),
                        unique=True,
                    ),
                )
            ),
        )
    ),
)
"""The part of the standard's schema that kvmabi writes: which properties there are, and which must be there."""


def run_of(text: str) -> Any:
    """The only run of a report that is as the standard requires."""
    log = json.loads(text.encode("ascii"))
    json.dumps(log, ensure_ascii=False).encode("utf-8")  # which has no lone surrogates
    Draft202012Validator(SCHEMA).validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    return run
