# SPDX-License-Identifier: MIT
"""The JSON Schemas of the commands' output, docs/reference/schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = Path(__file__).parents[2] / "docs/reference/schemas"
SUFFIX = ".schema.json"
SCHEMAS: dict[str, Any] = {
    path.name.removesuffix(SUFFIX): json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob(f"*{SUFFIX}"))
}
REGISTRY: Registry[Any] = Registry().with_resources(
    (f"{name}{SUFFIX}", Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)


def validate(name: str, text: str) -> Any:
    """Fails unless the text is one JSON value that the schema allows; returns the value."""
    value = json.loads(text)
    Draft202012Validator(SCHEMAS[name], registry=REGISTRY).validate(value)
    return value
