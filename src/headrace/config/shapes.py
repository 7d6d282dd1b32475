"""What a settings dataclass looks like in a file: derived from the dataclass, never declared.

The house's naming rule carries the meaning: a float field `connect_s` is a duration written
`connect: 5s`, an int field `max_body_bytes` a size written `max_body: 64MiB` (in a file the unit
stands with the value), `*_ratio` lies in 0-1, counts named `max_*` and `failures` are at least 1,
intervals, timeouts and weights are above 0, and no number is negative.
`metadata` of a field can say more, by the names in `_SAID`. The text under an attribute is its
description.

Binding, printing, the JSON Schema and the reference page all read these shapes.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from headrace.autoscaler.settings import PoolScaling
from headrace.core.admission import Tier
from headrace.core.latency import LatencyProfile
from headrace.core.settings import DispatcherSettings
from headrace.core.specs import Alias, Target
from headrace.edges.fleets.command import CommandSettings
from headrace.engine_model.measured import Interval, MeasuredProfile, Provenance, Residuals
from headrace.gateway.settings import Timeouts
from headrace.gateway.telemetry import TelemetrySettings


class Kind(StrEnum):
    """What one plain value is."""

    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    FLAG = "true or false"
    DURATION = "duration"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One plain value with the range or the words it may have."""

    kind: Kind
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    """An exclusive minimum."""
    below: float | None = None
    """An exclusive maximum."""
    choices: tuple[str, ...] = ()
    parameters: bool = False
    """Whether a choice may have `:name=number,…` behind it; these are checked with the parts."""
    enum: type[Enum] | None = None


