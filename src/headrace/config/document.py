"""YAML text to a tree of nodes that still know their lines, and the problems found in it."""

from __future__ import annotations

from dataclasses import dataclass

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_DOCUMENT_BYTES = 1024 * 1024
"""A configuration above this is a mistake, not a configuration."""
MAX_DEPTH = 32
MAX_NODES = 100_000
"""Nodes counted with every use of an anchor, so that aliases cannot multiply without end."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a document: where it is and what to do about it."""

    line: int
    """From 1; 0 where no line can be named."""
    path: str
    """As in `pools[0].model`; empty for the document itself."""
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        what = f"{self.path}: " if self.path else ""
        return f"{where}{what}{self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used, with every problem found in it."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


def line_of(node: Node) -> int:
    """The line of a node, from 1."""
    return node.start_mark.line + 1 if node.start_mark else 0


def parse(text: str, source: str) -> Node:
    """Parse one YAML document; an empty one is an empty mapping.

    Raises ConfigError for text that is not YAML, that is too large or too deep, or that has
    a key twice in one mapping (YAML forbids it, and the loser would vanish silently).
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        message = f"is {len(text)} characters long; at most {MAX_DOCUMENT_BYTES} are read"
        raise ConfigError(source, [Problem(0, "", message)])
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        problem = Problem(mark.line + 1 if mark else 0, "", f"not valid YAML: {reason}")
        raise ConfigError(source, [problem]) from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(source, [Problem(0, "", f"not valid YAML: {reason}")]) from None
    if node is None:
        return MappingNode("tag:yaml.org,2002:map", [])
    problems = _Inspection().run(node)
    if problems:
        raise ConfigError(source, problems)
    return node


class _Inspection:
    """One walk over the tree that finds duplicate keys and refuses endless documents."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.nodes = 0

    def run(self, root: Node) -> list[Problem]:
        self._visit(root, "", 0)
        if self.nodes > MAX_NODES:
            self.problems.append(Problem(0, "", f"has more than {MAX_NODES} values"))
        return self.problems

    def _visit(self, node: Node, path: str, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            return
        if depth > MAX_DEPTH:
            self.problems.append(
                Problem(line_of(node), path, f"is nested more than {MAX_DEPTH} levels deep")
            )
            self.nodes = MAX_NODES  # one such message is enough: stop the walk
            return
        if isinstance(node, MappingNode):
            self._visit_mapping(node, path, depth)
        elif isinstance(node, SequenceNode):
            for index, item in enumerate(node.value):
                self._visit(item, f"{path}[{index}]", depth + 1)

    def _visit_mapping(self, node: MappingNode, path: str, depth: int) -> None:
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.problems.append(Problem(line_of(key), path, "a key must be plain text"))
                continue
            inner = join(path, key.value)
            if key.value in first_lines:
                message = f"is given twice, first on line {first_lines[key.value]}; keep one"
                self.problems.append(Problem(line_of(key), inner, message))
            first_lines.setdefault(key.value, line_of(key))
            self._visit(value, inner, depth + 1)


def join(path: str, key: str) -> str:
    """The path of `key` inside `path`; keys that are not plain words are quoted."""
    if key and all(part.isalnum() for part in key.replace("-", "_").split("_") if part):
        return f"{path}.{key}" if path else key
    return f'{path}["{key}"]'
