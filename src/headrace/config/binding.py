"""A tree of YAML nodes to the dataclass it describes, with every problem on the way.

Values are read by the type that is wanted, never by YAML's own guess: a model called `no` or
`1.10` is that text, and `yes` is not a flag.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headrace.config.document import Problem, join, line_of
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
)
from headrace.core.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_number,
    parse_size,
    parse_whole,
)

MISSING_VALUE = object()
"""What a node that cannot be bound becomes; its problem is recorded."""

_SECRET_WORDS = ("key", "secret", "passw", "pwd", "credential", "bearer", "authorization")
"""What the name of a secret holds, also run together as in `apikey`."""
_COUNT = re.compile(r"[0-9][0-9_.,]{0,11} ?[kKmM]?")
"""So a number of tokens is written; a token that opens doors is longer, or no number."""
_NULLS = {"", "~", "null", "Null", "NULL"}
_FLAGS = {"true": True, "false": False}
_SHOWN_CHARACTERS = 60

_EXPECTED = {
    Kind.TEXT: "text",
    Kind.WHOLE: "a whole number",
    Kind.NUMBER: "a number",
    Kind.FLAG: "true or false",
    Kind.DURATION: "a duration such as 500ms, 2s or 5m, or a number of seconds",
    Kind.SIZE: "a size such as 64KiB or 16MiB, or a whole number of bytes",
}


class Binder:
    """Binds one document.

    A value that is wrong is recorded and replaced by its default, so that one pass finds all
    that is wrong; `complete` says whether nothing had to be left out for want of a default.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        """Line of each path that the document gives."""
        self.complete = True

    def bind(self, shape: Shape, node: Node, path: str, name: str = "") -> Value:
        """The value of `node`, or MISSING_VALUE. `name` fills the field a section is named by."""
        self.lines[path] = line_of(node)
        match shape:
            case Scalar():
                return self._scalar(shape, node, path)
            case Several(item):
                return self._several(item, node, path)
            case Named(item):
                return self._named(item, node, path)
            case Either(text, section):
                return self.bind(text if isinstance(node, ScalarNode) else section, node, path)
            case Section():
                return self._section(shape, node, path, name)

    def _fail(self, node: Node, path: str, message: str) -> Value:
        self.problems.append(Problem(line_of(node), path, message))
        return MISSING_VALUE

    # ------------------------------------------------------------ plain values

    def _scalar(self, shape: Scalar, node: Node, path: str) -> Value:
        expected = _EXPECTED[shape.kind]
        if not isinstance(node, ScalarNode) or is_null(node):
            return self._fail(node, path, f"is {shown(path, node)}; expected {expected}")
        try:
            value = _read(shape.kind, node)
        except ValueError as error:
            return self._fail(node, path, f"is {shown(path, node)}; expected {error}")
        if problem := _out_of_range(shape, value):
            return self._fail(node, path, f"is {shown(path, node)}; {problem}")
        choice = value.partition(":")[0].strip() if shape.parameters else value
        if shape.choices and choice not in shape.choices:
            return self._fail(
                node, path, f"is {shown(path, node)}; {_suggest(str(choice), shape.choices)}"
            )
        return shape.enum(value) if shape.enum else value

    # ------------------------------------------------------------ lists and mappings

    def _several(self, item: Shape, node: Node, path: str) -> Value:
        if not isinstance(node, SequenceNode):
            return self._fail(node, path, f"is {shown(path, node)}; expected a list")
        return self._items(item, node.value, path)

    def _items(self, item: Shape, nodes: Iterable[Node], path: str) -> tuple[Value, ...]:
        values = [self.bind(item, each, f"{path}[{index}]") for index, each in enumerate(nodes)]
        return tuple(self._present(values))

    def _present(self, values: list[Value]) -> list[Value]:
        present = [value for value in values if value is not MISSING_VALUE]
        self.complete &= len(present) == len(values)
        return present

    def _named(self, item: Shape, node: Node, path: str) -> Value:
        if is_null(node):
            return {}
        if not isinstance(node, MappingNode):
            return self._fail(node, path, f"is {shown(path, node)}; expected a mapping of names")
        bound = {
            key.value: self.bind(item, value, join(path, key.value), key.value)
            for key, value in node.value
        }
        self._present(list(bound.values()))
        return {name: value for name, value in bound.items() if value is not MISSING_VALUE}

    # ------------------------------------------------------------ sections

    def _section(self, section: Section, node: Node, path: str, name: str) -> Value:
        values: dict[str, Value] = {section.named_by: name} if section.named_by else {}
        if section.short and not isinstance(node, MappingNode):
            entry = section.entries[section.short]
            values[entry.field] = self._short(entry.shape, node, path)
            return MISSING_VALUE if values[entry.field] is MISSING_VALUE else section.cls(**values)
        if is_null(node):
            node = MappingNode(node.tag, [], node.start_mark, node.end_mark)
        if not isinstance(node, MappingNode):
            return self._fail(node, path, f"is {shown(path, node)}; expected a mapping of keys")
        self._entries(section, node, path, values)
        return self._build(section, node, path, values)

    def _short(self, shape: Shape, node: Node, path: str) -> Value:
        """One value standing for its section; a single one stands for a list of one."""
        if isinstance(shape, Several) and isinstance(node, ScalarNode):
            item = self.bind(shape.item, node, path)
            return item if item is MISSING_VALUE else (item,)
        return self.bind(shape, node, path)

    def _entries(
        self, section: Section, node: MappingNode, path: str, values: dict[str, Value]
    ) -> None:
        for key, value in node.value:
            inner = join(path, key.value)
            entry = section.entries.get(key.value)
            if entry is None:
                what = f"unknown key (its value is {shown(inner, value)})"
                self._fail(key, inner, f"{what}; {_suggest(key.value, section.entries)}")
                continue
            bound = self._entry(entry, value, inner)
            if bound is not MISSING_VALUE:
                values[entry.field] = bound

    def _entry(self, entry: Entry, node: Node, path: str) -> Value:
        if entry.nullable and is_null(node):
            return None
        return self.bind(entry.shape, node, path)

    def _build(self, section: Section, node: Node, path: str, values: dict[str, Value]) -> Value:
        given = {key.value for key, _ in node.value}
        lacking = [
            entry
            for entry in section.entries.values()
            if entry.required and entry.field not in values
        ]
        for entry in lacking:
            if entry.key not in given:
                what = entry.doc.partition("\n")[0]
                message = f"is missing: {what}" if what else "is missing"
                self._fail(node, join(path, entry.key), message)
        if lacking:
            return MISSING_VALUE
        try:
            return section.cls(**values)
        except ValueError as error:  # a rule between fields, kept by the dataclass itself
            return self._fail(node, path, str(error))


