"""Records with their constructors written out, as the compiler needs them.

A dataclass is given its `__init__` when its module is loaded. The compiler does not see it: it is
interpreted, and so is whatever calls it. A class that `message` decorates is not compiled at all.
For the compiler both have their constructor as text, in place of their docstring, so that each line
keeps its number in tracebacks. They stay dataclasses, which are compared and shown as before.
Frozen ones, mostly settings, and those with a field that is made anew for each object are left as
they are.

A message is also kept from the collector of garbage, which looks for objects that hold each other:
it holds only what was there before it, and nobody changes it. So it takes less memory and time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_MESSAGE = "message"
_IMPORT = "from headrace.core.message import message"
_IMPORTED = "from dataclasses import dataclass; from typing import TYPE_CHECKING"
# Read by the compiler alone: whoever runs what it makes need not have the package. Both lines stand
# where two blank ones are before a class.
_ACYCLIC = ("if TYPE_CHECKING: from mypy_extensions import mypyc_attr", "@mypyc_attr(acyclic=True)")


@contextmanager
def in_place(paths: Iterable[str]) -> Iterator[None]:
    """Within, these modules have their constructors written out; behind, they are as before."""
    before = {Path(path): Path(path).read_bytes() for path in paths}
    try:
        for path, source in before.items():
            path.write_text(written_out(source.decode()))
        yield
    finally:
        for path, source in before.items():
            path.write_bytes(source)


def written_out(source: str) -> str:
    """The same module with constructors written out, line by line."""
    lines = source.split("\n")
    for each in ast.parse(source).body:
        if isinstance(each, ast.ClassDef) and len(each.decorator_list) == 1:
            _write_out(each, lines)
    return "\n".join(lines).replace(_IMPORT, _IMPORTED)


def _write_out(made: ast.ClassDef, lines: list[str]) -> None:
    """Change the lines of one class, unless it is to stay as it is."""
    options = _options(made.decorator_list[0])
    fields = [each for each in made.body if isinstance(each, ast.AnnAssign)]
    docstring = made.body[0]
    if options is None or "frozen=True" in options or ast.get_docstring(made) is None:
        return
    if any(map(_is_made_anew, fields)) or any(map(_is_constructor, made.body)):
        return
    decorator = made.decorator_list[0]
    if isinstance(decorator, ast.Name):
        lines[decorator.lineno - 3 : decorator.lineno - 1] = _ACYCLIC
    _replace(lines, decorator, f"@dataclass({', '.join((*options, 'init=False'))})")
    if fields:
        _replace(lines, docstring, f"    {_constructor(fields)}")


def _options(decorator: ast.expr) -> list[str] | None:
    """What `dataclass` is told; None where the class is none."""
    if isinstance(decorator, ast.Name) and decorator.id == _MESSAGE:
        return ["unsafe_hash=True"]
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "dataclass":
        return [ast.unparse(each) for each in decorator.keywords]
    return None


def _is_made_anew(field: ast.AnnAssign) -> bool:
    return isinstance(field.value, ast.Call) and ast.unparse(field.value.func) == "field"


def _is_constructor(part: ast.stmt) -> bool:
    return isinstance(part, ast.FunctionDef) and part.name in {"__init__", "__post_init__"}


def _replace(lines: list[str], part: ast.expr | ast.stmt, text: str) -> None:
    """Put `text` on the first line of this part and nothing on its others."""
    begin, end = part.lineno - 1, part.end_lineno or part.lineno
    # Only the sign before a decorator stands on a line of the part besides it.
    lines[begin:end] = [text, *[""] * (end - begin - 1)]


def _constructor(fields: list[ast.AnnAssign]) -> str:
    """One line: the constructor that takes these fields in this order."""
    taken = ["self"]
    for each in fields:
        default = "" if each.value is None else f" = {ast.unparse(each.value)}"
        taken.append(f"{ast.unparse(each.target)}: {ast.unparse(each.annotation)}{default}")
    names = [ast.unparse(each.target) for each in fields]
    given = "; ".join(f"self.{name} = {name}" for name in names)
    return f"def __init__({', '.join(taken)}) -> None: {given}"
