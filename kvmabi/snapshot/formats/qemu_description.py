# SPDX-License-Identifier: MIT
"""The JSON description at the end of a QEMU migration stream: the devices' fields and sizes, as they were written.

The description is as hostile as the rest of the file: its length, depth and number of objects are limited before it
is parsed, and nothing is believed that the bytes of the stream do not confirm. Descriptions of one fleet are mostly
equal, so parsed ones are kept by their text.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

from kvmabi.snapshot.source import BadBlob

MOST_TEXT_BYTES: Final = 4 << 20
MOST_OBJECTS: Final = 60_000
MOST_COMMAS: Final = 200_000
MOST_DEPTH: Final = 40
MOST_SECTION_BYTES: Final = 24 << 20
MOST_VALUES_BYTES: Final = 1 << 20
"""The largest section whose fields are read one by one."""
MOST_NAME_BYTES: Final = 255
KEPT_TEXT_BYTES: Final = 1 << 16
KEPT_DESCRIPTIONS: Final = 24
MOST_BUFFERS: Final = 1024
"""How many buffers of one field are read one by one."""
SUBSECTION: Final = 5

_CODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class Field(NamedTuple):
    """A field of a section: ``items`` items of ``item_bytes`` at ``at``, in each of ``rows`` structures.

    An opaque one is bytes, whatever its size.
    """

    name: str
    at: int
    item_bytes: int
    items: int
    rows: int = 1
    row_bytes: int = 0
    opaque: bool = False


class Device:
    """A section as it is described. ``head`` is what follows the section ID, ``marks`` the headers of subsections.

    ``size_bytes`` is the size of the data between head and footer; ``marks`` are places in it and bytes due there.
    """

    def __init__(self, name: str, instance_id: int, version: int) -> None:
        encoded = name.encode("utf-8", "surrogatepass")
        if len(encoded) > MOST_NAME_BYTES or not 0 <= instance_id < 1 << 32 or not 0 <= version < 1 << 32:
            raise BadBlob("the description names a section that no stream can hold", rule="description")
        self.name = name
        self.instance_id = instance_id
        self.version = version
        self.head = bytes([len(encoded)]) + encoded + instance_id.to_bytes(4, "big") + version.to_bytes(4, "big")
        self.size_bytes = 0
        self.fields: list[Field] = []
        self.marks: list[tuple[int, bytes]] = []
        self.types: dict[str, str] = {}

    def add(self, name: str, at: int, item_bytes: int, count: int) -> None:
        """Add a field that stands once."""
        self.fields.append(Field(name, at, item_bytes, count))

    def fits(self, data: bytes, at: int = 0) -> bool:
        """Whether the headers of subsections stand in ``data`` where they are expected."""
        return all(data.startswith(mark, at + place) for place, mark in self.marks)

    def values(self, data: bytes) -> dict[str, Any]:
        """The fields by name: a number, a list of numbers, or bytes (in hex) for a buffer."""
        if self.size_bytes > MOST_VALUES_BYTES or len(data) != self.size_bytes:
            return {}
        layout, places = self._compiled
        numbers = layout.unpack(data)
        values: dict[str, Any] = {}
        for name, begin, count, step in places:
            value = numbers[begin] if count == 1 else list(numbers[begin : begin + count * step : step])
            values[name] = value.hex() if isinstance(value, bytes) else value
        return values

    @cached_property
    def _compiled(self) -> tuple[Struct, list[tuple[str, int, int, int]]]:
        """The section as one structure, and per name its first value, number of values and distance of them."""
        codes: list[str] = []
        places: list[tuple[str, int, int, int]] = []
        at = values = 0
        fields = iter(self.fields)
        field = next(fields, None)
        while field is not None:
            codes.append(f"{field.at - at}x")
            row = [field]
            field = next(fields, None)
            while field is not None and row[0].rows > 1 and field.at < row[0].at + row[0].row_bytes:
                row.append(field)
                field = next(fields, None)
            row_codes, place, begin = "", row[0].at, values
            for member in row:
                row_codes += f"{member.at - place}x{_code(member)}"
                place = member.at + member.item_bytes * member.items
            row_values = sum(_values(member) for member in row)
            for member in row:
                rows_of = (member.rows, row_values) if member.rows > 1 else (_values(member), 1)
                places.append((member.name, begin, *rows_of))
                begin += _values(member)
            if row[0].rows > 1:
                row_codes += f"{row[0].at + row[0].row_bytes - place}x"
            codes.append(row_codes * row[0].rows)
            values += row_values * row[0].rows
            at = row[0].at + row[0].rows * row[0].row_bytes if row[0].rows > 1 else place
        codes.append(f"{self.size_bytes - at}x")
        return Struct(">" + "".join(codes)), places


class Description(NamedTuple):
    """All that is described, in the order of the stream."""

    devices: list[Device]
    page_bytes: int
    describes_configuration: bool


def described(text: bytes) -> Description:
    """The parsed description. Raises BadBlob for one that is too large, nested too deeply, or not one."""
    if len(text) > MOST_TEXT_BYTES:
        raise BadBlob(f"the description is larger than {MOST_TEXT_BYTES >> 20} MiB", rule="too-large")
    return _kept(text) if len(text) <= KEPT_TEXT_BYTES else _parsed(text)


@lru_cache(KEPT_DESCRIPTIONS)
def _kept(text: bytes) -> Description:
    return _parsed(text)


def _parsed(text: bytes) -> Description:
    _limit(text)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadBlob(f"the description is not JSON: {error}", rule="description") from None
    if not isinstance(table, dict):
        raise BadBlob("the description is not an object", rule="description")
    devices = [_device(row) for row in _list(table, "devices")]
    page_bytes = table.get("page_size")
    return Description(devices, page_bytes if isinstance(page_bytes, int) else 0, "configuration" in table)


def _limit(text: bytes) -> None:
    """Raises BadBlob for a text that would cost more to parse than any description does."""
    brackets = text.translate(None, _NO_BRACKETS)
    if brackets.count(b"{") > MOST_OBJECTS or text.count(b",") > MOST_COMMAS:
        raise BadBlob("the description holds too many fields", rule="too-large")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_DEPTH:
            raise BadBlob("the description is nested too deeply", rule="too-large")


def _device(row: Any) -> Device:
    device = Device(_text(row, "name"), _number(row, "instance_id"), _number(row, "version", 0))
    device.size_bytes = _add(device, row, 0, "", 1, 0)
    if "fields" not in row and "size" in row:  # a device that writes itself: only its size is described
        device.size_bytes = _number(row, "size")
    if device.size_bytes > MOST_SECTION_BYTES:
        raise BadBlob(f"the description of {device.name} is larger than a section can be", rule="description")
    return device


def _add(device: Device, table: Any, at: int, prefix: str, rows: int, row_bytes: int) -> int:
    """Add the fields and subsections of one structure that begins at ``at``; returns where it ends."""
    indices: dict[str, int] = {}
    for field in _list(table, "fields"):
        name, item_bytes, count = _text(field, "name"), _number(field, "size"), _number(field, "array_len", 1)
        if item_bytes * count > MOST_SECTION_BYTES:
            raise BadBlob(f"the description of {device.name} is larger than a section can be", rule="description")
        if "index" in field:
            indices[name] = _number(field, "index")
            path = f"{prefix}{name}[{indices[name]}]"
        elif name in indices:  # the last of a list of unequal ones has no index
            path = f"{prefix}{name}[{indices[name] + 1}]"
        else:
            path = prefix + name
        nested = field.get("struct")
        if nested is None:
            if item_bytes and count:
                whole = (item_bytes * count, 1) if rows > 1 else (item_bytes, count)
                opaque = rows > 1 and count > 1
                device.fields.append(Field(path, at, *whole, rows, row_bytes, opaque))
            if isinstance(field.get("type"), str):
                device.types[path] = field["type"]
        elif count == 1 or (count > 1 and rows == 1):
            last = (count, item_bytes) if count > 1 else (rows, row_bytes)
            end = _add(device, nested, at, f"{path}.", *last)
            if end != at + item_bytes:
                raise BadBlob(f"the parts of {device.name}: {path} do not sum up to its size", rule="description")
        at += item_bytes * count
    for subsection in _list(table, "subsections"):
        name = _text(subsection, "vmsd_name")
        encoded = name.encode("utf-8", "surrogatepass")
        if len(encoded) > MOST_NAME_BYTES:
            raise BadBlob("the description names a subsection that no stream can hold", rule="description")
        version = _number(subsection, "version") & 0xFFFFFFFF
        mark = bytes([SUBSECTION, len(encoded)]) + encoded + version.to_bytes(4, "big")
        if rows == 1:
            device.marks.append((at, mark))
        at = _add(device, subsection, at + len(mark), prefix, rows, row_bytes)
    return at


def _code(field: Field) -> str:
    if field.item_bytes in _CODES and not field.opaque:
        return f"{field.items}{_CODES[field.item_bytes]}"
    return f"{field.item_bytes}s" * _values(field) if _values(field) > 1 else f"{field.item_bytes * field.items}s"


def _values(field: Field) -> int:
    return field.items if (field.item_bytes in _CODES and not field.opaque) or field.items <= MOST_BUFFERS else 1


def _list(table: Any, key: str) -> list[Any]:
    rows = table.get(key, []) if isinstance(table, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadBlob(f"{key} of the description is not a list of objects", rule="description")
    return rows


def _text(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise BadBlob(f"{key} of a part of the description is not text", rule="description")
    return value


def _number(row: dict[str, Any], key: str, default: int | None = None) -> int:
    value = row.get(key, default)
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise BadBlob(f"{key} of a part of the description is not a number", rule="description")
    return value