@dataclass(frozen=True, slots=True)
class Several:
    """A list, bound to a tuple."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Named:
    """A mapping from free names to values of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Either:
    """Plain text or a section, told apart by how it is written."""

    text: Scalar
    section: Section


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a section."""

    key: str
    field: str
    shape: Shape
    doc: str
    required: bool
    nullable: bool
    default: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """A dataclass as a mapping.

    `named_by` is a field filled from the mapping's own key, `short` the one entry that may stand
    alone in place of the mapping.
    """

    cls: type
    entries: Mapping[str, Entry]
    doc: str
    named_by: str | None = None
    short: str | None = None


Value: TypeAlias = Any
"""What a field may hold, of whatever type it declares."""
Hint: TypeAlias = Any
"""A type annotation, resolved."""

Shape = Scalar | Several | Named | Either | Section

_MEASURED = {LatencyProfile, MeasuredProfile, Interval, Residuals, Provenance}
"""Written by a tool, read by a tool: names and numbers stay as they are, units in the name."""
_DERIVED = {
    (TelemetrySettings, "external_pools"),
    (DispatcherSettings, "tiers"),
    (DispatcherSettings, "admission"),
    (CommandSettings, "log_dir"),
    (PoolScaling, "cold_start"),
    (PoolScaling, "schedule"),
}
"""Follows from other parts of the file; cannot be set by itself."""
_NAMED_BY = {Alias: "name", Tier: "name"}
_COUNTS = {"failures", "concurrency", "decisions", "learn_from_streams"}
_SPANS = ("interval_s", "timeout_s", "window_s", "backoff_s")
_SAID = {"choices", "parameters", "minimum", "maximum", "above", "below"}
_FIELD_NAME = re.compile(r"`([a-z][a-z0-9_]*)`")
_SHORT = {Alias: "targets", Target: "model"}


@cache
def section_of(cls: type) -> Section:
    """The shape of a settings dataclass. Raises TypeError for a type no file can express."""
    hints = get_type_hints(cls, localns={"LatencyProfile": LatencyProfile})
    docs = attribute_docs(cls)
    named_by = _NAMED_BY.get(cls)
    entries = [
        _entry(cls, each, hints[each.name], docs.get(each.name, ""))
        for each in fields(cls)
        if each.name != named_by and (cls, each.name) not in _DERIVED
    ]
    doc = _in_the_files_words(cls, ast.get_docstring(source_of(cls)) or "")
    return Section(cls, {entry.key: entry for entry in entries}, doc, named_by, _SHORT.get(cls))


def _entry(cls: type, each: Field[Any], hint: Hint, doc: str) -> Entry:
    inner, nullable = _without_none(hint)
    default = each.default
    if each.default_factory is not MISSING:
        default = each.default_factory()
    return Entry(
        key=_key(cls, each.name),
        field=each.name,
        shape=_shape(cls, inner, each),
        doc=_in_the_files_words(cls, doc),
        required=default is MISSING,
        nullable=nullable,
        default=None if default is MISSING else default,
    )


def _key(cls: type, name: str) -> str:
    """The name of a field in a file: its unit goes with the value instead."""
    if cls in _MEASURED:
        return name
    shorter = name.removesuffix("_s")
    return shorter if shorter != name else name.removesuffix("_bytes")


def _in_the_files_words(cls: type, doc: str) -> str:
    """A description with the fields it names called as the file has them."""
    return _FIELD_NAME.sub(lambda found: f"`{_key(cls, found[1])}`", doc)


def _without_none(hint: Hint) -> tuple[Hint, bool]:
    if get_origin(hint) not in {Union, types.UnionType}:
        return hint, False
    options = [option for option in get_args(hint) if option is not type(None)]
    nullable = len(options) < len(get_args(hint))
    return (options[0] if len(options) == 1 else tuple(options)), nullable


def _shape(cls: type, hint: Hint, each: Field[Any]) -> Shape:
    if isinstance(hint, tuple):  # several options besides None: text or a section
        sections = [option for option in hint if is_dataclass(option)]
        if str in hint and len(sections) == 1 and len(hint) == 2:
            return Either(Scalar(Kind.TEXT), section_of(sections[0]))
        raise TypeError(f"{each.name}: a file cannot tell {hint} apart")
    if is_dataclass(hint):
        return section_of(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return Several(_shape(cls, arguments[0], each))
    if origin is dict and arguments[0] is str:
        return Named(_shape(cls, arguments[1], each))
    return _scalar(cls, hint, each)


def _scalar(cls: type, hint: Hint, each: Field[Any]) -> Scalar:
    name = each.name
    unread = [said for said in each.metadata if said not in _SAID]
    if unread:  # a bound that is written down and not kept
        raise TypeError(f"{name}: nobody reads {', '.join(unread)} of its metadata")
    if hint is bool:
        return Scalar(Kind.FLAG)
    if hint is str:
        parameters = bool(each.metadata.get("parameters", False))
        return Scalar(Kind.TEXT, choices=_choices(each), parameters=parameters)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Scalar(Kind.TEXT, choices=tuple(hint), enum=hint)
    if hint is int:
        size = name.endswith("_bytes")
        return _bounded(cls, Kind.SIZE if size else Kind.WHOLE, each)
    if hint is float:
        duration = name.endswith("_s") and cls not in _MEASURED
        return _bounded(cls, Kind.DURATION if duration else Kind.NUMBER, each)
    raise TypeError(f"{name}: no way to write {hint} in a file")


def _choices(each: Field[Any]) -> tuple[str, ...]:
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] = each.metadata.get("choices", ())
    return choices() if callable(choices) else choices


def _bounded(cls: type, kind: Kind, each: Field[Any]) -> Scalar:
    """The range the name promises; `metadata` overrules it."""
    name = each.name
    minimum, maximum, above = 0.0, None, None
    if name == "port":
        maximum = 65535.0
    elif name.endswith("_ratio") or name == "jitter":
        maximum = 1.0
    elif kind is not Kind.DURATION and (name.startswith("max_") or name in _COUNTS):
        minimum = 1.0
    elif name == "weight" or name.endswith(_SPANS) or cls is Timeouts:
        minimum, above = None, 0.0
    if "above" in each.metadata:
        minimum, above = None, each.metadata["above"]
    minimum = each.metadata.get("minimum", minimum)
    maximum = each.metadata.get("maximum", maximum)
    return Scalar(kind, minimum, maximum, above, each.metadata.get("below"))


def attribute_docs(cls: type) -> dict[str, str]:
    """Field name to the text under it, inherited fields included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if is_dataclass(base):
            docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    body = source_of(cls)
    docs: dict[str, str] = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            docs[statement.target.id] = inspect.cleandoc(str(following.value.value))
    return docs


@cache
def source_of(cls: type) -> ast.ClassDef:
    """The text of a settings dataclass. Raises TypeError where it cannot be found."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:
        # Of a compiled module, which keeps no text; its source lies beside it.
        compiled = Path(inspect.getfile(cls))
        beside = compiled.with_name(compiled.name.partition(".")[0]).with_suffix(".py")
        source = beside.read_text("utf-8")
    for each in ast.parse(source).body:
        if isinstance(each, ast.ClassDef) and each.name == cls.__name__:
            return each
    raise TypeError(f"the source of {cls.__qualname__} is not where it was")