def is_null(node: Node) -> bool:
    """Whether a node is written as nothing: empty, `~` or `null`, not quoted."""
    return isinstance(node, ScalarNode) and node.style is None and node.value in _NULLS


def _read(kind: Kind, node: ScalarNode) -> Value:
    text = node.value
    if kind is Kind.TEXT:
        return text
    if kind is Kind.DURATION:
        return parse_duration(text)
    if kind is Kind.SIZE:
        return parse_size(text)
    if node.style is not None:
        raise ValueError(f"{_EXPECTED[kind]} without quotes")
    if kind is Kind.FLAG:
        if text.lower() not in _FLAGS:
            raise ValueError(_EXPECTED[kind])
        return _FLAGS[text.lower()]
    try:
        number = parse_whole(text) if kind is Kind.WHOLE else parse_number(text)
    except ValueError:
        raise ValueError(_EXPECTED[kind]) from None
    if not math.isfinite(number):
        raise ValueError(_EXPECTED[kind])
    return number


def _out_of_range(shape: Scalar, value: Value) -> str | None:
    if shape.kind in {Kind.TEXT, Kind.FLAG}:
        return None
    if shape.minimum is not None and value < shape.minimum:
        return f"must be at least {_figure(shape.kind, shape.minimum)}"
    if shape.above is not None and value <= shape.above:
        return f"must be above {_figure(shape.kind, shape.above)}"
    if shape.maximum is not None and value > shape.maximum:
        return f"must be at most {_figure(shape.kind, shape.maximum)}"
    if shape.below is not None and value >= shape.below:
        return f"must be below {_figure(shape.kind, shape.below)}"
    return None


def _figure(kind: Kind, bound: float) -> str:
    if kind is Kind.DURATION:
        return format_duration(bound)
    return format_size(int(bound)) if kind is Kind.SIZE else f"{bound:g}"


def _suggest(given: str, valid: Iterable[str]) -> str:
    known = list(valid)
    near = difflib.get_close_matches(given, known, n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"expected one of: {', '.join(known)}"


def shown(path: str, node: Node) -> str:
    """A node's value as an error may print it: short, and never what could be a secret."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    assert isinstance(node, ScalarNode)
    if is_null(node):
        return "empty"
    key = path.rpartition(".")[2].partition("[")[0].lower()
    if _names_secret(key, node.value) or "@" in node.value:
        return "***"
    text = node.value
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "…"
    return repr(text) if node.style is not None or not _plain_number(text) else text


def _names_secret(key: str, value: str) -> bool:
    """Whether a key of this name may hold a secret; a number of tokens is none."""
    if any(word in key for word in _SECRET_WORDS):
        return True
    return "token" in key.replace("-", "_").split("_") and not _COUNT.fullmatch(value)


def _plain_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True
