"""A configuration back to text: every default filled in, readable as a configuration again."""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from enum import Enum
from typing import Any

import yaml

from headrace.config.load import Loaded
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
    Value,
    section_of,
)
from headrace.core.quantities import format_duration, format_size


def as_yaml(loaded: Loaded) -> str:
    """For people: units written out; secrets named, never shown."""
    lines = [f"# {loaded.source}, with every default filled in"]
    lines += [f"# {where}: ***" for where in _secret_places(loaded)]
    body = yaml.safe_dump(plain(loaded.config, for_people=True), sort_keys=False, width=96)
    return "\n".join([*lines, body])


def as_json(loaded: Loaded) -> str:
    """For programs: seconds and bytes as numbers."""
    return json.dumps(plain(loaded.config, for_people=False), indent=2) + "\n"


def _secret_places(loaded: Loaded) -> list[str]:
    places = [f"key of the engines of pool {name}" for name in loaded.secrets.upstream]
    if loaded.secrets.control_token is not None:
        places.append("token of the control plane")
    if loaded.keys is not None:
        places.append(f"{len(loaded.keys)} API keys")
    return places


def plain(config: Config, *, for_people: bool) -> dict[str, Any]:
    """Mappings, lists and plain values, as a file could hold them."""
    return _plain(section_of(Config), config, for_people=for_people)


def plain_value(entry: Entry) -> Value:
    """The default of an entry as a person would write it."""
    return _plain(entry.shape, entry.default, for_people=True)


def _plain(shape: Shape, value: Value, *, for_people: bool) -> Value:
    if value is None:
        return None
    match shape:
        case Section():
            return {
                entry.key: _plain(entry.shape, getattr(value, entry.field), for_people=for_people)
                for entry in shape.entries.values()
            }
        case Several(item):
            return [_plain(item, each, for_people=for_people) for each in value]
        case Named(item):
            return {name: _plain(item, each, for_people=for_people) for name, each in value.items()}
        case Either(text, section):
            return _plain(section if is_dataclass(value) else text, value, for_people=for_people)
        case Scalar():
            return _plain_scalar(shape, value, for_people=for_people)


def _plain_scalar(shape: Scalar, value: Value, *, for_people: bool) -> Value:
    if isinstance(value, Enum):
        return value.value
    if for_people and shape.kind is Kind.DURATION:
        return format_duration(value)
    if for_people and shape.kind is Kind.SIZE:
        return format_size(value)
    return value
