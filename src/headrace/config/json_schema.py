"""The JSON Schema of `headrace.yaml`, for editors: made from the same shapes that bind it."""

from __future__ import annotations

import json
from typing import Any

from headrace.config.render import plain_value
from headrace.config.schema import Config
from headrace.config.shapes import (
    Either,
    Entry,
    Kind,
    Named,
    Scalar,
    Section,
    Several,
    Shape,
    section_of,
)
from headrace.core.quantities import DURATION_PATTERN, SIZE_PATTERN

_TYPES = {
    Kind.TEXT: "string",
    Kind.WHOLE: "integer",
    Kind.NUMBER: "number",
    Kind.FLAG: "boolean",
    Kind.DURATION: "number",
    Kind.SIZE: "integer",
}
_PATTERNS = {Kind.DURATION: DURATION_PATTERN, Kind.SIZE: SIZE_PATTERN}


def json_schema() -> dict[str, Any]:
    """The schema, JSON Schema draft 2020-12."""
    definitions: dict[str, Any] = {}
    _of(section_of(Config), definitions)
    root = definitions.pop(Config.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headrace.yaml",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _of(shape: Shape, definitions: dict[str, Any]) -> dict[str, Any]:
    match shape:
        case Scalar():
            return _scalar(shape)
        case Several(item):
            return {"type": "array", "items": _of(item, definitions)}
        case Named(item):
            return {"type": "object", "additionalProperties": _of(item, definitions)}
        case Either(text, section):
            return {"anyOf": [_scalar(text), _of(section, definitions)]}
        case Section():
            return _section(shape, definitions)


def _section(section: Section, definitions: dict[str, Any]) -> dict[str, Any]:
    name = section.cls.__name__
    if name not in definitions:
        definitions[name] = {}  # so that a section inside itself would end
        definitions[name] = _definition(section, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _definition(section: Section, definitions: dict[str, Any]) -> dict[str, Any]:
    entries = section.entries.values()
    definition = {
        "type": "object",
        "description": section.doc,
        "properties": {entry.key: _entry(entry, definitions) for entry in entries},
        "required": [entry.key for entry in entries if entry.required],
        "additionalProperties": False,
    }
    if section.short is None:
        return definition
    short = _of(section.entries[section.short].shape, definitions)
    alone = [short["items"]] if short.get("type") == "array" else []
    return {"anyOf": [definition, short, *alone]}


def _entry(entry: Entry, definitions: dict[str, Any]) -> dict[str, Any]:
    schema = _of(entry.shape, definitions)
    if entry.nullable or isinstance(entry.shape, Section | Named):
        schema = {"anyOf": [schema, {"type": "null"}]}
    if entry.doc:
        schema = {**schema, "description": entry.doc.replace("\n", " ")}
    if not entry.required and isinstance(entry.shape, Scalar):
        schema = {**schema, "default": plain_value(entry)}
    return schema


def _scalar(shape: Scalar) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _TYPES[shape.kind]}
    bounds = {
        "minimum": shape.minimum,
        "maximum": shape.maximum,
        "exclusiveMinimum": shape.above,
        "exclusiveMaximum": shape.below,
        "enum": list(shape.choices) or None,
    }
    schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    if shape.parameters:
        pattern = f"^({'|'.join(shape.choices)})\\s*:"
        return {"anyOf": [schema, {"type": "string", "pattern": pattern}]}
    if shape.kind in _PATTERNS:
        return {"anyOf": [schema, {"type": "string", "pattern": _PATTERNS[shape.kind]}]}
    return schema


def schema_text() -> str:
    """The schema as the shipped file holds it."""
    return json.dumps(json_schema(), indent=2) + "\n"
